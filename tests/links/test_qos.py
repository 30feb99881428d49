"""QoS ingest: what hosts report comes through, what cannot be is refused by place, nothing is lost unsaid."""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest

from agents.links.qos import QosPublisher, list_ues
from controller.core.clocks import ClockFault, Moment
from controller.core.observation import Flow
from controller.links import qos
from controller.links.codec import BadMessage, ClockReport, FlowEnd, FrameBatch
from controller.links.counters import Counters
from controller.links.qos import FlowBegin, HostLost, QosIngest, QosItem, QosQueue, _Stream
from tests.links.test_codec import T0, flow_start
from wire import PROTOCOL_VERSION, qos_pb2
from wire.security import SERVER_OPTIONS, grpc_channel, grpc_server_add

PATIENCE_S = 60.0
NOW = T0 + 77


# -- the queue


def batch(n: int, first: int = 0, flow: str = "f") -> FrameBatch:
    columns = np.zeros((n, 5), np.int64)
    columns[:, 0] = np.arange(first, first + n)
    return FrameBatch(flow, columns, True, NOW)


def flow(name: str = "f") -> FlowBegin:
    return FlowBegin("h", Flow(name, "ue-1", "ar", 3e6, 1e6, T0))


def test_a_full_queue_drops_the_oldest_frames_counts_them_and_keeps_flow_events() -> None:
    held = QosQueue(max_frames=10)
    held.put("cell-1", flow())
    for i in range(6):
        held.put("cell-1" if i < 3 else "cell-2", batch(3, 3 * i))
        held.put("cell-1", FlowEnd(f"f{i}", T0))
    assert len(held) == 9
    items = held.take()
    frames = [i.columns[0, 0] for _, i in items if isinstance(i, FrameBatch)]
    assert frames == [9, 12, 15]
    assert held.counters.get("qos_frames_dropped_total", "cell-1") == 9
    assert held.counters.get("qos_frames_dropped_total", "cell-2") == 0
    assert sum(isinstance(i, FlowBegin | FlowEnd) for _, i in items) == 7
    assert held.take() == [] and len(held) == 0


def test_flow_events_come_before_the_frames_and_in_order() -> None:
    held = QosQueue()
    items: list[QosItem] = [flow("a"), batch(1, flow="a"), FlowEnd("a", T0), flow("b"), batch(1, flow="b")]
    for item in items:
        held.put("cell-1", item)
    taken = [i for _, i in held.take()]
    assert taken == [items[0], items[2], items[3], items[1], items[4]]


def test_too_many_flow_events_are_refused_not_dropped() -> None:
    held = QosQueue(max_events=2)
    held.put("c", flow("a"))
    held.put("c", flow("b"))
    with pytest.raises(BadMessage, match="full"):
        held.put("c", flow("c"))
    assert [i.flow.flow for _, i in held.take() if isinstance(i, FlowBegin)] == ["a", "b"]
    held.put("c", flow("c"))


def test_of_a_hosts_clock_reports_the_latest_waits() -> None:
    held = QosQueue()
    for i in range(3):
        for host in ("h", "g"):
            held.put("c", ClockReport(host, "SLAVE", float(i), 1.0, T0 + i))
    assert {i.host: i.offset_ns for _, i in held.take() if isinstance(i, ClockReport)} == {"h": 2.0, "g": 2.0}
    assert held.counters.get("qos_clock_reports_dropped_total") == 4


# -- the servicer, on a loopback socket


class Host:
    """A host's stream."""

    def __init__(self, port: int) -> None:
        self.channel = grpc_channel(f"127.0.0.1:{port}", None)
        self.out: queue.Queue[bytes | None] = queue.Queue()
        call = self.channel.stream_stream(
            "/prbandit.qos.QosIngest/Publish", response_deserializer=qos_pb2.QosNotice.FromString
        )
        self.notices = call(iter(self.out.get, None), timeout=PATIENCE_S)

    def send(self, **body: Any) -> None:
        self.out.put(qos_pb2.QosMessage(**body).SerializeToString())

    def hello(
        self, *, host: str = "h", cell_id: str = "cell-1", version: int = PROTOCOL_VERSION, instance: int = 0
    ) -> None:
        self.send(
            hello=qos_pb2.QosHello(
                protocol_version=version,
                host=host,
                cell_id=cell_id,
                clocks_synchronised=True,
                instance=instance,
            )
        )

    def greet(self, **options: Any) -> None:
        self.hello(**options)
        assert next(self.notices).kind == qos_pb2.ACCEPTED

    def refused(self) -> str:
        notice = next(self.notices)
        assert (notice.kind, notice.protocol_version) == (qos_pb2.REFUSED, PROTOCOL_VERSION)
        return notice.reason

    def dealt_with(self) -> None:
        """Wait until all that was sent has been: a second hello is answered after it."""
        self.hello()
        assert "second QosHello" in self.refused()

    def close(self) -> None:
        self.out.put(None)
        self.channel.close()


