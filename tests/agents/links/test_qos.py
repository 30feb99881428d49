from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest

from agents.links.qos import Outbox, QosPublisher, samples_messages
from wire import PROTOCOL_VERSION, qos_pb2, qos_pb2_grpc, security

DEADLINE_S = 10.0


def start(flow: str = "f") -> qos_pb2.QosMessage:
    return qos_pb2.QosMessage(flow_start=qos_pb2.FlowStart(flow=flow, ue_id="ue-1", slice="ar", time_ns=5))


def stop(flow: str = "f") -> qos_pb2.QosMessage:
    return qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow=flow, time_ns=9))


def frames(*sequences: int, flow: str = "f") -> qos_pb2.QosMessage:
    batch = qos_pb2.FrameBatch(flow=flow, frames=[qos_pb2.Frame(sequence=s) for s in sequences])
    return qos_pb2.QosMessage(frames=batch)


def samples(*times: int, flow: str = "f") -> qos_pb2.QosMessage:
    rows = qos_pb2.Samples(flow=flow, table="pose", time_ns=times, values=[0.5] * len(times))
    return qos_pb2.QosMessage(samples=rows)


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


def test_samples_that_wait_are_bounded_apart_from_frames():
    outbox = Outbox(max_frames=4, max_samples=3)
    outbox.put(start())
    for n in range(0, 8, 2):
        outbox.put(samples(n + 1, n + 2))
        outbox.put(frames(n))
    assert (outbox.dropped_samples, outbox.dropped_frames) == (6, 0)
    assert drain(outbox, 0.0) == [start(), frames(0), frames(2), frames(4), samples(7, 8), frames(6)]
    assert outbox.rewind() == []
    outbox.put(samples(9, 10))
    assert (outbox.dropped_samples, outbox.dropped_frames) == (8, 0)
    assert samples(9, 10) in drain(outbox, 0.0)


def test_samples_that_may_have_been_lost_are_sent_again():
    outbox = Outbox(keep_s=2.0)
    outbox.put(start())
    drain(outbox, 0.0)
    outbox.put(samples(1))
    drain(outbox, 9.0)
    outbox.put(samples(2))
    assert outbox.rewind() == [start()]
    assert drain(outbox, 10.0) == [samples(1), samples(2)]


# ---- samples --------------------------------------------------------------------------------------------


def test_rows_are_divided_among_messages_that_hold_whole_rows():
    values = np.arange(1500 * 6).reshape(1500, 6)
    parts = [m.samples for m in samples_messages("f", "pose", np.arange(1, 1501), values)]
    assert [len(p.time_ns) for p in parts] == [682, 682, 136]
    assert [v for p in parts for v in p.values] == list(range(9000))
    assert [t for p in parts for t in p.time_ns] == list(range(1, 1501))
    assert {(p.flow, p.table) for p in parts} == {("f", "pose")}


def test_a_table_of_one_column_may_come_as_a_row_of_values():
    (message,) = samples_messages("f", "hits", [1, 2], [0.5, float("nan")])
    assert message.samples.values[0] == 0.5 and np.isnan(message.samples.values[1])
    assert [len(m.samples.time_ns) for m in samples_messages("f", "hits", range(1, 1026), [1.0] * 1025)] == [
        1024,
        1,
    ]
    assert list(samples_messages("f", "hits", [], [])) == []


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("", "pose", [1], [[1.0]]), "flow is empty"),
        (("f", "x" * 32, [1], [[1.0]]), "flow 'f': table .* longer than 31"),
        (("f", "pose", [1, 2], [[1.0]]), r"'pose': times of shape \(2,\), values of shape \(1, 1\)"),
        (("f", "pose", [1], [[[1.0]]]), "values of shape"),
        (("f", "pose", [1.5], [[1.0]]), "not CLOCK_REALTIME ns"),
        (("f", "pose", [0], [[1.0]]), "not CLOCK_REALTIME ns"),
        (("f", "pose", [1], [[]]), "0 columns"),
        (("f", "pose", [1], [[1.0] * 4097]), "4097 columns"),
        (("f", "pose", [1, 2], [[1.0], [float("inf")]]), "row 1: column 0 is infinite"),
        (("f", "pose", [1], [[1e300]]), "row 0: column 0 is infinite as float32"),
        (("f", "pose", [1], [["x"]]), "x"),
    ],
)
def test_rows_that_cannot_be_sent_are_named(arguments: tuple, place: str):
    with pytest.raises(ValueError, match=place):
        samples_messages(*arguments)


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


# ---- settings -------------------------------------------------------------------------------------------


class SettingsIngest(Ingest):
    """Sends the notices that it is given after the hello."""

    def __init__(self, *notices: qos_pb2.QosNotice) -> None:
        super().__init__()
        self.notices = notices

    def Publish(
        self, requests: Iterator[qos_pb2.QosMessage], context: grpc.ServicerContext
    ) -> Iterator[qos_pb2.QosNotice]:
        got: list[qos_pb2.QosMessage] = [next(requests)]
        self.streams.append(got)
        yield qos_pb2.QosNotice(kind=qos_pb2.ACCEPTED)
        yield from self.notices
        got.extend(requests)

    @property
    def answers(self) -> list[qos_pb2.SettingsApplied]:
        return [m.settings_applied for got in self.streams for m in got if m.HasField("settings_applied")]


