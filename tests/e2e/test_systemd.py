"""The units of deploy/ under a booted systemd: sandbox, record, reload, restarts, clean ends.

Needs root, systemd-container, linuxptp, iproute2 and a C compiler. Skips where one is missing; with
``PRBANDIT_REQUIRE_SYSTEMD=1`` it fails instead. Hardware is stood in for: the stub libnvidia-ml, a ptp4l
whose calls to the clock the kernel answers without doing anything, a phc2sys that only sleeps.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import config
from tests.agents.gpu import stub as stub_module
from tests.agents.gpu.stub import Stub
from tests.agents.ptp.hands_off import CLOCK_CALLS
from tests.agents.ptp.linuxptp import CONFIG
from tests.e2e.harness import missing, until
from tests.e2e.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = "/etc/systemd/system"
PROGRAM, KEYS, RECORD = "/opt/prbandit/bin/prbandit", "/etc/prbandit/keys", "/var/lib/prbandit/run"
CONTROLLER, EDGE, PTP = "prbandit-controller", "prbandit-edge-agent", "prbandit-ptp-agent"
OURS = (CONTROLLER, EDGE, PTP)
CAP_SYS_ADMIN = 1 << 21
START_S = 60.0
WATCHDOG_S = 8
REQUIRED_BY = "PRBANDIT_REQUIRE_SYSTEMD"
HANDS_OFF = "tests/agents/ptp/hands_off.py"


def interpreter() -> str:
    """A Python of this version under /usr, which the machine shares."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path("/usr/bin", name), Path("/usr/local/bin", name)):
        if path.exists():
            return str(path)
    missing(f"no {name} in /usr/bin or /usr/local/bin", REQUIRED_BY)


