"""Reads traces of poses, ``../shared/data/pose-traces`` and whatever has that format."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from wire.definitions.poses import FloatArray, check_poses

ARRAY = "pose"
"""The array of a file of poses: [users, frames, 6] (:mod:`wire.definitions.poses`)."""


def read_poses(path: Path) -> FloatArray:
    """The traces of several users, float64 [users, frames, 6], from the array ``pose`` of an .npz file.

    OSError where it cannot be read. ValueError, naming the file, where it is none, has no such array or one
    of objects; naming user and frame as :func:`wire.definitions.poses.check_poses`.
    """
    try:
        with path.open("rb") as file:
            archive: Any = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError(f"{path}: a single array, not an .npz file of named arrays")
            if ARRAY not in archive.files:
                there = ", ".join(archive.files) or "none"
                raise ValueError(f"{path}: no array {ARRAY!r}; arrays: {there}")
            poses = archive[ARRAY]
    except (BadZipFile, EOFError, ZlibError) as error:
        raise ValueError(f"{path}: not an .npz file, or a damaged one: {error}") from error
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        # NumPy takes whatever it does not know for a pickle, and says how to run it.
        raise ValueError(f"{path}: not an .npz file of numbers") from error
    return check_poses(poses, str(path))
