"""The constants of eq. (4) of the MUCB1 paper, fitted to a GPU's measured power at locked clocks.

P(f) = ``w_per_mhz`` f + ``idle_w``: the paper could not measure the two. They hold for the load under which
they were measured. The clocks are locked over the edge link like any holder's, so that a fit that dies leaves
a lease that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from agents.gpu.service import MAX_LEASE_MS
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc

WATCH_PERIOD_MS = 100
_CALL_S = 5.0
_REACH_S = 2.0
_SPARE_S = 10.0
"""Of a clock's lease, beside the time for settling and measuring (s)."""
_LOADED = 0.1
"""Below this mean utilisation (0..1) it was an idle GPU that was measured."""


class FitError(Exception):
    """The constants cannot be fitted; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Mean power over a while at one clock.

    ``utilisation`` 0..1 and ``temperature_c`` are means too, None where the GPU does not report them.
    """

    mhz: int
    power_w: float
    utilisation: float | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True)
class PowerFit:
    """Least squares of power against clock, over ``samples``.

    ``rms_w`` is the root mean square of the residuals (W), ``r2`` the share of the variance that the line
    explains, None where power does not vary; ``source`` is ``energy counter`` or ``power``; ``left_out`` says
    which clocks were not measured, and why; ``warnings`` say why the constants may mean nothing.
    """

    gpu: str
    name: str
    w_per_mhz: float
    idle_w: float
    rms_w: float
    r2: float | None
    source: str
    samples: tuple[Sample, ...]
    left_out: dict[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def least_squares(samples: Sequence[Sample]) -> tuple[float, float, float, float | None]:
    """(``w_per_mhz``, ``idle_w``, ``rms_w``, ``r2``) of the line through the samples.

    Raises :class:`FitError` for fewer than three clocks: two always lie on a line.
    """
    clocks = {s.mhz for s in samples}
    if len(clocks) < 3:
        raise FitError(f"power was measured at {len(clocks)} clocks; a fit needs three")
    mhz = np.array([s.mhz for s in samples], float)
    power = np.array([s.power_w for s in samples])
    slope, constant = np.polynomial.Polynomial.fit(mhz, power, 1).convert().coef[::-1]
    residual = power - (slope * mhz + constant)
    total = float(np.sum((power - power.mean()) ** 2))
    r2 = 1.0 - float(residual @ residual) / total if total > 1e-12 else None
    return float(slope), float(constant), float(np.sqrt(np.mean(residual**2))), r2


def doubts(samples: Sequence[Sample], slope: float, r2: float | None) -> tuple[str, ...]:
    """Why the constants fitted to these samples may mean nothing."""
    found = []
    loads = [s.utilisation for s in samples if s.utilisation is not None]
    if not loads:
        found.append("the GPU does not report its utilisation: whether there was a load is not known")
    elif np.mean(loads) < _LOADED:
        found.append(
            f"the mean utilisation was {np.mean(loads):.0%}: power without load says little of eq. (4)"
        )
    # For a line through n points slope / its standard error, squared, is R2 / (1 - R2) * (n - 2).
    if r2 is None or slope <= 0.0 or r2 * (len(samples) - 2) < 9.0 * (1.0 - r2):
        found.append("the slope is not clear of the residuals: less than three of its standard errors")
    return tuple(found)


def spread(supported: Sequence[int], count: int, low: int = 0, high: int = 0) -> list[int]:
    """At most ``count`` of the supported clocks, evenly spread from ``low`` to ``high`` MHz (0: no bound)."""
    inside = [f for f in supported if f >= low and (not high or f <= high)]
    if len(inside) <= count:
        return inside
    return [inside[round(i * (len(inside) - 1) / (count - 1))] for i in range(count)]


def measure(
    stub: edge_pb2_grpc.EdgeStub,
    *,
    gpu: str = "",
    holder: str = "fit-power",
    clocks: int = 8,
    low: int = 0,
    high: int = 0,
    settle_s: float = 2.0,
    measure_s: float = 3.0,
    progress: Callable[[int, int, int], None] = lambda done, of, mhz: None,
) -> PowerFit:
    """Sweep the GPU's clocks up and down under its present load, measure its power, fit eq. (4).

    ``gpu``: UUID, empty for the only one. ``clocks`` are spread from ``low`` to ``high`` MHz and visited
    twice; at each the GPU settles for ``settle_s`` and is measured for ``measure_s``, together within the
    longest lease of the agent. The lock is given back whatever happens. Raises :class:`FitError`, and
    ``grpc.RpcError`` where the agent refuses (PERMISSION_DENIED: it may not change clocks).
    """
    welcome = stub.Hello(
        edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder=holder), timeout=_CALL_S
    )
    lease_s = settle_s + measure_s + _SPARE_S
    longest_s = (welcome.max_lease_ms or MAX_LEASE_MS) / 1e3
    if lease_s > longest_s:
        raise FitError(
            f"to settle for {settle_s:g} s and measure for {measure_s:g} s takes a lease of {lease_s:g} s;"
            f" the edge agent grants {longest_s:g} s at most (its --max-lease)"
        )
    known = {info.uuid: info for info in welcome.gpus}
    info = known.get(gpu) if gpu else next(iter(known.values())) if len(known) == 1 else None
    if info is None:
        raise FitError(f"GPU {gpu or 'not named'}: the edge agent has {', '.join(known) or 'none'}")
    visits = spread(info.supported_sm_mhz, clocks, low, high)
    if len(visits) < 3:
        raise FitError(
            f"GPU {info.uuid}: {len(visits)} clocks from {low} to {high or 'any'} MHz; a fit needs three"
        )
    visits += visits[::-1]  # a drift of the temperature then cancels out
    samples: list[Sample] = []
    left_out: dict[int, str] = {}
    sources: set[str] = set()
    sweep = _Sweep(stub, info.uuid, holder)
    try:
        for index, mhz in enumerate(visits):
            progress(index, len(visits), mhz)
            why = sweep.lock(mhz, lease_s)
            if not why:
                time.sleep(settle_s)
                states = sweep.watch(measure_s)
                why = _moved(states, mhz)
            if why:
                left_out[mhz] = why
                continue
            sample, source = _mean(states, mhz)
            samples.append(sample)
            sources.add(source)
    finally:
        sweep.release()
    try:
        slope, constant, rms, r2 = least_squares(samples)
    except FitError as error:
        skipped = "".join(f"; {mhz} MHz: {why}" for mhz, why in left_out.items())
        raise FitError(f"GPU {info.uuid}: {error}{skipped}") from error
    source = " and ".join(sorted(sources))
    return PowerFit(
        info.uuid,
        info.name,
        slope,
        constant,
        rms,
        r2,
        source,
        tuple(samples),
        left_out,
        doubts(samples, slope, r2),
    )


