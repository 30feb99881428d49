"""The softmax network: it learns, it is the same under its seed, and it says what it cannot be trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.twins.softmax import SoftmaxNetwork, Training, softmax

RNG = np.random.default_rng(3)
SHORT = Training(hidden=8, steps=60, batch=64)


def quadrants(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points, whose bin is their quadrant: no line parts these (XOR is one of the pairs)."""
    x = np.random.default_rng(seed).normal((5.0, 1000.0), (3.0, 40.0), (n, 2))
    return x, (x[:, 0] > 5.0).astype(np.int64) + 2 * (x[:, 1] > 1000.0)


def test_probabilities_of_logits() -> None:
    p = softmax(np.array([[0.0, np.log(3.0)], [1e4, -1e4], [-1e4, -1e4]]))
    assert p == pytest.approx(np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]))


def test_it_learns_a_simple_map() -> None:
    network = SoftmaxNetwork.fit(*quadrants(1500), bins=4)
    x, y = quadrants(500, seed=1)
    p = network.predict(x)
    assert (p.argmax(axis=1) == y).mean() > 0.95
    assert -np.log(p[np.arange(len(y)), y]).mean() < 0.3 < np.log(4)
    # And one that no line parts.
    crossed = np.isin(y, (1, 2)).astype(np.int64)
    assert (SoftmaxNetwork.fit(x, crossed, bins=2).predict(x).argmax(axis=1) == crossed).mean() > 0.95


def test_it_gives_the_probability_of_what_is_drawn() -> None:
    x = RNG.uniform(-1.0, 1.0, (6000, 1))
    truth = 1.0 / (1.0 + np.exp(-3.0 * x[:, 0]))
    network = SoftmaxNetwork.fit(x, (RNG.random(6000) < truth).astype(np.int64), bins=2)
    assert np.abs(network.predict(x)[:, 1] - truth).mean() < 0.04


def test_probabilities_sum_to_1_also_far_from_all_that_was_seen() -> None:
    network = SoftmaxNetwork.fit(*quadrants(300), bins=6, training=SHORT)
    for x in (np.zeros((2, 3, 2)), np.full((1, 2), 1e12), np.array([-1e300, 1e300])):
        p = network.predict(x)
        assert p.shape == (*x.shape[:-1], 6) and (p >= 0.0).all()
        assert p.sum(axis=-1) == pytest.approx(1.0)
    # A bin that never came is not impossible.
    assert (network.predict(quadrants(50)[0])[:, 4:] > 0.0).all()


def test_it_is_the_same_under_its_seed_and_another_under_another() -> None:
    x, y = quadrants(200)
    a, b, c = (SoftmaxNetwork.fit(x, y, 4, seed, SHORT).arrays() for seed in (5, 5, 6))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["w1"], c["w1"])


def test_rows_that_are_all_alike_give_the_share_of_each_bin() -> None:
    network = SoftmaxNetwork.fit(np.ones((90, 3)), np.repeat([0, 1, 1], 30), 2)
    assert network.predict(np.ones(3)) == pytest.approx([1 / 3, 2 / 3], abs=0.02)
    (p,) = SoftmaxNetwork.fit(np.ones((1, 2)), np.array([1]), 2, training=SHORT).predict(np.ones((1, 2)))
    assert p[1] > 0.5


def test_arrays_there_and_back() -> None:
    network = SoftmaxNetwork.fit(*quadrants(300), bins=4, training=SHORT)
    arrays = network.arrays()
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}
    restored = SoftmaxNetwork.of_arrays(arrays)
    assert (restored.features, restored.bins) == (network.features, network.bins) == (2, 4)
    x = quadrants(100, seed=2)[0]
    assert np.abs(restored.predict(x) - network.predict(x)).max() < 1e-3
    assert all(np.array_equal(a, arrays[name]) for name, a in restored.arrays().items())


def test_weights_that_are_none() -> None:
    arrays = SoftmaxNetwork.fit(*quadrants(50), bins=4, training=SHORT).arrays()
    with pytest.raises(KeyError, match="w2"):
        SoftmaxNetwork.of_arrays({n: a for n, a in arrays.items() if n != "w2"})
    for name, wrong in (
        ("w1", arrays["w1"][:, :-1]),
        ("w1", arrays["w1"].ravel()),
        ("b2", np.append(arrays["b2"], 0.0)),
        ("b1", arrays["b1"][:-1]),
        ("mean", arrays["mean"][0]),
        ("mean", arrays["mean"][:1]),
        ("w2", np.full_like(arrays["w2"], np.nan)),
        ("scale", np.full_like(arrays["scale"], np.inf)),
        ("scale", np.zeros_like(arrays["scale"])),
    ):
        with pytest.raises(ValueError, match="softmax network"):
            SoftmaxNetwork.of_arrays({**arrays, name: np.asarray(wrong)})


@pytest.mark.parametrize(
    ("x", "bins_of", "named"),
    [
        (np.empty((0, 2)), [], "nothing to train on"),
        (np.ones(3), [0, 0, 0], "nothing to train on"),
        (np.ones((3, 2)), [0, 1], "nothing to train on"),
        (np.array([[1.0, np.nan]]), [0], "not finite"),
        (np.array([[1.0, np.inf]]), [0], "not finite"),
        (np.ones((2, 2)), [0, 3], r"bins 0\.\.3 are outside 0\.\.2"),
        (np.ones((2, 2)), [-1, 0], r"bins -1\.\.0 are outside 0\.\.2"),
    ],
)
def test_what_it_cannot_be_trained_on(x: np.ndarray, bins_of: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SoftmaxNetwork.fit(x, np.array(bins_of, np.int64), 3)


def test_the_number_of_steps_and_not_of_rows_says_how_long_it_takes() -> None:
    """A batch is never larger than the rows, and all of them are used."""
    x, y = quadrants(70)
    for batch in (1, 69, 70, 1000):
        network = SoftmaxNetwork.fit(x, y, 4, training=replace(SHORT, batch=batch, steps=400))
        assert (network.predict(x).argmax(axis=1) == y).mean() > 0.5
