"""The figures of a run against sums done by hand."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.observation import Command
from controller.loop import ControlLoop
from controller.store.record import upgrade
from controller.store.summary import RECENT, Pairs, Summary
from tests import builders
from tests.store.builders import plain, steps


def closed(
    q: int | None = 1, *, flows: int = 1, hops: tuple[int | None, ...] = (1, 1, 1), **unattributed: str
) -> dict[str, Any]:
    """What a record tells of the control slot before it; ``q`` is the round trip's, ``hops`` ul, edge, dl."""

    def leg(bit: int | None) -> dict[str, Any]:
        return {"q": bit, "ms": {"f": 10.0} if flows else {}, "frames": 150 * flows}

    return {
        "busy": flows > 0,
        "flows": flows,
        "round_trip": leg(q),
        **dict(zip(("ul", "edge", "dl"), map(leg, hops), strict=True)),
        "negative_delays": 0,
        "unattributed": unattributed,
    }


FIRST = {"ul": "no decision", "edge": "no decision", "dl": "no decision"}


def decision(
    number: int,
    ul: int,
    dl: int,
    mhz: int,
    before: dict[str, Any],
    *,
    cell: str = "c",
    acts: bool = True,
    policy: str = "mucb1",
) -> dict[str, Any]:
    """A record of one slice; ``before`` is the QoS of the control slot that it closes."""
    hops = {
        hop: {"policy": policy, "state": 5, "action": action}
        for hop, action in (("ul", ul), ("edge", mhz), ("dl", dl))
    }
    record = {
        "cell": cell,
        "control_slot": number,
        "time_ns": number * 1000,
        "mode": "active" if acts else "shadow",
        "quotas": {"ar": [ul, dl]} if acts else {},
        "gpu_mhz": mhz if acts else None,
        "prb": 106,
        "max_mhz": 1600,
        "slices": {"ar": {"closed": before, "hops": hops}},
    }
    return dict(upgrade(record))


def summarised(*records: dict[str, Any]) -> dict[str, Any]:
    summary = Summary()
    for record in records:
        summary.add(record)
    return summary.result()


def test_a_slots_qos_counts_for_the_allocation_of_the_record_before() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(0, **FIRST)),
        decision(2, 30, 20, 700, closed(1, flows=2)),
        decision(3, 90, 90, 1600, closed(0, flows=2, hops=(0, 1, 1))),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    # Slots 1 (10 PRB, met) and 2 (30 PRB, violated) are over; slot 3 is not, and slot 0 was not ours.
    assert one["control_slots"] == one["busy_control_slots"] == 2
    assert one["qos_delivery_ratio"] == 0.5
    assert (one["avg_ul_prb"], one["avg_dl_prb"], one["avg_gpu_mhz"]) == (20.0, 15.0, 600.0)
    assert one["hop_delivery_ratio"] == {"ul": 0.5, "edge": 1.0, "dl": 1.0}
    assert one["unattributed"] == {}
    cell = result["cells"]["c"]
    assert (cell["begin_ns"], cell["end_ns"], cell["modes"]) == (1000, 3000, {"active": 2})


def test_power_savings_are_those_of_the_paper() -> None:
    """DL 10 PRB saves 43.7 % at the base station, UL 33 PRB 37.6 % at the UE."""
    result = summarised(decision(1, 33, 10, 500, closed(**FIRST)), decision(2, 33, 10, 500, closed()))
    one = result["cells"]["c"]["slices"]["ar"]
    assert one["bs_power_saving"] == pytest.approx(0.437, abs=5e-4)
    assert one["ue_power_saving"] == pytest.approx(0.376, abs=5e-4)


def test_idle_slots_count_as_met_and_not_as_busy() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST)),
        decision(2, 10, 10, 500, closed(0)),
        decision(3, 10, 10, 500, closed(1, flows=0)),
        decision(4, 10, 10, 500, closed(1, flows=0)),
        decision(5, 10, 10, 500, closed(1)),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    assert (one["control_slots"], one["busy_control_slots"]) == (4, 2)
    assert (one["qos_delivery_ratio"], one["qos_delivery_ratio_busy"]) == (0.75, 0.5)


def test_a_qos_that_cannot_be_told_is_in_no_ratio() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST)),
        decision(2, 10, 10, 500, closed(1, hops=(None, None, None))),
        decision(3, 10, 10, 500, closed(None, hops=(0, 1, 1))),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    assert one["qos_delivery_ratio"] == 1.0
    assert one["hop_delivery_ratio_busy"] == {"ul": 0.0, "edge": 1.0, "dl": 1.0}


