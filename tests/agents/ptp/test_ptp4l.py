"""The agent at a real ptp4l pair: what it reads, what the controller makes of it, what the report shows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.links.qos import QosPublisher
from agents.ptp.client import PtpClient, PtpError, PtpReading
from agents.ptp.messages import identity
from agents.ptp.service import PtpAgent
from agents.ptp.watch import Status, Watch
from controller.core.collector import SlotCollector
from controller.links.codec import ClockReport, FrameBatch
from controller.links.qos import FlowBegin, QosIngest, QosQueue
from controller.loop import ControlLoop
from controller.store import report
from controller.store.run import RunStore
from controller.store.summary import Summary
from tests.agents.ptp.linuxptp import Pair, needs_linuxptp, wait_for
from tests.builders import loop_spec
from wire import qos_pb2
from wire.security import SERVER_OPTIONS, grpc_server_add

pytestmark = [needs_linuxptp, pytest.mark.slow]

MS = 1_000_000
# A Sync that a busy machine holds up for some ten ms is no offset beyond the bound; the delay's half is.
BOUND_NS = 40 * MS
DELAY_S = 0.3
SLOT_S = 1.5
PATIENCE_S = 20.0
DATA_SETS = ("CURRENT_DATA_SET", "PARENT_DATA_SET", "PORT_DATA_SET", "TIME_STATUS_NP")
FIELDS = {"offsetFromMaster", "gm.ClockClass", "portState", "ingress_time"}  # one of each


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as last:
        made = Pair(tmp_path)
        last.callback(made.close)
        yield made


def try_read(client: PtpClient) -> PtpReading | None:
    try:
        return client.read()
    except PtpError:
        return None


def test_the_agent_and_linuxptps_own_client_read_the_same(pair: Pair, tmp_path: Path) -> None:
    seldom = ("logSyncInterval 1", "logMinDelayReqInterval 1")
    pair.ptp4l("master", "priority1 10", *seldom)
    pair.ptp4l("client", "slaveOnly 1", "free_running 1", *seldom)
    with ExitStack() as last:
        clients = {}
        for side in ("master", "client"):
            clients[side] = PtpClient([pair.socket(side)], timeout_s=PATIENCE_S, reply_dir=tmp_path)
            last.callback(clients[side].close)

        def following() -> bool:
            got = try_read(clients["client"])
            return bool(got and got.ingress_ns and got.path_delay_ns)

        wait_for("Syncs at the client", following)
        for side in ("master", "client"):
            for _ in range(200):
                before = clients[side].read()
                theirs = pair.pmc(side, *DATA_SETS)
                ours = clients[side].read()
                # Only what was read between two Syncs can be compared; pmc waits no longer than it likes.
                if before == ours and set(theirs) >= FIELDS:
                    break
            else:
                pytest.fail("no moment without a Sync")
            assert float(theirs["offsetFromMaster"]) == pytest.approx(ours.offset_ns, abs=0.1)
            assert float(theirs["meanPathDelay"]) == pytest.approx(ours.path_delay_ns, abs=0.1)
            assert int(theirs["stepsRemoved"]) == ours.steps_removed
            assert theirs["grandmasterIdentity"] == identity(ours.grandmaster)
            assert int(theirs["gm.ClockClass"]) == ours.grandmaster_class
            assert theirs["portState"] == ours.state
            assert int(theirs["logSyncInterval"]) == ours.log_sync_interval
            assert int(theirs["ingress_time"]) == ours.ingress_ns
        master, client = clients["master"].read(), clients["client"].read()
        assert (master.state, master.is_grandmaster, master.steps_removed) == ("MASTER", True, 0)
        assert client.grandmaster == master.clock != client.clock and client.steps_removed == 1
        # A clock that ptp4l measures and does not steer is not synchronised, and linuxptp says so.
        assert client.state == "UNCALIBRATED" and not Watch().update(client, 0.0).synchronised


def test_a_master_with_few_syncs_is_followed_and_a_dead_one_not_named(pair: Pair, tmp_path: Path) -> None:
    """ptp4l tells the interval of its own configuration (1/8 s here), and the master that it has lost."""
    pair.ptp4l("master", "priority1 10", "logSyncInterval 1")
    pair.ptp4l("client", "slaveOnly 1", "announceReceiptTimeout 12")
    client = PtpClient([pair.socket("client")], timeout_s=PATIENCE_S, reply_dir=tmp_path)
    watch = Watch(silence_s=1.0)
    told: list[tuple[PtpReading, Status]] = []

    def look() -> bool:
        if reading := try_read(client):
            told.append((reading, watch.update(reading, time.monotonic())))
        return bool(reading)

    def three_syncs() -> bool:
        look()
        return len({reading.ingress_ns for reading, _ in told if reading.state == "SLAVE"}) >= 3

    wait_for("Syncs at the client", three_syncs)
    told.clear()
    wait_for("more Syncs", three_syncs)
    assert not [status.reason for reading, status in told if reading.ingress_ns and status.reason]
    pair.kill("master")
    wait_for("its death is seen", lambda: look() and told[-1][0].state == "LISTENING")
    assert told[-1][1].grandmaster == ""
    client.close()


@pytest.mark.parametrize("settings", [("domainNumber 24",), ("domainNumber 3", "transportSpecific 0x1")])
def test_a_ptp4l_in_another_domain_is_no_missing_clock(
    pair: Pair, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    pair.ptp4l("master", "priority1 10", *settings)
    with ExitStack() as last:
        found = PtpClient([pair.socket("master")], reply_dir=tmp_path)
        told = PtpClient([pair.socket("master")], domain=7, reply_dir=tmp_path)
        last.callback(found.close)
        last.callback(told.close)
        wait_for("an answer", lambda: try_read(found))
        domain = int(settings[0].split()[1])
        assert (found.domain, found.transport_specific) == (domain, len(settings) - 1)

        def named() -> bool:
            try:
                told.read()
            except PtpError as error:
                return f"ptp4l is in domain {domain}, not 7: --domain {domain}" in str(error)
            return False

        wait_for("the remedy", named)


def linuxptp_version() -> int:
    """The first number of it; 0 where there is none."""
    if shutil.which("ptp4l") is None:
        return 0
    done = subprocess.run(["ptp4l", "-v"], capture_output=True, text=True)
    return int(done.stdout.strip().split(".")[0])


READ_ONLY = """
import sys
from pathlib import Path
from agents.ptp.client import PtpClient