class _Sweep:
    def __init__(self, stub: Any, gpu: str, holder: str) -> None:
        self._stub = stub
        self._gpu = gpu
        self._holder = holder

    def lock(self, mhz: int, lease_s: float) -> str:
        """Lock a clock; why it does not hold, or nothing."""
        end = time.monotonic() + _REACH_S
        while True:
            held = self._stub.LockClocks(
                edge_pb2.LockClocksRequest(
                    gpu=self._gpu, holder=self._holder, mhz=mhz, lease_ms=round(lease_s * 1e3)
                ),
                timeout=_CALL_S,
            )
            if held.wanted_mhz != mhz:
                return f"another holder keeps {held.wanted_mhz} MHz"
            if held.reached:
                return ""
            if time.monotonic() >= end:
                seen = f"{held.sm_mhz} MHz" if held.sm_mhz else "no clock"
                return f"locked, but {seen} read back"

    def watch(self, seconds: float) -> list[edge_pb2.GpuState]:
        """The states of so many seconds, two at least."""
        request = edge_pb2.WatchGpuRequest(gpu=self._gpu, period_ms=WATCH_PERIOD_MS)
        stream = self._stub.WatchGpu(request, timeout=seconds + _CALL_S)
        states: list[edge_pb2.GpuState] = []
        try:
            for state in stream:
                states.append(state)
                if len(states) > 1 and states[-1].mono_ns - states[0].mono_ns >= seconds * 1e9:
                    break
        finally:
            stream.cancel()
        if len(states) < 2:
            raise FitError(f"GPU {self._gpu}: the edge agent ended its stream")
        return states

    def release(self) -> None:
        self._stub.ReleaseClocks(
            edge_pb2.ReleaseClocksRequest(gpu=self._gpu, holder=self._holder), timeout=_CALL_S
        )


def _moved(states: Iterable[edge_pb2.GpuState], mhz: int) -> str:
    for state in states:
        if state.sm_mhz != mhz or state.locked_mhz != mhz:
            reasons = ", ".join(state.clock_event_reasons) or "no clock event"
            return f"the clock went to {state.sm_mhz} MHz ({reasons})"
    return ""


def _mean(states: Sequence[edge_pb2.GpuState], mhz: int) -> tuple[Sample, str]:
    """The counter of energy averages over all of the time; single readings of power are what is left."""
    first, last = states[0], states[-1]
    joules, seconds = last.energy_j - first.energy_j, (last.mono_ns - first.mono_ns) / 1e9
    if joules > 0.0 and seconds > 0.0:
        power, source = joules / seconds, "energy counter"
    else:
        power, source = float(np.mean([s.power_w for s in states])), "power"
    if not power > 0.0:
        raise FitError(f"GPU {first.gpu}: reports neither power nor energy")
    sample = Sample(mhz, power, _average(states, "utilisation"), _average(states, "temperature_c"))
    return sample, source


def _average(states: Iterable[edge_pb2.GpuState], name: str) -> float | None:
    """The mean of a field over the states that have it, None where none has."""
    values = [getattr(state, name) for state in states if state.HasField(name)]
    return float(np.mean(values)) if values else None
