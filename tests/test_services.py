"""All gRPC services, each as its server runs it: what a hostile or broken caller can do to them."""

from __future__ import annotations

import datetime
import gc
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from agents.gpu.service import EdgeAgent, serve
from agents.links.edge import EdgeFollower
from agents.links.qos import QosPublisher
from controller.core import clocks
from controller.links import qos
from controller.links.counters import Counters
from controller.links.edge import EdgeLink
from controller.links.operator import Broadcaster, OperatorClient, OperatorError, OperatorServer
from controller.links.qos import QosIngest
from tests.links.test_operator import Target, record
from wire import PROTOCOL_VERSION, edge_pb2, operator_pb2, qos_pb2
from wire import keys as wire_keys
from wire.roles import CONTROLLER, EDGE_AGENT, GNB_MOCK, OPERATOR, PTP_AGENT, ROLES
from wire.roles import METHODS as PERMITTED
from wire.security import (
    CHANNEL_OPTIONS,
    Tls,
    channel_credentials,
    grpc_channel,
    grpc_server_add,
    server_role_options,
)
from wire.serving import share

PATIENCE_S = 60.0
GARBAGE = b"\xff\xff\xff\xff\x00 no message"
SERVICES = {
    service.full_name: service
    for file in (edge_pb2, operator_pb2, qos_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
METHODS: dict[str, MethodDescriptor] = {
    f"/{name}/{method.name}": method for name, service in SERVICES.items() for method in service.methods
}
SERVERS = {"prbandit.edge": "edge", "prbandit.operator": "operator", "prbandit.qos": "qos"}

OWN_ROLES = {"edge": EDGE_AGENT, "operator": CONTROLLER, "qos": CONTROLLER}


def server_of(method: str) -> str:
    """The server of a method; gRPC's own services are the operator API's."""
    if method.startswith("/grpc."):
        return "operator"
    return SERVERS[method[1:].rpartition("/")[0].rpartition(".")[0]]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


class Servers:
    """The three servers; ``ports`` by name. ``shows``: server -> role of its certificate, where it is not its
    own."""

    def __init__(
        self, keys: Path | None = None, shows: Mapping[str, str] | None = None, **guard: float
    ) -> None:
        def tls(server: str) -> Tls | None:
            return Tls(keys, {**OWN_ROLES, **(shows or {})}[server]) if keys else None

        self.counters = Counters()
        self.target = Target()
        self.edge: EdgeAgent = serve("127.0.0.1:0", tls=tls("edge"), guard_options=guard)
        self.broadcaster = Broadcaster(self.counters)
        self.operator = OperatorServer("127.0.0.1:0", tls("operator"), self.target, self.broadcaster, **guard)
        self.ingest = QosIngest(lambda cell, item: None, counters=self.counters, keys=keys, **guard)
        self.qos = self.ingest.server()
        self.ports = {
            "edge": self.edge.port,
            "operator": self.operator.port,
            "qos": grpc_server_add(self.qos, "127.0.0.1:0", tls("qos")),
        }
        for server in (self.edge, self.operator, self.qos):
            server.start()

    def channel(self, method: str) -> grpc.Channel:
        return grpc_channel(f"127.0.0.1:{self.port(method)}", None)

    def port(self, method: str) -> int:
        return self.ports[server_of(method)]

    def refused(self, method: str, code: grpc.StatusCode, kind: str) -> int:
        """What was counted of one kind of refusals by the server of a method."""
        name = server_of(method)
        if name == "edge":
            return self.edge.counters.get(f"refused_{code.name.lower()}", 0)
        return self.counters.get(f"{name}_{kind}_total")

    def close(self) -> None:
        self.edge.close()
        self.operator.close(0)
        self.qos.stop(0).wait()


@pytest.fixture
def make() -> Iterator[Callable[..., Servers]]:
    made = []

    def build(*args: Any, **options: Any) -> Servers:
        made.append(Servers(*args, **options))
        return made[-1]

    yield build
    for servers in made:
        servers.close()


HONEST: dict[str, Any] = {
    "/prbandit.edge.Edge/Hello": edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION),
    "/prbandit.edge.Edge/WatchGpu": edge_pb2.WatchGpuRequest(period_ms=10),
    "/prbandit.edge.Edge/LockClocks": edge_pb2.LockClocksRequest(holder="cell-1", mhz=600, lease_ms=3000),
    "/prbandit.edge.Edge/ReleaseClocks": edge_pb2.ReleaseClocksRequest(holder="cell-1"),
    "/prbandit.edge.EmulatedGpu/SetLoad": edge_pb2.EmulatedLoad(utilisation=0.5),
    "/prbandit.operator.Operator/Hello": operator_pb2.OperatorHello(protocol_version=PROTOCOL_VERSION),
    "/prbandit.operator.Operator/GetState": operator_pb2.GetStateRequest(),
    "/prbandit.operator.Operator/WatchDecisions": operator_pb2.WatchDecisionsRequest(),
    "/prbandit.operator.Operator/SetMode": operator_pb2.SetModeRequest(mode="active"),
    "/prbandit.operator.Operator/SwitchPolicy": operator_pb2.SwitchPolicyRequest(policy="aimd"),
    "/prbandit.operator.Operator/SetBudgets": operator_pb2.SetBudgetsRequest(ul_ms=1, edge_ms=1, dl_ms=1),
    "/prbandit.operator.Operator/SetOptions": operator_pb2.SetOptionsRequest(yaml="{}"),
    "/prbandit.operator.Operator/SetQuota": operator_pb2.SetQuotaRequest(
        cell_id="cell-1", slice="ar", ul_prb=10, for_s=60
    ),
    "/prbandit.operator.Operator/ClearQuota": operator_pb2.ClearQuotaRequest(cell_id="cell-1", slice="ar"),
    "/prbandit.operator.Operator/SetLease": operator_pb2.SetLeaseRequest(lease_s=5),
    "/prbandit.operator.Operator/Reload": operator_pb2.ReloadRequest(),
    "/prbandit.operator.Operator/Checkpoint": operator_pb2.CheckpointRequest(),
    "/prbandit.operator.Operator/ShutDown": operator_pb2.ShutDownRequest(),
    "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest(),
    "/grpc.health.v1.Health/List": health_pb2.HealthListRequest(),
    "/grpc.health.v1.Health/Watch": health_pb2.HealthCheckRequest(),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(
        list_services=""
    ),
    "/prbandit.qos.QosIngest/ListUes": qos_pb2.ListUesRequest(
        protocol_version=PROTOCOL_VERSION, cell_id="cell-1"
    ),
    "/prbandit.qos.QosIngest/Publish": qos_pb2.QosMessage(
        hello=qos_pb2.QosHello(protocol_version=PROTOCOL_VERSION, host="ue-1", cell_id="cell-1")
    ),
}


@dataclass
class Call:
    """One call of a method with raw requests; they end after ``requests``, or never where it is silent."""

    channel: grpc.Channel
    method: str

    def __call__(self, *requests: bytes, silent: bool = False, timeout: float | None = PATIENCE_S) -> Any:
        kind = METHODS[self.method]
        ended = threading.Event()

        def messages() -> Iterator[bytes]:
            yield from requests
            if silent:
                ended.wait()

        make = self.channel.stream_stream if kind.server_streaming else self.channel.stream_unary
        start = make(self.method)
        if kind.server_streaming:
            call = start(messages(), timeout=timeout)
        else:
            call = start.future(messages(), timeout=timeout)
        call.add_done_callback(lambda _: ended.set())
        return call


def outcome(call: Any, method: str) -> grpc.StatusCode:
    """How a call ends; of a stream that begins, OK."""
    try:
        if METHODS[method].server_streaming:
            # Subscribers of decisions hear at once that they are, and of a decision later.
            call.initial_metadata() if method.endswith("WatchDecisions") else next(call)
            if call.done():
                return call.code()
            call.cancel()
        else:
            call.result()
    except (grpc.RpcError, StopIteration):
        return call.code()
    return grpc.StatusCode.OK


def served(channel: grpc.Channel, method: str) -> grpc.StatusCode:
    """How an honest call of a method ends."""
    call = Call(channel, method)(HONEST[method].SerializeToString(), silent=method.endswith("Publish"))
    return outcome(call, method)


def test_every_method_is_known_here() -> None:
    assert HONEST.keys() == METHODS.keys() == PERMITTED.keys()
    assert all(roles <= set(ROLES) for roles in PERMITTED.values())
    for method, request in HONEST.items():
        kind = message_factory.GetMessageClass(METHODS[method].input_type)
        assert type(request) is kind


def rss_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.parametrize(
    "method",
    ["/prbandit.edge.Edge/Hello", "/prbandit.operator.Operator/GetState", "/prbandit.qos.QosIngest/Publish"],
)
def test_bytes_that_do_not_parse_are_refused_counted_and_leave_nothing(
    make: Callable[..., Servers], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers = make()
    count = 1500
    publish = method.endswith("Publish")
    code = grpc.StatusCode.FAILED_PRECONDITION if publish else grpc.StatusCode.INVALID_ARGUMENT
    with servers.channel(method) as channel, caplog.at_level(logging.WARNING):
        garbage = Call(channel, method)

        def send(n: int) -> None:
            for _ in range(n):
                assert outcome(garbage(GARBAGE), method) is code

        send(300)
        gc.collect()
        before = rss_kb()
        send(count)
        gc.collect()
        # gRPC's own way keeps 20 kB of each.
        assert rss_kb() - before < 5 * count
        if publish:
            assert servers.counters.get("qos_stream_refused_total") == count + 300
        else:
            assert servers.refused(method, code, "malformed") == count + 300
        assert served(channel, method) is grpc.StatusCode.OK
    assert not any(record.exc_info for record in caplog.records)
    assert 1 <= len(caplog.records) < 20


# ---- silent calls, and too many ----------------------------------------------------------------------------


def own_connection(servers: Servers, method: str) -> grpc.Channel:
    """A channel that shares its connection with no other."""
    options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    return grpc.insecure_channel(f"127.0.0.1:{servers.port(method)}", options)


ONE_OF_EACH = [
    "/prbandit.edge.Edge/Hello",
    "/prbandit.edge.Edge/WatchGpu",
    "/prbandit.operator.Operator/SetMode",
    "/prbandit.operator.Operator/WatchDecisions",
    "/prbandit.qos.QosIngest/Publish",
]


@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_silent_calls_shut_nobody_out(make: Callable[..., Servers], method: str) -> None:
    servers = make(first_message_s=600.0)
    channels = [own_connection(servers, method) for _ in range(6)]
    silent = [Call(channel, method)(silent=True, timeout=600.0) for channel in channels for _ in range(25)]
    try:
        until(lambda: servers.refused(method, grpc.StatusCode.RESOURCE_EXHAUSTED, "crowded") > 50)
        with own_connection(servers, method) as channel:
            assert served(channel, method) is grpc.StatusCode.OK
    finally:
        for call in silent:
            call.cancel()
        for channel in channels:
            channel.close()


@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_a_call_without_a_first_message_ends_in_time(make: Callable[..., Servers], method: str) -> None:
    servers = make(first_message_s=0.1)
    with servers.channel(method) as channel:
        call = Call(channel, method)(silent=True)
        until(call.done)
        assert call.code() is grpc.StatusCode.CANCELLED
        assert servers.refused(method, grpc.StatusCode.DEADLINE_EXCEEDED, "late") == 1
        until(lambda: served(channel, method) is grpc.StatusCode.OK)  # on a busy machine it may be late too


def test_a_call_that_does_not_come_to_its_end_is_ended(
    make: Callable[..., Servers], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, method, end = make(request_s=0.1), "/prbandit.operator.Operator/Reload", threading.Event()
    monkeypatch.setattr(servers.target, "reload", lambda: str(end.wait(PATIENCE_S)))
    try:
        with servers.channel(method) as channel:
            assert served(channel, method) is grpc.StatusCode.CANCELLED
        assert servers.refused(method, grpc.StatusCode.DEADLINE_EXCEEDED, "late") == 1
    finally:
        end.set()


@pytest.mark.parametrize("method", [m for m in ONE_OF_EACH if METHODS[m].server_streaming])
def test_one_peer_cannot_have_all_streams(make: Callable[..., Servers], method: str) -> None:
    servers = make()
    most = {"edge": 16, "operator": 16, "qos": 32}[server_of(method)]
    with own_connection(servers, method) as greedy, own_connection(servers, method) as honest:
        request = HONEST[method].SerializeToString()
        streams = [Call(greedy, method)(request, silent=True) for _ in range(share(most))]
        for stream in streams:
            stream.initial_metadata()
        assert served(greedy, method) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert servers.refused(method, grpc.StatusCode.RESOURCE_EXHAUSTED, "crowded") == 1
        assert served(honest, method) is grpc.StatusCode.OK
        # Its share is free again with a stream of it.
        streams[0].cancel()
        until(lambda: served(greedy, method) is grpc.StatusCode.OK)


# ---- roles -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cryptography", reason="keys need the extra 'keys'")
    folder = tmp_path_factory.mktemp("keys")
    wire_keys.create(folder, cells=["cell-1"], agents=[f"{PTP_AGENT}@edge-1", f"{GNB_MOCK}@ue-1"], days=2)
    # A certificate of our authority that is of no role.
    wire_keys._certificates(folder, ["nobody"], (), 2)
    wire_keys.create(folder / "stranger", cells=[], days=2)
    return folder


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[Servers]:
    servers = Servers(folder)
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def expired(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys, with an operator's certificate whose time is over."""
    out = tmp_path_factory.mktemp("expired")
    for name in ("ca.crt", "ca.key"):
        shutil.copy(folder / name, out)
    key = ec.generate_private_key(ec.SECP256R1())
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, OPERATOR)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))
        .sign(serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None), hashes.SHA256())
    )
    (out / f"{OPERATOR}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (out / f"{OPERATOR}.key").write_bytes(key.private_bytes(*private))
    return out


def test_a_revoked_certificate_is_refused_everywhere_and_in_the_middle_of_a_stream(
    make: Callable[..., Servers], folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "keys")
    keys = tmp_path / "keys"
    servers = make(keys)
    methods = {
        "/prbandit.edge.Edge/Hello": CONTROLLER,
        "/prbandit.operator.Operator/GetState": OPERATOR,
        "/prbandit.qos.QosIngest/ListUes": GNB_MOCK,
    }
    denied = grpc.StatusCode.PERMISSION_DENIED
    credentials = {role: channel_credentials(keys, role) for role in methods.values()}
    with OperatorClient(f"127.0.0.1:{servers.ports['operator']}", Tls(keys, OPERATOR)) as client:
        watch = iter(client.watch())
        for role in methods.values():
            wire_keys.revoke(keys, role)
        for method, role in methods.items():
            with channel_to(servers, server_of(method), credentials[role]) as channel:
                until(lambda channel=channel, m=method: served(channel, m) is denied)
            assert servers.refused(method, denied, "denied") > 0
        servers.broadcaster.publish(record())
        with pytest.raises(OperatorError, match="the certificate of 'operator' is revoked"):
            next(watch)


def channel_to(servers: Servers, server: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    address = f"127.0.0.1:{servers.ports[server]}"
    if credentials is None:
        return grpc.insecure_channel(address, CHANNEL_OPTIONS)
    options = (*CHANNEL_OPTIONS, *server_role_options(OWN_ROLES[server]))
    return grpc.secure_channel(address, credentials, options)


@pytest.mark.parametrize("server", OWN_ROLES)
@pytest.mark.parametrize("shown", [*ROLES, "nobody", "stranger", "expired", "no certificate", "no TLS"])
def test_each_method_is_for_its_roles_alone(
    secure: Servers, folder: Path, expired: Path, shown: str, server: str
) -> None:
    credentials: grpc.ChannelCredentials | None
    match shown:
        case "no TLS":
            credentials = None
        case "no certificate":
            credentials = grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes())
        case "expired":
            credentials = channel_credentials(expired, OPERATOR)
        case "stranger":
            ca = (folder / "ca.crt").read_bytes()
            _, certificate, key = Tls(folder / "stranger", CONTROLLER).read()
            credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        case _:
            credentials = channel_credentials(folder, shown)
    outside = shown in ("stranger", "expired", "no certificate", "no TLS")
    with channel_to(secure, server, credentials) as channel:
        for method, roles in PERMITTED.items():
            if server_of(method) != server:
                continue
            refused = secure.refused(method, grpc.StatusCode.PERMISSION_DENIED, "denied")
            ends = served(channel, method)
            if outside:
                assert ends is grpc.StatusCode.UNAVAILABLE, method
            elif shown in roles:
                assert ends is grpc.StatusCode.OK, method
            else:
                assert ends is grpc.StatusCode.PERMISSION_DENIED, method
                after = secure.refused(method, grpc.StatusCode.PERMISSION_DENIED, "denied")
                assert after == refused + 1


@pytest.mark.parametrize("server", ROLES)
@pytest.mark.parametrize("client", [EDGE_AGENT, CONTROLLER])
def test_a_client_takes_a_server_of_its_role_alone(
    make: Callable[..., Servers], folder: Path, client: str, server: str
) -> None:
    servers = make(folder, {"operator": server})
    with grpc_channel(
        f"127.0.0.1:{servers.ports['operator']}", Tls(folder, OPERATOR), server_role=client
    ) as channel:
        ends = served(channel, "/prbandit.operator.Operator/Hello")
    assert ends is (grpc.StatusCode.OK if client == server else grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("right", [True, False])
def test_no_link_takes_another_role_for_its_server(
    make: Callable[..., Servers], folder: Path, right: bool
) -> None:
    wrong = {"edge": GNB_MOCK, "operator": EDGE_AGENT, "qos": GNB_MOCK}
    servers = make(folder, {} if right else wrong)
    to = {name: f"127.0.0.1:{port}" for name, port in servers.ports.items()}
    link = EdgeLink(to["edge"], Tls(folder, CONTROLLER), holder="cell-1", lease_s=3.0)
    follower = EdgeFollower(to["edge"], Tls(folder, GNB_MOCK), holder="gnb-mock")
    publisher = QosPublisher(to["qos"], Tls(folder, GNB_MOCK), cell_id="cell-1", host="ue-1")
    for each in (link, follower, publisher):
        each.start()
    try:
        with OperatorClient(to["operator"], Tls(folder, OPERATOR)) as client:
            if right:
                assert client.state()["cells"]
                until(lambda: link.connected and follower.connected and publisher.connected)
                return
            with pytest.raises(OperatorError, match="no controller answers there"):
                client.state()
        until(lambda: link.counters.get("edge_unavailable_total"))
        until(lambda: follower.counters.get("streams_ended") and publisher.counters.get("streams_ended"))
        assert not (link.connected or follower.connected or publisher.connected)
    finally:
        for each in (link, follower, publisher):
            each.close()


def test_a_lock_is_its_certificates_and_no_other_one_ends_it(secure: Servers, folder: Path) -> None:
    wire_keys.create(folder, cells=[], agents=[f"{CONTROLLER}@b"], days=2)
    method = "/prbandit.edge.Edge/{}Clocks"
    lock = edge_pb2.LockClocksRequest(holder="cell-1", mhz=900, lease_ms=10_000)
    release = edge_pb2.ReleaseClocksRequest(holder="cell-1")

    def locked(name: str, kind: str, request: Any) -> int:
        with channel_to(secure, "edge", channel_credentials(folder, name)) as channel:
            answer = Call(channel, method.format(kind))(request.SerializeToString()).result()
            return int(edge_pb2.ClockLock.FromString(answer).wanted_mhz)

    assert locked(CONTROLLER, "Lock", lock) == 900
    assert locked(f"{CONTROLLER}@b", "Release", release) == 900
    assert locked(CONTROLLER, "Release", release) == 0


# ---- a stream speaks for its own host ----------------------------------------------------------------------


def publish(channel: grpc.Channel, host: str, *bodies: Any) -> list[str]:
    """What a stream of a host is told: "" for what is accepted, else why it was refused."""
    hello = qos_pb2.QosHello(
        protocol_version=PROTOCOL_VERSION, host=host, cell_id="cell-1", clocks_synchronised=True
    )
    messages = [qos_pb2.QosMessage(hello=hello), *bodies]
    call = Call(channel, "/prbandit.qos.QosIngest/Publish")(*(m.SerializeToString() for m in messages))
    try:
        return [qos_pb2.QosNotice.FromString(notice).reason for notice in call]
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return [f"{error.code().name}: {error.details()}"]


def clock(host: str, state: str = "SLAVE") -> qos_pb2.QosMessage:
    status = qos_pb2.ClockStatus(host=host, ptp_state=state, time_ns=time.time_ns())
    return qos_pb2.QosMessage(clock=status)


def test_a_certificate_of_one_host_speaks_for_that_host_alone(secure: Servers, folder: Path) -> None:
    for name, host, accepted in (
        (f"{PTP_AGENT}@edge-1", "ptp@edge-1", True),
        (f"{PTP_AGENT}@edge-1", "ptp@edge-2", False),
        (f"{GNB_MOCK}@ue-1", "ue-1", True),
        (f"{GNB_MOCK}@ue-1", "ue-2", False),
        (GNB_MOCK, "ue-2", True),
        (GNB_MOCK, "ptp@ue-2", False),
    ):
        with channel_to(secure, "qos", channel_credentials(folder, name)) as channel:
            answers = publish(channel, host)
        assert answers == [""] if accepted else answers[0].startswith("PERMISSION_DENIED: QosHello: host"), (
            name,
            host,
            answers,
        )


def test_streams_of_a_mock_under_many_names_lock_no_ptp_agent_out(
    make: Callable[..., Servers], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "MAX_HOSTS", 4)
    servers = make(folder)
    with channel_to(servers, "qos", channel_credentials(folder, GNB_MOCK)) as channel:
        for i in range(clocks.MAX_HOSTS):
            assert publish(channel, f"x{i}", clock(f"x{i}")) == [""]
        assert "more than 4 hosts" in publish(channel, "ue-1", clock("ue-1"))[-1]
    with channel_to(servers, "qos", channel_credentials(folder, PTP_AGENT)) as channel:
        assert publish(channel, "ptp@edge", clock("edge")) == [""]


def test_who_may_tell_of_a_clock_is_a_matter_of_role(secure: Servers, folder: Path) -> None:
    with channel_to(secure, "qos", channel_credentials(folder, PTP_AGENT)) as channel:
        assert publish(channel, "ptp@edge", clock("edge")) == [""]
        start = qos_pb2.QosMessage(flow_start=qos_pb2.FlowStart(flow="f", ue_id="u", slice="ar", time_ns=1))
        accepted, refused = publish(channel, "ptp@edge", start)
        assert accepted == "" and refused == "flow_start: the role 'ptp-agent' tells of clocks alone"
    with channel_to(secure, "qos", channel_credentials(folder, GNB_MOCK)) as channel:
        # Its own clock, and not that of which a PTP agent tells, nor another host's.
        assert publish(channel, "ue-2", clock("ue-2", "NONE")) == [""]
        assert "its PTP agent tells of that clock" in publish(channel, "edge", clock("edge", "NONE"))[1]
        assert "which tells of its own clock alone" in publish(channel, "ue-2", clock("edge"))[1]
    known = {c.host: c for c in secure.ingest.clocks("cell-1")}
    assert known["edge"].fault == "" and known["ue-2"].fault == "ue-2: PTP state NONE"
    # What a UE's host says of its clock is nobody else's fault.
    board = secure.ingest._boards["cell-1"]
    assert board.fault("ue-1", qos.read_clocks()) is None
