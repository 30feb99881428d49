"""The scenario of vr on the virtual clock: settings fit, promises are counted, a replay decides the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller import config, sim
from controller.core.observation import Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from wire.definitions.cloud_gaming import FRAME_RATES_HZ, RESOLUTION_PIXELS

SECONDS = 20.0


class Run:
    """A scenario's records, as they were written, and what they were decided from."""

    def __init__(self, seed: int) -> None:
        self.observations: list[str] = []
        self.records: list[dict[str, Any]] = []

        def on_slot(observation: Any, decision: Any, loop: ControlLoop) -> None:
            self.observations.append(json.dumps(observation.to_dict()))
            self.records.append(decision.to_record())
            self.spec = json.dumps(loop.spec.to_dict())

        sim.run(config.load(config.find("vr-sixteen")), seed, duration_s=SECONDS, on_slot=on_slot)

    @property
    def vr(self) -> list[dict[str, Any]]:
        return [record["slices"]["vr"] for record in self.records]

    def replayed(self) -> list[dict[str, Any]]:
        loop = ControlLoop(LoopSpec.from_dict(json.loads(self.spec)))
        return [loop.step(Observation.from_dict(json.loads(o))).to_record() for o in self.observations]


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(3)


def test_players_have_settings_that_their_devices_have_and_frames_come_in_time(run: Run) -> None:
    assert not [s["failed"] for s in run.vr if s.get("failed")]
    last = run.vr[-1]
    assert len(last["settings"]) == 16
    told = [values for s in run.vr for values in s["settings"].values()]
    assert {v for values in told for v in values["frame_rate"]} <= {0.0, *FRAME_RATES_HZ}
    assert {v for values in told for v in values["resolutions"]} <= set(map(float, RESOLUTION_PIXELS))
    assert len({v for values in told for v in values["resolutions"]}) > 1
    closed = last["closed"]
    assert set(closed["measures"]) == {"on_time", "qoe", "latency", "frame_rate", "dl_prb", "changes"}
    counts = closed["counts"]
    assert counts["promises"] >= 12 and counts["frames_on_time"] > 0.8 * counts["frames"] > 0
    assert last["granted"]["dl"][0] <= 273 and last["demand"]["gpu_mhz"] > 0


def test_what_is_looked_at_is_worth_more_than_at_the_default(run: Run) -> None:
    # At the default, class 2 at 30 Hz, it is 0 at most.
    qoe = [value for value, _ in run.vr[-1]["closed"]["measures"]["qoe"]["users"].values()]
    assert sum(qoe) > len(qoe)


def test_a_replay_decides_the_same(run: Run) -> None:
    assert run.replayed() == run.records


def test_equal_seeds_run_equally(run: Run) -> None:
    assert Run(3).records == run.records
