"""The least rate that keeps an agreement: against every option, and against what viewers then score."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from controller.allocators.video.demand import RATING_S, Demand, Futures, demand, expected
from controller.allocators.video.opinion import OpinionModel, Structure
from controller.allocators.video.playback import shown_share
from controller.allocators.video.users import ENOUGH, OPTION_BITRATES, OPTION_KBPS, Users
from tests.allocators.video.people import users
from wire.definitions import mos
from wire.definitions.viewing import MAX_PREFETCH, Viewer

WINDOW_S = 180.0
USERS = 12


def future(count: int, seed: int = 0) -> Futures:
    rng = np.random.default_rng(seed)
    shape = (count, 16, 4)
    swipes = rng.uniform(1.0, 12.0, (count, 1, 1)) * rng.uniform(0.8, 1.2, shape)
    return Futures(
        np.asarray(mos.behaviour(swipes)),
        rng.uniform(1.0, 2.0, shape),
        swipes,
        rng.uniform(1e-3, 4e-3, shape),
    )


def easy(count: int, ela: float = 2.5) -> Users:
    people = users(count, 3)
    return replace(people, ela=np.full(count, ela))


def kept(people: Users, ahead: Futures, k: int, prefetch: int, user: int) -> float:
    """Probability that an option keeps a user's agreement, one number after another."""
    model = people.models[user]
    scores = max(WINDOW_S / RATING_S, 1.0)
    parameters = 1 + len(model.slopes) + len(model.structure.context)
    sd = (model.deviation**2 * (1.0 / scores + parameters / max(model.rows, 1)) + 1e-4) ** 0.5
    found = []
    for future_ in range(ahead.behaviour.shape[1]):
        means = []
        for step in range(ahead.behaviour.shape[2]):
            at = user, future_, step
            ratio = OPTION_KBPS[k] / OPTION_BITRATES[k]
            shown = float(shown_share(ratio, ahead.swipes_per_min[at], prefetch, people.segment_s))
            factors = {
                "stalled": 60.0 * (1.0 - shown),
                "quality": float(mos.quality(OPTION_BITRATES[k])) * shown,
                "delay": people.segment_s / ratio,
                "throughput": OPTION_KBPS[k] / 1e3,
                "jitter": people.jitter[user],
                "loss": people.loss[user],
                "behaviour": ahead.behaviour[at],
                "environment": ahead.environment[at],
            }
            means.append(float(model.predict(factors)))
        found.append(NormalDist().cdf((np.mean(means) - people.ela[user]) / sd))
    return float(np.mean(found))


@pytest.mark.parametrize("user", [0, 1, 2])
def test_the_least_is_that_of_every_option(user: int) -> None:
    people, ahead = easy(3), future(3)
    models = tuple(replace(m, rows=120) for m in people.models)
    people = replace(people, models=models)
    wanted = demand(people, ahead, WINDOW_S, 0.8, 180.0)
    first = next(k for k in range(len(OPTION_KBPS)) if kept(people, ahead, k, MAX_PREFETCH, user) >= 0.8)
    assert wanted.feasible[user]
    assert (wanted.kbps[user], wanted.bitrate_kbps[user]) == (OPTION_KBPS[first], OPTION_BITRATES[first])
    prefetch = int(wanted.prefetch[user])
    assert kept(people, ahead, first, prefetch, user) >= 0.8
    assert wanted.probability[user] == pytest.approx(kept(people, ahead, first, MAX_PREFETCH, user), abs=1e-6)
    assert wanted.prb[user] == pytest.approx(wanted.kbps[user] * ahead.prb_per_kbps[user].mean(axis=1))
    assert wanted.mcycles[user] == pytest.approx(0.18 * wanted.kbps[user])


def test_more_reliability_takes_no_less() -> None:
    people, ahead = easy(USERS, 3.2), future(USERS)
    before = np.zeros(USERS)
    for reliability in (0.3, 0.6, 0.8, 0.95):
        wanted = demand(people, ahead, WINDOW_S, reliability, 180.0)
        assert (wanted.kbps[wanted.feasible] >= before[wanted.feasible]).all()
        before = np.where(wanted.feasible, wanted.kbps, before)


def test_a_model_of_more_scores_needs_no_more() -> None:
    people, ahead = easy(USERS, 3.0), future(USERS)

    def of(rows: int) -> Demand:
        models = tuple(replace(m, rows=rows) for m in people.models)
        return demand(replace(people, models=models), ahead, WINDOW_S, 0.9, 1.0)

    few, many = of(24), of(240)
    both = few.feasible & many.feasible
    assert both.any() and (many.kbps[both] <= few.kbps[both]).all() and (many.feasible >= few.feasible).all()


