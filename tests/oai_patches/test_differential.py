"""The same stories told to the C protocol core and to the Python model end the same, step by step."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agents.gnb_mock.agent import CellTime
from tests.oai_patches.build import CLink
from tests.oai_patches.model import CELL_LINE, PyLink, Use
from wire import PROTOCOL_VERSION, ran_pb2

TICK = 15_625_000
"""1/64 s in ns: exact in the model's floating-point seconds, too."""
LEASES_MS = (0, 125, 250, 1000, 3000, 3_600_000, 3_600_001)
SLICES = ("ar", "video", "vr", "", "s" * 31, "s" * 32, "\u00e9")
UES = ("ue-1", "ue-2", "", "u" * 31, "u" * 40)


class Both:
    """Each step goes to both; what comes out and how they then stand is compared."""

    def __init__(self, c: CLink) -> None:
        self.c = c
        self.py = PyLink()
        self.now = 0
        c(*CELL_LINE)

    def receive(self, data: bytes) -> None:
        self.c("receive", self.now, data.hex())
        self.py.receive(self.now, data)

    def tick(self, n: int) -> None:
        self.now += n * TICK
        self.c("tick", self.now)
        self.py.tick(self.now)

    def send(self) -> bytes | None:
        mine, theirs = self.c.message("send", self.now), self.py.send(self.now)
        assert mine == theirs
        return mine

    def enforced(self, at: CellTime, uses: list[Use]) -> None:
        words = [w for slice_, *rest in uses for w in (slice_.encode().hex() or "-", *rest)]
        self.c("enforced", at.frame, at.slot, at.time_ns, *words)
        self.py.enforced(at, uses)

    def refuse(self) -> None:
        self.c("refuse")
        self.py.refuse()

    def not_sent(self) -> None:
        self.c("not_sent", self.now)
        self.py.not_sent(self.now)

    def reconnect(self) -> None:
        assert self.c.json("reconnect", self.now) == self.py.reconnect(self.now)

    def report(self) -> None:
        mine = self.c.message("report", 1, 2, 3)
        assert mine == self.py.report(ran_pb2.MacReport(frame=1, slot=2, time_ns=3))

    def compare(self) -> dict[str, object]:
        state = self.py.state()
        assert self.c.json("state") == state
        assert self.c.message("peek") == self.py.peek()
        return state


@pytest.fixture
def both(c_link: CLink) -> Both:
    return Both(c_link)


def message(**body: object) -> bytes:
    return ran_pb2.ControllerMessage(**body).SerializeToString()


def some_uses(rng: random.Random) -> list[Use]:
    names = [*SLICES[:5], *(f"other-{i}" for i in range(rng.choice([0, 0, 0, 20])))]
    rng.shuffle(names)
    return [
        (name, direction, rng.randrange(107), rng.randrange(1 << 40), rng.randrange(99), rng.randrange(5000))
        for name in names
        for direction in (ran_pb2.UL, ran_pb2.DL)
    ]


def some_message(rng: random.Random, session: int, sequence: int) -> bytes:
    """Most are what an honest controller says; the others are odd in every way that the contract names."""
    session = rng.choice([session, session, session, session, rng.randrange(3)])
    match rng.randrange(12):
        case 0:
            return message(
                welcome=ran_pb2.Welcome(
                    session=rng.choice([session, session, rng.randrange(4)]),
                    protocol_version=rng.choice([PROTOCOL_VERSION] * 5 + [0, 2]),
                    report_period_ms=rng.choice([10, 50, 200, 9, 201]),
                    lease_ms=3000,
                )
            )
        case 1:
            reason = rng.choice(["", "no", "x" * 300])
            return message(
                reject=ran_pb2.Reject(reason=reason, controller_version=rng.randrange(3), agent_version=1)
            )
        case 2:
            return message(hello_request=ran_pb2.HelloRequest(reason="x" * rng.choice([0, 5, 200])))
        case 3:
            return message(release=ran_pb2.Release(session=session, sequence=sequence))
        case _:
            quotas = [
                ran_pb2.SliceQuota(
                    slice=rng.choice(SLICES[:3] * 8 + SLICES),
                    ul_prb=rng.choice([0, 3, 20, 53, 106] * 5 + [107, 1 << 31]),
                    dl_prb=rng.choice([0, 3, 20, 53, 106]),
                )
                for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 2, 16, 17]))
            ]
            if len(quotas) > 2:
                for i, q in enumerate(quotas):
                    q.slice = f"slice-{i}"
            bindings = [
                ran_pb2.UeBinding(ue_id=rng.choice(UES[:2] * 8 + UES), slice=rng.choice(SLICES))
                for _ in range(rng.choice([0, 0, 1, 1, 2]))
            ]
            return message(
                set_quota=ran_pb2.SetQuota(
                    session=session,
                    sequence=sequence,
                    lease_ms=rng.choice(LEASES_MS[1:5] * 4 + LEASES_MS),
                    quotas=quotas,
                    bindings=bindings,
                )
            )


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        match rng.randrange(4):
            case 0 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 1 if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            case 2:
                del changed[rng.randrange(len(changed) + 1) :]
            case _:
                changed += rng.randbytes(rng.randrange(6))
    return bytes(changed)


