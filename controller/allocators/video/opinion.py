"""A user's own QoE model E = S x I(B, C) (equation 1), fitted to its scores.

S is linear in the QoS factors that matter to the user, I one of the forms of
:func:`wire.definitions.mos.impact`. Scores are on a scale with ends, so that least squares compare them with
the mean of a normal law round E that is truncated to it; without that a few long stalls bend the whole model.
Which factors there are is chosen in two steps: the QoS factors on which scores depend significantly, then of
all forms with up to two of them, and with B, C, both or none, that of the least Bayesian information
criterion in which every factor has the sign that it can have (more stalls are never better).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.twins.factors import significant
from wire.definitions import mos
from wire.definitions.compiled import kept

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

QOS: Final = ("stalled", "quality", "delay", "throughput", "jitter", "loss")
"""QoS factors: s a minute, 1, s, Mbit/s, s, 1."""
SIGNS: Final = {"stalled": -1, "quality": 1, "delay": -1, "throughput": 1, "jitter": -1, "loss": -1}
CONTEXT: Final = ("behaviour", "environment")
COLUMNS: Final = ("score", *QOS, *CONTEXT)
"""Of a history: float64 [rows, COLUMNS], oldest first; NaN where not known."""
SHAPES: Final = mos.IMPACTS
LEAST_ROWS: Final = 24
"""Scores that a model of its own needs."""
MAX_FACTORS: Final = 2
SCREENED: Final = 4
"""QoS factors, the strongest, of which forms are made."""
KEPT: Final = 3
"""Structures of S, the best without B and C, that are tried with them."""
ITERATIONS: Final = 30
TOLERANCE: Final = 1e-5
"""Of the squared error, relative: a smaller change ends the iterations."""
MAX_DAMPING: Final = 1e4
MAX_WEIGHT: Final = 1.5
START_DEVIATION: Final = 0.8
"""Of the law of a score, while weights are fitted."""
_LOW, _HIGH = mos.SCALE
_ROOT_2: Final = math.sqrt(2.0)
_ROOT_2PI: Final = math.sqrt(2.0 * math.pi)


def truncated_mean(expected: FloatArray, deviation: Any) -> tuple[FloatArray, FloatArray]:
    """Mean of a normal round ``expected`` truncated to the scale, and its derivative, of arrays that
    broadcast."""
    shape = np.broadcast_shapes(np.shape(expected), np.shape(deviation))
    mean, sd = (np.array(np.broadcast_to(x, shape), np.float64, order="C") for x in (expected, deviation))
    out = np.empty((2, mean.size))
    _truncated_each(mean.ravel(), sd.ravel(), out)
    return out[0].reshape(shape), out[1].reshape(shape)


@kept(error_model="numpy")
def truncated(expected: float, sd: float) -> Any:
    """:func:`truncated_mean` of numbers, compiled."""
    # Beyond this the weight of the scale is nothing but rounding.
    mean = min(max(expected, _LOW - 6.0 * sd), _HIGH + 6.0 * sd)
    a, b = (_LOW - mean) / sd, (_HIGH - mean) / sd
    weight = max(0.5 * (math.erfc(-b / _ROOT_2) - math.erfc(-a / _ROOT_2)), 1e-12)
    phi_a, phi_b = math.exp(-0.5 * a * a) / _ROOT_2PI, math.exp(-0.5 * b * b) / _ROOT_2PI
    ratio = (phi_a - phi_b) / weight
    slope = 1.0 + (a * phi_a - b * phi_b) / weight - ratio * ratio  # the variance over that of the normal law
    return min(max(mean + sd * ratio, _LOW), _HIGH), min(max(slope, 0.0), 1.0)


@kept(error_model="numpy")
def _truncated_each(expected: Any, deviation: Any, out: Any) -> None:
    for i in range(len(expected)):
        out[0, i], out[1, i] = truncated(expected[i], deviation[i])


@dataclass(frozen=True, slots=True)
class Structure:
    """The form of a model: QoS factors of S, factors of I, and the shape of I ("" without any)."""

    qos: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    shape: str = ""

    def __str__(self) -> str:
        service = " + ".join(self.qos) or "constant"
        return f"({service}) x {self.shape}({', '.join(self.context)})" if self.context else service


@dataclass(frozen=True, slots=True)
class OpinionModel:
    """``intercept`` and ``slopes`` (one a QoS factor) of S, ``weights`` of B and C, ``deviation`` of a score.

    ``rows`` scores it was fitted to, ``dependence``: distance correlations of its QoS factors with the
    scores.
    """

    structure: Structure
    intercept: float
    slopes: tuple[float, ...] = ()
    weights: tuple[float, float] = (0.0, 0.0)
    deviation: float = 1.0
    rows: int = 0
    dependence: Mapping[str, float] = field(default_factory=dict)

    @property
    def informative(self) -> bool:
        """Whether it says what resources would change."""
        return bool(self.structure.qos)

    def service(self, factors: Mapping[str, Any]) -> FloatArray:
        """S, of factors that broadcast."""
        out: Any = self.intercept
        for name, slope in zip(self.structure.qos, self.slopes, strict=True):
            out = out + slope * np.asarray(factors[name], np.float64)
        return np.asarray(out, np.float64)

    def impact(self, behaviour: Any, environment: Any) -> FloatArray:
        """I(B, C)."""
        return mos.impact(self.structure.shape or SHAPES[0], behaviour, environment, self.weights)

    def predict(self, factors: Mapping[str, Any]) -> FloatArray:
        """The mean score, 1..5, of factors (``behaviour`` and ``environment`` among them) that broadcast."""
        expected = self.service(factors) * self.impact(factors["behaviour"], factors["environment"])
        return truncated_mean(expected, self.deviation)[0]

    def to_state(self) -> dict[str, Any]:
        """Plain JSON, some 200 bytes."""
        s = self.structure
        return {
            "qos": list(s.qos),
            "context": list(s.context),
            "shape": s.shape,
            "s": [self.intercept, *self.slopes],
            "i": list(self.weights),
            "deviation": self.deviation,
            "rows": self.rows,
            "dependence": dict(self.dependence),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> OpinionModel:
        """ValueError, KeyError, TypeError for what is none."""
        structure = Structure(tuple(state["qos"]), tuple(state["context"]), state["shape"])
        numbers = [*state["s"], *state["i"], state["deviation"]]
        wrong = (
            not {*structure.qos} <= {*QOS}
            or not {*structure.context} <= {*CONTEXT}
            or structure.shape not in ("", *SHAPES)
            or bool(structure.context) != bool(structure.shape)
            or len(state["s"]) != 1 + len(structure.qos)
            or len(state["i"]) != len(CONTEXT)
            or not np.isfinite(numbers).all()
            or state["deviation"] <= 0.0
        )
        if wrong:
            raise ValueError(f"{dict(state)} is no QoE model")
        intercept, *slopes = map(float, state["s"])
        u, v = map(float, state["i"])
        dependence = {str(k): float(x) for k, x in state["dependence"].items()}
        return cls(
            structure,
            intercept,
            tuple(slopes),
            (u, v),
            float(state["deviation"]),
            int(state["rows"]),
            dependence,
        )


PRIOR: Final = OpinionModel(
    Structure(("stalled", "quality")), mos.SCALE[0], (-mos.STALL_WEIGHT, 4.0), deviation=0.8, rows=60
)
"""Of users of whom nothing is known: the combined principle of the paper."""


def first_informative(*models: OpinionModel | None) -> OpinionModel:
    """The first model that says what resources would change; :data:`PRIOR` where none does. Of scores that
    depend on nothing follows nothing: least of all that its user needs nothing."""
    return next((m for m in models if m is not None and m.informative), PRIOR)


@dataclass(frozen=True, slots=True)
class OpinionModels:
    """Models of many users as arrays: ``intercept`` [users], ``slopes`` [users, QOS], ``weights`` [users, 2],
    shape of I as its place in :data:`SHAPES`, ``deviation`` [users]."""

    intercept: FloatArray
    slopes: FloatArray
    weights: FloatArray
    shape: NDArray[np.int64]
    deviation: FloatArray

    @classmethod
    def of(cls, models: Sequence[OpinionModel]) -> OpinionModels:
        slopes = np.zeros((len(models), len(QOS)))
        for i, m in enumerate(models):
            for name, slope in zip(m.structure.qos, m.slopes, strict=True):
                slopes[i, QOS.index(name)] = slope
        return cls(
            np.array([m.intercept for m in models]),
            slopes,
            np.array([m.weights for m in models]).reshape(-1, 2),
            np.array([SHAPES.index(m.structure.shape or SHAPES[0]) for m in models], np.int64),
            np.array([m.deviation for m in models]),
        )

    def impact(self, behaviour: FloatArray, environment: FloatArray) -> FloatArray:
        """I(B, C), of [users, ...]."""
        extra = (1,) * (behaviour.ndim - 1)
        u, v, shape = (x.reshape(-1, *extra) for x in (self.weights[:, 0], self.weights[:, 1], self.shape))
        power = shape == SHAPES.index("power")
        b, c = (np.where(power, np.log(x), x - 1.0) for x in (behaviour, environment))
        exponent = u * b + v * c
        return np.where(shape == SHAPES.index("linear"), np.maximum(1.0 - exponent, 0.0), np.exp(-exponent))

    def predict(self, qos: Mapping[str, FloatArray], impact: FloatArray) -> FloatArray:
        """Mean scores of factors and impacts [users, ...] that broadcast; a factor that is not there counts
        as 0."""
        extra = (1,) * (impact.ndim - 1)
        service: Any = self.intercept.reshape(-1, *extra)
        for name, column in qos.items():
            service = service + self.slopes[:, QOS.index(name)].reshape(-1, *extra) * column
        return truncated_mean(service * impact, self.deviation.reshape(-1, *extra))[0]


def constant(history: FloatArray) -> OpinionModel:
    """The model of a user whose scores depend on nothing: its mean score."""
    scores = history[np.isfinite(history[:, 0]), 0]
    if not len(scores):
        return OpinionModel(Structure(), float(np.mean(mos.SCALE)), deviation=1.0)
    # The mean of the truncated law, not of the law, is what the scores have.
    grid = np.linspace(mos.SCALE[0] - 2.0, mos.SCALE[1] + 2.0, 241)
    means = truncated_mean(grid, 0.8)[0]
    return OpinionModel(
        Structure(), float(np.interp(scores.mean(), means, grid)), (), (0.0, 0.0), 0.8, len(scores)
    )


def fit(history: FloatArray, level: float = 0.05) -> OpinionModel:
    """The model of the least criterion, from a history [rows, COLUMNS]; that of :func:`constant` where no QoS
    factor is significant. Rows without a score, or with one outside the scale, are left out.

    ValueError for a history of another shape, and for fewer than :data:`LEAST_ROWS` rows.
    """
    history = usable(history)
    if len(history) < LEAST_ROWS:
        raise ValueError(f"{len(history)} scores: a model of its own takes {LEAST_ROWS}")
    columns = dict(zip(COLUMNS, history.T, strict=True))
    strong = significant(columns["score"], {name: columns[name] for name in QOS}, level)
    if not strong:
        return constant(history)
    names = tuple(list(strong)[:SCREENED])
    known = np.isfinite(history[:, [0, *(COLUMNS.index(n) for n in (*names, *CONTEXT))]]).all(axis=1)
    rows = history[known]
    if len(rows) < LEAST_ROWS:
        return constant(history)
    services = _fitted(rows, names, _Candidates.services(names), KEPT)
    models = _fitted(rows, names, _Candidates.impacts(tuple(m.structure for m in services), names), 1)
    if not models:
        return constant(history)
    return replace(models[0], dependence={n: round(strong[n][0], 4) for n in models[0].structure.qos})


def usable(history: FloatArray) -> FloatArray:
    """The rows with a score on the scale; ValueError for another shape."""
    if history.ndim != 2 or history.shape[1] != len(COLUMNS):
        raise ValueError(f"history of shape {history.shape}: columns are {', '.join(COLUMNS)}")
    score = history[:, 0]
    return history[(score >= mos.SCALE[0]) & (score <= mos.SCALE[1])]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Structures, and which parameters each of them has: bool [candidates, 1 + names + 2]; ``linear`` and
    ``power`` [candidates] say which shape of I."""

    structures: tuple[Structure, ...]
    free: BoolArray
    linear: BoolArray
    power: BoolArray

    @classmethod
    @cache
    def services(cls, names: tuple[str, ...]) -> _Candidates:
        """All structures of up to :data:`MAX_FACTORS` of the names, without B and C."""
        forms = [Structure()]
        for count in range(1, min(MAX_FACTORS, len(names)) + 1):
            forms += [Structure(qos) for qos in combinations(names, count)]
        return cls.make(tuple(forms), names)

    @classmethod
    @cache
    def impacts(cls, services: tuple[Structure, ...], names: tuple[str, ...]) -> _Candidates:
        """Structures with B, C, both and none of them, in every shape."""
        contexts = [c for n in (1, 2) for c in combinations(CONTEXT, n)]
        forms = [*services, *(Structure(f.qos, c, s) for f in services for c in contexts for s in SHAPES)]
        return cls.make(tuple(forms), names)

    @classmethod
    @cache
    def make(cls, forms: tuple[Structure, ...], names: tuple[str, ...]) -> _Candidates:
        """``names`` are those of the columns of S."""
        free = np.array(
            [[True, *(n in f.qos for n in names), *(c in f.context for c in CONTEXT)] for f in forms],
            np.bool_,
        )
        shapes = [f.shape for f in forms]
        return cls(
            forms,
            free,
            np.array([s == "linear" for s in shapes]),
            np.array([s == "power" for s in shapes]),
        )


