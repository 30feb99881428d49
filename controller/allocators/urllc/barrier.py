"""The convex problem of the resources, by a barrier method whose Newton steps cost O(M). Compiled code.

Of a device that sends: b, its share of the band; p, its power; t, the latency of local processing; g, its
part of the edge's rate, g = (1 - alpha) f_es; w = 1 - alpha, the part that it offloads; v, by how much it is
late. In these all that is no product of b, p and w is convex as it stands:

- local energy theta/2 alpha C f^2 at f = alpha C / t is theta/2 (alpha C)^3 / t^2, and f <= F is alpha C <= F
t;
- the edge's latency w C / f_es is w^2 C / g, and constraint (6f) is linear, sum g <= F_es;
- b ln(1 + gamma) is the perspective of a logarithm, concave; so is sqrt(b V), as b V = b - b^3 / (b + a p)^2
is (a p = b gamma), and with the minus of rate (1) its tangent is a bound: with V = 1 that is (19).

Two inner approximations at a point are solved, and what satisfies them satisfies problem (6):

- :data:`PAPER`, SP3 of the paper: w is fixed, from 0 to 1, the rate is (17) less (19), the energy (13);
- :data:`JOINT`: w is a variable, ln(1 + gamma) is kept as it is, the dispersion is exact, and products are
  bounded by sums of powers: x y z <= x' y' z' / 3 ((x/x')^3 + (y/y')^3 + (z/z')^3), of which (12) is that of
  two.

Deadlines and R_min may be missed by v at a price, so that there is always a point inside, and an instance
without a solution shows by how much it has none.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from wire.definitions.compiled import kept

PAPER: Final = 0
JOINT: Final = 1
B, P, T, G, W, V = range(6)
N: Final = 6
"""Variables of a device."""

# Columns of the devices' constants.
KBIT, MCYCLES, EDGE_MCYCLES, ENERGY_3, TIME, ENERGY, SNR, NOISE, POWER, UE_GHZ, RATE_TIME, CACHED = range(12)
CONSTANTS: Final = 12

LEAST_W: Final = 1e-8
"""Where w is a variable it stays away from 0 and from 1 by so much."""
START: Final = 0.02
"""Of the objective at the first point: how far from the optimum the first centre may be."""
GROWTH: Final = 12.0
ROUGHLY: Final = 0.25
"""Of the Newton decrement, squared, where the next centre is sought."""
MAX_NEWTON: Final = 200
PATIENCE: Final = 12
"""Steps towards the first centre, until one that is farther from the optimum is sought: next to a boundary
Newton's method creeps."""
PIVOT: Final = 1e-13
"""Of an entry of the diagonal, the least that is left of it."""

compiled = kept(error_model="numpy")
inlined = kept(inline="always", error_model="numpy")


@compiled
def rate(kind: int, scale: float, k: Any, at: Any, b: float, p: float, out: Any) -> float:
    """The inner approximation of the rate at ``at`` in kbit/ms, and in ``out`` its R_b, R_p, R_bb, R_bp,
    R_pp."""
    snr, noise = k[SNR], k[NOISE]
    if kind == JOINT:
        gamma = at[P] * snr / at[B]
        more = 1.0 + gamma
        loss = math.sqrt(at[B] * gamma * (2.0 + gamma)) / more
        loss_b, loss_p = 0.5 * gamma**2 * (3.0 + gamma) / (more**3 * loss), snr / (more**3 * loss)
        gamma = p * snr / b
        nat, more = math.log1p(gamma), 1.0 + gamma
        value = b * nat
        out[0], out[1] = nat - gamma / more, snr / more
        out[2], out[3] = -(gamma * gamma) / (b * more * more), snr * gamma / (b * more * more)
        out[4] = -snr * snr / (b * more * more)
    else:
        loss = math.sqrt(at[B])
        loss_b, loss_p = 0.5 / loss, 0.0
        gamma = at[P] * snr / at[B]
        nat, part = math.log1p(gamma), gamma / (1.0 + gamma)
        square = nat * at[B] * at[B]
        value = 2.0 * at[B] * nat + at[B] * part * (2.0 - at[P] / p - b / at[B]) - square / b
        out[0], out[1] = square / (b * b) - part, at[B] * part * at[P] / (p * p)
        out[2], out[3], out[4] = -2.0 * square / (b * b * b), 0.0, -2.0 * out[1] / p
    value -= noise * (loss + loss_b * (b - at[B]) + loss_p * (p - at[P]))
    out[0] -= noise * loss_b
    out[1] -= noise * loss_p
    for i in range(5):
        out[i] *= scale
    return scale * value


