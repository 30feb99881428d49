"""What holds for every twin. A new one adds its case to CASES."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from controller.allocators.base import SliceView
from controller.core.decision import Grant
from controller.core.observation import Flow, Frames, Samples
from controller.twins import Twin

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000
MAX_STATE = 1024


@dataclass(frozen=True)
class Case:
    """``make`` gives a twin of a user. ``view`` draws what a slot shows of users (rng, number, users).

    ``levers`` float64 [k, levers] are some that can be asked about.
    """

    make: Callable[[str], Twin]
    view: Callable[[np.random.Generator, int, tuple[str, ...]], SliceView]
    levers: NDArray[np.float64]


class Counting(Twin):
    """The smallest twin: how often a sample fell in each bin, by tenths of the uplink's PRBs (a Dirichlet
    prior of one observation, spread evenly)."""

    levers = (("ul", "PRB"),)
    unit = "ms"
    edges = np.array([0.0, 20.0, 50.0, 100.0, np.inf])

    def __init__(self, user: str) -> None:
        self.user = user
        self._counts = np.zeros((10, len(self.edges) - 1))

    @staticmethod
    def _level(prb: NDArray[np.float64]) -> NDArray[np.intp]:
        return np.clip(prb // 11, 0, 9).astype(np.intp)

    def observe(self, view: SliceView) -> None:
        if view.granted is None or "delay" not in view.samples:
            return
        table = view.samples["delay"]
        users = [i for i, u in enumerate(view.users) if u.flow == self.user]
        values = table.values[np.isin(table.flow, users), 0]
        bins = np.searchsorted(self.edges, values[values >= 0], side="right") - 1
        np.add.at(self._counts[self._level(np.array([view.granted.ul_prb]))[0]], bins, 1.0)

    def predict(self, levers: NDArray[np.float64]) -> NDArray[np.float64]:
        self.check(levers)
        counts = self._counts[self._level(levers[:, 0])] + 1 / self._counts.shape[1]
        return counts / counts.sum(axis=1, keepdims=True)

    def to_state(self) -> dict[str, Any]:
        return {"counts": self._counts.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        counts = np.array(state.get("counts", []), np.float64)
        if counts.shape != self._counts.shape:
            raise ValueError(f"twin of {self.user}: counts of shape {counts.shape}")
        self._counts = counts


def delays(rng: np.random.Generator, number: int, users: tuple[str, ...]) -> SliceView:
    n = 6 * len(users)
    values = rng.exponential(40, (n, 1)).astype(np.float32)
    values[rng.random((n, 1)) < 0.1] = np.nan
    opened = T0 + number * S
    return SliceView(
        "slice-1",
        number,
        opened,
        opened + S,
        opened,
        opened + S,
        users=tuple(Flow(user, f"ue-{user}", "slice-1", 1e6, 1e6, T0) for user in users),
        samples={"delay": Samples(rng.integers(0, len(users), n), np.full(n, opened), values)},
        granted=Grant(int(rng.integers(0, 107)), 50, 1000),
        seed=(number,),
    )


CASES = {"counting": Case(Counting, delays, np.array([[0.0], [5.0], [40.0], [106.0], [500.0]]))}
every_twin = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def observed(case: Case, slots: int, seed: int = 1) -> Twin:
    twin, rng = case.make("a"), np.random.default_rng(seed)
    for number in range(slots):
        twin.observe(case.view(rng, number, ("b", "a", "c")))
    return twin


@every_twin
@pytest.mark.parametrize("slots", [0, 1, 30])
def test_predictions_are_distributions(case: Case, slots: int) -> None:
    twin = observed(case, slots)
    bins = len(twin.edges) - 1
    assert twin.user == "a" and twin.unit and (np.diff(twin.edges) > 0).all()
    before = json.dumps(twin.to_state(), allow_nan=False)
    p = twin.predict(case.levers)
    assert p.dtype == np.float64 and p.shape == (len(case.levers), bins)
    assert (p >= 0).all() and np.allclose(p.sum(axis=1), 1, rtol=0, atol=1e-9)
    assert twin.predict(case.levers[:0]).shape == (0, bins)
    order = np.random.default_rng(0).permutation(len(case.levers))
    assert np.allclose(twin.predict(case.levers[order]), p[order], rtol=0, atol=1e-12)
    assert json.dumps(twin.to_state()) == before


@every_twin
def test_equal_views_make_equal_twins(case: Case) -> None:
    a, b = observed(case, 30), observed(case, 30)
    assert a.to_state() == b.to_state() != observed(case, 0).to_state()
    assert (a.predict(case.levers) == b.predict(case.levers)).all()


@every_twin
def test_state_goes_through_json_and_is_small(case: Case) -> None:
    twin, moved = observed(case, 30), case.make("a")
    text = json.dumps(twin.to_state(), allow_nan=False)
    assert len(text) <= MAX_STATE
    moved.load_state(json.loads(text))
    for number in range(30, 40):
        assert (moved.predict(case.levers) == twin.predict(case.levers)).all()
        view = case.view(np.random.default_rng(number), number, ("a",))
        moved.observe(view)
        twin.observe(view)
    assert json.dumps(moved.to_state()) == json.dumps(twin.to_state()) != text


@every_twin
def test_nothing_is_learned_of_others_nor_of_nothing(case: Case) -> None:
    twin, rng = observed(case, 10), np.random.default_rng(2)
    before = json.dumps(twin.to_state())
    twin.observe(case.view(rng, 10, ("b", "c")))
    view = case.view(rng, 11, ("a",))
    twin.observe(replace(view, reports=(), frames=Frames.empty(), samples={}, fits=()))
    assert json.dumps(twin.to_state()) == before


@every_twin
def test_what_does_not_fit_is_refused(case: Case) -> None:
    twin = observed(case, 5)
    before, columns = json.dumps(twin.to_state()), len(twin.levers)
    for levers in (np.zeros(columns), np.zeros((2, columns + 1)), np.full((1, columns), np.nan)):
        with pytest.raises(ValueError):
            twin.predict(levers)
    with pytest.raises(ValueError):
        twin.load_state({})
    assert json.dumps(twin.to_state()) == before
