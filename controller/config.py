"""The strict model of the YAML: an unknown key, a wrong type or an impossible value is refused by place."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializationInfo,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from controller import checks
from controller.allocators import service
from controller.allocators.base import Options, mistake
from controller.checks import Limits, Mistake, Place
from controller.core.hops import Carrier
from controller.core.names import config_hash, nearest
from controller.core.observation import Flow, Mode
from controller.core.rescue import RescueSpec
from controller.core.spec import EventsSpec, LoopSpec, Share, SliceSpec
from wire import OPERATOR_ADDRESS, PAGE_ADDRESS
from wire.definitions.nr import MAX_PRB, TDD_PATTERNS, TddPattern
from wire.definitions.qos import MAX_FIVE_QI, parse_snssai


class ConfigError(ValueError):
    """A configuration that cannot be used; the text names file, line and key."""


_APART: dict[str, Any] = {"contradictions": "are asked for apart"}
"""Context of a validation of values alone."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Where values that are right by themselves do not go together: the key that is to blame ("": none in
        particular), and why."""
        yield from ()

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if info.context is _APART:
            return self
        found = [
            _detail({"type": "value_error", "msg": text, "loc": (key,) if key else ()})
            for key, text in self.contradictions()
        ]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self


Name = Annotated[str, Field(min_length=1, max_length=31, pattern=r"^[A-Za-z0-9._:-]+$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Overhead = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class RescueModel(_Strict):
    """What a slice gets of which nothing can be learned, or that misses its promise."""

    blind_slots: Annotated[int, Field(ge=1, le=1000)] = 3
    """Control slots running in which nothing was learned about a lever, after which it goes to full
    resources."""
    missed_slots: Annotated[int, Field(ge=1, le=1000)] = 4
    """Control slots running that missed the promise, after which the slice is given more."""


class EventsModel(_Strict):
    """A control slot may end before its time: a flow starts, a queue grows or has drained, the MCS falls.
    Policies that learn from QoS bits alone do not ask for it; where one of a cell's slices has such a policy
    all control slots last their time."""

    min_slot_s: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 1.0
    """No control slot ends in its first seconds; where control slots are no longer than that, all last their
    time."""


class Control(_Strict):
    """How often is decided, and from what."""

    control_slot_s: Annotated[float, Field(ge=0.2, le=600, allow_inf_nan=False)] = 5.0
    """The control slot: how often is decided."""
    subinterval_ms: Annotated[int, Field(ge=10, le=10_000)] = 200
    """Demand is measured in parts of a control slot of this length; in it the present queue is to drain."""
    guard_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 200.0
    """Frames that are sent so soon after the start of a control slot do not count: the queue of the last
    action drains."""
    mode: Literal["active", "shadow", "frozen", "released"] = "active"
    """What the controller begins in: active, shadow (decide and record, act on nothing), frozen (hold) or
    released (everything back to full)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of all randomness of policies and allocators, and of the emulated testbed."""
    rescue: RescueModel | None = RescueModel()
    """off: every slice is left with what it asks for."""

    events: EventsModel | None = EventsModel()
    """off: every control slot lasts its time."""

    @field_validator("rescue", "events", mode="before")
    @classmethod
    def _off(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``off`` is False, and ``on`` True."""
        if not isinstance(value, bool):
            return value
        return None if not value else RescueModel() if info.field_name == "rescue" else EventsModel()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.guard_ms >= self.control_slot_s * 1e3:
            yield (
                "guard_ms",
                f"guard_ms {self.guard_ms:g} leaves nothing of a control slot of {self.control_slot_s:g} s",
            )
        elif self.events is not None and self.guard_ms >= self.events.min_slot_s * 1e3:
            yield (
                "guard_ms",
                f"guard_ms {self.guard_ms:g} leaves nothing of a control slot that ends after "
                f"events.min_slot_s {self.events.min_slot_s:g} s",
            )


