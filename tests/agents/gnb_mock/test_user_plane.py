"""Real TCP connections through the emulated cell, on a virtual clock that runs as fast as it can."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from agents.emulator.spec import (
    EXTERNAL,
    MAX_EXTERNAL,
    FlowSpec,
    PathSpec,
    RlcSpec,
    TestbedSpec,
    UeSpec,
)
from agents.emulator.testbed import EmulatedTestbed
from agents.gnb_mock.user_plane import UNREAD_BYTES, Listen, UserPlane
from wire.security import parse_address

SECOND = 2000
ANY_PORT = ("127.0.0.1", 0)
CALM = PathSpec(hiccup_rate_hz=0.0)


def external(ue: str = "ue-1", name: str = "x") -> FlowSpec:
    return FlowSpec(name, ue, (), kind=EXTERNAL)


def bed_of(*flows: FlowSpec, ues: int = 1, **more: object) -> EmulatedTestbed:
    users = [UeSpec(f"ue-{k + 1}", k + 1, "s") for k in range(ues)]
    return EmulatedTestbed(TestbedSpec(users, flows, path=CALM, **more), seed=1)  # type: ignore[arg-type]


# ---- the cell's side ---------------------------------------------------------------------------------


def test_a_frame_takes_what_the_uplinks_queue_takes():
    bed = bed_of(external())
    bed.advance(100)
    assert bed.send(0, "ul", 12_500) == 12_500
    bed.advance(104)
    assert bed.delivered(0, "ul") == 0
    bed.advance(100 + SECOND // 10)
    assert bed.delivered(0, "ul") == 12_500
    assert bed.underway(0, "ul") == 0


def test_what_is_under_way_is_bounded_and_accounted_for():
    bed = bed_of(external(), FlowSpec("emulated", "ue-1"))
    limit = bed.spec.tcp.send_buffer_bytes
    for step in range(2 * SECOND):
        bed.send(0, "ul", 1 << 20)
        bed.send(0, "dl", 1 << 20)
        bed.advance(step + 1)
        if step % 97 == 0:
            for c in bed.counters():
                assert c.offered == c.delivered + c.queued + c.dropped, c
            assert bed.underway(0, "ul") <= limit and bed.underway(0, "dl") <= limit
    assert bed.underway(0, "ul") > 0.8 * limit
    assert bed.dropped(0, "ul") == bed.dropped(0, "dl") == 0


def test_a_quota_slows_what_comes_out():
    rates = []
    for prb in (106, 10):
        bed = bed_of(external())
        bed.set_quotas({"s": (prb, prb)}, {})
        for step in range(2 * SECOND):
            bed.send(0, "ul", 1 << 20)
            bed.advance(step + 1)
        rates.append(bed.delivered(0, "ul"))
    assert rates[0] > 5 * rates[1] > 0


def test_small_writes_do_not_fill_the_packet_ring():
    bed = bed_of(external())
    taken = sum(bed.send(0, "ul", 1) for _ in range(10_000))
    assert 0 < taken < 1000
    bed.advance(SECOND)
    assert bed.delivered(0, "ul") == taken


def test_acknowledgements_load_the_other_direction():
    bed = bed_of(external())
    bed.advance(10)
    before = bed.rlc_counters()[1].offered
    bed.send(0, "ul", 28_000)
    bed.advance(SECOND)
    acks = bed.rlc_counters()[1].offered - before
    assert acks == 10 * bed.spec.tcp.header_bytes


def test_a_starved_downlink_drops_nothing_though_acknowledgements_pile_up():
    bed = bed_of(*(external(name=str(k)) for k in range(MAX_EXTERNAL)))
    bed.set_quotas({"s": (106, 5)}, {})
    for step in range(8 * SECOND):
        for k in range(MAX_EXTERNAL):
            bed.send(k, "ul", 1 << 20)
            bed.send(k, "dl", 1 << 20)
        bed.advance(step + 1)
    assert [bed.dropped(k, "dl") for k in range(MAX_EXTERNAL)] == [0] * MAX_EXTERNAL
    for c in bed.counters():
        assert c.offered == c.delivered + c.queued + c.dropped, c


def test_what_a_full_queue_drops_is_counted_and_takes_no_place_for_good():
    bed = bed_of(external(), rlc=RlcSpec(queue_limit_bytes=10_000))
    for _ in range(20):
        assert bed.send(0, "dl", 1 << 20) > 100_000
        bed.advance(bed.nr_slot + SECOND)
        assert bed.underway(0, "dl") == 0
    assert bed.dropped(0, "dl") > 0


def test_flows_that_cannot_be_carried_are_refused():
    with pytest.raises(ValueError, match="no schedule"):
        FlowSpec("x", "ue-1", kind=EXTERNAL)
    with pytest.raises(ValueError, match=r"rlc\.mode am"):
        TestbedSpec([UeSpec("ue-1", 1)], [external()], rlc=RlcSpec(mode="um"))
    with pytest.raises(ValueError, match="9 external flows"):
        TestbedSpec([UeSpec("ue-1", 1)], [external(name=str(k)) for k in range(MAX_EXTERNAL + 1)])
    with pytest.raises(ValueError, match="not external"):
        bed_of(FlowSpec("emulated", "ue-1")).send(0, "ul", 1)


# ---- connections -------------------------------------------------------------------------------------


class Server:
    """Serves each connection in a thread."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.connections: list[socket.socket] = []
        self._serve = serve
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        # A call that still waits could be restarted with the number of the file when another has it.
        for end in (self._listener, *self.connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self.connections):
            end.close()


def echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65_536):
            connection.sendall(data)


def sleep_only(_connection: socket.socket) -> None:
    return


@contextmanager
def running(server: tuple[str, int], ues: int = 1) -> Iterator[tuple[UserPlane, EmulatedTestbed]]:
    """A user plane whose cell goes on NR slot by NR slot, without waiting."""
    with running_of(UserPlane([Listen(f"ue-{k + 1}", ANY_PORT, server) for k in range(ues)]), ues) as made:
        yield made


@contextmanager
def running_of(plane: UserPlane, ues: int = 1) -> Iterator[tuple[UserPlane, EmulatedTestbed]]:
    users = [UeSpec(f"ue-{k + 1}", k + 1, "s") for k in range(ues)]
    bed = EmulatedTestbed(plane.join(TestbedSpec(users, (), path=CALM)), seed=1)
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            while not stop.is_set():
                plane.put(bed)
                bed.advance(bed.nr_slot + 1)
                plane.take(bed)
                time.sleep(0)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield plane, bed
    finally:
        stop.set()
        thread.join()
        plane.close()
    assert not failed, failed


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def read_all(connection: socket.socket, n: int) -> bytes:
    got = bytearray()
    while len(got) < n and (data := connection.recv(65_536)):
        got += data
    return bytes(got)


@pytest.fixture
def echo_server() -> Iterator[Server]:
    server = Server(echo)
    yield server
    server.close()


def test_bytes_come_back_as_they_were_sent(echo_server):
    data = os.urandom(600_000)
    with running(echo_server.address) as (plane, bed):
        with socket.create_connection(plane.addresses[0], 120) as client:
            threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
            assert read_all(client, len(data)) == data
        until(lambda: plane.connections == 0)
        # A hundred MAC grants and more carried them.
        assert bed.delivered(0, "ul") + bed.delivered(MAX_EXTERNAL - 1, "ul") == len(data)
    assert plane.counters["connections"] == 1
    assert plane.counters["connections_broken"] == 0
    assert plane.counters["ul_bytes"] == plane.counters["dl_bytes"] == len(data)


def test_the_end_of_one_direction_leaves_the_other_open():
    def answer_at_the_end(connection: socket.socket) -> None:
        with connection:
            got = read_all(connection, 1 << 30)
            connection.sendall(str(len(got)).encode())

    server = Server(answer_at_the_end)
    with running(server.address) as (plane, _):
        with socket.create_connection(plane.addresses[0], 120) as client:
            client.sendall(b"x" * 50_000)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client, 1 << 30) == b"50000"
        until(lambda: plane.connections == 0)
    server.close()


def test_each_ue_has_its_own_radio(echo_server):
    with running(echo_server.address, ues=2) as (plane, bed):
        for address in (plane.addresses[0], plane.addresses[1], plane.addresses[1]):
            with socket.create_connection(address, 120) as client:
                client.sendall(b"y" * 10_000)
                assert read_all(client, 10_000) == b"y" * 10_000
        until(lambda: plane.connections == 0)
        rlc = {(c.name, c.direction): c.delivered for c in bed.rlc_counters()}
    assert 1.5 < rlc["ue-2", "ul"] / rlc["ue-1", "ul"] < 2.5


