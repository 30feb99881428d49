"""Power models of the edge GPU, the base station and the UE (MUCB1 paper, section V, eq. 4 to 6).

Every model is affine, so the saving of an average allocation is the average of the savings. The paper's
Table V truncates: it prints 37 % where the models give 37.6 %.
"""

from __future__ import annotations

from math import isfinite

CARRIER_MHZ = 40.0
"""Bandwidth of the carrier of 106 PRB at 30 kHz SCS."""


def gpu_power_w(mhz: float, *, w_per_mhz: float, idle_w: float) -> float:
    """GPU power in W at a clock (eq. 4): dynamic part ``w_per_mhz`` x clock, and what it takes idle.

    The paper could not measure the two constants; the caller gives them.
    """
    _check("GPU clock", mhz)
    return w_per_mhz * mhz + idle_w


def gpu_power_saving(mhz: float, *, max_mhz: float) -> float:
    """Saving of the dynamic part of the GPU's power against ``max_mhz``, 0..1 (eq. 4).

    It needs neither constant of the model.

    >>> round(gpu_power_saving(623, max_mhz=1600), 3)
    0.611
    """
    _check("GPU clock", mhz)
    if not max_mhz >= mhz or max_mhz == 0:
        raise ValueError(f"GPU clock {mhz!r} is above the highest clock {max_mhz!r}")
    return 1 - mhz / max_mhz


def bs_power(dl_prb: float, *, n_prb: int = 106) -> float:
    """Relative DL power of the base station: 145 + 135 b / n_prb (eq. 5), b the DL allocation in PRB.

    The paper leaves out the power for UL. It holds where the bandwidth part follows the quota at each
    control slot, which OAI does not do: a potential saving.
    """
    _check("DL allocation", dl_prb, n_prb)
    return 145 + 135 * dl_prb / n_prb


def bs_power_saving(dl_prb: float, *, n_prb: int = 106) -> float:
    """Saving of the base station's DL power against all PRBs, 0..1.

    >>> round(bs_power_saving(10), 3)
    0.437
    """
    return 1 - bs_power(dl_prb, n_prb=n_prb) / bs_power(n_prb, n_prb=n_prb)


def ue_power(ul_prb: float, *, n_prb: int = 106, carrier_mhz: float = CARRIER_MHZ) -> float:
    """Relative power of a UE: 0.4 + 0.6 (x - 20) / 80 (eq. 6), x the MHz of the UL allocation.

    x = carrier_mhz b / n_prb. The scaling is that of TR 38.840 Table 21, which speaks of bandwidths from
    20 to 100 MHz: below 20 MHz (53 PRB of 106) it is an extrapolation, and so are most of the savings of
    Table V. Potential savings, as for :func:`bs_power`.
    """
    _check("UL allocation", ul_prb, n_prb)
    return 0.4 + 0.6 * (carrier_mhz * ul_prb / n_prb - 20) / 80


def ue_power_saving(ul_prb: float, *, n_prb: int = 106, carrier_mhz: float = CARRIER_MHZ) -> float:
    """Saving of a UE's power against all PRBs, 0..1.

    >>> round(ue_power_saving(33), 3)
    0.376
    """
    at_full = ue_power(n_prb, n_prb=n_prb, carrier_mhz=carrier_mhz)
    return 1 - ue_power(ul_prb, n_prb=n_prb, carrier_mhz=carrier_mhz) / at_full


def _check(what: str, value: float, limit: float | None = None) -> None:
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{what} {value!r} is not a number from 0")
    if limit is not None and value > limit:
        raise ValueError(f"{what} {value!r} is above {limit!r}")
