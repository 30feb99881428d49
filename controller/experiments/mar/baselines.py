"""Models of VCHR side by side: trivial ones, the paper's two, and the twins; and how they are scored.

Every model is learned from the training frames of a :class:`Problem` and gives the probability of each bin of
VCHR for all users, frequencies and test frames, float64 [users, frequencies, test frames, bins].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from controller.allocators.mar.learning import STRIDE, learn
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.traces import Observed, Situation
from controller.allocators.mar.twin import ErrorModel, bin_edges, bins_of, every, rows, train
from controller.twins.softmax import SoftmaxNetwork, Training, softmax
from wire.definitions.poses import FloatArray, IntArray
from wire.definitions.vchr import Content

STRENGTHS: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 200.0, 300.0, 1000.0, 3000.0, 1e4, 1e5)
"""Of the common table, in frames, among which cross-validation chooses."""
FOLDS: Final = 3
PERSONAL_TRAINING: Final = Training(steps=600, batch=64)
"""The more it is trained, the further ahead it is on random frames and the further behind in time."""
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Problem:
    """``observed`` and which of its frames, by place, are learned from and tested on."""

    observed: Observed
    train: IntArray
    test: IntArray
    content: Content
    options: MarOptions
    seed: int = 0

    @property
    def edges(self) -> FloatArray:
        return bin_edges(self.options.vchr, self.options.bins)

    @property
    def bins(self) -> int:
        return len(self.edges) - 1

    def outcome(self, frames: IntArray) -> IntArray:
        """In which bin each VCHR is, [users, frequencies, len(frames)]; -1 where there was nothing to
        render."""
        return bins_of(self.observed.vchr[:, :, frames], self.edges)


def counts(outcome: IntArray, bins: int) -> FloatArray:
    """How many of the last axis are in each bin, [..., bins]."""
    return np.stack([(outcome == k).sum(axis=-1) for k in range(bins)], axis=-1).astype(np.float64)


def common(problem: Problem) -> FloatArray:
    """The share of each bin among all training frames, whoever and whenever: of these the likeliest is the
    majority class. One frame is added to each bin."""
    total = counts(problem.outcome(problem.train), problem.bins).sum(axis=(0, 1)) + 1.0
    return _everywhere(problem, total / total.sum())


def by_frequency(problem: Problem) -> FloatArray:
    """The bin of the mean VCHR at each frequency has half of the probability, the other half is as
    :func:`common`, so that it can be scored as a distribution and still foretells its bin."""
    observed = problem.observed
    half = 0.5 * common(problem)
    for place in range(len(observed.upload_hz)):
        known = observed.vchr[:, place, problem.train]
        known = known[np.isfinite(known)]
        if known.size:
            (at,) = bins_of(np.array([known.mean()]), problem.edges)
            half[:, place, :, at] += 0.5
    return half / half.sum(axis=-1, keepdims=True)


def table(problem: Problem, strength: float | None = None) -> tuple[FloatArray, float]:
    """The shares of bins of each user at each frequency, shrunk to everybody's at that frequency; and how
    many frames everybody's weigh: ``strength``, or of :data:`STRENGTHS` the one with the least log loss in
    cross-validation over stretches of the training frames."""
    folds = [f for f in np.array_split(problem.train, FOLDS) if len(f)]
    of_folds = [counts(problem.outcome(fold), problem.bins) for fold in folds]
    total = np.sum(of_folds, axis=0)

    def shrunk(own: FloatArray, weight: float) -> FloatArray:
        everybody = own.sum(axis=0) + 1.0
        prior = everybody / everybody.sum(axis=-1, keepdims=True)
        return np.asarray((own + weight * prior) / (own.sum(axis=-1, keepdims=True) + weight))

    if strength is None:
        losses = [
            -sum(float((fold * np.log(shrunk(total - fold, weight))).sum()) for fold in of_folds)
            for weight in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmin(losses))]
    return _everywhere(problem, shrunk(total, strength)[:, :, None]), strength


def table_in_hindsight(problem: Problem) -> tuple[FloatArray, float]:
    """:func:`table` with the strength that does best on the test frames themselves."""
    tables = [table(problem, strength) for strength in STRENGTHS]
    return min(tables, key=lambda of: score(problem, of[0]).log_loss)


def paper_inputs(situation: Situation, upload_hz: FloatArray) -> FloatArray:
    """What the paper's network sees: the upload frequency (its logarithm) and the predicted pose, metres and
    sines and cosines of the angles; [..., 10]."""
    pose = situation.predicted
    angle = np.radians(pose[..., 3:])
    hz = np.broadcast_to(np.log(upload_hz), pose.shape[:-1])[..., None]
    return np.concatenate([hz, pose[..., :3], np.sin(angle), np.cos(angle)], axis=-1)


def aggregated(problem: Problem) -> SoftmaxNetwork:
    """The paper's network, trained on all users: the slicing-based model, which knows nobody."""
    x, outcome = _of_paper(problem, problem.train), problem.outcome(problem.train)
    return _fitted(x, outcome, problem, Training())


