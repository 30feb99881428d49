"""SP2 and SP3 of the paper by CVXPY and Clarabel: built anew each time, or once with parameters (DPP).

The problems are those of :mod:`controller.allocators.urllc.offloading` and of
:mod:`controller.allocators.urllc.barrier` of kind ``PAPER``, written as the paper writes them, in alpha and
in b, p, tau, f_ue and f_es. They are what the compiled path is held against.
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

_FACTORS = (
    "local", "away", "air", "sent", "computing", "radio", "per_p", "per_b", "over_b", "band", "rates",
)  # fmt: skip
_LIMITS = ("energy", "time", "slowest", "b_top", "p_top", "ue_top", "edge_top")
_LONGEST = 1e4
"""Times a transmission before: bounds what a device that sends nothing has of tau."""
_FINE = 1e-10
"""Tolerances of the linear programme."""
_VERTEX = 1e-6
"""How near to a bound of alpha it is that bound. An interior point method stops short of it; the rate of the
processor of a device that offloads all but 1e-6 would be set by this remainder, and the next programme by
that."""


class Resources:
    """SP3 with parameters for everything that changes from one iteration, or one instance, to the next.

    Compiled once for a number of devices. Variables are in parts of their values at the point of the
    approximation, so that they are near 1; a factor is 0 for a device whose task does not need what it is of.
    """

    def __init__(self, devices: int) -> None:
        m = devices
        self._b, self._p, self._tau = (cp.Variable(m, pos=True) for _ in range(3))
        self._ue, self._edge, self._late = (cp.Variable(m, pos=True) for _ in range(3))
        self.parameters: dict[str, Any] = {
            name: cp.Parameter(m, nonneg=True) for name in _FACTORS + _LIMITS + ("constant",)
        }
        q = self.parameters
        rate = q["constant"] - cp.multiply(q["per_p"], cp.inv_pos(self._p))
        rate -= cp.multiply(q["per_b"], self._b) + cp.multiply(q["over_b"], cp.inv_pos(self._b))
        latency = cp.multiply(q["local"], cp.inv_pos(self._ue)) + cp.multiply(q["sent"], self._tau)
        latency += cp.multiply(q["away"], cp.inv_pos(self._edge))
        spent = cp.multiply(q["computing"], cp.square(self._ue))
        spent += cp.multiply(q["radio"], cp.square(self._p) + cp.square(self._tau))
        self.problem = cp.Problem(
            cp.Minimize(cp.sum(latency) + LATE * cp.sum(self._late)),
            [
                cp.inv_pos(self._tau) <= rate,
                spent <= q["energy"],
                latency <= q["time"] + self._late,
                cp.multiply(q["air"], self._tau) <= q["slowest"] + self._late,
                q["band"] @ self._b <= 1.0,
                q["rates"] @ self._edge <= 1.0,
                self._b <= q["b_top"],
                self._p <= q["p_top"],
                self._ue <= q["ue_top"],
                self._edge <= q["edge_top"],
                self._tau <= _LONGEST,
            ],
        )

    def step(self, c: Constants, x: FloatArray) -> FloatArray | None:
        """The point that SP3 has at ``x``; None where the solver has none."""
        i, w = c.instance, x[:, W]
        sends, computes, uses_edge = ~c.cached, ~c.cached & (w < 1.0), w > 0.0
        b, p = np.where(sends, x[:, B], 1.0), np.where(sends, x[:, P], i.max_power_w)
        own = np.where(computes, 1.0 - w, 0.0) * i.mcycles
        top_ue = i.ue_ghz * (1.0 - i.ue_deviation)
        ue = np.divide(own, x[:, T], out=top_ue.copy(), where=computes)
        edge = np.divide(x[:, G], w, out=np.full(len(w), i.edge_ghz), where=uses_edge)
        rate = rate_mbps(i, b, p, exact=False)
        if (rate[sends] <= 0.0).any():
            return None
        rate = np.where(sends, rate, 1.0)
        tau, gamma = 1.0 / rate, p * i.snr_per_w / b
        nat, part = np.log1p(gamma), gamma / (1.0 + gamma)
        noise = 0.5 * c.k[:, barrier.NOISE] * np.sqrt(b)
        scale = np.where(sends, c.scale * tau, 0.0)
        values = {
            "local": own / ue,
            "away": w * c.k[:, barrier.EDGE_MCYCLES] / edge,
            "air": sends * i.kbit * tau,
            "sent": sends * i.kbit * tau * (1.0 if c.whole else w),
            "computing": i.mj_per_mcycle * own * ue**2,
            "radio": 0.5 * sends * i.kbit * w * p * tau,
            "per_p": scale * b * part,
            "per_b": scale * (b * part + noise),
            "over_b": scale * b * nat,
            "constant": np.where(sends, scale * (2.0 * b * nat + 2.0 * b * part - noise), 2.0),
            "band": sends * b,
            "rates": w * edge / i.edge_ghz,
            "energy": i.energy_mj,
            "time": c.k[:, barrier.TIME],
            "slowest": c.k[:, barrier.RATE_TIME],
            "b_top": 1.0 / b,
            "p_top": i.max_power_w / p,
            "ue_top": top_ue / ue,
            "edge_top": i.edge_ghz / edge,
        }
        for name, value in values.items():
            self.parameters[name].value = value
        self.problem.solve(solver=cp.CLARABEL)
        if self.problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return None
        out = x.copy()
        out[sends, B], out[sends, P] = (b * _value(self._b))[sends], (p * _value(self._p))[sends]
        out[computes, T] = (own / (ue * _value(self._ue)))[computes]
        out[:, G] = w * edge * _value(self._edge)
        out[:, V] = _value(self._late)
        return out


class Offloading:
    """SP2 with parameters, compiled once for a number of devices."""

    def __init__(self, devices: int) -> None:
        self._alpha = cp.Variable(devices)
        self._cost, self._low, self._high = (cp.Parameter(devices) for _ in range(3))
        self._edge, self._rest = cp.Parameter(devices, nonneg=True), cp.Parameter()
        self.problem = cp.Problem(
            cp.Minimize(self._cost @ self._alpha),
            [
                self._alpha >= self._low,
                self._alpha <= self._high,
                cp.sum(self._edge) - self._edge @ self._alpha <= self._rest,
            ],
        )

    def step(self, instance: Instance, a: Allocation) -> FloatArray:
        """The optimal alpha [M]; that of ``a`` where (6f) leaves none."""
        cost, low, high, edge, rest = programme(instance, a)
        self._cost.value, self._low.value, self._high.value, self._edge.value = cost, low, high, edge
        self._rest.value = rest * (1.0 + 1e-9)
        self.problem.solve(solver=cp.CLARABEL, tol_gap_abs=_FINE, tol_gap_rel=_FINE, tol_feas=_FINE)
        if self.problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return a.local_share.copy()
        alpha = np.clip(_value(self._alpha), low, high)
        for vertex in (low, high):
            alpha = np.where(np.abs(alpha - vertex) <= _VERTEX, vertex, alpha)
        return np.where(a.cached, 0.0, alpha)


def rebuilt_resources(c: Constants, x: FloatArray) -> FloatArray | None:
    """SP3 with a problem that is built, canonicalised and thrown away."""
    return Resources(len(c.instance)).step(c, x)


def rebuilt_offloading(instance: Instance, a: Allocation) -> FloatArray:
    """SP2 likewise."""
    return Offloading(len(instance)).step(instance, a)


def _value(variable: Any) -> FloatArray:
    return np.asarray(variable.value, np.float64)
