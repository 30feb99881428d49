from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_UNSPECIFIED: _ClassVar[NoticeKind]
    ACCEPTED: _ClassVar[NoticeKind]
    REFUSED: _ClassVar[NoticeKind]
    SETTINGS: _ClassVar[NoticeKind]
NOTICE_UNSPECIFIED: NoticeKind
ACCEPTED: NoticeKind
REFUSED: NoticeKind
SETTINGS: NoticeKind

class ListUesRequest(_message.Message):
    __slots__ = ("protocol_version", "cell_id")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cell_id: str
    def __init__(self, protocol_version: _Optional[int] = ..., cell_id: _Optional[str] = ...) -> None: ...

class ListUesReply(_message.Message):
    __slots__ = ("connected", "ues")
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    UES_FIELD_NUMBER: _ClassVar[int]
    connected: bool
    ues: _containers.RepeatedCompositeFieldContainer[CellUe]
    def __init__(self, connected: _Optional[bool] = ..., ues: _Optional[_Iterable[_Union[CellUe, _Mapping]]] = ...) -> None: ...

class CellUe(_message.Message):
    __slots__ = ("ue_id", "slice")
    UE_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    ue_id: str
    slice: str
    def __init__(self, ue_id: _Optional[str] = ..., slice: _Optional[str] = ...) -> None: ...

class QosMessage(_message.Message):
    __slots__ = ("hello", "flow_start", "flow_stop", "frames", "clock", "samples", "settings_applied")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FLOW_START_FIELD_NUMBER: _ClassVar[int]
    FLOW_STOP_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_APPLIED_FIELD_NUMBER: _ClassVar[int]
    hello: QosHello
    flow_start: FlowStart
    flow_stop: FlowStop
    frames: FrameBatch
    clock: ClockStatus
    samples: Samples
    settings_applied: SettingsApplied
    def __init__(self, hello: _Optional[_Union[QosHello, _Mapping]] = ..., flow_start: _Optional[_Union[FlowStart, _Mapping]] = ..., flow_stop: _Optional[_Union[FlowStop, _Mapping]] = ..., frames: _Optional[_Union[FrameBatch, _Mapping]] = ..., clock: _Optional[_Union[ClockStatus, _Mapping]] = ..., samples: _Optional[_Union[Samples, _Mapping]] = ..., settings_applied: _Optional[_Union[SettingsApplied, _Mapping]] = ...) -> None: ...

class QosHello(_message.Message):
    __slots__ = ("protocol_version", "host", "cell_id", "clocks_synchronised", "instance")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    CLOCKS_SYNCHRONISED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    host: str
    cell_id: str
    clocks_synchronised: bool
    instance: int
    def __init__(self, protocol_version: _Optional[int] = ..., host: _Optional[str] = ..., cell_id: _Optional[str] = ..., clocks_synchronised: _Optional[bool] = ..., instance: _Optional[int] = ...) -> None: ...

class FlowStart(_message.Message):
    __slots__ = ("flow", "ue_id", "slice", "ul_bps", "dl_bps", "time_ns", "service")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    UE_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_BPS_FIELD_NUMBER: _ClassVar[int]
    DL_BPS_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    flow: str
    ue_id: str
    slice: str
    ul_bps: float
    dl_bps: float
    time_ns: int
    service: str
    def __init__(self, flow: _Optional[str] = ..., ue_id: _Optional[str] = ..., slice: _Optional[str] = ..., ul_bps: _Optional[float] = ..., dl_bps: _Optional[float] = ..., time_ns: _Optional[int] = ..., service: _Optional[str] = ...) -> None: ...

class FlowStop(_message.Message):
    __slots__ = ("flow", "time_ns")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    flow: str
    time_ns: int
    def __init__(self, flow: _Optional[str] = ..., time_ns: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("sequence", "ue_sent_ns", "edge_received_ns", "edge_sent_ns", "ue_received_ns")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UE_SENT_NS_FIELD_NUMBER: _ClassVar[int]
    EDGE_RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    EDGE_SENT_NS_FIELD_NUMBER: _ClassVar[int]
    UE_RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    ue_sent_ns: int
    edge_received_ns: int
    edge_sent_ns: int
    ue_received_ns: int
    def __init__(self, sequence: _Optional[int] = ..., ue_sent_ns: _Optional[int] = ..., edge_received_ns: _Optional[int] = ..., edge_sent_ns: _Optional[int] = ..., ue_received_ns: _Optional[int] = ...) -> None: ...

class FrameBatch(_message.Message):
    __slots__ = ("flow", "frames")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    flow: str
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    def __init__(self, flow: _Optional[str] = ..., frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ...) -> None: ...

class Samples(_message.Message):
    __slots__ = ("flow", "table", "time_ns", "values")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    flow: str
    table: str
    time_ns: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, flow: _Optional[str] = ..., table: _Optional[str] = ..., time_ns: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class SettingsApplied(_message.Message):
    __slots__ = ("sequence", "time_ns", "refused")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time_ns: int
    refused: str
    def __init__(self, sequence: _Optional[int] = ..., time_ns: _Optional[int] = ..., refused: _Optional[str] = ...) -> None: ...

class ClockStatus(_message.Message):
    __slots__ = ("host", "ptp_state", "offset_ns", "path_delay_ns", "time_ns", "grandmaster")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PTP_STATE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    PATH_DELAY_NS_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    GRANDMASTER_FIELD_NUMBER: _ClassVar[int]
    host: str
    ptp_state: str
    offset_ns: float
    path_delay_ns: float
    time_ns: int
    grandmaster: str
    def __init__(self, host: _Optional[str] = ..., ptp_state: _Optional[str] = ..., offset_ns: _Optional[float] = ..., path_delay_ns: _Optional[float] = ..., time_ns: _Optional[int] = ..., grandmaster: _Optional[str] = ...) -> None: ...

class QosNotice(_message.Message):
    __slots__ = ("kind", "reason", "protocol_version", "settings")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    reason: str
    protocol_version: int
    settings: SetSettings
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., reason: _Optional[str] = ..., protocol_version: _Optional[int] = ..., settings: _Optional[_Union[SetSettings, _Mapping]] = ...) -> None: ...

class SetSettings(_message.Message):
    __slots__ = ("sequence", "lease_ms", "flows")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    lease_ms: int
    flows: _containers.RepeatedCompositeFieldContainer[FlowSettings]
    def __init__(self, sequence: _Optional[int] = ..., lease_ms: _Optional[int] = ..., flows: _Optional[_Iterable[_Union[FlowSettings, _Mapping]]] = ...) -> None: ...

class FlowSettings(_message.Message):
    __slots__ = ("flow", "settings")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    flow: str
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    def __init__(self, flow: _Optional[str] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...
