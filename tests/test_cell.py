"""One cell under control, without links: states, reports, enforcement, flows, failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controller import config
from controller.allocators.ar.allocator import ArAllocator
from controller.cell import Acted, Away, Controlled, ControlledCell, Joined
from controller.core.decision import Decision
from controller.core.measure import Lever, Reason
from controller.core.observation import Command, Flow, GpuReading, Observation
from controller.journal import Event, Journal
from controller.links import codec
from controller.links.qos import FlowBegin, HostLost
from controller.links.ran_protocol import LeaseLapsed, QuotaApplied, QuotaNotHonoured
from controller.loop import ControlLoop
from wire import ran_pb2
from wire.definitions.bounds import MAX_CELL_FLOWS
from wire.definitions.nr import TDD_PATTERNS

T0 = 1_800_000_000_000_000_000
MS = 1_000_000
S = 1_000 * MS
CARRIER = codec.CellFacts("cell-1", 106, 30, TDD_PATTERNS["DSUUU"])
NARROW = codec.CellFacts("cell-1", 51, 30, TDD_PATTERNS["DSUUU"])
CONFIG = """
control: {control_slot_s: 1.0, guard_ms: 0.0}
cells:
  - id: cell-1
    slices:
      - id: ar
        policy: mucb1
        ues: [ue-1]
        actions: {ul_prb: {from: 10, to: 100, step: 10}, dl_prb: {from: 10, to: 100, step: 10}}
"""


EARLY = CONFIG.replace("control_slot_s: 1.0", "control_slot_s: 5.0").replace("mucb1", "headroom")


class Memory:
    """A run record that keeps events in a list."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.texts: list[str] = []
        self.slots: list[Mapping[str, Any]] = []

    def record_start(self, time_ns: int, cell: str, spec: Any, state: Any) -> int:
        return 1

    def record_slot(self, handle: int, observation: Observation, decision: Any, state: Any) -> None:
        self.slots.append(decision)

    def record_event(self, time_ns: int, cell: str, kind: str, text: str = "", data: Any = None) -> None:
        self.events.append(kind)
        self.texts.append(text)

    def flush(self, timeout_s: float) -> bool:
        return True


class Face:
    def __init__(self) -> None:
        self.acted: list[Decision] = []
        self.released = 0
        self.fails = False

    def act(self, decision: Decision, bindings: Mapping[str, str]) -> Acted:
        if self.fails:
            raise ValueError("no quota goes out")
        self.acted.append(decision)
        return Acted(len(self.acted))

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def cell(memory: Memory) -> ControlledCell:
    journal = Journal(store=memory, time_ns=lambda: T0)
    return ControlledCell("cell-1", config.parse(CONFIG), journal, Face())


def close(cell: ControlledCell, slot: int) -> tuple[Observation, Decision]:
    closed = T0 + slot * S
    done = cell.close(closed, GpuReading(1600), closed / 1e9)
    applied(cell, slot, first=True)
    return done


def applied(cell: ControlledCell, slot: int, *use: ran_pb2.SliceUse, first: bool = False) -> None:
    message = ran_pb2.Applied(sequence=slot, use=use)
    cell.enforced(QuotaApplied("cell-1", slot, message, first, {}), T0 + slot * S)


def mac_report(mcs: int = 18, slice_: str = "ar") -> ran_pb2.MacReport:
    state = ran_pb2.DirectionState(mcs=mcs, mcs_table=1, layers=1)
    ue = ran_pb2.UeState(rnti=1, ue_id="ue-1", slice=slice_, ul=state, dl=state, cqi=15, snr_db=20.0)
    return ran_pb2.MacReport(session=1, sequence=1, time_ns=T0, ues=[ue])


def flow(name: str, slice_: str) -> Flow:
    return Flow(name, "ue-1", slice_, 1e6, 1e6, T0)


def frames(name: str) -> codec.FrameBatch:
    columns = np.array([[1, T0 + 1, T0 + 2, T0 + 3, T0 + 4]], np.int64)
    return codec.FrameBatch(name, columns, True, 0)