def personal(problem: Problem, training: Training = PERSONAL_TRAINING) -> list[SoftmaxNetwork]:
    """The paper's network for each user, trained on that user alone. A user without a frame that can be
    learned from has everybody's."""
    x, outcome = _of_paper(problem, problem.train), problem.outcome(problem.train)
    return [
        _fitted(x[user], outcome[user], problem, training)
        if (outcome[user] >= 0).any()
        else aggregated(problem)
        for user in range(problem.observed.users)
    ]


def of_network(problem: Problem, network: SoftmaxNetwork) -> FloatArray:
    """What one of the paper's networks says of everybody's test frames."""
    return network.predict(_of_paper(problem, problem.test))


def twins(problem: Problem) -> FloatArray:
    """The twins of this service, as it trains them (:mod:`controller.allocators.mar.learning`)."""
    learned = learn(
        problem.observed,
        problem.train,
        len(problem.test),
        problem.content,
        problem.options,
        seed=problem.seed,
    )
    return learned.probabilities(problem.observed, problem.test)


@dataclass(frozen=True, slots=True)
class Variant:
    """Twins trained apart: logits [users, frequencies, frames, bins] of the test frames and of those that
    they were trained on, and the bins [users, frequencies, frames] that came of these."""

    test_logits: FloatArray
    logits: FloatArray
    outcome: IntArray

    @property
    def probabilities(self) -> FloatArray:
        return softmax(self.test_logits)


def variant(problem: Problem, prior_weight: float) -> Variant:
    """Twins whose errors everybody's weigh ``prior_weight`` in: inf, all err alike; 0, each as measured.

    As in the service a training frame's features are computed with errors of other frames.
    """
    observed, options = problem.observed, problem.options

    def seen(known: IntArray, frames: IntArray) -> FloatArray:
        mask = np.zeros((observed.users, len(observed.frame)), np.bool_)
        mask[:, known] = True
        deviation = ErrorModel.of(observed.error, mask, prior_weight=prior_weight).deviation()
        return rows(observed, deviation, frames, problem.content, options.field_of_view_deg, options.vchr)

    windows = [w for w in np.array_split(problem.train, FOLDS) if len(w)]
    frames = np.concatenate([every(w, STRIDE) for w in windows])
    x = np.concatenate(
        [
            seen(np.setdiff1d(problem.train, w) if len(windows) > 1 else problem.train, every(w, STRIDE))
            for w in windows
        ],
        axis=2,
    )
    network = train(x, observed.vchr[:, :, frames], problem.edges, seed=problem.seed)
    test_logits = network.logits(seen(problem.train, problem.test))
    return Variant(test_logits, network.logits(x), problem.outcome(frames))


