"""Reads channel traces: ``../shared/data/channel-traces``, the UCC 5G data set as published, and others.

A trace is a table of text (:mod:`wire.tables`) with a time, the network's mode and a CQI or an SNR in each
row, under the names that loggers give them (:data:`TIME`, :data:`MODE`, :data:`CQI`, :data:`SNR`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.tables import MISSING, Table, folder, number, read

TIME = (
    *("t_s", "t_ms", "time_s", "time_ms", "timestamp", "timestamp_s", "timestamp_ms", "datetime", "time"),
    *(
        "t_us",
        "time_us",
        "timestamp_us",
        "t_ns",
        "time_ns",
        "timestamp_ns",
        "epoch",
        "epoch_s",
        "epoch_ms",
        "unix_time",
        "elapsed_s",
        "elapsed_ms",
        "seconds",
        "milliseconds",
        "t",
    ),
)
MODE = (
    *("network_mode", "network_type", "network_tech", "rat", "radio_access_technology", "technology"),
    *("mode", "tech"),
)
CQI = ("nr_cqi", "cqi", "dl_cqi", "cqi_dl", "wideband_cqi", "csi_cqi")
SNR = ("snr_db", "snr", "sinr_db", "sinr", "ss_sinr", "ss_sinr_db", "nr_sinr", "nr_snr")
"""Columns by what they hold, the first that is there is taken; letters and digits alone count."""

MAX_GAP_S = 60.0
"""Of a longer time between two rows nothing is known: it is cut out."""
MAX_BACK_S = 5.0
"""Rows that are out of order by at most this are put in order; more is another recording."""
MIN_SPAN_S = 1.0
"""Rows that lie closer together, all of them, are no channel: their times are rounded or in another unit."""
SNR_DB = (-40.0, 60.0)
"""What an SNR may be: a little beyond what a UE reports (TS 38.133 Table 10.1.16.1)."""
_MAX_STEP_S = 5.0
"""A column that does not name its unit has seconds where its rows are at most this apart."""

_DENIED = frozenset(
    ("NO", "NOT", "NON", "NONE", "OFF", "LOST", "PRE", "RESTRICTED", "AVAILABLE", "UNAVAILABLE", "EVOLUTION")
)
"""Beside a name of 5G: there is none in use. Android's NR state is NONE, RESTRICTED, NOT_RESTRICTED or
CONNECTED."""
_OF_5G = re.compile(r"5G(?!E$)\w*|NR\w*|NSA|SA|LTEA?(NR|5G)\w*")
_NOT_5G = re.compile(
    r"LTE\w*|5GE|4G\w*|3G\w*|2G\w*|HS\w*|UMTS|W?CDMA\w*|TDSCDMA|EVDO\w*|EHRPD|1XRTT|EDGE|GPRS|GSM|E?UTRA\w*"
    r"|I?WLAN|WI|NB|NBIOT|CATM\d?|WIFI|NO|NOT|NON|NONE|OFFLINE|SEARCHING|DISCONNECTED|OOS|IDEN"
)


@dataclass(slots=True)
class Account:
    """What became of the rows of a file: how many there are, why some are left out, and what else to know."""

    path: Path
    rows: int
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Rows that are used."""
        return self.rows - self.left_out.total()

    def copy(self) -> Account:
        """Another of the same content."""
        return Account(self.path, self.rows, Counter(self.left_out), list(self.notes))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rows": self.rows,
            "used": self.used,
            "left_out": dict(self.left_out.most_common()),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return f"{self.path.name}: {rows_text(self.to_dict())}"


def rows_text(account: Mapping[str, Any]) -> str:
    """:meth:`Account.to_dict` in words: ``400 rows, 360 used; left out: 40 not 5G (LTE)``."""
    used = "all" if account["used"] == account["rows"] else str(account["used"])
    out = ", ".join(f"{n} {why}" for why, n in account["left_out"].items())
    parts = [f"{account['rows']} rows, {used} used", f"left out: {out}" if out else "", *account["notes"]]
    return "; ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Trace:
    """The rows of a trace that have a time and a mode, in the order of time.

    ``times`` float64 [rows], in s, rising or equal; ``modes`` None for what is 5G, else what the row is not
    used for, in words; ``cqi`` float64 [rows], NaN where it is missing.
    """

    times: NDArray[np.float64]
    modes: tuple[str | None, ...]
    cqi: NDArray[np.float64]
    account: Account


def files(path: Path) -> list[Path]:
    """The traces of a folder by name, or the one that ``path`` is. ValueError for a folder without any."""
    found = folder(path)
    if not found:
        raise ValueError(f"{path}: no channel trace (*.csv, *.tsv, also .gz, .bz2, .xz, .zip) in this folder")
    return found


