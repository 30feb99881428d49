from __future__ import annotations

import numpy as np
import pytest

from agents.gnb_mock.pacing import CellClock, Pacer

MS = 1_000_000
SLOT = 500_000


def test_the_slots_due_follow_the_clock():
    pacer = Pacer(1000, SLOT, tolerance_ns=8 * MS)
    assert pacer.due(1000, 0) == (0, 0)
    assert pacer.due(1000 + SLOT - 1, 0) == (0, 0)
    assert pacer.due(1000 + 10 * SLOT, 0) == (10, 0)
    assert pacer.due(1000, 10) == (10, 0), "never back"
    assert (pacer.overruns, pacer.resyncs) == (0, 0)


def test_a_late_run_catches_up_and_is_counted():
    pacer = Pacer(0, SLOT, tolerance_ns=8 * MS)
    assert pacer.due(50 * MS, 0) == (100, 0)
    assert (pacer.overruns, pacer.resyncs, pacer.worst_late_ns) == (1, 0, 50 * MS)
    assert pacer.due(54 * MS, 100) == (108, 0)
    assert pacer.overruns == 1


def test_a_run_that_is_a_second_late_goes_on_where_it_stood():
    pacer = Pacer(0, SLOT, tolerance_ns=8 * MS)
    assert pacer.due(1_002 * MS, 2) == (2, 1_001 * MS)
    assert pacer.resyncs == 1
    assert pacer.due(1_004 * MS, 2) == (6, 0)


def test_a_frame_on_its_way_during_a_pause_keeps_the_time_at_which_it_was_sent():
    clock = CellClock()
    assert clock.real_ns(100) == 100
    clock.skip(1000, 50)
    clock.skip(2000, 7)
    assert [clock.real_ns(t) for t in (999, 1000, 1999, 2000)] == [999, 1050, 2049, 2057]
    column = np.array([0, 999, 1000, 1999, 2000], np.int64)
    assert clock.real_column(column).tolist() == [0, 999, 1050, 2049, 2057]
    assert clock.shifts == 2


def test_an_unknown_time_stays_unknown():
    clock = CellClock()
    clock.skip(0, 50)
    assert clock.real_ns(0) == 0
    assert clock.real_column(np.zeros(2, np.int64)).tolist() == [0, 0]


def test_skips_come_in_order():
    clock = CellClock()
    clock.skip(1000, 50)
    with pytest.raises(ValueError, match="999"):
        clock.skip(999, 1)
