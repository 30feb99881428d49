"""The other ends of this host's links: reached, with the right keys, and of which version."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import zmq

from controller.cli.doctor.findings import Finding, fail, ok, skipped, warning
from controller.cli.doctor.host import Host, here
from controller.links.health import complaints
from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, qos_pb2, qos_pb2_grpc
from wire.roles import CONTROLLER, EDGE_AGENT
from wire.security import KeyFileError, Tls, address_fault, address_parts, curve_client, grpc_channel
from wire.version import full_version


def edge_agent(host: Host) -> Iterator[Finding]:
    """The edge agent of a controller."""
    name = "edge agent"
    if not host.edge:
        yield skipped(name, "no configuration" if host.unread else "links.edge.address is null")
        return
    start = "start it on its host: systemctl start prbandit-edge-agent (deploy/systemd)"

    def hello(channel: grpc.Channel) -> Iterator[Finding]:
        request = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder="prbandit doctor")
        welcome: Any = edge_pb2_grpc.EdgeStub(channel).Hello(request, timeout=host.answer_s)
        gpus = ", ".join(f"{gpu.name} ({gpu.backend})" for gpu in welcome.gpus) or "no GPU"
        yield ok(name, f"{host.edge} answers: {gpus}")
        yield _versions(name, host.edge, welcome.agent_version)

    yield from _grpc(host, name, host.edge, EDGE_AGENT, start, hello)


def qos_ingest(host: Host) -> Iterator[Finding]:
    """The controller's QoS ingest, for a host of an application."""
    name = "QoS ingest"
    if not host.qos:
        yield skipped(name, "no --qos CONTROLLER:50062")
        return

    def list_ues(channel: grpc.Channel) -> Iterator[Finding]:
        request = qos_pb2.ListUesRequest(protocol_version=PROTOCOL_VERSION, cell_id=host.cell)
        reply: Any = qos_pb2_grpc.QosIngestStub(channel).ListUes(request, timeout=host.answer_s)
        yield ok(
            name,
            f"{host.qos} answers; UEs of the cell: {', '.join(u.ue_id for u in reply.ues) or 'none yet'}",
        )

    yield from _grpc(host, name, host.qos, CONTROLLER, _START, list_ues)


_START = "start the controller: systemctl start prbandit-controller, or prbandit controller CONFIG"


def controller(host: Host) -> Iterator[Finding]:
    """A controller that runs: its version, and whether it is well."""
    name = "controller"
    if not host.operator:
        if host.unread:
            yield skipped(name, "no configuration")
            return
        yield skipped(name, "no operator API: links.operator.address, --operator CONTROLLER:50063")
        return
    if "controller" in host.roles and not _listens(host):
        yield skipped(name, f"none runs here: nobody listens on {host.operator}")
        return
    state = host.controller()
    if isinstance(state, str):
        found = (
            [] if "controller" in host.roles else [*_reached(host, name, host.operator, CONTROLLER, _START)]
        )
        if "protocol_version" in state:
            found = [fail(name, state, _VERSIONS)]
        yield from found or [fail(name, state, f"give --keys DIR where it has keys; {_START}")]
        return
    yield _versions(name, host.operator, state["version"])
    yield from _configured(host, name, state)
    if wrong := complaints(state):
        text = "runs and is degraded:\n" + "\n".join(wrong)
        yield warning(
            name, text, f"`prbandit status --operator {here(host.operator)}` says what becomes of it"
        )
    else:
        yield ok(name, f"runs and is healthy, run {state['run_dir'] or 'not recorded'}")


