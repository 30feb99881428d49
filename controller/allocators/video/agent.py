"""Level-one digital agents: for each user what it said, its own QoE model, and what it asks for.

An agent records who its user is, the experience-level agreement, the QoS that it had (delay, throughput,
jitter, loss, stalls, quality), its context (behaviour, environment, how it moves) and its scores. It has a
model of its own once there are enough scores, that of the group whose model fits them best while there are
few, and the general one of all users while there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video import opinion
from controller.allocators.video.groups import GROUPS, group_of
from controller.allocators.video.opinion import COLUMNS, OpinionModel
from controller.twins.drift import Cusum, Settings
from wire.definitions import mos

FloatArray = NDArray[np.float64]

HISTORY: Final = (*COLUMNS, "swipes_per_min", "prb_per_kbps", "time_s")
"""Columns of an agent's history, float64 [rows, HISTORY], oldest first: those of its opinion, then what else
there was when it scored."""
MAX_ROWS: Final = 240
"""Scores that are kept: the latest."""
REFIT_ROWS: Final = 30
"""New scores after which the weights of a model are fitted anew."""
CHOOSE_ROWS: Final = 6
"""Scores that are enough to choose a group's model by."""
MAX_GENERAL: Final = 480
"""Scores, of all users alike, that the general model and those of groups are fitted to."""
GENERAL_ROWS: Final = 4 * opinion.LEAST_ROWS
"""Scores that a model of all takes: they mind different things, and the few first say of what most mind
alone."""
LEAST_SPREAD: Final = 0.15
"""Standard deviation of the quality that was seen: who always saw the same cannot say that it does not
matter."""
HABIT_S: Final = 30.0
"""Between two looks at a user's behaviour, which counts swipes over a minute."""
HABIT: Final = Settings(correlation=0.5)
SURPRISE: Final = Settings(allowance=0.5, threshold=8.0)
"""A model that is a little off is no change."""
PATIENCE: Final = 90
OWN, GROUP, GENERAL = "own", "group", "general"


