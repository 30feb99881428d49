"""What hindsight would have played in a run: its resources, and the regret against it.

:mod:`controller.experiments.mucb1.oracle` searches it on the emulated cell; ``oracle.json`` keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.core.measure import RESOURCES as LEVERS
from controller.store.files import write_atomic
from controller.store.summary import Allocation

ORACLE_FILE = "oracle.json"
VERSION = 1

COST_WEIGHT = 2.0
"""lambda / a_max: 0.2 / 0.1 (MUCB1 paper, section IX)."""

HOP_NAMES: tuple[str, ...] = tuple(lever.value for lever in LEVERS)
RESOURCES = ("avg_ul_prb", "avg_dl_prb", "avg_gpu_mhz")
VIRTUAL = {"clock": "virtual"}
"""In the ``meta`` of a run whose channel and traffic can be played again."""

LIVE = "only a run of `prbandit experiment` has one: a live run's channel and traffic cannot be played again"

UNEQUAL = (
    "control slots of it ended early (control.events), and this compares control slot by control slot;"
    " `prbandit experiment study` compares by windows of time"
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Best:
    """The action of a hop and load with the least mean cost, and that cost, in PRB or MHz."""

    action: int
    mean_cost: float


@dataclass(frozen=True, slots=True)
class Reference:
    """The references of one scenario and seed.

    ``loads`` are the flows active in each control slot, ``actions`` the clairvoyant allocation by load,
    ``least`` the lower bound of it (each hop by itself), ``hindsight`` the cheapest action by load and hop,
    ``figures`` those of the clairvoyant run. ``verified`` tells whether that run met its aim (the round
    trip's delivery ratio at full resources less ``tolerance``) for every load, ``raised`` how many steps up
    it took, ``runs`` how many emulated runs the search.
    """

    loads: tuple[int, ...]
    actions: Mapping[int, Allocation]
    least: Mapping[int, Allocation]
    hindsight: Mapping[int, Mapping[str, Best]]
    a_max: Mapping[str, int]
    figures: Mapping[str, float | None]
    tolerance: float
    verified: bool
    raised: int
    runs: int

    def relative(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """Mean resources of a run over those of the clairvoyant one, by name of :data:`RESOURCES`."""
        return {name: figures[name] / self.figures[name] for name in RESOURCES}

    def regret(self, actions: Mapping[str, Any], q: Mapping[str, Any]) -> dict[str, Floats]:
        """Cumulative cost above that of the best actions in hindsight, by hop: float64 [control slots].

        ``actions`` (PRB, MHz) and ``q`` are columns by hop. In units of a_max, so that hops can be added: 1
        is a control slot at the largest action too many, 2 a violation too many. The reference is a mean, so
        it may fall for a while, and in the end where a policy changes its actions within a load for good.
        """
        out = {}
        for hop, a_max in self.a_max.items():
            mean = {load: by_hop[hop].mean_cost for load, by_hop in self.hindsight.items()}
            reference = np.array([mean[load] for load in self.loads])
            out[hop] = np.cumsum(cost(actions[hop], q[hop], a_max) - reference) / a_max
        return out

    def judge(
        self, figures: Mapping[str, Any], actions: Mapping[str, Any], q: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A run against the references, as plain JSON values.

        ``relative``, ``regret`` (each hop's and the ``total``, at the end), and what the references are.
        """
        last = {hop: float(curve[-1]) for hop, curve in self.regret(actions, q).items()}
        own = self.to_dict()
        return {
            "relative": self.relative(figures),
            "regret": {**last, "total": sum(last.values())},
            "clairvoyant": own.pop("figures"),
            **{name: value for name, value in own.items() if name not in ("loads", "a_max")},
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; costs are PRB or MHz."""
        return {
            "tolerance": self.tolerance,
            "verified": self.verified,
            "raised_steps": self.raised,
            "emulated_runs": self.runs,
            "actions": _table(self.actions),
            "each_hop_by_itself": _table(self.least),
            "best_in_hindsight": {
                str(load): {hop: {"action": b.action, "mean_cost": b.mean_cost} for hop, b in by_hop.items()}
                for load, by_hop in sorted(self.hindsight.items())
            },
            "a_max": dict(self.a_max),
            "figures": dict(self.figures),
            "loads": list(self.loads),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reference:
        """From :meth:`to_dict`; ValueError for what is none."""
        try:
            return cls(
                loads=tuple(int(load) for load in data["loads"]),
                actions=_allocations(data["actions"]),
                least=_allocations(data["each_hop_by_itself"]),
                hindsight={
                    int(load): {
                        hop: Best(int(b["action"]), float(b["mean_cost"])) for hop, b in by_hop.items()
                    }
                    for load, by_hop in data["best_in_hindsight"].items()
                },
                a_max={hop: int(a) for hop, a in data["a_max"].items()},
                figures=dict(data["figures"]),
                tolerance=float(data["tolerance"]),
                verified=bool(data["verified"]),
                raised=int(data["raised_steps"]),
                runs=int(data["emulated_runs"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not an oracle's result: {type(error).__name__} {error}") from error


def can_be_played_again(about: Mapping[str, Any]) -> bool:
    """Whether a run (its ``run.json``) was on the emulated cell's virtual clock, all of it."""
    meta = about.get("meta")
    return isinstance(meta, Mapping) and VIRTUAL.items() <= meta.items() and about.get("part", 1) == 1


def write(folder: Path, reference: Reference, seed: int) -> None:
    """Keep a reference in a run folder; OSError where that fails."""
    data = {"version": VERSION, "seed": seed, **reference.to_dict()}
    write_atomic(folder / ORACLE_FILE, (json.dumps(data) + "\n").encode())


def read(folder: Path, seed: int | None, control_slots: int) -> Reference | None:
    """The reference in a run folder; None where there is none.

    ValueError, naming the file, for one that cannot be read and for one of another run.
    """
    path = folder / ORACLE_FILE
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_bytes())
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']}, not {VERSION}")
        reference = Reference.from_dict(data)
        of = (data["seed"], len(reference.loads))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be used: {error}") from error
    if of != (seed, control_slots):
        raise ValueError(
            f"{path}: of another run (seed {of[0]}, {of[1]} control slots; here {seed}, {control_slots})"
        )
    return reference


def cost(action: Any, q: Any, a_max: int) -> Floats:
    """c(a, q) = a + lambda (1 - q) of each control slot, PRB or MHz: float64 [control slots].

    MUCB1 paper, eq. 10. A q that cannot be told costs nothing (it is not judged).
    """
    violated = np.asarray(q) == 0
    out: Floats = np.asarray(action, np.float64) + np.where(violated, COST_WEIGHT * a_max, 0.0)
    return out


def _table(actions: Mapping[int, Allocation]) -> dict[str, Any]:
    return {
        str(load): {"ul": a.ul_prb, "edge": a.gpu_mhz, "dl": a.dl_prb} for load, a in sorted(actions.items())
    }


def _allocations(table: Mapping[str, Mapping[str, Any]]) -> dict[int, Allocation]:
    return {int(load): Allocation(int(a["ul"]), int(a["dl"]), int(a["edge"])) for load, a in table.items()}
