"""``explain``: why a slice was given what it was given, from the record of its decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import completion, emit, json_option
from controller.cli.health import MAX_UES_NAMED, measured, played
from controller.cli.operate import connect, connection_options
from controller.cli.text import fitted
from controller.core.names import nearest
from controller.policies.base import UNTRIED

if TYPE_CHECKING:
    from controller.store.run import Start

_DIRECTIONS = {"ul": 0, "dl": 1}
_GENERAL = {
    "frozen": "mode frozen holds what was played last",
    "allocator failed": "the allocator of the slice failed, so the last demand that it made stands",
    "within what there was": "the policy would have played more than this lever was seen to get: what there "
    "was, until more can be had",
}
"""Reasons that are no policy's own."""


@click.command("explain")
@click.argument("cell", default="", shell_complete=completion.cells)
@click.argument("slice_id", metavar="[SLICE]", default="", shell_complete=completion.slices)
@connection_options
@click.option(
    "--run",
    "run_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A run folder in place of a running controller.",
)
@click.option("--slot", type=click.IntRange(0), help="With --run: this control slot (default: the latest).")
@click.option("--part", type=click.IntRange(1), help="With --run, where the slot is in several parts of it.")
@json_option
def explain(
    cell: str,
    slice_id: str,
    operator: str,
    keys: str | None,
    run_dir: Path | None,
    slot: int | None,
    part: int | None,
    as_json: bool,
) -> None:
    """Say why a decision is as it is: of CELL and SLICE, or of all of them.

    For each lever: from which state or demand, among which candidates with which index of the policy, the
    one that was chosen and why; what holds it back; what rescue, an operator and the arbiter made of it; and
    what had come of the control slot before. A running controller has its latest decision, a run folder each
    that it keeps, and what came of it.
    """
    if run_dir is None:
        if part is not None:
            raise click.UsageError("--part goes with --run")
        found = _live(operator, keys, cell, slot)
    else:
        found = _recorded(run_dir, cell, slot, part)
    decisions = [_of_slice(record, slice_id, about) for record, about in found]
    text = "\n\n".join("\n".join(fitted(_lines(decision))) for decision in decisions)
    emit({"decisions": decisions}, as_json, text)


# ---- where a decision comes from -------------------------------------------------------------------------

_Found = tuple[Mapping[str, Any], dict[str, Any]]
"""A decision record, and what else is known of it."""


def _live(operator: str, keys: str | None, cell: str, slot: int | None) -> list[_Found]:
    with connect(operator, keys) as client:
        state = client.state()
    found: list[_Found] = []
    for of in _chosen(cell, {c["cell_id"]: c for c in state["cells"]}, "cell"):
        last = of["last"]
        if last is None:
            raise ValueError(f"cell {of['cell_id']}: no decision yet")
        if slot not in (None, last["control_slot"]):
            run = state["run_dir"]
            raise click.UsageError(
                f"--slot {slot}: a running controller has its latest decision alone, that of control slot "
                f"{last['control_slot']}" + (f"; the others: --run {run}" if run else "")
            )
        found.append((last, {"of": f"controller at {operator}"}))
    return found


def _recorded(run_dir: Path, cell: str, slot: int | None, part: int | None) -> list[_Found]:
    from controller.store.run import RunStore

    found: list[_Found] = []
    with RunStore.open(run_dir) as store:
        for name in _chosen(cell, {name: name for name in store.cells()}, "cell"):
            rows = [row for row in store.decided(name, slot) if part in (None, row[0].part)]
            if not rows:
                where = "" if part is None else f" in part {part}"
                what = "a control slot" if slot is None else f"control slot {slot}"
                raise ValueError(f"{run_dir}: cell {name}: {what} is not in the record{where}")
            start, record = rows[-1]
            about: dict[str, Any] = {"of": f"run {run_dir}", "part": start.part}
            if len(rows) > 1:
                about["also_in_parts"] = [other.part for other, _ in rows[:-1]]
            after = [r for s, r in store.decided(name, record["control_slot"] + 1) if s.id == start.id]
            about["services"] = _services(start)
            about["after"] = after[0] if after else None
            found.append((record, about))
    return found


def _services(start: Start) -> dict[str, str]:
    return {s["slice"]: s["service"] for s in start.spec.get("slices", ()) if "service" in s}


def _chosen(name: str, known: Mapping[str, Any], what: str) -> list[Any]:
    """The one of that name, all of them for an empty one; ValueError for one that is not there."""
    if not name:
        return list(known.values())
    if name not in known:
        raise ValueError(
            f"unknown {what} {name!r}{nearest(name, known)}; {what}s: {', '.join(known) or 'none'}"
        )
    return [known[name]]


# ---- what it says ----------------------------------------------------------------------------------------


