"""Whether this host's addresses can be listened on, and who has those that cannot."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import cast

from controller.cli.doctor import proc
from controller.cli.doctor.findings import Finding, fail, ok, skipped
from controller.cli.doctor.host import Host
from wire.security import Kind, address_parts


def check(host: Host) -> Iterator[Finding]:
    for setting, (address, kind) in host.listens.items():
        yield _port(host, setting, address, cast(Kind, kind))


def _port(host: Host, setting: str, address: str, kind: Kind) -> Finding:
    name = f"port {setting}"
    other = f"set {setting} to an address of this host (`ip address` lists them)"
    try:
        parts = address_parts(address, kind)
    except ValueError as error:
        return fail(name, str(error), f"set {setting}")
    if parts is None:
        return skipped(name, f"{address} is a Unix socket")
    try:
        family, type_, protocol, _, where = socket.getaddrinfo(*parts, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, type_, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _in_use(host, name, setting, address, parts[1])
        if error.errno == errno.EACCES:
            return fail(name, f"{address}: {error.strerror}", f"set {setting} to a port of 1024 or more")
        return fail(name, f"{address} cannot be listened on: {error.strerror or error}", other)
    return ok(name, f"{address} is free")


def _in_use(host: Host, name: str, setting: str, address: str, port: int) -> Finding:
    owners = proc.listeners(port)
    owner = next((p for p in owners if p.runs("controller") or p.runs("edge-agent")), None)
    who = owner or (owners[0] if owners else None)
    if owner is None and who is not None:
        stop = f"stop it (`kill {who.pid}`), or set {setting} to another port"
        return fail(name, f"{address}: {who} has it", stop)
    if setting.startswith("--"):
        if owner is not None and owner.runs("edge-agent"):
            return ok(name, f"{address}: the edge agent that runs has it, {owner}")
    elif not isinstance(state := host.controller(), str):
        runs = f"the controller that runs{f', {owner},' if owner else ''}"
        if host.is_of(state, owner.pid if owner else None):
            return ok(name, f"{address}: {runs} has it")
        stop = f"stop it{f' (`kill {owner.pid}`)' if owner else ''}, or set {setting} to another port"
        return fail(
            name, f"{address}: {runs} has it, with another configuration: {state['config_path']}", stop
        )
    elif owner is not None:
        text = f"{address}: {owner} has it, but does not answer an operator: {state}"
        return fail(name, text, f"`kill {owner.pid}` where it hangs; with keys give --keys")
    if owner is not None:
        return fail(name, f"{address}: {owner} has it", f"stop it (`kill {owner.pid}`), or set {setting}")
    look = f"`sudo ss -ltnp 'sport = :{port}'` names it; stop it, or set {setting} to another port"
    return fail(name, f"{address}: a process of another user has it", look)
