"""The ways of a scenario's UEs between its cells: where they are, what they receive, who serves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from controller.config import MobilityModel
from wire.definitions import mobility, propagation
from wire.definitions.nr import N_SC_PER_RB

FloatArray = NDArray[np.float64]

PRB_HZ = N_SC_PER_RB * 30e3
_STREAM = 0x6D6F7665
"""Keeps these draws apart from others of the same seed."""


@dataclass(frozen=True, slots=True)
class Ways:
    """Of UEs, second by second: ``positions_m`` [UEs, seconds, 2], ``speeds_kmh`` [UEs, seconds],
    ``received_dbm`` [UEs, seconds, stations], the ``serving`` station [UEs, seconds]."""

    site: propagation.Site
    positions_m: FloatArray
    speeds_kmh: FloatArray
    received_dbm: FloatArray
    serving: NDArray[np.int64]

    def sinr_db(self, ue: int, station: int) -> FloatArray:
        """Downlink SINR of a UE at a station, [seconds]."""
        received = self.received_dbm[ue : ue + 1]
        sinr: FloatArray = propagation.sinr_db(received, np.full(received.shape[:2], station), self.site)[0]
        return sinr

    def within(
        self, ue: int, station: int, active: Sequence[tuple[float, float]], points: Sequence[float]
    ) -> tuple[tuple[float, float], ...]:
        """The intervals of ``active``, in s, that a user spends at a station: from a start or a handover
        point, given in ``points``, it is where its UE is served then."""
        out: list[tuple[float, float]] = []
        for start, stop in active:
            cuts = [start, *(p for p in points if start < p < stop), stop]
            for begin, end in pairwise(cuts):
                if self.serving[ue, int(begin)] != station:
                    continue
                if out and out[-1][1] == begin and begin != start:
                    out[-1] = out[-1][0], end
                else:
                    out.append((begin, end))
        return tuple(out)


def ways(model: MobilityModel, seed: int, ues: int, duration_s: float, prb: int) -> Ways:
    """The ways of a scenario with a seed, on a carrier of ``prb`` PRBs."""
    rng = np.random.default_rng((seed, _STREAM))
    site = propagation.Site(prb=prb, prb_hz=PRB_HZ)
    positions, speeds = mobility.walks(rng, ues, ceil(duration_s), model.area_m)
    travelled = np.cumsum(speeds / 3.6, axis=1) - speeds[:, :1] / 3.6
    shadowing = propagation.shadowing_db(rng, travelled, len(model.stations), site)
    received = propagation.received_dbm(positions, np.array(model.stations), shadowing, site)
    return Ways(site, positions, speeds, received, propagation.serving(received, model.hysteresis_db))
