from __future__ import annotations

import numpy as np

from controller.core.decision import Want
from controller.slicing.maxmin import MaxMin


def divide(prb: int, wanted: dict[str, int], floors: dict[str, int] | None = None) -> dict[str, int]:
    wants = {s: Want(n, (floors or {}).get(s, 0)) for s, n in wanted.items()}
    return {s: granted for s, (granted, _) in MaxMin().divide("ul", prb, wants, {}).items()}


def test_everything_wanted_is_granted_where_it_fits() -> None:
    assert divide(106, {"a": 50, "b": 56}) == {"a": 50, "b": 56}


def test_the_small_demand_is_whole_and_the_large_one_gets_the_rest() -> None:
    assert divide(106, {"a": 90, "b": 40, "c": 6}) == {"a": 60, "b": 40, "c": 6}


def test_floors_come_first() -> None:
    assert divide(100, {"a": 100, "b": 100}, {"b": 70}) == {"a": 30, "b": 70}


def test_floors_that_do_not_fit_are_divided_too() -> None:
    assert divide(10, {"a": 50, "b": 50}, {"a": 30, "b": 30}) == {"a": 5, "b": 5}


def test_an_odd_prb_goes_to_the_first() -> None:
    assert divide(5, {"a": 9, "b": 9}) == {"a": 3, "b": 2}


def test_max_min_property_on_random_demands() -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        names = "abcd"[: rng.integers(1, 5)]
        wanted = {s: int(rng.integers(0, 120)) for s in names}
        got = divide(106, wanted)
        assert all(got[s] <= wanted[s] for s in names)
        assert sum(got.values()) == min(106, sum(wanted.values()))
        # Max-min: whoever is cut has at least what any other has, one PRB of rounding aside.
        for s in names:
            if got[s] < wanted[s]:
                assert all(got[s] >= got[o] - 1 for o in names)
