"""Real ptp4l in network namespaces of the test's own, a relay of ours between them.

A ptp4l steers the system clock. The kernel keeps every ptp4l here from it: a seccomp filter answers
clock_adjtime, adjtimex, clock_settime and settimeofday with success and does nothing, so ptp4l's servo and
port state machine run as always, and the machine's clock is not moved.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.agents.ptp.hands_off import CLOCK_CALLS

PATIENCE_S = 60.0
HERE = Path(__file__).parent


def missing() -> str:
    """Why real ptp4l cannot be run here; empty where it can."""
    tools = [tool for tool in ("ptp4l", "pmc", "ip") if not shutil.which(tool)]
    if tools:
        return f"{', '.join(tools)} not installed (apt install linuxptp iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if platform.machine() not in CLOCK_CALLS:
        return f"no seccomp filter for {platform.machine()}: ptp4l would steer this machine's clock"
    probe = f"prbandit-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "network namespaces cannot be made here"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def wait_for(what: str, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"not within {patience_s:g} s: {what}"
        time.sleep(0.05)


CONFIG = """\
[global]
time_stamping software
network_transport L2
uds_address {socket}
logAnnounceInterval -2
logSyncInterval -3
logMinDelayReqInterval -3
announceReceiptTimeout 3
pi_proportional_const 0.7
pi_integral_const 0.3
sanity_freq_limit 0
delay_filter_length 4
{more}
[{interface}]
"""


class Pair:
    """Two hosts, ``client`` and ``master``, in namespaces, and a relay between their interfaces.

    The relay passes Ethernet frames and holds those from the master up by ``delay_s``: a path delay that is
    really asymmetric, so ptp4l measures an offset of half of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tag = f"prb{os.getpid() % 10_000}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._namespaces = {side: f"{self._tag}-{side}" for side in ("client", "master", "relay")}
        for name in self._namespaces.values():
            ip("netns", "add", name)
        relay = self._namespaces["relay"]
        for side in ("client", "master"):
            inner, outer = f"{self._tag}{side[0]}", f"{self._tag}{side[0]}r"
            ip("-n", relay, "link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("-n", relay, "link", "set", inner, "netns", self._namespaces[side])
            ip("-n", relay, "link", "set", outer, "up")
            ip("-n", self._namespaces[side], "link", "set", inner, "up")
        self._delay = folder / "delay"
        self.delay(0.0)
        self._start(
            "relay",
            [sys.executable, str(HERE / "relay.py"), f"{self._tag}mr", f"{self._tag}cr", str(self._delay)],
        )

    def socket(self, side: str) -> Path:
        return self.folder / f"ptp4l-{side}"

    def delay(self, seconds: float) -> None:
        """Hold what comes from the master up for so long from now on."""
        scratch = self._delay.with_suffix(".new")
        scratch.write_text(str(seconds))
        scratch.replace(self._delay)

    def ptp4l(self, side: str, *settings: str) -> None:
        """Start ptp4l on a side with further lines of configuration."""
        config = self.folder / f"{side}.conf"
        interface = f"{self._tag}{side[0]}"
        config.write_text(
            CONFIG.format(socket=self.socket(side), more="\n".join(settings), interface=interface)
        )
        log = str(self.folder / f"{side}.log")
        self._start(side, [sys.executable, str(HERE / "hands_off.py"), "ptp4l", "-m", "-f", str(config)], log)

    def _start(self, side: str, command: Sequence[str], log: str = os.devnull) -> None:
        with open(log, "ab") as out:
            inside = ["ip", "netns", "exec", self._namespaces[side], *command]
            self._processes[side] = subprocess.Popen(inside, stdout=out, stderr=subprocess.STDOUT)

    def signal(self, side: str, number: signal.Signals) -> None:
        """Send a signal to a side's ptp4l (``ip netns exec`` has become it)."""
        self._processes[side].send_signal(number)

    def kill(self, side: str) -> None:
        process = self._processes.pop(side)
        process.kill()
        process.wait()

    def pmc(self, side: str, *data_sets: str) -> dict[str, str]:
        """What linuxptp's own client reads, field by field."""
        get = [f"GET {name}" for name in data_sets]
        command = ["pmc", "-u", "-b", "0", "-s", str(self.socket(side)), *get]
        out = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=self.folder).stdout
        rows = (line.split(maxsplit=1) for line in out.splitlines() if line.startswith("\t\t"))
        return {row[0]: row[1] for row in rows}

    def log(self, side: str) -> str:
        path = self.folder / f"{side}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for side in list(self._processes):
            self.kill(side)
        for name in self._namespaces.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


_MISSING = missing()
if _MISSING and os.environ.get("PRBANDIT_REQUIRE_PTP"):
    raise RuntimeError(f"real ptp4l is required here: {_MISSING}")
needs_linuxptp = pytest.mark.skipif(bool(_MISSING), reason=f"real ptp4l: {_MISSING}")
