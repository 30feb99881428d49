"""What holds for every arbiter."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from controller import slicing
from controller.core.decision import Want
from controller.core.measure import Outcome
from controller.core.spec import Share

every_arbiter = pytest.mark.parametrize("name", slicing.names())
Case = tuple[int, dict[str, Want], dict[str, Share]]


def cases(n: int, seed: int) -> list[Case]:
    """Random carriers, wants and shares, from nothing to far too much; dedicated PRBs fit the carrier."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        prb = int(rng.choice([0, 1, 5, 51, 106, 273]))
        names = [f"slice-{i}" for i in range(rng.integers(0, 17))]
        wants, shares, left = {}, {}, prb
        for name in names:
            wanted = int(rng.integers(0, rng.choice([2, 20, 276])))
            floor = int(rng.integers(0, wanted + 1)) if rng.random() < 0.5 else 0
            gain = np.sort(rng.random(wanted - floor))[::-1].tolist() if rng.random() < 0.3 else ()
            wants[name] = Want(wanted, floor, tuple(gain))
            if rng.random() < 0.5:
                dedicated = int(rng.integers(0, left + 1)) if rng.random() < 0.3 else 0
                left -= dedicated
                least = dedicated + int(rng.integers(0, 30))
                shares[name] = Share(dedicated, least, least + int(rng.integers(0, 100)))
        out.append((prb, wants, shares))
    return out


@every_arbiter
def test_what_is_divided_is_there_and_wanted(name: str) -> None:
    arbiter = slicing.make(name)
    assert arbiter.name == name
    for prb, wants, shares in cases(500, 1):
        got = arbiter.divide("ul", prb, wants, shares)
        assert got.keys() == wants.keys()
        assert sum(n for n, _ in got.values()) <= prb
        for slice_, (granted, why) in got.items():
            share = shares.get(slice_, Share())
            assert type(granted) is int and 0 <= granted <= min(wants[slice_].prb, share.max)
            assert bool(why) == (granted < wants[slice_].prb)


@every_arbiter
def test_floors_are_served_where_they_fit(name: str) -> None:
    arbiter, served = slicing.make(name), 0
    for prb, wants, shares in cases(500, 2):
        common = prb - sum(s.dedicated for s in shares.values())
        floors, beyond = {}, 0
        for slice_, want in wants.items():
            share = shares.get(slice_, Share())
            floors[slice_] = min(want.prb, share.max, max(want.floor, share.min))
            beyond += max(0, floors[slice_] - share.dedicated)
        if beyond <= common:
            served += any(floors.values())
            got = arbiter.divide("dl", prb, wants, shares)
            assert all(got[slice_][0] >= floor for slice_, floor in floors.items())
    assert served > 50


@every_arbiter
def test_dedicated_prbs_are_nobody_else_s_even_when_idle(name: str) -> None:
    arbiter = slicing.make(name)
    for prb, wants, shares in cases(500, 3):
        got = arbiter.divide("ul", prb, wants, shares)
        for slice_, share in shares.items():
            others = sum(granted for other, (granted, _) in got.items() if other != slice_)
            assert others <= prb - share.dedicated
            assert got[slice_][0] >= min(wants[slice_].prb, share.dedicated)


@every_arbiter
def test_who_is_named_first_wins_ties_alone(name: str) -> None:
    rng = np.random.default_rng(4)
    for prb, wants, shares in cases(500, 4):
        order = [list(wants)[i] for i in rng.permutation(len(wants))]
        got = slicing.make(name).divide("ul", prb, wants, shares)
        again = slicing.make(name).divide("ul", prb, {n: wants[n] for n in order}, shares)
        assert all(abs(got[n][0] - again[n][0]) <= 1 for n in wants)
        assert sum(n for n, _ in got.values()) == sum(n for n, _ in again.values())


@every_arbiter
def test_state_goes_through_json_and_equal_states_divide_equally(name: str) -> None:
    rng = np.random.default_rng(5)

    def run(arbiter: slicing.Arbiter, some: list[Case], bits: list[Any]) -> list[Any]:
        out = []
        for (prb, wants, shares), met in zip(some, bits, strict=True):
            out.append([arbiter.divide(d, prb, wants, shares) for d in ("ul", "dl")])
            arbiter.close({n: Outcome(met, met is not None) for n in wants})
        return out

    bits = [(0, 1, None)[i] for i in rng.integers(0, 3, 60)]
    whole, resumed, first = (slicing.make(name) for _ in range(3))
    assert run(whole, cases(60, 6), bits) == run(first, cases(60, 6), bits)
    state = json.loads(json.dumps(whole.to_state(), allow_nan=False))
    resumed.load_state(state)
    assert json.loads(json.dumps(resumed.to_state())) == state
    assert run(whole, cases(60, 7), bits) == run(resumed, cases(60, 7), bits)


@every_arbiter
def test_a_negative_carrier_is_refused(name: str) -> None:
    for wants in ({}, {"a": Want(0)}, {"a": Want(5), "b": Want(9, 2)}):
        with pytest.raises(ValueError, match="negative"):
            slicing.make(name).divide("ul", -1, wants, {})


def test_an_unknown_arbiter_is_named() -> None:
    with pytest.raises(ValueError, match="unknown arbiter 'coin'"):
        slicing.make("coin")
