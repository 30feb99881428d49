"""The command itself, ports, run folder and peers: every failure is a real one, and names its remedy."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.gpu.service import EdgeAgent, serve
from controller import config
from controller.cli import cli
from controller.cli.doctor import peers
from controller.cli.doctor.findings import fail, ok, run, summary, warning, worst
from controller.links import operator
from controller.links.operator import OperatorClient, OperatorError
from controller.links.ran import RanLink
from controller.store.lock import Lock
from tests.cli.doctor.harness import CLI, configuration, doctor
from tests.strangers import STRANGERS, WRONG_KEY, Stranger
from wire import keys as wire_keys
from wire.security import Tls, curve_server
from wire.version import full_version

PATIENCE_S = 60.0
root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: root")


@contextmanager
def listening_stranger() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process of somebody else's that listens and never says a word."""
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("keys") / "a"
    wire_keys.create(folder, cells=["cell-1", "cell-2"])
    return folder


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "b"
    wire_keys.create(folder, cells=["cell-1"])
    return folder


class Running:
    """A controller as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.file, self.run = configuration(folder / "config.yaml"), folder / "run"
        self.operator = str(config.load(self.file).links.operator.address)
        self.log = folder / "log"
        with self.log.open("w") as log:
            command = [*CLI, "controller", str(self.file), "--run", str(self.run)]
            self.process = subprocess.Popen(command, stderr=log)
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with OperatorClient(self.operator) as client:
                    client.hello()
                return
            except OperatorError:
                assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
                time.sleep(0.1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    controller = Running(tmp_path_factory.mktemp("controller"))
    yield controller
    controller.process.send_signal(signal.SIGTERM)
    controller.process.wait(PATIENCE_S)


# ---- the command -----------------------------------------------------------------------------------------


def test_a_host_that_is_well_ends_with_0_and_warnings_do_too(tmp_path: Path) -> None:
    report = doctor(configuration(tmp_path / "config.yaml"))
    assert report.code == 0 and report.result["status"] in ("ok", "warning")
    assert report.result["roles"] == ["controller"] and report.result["version"] == full_version()
    assert len(report.of("port links.ran.address", "ok")) == 1
    assert report.one("clock", "skipped")["text"].startswith("every address is of loopback")


def test_the_lines_for_a_person_have_status_and_remedy(tmp_path: Path) -> None:
    file = configuration(tmp_path / "config.yaml", more="controle: {}\n")
    done = CliRunner().invoke(cli, ["doctor", str(file)])
    assert done.exit_code == 1
    first, second, *_, last = done.output.splitlines()
    assert first.startswith(f"fail     configuration: {file}:9: controle: ") and second.startswith(
        "         remedy: "
    )
    assert last.startswith("controller: 1 fail, ")


def test_what_a_configuration_that_cannot_be_taken_says_is_not_made_up(tmp_path: Path) -> None:
    """Neither that its addresses are of loopback, nor that it wants no edge agent."""
    file = configuration(tmp_path / "config.yaml", more="controle: {}\n")
    skipped = {c["check"]: c["text"] for c in doctor(file).result["checks"] if c["status"] == "skipped"}
    assert skipped == dict.fromkeys(("keys", "clock", "disk", "edge agent", "controller"), "no configuration")


def test_every_mistake_of_a_configuration_is_told_as_check_config_tells_it(tmp_path: Path) -> None:
    file = configuration(tmp_path / "config.yaml", more="control: {control_slot_s: -1, seed: x}\n")
    told = [c["text"] for c in doctor(file).of("configuration", "fail")]
    with pytest.raises(config.ConfigError) as refused:
        config.load(file, here=True)
    assert told == str(refused.value).splitlines() and len(told) == 2


def test_without_a_word_of_what_the_host_is_it_asks() -> None:
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 2 and "--role controller|edge|gnb|ue" in done.output


def test_roles_are_guessed_from_the_arguments() -> None:
    report = doctor("--backend", "emulated", "--address", "127.0.0.1:0", "--qos", "127.0.0.1:1")
    assert report.result["roles"] == ["edge", "ue"]


def test_a_check_that_hangs_or_fails_is_told_and_the_others_are_not_held_up() -> None:
    never = threading.Event()
    checks = {
        "hangs": lambda: never.wait() and [],
        "breaks": lambda: [ok("x", str(1 / 0))],
        "good": lambda: [ok("good", "all is well")],
    }
    findings, returned = run(checks, 0.5)
    assert not returned and worst(findings) == "fail"
    assert [(f.check, f.status) for f in findings] == [("hangs", "fail"), ("breaks", "fail"), ("good", "ok")]
    assert "ZeroDivisionError" in findings[1].text and all(f.remedy for f in findings[:2])
    assert summary(findings) == "2 fail, 1 ok"
    assert (
        worst([warning("a", "b", "c"), ok("a", "b")]) == "warning" and worst([fail("a", "b", "c")]) == "fail"
    )


# ---- ports -----------------------------------------------------------------------------------------------


def test_a_port_that_a_stranger_has_names_it_and_the_remedy_frees_it(tmp_path: Path) -> None:
    file = configuration(tmp_path / "config.yaml")
    with listening_stranger() as (stranger, port):
        arguments = (file, "--set", f"links.qos.address=127.0.0.1:{port}")
        found = doctor(*arguments).one("port links.qos.address", "fail")
        assert f"pid {stranger.pid} (" in found["text"]
        command = found["remedy"].split("`")[1]
        assert command == f"kill {stranger.pid}"
        subprocess.run(command, shell=True, check=True)
        stranger.wait(PATIENCE_S)
        assert doctor(*arguments).of("port links.qos.address", "ok")


def test_ports_and_run_that_our_own_controller_has_are_well(running: Running) -> None:
    report = doctor(running.file, "--run", running.run)
    for link in ("ran", "qos", "operator", "metrics", "page"):
        text = report.one(f"port links.{link}.address", "ok")["text"]
        assert f"pid {running.process.pid} (" in text
    assert any(f"pid {running.process.pid} on host" in c["text"] for c in report.of("run", "ok"))
    assert report.one("version controller", "ok")["text"].startswith(full_version())
    assert "its gNB is not connected" in report.one("controller", "warning")["text"]


def test_a_file_that_was_changed_under_a_running_controller_is_told_and_reload_takes_it(
    running: Running,
) -> None:
    before = running.file.read_text()
    running.file.write_text(f"{before}cells: [{{id: cell-1, slices: [{{id: ar, policy: ucb1}}]}}]\n")
    try:
        warnings = [
            c for c in doctor(running.file).of("controller", "warning") if "configuration" in c["text"]
        ]
        assert config.load(running.file).digest in warnings[0]["text"]
        command = warnings[0]["remedy"].split("`")[1].split()
        subprocess.run([*CLI, *command[1:]], check=True, stdout=subprocess.DEVNULL)
        assert not [c for c in doctor(running.file).of("controller") if "configuration" in c["text"]]
    finally:
        running.file.write_text(before)
        subprocess.run([*CLI, "reload", "--operator", running.operator], check=True)


def test_ports_that_another_configuration_s_controller_has_are_not(running: Running, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    shutil.copy(running.file, copy)
    found = doctor(copy).one("port links.ran.address", "fail")
    assert str(running.file) in found["text"] and f"`kill {running.process.pid}`" in found["remedy"]


def test_an_address_of_another_host_is_told(tmp_path: Path) -> None:
    report = doctor("--role", "edge", "--backend", "emulated", "--address", "192.0.2.1:50061")
    assert "ip address" in report.one("port --address", "fail")["remedy"]


# ---- run folder ------------------------------------------------------------------------------------------


def test_a_run_that_another_process_writes_is_told_with_its_pid(tmp_path: Path) -> None:
    file = configuration(tmp_path / "config.yaml")
    with Lock.take(tmp_path / "run" / "run.lock"):
        found = doctor(file, "--run", tmp_path / "run").one("run", "fail")
        assert f"pid {os.getpid()} on host" in found["text"]
    assert not doctor(file, "--run", tmp_path / "run").of("run", "fail")


def test_a_damaged_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.sqlite").write_bytes(b"no database at all" * 100)
    found = doctor(configuration(tmp_path / "config.yaml"), "--run", tmp_path / "run").one("run", "fail")
    assert f"mv {tmp_path / 'run'} " in found["remedy"]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@root
def test_a_full_disk_fails_twice(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        file = configuration(tmp_path / "config.yaml")
        assert "0.0 GB free" in doctor(file, "--run", disk / "run").one("disk", "fail")["text"]
        (disk / "full").write_bytes(bytes(64 << 10))
        told = [c["text"] for c in doctor(file, "--run", disk / "run").of("disk", "fail")]
        assert f"{disk}: No space left on device" in told and len(told) == 2


@root
def test_a_folder_that_can_only_be_read_fails(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        found = doctor(configuration(tmp_path / "config.yaml"), "--run", disk / "run").of("disk", "fail")
        assert (
            "cannot be written: Read-only file system" in found[0]["text"] and "chown" in found[0]["remedy"]
        )


# ---- peers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def edge(keys: Path) -> Iterator[EdgeAgent]:
    """An edge agent over TLS."""
    agent = serve("127.0.0.1:0", tls=Tls(keys, "edge-agent"))
    agent.start()
    yield agent
    agent.close()


def with_edge(folder: Path, port: int, keys: Path | None) -> Path:
    return configuration(folder / "config.yaml", edge=f"127.0.0.1:{port}", keys=keys)


def test_an_edge_agent_with_the_right_keys_is_well(tmp_path: Path, edge: EdgeAgent, keys: Path) -> None:
    report = doctor(with_edge(tmp_path, edge.port, keys))
    assert "GTX 1650" in report.one("edge agent", "ok")["text"]
    assert report.of("version edge agent", "ok")


def test_a_wrong_authority_is_told_as_what_it_is(tmp_path: Path, edge: EdgeAgent, other_keys: Path) -> None:
    found = doctor(with_edge(tmp_path, edge.port, other_keys)).one("edge agent", "fail")
    assert "certificate" in found["text"] and "one folder" in found["remedy"]


def test_a_certificate_that_the_peer_refuses_is_told(
    tmp_path: Path, edge: EdgeAgent, keys: Path, other_keys: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(other_keys, mixed)
    shutil.copy(keys / "ca.crt", mixed)
    found = doctor(with_edge(tmp_path, edge.port, mixed)).one("edge agent", "fail")
    assert "refuses this host's certificate" in found["text"]


def test_a_peer_without_tls_and_one_that_wants_it_are_told(
    tmp_path: Path, edge: EdgeAgent, keys: Path
) -> None:
    found = doctor(with_edge(tmp_path, edge.port, None)).one("edge agent", "fail")
    assert "needs keys" in found["text"] and "--keys" in found["remedy"]
    plain = serve("127.0.0.1:0")
    plain.start()
    try:
        found = doctor(with_edge(tmp_path, plain.port, keys)).one("edge agent", "fail")
    finally:
        plain.close()
    assert "TLS" in found["text"]


@pytest.mark.parametrize("secured", [False, True])
def test_a_silent_peer_holds_nothing_up(tmp_path: Path, keys: Path, secured: bool) -> None:
    with listening_stranger() as (_, port):
        report = doctor(with_edge(tmp_path, port, keys if secured else None), "--answer", 0.5)
        assert "accepts connections" in report.one("edge agent", "fail")["text"]


def test_nobody_at_the_edge_is_told_with_what_starts_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    found = doctor(with_edge(tmp_path, port, None)).one("edge agent", "fail")
    assert "nobody listens" in found["text"] and "systemctl start prbandit-edge-agent" in found["remedy"]


def test_an_edge_agent_of_another_protocol_version_is_told(
    tmp_path: Path, edge: EdgeAgent, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PROTOCOL_VERSION", 2)
    found = doctor(with_edge(tmp_path, edge.port, keys)).one("edge agent", "fail")
    assert "the caller speaks 2, this edge agent 1" in found["text"] and "same version" in found["remedy"]


def test_a_controller_of_another_version_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--role", "ue", "--operator", running.operator)
    monkeypatch.setattr(peers, "full_version", lambda: "9.9.9")
    found = doctor(*arguments).one("version controller", "warning")
    assert full_version() in found["text"] and "9.9.9" in found["text"]
    monkeypatch.setattr(operator, "PROTOCOL_VERSION", 2)
    assert "protocol_version" in doctor(*arguments).one("controller", "fail")["text"]


def test_the_qos_ingest_of_a_controller_is_well_for_a_host_of_an_application(running: Running) -> None:
    qos = config.load(running.file).links.qos.address
    assert "answers" in doctor("--qos", qos).one("QoS ingest", "ok")["text"]


def test_a_stranger_that_is_silent_at_the_operator_api_s_address_is_told_twice(tmp_path: Path) -> None:
    with listening_stranger() as (stranger, port):
        file = configuration(tmp_path / "config.yaml")
        report = doctor(file, "--set", f"links.operator.address=127.0.0.1:{port}", "--answer", 0.5)
        assert f"pid {stranger.pid} (" in report.one("port links.operator.address", "fail")["text"]
        assert "no answer within 0.5 s" in report.one("controller", "fail")["text"]


# ---- RAN link --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RanLink]:
    """A controller's RAN port over CURVE, which cell-2 may not use any more."""
    folder = tmp_path_factory.mktemp("keys") / "c"
    shutil.copytree(keys, folder)
    (folder / "curve" / "cells" / "cell-2.pub").unlink()
    with RanLink("tcp://127.0.0.1:0", curve_server(folder), report_period_ms=50, lease_s=3.0) as link:
        yield link


