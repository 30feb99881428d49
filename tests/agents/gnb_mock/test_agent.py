from __future__ import annotations

import pytest

from agents.gnb_mock.agent import Cell, CellTime, RanAgent
from wire import PROTOCOL_VERSION, ran_pb2

TDD = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=4, ul_symbols=6, ul_slots=3)
AT = CellTime(frame=12, slot=3, time_ns=1_000)


def agent() -> RanAgent:
    return RanAgent(Cell("cell-1", 106, 30, TDD, "test 1"))


def drain(ran: RanAgent, now: float = 0.0) -> list[ran_pb2.GnbMessage]:
    messages = []
    while (data := ran.to_send()) is not None:
        messages.append(ran_pb2.GnbMessage.FromString(data))
        ran.sent(now)
    return messages


def receive(ran: RanAgent, now: float = 0.0, **body: object) -> None:
    ran.receive(ran_pb2.ControllerMessage(**body).SerializeToString(), now)


def welcome(ran: RanAgent, now: float = 0.0, session: int = 7, **values: int) -> None:
    fields = {
        "session": session,
        "protocol_version": PROTOCOL_VERSION,
        "report_period_ms": 10,
        "lease_ms": 3000,
    }
    receive(ran, now, welcome=ran_pb2.Welcome(**{**fields, **values}))


def in_session(now: float = 0.0) -> RanAgent:
    ran = agent()
    ran.tick(now)
    drain(ran, now)
    welcome(ran, now)
    return ran


def quota(
    sequence: int = 1,
    session: int = 7,
    lease_ms: int = 3000,
    quotas: dict[str, tuple[int, int]] | None = None,
    bindings: dict[str, str] | None = None,
) -> ran_pb2.SetQuota:
    return ran_pb2.SetQuota(
        session=session,
        sequence=sequence,
        lease_ms=lease_ms,
        quotas=[
            ran_pb2.SliceQuota(slice=s, ul_prb=u, dl_prb=d)
            for s, (u, d) in (quotas if quotas is not None else {"ar": (30, 20)}).items()
        ],
        bindings=[ran_pb2.UeBinding(ue_id=u, slice=s) for u, s in (bindings or {}).items()],
    )


def use(slice_: str = "ar", most: int = 30) -> ran_pb2.SliceUse:
    return ran_pb2.SliceUse(slice=slice_, direction=ran_pb2.UL, max_new_prb=most, slots=10)


def in_force(applied: ran_pb2.Applied) -> dict[str, tuple[int, int]]:
    return {q.slice: (q.ul_prb, q.dl_prb) for q in applied.in_force}


# ---- session --------------------------------------------------------------------------------------------


def test_the_first_message_is_a_hello_that_describes_the_cell():
    ran = agent()
    ran.tick(0.0)
    (message,) = drain(ran)
    hello = message.hello
    assert hello.protocol_version == PROTOCOL_VERSION
    assert (hello.cell_id, hello.prb, hello.scs_khz, hello.tdd) == ("cell-1", 106, 30, TDD)


def test_an_unanswered_hello_is_repeated_after_one_second_backing_off_to_five():
    ran = agent()
    said = []
    for tick in range(2200):
        now = tick / 100
        ran.tick(now)
        said += [now] * len(drain(ran, now))
    assert said == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]


def test_a_hello_that_the_socket_does_not_take_is_kept_and_its_timer_starts_when_it_leaves():
    ran = agent()
    for now in (0.0, 10.0, 20.0):
        ran.tick(now)
    assert ran.counters["hellos"] == 1
    assert len(drain(ran, 20.0)) == 1
    ran.tick(20.9)
    assert drain(ran) == []
    ran.tick(21.0)
    assert len(drain(ran)) == 1


def reconnects(ran: RanAgent, seconds: int, takes: bool) -> list[int]:
    """At which seconds the connection is to be made anew, with a socket that takes everything or nothing."""
    made = []
    for now in range(seconds):
        ran.tick(now)
        if takes:
            drain(ran, now)
            if ran.report(ran_pb2.MacReport()) is not None:
                ran.report_sent()
        else:
            ran.not_sent(now)
        if ran.reconnect(now):
            made.append(now)
    return made


@pytest.mark.parametrize("takes", [True, False])
def test_without_an_answer_the_connection_is_made_anew_every_five_seconds(takes: bool):
    ran = agent()
    assert reconnects(ran, 17, takes) == [5, 10, 15]
    assert ran.counters["reconnects"] == 3
    assert ran.counters["hellos"] > (3 if takes else 0)


