"""What users would say of a rate, compiled, is what their models say."""

from __future__ import annotations

import numpy as np
import pytest

from controller.allocators.video.playback import shown_share
from controller.allocators.video.users import LADDER, gain
from tests.allocators.video.people import STRUCTURES, users
from wire.definitions import mos


def test_opinions_are_those_of_the_models() -> None:
    kinds = tuple(range(len(STRUCTURES)))
    known = users(24, 1, kinds=kinds)
    rng = np.random.default_rng(2)
    kbps = rng.uniform(0.0, 9000.0, (24, 5, 1))
    got = known.opinion(kbps, np.broadcast_to(LADDER, (24, 5, len(LADDER))), 3)
    assert got.shape == (24, 5, len(LADDER))
    for i, model in enumerate(known.models):
        ratio = kbps[i] / LADDER
        part = shown_share(ratio, known.swipes_per_min[i], 3)
        expected = model.predict(
            {
                "stalled": 60.0 * (1.0 - part),
                "quality": mos.quality(LADDER) * part,
                "delay": np.minimum(1.0 / np.maximum(ratio, 1e-3), 60.0),
                "throughput": kbps[i] / 1e3 + 0.0 * ratio,
                "jitter": known.jitter[i],
                "loss": known.loss[i],
                "behaviour": known.behaviour[i],
                "environment": known.environment[i],
            }
        )
        np.testing.assert_allclose(got[i], np.broadcast_to(expected, got[i].shape), atol=1e-12)


def test_the_best_bitrate_is_found_among_all() -> None:
    known = users(12, 3)
    kbps = np.linspace(200.0, 4000.0, 12)
    bitrate, expected = known.best_bitrates(kbps)
    each = known.opinion(kbps[:, None], np.broadcast_to(LADDER, (12, len(LADDER))), 4)
    np.testing.assert_allclose(expected, each.max(axis=1), atol=1e-6)
    assert set(bitrate) <= set(LADDER)
    # Who minds stalls alone has no use for more than the lowest.
    assert (bitrate[::3] == LADDER[0]).all()


def test_nobody_is_no_error() -> None:
    nobody = users(3, 1).take([])
    assert nobody.opinion(np.empty((0, 2)), np.empty((0, 2)), 1).shape == (0, 2)


@pytest.mark.parametrize("ela", [3.0, 4.0, 4.9])
def test_a_better_opinion_is_never_worth_less_and_a_kept_agreement_nearly_all(ela: float) -> None:
    opinions = np.linspace(1.0, 5.0, 81)
    worth = gain(opinions, ela)
    assert (np.diff(worth) > 0.0).all()
    # Far below, only how near it comes counts; well above, there is hardly more to be had.
    assert worth[0] == pytest.approx(0.5 / ela, abs=1e-3)
    assert gain(ela + 1.0, ela) == pytest.approx(1.0, abs=0.01)
