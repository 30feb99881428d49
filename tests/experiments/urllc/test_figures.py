"""The figures of `prbandit figures urllc` on few drops: computed, stored, shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("numba", reason="the extra urllc")
pytest.importorskip("matplotlib", reason="the extra urllc")
pytest.importorskip("jinja2", reason="the extra urllc")
pytest.importorskip("scipy", reason="the extra urllc")

from controller.allocators.urllc import joint
from controller.allocators.urllc.solve import solve
from controller.cli import cli
from controller.experiments.urllc import figures
from controller.experiments.urllc.drops import Drop, draw
from controller.experiments.urllc.figures import (
    base,
    dispersion,
    edge,
    energy,
    gap,
    readings,
    sensitivity,
    twins,
)
from controller.experiments.urllc.figures.base import Study
from controller.experiments.urllc.readings import READINGS, SHOWN, Reading

DROPS = 2
SOME: dict[str, tuple[float, ...]] = {
    "interval_ms": (0.1, 1.0),
    "min_rate_bps": (1e6,),
    "error": (1e-7,),
}


class Bar:
    """A progress bar that counts."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done: list[str] = []

    @contextmanager
    def __call__(self, what: str, total: int | None) -> Iterator[Callable[[str], None]]:
        self.total = total
        yield self.done.append


