from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from agents.gpu import powerfit
from agents.gpu.device import NoPermission
from agents.gpu.emulated import EmulatedGpu, EmulatedGpuSpec
from agents.gpu.powerfit import FitError, Sample, doubts, least_squares, spread
from agents.gpu.service import EdgeAgent, serve
from wire import edge_pb2, edge_pb2_grpc, security

SPEC = EmulatedGpuSpec(load_hold_s=600.0)
FAST = {"clocks": 4, "settle_s": 0.01, "measure_s": 0.2}


def samples(points: list[tuple[int, float]]) -> list[Sample]:
    return [Sample(mhz, watts, 0.5, 40.0) for mhz, watts in points]


def test_a_line_is_found_exactly() -> None:
    slope, constant, rms, r2 = least_squares(samples([(f, 9.0 + 0.03 * f) for f in (300, 700, 1600)]))
    assert (slope, constant, rms) == (pytest.approx(0.03), pytest.approx(9.0), pytest.approx(0.0, abs=1e-9))
    assert r2 == pytest.approx(1.0)


def test_residual_and_r2_are_those_of_the_least_squares() -> None:
    rng = np.random.default_rng(2)
    mhz = np.arange(300, 2101, 100)
    watts = 10 + 0.02 * mhz + rng.normal(0, 1.5, mhz.size)
    slope, constant, rms, r2 = least_squares(samples(list(zip(mhz.tolist(), watts.tolist(), strict=True))))
    a, b = np.linalg.lstsq(np.stack([mhz, np.ones_like(mhz)], 1), watts, rcond=None)[0]
    assert (slope, constant) == (pytest.approx(a), pytest.approx(b))
    assert rms == pytest.approx(float(np.std(watts - a * mhz - b)))
    assert r2 == pytest.approx(float(np.corrcoef(mhz, watts)[0, 1] ** 2))


def test_power_that_does_not_vary_has_no_r2() -> None:
    slope, constant, _, r2 = least_squares(samples([(300, 50.0), (600, 50.0), (900, 50.0)]))
    assert (slope, constant, r2) == (pytest.approx(0.0, abs=1e-9), pytest.approx(50.0), None)


def test_a_line_under_load_and_clear_of_its_residuals_is_not_doubted() -> None:
    points = samples([(f, 9.0 + 0.03 * f + 0.1 * (f % 200 > 50)) for f in range(300, 1600, 100)])
    slope, _, _, r2 = least_squares(points)
    assert doubts(points, slope, r2) == ()


def test_an_idle_gpu_and_one_that_does_not_say_are_doubted() -> None:
    points = [(f, 9.0 + 0.03 * f) for f in (300, 700, 1600)]
    for utilisation, says in ((0.02, "mean utilisation was 2%"), (None, "does not report its utilisation")):
        (doubt,) = doubts([Sample(f, w, utilisation, None) for f, w in points], 0.03, 1.0)
        assert says in doubt


def test_a_slope_within_three_of_its_standard_errors_is_doubted() -> None:
    rng = np.random.default_rng(3)
    mhz = np.repeat(np.arange(300, 2101, 300), 2)
    noise = rng.normal(0.0, 1.0, mhz.size)
    clear = []
    for true_slope in np.linspace(-0.004, 0.004, 81):
        points = samples(list(zip(mhz.tolist(), (50 + true_slope * mhz + noise).tolist(), strict=True)))
        slope, _, _, r2 = least_squares(points)
        residual = np.array([p.power_w for p in points]) - np.polyval(
            np.polyfit(mhz, [p.power_w for p in points], 1), mhz
        )
        error = np.sqrt(residual @ residual / (mhz.size - 2) / np.sum((mhz - mhz.mean()) ** 2))
        doubted = any("slope" in doubt for doubt in doubts(points, slope, r2))
        assert doubted == bool(slope < 3 * error)
        clear.append(not doubted)
    assert any(clear) and not all(clear)
    flat = samples([(f, 50.0) for f in (300, 600, 900)])
    assert "slope" in doubts(flat, 0.0, None)[0]


def test_two_clocks_are_too_few() -> None:
    with pytest.raises(FitError, match="2 clocks"):
        least_squares(samples([(300, 20.0), (600, 30.0), (300, 21.0)]))


def test_clocks_are_spread_over_what_is_supported_ends_included() -> None:
    supported = range(300, 2101, 15)
    assert spread(supported, 3) == [300, 1200, 2100]
    assert spread(supported, 4, low=500, high=1600) == [510, 870, 1230, 1590]
    assert spread([300, 400], 8) == [300, 400]
    assert spread(supported, 3, low=3000) == []


@pytest.fixture
def gpu() -> EmulatedGpu:
    gpu = EmulatedGpu(SPEC)
    gpu.set_load("test", 0.5)
    return gpu


@pytest.fixture
def agent(gpu: EmulatedGpu) -> Iterator[EdgeAgent]:
    agent = serve("127.0.0.1:0", backend=[gpu])
    agent.start()
    yield agent
    agent.close()


@pytest.fixture
def edge(agent: EdgeAgent) -> Iterator[edge_pb2_grpc.EdgeStub]:
    with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
        yield edge_pb2_grpc.EdgeStub(channel)


def lock(edge: edge_pb2_grpc.EdgeStub, holder: str, mhz: int) -> None:
    request = edge_pb2.LockClocksRequest(holder=holder, mhz=mhz, lease_ms=60_000)
    edge.LockClocks(request, timeout=5)


def locked(edge: edge_pb2_grpc.EdgeStub) -> int:
    release = edge_pb2.ReleaseClocksRequest(holder="nobody")
    return edge.ReleaseClocks(release, timeout=5).locked_mhz


