"""Wire to core: good messages come through whole, impossible values are named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from controller.core.observation import MacReport
from controller.links import codec
from controller.links.codec import BadMessage, BadReport, CellFacts
from wire import PROTOCOL_VERSION, edge_pb2, qos_pb2, ran_pb2
from wire.definitions.nr import TDD_PATTERNS

T0 = 1_700_000_000_000_000_000
CELL = CellFacts("cell-1", 106, 30, TDD_PATTERNS["DSUUU"])


def hello(cell_id: str = "cell-1", version: int = PROTOCOL_VERSION) -> ran_pb2.Hello:
    tdd = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=4, ul_symbols=6, ul_slots=3)
    return ran_pb2.Hello(
        protocol_version=version, cell_id=cell_id, prb=106, scs_khz=30, tdd=tdd, agent_version="1"
    )


def report(n_ues: int = 2) -> ran_pb2.MacReport:
    message = ran_pb2.MacReport(session=1, sequence=1, frame=1023, slot=19, time_ns=T0)
    for i in range(n_ues):
        ue = message.ues.add(rnti=0x4601 + i, ue_id=f"ue-{i}", slice="ar", cqi=15, snr_db=-3.5)
        ue.ul.CopyFrom(
            ran_pb2.DirectionState(mcs=7 + i % 4, mcs_table=1, layers=1, queued_bytes=1000 + i, bler=0.1)
        )
        ue.dl.CopyFrom(
            ran_pb2.DirectionState(mcs=27 - i % 4, mcs_table=2, layers=2, queued_bytes=i, bler=1.0)
        )
    return message


def test_a_report_comes_through_as_columns() -> None:
    opened, wrong = codec.open_report(report(), CELL)
    assert opened.time_ns == T0 and wrong == ()
    assert opened.ue_id == ("ue-0", "ue-1")
    assert opened.slice == ("ar", "ar")
    assert (opened.ul.mcs, opened.dl.mcs) == ((7, 8), (27, 26))
    assert (opened.ul.mcs_table, opened.dl.mcs_table) == ((1, 1), (2, 2))
    assert (opened.ul.layers, opened.dl.layers) == ((1, 1), (2, 2))
    assert (opened.ul.queued_bytes, opened.dl.queued_bytes) == ((1000, 1001), (0, 1))


def report_of_bearers() -> ran_pb2.MacReport:
    """A report of three UEs: of the second the bearer is known, of the third where its bytes wait."""
    message = report(3)
    ue = message.ues[1]
    ue.snssai.sst, ue.snssai.sd, ue.five_qi, ue.priority_level = 1, 0xABCDEF, 80, 68
    for lcid, queued in ((1, 45), (4, 12300)):
        message.ues[2].dl_channels.add(lcid=lcid, queued_bytes=queued)
    return message


def test_what_a_gnb_does_not_know_is_no_column() -> None:
    opened, _ = codec.open_report(report(), CELL)
    assert opened.five_qi == opened.priority_level == opened.snssai == opened.dl_channels == ()
    assert not {"five_qi", "priority_level", "snssai", "dl_channels"} & opened.to_dict().keys()
    # As before those were told: CQI and SNR are in every record, of no UE too.
    assert {"cqi", "snr_db"} <= opened.take([]).to_dict().keys()
    assert MacReport.from_dict(json.loads(json.dumps(opened.to_dict()))) == opened


def test_bearers_and_logical_channels_come_through_and_into_the_record() -> None:
    opened, wrong = codec.open_report(report_of_bearers(), CELL)
    assert wrong == () and opened.five_qi == (0, 80, 0) and opened.priority_level == (0, 68, 0)
    assert opened.snssai == ("", "1-abcdef", "")
    assert opened.dl_channels == ((), (), ((1, 45), (4, 12300)))
    assert MacReport.from_dict(json.loads(json.dumps(opened.to_dict()))) == opened
    for row, known in enumerate(
        [(0, 0, "", ()), (80, 68, "1-abcdef", ()), (0, 0, "", ((1, 45), (4, 12300)))]
    ):
        one = opened.take([row])
        assert (one.five_qi, one.priority_level, one.snssai, one.dl_channels) == tuple((v,) for v in known)
    empty = codec.open_report(report(), CELL)[0].take([0])
    assert empty.five_qi == empty.priority_level == empty.snssai == empty.dl_channels == ()


@pytest.mark.parametrize(
    ("sst", "sd", "text"), [(1, 0xFFFFFF, "1"), (255, 0, "255-000000"), (2, 0xFFFFFE, "2-fffffe")]
)
def test_an_snssai_is_written_as_the_agent_s_configuration_has_it(sst: int, sd: int, text: str) -> None:
    message = report(1)
    message.ues[0].snssai.sst, message.ues[0].snssai.sd = sst, sd
    assert codec.open_report(message, CELL)[0].snssai == (text,)


def test_a_report_is_dated_by_its_arrival_where_that_is_told_and_its_time_is_still_checked() -> None:
    assert codec.open_report(report(), CELL, T0 + 5)[0].time_ns == T0 + 5
    message = report()
    message.time_ns = 0
    with pytest.raises(BadReport, match="time_ns 0"):
        codec.open_report(message, CELL, T0)


def test_a_suspect_ue_is_named_at_every_report_and_good_ones_pass_in_between() -> None:
    bad = report()
    bad.ues[1].rnti = 0x4601
    for _ in range(2):
        opened, wrong = codec.open_report(bad, CELL)
        assert (
            opened.ue_id == ()
            and [re.search(r"UE 'ue-.'.*twice", why) is not None for why in wrong] == [True] * 2
        )
        assert codec.open_report(report(), CELL)[0].ue_id == ("ue-0", "ue-1")


def test_no_ue_is_a_report_too() -> None:
    opened, _ = codec.open_report(report(0), CELL)
    assert opened.ue_id == opened.ul.mcs == opened.dl.queued_bytes == ()


def test_zero_layers_and_zero_mcs_table_read_as_one() -> None:
    message = report(1)
    message.ues[0].ul.layers = message.ues[0].ul.mcs_table = 0
    opened, _ = codec.open_report(message, CELL)
    assert opened.ul.layers == opened.ul.mcs_table == (1,)


def test_mcs_28_fits_tables_1_and_3_beside_a_ue_of_table_2() -> None:
    message = report(3)
    for ue, (table, mcs) in zip(message.ues, ((1, 28), (2, 27), (3, 28)), strict=True):
        ue.dl.mcs_table, ue.dl.mcs = table, mcs
    assert codec.open_report(message, CELL)[0].dl.mcs == (28, 27, 28)


def test_names_beyond_ascii_are_measured_in_bytes() -> None:
    message = report(1)
    message.ues[0].slice = "ü" * 15
    assert codec.open_report(message, CELL)[0].slice == ("ü" * 15,)
    message.ues[0].slice = "ü" * 16
    opened, (why,) = codec.open_report(message, CELL)
    assert opened.ue_id == () and "slice" in why


def _set(path: str, value: object) -> Callable[[ran_pb2.MacReport], None]:
    def change(message: ran_pb2.MacReport) -> None:
        target = message.ues[1] if path.split(".")[0] != "report" else message
        *parents, field = path.removeprefix("report.").split(".")
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, field, value)

    return change


def _set_all(values: Mapping[str, object]) -> Callable[[ran_pb2.MacReport], None]:
    def change(message: ran_pb2.MacReport) -> None:
        for path, value in values.items():
            _set(path, value)(message)

    return change


def _channels(*channels: tuple[int, int]) -> Callable[[ran_pb2.MacReport], None]:
    def change(message: ran_pb2.MacReport) -> None:
        for lcid, queued in channels:
            message.ues[1].dl_channels.add(lcid=lcid, queued_bytes=queued)

    return change


def _many(message: ran_pb2.MacReport) -> None:
    message.CopyFrom(report(65))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set("report.time_ns", 0), "time_ns 0"),
        (_set("report.time_ns", 2**64 - 5), "time_ns 18446744073709551611"),
        (_set("report.frame", 1024), "frame 1024"),
        (_set("report.slot", 20), "slot 20"),
        (_many, "65 UEs"),
    ],
)
def test_a_report_of_impossible_time_or_size_is_refused_by_field_and_value(
    change: Callable[[ran_pb2.MacReport], None], named: str
) -> None:
    message = report()
    change(message)
    with pytest.raises(BadReport, match=named):
        codec.open_report(message, CELL)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set("rnti", 0), r"'ue-1' .*rnti is outside"),
        (_set("rnti", 0xFFFE), r"0xfffe.*rnti is outside"),
        (_set("rnti", 0x4601), "0x4601.*twice"),
        (_set("ue_id", ""), "ue_id is empty"),
        (_set("ue_id", "ue-0"), "ue_id is there twice"),
        (_set("ue_id", "u" * 32), "ue_id .*longer than 31"),
        (_set("slice", "s" * 32), "slice .*longer than 31"),
        (_set("cqi", 16), "cqi 16"),
        (_set("snr_db", math.nan), "snr_db nan"),
        (_set("snr_db", -math.inf), "snr_db -inf"),
        (_set("snr_db", 1e9), "snr_db 1"),
        (_set("ul.mcs", 29), r"'ue-1' .*: ul.mcs 29 is outside 0..28 of MCS table 1"),
        (_set("dl.mcs", 28), r"'ue-1' .*: dl.mcs 28 is outside 0..27 of MCS table 2"),
        (_set("dl.mcs_table", 4), "dl.mcs_table 4"),
        (_set("ul.layers", 5), "ul.layers 5"),
        (_set("ul.queued_bytes", 2**63), "ul.queued_bytes 9223372036854775808"),
        (_set("dl.bler", math.nan), "'ue-1' .*: dl.bler nan"),
        (_set("dl.bler", math.inf), "dl.bler inf"),
        (_set("ul.bler", -0.25), "ul.bler -0.25"),
        (_set("ul.bler", 1.5), "ul.bler 1.5"),
        (_set("five_qi", 256), r"'ue-1' .*: five_qi 256 is outside 0..255"),
        (_set("priority_level", 128), "priority_level 128 is outside 0..127"),
        (_set("snssai.sd", 5), "snssai.sst 0 is outside 1..255"),
        (_set("snssai.sst", 256), "snssai.sst 256"),
        (_set_all({"snssai.sst": 1, "snssai.sd": 1 << 24}), "snssai.sd 0x1000000"),
        (_channels((0, 5)), "dl_channels.lcid 0 is outside 1..32"),
        (_channels((4, 5), (33, 5)), "dl_channels.lcid 33"),
        (_channels((4, 5), (5, 5), (4, 6)), r"one of LCIDs \[4, 5\] is there twice"),
        (_channels((32, 2**63)), "queued_bytes 9223372036854775808 of LCID 32 is more"),
        (_channels(*((lcid, 1) for lcid in range(1, 10))), "9 logical channels, more than 8"),
    ],
)
def test_an_impossible_ue_is_left_out_by_field_and_value_and_the_others_are_kept(
    change: Callable[[ran_pb2.MacReport], None], named: str
) -> None:
    message = report(3)
    change(message)
    twice = len({ue.rnti for ue in message.ues}) < 3 or len({ue.ue_id for ue in message.ues}) < 3
    opened, wrong = codec.open_report(message, CELL)
    good, _ = codec.open_report(report(3), CELL)
    assert re.search(named, wrong[0]) and len(wrong) == 1 + twice
    # Of two with one name nobody can say which of them it is.
    assert opened == good.take([2] if twice else [0, 2])


def test_the_slot_bound_is_the_cells_numerology() -> None:
    message = report()
    fine = CellFacts("c", 106, 60, CELL.tdd)
    message.slot = 39
    codec.open_report(message, fine)
    with pytest.raises(BadReport, match="slot 39"):
        codec.open_report(message, CELL)


def test_hello_gives_the_cells_facts() -> None:
    facts = codec.open_hello(hello())
    assert (facts.cell_id, facts.n_prb, facts.scs_khz, facts.agent_version) == ("cell-1", 106, 30, "1")
    tdd = facts.tdd
    assert (tdd.name, tdd.dl_slots, tdd.dl_symbols, tdd.ul_symbols, tdd.ul_slots) == ("DSUUU", 1, 4, 6, 3)
    assert facts.slots_per_frame == 20


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cell_id": ""}, "cell_id is empty"),
        ({"cell_id": "c" * 64}, "cell_id .*longer than 63"),
        ({"agent_version": "v" * 32}, "'cell-1': agent_version .*longer than 31"),
        ({"prb": 0}, "'cell-1': prb 0"),
        ({"prb": 276}, "prb 276"),
        ({"scs_khz": 45}, "scs_khz.*45"),
        ({"period_slots": 6}, "period_slots 6"),
        ({"dl_symbols": 9}, "tdd: .*mixed slot"),
        ({"ul_slots": 4_000_000_000, "period_slots": 4_000_000_002}, "tdd"),
        ({"dl_slots": 0, "dl_symbols": 0, "period_slots": 4}, "one direction"),
    ],
)
def test_an_impossible_hello_is_refused(changes: dict[str, Any], named: str) -> None:
    message = hello()
    for field, value in changes.items():
        setattr(message if hasattr(message, field) else message.tdd, field, value)
    with pytest.raises(BadReport, match=named):
        codec.open_hello(message)


def test_applied_gives_the_quotas_in_force() -> None:
    message = ran_pb2.Applied(in_force=[ran_pb2.SliceQuota(slice="ar", ul_prb=30, dl_prb=106)])
    message.use.add(slice="", direction=ran_pb2.DL, max_new_prb=106)
    assert codec.check_applied(message, CELL) == {"ar": (30, 106)}


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (ran_pb2.Applied(frame=1024), "frame 1024"),
        (ran_pb2.Applied(slot=20), "slot 20"),
        (ran_pb2.Applied(in_force=[ran_pb2.SliceQuota(slice="")]), "in_force: slice ''"),
        (ran_pb2.Applied(in_force=[ran_pb2.SliceQuota(slice="a")] * 2), "'a' is there twice"),
        (ran_pb2.Applied(in_force=[ran_pb2.SliceQuota(slice="a", ul_prb=107)]), "107 UL"),
        (ran_pb2.Applied(in_force=[ran_pb2.SliceQuota(slice=str(i)) for i in range(17)]), "17 quotas"),
        (ran_pb2.Applied(use=[ran_pb2.SliceUse(slice="a")]), "direction 0"),
        (ran_pb2.Applied(use=[ran_pb2.SliceUse(slice="a", direction=1)] * 33), "33 slice uses"),
        (ran_pb2.Applied(use=[ran_pb2.SliceUse(slice="a", direction=1, max_new_prb=200)]), "200"),
    ],
)
def test_an_impossible_applied_is_refused(message: ran_pb2.Applied, named: str) -> None:
    with pytest.raises(BadReport, match=named):
        codec.check_applied(message, CELL)


def flow_start(**changes: object) -> qos_pb2.FlowStart:
    fields: dict[str, object] = {
        "flow": "f",
        "ue_id": "ue-1",
        "slice": "ar",
        "ul_bps": 3e6,
        "dl_bps": 1e6,
        "time_ns": T0,
    }
    return qos_pb2.FlowStart(**(fields | changes))


def test_a_flow_comes_through() -> None:
    flow = codec.open_flow_start(flow_start())
    assert (flow.flow, flow.ue_id, flow.slice) == ("f", "ue-1", "ar")
    assert (flow.ul_bps, flow.dl_bps, flow.start_ns, flow.stop_ns) == (3e6, 1e6, T0, 0)
    assert codec.open_flow_stop(qos_pb2.FlowStop(flow="f", time_ns=T0)) == codec.FlowEnd("f", T0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"flow": ""}, "flow is empty"),
        ({"flow": "f" * 129}, "flow .*longer"),
        ({"ue_id": ""}, "flow 'f': ue_id is empty"),
        ({"slice": ""}, "slice is empty"),
        ({"ul_bps": math.nan}, "ul_bps nan"),
        ({"ul_bps": -1.0}, "ul_bps -1.0"),
        ({"dl_bps": math.inf}, "dl_bps inf"),
        ({"time_ns": 0}, "time_ns 0"),
        ({"time_ns": 1_700_000_000}, "time_ns 1700000000 is not a CLOCK_REALTIME time in ns"),
        ({"time_ns": 2**64 - 1}, "time_ns 18446744073709551615"),
    ],
)
def test_an_impossible_flow_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(BadMessage, match=named):
        codec.open_flow_start(flow_start(**changes))


def test_frames_come_through_as_int64_columns_and_negative_delays_are_kept() -> None:
    batch = qos_pb2.FrameBatch(flow="f")
    batch.frames.add(sequence=7, ue_sent_ns=T0, edge_received_ns=T0 - 5, edge_sent_ns=T0 + 9)
    batch.frames.add(sequence=2**32 - 1, ue_received_ns=T0 + 11)
    opened = codec.open_frame_batch(batch, synchronised=True, received_ns=T0 + 20)
    assert opened.columns.dtype == np.int64
    assert opened.columns.tolist() == [[7, T0, T0 - 5, T0 + 9, 0], [2**32 - 1, 0, 0, 0, T0 + 11]]
    assert (opened.flow, opened.synchronised, opened.received_ns) == ("f", True, T0 + 20)
    empty = codec.open_frame_batch(qos_pb2.FrameBatch(flow="f"), synchronised=True, received_ns=1)
    assert empty.columns.shape == (0, 5)


@pytest.mark.parametrize(
    ("flow", "frames", "named"),
    [
        ("", [], "flow is empty"),
        ("f", [{"sequence": 3}], "frame 3: has no time"),
        ("f", [{"ue_sent_ns": T0}, {"sequence": 4, "ue_sent_ns": 12}], "frame 4: ue_sent_ns 12"),
        ("f", [{"sequence": 5, "ue_sent_ns": T0, "ue_received_ns": 2**64 - 9}], "frame 5: ue_received_ns 18"),
        ("f", [{"ue_sent_ns": T0}] * 1025, "1025 frames"),
    ],
)
def test_an_impossible_batch_is_refused(flow: str, frames: list[dict[str, int]], named: str) -> None:
    batch = qos_pb2.FrameBatch(flow=flow, frames=[qos_pb2.Frame(**f) for f in frames])
    with pytest.raises(BadMessage, match=named):
        codec.open_frame_batch(batch, synchronised=True, received_ns=T0)


def test_clock_status() -> None:
    good = qos_pb2.ClockStatus(host="h", ptp_state="SLAVE", offset_ns=-40.0, path_delay_ns=900.0, time_ns=T0)
    assert codec.open_clock_status(good) == codec.ClockReport("h", "SLAVE", -40.0, 900.0, T0)
    for field, value in (("offset_ns", math.nan), ("path_delay_ns", -1.0), ("host", ""), ("ptp_state", "")):
        bad = qos_pb2.ClockStatus()
        bad.CopyFrom(good)
        setattr(bad, field, value)
        with pytest.raises(BadMessage, match=field):
            codec.open_clock_status(bad)


def gpu_state(**changes: object) -> edge_pb2.GpuState:
    fields: dict[str, object] = {
        "gpu": "GPU-0",
        "time_ns": T0,
        "sm_mhz": 800,
        "memory_mhz": 4000,
        "locked_mhz": 800,
        "power_w": 40.0,
        "energy_j": 1e6,
        "utilisation": 0.5,
        "temperature_c": 60.0,
    }
    return edge_pb2.GpuState(**(fields | changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sm_mhz", 2_000_000),
        ("power_w", math.nan),
        ("power_w", -1.0),
        ("energy_j", math.inf),
        ("utilisation", 1.5),
        ("utilisation", -0.1),
        ("temperature_c", math.nan),
        ("time_ns", 0),
    ],
)
def test_an_impossible_gpu_state_is_refused(field: str, value: float) -> None:
    codec.check_gpu_state(gpu_state())
    with pytest.raises(BadMessage, match=f"'GPU-0': {field}"):
        codec.check_gpu_state(gpu_state(**{field: value}))


# -- samples and settings


TABLES = {"pose": 6, "hits": 1}


def samples(n: int = 2, width: int = 6, **changes: Any) -> qos_pb2.Samples:
    fields = {
        "flow": "f",
        "table": "pose",
        "time_ns": [T0 + i for i in range(n)],
        "values": [float(i) for i in range(n * width)],
        **changes,
    }
    return qos_pb2.Samples(**fields)


def test_samples_come_through_as_rows() -> None:
    message = samples()
    message.values[7] = math.nan
    opened = codec.open_samples(message, TABLES, received_ns=T0 + 9)
    assert (opened.flow, opened.table, opened.received_ns, len(opened)) == ("f", "pose", T0 + 9, 2)
    assert opened.time_ns.dtype == np.int64 and opened.time_ns.tolist() == [T0, T0 + 1]
    assert opened.values.dtype == np.float32 and opened.values.shape == (2, 6)
    assert opened.values[0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert np.isnan(opened.values[1, 1]) and np.isnan(opened.values).sum() == 1
    assert codec.open_samples(samples(0), TABLES, received_ns=T0).values.shape == (0, 6)
    whole = samples(1024, 1, table="hits")
    assert len(codec.open_samples(whole, TABLES, received_ns=T0)) == 1024
    assert len(codec.open_samples(samples(682), TABLES, received_ns=T0)) == 682


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"flow": ""}, "Samples: flow is empty"),
        ({"flow": "f" * 129}, "Samples: flow .* longer than 128"),
        ({"table": ""}, "flow 'f': unknown table ''; its tables: hits, pose"),
        ({"table": "x" * 4000}, f"flow 'f': unknown table '{'x' * 31}';"),
        ({"n": 1025, "width": 1, "table": "hits"}, "table 'hits': time_ns: 1025 rows, more than 1024"),
        ({"n": 683}, "table 'pose': values: 4098 values, more than 4096"),
        ({"width": 5}, "table 'pose': values: 10 values are not 2 rows of 6 columns"),
        ({"table": "hits"}, "table 'hits': values: 12 values are not 2 rows of 1 columns"),
        ({"time_ns": [T0]}, "values: 12 values are not 1 rows of 6 columns"),
        ({"time_ns": [T0, 0]}, "table 'pose': row 1: time_ns 0 is not a CLOCK_REALTIME time"),
        ({"time_ns": [T0 // 10**9, T0]}, "table 'pose': row 0: time_ns 1700000000 is not"),
        ({"time_ns": [T0, 1 << 63]}, "table 'pose': row 1: time_ns 9223372036854775808 is not"),
        (
            {"time_ns": [T0, T0 + 3600 * 10**9]},
            "row 1: time_ns .* is 3600.0 s ahead of the controller's clock",
        ),
        ({"time_ns": [T0 - 3600 * 10**9, T0]}, "row 0: time_ns .* is 3600.0 s behind the controller's clock"),
        ({"values": [0.0] * 8 + [math.inf] + [0.0] * 3}, "table 'pose': row 1: values: column 2 is inf"),
        ({"values": [-math.inf] + [0.0] * 11}, "table 'pose': row 0: values: column 0 is -inf"),
    ],
)
def test_samples_that_cannot_be_are_named(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(BadMessage, match=place):
        codec.open_samples(samples(**changes), TABLES, received_ns=T0)


def test_samples_may_be_as_far_from_the_controllers_clock_as_frames() -> None:
    times = [T0 + 10**9, T0 - 60 * 10**9]
    assert len(codec.open_samples(samples(time_ns=times), TABLES, received_ns=T0)) == 2
    for off in (T0 + 10**9 + 1, T0 - 60 * 10**9 - 1):
        with pytest.raises(BadMessage, match="controller's clock"):
            codec.open_samples(samples(time_ns=[T0, off]), TABLES, received_ns=T0)


def test_settings_go_out_whole() -> None:
    settings = {"f": {"fps": (30.0,), "sizes": (1.0, 2.5)}, "g": {}}
    message = codec.settings_message(7, 25_000, settings)
    assert (message.sequence, message.lease_ms) == (7, 25_000)
    assert {f.flow: {s.name: tuple(s.values) for s in f.settings} for f in message.flows} == settings


def test_settings_that_cannot_go_out_are_named() -> None:
    with pytest.raises(ValueError, match="flow 'f': fps: value 0 is nan"):
        codec.settings_message(1, 1000, {"f": {"fps": (math.nan,)}})
    with pytest.raises(ValueError, match="65 flows, more than 64"):
        codec.settings_message(1, 1000, {str(i): {} for i in range(65)})
    for lease_ms in (-1, 3_600_001):
        with pytest.raises(ValueError, match=f"lease of {lease_ms} ms"):
            codec.settings_message(1, lease_ms, {})


def test_the_largest_settings_fit_into_a_grpc_message() -> None:
    most = {f"{i:031d}": (1.0,) * 64 for i in range(32)}
    message = codec.settings_message(1 << 63, 3_600_000, {f"{i:0128d}": most for i in range(64)})
    assert qos_pb2.QosNotice(settings=message).ByteSize() < 4 << 20


def test_an_answer_to_settings_names_their_flows() -> None:
    message = qos_pb2.SettingsApplied(sequence=7, time_ns=T0, refused="no")
    opened = codec.open_settings_applied(message, host="h", stream=3, sent={7: ("f", "g")})
    assert opened == codec.SettingsApplied("h", 3, ("f", "g"), 7, T0, "no")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"sequence": 8}, "sequence 8 was not sent on this stream"),
        ({"time_ns": 0}, "sequence 7: time_ns 0 is not a CLOCK_REALTIME time"),
        ({"refused": "x" * 1025}, "sequence 7: refused .* longer than 1024 bytes"),
    ],
)
def test_answers_to_settings_that_cannot_be_are_named(changes: dict[str, Any], place: str) -> None:
    message = qos_pb2.SettingsApplied(**{"sequence": 7, "time_ns": T0, **changes})
    with pytest.raises(BadMessage, match=place):
        codec.open_settings_applied(message, host="h", stream=1, sent={7: ("f",)})


def test_a_flow_may_name_its_service_or_not() -> None:
    assert codec.open_flow_start(flow_start()) == codec.open_flow_start(flow_start(service="mar"))
    with pytest.raises(BadMessage, match=r"flow 'f': service .* longer than 31 bytes"):
        codec.open_flow_start(flow_start(service="s" * 32))
