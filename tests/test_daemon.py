"""The daemon in this process, with a gNB of the test's own on the real link: what a bad peer does to it."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import zmq

from agents.links.qos import QosPublisher
from controller import config
from controller.cli.ports import free_port
from controller.core import collector
from controller.core.spec import LoopSpec
from controller.daemon import Daemon, _Live
from controller.loop import ControlLoop
from controller.store.lock import Locked
from controller.store.run import RunStore
from tests.e2e.harness import until
from wire import PROTOCOL_VERSION, qos_pb2, qos_pb2_grpc, ran_pb2
from wire.definitions.bounds import MAX_CELL_FLOWS

CONFIG = """
control: {control_slot_s: 0.2, guard_ms: 0.0}
cells:
  - id: cell-1
    slices:
      - id: ar
        policy: mucb1
        ues: [ue-1]
        actions: {ul_prb: [10, 20, 30, 60, 100], dl_prb: [10, 20, 30, 60, 100]}
"""


class Gnb:
    """A gNB that says what the test wants it to say, and acknowledges quotas."""

    def __init__(self, address: str) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)
        self.session = 0
        self.sequence = 0
        self.quotas: dict[str, tuple[int, int]] | None = None
        self.acknowledges = True
        self.uses: Callable[[int, int], int] = min  # of quota and carrier
        self._before: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Gnb:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self, prb: int = 106, min_prb: int = 5, cell_id: str = "cell-1") -> None:
        tdd = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=4, ul_symbols=6, ul_slots=3)
        self.send(
            hello=ran_pb2.Hello(
                protocol_version=PROTOCOL_VERSION,
                cell_id=cell_id,
                prb=prb,
                scs_khz=30,
                tdd=tdd,
                min_prb=min_prb,
            )
        )
        until(lambda: self.pump() or self.session, "a Welcome")

    def send(self, **body: Any) -> None:
        self.socket.send(ran_pb2.GnbMessage(**body).SerializeToString())

    def report(self, mcs: int = 18, ue_id: str = "ue-1") -> None:
        self.sequence += 1
        state = ran_pb2.DirectionState(mcs=mcs, mcs_table=1, layers=1)
        ue = ran_pb2.UeState(rnti=1, ue_id=ue_id, slice="ar", ul=state, dl=state, cqi=15, snr_db=20.0)
        self.send(
            mac_report=ran_pb2.MacReport(
                session=self.session, sequence=self.sequence, time_ns=time.time_ns(), ues=[ue]
            )
        )

    def pump(self) -> None:
        """Take what the controller sent; acknowledge quotas."""
        while self.socket.poll(0):
            message = ran_pb2.ControllerMessage.FromString(self.socket.recv())
            if message.HasField("welcome"):
                self.session = message.welcome.session
            elif message.HasField("set_quota") or message.HasField("release"):
                body = message.set_quota if message.HasField("set_quota") else message.release
                quotas = list(message.set_quota.quotas)
                self.lease_ms = message.set_quota.lease_ms
                self.quotas = {q.slice: (q.ul_prb, q.dl_prb) for q in quotas}
                if not self.acknowledges:
                    continue
                use = [
                    ran_pb2.SliceUse(slice=s, direction=d, max_new_prb=self.uses(prb, 106))
                    for s, quota in self._before.items()
                    for d, prb in zip((ran_pb2.UL, ran_pb2.DL), quota, strict=True)
                ]
                self._before = self.quotas
                self.send(
                    applied=ran_pb2.Applied(
                        session=self.session,
                        sequence=body.sequence,
                        time_ns=time.time_ns(),
                        in_force=quotas,
                        use=use,
                    )
                )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[Daemon, Gnb]]]:
    stop = threading.Event()
    threads: list[threading.Thread] = []
    gnbs: list[Gnb] = []

    def start(run_dir: Path | None = None, **overrides: Any) -> tuple[Daemon, Gnb]:
        address = f"tcp://127.0.0.1:{free_port()}"
        file = tmp_path / "c.yaml"
        file.write_text(CONFIG)
        fixed = {
            "links.ran.address": address,
            "links.edge.address": None,
            "links.qos.address": f"127.0.0.1:{free_port()}",
            "links.operator.address": None,
            "links.metrics.address": None,
            "links.page.address": None,
            **overrides,
        }
        daemon = Daemon(config.load(file, fixed), config_path=file, overrides=fixed, run_dir=run_dir)
        threads.append(threading.Thread(target=daemon.run, args=(stop,)))
        threads[-1].start()
        gnbs.append(Gnb(address))
        return daemon, gnbs[-1]

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for gnb in gnbs:
        gnb.socket.close()


def slots(daemon: Daemon) -> int:
    return daemon.state().cells[0].control_slots


def flow_start(slice_: str = "ar", flow: str = "f") -> qos_pb2.QosMessage:
    start = qos_pb2.FlowStart(
        flow=flow, ue_id="ue-1", slice=slice_, ul_bps=1e6, dl_bps=1e6, time_ns=time.time_ns()
    )
    return qos_pb2.QosMessage(flow_start=start)


def publish(daemon: Daemon, *messages: qos_pb2.QosMessage) -> list[qos_pb2.QosNotice]:
    """What a host's stream of ``messages`` is answered with; the stream ends after them."""
    hello = qos_pb2.QosHello(protocol_version=PROTOCOL_VERSION, host="h", cell_id="cell-1")
    address = daemon.config.links.qos.address
    assert address is not None
    with grpc.insecure_channel(address) as channel:
        stream = iter([qos_pb2.QosMessage(hello=hello), *messages])
        return list(qos_pb2_grpc.QosIngestStub(channel).Publish(stream, timeout=30))


