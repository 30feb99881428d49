"""Samples through the ingest: taken as rows, refused by name, counted once, and never the end of a stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from agents.links.qos import QosPublisher
from controller.core.clocks import Moment
from controller.core.observation import Flow
from controller.links.codec import FlowEnd, FrameBatch, SampleBatch
from controller.links.qos import FlowBegin, QosQueue
from tests.links.test_codec import T0, flow_start, samples
from tests.links.test_qos import NOW, Bench, Host, batch
from tests.links.test_qos import frames as frame_batch
from wire import qos_pb2


def tables(cell_id: str, flow: Flow) -> Mapping[str, int]:
    if flow.slice != "ar":
        raise ValueError(f"flow {flow.flow}: the service of slice {flow.slice!r} declares no table")
    return {"pose": 6, "hits": 1}


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    benches = []

    def build(**options: Any) -> Bench:
        benches.append(Bench(**{"tables": tables, **options}))
        return benches[-1]

    yield build
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def started(bench: Bench, *, instance: int = 0, **changes: Any) -> Host:
    host = bench.host()
    host.greet(instance=instance)
    host.send(flow_start=flow_start(**changes))
    assert isinstance(bench.item()[1], FlowBegin)
    return host


def rows(n: int, first: int = 0) -> SampleBatch:
    return SampleBatch("f", "pose", np.arange(first, first + n) + T0, np.zeros((n, 6), np.float32), NOW)


def test_samples_come_through_as_core_types(bench: Bench) -> None:
    host = started(bench)
    host.send(samples=samples())
    cell, item = bench.item()
    assert cell == "cell-1" and isinstance(item, SampleBatch)
    assert (item.flow, item.table, item.received_ns) == ("f", "pose", NOW)
    assert item.time_ns.tolist() == [T0, T0 + 1] and item.values.shape == (2, 6)
    host.send(samples=samples(0))
    host.dealt_with()
    assert bench.items.empty()
    assert bench.count("qos_samples_total", "cell-1") == 2


def test_samples_that_cannot_be_used_are_refused_by_name_and_the_stream_goes_on(bench: Bench) -> None:
    host = started(bench)
    hour = 3600 * 10**9
    for message, place in (
        (samples(flow="g"), "Samples of flow 'g': the flow never started"),
        (samples(flow="g" * 1000), "never started"),
        (samples(table="session"), "flow 'f': unknown table 'session'; its tables: hits, pose"),
        (samples(table="hits"), "table 'hits': values: 12 values are not 2 rows of 1 columns"),
        (samples(time_ns=[T0, T0 + hour]), "table 'pose': row 1: time_ns"),
        (samples(time_ns=[T0 - hour, T0]), "s behind the controller's clock"),
        (samples(values=[float("inf")] * 12), "row 0: values: column 0 is inf"),
    ):
        host.send(samples=message)
        assert place in host.refused()
    assert bench.count("qos_refused_total", "cell-1") == 7
    assert bench.items.empty() and bench.count("qos_samples_total") == 0
    host.send(samples=samples(values=[float("nan")] * 12))
    item = bench.item()[1]
    assert isinstance(item, SampleBatch) and np.isnan(item.values).all()


def test_a_flow_without_tables_has_no_samples(make: Callable[..., Bench]) -> None:
    host = started(make(), slice="video")
    host.send(samples=samples())
    assert "slice 'video' declares no table" in host.refused()
    host = started(make(tables=None))
    host.send(samples=samples())
    assert "no table of samples is known here" in host.refused()


def test_samples_of_a_flow_that_has_stopped_are_refused_and_its_frames_are_not(bench: Bench) -> None:
    host = started(bench)
    host.send(flow_stop=qos_pb2.FlowStop(flow="f", time_ns=T0))
    host.send(samples=samples())
    assert "flow 'f': the flow has stopped" in host.refused()
    assert isinstance(bench.item()[1], FlowEnd)
    host.send(frames=frame_batch())
    assert isinstance(bench.item()[1], FrameBatch)


def test_samples_of_another_process_s_flow_are_refused(bench: Bench) -> None:
    first = started(bench, instance=1)
    second = started(bench, instance=2, flow="g")
    second.send(samples=samples())
    assert "Samples of flow 'f': another process of host 'h'" in second.refused()
    first.send(samples=samples())
    assert isinstance(bench.item()[1], SampleBatch)


def test_samples_that_come_twice_count_once(make: Callable[..., Bench]) -> None:
    now = [NOW]
    bench = make(clock=lambda: Moment(now[0], now[0]))
    host = started(bench, instance=1)
    host.send(samples=samples())
    host.send(samples=samples(table="hits", width=1))
    host.dealt_with()
    host.close()
    back = bench.host()
    back.greet(instance=1)
    back.send(flow_start=flow_start())
    back.send(samples=samples())
    back.send(samples=samples(3))
    back.dealt_with()
    taken = []
    while not bench.items.empty():
        item = bench.item()[1]
        if isinstance(item, SampleBatch):
            taken.append((item.table, len(item)))
    assert taken == [("pose", 2), ("hits", 2), ("pose", 3)]
    assert bench.count("qos_samples_repeated_total", "cell-1") == 2
    # Nothing is remembered of what its time would refuse by now.
    now[0] += 62 * 10**9
    back.send(samples=samples(time_ns=[now[0], now[0]]))
    back.dealt_with()
    assert len(bench.ingest._flows["cell-1", "f"].recent) == 1


def test_the_service_of_a_flow_is_checked_and_an_old_host_names_none(make: Callable[..., Bench]) -> None:
    def check(cell_id: str, flow: Flow, service: str) -> None:
        if service not in ("", "ar"):
            raise ValueError(f"flow {flow.flow}: service {service!r} in slice {flow.slice!r} of service 'ar'")

    bench = make(check_flow=check)
    host = bench.host()
    host.greet()
    host.send(flow_start=flow_start(service="video"))
    assert "flow f: service 'video' in slice 'ar'" in host.refused()
    for service in ("", "ar"):
        host.send(flow_start=flow_start(service=service))
        begin = bench.item()[1]
        assert isinstance(begin, FlowBegin) and begin.service == service


def test_a_full_queue_drops_the_oldest_samples_and_no_frames() -> None:
    waiting = QosQueue(max_frames=100, max_samples=10)
    waiting.put("cell-1", batch(20))
    for i in range(4):
        waiting.put("cell-1" if i < 1 else "cell-2", rows(4, 4 * i))
    taken = [item for _, item in waiting.take()]
    assert [type(item) for item in taken] == [FrameBatch, SampleBatch, SampleBatch]
    assert [item.time_ns[0] - T0 for item in taken[1:] if isinstance(item, SampleBatch)] == [8, 12]
    assert waiting.counters.get("qos_samples_dropped_total", "cell-1") == 4
    assert waiting.counters.get("qos_samples_dropped_total", "cell-2") == 4
    assert waiting.counters.get("qos_frames_dropped_total") == 0
    assert waiting.take() == []
    # A batch that is larger than the queue waits all the same: it is the latest.
    waiting.put("cell-1", rows(11))
    assert len(waiting.take()) == 1


def test_a_queue_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        QosQueue(max_samples=0)


def test_bytes_that_are_nearly_samples_or_answers_never_end_the_stream(bench: Bench) -> None:
    host = started(bench)
    draw = random.Random(7)
    bodies = [
        qos_pb2.QosMessage(samples=samples()).SerializeToString(),
        qos_pb2.QosMessage(
            settings_applied=qos_pb2.SettingsApplied(sequence=3, time_ns=T0, refused="no")
        ).SerializeToString(),
    ]
    for i in range(400):
        data = bytearray(bodies[i % 2])
        for _ in range(draw.randrange(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        host.out.put(bytes(data[: draw.randrange(1, len(data) + 1)]))
    host.hello()
    while "second QosHello" not in host.refused():
        pass
    while not bench.items.empty():
        bench.item()
    host.send(samples=samples(1))
    assert isinstance(bench.item()[1], SampleBatch)


def test_a_publishers_samples_come_through_whole(bench: Bench) -> None:
    publisher = QosPublisher(f"127.0.0.1:{bench.port}", None, cell_id="cell-1", host="h")
    try:
        publisher.start()
        publisher.put(qos_pb2.QosMessage(flow_start=flow_start()))
        values = np.arange(9000, dtype=np.float64).reshape(1500, 6)
        values[7, 3] = np.nan
        publisher.put_samples("f", "pose", T0 + np.arange(1500), values)
        assert isinstance(bench.item()[1], FlowBegin)
        parts = []
        while sum(map(len, parts)) < 1500:
            part = bench.item()[1]
            assert isinstance(part, SampleBatch)
            parts.append(part)
        np.testing.assert_array_equal(np.concatenate([p.values for p in parts]), values.astype(np.float32))
        assert [len(p) for p in parts] == [682, 682, 136]
        assert publisher.counters.get("refused", 0) == 0
    finally:
        publisher.close()