class Bench:
    def __init__(self, **options: Any) -> None:
        self.items: queue.Queue[tuple[str, QosItem]] = queue.Queue()
        self.ingest = QosIngest(
            lambda c, i: self.items.put((c, i)), **{"clock": lambda: Moment(NOW, NOW), **options}
        )
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=SERVER_OPTIONS)
        self.ingest.add_to(self.server)
        self.port = grpc_server_add(self.server, "127.0.0.1:0", None)
        self.server.start()
        self.hosts: list[Host] = []

    def host(self) -> Host:
        self.hosts.append(Host(self.port))
        return self.hosts[-1]

    def item(self) -> tuple[str, QosItem]:
        return self.items.get(timeout=PATIENCE_S)

    def count(self, name: str, cell: str | None = None) -> int:
        assert name in qos.COUNTERS
        return self.ingest.counters.get(name, cell)

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self.server.stop(0).wait()


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    benches = []

    def build(**options: Any) -> Bench:
        benches.append(Bench(**options))
        return benches[-1]

    yield build
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def frames(flow: str = "f", n: int = 2) -> qos_pb2.FrameBatch:
    return qos_pb2.FrameBatch(
        flow=flow, frames=[qos_pb2.Frame(sequence=i, ue_sent_ns=T0 + i) for i in range(n)]
    )


def refusal(host: Host) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        next(host.notices)
    return caught.value.code(), caught.value.details()


def test_frames_of_a_clock_beyond_the_bound_are_not_synchronised(bench: Bench) -> None:
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start())
    seen = []
    for offset in (5.0, 2e6, -5.0):
        host.send(clock=qos_pb2.ClockStatus(host="h", ptp_state="SLAVE", offset_ns=offset, time_ns=T0))
        host.send(frames=frames())
        while not isinstance(item := bench.item()[1], FrameBatch):
            pass
        seen.append(item.synchronised)
    assert seen == [True, False, True]
    assert bench.ingest.counters.get("qos_clock_out_of_bound_total", "cell-1") == 1


def test_a_clock_that_another_stream_tells_of_counts_for_the_frames(make: Callable[..., Bench]) -> None:
    now = [NOW]
    bench = make(clock_stale_s=2.0, clock=lambda: Moment(now[0], now[0]))
    host, agent, edge = bench.host(), bench.host(), bench.host()
    host.greet()
    agent.greet(host="ptp@h")
    edge.greet(host="ptp@edge")
    host.send(flow_start=flow_start())
    bench.item()

    def tell(stream: Host, name: str, **changes: Any) -> str:
        told = {"host": name, "ptp_state": "SLAVE", "offset_ns": 5.0, "time_ns": now[0], **changes}
        stream.send(clock=qos_pb2.ClockStatus(**told))
        item = bench.item()[1]
        assert isinstance(item, ClockReport)
        return item.fault

    def reason() -> str:
        host.send(frames=frames())
        item = bench.item()[1]
        assert isinstance(item, FrameBatch) and item.synchronised is (item.fault is None)
        return item.fault.reason if item.fault else ""

    assert reason() == ""
    assert tell(agent, "h") == tell(edge, "edge") == ""
    assert reason() == ""
    # ptp4l of the edge is gone: no offset, and that is not an offset of zero.
    assert tell(edge, "edge", ptp_state="NONE", offset_ns=0.0) == "edge: PTP state NONE"
    assert reason() == "edge: PTP state NONE"
    assert tell(edge, "edge") == "" and reason() == ""
    now[0] += 2_000_000_001
    assert reason() == "edge: no news of its clock"
    tell(edge, "edge")
    assert reason() == "h: no news of its clock"
    tell(agent, "h")
    assert reason() == ""
    assert bench.count("qos_frames_unsynchronised_total", "cell-1") == 6
    assert bench.count("qos_clock_unusable_total", "cell-1") == 1
    assert bench.count("qos_clock_out_of_bound_total", "cell-1") == 0


