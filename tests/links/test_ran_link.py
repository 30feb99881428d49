"""The ZMQ shell of the RAN link, on loopback sockets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from controller.links.ran import RanLink
from controller.links.ran_protocol import CellJoined, CellLost, Event, QuotaApplied, RawReport
from tests.links.test_codec import T0, hello, report
from wire import keys, ran_pb2
from wire.security import CurveClient, InsecureAddress, curve_client, curve_server

PATIENCE_S = 60.0
E = TypeVar("E")


class Gnb:
    """A DEALER that speaks the contract, one message at a time."""

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        *,
        identity: bytes = b"",
        curve: CurveClient | None = None,
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if identity:
            self.socket.setsockopt(zmq.IDENTITY, identity)
        if curve is not None:
            curve.apply(self.socket)
        self.socket.connect(address)
        self.sequence = 0

    def send(self, **body: Any) -> None:
        self.socket.send(ran_pb2.GnbMessage(**body).SerializeToString())

    def report(self, session: int) -> None:
        self.sequence += 1
        message = report()
        message.session, message.sequence, message.time_ns = session, self.sequence, T0 + self.sequence
        self.send(mac_report=message)


class Bench:
    def __init__(self, link: RanLink) -> None:
        self.link = link
        self.context: zmq.Context[Any] = zmq.Context()
        self.seen: list[Event] = []

    def gnb(self, **options: Any) -> Gnb:
        return Gnb(self.context, self.link.address, **options)

    def until(self, done: Callable[[], Any]) -> Any:
        """Polls the link until ``done`` gives something."""
        end = time.monotonic() + PATIENCE_S
        while not (result := done()):
            assert time.monotonic() < end, f"nothing came; events: {self.seen}"
            self.seen += self.link.poll(0.02)
        return result

    def event(self, kind: type[E], where: Callable[[E], bool] = lambda _: True) -> E:
        """The next event of that kind; the ones before it are forgotten."""

        def find() -> E | None:
            for i, event in enumerate(self.seen):
                if isinstance(event, kind) and where(event):
                    del self.seen[: i + 1]
                    return event
            return None

        found: E = self.until(find)
        return found

    def answer(self, gnb: Gnb) -> ran_pb2.ControllerMessage:
        def receive() -> bytes | None:
            try:
                return gnb.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return None

        return ran_pb2.ControllerMessage.FromString(self.until(receive))

    def join(self, gnb: Gnb, cell_id: str = "cell-1") -> int:
        gnb.send(hello=hello(cell_id))
        session = self.answer(gnb).welcome.session
        self.event(CellJoined, lambda e: e.session == session)
        return session

    def close(self) -> None:
        self.link.close()
        self.context.destroy(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(RanLink("tcp://127.0.0.1:0", report_period_ms=50, lease_s=3))
    yield bench
    bench.close()


def test_two_cells_report_and_get_their_own_quotas(bench: Bench) -> None:
    gnbs = {f"cell-{i}": bench.gnb() for i in (1, 2)}
    sessions = {cell: bench.join(gnb, cell) for cell, gnb in gnbs.items()}
    assert set(bench.link.cells) == set(gnbs)
    for i, (cell, gnb) in enumerate(gnbs.items()):
        gnb.report(sessions[cell])
        taken = bench.event(RawReport)
        assert (taken.cell_id, taken.message.session) == (cell, sessions[cell])
        sequence = bench.link.set_quota(cell, {"ar": (10 + i, 5)}, {"ue-0": "ar"}, 10)
        quota = bench.answer(gnb).set_quota
        assert (quota.session, quota.sequence, quota.quotas[0].ul_prb) == (sessions[cell], sequence, 10 + i)
        assert bench.link.unacknowledged(cell)
        gnb.send(applied=ran_pb2.Applied(session=sessions[cell], sequence=sequence, in_force=quota.quotas))
        applied = bench.event(QuotaApplied)
        assert (applied.cell_id, applied.first, applied.quotas) == (cell, True, {"ar": (10 + i, 5)})
        assert not bench.link.unacknowledged(cell)
        assert bench.link.release(cell) == sequence + 1
        assert bench.answer(gnb).release.sequence == sequence + 1


def test_an_unacknowledged_quota_comes_again(bench: Bench) -> None:
    gnb = bench.gnb()
    session = bench.join(gnb)
    bench.link.set_quota("cell-1", {"ar": (10, 5)}, {}, 30)
    first, second = bench.answer(gnb).set_quota, bench.answer(gnb).set_quota
    assert first == second
    assert first.session == session


def test_noise_and_messages_of_several_frames_do_not_stop_the_link(bench: Bench) -> None:
    gnb = bench.gnb()
    session = bench.join(gnb)
    gnb.socket.send(b"\xff\xff\xff")
    gnb.socket.send_multipart([b"one", b"two"])
    gnb.socket.send(b"")
    gnb.socket.send(bytes(100_000))
    gnb.report(session)
    assert bench.event(RawReport).cell_id == "cell-1"
    assert bench.link.counters.get("ran_malformed_total", "cell-1") == 4


def test_a_connection_with_the_same_identity_takes_over(bench: Bench) -> None:
    old = bench.gnb(identity=b"gnb")
    first = bench.join(old)
    old.report(first)
    bench.event(RawReport)
    new = bench.gnb(identity=b"gnb")
    second = bench.join(new)
    assert second != first
    bench.link.set_quota("cell-1", {"ar": (10, 5)}, {}, 30)
    assert bench.answer(new).set_quota.session == second


def test_a_controller_that_was_restarted_asks_for_hello(bench: Bench) -> None:
    gnb = bench.gnb()
    bench.join(gnb)
    address = bench.link.address
    bench.link.close()
    bench.link = RanLink(address, report_period_ms=50, lease_s=3)
    gnb.report(12345)
    assert bench.answer(gnb).HasField("hello_request")
    session = bench.join(gnb)
    gnb.report(session)
    assert bench.event(RawReport).cell_id == "cell-1"


def test_a_gnb_that_vanished_is_lost_counted_and_comes_back(bench: Bench) -> None:
    gnb = bench.gnb()
    bench.join(gnb)
    gnb.socket.close(0)
    bench.link.set_quota("cell-1", {"ar": (10, 5)}, {}, 30)
    assert bench.event(CellLost).cell_id == "cell-1"
    # A send to a connection that is gone is neither silent nor fatal.
    assert bench.link.counters.get("ran_send_failed_total", "cell-1") > 0
    again = bench.gnb()
    session = bench.join(again)
    again.report(session)
    assert bench.event(RawReport).cell_id == "cell-1"


def test_a_full_queue_towards_a_cell_is_counted_and_others_are_served(bench: Bench) -> None:
    stuck, well = bench.gnb(), bench.gnb()
    stuck_session = bench.join(stuck)
    session = bench.join(well, "cell-2")
    stuck.report(stuck_session)
    filler = {f"{i:031}": (106, 106) for i in range(16)}
    bindings = {f"{i:031}": f"{i:031}" for i in range(64)}
    for _ in range(20_000):
        bench.link.set_quota("cell-1", filler, bindings, 30)
        if bench.link.counters.get("ran_send_failed_total", "cell-1"):
            break
    assert bench.link.counters.get("ran_send_failed_total", "cell-1")
    well.report(session)
    assert bench.event(RawReport, lambda e: e.cell_id == "cell-2")


def test_poll_takes_a_bounded_batch(bench: Bench) -> None:
    gnb = bench.gnb()
    session = bench.join(gnb)
    bench.link.MAX_BATCH = 3
    for _ in range(7):
        gnb.report(session)
    sizes = []
    while sum(sizes) < 7:
        sizes.append(len(bench.link.poll(PATIENCE_S)))
    assert max(sizes) <= 3


def test_an_address_beyond_loopback_needs_keys() -> None:
    with pytest.raises(InsecureAddress, match=r"links\.ran\.address.*security\.keys"):
        RanLink("tcp://0.0.0.0:0", report_period_ms=50, lease_s=3)


def test_an_address_that_is_taken_is_an_error_that_names_it(bench: Bench) -> None:
    with pytest.raises(OSError, match=bench.link.address):
        RanLink(bench.link.address, report_period_ms=50, lease_s=3)


# -- CURVE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'prbandit[keys]'")
    folder = tmp_path_factory.mktemp("keys")
    keys.create(folder, cells=["cell-1", "cell-2"], days=2)
    return folder


@pytest.fixture
def secured(folder: Path) -> Iterator[Bench]:
    bench = Bench(RanLink("tcp://127.0.0.1:0", curve_server(folder), report_period_ms=50, lease_s=3))
    yield bench
    bench.close()


def test_curve_lets_a_cell_in_with_its_own_key_only(secured: Bench, folder: Path) -> None:
    own = secured.gnb(curve=curve_client(folder, "cell-1"))
    session = secured.join(own, "cell-1")
    own.report(session)
    assert secured.event(RawReport).cell_id == "cell-1"
    other = secured.gnb(curve=curve_client(folder, "cell-2"))
    other.send(hello=hello("cell-1"))
    assert "key" in secured.answer(other).reject.reason
    assert secured.link.counters.get("ran_wrong_key_total") == 1
    assert list(secured.link.cells) == ["cell-1"]


def test_curve_refuses_an_unknown_key_and_plaintext(secured: Bench, folder: Path, tmp_path: Path) -> None:
    server = curve_client(folder, "cell-1").server
    public, secret = zmq.curve_keypair()
    stranger = secured.gnb(curve=CurveClient(server, public, secret))
    stranger.send(hello=hello("cell-1"))
    plain = secured.gnb()
    plain.send(hello=hello("cell-1"))
    secured.until(lambda: secured.link.counters.get("ran_key_refused_total"))
    # The proof that neither got through is that one with a key still does, and is the only one.
    own = secured.gnb(curve=curve_client(folder, "cell-2"))
    secured.join(own, "cell-2")
    assert list(secured.link.cells) == ["cell-2"]
    assert secured.link.counters.get("ran_sessions_total") == 1


def test_a_cell_whose_key_is_revoked_is_lost_and_its_new_key_lets_it_in(
    secured: Bench, folder: Path, tmp_path: Path
) -> None:
    new_keys = tmp_path / "keys"
    shutil.copytree(folder, new_keys)
    gnb = secured.gnb(curve=curve_client(new_keys, "cell-1"))
    session = secured.join(gnb)
    keys.revoke(new_keys, "cell-1")
    keys.create(new_keys, cells=["cell-1"])
    assert secured.link.set_keys(curve_server(new_keys)) == ["cell-1"]
    assert secured.link.set_keys(curve_server(new_keys)) == []
    # The connection stands, its messages do not count, until the cell is lost.
    secured.until(lambda: gnb.report(session) or secured.link.counters.get("ran_key_refused_total"))
    secured.event(CellLost)
    new = secured.gnb(curve=curve_client(new_keys, "cell-1"))
    assert secured.join(new) != session
    # What the front knows it knows after a restart too.
    secured.link._front.process.kill()
    old = secured.gnb(curve=curve_client(folder, "cell-1"))
    before = secured.link.counters.get("ran_key_refused_total")
    secured.until(lambda: secured.link.counters.get("ran_key_refused_total") > before)
    old.socket.close()


def test_with_curve_an_address_beyond_loopback_may_be_bound(folder: Path) -> None:
    with RanLink("tcp://0.0.0.0:0", curve_server(folder), report_period_ms=50, lease_s=3) as link:
        assert link.address.startswith("tcp://0.0.0.0:")