def test_a_connection_that_carries_reports_stays_though_the_controller_says_nothing():
    assert reconnects(in_session(), 100, takes=True) == []


def test_a_session_whose_reports_are_not_taken_gets_a_new_connection_and_lives_on():
    ran = in_session()
    assert reconnects(ran, 12, takes=False) == [5, 10]
    assert ran.session == 7


def test_after_a_reject_the_connection_stays():
    ran = agent()
    ran.tick(0)
    drain(ran)
    receive(ran, 4, reject=ran_pb2.Reject(reason="no"))
    assert reconnects(ran, 15, takes=True) == []


def test_reports_wait_for_a_welcome_and_count_within_the_session():
    ran = agent()
    assert ran.report(ran_pb2.MacReport()) is None
    ran.tick(0.0)
    welcome(ran, session=9)
    reports = [ran_pb2.GnbMessage.FromString(ran.report(ran_pb2.MacReport()) or b"") for _ in range(2)]
    assert [(m.mac_report.session, m.mac_report.sequence) for m in reports] == [(9, 1), (9, 2)]
    assert ran.to_send() is None
    assert ran.report_period_ms == 10
    welcome(ran, session=10)
    again = ran_pb2.GnbMessage.FromString(ran.report(ran_pb2.MacReport()) or b"")
    assert (again.mac_report.session, again.mac_report.sequence) == (10, 1)


@pytest.mark.parametrize(
    "values", [{"protocol_version": PROTOCOL_VERSION + 1}, {"session": 0}, {"report_period_ms": 9},
               {"report_period_ms": 201}]
)  # fmt: skip
def test_an_impossible_welcome_is_refused_and_counted(values: dict[str, int]):
    ran = agent()
    ran.tick(0.0)
    drain(ran)
    welcome(ran, **values)
    assert ran.session == 0
    assert ran.counters["refused_welcomes"] == 1
    ran.tick(1.0)
    assert drain(ran)[0].HasField("hello")


def test_a_rejected_agent_goes_on_trying_slowly_and_names_the_reason():
    ran = agent()
    ran.tick(0.0)
    drain(ran)
    receive(ran, 0.5, reject=ran_pb2.Reject(reason="unknown cell", controller_version=1, agent_version=1))
    assert ran.rejected == "unknown cell"
    ran.tick(10.4)
    assert drain(ran) == []
    ran.tick(10.5)
    assert drain(ran, 10.5)[0].HasField("hello")
    ran.tick(20.4)
    assert drain(ran) == []
    welcome(ran, 20.4)
    assert ran.rejected == "" and ran.session == 7


def test_a_hello_request_ends_the_session_and_is_answered_at_once():
    ran = in_session()
    receive(ran, 5.0, set_quota=quota())
    ran.enforced(AT, list)
    receive(ran, 5.0, hello_request=ran_pb2.HelloRequest(reason="no session"))
    assert ran.session == 0
    (message,) = drain(ran, 5.0)
    assert message.HasField("hello"), "the acknowledgement of the ended session must not follow"
    receive(ran, 5.1, hello_request=ran_pb2.HelloRequest(reason="no session"))
    assert drain(ran) == []


def test_a_new_search_for_the_controller_begins_without_the_backoff_of_the_last_one():
    ran = agent()
    for now in (0.0, 1.0, 3.0, 7.0):
        ran.tick(now)
        assert len(drain(ran, now)) == 1
    welcome(ran, 8.0)
    receive(ran, 9.0, hello_request=ran_pb2.HelloRequest())
    assert len(drain(ran, 9.0)) == 1
    ran.tick(10.0)
    assert len(drain(ran, 10.0)) == 1


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"", b"\x0a\x7f\x01", b"x" * 70_000])
def test_a_malformed_message_is_counted_and_changes_nothing(data: bytes):
    ran = in_session()
    receive(ran, set_quota=quota())
    ran.enforced(AT, list)
    drain(ran)
    ran.receive(data, 0.0)
    assert ran.counters["malformed"] == 1
    assert ran.session == 7 and ran.quotas == {"ar": (30, 20)}
    assert ran.pending is None and ran.to_send() is None


# ---- quotas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a" * 32, "a\0b"])
def test_a_name_that_the_c_agent_could_not_hold_is_refused(name: str):
    ran = in_session()
    quotas = [ran_pb2.SliceQuota(slice=name, ul_prb=10, dl_prb=10)]
    receive(ran, set_quota=ran_pb2.SetQuota(session=7, sequence=1, lease_ms=1000, quotas=quotas))
    assert ran.counters["refused_quotas"] == 1 and ran.pending is None


