from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import cli
from controller.experiments import table_v
from controller.experiments.runs import FIGURES
from controller.experiments.stats import estimate

pytest.importorskip("pyarrow", reason="Parquet needs the extra 'research'")
pytest.importorskip("scipy", reason="intervals need the extra 'research'")
pytest.importorskip("matplotlib", reason="the page needs the extra 'report'")


def collected(*, seeds: tuple[int, ...] = (1, 2), with_oracle: bool = True) -> table_v.Table:
    todo = table_v.jobs(seeds, duration_s=120, with_oracle=with_oracle, scenarios=(2,))
    return table_v.collect(table_v.Table("described", seeds, (2,)), todo, 1)


@pytest.fixture(scope="module")
def table() -> table_v.Table:
    return collected()


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
    rows = pyarrow.parquet.read_table(tmp_path / "table-v.parquet").to_pylist()
    assert len(rows) == 20 and {r["schedule"] for r in rows} == {"published"}
    slots = pyarrow.parquet.read_table(tmp_path / "table-v-slots.parquet")
    assert slots.num_rows == 20 * 6
    page = (tmp_path / "table-v.html").read_text()
    assert page.count("<svg") == 5 * 2 and "Does not hold" in page
    assert "src=" not in page and "http://www.w3.org" in page


def test_a_page_with_an_oracle_shows_regret_and_what_it_plays(table: table_v.Table) -> None:
    from markupsafe import escape

    from controller.experiments import page

    html = page.build([table], [table_v.result(table)])
    assert html.count("<svg") == 3 and "What the clairvoyant plays" in html and "Regret against" in html
    for r in table_v.REASONS:
        assert str(escape(r.text)) in html
