"""The scenarios of mar on the virtual clock: promises are given and counted, a replay decides the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.allocators.mar.fit import Memory
from tests.experiments.played import Played

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def check(run: Played, users: int) -> None:
    """What holds for every run: nothing failed, settings are of the options and of all users, twins came."""
    assert not [s["failed"] for s in run.of("mar") if s.get("failed")]
    last = run.of("mar")[-1]
    assert len(last["settings"]) == users
    frequencies = {1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 15.0, 30.0}
    assert {
        v for s in run.of("mar") for told in s["settings"].values() for v in told["upload_hz"]
    } <= frequencies
    assert last["closed"]["counts"]["frames"] > 0 and set(last["closed"]["measures"]) == {
        *("vchr", "hits", "upload", "ul_prb")
    }
    digests = {fit.digest for fit in run.fits if not fit.error}
    assert digests
    for digest in digests:
        memory = Memory.from_bytes(run.models.get(digest))
        assert len(memory.users) <= users
        # Of a control slot that ended early, or at 1 Hz, there is too little of some; no pose is impossible.
        assert all(why in ("0 uploads", "1 uploads") for why in memory.left_out.values())


@pytest.fixture(scope="module")
def mar() -> Played:
    return Played("mar", 60.0)


def test_mar_promises_and_the_promises_are_counted(mar: Played) -> None:
    check(mar, 8)
    closed = [s["closed"] for s in mar.of("mar")]
    counted = [c["counts"]["promises"] for c in closed]
    assert counted[0] == 0 < max(counted) <= 8
    first = next(i for i, n in enumerate(counted) if n)
    # Before the first there is nothing to keep; from there on the bit is that of the counts.
    for c in closed[1:first]:
        assert c["met"] is None and c["promised"] is False
    for c in closed[first:]:
        counts = c["counts"]
        if counts["promises"]:
            enough = max(int(0.9 * counts["promises"] + 1e-9), 1)
            assert c["met"] == int(counts["promises_kept"] >= enough) and "promised" not in c
    assert sum(c["counts"]["promises_kept"] for c in closed) >= 0.5 * sum(counted)
    # Those who are promised something hit in time.
    latency = [v for v, _ in closed[-1]["measures"]["upload"]["users"].values()]
    assert latency and max(latency) < 500.0


def test_mar_replays_to_equal_decisions(mar: Played) -> None:
    assert mar.replayed() == mar.records


def test_a_replay_without_the_twins_says_so(mar: Played) -> None:
    def nothing(digest: str) -> bytes:
        raise KeyError(digest)

    records = mar.replayed(nothing)
    assert [r["slices"]["mar"].get("failed") for r in records if r["slices"]["mar"].get("failed")]
    assert len(records) == len(mar.records)


@needs_data
def test_mar_longdress_runs_and_replays() -> None:
    run = Played("mar-longdress", 30.0)
    check(run, 40)
    assert run.of("mar")[-1]["closed"]["counts"]["frames"] > 30 * 40
    assert run.replayed() == run.records
