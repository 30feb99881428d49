"""The log of every process: a line an event, as text or JSON; those that repeat are thinned."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from wire.version import full_version

TEXT, JSON = FORMATS = ("text", "json")
FORMAT_VARIABLE = "PRBANDIT_LOG_FORMAT"
"""The environment variable of ``--log-format``: of a daemon and of what it starts."""

BURST = 3
"""So many lines of a kind are written one after the other."""
EVERY_S = 10.0
"""Then one in so many seconds."""
KINDS = 1000
"""Kinds of lines that are told apart; of more the oldest are forgotten."""

_VARIES = re.compile(
    r"0x[0-9a-f]+|(?<=:)\d{5}\b|(?<![\w.:/-])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w:/-]|\.\d)", re.IGNORECASE
)
"""Numbers that stand alone, not those of names and addresses; and the ports that clients are given."""


@dataclass(slots=True)
class _Kind:
    """Lines that differ in their numbers alone: the last one, when one was written, how many may be, how many
    were not."""

    record: logging.LogRecord
    since: float
    left: int = BURST
    omitted: int = 0


class Thinned(logging.StreamHandler):
    """Writes to a stream, standard error by default. Lines of one logger and level that differ in numbers
    alone are of one kind.

    Of a kind the first :data:`BURST` are written, then one every :data:`EVERY_S` with the number of those
    that were left out since; where no more come, that is told alone, with the next line of any kind or at the
    end. Debugging lines are all written.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._settle_at = -float("inf")
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now >= self._settle_at:
            self._settle_at = now + 1.0
            self._settle(now)
        if record.levelno > logging.DEBUG and not self._due(record, now):
            return
        super().emit(record)

    def _due(self, record: logging.LogRecord, now: float) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # emit says what is wrong with it
            return True
        key = record.name, record.levelno, _VARIES.sub("#", text)
        kind = self._kinds.pop(key, None) or _Kind(record, now)
        self._kinds[key] = kind  # the newest is last
        if len(self._kinds) > KINDS:
            self._tell(self._kinds.pop(next(iter(self._kinds))))
        if kind.left:
            kind.left, kind.since = kind.left - 1, now
            return True
        kind.record = record
        kind.omitted += 1
        return False

    def _settle(self, now: float) -> None:
        """Tells of what was left out in a time that is over, and lets a line of the kind pass again."""
        for kind in self._kinds.values():
            if not kind.left and now - kind.since >= EVERY_S:
                # Where it went on repeating, the summary is the line that was due.
                kind.left = 0 if kind.omitted else BURST
                kind.since = now
                self._tell(kind)

    def _tell(self, kind: _Kind) -> None:
        """Writes the last line of a kind with the number of those like it that were not written."""
        if kind.omitted:
            more = f" ({kind.omitted - 1} more of this kind left out)" if kind.omitted > 1 else ""
            last = logging.makeLogRecord(kind.record.__dict__)
            last.msg, last.args = f"{kind.record.getMessage()}{more}", None
            last.omitted = kind.omitted - 1
            kind.omitted = 0
            super().emit(last)

    def close(self) -> None:
        self.acquire()
        try:
            for kind in self._kinds.values():
                self._tell(kind)
            self._kinds.clear()
        finally:
            self.release()
        super().close()


_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the others are fields that the line was given (``extra``)."""


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC, ms), ``level``, ``logger``, ``message``, the fields
    that the line was given, such as ``cell`` and ``event``, and ``exception``, a traceback, where there is
    one. ``omitted``: so many lines like this were left out."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        for name, value in vars(record).items():
            if name not in _USUAL and name not in line:
                line[name] = _plain(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str)


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 in UTC with milliseconds: ``2026-11-30T12:43:07.250Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # the line counts, whatever is wrong with its arguments
        return f"{record.msg!r} with {record.args!r}: {error!r}"


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


log_format_option = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default=TEXT,
    show_default=True,
    envvar=FORMAT_VARIABLE,
    show_envvar=True,
    help="Of the log: lines of text, or a JSON object a line.",
)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a daemon's log, ``verbose`` and ``log_format``, for :func:`log_to_stderr`."""
    verbose = click.option("-v", "--verbose", is_flag=True, help="Debugging lines too.")
    return verbose(log_format_option(command))


def log_to_stderr(verbose: bool, log_format: str = TEXT) -> None:
    """One line an event, with time and level; repeats are thinned. In JSON that holds for what ends the
    process or a thread too."""
    handler = Thinned()
    if log_format == JSON:
        handler.setFormatter(JsonLines())
        logging.captureWarnings(True)
        sys.excepthook = lambda kind, error, trace: _uncaught(error)
        threading.excepthook = lambda of: _uncaught(of.exc_value)
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)


def _uncaught(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger("prbandit").critical("%s: %s", type(error).__name__, error, exc_info=error)


def complain(text: str, before: str = "prbandit") -> None:
    """Why a command ends, on standard error: as a line of the log where that is JSON, else with ``before`` in
    front of it."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        logging.getLogger("prbandit").error("%s", text)
    else:
        click.echo(f"{before}: {text}", err=True)


@contextmanager
def life(
    logger: logging.Logger, name: str, facts: Mapping[str, object], duration_s: float | None = None
) -> Iterator[dict[str, object]]:
    """Log that a daemon begins, with its version and ``facts``, and why and after how long it ends.

    What is put into the mapping that the block gets is told at the end. ``duration_s`` is its ``--duration``;
    a signal has been told by :mod:`agents.stopping`.
    """
    fields = {"version": full_version(), **facts}
    logger.info("%s %s begins: %s", name, fields["version"], _listed(facts), extra=fields)
    began = time.monotonic()
    totals: dict[str, object] = {}
    why = "stopped"
    try:
        yield totals
        if duration_s is not None and time.monotonic() - began >= duration_s:
            why = f"--duration {duration_s:g} s is over"
    except BaseException as error:
        why = str(error) or type(error).__name__
        raise
    finally:
        lasted = timedelta(seconds=round(time.monotonic() - began))
        told = {"uptime": str(lasted), **totals}
        logger.info("%s ends: %s; %s", name, why, _listed(told), extra={"why": why, **told})


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
