"""A run as tables: what is exported and loaded is what is on record, whatever is recorded meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from controller.core.observation import Frames
from controller.loop import ControlLoop
from controller.store import rows as rows_module
from controller.store import tables
from controller.store.run import RunStore, StoreError
from controller.store.summary import Summary
from tests import builders
from tests.experiments.builders import small
from tests.store.builders import steps

pytest.importorskip("pyarrow", reason="tables of a run need the extra 'research'")
pandas = pytest.importorskip("pandas", reason="tables of a run need the extra 'research'")

import pyarrow.parquet  # noqa: E402

from controller.store.export import export  # noqa: E402
from controller.store.load import load_run  # noqa: E402

OLD = Path(__file__).with_name("version-1")
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of the emulated cell."""
    folder = tmp_path_factory.mktemp("rundata")
    done = run("experiment", small(folder), "--policy", "ucb1", "--run", str(folder / "run"))
    assert done.exit_code == 0, done.output
    return folder / "run"


def of(store: RunStore) -> list[Any]:
    (start,) = store.starts()
    return list(store.slots(start.id))


def test_decisions_and_measures_are_those_on_record(recorded: Path) -> None:
    data = load_run(recorded)
    summary = Summary()
    with RunStore.open(recorded) as store:
        slots = of(store)
        for record in store.decisions():
            summary.add(record)
    first, last = slots[0].decision, slots[-1].decision
    d = data.decisions
    assert len(d) == 3 * len(slots) and list(d.lever[:3]) == ["ul", "edge", "dl"]
    row = d[(d.control_slot == first["control_slot"]) & (d.lever == "dl")].iloc[0]
    choice = first["slices"]["ar"]["choices"][2]
    assert (row.method, row.action, row.why) == ("ucb1", choice["action"], choice["why"])
    assert list(row.actions) == choice["actions"] and row.time.value == first["time_ns"]
    assert row.granted == first["slices"]["ar"]["granted"]["dl"][0] == row.in_force
    open_ = d[d.control_slot == last["control_slot"]]
    assert open_.met.isna().all() and open_.length_s.isna().all() and not open_.action.isna().any()
    # The figures of the summary come out of the table: outcome and allocation are of one control slot.
    of_summary = summary.result()["cells"]["cell-1"]["slices"]["ar"]
    over = d[d.length_s.notna()]
    for lever, name in (("ul", "avg_ul_prb"), ("dl", "avg_dl_prb"), ("edge", "avg_gpu_mhz")):
        part = over[over.lever == lever]
        assert (part.in_force * part.length_s).sum() / part.length_s.sum() == pytest.approx(of_summary[name])
    judged = over[(over.lever == "ul") & over.met.notna()]
    ratio = (judged.met.astype(float) * judged.length_s).sum() / judged.length_s.sum()
    assert ratio == pytest.approx(of_summary["qos_delivery_ratio"])
    unattributed = d.groupby(["unattributed", "lever"]).size().unstack(fill_value=0).to_dict("index")
    assert {why: {k: n for k, n in by.items() if n} for why, by in unattributed.items()} == of_summary[
        "unattributed"
    ]
    m = data.measures
    closed = slots[20].decision["slices"]["ar"]["closed"]
    had = m[m.control_slot == slots[20].decision["control_slot"] - 1]
    assert {(r.measure, r.user): [r.value, r.target] for r in had.itertuples()} == {
        (name, user): pair for name, one in closed["measures"].items() for user, pair in one["users"].items()
    }


def test_frames_and_reports_are_those_observed(recorded: Path) -> None:
    data = load_run(recorded)
    tables_ = data.read("frames", "reports", "enforcement")
    with RunStore.open(recorded) as store:
        slots = of(store)
    observation = slots[10].observation
    f = tables_["frames"]
    mine = f[f.control_slot == observation.control_slot]
    frames: Frames = observation.frames
    assert len(f) == sum(len(s.observation.frames) for s in slots) and len(mine) == len(frames) > 3
    assert [t.value for t in mine.ue_sent] == frames.ue_sent.tolist()
    assert [0 if t is pandas.NaT else t.value for t in f.ue_received].count(0) == sum(
        int((s.observation.frames.ue_received == 0).sum()) for s in slots
    )
    assert list(mine.flow) == [observation.flows[i].flow for i in frames.flow]
    r = tables_["reports"]
    mine = r[r.control_slot == observation.control_slot]
    assert list(mine.ul_mcs) == [mcs for report in observation.reports for mcs in report.ul.mcs]
    assert list(mine.snr_db) == [snr for report in observation.reports for snr in report.snr_db]
    assert list(tables_["enforcement"].gpu_mhz) == [s.observation.gpu.sm_mhz for s in slots]