def _fitted(
    rows: FloatArray, names: tuple[str, ...], candidates: _Candidates, count: int
) -> list[OpinionModel]:
    """Every candidate by Levenberg-Marquardt: of those with the signs that they must have up to
    ``count``, the least criterion first."""
    score = np.ascontiguousarray(rows[:, 0])
    qos = np.column_stack([np.ones(len(rows)), *(rows[:, COLUMNS.index(n)] for n in names)])
    raw = rows[:, [COLUMNS.index(c) for c in CONTEXT]]
    power = candidates.power[:, None, None]
    context = np.where(power, np.log(np.maximum(raw, 1e-6)), raw - 1.0)
    width = qos.shape[1]
    parameters: FloatArray = np.zeros(candidates.free.shape)
    parameters[:, 0] = score.mean()
    error = np.empty(len(parameters))
    _fit_each(score, qos, context, candidates.free, candidates.linear, parameters, error)
    slopes, weights = parameters[:, 1:width], parameters[:, width:]
    signs = np.array([SIGNS[n] for n in names])
    possible = (
        ((slopes * signs > 1e-9) | ~candidates.free[:, 1:width]).all(axis=1)
        & ((weights > 1e-6) | ~candidates.free[:, width:]).all(axis=1)
        & (error > 0.0)
    )
    n = len(rows)
    criterion = n * np.log(np.maximum(error, 1e-12) / n) + candidates.free.sum(axis=1) * np.log(n)
    order = [int(i) for i in np.argsort(criterion, kind="stable") if possible[i]]
    return [
        _model_of(parameters[i], float(error[i]), qos, context[i], candidates, i, names)
        for i in order[:count]
    ]


