"""Settings through the ingest: sent on the flow's stream until answered, renewed, sent anew, released."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.links.qos import QosPublisher
from controller.core.clocks import Moment
from controller.links.codec import FlowEnd, SettingsApplied
from controller.links.counters import Counters
from controller.links.qos import FlowBegin, HostLost, QosIngest, QosItem, QosQueue, _Stream
from tests.links.test_codec import T0, flow_start
from tests.links.test_qos import NOW, Bench, Host
from wire import keys, qos_pb2, security

S = 10**9
PATIENCE_S = 60.0


class Ingest:
    """An ingest whose clock stands, and its streams without gRPC."""

    def __init__(self, **options: Any) -> None:
        self.now_ns = NOW
        self.items: list[QosItem] = []
        self.ingest = QosIngest(
            self.sink, counters=Counters(), clock=lambda: Moment(self.now_ns, self.now_ns), **options
        )

    def sink(self, cell_id: str, item: QosItem) -> None:
        self.items.append(item)

    def set(self, settings: dict[str, dict[str, tuple[float, ...]]], lease_s: float = 25.0) -> dict[str, int]:
        return self.ingest.set_settings("cell-1", settings, lease_s)

    def answers(self) -> list[SettingsApplied]:
        return [item for item in self.items if isinstance(item, SettingsApplied)]

    def count(self, name: str) -> int:
        return self.ingest.counters.get(name, "cell-1")


class Stream:
    """A host's stream, message by message."""

    def __init__(self, bench: Ingest, host: str = "h", instance: int = 0, synchronised: bool = True) -> None:
        hello = qos_pb2.QosHello(
            host=host, cell_id="cell-1", instance=instance, clocks_synchronised=synchronised
        )
        self.host = host
        self._ingest = bench.ingest
        self._stream = _Stream(hello, next(self._ingest._numbers))

    def send(self, **body: Any) -> list[qos_pb2.QosNotice]:
        """The notices that a message brings."""
        reason = self._ingest._take(self._stream, qos_pb2.QosMessage(**body))
        refused = [qos_pb2.QosNotice(kind=qos_pb2.REFUSED, reason=reason)] if reason else []
        due = self._ingest._due_settings(self._stream)
        return [*refused, *(qos_pb2.QosNotice(kind=qos_pb2.SETTINGS, settings=s) for s in due)]

    def settings(self, **body: Any) -> list[tuple[int, int, dict[str, dict[str, tuple[float, ...]]]]]:
        """(sequence, lease, settings) of each SetSettings that a message brings."""
        opened = []
        own = {"clock": qos_pb2.ClockStatus(host=self.host, ptp_state="SLAVE", time_ns=T0)}
        for notice in self.send(**body or own):
            assert notice.kind == qos_pb2.SETTINGS, notice
            message = notice.settings
            values = {f.flow: {s.name: tuple(s.values) for s in f.settings} for f in message.flows}
            opened.append((message.sequence, message.lease_ms, values))
        return opened

    def start(self, *flows: str) -> Stream:
        for flow in flows:
            self.send(flow_start=flow_start(flow=flow))
        return self

    def answer(self, sequence: int, time_ns: int, refused: str = "") -> list[qos_pb2.QosNotice]:
        applied = qos_pb2.SettingsApplied(sequence=sequence, time_ns=time_ns, refused=refused)
        return self.send(settings_applied=applied)

    def end(self) -> None:
        self._ingest._ended(self._stream)


CLOCK = qos_pb2.ClockStatus(host="h", ptp_state="SLAVE", time_ns=T0)
FPS30 = {"fps": (30.0,)}
FPS10 = {"fps": (10.0,)}


