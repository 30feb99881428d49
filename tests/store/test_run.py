"""The run folder: what is written is read back whole, or refused with the path named."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.observation import FRAME_COLUMNS, Flow, Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from controller.store.run import SCHEMA_VERSION, Retention, RunStore, StoreError
from tests import builders
from tests.store.builders import plain, steps

DAY_NS = 86_400_000_000_000


def new_loop() -> ControlLoop:
    return ControlLoop(builders.loop_spec())


def record(store: RunStore, loop: ControlLoop, n: int) -> int:
    start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
    for step in steps(loop, n):
        store.record_slot(start, step.observation, step.record, step.state)
    return start


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    loop = new_loop()
    first_state = plain(loop.to_state())
    done = []
    with RunStore.create(tmp_path / "run", config="seed: 7\n", seed=7, meta={"by": "test"}) as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for step in steps(loop, 12):
            store.record_slot(start, step.observation, step.record, step.state)
            done.append(step)
        store.record_event(builders.T0 + 5, "cell-1", "quota_not_honoured", "slice ar", {"asked": 30})
        store.record_event(builders.T0 + 6, "", "reloaded")

    with RunStore.open(tmp_path / "run") as store:
        assert store.config() == "seed: 7\n"
        about = store.about()
        assert about["seed"] == 7 and about["meta"] == {"by": "test"}
        assert about["versions"].keys() >= {"prbandit", "python", "numpy"}
        (read,) = store.starts()
        assert read.cell == "cell-1" and read.state == first_state and (read.lost, read.pruned) == (0, 0)
        assert LoopSpec.from_dict(read.spec) == loop.spec
        slots = list(store.slots(read.id))
        assert [s.observation.to_dict() for s in slots] == [s.observation.to_dict() for s in done]
        assert [s.decision for s in slots] == [plain(s.record) for s in done]
        assert [s.control_slot for s in slots] == list(range(1, 13))
        assert list(store.decisions("cell-1")) == list(store.decisions()) == [s.decision for s in slots]
        assert list(store.decisions("other")) == []
        assert store.latest_state("cell-1") == plain(loop.to_state())
        assert store.latest_state("other") is None
        assert store.cells() == ["cell-1"]
        assert [(e.cell, e.kind, e.text, e.data) for e in store.events()] == [
            ("cell-1", "quota_not_honoured", "slice ar", {"asked": 30}),
            ("", "reloaded", "", {}),
        ]


def test_recorded_observations_replay_to_the_recorded_decisions(tmp_path: Path) -> None:
    with RunStore.create(tmp_path, config="") as store:
        record(store, new_loop(), 30)
    with RunStore.open(tmp_path) as store:
        (start,) = store.starts()
        again = ControlLoop(LoopSpec.from_dict(start.spec))
        again.load_state(start.state)
        for slot in store.slots(start.id):
            assert plain(again.step(slot.observation).to_record()) == slot.decision


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    loop = new_loop()
    with RunStore.create(tmp_path, config="") as store:
        record(store, loop, 3)
    with RunStore.open(tmp_path, write=True) as store:
        record(store, loop, 2)
        assert [len(list(store.slots(s.id))) for s in store.starts()] == [3, 2]


WRITER = """
import sys
from pathlib import Path
from controller.loop import ControlLoop
from controller.store.run import RunStore
from tests import builders
from tests.store.builders import steps
loop = ControlLoop(builders.loop_spec())
store = RunStore.create(Path(sys.argv[1]), config="")
start = store.record_start(0, "cell-1", loop.spec.to_dict(), loop.to_state())
for step in steps(loop, 1_000_000, 400 * builders.MS):
    store.record_slot(start, step.observation, step.record, step.state)
    print(loop.control_slot, flush=True)