def test_one_flow_too_many_is_refused_at_the_first_by_name_and_there_alone(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, _ = run(**{"control.control_slot_s": 5.0})
    starts = [flow_start(flow=f"f{i}") for i in range(MAX_CELL_FLOWS + 2)]
    stop = qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow="f7", time_ns=time.time_ns()))
    notices = publish(daemon, *starts, stop, flow_start(flow="later"), flow_start(flow="last"))
    reasons = [notice.reason for notice in notices[1:]]
    assert reasons == [
        f"FlowStart of flow '{name}': more than {MAX_CELL_FLOWS} flows are active in cell 'cell-1'"
        for name in (f"f{MAX_CELL_FLOWS}", f"f{MAX_CELL_FLOWS + 1}", "last")
    ]
    collector = daemon._cells["cell-1"].cell._collector
    until(lambda: "later" in collector._flows, "the last flow that was taken")
    assert daemon.state().cells[0].active_flows == MAX_CELL_FLOWS
    # While the host may come back its flows keep their place.
    assert publish(daemon, flow_start(flow="other"))[1].reason.startswith("FlowStart of flow 'other'")
    assert daemon.counters.get("qos_refused_total") == 4


def closed(daemon: Daemon) -> tuple[dict[str, Any], dict[str, Any]]:
    """The QoS of the last control slot that is over, and all of its slice's record."""
    record = daemon.state().cells[0].last
    assert record is not None
    return record["slices"]["ar"]["closed"], record["slices"]["ar"]


def updates(daemon: Daemon) -> int:
    """How many times the policies of the uplink have learned."""
    loop = daemon._cells["cell-1"].cell.loop
    assert loop is not None
    return sum(p["t"] for _, p in loop.to_state()["slices"]["ar"]["allocator"]["hops"]["ul"])


def reasons(daemon: Daemon, gnb: Gnb, expected: set[str]) -> None:
    """Why the radio hops are not learned from becomes ``expected``, and stays."""

    def seen() -> set[str]:
        gnb.pump()
        gnb.report()
        return {r for hop, r in closed(daemon)[0]["unattributed"].items() if hop != "edge"}

    until(lambda: seen() == expected, f"reasons {expected}")
    at = slots(daemon)
    until(lambda: seen() == expected and slots(daemon) > at + 1, f"reasons {expected} again")


def goes_on(daemon: Daemon, gnb: Gnb) -> None:
    """Three more control slots are decided."""
    target = slots(daemon) + 3
    until(lambda: gnb.pump() or gnb.report() or slots(daemon) >= target, "three more control slots")