def settings(sequence: int, *values: float, lease_ms: int = 60_000) -> qos_pb2.QosNotice:
    flow = qos_pb2.FlowSettings(flow="f", settings=[qos_pb2.Setting(name="fps", values=values)])
    message = qos_pb2.SetSettings(sequence=sequence, lease_ms=lease_ms, flows=[flow])
    return qos_pb2.QosNotice(kind=qos_pb2.SETTINGS, settings=message)


def takes_settings(
    publishers: list[QosPublisher], port: int, take: Callable, lapsed: Callable = lambda flows: None
) -> QosPublisher:
    publisher = QosPublisher(
        f"127.0.0.1:{port}", None, cell_id="c", host="h", on_settings=take, on_settings_lapsed=lapsed
    )
    publishers.append(publisher)
    publisher.start()
    return publisher


def test_settings_are_answered_once_for_each_time_they_come_and_malformed_ones_with_why(
    publishers: list[QosPublisher],
):
    ingest = SettingsIngest(
        settings(3, 30.0), settings(3, 30.0), settings(4, float("nan")), settings(5), settings(6, 10.0)
    )
    server = Server(ingest)
    taken: list = []
    publisher = takes_settings(publishers, server.port, taken.append)
    eventually(lambda: any(a.sequence == 6 for a in ingest.answers))
    assert taken == [{"f": {"fps": (30.0,)}}, {"f": {"fps": (10.0,)}}]
    refused = {a.sequence: a.refused for a in ingest.answers}
    assert refused[3] == refused[6] == ""
    assert "fps: value 0 is nan" in refused[4] and "fps: 0 values" in refused[5]
    assert publisher.counters["settings_applied"] == 3 and publisher.counters["settings_refused"] == 2
    server.close()


def test_an_application_that_raises_or_takes_long_holds_up_no_message(publishers: list[QosPublisher]):
    ingest = SettingsIngest(settings(1, 30.0), settings(2, 10.0))
    server = Server(ingest)
    go_on = threading.Event()

    def take(settings: dict) -> None:
        if settings["f"]["fps"] == (30.0,):
            raise RuntimeError("no camera")
        assert go_on.wait(DEADLINE_S)

    publisher = takes_settings(publishers, server.port, take)
    eventually(lambda: len(ingest.answers) == 1)
    assert ingest.answers[0].refused == "RuntimeError: no camera"
    publisher.put(start())
    eventually(lambda: start() in ingest.streams[0])
    go_on.set()
    eventually(lambda: len(ingest.answers) == 2)
    assert ingest.answers[1].refused == ""
    server.close()


def test_a_flow_that_stops_does_not_lapse_and_close_ends_the_watch(publishers: list[QosPublisher]):
    ingest = SettingsIngest(settings(1, 30.0, lease_ms=1000))
    server = Server(ingest)
    taken: list = []
    lapsed: list = []
    publisher = takes_settings(publishers, server.port, taken.append, lapsed.append)
    eventually(lambda: bool(taken))
    publisher.put(stop())
    time.sleep(1.2)
    assert lapsed == []
    publisher.close()
    assert publisher._settings_thread is not None and not publisher._settings_thread.is_alive()
    server.close()


def test_a_lease_ends_while_nobody_answers(publishers: list[QosPublisher]):
    ingest = SettingsIngest(settings(1, 30.0, lease_ms=1000))
    server = Server(ingest)
    lapsed: list = []
    publisher = takes_settings(publishers, server.port, lambda settings: None, lapsed.append)
    eventually(lambda: bool(ingest.answers))
    server.close()
    eventually(lambda: lapsed == [("f",)])
    eventually(lambda: publisher.counters["settings_lapsed"] == 1)


def test_a_publisher_that_takes_no_settings_says_so(publishers: list[QosPublisher]):
    ingest = SettingsIngest(settings(3, 30.0))
    server = Server(ingest)
    publish(publishers, server.port)
    eventually(lambda: bool(ingest.answers))
    assert ingest.answers[0].sequence == 3 and ingest.answers[0].refused == "host 'mock' takes no settings"
    server.close()


def test_a_notice_of_a_later_controller_is_no_refusal(publishers: list[QosPublisher]):
    server = Server(SettingsIngest(qos_pb2.QosNotice(kind=9)))
    publisher = publish(publishers, server.port)
    eventually(lambda: publisher.counters.get("unknown_notices") == 1)
    assert publisher.counters.get("refused", 0) == 0
    server.close()


def test_who_takes_settings_has_defaults_to_go_back_to():
    with pytest.raises(ValueError, match="on_settings_lapsed"):
        QosPublisher("127.0.0.1:1", None, cell_id="c", host="h", on_settings=lambda settings: None)
