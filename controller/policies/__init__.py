"""Policies that learn the actions of one hop, made by name.

Beside those of this package are those that other packages bring along, as entry points of the group
``prbandit.policies``: the name of the policy, and where its class is (``package.module:Class``). One is
loaded when it is asked for.

>>> make("mucb1", [10, 30, 50]).pull()
30
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from controller.core.names import nearest
from controller.policies.aimd import Aimd
from controller.policies.base import NOT_PULLED, UNKNOWN, Context, Explanation, Feedback, Policy
from controller.policies.headroom import Headroom
from controller.policies.isotonic_ts import IsotonicTs
from controller.policies.kl_ucb import KlUcb
from controller.policies.monotone_threshold import MonotoneThreshold
from controller.policies.mucb1 import Mucb1
from controller.policies.static import Static
from controller.policies.ucb1 import Ucb1
from wire.definitions import plugins

__all__ = [
    "DEFAULT",
    "NOT_PULLED",
    "UNKNOWN",
    "Context",
    "Explanation",
    "Feedback",
    "Policy",
    "about",
    "brought",
    "index_text",
    "is_contextual",
    "is_per_state",
    "make",
    "names",
    "option_names",
    "reasons",
    "resolved",
    "restore",
]

_POLICIES: dict[str, type[Policy]] = {
    p.name: p for p in (Static, Aimd, Ucb1, Mucb1, Headroom, KlUcb, IsotonicTs, MonotoneThreshold)
}
DEFAULT = Headroom.name
"""The policy that ``default`` names."""


def names() -> tuple[str, ...]:
    """The names that :func:`make` knows: our own, then those that other packages bring along.

    >>> names()[:5]
    ('static', 'aimd', 'ucb1', 'mucb1', 'headroom')
    """
    return (*_POLICIES, *brought().found)


def brought() -> plugins.Plugins:
    """The policies of other packages; none is loaded."""
    return plugins.brought(plugins.POLICIES, (*_POLICIES, "default"))


def resolved(name: str) -> str:
    """The policy that a name means: ``default`` is :data:`DEFAULT`, every other name its own.

    ValueError for an unknown name.
    """
    return _class(name).name


def is_per_state(name: str) -> bool:
    """Whether a policy wants an instance for each hop state; otherwise there is one for each hop.

    ValueError for an unknown name.
    """
    return _class(name).per_state


def is_contextual(name: str) -> bool:
    """Whether a policy looks at more than QoS bits. ValueError for an unknown name."""
    return _class(name).contextual


def about(name: str) -> str:
    """What a policy says of itself. ValueError for an unknown name."""
    return _class(name).__doc__ or ""


def index_text(name: str) -> str:
    """What a policy's index of an action is; "" where it has none. ValueError for an unknown name."""
    return _class(name).index_text


def reasons(name: str) -> Mapping[str, str]:
    """What each reason of a policy says of the action that it chose. ValueError for an unknown name."""
    return _class(name).reasons


def option_names(name: str) -> tuple[str, ...]:
    """The options that a policy has. ValueError for an unknown name."""
    return tuple(_class(name).option_names)


def make(name: str, actions: Sequence[int], /, **options: Any) -> Policy:
    """A new policy over ``actions`` (ascending).

    ValueError, with its name, for an unknown policy or option, a value that an option cannot take, actions
    that are none or not ascending, and whatever a policy of another package raises for them.
    """
    policy = _class(name)
    unknown = sorted(set(options) - set(policy.option_names))
    if unknown:
        known = ", ".join(policy.option_names) or "none"
        raise ValueError(f"policy {name} has no option {', '.join(map(repr, unknown))}; its options: {known}")
    try:
        return policy(actions, **options)
    except ValueError:
        raise
    except Exception as error:
        if name in _POLICIES:
            raise
        raise ValueError(f"policy {name}: cannot be made: {type(error).__name__}: {error}") from error


def restore(state: Mapping[str, Any]) -> Policy:
    """The policy whose ``to_state`` gave ``state``. ValueError that names what does not fit."""
    if "name" not in state:
        raise ValueError("state of a policy: 'name' is missing")
    return _class(state["name"]).from_state(state)


def _class(name: str) -> type[Policy]:
    try:
        return _POLICIES[DEFAULT if name == "default" else name]
    except (KeyError, TypeError):
        if isinstance(name, str) and (policy := _brought_class(name)) is not None:
            return policy
        known = names()
        raise ValueError(
            f"unknown policy {name!r}{nearest(name, known)}; policies: {', '.join(known)}"
        ) from None


@cache
def _brought_class(name: str) -> type[Policy] | None:
    """The class of a policy of another package; None where nobody brings it along."""
    there = brought()
    if name not in there.found and name not in there.refused:
        return None
    found = there.load(name)
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise there.error(name, "is no subclass of controller.policies.Policy")
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise there.error(name, f"lacks {lacking} of controller.policies.Policy")
    for attribute, kind in (("name", str), ("per_state", bool)):
        if not isinstance(getattr(found, attribute, None), kind):
            raise there.error(name, f"has no {attribute} ({kind.__name__}) of its own")
    if found.name != name:
        raise there.error(name, f"calls itself {found.name!r}")
    return found
