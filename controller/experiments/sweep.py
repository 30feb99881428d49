"""A grid of scenarios, policies, seeds and parameters, from a strict YAML file; resumable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from controller import config as config_module
from controller import policies
from controller.config import ConfigError, Positive
from controller.experiments.runs import Run, RunSpec, execute

EXAMPLE = Path(__file__).with_name("sweep-example.yaml")
"""A SPEC with every key that there is, and a word on each."""


class SweepError(ValueError):
    """A sweep that cannot be run; the text names file and key."""


class SweepSpec(BaseModel):
    """A grid: every scenario with every policy, seed and combination of ``parameters``.

    ``parameters`` maps a dotted key of the scenario's configuration to the values that it takes. Scenario
    files are relative to the sweep's file.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    scenarios: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    parameters: dict[str, tuple[Any, ...]] = {}
    schedule: Literal["described", "published", "always"] | None = None
    channel_trace: str | None = None
    duration_s: Positive | None = None

    @field_validator("scenarios", "policies", "seeds", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return _unique(value)

    @field_validator("parameters", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: _unique(values, f"{key}: ") for key, values in value.items()}
        return value

    @field_validator("seeds")
    @classmethod
    def _whole(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0:
            raise ValueError(f"seed {min(value)} is negative")
        return value

    @field_validator("policies")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(policies.resolved, value))


def _unique(value: Any, where: str = "") -> Any:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}needs a list of one or more values")
    texts = [json.dumps(v, default=str) for v in value]
    if twice := sorted({t for t in texts if texts.count(t) > 1}):
        raise ValueError(f"{where}{', '.join(twice)} is there twice")
    return tuple(value)


def load(path: Path) -> SweepSpec:
    """Read a sweep; :class:`SweepError` names the file and every key that is wrong."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=config_module.StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SweepError(f"{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(data, dict):
        raise SweepError(f"{path}: a sweep is a mapping, not {type(data).__name__}")
    try:
        return SweepSpec.model_validate(data)
    except ValidationError as error:
        lines = []
        for e in error.errors():
            unknown = e["type"] == "extra_forbidden"
            message = "unknown key" if unknown else str(e["msg"]).removeprefix("Value error, ")
            lines.append(f"{path}: {'.'.join(map(str, e['loc'])) or 'sweep'}: {message}")
        raise SweepError("\n".join(lines)) from error


def runs(path: Path) -> list[RunSpec]:
    """Every run of a sweep's grid, each checked; :class:`SweepError` names the file and the key."""
    sweep = load(path)
    overrides: dict[str, Any] = {}
    if sweep.schedule:
        overrides["emulation.schedule"] = sweep.schedule
    if sweep.channel_trace:
        overrides["emulation.channel_trace"] = str(_beside(path, sweep.channel_trace).absolute())
    out = []
    for scenario, policy, seed in product(sweep.scenarios, sweep.policies, sweep.seeds):
        known = scenario in config_module.scenarios()
        for values in product(*sweep.parameters.values()):
            try:
                out.append(
                    RunSpec.make(
                        scenario if known else str(_beside(path, scenario)),
                        policy,
                        seed,
                        parameters=dict(zip(sweep.parameters, values, strict=True)),
                        overrides=overrides,
                        duration_s=sweep.duration_s,
                    )
                )
            except ConfigError as error:
                raise SweepError(f"{path}: scenario {scenario}, policy {policy}: {error}") from error
    return out


def _beside(path: Path, name: str) -> Path:
    return path.parent / name


def row(spec: RunSpec) -> dict[str, Any]:
    """What a worker does: run it, and keep the figures."""
    done: Run = execute(spec)
    return done.row()


def labelled(kept: Mapping[str, Any], spec: RunSpec) -> dict[str, Any]:
    """A kept row with the parameters of this sweep: the run may have been another's, by other names."""
    return {name: value for name, value in kept.items() if "." not in name} | dict(spec.parameters)
