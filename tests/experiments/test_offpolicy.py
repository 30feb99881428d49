"""Off-policy evaluation on synthetic logs, whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.experiments.offpolicy import (
    DelayModel,
    Evaluation,
    Floats,
    Ints,
    Log,
    Models,
    Played,
    Unanswerable,
    antitonic,
    check,
    evaluate,
    weights,
)

BUDGETS = (1e6, 20.0, 60.0, 150.0)
"""No hop hands anything on."""
ACTIONS = np.array([10.0, 30.0, 50.0, 70.0, 90.0])


class World:
    """One flow; the delay of its uplink falls with the ratio, that of the other hops is what it is."""

    def __init__(self, seed: int, n: int = 150) -> None:
        rng = np.random.default_rng(seed)
        self.demand = np.exp(rng.normal(3.0, 0.4, n))
        self.luck = rng.normal(0.0, 0.5, n)
        self.rest = np.stack((rng.uniform(8, 12, n), rng.uniform(18, 22, n)), axis=1)
        self.logged = ACTIONS[rng.integers(0, len(ACTIONS), n)]

    def delay(self, ul: Floats) -> Floats:
        ul_ms = np.exp(4.0 - 1.2 * np.log2(ul / self.demand) * np.log(2) + self.luck)
        return np.concatenate((ul_ms[:, None], self.rest), axis=1)

    def met(self, ul: Floats) -> Floats:
        return (self.delay(ul).sum(axis=1) <= BUDGETS[3]).astype(float)

    def log(self, ul: Floats | None = None) -> Log:
        ul = self.logged if ul is None else ul
        n = len(ul)
        fixed = np.ones(n)
        return Log(
            had=np.stack((ul, 1600 * fixed, 100 * fixed), axis=1),
            demand=np.stack((self.demand, fixed, 5 * fixed), axis=1),
            cost=np.ones((n, 3)),
            delay_ms=self.delay(ul)[:, None, :],
            judged=np.ones((n, 1), np.bool_),
            budget_ms=np.tile(BUDGETS, (n, 1)),
            met=self.met(ul),
        )


def play(models: Models, ul: Floats) -> Played:
    log = models.log
    had = log.had.copy()
    had[:, 0] = ul
    return Played(had, models.outcomes(np.arange(len(log)), had, log.inherited[:, 0]))


def judged(log: Log, ul: Floats, replicates: int, seed: int = 0) -> Evaluation:
    drawn: Ints = weights(log, replicates, seed)
    models = [Models(log, times) for times in drawn]
    return evaluate(log, play(Models(log), ul), [(m, play(m, ul)) for m in models])


def test_the_interval_covers_the_truth_in_two_hundred_worlds() -> None:
    covered, errors, widths = 0, [], []
    for seed in range(200):
        world = World(seed, 120)
        ul = np.where(world.demand > 20, 50.0, 30.0)
        result, truth = judged(world.log(), ul, 4, seed), world.met(ul).mean()
        covered += result.qos.low <= truth <= result.qos.high
        errors.append(result.qos.estimate - truth)
        widths.append(result.qos.high - result.qos.low)
        assert result.bounds[0] <= min(truth, result.qos.estimate)
        assert max(truth, result.qos.estimate) <= result.bounds[1]
    assert covered >= 184 and abs(np.mean(errors)) < 0.01 and np.mean(widths) < 0.2


def test_what_was_played_comes_to_what_is_on_record() -> None:
    log = World(1).log()
    result = judged(log, log.had[:, 0], 4)
    assert result.qos.estimate == result.logged == log.met.mean()
    assert result.bounds == (result.logged, result.logged) == result.ends
    assert result.decided == result.inside == 1.0 and not result.refused


def test_all_that_there_is_keeps_what_was_met_and_no_less_misses_what_was_missed() -> None:
    world = World(2)
    log = world.log()
    more, less = judged(log, np.full(len(log), 90.0), 4), judged(log, np.full(len(log), 10.0), 4)
    assert more.bounds[0] == log.met.mean() <= more.qos.estimate <= more.bounds[1]
    assert less.bounds[0] <= less.qos.estimate <= less.bounds[1] == log.met.mean()


@pytest.mark.parametrize(("ul", "way"), [(10.0, "less"), (90.0, "more")])
def test_a_run_without_the_other_actions_cannot_tell(ul: float, way: str) -> None:
    world = World(3)
    result = judged(world.log(np.full(150, 100.0 - ul)), np.full(150, ul), 4)
    truth = world.met(np.full(150, ul)).mean()
    if way == "less":
        assert "would have less UL PRB for its traffic than this run tells of" in result.refused
    assert result.qos.low <= truth <= result.qos.high
    assert result.ends[1] - result.ends[0] > 0.1 or not result.refused


def test_nothing_is_interpolated_over_a_hole() -> None:
    world = World(4)
    world.demand[:] = 20.0
    log = world.log(np.where(np.arange(150) % 2, 10.0, 90.0))
    result = judged(log, np.full(150, 30.0), 4)
    assert "known to" in result.refused and result.inside < 0.9


@pytest.mark.parametrize("marked", [True, False])
def test_outages_that_no_resource_prevents(marked: bool) -> None:
    """Logged with little where the channel failed: without the mark the failures look like want of PRB."""
    world = World(5, 400)
    failed = np.random.default_rng(5).random(400) < 0.15
    world.luck[failed] += 3.0
    ul = np.where(failed, 30.0, 70.0)
    log = world.log(ul)
    log = replace(log, cost=np.where(failed & marked, 3.0, 1.0)[:, None].repeat(3, axis=1))
    assert (log.disturbed.all(axis=1) == failed).all() == marked
    error = judged(log, np.full(400, 70.0), 4).qos.estimate - world.met(np.full(400, 70.0)).mean()
    assert (abs(error) < 0.02) if marked else (error > 0.05)


def test_what_a_missed_slot_leaves_behind_is_carried_on() -> None:
    rng = np.random.default_rng(6)
    n, budget = 400, np.tile((40.0, 20.0, 60.0, 100.0), (400, 1))
    luck = rng.normal(0.0, 0.3, n)

    def run(ul: Floats) -> tuple[Floats, Floats]:
        delays, met, before = np.empty((n, 3)), np.empty(n), False
        for t in range(n):
            delays[t] = (np.exp(5.0 - 0.6 * np.log2(ul[t] / 10) + luck[t] + 0.8 * before), 10.0, 20.0)
            met[t] = delays[t].sum() <= budget[t, 3]
            before = not met[t]
        return delays, met

    actions = ACTIONS[rng.integers(0, 5, n)]
    delays, met = run(actions)
    had = np.stack((actions, np.full(n, 1600.0), np.full(n, 100.0)), axis=1)
    demand = np.tile((10.0, 1.0, 5.0), (n, 1))
    log = Log(had, demand, np.ones((n, 3)), delays[:, None, :], np.ones((n, 1), np.bool_), budget, met)
    models, before, came = Models(log), False, []
    for t in range(n):
        o = models.outcomes(np.array([t]), np.array([[70.0, 1600.0, 100.0]]), np.array([before]))
        came.append(bool(o.met[0]))
        before = not came[-1]
    truth = run(np.full(n, 70.0))[1].mean()
    assert abs(np.mean(came) - truth) < 0.04 and abs(met.mean() - truth) > 0.1


def test_refusals() -> None:
    log = World(7).log()
    check(log)
    few = World(7, 60).log()
    with pytest.raises(Unanswerable, match="60 busy control slots on record, at least 100"):
        check(few)
    blind = log.delay_ms.copy()
    blind[:30, :, 2] = np.nan
    with pytest.raises(Unanswerable, match=r"delay of hop dl is not known in [12]\d% of"):
        check(replace(log, delay_ms=blind))
    had = log.had.copy()
    had[:30, 1] = np.nan
    with pytest.raises(Unanswerable, match=r"what hop edge had .GPU MHz. is not known in 20%"):
        check(replace(log, had=had))
    had[:, 1] = np.nan  # no edge agent: nobody acts on it
    check(replace(log, had=had))
    with pytest.raises(Unanswerable, match="promise was kept is not known in 100%"):
        check(replace(log, met=np.full(len(log), np.nan)))


def test_quantiles_fall_with_the_ratio_and_a_delay_comes_back_at_its_own() -> None:
    rng = np.random.default_rng(8)
    ratio = rng.normal(2.0, 1.0, 400)
    delay = np.exp(4.0 - ratio + rng.normal(0.0, 0.5, 400))
    model = DelayModel.fit(ratio, delay)
    assert (np.diff(model.table, axis=0) <= 1e-9).all() and (np.diff(model.table, axis=1) >= -1e-9).all()
    inside = (ratio > 0.5) & (ratio < 3.5)
    low, back, high, beyond = model.reach(ratio[inside], model.rank(ratio[inside], delay[inside]))
    close = np.abs(np.log(back / delay[inside])) < 0.05
    assert close.mean() > 0.9 and (low == high).all() and not beyond.any()
    *_, beyond = model.reach(np.array([-9.0, 9.0]), np.array([0.5, 0.5]))
    assert beyond.tolist() == [-1, 1]


def test_antitonic_is_pooling_adjacent_violators() -> None:
    rng = np.random.default_rng(9)
    values, weight = rng.normal(size=(30, 4)), rng.integers(1, 5, 30).astype(float)
    for column, got in zip(values.T, antitonic(values, weight).T, strict=True):
        blocks: list[list[float]] = []
        for value, w in zip(column, weight, strict=True):
            blocks.append([value, w, 1])
            while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
                (a, u, i), (b, v, j) = blocks[-2:]
                blocks[-2:] = [[(a * u + b * v) / (u + v), u + v, i + j]]
        assert got == pytest.approx(np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks]))
