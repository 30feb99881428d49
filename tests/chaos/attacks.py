"""Attacks by messages and connections. Each takes the world, a generator and seconds; see Outcome."""

from __future__ import annotations

import itertools
import random
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import zmq

from controller.links import ran_protocol
from controller.links.counters import guard_counters
from tests.chaos.inputs import BANNERS, hostile
from tests.chaos.report import Outcome
from tests.chaos.world import ATTACKER, CELL, PRB, SERVERS, World
from wire import PROTOCOL_VERSION, edge_pb2, operator_pb2, qos_pb2, ran_pb2
from wire.security import curve_client, grpc_channel

QOS_REFUSED = frozenset(
    {"qos_refused_total", "qos_stream_refused_total", "qos_version_mismatch_total", *guard_counters("qos")}
)
OPERATOR_REFUSED = frozenset(
    {
        *("operator_refused_total", "operator_version_mismatch_total", "operator_errors_total"),
        *guard_counters("operator"),
    }
)
MAX_ENDLESS_BYTES = 64 << 20
BATCH = 40
"""Messages between two fences: answers beyond its high-water mark are dropped by the controller."""
CALLS = 8
"""Calls at a time: what gRPC itself refuses beyond a bound of its own is not the service's to count."""


# ---- RAN link -------------------------------------------------------------------------------------------


def hello(cell: str, version: int = PROTOCOL_VERSION) -> bytes:
    tdd = ran_pb2.TddPattern(period_slots=5, dl_slots=1, dl_symbols=10, ul_symbols=2, ul_slots=3)
    body = ran_pb2.Hello(protocol_version=version, cell_id=cell, prb=PRB, scs_khz=30, tdd=tdd)
    return ran_pb2.GnbMessage(hello=body).SerializeToString()


def report(session: int, sequence: int) -> bytes:
    body = ran_pb2.MacReport(session=session, sequence=sequence, frame=7, slot=3, time_ns=time.time_ns())
    for i in range(3):
        ue = body.ues.add(rnti=0x4601 + i, ue_id=f"ue-{i}", slice="ar", cqi=12, snr_db=20.0)
        for state in (ue.ul, ue.dl):
            state.mcs, state.queued_bytes = 20, 1000
        ue.snssai.sst, ue.snssai.sd, ue.five_qi, ue.priority_level = 1, 1, 80, 68
        ue.dl_channels.add(lcid=4, queued_bytes=1000)
    return ran_pb2.GnbMessage(mac_report=body).SerializeToString()


class Gnb:
    """A DEALER with the key of :data:`ATTACKER`."""

    def __init__(self, world: World, context: zmq.Context, identity: bytes, keys: Path | None = None) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.LINGER, 0)
        if keys or world.keys:
            curve_client(keys or world.keys, CELL if keys else ATTACKER).apply(self.socket)
        self.socket.connect(f"tcp://127.0.0.1:{world.ports['ran']}")
        self.session = 0

    def fence(self, mark: int) -> int:
        """Waits until all that was sent is dealt with: a Hello of version ``mark`` is refused after it.

        Returns how many it took, as an answer may be dropped; 0 where none came within 20 s.
        """
        for tries in range(1, 11):
            with suppress(zmq.Again):
                self.socket.send(hello(ATTACKER, mark), zmq.NOBLOCK)
            while self.socket.poll(2000):
                answer = ran_pb2.ControllerMessage.FromString(self.socket.recv())
                if answer.HasField("welcome"):
                    self.session = answer.welcome.session
                if answer.HasField("reject") and answer.reject.agent_version == mark:
                    return tries
        return 0


