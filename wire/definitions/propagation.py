"""What reaches a UE: path loss of an urban macro cell, shadowing, SINR, and the rate that they leave.

Source: 3GPP TR 38.901 V17, table 7.4.1-1 (UMa path loss), 7.4.2-1 (line of sight), 7.4.4 and table 7.5-6
(shadowing and its correlation); TR 38.803 5.2.7 (throughput of a SINR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LIGHT_M_S = 299_792_458.0


@dataclass(frozen=True, slots=True)
class Site:
    """Carrier and antennas of every base station: the paper's band n28 with common values for the rest.

    ``prb`` PRBs of 180 kHz (15 kHz SCS). ``activity`` is the part of the time in which a PRB of the other
    base stations is in use, and interferes.
    """

    frequency_ghz: float = 0.7
    height_m: float = 25.0
    ue_height_m: float = 1.5
    power_dbm: float = 46.0
    """Over the whole carrier."""
    gain_db: float = 8.0
    """Of the antennas less all losses."""
    noise_figure_db: float = 9.0
    prb: int = 52
    prb_hz: float = 180e3
    shadowing_db: float = 6.0
    """Standard deviation without line of sight."""
    shadowing_m: float = 50.0
    """Distance over which its autocorrelation falls to 1/e."""
    activity: float = 0.5


def line_of_sight(distance_m: Any) -> FloatArray:
    """Probability of a line of sight in UMa, of a UE at 13 m or lower, by the distance on the ground."""
    d = np.maximum(np.asarray(distance_m, np.float64), 1.0)
    return np.where(d <= 18.0, 1.0, 18.0 / d + np.exp(-d / 63.0) * (1.0 - 18.0 / d))


def path_loss_db(distance_m: Any, site: Site) -> FloatArray:
    """Path loss in dB over a distance on the ground of 10 m (less counts as that) to 5 km, without shadowing.

    Its expectation over being in line of sight or not: a UE on its way passes from one to the other.
    """
    d = np.maximum(np.asarray(distance_m, np.float64), 10.0)
    rise = site.height_m - site.ue_height_m
    d3 = np.hypot(d, rise)
    f = 20.0 * np.log10(site.frequency_ghz)
    breakpoint_m = (
        4.0 * (site.height_m - 1.0) * (site.ue_height_m - 1.0) * site.frequency_ghz * 1e9 / LIGHT_M_S
    )
    near = 28.0 + 22.0 * np.log10(d3) + f
    far = 28.0 + 40.0 * np.log10(d3) + f - 9.0 * np.log10(breakpoint_m**2 + rise**2)
    los = np.where(d <= breakpoint_m, near, far)
    nlos = np.maximum(los, 13.54 + 39.08 * np.log10(d3) + f - 0.6 * (site.ue_height_m - 1.5))
    p = line_of_sight(d)
    return p * los + (1.0 - p) * nlos


def shadowing_db(rng: np.random.Generator, travelled_m: FloatArray, stations: int, site: Site) -> FloatArray:
    """Shadowing in dB, float64 [users, times, stations]: correlated over what a user has travelled, [users,
    times].

    First-order autoregressive, as TR 38.901 7.4.4 has it; independent between stations.
    """
    users, times = travelled_m.shape
    draws = rng.standard_normal((users, times, stations))
    out = np.empty_like(draws)
    out[:, 0] = draws[:, 0]
    rho = np.exp(-np.abs(np.diff(travelled_m, axis=1)) / site.shadowing_m)
    for t in range(1, times):
        r = rho[:, t - 1, None]
        out[:, t] = r * out[:, t - 1] + np.sqrt(1.0 - r * r) * draws[:, t]
    return site.shadowing_db * out


def received_dbm(
    positions_m: FloatArray, stations_m: FloatArray, shadowing: FloatArray, site: Site
) -> FloatArray:
    """Power of each station's carrier at each UE, dBm, float64 [users, times, stations].

    ``positions_m`` is [users, times, 2], ``stations_m`` [stations, 2], ``shadowing`` in dB as the result.
    """
    distance = np.linalg.norm(positions_m[:, :, None, :] - stations_m, axis=-1)
    return site.power_dbm + site.gain_db - path_loss_db(distance, site) - shadowing


def serving(received: FloatArray, hysteresis_db: float = 4.0) -> NDArray[np.int64]:
    """The station that serves each user at each time, int64 [users, times].

    The strongest to begin with; another from when it is ``hysteresis_db`` stronger (event A3, TS 38.331
    5.5.4.4).
    """
    users, times, _ = received.shape
    out = np.empty((users, times), np.int64)
    out[:, 0] = received[:, 0].argmax(axis=-1)
    rows = np.arange(users)
    for t in range(1, times):
        best = received[:, t].argmax(axis=-1)
        stronger = received[rows, t, best] > received[rows, t, out[:, t - 1]] + hysteresis_db
        out[:, t] = np.where(stronger, best, out[:, t - 1])
    return out


def sinr_db(received: FloatArray, station: Any, site: Site) -> FloatArray:
    """SINR in dB, float64 [users, times], at the ``station`` that serves [users, times], interference of the
    others at their activity."""
    milliwatt = 10.0 ** (received / 10.0)
    own = np.take_along_axis(milliwatt, np.asarray(station, np.int64)[..., None], axis=-1)[..., 0]
    noise = 10.0 ** ((-174.0 + site.noise_figure_db) / 10.0) * site.prb * site.prb_hz
    return np.asarray(10.0 * np.log10(own / (noise + site.activity * (milliwatt.sum(axis=-1) - own))))


def efficiency(sinr: Any) -> FloatArray:
    """bit/s/Hz of a SINR in dB: 0.6 log2(1 + SINR), 0 below -10 dB, at most that of 30 dB (TR 38.803)."""
    db = np.asarray(sinr, np.float64)
    return np.where(db < -10.0, 0.0, 0.6 * np.log2(1.0 + 10.0 ** (np.minimum(db, 30.0) / 10.0)))