def test_shadow_counts_with_all_that_there_is() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST), acts=False),
        decision(2, 10, 10, 500, closed(ul="shadow", edge="shadow", dl="shadow"), acts=False),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    assert (one["avg_ul_prb"], one["avg_dl_prb"], one["avg_gpu_mhz"]) == (106, 106, 1600)
    assert one["bs_power_saving"] == one["ue_power_saving"] == 0
    assert one["unattributed"] == {"shadow": {"ul": 1, "edge": 1, "dl": 1}}
    assert result["cells"]["c"]["modes"] == {"shadow": 1}


def test_a_gap_in_the_records_joins_no_slot_to_another_ones_qos() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST)),
        decision(4, 50, 50, 500, closed(0)),
        decision(5, 10, 10, 500, closed(1)),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    assert (one["control_slots"], one["qos_delivery_ratio"], one["avg_ul_prb"]) == (1, 1.0, 50)


def test_unattributed_slots_are_counted_by_reason_and_hop() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST)),
        decision(2, 10, 10, 500, closed(ul="arbiter cut")),
        decision(3, 10, 10, 500, closed(ul="arbiter cut", edge="no edge agent")),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    assert one["unattributed"] == {"arbiter cut": {"ul": 2}, "no edge agent": {"edge": 1}}


def test_loads_are_means_of_their_last_25_slots() -> None:
    summary = Summary()
    summary.add(decision(1, 100, 100, 1600, closed(**FIRST)))
    number = 2
    for _ in range(10):  # these are pushed out by the 25 that follow
        summary.add(decision(number, 100, 100, 1600, closed(0, flows=2)))
        number += 1
    summary.add(decision(number, 20, 10, 500, closed(1, flows=0)))
    for i in range(RECENT):
        number += 1
        summary.add(decision(number, 20, 10, 500, closed(int(i >= 5), flows=2)))
    loads = summary.result()["cells"]["c"]["slices"]["ar"]["by_load"]
    assert list(loads) == ["0", "2"]
    assert loads["0"]["control_slots"] == 1 and loads["0"]["avg_ul_prb"] == 100
    assert loads["2"] == {
        "control_slots": RECENT,
        "qos_delivery_ratio": 20 / 25,
        "avg_ul_prb": 20,
        "avg_dl_prb": 10,
        "avg_gpu_mhz": 500,
    }


def test_cells_are_kept_apart_and_the_headline_joins_them() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST)),
        decision(1, 30, 30, 700, closed(**FIRST), cell="d"),
        decision(2, 10, 10, 500, closed(1)),
        decision(2, 30, 30, 700, closed(0), cell="d"),
    )
    assert result["cells"]["c"]["slices"]["ar"]["qos_delivery_ratio"] == 1
    assert result["cells"]["d"]["slices"]["ar"]["qos_delivery_ratio"] == 0
    assert (result["control_slots"], result["qos_delivery_ratio"], result["avg_ul_prb"]) == (2, 0.5, 20)


def test_the_policy_is_the_latest_and_all_are_named() -> None:
    result = summarised(
        decision(1, 10, 10, 500, closed(**FIRST)),
        decision(2, 10, 10, 500, closed(), policy="aimd"),
        decision(3, 10, 10, 500, closed()),
        decision(4, 10, 10, 500, closed()),
    )
    one = result["cells"]["c"]["slices"]["ar"]
    assert (one["policy"], one["policies"]) == ("mucb1", ["mucb1", "aimd"])


def test_events_are_counted_by_kind_where_they_belong() -> None:
    summary = Summary()
    summary.add(decision(1, 10, 10, 500, closed(**FIRST)))
    # One of a cell that was never controlled counts too.
    for cell, kind in (("c", "cell_lost"), ("c", "cell_lost"), ("", "run_resumed"), ("d", "cell_lost")):
        summary.add_event(cell, kind)
    result = summary.result()
    assert result["cells"]["c"]["events"] == {"cell_lost": 2} and result["cells"].keys() == {"c"}
    assert result["events"] == {"cell_lost": 3, "run_resumed": 1}


def test_nothing_recorded_is_no_error() -> None:
    result = Summary().result()
    assert result["control_slots"] == 0 and result["qos_delivery_ratio"] is None and result["cells"] == {}
    assert plain(result) == result


