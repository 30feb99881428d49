"""Numba's compiler with its cache on disk where there is one, so that only the first start compiles.

A container under another user, a tree that is read-only, a home that is not there, a full disk: without a
folder that it can write and read, what is compiled is not kept, which a warning says once, and every process
compiles anew. ``NUMBA_CACHE_DIR`` names such a folder.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

_BROKEN = (OSError, EOFError, pickle.UnpicklingError)
_warned = False


def kept(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """``numba.njit(cache=True, ...)``, as a decorator or with options, that never fails for its cache."""
    import numba

    if function is None:
        return lambda function: kept(function, **options)
    try:
        dispatcher: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        _warn(str(error))
        return numba.njit(**options)(function)
    cache = getattr(dispatcher, "_cache", None)
    for name in ("load_overload", "save_overload"):
        if hasattr(cache, name):
            setattr(cache, name, _guarded(getattr(cache, name)))
    return dispatcher


def _guarded(step: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arguments: Any) -> Any:
        try:
            return step(*arguments)
        except _BROKEN as error:
            _warn(f"{type(error).__name__}: {error}")
            return None

    return guarded


def _warn(why: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"Numba has no cache here ({why}), so every start compiles anew, which takes a minute or two: set"
            " NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=4,
        )