def is_5g(mode: str) -> bool | None:
    """Whether a network's mode is 5G, stand-alone or not, by what loggers call it; None for an unknown name.

    LTE with NR beside it (EN-DC) is 5G, where that is not only available. AT&T's ``5GE``, 5G Evolution, is
    LTE.
    """
    whole = re.sub(r"[^A-Z0-9]", "", mode.upper())
    if re.fullmatch(r"(NG)?ENDC|NEDC|NRDC", whole):
        return True
    words = re.findall(r"[A-Z0-9]+", re.sub(r"NON[^A-Z0-9]*(SA|STAND[^A-Z0-9]*ALONE)", "NSA", mode.upper()))
    if whole == "5GE":
        return False
    if _DENIED.intersection(words):
        return False if any(p.fullmatch(w) for p in (_OF_5G, _NOT_5G) for w in words) else None
    if any(_OF_5G.fullmatch(w) for w in words):
        return True
    return False if any(_NOT_5G.fullmatch(w) for w in (*words, whole)) else None


def read_trace(path: Path) -> Trace:
    """The trace in a file.

    OSError where it cannot be read. ValueError, naming the file and where it can the row, for columns that
    are not there (with those that are), for what is neither a value nor stands for a missing one, for a CQI
    outside 0..15, for times that go back or cannot be told, and where no row is 5G or none of these has a
    CQI.
    """
    stat = path.stat()
    return _read_trace(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read_trace(path: Path, mtime_ns: int, size: int) -> Trace:
    """A file is read once for all UEs that it drives; time and size tell that it has been written anew."""
    table = read(path)
    time, mode, cqi = _columns(table, time=TIME, mode=MODE, cqi=CQI)
    account = _account(table)
    kept, times = _times(table, time, account)
    values = np.array([_cqi(table, at, cqi) for at in kept])
    modes = [_mode(table, at, mode) for at in kept]
    _some_5g(table, mode, modes)
    if not any(m is None and v == v for m, v in zip(modes, values, strict=True)):
        raise ValueError(f"{path}: no row of 5G has a CQI ({table.columns[cqi]})")
    held = sum(m is None and v != v for m, v in zip(modes, values, strict=True))
    if held:
        account.notes.append(f"{held} rows without a CQI hold the one before")
    return Trace(np.asarray(times), tuple(modes), values, account)


def read_snr_db(path: Path) -> tuple[NDArray[np.float64], Account]:
    """The SNR in dB of the rows that are 5G and have one, float64 [rows] in the file's order.

    No time is needed. Errors as of :func:`read_trace`.
    """
    table = read(path)
    mode, column = _columns(table, mode=MODE, snr=SNR)
    account = _account(table)
    modes = [_mode(table, at, mode) for at in range(len(table.rows))]
    _some_5g(table, mode, modes)
    snr: list[float] = []
    for at, why in enumerate(modes):
        value = _snr_db(table, at, column) if why is None else None
        if value is not None:
            snr.append(value)
        else:
            account.left_out[why or "without an SNR"] += 1
    if not snr:
        raise ValueError(f"{path}: no row of 5G has an SNR ({table.columns[column]})")
    return np.array(snr), account


def _columns(table: Table, **wanted: Sequence[str]) -> list[int]:
    found = {what: table.find(names) for what, names in wanted.items()}
    if lacking := [what for what, at in found.items() if at is None]:
        there = ", ".join(table.columns[:40]) or "none"
        names = "; ".join(f"{what}: one of {', '.join(wanted[what])}" for what in lacking)
        raise ValueError(
            f"{table.path}: column {wanted[lacking[0]][0]!r} is not there; columns found: {there};"
            f" wanted: {names}"
        )
    return [at for at in found.values() if at is not None]


def _account(table: Table) -> Account:
    account = Account(table.path, len(table.rows) + table.headers + bool(table.cut))
    if table.headers:
        account.left_out["the header once more"] = table.headers
    if table.cut:
        account.left_out["cut off at the end of the file"] = 1
    if not table.rows:
        raise ValueError(f"{table.path}: no rows")
    return account


def _mode(table: Table, at: int, column: int) -> str | None:
    text = table.rows[at][column]
    if text is None:
        raise ValueError(f"{table.where(at)}: {table.columns[column]} is not there")
    if text.lower() in MISSING:
        return "without a network mode"
    known = is_5g(text)
    if known:
        return None
    return f"not 5G ({text})" if known is False else f"of an unknown network mode ({text})"


def _some_5g(table: Table, column: int, modes: Sequence[str | None]) -> None:
    if None in modes:
        return
    why = ", ".join(f"{n} {of}" for of, n in Counter(modes).most_common(8))
    raise ValueError(f"{table.path}: no row is 5G ({table.columns[column]}: {why})")


def _cqi(table: Table, at: int, column: int) -> float:
    cqi = table.number(at, column)
    if cqi is not None and (cqi != int(cqi) or not 0 <= cqi <= 15):
        raise ValueError(f"{table.where(at)}: {table.columns[column]} {cqi:g} is not a whole number in 0..15")
    return np.nan if cqi is None else cqi


def _snr_db(table: Table, at: int, column: int) -> float | None:
    snr_db = table.number(at, column)
    if snr_db is not None and not SNR_DB[0] <= snr_db <= SNR_DB[1]:
        name, (least, most) = table.columns[column], SNR_DB
        raise ValueError(
            f"{table.where(at)}: {name} {snr_db:g} is outside {least:g}..{most:g} dB: write dB, and nothing"
            " where there is no value"
        )
    return snr_db


# -- time --------------------------------------------------------------------------------------------

_CLOCK = r"(?P<h>\d{1,2})[:.\-](?P<m>\d{2})(?:[:.\-](?P<s>\d{2}(?:[.,:]\d+)?))?\s*(?P<half>[AaPp][Mm])?"
_ZONE = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)?"
_STAMPS = (
    re.compile(rf"(?P<y>\d{{4}})[-./_](?P<a>\d{{1,2}})[-./_](?P<b>\d{{1,2}})[ T_,-]+{_CLOCK}{_ZONE}"),
    re.compile(rf"(?P<a>\d{{1,2}})[-./](?P<b>\d{{1,2}})[-./](?P<y>\d{{4}})[ T_,-]+{_CLOCK}{_ZONE}"),
    re.compile(
        r"(?P<y>(19|20)\d{2})(?P<a>[01]\d)(?P<b>[0-3]\d)[T_]?(?P<h>[0-2]\d)(?P<m>[0-5]\d)"
        rf"(?P<s>[0-6]\d(\.\d+)?)(?P<half>)?{_ZONE}"
    ),
    re.compile(_CLOCK),
)
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_SINCE_1970 = {"ns": 1e17, "us": 1e14, "ms": 1e11, "s": 1e8}
"""The least number that is a time since 1970 in a unit."""
_DAY_S = 86400.0
_SPREADSHEET_DAYS = (36526.0, 73050.0)
"""Years 2000 to 2099, in days since the end of 1899."""


