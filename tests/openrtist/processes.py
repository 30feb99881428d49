"""Real servers and clients on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.cli.ports import free_port
from tests.e2e.harness import until


class Process:
    """A ``prbandit openrtist ...`` process; stdout and stderr in files of ``folder``."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._out, self._log = folder / f"{name}.out", folder / f"{name}.log"
        with self._out.open("wb") as out, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "controller.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def out(self) -> str:
        """What it printed."""
        return self._out.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        return self._process.wait(timeout_s)

    def result(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """What it printed with --json, once it has ended well."""
        code = self.wait(timeout_s)
        assert code == 0, f"exit {code}: {self.log}"
        return json.loads(self.out)

    def stop(self) -> dict[str, Any]:
        self.signal(signal.SIGTERM)
        return self.result()

    def close(self) -> None:
        if self.running:
            self.signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


@contextmanager
def process(folder: Path, name: str, *arguments: str) -> Iterator[Process]:
    started = Process(folder, name, *arguments)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def server(
    folder: Path, *styles: Path, port: int = 0, options: tuple[str, ...] = ()
) -> Iterator[tuple[Process, str]]:
    """A server and its address; it is listening."""
    port = port or free_port()
    chosen = [part for style in styles for part in ("--style", str(style))]
    arguments = ("openrtist", "server", *chosen, "--port", str(port), "--json", *options)
    with process(folder, f"server-{port}", *arguments) as started:
        begun = len(re.findall("OpenRTiST server on", started.log))
        until(
            lambda: len(re.findall("OpenRTiST server on", started.log)) > begun or not started.running,
            "the server",
        )
        assert started.running, started.log
        yield started, f"127.0.0.1:{port}"


@contextmanager
def client(folder: Path, address: str, video: Path, *options: str, name: str = "client") -> Iterator[Process]:
    arguments = ("openrtist", "client", address, "--video", str(video), "--json", "--verbose", *options)
    with process(folder, name, *arguments) as started:
        yield started


def until_log(started: Process, words: str, timeout_s: float = 30.0) -> None:
    until(lambda: words in started.log, f"{words!r} in the log", timeout_s)


def pause(seconds: float) -> None:
    """Let real processes run on."""
    time.sleep(seconds)
