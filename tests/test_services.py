"""All gRPC services, each as its server runs it: what a hostile or broken caller can do to them."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from agents.gpu.service import EdgeAgent, serve
from controller.links.counters import Counters
from controller.links.operator import Broadcaster, OperatorServer
from controller.links.qos import QosIngest
from tests.links.test_operator import Target
from wire import PROTOCOL_VERSION, edge_pb2, operator_pb2, qos_pb2
from wire.security import Tls, grpc_channel, grpc_server_add

PATIENCE_S = 60.0
GARBAGE = b"\xff\xff\xff\xff\x00 no message"
SERVICES = {
    service.full_name: service
    for file in (edge_pb2, operator_pb2, qos_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
METHODS: dict[str, MethodDescriptor] = {
    f"/{name}/{method.name}": method for name, service in SERVICES.items() for method in service.methods
}
SERVERS = {"prbandit.edge": "edge", "prbandit.operator": "operator", "prbandit.qos": "qos"}


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


class Servers:
    """The three servers; ``ports`` by name."""

    def __init__(self, keys: Path | None = None, **guard: float) -> None:
        def tls(role: str) -> Tls | None:
            return Tls(keys, role) if keys else None

        self.counters = Counters()
        self.target = Target()
        self.edge: EdgeAgent = serve("127.0.0.1:0", tls=tls("edge-agent"), guard_options=guard)
        self.operator = OperatorServer(
            "127.0.0.1:0", tls("controller"), self.target, Broadcaster(self.counters), **guard
        )
        self.ingest = QosIngest(lambda cell, item: None, counters=self.counters, **guard)
        self.qos = self.ingest.server()
        self.ports = {
            "edge": self.edge.port,
            "operator": self.operator.port,
            "qos": grpc_server_add(self.qos, "127.0.0.1:0", tls("controller")),
        }
        for server in (self.edge, self.operator, self.qos):
            server.start()

    def channel(self, method: str) -> grpc.Channel:
        return grpc_channel(f"127.0.0.1:{self.port(method)}", None)

    def port(self, method: str) -> int:
        return self.ports[SERVERS[method[1:].rpartition("/")[0].rpartition(".")[0]]]

    def refused(self, method: str, code: grpc.StatusCode, kind: str) -> int:
        """What was counted of one kind of refusals by the server of a method."""
        name = SERVERS[method[1:].rpartition("/")[0].rpartition(".")[0]]
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
    "/prbandit.operator.Operator/Reload": operator_pb2.ReloadRequest(),
    "/prbandit.operator.Operator/Checkpoint": operator_pb2.CheckpointRequest(),
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
    assert HONEST.keys() == METHODS.keys()
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
