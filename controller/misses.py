"""Joins the record of a run and the services: why each control slot was missed, whatever the policy.

The run may be live, emulated or recorded. Pure but for what it reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller import allocators
from controller.allocators.base import ClosedSlice, Options, Service, SliceView
from controller.core.decision import Grant
from controller.core.measure import RESOURCES, Lever, Reason
from controller.core.misses import Miss
from controller.core.observation import Command, Observation
from controller.core.spec import LoopSpec, SliceSpec
from controller.store import record
from controller.store.misses import MissedSlot, Misses, SliceMisses
from controller.store.run import RunStore, Start, StoreError
from controller.store.summary import ClosedSlot, Pairs

_COMMANDS = ("set_policy", "set_budgets", "set_options")
"""Events of what an operator set of slices."""


def read(store: RunStore) -> Misses:
    """Every missed control slot of a run, with its cause.

    They are those that the summary counts, each judged by the configuration of its part of the run and what
    an operator had set since. StoreError, naming the place, where the record cannot be read.
    """
    out, pairs = Misses(), Pairs()
    commanded = {event.cell for event in store.events() if event.kind in _COMMANDS}
    for start in store.starts():
        if start.lost or start.pruned:
            out.gaps[start.cell] += start.lost + start.pruned
        readers: dict[str, _Reader] = {}
        try:
            spec = LoopSpec.from_dict(start.spec)
            for s in spec.slices:
                of = _service(s.service)
                if of is None or of.miss is None:
                    out.left_out.setdefault(start.cell, {})[s.slice] = s.service
                else:
                    readers[s.slice] = _Reader(spec, s, of, start)
        except record.NOT_A_RECORD as error:
            raise StoreError(f"{store.path}: start {start.id}: cannot be read: {error!r}") from error
        for decision, commands in _decisions(store, start, start.cell in commanded):
            slot = pairs.add(decision)
            if slot is not None:
                out.first_ns = min(out.first_ns or slot.begin_ns, slot.begin_ns)
                out.last_ns = max(out.last_ns, slot.end_ns)
                _add(out, store, start, readers, slot)
            for command in commands:
                for reader in readers.values():
                    reader.command(command)
    return out


def _decisions(
    store: RunStore, start: Start, commanded: bool
) -> Iterator[tuple[Mapping[str, Any], Sequence[Command]]]:
    """Decision records, each with the operator's commands that it carries out; these are in the observations,
    which take time to open."""
    if commanded:
        yield from ((slot.decision, slot.observation.commands) for slot in store.slots(start.id))
    else:
        yield from ((decision, ()) for decision in store.decisions(start_id=start.id))


def _service(name: str) -> Service | None:
    """None for one that is not installed here."""
    try:
        return allocators.service(name)
    except ValueError:
        return None


def _add(
    out: Misses, store: RunStore, start: Start, readers: Mapping[str, _Reader], slot: ClosedSlot
) -> None:
    observation: Observation | None = None
    for name, closed in slot.outcomes.items():
        reader = readers.get(name)
        if reader is None or name not in slot.allocations:
            continue
        entry = out.cells.setdefault(slot.cell, {}).setdefault(name, SliceMisses())
        if not set(reader.causes) <= set(entry.order):  # the slice had another service in an earlier part
            entry.order = tuple(dict.fromkeys((*entry.order, *reader.causes)))
        entry.control_slots += 1
        entry.judged += closed["met"] is not None
        before = reader.take(slot.control_slot, closed)
        if closed["met"] != 0:
            continue
        if observation is None:
            observation = store.observation(start.id, slot.control_slot + 1)
        if observation is None:  # retention took it away meanwhile
            continue
        try:
            miss = reader.miss(slot, closed, before, observation)
        except record.NOT_A_RECORD as error:
            where = f"cell {slot.cell}, slice {name}, control slot {slot.control_slot}"
            raise StoreError(f"{store.path}: {where}: cannot be read: {error!r}") from error
        if miss is not None:
            entry.missed.append(MissedSlot(slot.control_slot, slot.begin_ns, slot.end_ns, miss))


class _Reader:
    """One slice of one start, and what came of its latest control slot."""

    def __init__(self, spec: LoopSpec, of: SliceSpec, service: Service, start: Start) -> None:
        assert service.miss is not None
        self._loop, self._name, self._explain = spec, of.slice, service.miss
        self.causes = tuple(service.causes)
        self._options = _options(service, of, start)
        self._configured = service.options
        self._latest: tuple[int, Mapping[str, Any]] | None = None

    def command(self, command: Command) -> None:
        """What an operator set, from the next control slot on; what the loop refused too changes nothing."""
        if command.kind == "options" and command.slice in ("", self._name):
            with contextlib.suppress(ValueError):
                self._options = self._configured.model_validate({**self._options.to_dict(), **command.value})

    def take(self, control_slot: int, closed: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Note an outcome; returns that of the control slot before, None where it is not known."""
        latest, self._latest = self._latest, (control_slot, closed)
        return latest[1] if latest is not None and latest[0] == control_slot - 1 else None

    def miss(
        self,
        slot: ClosedSlot,
        closed: Mapping[str, Any],
        before: Mapping[str, Any] | None,
        observation: Observation,
    ) -> Miss | None:
        """Why the slice missed a control slot."""
        a = slot.allocations[self._name]
        mhz = a.gpu_mhz if observation.gpu is None else observation.gpu.sm_mhz
        view = SliceView.of(
            observation,
            self._name,
            guard_ms=self._loop.guard_ms,
            granted=Grant(a.ul_prb, a.dl_prb, mhz),
            unattributed={Lever(lever): Reason(why) for lever, why in closed["unattributed"].items()},
        )
        why = {
            Lever(c["lever"]): c["why"]
            for c in slot.choices[self._name]
            if not c.get("user") and c["lever"] in RESOURCES
        }
        full = Grant(slot.prb, slot.prb, slot.max_mhz)
        return self._explain(ClosedSlice(view, closed, before, why, full, self._options, self._loop))


def _options(service: Service, of: SliceSpec, start: Start) -> Options:
    """What the slice was configured with, and an operator had set when the start began."""
    saved = start.state.get("slices", {}).get(of.slice, {}).get("set", {})
    return service.options.model_validate({**of.options, **saved})
