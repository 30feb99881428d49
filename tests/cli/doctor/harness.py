"""Runs ``prbandit doctor`` and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from controller.cli import cli
from controller.cli.ports import free_ports

CLI = [sys.executable, "-m", "controller.cli"]


@dataclass
class Report:
    """What it printed as JSON, and its exit status."""

    result: dict[str, Any]
    code: int

    def of(self, check: str, status: str = "") -> list[dict[str, str]]:
        return [c for c in self.result["checks"] if c["check"] == check and status in ("", c["status"])]

    def one(self, check: str, status: str) -> dict[str, str]:
        """The only line of a check with that status; what is not well must have a remedy."""
        found = self.of(check, status)
        assert len(found) == 1, self.of(check) or self.result["checks"]
        assert bool(found[0]["remedy"]) == (status in ("fail", "warning")), found[0]
        return found[0]


def doctor(*arguments: object) -> Report:
    done = CliRunner().invoke(cli, ["doctor", *map(str, arguments), "--json"])
    assert done.exit_code in (0, 1) and (done.exception is None or isinstance(done.exception, SystemExit)), (
        done
    )
    return Report(json.loads(done.stdout), done.exit_code)


def doctor_process(
    *arguments: object, before: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Report:
    """As a process of its own, behind a command such as ``setpriv``."""
    command = [*before, *CLI, "doctor", *map(str, arguments), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    return Report(json.loads(done.stdout), done.returncode)


def configuration(path: Path, *, edge: str | None = None, keys: Path | None = None, more: str = "") -> Path:
    """A controller's configuration with free ports of loopback."""
    ran, qos, operator, metrics, page = (f"127.0.0.1:{port}" for port in free_ports(5))
    path.write_text(
        f"links:\n  ran: {{address: 'tcp://{ran}'}}\n  qos: {{address: '{qos}'}}\n"
        f"  edge: {{address: {edge or 'null'}}}\n  operator: {{address: '{operator}'}}\n"
        f"  metrics: {{address: '{metrics}'}}\n  page: {{address: '{page}'}}\n"
        f"store: {{runs: '{path.parent}'}}\n" + (f"security: {{keys: '{keys}'}}\n" if keys else "") + more
    )
    return path
