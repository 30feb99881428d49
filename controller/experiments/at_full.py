"""What a run of the virtual clock would have missed at full resources: the truth about its misses' causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from controller import config as config_module
from controller import sim
from controller.store.misses import SliceMisses
from controller.store.oracle import LIVE, UNEQUAL, can_be_played_again
from controller.store.run import RunStore
from controller.store.summary import Allocation, Summary


def missed(folder: Path) -> frozenset[int]:
    """The control slots of the run in a folder that miss under full resources, all else being equal.

    The same seed gives the same channel, traffic, schedule and stalls (common random numbers). ValueError for
    a live run, for one with more than one slice, and for one without a finished control slot.
    """
    summary = Summary()
    with RunStore.open(folder) as store:
        about, text = store.about(), store.config()
        slots = [slot for record in store.decisions() if (slot := summary.add(record)) is not None]
    if not can_be_played_again(about):
        raise ValueError(f"{folder}: {LIVE}")
    if not slots:
        raise ValueError(f"{folder}: no control slot of this run is over")
    if any(slot.ended for slot in slots):
        raise ValueError(f"{folder}: {UNEQUAL}")
    config = config_module.parse(text, f"{folder}/config.yaml")
    assert config.emulation is not None  # a run of the virtual clock
    slot_s = config.control.control_slot_s
    # Half a control slot more, so that no rounding loses the last one.
    length_s = min(config.emulation.duration_s, (len(slots) + 0.5) * slot_s)
    full = Allocation(slots[0].prb, slots[0].prb, slots[0].max_mhz)
    name = next(iter(slots[0].allocations))
    own, found = Summary(), set()

    def on_slot(_observation: Any, decision: Any, _loop: Any) -> None:
        slot = own.add(decision.to_record())
        if slot is not None and slot.outcomes[name]["met"] == 0:
            found.add(slot.control_slot)

    sim.run(config, int(about["seed"]), on_slot=on_slot, duration_s=length_s, plan=[full] * (len(slots) + 1))
    return frozenset(found)


def compare(misses: SliceMisses, missed_at_full: Collection[int]) -> dict[str, Any]:
    """The causes against that truth, as plain JSON values.

    ``causes``: of each the control slots ``missed_at_full`` and not (``kept_at_full``). ``agree`` is the part
    of the missed control slots of which :attr:`Miss.unavoidable` says the same, None where there are none.
    """
    table: Counter[tuple[str, bool]] = Counter(
        (slot.miss.cause, slot.control_slot in missed_at_full) for slot in misses.missed
    )
    right = sum(slot.miss.unavoidable == (slot.control_slot in missed_at_full) for slot in misses.missed)
    return {
        "causes": {
            str(cause): {"missed_at_full": table[cause, True], "kept_at_full": table[cause, False]}
            for cause in misses.by_cause()
        },
        "agree": right / table.total() if table else None,
    }


def text(truth: Mapping[str, Any]) -> str:
    """As a person reads it."""
    width = max((len(cause) for cause in truth["causes"]), default=0)
    lines = [f"  {'':{width}}  missed at full resources too, kept there"]
    lines += [
        f"  {cause:{width}}  {n['missed_at_full']:27}  {n['kept_at_full']:10}"
        for cause, n in truth["causes"].items()
    ]
    agree = truth["agree"]
    if agree is not None:
        lines.append(f"  unavoidable or not agrees with that in {agree:.1%} of the missed control slots")
    return "\n".join(lines)
