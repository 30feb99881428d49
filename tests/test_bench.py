"""The benchmarks run, at a tiny size: what they measure is not judged here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from controller import config
from tests.bench import __main__ as bench
from tests.bench import memory
from tests.bench.common import Skip, need

EFFORT = 0.003


@pytest.mark.parametrize("name", bench.BENCHMARKS)
def test_a_benchmark_gives_two_figures_and_their_ratio(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the scenario of the memory no flow is on yet in the ten seconds that are emulated here.
    busy = config.load(config.find(memory.SCENARIO), {"emulation.schedule": "always"})
    (tmp_path / "busy.yaml").write_text(busy.to_yaml())
    monkeypatch.setattr(memory, "SCENARIO", str(tmp_path / "busy.yaml"))
    try:
        rows = bench.BENCHMARKS[name].run(EFFORT)
    except Skip as reason:
        pytest.skip(str(reason))
    assert rows
    for row in rows:
        assert row.benchmark == name
        assert all(math.isfinite(f) and f > 0 for f in (row.measured, row.baseline, row.ratio))
        better, worse = row.measured / row.baseline, row.baseline / row.measured
        assert row.ratio in (pytest.approx(better), pytest.approx(worse))
        json.dumps(row.to_dict())
    details = rows[0].details
    if name == "quota-latency":
        counters = details["counters"]
        assert counters["ran_reports_total"] >= details["reports"] and "step_failed_total" not in counters
    if name == "report-rate":
        assert details["lost"] == 0 and details["missed_in_sequence"] == 0
        assert details["counters"]["ran_reports_total"] == details["reports_a_round"]
    if name == "memory":
        assert details["control_slots"] == 2 and details["reports_dropped"] == 0
        assert details["counters"]["store_slots_total"] == 2 and details["run_folder_mib_per_h"] > 0
        assert details["counters"]["qos_frames_total"] > 0


def test_the_table_is_printed_and_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_effort: float) -> list[bench.Row]:
        need("no_such_module_of_ours")
        return []

    monkeypatch.setattr(bench.BENCHMARKS["policies"], "run", missing)
    assert bench.main(["--only", "emulation", "--only", "policies", "--effort", str(EFFORT)]) == 0
    out = capsys.readouterr().out
    assert "the cell alone" in out and ">= 500 s/s" in out
    assert "skipped: policies: no_such_module_of_ours is not installed" in out


def test_a_benchmark_that_fails_is_told_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_effort: float) -> list[bench.Row]:
        raise RuntimeError("no answer")

    monkeypatch.setattr(bench.BENCHMARKS["policies"], "run", broken)
    arguments = ["--json", "--only", "policies", "--only", "emulation", "--effort", str(EFFORT)]
    assert bench.main(arguments) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == {"policies": "RuntimeError: no answer"}
    assert [r["benchmark"] for r in told["rows"]] == ["emulation"]