def test_the_latest_report_is_opened_with_the_slices_of_the_configuration(cell: ControlledCell) -> None:
    assert cell.latest_report() is None
    cell.joined(7, NARROW, T0)  # shown though it is not controlled
    assert cell.latest_report() is None
    message = mac_report(slice_="")
    message.ues[0].five_qi = 80
    message.ues.add(rnti=2, ue_id="bad", five_qi=256)
    cell.report(message, T0 + S)
    report = cell.latest_report()
    assert report is not None and (report.ue_id, report.five_qi, report.slice) == (("ue-1",), (80,), ("",))
    cell.joined(8, CARRIER, T0)
    assert cell.latest_report() is None
    cell.report(message, T0 + 2 * S)
    report = cell.latest_report()
    assert report is not None and report.slice == ("ar",)
    message.frame = 5000
    assert cell.latest_report() is None
    cell.lost("silent")
    assert cell.latest_report() is None


def test_states_follow_the_sessions_of_the_gnb(cell: ControlledCell, memory: Memory) -> None:
    assert cell.state == Away() and cell.session == 0 and not cell.controlled
    cell.joined(7, NARROW, T0)
    assert cell.state == Joined(7, NARROW) and not cell.controlled and cell.loop is None
    cell.joined(8, CARRIER, T0)
    assert isinstance(cell.state, Controlled) and cell.session == 8
    loop = cell.state.loop
    cell.lost("silent")
    assert cell.state == Away(CARRIER, loop) and cell.session == 0
    cell.joined(9, CARRIER, T0)
    assert cell.state == Controlled(9, CARRIER, loop)
    assert memory.events == ["cell_joined", "not_controlled", "cell_joined", "cell_lost", "cell_joined"]


def test_what_was_learned_survives_a_carrier_that_does_not_fit(cell: ControlledCell) -> None:
    cell.joined(1, CARRIER, T0)
    for slot in range(3):
        close(cell, slot)
    before = cell.learned
    cell.joined(2, NARROW, T0)
    assert cell.loop is None and cell.learned == before
    cell.joined(3, CARRIER, T0)
    assert cell.loop is not None and cell.loop.control_slot == 3


def test_the_last_report_of_each_sub_interval_is_kept_and_opened_at_the_close(cell: ControlledCell) -> None:
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    for ms in (1, 50, 150, 200, 250, 350, 900):
        message = mac_report()
        message.frame = 1024 if ms == 350 else 0
        cell.report(message, T0 + ms * MS)
    observation, _ = close(cell, 1)
    # One at the very end of a sub-interval is of that one; one that cannot be opened is left out, counted.
    assert [(r.time_ns - T0) // MS for r in observation.reports] == [200, 900]
    assert cell.journal.counters.get("ran_bad_report_total", "cell-1") == 1
    assert close(cell, 2)[0].reports == ()


def test_a_report_of_a_slice_that_is_not_configured_is_counted_and_used(cell: ControlledCell) -> None:
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    cell.report(mac_report(slice_="other"), T0 + 1)
    assert len(close(cell, 1)[0].reports) == 1
    assert cell.journal.counters.get("ran_unknown_slice_total", "cell-1") == 1


def test_a_flow_of_no_slice_is_background_traffic(cell: ControlledCell) -> None:
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    cell.take(FlowBegin("h", flow("b", "")), 0.0)
    cell.take(FlowBegin("h", flow("f", "ar")), 0.0)
    for name in ("b", "f"):
        cell.take(frames(name), 0.0)
    observation, _ = close(cell, 1)
    assert [f.flow for f in observation.flows] == ["f"] and len(observation.frames) == 1
    cell.take(codec.FlowEnd("b", T0 + S), 0.0)
    with pytest.raises(ValueError, match="flow b: frames, but it never started"):
        cell.take(frames("b"), 0.0)
    with pytest.raises(ValueError, match="unknown slice 'nosuch'"):
        cell.take(FlowBegin("h", flow("g", "nosuch")), 0.0)


def test_flows_of_a_host_that_does_not_come_back_end(cell: ControlledCell, memory: Memory) -> None:
    cell.joined(1, CARRIER, T0)
    cell.take(FlowBegin("h", flow("f", "ar"), 5), 0.0)
    cell.take(FlowBegin("h", flow("g", "ar"), 6), 0.0)
    cell.take(HostLost("h", T0, 5), T0 / 1e9)
    cell.take(FlowBegin("h", flow("f", "ar"), 7), 0.0)  # comes back in time
    cell.take(HostLost("h", T0, 6), T0 / 1e9)
    for slot in range(4):
        close(cell, slot)
    assert cell.reported_flows == ("f",) and cell.active_flows == 1
    assert memory.events.count("host_lost") == 2 and memory.events.count("flows_forgotten") == 1


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (None, None),
        (QuotaNotHonoured("cell-1", "ar", "ul", 10, 11, 2), Reason.QUOTA_NOT_HONOURED),
        (QuotaNotHonoured("cell-1", "ar", "ul", 10, 11, 1), None),  # of the control slot before
        (LeaseLapsed("cell-1"), Reason.LEASE_LAPSED),
    ],
)
def test_what_became_of_the_quotas(cell: ControlledCell, event: Any, reason: Reason | None) -> None:
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    close(cell, 1)
    applied(cell, 2, ran_pb2.SliceUse(slice="ar", direction=ran_pb2.UL, max_new_prb=9))
    if event is not None:
        cell.enforced(event, T0 + S)
    enforcement = close(cell, 2)[0].enforcement["ar"]
    assert (enforcement.reason, enforcement.ul_used, enforcement.dl_used) == (reason, 9, None)