def test_a_quota_is_acknowledged_once_it_is_in_force_with_the_use_since_the_last_one():
    ran = in_session()
    receive(ran, set_quota=quota(bindings={"ue-1": "ar"}))
    assert ran.to_send() is None, "an acknowledgement says that the quota holds"
    assert ran.pending is not None and ran.pending.changed
    assert (ran.pending.quotas, ran.pending.bindings) == ({"ar": (30, 20)}, {"ue-1": "ar"})
    ran.enforced(AT, lambda: [use(most=106)])
    (message,) = drain(ran)
    applied = message.applied
    assert (applied.session, applied.sequence, applied.lapsed) == (7, 1, False)
    assert (applied.frame, applied.slot, applied.time_ns) == (12, 3, 1_000)
    assert in_force(applied) == {"ar": (30, 20)}
    assert applied.use[0].max_new_prb == 106


def test_a_renewal_asks_for_no_change_but_is_acknowledged():
    ran = in_session()
    receive(ran, set_quota=quota(1))
    ran.enforced(AT, list)
    receive(ran, set_quota=quota(2))
    assert ran.pending is not None and not ran.pending.changed
    ran.enforced(AT, lambda: [use()])
    assert [m.applied.sequence for m in drain(ran)] == [1, 2]


def test_a_repeated_sequence_is_acknowledged_again_with_the_same_use_and_no_longer_lease():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota())
    ran.enforced(AT, lambda: [use(most=17)])
    first = drain(ran)
    receive(ran, 1.0, set_quota=quota())
    assert ran.pending is None
    assert drain(ran) == first
    assert ran.counters["repeated_sequence"] == 1
    assert ran.lease_left(1.0) == 2.0


def test_a_repetition_before_the_quota_is_in_force_is_not_acknowledged_twice():
    ran = in_session()
    receive(ran, set_quota=quota())
    receive(ran, set_quota=quota())
    ran.enforced(AT, list)
    receive(ran, set_quota=quota())
    assert len(drain(ran)) == 1


@pytest.mark.parametrize(
    ("message", "counter"),
    [
        (quota(sequence=4), "old_sequence"),
        (quota(sequence=0), "old_sequence"),
        (quota(sequence=6, session=8), "wrong_session"),
        (quota(sequence=6, session=0), "wrong_session"),
        (quota(sequence=6, lease_ms=0), "refused_quotas"),
        (quota(sequence=6, lease_ms=3_600_001), "refused_quotas"),
        (quota(sequence=6, quotas={"ar": (107, 1)}), "refused_quotas"),
        (quota(sequence=6, quotas={"ar": (1, 107)}), "refused_quotas"),
        (quota(sequence=6, quotas={"": (1, 1)}), "refused_quotas"),
        (quota(sequence=6, quotas={"x" * 32: (1, 1)}), "refused_quotas"),
        (quota(sequence=6, quotas={f"s{n}": (1, 1) for n in range(17)}), "refused_quotas"),
        (quota(sequence=6, bindings={f"u{n}": "ar" for n in range(65)}), "refused_quotas"),
        (quota(sequence=6, bindings={"": "ar"}), "refused_quotas"),
        (
            ran_pb2.SetQuota(session=7, sequence=6, lease_ms=9, quotas=[ran_pb2.SliceQuota(slice="a")] * 2),
            "refused_quotas",
        ),
    ],
)
def test_a_quota_that_cannot_be_used_is_counted_and_changes_nothing(message: ran_pb2.SetQuota, counter: str):
    ran = in_session()
    receive(ran, set_quota=quota(5))
    ran.enforced(AT, list)
    drain(ran)
    receive(ran, 1.0, set_quota=message)
    assert ran.counters[counter] == 1
    assert ran.pending is None and ran.to_send() is None
    assert ran.quotas == {"ar": (30, 20)}
    assert ran.lease_left(1.0) == 2.0
    receive(ran, 1.0, set_quota=quota(6))
    assert ran.pending is not None, "the refused message must not use up its sequence"


def test_the_bounds_themselves_are_accepted():
    ran = in_session()
    slices = {f"s{n}": (106, 106) for n in range(16)}
    receive(
        ran, set_quota=quota(lease_ms=3_600_000, quotas=slices, bindings={f"u{n}": "s1" for n in range(64)})
    )
    assert ran.pending is not None and ran.pending.quotas == slices


