"""The containers of docker-compose.yml on a real engine: started, asked, broken and mended.

Containers are reached at their addresses on the engine's bridge, so the engine is on this host.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from controller.links.operator import OperatorClient
from tests.agents.gpu.stub import GpuState, StubState
from tests.e2e.harness import missing, until
from wire.security import Tls

ROOT = Path(__file__).resolve().parents[2]
REQUIRED_BY = "PRBANDIT_REQUIRE_DOCKER"
GPU_STATE = "/var/lib/prbandit/gpu/state"
BUILD_S = 1800.0
START_S = 120.0
LATE_NS = 500_000_000
"""What a loaded host may hold up a process that has a lease to end."""
T = TypeVar("T", bound="Stack")


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30).returncode
    ):
        return ["docker", "compose"]
    missing("neither docker-compose nor docker compose is installed", REQUIRED_BY)


class Instant(NamedTuple):
    """Now, on the two clocks that the emulated gNB and the stub's GPU tell their changes by; ns."""

    real: int
    mono: int

    @classmethod
    def now(cls) -> Self:
        return cls(time.time_ns(), time.monotonic_ns())


EVER = Instant(0, 0)


class Stack:
    """The services of docker-compose.yml and ``files``, under a project name of their own."""

    def __init__(self, engine: Any, folder: Path, *files: Path) -> None:
        self.engine = engine
        self.project = f"prbandit-e2e-{secrets.token_hex(4)}"
        self.folder = folder
        self._command = compose_command()
        self.files = [ROOT / "docker-compose.yml", *files]
        ports = {f"PRBANDIT_{name}_PORT": "0" for name in ("OPERATOR", "METRICS", "PROMETHEUS", "GRAFANA")}
        images = {"PRBANDIT_IMAGE": "prbandit:ci", "PRBANDIT_STUB_IMAGE": "prbandit:ci-nvml-stub"}
        self._environment = {**os.environ, **ports, **images}

    def compose(self, *arguments: str, timeout_s: float = START_S) -> str:
        files = [argument for file in self.files for argument in ("-f", str(file))]
        done = subprocess.run(
            [*self._command, "-p", self.project, *files, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            timeout=timeout_s,
        )
        text = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"docker-compose {' '.join(arguments)}:\n{text[-4000:]}"
        return text

    def up(self, *services: str) -> None:
        """Start them and wait until they are healthy."""
        self.compose("up", "-d", "--no-build", *services)
        for service in services:
            self.healthy(service)

    # ---- what the engine knows ---------------------------------------------------------------------------

    @property
    def labelled(self) -> dict[str, str]:
        return {"label": f"com.docker.compose.project={self.project}"}

    def container(self, service: str) -> Any:
        labels = [self.labelled["label"], f"com.docker.compose.service={service}"]
        (found,) = self.engine.containers.list(all=True, filters={"label": labels})
        return found

    def network(self, name: str) -> Any:
        labels = [self.labelled["label"], f"com.docker.compose.network={name}"]
        (found,) = self.engine.networks.list(filters={"label": labels})
        return found

    def state(self, service: str) -> dict[str, Any]:
        return dict(self.container(service).attrs["State"])

    def healthy(self, service: str) -> None:
        until(lambda: self.state(service)["Health"]["Status"] == "healthy", f"a healthy {service}", START_S)

    def address(self, service: str) -> str:
        """Its address on the engine's bridge; OSError where it has none."""
        networks = self.container(service).attrs["NetworkSettings"]["Networks"].values()
        for network in networks:
            if network["IPAddress"]:
                return str(network["IPAddress"])
        raise OSError(f"{service} is on no network")

    def published(self, service: str, port: int) -> int:
        """The port of this host's loopback address that leads to a service's."""
        (binding,) = self.container(service).attrs["NetworkSettings"]["Ports"][f"{port}/tcp"]
        assert binding["HostIp"] == "127.0.0.1"
        return int(binding["HostPort"])

    def run(self, service: str, *command: str) -> str:
        code, output = self.container(service).exec_run(list(command))
        if code:
            raise OSError(f"{service}: {command}: {output.decode(errors='replace')}")
        return str(output.decode())

    def log(self, service: str, **options: Any) -> str:
        return str(self.container(service).logs(**options).decode(errors="replace"))

    def archive(self, service: str, path: str) -> tarfile.TarFile:
        """A file or folder of a container, of a stopped one too."""
        chunks, _ = self.container(service).get_archive(path)
        return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))

    # ---- what its parts say of themselves ----------------------------------------------------------------

    def copy_keys(self) -> None:
        """The keys volume, as the folder :attr:`keys` of this host."""
        with self.archive("controller", "/keys") as archive:
            archive.extractall(self.folder, filter="data")

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def operator(self) -> OperatorClient:
        return OperatorClient(f"{self.address('controller')}:50063", Tls(self.keys, "operator"))

    def cell(self) -> dict[str, Any]:
        with self.operator() as client:
            (cell,) = client.state()["cells"]
        return dict(cell)

    def gnb(self) -> dict[str, Any]:
        """What the emulated gNB says of itself, once a second."""
        return dict(json.loads(self.run("gnb-mock", "cat", "/tmp/heartbeat")))

    def gpu(self) -> GpuState:
        """The GPU of the stub, whoever runs."""
        with self.archive("edge-agent", GPU_STATE) as archive:
            file = archive.extractfile(Path(GPU_STATE).name)
            assert file is not None
            return StubState.from_buffer_copy(file.read()).gpu[0]

    def close(self) -> None:
        self.compose(*("--profile", "monitoring", "down", "--volumes", "--remove-orphans", "--timeout", "5"))
        assert not self.engine.containers.list(all=True, filters=self.labelled)
        assert not self.engine.networks.list(filters=self.labelled)
        assert not self.engine.volumes.list(filters=self.labelled)


