"""PTP management messages (IEEE 1588-2008, clause 15): bytes in, bytes out, no I/O.

:func:`request` makes a GET, :func:`parse` reads what comes back. Only the data sets that tell how well a
clock is synchronised are known here. ``TIME_STATUS_NP`` is linuxptp's own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

ANY_CLOCK = bytes(8)
ANY_PORT = 0xFFFF
MAX_MESSAGE = 1500

_MANAGEMENT = 0xD
_VERSION = 2
_GET, _RESPONSE = 0, 2
_TLV_DATA, _TLV_ERROR = 0x0001, 0x0002
_CONTROL, _LOG_INTERVAL = 4, 0x7F

_HEADER = struct.Struct("!BBHBBHqI8sHHBB")
_BODY = struct.Struct("!8sHBBBB")
_TLV = struct.Struct("!HHH")

_DEFAULT = struct.Struct("!BBHBBBHB8sBB")
_CURRENT = struct.Struct("!Hqq")
_PARENT = struct.Struct("!8sHBBHiBBBHB8s")
_TIME_PROPERTIES = struct.Struct("!hBB")
_PORT = struct.Struct("!8sHBbqbBbBbB")
_TIME_STATUS = struct.Struct("!qqiiH12si8s")


class Id(IntEnum):
    """managementId of a data set (Table 40; linuxptp's tlv.h for TIME_STATUS_NP)."""

    DEFAULT_DATA_SET = 0x2000
    CURRENT_DATA_SET = 0x2001
    PARENT_DATA_SET = 0x2002
    TIME_PROPERTIES_DATA_SET = 0x2003
    PORT_DATA_SET = 0x2004
    TIME_STATUS_NP = 0xC000


STATES = {
    1: "INITIALIZING",
    2: "FAULTY",
    3: "DISABLED",
    4: "LISTENING",
    5: "PRE_MASTER",
    6: "MASTER",
    7: "PASSIVE",
    8: "UNCALIBRATED",
    9: "SLAVE",
}
"""portState of a PORT_DATA_SET (Table 8)."""

ERRORS = {
    0x0001: "RESPONSE_TOO_BIG",
    0x0002: "NO_SUCH_ID",
    0x0003: "WRONG_LENGTH",
    0x0004: "WRONG_VALUE",
    0x0005: "NOT_SETABLE",
    0x0006: "NOT_SUPPORTED",
    0xFFFE: "GENERAL_ERROR",
}
"""managementErrorId (Table 72)."""


class BadManagement(ValueError):
    """Bytes that are no management message that can be used; the text names the field and the value."""


@dataclass(frozen=True, slots=True)
class PortIdentity:
    """A port of a PTP clock; ``clock`` is 8 bytes."""

    clock: bytes
    port: int

    def __str__(self) -> str:
        return f"{identity(self.clock)}-{self.port}"


def identity(clock: bytes) -> str:
    """A clock identity as linuxptp writes it.

    >>> identity(bytes.fromhex("860bb4fffe2a41e2"))
    '860bb4.fffe.2a41e2'
    """
    text = clock.hex()
    return f"{text[:6]}.{text[6:10]}.{text[10:]}"


@dataclass(frozen=True, slots=True)
class DefaultDataSet:
    """What the clock is."""

    two_step: bool
    slave_only: bool
    ports: int
    clock_class: int
    clock: bytes
    domain: int


@dataclass(frozen=True, slots=True)
class CurrentDataSet:
    """Where the clock stands: offset from the master and mean path delay in ns."""

    steps_removed: int
    offset_ns: float
    path_delay_ns: float


@dataclass(frozen=True, slots=True)
class ParentDataSet:
    """Whom the clock follows; its own identity where it follows nobody."""

    parent: PortIdentity
    grandmaster: bytes
    grandmaster_class: int


@dataclass(frozen=True, slots=True)
class TimeProperties:
    """What the time is: TAI less UTC in s where it is valid; ``ptp_timescale`` False: not TAI."""

    utc_offset_s: int
    utc_offset_valid: bool
    ptp_timescale: bool
    time_traceable: bool
    source: int


@dataclass(frozen=True, slots=True)
class PortDataSet:
    """State of one port."""

    port: PortIdentity
    state: str
    log_sync_interval: int


@dataclass(frozen=True, slots=True)
class TimeStatus:
    """linuxptp: offset in ns, and the local time in ns at which the last Sync arrived (0: none yet)."""

    offset_ns: int
    ingress_ns: int
    grandmaster_present: bool
    grandmaster: bytes


@dataclass(frozen=True, slots=True)
class ManagementError:
    """The clock does not tell: ``error`` is one of :data:`ERRORS` or its number."""

    error: str
    id: int


DataSet = (
    DefaultDataSet
    | CurrentDataSet
    | ParentDataSet
    | TimeProperties
    | PortDataSet
    | TimeStatus
    | ManagementError
)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: who gave it, to whom, in which sequence, and what it says."""

    source: PortIdentity
    target: PortIdentity
    sequence: int
    data: DataSet


def request(
    id: Id,
    *,
    sequence: int,
    source: PortIdentity,
    port: int = ANY_PORT,
    domain: int = 0,
    transport_specific: int = 0,
) -> bytes:
    """The bytes of a GET that stays on this host (no boundary hop).

    ``port`` 0xFFFF asks every port. ValueError for a number outside its field.
    """
    if not (0 <= sequence <= 0xFFFF and 0 <= port <= 0xFFFF and 0 <= source.port <= 0xFFFF):
        raise ValueError(f"sequence {sequence} or port {port} does not fit in 16 bits")
    if not (0 <= domain <= 255 and 0 <= transport_specific <= 15):
        raise ValueError(f"domain {domain} or transportSpecific {transport_specific} is out of range")
    length = _HEADER.size + _BODY.size + _TLV.size
    header = _HEADER.pack(
        transport_specific << 4 | _MANAGEMENT,
        _VERSION,
        length,
        domain,
        0,
        0,
        0,
        0,
        source.clock,
        source.port,
        sequence,
        _CONTROL,
        _LOG_INTERVAL,
    )
    every = b"\xff" * 8
    return header + _BODY.pack(every, port, 0, 0, _GET, 0) + _TLV.pack(_TLV_DATA, 2, id)


def parse(data: bytes) -> Response:
    """Read the answer to a GET.

    Raises:
        BadManagement: it is cut short, no management message, another version than 2, no answer, or of a
            data set that is not known here or has another length than that of the standard.
    """
    if len(data) < _HEADER.size + _BODY.size + _TLV.size:
        raise BadManagement(f"{len(data)} bytes are too few for a management message")
    first, version, length, _, _, _, _, _, clock, port, sequence, _, _ = _HEADER.unpack_from(data)
    if first & 0xF != _MANAGEMENT:
        raise BadManagement(f"messageType {first & 0xF:#x} is not Management")
    if version & 0xF != _VERSION:
        raise BadManagement(f"versionPTP {version & 0xF} is not {_VERSION}")
    if not _HEADER.size + _BODY.size + _TLV.size <= length <= len(data):
        raise BadManagement(f"messageLength {length} of {len(data)} bytes")
    target_clock, target_port, _, _, action, _ = _BODY.unpack_from(data, _HEADER.size)
    if action & 0xF != _RESPONSE:
        raise BadManagement(f"actionField {action & 0xF} is not RESPONSE")
    at = _HEADER.size + _BODY.size
    kind, size, number = _TLV.unpack_from(data, at)
    if size < 2 or at + 4 + size > length:
        raise BadManagement(f"lengthField {size} of a TLV at byte {at} of {length}")
    content = data[at + _TLV.size : at + 4 + size]
    if kind == _TLV_ERROR:
        value: DataSet = _error(number, content)
    elif kind == _TLV_DATA:
        value = _data_set(number, content)
    else:
        raise BadManagement(f"tlvType {kind:#06x} is neither a data set nor an error")
    return Response(PortIdentity(clock, port), PortIdentity(target_clock, target_port), sequence, value)


def _error(error: int, content: bytes) -> ManagementError:
    if len(content) < 2:
        raise BadManagement(f"an error status of {len(content)} bytes names no managementId")
    return ManagementError(ERRORS.get(error, f"{error:#06x}"), int.from_bytes(content[:2], "big"))


def _data_set(number: int, content: bytes) -> DataSet:
    try:
        id = Id(number)
    except ValueError:
        raise BadManagement(f"managementId {number:#06x} is not known here") from None
    layout = _LAYOUTS[id]
    if len(content) != layout.size:
        raise BadManagement(f"{id.name} has {len(content)} bytes instead of {layout.size}")
    v = layout.unpack(content)
    match id:
        case Id.DEFAULT_DATA_SET:
            return DefaultDataSet(bool(v[0] & 1), bool(v[0] & 2), v[2], v[4], v[8], v[9])
        case Id.CURRENT_DATA_SET:
            return CurrentDataSet(v[0], v[1] / 65536, v[2] / 65536)
        case Id.PARENT_DATA_SET:
            return ParentDataSet(PortIdentity(v[0], v[1]), v[11], v[7])
        case Id.TIME_PROPERTIES_DATA_SET:
            return TimeProperties(v[0], bool(v[1] & 4), bool(v[1] & 8), bool(v[1] & 16), v[2])
        case Id.PORT_DATA_SET:
            if v[2] not in STATES:
                raise BadManagement(
                    f"PORT_DATA_SET: portState {v[2]} is none of {min(STATES)}..{max(STATES)}"
                )
            return PortDataSet(PortIdentity(v[0], v[1]), STATES[v[2]], v[7])
        case Id.TIME_STATUS_NP:
            return TimeStatus(v[0], v[1], bool(v[6]), v[7])


_LAYOUTS = {
    Id.DEFAULT_DATA_SET: _DEFAULT,
    Id.CURRENT_DATA_SET: _CURRENT,
    Id.PARENT_DATA_SET: _PARENT,
    Id.TIME_PROPERTIES_DATA_SET: _TIME_PROPERTIES,
    Id.PORT_DATA_SET: _PORT,
    Id.TIME_STATUS_NP: _TIME_STATUS,
}

ID_OF: dict[type, Id] = {
    DefaultDataSet: Id.DEFAULT_DATA_SET,
    CurrentDataSet: Id.CURRENT_DATA_SET,
    ParentDataSet: Id.PARENT_DATA_SET,
    TimeProperties: Id.TIME_PROPERTIES_DATA_SET,
    PortDataSet: Id.PORT_DATA_SET,
    TimeStatus: Id.TIME_STATUS_NP,
}
"""What each data set is asked for by."""