def steps(rng: random.Random, both: Both, n: int) -> Iterator[dict[str, object]]:
    sequence = 0
    for _ in range(n):
        state = both.compare()
        yield state
        session = int(str(state["session"])) or rng.randrange(1, 4)
        match rng.choices(range(9), weights=[8, 4, 4, 4, 1, 1, 2, 1, 2])[0]:
            case 0:
                sequence = rng.choice([sequence + 1, sequence + 1, sequence, rng.randrange(4), sequence + 9])
                both.receive(some_message(rng, session, sequence))
            case 1:
                both.tick(rng.choice([0, 1, 4, 8, 64, 200, 640]))
            case 2:
                both.send()
            case 3:
                at = CellTime(rng.randrange(1024), rng.randrange(20), rng.randrange(1 << 62))
                both.enforced(at, some_uses(rng))
            case 4:
                both.refuse()
            case 5:
                both.report()
            case 6:
                data = mutated(rng, some_message(rng, session, sequence + 1))
                # A zero byte in a name is more than C can hold (test_vectors says what it does then).
                if b"\0" not in data:
                    both.receive(data)
            case 7:
                both.not_sent()
            case 8:
                both.reconnect()


@pytest.mark.parametrize("seed", range(40))
def test_random_stories(seed: int, both: Both) -> None:
    for _ in steps(random.Random(seed), both, 400):
        pass
    both.compare()


def test_the_stories_reach_what_they_are_for(both: Both) -> None:
    """Of 8,000 steps: every counter moves, and pending quotas, leases and sessions come and go."""
    seen = [*steps(random.Random(1234), both, 8000)]
    counters = seen[-1]["counters"]
    assert isinstance(counters, dict)
    # The queue of acknowledgements overflows only where the socket blocks: see below.
    assert not [name for name, n in counters.items() if n == 0 and name != "acks_superseded"]
    assert (
        any(s["pending"] for s in seen) and any(s["lease"] for s in seen) and any(s["in_force"] for s in seen)
    )
    assert any(s["rejected"] for s in seen)


def test_a_socket_that_does_not_take_anything(both: Both) -> None:
    both.tick(0)
    both.receive(message(welcome=ran_pb2.Welcome(session=1, protocol_version=1, report_period_ms=10)))
    for sequence in range(1, 30):
        quota = ran_pb2.SetQuota(session=1, sequence=sequence, lease_ms=1000)
        both.receive(message(set_quota=quota))
        both.enforced(CellTime(1, 2, sequence), [])
        both.receive(message(set_quota=quota))
        both.compare()
    while both.send() is not None:
        both.compare()
    both.receive(message(set_quota=quota))
    assert both.send() is not None and both.send() is None


def test_a_hello_backs_off_the_same_way(both: Both) -> None:
    for _ in range(64 * 30):
        both.tick(1)
        both.send()
    both.receive(message(reject=ran_pb2.Reject(reason="no")))
    for _ in range(64 * 25):
        both.tick(1)
        both.send()
    assert both.compare()["counters"]["hellos"] > 8  # type: ignore[index]
