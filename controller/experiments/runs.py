"""One run of a scenario as a value: what to run, and what came of it. Both pickle and travel to workers."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller import config as config_module
from controller import sim
from controller.allocators.ar.delays import HOPS, MEASURES
from controller.config import Config, ConfigError, Emulation
from controller.loop import ControlLoop
from controller.scenario import (
    SCS_KHZ,
    TraceUse,
    check_applications,
    control_slots,
    testbed_spec,
    trace_uses,
)
from controller.store.summary import Allocation, ClosedSlot, Summary
from wire.definitions import plugins

FIGURES = (
    "qos_delivery_ratio",
    "qos_delivery_ratio_busy",
    "avg_ul_prb",
    "avg_dl_prb",
    "avg_gpu_mhz",
    "ue_power_saving",
    "bs_power_saving",
)
"""The columns of the paper's Table V, with the QoS over busy control slots beside it."""

TraceDigests = list[tuple[str, str]]

UNKNOWN = -1
"""A q that cannot be told, in a column of :class:`Series`."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A scenario with a policy, a seed and other values for some keys.

    ``config`` is the resolved configuration as YAML, so that whoever runs it needs none of the files (but a
    channel trace); ``parameters`` says what is special in it, by dotted key. ``key`` is the same for the same
    run by the same code on the same channel trace, whatever its parameters are called.
    """

    scenario: str
    policy: str
    seed: int
    config: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float | None = None
    key: str = ""

    @classmethod
    def make(
        cls,
        scenario: str,
        policy: str,
        seed: int,
        *,
        parameters: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        duration_s: float | None = None,
    ) -> RunSpec:
        """Resolve a shipped scenario or a file, every slice under ``policy``.

        ``parameters`` and ``overrides`` both replace dotted keys; only the first name columns of results.
        :class:`ConfigError`, naming file and key, for what cannot be run.
        """
        path = config_module.find(scenario)
        slices = [
            f"cells.{i}.slices.{j}"
            for i, cell in enumerate(config_module.load(path).cells)
            for j in range(len(cell.slices))
        ]
        replaced: dict[str, Any] = {}
        for prefix in slices:
            replaced |= {f"{prefix}.policy": policy, f"{prefix}.policy_options": {}}
        replaced |= {**(overrides or {}), **(parameters or {})}
        config = config_module.load(path, replaced)
        check(path, config, seed, duration_s)
        assert config.emulation is not None  # has control slots
        spec = cls(scenario, policy, seed, config.to_yaml(), dict(parameters or {}), duration_s)
        return spec.with_seed(seed, trace_digests(config.emulation, seed))

    @classmethod
    def at_full(
        cls,
        scenario: str,
        seed: int,
        *,
        overrides: Mapping[str, Any] | None = None,
        duration_s: float | None = None,
    ) -> RunSpec:
        """A scenario of the service ``ar`` under the policy static with all that there is as its one action:
        what others are compared with."""
        config = config_module.load(config_module.find(scenario), overrides or {})
        assert config.emulation is not None
        prb = config.emulation.prb
        full: dict[str, Any] = {}
        for i, cell in enumerate(config.cells):
            everything = {"ul_prb": [prb], "dl_prb": [prb], "gpu_mhz": [cell.max_mhz]}
            full |= {f"cells.{i}.slices.{j}.actions": everything for j in range(len(cell.slices))}
        return cls.make(
            scenario, "static", seed, overrides={**(overrides or {}), **full}, duration_s=duration_s
        )

    def with_seed(self, seed: int, traces: TraceDigests) -> RunSpec:
        """The same with another seed, under which the cell's UEs have these traces."""
        what = [_code(), traces, self.scenario, self.policy, seed, self.config, self.duration_s]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        return replace(self, seed=seed, key=key)

    def load(self) -> Config:
        return config_module.parse(self.config, self.name)

    @property
    def name(self) -> str:
        """For people: scenario, policy, seed and parameters."""
        more = "".join(f", {key}={value}" for key, value in self.parameters.items())
        return f"{self.scenario}, {self.policy}, seed {self.seed}{more}"


def check(path: Path, config: Config, seed: int, duration_s: float | None = None) -> None:
    """:class:`ConfigError`, naming the file, for a configuration that cannot be run."""
    try:
        control_slots(config, duration_s)
        for cell in config.cells:
            spec = testbed_spec(config, seed, cell.id)
            check_applications(spec)
            ControlLoop(config.loop_spec(cell.id, spec.cell.n_prb, SCS_KHZ, spec.cell.tdd))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def trace_digests(e: Emulation, seed: int) -> TraceDigests:
    """Each UE with the digest of its measured channel under a seed; errors as of :func:`trace_uses`."""
    return [(u.ue, hashlib.sha256(Path(u.trace).read_bytes()).hexdigest()) for u in trace_uses(e, seed)]


