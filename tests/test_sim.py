from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from controller import config, sim
from controller.core.observation import Observation
from controller.core.spec import LoopSpec
from controller.loop import ControlLoop

TRACES = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "channel-traces"


def scenario(name: str = "mucb1-1", **overrides: object) -> config.Config:
    return config.load(config.find(name), overrides)


def decisions(c: config.Config, seed: int, seconds: float) -> list[dict]:
    out: list[dict] = []
    sim.run(c, seed, duration_s=seconds, on_slot=lambda _o, d, _l: out.append(d.to_record()))
    return out


def test_a_run_is_the_same_under_its_seed_and_another_under_another() -> None:
    c = scenario("mucb1-2")
    assert decisions(c, 4, 300) == decisions(c, 4, 300)
    assert decisions(c, 4, 300) != decisions(c, 5, 300)


def test_recorded_observations_replay_to_equal_decisions() -> None:
    c = scenario("mucb1-2")
    seen: list[tuple[str, dict]] = []
    spec: list[str] = []

    def on_slot(observation, decision, loop) -> None:
        seen.append((json.dumps(observation.to_dict()), decision.to_record()))
        spec[:] = [json.dumps(loop.spec.to_dict())]

    sim.run(c, 4, duration_s=400, on_slot=on_slot)
    loop = ControlLoop(LoopSpec.from_dict(json.loads(spec[0])))
    for text, record in seen:
        assert loop.step(Observation.from_dict(json.loads(text))).to_record() == record
    assert any(r["slices"]["ar"]["closed"]["busy"] for _, r in seen)


def test_control_slots_that_end_early_are_recorded_and_replay_to_equal_decisions() -> None:
    c = scenario("mucb1-3").with_policy("headroom")
    seen: list[tuple[str, dict]] = []
    spec: list[str] = []

    def on_slot(observation, decision, loop) -> None:
        seen.append((json.dumps(observation.to_dict()), decision.to_record()))
        spec[:] = [json.dumps(loop.spec.to_dict())]

    sim.run(c, 4, duration_s=600, on_slot=on_slot)
    observed = [Observation.from_dict(json.loads(text)) for text, _ in seen]
    lengths = [(o.closed_ns - o.opened_ns) / 1e9 for o in observed[1:]]
    early = [n for o, n in zip(observed[1:], lengths, strict=True) if o.ended]
    assert len(early) >= 5 and all(1.0 <= n < 5.0 for n in early)
    assert all(n == 5.0 for o, n in zip(observed[1:-1], lengths, strict=False) if not o.ended)
    assert sum(lengths) == pytest.approx(600)
    assert {o.ended for o in observed} >= {"", "ar: a flow started"}
    loop = ControlLoop(LoopSpec.from_dict(json.loads(spec[0])))
    for observation, (_, record) in zip(observed, seen, strict=True):
        assert loop.step(observation).to_record() == record


def test_without_events_every_control_slot_lasts_its_time() -> None:
    c = scenario("mucb1-3", **{"control.events": False}).with_policy("headroom")
    times = [r["time_ns"] for r in decisions(c, 4, 120)]
    assert {b - a for a, b in pairwise(times)} == {5_000_000_000}


def test_the_default_keeps_what_full_resources_keep_with_less() -> None:
    """Ten minutes with the learning in them; the study is over hours and seeds."""
    c = scenario("mucb1-3")
    of = {
        policy: sim.run(c.with_policy(policy), 4, duration_s=600).summary for policy in ("static", "headroom")
    }
    full, default = of["static"], of["headroom"]
    assert default["qos_delivery_ratio"] >= full["qos_delivery_ratio"] - 0.03
    assert default["avg_ul_prb"] < 60 and default["avg_dl_prb"] < 50 and default["avg_gpu_mhz"] < 1300


@pytest.mark.parametrize("policy", ["static", "aimd", "ucb1", "mucb1"])
def test_every_policy_runs_and_reports(policy: str) -> None:
    c = scenario("mucb1-2", **{"cells.0.slices.0.policy": policy})
    result = sim.run(c, 4, duration_s=600)
    ar = result.summary["cells"]["cell-1"]["slices"]["ar"]
    assert result.control_slots == 120 and ar["control_slots"] == 120
    assert 0 < ar["qos_delivery_ratio"] <= 1
    assert ar["policy"] == policy
    if policy == "static":
        assert (ar["avg_ul_prb"], ar["avg_dl_prb"], ar["avg_gpu_mhz"]) == (105, 105, 1600)
    else:
        assert ar["avg_ul_prb"] < 90 and ar["avg_gpu_mhz"] < 1500


