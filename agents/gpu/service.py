"""The edge agent: the gRPC services of ``wire/edge.proto`` in front of the GPUs of a host."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import grpc

from agents.gpu.backends import open_devices
from agents.gpu.device import (
    ClockNotSupported,
    DriverChanged,
    GpuDevice,
    GpuError,
    GpuHangs,
    GpuInfo,
    GpuLost,
    MissingGpu,
    NoDriver,
    NoPermission,
    NoSuchGpu,
    Reading,
)
from agents.gpu.emulated import EmulatedGpu
from agents.gpu.keeper import ClockKeeper, Held, TooLate
from agents.gpu.leases import MAX_LEASE_S, TooManyHolders
from agents.stopping import on_stop_signal
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security
from wire.serving import Guard, caller
from wire.version import full_version

log = logging.getLogger(__name__)

MAX_LEASE_MS = 3_600_000
"""Longest lease that may be configured (ms)."""
MAX_NAME_BYTES = 64
WATCH_PERIOD_MS = (10, 10_000)

_COUNTING = threading.Lock()

_STATUS: dict[type[Exception], grpc.StatusCode] = {
    NoSuchGpu: grpc.StatusCode.NOT_FOUND,
    NoPermission: grpc.StatusCode.PERMISSION_DENIED,
    NoDriver: grpc.StatusCode.UNAVAILABLE,
    DriverChanged: grpc.StatusCode.UNAVAILABLE,
    GpuLost: grpc.StatusCode.UNAVAILABLE,
    GpuHangs: grpc.StatusCode.UNAVAILABLE,
    ClockNotSupported: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyHolders: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class EdgeService(edge_pb2_grpc.EdgeServicer):
    """Checks what comes in, and answers for the :class:`ClockKeeper`.

    Every watcher occupies a thread of the server, so there are at most ``max_watchers``; one more gets
    RESOURCE_EXHAUSTED. A lock's lease is ``max_lease_s`` at most. Its holder is of the certificate that
    asked, and no other certificate can renew or release it.
    """

    def __init__(self, keeper: ClockKeeper, *, max_watchers: int, max_lease_s: float = MAX_LEASE_S) -> None:
        self._keeper = keeper
        self._max_lease_ms = round(max_lease_s * 1e3)
        if not 0 < self._max_lease_ms <= MAX_LEASE_MS:
            raise ValueError(f"--max-lease: {max_lease_s} s is not within 0.001..{MAX_LEASE_MS / 1e3:g} s")
        self._max_watchers = max_watchers
        self._watchers: set[threading.Event] = set()
        self._mutex = threading.Lock()
        self._closed = False
        self.counters: Counter[str] = Counter()

    def close(self) -> None:
        """End every watch."""
        with self._mutex:
            self._closed = True
            for wake in self._watchers:
                wake.set()

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def Hello(self, request: edge_pb2.EdgeHello, context: grpc.ServicerContext) -> edge_pb2.EdgeWelcome:
        if request.protocol_version != PROTOCOL_VERSION:
            self._refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"protocol_version: the caller speaks {request.protocol_version}, "
                f"this edge agent {PROTOCOL_VERSION}",
            )
        return edge_pb2.EdgeWelcome(
            protocol_version=PROTOCOL_VERSION,
            agent_version=full_version(),
            max_lease_ms=self._max_lease_ms,
            gpus=[
                edge_pb2.GpuInfo(
                    uuid=info.uuid,
                    name=info.name,
                    backend=info.backend,
                    supported_sm_mhz=info.supported_sm_mhz,
                    default_sm_mhz=info.default_sm_mhz,
                )
                for info in self._keeper.infos
            ],
        )

    def WatchGpu(
        self, request: edge_pb2.WatchGpuRequest, context: grpc.ServicerContext
    ) -> Iterator[edge_pb2.GpuState]:
        low, high = WATCH_PERIOD_MS
        if not low <= request.period_ms <= high:
            self._invalid(context, "period_ms", f"{request.period_ms} is not in {low}..{high}")
        uuid = self._gpu(request.gpu, context)
        wake = threading.Event()
        with self._mutex:
            full = len(self._watchers) >= self._max_watchers
            if not full and not self._closed:
                self._watchers.add(wake)
        if full:
            self._refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this edge agent serves {self._max_watchers} watchers at most",
            )
        try:
            # Without this a watcher that has gone would hold its thread until its next period.
            if not context.add_callback(wake.set):
                return
            while not self._closed and context.is_active():
                yield self._state(uuid, context)
                if wake.wait(request.period_ms / 1e3):
                    return
        finally:
            with self._mutex:
                self._watchers.discard(wake)

    def LockClocks(
        self, request: edge_pb2.LockClocksRequest, context: grpc.ServicerContext
    ) -> edge_pb2.ClockLock:
        holder = self._holder(request.holder, context)
        if request.mhz == 0:
            self._invalid(context, "mhz", "0 is not a clock; ReleaseClocks ends a lock")
        if not 0 < request.lease_ms <= self._max_lease_ms:
            self._invalid(context, "lease_ms", f"{request.lease_ms} is not in 1..{self._max_lease_ms}")

        def waiting() -> bool:
            left_s = context.time_remaining()
            return context.is_active() and (left_s is None or left_s > 0.0)

        keeper, lease_s = self._keeper, request.lease_ms / 1e3
        return self._answer(
            context,
            lambda: keeper.lock(request.gpu, holder, request.mhz, lease_s, waiting=waiting),
        )

    def ReleaseClocks(
        self, request: edge_pb2.ReleaseClocksRequest, context: grpc.ServicerContext
    ) -> edge_pb2.ClockLock:
        holder = self._holder(request.holder, context)
        return self._answer(context, lambda: self._keeper.release(request.gpu, holder))

    def _state(self, uuid: str, context: grpc.ServicerContext) -> edge_pb2.GpuState:
        try:
            locked, reading = self._keeper.read(uuid)
        except GpuError as error:
            self._failed(context, error)
        return edge_pb2.GpuState(
            gpu=uuid,
            time_ns=time.time_ns(),
            sm_mhz=reading.sm_mhz,
            memory_mhz=reading.memory_mhz,
            locked_mhz=locked,
            power_w=reading.power_w,
            energy_j=reading.energy_j,
            utilisation=reading.utilisation,
            temperature_c=reading.temperature_c,
            clock_event_reasons=reading.clock_event_reasons,
            mono_ns=reading.mono_ns,
        )  # a field that the GPU does not report is None here and stays unset

    def _answer(self, context: grpc.ServicerContext, call: Callable[[], Held]) -> edge_pb2.ClockLock:
        try:
            held = call()
        except (GpuError, TooLate, TooManyHolders) as error:
            self._failed(context, error)
        return edge_pb2.ClockLock(
            gpu=held.gpu,
            wanted_mhz=held.wanted_mhz,
            locked_mhz=held.locked_mhz,
            sm_mhz=held.sm_mhz,
            reached=held.reached,
            time_ns=time.time_ns(),
        )

    def _gpu(self, gpu: str, context: grpc.ServicerContext) -> str:
        try:
            return self._keeper.device(gpu).info.uuid
        except NoSuchGpu as error:
            self._failed(context, error)

    def _holder(self, holder: str, context: grpc.ServicerContext) -> str:
        """Who holds a lease: the holder that the caller names, of its certificate."""
        if not holder:
            self._invalid(context, "holder", "empty")
        if len(holder.encode()) > MAX_NAME_BYTES:
            self._invalid(context, "holder", f"longer than {MAX_NAME_BYTES} bytes")
        shown = caller(context)
        return holder if shown is None else f"{shown.common_name}/{holder}"

    def _failed(self, context: grpc.ServicerContext, error: Exception) -> NoReturn:
        self._refuse(context, _STATUS.get(type(error), grpc.StatusCode.UNAVAILABLE), str(error))

    def _invalid(self, context: grpc.ServicerContext, field: str, why: str) -> NoReturn:
        self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {why}")

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, why: str) -> NoReturn:
        _refuse(self.counters, context, code, why)


class EmulatedGpuService(edge_pb2_grpc.EmulatedGpuServicer):
    """Takes the load of the emulated applications; each connection is one source of load."""

    def __init__(self, keeper: ClockKeeper) -> None:
        self._keeper = keeper
        self.counters: Counter[str] = Counter()

    def SetLoad(self, request: edge_pb2.EmulatedLoad, context: grpc.ServicerContext) -> edge_pb2.EmulatedLoad:
        try:
            device = self._keeper.device(request.gpu)
        except NoSuchGpu as error:
            _refuse(self.counters, context, grpc.StatusCode.NOT_FOUND, str(error))
        if not isinstance(device, EmulatedGpu):
            why = f"gpu: {device.info.uuid} is not emulated"
            _refuse(self.counters, context, grpc.StatusCode.UNIMPLEMENTED, why)
        if not (math.isfinite(request.utilisation) and 0.0 <= request.utilisation <= 1.0):
            why = f"utilisation: {request.utilisation} is not in 0..1"
            _refuse(self.counters, context, grpc.StatusCode.INVALID_ARGUMENT, why)
        device.set_load(context.peer(), request.utilisation)
        return edge_pb2.EmulatedLoad(gpu=device.info.uuid, utilisation=device.read().utilisation)


def _refuse(
    counters: Counter[str], context: grpc.ServicerContext, code: grpc.StatusCode, why: str
) -> NoReturn:
    _count_refused(counters, code, f"{context.peer()}: {why}")
    context.abort(code, why)
    raise AssertionError("abort returned")


def _count_refused(counters: Counter[str], code: grpc.StatusCode, text: str) -> None:
    name = f"refused_{code.name.lower()}"
    with _COUNTING:
        counters[name] += 1
        count = counters[name]
    if count & (count - 1) == 0:
        # Every power of two: a caller that errs for hours must not fill the disk.
        log.warning("%s (%s: %d)", text, name, count)


class EdgeAgent:
    """The agent's server and its threads; made by :func:`serve`."""

    def __init__(
        self,
        address: str,
        devices: Sequence[GpuDevice],
        missing_gpus: Sequence[MissingGpu],
        *,
        tls: security.Tls | None,
        max_watchers: int,
        max_calls: int,
        max_lease_s: float,
        setting: str,
        missing: str,
        guard_options: Mapping[str, Any] | None = None,
        **keeper_options: Any,
    ) -> None:
        self._keeper = ClockKeeper(devices, missing_gpus, **keeper_options)
        self._service = EdgeService(self._keeper, max_watchers=max_watchers, max_lease_s=max_lease_s)
        self._emulated = EmulatedGpuService(self._keeper)
        self._stop = threading.Event()
        self._closed = False
        self._left: tuple[str, ...] = ()
        self._guarded: Counter[str] = Counter()
        guard = Guard(
            lambda code, text: _count_refused(self._guarded, code, text),
            streams=max_watchers,
            calls=max_calls,
            keys=None if tls is None else tls.folder,
            **(guard_options or {}),
        )
        self._server = guard.server("edge")
        services = edge_pb2.DESCRIPTOR.services_by_name
        guard.add(self._server, services["Edge"], self._service)
        if any(isinstance(d, EmulatedGpu) for d in devices):
            guard.add(self._server, services["EmulatedGpu"], self._emulated)
        self.port = security.grpc_server_add(self._server, address, tls, setting=setting, missing=missing)

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted so far: locks, releases, lapsed leases, errors by name, refused calls."""
        total: Counter[str] = Counter()
        for part in (self._keeper.counters, self._service.counters, self._emulated.counters, self._guarded):
            total.update(part.copy())
        return dict(total)

    @property
    def watchers(self) -> int:
        return self._service.watchers

    @property
    def infos(self) -> tuple[GpuInfo, ...]:
        return self._keeper.infos

    @property
    def missing(self) -> tuple[str, ...]:
        """The GPUs that cannot be opened, by UUID or index."""
        return self._keeper.missing

    def read_all(self, timeout_s: float) -> dict[str, tuple[int, Reading]]:
        """By UUID the clock that is locked (MHz, 0: none) and the state of what can be read within a time."""
        return self._keeper.read_all(timeout_s)

    def hanging(self, gpu: str) -> float:
        """For how long a call to this GPU has hung (s), 0 where none does."""
        return self._keeper.hanging(gpu)

    def start(self) -> None:
        """Release all clocks (a GPU that hangs is not waited for), then serve."""
        self._keeper.start()
        self._server.start()
        for info in self._keeper.infos:
            log.info(
                "gpu %s: %s (%s), default %d MHz", info.uuid, info.name, info.backend, info.default_sm_mhz
            )

    def stop(self) -> None:
        """Let :meth:`wait` return; may be called by any thread."""
        self._stop.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT end :meth:`wait`. To be called in the main thread."""
        on_stop_signal(self.stop)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until :meth:`stop`; False where the time was up before."""
        return self._stop.wait(timeout_s)

    def alive(self) -> bool:
        """Whether leases are kept on every GPU that does not hang; False where none is left."""
        return self._keeper.alive()

    def hung(self) -> tuple[str, ...]:
        """The GPUs (UUID, or name of a missing one) to which a call has hung for seconds."""
        return self._keeper.hung()

    def given_up(self) -> GpuError | None:
        """Ask the GPUs whether they answer, and say why this process can use none of them any more."""
        self._keeper.probe()
        return self._keeper.given_up()

    def close(self) -> tuple[str, ...]:
        """End the watches, stop serving and release all clocks. May be called twice.

        Takes five seconds at most. The GPUs that hang: their clocks may still be locked, and an ordinary end
        of the process would wait for the thread that made the call.
        """
        if not self._closed:
            self._closed = True
            self._stop.set()
            self._service.close()
            self._server.stop(grace=0.5).wait(1.5)
            self._left = self._keeper.close()
        return self._left


def serve(
    address: str,
    *,
    tls: security.Tls | None = None,
    backend: str | Sequence[GpuDevice] = "emulated",
    gpus: Sequence[str] = (),
    max_watchers: int = 16,
    max_calls: int = 32,
    max_lease_s: float = MAX_LEASE_S,
    setting: str = "--address",
    missing: str = "--keys",
    **keeper_options: Any,
) -> EdgeAgent:
    """An edge agent bound to ``address`` (``host:port``, port 0 for any), not yet started.

    ``backend`` is a backend's name, of which ``gpus`` names some (UUID or index; empty: all), or the GPUs
    themselves; ``keeper_options`` go to :class:`ClockKeeper`; ``setting`` and ``missing`` name the settings
    of address and TLS in errors. Raises ``ValueError`` for an unknown backend or an impossible lease,
    :class:`agents.gpu.device.GpuError` where the backend finds no GPU, ``OSError`` where the address cannot
    be bound, and :class:`wire.security.InsecureAddress` for an address beyond loopback without ``tls``.
    """
    devices, missing_gpus = open_devices(backend, gpus) if isinstance(backend, str) else (tuple(backend), ())
    return EdgeAgent(
        address,
        devices,
        missing_gpus,
        tls=tls,
        max_watchers=max_watchers,
        max_calls=max_calls,
        max_lease_s=max_lease_s,
        setting=setting,
        missing=missing,
        **keeper_options,
    )