def test_what_is_exported_is_what_is_loaded(recorded: Path, tmp_path: Path) -> None:
    done = run("export", str(recorded), "--out", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    loaded, exported = load_run(recorded).read(), load_run(tmp_path / "out").read()
    assert loaded.keys() == exported.keys() == said["rows"].keys() == tables.TABLES.keys()
    for name, frame in loaded.items():
        assert frame.equals(exported[name]) and len(frame) == said["rows"][name], name
    schema = pyarrow.parquet.read_schema(tmp_path / "out" / "reports.parquet")
    assert schema.field("snr_db").metadata == {b"description": b"SNR of the PUSCH.", b"unit": b"dB"}
    assert not schema.field("ue_id").nullable and schema.field("cqi").nullable
    assert load_run(recorded).config["cells"][0]["id"] == "cell-1"


def test_an_export_replaces_nothing_unasked_and_leaves_nothing_where_it_fails(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(recorded, out, ["events", "decisions"])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = run("export", str(recorded), "--out", str(out), "--tables", "measures,events")
    assert refused.exit_code != 0 and f"{out}/events.parquet: there already; --force" in str(
        refused.exception
    )
    unknown = run("export", str(recorded), "--out", str(out), "--tables", "decision")
    assert "unknown table decision; tables: decisions, measures" in str(unknown.exception)

    def fails(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rows_module, "_events", fails)
        with pytest.raises(OSError, match=f"{out}: cannot be written: No space left"):
            export(recorded, out, ["decisions", "measures", "events"], force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run("export", str(recorded), "--out", str(out), "--force").exit_code == 0
    assert {path.stem for path in out.iterdir()} == set(tables.TABLES)


def test_batches_are_of_bounded_size(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "BATCH", 100)
    with RunStore.open(recorded) as store:
        sizes: dict[str, list[int]] = {}
        for name, batch in rows_module.batches(store, ["frames", "decisions", "events"]):
            sizes.setdefault(name, []).append(batch.num_rows)
    most = max(len(slot.observation.frames) for slot in of(RunStore.open(recorded)))
    assert len(sizes["frames"]) > 5 and max(sizes["frames"]) < 100 + most
    assert sum(sizes["frames"]) == len(load_run(recorded).frames)
    assert max(sizes["decisions"]) <= 102


def test_a_run_that_is_being_written_is_exported_as_it_was_at_one_moment(tmp_path: Path) -> None:
    loop = ControlLoop(builders.loop_spec())
    with RunStore.create(tmp_path / "run", config="") as writer:
        start = writer.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())

        def record(n: int) -> None:
            for step in steps(loop, n):
                writer.record_slot(start, step.observation, step.record, step.state)
                writer.record_event(builders.T0, "cell-1", "event")

        record(5)
        rows = export(tmp_path / "run", tmp_path / "out", ["decisions", "events"], progress=lambda: record(1))
    assert rows == {"decisions": 5 * 3, "events": 5}
    with RunStore.open(tmp_path / "run") as store:
        assert len(list(store.decisions())) == 5 + 6


def test_parts_are_told_apart(tmp_path: Path) -> None:
    loop = ControlLoop(builders.loop_spec())
    with RunStore.create(tmp_path, config="seed: 1\n", seed=1) as writer:
        for part, at_ns in (("seed: 1\n", builders.T0), ("seed: 2\n", builders.T0 + 10**12)):
            writer.begin_part(at_ns, part, seed=int(part[6]))
            start = writer.record_start(at_ns, "cell-1", loop.spec.to_dict(), loop.to_state())
            for step in steps(loop, 3):
                writer.record_slot(start, step.observation, step.record, step.state)
            writer.record_event(at_ns + 1, "", "reloaded")
    data = load_run(tmp_path)
    assert data.decisions.groupby("part").size().to_dict() == {1: 9, 2: 9}
    assert list(data.parts.seed) == [1, 2] and data.parts.changed[1] == "seed: 1 -> 2"
    assert list(data.events.part)[-1] == 2 and data.config == {"seed": 2}
    assert list(data.starts.part) == [1, 2]


def test_a_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old = Path(shutil.copytree(OLD, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    data = load_run(old).read()
    assert set(data["decisions"].part) == {1} and list(data["starts"].start) == [1, 2]
    assert len(data["frames"]) and data["reports"].ul_bler.isna().all() and data["reports"].cqi.isna().all()
    assert set(data["measures"].measure) == {"round_trip", "ul", "edge", "dl"}
    assert {name: (old / name).read_bytes() for name in before} == before


def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"neither a run folder \(run\.sqlite\) nor an export"):
        load_run(tmp_path)
    old = Path(shutil.copytree(OLD, tmp_path / "run"))
    with RunStore.open(old) as store, pytest.raises(ValueError, match="unknown table frame;"):
        load_run(old).read("frame")
        del store
    export(old, tmp_path / "out", ["events"])
    with pytest.raises(StoreError, match=r"frames\.parquet: this export has no such table"):
        _ = load_run(tmp_path / "out").frames


def test_the_page_of_the_tables_is_that_of_the_code() -> None:
    assert (ROOT / "docs" / "run-data.md").read_text() == tables.markdown(), (
        "stale: prbandit export --schema > docs/run-data.md"
    )
    assert run("export", "--schema").stdout == tables.markdown()
    for table in tables.TABLES.values():
        assert len({c.name for c in table.columns}) == len(table.columns)
        assert all(c.type in tables.TYPES and c.doc for c in table.columns)


def test_the_top_level_module_needs_no_extra_to_be_imported() -> None:
    code = (
        "import sys; sys.modules.update(pandas=None, pyarrow=None, scipy=None, numba=None, matplotlib=None)\n"
        "import prbandit\n"
        "try: prbandit.load_run('nowhere')\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    wanted = "data frames of a run needs the package pandas: .venv/bin/pip install -e '.[research]'"
    assert done.stdout.strip() == wanted
