"""The RAN protocol core, on a clock of the test's own."""

from __future__ import annotations

import itertools
import random
from typing import Any, TypeVar

import pytest

from agents.gnb_mock.agent import Cell, RanAgent
from controller.links import ran_protocol
from controller.links.ran_protocol import (
    CellJoined,
    CellLost,
    CellNotConnected,
    LeaseLapsed,
    QuotaApplied,
    QuotaNotHonoured,
    RanProtocol,
    RawReport,
)
from tests.chaos.inputs import hostile
from tests.links.test_codec import T0, hello, report
from wire import MAX_RAN_MESSAGE_BYTES, PROTOCOL_VERSION, ran_pb2

LEASE_S = 3.0
E = TypeVar("E")


class Bench:
    """A protocol, the gNBs in front of it and the clock."""

    def __init__(self, **options: Any) -> None:
        sessions = itertools.count(1000)
        options = {"report_period_ms": 50, "lease_s": LEASE_S} | options
        self.protocol = RanProtocol(new_session=lambda: next(sessions), **options)
        self.now = 50.0
        self.report_sequence = itertools.count(1)

    def count(self, name: str, cell: str | None = None) -> int:
        assert name in ran_protocol.COUNTERS
        return self.protocol.counters.get(name, cell)

    def raw(self, data: bytes, peer: bytes = b"a", owner: str | None = None) -> None:
        self.protocol.receive(peer, data, self.now, owner)

    def send(self, peer: bytes = b"a", owner: str | None = None, **body: Any) -> None:
        self.raw(ran_pb2.GnbMessage(**body).SerializeToString(), peer, owner)

    def replies(self) -> list[ran_pb2.ControllerMessage]:
        return [ran_pb2.ControllerMessage.FromString(d) for _, d in self.protocol.take_outgoing()]

    def reply(self) -> ran_pb2.ControllerMessage:
        (reply,) = self.replies()
        return reply

    def events(self, kind: type[E]) -> list[E]:
        events = self.protocol.take_events()
        assert all(isinstance(e, kind) for e in events), events
        return [e for e in events if isinstance(e, kind)]

    def join(self, cell_id: str = "cell-1", peer: bytes = b"a") -> int:
        self.protocol.take_outgoing()
        self.send(peer, hello=hello(cell_id))
        session = self.reply().welcome.session
        self.protocol.take_events()
        return session

    def report(self, session: int, sequence: int, time_ns: int = 0, peer: bytes = b"a") -> None:
        message = report()
        message.session, message.sequence = session, sequence
        message.time_ns = time_ns or T0 + sequence
        self.send(peer, mac_report=message)

    def applied(
        self,
        session: int,
        sequence: int,
        in_force: dict[str, tuple[int, int]],
        use: dict[tuple[str, int], int] | None = None,
        **fields: Any,
    ) -> None:
        message = ran_pb2.Applied(session=session, sequence=sequence, time_ns=T0, **fields)
        for slice_, (ul, dl) in in_force.items():
            message.in_force.add(slice=slice_, ul_prb=ul, dl_prb=dl)
        for (slice_, direction), prb in (use or {}).items():
            message.use.add(slice=slice_, direction=direction, max_new_prb=prb, slots=10)
        self.send(applied=message)

    def run(self, seconds: float, step: float = 0.01, session: int = 0) -> list[tuple[float, Any]]:
        """Lets time pass; returns what was sent and when. With ``session`` the gNB reports meanwhile."""
        sent = []
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += step
            if session:
                self.report(session, next(self.report_sequence))
            self.protocol.tick(self.now)
            sent += [(self.now, r) for r in self.replies()]
        return sent


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_message_counts_once_as_taken_or_as_refused() -> None:
    bench = Bench(expected_cells={"cell-1", "cell-2"})
    rng = random.Random(1)
    outcomes = {**ran_protocol.TAKEN, **ran_protocol.REFUSED}
    unseen = set(outcomes)
    sessions, asked = {b"a": 0, b"b": 0, b"c": 0}, 0

    def hello_() -> ran_pb2.GnbMessage:
        cell_id = rng.choice(("cell-1", "cell-1", "cell-2", "cell-x", ""))
        version = PROTOCOL_VERSION if rng.random() < 0.8 else 9
        return ran_pb2.GnbMessage(hello=hello(cell_id, version))

    def report_() -> ran_pb2.GnbMessage:
        number = next(bench.report_sequence)
        body = ran_pb2.MacReport(session=sessions[peer], time_ns=T0 + rng.randint(0, number))
        body.sequence = rng.choice((1, number, 1 << 40))
        return ran_pb2.GnbMessage(mac_report=body)

    def applied_() -> ran_pb2.GnbMessage:
        sequence = max(0, asked + rng.randint(-1, 1))
        body = ran_pb2.Applied(session=sessions[peer], sequence=sequence, lapsed=rng.random() < 0.3)
        return ran_pb2.GnbMessage(applied=body)

    for _ in range(3000):
        bench.now += 0.3 if rng.random() < 0.1 else 0.0
        bench.protocol.tick(bench.now)
        peer, owner = rng.choice(((b"a", None), (b"b", "cell-1"), (b"c", "cell-2")))
        if rng.random() < 0.1:
            for cell_id in bench.protocol.cells:
                asked = bench.protocol.set_quota(cell_id, {}, {}, 1.0, bench.now)
        data = rng.choice((hello_, report_, applied_))().SerializeToString()
        if rng.random() < 0.3:
            data = hostile(rng, [data], 40_000)
        before = bench.protocol.counters.snapshot()
        bench.raw(data, peer, owner)
        for reply in bench.replies():
            sessions[peer] = reply.welcome.session or sessions[peer]
        after = bench.protocol.counters.snapshot()
        counted = [k for k in after for _ in range(after[k] - before.get(k, 0)) if k[0] in outcomes]
        assert len(counted) == 1, (data, counted)
        unseen.discard(counted[0][0])
    assert not unseen


