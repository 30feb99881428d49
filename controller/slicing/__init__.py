"""How a cell's PRBs are divided among slices. Nowhere else decides it."""

from __future__ import annotations

from controller.core.names import nearest
from controller.slicing.base import Arbiter
from controller.slicing.best_response import BestResponse
from controller.slicing.greedy import Greedy
from controller.slicing.maxmin import MaxMin
from controller.slicing.reserved import with_reserved
from controller.slicing.whole import whole_grants

__all__ = ["Arbiter", "about", "make", "names", "whole_grants", "with_reserved"]

_ARBITERS: dict[str, type[Arbiter]] = {a.name: a for a in (MaxMin, Greedy, BestResponse)}


def names() -> tuple[str, ...]:
    """The names that :func:`make` knows."""
    return tuple(_ARBITERS)


def about(name: str) -> str:
    """What an arbiter says of itself; KeyError for a name that there is not."""
    return _ARBITERS[name].__doc__ or ""


def make(name: str) -> Arbiter:
    """A new arbiter; ValueError for a name that there is not."""
    try:
        return _ARBITERS[name]()
    except KeyError:
        raise ValueError(
            f"unknown arbiter {name!r}{nearest(name, _ARBITERS)}; arbiters: {', '.join(_ARBITERS)}"
        ) from None