def _model_of(
    parameters: FloatArray,
    error: float,
    qos: FloatArray,
    context: FloatArray,
    candidates: _Candidates,
    candidate: int,
    names: tuple[str, ...],
) -> OpinionModel:
    structure, free, n = candidates.structures[candidate], candidates.free[candidate], len(qos)
    used = [1 + i for i, name in enumerate(names) if name in structure.qos]
    u, v = (float(w) for w in parameters[qos.shape[1] :])
    variance = error / max(n - int(free.sum()), 1)
    return OpinionModel(
        replace(structure, qos=tuple(names[i - 1] for i in used)),
        float(parameters[0]),
        tuple(float(parameters[i]) for i in used),
        (u, v),
        _deviation(parameters, variance, qos, context, bool(candidates.linear[candidate])),
        n,
    )


@kept(error_model="numpy")
def _fit_each(
    score: Any, qos: Any, context: Any, free: Any, linear: Any, parameters: Any, error: Any
) -> None:
    """Levenberg-Marquardt of each candidate from ``parameters`` [candidates, width + 2] on, in place; their
    squared ``error`` [candidates]. ``qos`` [rows, width], ``context`` [candidates, rows, 2]."""
    size = parameters.shape[1]
    width = size - context.shape[2]
    for c in range(len(parameters)):
        at = np.flatnonzero(free[c])
        n = len(at)
        normal, slope = np.empty((n, n)), np.empty(n)
        new_normal, new_slope = np.empty((n, n)), np.empty(n)
        system, step = np.empty((n, n)), np.empty(n)
        tried = parameters[c].copy()
        error[c] = _squares(score, qos, context[c], linear[c], tried, at, normal, slope)
        damping = 1e-2
        for _ in range(ITERATIONS):
            system[:] = normal
            for k in range(n):
                system[k, k] += damping * max(normal[k, k], 1e-6)
            step[:] = slope
            _solve(system, step)
            tried[:] = parameters[c]
            for k in range(n):
                tried[at[k]] += step[k]
            for k in range(width, size):
                tried[k] = min(max(tried[k], 0.0), MAX_WEIGHT)
            new = _squares(score, qos, context[c], linear[c], tried, at, new_normal, new_slope)
            ended = abs(error[c] - new) <= TOLERANCE * error[c]
            if new < error[c]:
                parameters[c] = tried
                error[c] = new
                normal[:], slope[:] = new_normal, new_slope
                damping = max(damping / 5.0, 1e-9)
            else:
                damping *= 5.0
            if ended or not damping < MAX_DAMPING:
                break


