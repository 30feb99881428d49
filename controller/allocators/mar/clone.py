"""The first function of a twin (equation 9): a clone of the application's pose predictor.

The network side sees what the predictor is given (uploaded poses and when they were captured) and what it
answers, and fits parameters with which the same comes out. A clone is judged by how close it is to the
predictor on people it has not seen, however well that predicts people.

Two techniques. :class:`LinearClone` knows that each coordinate is regressed on time and finds the window and
the order. :class:`GeneralClone` knows only that all coordinates of a kind are treated alike: it learns the
weight of each upload from its displacement. That is exact for whatever is linear in the poses (regression,
exponential smoothing, a Kalman filter), as far as the uploads that are kept reach, and else the nearest
linear predictor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from wire.definitions.poses import FloatArray, IntArray, unwrapped

KEPT: Final = 32
"""Latest uploads that a clone may look at."""
LONGEST: Final = 60
"""Frames of the longest window that is tried."""
ORDERS: Final = (0, 1, 2)
"""Of the polynomial of time: the last pose held, a line, a parabola."""
_KINDS: Final = (slice(0, 3), slice(3, 6))
"""Metres and degrees."""
_RIDGE = 1e-9
"""Of the mean square of what is regressed on: it decides only where uploads tell the same."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a predictor is given, n times.

    ``poses`` [n, kept, 6]: the latest uploads, the latest first, angles without jumps of 360 degrees;
    ``age`` [n, kept]: how many frames before the present they were captured, NaN where there were no more
    (the pose is then the earliest); ``ahead`` [n]: how many frames after the present the pose is wanted.
    """

    poses: FloatArray
    age: FloatArray
    ahead: FloatArray

    def __len__(self) -> int:
        return len(self.age)

    def displacement(self) -> FloatArray:
        """From the latest upload to each, [n, kept, 6]."""
        return self.poses - self.poses[:, :1]


def inputs(poses: FloatArray, uploaded: IntArray, now: IntArray, lookahead: int, kept: int = KEPT) -> Inputs:
    """What is known at the frames ``now`` of one user with the uploads ``poses`` [len(uploaded), 6].

    ValueError where nothing had been uploaded.
    """
    latest = np.searchsorted(uploaded, now, side="right") - 1
    if len(latest) and latest.min() < 0:
        raise ValueError(f"frame {int(np.min(now))}: nothing had been uploaded to predict from")
    place = latest[:, None] - np.arange(kept)
    there = np.maximum(place, 0)
    age = np.where(place >= 0, now[:, None] - uploaded[there], np.nan)
    return Inputs(unwrapped(poses)[there], age, np.full(len(now), float(lookahead)))


def joined(parts: list[Inputs]) -> Inputs:
    """All of them, one after the other."""
    return Inputs(
        np.concatenate([part.poses for part in parts]),
        np.concatenate([part.age for part in parts]),
        np.concatenate([part.ahead for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class LinearClone:
    """A polynomial of time through the uploads that are younger than ``history`` frames.

    Of lower order where there are not enough of them; the last pose is held where there is one, or none.
    """

    history: int
    order: int

    def weights(self, age: FloatArray, ahead: FloatArray) -> FloatArray:
        """How much each upload counts, [n, kept]; rows sum to 1."""
        inside = age < self.history
        order = np.minimum(self.order, inside.sum(axis=1) - 1)
        weights = np.zeros(age.shape)
        weights[:, 0] = 1.0
        for degree in range(1, self.order + 1):
            rows = np.flatnonzero(order == degree)
            powers = np.arange(degree + 1)
            time = -np.where(inside[rows], age[rows], 0.0) / self.history
            basis = np.where(inside[rows][..., None], time[..., None] ** powers, 0.0)
            target = (ahead[rows][:, None] / self.history) ** powers
            weights[rows] = np.einsum("np,npk->nk", target, np.linalg.pinv(basis))
        return weights

    def predict(self, given: Inputs) -> FloatArray:
        first, which = _alike(given.age, given.ahead)
        weights = self.weights(given.age[first], given.ahead[first])[which]
        return np.asarray(given.poses[:, 0] + np.einsum("nk,nkc->nc", weights, given.displacement()))

    @classmethod
    def fit(cls, given: Inputs, predicted: FloatArray, longest: int = LONGEST) -> LinearClone:
        """The window, up to ``longest`` frames, and the order with the least loss (9).

        The loss adds metres and degrees, each in units of how far the predictor moves the latest pose. Of
        equal ones the lowest order, then the shortest window. A window is tried as far as the uploads that
        are kept reach. ValueError where nothing is given.
        """
        target = _target(given, predicted)
        scale = np.concatenate([np.full(3, np.sqrt(np.mean(target[:, kind] ** 2))) for kind in _KINDS])
        scale[scale == 0.0] = 1.0
        moved, target = given.displacement() / scale, target / scale
        age = np.where(given.age < longest, given.age, np.nan)
        age[:, 0] = given.age[:, 0]
        first, which = _alike(age, given.ahead)
        # Of the rows with the same ages only these sums matter.
        kept = age.shape[1]
        square, cross, rest = (np.zeros((len(first), *shape)) for shape in ((kept, kept), (kept,), ()))
        for place in range(len(first)):
            rows = which == place
            x, y = moved[rows].transpose(0, 2, 1).reshape(-1, kept), target[rows].ravel()
            square[place], cross[place], rest[place] = x.T @ x, x.T @ y, y @ y
        age, ahead = age[first], given.ahead[first]
        reach = int(np.nanmin([longest, *age[:, -1]]))
        best, least, total = cls(1, 0), float(rest.sum()), float(rest.sum())
        for order in ORDERS[1:]:
            for history in range(2, reach + 1):
                clone = cls(history, order)
                w = clone.weights(age, ahead)
                loss = float(np.einsum("nk,nkl,nl->", w, square, w) - 2.0 * (w * cross).sum()) + total
                if loss < least - 1e-9 * total:
                    best, least = clone, loss
        return best

    def to_bytes(self) -> bytes:
        """A line of JSON."""
        return json.dumps({"technique": "linear", "history": self.history, "order": self.order}).encode()


@dataclass(frozen=True, slots=True)
class GeneralClone:
    """Weights of uploads, learned apart for each pair of ages of the latest two uploads.

    ``key`` [patterns, 3]: the ages of the latest and of the one before it, and how far ahead, in frames
    (no earlier upload: -1); ``weights`` [patterns, 2, kept]: of the displacements in metres and in degrees.
    Ages that were not seen take the weights of the nearest, in the logarithm of age and gap.
    """

    key: FloatArray
    weights: FloatArray

    def predict(self, given: Inputs) -> FloatArray:
        kept = self.weights.shape[2]
        keys, which = np.unique(_key(given), axis=0, return_inverse=True)
        distance = np.abs(_scaled(keys)[:, None] - _scaled(self.key)).sum(axis=-1)
        weights = self.weights[distance.argmin(axis=1)[which.ravel()]]
        moved = given.displacement()[:, :kept]
        out = given.poses[:, 0].copy()
        for place, kind in enumerate(_KINDS):
            out[:, kind] += np.einsum("nk,nkc->nc", weights[:, place, : moved.shape[1]], moved[..., kind])
        return out

    @classmethod
    def fit(cls, given: Inputs, predicted: FloatArray) -> GeneralClone:
        """Ridge regression of where the predictor moves the latest pose, on the displacements of the uploads
        before it: the least loss (9), in metres and in degrees. ValueError where nothing is given.
        """
        target = _target(given, predicted)
        moved = given.displacement()
        keys, which = np.unique(_key(given), axis=0, return_inverse=True)
        kept = moved.shape[1]
        weights = np.zeros((len(keys), len(_KINDS), kept))
        for pattern in range(len(keys)):
            rows = which.ravel() == pattern
            for place, kind in enumerate(_KINDS):
                x = moved[rows][..., kind].transpose(0, 2, 1).reshape(-1, kept)
                square = x.T @ x
                ridge = _RIDGE * np.trace(square) + np.finfo(float).tiny
                cross = x.T @ target[rows][:, kind].ravel()
                weights[pattern, place] = np.linalg.solve(square + ridge * np.eye(kept), cross)
        return cls(keys, weights)

    def to_bytes(self) -> bytes:
        """A line of JSON with the shapes, then keys and weights as float64."""
        head = {"technique": "general", "key": self.key.shape, "weights": self.weights.shape}
        arrays = [np.ascontiguousarray(a, "<f8").tobytes() for a in (self.key, self.weights)]
        return json.dumps(head).encode() + b"\n" + b"".join(arrays)


def from_bytes(data: bytes) -> LinearClone | GeneralClone:
    """The clone of ``to_bytes``; ValueError for bytes that are none."""
    head, _, body = data.partition(b"\n")
    try:
        stored: dict[str, Any] = json.loads(head)
        if stored["technique"] == "linear":
            return LinearClone(int(stored["history"]), int(stored["order"]))
        patterns, kept = int(stored["key"][0]), int(stored["weights"][2])
        numbers = np.frombuffer(body, "<f8")
        key, weights = numbers[: 3 * patterns], numbers[3 * patterns :]
        return GeneralClone(key.reshape(patterns, 3), weights.reshape(patterns, len(_KINDS), kept))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"no clone of a predictor: {error}") from None


def _target(given: Inputs, predicted: FloatArray) -> FloatArray:
    """From the latest upload to the prediction, [n, 6]; angles within -180..180 degrees."""
    if not len(given) or predicted.shape != (len(given), 6):
        raise ValueError(f"{len(given)} inputs and predictions {predicted.shape}: nothing to learn from")
    target = predicted - given.poses[:, 0]
    target[:, 3:] = (target[:, 3:] + 180.0) % 360.0 - 180.0
    return np.asarray(target)


def _alike(age: FloatArray, ahead: FloatArray) -> tuple[IntArray, IntArray]:
    """The first row of each that have the same ages, and of each row which of these it is like."""
    rows = np.nan_to_num(np.column_stack([age, ahead]), nan=-1.0)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, which.ravel()


def _key(given: Inputs) -> FloatArray:
    before = given.age[:, 1] if given.age.shape[1] > 1 else np.full(len(given), np.nan)
    return np.nan_to_num(np.column_stack([given.age[:, 0], before, given.ahead]), nan=-1.0)


def _scaled(key: FloatArray) -> FloatArray:
    """Logarithms of the latest age, of the gap before it and of how far ahead; no gap is far from any."""
    gap = np.where(key[:, 1] < 0.0, 1e6, key[:, 1] - key[:, 0])
    return np.log1p(np.column_stack([key[:, 0], gap, np.maximum(key[:, 2], 0.0)]))
