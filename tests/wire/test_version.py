"""Which commit is running: asked of git in a checkout, written down in what was built, else not told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import pytest

from wire.version import abbreviated, of_checkout

ROOT = Path(__file__).resolve().parents[2]
needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


def _setuptools() -> int:
    try:
        return int(installed("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return 0


needs_setuptools = pytest.mark.skipif(
    _setuptools() < 77, reason="setuptools is not installed, or older than pyproject.toml asks"
)


def git(folder: Path, *arguments: str) -> str:
    own = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    env = {**os.environ, **own, "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def sources(folder: Path) -> Path:
    """What a build reads, without the project's own git, with just enough of its packages."""
    (folder / "wire").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "wire/__init__.py", "wire/version.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def committed(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def build(tree: Path, *command: str, **environment: str) -> str:
    """Run setup.py; what it printed where it fails."""
    env = {k: v for k, v in os.environ.items() if k not in ("PRBANDIT_COMMIT", "PYTHONPATH")} | environment
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *command], cwd=tree, env=env, capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stderr


def told(tree: Path) -> str:
    """What the package in ``tree`` says of its commit."""
    code = "from wire.version import commit; print(commit())"
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tree, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@needs_git
def test_a_checkout_tells_its_commit_and_whether_tracked_files_were_changed(tmp_path: Path) -> None:
    head = committed(sources(tmp_path))
    assert of_checkout(tmp_path) == head[:12]
    (tmp_path / "new").write_text("not tracked")
    assert of_checkout(tmp_path) == head[:12]
    (tmp_path / "LICENSE").write_text("changed")
    assert of_checkout(tmp_path) == told(tmp_path) == f"{head[:12]}.dirty"


@needs_git
def test_what_git_s_own_hooks_set_does_not_lead_to_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, other = committed(sources(tmp_path / "one")), sources(tmp_path / "two")
    (other / "more").touch()
    assert committed(other) != head
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert of_checkout(tmp_path / "one") == head[:12]


@needs_git
def test_a_folder_within_somebody_elses_repository_and_a_broken_one_tell_nothing(tmp_path: Path) -> None:
    inner = sources(tmp_path / "vendor")
    committed(tmp_path)
    assert of_checkout(inner) == told(inner) == ""
    (inner / ".git").write_text("gitdir: /nowhere\n")
    assert of_checkout(inner) == told(inner) == ""


@needs_git
@needs_setuptools
def test_a_build_records_the_commit_and_no_stale_one(tmp_path: Path) -> None:
    tree = sources(tmp_path / "tree")
    head = committed(tree)
    assert not build(tree, "build_py", "-d", str(tmp_path / "lib"))
    assert told(tmp_path / "lib") == head[:12]
    assert not (tree / "wire/_build.py").exists()
    shutil.rmtree(tree / ".git")
    assert not build(tree, "build_py", "-d", str(tmp_path / "lib"))
    assert told(tmp_path / "lib") == ""


@needs_setuptools
def test_an_image_is_told_its_commit_and_nonsense_is_refused(tmp_path: Path) -> None:
    tree, commit = sources(tmp_path / "tree"), "0123456789abcdef0123456789abcdef01234567"
    assert not build(tree, "build_py", "-d", str(tmp_path / "lib"), PRBANDIT_COMMIT=commit)
    assert told(tmp_path / "lib") == commit[:12]
    assert "'main' is no commit" in build(tree, "build_py", "-d", str(tmp_path), PRBANDIT_COMMIT="main")


@needs_git
@needs_setuptools
def test_an_archive_of_the_sources_keeps_its_commit_through_a_build(tmp_path: Path) -> None:
    tree = sources(tmp_path / "tree")
    head = committed(tree)
    assert not build(tree, "sdist", "-d", str(tmp_path), "--keep-temp")
    (unpacked,) = tree.glob("prbandit-*/")
    shutil.move(unpacked, tmp_path / "unpacked")
    assert not build(tmp_path / "unpacked", "build_py", "-d", str(tmp_path / "lib"))
    assert told(tmp_path / "unpacked") == told(tmp_path / "lib") == head[:12]


@pytest.mark.parametrize("text", ["", "main", "0123", "0123456789abcdefg", "0123456789ab dirty"])
def test_what_is_no_commit_is_not_told(text: str) -> None:
    assert abbreviated(text) == ""


def test_the_command_tells_the_version_of_the_package_and_the_commit_of_this_tree() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", "--version"], capture_output=True, text=True, check=True
    )
    commit = of_checkout(ROOT)
    assert done.stdout == f"prbandit, version {installed('prbandit')}{f'+g{commit}' if commit else ''}\n"
    assert re.match(r"prbandit, version \d+\.\d+\.\d+", done.stdout)
