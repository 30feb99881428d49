"""Trains twins on frames that are known, and learns how far they may be trusted on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.allocators.mar.margin import Margin, deviate
from controller.allocators.mar.options import MarOptions
from controller.allocators.mar.traces import Observed
from controller.allocators.mar.twin import ErrorModel, Model, bin_edges, every, rows, train
from controller.twins.softmax import Training
from wire.definitions.poses import FloatArray, IntArray
from wire.definitions.vchr import Content

STRIDE = 3
"""Of the frames that are looked at: neighbours say nearly the same."""
FEW_USERS = 4
"""With fewer, the margin is learned across windows instead of across users."""


@dataclass(frozen=True, slots=True)
class Twins:
    """The twins of users [U]: their ``model``, the Cholesky factors of their errors [U, F, 6, 6], and the
    ``margin`` of what they expect; None where too little was known to learn it."""

    model: Model
    deviation: FloatArray
    margin: Margin | None

    def probabilities(self, observed: Observed, frames: IntArray) -> FloatArray:
        """Equation (10) for places of frames: [U, F, len(frames), bins]."""
        hz = np.array(observed.upload_hz)[None, :, None]
        return self.model.probabilities(observed.situation[:, :, frames], hz, self.deviation[:, :, None])

    def expected(self, observed: Observed, frames: IntArray) -> FloatArray:
        """The mean probability of a hit over some frames, [U, F]."""
        return self.model.hit(self.probabilities(observed, frames)).mean(axis=-1)


def share_of_hits(vchr: FloatArray, least: float) -> FloatArray:
    """Of the frames on the last axis in which there is something to render, the share with a VCHR of at
    least ``least``; NaN where there is none."""
    judged = np.isfinite(vchr)
    count = judged.sum(axis=-1)
    hits = (judged & (np.nan_to_num(vchr) >= least - 1e-9)).sum(axis=-1)
    return np.where(count > 0, hits / np.maximum(count, 1), np.nan)


def was_kept(share: FloatArray, rho: float) -> FloatArray:
    """1 or 0 whether a share of hits is at least ``rho``; NaN where it is."""
    return np.where(np.isfinite(share), (share >= rho - 1e-9).astype(np.float64), np.nan)


def learn(
    observed: Observed,
    known: IntArray,
    judged: int,
    content: Content,
    options: MarOptions,
    *,
    seed: int = 0,
    training: Training | None = None,
) -> Twins:
    """Twins from the frames at the places ``known`` (rising), for a promise about ``judged`` others.

    The margin is learned from windows of about as many frames, at least two. What a twin expects of a window
    it has neither been trained on (the network is that of other users) nor measured its errors in.
    ValueError where no frame is known.
    """
    if not len(known):
        raise ValueError("no frame to learn from")
    edges = bin_edges(options.vchr, options.bins)
    users = observed.users
    count = max(2, round(len(known) / max(judged, 1)))
    windows = [every(w, STRIDE) for w in np.array_split(known, count) if len(w)]

    def deviation(frames: IntArray) -> FloatArray:
        mask = np.zeros((users, len(observed.frame)), np.bool_)
        mask[:, frames] = True
        return ErrorModel.of(observed.error, mask).deviation()

    def features(of: FloatArray, frames: IntArray) -> FloatArray:
        return rows(observed, of, frames, content, options.field_of_view_deg, options.vchr)

    x, vchr = [], [observed.vchr[:, :, w] for w in windows]
    for w in windows:
        others = known[(known < w[0]) | (known > w[-1])]
        x.append(features(deviation(others if len(others) else known), w))

    def trained(of_users: IntArray, of_windows: list[int]) -> Model:
        chosen = [(x[i][of_users], vchr[i][of_users]) for i in of_windows]
        network = train(
            np.concatenate([a.reshape(-1, a.shape[-1]) for a, _ in chosen]),
            np.concatenate([b.reshape(-1) for _, b in chosen]),
            edges,
            seed=seed,
            training=training,
        )
        return Model(network, edges, options.vchr, content, options.field_of_view_deg)

    everybody, all_windows = np.arange(users), list(range(len(windows)))
    model = trained(everybody, all_windows)
    expected = np.full((len(windows), users, len(observed.upload_hz)), np.nan)
    try:
        if users >= FEW_USERS:
            half = np.random.default_rng(seed).permutation(users) % 2
            for part in (0, 1):
                judge = trained(everybody[half != part], all_windows)
                for i in all_windows:
                    p = judge.hit(judge.network.predict(x[i][half == part]))
                    expected[i, half == part] = p.mean(axis=-1)
        else:
            for i in all_windows:
                judge = trained(everybody, [j for j in all_windows if j != i])
                expected[i] = judge.hit(judge.network.predict(x[i])).mean(axis=-1)
    except ValueError:  # no frame with anything to render is left of those to train on
        return Twins(model, deviation(known), None)
    frequencies = len(observed.upload_hz)
    kept = was_kept(np.stack([share_of_hits(v, options.vchr) for v in vchr]), options.rho)
    d = deviate(expected, options.rho)
    margin = Margin.learn(d.reshape(-1, frequencies), kept.reshape(-1, frequencies))
    return Twins(model, deviation(known), margin)