def _times(table: Table, column: int, account: Account) -> tuple[list[int], list[float]]:
    """The rows that have a time, in its order, and their times in s."""
    name = table.columns[column]
    date = table.find(("date",))
    texts = [_time_text(table, at, column, date) for at in range(len(table.rows))]
    kept = [at for at, text in enumerate(texts) if text]
    if lacking := len(texts) - len(kept):
        account.left_out["without a time"] = lacking
    if not kept:
        raise ValueError(f"{table.path}: no row has a time ({name})")
    alone = _STAMPS[-1].fullmatch(texts[kept[0]])
    if alone and not alone["s"] and not alone["half"]:
        raise ValueError(
            f"{table.where(kept[0])}: {name} {texts[kept[0]]!r} may be hours and minutes or minutes and"
            " seconds: write all three, or seconds"
        )
    if any(at.fullmatch(texts[kept[0]]) for at in _STAMPS):
        times = _stamps(table, column, kept, texts)
    else:
        numbers = [_time_number(table, at, column) for at in kept]
        times = _seconds(table, column, numbers)
    steps = np.diff(times)
    if len(steps) and (steps <= 0).all() and (steps < 0).any():
        account.notes.append("the newest row is the first: turned round")
        kept, times = kept[::-1], times[::-1]
    latest = times[0]
    for at, t in zip(kept, times, strict=True):
        if latest - t > MAX_BACK_S:
            raise ValueError(
                f"{table.where(at)}: {name} {texts[at]} is {latest - t:g} s before an earlier row: is it"
                " another recording? A file has one; a folder may have several"
            )
        latest = max(latest, t)
    order = sorted(range(len(times)), key=times.__getitem__)
    if moved := sum(a != b for a, b in enumerate(order)):
        account.notes.append(f"{moved} rows out of order were put in order")
    span = times[order[-1]] - times[order[0]]
    if len(times) > 1 and span < MIN_SPAN_S:
        raise ValueError(
            f"{table.path}: {name} {texts[kept[0]]!r} to {texts[kept[-1]]!r}: all {len(times)} rows lie"
            f" within {span:g} s. Times that a spreadsheet rounded are lost; else name the column by its"
            " unit, t_s or t_ms"
        )
    return [kept[k] for k in order], [times[k] for k in order]


def _time_text(table: Table, at: int, column: int, date: int | None) -> str:
    text = table.rows[at][column]
    if text is None:
        raise ValueError(f"{table.where(at)}: {table.columns[column]} is not there")
    if text.lower() in MISSING:
        return ""
    return f"{table.rows[at][date]} {text}" if date is not None and _STAMPS[-1].fullmatch(text) else text


