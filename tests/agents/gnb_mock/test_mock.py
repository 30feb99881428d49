"""The emulated gNB in real time, over real sockets, against a controller's side that the test plays."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import zmq

from agents.emulator.spec import FlowSpec, TestbedSpec, UeSpec
from agents.gnb_mock import mock as mock_module
from agents.gnb_mock.mock import ClockChange, GnbMock, QuotaChange, replay
from agents.gpu.emulated import EmulatedGpu
from agents.gpu.service import serve
from tests.strangers import STRANGERS, Stranger
from wire import PROTOCOL_VERSION, keys, qos_pb2, qos_pb2_grpc, ran_pb2, security

DEADLINE_S = 60.0
PERIOD_MS = 10
CLOCKS = (500, 1600, 800, 1000)
SPEC = TestbedSpec(
    ues=[UeSpec("ue-1", 0x4601, "ar"), UeSpec("ue-2", 0x4602, "video"), UeSpec("ue-3", 0x4603)],
    flows=[
        FlowSpec("flow-1", "ue-1", active=((0.1, 1e6),)),
        FlowSpec("flow-2", "ue-2", active=((0.3, 0.9), (1.5, 1e6))),
        FlowSpec("background", "ue-3", active=((0.1, 0.7), (1.0, 1e6))),
    ],
)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


class Controller:
    """The controller's side of the RAN link: welcomes whoever says Hello and keeps what arrives."""

    _sessions = 0

    def __init__(self, port: int | None = None, curve: security.CurveServer | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        if curve is not None:
            curve.apply(self._socket)
        # The port of a controller that was killed a moment ago may still be closing.
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
                break
            except zmq.ZMQError:
                assert time.monotonic() < end
                time.sleep(0.05)
        self.address = self._socket.last_endpoint.decode()
        self.port = int(self.address.rpartition(":")[2])
        self.peer = b""
        self.session = 0
        self.sequence = 0
        self.hellos: list[ran_pb2.Hello] = []
        self.reports: list[ran_pb2.MacReport] = []
        self.applied: list[ran_pb2.Applied] = []

    def send(self, **body: object) -> None:
        message = ran_pb2.ControllerMessage(**body)
        self._socket.send_multipart([self.peer, message.SerializeToString()])

    def set_quota(
        self,
        quotas: dict[str, tuple[int, int]],
        *,
        lease_ms: int = 60_000,
        bindings: dict[str, str] | None = None,
    ) -> int:
        self.sequence += 1
        self.send(
            set_quota=ran_pb2.SetQuota(
                session=self.session,
                sequence=self.sequence,
                lease_ms=lease_ms,
                quotas=[ran_pb2.SliceQuota(slice=s, ul_prb=u, dl_prb=d) for s, (u, d) in quotas.items()],
                bindings=[ran_pb2.UeBinding(ue_id=u, slice=s) for u, s in (bindings or {}).items()],
            )
        )
        return self.sequence

    def pump(self, done: Callable[[], bool]) -> None:
        """Take messages until ``done``."""
        end = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < end, "did not happen in time"
            if not self._socket.poll(5):
                continue
            self.peer, data = self._socket.recv_multipart()
            message = ran_pb2.GnbMessage.FromString(data)
            match message.WhichOneof("body"):
                case "hello":
                    Controller._sessions += 1
                    self.session, self.sequence = Controller._sessions, 0
                    self.hellos.append(message.hello)
                    self.send(
                        welcome=ran_pb2.Welcome(
                            session=self.session,
                            protocol_version=PROTOCOL_VERSION,
                            report_period_ms=PERIOD_MS,
                            lease_ms=60_000,
                        )
                    )
                case "mac_report" if message.mac_report.session != self.session:
                    self.send(hello_request=ran_pb2.HelloRequest(reason="no session"))
                case "mac_report":
                    self.reports.append(message.mac_report)
                case "applied" if message.applied.session == self.session:
                    self.applied.append(message.applied)

    def pump_slots(self, n: int) -> None:
        """Take messages until the cell has gone on by ``n`` NR slots, however long that takes."""
        already = len(self.reports)
        self.pump(lambda: (len(self.reports) - already) * PERIOD_MS * 2 > n)

    def pump_until_applied(self, sequence: int) -> ran_pb2.Applied:
        self.pump(lambda: any(a.sequence == sequence for a in self.applied))
        return next(a for a in self.applied if a.sequence == sequence)

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def controllers() -> Iterator[list[Controller]]:
    made = [Controller()]
    yield made
    for controller in made:
        controller.close()


@pytest.fixture
def controller(controllers: list[Controller]) -> Controller:
    return controllers[0]


@pytest.fixture
def gnb(controller: Controller) -> Iterator[GnbMock]:
    with GnbMock(SPEC, 3, ran_address=controller.address) as gnb:
        controller.pump(lambda: bool(controller.reports))
        yield gnb


def is_now(time_ns: int) -> bool:
    """Of CLOCK_REALTIME: read a moment ago, or longer where the machine was busy."""
    return -0.1e9 < time.time_ns() - time_ns < DEADLINE_S * 1e9


def nr_slots_of(reports: list[ran_pb2.MacReport]) -> list[int]:
    """NR slots from the first report on, through wrap-rounds of the system frame number."""
    first = reports[0].frame * 20 + reports[0].slot
    return [first + (r.frame * 20 + r.slot - first) % 20480 for r in reports]


def test_hello_describes_the_emulated_cell(controller: Controller, gnb: GnbMock):
    hello = controller.hellos[0]
    assert (hello.protocol_version, hello.cell_id, hello.prb, hello.scs_khz) == (
        PROTOCOL_VERSION,
        "cell-1",
        106,
        30,
    )
    tdd = hello.tdd
    assert (tdd.period_slots, tdd.dl_slots, tdd.dl_symbols, tdd.ul_symbols, tdd.ul_slots) == (5, 1, 4, 6, 3)


def test_reports_come_at_every_period_of_emulated_time_and_carry_clock_realtime(
    controller: Controller, gnb: GnbMock
):
    controller.pump(lambda: len(controller.reports) >= 50)
    reports = controller.reports
    assert [r.sequence for r in reports] == list(range(1, len(reports) + 1))
    slots = nr_slots_of(reports)
    assert slots == list(range(slots[0], slots[0] + 20 * len(slots), 20))
    assert slots[0] % 20 == 0
    assert is_now(reports[-1].time_ns)
    assert {u.ue_id: u.slice for u in reports[-1].ues} == {"ue-1": "ar", "ue-2": "video", "ue-3": ""}


def test_real_and_virtual_time_give_equal_reports_for_the_same_quotas_and_clocks(controller: Controller):
    gpu = EmulatedGpu()
    edge = serve("127.0.0.1:0", backend=[gpu])
    edge.start()
    with GnbMock(SPEC, 7, ran_address=controller.address, edge_address=f"127.0.0.1:{edge.port}") as gnb:
        controller.pump(lambda: bool(controller.reports))
        for step, (ul, dl) in enumerate([(10, 10), (90, 30), (20, 106), (50, 5)]):
            sequence = controller.set_quota(
                {"ar": (ul, dl)}, bindings={"ue-2": "ar" if step == 2 else "video"}
            )
            gpu.lock(CLOCKS[step])
            controller.pump_until_applied(sequence)
            controller.pump(lambda step=step: gnb.stats()["gpu_mhz"] == CLOCKS[step])
            controller.pump_slots(1000)
    edge.close()
    changes = list(gnb.history)
    assert sum(isinstance(c, QuotaChange) for c in changes) == 4
    assert sum(isinstance(c, ClockChange) for c in changes) >= 3
    live = controller.reports
    slots = nr_slots_of(live)
    assert len(live) > 190
    repeated = {
        r.frame * 20 + r.slot: r
        for r in replay(
            gnb.spec,
            gnb.seed,
            changes,
            epoch_ns=gnb.epoch_ns,
            until_nr_slot=slots[-1],
            report_period_ms=PERIOD_MS,
        )
    }
    assert any(u.ul.queued_bytes for r in live for u in r.ues)
    for slot, report in zip(slots, live, strict=True):
        virtual = repeated[slot]
        virtual.time_ns = gnb.clock.real_ns(virtual.time_ns)
        virtual.session, virtual.sequence = report.session, report.sequence
        assert virtual.SerializeToString() == report.SerializeToString(), f"NR slot {slot}"


def test_other_quotas_give_other_reports(controller: Controller, gnb: GnbMock):
    """Guards the test above: the comparison must be able to fail."""
    controller.pump_until_applied(controller.set_quota({"ar": (5, 5)}))
    controller.pump_slots(1000)
    last = nr_slots_of(controller.reports)[-1]
    options = {"epoch_ns": gnb.epoch_ns, "until_nr_slot": last, "report_period_ms": PERIOD_MS}
    with_quota = list(replay(gnb.spec, gnb.seed, list(gnb.history), **options))
    without = list(replay(gnb.spec, gnb.seed, [], **options))
    assert [r.SerializeToString() for r in with_quota] != [r.SerializeToString() for r in without]


def test_time_that_is_over_by_its_start_is_made_up_for(controller: Controller):
    epoch_ns = time.time_ns() - 12_000_000_000
    with GnbMock(SPEC, 3, ran_address=controller.address, epoch_ns=epoch_ns) as gnb:
        controller.pump(lambda: len(controller.reports) >= 20)
        assert gnb.stats()["resyncs"] == gnb.clock.shifts == 0
    first, last = controller.reports[0], controller.reports[-1]
    slots = nr_slots_of(controller.reports)
    # The frame number has been round once since: 10.24 s.
    assert first.time_ns == epoch_ns + (slots[0] + 20480) * 500_000
    assert is_now(last.time_ns)
    # Nothing is different from a cell that has run all the time.
    options = {"epoch_ns": epoch_ns, "until_nr_slot": slots[-1] + 20480, "report_period_ms": PERIOD_MS}
    repeated = replay(SPEC, 3, list(gnb.history), **options)
    assert [u.ul.lc_bytes for u in list(repeated)[-1].ues] == [u.ul.lc_bytes for u in last.ues]
    with pytest.raises(ValueError, match="is in the future"):
        GnbMock(SPEC, 3, ran_address=controller.address, epoch_ns=time.time_ns() + 10**10)


def test_it_can_be_stopped_while_it_makes_up_for_much_time(controller: Controller):
    with GnbMock(SPEC, 3, ran_address=controller.address, epoch_ns=0) as gnb:
        pass
    assert gnb.stats()["resyncs"] == 0 and not controller.reports


def test_a_quota_is_kept_and_its_use_is_told(controller: Controller, gnb: GnbMock):
    controller.pump_until_applied(controller.set_quota({"ar": (12, 8)}))
    since_ns = gnb.stats()["quotas_since_ns"]
    controller.pump_slots(1000)
    applied = controller.pump_until_applied(controller.set_quota({"ar": (12, 8)}))
    assert gnb.stats()["quotas_since_ns"] == since_ns > 0, "renewed, not changed"
    assert {q.slice: (q.ul_prb, q.dl_prb) for q in applied.in_force} == {"ar": (12, 8)}
    use = {(u.slice, u.direction): u for u in applied.use}
    uplink = use["ar", ran_pb2.UL]
    assert 0 < uplink.max_new_prb <= 12
    assert uplink.new_prb_slots > 0
    assert 0 < use["ar", ran_pb2.DL].max_new_prb <= 8


def test_a_lease_that_lapses_returns_all_prbs(controller: Controller, gnb: GnbMock):
    sequence = controller.set_quota({"ar": (10, 10)}, lease_ms=200)
    controller.pump(lambda: any(a.lapsed for a in controller.applied))
    lapsed = controller.applied[-1]
    assert (lapsed.sequence, len(lapsed.in_force)) == (sequence, 0)
    assert dict(gnb.quotas) == {}
    last = gnb.history[-1]
    assert isinstance(last, QuotaChange) and last.quotas == {}
    assert gnb.stats()["quotas_since_ns"] == lapsed.time_ns


def test_a_killed_controller_leaves_all_prbs_within_the_lease_and_takes_over_again(
    controllers: list[Controller], gnb: GnbMock
):
    (first,) = controllers
    first.pump_until_applied(first.set_quota({"ar": (10, 10)}, lease_ms=300))
    first.close()
    controllers.clear()
    eventually(lambda: not gnb.quotas)
    eventually(lambda: gnb.stats()["mock"].get("reports_dropped", 0) > 0)
    second = Controller(first.port)
    controllers.append(second)
    second.pump(lambda: bool(second.reports))
    assert second.session != first.session
    applied = second.pump_until_applied(second.set_quota({"ar": (20, 20)}))
    assert applied.session == second.session
    assert dict(gnb.quotas) == {"ar": (20, 20)}


def test_an_unknown_ue_in_a_binding_is_counted_and_the_quota_holds(controller: Controller, gnb: GnbMock):
    applied = controller.pump_until_applied(controller.set_quota({"ar": (20, 20)}, bindings={"ue-9": "ar"}))
    assert not applied.lapsed and dict(gnb.quotas) == {"ar": (20, 20)}
    assert gnb.stats()["mock"]["unknown_ues"] == 1


def test_more_slices_than_the_cell_takes_do_not_stop_it(controller: Controller, gnb: GnbMock):
    for batch in range(20):
        quotas = {f"slice-{batch}-{n}": (20, 20) for n in range(16)}
        applied = controller.pump_until_applied(controller.set_quota(quotas))
        if applied.lapsed:
            break
    assert applied.lapsed and dict(gnb.quotas) == {}
    seen = len(controller.reports)
    controller.pump(lambda: len(controller.reports) > seen + 5)


def test_garbage_does_not_disturb_the_cell(controller: Controller, gnb: GnbMock):
    controller._socket.send_multipart([controller.peer, b"\xff\xff\xff"])
    controller._socket.send_multipart([controller.peer, b"two", b"parts"])
    eventually(lambda: gnb.stats()["ran"].get("malformed") == 2)
    seen = len(controller.reports)
    controller.pump(lambda: len(controller.reports) > seen + 5)


def test_a_long_pause_is_not_caught_up_and_times_stay_clock_realtime(controller: Controller, gnb: GnbMock):
    testbed = gnb._testbed
    assert testbed is not None
    slice_use = testbed.slice_use

    def pause() -> list[ran_pb2.SliceUse]:
        time.sleep(1.3)
        return slice_use()

    testbed.slice_use = pause  # type: ignore[method-assign]
    controller.pump_until_applied(controller.set_quota({"ar": (50, 50)}))
    testbed.slice_use = slice_use  # type: ignore[method-assign]
    controller.pump(lambda: gnb.stats()["resyncs"] >= 1)
    controller.pump_slots(40)
    stats = gnb.stats()
    assert stats["resyncs"] >= 1 and stats["clock_shifts"] >= 1
    slots = nr_slots_of(controller.reports)
    times = [r.time_ns for r in controller.reports]
    emulated_s = (slots[-1] - slots[0]) * 0.0005
    assert (times[-1] - times[0]) / 1e9 > emulated_s + 0.9
    assert is_now(times[-1])


class Ingest(qos_pb2_grpc.QosIngestServicer):
    def __init__(self) -> None:
        self.messages: list[qos_pb2.QosMessage] = []

    def Publish(
        self, requests: Iterator[qos_pb2.QosMessage], context: grpc.ServicerContext
    ) -> Iterator[qos_pb2.QosNotice]:
        for message in requests:
            self.messages.append(message)
            if message.HasField("hello"):
                yield qos_pb2.QosNotice(kind=qos_pb2.ACCEPTED)


def test_flows_and_frames_reach_the_qos_ingest(controller: Controller):
    ingest = Ingest()
    server = grpc.server(futures.ThreadPoolExecutor(2), options=security.SERVER_OPTIONS)
    qos_pb2_grpc.add_QosIngestServicer_to_server(ingest, server)
    port = security.grpc_server_add(server, "127.0.0.1:0", None)
    server.start()
    with GnbMock(SPEC, 3, ran_address=controller.address, qos_address=f"127.0.0.1:{port}") as gnb:
        eventually(lambda: any(m.HasField("flow_stop") for m in ingest.messages))
        eventually(lambda: sum(len(m.frames.frames) for m in ingest.messages) > 30)
    server.stop(0).wait()
    hello = ingest.messages[0].hello
    assert (hello.cell_id, hello.protocol_version, hello.clocks_synchronised) == (
        "cell-1",
        PROTOCOL_VERSION,
        True,
    )
    starts = [m.flow_start for m in ingest.messages if m.HasField("flow_start")]
    assert [(s.flow, s.ue_id, s.slice) for s in starts[:2]] == [
        ("flow-1", "ue-1", "ar"),
        ("flow-2", "ue-2", "video"),
    ]
    told = {m.flow_start.flow or m.flow_stop.flow or m.frames.flow for m in ingest.messages[1:]}
    assert told == {"flow-1", "flow-2"}, "traffic in no slice is nobody's"
    assert starts[0].time_ns == gnb.epoch_ns + 100_000_000
    assert starts[0].ul_bps > starts[0].dl_bps > 0
    complete = [f for m in ingest.messages for f in m.frames.frames if f.ue_received_ns]
    assert complete
    for frame in complete:
        assert (
            gnb.epoch_ns
            < frame.ue_sent_ns
            < frame.edge_received_ns
            < frame.edge_sent_ns
            < frame.ue_received_ns
        )
    assert gnb.stats()["qos"]["dropped_frames"] == 0


def test_unsynchronised_clocks_and_traffic_that_nobody_announces(controller: Controller):
    ingest = Ingest()
    server = grpc.server(futures.ThreadPoolExecutor(2), options=security.SERVER_OPTIONS)
    qos_pb2_grpc.add_QosIngestServicer_to_server(ingest, server)
    port = security.grpc_server_add(server, "127.0.0.1:0", None)
    server.start()
    flows = [dataclasses.replace(f, announced=f.flow != "flow-1", announced_rate=2.0) for f in SPEC.flows]
    spec = dataclasses.replace(SPEC, flows=flows, clocks_synchronised=False)
    with GnbMock(spec, 3, ran_address=controller.address, qos_address=f"127.0.0.1:{port}"):
        eventually(lambda: sum(len(m.frames.frames) for m in ingest.messages) > 30)
    server.stop(0).wait()
    assert not ingest.messages[0].hello.clocks_synchronised
    told = {m.flow_start.flow or m.flow_stop.flow or m.frames.flow for m in ingest.messages[1:]}
    assert told == {"flow-2"}
    start = next(m.flow_start for m in ingest.messages if m.HasField("flow_start"))
    assert start.ul_bps == 2 * flows[1].ul.mean_bps


def test_the_emulated_edge_runs_at_the_clock_that_the_edge_agent_reads_back(controller: Controller):
    gpu = EmulatedGpu()
    edge = serve("127.0.0.1:0", backend=[gpu])
    edge.start()
    with GnbMock(SPEC, 3, ran_address=controller.address, edge_address=f"127.0.0.1:{edge.port}") as gnb:
        gpu.lock(600)
        eventually(lambda: gnb.stats()["gpu_mhz"] == 600)
        assert ClockChange(gnb.history[-1].nr_slot, 600) == gnb.history[-1]
        eventually(lambda: gpu.read().utilisation > 0.0)
        edge.close()
        eventually(lambda: gnb.stats()["gpu_mhz"] == SPEC.edge.max_mhz)


def test_the_heartbeat_is_written_while_the_cell_runs(controller: Controller, tmp_path: Path):
    path = tmp_path / "heartbeat"
    with GnbMock(SPEC, 3, ran_address=controller.address, health_file=path) as gnb:
        eventually(path.exists)
        assert json.loads(path.read_text())["cell_id"] == "cell-1"
        eventually(lambda: gnb.alive)


def test_what_ends_the_cell_is_raised_to_who_waits_for_it(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
):
    def broken(self: GnbMock, socket: object) -> None:
        raise RuntimeError("the cell has failed")

    monkeypatch.setattr(mock_module.GnbMock, "_run", broken)
    gnb = GnbMock(SPEC, 3, ran_address=controller.address)
    gnb.start()
    with pytest.raises(RuntimeError, match="the cell has failed"):
        gnb.wait(DEADLINE_S)
    assert not gnb.alive
    gnb.close()


@pytest.mark.parametrize(
    ("addresses", "setting"),
    [
        ({"ran_address": "tcp://controller:5555"}, "--ran"),
        ({"ran_address": "tcp://127.0.0.1:5555", "qos_address": "controller:50062"}, "--qos"),
        ({"ran_address": "tcp://127.0.0.1:5555", "edge_address": "edge-agent:50061"}, "--edge"),
    ],
)
def test_an_address_beyond_loopback_needs_keys(addresses: dict[str, str], setting: str):
    with pytest.raises(security.InsecureAddress, match=f"{setting}.*--keys"):
        GnbMock(SPEC, 3, **addresses)  # type: ignore[arg-type]


def test_every_link_runs_under_keys(tmp_path: Path):
    pytest.importorskip("cryptography")
    keys.create(tmp_path, cells=["cell-1"])
    server = grpc.server(futures.ThreadPoolExecutor(2), options=security.SERVER_OPTIONS)
    qos_pb2_grpc.add_QosIngestServicer_to_server(Ingest(), server)
    port = security.grpc_server_add(server, "127.0.0.1:0", security.Tls(tmp_path, "controller"))
    server.start()
    edge = serve("127.0.0.1:0", tls=security.Tls(tmp_path, "edge-agent"))
    edge.start()
    controller = Controller(curve=security.curve_server(tmp_path))
    gnb = GnbMock(
        SPEC,
        3,
        ran_address=controller.address,
        curve=security.curve_client(tmp_path, "cell-1"),
        qos_address=f"localhost:{port}",
        edge_address=f"localhost:{edge.port}",
        tls=security.Tls(tmp_path, "gnb-mock"),
    )
    with gnb:
        controller.pump(lambda: bool(controller.reports))
        eventually(lambda: gnb.stats()["qos_connected"] and gnb.stats()["edge_connected"])
    controller.close()
    edge.close()
    server.stop(0).wait()


@pytest.mark.parametrize("name", STRANGERS)
def test_after_another_program_in_the_controllers_place_it_joins(name: str, tmp_path: Path):
    keys.create(tmp_path, cells=["cell-1"])
    with Stranger(name) as stranger:
        gnb = GnbMock(SPEC, 3, ran_address=stranger.address, curve=security.curve_client(tmp_path, "cell-1"))
        gnb._agent._reconnect_s = 1.0
        with gnb:
            stranger.fail_handshake()
            stranger.close()
            controller = Controller(int(stranger.address.rpartition(":")[2]), security.curve_server(tmp_path))
            try:
                controller.pump(lambda: bool(controller.reports))
            finally:
                controller.close()
