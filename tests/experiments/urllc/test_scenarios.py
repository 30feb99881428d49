"""The scenario of urllc on the virtual clock: settings fit, deadlines are kept, a replay decides the same."""

from __future__ import annotations

import pytest

from tests.experiments.played import Played

SECONDS = 25.0


@pytest.fixture(scope="module")
def run() -> Played:
    return Played("urllc-factory", SECONDS)


def test_devices_have_settings_that_fit_and_their_tasks_are_in_time(run: Played) -> None:
    assert not [s["failed"] for s in run.of("urllc") if s.get("failed")]
    last = run.of("urllc")[-1]
    settings = last["settings"]
    assert len(settings) == 15
    cached = [v["cached"][0] for v in settings.values()]
    assert 10.832 * sum(cached) <= 60.0 and sum(cached) > 0
    used = sum(
        v["edge_ghz"][0] * (1.0 if v["cached"][0] else 1.0 - v["local_share"][0]) for v in settings.values()
    )
    assert used <= 30.0 * (1.0 + 1e-6)
    closed = last["closed"]
    latencies = {"on_time", "latency", "latency_tail", "computing"}
    assert set(closed["measures"]) == {*latencies, "loss", "energy", "ul_prb"}
    counts = closed["counts"]
    assert counts["promises"] == 15 and counts["tasks_on_time"] > 0.95 * counts["tasks"] > 0
    energy = closed["measures"]["energy"]["users"].values()
    assert all(value <= 1.05 * budget for value, budget in energy)


def test_a_cached_task_takes_less_than_one_that_is_sent(run: Played) -> None:
    last = run.of("urllc")[-1]
    before = run.of("urllc")[-2]["settings"]
    latency = {flow: value for flow, (value, _) in last["closed"]["measures"]["latency"]["users"].items()}
    cached = [latency[flow] for flow, v in before.items() if v["cached"][0]]
    sent = [latency[flow] for flow, v in before.items() if not v["cached"][0]]
    assert max(cached) < min(sent)


def test_a_replay_decides_the_same(run: Played) -> None:
    assert run.replayed() == run.records


def test_equal_seeds_run_equally(run: Played) -> None:
    assert Played("urllc-factory", SECONDS).records == run.records