client = PtpClient([Path(sys.argv[1])], timeout_s=20, reply_dir=Path(sys.argv[2]))
print(client.read().state)
client.close()
"""


@pytest.mark.skipif(linuxptp_version() < 4, reason="before linuxptp 4.0 there is no read-only socket")
def test_from_linuxptp_4_anybody_may_read(pair: Pair) -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody, nobody)
        both = {"read-only": Path(folder) / "ptp4lro", "full": pair.socket("master")}
        pair.ptp4l("master", f"uds_ro_address {both['read-only']}")
        wait_for("ptp4l", both["read-only"].exists)
        for name, path in both.items():
            done = subprocess.run(
                [
                    *("setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"),
                    *(sys.executable, "-c", READ_ONLY, str(path), folder),
                ],
                capture_output=True,
                text=True,
                timeout=60,
            )
            if name == "full":
                assert done.returncode != 0 and "Permission denied" in done.stderr, done.stderr
            else:
                assert done.stdout.strip() in ("LISTENING", "MASTER"), done.stderr


class Controller:
    """The controller's parts as the daemon joins them, one control slot after the other."""

    def __init__(self, folder: Path) -> None:
        self.queue = QosQueue()
        self.ingest = QosIngest(self.queue.put, clock_bound_ns=BOUND_NS, clock_stale_s=3.0)
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=SERVER_OPTIONS)
        self.ingest.add_to(self.server)
        self.address = f"127.0.0.1:{grpc_server_add(self.server, '127.0.0.1:0', None)}"
        self.server.start()
        self.collector = SlotCollector(["ar"])
        self.loop = ControlLoop(loop_spec())
        self.store = RunStore.create(folder, config="")
        self.start = self.store.record_start(
            time.time_ns(), "cell-1", self.loop.spec.to_dict(), self.loop.to_state()
        )
        self.opened_ns = time.time_ns()

    def slot(self) -> dict[str, Any]:
        """One control slot from now on: its ``closed`` and the ``clocks`` of it."""
        self._close()
        time.sleep(SLOT_S)
        record = self._close()
        return {**record["slices"]["ar"]["closed"], "clocks": record.get("clocks", {})}

    def _close(self) -> dict[str, Any]:
        for _, item in self.queue.take():
            match item:
                case FrameBatch():
                    self.collector.frames(
                        item.flow, item.columns, item.synchronised, item.received_ns, item.fault
                    )
                case FlowBegin():
                    self.collector.flow_start(item.flow)
                case ClockReport():
                    self.collector.clock(item)
        now = time.time_ns()
        observation = self.collector.close(
            control_slot=self.loop.control_slot, opened_ns=self.opened_ns, closed_ns=now
        )
        self.opened_ns = now
        record = self.loop.step(observation).to_record()
        self.store.record_slot(self.start, observation, record, self.loop.to_state())
        return record

    def close(self) -> None:
        self.server.stop(0).wait()
        self.store.close()