# -- hello


def test_hello_opens_a_session_and_the_cells_facts_are_told(bench: Bench) -> None:
    bench.send(hello=hello())
    welcome = bench.reply().welcome
    assert (welcome.protocol_version, welcome.report_period_ms, welcome.lease_ms) == (1, 50, 3000)
    (joined,) = bench.events(CellJoined)
    assert (joined.cell_id, joined.session) == ("cell-1", welcome.session)
    assert (joined.facts.n_prb, joined.facts.tdd.name) == (106, "DSUUU")
    assert list(bench.protocol.cells) == ["cell-1"]


def test_another_protocol_version_is_refused_with_both_named(bench: Bench) -> None:
    bench.send(hello=hello(version=PROTOCOL_VERSION + 6))
    reject = bench.reply().reject
    assert (reject.controller_version, reject.agent_version) == (PROTOCOL_VERSION, PROTOCOL_VERSION + 6)
    assert str(PROTOCOL_VERSION) in reject.reason and str(PROTOCOL_VERSION + 6) in reject.reason
    assert bench.count("ran_version_mismatch_total") == 1
    assert not bench.protocol.cells


def test_an_unknown_cell_is_refused_and_counted() -> None:
    bench = Bench(expected_cells={"cell-2"})
    bench.send(hello=hello("cell-1"))
    assert "'cell-1'" in bench.reply().reject.reason
    assert bench.count("ran_unknown_cell_total") == 1
    bench.send(hello=hello("cell-2"))
    assert bench.reply().HasField("welcome")


def test_an_impossible_hello_is_refused_and_counted(bench: Bench) -> None:
    bad = hello()
    bad.prb = 5000
    bench.send(hello=bad)
    assert "prb 5000" in bench.reply().reject.reason
    assert bench.count("ran_bad_hello_total") == 1


def test_a_reason_is_cut_to_the_contracts_bound(bench: Bench) -> None:
    bad = hello("ü" * 31)
    bad.prb = 5000
    bench.send(hello=bad)
    assert len(bench.reply().reject.reason.encode()) <= 127


def test_with_keys_a_cell_id_belongs_to_one_key(bench: Bench) -> None:
    bench.send(hello=hello("cell-1"), owner="cell-2")
    assert "key" in bench.reply().reject.reason
    bench.send(hello=hello("cell-1"), owner="cell-1")
    session = bench.reply().welcome.session
    bench.events(CellJoined)
    # The identity changes hands, the session does not.
    stolen = report()
    stolen.session, stolen.sequence = session, 1
    bench.send(mac_report=stolen, owner="cell-2")
    assert bench.events(RawReport) == [] and bench.replies() == []
    assert bench.count("ran_wrong_key_total") == 2
    bench.send(mac_report=stolen, owner="cell-1")
    assert len(bench.events(RawReport)) == 1


def test_a_hello_that_is_repeated_before_the_first_report_keeps_the_session(bench: Bench) -> None:
    session = bench.join()
    bench.send(hello=hello())
    assert bench.reply().welcome.session == session
    assert bench.events(CellJoined) == []


