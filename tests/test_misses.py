"""Why control slots were missed, read from the record of a run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller import allocators, misses
from controller.allocators.ar.causes import Cause
from controller.allocators.base import ClosedSlice
from controller.core.measure import Reason
from controller.core.misses import Miss
from controller.core.observation import Command, Enforcement, Mode, Observation
from controller.loop import ControlLoop
from controller.store import misses as store_misses
from controller.store.misses import Misses
from controller.store.run import RunStore, StoreError
from controller.store.summary import Summary
from tests import builders

GOOD, STALLED, SLOW = (20.0, 9.0, 15.0), "stalled", (150.0, 9.0, 15.0)
Kind = Any


def observe(slot: int, kind: Kind, slices: tuple[str, ...] = ("ar",), **changes: Any) -> Observation:
    """A control slot of 5 s in which every frame has these delays, or none passed the uplink for two
    seconds."""
    observation = builders.observation(slot, GOOD if kind == STALLED else kind, slices=slices, **changes)
    if kind != STALLED:
        return observation
    f = observation.frames
    until = observation.opened_ns + 3_000 * builders.MS
    late = (f.ue_sent >= until - 2_000 * builders.MS) & (f.edge_received < until)
    wait = np.where(late, until - f.edge_received, 0)
    columns = {name: getattr(f, name) + wait for name in ("edge_received", "edge_sent")}
    back = np.where(f.ue_received == 0, 0, f.ue_received + wait)
    return replace(observation, frames=replace(f, ue_received=back, **columns))


def write(
    folder: Path, cells: Mapping[str, tuple[Any, list[tuple[Kind, dict[str, Any]]]]], *, only: Any = None
) -> Path:
    """A run: for each cell its loop's specification and its control slots. ``only``: which are recorded."""
    with RunStore.create(folder, config="cells: <none>\n", seed=5) as store:
        for cell, (spec, slots) in cells.items():
            loop = ControlLoop(spec)
            start = store.record_start(builders.T0, cell, spec.to_dict(), loop.to_state())
            for n, (kind, changes) in enumerate(slots):
                observation = observe(n, kind, tuple(s.slice for s in spec.slices), **changes)
                record = loop.step(observation).to_record()
                if only is None or n in only:
                    lost = 0 if only is None or n - 1 in only or n == 0 else 1
                    store.record_slot(start, observation, record, loop.to_state(), lost=lost)
    return folder


def read(folder: Path) -> Misses:
    with RunStore.open(folder) as store:
        return misses.read(store)


def found(of: Misses, cell: str = "cell-1", name: str = "ar") -> list[tuple[int, str]]:
    return [(slot.control_slot, slot.miss.cause) for slot in of.cells[cell][name].missed]


MIX: list[tuple[Kind, dict[str, Any]]] = [
    (GOOD, {}), (GOOD, {}), (STALLED, {}), (GOOD, {}), (SLOW, {}), (GOOD, {}),
    (SLOW, {"enforcement": {"ar": Enforcement(Reason.QUOTA_NOT_HONOURED)}}), (GOOD, {}),
]  # fmt: skip