def test_the_controllers_clock_being_set_makes_no_news_old(monkeypatch: pytest.MonkeyPatch) -> None:
    before = qos.read_clocks()
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 3600 * 10**9)
    after = qos.read_clocks()
    assert after.real_ns - before.real_ns >= 3600 * 10**9
    assert 0 <= after.mono_ns - before.mono_ns < 60 * 10**9


def test_hosts_that_follow_different_grandmasters_do_not_agree(bench: Bench) -> None:
    host, agent = bench.host(), bench.host()
    host.greet()
    agent.greet(host="ptp@edge")
    host.send(flow_start=flow_start())
    reasons = []
    for edge in ("aa", "bb", "aa"):
        for stream, name, grandmaster in ((host, "h", "aa"), (agent, "edge", edge)):
            told = {"host": name, "ptp_state": "SLAVE", "time_ns": T0, "grandmaster": grandmaster}
            stream.send(clock=qos_pb2.ClockStatus(**told))
            while not isinstance(bench.item()[1], ClockReport):
                pass
        host.send(frames=frames())
        while not isinstance(item := bench.item()[1], FrameBatch):
            pass
        reasons.append(item.fault.reason if item.fault else "")
    assert reasons == ["", "edge, h: different grandmasters", ""]


def test_a_clock_that_has_to_be_told_of_and_is_not(make: Callable[..., Bench]) -> None:
    bench = make(clock_hosts=["edge"])
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start())
    host.send(frames=frames())
    begin, batch = bench.item()[1], bench.item()[1]
    assert isinstance(batch, FrameBatch) and isinstance(begin, FlowBegin)
    assert batch.fault == ClockFault("edge: no news of its clock", 0) and not batch.synchronised
    # The flow's own time is of a clock that nothing is known of.
    assert begin.flow.start_ns == NOW


def test_a_flow_start_from_the_edges_host_leaves_its_clock_checked(make: Callable[..., Bench]) -> None:
    def check(cell_id: str, flow: Flow, service: str) -> None:
        if flow.slice != "ar":
            raise ValueError("unknown slice")

    named, unnamed = make(clock_hosts=["edge"], check_flow=check), make(check_flow=check)
    for bench in (named, unnamed):
        ue, edge = bench.host(), bench.host()
        ue.greet()
        ue.send(flow_start=flow_start())
        bench.item()
        edge.greet(host="edge")

        def tell(state: str, edge: Host = edge, bench: Bench = bench) -> None:
            edge.send(clock=qos_pb2.ClockStatus(host="edge", ptp_state=state, time_ns=T0))
            assert isinstance(bench.item()[1], ClockReport)

        def reason(ue: Host = ue, bench: Bench = bench) -> str:
            ue.send(frames=frames())
            batch = bench.item()[1]
            assert isinstance(batch, FrameBatch)
            return batch.fault.reason if batch.fault else ""

        tell("NONE")
        assert reason() == "edge: PTP state NONE"
        edge.send(flow_start=flow_start(flow="g", slice="nowhere"))
        assert "unknown slice" in edge.refused()
        assert reason() == "edge: PTP state NONE"
        # A flow that is accepted makes a UE's host of one that is not named, as long as it lasts.
        for ends in ("by its stop", "with its stream"):
            edge.send(flow_start=flow_start(flow="g"))
            assert isinstance(bench.item()[1], FlowBegin)
            edge.dealt_with()
            assert reason() == ("edge: PTP state NONE" if bench is named else "")
            if ends == "by its stop":
                edge.send(flow_stop=qos_pb2.FlowStop(flow="g", time_ns=T0))
                assert isinstance(bench.item()[1], FlowEnd)
                edge.dealt_with()
            else:
                edge.out.put(None)
                assert isinstance(bench.item()[1], HostLost)
            assert reason() == "edge: PTP state NONE", ends


