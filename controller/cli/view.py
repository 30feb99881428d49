"""The live terminal view of a controller: one table of what its slices play, and how all is with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.box import HEAVY_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from controller.cli import health
from controller.cli.health import measured
from controller.cli.text import lost_text, missed_text, wrapped
from controller.core.names import printable
from controller.links.follower import Decided, Lost
from controller.links.health import complaints

_SPARKS = "▁▂▃▄▅▆▇█"


class View:
    """The live terminal view: a line a cell, and one table of all their slices."""

    def __init__(self, keep: int = 60) -> None:
        self._history: dict[tuple[str, str, str], deque[float]] = {}
        self._keep = keep
        self._qos: dict[str, deque[int]] = {}
        self._records: dict[str, Mapping[str, Any]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the record of a control slot."""
        cell = record["cell"]
        self._records[cell] = record
        qos = self._qos.setdefault(cell, deque(maxlen=self._keep))
        for name, s in record["slices"].items():
            for choice in s["choices"]:
                history = self._history.setdefault((cell, name, choice["lever"]), deque(maxlen=self._keep))
                history.append(_of_maximum(choice, s, record))
            met = s["closed"]["met"]
            if met is not None and s["closed"]["busy"]:
                qos.append(met)

    def render(self, state: Mapping[str, Any] | None, left_s: float | None, width: int) -> Group:
        """The view as of now, for so many columns."""
        if state is None or not self._records:
            return Group(Text("waiting for the first decision ..."))
        cells = state["cells"]
        heads = [self._head(c, state["control_slot_s"], left_s if c is cells[0] else None) for c in cells]
        rows = [list(self._rows(c["cell_id"])) for c in cells]
        if width < _NARROW:  # no room for a column that says whose a row is
            cut = zip(heads, rows, strict=True)
            return Group(*(part for head, of in cut for part in (head, *_by_slice(of, width))))
        named = [
            {"cell": _text(c["cell_id"]), **row} for c, of in zip(cells, rows, strict=True) for row in of
        ]
        return Group(*heads, _table(named, width, several=len(cells) > 1))

    def _head(self, cell: Mapping[str, Any], control_slot_s: float, left_s: float | None) -> Text:
        record = self._records.get(cell["cell_id"])
        if record is None:
            return _text(f"cell {cell['cell_id']}  waiting for the first decision ...")
        qos = self._qos[cell["cell_id"]]
        ratio = f"{sum(qos) / len(qos):.0%}" if qos else "-"
        return _text(
            f"cell {cell['cell_id']}  control slot {record['control_slot']} ({control_slot_s:g} s each)  "
            f"mode {record['mode']}  active flows {cell['active_flows']}  "
            f"QoS delivery ratio of the last {len(qos)} busy slots {ratio}"
            + (f"  {left_s:.0f} s left" if left_s is not None else "")
        )

    def _rows(self, cell: str) -> Iterator[dict[str, Text]]:
        """Of the slices of one cell, its latest record; none before there is one."""
        record = self._records.get(cell)
        if record is None:
            return
        for name, s in record["slices"].items():
            measures = dict(s["closed"]["measures"])
            promise = next(iter(measures), "")
            for c in s["choices"]:
                if not c.get("user"):
                    yield self._row(name, c, measures.pop(c["lever"], None), record)
            for measure, stored in measures.items():
                met = s["closed"]["met"] if measure == promise else stored["met"]
                of = {"slice": name, "lever": measure.replace("_", " "), "measure": measured(stored)}
                yield {**{what: _text(text) for what, text in of.items()}, "QoS": _met(met)}

    def _row(
        self, name: str, c: Mapping[str, Any], measure: Mapping[str, Any] | None, record: Mapping[str, Any]
    ) -> dict[str, Text]:
        s = record["slices"][name]
        part, why = _of_maximum(c, s, record), c["why"]
        if s.get("manual", {}).get(c["lever"]) is not None:
            why = "set by hand"
        elif (least := s.get("rescue", {}).get(c["lever"])) is not None:
            why = f"at least {least[0]}: {least[1]}"
        history = self._history[record["cell"], name, c["lever"]]
        row = {
            "slice": name,
            "lever": c["lever"],
            "state": _state(c),
            "action": f"{health.played(c, s):g} {c['unit']}",
            "of maximum": _bar(part) + f" {part:4.0%}",
            "why": why,
            "measure": "-" if measure is None else measured(measure),
            "history": "".join(_SPARKS[min(7, int(v * 8))] for v in history),
        }
        met = _met(None if measure is None else measure["met"])
        return {**{what: _text(text) for what, text in row.items()}, "QoS": met}