def test_every_missed_control_slot_of_the_summary_has_a_cause(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", {"cell-1": (builders.loop_spec(), MIX)})
    got = read(folder)
    assert found(got) == [(2, Cause.HICCUP), (4, Cause.TOO_LITTLE), (6, Cause.NOT_AS_ASKED)]
    own = Summary()
    with RunStore.open(folder) as store:
        for record in store.decisions():
            own.add(record)
    slice_ = own.result()["cells"]["cell-1"]["slices"]["ar"]
    result = got.result(slots=True)["cells"]["cell-1"]["ar"]
    assert result["control_slots"] == slice_["control_slots"] == 7
    assert 1 - result["missed"] / result["judged"] == pytest.approx(slice_["qos_delivery_ratio"])
    assert (result["missed"], result["unavoidable"]) == (3, 1)
    assert result["causes"]["hiccup"] == {"slots": 1, "hops": {"ul": 1}}
    assert [s["cause"] for s in result["missed_slots"]] == [c for _, c in found(got)]
    assert result["missed_slots"][0]["hops"]["ul"]["cause"] == "hiccup"
    assert json.loads(json.dumps(result)) == result


def test_cells_and_slices_are_kept_apart_and_other_services_left_out(tmp_path: Path) -> None:
    two = builders.loop_spec(builders.slice_spec("a"), builders.slice_spec("b"))
    folder = write(
        tmp_path / "run",
        {
            "cell-1": (two, [(GOOD, {}), (GOOD, {}), (STALLED, {})]),
            "cell-2": (builders.loop_spec(cell="cell-2"), [(GOOD, {}), (GOOD, {}), (SLOW, {})]),
        },
    )
    with sqlite3.connect(folder / "run.sqlite") as db:
        (spec,) = db.execute("SELECT spec FROM starts WHERE cell = 'cell-1'").fetchone()
        data = json.loads(spec)
        data["slices"][1]["service"] = "elsewhere"
        db.execute("UPDATE starts SET spec = ? WHERE cell = 'cell-1'", (json.dumps(data),))
    got = read(folder)
    assert found(got, "cell-1", "a") == [(2, Cause.HICCUP)]
    assert found(got, "cell-2") == [(2, Cause.EXPLORED)]
    assert got.left_out == {"cell-1": {"b": "elsewhere"}} and "b" not in got.cells["cell-1"]
    text = store_misses.text(got)
    assert "cell cell-1  slice a: 1 of 2 judged control slots missed (50.0%)" in text
    assert "cell cell-1  slice b: service elsewhere, left out" in text


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    got = read(write(tmp_path / "run", {"cell-1": (builders.loop_spec(), [])}))
    assert got.result() == {"cells": {}, "left_out": {}, "gaps": {}}
    assert "no control slot is over" in store_misses.text(got)


def test_a_run_without_a_miss_has_a_table_without_a_cause(tmp_path: Path) -> None:
    got = read(write(tmp_path / "run", {"cell-1": (builders.loop_spec(), [(GOOD, {})] * 3)}))
    assert store_misses.text(got) == "cell cell-1  slice ar: 0 of 2 judged control slots missed (0.0%)"


def test_after_a_gap_nobody_knows_what_was_in_force(tmp_path: Path) -> None:
    cells = {"cell-1": (builders.loop_spec(), MIX)}
    whole = read(write(tmp_path / "whole", cells))
    gap = read(write(tmp_path / "gap", cells, only=(0, 1, 2, 4, 5, 6, 7)))
    # Control slot 4 is recorded, but not the decision that began it.
    assert found(gap) == [x for x in found(whole) if x[0] not in (3, 4)] != found(whole)
    assert gap.gaps == {"cell-1": 1} and "cell-1: 1 control slots are not in the record" in store_misses.text(
        gap
    )


def test_frames_without_synchronised_clocks_are_not_blamed_on_a_hop(tmp_path: Path) -> None:
    slots: list[tuple[Kind, dict[str, Any]]] = [(GOOD, {}), (GOOD, {})]
    frames = observe(2, SLOW).frames
    unsynchronised = replace(frames, synchronised=np.zeros(len(frames), np.bool_))
    slots.append((SLOW, {"frames": unsynchronised, "clock_faults": {"flow-0": "no PTP"}}))
    got = read(write(tmp_path / "run", {"cell-1": (builders.loop_spec(mode=Mode.ACTIVE), slots)}))
    (slot,) = got.cells["cell-1"]["ar"].missed
    assert (slot.miss.cause, slot.miss.hop) == (Cause.HOP_DELAYS_NOT_KNOWN, None)
    assert slot.miss.text.startswith("no PTP: ") and slot.miss.text.endswith(" frames")
    assert "no hop 1" in store_misses.text(got)


def test_a_run_of_version_1_has_causes_too(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(__file__).parent / "store" / "version-1", tmp_path / "run"))
    got = read(folder)
    expected = json.loads((folder / "summary.json").read_text())["cells"]["cell-1"]["slices"]
    for name, s in got.cells["cell-1"].items():
        assert s.control_slots == expected[name]["control_slots"]
        missed = round((1 - expected[name]["qos_delivery_ratio"]) * s.judged)
        assert len(s.missed) == missed
    assert {slot.miss.cause for s in got.cells["cell-1"].values() for slot in s.missed} - {Cause.NOT_KNOWN}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", {"cell-1": (builders.loop_spec(), MIX)})
    with sqlite3.connect(folder / "run.sqlite") as db:
        (text,) = db.execute("SELECT decision FROM control_slots WHERE control_slot = 3").fetchone()
        data = json.loads(text)
        data["slices"]["ar"]["closed"]["unattributed"] = {"ul": "no such reason"}
        db.execute("UPDATE control_slots SET decision = ? WHERE control_slot = 3", (json.dumps(data),))
    with pytest.raises(
        StoreError, match=r"run\.sqlite: cell cell-1, slice ar, control slot 2: cannot be read"
    ):
        read(folder)


