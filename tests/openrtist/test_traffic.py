"""Schedules, and the processes that they start and stop."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

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
        ("length_s: 100", "1: a\ntwo: b", "unknown key '1'"),
        ("length_s: 100", "length_s: 2001-99-99", "not YAML: month must be"),
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


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_bytes(b"version: 1\n\xff\xfe")
    with pytest.raises(ScheduleError, match=r"night\.yaml: not text in UTF-8: .* at byte 11"):
        traffic.read(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--iperf3", "2", "--iperf3-port", "65535"), r"\(bg-2\): port 65536 is not a number"),
        (("--iperf3", "1", "--iperf3-mbps", "1e6"), r"\(bg-1\): mbps 1000000.0 is not a number"),
        (("--ue", "a/b"), "ue 'a/b' is not a name"),
        (("--length", "1e7"), "length_s 10000000.0 is not a number from 0 to"),
        (("--length", "1e9"), "length_s 1000000000.0 is not a number from 0 to"),
        (("--length", "1e6", "--mean-on", "1e-3", "--mean-off", "1e-3", "--min-on", "0", "--min-off", "0"),
         "1000000000 intervals, 100000 are the most"),
        (("--flows", "200000"), "intervals, 100000 are the most"),
    ],
)  # fmt: skip
def test_a_schedule_that_could_not_be_played_is_not_made(options: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(cli, ["openrtist", "schedule", *options])
    assert result.exit_code != 0 and not result.stdout
    assert isinstance(result.exception, ScheduleError)
    assert re.search(words, str(result.exception)), result.exception


def test_times_too_short_for_the_published_generator_are_refused() -> None:
    short = ("--mean-on", "0.01", "--mean-off", "0.01", "--min-on", "0", "--length", "10")
    result = CliRunner().invoke(cli, ["openrtist", "schedule", "--published", *short])
    assert result.exit_code == 2 and "counts whole seconds" in result.output


def test_every_schedule_that_is_made_can_be_read() -> None:
    # Intervals of less than a millisecond, and a length that is not whole milliseconds.
    short = ("--mean-on", "1e-3", "--mean-off", "1e-2", "--min-on", "0", "--min-off", "0")
    made = schedule("--length", "20.00066", *short, "--flows", "3")
    assert all(len(f.active) > 100 and f.active[-1][1] <= made.length_s for f in made.flows)


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
    if sent == 2:
        print("ready", file=sys.stderr, flush=True)
"""


class Clock:
    """Goes on by a tenth of a second whenever it is asked, but waits at the times of ``marks`` for what must
    have happened by then, however long the machine takes."""

    def __init__(self, *marks: tuple[float, Callable[[], bool]]) -> None:
        self._marks = list(marks)
        self._now = 0.0
        self._end = time.monotonic() + 120

    def __call__(self) -> float:
        while self._marks and self._now >= self._marks[0][0]:
            if time.monotonic() > self._end:
                due, self._marks = self._marks[0][0], []
                pytest.fail(f"what was due at {due} s did not come")
            if not self._marks[0][1]():
                return self._now
            del self._marks[0]
        self._now = round(self._now + 0.1, 3)
        return self._now


def play(
    tmp_path: Path, flows: Sequence[TrafficFlow], length: float, program: str, clock: Clock
) -> list[dict]:
    def command(flow: TrafficFlow, seconds: float) -> list[str]:
        assert seconds > 0
        return [sys.executable, "-c", program]

    runner = Runner(Schedule(length, tuple(flows)), command, tmp_path / "logs", clock=clock)
    return runner.run(lambda: False)


def said(tmp_path: Path, flow: str) -> list[str]:
    """What the processes of a flow have written to stderr."""
    return (tmp_path / "logs" / f"{flow}.log").read_text().splitlines()


def ready(tmp_path: Path, times: int, *flows: str) -> Callable[[], bool]:
    return lambda: all(said(tmp_path, flow).count("ready") >= times for flow in flows)


def test_processes_start_and_stop_as_the_schedule_says(tmp_path: Path) -> None:
    flows = [
        TrafficFlow("a", "ue-1", "openrtist", ((0.0, 1.2), (2.0, 3.2))),
        TrafficFlow("b", "ue-2", "openrtist", ((1.0, 3.2),)),
        TrafficFlow("never", "ue-2", "openrtist", ()),
    ]
    out = tmp_path / "logs" / "a.out"
    clock = Clock(
        (1.1, ready(tmp_path, 1, "a")),
        (1.9, lambda: len(out.read_text().splitlines()) == 1),
        (3.1, ready(tmp_path, 2, "a")),
        (3.1, ready(tmp_path, 1, "b")),
    )
    a, b, never = play(tmp_path, flows, 3.2, _CLIENT, clock)
    assert (a["starts"], b["starts"], never["starts"]) == (2, 1, 0)
    assert a["failures"] == b["failures"] == a["killed"] == b["killed"] == 0
    # Both runs of the first printed their summary, and the sums are told.
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(written) == 2 and a["frames_sent"] == sum(w["sent"] for w in written) > 0
    assert a["frames_lost"] == 2 and never["frames_sent"] == 0
    assert [(t["intervals"], t["silent"], t["ran"]) for t in (a, b, never)] == [
        (2, 0, True),
        (1, 0, True),
        (0, 0, True),
    ]


