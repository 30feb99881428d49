"""What each UE of a slice had of what its allocator meant it to have, and what one that sends more takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from controller import config, sim
from controller.core.decision import Decision
from tests.bench.common import Row

NAME = "shares"
SEEDS = 4
SECONDS = 240.0
QUICK = 0.1
USERS = (2, 8)
FRAME_BITS = 48_000
THREEFOLD = 2.0
SATURATING_BPS = 20e6
SERVICES = (("urllc-factory", "urllc", "ul_prb"), ("vr-sixteen", "vr", "dl_prb"))
PROMISE = {"mar": "hits", "urllc": "on_time", "vr": "on_time"}

Figures = dict[str, Any]


def run(effort: float) -> list[Row]:
    """Users' control slots of `mar` (two and eight UEs in the slice, beside a slice of two OpenRTiST flows),
    `urllc` and `vr`: PRBs had against those meant, and promises kept.

    The first user of `mar` then sends threefold: beside its uploads twice their bits as datagrams; or without
    end, 20 Mbit/s. How many promises of the *other* users are kept is compared with the run in which it does
    not. A promise counts for each user for itself, whatever the share of users that the slice promises. Each
    row is the mean of seeds 1 to 4.
    """
    seeds = range(1, 1 + max(1, round(SEEDS * effort)))
    seconds = max(30.0, SECONDS * effort)
    rows = []
    for users in USERS if effort >= QUICK else USERS[:1]:
        quiet = [_closed_slots(_mar(users), "mar", seed, seconds) for seed in seeds]
        rows.append(_had(f"mar, {users} users", "ul_prb", PROMISE["mar"], quiet))
        upload_bps = float(np.mean([s["hz"] for s in quiet])) * FRAME_BITS
        for how, bps in (("threefold", THREEFOLD * upload_bps), ("20 Mbit/s", SATURATING_BPS)):
            loud = [_closed_slots(_mar(users, bps), "mar", seed, seconds) for seed in seeds]
            rows.append(_others(f"mar, {users} users, one sends {how}", loud, quiet))
    for scenario, slice_, measure in SERVICES if effort >= QUICK else ():
        settings = config.load(config.find(scenario))
        of = [_closed_slots(settings, slice_, seed, max(20.0, seconds / 4)) for seed in seeds]
        rows.append(_had(scenario, measure, PROMISE[slice_], of))
    return rows


def _mar(users: int, cross_bps: float = 0.0) -> config.Config:
    ues = ", ".join(f"ue-{i}" for i in range(1, users + 1))
    return config.parse(f"""
cells:
  - id: cell-1
    slices:
      - {{id: mar, service: mar, vchr: 0.6, rho: 0.5, ues: [{ues}]}}
      - {{id: ar, service: ar, policy: default, ues: [ue-{users + 1}]}}
emulation:
  duration_s: 86400.0
  ues: {users + 1}
  flows: 0
  schedule: always
  stress: {{cross_ul_bps: {cross_bps:.0f}.0}}
  users:
    - {{application: mar, slice: mar, count: {users}, upload_hz: 10}}
    - {{application: openrtist, slice: ar, count: 2, schedule: always}}
""")


def _closed_slots(settings: config.Config, slice_: str, seed: int, seconds: float) -> Figures:
    """Of a run: measures of each user and control slot, ``hz`` that the first was told, PRB ``granted``."""
    closed: list[tuple[int, Mapping[str, tuple[float | None, float]]]] = []
    hz: list[float] = []
    granted: list[tuple[int, int]] = []

    def seen(_observation: Any, decision: Decision, _loop: Any) -> None:
        of = next(s for s in decision.slices if s.slice == slice_)
        for user in range(len(of.outcome.users)):
            measures = {m.name: (m.values[user], m.targets[user]) for m in of.outcome.measures}
            closed.append((user, measures))
        hz.extend(v["upload_hz"][0] for v in list(of.settings.values())[:1] if "upload_hz" in v)
        granted.append((of.grant.ul_prb, of.grant.dl_prb))

    sim.run(settings, seed, on_slot=seen, duration_s=seconds)
    name = PROMISE[slice_]
    kept = [(u, v >= t - 1e-9) for u, m in closed for v, t in [m[name]] if v is not None]
    return {
        "closed": closed,
        "hz": float(np.mean(hz)) if hz else 0.0,
        "granted": np.mean(granted, axis=0).tolist(),
        "kept": float(np.mean([k for _, k in kept])),
        "others_kept": float(np.mean([k for u, k in kept if u > 0])),
        "first_kept": float(np.mean([k for u, k in kept if u == 0])),
    }


def _had(name: str, measure: str, promise: str, runs: list[Figures]) -> Row:
    """PRBs had against those meant, where some were, in each NR slot of the direction."""
    triples = [(*m[measure], *m[promise]) for r in runs for _, m in r["closed"]]
    told = [t for t in triples if None not in t and t[1] > 0.0]
    had, meant, came, target = np.array(told, np.float64).T
    order = np.argsort(had / meant, kind="stable")
    quarters = [float(np.mean((came >= target - 1e-9)[q])) for q in np.array_split(order, 4)]
    parts = np.quantile(had / meant, (0.05, 0.5, 0.95)).round(2).tolist()
    kept = float(np.mean([r["kept"] for r in runs]))
    details = {"part_had_5_50_95": parts, "kept": kept, "granted": [r["granted"] for r in runs]}
    details["kept_by_quarter"] = quarters
    note = (
        f"{name}: of what was meant 5, 50, 95 % had {parts}; {kept:.1%} of the users' promises kept,"
        f" by quarters from who had the least of it: {', '.join(f'{q:.0%}' for q in quarters)}"
    )
    ratio = float(had.mean() / meant.mean())
    return Row(NAME, name, "PRB", float(had.mean()), float(meant.mean()), "meant", ratio, "", details, note)


def _others(name: str, loud: list[Figures], quiet: list[Figures]) -> Row:
    measured, baseline = (float(np.mean([r["others_kept"] for r in runs])) for runs in (loud, quiet))
    keys = ("others_kept", "first_kept", "granted")
    details = {
        f"{of}_{k}": [r[k] for r in runs] for of, runs in (("loud", loud), ("quiet", quiet)) for k in keys
    }
    granted = [float(np.mean([r["granted"][0] for r in runs])) for runs in (quiet, loud)]
    first = [float(np.mean([r["first_kept"] for r in runs])) for runs in (quiet, loud)]
    note = (
        f"{name}: its own promises kept {first[0]:.1%} before, {first[1]:.1%} now; the slice's quota"
        f" {granted[0]:.1f} PRB before, {granted[1]:.1f} now"
    )
    ratio = measured / baseline
    return Row(NAME, f"{name}: others", "kept", measured, baseline, "it does not", ratio, "1", details, note)
