"""Agents that come from another cell: what cannot be is left out, and none of it stops learning."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controller.allocators.video.agent import HISTORY, Agent
from controller.allocators.video.learning import Memory, arrived, handed_over, learn
from controller.allocators.video.rows import pack_rows

OPTIONS = {"ela": 3.5, "recurrent": False, "models": "own", "reliability": 0.8, "window_min": 3}


def history(**columns: Any) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = np.zeros((40, len(HISTORY)))
    usual = {
        "score": rng.uniform(1.0, 5.0, 40),
        "behaviour": 1.5,
        "environment": 1.5,
        "prb_per_kbps": 0.002,
        "time_s": 1.7e9 + 10.0 * np.arange(40),
    }
    for name, column in {**usual, **columns}.items():
        rows[:, HISTORY.index(name)] = column
    return rows


def state(**changes: Any) -> dict[str, Any]:
    agent = Agent("video-1", 4.0)
    agent.observe(history())
    return {**json.loads(json.dumps(handed_over(agent))), **changes}


def test_it_is_as_it_was() -> None:
    agent = arrived(state())
    assert (agent.user, agent.ela, agent.seen, len(agent.history)) == ("video-1", 4.0, 40, 40)


@pytest.mark.parametrize(
    "columns",
    [
        {"score": np.nan},
        {"score": 1e30},
        {"behaviour": np.nan},
        {"environment": 1e9},
        {"stalled": np.inf},
        {"prb_per_kbps": -1.0},
        {"time_s": np.nan},
    ],
    ids=str,
)
def test_rows_that_cannot_be_are_refused(columns: dict[str, Any]) -> None:
    bad = np.concatenate((history(**columns), history()[:10]))
    with pytest.raises(ValueError, match="that cannot be"):
        arrived(state(history=pack_rows(bad)))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(seen="12"),
        lambda s: s.update(seen=-1),
        lambda s: s.update(ela=9.0),
        lambda s: s.update(segment_s=1e300),
        lambda s: s.update(segment_s=1e-9),
        lambda s: s.update(history="none"),
        lambda s: s.pop("habit"),
        lambda s: s.clear(),
    ],
)
def test_what_is_no_agent_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    came = state()
    change(came)
    with pytest.raises((ValueError, KeyError, TypeError)):
        arrived(came)


def test_a_clock_that_was_set_back_does_not_stop_learning() -> None:
    rows = history()
    rows[20:, HISTORY.index("time_s")] -= 5000.0
    learnt = learn(
        before=b"",
        rows={"video-1": rows},
        profiles={},
        arrivals={},
        present=["video-1"],
        options=OPTIONS,
        seed=1,
    )
    assert Memory.from_bytes(learnt).quantiles[3] > 0.0