def test_quotas_that_were_not_acknowledged_say_so(cell: ControlledCell) -> None:
    cell.joined(1, CARRIER, T0)
    cell.close(T0, None, 0.0)
    observation, _ = cell.close(T0 + S, None, 1.0)
    assert observation.enforcement["ar"].reason is Reason.NOT_ACKNOWLEDGED


@pytest.mark.parametrize("where", ["loop", "face"])
def test_a_control_slot_that_fails_leaves_nothing_behind(
    cell: ControlledCell, memory: Memory, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    assert isinstance(cell.face, Face)
    before = cell.learned
    command = Command("mode", "shadow")
    cell.check(command)
    cell.commands.append(command)
    with monkeypatch.context() as broken:
        if where == "loop":
            broken.setattr(ControlLoop, "step", lambda _loop, _observation: 1 / 0)
        cell.face.fails = where == "face"
        with pytest.raises((ZeroDivisionError, ValueError)):
            close(cell, 1)
    cell.face.fails = False
    assert cell.decision is None and cell.learned == before and cell.commands == [command]
    assert len(memory.slots) == 1
    _, decision = close(cell, 2)
    assert decision.mode == "shadow" and cell.commands == []


def test_every_kind_of_event_is_written_once_in_its_time() -> None:
    memory, now = Memory(), [T0]
    journal = Journal(store=memory, time_ns=lambda: now[0])
    for ns in (0, 1, 4_999 * MS, 5_000 * MS, -3_600 * S):  # a clock that is set back silences nothing
        now[0] = T0 + ns
        journal.repeated("c", Event.BAD_REPORT, "x", "ran_bad_report_total")
    assert memory.events == ["bad_report"] * 3
    assert journal.counters.get("ran_bad_report_total", "c") == 5
    assert journal.counters.get("events_total", "c") == 3


def test_a_rescue_is_an_event_when_it_begins_and_when_it_ends(cell: ControlledCell, memory: Memory) -> None:
    cell.joined(1, CARRIER, T0)
    memory.events.clear()
    for slot in range(1, 4):  # neither a flow nor a MacReport
        close(cell, slot)
    assert memory.events == [Event.RESCUED]
    assert cell.decision is not None and cell.decision.quotas == {"ar": (106, 106)}
    for slot in range(4, 13):
        cell.report(mac_report(), T0 + slot * S - MS)
        close(cell, slot)
    assert memory.events == [Event.RESCUED, Event.RESCUE_ENDED]


@pytest.mark.parametrize("step_s", [-3600, -1, 1, 3600])
def test_a_clock_that_is_set_loses_neither_flows_nor_frames(
    cell: ControlledCell, memory: Memory, step_s: int
) -> None:
    def sent(sequence: int, t: int) -> codec.FrameBatch:
        row = [sequence, t, t + 20 * MS, t + 29 * MS, t + 44 * MS]
        return codec.FrameBatch("f", np.array([row], np.int64), True, t + 44 * MS)

    cell.joined(1, CARRIER, T0)
    cell.take(FlowBegin("host", flow("f", "ar"), 1), 0.0)
    close(cell, 1)
    memory.events.clear()
    cell.take(sent(1, T0 + S + 100 * MS), 1.1)
    cell.report(mac_report(), T0 + S + 200 * MS)
    now = T0 + step_s * S
    cell.clock_stepped(step_s * S, now + S + 500 * MS)
    cell.take(sent(2, now + S + 600 * MS), 1.6)
    closed = now + 2 * S
    observation, decision = cell.close(closed, GpuReading(1600), closed / 1e9)
    assert memory.events == [Event.CLOCK_STEPPED]
    assert observation.opened_ns == now + S and len(observation.reports) == 1
    assert [f.flow for f in observation.flows] == ["f"] and len(observation.frames) == 2
    assert decision.slices[0].outcome.busy and decision.slices[0].outcome.met == 1


def test_what_came_between_the_step_of_a_clock_and_its_notice_is_not_put_into_the_future(
    cell: ControlledCell,
) -> None:
    cell.joined(1, CARRIER, T0)
    cell.take(FlowBegin("host", flow("gone", "ar"), 1), 0.0)
    close(cell, 1)
    now = T0 + 3_600 * S + S + 500 * MS
    cell.take(FlowBegin("host", replace(flow("new", "ar"), start_ns=now - 20 * MS), 1), 1.5)
    cell.take(codec.FlowEnd("gone", now - 10 * MS), 1.5)
    cell.clock_stepped(3_600 * S, now)
    observation, _ = cell.close(now + 500 * MS, GpuReading(1600), 2.0)
    assert {f.flow: (f.start_ns <= now, f.stop_ns <= now) for f in observation.flows} == {
        "gone": (True, True),
        "new": (True, True),
    }
    assert observation.opened_ns <= now


def test_a_rescue_whose_reason_alternates_is_one_event(cell: ControlledCell, memory: Memory) -> None:
    cell.joined(1, CARRIER, T0)
    memory.events.clear()
    for slot in range(1, 14):
        if slot > 6 and slot % 2:
            applied(cell, slot, first=True)
            cell.report(mac_report(), T0 + slot * S - MS)
        cell.close(T0 + slot * S, GpuReading(1600), float(slot))
    assert memory.events == [Event.RESCUED]


def test_flows_whose_host_is_gone_make_room_while_the_gnb_is_away(cell: ControlledCell) -> None:
    for i in range(MAX_CELL_FLOWS):
        cell.take(FlowBegin("gone", flow(f"f{i}", "ar"), 1), 0.0)
    with pytest.raises(ValueError, match="more than 1024 flows"):
        cell.take(FlowBegin("host", flow("new", "ar"), 2), 1.0)
    cell.take(HostLost("gone", T0 + S, 1), 1.0)
    later = replace(flow("new", "ar"), start_ns=T0 + 100 * S)
    cell.take(FlowBegin("host", later, 2), 100.0)
    assert cell.reported_flows == ("new",)


def test_a_control_slot_is_asked_whether_to_end_once_a_sub_interval_and_not_too_soon(memory: Memory) -> None:
    text = EARLY.replace("guard_ms: 0.0", "guard_ms: 0.0, events: {min_slot_s: 0.5}")
    cell = ControlledCell("cell-1", config.parse(text), Journal(store=memory, time_ns=lambda: T0), Face())
    cell.joined(1, CARRIER, T0)
    assert cell.early(T0 + S) == ""  # no decision yet
    close(cell, 0)
    asked: list[Observation] = []
    assert cell.loop is not None
    cell.loop.early = lambda o: asked.append(o) or "enough"  # type: ignore[method-assign, assignment, func-returns-value]
    said = []
    for ms in range(100, 1100, 100):
        cell.report(mac_report(), T0 + ms * MS)
        said.append(cell.early(T0 + ms * MS))
    assert said == [""] * 4 + ["enough", "", "enough", "", "enough", ""]
    assert [len(o.reports) for o in asked] == [3, 4, 5]
    observation, _ = cell.close(T0 + S, GpuReading(1600), 1.0, "enough")
    assert observation.ended == "enough" and len(observation.reports) == 5
    assert cell.journal.counters.get("early_ends_total", "cell-1") == 1
    assert cell.early(T0 + S + 300 * MS) == "" and cell.early(T0 + S + 900 * MS) == "enough"
    assert asked[-1].reports == ()  # that nobody reports is no reason not to ask


def test_an_allocator_that_raises_when_asked_ends_nothing_and_is_counted(memory: Memory) -> None:
    text = EARLY
    cell = ControlledCell("cell-1", config.parse(text), Journal(store=memory, time_ns=lambda: T0), Face())
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    assert cell.loop is not None

    def fails(_: Observation) -> str:
        raise RuntimeError("no")

    cell.loop.early = fails  # type: ignore[method-assign]
    cell.report(mac_report(), T0 + 2 * S)
    assert cell.early(T0 + 2 * S) == ""
    assert cell.journal.counters.get("allocator_failed_total", "cell-1") == 1


def test_what_cannot_be_taken_over_is_an_event_and_the_cell_is_controlled(memory: Memory) -> None:
    journal = Journal(store=memory, time_ns=lambda: T0)
    cell = ControlledCell("cell-1", config.parse(CONFIG), journal, Face(), prior={"version": 99})
    cell.joined(1, CARRIER, T0)
    assert cell.controlled and Event.LEARNING_RESTARTED in memory.events


def of_ue(ue_id: str, slice_: str = "ar") -> ran_pb2.MacReport:
    message = mac_report(slice_=slice_)
    message.ues[0].ue_id = ue_id
    return message


def events_of(memory: Memory, *kinds: str) -> list[str]:
    return [kind for kind in memory.events if kind in kinds]


def radio(decision: Decision) -> tuple[Any, dict[str, float | None]]:
    """Why nothing was learned about the uplink, and the hops' demands."""
    part = decision.slices[0]
    return part.outcome.unattributed.get(Lever.UL), {str(c.lever): c.demand for c in part.demand.choices}


@pytest.fixture
def busy(cell: ControlledCell) -> ControlledCell:
    """With a flow of ue-1, and two control slots."""
    cell.joined(1, CARRIER, T0)
    close(cell, 0)
    cell.take(FlowBegin("h", flow("f", "ar")), 0.0)
    cell.report(of_ue("ue-1"), T0 + MS)
    close(cell, 1)
    return cell


def test_a_ue_that_comes_back_by_another_name_keeps_its_demand_and_is_followed(
    busy: ControlledCell, memory: Memory
) -> None:
    busy.report(of_ue("ue-1"), T0 + S + 100 * MS)
    _, demand = radio(close(busy, 2)[1])
    assert demand["ul"]
    busy.report(of_ue("ue-1"), T0 + 2 * S + 100 * MS)
    busy.report(of_ue("rnti-4602"), T0 + 2 * S + 500 * MS)
    # It was the one and then the other: half of the reports do not have it.
    assert radio(close(busy, 3)[1]) == (Reason.UE_NOT_REPORTED, demand)
    for slot, why in ((4, Reason.UE_NOT_REPORTED), (5, None)):
        # The first was decided from a demand that nobody had measured.
        busy.report(of_ue("rnti-4602"), T0 + slot * S - 500 * MS)
        observation, decision = close(busy, slot)
        assert [f.ue_id for f in observation.flows] == ["rnti-4602"]
        assert radio(decision) == (why, demand)
    busy.report(of_ue("ue-1"), T0 + 5 * S + 100 * MS)
    close(busy, 6)
    kinds = events_of(memory, "ue_followed", "unknown_ue", "ue_found")
    assert kinds == ["unknown_ue", "ue_followed", "ue_found"]


def test_a_flow_that_does_not_cross_its_ue_is_named_once_and_again_when_it_does(
    busy: ControlledCell, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    for slot, carried in enumerate((0, 0, 10**6, 10**6), 2):
        for at_ms in (100, 900):
            message = of_ue("ue-1")
            for direction in (message.ues[0].ul, message.ues[0].dl):
                direction.lc_bytes, direction.prb_slots = 9 + at_ms * carried, 9
            busy.report(message, T0 + (slot - 1) * S + at_ms * MS)
        sent = T0 + (slot - 1) * S + np.arange(300, 600, 33, dtype=np.int64) * MS
        number = np.arange(len(sent), dtype=np.int64) + 100 * slot
        times = [number, sent, *(sent + k * MS for k in (20, 25, 40))]
        busy.take(codec.FrameBatch("f", np.stack(times, axis=1), True, 0), 0.0)
        why = radio(close(busy, slot)[1])[0]
        # The first with traffic was decided from a demand that nobody had measured.
        assert (why is Reason.UE_IDLE) == (slot < 5)
    assert events_of(memory, "ue_idle", "ue_found", "unknown_ue") == ["ue_idle", "ue_found"]
    assert any("UE 'ue-1' carries none of them" in r.getMessage() for r in caplog.records)


def test_a_ue_of_no_slice_is_not_taken_for_the_flow_s_and_is_named(
    busy: ControlledCell, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    busy.report(of_ue("ue-1"), T0 + S + 100 * MS)
    demand = radio(close(busy, 2)[1])[1]
    for slot in (3, 4):
        busy.report(of_ue("rnti-4602", ""), T0 + slot * S - 500 * MS)
        observation, decision = close(busy, slot)
        assert [f.ue_id for f in observation.flows] == ["ue-1"]
        assert radio(decision) == (Reason.UE_NOT_REPORTED, demand)
    busy.report(of_ue("ue-1", "vr"), T0 + 5 * S - 500 * MS)
    assert radio(close(busy, 5)[1]) == (Reason.UE_NOT_REPORTED, demand)
    texts = [
        r.getMessage().partition("unknown_ue: ")[2] for r in caplog.records if "unknown_ue" in r.getMessage()
    ]
    remedy = "; --ue of the client names another, ues of the slice binds one"
    assert texts == [
        "flow f of slice ar names UE 'ue-1', which the cell does not have: its demand is not known;"
        f" UEs: 'rnti-4602' (no slice){remedy}",
        "flow f of slice ar names UE 'ue-1', which is in vr: its demand is not known;"
        f" UEs: 'ue-1' (vr){remedy}",
    ]


def test_a_gnb_that_does_not_know_the_bindings_yet_is_understood(
    busy: ControlledCell, memory: Memory
) -> None:
    busy.report(of_ue("ue-1", ""), T0 + S + 100 * MS)
    observation, _ = close(busy, 2)
    assert observation.reports[0].slice == ("ar",) and busy.reported_ues == (("ue-1", "ar"),)
    assert not events_of(memory, "unknown_ue")


def test_a_control_slot_without_a_report_teaches_the_radio_hops_nothing(
    busy: ControlledCell, memory: Memory
) -> None:
    busy.report(of_ue("ue-1"), T0 + S + 100 * MS)
    _, demand = radio(close(busy, 2)[1])
    assert radio(close(busy, 3)[1]) == (Reason.NO_MAC_REPORT, demand)
    assert events_of(memory, "no_mac_report") == ["no_mac_report"]


def test_one_ue_of_impossible_values_is_left_out_and_the_other_s_demand_stays(
    busy: ControlledCell, memory: Memory
) -> None:
    message = of_ue("ue-1")
    message.ues.add().CopyFrom(message.ues[0])
    message.ues[1].rnti, message.ues[1].ue_id, message.ues[1].ul.mcs = 2, "ue-2", 31
    busy.report(message, T0 + S + 100 * MS)
    observation, decision = close(busy, 2)
    assert observation.reports[0].ue_id == ("ue-1",) and radio(decision)[1]["ul"]
    assert events_of(memory, "bad_report") == ["bad_report"]
    assert busy.journal.counters.get("ran_bad_ue_total", "cell-1") == 1
    # Where it is the flow's own UE, the other one is not taken for it.
    message.ues[0].ul.mcs, message.ues[1].ul.mcs = 31, 18
    busy.report(message, T0 + 2 * S + 100 * MS)
    observation, decision = close(busy, 3)
    assert observation.flows[0].ue_id == "ue-1" and observation.reports[0].ue_id == ("ue-2",)
    assert radio(decision)[0] is Reason.UE_NOT_REPORTED and not events_of(memory, "unknown_ue", "ue_followed")


def test_the_ues_of_the_last_report_are_known_while_there_is_a_session(cell: ControlledCell) -> None:
    assert cell.reported_ues is None
    cell.joined(1, CARRIER, T0)
    assert cell.reported_ues is None
    cell.report(of_ue("ue-1"), T0)
    assert cell.reported_ues == (("ue-1", "ar"),)
    cell.lost("silent")
    assert cell.reported_ues is None


def test_an_allocator_that_cannot_be_made_leaves_its_cell_alone_and_ends_nobody(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> None:
        raise IndexError("no such table")

    cell = ControlledCell("cell-1", config.parse(CONFIG), Journal(store=memory, time_ns=lambda: T0), Face())
    with monkeypatch.context() as patched:
        patched.setattr(ArAllocator, "__init__", wrong)
        cell.joined(1, CARRIER, T0)
    assert not cell.controlled and "IndexError: no such table" in cell.not_controlled
    learned = ControlledCell("cell-2", config.parse(CONFIG.replace("cell-1", "cell-2")), Journal(), Face())
    learned.joined(1, CARRIER, T0)
    monkeypatch.setattr(ArAllocator, "take_over", wrong)
    prior = learned.learned
    cell = ControlledCell("cell-1", config.parse(CONFIG), Journal(store=memory), Face(), prior=prior)
    cell.joined(1, CARRIER, T0)
    assert cell.controlled and "IndexError: no such table" in memory.texts[-1]
