"""Stresses of the emulated testbed: each changes what it should and nothing else."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from agents.emulator.spec import PathSpec
from agents.emulator.testbed import EmulatedTestbed
from controller import config, sim
from controller.config import ConfigError
from controller.core.observation import Frames
from controller.scenario import testbed_spec as spec_of

NS = 1e9
DURATION_S = 20.0
SCENARIO = """
cells:
  - id: cell-1
    slices: [{id: ar, ues: [ue-1], policy: static}]
emulation: {duration_s: 20.0, flows: 1, schedule: always}
"""
CALM = {f"emulation.stress.{name}_rate_hz": 0.0 for name in ("hiccup", "ul_hold", "stall")}


def stressed(**stress: Any) -> config.Config:
    return config.parse(SCENARIO, "x", {f"emulation.stress.{name}": v for name, v in stress.items()})


def bed_of(**stress: Any) -> EmulatedTestbed:
    bed = EmulatedTestbed(spec_of(stressed(**stress), 3), seed=3)
    bed.set_quotas({"ar": (106, 106)}, {"ue-1": "ar"})
    return bed


def frames_of(bed: EmulatedTestbed, steps: list[int]) -> dict[int, tuple[int, ...]]:
    """Each frame's times by its sequence, the run in steps to these NR slots."""
    out: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for until in steps:
        bed.advance(until)
        u = bed.take_frames()
        columns = (u.ue_sent, u.edge_received, u.edge_sent, u.ue_received)
        for sequence, *times in zip(u.sequence, *columns, strict=True):
            out[int(sequence)] = [int(t) for t in times]
    return {k: tuple(v) for k, v in out.items()}


def volumes(bed: EmulatedTestbed) -> dict[str, np.ndarray]:
    """Bytes offered in each second of the run, by direction."""
    of: dict[str, list[int]] = {"ul": [0], "dl": [0]}
    for second in range(1, int(DURATION_S) + 1):
        bed.advance(2000 * second)
        for direction, so_far in of.items():
            so_far.append(int(bed._state.flow[0][f"{direction}_offered"]))
    return {d: np.diff(v) for d, v in of.items()}


def test_by_default_nothing_is_stressed() -> None:
    spec = spec_of(stressed(), 3)
    assert spec.path == PathSpec() and spec.change is None and spec.clocks_synchronised
    assert [f.announced_rate for f in spec.flows] == [1.0]