@compiled
def device(
    kind: int, whole: bool, scale: float, edge: float, k: Any, at: Any, x: Any, weight: float, late: float,
    grad: Any, hess: Any, r: Any, gt: Any, ht: Any, ge: Any, he: Any,
) -> float:  # fmt: skip
    """The device's part of the barrier function at ``x``, its derivatives in grad and hess; inf outside.

    ``weight`` and ``late``: of its latency and of v in the objective. r, gt, ht, ge and he are room.
    """
    grad[:] = 0.0
    hess[:] = 0.0
    v, g = x[V], x[G]
    if v <= 0.0:
        return math.inf
    if k[CACHED] > 0.5:
        if g <= 0.0:
            return math.inf
        latency = k[EDGE_MCYCLES] / g
        slack, room = k[TIME] + v - latency, edge - g
        if slack <= 0.0 or room <= 0.0:
            return math.inf
        d, dd = -latency / g, 2.0 * latency / (g * g)
        grad[G] = weight * d + d / slack + 1.0 / room - 1.0 / g
        grad[V] = late - 1.0 / slack - 1.0 / v
        hess[G, G] = weight * dd + dd / slack + d * d / slack**2 + 1.0 / room**2 + 1.0 / g**2
        hess[V, V] = 1.0 / slack**2 + 1.0 / v**2
        hess[G, V] = hess[V, G] = -d / slack**2
        return weight * latency + late * v - math.log(slack * room * v * g)

    b, p, t, w = x[B], x[P], x[T], x[W]
    own = 1.0 - w
    computes, uses_edge = own > 0.0, w > 0.0
    if b <= 0.0 or p <= 0.0 or (computes and t <= 0.0) or (uses_edge and g <= 0.0):
        return math.inf
    if kind == JOINT and not (computes and uses_edge):
        return math.inf
    fast = rate(kind, scale, k, at, b, p, r)
    if fast <= 0.0:
        return math.inf
    tau, tau0, p0, w0 = 1.0 / fast, at[T], at[P], at[W]
    # The latency: t + transmission + edge.
    x_tau, x_w = tau / tau0, w / w0
    if whole:
        sent, s_tau, s_tau2, s_w, s_w2 = k[KBIT] * tau, k[KBIT], 0.0, 0.0, 0.0
    elif kind == PAPER:
        sent, s_tau, s_tau2, s_w, s_w2 = k[KBIT] * w * tau, k[KBIT] * w, 0.0, 0.0, 0.0
    else:
        c = k[KBIT] * w0 * tau0
        sent = 0.5 * c * (x_w * x_w + x_tau * x_tau)
        s_tau, s_tau2, s_w, s_w2 = c * x_tau / tau0, c / tau0**2, c * x_w / w0, c / w0**2
    at_edge, share = 0.0, 1.0
    if uses_edge:
        at_edge, share = w * w * k[EDGE_MCYCLES] / g, w * edge - g
    at_ue, local, clock = 0.0, 0.0, 1.0
    if computes:
        at_ue, local, clock = t, k[ENERGY_3] * own**3 / (t * t), k[UE_GHZ] * t - own * k[MCYCLES]
    slack = k[TIME] + v - at_ue - sent - at_edge
    # The energy.
    x_p = p / p0
    if kind == PAPER:
        c = 0.5 * k[KBIT] * w * p0 * tau0
        radio = c * (x_p * x_p + x_tau * x_tau)
        e_p, e_p2, e_tau, e_tau2 = (
            2.0 * c * x_p / p0,
            2.0 * c / p0**2,
            2.0 * c * x_tau / tau0,
            2.0 * c / tau0**2,
        )
        e_w, e_w2 = 0.0, 0.0
    else:
        c = k[KBIT] * w0 * p0 * tau0
        radio = c / 3.0 * (x_w**3 + x_p**3 + x_tau**3)
        e_p, e_p2, e_tau, e_tau2 = (
            c * x_p**2 / p0,
            2.0 * c * x_p / p0**2,
            c * x_tau**2 / tau0,
            2.0 * c * x_tau / tau0**2,
        )
        e_w, e_w2 = c * x_w**2 / w0, 2.0 * c * x_w / w0**2
    left = k[ENERGY] - local - radio
    quick = k[RATE_TIME] + v - k[KBIT] * tau
    power = k[POWER] - p
    if slack <= 0.0 or left <= 0.0 or quick <= 0.0 or clock <= 0.0 or share <= 0.0 or power <= 0.0:
        return math.inf
    value = (
        weight * (at_ue + sent + at_edge) + late * v
        - math.log(slack * left * quick * power) - math.log(b * p * v)
    )  # fmt: skip
    if computes:
        value -= math.log(clock * t)
    if uses_edge:
        value -= math.log(share * g)
    if kind == JOINT:
        value -= math.log(w * own)

    tau_b, tau_p = -r[0] * tau * tau, -r[1] * tau * tau
    tau_bb = 2.0 * r[0] * r[0] * tau**3 - r[2] * tau * tau
    tau_bp = 2.0 * r[0] * r[1] * tau**3 - r[3] * tau * tau
    tau_pp = 2.0 * r[1] * r[1] * tau**3 - r[4] * tau * tau

    gt[:] = 0.0
    ht[:] = 0.0
    gt[B], gt[P] = s_tau * tau_b, s_tau * tau_p
    if computes:
        gt[T] = 1.0
    if uses_edge:
        gt[G], gt[W] = -at_edge / g, 2.0 * at_edge / w + s_w
    ht[B, B] = s_tau * tau_bb + s_tau2 * tau_b * tau_b
    ht[B, P] = ht[P, B] = s_tau * tau_bp + s_tau2 * tau_b * tau_p
    ht[P, P] = s_tau * tau_pp + s_tau2 * tau_p * tau_p
    if uses_edge:
        ht[G, G] = 2.0 * at_edge / (g * g)
        ht[G, W] = ht[W, G] = -2.0 * at_edge / (g * w)
        ht[W, W] = 2.0 * at_edge / (w * w) + s_w2
    gt[V] = -1.0

    ge[:] = 0.0
    he[:] = 0.0
    ge[B], ge[P] = e_tau * tau_b, e_tau * tau_p + e_p
    if computes:
        ge[T], ge[W] = -2.0 * local / t, e_w - 3.0 * local / own
    he[B, B] = e_tau * tau_bb + e_tau2 * tau_b * tau_b
    he[B, P] = he[P, B] = e_tau * tau_bp + e_tau2 * tau_b * tau_p
    he[P, P] = e_tau * tau_pp + e_tau2 * tau_p * tau_p + e_p2
    if computes:
        he[T, T], he[W, W] = 6.0 * local / (t * t), e_w2 + 6.0 * local / (own * own)
        he[T, W] = he[W, T] = 6.0 * local / (t * own)
    first, outer, e_first, e_outer = weight + 1.0 / slack, 1.0 / slack**2, 1.0 / left, 1.0 / left**2
    for i in range(N):
        grad[i] = first * gt[i] + e_first * ge[i]
        for j in range(i + 1):
            h = first * ht[i, j] + outer * gt[i] * gt[j] + e_first * he[i, j] + e_outer * ge[i] * ge[j]
            hess[i, j] = hess[j, i] = h
    grad[V] = late - 1.0 / slack - 1.0 / quick - 1.0 / v
    hess[V, V] += 1.0 / v**2

    c = k[KBIT] / quick
    grad[B] += c * tau_b
    grad[P] += c * tau_p
    hess[B, B] += c * tau_bb + c * c * tau_b * tau_b
    hess[B, P] += c * tau_bp + c * c * tau_b * tau_p
    hess[P, B] += c * tau_bp + c * c * tau_b * tau_p
    hess[P, P] += c * tau_pp + c * c * tau_p * tau_p
    c /= quick
    hess[B, V] -= c * tau_b
    hess[V, B] -= c * tau_b
    hess[P, V] -= c * tau_p
    hess[V, P] -= c * tau_p
    hess[V, V] += 1.0 / quick**2

    if computes:
        grad[T] -= k[UE_GHZ] / clock
        grad[W] -= k[MCYCLES] / clock
        hess[T, T] += (k[UE_GHZ] / clock) ** 2
        hess[T, W] += k[UE_GHZ] * k[MCYCLES] / clock**2
        hess[W, T] += k[UE_GHZ] * k[MCYCLES] / clock**2
        hess[W, W] += (k[MCYCLES] / clock) ** 2
        grad[T] -= 1.0 / t
        hess[T, T] += 1.0 / t**2
    if uses_edge:
        grad[G] += 1.0 / share
        grad[W] -= edge / share
        hess[G, G] += 1.0 / share**2
        hess[G, W] -= edge / share**2
        hess[W, G] -= edge / share**2
        hess[W, W] += (edge / share) ** 2
        grad[G] -= 1.0 / g
        hess[G, G] += 1.0 / g**2

    grad[P] += 1.0 / power
    hess[P, P] += 1.0 / power**2
    for i in (B, P):
        grad[i] -= 1.0 / x[i]
        hess[i, i] += 1.0 / x[i] ** 2
    if kind == JOINT:
        grad[W] += 1.0 / own - 1.0 / w
        hess[W, W] += 1.0 / own**2 + 1.0 / w**2
    return value


