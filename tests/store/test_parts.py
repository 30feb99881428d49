"""A run whose configuration, seed or versions changed in its course."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from controller.store import report, run
from controller.store.recorder import AsyncRunStore
from controller.store.run import RunStore
from tests import builders

FIRST = "control: {seed: 0}\ncells:\n- {id: cell-1, slices: [{id: ar, policy: mucb1}]}\n"
SECOND = FIRST.replace("mucb1", "static")


def record(
    store: AsyncRunStore, loop: ControlLoop, numbers: range, delays: tuple[float, float, float] = (20, 9, 15)
) -> None:
    handle = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
    for n in numbers:
        seen = builders.observation(n, delays)
        store.record_slot(handle, seen, loop.step(seen).to_record(), loop.to_state())


def spec(policy: str) -> LoopSpec:
    return builders.loop_spec(builders.slice_spec(policy=policy))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two starts of other configuration and seed, the second of which is reloaded with the first's."""
    first = AsyncRunStore(tmp_path, config=FIRST, seed=1)
    record(first, ControlLoop(spec("mucb1")), range(4))
    assert first.close()
    second = AsyncRunStore(tmp_path, config=SECOND, seed=7)
    record(second, ControlLoop(spec("static")), range(4, 10), (150.0, 9.0, 15.0))
    second.configured(builders.T0 + 10**11, FIRST)
    record(second, ControlLoop(spec("mucb1")), range(10, 12))
    assert second.close()
    return tmp_path


def test_each_start_with_another_configuration_or_seed_is_a_part(folder: Path) -> None:
    with RunStore.open(folder) as store:
        parts = list(store.parts())
        assert [(p.number, p.about["seed"], p.config) for p in parts] == [
            (1, 1, FIRST),
            (2, 7, SECOND),
            (3, 7, FIRST),
        ]
        assert [start.part for start in store.starts()] == [1, 2, 3]
        assert [part for part, _ in store.decisions_by_part()] == [1] * 4 + [2] * 6 + [3] * 2
        changes = {e.text for e in store.events() if e.kind == "configuration_changed"}
        about = store.about()
        assert store.config() == FIRST and about["part"] == 3 and about["seed"] == 7
    assert changes == {
        'part 2 of the run: seed: 1 -> 7; cells.cell-1.slices.ar.policy: "mucb1" -> "static"',
        'part 3 of the run: cells.cell-1.slices.ar.policy: "static" -> "mucb1"',
    }
    assert [p["seed"] for p in about["parts"]] == [1, 7, 7] and about["parts"][1]["changed"][
        0
    ] == "seed: 1 -> 7"


def test_a_start_with_the_same_is_no_part_and_one_of_other_versions_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> list[int]:
        assert AsyncRunStore(tmp_path, config=FIRST, seed=1).close()
        with RunStore.open(tmp_path) as store:
            return [p.number for p in store.parts()]

    assert start() == [1] and start() == [1]
    before = run.environment()
    newer = {**before, "versions": {**before["versions"], "numpy": "99.0"}}
    monkeypatch.setattr(run, "environment", lambda: newer)
    assert start() == [1, 2]
    assert json.loads((tmp_path / "run.json").read_text())["versions"]["numpy"] == "99.0"
    moved = {**newer, "host": {"name": "elsewhere"}}  # as a container has each time
    monkeypatch.setattr(run, "environment", lambda: moved)
    assert start() == [1, 2]


def test_the_report_and_the_summary_tell_the_parts_apart(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    page, summary = report.build(folder)
    parts = summary["parts"]
    assert [p["control_slots"] for p in parts] == [3, 5, 1]
    assert [p["qos_delivery_ratio"] for p in parts] == [1.0, 0.0, 1.0]
    assert parts[0]["avg_ul_prb"] < parts[1]["avg_ul_prb"] == 90.0 and parts[1]["changed"]
    text = page.read_text()
    assert "<h2>Parts</h2>" in text and "seed: 1 -&gt; 7" in text
    assert "part 2, as resolved" in text and "policy: static" in text


def test_what_was_recorded_before_there_were_parts_is_the_first(tmp_path: Path) -> None:
    old = Path(__file__).with_name("version-1")
    for name in ("config.yaml", "run.json", "run.sqlite"):
        (tmp_path / name).write_bytes((old / name).read_bytes())
    config = (old / "config.yaml").read_text()
    with RunStore.open(tmp_path) as store:
        (part,) = store.parts()
        starts = list(store.starts())
        assert part.number == 1 and part.config == config and {s.part for s in starts} == {1}
    with RunStore.open(tmp_path, write=True) as store:
        assert list(store.parts()) == [part] and list(store.starts()) == starts
        assert store.begin_part(1, SECOND, seed=3)[0] == 2
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == yaml.safe_load(SECOND)


def test_a_run_in_which_static_played_all_there_is_replays_as_it_was(tmp_path: Path) -> None:
    """As records of schema 2 have it: actions up to 90, 106 played."""
    full: dict[str, Any] = {"ul_prb": [106], "dl_prb": [106], "gpu_mhz": [1600]}
    loop = ControlLoop(builders.loop_spec(builders.slice_spec(policy="static", **full)))
    with RunStore.create(tmp_path, config="") as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for n in range(3):
            seen = builders.observation(n, (20, 9, 15))
            store.record_slot(start, seen, loop.step(seen).to_record(), loop.to_state())
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        ((made, began),) = db.execute("SELECT spec, state FROM starts").fetchall()
        made, began = json.loads(made), json.loads(began)
        actions = {"ul_prb": [10, 90], "dl_prb": [10, 90], "gpu_mhz": [500, 1600]}
        made["slices"][0]["options"]["actions"] = actions
        for what in ("set", "configured"):
            began["slices"]["ar"][what]["actions"] = actions
        db.execute("DROP TABLE parts")
        db.execute("ALTER TABLE starts DROP COLUMN part")
        db.execute("UPDATE starts SET spec = ?, state = ?", (json.dumps(made), json.dumps(began)))
        db.execute("PRAGMA user_version = 2")
    for write in (False, True, False):  # as it is read, as it is taken over, afterwards
        with RunStore.open(tmp_path, write=write) as store:
            (began_at,) = store.starts()
            again = ControlLoop(LoopSpec.from_dict(began_at.spec))
            assert again.load_state(began_at.state) == ()
            for slot in store.slots(began_at.id):
                assert json.loads(json.dumps(again.step(slot.observation).to_record())) == slot.decision
                assert slot.decision["quotas"] == {"ar": [106, 106]}


def test_configurations_that_come_faster_than_they_are_written_cost_no_control_slot(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    store = AsyncRunStore(blocked / "run", config=FIRST, max_items=16, retry_s=0.2)
    loop = ControlLoop(spec("mucb1"))
    record(store, loop, range(4))
    for i in range(100):
        store.configured(builders.T0 + i, FIRST.replace("seed: 0", f"seed: {i}"))
    record(store, loop, range(4, 8))
    blocked.unlink()
    assert store.flush() and store.close() and store.lost == 0
    with RunStore.open(blocked / "run") as record_:
        assert len(list(record_.decisions())) == 8
        assert [yaml.safe_load(p.config)["control"]["seed"] for p in record_.parts()] == [0, 99]
        assert [start.part for start in record_.starts()] == [1, 2]