def gnb(address: str, *arguments: object) -> dict[str, str]:
    """The line on the RAN link."""
    (found,) = doctor("--role", "gnb", "--ran", address, "--answer", 2, *arguments).of("RAN link")
    return found


def test_the_key_of_a_cell_is_taken_and_a_revoked_one_is_refused(ran: RanLink, keys: Path) -> None:
    assert "takes the key of cell cell-1" in gnb(ran.address, "--keys", keys)["text"]
    revoked = gnb(ran.address, "--keys", keys, "--cell", "cell-2")
    assert revoked["status"] == "fail" and "refuses the key of cell cell-2" in revoked["text"]
    assert "curve/cells/cell-2.pub" in revoked["remedy"] and "`prbandit reload`" in revoked["remedy"]


def test_another_controller_s_key_and_no_key_are_told(ran: RanLink, other_keys: Path) -> None:
    wrong = gnb(ran.address, "--keys", other_keys)
    assert wrong["status"] == "fail" and "curve/controller.pub" in wrong["remedy"]
    none = gnb(ran.address)
    assert none["status"] == "fail" and "--keys DIR" in none["remedy"]


@pytest.mark.parametrize("name", [s for s in STRANGERS if s != WRONG_KEY])
def test_a_stranger_on_the_ran_port_is_no_controller(name: str, keys: Path) -> None:
    with Stranger(name) as stranger:
        thread = threading.Thread(target=stranger.fail_handshake, daemon=True)
        thread.start()
        assert gnb(stranger.address, "--keys", keys)["status"] == "fail"
        thread.join(PATIENCE_S)
