from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controller import policies
from controller.cli import cli
from controller.config import ConfigError
from controller.experiments.runs import RunSpec
from controller.experiments.study import jobs, page
from controller.experiments.study import result as result_module
from controller.experiments.study.conditions import CONDITIONS

pytest.importorskip("pyarrow", reason="Parquet needs the extra 'research'")
pytest.importorskip("scipy", reason="intervals need the extra 'research'")
pytest.importorskip("matplotlib", reason="the page needs the extra 'report'")

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
TINY = (
    *("experiment", "study", "--seeds", "2", "--scenarios", "2", "--policies", "static,mucb1"),
    *("--conditions", "emulated,measured,gpu-slow", "--channel-trace", "/nowhere/traces"),
    *("--duration", "90", "--oracle-seeds", "0", "--jobs", "1", "--json"),
)


def study(out: Path, *more: str) -> dict[str, Any]:
    run = CliRunner().invoke(cli, [*TINY, "--out", str(out), *more])
    assert run.exit_code == 0, run.output
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "out"


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    return study(folder)


# ---- what there is to do ---------------------------------------------------------------------------------


def test_by_default_it_is_everything(tmp_path: Path) -> None:
    plan = jobs.plan(range(1, 21), channel_trace=tmp_path)
    assert plan.policies == policies.names() and len(plan.seeds) == 20 and not plan.skipped
    assert plan.conditions["emulated"] == plan.conditions["measured"] == (1, 2, 3, 4, 5)
    assert {s for name, s in plan.conditions.items() if CONDITIONS[name].stress} == {(1, 2)}
    assert {
        "floor-1",
        "floor-5",
        "floor-15",
        "demand-up",
        "rate-half",
        "rate-double",
    } <= plan.conditions.keys()
    assert {"gpu-slow", "unsynchronised", "cross-ul", "cross-dl"} <= plan.conditions.keys()
    assert plan.searched("emulated") == plan.searched("measured") == (1, 2, 3) and not plan.searched(
        "floor-1"
    )


def test_every_condition_is_a_configuration_and_another_run() -> None:
    named = [name for name in CONDITIONS if name != "measured"]
    plan = jobs.plan((1, 2), policies=("static",), conditions=named, scenarios=(2,), duration_s=60)
    todo = jobs.jobs(plan)
    assert [j.spec.seed for j in todo] == sorted(j.spec.seed for j in todo)
    assert len({j.key for j in todo}) == len(todo) == 2 * len(named) + 2
    stress = {
        j.condition: j.spec.load().emulation.stress  # type: ignore[union-attr]
        for j in todo
        if j.spec.seed == 1
    }
    assert len({str(s) for s in stress.values()}) == len(named)
    assert stress["demand-up"].at_s == stress["gpu-slow"].at_s == 30 and stress["emulated"].at_s is None
    # One that is cut out of a list for all seeds is the one that it would be by itself.
    alone = RunSpec.at_full("mucb1-2", 2, overrides=CONDITIONS["floor-5"].overrides, duration_s=60)
    assert alone in [j.spec for j in todo]


def test_stresses_are_played_where_they_are_asked_for() -> None:
    def scenarios(**more: Any) -> Sequence[int]:
        return jobs.plan((1,), conditions=("floor-5",), **more).conditions["floor-5"]

    assert scenarios() == (1, 2) and scenarios(scenarios=(2, 4)) == (2,)
    assert scenarios(scenarios=(3, 4)) == (3, 4) and scenarios(stressed=(5,)) == (5,)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"policies": ("static", "thompson")}, "unknown policy 'thompson'; policies: static, aimd"),
        ({"policies": ("static", "static")}, "policies must be one or more, each once, not static, static"),
        ({"conditions": ("sunshine",)}, "conditions: sunshine is none of emulated, measured"),
        ({"scenarios": (6,)}, "scenarios: 6 is none of 1, 2, 3, 4, 5"),
        ({"stressed": ()}, "stress scenarios must be one or more, each once, not none"),
        ({"conditions": ("measured",)}, "measured is left out: no folder of measured channels is given"),
    ],
)
def test_what_there_is_not_is_named(more: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        jobs.plan((1,), **more)


def test_a_run_longer_than_the_scenario_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mucb1-1\.yaml: 4000 s are more than the scenario's 3600 s"):
        jobs.jobs(jobs.plan((1,), conditions=("emulated",), scenarios=(1,), duration_s=4000))


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--seeds", "4,7,4", "a seed is there twice"),
        ("--scenarios", "1,two", "'1,two' is not a list of whole numbers"),
        ("--policies", "nobody", "unknown policy 'nobody'"),
    ],
)
def test_the_command_says_what_it_does_not_take(tmp_path: Path, option: str, value: str, match: str) -> None:
    run = CliRunner().invoke(cli, [*TINY, "--out", str(tmp_path), option, value])
    assert run.exit_code and match in run.output + str(run.exception)