def test_intervals_that_touch_are_two_runs_and_no_failure(tmp_path: Path) -> None:
    flow = TrafficFlow("a", "u", "openrtist", ((0.0, 2.0), (2.0, 9.0)))
    clock = Clock((1.5, ready(tmp_path, 1, "a")), (8.5, ready(tmp_path, 2, "a")))
    (told,) = play(tmp_path, [flow], 9.0, _CLIENT, clock)
    assert (told["starts"], told["failures"], told["silent"]) == (2, 0, 0)


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    program = (
        "import os, sys; print(os.getpid(), file=sys.stderr, flush=True); print('ready', file=sys.stderr)"
    )
    clock = Clock(
        (0.5, lambda: bool(said(tmp_path, "a")) and not alive(int(said(tmp_path, "a")[0]))),
        (3.5, ready(tmp_path, 2, "a")),
    )
    flow = TrafficFlow("a", "u", "openrtist", ((0.0, 4.0),))
    (told,) = play(tmp_path, [flow], 4.0, program + "; raise SystemExit(3)", clock)
    assert told["failures"] >= 1 and 2 <= told["starts"] <= told["failures"] + 1


@pytest.mark.parametrize("at", [1.5, 2.5])
def test_an_exit_code_is_a_failure_at_the_end_of_its_time_too(tmp_path: Path, at: float) -> None:
    # A client that never reached its server ends so at its --duration, or when it is told to stop.
    program = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.02)\n"
        "print('over', file=sys.stderr, flush=True)\n"
        "raise SystemExit(1)\n"
    )

    def over() -> bool:
        (tmp_path / "go").touch()
        return "over" in said(tmp_path, "a")

    clock = Clock((1.4, ready(tmp_path, 1, "a")), (at, over))
    (told,) = play(tmp_path, [TrafficFlow("a", "u", "openrtist", ((0.0, 2.0),))], 3.0, program, clock)
    assert (told["starts"], told["failures"], told["killed"]) == (1, 1, 0)
    assert (told["intervals"], told["silent"], told["ran"]) == (1, 1, False)


def test_what_a_client_did_not_say_that_it_sent_it_did_not_send(tmp_path: Path) -> None:
    program = _CLIENT.replace('"sent": sent', '"sent": 0')
    clock = Clock((0.9, ready(tmp_path, 1, "a")), (2.9, ready(tmp_path, 2, "a")))
    flow = TrafficFlow("a", "u", "openrtist", ((0.0, 1.0), (2.0, 3.0), (8.0, 9.0)))
    (told,) = play(tmp_path, [flow], 4.0, program, clock)
    assert told["failures"] == 0, "they ended as they should"
    assert (told["intervals"], told["silent"], told["ran"]) == (2, 2, False)


