"""UEs that move between the cells of a scenario, and users who change cell with them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from agents.emulator.applications.video import Person, VideoOptions
from agents.emulator.spec import ChannelProcess, ChannelSeries, LinkSpec
from agents.emulator.testbed import EmulatedTestbed
from controller import config
from controller.mobility import ways
from controller.scenario import cell_seed
from controller.scenario import testbed_spec as scenario_testbed
from wire.definitions.nr import MAX_MCS
from wire.definitions.propagation import Site, received_dbm, sinr_db

# What the slices are for does not matter to the testbed.
TEXT = """
cells:
  - id: cell-1
    slices:
      - {id: ar, ues: [ue-1]}
      - {id: users, ues: [ue-2, ue-3, ue-4, ue-5]}
  - id: cell-2
    slices:
      - {id: ar, ues: [ue-1]}
      - {id: users, ues: [ue-2, ue-3, ue-4, ue-5]}
emulation:
  duration_s: 900.0
  ues: 6
  flows: 0
  schedule: always
  stress: {hiccup_rate_hz: 0.0}
  mobility: {}
  users:
    - {application: openrtist, slice: ar}
    - {application: video, slice: users, count: 6, edge_ghz: 2.0}
"""


def scenario(**emulation: Any) -> config.Config:
    return config.parse(TEXT, overrides={f"emulation.{key}": value for key, value in emulation.items()})


def users(cfg: config.Config, seed: int = 1) -> list[list[Any]]:
    return [list(scenario_testbed(cfg, seed, c.id).applications[0].users) for c in cfg.cells]


def test_a_user_is_in_one_cell_at_a_time_and_in_one_always() -> None:
    for first, second in zip(*users(scenario()), strict=True):
        edges = sorted((*first.active, *second.active))
        assert edges[0][0] == 0.0 and edges[-1][1] == 900.0
        assert all(a[1] == b[0] for a, b in pairwise(edges))
        assert first.flow == second.flow and first.ue_id == second.ue_id
        assert first.seed == second.seed == 1 and first.index == second.index
        assert np.array_equal(first.track.positions_m, second.track.positions_m)
    assert sum(len(u.active) for of in users(scenario()) for u in of) > 20


def test_it_changes_to_the_cell_that_serves_at_the_first_swipe_after_the_crossing() -> None:
    cfg = scenario()
    way = ways(cfg.emulation.mobility, 1, 6, 900.0, 106)
    both = users(cfg)
    for i, (first, second) in enumerate(zip(*both, strict=True)):
        ue = int(first.ue_id.removeprefix("ue-")) - 1
        swipes = Person(1, i, VideoOptions()).swipes_s(900.0)
        cell = int(way.serving[ue, 0])
        changes = []
        for t in swipes.tolist():
            if way.serving[ue, int(t)] != cell:
                cell = int(way.serving[ue, int(t)])
                changes.append((t, cell))
        begins = sorted((a, c) for c, u in enumerate((first, second)) for a, _ in u.active)
        assert begins[1:] == changes


def test_users_who_are_away_begin_in_the_cell_that_serves_by_then() -> None:
    times = {"mean_on_s": 60.0, "mean_off_s": 60.0, "min_on_s": 5.0, "min_off_s": 5.0}
    cfg = config.parse(TEXT, overrides={"emulation.on_off": times})
    group = cfg.emulation.users[1].model_copy(update={"schedule": "described"})
    emulation = cfg.emulation.model_copy(update={"users": (cfg.emulation.users[0], group)})
    cfg = cfg.model_copy(update={"emulation": emulation})
    way = ways(cfg.emulation.mobility, 1, 6, 900.0, 106)
    starts = 0
    for i, (first, second) in enumerate(zip(*users(cfg), strict=True)):
        edges = sorted((*((*a, 0) for a in first.active), *((*a, 1) for a in second.active)))
        assert all(a[1] <= b[0] for a, b in pairwise(edges))
        assert 100 < sum(b - a for a, b, _ in edges) < 800
        for k, (begin, _, cell) in enumerate(edges):
            if k == 0 or edges[k - 1][1] < begin:
                starts += 1
                assert cell == way.serving[1 + i % 4, int(begin)]
    assert starts > 20


def test_the_channel_is_the_sinr_at_the_cells_own_station() -> None:
    cfg = scenario()
    model = cfg.emulation.mobility
    way = ways(model, 1, 6, 900.0, 106)
    site = Site(prb=106, prb_hz=360e3)
    assert way.site == site
    for c, cell in enumerate(cfg.cells):
        spec = scenario_testbed(cfg, 1, cell.id)
        for k, ue in enumerate(spec.ues):
            if k in (0, 5):  # nobody who could change cell is on these
                assert isinstance(ue.channel, ChannelProcess)
                continue
            assert isinstance(ue.channel, ChannelSeries)
            expected = sinr_db(way.received_dbm[k : k + 1], np.full((1, 901), c), site)[0]
            low = LinkSpec().snr_at_mcs0_db
            assert ue.channel.snr_db == pytest.approx(np.clip(expected, low, low + 32 * 0.87))
            assert ue.channel.snr_db.max() >= low + (MAX_MCS + 3) * 0.87
    # On average the nearer station is the better one.
    near = np.linalg.norm(way.positions_m - model.stations[0], axis=-1) < 200
    assert way.serving[near].mean() < 0.2
    unshadowed = received_dbm(way.positions_m, np.array(model.stations), 0 * way.received_dbm, site)
    assert np.std(way.received_dbm - unshadowed) == pytest.approx(site.shadowing_db, rel=0.2)


def test_the_seed_moves_everybody_and_the_hysteresis_keeps_them() -> None:
    a, b = (ways(config.MobilityModel(), seed, 3, 600.0, 52) for seed in (1, 2))
    assert not np.array_equal(a.positions_m, b.positions_m)
    same = ways(config.MobilityModel(), 1, 3, 600.0, 52)
    assert np.array_equal(a.received_dbm, same.received_dbm)
    counts = [
        (np.diff(ways(config.MobilityModel(hysteresis_db=h), 1, 8, 900.0, 52).serving) != 0).sum()
        for h in (0.0, 4.0, 30.0)
    ]
    assert counts[0] > 2 * counts[1] > counts[2]


def test_who_moves_is_served_wherever_it_is() -> None:
    cfg = scenario()
    rated: dict[str, list[float]] = {}
    for cell in cfg.cells:
        bed = EmulatedTestbed(scenario_testbed(cfg, 1, cell.id), seed=cell_seed(cfg, cell.id, 1))
        bed.advance(200 * 2000)
        for s in bed.take_samples():
            if s.table == "rating":
                rated.setdefault(bed.flows[s.flow].flow, []).extend(s.values[:, 1].tolist())
        assert bed.health().exchanges_refused == 0
    assert len(rated) == 6
    # Seconds a minute in which nothing was played.
    assert np.mean([v for values in rated.values() for v in values]) < 15
    assert all(10 <= len(values) <= 20 for values in rated.values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mobility.stations": [[0.0, 0.0]]}, "1 stations for 2 cells"),
        ({"mobility.area_m": [0.0, 5.0]}, "mobility.area_m.0: .*greater than 0"),
        ({"mobility.hysteresis_db": -1.0}, "mobility.hysteresis_db: .*greater than or equal to 0"),
        ({"mobility.speed": 3}, "mobility.speed: unknown key"),
        ({"channel_trace": "trace.csv"}, "channel_trace and mobility"),
    ],
)
def test_mobility_that_cannot_be_is_refused_by_place(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(config.ConfigError, match=says):
        scenario(**changes)


def test_users_who_cannot_move_are_refused_by_name() -> None:
    still = [{"application": "openrtist", "slice": "ar"}, {"application": "vr", "slice": "users", "count": 2}]
    with pytest.raises(ValueError, match="no users who can change cell"):
        scenario_testbed(scenario(users=still), 1)
    wrong = [{"application": "video", "slice": "users", "bitrate_kbps": 1.0}]
    with pytest.raises(ValueError, match="application 'video': bitrate_kbps 1 is none of"):
        scenario_testbed(scenario(users=wrong), 1)


def test_users_who_move_are_on_the_same_ues_in_all_cells() -> None:
    text = TEXT.replace("ue-4, ue-5]}\nemulation", "ue-4]}\nemulation")
    assert text != TEXT
    with pytest.raises(ValueError, match="slice 'users' has other UEs in cell 'cell-2' than in 'cell-1'"):
        scenario_testbed(config.parse(text), 1)


def test_without_mobility_every_cell_has_its_own_users() -> None:
    first, second = users(scenario(mobility=None))
    assert [u.active for u in first] == [u.active for u in second] == [((0.0, 900.0),)] * 6
    assert {u.seed for u in (*first, *second)} == {None} and first[0].track is None
