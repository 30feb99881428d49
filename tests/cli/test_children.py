"""What a command has started ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import parent_of, until

PARENT = """
import signal, sys, time
from controller.cli import children
child = children.start([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""

INTERRUPTED = """
import signal, sys, time
from controller.cli import children
children.interrupt_on_signals()
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
    print("in order")
"""


def python(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent is gone")
def test_a_child_ends_when_its_parent_is_killed() -> None:
    with python(PARENT) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert parent_of(pid) == parent.pid
        finally:
            parent.kill()
    until(lambda: not parent_of(pid), f"the end of process {pid}")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_ends_a_command_as_ctrl_c_does_and_once(number: int) -> None:
    with python(INTERRUPTED) as running:
        assert running.stdout is not None and running.stdin is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        assert running.stdout.readline() == "interrupted\n"
        for again in (signal.SIGHUP, signal.SIGTERM):
            running.send_signal(again)
        print(file=running.stdin, flush=True)
        assert running.stdout.read() == "in order\n"
    assert running.returncode == 0


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with python(nohup + INTERRUPTED) as running:
        assert running.stdout is not None and running.stdin is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGHUP)
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == "interrupted\n"
        running.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_traffic_takes_its_clients_with_it(tmp_path: Path, number: int) -> None:
    plan, said = tmp_path / "plan.yaml", tmp_path / "pid"
    plan.write_text("version: 1\nlength_s: 600\nflows: [{flow: ar-1, ue: ue-1, active: [[0, 600]]}]\n")
    client = tmp_path / "client"
    client.write_text(f"#!/bin/sh\necho $$ > {said}.new\nmv {said}.new {said}\nexec sleep 600\n")
    client.chmod(0o755)
    command = [sys.executable, "-m", "controller.cli", "openrtist", "traffic", str(plan), "--server", "a:1"]
    command += ["--video", "x", "--logs", str(tmp_path / "logs"), "--on-ue", f"ue-1={client}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as traffic:
        until(said.exists, "the client")
        pid = int(said.read_text())
        os.kill(traffic.pid, number)
    assert traffic.returncode == (1 if number != signal.SIGKILL else -signal.SIGKILL)
    until(lambda: not parent_of(pid), f"the end of client {pid}")
