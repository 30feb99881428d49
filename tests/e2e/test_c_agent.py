"""Either gNB will do: the emulated one, and a toy scheduler that drives the C agent by its public header.

The same assertions hold for both, against the real controller and against a scripted one that misbehaves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from controller.cli.ports import free_port
from tests.e2e.harness import Testbed, until
from tests.oai_patches.build import build_agent
from tests.strangers import STRANGERS, Stranger
from wire import PROTOCOL_VERSION, keys, ran_pb2
from wire.definitions.qos import FIRST_DRB_LCID, PRIORITY_LEVELS
from wire.security import CurveServer, curve_server

QUOTA = (30, 20)
START_S = 180.0  # the emulated cell may have to be compiled first
CONFIG = """
control: {rescue: off, control_slot_s: 0.5, guard_ms: 100.0}
cells:
  - id: cell-1
    slices:
      - id: ar
        policy: ucb1
        actions:
          ul_prb: {from: 30, to: 30, step: 1}
          dl_prb: {from: 20, to: 20, step: 1}
          gpu_mhz: {from: 1000, to: 1000, step: 1}
        ues: [ue-1]
emulation: {duration_s: 3600.0, flows: 2, schedule: always}
"""


class Gnb:
    """A gNB process in ``folder`` that connects to a controller's RAN link."""

    five_qi: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, ran_address: str, key_folder: Path | None) -> list[str]:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What it said of itself last, at most about a second ago."""
        raise NotImplementedError

    def quota(self) -> tuple[int, int] | None:
        """(UL, DL) PRBs of slice ar in force."""
        raise NotImplementedError

    def start(self, ran_address: str, key_folder: Path | None = None) -> None:
        with (self.folder / "gnb.log").open("ab") as log, (self.folder / "gnb.out").open("ab") as out:
            command = self.command(ran_address, key_folder)
            self.process = subprocess.Popen(command, stdout=out, stderr=log, stdin=subprocess.DEVNULL)

    def counter(self, name: str) -> int:
        return int(self.state()["ran"].get(name, 0))

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                assert self.process.wait(60) == 0
            finally:
                self.process.kill()

    def log(self) -> str:
        return (self.folder / "gnb.log").read_text() if self.process else ""


class EmulatedGnb(Gnb):
    five_qi = 80

    def command(self, ran_address: str, key_folder: Path | None) -> list[str]:
        config = self.folder / "emulated.yaml"
        config.write_text(CONFIG)
        return [
            *(sys.executable, "-m", "controller.cli", "gnb-mock", str(config), "--ran", ran_address),
            *("--qos", "", "--edge", "", "--heartbeat", str(self.folder / "gnb.json")),
            *(("--keys", str(key_folder)) if key_folder else ()),
        ]

    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "gnb.json").read_text())

    def quota(self) -> tuple[int, int] | None:
        quota = self.state()["quotas"].get("ar")
        return quota and tuple(quota)


class ToyGnb(Gnb):
    """UE ue-1 is in slice ar, the others in none; each has more to send than fits."""

    cell = "cell-1"
    five_qi = 9
    more: tuple[str, ...] = ()

    def command(self, ran_address: str, key_folder: Path | None) -> list[str]:
        config = self.folder / "agent.conf"
        lines = [f"endpoint = {ran_address}", f"cell = {self.cell}"]
        if key_folder:
            lines += [
                f"curve.server = {key_folder}/curve/controller.pub",
                f"curve.secret = {key_folder}/curve/cells/{self.cell}.key",
            ]
        config.write_text("\n".join(lines) + "\n")
        rates = ("--ul-bps", "80000000", "--dl-bps", "80000000")
        toy = str(build_agent() / "tests" / "toy_gnb")
        return [toy, "--seconds", "3600", *rates, *self.more, str(config)]

    def state(self) -> dict[str, Any]:
        lines = (self.folder / "gnb.out").read_text().splitlines()
        return json.loads(lines[-1] if lines else "nothing yet")

    def quota(self) -> tuple[int, int] | None:
        state = self.state()
        if not state["ul_ranges"]:
            return None
        return state["ul_ranges"][0][1], state["dl_ranges"][0][1]


KINDS = {"emulated": EmulatedGnb, "c-agent": ToyGnb}


@pytest.fixture(params=sorted(KINDS))
def gnb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gnb]:
    if request.param == "c-agent":
        build_agent()
    gnb = KINDS[request.param](tmp_path)
    try:
        yield gnb
    except BaseException:
        print(f"---- gNB\n{gnb.log()}")
        raise
    finally:
        gnb.close()


# ---- with the real controller ---------------------------------------------------------------------------


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Testbed]:
    bed = Testbed(tmp_path, CONFIG)
    yield bed
    bed.close()


def metric(bed: Testbed, name: str) -> float:
    page = urllib.request.urlopen(bed.metrics_url, timeout=30).read().decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"prbandit_{name}"))


def send_garbage(address: str) -> None:
    """A peer that speaks ZMQ and nonsense, and one that does not even speak ZMQ."""
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(os.urandom(4096))
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 1000)
        dealer.connect(address)
        for size in (0, 1, 17, 1000, 40_000):
            dealer.send(os.urandom(size))
        dealer.send_multipart([b"two", b"frames"])


def test_sessions_quotas_leases_and_reconnects(gnb: Gnb, bed: Testbed) -> None:
    bed.start("controller")
    gnb.start(bed.ran_address)
    bed.wait_for_slot(3, START_S)
    until(lambda: gnb.quota() == QUOTA, "the quota at the gNB")
    assert gnb.counter("sessions") == 1
    until(lambda: metric(bed, "ran_reports_total") > 100, "reports")

    # What the scheduler knows of the UE is there to be seen.
    ue = bed.cell()["ues"][0]
    assert (ue["ue_id"], ue["slice"], ue["five_qi"], ue["snssai"]) == ("ue-1", "ar", gnb.five_qi, None)
    assert ue["priority_level"] == PRIORITY_LEVELS[gnb.five_qi]
    assert ue["dl"]["queued_bytes"] == sum(c["queued_bytes"] for c in ue["dl_channels"])
    assert {c["lcid"] for c in ue["dl_channels"]} <= {FIRST_DRB_LCID}

    # A wish of the operator reaches the scheduler, and so does its end.
    with bed.operator() as client:
        client.set_mode("", "released")
        until(lambda: gnb.quota() is None, "all PRBs")
        client.set_mode("", "active")
        until(lambda: gnb.quota() == QUOTA, "the quota again")

    # Nonsense from strangers disturbs nobody.
    malformed = metric(bed, "ran_malformed_total")
    send_garbage(bed.ran_address)
    until(lambda: metric(bed, "ran_malformed_total") > malformed, "the complaint about the garbage")
    slots = bed.cell()["control_slots"]
    bed.wait_for_slot(slots + 2)
    assert gnb.counter("sessions") == 1 and gnb.quota() == QUOTA

    # What was acknowledged is what was used.
    assert metric(bed, "ran_quota_not_honoured_total") == 0
    assert metric(bed, "ran_bad_report_total") == metric(bed, "ran_bad_applied_total") == 0

    # Without the controller all PRBs are back within the lease; with it the session resumes.
    bed.kill("controller")
    until(lambda: gnb.quota() is None, "the lapse")
    assert until(lambda: gnb.counter("leases_lapsed"), "the count of the lapse") == 1
    bed.start("controller")
    until(lambda: gnb.quota() == QUOTA, "a quota from the controller that came back", START_S)
    assert gnb.counter("sessions") == 2
    assert bed.kill("controller", signal.SIGTERM) == 0
    until(lambda: gnb.quota() is None, "the release of a clean end")
    assert gnb.counter("leases_lapsed") == 1


def test_the_toy_scheduler_keeps_to_its_ranges(bed: Testbed, tmp_path: Path) -> None:
    """With more UEs than a report holds, and two that change their RNTIs meanwhile."""
    build_agent()
    gnb = ToyGnb(tmp_path)
    gnb.more = ("--ues", "70", "--swap-after", "3")
    try:
        bed.start("controller")
        gnb.start(bed.ran_address)
        bed.wait_for_slot(3, START_S)
        until(lambda: gnb.quota() == QUOTA, "the quota at the gNB")
        renewals = gnb.counter("quotas")
        until(lambda: gnb.counter("quotas") > renewals + 5 and gnb.state()["nr_slot"] > 8000, "some renewals")
        ues = gnb.state()["ues"]
        inside = ues.pop("ue-1")
        assert inside["rnti"] == ues["ue-2"]["rnti"] + 1, "the RNTIs were exchanged"
        assert (inside["ul_max_prb"], inside["dl_max_prb"]) == QUOTA
        most = [max(ue[f"{d}_max_prb"] for ue in ues.values()) for d in ("ul", "dl")]
        assert most == [106 - QUOTA[0], 106 - QUOTA[1]]
        assert gnb.counter("ues_left_out") > 0
        until(lambda: metric(bed, "ran_reports_total") > 100, "reports")
        assert metric(bed, "ran_bad_report_total") == metric(bed, "ran_quota_not_honoured_total") == 0
        with bed.operator() as client:
            client.set_mode("", "released")
        until(lambda: gnb.state()["ues"]["ue-1"]["ul_max_prb"] > QUOTA[0], "more than the quota", 10)
    finally:
        gnb.close()


def test_curve(gnb: Gnb, tmp_path: Path) -> None:
    key_folder = tmp_path / "keys"
    keys.create(key_folder, cells=["cell-1", "cell-2"])
    bed = Testbed(tmp_path, CONFIG + f"\nsecurity: {{keys: '{key_folder}'}}\n")
    try:
        bed.start("controller")
        gnb.start(bed.ran_address, key_folder)
        until(lambda: gnb.quota() == QUOTA, "the quota over CURVE", START_S)
    finally:
        bed.close()


@pytest.mark.parametrize(
    "cells", [["cell-1"], ["cell-1", "cell-2"]], ids=["unknown-key", "another-cells-key"]
)
def test_curve_keeps_a_stranger_out(cells: list[str], tmp_path: Path) -> None:
    build_agent()
    key_folder, strange = tmp_path / "keys", tmp_path / "strange"
    keys.create(key_folder, cells=cells)
    keys.create(strange, cells=["cell-2"])
    # The right controller's key, and a key of its own: not known there, or that of another cell.
    (strange / "curve/controller.pub").write_bytes((key_folder / "curve/controller.pub").read_bytes())
    if "cell-2" in cells:
        (strange / "curve/cells/cell-2.key").write_bytes((key_folder / "curve/cells/cell-2.key").read_bytes())
    (strange / "curve/cells/cell-1.key").write_bytes((strange / "curve/cells/cell-2.key").read_bytes())
    bed = Testbed(tmp_path, CONFIG + f"\nsecurity: {{keys: '{key_folder}'}}\n")
    gnb = ToyGnb(tmp_path)
    try:
        bed.start("controller")
        gnb.start(bed.ran_address, strange)
        if "cell-2" in cells:
            until(lambda: gnb.counter("rejects"), "the rejection")
        else:
            until(
                lambda: "no answer from the controller" in gnb.log(),
                "the warning that nobody answers",
                START_S,
            )
        assert gnb.counter("sessions") == 0 and gnb.quota() is None
    finally:
        gnb.close()
        bed.close()


# ---- with a controller that misbehaves ------------------------------------------------------------------


class ScriptedController:
    """A ROUTER that says what the test wants."""

    def __init__(self, address: str = "", curve: CurveServer | None = None) -> None:
        self.address = address or f"tcp://127.0.0.1:{free_port()}"
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if curve is not None:
            curve.apply(self._socket)
        self._socket.bind(self.address)
        self._peer = b""

    def hear(self, kind: str, timeout_s: float = START_S) -> Any:
        """The next message of a kind; None where none came."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            if not self._socket.poll(left * 1e3):
                continue
            self._peer, data = self._socket.recv_multipart()
            message = ran_pb2.GnbMessage.FromString(data)
            if message.WhichOneof("body") == kind:
                return getattr(message, kind)
        return None

    def say(self, *frames: bytes, **body: Any) -> None:
        data = frames or (ran_pb2.ControllerMessage(**body).SerializeToString(),)
        self._socket.send_multipart([self._peer, *data])

    def welcome(self, session: int) -> None:
        hello = self.hear("hello")
        assert hello.protocol_version == PROTOCOL_VERSION and hello.cell_id == "cell-1" and hello.prb == 106
        self.say(
            welcome=ran_pb2.Welcome(
                session=session, protocol_version=PROTOCOL_VERSION, report_period_ms=50, lease_ms=3000
            )
        )

    def quota(self, session: int, sequence: int, lease_ms: int = 60_000, **quotas: tuple[int, int]) -> None:
        self.say(
            set_quota=ran_pb2.SetQuota(
                session=session,
                sequence=sequence,
                lease_ms=lease_ms,
                quotas=[ran_pb2.SliceQuota(slice=s, ul_prb=u, dl_prb=d) for s, (u, d) in quotas.items()],
                bindings=[ran_pb2.UeBinding(ue_id="ue-1", slice="ar")],
            )
        )

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