# ---- the command -----------------------------------------------------------------------------------------


def test_the_command_writes_json_parquet_text_and_a_page(whole: dict[str, Any], folder: Path) -> None:
    import pyarrow.parquet

    assert whole == json.loads((folder / "study.json").read_text())
    assert whole["runs"] == 2 * 2 * 2 and whole["already_there"] == 0
    assert whole["skipped"] == {"measured": "/nowhere/traces: there is no such folder"}
    rows = pyarrow.parquet.read_table(folder / "study.parquet").to_pylist()
    assert len(rows) == 8 and {(r["condition"], r["policy"], r["seed"]) for r in rows} == {
        (c, p, s) for c in ("emulated", "gpu-slow") for p in ("static", "mucb1") for s in (1, 2)
    }
    of = {(r["condition"], r["policy"], r["seed"]): r for r in rows}
    for row in whole["rows"]:
        runs = [of[row["condition"], row["policy"], seed] for seed in (1, 2)]
        for part, told in row["parts"].items():
            for name, e in told["figures"].items():
                values = [r[f"{part}_{name}"] for r in runs]
                if part == "after_5min":
                    assert values == [None, None] and e["mean"] is None
                else:
                    assert e["mean"] == pytest.approx(sum(values) / 2)
            for name, e in told["to"].get("static", {}).items():
                key = f"{part}_{name}"
                static = [of[row["condition"], "static", seed] for seed in (1, 2)]
                if part == "after_5min":
                    assert e["mean"] is None
                else:
                    paired = sum(a[key] - b[key] for a, b in zip(runs, static, strict=True)) / 2
                    assert e["mean"] == pytest.approx(paired)
    # The edge that slows down in the middle is another run, under the same traffic.
    assert of["emulated", "static", 1]["windows"] and of["emulated", "mucb1", 1]["whole_ul_prb"] < 106