def test_a_gnb_that_was_restarted_gets_a_new_session(bench: Bench) -> None:
    session = bench.join()
    bench.report(session, 1)
    bench.protocol.take_events()
    bench.send(hello=hello())
    assert bench.reply().welcome.session != session
    lost, joined = bench.protocol.take_events()
    assert isinstance(lost, CellLost) and isinstance(joined, CellJoined)


def test_a_restarted_gnb_has_its_cell_at_its_second_hello(bench: Bench) -> None:
    old = bench.join(peer=b"a")
    bench.report(old, 1)
    bench.protocol.take_events()
    bench.send(b"b", hello=hello())
    assert bench.replies() == []
    bench.now += 1.0
    bench.send(b"b", hello=hello())
    new = bench.reply().welcome.session
    lost, joined = bench.protocol.take_events()
    assert isinstance(lost, CellLost) and "another connection" in lost.why
    assert isinstance(joined, CellJoined) and joined.session == new != old
    assert bench.count("ran_takeovers_total", "cell-1") == 1
    bench.report(old, 2, peer=b"a")
    assert bench.reply().HasField("hello_request")
    bench.report(new, 1, peer=b"b")
    assert len(bench.events(RawReport)) == 1


def test_of_two_gnbs_with_one_cell_id_the_first_stays_and_the_second_is_told_why(bench: Bench) -> None:
    session = bench.join(peer=b"a")
    reasons = []
    for step in range(6000):
        bench.now += 0.01
        bench.report(session, step + 1)
        if step % 100 == 0:
            bench.send(b"b", hello=hello())
        if step % 7 == 0:
            bench.report(4711, step + 1, peer=b"b")
        bench.protocol.tick(bench.now)
        for peer, data in bench.protocol.take_outgoing():
            message = ran_pb2.ControllerMessage.FromString(data)
            assert peer == b"b" and not message.HasField("welcome")
            if message.HasField("reject"):
                reasons.append(message.reject.reason)
    assert len(bench.events(RawReport)) == 6000
    assert len(reasons) == 59 and all("cell 'cell-1' is in use" in reason for reason in reasons)
    assert bench.count("ran_cell_in_use_total", "cell-1") == 59
    assert bench.count("ran_sessions_total") == 1 and bench.count("ran_takeovers_total") == 0
    # The first one ends: the second has the cell once that is seen.
    bench.run(2.0)
    bench.send(b"b", hello=hello())
    assert bench.replies()[-1].HasField("welcome")


def test_a_second_gnb_of_one_cell_id_waits_on_one_connection_until_the_first_is_silent(bench: Bench) -> None:
    session = bench.join(peer=b"a")
    second = RanAgent(Cell("cell-1", 106, 30, hello().tdd, "test"))
    reports = 0
    while not second.session and bench.now < 150.0:
        bench.now += 0.1
        if bench.now < 100.0:
            reports += 1
            bench.report(session, reports)
        second.tick(bench.now)
        while (data := second.to_send()) is not None:
            bench.protocol.receive(b"b", data, bench.now)
            second.sent(bench.now)
        for peer, data in bench.protocol.take_outgoing():
            if peer == b"b":
                second.receive(data, bench.now)
        assert not second.reconnect(bench.now)
        bench.protocol.tick(bench.now)
    assert second.session
    assert second.counters["rejects"] == bench.count("ran_cell_in_use_total", "cell-1") > 3
    assert bench.count("ran_sessions_total") == 2


def test_a_session_goes_on_over_another_connection(bench: Bench) -> None:
    session = bench.join(peer=b"a")
    bench.report(session, 1, peer=b"a")
    bench.report(session, 2, peer=b"b")
    assert [e.message.sequence for e in bench.events(RawReport)] == [1, 2]
    bench.protocol.set_quota("cell-1", {"ar": (10, 5)}, {}, 10, bench.now)
    ((peer, _),) = bench.protocol.take_outgoing()
    assert peer == b"b" and bench.count("ran_reconnects_total", "cell-1") == 1


def test_another_cells_key_takes_no_session_with_it(bench: Bench) -> None:
    bench.send(hello=hello(), owner="cell-1")
    session = bench.reply().welcome.session
    bench.protocol.take_events()
    message = report()
    message.session, message.sequence, message.time_ns = session, 1, T0
    bench.send(b"b", mac_report=message, owner="cell-2")
    assert bench.events(RawReport) == [] and bench.count("ran_reconnects_total") == 0


