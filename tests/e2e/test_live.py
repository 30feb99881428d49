"""The loop as separate processes over the real links, and what happens when one of them dies."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from controller import config
from controller.store.run import RunStore
from tests.e2e.harness import Testbed, parent_of, until
from wire import edge_pb2, edge_pb2_grpc

CONFIG = """
control: {control_slot_s: 0.5, guard_ms: 100.0}
cells:
  - id: cell-1
    slices:
      - id: ar
        policy: mucb1
        actions:
          ul_prb: {from: 10, to: 106, step: 20}
          dl_prb: {from: 10, to: 106, step: 20}
          gpu_mhz: {from: 500, to: 1600, step: 100}
        ues: [ue-1]
emulation: {duration_s: 3600.0, flows: 2, schedule: always}
"""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Testbed]:
    bed = Testbed(tmp_path, CONFIG)
    try:
        yield bed
    except BaseException:
        for name in ("controller", "gnb-mock", "edge-agent"):
            print(f"---- {name}\n{bed.log(name)}")
        raise
    finally:
        bed.close()


def gpu_lock(bed: Testbed) -> int:
    """MHz to which the GPU is locked, 0: not locked."""
    with grpc.insecure_channel(bed.edge_address) as channel:
        stub = edge_pb2_grpc.EdgeStub(channel)
        state = next(iter(stub.WatchGpu(edge_pb2.WatchGpuRequest(period_ms=50), timeout=30)))
        return int(state.locked_mhz)


def test_the_loop_closes_dies_and_comes_back(bed: Testbed) -> None:
    bed.start_all()

    # It closes: decisions reach the gNB and the GPU, and their QoS comes back.
    bed.wait_for_slot(8)
    assert until(lambda: bed.gnb()["quotas"], "a quota at the gNB").keys() == {"ar"}
    assert until(lambda: gpu_lock(bed), "a clock lock") >= 500
    legs = ("round_trip", "ul", "edge", "dl")
    until(
        lambda: (
            (s := bed.cell()["last"]["slices"]["ar"]["closed"])["busy"]
            and not s["unattributed"]
            and all(s["measures"][leg]["samples"] for leg in legs)
        ),
        "a control slot that was learned from, with frames on every hop",
    )
    page = urllib.request.urlopen(bed.metrics_url, timeout=30).read().decode()
    assert "# HELP prbandit_" in page and 'cell="cell-1"' in page

    # It dies: the leases end, the network is at full resources, and the record opens.
    lapsed = bed.gnb()["ran"].get("leases_lapsed", 0)
    bed.kill("controller")
    until(lambda: not bed.gnb()["quotas"], "the gNB at all PRBs")
    until(lambda: not gpu_lock(bed), "the GPU at its default clocks")
    assert bed.gnb()["ran"]["leases_lapsed"] > lapsed
    with RunStore.open(bed.run_dir) as store:
        last = list(store.decisions("cell-1"))[-1]
        state = store.latest_state("cell-1")
    assert state is not None and state["control_slot"] == last["control_slot"]

    # It comes back: the same run goes on, and so does its learning.
    bed.start("controller")
    bed.wait_for_slot(last["control_slot"] + 4)
    gnb = until(lambda: (g := bed.gnb())["quotas"] and g, "a quota after the restart")
    assert bed.kill("controller", signal.SIGTERM) == 0
    until(lambda: not bed.gnb()["quotas"], "the gNB released by a clean end")
    assert bed.gnb()["ran"]["leases_lapsed"] == gnb["ran"]["leases_lapsed"]
    with RunStore.open(bed.run_dir) as store:
        assert any(e.kind == "learning_resumed" for e in store.events("cell-1"))
        starts = list(store.starts("cell-1"))
        assert starts[-1].state["slices"] == state["slices"]

    # What was recorded replays to the same decisions.
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", "replay", str(bed.run_dir), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["different"] == 0 and result["compared"] >= 12, done.stdout


def test_a_gnb_that_vanishes_and_returns_is_taken_up_again(bed: Testbed) -> None:
    bed.start_all()
    bed.wait_for_slot(3)
    bed.kill("gnb-mock")
    until(lambda: not bed.cell()["connected"], "the loss of the cell")
    before = bed.cell()["control_slots"]
    bed.start("gnb-mock")
    bed.wait_for_slot(before + 3)
    assert until(lambda: bed.gnb()["quotas"], "a quota at the returned gNB")


def test_without_an_edge_agent_the_radio_hops_learn_all_the_same(bed: Testbed) -> None:
    bed.start("controller")
    bed.start("gnb-mock", "--edge", "")
    (bed.folder / "edge-agent.log").touch()
    bed.wait_for_slot(4)
    closed = until(
        lambda: (s := bed.cell()["last"]["slices"]["ar"]["closed"])["unattributed"].keys() == {"edge"} and s,
        "a slot in which the edge alone was not learned from",
    )
    assert closed["unattributed"]["edge"] == "no edge agent"


def test_operators_change_mode_policy_and_configuration_live(bed: Testbed) -> None:
    bed.start_all()
    bed.wait_for_slot(3)
    with bed.operator() as client:
        client.set_mode("", "released")
        until(lambda: not bed.gnb()["quotas"], "the gNB at all PRBs")
        assert bed.cell()["mode"] == "released"
        client.set_mode("cell-1", "active")
        until(lambda: bed.gnb()["quotas"], "quotas again")
        client.switch_policy("cell-1", "ar", "static")
        until(lambda: bed.gnb()["quotas"] == {"ar": [90, 90]}, "static's quota")
        with pytest.raises(ValueError, match="unknown policy 'nosuch'"):
            client.switch_policy("cell-1", "ar", "nosuch")
        with pytest.raises(ValueError, match="unknown cell"):
            client.set_mode("cell-9", "active")
        assert "checkpoint.json" in client.checkpoint()

        good = bed.config.read_text()
        bed.config.write_text(good.replace("policy: mucb1", "polici: mucb1"))
        with pytest.raises(ValueError, match=r"polici: unknown key"):
            client.reload()
        assert bed.cell()["last"]["slices"]["ar"]["choices"][0]["method"] == "static"
        bed.config.write_text(good.replace("policy: mucb1", "policy: aimd"))
        client.reload()
        until(
            lambda: bed.cell()["last"]["slices"]["ar"]["choices"][0]["method"] == "aimd",
            "the reloaded policy",
        )


def test_a_run_folder_that_cannot_be_written_does_not_stop_control(bed: Testbed) -> None:
    blocked = bed.folder / "blocked"
    blocked.write_text("a file where the run folder should be")
    bed.run_dir = blocked / "run"
    bed.start_all()
    bed.wait_for_slot(4)
    page = urllib.request.urlopen(bed.metrics_url, timeout=30).read().decode()
    assert any(
        line.startswith("prbandit_store_errors_total") and float(line.split()[-1]) > 0
        for line in page.splitlines()
    )


def test_up_ends_its_processes_and_reports_when_it_is_told_to_stop(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "controller.cli", "up", "--run", str(folder), "--seed", "7"]
    up = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert up.stdout is not None
        lines = iter(up.stdout.readline, "")
        third = next((line for line in lines if line.startswith("cell-1 #3")), "no third decision")
        assert re.search(r"ul \d+ PRB, .* ms \(.* edge \d+ MHz, .* dl \d+ PRB, ", third), third
        operator = config.load(folder / "up.yaml").links.operator.address
        status = [sys.executable, "-m", "controller.cli", "status", "--operator", str(operator)]
        said = subprocess.run(status, capture_output=True, text=True, timeout=60).stdout
        page = config.load(folder / "up.yaml").links.page.address
        shown = urllib.request.urlopen(f"http://{page}/api/state", timeout=30)
        assert [cell["cell_id"] for cell in json.load(shown)["cells"]] == ["cell-1"]
        playing = r"cell cell-1: connected, mode active.*slice ar: .*UL \d+ PRB"
        assert re.search(playing, said, re.DOTALL), said
        ours = [p for p in Path("/proc").glob("[0-9]*") if parent_of(int(p.name)) == up.pid]
        assert len(ours) == 3
        before = (folder / "up.yaml").read_text()
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1 and f"by another process: pid {up.pid} on host" in second.stderr
        assert (folder / "up.yaml").read_text() == before
        up.send_signal(signal.SIGTERM)
        rest = up.stdout.read()
        assert up.wait(30) == 0, rest
    finally:
        up.kill()
    assert "Summary" in rest and (folder / "report.html").is_file()
    assert json.loads((folder / "run.json").read_text())["seed"] == 7
    assert not [p for p in ours if p.exists()]