@compiled
def free(kind: int, equal: bool, cached: bool, w: float, i: int) -> bool:
    """Whether a variable may move: what a device that offloads ``w`` does not use may not."""
    if cached:
        return i in (G, V)
    if i in (B, W):
        return not equal if i == B else kind == JOINT
    return (i != T or w < 1.0) and (i != G or w > 0.0)


@compiled
def factor(h: Any) -> bool:
    """Cholesky's factor of a 6 x 6 matrix in its lower half, of one with larger pivots where rounding has
    left none (next to a boundary one constraint hides all others); False where an entry is no number."""
    for j in range(N):
        for i in range(j, N):
            s = h[i, j]
            for m in range(j):
                s -= h[i, m] * h[j, m]
            if i == j:
                s = max(s, PIVOT * h[j, j])
                if not 0.0 < s < math.inf:
                    return False
                h[j, j] = math.sqrt(s)
            else:
                h[i, j] = s / h[j, j]
    return True


@inlined
def solve(h: Any, y: Any) -> None:
    """y = H^-1 y by the factor of H."""
    for i in range(N):
        s = y[i]
        for m in range(i):
            s -= h[i, m] * y[m]
        y[i] = s / h[i, i]
    for i in range(N - 1, -1, -1):
        s = y[i]
        for m in range(i + 1, N):
            s -= h[m, i] * y[m]
        y[i] = s / h[i, i]


