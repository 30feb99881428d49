"""What another policy would have come to on a recorded run: estimate, interval and bounds. Pure.

The policies on record are deterministic: no action has a propensity, so neither importance weights nor the
rejection method (Li et al., WSDM 2011) apply. What there is instead is structure: a hop's delay depends on
the ratio of what it had to what its traffic needed, and more of it never lengthens the delay. Two answers
come of that.

*Bounds* (partial identification, Manski 1990) use monotonicity alone. A slot that was met stays met where no
hop has less than it had; one in which the hops that have no more than they had alone take longer than the
round trip may stays missed; every other slot is 0 and 1.

*An estimate*: the delay of each hop is moved along its fitted distribution. ``F(delay | ratio)`` falls
stochastically in the ratio (isotonic quantile regression; compare isotonic distributional regression,
Henzi et al., JRSS B 2021) and is fitted apart for slots that inherit something and for disturbed ones
(:class:`Log`). A slot's delay at ratio r, at quantile u of ``F(. | r)``, becomes the quantile u of
``F(. | r')``: what was bad luck stays bad luck, what was not touched stays as it was, and what monotonicity
decides is never contradicted. Each block of the run is judged by a model of the other folds' blocks.

Where nothing on record tells of a ratio, the delay lies between its neighbours' on record (or the best and
the worst there is), and the estimate has a low and a high end. The interval holds both ends and the error of
a block bootstrap that fits and plays everything anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HOPS = ("ul", "edge", "dl")
NAMES = {"ul": "UL PRB", "edge": "GPU MHz", "dl": "DL PRB"}

ESTIMATOR = (
    "rank-preserving transport along an isotonic, cross-fitted model of each hop's delay given the ratio of "
    "what it has to what it needs; 95 % interval of a block bootstrap, widened by what the run cannot tell"
)
ASSUMPTIONS = (
    "a hop's delay depends on what it had over what its traffic needed, and more never lengthens it",
    "a hop hands on no more than this: whether the control slot before, or a hop before it, missed",
    "the actions change neither traffic nor channel; a queue grows with the delay at it (Little's law)",
    "the round trip is the sum of its hops",
    "delay given ratio is the same throughout the run",
    "what the policy asks for is granted and in force; its GPU is its own",
)

MIN_SLOTS = 100
"""Busy control slots without which nothing is estimated."""
MAX_UNKNOWN = 0.1
"""Share of the busy control slots in which a hop's delay or what it had may be unknown."""
MAX_OUTSIDE = 0.1
"""How far low and high end of an estimate may lie apart: what the run cannot tell."""
FOLDS = 5
HOLE = 0.5
"""Octaves between two ratios on record beyond which nothing is interpolated."""
DISTURBED = 0.5
"""Octaves above its median that the cost of a bit is far more than usual."""
REACH = 0.25
"""Octaves beyond the last ratio on record within which it still speaks."""

_BIN = 16
_MAX_BINS = 64
_MIN_ROWS = 2 * _BIN
_QUANTILES = np.linspace(0.0, 1.0, 21)
_SHORTEST_MS, _LONGEST_MS = 1e-3, 1e9


class Unanswerable(ValueError):
    """The run cannot tell; the text says why."""


