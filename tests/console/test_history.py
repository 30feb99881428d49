"""Decisions as arrays and drawings, without a controller."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from controller.console.chart import plot
from controller.console.history import Decisions, Row
from controller.console.table import Table, table
from tests.cli.test_explain import decided


def decisions(*left_out: int) -> Decisions:
    rows = [Row.of(record, "ar") for record in decided(8) if record["control_slot"] not in left_out]
    return Decisions("cell cell-1, slice ar", rows)


def test_what_came_of_a_control_slot_stands_beside_it_and_not_beside_another() -> None:
    whole, gap = decisions(), decisions(4)
    delay = dict(zip(whole.control_slot.tolist(), whole["ul"].delay.tolist(), strict=True))
    for record in decided(8):
        came = record["slices"]["ar"]["closed"]["measures"]["ul"]["users"]
        if record["control_slot"] > 1:
            assert delay[record["control_slot"] - 1] == max(value for value, _ in came.values())
    of_gap = dict(zip(gap.control_slot.tolist(), gap["ul"].delay.tolist(), strict=True))
    assert np.isnan(of_gap[3]), "its outcome is in the record that was not seen"
    assert of_gap[2] == delay[2] and of_gap[5] == delay[5] and np.isnan(of_gap[8])
    assert whole["ul"].units == ("PRB", "ms") and whole.time.dtype == "datetime64[ns]"
    with pytest.raises(KeyError, match="no lever or measure 'up'; there are: ul, edge, dl, round_trip"):
        whole["up"]
    assert "8 control slots" in repr(whole) and "measures beside: round_trip" in repr(whole)
    assert "8 control slots" in repr(whole["ul"])


def test_a_plot_is_a_file_and_characters_where_there_is_no_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="no decision seen yet"):
        plot({"ar": Decisions("x", [])}, "cell cell-1", None)
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    drawn = plot({"ar": decisions()}, "cell cell-1", None)
    assert isinstance(drawn, str) and len(repr(drawn).splitlines()) == 4 and "█" in repr(drawn)
    with pytest.raises(ImportError):  # who names a file wants one: the command line names the extra
        plot({"ar": decisions()}, "cell cell-1", tmp_path / "x.png")


def test_a_table_has_columns_and_shows_what_it_is_sent_harmlessly() -> None:
    rows = Table([{"ue": "ue\x1b[2J", "cqi": 12}, {"ue": "b", "cqi": None}])
    assert np.array_equal(rows["cqi"], [12, np.nan], equal_nan=True) and rows[0]["cqi"] == 12
    assert repr(rows).splitlines()[1:] == [r"ue\x1b[2J   12", "b            -"]
    with pytest.raises(KeyError, match="columns: ue, cqi"):
        rows["snr"]
    assert repr(Table([])) == "(none)" and table(("a",), []) == "a"