def _time_number(table: Table, at: int, column: int) -> float:
    text = table.rows[at][column] or ""
    try:
        return number(text, table.separator)
    except ValueError as error:
        raise ValueError(
            f"{table.where(at)}: {table.columns[column]} {error}, nor a time such as"
            " 2019-12-16 13:40:04+01:00"
        ) from None


def _seconds(table: Table, column: int, numbers: list[float]) -> list[float]:
    """Numbers in their unit: by their size since 1970, else by the column's name, else s where that fits."""
    name, first = table.columns[column], abs(numbers[0])
    said = re.search(r"(?:^|[^a-z])(ns|us|ms|s|sec|seconds?|msec|milliseconds?)\W*$", name.lower())
    since_1970 = [u for u, least in _SINCE_1970.items() if first >= least]
    of = since_1970[0] if since_1970 else ""
    if said and not of:
        of = said[1] if said[1] in _UNITS else "ms" if said[1].startswith("m") else "s"
    steps = np.abs(np.diff(numbers))
    step = float(median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if not of and _SPREADSHEET_DAYS[0] < first < _SPREADSHEET_DAYS[1] and 0 < step < MAX_GAP_S / _DAY_S:
        raise ValueError(
            f"{table.path}: {name} {numbers[0]:.10g} looks like the days of a spreadsheet: write"
            " 2019-12-16 13:40:04, or seconds in a column t_s"
        )
    longest = MAX_GAP_S if of else _MAX_STEP_S
    if step * _UNITS[of or "s"] > longest:
        raise ValueError(
            f"{table.path}: {name} rises by {step:g} from row to row, more than {longest:g} s if it is in"
            f" {of or 's'}: name the column by its unit, t_s or t_ms"
        )
    return [n * _UNITS[of or "s"] for n in numbers]


def _stamps(table: Table, column: int, kept: list[int], texts: list[str]) -> list[float]:
    form = next(form for form in _STAMPS if form.fullmatch(texts[kept[0]]))
    matches = []
    for at in kept:
        match = form.fullmatch(texts[at])
        if match is None:
            raise ValueError(
                f"{table.where(at)}: {table.columns[column]} {texts[at]!r} is not a time"
                f" like {texts[kept[0]]!r}"
            )
        matches.append(match)
    if matches[0]["s"] is None and len({m[0] for m in matches}) < len(matches):
        raise ValueError(
            f"{table.path}: {table.columns[column]} has whole minutes, such as {texts[kept[0]]!r}, and"
            " several rows in one: their seconds cannot be told"
        )
    if form is _STAMPS[-1]:
        return _over_midnight([_clock_s(m) for m in matches])
    readings = [("a", "b")]
    if form is _STAMPS[1]:
        readings = [("b", "a")] if re.match(r"\d+\.", matches[0][0]) else [("b", "a"), ("a", "b")]
    found: list[list[float]] = []
    wrong = ValueError()
    for reading in readings:
        try:
            found.append([_since_1970(table, at, m, reading) for at, m in zip(kept, matches, strict=True)])
        except ValueError as error:
            wrong = error
    if not found:
        raise wrong
    if len(found) == 2 and [t - found[0][0] for t in found[0]] != [t - found[1][0] for t in found[1]]:
        raise ValueError(
            f"{table.path}: {table.columns[column]} {texts[kept[0]]!r}: which is the day, which the month?"
            " Write 2019-12-16 13:40:04"
        )
    return found[0]


def _clock_s(match: re.Match[str]) -> float:
    hours = int(match["h"]) % 12 if match["half"] else int(match["h"])
    hours += 12 if (match["half"] or "").lower() == "pm" else 0
    minutes, seconds = int(match["m"]), float(re.sub("[,:]", ".", match["s"] or "0"))
    if hours > 23 or minutes > 59 or seconds >= 61:
        raise ValueError(f"{match[0]!r}: no such hour, minute or second")
    return hours * 3600.0 + minutes * 60 + seconds


def _over_midnight(times: list[float]) -> list[float]:
    out, days = times[:1], 0.0
    for before, t in pairwise(times):
        days += _DAY_S if before - t > _DAY_S / 2 else 0.0
        out.append(t + days)
    return out


def _since_1970(table: Table, at: int, match: re.Match[str], month_day: tuple[str, str]) -> float:
    month, day = (int(match[group]) for group in month_day)
    zone: tzinfo = UTC
    if (match["zone"] or "")[:1] in ("+", "-"):
        sign, digits = match["zone"][0], match["zone"][1:].replace(":", "")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
        zone = timezone(offset if sign == "+" else -offset)
    try:
        return datetime(int(match["y"]), month, day, tzinfo=zone).timestamp() + _clock_s(match)
    except ValueError as error:
        raise ValueError(f"{table.where(at)}: {match[0]!r} is not a time: {error}") from None
