"""Measured channels: which trace a seed and a UE get, where they begin, and what the table says of it."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.emulator.spec import ChannelTrace
from controller import scenario
from controller.cli import cli
from controller.cli.processes import log_channel
from controller.config import ConfigError, Emulation
from controller.experiments import files
from controller.experiments.runs import RunSpec, execute
from tests.experiments.builders import SMALL, small

HEADER = "t_s,network_mode,rsrp_dbm,snr_db,cqi,dl_kbps,ul_kbps,speed_kmh\n"


def trace(path: Path, seconds: int = 200, cqi: int = 12) -> Path:
    """A trace of a channel that falls to CQI 3 in its second half."""
    rows = [f"{t},5G,-80,20,{cqi if t < seconds / 2 else 3},1,1,0\n" for t in range(seconds)]
    path.write_text(HEADER + "".join(rows))
    return path


def uses(path: Path, seed: int, ues: int = 1) -> tuple[scenario.TraceUse, ...]:
    return scenario.trace_uses(Emulation(channel_trace=str(path), ues=ues, schedule="always"), seed)


def test_no_two_seeds_begin_at_the_same_place_of_a_trace(tmp_path: Path) -> None:
    file = trace(tmp_path / "a.csv")
    starts = [uses(file, seed)[0].start_s for seed in range(20)]
    assert len(set(starts)) == 20 and all(0 <= s < 200 for s in starts)
    # Spread over the whole trace, and the same every time.
    assert all(any(low <= s < low + 50 for s in starts) for low in (0, 50, 100, 150))
    assert starts == [uses(file, seed)[0].start_s for seed in range(20)]


def test_the_ues_of_a_cell_are_spread_over_a_trace(tmp_path: Path) -> None:
    file = trace(tmp_path / "a.csv")
    starts = sorted(use.start_s for use in uses(file, 3, ues=4))
    assert [b - a for a, b in pairwise(starts)] == pytest.approx([50, 50, 50], abs=1)
    assert [use.ue for use in uses(file, 3, ues=4)] == ["ue-1", "ue-2", "ue-3", "ue-4"]


def test_seeds_and_ues_go_through_the_traces_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.csv"):
        trace(tmp_path / name)
    (tmp_path / "README.md").write_text("no trace")
    names = [[Path(use.trace).name for use in uses(tmp_path, seed, ues=2)] for seed in range(4)]
    assert names == [["a.csv", "b.csv"], ["b.csv", "c.csv"], ["c.csv", "a.csv"], ["a.csv", "b.csv"]]


def test_the_cell_begins_where_the_report_says(tmp_path: Path) -> None:
    path = small(tmp_path, SMALL + f"  channel_trace: {trace(tmp_path / 'a.csv')}\n")
    starts = set()
    for seed in (1, 2):
        spec = RunSpec.make(path, "static", seed)
        (ue,) = scenario.testbed_spec(spec.load(), seed).ues
        run = execute(spec)
        (use,) = run.channel
        assert isinstance(ue.channel, ChannelTrace) and ue.channel.start_s == use.start_s
        assert f"a.csv from {use.start_s} of 200 s" in run.row()["channel"]
        starts.add(use.start_s)
    assert len(starts) == 2


def test_what_became_of_the_rows_is_said_once_a_trace(tmp_path: Path) -> None:
    file = trace(tmp_path / "a.csv", 20)
    file.write_text(file.read_text().replace("3,5G", "3,LTE") + "20,5G-NSA,-80,20,9,1,1,0\n")
    path = small(tmp_path, SMALL + f"  channel_trace: {file}\n")
    shown = CliRunner().invoke(cli, ["experiment", str(path), "--policy", "static"]).output
    assert shown.count("channel trace a.csv: 21 rows, 19 used; left out: 2 not 5G (LTE)") == 1
    as_json = CliRunner().invoke(cli, ["experiment", str(path), "--policy", "static", "--json"]).output
    (use, *_) = json.loads(as_json)["channel"]
    assert use["rows"] == {"rows": 21, "used": 19, "left_out": {"not 5G (LTE)": 2}, "notes": []}


def test_the_emulated_gnb_logs_what_became_of_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = trace(tmp_path / "a.csv", 20)
    file.write_text(file.read_text().replace("3,5G", "3,LTE"))
    config = RunSpec.make(small(tmp_path, SMALL + f"  channel_trace: {file}\n"), "static", 1).load()
    with caplog.at_level("INFO"):
        log_channel(config, 1)
    assert caplog.messages == ["channel trace a.csv: 20 rows, 18 used; left out: 2 not 5G (LTE)"]


def test_instances_saved_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"one": 1}'), ("a.yaml", "one: 1")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert files.read(tmp_path / name) == {"one": 1}


def test_another_trace_is_another_run(tmp_path: Path) -> None:
    """A kept result is not taken for that of a trace which has changed since."""
    path = small(tmp_path, SMALL + f"  channel_trace: {trace(tmp_path / 'a.csv')}\n")
    before = RunSpec.make(path, "static", 1).key
    assert RunSpec.make(path, "static", 1).key == before
    trace(tmp_path / "a.csv", cqi=11)
    assert RunSpec.make(path, "static", 1).key != before


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("0,5G,-80,20,12,1,1,0\n100,5G,-80,20,12,1,1,0\n", r"a\.csv: t_s rises by 100 from row to row"),
        ("0,5G,-80,20,x,1,1,0\n", r"a\.csv: row 2: cqi 'x' is not a number"),
        ("0,5G,-80,20,nan,1,1,0\n", r"a\.csv: no row of 5G has a CQI"),
        ("0,LTE,-80,20,12,1,1,0\n", r"a\.csv: no row is 5G"),
        ("", r"a\.csv: no rows"),
    ],
)
def test_a_bad_trace_is_refused_before_anything_runs(tmp_path: Path, rows: str, match: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEADER + rows)
    with pytest.raises(ConfigError, match=match):
        RunSpec.make(small(tmp_path), "static", 1, overrides={"emulation.channel_trace": str(file)})
    out = tmp_path / "out"
    run = CliRunner().invoke(cli, ["experiment", "demo", "--channel-trace", str(file), "--run", str(out)])
    assert run.exit_code == 1 and isinstance(run.exception, ConfigError)
    assert re.search(match, str(run.exception)) and not out.exists()


def test_a_folder_without_traces_and_a_file_that_is_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for name, match in (("none", "none: no channel trace"), ("nosuch.csv", r"nosuch\.csv")):
        overrides = {"emulation.channel_trace": str(tmp_path / name)}
        with pytest.raises(ConfigError, match=match):
            RunSpec.make(small(tmp_path), "static", 1, overrides=overrides)
    run = CliRunner().invoke(cli, ["experiment", "table-v", "--channel-trace", str(tmp_path / "nosuch.csv")])
    assert run.exit_code == 2 and "does not exist" in run.output


def test_the_table_names_its_channel_and_marks_the_paper_s_as_another(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'research'")
    pytest.importorskip("scipy", reason="intervals need the extra 'research'")
    pytest.importorskip("matplotlib", reason="the page needs the extra 'report'")
    for name in ("a.csv", "b.csv"):
        trace(tmp_path / name)
    out = tmp_path / "out"
    options = ("--seeds", "2", "--duration", "10", "--no-oracle", "--jobs", "1", "--out", str(out))
    run = CliRunner().invoke(cli, ["experiment", "table-v", "--channel-trace", str(tmp_path), *options])
    assert run.exit_code == 0, run.output
    (told,) = json.loads((out / "table-v.json").read_text())["tables"]
    assert [(c["seed"], Path(c["trace"]).name) for c in told["channels"]] == [(1, "b.csv"), (2, "a.csv")]
    assert told["channels"][0]["start_s"] == int(200 * 0.618034)
    assert told["off"] is None and len(told["claims"]) == 3
    page = (out / "table-v.html").read_text()
    other = "another channel than this measured one and of whole scenarios, not of 10 s of each"
    for text in (run.output, page):
        assert "b.csv from 123" in text and other in text
    assert "paper, another experiment" in page