@dataclass(frozen=True)
class Log:
    """The control slots of one slice, in order.

    ``had`` and ``demand`` are float64 [n, 3], by hop, in the hop's unit (active flows at the edge); NaN
    where not known, ``had`` also where nobody acts on the hop. ``delay_ms`` is float64 [n, flows, 3], the
    delay metric of each judged flow (NaN where not known), ``judged`` bool [n, flows]. ``budget_ms`` is
    float64 [n, 4]: the hops' and the round trip's. ``met`` is 1, 0, or NaN where it cannot be told, float64
    [n]. Everything else is derived.
    """

    had: Floats
    demand: Floats
    cost: Floats
    delay_ms: Floats
    judged: Bools
    budget_ms: Floats
    met: Floats
    worst_ms: Floats = field(init=False, repr=False)
    """[n, 3]: of the flow with the longest delay."""
    inherited: Bools = field(init=False, repr=False)
    """[n, 3]: the control slot before was missed, or a hop before this one in the same."""
    disturbed: Bools = field(init=False, repr=False)
    """[n, 3]: a bit cost far more than usual (an outage, a fade), a cause of delay beside the ratio."""
    fold: Ints = field(init=False, repr=False)
    block: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.met)
        known = np.where(np.isnan(self.delay_ms), -np.inf, self.delay_ms).max(axis=1, initial=-np.inf)
        worst = np.where(np.isinf(known), np.nan, known)
        object.__setattr__(self, "worst_ms", worst)
        before = np.concatenate(([False], self.met[:-1] == 0))
        object.__setattr__(self, "inherited", _inherited(before, worst, self.budget_ms))
        usual = np.array([_median(self.cost[self.busy, hop]) for hop in range(3)])
        with np.errstate(invalid="ignore"):
            object.__setattr__(self, "disturbed", self.cost > usual * 2**DISTURBED)
        length = int(np.clip(n // 30, 3, 60))
        object.__setattr__(self, "block", np.arange(n) // length)
        object.__setattr__(self, "fold", self.block % FOLDS)

    def __len__(self) -> int:
        return len(self.met)

    @property
    def busy(self) -> Bools:
        """Control slots with a judged flow, bool [n]."""
        return np.asarray(self.judged.any(axis=1))

    def ratio(self, had: Floats, rows: Any = slice(None)) -> Floats:
        """log2 of ``had`` to the demand of ``rows``; NaN where one is not known or not positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Floats = np.log2(had / self.demand[rows])
        out[~np.isfinite(out)] = np.nan
        return out


def _median(values: Floats) -> float:
    """Of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def _inherited(before: Bools, worst_ms: Floats, budget_ms: Floats) -> Bools:
    missed = worst_ms > budget_ms[:, :3]
    return np.stack((before, before | missed[:, 0], before | missed[:, 0] | missed[:, 1]), axis=1)


@dataclass(frozen=True)
class DelayModel:
    """Quantiles of a hop's log delay by log2 ratio: ``level`` [k] ascending, ``table`` [k, quantiles], which
    rises along the quantiles and never rises along the levels."""

    level: Floats
    table: Floats

    @classmethod
    def fit(cls, ratio: Floats, delay_ms: Floats) -> DelayModel:
        """From slots as equally long columns, in bins of equal size; ValueError where there is none."""
        n = len(ratio)
        if not n:
            raise ValueError("no control slot to fit")
        order = np.argsort(ratio, kind="stable")
        bins = min(max(1, n // _BIN), _MAX_BINS)
        rows = order[np.linspace(0, n - 1, bins * (n // bins)).round().astype(np.intp)].reshape(bins, -1)
        delays = np.sort(np.log(np.clip(delay_ms[rows], _SHORTEST_MS, _LONGEST_MS)), axis=1)
        at = _QUANTILES * (rows.shape[1] - 1)
        below = np.floor(at).astype(np.intp)
        above = np.minimum(below + 1, rows.shape[1] - 1)
        quantiles = delays[:, below] + (delays[:, above] - delays[:, below]) * (at - below)
        levels = ratio[rows].mean(axis=1).round(3)
        first = np.flatnonzero(np.concatenate(([True], levels[1:] > levels[:-1])))
        weight = np.diff(first, append=bins).astype(float)
        return cls(levels[first], antitonic(np.add.reduceat(quantiles, first) / weight[:, None], weight))

    def between(self, ratio: Floats) -> tuple[Ints, Ints, Floats]:
        """The levels below and above, and how far from the one to the other; the outermost alone beyond."""
        at = np.searchsorted(self.level, ratio)
        below = np.maximum(at - 1, 0)
        above = np.minimum(at, len(self.level) - 1)
        apart = self.level[above] - self.level[below]
        return below, above, (ratio - self.level[below]) / np.where(apart > 0, apart, np.inf)

    def at(self, ratio: Floats) -> Floats:
        """[m, quantiles]: interpolated between the levels."""
        below, above, part = self.between(ratio)
        low: Floats = self.table[below]
        return low + (self.table[above] - low) * part[:, None]

    def rank(self, ratio: Floats, delay_ms: Floats) -> Floats:
        """The quantile, 0..1, that each delay is at its ratio."""
        rows = self.at(ratio)
        value = np.log(np.clip(delay_ms, _SHORTEST_MS, _LONGEST_MS))[:, None]
        last = len(_QUANTILES) - 1
        first = np.clip((rows < value).sum(axis=1) - 1, 0, last - 1)
        index = np.arange(len(rows))
        left, right = rows[index, first], rows[index, first + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(right > left, (value[:, 0] - left) / (right - left), 0.5)
        return np.asarray((first + np.clip(part, 0.0, 1.0)) / last)

    @staticmethod
    def quantile(rows: Floats, rank: Floats) -> Floats:
        """Delay in ms at a rank of each of ``rows`` [m, quantiles]."""
        last = len(_QUANTILES) - 1
        first = np.minimum((rank * last).astype(np.intp), last - 1)
        index = np.arange(len(rows))
        part = rank * last - first
        return np.asarray(np.exp(rows[index, first] * (1 - part) + rows[index, first + 1] * part))

    def reach(self, ratio: Floats, rank: Floats) -> tuple[Floats, Floats, Floats, Ints]:
        """Delay in ms at a ratio and a rank: the least, the likely, the most that it may be; and -1 where the
        ratio is below what is on record, 1 where it is above or in a hole."""
        below, above, part = self.between(ratio)
        table = self.table
        likely = self.quantile(table[below] + (table[above] - table[below]) * part[:, None], rank)
        hole = self.level[above] - self.level[below] > HOLE
        under, over = ratio < self.level[0] - REACH, ratio > self.level[-1] + REACH
        low, high = likely, likely
        if hole.any():
            low = np.where(hole, self.quantile(table[above], rank), low)
            high = np.where(hole, self.quantile(table[below], rank), high)
        low = np.where(over, np.exp(table[-1, 0]), low)
        high = np.where(under, _LONGEST_MS, high)
        beyond = (over | hole).astype(np.int64) - under
        return np.minimum(low, likely), likely, np.maximum(high, likely), beyond


def antitonic(values: Floats, weights: Floats) -> Floats:
    """The nearest columns that never rise along the first axis, by weighted least squares.

    The min-max formula of isotonic regression: the same as pooling adjacent violators.

    >>> antitonic(np.array([[3.0], [1.0], [2.0], [0.0]]), np.ones(4)).ravel().tolist()
    [3.0, 1.5, 1.5, 0.0]
    """
    k = len(values)
    sums = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values * weights[:, None], axis=0)))
    total = np.concatenate(([0.0], np.cumsum(weights)))
    first, last = np.arange(k)[:, None], np.arange(k)[None, :]
    valid = (last >= first)[:, :, None]
    count = np.where(last >= first, total[1:][None, :] - total[:-1][:, None], 1.0)[:, :, None]
    mean = np.where(valid, (sums[1:][None] - sums[:-1][:, None]) / count, -np.inf)
    most = np.maximum.accumulate(mean[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.where(valid, most, np.inf).min(axis=0))


@dataclass(frozen=True)
class Outcomes:
    """What control slots come to under other actions: of m rows of a log.

    ``delay_ms`` [m, flows, 3] is the likely one; ``met``, ``met_low`` and ``met_high`` [m] the promise at it
    and at the ends of what may be; ``decided_met`` and ``decided_missed`` [m] what monotonicity alone tells;
    ``beyond`` [m, 3] is -1 where a hop has less than anything on record tells of, 1 where it has more or lies
    between ratios on record that are far apart; ``unchanged`` [m] where all is as it was.
    """

    delay_ms: Floats
    met: Bools
    met_low: Bools
    met_high: Bools
    decided_met: Bools
    decided_missed: Bools
    beyond: Ints
    unchanged: Bools


class Models:
    """The delay models of a log's hops, cross-fitted; each is fitted when it is first asked for.

    ``weight`` (int64 [blocks]) is how often each block of the log is drawn. ``seed`` is that of the ranks of
    delays that are not on record.
    """

    def __init__(self, log: Log, weight: Ints | None = None, seed: int = 0) -> None:
        self.log = log
        times = np.ones(int(log.block[-1]) + 1, np.int64) if weight is None else weight
        self.times = times[log.block]
        self._ratio = log.ratio(log.had)
        self._kind = (log.fold[:, None] * 2 + log.disturbed) * 2
        """A slot's fold and whether it is disturbed, by hop; 1 more where it inherits something."""
        self._random = np.random.default_rng(seed).random(log.delay_ms.shape)
        self._fitted: dict[tuple[int, int], DelayModel | None] = {}
        self._shared: dict[tuple[int, int, int], DelayModel] = {}
        self._ranked: dict[int, Floats] = {}

    def _model(self, hop: int, kind: int) -> DelayModel | None:
        """Of the slots of a kind in other folds; where there are too few, of those that are as disturbed,
        then of all; None where these are too few."""
        if (hop, kind) not in self._fitted:
            log, ratio, delay = self.log, self._ratio[:, hop], self.log.worst_ms[:, hop]
            usable = (log.fold != kind // 4) & np.isfinite(ratio) & np.isfinite(delay)
            alike = usable & (log.disturbed[:, hop] == bool(kind & 2))
            own = alike & (log.inherited[:, hop] == bool(kind & 1))
            model = None
            for wider, chosen in enumerate((own, alike, usable)):
                if self.times[chosen].sum() >= _MIN_ROWS:
                    key = hop, wider, kind >> wider
                    if key not in self._shared:
                        rows = np.flatnonzero(chosen)
                        rows = rows.repeat(self.times[rows])
                        self._shared[key] = DelayModel.fit(ratio[rows], delay[rows])
                    model = self._shared[key]
                    break
            self._fitted[hop, kind] = model
        return self._fitted[hop, kind]

    def _ranks(self, hop: int) -> Floats:
        """[n, flows]: the quantile that each delay on record is at its ratio, a random one where there is no
        delay."""
        if hop not in self._ranked:
            log, ratio = self.log, self._ratio[:, hop]
            ranks = self._random[:, :, hop].copy()
            kinds = self._kind[:, hop] + log.inherited[:, hop]
            for kind in set(kinds.tolist()):
                model = self._model(hop, kind)
                known = np.isfinite(log.delay_ms[:, :, hop]) & ((kinds == kind) & np.isfinite(ratio))[:, None]
                if model is not None and known.any():
                    row, flow = np.nonzero(known)
                    ranks[row, flow] = model.rank(ratio[row], log.delay_ms[row, flow, hop])
            self._ranked[hop] = ranks
        return self._ranked[hop]

    def outcomes(self, rows: Ints, had: Floats, before_missed: Bools) -> Outcomes:
        """What ``rows`` of the log come to where the hops have ``had`` [m, 3] and the slot before was missed
        or not."""
        log = self.log
        real = log.delay_ms[rows]
        delays = [real.copy() for _ in range(3)]
        ratio = log.ratio(had, rows)
        real_had = log.had[rows]
        same_had = (had == real_had) | (np.isnan(had) & np.isnan(real_had))
        beyond = np.zeros((len(rows), 3), np.int64)
        missed = before_missed.copy()
        judged, budget = log.judged[rows], log.budget_ms[rows, 3:]
        more, fewer = np.ones(len(rows), np.bool_), np.ones(len(rows), np.bool_)
        sure = np.zeros(real.shape[:2])
        for hop in range(3):
            was = log.inherited[rows, hop]
            same = same_had[:, hop] & (missed == was)
            drawn = ~same | (judged & np.isnan(real[:, :, hop])).any(axis=1)
            kinds = self._kind[rows, hop] + missed
            for kind in set(kinds[drawn].tolist()):
                at = np.flatnonzero(drawn & (kinds == kind))
                self._move(hop, kind, rows, at, ratio[:, hop], delays, beyond)
            no_less = (same_had[:, hop] | (had[:, hop] >= real_had[:, hop])) & (missed <= was)
            no_more = (same_had[:, hop] | (had[:, hop] <= real_had[:, hop])) & (missed >= was)
            for delay in delays:
                delay[no_less, :, hop] = np.fmin(delay[no_less, :, hop], real[no_less, :, hop])
                delay[no_more, :, hop] = np.fmax(delay[no_more, :, hop], real[no_more, :, hop])
                delay[:, :, hop] = np.where(
                    same[:, None] & np.isfinite(real[:, :, hop]), real[:, :, hop], delay[:, :, hop]
                )
            more &= no_less
            fewer &= no_more
            sure += np.where(no_more[:, None], np.nan_to_num(real[:, :, hop]), 0.0)
            worst = np.where(np.isnan(delays[1][:, :, hop]), 0.0, delays[1][:, :, hop]).max(
                axis=1, initial=0.0
            )
            missed = missed | (worst > log.budget_ms[rows, hop])
        unchanged = same_had.all(axis=1) & (before_missed == log.inherited[rows, 0])
        real_met = log.met[rows] != 0  # what cannot be told leaves nothing behind

        def met(delay: Floats) -> Bools:
            kept = (~judged | (np.nan_to_num(delay).sum(axis=2) <= budget)).all(axis=1)
            return np.where(unchanged, real_met, kept)

        decided_met = (more & real_met) | ~judged.any(axis=1)
        decided_missed = ~real_met & (fewer | (judged & (sure > budget)).any(axis=1))
        low, likely, high = delays
        return Outcomes(
            likely,
            (met(likely) | decided_met) & ~decided_missed,
            (met(high) | decided_met) & ~decided_missed,
            (met(low) | decided_met) & ~decided_missed,
            decided_met,
            decided_missed,
            beyond,
            unchanged,
        )

    def _move(
        self, hop: int, kind: int, rows: Ints, at: Ints, ratio: Floats, delays: Sequence[Floats], beyond: Ints
    ) -> None:
        """Put the delays of ``rows[at]``, of one kind now, at one hop in ``delays`` (least, likely, most)."""
        target = self._model(hop, kind)
        told = at[np.isfinite(ratio[at])] if target is not None else at[:0]
        if len(told) < len(at):
            untold = np.setdiff1d(at, told)
            delays[0][untold, :, hop], delays[2][untold, :, hop] = 0.0, _LONGEST_MS
            beyond[untold, hop] = 1
        if target is not None and len(told):
            flows = self.log.judged.shape[1]
            rank = self._ranks(hop)[rows[told]]
            *moved, far = target.reach(ratio[told].repeat(flows), rank.ravel())
            for delay, values in zip(delays, moved, strict=True):
                delay[told, :, hop] = np.where(self.log.judged[rows[told]], values.reshape(-1, flows), np.nan)
            beyond[told, hop] = far[::flows]


@dataclass(frozen=True)
class Played:
    """A policy played over a whole log: what its hops had (float64 [n, 3]; NaN where nobody acts) and what
    came of it."""

    had: Floats
    outcomes: Outcomes


Play = Callable[[Models], Played]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Evaluation:
    """What a policy would have come to. Delivery ratios are over the control slots that can be judged.

    ``refused`` says why the figures do not answer; "" where they do. ``bounds`` are of monotonicity alone,
    ``decided`` the share of control slots that it decides, ``inside`` the share that is decided or where the
    run tells of every hop's ratio, ``ends`` the estimate at the low and the high end of the others.
    ``logged`` and ``logged_resources`` are what is on record.
    """

    slots: int
    busy: int
    logged: float
    qos: Interval
    qos_busy: Interval
    bounds: tuple[float, float]
    ends: tuple[float, float]
    decided: float
    inside: float
    resources: dict[str, Interval]
    logged_resources: dict[str, float]
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "control_slots": self.slots,
            "busy_control_slots": self.busy,
            "qos_delivery_ratio_recorded": self.logged,
            "qos_delivery_ratio": self.qos.to_dict(),
            "qos_delivery_ratio_busy": self.qos_busy.to_dict(),
            "bounds": list(self.bounds),
            "ends": list(self.ends),
            "decided_by_monotonicity": self.decided,
            "inside_support": self.inside,
            "resources": {name: of.to_dict() for name, of in self.resources.items()},
            "resources_recorded": self.logged_resources,
            "refused": self.refused or None,
        }


def check(log: Log) -> None:
    """Raise :class:`Unanswerable` for a log of which no policy can be judged."""
    busy = log.busy
    n = int(busy.sum())
    if n < MIN_SLOTS:
        raise Unanswerable(f"{n} busy control slots on record, at least {MIN_SLOTS} are needed")
    unknown = float(np.isnan(log.met[busy]).mean())
    if unknown > MAX_UNKNOWN:
        raise Unanswerable(f"whether the promise was kept is not known in {unknown:.0%} of the control slots")
    for hop, name in enumerate(HOPS):
        # In a slot that was missed the frames may never have come to a hop.
        kept = busy & (log.met == 1)
        unknown = float(np.isnan(log.worst_ms[kept, hop]).mean()) if kept.any() else 1.0
        if unknown > MAX_UNKNOWN:
            raise Unanswerable(
                f"the delay of hop {name} is not known in {unknown:.0%} of the busy control slots that kept "
                "the promise (are the clocks synchronised?)"
            )
        unknown = float(np.isnan(log.had[busy, hop]).mean())
        if unknown > MAX_UNKNOWN and not (name == "edge" and unknown == 1):
            raise Unanswerable(
                f"what hop {name} had ({NAMES[name]}) is not known in {unknown:.0%} of the busy control slots"
            )


def weights(log: Log, replicates: int, seed: int = 0) -> Ints:
    """How often each block is drawn, int64 [replicates, blocks]: a bootstrap of whole blocks."""
    blocks = int(log.block[-1]) + 1
    rng = np.random.default_rng(seed)
    return np.asarray(rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=replicates))


def evaluate(log: Log, played: Played, resampled: Sequence[tuple[Models, Played]]) -> Evaluation:
    """Put together what a policy came to with the models of the whole log and of each bootstrap replicate.

    ValueError for fewer than four replicates.
    """
    if len(resampled) < 4:
        raise ValueError(f"{len(resampled)} bootstrap replicates are no interval")
    known, busy = np.isfinite(log.met), log.busy
    once = np.ones(len(log), np.int64)
    t = _student(len(resampled) - 1)

    def mean(values: Any, times: Ints, where: Bools) -> float:
        total = (np.where(where, values, 0) * times).sum()
        return float(total / max(1, (times * where).sum()))

    def interval(pick: Callable[[Outcomes], Any], where: Bools) -> Interval:
        def ends(of: Played, times: Ints) -> tuple[float, float, float]:
            o = of.outcomes
            likely = pick(o)
            return (
                mean(np.minimum(likely, o.met_low), times, where),
                mean(likely, times, where),
                mean(np.maximum(likely, o.met_high), times, where),
            )

        low, likely, high = ends(played, once)
        drawn = np.array([ends(p, m.times) for m, p in resampled])
        half = t * drawn.std(axis=0, ddof=1)
        return Interval(likely, max(0.0, low - half[0]), min(1.0, high + half[2]))

    resources, logged_resources = {}, {}
    for hop, name in enumerate(HOPS):
        where = known & np.isfinite(played.had[:, hop])
        if where.any():
            value = mean(played.had[:, hop], once, where)
            drawn = [mean(p.had[:, hop], m.times, where) for m, p in resampled]
            half = t * float(np.std(drawn, ddof=1))
            resources[NAMES[name]] = Interval(value, max(0.0, value - half), value + half)
            logged_resources[NAMES[name]] = mean(log.had[:, hop], once, where & np.isfinite(log.had[:, hop]))

    o = played.outcomes
    decided = o.decided_met | o.decided_missed
    low_end, high_end = mean(o.met_low & o.met, once, known), mean(o.met_high | o.met, once, known)
    result = Evaluation(
        slots=int(known.sum()),
        busy=int((known & busy).sum()),
        logged=mean(log.met == 1, once, known),
        qos=interval(lambda o: o.met, known),
        qos_busy=interval(lambda o: o.met, known & busy),
        bounds=(mean(o.decided_met, once, known), mean(~o.decided_missed, once, known)),
        ends=(low_end, high_end),
        decided=mean(decided, once, known),
        inside=mean(decided | (o.beyond == 0).all(axis=1), once, known),
        resources=resources,
        logged_resources=logged_resources,
    )
    return replace(result, refused=_outside(played, high_end - low_end))


def _outside(played: Played, apart: float) -> str:
    """Why the run cannot tell of what was played; "" where it can."""
    if apart <= MAX_OUTSIDE:
        return ""
    o = played.outcomes
    beyond = o.beyond[o.met_low != o.met_high]
    hop, way = max(
        ((hop, way) for hop in range(3) for way in (-1, 1)), key=lambda c: (beyond[:, c[0]] == c[1]).sum()
    )
    share = (o.beyond[:, hop] == way).mean()
    return (
        f"in {share:.0%} of the control slots the policy would have {'less' if way < 0 else 'more'} "
        f"{NAMES[HOPS[hop]]} for its traffic than this run tells of: its delivery ratio is known to "
        f"{apart:.2f} at best, at most {MAX_OUTSIDE:g} would be an answer"
    )


def _student(degrees: int) -> float:
    """97.5 % point of Student's t (Cornish-Fisher; within 1 % from 3 degrees of freedom)."""
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (i + 1) for i, term in enumerate(terms))