@compiled
def evaluate(
    kind: int, whole: bool, equal: bool, scale: float, edge: float, k: Any, at: Any, x: Any, weight: float,
    late: float, grad: Any, hess: Any, r: Any, gt: Any, ht: Any, ge: Any, he: Any,
) -> float:  # fmt: skip
    """The barrier function of all devices, their parts of its derivatives in grad [M, 6] and hess [M, 6, 6];
    inf outside. A variable that may not move has no gradient and the curvature 1."""
    band, rest = left_over(edge, k, x)
    if band <= 0.0 or rest <= 0.0:
        return math.inf
    value = -math.log(band * rest)
    for i in range(len(k)):
        value += device(
            kind, whole, scale, edge, k[i], at[i], x[i], weight, late, grad[i], hess[i], r, gt, ht, ge, he
        )
        if not value < math.inf:
            return math.inf
        cached = k[i, CACHED] > 0.5
        grad[i, G] += 1.0 / rest
        if not cached:
            grad[i, B] += 1.0 / band
        for j in range(N):
            if not free(kind, equal, cached, x[i, W], j):
                grad[i, j] = 0.0
                hess[i, j, :] = 0.0
                hess[i, :, j] = 0.0
                hess[i, j, j] = 1.0
    return value


@compiled
def left_over(edge: float, k: Any, x: Any) -> tuple[float, float]:
    """Of the band, and of the edge's rate."""
    band, rest = 1.0, edge
    for i in range(len(k)):
        band -= x[i, B] if k[i, CACHED] < 0.5 else 0.0
        rest -= x[i, G]
    return band, rest


@compiled
def direction(kind: int, equal: bool, edge: float, k: Any, x: Any, grad: Any, hess: Any, y: Any) -> float:
    """Newton's step in ``y`` [3, M, 6] (its first row); the decrement squared, -1 where a Hessian is none.

    The Hessian is block diagonal but for the two constraints that all share, which Woodbury's identity adds.
    """
    band, rest = left_over(edge, k, x)
    s11, s12, s22, y_band, y_rest, decrement = band * band, 0.0, rest * rest, 0.0, 0.0, 0.0
    for i in range(len(k)):
        shares = k[i, CACHED] < 0.5 and not equal
        for j in range(N):
            y[0, i, j], y[1, i, j], y[2, i, j] = -grad[i, j], 0.0, 0.0
        y[1, i, B] = 1.0 if shares else 0.0
        y[2, i, G] = 1.0 if k[i, CACHED] > 0.5 or x[i, W] > 0.0 else 0.0
        if not factor(hess[i]):
            return -1.0
        for j in range(3):
            solve(hess[i], y[j, i])
        s11 += y[1, i, B]
        s12 += y[1, i, G]
        s22 += y[2, i, G]
        y_rest += y[0, i, G]
        y_band += y[0, i, B] if shares else 0.0
    determinant = s11 * s22 - s12 * s12
    by_band = (s22 * y_band - s12 * y_rest) / determinant
    by_rest = (s11 * y_rest - s12 * y_band) / determinant
    for i in range(len(k)):
        for j in range(N):
            y[0, i, j] -= by_band * y[1, i, j] + by_rest * y[2, i, j]
            decrement -= grad[i, j] * y[0, i, j]
    return max(decrement, 0.0)


