"""The agent as a whole: a ptp4l of our own before it, a real QoS ingest and a scraper behind it."""

from __future__ import annotations

import math
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from agents.ptp.service import PtpAgent
from controller.cli import cli, ptp_agent
from controller.cli.ports import free_port
from controller.core.observation import ClockReport
from controller.links.qos import QosIngest
from tests.agents.ptp.fake import CLOCK, OTHER, FakePtp4l
from wire import keys
from wire.security import SERVER_OPTIONS, InsecureAddress, Tls, grpc_server_add

PATIENCE_S = 60.0


def wait_for(what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.02)


class Controller:
    """A real ingest that remembers what it was told."""

    def __init__(self, port: int = 0, tls: Tls | None = None) -> None:
        self.told: list[tuple[str, Any]] = []
        self.ingest = QosIngest(
            lambda cell, item: self.told.append((cell, item)), clock_stale_s=10 * PATIENCE_S
        )
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=SERVER_OPTIONS)
        self.ingest.add_to(self.server)
        self.port = grpc_server_add(self.server, f"127.0.0.1:{port}", tls)
        self.server.start()

    def clocks(self) -> list[ClockReport]:
        return [item for _, item in self.told if isinstance(item, ClockReport)]

    def close(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture
def ptp4l(tmp_path: Path) -> Iterator[FakePtp4l]:
    fake = FakePtp4l(tmp_path / "ptp4l")
    yield fake
    fake.close()


@pytest.fixture
def controller() -> Iterator[Controller]:
    made = Controller()
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path, controller: Controller) -> Iterator[Callable[..., PtpAgent]]:
    agents = []

    def build(**options: Any) -> PtpAgent:
        values: dict[str, Any] = {
            "host": "ue-1",
            "cells": ["cell-1"],
            "address": f"127.0.0.1:{controller.port}",
            "sockets": [tmp_path / "ptp4l"],
            "reply_dir": tmp_path,
            "timeout_s": PATIENCE_S,
            **options,
        }
        agents.append(PtpAgent(**values))
        return agents[-1]

    yield build
    for agent in agents:
        agent.close()


