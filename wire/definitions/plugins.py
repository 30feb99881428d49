"""What other distributions bring along by entry points: policies, services and applications.

They are found in what is installed, as imports are, and only when a name is asked for that is none of our
own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

POLICIES, SERVICES, APPLICATIONS = "prbandit.policies", "prbandit.services", "prbandit.applications"
GROUPS = (POLICIES, SERVICES, APPLICATIONS)


class PluginError(ValueError):
    """A plug-in that cannot be used; the text names it, its distribution, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plug-ins of one group.

    ``found`` are by name, ascending; ``refused`` says of a name why nobody may bring it along. ``kind`` is
    the word for one of them.
    """

    kind: str
    found: Mapping[str, EntryPoint]
    refused: Mapping[str, str]

    def load(self, name: str) -> object:
        """What an entry point names. :class:`PluginError` for a name that is refused, and for whatever is
        raised where its module is loaded; KeyError for a name that nobody brings along."""
        if name in self.refused:
            raise PluginError(f"{self.kind} {name!r}: {self.refused[name]}")
        entry = self.found[name]
        try:
            return entry.load()
        except (Exception, SystemExit) as error:
            raise self.error(name, f"cannot be loaded: {type(error).__name__}: {error}") from error

    def error(self, name: str, why: str) -> PluginError:
        """The error of a plug-in that was found."""
        entry = self.found[name]
        return PluginError(f"{self.kind} {name!r} of {package(entry)} ({entry.value}) {why}")


def brought(group: str, own: Collection[str]) -> Plugins:
    """The plug-ins of a group; ``own`` are the names that are taken. Nothing is loaded."""
    kind = _KINDS[group]
    by_name: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        by_name.setdefault(entry.name, []).append(entry)
    found, refused = {}, {}
    for name, entries in by_name.items():
        whose = " and ".join(dict.fromkeys(package(entry) for entry in entries))
        if name in own:
            refused[name] = f"{whose} brings a {kind} of this name, which is PRBandit's own: rename it there"
        elif len({entry.value for entry in entries}) > 1:
            places = ", ".join(f"{package(entry)} ({entry.value})" for entry in entries)
            refused[name] = f"is brought along more than once, by {places}: uninstall all but one"
        else:
            found[name] = entries[0]
    return Plugins(kind, found, refused)


def package(entry: EntryPoint) -> str:
    """Name and version of the distribution that an entry point is of."""
    return "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def places() -> list[str]:
    """The packages (folders) and modules (files) that what is brought along is in; none is loaded."""
    tops = {entry.module.partition(".")[0] for group in GROUPS for entry in entry_points(group=group)}
    specs = [spec for top in sorted(tops) if (spec := find_spec(top)) is not None]
    return [
        place
        for spec in specs
        for place in (spec.submodule_search_locations or ([spec.origin] if spec.origin else []))
    ]


def versions() -> dict[str, str]:
    """The distributions that bring anything along, with their versions."""
    entries = (entry for group in GROUPS for entry in entry_points(group=group))
    return {e.dist.name: e.dist.version for e in sorted(entries) if e.dist is not None}


_KINDS = {POLICIES: "policy", SERVICES: "service", APPLICATIONS: "application"}
