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

import numba
import numpy as np
from numpy.typing import NDArray

from controller.twins.factors import significant
from wire.definitions import mos

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


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
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
    """All candidates at once by Levenberg-Marquardt: of those with the signs that they must have up to
    ``count``, the least criterion first."""
    score = rows[:, 0]
    qos = np.column_stack([np.ones(len(rows)), *(rows[:, COLUMNS.index(n)] for n in names)])
    raw = rows[:, [COLUMNS.index(c) for c in CONTEXT]]
    context = np.where(candidates.power[:, None, None], np.log(np.maximum(raw, 1e-6)), raw - 1.0)
    width = qos.shape[1]
    parameters: FloatArray = np.zeros(candidates.free.shape)
    parameters[:, 0] = score.mean()
    deviation = np.full(len(parameters), 0.8)
    damping = np.full(len(parameters), 1e-2)
    running = np.arange(len(parameters))
    value, jacobian = _model(parameters, deviation, qos, context, candidates.linear)
    error = ((score - value) ** 2).sum(axis=1)
    eye = np.eye(parameters.shape[1])
    for _ in range(ITERATIONS):
        fixed = ~candidates.free[running]
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        slope = (jacobian.transpose(0, 2, 1) @ (score - value)[:, :, None])[:, :, 0]
        slope[fixed] = 0.0
        diagonal = np.maximum(np.einsum("cpp->cp", normal), 1e-6)
        normal = normal + (damping[running, None] * diagonal + np.where(fixed, 1e12, 0.0))[:, :, None] * eye
        tried = parameters[running] + np.linalg.solve(normal, slope[:, :, None])[:, :, 0]
        tried[:, width:] = np.clip(tried[:, width:], 0.0, MAX_WEIGHT)
        new_value, new_jacobian = _model(
            tried, deviation[running], qos, context[running], candidates.linear[running]
        )
        new_error = ((score - new_value) ** 2).sum(axis=1)
        better = new_error < error[running]
        ended = np.abs(error[running] - new_error) <= TOLERANCE * error[running]
        at = running[better]
        parameters[at], error[at] = tried[better], new_error[better]
        value[better], jacobian[better] = new_value[better], new_jacobian[better]
        damping[running] = np.where(better, np.maximum(damping[running] / 5.0, 1e-9), damping[running] * 5.0)
        goes_on = ~ended & (damping[running] < MAX_DAMPING)
        running, value, jacobian = running[goes_on], value[goes_on], jacobian[goes_on]
        if not len(running):
            break
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


def _model(
    parameters: FloatArray,
    deviation: FloatArray,
    qos: FloatArray,
    context: FloatArray,
    is_linear: BoolArray,
) -> tuple[FloatArray, FloatArray]:
    """Mean scores [candidates, rows] and their derivatives [candidates, rows, parameters]."""
    width = qos.shape[1]
    service = parameters[:, :width] @ qos.T
    exponent = np.einsum("cnk,ck->cn", context, parameters[:, width:])
    linear = is_linear[:, None]
    impact = np.where(linear, np.maximum(1.0 - exponent, 0.0), np.exp(-exponent))
    falls = np.where(linear, np.where(exponent < 1.0, 1.0, 0.0), impact)
    mean, slope = truncated_mean(service * impact, deviation[:, None])
    jacobian = np.empty((*mean.shape, parameters.shape[1]))
    jacobian[:, :, :width] = (slope * impact)[:, :, None] * qos
    jacobian[:, :, width:] = -(slope * service * falls)[:, :, None] * context
    return mean, jacobian


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
