"""`prbandit solve` and `prbandit figures`: the services' commands are found, files and options are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from controller import allocators
from controller.cli import cli
from controller.cli import solve as solve_module
from controller.experiments.mar import commands
from wire.definitions.extras import missing

HEADER = "t_s,network_mode,rsrp_dbm,snr_db,cqi,dl_kbps,ul_kbps,speed_kmh\n"
SHARES = ("--vchr", "0.8", "--rho", "0.7", "--epsilon", "0.9")
RESULT = {
    "users": [
        {
            "user": 0,
            "upload_hz": 3,
            "bandwidth_hz": 2.5e6,
            "prb": 12,
            "reliability": 0.953,
            "feasible": True,
            "why": "",
        },
        {
            "user": 11,
            "upload_hz": None,
            "bandwidth_hz": None,
            "prb": None,
            "reliability": 0.31,
            "feasible": False,
            "why": "no upload frequency keeps it; the best is 15 Hz",
        },
    ],
    "total_prb": 12,
    "twin": "pooled",
    "split": "temporal",
    "accuracy": 0.612,
    "majority": 0.6,
}


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


@pytest.fixture
def poses(tmp_path: Path) -> Path:
    np.savez(tmp_path / "video.npz", pose=np.random.default_rng(0).normal(0.0, 0.01, (3, 40, 6)))
    return tmp_path / "video.npz"


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    folder = tmp_path / "channels"
    folder.mkdir()
    for name, snr in (("a.csv", (1, 2, 3)), ("b.csv", (-20, 10))):
        (folder / name).write_text(HEADER + "".join(f"{t},5G,-80,{v},9,1,1,0\n" for t, v in enumerate(snr)))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Mapping[str, Any], Any]]:
    """What the solver was asked; it answers with RESULT."""
    calls: list[tuple[Mapping[str, Any], Any]] = []

    def solve(instance: Mapping[str, Any], options: Any) -> dict[str, Any]:
        calls.append((instance, options))
        return RESULT

    service = SimpleNamespace(options=lambda **of: SimpleNamespace(**of), solve=solve)
    monkeypatch.setattr(allocators, "service", lambda name: {"mar": service}[name])
    return calls


# ---- the groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["solve", "figures"])
def test_the_services_are_found_and_listed(group: str) -> None:
    result = run(group, "--help")
    assert result.exit_code == 0 and "  mar " in result.output
    assert run(group, "mar", "--help").exit_code == 0
    result = run(group, "nothing", "--json")
    assert result.exit_code == 2
    assert re.search(rf"{group}: no service 'nothing'; there are: (\w+, )*mar\b", result.output)


def module(monkeypatch: pytest.MonkeyPatch, load: Callable[[], ModuleType]) -> None:
    """A service ``other``, and how its commands are loaded."""
    monkeypatch.setattr(solve_module, "_services", lambda: ["other"])
    monkeypatch.setattr(solve_module, "import_module", lambda name: load())


def test_a_service_may_have_one_of_the_two(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModuleType("commands")
    found.figures = click.Command("figures", callback=lambda: click.echo("drawn"))  # type: ignore[attr-defined]
    module(monkeypatch, lambda: found)
    assert run("figures", "other").output == "drawn\n"
    result = run("solve", "other")
    assert result.exit_code == 2 and "no service 'other'; there are: none" in result.output


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    module(monkeypatch, absent)
    sentence = "Error: the package scipy is missing: .venv/bin/pip install -e '.[other]'\n"
    assert run("solve", "other").output.endswith(sentence)
    found = ModuleType("commands")
    found.solve = click.Command("solve", callback=absent)  # type: ignore[attr-defined]
    module(monkeypatch, lambda: found)
    result = run("solve", "other")
    assert result.exit_code == 1 and result.output == sentence

    def says_itself() -> None:
        raise missing("jinja2", "report", "the page")

    found.solve = click.Command("solve", callback=says_itself)  # type: ignore[attr-defined]
    assert (
        run("solve", "other").output
        == "Error: the page needs the package jinja2: .venv/bin/pip install -e '.[report]'\n"
    )

    def ours() -> None:
        raise ModuleNotFoundError("No module named 'controller.nothing'", name="controller.nothing")

    found.solve = click.Command("solve", callback=ours)  # type: ignore[attr-defined]
    assert isinstance(run("solve", "other").exception, ModuleNotFoundError)


# ---- solve mar -------------------------------------------------------------------------------------------


def test_what_the_solver_is_asked(asked: list[Any], poses: Path) -> None:
    result = run("solve", "mar", "--traces", poses, *SHARES, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == RESULT
    ((instance, options),) = asked
    assert instance["poses"].shape == (3, 40, 6) and instance["users"] == [0, 1, 2]
    assert [of.tolist() for of in instance["snr_db"]] == [[commands.SNR_DB]] * 3
    assert (instance["split"], instance["seed"], instance["n_prb"]) == ("temporal", 0, None)
    assert (options.vchr, options.rho, options.epsilon) == (0.8, 0.7, 0.9)
    assert (options.history_frames, options.lookahead_frames) == (15, 10)
    assert options.field_of_view_deg == (90.0, 90.0)


def test_every_option_reaches_the_solver(asked: list[Any], poses: Path) -> None:
    more = (
        *("--user", "2", "--field-of-view", "100", "80", "--history", "20", "--lookahead", "5"),
        *("--frame-bytes", "1000", "--latency-ms", "30", "--snr-db", "-3", "--tdd", "DDSUU"),
        *("--n-prb", "106", "--split", "blocks", "--seed", "7"),
    )
    assert run("solve", "mar", "--traces", poses, *SHARES, *more).exit_code == 0
    ((instance, options),) = asked
    assert instance["users"] == [2] and instance["poses"].shape[0] == 3
    assert [of.tolist() for of in instance["snr_db"]] == [[-3.0]] * 3
    assert (instance["tdd"], instance["n_prb"]) == ("DDSUU", 106)
    assert (instance["split"], instance["seed"]) == ("blocks", 7)
    assert vars(options) == {
        "vchr": 0.8,
        "rho": 0.7,
        "epsilon": 0.9,
        "field_of_view_deg": (100.0, 80.0),
        "history_frames": 20,
        "lookahead_frames": 5,
        "frame_bytes": 1000,
        "latency_ms": 30.0,
        "without_promise": "best",
    }


def test_users_go_through_the_channels_of_a_folder(asked: list[Any], poses: Path, channels: Path) -> None:
    for more in ((), ("--outage", "0")):
        result = run("solve", "mar", "--traces", poses, *SHARES, "--channel-trace", channels, *more)
        assert result.exit_code == 0, result.output
    snr = [[of.tolist() for of in instance["snr_db"]] for instance, _ in asked]
    assert snr == [[[1, 2, 3], [-20, 10], [1, 2, 3]], [[1.0], [-6.7], [1.0]]]


def test_the_table(asked: list[Any], poses: Path) -> None:
    lines = run("solve", "mar", "--traces", poses, *SHARES).stdout.splitlines()
    assert lines[0].split() == ["user", "upload", "Hz", "MHz", "PRB", "reliability", "feasible", "why"]
    assert lines[1].split() == ["0", "3", "2.500", "12", "0.953", "yes"]
    assert lines[2].split()[:6] == ["11", "-", "-", "-", "0.310", "no"]
    assert lines[2].endswith("no upload frequency keeps it; the best is 15 Hz")
    assert "total: 12 PRB; the promise can be kept for 1 of 2 users" in lines
    assert "accuracy 0.612" in lines[-1] and "majority class 0.600" in lines[-1]


def wrong_poses(tmp_path: Path) -> dict[str, Path]:
    """Files that are no poses, by what is said of them."""
    nan, jump = np.zeros((2, 40, 6)), np.zeros((2, 40, 6))
    nan[1, 5, 0] = np.nan
    jump[1, 5, 0] = 3.0
    arrays = {
        "no array 'pose'; arrays: other": {"other": np.zeros(3)},
        "user 1, frame 5: x is not finite": {"pose": nan},
        "user 1, frame 5: 3.00 m": {"pose": jump},
        "shape (40, 6)": {"pose": np.zeros((40, 6))},
    }
    files = {}
    for i, (named, of) in enumerate(arrays.items()):
        np.savez(tmp_path / f"{i}.npz", **of)
        files[named] = tmp_path / f"{i}.npz"
    (tmp_path / "text.npz").write_text("no poses")
    return {**files, "not an .npz file": tmp_path / "text.npz", "does not exist": tmp_path / "nowhere.npz"}


def sentence(result: Result) -> str:
    """The error, without the breaks of its lines."""
    return " ".join(result.output.split())


def test_files_that_are_no_poses(asked: list[Any], tmp_path: Path) -> None:
    for named, file in wrong_poses(tmp_path).items():
        for command in (("solve", "mar", *SHARES), ("figures", "mar")):
            if command[0] == "figures" and named != "does not exist":
                continue
            result = run(*command, "--traces", file)
            assert result.exit_code == 2 and named in sentence(result), result.output
            assert "--traces" in result.output and file.name in result.output
    assert not asked


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--user", "3"), "--user: user 3 is outside 0..2"),
        (("--user", "-1"), "--user: user -1 is outside 0..2"),
        (("--user", "first"), "'--user': 'first' is neither"),
        (("--vchr", "1.2"), "'--vchr'"),
        (("--rho", "-0.1"), "'--rho'"),
        (("--epsilon", "nan"), "'--epsilon'"),
        (("--field-of-view", "90", "180"), "'--field-of-view'"),
        (("--history", "0"), "'--history'"),
        (("--lookahead", "-1"), "'--lookahead'"),
        (("--frame-bytes", "0"), "'--frame-bytes'"),
        (("--latency-ms", "0"), "'--latency-ms'"),
        (("--snr-db", "nan"), "'--snr-db'"),
        (("--split", "none"), "'--split'"),
        (("--n-prb", "276"), "'--n-prb'"),
        (("--outage", "0.1"), "--outage goes with --channel-trace"),
        (("--channel-trace", "nowhere"), "'--channel-trace'"),
    ],
)
def test_options_that_cannot_be(asked: list[Any], poses: Path, args: tuple[str, ...], named: str) -> None:
    result = run("solve", "mar", "--traces", poses, *SHARES, *args)
    assert result.exit_code == 2 and named in sentence(result), result.output
    assert not asked


@pytest.mark.parametrize("missing", ["--traces", "--vchr", "--rho", "--epsilon"])
def test_what_must_be_said(missing: str, poses: Path) -> None:
    args = ["--traces", str(poses), *SHARES]
    at = args.index(missing)
    result = run("solve", "mar", *args[:at], *args[at + 2 :])
    assert result.exit_code == 2 and f"'{missing}'" in result.output


def test_channels_that_cannot_be(asked: list[Any], poses: Path, channels: Path) -> None:
    solve = ("solve", "mar", "--traces", poses, *SHARES, "--channel-trace", channels)
    result = run(*solve, "--snr-db", "3")
    assert result.exit_code == 2 and "exclude each other" in result.output
    (channels / "b.csv").write_text(HEADER + "0,5G,-80,x,9,1,1,0\n")
    result = run(*solve)
    assert result.exit_code == 2 and "b.csv: row 2: snr_db 'x' is not a number" in sentence(result)
    for file in channels.iterdir():
        file.unlink()
    assert "no channel trace" in sentence(run(*solve)) and not asked


# ---- figures mar -----------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the figures."""
    calls: list[tuple[Any, ...]] = []

    def draw(videos: Any, out: Path, names: Any, progress: Any) -> dict[str, Any]:
        with progress("figures", len(names)) as advance:
            for name in names:
                advance(name)
        calls.append((videos, out, tuple(names)))
        return {"figures": list(names)}

    figures = SimpleNamespace(NAMES=("fig-2", "fig-3"), run=draw, text=lambda of: " ".join(of["figures"]))
    monkeypatch.setattr(commands, "import_module", lambda name: figures)
    return calls