@kept(error_model="numpy")
def _squares(
    score: Any, qos: Any, context: Any, linear: Any, parameters: Any, at: Any, normal: Any, slope: Any
) -> float:
    """The sum of squared residuals; into ``normal`` [n, n] and ``slope`` [n] the normal equations of the
    parameters ``at``."""
    width, n = qos.shape[1], len(at)
    normal[:] = 0.0
    slope[:] = 0.0
    total = 0.0
    derivative = np.empty(len(parameters))
    for i in range(len(score)):
        service, exponent = 0.0, 0.0
        for k in range(width):
            service += parameters[k] * qos[i, k]
        for k in range(context.shape[1]):
            exponent += parameters[width + k] * context[i, k]
        impact = max(1.0 - exponent, 0.0) if linear else math.exp(-exponent)
        falls = (1.0 if exponent < 1.0 else 0.0) if linear else impact
        mean, rise = truncated(service * impact, START_DEVIATION)
        for k in range(width):
            derivative[k] = rise * impact * qos[i, k]
        for k in range(context.shape[1]):
            derivative[width + k] = -rise * service * falls * context[i, k]
        residual = score[i] - mean
        total += residual * residual
        for k in range(n):
            d = derivative[at[k]]
            slope[k] += d * residual
            for m in range(k + 1):
                normal[k, m] += d * derivative[at[m]]
    for k in range(n):
        for m in range(k):
            normal[m, k] = normal[k, m]
    return total


