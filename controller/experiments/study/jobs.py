"""The runs of the study: what there is to do, and what a worker does and keeps of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import policies as policies_module
from controller import sim
from controller.experiments.mucb1 import oracle as oracle_module
from controller.experiments.results import Row
from controller.experiments.runs import RunSpec, trace_digests
from controller.experiments.study.conditions import CONDITIONS, Condition, scenarios_of, without
from controller.experiments.study.windows import Windows
from controller.store.summary import Allocation, ClosedSlot, Summary

SCENARIOS = (1, 2, 3, 4, 5)
WITH_ORACLE = ("emulated", "measured")
"""Conditions that a clairvoyant is searched under."""
CLAIRVOYANT = "clairvoyant"
"""In the place of a policy's name."""

PARTS: Mapping[str, str] = {
    "whole": "whole run",
    "first_5min": "first five minutes",
    "after_5min": "after five minutes",
    "last_third": "last third",
}
FIGURES = ("qos_windows", "qos_slots", "ul_prb", "dl_prb", "mhz", "resources")
"""Of each part: QoS delivery ratio over windows and over control slots, time-weighted means of what was in
force, and the mean of the three resources' shares of all that there is."""

_FIVE_MINUTES_S = 300.0


@dataclass(frozen=True, slots=True)
class Job:
    """A run of a policy, or the search of the clairvoyant and its run."""

    condition: str
    scenario: int
    policy: str
    spec: RunSpec

    @property
    def key(self) -> str:
        return f"{self.spec.key}-{CLAIRVOYANT}" if self.policy == CLAIRVOYANT else self.spec.key

    @property
    def name(self) -> str:
        return f"{self.condition}, {self.spec.scenario}, {self.policy}, seed {self.spec.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study is of. ``skipped`` says of conditions that cannot be played here why."""

    seeds: tuple[int, ...]
    policies: tuple[str, ...]
    conditions: Mapping[str, tuple[int, ...]]
    """The scenarios of each condition that is played."""
    oracle_seeds: tuple[int, ...]
    skipped: Mapping[str, str]
    duration_s: float | None = None
    channel_trace: Path | None = None

    def searched(self, condition: str) -> tuple[int, ...]:
        """The seeds for which a condition has a clairvoyant."""
        return self.oracle_seeds if condition in WITH_ORACLE else ()


def plan(
    seeds: Sequence[int],
    *,
    policies: Sequence[str] | None = None,
    conditions: Sequence[str] | None = None,
    scenarios: Sequence[int] = SCENARIOS,
    stressed: Sequence[int] | None = None,
    oracle_seeds: int = 3,
    duration_s: float | None = None,
    channel_trace: Path | None = None,
) -> Plan:
    """What there is to do; all policies and conditions by default.

    ``oracle_seeds``: the clairvoyant is searched for so many of the seeds. ValueError for an unknown name or
    scenario, for one that is there twice, and where nothing is left to do.
    """
    known = policies_module.names()
    named = known if policies is None else tuple(map(policies_module.resolved, policies))
    policies = _unique("policies", named, known)
    chosen = _unique("conditions", tuple(CONDITIONS) if conditions is None else conditions, tuple(CONDITIONS))
    scenarios = _unique("scenarios", scenarios, SCENARIOS)
    stressed = None if stressed is None else _unique("stress scenarios", stressed, SCENARIOS)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be one or more, each once, not {list(seeds)}")
    skipped = {name: why for name in chosen if (why := without(CONDITIONS[name], channel_trace))}
    played = {
        name: scenarios_of(CONDITIONS[name], scenarios, stressed) for name in chosen if name not in skipped
    }
    if not played:
        raise ValueError("; ".join(f"condition {name} is left out: {why}" for name, why in skipped.items()))
    return Plan(
        tuple(seeds), policies, played, tuple(seeds)[:oracle_seeds], skipped, duration_s, channel_trace
    )


def _unique(what: str, values: Sequence[Any], known: Sequence[Any]) -> tuple[Any, ...]:
    if not values or len(set(values)) != len(values):
        raise ValueError(
            f"{what} must be one or more, each once, not {', '.join(map(str, values)) or 'none'}"
        )
    for value in values:
        if value not in known:
            raise ValueError(f"{what}: {value} is none of {', '.join(map(str, known))}")
    return tuple(values)


def jobs(of: Plan) -> list[Job]:
    """The work, seed by seed, so that a study that is broken off has whole seeds; searches come first.

    :class:`ConfigError`, naming the scenario's file, for what cannot be run.
    """
    first = of.seeds[0]
    traces: dict[tuple[str | None, int, int], Any] = {}
    by_seed: dict[int, list[Job]] = {seed: [] for seed in of.seeds}
    for name, scenarios in of.conditions.items():
        condition: Condition = CONDITIONS[name]
        overrides = condition.of(of.duration_s, of.channel_trace)
        for scenario in scenarios:
            emulation = None
            for policy in (*of.policies, *((CLAIRVOYANT,) if of.searched(name) else ())):
                scenario_name = f"mucb1-{scenario}"
                if policy == "static":
                    made = RunSpec.at_full(
                        scenario_name, first, overrides=overrides, duration_s=of.duration_s
                    )
                else:  # of the clairvoyant the policy is not played, its actions are searched
                    made = RunSpec.make(
                        scenario_name,
                        "static" if policy == CLAIRVOYANT else policy,
                        first,
                        overrides=overrides,
                        duration_s=of.duration_s,
                    )
                emulation = emulation or made.load().emulation
                assert emulation is not None
                for seed in of.searched(name) if policy == CLAIRVOYANT else of.seeds:
                    place = (emulation.channel_trace, emulation.ues, seed)
                    if place not in traces:
                        traces[place] = trace_digests(emulation, seed)
                    by_seed[seed].append(Job(name, scenario, policy, made.with_seed(seed, traces[place])))
    return [
        job for of_seed in by_seed.values() for job in sorted(of_seed, key=lambda j: j.policy != CLAIRVOYANT)
    ]