def test_a_flood_of_hellos_gives_few_sessions_and_harms_no_other_cell(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    other = bench.join("cell-2", peer=b"z")
    session = bench.join(peer=b"a")
    for reports in range(1, 5001):
        bench.now += 0.002
        bench.send(hello=hello())
        for reply in bench.replies():
            if reply.HasField("welcome"):
                session = reply.welcome.session
        bench.report(session, 1)
        bench.report(other, reports, peer=b"z")
    events = bench.protocol.take_events()
    assert sum(isinstance(e, RawReport) and e.cell_id == "cell-2" for e in events) == 5000
    joined = sum(isinstance(e, CellJoined) for e in events)
    assert joined == sum(isinstance(e, CellLost) for e in events) <= 4 + 10 / ran_protocol.SESSION_EVERY_S
    assert bench.count("ran_early_hellos_total", "cell-1") > 4900
    assert len(caplog.records) < 20
    bench.now += ran_protocol.SESSION_EVERY_S
    bench.send(hello=hello())
    assert bench.reply().HasField("welcome")


def test_a_connection_that_becomes_another_cell_leaves_the_first(bench: Bench) -> None:
    bench.join("cell-1")
    bench.send(hello=hello("cell-2"))
    lost, joined = bench.protocol.take_events()
    assert isinstance(lost, CellLost) and lost.cell_id == "cell-1"
    assert isinstance(joined, CellJoined) and joined.cell_id == "cell-2"
    assert list(bench.protocol.cells) == ["cell-2"]


# -- reports


def test_a_report_without_a_session_is_asked_for_hello_once_a_second(bench: Bench) -> None:
    for _ in range(5):
        bench.report(0, 1)
    assert bench.reply().HasField("hello_request")
    bench.now += 0.99
    bench.report(77, 2)
    assert bench.replies() == []
    bench.now += 0.02
    bench.report(77, 3)
    assert bench.reply().HasField("hello_request")
    bench.report(77, 3, peer=b"b")
    assert bench.reply().HasField("hello_request")
    assert bench.count("ran_no_session_total") == 8
    assert bench.events(RawReport) == []


def test_reports_of_the_session_before_do_not_make_a_third_session(bench: Bench) -> None:
    old = bench.join()
    bench.report(old, 1)
    new = bench.join()
    bench.report(old, 2)
    assert bench.replies() == []
    bench.report(new, 1)
    assert len(bench.events(RawReport)) == 1


def test_repeated_and_older_sequences_are_dropped_and_gaps_counted(bench: Bench) -> None:
    session = bench.join()
    for sequence in (5, 6, 6, 3, 10, 9, 11):
        bench.report(session, sequence, T0 + sequence)
    assert [e.message.sequence for e in bench.events(RawReport)] == [5, 6, 10, 11]
    assert bench.count("ran_sequence_backwards_total", "cell-1") == 3
    assert bench.count("ran_reports_lost_total", "cell-1") == 3
    assert bench.count("ran_reports_total", "cell-1") == 4


def test_an_absurd_sequence_does_not_silence_the_cell(bench: Bench) -> None:
    session = bench.join()
    for sequence in (1, 2**63, 2):
        bench.report(session, sequence, T0 + 1)
    assert [e.message.sequence for e in bench.events(RawReport)] == [1, 2]
    assert bench.count("ran_sequence_jump_total") == 1


def test_time_going_backwards_is_dropped_and_counted_and_the_cell_goes_on(bench: Bench) -> None:
    session = bench.join()
    for sequence, time_ns in enumerate((T0, T0 + 5, T0 - 10**9, T0 - 10**9 + 50), 1):
        bench.report(session, sequence, time_ns)
    assert [e.message.sequence for e in bench.events(RawReport)] == [1, 2, 4]
    assert bench.count("ran_time_backwards_total", "cell-1") == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff",
        ran_pb2.GnbMessage(hello=hello()).SerializeToString()[:-3],
        ran_pb2.GnbMessage(mac_report=report()).SerializeToString()[:100],
        b"\xba\x01\x02\x08\x01",
        ran_pb2.GnbMessage(mac_report=report(600)).SerializeToString(),
    ],
    ids=["empty", "noise", "truncated hello", "truncated report", "unknown body", "oversized"],
)
def test_malformed_messages_are_counted_and_the_link_goes_on(bench: Bench, data: bytes) -> None:
    assert len(data) < 1000 or len(data) > MAX_RAN_MESSAGE_BYTES
    session = bench.join()
    bench.raw(data)
    bench.raw(data, peer=b"stranger")
    assert bench.count("ran_malformed_total", "cell-1") == 1
    assert bench.count("ran_malformed_total", "") == 1
    assert bench.replies() == []
    bench.report(session, 1)
    assert len(bench.events(RawReport)) == 1


