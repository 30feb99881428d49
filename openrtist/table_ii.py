"""Table II of the MUCB1 paper again: bitrates and inference time without tokens, over loopback."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from openrtist.client import Client, FlowName, Pace
from openrtist.video import open_source


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the paper's table: rates in Mbit/s, inference in ms."""

    width: int
    height: int
    fps: int
    ul_mbps: float
    dl_mbps: float
    inference_ms: float

    @property
    def name(self) -> str:
        return f"{self.width}x{self.height}@{self.fps}"


PAPER = (
    Case(320, 240, 30, 11.7, 3.7, 28.0),
    Case(480, 360, 30, 23.3, 4.8, 56.7),
    Case(640, 480, 30, 36.0, 5.1, 96.7),
    Case(960, 720, 30, 56.0, 13.0, 215.9),
    Case(1920, 1080, 30, 85.0, 6.0, 645.0),
    Case(1280, 720, 30, 70.0, 4.8, 280.0),
    Case(720, 576, 60, 70.0, 5.0, 131.0),
    Case(720, 480, 30, 60.0, 4.0, 110.0),
    Case(160, 80, 30, 4.3, 1.5, 9.0),
)
"""Table II, in its order."""

MIN_RESULTS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One row as it was measured here.

    Where this machine cannot encode, send and stylise as many frames as the row asks for, ``sent_fps`` and
    the rates are below; ``ul_at_fps`` and ``dl_at_fps`` are the mean size of a frame times the rate asked
    for. The rates (Mbit/s) count JPEG and header. None: not enough results.
    """

    case: Case
    seconds: float
    sent_fps: float
    ul_mbps: float
    dl_mbps: float | None
    ul_at_fps: float
    dl_at_fps: float | None
    inference_ms: float | None
    edge_ms: float | None
    sent: int
    returned: int
    dropped: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; the paper's figures are under ``paper``."""
        row = asdict(self)
        paper = row.pop("case")
        about = {name: paper.pop(name) for name in ("width", "height", "fps")}
        return {"name": self.case.name, **about, **row, "paper": paper}


def measure(case: Case, server: str, video: str, *, seconds: float, limit_s: float) -> Measured:
    """Run one client for ``seconds``, and on until three results are back, but no longer than ``limit_s``.

    Raises:
        ClientError, VideoError: as :class:`openrtist.client.Client`.
    """
    source = open_source(video, case.width, case.height, loop=True)
    try:
        pace = Pace(fps=case.fps, tokens=0, timeout_s=limit_s, drain_s=0.0, silent_s=limit_s)
        client = Client(server, source, name=FlowName("table-ii", "ue-1", "ar"), pace=pace)
        begun = time.monotonic()

        def enough() -> bool:
            took = time.monotonic() - begun
            return took >= limit_s or (took >= seconds and client.returned >= MIN_RESULTS)

        summary = client.run(enough)
    finally:
        source.close()
    inference, edge = summary["inference_ms"], summary["delay_ms"]["edge"]
    return Measured(
        case,
        summary["seconds"],
        summary["sent_fps"],
        summary["ul_bps"] / 1e6,
        summary["dl_bps"] / 1e6 if summary["returned"] > 1 else None,
        8e-6 * summary["up_frame_bytes"] * case.fps,
        8e-6 * summary["down_frame_bytes"] * case.fps if summary["returned"] else None,
        inference["mean"] if inference else None,
        edge["mean"] if edge else None,
        summary["sent"],
        summary["returned"],
        summary["dropped_by_server"],
    )


# ---- the table ------------------------------------------------------------------------------------------

_HEAD = (
    *("resolution", "fps", "fps here", "UL paper", "UL here", "at fps", "DL paper", "DL here", "at fps"),
    *("inference paper", "inference here", "frames back"),
)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _cells(result: dict[str, Any]) -> list[list[str]]:
    columns = (
        *(("paper", "ul_mbps"), ("here", "ul_mbps"), ("here", "ul_at_fps")),
        *(("paper", "dl_mbps"), ("here", "dl_mbps"), ("here", "dl_at_fps")),
        *(("paper", "inference_ms"), ("here", "inference_ms")),
    )
    return [
        [
            f"{row['width']} x {row['height']}",
            str(row["fps"]),
            _figure(row["sent_fps"]),
            *(_figure((row["paper"] if where == "paper" else row)[name]) for where, name in columns),
            f"{row['returned']}/{row['sent']}",
        ]
        for row in result["rows"]
    ]


def _note(result: dict[str, Any]) -> str:
    host = result["host"]
    return (
        "UL and DL in Mbit/s, here as far as this machine came and at the rate asked for; inference in ms;"
        f" {result['seconds']:g} s a row, tokens off;"
        f" {result['provider']} of {host['name']} ({host['cpus']} CPUs), the paper's is a GTX 1650"
    )


def text(result: dict[str, Any]) -> str:
    """The rows (:meth:`Measured.to_dict`) beside the paper's, as aligned text."""
    cells = [list(_HEAD), *_cells(result)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([*lines, _note(result)])


def html(result: dict[str, Any]) -> str:
    """The same as a page of its own."""

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in _cells(result))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Table II, measured here</title>"
        "<style>body{font:15px system-ui;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ccc}</style>"
        f"<h1>Table II, measured here</h1><table>{row(_HEAD, 'th')}\n{body}</table>"
        f"<p>{escape(_note(result))}</p></html>\n"
    )
