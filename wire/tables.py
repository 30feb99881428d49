"""Reads tables of text as people have them: what a spreadsheet, a logger or a data set writes as CSV.

UTF-8 with or without a byte-order mark, UTF-16, UTF-32, and otherwise Latin-1; fields between commas,
semicolons, tabs, bars or spaces, quoted or not; any ends of lines; separators at the ends of lines; decimal
commas; plain, or compressed by gzip, bzip2, xz or zip, whatever the name.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

SUFFIXES = re.compile(r"(?i)(?!\.).*\.(csv|tsv)(\.(gz|bz2|xz|zip))?")
"""Names of the tables in a folder; a hidden file is none."""

MISSING = frozenset(
    (
        *(
            "",
            "-",
            "--",
            "\u2013",
            "\u2014",
            ".",
            "..",
            "?",
            "nan",
            "-nan",
            "na",
            "<na>",
            "n/a",
            "n.a.",
            "#n/a",
        ),
        *("#na", "#nv", "#value!", "#div/0!", "#ref!", "#num!", "#name?", "1.#qnan", "-1.#qnan", "1.#ind"),
        *("-1.#ind", "nan(ind)", "-nan(ind)", "null", "(null)", "\\n", "nil", "none", "unknown", "missing"),
        *("unavailable", "not available", "undefined", "2147483647"),
    )
)
"""What stands for no value, in lower case: of spreadsheets, data bases, C, Python and R. The number is
Android's of a measurement that it does not have."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEPARATORS = (",", ";", "\t", "|", " ")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def plain(name: str) -> str:
    """A column's name without what people write differently: ``Network Mode`` is ``networkmode``; a micro is
    a ``u``."""
    return re.sub(r"[^a-z0-9]", "", re.sub("[\u00b5\u03bc]", "u", name.lower()))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under named columns.

    ``rows`` are as long as ``columns``, None where a row ends before; ``lines`` are their places in the file,
    from 1. ``cut`` is the line of a last row that ends before its time, 0 for none, ``headers`` how many rows
    are the header once more: neither is among ``rows``.
    """

    path: Path
    separator: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    lines: tuple[int, ...]
    cut: int = 0
    headers: int = 0

    @property
    def left_out(self) -> str:
        """What of the file is not among ``rows``, in words that follow others; "" for nothing."""
        cut = "; the last row is cut off and left out" if self.cut else ""
        return cut + (f"; {self.headers} times the header once more" if self.headers else "")

    def find(self, names: Sequence[str]) -> int | None:
        """The column of the first of ``names`` that is there, however spelled; None for none of them.

        ValueError for a name that two columns have.
        """
        known = [plain(c) for c in self.columns]
        for name in map(plain, names):
            if known.count(name) > 1:
                both = ", ".join(repr(c) for c in self.columns if plain(c) == name)
                raise ValueError(f"{self.path}: which column is it? There are {both}")
            if name in known:
                return known.index(name)
        return None

    def where(self, at: int) -> str:
        """The place of row ``at``, for messages."""
        return f"{self.path}: row {self.lines[at]}"

    def number(self, at: int, column: int) -> float | None:
        """The number in a field; None for what stands for no value. ValueError, naming the place."""
        name, text = self.columns[column], self.rows[at][column]
        if text is None:
            raise ValueError(f"{self.where(at)}: {name} is not there")
        if text.lower() in MISSING:
            return None
        try:
            return number(text, self.separator)
        except ValueError as error:
            raise ValueError(f"{self.where(at)}: {name} {error}") from None


def number(text: str, separator: str = ",") -> float:
    """The number that a text is, in a table of this separator: with a decimal point, or a decimal comma.

    ValueError, with the text, for what is none or not finite, and for one such as ``"1,234"`` between commas,
    which may as well be a thousand.
    """
    clean = text.replace("\u2212", "-")
    if _DECIMAL_COMMA.fullmatch(clean) and (separator != "," or len(clean.partition(",")[2]) != 3):
        clean = clean.replace(",", ".")
    if clean.lower().lstrip("+-") in ("nan", "inf", "infinity") or (
        _NUMBER.fullmatch(clean) and math.isinf(float(clean))
    ):
        raise ValueError(f"{text!r} is not finite")
    if not _NUMBER.fullmatch(clean):
        raise ValueError(f"{text!r} is not a number")
    return float(clean)


def folder(path: Path) -> list[Path]:
    """The tables of a folder by name, or the one that ``path`` is; none for a folder without any. OSError."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if SUFFIXES.fullmatch(p.name) and p.is_file())


