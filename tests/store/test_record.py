"""Records of version 1 (tests/store/version-1) read as the present ones."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from controller.core.spec import LoopSpec
from controller.loop import ControlLoop
from controller.slicing.maxmin import FAIR
from controller.store import record, report
from controller.store.run import SCHEMA_VERSION, RunStore, StoreError
from controller.store.summary import Summary

SAVINGS = ("bs_power_saving", "ue_power_saving")
OLD = Path(__file__).with_name("version-1")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Two slices, all modes, every command, an arbiter's cut, a restart: 20 control slots of two starts."""
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_an_old_run_replays_without_a_differing_decision(old: Path) -> None:
    compared = 0
    modes = set()
    with RunStore.open(old) as store:
        for start in store.starts():
            loop = ControlLoop(LoopSpec.from_dict(start.spec))
            assert loop.load_state(start.state) == ()
            for slot in store.slots(start.id):
                assert json.loads(json.dumps(loop.step(slot.observation).to_record())) == slot.decision
                modes.add(slot.decision["mode"])
                compared += 1
    assert compared == 20 and modes == {"active", "frozen", "released"}


def test_an_old_run_is_summed_up_as_before(old: Path) -> None:
    summary = Summary()
    with RunStore.open(old) as store:
        for decision in store.decisions():
            summary.add(decision)
    got = summary.result()["cells"]["cell-1"]["slices"]
    expected = json.loads((OLD / "summary.json").read_text())["cells"]["cell-1"]["slices"]
    new = [{name: of.pop(name) for name in of.keys() - expected[s].keys()} for s, of in got.items()]
    assert [set(of) for of in new] == [{"explored", "rescued"}] * 2
    savings = [(of.pop(name), expected[s].pop(name)) for s, of in got.items() for name in SAVINGS]
    assert got == expected and all(now == pytest.approx(then, rel=1e-12) for now, then in savings)
    # It has what a test of an upgrade needs.
    assert {"arbiter cut", "frozen", "quota not honoured"} <= set(got["a"]["unattributed"])


def test_an_old_run_has_a_report(old: Path) -> None:
    pytest.importorskip("matplotlib")
    page, summary = report.build(old)
    assert "Measures, the worst user" in page.read_text() and summary["control_slots"] == 18


def test_an_old_run_is_gone_on_with(old: Path) -> None:
    with RunStore.open(old, write=True) as store:
        state = store.latest_state("cell-1")
        assert state is not None
        (*_, start) = store.starts()
        loop = ControlLoop(LoopSpec.from_dict(start.spec))
        assert loop.load_state(state) == () and loop.control_slot == 20
    with sqlite3.connect(old / "run.sqlite") as db:  # an earlier controller is told so
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


@pytest.mark.parametrize(
    ("column", "what"), [("decision", "decision of version 99"), ("observation", "observation of version 99")]
)
def test_a_record_of_a_version_to_come_is_refused_by_row(old: Path, column: str, what: str) -> None:
    import zlib

    text = json.dumps({"version": 99, "cell": "cell-1"})
    with sqlite3.connect(old / "run.sqlite") as db:
        value = zlib.compress(text.encode()) if column == "observation" else text
        db.execute(f"UPDATE control_slots SET {column} = ? WHERE id = 7", (value,))
    with (
        RunStore.open(old) as store,
        pytest.raises(StoreError, match=rf"run\.sqlite: control_slots row 7 .*{what}, this controller reads"),
    ):
        for start in store.starts():
            list(store.slots(start.id))


def test_what_is_no_record_is_refused_by_row(old: Path) -> None:
    with sqlite3.connect(old / "run.sqlite") as db:
        db.execute("UPDATE control_slots SET decision = '{\"slices\": 3}' WHERE id = 7")
        db.execute('UPDATE starts SET state = \'{"version": 7, "slices": {}}\' WHERE id = 2')
    with RunStore.open(old) as store:
        with pytest.raises(StoreError, match="control_slots row 7: cannot be read"):
            list(store.decisions())
        with pytest.raises(StoreError, match="start 2: cannot be read: loop state of version 7"):
            list(store.starts())


def test_the_present_record_stays_as_it_is() -> None:
    loop = ControlLoop(LoopSpec.from_dict(next(_starts()).spec))
    for value, upgrade in (
        (loop.to_state(), record.upgrade_state),
        (loop.spec.to_dict(), record.upgrade_spec),
    ):
        assert upgrade(value) is value


def _starts():
    with RunStore.open(OLD) as store:
        yield from store.starts()


def test_the_arbiter_s_word_is_the_one_that_it_has_now() -> None:
    assert record._CUT == FAIR
