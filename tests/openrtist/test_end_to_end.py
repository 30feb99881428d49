"""Real clients and servers on loopback: round trips, and all that can go wrong on the way."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from controller.cli import cli
from controller.cli.ports import free_port
from tests.e2e.harness import until
from tests.openrtist import needs

needs.extra()

from PIL import Image  # noqa: E402

from controller.links.codec import FlowEnd, FrameBatch  # noqa: E402
from controller.links.qos import FlowBegin, QosIngest, QosQueue  # noqa: E402
from controller.store.run import RunStore  # noqa: E402
from openrtist.convert import import_style  # noqa: E402
from tests.openrtist import networks  # noqa: E402
from tests.openrtist.processes import client, pause, process, server, until_log  # noqa: E402
from tests.openrtist.test_style import likeness, onnx_file  # noqa: E402
from tests.openrtist.test_video import make  # noqa: E402
from wire import keys, qos_pb2, security  # noqa: E402


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
        client(tmp_path, address, needs.VIDEO, *options, "--qos", ingest.address) as sending,
    ):
        summary = sending.result()
        counters = running.stop()["counters"]
    whole(summary)
    assert summary["sent"] == summary["returned"] == summary["saved"] == 6
    assert counters == {"received": 6, "frames": 6, "sent": 6}
    files = sorted(shown.glob("*.png"))
    assert [f.name for f in files] == [f"{n:06d}.png" for n in range(6)]
    painted = np.asarray(Image.open(files[-1]))
    from openrtist.video import open_source

    source = open_source(str(needs.VIDEO), 160, 96, loop=False)
    frame = source.at(5 / 3)
    assert frame is not None and painted.shape == frame.shape and painted.std(axis=(0, 1)).min() > 20
    assert likeness(painted, frame) > 0.4 > likeness(painted, frame[::-1, ::-1]) + 0.1
    assert np.abs(painted.astype(int) - frame).mean() > 20, "the video, not a painting"


def test_the_controller_hears_of_the_flow_and_of_every_frame_with_four_times(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    options = ["--fps", "20", "--frames", "30", "--loop", "--qos", ingest.address, "--flow", "ar-7"]
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
    assert summary["qos"]["refused"] == 0 if "refused" in summary["qos"] else True


def test_clocks_that_do_not_agree_are_said_to(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    options = ["--fps", "20", "--frames", "5", "--qos", ingest.address, "--clocks", "unsynchronised"]
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
    options = ["--fps", "20", "--frames", "10", "--qos", ingest.address]
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
        ["client", "127.0.0.1:1", "--video", str(video), "--qos", "192.0.2.1:50062"],
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
        with client(tmp_path, address, video, "--frames", "3", "--fps", "20", "--style", "cubist") as sending:
            summary = sending.result()
        assert running.stop()["counters"]["refused"] == 3
    assert levels[""] == levels["plain"] == pytest.approx(20, abs=4)
    assert levels["negative"] == pytest.approx(235, abs=4)
    whole(summary)
    assert (summary["refused_by_server"], summary["lost"]) == (3, 3)
    assert summary["problem"] == "style 'cubist' is not here; there are plain, negative"


def test_what_is_shown_is_saved_as_a_video(tmp_path: Path, plain: Path, video: Path) -> None:
    import av

    target = tmp_path / "shown.mp4"
    options = ["--fps", "10", "--frames", "15", "--save", str(target)]
    with server(tmp_path, plain) as (_, address), client(tmp_path, address, video, *options) as sending:
        assert sending.result()["saved"] == 15
    with av.open(str(target)) as container:
        levels = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
    assert len(levels) == 15 and all(a < b + 3 for a, b in itertools.pairwise(levels))
    assert levels[-1] - levels[0] > 100


# ---- pace -----------------------------------------------------------------------------------------------


def emulated(folder: Path) -> tuple[str, list[str]]:
    """An edge agent's address and the command of its process."""
    address = f"127.0.0.1:{free_port()}"
    return address, ["edge-agent", "--address", address]