@pytest.fixture
def script() -> Iterator[ScriptedController]:
    script = ScriptedController()
    yield script
    script.close()


def test_a_controller_of_another_version_is_asked_again_seldom(gnb: Gnb, script: ScriptedController) -> None:
    gnb.start(script.address)
    assert script.hear("hello")
    reject = ran_pb2.Reject(reason="version 1 is not spoken", controller_version=2, agent_version=1)
    script.say(reject=reject)
    assert script.hear("hello", 5.0) is None
    assert gnb.counter("rejects") == 1 and gnb.counter("sessions") == 0
    assert "version 1 is not spoken" in gnb.log()
    assert script.hear("hello", 10.0)
    script.say(welcome=ran_pb2.Welcome(session=4, protocol_version=2, report_period_ms=50, lease_ms=3000))
    assert script.hear("mac_report", 2.0) is None and gnb.counter("refused_welcomes") == 1


def test_stale_repeated_and_impossible_quotas_change_nothing(gnb: Gnb, script: ScriptedController) -> None:
    gnb.start(script.address)
    script.welcome(7)
    report = script.hear("mac_report")
    assert report.session == 7 and report.sequence == 1 and {u.ue_id for u in report.ues} >= {"ue-1"}
    script.quota(7, 5, ar=QUOTA)
    applied = script.hear("applied")
    assert applied.sequence == 5 and [(q.ul_prb, q.dl_prb) for q in applied.in_force] == [QUOTA]

    script.quota(7, 4, ar=(50, 50))
    script.quota(8, 6, ar=(50, 50))
    script.quota(7, 6, lease_ms=0, ar=(50, 50))
    script.quota(7, 6, lease_ms=31_536_000_00, ar=(50, 50))
    script.quota(7, 6, ar=(107, 50))
    script.quota(7, 6, **{f"s{i}": (1, 1) for i in range(4_000)})
    script.say(b"\xff" * 100)
    script.say(b"")
    script.say(b"two", b"frames")
    script.quota(7, 5, ar=(50, 50))
    again = script.hear("applied")
    assert again == applied, "a repetition is acknowledged as it was"
    until(lambda: gnb.counter("repeated_sequence"), "the count of it all")
    names = ("old_sequence", "wrong_session", "refused_quotas", "malformed", "quotas")
    assert [gnb.counter(n) for n in names] == [1, 1, 4, 3, 1]
    assert gnb.quota() == QUOTA

    # A report without a live session: the controller asks for a Hello and gets one; the quota lives on.
    script.say(hello_request=ran_pb2.HelloRequest(reason="no session"))
    script.welcome(9)
    until(lambda: script.hear("mac_report").session == 9, "reports of the new session")
    assert gnb.quota() == QUOTA
    script.say(release=ran_pb2.Release(session=9, sequence=1))
    released = script.hear("applied")
    assert released.sequence == 1 and not released.lapsed and not released.in_force


