from __future__ import annotations

import pytest

from openrtist.ledger import Ledger

T0 = 1_720_457_989_000_000_000
MS = 1_000_000


def back(ledger: Ledger, sequence: int, *, ul: int = 12, edge: int = 9, dl: int = 19) -> bool:
    sent = T0 + sequence * 33 * MS
    times = (sent + ul * MS, sent + (ul + edge) * MS, sent + (ul + edge + dl) * MS)
    return ledger.returned(sequence, *times, 5_000, inference_us=8_000, engine_us=9_000)


def send(ledger: Ledger, *sequences: int, now: float = 0.0) -> None:
    for sequence in sequences:
        ledger.sent(sequence, T0 + sequence * 33 * MS, 12_000, now)


def told(ledger: Ledger) -> list[tuple[int, bool, bool]]:
    return [(e.sequence, e.ue_sent_ns > 0, e.ue_received_ns > 0) for batch in ledger.changes() for e in batch]


def test_a_frame_is_told_when_it_is_sent_and_again_when_it_is_back() -> None:
    ledger = Ledger(5.0)
    send(ledger, 0, 1)
    assert told(ledger) == [(0, True, False), (1, True, False)]
    assert told(ledger) == []
    assert back(ledger, 1)
    send(ledger, 2)
    assert back(ledger, 2)
    assert told(ledger) == [(1, True, True), (2, True, True)]
    assert ledger.in_flight == 1
    summary = ledger.summary()
    assert summary["delay_ms"]["round_trip"]["mean"] == 40.0 and summary["delay_ms"]["edge"]["max"] == 9.0
    assert summary["sent"] == 3 and summary["returned"] == 2 and summary["lost"] == 1


def test_a_frame_that_waits_at_the_edge_is_told_with_its_arrival() -> None:
    book = Ledger(10.0)
    book.sent(1, 1000, 10, 0.0)
    assert [[e.sequence for e in batch] for batch in book.changes()] == [[1]]
    book.arrived(1, 1500)
    book.arrived(2, 1600)
    (batch,) = book.changes()
    assert [(e.sequence, e.ue_sent_ns, e.edge_received_ns, e.ue_received_ns) for e in batch] == [
        (1, 1000, 1500, 0)
    ]


def test_frames_that_never_come_back_are_lost_and_late_ones_are_lost_no_more() -> None:
    ledger = Ledger(5.0)
    send(ledger, 0, 1, 2, now=10.0)
    send(ledger, 3, now=12.0)
    told(ledger)
    assert ledger.expire(14.9) == []
    assert ledger.expire(15.0) == [0, 1, 2]
    assert ledger.counters["lost"] == 3
    assert back(ledger, 1)
    assert told(ledger) == [(1, True, True)]
    assert ledger.counters["lost"] == 2 and ledger.counters["late"] == 1
    summary = ledger.summary()
    assert (summary["sent"], summary["returned"], summary["lost"]) == (4, 1, 3)


def test_what_the_server_drops_or_refuses_is_lost_and_told_apart() -> None:
    ledger = Ledger(5.0)
    send(ledger, 0, 1, 2)
    ledger.failed(0, "dropped_by_server")
    ledger.failed(2, "refused_by_server")
    ledger.failed(2, "refused_by_server")
    summary = ledger.summary()
    assert (summary["lost"], summary["dropped_by_server"], summary["refused_by_server"]) == (3, 1, 1)
    assert ledger.in_flight == 1


def test_duplicates_and_unknown_frames_are_counted_and_change_nothing() -> None:
    ledger = Ledger(5.0)
    send(ledger, 0, 1)
    assert back(ledger, 1) and not back(ledger, 1, dl=500) and not back(ledger, 9)
    assert back(ledger, 0)  # out of order
    summary = ledger.summary()
    assert summary["unknown"] == 2 and summary["returned"] == 2 and summary["lost"] == 0
    assert summary["delay_ms"]["dl"]["max"] == 19.0


def test_negative_delays_are_counted_and_kept() -> None:
    ledger = Ledger(5.0)
    send(ledger, 0)
    assert back(ledger, 0, ul=-30, edge=9, dl=40)
    summary = ledger.summary()
    assert summary["negative_delays"] == 1 and summary["delay_ms"]["ul"]["min"] == -30.0
    ((entry,),) = ledger.changes()
    assert entry.edge_received_ns == T0 - 30 * MS


@pytest.mark.parametrize("step_ns", [3_600_000_000_000, -60_000_000_000])
def test_a_frame_under_way_while_the_clock_is_stepped_keeps_its_round_trip(step_ns: int) -> None:
    book = Ledger(10.0)
    sent = 1 << 60
    book.sent(1, sent, 10, 5.0)
    back = sent + step_ns + 80_000_000
    assert book.returned(1, sent + 1, sent + 2, back, 10, inference_us=1, engine_us=1, returned_at=5.08)
    ((e,),) = book.changes()
    assert (e.edge_received_ns, e.edge_sent_ns) == (0, 0)
    assert abs(e.ue_received_ns - sent - 80_000_000) < 1000
    summary = book.summary()
    assert summary["over_a_clock_step"] == 1 and summary["negative_delays"] == 0
    assert summary["delay_ms"]["ul"] is None and 79 < summary["delay_ms"]["round_trip"]["mean"] < 81


def test_batches_hold_no_more_than_the_wire_takes() -> None:
    ledger = Ledger(5.0)
    send(ledger, *range(2500))
    assert [len(batch) for batch in ledger.changes()] == [1024, 1024, 452]


def test_the_lost_are_remembered_up_to_a_bound() -> None:
    ledger = Ledger(5.0)
    send(ledger, *range(3000))
    ledger.expire(100.0)
    assert not back(ledger, 0) and back(ledger, 2999)
    assert ledger.counters["lost"] == 2999 and len(ledger._lost) == 1023
