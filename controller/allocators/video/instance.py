"""What is to be divided once: users with their QoE models and agreements, PRBs of cells, cycles of the edge.

An instance is a mapping as YAML or JSON has it::

    cells: {cell-1: 50, cell-2: 50}   # PRBs of each
    edge_gcycles: 10.0                # 10^9 cycles/s for transcoding; default 10
    cycles_per_bit: 180               # default
    segment_s: 1.0                    # default
    users:
      - {id: user-1, cell: cell-1, ela: 3.5, kbps_per_prb: 620.0, environment: 1.4, swipes_per_min: 6,
         model: {qos: [stalled], s: [5.0, -0.4], context: [behaviour], shape: linear, i: [0.1, 0.0],
                 deviation: 0.8}}

``s`` are intercept and slopes of S, in the order of ``qos`` (:data:`controller.allocators.video.opinion.QOS`
with their units), ``i`` the weights of B and C in I. ``behaviour`` follows from ``swipes_per_min`` where it
is not given; ``jitter`` and ``loss`` are 0. Every other key of a user and of its model is needed but for
``context``, ``shape`` and ``i``, of a user who minds neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.opinion import MAX_WEIGHT, OpinionModel
from controller.allocators.video.orchestration import Resources
from controller.allocators.video.users import Users
from wire.definitions import mos, viewing

FloatArray = NDArray[np.float64]

MAX_USERS: Final = 1024
_KEYS: Final = {"cells", "edge_gcycles", "cycles_per_bit", "segment_s", "users"}
_NEEDED: Final = ("id", "cell", "ela", "kbps_per_prb", "environment", "swipes_per_min", "model")
_ELSE: Final = ("behaviour", "jitter", "loss")
_MODEL: Final = ("qos", "s", "deviation")
_MODEL_ELSE: Final = ("context", "shape", "i")


@dataclass(frozen=True, slots=True)
class Instance:
    """``ids`` of the users and ``cells`` by name, in the order of ``users`` and ``resources``."""

    ids: tuple[str, ...]
    cells: tuple[str, ...]
    users: Users
    resources: Resources

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Instance:
        """ValueError, naming the place, for what is none."""
        _known("instance", data, _KEYS, ("cells", "users"))
        cells, users = data["cells"], data["users"]
        if not isinstance(cells, Mapping) or not cells:
            raise ValueError(f"cells: {cells!r} is no mapping of names to PRBs")
        prb = [_number(f"cells.{name}", value, 0.0, 1e4) for name, value in cells.items()]
        if isinstance(users, str) or not isinstance(users, Sequence) or not users:
            raise ValueError("users: a list of at least one is needed")
        if len(users) > MAX_USERS:
            raise ValueError(f"users: {len(users)} are more than {MAX_USERS}")
        names = tuple(map(str, cells))
        rows = [_user(f"users[{i}]", of, names) for i, of in enumerate(users)]
        ids = [str(row["id"]) for row in rows]
        for i, name in enumerate(ids):
            if name in ids[:i]:
                raise ValueError(f"users[{i}].id: {name!r} twice")

        def column(key: str) -> FloatArray:
            return np.array([row[key] for row in rows], np.float64)

        return cls(
            tuple(ids),
            names,
            Users(
                tuple(row["model"] for row in rows),
                column("ela"),
                column("behaviour"),
                column("environment"),
                column("swipes_per_min"),
                column("kbps_per_prb"),
                np.array([names.index(row["cell"]) for row in rows], np.int64),
                column("jitter"),
                column("loss"),
                _number("segment_s", data.get("segment_s", viewing.SEGMENT_S), 0.1, 60.0),
            ),
            Resources(
                np.array(prb),
                1e3 * _number("edge_gcycles", data.get("edge_gcycles", 10.0), 1e-6, 1e6),
                _number("cycles_per_bit", data.get("cycles_per_bit", viewing.CYCLES_PER_BIT), 1e-3, 1e6),
            ),
        )


def _user(where: str, of: Any, cells: Sequence[str]) -> dict[str, Any]:
    if not isinstance(of, Mapping):
        raise ValueError(f"{where}: {of!r} is no mapping")
    _known(where, of, {*_NEEDED, *_ELSE}, _NEEDED)
    if str(of["cell"]) not in cells:
        raise ValueError(f"{where}.cell: {of['cell']!r} is none of {', '.join(cells)}")
    if not isinstance(of["id"], (str, int)) or isinstance(of["id"], bool) or not str(of["id"]):
        raise ValueError(f"{where}.id: {of['id']!r} is no name")
    swipes = _number(f"{where}.swipes_per_min", of["swipes_per_min"], 0.0, 600.0)
    return {
        "id": str(of["id"]),
        "cell": str(of["cell"]),
        "ela": _number(f"{where}.ela", of["ela"], *mos.SCALE),
        "kbps_per_prb": _number(f"{where}.kbps_per_prb", of["kbps_per_prb"], 0.0, 1e6),
        "environment": _number(f"{where}.environment", of["environment"], *mos.FACTOR_RANGE),
        "behaviour": _number(
            f"{where}.behaviour", of.get("behaviour", float(mos.behaviour(swipes))), *mos.FACTOR_RANGE
        ),
        "swipes_per_min": swipes,
        **{
            name: _number(f"{where}.{name}", of.get(name, 0.0), 0.0, most)
            for name, most in (("jitter", 3600.0), ("loss", 1.0))
        },
        "model": _model(f"{where}.model", of["model"]),
    }


def _model(where: str, of: Any) -> OpinionModel:
    if not isinstance(of, Mapping):
        raise ValueError(f"{where}: {of!r} is no mapping")
    _known(where, of, {*_MODEL, *_MODEL_ELSE}, _MODEL)
    for key in ("qos", "s", "context", "i"):
        if isinstance(of.get(key, ()), str) or not isinstance(of.get(key, ()), Sequence):
            raise ValueError(f"{where}.{key}: {of[key]!r} is no list")
    if len(set(map(str, of["qos"]))) != len(of["qos"]):
        raise ValueError(f"{where}.qos: {list(of['qos'])} has a factor twice")
    numbers = [_number(f"{where}.s[{i}]", x, -1e3, 1e3) for i, x in enumerate(of["s"])]
    weights = [_number(f"{where}.i[{i}]", x, 0.0, MAX_WEIGHT) for i, x in enumerate(of.get("i", (0.0, 0.0)))]
    state = {
        "qos": list(of["qos"]),
        "context": list(of.get("context", ())),
        "shape": of.get("shape", ""),
        "s": numbers,
        "i": weights,
        "deviation": _number(f"{where}.deviation", of["deviation"], 0.05, 4.0),
        "rows": 0,
        "dependence": {},
    }
    try:
        return OpinionModel.from_state(state)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


def _known(where: str, of: Mapping[str, Any], keys: set[str], needed: Sequence[str]) -> None:
    for key in of:
        if key not in keys:
            raise ValueError(f"{where}: no key {key!r}; there are: {', '.join(sorted(keys))}")
    for key in needed:
        if key not in of:
            raise ValueError(f"{where}: no {key}")


def _number(where: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {value!r} is no number")
    if not low <= value <= high or not isfinite(value):
        raise ValueError(f"{where}: {value!r} is outside {low:g}..{high:g}")
    return float(value)
