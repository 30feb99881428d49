"""A ptp4l of the tests' own: answers management messages on a Unix socket, as oddly as it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from agents.ptp.messages import Id

CLOCK = bytes.fromhex("7a5253fffe1fd490")
MASTER = bytes.fromhex("860bb4fffe2a41e2")
OTHER = bytes.fromhex("aaaaaafffebbbbbb")

_STATE = {"LISTENING": 4, "MASTER": 6, "UNCALIBRATED": 8, "SLAVE": 9}


class FakePtp4l:
    """Attributes are what it answers; ``odd`` may replace the datagrams of an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = ["SLAVE"]
        self.offset_ns, self.path_delay_ns = 250.0, 2000.0
        self.grandmaster = MASTER
        self.ingress_ns = 1
        self.utc_offset_s, self.time_flags = 37, 0
        self.odd: Callable[[Id, bytes], list[bytes]] | None = None
        self.silent_for: set[Id] = set()
        self.domain: tuple[int, int] | None = None
        """(domain, transportSpecific) in which alone it answers, as a real one; None: in all."""
        self.asked: list[tuple[Id, int, int, int]] = []
        """(managementId, port, domain, transportSpecific) of every question."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                question, peer = self._socket.recvfrom(1500)
            except OSError:
                return
            if not question:
                return
            id, port = Id(int.from_bytes(question[52:54], "big")), int.from_bytes(question[42:44], "big")
            self.asked.append((id, port, question[4], question[0] >> 4))
            if id in self.silent_for or self.domain not in (None, self.asked[-1][2:]):
                continue
            answer = self.answer(question, id, port)
            for datagram in self.odd(id, answer) if self.odd else [answer]:
                with contextlib.suppress(OSError):
                    self._socket.sendto(datagram, peer)

    def answer(self, question: bytes, id: Id, port: int) -> bytes:
        data = self._data(id, port)
        header = bytearray(question[:34])
        header[2:4] = (54 + len(data)).to_bytes(2, "big")
        header[20:30] = CLOCK + (0).to_bytes(2, "big")
        tlv = struct.pack("!HHH", 1, 2 + len(data), id) + data
        return bytes(header) + question[20:30] + bytes((0, 0, 2, 0)) + tlv

    def _data(self, id: Id, port: int) -> bytes:
        match id:
            case Id.DEFAULT_DATA_SET:
                return struct.pack(
                    "!BBHBBBHB8sBB", 3, 0, len(self.states), 128, 255, 254, 0, 128, CLOCK, 0, 0
                )
            case Id.CURRENT_DATA_SET:
                offset, delay = round(self.offset_ns * 65536), round(self.path_delay_ns * 65536)
                return struct.pack("!Hqq", 1, offset, delay)
            case Id.PARENT_DATA_SET:
                return struct.pack(
                    "!8sHBBHiBBBHB8s", self.grandmaster, 1, 0, 0, 0, 0, 128, 6, 33, 0, 128, self.grandmaster
                )
            case Id.TIME_PROPERTIES_DATA_SET:
                return struct.pack("!hBB", self.utc_offset_s, self.time_flags, 0xA0)
            case Id.PORT_DATA_SET:
                state = _STATE[self.states[port - 1]]
                return struct.pack("!8sHBbqbBbBbB", CLOCK, port, state, 0, 0, 1, 3, 0, 1, 0, 2)
            case Id.TIME_STATUS_NP:
                return struct.pack(
                    "!qqiiH12si8s", 0, self.ingress_ns, 0, 0, 0, bytes(12), 1, self.grandmaster
                )
