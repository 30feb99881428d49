"""Operator API: the controller's side of wire/operator.proto, and the client of CLI, console and page."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from controller.core.clocks import KnownClock
from controller.core.decision import ManualQuota
from controller.core.names import one_line
from controller.core.observation import DirectionColumns, MacReport
from controller.core.ue_rates import Rate, UeRate
from controller.links.counters import Complaints, Counters, guard_counters, guard_refusals
from controller.links.health import Heard
from wire import PROTOCOL_VERSION, operator_pb2, operator_pb2_grpc, security
from wire.roles import CONTROLLER, OBSERVER, OPERATOR
from wire.serving import Guard, caller
from wire.version import full_version

log = logging.getLogger(__name__)

MAX_SUBSCRIBERS = 16
SUBSCRIBER_QUEUE = 64
KEPT_BYTES = 4 << 20
"""Of the JSON texts of the decisions of one cell that a :class:`Broadcaster` keeps."""
MAX_NAME_BYTES = 64
MAX_OPTIONS_BYTES = 4096
"""The YAML of a SetOptions."""
MAX_UES = 64
"""Of a cell, in its state."""
HEALTH_PERIOD_S = 1.0
"""How often a health watch looks."""
MAX_PROBES = 4
"""Health watches, and streams of reflection, at a time: each has a thread, and the rest is for operators."""

COUNTERS: dict[str, str] = {
    **guard_counters("operator"),
    "operator_version_mismatch_total": "Clients refused: other protocol version",
    "operator_refused_total": "Commands refused: unknown cell, slice, mode or option, impossible value",
    "operator_errors_total": "Calls that failed inside the controller",
    "operator_subscribers_refused_total": "Subscribers of decisions refused: too many",
    "operator_decisions_dropped_total": "Decisions that a slow subscriber lost, oldest first",
}
"""Help text of every counter of this link; each has the label ``cell``, empty where it is not known."""


@dataclass(frozen=True, slots=True)
class SliceStatus:
    """A slice as it is played now: ``options`` are plain JSON values, ``explored`` is the part of its choices
    that explored (None before there is one), ``hops`` are those that can have a policy of their own,
    ``policies`` those that there are for it."""

    slice: str
    service: str
    options: Mapping[str, Any]
    explored: float | None = None
    hops: Sequence[str] = ()
    policies: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Savings:
    """Of a cell's maxima, 0..1, over ``control_s`` seconds (:mod:`controller.core.power`)."""

    control_s: float
    gpu: float
    bs: float
    ue: float


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell as an operator sees it; ``last`` is its latest decision record, ``reports`` of the session.

    ``manual``: slice, the quotas that an operator set for it, seconds that are left. ``qos``: slice ->
    control slots of the last hour with known QoS, and those that kept the promise. ``hosts``: those whose QoS
    streams are open. ``report`` is the session's last, ``rates``
    those of its UEs by UE id.
    """

    cell_id: str
    connected: bool = False
    session: int = 0
    control_slots: int = 0
    prb: int = 0
    mode: str = ""
    last: Mapping[str, Any] | None = None
    reports: int = 0
    edge_connected: bool = False
    sm_mhz: int = 0
    active_flows: int = 0
    clocks: Sequence[KnownClock] = ()
    manual: Sequence[tuple[str, ManualQuota, float]] = ()
    report_age_s: float | None = None
    lease_left_s: float | None = None
    not_controlled: str = ""
    qos: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    hosts: Sequence[Heard] = ()
    edge_configured: bool = False
    gpu_age_s: float | None = None
    report: MacReport | None = None
    rates: Mapping[str, UeRate] = field(default_factory=dict)
    slices: Sequence[SliceStatus] = ()
    savings: Savings | None = None
    gpu_power_w: float | None = None
    gpu_max_mhz: int = 0


@dataclass(frozen=True, slots=True)
class ControllerStatus:
    """The controller as an operator sees it; the version is that of the package where it is empty."""

    config_path: str
    run_dir: str
    control_slot_s: float
    cells: Sequence[CellStatus] = ()
    version: str = ""
    store_error: str = ""
    store_lost: int = 0
    config_hash: str = ""
    lease_s: float = 0.0
    up_s: float = 0.0
    reload_error: str = ""


class OperatorTarget(Protocol):
    """What the operator API commands; any thread may call, several at once.

    Commands return a text for the operator. They raise ValueError, which refuses the command with its text,
    for an unknown cell, slice, mode, policy or option, and for budgets, options or a configuration that
    cannot be used. An empty ``cell_id`` is every cell, an empty ``slice_id`` every slice of the cell, an
    empty ``hop`` every hop. ``yaml`` is a mapping option -> new value.
    """

    def state(self) -> ControllerStatus: ...

    def alive(self) -> bool:
        """Whether the control loops turn."""

    def called(self, cell_id: str, text: str, refused: bool, /) -> None:
        """Write down that an operator called, and what came of it."""

    def set_mode(self, cell_id: str, mode: str, /) -> str: ...

    def switch_policy(self, cell_id: str, slice_id: str, policy: str, hop: str, /) -> str: ...

    def set_budgets(
        self, cell_id: str, slice_id: str, ul_ms: float, edge_ms: float, dl_ms: float, /
    ) -> str: ...

    def set_options(self, cell_id: str, slice_id: str, yaml: str, /) -> str: ...

    def set_quota(
        self, cell_id: str, slice_id: str, ul: int | None, dl: int | None, for_s: float, /
    ) -> str: ...

    def clear_quota(self, cell_id: str, slice_id: str, /) -> str: ...

    def set_lease(self, lease_s: float, /) -> str: ...

    def reload(self) -> str: ...

    def checkpoint(self) -> str: ...

    def shut_down(self) -> str: ...


# ---- live decisions --------------------------------------------------------------------------------------


class TooManySubscribers(RuntimeError):
    """No further subscriber is served."""


class Subscription:
    """Decisions for one subscriber, the latest :data:`SUBSCRIBER_QUEUE` that it has not taken yet."""

    def __init__(self, cell: str, size: int) -> None:
        self.cell = cell
        self.dropped = 0
        self._changed = threading.Condition()
        self._queue: deque[operator_pb2.DecisionRecord] = deque(maxlen=size)
        self._ended = False

    def put(self, record: operator_pb2.DecisionRecord) -> bool:
        """Never waits; False where the oldest decision had to go for it."""
        with self._changed:
            full = len(self._queue) == self._queue.maxlen
            self.dropped += full
            self._queue.append(record)
            self._changed.notify()
            return not full

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, wait_s: float | None = None) -> operator_pb2.DecisionRecord | None:
        """Waits for the next decision; None once the subscription has ended.

        TimeoutError where there is none within ``wait_s``.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._queue or self._ended, wait_s):
                raise TimeoutError
            return None if self._ended else self._queue.popleft()


