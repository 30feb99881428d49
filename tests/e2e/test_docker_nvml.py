"""The edge agent's container on the NVML backend, with the stub libnvidia-ml.so.1 mounted for a driver's.

Needs what test_docker.py needs, and a C compiler.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.agents.gpu import stub as stub_module
from tests.agents.gpu.stub import Stub
from tests.e2e.harness import missing
from tests.e2e.stack import BUILD_S, REQUIRED_BY, ROOT, Stack, composed
from wire import edge_pb2, edge_pb2_grpc
from wire.security import channel_credentials

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CAPABILITIES = 1 << 2 | 1 << 21
"""CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN."""


class EdgeStack(Stack):
    """The edge agent alone, as deploy/compose.nvml.yaml has it but for the GPU."""

    def __init__(self, engine: Any, folder: Path, stub: Stub) -> None:
        super().__init__(engine, folder, ROOT / "deploy/compose.ci.yml", folder / "override.yaml")
        service = yaml.safe_load((ROOT / "deploy/compose.nvml.yaml").read_text())["services"]["edge-agent"]
        del service["deploy"]
        service["environment"] = {"LD_LIBRARY_PATH": "/stub", stub_module.STATE: f"/stub/{stub.path.name}"}
        service["volumes"] = [f"{stub.path.parent}:/stub"]
        (folder / "override.yaml").write_text(yaml.safe_dump({"services": {"edge-agent": service}}))

    def copy_keys(self) -> None:
        self.keys.mkdir(exist_ok=True)
        for name in ("ca.crt", "controller.crt", "controller.key"):
            (self.keys / name).write_text(self.run("edge-agent", "cat", f"/keys/{name}"))

    def edge(self, call: str, request: Any) -> Any:
        options = [("grpc.ssl_target_name_override", "edge-agent"), ("grpc.enable_http_proxy", 0)]
        credentials = channel_credentials(self.keys, "controller")
        with grpc.secure_channel(f"{self.address('edge-agent')}:50061", credentials, options) as channel:
            answer = getattr(edge_pb2_grpc.EdgeStub(channel), call)(request, timeout=10)
            return next(answer) if call == "WatchGpu" else answer

    def lock(self, mhz: int) -> edge_pb2.ClockLock:
        request = edge_pb2.LockClocksRequest(holder="test", mhz=mhz, lease_ms=60_000)
        return self.edge("LockClocks", request)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Stub:
    try:
        library = stub_module.build() / stub_module.LIBRARY
    except stub_module.NoCompiler as reason:
        missing(str(reason), REQUIRED_BY)
    folder = tmp_path_factory.mktemp("stub")
    shutil.copy(library, folder)
    return Stub(folder / "gpus")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, stub: Stub) -> Iterator[EdgeStack]:
    with composed(lambda engine: EdgeStack(engine, tmp_path_factory.mktemp("docker"), stub)) as stack:
        stack.compose("build", "edge-agent", timeout_s=BUILD_S)
        stack.up("edge-agent")
        stack.copy_keys()
        yield stack


def test_the_container_drives_the_gpu_with_two_capabilities(stack: EdgeStack, stub: Stub) -> None:
    status = stack.run("edge-agent", "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == CAPABILITIES
    held = stack.lock(1000)
    assert (held.locked_mhz, held.sm_mhz, held.reached) == (1005, 1005, True)
    state = stack.edge("WatchGpu", edge_pb2.WatchGpuRequest(period_ms=50))
    assert state.sm_mhz == 1005 == stub.gpu.locked_mhz and state.power_w > 10


def test_the_release_command_frees_a_gpu_without_an_agent(stack: EdgeStack, stub: Stub) -> None:
    stack.lock(900)
    container = stack.container("edge-agent")
    container.kill("SIGKILL")
    container.wait(timeout=30)
    assert stub.gpu.locked_mhz == 900
    stack.compose("run", "--rm", "--no-deps", "edge-agent", "edge-agent", "release")
    assert stub.gpu.locked_mhz == 0
