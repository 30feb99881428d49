"""The testbed under attack: real processes, their links, and what can be read of them from outside."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from controller.cli.ports import free_port
from controller.links import ran_front
from controller.links.operator import OperatorClient, OperatorError
from controller.store.run import RunStore, StoreError
from tests.chaos.link import Links
from tests.e2e.harness import Testbed
from wire import edge_pb2, edge_pb2_grpc, roles
from wire.security import Tls, grpc_channel

CELL, ATTACKER = "cell-1", "cell-2"
"""The cell that must live, and the one whose key a broken peer has."""
SLOT_S, LEASE_S, PRB = 0.5, 3.0, 106
START_S = 60.0
RUN_BYTES = 96 << 20
"""Of the file system on which the run folder is, where it is one of its own."""

CONFIG = f"""
control: {{control_slot_s: {SLOT_S}, guard_ms: 100.0}}
cells:
  - id: {CELL}
    slices: &slices
      - id: ar
        policy: mucb1
        actions:
          ul_prb: {{from: 10, to: 106, step: 20}}
          dl_prb: {{from: 10, to: 106, step: 20}}
          gpu_mhz: {{from: 500, to: 1600, step: 100}}
        ues: [ue-1]
  - id: {ATTACKER}
    slices: *slices
emulation: {{duration_s: 36000.0, flows: 2, schedule: always}}
"""
PROCESSES = ("edge-agent", "controller", "gnb-mock")
FRONT = "RAN front"
SERVERS = {"edge": roles.EDGE_AGENT, "operator": roles.CONTROLLER, "qos": roles.CONTROLLER}
"""Whose certificate a gRPC server shows, by the name of its port."""
"""Who reads the metrics page."""


@dataclass
class Slots:
    """The control slots of :data:`CELL` in the run record, in the order of recording."""

    numbers: list[int] = field(default_factory=list)
    late: int = 0
    """Decided more than half a control slot late, within one control loop."""
    lost: int = 0
    """Numbers that are missing, and control slots that the record itself says are lost."""
    twice: int = 0


@dataclass
class Snapshot:
    """What is read of the processes between two attacks."""

    counters: dict[tuple[str, str], float]
    edge: dict[str, int]
    pids: dict[str, int]
    rss_mib: dict[str, float]
    log_bytes: dict[str, int]
    slots: Slots


class World(Testbed):
    """A testbed whose gNB reaches the controller, and the controller the edge agent, over :class:`Links`.

    A process that ends without having been told to is a crash: it is written down and started again.
    """

    def __init__(self, folder: Path, *, keys: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if keys:
            self._prbandit("keys", str(folder / "keys"), "--cell", CELL, "--cell", ATTACKER)
            self._prbandit("keys", str(folder / "other-keys"), "--cell", CELL)
        super().__init__(folder, CONFIG, folder / "keys" if keys else None)
        self.ports = {
            name: int(address.rpartition(":")[2].partition("/")[0])
            for name, address in (
                ("ran", self.ran_address),
                ("qos", self.qos_address),
                ("operator", self.operator_address),
                ("edge", self.edge_address),
                ("metrics", self.metrics_url.removeprefix("http://")),
            )
        }
        proxied = {name: free_port() for name in ("ran", "qos", "edge")}
        self.links = Links({proxied[name]: self.ports[name] for name in proxied})
        self.far = {name: f"127.0.0.1:{port}" for name, port in proxied.items()}
        self.config.write_text(
            self.config.read_text().replace(
                f"edge: {{address: '{self.edge_address}'", f"edge: {{address: '{self.far['edge']}'"
            )
        )
        self.metrics_url = self.metrics_url.replace("http:", "https:") if keys else self.metrics_url
        self.edge_health = folder / "edge.json"
        self.crashes: list[str] = []
        self.peaks: dict[str, float] = {}
        self.stalled_s = 0.0
        self.edge_channel = grpc_channel(
            self.edge_address, self.tls("controller"), server_role=roles.EDGE_AGENT
        )
        self.mounted = self._mount()
        self._closed = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def _prbandit(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "controller.cli", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=300)

    def tls(self, role: str) -> Tls | None:
        return Tls(self.keys, role) if self.keys else None

    def _mount(self) -> str:
        """Puts the run folder on a small file system of its own; why not, where that cannot be."""
        if os.geteuid():
            return "only root may mount a small file system"
        self.run_dir.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={RUN_BYTES}", "chaos", str(self.run_dir)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stderr.strip() if done.returncode else ""

    # ---- processes ----------------------------------------------------------------------------------------

    def command(self, name: str) -> list[str]:
        swap = {self.ran_address: f"tcp://{self.far['ran']}", self.qos_address: self.far["qos"]}
        if name == "edge-agent":
            return [*super().command(name), "--heartbeat", str(self.edge_health)]
        return [swap.get(a, a) for a in super().command(name)]

    def begin(self) -> float:
        """Starts everything; seconds until there is control. RuntimeError where there is none."""
        self._sampler.start()
        self.start_all()
        if (seconds := self.control()) is None:
            raise RuntimeError(f"no control within {START_S:g} s:\n{self.log('controller')[-3000:]}")
        return seconds

    def revive(self) -> None:
        """Notes who has ended without having been told to, and starts it again."""
        for name in PROCESSES:
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                last = (self.log(name).strip().splitlines() or [""])[-1]
                self.crashes.append(f"{name} ended with {process.returncode}: {last[-200:]}")
            self.start(name)

    def restart(self) -> float | None:
        """Ends all processes and starts them again; seconds until there is control."""
        for name in tuple(self.processes):
            self.kill(name)
        self.start_all()
        return self.control()

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def close(self) -> None:
        self._closed.set()
        for name in tuple(self.processes):
            with suppress(ProcessLookupError):
                self.signal(name, signal.SIGCONT)
            self.kill(name)
        self.links.close()
        self.edge_channel.close()
        if not self.mounted:
            subprocess.run(["umount", str(self.run_dir)], capture_output=True)

    # ---- what is seen from outside ------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> float | None:
        """Seconds until ``condition`` holds; None where it does not in time."""
        begin = time.monotonic()
        while (waited := time.monotonic() - begin) < timeout_s:
            with suppress(grpc.RpcError, OSError, ValueError, LookupError):
                if condition():
                    return waited
            time.sleep(0.05)
        return None

    def cell(self) -> dict[str, Any]:
        with OperatorClient(self.operator_address, self.tls("operator"), timeout_s=3.0) as client:
            return next(c for c in client.state()["cells"] if c["cell_id"] == CELL)

    def control(self, timeout_s: float = START_S) -> float | None:
        """Seconds until the cell has decided two more control slots than at the first look."""
        first: list[int] = []

        def more() -> bool:
            cell = self.cell()
            if not cell["connected"]:
                first.clear()
                return False
            first.append(cell["control_slots"])
            return cell["control_slots"] >= first[0] + 2

        return self.wait(more, timeout_s)

    def gives_or_learns(self) -> bool:
        """Whether the last closed control slot taught something, or the cell is at full resources."""
        if all(quota == [PRB, PRB] for quota in self.gnb()["quotas"].values()):
            return True
        last = self.cell()["last"]["slices"]["ar"]
        closed = last["closed"]
        levers = {c["lever"] for c in last["choices"]}
        return bool(closed["busy"]) and not levers <= closed["unattributed"].keys()

    def full(self) -> bool:
        """The gNB at all PRBs and the GPU without a lock."""
        quotas = self.gnb()["quotas"].values()
        return all(q == [PRB, PRB] for q in quotas) and not self._gpu_lock()

    def _gpu_lock(self) -> int:
        if "edge-agent" not in self.processes or self.processes["edge-agent"].poll() is not None:
            return 0
        watch = edge_pb2_grpc.EdgeStub(self.edge_channel).WatchGpu(
            edge_pb2.WatchGpuRequest(period_ms=50), timeout=2
        )
        state = next(iter(watch))
        watch.cancel()
        return int(state.locked_mhz)

    def page(self, tls: Tls | None) -> str:
        """The metrics page, for the holder of a certificate."""
        context = None
        if self.keys:
            context = ssl.create_default_context(cafile=str(self.keys / "ca.crt"))
            if tls:
                context.load_cert_chain(tls.certificate_file, tls.key_file)
        with urllib.request.urlopen(self.metrics_url, timeout=5, context=context) as page:
            return str(page.read().decode())

    def counters(self) -> dict[tuple[str, str], float]:
        """(name, cell) -> value of the controller's counters, without ``prbandit_``."""
        out: dict[tuple[str, str], float] = {}
        for line in self.page(self.tls(roles.PROMETHEUS)).splitlines():
            if line.startswith("prbandit_") and "_total" in line:
                name = line.removeprefix("prbandit_").partition(" ")[0].partition("{")[0]
                cell = line.partition('cell="')[2].partition('"')[0]
                out[name, cell] = out.get((name, cell), 0.0) + float(line.rpartition(" ")[2])
        return out

    def slots(self) -> Slots:
        """From the run record; OSError where it cannot be read."""
        out = Slots()
        with RunStore.open(self.run_dir) as store:
            for start in store.starts(CELL):
                out.lost += start.lost
                before = None
                for decision in store.decisions(start_id=start.id):
                    out.numbers.append(decision["control_slot"])
                    late = before is not None and decision["time_ns"] - before > 1.5e9 * SLOT_S
                    out.late += late
                    before = decision["time_ns"]
        known = set(out.numbers)
        out.twice = len(out.numbers) - len(known)
        out.lost += (max(known) - min(known) + 1 - len(known)) if known else 0
        return out

    def replay(self) -> int | None:
        """Decisions that differ when the run record is replayed; None where it cannot be."""
        done = self._prbandit("replay", str(self.run_dir), "--json", check=False)
        try:
            return int(json.loads(done.stdout)["different"])
        except (ValueError, KeyError):
            return None

    def snapshot(self) -> Snapshot:
        counters: dict[tuple[str, str], float] = {}
        self.wait(lambda: counters.update(self.counters()) or counters, 15.0)
        time.sleep(1.1)  # the edge agent tells of its counters once a second
        edge: dict[str, int] = {}
        slots = Slots()
        with suppress(OSError, ValueError):
            edge = json.loads(self.edge_health.read_text())["counters"]
        with suppress(StoreError):
            slots = self.slots()
        pids = self.pids()
        return Snapshot(
            counters,
            edge,
            pids,
            {name: rss_mib(pid) for name, pid in pids.items()},
            {name: (self.folder / f"{name}.log").stat().st_size for name in PROCESSES},
            slots,
        )

    def _sample(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(0.1):
            now = time.monotonic()
            self.stalled_s, last = max(self.stalled_s, now - last), now
            for name, pid in self.pids().items():
                self.peaks[name] = max(self.peaks.get(name, 0.0), rss_mib(pid))

    def pids(self) -> dict[str, int]:
        """The processes, and :data:`FRONT`, to which gNBs connect."""
        pids = {name: process.pid for name, process in tuple(self.processes.items())}
        if front := next((c for c in children(pids.get("controller", 0)) if _is_front(c)), None):
            pids[FRONT] = front
        return pids

    @contextmanager
    def probe(self, *honest: Callable[[], Any]) -> Iterator[list[str]]:
        """Calls what honest callers call, once a second, and lists those who were shut out.

        That is who was refused at more than half of the tries, or was never served.
        """
        shut_out: list[str] = []
        done = threading.Event()

        def keep_calling(call: Callable[[], Any]) -> None:
            served: list[bool] = []
            while not done.wait(1.0):
                try:
                    call()
                    served.append(True)
                except (grpc.RpcError, OSError, ValueError, OperatorError, StopIteration):
                    served.append(False)
            if served and sum(served) * 2 < len(served):
                shut_out.append(
                    f"{call.__name__}: {served.count(False)} of {len(served)} honest calls failed"
                )

        threads = [threading.Thread(target=keep_calling, args=(call,)) for call in honest]
        for thread in threads:
            thread.start()
        try:
            yield shut_out
        finally:
            done.set()
            for thread in threads:
                thread.join()


def rss_mib(pid: int) -> float:
    """Resident memory of a process and of its children but the front, 0 where it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        own = next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:")), 0.0)
        return own + sum(rss_mib(child) for child in children(pid) if not _is_front(child))
    return 0.0


def children(pid: int) -> list[int]:
    """Those of a process, none where it has ended."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _is_front(pid: int) -> bool:
    with suppress(OSError):
        return ran_front.__name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
