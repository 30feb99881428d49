"""The sixth service through everything that the house has, beside ``ar``, with the arbiter cutting both."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from agents.emulator.testbed import EmulatedTestbed
from agents.gnb_mock.mock import ClockChange, GnbMock, QuotaChange, SettingsChange
from controller import config, sim
from controller.allocators import names
from controller.cli import cli
from controller.cli.ports import free_port
from controller.daemon import Daemon
from controller.links.metrics import Metrics
from controller.scenario import testbed_spec as scenario_testbed
from controller.store.run import RunStore
from tests.e2e.harness import until

SCENARIO = """
control: {control_slot_s: 1.0, guard_ms: 100.0}
cells:
  - id: cell-1
    slices:
      - {id: ar, ues: [ue-1], actions: {ul_prb: [70, 90], dl_prb: [80, 100], gpu_mhz: [500, 900]}}
      - {id: echo, service: echo, ues: [ue-2, ue-3], least_prb: 30, most_prb: 60, fit: true}
emulation:
  duration_s: 600.0
  flows: 4
  ues: 4
  schedule: always
  users:
    - {application: echo, slice: echo, count: 3, message_bytes: 500}
"""
# Flows of OpenRTiST go round over the UEs: ue-4 is bound to no slice, its flow is background traffic.
SCENARIO = SCENARIO.replace("flows: 4", "flows: 0").replace(
    "  users:\n", "  users:\n    - {application: openrtist, slice: ar}\n"
)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "echo.yaml"
    file.write_text(SCENARIO)
    return file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_it_is_found_beside_the_services_of_the_controller() -> None:
    assert names() == ("ar", "mar", "urllc", "video", "vr", "echo")


def test_a_mistake_in_its_options_is_named_by_file_line_and_key(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("least_prb: 30", "least_prb: thirty"))
    with pytest.raises(config.ConfigError, match=r"echo\.yaml:7: cells\.0\.slices\.1\.least_prb: .*integer"):
        config.load(scenario)
    scenario.write_text(SCENARIO.replace("least_prb: 30", "least: 30"))
    with pytest.raises(config.ConfigError, match=r"echo\.yaml:7: cells\.0\.slices\.1\.least: unknown key"):
        config.load(scenario)
    scenario.write_text(SCENARIO.replace("message_bytes", "bytes"))
    with pytest.raises(ValueError, match="echo has no option bytes"):
        sim.run(config.load(scenario), 1, duration_s=2)


def test_experiment_replay_report_metrics_and_watch(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out = json.loads(
        run("experiment", str(scenario), "--duration", "40", "--run", str(folder), "--json").stdout
    )
    ar, echo = out["slices"]
    assert (ar["slice"], echo["slice"], echo["policy"]) == ("ar", "echo", "double-or-less")
    assert 0 < echo["qos_delivery_ratio"] <= 1 and echo["avg_ul_prb"] >= 30
    replayed = json.loads(run("replay", str(folder), "--json").stdout)
    assert replayed["compared"] == 41 and replayed["different"] == 0

    with RunStore.open(folder) as store:
        records = list(store.decisions())
        (start,) = store.starts()
        slots = list(store.slots(start.id))
    last = records[-1]["slices"]
    # The arbiter cuts, and says why: 70 or 90 and 30 to 60 of 106 PRB.
    cuts = [r for r in records if any(r["slices"][s]["granted"]["ul"][1] for s in ("ar", "echo"))]
    assert cuts and all(sum(q[0] for q in r["quotas"].values()) <= 106 for r in records)
    assert any(r["slices"]["echo"]["closed"]["unattributed"] for r in records[1:])
    # Settings fit what was granted, and are in force from the next control slot on.
    for r in records:
        s = r["slices"]["echo"]
        assert all(v == {"message_bytes": [200.0 * s["granted"]["ul"][0]]} for v in s["settings"].values())
    assert last["echo"]["settings"].keys() == {"echo-1", "echo-2", "echo-3"}
    assert {a.reason for a in slots[-1].observation.settings.values()} == {None}
    assert last["echo"]["closed"]["counts"]["echoes"] == 3
    # The fit that it asked for came with the next control slot, and its model is in the folder.
    (fit,) = slots[1].observation.fits
    assert not fit.error and (folder / "models" / fit.digest).exists()
    assert slots[1].decision["slices"]["echo"].get("failed") is None

    pytest.importorskip("matplotlib")
    page = run("report", str(folder)).stdout.strip().splitlines()[0]
    text = Path(page).read_text()
    assert "reply" in text and "message size" in text and "round trip" in text
    summary = json.loads((folder / "summary.json").read_text())["cells"]["cell-1"]["outcomes"]["echo"]
    assert summary["measures"]["reply"]["samples"] > 60 and summary["settings"]["message_bytes"] >= 1000

    metrics = Metrics()
    for record in records:
        metrics.observe(record)
    value = metrics.registry.get_sample_value
    labels = {"cell": "cell-1", "slice": "echo"}
    worst = max(v for v, _ in last["echo"]["closed"]["measures"]["reply"]["users"].values())
    reply = value("prbandit_measure", {**labels, "measure": "reply", "unit": "s"})
    assert reply == pytest.approx(worst / 1e3)
    assert value("prbandit_settings_flows", labels) == 3
    ul = {"cell": "cell-1", "slice": "ar", "measure": "ul", "unit": "s"}
    assert value("prbandit_measure", ul) is not None

    from controller.cli.watch import decision_line

    line = decision_line(records[-1])
    assert "echo: last QoS" in line and "settings of 3 users" in line


@pytest.mark.slow
def test_up_runs_it_over_the_real_links(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["up", "--config", str(scenario), "--duration", "8", "--run", str(folder), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", *arguments], capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    slices = json.loads(done.stdout)["summary"]["cells"]["cell-1"]["slices"]
    assert slices["echo"]["qos_delivery_ratio"] is not None and slices["ar"]["frames"] > 0
    with RunStore.open(folder) as store:
        (start,) = store.starts()
        slots = list(store.slots(start.id))
    assert any({a.reason for a in s.observation.settings.values()} == {None} for s in slots)
    assert any(s.observation.samples.get("echo") for s in slots)
    assert json.loads(run("replay", str(folder), "--json").stdout)["different"] == 0


def test_both_faces_see_the_same(tmp_path: Path) -> None:
    """A live controller on the real-time cell, then the same quotas, clocks and settings in virtual time.

    With a background UE, two slices and an application with settings: what the live loop saw of flows, frames
    and samples is what the emulated cell gives in virtual time, and nothing of the background.
    """
    ran, qos = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    addresses: dict[str, Any] = {
        "links.ran.address": ran,
        "links.edge.address": None,
        "links.qos.address": qos,
        "links.operator.address": None,
        "links.metrics.address": None,
        "links.page.address": None,
    }
    text = SCENARIO.replace("    - {application: openrtist, slice: ar}\n", "").replace("flows: 0", "flows: 4")
    c = config.parse(text, overrides=addresses)
    spec = scenario_testbed(c, 3)
    # openrtist-1 to -4 are on ue-1 to ue-4; those of the echo slice's UEs would be of another service.
    spec = type(spec)(
        **{
            **{name: getattr(spec, name) for name in spec.__dataclass_fields__},
            "flows": tuple(f for f in spec.flows if f.ue_id in ("ue-1", "ue-4")),
        }
    )
    folder, stop = tmp_path / "run", threading.Event()
    daemon = Daemon(c, run_dir=folder)
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    try:
        with GnbMock(spec, 3, ran_address=ran, qos_address=qos) as mock:
            until(lambda: daemon.state().cells[0].control_slots >= 8, "eight control slots", 60)
            history, epoch = list(mock.history), mock.epoch_ns
            assert not mock.clock.shifts
    finally:
        stop.set()
        thread.join(20)
    with RunStore.open(folder) as store:
        (start,) = store.starts()
        seen = [slot.observation for slot in store.slots(start.id)]

    bed = EmulatedTestbed(mock.spec, seed=3, epoch_ns=epoch)
    end = round((seen[-1].closed_ns - epoch) / 5e5)
    frames: dict[tuple[str, int], np.ndarray] = {}
    samples: set[tuple[str, int, float]] = set()
    for change in [*history, None]:
        at = min(end, change.nr_slot) if change is not None else end
        if at > bed.nr_slot:
            bed.advance(at)
        match change:
            case QuotaChange():
                bed.set_quotas(change.quotas, change.bindings)
            case ClockChange():
                bed.set_gpu_mhz(change.mhz)
            case SettingsChange():
                bed.apply(change.settings)
        updates = bed.take_frames()
        times = np.stack((updates.ue_sent, updates.edge_received, updates.edge_sent, updates.ue_received), 1)
        for flow, sequence, row in zip(updates.flow, updates.sequence, times, strict=True):
            key = bed.flows[flow].flow, int(sequence)
            frames[key] = np.maximum(frames.get(key, 0), row)
        for rows in bed.take_samples():
            for t, v in zip(rows.time_ns, rows.values[:, 0], strict=True):
                samples.add((bed.flows[rows.flow].flow, int(t), float(np.float32(v))))
    assert any(isinstance(change, SettingsChange) for change in history)

    flows = {f.flow for o in seen for f in o.flows}
    assert flows == {"openrtist-1", "echo-1", "echo-2", "echo-3"}  # ue-4's is background
    compared = told = 0
    for o in seen[1:]:
        for flow, sequence, *row in zip(
            o.frames.flow,
            o.frames.sequence,
            o.frames.ue_sent,
            o.frames.edge_received,
            o.frames.edge_sent,
            o.frames.ue_received,
            strict=True,
        ):
            truth = frames[o.flows[flow].flow, int(sequence)]
            assert all(t in (0, u) for t, u in zip(row, truth, strict=True)), (sequence, row, truth)
            compared += 1
        for tables in o.samples.values():
            for rows in tables.values():
                for flow, t, v in zip(rows.flow, rows.time_ns, rows.values[:, 0], strict=True):
                    assert (o.flows[flow].flow, int(t), float(v)) in samples
                    told += 1
    assert compared > 150 and told > 10


def test_users_keep_their_settings_where_nobody_knows_what_they_were_to_do(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In virtual time as on the live links, where the lease goes on: a failed settle takes nothing back."""
    from prbandit_echo.service import EchoAllocator

    applied: list[dict[str, Any]] = []
    settle, apply = EchoAllocator.settle, EmulatedTestbed.apply
    monkeypatch.setattr(EmulatedTestbed, "apply", lambda b, s: applied.append(dict(s)) or apply(b, s))

    def fails(self: EchoAllocator, view: Any, grant: Any) -> Any:
        return 1 / 0 if view.control_slot in (5, 6) else settle(self, view, grant)

    monkeypatch.setattr(EchoAllocator, "settle", fails)
    records: list[dict[str, Any]] = []
    sim.run(config.load(scenario), 4, duration_s=10, on_slot=lambda _o, d, _l: records.append(d.to_record()))
    failed = [r["control_slot"] - 1 for r in records if r["slices"]["echo"].get("failed")]
    assert failed == [5, 6] and not any(values == {} for s in applied for values in s.values())
    closed = {r["control_slot"] - 1: r["slices"]["echo"]["closed"]["unattributed"] for r in records}
    assert closed[6].get("settings") == closed[7].get("settings") == "allocator failed"
    assert "settings" not in closed[9]