def work(job: Job) -> Row:
    """What a worker process does: the run's row (:func:`play`), and of a clairvoyant what it plays."""
    if job.policy != CLAIRVOYANT:
        return {"key": job.key, **play(job.spec)}
    found = oracle_module.find(job.spec).reference
    row = play(job.spec, [found.actions[load] for load in found.loads])
    known = found.to_dict()
    return {
        "key": job.key,
        **row,
        "oracle": {name: known[name] for name in ("actions", "verified", "raised_steps", "emulated_runs")},
    }


def play(spec: RunSpec, allocations: Sequence[Allocation] | None = None) -> Row:
    """Run it and judge it: :data:`FIGURES` of each of :data:`PARTS` (None where a part has none).

    ``windows`` has a character a window: 1 met, 0 not met, ? cannot be told. With ``allocations`` they are
    in force, one a control slot. ValueError for more than one slice, or one of another service than ``ar``.
    """
    config = spec.load()
    if len(config.cells) != 1 or len(config.cells[0].slices) != 1:
        raise ValueError(f"{spec.scenario}: the study is of one cell with one slice")
    cell, name = config.cells[0], config.cells[0].slices[0].id
    windows = Windows(config, cell.id, name)
    slots: list[ClosedSlot] = []
    summary = Summary()

    def on_slot(_observation: Any, decision: Any, _loop: Any) -> None:
        if (slot := summary.add(decision.to_record())) is not None:
            slots.append(slot)

    result = sim.run(
        config,
        spec.seed,
        on_slot=on_slot,
        duration_s=spec.duration_s,
        plan=allocations,
        observe=lambda _cell: windows,
    )
    row: Row = {
        "control_slots": len(slots),
        "simulated_s": result.simulated_s,
        "wall_s": round(result.wall_s, 3),
        "channel": ", ".join(map(str, result.channel)),
        "windows": "".join("?" if met is None else str(met) for met in windows.met),
    }
    for part, span in spans(result.simulated_s).items():
        figures = _figures(slots, name, windows, span) if span[0] < span[1] else {}
        row |= {f"{part}_{figure}": figures.get(figure) for figure in FIGURES}
    return row


def spans(length_s: float) -> dict[str, tuple[float, float]]:
    """From when to when each part of a run lasts, in seconds; empty where there is none."""
    return {
        "whole": (0.0, length_s),
        "first_5min": (0.0, min(_FIVE_MINUTES_S, length_s)),
        "after_5min": (min(_FIVE_MINUTES_S, length_s), length_s),
        "last_third": (length_s * 2 / 3, length_s),
    }


def _figures(
    slots: Sequence[ClosedSlot], name: str, windows: Windows, span: tuple[float, float]
) -> dict[str, float | None]:
    """Windows that lie in the span, control slots that begin in it, and what was in force in it."""
    start, stop = (sim.EPOCH_NS + round(1e9 * t) for t in span)
    met = [slot.outcomes[name]["met"] for slot in slots if start <= slot.begin_ns < stop]
    inside = [
        q
        for n, q in enumerate(windows.met)
        if start <= windows.begin_ns(n) and windows.begin_ns(n + 1) <= stop
    ]
    held = [
        (min(stop, s.end_ns) - max(start, s.begin_ns), s)
        for s in slots
        if s.begin_ns < stop and s.end_ns > start
    ]
    total = sum(length for length, _ in held)
    if not total:
        return {}

    def mean(of: str) -> float:
        return sum(length * getattr(s.allocations[name], of) for length, s in held) / total

    ul, dl, mhz = mean("ul_prb"), mean("dl_prb"), mean("gpu_mhz")
    n_prb, max_mhz = slots[0].prb, slots[0].max_mhz
    return {
        "qos_windows": _ratio(inside),
        "qos_slots": _ratio(met),
        "ul_prb": ul,
        "dl_prb": dl,
        "mhz": mhz,
        "resources": (ul / n_prb + dl / n_prb + mhz / max_mhz) / 3,
    }


def _ratio(bits: Sequence[int | None]) -> float | None:
    known = [q for q in bits if q is not None]
    return sum(known) / len(known) if known else None


def labelled(kept: Mapping[str, Any], job: Job) -> Row:
    """A kept row with what it is of in this study; ValueError for one that is none."""
    if "whole_qos_windows" not in kept or "windows" not in kept:
        raise ValueError(f"{job.name}: not a result of the study")
    about = {
        "condition": job.condition,
        "scenario": job.scenario,
        "policy": job.policy,
        "seed": job.spec.seed,
    }
    return {**about, **kept}
