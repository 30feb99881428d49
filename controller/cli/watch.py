"""``watch``: a running controller as it goes on, as a live view, as lines or as JSON."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from controller.cli import children, completion, health
from controller.cli.operate import connect, connection_options
from controller.cli.text import fitted, lost_text, missed_text
from controller.core import rescue

if TYPE_CHECKING:
    from controller.links.follower import Follower

_POLL_S = 0.25
_ANSWER_S = 3.0
"""A controller on a far link has answered by then; one that is stopped is told as not reachable."""


@click.command("watch")
@connection_options
@click.option("--cell", default="", shell_complete=completion.cells, help="Only this cell.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many decisions.")
@click.option("--lines", is_flag=True, help="A line for each decision, as where stdout is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: a decision's whole record.")
def watch(operator: str, keys: str | None, cell: str, count: int | None, lines: bool, as_json: bool) -> None:
    """Show decisions as they are made: what is played, why, and what came of the slot before.

    On a terminal it is a live view, until Ctrl-C: the table of `up` with the controller's health, links,
    clocks and UEs. A controller that restarts is met again; how many decisions were not seen is told (on
    stderr with --json).
    """
    redraws = sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    if as_json or lines or not redraws:
        _lines(operator, keys, cell, count, as_json)
    else:
        _live(operator, keys, cell, count)


def _lines(operator: str, keys: str | None, cell: str, count: int | None, as_json: bool) -> None:
    from controller.links.follower import Decided, Follower, Lost

    seen = 0

    def tell(text: str) -> None:
        for line in fitted([text]):
            click.echo(line, err=as_json)

    for told in Follower(lambda: connect(operator, keys), cell):
        if isinstance(told, Decided):
            if text := missed_text(told.record["cell"], told.missed):
                tell(text)
            for line in (json.dumps(told.record),) if as_json else fitted([decision_line(told.record)]):
                click.echo(line)
            seen += 1
            if count and seen >= count:
                return
        elif isinstance(told, Lost):
            tell(lost_text(told.since, told.why))
        else:
            tell(f"controller {told.version} is reachable again")
        sys.stdout.flush()


def _live(operator: str, keys: str | None, cell: str, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from controller.cli.view import Watched
    from controller.links.follower import Connection, Decided, Follower, Lost

    children.interrupt_on_signals()  # a terminal is given back as it was
    connection = Connection(lambda: connect(operator, keys, _ANSWER_S))
    view = Watched(operator)
    view.state = _of_cell(connection.client().state(), cell, operator)
    told: queue.SimpleQueue[object] = queue.SimpleQueue()
    follower = Follower(lambda: connect(operator, keys, _ANSWER_S), cell, latest=True)
    threading.Thread(target=_follow, args=(follower, told), daemon=True).start()
    console = Console()
    seen = 0
    try:
        with Live(view, console=console, screen=True, auto_refresh=False) as live:
            while not count or seen < count:
                live.refresh()
                time.sleep(_POLL_S)
                try:
                    view.state = _of_cell(connection.client().state(), cell, operator)
                    view.lost = None
                except (OSError, click.UsageError) as error:
                    connection.close()
                    view.lost = Lost(view.lost.since if view.lost else time.time(), str(error))
                for one in _all_of(told):
                    if isinstance(one, Exception):
                        raise one
                    if isinstance(one, Decided):
                        view.add(one)
                        seen += 1
    finally:
        follower.close()
        connection.close()
        console.print(view)  # the other screen has taken its last with it


def _follow(follower: Follower, told: queue.SimpleQueue[object]) -> None:
    try:
        for one in follower:
            told.put(one)
    except Exception as error:
        told.put(error)


def _all_of(told: queue.SimpleQueue[object]) -> Iterator[object]:
    with suppress(queue.Empty):
        while True:
            yield told.get_nowait()


def _of_cell(state: dict[str, Any], cell: str, operator: str) -> dict[str, Any]:
    """The state with one cell alone (empty: with all)."""
    from controller.links.operator import OperatorError

    cells = [c for c in state["cells"] if cell in ("", c["cell_id"])]
    if not cells:
        known = ", ".join(c["cell_id"] for c in state["cells"])
        raise OperatorError(f"{operator}: unknown cell {cell!r}; cells: {known}")
    return {**state, "cells": cells}


def decision_line(record: Mapping[str, Any]) -> str:
    """One decision as one line."""
    parts = [f"{record['cell']} #{record['control_slot']} {record['mode']}"]
    if "ended" in record:
        parts.append(f"early: {record['ended']}")
    for name, s in record["slices"].items():
        closed = s["closed"]
        met = closed["met"]
        measures = dict(closed["measures"])
        levers = {c["lever"] for c in s["choices"] if not c.get("user")}
        rest = [
            f"{m.replace('_', ' ')} {health.measured(of)}" for m, of in measures.items() if m not in levers
        ]
        parts.append(", ".join([f"{name}: last QoS {'-' if met is None else met}", *rest]))
        if "manual" in s:
            parts.append(f"set by hand: {health.manual_text(s['manual'])}")
        for c in s["choices"]:
            if not c.get("user"):
                delay = f", {health.measured(measures[c['lever']])}" if c["lever"] in measures else ""
                played = health.played(c, s)
                parts.append(f"{c['lever']} {played:g} {c['unit']}{delay} ({c['why']}{_state(c)})")
        if s["settings"]:
            parts.append(f"settings of {len(s['settings'])} users")
        if "rescue" in s:
            parts.append(f"more than it asks for: {rescue.text(s['rescue'])}")
        for what, why in s.get("failed", {}).items():
            parts.append(f"{what} failed: {why}")
    return "  ".join(parts)


def _state(choice: Mapping[str, Any]) -> str:
    """From what a choice was made: its state, or the demand where there are no states."""
    state, demand = choice["state"], choice["demand"]
    if state is not None:
        return f", state {state}"
    return f", demand {demand:.1f} PRB" if choice["actions"] and demand is not None else ""