def ran_messages(world: World, rng: random.Random, seconds: float) -> Outcome:
    """Everything that one connection may send, of a cell whose key it has; all of it is accounted for."""
    before = world.counters()
    out = Outcome(counters=frozenset(ran_protocol.REFUSED))
    with zmq.Context() as context:
        gnb = Gnb(world, context, rng.randbytes(5))
        gnb.socket.send(hello(ATTACKER))
        out.sent, mark, end = 1, 1000, time.monotonic() + seconds
        while (tries := gnb.fence(mark)) and time.monotonic() < end:
            out.sent, mark = out.sent + tries + BATCH, mark + 1
            # In the phase without keys any peer may be the other cell.
            others = [hello("cell-x"), *([hello(CELL)] if world.keys else [])]
            valid = [hello(ATTACKER), *others, *(report(gnb.session, n) for n in (1, 2, 500))]
            for _ in range(BATCH):
                data = hostile(rng, valid, 40_000)
                parts = [data] * rng.choice((2, 3, 50)) if rng.random() < 0.02 else [data]
                gnb.socket.send_multipart(parts)
        out.sent += tries
        gnb.socket.close()
        after = world.counters()
        taken = ((name, ATTACKER) for name in ran_protocol.TAKEN)
        out.taken = round(sum(after.get(key, 0.0) - before.get(key, 0.0) for key in taken))
    if not tries:
        out.broken.append("no answer within 20 s to a Hello of another version")
    return out


def ran_breaks(world: World, rng: random.Random, seconds: float) -> Outcome:
    """One routing id on connections that each send more than the high-water mark and then break."""
    out, end = Outcome(), time.monotonic() + seconds
    while time.monotonic() < end:
        with zmq.Context() as context:
            gnbs = [Gnb(world, context, b"gnb") for _ in range(3)]
            for gnb in gnbs:
                gnb.socket.setsockopt(zmq.SNDHWM, 0)
                for n in range(3000):
                    gnb.socket.send(report(1, n))
                out.sent += 3000
            time.sleep(rng.uniform(0.02, 0.3))
            for gnb in gnbs:
                gnb.socket.close(0)
    return out


def ran_endless(world: World, rng: random.Random, seconds: float) -> Outcome:
    """A multipart message without an end, in ZMTP by hand: libzmq sends whole messages alone."""
    out, end = Outcome(), time.monotonic() + seconds
    frame = b"\x03" + (1 << 16).to_bytes(8, "big") + rng.randbytes(1 << 16)
    small = b"\x01\x04abcd" * 10_000
    sent = 0
    while time.monotonic() < end and sent < MAX_ENDLESS_BYTES:
        with suppress(OSError), socket.create_connection(("127.0.0.1", world.ports["ran"]), timeout=5) as raw:
            raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32))
            ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x01e"
            raw.sendall(b"\x04" + bytes((len(ready),)) + ready)
            while time.monotonic() < end and sent < MAX_ENDLESS_BYTES:
                data = rng.choice((frame, small))
                raw.sendall(data)
                sent += len(data)
                out.sent += 1 if data is frame else 10_000
    return out


def ran_twin(world: World, rng: random.Random, seconds: float) -> Outcome:
    """A second gNB with the same cell id and key: the one that is there stays."""
    known = world.processes["gnb-mock"]
    twin = world.start("gnb-mock", "--heartbeat", str(world.folder / "twin.json"))
    world.processes["gnb-mock"] = known
    try:
        begin = world.cell()["control_slots"]
        time.sleep(seconds + 3.0)
        decided = world.cell()["control_slots"] - begin
    finally:
        twin.kill()
        twin.wait()
    expected = (seconds + 3.0) / 0.5
    broken = (
        [] if decided > expected / 2 else [f"{decided} control slots beside a twin instead of {expected:.0f}"]
    )
    return Outcome(sent=1, broken=broken)


# ---- gRPC -----------------------------------------------------------------------------------------------

Call = tuple[str, bytes]
"""A method's path, and a request of it that is parsed and then refused or harmless."""


