"""Operator API: the controller's side of wire/operator.proto, and the client of CLI, console and page."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import Message

from controller.core.clocks import KnownClock
from controller.core.decision import ManualQuota
from controller.core.observation import DirectionColumns, MacReport
from controller.links.counters import Complaints, Counters, guard_counters, guard_refusals
from wire import PROTOCOL_VERSION, operator_pb2, operator_pb2_grpc, security
from wire.roles import CONTROLLER
from wire.serving import Guard

log = logging.getLogger(__name__)

MAX_SUBSCRIBERS = 16
SUBSCRIBER_QUEUE = 64
MAX_NAME_BYTES = 64
MAX_OPTIONS_BYTES = 4096
"""The YAML of a SetOptions."""

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
class CellStatus:
    """One cell as an operator sees it; ``last`` is its latest decision record, ``reports`` of the session.

    ``manual``: slice, the quotas that an operator set for it, seconds that are left. ``qos``: slice ->
    control slots of the last hour with known QoS, and those that kept the promise. ``hosts``: those whose QoS
    streams are open, and how many seconds ago each was heard. ``report`` is the session's last.
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
    hosts: Sequence[tuple[str, float]] = ()
    edge_configured: bool = False
    gpu_age_s: float | None = None
    report: MacReport | None = None


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


class OperatorTarget(Protocol):
    """What the operator API commands; any thread may call, several at once.

    Commands return a text for the operator. They raise ValueError, which refuses the command with its text,
    for an unknown cell, slice, mode, policy or option, and for budgets, options or a configuration that
    cannot be used. An empty ``cell_id`` is every cell, an empty ``slice_id`` every slice of the cell.
    ``yaml`` is a mapping option -> new value.
    """

    def state(self) -> ControllerStatus: ...

    def set_mode(self, cell_id: str, mode: str, /) -> str: ...

    def switch_policy(self, cell_id: str, slice_id: str, policy: str, /) -> str: ...

    def set_budgets(
        self, cell_id: str, slice_id: str, ul_ms: float, edge_ms: float, dl_ms: float, /
    ) -> str: ...

    def set_options(self, cell_id: str, slice_id: str, yaml: str, /) -> str: ...

    def set_quota(
        self, cell_id: str, slice_id: str, ul: int | None, dl: int | None, for_s: float, /
    ) -> str: ...

    def clear_quota(self, cell_id: str, slice_id: str, /) -> str: ...

    def reload(self) -> str: ...

    def checkpoint(self) -> str: ...


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

    def take(self) -> operator_pb2.DecisionRecord | None:
        """Waits for the next decision; None once the subscription has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            return None if self._ended else self._queue.popleft()


class Broadcaster:
    """Hands every decision to all who watch; never waits for one of them.

    A subscriber that is too slow loses its oldest decisions; ``operator_decisions_dropped_total`` counts
    them.
    """

    def __init__(
        self,
        counters: Counters | None = None,
        *,
        max_subscribers: int = MAX_SUBSCRIBERS,
        queue: int = SUBSCRIBER_QUEUE,
    ) -> None:
        self.counters = counters if counters is not None else Counters()
        self.max_subscribers = max_subscribers
        self._size = queue
        self._mutex = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()

    def __len__(self) -> int:
        return len(self._subscriptions)

    def publish(self, record: Mapping[str, Any]) -> None:
        """One decision record (``Decision.to_record``) to all who watch its cell. Any thread may publish."""
        wanted = [s for s in self._subscriptions if s.cell in ("", record["cell"])]
        if not wanted:
            return
        message = to_message(record)
        for subscription in wanted:
            if not subscription.put(message):
                self.counters.inc("operator_decisions_dropped_total", record["cell"])

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
            protocol_version=PROTOCOL_VERSION, controller_version=controller_version()
        )

    def GetState(
        self, request: operator_pb2.GetStateRequest, context: grpc.ServicerContext
    ) -> operator_pb2.ControllerState:
        state = self._state(context)
        return operator_pb2.ControllerState(
            version=state.version or controller_version(),
            config_path=state.config_path,
            run_dir=state.run_dir,
            control_slot_s=state.control_slot_s,
            store_error=state.store_error,
            store_lost=state.store_lost,
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
                    hosts=[operator_pb2.HostState(host=host, age_s=age_s) for host, age_s in c.hosts],
                    edge_configured=c.edge_configured,
                    gpu_age_s=c.gpu_age_s,
                    ues=() if c.report is None else _ues(c.report),
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
            lambda: self._target.switch_policy(request.cell_id, request.slice, request.policy),
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

    def Reload(
        self, request: operator_pb2.ReloadRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(context, request, (), self._target.reload)

    def Checkpoint(
        self, request: operator_pb2.CheckpointRequest, context: grpc.ServicerContext
    ) -> operator_pb2.CommandResult:
        return self._command(context, request, (), self._target.checkpoint)

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
            self._complain("operator_refused_total", f"{context.peer()}: {name} refused: {error}")
            return operator_pb2.CommandResult(ok=False, message=str(error))
        except Exception:
            log.exception("operator API: %s failed", name)
            self._complain("operator_errors_total", f"{name} failed")
            return operator_pb2.CommandResult(ok=False, message=f"{name} failed; see the controller's log")
        log.info("operator API: %s by %s: %s", name, context.peer(), text)
        return operator_pb2.CommandResult(ok=True, message=text)


def _ues(report: MacReport) -> Iterator[operator_pb2.UeStatus]:
    """The UEs of a report; what was told as not known is not set."""

    def known(column: Sequence[Any], i: int) -> Any:
        return (column[i] or None) if column else None

    def direction(of: DirectionColumns, i: int) -> operator_pb2.UeDirection:
        return operator_pb2.UeDirection(
            mcs=of.mcs[i],
            layers=of.layers[i],
            queued_bytes=of.queued_bytes[i],
            bler=of.bler[i] if of.bler else None,
        )

    for i, (ue_id, name) in enumerate(zip(report.ue_id, report.slice, strict=True)):
        channels = report.dl_channels[i] if report.dl_channels else ()
        yield operator_pb2.UeStatus(
            ue_id=ue_id,
            slice=name,
            ul=direction(report.ul, i),
            dl=direction(report.dl, i),
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
    """The operator API on an address of its own; it serves from :meth:`start` to :meth:`close`.

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
        guard = Guard(
            guard_refusals("operator", Complaints(broadcaster.counters, log)),
            streams=broadcaster.max_subscribers,
            **guard_options,
        )
        self._server = guard.server("operator")
        service = operator_pb2.DESCRIPTOR.services_by_name["Operator"]
        guard.add(self._server, service, OperatorService(target, broadcaster))
        self.port = security.grpc_server_add(self._server, address, tls, setting=setting, missing=missing)

    def start(self) -> None:
        self._server.start()

    def close(self, grace_s: float = 0.5) -> None:
        """End the watches and stop serving. May be called twice."""
        self._broadcaster.close()
        self._server.stop(grace_s).wait()


