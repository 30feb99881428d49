"""Names that come from outside, what one that is none was meant to be, and how one is shown; the name of a
configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from difflib import get_close_matches


class UnknownName(KeyError):
    """A name that is none; the text says which there are."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: object, known: Iterable[str]) -> str:
    """ ", did you mean 'NAME'?" where a known name is like the given one; else nothing.

    >>> nearest("mucb", ["static", "mucb1"])
    ", did you mean 'mucb1'?"
    >>> nearest("x", ["static", "mucb1"])
    ''
    """
    close = get_close_matches(str(name), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def config_hash(text: str) -> str:
    """Names a resolved configuration (YAML), whatever file it came from: the first 12 hexadecimal digits of
    its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def printable(text: str) -> str:
    """The text with all that is no visible character spelled out: names come from outside, and a terminal
    obeys what it is sent.

    >>> printable("ue-1\\x1b[2J")
    'ue-1\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """As :func:`printable`, of lines one: no text that comes from outside begins a line of a log.

    >>> one_line("options: no mapping\\n  in line 1")
    'options: no mapping in line 1'
    """
    return printable(" ".join(text.split()))
