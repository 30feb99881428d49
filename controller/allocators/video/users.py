"""What is known of the users between whom resources are divided, as columns, and what they would say of a
rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.opinion import OpinionModel, OpinionModels
from controller.allocators.video.playback import shown_share
from wire.definitions import mos
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
EXCESS: Final = 0.02
"""What an opinion above the agreement is worth, relative to one below it."""
ENOUGH: Final = 0.01
"""Of the opinion: what less prefetching may cost."""


def gain(opinion: Any, ela: Any) -> FloatArray:
    """What an opinion is worth against an agreement: their ratio up to 1, and little above it."""
    e, least = np.asarray(opinion, np.float64), np.asarray(ela, np.float64)
    return np.minimum(e / least, 1.0) + EXCESS * np.maximum(e / least - 1.0, 0.0)


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

    def __len__(self) -> int:
        return len(self.ela)

    def take(self, rows: Sequence[int] | IntArray) -> Users:
        """Those users alone."""
        at = np.asarray(rows, np.int64)
        columns = {
            f.name: getattr(self, f.name)[at] for f in fields(self) if f.name not in ("models", "segment_s")
        }
        return replace(self, models=tuple(self.models[i] for i in at), **columns)

    def opinion(self, kbps: FloatArray, bitrate_kbps: FloatArray, prefetch: Any) -> FloatArray:
        """Mean scores that the users' models expect, of [users, ...] that broadcast."""
        ratio = kbps / bitrate_kbps
        extra = (1,) * (ratio.ndim - 1)

        def column(x: FloatArray) -> FloatArray:
            return x.reshape(-1, *extra)

        shown = shown_share(ratio, column(self.swipes_per_min), prefetch, self.segment_s)
        qos = {
            "stalled": 60.0 * (1.0 - shown),
            "quality": mos.quality(bitrate_kbps) * shown,
            "delay": np.minimum(self.segment_s / np.maximum(ratio, 1e-3), 60.0),
            "throughput": kbps / 1e3,
            "jitter": column(self.jitter),
            "loss": column(self.loss),
        }
        models = OpinionModels.of(self.models)
        return models.predict(qos, column(models.impact(self.behaviour, self.environment)))

    def best_bitrates(self, kbps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The bitrate for which each user's model expects most of a rate [users, ...], and what it
        expects."""
        rates = kbps[..., None]
        expected = self.opinion(rates, np.broadcast_to(LADDER, (*kbps.shape, len(LADDER))), MAX_PREFETCH)
        # The lowest of those that are as good: a user who does not mind the quality has no use for it.
        best = np.argmax(expected >= expected.max(axis=-1, keepdims=True) - 1e-6, axis=-1)
        return LADDER[best], np.take_along_axis(expected, best[..., None], axis=-1)[..., 0]

    def option_gains(self) -> FloatArray:
        """What each option is worth to each user, float64 [users, options]: never less than one of a lower
        rate."""
        n = (len(self), len(OPTION_KBPS))
        expected = self.opinion(
            np.broadcast_to(OPTION_KBPS, n), np.broadcast_to(OPTION_BITRATES, n), MAX_PREFETCH
        )
        return np.maximum.accumulate(gain(expected, self.ela[:, None]), axis=1)

    def prefetch(self, kbps: FloatArray, bitrate_kbps: FloatArray) -> IntArray:
        """The least segments to prefetch, [users], with which no more than :data:`ENOUGH` of the opinion is
        lost."""
        counts = np.arange(MAX_PREFETCH + 1)
        expected = self.opinion(kbps[:, None], bitrate_kbps[:, None], counts)
        return np.argmax(expected >= expected[:, -1:] - ENOUGH, axis=1)
