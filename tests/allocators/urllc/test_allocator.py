"""The slice of industrial devices: what it asks for, what devices are given of it, and what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller.allocators.base import SliceView, no_models
from controller.allocators.urllc.allocator import POWER_MARGIN_DB, UrllcAllocator
from controller.allocators.urllc.options import UrllcOptions
from controller.core.decision import Grant, Settings, SliceDemand
from controller.core.measure import Lever, Reason
from tests.allocators.urllc.factory import DEVICE, GRANT, LOOP, LOST, NAN, PRB, TASK, flow, view


def allocator(**options: Any) -> UrllcAllocator:
    return UrllcAllocator("urllc", UrllcOptions(**options), LOOP)


def play(a: UrllcAllocator, *views: SliceView, grant: Grant | None = None) -> tuple[SliceDemand, Settings]:
    """Control slot after control slot, each with the settings of the one before in force."""
    settings: Settings = {}
    demand = SliceDemand(*(2 * [None]))  # type: ignore[list-item]
    for seen in views:
        seen = replace(seen, settings=settings)
        a.learn(seen)
        demand = a.demand(seen)
        given = grant or Grant(demand.ul.prb, demand.dl.prb, demand.gpu_mhz)
        settings = a.settle(seen, given)
    return demand, settings


def value(settings: Settings, name: str) -> list[float]:
    return [settings[flow][name][0] for flow in sorted(settings)]


def test_devices_get_settings_that_they_and_the_edge_have() -> None:
    devices = {u: (1354.0, 100_000.0 + 40_000.0 * u, 1.5, 3.0, 23.0, 1.0) for u in range(10)}
    demand, settings = play(allocator(), *(view(s, 10, devices=devices) for s in range(3)))
    assert len(settings) == 10 and 0 < demand.ul.floor <= demand.ul.prb <= PRB
    cached, share, edge = (np.array(value(settings, n)) for n in ("cached", "local_share", "edge_ghz"))
    assert set(cached) == {0.0, 1.0} and 10.832 * cached.sum() <= 60.0
    assert ((share >= 0.0) & (share <= 1.0)).all() and (share[cached == 1.0] == 0.0).all()
    assert float(edge @ np.where(cached == 1.0, 1.0, 1.0 - share)) <= 30.0 * (1.0 + 1e-6)
    assert max(value(settings, "ue_ghz")) < 1.5 and max(value(settings, "power_dbm")) < 23.0
    assert demand.gpu_mhz == 0
    whys = {c.user: c.why for c in demand.choices if c.lever is Lever.SETTINGS}
    assert set(whys) == set(settings) and any("cached" in why for why in whys.values())


def test_the_tasks_that_take_longest_are_cached() -> None:
    snr_db = (16.0, 2.0, 16.0, 2.0, 16.0)
    _, settings = play(allocator(cache_kbit=22.0), *(view(s, 5, snr_db=snr_db) for s in range(2)))
    assert value(settings, "cached") == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_less_is_granted_than_asked_for_and_the_settings_are_those_of_the_grant() -> None:
    a = allocator()
    seen = view(0, 10)
    a.learn(seen)
    demand = a.demand(seen)
    whole = a.settle(seen, Grant(demand.ul.prb, demand.dl.prb, 0))
    less = a.settle(seen, Grant(8, demand.dl.prb, 0))
    assert a.to_state()["settings"]["d0"][5] > 0.0
    assert less.keys() == whole.keys()
    # With fewer PRBs a task is on its way for longer: the plan says so.
    a.settle(seen, Grant(demand.ul.prb, demand.dl.prb, 0))
    with_all = a.to_state()["settings"]["d5"][5]
    a.settle(seen, Grant(8, demand.dl.prb, 0))
    assert a.to_state()["settings"]["d5"][5] > with_all


def test_late_tasks_make_it_ask_for_more() -> None:
    late = (0.05, 11.0, 0.02, 1.0, 12.07, 0.5, 0.0)
    a, b = allocator(), allocator()
    granted = Grant(20, 20, 0)
    ok, _ = play(a, *(view(s, 10, granted=granted) for s in range(4)), grant=granted)
    tasks = {u: [late] * 50 for u in range(10)}
    more, _ = play(b, *(view(s, 10, granted=granted, tasks=tasks) for s in range(4)), grant=granted)
    assert more.ul.floor > ok.ul.floor and more.ul.prb > ok.ul.prb


def test_nothing_that_would_do_is_all_that_there_is() -> None:
    a = allocator(deadline_ms=2.0)
    demand, settings = play(a, *(view(s, 5) for s in range(4)))
    assert demand.ul.prb == PRB and "over the deadlines" in demand.choices[0].why
    assert len(settings) == 5


@pytest.mark.parametrize("what", ["silent", "nothing known"])
def test_blindness_gives(what: str) -> None:
    a = allocator()
    tasks: dict[int, list[Any]] = {}
    devices: dict[int, Any] = {} if what == "nothing known" else {u: DEVICE for u in range(3)}  # noqa: C420
    outcome = a.learn(seen := view(0, 3, tasks=tasks, devices=devices))
    assert outcome.busy and outcome.unattributed[Lever.UL] is Reason.PROMISE_NOT_KNOWN
    demand = a.demand(seen)
    assert demand.ul.prb == PRB and demand.dl.prb == PRB
    assert "all there is" in demand.choices[0].why


def test_a_radio_that_carries_nothing_leaves_a_device_alone_with_its_task() -> None:
    a = allocator()
    _, settings = play(a, *(view(s, 3, snr_db=(16.0, -19.0, 16.0), devices={
        0: DEVICE, 1: (1354.0, 270_800.0, 1.5, 3.0, -60.0, 1.0), 2: DEVICE
    }) for s in range(2)))  # fmt: skip
    assert settings["d1"]["local_share"] == (1.0,) and settings["d1"]["cached"] == (0.0,)
    assert settings["d0"]["local_share"][0] < 1.0 or settings["d0"]["cached"] == (1.0,)


def test_where_only_what_is_offloaded_is_sent_who_is_sooner_done_alone_stays_alone() -> None:
    part = (*DEVICE[:5], 0.0)
    demand, settings = play(
        allocator(), *(view(s, 4, devices=dict.fromkeys(range(4), part)) for s in range(2))
    )
    assert value(settings, "local_share") == [1.0] * 4 and value(settings, "cached") == [0.0] * 4
    assert demand.ul.prb <= 5 and "alone" in demand.choices[0].why


def test_twins_learn_what_deviates_and_plans_know_it() -> None:
    slow = 1.25
    a = allocator()
    settings: Settings = {}
    for s in range(6):
        tasks = {}
        for u in range(3):
            known = settings.get(f"d{u}")
            row = list(TASK)
            if known is not None:
                share = 0.0 if known["cached"][0] else known["local_share"][0]
                factor = slow if u == 1 else 1.0
                row[0] = factor * share * 0.2708 / known["ue_ghz"][0] if share else NAN
                row[2] = (1.0 - share) * 0.2708 / known["edge_ghz"][0]
                row[4] = float(np.nansum(row[:4]))
            tasks[u] = [row] * 50
        seen = replace(view(s, 3, tasks=tasks), settings=settings)
        a.learn(seen)
        demand = a.demand(seen)
        settings = a.settle(seen, Grant(demand.ul.prb, demand.dl.prb, 0))
    assert value(settings, "cached") == [1.0] * 3 or any(value(settings, "local_share"))
    twins = a.to_state()["twins"]
    share = value(settings, "local_share")
    if share[1]:
        assert twins["d1"][0][1] == pytest.approx(1.0 - 1.0 / slow, abs=0.02)
    assert all(abs(twins[f"d{u}"][1][1]) < 1e-3 for u in range(3))


def test_rows_of_devices_that_cannot_be_are_named_and_change_nothing() -> None:
    a = allocator()
    a.learn(view(0, 2))
    before = a.to_state()["devices"]
    for bad in ((NAN, *DEVICE[1:]), (*DEVICE[:4], 99.0, 1.0), (*DEVICE[:5], NAN), (0.0, *DEVICE[1:])):
        outcome = a.learn(view(1, 2, devices={0: bad}))
        assert outcome.faults["device that cannot be"] == 1
        assert a.to_state()["devices"] == before


def test_the_snr_is_learned_at_the_power_that_was_set() -> None:
    a = allocator()
    settings = {"d0": {"power_dbm": (13.0,)}, "d1": {"power_dbm": (23.0,)}}
    a.learn(view(0, 2, snr_db=(10.0, 20.0)))
    for s in range(1, 12):
        a.learn(view(s, 2, snr_db=(10.0, 20.0), settings=settings))
    snr = a.to_state()["snr"]
    # 10 dB at 10 dB less power is what the other has at full power.
    assert snr["ue-0"] == pytest.approx(snr["ue-1"], rel=1e-3)


def test_power_beyond_what_the_highest_mcs_needs_is_not_used() -> None:
    a = allocator(cache_kbit=0.0)
    settings: Settings = {}
    for s in range(4):
        # What the gNB measures follows the power.
        dbm = [settings.get(f"d{u}", {}).get("power_dbm", (23.0,))[0] for u in range(3)]
        snr_db = (50.0 + dbm[0] - 23.0, 16.0 + dbm[1] - 23.0, 16.0 + dbm[2] - 23.0)
        seen = replace(view(s, 3, snr_db=snr_db), settings=settings)
        a.learn(seen)
        demand = a.demand(seen)
        settings = a.settle(seen, Grant(demand.ul.prb, demand.dl.prb, 0))
    high, low, _ = value(settings, "power_dbm")
    # 5.55 bit a resource element take 17 dB, and a little for short packets.
    assert 17.0 < 50.0 + high - 23.0 < 19.0 + POWER_MARGIN_DB and low > 22.0


def test_settings_that_were_not_applied_teach_nothing_of_rates_and_delays() -> None:
    a = allocator()
    _, settings = play(a, *(view(s, 3) for s in range(2)))
    before = a.to_state()
    unapplied = frozenset(settings)
    seen = view(
        2,
        3,
        settings=settings,
        unapplied=unapplied,
        unattributed={Lever.SETTINGS: Reason.SETTINGS_NOT_APPLIED},
    )
    a.learn(
        replace(
            seen,
            samples={
                **seen.samples,
                "task": view(2, 3, tasks={0: [(9.0, 9.0, 9.0, 9.0, 36.0, 1.0, 0.0)] * 50}).samples["task"],
            },
        )
    )
    after = a.to_state()
    assert after["twins"] == before["twins"] and after["access"] == before["access"]
    assert after["cached_ms"] == before["cached_ms"] and after["snr"] == before["snr"]


def test_lost_tasks_make_it_ask_for_more() -> None:
    a = allocator(cache_kbit=0.0)
    granted = Grant(20, 20, 0)
    before, settings = play(a, *(view(s, 10, granted=granted) for s in range(3)), grant=granted)
    after = before
    for s in range(3, 9):
        lost = view(s, 10, tasks={u: [LOST] * 20 for u in range(10)}, granted=granted)
        outcome = a.learn(replace(lost, settings=settings))
        assert outcome.counts["tasks_lost"] == 200 and outcome.met == 0
        after = a.demand(lost)
        settings = a.settle(lost, granted)
    assert after.ul.floor > before.ul.floor


def test_a_user_that_comes_ends_the_control_slot() -> None:
    a = allocator()
    play(a, view(0, 2))
    assert a.early(view(1, 2)) == ""
    assert a.early(view(1, [flow(0), flow(1), flow(7)])) == "a user came"


def test_a_state_goes_on_with_the_same_decisions() -> None:
    a, b = allocator(), allocator()
    play(a, *(view(s, 6) for s in range(3)))
    b.load_state(json.loads(json.dumps(a.to_state(), allow_nan=False)), no_models)
    seen = view(3, 6)
    assert a.demand(seen) == b.demand(seen)
    assert a.settle(seen, GRANT) == b.settle(seen, GRANT)


def test_a_state_that_cannot_be_is_refused_and_changes_nothing() -> None:
    a = allocator()
    play(a, view(0, 2))
    before = a.to_state()
    for key, wrong in (
        ("task_hz", -1.0),
        ("snr", {"ue-0": float("nan")}),
        ("access", [1.0]),
        ("cached_ms", float("inf")),
        ("dl_bps", -1.0),
        ("twins", {"d0": [[1.0, 5.0, 0.0], [0.0, 0.0, 0.0]]}),
    ):
        with pytest.raises(ValueError):
            a.load_state({**before, key: wrong}, no_models)
        assert a.to_state() == before


def test_nobody_is_there() -> None:
    a = allocator()
    demand, settings = play(a, view(0, 2), view(1, 0))
    assert settings == {} and demand.ul.prb == 5


def test_more_prbs_never_make_a_want_with_rising_gain() -> None:
    for users in (1, 4, 15):
        demand, _ = play(allocator(), *(view(s, users) for s in range(2)))
        gain = demand.ul.gain
        assert len(gain) in (0, demand.ul.prb - demand.ul.floor) and list(gain) == sorted(gain, reverse=True)


def answered(settings: Settings, user: int, *, mcycles: float, way_ms: float) -> list[tuple[float, ...]]:
    """Tasks of a device that does as its settings have it and waits ``way_ms`` where it sends."""
    known = settings.get(f"d{user}")
    if known is None:
        return [TASK] * 50
    share = 0.0 if known["cached"][0] else known["local_share"][0]
    local = share * mcycles / known["ue_ghz"][0] if share else NAN
    edge = (1.0 - share) * mcycles / known["edge_ghz"][0] if share < 1.0 else NAN
    up = way_ms if not known["cached"][0] and share < 1.0 else NAN
    return [(local, up, edge, NAN, float(np.nansum([local, up, edge])), 0.5, 0.0)] * 50


def test_after_an_outage_devices_come_to_send_what_they_offload() -> None:
    a = allocator(cache_kbit=0.0)
    device = (1354.0, 3.5e6, 1.5, 3.0, 23.0, 0.0)
    settings: Settings = {}
    sending: list[bool] = []
    for slot in range(120):
        out = 10 <= slot < 20
        tasks = {u: [LOST] * 50 if out else answered(settings, u, mcycles=3.5, way_ms=4.0) for u in range(3)}
        seen = view(slot, 3, devices=dict.fromkeys(range(3), device), tasks=tasks, settings=settings)
        a.learn(seen)
        demand = a.demand(seen)
        settings = a.settle(seen, Grant(demand.ul.prb, demand.dl.prb, 0))
        sending.append(min(value(settings, "local_share")) < 1.0)
    assert sending[9] and not sending[20] and all(sending[-5:])


def test_what_answers_took_of_cached_tasks_is_forgotten_where_none_is_cached() -> None:
    a = allocator(overhead_ms=6.0)
    lost = {u: [LOST] * 50 for u in range(3)}
    play(a, *(view(s, 3, tasks=lost) for s in range(6)))
    before = a.to_state()["cached_ms"]
    a.set(UrllcOptions(overhead_ms=6.0, cache_kbit=0.0))
    play(a, *(view(s, 3) for s in range(6, 60)))
    assert before > 8.0 and a.to_state()["cached_ms"] == pytest.approx(3.0, abs=0.8)


def test_rates_are_never_above_those_of_device_and_edge() -> None:
    ghz = 0.1234567
    device = (1354.0, 270_800.0, ghz, 30.0, 23.0, 1.0)
    a = allocator(cache_kbit=0.0, deadline_ms=1000.0, edge_ghz=0.5)
    _, settings = play(a, *(view(s, 3, devices=dict.fromkeys(range(3), device)) for s in range(3)))
    assert 0.99 * ghz < max(value(settings, "ue_ghz")) <= float(np.float32(ghz))


def test_power_stays_that_of_a_ue_whatever_snr_is_measured() -> None:
    a = allocator(cache_kbit=0.0)
    settings: Settings = {}
    for s in range(12):  # the SNR does not follow the power that was set
        seen = view(s, 40, snr_db=(60.0,) * 40, settings=settings)
        a.learn(seen)
        demand = a.demand(seen)
        settings = a.settle(seen, Grant(demand.ul.prb, demand.dl.prb, 0))
    assert min(value(settings, "power_dbm")) >= -40.0


def test_who_is_alone_keeps_its_energy_budget_however_fast_it_may_be() -> None:
    a = allocator(deviation=0.1)
    device = (1354.0, 270_800.0, 1.5, 0.5, 23.0, 0.0)
    play(a, seen := view(0, 2, devices=dict.fromkeys(range(2), device)))
    settings = a.settle(seen, Grant(PRB, PRB, 0))
    share, ghz = value(settings, "local_share")[0], value(settings, "ue_ghz")[0]
    assert share == 1.0
    faster = ghz * 1.1
    assert 0.5e3 * 1e-26 * 270_800.0 * (1e9 * faster) ** 2 <= 0.5


def test_devices_without_a_row_do_not_make_the_others_rarer() -> None:
    a, b = allocator(), allocator()
    for s in range(6):
        a.learn(view(s, 4))
        b.learn(view(s, 4, tasks={u: [TASK] * 50 for u in range(2)}))
    assert b.to_state()["task_hz"] == a.to_state()["task_hz"]


def test_a_ue_in_outage_is_not_taken_for_what_it_was() -> None:
    a = allocator()
    a.learn(view(0, 2, snr_db=(16.0, 16.0)))
    for s in range(1, 20):
        a.learn(view(s, 2, snr_db=(-30.0, NAN)))
    snr = a.to_state()["snr"]
    assert snr["ue-0"] < 1e-3 * snr["ue-1"]


def test_a_part_of_some_nanoseconds_teaches_no_rate() -> None:
    a = allocator()
    a.learn(view(0, 1))
    before = a.to_state()["twins"]
    setting = {"cached": (0.0,), "local_share": (4e-6,), "ue_ghz": (1.5,), "edge_ghz": (2.0,)}
    nanosecond = (1e-6, 2.0, 0.1354, 1.0, 3.2, 0.0, 0.0)
    a.learn(view(1, 1, settings={"d0": setting}, tasks={0: [nanosecond] * 50}))
    after = a.to_state()["twins"]
    assert before == {} and after["d0"][0] == [0.0, 0.0, 0.0]
    assert after["d0"][1][0] == 50.0 and after["d0"][1][1] == pytest.approx(0.0, abs=1e-3)


def test_results_that_are_large_are_asked_for() -> None:
    a, b = allocator(), allocator()
    for s in range(3):
        seen = view(s, 10)
        first, last = seen.reports
        columns = replace(last.dl, lc_bytes=(4 * 20 * 8000,) * 10)  # 20 Hz of 8 kB
        for of, large in ((a, False), (b, True)):
            shown = replace(seen, reports=(first, replace(last, dl=columns))) if large else seen
            of.learn(shown)
    small, large = a.demand(view(3, 10)).dl, b.demand(view(3, 10)).dl
    assert b.to_state()["dl_bps"] == pytest.approx(20 * 8000 * 8)
    assert small.prb < large.prb and large.floor == large.prb
