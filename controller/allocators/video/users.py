"""What is known of the users between whom resources are divided, as columns, and what they would say of a
rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from controller.allocators.video.opinion import QOS, OpinionModel, OpinionModels, truncated
from controller.allocators.video.playback import shown, table
from wire.definitions import mos
from wire.definitions.compiled import kept
from wire.definitions.viewing import MAX_PREFETCH

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LADDER: Final = np.array(mos.BITRATES_KBPS)
RATIOS: Final = np.array((0.5, 0.75, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0))
"""Rates of fetching over the bitrate that are considered."""
_BITRATE, _RATIO = np.meshgrid(LADDER, RATIOS, indexing="ij")
_ORDER = np.argsort((_BITRATE * _RATIO).ravel(), kind="stable")
OPTION_BITRATES: Final = _BITRATE.ravel()[_ORDER]
OPTION_KBPS: Final = (_BITRATE * _RATIO).ravel()[_ORDER]
"""Bitrates and rates of every option, in the order of rates, [options]: each bitrate at each ratio."""
KEPT: Final = 0.5
"""What it is worth that an agreement is kept, relative to how near an opinion is to it."""
SCATTER: Final = 0.2
"""Standard deviation of the mean score of a slice window (some twenty scores), with which it is kept or
not."""
EXCESS: Final = 0.02
"""What an opinion above the agreement is worth, relative to one below it."""
ENOUGH: Final = 0.01
"""Of the opinion: what less prefetching may cost."""
_STALLED, _QUALITY, _DELAY, _THROUGHPUT, _JITTER, _LOSS = (
    QOS.index(name) for name in ("stalled", "quality", "delay", "throughput", "jitter", "loss")
)


def gain(opinion: Any, ela: Any) -> FloatArray:
    """What an opinion is worth against an agreement: how near it comes, and the probability that it is kept.

    With the first alone, opinions are brought to the agreement and no further, where one window in two keeps
    it: on the campus a third of what could be kept was, for no better mean.
    """
    e, least = np.asarray(opinion, np.float64), np.asarray(ela, np.float64)
    near = np.minimum(e / least, 1.0) + EXCESS * np.maximum(e / least - 1.0, 0.0)
    return (1.0 - KEPT) * near + KEPT * ndtr((e - least) / SCATTER - 0.5)


@dataclass(frozen=True, slots=True)
class Users:
    """Columns [users]: models, agreements, B, C, swipes a minute, and where they are.

    ``kbps_per_prb``: what a PRB of its cell carries for each; ``cell``: which. ``jitter`` and ``loss`` are
    what models that mind them are given, as no lever here moves them.
    """

    models: tuple[OpinionModel, ...]
    ela: FloatArray
    behaviour: FloatArray
    environment: FloatArray
    swipes_per_min: FloatArray
    kbps_per_prb: FloatArray
    cell: IntArray
    jitter: FloatArray
    loss: FloatArray
    segment_s: float = 1.0
    _known: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        models = OpinionModels.of(self.models)
        impact = models.impact(self.behaviour, self.environment)
        known = (models.intercept, models.slopes, impact, models.deviation)
        object.__setattr__(self, "_known", (*known, self.swipes_per_min, self.jitter, self.loss))

    def __len__(self) -> int:
        return len(self.ela)

    def take(self, rows: Sequence[int] | IntArray) -> Users:
        """Those users alone."""
        at = np.asarray(rows, np.int64)
        columns = {
            f.name: getattr(self, f.name)[at]
            for f in fields(self)
            if f.init and f.name not in ("models", "segment_s")
        }
        return replace(self, models=tuple(self.models[i] for i in at), **columns)

    def opinion(self, kbps: FloatArray, bitrate_kbps: FloatArray, prefetch: Any) -> FloatArray:
        """Mean scores that the users' models expect, of [users, ...] that broadcast."""
        shape = np.broadcast_shapes(kbps.shape, bitrate_kbps.shape, np.shape(prefetch))
        each = len(self), prod(shape[1:])
        bitrate = _filled(bitrate_kbps, shape, np.float64).reshape(each)
        out = np.empty(each)
        _opinions(
            _filled(kbps, shape, np.float64).reshape(each),
            bitrate,
            mos.quality(bitrate),
            _filled(prefetch, shape, np.int64).reshape(each),
            self._known,
            table(),
            self.segment_s,
            out,
        )
        return out.reshape(shape)

    def best_bitrates(self, kbps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The bitrate for which each user's model expects most of a rate [users, ...], and what it
        expects."""
        rates = kbps[..., None]
        expected = self.opinion(rates, np.broadcast_to(LADDER, (*kbps.shape, len(LADDER))), MAX_PREFETCH)
        # The lowest of those that are as good: a user who does not mind the quality has no use for it.
        best = np.argmax(expected >= expected.max(axis=-1, keepdims=True) - 1e-6, axis=-1)
        return LADDER[best], np.take_along_axis(expected, best[..., None], axis=-1)[..., 0]

    def prefetch(self, kbps: FloatArray, bitrate_kbps: FloatArray) -> IntArray:
        """The least segments to prefetch, [users], with which no more than :data:`ENOUGH` of the opinion is
        lost."""
        counts = np.arange(MAX_PREFETCH + 1)
        expected = self.opinion(kbps[:, None], bitrate_kbps[:, None], counts)
        return np.argmax(expected >= expected[:, -1:] - ENOUGH, axis=1)


def _filled(values: Any, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    """Values that broadcast to a shape, each in its place: of one layout, for which it is compiled once."""
    out = np.empty(shape, kind)
    out[...] = values
    return out


@kept(error_model="numpy")
def _opinions(
    kbps: Any,
    bitrate_kbps: Any,
    quality: Any,
    prefetch: Any,
    known: Any,
    shares: Any,
    segment_s: float,
    out: Any,
) -> None:
    """``OpinionModels.predict`` of what is shown at rates, bitrates and prefetching [users, n], by what is
    known of the users (``Users._known``)."""
    intercept, slopes, impact, deviation, swipes_per_min, jitter, loss = known
    for u in range(len(kbps)):
        for i in range(kbps.shape[1]):
            ratio = kbps[u, i] / bitrate_kbps[u, i]
            part = shown(shares, ratio, swipes_per_min[u], prefetch[u, i])
            service = (
                intercept[u]
                + slopes[u, _STALLED] * 60.0 * (1.0 - part)
                + slopes[u, _QUALITY] * quality[u, i] * part
                + slopes[u, _DELAY] * min(segment_s / max(ratio, 1e-3), 60.0)
                + slopes[u, _THROUGHPUT] * kbps[u, i] / 1e3
                + slopes[u, _JITTER] * jitter[u]
                + slopes[u, _LOSS] * loss[u]
            )
            out[u, i] = truncated(service * impact[u], deviation[u])[0]
