"""What operators ask of a running controller, carried out on the thread of the control loops.

The command line, the console and the page all come through here.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from controller import config as config_module
from controller.allocators.base import mistake
from controller.cell import ControlledCell
from controller.checks import Limits
from controller.config import Config, ConfigError, RanLinkModel
from controller.core.decision import ManualQuota
from controller.core.names import one_line
from controller.core.observation import Command, Mode
from controller.journal import Event, Journal
from controller.links.operator import ControllerStatus
from controller.store import checkpoint
from wire.security import CurveServer, KeyFileError, curve_server

T = TypeVar("T")

CALL_TIMEOUT_S = 5.0
FINISH_TIMEOUT_S = 4.0
"""Beyond that for a call that the control thread has begun."""
MAX_CALL_TEXT = 500
"""Characters of what is written down of a call."""
MAX_WAITING = 32
"""Commands of one cell that wait for its next control slot: each further one is checked against them all. A
mode is not refused for them."""
MAX_IN_A_ROW = 100
"""Commands of one cell that are taken in a row, then one a control slot (a second where that is longer): each
is recorded, some end a control slot or begin a part of the run, and what comes faster than it can be written
costs the record of other control slots. Leases, reloads and checkpoints likewise. ``released`` is always
taken where it changes something."""
RECORD_WAIT_S = 1.0
"""A command is answered once it is on record, so that a restart carries it out, or after so long."""


class Commands:
    """The operator's commands, as :class:`controller.links.operator.OperatorTarget`.

    Any thread may command; :meth:`answer` carries out what waits on the thread that calls it. ``end_slot`` is
    called with a cell whose control slot is to end now, ``taken_over`` with a configuration that counts from
    now on, ``shut_down`` where the process is to end, and ``reloaded`` with what was wrong with a
    configuration that was read again ("": nothing), ``rekeyed`` with the CURVE keys that count from now on;
    it returns the cells of which one is gone.
    ``alive`` says whether the control loops turn. ValueError refuses a command with its text.
    """

    def __init__(
        self,
        config: Config,
        cells: Mapping[str, ControlledCell],
        journal: Journal,
        *,
        state: Callable[[], ControllerStatus],
        end_slot: Callable[[str], None],
        taken_over: Callable[[Config], None],
        alive: Callable[[], bool],
        shut_down: Callable[[], None],
        reloaded: Callable[[str], None],
        rekeyed: Callable[[CurveServer], Sequence[str]],
        config_path: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        run_dir: Path | None = None,
    ) -> None:
        self._config = config
        self._cells = cells
        self._journal = journal
        self.state = state
        self._end_slot = end_slot
        self._taken_over = taken_over
        self.alive = alive
        self._shut_down = shut_down
        self._reloaded = reloaded
        self._rekeyed = rekeyed
        self._file_lease_s = config.links.ran.lease_s
        self._config_path = config_path
        self._overrides = dict(overrides or {})
        self._run_dir = run_dir
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._closed = False
        self._reading = threading.Lock()
        self._every_s = min(1.0, config.control.control_slot_s)
        self._turns: dict[str, tuple[float, float]] = {}

    def _in_loop(self, call: Callable[[], T]) -> T:
        """Carry out ``call`` on the control thread; ValueError where that does not answer."""
        future: Future[T] = Future()
        self._calls.put((call, future))
        if self._closed:
            self._refuse_waiting()
        try:
            return future.result(CALL_TIMEOUT_S)
        except FutureTimeout:
            if future.cancel():
                raise ValueError(f"the control loop did not answer within {CALL_TIMEOUT_S:g} s") from None
        try:
            return future.result(FINISH_TIMEOUT_S)
        except FutureTimeout:
            waited = CALL_TIMEOUT_S + FINISH_TIMEOUT_S
            raise ValueError(f"begun, and not over within {waited:g} s: it may be done yet") from None

    def answer(self) -> None:
        """Carry out what waits; what comes meanwhile has its turn the next time, after the control slots."""
        for _ in range(self._calls.qsize()):
            try:
                call, future = self._calls.get_nowait()
            except queue.Empty:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)

    def close(self) -> None:
        """Nobody answers any more: what waits, and what comes, is refused at once."""
        self._closed = True
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        with suppress(queue.Empty):
            while True:
                _, future = self._calls.get_nowait()
                if future.set_running_or_notify_cancel():
                    future.set_exception(ValueError("the controller ends"))

    def _chosen(self, cell_id: str) -> Sequence[ControlledCell]:
        if not cell_id:
            return list(self._cells.values())
        try:
            return [self._cells[cell_id]]
        except KeyError:
            raise ValueError(f"unknown cell {cell_id!r}; cells: {', '.join(self._cells)}") from None

    def _command(self, cell_id: str, command: Command, kind: Event, text: str) -> Sequence[ControlledCell]:
        """Check a command with every cell that it is for, then give it to all of them."""
        cells = self._chosen(cell_id)
        for cell in cells:
            if len(cell.commands) >= MAX_WAITING and command.kind != "mode":
                raise ValueError(
                    f"cell {cell.cell_id}: {MAX_WAITING} commands wait for its next control slot"
                )
            cell.check(command)
        released = command == Command("mode", Mode.RELEASED.value)
        if not released or all(
            command in c.commands[-1:] or (c.loop and c.loop.mode is Mode.RELEASED) for c in cells
        ):
            self._turn(cell_id)
        for cell in cells:
            cell.ask(command)
            data = {
                "command": [command.kind, command.value, command.slice],
                "control_slot": cell.control_slot,
            }
            self._journal.event(cell.cell_id, kind, f"{text} {command.slice}".strip(), data)
        return cells

    def _turn(self, what: str) -> None:
        """Take one of the commands that may come; ValueError where there were too many."""
        now = time.monotonic()
        left, since = self._turns.get(what, (float(MAX_IN_A_ROW), now))
        left = min(MAX_IN_A_ROW, left + (now - since) / self._every_s)
        if left < 1:
            raise ValueError(f"{MAX_IN_A_ROW} commands in a row: now one is taken every {self._every_s:g} s")
        self._turns[what] = left - 1, now

    def _on_record(self, text: str) -> str:
        """The answer of a command that was carried out; not on the control thread."""
        if self._journal.written(RECORD_WAIT_S):
            return text
        return f"{text}; it is not on record yet: a restart before its control slot would not know of it"

    def set_mode(self, cell_id: str, mode: str) -> str:
        """Change the mode at once: the control slot in progress ends here. A cell that is not under control
        has it from its first control slot on."""

        def call() -> str:
            before = {c.cell_id: c.loop.mode for c in self._chosen(cell_id) if c.loop}
            later = []
            for cell in self._command(cell_id, Command("mode", mode), Event.SET_MODE, mode):
                if not cell.controlled:
                    later.append(cell.cell_id)
                    continue
                if before[cell.cell_id] == mode:
                    continue
                if Mode(mode) in (Mode.RELEASED, Mode.SHADOW):
                    cell.face.release()
                self._end_slot(cell.cell_id)
            return f"mode {mode}" + (f"; of {', '.join(later)} once under control" if later else "")

        return self._on_record(self._in_loop(call))

    def called(self, cell_id: str, text: str, refused: bool) -> None:
        """Record that an operator called, and what came of it."""
        cell = cell_id if cell_id in self._cells else ""
        kind = Event.CALL_REFUSED if refused else Event.OPERATOR_CALL
        self._journal.event(cell, kind, one_line(text)[:MAX_CALL_TEXT])

    def switch_policy(self, cell_id: str, slice_id: str, policy: str, hop: str = "") -> str:
        """Play another policy from the next control slot on, at one hop or ("") at all of them; it starts to
        learn anew."""
        command = Command("policy", {"policy": policy, "hop": hop}, slice_id)
        text = f"{policy} at hop {hop}" if hop else policy
        return self._set(cell_id, command, Event.SET_POLICY, "policy", text)

    def set_budgets(self, cell_id: str, slice_id: str, ul_ms: float, edge_ms: float, dl_ms: float) -> str:
        """Judge by other budgets from the next control slot on."""
        changes = {"budgets": {"ul_ms": ul_ms, "edge_ms": edge_ms, "dl_ms": dl_ms}}
        text = f"{ul_ms:g} + {edge_ms:g} + {dl_ms:g} ms"
        command = Command("options", changes, slice_id)
        return self._set(cell_id, command, Event.SET_BUDGETS, "budgets", text)

    def set_options(self, cell_id: str, slice_id: str, yaml: str) -> str:
        """Change options of a slice from the next control slot on; ``yaml`` is a mapping option -> new value.

        A value takes the place of the whole option. With an option of ``Options.anew`` the slice starts to
        learn anew.
        """
        changes = config_module.parse_options(yaml)
        text = ", ".join(f"{name}={json.dumps(value)}" for name, value in changes.items())
        command = Command("options", changes, slice_id)
        return self._set(cell_id, command, Event.SET_OPTIONS, "options", text)

    def set_quota(self, cell_id: str, slice_id: str, ul: int | None, dl: int | None, for_s: float) -> str:
        """Hold a slice at so many PRBs for a time: the control slot in progress ends here.

        A direction that is None stays the policy's. Meanwhile nothing is learned from the slice, and the
        other slices divide what it leaves. It goes out as every quota does, under a lease.
        """
        if not (cell_id and slice_id):
            raise ValueError("a quota by hand is one slice's of one cell: name both")
        value = {"ul": ul, "dl": dl, "for_s": for_s}
        text = f"{ManualQuota(ul, dl)} for {for_s:g} s, slice"

        def call() -> str:
            for cell in self._command(cell_id, Command("quota", value, slice_id), Event.SET_QUOTA, text):
                self._end_slot(cell.cell_id)
            return f"{text} {slice_id}; then its policy goes on"

        return self._in_loop(call)

    def clear_quota(self, cell_id: str, slice_id: str) -> str:
        """End a quota set by hand before its time: the control slot in progress ends here."""

        def call() -> str:
            command = Command("quota", None, slice_id)
            for cell in self._command(cell_id, command, Event.SET_QUOTA, "none by hand, slice"):
                self._end_slot(cell.cell_id)
            return f"the policy of slice {slice_id} goes on"

        return self._in_loop(call)

    def set_lease(self, lease_s: float) -> str:
        """Let quotas and clock locks hold for so many seconds without renewal, from now on; those that are in
        force are renewed at once."""

        def call() -> str:
            try:
                ran = RanLinkModel.model_validate({**self._config.links.ran.model_dump(), "lease_s": lease_s})
            except ValidationError as error:
                raise ValueError(f"lease_s: {mistake(error.errors()[0])}") from error
            self._turn("lease")
            self._take_config(_with_lease(self._config, ran.lease_s))
            self._journal.event("", Event.SET_LEASE, f"{lease_s:g} s")
            return f"lease {lease_s:g} s"

        return self._in_loop(call)

    def _take_config(self, config: Config) -> None:
        self._config = config
        self._taken_over(config)

    def shut_down(self) -> str:
        """Release everything and end the process, once this is answered."""

        def call() -> str:
            self._shut_down()
            return "everything is released and the controller ends; a supervisor may start it again"

        return self._in_loop(call)

    def _set(self, cell_id: str, command: Command, kind: Event, what: str, text: str) -> str:
        """Change options of the slices that are meant, of all of them or of none."""

        def call() -> str:
            self._command(cell_id, command, kind, text)
            return f"{what} {text} from the next control slot on"

        return self._on_record(self._in_loop(call))

    def reload(self) -> str:
        """Read the configuration file again; a bad one changes nothing.

        So are the cells' public keys, also where the file is bad: one that is not there any more lets nobody
        in. Slices go on learning unless their service, actions or policy have changed. What an operator had
        set stays unless the configuration changes it. Cells, links but for their lease, security, store and
        the timing of control are read at start alone.
        """
        self._turn("reload")
        return self.read_again()

    def read_again(self) -> str:
        """As :meth:`reload`, however often."""
        # One after the other, else one that read an older file could have the last word.
        if not self._reading.acquire(timeout=CALL_TIMEOUT_S):
            raise ValueError(f"a reload before this one has not ended within {CALL_TIMEOUT_S:g} s")
        try:
            keys = self._read_keys()
            try:
                text = f"{self._reload()}{keys}"
            except ValueError as error:
                raise ValueError(f"{error}{keys}") from error
            self._reloaded("")
        except Exception as error:
            self._journal.count("config_refused_total", "")
            self._reloaded(str(error) if isinstance(error, ValueError) else repr(error))
            raise
        finally:
            self._reading.release()
        return text

    def _reload(self) -> str:
        if not self._config_path:
            raise ValueError("started without a configuration file")
        # Here and not on the control thread: the file's host names may have to be looked up.
        carriers = {
            cell.cell_id: Limits(cell.carrier.n_prb, cell.carrier.min_prb)
            for cell in self._cells.values()
            if cell.carrier
        }
        try:
            new = config_module.load(self._config_path, self._overrides, here=True, carriers=carriers)
        except ConfigError as error:
            raise ValueError(f"the configuration stays as it was:\n{error}") from error
        return self._in_loop(lambda: self._take_over(new))

    def _read_keys(self) -> str:
        """Let in the keys that are there now; says which are gone. Keys that cannot be read stay as they
        were, and the configuration that names them is refused."""
        if not (keys := self._config.security.keys):
            return ""
        try:
            curve = curve_server(keys, or_none=True)
        except KeyFileError:
            return ""

        def call() -> str:
            gone = self._rekeyed(curve)
            return f"; a key that is gone lets nobody in any more: {', '.join(gone)}" if gone else ""

        return self._in_loop(call)

    def _take_over(self, new: Config) -> str:
        """Everything of ``new`` or nothing of it: all loops are made before the first is exchanged."""
        old, file_lease_s = self._config, new.links.ran.lease_s
        if file_lease_s == self._file_lease_s:
            new = _with_lease(new, old.links.ran.lease_s)
        fixed = [k for k in ("security", "store") if getattr(old, k) != getattr(new, k)]
        if _with_lease(old, None).links != _with_lease(new, None).links:
            fixed.append("links")
        if [c.id for c in old.cells] != [c.id for c in new.cells]:
            fixed.append("cells")
        else:  # The link to the edge agent holds its GPU's lock from its start on.
            pairs = enumerate(zip(old.cells, new.cells, strict=True))
            fixed += [f"cells.{i}.gpu" for i, (before, after) in pairs if before.gpu != after.gpu]
        control = type(new.control).model_fields
        changes = {k for k in control if getattr(new.control, k) != getattr(old.control, k)}
        fixed += [f"control.{k}" for k in sorted(changes - {"mode", "rescue", "events"})]
        if fixed:
            raise ValueError(
                f"the configuration stays as it was: {', '.join(fixed)} can change at a restart alone"
            )
        changed = [
            self._cells[after.id]
            for before, after in zip(old.cells, new.cells, strict=True)
            if before != after or changes
        ]
        loops = {c.cell_id: c.loop_for(new) for c in changed}
        self._file_lease_s = file_lease_s
        self._take_config(new)
        for cell in changed:
            cell.configure(new, loops[cell.cell_id])
            self._end_slot(cell.cell_id)
        names = [c.cell_id for c in changed]
        if old.lease_s != new.lease_s:
            names.append(f"lease {new.lease_s:g} s")
        text = f"changed: {', '.join(names) or 'nothing'}"
        self._journal.event("", Event.RELOADED, f"configuration {new.digest}, {text}")
        return f"reloaded; {text}"

    def checkpoint(self) -> str:
        """Write what has been learned to ``checkpoint.json`` in the run folder."""
        if not self._run_dir:
            raise ValueError("there is no run folder to write a checkpoint to")
        path = self._run_dir / "checkpoint.json"

        def call() -> dict[str, Any]:
            self._turn("checkpoint")
            return {c.cell_id: c.loop.to_state() for c in self._cells.values() if c.loop}

        states = self._in_loop(call)
        # Not on the control thread: a disk that takes its time would hold up decisions and renewals.
        try:
            checkpoint.save(path, states)
        except checkpoint.CheckpointError as error:
            raise ValueError(f"checkpoint not written: {error}") from error
        return f"checkpoint of {len(states)} cell(s) in {path}"


def _with_lease(config: Config, lease_s: float | None) -> Config:
    ran = config.links.ran.model_copy(update={"lease_s": lease_s})
    return config.model_copy(update={"links": config.links.model_copy(update={"ran": ran})})
