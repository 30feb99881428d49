"""Files of poses: what is in them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wire.pose_files import read_poses

DATA = Path(__file__).parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_poses_are_read(tmp_path: Path) -> None:
    poses = np.random.default_rng(0).normal(0.0, 0.01, (3, 20, 6)).astype(np.float32)
    got = read_poses(saved(tmp_path / "a.npz", pose=poses, other=np.zeros(3)))
    assert got.dtype == np.float64 and np.array_equal(got, poses)


def test_files_of_poses_that_are_none(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.npz", pose=np.zeros((2, 20, 6)))
    damaged = bytearray(good.read_bytes())
    damaged[300] ^= 0xFF
    for name, content in (
        ("empty.npz", b""),
        ("text.npz", b"no poses"),
        ("cut.npz", good.read_bytes()[:-40]),
        ("flipped.npz", bytes(damaged)),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: not an \.npz file"):
            read_poses(path)
    np.save(tmp_path / "one.npy", np.zeros((2, 20, 6)))
    with pytest.raises(ValueError, match=r"one\.npy: a single array"):
        read_poses(tmp_path / "one.npy")
    with pytest.raises(ValueError, match="no array 'pose'; arrays: poses"):
        read_poses(saved(tmp_path / "b.npz", poses=np.zeros((2, 20, 6))))
    with pytest.raises(ValueError, match=r"not an \.npz file of numbers$"):
        read_poses(saved(tmp_path / "c.npz", pose=np.array([{}, None], dtype=object)))
    with pytest.raises(OSError, match="nowhere"):
        read_poses(tmp_path / "nowhere.npz")


def test_poses_that_are_none_name_user_and_frame(tmp_path: Path) -> None:
    for value, named in ((np.nan, "user 1, frame 7: y is not finite"), (9.0, "user 1, frame 7: 9.00 m")):
        poses = np.zeros((2, 20, 6))
        poses[1, 7, 1] = value
        with pytest.raises(ValueError, match=rf"a\.npz: {named}"):
            read_poses(saved(tmp_path / "a.npz", pose=poses))
    with pytest.raises(ValueError, match=r"a\.npz: shape \(20, 6\)"):
        read_poses(saved(tmp_path / "a.npz", pose=np.zeros((20, 6))))


@needs_data
def test_measured_poses_are_read() -> None:
    for name in ("longdress", "loot"):
        poses = read_poses(DATA / f"pose-traces/{name}.npz")
        assert poses.ndim == 3 and poses.shape[2] == 6
