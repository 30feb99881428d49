"""Options of an application's users, as a scenario says them, as the fields of a dataclass."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def parse(of: type[T], application: str, options: Mapping[str, Any]) -> T:
    """An instance of the dataclass ``of``, whose fields are text, numbers or tuples of numbers.

    A tuple has as many numbers as its default. ValueError, naming the option, for one that there is not and
    for a value of another type.
    """
    known: dict[str, Field[Any]] = {f.name: f for f in fields(of)}  # type: ignore[arg-type]
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"{application} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return of(**{name: _typed(known[name], value) for name, value in options.items()})


def check_range(options: Any, bounds: Mapping[str, tuple[float, float]]) -> None:
    """ValueError, naming the option, for one outside [low, high]."""
    for name, (low, high) in bounds.items():
        if not low <= getattr(options, name) <= high:
            raise ValueError(f"{name} {getattr(options, name)} is outside {low:g}..{high:g}")


def number(name: str, whole: bool, value: Any) -> int | float:
    """A finite number; ValueError, naming it, for what is none."""
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(f"{name} {value!r} is no {'whole ' if whole else ''}number")
    if not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} {value!r} is not finite")
    return value


def _typed(field: Field[Any], value: Any) -> Any:
    name, kind = field.name, str(field.type)
    if kind == "str":
        if not isinstance(value, str):
            raise ValueError(f"{name} {value!r} is no text")
        return value
    if kind.startswith("tuple"):
        length = len(field.default)  # type: ignore[arg-type]
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
            raise ValueError(f"{name} {value!r} is not {length} numbers")
        return tuple(number(name, "int" in kind, v) for v in value)
    return number(name, kind == "int", value)