def test_mucb1_beats_ucb1_where_there_are_many_actions() -> None:
    """The paper's first claim, in the scenario where it is widest: 20 actions a hop, three flows."""
    by_policy = {}
    for policy in ("ucb1", "mucb1"):
        c = scenario("mucb1-2", **{"cells.0.slices.0.policy": policy})
        by_policy[policy] = sim.run(c, 4).summary["cells"]["cell-1"]["slices"]["ar"]["qos_delivery_ratio"]
    assert by_policy["mucb1"] > by_policy["ucb1"] + 0.15


def test_no_flow_means_no_traffic_and_a_met_qos() -> None:
    result = sim.run(scenario("demo", **{"emulation.flows": 0}), 1, duration_s=20)
    ar = result.summary["cells"]["cell-1"]["slices"]["ar"]
    assert ar["qos_delivery_ratio"] == 1.0
    assert ar["qos_delivery_ratio_busy"] is None


def test_a_measured_channel_drives_the_cell() -> None:
    files = sorted(TRACES.glob("*driving*.csv.gz"))
    if not files:
        pytest.skip("../shared/data/channel-traces is not there")
    c = scenario("demo", **{"emulation.channel_trace": str(files[0])})
    mcs: set[int] = set()

    def on_slot(observation, _decision, _loop) -> None:
        mcs.update(r.ul.mcs[0] for r in observation.reports)

    sim.run(c, 1, duration_s=60, on_slot=on_slot)
    assert len(mcs) > 5


def test_a_trace_that_is_not_there_is_named() -> None:
    c = scenario("demo", **{"emulation.channel_trace": "/nowhere/trace.csv"})
    with pytest.raises((ValueError, OSError), match=r"/nowhere/trace\.csv"):
        sim.run(c, 1, duration_s=10)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [({"emulation": None}, "no emulation section"), ({"control.control_slot_s": 100.0}, "no control slot")],
)
def test_what_cannot_be_run_says_why(overrides: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        sim.run(scenario("mucb1-1", **overrides), 1, duration_s=60)


def test_a_ue_without_a_slice_is_background_traffic() -> None:
    text = """
cells:
  - id: cell-1
    slices: [{id: ar, ues: [ue-1]}]
emulation: {duration_s: 20.0, flows: 2, ues: 2, schedule: always}
"""
    records = decisions(config.parse(text), 1, 20)
    closed = [r["slices"]["ar"]["closed"] for r in records[1:]]
    assert {c["users"] for c in closed} == {1} and all(c["busy"] for c in closed)
    # What it sends takes what the slice leaves.
    alone = decisions(config.parse(text.replace("flows: 2, ues: 2", "flows: 1, ues: 1")), 1, 20)
    assert [r["slices"]["ar"]["closed"] for r in alone[1:]] != closed


def test_two_ues_in_two_slices_share_the_cell() -> None:
    text = """
cells:
  - id: cell-1
    slices:
      - {id: a, ues: [ue-1], policy: mucb1, actions: {ul_prb: [70], dl_prb: [10], gpu_mhz: [1600]}}
      - {id: b, ues: [ue-2], policy: mucb1, actions: {ul_prb: [70], dl_prb: [10], gpu_mhz: [1600]}}
emulation: {duration_s: 20.0, flows: 2, ues: 2, schedule: always}
"""
    records = decisions(config.parse(text), 1, 20)
    assert records[-1]["quotas"] == {"a": [53, 10], "b": [53, 10]}
    closed = records[-1]["slices"]["a"]["closed"]
    assert closed["unattributed"] == {"ul": "arbiter cut"} and closed["users"] == 1


def test_two_cells_share_one_edge_and_are_seen_apart(tmp_path: Path) -> None:
    text = """
cells:
  - id: near
    slices: [{id: ar, ues: [ue-1], policy: mucb1, actions: {ul_prb: [20], dl_prb: [10], gpu_mhz: [700]}}]
  - id: far
    slices: [{id: ar, ues: [ue-1], policy: mucb1, actions: {ul_prb: [40], dl_prb: [20], gpu_mhz: [900]}}]
emulation: {duration_s: 30.0, flows: 1, ues: 1, schedule: always}
"""
    c = config.parse(text)
    seen: dict[str, list[dict]] = {}
    sim.run(c, 1, on_slot=lambda _o, d, _l: seen.setdefault(d.cell, []).append(d.to_record()))
    assert [r["quotas"]["ar"] for r in (seen["near"][-1], seen["far"][-1])] == [[20, 10], [40, 20]]
    # The clock is the highest wish; who wished for less learns nothing about it.
    assert seen["near"][-1]["slices"]["ar"]["closed"]["unattributed"] == {
        "edge": "clock raised by another slice"
    }
    assert seen["far"][-1]["slices"]["ar"]["closed"]["unattributed"] == {}
    delays = [
        [r["slices"]["ar"]["closed"]["measures"]["edge"]["users"] for r in seen[cell][1:]] for cell in seen
    ]
    assert delays[0] != delays[1]
