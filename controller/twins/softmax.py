"""A softmax network: the probability of each bin of a user's experience, given what is seen of the user.

One hidden layer (tanh), cross-entropy, Adam on minibatches with a rate that falls to nothing, weight decay.
Deterministic in (rows, seed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BETA = (0.9, 0.999)
_NAMES: Final = ("mean", "scale", "w1", "b1", "w2", "b2")


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities [..., bins] of logits [..., bins]."""
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is trained. ``steps`` of Adam on ``batch`` rows each, whatever the number of rows."""

    hidden: int = 32
    steps: int = 800
    batch: int = 512
    rate: float = 3e-3
    decay: float = 1e-3


DEFAULT_TRAINING: Final = Training()


@dataclass(frozen=True, slots=True)
class SoftmaxNetwork:
    """Weights: inputs are standardised by ``mean`` and ``scale`` [features]; ``w1`` [features, hidden],
    ``b1`` [hidden], ``w2`` [hidden, bins], ``b2`` [bins]."""

    mean: FloatArray
    scale: FloatArray
    w1: FloatArray
    b1: FloatArray
    w2: FloatArray
    b2: FloatArray

    @property
    def bins(self) -> int:
        return len(self.b2)

    @property
    def features(self) -> int:
        return len(self.mean)

    def logits(self, x: FloatArray) -> FloatArray:
        """float64 [..., bins] for rows [..., features]."""
        return np.tanh((x - self.mean) / self.scale @ self.w1 + self.b1) @ self.w2 + self.b2

    def predict(self, x: FloatArray) -> FloatArray:
        """Probability of each bin, float64 [..., bins], for rows [..., features]; rows sum to 1."""
        return softmax(self.logits(x))

    @classmethod
    def fit(
        cls,
        x: FloatArray,
        bins_of: IntArray,
        bins: int,
        seed: int = 0,
        training: Training = DEFAULT_TRAINING,
    ) -> SoftmaxNetwork:
        """Trains on rows ``x`` [n, features], whose experience was in ``bins_of`` [n] of 0..``bins`` - 1.

        ValueError where there are no rows, where they are not finite or where a bin is none of these.
        """
        if x.ndim != 2 or not len(x) or len(x) != len(bins_of):
            raise ValueError(f"rows {x.shape} and {np.shape(bins_of)} bins: nothing to train on")
        if not np.isfinite(x).all():
            raise ValueError("rows that are not finite")
        if bins_of.min() < 0 or bins_of.max() >= bins:
            raise ValueError(f"bins {bins_of.min()}..{bins_of.max()} are outside 0..{bins - 1}")
        rng = np.random.default_rng(seed)
        mean = x.mean(axis=0)
        spread = x.std(axis=0)
        scale = np.where(spread > 1e-9, spread, 1.0)
        z = (x - mean) / scale
        n, features = z.shape
        hidden = training.hidden
        # It begins at the share of each bin, whatever the input.
        share = (np.bincount(bins_of, minlength=bins) + 1.0) / (n + bins)
        w = [
            rng.standard_normal((features, hidden)) / np.sqrt(features),
            np.zeros(hidden),
            rng.standard_normal((hidden, bins)) * (0.1 / np.sqrt(hidden)),
            np.log(share),
        ]
        first = [np.zeros_like(a) for a in w]
        second = [np.zeros_like(a) for a in w]
        target = np.eye(bins)[bins_of]
        for step, rows in enumerate(_minibatches(rng, n, training), start=1):
            inputs = z[rows]
            layer = np.tanh(inputs @ w[0] + w[1])
            error = (softmax(layer @ w[2] + w[3]) - target[rows]) / len(rows)
            back = error @ w[2].T * (1.0 - layer * layer)
            gradients = (
                inputs.T @ back + training.decay * w[0],
                back.sum(axis=0),
                layer.T @ error + training.decay * w[2],
                error.sum(axis=0),
            )
            rate = training.rate * min(1.0, 2.0 * (1.0 - step / training.steps) + 0.02)
            for weight, gradient, m, v in zip(w, gradients, first, second, strict=True):
                m += (1.0 - _BETA[0]) * (gradient - m)
                v += (1.0 - _BETA[1]) * (gradient * gradient - v)
                step_of = m / (1.0 - _BETA[0] ** step)
                weight -= rate * step_of / (np.sqrt(v / (1.0 - _BETA[1] ** step)) + 1e-8)
        return cls(mean, scale, *w)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The weights by name, as float32; :meth:`of_arrays` is the inverse."""
        return {name: np.asarray(getattr(self, name), np.float32) for name in _NAMES}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> SoftmaxNetwork:
        """ValueError, KeyError for weights that are none."""
        network = cls(**{name: arrays[name].astype(np.float64) for name in _NAMES})
        features, hidden, bins = network.mean.size, network.b1.size, network.b2.size
        shapes = [(features,), (features,), (features, hidden), (hidden,), (hidden, bins), (bins,)]
        if [getattr(network, name).shape for name in _NAMES] != shapes:
            raise ValueError("a softmax network whose weights do not fit one another")
        if not (network.scale > 0.0).all() or not all(
            np.isfinite(getattr(network, name)).all() for name in _NAMES
        ):
            raise ValueError(
                "a softmax network whose weights are not finite, or not above 0 where they divide"
            )
        return network


def _minibatches(rng: np.random.Generator, n: int, training: Training) -> Iterator[IntArray]:
    """Rows of each step: all in a new order, again and again; fewer rows than a batch are all taken."""
    batch = min(training.batch, n)
    order = rng.permutation(n)
    place = 0
    for _ in range(training.steps):
        if place + batch > n:
            order, place = rng.permutation(n), 0
        yield order[place : place + batch]
        place += batch
