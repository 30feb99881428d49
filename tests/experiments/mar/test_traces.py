"""Files of poses and of channels: what is in them, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from controller.experiments.mar.traces import read_snr_db, snr_files
from wire.pose_files import read_poses

DATA = Path(__file__).parents[3] / "../shared/data"
HEADER = "t_s,network_mode,rsrp_dbm,snr_db,cqi,dl_kbps,ul_kbps,speed_kmh\n"
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


def test_the_snr_of_rows_that_are_5g(tmp_path: Path) -> None:
    rows = "0,5G,-80,7,9,1,1,0\n1,LTE,-80,20,9,1,1,0\n2,5G,-80,-,9,1,1,0\n3,5G,-80,-3.5,9,1,1,0\n"
    (tmp_path / "a.csv").write_text(HEADER + rows)
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write(HEADER + rows)
    (tmp_path / "README.md").write_text("no trace")
    files = snr_files(tmp_path)
    assert [f.name for f in files] == ["a.csv", "b.csv.gz"] and snr_files(files[1]) == [files[1]]
    for file in files:
        assert read_snr_db(file).tolist() == [7.0, -3.5]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "column 'network_mode' is not there"),
        ("network_mode,cqi\n5G,3\n", "column 'snr_db' is not there"),
        (HEADER, "no row is 5G"),
        (HEADER + "0,LTE,-80,7,9,1,1,0\n", "no row is 5G"),
        (HEADER + "0,5G,-80,x,9,1,1,0\n", "row 2: snr_db 'x' is not a number"),
        (HEADER + "0,5G,-80,nan,9,1,1,0\n", "row 2: snr_db 'nan' is not finite"),
        (HEADER + "0,5G\n", "row 2: snr_db '' is not a number"),
    ],
)
def test_channel_traces_that_are_none(content: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"a\.csv: {named}"):
        read_snr_db(path)


def test_damaged_traces_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no channel trace"):
        snr_files(tmp_path)
    whole = gzip.compress((HEADER + "0,5G,-80,7,9,1,1,0\n" * 50).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"a\.csv\.gz: "):
        read_snr_db(tmp_path / "a.csv.gz")
    (tmp_path / "b.csv").write_bytes(b"network_mode,snr_db\n5G,\xff\n")
    with pytest.raises(ValueError, match=r"b\.csv: "):
        read_snr_db(tmp_path / "b.csv")


@needs_data
def test_the_measured_traces_are_read() -> None:
    for name in ("longdress", "loot"):
        poses = read_poses(DATA / f"pose-traces/{name}.npz")
        assert poses.ndim == 3 and poses.shape[2] == 6
    for file in snr_files(DATA / "channel-traces"):
        snr = read_snr_db(file)
        assert len(snr) > 100 and -30 < snr.min() <= snr.max() < 50
