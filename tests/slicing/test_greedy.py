from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing.greedy import Greedy


def divide(prb: int, wants: dict[str, Want], shares: dict[str, Share] | None = None) -> dict[str, int]:
    return {s: granted for s, (granted, _) in Greedy().divide("ul", prb, wants, shares or {}).items()}


def satisfied(want: Want, prb: int) -> float:
    """0 at the floor, 1 with all that it wants."""
    above = want.prb - want.floor
    gain = want.gain or (1.0,) * above
    return sum(gain[: prb - want.floor]) / sum(gain) if above else 0.0


def test_the_highest_gain_of_the_next_prb_comes_first() -> None:
    wants = {"a": Want(3, gain=(6.0, 3.0, 1.0)), "b": Want(3, gain=(5.0, 4.0, 1.0))}
    assert [divide(prb, wants) for prb in range(7)] == [
        {"a": a, "b": b} for a, b in ((0, 0), (1, 0), (1, 1), (1, 2), (2, 2), (3, 2), (3, 3))
    ]


def test_no_division_satisfies_more_by_trying_them_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        wants = {}
        for name in "abc":
            n, floor = int(rng.integers(1, 7)), int(rng.integers(0, 3))
            gain = tuple(np.sort(rng.integers(1, 9, n))[::-1].tolist()) if rng.random() < 0.7 else ()
            wants[name] = Want(n + floor, floor, gain)
        floors = sum(w.floor for w in wants.values())
        prb = floors + int(rng.integers(0, 12))
        got = divide(prb, wants)
        best = max(
            sum(satisfied(w, x) for w, x in zip(wants.values(), each, strict=True))
            for each in product(*(range(w.floor, w.prb + 1) for w in wants.values()))
            if sum(each) <= prb
        )
        assert sum(satisfied(w, got[s]) for s, w in wants.items()) == pytest.approx(best)


def test_ties_go_to_the_fewest_prbs_and_then_to_the_first_named() -> None:
    assert divide(5, {"a": Want(9), "b": Want(9)}) == {"a": 3, "b": 2}
    # A floor counts as what the slice has: all gain the same until the other has as many.
    assert divide(7, {"a": Want(10, 4, (1.0,) * 6), "b": Want(6, 0, (2.0,) * 6)}) == {"a": 4, "b": 3}


def test_gains_of_services_are_compared_in_parts_of_their_sums() -> None:
    cheap, dear = (0.003, 0.001), (3000.0, 1000.0)
    assert divide(2, {"a": Want(2, gain=dear), "b": Want(2, gain=cheap)}) == {"a": 1, "b": 1}


def test_whoever_gains_nothing_has_its_floor_and_what_is_left() -> None:
    wants = {"none": Want(20, 8, (0.0,) * 12), "loses": Want(9, 4, (-1.0,) * 5), "gains": Want(100, 0)}
    assert divide(100, wants) == {"none": 8, "loses": 4, "gains": 88}
    assert divide(120, wants) == {"none": 11, "loses": 9, "gains": 100}


def test_minimums_and_maximums_of_shares_hold_whatever_the_gains() -> None:
    wants = {"a": Want(50, gain=(0.0,) * 50), "b": Want(80), "c": Want(80, 30)}
    shares = {"a": Share(dedicated=5, min=20), "b": Share(max=10), "c": Share(max=25)}
    assert divide(50, wants, shares) == {"a": 20, "b": 5, "c": 25}
    got = Greedy().divide("ul", 60, wants, shares)
    assert got == {
        "a": (25, "highest gain first"),
        "b": (10, "share of at most 10 PRB"),
        "c": (25, "share of at most 25 PRB"),
    }


def test_large_and_tiny_gains_do_not_overflow() -> None:
    wants = {"a": Want(4, gain=(1e308,) * 4), "b": Want(4, gain=(5e-324,) * 4)}
    assert divide(5, wants) == {"a": 3, "b": 2}
