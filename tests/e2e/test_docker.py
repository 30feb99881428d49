"""docker-compose.yml on a real engine: keys, decisions, strangers, a killed controller, a clean end.

Needs docker-compose, the base image and a Docker engine on this host: containers are also reached at their
addresses on its bridge. Skips where there is no engine; with ``PRBANDIT_REQUIRE_DOCKER=1`` it fails instead.
The image stays behind as a build cache; containers, networks and volumes do not.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import zmq

from controller.cli.ports import free_port
from controller.links.operator import OperatorClient
from tests.e2e.harness import missing, until
from wire import (
    PROTOCOL_VERSION,
    edge_pb2,
    edge_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    qos_pb2,
    qos_pb2_grpc,
    ran_pb2,
)
from wire.security import CurveClient, Tls, channel_credentials, curve_client

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
REQUIRED_BY = "PRBANDIT_REQUIRE_DOCKER"
SERVICES = ("edge-agent", "controller", "gnb-mock")
T = TypeVar("T", bound="Stack")
SILENCE_S = 2.0
"""How long a stranger waits for an answer; a cell's agent has it within milliseconds."""


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30).returncode
    ):
        return ["docker", "compose"]
    missing("neither docker-compose nor docker compose is installed", REQUIRED_BY)


class Stack:
    """The services of docker-compose.yml under a project name and on ports of their own."""

    def __init__(self, engine: Any, folder: Path) -> None:
        self.engine = engine
        self.project = f"prbandit-e2e-{secrets.token_hex(4)}"
        self.folder = folder
        self.operator_port, self.metrics_port = free_port(), free_port()
        self._command = compose_command()
        self._files = [ROOT / "docker-compose.yml"]
        self._environment = {
            **os.environ,
            "PRBANDIT_IMAGE": "prbandit:e2e",
            "PRBANDIT_OPERATOR_PORT": str(self.operator_port),
            "PRBANDIT_METRICS_PORT": str(self.metrics_port),
            "PRBANDIT_PAGE_PORT": str(free_port()),
        }

    def compose(self, *arguments: str, timeout_s: float) -> str:
        files = [argument for file in self._files for argument in ("-f", str(file))]
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

    @property
    def labelled(self) -> dict[str, str]:
        return {"label": f"com.docker.compose.project={self.project}"}

    def container(self, service: str) -> Any:
        labels = [self.labelled["label"], f"com.docker.compose.service={service}"]
        (found,) = self.engine.containers.list(all=True, filters={"label": labels})
        return found

    def health(self, service: str) -> str:
        return str(self.container(service).attrs["State"]["Health"]["Status"])

    def address(self, service: str) -> str:
        networks = self.container(service).attrs["NetworkSettings"]["Networks"].values()
        return str(next(n["IPAddress"] for n in networks))

    def run(self, service: str, *command: str) -> str:
        code, output = self.container(service).exec_run(list(command))
        assert code == 0, f"{service}: {command}: {output.decode(errors='replace')}"
        return str(output.decode())

    def log(self, service: str, **options: Any) -> str:
        return str(self.container(service).logs(**options).decode(errors="replace"))

    def copy_keys(self) -> None:
        """The keys volume, as the folder :attr:`keys` of this host."""
        chunks, _ = self.container("controller").get_archive("/keys")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            archive.extractall(self.folder, filter="data")

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def operator(self) -> OperatorClient:
        return OperatorClient(f"localhost:{self.operator_port}", Tls(self.keys, "operator"))

    def cell(self) -> dict[str, Any]:
        with self.operator() as client:
            (cell,) = client.state()["cells"]
        return dict(cell)

    def gnb(self) -> dict[str, Any]:
        """What the emulated gNB says of itself, once a second."""
        return dict(json.loads(self.run("gnb-mock", "cat", "/tmp/heartbeat")))

    def gpu_lock(self) -> int:
        """MHz to which the GPU is locked, 0: not locked."""
        options = [("grpc.ssl_target_name_override", "edge-agent"), ("grpc.enable_http_proxy", 0)]
        credentials = channel_credentials(self.keys, "operator")
        with grpc.secure_channel(f"{self.address('edge-agent')}:50061", credentials, options) as channel:
            watch = edge_pb2_grpc.EdgeStub(channel).WatchGpu(
                edge_pb2.WatchGpuRequest(period_ms=50), timeout=30
            )
            return int(next(iter(watch)).locked_mhz)

    def close(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", timeout_s=120)
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
            print(stack.compose("logs", "--no-color", timeout_s=60))
        finally:
            stack.close()
            engine.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with composed(lambda engine: Stack(engine, tmp_path_factory.mktemp("docker"))) as stack:
        stack.compose("build", "controller", timeout_s=600)
        stack.compose("up", "-d", "--no-build", timeout_s=120)
        for service in SERVICES:
            until(lambda service=service: stack.health(service) == "healthy", f"a healthy {service}", 120)
        stack.copy_keys()
        yield stack


def test_every_container_is_healthy_without_root_and_capabilities(stack: Stack) -> None:
    for service in SERVICES:
        assert stack.health(service) == "healthy"
        assert stack.run(service, "id", "-u").strip() == "10001"
        status = dict(re.findall(r"(?m)^(\w+):\t(.*)$", stack.run(service, "cat", "/proc/1/status")))
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
    assert stack.container("keys").wait(timeout=30)["StatusCode"] == 0
    # Health means something: the controller's check fails where nobody answers.
    code, _ = stack.container("controller").exec_run(
        ["prbandit", "status", "--keys", "/keys", "--operator", "localhost:1"]
    )
    assert code != 0


def test_decisions_arrive_over_tls_and_their_qos_comes_back(stack: Stack) -> None:
    with stack.operator() as client:
        watch = client.watch("cell-1")
        records = iter(watch)
        first, second = next(records), next(records)
        watch.cancel()
    assert second["control_slot"] == first["control_slot"] + 1
    choices = second["slices"]["ar"]["choices"]
    assert [c["lever"] for c in choices] == ["ul", "edge", "dl"] and all(c["why"] for c in choices)
    closed = until(
        lambda: (s := stack.cell()["last"]["slices"]["ar"]["closed"])["busy"] and not s["unattributed"] and s,
        "a control slot that was learned from",
        60,
    )
    assert all(closed["measures"][leg]["samples"] > 0 for leg in ("round_trip", "ul", "edge", "dl"))
    assert until(lambda: stack.gnb()["quotas"], "a quota at the gNB").keys() == {"ar"}
    assert until(stack.gpu_lock, "a clock lock") >= 500


def test_metrics_come_over_https_alone(stack: Stack) -> None:
    trusted = ssl.create_default_context(cafile=str(stack.keys / "ca.crt"))
    trusted.load_cert_chain(stack.keys / "operator.crt", stack.keys / "operator.key")
    secure = http.client.HTTPSConnection("localhost", stack.metrics_port, timeout=10, context=trusted)
    secure.request("GET", "/metrics")
    page = secure.getresponse().read().decode()
    secure.close()
    assert "# HELP prbandit_" in page and 'cell="cell-1"' in page
    plain = http.client.HTTPConnection("localhost", stack.metrics_port, timeout=10)
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.request("GET", "/metrics")
        plain.getresponse()
    plain.close()


CALLS: dict[str, Callable[[grpc.Channel], Any]] = {
    "operator": lambda channel: operator_pb2_grpc.OperatorStub(channel).Hello(
        operator_pb2.OperatorHello(protocol_version=PROTOCOL_VERSION), timeout=30
    ),
    "qos": lambda channel: next(
        qos_pb2_grpc.QosIngestStub(channel).Publish(
            iter([qos_pb2.QosMessage(hello=qos_pb2.QosHello(protocol_version=0))]), timeout=30
        )
    ),
    "edge": lambda channel: edge_pb2_grpc.EdgeStub(channel).Hello(
        edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder="stranger"), timeout=30
    ),
}


