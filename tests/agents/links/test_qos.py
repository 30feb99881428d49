from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest

from agents.links.qos import Outbox, QosPublisher
from wire import PROTOCOL_VERSION, qos_pb2, qos_pb2_grpc, security

DEADLINE_S = 10.0


def start(flow: str = "f") -> qos_pb2.QosMessage:
    return qos_pb2.QosMessage(flow_start=qos_pb2.FlowStart(flow=flow, ue_id="ue-1", slice="ar", time_ns=5))


def stop(flow: str = "f") -> qos_pb2.QosMessage:
    return qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow=flow, time_ns=9))


def frames(*sequences: int, flow: str = "f") -> qos_pb2.QosMessage:
    batch = qos_pb2.FrameBatch(flow=flow, frames=[qos_pb2.Frame(sequence=s) for s in sequences])
    return qos_pb2.QosMessage(frames=batch)


def drain(outbox: Outbox, now: float) -> list[qos_pb2.QosMessage]:
    return list(iter(lambda: outbox.next(now), None))


# ---- what is kept ---------------------------------------------------------------------------------------


def test_messages_leave_in_order():
    outbox = Outbox()
    messages = [start(), frames(1, 2), frames(3), stop()]
    for message in messages:
        outbox.put(message)
    assert drain(outbox, 0.0) == messages


def test_a_new_stream_repeats_what_may_have_been_lost_and_names_the_active_flows_first():
    outbox = Outbox(keep_s=2.0)
    outbox.put(start("a"))
    outbox.put(start("b"))
    drain(outbox, 0.0)
    outbox.put(frames(1, flow="a"))
    drain(outbox, 9.0)
    outbox.put(frames(2, flow="a"))
    outbox.put(stop("b"))
    drain(outbox, 10.5)
    outbox.put(frames(3, flow="a"))
    assert outbox.rewind() == [start("a"), start("b")]
    assert drain(outbox, 20.0) == [frames(1, flow="a"), frames(2, flow="a"), stop("b"), frames(3, flow="a")]
    outbox.next(30.0)
    assert outbox.rewind() == [start("a")]


def test_active_flows_are_started_again_before_what_waits_and_stopped_ones_are_not():
    outbox = Outbox(keep_s=2.0)
    for flow in ("a", "b", "c"):
        outbox.put(start(flow))
    drain(outbox, 0.0)
    outbox.put(stop("b"))
    drain(outbox, 5.0)
    outbox.put(frames(1, flow="a"))
    outbox.put(stop("c"))
    outbox.start_again()
    again = drain(outbox, 6.0)
    assert sorted(m.flow_start.flow for m in again[:2]) == ["a", "c"]
    assert again[2:] == [frames(1, flow="a"), stop("c")]


def test_frames_that_wait_are_bounded_oldest_first_and_flow_events_stay():
    outbox = Outbox(max_frames=4)
    outbox.put(start())
    for n in range(0, 10, 2):
        outbox.put(frames(n, n + 1))
    outbox.put(stop())
    assert outbox.dropped_frames == 6
    assert drain(outbox, 0.0) == [start(), frames(6, 7), frames(8, 9), stop()]


def test_what_comes_back_for_repetition_is_bounded_too():
    outbox = Outbox(max_frames=3)
    outbox.put(frames(1, 2))
    drain(outbox, 0.0)
    outbox.put(frames(3, 4))
    assert outbox.rewind() == []
    assert drain(outbox, 0.0) == [frames(3, 4)]
    assert outbox.dropped_frames == 2


# ---- the stream -----------------------------------------------------------------------------------------


class Ingest(qos_pb2_grpc.QosIngestServicer):
    """Keeps what arrives, a list for each stream."""

    def __init__(self, version: int = PROTOCOL_VERSION) -> None:
        self.streams: list[list[qos_pb2.QosMessage]] = []
        self._version = version

    def Publish(
        self, requests: Iterator[qos_pb2.QosMessage], context: grpc.ServicerContext
    ) -> Iterator[qos_pb2.QosNotice]:
        got: list[qos_pb2.QosMessage] = []
        self.streams.append(got)
        for message in requests:
            got.append(message)
            if message.HasField("hello"):
                if message.hello.protocol_version != self._version:
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "version")
                yield qos_pb2.QosNotice(kind=qos_pb2.ACCEPTED)
            elif message.HasField("frames") and not message.frames.flow:
                yield qos_pb2.QosNotice(kind=qos_pb2.REFUSED, reason="flow: empty")


