from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import cli
from controller.experiments.mucb1 import table_v
from controller.experiments.results import Results
from controller.experiments.runs import FIGURES
from controller.experiments.stats import estimate
from controller.store.figures import SHEETS
from tests import launch

pytest.importorskip("pyarrow", reason="Parquet needs the extra 'research'")
pytest.importorskip("scipy", reason="intervals need the extra 'research'")
pytest.importorskip("matplotlib", reason="the page needs the extra 'report'")


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> table_v.Table:
    todo = table_v.jobs((1, 2), duration_s=120, scenarios=(2,))
    with Results(tmp_path_factory.mktemp("table") / "x.jsonl") as results:
        assert len(list(table_v.collect(todo, results, 1))) == 10
        assert list(table_v.collect(todo, results, 1)) == []
        return table_v.fill(table_v.Table("described", (1, 2), (2,)), todo, results)


def test_the_paper_s_rows_are_as_printed() -> None:
    assert table_v.paper(4, "mucb1") == pytest.approx(
        {
            "qos_delivery_ratio": 0.933,
            "avg_ul_prb": 48,
            "avg_dl_prb": 10,
            "avg_gpu_mhz": 725,
            "ue_power_saving": 0.29,
            "bs_power_saving": 0.43,
        }
    )
    rows = [table_v.paper(n, s) for n in table_v.SCENARIOS for s in table_v.SCHEMES]
    assert len(rows) == 20 and rows[5]["avg_gpu_mhz"] == 1122
    assert sum(r["qos_delivery_ratio"] for r in rows) == pytest.approx(17.194)


def test_every_cell_stands_beside_the_paper_s_and_the_oracle_s(table: table_v.Table) -> None:
    out = json.loads(json.dumps(table_v.result(table)))
    assert [r["scheme"] for r in out["rows"]] == [*table_v.SCHEMES, "oracle"]
    for row in out["rows"]:
        runs = table.of(2, row["scheme"])
        for name in FIGURES:
            cell = row["figures"][name]
            assert cell["mean"] == pytest.approx(sum(r.figures[name] for r in runs) / 2)
            if row["scheme"] != "oracle" and name != "qos_delivery_ratio_busy":
                assert cell["difference"] == pytest.approx(
                    cell["mean"] - table_v.paper(2, row["scheme"])[name]
                )
    by = {r["scheme"]: r for r in out["rows"]}
    assert by["oracle"]["relative_to_oracle"]["avg_ul_prb"]["mean"] == 1
    assert by["static"]["relative_to_oracle"]["avg_ul_prb"]["mean"] > 1.2
    assert by["static"]["regret"]["total"]["mean"] > by["oracle"]["regret"]["total"]["mean"]
    text = table_v.text(out)
    for word in ("Table V", "UCB1", "clairvoyant", "41.8%", "TCP-based is slightly ahead"):
        assert word in text


def test_a_cell_that_is_off_is_listed_and_one_that_is_not_is_not(table: table_v.Table) -> None:
    out = table_v.result(table)
    listed = {(o["scheme"], o["figure"]): o["off"] for o in out["off"]}
    for row in out["rows"]:
        for name in ("qos_delivery_ratio", *table_v.RESOURCES):
            cell = row["figures"][name]
            if row["scheme"] == "oracle":
                assert (row["scheme"], name) not in listed
                continue
            relative = cell["difference"] / (1 if name.startswith("qos") else cell["paper"])
            limit = table_v.QOS_OFF if name.startswith("qos") else table_v.RESOURCE_OFF
            assert ((row["scheme"], name) in listed) == (abs(relative) > limit)


def test_claims_are_judged_by_the_runs() -> None:
    """Give every scheme the paper's own QoS: all three claims hold; swap two schemes: they do not."""

    def judged(swap: bool) -> list[bool]:
        table = table_v.Table("described", (1,), table_v.SCENARIOS)
        for n in table_v.SCENARIOS:
            for scheme in table_v.SCHEMES:
                other = {"mucb1": "ucb1", "ucb1": "mucb1"}.get(scheme, scheme) if swap else scheme
                table.runs[n, scheme, 1] = _WithFigures(table_v.paper(n, other))  # type: ignore[assignment]
        return [c["holds"] for c in table_v.claims(table)]

    assert judged(swap=False) == [True, True, True]
    assert judged(swap=True) == [False, False, False]


