"""``replay``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from controller.cli import emit, json_option


@click.command("replay")
@click.argument("run_dir", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@json_option
def replay(run_dir: Path, as_json: bool) -> None:
    """Give the recorded observations of RUN to new control loops and compare every decision."""
    from controller.core.spec import LoopSpec
    from controller.loop import ControlLoop
    from controller.store.models import ModelStore
    from controller.store.run import RunStore

    store, models = RunStore.open(run_dir), ModelStore(run_dir / "models")
    compared = different = incomplete = 0
    first = ""
    try:
        for start in store.starts():
            if start.lost or start.pruned:
                incomplete += 1
                continue
            loop = ControlLoop(LoopSpec.from_dict(start.spec), models.get)
            loop.load_state(start.state)
            for slot in store.slots(start.id):
                replayed = json.loads(json.dumps(loop.step(slot.observation).to_record()))
                compared += 1
                if replayed != slot.decision:
                    different += 1
                    first = first or f"cell {start.cell}, control slot {slot.decision['control_slot']}"
    finally:
        store.close()
    text = f"{compared} decisions replayed, {different} differ" + (f"; first: {first}" if first else "")
    if incomplete:
        text += f"; {incomplete} control loops left out, their record has gaps (lost or pruned control slots)"
    emit(
        {
            "compared": compared,
            "different": different,
            "first_difference": first or None,
            "incomplete_starts": incomplete,
        },
        as_json,
        text,
    )
    if different or not compared:
        raise SystemExit(1)