@contextmanager
def composed(make: Callable[[Any], T]) -> Iterator[T]:
    """What ``make`` makes of the Docker engine; in the end its logs are shown and all of it is removed."""
    try:
        import docker
    except ImportError:
        missing("the docker package is not installed: pip install -e '.[dev]'", REQUIRED_BY)
    try:
        engine = docker.from_env()
        engine.ping()
    except docker.errors.DockerException as error:
        missing(f"no Docker engine: {error}", REQUIRED_BY)
    stack = make(engine)
    try:
        yield stack
    finally:
        try:
            print(stack.compose("--profile", "monitoring", "logs", "--no-color"))
        finally:
            stack.close()
            engine.close()


# ---- failures ---------------------------------------------------------------------------------------------


class Injected(NamedTuple):
    """A failure, and what it took, s; None: not of this failure.

    prb, gpu: from the failure until the gNB was at all PRBs and the GPU at its default clocks.
    control: from its mend until quotas and a clock lock were in force again.
    """

    what: str
    mend: str
    prb: float | None
    gpu: float | None
    control: float


def table(rows: list[Injected]) -> str:
    """The failures, one a line."""

    def cell(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds:.1f}"

    head = ("failure injected", "all PRBs, s", "GPU unlocked, s", "mended by", "control resumed, s")
    lines = [head, *((r.what, cell(r.prb), cell(r.gpu), r.mend, cell(r.control)) for r in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = (1, 2, 4)
    return "\n".join(
        "  ".join(
            x.rjust(w) if i in right else x.ljust(w) for i, (x, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in lines
    )


class Failures:
    """Injects failures into a stack and times what follows, on the gNB's and the GPU's own clocks."""

    def __init__(self, stack: Stack, lease_s: float) -> None:
        self.stack = stack
        self.lease_s = lease_s
        self.rows: list[Injected] = []

    def controlled(self, since: Instant = EVER) -> Instant:
        """Wait for quotas at the gNB and a locked GPU, both set since then; when the later of them was."""

        def prb() -> int:
            gnb = self.stack.gnb()
            return int(gnb["quotas_since_ns"]) if gnb["quotas"] else 0

        def gpu() -> int:
            state = self.stack.gpu()
            return int(state.change_ns) if state.locked_mhz else 0

        real = until(lambda: (at := prb()) > since.real and at, "quotas at the gNB", START_S)
        mono = until(lambda: (at := gpu()) > since.mono and at, "a lock of the GPU", START_S)
        return Instant(real, mono)

    def all_prbs(self) -> int:
        """Wait for the gNB to be at all PRBs; since when, CLOCK_REALTIME."""
        gnb = until(lambda: not (g := self.stack.gnb())["quotas"] and g, "a gNB at all PRBs")
        return int(gnb["quotas_since_ns"])

    def unlocked(self) -> int:
        """Wait for the GPU to be at its default clocks; since when, CLOCK_MONOTONIC."""
        gpu = until(lambda: not (g := self.stack.gpu()).locked_mhz and g, "an unlocked GPU")
        return int(gpu.change_ns)

    def inject(
        self,
        what: str,
        fail: Callable[[], Any],
        mend: Callable[[], Any],
        by: str,
        *,
        prb: bool = True,
        within_lease: tuple[str, ...] = (),
    ) -> Injected:
        """Break it, wait for full resources, mend it, wait for control.

        ``prb``: the gNB is there to be asked. ``within_lease``: what is promised within one lease of the
        moment in which the failure was complete: "prb", "gpu".
        """
        self.controlled()
        before = Instant.now()
        fail()
        after = Instant.now()
        free = {"prb": self.all_prbs() - after.real} if prb else {}
        free["gpu"] = self.unlocked() - after.mono
        for resource in within_lease:
            assert free[resource] <= self.lease_s * 1e9 + LATE_NS, (
                f"{what}: {resource} at full resources {free[resource] / 1e9:.2f} s after, "
                f"with a lease of {self.lease_s:g} s"
            )
        mending = Instant.now()
        mend()
        resumed = self.controlled(mending)
        took = max(resumed.real - mending.real, resumed.mono - mending.mono)
        failing = after.mono - before.mono
        seconds = {name: (ns + failing) / 1e9 for name, ns in free.items()}
        row = Injected(what, by, seconds.get("prb"), seconds.get("gpu"), took / 1e9)
        self.rows.append(row)
        return row
