"""``replay``: the decisions of a recorded run compared, or what another policy would have come to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli import completion, emit, json_option

if TYPE_CHECKING:
    from controller.core.observation import Observation
    from controller.experiments.offpolicy import Evaluation, Interval
    from controller.store.models import ModelStore
    from controller.store.run import RunStore


@click.command("replay")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--policy",
    shell_complete=completion.policies,
    help="Estimate what this policy would have done in every slice (ar).",
)
@click.option(
    "--last",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="With --policy: judge by so many control slots of each cell, the latest.",
)
@click.option(
    "--replicates",
    type=click.IntRange(4),
    default=24,
    show_default=True,
    help="With --policy: bootstrap replicates behind the interval; the policy is played in each.",
)
@json_option
def replay(run_dir: Path, policy: str | None, last: int, replicates: int, as_json: bool) -> None:
    """Give the recorded observations of RUN to new control loops and compare every decision.

    With --policy, estimate instead what QoS and resources that policy, learning from the start, would have
    come to on RUN: estimate, 95 % interval and bounds. Ends with status 1 where RUN cannot tell.
    """
    from controller.store.models import ModelStore
    from controller.store.run import RunStore

    models = ModelStore(run_dir / "models")
    with RunStore.open(run_dir) as store:
        if policy is None:
            _compare(store, models, as_json)
        else:
            _estimate(store, models, policy, last, replicates, as_json)


def _compare(store: RunStore, models: ModelStore, as_json: bool) -> None:
    from controller.core.spec import LoopSpec
    from controller.loop import ControlLoop
    from controller.store.models import ModelError

    lost: set[str] = set()

    def model(digest: str) -> bytes:
        try:
            return models.get(digest)
        except ModelError as error:
            lost.add(str(error))
            raise

    compared = different = incomplete = 0
    first = ""
    for start in store.starts():
        if start.lost or start.pruned:
            incomplete += 1
            continue
        loop = ControlLoop(LoopSpec.from_dict(start.spec), model)
        loop.load_state(start.state)
        for slot in store.slots(start.id):
            replayed = json.loads(json.dumps(loop.step(slot.observation).to_record()))
            compared += 1
            if replayed != slot.decision:
                different += 1
                first = first or f"cell {start.cell}, control slot {slot.decision['control_slot']}"
    text = f"{compared} decisions replayed, {different} differ" + (f"; first: {first}" if first else "")
    if incomplete:
        text += f"; {_left_out(incomplete)}"
    if lost:
        text += f"; {len(lost)} models cannot be read: {min(lost)}"
    emit(
        {
            "compared": compared,
            "different": different,
            "first_difference": first or None,
            "incomplete_starts": incomplete,
            "models_lost": sorted(lost),
        },
        as_json,
        text,
    )
    if different or not compared:
        raise SystemExit(1)


def _left_out(incomplete: int) -> str:
    return f"{incomplete} control loops left out, their record has gaps (lost or pruned control slots)"


def _estimate(
    store: RunStore, models: ModelStore, policy: str, last: int, replicates: int, as_json: bool
) -> None:
    from controller import policies
    from controller.cli.progress import progress
    from controller.core.spec import LoopSpec
    from controller.experiments import counterfactual
    from controller.experiments.offpolicy import ASSUMPTIONS, ESTIMATOR, Unanswerable

    policies.is_per_state(policy)  # ValueError for a name that there is not

    def slots(start_id: int) -> Iterator[tuple[Observation, Mapping[str, Any]]]:
        for slot in store.slots(start_id):
            yield slot.observation, slot.decision

    incomplete = 0
    results: list[tuple[str, str, Evaluation | str]] = []
    for cell in store.cells():
        starts = list(store.starts(cell))
        whole = [s for s in starts if not (s.lost or s.pruned)]
        incomplete += len(starts) - len(whole)
        loops = (counterfactual.RecordedLoop(LoopSpec.from_dict(s.spec), s.state, slots(s.id)) for s in whole)
        try:
            if not whole:
                raise Unanswerable(f"cell {cell}: {_left_out(len(starts))}")
            recording = counterfactual.record(loops, models.get, last)
            with progress(f"cell {cell}", 1 + replicates) as advance:
                done = counterfactual.estimate(
                    recording, policy, {}, models.get, replicates=replicates, played=advance
                )
            results += [(cell, name, evaluation) for name, evaluation in done.items()]
        except Unanswerable as error:
            results.append((cell, "", str(error)))
    answered = [
        {"cell": cell, "slice": name, **of.to_dict()} if not isinstance(of, str)
        else {"cell": cell, "slice": name or None, "refused": of}
        for cell, name, of in results
    ]  # fmt: skip
    about = {
        "policy": policy,
        "estimator": ESTIMATOR,
        "assumptions": list(ASSUMPTIONS),
        "incomplete_starts": incomplete,
        "slices": answered,
    }
    lines = [line for result in results for line in _text(policy, *result)]
    if incomplete:
        lines.append(f"  {_left_out(incomplete)}")
    lines += [f"estimator: {ESTIMATOR}", *(f"assumes: {text}" for text in ASSUMPTIONS)]
    emit(about, as_json, "\n".join(lines))
    if not answered or any(of["refused"] for of in answered):
        raise SystemExit(1)


def _text(policy: str, cell: str, name: str, of: Evaluation | str) -> list[str]:
    if isinstance(of, str):
        return [f"this run cannot tell what {policy} would have done: {of}"]
    low, high = of.bounds
    lines = [
        f"cell {cell}  slice {name}: {policy} on {of.slots} recorded control slots ({of.busy} busy)",
        f"  bounds by monotonicity alone  {low:.1%} to {high:.1%}; decides {of.decided:.0%} of them, "
        f"the run tells of {of.inside:.0%}",
    ]
    if of.refused:
        return [*lines, f"  this run cannot tell what {policy} would have done: {of.refused}"]
    lines += [
        f"  QoS delivery ratio            {_percent(of.qos)}, on record {of.logged:.1%}",
        f"  busy control slots            {_percent(of.qos_busy)}",
    ]
    for what, value in of.resources.items():
        recorded = of.logged_resources[what]
        lines.append(
            f"  {what:30}{value.estimate:.1f} [{value.low:.1f}, {value.high:.1f}], on record {recorded:.1f}"
        )
    return lines


def _percent(of: Interval) -> str:
    return f"{of.estimate:.1%} [{of.low:.1%}, {of.high:.1%}]"