def samples(url: str, context: ssl.SSLContext | None = None) -> dict[tuple[str, str], float]:
    """(name, state or identity) -> value."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S, context=context) as page:
        text = page.read().decode()
    return {
        (s.name, s.labels.get("state", s.labels.get("identity", ""))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_what_ptp4l_says_reaches_the_controller(
    ptp4l: FakePtp4l, controller: Controller, make: Callable[..., PtpAgent]
) -> None:
    agent = make(cells=["cell-1", "cell-2"])
    agent.poll()
    wait_for("a report in both cells", lambda: {c for c, i in controller.told} == {"cell-1", "cell-2"})
    got = controller.clocks()[0]
    assert (got.host, got.ptp_state, got.offset_ns, got.path_delay_ns) == ("ue-1", "SLAVE", 250.0, 2000.0)
    assert got.grandmaster == "860bb4.fffe.2a41e2"
    assert got.fault == "" and abs(time.time_ns() - got.time_ns) < PATIENCE_S * 1e9


def test_a_ptp4l_that_is_gone_is_told_at_once_and_never_its_last_values(
    tmp_path: Path, controller: Controller, make: Callable[..., PtpAgent]
) -> None:
    agent = make()
    before = agent.poll()
    assert (before.state, before.synchronised) == ("NONE", False) and "no ptp4l" in before.reason
    fake = FakePtp4l(tmp_path / "ptp4l")
    assert agent.poll().state == "SLAVE"
    fake.close()
    for _ in range(3):
        got = agent.poll()
        assert (got.state, got.offset_ns, got.path_delay_ns) == ("NONE", 0.0, 0.0)
    assert agent.counters["read_errors"] == 4
    fake = FakePtp4l(tmp_path / "ptp4l")
    assert agent.poll().state == "SLAVE"
    fake.close()
    wait_for("the end of the story", lambda: controller.clocks()[-1:] and not controller.clocks()[-1].fault)


def test_after_an_outage_the_latest_status_alone_is_told(
    ptp4l: FakePtp4l, controller: Controller, make: Callable[..., PtpAgent]
) -> None:
    agent = make()
    agent.poll()
    wait_for("the first report", controller.clocks)
    controller.close()
    wait_for("the outage", lambda: not agent.connected)
    for offset in (1.0, 2.0, 3.0):
        ptp4l.offset_ns = offset
        agent.poll()
    again = Controller(controller.port)
    try:
        wait_for("a report after the outage", again.clocks)
        assert [c.offset_ns for c in again.clocks()] == [3.0]
    finally:
        again.close()


def test_the_metrics_say_what_is_known_and_nan_for_what_is_not(
    ptp4l: FakePtp4l, make: Callable[..., PtpAgent]
) -> None:
    port = free_port()
    agent = make(metrics_address=f"127.0.0.1:{port}", address=None)
    url = f"http://127.0.0.1:{port}/metrics"
    agent.poll()
    got = samples(url)
    assert got["prbandit_ptp_up", ""] == got["prbandit_ptp_synchronised", ""] == 1
    assert got["prbandit_ptp_offset_seconds", ""] == pytest.approx(250e-9)
    assert got["prbandit_ptp_path_delay_seconds", ""] == pytest.approx(2e-6)
    assert got["prbandit_ptp_port_state", "SLAVE"] == 1 and got["prbandit_ptp_port_state", "NONE"] == 0
    assert got["prbandit_ptp_grandmaster", "860bb4.fffe.2a41e2"] == 1
    assert got["prbandit_ptp_grandmaster_changes_total", ""] == 0
    assert math.isnan(got["prbandit_ptp_system_offset_seconds", ""])
    ptp4l.grandmaster, ptp4l.ingress_ns = OTHER, 2
    agent.poll()
    got = samples(url)
    assert got["prbandit_ptp_grandmaster_changes_total", ""] == 1
    assert [k[1] for k in got if k[0] == "prbandit_ptp_grandmaster"] == ["aaaaaa.fffe.bbbbbb"]
    ptp4l.close()
    agent.poll()
    got = samples(url)
    assert got["prbandit_ptp_up", ""] == got["prbandit_ptp_synchronised", ""] == 0
    assert math.isnan(got["prbandit_ptp_offset_seconds", ""])
    assert math.isnan(got["prbandit_ptp_path_delay_seconds", ""])
    assert got["prbandit_ptp_port_state", "NONE"] == 1
    assert got["prbandit_ptp_read_errors_total", ""] == 1


@pytest.mark.parametrize("state", ["LISTENING", "MASTER"])
def test_a_master_that_is_dead_is_not_named_any_more(
    ptp4l: FakePtp4l, controller: Controller, make: Callable[..., PtpAgent], state: str
) -> None:
    """ptp4l does: its data sets stay those of the last master."""
    port = free_port()
    agent = make(metrics_address=f"127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}/metrics"
    for following in ("UNCALIBRATED", "SLAVE"):
        ptp4l.states = [following]
        agent.poll()
        got = samples(url)
        assert got["prbandit_ptp_grandmaster", "860bb4.fffe.2a41e2"] == 1
        assert got["prbandit_ptp_steps_removed", ""] == 1
    ptp4l.states = [state]
    agent.poll()
    got = samples(url)
    assert got["prbandit_ptp_port_state", state] == 1
    assert not [key for key in got if key[0] == "prbandit_ptp_grandmaster"]
    assert math.isnan(got["prbandit_ptp_steps_removed", ""])
    wait_for("the state", lambda: controller.clocks() and controller.clocks()[-1].ptp_state == state)
    # A MASTER under another grandmaster is a boundary clock.
    assert controller.clocks()[-1].grandmaster == ("" if state == "LISTENING" else "860bb4.fffe.2a41e2")


def test_a_hardware_clock_that_cannot_be_read_leaves_the_frames_clock_unknown(
    ptp4l: FakePtp4l, tmp_path: Path, make: Callable[..., PtpAgent]
) -> None:
    agent = make(phc=tmp_path / "ptp0", address=None)
    got = agent.poll()
    assert got.state == "NONE" and "ptp0: the PHC cannot be read" in got.reason
    assert agent.counters == {"read_errors": 1}


def test_a_grandmaster_has_to_be_meant_to_be_one(ptp4l: FakePtp4l, make: Callable[..., PtpAgent]) -> None:
    ptp4l.states, ptp4l.grandmaster, ptp4l.ingress_ns = ["MASTER"], CLOCK, 0
    assert make(address=None).poll().state == "NONE"
    assert make(address=None, grandmaster=True).poll().state == "MASTER"


def test_it_polls_until_it_is_stopped_and_logs_a_change_once(
    ptp4l: FakePtp4l, make: Callable[..., PtpAgent], caplog: pytest.LogCaptureFixture
) -> None:
    agent = make(address=None, interval_s=0.02)
    stop, beats = threading.Event(), []
    thread = threading.Thread(target=agent.run, args=(stop,), kwargs={"beat": lambda: beats.append(1)})
    with caplog.at_level("INFO", "agents.ptp.service"):
        thread.start()
        wait_for("ten polls", lambda: len(beats) >= 10)
        ptp4l.states = ["LISTENING"]
        seen = len(beats)
        wait_for("ten more", lambda: len(beats) >= seen + 10)
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    lines = [r.getMessage() for r in caplog.records]
    assert [("SLAVE" in line, "LISTENING" in line) for line in lines] == [(True, False), (False, True)]


def test_beyond_loopback_it_needs_keys(make: Callable[..., PtpAgent]) -> None:
    with pytest.raises(InsecureAddress, match=r"--qos: 192.0.2.1:50062 .* --keys"):
        make(address="192.0.2.1:50062")
    with pytest.raises(InsecureAddress, match=r"--metrics: 0.0.0.0:9100 .* --keys"):
        make(address=None, metrics_address="0.0.0.0:9100")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        *(({"interval_s": v}, f"--interval: {v} s") for v in (0.0, math.inf, math.nan, 1e10)),
        ({"silence_s": math.inf}, "--silence: inf s"),
        ({"reply_dir": Path("/" + 99 * "x")}, "--reply-dir: /x+: 100 bytes are too long"),
        ({"cells": []}, "--cell"),
        (
            {"address": None, "metrics_address": "localhost"},
            "--metrics: address .localhost. is not HOST:PORT",
        ),
    ],
)
def test_an_option_that_cannot_be_is_named(
    make: Callable[..., PtpAgent], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(**options)


def test_over_tls_to_the_controller_and_to_prometheus(
    ptp4l: FakePtp4l, tmp_path: Path, make: Callable[..., PtpAgent]
) -> None:
    pytest.importorskip("cryptography", reason="the extra `keys` is not installed")
    folder = tmp_path / "keys"
    keys.create(folder, cells=["cell-1"], hosts=["127.0.0.1"])
    controller = Controller(tls=Tls(folder, "controller"))
    port = free_port()
    try:
        agent = make(
            address=f"127.0.0.1:{controller.port}",
            tls=Tls(folder, "ptp-agent"),
            metrics_address=f"127.0.0.1:{port}",
        )
        agent.poll()
        wait_for("a report over TLS", controller.clocks)
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / "prometheus.crt", folder / "prometheus.key")
        assert samples(f"https://127.0.0.1:{port}/metrics", context)["prbandit_ptp_up", ""] == 1
    finally:
        controller.close()


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Ends the command as a signal does."""
    event = threading.Event()
    monkeypatch.setattr(ptp_agent, "stop_on_signals", lambda: event)
    return event


