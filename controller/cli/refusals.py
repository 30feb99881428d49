"""All that a command refuses of its configuration and its options, told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar

from controller.config import ConfigError
from wire.security import Kind, address_fault, key_faults, shared_ports

_T = TypeVar("_T")

_ZMQ = ("--ran",)
"""The options that are ZMQ's addresses."""
_PLAIN = ("--metrics", "--server", "SERVER")
"""The options that are a plain HOST:PORT."""


def _kind(option: str) -> Kind:
    return "zmq" if option in _ZMQ else "tcp" if option in _PLAIN else "grpc"


class Refusals:
    """Gathers what cannot be; at the end of the block a :class:`ConfigError` has a line of each."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __enter__(self) -> Refusals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._lines:
            raise ConfigError("\n".join(self._lines))

    def take(self, call: Callable[[], _T]) -> _T | None:
        """What ``call`` gives; None where it refuses."""
        try:
            return call()
        except ConfigError as error:
            self._lines.append(str(error))
            return None

    def connects(self, addresses: Mapping[str, str | None], keys: str | None) -> None:
        """Options that say where somebody else listens; the empty ones are not given."""
        self._addresses(addresses, keys, listens=False)

    def listens(self, addresses: Mapping[str, str | None], keys: str | None) -> None:
        """Options that say where this process listens; no two can be one port."""
        self._addresses(addresses, keys, listens=True)
        given = {option: (address, _kind(option)) for option, address in addresses.items() if address}
        for option, other in shared_ports(given).items():
            self._lines.append(f"{option}: {other} has this port already")

    def _addresses(self, addresses: Mapping[str, str | None], keys: str | None, *, listens: bool) -> None:
        for option, address in addresses.items():
            if not address:
                continue
            fault = address_fault(
                address, _kind(option), secured=bool(keys), missing="--keys", listens=listens
            )
            if fault is not None:
                self._lines.append(f"{option}: {fault}")

    def keys(self, keys: str | None, role: str, cell_id: str | None = None) -> None:
        """The folder of ``--keys``, of which ``role`` and the agent of a cell need their files."""
        if keys:
            self._lines += [f"--keys: {fault}" for fault in key_faults(keys, role, cell_id=cell_id)]
