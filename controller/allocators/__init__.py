"""The services by name, each a package that is loaded when it is asked for.

Beside those of this table are those that other packages bring along, as entry points of the group
``prbandit.services``: the name of the service, and where its :class:`Service` is
(``package.module:SERVICE``).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from controller.allocators.base import Allocator, Service, SliceView
from controller.core.names import nearest
from wire.definitions.extras import is_ours, missing

__all__ = ["Allocator", "Service", "SliceView", "module_of", "names", "service"]

_SERVICES: dict[str, str] = {
    "ar": "controller.allocators.ar",
    "mar": "controller.allocators.mar",
    "urllc": "controller.allocators.urllc",
    "video": "controller.allocators.video",
    "vr": "controller.allocators.vr",
}
GROUP = "prbandit.services"


def names() -> tuple[str, ...]:
    """The services that a slice can carry."""
    return (*_SERVICES, *sorted(e.name for e in entry_points(group=GROUP) if e.name not in _SERVICES))


def module_of(name: str) -> str | None:
    """The module of a service that ships with the controller; None for one that another package brings."""
    return _SERVICES.get(name)


@cache
def service(name: str) -> Service:
    """A service; ValueError, listing those that there are, for a name that is none, and naming what to
    install for what it needs."""
    if name in _SERVICES:
        try:
            found: object = import_module(_SERVICES[name]).SERVICE
        except ImportError as error:
            if is_ours(error):
                raise
            raise ValueError(f"service {name!r}: {missing(error.name, name)}") from error
    else:
        brought = {e.name: e for e in entry_points(group=GROUP)}
        if name not in brought:
            near = nearest(name, names())
            raise ValueError(f"unknown service {name!r}{near}; services: {', '.join(names())}")
        found = brought[name].load()
    if not isinstance(found, Service) or found.name != name:
        raise ValueError(f"service {name!r}: {found!r} is not a Service of that name")
    return found
