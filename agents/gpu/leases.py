"""Who wants which clock and until when: the leases of one GPU. Pure; time is passed in (seconds)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LEASE_S = 60.0
"""Longest lease of a lock where nothing else is configured (s)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A holder's wish for at least ``mhz`` until ``expires`` (seconds, the keeper's clock)."""

    mhz: int
    expires: float


class TooManyHolders(Exception):
    """A GPU has as many holders as the agent keeps leases for."""


class ClockLeases:
    """Leases of a GPU by holder. The highest clock among the live leases wins.

    A lease is live before its end and not at it. A holder has one lease; a new one replaces it.
    """

    def __init__(self, *, max_holders: int = 64) -> None:
        self._max_holders = max_holders
        self._leases: dict[str, Lease] = {}

    def put(self, holder: str, mhz: int, expires: float, now: float) -> Lease | None:
        """Set a holder's lease and return the one that it replaces, if that was live.

        Leases whose time has come stay for :meth:`expire`, so that nobody misses their end. Raises
        :class:`TooManyHolders` for one more holder than the agent keeps.
        """
        live = sum(lease.expires > now for lease in self._leases.values())
        if holder not in self._leases and live >= self._max_holders:
            raise TooManyHolders(f"the GPU has {live} holders already")
        before = self._leases.get(holder)
        self._leases[holder] = Lease(mhz, expires)
        return before if before is None or before.expires > now else None

    def restore(self, holder: str, lease: Lease | None) -> None:
        """Undo a :meth:`put` that the GPU did not follow."""
        if lease is None:
            self.drop(holder)
        else:
            self._leases[holder] = lease

    def drop(self, holder: str) -> bool:
        """End a holder's lease; False where it has none."""
        return self._leases.pop(holder, None) is not None

    def clear(self) -> None:
        """End every lease."""
        self._leases.clear()

    def expire(self, now: float) -> list[str]:
        """End the leases whose time has come and return their holders."""
        ended = [holder for holder, lease in self._leases.items() if lease.expires <= now]
        for holder in ended:
            del self._leases[holder]
        return ended

    def wanted(self, now: float) -> int:
        """The highest clock in MHz among the live leases, 0 where there is none."""
        return max((x.mhz for x in self._leases.values() if x.expires > now), default=0)

    def next_expiry(self) -> float | None:
        """When the next lease ends (seconds), None without leases."""
        return min((x.expires for x in self._leases.values()), default=None)
