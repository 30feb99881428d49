"""Computes fits beside the loop: live in a pool of niced processes, on the virtual clock at once.

The loop submits what its allocators ask for and takes what has come; it never waits. Live, results enter the
next observation after they are there. On the virtual clock :func:`run_now` computes a job at the slot's
boundary and the caller delivers it in the next control slot, so that runs are deterministic. A replay takes
fits from the record.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import signal
import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait

from controller import fit_worker
from controller.core.fits import Fit, Job, model_digest
from controller.store.models import ModelStore

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
"""How long a worker may take to start, and to take a job."""
MAX_WAITING = 1024
"""Jobs that wait for a worker; one more is answered with an error."""


def run_now(slice: str, job: Job) -> tuple[Fit, bytes]:
    """Computes a job in this process, for the virtual clock: its fit, and the result's bytes (b"" for none).

    The arguments are copied first, as they are for a process. What the function raises becomes ``Fit.error``.
    """
    arguments = pickle.loads(pickle.dumps(dict(job.arguments)))
    try:
        data = fit_worker.call(job.function, arguments, job.seed)
    except Exception as error:
        return Fit(slice, job.key, "", fit_worker.describe(error)), b""
    return Fit(slice, job.key, model_digest(data)), data


@dataclass(slots=True, eq=False)
class _Ticket:
    """A job that was asked for. ``dropped``: nobody waits for it any more."""

    cell: str
    slice: str
    key: str
    work: bytes
    dropped: bool = False


_PROCESSES = threading.Lock()
"""Held while a process is started or waited for: multiprocessing reaps other threads' children when it starts
one, and their exit codes would get lost."""


class _Worker:
    """One process, and the thread of the pool that talks to it."""

    def __init__(self, name: str, niceness: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        self._process = context.Process(
            target=fit_worker.serve, args=(its_end, niceness), name=name, daemon=True
        )
        self._lock = threading.Lock()
        self._exchanges = 0
        self._killed = False
        self.expired = False
        try:
            with _PROCESSES:
                self._process.start()
        except BaseException:
            self._connection.close()
            raise
        finally:
            its_end.close()

    @property
    def usable(self) -> bool:
        with _PROCESSES:
            return not self._killed and self._process.is_alive()

    def kill(self) -> None:
        """Any thread may call; an exchange that goes on ends."""
        with self._lock:
            self._killed = True
            self._process.kill()

    def exchange(self, work: bytes | None, timeout_s: float) -> bytes | None:
        """What the process answers next; None where it ended first. It is killed after ``timeout_s``."""
        timer = threading.Timer(timeout_s, self._expire, (self._exchanges,))
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(EOFError, OSError):
                if work is not None:
                    self._connection.send_bytes(work)
                if self._connection in wait([self._connection, self._process.sentinel]):
                    return self._connection.recv_bytes()
        finally:
            timer.cancel()
            with self._lock:
                self._exchanges += 1
        return None

    def _expire(self, exchange: int) -> None:
        with self._lock:
            # The timer may go off just when its exchange is over, and the next one begins.
            if exchange == self._exchanges:
                self._killed = self.expired = True
                self._process.kill()

    def end(self, *, patience_s: float = 0.0) -> str:
        """How the process ended; it is killed where it has not within ``patience_s``."""
        with _PROCESSES:
            if patience_s:
                self._process.join(patience_s)
            self.kill()
            self._process.join()
        self._connection.close()
        exitcode = self._process.exitcode
        if exitcode is not None and exitcode < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-exitcode).name}"
        return f"ended with status {exitcode}"


class _Slot:
    """One of the pool's places: its thread, the process that it has, the job that it is at."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self.worker: _Worker | None = None
        self.ticket: _Ticket | None = None
        self.lock = threading.Lock()


class _Failed(Exception):
    """Why a job has no result."""