def test_settings_go_out_after_the_next_message_and_once_until_they_are_due_again() -> None:
    bench = Ingest(resend_s=0.5)
    stream = Stream(bench).start("f")
    assert stream.settings() == []
    sequences = bench.set({"f": FPS30})
    assert stream.settings() == [(sequences["f"], 25_000, {"f": FPS30})]
    assert stream.settings() == []
    # The notice was lost, or the host has not got to it.
    bench.now_ns += S // 2
    assert stream.settings() == [(sequences["f"], 24_500, {"f": FPS30})]
    assert stream.settings() == []
    bench.now_ns += S // 4
    assert stream.answer(sequences["f"], bench.now_ns) == []
    bench.now_ns += 20 * S
    assert stream.settings() == []
    assert bench.count("qos_settings_sent_total") == 2
    assert bench.count("qos_settings_resent_total") == 1
    assert bench.answers() == [SettingsApplied("h", 1, ("f",), sequences["f"], NOW + 3 * S // 4)]


def test_the_same_settings_renew_the_lease_under_the_same_sequence() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f")
    sequence = bench.set({"f": FPS30})["f"]
    stream.settings()
    stream.answer(sequence, NOW)
    for _ in range(3):
        bench.now_ns += 10 * S
        assert bench.set({"f": FPS30}) == {"f": sequence}
        assert stream.settings() == [(sequence, 25_000, {"f": FPS30})]
        assert stream.settings() == []
        # A renewed lease is answered as the settings were: that is no news.
        assert stream.answer(sequence, NOW) == []
    assert len(bench.answers()) == 1


def test_settings_that_are_not_renewed_are_over_when_their_lease_is_and_go_out_anew_then() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f")
    sequence = bench.set({"f": FPS30}, lease_s=1.0)["f"]
    bench.now_ns += S
    assert stream.settings() == []
    later = bench.set({"f": FPS30}, lease_s=1.0)["f"]
    assert later > sequence
    assert stream.settings() == [(later, 1000, {"f": FPS30})]
    stream.answer(later, bench.now_ns)
    bench.now_ns += S
    latest = bench.set({"f": FPS30}, lease_s=0.0001)["f"]
    assert latest > later
    assert stream.settings() == [(latest, 1, {"f": FPS30})]


def test_a_flow_that_is_not_named_is_not_renewed_by_one_that_was_set_with_it() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f", "g")
    sequence = bench.set({"f": FPS30, "g": FPS10})["f"]
    assert stream.settings() == [(sequence, 25_000, {"f": FPS30, "g": FPS10})]
    stream.answer(sequence, NOW)
    bench.now_ns += 10 * S
    bench.set({"g": FPS10})
    assert stream.settings() == [(sequence, 25_000, {"g": FPS10})]
    # Both renewed before a message comes, and one of them once more: each has its own lease.
    bench.set({"f": FPS30, "g": FPS10})
    bench.now_ns += S
    bench.set({"g": FPS10})
    assert stream.settings() == [(sequence, 24_000, {"f": FPS30}), (sequence, 25_000, {"g": FPS10})]


def test_changed_settings_take_the_place_of_pending_ones() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f", "g")
    first = bench.set({"f": FPS30, "g": FPS30})
    assert first["f"] == first["g"]
    second = bench.set({"f": FPS10})["f"]
    assert second > first["f"]
    assert sorted(stream.settings()) == [
        (first["g"], 25_000, {"g": FPS30}),
        (second, 25_000, {"f": FPS10}),
    ]
    third = bench.set({"f": FPS30})["f"]
    assert stream.settings() == [(third, 25_000, {"f": FPS30})]
    bench.now_ns += S
    # What is not answered goes out again, with the flows that it still counts for.
    assert {sequence for sequence, _, _ in stream.settings()} == {first["g"], third}
    # An answer to what was replaced is no news of what is to be in force now.
    stream.answer(second, bench.now_ns)
    assert bench.answers() == []
    stream.answer(third, bench.now_ns)
    assert [(a.flows, a.sequence) for a in bench.answers()] == [(("f",), third)]


def test_settings_that_replace_answered_ones_are_sent_until_they_are_answered_too() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f")
    first = bench.set({"f": FPS30})["f"]
    stream.settings()
    stream.answer(first, NOW)
    second = bench.set({"f": FPS10})["f"]
    for _ in range(2):
        assert [sequence for sequence, _, _ in stream.settings()] == [second]
        bench.now_ns += S


def test_what_is_refused_is_told_and_put_to_the_application_once_more() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f")
    first = bench.set({"f": FPS30})["f"]
    stream.settings()
    stream.answer(first, NOW, "fps 30 is not in {10}")
    bench.now_ns += 9 * S
    assert stream.settings() == []
    second = bench.set({"f": FPS30})["f"]
    assert second > first and stream.settings() == [(second, 25_000, {"f": FPS30})]
    stream.answer(second, bench.now_ns)
    assert [(a.sequence, a.refused) for a in bench.answers()] == [
        (first, "fps 30 is not in {10}"),
        (second, ""),
    ]
    assert bench.count("qos_settings_refused_total") == bench.count("qos_settings_applied_total") == 1


def test_each_host_is_sent_the_settings_of_its_own_flows() -> None:
    bench = Ingest()
    first, second = Stream(bench, "h", 1).start("f"), Stream(bench, "g", 2).start("g", "g2")
    bench.set({"f": FPS30, "g": FPS10, "g2": FPS10, "unknown": FPS30})
    ((a, _, of_first),) = first.settings()
    ((b, _, of_second),) = second.settings()
    assert of_first == {"f": FPS30} and of_second == {"g": FPS10, "g2": FPS10} and a != b
    # One host cannot answer for another one.
    (notice,) = second.answer(a, NOW)
    assert notice.kind == qos_pb2.REFUSED and f"sequence {a} was not sent on this stream" in notice.reason
    assert bench.answers() == []
    second.answer(b, NOW)
    assert [(x.host, x.flows) for x in bench.answers()] == [("g", ("g", "g2"))]


def test_on_a_new_stream_the_settings_in_force_go_out_anew() -> None:
    bench = Ingest()
    stream = Stream(bench, instance=1).start("f")
    first = bench.set({"f": FPS30})["f"]
    stream.settings()
    stream.answer(first, NOW)
    stream.end()
    assert isinstance(bench.items[-1], HostLost)
    bench.now_ns += 5 * S
    back = Stream(bench, instance=1)
    ((second, lease_ms, settings),) = back.settings(flow_start=flow_start())
    assert second > first and lease_ms == 20_000 and settings == {"f": FPS30}
    # Each start on the same stream is of the same flow.
    assert back.settings(flow_start=flow_start()) == []
    (notice,) = back.answer(first, bench.now_ns)
    assert "was not sent on this stream" in notice.reason
    back.answer(second, bench.now_ns)
    assert [(a.stream, a.sequence) for a in bench.answers()] == [(1, first), (2, second)]
    assert bench.set({"f": FPS30}) == {"f": second}


def test_a_host_that_comes_back_after_the_lease_is_sent_nothing() -> None:
    bench = Ingest()
    stream = Stream(bench, instance=1).start("f")
    bench.set({"f": FPS30}, lease_s=2.0)
    stream.end()
    bench.now_ns += 2 * S
    assert Stream(bench, instance=1).settings(flow_start=flow_start()) == []


def test_settings_that_are_set_while_a_host_is_away_reach_it_when_it_is_back() -> None:
    bench = Ingest()
    Stream(bench, instance=1).start("f").end()
    sequence = bench.set({"f": FPS30})["f"]
    ((later, _, settings),) = Stream(bench, instance=1).settings(flow_start=flow_start())
    assert later > sequence and settings == {"f": FPS30}


def test_a_flow_that_has_stopped_is_left_out() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f", "g")
    bench.set({"f": FPS30, "g": FPS30})
    ((_, _, settings),) = stream.settings(flow_stop=qos_pb2.FlowStop(flow="f", time_ns=T0))
    assert settings == {"g": FPS30}
    assert isinstance(bench.items[-1], FlowEnd)
    assert "f" not in bench.set({"f": FPS30, "g": FPS30})
    # A flow of that name that starts later is another one.
    assert stream.settings(flow_start=flow_start()) == []


def test_more_flows_than_a_message_holds_are_divided_among_several() -> None:
    bench = Ingest()
    flows = [f"f{i}" for i in range(150)]
    stream = Stream(bench).start(*flows)
    sequences = bench.set(dict.fromkeys(flows, FPS30))
    messages = stream.settings()
    assert [len(settings) for _, _, settings in messages] == [64, 64, 22]
    assert {flow: sequence for sequence, _, settings in messages for flow in settings} == sequences
    numbers = [sequence for sequence, _, _ in messages]
    assert numbers == sorted(set(numbers))


def test_a_release_is_said_at_once_and_until_it_is_answered() -> None:
    bench = Ingest()
    stream, idle = Stream(bench, "h", 1).start("f", "g"), Stream(bench, "h", 2).start("k")
    bench.set({"f": FPS30, "g": FPS10})
    stream.settings()
    sequences = bench.ingest.release_settings("cell-1")
    assert bench.ingest.release_settings("cell-1") == sequences
    sequence = sequences["f"]
    assert stream.settings() == [(sequence, 0, {"f": {}, "g": {}})]
    assert idle.settings() == []
    bench.now_ns += S
    assert stream.settings() == [(sequence, 0, {"f": {}, "g": {}})]
    stream.answer(sequence, bench.now_ns)
    bench.now_ns += S
    assert stream.settings() == [] and bench.ingest.release_settings("cell-1") == {}
    assert [(a.flows, a.sequence) for a in bench.answers()] == [(("f", "g"), sequence)]
    assert bench.ingest.release_settings("cell-9") == {}


def test_a_flow_without_any_setting_is_released_and_settings_may_follow() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f", "g")
    assert bench.set({"g": {}}) == {}
    bench.set({"f": FPS30})
    stream.settings()
    release = bench.set({"f": {}})["f"]
    after = bench.set({"f": FPS30})["f"]
    assert after > release and stream.settings() == [(after, 25_000, {"f": FPS30})]


def test_a_release_that_nobody_answers_ends_with_the_lease() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f")
    bench.set({"f": FPS30}, lease_s=2.0)
    bench.ingest.release_settings("cell-1")
    bench.now_ns += 2 * S
    assert bench.ingest.release_settings("cell-1") == {}
    assert stream.settings() == []


@pytest.mark.parametrize(
    ("off_ns", "synchronised", "expected_ns"),
    [
        (S // 2, True, S // 2),
        (3600 * S, True, S),
        (-3600 * S, True, 0),
        (S // 2, False, S),
    ],
)
def test_the_time_of_an_answer_lies_between_the_settings_and_now(
    off_ns: int, synchronised: bool, expected_ns: int
) -> None:
    bench = Ingest()
    stream = Stream(bench, synchronised=synchronised).start("f")
    sequence = bench.set({"f": FPS30})["f"]
    stream.settings()
    bench.now_ns += S
    stream.answer(sequence, NOW + off_ns)
    assert [a.time_ns - NOW for a in bench.answers()] == [expected_ns]


def test_settings_that_cannot_be_are_named_and_change_nothing() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f", "g")
    for bad, place in (
        ({"fps": (math.nan,)}, "flow 'g': fps: value 0 is nan"),
        ({"fps": (math.inf,)}, "flow 'g': fps: value 0 is inf"),
        ({"fps": (1.0,) * 65}, "flow 'g': fps: 65 values"),
        ({str(i): (1.0,) for i in range(33)}, "flow 'g': 33 settings"),
    ):
        with pytest.raises(ValueError, match=place):
            bench.set({"f": FPS30, "g": bad})
    for lease_s in (0.0, -1.0, math.nan, math.inf, 3601.0):
        with pytest.raises(ValueError, match="lease"):
            bench.set({"f": FPS30}, lease_s)
    assert stream.settings() == []


def test_an_answer_that_the_queue_cannot_hold_is_refused_and_comes_again() -> None:
    bench = Ingest()
    stream = Stream(bench).start("f")
    sequence = bench.set({"f": FPS30})["f"]
    stream.settings()
    full = QosQueue(max_events=1)
    full.put("cell-1", FlowEnd("x", T0))
    bench.ingest._sink = full.put
    (notice,) = stream.answer(sequence, NOW)
    assert "queue is full" in notice.reason
    bench.ingest._sink = bench.sink
    bench.now_ns += S
    assert [s for s, _, _ in stream.settings()] == [sequence]
    stream.answer(sequence, NOW)
    assert len(bench.answers()) == 1


def test_a_flow_that_is_forgotten_for_room_takes_its_settings_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.links.qos.MAX_CELL_FLOWS", 1)
    bench = Ingest()
    Stream(bench, instance=1).start("f").end()
    bench.set({"f": FPS30})
    Stream(bench, instance=2).start("g")
    assert bench.ingest.release_settings("cell-1") == {}
    assert bench.set({"f": FPS30}) == {}


# -- with a publisher, over gRPC


class Application:
    """A publisher with callbacks, which reports every 20 ms."""

    def __init__(self, port: int, flow: str, *, tls: security.Tls | None = None, **options: Any) -> None:
        self.applied: list[Any] = []
        self.lapsed: list[tuple[str, ...]] = []
        self.error = ""
        self.threads: set[int] = set()
        self.flow = flow
        callbacks = {"on_settings": self._apply, "on_settings_lapsed": self._lapse}
        self.publisher = QosPublisher(
            f"localhost:{port}", tls, cell_id="cell-1", host=f"host of {flow}", **{**callbacks, **options}
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report)
        self.publisher.start()
        self.publisher.put(qos_pb2.QosMessage(flow_start=flow_start(flow=flow)))
        self._thread.start()

    def _apply(self, settings: Any) -> None:
        self.threads.add(threading.get_ident())
        if self.error:
            raise ValueError(self.error)
        self.applied.append(settings)

    def _lapse(self, flows: tuple[str, ...]) -> None:
        self.threads.add(threading.get_ident())
        self.lapsed.append(flows)

    def _report(self) -> None:
        sequence = 0
        while not self._stop.wait(0.02):
            sequence += 1
            frame = qos_pb2.Frame(sequence=sequence, ue_sent_ns=time.time_ns())
            self.publisher.put(qos_pb2.QosMessage(frames=qos_pb2.FrameBatch(flow=self.flow, frames=[frame])))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.publisher.close()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


class Live(Bench):
    """A bench by the real clock, with or without TLS."""

    def __init__(self, tls: security.Tls | None = None, **options: Any) -> None:
        super().__init__(clock=lambda: Moment(time.time_ns(), time.monotonic_ns()), **options)
        if tls is not None:
            self.server.stop(0).wait()
            self.server = grpc.server(futures.ThreadPoolExecutor(8), options=security.SERVER_OPTIONS)
            self.ingest.add_to(self.server)
            self.port = security.grpc_server_add(self.server, "127.0.0.1:0", tls)
            self.server.start()
        self.apps: list[Application] = []

    def app(self, flow: str, **options: Any) -> Application:
        self.apps.append(Application(self.port, flow, **options))
        until(lambda: any(isinstance(i, FlowBegin) and i.flow.flow == flow for i in self.seen()))
        return self.apps[-1]

    def seen(self) -> list[QosItem]:
        return [item for _, item in list(self.items.queue)]

    def answers(self, flow: str) -> list[SettingsApplied]:
        return [i for i in self.seen() if isinstance(i, SettingsApplied) and flow in i.flows]

    def close(self) -> None:
        for app in self.apps:
            app.close()
        super().close()


@pytest.fixture
def live() -> Iterator[Live]:
    bench = Live()
    yield bench
    bench.close()


def test_two_applications_take_their_settings_and_their_answers_come_back(live: Live) -> None:
    first, second = live.app("f"), live.app("g")
    before_ns = time.time_ns()
    sequences = live.ingest.set_settings("cell-1", {"f": FPS30, "g": FPS10}, 60.0)
    until(lambda: live.answers("f") and live.answers("g"))
    assert first.applied == [{"f": FPS30}] and second.applied == [{"g": FPS10}]
    for flow in ("f", "g"):
        (answer,) = live.answers(flow)
        assert (answer.flows, answer.sequence, answer.refused) == ((flow,), sequences[flow], "")
        assert before_ns <= answer.time_ns <= time.time_ns()
        assert answer.host == f"host of {flow}"
    assert threading.get_ident() not in first.threads and len(first.threads) == 1
    assert first.publisher.counters["settings_applied"] == 1


def test_an_application_goes_back_when_the_lease_is_not_renewed(live: Live) -> None:
    app = live.app("f")
    for _ in range(4):
        live.ingest.set_settings("cell-1", {"f": FPS30}, 1.5)
        time.sleep(0.3)
    assert app.lapsed == [] and app.applied == [{"f": FPS30}]
    until(lambda: app.lapsed)
    assert app.lapsed == [("f",)] and app.publisher.counters["settings_lapsed"] == 1
    live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)
    until(lambda: len(app.applied) == 2)
    live.ingest.release_settings("cell-1")
    until(lambda: len(app.lapsed) == 2)
    assert app.publisher.connected


def test_the_lease_ends_while_the_controller_is_gone(live: Live) -> None:
    app = live.app("f")
    live.ingest.set_settings("cell-1", {"f": FPS30}, 1.0)
    until(lambda: app.applied)
    live.server.stop(0).wait()
    until(lambda: not app.publisher.connected)
    until(lambda: app.lapsed)
    assert app.lapsed == [("f",)]


def test_a_stream_that_breaks_has_its_settings_again_on_the_next(live: Live) -> None:
    app = live.app("f", backoff_s=(0.05, 0.1))
    first = live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)["f"]
    until(lambda: live.answers("f"))
    stream = app.publisher._stream
    assert stream is not None and stream.call is not None
    stream.call.cancel()
    until(lambda: len(live.answers("f")) == 2)
    old, new = live.answers("f")
    assert old.sequence == first < new.sequence and old.stream != new.stream
    assert app.applied == [{"f": FPS30}] * 2 and app.lapsed == []


def test_a_refusal_of_the_application_reaches_the_controller(live: Live) -> None:
    app = live.app("f")
    app.error = "flow f: fps 30 is not in {10}"
    live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)
    until(lambda: live.answers("f"))
    assert live.answers("f")[0].refused == app.error and app.applied == []
    app.error = ""
    live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)
    until(lambda: app.applied)


