"""Asks linuxptp's ptp4l over its Unix domain socket how well the clock of this host is synchronised."""

from __future__ import annotations

import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agents.ptp import messages
from agents.ptp.messages import (
    ANY_CLOCK,
    BadManagement,
    CurrentDataSet,
    DataSet,
    DefaultDataSet,
    Id,
    ManagementError,
    ParentDataSet,
    PortDataSet,
    PortIdentity,
    TimeProperties,
    TimeStatus,
)

SOCKETS: tuple[Path, ...] = (
    Path("/var/run/ptp4lro"),
    Path("/run/ptp/ptp4lro"),
    Path("/var/run/ptp4l"),
    Path("/run/ptp/ptp4l"),
)
"""Where ptp4l listens, the read-only sockets (linuxptp 4.0 and later) first."""

MAX_PORTS = 64
_STRAY = 64
"""Answers to others, or of no use, after which a question counts as not answered."""

_OWN = re.compile(r"ptp-agent-\d+-[0-9a-f]{8}")
_MAX_PATH = 107
"""Bytes of a Unix socket's path (unix(7): 108 with the zero at its end)."""

_T = TypeVar("_T", bound=DataSet)


class PtpError(OSError):
    """ptp4l did not tell; the text names the socket and what was asked."""


@dataclass(frozen=True, slots=True)
class PtpReading:
    """What ptp4l says at one moment.

    ``state`` is that of the port that follows a master; where none does, MASTER if a port is one, else
    that of the first port. ``offset_ns`` and ``path_delay_ns`` are those of the last Sync, which arrived at
    ``ingress_ns`` of the clock that ptp4l steers (0: none since it was started). ``log_sync_interval`` is
    that of the port's own configuration, the logarithm to base 2 of seconds. ``utc_offset_s`` is what the
    clock that ptp4l steers is ahead of UTC: TAI less UTC, 0 where the time of the network is not TAI.
    """

    state: str
    clock: bytes
    offset_ns: float
    path_delay_ns: float
    steps_removed: int
    grandmaster: bytes
    grandmaster_class: int
    ingress_ns: int
    log_sync_interval: int
    utc_offset_s: int

    @property
    def follows(self) -> bool:
        """Whether a port follows a master; the grandmaster of one that does not is the last that was."""
        return self.state in ("SLAVE", "UNCALIBRATED")

    @property
    def is_grandmaster(self) -> bool:
        """Whether the time comes from this host itself."""
        return self.grandmaster == self.clock