def _configured(host: Host, name: str, state: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether a controller of this configuration's file runs with what is in it now."""
    if host.config is None or not host.is_of(state, None) or state["config_hash"] == host.config.digest:
        return
    text = f"runs with configuration {state['config_hash']}, {host.config_file} is {host.config.digest} now"
    where = f"--operator {here(host.operator)}" + (f" --keys {host.keys}" if host.keys else "")
    yield warning(name, text, f"`prbandit reload {where}` takes it over; what it cannot, a restart does")


def _listens(host: Host) -> bool:
    """Whether anybody does at the operator API's address."""
    try:
        parts = address_parts(here(host.operator), "grpc")
        if parts is not None:
            socket.create_connection(parts, timeout=host.answer_s).close()
    except (OSError, ValueError):
        return False
    return True


_VERSIONS = "install the same version of PRBandit on both hosts"


def _versions(name: str, address: str, version: str) -> Finding:
    check = f"version {name}"
    if version == full_version():
        return ok(check, f"{version}, as this host; protocol {PROTOCOL_VERSION}")
    text = f"{address} runs {version or 'an unknown version'}, this host has {full_version()}"
    return warning(check, text, _VERSIONS)


def _grpc(
    host: Host,
    name: str,
    address: str,
    role: str,
    start: str,
    call: Callable[[grpc.Channel], Iterator[Finding]],
) -> Iterator[Finding]:
    """Connect, shake hands, then ``call``; every step within the time for an answer."""
    certificate = host.certificate()
    faults = [*_reached(host, name, address, role, start)]
    if faults:
        yield from faults
        return
    try:
        with grpc_channel(
            here(address), host.tls(certificate), server_role=role, missing="--keys"
        ) as channel:
            yield from call(channel)
    except grpc.RpcError as error:
        yield _call_failed(host, name, address, error, start)
    except (ValueError, OSError) as error:
        yield fail(name, str(error), "`prbandit keys` writes the keys; --keys DIR, security.keys")


def _call_failed(host: Host, name: str, address: str, error: Any, start: str) -> Finding:
    code, details = error.code(), error.details()
    text = f"{address}: {details}"
    if code is grpc.StatusCode.FAILED_PRECONDITION and "protocol_version" in details:
        return fail(name, text, _VERSIONS)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        silent = f"{address} accepts connections and does not answer within {host.answer_s:g} s"
        return fail(name, silent, f"see what listens there (`ss -ltnp` on its host); {start}")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return fail(name, text, "show the certificate of the right role (wire/roles.py): `prbandit keys`")
    if code is grpc.StatusCode.UNAVAILABLE:
        return fail(
            name, f"{address} is no gRPC server of ours, or needs keys: {details}", f"--keys DIR; {start}"
        )
    return fail(name, text, f"see the log of {name}")


def _reached(host: Host, name: str, address: str, role: str, start: str) -> Iterator[Finding]:
    """What is wrong on the way there: no way, nobody, or TLS that does not come about."""
    tls = host.tls(host.certificate())
    if fault := address_fault(address, "grpc", secured=tls is not None, missing="--keys"):
        yield fail(name, str(fault), "set the address, or --keys DIR")
        return
    parts = address_parts(here(address), "grpc")
    if parts is None:
        return
    try:
        connection = socket.create_connection(parts, timeout=host.answer_s)
    except OSError as error:
        yield _unreached(name, address, error, start, host.answer_s)
        return
    with connection:
        if tls is not None:
            yield from _handshake(connection, tls, name, address, role, host.answer_s)


def _unreached(name: str, address: str, error: OSError, start: str, within_s: float) -> Finding:
    if isinstance(error, ConnectionRefusedError):
        return fail(name, f"{address}: nobody listens there", start)
    if isinstance(error, TimeoutError):
        text = f"{address}: no answer within {within_s:g} s"
        return fail(name, text, "`ping` its host; open the port in the firewalls between")
    if isinstance(error, socket.gaierror):
        return fail(
            name, f"{address}: {error.strerror}", "put the name into DNS or /etc/hosts, or give an address"
        )
    return fail(name, f"{address}: {error.strerror or error}", "`ip route get HOST` tells the way there")


def _handshake(
    connection: socket.socket, tls: Tls, name: str, address: str, role: str, within_s: float
) -> Iterator[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(tls.ca_file)
        context.load_cert_chain(tls.certificate_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        yield fail(name, f"keys of {tls.folder}: {error.strerror or error}", "see the lines on keys")
        return
    connection.settimeout(within_s)
    same = "both hosts need files of one folder of `prbandit keys`: copy ca.crt and the pairs anew"
    try:
        with context.wrap_socket(connection, server_hostname=role) as wrapped:
            # With TLS 1.3 a certificate of ours that is refused is told after the handshake.
            if not wrapped.recv(1):
                yield fail(name, f"{address} refuses this host's certificate {tls.certificate_file}", same)
    except ssl.SSLCertVerificationError as error:
        if "ostname mismatch" in error.verify_message:
            yield fail(name, f"{address} shows a certificate that is not of role {role}", same)
        else:
            remedy = "renew it there: `prbandit keys`" if "expired" in error.verify_message else same
            yield fail(name, f"{address}: its certificate: {error.verify_message}", remedy)
    except TimeoutError:
        text = f"{address} accepts connections and says nothing of TLS within {within_s:g} s"
        yield fail(name, text, "see what listens there (`ss -ltnp` on its host)")
    except ssl.SSLError as error:
        why = error.reason or str(error)
        if "ALERT" in why:
            yield fail(name, f"{address} refuses this host's certificate {tls.certificate_file}: {why}", same)
        else:
            text = f"{address} does not speak TLS: {why}"
            yield fail(name, text, "it runs without keys: give both ends --keys, or see what listens there")
    except OSError as error:
        yield fail(name, f"{address} ends the connection: {error.strerror or error}", same)


# ---- RAN ------------------------------------------------------------------------------------------------


def ran_link(host: Host) -> Iterator[Finding]:
    """The controller's RAN port, as a gNB's agent connects to it. Nothing is sent but the handshake."""
    name = "RAN link"
    if not host.ran:
        yield skipped(name, "no --ran tcp://CONTROLLER:5555")
        return
    if fault := address_fault(host.ran, "zmq", secured=host.keys is not None, missing="--keys"):
        yield fail(name, str(fault), "set the address, or --keys DIR")
        return
    curve = None
    if host.keys:
        try:
            curve = curve_client(host.keys, host.cell)
        except KeyFileError as error:
            yield fail(
                name, str(error), f"`prbandit keys DIR --cell {host.cell or 'CELL'}`, and copy the files here"
            )
            return
    parts = address_parts(here(host.ran), "zmq")
    assert parts is not None
    try:
        socket.create_connection(parts, timeout=host.answer_s).close()
    except OSError as error:
        yield _unreached(name, host.ran, error, _START, host.answer_s)
        return
    yield _shaken(host, name, curve)


def _shaken(host: Host, name: str, curve: Any) -> Finding:
    """What becomes of the ZMTP handshake."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.HANDSHAKE_IVL, round(host.answer_s * 1e3))
        dealer.setsockopt(zmq.IPV6, int("[" in host.ran))
        if curve is not None:
            curve.apply(dealer)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        events |= zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        monitor = dealer.get_monitor_socket(events)
        try:
            dealer.connect(here(host.ran))
            seen = _event(monitor, host.answer_s + 0.5)
        finally:
            dealer.disable_monitor()
            monitor.close(0)
    allow = (
        f"the controller needs curve/cells/{host.cell}.pub of this host's pair, then `prbandit reload` there"
    )
    if seen == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return ok(
            name,
            f"{host.ran} is a controller" + (f" that takes the key of cell {host.cell}" if curve else ""),
        )
    if seen == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return fail(name, f"{host.ran} refuses the key of cell {host.cell}", allow)
    if curve is None:
        return fail(
            name, f"{host.ran} is no controller without keys", "give --keys DIR; or see what listens there"
        )
    text = f"{host.ran} does not complete the CURVE handshake: another controller's key, or no controller"
    return fail(name, text, f"copy curve/controller.pub from the controller's folder; {allow}")


def _event(monitor: Any, timeout_s: float) -> int:
    """The first event of a handshake; 0 where none comes."""
    end = time.monotonic() + timeout_s
    while monitor.poll(max(0, round((end - time.monotonic()) * 1e3))):
        number = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
        if number:
            return number
    return 0