def with_offsets(of: Variant, penalty: float, steps: int = 300) -> FloatArray:
    """The twins' probabilities with a personal constant added to each bin's logit.

    Fitted on each user's training frames: the mean cross-entropy plus ``penalty`` times the sum of squares,
    by gradient descent.
    """
    users, bins = len(of.logits), of.logits.shape[-1]
    logits = of.logits.reshape(users, -1, bins)
    outcome = of.outcome.reshape(users, -1)
    weight = (outcome >= 0) / np.maximum((outcome >= 0).sum(axis=1, keepdims=True), 1)
    share = (np.eye(bins)[outcome] * weight[..., None]).sum(axis=1)
    offset = np.zeros((users, bins))
    rate = 1.0 / (0.5 + 2.0 * penalty)
    for _ in range(steps):
        expected = (softmax(logits + offset[:, None]) * weight[..., None]).sum(axis=1)
        offset -= rate * (expected - share + 2.0 * penalty * offset)
    return softmax(of.test_logits + offset[:, None, None])


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one model: the share of frames whose likeliest bin is the true one, the mean log loss in nats, the
    expected calibration errors of the likeliest bin and of P(VCHR >= V), and each user's log loss (NaN where
    nothing was to be rendered)."""

    accuracy: float
    log_loss: float
    calibration_error: float
    hit_calibration_error: float
    by_user: FloatArray

    def plain(self) -> dict[str, float]:
        """Without the users."""
        return {name: float(getattr(self, name)) for name in METRICS}


METRICS: Final = ("accuracy", "log_loss", "calibration_error", "hit_calibration_error")


def score(problem: Problem, probabilities: FloatArray, users: IntArray | None = None) -> Scores:
    """Scores on the test frames of some users, all by default."""
    outcome = problem.outcome(problem.test)
    if users is not None:
        outcome, probabilities = outcome[users], probabilities[users]
    judged = outcome >= 0
    if not judged.any():
        raise ValueError("nothing is to be rendered in any test frame")
    of_true = np.take_along_axis(probabilities, np.maximum(outcome, 0)[..., None], axis=-1)[..., 0]
    loss = -np.log(np.maximum(of_true, _LEAST))
    right = probabilities.argmax(axis=-1) == outcome
    first_hit = int(np.searchsorted(problem.edges, problem.options.vchr - 1e-9))
    hit = probabilities[..., first_hit:].sum(axis=-1)
    return Scores(
        float(right[judged].mean()),
        float(loss[judged].mean()),
        calibration_error(probabilities.max(axis=-1)[judged], right[judged]),
        calibration_error(hit[judged], outcome[judged] >= first_hit),
        _mean(np.where(judged, loss, np.nan)),
    )


def reliability(probability: FloatArray, came: Any, parts: int = 10) -> list[tuple[float, float, int]]:
    """Of a reliability diagram the points: for each of ``parts`` equal intervals of probability with anything
    in it, the mean probability, how often it came so, and how many."""
    place = np.minimum((probability * parts).astype(np.int64), parts - 1)
    return [
        (float(probability[inside].mean()), float(np.mean(came[inside])), int(inside.sum()))
        for inside in (place == part for part in range(parts))
        if inside.any()
    ]


def calibration_error(probability: FloatArray, came: Any, parts: int = 10) -> float:
    """Expected calibration error: the mean distance of :func:`reliability` from the diagonal."""
    points = reliability(probability, came, parts)
    return sum(n * abs(p - c) for p, c, n in points) / max(sum(n for *_, n in points), 1)


def _mean(loss: FloatArray) -> FloatArray:
    flat = loss.reshape(len(loss), -1)
    known = np.isfinite(flat)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, flat, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _everywhere(problem: Problem, probabilities: FloatArray) -> FloatArray:
    shape = (problem.observed.users, len(problem.observed.upload_hz), len(problem.test), problem.bins)
    return np.array(np.broadcast_to(probabilities, shape))


def _of_paper(problem: Problem, frames: IntArray) -> FloatArray:
    hz = np.array(problem.observed.upload_hz)[None, :, None]
    return paper_inputs(problem.observed.situation[:, :, frames], hz)


def _fitted(x: FloatArray, outcome: IntArray, problem: Problem, training: Training) -> SoftmaxNetwork:
    known = outcome >= 0
    return SoftmaxNetwork.fit(x[known], outcome[known], problem.bins, problem.seed, training)