Made = tuple[dict[str, Any], Path, Bar]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All figures, of four devices and with fewer points."""
    few = Drop(devices=4)
    with pytest.MonkeyPatch.context() as patch:
        for name in list(READINGS):
            if name not in SHOWN:
                patch.delitem(READINGS, name)  # type: ignore[arg-type]
                continue
            of = READINGS[name]
            changes = {"cache_bits": 24e3, **of.changes}
            drop = Drop(few.devices, of.drop.cycles_per)
            patch.setitem(READINGS, name, Reading(of.title, drop, changes, of.gain_db))  # type: ignore[call-overload]
        patch.setattr(energy, "ENERGY_MJ", (1.5, 4.0))
        patch.setattr(energy, "CACHE_KBIT", (0, 60))
        patch.setattr(edge, "EDGE_GHZ", (30.0, 38.0))
        patch.setattr(readings, "STARTS", (0.5, 0.9))
        patch.setattr(dispersion, "LOSS_DB", (0.0, 40.0))
        patch.setattr(sensitivity, "VALUES", SOME)
        patch.setattr(gap, "FEW", 3)
        patch.setattr(gap, "SHOWN", SHOWN[:1])
        patch.setattr(twins, "DEVIATIONS", (0.3,))
        patch.setattr(twins, "SEEDS", 1)
        patch.setattr(twins, "SECONDS", 40.0)
        out, bar = tmp_path_factory.mktemp("figures"), Bar()
        return figures.run(Study(DROPS), out, figures.NAMES, bar), out, bar


def test_files_and_progress(made: Made) -> None:
    result, out, _ = made
    assert json.loads((out / "figures.json").read_text()) == result
    page = (out / "figures.html").read_text()
    plots = sorted(p.stem for p in out.glob("*.svg"))
    assert plots == ["baselines-1", "fig-2-1", "fig-3-1"] and page.count("<svg") == len(plots)
    assert "<script" not in page and "src=" not in page and "mathdefault" not in page
    text = figures.text(result)
    for name in figures.NAMES:
        assert f"{name}: {figures.FIGURES[name].title}" in text and f'id="{name}"' in page


def test_every_piece_is_counted(made: Made) -> None:
    bar = made[2]
    assert bar.total == len(bar.done)


def test_fig_2_falls_with_energy_and_cache(made: Made) -> None:
    for curve in made[0]["figures"]["fig-2"]["curves"]:
        totals = np.array([[point["total_ms"]["mean"] for point in line] for line in curve["of"]])
        if curve["method"] == "joint":
            assert (np.diff(totals, axis=0) <= 1e-3).all() and (np.diff(totals, axis=1) <= 1e-3).all()
        assert totals[0, 0] - totals[-1, 0] == pytest.approx(curve["saved_by_cache_ms"][0]["mean"])


def test_fig_3_falls_with_the_edge_and_rises_with_the_deviation(
    made: tuple[dict[str, Any], Path, Bar],
) -> None:
    for curve in made[0]["figures"]["fig-3"]["curves"]:
        if curve["method"] == "joint":
            assert curve["fall_ms"][0]["mean"] > 0.0
            assert all(cost["mean"] > 0.0 for cost in curve["cost_of_deviation_ms"])


def test_what_is_shown_is_what_the_command_says(made: Made) -> None:
    rows = made[0]["figures"]["readings"]["rows"]
    for method in base.METHODS:
        totals = [
            solve({**draw(seed, Drop(devices=4)), "cache_bits": 24e3, "method": method})["objective_ms"]
            for seed in range(DROPS)
        ]
        row = next(row for row in rows if (row["reading"], row["method"]) == ("text", method))
        assert row["30"]["total_ms"]["mean"] == pytest.approx(np.mean(totals))


def test_a_reading_fits_where_its_numbers_are_in_the_papers_ranges() -> None:
    def of(total: float, share: float) -> dict[str, Any]:
        return {"total_ms": {"mean": total}, "share": {"mean": share}}

    row = {"30": of(19.0, 0.70), "38": of(16.6, 0.71), "no cache": of(26.0, 0.7), "fall_ms": {"mean": 2.4}}
    row |= {"4 mJ": of(18.5, 0.7), "no cache, 1.5 mJ": of(26.5, 0.7)}
    assert readings.fits(row) == "tfsrce"
    assert readings.fits({**row, "38": of(16.6, 0.80)}) == "tfsce"
    assert readings.fits({**row, "fall_ms": {"mean": 0.2}, "30": of(13.0, 0.46)}) == "ce"


def test_no_baseline_is_better_than_the_joint_method(made: Made) -> None:
    rows = made[0]["figures"]["baselines"]["rows"]
    assert len(rows) == 7 * len(SHOWN)
    for row in rows:
        if row["method"] != "all local, nothing sent":
            assert row["worse"]["mean"] >= -1e-4


def test_gaps_are_above_0_and_small(made: Made) -> None:
    for row in made[0]["figures"]["gap"]["rows"]:
        assert 0.0 <= row["gap"]["joint"]["mean"] < 0.01
        assert row["gap"]["joint"]["mean"] <= row["gap"]["algorithm-1"]["mean"] + 1e-6


def test_v_1_is_never_the_better_rate(made: Made) -> None:
    near, far = made[0]["figures"]["dispersion"]["rows"][:2]
    assert near["error_of_epsilon"]["mean"] == pytest.approx(1.0, abs=1e-6)
    assert 0.5 < far["error_of_epsilon"]["mean"] < 1.0
    assert far["objective"]["mean"] > near["objective"]["mean"] >= 0.0


def test_a_wrong_deviation_costs_time_or_energy(made: Made) -> None:
    rows = {
        (row["reading"], row["tight"], row["planned"], row["real"]): row
        for row in made[0]["figures"]["deviation"]["rows"]
    }
    for reading in SHOWN:
        for planned in (0.0, 0.02):
            slow, fast = (rows[reading, False, planned, real] for real in (0.02, -0.02))
            assert slow["total_ms"]["mean"] > fast["total_ms"]["mean"]
            assert fast["over_energy"]["mean"] >= slow["over_energy"]["mean"]
            right = rows[reading, False, planned, planned]
            assert right["late"]["mean"] == right["over_energy"]["mean"] == 0.0


def test_the_bound_over_all_decisions_is_below_each_of_them() -> None:
    instance = READINGS["bit"].instance(0).only(np.arange(15) < 3).with_(cache_kbit=12.0)
    assert len(gap.decisions(instance)) == 4
    bound = gap.enumerated_bound_ms(instance)
    costs = [joint.resources_for(instance, cached) for cached in gap.decisions(instance)]
    least = min(solved.cost_ms for solved in costs if solved is not None)
    assert least * 0.998 < bound <= least


def test_the_command(tmp_path: Path) -> None:
    args = ["figures", "urllc", "--drops", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, [*args, "--only", "baselines", "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["figures"]) == {"baselines"}
    result = CliRunner().invoke(cli, [*args, "--only", "fig-4"])
    assert result.exit_code == 2 and "no figure 'fig-4'; figures: fig-2," in " ".join(result.output.split())


def test_rates_that_are_taken_for_exact_break_the_budget_that_twins_keep(made: Made) -> None:
    rows = {row["twin"]: row for row in made[0]["figures"]["twins"]["rows"]}
    assert rows["none"]["energy"]["mean"] > 1.3
    assert rows["estimated"]["energy"]["mean"] < 1.1


def test_who_knows_the_deviations_needs_no_more_time_than_who_is_prepared_for_all(made: Made) -> None:
    rows = made[0]["figures"]["deviation"]["spread"]
    for row in rows:
        if row["plan"] == "bounded":
            # Not all that may be is covered.
            assert row["more_ms"]["mean"] > -1e-3 and row["energy"]["mean"] < 1.02
        if row["plan"] == "known":
            assert row["energy"]["mean"] < 1.0 + 1e-4
    wide = {row["plan"]: row for row in rows if row["width"] == 0.3 and row["reading"] != "text"}
    assert wide["bounded"]["more_ms"]["mean"] > 0.0