_COLUMNS = ("cell", "slice", "lever", "state", "action", "of maximum", "why", "measure", "QoS", "history")
_NEEDED = ("lever", "action", "measure")
_WANTED = ("QoS", "why", "state", "of maximum")
"""Columns beside those that are needed, the most wanted first: a narrow terminal has no room for all."""
_LEAST_WHY = 12
_MEASURE = len("44.5 of 150 ms")
_LEAST_HISTORY, _GOOD_HISTORY, _MOST_HISTORY = 8, 16, 30
_NARROW = 70
"""A terminal with less columns has none for lines between them."""


def _text(text: str, style: str = "") -> Text:
    """Plain: nothing in it is a style or a command of the terminal."""
    return Text(printable(text), style=style)


def _table(rows: Sequence[Mapping[str, Text]], width: int, *, several: bool = False) -> Table:
    """Rows as a table of at most ``width`` columns; the history ends with the newest.

    What has no room is left out or goes on in the next line: no word is cut.
    """
    lines = width >= _NARROW
    between = 3 if lines else 1
    of = {c: max([len(c), *(row[c].cell_len for row in rows if c in row)]) for c in _COLUMNS}
    of["history"] = _LEAST_HISTORY
    of["measure"] = max(of["measure"], _MEASURE)  # else columns come and go with it
    shown = {*_NEEDED, "history", *(("cell",) if several else ())}
    left = width - 1 - sum(of[c] + between for c in shown)
    for c in ("slice", *_WANTED):
        spare = left - between
        if c not in ("slice", "QoS"):
            spare -= _GOOD_HISTORY - _LEAST_HISTORY
        if c == "why":
            of[c] = min(of[c], max(_LEAST_WHY, _longest_word(rows, c), spare))
        if of[c] <= spare:
            shown.add(c)
            left -= of[c] + between
    of["history"] = max(1, min(_MOST_HISTORY, _LEAST_HISTORY + left))
    left = min(0, left + _LEAST_HISTORY - 1)
    for c in ("lever", "measure"):
        narrower = max(_longest_word(rows, c), of[c] + left)
        if left < 0 and narrower < of[c]:
            left += of[c] - narrower
            of[c] = narrower
    box, padding = (HEAVY_HEAD, (0, 1, 0, 1)) if lines else (None, (0, 1, 0, 0))
    table = Table(expand=False, box=box, padding=padding)
    for c in _COLUMNS:
        if c in shown:
            right = c in ("state", "action", "measure")
            justify: Literal["left", "right"] = "right" if right else "left"
            name = c if len(c) <= of[c] else ""
            table.add_column(name, justify=justify, width=of[c], overflow="fold")
    for row in rows:
        newest = {**row, "history": row.get("history", Text())[-of["history"] :]}
        table.add_row(*(newest.get(c, "") for c in _COLUMNS if c in shown))
    return table


def _by_slice(rows: Sequence[Mapping[str, Text]], width: int) -> Iterator[Text | Table]:
    """The rows of a cell as a table; of several slices one each, below its name."""
    names = dict.fromkeys(row["slice"].plain for row in rows)
    for name in names:
        of = [row for row in rows if row["slice"].plain == name]
        if len(names) > 1:
            yield from (_text(line, "bold") for line in wrapped(f"slice {name}", width))
        yield _table(of, width)


def _longest_word(rows: Sequence[Mapping[str, Text]], column: str) -> int:
    return max((len(word) for row in rows if column in row for word in row[column].plain.split()), default=1)


def _state(c: Mapping[str, Any]) -> str:
    """The state of a choice in PRB (the edge's is the uplink's), the demand where there are no states."""
    state = c["demand"] if c["state"] is None and c["actions"] else c["state"]
    if state is None:
        return "-"
    return f"{health.three(state)} {'PRB' if c['lever'] == 'edge' else c['unit']}"


def _met(met: int | None) -> Text:
    return Text(
        "-" if met is None else "met" if met else "missed",
        style="" if met is None else "green" if met else "red",
    )


def _of_maximum(choice: Mapping[str, Any], of: Mapping[str, Any], record: Mapping[str, Any]) -> float:
    """A choice's action as a part of all that there is; of a setting, of the largest that there was to
    choose."""
    limits = {"ul": record["prb"], "dl": record["prb"], "edge": record["max_mhz"]}
    limit = limits.get(choice["lever"]) or max(choice["actions"], default=choice["action"])
    return min(1.0, health.played(choice, of) / limit) if limit else 0.0


