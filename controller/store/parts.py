"""The parts of a run: from each start with another configuration, other versions or another seed on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

_ADDRESS = re.compile(r"links\.\w+\.address: ")
_LONGEST = 60
"""Characters of a value in a text of changes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run. ``config`` is the resolved configuration (YAML text), ``about`` its ``seed``,
    ``versions``, ``host`` and, where there is one, ``meta``; ``time_ns`` is when it began."""

    number: int
    time_ns: int
    config: str
    about: Mapping[str, Any]

    def same(self, config: str, about: Mapping[str, Any]) -> bool:
        """Whether a start with these goes on with the part: on another host it does."""
        return self.config == config and all(
            self.about.get(k) == about.get(k) for k in ("seed", "versions", "meta")
        )

    def changes(self, before: Part) -> list[str]:
        """What is otherwise than in the part before, a line each: ``control.seed: 0 -> 7``; the links'
        addresses, which ``prbandit up`` chooses each time, in one."""
        lines = differences(before.to_dict(), self.to_dict())
        links = [line for line in lines if _ADDRESS.match(line)]
        others = [line for line in lines if line not in links]
        return [*others, *([f"links: {len(links)} addresses"] if len(links) > 1 else links)]

    def to_dict(self) -> dict[str, Any]:
        """What the part consists of, without the host."""
        config = _loaded(self.config)
        about = {k: self.about[k] for k in ("seed", "versions", "meta") if self.about.get(k) is not None}
        return {**about, **(config if isinstance(config, Mapping) else {"config": config})}


@lru_cache(maxsize=16)
def _loaded(config: str) -> Any:
    """Of a run with many parts every one is told apart from the one before whenever another begins."""
    try:
        return yaml.safe_load(config)
    except yaml.YAMLError:
        return config


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is otherwise in ``after`` than in ``before``, a line each: ``control.seed: 0 -> 7``."""
    return [*_changed(_flat(before), _flat(after))]


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves by their dotted place; entries of a list that have an id go by it."""
    if isinstance(value, Mapping) and value:
        inner = list(value.items())
    elif isinstance(value, list) and value and all(isinstance(v, Mapping) and "id" in v for v in value):
        inner = [(v["id"], v) for v in value]
    else:
        return {place: value}
    out: dict[str, Any] = {}
    for key, v in inner:
        out |= _flat(v, f"{place}.{key}" if place else str(key))
    return out


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for place in dict.fromkeys((*before, *after)):
        if before.get(place) != after.get(place) or (place in before) != (place in after):
            was, now = (_text(of[place]) if place in of else "nothing" for of in (before, after))
            yield f"{place}: {was} -> {now}"


def _text(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
