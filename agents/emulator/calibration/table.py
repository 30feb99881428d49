"""Measured and emulated side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity, measured and emulated in ``unit``. ``aim`` is the relative deviation that is aimed at."""

    group: str
    name: str
    unit: str
    measured: float
    emulated: float
    aim: float | None = None
    note: str = ""

    @property
    def deviation(self) -> float | None:
        """emulated / measured - 1; None where nothing was measured."""
        return self.emulated / self.measured - 1 if self.measured else None

    @property
    def within(self) -> bool | None:
        """Whether the deviation is inside the aim; None where there is none."""
        deviation = self.deviation
        return None if self.aim is None or deviation is None else abs(deviation) <= self.aim

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "measured": self.measured,
            "emulated": self.emulated,
            "deviation": self.deviation,
            "aim": self.aim,
            "within": self.within,
            "note": self.note,
        }


@dataclass(slots=True)
class Calibration:
    """The rows of one judge, what was left out and why, and what explains deviations beyond an aim.

    ``read`` says of each file how many of its rows were used.
    """

    against: str
    rows: list[Row] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        aimed = [r for r in self.rows if r.within is not None]
        return {
            "against": self.against,
            "rows": [r.to_dict() for r in self.rows],
            "aimed": len(aimed),
            "within": sum(bool(r.within) for r in aimed),
            "read": self.read,
            "skipped": self.skipped,
            "missing_mechanisms": self.missing,
        }

    def to_text(self) -> str:
        """A table a group, the summary, what was left out and what is missing."""
        lines: list[str] = []
        group = None
        width = max((len(r.name) for r in self.rows), default=0)
        for r in self.rows:
            if r.group != group:
                group = r.group
                lines += ["", group, f"  {'':{width}}  {'measured':>10} {'emulated':>10}  deviation"]
            lines.append(_line(r, width))
        aimed = [r for r in self.rows if r.within is not None]
        inside = sum(bool(r.within) for r in aimed)
        lines += ["", f"{inside} of {len(aimed)} within the aim; * is beyond it"]
        lines += (
            _list("read", self.read)
            + _list("left out", self.skipped)
            + _list("beyond the aim, and why", self.missing)
        )
        return "\n".join(lines).lstrip("\n")


def _line(r: Row, width: int) -> str:
    deviation = "" if r.deviation is None else f"{r.deviation:+8.1%}"
    mark = "*" if r.within is False else " "
    aim = "" if r.aim is None else f"(aim {r.aim:.0%})"
    text = f"  {r.name:{width}}  {r.measured:10.4g} {r.emulated:10.4g}  {deviation:>8}{mark} {r.unit} {aim}"
    return (text + (f"  {r.note}" if r.note else "")).rstrip()


def _list(title: str, items: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  {item}" for item in items)] if items else []
