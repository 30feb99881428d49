"""A gNB host: the OAI tree, and the module that was built for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from controller.cli.doctor.findings import Finding, fail, ok, skipped
from controller.cli.doctor.host import Host
from controller.cli.oai import judge, load_table, tree_reader

_LOAD_S = 10.0
_LOAD = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], mode=os.RTLD_LAZY | os.RTLD_LOCAL)"
_BUILD = "build it as oai_patches/README.md says"


def check(host: Host) -> Iterator[Finding]:
    if host.oai is None and host.module is None:
        yield skipped("OAI module", "no --oai TREE and no --module LIBRARY")
    if host.oai is not None:
        yield _tree(host.oai)
    if host.module is not None:
        yield _module(host.module)


def _tree(path: Path) -> Finding:
    try:
        read = tree_reader(path)
        if read("openair2/LAYER2/NR_MAC_gNB/nr_mac_gNB.h") is None:
            return fail(
                "OAI tree", f"{path} is no OpenAirInterface tree", "--oai TREE: the checkout of OAI itself"
            )
        found = judge(read, load_table()).nearest
    except click.ClickException as error:
        return fail("OAI tree", error.format_message(), "run this from PRBandit's source tree")
    if found.supported:
        return ok("OAI tree", f"{path} is supported, as version {found.version}")
    text = f"{path} is not supported: {found.lacking} of {found.needs} names are missing"
    return fail(
        "OAI tree", text, f"`prbandit oai check {path}` names them; git checkout {found.commit} there"
    )


def _module(path: Path) -> Finding:
    """Load it in a process of its own: a library may do anything when it is loaded."""
    if not path.is_file():
        return fail("OAI module", f"{path}: there is no such file", _BUILD)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, str(path.absolute())],
            capture_output=True,
            text=True,
            timeout=_LOAD_S,
        )
    except subprocess.TimeoutExpired:
        return fail("OAI module", f"{path} does not return from being loaded", _BUILD)
    if done.returncode == 0:
        return ok("OAI module", f"{path} can be loaded")
    why = (done.stderr.strip().splitlines() or [f"it ends the process ({done.returncode})"])[-1]
    why = why.removeprefix("OSError: ")
    if "undefined symbol" in why:
        return ok("OAI module", f"{path} can be loaded; what it lacks here is the softmodem's own ({why})")
    remedy = "apt install libzmq5 libprotobuf-nanopb0" if "No such file" in why else _BUILD
    return fail(
        "OAI module", f"{path} cannot be loaded: {why}", f"`ldd {path}` names what is missing; {remedy}"
    )