def operator_calls() -> list[Call]:
    pb = operator_pb2
    return [
        (f"/prbandit.operator.Operator/{name}", message.SerializeToString())
        for name, message in (
            ("Hello", pb.OperatorHello(protocol_version=99, client="chaos")),
            ("SetMode", pb.SetModeRequest(cell_id="cell-9", mode="nosuch")),
            ("SwitchPolicy", pb.SwitchPolicyRequest(cell_id="cell-9", slice="nosuch", policy="nosuch")),
            ("SetBudgets", pb.SetBudgetsRequest(cell_id="cell-9", slice="nosuch", ul_ms=-1.0)),
            ("SetOptions", pb.SetOptionsRequest(cell_id="cell-9", slice="nosuch", yaml="nosuch: 1")),
            ("SetQuota", pb.SetQuotaRequest(cell_id="cell-9", slice="nosuch", ul_prb=-1, for_s=1e300)),
            ("ClearQuota", pb.ClearQuotaRequest(cell_id="cell-9", slice="nosuch")),
        )
    ]


def edge_calls() -> list[Call]:
    pb = edge_pb2
    return [
        (f"/prbandit.edge.Edge/{name}", message.SerializeToString())
        for name, message in (
            ("Hello", pb.EdgeHello(protocol_version=99, holder="chaos")),
            ("LockClocks", pb.LockClocksRequest(gpu="nosuch", holder="chaos", mhz=900, lease_ms=10)),
            ("ReleaseClocks", pb.ReleaseClocksRequest(gpu="nosuch", holder="chaos")),
        )
    ]


@contextmanager
def channel(world: World, socket_: str, role: str) -> Iterator[grpc.Channel]:
    """A connection of its own; bytes go through as they are."""
    with grpc_channel(
        f"127.0.0.1:{world.ports[socket_]}", world.tls(role), server_role=SERVERS[socket_]
    ) as made:
        yield made


def unary_messages(socket_: str, calls: Callable[[], list[Call]], role: str) -> Callable[..., Outcome]:
    """Hostile bytes on every unary method of a service: each call is answered, each refusal counted."""

    def attack(world: World, rng: random.Random, seconds: float) -> Outcome:
        out, end = Outcome(taken=0), time.monotonic() + seconds
        out.counters = OPERATOR_REFUSED if socket_ == "operator" else frozenset()
        out.edge_counters = "" if socket_ == "operator" else "refused_"
        answers: dict[str, int] = {}
        with channel(world, socket_, role) as to:
            methods = {path: to.unary_unary(path) for path, _ in calls()}
            while time.monotonic() < end:
                pending = []
                for _ in range(CALLS):
                    path, valid = rng.choice(calls())
                    pending.append((path, methods[path].future(hostile(rng, [valid], 90_000), timeout=10)))
                for path, call in pending:
                    code = call.code()  # waits
                    answers[code.name] = answers.get(code.name, 0) + 1
                    out.sent += 1
                    if code is grpc.StatusCode.OK:
                        refused = socket_ == "operator" and not path.endswith("Hello")
                        refused = refused and not operator_pb2.CommandResult.FromString(call.result()).ok
                        out.taken += not refused
        out.note = "answers " + ", ".join(f"{n} {name}" for name, n in sorted(answers.items()))
        if lost := answers.get("DEADLINE_EXCEEDED", 0):
            out.broken.append(f"{lost} calls without an answer within 10 s")
        return out

    return attack


def qos_hello(cell: str = ATTACKER, host: str = "chaos", version: int = PROTOCOL_VERSION) -> bytes:
    body = qos_pb2.QosHello(protocol_version=version, host=host, cell_id=cell, instance=7)
    return qos_pb2.QosMessage(hello=body).SerializeToString()


