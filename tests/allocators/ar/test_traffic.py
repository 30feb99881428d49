"""How long queues are and how long frames wait."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from controller.allocators.ar.traffic import highest, queue_ms, waiting_ms
from controller.core.measure import Lever
from controller.core.observation import Flow, Frames
from tests.builders import MS, T0, frames, report

FLOW = Flow("f", "ue-1", "ar", 1e6, 5e5, T0 - 1, 0)


def test_a_queue_is_as_old_as_what_is_offered_takes_to_fill_it() -> None:
    reports = [report(T0 + i * 200 * MS, queued=q) for i, q in enumerate((0, 12_500, 25_000))]
    assert queue_ms(reports, [FLOW], "ar", Lever.UL) == pytest.approx([0.0, 100.0, 200.0])
    assert queue_ms(reports, [FLOW], "ar", Lever.DL) == pytest.approx([0.0, 200.0, 400.0])
    assert queue_ms(reports, [FLOW], "other", Lever.UL) == [0.0, 0.0, 0.0]


def test_what_the_mac_carries_counts_where_it_is_more_than_what_is_offered() -> None:
    def with_carried(i: int, carried: int) -> object:
        made = report(T0 + i * 200 * MS, queued=12_500)
        return replace(made, ul=replace(made.ul, lc_bytes=(carried,)))

    reports = [with_carried(0, 0), with_carried(1, 50_000)]  # 2 Mbit/s
    assert queue_ms(reports, [FLOW], "ar", Lever.UL) == pytest.approx([100.0, 50.0])


def test_a_queue_that_nobody_offers_has_no_age() -> None:
    stopped = replace(FLOW, stop_ns=T0)
    assert queue_ms([report(T0, queued=1)], [stopped], "ar", Lever.UL) == [math.inf]


def test_a_frame_waits_in_the_hop_that_it_is_in() -> None:
    end = T0 + 1000 * MS
    times = np.array(
        [
            [T0, T0 + 10 * MS, T0 + 20 * MS, T0 + 30 * MS],  # back
            [T0 + 250 * MS, 0, 0, 0],
            [T0 + 50 * MS, 0, 0, 0],  # overtaken on the way up: lost
            [T0 + 60 * MS, T0 + 70 * MS, T0 + 80 * MS, 0],
            [T0 + 200 * MS, T0 + 300 * MS, 0, 0],
            [T0 + 200 * MS, T0 + 300 * MS, T0 + 350 * MS, 0],
            [T0 + 1 * MS, 0, 0, T0 + 40 * MS],  # back, whatever is not known of it
        ]
    )
    n = np.arange(len(times))
    of = Frames(n * 0, n, *times.T.copy(), np.ones(len(n), np.bool_))
    assert [waiting_ms(of, hop, end) for hop in (Lever.UL, Lever.EDGE, Lever.DL)] == [750.0, 700.0, 920.0]
    unsynchronised = replace(of, synchronised=np.zeros(len(n), np.bool_))
    assert waiting_ms(unsynchronised, Lever.UL, end) == 0.0
    assert waiting_ms(frames(T0, end, (1.0, 1.0, 1.0)), Lever.UL, T0 + 500 * MS) == 0.0


def test_the_highest_demand_is_that_of_a_second() -> None:
    assert highest([], 5) is None
    assert highest([3.0], 5) == 3.0
    assert highest([1.0] * 10 + [9.0] + [1.0] * 10, 5) == pytest.approx(13 / 5)
    assert highest([2.0, 4.0], 5) == 3.0 and highest([2.0, 4.0], 1) == 4.0
