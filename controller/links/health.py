"""Whether all is well with a controller, told from its state (``OperatorClient.state``): for CLI and page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from controller.core import rescue
from controller.core.measure import Reason
from controller.core.observation import Mode

REPORTS_STALE_S = 2.0
"""A gNB reports every 10 to 200 ms."""
HOST_STALE_S = 5.0
"""A host with flows is heard every second."""


class Heard(NamedTuple):
    """A host whose QoS stream is open: how many seconds ago it was heard, and why what it reports is not used
    ("": it is)."""

    host: str
    age_s: float
    refused: str = ""


def verdict(state: Mapping[str, Any]) -> dict[str, Any]:
    """``status`` ("healthy", "degraded") of a controller and its ``reasons``, a sentence each."""
    reasons = complaints(state)
    return {"status": "degraded" if reasons else "healthy", "reasons": reasons}


def complaints(state: Mapping[str, Any]) -> list[str]:
    """What is wrong with a controller (``OperatorClient.state``), a sentence each; empty where nothing is."""
    out = []
    if state["store_error"]:
        out.append(f"the run is not recorded: {state['store_error']}")
    if state["reload_error"]:
        out.append(f"the last reload was refused: {' '.join(state['reload_error'].split())}")
    for cell in state["cells"]:
        out += [f"cell {cell['cell_id']}: {text}" for text in of_cell(cell)]
    return out


def of_cell(cell: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with one cell of a state, a sentence each."""
    if not cell["connected"]:
        yield "its gNB is not connected"
    elif cell["not_controlled"]:
        yield f"not under control: {cell['not_controlled']}"
    controlled = cell["connected"] and not cell["not_controlled"]
    if controlled and cell["mode"] != Mode.ACTIVE:
        yield f"mode {cell['mode']}: nothing is learned" + (
            "" if cell["mode"] == Mode.FROZEN else ", all resources are everybody's"
        )
    age = report_age(cell)
    if controlled and (age is None or age > REPORTS_STALE_S):
        yield "no MAC report" + ("" if age is None else f" for {age:.0f} s")
    if cell["edge_configured"] and not cell["edge_connected"]:
        yield "the edge agent is not connected"
    if cell["active_flows"] and not cell["hosts"]:
        yield f"no QoS stream: nobody tells of its {cell['active_flows']} flows"
    for host in cell["hosts"]:
        if host["age_s"] > HOST_STALE_S:
            yield f"the QoS stream of {host['host']} is silent for {host['age_s']:.0f} s"
        if host["refused"]:
            yield f"not taken of host {host['host']}: {host['refused']}"
    for clock in cell["clocks"]:
        if clock["fault"]:
            yield f"clock: {clock['fault']}"
    if not controlled:
        return
    last = cell["last"]
    if last is None:
        yield "no decision yet"
        return
    if last["quotas"] and not cell["lease_left_s"]:
        yield "its quotas are not in force at the gNB: " + (
            "not acknowledged" if cell["lease_left_s"] is None else "their lease has lapsed"
        )
    for name, s in last["slices"].items():
        if "rescue" in s:
            yield f"slice {name} gets more than it asks for: {rescue.text(s['rescue'])}"
        for what, why in s.get("failed", {}).items():
            yield f"slice {name}: {what} failed: {why}"
        if Reason.QUOTA_NOT_HONOURED.value in s["closed"]["unattributed"].values():
            yield f"slice {name}: {Reason.QUOTA_NOT_HONOURED.value}"


def report_age(cell: Mapping[str, Any]) -> float | None:
    """Seconds since the last MAC report of the cell's session; None where there was none."""
    age: float | None = cell["report_age_s"]
    return age
