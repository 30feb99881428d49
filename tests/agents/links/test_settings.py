"""Settings at the application: taken once, answered every time, back to the defaults at the lease's end."""

from __future__ import annotations

import math

import pytest

from agents.links.settings import Settings, SettingsState, open_settings
from wire import qos_pb2


def message(
    sequence: int, settings: dict[str, dict[str, tuple[float, ...]]], lease_ms: int = 1000
) -> qos_pb2.SetSettings:
    flows = [
        qos_pb2.FlowSettings(flow=f, settings=[qos_pb2.Setting(name=n, values=v) for n, v in s.items()])
        for f, s in settings.items()
    ]
    return qos_pb2.SetSettings(sequence=sequence, lease_ms=lease_ms, flows=flows)


class Application:
    def __init__(self) -> None:
        self.applied: list[Settings] = []
        self.lapsed: list[tuple[str, ...]] = []
        self.error: Exception | None = None
        self.clock_ns = 100
        self.state = SettingsState(self._apply, self._lapse, self._now)

    def _now(self) -> int:
        self.clock_ns += 1
        return self.clock_ns

    def _apply(self, settings: Settings) -> None:
        if self.error:
            raise self.error
        self.applied.append(settings)

    def _lapse(self, flows: tuple[str, ...]) -> None:
        self.lapsed.append(flows)
        if self.error:
            raise self.error

    def take(
        self, what: qos_pb2.SetSettings, received: float, now: float | None = None, stream: int = 1
    ) -> tuple[int, int, str]:
        answer = self.state.take(stream, what, received, received if now is None else now)
        return answer.sequence, answer.time_ns, answer.refused


FPS = {"f": {"fps": (30.0,)}}


def test_settings_are_applied_once_and_answered_every_time_alike() -> None:
    app = Application()
    assert app.take(message(4, FPS), 0.0) == (4, 101, "")
    assert app.take(message(4, FPS), 0.5) == (4, 101, "")
    assert app.applied == [FPS]
    assert app.state.deadline == 1.5


def test_a_part_of_what_was_taken_renews_the_lease_of_that_part_alone() -> None:
    app = Application()
    both = {**FPS, "g": {"fps": (10.0,)}}
    app.take(message(4, both), 0.0)
    assert app.take(message(4, {"g": {"fps": (10.0,)}}), 0.9) == (4, 101, "")
    assert app.applied == [both]
    assert app.state.lapse(1.0) == ("f",) and app.lapsed == [("f",)]
    assert app.state.lapse(1.8) == () and app.lapsed == [("f",)]
    assert app.state.lapse(1.9) == ("g",) and app.lapsed == [("f",), ("g",)]
    assert app.state.deadline is None


def test_settings_whose_lease_has_ended_are_applied_anew() -> None:
    app = Application()
    app.take(message(4, FPS), 0.0)
    app.state.lapse(1.0)
    assert app.take(message(4, FPS), 2.0) == (4, 102, "")
    assert app.applied == [FPS, FPS] and app.state.deadline == 3.0


def test_another_stream_counts_its_sequences_anew() -> None:
    app = Application()
    app.take(message(4, FPS), 0.0)
    assert app.take(message(1, FPS), 0.5, stream=2) == (1, 102, "")
    assert len(app.applied) == 2 and app.state.deadline == 1.5


def test_what_is_refused_is_answered_with_its_text_and_leaves_the_lease_before_it() -> None:
    app = Application()
    app.take(message(4, FPS), 0.0)
    app.error = ValueError("flow f: fps 31 is not in {10, 30}")
    assert app.take(message(5, {"f": {"fps": (31.0,)}}), 0.5) == (5, 102, str(app.error))
    assert app.take(message(5, {"f": {"fps": (31.0,)}}), 0.6)[1:] == (102, str(app.error))
    assert app.state.deadline == 1.0
    app.error = RuntimeError("x" * 5000)
    refused = app.take(message(6, FPS), 0.7)[2]
    assert refused.startswith("RuntimeError: xxx") and len(refused) == 1024
    app.error = ValueError()
    assert app.take(message(7, FPS), 0.7)[2]


def test_a_release_is_taken_once_and_at_once() -> None:
    app = Application()
    app.take(message(4, FPS), 0.0)
    release = message(5, {"f": {}, "never": {}}, lease_ms=0)
    assert app.take(release, 0.1) == (5, 102, "")
    assert app.take(release, 0.2) == (5, 102, "")
    assert app.lapsed == [("f",)] and app.state.deadline is None and len(app.applied) == 1


def test_defaults_that_cannot_be_gone_back_to_end_nothing() -> None:
    app = Application()
    app.take(message(4, FPS), 0.0)
    app.error = OSError("camera")
    assert app.state.lapse(1.0) == ("f",)
    app.error = None
    app.take(message(5, FPS), 2.0)
    app.error = OSError("camera")
    assert app.take(message(6, {"f": {}}, lease_ms=0), 2.1)[2] == "OSError: camera"


def test_a_lease_that_is_over_before_its_settings_are_opened_reports() -> None:
    app = Application()
    assert "lease of 1000 ms was over" in app.take(message(4, FPS), 0.0, now=1.0)[2]
    assert app.applied == []


def test_a_flow_that_has_stopped_does_not_lapse() -> None:
    app = Application()
    app.take(message(4, FPS), 0.0)
    app.state.forget("f")
    assert app.state.lapse(9.0) == () and app.lapsed == []


def test_an_older_sequence_does_not_undo_a_later_one() -> None:
    app = Application()
    app.take(message(5, FPS), 0.0)
    assert "sequence 4 comes after 5" in app.take(message(4, {"f": {"fps": (1.0,)}}), 0.1)[2]
    assert app.applied == [FPS]


@pytest.mark.parametrize(
    ("what", "place"),
    [
        (message(1, {}), "0 flows"),
        (message(1, {str(i): {} for i in range(65)}), "65 flows"),
        (message(1, FPS, lease_ms=3_600_001), "lease_ms 3600001"),
        (message(1, FPS, lease_ms=0), "flow 'f': there is no lease"),
        (message(1, {"": {}}), "flow is empty"),
        (message(1, {"f": {"fps": ()}}), "flow 'f': fps: 0 values"),
        (message(1, {"f": {"fps": (math.nan,)}}), "flow 'f': fps: value 0 is nan"),
        (message(1, {"f": {"fps": (1.0,) * 65}}), "flow 'f': fps: 65 values"),
        (message(1, {"f": {"x" * 32: (1.0,)}}), "longer than 31 bytes"),
        (message(1, {"f": {str(i): (1.0,) for i in range(33)}}), "33 settings"),
        (qos_pb2.SetSettings(lease_ms=1, flows=[qos_pb2.FlowSettings(flow="f")] * 2), "'f': .* twice"),
        (
            qos_pb2.SetSettings(
                lease_ms=1,
                flows=[qos_pb2.FlowSettings(flow="f", settings=[qos_pb2.Setting(name="a", values=[1])] * 2)],
            ),
            "'f': 'a' is there twice",
        ),
    ],
)
def test_malformed_settings_are_refused_by_name_and_not_applied(
    what: qos_pb2.SetSettings, place: str
) -> None:
    with pytest.raises(ValueError, match=place):
        open_settings(what)
    app = Application()
    sequence, _, refused = app.take(what, 0.0)
    assert sequence == what.sequence and refused and len(refused.encode()) <= 1024
    assert app.applied == app.lapsed == [] and app.state.deadline is None
