"""The scenario of urllc on the virtual clock: settings fit, deadlines are kept, a replay decides the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller import config, sim
from controller.core.observation import Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop

SECONDS = 25.0


class Run:
    """A scenario's records, as they were written, and what they were decided from."""

    def __init__(self, seed: int) -> None:
        self.observations: list[str] = []
        self.records: list[dict[str, Any]] = []

        def on_slot(observation: Any, decision: Any, loop: ControlLoop) -> None:
            self.observations.append(json.dumps(observation.to_dict()))
            self.records.append(decision.to_record())
            self.spec = json.dumps(loop.spec.to_dict())

        sim.run(config.load(config.find("urllc-factory")), seed, duration_s=SECONDS, on_slot=on_slot)

    @property
    def urllc(self) -> list[dict[str, Any]]:
        return [record["slices"]["urllc"] for record in self.records]

    def replayed(self) -> list[dict[str, Any]]:
        loop = ControlLoop(LoopSpec.from_dict(json.loads(self.spec)))
        return [loop.step(Observation.from_dict(json.loads(o))).to_record() for o in self.observations]


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(3)


def test_devices_have_settings_that_fit_and_their_tasks_are_in_time(run: Run) -> None:
    assert not [s["failed"] for s in run.urllc if s.get("failed")]
    last = run.urllc[-1]
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


def test_a_cached_task_takes_less_than_one_that_is_sent(run: Run) -> None:
    last = run.urllc[-1]
    before = run.urllc[-2]["settings"]
    latency = {flow: value for flow, (value, _) in last["closed"]["measures"]["latency"]["users"].items()}
    cached = [latency[flow] for flow, v in before.items() if v["cached"][0]]
    sent = [latency[flow] for flow, v in before.items() if not v["cached"][0]]
    assert max(cached) < min(sent)


def test_a_replay_decides_the_same(run: Run) -> None:
    assert run.replayed() == run.records


def test_equal_seeds_run_equally(run: Run) -> None:
    assert Run(3).records == run.records