def qos_valid() -> list[bytes]:
    now = time.time_ns()
    start = qos_pb2.FlowStart(flow="f", ue_id="ue-1", slice="ar", ul_bps=1e6, dl_bps=1e6, time_ns=now)
    frame = qos_pb2.Frame(sequence=1, ue_sent_ns=now, edge_received_ns=now + 9)
    messages = (
        qos_pb2.QosMessage(flow_start=start),
        qos_pb2.QosMessage(flow_stop=qos_pb2.FlowStop(flow="f", time_ns=now)),
        qos_pb2.QosMessage(frames=qos_pb2.FrameBatch(flow="f", frames=[frame] * 3)),
        qos_pb2.QosMessage(samples=qos_pb2.Samples(flow="f", table="nosuch", time_ns=[now], values=[1.0])),
        qos_pb2.QosMessage(settings_applied=qos_pb2.SettingsApplied(sequence=1, time_ns=now)),
        qos_pb2.QosMessage(clock=qos_pb2.ClockStatus(host="chaos", ptp_state="SLAVE", time_ns=now)),
    )
    return [qos_hello(), *(m.SerializeToString() for m in messages)]


def qos_messages(world: World, rng: random.Random, seconds: float) -> Outcome:
    """Streams of hostile messages for a cell of its own; each refusal is a notice and a count."""
    out, end = Outcome(counters=QOS_REFUSED, taken=0), time.monotonic() + seconds
    with channel(world, "qos", "gnb-mock") as to:
        publish = to.stream_stream("/prbandit.qos.QosIngest/Publish")
        while time.monotonic() < end:
            good = rng.random() < 0.7
            valid = qos_valid()
            first = qos_hello() if good else hostile(rng, [qos_hello(version=9), b"\xff"], 90_000)
            messages = [hostile(rng, valid, 90_000) for _ in range(300 if good else 0)]
            out.sent += 1 + len(messages)
            refused = 0
            try:
                for data in publish(iter([first, *messages]), timeout=20):
                    refused += qos_pb2.QosNotice.FromString(data).kind == qos_pb2.REFUSED
            except grpc.RpcError as error:
                refused += 1
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    out.broken.append("a stream was not read to its end within 20 s")
            out.taken += 1 + len(messages) - refused
    return out


def qos_clock(world: World, rng: random.Random, seconds: float) -> Outcome:
    """A stream that tells of strangers' clocks once and goes; the cell must go on learning."""
    with channel(world, "qos", "operator") as to:
        clocks = [
            qos_pb2.ClockStatus(host=f"host-{i}", ptp_state="SLAVE", offset_ns=3e6, time_ns=time.time_ns())
            for i in range(100)
        ]
        messages = [qos_hello(CELL), *(qos_pb2.QosMessage(clock=c).SerializeToString() for c in clocks)]
        with suppress(grpc.RpcError):
            list(to.stream_stream("/prbandit.qos.QosIngest/Publish")(iter(messages), timeout=10))
    time.sleep(seconds)
    return Outcome(sent=len(messages))


# ---- connections ----------------------------------------------------------------------------------------


def raw_bytes(world: World, rng: random.Random, seconds: float) -> Outcome:
    """Connections to every port that say what is not of its protocol, and end at any time."""
    out, end = Outcome(all_refused=True), time.monotonic() + seconds
    while time.monotonic() < end:
        port = rng.choice(tuple(world.ports.values()))
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as raw:
            out.sent += 1
            for _ in range(rng.randint(1, 5)):
                raw.sendall(rng.choice((*BANNERS, rng.randbytes(rng.randint(1, 5000)))))
            if rng.random() < 0.5:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif rng.random() < 0.3:
                select.select([raw], [], [], 0.05)
    return out


SILENT_CALLS = {
    "operator": "/prbandit.operator.Operator/GetState",
    "edge": "/prbandit.edge.Edge/Hello",
    "qos": "/prbandit.qos.QosIngest/Publish",
}
SILENT = 64
"""Silent connections, and as many silent calls."""


