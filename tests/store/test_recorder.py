"""Recording beside the control loop: the disk may do what it likes, the caller is never held up."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.links.counters import Counters
from controller.loop import ControlLoop
from controller.store import run
from controller.store.recorder import AsyncRunStore
from controller.store.run import RunStore, StoreError
from tests import builders
from tests.store.builders import plain, steps


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def begin(store: AsyncRunStore, loop: ControlLoop) -> int:
    return store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())


def put(store: AsyncRunStore, handle: int, loop: ControlLoop, n: int) -> None:
    for step in steps(loop, n):
        store.record_slot(handle, step.observation, step.record, step.state)


def new_loop() -> ControlLoop:
    return ControlLoop(builders.loop_spec())


def test_what_is_handed_over_is_on_file_after_flush(tmp_path: Path) -> None:
    counters, loop = Counters(), new_loop()
    store = AsyncRunStore(tmp_path / "run", config="a: 1\n", seed=3, counters=counters)
    put(store, begin(store, loop), loop, 10)
    store.record_event(1, "cell-1", "cell_joined", "session 1")
    assert store.flush()
    with RunStore.open(tmp_path / "run") as record:
        assert [r["control_slot"] for r in record.decisions()] == list(range(1, 11))
        assert record.latest_state("cell-1") == plain(loop.to_state())
        assert [e.kind for e in record.events()] == ["cell_joined"]
        assert record.about()["seed"] == 3
    assert store.close() and store.lost == 0
    assert counters.get("store_slots_total", "cell-1") == 10


def test_a_run_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    for _ in range(2):
        loop = new_loop()
        store = AsyncRunStore(tmp_path, config="")
        put(store, begin(store, loop), loop, 2)
        assert store.close()
    with RunStore.open(tmp_path) as record:
        assert len(list(record.starts())) == 2
        assert [e.kind for e in record.events()] == ["run_resumed"]


def test_json_and_compression_are_the_writers_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    to_json = run.to_json

    def watched(value: Any) -> str:
        threads.add(threading.current_thread().name)
        return to_json(value)

    monkeypatch.setattr(run, "to_json", watched)
    loop = new_loop()
    store = AsyncRunStore(tmp_path, config="")
    put(store, begin(store, loop), loop, 2)
    assert store.close()
    assert threads == {"run-record"}


def test_a_disk_that_refuses_loses_nothing_that_the_queue_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    counters, loop = Counters(), new_loop()
    with caplog.at_level(logging.WARNING):
        store = AsyncRunStore(blocked / "run", config="", counters=counters, retry_s=0.2)
        put(store, begin(store, loop), loop, 5)
        until(lambda: counters.get("store_errors_total") >= 3)
        assert str(blocked) in store.error
        assert not store.flush(0.01)
        blocked.unlink()
        assert store.flush()
    with RunStore.open(blocked / "run") as record:
        assert len(list(record.decisions())) == 5
        assert [s.lost for s in record.starts()] == [0]
    assert store.close() and store.error == "" and store.lost == 0
    complaints = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(complaints) == 1 and str(blocked) in complaints[0].getMessage()


def test_a_full_queue_drops_the_oldest_slots_and_says_so_in_the_record(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    counters, loop = Counters(), new_loop()
    store = AsyncRunStore(blocked / "run", config="", counters=counters, max_items=4, retry_s=0.2)
    put(store, begin(store, loop), loop, 10)
    blocked.unlink()
    assert store.flush()
    with RunStore.open(blocked / "run") as record:
        kept = [r["control_slot"] for r in record.decisions()]
        (start,) = record.starts()
        assert kept[-1] == 10 and kept[-3:] == [8, 9, 10]
        assert start.lost == 10 - len(kept) == counters.get("store_lost_total")
        assert record.latest_state("cell-1") == plain(loop.to_state())
    assert not store.close()


def test_the_queue_is_bounded_by_size_too(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    loop = new_loop()
    store = AsyncRunStore(blocked / "run", config="", max_bytes=60_000)
    put(store, begin(store, loop), loop, 50)
    assert 0 < len(store._queue) < 15 and store.lost >= 35
    store.close(1.0)


def test_a_removed_folder_is_made_again_and_the_state_goes_on(tmp_path: Path) -> None:
    loop = new_loop()
    store = AsyncRunStore(tmp_path / "run", config="", retry_s=0.2)
    handle = begin(store, loop)
    put(store, handle, loop, 3)
    assert store.flush()
    shutil.rmtree(tmp_path / "run")
    put(store, handle, loop, 2)
    assert store.flush() and store.close()
    with RunStore.open(tmp_path / "run") as record:
        assert [r["control_slot"] for r in record.decisions()] == [4, 5]
        assert [s.lost for s in record.starts()] == [3]
        assert record.latest_state("cell-1") == plain(loop.to_state())


def test_a_log_that_was_removed_loses_nothing(tmp_path: Path) -> None:
    loop = new_loop()
    store = AsyncRunStore(tmp_path / "run", config="", retry_s=0.2)
    handle = begin(store, loop)
    put(store, handle, loop, 3)
    assert store.flush()
    (tmp_path / "run" / "run.sqlite-wal").unlink()
    put(store, handle, loop, 2)
    assert store.flush()
    # As a new process finds it after a kill: the first one has closed nothing.
    with RunStore.open(tmp_path / "run") as record:
        assert [r["control_slot"] for r in record.decisions()] == [1, 2, 3, 4, 5]
        assert [s.lost for s in record.starts()] == [0]
        assert record.latest_state("cell-1") == plain(loop.to_state())
    assert store.close()


def test_a_slot_that_cannot_be_recorded_does_not_hold_up_the_next(tmp_path: Path) -> None:
    counters, loop = Counters(), new_loop()
    store = AsyncRunStore(tmp_path, config="", counters=counters)
    handle = begin(store, loop)
    good, bad, last = steps(loop, 3)
    store.record_slot(handle, good.observation, good.record, good.state)
    store.record_slot(handle, bad.observation, bad.record, {"mean": float("nan")})
    store.record_slot(handle, last.observation, last.record, last.state)
    assert store.flush()
    with RunStore.open(tmp_path) as record:
        assert [r["control_slot"] for r in record.decisions()] == [1, 3]
        assert [s.lost for s in record.starts()] == [1]
    assert counters.get("store_refused_total", "cell-1") == 1
    store.close()


def test_a_newer_record_is_left_alone(tmp_path: Path) -> None:
    RunStore.create(tmp_path, config="").close()
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    store = AsyncRunStore(tmp_path, config="")
    until(lambda: "99" in store.error)
    store.close(1.0)
    with pytest.raises(StoreError, match="99"):
        RunStore.open(tmp_path)


def test_a_handle_ends_with_the_next_start_of_its_cell(tmp_path: Path) -> None:
    loop = new_loop()
    store = AsyncRunStore(tmp_path, config="")
    old = begin(store, loop)
    begin(store, loop)
    with pytest.raises(ValueError, match=f"start {old}"):
        put(store, old, loop, 1)
    store.close()


def test_after_close_nothing_more_is_taken_and_that_is_counted(tmp_path: Path) -> None:
    counters = Counters()
    store = AsyncRunStore(tmp_path, config="", counters=counters)
    assert store.close()
    store.record_event(0, "", "late")
    assert counters.get("store_lost_total") == 1 and not store.close()
