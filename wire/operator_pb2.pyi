from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OperatorHello(_message.Message):
    __slots__ = ("protocol_version", "client")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    client: str
    def __init__(self, protocol_version: _Optional[int] = ..., client: _Optional[str] = ...) -> None: ...

class OperatorWelcome(_message.Message):
    __slots__ = ("protocol_version", "controller_version")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    controller_version: str
    def __init__(self, protocol_version: _Optional[int] = ..., controller_version: _Optional[str] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClockState(_message.Message):
    __slots__ = ("host", "ptp_state", "offset_ns", "age_s", "fault")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PTP_STATE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    host: str
    ptp_state: str
    offset_ns: float
    age_s: float
    fault: str
    def __init__(self, host: _Optional[str] = ..., ptp_state: _Optional[str] = ..., offset_ns: _Optional[float] = ..., age_s: _Optional[float] = ..., fault: _Optional[str] = ...) -> None: ...

class ManualQuota(_message.Message):
    __slots__ = ("slice", "ul", "dl", "left_s")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_FIELD_NUMBER: _ClassVar[int]
    DL_FIELD_NUMBER: _ClassVar[int]
    LEFT_S_FIELD_NUMBER: _ClassVar[int]
    slice: str
    ul: int
    dl: int
    left_s: float
    def __init__(self, slice: _Optional[str] = ..., ul: _Optional[int] = ..., dl: _Optional[int] = ..., left_s: _Optional[float] = ...) -> None: ...

class SliceQos(_message.Message):
    __slots__ = ("slice", "judged", "met")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    MET_FIELD_NUMBER: _ClassVar[int]
    slice: str
    judged: int
    met: int
    def __init__(self, slice: _Optional[str] = ..., judged: _Optional[int] = ..., met: _Optional[int] = ...) -> None: ...

class UeDirection(_message.Message):
    __slots__ = ("mcs", "layers", "queued_bytes", "bler", "bps", "prb")
    MCS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLER_FIELD_NUMBER: _ClassVar[int]
    BPS_FIELD_NUMBER: _ClassVar[int]
    PRB_FIELD_NUMBER: _ClassVar[int]
    mcs: int
    layers: int
    queued_bytes: int
    bler: float
    bps: float
    prb: float
    def __init__(self, mcs: _Optional[int] = ..., layers: _Optional[int] = ..., queued_bytes: _Optional[int] = ..., bler: _Optional[float] = ..., bps: _Optional[float] = ..., prb: _Optional[float] = ...) -> None: ...

class UeChannel(_message.Message):
    __slots__ = ("lcid", "queued_bytes")
    LCID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    lcid: int
    queued_bytes: int
    def __init__(self, lcid: _Optional[int] = ..., queued_bytes: _Optional[int] = ...) -> None: ...

class UeStatus(_message.Message):
    __slots__ = ("ue_id", "slice", "ul", "dl", "cqi", "snr_db", "five_qi", "priority_level", "snssai", "dl_channels")
    UE_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_FIELD_NUMBER: _ClassVar[int]
    DL_FIELD_NUMBER: _ClassVar[int]
    CQI_FIELD_NUMBER: _ClassVar[int]
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    FIVE_QI_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SNSSAI_FIELD_NUMBER: _ClassVar[int]
    DL_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    ue_id: str
    slice: str
    ul: UeDirection
    dl: UeDirection
    cqi: int
    snr_db: float
    five_qi: int
    priority_level: int
    snssai: str
    dl_channels: _containers.RepeatedCompositeFieldContainer[UeChannel]
    def __init__(self, ue_id: _Optional[str] = ..., slice: _Optional[str] = ..., ul: _Optional[_Union[UeDirection, _Mapping]] = ..., dl: _Optional[_Union[UeDirection, _Mapping]] = ..., cqi: _Optional[int] = ..., snr_db: _Optional[float] = ..., five_qi: _Optional[int] = ..., priority_level: _Optional[int] = ..., snssai: _Optional[str] = ..., dl_channels: _Optional[_Iterable[_Union[UeChannel, _Mapping]]] = ...) -> None: ...

class SliceStatus(_message.Message):
    __slots__ = ("slice", "service", "options", "explored", "hops", "policies")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    slice: str
    service: str
    options: str
    explored: float
    hops: _containers.RepeatedScalarFieldContainer[str]
    policies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, slice: _Optional[str] = ..., service: _Optional[str] = ..., options: _Optional[str] = ..., explored: _Optional[float] = ..., hops: _Optional[_Iterable[str]] = ..., policies: _Optional[_Iterable[str]] = ...) -> None: ...

