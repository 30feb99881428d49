"""Which stream of which host reports a flow, and what becomes of the flows of a stream that is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

Stream = tuple[str, int]
"""A host, and the number of its stream."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream ended: ``flows`` were in the middle of it. ``left``: it had flows, and had stopped all."""

    flows: tuple[str, ...]
    left: bool


@dataclass(slots=True)
class Streams:
    """The streams of one cell's hosts and the flows that each has started. Times are monotonic seconds.

    A flow belongs to the stream that started it last. Flows of a stream that is lost go on for
    ``patience_s``, within which their host may come back and start them again.
    """

    patience_s: float
    _flows: dict[str, Stream] = field(default_factory=dict)
    _lost: dict[Stream, float] = field(default_factory=dict)
    _had_flows: set[Stream] = field(default_factory=set)

    @property
    def flows(self) -> tuple[str, ...]:
        """The flows that have started and not ended."""
        return tuple(self._flows)

    def started(self, flow: str, stream: Stream) -> None:
        """``stream`` has started a flow, perhaps one that another stream had before."""
        self._flows[flow] = stream
        self._had_flows.add(stream)

    def stopped(self, flow: str) -> None:
        """A flow has ended; one that never started may."""
        self._flows.pop(flow, None)

    def ended(self, stream: Stream, now: float) -> Ended:
        """A stream is lost."""
        self._lost[stream] = now
        flows = tuple(flow for flow, of in self._flows.items() if of == stream)
        left = stream in self._had_flows and not flows
        self._had_flows.discard(stream)
        return Ended(flows, left)

    def expire(self, now: float) -> list[tuple[str, tuple[str, ...]]]:
        """``(host, flows)`` of the streams whose patience is over; the flows are over too."""
        out = []
        for stream in [s for s, since in self._lost.items() if now - since > self.patience_s]:
            del self._lost[stream]
            flows = tuple(flow for flow, of in self._flows.items() if of == stream)
            for flow in flows:
                del self._flows[flow]
            if flows:
                out.append((stream[0], flows))
        return out
