"""The branching network in NumPy: what it sees, what its actions give, and what it is kept as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.allocators.video import bdqn, frontier, orchestration
from controller.allocators.video.bdqn import GROUP, SHAPES, USER, BranchingNetwork, Condition
from controller.allocators.video.groups import GROUPS, groups_of
from controller.allocators.video.orchestration import Resources
from tests.allocators.video.people import users
from wire.definitions.viewing import AHEAD

RESOURCES = Resources(np.array([20.0, 30.0]), 5000.0, 180.0)


def network(kind: str, seed: int = 1) -> BranchingNetwork:
    rng = np.random.default_rng(seed)
    arrays = {n: rng.normal(0.0, 0.2, s).astype(np.float32) for n, s in SHAPES[kind].arrays().items()}
    return BranchingNetwork(kind, arrays, {"seed": seed})


def condition(n: int, seed: int = 2) -> Condition:
    rng = np.random.default_rng(seed)
    return Condition(*(rng.uniform(0.0, top, n) for top in (AHEAD, 1.0, 60.0, 300.0)))


@pytest.mark.parametrize("kind", bdqn.KINDS)
def test_the_mean_over_levels_is_the_value_of_the_state_in_every_branch(kind: str) -> None:
    states = np.random.default_rng(3).uniform(0.0, 1.0, (5, SHAPES[kind].inputs))
    q = network(kind).q(states)
    assert q.shape == (5, SHAPES[kind].branches, bdqn.LEVELS)
    np.testing.assert_allclose(
        q.mean(axis=-1), np.broadcast_to(q.mean(axis=(1, 2))[:, None], q.shape[:2]), 1e-4
    )
    np.testing.assert_array_equal(network(kind).act(states), q.argmax(axis=-1))


def test_what_a_cell_looks_like() -> None:
    known, how = users(12, 1), condition(12)
    groups = groups_of(known.models)
    hulls = frontier.hulls(known)
    states = bdqn.group_states(known, hulls, groups, RESOURCES, how).reshape(2, len(GROUPS), -1)
    for cell in range(2):
        in_cell = known.cell == cell
        for group in range(len(GROUPS)):
            rows = np.flatnonzero(in_cell & (groups == group))
            named = dict(zip(bdqn.GROUP_FEATURES, states[cell, group], strict=True))
            if not len(rows):
                assert not any(named.values())
                continue
            assert named["buffer"] == pytest.approx(how.buffer_s[rows].mean() / AHEAD)
            assert named["load"] == pytest.approx(how.mcycles[rows].sum() / 5000.0)
            assert named["quality"] == pytest.approx(how.quality[rows].mean())
            assert [named[f"index {name}"] for name in GROUPS] == np.eye(len(GROUPS))[group].tolist()
            assert named["users"] == pytest.approx(len(rows) / in_cell.sum())
            equal = RESOURCES.prb[cell] / in_cell.sum()
            prb = bdqn.wanted_kbps(hulls)[rows] / known.kbps_per_prb[rows]
            assert named["wanted"] == pytest.approx(np.minimum(prb / equal, bdqn.MOST).mean())


def test_what_is_wanted_is_the_rate_that_keeps_the_agreement() -> None:
    known = users(9, 4)
    wanted = bdqn.wanted_kbps(frontier.hulls(known))
    _, expected = known.best_bitrates(frontier.RATES_KBPS[None].repeat(9, axis=0))
    can = expected.max(axis=1) >= known.ela
    # On the hull, which may promise what lies between two corners a little early.
    reached = np.array([np.interp(w, frontier.RATES_KBPS, e) for w, e in zip(wanted, expected, strict=True)])
    assert can.any() and (reached[can] >= 0.85 * known.ela[can]).all()
    assert (wanted > 0.0).all()


def test_all_that_there_is_goes_to_groups_with_users() -> None:
    known = users(12, 1, kinds=(0, 1))
    groups = groups_of(known.models)
    shares = bdqn.group_level(network(GROUP), condition(12))(known, groups, RESOURCES)
    np.testing.assert_allclose(shares.prb.sum(axis=1), RESOURCES.prb)
    assert shares.mcycles.sum() == pytest.approx(5000.0)
    count = orchestration.count_users(known, groups, 2)
    assert (shares.prb[count == 0.0] == 0.0).all() and (shares.mcycles[count == 0.0] == 0.0).all()
    assert (shares.prb[count > 0.0] > 0.0).all()


@pytest.mark.parametrize("level", [0, 3, 6])
def test_the_same_level_everywhere_is_equal_shares(level: int) -> None:
    known = users(12, 1)
    groups = groups_of(known.models)
    actions = np.full((2, SHAPES[GROUP].branches), level)
    shares = bdqn.group_shares(actions, known, groups, RESOURCES)
    equal = orchestration.equal_shares(known, groups, RESOURCES)
    np.testing.assert_allclose(shares.prb, equal.prb)
    np.testing.assert_allclose(shares.mcycles, equal.mcycles)


def test_a_step_by_a_network_keeps_within_what_there_is() -> None:
    known = users(16, 5)
    for plan in (
        orchestration.plan(known, RESOURCES, bdqn.group_level(network(GROUP), condition(16))),
        bdqn.serve(network(USER), known, RESOURCES, condition(16)),
        bdqn.serve(network(USER), known, replace(RESOURCES, mcycles=200.0), condition(16)),
    ):
        assert (np.bincount(known.cell, plan.prb, 2) <= RESOURCES.prb).all()
        assert plan.mcycles.sum() <= 5000.0
        np.testing.assert_allclose(plan.kbps, plan.prb * known.kbps_per_prb)
    assert plan.mcycles.sum() <= 200.0


def test_who_is_where_in_a_state_of_users() -> None:
    known, how = users(5, 6), condition(5)
    states = bdqn.user_states(known, RESOURCES, how).reshape(2, bdqn.USER_SLOTS, -1)
    assert states[:, :, -1].sum(axis=1).tolist() == np.bincount(known.cell, minlength=2).tolist()
    for cell in range(2):
        here = np.flatnonzero(known.cell == cell)
        np.testing.assert_allclose(states[cell, : len(here), 4] * 5.0, known.ela[here])
        assert not states[cell, len(here) :].any()


def test_what_is_not_known_yet_counts_as_nothing() -> None:
    known, nan = users(4, 1), np.full(4, np.nan)
    how = Condition(np.zeros(4), nan, nan, nan)
    bdqn.serve(network(USER), known, RESOURCES, how)
    orchestration.plan(known, RESOURCES, bdqn.group_level(network(GROUP), how))


def test_nobody_is_no_error() -> None:
    nobody = users(2, 1).take([])
    plan = orchestration.plan(nobody, RESOURCES, bdqn.group_level(network(GROUP), condition(0)))
    assert len(plan.prb) == 0
    assert len(bdqn.serve(network(USER), nobody, RESOURCES, condition(0)).prb) == 0


def test_a_network_is_kept_as_bytes() -> None:
    kept = BranchingNetwork.from_bytes(network(GROUP).to_bytes())
    assert kept.kind == GROUP and kept.training == {"seed": 1}
    for name, array in network(GROUP).weights.items():
        np.testing.assert_array_equal(kept.weights[name], array)


@pytest.mark.parametrize("cut", [0, 10, 5000])
def test_bytes_that_are_no_network(cut: int) -> None:
    with pytest.raises(ValueError):
        BranchingNetwork.from_bytes(network(GROUP).to_bytes()[:cut])


def test_bad_input() -> None:
    weights = dict(network(GROUP).weights)
    with pytest.raises(ValueError, match="kind 'slice'"):
        BranchingNetwork("slice", weights, {})
    with pytest.raises(ValueError, match="shapes"):
        BranchingNetwork(USER, weights, {})
    broken = weights | {"value_1_b": np.array([np.nan], np.float32)}
    with pytest.raises(ValueError, match="not finite"):
        BranchingNetwork(GROUP, broken, {})
    with pytest.raises(ValueError, match="finite numbers"):
        network(GROUP).act(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite numbers"):
        network(GROUP).act(np.full((2, SHAPES[GROUP].inputs), np.inf))
    with pytest.raises(ValueError, match="25 users"):
        bdqn.user_states(users(25, 1, cells=1), RESOURCES, condition(25))
    with pytest.raises(ValueError, match="does not divide"):
        bdqn.group_level(network(USER), condition(1))
    with pytest.raises(ValueError, match="does not serve"):
        bdqn.serve(network(GROUP), users(1, 1), RESOURCES, condition(1))