class Savings(_message.Message):
    __slots__ = ("control_s", "gpu", "bs", "ue")
    CONTROL_S_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    BS_FIELD_NUMBER: _ClassVar[int]
    UE_FIELD_NUMBER: _ClassVar[int]
    control_s: float
    gpu: float
    bs: float
    ue: float
    def __init__(self, control_s: _Optional[float] = ..., gpu: _Optional[float] = ..., bs: _Optional[float] = ..., ue: _Optional[float] = ...) -> None: ...

class HostState(_message.Message):
    __slots__ = ("host", "age_s", "refused")
    HOST_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    host: str
    age_s: float
    refused: str
    def __init__(self, host: _Optional[str] = ..., age_s: _Optional[float] = ..., refused: _Optional[str] = ...) -> None: ...

class CellState(_message.Message):
    __slots__ = ("cell_id", "connected", "session", "control_slots", "prb", "mode", "last", "reports", "edge_connected", "sm_mhz", "active_flows", "clocks", "manual", "report_age_s", "lease_left_s", "not_controlled", "qos", "hosts", "edge_configured", "gpu_age_s", "ues", "ues_total", "slices", "savings", "gpu_power_w", "gpu_max_mhz")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SLOTS_FIELD_NUMBER: _ClassVar[int]
    PRB_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    EDGE_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SM_MHZ_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FLOWS_FIELD_NUMBER: _ClassVar[int]
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    MANUAL_FIELD_NUMBER: _ClassVar[int]
    REPORT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_S_FIELD_NUMBER: _ClassVar[int]
    NOT_CONTROLLED_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    EDGE_CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    GPU_AGE_S_FIELD_NUMBER: _ClassVar[int]
    UES_FIELD_NUMBER: _ClassVar[int]
    UES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    GPU_POWER_W_FIELD_NUMBER: _ClassVar[int]
    GPU_MAX_MHZ_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    connected: bool
    session: int
    control_slots: int
    prb: int
    mode: str
    last: DecisionRecord
    reports: int
    edge_connected: bool
    sm_mhz: int
    active_flows: int
    clocks: _containers.RepeatedCompositeFieldContainer[ClockState]
    manual: _containers.RepeatedCompositeFieldContainer[ManualQuota]
    report_age_s: float
    lease_left_s: float
    not_controlled: str
    qos: _containers.RepeatedCompositeFieldContainer[SliceQos]
    hosts: _containers.RepeatedCompositeFieldContainer[HostState]
    edge_configured: bool
    gpu_age_s: float
    ues: _containers.RepeatedCompositeFieldContainer[UeStatus]
    ues_total: int
    slices: _containers.RepeatedCompositeFieldContainer[SliceStatus]
    savings: Savings
    gpu_power_w: float
    gpu_max_mhz: int
    def __init__(self, cell_id: _Optional[str] = ..., connected: _Optional[bool] = ..., session: _Optional[int] = ..., control_slots: _Optional[int] = ..., prb: _Optional[int] = ..., mode: _Optional[str] = ..., last: _Optional[_Union[DecisionRecord, _Mapping]] = ..., reports: _Optional[int] = ..., edge_connected: _Optional[bool] = ..., sm_mhz: _Optional[int] = ..., active_flows: _Optional[int] = ..., clocks: _Optional[_Iterable[_Union[ClockState, _Mapping]]] = ..., manual: _Optional[_Iterable[_Union[ManualQuota, _Mapping]]] = ..., report_age_s: _Optional[float] = ..., lease_left_s: _Optional[float] = ..., not_controlled: _Optional[str] = ..., qos: _Optional[_Iterable[_Union[SliceQos, _Mapping]]] = ..., hosts: _Optional[_Iterable[_Union[HostState, _Mapping]]] = ..., edge_configured: _Optional[bool] = ..., gpu_age_s: _Optional[float] = ..., ues: _Optional[_Iterable[_Union[UeStatus, _Mapping]]] = ..., ues_total: _Optional[int] = ..., slices: _Optional[_Iterable[_Union[SliceStatus, _Mapping]]] = ..., savings: _Optional[_Union[Savings, _Mapping]] = ..., gpu_power_w: _Optional[float] = ..., gpu_max_mhz: _Optional[int] = ...) -> None: ...

