"""What another run has learned, for one that begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.store import checkpoint
from controller.store.run import RunStore


def load(source: str) -> Mapping[str, Any]:
    """The state of a control loop from ``PATH`` or ``PATH:CELL``: a run folder or a checkpoint.

    The cell may be left out where there is one. StoreError, CheckpointError where it cannot be read,
    ValueError, with the cells that there are, where it has no such cell or several.
    """
    path, cell = Path(source), ""
    if not path.exists() and ":" in source:
        name, cell = source.rsplit(":", 1)
        path = Path(name)
    if path.is_dir():
        with RunStore.open(path) as store:
            states = {c: state for c in store.cells() if (state := store.latest_state(c)) is not None}
    else:
        states = dict(checkpoint.load(path).states)
    if cell in states:
        return states[cell]
    if not cell and len(states) == 1:
        return next(iter(states.values()))
    known = ", ".join(states) or "none"
    raise ValueError(f"{source}: {'no cell ' + repr(cell) if cell else 'name one cell'}; cells: {known}")