def test_without_tokens_the_rate_is_forced_and_with_tokens_the_server_sets_it(
    tmp_path: Path, plain: Path, video: Path
) -> None:
    edge, command = emulated(tmp_path)
    # A GPU a thousand times slower than this CPU: two frames are more than it can take at 30 a second.
    slow = ("--queue", "2", "--emulated-gpu", "--edge-agent", edge, "--max-mhz", "1600000")
    with (
        process(tmp_path, "edge-agent", *command),
        server(tmp_path, plain, options=slow) as (running, address),
    ):
        until_log(running, "the GPU is emulated")
        until_log(running, "at 1600 MHz")
        outcome = {}
        for tokens in ("0", "1"):
            options = ["--loop", "--duration", "4", "--tokens", tokens, "--drain", "1"]
            with client(tmp_path, address, video, *options, name=f"tokens-{tokens}") as sending:
                outcome[tokens] = sending.result()
                whole(outcome[tokens])
    forced, paced = outcome["0"], outcome["1"]
    assert forced["dropped_by_server"] > 0 and paced["dropped_by_server"] == 0
    assert forced["sent"] > 3 * paced["sent"] > 0
    assert paced["skipped"] > paced["sent"]
    assert forced["emulated_gpu_mhz"] == [1600, 1600]


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
        stub = edge_pb2_grpc.EdgeStub(channel)
        lock = stub.LockClocks(
            edge_pb2.LockClocksRequest(holder="test", mhz=500, lease_ms=30_000), timeout=10
        )
        assert lock.sm_mhz == 500
        pause(0.3)
        with client(tmp_path, address, video, "--frames", "10", "--fps", "10") as sending:
            summary = sending.result()
    assert summary["emulated_gpu_mhz"] == [500, 500] and summary["returned"] == 10


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
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "controller.cli", "up", "--frames", "--json", "--run", str(folder)]
    command += ["--style", str(plain), "--video", str(video), "--duration", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    slice_ = json.loads(done.stdout)["summary"]["cells"]["cell-1"]["slices"]["ar"]
    assert slice_["busy_control_slots"] >= 3 and slice_["frames"] >= 20
    with RunStore.open(folder) as run:
        records = [record["slices"]["ar"] for record in run.decisions()]
    for hop in ("ul", "edge", "dl"):
        assert any(r["closed"][hop]["q"] == 1 and not r["closed"]["unattributed"] for r in records), hop
        assert min(r["hops"][hop]["action"] for r in records) < records[0]["hops"][hop]["action"], hop
    client_log = (folder / "logs" / "openrtist-client-1.log").read_text()
    assert "the edge's GPU is emulated: it ran at " in client_log


# ---- what goes wrong ------------------------------------------------------------------------------------


def test_a_server_that_is_killed_costs_the_frames_under_way_and_no_more(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    port = free_port()
    options = ["--fps", "20", "--loop", "--timeout", "3", "--qos", ingest.address]
    with client(tmp_path, f"127.0.0.1:{port}", video, *options) as sending:
        with server(tmp_path, plain, port=port) as (running, _):
            until(lambda: len(ingest.frames()) >= 10, "ten frames")
            running.signal(signal.SIGKILL)
            running.wait()
        until_log(sending, "trying again")
        before = max(ingest.frames())
        with server(tmp_path, plain, port=port) as (running, _):
            until(lambda: max(ingest.frames()) >= before + 10, "ten more frames")
            sending.signal(signal.SIGTERM)
            summary = sending.result()
    whole(summary)
    assert summary["connections"] == 2 and summary["disconnections"] == 1
    assert summary["skipped"] > 0 and summary["returned"] >= 20
    frames = ingest.frames()
    # Sequences go on where they were, and a frame that was lost is known by the time that it was sent.
    assert sorted(frames) == list(range(min(frames), min(frames) + summary["sent"]))
    assert sum(times[3] == 0 for times in frames.values()) == summary["lost"]


def test_a_server_that_stops_answering_is_given_up_and_called_again(
    tmp_path: Path, plain: Path, video: Path, ingest: Ingest
) -> None:
    options = ["--fps", "20", "--loop", "--timeout", "2", "--silent", "1.5", "--qos", ingest.address]
    with (
        server(tmp_path, plain) as (running, address),
        client(tmp_path, address, video, *options) as sending,
    ):
        until(lambda: len(ingest.frames()) >= 10, "ten frames")
        running.signal(signal.SIGSTOP)
        until_log(sending, "no answer for 1.5 s")
        running.signal(signal.SIGCONT)
        last = max(ingest.frames())
        until(lambda: max(ingest.frames()) >= last + 10, "ten more frames")
        sending.signal(signal.SIGTERM)
        summary = sending.result()
    whole(summary)
    assert summary["silences"] >= 1 and summary["connections"] >= 2 and summary["returned"] >= 20


def test_a_server_that_is_never_there_is_an_error(tmp_path: Path, video: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with client(tmp_path, address, video, "--duration", "1.5") as sending:
        assert sending.wait() == 1
    assert f"server at {address}: never connected: UNAVAILABLE" in sending.log


def test_a_client_that_does_not_read_holds_up_nobody_else(tmp_path: Path, plain: Path, video: Path) -> None:
    from gabriel_protocol.v1 import gabriel_pb2, gabriel_pb2_grpc

    from openrtist import payload, picture

    rng = np.random.default_rng(1)
    big = picture.encode(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), 95)

    def inputs() -> Iterator[gabriel_pb2.FromClient]:
        for n in range(1, 151):
            message = gabriel_pb2.FromClient()
            message.input.frame_id, message.input.producer_id = n, "deaf"
            message.input.target_engine_ids.append("openrtist")
            message.input.input_frame.byte_payload = payload.Frame(n, "", big).pack()
            yield message
        until(lambda: False, "the end", 60)

    def registration() -> Iterator[gabriel_pb2.FromClient]:
        message = gabriel_pb2.FromClient()
        message.registration.SetInParent()
        yield message
        until(lambda: over, "the end", 120)

    over: list[bool] = []
    with (
        server(tmp_path, plain, options=("--queue", "200")) as (running, address),
        grpc.insecure_channel(address) as channel,
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
        pause(3)
        with client(tmp_path, address, video, "--frames", "20", "--fps", "10", "--drain", "20") as sending:
            summary = sending.result()
        over.append(True)
        producer.cancel()
        control.cancel()
        pause(1.5)
        counters = running.stop()["counters"]
    assert summary["returned"] == 20
    # What nobody reads is not stylised, once results wait; and every frame is accounted for, but for the one
    # that was on the wire when the client went.
    assert counters["received"] == 170 and counters["not_read"] > 20
    told = sum(counters.get(name, 0) for name in ("sent", "not_read", "client_gone"))
    assert 169 <= told <= 170


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
    with server(tmp_path, plain) as (_, address):
        with client(tmp_path, address, video, "--fps", "10") as sending:
            once = sending.result()
        with client(tmp_path, address, video, "--fps", "10", "--loop", "--frames", "35") as sending:
            looped = sending.result()
    # 2 s of video; frames that were late on a busy machine are skipped, and counted.
    assert 18 <= once["sent"] + once["skipped"] <= 21 and once["sent"] == once["returned"]
    assert looped["sent"] == 35 == looped["returned"]


def test_frames_that_are_no_pictures_are_refused_one_by_one(plain: Path) -> None:
    from gabriel_protocol.v1 import gabriel_pb2

    from openrtist import payload, picture
    from openrtist.engine import StyleEngine
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

    from openrtist.client import Client, FlowName, Pace
    from openrtist.video import open_source

    told: list[qos_pb2.QosMessage] = []
    real = time.time
    stepped = [0.0]
    with server(tmp_path, plain) as (_, address):
        source = open_source(str(video), None, None, loop=True)
        running = Client(
            address, source, name=FlowName("f", "u", "s"), pace=Pace(fps=20, frames=40), tell=told.append
        )
        monkeypatch.setattr(time, "time", lambda: real() + stepped[0])
        monkeypatch.setattr(time, "time_ns", lambda: int((real() + stepped[0]) * 1e9))

        def step() -> bool:
            if running.returned >= 10:
                stepped[0] = -60.0
            return False

        summary = running.run(step)
        source.close()
    # The server's clock stays: every frame after the step seems to have arrived before it was sent.
    assert summary["clock_steps"] == 1 and summary["returned"] == 40 == summary["sent"]
    assert summary["negative_delays"] >= 20
    assert summary["delay_ms"]["dl"]["min"] < -50_000


def test_table_ii_is_measured_row_by_row(tmp_path: Path, plain: Path, video: Path) -> None:
    import json

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
        assert row["returned"] >= 3 and row["ul_mbps"] > row["dl_mbps"] > 0 and row["inference_ms"] > 0
        assert row["ul_at_fps"] == pytest.approx(row["ul_mbps"] * 30 / row["sent_fps"], rel=0.02)
    assert large["ul_mbps"] > small["ul_mbps"]
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
