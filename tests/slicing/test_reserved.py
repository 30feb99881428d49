from __future__ import annotations

import numpy as np
import pytest

from controller import slicing
from controller.core.decision import Want
from controller.core.spec import Share
from controller.slicing import with_reserved
from tests.slicing.test_contract import cases

every_arbiter = pytest.mark.parametrize("name", slicing.names())


def test_the_minimum_is_what_is_reserved_and_wanted() -> None:
    wants = {"a": Want(60), "b": Want(106)}
    assert with_reserved(106, wants, {}, {"a": 40}) == {"a": Share(min=40), "b": Share()}
    assert with_reserved(106, wants, {}, {"a": 80})["a"] == Share(min=60)
    assert with_reserved(106, wants, {}, {"b": 120})["b"] == Share(min=106)


def test_a_share_s_own_bounds_stay() -> None:
    wants = {"a": Want(60)}
    shares = {"a": Share(dedicated=10, min=20, max=50)}
    assert with_reserved(106, wants, shares, {"a": 15}) == shares
    assert with_reserved(106, wants, shares, {"a": 30})["a"] == Share(10, 30, 50)
    assert with_reserved(106, wants, shares, {"a": 90})["a"] == Share(10, 50, 50)
    assert with_reserved(106, wants, {"a": Share(dedicated=10)}, {"a": 5}) == {"a": Share(dedicated=10)}


def test_reservations_that_do_not_fit_beside_the_floors_are_cut_alike() -> None:
    wants = {"a": Want(106), "b": Want(90, 80), "c": Want(106)}
    got = with_reserved(106, wants, {}, {"a": 106, "c": 5})
    assert (got["a"].min, got["b"].min, got["c"].min) == (21, 0, 5)
    got = with_reserved(106, wants, {}, {"a": 100, "c": 100})
    assert (got["a"].min, got["c"].min) == (13, 13)


@every_arbiter
def test_a_reservation_is_honoured_and_no_floor_is_lost_by_it(name: str) -> None:
    rng = np.random.default_rng(1)
    arbiter, raised = slicing.make(name), 0
    for prb, wants, shares in cases(400, 8):
        reserved = {s: int(rng.integers(0, 150)) for s in wants if rng.random() < 0.5}
        with_it = with_reserved(prb, wants, shares, reserved)
        got = {s: granted for s, (granted, _) in arbiter.divide("ul", prb, wants, with_it).items()}
        floors = {}
        for s, want in wants.items():
            share = shares.get(s, Share())
            wanted = min(want.prb, share.max)
            floors[s] = max(min(wanted, share.dedicated), min(wanted, max(want.floor, share.min)))
        taken = sum(max(f, shares.get(s, Share()).dedicated) for s, f in floors.items())
        if taken > prb:
            without = arbiter.divide("ul", prb, wants, shares)
            assert got == {s: granted for s, (granted, _) in without.items()}
            continue
        assert all(got[s] >= floor for s, floor in floors.items())
        asked = {s: min(wants[s].prb, with_it[s].max, prbs) for s, prbs in reserved.items()}
        more = sum(max(0, m - max(floors[s], with_it[s].dedicated)) for s, m in asked.items())
        if taken + more <= prb:
            raised += more > 0
            assert all(got[s] >= m for s, m in asked.items())
    assert raised > 20
