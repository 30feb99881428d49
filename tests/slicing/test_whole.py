"""No grant between none and the smallest one of the gNB's scheduler."""

from __future__ import annotations

import random

from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing import whole_grants
from controller.slicing.whole import GIVEN_UP, NONE_WHOLE


def whole(
    granted: dict[str, int], least: int = 5, turn: int = 0, **shares: Share
) -> dict[str, tuple[int, str]]:
    wants = {name: Want(100) for name in granted}
    divided = {name: (prb, "cut") for name, prb in granted.items()}
    return whole_grants(divided, wants, {name: shares.get(name, Share()) for name in granted}, least, turn)


def test_what_is_whole_stays() -> None:
    assert whole({"a": 20, "b": 5, "c": 0}) == {"a": (20, "cut"), "b": (5, "cut"), "c": (0, "cut")}
    assert whole({"a": 1}, least=1) == {"a": (1, "cut")}


def test_what_is_missing_comes_from_who_has_most_above_its_minimum() -> None:
    assert whole({"a": 20, "b": 4}) == {"a": (19, GIVEN_UP), "b": (5, "cut")}
    assert whole({"a": 20, "c": 12, "b": 4}, a=Share(min=20)) == {
        "a": (20, "cut"),
        "c": (11, GIVEN_UP),
        "b": (5, "cut"),
    }


def test_where_there_is_not_enough_they_take_turns() -> None:
    served = [
        {name for name, (prb, _) in whole(dict.fromkeys("abcdef", 4), turn=t).items() if prb}
        for t in range(6)
    ]
    assert all(len(names) == 4 for names in served) and set.union(*served) == set("abcdef")
    assert whole(dict.fromkeys("abcdef", 4))["f"] == (0, NONE_WHOLE)


def test_random_divisions_are_whole_and_no_larger() -> None:
    rng = random.Random(1)
    for _ in range(500):
        granted = {f"s{i}": rng.randrange(30) for i in range(rng.randrange(1, 8))}
        shares = {name: Share(min=rng.randrange(12)) for name in granted}
        least = rng.randrange(1, 9)
        out = whole(granted, least, rng.randrange(100), **shares)
        assert sum(prb for prb, _ in out.values()) <= sum(granted.values())
        for name, (prb, _) in out.items():
            assert prb == 0 or prb >= least
            assert prb >= min(granted[name], shares[name].min) or prb < least