class Host(Machine):
    """Controller, edge agent on the stub's GPU and PTP agent, installed as deploy/ says."""

    def __init__(self, folder: Path, library: Path) -> None:
        super().__init__(folder)
        python = interpreter()
        paths = "['/opt/source', '/opt/packages']"
        main = f"import sys\nsys.path[:0] = {paths}\nfrom controller.cli import main\nsys.exit(main())\n"
        self.write(PROGRAM, f"#!{python} -I\n{main}", 0o755)
        text = (DEPLOY / "compose.yaml").read_text().replace("keys: /keys", f"keys: {KEYS}")
        self.write("/etc/prbandit/config.yaml", text.replace("edge-agent:50061", "localhost:50061"))
        names = "PTP_HOST=ue-1\nPTP_CELL=cell-1\nPTP_CONTROLLER=localhost:50062\n"
        self.write("/etc/prbandit/ptp-agent.env", names)
        for unit in DEPLOY.glob("*/*.service"):
            self.write(f"{UNITS}/{unit.name}", unit.read_text())
        drop_in = f"{EDGE}.service.d/nvml.conf"
        self.write(f"{UNITS}/{drop_in}", (DEPLOY / "systemd" / drop_in).read_text())
        self.write("/etc/sysusers.d/prbandit.conf", (DEPLOY / "systemd/prbandit.sysusers").read_text())

        self.path("/var/lib/stub").mkdir(parents=True)
        shutil.copy(library, self.path("/var/lib/stub"))
        self.stub = Stub(self.path("/var/lib/stub/gpus"))
        self.stub.path.chmod(0o666)
        stub = f"LD_LIBRARY_PATH=/var/lib/stub {stub_module.STATE}=/var/lib/stub/gpus"
        self.stand_in(EDGE, f"Environment={stub}\nReadWritePaths=/var/lib/stub")
        ptp4l = f"{shutil.which('ptp4l')} -f /etc/linuxptp/ptp4l.conf"
        for unit in OURS:
            self.stand_in(unit, f"WatchdogSec={WATCHDOG_S}", "watchdog")
        self.stand_in("ptp4l", f"ExecStart=\nExecStart={python} /opt/source/{HANDS_OFF} {ptp4l}")
        self.stand_in("phc2sys", "ExecStart=\nExecStart=/usr/bin/sleep infinity")
        client = CONFIG.format(socket="/var/run/ptp4l", more="slaveOnly 1", interface="ptp-client")
        self.write("/etc/linuxptp/ptp4l.conf", client)
        master = CONFIG.format(socket=folder / "ptp4l", more="priority1 10", interface="ptp-master")
        (folder / "master.conf").write_text(master)

    def stand_in(self, unit: str, settings: str, name: str = "stand-in") -> None:
        self.write(f"{UNITS}/{unit}.service.d/{name}.conf", f"[Service]\n{settings}\n")

    def start(self) -> None:
        self.boot(source=ROOT, packages=Path(sysconfig.get_paths()["purelib"]))
        self.run("systemd-sysusers")
        self.run(PROGRAM, "keys", KEYS, "--cell", "cell-1")
        # As deploy/systemd/README.md says.
        self.run("sh", "-c", f"chown -R prbandit: {KEYS} && chmod -R u=rwX,go= {KEYS}")
        self.run("ip", "link", "add", "ptp-client", "type", "veth", "peer", "name", "ptp-master")
        for interface in ("ptp-client", "ptp-master"):
            self.run("ip", "link", "set", interface, "up")
        self.systemctl("enable", "phc2sys")
        self.systemctl("start", "ptp4l", *OURS)
        until(self.cell, "an answer of the controller")
        hands_off = (sys.executable, str(ROOT / HANDS_OFF))
        self.beside("master", *hands_off, "ptp4l", "-m", "-f", str(self.folder / "master.conf"))
        options = {
            "--keys": str(self.path(KEYS)),
            "--qos": "localhost:50062",
            "--edge": "localhost:50061",
            "--heartbeat": str(self.folder / "gnb"),
        }
        config_file = str(self.path("/etc/prbandit/config.yaml"))
        gnb = [sys.executable, "-m", "controller.cli", "gnb-mock", config_file]
        self.beside("gnb", *gnb, *(word for option in options.items() for word in option))
        # The mock may have to compile its cell first.
        until(lambda: self.cell()["last"], "a first decision", 3 * START_S)

    def cell(self) -> dict[str, Any]:
        # Its exit status says whether all is well, which is not asked here.
        told = self.run("sh", "-c", f"{PROGRAM} status --keys {KEYS} --json || [ $? -eq 1 ]")
        return dict(json.loads(told)["cells"][0])

    def gnb(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "gnb").read_text()))

    def status_of(self, unit: str) -> dict[str, str]:
        """/proc/PID/status of the unit's main process."""
        text = self.run("cat", f"/proc/{self.show(unit, 'MainPID')}/status")
        return dict(re.findall(r"(?m)^(\w+):\t(.*)$", text))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    tools = ("systemd-nspawn", "nsenter", "setpriv", "ip", "ptp4l")
    if absent := [tool for tool in tools if not shutil.which(tool)]:
        missing(
            f"{', '.join(absent)} not installed (apt install systemd-container iproute2 linuxptp)",
            REQUIRED_BY,
        )
    if os.geteuid() != 0:
        missing("systemd-nspawn needs root", REQUIRED_BY)
    if platform.machine() not in CLOCK_CALLS:
        missing(
            f"no seccomp filter for {platform.machine()}: ptp4l would steer this machine's clock", REQUIRED_BY
        )
    try:
        library = stub_module.build() / stub_module.LIBRARY
    except stub_module.NoCompiler as reason:
        missing(str(reason), REQUIRED_BY)
    host = Host(tmp_path_factory.mktemp("systemd"), library)
    try:
        host.start()
        yield host
    finally:
        try:
            print(host.logs())
            for unit in (*OURS, "ptp4l"):
                print(f"== {unit}", host.journal(unit), sep="\n")
        finally:
            host.close()


def test_every_daemon_works_in_its_sandbox_and_has_no_more_rights_than_it_needs(host: Host) -> None:
    rights = {CONTROLLER: 0, EDGE: CAP_SYS_ADMIN, PTP: 0}
    for unit, capabilities in rights.items():
        status = host.status_of(unit)
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == capabilities, unit
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", unit
        assert "0" not in status["Uid"].split(), unit
    closed = until(
        lambda: (s := host.cell()["last"]["slices"]["ar"]["closed"])["busy"] and not s["unattributed"] and s,
        "a control slot that was learned from",
        START_S,
    )
    assert all(closed["measures"][leg]["samples"] > 0 for leg in ("round_trip", "ul", "edge", "dl"))
    assert until(lambda: host.stub.gpu.locked_mhz, "a clock lock") >= 500


