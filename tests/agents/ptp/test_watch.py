"""What a host may say of its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from agents.ptp.client import PtpReading
from agents.ptp.watch import NONE, Watch

US, MASTER, OTHER = bytes(7) + b"\x01", bytes(7) + b"\x02", bytes(7) + b"\x03"
SLAVE = PtpReading("SLAVE", US, 250.0, 2000.0, 1, MASTER, 6, 1000, 0, 0)
MASTERING = replace(SLAVE, state="MASTER", grandmaster=US, offset_ns=9.0, path_delay_ns=0.0, ingress_ns=0)


def test_a_port_that_follows_tells_its_offset() -> None:
    got = Watch().update(SLAVE, 0.0)
    assert (got.state, got.offset_ns, got.path_delay_ns, got.reason) == ("SLAVE", 250.0, 2000.0, "")
    assert got.synchronised and got.grandmaster == "000000.0000.000002"


def test_the_distance_of_the_system_clock_is_part_of_the_offset() -> None:
    assert Watch().update(SLAVE, 0.0, system_offset_ns=-1000.0).offset_ns == -750.0
    assert Watch(grandmaster=True).update(MASTERING, 0.0, system_offset_ns=40.0).offset_ns == 40.0


@pytest.mark.parametrize("state", ["LISTENING", "UNCALIBRATED", "FAULTY", "PASSIVE"])
def test_any_other_state_is_told_as_it_is_and_vouches_for_nothing(state: str) -> None:
    got = Watch().update(replace(SLAVE, state=state), 0.0)
    assert got.state == state and not got.synchronised


def test_a_port_without_a_sync_for_long_has_no_offset_any_more() -> None:
    watch = Watch(silence_s=3.0)
    assert watch.update(SLAVE, 10.0).synchronised
    assert watch.update(SLAVE, 12.9).synchronised
    got = watch.update(SLAVE, 13.0)
    assert (got.state, got.offset_ns, got.path_delay_ns) == (NONE, 0.0, 0.0)
    assert got.reason == "no Sync from the master for 3.0 s"
    assert watch.update(replace(SLAVE, ingress_ns=2000), 13.5).synchronised


@pytest.mark.parametrize(
    ("log_sync_interval", "patience_s"), [(2, 12.0), (4, 48.0), (0, 3.0), (-3, 3.0), (-128, 3.0), (127, 3.0)]
)
def test_three_intervals_of_the_port_may_pass_without_a_sync(
    log_sync_interval: int, patience_s: float
) -> None:
    watch = Watch(silence_s=3.0)
    reading = replace(SLAVE, log_sync_interval=log_sync_interval)
    assert watch.update(reading, 0.0).synchronised
    assert watch.update(reading, patience_s - 0.1).synchronised
    assert watch.update(reading, patience_s).state == NONE


def poll(watch: Watch, seconds: Iterable[float], ingress_s: Callable[[float], float]) -> list[bool]:
    """Whether the port (of interval 1/8 s) is synchronised at these seconds."""
    reading = replace(SLAVE, log_sync_interval=-3)
    return [
        watch.update(replace(reading, ingress_ns=1 + int(ingress_s(t))), float(t)).synchronised
        for t in seconds
    ]


def test_a_master_with_fewer_syncs_than_the_port_is_configured_for_is_followed() -> None:
    watch = Watch(silence_s=3.0)
    told = poll(watch, range(60), lambda t: t // 4 * 4)
    # Until the third Sync nothing is known of the interval.
    assert told[8:] == [True] * 52
    assert poll(watch, range(60, 80), lambda t: 56) == [True] * 8 + [False] * 12


def test_an_outage_or_a_sync_that_got_lost_is_no_interval() -> None:
    watch = Watch(silence_s=3.0)
    assert all(poll(watch, range(5), lambda t: t))
    poll(watch, range(5, 30), lambda t: 4)
    # It is back, and dead again after one Sync.
    assert poll(watch, range(30, 40), lambda t: 30) == [True] * 3 + [False] * 7


def test_an_outage_after_the_first_sync_is_no_interval() -> None:
    watch = Watch(silence_s=3.0)
    poll(watch, range(10), lambda t: 0)
    assert poll(watch, range(10, 15), lambda t: 10) == [True] * 3 + [False] * 2


def test_readings_that_are_far_apart_are_no_interval_of_syncs() -> None:
    watch = Watch(silence_s=3.0)
    assert all(poll(watch, range(0, 60, 10), lambda t: t))
    assert poll(watch, [60, 63], lambda t: 60) == [True, False]


def test_a_master_with_next_to_no_syncs_is_not_waited_for_for_ever() -> None:
    watch = Watch(silence_s=3.0)
    poll(watch, range(300), lambda t: t // 100 * 100)
    assert poll(watch, [300, 347, 348], lambda t: 300) == [True, True, False]


def test_a_port_that_never_had_a_sync_has_no_offset() -> None:
    assert Watch().update(replace(SLAVE, ingress_ns=0), 0.0).state == NONE


def test_a_host_that_lost_its_master_is_not_a_grandmaster_unless_it_is_meant_to_be() -> None:
    got = Watch().update(MASTERING, 0.0)
    assert got.state == NONE and "its own grandmaster" in got.reason
    got = Watch(grandmaster=True).update(MASTERING, 0.0)
    assert (got.state, got.offset_ns) == ("MASTER", 0.0) and got.synchronised


def test_a_boundary_clock_is_master_of_others_and_follows_one() -> None:
    assert Watch().update(replace(MASTERING, grandmaster=MASTER), 0.0).synchronised


@pytest.mark.parametrize("state", ["LISTENING", "FAULTY", "PASSIVE"])
def test_a_master_that_was_lost_is_not_told_any_more(state: str) -> None:
    """ptp4l says LISTENING after the death of its master, and goes on naming it."""
    assert Watch().update(replace(SLAVE, state=state), 0.0).grandmaster == ""
    assert Watch().update(replace(SLAVE, state="UNCALIBRATED"), 0.0).grandmaster == "000000.0000.000002"


def test_a_host_is_told_as_the_grandmaster_where_it_is_meant_to_be() -> None:
    assert Watch(grandmaster=True).update(MASTERING, 0.0).grandmaster == "000000.0000.000001"
    assert Watch().update(MASTERING, 0.0).grandmaster == ""
    assert Watch().update(replace(MASTERING, grandmaster=MASTER), 0.0).grandmaster == "000000.0000.000002"


def test_only_the_grandmasters_that_are_named_are_followed() -> None:
    watch = Watch(follow=["000000.0000.000002"])
    assert watch.update(SLAVE, 0.0).synchronised
    got = watch.update(replace(SLAVE, grandmaster=OTHER), 1.0)
    assert got.state == NONE
    assert got.reason == "the grandmaster is 000000.0000.000003, not 000000.0000.000002"


def test_changes_of_the_grandmaster_are_counted() -> None:
    watch = Watch()
    for second, grandmaster in enumerate((MASTER, MASTER, OTHER, MASTER, MASTER)):
        watch.update(replace(SLAVE, grandmaster=grandmaster, ingress_ns=second + 1), float(second))
    assert watch.grandmaster_changes == 2


@pytest.mark.parametrize("silence_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_silence_that_is_none_is_refused(silence_s: float) -> None:
    with pytest.raises(ValueError, match=f"--silence: {silence_s} s"):
        Watch(silence_s=silence_s)
