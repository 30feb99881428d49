from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    UL: _ClassVar[Direction]
    DL: _ClassVar[Direction]
DIRECTION_UNSPECIFIED: Direction
UL: Direction
DL: Direction

class GnbMessage(_message.Message):
    __slots__ = ("hello", "mac_report", "applied")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    MAC_REPORT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    mac_report: MacReport
    applied: Applied
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., mac_report: _Optional[_Union[MacReport, _Mapping]] = ..., applied: _Optional[_Union[Applied, _Mapping]] = ...) -> None: ...

class ControllerMessage(_message.Message):
    __slots__ = ("welcome", "reject", "hello_request", "set_quota", "release")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    HELLO_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SET_QUOTA_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reject: Reject
    hello_request: HelloRequest
    set_quota: SetQuota
    release: Release
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., hello_request: _Optional[_Union[HelloRequest, _Mapping]] = ..., set_quota: _Optional[_Union[SetQuota, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class TddPattern(_message.Message):
    __slots__ = ("period_slots", "dl_slots", "dl_symbols", "ul_symbols", "ul_slots")
    PERIOD_SLOTS_FIELD_NUMBER: _ClassVar[int]
    DL_SLOTS_FIELD_NUMBER: _ClassVar[int]
    DL_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    UL_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    UL_SLOTS_FIELD_NUMBER: _ClassVar[int]
    period_slots: int
    dl_slots: int
    dl_symbols: int
    ul_symbols: int
    ul_slots: int
    def __init__(self, period_slots: _Optional[int] = ..., dl_slots: _Optional[int] = ..., dl_symbols: _Optional[int] = ..., ul_symbols: _Optional[int] = ..., ul_slots: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "cell_id", "prb", "scs_khz", "tdd", "agent_version", "min_prb")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    PRB_FIELD_NUMBER: _ClassVar[int]
    SCS_KHZ_FIELD_NUMBER: _ClassVar[int]
    TDD_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    MIN_PRB_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cell_id: str
    prb: int
    scs_khz: int
    tdd: TddPattern
    agent_version: str
    min_prb: int
    def __init__(self, protocol_version: _Optional[int] = ..., cell_id: _Optional[str] = ..., prb: _Optional[int] = ..., scs_khz: _Optional[int] = ..., tdd: _Optional[_Union[TddPattern, _Mapping]] = ..., agent_version: _Optional[str] = ..., min_prb: _Optional[int] = ...) -> None: ...

class DirectionState(_message.Message):
    __slots__ = ("mcs", "mcs_table", "layers", "queued_bytes", "lc_bytes", "prb_slots", "bler")
    MCS_FIELD_NUMBER: _ClassVar[int]
    MCS_TABLE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LC_BYTES_FIELD_NUMBER: _ClassVar[int]
    PRB_SLOTS_FIELD_NUMBER: _ClassVar[int]
    BLER_FIELD_NUMBER: _ClassVar[int]
    mcs: int
    mcs_table: int
    layers: int
    queued_bytes: int
    lc_bytes: int
    prb_slots: int
    bler: float
    def __init__(self, mcs: _Optional[int] = ..., mcs_table: _Optional[int] = ..., layers: _Optional[int] = ..., queued_bytes: _Optional[int] = ..., lc_bytes: _Optional[int] = ..., prb_slots: _Optional[int] = ..., bler: _Optional[float] = ...) -> None: ...

class Snssai(_message.Message):
    __slots__ = ("sst", "sd")
    SST_FIELD_NUMBER: _ClassVar[int]
    SD_FIELD_NUMBER: _ClassVar[int]
    sst: int
    sd: int
    def __init__(self, sst: _Optional[int] = ..., sd: _Optional[int] = ...) -> None: ...

class LogicalChannel(_message.Message):
    __slots__ = ("lcid", "queued_bytes")
    LCID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    lcid: int
    queued_bytes: int
    def __init__(self, lcid: _Optional[int] = ..., queued_bytes: _Optional[int] = ...) -> None: ...

class UeState(_message.Message):
    __slots__ = ("rnti", "ue_id", "slice", "ul", "dl", "cqi", "snr_db", "snssai", "five_qi", "priority_level", "dl_channels")
    RNTI_FIELD_NUMBER: _ClassVar[int]
    UE_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_FIELD_NUMBER: _ClassVar[int]
    DL_FIELD_NUMBER: _ClassVar[int]
    CQI_FIELD_NUMBER: _ClassVar[int]
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    SNSSAI_FIELD_NUMBER: _ClassVar[int]
    FIVE_QI_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    DL_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    rnti: int
    ue_id: str
    slice: str
    ul: DirectionState
    dl: DirectionState
    cqi: int
    snr_db: float
    snssai: Snssai
    five_qi: int
    priority_level: int
    dl_channels: _containers.RepeatedCompositeFieldContainer[LogicalChannel]
    def __init__(self, rnti: _Optional[int] = ..., ue_id: _Optional[str] = ..., slice: _Optional[str] = ..., ul: _Optional[_Union[DirectionState, _Mapping]] = ..., dl: _Optional[_Union[DirectionState, _Mapping]] = ..., cqi: _Optional[int] = ..., snr_db: _Optional[float] = ..., snssai: _Optional[_Union[Snssai, _Mapping]] = ..., five_qi: _Optional[int] = ..., priority_level: _Optional[int] = ..., dl_channels: _Optional[_Iterable[_Union[LogicalChannel, _Mapping]]] = ...) -> None: ...

class MacReport(_message.Message):
    __slots__ = ("session", "sequence", "frame", "slot", "time_ns", "ues")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    UES_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    frame: int
    slot: int
    time_ns: int
    ues: _containers.RepeatedCompositeFieldContainer[UeState]
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ..., frame: _Optional[int] = ..., slot: _Optional[int] = ..., time_ns: _Optional[int] = ..., ues: _Optional[_Iterable[_Union[UeState, _Mapping]]] = ...) -> None: ...

class SliceQuota(_message.Message):
    __slots__ = ("slice", "ul_prb", "dl_prb")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_PRB_FIELD_NUMBER: _ClassVar[int]
    DL_PRB_FIELD_NUMBER: _ClassVar[int]
    slice: str
    ul_prb: int
    dl_prb: int
    def __init__(self, slice: _Optional[str] = ..., ul_prb: _Optional[int] = ..., dl_prb: _Optional[int] = ...) -> None: ...

class UeBinding(_message.Message):
    __slots__ = ("ue_id", "slice")
    UE_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    ue_id: str
    slice: str
    def __init__(self, ue_id: _Optional[str] = ..., slice: _Optional[str] = ...) -> None: ...

class SliceUse(_message.Message):
    __slots__ = ("slice", "direction", "max_new_prb", "new_prb_slots", "retx_prb_slots", "slots")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_PRB_FIELD_NUMBER: _ClassVar[int]
    NEW_PRB_SLOTS_FIELD_NUMBER: _ClassVar[int]
    RETX_PRB_SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slice: str
    direction: Direction
    max_new_prb: int
    new_prb_slots: int
    retx_prb_slots: int
    slots: int
    def __init__(self, slice: _Optional[str] = ..., direction: _Optional[_Union[Direction, str]] = ..., max_new_prb: _Optional[int] = ..., new_prb_slots: _Optional[int] = ..., retx_prb_slots: _Optional[int] = ..., slots: _Optional[int] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("session", "sequence", "time_ns", "frame", "slot", "in_force", "use", "lapsed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    LAPSED_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    time_ns: int
    frame: int
    slot: int
    in_force: _containers.RepeatedCompositeFieldContainer[SliceQuota]
    use: _containers.RepeatedCompositeFieldContainer[SliceUse]
    lapsed: bool
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ..., time_ns: _Optional[int] = ..., frame: _Optional[int] = ..., slot: _Optional[int] = ..., in_force: _Optional[_Iterable[_Union[SliceQuota, _Mapping]]] = ..., use: _Optional[_Iterable[_Union[SliceUse, _Mapping]]] = ..., lapsed: _Optional[bool] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session", "protocol_version", "report_period_ms", "lease_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    protocol_version: int
    report_period_ms: int
    lease_ms: int
    def __init__(self, session: _Optional[int] = ..., protocol_version: _Optional[int] = ..., report_period_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("reason", "controller_version", "agent_version")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    reason: str
    controller_version: int
    agent_version: int
    def __init__(self, reason: _Optional[str] = ..., controller_version: _Optional[int] = ..., agent_version: _Optional[int] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class SetQuota(_message.Message):
    __slots__ = ("session", "sequence", "lease_ms", "quotas", "bindings")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    lease_ms: int
    quotas: _containers.RepeatedCompositeFieldContainer[SliceQuota]
    bindings: _containers.RepeatedCompositeFieldContainer[UeBinding]
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ..., lease_ms: _Optional[int] = ..., quotas: _Optional[_Iterable[_Union[SliceQuota, _Mapping]]] = ..., bindings: _Optional[_Iterable[_Union[UeBinding, _Mapping]]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("session", "sequence")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    session: int
    sequence: int
    def __init__(self, session: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...
