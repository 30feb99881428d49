"""The book of one flow's frames: when each was sent and came back, and what never did. No I/O, no clock."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wire.definitions.bounds import MAX_FRAMES

CLOCK_STEP_NS = 50_000_000
"""By so much CLOCK_REALTIME and the monotonic clock differ over a frame's round trip only after a step."""


@dataclass(slots=True)
class Entry:
    """One frame. Times are CLOCK_REALTIME ns, 0 where not known; ``sent_at`` is monotonic seconds."""

    sequence: int
    sent_at: float
    ue_sent_ns: int
    edge_received_ns: int = 0
    edge_sent_ns: int = 0
    ue_received_ns: int = 0


class Ledger:
    """Frames of one flow.

    A frame is open until it comes back, the server says that it will not, or it is ``timeout_s`` old; then it
    is lost. One that comes back after that is no longer lost but late: its times are reported all the same.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._open: dict[int, Entry] = {}
        self._lost: dict[int, Entry] = {}
        self._changed: dict[int, Entry] = {}
        self.counters: Counter[str] = Counter()
        self.up_bytes = 0
        self.down_bytes = 0
        self._legs = {name: array("f") for name in ("ul", "edge", "dl", "round_trip")}
        self._inference_us = array("f")
        self._engine_us = array("f")

    @property
    def in_flight(self) -> int:
        """Frames that may still come back."""
        return len(self._open)

    @property
    def round_trips_ms(self) -> list[float]:
        """Of every frame that has come back, in the order of their return."""
        return self._legs["round_trip"].tolist()

    def sent(self, sequence: int, ue_sent_ns: int, size: int, now: float) -> None:
        """A frame of ``size`` bytes goes out."""
        entry = Entry(sequence, now, ue_sent_ns)
        self._open[sequence] = self._changed[sequence] = entry
        self.counters["sent"] += 1
        self.up_bytes += size

    def arrived(self, sequence: int, edge_received_ns: int) -> None:
        """The edge has a frame that is not back yet."""
        entry = self._open.get(sequence)
        if entry is not None:
            entry.edge_received_ns = edge_received_ns
            self._changed[sequence] = entry

    def returned(
        self,
        sequence: int,
        edge_received_ns: int,
        edge_sent_ns: int,
        ue_received_ns: int,
        size: int,
        *,
        inference_us: float,
        engine_us: float,
        returned_at: float | None = None,
    ) -> bool:
        """A frame came back as ``size`` bytes. False for one that was never sent or is back already.

        ``returned_at`` is monotonic seconds. Where CLOCK_REALTIME was stepped while the frame was under way,
        its round trip is that of the monotonic clock, and its hops are not known.
        """
        entry = self._open.pop(sequence, None)
        if entry is None:
            entry = self._lost.pop(sequence, None)
            if entry is None:
                self.counters["unknown"] += 1
                return False
            self.counters["lost"] -= 1
            self.counters["late"] += 1
        stepped = False
        if returned_at is not None:
            elapsed_ns = round((returned_at - entry.sent_at) * 1e9)
            stepped = abs(ue_received_ns - entry.ue_sent_ns - elapsed_ns) > CLOCK_STEP_NS
            if stepped:
                self.counters["over_a_clock_step"] += 1
                edge_received_ns = edge_sent_ns = 0
                ue_received_ns = entry.ue_sent_ns + elapsed_ns
        entry.edge_received_ns = edge_received_ns
        entry.edge_sent_ns = edge_sent_ns
        entry.ue_received_ns = ue_received_ns
        self._changed[sequence] = entry
        self.counters["returned"] += 1
        self.down_bytes += size
        times = (entry.ue_sent_ns, edge_received_ns, edge_sent_ns, ue_received_ns)
        delays = {
            name: end - start
            for name, start, end in zip(("ul", "edge", "dl"), times, times[1:], strict=False)
            if not stepped
        }
        delays["round_trip"] = ue_received_ns - entry.ue_sent_ns
        if min(delays.values()) < 0:
            self.counters["negative_delays"] += 1
        for name, delay in delays.items():
            self._legs[name].append(delay / 1e6)
        self._inference_us.append(inference_us)
        self._engine_us.append(engine_us)
        return True

    def failed(self, sequence: int, why: str) -> None:
        """The server said that a frame will not come back; ``why`` is the counter."""
        entry = self._open.pop(sequence, None)
        if entry is not None:
            self.counters[why] += 1
            self._lose(entry)

    def expire(self, now: float) -> list[int]:
        """Sequences that are lost from now on."""
        old = []
        for entry in self._open.values():
            if now - entry.sent_at < self._timeout_s:
                break
            old.append(entry)
        for entry in old:
            del self._open[entry.sequence]
            self._lose(entry)
        return [entry.sequence for entry in old]

    def _lose(self, entry: Entry) -> None:
        self.counters["lost"] += 1
        self._lost[entry.sequence] = entry
        # A frame that comes back after a thousand others were lost is not waited for.
        if len(self._lost) > MAX_FRAMES:
            del self._lost[next(iter(self._lost))]

    def changes(self) -> list[list[Entry]]:
        """What is new since the last call, in batches for the controller: frames that were sent, and frames
        that came back."""
        entries = sorted(self._changed.values(), key=lambda e: e.sequence)
        self._changed = {}
        return [entries[i : i + MAX_FRAMES] for i in range(0, len(entries), MAX_FRAMES)]

    def summary(self) -> dict[str, Any]:
        """Counts, and delays in ms. Frames that are still open count as lost."""
        counts = {
            name: self.counters[name]
            for name in ("sent", "returned", "lost", "late", "dropped_by_server", "refused_by_server")
        }
        counts["lost"] += len(self._open)
        return {
            **counts,
            "unknown": self.counters["unknown"],
            "negative_delays": self.counters["negative_delays"],
            "over_a_clock_step": self.counters["over_a_clock_step"],
            "delay_ms": {name: _statistics(values) for name, values in self._legs.items()},
            "inference_ms": _statistics(array("f", (us / 1e3 for us in self._inference_us))),
            "engine_ms": _statistics(array("f", (us / 1e3 for us in self._engine_us))),
        }


def _statistics(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, minimum, median, 90th percentile and maximum; None without a value."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    figures = {
        "mean": sum(ordered) / len(ordered),
        "min": ordered[0],
        "p50": ordered[round(0.5 * last)],
        "p90": ordered[round(0.9 * last)],
        "max": ordered[-1],
    }
    return {name: round(value, 3) for name, value in figures.items()}