def test_where_the_edge_is_named_an_idle_hosts_clock_holds_up_nobody(make: Callable[..., Bench]) -> None:
    bench = make(clock_hosts=["edge"])
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start())
    bench.item()
    for name, state in (("edge", "SLAVE"), ("h", "SLAVE"), ("ue-2", "LISTENING")):
        agent = bench.host()
        agent.greet(host=f"ptp@{name}")
        agent.send(clock=qos_pb2.ClockStatus(host=name, ptp_state=state, time_ns=T0))
        bench.item()
    host.send(frames=frames())
    batch = bench.item()[1]
    assert isinstance(batch, FrameBatch) and batch.fault is None


def test_a_stream_tells_of_the_clock_of_its_own_host_alone(bench: Bench) -> None:
    host, agent = bench.host(), bench.host()
    host.greet()
    agent.greet(host="ptp@ue-2")
    host.send(flow_start=flow_start())
    bench.item()
    for stream, other in ((host, "edge"), (agent, "edge"), (agent, "ptp@ue-2")):
        stream.send(clock=qos_pb2.ClockStatus(host=other, ptp_state="NONE", time_ns=T0))
        assert f"ClockStatus of host {other!r}: this is a stream of" in stream.refused()
    assert bench.count("qos_denied_total", "cell-1") == 3
    assert bench.ingest.clocks("cell-1") == ()
    host.send(frames=frames())
    batch = bench.item()[1]
    assert isinstance(batch, FrameBatch) and batch.fault is None


def test_a_host_that_told_of_its_clock_once_does_not_hold_up_the_others_for_ever(
    make: Callable[..., Bench],
) -> None:
    now = [NOW]
    bench = make(clock_stale_s=2.0, clock=lambda: Moment(now[0], now[0]))
    host, stranger = bench.host(), bench.host()
    host.greet()
    host.send(flow_start=flow_start())
    bench.item()
    stranger.greet(host="stranger")
    stranger.send(clock=qos_pb2.ClockStatus(host="stranger", ptp_state="SLAVE", time_ns=T0))
    bench.item()
    stranger.out.put(None)
    bench.item()

    def reason() -> str:
        host.send(frames=frames())
        batch = bench.item()[1]
        assert isinstance(batch, FrameBatch)
        return batch.fault.reason if batch.fault else ""

    now[0] = NOW + 10_000_000_000
    assert reason() == "stranger: no news of its clock"
    (known,) = bench.ingest.clocks("cell-1")
    assert (known.host, known.age_s, known.fault) == ("stranger", 10.0, "stranger: no news of its clock")
    now[0] = NOW + 30_000_000_000
    assert reason() == "" and bench.ingest.clocks("cell-1") == ()


def test_flows_frames_and_clocks_come_through_as_core_types(bench: Bench) -> None:
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start())
    host.send(frames=frames())
    host.send(clock=qos_pb2.ClockStatus(host="h", ptp_state="SLAVE", offset_ns=-5.0, time_ns=T0))
    host.send(flow_stop=qos_pb2.FlowStop(flow="f", time_ns=T0 + 9))
    host.send(frames=frames())
    assert bench.item() == ("cell-1", FlowBegin("h", Flow("f", "ue-1", "ar", 3e6, 1e6, T0)))
    cell, item = bench.item()
    assert cell == "cell-1" and isinstance(item, FrameBatch)
    assert item.columns.tolist() == [[0, T0, 0, 0, 0], [1, T0 + 1, 0, 0, 0]]
    assert item.synchronised and item.received_ns == NOW
    assert bench.item() == ("cell-1", ClockReport("h", "SLAVE", -5.0, 0.0, T0))
    assert bench.item() == ("cell-1", FlowEnd("f", T0 + 9))
    # The last frames of a flow come after its end.
    assert isinstance(bench.item()[1], FrameBatch)
    host.out.put(None)
    assert bench.item() == ("cell-1", HostLost("h", NOW))
    assert bench.count("qos_frames_total", "cell-1") == 4
    assert bench.count("qos_refused_total") == 0


def test_two_cells_report_at_a_time(bench: Bench) -> None:
    for cell in ("cell-1", "cell-2"):
        host = bench.host()
        host.greet(cell_id=cell, host=f"host of {cell}")
        host.send(flow_start=flow_start(flow=cell))
        got, item = bench.item()
        assert got == cell and isinstance(item, FlowBegin) and item.flow.flow == cell


