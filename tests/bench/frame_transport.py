"""A frame's round trip through Gabriel with its timestamps, against a bare socket with the same bytes."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.common import Row, Skip, child, no_collection, percentile

if TYPE_CHECKING:
    from openrtist.picture import Picture

NAME = "frame-transport"
SIZES = ((160, 80), (640, 480))
ROUNDS = 3
FPS = 60.0
_LENGTH = struct.Struct("!I")


def serve_gabriel(pipe: Connection) -> None:
    """The OpenRTiST server with an engine that gives the JPEG back."""
    from gabriel_protocol.v1 import gabriel_pb2
    from gabriel_server import cognitive_engine

    from openrtist.engine import StyleEngine
    from openrtist.payload import Frame, Reply
    from openrtist.server import StyleServer

    logging.getLogger("gabriel_server").setLevel(logging.CRITICAL)

    class Echo(StyleEngine):
        def __init__(self) -> None:
            super().__init__({"echo": None})  # type: ignore[dict-item]

        def handle(self, input_frame: Any, client_info: Any) -> Any:
            frame = Frame.unpack(input_frame.byte_payload)
            status = gabriel_pb2.Status(code=gabriel_pb2.StatusCode.SUCCESS)
            reply = Reply(frame.sequence, 0, 0, 0, 0, 0, False, frame.jpeg)
            return cognitive_engine.Result(status=status, payload=reply.pack())

    server = StyleServer(Echo(), "127.0.0.1:0")
    threading.Thread(target=lambda: (pipe.recv(), server.stop()), daemon=True).start()
    server.run(pipe.send)


def serve_socket(pipe: Connection) -> None:
    """A TCP server that sends back each length-prefixed message; the end of the connection ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (message := _receive(connection)) is not None:
                connection.sendall(_LENGTH.pack(len(message)) + message)


def _receive(connection: socket.socket) -> bytes | None:
    head = connection.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(head) < _LENGTH.size:
        return None
    return connection.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL)


class _Still:
    """A source that shows one picture for ever."""

    name = "still"
    errors = 0

    def __init__(self, width: int, height: int) -> None:
        rng = np.random.default_rng(1)
        y, x = np.mgrid[0:height, 0:width]
        waves = np.stack([128 + 80 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)], axis=-1)
        self._shown: Picture = np.clip(waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)

    def at(self, _seconds: float) -> Picture:
        return self._shown

    def close(self) -> None:
        pass


def run(effort: float) -> list[Row]:
    """Time from a frame's first timestamp at the client to its last, beside that of the same bytes.

    The whole client and the whole server (in a process of its own) run, with an engine that gives back the
    JPEG that it gets, one frame under way at a time. The socket carries as many bytes each way between two
    processes, with a length before them and nothing else. Both take turns in blocks.
    """
    try:
        from openrtist import payload, picture
        from openrtist.client import Client, FlowName, Pace
    except ModuleNotFoundError as error:
        raise Skip(f"{error.name} is not installed (pip install -e '.[openrtist]')") from error
    logging.getLogger("gabriel_client").setLevel(logging.CRITICAL)
    n = max(10, int(300 * effort))
    rows = []
    with child(serve_gabriel) as server, child(serve_socket) as echo:
        address = server.receive()
        with socket.create_connection(("127.0.0.1", echo.receive())) as bare:
            bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for width, height in SIZES:
                source = _Still(width, height)
                jpeg = picture.encode(source.at(0.0), picture.UP_QUALITY)
                message = payload.Frame(0, "", jpeg).pack()
                carried: list[float] = []
                alone: list[float] = []
                for _ in range(ROUNDS):
                    client = Client(
                        address,
                        source,
                        name=FlowName("bench", "ue-1", "ar"),
                        pace=Pace(fps=FPS, tokens=1, frames=n),
                    )
                    client.run()
                    carried += [1e3 * ms for ms in client.round_trips_ms]
                    with no_collection():
                        for _ in range(n):
                            start = time.perf_counter_ns()
                            bare.sendall(_LENGTH.pack(len(message)) + message)
                            _receive(bare)
                            alone.append((time.perf_counter_ns() - start) / 1e3)
                            time.sleep(1 / FPS)
                p50, bare_p50 = percentile(carried, 50), percentile(alone, 50)
                rows.append(
                    Row(
                        NAME,
                        f"round trip of a frame of {width}x{height} without an engine, p50",
                        "us",
                        p50,
                        bare_p50,
                        "bare TCP socket",
                        p50 / bare_p50,
                        "",
                        {
                            "frames": len(carried),
                            "frame_bytes": len(message),
                            "p50_us": p50,
                            "p90_us": percentile(carried, 90),
                            "socket_p50_us": bare_p50,
                            "socket_p90_us": percentile(alone, 90),
                            "added_p50_us": p50 - bare_p50,
                        },
                        f"Gabriel and the four timestamps add {(p50 - bare_p50) / 1e3:.2f} ms to a frame of"
                        f" {len(message):,} bytes ({width}x{height}).",
                    )
                )
        server.pipe.send("stop")
    return rows
