"""SP2: what each device offloads, at given rates. A linear programme with one constraint that devices share.

At fixed s, b, p and f latency, energy and constraint (6f) are affine in alpha. What a device's own
constraints leave is an interval, and (6f) a knapsack that may be cut anywhere: those who lose least for the
rate that they give back keep more of their tasks, which is the optimum of the programme in closed form.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, rate_mbps
from controller.allocators.urllc.resources import LATE_MS

SLACK: Final = 1e-7
"""Of the limit of a constraint that the point at hand fills to the last digit."""


def programme(
    instance: Instance, a: Allocation
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, float]:
    """The linear programme: cost c, least and highest alpha, rates f_es, and what sum (1 - alpha) f_es may
    be.

    Columns [M]; alpha of a device with a cached task is 0 and its rate not counted. A device whose own
    constraints no alpha satisfies keeps what it has.
    """
    sends = ~a.cached
    ue, edge = a.ue_ghz * (1.0 - instance.ue_deviation), a.edge_ghz * (1.0 - instance.edge_deviation)
    rate = rate_mbps(instance, a.bandwidth, a.power_w, exact=False)
    can = sends & (ue > 0.0) & (edge > 0.0) & (rate > 0.0)
    own = np.divide(instance.mcycles, ue, out=np.zeros_like(ue), where=can)
    away = np.divide(instance.mcycles, edge, out=np.zeros_like(ue), where=can)
    air = np.divide(instance.kbit, rate, out=np.zeros_like(ue), where=can)
    whole = instance.transmitted == "whole"
    away_air = 0.0 if whole else air
    cost = np.where(can, own - away - away_air, 0.0)
    slack = instance.deadline_ms - instance.uncached_overhead_ms - air - np.where(can, away, 0.0)
    computing, radio = instance.mj_per_mcycle * instance.mcycles * ue**2, a.power_w * air
    low, high = np.zeros(len(a.cached)), np.ones(len(a.cached))
    more = np.minimum(SLACK * instance.deadline_ms, 0.5 * LATE_MS), SLACK * instance.energy_mj
    for slope, room in (
        (cost, slack + more[0]),
        (computing - radio, instance.energy_mj - radio + more[1]),
    ):
        bound = np.divide(room, slope, out=np.zeros_like(slope), where=slope != 0.0)
        high = np.where(slope > 0.0, np.minimum(high, bound), high)
        low = np.where(slope < 0.0, np.maximum(low, bound), low)
    fixed = ~can | (low > high)
    low, high = np.where(fixed, a.local_share, low), np.where(fixed, a.local_share, high)
    rest = instance.edge_ghz - float(a.edge_ghz[a.cached].sum())
    return cost, low, high, np.where(sends, a.edge_ghz, 0.0), rest


def offload(instance: Instance, a: Allocation) -> FloatArray:
    """The optimal alpha, [M]; that of ``a`` where (6f) leaves none."""
    cost, low, high, edge, rest = programme(instance, a)
    alpha = np.where(cost > 0.0, low, high)
    over = float((1.0 - alpha) @ edge) - rest
    if over <= SLACK * max(rest, 1.0):
        return np.where(a.cached, 0.0, alpha)
    gives = (edge > 0.0) & (alpha < high)
    order = np.flatnonzero(gives)[np.argsort((cost[gives] / edge[gives]), kind="stable")]
    for m in order:
        more = min(high[m] - alpha[m], over / edge[m])
        alpha[m] += more
        over -= more * edge[m]
        if over <= 0.0:
            break
    if over > SLACK * max(rest, 1.0) * 10.0:
        return a.local_share.copy()
    return np.where(a.cached, 0.0, alpha)