def test_page_and_text_show_the_numbers(whole: dict[str, Any], folder: Path) -> None:
    html, text = (folder / "study.html").read_text(), (folder / "study.txt").read_text()
    printed = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)]
    for row in whole["rows"]:
        figures = row["parts"]["last_third"]["figures"]
        shown = [
            result_module.cell(name, figures[name]).replace("+/-", "± ")
            for name in ("qos_windows", "ul_prb", "dl_prb", "mhz", "resources")
        ]
        cells = " ".join([row["policy"], *shown]).split()
        assert any(p[: len(cells)] == cells for p in printed), cells
        in_text = [
            result_module.cell(n, figures[n]).split() for n in ("qos_windows", "ul_prb", "dl_prb", "mhz")
        ]
        words = [row["policy"], *(w for of in in_text for w in of)]
        assert any(line.split()[: len(words)] == words for line in text.splitlines()), words
    assert html.count("<svg") == 2 and "src=" not in html and "@import" not in html
    assert set(re.findall(r"https?://[^\"' )<]*", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "there is no such folder" in html and "there is no such folder" in text


def test_more_seeds_keep_those_that_are_there_and_fresh_forgets_them(tmp_path: Path) -> None:
    def there(*more: str) -> int:
        few = ("--duration", "10", "--conditions", "emulated", *more)
        return int(study(tmp_path / "out", *few)["already_there"])

    assert [there("--seeds", n) for n in ("1", "2")] == [0, 2] and there("--fresh") == 0


def test_after_kill_9_the_same_command_does_what_is_missing(tmp_path: Path, whole: dict[str, Any]) -> None:
    out = tmp_path / "out"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from controller.cli import main; main()", *TINY, "--out", str(out)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    kept, end = out / "study.jsonl", time.monotonic() + 120
    while not (kept.exists() and kept.read_bytes().count(b"\n") >= 2) and time.monotonic() < end:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [line for line in kept.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 2 <= len(before) < 8 and not (out / "study.json").exists()
    result = study(out)
    assert result["already_there"] == len(before)
    assert kept.read_bytes().splitlines(keepends=True)[: len(before)] == before
    assert (result["rows"], result["losses"]) == (whole["rows"], whole["losses"])


@pytest.mark.usefixtures("whole")
def test_a_dask_cluster_gives_the_same(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("distributed", reason="a Dask cluster needs the extra 'sweep'")
    from distributed import LocalCluster

    options = {"processes": False, "protocol": "tcp", "dashboard_address": None}
    with LocalCluster(1, threads_per_worker=1, **options) as cluster:
        study(tmp_path / "out", "--scheduler", cluster.scheduler_address, "--seeds", "1")

    def kept(out: Path) -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for line in (out / "study.jsonl").read_text().splitlines()]
        return {row["key"]: {k: v for k, v in row.items() if k != "wall_s"} for row in lines}

    of_cluster = kept(tmp_path / "out")
    assert len(of_cluster) == 4 and of_cluster.items() <= kept(folder).items()


def test_the_clairvoyant_s_row_is_the_run_that_the_search_found(tmp_path: Path) -> None:
    plan = jobs.plan(
        (1,), policies=("static",), conditions=("emulated",), scenarios=(2,), duration_s=90, oracle_seeds=1
    )
    first, static = jobs.jobs(plan)
    assert first.policy == jobs.CLAIRVOYANT and first.key != static.key
    row = json.loads(json.dumps(jobs.work(first)))
    actions = row["oracle"]["actions"]
    # Three flows begin after a minute.
    held = (12 * actions["0"]["ul"] + 6 * actions["3"]["ul"]) / 18
    assert row["whole_ul_prb"] == pytest.approx(held)
    rows = [jobs.labelled(row, first), jobs.labelled(jobs.work(static), static)]
    out = result_module.result(plan, rows, "static")
    (of_static, of_clairvoyant) = out["rows"]
    ratio = of_static["parts"]["whole"]["to_clairvoyant"]["ul_prb"]["mean"]
    assert ratio == pytest.approx(106 / row["whole_ul_prb"])
    assert of_clairvoyant["parts"]["whole"]["to_clairvoyant"]["mhz"]["mean"] == 1
    assert "x UL" in result_module.text(out) and ">clairvoyant<" in page.build(out)
    with pytest.raises(ValueError, match="static, seed 1: not a result of the study"):
        jobs.labelled({"key": static.key}, static)


# ---- where the judged policy loses -----------------------------------------------------------------------


def row_of(
    policy: str, seed: int, qos: float, ul: float = 30.0, condition: str = "emulated"
) -> dict[str, Any]:
    """A row whose parts are alike."""
    row: dict[str, Any] = {"condition": condition, "scenario": 1, "policy": policy, "seed": seed}
    figures = {
        "qos_windows": qos,
        "qos_slots": qos,
        "ul_prb": ul,
        "dl_prb": 10.0,
        "mhz": 600.0,
        "resources": 0.5,
    }
    row |= {f"{part}_{name}": value for part in jobs.PARTS for name, value in figures.items()}
    return {**row, "control_slots": 720}


def losses(
    rows: list[dict[str, Any]], condition: str = "emulated", channel_trace: Path | None = None
) -> list[tuple[str, float, bool | None]]:
    of = {condition: (1,)}
    plan = jobs.Plan((1, 2), ("static", "mucb1", "aimd"), of, (1, 2), {}, channel_trace=channel_trace)
    out = result_module.result(plan, rows, "aimd")
    assert not out["not_judged"]
    text = result_module.text(out)
    for loss in out["losses"]:
        assert f"{loss['claim']}: {result_module.loss_value(loss)}" in text
    return [(loss["claim"], round(loss["value"], 6), loss["sure"]) for loss in out["losses"]]


def rows(aimd: Sequence[float], ul: float = 30.0, condition: str = "emulated") -> list[dict[str, Any]]:
    """Static keeps 95 and 93 %, MUCB1 90 and 88, the clairvoyant 94 and 92 at 28 PRB."""
    return [
        row
        for i, seed in enumerate((1, 2))
        for row in (
            row_of("static", seed, 0.95 - 0.02 * i, condition=condition),
            row_of("mucb1", seed, 0.90 - 0.02 * i, condition=condition),
            row_of("clairvoyant", seed, 0.94 - 0.02 * i, 28.0, condition=condition),
            row_of("aimd", seed, aimd[i], ul, condition=condition),
        )
    ]


def test_a_policy_that_keeps_the_qos_at_few_resources_loses_nowhere() -> None:
    assert losses(rows([0.945, 0.925])) == []


def test_each_loss_is_found_and_said_to_be_sure_or_not() -> None:
    assert losses(rows([0.935, 0.915])) == [("QoS below static by more than 1%", -0.015, True)]
    assert losses(rows([0.955, 0.895])) == [("QoS below static by more than 1%", -0.015, False)]
    found = losses(rows([0.89, 0.87], ul=28 * 1.16))
    assert found == [
        ("QoS below mucb1", -0.01, True),
        ("QoS below static by more than 1%", -0.06, True),
        ("QoS after five minutes below the clairvoyant by more than 2%", -0.05, True),
        ("UL PRB above 1.15 times the clairvoyant's", 1.16, True),
    ]


def test_the_page_lists_the_losses() -> None:
    plan = jobs.Plan((1, 2), ("static", "mucb1", "aimd"), {"emulated": (1,)}, (1, 2), {})
    out = result_module.result(plan, rows([0.89, 0.87]), "aimd")
    html = page.build(out)
    assert len(out["losses"]) == 3 and "Nowhere." not in html
    for loss in out["losses"]:
        assert f"{loss['claim']}</td><td>{result_module.loss_value(loss)}" in html
    none = result_module.result(plan, rows([0.945, 0.925]), "aimd")
    assert "Nowhere." in page.build({**none, "conditions": {}})


def test_measured_channels_have_a_wider_limit(tmp_path: Path) -> None:
    trace = tmp_path / "drive.csv"
    trace.write_text("Timestamp,NetworkMode,CQI\n2024.01.01_10.00.00,5G,9\n2024.01.01_10.00.01,5G,10\n")
    assert losses(rows([0.925, 0.905], condition="measured"), "measured", trace) == []
    assert losses(rows([0.915, 0.895], condition="measured"), "measured", trace) == [
        ("QoS below static by more than 3%", -0.035, True),
        ("QoS after five minutes below the clairvoyant by more than 2%", -0.025, True),
    ]


def test_what_was_not_played_is_not_judged_rather_than_won() -> None:
    plan = jobs.Plan((1,), ("aimd",), {"emulated": (1,), "floor-1": (1,)}, (), {})
    own = [row_of("aimd", 1, 0.9), row_of("aimd", 1, 0.9, condition="floor-1")]
    out = result_module.result(plan, own, "aimd")
    assert not out["losses"]
    told = [(c["condition"], c["claim"]) for c in out["not_judged"]]
    for condition in ("emulated", "floor-1"):
        assert (condition, "QoS below mucb1") in told
        assert (condition, "QoS below static by more than 1%") in told
    assert "cannot be told" in page.build(out)
    (nobody,) = result_module.result(plan, own, "headroom")["not_judged"]
    assert nobody["why"] == "no run of headroom"
