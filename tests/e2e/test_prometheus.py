"""A real Prometheus, with the files of deploy/, scrapes a real testbed over TLS.

Every query of the dashboard and every recording rule gives data; what is lost is alerted.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.links.qos import QosPublisher
from agents.ptp.service import LatestStatus
from controller.cli.ports import free_port
from tests.deploy.test_grafana import BOARD, PANELS
from tests.deploy.test_prometheus import FOLDER, RECORDS, RULES
from tests.e2e.harness import START_S, Testbed, missing, until
from wire import qos_pb2
from wire.roles import CLOCK_STREAM
from wire.security import Tls

REQUIRED_BY = "PRBANDIT_REQUIRE_PROMETHEUS"
TARGETS = {"controller-1:9464", "edge-1:9465", "edge-1:9091", "controller-1:9091"}
"""Hosts of prometheus.yml."""

CONFIG = """
control: {control_slot_s: 2.0, guard_ms: 100.0}
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
      - {id: mar, service: mar, ues: [ue-2]}
emulation:
  duration_s: 3600.0
  ues: 2
  flows: 1
  schedule: always
  users: [{application: mar, slice: mar, count: 1, upload_hz: 3}]
"""


class Prometheus:
    """The process and its HTTP API; its files are those of deploy/ with our addresses and other times."""

    def __init__(self, folder: Path, keys: Path, targets: dict[str, str]) -> None:
        text = (FOLDER / "prometheus.yml").read_text()
        assert set(re.findall(r'"([\w-]+:\d+)"', text)) == TARGETS
        for host, address in {"/etc/prometheus/prbandit": str(keys), **targets}.items():
            text = text.replace(host, address)
        folder.mkdir()
        (folder / "prometheus.yml").write_text(text.replace("interval: 5s", "interval: 1s"))
        rules = (FOLDER / "rules.yml").read_text()
        (folder / "rules.yml").write_text(re.sub(r"for: \w+", "for: 2s", rules))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Series of an instant query."""
        return self.get("query", query=expression)["result"]

    def alerts(self) -> dict[str, list[dict[str, Any]]]:
        """Name -> the alerts that are pending or firing."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self.get("alerts")["alerts"]:
            found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


class Clock(threading.Thread):
    """Tells the controller, as the PTP agent of a host does whose clock follows a grandmaster."""

    def __init__(self, bed: Testbed) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._publisher = QosPublisher(
            bed.qos_address,
            Tls(bed.keys, "ptp-agent"),
            cell_id="cell-1",
            host=f"{CLOCK_STREAM}edge-1",
            outbox=LatestStatus(),
        )

    def run(self) -> None:
        self._publisher.start()
        while not self.ended.wait(0.5):
            status = qos_pb2.ClockStatus(
                host="edge-1",
                ptp_state="SLAVE",
                offset_ns=-120.0,
                path_delay_ns=900.0,
                time_ns=time.time_ns(),
            )
            self._publisher.put(qos_pb2.QosMessage(clock=status))
        self._publisher.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, Prometheus]]:
    if shutil.which("prometheus") is None:
        missing("prometheus (Debian's package) is not installed", REQUIRED_BY)
    pytest.importorskip("cryptography", reason="needs cryptography (the extra keys)")
    folder = tmp_path_factory.mktemp("prometheus")
    keys = folder / "keys"
    cli = (sys.executable, "-m", "controller.cli")
    subprocess.run([*cli, "keys", str(keys), "--cell", "cell-1"], check=True, capture_output=True)
    bed = Testbed(folder, CONFIG, keys)
    agent, ptp = (f"127.0.0.1:{free_port()}" for _ in range(2))
    page = urllib.parse.urlsplit(bed.metrics_url).netloc
    prometheus = None
    clock = Clock(bed)
    try:
        bed.start("edge-agent", "--metrics", agent)
        bed.start("controller")
        bed.start("gnb-mock")
        bed.start_command(
            "ptp-agent",
            *("ptp-agent", "--host", "edge-1", "--cell", "cell-1", "--qos", ""),
            *("--metrics", ptp, "--keys", str(keys), "--reply-dir", str(folder)),
        )
        clock.start()
        targets = {"controller-1:9464": page, "edge-1:9465": agent}
        targets |= dict.fromkeys(("edge-1:9091", "controller-1:9091"), ptp)
        prometheus = Prometheus(folder / "prometheus", keys, targets)
        bed.wait_for_slot(2, 3 * START_S)
        yield bed, prometheus
    except BaseException:
        for name in (*bed.processes, *(["prometheus/"] if prometheus else [])):
            print(f"---- {name}\n{bed.log(name)}")
        raise
    finally:
        clock.ended.set()
        if prometheus:
            prometheus.close()
        bed.close()


def test_every_page_is_scraped_over_tls(stack: tuple[Testbed, Prometheus]) -> None:
    _, prometheus = stack
    jobs = {"prbandit-controller", "prbandit-edge-agent", "prbandit-ptp-agent"}
    until(lambda: {s["metric"]["job"] for s in prometheus.ask("up == 1")} == jobs, "three pages")
    assert not prometheus.ask("up == 0")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_query_of_the_dashboard_gives_data(
    stack: tuple[Testbed, Prometheus], panel: dict[str, Any]
) -> None:
    _, prometheus = stack
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "15s")
        expression = expression.replace("$cell", "cell-1").replace("$slice", "ar|mar")
        assert "$" not in expression
        found = until(lambda asked=expression: prometheus.ask(asked), expression)
        for name in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(series["metric"].get(name) for series in found), (expression, name)


def test_every_recording_rule_gives_data_and_every_rule_can_be_evaluated(
    stack: tuple[Testbed, Prometheus],
) -> None:
    _, prometheus = stack
    for record in sorted(RECORDS):
        until(lambda asked=record: prometheus.ask(asked), record)
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    wrong = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
    assert wrong == []


def test_the_choices_of_the_dashboard_are_the_cells_and_slices(stack: tuple[Testbed, Prometheus]) -> None:
    _, prometheus = stack
    found: dict[str, set[str]] = {}
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            found[label] = {s["metric"][label] for s in prometheus.ask(name.replace("$cell", ".*"))}
    assert found == {"cell": {"cell-1"}, "slice": {"ar", "mar"}}


def test_no_series_has_an_empty_label_or_tells_when_it_began(stack: tuple[Testbed, Prometheus]) -> None:
    _, prometheus = stack
    names = [n for n in prometheus.get("label/__name__/values") if n.startswith("prbandit_")]
    assert len(names) > 120 and not [n for n in names if n.endswith("_created")]


def test_what_is_well_is_not_alerted_and_a_gnb_that_is_killed_is(stack: tuple[Testbed, Prometheus]) -> None:
    bed, prometheus = stack
    link = ("PrbanditControllerDown", "PrbanditGnbSilent", "PrbanditNoMacReport", "PrbanditEdgeAgentGone")
    assert not [name for name in link if name in prometheus.alerts()]
    bed.kill("gnb-mock")

    def firing() -> Any:
        return [a for a in prometheus.alerts().get("PrbanditGnbSilent", ()) if a["state"] == "firing"]

    (alert,) = until(firing, "the alert PrbanditGnbSilent")
    assert alert["labels"]["cell"] == "cell-1" and alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "Cell cell-1: the gNB is silent."
    assert not prometheus.ask("prbandit_quota_prb") and not prometheus.ask("prbandit_ue_mcs")
    bed.start("gnb-mock")
    until(lambda: "PrbanditGnbSilent" not in prometheus.alerts(), "the end of the alert")


def test_a_configuration_that_is_refused_is_alerted_until_one_is_taken(
    stack: tuple[Testbed, Prometheus],
) -> None:
    bed, prometheus = stack
    good = bed.config.read_text()
    (before,) = prometheus.ask("prbandit_config_info")
    bed.config.write_text(good.replace("policy: mucb1", "policy: nosuch"))
    with bed.operator() as client:
        with pytest.raises(ValueError, match="nosuch"):
            client.reload()
        until(lambda: "PrbanditReloadFailed" in prometheus.alerts(), "the alert PrbanditReloadFailed")
        assert prometheus.ask("prbandit_config_info")[0]["metric"]["hash"] == before["metric"]["hash"]
        bed.config.write_text(good.replace("policy: mucb1", "policy: ucb1"))
        client.reload()
    until(lambda: "PrbanditReloadFailed" not in prometheus.alerts(), "the end of the alert")
    until(
        lambda: (
            {s["metric"]["hash"] for s in prometheus.ask("prbandit_config_info")} ^ {before["metric"]["hash"]}
        ),
        "another hash",
    )
