"""The report opens, shows its plots and is one file."""

from __future__ import annotations

import builtins
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.core.observation import Command
from controller.loop import ControlLoop
from controller.store.run import RunStore, StoreError
from controller.store.summary import Summary
from tests import builders
from tests.store.builders import steps

pytest.importorskip("matplotlib", reason="the report needs the extra 'report'")
pytest.importorskip("jinja2", reason="the report needs the extra 'report'")

from controller.store import charts, report
from controller.store import figures as look
from controller.store.series import CellSeries, MeasureSeries

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that elements close in order; collects ids, plots and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.fetched.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def write_run(folder: Path, n: int = 30, **slices: Any) -> None:
    loop = ControlLoop(builders.loop_spec(*(builders.slice_spec(s, **c) for s, c in slices.items())))
    with RunStore.create(folder, config="cells: <none>\n", seed=5) as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for step in steps(loop, n):
            store.record_slot(start, step.observation, step.record, step.state)
        store.record_event(builders.T0, "cell-1", "bad_report", "<script>alert(1)</script>", {"ue": "<b>"})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("runs") / "run-1"
    write_run(folder, ar={}, ar2={"policy": "aimd"})
    page, summary = report.build(folder)
    return page, summary, page.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_fetches_nothing(built: tuple[Path, dict[str, Any], str]) -> None:
    page = Page(built[2])
    assert page.fetched == []
    assert "@import" not in built[2] and not re.search(r"url\((?!#)", built[2])
    assert len(page.ids) == len(set(page.ids))


