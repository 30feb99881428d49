"""The default: the least headroom of allocation over demand whose delays keep the promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, isfinite, log2
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from controller.core.decision import BY_MORE_HEADROOM
from controller.policies.base import LOAD_CHANGED, NOT_PULLED, UNKNOWN, Context, Explanation, Feedback, Policy
from controller.policies.isotonic import isotonic

ROWS_PER_OCTAVE = 4
LOWEST, ROWS = -4 * ROWS_PER_OCTAVE, 18 * ROWS_PER_OCTAVE
"""Rows of log2 headroom: 2^-4 to 2^14 (MHz a flow, PRB a PRB of demand), a fifth more from row to row."""

MARGIN = 0.7
"""A control slot whose delay is above this part of the budget counts as late. Delays rise steeply where the
headroom ends: half of what is late is not missed yet, and the rest of the budget is for holds and hiccups."""
HOPELESS = 0.3
"""Where full resources are late in so many control slots, nothing less is tried."""
ENOUGH = 1.9
"""Control slots of evidence (those that end early count for as long as they lasted) behind an action."""
PRIOR_SLOTS, PRIOR = 2.0, 0.1
"""Late are one in ten of two imagined control slots: one bad slot is no proof, two are."""
BORROWED = 3.0
"""Evidence from greater headroom counts for so many control slots at most: a row's own outweighs it soon."""
REACH = ROWS_PER_OCTAVE
"""Rows (an octave) from which evidence is borrowed; where the next action is further away, until there."""
SAFETY = 1.5
"""What the delay's slope over 1 / headroom is multiplied with where it is carried to less headroom."""

MEMORY = 160
"""Samples remembered."""
HALF_LIFE = 120.0
"""Control slots that taught something after which a sample counts half (ten busy minutes of 5 s): antennas
move, GPUs grow warm."""
FORECASTS = 60
FORECAST = 0.8
"""Quantile of how much the demand rose within the last control slots: what is prepared for. Beyond it the
control slot ends early, where it may."""
HIGHEST_RISE = 16.0
LEAST_DEMAND = 1e-3
"""PRB or flows: less is as good as this."""
FIRST_RISE, FIRST_RISES = 1.2, 5
"""Imagined rises, beside those that were seen."""
DRIFT, ALARM = 0.3, 2.0
"""CUSUM of late control slots (Page, 1954): each adds what it is above its prediction and :data:`DRIFT`, and
at :data:`ALARM`, after three or four late ones running, the model is forgotten."""
KEPT = 4
"""Samples kept then: the newest."""


