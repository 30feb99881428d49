"""Who wants which clock and until when: the leases of the edge agent. Pure; time is passed in (seconds)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """A holder's wish for at least ``mhz`` until ``expires`` (seconds, monotonic)."""

    mhz: int
    expires: float


class TooManyHolders(Exception):
    """A GPU has as many holders as the agent keeps leases for."""


class ClockLeases:
    """Leases by GPU and holder. The highest clock among a GPU's live leases wins.

    A lease is live before its end and not at it. A holder has one lease a GPU; a new one replaces it.
    """

    def __init__(self, *, max_holders: int = 64) -> None:
        self._max_holders = max_holders
        self._leases: dict[str, dict[str, Lease]] = {}

    def put(self, gpu: str, holder: str, mhz: int, expires: float, now: float) -> Lease | None:
        """Set a holder's lease and return the one that it replaces, if that was live.

        Leases whose time has come stay for :meth:`expire`, so that nobody misses their end. Raises
        :class:`TooManyHolders` for one more holder than the agent keeps.
        """
        leases = self._leases.setdefault(gpu, {})
        live = sum(lease.expires > now for lease in leases.values())
        if holder not in leases and live >= self._max_holders:
            raise TooManyHolders(f"gpu {gpu} has {live} holders already")
        before = leases.get(holder)
        leases[holder] = Lease(mhz, expires)
        return before if before is None or before.expires > now else None

    def restore(self, gpu: str, holder: str, lease: Lease | None) -> None:
        """Undo a :meth:`put` that the GPU did not follow."""
        if lease is None:
            self.drop(gpu, holder)
        else:
            self._leases[gpu][holder] = lease

    def drop(self, gpu: str, holder: str) -> bool:
        """End a holder's lease; False where it has none."""
        return self._leases.get(gpu, {}).pop(holder, None) is not None

    def clear(self) -> None:
        """End every lease."""
        self._leases.clear()

    def expire(self, now: float) -> list[tuple[str, str]]:
        """End the leases whose time has come and return their (GPU, holder)."""
        ended = [
            (gpu, holder)
            for gpu, leases in self._leases.items()
            for holder, lease in leases.items()
            if lease.expires <= now
        ]
        for gpu, holder in ended:
            del self._leases[gpu][holder]
        return ended

    def wanted(self, gpu: str, now: float) -> int:
        """The highest clock in MHz among the live leases of a GPU, 0 where there is none."""
        return max((x.mhz for x in self._leases.get(gpu, {}).values() if x.expires > now), default=0)

    def next_expiry(self) -> float | None:
        """When the next lease ends (seconds), None without leases."""
        return min((x.expires for leases in self._leases.values() for x in leases.values()), default=None)
