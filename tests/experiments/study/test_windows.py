"""Windows of equal length over runs whose control slots need not be."""

from __future__ import annotations

from typing import Any

import pytest

from controller import sim
from controller.config import Config
from controller.experiments.runs import RunSpec, execute
from controller.experiments.study import jobs
from controller.experiments.study.windows import Windows


def config_of(policy: str, **overrides: Any) -> Config:
    return RunSpec.make("mucb1-2", policy, 1, overrides=overrides).load()


def played(config: Config, observed: bool, seconds: float = 200.0) -> tuple[list[dict[str, Any]], list[Any]]:
    """Every decision's record, and the windows' bits."""
    records: list[dict[str, Any]] = []
    windows = Windows(config, "cell-1", "ar")
    sim.run(
        config,
        1,
        duration_s=seconds,
        on_slot=lambda _o, d, _l: records.append(d.to_record()),
        observe=(lambda _cell: windows) if observed else None,
    )
    return records, windows.met


@pytest.mark.parametrize("policy", ["mucb1", "aimd"])
def test_with_control_slots_of_a_window_s_length_a_window_is_a_control_slot(policy: str) -> None:
    records, met = played(config_of(policy), observed=True)
    slots = [r["slices"]["ar"]["closed"]["met"] for r in records[1:]]
    assert met == slots and len(met) == 40 and 0 < sum(met) < 40


@pytest.mark.parametrize("slot_s", [5.0, 3.0, 0.7])
def test_a_run_is_the_same_whether_it_is_observed_or_not(slot_s: float) -> None:
    """Also where a window ends in the middle of a sub-interval of the state."""
    config = config_of("mucb1", **{"control.control_slot_s": slot_s})
    assert played(config, observed=True, seconds=90)[0] == played(config, observed=False, seconds=90)[0]


def test_windows_do_not_depend_on_how_long_the_control_slots_are() -> None:
    """Full resources are the same whenever they are decided: so are the windows, but not the slots."""
    by_length = {
        slot_s: played(config_of("static", **{"control.control_slot_s": slot_s}), observed=True)
        for slot_s in (5.0, 3.0, 0.7)
    }
    slots = {
        slot_s: [r["slices"]["ar"]["closed"]["met"] for r in records[1:]]
        for slot_s, (records, _) in by_length.items()
    }
    met = [windows[:39] for _, windows in by_length.values()]
    assert met[0] == met[1] == met[2] and 0 in met[0]
    ratios = {sum(bits) / len(bits) for bits in slots.values()}
    assert len(ratios) == 3


def test_a_row_is_what_the_experiment_says_and_its_parts_are_parts() -> None:
    spec = RunSpec.make("mucb1-2", "mucb1", 1, duration_s=450)
    row, run = jobs.play(spec), execute(spec)
    assert row["whole_qos_slots"] == row["whole_qos_windows"] == run.figures["qos_delivery_ratio"]
    for name, figure in (("ul_prb", "avg_ul_prb"), ("dl_prb", "avg_dl_prb"), ("mhz", "avg_gpu_mhz")):
        assert row[f"whole_{name}"] == pytest.approx(run.figures[figure])
    q, ul = run.series.q["round_trip"], run.series.ul_prb
    for part, of in (
        ("first_5min", slice(0, 60)),
        ("after_5min", slice(60, 90)),
        ("last_third", slice(60, 90)),
    ):
        assert row[f"{part}_qos_slots"] == row[f"{part}_qos_windows"] == q[of].mean()
        assert row[f"{part}_ul_prb"] == pytest.approx(ul[of].mean())
    assert row["windows"] == "".join(map(str, q))
    of_full = (row["whole_ul_prb"] / 106 + row["whole_dl_prb"] / 106 + row["whole_mhz"] / 1600) / 3
    assert row["whole_resources"] == pytest.approx(of_full)
    short = jobs.play(RunSpec.make("mucb1-2", "mucb1", 1, duration_s=60))
    assert short["after_5min_qos_windows"] is None and short["first_5min_ul_prb"] == short["whole_ul_prb"]


def test_unequal_control_slots_count_by_their_time() -> None:
    """Ten seconds at all there is, then two slots of one and nine seconds."""
    from controller.store.summary import Allocation, ClosedSlot

    def slot(begin_s: float, end_s: float, ul: int, met: int) -> ClosedSlot:
        epoch = sim.EPOCH_NS
        return ClosedSlot(
            cell="cell-1",
            control_slot=0,
            begin_ns=epoch + round(begin_s * 1e9),
            end_ns=epoch + round(end_s * 1e9),
            mode="active",
            prb=106,
            max_mhz=1600,
            allocations={"ar": Allocation(ul, 106, 1600)},
            choices={},
            outcomes={"ar": {"met": met}},
            settings={},
            length_ns=round((end_s - begin_s) * 1e9),
        )

    windows = Windows(config_of("static"), "cell-1", "ar")
    windows.met = [1, 0, 1, None]
    slots = [slot(0, 10, 106, 0), slot(10, 11, 50, 1), slot(11, 20, 10, 1)]

    def figures(start: float, stop: float) -> dict[str, Any]:
        return jobs._figures(slots, "ar", windows, (start, stop))

    whole = figures(0, 20)
    assert whole["ul_prb"] == pytest.approx((10 * 106 + 50 + 9 * 10) / 20)
    assert (whole["qos_windows"], whole["qos_slots"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert figures(5, 12)["ul_prb"] == pytest.approx((5 * 106 + 50 + 10) / 7)
    # The window from 5 to 10 s is wholly inside, the one that 12 s cuts is not.
    assert figures(5, 12)["qos_windows"] == 0 and figures(15, 20)["qos_windows"] is None
    assert figures(15, 20)["ul_prb"] == 10


def test_windows_need_more_than_the_guard_and_the_service_ar() -> None:
    with pytest.raises(ValueError, match=r"guard_ms 200 leaves nothing of a window of 0\.2 s"):
        Windows(config_of("static"), "cell-1", "ar", window_s=0.2)
