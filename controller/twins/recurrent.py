"""A small recurrent network of users' behaviour: the probability of the next bin, given all that came before.

An Elman network (tanh) and a softmax: on sequences such as an emulated user's it scored as a gated recurrent
unit does, at a third of the time. Its input at a step is the state in which a user is, one-hot (nothing in a
gap), and real features, where there are any. Trained on windows of all users' sequences by truncated
back-propagation through time, with Adam at a rate that falls to nothing. One network serves all users: how
one differs from another it has to tell from the history. Deterministic in (sequences, seed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.twins.markov import GAP, MarkovChain, check_sequence, draw
from controller.twins.softmax import softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BETA = (0.9, 0.999)
_NAMES: Final = ("mean", "scale", "w1", "b1", "u", "w2", "b2")


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is trained. ``steps`` of Adam on ``batch`` windows of ``length`` steps each, whatever the
    number of sequences."""

    hidden: int = 10
    length: int = 40
    steps: int = 300
    batch: int = 32
    rate: float = 1e-2
    decay: float = 1e-4


DEFAULT_TRAINING: Final = Training()


@dataclass(frozen=True, slots=True)
class RecurrentNetwork:
    """Weights: features are standardised by ``mean`` and ``scale`` [F]; ``w1`` [S + F, H] and ``b1`` [H] lead
    from the input to the hidden state, ``u`` [H, H] from the hidden state before it, ``w2`` [H, S] and ``b2``
    [S] to the logits of the next state."""

    mean: FloatArray
    scale: FloatArray
    w1: FloatArray
    b1: FloatArray
    u: FloatArray
    w2: FloatArray
    b2: FloatArray

    @property
    def states(self) -> int:
        return len(self.b2)

    @property
    def features(self) -> int:
        return len(self.mean)

    @property
    def size(self) -> int:
        """H, of the hidden state; that of a user without a history is zeros."""
        return len(self.b1)

    @classmethod
    def fit(
        cls,
        sequences: Sequence[Any],
        states: int,
        features: Sequence[FloatArray] | None = None,
        seed: int = 0,
        training: Training = DEFAULT_TRAINING,
    ) -> RecurrentNetwork:
        """Trains on ``sequences``, int [steps] each of 0..``states`` - 1 or -1 for a gap, and ``features``,
        float64 [steps, F] each.

        ValueError where no state follows any, and for states and features that are none.
        """
        padded, rows = _pad(sequences, states, features)
        mean, scale = _moments(rows, padded)
        inputs = np.concatenate((_one_hot(padded, states), (rows - mean) / scale), axis=-1)
        rng = np.random.default_rng(seed)
        w = _begin(rng, padded, states, rows.shape[-1], training.hidden)
        first = [np.zeros_like(a) for a in w]
        second = [np.zeros_like(a) for a in w]
        lengths = np.array([len(s) for s in sequences])
        length = min(training.length, int(lengths.max()) - 1)
        offsets = np.arange(length + 1)
        starts = np.maximum(lengths - length, 1)
        for step in range(1, training.steps + 1):
            user = rng.choice(len(lengths), training.batch, p=lengths / lengths.sum())
            at = (rng.random(training.batch) * starts[user]).astype(np.int64)[:, None] + offsets
            window = inputs[user[:, None], at[:, :-1]]
            _, gradients = loss(w, window, padded[user[:, None], at[:, 1:]])
            rate = training.rate * min(1.0, 2.0 * (1.0 - step / training.steps) + 0.02)
            for weight, gradient, m, v in zip(w, gradients, first, second, strict=True):
                gradient += training.decay * weight
                m += (1.0 - _BETA[0]) * (gradient - m)
                v += (1.0 - _BETA[1]) * (gradient * gradient - v)
                step_of = m / (1.0 - _BETA[0] ** step)
                weight -= rate * step_of / (np.sqrt(v / (1.0 - _BETA[1] ** step)) + 1e-8)
        return cls(mean, scale, *w)

    def advance(self, hidden: FloatArray, state: Any, features: FloatArray | None = None) -> FloatArray:
        """Hidden state [..., H] after a step with ``state`` [...] (-1: a gap) and ``features`` [..., F]."""
        return np.tanh(self._drive(np.asarray(state, np.int64), features) + hidden @ self.u)

    def hidden(self, sequence: Any, features: FloatArray | None = None) -> FloatArray:
        """Hidden state float64 [H] after a history int [steps] with ``features`` [steps, F]."""
        trail = self._trail(sequence, features)
        return trail[-1] if len(trail) else np.zeros(self.size)

    def predict(self, hidden: FloatArray) -> FloatArray:
        """Probability of each state in the next step, float64 [..., S], of ``hidden`` [..., H]."""
        return softmax(hidden @ self.w2 + self.b2)

    def simulate(
        self,
        rng: np.random.Generator,
        hidden: FloatArray,
        steps: int,
        futures: int,
        features: FloatArray | None = None,
    ) -> IntArray:
        """Futures after ``hidden`` [..., H] (which knows the last state), int64 [..., futures, steps].

        ``features`` [..., F] stay what they are.
        """
        # The rows of all users and futures, as one matrix.
        h = np.repeat(hidden.reshape(-1, self.size), futures, axis=0)
        constant = np.broadcast_to(self._feature_drive(features), hidden.shape).reshape(-1, self.size)
        constant = np.repeat(constant, futures, axis=0)
        rows = self.w1[: self.states] + self.b1
        uniform = rng.random((steps, len(h)))
        out = np.empty((len(h), steps), np.int64)
        for step in range(steps):
            out[:, step] = state = draw(np.cumsum(self.predict(h), axis=-1), uniform[step])
            h = np.tanh(rows[state] + constant + h @ self.u)
        return out.reshape(*hidden.shape[:-1], futures, steps)

    def scores(self, sequence: Any, features: FloatArray | None = None) -> FloatArray:
        """Log score of each one-step prediction in nat, float64 [steps - 1]; NaN where the state or the one
        before it is a gap (as :meth:`MarkovChain.scores`)."""
        array = check_sequence(sequence, self.states)
        if len(array) < 2:
            return np.empty(0)
        trail = self._trail(array, features)
        before, after = array[:-1], array[1:]
        seen = (before != GAP) & (after != GAP)
        p = self.predict(trail[:-1])[np.arange(len(after)), np.maximum(after, 0)]
        return np.where(seen, np.log(p), np.nan)

    def log_score(self, sequence: Any, features: FloatArray | None = None) -> float:
        """Mean of :meth:`scores`: 0 is perfect; NaN where there is none."""
        scores = self.scores(sequence, features)
        scores = scores[~np.isnan(scores)]
        return float(scores.mean()) if scores.size else float("nan")

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The weights by name, as float32; :meth:`of_arrays` is the inverse."""
        return {name: np.asarray(getattr(self, name), np.float32) for name in _NAMES}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RecurrentNetwork:
        """ValueError, KeyError for weights that are none."""
        network = cls(**{name: arrays[name].astype(np.float64) for name in _NAMES})
        f, h, s = network.mean.size, network.b1.size, network.b2.size
        shapes = [(f,), (f,), (s + f, h), (h,), (h, h), (h, s), (s,)]
        if [getattr(network, name).shape for name in _NAMES] != shapes:
            raise ValueError("a recurrent network whose weights do not fit one another")
        if not (network.scale > 0.0).all() or not all(
            np.isfinite(getattr(network, name)).all() for name in _NAMES
        ):
            raise ValueError(
                "a recurrent network whose weights are not finite, or not above 0 where they divide"
            )
        return network

    def _feature_drive(self, features: FloatArray | None) -> FloatArray:
        if self.features != (0 if features is None else np.shape(features)[-1]):
            given = None if features is None else np.shape(features)
            raise ValueError(f"features {given} for a recurrent network of {self.features}")
        if features is None:
            return np.zeros(self.size)
        return np.asarray((features - self.mean) / self.scale @ self.w1[self.states :])

    def _drive(self, state: IntArray, features: FloatArray | None) -> FloatArray:
        """What the input [...] adds to the hidden state, float64 [..., H]."""
        # Index -1, a gap, is the row of zeros.
        rows = np.vstack((self.w1[: self.states], np.zeros(self.size)))
        return np.asarray(rows[state] + self.b1 + self._feature_drive(features))

    def _trail(self, sequence: Any, features: FloatArray | None) -> FloatArray:
        """Hidden state after each step, float64 [steps, H]."""
        drive = self._drive(check_sequence(sequence, self.states), features)
        out = np.empty_like(drive)
        h = np.zeros(self.size)
        for step in range(len(drive)):
            out[step] = h = np.tanh(drive[step] + h @ self.u)
        return out


@dataclass(frozen=True, slots=True)
class Comparison:
    """``gain`` of the network's mean log score over the chains' in nat a step, with its standard ``error``,
    over ``steps``."""

    gain: float
    error: float
    steps: int

    @property
    def network(self) -> bool:
        """Whether it is to be used: better by more than a standard error; a tie goes to the chain."""
        return self.gain > self.error


def better(
    chains: Sequence[MarkovChain],
    network: RecurrentNetwork,
    sequences: Sequence[Any],
    since: int,
    features: Sequence[FloatArray] | None = None,
    block: int = 10,
) -> Comparison:
    """Which scores better on what came from step ``since`` on of each user's sequence: its chain of
    ``chains``, or the ``network``, which has read what came before.

    Neither may have been fitted to these steps. The error is that of the means of ``block`` steps each, since
    steps that follow one another are not independent; it is infinite with fewer than two blocks.
    """
    blocks = []
    for i, (chain, sequence) in enumerate(zip(chains, sequences, strict=True)):
        own = None if features is None else features[i]
        difference = (network.scores(sequence, own) - chain.scores(sequence))[max(since - 1, 0) :]
        blocks += [difference[at : at + block] for at in range(0, len(difference), block)]
    counts = np.array([np.count_nonzero(~np.isnan(b)) for b in blocks], np.float64)
    sums = np.array([np.nansum(b) for b in blocks])[counts > 0]
    counts = counts[counts > 0]
    if len(counts) < 2:
        return Comparison(float(sums.sum() / max(counts.sum(), 1.0)), float("inf"), int(counts.sum()))
    gain = sums.sum() / counts.sum()
    # Of a ratio of sums: blocks may differ in how many steps they have.
    n = len(counts)
    error = np.sqrt(n / (n - 1) * ((sums - gain * counts) ** 2).sum()) / counts.sum()
    return Comparison(float(gain), float(error), int(counts.sum()))


def loss(w: Sequence[FloatArray], inputs: FloatArray, target: IntArray) -> tuple[float, list[FloatArray]]:
    """Mean cross-entropy in nat of ``target`` [n, steps] (-1: does not count) after ``inputs`` [n, steps,
    S + F] from a hidden state of zeros, and its gradient by each of the weights ``w1``..``b2``."""
    w1, b1, u, w2, b2 = w
    n, steps, _ = inputs.shape
    x = np.ascontiguousarray(inputs.transpose(1, 0, 2))
    drive = x @ w1 + b1
    h = np.zeros((steps + 1, n, len(b1)))
    for t in range(steps):
        h[t + 1] = np.tanh(drive[t] + h[t] @ u)
    p = softmax(h[1:] @ w2 + b2)
    seen = target.T != GAP
    count = max(int(seen.sum()), 1)
    of_target = np.eye(len(b2))[target.T] * seen[..., None]
    value = -float((np.log((p * of_target).sum(axis=-1), where=seen, out=np.zeros(seen.shape))).sum()) / count
    error = (p * seen[..., None] - of_target) / count
    from_output = error @ w2.T
    back = np.empty_like(drive)
    flat = 1.0 - h[1:] * h[1:]
    by_h = np.zeros_like(h[0])
    for t in range(steps - 1, -1, -1):
        back[t] = (by_h + from_output[t]) * flat[t]
        by_h = back[t] @ u.T
    b, e = back.reshape(-1, len(b1)), error.reshape(-1, len(b2))
    return value, [
        x.reshape(len(b), -1).T @ b,
        b.sum(axis=0),
        h[:-1].reshape(len(b), -1).T @ b,
        h[1:].reshape(len(b), -1).T @ e,
        e.sum(axis=0),
    ]


def _one_hot(padded: IntArray, states: int) -> FloatArray:
    return np.vstack((np.eye(states), np.zeros(states)))[padded]


def _pad(
    sequences: Sequence[Any], states: int, features: Sequence[FloatArray] | None
) -> tuple[IntArray, FloatArray]:
    """All sequences as int64 [users, steps], with gaps after their end, and features [users, steps, F]."""
    arrays = [check_sequence(s, states) for s in sequences]
    if not any(((a[:-1] != GAP) & (a[1:] != GAP)).any() for a in arrays):
        raise ValueError(f"{len(arrays)} sequences in which no state follows another: nothing to train on")
    width = max(len(a) for a in arrays)
    padded = np.full((len(arrays), width), GAP, np.int64)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    if features is None:
        return padded, np.empty((*padded.shape, 0))
    columns = {f.shape[1:] for f in features}
    if [len(f) for f in features] != [len(a) for a in arrays] or len(columns) != 1:
        raise ValueError(f"features {[f.shape for f in features][:3]} do not fit their sequences")
    rows = np.zeros((*padded.shape, *columns.pop()))
    for row, own in zip(rows, features, strict=True):
        row[: len(own)] = own
    if rows.ndim != 3 or not np.isfinite(rows).all():
        raise ValueError("features that are not finite, or not [steps, F]")
    return padded, rows


def _moments(rows: FloatArray, padded: IntArray) -> tuple[FloatArray, FloatArray]:
    seen = rows[padded != GAP]
    spread = seen.std(axis=0)
    return seen.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)


def _begin(
    rng: np.random.Generator, padded: IntArray, states: int, features: int, hidden: int
) -> list[FloatArray]:
    """Weights to begin with: the share of each state, whatever came before."""
    share = np.bincount(padded[padded != GAP], minlength=states) + 1.0
    inputs = states + features
    return [
        rng.standard_normal((inputs, hidden)) / np.sqrt(inputs),
        np.zeros(hidden),
        rng.standard_normal((hidden, hidden)) * (0.7 / np.sqrt(hidden)),
        rng.standard_normal((hidden, states)) * (0.1 / np.sqrt(hidden)),
        np.log(share / share.sum()),
    ]