def test_figures_of_all_videos(drawn: list[Any], poses: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "second.npz", pose=np.zeros((2, 30, 6)))
    both = ("--traces", poses, "--traces", tmp_path / "second.npz", "--out", tmp_path / "out")
    assert json.loads(run("figures", "mar", *both, "--json").stdout) == {"figures": ["fig-2", "fig-3"]}
    result = run("figures", "mar", *both, "--figure", "fig-3")
    assert result.exit_code == 0 and result.stdout == "fig-3\n"
    assert [names for _, _, names in drawn] == [("fig-2", "fig-3"), ("fig-3",)]
    videos, out, _ = drawn[0]
    assert {name: of.shape for name, of in videos.items()} == {"video": (3, 40, 6), "second": (2, 30, 6)}
    assert out == tmp_path / "out"


def test_figures_that_cannot_be(drawn: list[Any], poses: Path, tmp_path: Path) -> None:
    result = run("figures", "mar", "--traces", poses, "--figure", "fig-9")
    assert result.exit_code == 2 and "no figure 'fig-9'; figures: fig-2, fig-3" in sentence(result)
    (tmp_path / "sub").mkdir()
    again = tmp_path / "sub" / poses.name
    again.write_bytes(poses.read_bytes())
    result = run("figures", "mar", "--traces", poses, "--traces", again)
    assert result.exit_code == 2 and "two videos of the name 'video'" in sentence(result)
    for named, file in wrong_poses(tmp_path).items():
        result = run("figures", "mar", "--traces", file)
        assert result.exit_code == 2 and named in sentence(result), result.output
    assert not drawn
