"""Real clients and servers on loopback: round trips, and all that can go wrong on the way."""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from controller.cli import cli
from controller.cli.ports import free_port
from controller.config import find
from tests.e2e.harness import until
from tests.openrtist import needs

needs.extra()

from PIL import Image  # noqa: E402

from controller.links.codec import FlowEnd, FrameBatch  # noqa: E402
from controller.links.qos import FlowBegin, QosIngest, QosQueue  # noqa: E402
from controller.store.run import DATABASE_FILE, RunStore  # noqa: E402
from openrtist import payload, picture  # noqa: E402
from openrtist.client import Client, FlowName, Pace  # noqa: E402
from openrtist.convert import import_style  # noqa: E402
from openrtist.engine import StyleEngine  # noqa: E402
from openrtist.server import StyleServer  # noqa: E402
from openrtist.video import VideoError, open_source  # noqa: E402
from tests.openrtist import networks  # noqa: E402
from tests.openrtist.processes import client, pause, process, server, until_log  # noqa: E402
from tests.openrtist.test_style import likeness, onnx_file  # noqa: E402
from tests.openrtist.test_video import make  # noqa: E402
from wire import keys, security  # noqa: E402


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_file(tmp_path_factory.mktemp("style"), "plain", networks.plain())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("video") / "grey.mp4", 20)


class Ingest:
    """The controller's own QoS ingest, and what it took."""

    def __init__(self, tls: security.Tls | None = None) -> None:
        self.queue = QosQueue()
        self._server = grpc.server(ThreadPoolExecutor(8), options=security.SERVER_OPTIONS)
        QosIngest(self.queue.put, expected_cells=["cell-1"]).add_to(self._server)
        port = security.grpc_server_add(self._server, "127.0.0.1:0", tls)
        self.address = f"127.0.0.1:{port}"
        self._server.start()
        self.items: list = []

    def take(self) -> list:
        self.items += [item for _, item in self.queue.take()]
        return self.items

    def frames(self) -> dict[int, list[int]]:
        """sequence -> the four times, as the last report of each says."""
        self.take()
        out: dict[int, list[int]] = {}
        for item in self.items:
            if isinstance(item, FrameBatch):
                for sequence, *times in item.columns.tolist():
                    known = out.get(sequence, [0, 0, 0, 0])
                    out[sequence] = [new or old for new, old in zip(times, known, strict=True)]
        return out

    def returned(self) -> int:
        """Frames that came back, as far as was told."""
        return sum(times[3] > 0 for times in self.frames().values())

    def close(self) -> None:
        self._server.stop(None)


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    running = Ingest()
    yield running
    running.close()


def whole(summary: dict) -> None:
    """Every frame that was sent is accounted for."""
    assert summary["sent"] == summary["returned"] + summary["lost"]


# ---- all is well ----------------------------------------------------------------------------------------


@needs.real_data
def test_the_real_video_in_the_real_style_makes_the_round_trip(tmp_path: Path, ingest: Ingest) -> None:
    style = tmp_path / "the_scream.onnx"
    style.write_bytes(import_style(needs.XML, needs.WEIGHTS))
    shown = tmp_path / "shown"
    options = ["--size", "160x96", "--fps", "3", "--frames", "6", "--save", str(shown), "--drain", "30"]
    with (
        server(tmp_path, style) as (running, address),
        client(tmp_path, address, needs.VIDEO, *options, "--ue", "ue-1", "--qos", ingest.address) as sending,
    ):
        summary = sending.result()
        counters = running.stop()["counters"]
    whole(summary)
    assert summary["sent"] == summary["returned"] == summary["saved"] == 6
    assert counters == {"received": 6, "frames": 6, "sent": 6}
    files = sorted(shown.glob("*.png"))
    assert [f.name for f in files] == [f"{n:06d}.png" for n in range(6)]
    painted = np.asarray(Image.open(files[-1]))
    source = open_source(str(needs.VIDEO), 160, 96, loop=False)
    frame = source.at((5 + summary["skipped"]) / 3)
    assert frame is not None and painted.shape == frame.shape and painted.std(axis=(0, 1)).min() > 20
    assert likeness(painted, frame) > 0.4 > likeness(painted, frame[::-1, ::-1]) + 0.1
    assert np.abs(painted.astype(int) - frame).mean() > 20, "the video, not a painting"


