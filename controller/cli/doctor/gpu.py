"""The GPUs of an edge host: found, and may their clocks be locked. Nothing is set."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from agents.gpu.device import GpuDevice, GpuError
from controller.cli.doctor import proc
from controller.cli.doctor.findings import Finding, fail, ok, skipped, warning
from controller.cli.doctor.host import Host, here

_UNIT = "deploy/systemd/prbandit-edge-agent.service.d/nvml.conf gives it (AmbientCapabilities=CAP_SYS_ADMIN)"


def check(host: Host) -> Iterator[Finding]:
    if host.backend == "emulated":
        yield skipped("GPU", "--backend emulated")
        return
    from agents.gpu.nvml import PACKAGE, find_gpus

    try:
        devices, missing = find_gpus(host.gpus)
    except GpuError as error:
        yield fail("GPU", str(error), _remedy(str(error)))
        return
    try:
        yield ok("GPU", f"nvidia-ml-py {_installed()} ({PACKAGE}), driver answers")
        for gone in missing:
            yield fail(
                "GPU", f"{gone.name}: {gone.error}", f"nvidia-smi -i {gone.name} says more; nvidia-smi -r"
            )
        for device in devices:
            yield _gpu(device)
        yield from _permission(host)
    finally:
        for device in devices:
            device.close()


def _installed() -> str:
    try:
        return version("nvidia-ml-py")
    except PackageNotFoundError:
        return "of an unknown version"


def _remedy(text: str) -> str:
    """The command that an error of the NVML backend names, or where to look."""
    _, colon, command = text.rpartition(": ")
    return command if colon and "pip " in command else "nvidia-smi on this host says more; modprobe nvidia"


def _gpu(device: GpuDevice) -> Finding:
    info = device.info
    if not info.supported_sm_mhz:
        text = f"{info.name} ({info.uuid}) lists no clocks: it can be watched, not locked"
        return warning(
            "GPU", text, "links.edge.address: null leaves the clock alone; or choose another --gpu"
        )
    low, high = info.supported_sm_mhz[0], info.supported_sm_mhz[-1]
    return ok("GPU", f"{info.name} ({info.uuid}): {len(info.supported_sm_mhz)} clocks, {low} to {high} MHz")


def _permission(host: Host) -> Iterator[Finding]:
    """Whether clocks may be set: CAP_SYS_ADMIN of who is to do it, and what a running agent was refused."""
    agents = [p for p in proc.processes() if p.runs("edge-agent") and p.option("--backend") == "nvml"]
    if len(agents) > 1:
        others = "; ".join(map(str, agents))
        yield warning("GPU", f"several agents lock this host's clocks: {others}", f"kill {agents[-1].pid}")
    who: tuple[int | str, str] = ("self", "this user")
    if agents:
        who = (agents[0].pid, f"the edge agent that runs, {agents[0]},")
    capable = proc.has_capability(proc.CAP_SYS_ADMIN, who[0])
    if capable is False:
        yield fail("GPU permission", f"{who[1]} has no CAP_SYS_ADMIN: clocks can be read, not locked", _UNIT)
    elif capable is None:
        yield skipped("GPU permission", f"the capabilities of {who[1]} cannot be read: run this as root")
    elif refused := _refused(host):
        text = f"the driver has refused {refused} calls of the edge agent that runs for want of permission"
        yield fail(
            "GPU permission",
            text,
            f"run the agent on the host itself or a container with the capability; {_UNIT}",
        )
    else:
        yield ok("GPU permission", f"{who[1]} has CAP_SYS_ADMIN: clocks may be locked")


def _refused(host: Host) -> int:
    """What the agent's metrics say of it; 0 where they do not, or nobody serves them."""
    if not host.edge_metrics:
        return 0
    try:
        with urllib.request.urlopen(
            f"http://{here(host.edge_metrics)}/metrics", timeout=host.answer_s
        ) as page:
            text = page.read(1 << 20).decode(errors="replace")
    except OSError:
        return 0
    found = re.search(
        r'^prbandit_agent_errors_total\{error="no_permission"\} ([0-9.e+]+)$', text, re.MULTILINE
    )
    return int(float(found[1])) if found else 0
