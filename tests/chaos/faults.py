"""Faults of the surroundings: processes that die and hang, disks, links and clocks."""

from __future__ import annotations

import itertools
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import zmq

from tests.chaos.inputs import BANNERS
from tests.chaos.report import Outcome
from tests.chaos.world import LEASE_S, PROCESSES, SLOT_S, World

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
_FULL_S = 4 * LEASE_S


def kill(world: World, rng: random.Random, seconds: float) -> Outcome:
    """SIGKILL to a process at a time, the controller most often; it stays away for a lease, or less."""
    out, end = Outcome(), time.monotonic() + seconds
    while out.sent < 2 or time.monotonic() < end:
        name = "controller" if out.sent == 0 else rng.choice((*PROCESSES, "controller"))
        world.kill(name)
        out.sent += 1
        if name == "controller" and (out.sent == 1 or rng.random() < 0.5):
            out.to_full.append(world.wait(world.full, _FULL_S))
        else:
            time.sleep(rng.uniform(0.0, 1.0))
        world.start(name)
        out.to_control.append(world.control())
        time.sleep(rng.uniform(0.0, 2.0))
    return out


def stop(world: World, rng: random.Random, seconds: float) -> Outcome:
    """SIGSTOP, for longer than the lease where it is the controller, and SIGCONT."""
    out, end = Outcome(), time.monotonic() + seconds
    while out.sent < 2 or time.monotonic() < end:
        name = PROCESSES[1] if out.sent == 0 else rng.choice(PROCESSES)
        world.signal(name, signal.SIGSTOP)
        out.sent += 1
        try:
            if name == "controller":
                out.to_full.append(world.wait(world.full, _FULL_S))
            else:
                time.sleep(rng.uniform(0.5, 5.0))
        finally:
            world.signal(name, signal.SIGCONT)
        out.to_control.append(world.control())
    return out


def disk(world: World, rng: random.Random, seconds: float) -> Outcome:
    """No space left where the run folder is; control goes on, and what was decided is recorded afterwards."""
    filler = world.run_dir / "filler"
    begin = world.cell()["control_slots"]
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        time.sleep(seconds + 4.0)
        last = world.cell()["control_slots"]
    finally:
        filler.unlink()
    out = Outcome(sent=1)
    if last - begin < (seconds + 4.0) / SLOT_S / 2:
        out.broken.append(f"{last - begin} control slots in {seconds + 4.0:.0f} s of a full disk")
    if world.wait(lambda: last in world.slots().numbers, 30.0) is None:
        out.broken.append(f"control slot {last} is not in the record 30 s after there was space again")
    return out


def wal(world: World, rng: random.Random, seconds: float) -> Outcome:
    """The record's write-ahead log is deleted under the run, which is killed some time later."""
    (world.run_dir / "run.sqlite-wal").unlink()
    time.sleep(seconds)
    begin = world.cell()["control_slots"]
    world.kill("controller")
    world.start("controller")
    out = Outcome(sent=1, to_control=[world.control()])
    if world.cell()["control_slots"] < begin:
        out.broken.append(f"control slot {world.cell()['control_slots']} after {begin}")
    return out


def cut(world: World, rng: random.Random, seconds: float) -> Outcome:
    """All links of the controller say nothing for longer than the lease; then they do again."""
    out, end = Outcome(), time.monotonic() + seconds
    while out.sent < 1 or time.monotonic() < end:
        out.sent += 1
        world.links.cut(True)
        try:
            out.to_full.append(world.wait(world.full, _FULL_S))
            time.sleep(rng.uniform(0.0, 8.0))
        finally:
            world.links.cut(False)
        out.to_control.append(world.control())
    return out


def delay(world: World, rng: random.Random, seconds: float) -> Outcome:
    """200 ms each way on every link of the controller: slots go on, and blind it does not starve."""
    out = Outcome(sent=1)
    begin = world.cell()["control_slots"]
    world.links.delay(0.2)
    try:
        time.sleep(seconds + 3.0)
        decided = world.cell()["control_slots"] - begin
        if world.wait(world.gives_or_learns, 10.0) is None:
            out.broken.append("under the delay: neither learned from nor at full resources for 10 s")
    finally:
        world.links.delay(0.0)
    if decided < (seconds + 3.0) / SLOT_S / 2:
        out.broken.append(f"{decided} control slots in {seconds + 3:.0f} s")
    return out


def clock(world: World, rng: random.Random, seconds: float) -> Outcome:
    """CLOCK_REALTIME of the host steps back and ahead; the processes are started anew for it."""
    assert FAKETIME is not None
    offset = world.folder / "clock"
    offset.write_text("+0s\n")
    plain = world.environment
    world.environment = {
        **plain,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    out = Outcome()
    try:
        if world.restart() is None:
            return Outcome(broken=["no control under libfaketime"])
        for step in ("-3000s", "+0s", "+3000s", "+0s"):
            offset.write_text(step + "\n")
            out.sent += 1
            time.sleep(max(3.0, seconds / 4))
            out.to_control.append(world.control(10.0))
            if world.wait(world.gives_or_learns, 10.0) is None:
                out.broken.append(f"clock {step}: neither learned from nor at full resources for 10 s")
    finally:
        world.environment = plain
        out.to_control.append(world.restart())
    return out


# ---- in the controller's place ----------------------------------------------------------------------------


def impostor(world: World, rng: random.Random, seconds: float) -> Outcome:
    """Somebody else on the RAN port for some seconds: banners, garbage, silence, another controller's key."""
    out = Outcome()
    kinds = [_banners, _silence, *([_other_key] if world.keys else [])]
    for kind in kinds:
        world.kill("controller")
        # The process in front of the RAN port outlives the controller by some milliseconds.
        if world.wait(lambda: _free(world.ports["ran"]), 5.0) is None:
            out.broken.append("5 s after the controller's end its RAN port is still taken")
            world.start("controller")
            continue
        with kind(world):
            time.sleep(3.0)
        world.start("controller")
        out.sent += 1
        out.to_control.append(world.control(30.0))
        if out.to_control[-1] is None:
            out.broken.append(f"the gNB did not come back after {kind.__name__[1:]}")
            world.kill("gnb-mock")
            world.start("gnb-mock")
            world.control()
    return out


def _free(port: int) -> bool:
    socket.create_server(("127.0.0.1", port)).close()
    return True


@contextmanager
def _listening(world: World, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", world.ports["ran"]))
    listener.settimeout(0.2)

    def accept() -> None:
        while not done.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    serve(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        listener.close()


def _banners(world: World) -> AbstractContextManager[None]:
    banners = itertools.cycle((*BANNERS, bytes(300)))
    return _listening(world, lambda c: c.sendall(next(banners)))


def _silence(world: World) -> AbstractContextManager[None]:
    return _listening(world, lambda c: time.sleep(1.0))


@contextmanager
def _other_key(world: World) -> Iterator[None]:
    with zmq.Context() as context:
        router = context.socket(zmq.ROUTER)
        router.curve_publickey, router.curve_secretkey = zmq.curve_keypair()
        router.curve_server = True
        router.setsockopt(zmq.LINGER, 0)
        router.bind(f"tcp://127.0.0.1:{world.ports['ran']}")
        try:
            yield
        finally:
            router.close()