def test_every_plot_is_there_and_is_an_svg(built: tuple[Path, dict[str, Any], str]) -> None:
    figures = re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", built[2], re.DOTALL)
    assert [caption for caption, _ in figures] == [
        "Changes and events",
        "Active flows",
        "Quotas and GPU clock",
        "QoS",
        "Measures, the worst user of each control slot",
        "Hop states",
        "Actions by hop state",
    ]
    for caption, svg in figures:
        root = ET.fromstring(svg)
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10, caption
        words = " ".join(t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text"))
        assert words, f"{caption}: the text is not text"
        assert look.INK not in svg and look.GRID not in svg
        # Axes and text take the page's ink, so that they are readable in light and dark.
        assert "var(--ink)" in svg and not re.search(r"fill: #(000000|ffffff)", svg)
    quotas = figures[2][1]
    assert "maximum 106 PRB" in quotas and "maximum 1600 MHz" in quotas
    assert "budget 150 ms" in figures[4][1] and "budget 70 ms" in figures[4][1]


def test_every_plot_is_there_for_wide_and_for_narrow_screens(built: tuple[Path, dict[str, Any], str]) -> None:
    figures = re.findall(r"<figure>.*?</figure>", built[2], re.DOTALL)
    boxes = [re.findall(r'<svg class="(\w+)".*?viewBox="0 0 (\S+) ', f, re.DOTALL) for f in figures]
    # Of one width each: what is drawn in inches is of one scale, and stands above each other.
    assert len(figures) == 7 and boxes == [boxes[0]] * 7
    assert [name for name, _ in boxes[0]] == ["wide", "narrow"]


@pytest.mark.parametrize("sheet", look.SHEETS)
def test_the_axes_of_all_figures_stand_above_each_other(sheet: look.Sheet) -> None:
    places = set()
    for heights, legends in (([1.0], [0]), ([1.1, 1.1, 1.1], [2, 5, 1]), ([2.0, 0.5], [9, 0])):
        figure, axes = sheet.axes(heights, legends)
        for axis, height in zip(axes, heights, strict=True):
            box = axis.get_position()
            wide, high = figure.get_size_inches()
            places.add((round(box.x0 * wide, 6), round(box.x1 * wide, 6)))
            assert (box.y1 - box.y0) * high == pytest.approx(height)
    assert len(places) == 1


def draw_measure(values: list[float], met: list[float]) -> Any:
    series = MeasureSeries("ms", "lower", met, values, [150.0] * len(values))
    cell = CellSeries(end_ns=len(values) * 10**9)
    figure, (axis,) = look.WIDE.axes([1.0], [4])
    chart = charts._Chart(cell, look.WIDE, "seconds", 1.0)
    missed = np.array(met) == 0
    times = [float(i) for i in range(len(values))]
    charts._draw_measure(chart, axis, "round trip", series, times, missed, "#2f81c7", "-")
    figure.draw_without_rendering()
    return axis


def test_a_missed_slot_of_which_nothing_came_back_is_no_gap() -> None:
    axis = draw_measure([50.0, np.nan, 60.0, np.nan], [1.0, 0.0, 1.0, np.nan])
    y = axis.lines[0].get_ydata()
    assert list(y[:3]) == [50.0, axis.get_ylim()[1], 60.0] and np.isnan(y[3])  # idle is one
    assert "nothing came back" in axis.get_legend_handles_labels()[1]


def test_one_long_delay_does_not_hide_the_budget() -> None:
    axis = draw_measure([50.0, 4000.0, 60.0], [1.0, 0.0, 1.0])
    assert axis.get_ylim() == (0.0, 450.0) and 150.0 in axis.get_yticks()
    labels = axis.get_legend_handles_labels()[1]
    assert "budget 150 ms" in labels and "beyond, up to 4000 ms" in labels


def test_changes_of_part_mode_and_policy_are_marked_in_every_chart_over_time(tmp_path: Path) -> None:
    loop = ControlLoop(builders.loop_spec())
    changes = {
        3: Command("options", {"policy": "static", "policy_options": {}}, "ar"),
        6: Command("mode", "frozen"),
    }
    with RunStore.create(tmp_path, config="a: 1") as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for n in range(10):
            if n == 8:
                store.begin_part(builders.T0, "a: 2")
                start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
            seen = builders.observation(n, commands=(changes[n],) if n in changes else ())
            store.record_slot(start, seen, loop.step(seen).to_record(), loop.to_state())
        store.record_event(builders.T0, "cell-1", "lease_lapsed")
    page = report.build(tmp_path)[0].read_text()
    figures = dict(re.findall(r"<figcaption>(.*?)</figcaption>\s*(<svg.*?</svg>)", page, re.DOTALL))
    drawn = figures.pop("Changes and events")
    for words in ("part 1", "part 2", "mucb1", "static", "active", "frozen", "lease lapsed, 1"):
        assert f">{words}<" in drawn.replace("> ", ">"), words
    del figures["Actions by hop state"]
    marks = {name: svg.count(charts._CHANGE) for name, svg in figures.items()}
    assert marks["Active flows"] == 3 and marks["Quotas and GPU clock"] == 9 and all(marks.values())


def test_what_the_run_says_is_text_and_not_markup(built: tuple[Path, dict[str, Any], str]) -> None:
    assert "<script" not in built[2]
    words = " ".join(Page(built[2]).text)
    assert "<script>alert(1)</script>" in words and "cells: <none>" in words


def test_the_summary_is_that_of_the_records(built: tuple[Path, dict[str, Any], str]) -> None:
    path, summary, _ = built
    assert json.loads((path.parent / "summary.json").read_text()) == summary
    again = Summary()
    with RunStore.open(path.parent) as store:
        for record in store.decisions():
            again.add(record)
    expected = again.result()
    assert summary["run"]["name"] == "run-1" and summary["run"]["seed"] == 5
    assert summary["cells"]["cell-1"].pop("events") == {"bad_report": 1}
    assert expected["cells"]["cell-1"].pop("events") == {}
    assert summary["oracle"].keys() == {"missing"} and "live run" in summary["oracle"]["missing"]
    assert summary["events"] == {"bad_report": 1} and expected["events"] == {}
    (part,) = summary["parts"]
    assert part["part"] == 1 and part["seed"] == 5 and part["changed"] == []
    assert {k: part[k] for k in again.headline()} == again.headline()
    of_the_run = ("run", "oracle", "events", "parts")
    assert {k: v for k, v in summary.items() if k not in of_the_run} == {
        k: v for k, v in expected.items() if k not in of_the_run
    }
    assert expected["cells"]["cell-1"]["control_slots"] == 29


def test_the_last_decisions_say_why_and_show_the_indices(built: tuple[Path, dict[str, Any], str]) -> None:
    with RunStore.open(built[0].parent) as store:
        last = list(store.decisions())[-1]
    choice = last["slices"]["ar"]["choices"][0]
    words = " ".join(" ".join(Page(built[2]).text).split())
    assert f"{choice['action']} PRB, {choice['why']}" in words
    pairs = zip(choice["actions"], choice["indices"], strict=True)
    assert all(f"{action}: {index:.3f}" in words for action, index in pairs if index is not None)


def test_a_run_without_a_finished_slot_has_a_report_too(tmp_path: Path) -> None:
    write_run(tmp_path / "none", 0, ar={})
    page, summary = report.build(tmp_path / "none")
    assert summary["control_slots"] == 0
    assert "nothing to show" in page.read_text()
    write_run(tmp_path / "one", 1, ar={})
    Page(report.build(tmp_path / "one")[0].read_text())


def test_a_policy_without_states_leaves_the_state_plots_out(tmp_path: Path) -> None:
    write_run(tmp_path, 5, ar={"policy": "static"})
    text = report.build(tmp_path)[0].read_text()
    assert "Quotas and GPU clock" in text and "Actions by hop state" not in text


def test_a_run_can_be_reported_while_it_is_recorded_and_elsewhere(tmp_path: Path) -> None:
    loop = ControlLoop(builders.loop_spec())
    with RunStore.create(tmp_path / "run", config="") as store:
        start = store.record_start(builders.T0, "cell-1", loop.spec.to_dict(), loop.to_state())
        for step in steps(loop, 4):
            store.record_slot(start, step.observation, step.record, step.state)
        page, summary = report.build(tmp_path / "run", out=tmp_path / "elsewhere")
    assert page == tmp_path / "elsewhere" / "report.html" and summary["control_slots"] == 3
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_folder_without_a_run_and_one_that_refuses_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"run\.sqlite: no run record"):
        report.build(tmp_path)
    write_run(tmp_path / "run", 3, ar={})
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file: the report cannot be written"):
        report.build(tmp_path / "run", out=tmp_path / "file")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name == "matplotlib":
            raise ImportError("no matplotlib", name=name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"matplotlib: .venv/bin/pip install -e '.\[report\]'"):
        report.build(tmp_path)


def test_long_curves_are_thinned_by_means_and_gaps_stay() -> None:
    n = 4 * look.MAX_POINTS
    y = np.arange(n, dtype=float)
    y[8:12] = np.nan
    x, means = look.binned_means(np.arange(n), y)
    assert len(x) == look.MAX_POINTS and means[0] == 1.5 and np.isnan(means[2])
    few = look.binned_means([0.0, 1.0], [5.0, np.nan])
    assert few[0].tolist() == [0, 1] and few[1][0] == 5
    assert len(look.decimated(np.arange(10 * look.MAX_POINTS + 1.0))) <= look.MAX_POINTS + 1


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [(60, "seconds"), (600, "minutes"), (7200, "minutes"), (36_000, "hours"), (1e6, "days")],
)
def test_the_time_axis_fits_the_length_of_the_run(seconds: float, unit: str) -> None:
    name, length = look.unit(seconds)
    assert name == unit and seconds / length >= 5