"""


def test_after_kill_9_the_file_opens_and_the_state_is_that_of_the_last_decision(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert process.stdout is not None
    told = 0
    for line in process.stdout:
        told = int(line)
        if told >= 40:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait(10)
    told = int(rest[-1]) if rest else told

    with RunStore.open(tmp_path) as store:
        records = list(store.decisions("cell-1"))
        state = store.latest_state("cell-1")
    # Committed is committed; the one in progress is there whole or not at all.
    assert records[-1]["control_slot"] in (told, told + 1)
    assert [r["control_slot"] for r in records] == list(range(1, len(records) + 1))
    assert state is not None and state["control_slot"] == records[-1]["control_slot"]
    with RunStore.open(tmp_path, write=True) as store:
        loop = new_loop()
        loop.load_state(state)
        record(store, loop, 2)
        assert store.latest_state("cell-1") == plain(loop.to_state())


def test_observation_decision_and_state_are_one_transaction(tmp_path: Path) -> None:
    """The state cannot be written: then the decision is not there either."""
    loop = new_loop()
    with RunStore.create(tmp_path, config="") as store:
        start = record(store, loop, 2)
        with sqlite3.connect(tmp_path / "run.sqlite") as db:
            db.execute(
                "CREATE TRIGGER broken BEFORE INSERT ON state WHEN new.control_slot = 3"
                " BEGIN SELECT RAISE(ABORT, 'no state today'); END"
            )
        (step,) = steps(loop, 1)
        with pytest.raises(StoreError, match="no state today"):
            store.record_slot(start, step.observation, step.record, step.state)
        with sqlite3.connect(tmp_path / "run.sqlite") as db:
            db.execute("DROP TRIGGER broken")
        assert len(list(store.decisions())) == 2
        store.record_slot(start, step.observation, step.record, step.state)
        assert len(list(store.decisions())) == 3


def test_what_cannot_be_recorded_is_refused_and_named_and_nothing_is_written(tmp_path: Path) -> None:
    loop = new_loop()
    with RunStore.create(tmp_path, config="") as store:
        start = record(store, loop, 1)
        (step,) = steps(loop, 1)
        with pytest.raises(ValueError, match=r"control slot 2: loop state: .*JSON"):
            store.record_slot(start, step.observation, step.record, {"mean": float("nan")})
        with pytest.raises(ValueError, match=r"control slot 2: decision: .*set"):
            store.record_slot(start, step.observation, {**step.record, "more": {1}}, step.state)
        nan = replace(step.observation, flows=(Flow("f", "ue", "ar", float("inf"), 0.0, 0),))
        with pytest.raises(ValueError, match="control slot 2: observation"):
            store.record_slot(start, nan, step.record, step.state)
        with pytest.raises(ValueError, match="start 99"):
            store.record_slot(99, step.observation, step.record, step.state)
        store.record_slot(start, step.observation, step.record, step.state)
        with pytest.raises(ValueError, match="control slot 2, start 1: cannot be recorded"):
            store.record_slot(start, step.observation, step.record, step.state)
        assert [r["control_slot"] for r in store.decisions()] == [1, 2]


def test_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    RunStore.create(tmp_path, config="").close()
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=rf"version {SCHEMA_VERSION + 1}, .* reads up to {SCHEMA_VERSION}"):
        RunStore.open(tmp_path)


def test_what_is_no_run_record_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"run\.sqlite: no run record there"):
        RunStore.open(tmp_path)
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("CREATE TABLE other (x)")
    with pytest.raises(StoreError, match="is not a run record"):
        RunStore.open(tmp_path)
    (tmp_path / "run.sqlite").write_bytes(b"not a database at all, but long enough" * 100)
    for write in (False, True):
        with pytest.raises(StoreError, match=r"run\.sqlite: file is not a database"):
            RunStore.open(tmp_path, write=write)


HUGE_NUMBER = b'{"reports": [], "commands": [], "frames": {"%s": [%d]}}' % (
    FRAME_COLUMNS[0].encode(),
    1 << 64,
)
DEEP = b'{"reports": ' + b"[" * 100_000


@pytest.mark.parametrize("damaged", [b"\0\xff", zlib.compress(HUGE_NUMBER), zlib.compress(DEEP)])
def test_a_damaged_row_is_named(tmp_path: Path, damaged: bytes) -> None:
    with RunStore.create(tmp_path, config="") as store:
        start = record(store, new_loop(), 3)
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("UPDATE control_slots SET observation = ? WHERE control_slot = 2", (damaged,))
    with RunStore.open(tmp_path) as store:
        with pytest.raises(StoreError, match=r"row 2 \(cell cell-1, control slot 2\): observation"):
            list(store.slots(start))
        assert len(list(store.decisions())) == 3


def test_a_file_cut_short_is_an_error_that_names_it(tmp_path: Path) -> None:
    with RunStore.create(tmp_path, config="") as store:
        record(store, new_loop(), 40)
    path = tmp_path / "run.sqlite"
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(StoreError, match=r"run\.sqlite"), RunStore.open(tmp_path) as store:
        list(store.decisions())


def test_a_folder_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"file/run: cannot be written"):
        RunStore.create(tmp_path / "file" / "run", config="")
    RunStore.create(tmp_path / "run", config="").close()
    with pytest.raises(StoreError, match="there is a run already"):
        RunStore.create(tmp_path / "run", config="")


def test_a_run_opened_to_be_read_refuses_to_write(tmp_path: Path) -> None:
    RunStore.create(tmp_path, config="").close()
    with RunStore.open(tmp_path) as store, pytest.raises(StoreError, match="opened to be read"):
        store.record_event(0, "", "x")


def test_a_removed_file_is_noticed(tmp_path: Path) -> None:
    with RunStore.create(tmp_path, config="") as store:
        (tmp_path / "run.sqlite").unlink()
        with pytest.raises(StoreError, match="has been removed"):
            store.record_event(0, "", "x")


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from controller.loop import ControlLoop
from controller.store.run import RunStore, StoreError
from tests import builders
from tests.store.builders import steps
loop = ControlLoop(builders.loop_spec())
store = RunStore.create(Path(sys.argv[1]), config="")
start = store.record_start(0, "cell-1", loop.spec.to_dict(), loop.to_state())
resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))
error, good = "", 0
for step in steps(loop, 500, 400 * builders.MS):
    try:
        store.record_slot(start, step.observation, step.record, step.state)
        good = loop.control_slot
    except StoreError as refused:
        error = error or str(refused)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
with RunStore.open(Path(sys.argv[1]), write=True) as store:
    store.record_slot(start, step.observation, step.record, step.state)
    last = list(store.decisions())
    print(json.dumps({"error": error, "good": good, "slots": [r["control_slot"] for r in last],
                      "state": store.latest_state("cell-1")["control_slot"]}))
"""


