"""The oracle of a run that was recorded on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from controller import config as config_module
from controller.experiments.mucb1 import oracle
from controller.experiments.runs import RunSpec, execute, series
from controller.store import oracle as kept
from controller.store.run import RunStore
from controller.store.summary import ClosedSlot, Summary


def search(folder: Path, on_run: Callable[[int], None] = lambda _runs: None) -> kept.Reference:
    """Search the oracle of the run in a folder and keep it there, as ``oracle.json``.

    First the run's own allocations are played again: where other QoS comes back than was recorded, the
    emulated cell, its parameters or the channel trace have changed, and the search would be on another one.

    Raises:
        ValueError: a live run, one with more than one slice or no finished control slot, one whose QoS
            cannot be had again; names the folder.
        StoreError: the run cannot be read.
        OSError: ``oracle.json`` cannot be written.
    """
    slots: list[ClosedSlot] = []
    with RunStore.open(folder) as store:
        about, text = store.about(), store.config()
        if not kept.can_be_played_again(about):
            raise ValueError(f"{folder}: {kept.LIVE}")
        summary = Summary()
        closed = (summary.add(record) for record in store.decisions())
        slots.extend(slot for slot in closed if slot is not None)
    config = config_module.parse(text, f"{folder}/config.yaml")
    oracle.check(config)
    assert config.emulation is not None
    if not slots:
        raise ValueError(f"{folder}: no control slot of this run is over")
    if any(slot.ended for slot in slots):
        raise ValueError(f"{folder}: {kept.UNEQUAL}")
    slot_s = config.control.control_slot_s
    # Half a control slot more, so that no rounding loses the last one.
    length_s = min(config.emulation.duration_s, (len(slots) + 0.5) * slot_s)
    spec = RunSpec(folder.resolve().name, "recorded", int(about["seed"]), text, duration_s=length_s)
    name = config.cells[0].slices[0].id
    recorded_series = series(slots, name)
    replayed_series = execute(spec, [slot.allocations[name] for slot in slots]).series
    if any(
        not np.array_equal(column, recorded_series.columns()[leg])
        for leg, column in replayed_series.columns().items()
    ):
        raise ValueError(
            f"{folder}: played again, this run's allocations give another QoS than was recorded: the "
            "emulated cell or its channel trace is not what it was. Record the run again with --oracle"
        )
    found = oracle.find(spec, on_run).reference
    kept.write(folder, found, spec.seed)
    return found
