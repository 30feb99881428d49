"""Clocks in a run's report: the offset of each host over time, and the frames that it cost."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controller.core.observation import ClockReport
from controller.loop import ControlLoop
from controller.store import report
from controller.store.run import RunStore
from controller.store.series import read
from tests import builders

for needed in ("matplotlib", "jinja2"):
    pytest.importorskip(needed, reason="the extra `report` is not installed")

OFFSETS_NS = (-40_000.0, 120_000.0, 9e6, 60_000.0, -30_000.0)


def record(folder: Path, *, clocks: bool) -> None:
    """Six control slots; in the fourth the clock of ue-1 is beyond the bound."""
    loop = ControlLoop(builders.loop_spec())
    with RunStore.create(folder, config="") as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for slot in range(6):
            seen = builders.observation(slot)
            if clocks and slot:
                offset = OFFSETS_NS[slot - 1]
                fault = "ue-1: offset beyond the bound" if offset > 1e6 else ""
                told = ClockReport("ue-1", "SLAVE", offset, 2000.0, seen.closed_ns, "aa", fault)
                gone = ClockReport("edge", "NONE", 0.0, 0.0, seen.closed_ns, "", "edge: PTP state NONE")
                seen = replace(seen, clocks=(told, gone) if slot == 3 else (told,))
                if fault:
                    frames = replace(seen.frames, synchronised=np.zeros(len(seen.frames), np.bool_))
                    seen = replace(seen, frames=frames, clock_faults={"flow-0": fault})
            store.record_slot(start, seen, loop.step(seen).to_record(), loop.to_state())


def figure(page: str) -> str:
    found = dict(re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", page, re.DOTALL))
    return str(found.get(report.CLOCKS, ""))


def test_the_report_shows_offsets_by_host_and_the_frames_that_were_affected(tmp_path: Path) -> None:
    record(tmp_path, clocks=True)
    path, summary = report.build(tmp_path)
    page = path.read_text()
    cell = summary["cells"]["cell-1"]
    assert cell["clocks"]["ue-1"] == {
        "control_slots": 5,
        "worst_offset_ns": 9e6,
        "grandmasters": ["aa"],
        "faults": {"ue-1: offset beyond the bound": 1},
    }
    assert cell["clocks"]["edge"]["worst_offset_ns"] is None
    ar = cell["slices"]["ar"]
    assert ar["unsynchronised"] == {"ue-1: offset beyond the bound": ar["unsynchronised_frames"]}
    assert 100 < ar["unsynchronised_frames"] < ar["frames"]
    drawn = figure(page)
    assert ">ue-1<" in drawn and ">edge<" in drawn and ">offset, µs<" in drawn
    with RunStore.open(tmp_path) as store:
        _, _, cells = read(store)
    series = cells["cell-1"].clocks
    assert series["ue-1"].offset_ns == list(OFFSETS_NS)
    assert np.diff(series["ue-1"].time) == pytest.approx([5.0] * 4)
    assert np.isnan(series["edge"].offset_ns).all()
    text = " ".join(page.split())
    assert f"{ar['unsynchronised_frames']} of {ar['frames']} frames counted for the round trip alone" in text
    assert "<td>9000.0</td>" in text and "<td>n/a</td>" in text


def test_a_run_without_clocks_has_neither_table_nor_figure(tmp_path: Path) -> None:
    record(tmp_path, clocks=False)
    page = report.build(tmp_path)[0].read_text()
    assert not figure(page) and "<h3>Clocks</h3>" not in page and "round trip alone" not in page