class Broadcaster:
    """Hands every decision to all who watch; never waits for one of them.

    A subscriber that is too slow loses its oldest decisions; ``operator_decisions_dropped_total`` counts
    them. Of each cell it keeps the last ``keep`` decisions, no more than :data:`KEPT_BYTES` of them, for who
    comes later.
    """

    def __init__(
        self,
        counters: Counters | None = None,
        *,
        max_subscribers: int = MAX_SUBSCRIBERS,
        queue: int = SUBSCRIBER_QUEUE,
        keep: int = 0,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self.max_subscribers = max_subscribers
        self._size = queue
        self._mutex = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._keep = keep
        self._kept: dict[str, deque[operator_pb2.DecisionRecord]] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    def publish(self, record: Mapping[str, Any]) -> None:
        """One decision record (``Decision.to_record``) to all who watch its cell. Any thread may publish."""
        wanted = [s for s in self._subscriptions if s.cell in ("", record["cell"])]
        if not (wanted or self._keep):
            return
        message = to_message(record)
        if self._keep:
            self._remember(message)
        for subscription in wanted:
            if not subscription.put(message):
                self.counters.inc("operator_decisions_dropped_total", record["cell"])

    def _remember(self, message: operator_pb2.DecisionRecord) -> None:
        with self._mutex:
            kept = self._kept.setdefault(message.cell_id, deque(maxlen=self._keep))
            kept.append(message)
            room = KEPT_BYTES
            for n, old in enumerate(reversed(kept)):
                room -= len(old.json)
                if room < 0:
                    for _ in range(len(kept) - n):
                        kept.popleft()
                    break

    def recent(self, after_ns: int = 0) -> list[operator_pb2.DecisionRecord]:
        """The decisions that it keeps, those made after ``after_ns``, the oldest first."""
        with self._mutex:
            kept = [message for of in self._kept.values() for message in of if message.time_ns > after_ns]
        return sorted(kept, key=lambda message: message.time_ns)

    def subscribe(self, cell: str = "") -> Subscription:
        """The decisions of a cell (empty: of all) from now on. Raises :class:`TooManySubscribers`."""
        with self._mutex:
            if len(self._subscriptions) >= self.max_subscribers:
                raise TooManySubscribers(f"{self.max_subscribers} subscribers are served at most")
            subscription = Subscription(cell, self._size)
            self._subscriptions = (*self._subscriptions, subscription)
            return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        with self._mutex:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
        subscription.end()

    def close(self) -> None:
        """End every subscription."""
        with self._mutex:
            ended, self._subscriptions = self._subscriptions, ()
            self.max_subscribers = 0
        for subscription in ended:
            subscription.end()


def to_message(record: Mapping[str, Any]) -> operator_pb2.DecisionRecord:
    """A decision record as it travels: the JSON text is the one that the run record holds."""
    return operator_pb2.DecisionRecord(
        cell_id=record["cell"],
        control_slot=record["control_slot"],
        time_ns=record["time_ns"],
        json=json.dumps(record, separators=(",", ":"), allow_nan=False),
    )


# ---- server ----------------------------------------------------------------------------------------------


class OperatorService(operator_pb2_grpc.OperatorServicer):
    """Checks what comes in and passes it to the target. What the target refuses is a result, not an error."""

    def __init__(self, target: OperatorTarget, broadcaster: Broadcaster) -> None:
        self._target = target
        self._broadcaster = broadcaster
        self._complain = Complaints(broadcaster.counters, log)

    def Hello(
        self, request: operator_pb2.OperatorHello, context: grpc.ServicerContext
    ) -> operator_pb2.OperatorWelcome:
        if request.protocol_version != PROTOCOL_VERSION:
            text = (
                f"protocol_version: the client speaks {request.protocol_version}, "
                f"this controller {PROTOCOL_VERSION}"
            )
            self._complain("operator_version_mismatch_total", f"{context.peer()}: {text}")
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, text)
        return operator_pb2.OperatorWelcome(
            protocol_version=PROTOCOL_VERSION, controller_version=full_version()
        )

    def GetState(
        self, request: operator_pb2.GetStateRequest, context: grpc.ServicerContext
    ) -> operator_pb2.ControllerState:
        state = self._state(context)
        return operator_pb2.ControllerState(
            version=state.version or full_version(),
            config_path=state.config_path,
            run_dir=state.run_dir,
            control_slot_s=state.control_slot_s,
            store_error=state.store_error,
            store_lost=state.store_lost,
            config_hash=state.config_hash,
            lease_s=state.lease_s,
            up_s=state.up_s,
            reload_error=state.reload_error,
            cells=[
                operator_pb2.CellState(
                    cell_id=c.cell_id,
                    connected=c.connected,
                    session=c.session,
                    control_slots=c.control_slots,
                    prb=c.prb,
                    mode=c.mode,
                    last=None if c.last is None else to_message(c.last),
                    reports=c.reports,
                    edge_connected=c.edge_connected,
                    sm_mhz=c.sm_mhz,
                    active_flows=c.active_flows,
                    clocks=[operator_pb2.ClockState(**asdict(clock)) for clock in c.clocks],
                    manual=[
                        operator_pb2.ManualQuota(slice=name, ul=quota.ul, dl=quota.dl, left_s=left_s)
                        for name, quota, left_s in c.manual
                    ],
                    report_age_s=c.report_age_s,
                    lease_left_s=c.lease_left_s,
                    not_controlled=c.not_controlled,
                    qos=[
                        operator_pb2.SliceQos(slice=name, judged=judged, met=met)
                        for name, (judged, met) in c.qos.items()
                    ],
                    hosts=[operator_pb2.HostState(**heard._asdict()) for heard in c.hosts],
                    edge_configured=c.edge_configured,
                    gpu_age_s=c.gpu_age_s,
                    ues=() if c.report is None else _ues(c.report, c.rates),
                    ues_total=0 if c.report is None else len(c.report.ue_id),
                    slices=[
                        operator_pb2.SliceStatus(
                            slice=s.slice,
                            service=s.service,
                            options=json.dumps(s.options),
                            explored=s.explored,
                            hops=s.hops,
                            policies=s.policies,
                        )
                        for s in c.slices
                    ],
                    savings=None if c.savings is None else operator_pb2.Savings(**asdict(c.savings)),
                    gpu_power_w=c.gpu_power_w,
                    gpu_max_mhz=c.gpu_max_mhz,
                )
                for c in state.cells
            ],
        )

    def WatchDecisions(
        self, request: operator_pb2.WatchDecisionsRequest, context: grpc.ServicerContext
    ) -> Iterator[operator_pb2.DecisionRecord]:
        if request.cell_id:
            known = [c.cell_id for c in self._state(context).cells]
            if request.cell_id not in known:
                _abort(
                    context,
                    grpc.StatusCode.NOT_FOUND,
                    f"cell_id: unknown cell {request.cell_id[:MAX_NAME_BYTES]!r}; cells: {', '.join(known)}",
                )
        try:
            subscription = self._broadcaster.subscribe(request.cell_id)
        except TooManySubscribers as error:
            self._complain("operator_subscribers_refused_total", f"{context.peer()}: {error}")
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        try:
            # A client that has gone would otherwise hold its thread until the next decision.
            if not context.add_callback(subscription.end):
                return
            # Tells the client that it is subscribed, before there is a decision.
            context.send_initial_metadata(())
            while (message := subscription.take()) is not None:
                yield message
        finally:
            self._broadcaster.unsubscribe(subscription)

    def SetMode(
        self, request: operator_pb2.SetModeRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(
            context, request, ("mode",), lambda: self._target.set_mode(request.cell_id, request.mode)
        )

    def SwitchPolicy(
        self, request: operator_pb2.SwitchPolicyRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(
            context,
            request,
            ("policy",),
            lambda: self._target.switch_policy(request.cell_id, request.slice, request.policy, request.hop),
        )

    def SetBudgets(
        self, request: operator_pb2.SetBudgetsRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        def apply() -> str:
            for name in ("ul_ms", "edge_ms", "dl_ms"):
                value = getattr(request, name)
                if not (math.isfinite(value) and value > 0):
                    raise ValueError(f"{name}: {value!r} is not a positive number of milliseconds")
            return self._target.set_budgets(
                request.cell_id, request.slice, request.ul_ms, request.edge_ms, request.dl_ms
            )

        return self._command(context, request, (), apply)

    def SetOptions(
        self, request: operator_pb2.SetOptionsRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(
            context,
            request,
            ("yaml",),
            lambda: self._target.set_options(request.cell_id, request.slice, request.yaml),
        )

    def SetQuota(
        self, request: operator_pb2.SetQuotaRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        ul = request.ul_prb if request.HasField("ul_prb") else None
        dl = request.dl_prb if request.HasField("dl_prb") else None
        return self._command(
            context,
            request,
            ("cell_id", "slice"),
            lambda: self._target.set_quota(request.cell_id, request.slice, ul, dl, request.for_s),
        )

    def ClearQuota(
        self, request: operator_pb2.ClearQuotaRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(
            context,
            request,
            ("cell_id", "slice"),
            lambda: self._target.clear_quota(request.cell_id, request.slice),
        )

    def SetLease(
        self, request: operator_pb2.SetLeaseRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(context, request, (), lambda: self._target.set_lease(request.lease_s))

    def Reload(
        self, request: operator_pb2.ReloadRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(context, request, (), self._target.reload)

    def Checkpoint(
        self, request: operator_pb2.CheckpointRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(context, request, (), self._target.checkpoint)

    def ShutDown(
        self, request: operator_pb2.ShutDownRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(context, request, (), self._target.shut_down)

    def _state(self, context: grpc.ServicerContext) -> ControllerStatus:
        try:
            return self._target.state()
        except Exception:
            log.exception("operator API: the state cannot be read")
            self._complain("operator_errors_total", "the state cannot be read")
            _abort(context, grpc.StatusCode.INTERNAL, "the state cannot be read; see the controller's log")

    def _command(
        self,
        context: grpc.ServicerContext,
        request: Message,
        needed: Sequence[str],
        command: Callable[[], str],
    ) -> operator_pb2.CommandResult:
        name = type(request).__name__.removesuffix("Request")
        called = _called(name, request, context)
        try:
            for field, value in request.ListFields():
                bound = MAX_OPTIONS_BYTES if field.name == "yaml" else MAX_NAME_BYTES
                if isinstance(value, str) and len(value.encode()) > bound:
                    raise ValueError(f"{field.name}: longer than {bound} bytes")
            for field_name in needed:
                if not getattr(request, field_name):
                    raise ValueError(f"{field_name}: empty")
            text = command()
        except ValueError as error:
            self._complain(
                "operator_refused_total", f"{context.peer()}: {name} refused: {one_line(str(error))}"
            )
            self._record(request, f"{called}: refused: {error}", refused=True)
            return operator_pb2.CommandResult(ok=False, message=str(error))
        except Exception:
            log.exception("operator API: %s failed", name)
            self._complain("operator_errors_total", f"{name} failed")
            self._record(request, f"{called}: failed", refused=True)
            return operator_pb2.CommandResult(ok=False, message=f"{name} failed; see the controller's log")
        self._record(request, f"{called}: {text}", refused=False)
        return operator_pb2.CommandResult(ok=True, message=text)

    def _record(self, request: Message, text: str, *, refused: bool) -> None:
        cell = getattr(request, "cell_id", "")
        self._target.called(cell if len(cell) <= MAX_NAME_BYTES else "", text, refused)


def _called(name: str, request: Message, context: grpc.ServicerContext) -> str:
    """A call and its caller, as the run records it: ``SetMode(mode='shadow') by operator at ipv4:...``."""
    given = ", ".join(f"{f.name}={str(v)[:MAX_NAME_BYTES]!r}" for f, v in request.ListFields())
    shown = caller(context)
    return f"{name}({given}) by {'' if shown is None else shown.common_name + ' at '}{context.peer()}"


class HealthService:
    """The standard health service (grpc.health.v1): SERVING while the control loops turn.

    It knows the services "" and ``prbandit.operator.Operator``. ``complain`` counts watches beyond
    :data:`MAX_PROBES`, which are refused.
    """

    def __init__(self, alive: Callable[[], bool], complain: Complaints) -> None:
        self._alive = alive
        self._ended = threading.Event()
        self._places = _Places("health watches", complain)
        self._known = ("", operator_pb2.DESCRIPTOR.services_by_name["Operator"].full_name)

    def _status(self) -> health_pb2.HealthCheckResponse:
        serving = self._alive() and not self._ended.is_set()
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if serving else states.NOT_SERVING)

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._known:
            _abort(
                context, grpc.StatusCode.NOT_FOUND, f"service: unknown {request.service[:MAX_NAME_BYTES]!r}"
            )
        return self._status()

    def List(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(statuses={name: self._status() for name in self._known})

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        if request.service not in self._known:
            yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            return
        last = None
        gone = threading.Event()
        with self._places.place(context):
            # A client that has gone gives its place back at once.
            if not context.add_callback(gone.set):
                return
            while not gone.is_set():
                if (status := self._status()) != last:
                    yield status
                    last = status
                gone.wait(HEALTH_PERIOD_S)

    def close(self) -> None:
        self._ended.set()


class _Places:
    """:data:`MAX_PROBES` streams of a kind at a time; more are refused and counted."""

    def __init__(self, what: str, complain: Complaints) -> None:
        self._free = threading.BoundedSemaphore(MAX_PROBES)
        self._text = f"{MAX_PROBES} {what} are served at most"
        self._complain = complain

    @contextmanager
    def place(self, context: grpc.ServicerContext) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            self._complain("operator_crowded_total", f"{context.peer()}: {self._text}")
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, self._text)
        try:
            yield
        finally:
            self._free.release()


class _Reflection(reflection.ReflectionServicer):
    """Ends a stream at the first request that does not parse."""

    def __init__(self, names: Sequence[str], complain: Complaints) -> None:
        super().__init__(names)
        self._places = _Places("streams of reflection", complain)

    def ServerReflectionInfo(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        def parsed() -> Iterator[Any]:
            for request in requests:
                if request is None:
                    _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the request does not parse")
                yield request

        with self._places.place(context):
            yield from super().ServerReflectionInfo(parsed(), context)


def _ues(report: MacReport, rates: Mapping[str, UeRate]) -> Iterator[operator_pb2.UeStatus]:
    """The first :data:`MAX_UES` UEs of a report; what was told as not known is not set."""

    def known(column: Sequence[Any], i: int) -> Any:
        return (column[i] or None) if column else None

    def direction(of: DirectionColumns, i: int, rate: Rate | None) -> operator_pb2.UeDirection:
        return operator_pb2.UeDirection(
            mcs=of.mcs[i],
            layers=of.layers[i],
            queued_bytes=of.queued_bytes[i],
            bler=of.bler[i] if of.bler else None,
            bps=None if rate is None else rate.throughput_bps,
            prb=None if rate is None else rate.prb,
        )

    for i, (ue_id, name) in enumerate(zip(report.ue_id[:MAX_UES], report.slice, strict=False)):
        rate = rates.get(ue_id, UeRate())
        channels = report.dl_channels[i] if report.dl_channels else ()
        yield operator_pb2.UeStatus(
            ue_id=ue_id,
            slice=name,
            ul=direction(report.ul, i, rate.ul),
            dl=direction(report.dl, i, rate.dl),
            cqi=known(report.cqi, i),
            snr_db=report.snr_db[i] if report.snr_db else None,
            five_qi=known(report.five_qi, i),
            priority_level=known(report.priority_level, i),
            snssai=known(report.snssai, i),
            dl_channels=[operator_pb2.UeChannel(lcid=lcid, queued_bytes=n) for lcid, n in channels],
        )


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    context.abort(code, text)
    raise AssertionError("abort returned")


class OperatorServer:
    """The operator API on an address of its own; it serves from :meth:`start` to :meth:`close`. Beside it
    stand gRPC's own health and reflection services.

    Counts into the broadcaster's counters. Raises what :func:`wire.security.grpc_server_add` raises:
    InsecureAddress beyond loopback without ``tls``, KeyFileError, OSError. ``port`` is the one that it
    listens on; ``guard_options`` are those of :class:`wire.serving.Guard`.
    """

    def __init__(
        self,
        address: str,
        tls: security.Tls | None,
        target: OperatorTarget,
        broadcaster: Broadcaster,
        *,
        setting: str = "links.operator.address",
        missing: str = "security.keys",
        **guard_options: Any,
    ) -> None:
        self._broadcaster = broadcaster
        complain = Complaints(broadcaster.counters, log)
        count = guard_refusals("operator", complain)

        def refused(code: grpc.StatusCode, text: str) -> None:
            count(code, text)
            if code is grpc.StatusCode.PERMISSION_DENIED:
                target.called("", text, True)

        guard = Guard(
            refused,
            streams=broadcaster.max_subscribers,
            keys=None if tls is None else tls.folder,
            **guard_options,
        )
        self._server = guard.server("operator")
        self._health = HealthService(target.alive, complain)
        services = (
            (operator_pb2.DESCRIPTOR.services_by_name["Operator"], OperatorService(target, broadcaster)),
            (health_pb2.DESCRIPTOR.services_by_name["Health"], self._health),
        )
        names = [service.full_name for service, _ in services]
        reflected = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        for service, servicer in (
            *services,
            (reflected, _Reflection([*names, reflected.full_name], complain)),
        ):
            guard.add(self._server, service, servicer)
        self.port = security.grpc_server_add(self._server, address, tls, setting=setting, missing=missing)

    def start(self) -> None:
        self._server.start()

    def close(self, grace_s: float = 0.5) -> None:
        """End the watches and stop serving. May be called twice."""
        self._broadcaster.close()
        self._health.close()
        self._server.stop(grace_s).wait()


# ---- client ----------------------------------------------------------------------------------------------


class OperatorError(ConnectionError):
    """The controller cannot be reached or does not serve the call; the text names address and cause."""

    exit_code = 2
    """Of a command of ours that ends with it."""


class CommandRefused(ValueError):
    """The controller refused a command; the text is its reason."""


class Watch:
    """Decision records as they are made; iterate over it, :meth:`cancel` ends the iteration."""

    def __init__(self, call: Any, fail: Callable[[grpc.RpcError], OperatorError]) -> None:
        self._call, self._fail = call, fail

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            for message in self._call:
                yield json.loads(message.json)
        except grpc.RpcError as error:
            if self._call.code() is not grpc.StatusCode.CANCELLED:
                raise self._fail(error) from error

    def cancel(self) -> None:
        self._call.cancel()


_JSON = frozenset({"prbandit.operator.SliceStatus.options"})
"""Fields that hold JSON text."""


def plain(message: Message) -> Any:
    """A message as plain JSON values: its fields by name, None for one that is not set and could be; in place
    of a decision's message its record itself, in place of JSON text what it says."""
    if isinstance(message, operator_pb2.DecisionRecord):
        return json.loads(message.json)

    def value(field: Any) -> Any:
        if field.has_presence and not message.HasField(field.name):
            return None
        found = getattr(message, field.name)
        if field.full_name in _JSON:
            return json.loads(found)
        if field.is_repeated:
            return [plain(part) if isinstance(part, Message) else part for part in found]
        return plain(found) if isinstance(found, Message) else found

    return {field.name: value(field) for field in message.DESCRIPTOR.fields}


def operator_tls(keys: Path) -> security.Tls:
    """The certificate of a key folder with which one calls: a host that may only look has no operator's."""
    return security.Tls(keys, OPERATOR if (keys / f"{OPERATOR}.crt").exists() else OBSERVER)


class OperatorClient:
    """The operator API as CLI, console and page use it. It says Hello before its first call.

    Every method raises :class:`OperatorError`; commands return the controller's text and raise
    :class:`CommandRefused`. Beyond loopback ``tls`` is needed (:class:`wire.security.InsecureAddress`).
    """

    def __init__(
        self,
        address: str,
        tls: security.Tls | None = None,
        *,
        client: str = "prbandit",
        timeout_s: float = 10.0,
        setting: str = "links.operator.address",
        missing: str = "security.keys",
    ) -> None:
        self.address = address
        self._client = client
        self._timeout_s = timeout_s
        self._tls, self._missing = tls, missing
        self._channel = security.grpc_channel(
            address, tls, server_role=CONTROLLER, setting=setting, missing=missing
        )
        self._stub = operator_pb2_grpc.OperatorStub(self._channel)
        self.controller_version = ""

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> OperatorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hello(self) -> str:
        """Greets the controller and returns its version; a mismatch of protocol versions is an error."""
        request = operator_pb2.OperatorHello(protocol_version=PROTOCOL_VERSION, client=self._client)
        welcome = self._call("Hello", request)
        if welcome.protocol_version != PROTOCOL_VERSION:
            raise OperatorError(
                f"{self.address}: protocol_version: the controller speaks {welcome.protocol_version}, "
                f"this client {PROTOCOL_VERSION}"
            )
        self.controller_version = str(welcome.controller_version)
        return self.controller_version

    def state(self) -> dict[str, Any]:
        """What the controller and its cells are doing, as plain JSON values.

        The keys are the fields of ``ControllerState`` and ``CellState`` in wire/operator.proto; what is not
        set is None. ``last`` is the decision record itself.
        """
        return plain(self._greeted("GetState", operator_pb2.GetStateRequest()))

    def watch(self, cell_id: str = "") -> Watch:
        """Decision records of a cell (empty: of all) from now on. Returns once the controller has agreed."""
        if not self.controller_version:
            self.hello()
        call = self._stub.WatchDecisions(operator_pb2.WatchDecisionsRequest(cell_id=cell_id))
        try:
            call.initial_metadata()
            if call.done() and call.code() not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
                raise OperatorError(f"{self.address}: {call.details()}")
        except grpc.RpcError as error:
            raise self._failed(error) from error
        return Watch(call, self._failed)

    def set_mode(self, cell_id: str, mode: str) -> str:
        """``active``, ``shadow``, ``frozen`` or ``released``; an empty ``cell_id`` is every cell."""
        return self._command("SetMode", operator_pb2.SetModeRequest(cell_id=cell_id, mode=mode))

    def switch_policy(self, cell_id: str, slice_id: str, policy: str, hop: str = "") -> str:
        """Another policy learns from now on, at one hop (``ul``, ``edge``, ``dl``) or at all; an empty
        ``slice_id`` is every slice."""
        request = operator_pb2.SwitchPolicyRequest(cell_id=cell_id, slice=slice_id, policy=policy, hop=hop)
        return self._command("SwitchPolicy", request)

    def set_budgets(self, cell_id: str, slice_id: str, ul_ms: float, edge_ms: float, dl_ms: float) -> str:
        """Delay budgets of the hops in ms; their sum is the round trip's."""
        request = operator_pb2.SetBudgetsRequest(
            cell_id=cell_id, slice=slice_id, ul_ms=ul_ms, edge_ms=edge_ms, dl_ms=dl_ms
        )
        return self._command("SetBudgets", request)

    def set_options(self, cell_id: str, slice_id: str, yaml: str) -> str:
        """Options of a slice; ``yaml`` is a mapping option -> new value, as in the configuration."""
        request = operator_pb2.SetOptionsRequest(cell_id=cell_id, slice=slice_id, yaml=yaml)
        return self._command("SetOptions", request)

    def set_quota(self, cell_id: str, slice_id: str, ul: int | None, dl: int | None, for_s: float) -> str:
        """Hold a slice at so many PRBs for ``for_s`` seconds; a direction that is None stays the policy's."""
        try:
            request = operator_pb2.SetQuotaRequest(
                cell_id=cell_id, slice=slice_id, ul_prb=ul, dl_prb=dl, for_s=for_s
            )
        except ValueError as error:
            raise CommandRefused(f"{ManualQuota(ul, dl)}: {error}") from error
        return self._command("SetQuota", request)

    def clear_quota(self, cell_id: str, slice_id: str) -> str:
        """End a quota set by hand before its time."""
        request = operator_pb2.ClearQuotaRequest(cell_id=cell_id, slice=slice_id)
        return self._command("ClearQuota", request)

    def set_lease(self, lease_s: float) -> str:
        """Quotas and clock locks hold for so many seconds without renewal, from now on."""
        return self._command("SetLease", operator_pb2.SetLeaseRequest(lease_s=lease_s))

    def reload(self) -> str:
        """Read the configuration again; with a bad file the old one stays and the command is refused."""
        return self._command("Reload", operator_pb2.ReloadRequest())

    def checkpoint(self) -> str:
        """Write a checkpoint now."""
        return self._command("Checkpoint", operator_pb2.CheckpointRequest())

    def shut_down(self) -> str:
        """Release everything and end the controller."""
        return self._command("ShutDown", operator_pb2.ShutDownRequest())

    def _command(self, name: str, request: Message) -> str:
        result = self._greeted(name, request)
        if not result.ok:
            raise CommandRefused(result.message)
        return str(result.message)

    def _greeted(self, name: str, request: Message) -> Any:
        if not self.controller_version:
            self.hello()
        return self._call(name, request)

    def _call(self, name: str, request: Message) -> Any:
        try:
            return getattr(self._stub, name)(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._failed(error) from error

    def _failed(self, error: grpc.RpcError) -> OperatorError:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNAVAILABLE:
            nobody = self._tls or "refused" in details
            hint = "" if nobody else f"; one that has keys answers with {self._missing} alone"
            return OperatorError(f"{self.address}: no controller answers there ({details}){hint}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return OperatorError(f"{self.address}: no answer within {self._timeout_s:g} s")
        return OperatorError(f"{self.address}: {details}")