def test_the_constants_of_the_emulated_gpu_come_out_and_the_lock_goes_back(
    edge: edge_pb2_grpc.EdgeStub,
) -> None:
    visits: list[int] = []
    fit = powerfit.measure(edge, **FAST, progress=lambda done, of, mhz: visits.append(mhz))
    share = SPEC.clocking_share + (1 - SPEC.clocking_share) * 0.5
    assert fit.w_per_mhz == pytest.approx(SPEC.dynamic_w * share / 1600, rel=1e-6)
    assert fit.idle_w == pytest.approx(SPEC.idle_w, rel=1e-6)
    assert fit.r2 == pytest.approx(1.0, abs=1e-9) and fit.rms_w < 1e-6
    assert fit.source == "energy counter" and fit.left_out == {} and fit.warnings == ()
    assert visits == [*visits[:4], *visits[3::-1]] and visits[0] == 300 and visits[3] == 1600
    assert [s.mhz for s in fit.samples] == visits and all(s.utilisation == 0.5 for s in fit.samples)
    assert locked(edge) == 0


def test_a_real_clock_that_steps_does_not_spoil_the_fit(
    edge: edge_pb2_grpc.EdgeStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = itertools.cycle([0, 3_600_000_000_000])
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + next(steps))
    fit = powerfit.measure(edge, **FAST)
    assert fit.idle_w == pytest.approx(SPEC.idle_w, rel=1e-6) and fit.rms_w < 1e-6


def test_a_clock_that_does_not_come_is_left_out_and_said_so(
    edge: edge_pb2_grpc.EdgeStub, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(powerfit, "_REACH_S", 0.0)
    gpu.set_ceiling(1300)
    fit = powerfit.measure(edge, **{**FAST, "clocks": 5})
    assert list(fit.left_out) == [1600] and "1300 MHz read back" in fit.left_out[1600]
    assert len(fit.samples) == 8 and fit.idle_w == pytest.approx(SPEC.idle_w, rel=1e-2)


def test_another_holder_s_higher_clock_leaves_too_little_to_fit(edge: edge_pb2_grpc.EdgeStub) -> None:
    lock(edge, "cell-1", 1600)
    with pytest.raises(FitError, match=r"1 clocks.*another holder keeps 1600 MHz"):
        powerfit.measure(edge, **FAST)
    assert locked(edge) == 1600


def test_an_interrupted_fit_gives_its_lock_back(edge: edge_pb2_grpc.EdgeStub) -> None:
    def interrupt(done: int, of: int, mhz: int) -> None:
        if done == 2:
            assert locked(edge) > 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        powerfit.measure(edge, **FAST, progress=interrupt)
    assert locked(edge) == 0


def test_a_gpu_without_power_readings_cannot_be_fitted() -> None:
    class Silent(EmulatedGpu):
        def read(self):  # type: ignore[no-untyped-def]
            import dataclasses

            return dataclasses.replace(super().read(), power_w=None, energy_j=None)

    agent = serve("127.0.0.1:0", backend=[Silent(SPEC)])
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            edge = edge_pb2_grpc.EdgeStub(channel)
            with pytest.raises(FitError, match="neither power nor energy"):
                powerfit.measure(edge, **FAST)
            assert locked(edge) == 0
    finally:
        agent.close()


def test_without_permission_the_agent_s_answer_is_the_error() -> None:
    class Refusing(EmulatedGpu):
        def lock(self, mhz: int) -> None:
            raise NoPermission("not for you")

    agent = serve("127.0.0.1:0", backend=[Refusing(SPEC)])
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                powerfit.measure(edge_pb2_grpc.EdgeStub(channel), **FAST)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        agent.close()


@pytest.mark.parametrize(("settle_s", "measure_s"), [(1.0, 55.0), (1e9, 1e9)])
def test_more_time_than_a_lease_of_the_agent_is_refused_before_a_clock_is_locked(
    edge: edge_pb2_grpc.EdgeStub, settle_s: float, measure_s: float
) -> None:
    with pytest.raises(FitError, match=r"grants 60 s at most \(its --max-lease\)"):
        powerfit.measure(edge, settle_s=settle_s, measure_s=measure_s)
    assert locked(edge) == 0


def test_an_agent_with_shorter_leases_says_how_long_they_are(gpu: EmulatedGpu) -> None:
    agent = serve("127.0.0.1:0", backend=[gpu], max_lease_s=10.5)
    agent.start()
    try:
        with security.grpc_channel(f"127.0.0.1:{agent.port}", None) as channel:
            edge = edge_pb2_grpc.EdgeStub(channel)
            with pytest.raises(FitError, match=r"grants 10\.5 s at most"):
                powerfit.measure(edge, **{**FAST, "settle_s": 0.4})
    finally:
        agent.close()


def test_an_unknown_gpu_is_named(edge: edge_pb2_grpc.EdgeStub) -> None:
    with pytest.raises(FitError, match=r"GPU-x: the edge agent has GPU-emulated-0"):
        powerfit.measure(edge, gpu="GPU-x")


def test_an_agent_that_goes_away_in_the_middle_is_an_error(
    edge: edge_pb2_grpc.EdgeStub, agent: EdgeAgent
) -> None:
    def leave(done: int, of: int, mhz: int) -> None:
        if done == 1:
            threading.Thread(target=agent.close).start()
            agent.wait(5.0)

    with pytest.raises((grpc.RpcError, FitError)):
        powerfit.measure(edge, **{**FAST, "measure_s": 2.0}, progress=leave)
