"""Schedules, and the processes that they start and stop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import cli
from openrtist import traffic
from openrtist.traffic import Runner, Schedule, ScheduleError, TrafficFlow, parse

GOOD = """
version: 1
length_s: 100
flows:
  - {flow: ar-1, ue: ue-1, kind: openrtist, active: [[0, 10], [20.5, 30]]}
  - {flow: bg-1, ue: ue-2, kind: iperf3, direction: ul, mbps: 2.5, port: 5300, active: []}
"""


def test_a_schedule_comes_back_as_it_went() -> None:
    schedule = parse(GOOD)
    assert schedule.flows[0] == TrafficFlow("ar-1", "ue-1", "openrtist", ((0.0, 10.0), (20.5, 30.0)))
    assert schedule.flows[1] == TrafficFlow("bg-1", "ue-2", "iperf3", (), "ul", 2.5, 5300)
    assert parse(schedule.to_yaml()) == schedule


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 1", "version: 2", "not a schedule of version 1"),
        ("length_s: 100", "length: 100", "unknown key 'length'"),
        ("length_s: 100", "length_s: forever", "length_s 'forever' is not a number"),
        ("kind: openrtist", "kind: ftp", r"flows\[0\] \(ar-1\): kind 'ftp'"),
        ("ue: ue-1", "eu: ue-1", r"flows\[0\]: unknown key 'eu'"),
        ("flow: ar-1", "flow: ../x", r"flows\[0\]: flow '../x' is not a name"),
        ("flow: bg-1", "flow: ar-1", "flow 'ar-1' is there twice"),
        ("direction: ul", "direction: up", "direction 'up'"),
        ("mbps: 2.5", "mbps: -1", "mbps -1 is not a number"),
        ("[20.5, 30]", "[9, 30]", r"\(ar-1\): active\[1\]: \[9.0, 30.0\] is empty or before"),
        ("[20.5, 30]", "[30, 20]", r"active\[1\]: \[30.0, 20.0\] is empty"),
        ("[20.5, 30]", "[20, 130]", "stop 130 is not a number from 0 to 100"),
        ("[20.5, 30]", "[20]", r"active\[1\]: \[20\] is not \[start, stop\]"),
        ("[20.5, 30]", "[20, .nan]", "stop nan"),
        ("flows:", "flows: [", "not YAML"),
    ],
)
def test_a_schedule_that_cannot_be_is_named(old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ScheduleError, match=words) as refused:
        parse(GOOD.replace(old, new, 1), "night.yaml")
    assert str(refused.value).startswith("night.yaml: ")


def schedule(*arguments: str) -> Schedule:
    result = CliRunner().invoke(cli, ["openrtist", "schedule", *arguments])
    assert result.exit_code == 0, result.output
    return parse(result.stdout)


def test_the_same_seed_makes_the_same_schedule_with_its_minimums() -> None:
    options = ["--flows", "3", "--length", "3600", "--mean-on", "60", "--mean-off", "30"]
    options += [
        "--min-on",
        "40",
        "--min-off",
        "20",
        "--iperf3",
        "2",
        "--iperf3-port",
        "6000",
        "--ue",
        "a",
        "--ue",
        "b",
    ]
    one = schedule("--seed", "7", *options)
    assert one == schedule("--seed", "7", *options) != schedule("--seed", "8", *options)
    assert [(f.flow, f.ue, f.kind) for f in one.flows] == [
        ("ar-1", "a", "openrtist"),
        ("ar-2", "b", "openrtist"),
        ("ar-3", "a", "openrtist"),
        ("bg-1", "b", "iperf3"),
        ("bg-2", "a", "iperf3"),
    ]
    assert [f.port for f in one.flows[3:]] == [6000, 6001]
    for flow in one.flows:
        assert len(flow.active) > 10
        assert all(stop - start >= 39.999 for start, stop in flow.active[:-1])
        gaps = [after[0] - before[1] for before, after in zip(flow.active, flow.active[1:], strict=False)]
        assert min(gaps) >= 19.998


def test_the_published_schedule_is_that_of_the_emulated_scenarios() -> None:
    from agents.emulator.schedule import published

    made = schedule("--published", "--mean-off", "240", "--min-off", "120")
    wanted = published(2, 3600.0, mean_on_s=300, mean_off_s=240, min_on_s=120, min_off_s=120, seed=4)
    assert tuple(f.active for f in made.flows) == wanted


# ---- real processes -------------------------------------------------------------------------------------

_CLIENT = """
import json, signal, sys, time
sent = 0
def stop(*_):
    print(json.dumps({"sent": sent, "returned": sent - 1, "lost": 1, "skipped": 0}), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while True:
    time.sleep(0.02)
    sent += 1
"""


def play(tmp_path: Path, flows: Sequence[TrafficFlow], length: float, program: str) -> list[dict]:
    def command(flow: TrafficFlow, seconds: float) -> list[str]:
        assert seconds > 0
        return [sys.executable, "-c", program]

    return Runner(Schedule(length, tuple(flows)), command, tmp_path / "logs").run(lambda: False)


def test_processes_start_and_stop_as_the_schedule_says(tmp_path: Path) -> None:
    flows = [
        TrafficFlow("a", "ue-1", "openrtist", ((0.0, 1.2), (2.0, 3.2))),
        TrafficFlow("b", "ue-2", "openrtist", ((1.0, 3.2),)),
        TrafficFlow("never", "ue-2", "openrtist", ()),
    ]
    a, b, never = play(tmp_path, flows, 3.2, _CLIENT)
    assert (a["starts"], b["starts"], never["starts"]) == (2, 1, 0)
    assert a["failures"] == b["failures"] == a["killed"] == b["killed"] == 0
    # Both runs of the first printed their summary, and the sums are told.
    written = [json.loads(line) for line in (tmp_path / "logs" / "a.out").read_text().splitlines()]
    assert len(written) == 2 and a["frames_sent"] == sum(w["sent"] for w in written) > 0
    assert a["frames_lost"] == 2 and never["frames_sent"] == 0


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    (told,) = play(tmp_path, [TrafficFlow("a", "u", "openrtist", ((0.0, 4.0),))], 4.0, "raise SystemExit(3)")
    assert told["failures"] >= 1 and 2 <= told["starts"] <= told["failures"] + 1


def test_a_process_that_does_not_stop_is_killed_with_all_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "STOP_S", 0.5)
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    (told,) = play(tmp_path, [TrafficFlow("a", "u", "openrtist", ((0.0, 2.0),))], 2.0, stubborn)
    assert told["killed"] == 1
    pid = int((tmp_path / "logs" / "a.out").read_text())
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    flow = TrafficFlow("a", "u", "openrtist", ((0.0, 1.5),))
    runner = Runner(Schedule(1.5, (flow,)), lambda *_: ["/no/such/program"], tmp_path / "logs")
    (told,) = runner.run(lambda: False)
    assert told["starts"] == 0 and told["failures"] >= 1


def test_logs_of_an_earlier_run_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.out").write_text("precious")
    flow = TrafficFlow("a", "u", "openrtist", ((0.0, 1.0),))
    with pytest.raises(FileExistsError, match=r"a\.out: holds an earlier run"):
        Runner(Schedule(1.0, (flow,)), lambda *_: [], tmp_path)
    assert (tmp_path / "a.out").read_text() == "precious"


def test_background_flows_are_skipped_by_name_without_iperf3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    flow = TrafficFlow("bg", "u", "iperf3", ((0.0, 0.2),))
    (told,) = Runner(Schedule(0.2, (flow,)), lambda *_: ["iperf3"], tmp_path / "logs").run(lambda: False)
    assert told["skipped"] == "iperf3 is not installed" and told["starts"] == 0


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
@pytest.mark.parametrize("direction", ["ul", "dl"])
def test_a_background_flow_carries_bytes(tmp_path: Path, direction: str) -> None:
    from controller.cli.ports import free_port

    port = free_port()
    server = subprocess.Popen(
        ["iperf3", "--server", "--port", str(port), "--one-off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.5)
        flow = TrafficFlow("bg", "u", "iperf3", ((0.0, 4.0),), direction, 4.0, port)
        runner = Runner(
            Schedule(4.0, (flow,)),
            lambda f, _seconds: traffic.iperf3_command(f, "127.0.0.1", 1.0),
            tmp_path / "logs",
        )
        runner.run(lambda: server.poll() is not None)
        told = json.loads((tmp_path / "logs" / "bg.out").read_text())
        assert told["start"]["test_start"]["reverse"] == (direction == "dl")
        assert told["end"]["sum_received"]["bytes"] > 100_000
    finally:
        server.kill()
        server.wait()


# ---- the command ----------------------------------------------------------------------------------------

TWO_UES = """
version: 1
length_s: 1.2
flows:
  - {flow: ar-1, ue: ue-1, active: [[0, 1.2]]}
  - {flow: ar-2, ue: ue-2, active: [[0, 1.2]]}
  - {flow: bg-1, ue: ue-1, kind: iperf3, active: [[0, 1.2]]}
  - {flow: bg-2, ue: ue-2, kind: iperf3, active: [[0, 1.2]]}
"""


def told_by(tmp_path: Path, *options: str) -> tuple[int, str]:
    (tmp_path / "plan.yaml").write_text(TWO_UES)
    line = ["openrtist", "traffic", str(tmp_path / "plan.yaml"), "--video", "clip.mp4"]
    result = CliRunner().invoke(cli, [*line, "--logs", str(tmp_path / "logs"), *options])
    return result.exit_code, result.output


def test_each_ue_has_its_own_server_and_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic.shutil, "which", lambda name: name)  # nothing of iperf3 is run
    code, output = told_by(
        tmp_path,
        *("--server", "127.0.0.1:9099", "--server", "ue-2=127.0.0.2:9098", "--iperf3-server", "ue-1=ten"),
        *("--on-ue", "ue-1=echo here", "--on-ue", "ue-2=echo there", "--", "--fps", "7"),
    )
    assert code == 0, output
    for flow, place, server in (("ar-1", "here", "127.0.0.1:9099"), ("ar-2", "there", "127.0.0.2:9098")):
        said = (tmp_path / "logs" / f"{flow}.out").read_text().splitlines()[0].split()
        assert said[0] == place and said[said.index("client") + 1] == server
        assert said[said.index("--flow") + 1] == flow and said[-2:] == ["--fps", "7"]
    for flow, place, server in (("bg-1", "here", "ten"), ("bg-2", "there", "127.0.0.2")):
        said = (tmp_path / "logs" / f"{flow}.out").read_text().splitlines()[0].split()
        assert said[:4] == [place, "iperf3", "--client", server]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--server", "ue-1=127.0.0.1:9099"), "flow 'ar-2' of the schedule: no --server for ue-2"),
        (("--server", "a:1", "--server", "b:1"), "all UEs: set twice"),
        (("--server", "a:1", "--server", "ue-3=b:1"), "no flow of the schedule is on ue-3"),
        (("--server", "=a:1"), "is not UE=VALUE"),
        (("--server", "a:1", "--server", "ue-2=127.0.0.1"), "'127.0.0.1' is not HOST:PORT"),
        (("--server", "a:1", "--on-ue", "ip netns exec x"), "is not UE=VALUE"),
        (("--server", "a:1", "--on-ue", "ue-7=true"), "no flow of the schedule is on ue-7"),
    ],
)
def test_an_option_of_a_ue_that_cannot_be_is_named(tmp_path: Path, options: list[str], words: str) -> None:
    code, output = told_by(tmp_path, *options)
    assert code == 2 and words in output and not (tmp_path / "logs").exists()