@functools.cache
def _code() -> str:
    """A digest of the sources of controller, emulator, what both read by, and what other packages bring
    along: other code, other results."""
    top = Path(sim.__file__).parents[1]
    rooms = [(top, room) for room in ("controller", "agents", "wire")]
    rooms += [(place.parent, place.name) for place in map(Path, plugins.places())]
    digest = hashlib.sha256()
    for parent, name in rooms:
        place = parent / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(str(file.relative_to(parent)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


Column = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Series:
    """One slice's control slots in their order, as int16 columns of equal length.

    ``flows`` are those whose QoS was judged, ``ul_prb, dl_prb, gpu_mhz`` what was in force, ``q`` each leg's
    bit (:data:`UNKNOWN` where it cannot be told).
    """

    flows: Column
    ul_prb: Column
    dl_prb: Column
    gpu_mhz: Column
    q: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.flows)

    def action(self, hop: str) -> Column:
        """What was in force at a hop, PRB or MHz."""
        return {"ul": self.ul_prb, "edge": self.gpu_mhz, "dl": self.dl_prb}[hop]

    def columns(self) -> dict[str, Column]:
        """Every column by name, those of q as ``q_LEG``."""
        own = {name: getattr(self, name) for name in ("flows", "ul_prb", "dl_prb", "gpu_mhz")}
        return {**own, **{f"q_{leg}": q for leg, q in self.q.items()}}

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Series:
        """From :meth:`columns`, or lists of their values."""
        typed = {name: np.asarray(values, np.int16) for name, values in columns.items()}
        q = {leg: typed.pop(f"q_{leg}") for leg in MEASURES}
        return cls(**typed, q=q)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run gave: the figures of its one slice (those of :data:`FIGURES` and each hop's delivery ratio
    over busy control slots), its means over the last 25 control slots of each load, and its control slots."""

    spec: RunSpec
    figures: Mapping[str, Any]
    by_load: Mapping[str, Mapping[str, Any]]
    series: Series
    control_slots: int
    simulated_s: float
    wall_s: float
    channel: tuple[TraceUse, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the specification aside."""
        return {
            "figures": dict(self.figures),
            "by_load": dict(self.by_load),
            "series": {name: column.tolist() for name, column in self.series.columns().items()},
            "control_slots": self.control_slots,
            "simulated_s": self.simulated_s,
            "wall_s": self.wall_s,
            "channel": [use.to_dict() for use in self.channel],
        }

    @classmethod
    def from_dict(cls, spec: RunSpec, data: Mapping[str, Any]) -> Run:
        """From :meth:`to_dict` and the specification; KeyError, TypeError, ValueError for what is none."""
        return cls(
            spec,
            **{
                **data,
                "series": Series.from_columns(data["series"]),
                "channel": tuple(TraceUse(**use) for use in data["channel"]),
            },
        )

    def row(self) -> dict[str, Any]:
        """The run as one flat row of a table."""
        return {
            "key": self.spec.key,
            "scenario": self.spec.scenario,
            "policy": self.spec.policy,
            "seed": self.spec.seed,
            **self.spec.parameters,
            **self.figures,
            **({"channel": ", ".join(map(str, self.channel))} if self.channel else {}),
            "control_slots": self.control_slots,
            "busy_control_slots": int((self.series.flows > 0).sum()),
            "simulated_s": self.simulated_s,
            "wall_s": round(self.wall_s, 3),
        }


def execute(spec: RunSpec, plan: Sequence[Allocation] | None = None) -> Run:
    """Run it. Deterministic: equal specifications give equal results, ``wall_s`` aside.

    With a ``plan`` the allocation of each control slot is given (:func:`controller.sim.run`). ValueError for
    a configuration with more than one slice, whose figures no single row holds.
    """
    config = spec.load()
    if len(config.cells) != 1 or len(config.cells[0].slices) != 1:
        raise ValueError(f"{spec.scenario}: an experiment is on one cell with one slice")
    if config.cells[0].slices[0].service != "ar":
        raise ValueError(f"{spec.scenario}: the figures of Table V are those of the service ar")
    slots: list[ClosedSlot] = []
    own = Summary()

    def on_slot(_observation: Any, decision: Any, _loop: Any) -> None:
        if (slot := own.add(decision.to_record())) is not None:
            slots.append(slot)

    result = sim.run(config, spec.seed, on_slot=on_slot, duration_s=spec.duration_s, plan=plan)
    outcome = result.summary["cells"][config.cells[0].id]["slices"][config.cells[0].slices[0].id]
    figures = {name: outcome[name] for name in FIGURES}
    figures |= {
        f"{hop.value}_delivery_ratio_busy": outcome["hop_delivery_ratio_busy"][hop.value] for hop in HOPS
    }
    return Run(
        spec,
        figures,
        outcome["by_load"],
        series(slots, config.cells[0].slices[0].id),
        result.control_slots,
        result.simulated_s,
        result.wall_s,
        result.channel,
    )


def series(slots: Sequence[ClosedSlot], name: str) -> Series:
    """The control slots of slice ``name``."""

    def column(values: list[int]) -> Column:
        return np.array(values, np.int16)

    def bit(slot: ClosedSlot, leg: str) -> int:
        met = slot.outcomes[name]["measures"][leg]["met"]
        return UNKNOWN if met is None else int(met)

    return Series(
        flows=column([s.outcomes[name]["users"] for s in slots]),
        ul_prb=column([s.allocations[name].ul_prb for s in slots]),
        dl_prb=column([s.allocations[name].dl_prb for s in slots]),
        gpu_mhz=column([s.allocations[name].gpu_mhz for s in slots]),
        q={leg: column([bit(s, leg) for s in slots]) for leg in MEASURES},
    )