def test_release_is_back_to_all_prbs_without_a_lease():
    ran = in_session()
    receive(ran, set_quota=quota(1))
    ran.enforced(AT, list)
    receive(ran, release=ran_pb2.Release(session=7, sequence=2))
    assert ran.pending is not None and ran.pending.changed and ran.pending.quotas == {}
    ran.enforced(AT, list)
    last = drain(ran)[-1].applied
    assert (last.sequence, in_force(last), last.lapsed) == (2, {}, False)
    assert ran.lease_left(0.0) is None
    receive(ran, set_quota=quota(1))
    assert ran.counters["old_sequence"] == 1 and ran.quotas == {}


def test_a_lease_that_lapses_returns_all_prbs_and_says_so():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota(3, lease_ms=3000))
    ran.enforced(AT, list)
    drain(ran)
    ran.tick(2.999)
    assert ran.pending is None
    ran.tick(3.0)
    assert ran.pending is not None and ran.pending.changed and ran.pending.quotas == {}
    ran.enforced(AT, lambda: [use()])
    (message,) = drain(ran)
    assert (message.applied.sequence, message.applied.lapsed) == (3, True)
    assert in_force(message.applied) == {}
    assert message.applied.use[0].max_new_prb == 30
    assert ran.counters["leases_lapsed"] == 1
    receive(ran, 3.1, set_quota=quota(3))
    assert [m.applied.lapsed for m in drain(ran)] == [True], "a late repetition does not bring quotas back"
    assert ran.pending is None


def test_a_renewal_moves_the_end_of_the_lease():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota(1))
    ran.enforced(AT, list)
    receive(ran, 2.0, set_quota=quota(2))
    ran.enforced(AT, list)
    ran.tick(4.9)
    assert ran.pending is None
    ran.tick(5.0)
    assert ran.pending is not None


def test_quotas_outlive_their_session_but_not_their_lease():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota(1))
    ran.enforced(AT, list)
    receive(ran, 1.0, hello_request=ran_pb2.HelloRequest())
    drain(ran, 1.0)
    assert ran.quotas == {"ar": (30, 20)}
    welcome(ran, 1.5, session=8)
    ran.tick(3.0)
    ran.enforced(AT, lambda: pytest.fail("no acknowledgement, no use"))
    assert drain(ran) == [], "quotas of an earlier session have no sequence in this one"
    assert ran.quotas == {}


def test_a_lapse_without_a_session_still_ends_the_quotas():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota(1))
    ran.enforced(AT, list)
    receive(ran, 1.0, hello_request=ran_pb2.HelloRequest())
    drain(ran, 1.0)
    ran.tick(3.0)
    ran.enforced(AT, list)
    assert ran.quotas == {}
    assert all(not m.HasField("applied") for m in drain(ran, 3.0))


def test_a_quota_whose_session_ends_before_it_is_in_force_is_not_acknowledged_in_the_next():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota(1))
    welcome(ran, session=8)
    ran.enforced(AT, list)
    assert drain(ran) == []
    assert ran.quotas == {"ar": (30, 20)}
    assert ran.lease_left(0.0) == 3.0


def test_a_quota_that_the_scheduler_cannot_take_ends_like_a_lapsed_lease():
    ran = in_session()
    receive(ran, 0.0, set_quota=quota(1))
    ran.enforced(AT, list)
    receive(ran, 1.0, set_quota=quota(2, quotas={"ar": (5, 5)}))
    ran.not_enforceable("no room")
    assert ran.pending is not None and ran.pending.changed and ran.pending.quotas == {}
    ran.enforced(AT, list)
    last = drain(ran)[-1].applied
    assert (last.sequence, last.lapsed, in_force(last)) == (2, True, {})
    assert ran.lease_left(1.0) is None and ran.counters["refused_quotas"] == 1


def test_acknowledgements_that_cannot_leave_are_bounded_and_the_newest_stay():
    ran = in_session()
    for sequence in range(1, 21):
        receive(ran, set_quota=quota(sequence))
        ran.enforced(AT, list)
    assert [m.applied.sequence for m in drain(ran)] == list(range(13, 21))
    assert ran.counters["acks_superseded"] == 12


def test_the_use_in_an_acknowledgement_is_bounded_and_quota_slices_come_first():
    ran = in_session()
    receive(ran, set_quota=quota(quotas={"ar": (1, 1)}))
    ran.enforced(AT, lambda: [*(use(f"other{n}") for n in range(40)), use("ar")])
    applied = drain(ran)[0].applied
    assert len(applied.use) == 32
    assert applied.use[0].slice == "ar"
    assert ran.counters["uses_left_out"] == 9