class PtpClient:
    """Reads a ptp4l.

    A question is a GET that ptp4l does not pass on to the network; it is asked once more where no answer
    comes within ``timeout_s``. The socket is opened anew after every error, so a ptp4l that was restarted is
    found again. ``paths`` are tried in their order. ``domain`` and ``transport_specific`` are those of
    ptp4l's configuration, which ignores questions of others: where one of them is None, it is looked for, and
    where ptp4l answers in another than the one that is given, the error says which. ptp4l answers to a socket
    of ours in ``reply_dir``, a folder that it must see (systemd's PrivateTmp would hide it); sockets that
    killed processes left there are removed at the start.

    Not for several threads. ValueError for a ``reply_dir`` whose path leaves no room for the socket's name.
    """

    def __init__(
        self,
        paths: Sequence[Path] = SOCKETS,
        *,
        domain: int | None = None,
        transport_specific: int | None = None,
        timeout_s: float = 0.5,
        reply_dir: Path | None = None,
    ) -> None:
        self._paths = tuple(paths)
        self._wanted = domain, transport_specific
        self.domain = domain or 0
        """That of the questions."""
        self.transport_specific = transport_specific or 0
        """That of the questions."""
        self._timeout_s = timeout_s
        self._reply_dir = reply_dir or Path(os.environ.get("RUNTIME_DIRECTORY", tempfile.gettempdir()))
        self._source = PortIdentity(ANY_CLOCK, os.getpid() & 0xFFFF)
        self._sequence = 0
        self._socket: socket.socket | None = None
        self._own: Path | None = None
        length, room = len(os.fsencode(self._reply_dir)), _MAX_PATH - len(f"/{self._own_name()}")
        if length > room:
            raise ValueError(
                f"--reply-dir: {self._reply_dir}: {length} bytes are too long for a Unix socket in it,"
                f" {room} at most"
            )
        self._clear_left_behind()
        self._peer = ""
        self.strays = 0
        """Datagrams that were no answer to what had been asked."""

    @staticmethod
    def _own_name() -> str:
        return f"ptp-agent-{os.getpid()}-{secrets.token_hex(4)}"

    def _clear_left_behind(self) -> None:
        for path in self._reply_dir.glob("ptp-agent-*"):
            if not (_OWN.fullmatch(path.name) and path.is_socket()):
                continue
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect(str(path))
                except ConnectionRefusedError:
                    # Nobody has it open. A process id would not tell: it may be of another container.
                    with suppress(OSError):
                        path.unlink()
                except OSError:
                    pass  # it lives, or is none of ours

    def close(self) -> None:
        """Close the socket. May be called twice; a later question opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._own is not None:
            self._own.unlink(missing_ok=True)
            self._own = None

    def read(self) -> PtpReading:
        """Ask for everything. Raises :class:`PtpError`."""
        try:
            default = self._ask(Id.DEFAULT_DATA_SET, DefaultDataSet)
            if not 1 <= default.ports <= MAX_PORTS:
                raise PtpError(f"{self._peer}: DEFAULT_DATA_SET: {default.ports} ports")
            ports = [self._ask(Id.PORT_DATA_SET, PortDataSet, n) for n in range(1, default.ports + 1)]
            current = self._ask(Id.CURRENT_DATA_SET, CurrentDataSet)
            parent = self._ask(Id.PARENT_DATA_SET, ParentDataSet)
            properties = self._ask(Id.TIME_PROPERTIES_DATA_SET, TimeProperties)
            status = self._ask(Id.TIME_STATUS_NP, TimeStatus)
        except BaseException:
            self.close()
            raise
        following = [p for p in ports if p.state in ("SLAVE", "UNCALIBRATED")]
        leading = [p for p in ports if p.state == "MASTER"]
        port = (following or leading or ports)[0]
        return PtpReading(
            state=port.state,
            clock=default.clock,
            offset_ns=current.offset_ns,
            path_delay_ns=max(0.0, current.path_delay_ns),
            steps_removed=current.steps_removed,
            grandmaster=parent.grandmaster,
            grandmaster_class=parent.grandmaster_class,
            ingress_ns=status.ingress_ns,
            log_sync_interval=port.log_sync_interval,
            utc_offset_s=properties.utc_offset_s if properties.ptp_timescale else 0,
        )

    def _ask(self, id: Id, kind: type[_T], port: int = messages.ANY_PORT) -> _T:
        for _ in range(2):
            data = self._exchange(id, port)
            if data is None:
                continue
            if isinstance(data, ManagementError):
                raise PtpError(f"{self._peer}: {id.name}: ptp4l answers {data.error}")
            assert isinstance(data, kind)
            return data
        if id is Id.DEFAULT_DATA_SET and self._moved():
            return self._ask(id, kind, port)
        raise PtpError(f"{self._peer}: {id.name}: no answer within {2 * self._timeout_s:g} s")

    def _moved(self) -> bool:
        """Whether ptp4l answers elsewhere than it is asked, where it is asked from now on; PtpError where
        it is not to be."""
        found = self._search()
        if found in (None, (self.domain, self.transport_specific)):
            return False
        assert found is not None
        names = ("domain", "--domain"), ("transportSpecific", "--transport-specific")
        wrong = [
            f"{name} {is_}, not {wanted}: {option} {is_}"
            for (name, option), is_, wanted in zip(names, found, self._wanted, strict=True)
            if wanted not in (None, is_)
        ]
        if wrong:
            raise PtpError(f"{self._peer}: ptp4l is in {', in '.join(wrong)}")
        self.domain, self.transport_specific = found
        return True

    def _search(self) -> tuple[int, int] | None:
        """Domain and transportSpecific in which ptp4l answers; None where it does in none of those of IEEE
        1588 and of IEEE 802.1AS."""
        connection = self._connected()
        asked: dict[int, tuple[int, int]] = {}
        end = time.monotonic() + self._timeout_s
        with self._named(Id.DEFAULT_DATA_SET):
            for transport_specific in (0, 1):
                for domain in range(256):
                    self._sequence = (self._sequence + 1) & 0xFFFF
                    asked[self._sequence] = domain, transport_specific
                    connection.settimeout(max(1e-3, end - time.monotonic()))
                    try:
                        connection.send(self._question(Id.DEFAULT_DATA_SET, *asked[self._sequence]))
                    except TimeoutError:
                        return None
                    if (found := self._answered(connection, asked, time.monotonic())) is not None:
                        return found
            return self._answered(connection, asked, end)

    def _answered(
        self, connection: socket.socket, asked: dict[int, tuple[int, int]], end: float
    ) -> tuple[int, int] | None:
        """Where the first answer that comes until ``end`` is from."""
        for _ in range(_STRAY):
            # At the latest moment what is there already is taken; 0 would be a socket that does not wait.
            connection.settimeout(max(1e-6, end - time.monotonic()))
            try:
                response = messages.parse(connection.recv(messages.MAX_MESSAGE))
            except TimeoutError:
                return None
            except BadManagement:
                self.strays += 1
                continue
            if response.target == self._source and response.sequence in asked:
                return asked[response.sequence]
            self.strays += 1
        return None

    def _question(self, id: Id, domain: int, transport_specific: int, port: int = messages.ANY_PORT) -> bytes:
        return messages.request(
            id,
            sequence=self._sequence,
            source=self._source,
            port=port,
            domain=domain,
            transport_specific=transport_specific,
        )

    def _exchange(self, id: Id, port: int) -> DataSet | None:
        """One question; None where the time is up."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        question = self._question(id, self.domain, self.transport_specific, port)
        connection = self._connected()
        end = time.monotonic() + self._timeout_s
        with self._named(id):
            connection.settimeout(self._timeout_s)
            connection.send(question)
            for _ in range(_STRAY):
                left = end - time.monotonic()
                if left <= 0:
                    return None
                connection.settimeout(left)
                try:
                    answer = connection.recv(messages.MAX_MESSAGE)
                except TimeoutError:
                    return None
                data = self._answer(answer, id, port)
                if data is not None:
                    return data
        raise PtpError(f"{self._peer}: {id.name}: {_STRAY} datagrams and no answer among them")

    def _answer(self, answer: bytes, id: Id, port: int) -> DataSet | None:
        """What the answer says; None where it is to another question or nonsense."""
        try:
            response = messages.parse(answer)
        except BadManagement:
            self.strays += 1
            return None
        data = response.data
        own = response.sequence == self._sequence and response.target == self._source
        if isinstance(data, ManagementError):
            about = data.id == id
        else:
            about = messages.ID_OF[type(data)] == id
        if isinstance(data, PortDataSet) and port != messages.ANY_PORT:
            about = about and data.port.port == port
        if not (own and about):
            self.strays += 1
            return None
        return data

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        refused = []
        own = self._reply_dir / self._own_name()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            try:
                connection.bind(str(own))
            except OSError as error:
                why = error.strerror or error
                raise PtpError(f"{own}: cannot be bound for ptp4l's answers: {why}") from error
            self._own = own
            # ptp4l runs as root or as a user of its own: either must be able to answer.
            own.chmod(0o666)
            for path in self._paths:
                try:
                    connection.connect(str(path))
                except OSError as error:
                    refused.append(f"{path}: {error.strerror or error}")
                    continue
                self._socket, self._peer = connection, str(path)
                return connection
            raise PtpError("no ptp4l: " + "; ".join(refused))
        except BaseException:
            connection.close()
            own.unlink(missing_ok=True)
            self._own = None
            raise

    @contextmanager
    def _named(self, id: Id) -> Iterator[None]:
        try:
            yield
        except PtpError:
            raise
        except TimeoutError as error:
            raise PtpError(f"{self._peer}: {id.name}: ptp4l does not take the question") from error
        except OSError as error:
            raise PtpError(f"{self._peer}: {id.name}: {error.strerror or error}") from error
