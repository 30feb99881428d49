"""Allocators by service; :func:`make` is the only way to one."""

from __future__ import annotations

from controller.allocators.ar import ArAllocator
from controller.allocators.base import Allocator, SliceView
from controller.core.spec import LoopSpec, SliceSpec

_SERVICES: dict[str, type[ArAllocator]] = {ArAllocator.service: ArAllocator}


def services() -> tuple[str, ...]:
    """The services that a slice can carry."""
    return tuple(_SERVICES)


def make(spec: SliceSpec, loop: LoopSpec) -> Allocator:
    """The allocator of a slice; ValueError for a service or policy that does not exist."""
    try:
        service = _SERVICES[spec.service]
    except KeyError:
        raise ValueError(
            f"slice {spec.slice}: unknown service {spec.service!r}; services: {', '.join(_SERVICES)}"
        ) from None
    return service(spec, loop)


__all__ = ["Allocator", "SliceView", "make", "services"]
