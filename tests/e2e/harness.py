"""Real processes of ours on loopback, for the end-to-end tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

from controller.cli.ports import free_port
from controller.links.operator import OperatorClient
from wire.security import Tls

START_S = 60.0


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Wait for a condition to become true and return it; the test fails where it does not."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (grpc.RpcError, OSError, ValueError):
            pass
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen within {timeout_s:g} s")


def parent_of(pid: int) -> int:
    """The id of a process's parent, 0 where the process has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def missing(why: str, required_by: str) -> NoReturn:
    """Skip what cannot run here; fail it where the environment variable ``required_by`` is 1."""
    if os.environ.get(required_by) == "1":
        pytest.fail(why)
    pytest.skip(why)


class Testbed:
    """Controller, emulated gNB and edge agent as processes, with their files in ``folder``.

    ``keys`` is a key folder: CURVE and TLS on every link.
    """

    __test__ = False

    def __init__(self, folder: Path, config: str, keys: Path | None = None) -> None:
        self.folder = folder
        self.keys = keys
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.run_dir = folder / "run"
        ports = {n: free_port() for n in ("ran", "edge", "qos", "operator", "metrics", "page")}
        self.edge_address = f"127.0.0.1:{ports['edge']}"
        self.operator_address = f"127.0.0.1:{ports['operator']}"
        self.metrics_url = f"http://127.0.0.1:{ports['metrics']}/metrics"
        self.page_url = f"http://127.0.0.1:{ports['page']}/"
        self.ran_address = f"tcp://127.0.0.1:{ports['ran']}"
        self.qos_address = f"127.0.0.1:{ports['qos']}"
        self.config = folder / "config.yaml"
        self.config.write_text(
            config + "\nlinks:\n"
            f"  ran: {{address: '{self.ran_address}'}}\n"
            f"  edge: {{address: '{self.edge_address}'}}\n"
            f"  qos: {{address: '{self.qos_address}'}}\n"
            f"  operator: {{address: '{self.operator_address}'}}\n"
            f"  metrics: {{address: '127.0.0.1:{ports['metrics']}'}}\n"
            f"  page: {{address: '127.0.0.1:{ports['page']}'}}\n"
            + (f"security: {{keys: '{keys}'}}\n" if keys else "")
        )
        self.gnb_health = folder / "gnb.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, name: str) -> list[str]:
        """The arguments of ``prbandit`` for one of the processes."""
        arguments = {
            "controller": ["controller", str(self.config), "--run", str(self.run_dir)],
            "edge-agent": ["edge-agent", "--address", self.edge_address],
            "gnb-mock": [
                *("gnb-mock", str(self.config), "--ran", self.ran_address, "--qos", self.qos_address),
                *("--edge", self.edge_address, "--heartbeat", str(self.gnb_health)),
            ],
        }[name]
        return [*arguments, "--keys", str(self.keys)] if self.keys and name != "controller" else arguments

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        return self.start_command(name, *self.command(name), *more)

    def start_command(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start ``prbandit`` with ``arguments`` as the process ``name``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "controller.cli", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
            )
        return self.processes[name]

    def start_all(self) -> None:
        for name in ("edge-agent", "controller", "gnb-mock"):
            self.start(name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60)

    def close(self) -> None:
        for name in ("gnb-mock", "controller", "edge-agent", *self.processes):
            if name in self.processes:
                self.kill(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def gnb(self) -> dict[str, Any]:
        """What the emulated gNB says of itself, once a second."""
        return json.loads(self.gnb_health.read_text())

    def operator(self) -> OperatorClient:
        return OperatorClient(self.operator_address, Tls(self.keys, "operator") if self.keys else None)

    def cell(self) -> dict[str, Any]:
        with self.operator() as client:
            return client.state()["cells"][0]

    def wait_for_slot(self, at_least: int, timeout_s: float = START_S) -> dict[str, Any]:
        """The cell's state once it has decided so many control slots."""
        return until(
            lambda: (c := self.cell())["control_slots"] >= at_least and c["last"] and c,
            f"control slot {at_least}",
            timeout_s,
        )
