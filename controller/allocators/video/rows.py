"""What users send: their profiles and ratings, as the agents' histories have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from controller.allocators.base import Column, SliceView
from controller.allocators.video.agent import HISTORY, possible
from controller.core.observation import pack, unpack
from wire.definitions import mos, viewing

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PROFILE: Final = (
    Column("ela", "mos"),
    Column("segment", "s"),
    Column("cycles_per_bit", "cycles"),
    Column("lowest_bitrate", "kbit/s"),
    Column("highest_bitrate", "kbit/s"),
    Column("ahead", "1"),
)
RATING: Final = (
    Column("score", "mos"),
    Column("stalled", "s/min"),
    Column("quality", "1"),
    Column("delay", "ms"),
    Column("jitter", "ms"),
    Column("throughput", "Mbit/s"),
    Column("behaviour", "1"),
    Column("environment", "1"),
    Column("speed", "km/h"),
    Column("swipes", "1/min"),
    Column("buffer", "s"),
    Column("prefetched", "1"),
    Column("wasted", "kbit/s"),
    Column("x", "m"),
    Column("y", "m"),
)
_RATING: Final = {column.name: i for i, column in enumerate(RATING)}
STALLED_RANGE: Final = (0.0, 60.0)


@dataclass(frozen=True, slots=True)
class Profile:
    """Of a user: its agreement, seconds of a segment and cycles of transcoding a bit."""

    ela: float
    segment_s: float = viewing.SEGMENT_S
    cycles_per_bit: float = viewing.CYCLES_PER_BIT

    @classmethod
    def of(cls, row: Sequence[float]) -> Profile | None:
        """From a row of the table ``profile``; None for one that cannot be."""
        ela, segment_s, cycles = (float(f"{float(x):.7g}") for x in row[:3])
        possible = mos.SCALE[0] <= ela <= mos.SCALE[1] and 0.05 <= segment_s <= 60.0 and 0.0 <= cycles <= 1e6
        return cls(ela, segment_s, cycles) if possible else None

    def to_state(self) -> list[float]:
        return [self.ela, self.segment_s, self.cycles_per_bit]


def profiles_of(view: SliceView) -> tuple[dict[str, Profile], int]:
    """The latest profile of each user who sent one, and how many rows cannot be."""
    rows = view.samples.get("profile")
    found: dict[str, Profile] = {}
    wrong = 0
    for i, row in zip(rows.flow.tolist(), rows.values.tolist(), strict=True) if rows is not None else ():
        profile = Profile.of(row)
        if profile is None:
            wrong += 1
        else:
            found[view.users[i].flow] = profile
    return found, wrong


def ratings_of(
    view: SliceView, prb_per_kbps: Mapping[str, float], loss: Mapping[str, float]
) -> tuple[dict[str, FloatArray], dict[str, int]]:
    """Rows [n, HISTORY] of each user who rated, in the order of time; and how many cannot be, by why.

    ``prb_per_kbps`` and ``loss`` are those of UEs, from the gNB's reports: the share of blocks that were lost
    is what a UE's application cannot see. ``time_s`` counts from 1970.
    """
    rows = view.samples.get("rating")
    if rows is None or not len(rows):
        return {}, {}
    values = rows.values.astype(np.float64)
    history = np.full((len(rows), len(HISTORY)), np.nan)
    for name in ("score", "stalled", "quality", "throughput", "behaviour", "environment"):
        history[:, HISTORY.index(name)] = values[:, _RATING[name]]
    for name in ("delay", "jitter"):
        history[:, HISTORY.index(name)] = values[:, _RATING[name]] / 1e3
    behaviour = values[:, _RATING["behaviour"]]
    history[:, HISTORY.index("swipes_per_min")] = mos.SWIPES_AT_MOST * (behaviour - mos.FACTOR_RANGE[0])
    history[:, HISTORY.index("time_s")] = rows.time_ns / 1e9
    low, high = STALLED_RANGE
    stalled = history[:, HISTORY.index("stalled")]
    quality = history[:, HISTORY.index("quality")]
    impossible = {
        "score outside 1..5 or context outside 1..2": ~possible(history),
        "stalled or quality that cannot be": ~((stalled >= low) & (stalled <= high + 1e-3))
        | ~((quality >= 0.0) & (quality <= 1.0 + 1e-6)),
    }
    good = ~np.any(list(impossible.values()), axis=0)
    out: dict[str, FloatArray] = {}
    for i, user in enumerate(view.users):
        own = np.flatnonzero((rows.flow == i) & good)
        if len(own):
            own = own[np.argsort(rows.time_ns[own], kind="stable")]
            rated = history[own]
            rated[:, HISTORY.index("prb_per_kbps")] = prb_per_kbps.get(user.ue_id, np.nan)
            rated[:, HISTORY.index("loss")] = loss.get(user.ue_id, 0.0)
            before = out.get(user.flow)
            rated = as_packed(rated)
            out[user.flow] = rated if before is None else np.concatenate((before, rated))
    faults = {why: int(bad.sum()) for why, bad in impossible.items() if bad.any()}
    return out, faults


def buffers_of(view: SliceView) -> dict[str, float]:
    """Seconds of the current video that each user had when it last rated."""
    rows = view.samples.get("rating")
    if rows is None:
        return {}
    buffer = rows.values[:, _RATING["buffer"]]
    known = np.isfinite(buffer) & (buffer >= 0.0)
    return {view.users[int(i)].flow: float(x) for i, x in zip(rows.flow[known], buffer[known], strict=True)}


def pack_rows(rows: FloatArray) -> list[str]:
    """Rows [n, HISTORY] as plain JSON: times whole, all else as 32-bit numbers."""
    return [pack(rows[:, _TIME]), pack(np.delete(rows, _TIME, axis=1).astype(np.float32))]


def unpack_rows(packed: Sequence[str]) -> FloatArray:
    """The inverse of :func:`pack_rows`; ValueError for what is none."""
    times, others = unpack(packed[0]), unpack(packed[1])
    if times.ndim != 1 or others.shape != (len(times), len(HISTORY) - 1):
        raise ValueError(f"packed times {times.shape} and columns {others.shape} that are no history")
    return np.insert(others.astype(np.float64), _TIME, times, axis=1)


def as_packed(rows: FloatArray) -> FloatArray:
    """Rows as they come back from :func:`unpack_rows`: so that a restart goes on with the same numbers."""
    out = rows.astype(np.float32).astype(np.float64)
    out[:, _TIME] = rows[:, _TIME]
    return out


_TIME: Final = HISTORY.index("time_s")