def test_a_full_disk_is_named_and_what_was_recorded_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "run.sqlite" in told["error"]
    assert told["slots"] == list(range(1, told["good"] + 2)) and told["good"] > 3
    assert told["state"] == told["good"] + 1


def test_retention_by_count_keeps_the_newest_and_the_latest_state(tmp_path: Path) -> None:
    loop = new_loop()
    keep = Retention(max_slots=10, batch=5)
    with RunStore.create(tmp_path, config="", retention=keep) as store:
        store.record_event(builders.T0 - 1, "cell-1", "old")
        start = record(store, loop, 80)
        while store.prune(0):
            pass
        left = [r["control_slot"] for r in store.decisions()]
        assert left == list(range(71, 81))
        assert store.latest_state("cell-1") == plain(loop.to_state())
        (only,) = store.starts()
        assert only.id == start and only.pruned == 70
        assert list(store.events()) == []


def test_retention_by_age_goes_in_batches_while_recording(tmp_path: Path) -> None:
    """Nobody calls prune: the record keeps itself bounded."""
    day_slots = 40
    loop = new_loop()
    keep = Retention(max_days=1.0, batch=50)
    with RunStore.create(tmp_path, config="", retention=keep) as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for step in steps(loop, 6 * day_slots, 400 * builders.MS):
            number = step.record["control_slot"]
            old = {**step.record, "time_ns": builders.T0 + number * DAY_NS // day_slots}
            store.record_slot(start, step.observation, old, step.state)
        left = [r["control_slot"] for r in store.decisions()]
        assert left[-1] == 6 * day_slots
        assert day_slots <= len(left) <= day_slots + 16


READER = """
import os, sys
from controller.store.run import RunStore
if os.geteuid() == 0:
    os.setuid(65534)
assert not os.access(sys.argv[1], os.W_OK)
print(len(list(RunStore.open(sys.argv[1]).decisions())))
"""


def test_a_finished_run_on_a_read_only_medium_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(name) / "run"
        with RunStore.create(folder, config="") as store:
            record(store, new_loop(), 3)
        os.chmod(folder, 0o555)
        done = subprocess.run(
            [sys.executable, "-c", READER, str(folder)], capture_output=True, text=True, timeout=60
        )
        os.chmod(folder, 0o755)
    assert done.stdout == "3\n", done.stderr


def test_a_cells_last_start_stays_even_with_all_its_slots_gone(tmp_path: Path) -> None:
    with RunStore.create(tmp_path, config="", retention=Retention(max_days=1.0)) as store:
        for _ in range(2):
            record(store, new_loop(), 4)
        while store.prune(builders.T0 + 10 * DAY_NS):
            pass
        assert list(store.decisions()) == []
        assert [(s.id, s.pruned) for s in store.starts()] == [(2, 4)]
        assert store.latest_state("cell-1") is not None


def test_a_start_whose_slots_are_all_gone_goes_too_unless_it_is_the_last(tmp_path: Path) -> None:
    loop = new_loop()
    with RunStore.create(tmp_path, config="", retention=Retention(max_slots=2)) as store:
        for _ in range(3):
            record(store, loop, 4)
        while store.prune(0):
            pass
        assert [s.id for s in store.starts()] == [3]


@pytest.mark.parametrize("limits", [{"max_slots": 0}, {"max_days": -1.0}, {"batch": 0}])
def test_a_retention_that_is_no_limit_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        Retention(**limits)  # type: ignore[arg-type]


def test_an_observation_survives_the_record_bit_by_bit() -> None:
    observation = builders.observation(3)
    assert Observation.from_dict(plain(observation.to_dict())).to_dict() == observation.to_dict()


def test_the_run_names_its_configuration_by_the_hash_that_the_controller_tells(tmp_path: Path) -> None:
    from controller import config

    text = config.parse("{}").to_yaml()
    with RunStore.create(tmp_path / "run", config=text, seed=1):
        pass
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["config_hash"] == config.parse("{}").digest and len(about["config_hash"]) == 12
