"""A round of learning: what it gives back is bytes, and what is no round is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from controller.allocators.video.agent import GENERAL, HISTORY, OWN
from controller.allocators.video.learning import HANDED_ROWS, Memory, arrived, handed_over, learn
from controller.allocators.video.options import VideoOptions
from controller.handover import MAX_STATE_BYTES
from controller.twins.packing import pack_arrays, unpack_arrays
from controller.twins.slice.windows import WINDOWS_MIN
from tests.allocators.video.viewers import COMBINED, QUALITY, STALLS, history

VIEWERS = {"s": STALLS, "q": QUALITY, "c": COMBINED}
PROFILES = {name: [v.ela, 1.0, 180.0] for name, v in VIEWERS.items()}


def round_(before: bytes = b"", scores: int = 60, seed: int = 1, **changes: Any) -> bytes:
    rows = {n: history(v, scores, seed=seed + i) for i, (n, v) in enumerate(VIEWERS.items())}
    options = VideoOptions(**{"recurrent": False, **changes.pop("options", {})}).to_dict()
    given = {"rows": rows, "profiles": PROFILES, "arrivals": {}, "present": list(VIEWERS), **changes}
    return learn(before=before, options=options, seed=seed, **given)


@pytest.fixture(scope="module")
def learned() -> bytes:
    return round_()


def test_memory_goes_through_bytes(learned: bytes) -> None:
    memory = Memory.from_bytes(learned)
    assert memory.to_bytes() == learned
    assert memory.users == tuple(VIEWERS) and list(memory.population.agents) == list(VIEWERS)
    assert set(memory.demands) == set(memory.quantiles) == set(WINDOWS_MIN) and 0.0 <= memory.index <= 1.0
    assert {a.source for a in memory.population.agents.values()} == {OWN}
    wanted = memory.demands[3]
    assert wanted.kbps.shape == (3,) and wanted.prb.shape[0] == 3
    assert 0.0 < memory.quantiles[3] <= wanted.prb.sum(axis=0).max()


def test_equal_rounds_give_equal_bytes_and_a_round_goes_on_with_the_last(learned: bytes) -> None:
    assert round_() == learned
    memory = Memory.from_bytes(round_(learned, seed=2))
    assert [len(a.history) for a in memory.population.agents.values()] == [120] * 3
    later = Memory.from_bytes(round_(learned, rows={}, present=["q"]))
    assert later.users == ("q",) and len(later.demands[3].kbps) == 1
    assert list(later.population.agents)[-1] == "c"


def test_users_are_in_the_order_in_which_they_were_given() -> None:
    names = [f"user-{i}" for i in range(20, 0, -1)]
    memory = Memory.from_bytes(round_(rows={}, profiles=dict.fromkeys(names, PROFILES["s"]), present=names))
    assert list(memory.population.agents) == names


def test_nobody_has_no_demand() -> None:
    memory = Memory.from_bytes(round_(rows={}, profiles={}, present=[]))
    assert memory.users == () and memory.demands == {} == memory.quantiles
    unheard = Memory.from_bytes(round_(rows={}, present=["s"]))
    assert unheard.demands == {} and unheard.population.agents["s"].ela == STALLS.ela


def test_options_of_a_round() -> None:
    memory = Memory.from_bytes(round_(options={"window_min": 6, "ela": 2.0}, profiles={}))
    assert list(memory.demands) == [6]
    assert {a.ela for a in memory.population.agents.values()} == {2.0}
    general = Memory.from_bytes(round_(options={"models": "general", "window_min": 6}, profiles={}))
    # All alike: what they demand differs by what their radio carries and where they are, hardly by more.
    own = Memory.from_bytes(round_(options={"window_min": 6}, profiles={}))
    assert np.ptp(general.demands[6].kbps) < np.ptp(own.demands[6].kbps)


@pytest.mark.parametrize("what", ["cut", "rubbish", "rows", "users", "group", "source"])
def test_bytes_that_are_no_memory_are_refused(learned: bytes, what: str) -> None:
    values, arrays = unpack_arrays(learned)
    match what:
        case "cut":
            bad = learned[:-9]
        case "rubbish":
            bad = b"\x00" * 64
        case "rows":
            bad = pack_arrays({**values, "rows": [1, 2, 3]}, arrays)
        case "users":
            bad = pack_arrays({**values, "users": ["s"]}, arrays)
        case "group":
            bad = pack_arrays({**values, "groups": {"taste": values["general"]}}, arrays)
        case _:
            agents = [{**values["agents"][0], "source": "hearsay"}, *values["agents"][1:]]
            bad = pack_arrays({**values, "agents": agents}, arrays)
    with pytest.raises((ValueError, KeyError)):
        Memory.from_bytes(bad)


def test_what_follows_a_user_is_small_and_taken_over_where_it_is_newer(learned: bytes) -> None:
    memory = Memory.from_bytes(round_(learned, scores=240, seed=3))
    agent = memory.population.agents["c"]
    state = json.loads(json.dumps(handed_over(agent)))
    assert len(json.dumps(state)) < MAX_STATE_BYTES
    came = arrived(state)
    assert (came.model, came.source, came.seen, came.ela) == (agent.model, OWN, agent.seen, agent.ela)
    assert len(came.history) == HANDED_ROWS
    assert came.history == pytest.approx(agent.history[-HANDED_ROWS:], rel=1e-6)
    there = Memory.from_bytes(round_(rows={}, profiles={}, arrivals={"c": state}, present=["c"]))
    assert there.population.agents["c"].source == OWN and there.users == ("c",)
    # Known better here: it stays.
    stays = Memory.from_bytes(round_(memory.to_bytes(), rows={}, arrivals={"c": {**state, "seen": 3}}))
    assert stays.population.agents["c"].seen == agent.seen


@pytest.mark.parametrize(
    "change", [{"ela": 9.0}, {"segment_s": 0.0}, {"source": GENERAL + "s"}, {"history": ["", ""]}]
)
def test_an_agent_that_cannot_be_does_not_arrive(learned: bytes, change: dict[str, Any]) -> None:
    state = handed_over(Memory.from_bytes(learned).population.agents["c"])
    with pytest.raises((ValueError, KeyError, TypeError)):
        arrived({**state, **change})


@pytest.mark.parametrize("column", ["score", "behaviour", "time_s"])
def test_a_history_that_cannot_be_does_not_arrive(learned: bytes, column: str) -> None:
    agent = Memory.from_bytes(learned).population.agents["c"]
    agent.history[-4, HISTORY.index(column)] = 99.0 if column != "time_s" else np.nan
    with pytest.raises(ValueError, match="scores, context or times that cannot be"):
        arrived(handed_over(agent))