def test_the_largest_report_of_the_contract_is_not_oversized() -> None:
    message = report(64)
    big = 2**64 - 1
    message.session = message.sequence = message.time_ns = big
    for ue in message.ues:
        ue.rnti, ue.ue_id, ue.slice, ue.cqi, ue.snr_db = 65535, "u" * 31, "s" * 31, 15, 1.0
        for state in (ue.ul, ue.dl):
            state.mcs, state.mcs_table, state.layers, state.bler = 28, 3, 4, 0.5
            state.queued_bytes = state.lc_bytes = state.prb_slots = big
        ue.five_qi, ue.priority_level, ue.snssai.sst, ue.snssai.sd = 255, 127, 255, 0xFFFFFF
        for lcid in range(25, 33):
            ue.dl_channels.add(lcid=lcid, queued_bytes=big)
    assert ran_pb2.GnbMessage(mac_report=message).ByteSize() < MAX_RAN_MESSAGE_BYTES


def test_strangers_do_not_fill_the_memory(bench: Bench) -> None:
    for i in range(6000):
        bench.report(9, 1, peer=str(i).encode())
    assert len(bench.protocol._hello_requested) <= 4096


# -- silence


def test_a_silent_cell_is_lost_and_may_come_back(bench: Bench) -> None:
    session = bench.join()
    bench.run(1.9)
    assert bench.events(CellLost) == []
    bench.run(0.2)
    (lost,) = bench.events(CellLost)
    assert lost.cell_id == "cell-1" and "silent" in lost.why
    assert bench.count("ran_cells_lost_total", "cell-1") == 1
    with pytest.raises(CellNotConnected, match="cell-1"):
        bench.protocol.set_quota("cell-1", {}, {}, 5, bench.now)
    bench.report(session, 2)
    assert bench.reply().HasField("hello_request")
    bench.send(hello=hello())
    assert len(bench.events(CellJoined)) == 1


def test_a_reporting_cell_is_not_lost(bench: Bench) -> None:
    session = bench.join()
    for i in range(10):
        bench.now += 1.5
        bench.report(session, i + 1)
        bench.protocol.tick(bench.now)
    assert len(bench.events(RawReport)) == 10


def test_slow_reports_stretch_the_silence() -> None:
    bench = Bench(report_period_ms=200)
    assert bench.protocol._silence_s == 2.0
    session = bench.join()
    bench.report(session, 1)
    bench.run(1.95)
    assert bench.protocol.cells


# -- quotas


def test_quotas_go_out_at_once_with_lease_and_bindings(bench: Bench) -> None:
    session = bench.join()
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {"ue-1": "ar"}, 10, bench.now)
    quota = bench.reply().set_quota
    assert (quota.session, quota.sequence, quota.lease_ms) == (session, sequence, 3000)
    assert [(q.slice, q.ul_prb, q.dl_prb) for q in quota.quotas] == [("ar", 30, 10)]
    assert [(b.ue_id, b.slice) for b in quota.bindings] == [("ue-1", "ar")]


def test_bindings_that_change_go_out_and_bad_ones_leave_the_last(bench: Bench) -> None:
    bench.join()
    sent = []
    for bindings in ({"ue-1": "ar"}, {"ue-1": "ar"}, {"ue-1": "vr", "ue-2": "ar"}, {}):
        bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, bindings, 10, bench.now)
        sent.append({b.ue_id: b.slice for b in bench.reply().set_quota.bindings})
    assert sent == [{"ue-1": "ar"}, {"ue-1": "ar"}, {"ue-1": "vr", "ue-2": "ar"}, {}]
    for _ in range(2):
        with pytest.raises(ValueError, match="a name is empty"):
            bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {"": "ar"}, 10, bench.now)
    again = bench.run(1.1)  # re-sent and renewed: the last good ones, of which there are none
    assert again and not any(m.set_quota.bindings for _, m in again)


def test_quotas_are_sent_again_until_acknowledged(bench: Bench) -> None:
    session = bench.join()
    start = bench.now
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    bench.replies()
    sent = bench.run(0.95, session=session)
    assert {m.set_quota.sequence for _, m in sent} == {sequence}
    assert [at - start for at, _ in sent] == pytest.approx([0.1, 0.3, 0.7], abs=0.05)
    assert bench.protocol.unacknowledged("cell-1")
    assert bench.count("ran_resends_total", "cell-1") == 3
    bench.protocol.take_events()
    bench.applied(session, sequence, {"ar": (30, 10)})
    (applied,) = bench.events(QuotaApplied)
    assert applied.first and applied.quotas == {"ar": (30, 10)} and applied.sequence == sequence
    assert not bench.protocol.unacknowledged("cell-1")
    # Nothing more before the renewal is due, a second after the quota.
    assert bench.run(0.04, session=session) == []


