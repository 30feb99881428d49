"""The second function of a twin (equations 10, 11): the probability of each VCHR at each upload frequency.

One softmax network for all users of a slice. It sees a frame through its geometry
(:mod:`controller.allocators.mar.features`), so that it holds for people it has not seen, and the user through
how far the predictions of its pose are usually off, coordinate by coordinate and frequency by frequency,
shrunk towards what is usual for all (partial pooling). What it gains it gains by the geometry: on the traces
of the paper partial pooling takes .003 at most off the log loss.

Beyond the paper, which trains one network for each user on pose and bandwidth: on frames of later seconds
such a network does worse than one number for everybody (`prbandit figures mar`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.allocators.mar.features import features
from controller.allocators.mar.traces import Observed, Situation
from controller.twins.softmax import SoftmaxNetwork, Training
from wire.definitions.poses import FloatArray, IntArray
from wire.definitions.vchr import FIELD_OF_VIEW_DEG, Content

BoolArray = NDArray[np.bool_]

CORRELATED_FRAMES = 15
"""Frames from which a user's errors are about independent (half a second)."""
PRIOR_WEIGHT = 10.0
"""How many independent errors of its own weigh as much as those of all others."""
_LEAST_M, _LEAST_DEG = 1e-4, 1e-2


def bin_edges(vchr: float, bins: int) -> FloatArray:
    """Edges of the bins of VCHR, rising: multiples of 1 / bins, and V, where it is none of them.

    The highest bin holds 1, with V = 1 that alone; the upper edge is above it, as a bin does not include its
    upper edge.
    """
    edges = np.union1d(np.arange(bins) / bins, [vchr])
    # A multiple that is V but for rounding is V.
    edges = edges[np.append(np.diff(edges) > 1e-9, True)]
    edges[0] = 0.0
    return np.append(edges, np.nextafter(1.0, 2.0))


def bins_of(vchr: FloatArray, edges: FloatArray) -> IntArray:
    """In which bin each VCHR is, int64; -1 for NaN."""
    bins = np.searchsorted(edges, vchr + 1e-9, side="right") - 1
    return np.where(np.isfinite(vchr), np.minimum(bins, len(edges) - 2), -1)


@dataclass(frozen=True, slots=True)
class ErrorModel:
    """How far predictions of poses are off: covariance of all users, and each user's own variances.

    ``covariance`` [F, 6, 6] in metres and degrees; ``variance`` [U, F, 6], shrunk towards its diagonal.
    """

    covariance: FloatArray
    variance: FloatArray

    @classmethod
    def of(
        cls,
        error: FloatArray,
        known: BoolArray,
        correlated: float = CORRELATED_FRAMES,
        prior_weight: float = PRIOR_WEIGHT,
    ) -> ErrorModel:
        """From errors [U, F, N, 6]; ``known`` [U, N] says which of them may be used.

        ``prior_weight``: in independent errors; inf gives all users the same variances. ValueError where no
        error is known.
        """
        weight = known[:, None, :, None].astype(np.float64)
        count = known.sum(axis=1).astype(np.float64)
        if not count.sum():
            raise ValueError("no error of a prediction is known")
        weighted = error * weight
        total = np.einsum("ufni,ufnj->fij", weighted, error) / count.sum()
        least = np.diag([_LEAST_M**2] * 3 + [_LEAST_DEG**2] * 3)
        covariance = total + least
        own = (weighted * error).sum(axis=2) / np.maximum(count, 1.0)[:, None, None]
        independent = (count / correlated)[:, None, None]
        common = np.diagonal(covariance, axis1=1, axis2=2)
        share = independent / np.maximum(independent + prior_weight, np.finfo(float).tiny)
        return cls(covariance, share * own + (1.0 - share) * common)

    def deviation(self) -> FloatArray:
        """Lower Cholesky factors [U, F, 6, 6]: each user's variances, everybody's correlations."""
        factor = np.linalg.cholesky(self.covariance)
        common = np.diagonal(self.covariance, axis1=1, axis2=2)
        return np.sqrt(self.variance / common)[..., None] * factor


@dataclass(frozen=True, slots=True)
class Model:
    """A network and what it is asked about: ``edges`` of the bins, V, the content and how it is seen."""

    network: SoftmaxNetwork
    edges: FloatArray
    vchr: float
    content: Content
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG

    def probabilities(self, situation: Situation, upload_hz: FloatArray, deviation: FloatArray) -> FloatArray:
        """Equation (10): the probability of each bin, [..., bins]; arguments as of :func:`features`."""
        seen = features(situation, upload_hz, deviation, self.content, self.field_of_view_deg, self.vchr)
        return self.network.predict(seen)

    def hit(self, probabilities: FloatArray) -> FloatArray:
        """Equation (11): the probability [...] that VCHR is at least V, from those of bins [..., bins]."""
        return probabilities[..., np.searchsorted(self.edges, self.vchr - 1e-9) :].sum(axis=-1)


def rows(
    observed: Observed,
    deviation: FloatArray,
    frames: IntArray,
    content: Content,
    field_of_view_deg: tuple[float, float],
    vchr: float,
) -> FloatArray:
    """Features [U, F, len(frames), ...] of frames, by their place in ``observed.frame``."""
    return features(
        observed.situation[:, :, frames],
        np.array(observed.upload_hz)[None, :, None],
        deviation[:, :, None],
        content,
        field_of_view_deg,
        vchr,
    )


def train(
    x: FloatArray, vchr: FloatArray, edges: FloatArray, *, seed: int = 0, training: Training | None = None
) -> SoftmaxNetwork:
    """A network from rows [..., features] and the VCHR [...] that came of them; NaN rows are left out.

    ValueError where none is left.
    """
    bins = bins_of(vchr, edges)
    known = bins >= 0
    if not known.any():
        raise ValueError("in no frame that is known was there anything to render: nothing to train on")
    return SoftmaxNetwork.fit(x[known], bins[known], len(edges) - 1, seed, training or Training())


def every(frames: Sequence[int] | IntArray, stride: int) -> IntArray:
    """Every ``stride``-th of some frames: neighbours say nearly the same."""
    return np.asarray(frames, np.int64)[::stride]
