"""What came of the study: means with intervals, paired differences, and where the judged policy loses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from controller import policies
from controller.experiments.results import Row
from controller.experiments.stats import Estimate, estimate
from controller.experiments.study.conditions import CONDITIONS, MEASURED
from controller.experiments.study.jobs import CLAIRVOYANT, FIGURES, PARTS, Plan
from controller.scenario import trace_rows
from wire import channel_traces

RESOURCES = ("ul_prb", "dl_prb", "mhz")
REFERENCES = ("static", "mucb1")
"""Policies that each is compared with, seed by seed."""

BELOW_STATIC, BELOW_STATIC_MEASURED = 0.01, 0.03
BELOW_CLAIRVOYANT = 0.02
"""Allowed after five minutes."""
ABOVE_CLAIRVOYANT = 1.15

JUDGE = policies.DEFAULT
"""The policy that the list of losses is about."""

Key = tuple[str, int, str, int]
"""Condition, scenario, policy, seed."""


def result(plan: Plan, rows: Sequence[Row], judge: str = JUDGE) -> dict[str, Any]:
    """All that the page and the text show, as plain JSON.

    ``rows`` are those of :func:`controller.experiments.study.jobs.labelled`. Keys: what was played
    (``seeds``, ``policies``, ``conditions`` with their scenarios, ``skipped``), and
    ``rows``, one a condition, scenario and policy: for each of ``parts`` its ``figures``, the differences of
    the QoS over windows to each reference (``to``: mean, half_95, by seeds that both have) and of the
    resources, and ``to_clairvoyant`` (the difference of the QoS, the ratios of the resources). ``losses``:
    see :func:`losses`; ``not_judged`` says what they could not be told of.
    """
    by_key: dict[Key, Row] = {(r["condition"], r["scenario"], r["policy"], r["seed"]): dict(r) for r in rows}
    out = [
        _row(plan, by_key, condition, scenario, policy)
        for condition, scenarios in plan.conditions.items()
        for scenario in scenarios
        for policy in _played(plan, condition)
    ]
    found = list(losses(out, judge))
    return {
        "seeds": list(plan.seeds),
        "oracle_seeds": list(plan.oracle_seeds),
        "policies": list(plan.policies),
        "duration_s": plan.duration_s,
        "channel_trace": str(plan.channel_trace) if MEASURED in plan.conditions else None,
        "channel_rows": _channel_rows(plan) if MEASURED in plan.conditions else {},
        "conditions": {
            name: {"text": CONDITIONS[name].text, "scenarios": list(scenarios)}
            for name, scenarios in plan.conditions.items()
        },
        "skipped": dict(plan.skipped),
        "parts": dict(PARTS),
        "rows": out,
        "judge": judge,
        "losses": [loss for loss in found if "why" not in loss],
        "not_judged": [loss for loss in found if "why" in loss],
    }


def _channel_rows(plan: Plan) -> dict[str, Any]:
    """What became of the rows of each trace, by its name."""
    assert plan.channel_trace is not None
    files = channel_traces.files(plan.channel_trace)
    return {file.name: trace_rows(file) for file in files}


def _played(plan: Plan, condition: str) -> tuple[str, ...]:
    return (*plan.policies, *((CLAIRVOYANT,) if plan.searched(condition) else ()))


def _row(plan: Plan, by_key: Mapping[Key, Row], condition: str, scenario: int, policy: str) -> dict[str, Any]:
    def of(name: str) -> dict[int, Row]:
        return {
            seed: row
            for seed in plan.seeds
            if (row := by_key.get((condition, scenario, name, seed))) is not None
        }

    own = of(policy)
    parts = {}
    for part in PARTS:
        parts[part] = {
            "figures": {f: _estimate([row[f"{part}_{f}"] for row in own.values()]) for f in FIGURES},
            "to": {
                name: {
                    f: _paired(own, of(name), f"{part}_{f}", lambda a, b: a - b)
                    for f in ("qos_windows", *RESOURCES)
                }
                for name in REFERENCES
                if name in plan.policies and name != policy
            },
            "to_clairvoyant": {
                "qos_windows": _paired(own, of(CLAIRVOYANT), f"{part}_qos_windows", lambda a, b: a - b),
                **{f: _paired(own, of(CLAIRVOYANT), f"{part}_{f}", lambda a, b: a / b) for f in RESOURCES},
            }
            if plan.searched(condition)
            else None,
        }
    return {
        "condition": condition,
        "scenario": scenario,
        "policy": policy,
        "seeds": len(own),
        "control_slots": _estimate([row["control_slots"] for row in own.values()]),
        "parts": parts,
    }


def _paired(
    own: Mapping[int, Row], other: Mapping[int, Row], name: str, how: Callable[[float, float], float]
) -> dict[str, Any]:
    """Over the seeds that both have."""
    pairs = [(own[seed][name], other[seed][name]) for seed in own if seed in other]
    return _estimate([how(a, b) for a, b in pairs if a is not None and b is not None])


def _estimate(values: Sequence[float | None]) -> dict[str, Any]:
    e: Estimate | None = estimate(values)
    return {"mean": None, "half_95": None} if e is None else e.to_dict()


# ---- where the judged policy loses -----------------------------------------------------------------------


def losses(rows: Sequence[Mapping[str, Any]], judge: str = JUDGE) -> Iterator[dict[str, Any]]:
    """Where the policy ``judge`` falls short, worst of a claim first as conditions and scenarios come.

    In every condition and scenario: it keeps less than mucb1; it is more than :data:`BELOW_STATIC` below
    Static (:data:`BELOW_STATIC_MEASURED` on measured channels); after five minutes more than
    :data:`BELOW_CLAIRVOYANT` below the clairvoyant; it has more than :data:`ABOVE_CLAIRVOYANT` times one of
    its resources. ``value`` with its interval and the ``limit``; ``sure`` where the whole interval is beyond
    it, None with one seed. What cannot be told has a ``why``.
    """
    for row in rows:
        if row["policy"] != judge:
            continue
        where = {"condition": row["condition"], "scenario": row["scenario"]}
        whole, late = row["parts"]["whole"], row["parts"]["after_5min"]
        static = BELOW_STATIC_MEASURED if row["condition"] == MEASURED else BELOW_STATIC
        for reference, limit in (("mucb1", 0.0), ("static", -static)):
            if judge != reference:
                claim = f"QoS below {reference}" + (f" by more than {-limit:.0%}" if limit else "")
                about = {**where, "claim": claim, "figure": "qos_windows", "limit": limit}
                yield from _below(about, whole["to"].get(reference, {}).get("qos_windows"), reference)
        if whole["to_clairvoyant"] is None:
            continue
        claim = f"QoS after five minutes below the clairvoyant by more than {BELOW_CLAIRVOYANT:.0%}"
        about = {**where, "claim": claim, "figure": "qos_windows", "limit": -BELOW_CLAIRVOYANT}
        yield from _below(about, late["to_clairvoyant"]["qos_windows"], CLAIRVOYANT)
        for name in RESOURCES:
            claim = f"{LABELS[name]} above {ABOVE_CLAIRVOYANT:g} times the clairvoyant's"
            about = {**where, "claim": claim, "figure": name, "limit": ABOVE_CLAIRVOYANT}
            yield from _below(about, whole["to_clairvoyant"][name], CLAIRVOYANT, sign=-1)
    if not any(row["policy"] == judge for row in rows):
        yield {"condition": "", "scenario": 0, "claim": "any", "why": f"no run of {judge}"}


def _below(
    about: Mapping[str, Any], e: Mapping[str, Any] | None, other: str, sign: int = 1
) -> Iterator[dict[str, Any]]:
    """A loss where the value is below (sign -1: above) the limit."""
    if e is None or e["mean"] is None:
        yield {**about, "why": f"no run of {other} of the same seed, or none so long"}
        return
    beyond = sign * (about["limit"] - e["mean"])
    if beyond > 0:
        sure = None if e["half_95"] is None else bool(beyond > e["half_95"])
        yield {**about, "value": e["mean"], "half_95": e["half_95"], "sure": sure}


# ---- text ------------------------------------------------------------------------------------------------

LABELS = {
    "qos_windows": "QoS",
    "qos_slots": "QoS, slots",
    "ul_prb": "UL PRB",
    "dl_prb": "DL PRB",
    "mhz": "MHz",
    "resources": "of full",
}


def text(out: Mapping[str, Any]) -> str:
    """The tables as a person reads them: one a condition, scenario and part of the run."""
    lines = [f"study, seeds {', '.join(map(str, out['seeds']))}"]
    if len(out["seeds"]) > 1:
        lines.append("  +/- is half a 95 % interval over the seeds; differences are paired by seed")
    lines += [f"  {name} is left out: {why}" for name, why in out["skipped"].items()]
    lines += [
        f"  channel trace {name}: {channel_traces.rows_text(rows)}"
        for name, rows in out["channel_rows"].items()
    ]
    for name, condition in out["conditions"].items():
        lines += ["", f"{name}: {condition['text']}"]
        for scenario in condition["scenarios"]:
            rows = [r for r in out["rows"] if (r["condition"], r["scenario"]) == (name, scenario)]
            for part, label in out["parts"].items():
                if all(r["parts"][part]["figures"]["qos_windows"]["mean"] is None for r in rows):
                    continue
                lines += [_head(f"scenario {scenario}, {label}", rows, part), *(_line(r, part) for r in rows)]
    return "\n".join([*lines, "", *_losses_text(out)])


def _head(title: str, rows: Sequence[Mapping[str, Any]], part: str) -> str:
    more = "".join(f"{'- ' + name:>14}" for name in REFERENCES)
    searched = rows[0]["parts"][part]["to_clairvoyant"] is not None
    return (
        f"  {title:35}"
        + "".join(f" {LABELS[f]:>14}" for f in ("qos_windows", *RESOURCES))
        + more
        + (f"{'- clairvoyant':>15}{'x UL':>7}{'x DL':>7}{'x MHz':>7}" if searched else "")
    )


def _line(row: Mapping[str, Any], part: str) -> str:
    p = row["parts"][part]
    line = f"    {row['policy']:33}" + "".join(
        f" {cell(f, p['figures'][f]):>14}" for f in ("qos_windows", *RESOURCES)
    )
    for name in REFERENCES:
        line += f" {points(p['to'][name]['qos_windows']) if name in p['to'] else '':>13}"
    if p["to_clairvoyant"] is not None:
        line += f" {points(p['to_clairvoyant']['qos_windows']):>14}"
        line += "".join(f" {ratio(p['to_clairvoyant'][f]):>6}" for f in RESOURCES)
    return line


def cell(name: str, e: Mapping[str, Any]) -> str:
    """A figure with its interval: QoS and shares in percent."""
    if e["mean"] is None:
        return "n/a"
    scale, digits = (1, 0 if name == "mhz" else 1) if name in RESOURCES else (100, 1)
    half = "" if e["half_95"] is None else f" +/-{scale * e['half_95']:.{digits}f}"
    return f"{scale * e['mean']:.{digits}f}{half}"


def points(e: Mapping[str, Any]) -> str:
    """A difference of a QoS delivery ratio in points, with its interval."""
    if e["mean"] is None:
        return "n/a"
    half = "" if e["half_95"] is None else f" +/-{100 * e['half_95']:.1f}"
    return f"{100 * e['mean']:+.1f}{half}"


def ratio(e: Mapping[str, Any]) -> str:
    return "n/a" if e["mean"] is None else f"{e['mean']:.2f}"


def loss_value(loss: Mapping[str, Any]) -> str:
    """The value of a loss, its interval, and whether all of that is beyond the limit."""
    if loss["figure"] in RESOURCES:
        half = "" if loss["half_95"] is None else f" +/-{loss['half_95']:.2f}"
        value = f"{loss['value']:.2f}{half}"
    else:
        value = f"{points({'mean': loss['value'], 'half_95': loss['half_95']})} points"
    sure = {True: "surely", False: "within the interval", None: "one seed"}[loss["sure"]]
    return f"{value} ({sure})"


def _losses_text(out: Mapping[str, Any]) -> Iterator[str]:
    yield f"where {out['judge']} loses: {len(out['losses'])}"
    for loss in out["losses"]:
        yield f"  {loss['condition']}, scenario {loss['scenario']}: {loss['claim']}: {loss_value(loss)}"
    if out["not_judged"]:
        yield f"cannot be told: {len(out['not_judged'])}"
    for claim in out["not_judged"]:
        yield f"  {claim['condition']}, scenario {claim['scenario']}: {claim['claim']}: {claim['why']}"