class Headroom(Policy):
    """Plays the smallest action that is expected to keep ``qos_target`` of what full resources would.

    **Model.** What a hop's delay depends on is the ratio of what it has to what its traffic needs, the
    headroom: PRB over offered PRB, MHz over active flows. So all states of a hop are one model: samples of
    (headroom, delay), the delay being that of the worst flow in a control slot. A bit says less than a delay,
    which tells how near to the cliff it was. A state that was never seen is a headroom that was.

    **Choice.** For each action the share p of late control slots (:data:`MARGIN`) at its headroom: of its own
    samples, of those an octave above, moved down by a line in 1 / headroom (the time of transmission, fitted,
    with a safety factor), and of a prior. More resources never hurt, so p is made antitonic (PAVA). Played is
    the smallest action with p at most that of full resources + 2 (1 - ``qos_target``), as half of what is
    late is missed, and with evidence enough; otherwise all there is. It starts there, goes down at most to
    the next action or by an octave at a time, and never below evidence that says no: safe in the sense of
    Wu et al. (2016), with full resources as the baseline.

    **Demand** is the offered one. How much it rises within a control slot (a fading channel) is learned apart
    as a ratio, and its upper fifth prepared for: far more is known of it than of any one action.

    **Blame.** Clouded feedback teaches nothing: a backlog inherited, a burst handed on by the hop before, a
    load that changed. What waits too long when the slot begins is drained at full resources.

    **Drift.** Samples fade (:data:`HALF_LIFE`), and a run of late control slots that the model did not expect
    clears it (CUSUM).

    Where no delay is known (None, not finite, negative) the QoS bit stands in for it. Without demand nothing
    is known and everything is given. ValueError for a target outside 0.5..1 (1 excluded).

    >>> policy = Headroom([10, 30, 50])
    >>> at_20 = Context(demand=5.0, budget_ms=70.0)
    >>> policy.pull(at_20), policy.explain().reason
    (50, 'not known to be enough with less')
    >>> for _ in range(3):
    ...     policy.update(50, Feedback(1, delay_ms=12.0, budget_ms=70.0, demand=5.0, slots=1.0))
    >>> policy.pull(at_20), policy.explain().reason
    (30, 'by what more headroom gave')
    """

    name: ClassVar[str] = "headroom"
    per_state: ClassVar[bool] = False
    contextual: ClassVar[bool] = True
    option_names: ClassVar[tuple[str, ...]] = ("qos_target",)
    reasons: ClassVar[Mapping[str, str]] = {
        "known": "the smallest action whose own headroom was seen to be late no oftener than the target "
        "allows",
        BY_MORE_HEADROOM: "the smallest action that is expected to do: its own headroom was not seen often "
        "enough, more of it, up to an octave, was, and says that it is late no oftener than allowed",
        "not known to be enough with less": "all there is: of no smaller action is it known that it will do",
        "demand not known": "all there is: without a demand there is no headroom to judge",
        "drains a backlog": "all there is: what waits in the hop is older than twice its budget",
        "idle": "no traffic needs it now: the smallest action where a control slot may end early, else all "
        "there is",
    }

    def __init__(self, actions: Any, *, qos_target: float = 0.98) -> None:
        super().__init__(actions)
        if isinstance(qos_target, bool) or not isinstance(qos_target, int | float):
            raise ValueError(f"policy {self.name}: option qos_target {qos_target!r} is not a number")
        if not 0.5 <= qos_target < 1:
            raise ValueError(f"policy {self.name}: option qos_target {qos_target!r} is outside 0.5..1")
        self._target = float(qos_target)
        self._a = np.array(self.actions, np.float64)
        self._next = np.minimum(np.arange(len(self._a)) + 1, len(self._a) - 1)
        self._n = 0
        self._row = np.zeros(MEMORY, np.int64)
        self._delay, self._slots, self._at = np.zeros(MEMORY), np.zeros(MEMORY), np.zeros(MEMORY)
        self._clock = 0.0
        self._rises: list[float] = []
        self._planned: float | None = None
        self._expected: float | None = None
        self._alarm = 0.0
        self._explanation = NOT_PULLED

    def pull(self, context: Context = UNKNOWN) -> int:
        demand, budget = context.demand, context.budget_ms
        self._planned = self._expected = None
        if demand is None or not isfinite(demand) or demand < 0 or budget is None:
            return self._play(-1, "demand not known")
        if 0 < demand < LEAST_DEMAND:
            demand = LEAST_DEMAND
        if context.backlogged:
            return self._play(-1, "drains a backlog")
        if demand == 0:
            return self._play(0, "idle") if context.events else self._play(-1, "idle")
        self._planned = demand
        return self._cheapest(demand, self._rise(), MARGIN * budget)

    def _rise(self) -> float:
        """How much the demand may rise within a control slot."""
        rises = sorted([*self._rises, *(FIRST_RISE,) * FIRST_RISES])
        return max(1.0, rises[int(FORECAST * len(rises))])

    def _cheapest(self, demand: float, rise: float, limit_ms: float) -> int:
        """The smallest action that is expected to do when the demand rises."""
        rows = _rows(self._a / (demand * rise))
        row, delay = self._row[: self._n], self._delay[: self._n]
        weight = self._slots[: self._n] * 0.5 ** ((self._clock - self._at[: self._n]) / HALF_LIFE)
        own = np.bincount(row, weight, ROWS + 1)
        late = np.bincount(row, weight * (delay > limit_ms), ROWS + 1)
        # Where the row above is known, what it gave is taken as it is: a fifth less, whatever the line says.
        known = own[1:] >= ENOUGH
        borrowed, borrowed_late = own[1:] * known, late[1:] * known
        own, late = own[:-1], late[:-1]
        # Else from an octave above, and for an action from as far as the next one. Samples are of the demand
        # that came, the actions' rows of the one prepared for.
        following = rows[self._next]
        other = (rows != following) & ~known[rows]
        if self._n and other.any():
            at, octave = rows[other], REACH + round(ROWS_PER_OCTAVE * log2(rise))
            gap = row - at[:, None]
            above = (gap > 0) & (gap <= np.maximum(octave, following[other] - at)[:, None])
            inverse = _INVERSE[row]
            slope = _slope(inverse, delay, weight, limit_ms)
            moved = delay + slope * (_INVERSE[at][:, None] - inverse) > limit_ms
            borrowed[at], borrowed_late[at] = above @ weight, (above & moved) @ weight
        scale = np.minimum(1.0, BORROWED / np.maximum(borrowed, 1e-9))
        evidence = own + scale * borrowed
        share = (late + scale * borrowed_late + PRIOR * PRIOR_SLOTS) / (evidence + PRIOR_SLOTS)
        seen = own > 0
        seen[rows] = True
        share[seen] = isotonic((-share[seen]).tolist(), (evidence[seen] + 0.01).tolist())
        share, evidence = -share[rows], evidence[rows]
        full = float(share[-1])
        bound = full + 2 * (1 - self._target) if full < HOPELESS else -1.0
        good = ((evidence >= ENOUGH) & (share <= bound)).nonzero()[0]
        chosen = int(good[0]) if len(good) else len(rows) - 1
        self._expected = float(share[chosen])
        if not len(good):
            return self._play(-1, "not known to be enough with less")
        return self._play(chosen, "known" if own[rows[chosen]] >= ENOUGH else BY_MORE_HEADROOM)

    def _play(self, position: int, why: str) -> int:
        self._explanation = Explanation(None, why)
        return self.actions[position]

    def update(self, action: int, feedback: Feedback) -> None:
        self._index_of(action, feedback)
        demand, budget, slots = feedback.demand, feedback.budget_ms, feedback.slots
        slots = round(min(slots, 1.0), 3)
        if demand is None or not isfinite(demand) or demand <= 0 or budget is None or not slots > 0:
            return
        demand = max(demand, LEAST_DEMAND)
        if self._planned and feedback.confounded != LOAD_CHANGED:
            self._rises = [*self._rises[1 - FORECASTS :], round(min(demand / self._planned, HIGHEST_RISE), 3)]
        if feedback.confounded:
            return
        delay = feedback.delay_ms
        if delay is None or not isfinite(delay) or delay < 0:
            delay = budget * (0.5 if feedback.met else 2.0)
        if not feedback.met and delay <= budget:  # a flow of which no delay is known
            delay = 2.0 * budget
        self._clock = round(self._clock + slots, 3)
        if self._n == MEMORY:
            for column in self._columns():
                column[:-1] = column[1:]
            self._n -= 1
        values = (_row(action / demand), round(min(delay, 1e6), 2), slots, self._clock)
        for column, value in zip(self._columns(), values, strict=True):
            column[self._n] = value
        self._n += 1
        if self._expected is not None:
            self._alarm = max(0.0, self._alarm + slots * ((delay > MARGIN * budget) - self._expected - DRIFT))
            if self._alarm > ALARM:
                self._alarm = 0.0
                self._remember(self._samples()[-KEPT:])

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self._row, self._delay, self._slots, self._at

    def _samples(self) -> list[tuple[int, float, float, float]]:
        """Row, delay (ms), length and time (control slots) of each sample, the oldest first."""
        return list(zip(*(column[: self._n].tolist() for column in self._columns()), strict=True))

    def _remember(self, samples: Sequence[tuple[int, float, float, float]]) -> None:
        self._n = len(samples)
        for column, values in zip(self._columns(), zip(*samples, strict=True), strict=False):
            column[: self._n] = values

    def explain(self) -> Explanation:
        return self._explanation

    def options(self) -> dict[str, Any]:
        return {"qos_target": self._target}

    def take_over(self, state: Mapping[str, Any]) -> None:
        if state.get("name") != self.name:
            raise ValueError(f"state of policy {state.get('name')!r} teaches {self.name} nothing")
        self._load(state)

    def _learned(self) -> dict[str, Any]:
        return {
            "samples": [list(sample) for sample in self._samples()],
            "clock": self._clock,
            "rises": list(self._rises),
            "planned": self._planned,
            "expected": self._expected,
            "alarm": self._alarm,
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        where = f"state of policy {self.name}"
        try:
            samples = [
                (int(row), float(delay), float(slots), float(at))
                for row, delay, slots, at in state["samples"]
            ]
            clock, alarm = float(state["clock"]), float(state["alarm"])
            rises = [float(rise) for rise in state["rises"]]
            known = [state["planned"], state["expected"]]
            planned, expected = (None if value is None else float(value) for value in known)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: not numbers: {state['samples']!r:.80}") from None
        others = [value for value in (planned, expected) if value is not None]
        numbers = np.array([v for sample in samples for v in sample] + rises + [clock, alarm, *others])
        if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
            raise ValueError(f"{where}: a number is negative or not finite")
        if len(samples) > MEMORY or len(rises) > FORECASTS or any(r >= ROWS for r, _, _, _ in samples):
            raise ValueError(f"{where}: {len(samples)} samples, {len(rises)} rises, or a row from {ROWS} on")
        if any(at > clock or not 0 < slots <= 1 for _, _, slots, at in samples):
            raise ValueError(f"{where}: a sample is of the future, or not of a control slot")
        self._remember(samples)
        self._clock, self._alarm, self._rises = clock, alarm, rises
        self._planned, self._expected = planned, expected


_INVERSE = 2.0 ** (-(np.arange(ROWS) + LOWEST + 0.5) / ROWS_PER_OCTAVE)
"""1 / headroom in the middle of each row."""


def _rows(headroom: NDArray[np.float64]) -> NDArray[np.int64]:
    """The row of each headroom."""
    octaves = np.log2(np.maximum(headroom, 1e-6))
    rows = np.floor(ROWS_PER_OCTAVE * octaves).astype(np.int64) - LOWEST
    return np.minimum(np.maximum(rows, 0), ROWS - 1)


def _row(headroom: float) -> int:
    return min(max(floor(ROWS_PER_OCTAVE * log2(max(headroom, 1e-6))) - LOWEST, 0), ROWS - 1)


def _slope(
    inverse: NDArray[np.float64], delay: NDArray[np.float64], weight: NDArray[np.float64], limit_ms: float
) -> float:
    """ms of delay for 1 / headroom: that of the line through the samples in time, with :data:`SAFETY`.

    At most what it would be if all of the least delay were transmission, which is what one row alone allows.
    """
    w = weight * (delay <= limit_ms)
    total = w.sum()
    if total <= 0:
        return 0.0
    inside = w > 0
    least = int(np.where(inside, delay, np.inf).argmin())
    most = float(delay[least] / inverse[least])
    if inverse.max(initial=0.0, where=inside) < 1.8 * inverse.min(initial=np.inf, where=inside):
        return most
    dx = inverse - (w @ inverse) / total
    slope = float((w * dx) @ delay / ((w * dx) @ dx))
    return min(most, max(SAFETY * slope, 0.05 * most))
