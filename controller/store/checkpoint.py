"""What the control loops have learned, as one JSON file that a restart reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.store.files import write_atomic
from controller.store.record import upgrade_state

FORMAT = "prbandit-checkpoint"
VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the text names file and field."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``states`` maps a cell to the JSON of ``ControlLoop.to_state``; ``meta`` is what came with it."""

    states: Mapping[str, dict[str, Any]]
    meta: Mapping[str, Any] = field(default_factory=dict)


def save(
    path: Path | str, states: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint; the file is replaced whole or not at all.

    Raises:
        CheckpointError: the folder or the disk refuses, or a value is not plain JSON (NaN and infinity
            are not).
    """
    path = Path(path)
    document = {"format": FORMAT, "version": VERSION, "meta": dict(meta or {}), "states": dict(states)}
    try:
        text = json.dumps(document, allow_nan=False, indent=1)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not written: {error}") from error
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise CheckpointError(f"{path}: not written: {error.strerror or error}") from error


def load(path: Path | str) -> Checkpoint:
    """Read what :func:`save` wrote.

    Raises:
        CheckpointError: the file is missing, unreadable, cut short, no checkpoint, or of another version
            (both are named).
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        what = "cut short" if error.pos >= len(error.doc.rstrip()) else "not JSON"
        raise CheckpointError(
            f"{path}:{error.lineno}: {what}: {error.msg} at column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format: not a checkpoint (no {FORMAT!r})")
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: version: the file has {document.get('version')!r}, this controller reads {VERSION}"
        )
    for name in ("states", "meta"):
        if not isinstance(document.get(name), dict):
            raise CheckpointError(f"{path}: {name}: must be an object, is {_kind(document.get(name))}")
    for cell, state in list(document["states"].items()):
        if not isinstance(state, dict):
            raise CheckpointError(f"{path}: states.{cell}: must be an object, is {_kind(state)}")
        try:
            document["states"][cell] = dict(upgrade_state(state))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: states.{cell}: cannot be read: {error}") from error
    return Checkpoint(document["states"], document["meta"])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
