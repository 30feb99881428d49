"""Users who come from another cell of the same controller: what its allocator knows of them goes along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from controller.core.observation import Flow
from controller.journal import Event, Journal
from controller.loop import ControlLoop
from wire.definitions.bounds import MAX_CELL_FLOWS

MAX_STATE_BYTES: Final = 16_384
"""Of what goes along with a flow, as JSON; more is refused."""
MAX_FLOWS: Final = 4 * MAX_CELL_FLOWS
"""Flows of which is known where they began; beyond them the one that began first is forgotten."""


class Cell(Protocol):
    """One of the cells."""

    @property
    def cell_id(self) -> str: ...

    @property
    def loop(self) -> ControlLoop | None: ...


class Handovers:
    """Connects the cells of a controller."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._cells: dict[str, Cell] = {}
        self._began: dict[str, dict[str, int]] = {}

    def add(self, cell: Cell) -> None:
        """A cell takes part."""
        self._cells[cell.cell_id] = cell

    def begin(self, cell_id: str, flow: Flow) -> Mapping[str, Any] | None:
        """A flow begins in a cell: what is known of it where it was before, as plain JSON.

        Asked are the slices of the same service in the cells where a flow of this name began after it last
        did here, the latest first; that of a cell where it began before this controller did is asked too,
        unless it has begun here. None where none of them knows anything. One that fails is passed over.
        """
        began = self._began.pop(flow.flow, {})
        here = began.get(cell_id, -1)
        others = [name for name in self._cells if name != cell_id and began.get(name, 0) > here]
        self._began[flow.flow] = {**began, cell_id: flow.start_ns}
        if len(self._began) > MAX_FLOWS:
            del self._began[next(iter(self._began))]
        target = self._cells[cell_id].loop
        service = target.service_of(flow.slice) if target is not None else None
        for name in sorted(others, key=lambda name: -began.get(name, 0)):
            loop = self._cells[name].loop
            if loop is None or service is None:
                continue
            for source in (s.slice for s in loop.spec.slices if s.service == service):
                way = f"from cell {name}, slice {source} to cell {cell_id}, slice {flow.slice}"
                way = f"flow {flow.flow}: {way}"
                try:
                    state = _plain(loop.hand_over(source, flow.flow))
                except Exception as error:
                    text = f"{way}: {type(error).__name__}: {error}"
                    self._journal.repeated(cell_id, Event.HAND_OVER_FAILED, text, "hand_over_failed_total")
                    continue
                if state is not None:
                    self._journal.repeated(cell_id, Event.HANDED_OVER, way)
                    return state
        return None


def _plain(state: Any) -> Mapping[str, Any] | None:
    """As it is read from the record; ValueError, TypeError for what cannot be written there."""
    if state is None:
        return None
    if not isinstance(state, Mapping):
        raise TypeError(f"hand_over gave {type(state).__name__}, no mapping")
    text = json.dumps(state, allow_nan=False)
    if len(text) > MAX_STATE_BYTES:
        raise ValueError(f"{len(text)} bytes are more than {MAX_STATE_BYTES}")
    plain: dict[str, Any] = json.loads(text)
    return plain
