"""Edge link: the controller's side of wire/edge.proto.

:class:`ClockHistory` judges, without I/O, whether the GPU ran at the clock that was wanted.
:class:`EdgeLink` keeps the agent's state stream and the lock's lease alive from two threads of its own; no
method of it waits for the agent. Times are monotonic seconds, clocks MHz.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from controller.core.measure import Reason
from controller.core.observation import GpuReading
from controller.links import codec
from controller.links.codec import BadMessage
from controller.links.counters import Complaints, Counters
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc
from wire.definitions.gpu import bounds, is_held, sleeps
from wire.roles import EDGE_AGENT
from wire.security import Tls, grpc_channel

log = logging.getLogger(__name__)

HELLO_DEADLINE_S = 2.0
RELEASE_DEADLINE_S = 1.0
WATCH_DEADLINE_S = 60.0
RETRY_S = 0.2
RETRY_MAX_S = 2.0
REFUSED_RETRY_S = 10.0
"""Between attempts at an agent that answers but cannot be used (another version, no such GPU)."""

COUNTERS: dict[str, str] = {
    "edge_states_total": "GpuStates taken",
    "edge_bad_state_total": "GpuStates ignored: impossible value or another GPU",
    "edge_unavailable_total": "Calls of the edge agent that failed or were not answered in time",
    "edge_version_mismatch_total": "Attempts at an edge agent of another protocol version",
    "edge_refused_total": "Attempts at an edge agent without the wanted GPU",
    "edge_locks_total": "Clock locks and renewals that were answered",
    "edge_lock_failed_total": "Clock locks, renewals and releases that failed",
    "edge_clock_not_reached_total": "Clock locks whose clock was not the one wanted when read back",
    "edge_lock_expired_total": "Clock locks no longer renewed for want of a new decision",
}
"""Help text of every counter of this link; the label ``cell`` holds the lease's holder."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """A GpuState and the monotonic time at which it came."""

    message: edge_pb2.GpuState
    received_mono: float