def test_a_ue_reaches_the_server_of_the_address_that_it_connects_to():
    def name(text: bytes) -> Callable[[socket.socket], None]:
        def answer(connection: socket.socket) -> None:
            with connection:
                connection.sendall(text)

        return answer

    frames, background = Server(name(b"frames")), Server(name(b"background"))
    listens = [Listen("ue-1", ANY_PORT, s.address) for s in (frames, background)]
    with running_of(UserPlane(listens)) as (plane, bed):
        for address, text in zip(plane.addresses, (b"frames", b"background"), strict=True):
            with socket.create_connection(address, 120) as client:
                assert read_all(client, len(text)) == text
        until(lambda: plane.connections == 0)
        delivered = [bed.delivered(k, "dl") for k in range(MAX_EXTERNAL)]
    # One UE's places carry both.
    assert len(delivered) == len(bed.spec.flows) and sum(delivered) == len(b"frames" + b"background")
    for server in (frames, background):
        server.close()


def test_a_server_that_is_not_there_ends_the_clients_connection():
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    listener.close()
    with running(address) as (plane, _):
        with (
            pytest.raises(ConnectionError),
            socket.create_connection(plane.addresses[0], 120) as client,
        ):
            client.sendall(b"z")
            client.recv(1)
        until(lambda: plane.counters["connections_broken"] == 1)


def test_a_server_that_dies_breaks_the_connection_and_frees_its_place():
    server = Server(sleep_only)
    with running(server.address) as (plane, _):
        for round_ in range(MAX_EXTERNAL + 2):
            client = socket.create_connection(plane.addresses[0], 120)
            client.sendall(b"x" * 30_000)
            until(lambda n=round_: len(server.connections) == n + 1)
            killed = server.connections[-1]
            # RST, as a killed process with unread bytes sends it.
            killed.close()
            with pytest.raises(OSError):
                while client.recv(1000) or True:
                    client.sendall(b"more")
            client.close()
            until(lambda: plane.connections == 0)
    assert plane.counters["connections"] == MAX_EXTERNAL + 2
    assert plane.counters["connections_refused"] == 0
    server.close()


def test_a_reader_that_stops_blocks_the_writer():
    server = Server(sleep_only)
    with (
        running(server.address) as (plane, bed),
        socket.create_connection(plane.addresses[0], 120) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        client.setblocking(False)
        sent, slot = 0, bed.nr_slot
        # Blocked is who cannot write for a fifth of the cell's second, however long that takes here.
        while bed.nr_slot < slot + SECOND // 5:
            try:
                sent += client.send(b"x" * 65_536)
                slot = bed.nr_slot
            except BlockingIOError:
                time.sleep(0.01)
            assert sent < 1 << 26, "nothing holds the writer up"
        kernel_buffers = 8 << 20
        # All that may wait on the way does: what the reader has not taken, and the cell's own queue.
        assert sent > UNREAD_BYTES + bed.underway(0, "ul") + bed.underway(MAX_EXTERNAL - 1, "ul")
        assert sent < UNREAD_BYTES + bed.spec.tcp.send_buffer_bytes + kernel_buffers
        # The reader goes on, and so does the rest.
        reader = server.connections[0]
        got = 0
        while got < sent:
            got += len(reader.recv(65_536))
        assert got == sent
    server.close()


def test_more_connections_than_places_are_refused(echo_server, caplog):
    with running(echo_server.address) as (plane, _):
        clients = [socket.create_connection(plane.addresses[0], 120) for _ in range(MAX_EXTERNAL + 1)]
        until(lambda: plane.counters["connections_refused"] == 1)
        assert plane.connections == MAX_EXTERNAL
        for count in range(2, 10):
            socket.create_connection(plane.addresses[0], 120).close()
            until(lambda n=count: plane.counters["connections_refused"] == n)
        told = [r.getMessage() for r in caplog.records if "one refused" in r.getMessage()]
        assert [re.findall(r"\((\d+) so far", line)[0] for line in told] == ["1", "2", "4", "8"]
        for client in clients:
            client.close()
        until(lambda: plane.connections == 0)


def test_addresses_that_cannot_be_are_named(echo_server):
    with pytest.raises(ValueError, match=r"192\.0\.2\.1:1 is not loopback"):
        UserPlane([Listen("ue-1", ANY_PORT, ("192.0.2.1", 1))])
    host, port = echo_server.address
    with pytest.raises(OSError, match=f"user plane of ue-1, {host}:{port}"):
        UserPlane([Listen("ue-1", (host, port), (host, port))])
    with pytest.raises(ValueError, match="not HOST:PORT"):
        parse_address("localhost")
    assert parse_address("[::1]:80") == ("::1", 80)
    plane = UserPlane([Listen("ue-9", ANY_PORT, (host, port))])
    with pytest.raises(ValueError, match="ue-9"):
        plane.join(TestbedSpec([UeSpec("ue-1", 1)], ()))
    plane.close()