@pytest.mark.parametrize("link", CALLS)
def test_a_grpc_client_without_our_certificate_gets_nothing(stack: Stack, link: str) -> None:
    service, port = {
        "operator": ("controller", 50063),
        "qos": ("controller", 50062),
        "edge": ("edge-agent", 50061),
    }[link]
    address = f"{stack.address(service)}:{port}"
    options = [("grpc.ssl_target_name_override", service), ("grpc.enable_http_proxy", 0)]
    ca = (stack.keys / "ca.crt").read_bytes()
    for channel in (
        grpc.insecure_channel(address, options),
        grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates=ca), options),
    ):
        with channel, pytest.raises(grpc.RpcError) as refused:
            CALLS[link](channel)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    # The address is right: with the operator's certificate the service itself answers.
    with grpc.secure_channel(address, channel_credentials(stack.keys, "operator"), options) as channel:
        try:
            CALLS[link](channel)
        except grpc.RpcError as answer:
            denied = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED)
            assert answer.code() in denied, answer


def test_a_controller_without_keys_refuses_to_listen_beyond_loopback(stack: Stack) -> None:
    code, output = stack.container("controller").exec_run(
        ["prbandit", "controller", "/etc/prbandit/config.yaml", "--no-record", "--set", "security.keys=null"]
    )
    assert code == 1
    assert re.search(r"tcp://0\.0\.0\.0:5555 is not a loopback address and security\.keys", output.decode())