class ClockHistory:
    """What was wanted of the GPU's clock, and what was read back.

    Args:
        lease_s: a confirmation is worth so long.
        stale_s: without a sample for so long there is no agent.
        settle_s: at the start of an interval a clock may still change.

    ``supported`` is the GPU's own list of clocks (MHz, ascending), which says how far from the lock a clock
    is still the lock's (:mod:`wire.definitions.gpu`). The clock of a GPU that sleeps for want of work is told
    as that of its lock, at which it wakes.
    """

    def __init__(self, *, lease_s: float, stale_s: float, settle_s: float = 0.2) -> None:
        self.lease_s = lease_s
        self.supported: Sequence[int] = ()
        self._stale_s = stale_s
        self._settle_s = settle_s
        self._wanted: int | None = None
        self._set_mhz = 0
        self._confirmed_at: float | None = None
        self._renewed_at = -math.inf
        self._not_reached = self._raised = False
        self._samples: deque[tuple[float, int, int, bool]] = deque(maxlen=8192)

    @property
    def confirmed(self) -> bool:
        """Whether the wanted clock was locked and read back, since it is wanted."""
        return self._confirmed_at is not None

    def want(self, mhz: int | None) -> None:
        """Another clock is wanted from now on; None: none."""
        if mhz != self._wanted:
            self._wanted = mhz
            self._confirmed_at = None
            self._not_reached = self._raised = False

    def lock(self, mhz: int, lock: edge_pb2.ClockLock, now: float) -> bool:
        """The agent's answer to the lock of ``mhz``; tells whether that clock holds."""
        below = lock.reached and lock.sm_mhz < bounds(lock.wanted_mhz, self.supported)[0]
        sm_mhz = lock.locked_mhz if below else lock.sm_mhz  # it sleeps
        self._samples.append((now, sm_mhz, lock.locked_mhz, lock.reached))
        # Another holder's higher clock wins: the GPU is then not at the clock asked for.
        reached = lock.reached and lock.wanted_mhz == mhz and lock.locked_mhz > 0
        if mhz != self._wanted:
            return reached
        if not reached:
            self._confirmed_at = None
        elif (
            self._confirmed_at is None
            or lock.locked_mhz != self._set_mhz
            or now - self._renewed_at > self.lease_s
        ):
            self._confirmed_at, self._set_mhz = now, lock.locked_mhz
        if reached:
            self._renewed_at = now
        self._not_reached = not reached
        self._raised = lock.wanted_mhz > mhz
        return reached

    def sample(self, sm_mhz: int, locked_mhz: int, now: float, reasons: Collection[str] = ()) -> None:
        """A clock that the agent read, and the GPU's clock event reasons."""
        if sleeps(sm_mhz, locked_mhz, reasons):
            sm_mhz = locked_mhz
        held = is_held(sm_mhz, self._wanted or locked_mhz, locked_mhz, self.supported)
        self._samples.append((now, sm_mhz, locked_mhz, held))

    def disconnected(self) -> None:
        """Nobody vouches for the lock any more."""
        self._confirmed_at = None

    def reading(self, since: float, now: float) -> GpuReading:
        """The clock of the interval from ``since`` to ``now``, and why it cannot be relied on, if so."""
        samples = self._samples
        mhz = samples[-1][1] if samples else 0
        if not samples or now - samples[-1][0] > self._stale_s:
            return GpuReading(mhz, Reason.NO_EDGE_AGENT)
        if self._wanted is not None and self._not_reached:
            return GpuReading(mhz, Reason.CLOCK_RAISED if self._raised else Reason.CLOCK_NOT_REACHED)
        settled = since + self._settle_s
        if (
            self._wanted is None
            or self._confirmed_at is None
            or self._confirmed_at > settled
            or now - self._renewed_at > self.lease_s
        ):
            return GpuReading(mhz, Reason.LOCK_NOT_CONFIRMED)
        later = now
        for at, _, locked_mhz, held in reversed(samples):
            if later - at > self._stale_s:
                return GpuReading(mhz, Reason.LOCK_NOT_CONFIRMED)
            if at < settled:
                break
            if locked_mhz != self._set_mhz or not held:
                return GpuReading(mhz, Reason.CLOCK_NOT_REACHED)
            later = at
        return GpuReading(mhz)


class _Refused(Exception):
    """The agent answers but cannot be used; ``counter`` says where to count it."""

    def __init__(self, counter: str, text: str) -> None:
        super().__init__(text)
        self.counter = counter