def test_the_controller_hears_of_the_flow_and_of_every_frame_with_four_times(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    options = [
        "--fps",
        "20",
        "--frames",
        "30",
        "--loop",
        "--ue",
        "ue-1",
        "--qos",
        ingest.address,
        "--flow",
        "ar-7",
    ]
    options += ["--ue", "ue-3", "--slice", "ar"]
    with server(tmp_path, plain) as (_, address), client(tmp_path, address, video, *options) as sending:
        summary = sending.result()
    frames = ingest.frames()
    begins = [i for i in ingest.items if isinstance(i, FlowBegin)]
    ends = [i for i in ingest.items if isinstance(i, FlowEnd)]
    assert len(begins) == len(ends) == 1
    flow = begins[0].flow
    assert (begins[0].host, flow.flow, flow.ue_id, flow.slice) == ("ar-7", "ar-7", "ue-3", "ar")
    assert flow.ul_bps > flow.dl_bps > 0
    first = min(frames)
    assert sorted(frames) == list(range(first, first + 30)) and summary["sent"] == summary["returned"] == 30
    for times in frames.values():
        assert 0 < times[0] <= times[1] <= times[2] <= times[3]
    assert flow.start_ns <= frames[first][0] and ends[0].time_ns >= frames[first + 29][0]
    assert all(item.synchronised for item in ingest.items if isinstance(item, FrameBatch))
    # The counters are those of the closed stream.
    assert summary["qos"]["waiting"] == 0 and summary["qos"]["streams_ended"] >= 1
    assert "refused" not in summary["qos"]


def test_clocks_that_do_not_agree_are_said_to(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    options = [
        "--fps",
        "20",
        "--frames",
        "5",
        "--ue",
        "ue-1",
        "--qos",
        ingest.address,
        "--clocks",
        "unsynchronised",
    ]
    with server(tmp_path, plain) as (_, address), client(tmp_path, address, video, *options) as sending:
        sending.result()
    batches = [item for item in ingest.take() if isinstance(item, FrameBatch)]
    assert batches and not any(item.synchronised for item in batches)


def test_over_tls_frames_and_reports_are_encrypted_and_strangers_are_refused(
    tmp_path: Path, plain: Path, video: Path
) -> None:
    pytest.importorskip("cryptography", reason="cryptography is missing: the extra keys")
    folder, others = tmp_path / "keys", tmp_path / "others"
    keys.create(folder, cells=["cell-1"])
    keys.create(others, cells=["cell-1"])
    ingest = Ingest(security.Tls(folder, "controller"))
    options = ["--loop", "--fps", "20", "--frames", "10", "--ue", "ue-1", "--qos", ingest.address]
    with server(tmp_path, plain, options=("--keys", str(folder))) as (running, address):
        with client(tmp_path, address, video, *options, "--keys", str(folder)) as sending:
            assert sending.result()["returned"] == 10
        for stranger in (["--keys", str(others)], []):
            with client(tmp_path, address, video, "--duration", "2", *stranger, name="stranger") as sending:
                assert sending.wait() == 1 and "never connected" in sending.log
        assert running.stop()["counters"]["received"] == 10
    assert len(ingest.frames()) == 10
    ingest.close()


def test_beyond_loopback_nothing_runs_without_tls(plain: Path, video: Path) -> None:
    for arguments in (
        ["server", "--style", str(plain), "--address", "0.0.0.0", "--port", "0"],
        ["client", "192.0.2.1:9099", "--video", str(video)],
        ["client", "127.0.0.1:1", "--video", str(video), "--ue", "ue-1", "--qos", "192.0.2.1:50062"],
    ):
        result = CliRunner().invoke(cli, ["openrtist", *arguments])
        assert isinstance(result.exception, security.InsecureAddress), result.output


def test_the_client_chooses_among_the_styles(tmp_path: Path, plain: Path, video: Path) -> None:
    negative = onnx_file(tmp_path, "negative", networks.inverse())
    levels = {}
    with server(tmp_path, plain, negative) as (running, address):
        for name in ("", "plain", "negative"):
            picture = tmp_path / f"{name or 'none'}.png"
            options = ["--frames", "1", "--style", name, "--save", str(picture)]
            with client(tmp_path, address, video, *options) as sending:
                assert sending.result()["returned"] == 1
            levels[name] = np.asarray(Image.open(picture)).mean()
        with client(
            tmp_path, address, video, "--loop", "--frames", "3", "--fps", "20", "--style", "cubist"
        ) as sending:
            assert sending.wait() == 1
            summary = json.loads(sending.out)
        assert running.stop()["counters"]["refused"] == 3
    assert levels[""] == levels["plain"] == pytest.approx(20, abs=4)
    assert levels["negative"] == pytest.approx(235, abs=4)
    whole(summary)
    assert (summary["refused_by_server"], summary["lost"]) == (3, 3)
    why = "style 'cubist' is not here; there are plain, negative"
    assert summary["problem"] == why and f"none of 3 frames came back: {why}" in sending.log


def test_what_is_shown_is_saved_as_a_video(tmp_path: Path, plain: Path, video: Path) -> None:
    import av

    target = tmp_path / "shown.mp4"
    options = ["--fps", "10", "--drain", "30", "--timeout", "60", "--save", str(target)]
    with server(tmp_path, plain) as (_, address), client(tmp_path, address, video, *options) as sending:
        summary = sending.result()
    assert summary["saved"] == summary["returned"] == summary["sent"]
    with av.open(str(target)) as container:
        levels = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
    assert len(levels) == summary["saved"] and all(a < b + 3 for a, b in itertools.pairwise(levels))
    assert levels[-1] - levels[0] > 50


# ---- pace -----------------------------------------------------------------------------------------------


def emulated(folder: Path) -> tuple[str, list[str]]:
    """An edge agent's address and the command of its process."""
    address = f"127.0.0.1:{free_port()}"
    return address, ["edge-agent", "--address", address]


@contextmanager
def painting(paint: Callable[[np.ndarray], np.ndarray], **options: Any) -> Iterator[StyleServer]:
    """A server of this process, in a thread, whose one style is a function."""
    engine = StyleEngine({"made": SimpleNamespace(paint=paint)})  # type: ignore[dict-item]
    running = StyleServer(engine, "127.0.0.1:0", **options)
    listening = threading.Event()
    thread = threading.Thread(target=running.run, args=(lambda _: listening.set(),))
    thread.start()
    try:
        assert listening.wait(60)
        yield running
    finally:
        running.stop()
        thread.join()


def most_in_flight(frames: dict[int, list[int]]) -> int:
    """Frames under way at a time at most; every one of them came back."""
    assert all(times[3] for times in frames.values())
    steps = sorted([(t[0], 1) for t in frames.values()] + [(t[3], -1) for t in frames.values()])
    return max(itertools.accumulate(step for _, step in steps))


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("/gabriel.GabrielClientService/ClientSession", "as Gabriel before 5.1 did"),
        ("/gabriel_protocol.v1.GabrielClientService/ClientSession", "its session as Gabriel before 5.2 did"),
        ("/some.Other/Call", "calls /some.Other/Call"),
    ],
)
def test_a_client_of_an_older_gabriel_is_told_and_logged(
    method: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with painting(lambda shown: shown) as running, grpc.insecure_channel(running.address) as channel:
        call = channel.stream_stream(method)
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as error:
                list(call(iter([b""]), timeout=60))
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert why in error.value.details() and "gabriel-client>=5.2,<5.3" in error.value.details()
        assert running.counters == {"other_version": 3}
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == 2 and all(why in s and "gabriel-client>=5.2,<5.3" in s for s in said)


def test_without_tokens_the_rate_is_forced(tmp_path: Path, video: Path) -> None:
    def paint(shown: np.ndarray) -> np.ndarray:
        until(lambda: running.counters.get("received") == 20, "twenty frames")
        return shown

    with painting(paint, queue=2) as running:
        options = ["--loop", "--frames", "20", "--tokens", "0", "--drain", "60", "--timeout", "120"]
        with client(tmp_path, running.address, video, *options) as sending:
            summary = sending.result()
    # All came before the first was painted: it, at most, and the two that may wait came back.
    whole(summary)
    assert summary["sent"] == 20 and 2 <= summary["returned"] <= 3
    assert summary["dropped_by_server"] == summary["lost"] == running.counters["queue_full"]


@pytest.mark.parametrize("tokens", [1, 2])
def test_with_tokens_the_server_sets_the_rate(
    tmp_path: Path, video: Path, ingest: Ingest, tokens: int
) -> None:
    def paint(shown: np.ndarray) -> np.ndarray:
        until(lambda: running.counters.get("received", 0) >= tokens, "as many frames as tokens")
        pause(0.15)
        return shown

    with painting(paint, queue=2) as running:
        options = ["--loop", "--frames", "6", "--tokens", str(tokens), "--drain", "60", "--timeout", "120"]
        options += ["--ue", "ue-1", "--qos", ingest.address]
        with client(tmp_path, running.address, video, *options) as sending:
            summary = sending.result()
    assert summary["sent"] == summary["returned"] == 6
    # A token is a picture of 0.15 s, in which the camera makes four.
    assert summary["skipped"] >= 4
    assert most_in_flight(ingest.frames()) == tokens


def test_the_load_of_a_gpu_that_is_busy_all_the_time_is_one(tmp_path: Path, video: Path) -> None:
    loads: list[float] = []

    def paint(shown: np.ndarray) -> np.ndarray:
        # One inference of several samples: none of them sees its end.
        until(lambda: sum(load > 0.9 for load in loads) >= 2, "two samples of a busy GPU")
        return shown

    with painting(paint, on_load=loads.append) as running:
        options = ["--frames", "1", "--drain", "90", "--timeout", "120"]
        with client(tmp_path, running.address, video, *options) as sending:
            assert sending.result(120)["returned"] == 1
        until(lambda: loads[-1] == 0, "an idle GPU")


def test_the_locked_clock_of_the_edge_agent_is_the_clock_of_the_emulated_gpu(
    tmp_path: Path, plain: Path, video: Path
) -> None:
    from wire import edge_pb2, edge_pb2_grpc

    edge, command = emulated(tmp_path)
    options = ("--emulated-gpu", "--edge-agent", edge)
    with (
        process(tmp_path, "edge-agent", *command),
        server(tmp_path, plain, options=options) as (running, address),
        grpc.insecure_channel(edge) as channel,
    ):
        until_log(running, "at 1600 MHz")

        def clocks() -> list[int]:
            with client(tmp_path, address, video, "--loop", "--frames", "3", "--fps", "10") as sending:
                return sending.result()["emulated_gpu_mhz"]

        assert clocks() == [1600, 1600]
        stub = edge_pb2_grpc.EdgeStub(channel)
        lock = stub.LockClocks(
            edge_pb2.LockClocksRequest(holder="test", mhz=500, lease_ms=60_000), timeout=30
        )
        assert lock.sm_mhz == 500
        until(lambda: clocks() == [500, 500], "the server at the locked clock")


def test_an_edge_agent_that_is_not_there_is_named(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from controller.cli.openrtist import serve

    monkeypatch.setattr(serve._full_clock, "__defaults__", (0.5,))
    address = f"127.0.0.1:{free_port()}"
    arguments = ["--style", str(plain), "--emulated-gpu", "--edge-agent", address, "--port", "0"]
    result = CliRunner().invoke(cli, ["openrtist", "server", *arguments])
    assert result.exit_code == 1 and f"--edge-agent {address}: " in result.output


def test_up_with_real_frames_learns_from_their_times(tmp_path: Path, plain: Path, video: Path) -> None:
    """Client, user plane, server, edge agent and controller, each the process that the command starts."""
    folder, config = tmp_path / "run", tmp_path / "frames.yaml"
    # Budgets that any machine keeps: this is about whose times the controller learns from.
    budgets = "budgets: {ul_ms: 20000.0, edge_ms: 20000.0, dl_ms: 20000.0}"
    text, n = re.subn(r"budgets: \{.*\}", budgets, find("frames").read_text())
    assert n == 1
    config.write_text(text)

    def records() -> list[dict]:
        if not (folder / DATABASE_FILE).exists():
            return []
        with RunStore.open(folder) as run:
            return [record["slices"]["ar"] for record in run.decisions()]

    def action(record: dict, hop: str) -> float:
        return next(c["action"] for c in record["choices"] if c["lever"] == hop)

    def learned() -> bool:
        known = records()
        closed = [r["closed"] for r in known if r["closed"] and not r["closed"]["unattributed"]]
        return all(
            sum(c["measures"][hop]["met"] == 1 for c in closed) >= 3
            and min(action(r, hop) for r in known) < action(known[0], hop)
            for hop in ("ul", "edge", "dl")
        )

    arguments = ["up", "--frames", "--json", "--run", str(folder), "--config", str(config)]
    arguments += ["--style", str(plain), "--video", str(video)]
    with process(tmp_path, "up", *arguments) as running:
        until(lambda: not running.running or (records() and learned()), "three attributed slots a hop", 240)
        assert running.running, running.log
        slice_ = running.stop()["summary"]["cells"]["cell-1"]["slices"]["ar"]
    assert slice_["busy_control_slots"] >= 3 and slice_["frames"] >= 3
    client_log = (folder / "logs" / "openrtist-client-1.log").read_text()
    assert "the edge's GPU is emulated: it ran at " in client_log


# ---- what goes wrong ------------------------------------------------------------------------------------


def test_a_server_that_is_killed_costs_the_frames_under_way_and_no_more(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    port = free_port()
    options = ["--fps", "20", "--loop", "--timeout", "3", "--ue", "ue-1", "--qos", ingest.address]
    with client(tmp_path, f"127.0.0.1:{port}", video, *options) as sending:
        with server(tmp_path, plain, port=port) as (running, _):
            until(lambda: ingest.returned() >= 10, "ten frames")
            running.signal(signal.SIGKILL)
            running.wait()
        until_log(sending, "trying again")
        before = ingest.returned()
        with server(tmp_path, plain, port=port) as (running, _):
            until(lambda: ingest.returned() >= before + 10, "ten more frames")
            sending.signal(signal.SIGTERM)
            summary = sending.result()
    whole(summary)
    assert summary["connections"] == 2 and summary["disconnections"] == 1
    assert summary["skipped"] > 0 and summary["returned"] >= 20
    frames = ingest.frames()
    # Sequences go on where they were, and a frame that was lost is known by the time that it was sent.
    assert sorted(frames) == list(range(min(frames), min(frames) + summary["sent"]))
    assert sum(times[3] == 0 for times in frames.values()) == summary["lost"]


def test_a_server_that_does_not_come_back_costs_every_frame_that_was_due(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    options = [
        "--fps",
        "20",
        "--loop",
        "--timeout",
        "1",
        "--duration",
        "8",
        "--ue",
        "ue-1",
        "--qos",
        ingest.address,
    ]
    with (
        server(tmp_path, plain) as (running, address),
        client(tmp_path, address, video, *options) as sending,
    ):
        until(lambda: ingest.returned() >= 1, "a frame")
        running.signal(signal.SIGKILL)
        summary = sending.result()
    whole(summary)
    assert summary["sent"] + summary["skipped"] == 160
    assert summary["run_s"] == 8 and summary["connected_s"] < 7.9 and summary["seconds"] < 7.9


# A frame is lost before the server counts as silent, and after.
@pytest.mark.parametrize("timeout", ["0.7", "3"])
def test_a_server_that_stops_answering_is_given_up_and_called_again(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest, timeout: str
) -> None:
    options = [
        "--fps",
        "20",
        "--loop",
        "--timeout",
        timeout,
        "--silent",
        "1.5",
        "--ue",
        "ue-1",
        "--qos",
        ingest.address,
    ]
    with (
        server(tmp_path, plain) as (running, address),
        client(tmp_path, address, video, *options) as sending,
    ):
        until(lambda: ingest.returned() >= 10, "ten frames")
        running.signal(signal.SIGSTOP)
        until_log(sending, "no answer for 1.5 s")
        running.signal(signal.SIGCONT)
        before = ingest.returned()
        until(lambda: ingest.returned() >= before + 10, "ten more frames")
        sending.signal(signal.SIGTERM)
        summary = sending.result()
    whole(summary)
    assert summary["silences"] >= 1 and summary["connections"] >= 2 and summary["returned"] >= 20


def test_a_server_that_is_never_there_is_an_error(tmp_path: Path, video: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with client(tmp_path, address, video) as sending:
        until_log(sending, "trying again")
        sending.signal(signal.SIGTERM)
        assert sending.wait() == 1
    assert f"server at {address}: never connected: UNAVAILABLE" in sending.log


def test_a_client_that_does_not_read_holds_up_nobody_else(tmp_path: Path, video: Path) -> None:
    from gabriel_protocol.v1 import gabriel_pb2, gabriel_pb2_grpc

    rng = np.random.default_rng(1)
    big = picture.encode(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), 95)

    def inputs() -> Iterator[gabriel_pb2.FromClient]:
        for n in range(1, 151):
            message = gabriel_pb2.FromClient()
            message.input.frame_id, message.input.producer_id = n, "deaf"
            message.input.target_engine_ids.append("openrtist")
            message.input.input_frame.byte_payload = payload.Frame(n, "", big).pack()
            yield message
        until(lambda: over, "the end", 240)

    def registration() -> Iterator[gabriel_pb2.FromClient]:
        message = gabriel_pb2.FromClient()
        message.registration.SetInParent()
        yield message
        until(lambda: over, "the end", 240)

    over: list[bool] = []
    with (
        painting(lambda shown: shown, queue=200) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = gabriel_pb2_grpc.GabrielClientServiceStub(channel)
        control = stub.ClientSession(
            registration(), metadata=(("session-id", "deaf"), ("stream-role", "control"))
        )
        assert next(control).HasField("registered")
        # From here on nothing is read from the control stream.
        producer = stub.ClientSession(
            inputs(), metadata=(("session-id", "deaf"), ("stream-role", "producer"))
        )
        # What nobody reads is not stylised, once results wait.
        until(lambda: running.counters.get("received") == 150, "the frames of the deaf client")
        until(lambda: running.counters.get("not_read", 0) > 20, "frames that were left out")
        options = ["--loop", "--frames", "20", "--fps", "10", "--drain", "60", "--timeout", "120"]
        with client(tmp_path, running.address, video, *options) as sending:
            assert sending.result(120)["returned"] == 20
        over.append(True)
        producer.cancel()
        control.cancel()

        def told() -> int:
            return sum(running.counters.get(name, 0) for name in ("sent", "not_read", "client_gone"))

        # Every frame is accounted for, but for the one that was on the wire when the client went.
        until(lambda: told() >= 169, "word of every frame")
        assert running.counters["received"] == 170
    assert told() <= 170


def test_a_video_that_does_not_decode_is_an_error_before_anything_is_sent(
    tmp_path: Path, plain: Path
) -> None:
    (tmp_path / "noise.mp4").write_bytes(
        np.random.default_rng(1).integers(0, 256, 5000).astype(np.uint8).tobytes()
    )
    with server(tmp_path, plain) as (running, address):
        with client(tmp_path, address, tmp_path / "noise.mp4") as sending:
            assert sending.wait() == 1
        assert re.search(r"prbandit: .*noise\.mp4: not a video that can be decoded", sending.log)
        assert running.stop()["counters"] == {}


def test_a_video_ends_or_loops(tmp_path: Path, plain: Path, video: Path) -> None:
    levels = {}
    told = {}
    with server(tmp_path, plain) as (_, address):
        for name, more in (("once", []), ("looped", ["--loop", "--frames", "25"])):
            shown = tmp_path / name
            options = ["--fps", "10", "--save", str(shown), "--drain", "30", "--timeout", "60", *more]
            with client(tmp_path, address, video, *options) as sending:
                told[name] = sending.result()
            levels[name] = [np.asarray(Image.open(file)).mean() for file in sorted(shown.glob("*.png"))]
    once, looped = told["once"], told["looped"]
    # 2 s of video, each picture brighter than the one before; what was late on a busy machine is skipped.
    assert 1 <= once["sent"] == once["returned"] == once["saved"] <= 21
    assert once["sent"] + once["skipped"] == pytest.approx(10 * once["run_s"], abs=0.1)
    assert all(a < b + 3 for a, b in itertools.pairwise(levels["once"]))
    assert looped["sent"] == 25 == looped["returned"] == looped["saved"]
    assert any(a > b + 3 for a, b in itertools.pairwise(levels["looped"]))


def test_a_video_that_fails_in_mid_run_is_an_error_after_the_summary(
    tmp_path: Path, plain: Path, ingest: Ingest
) -> None:
    gone = make(tmp_path / "gone.mp4", 20)
    options = [
        "--fps",
        "10",
        "--loop",
        "--drain",
        "30",
        "--timeout",
        "60",
        "--ue",
        "ue-1",
        "--qos",
        ingest.address,
    ]
    with server(tmp_path, plain) as (_, address), client(tmp_path, address, gone, *options) as sending:
        until(lambda: ingest.returned() >= 1, "a frame")
        gone.unlink()
        assert sending.wait() == 1
    summary = json.loads(sending.out)
    assert re.search(r"prbandit: .*gone\.mp4: not a video that can be decoded: No such file", sending.log)
    whole(summary)
    frames = ingest.frames()
    assert summary["sent"] == summary["returned"] == len(frames) > 0
    assert all(times[3] for times in frames.values())


def test_what_goes_wrong_in_a_source_is_not_blamed_on_the_server(tmp_path: Path, plain: Path) -> None:
    class Broken:
        name, errors = "camera 7", 0

        def at(self, seconds: float) -> np.ndarray | None:
            if seconds < 0.15:
                return np.full((32, 32, 3), 100, np.uint8)
            raise ZeroDivisionError("no light")

        def close(self) -> None: ...

    with server(tmp_path, plain) as (_, address):
        running = Client(
            address, Broken(), name=FlowName("f", "u", "s"), pace=Pace(fps=10, duration_s=60, drain_s=30)
        )
        with pytest.raises(VideoError, match="camera 7: ZeroDivisionError: no light"):
            running.run()
    summary = running.summary()
    assert 1 <= summary["sent"] == summary["returned"] <= 2 and summary["connections"] == 1


def test_a_picture_that_no_message_takes_is_named(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    monkeypatch.setattr(payload, "MAX_JPEG", 500)
    source = open_source(str(video), 320, 160, loop=False)
    running = Client("127.0.0.1:1", source, name=FlowName("f", "u", "s"))
    with pytest.raises(VideoError, match=r"grey\.mp4: a picture of 320x160 takes \d+ bytes, 500 at most"):
        running._render()
    source.close()


def test_the_summary_tells_of_what_went_wrong(tmp_path: Path, plain: Path, video: Path) -> None:
    with server(tmp_path, plain) as (_, address):
        arguments = [
            "openrtist",
            "client",
            address,
            "--video",
            str(video),
            "--loop",
            "--fps",
            "20",
            "--frames",
            "3",
        ]
        arguments += ["--style", "nope", "--ue", "ue-1", "--qos", f"127.0.0.1:{free_port()}"]
        with process(tmp_path, "client", *arguments) as sending:
            assert sending.wait() == 1
    assert re.search(r"^3 frames sent in .*, 0 returned, 3 lost", sending.out)
    assert re.search(r"^[1-9]\d* messages never reached the controller$", sending.out, re.MULTILINE)
    assert "none of 3 frames came back: style 'nope' is not here; there are plain" in sending.log


def test_frames_that_are_no_pictures_are_refused_one_by_one(plain: Path) -> None:
    from gabriel_protocol.v1 import gabriel_pb2

    from openrtist.style import load

    engine = StyleEngine(load([plain]))
    jpeg = picture.encode(np.full((32, 32, 3), 100, np.uint8), 90)
    tiny = picture.encode(np.full((8, 8, 3), 100, np.uint8), 90)
    wrong = gabriel_pb2.StatusCode.WRONG_INPUT_FORMAT
    for data, words in (
        (b"", "frame of 0 bytes"),
        (jpeg, "frame begins with"),
        (payload.Frame(1, "", b"").pack(), "0 bytes are no JPEG"),
        (payload.Frame(1, "", jpeg[:-100]).pack(), "are no JPEG"),
        (payload.Frame(1, "", tiny).pack(), "a picture of 8x8"),
        (payload.Frame(1, "other", jpeg).pack(), "style 'other' is not here"),
    ):
        result = engine.handle(gabriel_pb2.InputFrame(byte_payload=data), None)
        assert result.status.code == wrong and words in result.status.message, result
    assert engine.counters == {"refused": 6}
    good = engine.handle(gabriel_pb2.InputFrame(byte_payload=payload.Frame(9, "", jpeg).pack()), None)
    assert payload.Reply.unpack(good.payload).sequence == 9


def test_a_lower_clock_stretches_the_network_s_time_and_a_lost_agent_does_not() -> None:
    from openrtist.engine import EmulatedGpu

    slept: list[float] = []
    clock = [1600]
    gpu = EmulatedGpu(1600, lambda: clock[0], slept.append)
    assert gpu.stretch(0.009) == (0.009, 1600) and slept == []
    clock[0] = 500
    whole_s, mhz = gpu.stretch(0.010)
    assert (whole_s, mhz) == (pytest.approx(0.032), 500) and slept == [pytest.approx(0.022)]
    for unknown in (0, 2000):  # no agent; a clock above the highest
        clock[0] = unknown
        assert gpu.stretch(0.010) == (0.010, 1600)
    assert len(slept) == 1


def test_a_step_of_the_clock_is_counted(
    tmp_path: Path, plain: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = time.time
    stepped = [0.0]

    class Stepping:
        """Steps the clock at the tenth frame that comes back."""

        saved = left_out = 0

        def put(self, sequence: int, jpeg: bytes) -> None:
            self.saved += 1
            if self.saved == 10:
                stepped[0] = -60.0

    with server(tmp_path, plain) as (_, address):
        source = open_source(str(video), None, None, loop=True)
        running = Client(
            address,
            source,
            name=FlowName("f", "u", "s"),
            # One at a time: none is under way at the step.
            pace=Pace(fps=20, tokens=1, frames=40, timeout_s=60, drain_s=30),
            saver=Stepping(),  # type: ignore[arg-type]
        )
        monkeypatch.setattr(time, "time", lambda: real() + stepped[0])
        monkeypatch.setattr(time, "time_ns", lambda: int((real() + stepped[0]) * 1e9))
        summary = running.run()
        source.close()
    # The server's clock stays: every frame after the step seems to have arrived before it was sent. Where the
    # machine stood still between two readings of the clocks, that looks like a step too.
    assert summary["clock_steps"] >= 1 and summary["returned"] == 40 == summary["sent"]
    assert 30 - summary["over_a_clock_step"] <= summary["negative_delays"] <= 30
    assert summary["negative_delays"] >= 10
    assert summary["delay_ms"]["dl"]["min"] < -50_000


def test_table_ii_is_measured_row_by_row(tmp_path: Path, plain: Path, video: Path) -> None:
    page = tmp_path / "table.html"
    arguments = ["openrtist", "table-ii", "--style", str(plain), "--video", str(video), "--seconds", "1.5"]
    arguments += ["--only", "160x80@30", "--only", "320x240@30", "--out", str(page), "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    told = json.loads(result.stdout)
    assert [row["name"] for row in told["rows"]] == ["320x240@30", "160x80@30"]
    large, small = told["rows"]
    assert large["paper"] == {"ul_mbps": 11.7, "dl_mbps": 3.7, "inference_ms": 28.0}
    for row in (large, small):
        assert row["returned"] >= 3 and row["ul_at_fps"] > row["dl_at_fps"] > 0 < row["inference_ms"]
        assert row["ul_at_fps"] == pytest.approx(row["ul_mbps"] * 30 / row["sent_fps"], rel=0.02)
    assert large["ul_at_fps"] > small["ul_at_fps"]
    assert "Table II, measured here" in page.read_text() and "160 x 80" in page.read_text()
    wrong = CliRunner().invoke(cli, [*arguments, "--only", "1x1@1"])
    assert wrong.exit_code == 2 and "'1x1@1' is no row" in wrong.output


def test_traffic_starts_and_stops_real_clients_and_the_controller_sees_their_flows(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "version: 1\nlength_s: 600\nflows:\n"
        "  - {flow: ar-1, ue: ue-1, kind: openrtist, active: [[0, 600]]}\n"
        "  - {flow: ar-2, ue: ue-2, kind: openrtist, active: [[1, 600]]}\n"
        "  - {flow: ar-3, ue: ue-2, kind: openrtist, active: [[500, 600]]}\n"
    )

    def heard() -> set[str]:
        return {i.flow for i in ingest.take() if isinstance(i, FrameBatch)}

    with server(tmp_path, plain) as (_, address):
        arguments = ["openrtist", "traffic", str(plan), "--server", address, "--video", str(video), "--json"]
        arguments += ["--logs", str(tmp_path / "logs"), "--on-ue", "ue-2=env TESTED=1", "--", "--fps", "10"]
        with process(tmp_path, "traffic", *arguments, "--qos", ingest.address) as running:
            until(lambda: heard() == {"ar-1", "ar-2"}, "frames of both flows", 60)
            told = running.stop()
    one, two, three = told["flows"]
    assert (one["starts"], two["starts"], three["starts"]) == (1, 1, 0)
    for row in (one, two):
        assert row["failures"] == row["killed"] == 0
        assert row["frames_sent"] == row["frames_returned"] + row["frames_lost"] > 0
    begins = [i.flow for i in ingest.take() if isinstance(i, FlowBegin)]
    ends = [i.flow for i in ingest.items if isinstance(i, FlowEnd)]
    assert sorted(f.flow for f in begins) == sorted(ends) == ["ar-1", "ar-2"]
    assert {f.flow: f.ue_id for f in begins} == {"ar-1": "ue-1", "ar-2": "ue-2"}