class Server:
    def __init__(self, ingest: Ingest, port: int = 0) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=security.SERVER_OPTIONS)
        qos_pb2_grpc.add_QosIngestServicer_to_server(ingest, self._server)
        self.port = security.grpc_server_add(self._server, f"127.0.0.1:{port}", None)
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def publishers() -> Iterator[list[QosPublisher]]:
    made: list[QosPublisher] = []
    yield made
    for publisher in made:
        publisher.close()


def publish(
    publishers: list[QosPublisher], port: int, *, outbox: Outbox | None = None, accept_s: float = 5.0
) -> QosPublisher:
    publisher = QosPublisher(
        f"127.0.0.1:{port}",
        None,
        cell_id="cell-1",
        host="mock",
        outbox=outbox,
        backoff_s=(0.05, 0.2),
        accept_s=accept_s,
    )
    publishers.append(publisher)
    publisher.start()
    return publisher


def test_the_stream_begins_with_a_hello_and_carries_what_was_put(publishers: list[QosPublisher]):
    ingest = Ingest()
    server = Server(ingest)
    publisher = publish(publishers, server.port)
    for message in (start(), frames(1), stop()):
        publisher.put(message)
    eventually(lambda: bool(ingest.streams) and len(ingest.streams[0]) == 4)
    hello, *rest = ingest.streams[0]
    assert hello.hello.cell_id == "cell-1"
    assert hello.hello.clocks_synchronised
    assert rest == [start(), frames(1), stop()]
    assert publisher.connected
    server.close()


def test_a_controller_that_returns_hears_of_the_active_flow_and_of_the_frames_since(
    publishers: list[QosPublisher],
):
    first = Ingest()
    server = Server(first)
    publisher = publish(publishers, server.port, outbox=Outbox(keep_s=0.0))
    publisher.put(start())
    eventually(lambda: bool(first.streams) and start() in first.streams[0])
    publisher.put(frames(1))
    eventually(lambda: frames(1) in first.streams[0])
    server.close()
    eventually(lambda: not publisher.connected)
    publisher.put(frames(2))
    second = Ingest()
    server = Server(second, server.port)
    eventually(lambda: any(frames(2) in s for s in second.streams))
    stream = next(s for s in second.streams if frames(2) in s)
    assert stream[1] == start()
    assert stream.index(start()) < stream.index(frames(2))
    server.close()


def test_a_refused_message_is_counted_and_the_stream_goes_on(publishers: list[QosPublisher]):
    ingest = Ingest()
    server = Server(ingest)
    publisher = publish(publishers, server.port)
    publisher.put(frames(1, flow=""))
    publisher.put(frames(2))
    eventually(lambda: publisher.counters.get("refused") == 1)
    eventually(lambda: frames(2) in ingest.streams[0])
    assert len(ingest.streams) == 1
    server.close()


def test_a_flow_that_was_refused_is_started_again(publishers: list[QosPublisher]):
    ingest = Ingest()
    server = Server(ingest)
    publisher = publish(publishers, server.port, outbox=Outbox(keep_s=0.0))
    publisher.put(start())
    publisher.put(frames(1))
    publisher.put(frames(2, flow=""))
    eventually(lambda: bool(ingest.streams) and ingest.streams[0].count(start()) == 2)
    server.close()


def test_another_version_is_tried_again_and_loses_no_flow_event(
    publishers: list[QosPublisher], caplog: pytest.LogCaptureFixture
):
    ingest = Ingest(version=PROTOCOL_VERSION + 1)
    server = Server(ingest)
    publisher = publish(publishers, server.port)
    publisher.put(start())
    eventually(lambda: len(ingest.streams) >= 2)
    assert not publisher.connected
    assert publisher.counters["waiting"] == 1
    assert "FAILED_PRECONDITION" in caplog.text
    server.close()


def test_a_controller_that_never_answers_the_hello_blocks_nobody(publishers: list[QosPublisher]):
    release = threading.Event()

    class Deaf(Ingest):
        def Publish(
            self, requests: Iterator[qos_pb2.QosMessage], context: grpc.ServicerContext
        ) -> Iterator[qos_pb2.QosNotice]:
            self.streams.append([])
            release.wait(DEADLINE_S)
            yield from ()

    ingest = Deaf()
    server = Server(ingest)
    publisher = publish(publishers, server.port, accept_s=0.1)
    publisher.put(start())
    eventually(lambda: len(ingest.streams) >= 2)
    publisher.close()
    release.set()
    server.close()


def test_an_address_beyond_loopback_needs_tls():
    with pytest.raises(security.InsecureAddress, match=r"--qos.*--keys"):
        QosPublisher("controller:50052", None, cell_id="c", host="h")