class ShareModel(_Strict):
    """PRBs of each direction (TS 28.541 RRMPolicyRatio)."""

    dedicated: Annotated[int, Field(ge=0, le=MAX_PRB)] = 0
    """Nobody else's, even when idle."""
    min: Annotated[int, Field(ge=0, le=MAX_PRB)] = 0
    """Up to here the slice comes before others."""
    max: Annotated[int, Field(ge=0, le=MAX_PRB)] = MAX_PRB
    """It has no more, and never more than the carrier."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        try:
            self.to_share()
        except ValueError as error:
            yield "", str(error)

    def to_share(self) -> Share:
        return Share(self.dedicated, self.min, self.max)


class SliceModel(_Strict):
    """One slice of a cell. Every key that is not one of these is an option of its service."""

    id: Name
    """The slice's name, in quotas, records and metrics."""
    service: str = "ar"
    """What the slice carries; `prbandit services` lists them."""
    ues: tuple[Name, ...] = ()
    """UEs that the gNB is told to put into this slice, by the ids that it reports; others are where it has
    them, by their S-NSSAI."""
    share: ShareModel = ShareModel()
    options: SkipValidation[Options] = Field(default_factory=Options)
    """Of the service."""

    @field_validator("ues", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="wrap")
    @classmethod
    def _of_service(cls, data: Any, handler: ModelWrapValidatorHandler[SliceModel]) -> SliceModel:
        if not isinstance(data, dict):
            return handler(data)
        common = {k: v for k, v in data.items() if k in cls.model_fields and k != "options"}
        errors: list[InitErrorDetails] = []
        made = None
        try:
            made = handler(common)
        except ValidationError as error:
            errors += map(_detail, error.errors())
        name = data.get("service", "ar")
        try:
            of = service(name).options if isinstance(name, str) else None
        except ValueError as error:
            of = None
            errors.append(
                _detail({"type": "value_error", "msg": str(error), "loc": ("service",), "input": name})
            )
        if of is not None:
            try:
                options = of.model_validate({k: v for k, v in data.items() if k not in common})
            except ValidationError as error:
                errors += map(_detail, error.errors())
        if errors or made is None:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        object.__setattr__(made, "options", options)
        return made

    @model_serializer(mode="plain")
    def _flat(self, info: SerializationInfo) -> dict[str, Any]:
        mode = "json" if info.mode_is_json() else "python"
        ues = list(self.ues) if info.mode_is_json() else self.ues
        share = {} if self.share == ShareModel() else {"share": self.share.model_dump()}
        of = {"id": self.id, "service": self.service, "ues": ues, **share}
        return {**of, **self.options.model_dump(mode=mode)}


def _detail(error: Any) -> InitErrorDetails:
    """One mistake as a mistake of the model around."""
    kind = PydanticCustomError(error["type"], str(error["msg"]))
    return InitErrorDetails(type=kind, loc=error["loc"], input=error.get("input"))


