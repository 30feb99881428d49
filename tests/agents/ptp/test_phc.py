"""The distance of the system clock from the hardware clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agents.ptp.phc import Phc, PhcError, compare

DEVICES = sorted(Path("/dev").glob("ptp[0-9]*"))


def test_the_offset_is_that_of_the_narrowest_pair_less_tai() -> None:
    """Each reading takes 10 ns, the third one of the hardware 4 ns, the others 1000 ns."""
    now = [0]
    hardware_reads = [0]

    def system() -> int:
        now[0] += 10
        return now[0]

    def phc() -> int:
        hardware_reads[0] += 1
        took = 4 if hardware_reads[0] == 3 else 1000
        now[0] += took // 2
        reading = now[0] + 37_000_000_000 - 500
        # Where reading takes long, it is off by half of that.
        reading += 0 if took == 4 else 400
        now[0] += took // 2
        return reading

    got = compare(phc, 37, system=system, monotonic=lambda: now[0])
    assert got.offset_ns == pytest.approx(500, abs=10)
    assert got.uncertainty_ns < 20
    assert hardware_reads[0] == 5


def test_a_real_clock_compared_with_itself_is_within_its_uncertainty() -> None:
    got = compare(time.time_ns, 0)
    assert abs(got.offset_ns) <= got.uncertainty_ns + 1


@pytest.mark.parametrize("name", ["nowhere", "text"])
def test_what_is_no_hardware_clock_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").write_text("not a clock")
    phc = Phc(tmp_path / name)
    for _ in range(2):
        with pytest.raises(PhcError, match=f"{name}: the PHC cannot be read"):
            phc.compare(37)
    phc.close()


@pytest.mark.skipif(not DEVICES, reason="no PTP hardware clock (/dev/ptp*) on this machine")
def test_a_real_hardware_clock_is_read() -> None:
    phc = Phc(DEVICES[0])
    assert phc.compare(0).uncertainty_ns > 0
    phc.close()