class _WithFigures:
    def __init__(self, figures: dict[str, float]) -> None:
        self.figures = figures


def test_rules_are_in_what_is_run() -> None:
    def played(rules: str) -> tuple[object, ...]:
        specs = [job.spec for job in table_v.jobs((1,), rules=rules, scenarios=(2,))]
        configs = [spec.load() for spec in specs]
        assert {spec.policy for spec in specs} == set(table_v.SCHEMES)
        (one,) = {
            (
                c.cells[0].slices[0].options.queue,  # type: ignore[attr-defined]
                c.cells[0].slices[0].options.late_frames,  # type: ignore[attr-defined]
                c.control.guard_ms,
                None if c.emulation is None else c.emulation.stress.hiccup_rate_hz,
            )
            for c in configs
        }
        return one

    assert played("paper") == (True, True, 200.0, None)
    assert played("authors") == (False, False, 0.0, None)
    assert played("recorded") == (False, False, 0.0, table_v.RECORDED_HICCUPS_HZ)


def test_the_interval_is_student_s() -> None:
    e = estimate([1.0, 2.0, 3.0, None])
    assert e is not None and e.mean == 2 and e.half == pytest.approx(4.302653 / 3**0.5)
    one = estimate([0.5])
    assert one is not None and one.half is None
    assert estimate([None]) is None


def test_a_seed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"each once, not \[1, 1\]"):
        table_v.jobs([1, 1])
    with pytest.raises(ValueError, match="one or more"):
        table_v.jobs([])
    run = CliRunner().invoke(cli, ["experiment", "table-v", "--seeds", "4,7,4"])
    assert run.exit_code == 2 and "a seed is there twice" in run.output


def test_the_command_writes_json_parquet_and_a_page(tmp_path: Path) -> None:
    import pyarrow.parquet

    run = CliRunner().invoke(
        cli,
        [
            *("experiment", "table-v", "--seeds", "3,", "--schedule", "published", "--duration", "30"),
            *("--jobs", "2", "--no-oracle", "--out", str(tmp_path), "--json"),
        ],
    )
    assert run.exit_code == 0, run.output
    out = json.loads(run.stdout)
    assert [t["schedule"] for t in out["tables"]] == ["published"]
    assert out["tables"] == json.loads((tmp_path / "table-v.json").read_text())["tables"]
    # The paper's rows are of a whole hour.
    assert out["tables"][0]["off"] is None and "not of 30 s" in out["tables"][0]["other"]
    rows = pyarrow.parquet.read_table(tmp_path / "table-v.parquet").to_pylist()
    assert len(rows) == 20 and {r["schedule"] for r in rows} == {"published"}
    slots = pyarrow.parquet.read_table(tmp_path / "table-v-slots.parquet")
    assert slots.num_rows == 20 * 6
    page = (tmp_path / "table-v.html").read_text()
    assert page.count("<svg") == len(SHEETS) + 5 * 2 and "Does not hold" in page
    assert "src=" not in page and "http://www.w3.org" in page


def test_all_rules_stand_side_by_side(tmp_path: Path) -> None:
    import pyarrow.parquet

    arguments = ["--rules", "all", "--duration", "10", "--no-oracle", "--out", str(tmp_path)]
    run = CliRunner().invoke(cli, ["experiment", "table-v", *arguments])
    assert run.exit_code == 0, run.output
    rows = pyarrow.parquet.read_table(tmp_path / "table-v.parquet").to_pylist()
    page = (tmp_path / "table-v.html").read_text()
    for rules in table_v.RULES:
        assert f"Table V, rules {rules}, schedule described" in run.output
        assert f"Rules {rules}, schedule described" in page
        assert sum(r["rules"] == rules for r in rows) == 20
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_page_with_an_oracle_shows_regret_and_what_it_plays(table: table_v.Table) -> None:
    from markupsafe import escape

    from controller.experiments.mucb1 import page

    html = page.build([table], [table_v.result(table)])
    assert html.count("<svg") == len(SHEETS) + 3
    assert "What the clairvoyant plays" in html and "Regret against" in html
    for r in table_v.REASONS:
        assert str(escape(r.text)) in html