def test_hello_must_come_first(bench: Bench) -> None:
    host = bench.host()
    host.send(flow_start=flow_start())
    code, text = refusal(host)
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "QosHello" in text
    assert bench.count("qos_stream_refused_total") == 1
    assert bench.items.empty()


def test_another_version_is_refused_with_both_named(bench: Bench) -> None:
    host = bench.host()
    host.hello(version=PROTOCOL_VERSION + 4)
    code, text = refusal(host)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert f"version {PROTOCOL_VERSION + 4} " in text and f"version {PROTOCOL_VERSION} " in text
    assert bench.count("qos_version_mismatch_total") == 1


@pytest.mark.parametrize("cell_id", ["", "cell-9", "c" * 64])
def test_an_unknown_cell_is_refused(make: Callable[..., Bench], cell_id: str) -> None:
    bench = make(expected_cells={"cell-1"})
    host = bench.host()
    host.hello(cell_id=cell_id)
    code, text = refusal(host)
    assert code == grpc.StatusCode.NOT_FOUND and repr(cell_id) in text
    assert bench.count("qos_stream_refused_total") == 1


def test_a_host_without_a_name_is_refused(bench: Bench) -> None:
    host = bench.host()
    host.hello(host="")
    assert refusal(host)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_cannot_be_used_is_refused_by_place_and_the_stream_goes_on(bench: Bench) -> None:
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start(ul_bps=float("nan")))
    assert "flow 'f': ul_bps nan" in host.refused()
    host.send(frames=frames("unknown"))
    assert "'unknown'" in host.refused()
    host.send(flow_stop=qos_pb2.FlowStop(flow="unknown", time_ns=T0))
    assert "'unknown'" in host.refused()
    host.hello()
    assert "second QosHello" in host.refused()
    assert bench.count("qos_refused_total", "cell-1") == 4
    # What could not start is told of until it does, other messages for some seconds.
    assert "ul_bps nan" in bench.ingest.hosts("cell-1")[0].refused
    host.out.put(b"\xff\xff\xff")
    assert "not a QosMessage" in host.refused()
    host.out.put(b"")
    assert "body" in host.refused()
    host.out.put(b"\xba\x01\x02\x08\x01")
    assert "body" in host.refused()
    assert bench.count("qos_malformed_total", "cell-1") == 3
    host.send(flow_start=flow_start())
    assert isinstance(bench.item()[1], FlowBegin)
    assert "ul_bps" not in bench.ingest.hosts("cell-1")[0].refused
    host.send(frames=frames(n=1025))
    assert "1025 frames" in host.refused()
    # That there are none to judge is no outage.
    blind = bench.item()[1]
    assert isinstance(blind, FrameBatch) and len(blind) == 0
    assert blind.fault is not None and "frames of it are refused" in blind.fault.reason
    host.send(frames=frames())
    assert isinstance(bench.item()[1], FrameBatch)


def test_a_flow_that_the_daemon_does_not_want_is_refused(make: Callable[..., Bench]) -> None:
    def check(cell_id: str, flow: Flow, service: str) -> None:
        if flow.slice != "ar":
            raise ValueError(f"flow {flow.flow}: unknown slice {flow.slice!r}")

    bench = make(check_flow=check)
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start(slice="nowhere"))
    assert "unknown slice 'nowhere'" in host.refused()
    host.send(frames=frames())
    assert "never started" in host.refused()
    host.send(flow_start=flow_start())
    assert isinstance(bench.item()[1], FlowBegin)


def test_a_full_queue_is_told_to_the_host() -> None:
    held = QosQueue(max_events=1)
    ingest = QosIngest(held.put, counters=held.counters)
    hello = qos_pb2.QosHello(host="h", cell_id="cell-1")
    starts = [qos_pb2.QosMessage(flow_start=flow_start(flow=n)) for n in ("a", "b")]
    assert ingest._take(_Stream(hello, 1), starts[0]) == ""
    assert "full" in ingest._take(_Stream(hello, 1), starts[1])
    unknown = ingest._take(_Stream(hello, 1), qos_pb2.QosMessage(frames=frames("b")))
    assert "never started" in unknown and held.counters.get("qos_refused_total", "cell-1") == 2