@pytest.mark.parametrize(("kind", "failures"), [("iperf3", 0), ("openrtist", 1)])
def test_iperf3_that_is_told_to_end_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, failures: int
) -> None:
    monkeypatch.setattr(traffic.shutil, "which", lambda name: name)
    program = _CLIENT.replace("sys.exit(0)", "sys.exit(1)")
    clock = Clock((0.9, ready(tmp_path, 1, "a")))
    (told,) = play(tmp_path, [TrafficFlow("a", "u", kind, ((0.0, 1.0),))], 1.0, program, clock)
    assert told["failures"] == failures and told["ran"] is (kind == "iperf3")


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
    out = tmp_path / "logs" / "a.out"
    clock = Clock((1.5, lambda: out.exists() and out.read_text().endswith("\n")))
    (told,) = play(tmp_path, [TrafficFlow("a", "u", "openrtist", ((0.0, 2.0),))], 2.0, stubborn, clock)
    assert told["killed"] == 1
    pid = int(out.read_text())
    end = time.monotonic() + 60
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
    assert told["starts"] == 0 and told["failures"] >= 1 and not told["ran"]


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
    assert told["skipped"] == "iperf3 is not installed" and told["starts"] == 0 and not told["ran"]


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
@pytest.mark.parametrize("direction", ["ul", "dl"])
def test_a_background_flow_carries_bytes(tmp_path: Path, direction: str) -> None:
    from controller.cli.ports import free_port

    port, log, out = free_port(), tmp_path / "server.log", tmp_path / "logs" / "bg.out"
    with log.open("wb") as file:
        server = subprocess.Popen(
            ["iperf3", "--server", "--port", str(port), "--one-off", "--forceflush"],
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    def result() -> dict | None:
        """What the first client has written; a second one finds no server any more."""
        try:
            told, _ = json.JSONDecoder().raw_decode(out.read_text())
        except (OSError, ValueError):
            return None
        return told

    try:
        end = time.monotonic() + 120
        while "listening" not in log.read_text():
            assert time.monotonic() < end and server.poll() is None, log.read_text()
            time.sleep(0.02)
        flow = TrafficFlow("bg", "u", "iperf3", ((0.0, 120.0),), direction, 4.0, port)
        runner = Runner(
            Schedule(120.0, (flow,)),
            lambda f, _seconds: traffic.iperf3_command(f, "127.0.0.1", 1.0),
            tmp_path / "logs",
        )
        runner.run(lambda: result() is not None)
        told = result()
        assert told is not None
        assert told["start"]["test_start"]["reverse"] == (direction == "dl")
        assert told["end"]["sum_received"]["bytes"] > 100_000
    finally:
        server.kill()
        server.wait()


# ---- the command ----------------------------------------------------------------------------------------

TWO_UES = """
version: 1
length_s: 600
flows:
  - {flow: ar-1, ue: ue-1, active: [[0, 600]]}
  - {flow: ar-2, ue: ue-2, active: [[0, 600]]}
  - {flow: bg-1, ue: ue-1, kind: iperf3, active: [[0, 600]]}
  - {flow: bg-2, ue: ue-2, kind: iperf3, active: [[0, 600]]}
"""


def told_by(tmp_path: Path, *options: str) -> tuple[int, str]:
    (tmp_path / "plan.yaml").write_text(TWO_UES)
    line = ["openrtist", "traffic", str(tmp_path / "plan.yaml"), "--video", "clip.mp4"]
    result = CliRunner().invoke(cli, [*line, "--logs", str(tmp_path / "logs"), *options])
    return result.exit_code, result.output


def on_ue(folder: Path, *lines: str) -> str:
    """A prefix that does this instead of the command."""
    script = folder / "on_ue"
    script.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    script.chmod(0o755)
    return str(script)


def stop_once(monkeypatch: pytest.MonkeyPatch, condition: Callable[[], bool]) -> None:
    """End the schedule as a signal would."""
    end = time.monotonic() + 120
    stop = SimpleNamespace(is_set=lambda: condition() or time.monotonic() > end)
    monkeypatch.setattr("controller.cli.openrtist.traffic.stop_on_signals", lambda: stop)


def test_each_ue_has_its_own_server_and_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic.shutil, "which", lambda name: name)  # nothing of iperf3 is run
    summary = '{"sent": 1, "returned": 1, "lost": 0, "skipped": 0}'
    place = on_ue(tmp_path, 'echo "$@"', f"echo '{summary}'")
    outs = [tmp_path / "logs" / f"{flow}.out" for flow in ("ar-1", "ar-2", "bg-1", "bg-2")]
    stop_once(monkeypatch, lambda: all(out.exists() and summary in out.read_text() for out in outs))
    code, output = told_by(
        tmp_path,
        *("--server", "127.0.0.1:9099", "--server", "ue-2=127.0.0.2:9098", "--iperf3-server", "ue-1=ten"),
        *("--on-ue", f"ue-1={place} here", "--on-ue", f"ue-2={place} there", "--", "--fps", "7"),
    )
    assert code == 0, output
    for flow, place, server in (("ar-1", "here", "127.0.0.1:9099"), ("ar-2", "there", "127.0.0.2:9098")):
        said = (tmp_path / "logs" / f"{flow}.out").read_text().splitlines()[0].split()
        assert said[0] == place and said[said.index("client") + 1] == server
        assert said[said.index("--flow") + 1] == flow and said[-2:] == ["--fps", "7"]
    for flow, place, server in (("bg-1", "here", "ten"), ("bg-2", "there", "127.0.0.2")):
        said = (tmp_path / "logs" / f"{flow}.out").read_text().splitlines()[0].split()
        assert said[:4] == [place, "iperf3", "--client", server]


def test_flows_of_which_no_client_did_its_work_are_named_and_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic.shutil, "which", lambda name: name)
    good = '{"sent": 1, "returned": 1, "lost": 0, "skipped": 0}'
    script = on_ue(tmp_path, f"case $* in *ar-1*) echo '{good}';; *) echo no >&2; exit 1;; esac")
    over = [tmp_path / "logs" / name for name in ("ar-1.out", "ar-2.log", "bg-1.log", "bg-2.log")]
    stop_once(monkeypatch, lambda: all(path.exists() and path.read_text() for path in over))
    places = ("--on-ue", f"ue-1={script}", "--on-ue", f"ue-2={script}")
    code, output = told_by(tmp_path, "--server", "a:1", *places)
    assert code == 1
    assert f"no client of ar-2, bg-1, bg-2 did its work: see the logs in {tmp_path / 'logs'}" in output
    assert re.search(r"ar-2 on ue-2: .* 0 frames, 0 lost, 1 of 1 times on without a frame\n", output)
    assert re.search(r"bg-1 on ue-1: .* [1-9]\d* failed, 1 of 1 times on without effect\n", output)
    assert re.search(r"ar-1 on ue-1: .* [1-9]\d* frames, 0 lost\n", output)


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
        (("--server", "a:1", "--log", "lg2"), "No such option"),
        (("--server", "a:1", "lg2"), "unexpected 'lg2'"),
    ],
)
def test_an_option_of_a_ue_that_cannot_be_is_named(tmp_path: Path, options: list[str], words: str) -> None:
    code, output = told_by(tmp_path, *options)
    assert code == 2 and words in output and not (tmp_path / "logs").exists()