def test_an_impossible_report_is_counted_and_the_loop_goes_on(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    for _ in range(20):  # through several control slots, whichever report is the one that is opened
        gnb.report(mcs=31)
        time.sleep(0.03)
    assert until(lambda: daemon.counters.get("ran_bad_ue_total", "cell-1"), "the counter")
    goes_on(daemon, gnb)


def test_garbage_is_counted_and_the_loop_goes_on(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, gnb = run()
    gnb.hello()
    for garbage in (b"", b"\xff" * 100, ran_pb2.GnbMessage().SerializeToString(), b"\x12\x05\x08"):
        gnb.socket.send(garbage)
    until(lambda: daemon.counters.get("ran_malformed_total", "cell-1") == 4, "four malformed messages")
    goes_on(daemon, gnb)


def test_a_core_that_fails_lets_the_quota_expire_and_recovers(
    run: Callable[..., tuple[Daemon, Gnb]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    before = slots(daemon)
    with monkeypatch.context() as broken:
        broken.setattr(ControlLoop, "step", lambda _loop, _observation: 1 / 0)
        daemon.commands.switch_policy("cell-1", "ar", "aimd")
        until(lambda: gnb.pump() or daemon.counters.get("step_failed_total", "cell-1") >= 3, "failures")
        until(
            lambda: gnb.pump() or daemon.counters.get("ran_quota_expired_total", "cell-1"),
            "the end of the renewals",
            10,
        )
        assert before <= slots(daemon) <= before + 2
    goes_on(daemon, gnb)
    # The operator's command was not lost with the steps that failed.
    assert closed(daemon)[1]["choices"][0]["method"] == "aimd"


def test_a_carrier_that_the_configuration_does_not_fit_is_not_controlled(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, gnb = run()
    gnb.hello(prb=51)
    until(lambda: daemon.counters.get("config_refused_total", "cell-1"), "the refusal")
    for _ in range(10):
        gnb.report()
        gnb.pump()
        time.sleep(0.05)
    assert not gnb.quotas and slots(daemon) == 0
    state = daemon.state().cells[0]
    assert state.connected
    assert "actions.ul_prb: ul_prb 100 is above 51, all that there is" in state.not_controlled


def test_actions_below_the_smallest_grant_of_the_gnb_are_refused_by_name(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, gnb = run()
    gnb.hello(min_prb=11)
    until(lambda: daemon.counters.get("config_refused_total", "cell-1"), "the refusal")
    why = daemon.state().cells[0].not_controlled
    assert "actions.ul_prb: ul_prb 10 is below 11, the smallest grant of the gNB" in why


def test_a_gnb_that_acknowledges_and_does_not_report_is_lost_and_is_given_no_quotas(
    run: Callable[..., tuple[Daemon, Gnb]], caplog: pytest.LogCaptureFixture
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    until(lambda: gnb.pump() or not daemon.state().cells[0].connected, "its loss")
    assert any("cell_lost: no MAC report for 2." in r.getMessage() for r in caplog.records)
    before, gnb.session, gnb.quotas = slots(daemon), 0, None
    gnb.hello()
    for _ in range(20):
        gnb.pump()
        time.sleep(0.05)
    state = daemon.state().cells[0]
    assert slots(daemon) == before and gnb.quotas is None and state.connected
    assert state.report_age_s is None
    goes_on(daemon, gnb)
    assert daemon.state().cells[0].report_age_s < 1.0


def test_a_flow_of_an_unknown_slice_is_refused_by_name(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, gnb = run()
    gnb.hello()
    notices = publish(daemon, flow_start("nosuch"))
    assert [n.kind for n in notices] == [qos_pb2.ACCEPTED, qos_pb2.REFUSED]
    assert "unknown slice 'nosuch'" in notices[1].reason
    goes_on(daemon, gnb)


def test_flows_whose_host_is_gone_end(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, gnb = run()
    gnb.hello()
    publish(daemon, flow_start())
    until(lambda: daemon.state().cells[0].active_flows == 1, "the flow")
    until(lambda: gnb.pump() or gnb.report() or daemon.state().cells[0].active_flows == 0, "its end")


def test_a_host_that_stops_its_flows_has_left_and_one_that_does_not_is_lost(
    run: Callable[..., tuple[Daemon, Gnb]], caplog: pytest.LogCaptureFixture
) -> None:
    daemon, _ = run()
    stop = qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow="f", time_ns=time.time_ns()))
    caplog.set_level(logging.INFO, "prbandit.controller")

    def told() -> list[tuple[int, str]]:
        return [(r.levelno, r.getMessage()) for r in caplog.records if "the QoS stream" in r.getMessage()]

    publish(daemon, flow_start(), stop)
    until(lambda: told(), "word of its end")
    publish(daemon, flow_start())
    until(lambda: len(told()) == 2, "word of its loss")
    publish(daemon)  # as a PTP agent, that has no flows
    until(lambda: len(told()) == 3, "word of its loss")
    assert told() == [
        (logging.INFO, "cell cell-1: host_left: the QoS stream of h ended"),
        (logging.WARNING, "cell cell-1: host_lost: the QoS stream of h ended in the middle of f"),
        (logging.WARNING, "cell cell-1: host_lost: the QoS stream of h ended"),
    ]


def test_a_client_that_ends_does_not_end_the_flows_of_its_neighbour(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    """Two clients of one host, as where PTP's name of the host is theirs."""
    daemon, gnb = run()
    gnb.hello()
    over = threading.Event()

    def stays() -> Iterator[qos_pb2.QosMessage]:
        hello = qos_pb2.QosHello(protocol_version=PROTOCOL_VERSION, host="h", cell_id="cell-1")
        yield qos_pb2.QosMessage(hello=hello)
        yield flow_start()
        over.wait(30)

    assert daemon.config.links.qos.address
    with grpc.insecure_channel(daemon.config.links.qos.address) as channel:
        call = qos_pb2_grpc.QosIngestStub(channel).Publish(stays(), timeout=30)
        until(lambda: daemon.state().cells[0].active_flows == 1, "the one that stays")
        publish(daemon, flow_start(flow="g"))
        until(lambda: daemon.state().cells[0].active_flows == 2, "the one that ends")
        until(lambda: gnb.pump() or gnb.report() or daemon.state().cells[0].active_flows == 1, "its end")
        assert list(daemon._cells["cell-1"].cell.reported_flows) == ["f"]
        over.set()
        assert [n.kind for n in call] == [qos_pb2.ACCEPTED]


def test_frames_that_a_full_collector_drops_are_counted(
    run: Callable[..., tuple[Daemon, Gnb]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "MAX_FRAMES", 1)
    daemon, _ = run(**{"control.control_slot_s": 60.0})
    now = time.time_ns()
    batches = [
        qos_pb2.FrameBatch(flow="f", frames=[qos_pb2.Frame(sequence=i, ue_sent_ns=now)]) for i in range(3)
    ]
    publish(daemon, flow_start(), *(qos_pb2.QosMessage(frames=b) for b in batches))
    until(lambda: daemon.counters.get("qos_frames_dropped_total", "cell-1") == 2, "two dropped frames")


def test_a_bad_reload_changes_nothing_and_a_good_one_keeps_what_was_learned(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    before = daemon.config
    file = tmp_path / "c.yaml"
    file.write_text("controll: {}\n")
    with pytest.raises(ValueError, match=r"stays as it was:\n.*c\.yaml:1: controll: unknown key"):
        daemon.commands.reload()
    file.write_text(CONFIG.replace("cell-1", "cell-2"))
    with pytest.raises(ValueError, match="cells can change at a restart alone"):
        daemon.commands.reload()
    assert daemon.config is before
    file.write_text(CONFIG.replace("0.2", "0.3"))
    with pytest.raises(ValueError, match=r"control\.control_slot_s can change at a restart alone"):
        daemon.commands.reload()
    file.write_text(CONFIG.replace("policy: mucb1", "policy: static\n        policy_options: {action: 30}"))
    with pytest.raises(ValueError, match="action"):
        daemon.commands.reload()
    assert daemon.config is before
    goes_on(daemon, gnb)
    file.write_text(f"{CONFIG}\n".replace("control: {", "control: {rescue: off, "))
    daemon.commands.reload()
    assert daemon.config.control.rescue is None
    # Other budgets leave the actions as they were: the slice goes on learning.
    file.write_text(CONFIG.replace("ues:", "budgets: {ul_ms: 90.0}\n        ues:"))
    learned = updates(daemon)
    assert learned > 0 and "cell-1" in daemon.commands.reload()
    assert updates(daemon) >= learned
    goes_on(daemon, gnb)
    loop = daemon._cells["cell-1"].cell.loop
    assert loop is not None and loop.to_state()["slices"]["ar"]["set"]["budgets"]["ul_ms"] == 90.0
    goes_on(daemon, gnb)


def test_a_signal_reloads_and_what_was_wrong_stands_in_the_state(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    good = daemon.state().config_hash
    file = tmp_path / "c.yaml"
    file.write_text("controll: {}\n")
    daemon.reload()
    until(lambda: gnb.pump() or daemon.state().reload_error, "the refusal")
    assert "c.yaml:1: controll: unknown key" in daemon.state().reload_error
    assert daemon.counters.get("config_refused_total") == 1 and daemon.state().config_hash == good
    goes_on(daemon, gnb)
    file.write_text(CONFIG.replace("ues:", "budgets: {ul_ms: 90.0}\n        ues:"))
    daemon.reload()
    until(lambda: gnb.pump() or not daemon.state().reload_error, "the reload")
    assert daemon.state().config_hash != good
    goes_on(daemon, gnb)


def test_a_flood_of_signals_reads_the_configuration_one_time_after_the_other(
    run: Callable[..., tuple[Daemon, Gnb]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = run()
    begun: list[int] = []
    go_on = threading.Event()

    def slow() -> str:
        begun.append(sum(thread.name == "reload" for thread in threading.enumerate()))
        go_on.wait(10)
        return "reloaded"

    monkeypatch.setattr(daemon.commands, "read_again", slow)
    for _ in range(10):
        daemon.reload()
        time.sleep(0.1)
    assert begun == [1]
    go_on.set()
    until(lambda: len(begun) == 2, "the one after it")
    time.sleep(0.3)
    assert begun == [1, 1]


def test_a_lease_that_is_set_goes_out_at_once_and_a_reload_keeps_it(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    assert daemon.state().lease_s == 3.0
    assert daemon.commands.set_lease(1.5) == "lease 1.5 s"
    until(lambda: gnb.pump() or gnb.lease_ms == 1500, "the lease at the gNB")
    until(lambda: gnb.pump() or 0 < (daemon.state().cells[0].lease_left_s or 0) <= 1.5, "it counts here")
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.replace("ues:", "budgets: {ul_ms: 90.0}\n        ues:"))
    daemon.commands.reload()
    assert daemon.state().lease_s == 1.5
    goes_on(daemon, gnb)


def test_an_operator_ends_the_daemon_and_everything_is_released(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, gnb = run(tmp_path / "run")
    gnb.hello()
    goes_on(daemon, gnb)
    assert "ends" in daemon.commands.shut_down()
    until(lambda: gnb.pump() or not gnb.quotas, "the release")


def test_the_state_has_the_slices_and_the_rates_of_the_ues(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, gnb = run()
    before = daemon.state().cells[0].slices
    assert [(s.slice, s.service, s.options["policy"]) for s in before] == [("ar", "ar", "mucb1")]
    gnb.hello()
    goes_on(daemon, gnb)
    daemon.commands.switch_policy("", "", "aimd", "edge")
    goes_on(daemon, gnb)
    until(lambda: gnb.pump() or gnb.report() or daemon.state().cells[0].rates, "rates")
    cell = daemon.state().cells[0]
    # This gNB counts neither bytes nor PRBs.
    assert set(cell.rates) == {"ue-1"} and cell.rates["ue-1"].ul.throughput_bps == 0.0
    (now,) = cell.slices
    assert now.options["hop_policies"]["edge"]["policy"] == "aimd" and now.hops == ("ul", "edge", "dl")
    assert 0 <= now.explored <= 1 and cell.savings.control_s > 0 and cell.savings.bs > 0


def test_a_reload_repairs_a_cell_that_was_not_controlled_and_its_learning_is_kept(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    learned = updates(daemon)
    gnb.session = 0
    gnb.hello(prb=51)  # the actions do not fit this carrier
    until(lambda: daemon.counters.get("config_refused_total", "cell-1"), "the refusal")
    gnb.report()
    (tmp_path / "c.yaml").write_text(CONFIG.replace(", 30, 60, 100", ""))
    daemon.commands.reload()
    goes_on(daemon, gnb)
    (tmp_path / "c.yaml").write_text(CONFIG)
    gnb.session = 0
    gnb.hello()
    assert learned > 0


def test_what_the_gnb_did_with_a_quota_decides_what_is_learned(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    reasons(daemon, gnb, set())
    gnb.acknowledges = False
    reasons(daemon, gnb, {"not acknowledged"})
    gnb.acknowledges = True
    reasons(daemon, gnb, set())
    gnb.uses = max
    reasons(daemon, gnb, {"quota not honoured"})
    gnb.uses = min
    reasons(daemon, gnb, set())


def test_a_quota_not_kept_is_held_against_its_own_control_slot(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, gnb = run(**{"control.control_slot_s": 0.5})
    gnb.hello()
    goes_on(daemon, gnb)
    reasons(daemon, gnb, set())
    guilty = slots(daemon)  # the control slot in progress
    gnb.uses = max
    until(lambda: gnb.pump() or gnb.report() or slots(daemon) > guilty, "the end of the slot")
    gnb.uses = min
    found = {}
    while len(found) < 4:
        until(lambda: gnb.pump() or gnb.report() or slots(daemon) > guilty + len(found), "a slot")
        record = daemon.state().cells[0].last
        assert record is not None
        found[record["control_slot"] - 1] = record["slices"]["ar"]["closed"]["unattributed"].get("ul")
    assert found[guilty] == "quota not honoured"
    assert list(found.values()).count("quota not honoured") == 1


def test_repeating_a_mode_does_not_cut_the_control_slot_short(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, gnb = run(**{"control.control_slot_s": 60.0})
    gnb.hello()
    until(lambda: gnb.pump() or gnb.report() or slots(daemon) == 1, "the first decision")
    for _ in range(4):
        daemon.commands.set_mode("cell-1", "active")
    time.sleep(0.3)
    assert slots(daemon) == 1


def test_a_command_before_the_gnb_has_joined_is_refused(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, _ = run()
    with pytest.raises(ValueError, match="not connected"):
        daemon.commands.switch_policy("cell-1", "ar", "aimd")
    with pytest.raises(ValueError, match="not connected"):
        daemon.commands.set_mode("cell-1", "nosuch")


def test_all_cells_are_released_although_one_is_away_which_is_when_it_comes(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    two = [{"id": f"cell-{i}", "slices": [{"id": "ar", "ues": ["ue-1"]}]} for i in (1, 2)]
    daemon, gnb = run(cells=two)
    gnb.hello()
    goes_on(daemon, gnb)
    for mode in ("frozen", "active", "released"):
        assert daemon.commands.set_mode("", mode) == f"mode {mode}; of cell-2 once under control"
    until(lambda: gnb.pump() or not gnb.quotas, "the release")
    cell = daemon._cells["cell-2"].cell
    assert [c.value for c in cell.commands] == ["released"]
    with Gnb(daemon._ran.address) as second:
        second.hello(cell_id="cell-2")
        until(
            lambda: second.pump() or second.report() or daemon.state().cells[1].control_slots >= 2, "control"
        )
        assert not second.quotas and daemon.state().cells[1].mode == "released"


def test_a_cell_that_never_joins_does_not_hold_up_another(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    two = [{"id": f"cell-{i}", "slices": [{"id": "ar", "ues": ["ue-1"]}]} for i in (1, 2)]
    daemon, first = run(cells=two)
    first.hello()
    goes_on(daemon, first)
    states = {c.cell_id: c for c in daemon.state().cells}
    assert states["cell-1"].connected and not states["cell-2"].connected


def test_what_fails_at_the_end_leaves_nothing_else_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("ran", "qos", "operator", "metrics")}
    addresses["ran"] = f"tcp://{addresses['ran']}"
    fixed = {f"links.{name}.address": address for name, address in addresses.items()}
    parsed = config.parse(CONFIG, overrides={**fixed, "links.edge.address": None})
    before = set(threading.enumerate())
    daemon = Daemon(parsed, run_dir=tmp_path / "run")
    close = daemon._ran.close

    def fail() -> None:
        close()
        raise RuntimeError("the RAN link does not close")

    monkeypatch.setattr(daemon._ran, "close", fail)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RuntimeError, match="the RAN link does not close"):
        daemon.run(stop)
    # A thread that is left would keep the process from ending.
    assert not [t for t in threading.enumerate() if t not in before and not t.daemon]
    with RunStore.open(tmp_path / "run") as store:
        assert not list(store.decisions())
    # Every address is free again.
    Daemon(parsed, run_dir=tmp_path / "again").run(stop)


def test_a_clock_that_is_lost_makes_frames_count_for_the_round_trip_alone_and_is_recorded(
    run: Callable[..., tuple[Daemon, Gnb]],
) -> None:
    daemon, gnb = run(**{"links.qos.clock_hosts": ["edge"], "links.qos.clock_stale_s": 60.0})
    gnb.hello()
    seen: list[dict[str, Any]] = []
    stop = threading.Event()
    state = ["SLAVE"]

    def messages() -> Iterator[qos_pb2.QosMessage]:
        hello = qos_pb2.QosHello(
            protocol_version=PROTOCOL_VERSION, host="edge", cell_id="cell-1", clocks_synchronised=True
        )
        yield qos_pb2.QosMessage(hello=hello)
        yield flow_start()
        for sequence in range(10_000):
            if stop.wait(0.02):
                return
            now = time.time_ns()
            told = qos_pb2.ClockStatus(host="edge", ptp_state=state[0], offset_ns=40.0, time_ns=now)
            yield qos_pb2.QosMessage(clock=told)
            times = {
                "ue_sent_ns": now - 9_000_000,
                "edge_received_ns": now - 6_000_000,
                "edge_sent_ns": now - 4_000_000,
                "ue_received_ns": now,
            }
            frame = qos_pb2.Frame(sequence=sequence, **times)
            yield qos_pb2.QosMessage(frames=qos_pb2.FrameBatch(flow="f", frames=[frame]))

    def slot(unsynchronised: bool) -> dict[str, Any]:
        def there() -> bool:
            gnb.report()
            gnb.pump()
            record = daemon._cells["cell-1"].cell.record
            if record and record["slices"]["ar"]["closed"]["measures"]["round_trip"]["samples"]:
                seen.append(record)
            closed_slot = seen[-1]["slices"]["ar"]["closed"] if seen else {}
            frames = closed_slot["measures"]["round_trip"]["samples"] if seen else 0
            affected = closed_slot["counts"]["unsynchronised_frames"] if seen else 0
            return bool(frames) and affected == (frames if unsynchronised else 0)

        until(there, f"a slot with unsynchronised frames: {unsynchronised}")
        return seen[-1]

    with grpc.insecure_channel(str(daemon.config.links.qos.address)) as channel:
        notices = qos_pb2_grpc.QosIngestStub(channel).Publish(messages())
        good = slot(False)
        assert good["clocks"]["edge"]["offset_ns"] == 40.0
        assert good["slices"]["ar"]["closed"]["measures"]["ul"]["met"] == 1
        state[0] = "LISTENING"
        bad = slot(True)
        closed_slot = bad["slices"]["ar"]["closed"]
        assert set(closed_slot["faults"]) == {"edge: PTP state LISTENING"}
        assert [closed_slot["measures"][name]["met"] for name in ("ul", "round_trip")] == [None, 1]
        assert bad["clocks"]["edge"]["fault"] == "edge: PTP state LISTENING"
        state[0] = "SLAVE"
        slot(False)
        stop.set()
        notices.cancel()


def test_a_clock_set_back_by_an_hour_is_noticed_and_flows_go_on(
    run: Callable[..., tuple[Daemon, Gnb]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, gnb = run()
    gnb.hello()
    goes_on(daemon, gnb)
    address = daemon.config.links.qos.address
    assert address is not None
    publisher = QosPublisher(address, None, cell_id="cell-1", host="h")
    publisher.start()
    try:
        publisher.put(flow_start())
        until(lambda: gnb.pump() or closed(daemon)[0]["busy"], "a judged control slot")
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600_000_000_000)
        until(lambda: gnb.pump() or daemon.counters.get("clock_steps_total", "cell-1") == 1, "a step")
        slot = daemon.state().cells[0].control_slots
        until(lambda: gnb.pump() or daemon.state().cells[0].control_slots > slot + 2, "two control slots")
        until(lambda: gnb.pump() or closed(daemon)[0]["busy"], "the flow is active still")
    finally:
        publisher.close()


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_just_before_a_control_slot_ends_makes_it_no_longer(
    run: Callable[..., tuple[Daemon, Gnb]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step_s: int
) -> None:
    daemon, gnb = run(tmp_path / "run")
    gnb.hello()
    goes_on(daemon, gnb)
    real, poll, set_ = time.time_ns, daemon._ran.poll, threading.Event()

    def sets_the_clock(timeout_s: float) -> list[Any]:
        events = poll(timeout_s)
        if not set_.is_set():
            monkeypatch.setattr(time, "time_ns", lambda: real() + step_s * 10**9)
            daemon._end_slot("cell-1")
            set_.set()
        return events

    monkeypatch.setattr(daemon._ran, "poll", sets_the_clock)
    until(lambda: gnb.pump() or set_.is_set(), "the step")
    goes_on(daemon, gnb)
    goes_on(daemon, gnb)
    assert daemon._store is not None and daemon._store.flush()
    with RunStore.open(tmp_path / "run") as record:
        seen = [slot.observation for start in record.starts() for slot in record.slots(start.id)]
    assert all(0 <= o.closed_ns - o.opened_ns < 600 * 10**9 for o in seen)


def test_a_quota_by_hand_is_in_force_at_the_gnb_for_its_time(run: Callable[..., tuple[Daemon, Gnb]]) -> None:
    daemon, gnb = run(**{"control.control_slot_s": 60.0})
    with pytest.raises(ValueError, match="cell cell-1 is not under control: its gNB is not connected"):
        daemon.commands.set_quota("cell-1", "ar", 7, 9, 3.0)
    gnb.hello()
    until(lambda: gnb.pump() or gnb.report() or gnb.quotas, "quotas")
    daemon.commands.set_quota("cell-1", "ar", 7, 9, 3.0)
    until(lambda: gnb.pump() or gnb.report() or gnb.quotas == {"ar": (7, 9)}, "the quota by hand")
    until(lambda: daemon.state().cells[0].manual, "its place in the state")
    ((name, quota, left_s),) = daemon.state().cells[0].manual
    assert (name, str(quota)) == ("ar", "UL 7 PRB, DL 9 PRB") and 0 <= left_s <= 3.0
    # Neither the end of the control slot nor an operator is near.
    until(lambda: gnb.pump() or gnb.report() or gnb.quotas != {"ar": (7, 9)}, "the policy's own quotas")
    until(lambda: not daemon.state().cells[0].manual, "the end in the state")
    # A gNB that goes takes its quotas along.
    until(lambda: not daemon.state().cells[0].connected, "the end of a silent session")
    labels = {"cell": "cell-1", "slice": "ar", "direction": "ul"}
    exported = daemon.metrics.registry.get_sample_value
    until(lambda: exported("prbandit_quota_prb", labels) is None, "no quota on the page")


def test_static_plays_the_largest_of_its_actions_and_those_that_a_reload_brings(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    def static(ul: int, dl: int) -> str:
        actions = f"{{ul_prb: [10, {ul}], dl_prb: [10, {dl}]}}"
        return re.sub("actions: .*", f"actions: {actions}", CONFIG.replace("mucb1", "static"))

    daemon, gnb = run(tmp_path / "run")
    gnb.hello()
    for ul, dl in ((40, 30), (60, 20)):
        (tmp_path / "c.yaml").write_text(static(ul, dl))
        daemon.commands.reload()
        until(lambda: gnb.report() or gnb.pump() or gnb.quotas == {"ar": (ul, dl)}, f"quotas of {ul}, {dl}")  # noqa: B023
    assert daemon._store is not None and daemon._store.flush()
    with RunStore.open(tmp_path / "run") as store:
        changed = [e.text for e in store.events() if e.kind == "configuration_changed"]
        starts = list(store.starts())
        assert len(changed) == 2 and "slices.ar.actions.ul_prb: [10, 40] -> [10, 60]" in changed[1]
        assert [s.part for s in starts] == [1, 2, 3]
        assert config.parse(store.config()) == daemon.config


def test_a_second_daemon_does_not_write_into_the_run_of_the_first(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    daemon, _ = run(folder)
    with pytest.raises(Locked, match=f"{folder}: the run is being written by another process: pid"):
        Daemon(daemon.config, run_dir=folder)


def test_a_report_that_comes_while_the_state_is_made_has_no_negative_age() -> None:
    cell: Any = SimpleNamespace(session=1)
    live = _Live(cell, face=cell, reports=1, reported=5.0)
    assert live.report_age(4.75) == 0.0 and live.report_age(5.25) == 0.25


def test_what_an_operator_was_told_is_played_after_a_kill(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, gnb = run(tmp_path / "first", **{"control.control_slot_s": 60.0})
    gnb.hello()
    gnb.report()
    until(lambda: gnb.pump() or slots(daemon) == 1, "the first decision")
    assert daemon.commands.switch_policy("", "ar", "aimd") == "policy aimd from the next control slot on"
    daemon.commands.set_budgets("", "", 71.0, 21.0, 61.0)
    # What a kill leaves behind at this moment.
    shutil.copytree(tmp_path / "first", tmp_path / "second", ignore=shutil.ignore_patterns("run.lock"))
    second, gnb = run(tmp_path / "second")
    gnb.hello()
    goes_on(second, gnb)
    options = second.state().cells[0].slices[0].options
    assert options["policy"] == "aimd" and options["budgets"] == {
        "ul_ms": 71.0,
        "edge_ms": 21.0,
        "dl_ms": 61.0,
    }
    assert second._store is not None and second._store.flush()
    with RunStore.open(tmp_path / "second") as record:
        assert [e.kind for e in record.events() if e.kind.startswith("command_")] == ["command_resumed"] * 2
        assert record.waiting("cell-1") == []
        *_, start = record.starts()
        loop = ControlLoop(LoopSpec.from_dict(start.spec))
        loop.load_state(start.state)
        slots_ = list(record.slots(start.id))
        assert [loop.step(s.observation).to_record() for s in slots_] == [s.decision for s in slots_]


def test_a_mode_that_waits_for_a_cell_outlives_a_kill(
    run: Callable[..., tuple[Daemon, Gnb]], tmp_path: Path
) -> None:
    daemon, _ = run(tmp_path / "first")
    daemon.commands.set_mode("", "frozen")
    daemon.commands.set_mode("", "released")
    shutil.copytree(tmp_path / "first", tmp_path / "second", ignore=shutil.ignore_patterns("run.lock"))
    second, gnb = run(tmp_path / "second")
    gnb.hello()
    goes_on(second, gnb)
    assert second.state().cells[0].mode == "released" and not gnb.quotas