def test_an_application_without_settings_says_so(live: Live) -> None:
    live.app("f", on_settings=None, on_settings_lapsed=None)
    live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)
    until(lambda: live.answers("f"))
    assert live.answers("f")[0].refused == "host 'host of f' takes no settings"


def test_a_notice_that_the_host_loses_is_sent_again(live: Live) -> None:
    host = Host(live.port)
    live.hosts.append(host)
    host.greet()
    host.send(flow_start=flow_start())
    host.dealt_with()
    sequence = live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)["f"]
    host.send(clock=CLOCK)
    assert next(host.notices).settings.sequence == sequence
    time.sleep(0.6)
    host.send(clock=CLOCK)
    assert next(host.notices).settings.sequence == sequence
    host.send(settings_applied=qos_pb2.SettingsApplied(sequence=sequence, time_ns=time.time_ns()))
    until(lambda: live.answers("f"))
    time.sleep(0.6)
    host.send(clock=CLOCK)
    host.dealt_with()


def test_settings_samples_and_answers_go_over_mutual_tls(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'prbandit[keys]'")
    keys.create(tmp_path, cells=["cell-1"], days=2)
    live = Live(security.Tls(tmp_path, "controller"), tables=lambda cell_id, flow: {"pose": 1})
    try:
        app = live.app("f", tls=security.Tls(tmp_path, "gnb-mock"))
        live.ingest.set_settings("cell-1", {"f": FPS30}, 60.0)
        app.publisher.put_samples("f", "pose", [time.time_ns()], [[1.5]])
        until(lambda: live.answers("f") and live.count("qos_samples_total"))
        assert app.applied == [{"f": FPS30}]
    finally:
        live.close()
