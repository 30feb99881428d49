"""The recurrent network: its gradient, what it can know that a chain cannot, futures, gaps and bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.twins.markov import MarkovChain
from controller.twins.recurrent import RecurrentNetwork, Training, better, loss

SHORT = Training(hidden=6, length=12, steps=60, batch=16)


def dwelling(seed: int, users: int = 12, steps: int = 200) -> np.ndarray:
    """Two states, each held for exactly four steps: when it changes, only the history tells."""
    rng = np.random.default_rng(seed)
    return (np.arange(steps) + rng.integers(0, 8, users)[:, None]) // 4 % 2


def coin(seed: int, users: int = 12, steps: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (users, steps))


def test_its_gradient_is_that_of_its_loss() -> None:
    rng = np.random.default_rng(0)
    inputs, hidden, states = 5, 4, 3
    shapes = ((inputs, hidden), (hidden,), (hidden, hidden), (hidden, states), (states,))
    w = [rng.normal(0.0, 0.7, shape) for shape in shapes]
    x, target = rng.standard_normal((6, 7, inputs)), rng.integers(-1, states, (6, 7))
    _, gradients = loss(w, x, target)
    for a, gradient in zip(w, gradients, strict=True):
        assert gradient.shape == a.shape
        for place in np.ndindex(a.shape):
            kept, values = a[place], []
            for nudge in (1e-5, -1e-5):
                a[place] = kept + nudge
                values.append(loss(w, x, target)[0])
            a[place] = kept
            assert gradient[place] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_it_knows_how_long_a_user_has_been_in_a_state() -> None:
    network = RecurrentNetwork.fit(dwelling(0), 2)
    scores = [network.scores(s)[20:].mean() for s in dwelling(1)]
    assert np.mean(scores) > -0.05
    # A chain gives each change a chance of one in four.
    assert MarkovChain.fit(dwelling(0), 2).log_score(dwelling(1)[0]) < -0.5


def test_the_better_of_both_is_that_which_scores_better_and_a_tie_goes_to_the_chain() -> None:
    for sequences, network_wins in ((dwelling(0), True), (coin(0), False)):
        train = sequences[:, :150]
        everybody = MarkovChain.fit(train, 2)
        chains = [MarkovChain.fit([s], 2, everybody) for s in train]
        network = RecurrentNetwork.fit(train, 2)
        comparison = better(chains, network, sequences, 150)
        assert comparison.network == network_wins
        assert comparison.steps == 12 * 50 and 0.0 < comparison.error < 0.05
        pairs = zip(chains, sequences, strict=True)
        ahead = [network.scores(s)[149:].mean() - c.scores(s)[149:].mean() for c, s in pairs]
        assert comparison.gain == pytest.approx(np.mean(ahead))
    alone = better(chains[:1], network, sequences[:1], 195)
    assert alone.error == np.inf and not alone.network
    assert better([], network, [], 0).steps == 0


def test_futures_follow_the_history() -> None:
    network = RecurrentNetwork.fit(dwelling(0), 2)
    hidden = np.stack([network.hidden(s[:101]) for s in dwelling(1)])
    futures = network.simulate(np.random.default_rng(0), hidden, 10, 50)
    assert futures.shape == (12, 50, 10) and futures.dtype == np.int64
    assert (futures == dwelling(1)[:, None, 101:111]).mean() > 0.93
    assert np.array_equal(futures, network.simulate(np.random.default_rng(0), hidden, 10, 50))
    only = network.simulate(np.random.default_rng(0), hidden[0], 10, 50)
    assert only.shape == (50, 10)


def test_its_first_step_is_drawn_from_what_it_predicts() -> None:
    network = RecurrentNetwork.fit(np.random.default_rng(0).integers(0, 3, (4, 50)), 3, training=SHORT)
    hidden = network.hidden([0, 1, 1, 2])
    first = network.simulate(np.random.default_rng(1), hidden, 1, 20000)[:, 0]
    assert np.bincount(first) / 20000 == pytest.approx(network.predict(hidden), abs=0.015)


def test_a_history_is_its_steps_and_a_gap_one_in_which_nothing_is_seen() -> None:
    network = RecurrentNetwork.fit(dwelling(0), 2, training=SHORT)
    hidden = np.zeros(network.size)
    for state in (0, 1, -1, 0):
        hidden = network.advance(hidden, state)
    assert network.hidden([0, 1, -1, 0]) == pytest.approx(hidden)
    assert network.hidden([]) == pytest.approx(np.zeros(6))
    assert network.advance(np.zeros((3, 6)), np.array([0, 1, -1])).shape == (3, 6)
    scores = network.scores([0, 1, -1, 0, 1])
    assert np.isnan(scores).tolist() == [False, True, True, False]
    assert network.log_score([0, 1, -1, 0, 1]) == pytest.approx(scores[[0, 3]].mean())
    assert np.isnan(network.log_score([0])) and np.isnan(network.log_score([0, -1, 1]))


def test_features_tell_what_the_states_do_not() -> None:
    """The feature of a step is 100 where the next state will be 1, and 90 where not."""
    states = coin(0, steps=101)
    features = np.where(states[:, 1:, None] == 1, 100.0, 90.0)
    network = RecurrentNetwork.fit(states[:, :-1], 2, list(features))
    assert network.features == 1
    assert network.log_score(states[0, :-1], features[0]) > -0.05
    hidden = network.hidden(states[0, :-1], features[0])
    ahead = network.simulate(
        np.random.default_rng(0), np.stack([hidden] * 2), 5, 40, np.array([[90.0], [100.0]])
    )
    assert ahead[0, :, 1:].mean() < 0.05 and ahead[1, :, 1:].mean() > 0.95
    with pytest.raises(ValueError, match=r"features None for a recurrent network of 1"):
        network.hidden([0, 1])
    with pytest.raises(ValueError, match=r"features \(2, 3\) for a recurrent network of 1"):
        network.hidden([0, 1], np.zeros((2, 3)))


def test_it_is_the_same_under_its_seed_and_another_under_another() -> None:
    a, b, c = (RecurrentNetwork.fit(coin(0), 2, seed=s, training=SHORT).arrays() for s in (5, 5, 6))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["w1"], c["w1"])


def test_sequences_of_any_length_and_a_state_that_never_came() -> None:
    network = RecurrentNetwork.fit([[0, 1], [], [1], [0, -1, 0, 0, 1, 0]], 4, training=SHORT)
    p = network.predict(network.hidden([0, 1]))
    assert p.sum() == pytest.approx(1.0) and (p > 0.0).all()
    decayed = RecurrentNetwork.fit(coin(0), 2, training=replace(SHORT, decay=0.1))
    assert np.isfinite(decayed.log_score(coin(1)[0]))


def test_arrays_there_and_back() -> None:
    network = RecurrentNetwork.fit(dwelling(0), 2, training=SHORT)
    arrays = network.arrays()
    restored = RecurrentNetwork.of_arrays(arrays)
    assert (restored.states, restored.features, restored.size) == (2, 0, 6)
    assert restored.scores(dwelling(1)[0]) == pytest.approx(network.scores(dwelling(1)[0]), abs=1e-4)
    with pytest.raises(KeyError, match="u"):
        RecurrentNetwork.of_arrays({n: a for n, a in arrays.items() if n != "u"})
    for name, wrong in (
        ("u", arrays["u"][:, :-1]),
        ("w1", arrays["w1"].ravel()),
        ("b2", arrays["b2"][:-1]),
        ("mean", np.zeros(1)),
        ("w2", np.full_like(arrays["w2"], np.nan)),
    ):
        with pytest.raises(ValueError, match="recurrent network"):
            RecurrentNetwork.of_arrays({**arrays, name: np.asarray(wrong)})


@pytest.mark.parametrize(
    ("sequences", "features", "named"),
    [
        ([], None, "nothing to train on"),
        ([[], [1], [0, -1, 1]], None, "nothing to train on"),
        ([[0, 2]], None, r"0\.\.2 are outside -1\.\.1"),
        ([[0, 1]], [np.zeros((3, 1))], "do not fit"),
        ([[0, 1]], [], "do not fit"),
        ([[0, 1], [0, 1]], [np.zeros((2, 1)), np.zeros((2, 2))], "do not fit"),
        ([[0, 1]], [np.array([[0.0], [np.nan]])], "not finite"),
        ([[0, 1]], [np.zeros(2)], r"not \[steps, F\]"),
    ],
)
def test_what_it_cannot_be_trained_on(sequences: list, features: list | None, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RecurrentNetwork.fit(sequences, 2, features)
