"""The player of short videos of one user, as :mod:`wire.definitions.viewing` describes it, in ns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agents.emulator.layout import NEVER
from wire.definitions.viewing import AHEAD


@dataclass(frozen=True, slots=True)
class Segment:
    """Segment ``number`` of a ``video``, both counted from 0, its size in bytes and its quality Q."""

    video: int
    number: int
    size: int
    quality: float


class Player:
    """Plays from ``start_ns`` on, with nothing buffered.

    ``swipe_ns`` gives the time of swipe k: from then on the user watches video k + 1; NEVER where there is
    none. A segment that is there counts as buffered until it has been played to its end.

    Totals since the start: ``stalled_ns``, in which nothing was played; ``quality_ns``, the integral of Q
    over the time, 0 while nothing is played; ``wasted_bytes``, fetched and thrown away at swipes, of a
    segment under playback the part that was not played.
    """

    def __init__(self, segment_ns: int, swipe_ns: Callable[[int], int], start_ns: int) -> None:
        self._segment_ns, self._swipe_ns = segment_ns, swipe_ns
        self.now_ns = start_ns
        self.video = 0
        while swipe_ns(self.video) <= start_ns:
            self.video += 1
        self._playing: Segment | None = None
        self._played_ns = 0
        self._ahead: deque[Segment] = deque()
        self._next = 0
        self._prefetched: dict[int, Segment] = {}
        self.stalled_ns = 0
        self.quality_ns = 0.0
        self.wasted_bytes = 0.0

    @property
    def buffered_ns(self) -> int:
        """Of the current video."""
        playing = self._segment_ns - self._played_ns if self._playing else 0
        return len(self._ahead) * self._segment_ns + playing

    @property
    def prefetched(self) -> int:
        """First segments of next videos that are there."""
        return len(self._prefetched)

    @property
    def next_ns(self) -> int:
        """When something changes by itself: the end of a segment or a swipe."""
        return min(self._swipe_ns(self.video), self._end_ns)

    @property
    def _end_ns(self) -> int:
        return self.now_ns + self._segment_ns - self._played_ns if self._playing else NEVER

    def wanted(self, prefetch: int) -> tuple[int, int] | None:
        """Video and number of the segment to fetch now, while none is under way; None: no more for now."""
        if not self._ahead:
            return self.video, self._next
        for video in range(self.video + 1, self.video + 1 + prefetch):
            if video not in self._prefetched:
                return video, 0
        return (self.video, self._next) if len(self._ahead) < AHEAD else None

    def advance(self, until_ns: int) -> None:
        """Plays until a time, swipes then included."""
        while True:
            swipe_ns, end_ns = self._swipe_ns(self.video), self._end_ns
            time_ns = min(swipe_ns, end_ns, until_ns)
            passed_ns = time_ns - self.now_ns
            if self._playing:
                self.quality_ns += self._playing.quality * passed_ns
                self._played_ns += passed_ns
            else:
                self.stalled_ns += passed_ns
            self.now_ns = time_ns
            if swipe_ns == time_ns:
                self._swipe()
            elif end_ns == time_ns:
                self._play()
            else:
                return

    def receive(self, segment: Segment) -> None:
        """A segment is there, now; one of a video that the user has left is thrown away."""
        if segment.video < self.video:
            self.wasted_bytes += segment.size
        elif segment.video > self.video:
            self._prefetched[segment.video] = segment
        else:
            self._ahead.append(segment)
            self._next = segment.number + 1
            if self._playing is None:
                self._play()

    def _swipe(self) -> None:
        if self._playing:
            left = (self._segment_ns - self._played_ns) / self._segment_ns
            self.wasted_bytes += left * self._playing.size
        self.wasted_bytes += sum(s.size for s in self._ahead)
        self._ahead.clear()
        self.video += 1
        self._next = 0
        first = self._prefetched.pop(self.video, None)
        if first is not None:
            self._ahead.append(first)
            self._next = 1
        self._play()

    def _play(self) -> None:
        self._playing = self._ahead.popleft() if self._ahead else None
        self._played_ns = 0