class ControllerState(_message.Message):
    __slots__ = ("version", "config_path", "run_dir", "control_slot_s", "cells", "store_error", "store_lost", "config_hash", "lease_s", "up_s", "reload_error")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_PATH_FIELD_NUMBER: _ClassVar[int]
    RUN_DIR_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SLOT_S_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    STORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    STORE_LOST_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    UP_S_FIELD_NUMBER: _ClassVar[int]
    RELOAD_ERROR_FIELD_NUMBER: _ClassVar[int]
    version: str
    config_path: str
    run_dir: str
    control_slot_s: float
    cells: _containers.RepeatedCompositeFieldContainer[CellState]
    store_error: str
    store_lost: int
    config_hash: str
    lease_s: float
    up_s: float
    reload_error: str
    def __init__(self, version: _Optional[str] = ..., config_path: _Optional[str] = ..., run_dir: _Optional[str] = ..., control_slot_s: _Optional[float] = ..., cells: _Optional[_Iterable[_Union[CellState, _Mapping]]] = ..., store_error: _Optional[str] = ..., store_lost: _Optional[int] = ..., config_hash: _Optional[str] = ..., lease_s: _Optional[float] = ..., up_s: _Optional[float] = ..., reload_error: _Optional[str] = ...) -> None: ...

class WatchDecisionsRequest(_message.Message):
    __slots__ = ("cell_id",)
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    def __init__(self, cell_id: _Optional[str] = ...) -> None: ...

class DecisionRecord(_message.Message):
    __slots__ = ("cell_id", "control_slot", "time_ns", "json")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SLOT_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    control_slot: int
    time_ns: int
    json: str
    def __init__(self, cell_id: _Optional[str] = ..., control_slot: _Optional[int] = ..., time_ns: _Optional[int] = ..., json: _Optional[str] = ...) -> None: ...

class SetModeRequest(_message.Message):
    __slots__ = ("cell_id", "mode")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    mode: str
    def __init__(self, cell_id: _Optional[str] = ..., mode: _Optional[str] = ...) -> None: ...

class SwitchPolicyRequest(_message.Message):
    __slots__ = ("cell_id", "slice", "policy", "hop")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    HOP_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    slice: str
    policy: str
    hop: str
    def __init__(self, cell_id: _Optional[str] = ..., slice: _Optional[str] = ..., policy: _Optional[str] = ..., hop: _Optional[str] = ...) -> None: ...

class SetBudgetsRequest(_message.Message):
    __slots__ = ("cell_id", "slice", "ul_ms", "edge_ms", "dl_ms")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_MS_FIELD_NUMBER: _ClassVar[int]
    EDGE_MS_FIELD_NUMBER: _ClassVar[int]
    DL_MS_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    slice: str
    ul_ms: float
    edge_ms: float
    dl_ms: float
    def __init__(self, cell_id: _Optional[str] = ..., slice: _Optional[str] = ..., ul_ms: _Optional[float] = ..., edge_ms: _Optional[float] = ..., dl_ms: _Optional[float] = ...) -> None: ...

class SetOptionsRequest(_message.Message):
    __slots__ = ("cell_id", "slice", "yaml")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    slice: str
    yaml: str
    def __init__(self, cell_id: _Optional[str] = ..., slice: _Optional[str] = ..., yaml: _Optional[str] = ...) -> None: ...

class SetQuotaRequest(_message.Message):
    __slots__ = ("cell_id", "slice", "ul_prb", "dl_prb", "for_s")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UL_PRB_FIELD_NUMBER: _ClassVar[int]
    DL_PRB_FIELD_NUMBER: _ClassVar[int]
    FOR_S_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    slice: str
    ul_prb: int
    dl_prb: int
    for_s: float
    def __init__(self, cell_id: _Optional[str] = ..., slice: _Optional[str] = ..., ul_prb: _Optional[int] = ..., dl_prb: _Optional[int] = ..., for_s: _Optional[float] = ...) -> None: ...

class ClearQuotaRequest(_message.Message):
    __slots__ = ("cell_id", "slice")
    CELL_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    cell_id: str
    slice: str
    def __init__(self, cell_id: _Optional[str] = ..., slice: _Optional[str] = ...) -> None: ...

class SetLeaseRequest(_message.Message):
    __slots__ = ("lease_s",)
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    lease_s: float
    def __init__(self, lease_s: _Optional[float] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShutDownRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CommandResult(_message.Message):
    __slots__ = ("ok", "message")
    OK_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    message: str
    def __init__(self, ok: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...