def test_a_newer_quota_supersedes_what_was_not_acknowledged(bench: Bench) -> None:
    session = bench.join()
    first = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    second = bench.protocol.set_quota("cell-1", {"ar": (50, 10)}, {}, 100, bench.now)
    bench.replies()
    bench.applied(session, first, {"ar": (30, 10)})
    (applied,) = bench.events(QuotaApplied)
    assert not applied.first and applied.sequence == first
    assert bench.protocol.unacknowledged("cell-1")
    assert [m.set_quota.sequence for _, m in bench.run(0.15, session=session)] == [second]
    bench.protocol.take_events()
    bench.applied(session, second, {"ar": (50, 10)})
    assert [e.first for e in bench.events(QuotaApplied)] == [True]
    bench.applied(session, first, {"ar": (30, 10)})
    assert bench.events(QuotaApplied) == []
    assert bench.count("ran_stale_applied_total", "cell-1") == 1


def test_the_lease_is_renewed_every_third_until_the_decision_is_too_old(bench: Bench) -> None:
    session = bench.join()
    start = bench.now
    bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 5.5, bench.now)
    sequence = bench.reply().set_quota.sequence
    bench.applied(session, sequence, {"ar": (30, 10)})
    renewed = []
    for _ in range(1000):
        for at, message in bench.run(0.01, session=session):
            quota = message.set_quota
            renewed.append((at - start, quota.sequence))
            assert [(q.slice, q.ul_prb, q.dl_prb) for q in quota.quotas] == [("ar", 30, 10)]
            bench.applied(session, quota.sequence, {"ar": (30, 10)})
    assert [round(at) for at, _ in renewed] == [1, 2, 3, 4, 5]
    assert [s for _, s in renewed] == list(range(sequence + 1, sequence + 6))
    firsts = [e.first for e in bench.protocol.take_events() if isinstance(e, QuotaApplied)]
    assert firsts == [True, *[False] * 5]
    assert bench.count("ran_renewals_total") == 5
    assert bench.count("ran_quota_expired_total") == 1


def test_a_quota_that_is_too_old_is_not_sent_again_either(bench: Bench) -> None:
    session = bench.join()
    bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 0.5, bench.now)
    bench.replies()
    sent = bench.run(3, session=session)
    assert max(at for at, _ in sent) <= 50.5 + 1e-6
    assert not bench.protocol.unacknowledged("cell-1")


def test_a_release_is_sent_again_until_acknowledged_and_ends_renewal(bench: Bench) -> None:
    session = bench.join()
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    bench.applied(session, sequence, {"ar": (30, 10)})
    bench.protocol.take_events()
    release = bench.protocol.release("cell-1", bench.now)
    first, *again = [m for _, m in bench.run(5, session=session)]
    bench.protocol.take_events()
    assert len(again) > 3
    assert all(m.release.sequence == release > sequence for m in again)
    bench.applied(session, release, {})
    (applied,) = bench.events(QuotaApplied)
    assert applied.first and applied.quotas == {}
    assert bench.run(5, session=session) == []
    assert first is not None


def test_a_renewal_that_overtakes_the_first_acknowledgement_still_counts_as_the_first(bench: Bench) -> None:
    session = bench.join()
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    bench.run(1.1, session=session)
    bench.protocol.take_events()
    bench.applied(session, sequence + 1, {"ar": (30, 10)})
    assert [e.first for e in bench.events(QuotaApplied)] == [True]


@pytest.mark.parametrize(
    ("quotas", "bindings", "named"),
    [
        ({"ar": (107, 10)}, {}, "'ar': 107 UL PRB on a carrier of 106"),
        ({"ar": (10, -1)}, {}, "'ar': -1 DL PRB"),
        ({"": (10, 10)}, {}, "slice ''"),
        ({"s" * 32: (10, 10)}, {}, "longer than 31"),
        ({str(i): (1, 1) for i in range(17)}, {}, "17 quotas"),
        ({}, {str(i): "ar" for i in range(65)}, "65 UE bindings"),
        ({}, {"": "ar"}, "binding of UE ''"),
    ],
)
def test_quotas_that_cannot_be_are_refused_before_sending(
    bench: Bench, quotas: dict[str, tuple[int, int]], bindings: dict[str, str], named: str
) -> None:
    bench.join()
    with pytest.raises(ValueError, match=named):
        bench.protocol.set_quota("cell-1", quotas, bindings, 5, bench.now)
    with pytest.raises(ValueError, match="valid_for_s"):
        bench.protocol.set_quota("cell-1", {}, {}, float("nan"), bench.now)
    assert bench.replies() == []


