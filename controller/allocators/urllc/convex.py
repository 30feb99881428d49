"""SP2 and SP3 of the paper by CVXPY and Clarabel: built anew each time, or once with parameters (DPP).

The problems are those of :mod:`controller.allocators.urllc.offloading` and of
:mod:`controller.allocators.urllc.barrier` of kind ``PAPER``, written as the paper writes them, in b, p, tau,
f_ue and f_es. They are what the compiled path is held against.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from controller.allocators.urllc import barrier
from controller.allocators.urllc.barrier import B, G, P, T, V, W
from controller.allocators.urllc.instance import FloatArray, Instance
from controller.allocators.urllc.model import Allocation, rate_mbps
from controller.allocators.urllc.offloading import programme
from controller.allocators.urllc.resources import LATE, Constants

_SMALL = 1e-9


class Resources:
    """SP3 with parameters for everything that changes from one iteration, or one instance, to the next.

    Compiled once for a number of devices; a device with a cached task is one whose uplink terms have the
    factor 0. Powers are in parts of the most that a device has, rates f in GHz, times in ms.
    """

    def __init__(self, devices: int) -> None:
        m = devices
        self._b, self._p, self._tau = (cp.Variable(m, pos=True) for _ in range(3))
        self._ue, self._edge, self._late = (cp.Variable(m, pos=True) for _ in range(3))
        names: tuple[str, ...] = (
            "local",
            "away",
            "air",
            "sent",
            "spent",
            "p2",
            "tau2",
            "energy",
            "time",
            "slowest",
        )
        names += ("constant", "per_p", "per_b", "over_b", "sends", "weight", "ue_top")
        self.parameters: dict[str, Any] = {name: cp.Parameter(m, nonneg=True) for name in names}
        self.parameters["constant"] = cp.Parameter(m)
        self.parameters["top"] = cp.Parameter(nonneg=True)
        q = self.parameters
        rate = q["constant"] - cp.multiply(q["per_p"], cp.inv_pos(self._p))
        rate -= cp.multiply(q["per_b"], self._b) + cp.multiply(q["over_b"], cp.inv_pos(self._b))
        latency = cp.multiply(q["local"], cp.inv_pos(self._ue)) + cp.multiply(q["sent"], self._tau)
        latency += cp.multiply(q["away"], cp.inv_pos(self._edge))
        spent = cp.multiply(q["spent"], cp.square(self._ue)) + cp.multiply(q["p2"], cp.square(self._p))
        spent += cp.multiply(q["tau2"], cp.square(self._tau))
        self.problem = cp.Problem(
            cp.Minimize(cp.sum(latency) + LATE * cp.sum(self._late)),
            [
                cp.inv_pos(self._tau) <= rate,
                spent <= q["energy"],
                latency <= q["time"] + self._late,
                cp.multiply(q["air"], self._tau) <= q["slowest"] + self._late,
                cp.sum(cp.multiply(q["sends"], self._b)) <= 1.0,
                q["weight"] @ self._edge <= q["top"],
                self._b <= 1.0,
                self._p <= 1.0,
                self._ue <= q["ue_top"],
                self._edge <= q["top"],
                self._tau <= 1e6,
            ],
        )

    def step(self, c: Constants, x: FloatArray) -> FloatArray:
        """The point that SP3 has at ``x``; RuntimeError where the solver has none."""
        self._set(c, x)
        self.problem.solve(solver=cp.CLARABEL)
        if self.problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            raise RuntimeError(f"SP3: {self.problem.status}")
        out, i, sends = x.copy(), c.instance, ~c.cached
        out[sends, B] = _value(self._b)[sends]
        out[sends, P] = (_value(self._p) * i.max_power_w)[sends]
        own = (1.0 - x[:, W]) * i.mcycles
        out[sends, T] = (own / (_value(self._ue) * (1.0 - i.ue_deviation)))[sends]
        out[:, G] = x[:, W] * _value(self._edge)
        out[:, V] = _value(self._late)
        return out

    def _set(self, c: Constants, x: FloatArray) -> None:
        i, q, k = c.instance, self.parameters, c.k
        sends = (~c.cached).astype(np.float64)
        b, w = np.where(c.cached, 1.0, x[:, B]), x[:, W]
        p = np.where(c.cached, 1.0, x[:, P] / i.max_power_w)
        rate = rate_mbps(
            i, np.where(c.cached, 1.0, x[:, B]), np.where(c.cached, i.max_power_w, x[:, P]), exact=False
        )
        tau = 1.0 / np.maximum(rate, _SMALL)
        gamma = p * i.max_power_w * i.snr_per_w / b
        nat, part = np.log1p(gamma), gamma / (1.0 + gamma)
        scale, noise = c.scale, k[:, barrier.NOISE]
        root = np.sqrt(b)
        own = np.where(c.cached, 0.0, 1.0 - w)
        values = {
            "local": own * i.mcycles / (1.0 - i.ue_deviation),
            "away": w * k[:, barrier.EDGE_MCYCLES],
            "air": sends * i.kbit,
            "sent": sends * i.kbit * (1.0 if c.whole else w),
            "spent": i.mj_per_mcycle * own * i.mcycles * (1.0 - i.ue_deviation) ** 2,
            "p2": sends * 0.5 * i.kbit * w * i.max_power_w * tau / p,
            "tau2": sends * 0.5 * i.kbit * w * i.max_power_w * p / tau,
            "energy": i.energy_mj,
            "time": k[:, barrier.TIME],
            "slowest": np.minimum(k[:, barrier.RATE_TIME], 1e6),
            "constant": scale * (2.0 * b * nat + 2.0 * b * part - 0.5 * noise * root),
            "per_p": scale * b * part * p,
            "per_b": scale * (part + 0.5 * noise / root),
            "over_b": scale * nat * b * b,
            "sends": sends,
            "weight": w,
            "ue_top": i.ue_ghz,
        }
        for name, value in values.items():
            q[name].value = np.maximum(value, 0.0) if name != "constant" else value
        q["top"].value = i.edge_ghz


def rebuilt(c: Constants, x: FloatArray) -> FloatArray:
    """The same with a problem that is built, canonicalised and thrown away."""
    return Resources(len(c.instance)).step(c, x)


def offload(instance: Instance, a: Allocation) -> FloatArray:
    """SP2 by CVXPY; alpha [M], that of ``a`` where it has no solution."""
    cost, low, high, edge, rest = programme(instance, a)
    alpha = cp.Variable(len(instance))
    problem = cp.Problem(
        cp.Minimize(cost @ alpha), [alpha >= low, alpha <= high, (1.0 - alpha) @ edge <= rest * (1.0 + 1e-9)]
    )
    problem.solve(solver=cp.CLARABEL)
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        return a.local_share.copy()
    return np.where(a.cached, 0.0, np.clip(_value(alpha), low, high))


def _value(variable: Any) -> FloatArray:
    return np.asarray(variable.value, np.float64)
