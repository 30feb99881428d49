"""A checkpoint is whole or refused, and a refusal names file and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.loop import ControlLoop
from controller.store import checkpoint
from controller.store.checkpoint import CheckpointError
from tests import builders
from tests.store.builders import steps


def test_a_loop_goes_on_from_a_checkpoint_as_if_nothing_had_been(tmp_path: Path) -> None:
    loop = ControlLoop(builders.loop_spec())
    list(steps(loop, 20))
    checkpoint.save(tmp_path / "c.json", {"cell-1": loop.to_state()}, {"time_ns": 5})
    read = checkpoint.load(tmp_path / "c.json")
    assert read.meta == {"time_ns": 5}
    again = ControlLoop(builders.loop_spec())
    again.load_state(read.states["cell-1"])
    assert again.to_state() == loop.to_state()


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    checkpoint.save(path, {"cell-1": {"a": 1}})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"c\.json: not written"):
        checkpoint.save(path, {"cell-1": {"a": float("nan")}})
    with pytest.raises(CheckpointError, match="not written"):
        checkpoint.save(path, {"cell-1": {"a": object()}})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_crash_before_the_rename_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.json"
    checkpoint.save(path, {"cell-1": {"a": 1}})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"c\.json: not written: No space left"):
        checkpoint.save(path, {"cell-1": {"a": 2}})
    assert checkpoint.load(path).states == {"cell-1": {"a": 1}}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {**d, "version": 9}, "version: the file has 9, this controller reads 1"),
        (lambda d: {k: v for k, v in d.items() if k != "version"}, "version: the file has None"),
        (lambda d: {**d, "format": "other"}, "format: not a checkpoint"),
        (lambda d: [d], "format: not a checkpoint"),
        (lambda d: {**d, "states": [1]}, "states: must be an object, is of type list"),
        (lambda d: {k: v for k, v in d.items() if k != "states"}, "states: must be an object, is missing"),
        (lambda d: {**d, "states": {"cell-1": 3}}, r"states\.cell-1: must be an object, is of type int"),
        (lambda d: {**d, "meta": 3}, "meta: must be an object"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "c.json"
    checkpoint.save(path, {"cell-1": {"a": 1}})
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError, match=rf"c\.json: {message}"):
        checkpoint.load(path)


def test_a_checkpoint_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    checkpoint.save(path, {"cell-1": {"a": [1.5, 2], "b": "text"}})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"c\.json:\d+: "):
            checkpoint.load(path)
    path.write_bytes(whole[: len(whole) // 2].rstrip())
    with pytest.raises(CheckpointError, match=r"cut short|not JSON"):
        checkpoint.load(path)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"hello", b'{"a": NaN}', b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c\.json"):
        checkpoint.load(path)


def test_a_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.json: cannot be read: No such file"):
        checkpoint.load(tmp_path / "no.json")
    with pytest.raises(CheckpointError, match=r"no/c\.json: not written: No such file"):
        checkpoint.save(tmp_path / "no" / "c.json", {})
