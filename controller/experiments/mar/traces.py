"""Reads the SNR of channel traces: ``../shared/data/channel-traces``, and what has that format."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def snr_files(path: Path) -> list[Path]:
    """The channel traces of a folder, ``*.csv`` and ``*.csv.gz`` by name, or the one that ``path`` is.

    ValueError for a folder without any.
    """
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.name.endswith((".csv", ".csv.gz")))
    if not found:
        raise ValueError(f"{path}: no channel trace (*.csv, *.csv.gz) in this folder")
    return found


def read_snr_db(path: Path) -> FloatArray:
    """The SNR in dB of the rows of a channel trace that are 5G, float64 [rows]; ``-`` is left out.

    Columns ``network_mode`` and ``snr_db``. It is the downlink's and taken for the uplink's. OSError where
    the file cannot be read; ValueError, naming file and row, for a column that is not there, for what is
    neither a number nor ``-``, and where no row is left.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    snr: list[float] = []
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            for column in ("network_mode", "snr_db"):
                if column not in (reader.fieldnames or ()):
                    raise ValueError(f"{path}: column {column!r} is not there")
            for row in reader:
                value = (row["snr_db"] or "").strip()
                if row["network_mode"] != "5G" or value == "-":
                    continue
                snr.append(_finite(value, f"{path}: row {reader.line_num}: snr_db"))
    except (EOFError, UnicodeDecodeError, csv.Error, ZlibError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not snr:
        raise ValueError(f"{path}: no row is 5G and has an SNR")
    return np.array(snr)


def _finite(value: str, where: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{where} {value!r} is not a number") from None
    if not np.isfinite(number):
        raise ValueError(f"{where} {value!r} is not finite")
    return number
