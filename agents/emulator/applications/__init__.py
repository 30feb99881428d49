"""The applications of the emulated UEs by name. A module is imported when its application is asked for.

An application of another distribution is found through the entry-point group ``prbandit.applications``, whose
names are the applications' and whose values are their classes (``module:Class``); one of a program's own
through :func:`register`. How to write one: :mod:`agents.emulator.applications.base`.
"""

from __future__ import annotations

from importlib import import_module

from agents.emulator.applications.base import Application
from wire.definitions import plugins

_APPLICATIONS: dict[str, str] = {
    "mar": "agents.emulator.applications.mar:Mar",
    "urllc": "agents.emulator.applications.urllc:Urllc",
    "video": "agents.emulator.applications.video:Video",
    "vr": "agents.emulator.applications.vr:Vr",
}
"""Name -> ``module:Class``."""


def names() -> tuple[str, ...]:
    """The applications there are, by name; none is imported."""
    return tuple(sorted((*_APPLICATIONS, *_brought().found)))


def register(name: str, path: str) -> None:
    """Makes the class at ``path``, a ``module:Class``, known as ``name``; ValueError where it is taken."""
    if _APPLICATIONS.setdefault(name, path) != path:
        raise ValueError(f"application {name!r} is {_APPLICATIONS[name]} already")


def load(name: str) -> type[Application]:
    """The class of an application.

    ValueError for a name that there is not, and for a class of another package that cannot be loaded or is no
    application of this name; ImportError and AttributeError where one of our own or of :func:`register` is
    missing.
    """
    there = _brought()
    if name in _APPLICATIONS:
        module, _, attribute = _APPLICATIONS[name].partition(":")
        found: object = getattr(import_module(module), attribute)
    elif name in there.found or name in there.refused:
        found = there.load(name)
    else:
        raise ValueError(f"application {name!r} is none of: {', '.join(names()) or '(there are none)'}")
    if not (isinstance(found, type) and issubclass(found, Application)):
        raise ValueError(f"application {name!r}: {found!r} is no subclass of Application")
    if found.name != name:
        raise ValueError(f"application {name!r}: {found.__qualname__} calls itself {found.name!r}")
    return found


def _brought() -> plugins.Plugins:
    """Those of other packages."""
    return plugins.brought(plugins.APPLICATIONS, _APPLICATIONS)
