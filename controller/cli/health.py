"""The state of a controller as lines for a person: whether all is well, how good it is, what is played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.core.decision import ManualQuota
from controller.core.measure import worst_value
from controller.links.health import complaints, report_age

MAX_UES_NAMED = 8
"""Of a cell, in the lines for a person; the rest is counted."""


def describe(state: Mapping[str, Any]) -> list[str]:
    """The state as lines for a person: a verdict, what is wrong, then cell by cell."""
    wrong = complaints(state)
    lines = [
        f"controller {state['version']}: {'degraded' if wrong else 'healthy'}",
        *(f"  ! {text}" for text in wrong),
        f"  control slot {state['control_slot_s']:g} s, run {state['run_dir'] or 'not recorded'}",
    ]
    if state["store_lost"]:
        lines.append(f"  {state['store_lost']} control slots and events are not in the record")
    for cell in state["cells"]:
        lines += _cell_lines(cell)
    return lines


def _cell_lines(cell: Mapping[str, Any]) -> Iterator[str]:
    connected = cell["connected"]
    yield (
        f"cell {cell['cell_id']}: {'connected' if connected else 'not connected'}, mode {cell['mode']}, "
        + (f"{cell['prb']} PRB, " if connected else "")
        + f"{cell['control_slots']} control slots, {cell['active_flows']} flows"
    )
    if connected and report_age(cell) is not None:
        yield f"  UEs: {_ues(cell['ues'])}"
    yield from link_lines(cell)
    if cell["last"] is not None:
        for name, s in cell["last"]["slices"].items():
            yield from _slice_lines(cell, name, s)


def link_lines(cell: Mapping[str, Any]) -> Iterator[str]:
    """What is heard of a cell's gNB, hosts, edge agent and clocks, and what came of its control so far."""
    if cell["connected"]:
        age = report_age(cell)
        reports = f"last {age:.1f} s ago, {cell['reports']} in this session" if age is not None else "none"
        yield f"  MAC reports: {reports}"
        left = cell["lease_left_s"]
        yield f"  lease of the quotas: {'no quotas in force' if left is None else f'{left:.1f} s left'}"
    hosts = ", ".join(f"{h['host']} {h['age_s']:.1f} s ago" for h in cell["hosts"])
    yield f"  QoS streams: {hosts or 'none'}"
    if cell["edge_configured"]:
        gpu = f"GPU {cell['sm_mhz'] or '-'} MHz"
        age = cell["gpu_age_s"]
        known = f"{gpu}, {age:.1f} s ago" if age is not None else "never heard"
        yield f"  edge agent: {'connected' if cell['edge_connected'] else 'not connected'}, {known}"
    else:
        yield "  edge agent: none configured"
    for clock in cell["clocks"]:
        yield _clock_line(clock)
    if (saved := cell["savings"]) is not None:
        parts = (("GPU", "gpu"), ("base station", "bs"), ("UE", "ue"))
        yield "  power saved so far, by the models: " + ", ".join(f"{n} {saved[key]:.1%}" for n, key in parts)
    explored = [f"{s['slice']} {s['explored']:.1%}" for s in cell["slices"] if s["explored"] is not None]
    if explored:
        yield f"  choices that explored: {', '.join(explored)}"


def _ues(ues: Sequence[Mapping[str, Any]]) -> str:
    """The UEs of a report with their slices; 5QI and S-NSSAI where they are known."""
    texts = []
    for ue in ues[:MAX_UES_NAMED]:
        known = (("5QI", ue["five_qi"]), ("S-NSSAI", ue["snssai"]))
        facts = [ue["slice"] or "no slice", *(f"{what} {value}" for what, value in known if value)]
        texts.append(f"{ue['ue_id']} ({', '.join(facts)})")
    more = len(ues) - len(texts)
    return ", ".join([*texts, *([f"{more} more"] if more else [])]) or "none"


def _slice_lines(cell: Mapping[str, Any], name: str, s: Mapping[str, Any]) -> Iterator[str]:
    methods = ", ".join(dict.fromkeys(c["method"] for c in s["choices"])) or "no policy plays"
    yield f"  slice {name}: {methods}, {_quotas(cell, name)}"
    for manual in cell["manual"]:
        if manual["slice"] == name:
            yield f"    set by hand: {manual_text(manual)}, {manual['left_s']:.0f} s left"
    kept = next(((q["met"], q["judged"]) for q in cell["qos"] if q["slice"] == name), None)
    hour = "nothing to judge" if kept is None else f"{kept[0] / kept[1]:.1%} ({kept[0]} of {kept[1]} slots)"
    yield f"    QoS of the last hour: {hour}"
    if cell["connected"]:
        measures = [f"{m.replace('_', ' ')} {measured(of)}" for m, of in s["closed"]["measures"].items()]
        yield f"    last control slot: {', '.join(measures) or 'no measure'}"
        if s["closed"]["unattributed"]:
            reasons: dict[str, list[str]] = {}
            for lever, why in s["closed"]["unattributed"].items():
                reasons.setdefault(why, []).append(lever)
            texts = (f"{', '.join(levers)}: {why}" for why, levers in reasons.items())
            yield f"    nothing learned from it: {'; '.join(texts)}"


def _quotas(cell: Mapping[str, Any], name: str) -> str:
    """What is in force of a slice's quotas; those of a gNB that has gone are not."""
    if not cell["connected"]:
        return "no quotas: its gNB is gone"
    quota = (cell["last"].get("quotas") or {}).get(name)
    return "no quotas" if quota is None else f"UL {quota[0]} PRB, DL {quota[1]} PRB"


def manual_text(manual: Mapping[str, Any]) -> str:
    """A quota set by hand, of the state or of a decision's record."""
    return str(ManualQuota(manual["ul"], manual["dl"]))


def three(value: float) -> str:
    """Three digits that count, as the page writes them: 1790 and not 1.79e+03."""
    return f"{float(f'{value:.3g}'):.15g}"


def measured(measure: Mapping[str, Any]) -> str:
    """The worst user's value of a measure (``Measure.to_record``) beside its budget or target."""
    value = worst_value(measure)
    if value is None:
        return "-"
    target = next(target for of, target in measure["users"].values() if of == value)
    text = three(value) if target is None else f"{three(value)} of {three(target)}"
    return text if measure["unit"] == "1" else f"{text} {measure['unit']}"


def _clock_line(clock: Mapping[str, Any]) -> str:
    state = clock["ptp_state"]
    known = f"{state}, offset {clock['offset_ns'] / 1e3:.1f} us, {clock['age_s']:.1f} s ago" if state else ""
    return f"  clock of {clock['host']}: {', '.join(filter(None, (known, clock['fault'] or 'usable')))}"


def played(choice: Mapping[str, Any], of: Mapping[str, Any]) -> float:
    """A choice's action, or what an operator has set in its place in the slice ``of``."""
    by_hand = of.get("manual", {}).get(choice["lever"])
    action: float = choice["action"] if by_hand is None else by_hand
    return action
