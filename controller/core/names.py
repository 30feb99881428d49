"""What a name that is none was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, known: Iterable[str]) -> str:
    """ ", did you mean 'NAME'?" where a known name is like the given one; else nothing.

    >>> nearest("mucb", ["static", "mucb1"])
    ", did you mean 'mucb1'?"
    >>> nearest("x", ["static", "mucb1"])
    ''
    """
    close = get_close_matches(str(name), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