@cache
def controller_version() -> str:
    """Version of the installed package, for the first message of the link; read from disk once."""
    try:
        return metadata.version("prbandit")
    except metadata.PackageNotFoundError:
        return "unknown"


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


def _plain(message: Message) -> dict[str, Any]:
    """The fields of a message by name; None for one that is not set and could be."""
    return {
        f.name: getattr(message, f.name) if not f.has_presence or message.HasField(f.name) else None
        for f in message.DESCRIPTOR.fields
    }


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
        state = self._greeted("GetState", operator_pb2.GetStateRequest())
        cells = []
        for cell in state.cells:
            status = _plain(cell)
            for name in ("clocks", "manual", "qos", "hosts", "ues"):
                status[name] = [_plain(part) for part in status[name]]
            for ue in status["ues"]:
                ue["dl_channels"] = [_plain(channel) for channel in ue["dl_channels"]]
                ue["ul"], ue["dl"] = _plain(ue["ul"]), _plain(ue["dl"])
            status["last"] = json.loads(cell.last.json) if cell.HasField("last") else None
            cells.append(status)
        return {**_plain(state), "cells": cells}

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

    def switch_policy(self, cell_id: str, slice_id: str, policy: str) -> str:
        """Another policy learns from now on; an empty ``slice_id`` is every slice."""
        request = operator_pb2.SwitchPolicyRequest(cell_id=cell_id, slice=slice_id, policy=policy)
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

    def reload(self) -> str:
        """Read the configuration again; with a bad file the old one stays and the command is refused."""
        return self._command("Reload", operator_pb2.ReloadRequest())

    def checkpoint(self) -> str:
        """Write a checkpoint now."""
        return self._command("Checkpoint", operator_pb2.CheckpointRequest())

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
