"""Who may call what: every certificate against every method; a server that shows another's certificate."""

from __future__ import annotations

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import grpc
import zmq

from tests.chaos.attacks import Gnb, hello, qos_hello
from tests.chaos.report import Outcome
from tests.chaos.world import CELL, SERVERS, World
from wire.roles import METHODS, METRICS_READERS, ROLES
from wire.security import Tls, grpc_channel

_REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def may(world: World, method: str, tls: Tls | None) -> bool:
    """Whether a caller with the certificate of ``tls`` gets past the question who it is."""
    socket_ = "operator" if method.startswith("/grpc.") else method.split(".")[1]
    # What does not parse is refused after the question who it is: nobody is to end the controller.
    ends = method.endswith("ShutDown")
    request = qos_hello(host="roles") if socket_ == "qos" else b"\xff" if ends else b""
    address, server = f"127.0.0.1:{world.ports[socket_]}", SERVERS[socket_]
    with grpc_channel(address, tls, server_role=server) as channel:
        call = channel.stream_stream(method)(iter([request]), timeout=5)
        try:
            next(iter(call), None)
            return True
        except grpc.RpcError as error:
            return error.code() not in (*_REFUSED, grpc.StatusCode.UNAVAILABLE)
        finally:
            call.cancel()


def roles(world: World, rng: random.Random, seconds: float) -> Outcome:
    """The table role x method, with a stranger's certificate and with none."""
    assert world.keys is not None
    out = Outcome()
    strangers = [("a stranger", _stranger(world)), ("nobody", None)]
    for method, allowed in METHODS.items():
        for name, tls in [*((r, Tls(world.keys, r)) for r in ROLES), *strangers]:
            out.sent += 1
            if may(world, method, tls) != (name in allowed):
                out.broken.append(f"{name} {'may not' if name in allowed else 'may'} call {method[1:]}")
    for name, tls in [*((r, Tls(world.keys, r)) for r in ROLES), *strangers]:
        out.sent += 1
        with suppress(OSError):
            world.page(tls)
            if name not in METRICS_READERS:
                out.broken.append(f"{name} may read the metrics page")
    with zmq.Context() as context:
        gnb = Gnb(world, context, b"stranger", world.folder / "other-keys")
        out.sent += 1
        gnb.socket.send(hello(CELL))
        if gnb.socket.poll(2000):
            out.broken.append("a CURVE key that is not known gets an answer")
        gnb.socket.close()
    return out


def _stranger(world: World) -> Tls:
    """A certificate of another authority, with ours beside it: it takes our servers."""
    assert world.keys is not None
    folder = world.folder / "stranger"
    shutil.copytree(world.folder / "other-keys", folder, dirs_exist_ok=True)
    shutil.copy(world.keys / "ca.crt", folder)
    return Tls(folder, "controller")


def server_roles(world: World, rng: random.Random, seconds: float) -> Outcome:
    """A server with another role's certificate in the edge agent's place: no client must take it."""
    assert world.keys is not None
    out = Outcome()
    for role in ROLES:
        if role == "edge-agent" or (seconds < 10 and role != "gnb-mock"):
            continue
        folder = Path(world.folder / f"as-{role}")
        shutil.copytree(world.keys, folder, dirs_exist_ok=True)
        for suffix in ("crt", "key"):
            shutil.copy(world.keys / f"{role}.{suffix}", folder / f"edge-agent.{suffix}")
        world.kill("edge-agent")
        right, world.keys = world.keys, folder
        try:
            world.start("edge-agent")
        finally:
            world.keys = right
        out.sent += 1
        time.sleep(4.0)
        if world.wait(lambda: world.cell()["edge_connected"], 3.0) is not None:
            out.broken.append(f"the controller takes {role}'s certificate for the edge agent's")
        world.kill("edge-agent")
        world.start("edge-agent")
        out.to_control.append(world.control())
        if world.wait(lambda: world.cell()["edge_connected"], 20.0) is None:
            out.broken.append("the right edge agent is not taken up again within 20 s")
    return out
