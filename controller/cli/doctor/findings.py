"""What a check says, and how all of them are run: side by side, each within its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Literal

from agents.gpu.calls import begin

Status = Literal["ok", "warning", "fail", "skipped"]
STATUSES: tuple[Status, ...] = ("fail", "warning", "ok", "skipped")


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` names what was looked at; what is not well has a ``remedy``, a command or a setting."""

    check: str
    status: Status
    text: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """For a person: one line, and the remedy below it."""
        said = f"{self.check} ({self.text})" if self.status == "skipped" else f"{self.check}: {self.text}"
        first, *more = said.splitlines()
        indent = " " * 9
        lines = [f"{self.status:9}{first}", *(f"{indent}  {line}" for line in more)]
        return [*lines, f"{indent}remedy: {self.remedy}"] if self.remedy else lines


def ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def warning(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, "warning", text, remedy)


def fail(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, "fail", text, remedy)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)


Check = Callable[[], Iterable[Finding]]


def run(checks: Mapping[str, Check], timeout_s: float) -> tuple[list[Finding], bool]:
    """The findings of all checks in their order, and whether every check has returned.

    A check that has not returned after ``timeout_s`` is a failure, and so is one that raises.
    """
    begun = {name: begin(partial(_all, check)) for name, check in checks.items()}
    end = time.monotonic() + timeout_s
    wait(begun.values(), max(0.0, end - time.monotonic()))
    findings: list[Finding] = []
    for name, future in begun.items():
        if not future.done():
            text = f"has not returned within {timeout_s:g} s"
            findings.append(fail(name, text, "look at what it waits for; --timeout gives it longer"))
        elif (error := future.exception()) is not None:
            text = f"the check itself has failed: {type(error).__name__}: {error}"
            findings.append(fail(name, text, "report this with the output of prbandit doctor --json"))
        else:
            findings += future.result()
    return findings, all(future.done() for future in begun.values())


def _all(check: Check) -> list[Finding]:
    return list(check())


def worst(findings: Sequence[Finding]) -> Status:
    """``fail``, ``warning`` or ``ok``."""
    found = {finding.status for finding in findings}
    return "fail" if "fail" in found else "warning" if "warning" in found else "ok"


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each status."""
    counts = {status: sum(f.status == status for f in findings) for status in STATUSES}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
