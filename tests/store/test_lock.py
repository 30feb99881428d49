"""Two writers at one folder: processes that are started and killed, and what their lock file says then."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from controller.store.lock import Holder, Lock, Locked

HOLD = """
import sys, time
from pathlib import Path
from controller.store.lock import Lock
lock = Lock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem whose server has no locks."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)


def test_the_second_is_told_who_the_first_is_and_comes_in_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.lock"
    with holder(path) as first:
        who = rf"pid {first.pid} on host {os.uname().nodename} since 20..-.*-c "
        with pytest.raises(Locked, match=rf"{path.parent}: this folder is being written by .*{who}"):
            Lock.take(path)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with Lock.take(path) as lock:
            assert lock.taken_over is not None and lock.taken_over.pid == first.pid
            with pytest.raises(Locked, match=f"pid {os.getpid()} on"):
                Lock.take(path)
    with Lock.take(path) as lock:  # who let go of it is not one that died
        assert lock.taken_over is None


def test_a_lock_that_another_host_left_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    path.write_text(json.dumps(asdict(replace(Holder.of_this_process(), host="far", boot="another"))))
    with pytest.raises(Locked, match=f"pid {os.getpid()} on host far .*remove {path}"):
        Lock.take(path)
    path.unlink()
    Lock.take(path).close()


def test_a_file_that_was_removed_protects_no_more(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with Lock.take(path) as lock:
        path.unlink()
        assert not lock.held
        with Lock.take(path) as other:
            assert other.held


def test_a_process_that_was_started_with_it_holds_it_on(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    lock = Lock.take(path)
    held = os.dup(lock.fileno())  # as a child has it
    adopted = Lock.adopt(path, held)
    lock.close()
    with pytest.raises(Locked):
        Lock.take(path)
    adopted.close()
    Lock.take(path).close()
    with (tmp_path / "other").open("w") as other, pytest.raises(ValueError, match="not that file's"):
        Lock.adopt(path, other.fileno())


@pytest.mark.usefixtures("no_flock")
def test_without_the_kernels_lock_the_text_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.lock"
    with Lock.take(path):
        assert "this filesystem has no locks" in caplog.text
        with pytest.raises(Locked, match=f"pid {os.getpid()} on host"):
            Lock.take(path)
    Lock.take(path).close()


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({"started": "1"}, True),  # its pid is another process's by now
        ({"boot": "before"}, True),
        ({"namespace": "pid:[1]"}, False),
        ({"host": "far", "boot": "another"}, False),
        ({}, False),
    ],
)
def test_without_the_kernels_lock_only_who_is_surely_dead_is_followed(
    tmp_path: Path, change: dict[str, str], taken: bool
) -> None:
    path = tmp_path / "run.lock"
    left = replace(Holder.of_this_process(), **change)  # type: ignore[arg-type]
    path.write_text(json.dumps(asdict(left)))
    if taken:
        with Lock.take(path) as lock:
            assert lock.taken_over == left
    else:
        with pytest.raises(Locked, match=rf"pid {os.getpid()} on host"):
            Lock.take(path)


@pytest.mark.usefixtures("no_flock")
def test_without_the_kernels_lock_a_killed_holder_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    process = subprocess.Popen(["sleep", "600"])
    dead = replace(Holder.of_this_process(), pid=process.pid)
    process.kill()
    process.wait()
    path.write_text(json.dumps(asdict(dead)))
    with Lock.take(path) as lock:
        assert lock.taken_over == dead