class EdgeLink:
    """The link to one edge agent, for one holder and one GPU.

    Args:
        address: gRPC target of the agent.
        tls: key folder and role; None: loopback only.
        holder: who holds the lease: the cell id.
        gpu: UUID; empty: the agent's only GPU.
        lease_s: lease of a lock, or the longest that the agent allows; renewed every third of it.
        watch_period_ms: period of the agent's GpuStates, 10..10000 ms.
        settle_s: as for :class:`ClockHistory`.

    Raises:
        InsecureAddress, KeyFileError: as :func:`wire.security.grpc_channel`.
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        address: str,
        tls: Tls | None = None,
        *,
        holder: str,
        gpu: str = "",
        lease_s: float,
        watch_period_ms: int = 200,
        settle_s: float = 0.2,
        counters: Counters | None = None,
        setting: str = "links.edge.address",
        missing: str = "security.keys",
    ) -> None:
        if not holder:
            raise ValueError("holder is empty")
        codec.checked_lease(lease_s)
        if not 10 <= watch_period_ms <= 10_000:
            raise ValueError(f"watch_period_ms {watch_period_ms} is outside 10..10000")
        self.counters = counters or Counters()
        self._complain = Complaints(self.counters, log)
        self._address = address
        self._holder = holder
        self._wanted_gpu = gpu
        self._lease_s = self._wanted_lease_s = lease_s
        self._longest_s = math.inf
        self._period_ms = watch_period_ms
        self._stale_s = max(2.0, 5 * watch_period_ms / 1e3)
        self._channel = grpc_channel(address, tls, server_role=EDGE_AGENT, setting=setting, missing=missing)
        self._stub: Any = edge_pb2_grpc.EdgeStub(self._channel)
        self._condition = threading.Condition()
        # All below is guarded by the condition's lock.
        self._closing = False
        self._history = ClockHistory(lease_s=lease_s, stale_s=self._stale_s, settle_s=settle_s)
        self._sample: GpuSample | None = None
        self._info: edge_pb2.GpuInfo | None = None
        self._last_state = 0.0
        self._want: tuple[int, float] | None = None
        self._releasing = False
        self._held_until = -math.inf
        self._next_try = 0.0
        self._retry_s = RETRY_S
        self._stream: Any = None
        self._rpc: Any = None
        self._threads = [
            threading.Thread(target=self._watch, name=f"edge-watch-{holder}", daemon=True),
            threading.Thread(target=self._control, name=f"edge-lock-{holder}", daemon=True),
        ]

    # -- what the daemon calls; none of it waits for the agent --

    def start(self) -> None:
        """Begins to connect, and goes on for ever."""
        for thread in self._threads:
            thread.start()

    def set_lease(self, lease_s: float) -> None:
        """Another lease for locks from now on, or the longest that the agent allows; one that is wanted is
        renewed with it at once. ValueError as for the class."""
        codec.checked_lease(lease_s)
        with self._condition:
            self._wanted_lease_s = lease_s
            self._lease_s = self._history.lease_s = min(lease_s, self._longest_s)
            self._next_try = time.monotonic()
            self._condition.notify_all()

    def lock(self, mhz: int, valid_for_s: float) -> None:
        """Wants the SM clock ``mhz``, renewed for ``valid_for_s`` from now. The latest call wins.

        Raises:
            ValueError: names the number that is none.
        """
        if not 0 < mhz <= codec.MAX_MHZ:
            raise ValueError(f"{mhz} MHz is no clock")
        if not (math.isfinite(valid_for_s) and valid_for_s > 0):
            raise ValueError(f"valid_for_s {valid_for_s} is not a time to come")
        now = time.monotonic()
        with self._condition:
            if self._want is None or self._want[0] != mhz:
                self._next_try, self._retry_s = now, RETRY_S
            self._want = (mhz, now + valid_for_s)
            self._releasing = False
            self._history.want(mhz)
            self._condition.notify_all()

    def release(self) -> None:
        """Gives the lock back; tried until the agent confirms it or the lease has ended."""
        with self._condition:
            self._want = None
            self._releasing = True
            self._next_try, self._retry_s = time.monotonic(), RETRY_S
            self._history.want(None)
            self._condition.notify_all()

    @property
    def state(self) -> GpuSample | None:
        """The latest GpuState, however old; None before the first."""
        with self._condition:
            return self._sample

    @property
    def gpu(self) -> edge_pb2.GpuInfo | None:
        """The GPU as the connected agent describes it; None while there is no agent."""
        with self._condition:
            return self._info

    @property
    def connected(self) -> bool:
        """Whether the agent's states are coming."""
        with self._condition:
            sample = self._sample
            return (
                self._info is not None
                and sample is not None
                and time.monotonic() - sample.received_mono <= self._stale_s
            )

    def reading(self, since_mono: float) -> GpuReading:
        """The clock read back since ``since_mono`` (monotonic seconds), for the observation.

        ``reason`` is empty only where the wanted clock was locked and read back as set over that time,
        ``settle_s`` at its start excepted; else ``no edge agent``, ``clock not reached`` (also where
        another holder's higher clock wins) or ``lock not confirmed``.
        """
        with self._condition:
            return self._history.reading(since_mono, time.monotonic())

    def close(self) -> None:
        """Gives the lock back, if the agent answers within a second, and ends the threads."""
        with self._condition:
            if self._closing:
                return
            self._closing = True
            release = self._info is not None and self._held_until > time.monotonic()
            info = self._info
            for call in (self._stream, self._rpc):
                if call is not None:
                    call.cancel()
            self._condition.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(HELLO_DEADLINE_S + 1.0)
        if release and info is not None:
            request = edge_pb2.ReleaseClocksRequest(gpu=info.uuid, holder=self._holder)
            try:
                self._stub.ReleaseClocks(request, timeout=RELEASE_DEADLINE_S)
            except grpc.RpcError as error:
                self._failed("edge_lock_failed_total", "ReleaseClocks", error)
            else:
                self._told_released(info.uuid)
        self._channel.close()

    def _told_released(self, gpu: str) -> None:
        log.info("cell %s: the lock of the clock of GPU %s is given back", self._holder, gpu)

    # -- the agent's states --

    def _watch(self) -> None:
        retry_s = RETRY_S
        while not self._closing:
            wait_s = retry_s
            try:
                self._hello()
                retry_s = wait_s = RETRY_S
                while not self._closing:
                    self._read_states()
            except _Refused as error:
                self._complain(error.counter, f"edge agent {self._address}: {error}", self._holder)
                wait_s = REFUSED_RETRY_S
            except grpc.RpcError as error:
                if not self._closing:
                    self._failed("edge_unavailable_total", "no GPU state", error)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
            except Exception:
                log.exception("edge agent %s: watching failed", self._address)
                self.counters.inc("edge_unavailable_total", self._holder)
                retry_s = min(2 * retry_s, RETRY_MAX_S)
            with self._condition:
                self._info = self._stream = None
                self._history.disconnected()
                self._condition.wait_for(lambda: self._closing, wait_s)

    def _hello(self) -> None:
        request = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder=self._holder)
        try:
            welcome = self._stub.Hello(request, timeout=HELLO_DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise _Refused(
                    "edge_version_mismatch_total",
                    f"refused version {PROTOCOL_VERSION} of the controller: {error.details()}",
                ) from error
            raise
        if welcome.protocol_version != PROTOCOL_VERSION:
            raise _Refused(
                "edge_version_mismatch_total",
                f"protocol version {welcome.protocol_version} of the agent is not version"
                f" {PROTOCOL_VERSION} of the controller",
            )
        gpus = {g.uuid: g for g in welcome.gpus}
        present = ", ".join(gpus) or "none"
        if self._wanted_gpu:
            info = gpus.get(self._wanted_gpu)
            if info is None:
                raise _Refused("edge_refused_total", f"no GPU {self._wanted_gpu}; it has: {present}")
        elif len(gpus) == 1:
            info = next(iter(gpus.values()))
        else:
            raise _Refused("edge_refused_total", f"name one of its GPUs; it has: {present}")
        with self._condition:
            self._info = info
            self._history.supported = tuple(info.supported_sm_mhz)
            self._longest_s = welcome.max_lease_ms / 1e3 or math.inf
            self._lease_s = self._history.lease_s = min(self._wanted_lease_s, self._longest_s)
            # The agent may have been restarted: it then holds no lease.
            self._last_state = self._next_try = time.monotonic()
            self._retry_s = RETRY_S
            self._condition.notify_all()

    def _read_states(self) -> None:
        """Takes states until the stream's deadline; raises RpcError where the agent went away."""
        with self._condition:
            if self._closing or self._info is None:
                return
            request = edge_pb2.WatchGpuRequest(gpu=self._info.uuid, period_ms=self._period_ms)
            self._last_state = time.monotonic()
            stream = self._stream = self._stub.WatchGpu(request, timeout=WATCH_DEADLINE_S)
        try:
            for message in stream:
                self._take(message, request.gpu)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and self._is_fresh(time.monotonic()):
                return
            raise
        # An agent that ends its stream without an error is about to go.
        with self._condition:
            self._condition.wait_for(lambda: self._closing, RETRY_S)

    def _take(self, message: edge_pb2.GpuState, gpu: str) -> None:
        now = time.monotonic()
        try:
            if message.gpu != gpu:
                raise BadMessage(f"GpuState of GPU {message.gpu!r}, asked for {gpu!r}")
            codec.check_gpu_state(message)
        except BadMessage as error:
            self._complain("edge_bad_state_total", str(error), self._holder)
            with self._condition:
                self._last_state = now
            return
        self.counters.inc("edge_states_total", self._holder)
        with self._condition:
            self._last_state = now
            self._sample = GpuSample(message, now)
            reasons = message.clock_event_reasons
            self._history.sample(message.sm_mhz, message.locked_mhz, now, reasons)

    def _is_fresh(self, now: float) -> bool:
        return now - self._last_state <= self._stale_s

    # -- locks and their lease --

    def _control(self) -> None:
        while True:
            with self._condition:
                if self._closing:
                    return
                now = time.monotonic()
                if self._stream is not None and not self._is_fresh(now):
                    # An agent that is there but says nothing: the watching thread starts anew.
                    self._stream.cancel()
                    self._last_state = now
                call = self._due_call(now)
                if call is None:
                    self._condition.wait(min(0.5, max(0.0, self._next_try - now)) or 0.5)
                    continue
                method, request, deadline_s = call
                self._rpc = method.future(request, timeout=deadline_s)
            try:
                answer = self._rpc.result()
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                self._lock_failed(type(request).__name__.removesuffix("Request"), error)
            else:
                self._locked(request, answer, now)

    @property
    def _lock_deadline_s(self) -> float:
        return min(2.0, max(0.5, self._lease_s / 3))

    def _due_call(self, now: float) -> tuple[Any, Any, float] | None:
        """The call that is due: (method, request, deadline), or None. Holds the lock."""
        if self._want is not None and now >= self._want[1]:
            self._want = None
            self.counters.inc("edge_lock_expired_total", self._holder)
        if self._info is None or now < self._next_try:
            return None
        if self._want is not None:
            mhz = self._want[0]
            self._held_until = now + self._lock_deadline_s + self._lease_s
            lock = edge_pb2.LockClocksRequest(
                gpu=self._info.uuid, holder=self._holder, mhz=mhz, lease_ms=round(self._lease_s * 1e3)
            )
            return self._stub.LockClocks, lock, self._lock_deadline_s
        if self._releasing and now < self._held_until:
            release = edge_pb2.ReleaseClocksRequest(gpu=self._info.uuid, holder=self._holder)
            return self._stub.ReleaseClocks, release, RELEASE_DEADLINE_S
        self._releasing = False
        return None

    def _locked(self, request: Any, answer: edge_pb2.ClockLock, started: float) -> None:
        with self._condition:
            self._retry_s = RETRY_S
            if isinstance(request, edge_pb2.ReleaseClocksRequest):
                if self._want is None:
                    self._releasing = False
                    self._held_until = -math.inf
                    self._told_released(request.gpu)
                return
            self.counters.inc("edge_locks_total", self._holder)
            reached = self._history.lock(request.mhz, answer, time.monotonic())
            if self._want is not None and self._want[0] == request.mhz:
                # Asked with another lease: that would be over before a third of a longer one is.
                as_wanted = request.lease_ms == round(self._lease_s * 1e3)
                self._next_try = started + self._lease_s / 3 if as_wanted else started
        if not reached:
            self._complain(
                "edge_clock_not_reached_total",
                f"GPU {request.gpu}: wanted {request.mhz} MHz; the agent's highest wish is"
                f" {answer.wanted_mhz} MHz, {answer.locked_mhz} MHz set, {answer.sm_mhz} MHz read back",
                self._holder,
            )

    def _lock_failed(self, what: str, error: Exception) -> None:
        with self._condition:
            if self._closing:
                return
            self._next_try = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S, self._lease_s / 3)
        self._failed("edge_lock_failed_total", what, error)

    def _failed(self, counter: str, what: str, error: Any) -> None:
        code, details = error, ""
        if isinstance(error, grpc.Call):
            code, details = error.code().name, error.details()
        self._complain(counter, f"edge agent {self._address}: {what}: {code} {details}", self._holder)
