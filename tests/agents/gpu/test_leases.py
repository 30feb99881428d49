from __future__ import annotations

import pytest

from agents.gpu.leases import ClockLeases, TooManyHolders


def test_highest_clock_among_live_leases_wins():
    leases = ClockLeases()
    leases.put("cell-a", 700, 10.0, 0.0)
    leases.put("cell-b", 1200, 5.0, 0.0)
    assert leases.wanted(0.0) == 1200
    assert leases.wanted(5.0) == 700
    assert leases.wanted(10.0) == 0


def test_a_new_lease_of_a_holder_replaces_its_old_one():
    leases = ClockLeases()
    leases.put("a", 1500, 10.0, 0.0)
    before = leases.put("a", 600, 20.0, 1.0)
    assert before is not None and before.mhz == 1500
    assert leases.wanted(1.0) == 600
    assert leases.wanted(15.0) == 600


def test_expire_names_who_ended_and_keeps_the_rest():
    leases = ClockLeases()
    leases.put("a", 1500, 1.0, 0.0)
    leases.put("b", 900, 2.0, 0.0)
    assert leases.next_expiry() == 1.0
    assert leases.expire(0.999) == []
    assert leases.expire(1.0) == ["a"]
    assert leases.next_expiry() == 2.0
    assert leases.expire(5.0) == ["b"]
    assert leases.next_expiry() is None


def test_restore_undoes_a_put():
    leases = ClockLeases()
    before = leases.put("a", 900, 10.0, 0.0)
    leases.restore("a", before)
    assert leases.wanted(0.0) == 0
    leases.put("a", 900, 10.0, 0.0)
    leases.restore("a", leases.put("a", 1500, 20.0, 0.0))
    assert leases.wanted(0.0) == 900
    assert leases.next_expiry() == 10.0


def test_holders_are_bounded_and_ended_leases_make_room():
    leases = ClockLeases(max_holders=2)
    leases.put("a", 900, 1.0, 0.0)
    leases.put("b", 900, 9.0, 0.0)
    leases.put("b", 1000, 9.0, 0.0)
    with pytest.raises(TooManyHolders):
        leases.put("c", 900, 9.0, 0.5)
    leases.put("c", 900, 9.0, 1.0)


def test_drop_tells_whether_there_was_a_lease():
    leases = ClockLeases()
    leases.put("a", 900, 1.0, 0.0)
    assert leases.drop("a") is True
    assert leases.drop("a") is False
    assert leases.drop("unknown") is False