def test_an_observation_that_retention_takes_away_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "run", {"cell-1": (builders.loop_spec(), MIX)})
    with RunStore.open(folder) as store:
        kept = store.observation(1, 3)
        assert kept is not None and kept.to_dict() == observe(2, STALLED).to_dict()
        assert store.observation(1, 99) is None and store.observation(2, 3) is None
        monkeypatch.setattr(store, "observation", lambda start, slot: None if slot == 3 else kept)
        assert [slot for slot, _ in found(misses.read(store))] == [4, 6]


def test_the_report_of_a_run_has_a_table_and_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the report needs the extra 'report'")
    pytest.importorskip("jinja2", reason="the report needs the extra 'report'")
    from controller.store import report

    two = builders.loop_spec(builders.slice_spec("a"), builders.slice_spec("b"))
    folder = write(tmp_path / "run", {"cell-1": (two, MIX)})
    page, summary = report.build(folder, read_misses=misses.read)
    text = page.read_text()
    assert text.count(f"<figcaption>{report.MISSES}") == 1  # slice b missed nothing
    assert "<h3>Slice a: missed control slots by cause</h3>" in text and "hiccup 1" in text
    assert "<h3>Slice b: missed" not in text
    assert summary["misses"] == read(folder).result()


def test_the_chart_is_an_svg_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the chart needs the extra 'report'")
    got = read(write(tmp_path / "run", {"cell-1": (builders.loop_spec(), MIX)}))
    store_misses.write_chart(tmp_path / "chart.svg", got)
    text = (tmp_path / "chart.svg").read_text()
    assert "<svg" in text and "hiccup 1" in text and "cell cell-1, slice ar: 3 of 7 missed" in text
    store_misses.write_chart(tmp_path / "none.svg", Misses())
    with pytest.raises(StoreError, match=r"no-such-folder"):
        store_misses.write_chart(tmp_path / "no-such-folder" / "chart.svg", got)


def test_what_an_operator_set_counts_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = builders.loop_spec()
    command = (Command("options", {"metric": "p90"}, "ar"),)
    kinds = [(SLOW, {"commands": command} if n == 3 else {}) for n in range(6)]
    folder = write(tmp_path, {"cell-1": (spec, kinds)})
    with RunStore.open(folder, write=True) as store:
        store.record_event(builders.T0, "cell-1", "set_options", 'metric="p90" ar')
    ar = allocators.service("ar")
    assert ar.miss is not None
    explain, seen = ar.miss, []

    def explained(closed: ClosedSlice) -> Miss | None:
        seen.append((closed.view.control_slot, closed.options.to_dict()["metric"]))
        return explain(closed)

    monkeypatch.setattr(misses, "_service", lambda _name: replace(ar, miss=explained))
    with RunStore.open(folder) as store:
        misses.read(store)
    assert seen == [(1, "mean"), (2, "mean"), (3, "mean"), (4, "p90"), (5, "p90")]