@pytest.mark.parametrize(
    ("stress", "match"),
    [
        ({"hiccup_rate_hz": -1.0}, r"emulation\.stress\.hiccup_rate_hz: .*greater than or equal to 0"),
        ({"ul_hold_rate_hz": float("nan")}, r"emulation\.stress\.ul_hold_rate_hz"),
        ({"stall_rate_hz": 1.5}, r"emulation\.stress\.stall_rate_hz: .*less than or equal to 1"),
        ({"demand": 0.0}, r"emulation\.stress\.demand"),
        ({"demand": 5.0}, r"emulation\.stress\.demand"),
        ({"service_time": float("inf")}, r"emulation\.stress\.service_time"),
        ({"announced_rate": 0.0}, r"emulation\.stress\.announced_rate"),
        ({"synchronised": 1}, r"emulation\.stress\.synchronised: .*boolean"),
        ({"cross_ul_bps": -5.0}, r"emulation\.stress\.cross_ul_bps"),
        ({"cross_dl_bps": 2e9}, r"emulation\.stress\.cross_dl_bps"),
        ({"at_s": 20.0}, r"stress\.at_s 20 is not within the 20 s of duration_s"),
        ({"at_s": 0.0}, r"emulation\.stress\.at_s"),
        ({"floor": 0.05}, r"emulation\.stress\.floor: unknown key"),
    ],
)
def test_what_cannot_be_names_its_key(stress: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        stressed(**stress)


def test_the_demand_of_other_applications_does_not_change() -> None:
    text = SCENARIO.replace(
        "schedule: always}",
        "schedule: always, users: [{application: web, slice: ar}], stress: {demand: 1.5}}",
    )
    with pytest.raises(ConfigError, match=r"stress\.demand is of OpenRTiST's frames alone, not of web"):
        config.parse(text)


@pytest.mark.parametrize("name", ["hiccup", "ul_hold", "stall"])
def test_the_floor_s_rates_are_of_their_own_kind_alone(name: str) -> None:
    spec, calibrated = spec_of(stressed(**{f"{name}_rate_hz": 0.7}), 3), spec_of(stressed(), 3)
    rates = {
        kind: (of.path.hiccup_rate_hz, of.path.ul_hold_rate_hz, of.edge.stall_rate_hz)
        for kind, of in (("stressed", spec), ("calibrated", calibrated))
    }
    changed = {"hiccup": 0, "ul_hold": 1, "stall": 2}[name]
    assert [i for i in range(3) if rates["stressed"][i] != rates["calibrated"][i]] == [changed]
    assert rates["stressed"][changed] == 0.7


def test_more_hiccups_are_more_missed_slots_at_full_resources() -> None:
    """And without any of the three nothing is missed: the floor is theirs."""

    def missed(rate: float) -> int:
        c = config.parse(
            SCENARIO.replace("20.0", "200.0"), "x", {**CALM, "emulation.stress.hiccup_rate_hz": rate}
        )
        seen: list[Any] = []
        sim.run(c, 3, on_slot=lambda _o, d, _l: seen.append(d.to_record()["slices"]["ar"]["closed"]["met"]))
        return seen[1:].count(0)

    assert missed(0.0) == 0 < missed(0.05) < missed(0.2)


def test_frames_grow_in_the_middle_and_not_before() -> None:
    plain, grown = volumes(bed_of()), volumes(bed_of(demand=1.5))
    for direction in ("ul", "dl"):
        assert (plain[direction][:10] == grown[direction][:10]).all()
        assert grown[direction][10:].sum() / plain[direction][10:].sum() == pytest.approx(1.5, abs=0.01)
    # What is announced is not told to change.
    assert bed_of(demand=1.5).flows[0] == bed_of().flows[0]


def test_the_edge_slows_down_from_its_time_on_and_not_before() -> None:
    calm = {f"{name}_rate_hz": 0.0 for name in ("hiccup", "ul_hold", "stall")}
    plain, slow = (
        frames_of(bed_of(**calm, **more), [40_000]) for more in ({}, {"service_time": 1.4, "at_s": 5.0})
    )
    at = EmulatedTestbed(spec_of(stressed(), 3), seed=3).epoch_ns + 5 * NS
    before = [k for k, t in plain.items() if t[3] and t[3] < at]
    assert len(before) > 100 and all(plain[k] == slow[k] for k in before)
    after = [k for k, t in slow.items() if t[1] > at and t[2]]
    waited = [(t[2] - t[1]) / 1e6 for t in (slow[k] for k in after)]
    assert np.median(waited) == pytest.approx(7.0 * 1.4, abs=0.01)
    assert np.median([(plain[k][2] - plain[k][1]) / 1e6 for k in after]) == pytest.approx(7.0, abs=0.01)


def test_a_change_does_not_depend_on_the_steps_in_which_a_run_advances() -> None:
    both = {"demand": 1.5, "service_time": 1.4, "at_s": 1.0005}
    whole = frames_of(bed_of(**both), [6000])
    assert whole == frames_of(bed_of(**both), [1999, 2000, 2001, 2002, 6000])
    assert whole == frames_of(bed_of(**both), [*range(7, 6000, 7), 6000])
    assert whole != frames_of(bed_of(), [6000])


def observations(duration_s: float = 10.0, **stress: Any) -> list[Any]:
    seen: list[Any] = []
    sim.run(stressed(**stress), 3, duration_s=duration_s, on_slot=lambda o, _d, _l: seen.append(o))
    return seen


def times(frames: Frames) -> list[Any]:
    return [c.tolist() for c in (frames.sequence, frames.ue_sent, frames.edge_sent, frames.ue_received)]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_flows_announce_another_rate_and_send_what_they_always_did(factor: float) -> None:
    plain, wrong = observations(), observations(announced_rate=factor)
    for a, b in zip(plain[1:], wrong[1:], strict=True):
        assert (b.flows[0].ul_bps, b.flows[0].dl_bps) == (
            factor * a.flows[0].ul_bps,
            factor * a.flows[0].dl_bps,
        )
        assert times(a.frames) == times(b.frames)


def test_without_synchronised_clocks_the_round_trip_alone_is_known() -> None:
    def closed(**stress: Any) -> list[dict[str, Any]]:
        seen: list[Any] = []
        sim.run(
            stressed(**stress),
            3,
            duration_s=10,
            on_slot=lambda _o, d, _l: seen.append(d.to_record()["slices"]["ar"]["closed"]),
        )
        return seen[1:]

    plain, blind = closed(), closed(synchronised=False)
    for a, b in zip(plain, blind, strict=True):
        assert a["measures"]["round_trip"] == b["measures"]["round_trip"]
        assert all(b["measures"][hop]["met"] is None for hop in ("ul", "edge", "dl"))
        assert all(a["measures"][hop]["met"] is not None for hop in ("ul", "edge", "dl"))
        assert b["counts"]["unsynchronised_frames"] > 100 and not a["counts"]["unsynchronised_frames"]
    assert all(
        not (o.frames.edge_received.any() or o.frames.edge_sent.any())
        for o in observations(synchronised=False)
    )


@pytest.mark.parametrize("direction", ["ul", "dl"])
def test_cross_traffic_is_in_the_ue_s_queues_and_no_flow_of_the_slice(direction: str) -> None:
    bps = 4e6
    plain = observations(5.0)[-1]
    crossed = observations(5.0, **{f"cross_{direction}_bps": bps})[-1]
    assert [f.flow for f in crossed.flows] == [f.flow for f in plain.flows]
    sent = {
        d: [getattr(o.reports[-1], d).lc_bytes[0] - getattr(o.reports[0], d).lc_bytes[0] for o in pair]
        for pair in ((plain, crossed),)
        for d in ("ul", "dl")
    }
    seconds = (plain.reports[-1].time_ns - plain.reports[0].time_ns) / NS
    other = {"ul": "dl", "dl": "ul"}[direction]
    more = (sent[direction][1] - sent[direction][0]) * 8 / seconds
    assert more == pytest.approx(bps, rel=0.1)
    assert (sent[other][1] - sent[other][0]) * 8 / seconds < 0.05 * bps
    assert all(a <= b for a, b in pairwise(r.time_ns for r in crossed.reports))