@dataclass(slots=True)
class Agent:
    """``model`` is what it goes by, ``source`` whose that is; ``fitted`` how many scores there had been when
    it was fitted, ``seen`` how many there have been. ``surprise`` watches how far scores are from what its
    own model expects, where a rise is a change, ``habit`` its behaviour; ``drifts`` counts the changes
    that they found."""

    user: str
    ela: float
    segment_s: float = 1.0
    history: FloatArray = field(default_factory=lambda: np.empty((0, len(HISTORY))))
    model: OpinionModel | None = None
    source: str = GENERAL
    seen: int = 0
    fitted: int = 0
    surprise: Cusum = field(default_factory=lambda: Cusum(SURPRISE))
    surprised: int | None = None
    habit: Cusum = field(default_factory=lambda: Cusum(HABIT))
    drifts: int = 0
    habit_step: int = -1

    @property
    def opinions(self) -> FloatArray:
        """The history of its opinion, [rows, COLUMNS]."""
        return self.history[:, : len(COLUMNS)]

    def column(self, name: str) -> FloatArray:
        """A column of the history, [rows]."""
        return self.history[:, HISTORY.index(name)]

    def observe(self, rows: FloatArray) -> int:
        """Take in rows [n, HISTORY]; how many of them were left out, as their score or context cannot be.

        Where scores are no more what its own model expects, the user judges by something else: the agent goes
        on with the latest scores alone, by a shared model until there are enough of them. Where behaviour
        changes, its model is fitted anew at the next occasion.
        """
        rows = np.asarray(rows, np.float64).reshape(-1, len(HISTORY))
        good = possible(rows)
        kept = rows[good]
        after = 0
        for row in kept:
            after += self.surprise.alarm > 0
            self._watch(row)
        self.history = np.concatenate((self.history, kept))[-MAX_ROWS:]
        self.seen += len(kept)
        if self.surprise.alarm > 0:
            self._surprised(after)
        return int((~good).sum())

    def refer(self) -> None:
        """From now on scores are no surprise that are as far from its own model as those it was fitted to. A
        detector that learned that from the scores to come would take a model that is wrong from the start for
        one that is right."""
        errors = self._errors(self.history)
        mean = float(errors.mean())
        squares = float(np.square(errors - mean).sum())
        self.surprise = replace(self.surprise, count=len(errors), mean=mean, squares=squares)

    def _errors(self, rows: FloatArray) -> FloatArray:
        """How far scores [n] are from what its model expects, in its deviations, either way: who comes to
        mind something else need not be any stricter."""
        assert self.model is not None
        return np.abs(rows[:, 0] - self.model.predict(factors_of(rows))) / self.model.deviation

    def _watch(self, row: FloatArray) -> None:
        if self.source == OWN and self.model is not None and self.surprise.alarm <= 0:
            self.surprise = self.surprise.observe(float(self._errors(row[None])[0]))
        step = int(row[HISTORY.index("time_s")] // HABIT_S)
        if step != self.habit_step:
            self.habit_step = step
            self.habit = self.habit.observe(float(row[HISTORY.index("behaviour")]))
            if self.habit.alarm:
                self.drifts += 1
                self.fitted = 0

    def _surprised(self, after: int) -> None:
        """Its model is to be fitted anew; where that was tried :data:`PATIENCE` scores ago or less, what came
        before the change is forgotten. ``after``: scores since the alarm."""
        lately = self.surprised is not None and self.seen - self.surprised <= PATIENCE
        if lately:
            keep = max(min(self.surprise.since + after, len(self.history)), CHOOSE_ROWS)
            self.history = self.history[-keep:]
            self.model, self.source = None, GENERAL
        self.surprised = None if lately else self.seen
        self.surprise, self.fitted, self.drifts = Cusum(SURPRISE), 0, self.drifts + 1


def possible(rows: FloatArray) -> NDArray[np.bool_]:
    """Which rows [n, HISTORY] can be: a score on the scale, B and C in their range, a time, PRBs that are not
    negative, nothing infinite."""
    score = rows[:, 0]
    context = rows[:, [HISTORY.index("behaviour"), HISTORY.index("environment")]]
    low, high = mos.FACTOR_RANGE
    with np.errstate(invalid="ignore"):
        good = (score >= mos.SCALE[0]) & (score <= mos.SCALE[1])
        good &= ((context >= low - 1e-6) & (context <= high + 1e-6)).all(axis=1)
        good &= ~(rows[:, HISTORY.index("prb_per_kbps")] < 0.0) & ~np.isnan(rows[:, HISTORY.index("time_s")])
    return good & ~np.isinf(rows).any(axis=1)


@dataclass(slots=True)
class Population:
    """The agents of a slice, by user, and the models that they share: the general one and one a group."""

    agents: dict[str, Agent] = field(default_factory=dict)
    general: OpinionModel | None = None
    groups: dict[str, OpinionModel] = field(default_factory=dict)

    def learn(self, users: Iterable[str] | None = None) -> None:
        """Bring the models of the agents (of ``users``, of all) up to date, and the shared ones where there
        is anybody who needs them."""
        pooled = [a.opinions for a in self.agents.values() if len(a.history)]
        if not pooled:
            return
        few = self.general is None or self.general.rows < MAX_GENERAL // 2
        if few or any(a.source != OWN for a in self.agents.values()):
            self.general = _pooled(pooled, GENERAL_ROWS)
        for name in self.agents if users is None else users:
            self._learn(self.agents[name])
        if all(a.source == OWN for a in self.agents.values()):
            return
        for name in GROUPS:
            members = [
                a.opinions
                for a in self.agents.values()
                if a.source == OWN and a.model is not None and GROUPS[group_of(a.model)] == name
            ]
            if members:
                self.groups[name] = _pooled(members, opinion.LEAST_ROWS)
        for agent in self.agents.values():
            if agent.source != OWN:
                agent.model, agent.source = self._borrowed(agent)

    def _learn(self, agent: Agent) -> None:
        """A model of its own where there are scores enough: anew where it drifted, else the weights of the
        one that it has."""
        if len(agent.history) < opinion.LEAST_ROWS:
            return
        if agent.fitted and agent.seen - agent.fitted < REFIT_ROWS:
            return
        fitted = opinion.fit(agent.opinions)
        agent.fitted = agent.seen
        if fitted.informative and (agent.source == OWN or _can_tell(fitted, agent.opinions)):
            agent.model, agent.source = fitted, OWN
            agent.refer()
        else:
            agent.source = GENERAL

    def _borrowed(self, agent: Agent) -> tuple[OpinionModel | None, str]:
        """The shared model that fits the agent's few scores best."""
        assert self.general is not None
        rows = agent.opinions
        if len(rows) < CHOOSE_ROWS or not self.groups:
            return self.general, GENERAL
        factors = dict(zip(COLUMNS, np.nan_to_num(rows.T), strict=True))
        errors = {
            name: float(np.square(model.predict(factors) - rows[:, 0]).mean())
            for name, model in self.groups.items()
        }
        best = min(errors, key=lambda name: errors[name])
        return self.groups[best], GROUP


def _pooled(histories: Sequence[FloatArray], least: int) -> OpinionModel:
    """One model for many users: of as many of the latest scores of each; the constant of fewer than
    ``least``."""
    each = max(MAX_GENERAL // len(histories), 1)
    rows = np.concatenate([h[-each:] for h in histories])
    if len(rows) >= least and _can_tell(model := opinion.fit(rows), rows):
        return model
    return opinion.constant(rows)


def _can_tell(model: OpinionModel, rows: FloatArray) -> bool:
    """Whether a model knows about quality: it minds it, or was fitted to rows [n, COLUMNS] with another.

    One that does not asks for next to nothing, of a cell in which next to nothing is to be had, and so never
    sees what it would have needed to know.
    """
    quality = rows[np.isfinite(rows[:, COLUMNS.index("quality")]), COLUMNS.index("quality")]
    return "quality" in model.structure.qos or (len(quality) > 0 and bool(quality.std() >= LEAST_SPREAD))


def factors_of(history: FloatArray) -> Mapping[str, Any]:
    """The factors of rows [n, COLUMNS or more], by name; what is not known counts as 0."""
    return dict(zip(COLUMNS, np.nan_to_num(history[:, : len(COLUMNS)].T), strict=True))