# ---- a run that is broken off ----------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (
    "experiment",
    "table-v",
    "--seeds",
    "3,",
    "--duration",
    "60",
    "--no-oracle",
    "--jobs",
    "2",
    "--json",
)


def start(out: Path) -> subprocess.Popen[bytes]:
    code = "from controller.cli import main; main()"
    log = (out.parent / "log").open("wb")
    with log:
        return subprocess.Popen(
            launch.python(["-c", code, *COMMAND, "--out", str(out)]),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


def lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True) if file.exists() else []


def wait_for_results(process: subprocess.Popen[bytes], out: Path, n: int) -> None:
    end = time.monotonic() + 300
    while (
        b"".join(lines(out / "table-v.jsonl")).count(b"\n") < n
        and time.monotonic() < end
        and process.poll() is None
    ):
        time.sleep(0.02)
    assert process.poll() is None, (out.parent / "log").read_text()


def again(out: Path) -> dict:
    run = CliRunner().invoke(cli, [*COMMAND, "--out", str(out)])
    assert run.exit_code == 0, run.output
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return again(tmp_path_factory.mktemp("whole") / "out")


def test_after_kill_9_the_same_command_does_what_is_missing_and_no_more(
    tmp_path: Path, uninterrupted: dict
) -> None:
    out = tmp_path / "out"
    process = start(out)
    wait_for_results(process, out, 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = out / "table-v.jsonl"
    before = [line for line in lines(kept) if line.endswith(b"\n")]
    assert 4 <= len(before) < 20 and not (out / "table-v.json").exists()
    with kept.open("ab") as file:
        file.write(b'{"key": "torn')  # what a crash in the middle of a line leaves
    result = again(out)
    assert (result["already_there"], result["runs"]) == (len(before), 20)
    after = lines(kept)
    assert after[: len(before)] == before
    keys = [json.loads(line)["key"] for line in after]
    assert len(keys) == 20 == len(set(keys))
    assert result["tables"] == uninterrupted["tables"]
    # A third time nothing is left to do.
    assert again(out)["already_there"] == 20 and lines(kept) == after


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out)
    wait_for_results(process, out, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    log = (tmp_path / "log").read_text()
    assert "table-v.jsonl: the same command again goes on" in log and "Traceback" not in log


def test_more_seeds_keep_those_that_are_there_and_fresh_forgets_them(tmp_path: Path) -> None:
    options = ("--duration", "10", "--no-oracle", "--jobs", "1", "--out", str(tmp_path / "out"), "--json")

    def there(*more: str) -> int:
        run = CliRunner().invoke(cli, ["experiment", "table-v", *more, *options])
        assert run.exit_code == 0, run.output
        return int(json.loads(run.stdout)["already_there"])

    assert [there("--seeds", "1"), there("--seeds", "2"), there("--seeds", "2", "--fresh")] == [0, 20, 0]


def test_an_oracle_comes_back_from_its_row_as_it_was(tmp_path: Path) -> None:
    (job,) = table_v.jobs((1,), duration_s=10, scenarios=(1,))[:1]
    assert job.scheme == "oracle"
    row = json.loads(json.dumps(table_v.work(job)))
    found = table_v.of_row(job, row)
    assert isinstance(found, table_v.Oracle)
    assert json.loads(json.dumps({**table_v.work(job)}))["oracle"] == found.reference.to_dict()
    assert found.run.to_dict() == row["run"]
    with pytest.raises(ValueError, match="mucb1-1, clairvoyant, seed 1: not a result of table-v"):
        table_v.of_row(job, {"key": job.key})


def test_other_code_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another emulator gave is not taken for what this one gives."""
    from controller.experiments import runs

    before = [job.key for job in table_v.jobs((1,), scenarios=(1,))]
    assert len(set(before)) == 5
    monkeypatch.setattr(runs, "_code", lambda: "other")
    assert not set(before) & {job.key for job in table_v.jobs((1,), scenarios=(1,))}


# ---- cells that are off ----------------------------------------------------------------------------------


def rows_of(scenario: int, scheme: str, **changed: float) -> list[dict]:
    """A row whose cells are the paper's but for some."""
    figures = {
        name: {"mean": value + changed.get(name, 0.0), "paper": value, "difference": changed.get(name, 0.0)}
        for name, value in table_v.paper(scenario, scheme).items()
    }
    return [
        {
            "scenario": scenario,
            "scheme": scheme,
            "figures": figures,
            "hop_delivery_ratio_busy": {"ul": {"mean": 0.9}, "edge": {"mean": 0.8}, "dl": {"mean": None}},
        }
    ]


def test_every_cell_that_is_off_has_its_reasons_or_says_that_none_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasons = (
        table_v.Reason("Too slow. Why.", figures=("avg_ul_prb",), sign=1),
        table_v.Reason("Something else. Why.", figures=("avg_gpu_mhz",)),
    )
    monkeypatch.setattr(table_v, "REASONS", reasons)

    def off(**changed: float) -> dict[str, tuple[str | None, list[int]]]:
        rows = rows_of(1, "mucb1", **changed)
        return {o["figure"]: (o["follows"], o["reasons"]) for o in table_v._off("described", rows)}

    assert off() == {}
    # 30 PRB more cost 17 points of the UE's saving: both have the reason of the PRBs.
    saving = table_v.ue_power_saving(63) - table_v.ue_power_saving(33)
    assert off(avg_ul_prb=30, ue_power_saving=saving) == {
        "avg_ul_prb": (None, [1]),
        "ue_power_saving": ("avg_ul_prb", [1]),
    }
    # Fewer PRBs have no reason here, and neither has their saving.
    saving = table_v.ue_power_saving(13) - table_v.ue_power_saving(33)
    assert off(avg_ul_prb=-20, ue_power_saving=saving) == {
        "avg_ul_prb": (None, []),
        "ue_power_saving": ("avg_ul_prb", []),
    }
    # A saving that its PRBs do not explain follows from nothing.
    assert off(ue_power_saving=-0.1) == {"ue_power_saving": (None, [])}
    assert off(avg_ul_prb=30, ue_power_saving=-0.4)["ue_power_saving"] == (None, [])
    assert off(qos_delivery_ratio=-0.049, avg_gpu_mhz=90, bs_power_saving=0.049) == {}
    assert off(avg_gpu_mhz=-100) == {"avg_gpu_mhz": (None, [2])}
    (one,) = table_v._off("described", rows_of(1, "mucb1", qos_delivery_ratio=-0.06))
    assert table_v.why(one) == "no reason known" and one["weakest_hop"] == "edge"


def test_text_and_page_show_every_cell_beside_the_paper_s(table: table_v.Table) -> None:
    from controller.experiments.mucb1 import page

    out = table_v.result(table)
    text, html = table_v.text(out), page.build([table], [out])
    printed = [re.sub(r"<[^>]*>", " ", row) for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)]
    for scheme in table_v.SCHEMES:
        told = table_v.paper(2, scheme)
        (row,) = (r for r in out["rows"] if r["scheme"] == scheme)
        at = next(i for i, r in enumerate(printed) if r.split()[:1] == [table_v.NAMES[scheme]])
        for name in table_v.PAPER_FIGURES:
            ratio = name not in table_v.RESOURCES
            mean = row["figures"][name]["mean"]
            digits = 0 if name == "avg_gpu_mhz" else 1
            assert (f"{100 * mean:.1f} %" if ratio else f"{mean:.{digits}f}") in printed[at], (scheme, name)
            assert (f"{100 * told[name]:.1f} %" if ratio else f"{told[name]:.0f}") in printed[at + 1]
        below = text.splitlines()
        at = next(i for i, line in enumerate(below) if line.startswith(table_v.NAMES[scheme]))
        figures = f"{100 * told['qos_delivery_ratio']:.1f}% " + " ".join(
            [f"{told[name]:.0f}" for name in table_v.RESOURCES]
            + [f"{100 * told[name]:.0f}%" for name in ("ue_power_saving", "bs_power_saving")]
        )
        assert below[at + 1].split() == figures.split()
    assert out["off"]
    for o in out["off"]:
        assert f"scenario {o['scenario']} {table_v.NAMES[o['scheme']]}" in text
        assert re.search(rf"{table_v.LABELS[o['figure']]} +[-+][0-9.]+.*{re.escape(table_v.why(o))}", text)
    assert html.count("no reason known") >= sum(not o["reasons"] for o in out["off"])
