"""What a package that is not installed is an extra of, and what to type for it in a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("agents", "controller", "openrtist", "wire")


class MissingExtra(ImportError):
    """A package of an optional extra is not installed; the text says which, and what to type."""


def missing(package: str | None, extra: str, what: str = "") -> MissingExtra:
    """The error for a package of ``extra`` that ``what`` needs.

    >>> print(missing("highspy", "vr", "the exact solver"))
    the exact solver needs the package highspy: .venv/bin/pip install -e '.[vr]'
    """
    package = package and package.partition(".")[0]
    said = f"{what} needs the package {package}" if what else f"the package {package} is missing"
    return MissingExtra(f"{said}: .venv/bin/pip install -e '.[{extra}]'", name=package)


def is_ours(error: ImportError) -> bool:
    """Whether an import failed for another reason than that somebody else's package is not there."""
    return not isinstance(error, MissingExtra) and (error.name is None or error.name.split(".")[0] in OURS)


@contextmanager
def needs(extra: str, what: str = "") -> Iterator[None]:
    """Around imports: a package that is not there is one of ``extra``, which ``what`` needs.

    :class:`MissingExtra` then; an import of our own that fails is what it is.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, MissingExtra) or is_ours(error):
            raise
        raise missing(error.name, extra, what) from error