def test_the_command_runs_tells_and_ends(
    ptp4l: FakePtp4l, controller: Controller, tmp_path: Path, stop: threading.Event
) -> None:
    heartbeat = tmp_path / "heartbeat"
    seen = []

    def watch() -> None:
        end = time.monotonic() + PATIENCE_S
        while not seen and time.monotonic() < end:
            told = ("edge-1", "SLAVE") in {(c.host, c.ptp_state) for c in controller.clocks()}
            if told and heartbeat.exists() and '"state": "SLAVE"' in heartbeat.read_text():
                seen.append(1)
            time.sleep(0.02)
        stop.set()

    thread = threading.Thread(target=watch)
    thread.start()
    done = CliRunner().invoke(
        cli,
        [
            *("ptp-agent", "--host", "edge-1", "--cell", "cell-1", "--qos", f"127.0.0.1:{controller.port}"),
            *("--socket", str(ptp4l.path), "--reply-dir", str(tmp_path), "--interval", "0.05"),
            *("--heartbeat", str(heartbeat)),
        ],
    )
    thread.join()
    assert done.exit_code == 0, done.output
    assert seen, done.output


def test_the_command_ends_when_its_time_is_over(ptp4l: FakePtp4l, tmp_path: Path) -> None:
    """And not after the next reading, an hour later."""
    arguments = ("--socket", str(ptp4l.path), "--reply-dir", str(tmp_path), "--qos", "", "--interval", "3600")
    done = CliRunner().invoke(cli, ["ptp-agent", "--host", "h", *arguments, "--duration", "0.05"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("option", ["--interval", "--silence", "--duration"])
def test_a_time_that_is_none_is_refused_by_name(
    option: str, value: str, tmp_path: Path, stop: threading.Event
) -> None:
    stop.set()
    arguments = ["ptp-agent", "--host", "h", "--qos", "", "--reply-dir", str(tmp_path), option, value]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2 and option in done.output, (done.output, done.exception)
