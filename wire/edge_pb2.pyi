from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EdgeHello(_message.Message):
    __slots__ = ("protocol_version", "holder")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    holder: str
    def __init__(self, protocol_version: _Optional[int] = ..., holder: _Optional[str] = ...) -> None: ...

class EdgeWelcome(_message.Message):
    __slots__ = ("protocol_version", "agent_version", "gpus", "max_lease_ms")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    agent_version: str
    gpus: _containers.RepeatedCompositeFieldContainer[GpuInfo]
    max_lease_ms: int
    def __init__(self, protocol_version: _Optional[int] = ..., agent_version: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[GpuInfo, _Mapping]]] = ..., max_lease_ms: _Optional[int] = ...) -> None: ...

class GpuInfo(_message.Message):
    __slots__ = ("uuid", "name", "backend", "supported_sm_mhz", "default_sm_mhz")
    UUID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    SUPPORTED_SM_MHZ_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SM_MHZ_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    name: str
    backend: str
    supported_sm_mhz: _containers.RepeatedScalarFieldContainer[int]
    default_sm_mhz: int
    def __init__(self, uuid: _Optional[str] = ..., name: _Optional[str] = ..., backend: _Optional[str] = ..., supported_sm_mhz: _Optional[_Iterable[int]] = ..., default_sm_mhz: _Optional[int] = ...) -> None: ...

class WatchGpuRequest(_message.Message):
    __slots__ = ("gpu", "period_ms")
    GPU_FIELD_NUMBER: _ClassVar[int]
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    period_ms: int
    def __init__(self, gpu: _Optional[str] = ..., period_ms: _Optional[int] = ...) -> None: ...

class GpuState(_message.Message):
    __slots__ = ("gpu", "time_ns", "sm_mhz", "memory_mhz", "locked_mhz", "power_w", "energy_j", "utilisation", "temperature_c", "clock_event_reasons", "mono_ns")
    GPU_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    SM_MHZ_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MHZ_FIELD_NUMBER: _ClassVar[int]
    LOCKED_MHZ_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    CLOCK_EVENT_REASONS_FIELD_NUMBER: _ClassVar[int]
    MONO_NS_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    time_ns: int
    sm_mhz: int
    memory_mhz: int
    locked_mhz: int
    power_w: float
    energy_j: float
    utilisation: float
    temperature_c: float
    clock_event_reasons: _containers.RepeatedScalarFieldContainer[str]
    mono_ns: int
    def __init__(self, gpu: _Optional[str] = ..., time_ns: _Optional[int] = ..., sm_mhz: _Optional[int] = ..., memory_mhz: _Optional[int] = ..., locked_mhz: _Optional[int] = ..., power_w: _Optional[float] = ..., energy_j: _Optional[float] = ..., utilisation: _Optional[float] = ..., temperature_c: _Optional[float] = ..., clock_event_reasons: _Optional[_Iterable[str]] = ..., mono_ns: _Optional[int] = ...) -> None: ...

class LockClocksRequest(_message.Message):
    __slots__ = ("gpu", "holder", "mhz", "lease_ms")
    GPU_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    MHZ_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    holder: str
    mhz: int
    lease_ms: int
    def __init__(self, gpu: _Optional[str] = ..., holder: _Optional[str] = ..., mhz: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class ReleaseClocksRequest(_message.Message):
    __slots__ = ("gpu", "holder")
    GPU_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    holder: str
    def __init__(self, gpu: _Optional[str] = ..., holder: _Optional[str] = ...) -> None: ...

class ClockLock(_message.Message):
    __slots__ = ("gpu", "wanted_mhz", "locked_mhz", "sm_mhz", "reached", "time_ns")
    GPU_FIELD_NUMBER: _ClassVar[int]
    WANTED_MHZ_FIELD_NUMBER: _ClassVar[int]
    LOCKED_MHZ_FIELD_NUMBER: _ClassVar[int]
    SM_MHZ_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    wanted_mhz: int
    locked_mhz: int
    sm_mhz: int
    reached: bool
    time_ns: int
    def __init__(self, gpu: _Optional[str] = ..., wanted_mhz: _Optional[int] = ..., locked_mhz: _Optional[int] = ..., sm_mhz: _Optional[int] = ..., reached: _Optional[bool] = ..., time_ns: _Optional[int] = ...) -> None: ...

class EmulatedLoad(_message.Message):
    __slots__ = ("gpu", "utilisation")
    GPU_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    utilisation: float
    def __init__(self, gpu: _Optional[str] = ..., utilisation: _Optional[float] = ...) -> None: ...