def _bar(part: float, width: int = 16) -> str:
    full = round(part * width)
    return "█" * full + "·" * (width - full)


# ---- a controller that is watched ------------------------------------------------------------------------


class Watched:
    """All that ``watch`` shows of a controller, as wide as the terminal is when it is printed.

    ``state`` is what it told last (``OperatorClient.state``). While it is ``lost``, that stands dim below the
    word that it is.
    """

    def __init__(self, operator: str) -> None:
        self._operator = operator
        self._view = View()
        self._missed: dict[str, str] = {}
        self.state: Mapping[str, Any] = {"cells": ()}
        self.lost: Lost | None = None

    def add(self, decided: Decided) -> None:
        """Take in a decision."""
        record = decided.record
        if missed := missed_text(record["cell"], decided.missed):
            self._missed[record["cell"]] = f"{missed} before control slot {record['control_slot']}"
        self._view.add(record)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, state = options.max_width, self.state
        style = "dim" if self.lost else ""
        yield from self._verdict(width)
        yield Styled(self._view.render(state, None, width), style)
        for cell in state["cells"]:
            if len(state["cells"]) > 1:
                yield _text(f"cell {cell['cell_id']}", style)
            for line in (line for text in health.link_lines(cell) for line in wrapped(text, width)):
                yield _text(line, style)
            if cell["ues"]:
                yield Styled(_ues(cell["ues"], cell["ues_total"], width), style)

    def _verdict(self, width: int) -> Iterator[Text]:
        wrong = complaints(self.state)
        about = f"controller {self.state['version']} at {self._operator}"
        lines = [(f"{about}: degraded", "yellow")] if wrong else [(f"{about}: healthy", "green")]
        lines += [(f"  ! {text}", "yellow") for text in wrong]
        if self.lost:
            lines = [(lost_text(self.lost.since, self.lost.why), "red")]
        lines += [(text, "yellow") for text in self._missed.values()]
        for text, style in lines:
            yield from (_text(line, style) for line in wrapped(printable(text), width))


_UE_COLUMNS: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]] = (
    ("UE", lambda ue: ue["ue_id"]),
    ("MCS UL/DL", lambda ue: f"{ue['ul']['mcs']}/{ue['dl']['mcs']}"),
    ("Mbit/s UL/DL", lambda ue: f"{_mbps(ue['ul'])}/{_mbps(ue['dl'])}"),
    ("PRB UL/DL", lambda ue: f"{_known(ue['ul']['prb'], '.0f')}/{_known(ue['dl']['prb'], '.0f')}"),
    ("queued UL/DL", lambda ue: f"{_bytes(ue['ul']['queued_bytes'])}/{_bytes(ue['dl']['queued_bytes'])}"),
    ("CQI", lambda ue: _known(ue["cqi"], "d")),
    ("SNR", lambda ue: _known(ue["snr_db"], ".1f")),
    ("BLER UL/DL", lambda ue: f"{_known(ue['ul']['bler'], '.0%')}/{_known(ue['dl']['bler'], '.0%')}"),
    ("slice", lambda ue: ue["slice"] or "-"),
)
"""Columns of the table of UEs, the most wanted first."""


def _mbps(direction: Mapping[str, Any]) -> str:
    bps = direction["bps"]
    return _known(None if bps is None else bps / 1e6, ".1f")


def _ues(ues: Sequence[Mapping[str, Any]], total: int, width: int) -> Table:
    """The first UEs of a report, as many columns as there is room for."""
    table = Table(box=None, padding=(0, 2, 0, 0), expand=False)
    shown, left = ues[: health.MAX_UES_NAMED], width
    columns = []
    for name, of in _UE_COLUMNS:
        texts = [_text(of(ue)) for ue in shown]
        needed = max([len(name), *(text.cell_len for text in texts)]) + 2
        if name == "UE" or needed <= left:
            left -= needed
            table.add_column(name, justify="left" if name in ("UE", "slice") else "right", overflow="fold")
            columns.append(texts)
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    if total > len(shown):
        more = total - len(shown)
        table.caption, table.caption_justify = f"{more} more UE{'s' if more > 1 else ''}", "left"
    return table


def _known(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _bytes(n: int) -> str:
    """Bytes in few characters: 950, 12k, 3.4M."""
    return f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k" if n >= 1e4 else str(n)
