"""Channel traces and block error rates."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from agents.emulator.channel import OUTAGE_DB, bler, cqi_snr, read_trace, trace_account
from agents.emulator.spec import ChannelSeries, ChannelTrace, FlowSpec, LinkSpec, TestbedSpec, UeSpec
from agents.emulator.testbed import EmulatedTestbed

HEADER = "t_s,network_mode,rsrp_dbm,snr_db,cqi,dl_kbps,ul_kbps,speed_kmh\n"
LINK = LinkSpec()
TRACES = Path(__file__).parents[4] / "shared" / "data" / "channel-traces"


def row(t, cqi="10", mode="5G"):
    return f"{t},{mode},-90,3.0,{cqi},0,0,0\n"


@pytest.fixture
def trace(tmp_path):
    def write(text, **options):
        path = tmp_path / "trace.csv.gz"
        path.write_bytes(gzip.compress((HEADER + text).encode()))
        return ChannelTrace(path, **options)

    return write


def test_bler_is_ten_percent_where_the_link_parameters_say_so():
    for mcs in (0, 12, 28):
        assert bler(LINK, LINK.snr_at_mcs0_db + mcs * LINK.snr_step_db, mcs) == pytest.approx(0.1)
    assert bler(LINK, 14.0, 19) > bler(LINK, 14.0, 18) > bler(LINK, 15.0, 18)


def test_cqi_stands_for_a_rising_snr_and_the_top_for_the_top_mcs():
    snr = cqi_snr(LINK)
    assert (np.diff(snr) > 0).all()
    assert bler(LINK, snr[14], 28) == pytest.approx(0.1)


def test_missing_cqi_holds_the_last_and_a_gap_holds_its_row(trace):
    snr = read_trace(trace(row(0, "-") + row(1, "5") + row(2, "-") + row(6, "9")), LINK)
    five, nine = cqi_snr(LINK)[[4, 8]]
    assert snr.tolist() == [five] * 6 + [nine]


def test_of_rows_in_one_second_the_last_counts_and_long_gaps_are_cut_out(trace):
    five, nine, ten = cqi_snr(LINK)[[4, 8, 9]]
    spec = trace(row(0, "5") + row("0.5", "9") + row(1, "9") + row(1, "10") + row(900, "5") + row(901, "5"))
    assert read_trace(spec, LINK).tolist() == [nine, ten, five, five]
    account = trace_account(spec)
    assert account.used == 4 and account.left_out == {"in the same second as a later row": 2}
    assert account.notes == ["1 gaps of more than 60 s, 899 s together, cut out"]
    held = read_trace(trace(row(0, "5") + row(1, "5") + row(2, "9") + row(100, "5"), not_5g="outage"), LINK)
    assert len(held) == 101 and set(held[2:100]) == {nine}


def test_every_row_is_accounted_for(trace):
    spec = trace(row(0, "5") + row(1, "7", "LTE") + row(2, "-", "5G-NSA") + row("-") + row(3, "9", "6G?"))
    account = trace_account(spec).to_dict()
    assert account["rows"] == account["used"] + sum(account["left_out"].values()) == 5
    assert account["left_out"] == {
        "not 5G (LTE)": 1,
        "without a time": 1,
        "of an unknown network mode (6G?)": 1,
    }
    assert account["notes"] == ["1 rows without a CQI hold the one before"]


def test_rows_that_are_not_5g_are_cut_out_or_an_outage(trace):
    text = row(0, "5") + row(1, "7", "LTE") + row(2, "9")
    five, nine = cqi_snr(LINK)[[4, 8]]
    assert read_trace(trace(text), LINK).tolist() == [five, nine]
    assert read_trace(trace(text, not_5g="outage"), LINK).tolist() == [five, OUTAGE_DB, nine]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (row(0) + row(1, "ten"), "row 3: cqi 'ten' is not a number"),
        (row(0) + row("x"), "row 3: t_s 'x' is not a number"),
        (row(0) + row(1, "inf"), "row 3: cqi 'inf' is not finite"),
        (row(0) + row(1, "16"), "row 3: cqi 16"),
        (row(0) + row(1, "2.5"), "row 3: cqi 2.5"),
        (row(5) + row(6) + row(0), "row 4: t_s 0 is 6 s before an earlier row"),
        (row(0) + row(500), "t_s rises by 500 from row to row, more than 60 s"),
        (row(0) + "1,5G\n", "row 3: cqi is not there"),
        (row(0, "-"), "no row of 5G has a CQI"),
        (row(0, "5", "LTE") + row(1, "-"), "no row of 5G has a CQI"),
        (row(0, "5", "LTE"), "no row is 5G"),
        ("", "no rows"),
    ],
)
def test_bad_rows_are_named(trace, text, says):
    spec = trace(text)
    with pytest.raises(ValueError) as error:
        read_trace(spec, LINK)
    assert says in str(error.value)
    assert str(spec.path) in str(error.value)


def test_missing_column_truncated_file_and_bad_options_are_named(tmp_path, trace):
    path = tmp_path / "other.csv"
    path.write_text("t_s,cqi\n0,5\n")
    with pytest.raises(ValueError, match=r"other\.csv: column 'network_mode' is not there"):
        read_trace(ChannelTrace(path), LINK)
    whole = trace(row(0) + row(1))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(Path(whole.path).read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"cut\.csv\.gz"):
        read_trace(ChannelTrace(cut), LINK)
    with pytest.raises(OSError):
        read_trace(ChannelTrace(tmp_path / "none.csv"), LINK)
    for wrong in ({"not_5g": "ignore"}, {"between": "cubic"}):
        with pytest.raises(ValueError, match="channel trace"):
            read_trace(trace(row(0), **wrong), LINK)


@pytest.mark.skipif(not TRACES.is_dir(), reason="../shared/data/channel-traces is not there")
def test_measured_traces_can_all_be_read():
    files = sorted(TRACES.glob("*.csv.gz"))
    assert files
    for path in files:
        for not_5g in ("skip", "outage"):
            snr = read_trace(ChannelTrace(path, not_5g=not_5g), LINK)
            assert len(snr) > 500
            assert np.isfinite(snr).all()


def test_a_series_drives_the_cell_second_by_second():
    channel = ChannelSeries(np.array([20.0, 20.0, 8.0, 8.0]), ul_offset_db=-2.0, fading_sd_db=0.0)
    bed = EmulatedTestbed(TestbedSpec([UeSpec("ue-1", 1, "s", channel)], [FlowSpec("f", "ue-1")]), seed=1)
    seen = []
    for second in (0.5, 1.5, 2.5, 4.5):  # it begins anew after four
        bed.advance(int(second * 2000) + 20)
        seen.append(bed.mac_report().ues[0].snr_db)
    assert seen == pytest.approx([18.0, 12.0, 6.0, 18.0], abs=0.1)


@pytest.mark.parametrize(
    ("snr_db", "options", "says"),
    [
        (np.array([]), {}, "values are none"),
        (np.array([np.nan]), {}, "not all finite"),
        (np.array([1.0]), {"between": "spline"}, "'spline' is neither"),
    ],
)
def test_a_series_that_cannot_be_is_refused(snr_db, options, says):
    with pytest.raises(ValueError, match=says):
        ChannelSeries(snr_db, **options)