@compiled
def minimise(
    kind: int, whole: bool, equal: bool, scale: float, edge: float, k: Any, at: Any, x: Any,
    price: float, tolerance: float, dual: Any,
) -> int:  # fmt: skip
    """Minimises sum T_m + price v_m from the inner point ``x`` [M, 6] on, in place.

    With ``equal`` shares of the band stay as they are. ``at`` [M, 6]: the point of the approximation; its
    column T holds 1 / R there. The result's objective is within ``tolerance`` x (1 + the objective) of the
    least. ``dual`` [2 + M]: what a little more of the band, of the edge's rate and of each deadline would
    take off the objective. Returns how many Newton steps it took, -1 where ``x`` is not inside.
    """
    m = len(k)
    grad, hess, y, trial = np.zeros((m, N)), np.zeros((m, N, N)), np.zeros((3, m, N)), x.copy()
    r, gt, ht, ge, he = np.zeros(5), np.zeros(N), np.zeros((N, N)), np.zeros(N), np.zeros((N, N))
    constraints, objective = 2.0, 0.0
    for i in range(m):
        if k[i, CACHED] > 0.5:
            constraints += 4.0
        else:
            constraints += 13.0 if kind == JOINT else 7.0 + 2.0 * (x[i, W] < 1.0) + 2.0 * (x[i, W] > 0.0)
        objective += latency_of(kind, whole, scale, k[i], at[i], x[i], r) + price * x[i, V]
    easy = constraints / objective
    sharp = easy / START
    steps, first = 0, True
    while True:
        last = constraints / sharp <= tolerance * (1.0 + objective)
        value = evaluate(
            kind, whole, equal, scale, edge, k, at, x, sharp, sharp * price,
            grad, hess, r, gt, ht, ge, he,
        )  # fmt: skip
        if not value < math.inf:
            return -1
        for tried in range(1, MAX_NEWTON + 1):
            steps += 1
            decrement = direction(kind, equal, edge, k, x, grad, hess, y)
            if decrement < 0.0:
                return -2
            if not decrement > (1e-7 if last else ROUGHLY):
                break
            if first and tried % PATIENCE == 0 and sharp > easy:
                break
            step, new = 2.0, math.inf
            while not new <= value - 0.01 * step * decrement and step > 1e-15:
                step *= 0.5
                for i in range(m):
                    for j in range(N):
                        trial[i, j] = x[i, j] + step * y[0, i, j]
                new = evaluate(
                    kind, whole, equal, scale, edge, k, at, trial, sharp, sharp * price,
                    grad, hess, r, gt, ht, ge, he,
                )  # fmt: skip
            if not new <= value - 0.01 * step * decrement:
                break
            x[:], value = trial, new
        if first and decrement > ROUGHLY and sharp > easy:
            sharp = max(0.1 * sharp, easy)
            continue
        first, objective = False, 0.0
        for i in range(m):
            latency = latency_of(kind, whole, scale, k[i], at[i], x[i], r)
            objective += latency + price * x[i, V]
            dual[2 + i] = 1.0 / (sharp * max(k[i, TIME] + x[i, V] - latency, 1e-12))
        band, rest = left_over(edge, k, x)
        dual[0], dual[1] = 0.0 if equal else 1.0 / (sharp * band), 1.0 / (sharp * rest)
        if last:
            return steps
        sharp = min(GROWTH * sharp, 1.0001 * constraints / (tolerance * (1.0 + objective)))


@compiled
def latency_of(kind: int, whole: bool, scale: float, k: Any, at: Any, x: Any, room: Any) -> float:
    """T of a device by the approximation, without what the deadline is less by its overhead."""
    if k[CACHED] > 0.5:
        return float(k[EDGE_MCYCLES] / x[G])
    latency = k[KBIT] / rate(kind, scale, k, at, x[B], x[P], room) * (1.0 if whole else x[W])
    if x[W] < 1.0:
        latency += x[T]
    if x[W] > 0.0:
        latency += x[W] * x[W] * k[EDGE_MCYCLES] / x[G]
    return float(latency)