@kept(error_model="numpy")
def _solve(matrix: Any, vector: Any) -> None:
    """Positive definite linear equations by Cholesky's method, in place."""
    n = len(vector)
    for k in range(n):
        for m in range(k):
            matrix[k, k] -= matrix[k, m] * matrix[k, m]
        matrix[k, k] = math.sqrt(max(matrix[k, k], 1e-300))
        for i in range(k + 1, n):
            for m in range(k):
                matrix[i, k] -= matrix[i, m] * matrix[k, m]
            matrix[i, k] /= matrix[k, k]
    for k in range(n):
        for m in range(k):
            vector[k] -= matrix[k, m] * vector[m]
        vector[k] /= matrix[k, k]
    for k in range(n - 1, -1, -1):
        for m in range(k + 1, n):
            vector[k] -= matrix[m, k] * vector[m]
        vector[k] /= matrix[k, k]


def _deviation(
    parameters: FloatArray, variance: float, qos: FloatArray, context: FloatArray, linear: bool
) -> float:
    """Standard deviation of the law with whose truncation the residuals have their variance."""
    width = qos.shape[1]
    exponent = context @ parameters[width:]
    impact = np.maximum(1.0 - exponent, 0.0) if linear else np.exp(-exponent)
    expected = (qos @ parameters[:width]) * impact
    sd = 0.8
    for _ in range(8):
        truncated = float(np.mean(truncated_mean(expected, sd)[1])) * sd * sd
        sd = float(np.clip(sd * np.sqrt(variance / max(truncated, 1e-9)), 0.2, 2.5))
    return sd