class CellModel(_Strict):
    """One cell and its slices."""

    id: Name
    """The cell's name: a gNB says in its Hello which cell it is, and its CURVE key is of that cell alone."""
    slices: tuple[SliceModel, ...] = (SliceModel(id="ar"),)
    """Up to 16, with different ids."""
    arbiter: str = "maxmin"
    """Who gets PRBs when they are short; `prbandit arbiters` lists them."""
    gpu: str = ""
    """UUID of the edge GPU that serves the cell; empty: the only one."""
    max_mhz: Annotated[int, Field(gt=0, le=100_000)] = 1600
    """The highest clock of that GPU."""
    ul_overhead: Overhead = 0.08
    """The part of the uplink's resource elements that carries no data; enters the demand."""
    dl_overhead: Overhead = 0.14
    """The part of the downlink's resource elements that carries no data; enters the demand."""
    tdd_guard: bool = False
    """Whether the guard symbols of the TDD pattern count against its directions; off, as in the MUCB1 paper.
    """

    @field_validator("slices", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def contradictions(self) -> Iterator[tuple[str, str]]:
        names = [s.id for s in self.slices]
        if not names or len(set(names)) != len(names):
            yield "slices", f"slices must be one or more with different ids, not {names}"
        if len(names) > 16:
            yield "slices", f"a cell carries at most 16 slices, not {len(names)}"
        bound = [ue for s in self.slices for ue in s.ues]
        if len(set(bound)) != len(bound):
            yield "slices", f"a UE is in two slices: {bound}"
        if len(bound) > 64:
            yield "slices", f"a cell binds at most 64 UEs to slices, not {len(bound)}"

    def ends_early(self, control: Control) -> bool:
        """Whether control slots may end before their time: all slices want it, and they are long enough."""
        events = control.events
        long_enough = events is not None and events.min_slot_s < control.control_slot_s
        return long_enough and all(s.options.ends_early for s in self.slices)


class RanLinkModel(_Strict):
    """Where gNBs connect to (ZMQ)."""

    address: Annotated[str, Field(min_length=1)] = "tcp://127.0.0.1:5555"
    """Where the controller listens for gNBs, tcp://HOST:PORT."""
    report_period_ms: Annotated[int, Field(ge=10, le=200)] = 50
    """How often a gNB is told to report."""
    lease_s: Annotated[float, Field(ge=1.5, le=3600, allow_inf_nan=False)] | None = None
    """How long quotas, clock locks and settings hold without renewal; null: max(3, 2 control slots). They are
    renewed every third of it, and a renewal of which nothing comes is sent again after 0.7 s at most: with
    less than 1.5 s the first one that is lost would end them."""


class EdgeLinkModel(_Strict):
    """The edge agent (gRPC)."""

    address: Annotated[str, Field(min_length=1)] | None = "127.0.0.1:50061"
    """Where the edge agent listens, HOST:PORT; null: there is none."""
    watch_period_ms: Annotated[int, Field(ge=10, le=10_000)] = 200
    """How often the edge agent tells the GPU's state."""


class QosModel(_Strict):
    """QoS ingest (gRPC).

    Hop delays count while the clocks behind a frame are known to agree: those that are told of by PTP are so
    at least every ``clock_stale_s``, follow a master or are one, and are off by ``clock_bound_us`` at most. A
    UE's host that never tells of its clock is believed.
    """

    address: Annotated[str, Field(min_length=1)] | None = "127.0.0.1:50062"
    """Where the controller listens for flows, frames and clocks, HOST:PORT; null: there is none, and nothing
    is learned."""
    clock_bound_us: Positive = 1000.0
    """The largest offset of a clock with which hop delays count."""
    clock_stale_s: Positive = 5.0
    """For how long what a host last said of its clock counts."""
    clock_hosts: list[str] = []
    """The edge's host, and no UE's: its clock must be told of and be good for any frame. Empty: any host that
    tells of its clock and has no active flow may be the edge, so all of these must be good."""
    max_hosts: Annotated[int, Field(ge=1, le=1024)] = 32
    """How many hosts are heard at most, a thread each; those that share one certificate and address are at
    most three quarters of them."""


class ServerModel(_Strict):
    """A server of the controller."""

    address: Annotated[str, Field(min_length=1)] | None
    """Where the server listens, HOST:PORT; null: it is not started."""


class Links(_Strict):
    """The world outside."""

    ran: RanLinkModel = RanLinkModel()
    edge: EdgeLinkModel = EdgeLinkModel()
    qos: QosModel = QosModel()
    operator: ServerModel = ServerModel(address=OPERATOR_ADDRESS)
    """The operator API."""
    metrics: ServerModel = ServerModel(address="127.0.0.1:9464")
    """The page for Prometheus."""
    page: ServerModel = ServerModel(address=PAGE_ADDRESS)
    """The page for operators, in a browser."""


class Security(_Strict):
    """What protects addresses beyond loopback."""

    keys: str | None = None
    """Folder of CURVE keys and TLS certificates (`prbandit keys`); null: loopback alone."""


class Store(_Strict):
    """The run record."""

    runs: str = "runs"
    """Where a run folder is made if none is given."""
    retain_days: Positive | None = None
    """Records that are older are deleted; null: none are."""


class OnOff(_Strict):
    """Exponential on and off times, with a minimum each."""

    mean_on_s: Positive
    """Of the time that a flow is on."""
    mean_off_s: Positive
    """Of the time that it is off."""
    min_on_s: Annotated[float, Field(ge=0)] = 0.0
    """The least time that it is on."""
    min_off_s: Annotated[float, Field(ge=0)] = 0.0
    """The least time that it is off."""


class BearerModel(_Strict):
    """The data bearer of each UE of a slice."""

    five_qi: Annotated[int, Field(ge=1, le=MAX_FIVE_QI)] | None = None
    """TS 23.501 Table 5.7.4-1; null: what the slice's service is for."""
    snssai: str = ""
    """SST or SST-SD; empty: none, as in a gNB without a core network."""

    @field_validator("snssai", mode="before")
    @classmethod
    def _snssai(cls, value: Any) -> Any:
        """YAML's ``1``, an SST without SD, is a number."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value:
            parse_snssai(value)
        return value


class UserGroup(BaseModel):
    """Users of one application. Every key that is not one of these is an option of the application."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, use_attribute_docstrings=True)

    application: Name
    """What the users do: openrtist, or an application of the entry points prbandit.applications."""
    slice: str = ""
    """They are on the UEs that are bound to this slice, one after the other; empty: on those that are bound
    to none."""
    count: Annotated[int, Field(ge=1, le=512)] = 1
    """How many users."""
    schedule: Literal["described", "published", "always"] = "always"
    """When they are active, as emulation.schedule."""
    transport: Literal["tcp", "udp"] = "tcp"
    """TCP, or datagrams."""
    decoding_error: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Of short packets, which are sent once; 0: blocks are sent again (HARQ)."""
    ul_bps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The rate up that each of their flows announces."""
    dl_bps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The rate down that each of their flows announces."""

    @property
    def options(self) -> dict[str, Any]:
        """The application's own."""
        return dict(self.model_extra or {})


Factor = Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)]


