"""Fits beside the loop: whatever a job does, the pool goes on, and the loop never waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller import fit_worker, fits
from controller.core.fits import Fit, Job, model_digest
from controller.fits import FitPool, run_now
from controller.store.models import ModelStore

PATIENCE_S = 60.0


def job(name: str, key: str = "", seed: int = 1, **arguments: Any) -> Job:
    return Job(key or name, f"tests.fit_jobs:{name}", arguments, seed)


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


class Pool:
    def __init__(self, models: ModelStore, **options: Any) -> None:
        self.models = models
        self.pool = FitPool(models, **options)

    def submit(self, *jobs: Job, slice: str = "mar") -> list[bool]:
        return [self.pool.submit("cell-1", slice, each) for each in jobs]

    def take(self, n: int) -> dict[str, Fit]:
        fits: list[Fit] = []

        def come() -> bool:
            fits.extend(self.pool.take("cell-1"))
            return len(fits) >= n

        until(come)
        assert len(fits) == n
        return {fit.key: fit for fit in fits}

    def result(self, each: Job) -> str:
        """What a job comes to: its bytes as text, or its error."""
        self.submit(each)
        fit = self.take(1)[each.key]
        return fit.error or self.models.get(fit.digest).decode()


@pytest.fixture
def make() -> Iterator[Callable[..., Pool]]:
    made = []

    def build(models: ModelStore | None = None, **options: Any) -> Pool:
        made.append(Pool(models or ModelStore(None), **options))
        return made[-1]

    yield build
    for each in made:
        each.pool.close()


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_result_is_kept_under_its_digest(make: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make(ModelStore(tmp_path / "models"))
    assert pool.submit(job("draw", n=5)) == [True]
    fit = pool.take(1)["draw"]
    expected = np.random.default_rng(1).standard_normal(5).tobytes()
    assert fit == Fit("mar", "draw", model_digest(expected))
    assert (tmp_path / "models" / fit.digest).read_bytes() == expected
    assert pool.pool.take("cell-1") == []


def test_the_same_seed_gives_the_same_digest_in_the_pool_and_on_the_virtual_clock(
    make: Callable[..., Pool],
) -> None:
    pool = make(jobs=2)
    jobs = [job("draw", f"{seed} {i}", seed, n=100) for seed in (1, 2) for i in range(2)]
    pool.submit(*jobs)
    digests = {key: fit.digest for key, fit in pool.take(4).items()}
    assert digests["1 0"] == digests["1 1"] != digests["2 0"] == digests["2 1"]
    for each in jobs:
        fit, data = run_now("mar", each)
        assert fit == Fit("mar", each.key, digests[each.key]) and model_digest(data) == fit.digest


def test_a_job_computes_on_what_its_arguments_were(make: Callable[..., Pool]) -> None:
    pool = make()
    left = np.arange(3.0)
    added = job("add", left=left, right={"by": 1.0})
    pool.submit(added)
    left[:] = 9.0
    fit = pool.take(1)["add"]
    assert np.frombuffer(pool.models.get(fit.digest)).tolist() == [1.0, 2.0, 3.0]
    fit, data = run_now("mar", added)
    assert np.frombuffer(data).tolist() == [10.0, 10.0, 10.0] and left.tolist() == [9.0, 9.0, 9.0]


def test_processes_are_few_niced_started_late_and_used_again(make: Callable[..., Pool]) -> None:
    pool = make(niceness=11)
    assert pool.pool._slots == []
    first, second = (pool.result(job("process", key)).split() for key in ("a", "b"))
    assert first == second and int(first[0]) != os.getpid()
    assert int(first[1]) >= 11 and first[2] == os.environ.get("OMP_NUM_THREADS", "1")
    assert len(pool.pool._slots) == 1


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (job("fail", text="no data"), "RuntimeError: no data (fit_jobs.py:"),
        (job("fail", text="x" * 5000), "RuntimeError: xxx"),
        (job("leave", status=3), "SystemExit: 3"),
        (job("draw", m=1), "TypeError: draw() got an unexpected keyword argument 'm'"),
        (job("array"), "tests.fit_jobs:array returned ndarray, not bytes"),
        (job("NOT_A_FUNCTION"), "ValueError: tests.fit_jobs has no function NOT_A_FUNCTION"),
        (job("nothing"), "ValueError: tests.fit_jobs has no function nothing"),
        (Job("k", "tests.no_such_module:f", {}, 0), "No module named 'tests.no_such_module'"),
    ],
)
def test_a_job_that_raises_says_why(bad: Job, error: str, make: Callable[..., Pool]) -> None:
    pool = make()
    said = pool.result(bad)
    assert error in said and len(said) <= 1000
    assert pool.result(job("process"))
    if bad.function != "tests.fit_jobs:leave":
        fit, data = run_now("mar", bad)
        assert error in fit.error and fit.digest == "" and data == b""


def test_a_result_that_is_too_large_says_so(
    make: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make()
    assert len(pool.result(job("large", n=1 << 24))) == 1 << 24
    monkeypatch.setattr("controller.fit_worker.MAX_RESULT", 10)
    assert "returned 11 bytes, more than 10" in run_now("mar", job("large", n=11))[0].error


def test_a_job_that_hangs_is_killed_after_its_time(make: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make(timeout_s=1.0)
    assert pool.result(job("hang", mark=str(tmp_path / "pid"))) == "killed: it took longer than 1 s"
    assert not alive(int((tmp_path / "pid").read_text()))
    assert pool.result(job("process"))


def test_the_time_of_one_job_does_not_count_against_the_next(make: Callable[..., Pool]) -> None:
    pool = make(timeout_s=1.0)
    end = time.monotonic() + 1.6
    keys = iter(range(10_000))
    while time.monotonic() < end:
        assert pool.result(job("process", f"{next(keys)}")).split()[0].isdigit()
        time.sleep(0.05)


def test_a_timer_that_goes_off_too_late_ends_no_later_job() -> None:
    worker = fits._Worker("fit", 0)
    try:
        assert worker.exchange(None, PATIENCE_S) == fit_worker.READY
        worker._expire(0)
        assert worker.usable and not worker.expired
        worker._expire(1)
        assert worker.expired and not worker.usable
    finally:
        assert worker.end() == "was killed by SIGKILL"


@pytest.mark.parametrize(
    ("dies", "how"),
    [
        (job("killed"), "its process was killed by SIGKILL"),
        (job("vanish", status=5), "its process ended with status 5"),
    ],
)
def test_a_process_that_dies_is_replaced(dies: Job, how: str, make: Callable[..., Pool]) -> None:
    pool = make()
    first = pool.result(job("process", "before"))
    pool.submit(dies, job("process", "after"))
    fits = pool.take(2)
    assert fits[dies.key].error == how and fits[dies.key].digest == ""
    after = pool.models.get(fits["after"].digest).decode()
    assert after.split()[0] != first.split()[0]


def test_a_process_that_is_killed_from_outside_while_it_waits_costs_no_job(
    make: Callable[..., Pool],
) -> None:
    pool = make()
    for i in range(4):
        pid = int(pool.result(job("process", f"before {i}")).split()[0])
        os.kill(pid, signal.SIGKILL)
        if i % 2:
            until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
        after = pool.result(job("process", f"after {i}")).split()[0]
        assert after.isdigit() and int(after) != pid


def test_a_job_is_asked_for_once(make: Callable[..., Pool]) -> None:
    pool = make()
    assert pool.submit(job("draw", n=1), job("draw", n=1)) == [True, False]
    pool.take(1)
    assert pool.submit(job("draw", n=1)) == [False]
    assert pool.submit(job("draw", n=1), slice="vr") == [True]
    assert pool.take(1)["draw"].slice == "vr"
    assert pool.pool.submit("cell-2", "mar", job("draw", n=1))
    until(lambda: pool.pool.take("cell-2"))
    assert pool.pool.take("cell-1") == []


def test_results_of_a_slice_that_is_gone_are_dropped(make: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make()
    mark, go_on = tmp_path / "mark", tmp_path / "go on"
    waits = job("after", mark=str(mark), go_on=str(go_on))
    pool.submit(job("draw", "done", n=1))
    until(lambda: pool.pool._done)
    pool.submit(waits, job("draw", "waiting", n=1))
    pool.submit(job("process", "another's"), slice="vr")
    until(mark.exists)
    pool.pool.forget("cell-1", "mar")
    # What ran for nobody is killed: the other slice's job does not wait for it.
    fits = pool.take(1)
    assert fits["another's"].slice == "vr" and fits["another's"].error == ""
    assert not alive(int(mark.read_text()))
    # A slice of that name that comes later asks anew.
    go_on.touch()
    assert pool.submit(waits, job("draw", "done", n=1)) == [True, True]
    assert {key: fit.error for key, fit in pool.take(2).items()} == {"after": "", "done": ""}


def test_a_result_that_comes_late_is_dropped_too(
    make: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make()
    put = pool.models.put
    forgotten = []

    def forget_meanwhile(data: bytes) -> str:
        pool.pool.forget("cell-1", "mar")
        forgotten.append(data)
        return put(data)

    monkeypatch.setattr(pool.models, "put", forget_meanwhile)
    pool.submit(job("draw", n=1))
    until(lambda: forgotten and pool.pool._slots[0].ticket is None)
    monkeypatch.undo()
    assert pool.result(job("process", "next"))
    assert pool.pool._done == {}


def test_the_caller_never_waits(make: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make(timeout_s=60.0)
    pool.submit(job("hang", mark=str(tmp_path / "mark")))
    until((tmp_path / "mark").exists)
    begin = time.monotonic()
    for i in range(100):
        pool.submit(job("draw", str(i), n=1))
        assert pool.pool.take("cell-1") == []
    pool.pool.forget("cell-1", "mar")
    assert time.monotonic() - begin < 5.0


def test_no_more_jobs_wait_than_may(make: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "MAX_WAITING", 2)
    pool = make()
    pool.submit(job("hang"))
    until(lambda: not pool.pool._waiting)
    pool.submit(*(job("draw", f"{i}", n=1) for i in range(3)))
    assert pool.take(1)["2"].error == "more than 2 jobs wait"


def test_several_run_at_a_time(make: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make(jobs=2)
    go_on = tmp_path / "go on"
    marks = [tmp_path / key for key in "abc"]
    pool.submit(*(job("after", mark.name, mark=str(mark), go_on=str(go_on)) for mark in marks))
    until(lambda: sum(mark.exists() for mark in marks) == 2)
    assert len(pool.pool._slots) == 2
    go_on.touch()
    assert {fit.error for fit in pool.take(3).values()} == {""}


def test_a_result_that_cannot_be_stored_is_an_error(make: Callable[..., Pool], tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    pool = make(ModelStore(tmp_path / "models"))
    assert "its result could not be stored" in pool.result(job("draw", n=1))


def test_a_closed_pool_leaves_no_process_and_takes_no_job(make: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make()
    pool.submit(job("hang", mark=str(tmp_path / "pid")), job("draw", n=1))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    begin = time.monotonic()
    pool.pool.close()
    pool.pool.close()
    assert time.monotonic() - begin < 10.0
    assert not alive(int((tmp_path / "pid").read_text()))
    assert pool.submit(job("process")) == [False] and pool.pool.take("cell-1") == []


def test_a_pool_may_be_closed_while_it_starts(make: Callable[..., Pool]) -> None:
    pool = make(jobs=2)
    pool.submit(job("hang", "a"), job("hang", "b"))
    pool.pool.close()
    assert all(slot.worker is None for slot in pool.pool._slots)


def test_a_pool_of_nothing_is_none() -> None:
    for options in (
        {"jobs": 0},
        {"niceness": -1},
        *({"timeout_s": t} for t in (0.0, float("nan"), float("inf"))),
    ):
        with pytest.raises(ValueError, match="no such pool"):
            FitPool(ModelStore(None), **options)  # type: ignore[arg-type]


def test_a_process_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    text = f"""
import time
from controller.core.fits import Job
from controller.fits import FitPool
from controller.store.models import ModelStore
if __name__ == "__main__":
    pool = FitPool(ModelStore(None))
    pool.submit("c", "s", Job("k", "tests.fit_jobs:hang", {{"mark": {str(mark)!r}}}, 0))
    time.sleep(600)
"""
    script = tmp_path / "script.py"
    script.write_text(text)
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, str(script)], cwd=root, env=environment)
    try:
        until(lambda: mark.exists() and mark.read_text())
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not alive(int(mark.read_text())))
