"""The Markov chain: counts over gaps, shrinkage, futures that agree with predictions, and its state."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controller.twins.markov import MarkovChain

TRUTH = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])


def sequence(seed: int, steps: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = [0]
    for _ in range(steps - 1):
        out.append(int(rng.choice(3, p=TRUTH[out[-1]])))
    return np.array(out)


def test_it_finds_the_transitions_of_what_it_saw() -> None:
    chain = MarkovChain.fit([sequence(0, 4000), sequence(1, 4000)], 3)
    assert np.abs(chain.transitions - TRUTH).max() < 0.03
    assert chain.transitions.sum(axis=1) == pytest.approx(np.ones(3))


def test_no_transition_counts_over_a_gap_nor_from_one_sequence_to_the_next() -> None:
    chain = MarkovChain.fit([[0, 1, -1, 1, 1, -1, -1, 0], [1], [], [-1]], 2)
    assert chain.counts.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert chain.updated([0, 1, 0]).counts.tolist() == [[0.0, 2.0], [1.0, 1.0]]
    assert chain.counts.sum() == 2.0


def test_a_prior_counts_for_its_weight() -> None:
    everybody = MarkovChain.fit([sequence(0, 4000)], 3)
    new = MarkovChain.fit([], 3, everybody)
    assert new.transitions == pytest.approx(everybody.transitions)
    chain = MarkovChain.fit([[0, 1] + [-1, 0, 1] * 3], 3, everybody, weight=4.0)
    expected = (np.array([0.0, 4.0, 0.0]) + 4.0 * everybody.transitions[0]) / 8.0
    assert chain.transitions[0] == pytest.approx(expected)
    assert MarkovChain.fit([], 3).transitions == pytest.approx(np.full((3, 3), 1 / 3))


def test_shrinkage_is_worth_it_where_a_user_has_been_seen_little() -> None:
    everybody = MarkovChain.fit([sequence(seed, 200) for seed in range(10)], 3)
    ahead = [sequence(100 + seed, 400) for seed in range(10)]
    own = [MarkovChain.fit([s[:20]], 3) for s in ahead]
    shrunk = [MarkovChain.fit([s[:20]], 3, everybody, 20.0) for s in ahead]
    gain = [b.log_score(s[20:]) - a.log_score(s[20:]) for a, b, s in zip(own, shrunk, ahead, strict=True)]
    assert np.mean(gain) > 0.02


def test_futures_are_as_predicted() -> None:
    chain = MarkovChain.fit([sequence(0, 3000)], 3)
    futures = chain.simulate(np.random.default_rng(1), 2, 6, 20000)
    assert futures.shape == (20000, 6) and futures.dtype == np.int64
    share = np.stack([(futures == s).mean(axis=0) for s in range(3)], axis=1)
    assert share == pytest.approx(chain.predict(2, 6), abs=0.015)
    assert chain.predict(2, 1)[0] == pytest.approx(chain.transitions[2])
    assert np.array_equal(futures, chain.simulate(np.random.default_rng(1), 2, 6, 20000))


def test_log_score_is_that_of_the_steps_that_are_there() -> None:
    chain = MarkovChain.fit([sequence(0, 3000)], 3)
    p = chain.transitions
    scores = chain.scores([0, 1, -1, 2, 0])
    assert np.isnan(scores[1:3]).all()
    assert scores[[0, 3]] == pytest.approx(np.log([p[0, 1], p[2, 0]]))
    assert chain.log_score([0, 1, -1, 2, 0]) == pytest.approx(np.log([p[0, 1], p[2, 0]]).mean())
    assert np.isnan(chain.log_score([0, -1, 0]))
    # No chain scores better than the true one by much, and a uniform one scores worse.
    long = sequence(5, 4000)
    entropy = np.log(TRUTH)[long[:-1], long[1:]].mean()
    assert -np.log(3) < chain.log_score(long) < entropy + 0.01


def test_state_there_and_back() -> None:
    chain = MarkovChain.fit([sequence(0, 300)], 3, MarkovChain.fit([sequence(1, 300)], 3))
    restored = MarkovChain.from_state(json.loads(json.dumps(chain.to_state())))
    assert np.array_equal(restored.counts, chain.counts) and np.array_equal(restored.prior, chain.prior)


@pytest.mark.parametrize(
    ("counts", "prior", "named"),
    [
        ([[1.0, 2.0]], [[1.0, 1.0]], r"\[S, S\]"),
        ([], [], r"\[S, S\]"),
        ([[1.0]], [[1.0, 1.0]], "do not fit"),
        ([[float("nan")]], [[1.0]], "do not fit"),
        ([[-1.0]], [[1.0]], "below 0"),
        ([[1.0]], [[0.0]], "above 0"),
    ],
)
def test_states_that_are_none(counts: object, prior: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MarkovChain.from_state({"counts": counts, "prior": prior})


def test_what_it_cannot_be_fitted_to() -> None:
    for bad, named in (
        ([0, 3], r"0\.\.3 are outside -1\.\.2"),
        ([-2, 0], r"-2\.\.0 are outside -1\.\.2"),
        ([0.5, 1.0], "whole numbers"),
        ([[0, 1]], "whole numbers"),
    ):
        with pytest.raises(ValueError, match=named):
            MarkovChain.fit([bad], 3)
    with pytest.raises(ValueError, match="prior weight"):
        MarkovChain.fit([], 3, weight=0.0)
    with pytest.raises(ValueError, match="2 states for a Markov chain of 3"):
        MarkovChain.fit([], 3, MarkovChain.fit([], 2))
    with pytest.raises(ValueError, match=r"state 3 is outside 0\.\.2"):
        MarkovChain.fit([], 3).predict(3, 1)
    with pytest.raises(ValueError, match=r"state -1 is outside 0\.\.2"):
        MarkovChain.fit([], 3).simulate(np.random.default_rng(0), -1, 1, 1)
