"""The services by name, each a package that is loaded when it is asked for.

Beside those of this table are those that other packages bring along, as entry points of the group
``prbandit.services``: the name of the service, and where its :class:`Service` is
(``package.module:SERVICE``).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from controller.allocators.base import Allocator, Service, SliceView
from controller.core.names import nearest
from wire.definitions import plugins
from wire.definitions.extras import is_ours, missing

__all__ = ["Allocator", "Service", "SliceView", "brought", "module_of", "names", "service"]

_SERVICES: dict[str, str] = {
    "ar": "controller.allocators.ar",
    "mar": "controller.allocators.mar",
    "urllc": "controller.allocators.urllc",
    "video": "controller.allocators.video",
    "vr": "controller.allocators.vr",
}


def names() -> tuple[str, ...]:
    """The services that a slice can carry: our own, then those that other packages bring along."""
    return (*_SERVICES, *brought().found)


def brought() -> plugins.Plugins:
    """The services of other packages; none is loaded."""
    return plugins.brought(plugins.SERVICES, _SERVICES)


def module_of(name: str) -> str:
    """The module of a service, which is not loaded; KeyError for a name that is none."""
    return _SERVICES.get(name) or brought().found[name].module


@cache
def service(name: str) -> Service:
    """A service; ValueError, listing those that there are, for a name that is none, and naming what to
    install for what it needs; of one of another package, what is wrong with it."""
    if name in _SERVICES:
        try:
            found: object = import_module(_SERVICES[name]).SERVICE
        except ImportError as error:
            if is_ours(error):
                raise
            raise ValueError(f"service {name!r}: {missing(error.name, name)}") from error
        assert isinstance(found, Service)
        return found
    there = brought()
    if name not in there.found and name not in there.refused:
        near = nearest(name, names())
        raise ValueError(f"unknown service {name!r}{near}; services: {', '.join(names())}")
    found = there.load(name)
    if not isinstance(found, Service):
        raise there.error(name, "is no controller.allocators.base.Service")
    if found.name != name:
        raise there.error(name, f"calls itself {found.name!r}")
    return found
