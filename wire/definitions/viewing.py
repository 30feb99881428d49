"""Who watches short videos, and how: the emulated users of the digital-agents paper.

A viewer asks for one video after another: each swipe is a request. How often it swipes depends on what it is
up to (:data:`STATES`), which it changes from time to time. Nothing of this depends on what the network does,
so that runs under different allocations have the same swipes.

The player. A video comes in segments of the same length. Those of the current video are fetched ahead up to
:data:`AHEAD`, and the first segment of each of the next ``prefetch`` videos: the next segment of the current
video goes first, then those of the next videos, then the rest. Playback begins with a whole segment and
stands still while there is none. On a swipe what is left of the current video is thrown away; the next one
begins at once where its first segment is there.

Section IV of the paper gives the rate of requests (6, read as a minute) and the range of ELAs; the rest is
assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire.definitions import mos

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STATES: Final = ("watching", "browsing", "skimming")
REQUESTS_PER_MIN: Final = 6.0
RELATIVE_RATES: Final = (0.5, 1.0, 2.0)
"""Of swipes in each state; over the time in them their mean is 1."""
DWELL_S: Final = (120.0, 60.0, 60.0)
"""Mean time in each state."""
DWELL_SHAPE: Final = 4.0
"""Of the gamma law of that time: who has long been in a state leaves it sooner."""
ONWARD: Final = 0.8
"""Probability that the next state is the next of the list, and not the other."""
AHEAD: Final = 4
"""Segments of the current video."""
MAX_PREFETCH: Final = 4
SEGMENT_S: Final = 1.0
CYCLES_PER_BIT: Final = 180.0
"""Of a segment's bits, for transcoding at the edge."""
BEHAVIOUR_S: Final = 60.0
"""Swipes are counted over this time for B."""
ELA_RANGE: Final = (3.0, 5.0)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whom an emulated user is: its experience-level agreement, and how it judges
    (:mod:`wire.definitions.mos`).

    ``weights`` are those of B and C in the impact function; 0: it does not mind.
    """

    ela: float
    principle: str
    impact: str
    weights: tuple[float, float]

    def expected(self, stalled_s: float, quality: float, behaviour: float, environment: float) -> float:
        """E = S x I(B, C), round which it scores."""
        service = float(mos.service_quality(self.principle, stalled_s, quality))
        return service * float(mos.impact(self.impact, behaviour, environment, self.weights))

    def mean_score(self, stalled_s: float, quality: float, behaviour: float, environment: float) -> float:
        """The mean of its scores."""
        expected = self.expected(stalled_s, quality, behaviour, environment)
        return mos.mean_score(expected, mos.DEVIATIONS[self.principle])

    def score(
        self, stalled_s: float, quality: float, behaviour: float, environment: float, uniform: float
    ) -> float:
        """What it says of an interval, from a uniform draw."""
        expected = self.expected(stalled_s, quality, behaviour, environment)
        return mos.score(expected, mos.DEVIATIONS[self.principle], uniform)


def draw_viewer(rng: np.random.Generator) -> Viewer:
    """A viewer at random: each principle and impact alike, B and C minded by 70 % each, ELA uniform."""
    principle = mos.PRINCIPLES[int(rng.integers(len(mos.PRINCIPLES)))]
    shape = mos.IMPACTS[int(rng.integers(len(mos.IMPACTS)))]
    minds, weight = rng.uniform(size=2) < 0.7, rng.uniform(0.05, 0.25, 2)
    u, v = (float(w) if m else 0.0 for m, w in zip(minds, weight, strict=True))
    return Viewer(float(rng.uniform(*ELA_RANGE)), principle, shape, (u, v))


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a viewer is up to: ``since_s`` [n] ascending, from 0, and ``state`` [n]; ``swipes_s``
    ascending."""

    since_s: FloatArray
    state: IntArray
    swipes_s: FloatArray

    def swipes_per_min(self, time_s: FloatArray) -> FloatArray:
        """Swipes in the :data:`BEHAVIOUR_S` before each time, in a minute; before there was so much time, in
        what there was, and at least 10 s."""
        time_s = np.asarray(time_s, np.float64)
        begin = np.maximum(time_s - BEHAVIOUR_S, 0.0)
        count = np.searchsorted(self.swipes_s, time_s, side="right") - np.searchsorted(
            self.swipes_s, begin, side="right"
        )
        return np.asarray(60.0 * count / np.maximum(time_s - begin, 10.0))


def draw_behaviour(
    rng: np.random.Generator, seconds: float, requests_per_min: float = REQUESTS_PER_MIN
) -> Behaviour:
    """States and swipes of one viewer until ``seconds``; the first video is there at 0, without a swipe."""
    since, states, swipes = [], [], []
    at, state = 0.0, int(rng.choice(len(STATES), p=np.array(DWELL_S) / sum(DWELL_S)))
    while at < seconds:
        since.append(at)
        states.append(state)
        stay = float(rng.gamma(DWELL_SHAPE, DWELL_S[state] / DWELL_SHAPE))
        count = int(rng.poisson(requests_per_min * RELATIVE_RATES[state] * stay / 60.0))
        swipes.append(at + np.sort(rng.uniform(0.0, stay, count)))
        at += stay
        state = (state + (1 if rng.uniform() < ONWARD else 2)) % len(STATES)
    times = np.concatenate(swipes)
    return Behaviour(np.array(since), np.array(states), times[times < seconds])