class StressModel(_Strict):
    """What makes the emulated testbed another one than it was calibrated to. By default nothing does.

    Rates are a second and UE, or edge: the floor, what full resources miss too.
    """

    hiccup_rate_hz: Annotated[float, Field(ge=0, le=100)] | None = None
    """How often the UE is away for 1.5 to 3 s; null: as calibrated."""
    ul_hold_rate_hz: Annotated[float, Field(ge=0, le=100)] | None = None
    """How often its uplink is held for some 7 ms; null: as calibrated."""
    stall_rate_hz: Annotated[float, Field(ge=0, le=1)] | None = None
    """How often the edge stands still for some 55 ms; null: as calibrated."""
    at_s: Positive | None = None
    """When `demand` and `service_time` change; null: at half of `duration_s`."""
    demand: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """From `at_s` on OpenRTiST's frames and results are so many times as large; announced rates stay."""
    service_time: Factor = 1.0
    """From `at_s` on the GPU takes so many times as long at the same clock."""
    announced_rate: Factor = 1.0
    """Flows announce so many times the rates that they have on average."""
    synchronised: bool = True
    """Whether the clocks are; where they are not, frames tell the round trip alone."""
    cross_ul_bps: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Packets of 1400 bytes up, of another application on the first UE, Poisson, that nobody announces and
    that share its queues and quotas."""
    cross_dl_bps: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """The same down."""

    @property
    def changes(self) -> bool:
        """Whether something is different from ``at_s`` on."""
        return self.demand != 1 or self.service_time != 1


Metres = Annotated[float, Field(ge=-1e5, le=1e5, allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)]


class MobilityModel(_Strict):
    """UEs that move over a campus; their SINR follows their way."""

    stations: tuple[tuple[Metres, Metres], ...] = ((300.0, 400.0), (900.0, 400.0))
    """Where each cell's base station is, [x, y] in m, in the order of the cells."""
    area_m: tuple[Length, Length] = (1200.0, 800.0)
    """The rectangle that UEs move over, from (0, 0)."""
    hysteresis_db: Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)] = 4.0
    """The serving cell changes where another station is received so much stronger."""

    @field_validator("stations", "area_m", mode="before")
    @classmethod
    def _tuples(cls, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(tuple(v) if isinstance(v, list) else v for v in value)
        return value


class Emulation(_Strict):
    """The emulated testbed: flows of OpenRTiST, and users of other applications."""

    duration_s: Positive = 3600.0
    """How long `prbandit experiment` plays, and what is drawn ahead of a live run."""
    tdd: str = "DSUUU"
    """The TDD pattern of every cell."""
    prb: Annotated[int, Field(ge=11, le=273)] = 106
    """The carrier's bandwidth."""
    k2: Annotated[int, Field(ge=1, le=16)] = 6
    """NR slots from a DCI to its PUSCH."""
    scheduler: Literal["oai-2024", "oai-2026"] = "oai-2024"
    """Whose habits the cell's scheduler has: OAI's of May 2024, or the pipeline of August 2026 under the
    module's allocation stage."""
    flows: Annotated[int, Field(ge=0, le=64)] = 2
    """Flows of OpenRTiST."""
    ues: Annotated[int, Field(ge=1, le=64)] = 1
    """UEs in each cell, ue-1, ue-2, ...; flows are on them in turn."""
    schedule: Literal["described", "published", "always"] = "described"
    """When flows are on: described (exponential, with both minimums of `on_off`), published (as the MUCB1
    authors' generator did it, seed 4), or always."""
    on_off: OnOff | None = None
    """Needed by every schedule but always."""
    channel_trace: str | None = None
    """A file of measured CQI and SNR, or a folder of them; each seed and each UE begins elsewhere in it.
    null: a channel process."""
    users: tuple[UserGroup, ...] = ()
    """Users of other applications, one group an application."""
    bearers: dict[Name, BearerModel] = Field(default_factory=dict)
    """By slice: what the gNB reports of the UEs' bearer. Its scheduler does not go by it."""
    modem_ms: Annotated[float, Field(ge=0, le=1000)] | None = None
    """What a UE's modem and host take for a packet down; null: 7.5, the modem of the MUCB1 paper."""
    modem_poll_ms: Annotated[float, Field(ge=0, le=1000)] | None = None
    """How often the modem hands packets over; null: 16, the modem of the MUCB1 paper."""
    mobility: MobilityModel | None = None
    """Users whose application lets them change cell do so as they move, with all that they are; null: nobody
    moves."""
    stress: StressModel = StressModel()

    @field_validator("users", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("tdd")
    @classmethod
    def _tdd(cls, value: str) -> str:
        if value not in TDD_PATTERNS:
            raise ValueError(f"unknown TDD pattern {value!r}; patterns: {', '.join(TDD_PATTERNS)}")
        return value

    def contradictions(self) -> Iterator[tuple[str, str]]:
        groups = self.users
        if self.on_off is None:
            for key, schedule in (("schedule", self.schedule), *(("users", g.schedule) for g in groups)):
                if schedule != "always":
                    yield key, f"schedule {schedule} needs on_off"
        names = [group.application for group in groups]
        if len(set(names)) != len(names):
            yield "users", f"an application has one group of users, not {names}"
        at_s = self.stress.at_s
        if at_s is not None and at_s >= self.duration_s:
            yield "stress", f"stress.at_s {at_s:g} is not within the {self.duration_s:g} s of duration_s"
        others = [name for name in names if name != "openrtist"]
        if self.stress.demand != 1 and others:
            yield "stress", f"stress.demand is of OpenRTiST's frames alone, not of {', '.join(others)}"
        if self.mobility is not None and self.channel_trace is not None:
            yield "mobility", "channel_trace and mobility: a UE's channel is measured or follows its way"


class Config(_Strict):
    """One file: the controller, and in a scenario the emulated testbed that it runs on."""

    control: Control = Control()
    cells: tuple[CellModel, ...] = (CellModel(id="cell-1"),)
    """One or more, with different ids."""
    links: Links = Links()
    security: Security = Security()
    store: Store = Store()
    emulation: Emulation | None = None
    """null: there is none."""

    @field_validator("cells", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def contradictions(self) -> Iterator[tuple[str, str]]:
        names = [c.id for c in self.cells]
        if not names or len(set(names)) != len(names):
            yield "cells", f"cells must be one or more with different ids, not {names}"
        mobility = self.emulation.mobility if self.emulation else None
        if mobility is not None and len(mobility.stations) != len(names):
            text = f"emulation.mobility.stations: {len(mobility.stations)} stations for {len(names)} cells"
            yield "emulation", text
        slices = {s.id: None for c in self.cells for s in c.slices}
        for name in self.emulation.bearers if self.emulation else ():
            if name not in slices:
                text = f"emulation.bearers: unknown slice {name!r}; slices: {', '.join(slices)}"
                yield "emulation", text

    def with_policy(self, policy: str, **options: Any) -> Config:
        """The same with ``policy`` in every slice, with these options alone.

        ConfigError where there is no such policy, or it has no such option.
        """
        data = self.model_dump()
        try:
            for cell, model in zip(data["cells"], self.cells, strict=True):
                for s, of in zip(cell["slices"], model.slices, strict=True):
                    s.update({**of.options.switched(policy), "policy_options": options})
        except ValueError as error:
            raise ConfigError(f"policy {policy}: slice {of.id}: {error}") from error
        try:
            config = Config.model_validate(data)
        except ValidationError as error:
            raise ConfigError(mistake(error.errors()[0])) from error
        if found := checks.mistakes(config):
            raise ConfigError("\n".join(f"{_dotted(m.place)}: {m.text}" for m in found))
        return config

    def with_seed(self, seed: int) -> Config:
        """The same with another ``control.seed``; ConfigError where it is none."""
        data = self.model_dump()
        data["control"]["seed"] = seed
        try:
            return Config.model_validate(data)
        except ValidationError as error:
            raise ConfigError(mistake(error.errors()[0])) from error

    @property
    def lease_s(self) -> float:
        """Seconds that a quota or clock lock holds without renewal: by default max(3, 2 T)."""
        return self.links.ran.lease_s or max(3.0, 2.0 * self.control.control_slot_s)

    @property
    def away_s(self) -> float:
        """How long flows go on whose host is away."""
        return 2.0 * self.control.control_slot_s

    def to_yaml(self) -> str:
        """The resolved configuration, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @property
    def digest(self) -> str:
        """:func:`controller.core.names.config_hash` of :meth:`to_yaml`."""
        return config_hash(self.to_yaml())

    def service_of(self, cell_id: str, flow: Flow, service: str = "") -> str:
        """The service of a flow's slice.

        ValueError, naming the flow, for a slice that the cell does not have, and where the flow says that it
        is of another ``service``.
        """
        slices = {s.id: s.service for c in self.cells if c.id == cell_id for s in c.slices}
        if flow.slice not in slices:
            raise ValueError(
                f"FlowStart of flow {flow.flow!r}: unknown slice {flow.slice!r}; slices: {', '.join(slices)}"
            )
        if service and service != slices[flow.slice]:
            raise ValueError(
                f"FlowStart of flow {flow.flow!r}: of service {service!r}, "
                f"slice {flow.slice!r} is of {slices[flow.slice]!r}"
            )
        return slices[flow.slice]

    def tables_of(self, cell_id: str, flow: Flow) -> dict[str, int]:
        """How many columns each table has that the users of a flow's service send; ValueError as above."""
        tables = service(self.service_of(cell_id, flow)).tables
        return {name: len(columns) for name, columns in tables.items()}

    def loop_spec(
        self, cell_id: str, n_prb: int, scs_khz: int, tdd: TddPattern, min_prb: int = 1
    ) -> LoopSpec:
        """The control loop of a cell with the carrier that it reported; ValueError where they disagree."""
        cell = next((c for c in self.cells if c.id == cell_id), None)
        if cell is None:
            raise ValueError(f"unknown cell {cell_id!r}; cells: {', '.join(c.id for c in self.cells)}")
        if found := [*checks.misfits(cell, Limits(n_prb, min_prb))]:
            raise ValueError("\n".join(f"cell {cell_id}, {_dotted(m.place)}: {m.text}" for m in found))
        rescue = self.control.rescue
        events = self.control.events if cell.ends_early(self.control) else None
        return LoopSpec(
            cell=cell_id,
            n_prb=n_prb,
            carrier=Carrier(
                tdd=tdd,
                scs_khz=scs_khz,
                guard=cell.tdd_guard,
                ul_overhead=cell.ul_overhead,
                dl_overhead=cell.dl_overhead,
                subinterval_ms=float(self.control.subinterval_ms),
            ),
            slices=tuple(_slice_spec(s) for s in cell.slices),
            max_mhz=cell.max_mhz,
            mode=Mode(self.control.mode),
            guard_ms=self.control.guard_ms,
            seed=self.control.seed,
            arbiter=cell.arbiter,
            rescue=None if rescue is None else RescueSpec(rescue.blind_slots, rescue.missed_slots),
            events=None if events is None else EventsSpec(events.min_slot_s),
            control_slot_s=self.control.control_slot_s,
            min_prb=min_prb,
        )


def _slice_spec(s: SliceModel) -> SliceSpec:
    return SliceSpec(s.id, s.service, s.ues, s.share.to_share(), s.options.to_dict())


class StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float, bool)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    here: bool = False,
    carriers: Mapping[str, Limits] | int | None = None,
) -> Config:
    """Read a configuration; :class:`ConfigError` names file, line and key of every mistake.

    ``overrides`` maps dotted keys to values that replace the file's. ``here``: the controller is to run on
    this host, with its addresses and its key files. ``carriers``: see :func:`controller.checks.mistakes`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder, not a file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: cannot be read: {error}; save it as UTF-8") from error
    return parse(text, str(path), overrides, here=here, carriers=carriers)


def parse(
    text: str,
    name: str = "<text>",
    overrides: Mapping[str, Any] | None = None,
    *,
    here: bool = False,
    carriers: Mapping[str, Limits] | int | None = None,
) -> Config:
    """As :func:`load`, from text."""
    try:
        data = yaml.load(text, Loader=StrictLoader)
        root = yaml.compose(text, Loader=StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(_not_yaml(text, name, error)) from error
    if data is None:
        raise ConfigError(f"{name}: empty; a configuration in which all is as by default is {{}}")
    if not isinstance(data, dict):
        raise ConfigError(f"{name}:1: a configuration is a mapping, not {type(data).__name__}")
    for dotted, value in (overrides or {}).items():
        try:
            _override(data, dotted.split("."), value)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{name}: {dotted}: there is no such place to set a value") from error
    config, found = _validated(data)
    if config is not None:
        more = [*checks.mistakes(config, carriers), *(checks.host_mistakes(config) if here else ())]
        found += [m for m in more if not _known(m, found)]
    if config is None or found:
        given = [tuple(dotted.split(".")) for dotted in overrides or ()]
        raise ConfigError("\n".join(_error_lines(name, root, given, found)))
    return config


def _error_lines(
    name: str, root: yaml.Node | None, given: Sequence[Place], found: Iterable[Mistake]
) -> Iterator[str]:
    """A line for each mistake, in the order of the file, those of what was ``given`` in its place among
    them."""
    for line, key, text in sorted((_line(root, m.place), _dotted(m.place), m.text) for m in found):
        if any(_within(tuple(key.split(".")), place) for place in given):
            yield f"{name}: {key}: {text} (overrides the file)"
        else:
            yield f"{name}:{line}: {key}: {text}"


def _not_yaml(text: str, name: str, error: Exception) -> str:
    """What is said of a text that YAML cannot read."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{name}: {str(error) or 'nested too deeply'}"
    said = f"{name}:{mark.line + 1}: {getattr(error, 'problem', None) or error}"
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if address := _BRACKETS.search(line):
        said += f'; an address in brackets wants quotes: "{address.group()}"'
    return said


_BRACKETS = re.compile(r"\[[0-9A-Fa-f:.]+\]:\d+")


def _validated(data: dict[Any, Any]) -> tuple[Config | None, list[Mistake]]:
    """The configuration, and all mistakes of its values and models.

    A value that is wrong is left out, so that its default takes its place and the parts around it are looked
    at too; what is said then of places that were left out does not count. None where that cannot be.
    """
    found: list[Mistake] = []
    while True:
        try:
            config = Config.model_validate(data, context=_APART)
            return config, found + [m for m in _contradictions(config) if not _known(m, found)]
        except ValidationError as error:
            new = [Mistake(tuple(e["loc"]), mistake(e)) for e in error.errors()]
            left_out = copy.deepcopy(data)
            for place in {m.place for m in new}:
                _leave_out(left_out, place)
            found += [m for m in new if not _known(m, found)]
            if left_out == data:
                return None, found
            data = left_out


def _contradictions(model: Any, place: Place = ()) -> Iterator[Mistake]:
    """Those of a model and of all models in it."""
    if isinstance(model, tuple):
        for i, inner in enumerate(model):
            yield from _contradictions(inner, (*place, i))
    if isinstance(model, _Strict):
        for key, text in model.contradictions():
            yield Mistake((*place, key) if key else place, text)
        for name in type(model).model_fields:
            yield from _contradictions(getattr(model, name), (*place, name))


def _known(new: Mistake, found: Iterable[Mistake]) -> bool:
    """Whether a mistake is of a place, or depends on one, that is wrong already."""
    wrong = {m.place for m in found}
    return any(_within(place, other) for place in (new.place, *new.depends) for other in wrong)


def _within(place: Place, other: Place) -> bool:
    return place[: len(other)] == other


def _dotted(place: Place) -> str:
    return ".".join(map(str, place)) or "configuration"


def _leave_out(data: Any, place: Place) -> None:
    """Take away the deepest key of a place that is there, and what belongs to it; a name is replaced."""
    holder, key = None, None
    for part in place:
        inner: Any = None
        if isinstance(data, dict) and part in data:
            holder, key, inner = data, part, data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            inner = data[part]
        else:
            if part == "id" and isinstance(data, dict):
                holder, key = data, part
            break
        data = inner
    if holder is None:
        return
    if key == "id":
        holder[key] = f"unnamed-{'-'.join(map(str, place[:-1]))}"[:31]
        return
    for own in (key, f"{key}_options"):
        holder.pop(own, None)


def parse_options(text: str) -> dict[str, Any]:
    """Options of a slice as an operator writes them: a YAML mapping option -> new value.

    :class:`ConfigError` for what is none, or has values that JSON has not. Aliases are refused: with them a
    short text could be a huge value.
    """
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=StrictLoader)):
            raise ConfigError("options: a YAML alias is not taken here")
        data = yaml.load(text, Loader=StrictLoader)
        if not isinstance(data, dict):
            raise ConfigError(f"options: a mapping option -> value is needed, this is {type(data).__name__}")
        for name, value in data.items():
            if not isinstance(name, str):
                raise ConfigError(f"options: {name!r} is not the name of an option")
            _check_plain(name, value)
    except yaml.YAMLError as error:
        raise ConfigError(f"options: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise ConfigError("options: nested too deeply") from None
    except ConfigError:
        raise
    except ValueError as error:  # a date that there is not
        raise ConfigError(f"options: {error}") from error
    if not data:
        raise ConfigError("options: none given")
    return data


def _check_plain(place: str, value: Any) -> None:
    """ConfigError for what JSON does not have: YAML has dates, sets, bytes and infinity."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{place}: key {key!r} is not a word")
            _check_plain(f"{place}.{key}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_plain(f"{place}.{i}", inner)
    elif not (
        value is None or isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value))
    ):
        raise ConfigError(f"{place}: {value!r} is neither text, a finite number, a truth value nor a list")


def _override(data: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if isinstance(data, list):
            data = data[int(key)]
        else:
            if data.get(key) is None:
                data[key] = {}
            data = data[key]
    if isinstance(data, list):
        data[int(keys[-1])] = value
    else:
        data[keys[-1]] = value


def _line(node: yaml.Node | None, loc: tuple[Any, ...]) -> int:
    """Line of the deepest part of a key's path that the file has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def scenarios() -> dict[str, Path]:
    """Scenario files that ship with the package, by name."""
    folder = resources.files("controller.scenarios")
    return {p.name.removesuffix(".yaml"): Path(str(p)) for p in folder.iterdir() if p.name.endswith(".yaml")}


def find(name_or_path: str) -> Path:
    """A shipped scenario by name, or a file; :class:`ConfigError` lists the names, the nearest first, where
    neither is there."""
    shipped = scenarios()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{name_or_path}: a folder, not a file")
    raise ConfigError(
        f"{name_or_path}: neither a file nor a shipped scenario{nearest(name_or_path, shipped)}; "
        f"scenarios: {', '.join(sorted(shipped))}"
    )