def read(path: Path) -> Table:
    """The table in a file.

    OSError where it cannot be read; ValueError, naming file and row, for what is no table of text: damaged,
    of several tables, or with more fields in a row than there are columns.
    """
    try:
        text = _text(_unpacked(path.read_bytes()))
        return _table(path, text)
    except (EOFError, UnicodeDecodeError, csv.Error, ZlibError, gzip.BadGzipFile, BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from error
    except lzma.LZMAError as error:
        raise ValueError(f"{path}: {error}") from error
    except _NoTable as error:
        raise ValueError(f"{path}: {error}") from None


class _NoTable(ValueError):
    pass


_SPREADSHEET = "a spreadsheet, not a table of text: save it as CSV"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def _unpacked(data: bytes) -> bytes:
    packed: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": gzip.decompress,
        b"BZh": bz2.decompress,
        b"\xfd7zXZ\0": lzma.decompress,
        b"PK\x03\x04": _from_zip,
    }
    for magic, unpack in packed.items():
        if data.startswith(magic):
            try:
                return unpack(data)
            except OSError as error:  # of bz2, without the name of a file
                raise _NoTable(str(error)) from error
    if data.startswith(_OLE):
        raise _NoTable(_SPREADSHEET)
    return data


def _from_zip(data: bytes) -> bytes:
    with ZipFile(io.BytesIO(data)) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
        if "[Content_Types].xml" in names or names[:1] == ["mimetype"]:
            raise _NoTable(_SPREADSHEET)
        if len(names) != 1:
            raise _NoTable(f"an archive of {len(names)} files, not of one: {', '.join(names[:5])}")
        try:
            return archive.read(names[0])
        except (RuntimeError, NotImplementedError) as error:  # with a password, by another method
            raise _NoTable(str(error)) from error


def _text(data: bytes) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding)
    head = data[:4096]
    if b"\0" in head:
        little = head[1::2].count(0) > head[::2].count(0)
        text = data.decode("utf-16-le" if little else "utf-16-be")
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    if re.search(r"[\0-\x08\x0e-\x1f]", text[:4096]):
        raise _NoTable("not a table of text")
    return text


def _table(path: Path, text: str) -> Table:
    lines = io.StringIO(text, newline="")
    before, header, given = 0, "", ""
    for line in lines:
        before += 1
        said = re.fullmatch(r"(?i)\"?sep=(.)\"?", line.strip("\r\n"))
        if said and not given:
            given = said[1]
        elif line.strip(" ,;\t\r\n") and not line.startswith("#"):
            header = line
            break
    if not header:
        raise _NoTable("no header, no rows")
    separator = given or _separator(header)
    columns = _stripped(next(csv.reader([header], delimiter=separator, skipinitialspace=True)))
    while columns and not columns[-1]:
        columns.pop()
    rows: list[tuple[str | None, ...]] = []
    places: list[int] = []
    headers = 0
    for place, fields in _records(path, lines, separator, before, len(columns)):
        row: list[str | None] = [*_stripped(fields)]
        if not any(row):
            continue
        if row[: len(columns)] == columns:
            headers += 1
            continue
        while len(row) > len(columns) and not row[-1]:
            row.pop()
        if len(row) > len(columns):
            remedy = "; decimal commas go with semicolons, or in quotes" if separator == "," else ""
            raise ValueError(f"{path}: row {place} has {len(row)} fields, the header {len(columns)}{remedy}")
        rows.append((*row, *[None] * (len(columns) - len(row))))
        places.append(place)
    cut = 0
    if (
        rows
        and rows[-1][-1] is None
        and len(rows) > 1
        and rows[-2][-1] is not None
        and text[-1] not in "\r\n"
    ):
        rows.pop()
        cut = places.pop()
    return Table(path, separator, tuple(columns), tuple(rows), tuple(places), cut, headers)


def _records(
    path: Path, lines: Iterator[str], separator: str, before: int, columns: int
) -> Iterator[tuple[int, list[str]]]:
    """Place and fields of each row. A quote that is not closed makes one field of the rows after it."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    begun = before + 1
    for fields in reader:
        within = (line for field in fields for line in field.splitlines()[1:])
        if columns > 1 and any(line.count(separator) >= columns - 1 for line in within):
            raise ValueError(
                f"{path}: row {begun} has a quote that is not closed: whole rows are in its text"
            )
        yield before + reader.line_num, fields
        begun = before + reader.line_num + 1


def _separator(header: str) -> str:
    def count(by: str) -> int:
        return len(next(csv.reader([header], delimiter=by, skipinitialspace=True)))

    best = max(_SEPARATORS[:-1], key=count)
    return best if count(best) > 1 else _SEPARATORS[-1]


def _stripped(fields: Sequence[str]) -> list[str]:
    return [f.strip() for f in fields]