def test_a_quota_that_could_not_be_sent_is_counted_and_sent_again(bench: Bench) -> None:
    session = bench.join()
    bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    ((peer, _),) = bench.protocol.take_outgoing()
    bench.protocol.send_failed(peer, "host unreachable")
    assert bench.count("ran_send_failed_total", "cell-1") == 1
    assert len(bench.run(0.15, session=session)) == 1


def test_an_acknowledgement_of_what_was_never_sent_is_counted_and_ignored(bench: Bench) -> None:
    session = bench.join()
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    bench.applied(session, sequence + 5, {"ar": (30, 10)})
    bench.applied(session, 0, {})
    bench.applied(session, sequence, {"ar": (300, 10)})
    assert bench.protocol.take_events() == []
    assert bench.count("ran_bad_applied_total", "cell-1") == 3
    assert bench.protocol.unacknowledged("cell-1")


def test_cells_do_not_touch_each_other(bench: Bench) -> None:
    one, two = bench.join("cell-1", b"a"), bench.join("cell-2", b"b")
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 100, bench.now)
    bench.protocol.set_quota("cell-2", {"ar": (70, 10)}, {}, 100, bench.now)
    assert [p for p, _ in bench.protocol.take_outgoing()] == [b"a", b"b"]
    bench.applied(one, sequence, {"ar": (30, 10)})
    assert not bench.protocol.unacknowledged("cell-1")
    assert bench.protocol.unacknowledged("cell-2")
    bench.report(two, 1, peer=b"b")
    bench.report(two, 1, peer=b"a")
    assert [e.cell_id for e in bench.protocol.take_events()] == ["cell-1", "cell-2"]
    assert bench.count("ran_no_session_total", "cell-1") == 1


# -- quota_not_honoured

UL, DL = ran_pb2.UL, ran_pb2.DL


def acknowledged(bench: Bench, session: int, quotas: dict[str, tuple[int, int]], **use: Any) -> int:
    sequence = bench.protocol.set_quota("cell-1", quotas, {}, 100, bench.now)
    bench.applied(session, sequence, quotas, **use)
    return sequence


def test_use_above_the_quota_of_the_interval_before_is_told(bench: Bench) -> None:
    session = bench.join()
    acknowledged(bench, session, {"ar": (30, 10)}, use={("ar", UL): 106, ("ar", DL): 106})
    assert [type(e) for e in bench.protocol.take_events()] == [QuotaApplied]
    # 70 UL PRB were used under the quota of 30, though 106 are allowed from now on.
    acknowledged(bench, session, {"ar": (106, 5)}, use={("ar", UL): 70, ("ar", DL): 10, ("", DL): 106})
    event, applied = bench.protocol.take_events()
    assert event == QuotaNotHonoured("cell-1", "ar", "ul", 30, 70, 1)
    assert isinstance(applied, QuotaApplied)
    assert bench.count("ran_quota_not_honoured_total", "cell-1") == 1


def test_use_within_the_quota_is_not_told(bench: Bench) -> None:
    session = bench.join()
    acknowledged(bench, session, {"ar": (30, 10)})
    acknowledged(bench, session, {"ar": (5, 5)}, use={("ar", UL): 30, ("ar", DL): 10})
    assert len(bench.events(QuotaApplied)) == 2


def test_an_interval_whose_quotas_are_not_certain_is_not_judged(bench: Bench) -> None:
    session = bench.join()
    acknowledged(bench, session, {"ar": (30, 10)})
    # The acknowledgement of this one is lost: from some time on 50 were allowed.
    bench.protocol.set_quota("cell-1", {"ar": (50, 10)}, {}, 100, bench.now)
    acknowledged(bench, session, {"ar": (10, 10)}, use={("ar", UL): 45})
    assert len(bench.events(QuotaApplied)) == 2


def test_lost_acknowledgements_of_equal_quotas_leave_the_interval_certain(bench: Bench) -> None:
    session = bench.join()
    acknowledged(bench, session, {"ar": (30, 10)})
    bench.run(2.2, session=session)
    bench.protocol.take_events()
    acknowledged(bench, session, {"ar": (90, 10)}, use={("ar", UL): 45})
    event, _ = bench.protocol.take_events()
    assert event == QuotaNotHonoured("cell-1", "ar", "ul", 30, 45, 1)


