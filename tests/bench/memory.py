"""Resident memory of the controller over an hour of emulated time."""

from __future__ import annotations

import tempfile
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq

import controller.daemon
import controller.links.ran
from agents.emulator.testbed import EmulatedTestbed
from agents.emulator.warmup import warm_up
from agents.gnb_mock.mock import FRAMES_PERIOD_SLOTS, GnbMock
from controller import config, scenario
from controller.cli.ports import free_port
from controller.core.clocks import Moment
from controller.daemon import Daemon
from controller.links.qos import QosIngest
from tests.bench.common import CHILD_S, Child, Row, child, need

NAME = "memory"
SCENARIO, SEED = "mucb1-1", 4
_STEPS_S = 5
"""Steps of 200 ms (in which the cell publishes its frames) in a second."""
_SCRAPE_S = 15
_MIB = 1 << 20


class ShiftedClock:
    """Stands in for the module ``time``: real time plus what :meth:`reach` has skipped."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._skipped_ns = 0

    def reach(self, time_ns: int) -> None:
        """From now on it is CLOCK_REALTIME ``time_ns`` or later."""
        self._skipped_ns += max(0, time_ns - self.time_ns())

    def time_ns(self) -> int:
        return time.time_ns() + self._skipped_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self._skipped_ns


def serve_stepped(pipe: Connection, settings: config.Config, folder: Path) -> None:
    """A controller that takes its turns when it is told to, on a clock that is told what time it is.

    Answers ``(reports, time_ns)`` with the control slot that it is in, once that many reports of the session
    have been taken and all quotas are acknowledged; ends at None.
    """
    clock: Any = ShiftedClock()
    controller.daemon.time = controller.links.ran.time = clock
    defaults: Any = QosIngest.__init__.__kwdefaults__
    defaults["clock"] = lambda: Moment(clock.time_ns(), round(clock.monotonic() * 1e9))
    daemon = Daemon(settings, run_dir=folder)
    (live,) = daemon._cells.values()
    cell = live.cell
    assert daemon._qos is not None
    daemon._qos.start()
    pipe.send(daemon._ran.address)
    while (told := pipe.recv()) is not None:
        reports, time_ns = told
        clock.reach(time_ns)
        while not cell.session or live.reports < reports or daemon._ran.unacknowledged(cell.cell_id):
            daemon._turn()
        pipe.send(cell.loop.control_slot if cell.loop else 0)
    daemon._close()
    pipe.send({name: daemon.counters.get(name) for name, _ in daemon.counters.snapshot()})


def run(effort: float) -> list[Row]:
    """Resident memory after an hour of emulated time, against that after the first tenth of it.

    A controller with its run folder, QoS ingest and metrics endpoint runs in a process of its own, on a clock
    that goes as fast as the emulated cell of scenario mucb1-1 does. The cell's reports (one every 50 ms), its
    acknowledgements, flows and frames reach it over ZMQ and gRPC, the metrics are scraped every 15 emulated
    seconds, and every control slot of 5 s is decided, recorded and learned from. Left out are the edge agent
    (the GPU's hop learns nothing) and operators. Memory is that of the controller's process alone; some of it
    comes with the first control slots (SQLite's page cache, a policy for each new hop state), so the details
    hold the growth in the second half too, and the size of the run folder.
    """
    psutil = need("psutil")
    seconds = max(10, int(3600 * effort))
    settings = config.load(
        config.find(SCENARIO),
        {
            "links.ran.address": "tcp://127.0.0.1:0",
            "links.edge.address": None,
            "links.qos.address": f"127.0.0.1:{free_port()}",
            "links.operator.address": None,
            "links.metrics.address": f"127.0.0.1:{free_port()}",
            "links.page.address": None,
        },
    )
    warm_up()
    rss: list[float] = []
    with tempfile.TemporaryDirectory(prefix="prbandit-bench-") as folder:
        with child(serve_stepped, settings, Path(folder) / "run") as served, zmq.Context() as context:
            process = psutil.Process(served.pid)
            start = time.perf_counter()
            with _Cell(context, settings, served) as cell:
                for second in range(seconds + 1):
                    if second % max(1, seconds // 60) == 0:
                        rss.append(process.memory_info().rss / _MIB)
                    if second == seconds:
                        break
                    cell.second()
                    if second % _SCRAPE_S == 0:
                        _scrape(settings)
                wall_s = time.perf_counter() - start
                counters = cell.leave()
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / _MIB
    tenth, half, end = rss[len(rss) // 10], rss[len(rss) // 2], rss[-1]
    hours = seconds / 3600
    details = {
        "emulated_s": seconds,
        "wall_s": wall_s,
        "control_slots": cell.control_slot,
        "reports": cell.reports,
        "reports_dropped": cell.reports_dropped,
        "start_mib": rss[0],
        "tenth_mib": tenth,
        "half_mib": half,
        "end_mib": end,
        "growth_mib_per_h": (end - tenth) / (0.9 * hours),
        "growth_in_second_half_mib_per_h": (end - half) / (0.5 * hours),
        "run_folder_mib_per_h": size / hours,
        "rss_mib": rss,
        "counters": counters,
    }
    return [
        Row(
            NAME,
            f"resident memory of the controller, {seconds} s emulated",
            "MiB",
            end,
            tenth,
            "after a tenth",
            end / tenth,
            "flat",
            details,
            f"{rss[0]:.1f} MiB at the start, {tenth:.1f} after a tenth, {half:.1f} after half, {end:.1f}"
            f" at the end: {details['growth_mib_per_h']:+.1f} MiB/h after the first tenth,"
            f" {details['growth_in_second_half_mib_per_h']:+.1f} MiB/h in the second half;"
            f" run folder {details['run_folder_mib_per_h']:.1f} MiB/h",
        )
    ]


class _Cell:
    """The emulated gNB of the package, taken through its own steps as fast as the controller follows."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], settings: config.Config, served: Child
    ) -> None:
        self._served = served
        self.control_slot = 0
        self._mock = GnbMock(
            scenario.testbed_spec(settings, SEED),
            SEED,
            ran_address=served.receive(),
            qos_address=settings.links.qos.address,
        )
        self._bed = EmulatedTestbed(self._mock.spec, seed=SEED, epoch_ns=time.time_ns())
        self._socket = context.socket(zmq.DEALER)
        self._mock._connect(self._socket)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(served.pipe.fileno(), zmq.POLLIN)

    def __enter__(self) -> _Cell:
        mock = self._mock
        assert mock._qos is not None
        mock._qos.start()
        self._socket.poll(100, zmq.POLLOUT)
        mock._agent.tick(time.monotonic())
        mock._send_control(self._socket)
        self._ask()
        self._until(lambda: mock._agent.session, "a session")
        self._until(lambda: mock._qos and mock._qos.connected, "a QoS stream")
        return self

    def __exit__(self, *_: object) -> None:
        self._mock.close()
        self._socket.close(0)

    @property
    def reports(self) -> int:
        return self._mock._counters["reports"]

    @property
    def reports_dropped(self) -> int:
        return self._mock._counters["reports_dropped"]

    def second(self) -> None:
        """An emulated second; the controller has then done all that was due in it."""
        mock, bed = self._mock, self._bed
        for _ in range(_STEPS_S):
            mock._advance(bed, self._socket, bed.nr_slot + FRAMES_PERIOD_SLOTS)
            self._until(lambda: not mock._qos or not mock._qos.counters["waiting"], "an empty outbox")
            self.control_slot = self._ask()

    def _ask(self) -> int:
        self._served.pipe.send((self.reports, self._bed.time_ns()))
        self._until(self._served.pipe.poll, "the controller's answer")
        return int(self._served.receive())

    def leave(self) -> dict[str, int]:
        """End the controller, acknowledge its Release; its counters."""
        self._served.pipe.send(None)
        self._until(lambda: self._mock._agent.counters["releases"], "a Release")
        counters: dict[str, int] = self._served.receive()
        return counters

    def _until(self, condition: Callable[[], Any], what: str) -> None:
        mock, deadline = self._mock, time.monotonic() + CHILD_S
        while True:
            mock._receive(self._socket)
            mock._enforce(self._bed)
            mock._send_control(self._socket)
            if condition():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come within {CHILD_S:g} s")
            self._poller.poll(1)


def _scrape(settings: config.Config) -> None:
    with urllib.request.urlopen(f"http://{settings.links.metrics.address}/metrics", timeout=CHILD_S) as page:
        page.read()