def test_a_flood_of_nonsense_delays_but_does_not_stop(gnb: Gnb, script: ScriptedController) -> None:
    gnb.start(script.address)
    script.welcome(7)
    assert script.hear("mac_report")
    for i in range(20_000):
        script.say(i.to_bytes(8, "big"))
        if i % 64 == 0:
            time.sleep(0.001)
    script.quota(7, 1, lease_ms=1000, ar=QUOTA)
    applied = script.hear("applied")
    assert applied.sequence == 1 and applied.in_force
    lapsed = script.hear("applied")
    assert lapsed.sequence == 1 and lapsed.lapsed and not lapsed.in_force
    assert {u.slice for u in lapsed.use} >= {"ar"}
    until(lambda: gnb.counter("leases_lapsed"), "the count of the lapse")
    assert gnb.counter("malformed") > 10_000 and len(gnb.log()) < 20_000


# ---- another program in the controller's place ----------------------------------------------------------


def test_after_another_program_in_the_controllers_place_the_agent_joins(tmp_path: Path) -> None:
    """libzmq gives a CURVE session up for good. The emulated gNB's part stands in its own tests."""
    build_agent()
    key_folder = tmp_path / "keys"
    keys.create(key_folder, cells=["cell-1"])
    gnbs: dict[str, Gnb] = {}
    with ExitStack() as stack:
        strangers = {name: stack.enter_context(Stranger(name)) for name in STRANGERS}
        for name, stranger in strangers.items():
            (tmp_path / name).mkdir()
            gnbs[name] = ToyGnb(tmp_path / name)
            gnbs[name].start(stranger.address, key_folder)
            stack.callback(gnbs[name].close)
        for stranger in strangers.values():
            stranger.fail_handshake()
            stranger.close()
        for name, stranger in strangers.items():
            right = ScriptedController(stranger.address, curve_server(key_folder))
            stack.callback(right.close)
            right.welcome(7)
            assert right.hear("mac_report").session == 7, f"after {name}: {gnbs[name].log()}"
        assert "connecting anew: is it there, is its key" in gnbs["wrong-key"].log()
