"""The operator API over a real gRPC socket."""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from controller.core.clocks import KnownClock
from controller.core.decision import ManualQuota
from controller.core.observation import DirectionColumns, MacReport
from controller.core.ue_rates import Rate, UeRate
from controller.links import operator
from controller.links.counters import Counters
from controller.links.health import Heard
from controller.links.operator import (
    Broadcaster,
    CellStatus,
    CommandRefused,
    ControllerStatus,
    OperatorClient,
    OperatorError,
    OperatorServer,
    Savings,
    SliceStatus,
    TooManySubscribers,
    to_message,
)
from controller.loop import ControlLoop
from controller.store.run import to_json
from tests import builders
from wire import PROTOCOL_VERSION, keys, operator_pb2, operator_pb2_grpc
from wire.security import InsecureAddress, Tls
from wire.version import full_version


def record(slot: int = 1, cell: str = "cell-1") -> dict[str, Any]:
    loop = ControlLoop(builders.loop_spec(cell=cell))
    return loop.step(builders.observation(slot - 1)).to_record()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


class Target:
    """Takes down what it was told; refuses what the daemon would refuse."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.cells: list[CellStatus] = [CellStatus("cell-1"), CellStatus("cell-2")]
        self.calls: list[tuple[str, str, bool]] = []
        self.broken = self.hangs = False

    def state(self) -> ControllerStatus:
        if self.broken:
            raise RuntimeError("broken")
        return ControllerStatus("config.yaml", "runs/1", 5.0, self.cells)

    def alive(self) -> bool:
        return not self.hangs

    def called(self, cell_id: str, text: str, refused: bool) -> None:
        self.calls.append((cell_id, text, refused))

    def _tell(self, *what: Any) -> str:
        if self.broken:
            raise RuntimeError("broken")
        if "nosuch" in what:
            raise ValueError("unknown cell 'nosuch'; cells: cell-1, cell-2")
        self.told.append(what)
        return " ".join(map(str, what))

    def set_mode(self, cell_id: str, mode: str) -> str:
        return self._tell("mode", cell_id, mode)

    def switch_policy(self, cell_id: str, slice_id: str, policy: str, hop: str) -> str:
        return self._tell("policy", cell_id, slice_id, policy, hop)

    def set_budgets(self, cell_id: str, slice_id: str, ul_ms: float, edge_ms: float, dl_ms: float) -> str:
        return self._tell("budgets", cell_id, slice_id, ul_ms, edge_ms, dl_ms)

    def set_options(self, cell_id: str, slice_id: str, yaml: str) -> str:
        return self._tell("options", cell_id, slice_id, yaml)

    def set_quota(self, cell_id: str, slice_id: str, ul: int | None, dl: int | None, for_s: float) -> str:
        return self._tell("quota", cell_id, slice_id, ul, dl, for_s)

    def clear_quota(self, cell_id: str, slice_id: str) -> str:
        return self._tell("clear", cell_id, slice_id)

    def set_lease(self, lease_s: float) -> str:
        return self._tell("lease", lease_s)

    def shut_down(self) -> str:
        return self._tell("shut down")

    def reload(self) -> str:
        return self._tell("reload")

    def checkpoint(self) -> str:
        return self._tell("checkpoint")


class Served:
    def __init__(self, **limits: int) -> None:
        self.counters, self.target = Counters(), Target()
        self.broadcaster = Broadcaster(self.counters, **limits)
        self.server = OperatorServer("127.0.0.1:0", None, self.target, self.broadcaster)
        self.address = f"127.0.0.1:{self.server.port}"
        self.server.start()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(max_subscribers=3, queue=4)
    yield served
    served.server.close(0)


@pytest.fixture
def client(served: Served) -> Iterator[OperatorClient]:
    with OperatorClient(served.address) as client:
        yield client


COLUMNS = DirectionColumns((20, 7), (1, 1), (1, 2), (12345, 0), (0.125, 0.0))


def test_the_state_arrives_whole(served: Served, client: OperatorClient) -> None:
    last = record(7)
    served.target.cells[0] = CellStatus(
        "cell-1",
        connected=True,
        session=2**63 + 1,
        control_slots=7,
        prb=106,
        mode="active",
        last=last,
        reports=1234,
        edge_connected=True,
        sm_mhz=1600,
        active_flows=2,
        clocks=[
            KnownClock("edge", "SLAVE", -120.0, 0.5, ""),
            KnownClock("ue-1", "", 0.0, None, "ue-1: no news of its clock"),
        ],
        manual=[("ar", ManualQuota(20, None), 12.5)],
        report_age_s=0.25,
        lease_left_s=2.5,
        not_controlled="why",
        qos={"ar": (700, 690)},
        hosts=[Heard("edge", 0.5)],
        edge_configured=True,
        gpu_age_s=0.125,
        report=MacReport(
            *(5, ("ue-1", "ue-2"), ("ar", ""), COLUMNS, COLUMNS, (15, 0), (20.5, 0.0)),
            five_qi=(80, 0),
            priority_level=(68, 0),
            snssai=("1-00000a", ""),
            dl_channels=(((4, 12),), ()),
        ),
        rates={"ue-1": UeRate(Rate(8e6, 20.5), None)},
        slices=[
            SliceStatus("ar", "ar", {"policy": "aimd", "queue": True}, 0.25, ("ul", "dl"), ("static", "aimd"))
        ],
        savings=Savings(60.0, 0.5, 0.25, 0.125),
        gpu_power_w=120.5,
        gpu_max_mhz=1980,
    )
    no_rate = {"bps": None, "prb": None}
    state = client.state()
    assert (state["config_path"], state["run_dir"], state["control_slot_s"]) == ("config.yaml", "runs/1", 5.0)
    assert state["version"] == client.controller_version == full_version() != ""
    first, second = state["cells"]
    assert first == {
        "cell_id": "cell-1",
        "connected": True,
        "session": 2**63 + 1,
        "control_slots": 7,
        "prb": 106,
        "mode": "active",
        "last": json.loads(to_json(last)),
        "reports": 1234,
        "edge_connected": True,
        "sm_mhz": 1600,
        "active_flows": 2,
        "clocks": [
            {"host": "edge", "ptp_state": "SLAVE", "offset_ns": -120.0, "age_s": 0.5, "fault": ""},
            {
                "host": "ue-1",
                "ptp_state": "",
                "offset_ns": 0.0,
                "age_s": None,
                "fault": "ue-1: no news of its clock",
            },
        ],
        "manual": [{"slice": "ar", "ul": 20, "dl": None, "left_s": 12.5}],
        "report_age_s": 0.25,
        "lease_left_s": 2.5,
        "not_controlled": "why",
        "qos": [{"slice": "ar", "judged": 700, "met": 690}],
        "hosts": [{"host": "edge", "age_s": 0.5, "refused": ""}],
        "edge_configured": True,
        "gpu_age_s": 0.125,
        "slices": [
            {
                "slice": "ar",
                "service": "ar",
                "options": {"policy": "aimd", "queue": True},
                "explored": 0.25,
                "hops": ["ul", "dl"],
                "policies": ["static", "aimd"],
            }
        ],
        "savings": {"control_s": 60.0, "gpu": 0.5, "bs": 0.25, "ue": 0.125},
        "gpu_power_w": 120.5,
        "gpu_max_mhz": 1980,
        "ues_total": 2,
        "ues": [
            {
                "ue_id": "ue-1",
                "slice": "ar",
                "ul": {"mcs": 20, "layers": 1, "queued_bytes": 12345, "bler": 0.125, "bps": 8e6, "prb": 20.5},
                "dl": {"mcs": 20, "layers": 1, "queued_bytes": 12345, "bler": 0.125, **no_rate},
                "cqi": 15,
                "snr_db": 20.5,
                "five_qi": 80,
                "priority_level": 68,
                "snssai": "1-00000a",
                "dl_channels": [{"lcid": 4, "queued_bytes": 12}],
            },
            {
                "ue_id": "ue-2",
                "slice": "",
                "ul": {"mcs": 7, "layers": 2, "queued_bytes": 0, "bler": 0.0, **no_rate},
                "dl": {"mcs": 7, "layers": 2, "queued_bytes": 0, "bler": 0.0, **no_rate},
                "cqi": None,
                "snr_db": 0.0,
                "five_qi": None,
                "priority_level": None,
                "snssai": None,
                "dl_channels": [],
            },
        ],
    }
    assert second["manual"] == [] and second["report_age_s"] is None and second["lease_left_s"] is None
    assert second["cell_id"] == "cell-2" and second["last"] is None and not second["connected"]


def test_what_a_gnb_did_not_tell_of_a_ue_is_not_set(served: Served, client: OperatorClient) -> None:
    report = MacReport(5, ("ue-1", "ue-2"), ("ar", ""), COLUMNS, COLUMNS)
    served.target.cells[0] = CellStatus("cell-1", report=report)
    for ue in client.state()["cells"][0]["ues"]:
        assert {ue[c] for c in ("cqi", "snr_db", "five_qi", "priority_level", "snssai")} == {None}
        assert ue["dl_channels"] == []


def test_commands_reach_the_target_as_given(served: Served, client: OperatorClient) -> None:
    assert client.set_mode("", "shadow") == "mode  shadow"
    client.switch_policy("cell-1", "ar", "aimd", "dl")
    client.set_lease(7.5)
    client.shut_down()
    client.set_budgets("cell-1", "", 70.0, 20.0, 60.0)
    client.set_options("cell-1", "ar", "{metric: p90, policy_options: {tradeoff: 2}}" + " " * 4000)
    client.set_quota("cell-1", "ar", 20, None, 60.0)
    client.set_quota("cell-1", "ar", None, 0, 0.0)
    client.clear_quota("cell-1", "ar")
    client.reload()
    assert client.checkpoint() == "checkpoint"
    assert served.target.told == [
        ("mode", "", "shadow"),
        ("policy", "cell-1", "ar", "aimd", "dl"),
        ("lease", 7.5),
        ("shut down",),
        ("budgets", "cell-1", "", 70.0, 20.0, 60.0),
        ("options", "cell-1", "ar", "{metric: p90, policy_options: {tradeoff: 2}}" + " " * 4000),
        ("quota", "cell-1", "ar", 20, None, 60.0),
        ("quota", "cell-1", "ar", None, 0, 0.0),
        ("clear", "cell-1", "ar"),
        ("reload",),
        ("checkpoint",),
    ]


def test_what_the_target_refuses_is_refused_with_its_reason(served: Served, client: OperatorClient) -> None:
    with pytest.raises(CommandRefused, match="unknown cell 'nosuch'; cells: cell-1, cell-2"):
        client.set_mode("nosuch", "active")
    assert served.counters.get("operator_refused_total") == 1
    client.set_mode("cell-1", "active")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.set_mode("cell-1", ""), "mode: empty"),
        (lambda c: c.switch_policy("", "", ""), "policy: empty"),
        (lambda c: c.set_mode("x" * 65, "active"), "cell_id: longer than 64 bytes"),
        (lambda c: c.set_budgets("", "", float("nan"), 20, 60), "ul_ms: nan is not a positive number"),
        (lambda c: c.set_budgets("", "", 70, -1, 60), "edge_ms: -1.0 is not a positive number"),
        (lambda c: c.set_budgets("", "", 70, 20, float("inf")), "dl_ms: inf is not a positive number"),
        (lambda c: c.set_options("", "", ""), "yaml: empty"),
        (lambda c: c.set_options("", "", "x" * 4097), "yaml: longer than 4096 bytes"),
        (lambda c: c.set_options("", "x" * 65, "{}"), "slice: longer than 64 bytes"),
        (lambda c: c.set_quota("", "ar", 1, 1, 1.0), "cell_id: empty"),
        (lambda c: c.set_quota("cell-1", "", 1, 1, 1.0), "slice: empty"),
        (lambda c: c.set_quota("cell-1", "x" * 65, 1, 1, 1.0), "slice: longer than 64 bytes"),
        (lambda c: c.clear_quota("", "ar"), "cell_id: empty"),
        (lambda c: c.clear_quota("cell-1", ""), "slice: empty"),
    ],
)
def test_bad_values_are_refused_by_name_before_the_target_sees_them(
    served: Served, client: OperatorClient, call: Callable[[OperatorClient], str], message: str
) -> None:
    with pytest.raises(CommandRefused, match=message):
        call(client)
    assert served.target.told == [] and served.counters.get("operator_refused_total") == 1


def test_a_failure_inside_is_told_and_counted_and_the_api_goes_on(
    served: Served, client: OperatorClient
) -> None:
    served.target.broken = True
    with pytest.raises(CommandRefused, match="Reload failed; see the controller's log"):
        client.reload()
    with pytest.raises(OperatorError, match="the state cannot be read"):
        client.state()
    assert served.counters.get("operator_errors_total") == 2
    served.target.broken = False
    assert client.state()["cells"]


def test_decisions_arrive_as_they_are_recorded(served: Served, client: OperatorClient) -> None:
    watch = client.watch()
    first, second = record(1), record(1, "cell-2")
    served.broadcaster.publish(first)
    served.broadcaster.publish(second)
    received = iter(watch)
    assert [to_json(next(received)) for _ in range(2)] == [to_json(first), to_json(second)]
    assert to_message(first).json == to_json(first)
    watch.cancel()
    assert list(received) == []
    until(lambda: not len(served.broadcaster))


def test_one_cell_can_be_watched_alone_and_an_unknown_one_not(served: Served, client: OperatorClient) -> None:
    watch = client.watch("cell-2")
    served.broadcaster.publish(record(1))
    served.broadcaster.publish(record(1, "cell-2"))
    assert next(iter(watch))["cell"] == "cell-2"
    watch.cancel()
    with pytest.raises(OperatorError, match="unknown cell 'cell-3'; cells: cell-1, cell-2"):
        client.watch("cell-3")


def test_a_slow_subscriber_loses_the_oldest_decisions_and_holds_up_nobody() -> None:
    counters = Counters()
    broadcaster = Broadcaster(counters, queue=4)
    slow, quick = broadcaster.subscribe(), broadcaster.subscribe()
    taken = []
    for slot in range(1, 11):
        broadcaster.publish({**record(), "control_slot": slot})
        message = quick.take()
        assert message is not None
        taken.append(message.control_slot)
    assert taken == list(range(1, 11))
    left = [slow.take() for _ in range(4)]
    assert [m.control_slot for m in left if m] == [7, 8, 9, 10]
    assert slow.dropped == counters.get("operator_decisions_dropped_total", "cell-1") == 6


def test_subscribers_are_bounded_and_a_place_is_free_when_one_leaves(
    served: Served, client: OperatorClient
) -> None:
    watches = [client.watch() for _ in range(3)]
    with pytest.raises(OperatorError, match="3 subscribers are served at most"):
        client.watch()
    assert served.counters.get("operator_subscribers_refused_total") == 1
    # Commands find a thread all the same.
    assert client.checkpoint() == "checkpoint"
    watches[0].cancel()
    until(lambda: len(served.broadcaster) == 2)
    client.watch().cancel()


def test_a_client_that_vanishes_leaves_its_place(served: Served) -> None:
    gone = OperatorClient(served.address)
    gone.watch()
    assert len(served.broadcaster) == 1
    gone.close()
    until(lambda: not len(served.broadcaster))


def test_the_end_of_the_controller_ends_the_watch() -> None:
    served = Served()
    with OperatorClient(served.address) as client:
        watch = client.watch()
        closing = threading.Timer(0.05, served.server.close)
        closing.start()
        assert list(watch) == []
        closing.join()
        with pytest.raises(OperatorError, match=rf"{served.address}: no controller answers there"):
            client.state()
    with pytest.raises(TooManySubscribers):
        served.broadcaster.subscribe()


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1])
def test_another_protocol_version_is_refused_with_both_named(served: Served, version: int) -> None:
    with grpc.insecure_channel(served.address) as channel:
        stub = operator_pb2_grpc.OperatorStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Hello(operator_pb2.OperatorHello(protocol_version=version), timeout=30)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details() == (
        f"protocol_version: the client speaks {version}, this controller {PROTOCOL_VERSION}"
    )
    assert served.counters.get("operator_version_mismatch_total") == 1


def test_the_client_says_hello_first(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "PROTOCOL_VERSION", PROTOCOL_VERSION + 1)

    def old(self: Any, request: Any, context: Any) -> operator_pb2.OperatorWelcome:
        return operator_pb2.OperatorWelcome(protocol_version=PROTOCOL_VERSION)

    monkeypatch.setattr(operator.OperatorService, "Hello", old)
    fresh = Served()
    with (
        OperatorClient(fresh.address) as client,
        pytest.raises(OperatorError, match="the controller speaks 1"),
    ):
        client.checkpoint()
    assert fresh.target.told == []
    fresh.server.close(0)


def test_nobody_there_is_said_with_the_address() -> None:
    with (
        OperatorClient("127.0.0.1:1", timeout_s=3, missing="--keys") as client,
        pytest.raises(OperatorError, match=r"127\.0\.0\.1:1: no controller answers there") as told,
    ):
        client.state()
    assert "--keys" not in str(told.value)


def test_one_that_hangs_up_may_want_keys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        port = listener.getsockname()[1]
        with (
            OperatorClient(f"127.0.0.1:{port}", timeout_s=20, missing="--keys") as client,
            pytest.raises(OperatorError, match=r"no controller answers there .*--keys"),
        ):
            client.state()


def test_beyond_loopback_keys_are_needed_on_both_sides() -> None:
    with pytest.raises(InsecureAddress, match=r"links\.operator\.address.*security\.keys"):
        OperatorServer("0.0.0.0:0", None, Target(), Broadcaster())
    with pytest.raises(InsecureAddress, match=r"links\.operator\.address"):
        OperatorClient("controller:50063")


def test_with_keys_the_operator_is_let_in_and_a_stranger_is_not(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="keys need the extra 'keys'")
    keys.create(tmp_path / "ours", cells=["cell-1"])
    keys.create(tmp_path / "theirs", cells=["cell-1"])
    server = OperatorServer(
        "127.0.0.1:0", Tls(tmp_path / "ours", "controller"), target := Target(), Broadcaster()
    )
    server.start()
    address = f"localhost:{server.port}"
    with OperatorClient(address, Tls(tmp_path / "ours", "operator")) as client:
        assert client.set_mode("", "frozen") == "mode  frozen"
    with OperatorClient(address, Tls(tmp_path / "ours", "gnb-mock")) as client:
        assert client.state()["cells"]
        with pytest.raises(OperatorError, match="SetMode: is not for the role 'gnb-mock'"):
            client.set_mode("", "released")
    for stranger in (Tls(tmp_path / "theirs", "operator"), None):
        with OperatorClient(address, stranger, timeout_s=3) as client, pytest.raises(OperatorError):
            client.set_mode("", "released")
    assert target.told == [("mode", "", "frozen")]
    (_, done, _), (_, denied, refused) = target.calls
    assert "by operator at" in done and refused and "SetMode: is not for the role 'gnb-mock'" in denied
    server.close(0)


# ---- health, reflection, what is written down of calls ---------------------------------------------------


def test_health_says_whether_the_control_loops_turn(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        states = health_pb2.HealthCheckResponse
        for name in ("", "prbandit.operator.Operator"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert health.Check(request, timeout=10).status == states.SERVING
        with pytest.raises(grpc.RpcError) as error:
            health.Check(health_pb2.HealthCheckRequest(service="nosuch"), timeout=10)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == states.SERVING
        served.target.hangs = True
        assert next(watch).status == states.NOT_SERVING
        assert {s.status for s in health.List(health_pb2.HealthListRequest()).statuses.values()} == {
            states.NOT_SERVING
        }
        watch.cancel()


def test_reflection_describes_the_services(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        assert set(described.get_services()) == {
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "prbandit.operator.Operator",
        }
        service = DescriptorPool(described).FindServiceByName("prbandit.operator.Operator")
        assert {m.name for m in service.methods} >= {"GetState", "SwitchPolicy", "ShutDown"}


def test_every_command_is_written_down_with_its_caller_and_what_came_of_it(
    served: Served, client: OperatorClient
) -> None:
    client.set_mode("cell-1", "shadow")
    with pytest.raises(CommandRefused):
        client.set_mode("nosuch", "shadow")
    served.target.broken = True
    with pytest.raises(CommandRefused):
        client.reload()
    (done, refused, failed) = served.target.calls
    assert done[0] == "cell-1" and not done[2]
    assert re.fullmatch(
        r"SetMode\(cell_id='cell-1', mode='shadow'\) by ipv4:127.0.0.1:\d+: mode cell-1 shadow", done[1]
    )
    assert refused[2] and ": refused: unknown cell 'nosuch'" in refused[1]
    assert failed[2] and failed[1].startswith("Reload() by ") and failed[1].endswith(": failed")


@pytest.mark.parametrize("probe", ["health", "reflection"])
def test_probes_without_end_leave_room_for_operators(
    served: Served, client: OperatorClient, probe: str
) -> None:
    open_calls: list[Any] = []
    with ExitStack() as channels:
        for n in range(operator.MAX_PROBES + 1):
            # A connection each, as of as many peers.
            options = (("grpc.use_local_subchannel_pool", 1), ("prbandit.n", n))
            channel = channels.enter_context(grpc.insecure_channel(served.address, options))
            if probe == "health":
                open_calls.append(
                    health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
                )
            else:
                asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
                asked.put(reflection_pb2.ServerReflectionRequest(list_services=""))
                stub = reflection_pb2_grpc.ServerReflectionStub(channel)
                open_calls.append(stub.ServerReflectionInfo(iter(asked.get, None), timeout=60))
            if n < operator.MAX_PROBES:
                next(open_calls[-1])
        with pytest.raises(grpc.RpcError, match=f"{operator.MAX_PROBES} .* are served at most") as error:
            next(open_calls[-1])
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.counters.get("operator_crowded_total") == 1
        assert client.set_mode("cell-1", "shadow")
        open_calls[0].cancel()
        stub = health_pb2_grpc.HealthStub(channels.enter_context(grpc.insecure_channel(served.address)))

        def served_again() -> bool:
            if probe == "reflection":
                with grpc.insecure_channel(served.address) as channel, suppress(grpc.RpcError):
                    return bool(ProtoReflectionDescriptorDatabase(channel).get_services())
                return False
            with suppress(grpc.RpcError):
                return bool(next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)))
            return False

        until(served_again)
        for call in open_calls:
            call.cancel()
