"""Under what the study plays its scenarios: the channels, and the stresses of the emulated testbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EMULATED, MEASURED = "emulated", "measured"
STRESSED_SCENARIOS = (1, 2)
"""Where the stresses are played if nothing else is said: few flows and few actions, many of both."""

STRESS = "emulation.stress."


@dataclass(frozen=True, slots=True)
class Condition:
    """A name, what it means, and other values for keys of the scenario.

    ``changes`` tells that something happens in the middle of the run.
    """

    name: str
    text: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    changes: bool = False

    @property
    def stress(self) -> bool:
        return self.name not in (EMULATED, MEASURED)

    def of(self, duration_s: float | None, channel_trace: Path | None) -> dict[str, Any]:
        """The keys to replace for a run that is cut to ``duration_s``."""
        out = dict(self.overrides)
        if self.name == MEASURED:
            out["emulation.channel_trace"] = str(channel_trace)
        if self.changes and duration_s is not None:
            out[f"{STRESS}at_s"] = duration_s / 2
        return out


def _floor(name: str, share: str, rate_hz: float) -> Condition:
    text = f"floor: about {share} of the control slots are missed at full resources ({rate_hz:g} hiccups/s)"
    return Condition(name, text, {f"{STRESS}hiccup_rate_hz": rate_hz})


CONDITIONS: Mapping[str, Condition] = {
    c.name: c
    for c in (
        Condition(EMULATED, "the emulated channel"),
        Condition(MEASURED, "measured channels, each seed elsewhere in them"),
        # Static in mucb1-1, eight seeds of an hour each: 1.0, 4.9 and 15.2 % of all control slots missed.
        _floor("floor-1", "1 %", 0.0033),
        _floor("floor-5", "5 %", 0.016),
        _floor("floor-15", "15 %", 0.057),
        Condition(
            "demand-up",
            "frames and results half as large again in the second half, announced rates unchanged",
            {f"{STRESS}demand": 1.5},
            changes=True,
        ),
        Condition(
            "rate-half", "flows announce half the rate that they have", {f"{STRESS}announced_rate": 0.5}
        ),
        Condition(
            "rate-double", "flows announce twice the rate that they have", {f"{STRESS}announced_rate": 2.0}
        ),
        Condition(
            "gpu-slow",
            "the GPU takes a third longer at the same clock in the second half",
            {f"{STRESS}service_time": 4 / 3},
            changes=True,
        ),
        Condition(
            "unsynchronised",
            "clocks not synchronised: only the round trip is known",
            {f"{STRESS}synchronised": False},
        ),
        Condition(
            "cross-ul",
            "3 Mbit/s of another application up the same UE, announced by nobody",
            {f"{STRESS}cross_ul_bps": 3e6},
        ),
        Condition(
            "cross-dl",
            "10 Mbit/s of another application down the same UE, announced by nobody",
            {f"{STRESS}cross_dl_bps": 10e6},
        ),
    )
}


def without(condition: Condition, channel_trace: Path | None) -> str:
    """Why a condition cannot be played here; empty where it can."""
    if condition.name != MEASURED:
        return ""
    if channel_trace is None:
        return "no folder of measured channels is given"
    return "" if channel_trace.exists() else f"{channel_trace}: there is no such folder"


def scenarios_of(
    condition: Condition, scenarios: Sequence[int], stressed: Sequence[int] | None
) -> tuple[int, ...]:
    """The scenarios that a condition is played in.

    Without ``stressed`` a stress is played in those of :data:`STRESSED_SCENARIOS` that are among
    ``scenarios``, in all of these where none is.
    """
    if not condition.stress:
        return tuple(scenarios)
    if stressed is not None:
        return tuple(stressed)
    return tuple(n for n in scenarios if n in STRESSED_SCENARIOS) or tuple(scenarios)