def test_each_stream_of_a_host_has_its_own_flows(bench: Bench) -> None:
    """Two clients on one machine, or one that is back before its old stream is seen to end."""
    first, second = bench.host(), bench.host()
    first.greet()
    second.greet()
    first.send(flow_start=flow_start())
    second.send(flow_start=flow_start(flow="g"))
    begun = {}
    for _ in range(2):
        item = bench.item()[1]
        assert isinstance(item, FlowBegin) and item.host == "h"
        begun[item.flow.flow] = item.stream
    assert begun["f"] != begun["g"]
    second.out.put(None)
    assert list(second.notices) == []
    lost = bench.item()[1]
    assert isinstance(lost, HostLost) and (lost.host, lost.stream) == ("h", begun["g"])


def test_an_active_flow_is_not_another_process_s_to_start(bench: Bench) -> None:
    first, second, again = (bench.host() for _ in range(3))
    for host, instance in ((first, 1), (second, 2), (again, 1)):
        host.greet(instance=instance)
    first.send(flow_start=flow_start())
    assert isinstance(bench.item()[1], FlowBegin)

    for message in (
        {"flow_start": flow_start()},
        {"frames": frames()},
        {"flow_stop": qos_pb2.FlowStop(flow="f", time_ns=T0)},
    ):
        second.send(**message)
        assert re.search(r"of flow 'f': another process of host 'h' at .*127.0.0.1", second.refused())
    assert bench.items.empty()

    # The process itself may come back on another stream, before its old one is seen to end.
    again.send(flow_start=flow_start())
    assert isinstance(bench.item()[1], FlowBegin)
    first.send(frames=frames())
    assert isinstance(bench.item()[1], FrameBatch)

    # Once the stream has ended the flow is free.
    again.channel.close()
    assert isinstance(bench.item()[1], HostLost)
    second.send(flow_start=flow_start())
    assert isinstance(bench.item()[1], FlowBegin)
    first.send(frames=frames())
    assert "another process" in first.refused()


def test_of_two_publishers_of_one_flow_the_second_has_it_when_the_first_is_gone(bench: Bench) -> None:
    publishers = [
        QosPublisher(f"127.0.0.1:{bench.port}", None, cell_id="cell-1", host="h", start_again_s=0.05)
        for _ in range(2)
    ]
    first, second = publishers
    try:
        first.start()
        first.put(qos_pb2.QosMessage(flow_start=flow_start()))
        begun = bench.item()[1]
        assert isinstance(begun, FlowBegin)
        second.start()
        second.put(qos_pb2.QosMessage(flow_start=flow_start()))
        refusals = 0
        while second.counters.get("refused", 0) < 20:
            time.sleep(0.01)
            if second.counters.get("refused", 0) > refusals:
                refusals = second.counters["refused"]
                second.put(qos_pb2.QosMessage(frames=frames()))
        assert bench.items.empty()
        first.close()
        assert isinstance(bench.item()[1], HostLost)
        end = time.monotonic() + PATIENCE_S
        while bench.items.empty():
            assert time.monotonic() < end
            second.put(qos_pb2.QosMessage(frames=frames()))
            time.sleep(0.05)
        taken = bench.item()[1]
        assert isinstance(taken, FlowBegin) and taken.stream != begun.stream
    finally:
        for publisher in publishers:
            publisher.close()


def test_a_flow_that_has_stopped_is_anybody_s_to_start(bench: Bench) -> None:
    first, second = bench.host(), bench.host()
    first.greet(instance=1)
    second.greet(instance=2)
    first.send(flow_start=flow_start())
    first.send(flow_stop=qos_pb2.FlowStop(flow="f", time_ns=T0 + 1))
    first.send(frames=frames())
    assert [type(bench.item()[1]) for _ in range(3)] == [FlowBegin, FlowEnd, FrameBatch]
    second.send(flow_start=flow_start())
    assert isinstance(bench.item()[1], FlowBegin)


def test_a_host_that_breaks_off_is_lost_and_its_flows_stay_known(bench: Bench) -> None:
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start())
    bench.item()
    host.channel.close()
    assert bench.item()[1] == HostLost("h", NOW)
    again = bench.host()
    again.greet()
    again.send(frames=frames())
    assert isinstance(bench.item()[1], FrameBatch)


