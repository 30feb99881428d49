"""``python -m tests.chaos [--seed N] [--minutes M]``: the campaign and its table; exit status 1 = broken.

A first phase has CURVE and TLS on every link, a shorter second one has no keys, on loopback. The promises: no
crash, no control slot lost or twice, every replay equal, full resources within a lease, memory that does not
grow, at most ten bytes of log a refused message, every refusal counted, honest callers served; and after each
attack there is control again, which learns or gives full resources.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos import attacks, faults, roles
from tests.chaos.report import Outcome, Row, judge, table
from tests.chaos.world import CELL, World

Attack = Callable[[World, random.Random, float], Outcome]
CONTROLLER, EDGE = "controller", "edge-agent"

ATTACKS: dict[str, tuple[Attack, str]] = {
    "ran: messages": (attacks.ran_messages, CONTROLLER),
    "ran: breaks": (attacks.ran_breaks, CONTROLLER),
    "ran: endless": (attacks.ran_endless, CONTROLLER),
    "ran: twin gNB": (attacks.ran_twin, CONTROLLER),
    "qos: messages": (attacks.qos_messages, CONTROLLER),
    "qos: strange clocks": (attacks.qos_clock, CONTROLLER),
    "operator: messages": (
        attacks.unary_messages("operator", attacks.operator_calls, "gnb-mock"),
        CONTROLLER,
    ),
    "edge: messages": (attacks.unary_messages("edge", attacks.edge_calls, "controller"), EDGE),
    "all: raw bytes": (attacks.raw_bytes, CONTROLLER),
    "gRPC: endless": (attacks.grpc_endless, CONTROLLER),
    **{
        f"{name}: silent": (attacks.silent(name, role), EDGE if name == "edge" else CONTROLLER)
        for name, role in (
            ("ran", ""),
            ("qos", "gnb-mock"),
            ("operator", "ptp-agent"),
            ("edge", "ptp-agent"),
            ("metrics", "operator"),
        )
    },
    "roles: clients": (roles.roles, CONTROLLER),
    "roles: servers": (roles.server_roles, CONTROLLER),
    "impostor": (faults.impostor, CONTROLLER),
    "kill": (faults.kill, CONTROLLER),
    "stop": (faults.stop, CONTROLLER),
    "disk full": (faults.disk, CONTROLLER),
    "link cut": (faults.cut, CONTROLLER),
    "link slow": (faults.delay, CONTROLLER),
    "clock steps": (faults.clock, CONTROLLER),
    "log deleted": (faults.wal, CONTROLLER),
}
"""Name -> the attack, and the process that it is aimed at."""
NEED_KEYS = frozenset({"roles: clients", "roles: servers"})
BY_HAND = frozenset({"ran: endless"})
"""Spoken by hand without CURVE: in the phase without keys alone."""
PLAIN = (
    *BY_HAND,
    "ran: messages",
    "ran: breaks",
    "qos: messages",
    "operator: messages",
    "all: raw bytes",
    "kill",
)
"""The phase without keys."""
OVERHEAD_S = 6.0
"""That an attack takes besides its own time: reading, judging, replaying."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8.0, help="all together, about")
    parser.add_argument("--keys", action=argparse.BooleanOptionalAction, help="one phase alone")
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="one attack; repeatable")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--folder", type=Path, help="keep logs and run records there")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.minutes * 60
    phases = [keys for keys in (True, False) if options.keys in (None, keys)]
    plan = [(keys, name) for keys in phases for name in ATTACKS if _belongs(name, keys, options)]
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        for keys in dict.fromkeys(keys for keys, _ in plan):
            world = World((options.folder or Path(scratch)) / ("keys" if keys else "plain"), keys=keys)
            try:
                world.begin()
                while plan and plan[0][0] == keys:
                    seconds = (end - time.monotonic()) / len(plan) - OVERHEAD_S
                    name = plan.pop(0)[1]
                    if why := _cannot(name, world):
                        skipped[name] = why
                        continue
                    # Of its own, so that an attack alone sees what it sees among the others.
                    rng = random.Random(f"{options.seed}/{keys}/{name}")
                    row = _attack(world, name, rng, max(1.0, seconds))
                    rows.append(row)
                    print(
                        f"{name}: {'; '.join(row.broken) or 'holds'} ({row.seconds:.0f} s)", file=sys.stderr
                    )
            finally:
                world.close()
    print(table(rows, skipped))
    if options.json:
        report = {"seed": options.seed, "rows": [r.to_json() for r in rows], "skipped": skipped}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(r.broken for r in rows) else 0


def _belongs(name: str, keys: bool, options: argparse.Namespace) -> bool:
    if options.only and name not in options.only:
        return False
    if keys:
        return name not in BY_HAND
    return name not in NEED_KEYS and bool(options.keys is False or options.only or name in PLAIN)


def _cannot(name: str, world: World) -> str:
    if name == "disk full":
        return world.mounted
    if name == "clock steps" and faults.FAKETIME is None:
        return "libfaketime is not installed"
    return ""


def _attack(world: World, name: str, rng: random.Random, seconds: float) -> Row:
    attack, victim = ATTACKS[name]
    row = Row(name, bool(world.keys))
    begin = time.monotonic()
    before = world.snapshot()
    world.peaks.clear()
    world.stalled_s = 0.0
    crashes = len(world.crashes)
    try:
        outcome = attack(world, rng, seconds)
    except Exception as error:  # an attack that cannot go on is a finding too: mostly nobody answers
        outcome = Outcome(broken=[f"the attack ended with {error!r}"])
    lasting = False
    world.revive()
    outcome.to_control.append(world.control())
    if world.wait(world.gives_or_learns, 20.0) is None:
        row.broken.append("neither learned from nor at full resources for 20 s")
        lasting = True
    peaks = dict(world.peaks)
    after = world.snapshot()
    world.revive()
    row.crashed = len(world.crashes) - crashes
    row.broken += world.crashes[crashes:]
    judge(row, outcome, before, after, victim=victim, peaks=peaks, untouched=CELL)
    if world.stalled_s > 2.0:
        row.note += f" (this machine itself stood still for {world.stalled_s:.1f} s)"
    row.replays_differ = world.replay()
    if row.replays_differ is None:
        row.broken.append("the run record cannot be replayed")
    elif row.replays_differ:
        row.broken.append(f"{row.replays_differ} replayed decisions differ")
    if lasting or None in outcome.to_control or row.rss_after_mib > 2 * row.rss_before_mib:
        world.restart()  # what lasts is this row's, and not the next one's
    row.seconds = time.monotonic() - begin
    return row


if __name__ == "__main__":
    sys.exit(main())
