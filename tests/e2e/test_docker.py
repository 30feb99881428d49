"""docker-compose.yml and deploy/compose.ci.yml on a real engine: keys, decisions, strangers, failures.

Needs docker-compose, the base image and a Docker engine on this host. Skips where there is no engine; with
``PRBANDIT_REQUIRE_DOCKER=1`` it fails instead. The images stay behind as a build cache; containers, networks
and volumes do not. In the end it prints what each failure injected took.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import yaml
import zmq

from tests.e2e.harness import missing, until
from tests.e2e.stack import (
    BUILD_S,
    REQUIRED_BY,
    ROOT,
    START_S,
    Failures,
    Injected,
    Instant,
    Stack,
    composed,
    table,
)
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
from wire.security import CurveClient, channel_credentials, curve_client

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CI = ROOT / "deploy/compose.ci.yml"
SERVICES = ("edge-agent", "controller", "gnb-mock")
SILENCE_S = 2.0
"""How long a stranger waits for an answer; a cell's agent has it within milliseconds."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with composed(lambda engine: Stack(engine, tmp_path_factory.mktemp("docker"), CI)) as stack:
        stack.compose("build", "controller", "edge-agent", timeout_s=BUILD_S)
        stack.up(*SERVICES)
        stack.copy_keys()
        yield stack


@pytest.fixture(scope="module")
def failures(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Failures]:
    command = yaml.safe_load(CI.read_text())["services"]["controller"]["command"]
    (lease_s,) = [float(x.partition("lease_s=")[2]) for x in command if "lease_s=" in x]
    failures = Failures(stack, lease_s)
    yield failures
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\nFailures injected into the containers, with a lease of {lease_s:g} s:\n")
        print(table(failures.rows), flush=True)


def test_every_container_is_healthy_without_root_and_capabilities(stack: Stack) -> None:
    for service in SERVICES:
        assert stack.state(service)["Health"]["Status"] == "healthy"
        assert stack.run(service, "id", "-u").strip() == "10001"
        with pytest.raises(OSError, match="Read-only file system"):
            stack.run(service, "touch", "/usr/local/new")
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
    assert until(lambda: stack.gpu().locked_mhz, "a clock lock") >= 500


def test_metrics_come_over_https_alone(stack: Stack) -> None:
    trusted = ssl.create_default_context(cafile=str(stack.keys / "ca.crt"))
    trusted.load_cert_chain(stack.keys / "operator.crt", stack.keys / "operator.key")
    port = stack.published("controller", 9464)
    secure = http.client.HTTPSConnection("localhost", port, timeout=10, context=trusted)
    secure.request("GET", "/metrics")
    page = secure.getresponse().read().decode()
    secure.close()
    assert "# HELP prbandit_" in page and 'cell="cell-1"' in page
    plain = http.client.HTTPConnection("localhost", port, timeout=10)
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.request("GET", "/metrics")
        plain.getresponse()
    plain.close()


STAND_IN = """
FROM python:3.11-slim-bookworm
COPY prometheus promtool /bin/
RUN install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
"""
"""An image as prom/prometheus is, of this host's Prometheus: registries are not reached from everywhere."""


def test_prometheus_scrapes_every_page_with_its_own_key_alone(stack: Stack) -> None:
    for program in ("prometheus", "promtool"):
        if (path := shutil.which(program)) is None:
            missing(f"{program} is not installed (apt install prometheus)", REQUIRED_BY)
        shutil.copy(path, stack.folder)
    (stack.folder / "Dockerfile").write_text(STAND_IN)
    (stack.folder / ".dockerignore").write_text("*\n!prometheus\n!promtool\n")
    image, _ = stack.engine.images.build(path=str(stack.folder), rm=True)
    override = stack.folder / "prometheus.yml"
    # Debian 12's promtool has no `check healthy' yet; whether it scrapes is asked below.
    stand_in = {"image": image.id, "healthcheck": {"test": ["CMD", "promtool", "--version"]}}
    override.write_text(yaml.safe_dump({"services": {"prometheus": stand_in}}))
    stack.files.append(override)

    stack.up("prometheus")
    port = stack.published("prometheus", 9090)

    def targets() -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=10) as answer:
            active = json.load(answer)["data"]["activeTargets"]
        return {t["labels"]["job"]: t["lastError"] or t["health"] for t in active}

    jobs = {"prbandit-controller": "up", "prbandit-edge-agent": "up"}
    until(lambda: targets() == jobs, "a scrape of each page")
    assert stack.run("prometheus", "ls", "/keys").split() == ["ca.crt", "prometheus.crt", "prometheus.key"]
    assert stack.run("prometheus", "id", "-u").strip() == "65534"


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