def answer_to_hello(
    address: str, curve: CurveClient | None, version: int
) -> ran_pb2.ControllerMessage | None:
    """What the RAN link answers to the Hello of a cell-1, None where it says nothing."""
    hello = ran_pb2.Hello(
        protocol_version=version,
        cell_id="cell-1",
        prb=106,
        scs_khz=30,
        tdd=ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=4, ul_symbols=6, ul_slots=3),
        agent_version="stranger",
    )
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        if curve is not None:
            curve.apply(socket)
        socket.connect(address)
        socket.send(ran_pb2.GnbMessage(hello=hello).SerializeToString())
        if not socket.poll(int(SILENCE_S * 1e3)):
            return None
        return ran_pb2.ControllerMessage.FromString(socket.recv())


def test_a_dealer_without_the_cells_curve_key_gets_nothing(stack: Stack) -> None:
    address = f"tcp://{stack.address('controller')}:5555"
    session = stack.cell()["session"]
    ours = curve_client(stack.keys, "cell-1")
    assert answer_to_hello(address, None, PROTOCOL_VERSION) is None
    assert answer_to_hello(address, CurveClient(ours.server, *zmq.curve_keypair()), PROTOCOL_VERSION) is None
    # The address is right: with the cell's key even another version gets its answer.
    answer = answer_to_hello(address, ours, 999)
    assert answer is not None and answer.WhichOneof("body") == "reject"
    assert stack.cell()["session"] == session


def test_a_killed_controller_frees_the_network_and_goes_on_learning_when_it_is_back(stack: Stack) -> None:
    until(lambda: stack.gnb()["quotas"] and stack.gpu_lock(), "quotas and a clock lock")
    before, lapsed = stack.cell()["control_slots"], stack.gnb()["ran"].get("leases_lapsed", 0)
    controller = stack.container("controller")

    controller.kill("SIGKILL")
    until(lambda: not stack.gnb()["quotas"], "the gNB at all PRBs")
    until(lambda: not stack.gpu_lock(), "the GPU unlocked")
    assert stack.gnb()["ran"]["leases_lapsed"] == lapsed + 1
    assert stack.container("controller").status == "exited"

    controller.start()
    until(lambda: stack.cell()["control_slots"] >= before + 3, "control slots after the restart")
    until(lambda: stack.gnb()["quotas"] and stack.gpu_lock(), "quotas and a clock lock after the restart")
    resumed = re.findall(r"learning_resumed: at control slot (\d+)", stack.log("controller"))
    assert len(resumed) == 1 and int(resumed[0]) >= before, resumed


def test_every_container_ends_cleanly_on_sigterm(stack: Stack) -> None:
    before = until(lambda: (gnb := stack.gnb())["quotas"] and gnb, "quotas")["ran"]
    stack.container("controller").stop(timeout=10)
    until(lambda: not stack.gnb()["quotas"], "the gNB released by a clean end")
    after = stack.gnb()["ran"]
    assert after["releases"] == before.get("releases", 0) + 1
    assert after.get("leases_lapsed") == before.get("leases_lapsed")
    for service in ("gnb-mock", "edge-agent"):
        stack.container(service).stop(timeout=10)
    for service in SERVICES:
        assert stack.container(service).attrs["State"]["ExitCode"] == 0, service
        assert "Traceback" not in stack.log(service), service