class FitPool:
    """Computes jobs in at most ``jobs`` processes; any thread may call, and no call waits for one of them.

    Threads and processes are started when the first job comes. A process is used for one job after another;
    one that was killed, or had to be, is replaced when there is more to do. Every job that was asked for and
    not forgotten ends in one :class:`Fit`, whatever becomes of its process.

    Args:
        models: takes the results, on the pool's threads.
        jobs: processes at a time, 1 or more.
        timeout_s: seconds of wall clock that one job may take; then its process is killed.
        niceness: by how much the processes step back behind the control loop (``os.nice``), 0 or more.
    """

    def __init__(
        self, models: ModelStore, *, jobs: int = 1, timeout_s: float = 600.0, niceness: int = 10
    ) -> None:
        if jobs < 1 or not 0.0 < timeout_s < threading.TIMEOUT_MAX or niceness < 0:
            raise ValueError(f"{jobs} jobs, a timeout of {timeout_s} s, niceness {niceness}: no such pool")
        self._models = models
        self._jobs = jobs
        self._timeout_s = timeout_s
        self._niceness = niceness
        self._changed = threading.Condition()
        self._known: dict[tuple[str, str, str], _Ticket] = {}
        self._waiting: deque[_Ticket] = deque()
        self._done: dict[str, list[tuple[_Ticket, Fit]]] = {}
        self._slots: list[_Slot] = []
        self._closed = False

    def submit(self, cell: str, slice: str, job: Job) -> bool:
        """Asks for a job; False where it was asked for before, by (cell, slice, key), or the pool is closed.

        The arguments are copied: what the caller does with its arrays afterwards changes nothing.
        """
        with self._changed:
            if self._closed or (cell, slice, job.key) in self._known:
                return False
        work = pickle.dumps((job.function, dict(job.arguments), job.seed), pickle.HIGHEST_PROTOCOL)
        ticket = _Ticket(cell, slice, job.key, work)
        with self._changed:
            if self._closed or (cell, slice, job.key) in self._known:
                return False
            self._known[cell, slice, job.key] = ticket
            if len(self._waiting) >= MAX_WAITING:
                self._finish(ticket, Fit(slice, job.key, "", f"more than {MAX_WAITING} jobs wait"))
                return True
            self._waiting.append(ticket)
            idle = sum(slot.ticket is None for slot in self._slots)
            if idle < len(self._waiting) and len(self._slots) < self._jobs:
                self._start_slot()
            self._changed.notify()
        return True

    def take(self, cell: str) -> list[Fit]:
        """The fits of a cell that have come since the last call, in that order."""
        with self._changed:
            return [fit for _, fit in self._done.pop(cell, ())]

    def forget(self, cell: str, slice: str) -> None:
        """A slice is gone: what it asked for is not computed any more, and no fit of it comes.

        A slice of that name that comes later may ask for the same keys.
        """
        with self._changed:
            for key in [k for k in self._known if k[:2] == (cell, slice)]:
                self._known.pop(key).dropped = True
            self._waiting = deque(ticket for ticket in self._waiting if not ticket.dropped)
            if cell in self._done:
                self._done[cell] = [(t, fit) for t, fit in self._done[cell] if not t.dropped]
            killed = [slot for slot in self._slots if slot.ticket is not None and slot.ticket.dropped]
        for slot in killed:
            self._kill(slot, only_dropped=True)

    def close(self) -> None:
        """Kills what is being computed and ends the pool; what has come may still be taken."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            slots = list(self._slots)
            self._changed.notify_all()
        for slot in slots:
            self._kill(slot)
        for slot in slots:
            if slot.thread is not None:
                slot.thread.join()

    # ---- the pool's threads -----------------------------------------------------------------------------

    def _start_slot(self) -> None:
        slot = _Slot(f"fit-{len(self._slots)}")
        slot.thread = threading.Thread(target=self._run, args=(slot,), name=slot.name, daemon=True)
        self._slots.append(slot)
        slot.thread.start()

    @staticmethod
    def _kill(slot: _Slot, *, only_dropped: bool = False) -> None:
        """Ends what a slot's process is at; its thread sees that."""
        with slot.lock:
            if only_dropped and not (slot.ticket and slot.ticket.dropped):
                return
            if slot.worker is not None:
                slot.worker.kill()

    def _run(self, slot: _Slot) -> None:
        try:
            while (ticket := self._next(slot)) is not None:
                try:
                    digest, error = self._models.put(self._compute(slot, ticket)), ""
                except _Failed as failed:
                    digest, error = "", str(failed)
                except OSError as failed:
                    digest, error = "", f"its result could not be stored: {failed}"
                except Exception as failed:
                    log.exception("fit %s could not be computed", ticket.key)
                    digest, error = "", f"{type(failed).__name__}: {failed}"
                with self._changed:
                    self._finish(ticket, Fit(ticket.slice, ticket.key, digest, error))
        finally:
            with slot.lock:
                worker, slot.worker = slot.worker, None
            if worker is not None:
                worker.end()

    def _next(self, slot: _Slot) -> _Ticket | None:
        with self._changed:
            with slot.lock:
                slot.ticket = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            ticket = self._waiting.popleft()
            with slot.lock:
                slot.ticket = ticket
            return ticket

    def _finish(self, ticket: _Ticket, fit: Fit) -> None:
        """Holds the lock."""
        ticket.work = b""
        if ticket.dropped or self._closed:
            return
        if fit.error:
            log.warning("cell %s: slice %s: fit %s: %s", ticket.cell, ticket.slice, ticket.key, fit.error)
        self._done.setdefault(ticket.cell, []).append((ticket, fit))

    def _compute(self, slot: _Slot, ticket: _Ticket) -> bytes:
        """The result's bytes; _Failed says why there are none."""
        worker = slot.worker
        if worker is None or not worker.usable:
            worker = self._start_worker(slot)
        if worker.exchange(ticket.work, START_TIMEOUT_S) != fit_worker.TAKEN:
            # It ended while it had nothing to do, and that was not seen yet: no fault of this job.
            worker = self._start_worker(slot)
            if worker.exchange(ticket.work, START_TIMEOUT_S) != fit_worker.TAKEN:
                raise _Failed(f"its process {self._end_worker(slot)} before it took the job")
        answer = worker.exchange(None, self._timeout_s)
        if answer is None:
            ending = self._end_worker(slot)
            if worker.expired:
                raise _Failed(f"killed: it took longer than {self._timeout_s:g} s")
            raise _Failed(f"its process {ending}")
        if answer[:1] != fit_worker.RESULT:
            raise _Failed(answer[1:].decode(errors="replace"))
        return answer[1:]

    def _start_worker(self, slot: _Slot) -> _Worker:
        if slot.worker is not None:
            self._end_worker(slot)
        try:
            worker = _Worker(slot.name, self._niceness)
        except OSError as error:
            raise _Failed(f"its process could not be started: {error}") from error
        with slot.lock:
            slot.worker = worker
            unwanted = self._closed or bool(slot.ticket and slot.ticket.dropped)
        if unwanted:
            # It was asked to end before it was there to be asked.
            worker.kill()
        if worker.exchange(None, START_TIMEOUT_S) != fit_worker.READY:
            raise _Failed(f"its process {self._end_worker(slot)} before it had started")
        return worker

    @staticmethod
    def _end_worker(slot: _Slot) -> str:
        """How the process of a slot ended, which has ended or is about to."""
        with slot.lock:
            worker, slot.worker = slot.worker, None
        assert worker is not None
        return worker.end(patience_s=1.0)