def test_an_agreement_that_nothing_keeps_gets_what_is_nearest_at_the_least_rate() -> None:
    people, ahead = easy(USERS, 5.0), future(USERS)
    wanted = demand(people, ahead, WINDOW_S, 0.9, 180.0)
    assert not wanted.feasible.any() and (wanted.probability < 0.9).all()
    mean = expected(people, ahead, OPTION_KBPS, OPTION_BITRATES, MAX_PREFETCH).mean(axis=1)
    for user in range(USERS):
        k = np.flatnonzero(
            (wanted.kbps[user] == OPTION_KBPS) & (wanted.bitrate_kbps[user] == OPTION_BITRATES)
        )
        assert mean[user, k[0]] >= mean[user].max() - 0.1
        # Less than all there is, where more brings nothing.
        assert wanted.kbps[user] <= OPTION_KBPS[mean[user] >= mean[user].max() - ENOUGH / 10].min()


def test_probabilities_are_those_of_viewers_whose_models_are_right() -> None:
    """Windows of scores that viewers drew under what was asked for keep the agreement as often as said."""
    count, windows = 40, 60
    rng = np.random.default_rng(5)
    kinds = (
        ("stalls", ("stalled",), 5.0),
        ("quality", ("quality",), 1.0),
        ("combined", ("stalled", "quality"), 1.0),
    )
    slopes = {"stalled": -mos.STALL_WEIGHT, "quality": 4.0}
    viewers, models = [], []
    for i in range(count):
        principle, qos, intercept = kinds[i % 3]
        viewers.append(Viewer(float(rng.uniform(2.5, 3.8)), principle, "exponential", (0.05, 0.1)))
        structure = Structure(qos, ("behaviour", "environment"), "exponential")
        weights = tuple(slopes[n] for n in qos)
        models.append(
            OpinionModel(structure, intercept, weights, (0.05, 0.1), mos.DEVIATIONS[principle], 10**6)
        )
    people = replace(
        users(count, 1),
        models=tuple(models),
        ela=np.array([v.ela for v in viewers]),
        cell=np.zeros(count, int),
    )
    ahead = future(count, 9)
    wanted = demand(people, ahead, WINDOW_S, 0.8, 180.0)
    scores, said = 0.0, 0.0
    for i, viewer in enumerate(viewers):
        ratio = wanted.kbps[i] / wanted.bitrate_kbps[i]
        for _ in range(windows):
            f = int(rng.integers(ahead.behaviour.shape[1]))
            steps = rng.integers(0, ahead.behaviour.shape[2], round(WINDOW_S / RATING_S))
            shown = shown_share(ratio, ahead.swipes_per_min[i, f, steps], MAX_PREFETCH)
            quality = float(mos.quality(wanted.bitrate_kbps[i])) * shown
            given = [
                viewer.score(60.0 * (1.0 - s), q, b, c, u)
                for s, q, b, c, u in zip(
                    shown, quality, ahead.behaviour[i, f, steps], ahead.environment[i, f, steps],
                    rng.uniform(size=len(steps)), strict=True,
                )
            ]  # fmt: skip
            scores += float(np.mean(given)) >= viewer.ela
            said += float(wanted.probability[i])
    total = count * windows
    assert scores / total == pytest.approx(said / total, abs=0.04)
    assert wanted.feasible.mean() > 0.5


def test_users_in_chunks_are_as_users_alone() -> None:
    people, ahead = easy(70, 3.2), future(70)
    together = demand(people, ahead, WINDOW_S, 0.8, 180.0)
    rows = np.array([3, 66])
    part = Futures(*(getattr(ahead, n)[rows] for n in Futures.__slots__))
    alone = demand(people.take(rows), part, WINDOW_S, 0.8, 180.0)
    for name in Demand.__slots__:
        assert getattr(together, name)[rows] == pytest.approx(getattr(alone, name)), name


@pytest.mark.parametrize("reliability", [0.0, 1.0, float("nan")])
def test_what_cannot_be_is_refused(reliability: float) -> None:
    with pytest.raises(ValueError, match="reliability"):
        demand(easy(2), future(2), WINDOW_S, reliability, 180.0)
    with pytest.raises(ValueError, match="futures of 3 users for 2"):
        demand(easy(2), future(3), WINDOW_S, 0.8, 180.0)
    with pytest.raises(ValueError, match="environment of shape"):
        replace(future(2), environment=np.full((2, 16, 4), np.nan))