def silent(socket_: str, role: str) -> Callable[..., Outcome]:
    """Connections that say nothing, or a byte now and then; calls of headers alone, or of one message that is
    followed by none. Honest callers are served all the while."""

    def attack(world: World, rng: random.Random, seconds: float) -> Outcome:
        out = Outcome()
        with ExitStack() as held, world.probe(_honest(world, socket_)) as shut_out:
            end = time.monotonic() + seconds + 6.0

            def connected() -> socket.socket | None:
                try:
                    raw = socket.create_connection(("127.0.0.1", world.ports[socket_]), timeout=0.5)
                    out.sent += 1
                    return held.enter_context(_tls(world, raw, role) if rng.random() < 0.5 else raw)
                except OSError:
                    return None

            sockets = [connected() for _ in range(SILENT)]
            stop: list[bool] = []

            def nothing(first: bytes) -> Iterator[bytes]:
                if first:
                    yield first
                while not stop:
                    time.sleep(0.2)

            if socket_ in SILENT_CALLS:
                to = held.enter_context(channel(world, socket_, role))
                for i in range(SILENT):
                    first = qos_hello(host=f"silent-{i}") if socket_ == "qos" and i % 2 else b""
                    call = to.stream_stream(SILENT_CALLS[socket_])(nothing(first))
                    held.callback(call.cancel)
                    out.sent += 1
            drip = b"GET /metrics HTTP/1.1\r\nX-A: " + b"a" * 1000
            for i in itertools.count():
                if time.monotonic() >= end:
                    break
                for n, raw in enumerate(sockets):
                    try:
                        if raw is None or raw.send(drip[i % len(drip) :][:1]) != 1:
                            raise OSError
                    except OSError:
                        sockets[n] = connected()
                time.sleep(0.25)
            stop.append(True)
        out.broken += shut_out
        return out

    return attack


def _tls(world: World, raw: socket.socket, role: str) -> socket.socket:
    """Through the handshake, where the port speaks TLS."""
    tls = world.tls(role)
    if tls is None or raw.getpeername()[1] == world.ports["ran"]:
        return raw
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    context.check_hostname = False
    context.load_cert_chain(tls.certificate_file, tls.key_file)
    context.set_alpn_protocols(["h2"])
    try:
        return context.wrap_socket(raw)
    except OSError:
        return raw


def _honest(world: World, socket_: str) -> Callable[[], object]:
    def operator() -> object:
        return world.cell()

    def edge() -> object:
        with channel(world, "edge", "controller") as to:
            request = edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION).SerializeToString()
            return to.unary_unary("/prbandit.edge.Edge/Hello")(request, timeout=5)

    def qos() -> object:
        with channel(world, "qos", "gnb-mock") as to:
            call = to.stream_stream("/prbandit.qos.QosIngest/Publish")
            return next(iter(call(iter([qos_hello(CELL, "honest")]), timeout=5)))

    def metrics() -> object:
        return world.counters()

    def ran() -> object:
        with zmq.Context() as context:
            gnb = Gnb(world, context, b"honest")
            gnb.socket.send(hello(ATTACKER, 77))
            answered = gnb.socket.poll(5000)
            gnb.socket.close()
            if not answered:
                raise OSError("no answer")
            return answered

    return {"operator": operator, "edge": edge, "qos": qos, "metrics": metrics, "ran": ran}[socket_]


def grpc_endless(world: World, rng: random.Random, seconds: float) -> Outcome:
    """Messages beyond their bound and streams without an end, on all three gRPC servers at once."""
    stop = time.monotonic() + seconds
    huge = rng.randbytes(2 << 20)

    def flood(socket_: str) -> int:
        sent = 0
        with channel(world, socket_, "gnb-mock") as to:
            while time.monotonic() < stop:

                def endless() -> Iterator[bytes]:
                    nonlocal sent
                    yield qos_hello() if socket_ == "qos" else b""
                    for n in range(100_000):
                        if time.monotonic() >= stop:
                            return
                        sent += 1
                        yield huge if n % 1000 == 999 else b"\xff" * 1000

                with suppress(grpc.RpcError):
                    list(to.stream_stream(SILENT_CALLS[socket_])(endless(), timeout=seconds + 5))
        return sent

    with ThreadPoolExecutor(3) as pool:
        return Outcome(sent=sum(pool.map(flood, SILENT_CALLS)))