def test_metrics_are_served_over_tls(host: Host) -> None:
    fetch = (
        "import ssl, urllib.request as u\n"
        f"tls = ssl.create_default_context(cafile='{KEYS}/ca.crt')\n"
        f"tls.load_cert_chain('{KEYS}/operator.crt', '{KEYS}/operator.key')\n"
        "for port in (9464, 9465, 9091):\n"
        "    print(u.urlopen(f'https://localhost:{port}/metrics', timeout=10, context=tls).read().decode())\n"
    )
    page = host.run(interpreter(), "-I", "-c", fetch)
    assert all(
        name in page
        for name in ("prbandit_step_duration_seconds", "prbandit_agent_gpu_up", "prbandit_ptp_up")
    )


def test_the_group_reads_the_record_but_no_keys_and_strangers_read_neither(host: Host) -> None:
    gid = host.run("id", "-g", "prbandit").strip()

    def stranger(*command: str, groups: str = "--clear-groups") -> str:
        return host.run("setpriv", "--reuid=4242", "--regid=4242", groups, *command)

    assert "0 differ" in stranger(PROGRAM, "replay", RECORD, groups=f"--groups={gid}")
    with pytest.raises(OSError, match="Permission denied"):
        stranger("cat", f"{RECORD}/run.json")
    with pytest.raises(OSError, match="Permission denied"):
        stranger("cat", f"{KEYS}/controller.key", groups=f"--groups={gid}")


def test_systemctl_reload_takes_a_good_file_and_refuses_a_bad_one(host: Host) -> None:
    good = host.path("/etc/prbandit/config.yaml").read_text()
    pid = host.show(CONTROLLER, "MainPID")
    host.write("/etc/prbandit/config.yaml", good.replace("policy: default", "policie: aimd"))
    with pytest.raises(OSError):
        host.systemctl("reload", CONTROLLER)
    assert "policie: unknown key" in host.journal(CONTROLLER)
    host.write("/etc/prbandit/config.yaml", good.replace("policy: default", "policy: aimd"))
    host.systemctl("reload", CONTROLLER)
    host.write("/etc/prbandit/config.yaml", good)
    host.systemctl("reload", CONTROLLER)
    assert re.findall(r"(?m)^reloaded; changed: (.*)", host.journal(CONTROLLER)) == ["cell-1"] * 2
    # The signal asks for the same and hears no answer.
    host.systemctl("kill", "--signal=HUP", "--kill-whom=main", CONTROLLER)
    until(lambda: "SIGHUP: reloaded" in host.journal(CONTROLLER), "the reload by SIGHUP")
    assert host.show(CONTROLLER, "MainPID") == pid and host.show(CONTROLLER, "ActiveState") == "active"


def test_a_killed_controller_is_started_again_and_goes_on_learning(host: Host) -> None:
    before = host.cell()["control_slots"]
    host.kill(CONTROLLER)
    until(lambda: host.cell()["control_slots"] >= before + 2, "control slots after the restart", START_S)
    resumed = re.findall(r"learning_resumed: at control slot (\d+)", host.journal(CONTROLLER))
    assert int(resumed[-1]) >= before


def test_daemons_that_hang_are_started_again_and_those_that_do_not_are_left_alone(host: Host) -> None:
    restarts = {unit: int(host.show(unit, "NRestarts")) for unit in OURS}
    before = host.cell()["control_slots"]
    time.sleep(WATCHDOG_S + 2)
    assert restarts == {unit: int(host.show(unit, "NRestarts")) for unit in OURS}
    for unit in OURS:
        host.systemctl("kill", "--signal=STOP", "--kill-whom=main", unit)
    for unit in OURS:
        until(
            lambda unit=unit: int(host.show(unit, "NRestarts")) > restarts[unit],
            f"the watchdog of {unit}",
        )
        assert "Watchdog timeout" in host.journal(unit)
    until(lambda: host.cell()["control_slots"] >= before + 2, "control slots after the restart", START_S)


def test_a_start_that_fails_is_told(host: Host) -> None:
    good = host.path("/etc/prbandit/config.yaml").read_text()
    host.systemctl("stop", CONTROLLER)
    host.write("/etc/prbandit/config.yaml", good.replace("policy: default", "policie: aimd"))
    with pytest.raises(OSError, match="prbandit-controller"):
        host.systemctl("start", CONTROLLER)
    host.write("/etc/prbandit/config.yaml", good)
    # The unit tries again by itself.
    until(lambda: host.show(CONTROLLER, "ActiveState") == "active", "the mended one", START_S)


