"""Results of fits by digest: what an allocator's state names, and what a replay reads back."""

from __future__ import annotations

import re
from pathlib import Path

from controller.core.fits import model_digest
from controller.store.files import write_atomic

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ModelError(KeyError):
    """A model that is not there, or is not what its name says; the text names the file."""

    def __str__(self) -> str:
        return str(self.args[0])


MAX_FILE = 16 << 20
"""Bytes of a model that was made beforehand."""


def read_file(*, path: str, seed: int = 0) -> bytes:
    """The bytes of a model that was made beforehand, as a job beside the loop; ``seed`` makes no difference.

    ValueError for a file that is empty or too large, OSError for one that cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if not 0 < len(data) <= MAX_FILE:
        raise ValueError(f"{path}: a model has 1 to {MAX_FILE} bytes")
    return data


class ModelStore:
    """Bytes by their SHA-256 digest (hex), in a folder of the run or, without one, in memory.

    Each is a file named by its digest, written whole or not at all; the folder is made when the first one
    comes. Any thread may call.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keeps ``data`` and returns its digest; OSError where it cannot be written."""
        digest = model_digest(data)
        if self._folder is None:
            self._memory[digest] = data
            return digest
        path = self._folder / digest
        try:
            intact = path.read_bytes() == data
        except FileNotFoundError:
            intact = False
        if not intact:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes of a digest, checked.

        Raises:
            ModelError: names the file: no digest, no such model, one that cannot be read or whose bytes are
                not those of its name.
        """
        if not _DIGEST.fullmatch(digest):
            raise ModelError(f"model {digest[:80]!r}: no SHA-256 digest")
        if self._folder is None:
            if digest not in self._memory:
                raise ModelError(f"model {digest}: this run has no folder and never made it")
            return self._memory[digest]
        path = self._folder / digest
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"model {path}: {error.strerror or error}") from error
        if (actual := model_digest(data)) != digest:
            raise ModelError(f"model {path}: its bytes have the digest {actual}; it was damaged or changed")
        return data