# ---- failures ---------------------------------------------------------------------------------------------


def test_a_killed_controller_frees_the_network_and_goes_on_learning_when_it_is_back(
    stack: Stack, failures: Failures
) -> None:
    before = until(lambda: stack.cell()["control_slots"], "a control slot")
    lapsed = stack.gnb()["ran"].get("leases_lapsed", 0)
    controller = stack.container("controller")
    failures.inject(
        "controller killed (SIGKILL)",
        lambda: (controller.kill("SIGKILL"), controller.wait(timeout=30)),
        controller.start,
        "start",
        within_lease=("prb", "gpu"),
    )
    assert stack.gnb()["ran"]["leases_lapsed"] == lapsed + 1
    until(lambda: stack.cell()["control_slots"] >= before + 3, "control slots after the restart")
    resumed = re.findall(r"learning_resumed: at control slot (\d+)", stack.log("controller"))
    assert len(resumed) == 1 and int(resumed[0]) >= before, resumed


def test_a_frozen_controller_frees_the_network(stack: Stack, failures: Failures) -> None:
    controller = stack.container("controller")
    failures.inject(
        "controller frozen (docker pause)",
        controller.pause,
        controller.unpause,
        "unpause",
        within_lease=("prb", "gpu"),
    )


def test_a_controller_that_is_cut_off_is_free_of_both_and_takes_over_again(
    stack: Stack, failures: Failures
) -> None:
    controller, network = stack.container("controller"), stack.network("testbed")
    failures.inject(
        "controller cut off the network",
        lambda: network.disconnect(controller),
        lambda: network.connect(controller, aliases=["controller"]),
        "connect",
        within_lease=("prb", "gpu"),
    )


def test_a_gnb_that_is_cut_off_is_at_all_prbs_and_the_gpu_is_not_kept_for_it(
    stack: Stack, failures: Failures
) -> None:
    gnb, network = stack.container("gnb-mock"), stack.network("testbed")
    session = stack.cell()["session"]
    failures.inject(
        "gNB cut off the network",
        lambda: network.disconnect(gnb),
        lambda: network.connect(gnb, aliases=["gnb-mock"]),
        "connect",
        within_lease=("prb",),
    )
    assert stack.cell()["session"] != session


def test_a_killed_gnb_is_controlled_again_when_it_is_back(stack: Stack, failures: Failures) -> None:
    gnb = stack.container("gnb-mock")
    failures.inject(
        "gNB killed (SIGKILL)",
        lambda: (gnb.kill("SIGKILL"), gnb.wait(timeout=30)),
        gnb.start,
        "start",
        prb=False,
    )


def test_what_a_crashed_edge_agent_leaves_locked_its_next_start_releases(
    stack: Stack, failures: Failures
) -> None:
    """Killed on the host and not through the engine, which therefore starts it again."""
    if os.geteuid() != 0:
        missing("a container's process is killed by root alone", REQUIRED_BY)
    failures.controlled()
    quotas, resets = stack.gnb()["ran"].get("leases_lapsed", 0), stack.gpu().resets
    restarts = stack.container("edge-agent").attrs["RestartCount"]
    crash = Instant.now()
    os.kill(stack.state("edge-agent")["Pid"], signal.SIGKILL)
    until(lambda: stack.gpu().resets > resets, "the release by the start", START_S)
    free = time.monotonic_ns()
    resumed = failures.controlled(Instant(0, crash.mono))
    assert stack.container("edge-agent").attrs["RestartCount"] == restarts + 1
    assert stack.gnb()["ran"].get("leases_lapsed", 0) == quotas, "the radio's quotas are kept meanwhile"
    seconds = [(at - crash.mono) / 1e9 for at in (free, resumed.mono)]
    failures.rows.append(Injected("edge agent killed (SIGKILL)", "the engine", None, *seconds))


def test_every_container_ends_cleanly_on_sigterm(stack: Stack, failures: Failures) -> None:
    before = until(lambda: (gnb := stack.gnb())["quotas"] and gnb, "quotas")["ran"]
    controller = stack.container("controller")
    failures.inject(
        "controller stopped (SIGTERM)", lambda: controller.stop(timeout=15), controller.start, "start"
    )
    after = stack.gnb()["ran"]
    assert after["releases"] == before.get("releases", 0) + 1
    assert after.get("leases_lapsed") == before.get("leases_lapsed")
    for service in ("controller", "gnb-mock", "edge-agent"):
        stack.container(service).stop(timeout=15)
    for service in SERVICES:
        assert stack.state(service)["ExitCode"] == 0, service
    assert stack.gpu().locked_mhz == 0