def test_a_killed_edge_agent_leaves_no_clock_locked(host: Host) -> None:
    until(lambda: host.stub.gpu.locked_mhz, "a clock lock")
    released = host.journal(EDGE).count(": released")
    host.systemctl("kill", "--signal=KILL", "--kill-whom=main", EDGE)
    until(lambda: not host.stub.gpu.locked_mhz, "the release")
    # Only the command of ExecStopPost says so; a start releases silently.
    until(lambda: host.journal(EDGE).count(": released") == released + 1, "the release by ExecStopPost")
    until(lambda: host.stub.gpu.locked_mhz, "a lock by the agent that was started again", START_S)


def test_an_edge_agent_whose_driver_is_gone_at_its_end_does_not_fail_its_unit(host: Host) -> None:
    host.stub.state.init_error = stub_module.DRIVER_NOT_LOADED
    try:
        host.systemctl("stop", EDGE)
        assert (host.show(EDGE, "ActiveState"), host.show(EDGE, "Result")) == ("inactive", "success")
        # The command of ExecStopPost has run and failed, and says why.
        assert "Driver Not Loaded" in host.journal(EDGE)
    finally:
        host.stub.state.init_error = 0
        host.systemctl("start", EDGE)
    until(lambda: host.stub.gpu.locked_mhz, "a lock by the agent that was started again", START_S)


def test_without_its_drop_in_the_edge_agent_emulates_a_gpu_in_the_narrower_sandbox(host: Host) -> None:
    drop_in = host.path(f"{UNITS}/{EDGE}.service.d/nvml.conf")
    away = drop_in.rename(drop_in.with_suffix(".away"))
    try:
        host.systemctl("daemon-reload")
        host.systemctl("restart", EDGE)
        until(lambda: host.cell()["sm_mhz"] and not host.stub.gpu.locked_mhz, "the emulated GPU's clock")
        assert int(host.status_of(EDGE)["CapBnd"], 16) == 0
    finally:
        away.rename(drop_in)
        host.systemctl("daemon-reload")
        host.systemctl("restart", EDGE)
    until(lambda: host.stub.gpu.locked_mhz, "a lock by the agent of real GPUs", START_S)


def test_the_ptp_agent_hears_a_ptp4l_that_was_killed_and_is_started_again(host: Host) -> None:
    def news() -> list[str]:
        return re.findall(r"ue-1: (.*)", host.journal(PTP))

    until(lambda: news()[-1].startswith("SLAVE"), "a clock that follows", START_S)
    host.kill("ptp4l")
    until(lambda: any(n.startswith("not synchronised") for n in news()[-5:]), "the agent's notice")
    until(lambda: news()[-1].startswith("SLAVE"), "a clock that follows again", START_S)
    heard = len(news())
    host.kill(PTP)
    until(lambda: len(news()) > heard and news()[-1].startswith("SLAVE"), "news of the new agent", START_S)


def test_phc2sys_comes_and_goes_with_ptp4l(host: Host) -> None:
    def state() -> tuple[str, str]:
        return host.show("ptp4l", "ActiveState"), host.show("phc2sys", "ActiveState")

    assert state() == ("active", "active")
    host.systemctl("stop", "ptp4l")
    assert state() == ("inactive", "inactive")
    host.systemctl("start", "ptp4l")
    assert state() == ("active", "active")


def test_every_unit_ends_cleanly_and_gives_everything_back(host: Host) -> None:
    lapsed = until(lambda: host.gnb()["quotas"] and host.gnb(), "quotas")["ran"].get("leases_lapsed")
    until(lambda: host.stub.gpu.locked_mhz, "a clock lock")
    for unit in (CONTROLLER, PTP, EDGE, "ptp4l"):
        host.systemctl("stop", unit)
        assert (host.show(unit, "Result"), host.show(unit, "ExecMainStatus")) == ("success", "0"), unit
        assert "Traceback" not in host.journal(unit), unit
    until(lambda: not host.gnb()["quotas"], "the gNB released")
    assert host.gnb()["ran"].get("leases_lapsed") == lapsed
    assert host.stub.gpu.locked_mhz == 0
    assert config.load(host.path(f"{RECORD}/config.yaml")).cells[0].id == "cell-1"
