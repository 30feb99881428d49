"""What a host may say of its clock."""

from __future__ import annotations

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


def test_a_port_that_never_had_a_sync_has_no_offset() -> None:
    assert Watch().update(replace(SLAVE, ingress_ns=0), 0.0).state == NONE


def test_a_host_that_lost_its_master_is_not_a_grandmaster_unless_it_is_meant_to_be() -> None:
    got = Watch().update(MASTERING, 0.0)
    assert got.state == NONE and "its own grandmaster" in got.reason
    got = Watch(grandmaster=True).update(MASTERING, 0.0)
    assert (got.state, got.offset_ns) == ("MASTER", 0.0) and got.synchronised


def test_a_boundary_clock_is_master_of_others_and_follows_one() -> None:
    assert Watch().update(replace(MASTERING, grandmaster=MASTER), 0.0).synchronised


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


def test_a_silence_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="silence 0"):
        Watch(silence_s=0)
