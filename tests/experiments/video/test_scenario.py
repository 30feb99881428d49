"""The campus on the virtual clock: agents follow their users, ar goes on, and a replay decides the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from controller import config, sim
from controller.core.observation import Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from controller.store.models import ModelStore

SECONDS = 150.0


class Campus:
    """``records`` and what they were decided from, by cell; ``arrived`` users with their agents."""

    def __init__(self) -> None:
        self.models = ModelStore(None)
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.observations: dict[str, list[str]] = {}
        self.specs: dict[str, str] = {}
        self.arrived: set[str] = set()

        def on_slot(observation: Any, decision: Any, loop: ControlLoop) -> None:
            cell = loop.spec.cell
            self.records.setdefault(cell, []).append(decision.to_record())
            self.observations.setdefault(cell, []).append(json.dumps(observation.to_dict()))
            self.specs[cell] = json.dumps(loop.spec.to_dict())
            self.arrived |= set(observation.arrivals)

        scenario = config.load(config.find("video-campus"))
        sim.run(scenario, 3, duration_s=SECONDS, on_slot=on_slot, models=self.models)


@pytest.fixture(scope="module")
def campus() -> Campus:
    return Campus()


def test_agents_learn_and_follow_their_users_and_nothing_fails(campus: Campus) -> None:
    assert campus.arrived
    for records in campus.records.values():
        slices = [s for record in records for s in record["slices"].values()]
        assert not [s["failed"] for s in slices if s.get("failed")]
        last = records[-1]["slices"]["video"]
        assert any("model" in c["why"] for c in last["choices"] if c.get("user"))
        assert last["settings"]


def test_the_slice_beside_it_keeps_its_promise(campus: Campus) -> None:
    closed = [r["slices"]["ar"]["closed"] for records in campus.records.values() for r in records]
    met = [c["met"] for c in closed if c and c["met"] is not None]
    assert len(met) > 20 and np.mean(met) >= 0.9


def test_a_replay_decides_the_same(campus: Campus) -> None:
    for cell, spec in campus.specs.items():
        loop = ControlLoop(LoopSpec.from_dict(json.loads(spec)), campus.models.get)
        observations = (Observation.from_dict(json.loads(o)) for o in campus.observations[cell])
        assert [loop.step(o).to_record() for o in observations] == campus.records[cell]
