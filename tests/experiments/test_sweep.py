from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from controller.experiments import pool, results, sweep
from controller.experiments.runs import RunSpec
from controller.store.lock import Locked
from tests.experiments.builders import small
from wire.security import InsecureAddress, KeyFileError

ROOT = Path(__file__).resolve().parents[2]

GRID = """
scenarios: [small.yaml]
policies: [static, mucb1]
seeds: [1, 2]
parameters:
  control.guard_ms: [100.0, 150.0]
duration_s: 10.0
"""


def grid(folder: Path, text: str = GRID) -> Path:
    small(folder)
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["sweep", *map(str, arguments)])


def without_time(rows: list[dict]) -> list[dict]:
    return sorted(
        ({k: v for k, v in row.items() if k != "wall_s"} for row in rows), key=lambda row: row["key"]
    )


def test_the_grid_is_every_combination_once(tmp_path: Path) -> None:
    specs = sweep.runs(grid(tmp_path))
    assert len(specs) == 8 == len({s.key for s in specs})
    assert {(s.policy, s.seed, s.parameters["control.guard_ms"]) for s in specs} == {
        (p, n, g) for p in ("static", "mucb1") for n in (1, 2) for g in (100.0, 150.0)
    }
    assert {s.load().control.guard_ms for s in specs} == {100.0, 150.0}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("policies:", "polices:"), "polices: unknown key"),
        (("[static, mucb1]", "[static, best]"), "policies: unknown policy 'best'; policies: static, "),
        (("[small.yaml]", "[nosuch]"), "scenario nosuch.*neither a file nor a shipped scenario"),
        (("[1, 2]", "[1, 2, 1]"), "seeds: 1 is there twice"),
        (("[1, 2]", "[]"), "seeds: needs a list"),
        (("[1, 2]", "[-1]"), "seeds: seed -1 is negative"),
        (("[100.0, 150.0]", "[100.0, 100.0]"), "control.guard_ms: 100.0 is there twice"),
        (("[100.0, 150.0]", "100.0"), "control.guard_ms: needs a list"),
        (("control.guard_ms:", "control.gard_ms:"), "control.gard_ms: unknown key"),
        (("control.guard_ms: [100.0, 150.0]", "emulation.flows: [0, -1]"), "emulation.flows"),
        (("duration_s: 10.0", "duration_s: 100.0"), "100 s are more than the scenario's 60 s"),
        (("duration_s: 10.0", "seeds: [3]"), "key 'seeds' twice"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(
    tmp_path: Path, change: tuple[str, str], match: str
) -> None:
    text = GRID.replace(*change)
    assert text != GRID
    with pytest.raises(sweep.SweepError, match=match) as error:
        sweep.runs(grid(tmp_path, text))
    assert "grid.yaml" in str(error.value)


def test_the_example_is_run_as_it_stands() -> None:
    specs = sweep.runs(sweep.EXAMPLE)
    rows = [sweep.labelled(sweep.row(spec), spec) for spec in specs]
    assert [(r["policy"], r["seed"], r["control.control_slot_s"]) for r in rows] == [
        (policy, seed, slot_s) for policy in ("mucb1", "headroom") for seed in (1, 2) for slot_s in (2.5, 5.0)
    ]
    assert [r["control_slots"] for r in rows] == [24, 12] * 4
    assert all(0 <= r["qos_delivery_ratio"] <= 1 for r in rows)


def test_a_sweep_goes_on_where_it_was_broken_off(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra 'research'")
    path = grid(tmp_path)
    assert run(path, "--jobs", 1).exit_code == 0
    whole = parquet.read_table(tmp_path / "grid.parquet").to_pylist()
    assert len(whole) == 8 and whole[0]["control.guard_ms"] == 100.0 and whole[0]["policy"] == "static"
    # Three rows and a torn fourth, as a crash leaves them.
    kept = tmp_path / "grid.jsonl"
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    (tmp_path / "grid.parquet").unlink()
    again = run(path, "--jobs", 1, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["already_there"] == 3
    rows = parquet.read_table(tmp_path / "grid.parquet").to_pylist()
    assert without_time(rows) == without_time(whole)
    assert rows[:3] == whole[:3]  # not run again: their wall time is the first run's
    assert json.loads(run(path, "--fresh", "--jobs", 1, "--json").stdout)["already_there"] == 0


def test_a_kept_row_has_the_parameters_of_the_sweep_that_asks_for_it() -> None:
    kept = {"key": "k", "scenario": "mucb1-1", "qos_delivery_ratio": 0.9, "emulation.flows": 2}
    spec = RunSpec("mucb1-1", "static", 1, "", {"emulation.prb": 106})
    assert sweep.labelled(kept, spec) == {
        "key": "k", "scenario": "mucb1-1", "qos_delivery_ratio": 0.9, "emulation.prb": 106,
    }  # fmt: skip


def test_results_that_are_not_of_a_sweep_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"key": "a"}\n[1]\n')
    with pytest.raises(results.ResultsError, match=r"x\.jsonl:2: not a result"):
        results.Results(path)
    assert path.read_text().endswith("[1]\n")


def test_two_processes_do_not_work_on_the_same_results(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with results.Results(path) as first:
        first.add({"key": "a"})
        with pytest.raises(
            Locked, match=rf"x\.jsonl is being written by another process: pid {os.getpid()} on host "
        ):
            results.Results(path, fresh=True)
    with results.Results(path) as again:
        assert again.rows == {"a": {"key": "a"}}


def die(_spec: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_local_worker_is_told_and_what_was_done_is_kept() -> None:
    with pytest.raises(pool.WorkersLost, match="worker process died"):
        list(pool.local(die, [1, 2], 2))


def tell_and_wait(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


WAITING = """
import sys
from controller.experiments import pool
from tests.experiments.test_sweep import tell_and_wait
if __name__ == "__main__":
    list(pool.local(tell_and_wait, [sys.argv[1]] * 2, 2))
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_worker_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    script, told = tmp_path / "waiting.py", tmp_path / "told"
    told.mkdir()
    script.write_text(WAITING)
    process = subprocess.Popen(
        [sys.executable, str(script), str(told)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    end = time.monotonic() + 60
    while len(list(told.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    workers = [int(file.name) for file in told.iterdir()]
    assert len(workers) == 2 and all(map(alive, workers))
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, workers))


@pytest.mark.parametrize(
    ("scheduler", "error", "match"),
    [
        ("tcp://10.0.0.1:8786", InsecureAddress, "not a loopback address.*tls://"),
        ("tls://10.0.0.1:8786", InsecureAddress, "needs --keys"),
        ("127.0.0.1:8786", ValueError, "neither tcp://"),
    ],
)
def test_a_cluster_beyond_loopback_needs_keys(scheduler: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        list(pool.dask(die, [1], scheduler))


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"ca\.crt: there is no such file"):
        list(pool.dask(die, [1], "tls://10.0.0.1:8786", keys=tmp_path))


def tls(keys: Path | None, role: str) -> tuple[str, ...]:
    """Options of ``dask scheduler`` and ``dask worker``."""
    if keys is None:
        return ()
    files = {"ca-file": "ca.crt", "cert": f"{role}.crt", "key": f"{role}.key"}
    return tuple(f"--tls-{option}={keys / name}" for option, name in files.items())


# ---- a real cluster --------------------------------------------------------------------------------------


class Cluster:
    """A Dask scheduler and two workers without nannies: a worker that is killed stays dead.

    With ``keys``, the folder of ``prbandit keys``, over TLS.
    """

    def __init__(self, folder: Path, keys: Path | None = None) -> None:
        self._log = (folder / "cluster.log").open("wb")
        self.address = ""
        file = folder / "scheduler.json"
        no_page = ("--no-dashboard",)
        scheme = "tcp" if keys is None else "tls"
        own, theirs = tls(keys, "controller"), tls(keys, "operator")
        self._scheduler = self._start(
            *("scheduler", "--host", f"{scheme}://127.0.0.1", "--port", "0"),
            *("--scheduler-file", str(file), *own, *no_page),
        )
        end = time.monotonic() + 60
        while not self.address and time.monotonic() < end:
            time.sleep(0.1)
            if file.exists() and file.read_text():
                self.address = json.loads(file.read_text())["address"]
        assert self.address, (folder / "cluster.log").read_text()
        self.workers = [
            self._start("worker", self.address, "--nthreads", "1", "--no-nanny", *theirs, *no_page)
            for _ in range(2)
        ]

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", "dask", what, *arguments],
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
            env=environment,
        )

    def close(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()
        self._log.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="a Dask cluster needs the extra 'sweep'")
    one = Cluster(tmp_path)
    yield one
    one.close()


def lose_a_worker(folder: Path, cluster: Cluster, security: Any, keys: Path | None) -> None:
    """Do a grid, kill a worker after the first run, and compare with what one process gives."""
    import distributed

    path = grid(folder, GRID.replace("duration_s: 10.0", "duration_s: 60.0"))
    todo = sweep.runs(path)
    with distributed.Client(cluster.address, security=security, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        of_cluster = client.scheduler_info()["workers"]
    assert {address.partition("://")[0] for address in of_cluster} == {cluster.address.partition("://")[0]}
    kept = results.Results(folder / "cluster.jsonl")
    finished = []
    for spec in results.carry_out(
        todo, sweep.row, kept, lambda f, jobs: pool.dask(f, jobs, cluster.address, keys=keys)
    ):
        finished.append(spec)
        if len(finished) == 1:
            cluster.workers[0].send_signal(signal.SIGKILL)
    kept.close()
    assert cluster.workers[0].wait(10) == -signal.SIGKILL and cluster.workers[1].poll() is None
    assert len(finished) == 8 == len(kept.rows)
    expected = [sweep.row(spec) for spec in todo]
    on_disk = [json.loads(line) for line in (folder / "cluster.jsonl").read_text().splitlines()]
    assert without_time(on_disk) == without_time(expected)


def test_nothing_is_lost_when_a_worker_of_a_dask_cluster_is_killed(tmp_path: Path, cluster: Cluster) -> None:
    lose_a_worker(tmp_path, cluster, None, None)


# ---- the same over TLS -----------------------------------------------------------------------------------


def new_keys(folder: Path) -> Path:
    pytest.importorskip("cryptography", reason="certificates need the extra 'keys'")
    from wire import keys

    keys.create(folder, cells=[], hosts=["127.0.0.1"])
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return new_keys(tmp_path / "keys")


@pytest.fixture
def secure(tmp_path: Path, keys: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="a Dask cluster needs the extra 'sweep'")
    one = Cluster(tmp_path, keys)
    yield one
    one.close()


def test_nothing_is_lost_over_tls_either(tmp_path: Path, secure: Cluster, keys: Path) -> None:
    from distributed.security import Security

    assert secure.address.startswith("tls://")
    files = {"tls_ca_file": "ca.crt", "tls_client_cert": "operator.crt", "tls_client_key": "operator.key"}
    security = Security(require_encryption=True, **{name: str(keys / file) for name, file in files.items()})
    lose_a_worker(tmp_path, secure, security, keys)


def test_a_scheduler_of_another_authority_gets_no_work(
    tmp_path: Path, secure: Cluster, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither side trusts the other; without keys, and without TLS, there is no way in either."""
    monkeypatch.setattr(pool, "WAIT_S", 3.0)
    other = new_keys(tmp_path / "other")
    ran = tmp_path / "ran"
    ran.mkdir()
    for address, folder in (
        (secure.address, other),
        (secure.address.replace("tls://", "tcp://"), None),
    ):
        with pytest.raises(ConnectionError, match="no Dask scheduler answers at"):
            list(pool.dask(touch, [str(ran / "a")], address, keys=folder))
    # Their certificate authority with a certificate that it did not sign: the scheduler has to refuse.
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, source in (("ca.crt", keys), ("operator.crt", other), ("operator.key", other)):
        (mixed / name).write_bytes((source / name).read_bytes())
    with pytest.raises(ConnectionError, match="no Dask scheduler answers at"):
        list(pool.dask(touch, [str(ran / "b")], secure.address, keys=mixed))
    assert not list(ran.iterdir())
    monkeypatch.setattr(pool, "WAIT_S", 60.0)
    assert list(pool.dask(touch, [str(ran / "c")], secure.address, keys=keys)) == [(0, None)]
    assert [file.name for file in ran.iterdir()] == ["c"]


def touch(path: str) -> None:
    Path(path).touch()


def test_the_command_sweeps_over_tls(tmp_path: Path, secure: Cluster, keys: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra 'research'")
    path = grid(tmp_path)
    done = run(path, "--scheduler", secure.address, "--keys", keys, "--json")
    assert done.exit_code == 0, done.output
    rows = parquet.read_table(tmp_path / "grid.parquet").to_pylist()
    assert without_time(rows) == without_time([sweep.row(spec) for spec in sweep.runs(path)])