def _of_slice(record: Mapping[str, Any], slice_id: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as it is explained, plain JSON values."""
    after = about.get("after")
    services = about.get("services", {})
    names = _chosen(slice_id, {name: name for name in record["slices"]}, "slice")
    return {
        "of": about["of"],
        **{key: about[key] for key in ("part", "also_in_parts") if key in about},
        **{key: record[key] for key in ("cell", "control_slot", "time_ns", "mode", "prb", "max_mhz")},
        "gpu_mhz": record["gpu_mhz"],
        "ended": record.get("ended", ""),
        "in_force": bool(record["quotas"]),
        "slices": {
            name: {
                **({"service": services[name]} if name in services else {}),
                **explanation(record, name),
                "after": after["slices"][name]["closed"] if after and name in after["slices"] else None,
            }
            for name in names
        },
    }


def explanation(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Why a slice was given what it was given, from a decision record (``Decision.to_record``).

    ``levers``: each choice with its ``candidates`` ({action, index}; the index is None where none decided),
    ``index`` (what it is) and ``reason`` (what ``why`` means, "" where the word says it all), and for a
    resource what was ``asked`` (PRB or MHz), what it is at ``least`` and why, what was set ``by_hand``, what
    was ``granted`` and why that is less. ``before`` is the outcome of the control slot before.
    """
    s = record["slices"][name]
    return {
        "levers": [_lever(c, s, record) for c in s["choices"]],
        "resources": _resources(s, record),
        "settings": s["settings"],
        "failed": s.get("failed", {}),
        "before": s["closed"],
    }


def _lever(c: Mapping[str, Any], s: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    from controller import policies

    index = reason = ""
    if c["method"] in policies.names():
        texts = policies.reasons(c["method"])
        untried = UNTRIED if c["why"] == "explore" and not c["indices"] else c["why"]
        reason = texts.get(untried) or texts.get(c["why"], "")
        index = policies.index_text(c["method"])
    elif c["indices"]:
        index = "by the method"
    indices = c["indices"] or [None] * len(c["actions"])
    return {
        **{key: c[key] for key in ("lever", "unit", "method", "action", "why", "state", "demand", "binding")},
        "user": c.get("user", ""),
        "reason": reason or _GENERAL.get(c["why"], ""),
        "index": index if c["indices"] else "",
        "candidates": [
            {"action": action, "index": i} for action, i in zip(c["actions"], indices, strict=True)
        ],
        "played": c["action"] if c.get("user") else played(c, s),
    }


def _resources(s: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Of UL, DL (PRB) and the GPU's clock (MHz): asked, what it is at least, by hand, granted."""
    out: dict[str, Any] = {}
    manual, rescue = s.get("manual", {}), s.get("rescue", {})
    for lever in _DIRECTIONS:
        asked, floor = s["demand"][lever]
        granted, cut = s["granted"][lever]
        out[lever] = {"unit": "PRB", "asked": asked, "floor": floor, "granted": granted, "cut": cut}
    asked = s["demand"]["gpu_mhz"]
    out["edge"] = {"unit": "MHz", "asked": asked, "floor": 0, "granted": record["gpu_mhz"], "cut": ""}
    for lever, of in out.items():
        of["at_least"] = dict(zip(("amount", "why"), rescue[lever], strict=True)) if lever in rescue else None
        of["by_hand"] = manual.get(lever)
    return out


# ---- as lines --------------------------------------------------------------------------------------------


def _lines(decision: Mapping[str, Any]) -> Iterator[str]:
    where = f", part {decision['part']}" if "part" in decision else ""
    yield (
        f"cell {decision['cell']}, control slot {decision['control_slot']}, mode {decision['mode']} "
        f"({decision['of']}{where})"
    )
    if others := decision.get("also_in_parts"):
        yield f"  the slot is in part {', '.join(map(str, others))} as well: --part says which is meant"
    if decision["ended"]:
        yield f"  the control slot before ended early: {decision['ended']}"
    if not decision["in_force"]:
        yield f"  nothing of it is in force: in mode {decision['mode']} the network is at full resources"
    for name, s in decision["slices"].items():
        service = f", service {s['service']}" if "service" in s else ""
        yield f"slice {name}{service}"
        yield f"  what had come of control slot {decision['control_slot'] - 1}: {_verdict(s['before'])}"
        yield from _outcome(s["before"])
        for what, why in s["failed"].items():
            yield f"  {what} failed: {why}"
        yield from _levers(s, decision)
        if s["after"] is not None:
            yield f"  what came of it: {_verdict(s['after'])}"
            yield from _outcome(s["after"])


def _verdict(closed: Mapping[str, Any]) -> str:
    if not closed["busy"]:
        return "no user was judged"
    if not closed.get("promised", True):
        return "nothing had been promised"
    met = closed["met"]
    return "promise not known" if met is None else "promise kept" if met else "promise missed"


def _outcome(closed: Mapping[str, Any]) -> Iterator[str]:
    for name, measure in closed["measures"].items():
        met = measure["met"] if measure["users"] else None
        kept = "" if met is None else ", met" if met else ", missed"
        users = len(measure["users"])
        worst = f", the worst of {users} users" if users > 1 else ""
        yield f"    {name.replace('_', ' ')} {measured(measure)}{kept} ({measure['samples']} samples{worst})"
    reasons: dict[str, list[str]] = {}
    for lever, why in closed["unattributed"].items():
        reasons.setdefault(why, []).append(lever)
    for why, levers in reasons.items():
        yield f"    nothing was learned about {', '.join(levers)}: {why}"
    counts = {**closed["counts"], **closed.get("faults", {})}
    told = [f"{what.replace('_', ' ')} {n}" for what, n in counts.items() if n]
    if told:
        yield f"    {', '.join(told)}"


def _levers(s: Mapping[str, Any], decision: Mapping[str, Any]) -> Iterator[str]:
    told = set()
    for of in s["levers"]:
        if not of["user"]:
            told.add(of["lever"])
            yield from _of_lever(of, s["resources"].get(of["lever"]), decision)
    for lever, of in s["resources"].items():
        if lever not in told and (of["asked"] or of["by_hand"] is not None):
            why = "all there is" if of["asked"] in (decision["prb"], decision["max_mhz"]) else "as asked"
            yield f"  {lever}: {of['asked']} {of['unit']}, {why}; no choice was made"
            yield from (f"    {line}" for line in _made_of_it(lever, of, decision))
    users = [of for of in s["levers"] if of["user"]]
    for of in users[:MAX_UES_NAMED]:
        held = f", held back by {of['binding']}" if of["binding"] else ""
        why = f"{of['why']}{held}"
        candidates = f"; {_candidates(of)}" if of["candidates"] else ""
        yield f"  {of['user']}: {of['action']:g} {_unit(of)}, by {of['method']}: {why}{candidates}"
    if len(users) > MAX_UES_NAMED:
        yield f"  {len(users) - MAX_UES_NAMED} more users (--json has them)"


def _of_lever(of: Mapping[str, Any], resource: Any, decision: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {of['lever']}: {of['action']:g} {_unit(of)}, by {of['method']}: {of['why']}"
    if of["reason"]:
        yield f"    {of['reason']}"
    if of["state"] is not None:
        unit = "PRB" if of["lever"] == "edge" else of["unit"]
        exact = "" if of["demand"] is None else f" (demand {of['demand']:.1f})"
        yield f"    in state {of['state']:g} {unit}{exact}" + (
            ", the uplink's" if of["lever"] == "edge" else ""
        )
    elif of["demand"] is not None:
        yield f"    from a demand of {of['demand']:.1f} PRB"
    if of["binding"]:
        yield f"    held back by {of['binding']}"
    if of["candidates"]:
        yield f"    {_candidates(of)}"
    if resource is not None:
        yield from (f"    {line}" for line in _made_of_it(of["lever"], resource, decision))


def _candidates(of: Mapping[str, Any]) -> str:
    """The candidates, the chosen one in brackets, each with its index where one decided."""
    texts = []
    for candidate in of["candidates"]:
        index = candidate["index"]
        text = f"{candidate['action']:g}" + ("" if index is None else f"={index:.4g}")
        texts.append(f"[{text}]" if candidate["action"] == of["action"] else text)
    if of["index"]:
        meaning = "" if of["index"] == "by the method" else f" ({of['index']})"
        return f"candidates with their index{meaning}: {' '.join(texts)}"
    return f"candidates, no index decided: {' '.join(texts)}"


def _made_of_it(lever: str, of: Mapping[str, Any], decision: Mapping[str, Any]) -> Iterator[str]:
    unit = of["unit"]
    if of["floor"]:
        yield f"of it {of['floor']} {unit} are the floor, which goes before what others want above theirs"
    if of["at_least"] is not None:
        yield f"rescue: at least {of['at_least']['amount']} {unit}: {of['at_least']['why']}"
    if of["by_hand"] is not None:
        yield f"set by hand: {of['by_hand']} {unit}"
    wanted = max(of["asked"], of["at_least"]["amount"] if of["at_least"] else 0)
    granted = of["granted"]
    if not decision["in_force"]:
        return
    if lever == "edge":
        if granted is None:
            if of["asked"]:
                yield "no clock is locked: no edge agent tells of its GPU"
        elif granted > wanted:
            yield f"the GPU runs at {granted} MHz: another slice wants more"
    elif granted != wanted:
        yield f"granted: {granted} {unit}" + (f", {of['cut']}" if of["cut"] else "")


def _unit(of: Mapping[str, Any]) -> str:
    return "of a task" if of["unit"] == "1" else str(of["unit"])
