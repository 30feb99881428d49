"""Runs beside each other: the figures are the summary's, and what is not alike is said."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from controller.experiments import compare as room
from controller.experiments.stats import estimate
from controller.store.run import RunStore, StoreError
from controller.store.summary import Summary
from tests.experiments.builders import SMALL, small

pytest.importorskip("scipy", reason="an interval over seeds needs the extra 'research'")

OLD = Path(__file__).resolve().parents[1] / "store" / "version-1"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two policies with two seeds each, a run of one seed and other options, one of another scenario."""
    folder = tmp_path_factory.mktemp("compare")
    scenario = small(folder)
    text = SMALL.replace("flows: 2", "flows: 3, prb: 51").replace(
        "ul_prb: [10, 30, 50, 70, 90]", "ul_prb: [10, 51]"
    )
    text = text.replace("  flows: 3, prb: 51\n", "  flows: 3\n  prb: 51\n")
    other = small(folder, text, "other.yaml")
    out = {}
    for name, file, policy, seed, duration in (
        ("a1", scenario, "static", 1, 20),
        ("a2", scenario, "static", 2, 20),
        ("b1", scenario, "aimd", 1, 20),
        ("b2", scenario, "aimd", 2, 20),
        ("other", other, "aimd", 1, 12),
    ):
        out[name] = folder / name
        arguments = ("--policy", policy, "--seed", str(seed), "--duration", str(duration))
        done = run("experiment", file, *arguments, "--run", str(out[name]))
        assert done.exit_code == 0, done.output
    return out


def figures(path: Path) -> dict[str, Any]:
    summary = Summary()
    with RunStore.open(path) as store:
        for record in store.decisions():
            summary.add(record)
    found: dict[str, Any] = summary.result()["cells"]["cell-1"]["slices"]["ar"]
    return found


def of(result: dict[str, Any], group: int) -> dict[str, Any]:
    (only,) = result["groups"][group]["slices"]
    found: dict[str, Any] = only
    return found


def test_seeds_of_one_policy_are_a_group_whose_figures_are_the_summary_s(runs: dict[str, Path]) -> None:
    result = room.compare([runs[name] for name in ("a1", "b1", "a2", "b2")])
    assert [(g["policy"], g["seeds"]) for g in result["groups"]] == [("static", [1, 2]), ("aimd", [1, 2])]
    assert [g["differs"] for g in result["groups"]] == [{}, {}] and result["notes"] == []
    summaries = {name: figures(path) for name, path in runs.items()}
    for name in ("qos_delivery_ratio", "avg_ul_prb", "avg_gpu_mhz", "bs_power_saving", "explored"):
        expected = estimate([summaries["b1"][name], summaries["b2"][name]])
        assert expected is not None and of(result, 1)["figures"][name] == pytest.approx(expected.to_dict())
        paired = estimate([summaries[f"b{i}"][name] - summaries[f"a{i}"][name] for i in (1, 2)])
        assert paired is not None and of(result, 1)["to_first"][name] == pytest.approx(paired.to_dict())
    assert of(result, 0)["to_first"] is None
    assert of(result, 1)["figures"]["avg_ul_prb"]["mean"] < of(result, 0)["figures"]["avg_ul_prb"]["mean"]
    assert set(of(result, 0)["measures"]) == {"round_trip", "ul", "edge", "dl"}
    assert of(result, 0)["measures"]["ul"]["unit"] == "ms" and of(result, 0)["service"] == "ar"


def test_shares_are_of_control_slots() -> None:
    s = {
        "control_slots": 10,
        "rescued": 2,
        "unattributed": {"released": {"ul": 3, "dl": 3}, "x": {"edge": 3}},
    }
    assert room.FIGURES["rescued"].of(s) == 0.2 and room.FIGURES["unattributed"].of(s) == 9 / 30
    s["unattributed"] = {"x": {"settings": 4}}
    assert room.FIGURES["unattributed"].of(s) == 4 / 40


def test_what_is_not_alike_is_said(runs: dict[str, Path]) -> None:
    result = room.compare([runs["b1"], runs["other"]])
    differs = result["groups"][1]["differs"]
    assert differs.keys() == {"scenario", "carrier", "length"}
    assert differs["carrier"] == "51 PRB, not 106" and differs["length"].endswith(" s, not 20 s")
    assert "emulation.flows: 2 -> 3" in differs["scenario"] and "seed" not in differs["scenario"]
    text = room.text(result)
    assert "aimd (other) differs from the first in its carrier: 51 PRB, not 106" in text
    assert "Not all of these runs are of one kind" in text and "aimd (other) *" in text


def test_a_seed_that_is_there_twice_and_a_run_of_several_parts_are_said(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(runs["a1"], tmp_path / "copy"))
    with RunStore.open(copy, write=True) as store:
        store.begin_part(2 * 10**18, store.config(), seed=1, meta={"clock": "otherwise"})
    result = room.compare([runs["a1"], copy])
    assert [g["policy"] for g in result["groups"]] == ["static"]
    assert any("copy: its configuration changed in the course of it (2 parts)" in n for n in result["notes"])
    assert any("static: seed 1 is there more than once" in n for n in result["notes"])


class Text(HTMLParser):
    """Tags of a page, and what it loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")]


def test_the_command_writes_a_page_that_needs_nothing_else(runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="a page needs the extra 'report'")
    page = tmp_path / "compare.html"
    folders = [str(runs[name]) for name in ("a1", "a2", "b1", "b2", "other")]
    done = run("compare", *folders, "--out", str(page), "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["page"] == str(page) and [len(g["runs"]) for g in result["groups"]] == [2, 2, 1]
    text = page.read_text()
    parsed = Text()
    parsed.feed(text)
    assert parsed.tags.count("svg") == 2 and parsed.loads == []
    assert "carrier: 51 PRB, not 106" in text and "differences to the first" in text
    lines = run("compare", *folders).stdout
    assert "aimd (b1)" in lines and "aimd (other) *" in lines


def test_what_cannot_be_compared_is_refused_by_name(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run record there"):
        room.compare([runs["a1"], tmp_path])
    with RunStore.create(tmp_path / "empty", config=""):
        pass
    with pytest.raises(StoreError, match="empty: no control slot of this run is over"):
        room.compare([tmp_path / "empty"])
    with pytest.raises(ValueError, match="a1 is there twice"):
        room.compare([runs["a1"], runs["a1"]])


def test_a_run_of_an_earlier_version_is_compared(runs: dict[str, Path]) -> None:
    result = room.compare([runs["a1"], OLD])
    assert "clock" in result["groups"][1]["differs"]
    assert {s["slice"] for s in result["groups"][1]["slices"]} == {"a", "b"}
