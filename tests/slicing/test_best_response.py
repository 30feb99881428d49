from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from controller import slicing
from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing.best_response import BestResponse
from controller.twins.slice.game import Game, make_game


def divide(
    prb: int, wants: dict[str, Want], shares: dict[str, Share] | None = None, arbiter: str = "best-response"
) -> dict[str, int]:
    got = slicing.make(arbiter).divide("ul", prb, wants, shares or {})
    return {s: granted for s, (granted, _) in got.items()}


def normalised(want: Want) -> list[float]:
    gain = np.array(want.gain or (1.0,) * (want.prb - want.floor))
    return list(gain / gain.sum())


def concave(rng: np.random.Generator, n: int) -> tuple[float, ...]:
    return tuple(np.diff(np.log1p(rng.uniform(0.01, 1.0) * np.arange(n + 1))).tolist())


def satisfied(wants: dict[str, Want], got: dict[str, int]) -> float:
    return sum(sum(normalised(w)[: got[s] - w.floor]) for s, w in wants.items())


def test_grants_are_a_nash_equilibrium_and_what_it_leaves_over() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        wants = {}
        for i in range(int(rng.integers(2, 7))):
            n, floor = int(rng.integers(1, 60)), int(rng.integers(0, 10))
            wants[f"s{i}"] = Want(n + floor, floor, concave(rng, n))
        above = int(sum(w.prb - w.floor for w in wants.values()) * rng.uniform(0.1, 0.9))
        got = divide(above + sum(w.floor for w in wants.values()), wants)
        # Slices respond in the order of what they have and gain.
        order = sorted(wants, key=lambda s: (wants[s].floor, normalised(wants[s])))
        game = make_game([normalised(wants[s]) for s in order], above)
        taken = game.play().actions
        assert game.is_equilibrium(taken) and sum(taken) <= above
        more = {s: got[s] - wants[s].floor - x for s, x in zip(order, taken, strict=True)}
        assert min(more.values()) >= 0 and sum(more.values()) == above - sum(taken)
        # Max-min: whoever got of what was left has no more than a slice that wanted more and did not.
        for s in wants:
            for other in wants:
                if more[s] and got[other] < wants[other].prb:
                    assert got[s] <= got[other] + 1


def test_slices_are_satisfied_more_than_by_max_min_and_at_most_as_by_greedy() -> None:
    rng = np.random.default_rng(2)
    sums = dict.fromkeys(("maxmin", "best-response", "greedy"), 0.0)
    for _ in range(40):
        wants = {f"s{i}": Want(n, 0, concave(rng, n)) for i, n in enumerate(rng.integers(1, 120, 5).tolist())}
        each = {a: satisfied(wants, divide(106, wants, arbiter=a)) for a in sums}
        assert max(each.values()) <= each["greedy"] + 1e-9
        for a, total in each.items():
            sums[a] += total
    assert sums["maxmin"] < sums["best-response"] < sums["greedy"]


def test_whoever_gains_nothing_has_its_floor() -> None:
    wants = {"none": Want(20, 8, (0.0,) * 12), "gains": Want(200, 0, concave(np.random.default_rng(3), 200))}
    got = divide(100, wants)
    assert got["none"] >= 8 and sum(got.values()) == 100


def test_minimums_and_maximums_of_shares_hold_whatever_the_gains() -> None:
    wants = {"a": Want(50, gain=(0.0,) * 50), "b": Want(80), "c": Want(80, 30)}
    shares = {"a": Share(dedicated=5, min=20), "b": Share(max=10), "c": Share(max=25)}
    got = BestResponse().divide("ul", 52, wants, shares)
    assert got["a"] == (20, "equilibrium of best responses")
    assert got["b"][0] <= 10 and got["c"][0] <= 25
    assert sum(granted for granted, _ in got.values()) == 52


def test_equals_get_equal_grants() -> None:
    wants = {name: Want(60, 0, concave(np.random.default_rng(4), 60)) for name in "abcd"}
    assert divide(100, wants) == dict.fromkeys("abcd", 25)
    assert divide(100, {name: Want(60) for name in "abcd"}) == dict.fromkeys("abcd", 25)


def test_large_and_tiny_gains_do_not_overflow() -> None:
    wants = {"a": Want(4, gain=(1e308,) * 4), "b": Want(4, gain=(5e-324,) * 4)}
    assert divide(6, wants) == {"a": 3, "b": 3}


def test_sixteen_slices_settle_after_a_few_moves_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    calls = 0
    best_response = Game.best_response

    def counted(self: Game, player: int, actions: list[int]) -> int:
        nonlocal calls
        calls += 1
        return best_response(self, player, actions)

    monkeypatch.setattr(Game, "best_response", counted)
    for gains in (True, False):
        wants = {f"s{i}": Want(273, 0, concave(rng, 273) if gains else ()) for i in range(16)}
        got = divide(273, wants)
        assert sum(got.values()) == 273
        assert not any(a == b == 0 for a, b in pairwise(got.values()))
    assert calls < 2 * 16 * 20
