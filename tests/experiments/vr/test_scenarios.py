"""The scenario of vr on the virtual clock: settings fit, promises are counted, a replay decides the same."""

from __future__ import annotations

import pytest

from tests.experiments.played import Played
from wire.definitions.cloud_gaming import FRAME_RATES_HZ, RESOLUTION_PIXELS

SECONDS = 20.0


@pytest.fixture(scope="module")
def run() -> Played:
    return Played("vr-sixteen", SECONDS)


def test_players_have_settings_that_their_devices_have_and_frames_come_in_time(run: Played) -> None:
    assert not [s["failed"] for s in run.of("vr") if s.get("failed")]
    last = run.of("vr")[-1]
    assert len(last["settings"]) == 16
    told = [values for s in run.of("vr") for values in s["settings"].values()]
    assert {v for values in told for v in values["frame_rate"]} <= {0.0, *FRAME_RATES_HZ}
    assert {v for values in told for v in values["resolutions"]} <= set(map(float, RESOLUTION_PIXELS))
    assert len({v for values in told for v in values["resolutions"]}) > 1
    closed = last["closed"]
    assert set(closed["measures"]) == {"on_time", "qoe", "latency", "frame_rate", "dl_prb", "changes"}
    counts = closed["counts"]
    assert counts["promises"] >= 12 and counts["frames_on_time"] > 0.8 * counts["frames"] > 0
    assert last["granted"]["dl"][0] <= 273 and last["demand"]["gpu_mhz"] > 0


def test_what_is_looked_at_is_worth_more_than_at_the_default(run: Played) -> None:
    # At the default, class 2 at 30 Hz, it is 0 at most.
    qoe = [value for value, _ in run.of("vr")[-1]["closed"]["measures"]["qoe"]["users"].values()]
    assert sum(qoe) > len(qoe)


def test_a_replay_decides_the_same(run: Played) -> None:
    assert run.replayed() == run.records


def test_equal_seeds_run_equally(run: Played) -> None:
    assert Played("vr-sixteen", SECONDS).records == run.records