def test_a_real_control_loops_records_fit() -> None:
    """Two slices of a real loop, a restart in between, and a change to shadow."""
    spec = builders.loop_spec(builders.slice_spec("ar"), builders.slice_spec("ar2", policy="aimd"))
    summary, loop = Summary(), ControlLoop(spec)
    records = [step.record for step in steps(loop, 10)]
    again = ControlLoop(spec)
    again.load_state(loop.to_state())
    records += [step.record for step in steps(again, 5)]
    command = Command("mode", "shadow")
    number = again.control_slot
    records.append(again.step(builders.observation(number, commands=(command,))).to_record())
    records.append(again.step(builders.observation(number + 1)).to_record())
    for record in records:
        summary.add(plain(record))
    cell = summary.result()["cells"]["cell-1"]
    # 17 records: the first of each loop closes a slot that was not under its own decision.
    assert cell["control_slots"] == 15 and cell["modes"] == {"active": 14, "shadow": 1}
    assert cell["slices"]["ar"]["policy"] == "mucb1" and cell["slices"]["ar2"]["policy"] == "aimd"
    assert cell["slices"]["ar"]["unattributed"]["mode changed"] == {"ul": 1, "edge": 1, "dl": 1}
    assert "no decision" not in cell["slices"]["ar"]["unattributed"]


def test_a_closed_slot_tells_the_cells_total() -> None:
    pairs = Pairs()
    first = decision(1, 70, 20, 500, closed(**FIRST))
    first["quotas"]["b"] = [60, 20]
    first["slices"]["b"] = first["slices"]["ar"]
    assert pairs.add(first) is None
    second = decision(2, 70, 20, 500, closed())
    second["slices"]["b"] = second["slices"]["ar"]
    slot = pairs.add(second)
    assert slot is not None and (slot.control_slot, slot.begin_ns, slot.end_ns) == (1, 1000, 2000)
    assert (slot.total.ul_prb, slot.total.dl_prb, slot.total.gpu_mhz) == (106, 40, 500)


def test_clocks_and_the_frames_that_they_cost_are_summed_up() -> None:
    summary = Summary()

    def clock(worst: float | None, grandmaster: str, fault: str = "") -> dict[str, Any]:
        told = {"state": "SLAVE", "offset_ns": worst, "path_delay_ns": 1.0, "fault": fault}
        return {**told, "worst_offset_ns": worst, "grandmaster": grandmaster}

    summary.add({**decision(1, 10, 10, 500, closed(1, **FIRST)), "clocks": {"ue-1": clock(-700.0, "aa")}})
    bad = {**closed(1), "unsynchronised_frames": 40, "unsynchronised": {"ue-1: x": 30, "ue-1: y": 10}}
    summary.add({**decision(2, 10, 10, 500, bad), "clocks": {"ue-1": clock(300.0, "bb", "ue-1: x")}})
    summary.add({**decision(3, 10, 10, 500, bad), "clocks": {"ue-1": clock(None, "bb", "ue-1: x")}})
    summary.add(decision(4, 10, 10, 500, closed(1)))
    cell = summary.result()["cells"]["c"]
    assert cell["clocks"] == {
        "ue-1": {
            "control_slots": 3,
            "worst_offset_ns": 700.0,
            "grandmasters": ["aa", "bb"],
            "faults": {"ue-1: x": 2},
        }
    }
    told = cell["slices"]["ar"]
    assert (told["frames"], told["unsynchronised_frames"]) == (450, 80)
    assert told["unsynchronised"] == {"ue-1: x": 60, "ue-1: y": 20}


def test_control_slots_weigh_as_long_as_they_lasted() -> None:
    summary = Summary()
    early = {"ended": "a flow started"}
    for number, (time_ns, prb, q, more) in enumerate(
        [(0, 100, 1, {}), (5_000, 20, 1, {}), (6_000, 50, 0, early), (11_000, 50, 1, {})]
    ):
        record = decision(number, prb, prb, 1000, closed(q))
        summary.add({**upgrade(record), "time_ns": time_ns, **more})
    got = summary.result()
    assert got["control_slots"] == 3
    assert got["avg_ul_prb"] == pytest.approx((100 * 5 + 20 * 1 + 50 * 5) / 11)
    assert got["qos_delivery_ratio"] == pytest.approx((5 + 0 * 1 + 5) / 11)


@pytest.mark.parametrize("step_ns", [-3_600_000, 3_600_000])
def test_a_clock_that_is_set_outweighs_nothing(step_ns: int) -> None:
    summary = Summary()
    for number in range(12):
        record = {**upgrade(decision(number, 20 + number % 2, 20, 1000, closed(1)))}
        summary.add({**record, "time_ns": number * 5_000 + (step_ns if number > 6 else 0)})
    assert summary.result()["avg_ul_prb"] == pytest.approx(20 + 5 / 11)