def test_one_host_too_many_is_refused_and_a_place_becomes_free(make: Callable[..., Bench]) -> None:
    bench = make(max_streams=1)
    first = bench.host()
    first.greet()
    second = bench.host()
    second.hello()
    assert refusal(second)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    first.out.put(None)
    assert list(first.notices) == []
    end = time.monotonic() + PATIENCE_S
    while True:
        third = bench.host()
        third.hello()
        try:
            assert next(third.notices).kind == qos_pb2.ACCEPTED
            break
        except grpc.RpcError:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_flows_are_bounded_and_stopped_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qos, "MAX_CELL_FLOWS", 2)
    ingest = QosIngest(lambda cell, item: None, counters=Counters())
    hello = qos_pb2.QosHello(host="h", cell_id="c")

    def start(name: str) -> str:
        return ingest._take(_Stream(hello, 1), qos_pb2.QosMessage(flow_start=flow_start(flow=name)))

    assert [start("a"), start("b"), start("a")] == ["", "", ""]
    assert "more than 2 flows" in start("c")
    stop = qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow="b", time_ns=T0))
    assert ingest._take(_Stream(hello, 1), stop) == ""
    assert start("c") == ""
    assert "never started" in ingest._take(_Stream(hello, 1), qos_pb2.QosMessage(frames=frames("b")))


def test_flows_of_streams_that_have_ended_make_room_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qos, "MAX_CELL_FLOWS", 2)
    ingest = QosIngest(lambda cell, item: None, counters=Counters())
    stream = _Stream(qos_pb2.QosHello(host="h", cell_id="c"), 1)

    def start(name: str, on: _Stream) -> str:
        return ingest._take(on, qos_pb2.QosMessage(flow_start=flow_start(flow=name)))

    assert [start(name, stream) for name in ("a", "b", "a")] == [""] * 3
    assert "more than 2 flows" in start("c", stream)
    ingest._ended(stream)
    other = _Stream(qos_pb2.QosHello(host="g", cell_id="c"), 2)
    assert start("c", other) == ""
    assert sorted(flow for _, flow in ingest._flows) == ["a", "c"]


def test_flows_whose_host_may_come_back_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qos, "MAX_CELL_FLOWS", 1)
    now = [NOW]
    ingest = QosIngest(lambda cell, item: None, away_s=2.0, clock=lambda: Moment(now[0], now[0]))

    def start(name: str, cell: str = "c") -> str:
        stream = _Stream(qos_pb2.QosHello(host="h", cell_id=cell), 1)
        answer = ingest._take(stream, qos_pb2.QosMessage(flow_start=flow_start(flow=name)))
        ingest._ended(stream)
        return answer

    assert start("a") == ""
    assert start("b") == "FlowStart of flow 'b': more than 1 flows are active in cell 'c'"
    assert start("b", "another cell") == ""
    now[0] += 2_000_000_000
    assert start("b") == ""


def test_a_host_is_told_the_ues_of_its_cell() -> None:
    reported: list[tuple[tuple[str, str], ...] | None] = [None, (), (("ue-1", "ar"), ("ue-2", ""))]
    ingest = QosIngest(lambda cell, item: None, expected_cells={"cell-1"}, ues=lambda cell: reported.pop(0))
    server = ingest.server()
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        # It waits for the gNB, and for a UE.
        assert list_ues(address, None, "cell-1") == (("ue-1", "ar"), ("ue-2", ""))
        reported[:] = [()] * 100
        with pytest.raises(LookupError, match="cell cell-1 has no UE"):
            list_ues(address, None, "cell-1", timeout_s=0.1)
        reported[:] = [None] * 100
        with pytest.raises(LookupError, match="cell cell-1 has no gNB that is connected"):
            list_ues(address, None, "cell-1", timeout_s=0.1)
        with pytest.raises(
            ConnectionError, match=r"NOT_FOUND: cell 'cell-2' is not known here; cells: cell-1"
        ):
            list_ues(address, None, "cell-2")
    finally:
        server.stop(0)
    with pytest.raises(ConnectionError, match="controller at"):
        list_ues(address, None, "cell-1", timeout_s=0.2)
