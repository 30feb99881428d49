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
    cache: Any = getattr(dispatcher, "_cache", None)
    if hasattr(cache, "load_overload"):
        cache.load_overload = _guarded(_of_its_signature(cache.load_overload))
        cache.save_overload = _guarded(cache.save_overload)
    return dispatcher


def _of_its_signature(load: Callable[..., Any]) -> Callable[..., Any]:
    """Two processes that compile one function for different arguments at the same time may leave the code of
    one under the signature of the other. Numba 0.68 would run it: wrong numbers, or worse."""
    from numba.core.sigutils import normalize_signature

    def checked(signature: Any, context: Any) -> Any:
        found = load(signature, context)
        if found is None or tuple(found.signature.args) == tuple(normalize_signature(signature)[0]):
            return found
        return None

    return checked


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