def test_a_repeated_acknowledgement_is_counted_alone(bench: Bench) -> None:
    session = bench.join()
    acknowledged(bench, session, {"ar": (90, 10)})
    sequence = acknowledged(bench, session, {"ar": (30, 10)}, use={("ar", UL): 90})
    bench.applied(session, sequence, {"ar": (99, 10)})
    assert isinstance(bench.protocol.take_events()[0], QuotaApplied)
    for _ in range(100):
        bench.applied(session, sequence, {"ar": (30, 10)}, use={("ar", UL): 90})
        bench.applied(session, sequence, {"ar": (99, 10)})
    assert bench.protocol.take_events() == []
    assert bench.count("ran_repeated_applied_total", "cell-1") == 201
    for _ in range(100):
        bench.applied(session, sequence, {}, lapsed=True)
        bench.applied(session, sequence, {"ar": (30, 10)})
    assert bench.events(LeaseLapsed) == [LeaseLapsed("cell-1")]


def test_a_lapsed_lease_is_told_and_its_interval_not_judged(bench: Bench) -> None:
    session = bench.join()
    sequence = acknowledged(bench, session, {"ar": (30, 10)})
    bench.protocol.take_events()
    bench.applied(session, sequence, {}, use={("ar", UL): 106}, lapsed=True)
    assert bench.events(LeaseLapsed) == [LeaseLapsed("cell-1")]
    acknowledged(bench, session, {"ar": (40, 10)}, use={("ar", UL): 106})
    assert len(bench.events(QuotaApplied)) == 1
    acknowledged(bench, session, {"ar": (50, 10)}, use={("ar", UL): 41})
    event, _ = bench.protocol.take_events()
    assert event == QuotaNotHonoured("cell-1", "ar", "ul", 40, 41, 2)


def test_quotas_in_force_that_were_not_asked_for_are_told(bench: Bench) -> None:
    session = bench.join()
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10), "mar": (20, 20)}, {}, 100, bench.now)
    bench.applied(session, sequence, {"ar": (70, 10)})
    *events, applied = bench.protocol.take_events()
    assert events == [
        QuotaNotHonoured("cell-1", "ar", "ul", 30, 70, 1),
        QuotaNotHonoured("cell-1", "mar", "ul", 20, 106, 1),
        QuotaNotHonoured("cell-1", "mar", "dl", 20, 106, 1),
    ]
    assert isinstance(applied, QuotaApplied) and applied.quotas == {"ar": (70, 10)}


def test_a_renewal_asked_for_tells_the_use_up_to_now(bench: Bench) -> None:
    session = bench.join()
    sequence = acknowledged(bench, session, {"ar": (30, 10)})
    bench.protocol.take_events()
    bench.protocol.renew("cell-1", bench.now)
    bench.applied(session, sequence + 1, {"ar": (30, 10)}, use={("ar", UL): 70})
    event, applied = bench.protocol.take_events()
    assert event == QuotaNotHonoured("cell-1", "ar", "ul", 30, 70, sequence)
    assert isinstance(applied, QuotaApplied) and not applied.first


def test_nothing_is_renewed_without_a_valid_quota(bench: Bench) -> None:
    bench.protocol.renew("cell-1", bench.now)  # no session
    session = bench.join()
    bench.protocol.renew("cell-1", bench.now)  # no quota
    sequence = bench.protocol.set_quota("cell-1", {"ar": (30, 10)}, {}, 1.0, bench.now)
    bench.applied(session, sequence, {"ar": (30, 10)})
    bench.protocol.take_outgoing()
    bench.protocol.renew("cell-1", bench.now + 2.0)  # decided too long ago
    assert bench.protocol.take_outgoing() == []


def test_quotas_of_the_session_before_are_forgotten(bench: Bench) -> None:
    session = bench.join()
    acknowledged(bench, session, {"ar": (30, 10)})
    session = bench.join()
    acknowledged(bench, session, {"ar": (50, 10)}, use={("ar", UL): 106})
    assert all(not isinstance(e, QuotaNotHonoured) for e in bench.protocol.take_events())
    bench.replies()
    assert bench.run(0.5, session=session) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [({"report_period_ms": 5}, "report_period_ms 5"), ({"lease_s": 0.0}, "lease_s 0")],
)
def test_settings_are_checked(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Bench(**options)
