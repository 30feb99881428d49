"""Records of earlier versions as the present ones: the only place that knows what they looked like.

Version 1 knew one service, ``ar``, by its three hops. A value that it did not hold is None, or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from controller.core.decision import RECORD_VERSION, STATE_VERSION
from controller.core.observation import FRAME_COLUMNS, OBSERVATION_VERSION, pack

NOT_A_RECORD = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What the JSON text of a record raises that is damaged, here and where it is parsed."""

_HOPS = {"ul": "PRB", "edge": "MHz", "dl": "PRB"}
_LEGS = ("round_trip", *_HOPS)
_CUT = "max-min fair share"
_COUNTS = ("late_frames", "unsynchronised_frames", "negative_delays")


def upgrade(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A decision record (``Decision.to_record``) of any version as one of the present.

    ValueError for a version to come; one of :data:`NOT_A_RECORD` for what is no record.
    """
    version = record.get("version", 1)
    if version == RECORD_VERSION:
        return record
    _known("decision", version, RECORD_VERSION)
    slices = {name: _slice(name, s, record) for name, s in record["slices"].items()}
    return {**record, "version": RECORD_VERSION, "slices": slices}


def upgrade_observation(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """As :func:`upgrade`, for ``Observation.to_dict``."""
    version = data.get("version", 1)
    if version == OBSERVATION_VERSION:
        return data
    _known("observation", version, OBSERVATION_VERSION)
    columns = {name: np.asarray(data["frames"][name], np.int64) for name in FRAME_COLUMNS[:-1]}
    columns[FRAME_COLUMNS[-1]] = np.asarray(data["frames"][FRAME_COLUMNS[-1]], np.bool_)
    return {
        "clocks": (),
        "clock_faults": {},
        **data,
        "version": OBSERVATION_VERSION,
        "reports": [_report(*r) for r in data["reports"]],
        "frames": {name: pack(column) for name, column in columns.items()},
        "commands": [_command(*c) for c in data["commands"]],
        "samples": {},
        "settings": {},
        "fits": (),
    }


def upgrade_spec(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """As :func:`upgrade`, for ``LoopSpec.to_dict``, which has no version: one with an arbiter is of the
    present."""
    if "arbiter" in data:
        return data
    return {**data, "arbiter": "maxmin", "slices": [_slice_spec(s) for s in data["slices"]]}


def upgrade_state(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """As :func:`upgrade`, for ``ControlLoop.to_state``.

    Options that version 1 did not keep in the state are left out: a loop that has them goes on from its own.
    """
    version = state.get("version")
    if version == STATE_VERSION or "slices" not in state:
        return state
    _known("loop state", version, STATE_VERSION)
    slices = {
        name: {
            "service": "ar",
            "set": _set(s["set"]),
            "configured": _set(s["configured"]),
            "held": _held(s["held"]),
            "allocator": s["allocator"],
        }
        for name, s in state["slices"].items()
    }
    return {
        **state,
        "version": STATE_VERSION,
        "arbiter": {"name": "maxmin", "state": {}},
        "slices": slices,
    }


def static_at_full(
    spec: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Specification and state of a loop from when the policy static played all that there is, whatever its
    actions: as ones whose actions are that."""
    full = {"ul_prb": [spec["n_prb"]], "dl_prb": [spec["n_prb"]], "gpu_mhz": [spec["max_mhz"]]}

    def of(options: Mapping[str, Any]) -> dict[str, Any]:
        fixed = options.get("policy") == "static" and not options.get("policy_options")
        return {**options, "actions": full} if fixed and "actions" in options else dict(options)

    slices = [{**s, "options": of(s["options"])} for s in spec["slices"]]
    saved = {
        name: {**s, "set": of(s["set"]), "configured": of(s["configured"])}
        for name, s in state.get("slices", {}).items()
    }
    return {**spec, "slices": slices}, {**state, "slices": saved}


def _known(what: str, version: Any, newest: int) -> None:
    if version != 1:
        raise ValueError(f"{what} of version {version!r}, this controller reads up to {newest}")


def _slice(name: str, s: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    hops = s.get("hops", {})
    full = [record["prb"]] * 2
    quota = record["quotas"].get(name, full)
    directions: dict[str, tuple[list[Any], list[Any]]] = {}
    for i, d in enumerate(("ul", "dl")):
        asked = s["demand"][f"{d}_prb"] if "demand" in s else (hops[d]["action"] if d in hops else full[i])
        granted = s["granted"][f"{d}_prb"] if "granted" in s else quota[i]
        floor = hops[d]["actions"][0] if d in hops and hops[d].get("actions") else 0
        directions[d] = [asked, floor], [granted, _CUT if granted < asked else ""]
    mhz = s["demand"]["gpu_mhz"] if "demand" in s else record["max_mhz"]
    return {
        "closed": _closed(s["closed"]),
        "choices": [_choice(hop, c) for hop, c in hops.items()],
        "demand": {**{d: asked for d, (asked, _) in directions.items()}, "gpu_mhz": mhz, "gpu_share": 0.0},
        "granted": {d: granted for d, (_, granted) in directions.items()},
        "settings": {},
    }


def _closed(closed: Mapping[str, Any]) -> dict[str, Any]:
    out = {
        "met": closed["round_trip"]["q"],
        "busy": closed["busy"],
        "users": closed["flows"],
        "measures": {
            leg: {
                "unit": "ms",
                "better": "lower",
                "met": closed[leg]["q"],
                "samples": closed[leg]["frames"],
                "users": {flow: [ms, closed[leg].get("budget_ms")] for flow, ms in closed[leg]["ms"].items()},
            }
            for leg in _LEGS
        },
        "unattributed": closed["unattributed"],
        "counts": {name: closed.get(name, 0) for name in _COUNTS},
    }
    if closed.get("unsynchronised"):
        out["faults"] = closed["unsynchronised"]
    return out


def _choice(hop: str, c: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lever": hop,
        "unit": _HOPS[hop],
        "method": c["policy"],
        "action": c["action"],
        "why": c.get("why", ""),
        "state": c["state"],
        "demand": c.get("demand_prb"),
        "actions": c.get("actions", []),
        "indices": c.get("indices") or [],
        "binding": "",
    }


def _report(time_ns: int, ue_id: Any, slice_: Any, ul: Any, dl: Any) -> dict[str, Any]:
    columns = ("mcs", "mcs_table", "layers", "queued_bytes")
    return {
        "time_ns": time_ns,
        "ue_id": ue_id,
        "slice": slice_,
        "ul": dict(zip(columns, ul, strict=True)),
        "dl": dict(zip(columns, dl, strict=True)),
    }


def _command(kind: str, value: Any, slice_: str) -> list[Any]:
    if kind == "policy":
        return ["options", {"policy": value, "policy_options": {}}, slice_]
    if kind == "budgets":
        budgets = dict(zip(("ul_ms", "edge_ms", "dl_ms"), value, strict=True))
        return ["options", {"budgets": budgets}, slice_]
    return [kind, value, slice_]


def _slice_spec(s: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "slice": s["slice"],
        "service": s["service"],
        "ues": s["ues"],
        "share": {},
        "options": {
            "policy": s["policy"],
            "policy_options": s["policy_options"],
            "budgets": _budgets(s["budgets"]),
            "metric": s["metric"],
            "actions": {name: s[name] for name in ("ul_prb", "dl_prb", "gpu_mhz")},
            "queue": s["queue"],
        },
    }


def _set(s: Mapping[str, Any]) -> dict[str, Any]:
    policy, options = s["policy"]
    return {"policy": policy, "policy_options": options, "budgets": _budgets(s["budgets"])}


def _budgets(b: Mapping[str, float]) -> dict[str, float]:
    """The round trip's budget is the sum of the hops'."""
    return {name: b[name] for name in ("ul_ms", "edge_ms", "dl_ms")}


def _held(held: Any) -> dict[str, Any] | None:
    if held is None:
        return None
    ul, dl, mhz = held
    return {"ul": [ul, 0], "dl": [dl, 0], "gpu_mhz": mhz, "gpu_share": 0.0, "settings": {}}