class Frames:
    """A flow of the host ue-1: twenty frames a second that came back 30 ms after they were sent."""

    def __init__(self, address: str) -> None:
        self._publisher = QosPublisher(address, None, cell_id="cell-1", host="ue-1")
        self._publisher.start()
        start = qos_pb2.FlowStart(
            flow="f", ue_id="ue-1", slice="ar", ul_bps=3e6, dl_bps=1e6, time_ns=time.time_ns()
        )
        self._publisher.put(qos_pb2.QosMessage(flow_start=start))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sequence = 0
        while not self._stop.wait(0.05):
            sequence += 1
            back = time.time_ns()
            frame = qos_pb2.Frame(
                sequence=sequence,
                ue_sent_ns=back - 30 * MS,
                edge_received_ns=back - 20 * MS,
                edge_sent_ns=back - 12 * MS,
                ue_received_ns=back,
            )
            self._publisher.put(qos_pb2.QosMessage(frames=qos_pb2.FrameBatch(flow="f", frames=[frame])))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._publisher.close()


def test_frames_count_for_the_round_trip_alone_while_the_clocks_do_not_agree(
    pair: Pair, tmp_path: Path
) -> None:
    with ExitStack() as last:
        controller = Controller(tmp_path / "run")
        last.callback(controller.close)
        agents = {}
        for side, host in (("client", "ue-1"), ("master", "edge")):
            agent = agents[side] = PtpAgent(
                host=host,
                cells=["cell-1"],
                address=controller.address,
                sockets=[pair.socket(side)],
                reply_dir=tmp_path,
                grandmaster=side == "master",
                interval_s=0.1,
                silence_s=2.0,
            )
            last.callback(agent.close)
            stop = threading.Event()
            thread = threading.Thread(target=agent.run, args=(stop,), daemon=True)
            thread.start()
            last.callback(lambda s=stop, t=thread: (s.set(), t.join()))
        flow = Frames(controller.address)
        last.callback(flow.close)

        def clocks_agree() -> bool:
            told = [agent.status for agent in agents.values()]
            return all(s.synchronised and abs(s.offset_ns) < BOUND_NS for s in told)

        def slot_like(why: str, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
            """The first control slot that fits; a busy machine may spoil some."""
            seen: list[dict[str, Any]] = []

            def found() -> bool:
                seen.append(controller.slot())
                return bool(seen[-1]["measures"]["round_trip"]["samples"] and fits(seen[-1]))

            wait_for(why, found)
            return seen[-1]

        def q(got: dict[str, Any]) -> list[int | None]:
            return [got["measures"][leg]["met"] for leg in ("ul", "edge", "dl", "round_trip")]

        def all_is_well(why: str) -> None:
            wait_for(why, clocks_agree)
            got = slot_like(why, lambda slot: not slot["counts"]["unsynchronised_frames"])
            assert q(got) == [1, 1, 1, 1], (why, got)
            assert "faults" not in got
            assert got["measures"]["ul"]["users"]["f"][0] == pytest.approx(10.0)

        def round_trip_alone(
            why: str,
            *reasons: str,
            and_so: Callable[[dict[str, Any]], bool] = lambda slot: True,
            **states: str,
        ) -> dict[str, Any]:
            """All frames of a slot, for these reasons, with the ports (``ue``, ``edge``) in these states."""
            expected = {host.replace("ue", "ue-1"): state for host, state in states.items()}

            def fits(slot: dict[str, Any]) -> bool:
                told = slot.get("faults", {})
                reached = {host: slot["clocks"].get(host, {}).get("state") for host in expected}
                all_of_them = sum(told.values()) == slot["measures"]["round_trip"]["samples"]
                return set(told) <= set(reasons) and all_of_them and reached == expected and and_so(slot)

            got = slot_like(why, fits)
            assert got["counts"]["unsynchronised_frames"] == got["measures"]["round_trip"]["samples"]
            assert q(got) == [None, None, None, 1], (why, got)
            assert got["measures"]["round_trip"]["users"]["f"][0] == pytest.approx(30.0)
            return got

        # ptp4l is not there yet.
        neither = ("edge: PTP state NONE", "ue-1: PTP state NONE")
        round_trip_alone("no ptp4l", *neither, ue="NONE", edge="NONE")

        pair.ptp4l("master", "priority1 10")
        pair.ptp4l("client", "slaveOnly 1")
        all_is_well("both follow the master")

        pair.delay(DELAY_S)
        beyond = "ue-1: offset beyond the bound"

        def half_of_it(slot: dict[str, Any]) -> bool:
            offset_ns = slot["clocks"]["ue-1"]["offset_ns"]
            return offset_ns is not None and DELAY_S / 4 < offset_ns / 1e9 < 1.5 * DELAY_S

        got = round_trip_alone("an asymmetric path", beyond, and_so=half_of_it, ue="SLAVE", edge="MASTER")
        assert not got["clocks"]["edge"]["fault"]
        pair.delay(0.0)
        all_is_well("the path is as it was")

        pair.signal("master", signal.SIGSTOP)
        hung = ("edge: PTP state NONE", "ue-1: PTP state LISTENING", "ue-1: PTP state NONE")
        round_trip_alone("the master hangs", *hung, ue="LISTENING", edge="NONE")
        pair.signal("master", signal.SIGCONT)
        all_is_well("the master goes on")

        pair.kill("master")
        got = round_trip_alone("the master is gone", *hung, ue="LISTENING", edge="NONE")
        assert got["clocks"]["edge"]["offset_ns"] is None
        pair.ptp4l("master", "priority1 10")
        all_is_well("the master is back")

    with RunStore.open(tmp_path / "run") as run:
        summary = Summary()
        for record in run.decisions():
            summary.add(record)
    told = summary.result()["cells"]["cell-1"]
    assert told["clocks"]["ue-1"]["worst_offset_ns"] > DELAY_S / 4 * 1e9
    assert told["clocks"]["edge"]["faults"]
    ar = told["slices"]["ar"]
    assert 0 < sum(ar["unsynchronised"].values()) == ar["unsynchronised_frames"] < ar["frames"]
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    page, result = report.build(tmp_path / "run")
    assert result["cells"]["cell-1"]["slices"]["ar"]["unsynchronised"] == ar["unsynchronised"]
    assert "ue-1: offset beyond the bound" in page.read_text()
