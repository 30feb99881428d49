"""Models by their digest: what comes back is what was kept, or an error that names the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from controller.store.models import ModelError, ModelStore

DATA = b"weights"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("kept", ["folder", "memory"])
def test_what_was_kept_comes_back(tmp_path: Path, kept: str) -> None:
    store = ModelStore(tmp_path / "run" / "models" if kept == "folder" else None)
    assert store.put(DATA) == store.put(DATA) == DIGEST
    assert store.get(DIGEST) == DATA
    assert store.get(store.put(b"")) == b""
    with pytest.raises(ModelError, match="f" * 64):
        store.get("f" * 64)


def test_models_are_files_of_the_run_and_nothing_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    store = ModelStore(folder)
    assert not folder.exists()
    store.put(DATA)
    assert [path.name for path in folder.iterdir()] == [DIGEST]
    assert ModelStore(folder).get(DIGEST) == DATA


@pytest.mark.parametrize("damage", [b"", b"weightt", DATA + b"\0"])
def test_a_damaged_model_is_named_and_may_be_put_once_more(tmp_path: Path, damage: bytes) -> None:
    store = ModelStore(tmp_path)
    store.put(DATA)
    (tmp_path / DIGEST).write_bytes(damage)
    with pytest.raises(ModelError, match=rf"{tmp_path / DIGEST}: its bytes have the digest [0-9a-f]{{64}}"):
        store.get(DIGEST)
    assert store.put(DATA) == DIGEST and store.get(DIGEST) == DATA


@pytest.mark.parametrize("digest", ["", "../run.json", "F" * 64, "a" * 63, "a" * 64 + "\n"])
@pytest.mark.parametrize("kept", ["folder", "memory"])
def test_what_is_no_digest_opens_no_file(tmp_path: Path, digest: str, kept: str) -> None:
    with pytest.raises(ModelError, match="no SHA-256 digest"):
        ModelStore(tmp_path if kept == "folder" else None).get(digest)


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / DIGEST).mkdir()
    with pytest.raises(ModelError, match=str(tmp_path / DIGEST)):
        ModelStore(tmp_path).get(DIGEST)
