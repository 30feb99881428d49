"""This host's clock: what ptp4l says of it, through the code of ``ptp-agent``, else the kernel and chrony."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agents.ptp.client import SOCKETS, PtpClient, PtpError, PtpReading
from agents.ptp.phc import Phc, PhcError
from agents.ptp.watch import Status, Watch
from controller.cli.doctor.findings import Finding, fail, ok, skipped, warning
from controller.cli.doctor.host import Host

BOUND_US = 1000.0
"""``links.qos.clock_bound_us``, where there is no configuration."""
TAI_UTC_S = 37
"""TAI less UTC since 2017."""
_LOOK_S = 3.5
"""So long a Sync is waited for."""
_STA_UNSYNC = 0x40
_DAEMON = "deploy/linuxptp leads to ptp4l: systemctl start ptp4l phc2sys"


def check(host: Host) -> Iterator[Finding]:
    bound_us = host.config.links.qos.clock_bound_us if host.config else BOUND_US
    if host.unread and not host.ptp_sockets:
        yield skipped("clock", "no configuration")
        return
    if host.one_host and not host.ptp_sockets:
        yield skipped("clock", "every address is of loopback: all times are of one clock")
        return
    try:
        status, reading = _ptp(host)
    except PtpError as error:
        told = str(error)
        yield from _without_ptp(host, bound_us, "no ptp4l runs" if told.startswith("no ptp4l") else told)
        return
    except PhcError as error:
        readable = 'let its user read it: a udev rule SUBSYSTEM=="ptp", GROUP="prbandit", MODE="0640"'
        yield fail("clock", str(error), readable)
        return
    if not status.synchronised:
        watch = "journalctl -u ptp4l; on the source of time itself prbandit ptp-agent wants --grandmaster"
        yield fail("clock", f"ptp4l: not synchronised: {status.reason or status.state}", watch)
    elif abs(status.offset_ns) > bound_us * 1e3:
        text = f"ptp4l: {status.state}, off by {status.offset_ns / 1e3:.1f} us, more than {bound_us:g} us"
        remedy = "systemctl restart phc2sys, wait until it has settled; or raise links.qos.clock_bound_us"
        yield fail("clock", text, remedy)
    else:
        yield ok(
            "clock", f"ptp4l: {status.state} of {status.grandmaster}, off by {status.offset_ns / 1e3:.1f} us"
        )
    yield _tai(reading)


def _ptp(host: Host) -> tuple[Status, PtpReading]:
    """Read until a second Sync has come, or none does. Raises PtpError, PhcError."""
    client = PtpClient(host.ptp_sockets or SOCKETS)
    phc = Phc(host.phc) if host.phc else None
    watch = Watch()
    try:
        first = client.read()
        end = time.monotonic() + _LOOK_S
        reading = first
        while True:
            offset_ns = phc.compare(reading.utc_offset_s).offset_ns if phc else 0.0
            status = watch.update(reading, time.monotonic(), system_offset_ns=offset_ns)
            settled = reading.state != "SLAVE" or reading.ingress_ns != first.ingress_ns
            if settled or time.monotonic() >= end:
                return status, reading
            time.sleep(0.25)
            reading = client.read()
    finally:
        client.close()
        if phc:
            phc.close()


def _tai(reading: PtpReading) -> Finding:
    if reading.utc_offset_s in (0, TAI_UTC_S):
        scale = "UTC or its own" if not reading.utc_offset_s else f"TAI, {TAI_UTC_S} s ahead of UTC"
        return ok("clock", f"the network's time is {scale}")
    text = f"the grandmaster says that TAI is {reading.utc_offset_s} s ahead of UTC, it is {TAI_UTC_S} s"
    return warning("clock", text, "on the grandmaster: utc_offset 37 in ptp4l.conf, systemctl restart ptp4l")


def _without_ptp(host: Host, bound_us: float, why: str) -> Iterator[Finding]:
    """No PTP: what is known is what the kernel is told."""
    stamps = {"edge", "ue"} & set(host.roles)
    said = fail if stamps else warning
    kernel = adjtimex()
    daemon = _chrony() or ("the kernel's clock is disciplined" if kernel and kernel.synchronised else "")
    if kernel is None:
        yield said("clock", f"{why}, and the kernel does not tell of its clock", _DAEMON)
    elif not kernel.synchronised:
        text = f"nothing synchronises this host's clock ({why})"
        yield said("clock", text, f"{_DAEMON}; or systemctl enable --now chrony")
    elif kernel.max_error_us > bound_us:
        text = (
            f"{daemon}, {why}; off by up to {kernel.max_error_us:g} us, hop delays need {bound_us:g} us:"
            " they are not learned from, round trips are"
        )
        yield warning("clock", text, _DAEMON)
    else:
        yield ok("clock", f"{daemon}, {why}; off by up to {kernel.max_error_us:g} us")


def _chrony() -> str:
    """What chronyd says of itself; "" where it is not there."""
    if not shutil.which("chronyc"):
        return ""
    try:
        done = subprocess.run(["chronyc", "-c", "tracking"], capture_output=True, text=True, timeout=2)
        fields = done.stdout.strip().split(",")
        return f"chrony follows {fields[1] or fields[0]}, off by {float(fields[4]) * 1e6:.0f} us"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return ""


@dataclass(frozen=True, slots=True)
class KernelClock:
    """What adjtimex(2) tells; the error is the bound that its daemon gave."""

    synchronised: bool
    max_error_us: float


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        ("rest", ctypes.c_byte * 128),
    )


def adjtimex() -> KernelClock | None:
    """Read the kernel's clock, changing nothing; None where that is not permitted."""
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return KernelClock(not timex.status & _STA_UNSYNC, float(timex.maxerror))
