"""The application's side of settings: what is in force for which flow, and until when. No I/O, no clock.

A duplicate is known by the sequence of each of its flows: a part of an earlier SetSettings is one too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from wire import qos_pb2
from wire.definitions.bounds import (
    MAX_REFUSED,
    MAX_SETTINGS_FLOWS,
    MAX_SETTINGS_LEASE_MS,
    check_settings,
)

log = logging.getLogger(__name__)

Settings = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Flow -> name -> values, each in the unit that the flow's service declares; a scalar is a tuple of one."""


def open_settings(message: qos_pb2.SetSettings) -> dict[str, dict[str, tuple[float, ...]]]:
    """The settings of a message, flow -> name -> values.

    Raises:
        ValueError: names the flow, the setting and the value: no flow or more than MAX_SETTINGS_FLOWS, a flow
            or a setting twice, a lease beyond MAX_SETTINGS_LEASE_MS, settings without a lease, and what
            :func:`wire.definitions.bounds.check_settings` refuses.
    """
    if not 1 <= len(message.flows) <= MAX_SETTINGS_FLOWS:
        raise ValueError(f"settings of {len(message.flows)} flows, not of 1 to {MAX_SETTINGS_FLOWS}")
    if message.lease_ms > MAX_SETTINGS_LEASE_MS:
        raise ValueError(f"settings: lease_ms {message.lease_ms} is more than {MAX_SETTINGS_LEASE_MS}")
    opened: dict[str, dict[str, tuple[float, ...]]] = {}
    for of_flow in message.flows:
        place = f"settings of flow {of_flow.flow[:MAX_REFUSED]!r}"
        if of_flow.flow in opened:
            raise ValueError(f"{place}: the flow is there twice")
        if of_flow.settings and not message.lease_ms:
            raise ValueError(f"{place}: there is no lease")
        values = opened[of_flow.flow] = {}
        for setting in of_flow.settings:
            if setting.name in values:
                raise ValueError(f"{place}: {setting.name[:MAX_REFUSED]!r} is there twice")
            values[setting.name] = tuple(setting.values)
    check_settings(opened)
    return opened


@dataclass(frozen=True, slots=True)
class _Answered:
    """What was said last of a flow: on which stream, to which sequence."""

    stream: Hashable
    sequence: int
    time_ns: int
    refused: str


class SettingsState:
    """Applies settings, answers them and ends their leases. Not thread-safe.

    Args:
        apply: puts settings in force; ValueError, and nothing changed, where they cannot be.
        lapsed: takes the flows whose lease has ended; they are back at their defaults once it returns.
        clock_ns: CLOCK_REALTIME ns, for the answers.

    Whatever else these raise is logged and, of ``apply``, answered as a refusal.
    """

    def __init__(
        self,
        apply: Callable[[Settings], None],
        lapsed: Callable[[tuple[str, ...]], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._apply = apply
        self._lapsed = lapsed
        self._clock_ns = clock_ns
        self._leases: dict[str, float] = {}
        self._answered: dict[str, _Answered] = {}

    @property
    def deadline(self) -> float | None:
        """When the next lease ends, monotonic s; None where there is none."""
        return min(self._leases.values(), default=None)

    def take(
        self, stream: Hashable, message: qos_pb2.SetSettings, received: float, now: float
    ) -> qos_pb2.SettingsApplied:
        """Puts the settings of a message in force, once, and begins their lease anew; returns the answer.

        ``received`` and ``now`` are monotonic s: the lease begins when the message was received.
        """
        sequence = message.sequence
        try:
            settings = open_settings(message)
        except ValueError as error:
            return self._answer(sequence, self._clock_ns(), str(error))
        deadline = received + message.lease_ms / 1e3
        if (before := self._duplicate(stream, message, settings)) is not None:
            if not before.refused:
                self._leases.update((flow, deadline) for flow in settings if flow in self._leases)
            return self._answer(sequence, before.time_ns, before.refused)
        refused = self._older(stream, sequence, settings)
        if not refused:
            refused = self._put_in_force(message.lease_ms, settings, deadline, now)
        time_ns = self._clock_ns()
        if refused:
            refused = _shorten(refused)
        for flow in settings:
            self._answered[flow] = _Answered(stream, sequence, time_ns, refused)
        return self._answer(sequence, time_ns, refused)

    def lapse(self, now: float) -> tuple[str, ...]:
        """Ends the leases that are over; returns their flows."""
        over = tuple(flow for flow, deadline in self._leases.items() if deadline <= now)
        self._end(over)
        return over

    def forget(self, flow: str) -> None:
        """A flow has stopped: there is nothing left that could go back to its defaults."""
        self._leases.pop(flow, None)
        self._answered.pop(flow, None)

    def _duplicate(
        self, stream: Hashable, message: qos_pb2.SetSettings, settings: Settings
    ) -> _Answered | None:
        before = None
        for flow in settings:
            before = self._answered.get(flow)
            if before is None or (before.stream, before.sequence) != (stream, message.sequence):
                return None
            # Taken, but lapsed since: it has to be taken anew.
            if message.lease_ms and not before.refused and flow not in self._leases:
                return None
        return before

    def _older(self, stream: Hashable, sequence: int, settings: Settings) -> str:
        for flow in settings:
            before = self._answered.get(flow)
            if before is not None and before.stream == stream and before.sequence > sequence:
                return f"settings of flow {flow!r}: sequence {sequence} comes after {before.sequence}"
        return ""

    def _put_in_force(self, lease_ms: int, settings: Settings, deadline: float, now: float) -> str:
        """Why it was not done, or nothing."""
        if not lease_ms:
            return self._end(tuple(flow for flow in settings if flow in self._leases))
        if deadline <= now:
            return f"settings: their lease of {lease_ms} ms was over before they could be applied"
        try:
            self._apply(settings)
        except ValueError as error:
            return str(error) or "ValueError"
        except Exception as error:
            log.exception("settings of %s could not be applied", ", ".join(settings))
            return f"{type(error).__name__}: {error}"
        self._leases.update(dict.fromkeys(settings, deadline))
        return ""

    def _end(self, flows: tuple[str, ...]) -> str:
        """Ends leases; what went wrong, or nothing."""
        for flow in flows:
            del self._leases[flow]
        try:
            if flows:
                self._lapsed(flows)
        except Exception as error:
            log.exception("%s could not go back to their defaults", ", ".join(flows))
            return f"{type(error).__name__}: {error}"
        return ""

    @staticmethod
    def _answer(sequence: int, time_ns: int, refused: str) -> qos_pb2.SettingsApplied:
        return qos_pb2.SettingsApplied(sequence=sequence, time_ns=time_ns, refused=_shorten(refused))


def _shorten(text: str) -> str:
    """``text`` in at most MAX_REFUSED bytes."""
    return text.encode(errors="replace")[:MAX_REFUSED].decode(errors="ignore")
