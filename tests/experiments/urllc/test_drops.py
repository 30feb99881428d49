"""Drops of the paper's simulations, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.allocators.urllc.instance import Instance
from controller.experiments import files
from controller.experiments.urllc.drops import BITS, MOST_ANTENNAS, Drop, draw
from controller.experiments.urllc.readings import READINGS


def test_a_seed_is_a_drop() -> None:
    assert draw(7) == draw(7) != draw(8)
    few = draw(7, Drop(devices=4))
    assert few["devices"] == draw(7)["devices"][:4]


def test_the_papers_parameters() -> None:
    data = draw(0)
    assert len(data["devices"]) == 15 and data["bandwidth_hz"] == 5e6 and data["cache_bits"] == 60e3
    for row in data["devices"]:
        assert row["bits"] == 1354 * 8 == BITS
        assert 100 * 1354 <= row["cycles"] <= 300 * 1354
        assert (row["energy_mj"], row["power_dbm"], row["ue_hz"], row["error"]) == (3.0, 23.0, 1.5e9, 1e-7)
    assert draw(0, Drop(cycles_per="bit"))["devices"][0]["cycles"] == pytest.approx(
        8 * data["devices"][0]["cycles"], abs=8
    )


def test_gains_are_path_loss_and_rayleigh_fading_over_the_antennas() -> None:
    far = Drop(devices=400, min_distance_m=1e5)
    path = 10.0 ** (-(35.3 + 37.6 * 5.0) / 10.0)

    def gains(drop: Drop) -> Any:
        return np.array([row["channel_gain"] for row in draw(1, drop)["devices"]]) / path

    total = gains(far)
    assert total.mean() == pytest.approx(8.0, rel=0.05) and total.var() == pytest.approx(8.0, rel=0.25)
    mean = gains(Drop(devices=400, min_distance_m=1e5, antenna_gain="mean"))
    assert mean * 8.0 == pytest.approx(total, rel=1e-5)
    assert gains(Drop(devices=400, min_distance_m=1e5, antennas=1)).mean() == pytest.approx(1.0, rel=0.15)


def test_places_are_anywhere_in_the_square() -> None:
    # Without fading (64 antennas vary little) gains range from the corner's to that of the least distance.
    drop = Drop(devices=300, antennas=MOST_ANTENNAS, antenna_gain="mean", min_distance_m=5.0)
    gains_db = 10.0 * np.log10([row["channel_gain"] for row in draw(2, drop)["devices"]])
    metres = 10.0 ** ((-gains_db - 35.3) / 37.6)
    assert 4.5 < metres.min() < 8.0 and 60.0 < metres.max() < 75.0
    assert metres.mean() == pytest.approx(38.3, rel=0.05)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"devices": 0}, "devices: 0 is not from 1"),
        ({"antennas": 65}, "antennas: 65 is not from 1 to 64"),
        ({"cycles_per": "word"}, "cycles_per: 'word' is none of byte, bit"),
        ({"antenna_gain": "max"}, "antenna_gain: 'max' is none of sum, mean"),
        ({"side_m": 0.0}, "side_m: 0.0 is not above 0"),
        ({"min_distance_m": float("nan")}, "min_distance_m: nan is not above 0"),
    ],
)
def test_a_drop_that_cannot_be(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Drop(**fields)


def test_a_negative_seed_is_named() -> None:
    with pytest.raises(ValueError, match="seed: -1"):
        draw(-1)


@pytest.mark.parametrize("name", ["drop.yaml", "drop.json"])
def test_files_hold_every_digit(tmp_path: Path, name: str) -> None:
    files.write(tmp_path / name, draw(3), "seed 3", replace=False)
    assert files.read(tmp_path / name) == draw(3)
    with pytest.raises(FileExistsError):
        files.write(tmp_path / name, draw(4), "seed 4", replace=False)
    files.write(tmp_path / name, draw(4), "seed 4", replace=True)
    assert files.read(tmp_path / name) == draw(4)


def test_numbers_as_yaml_1_2_has_them(tmp_path: Path) -> None:
    path = tmp_path / "drop.yaml"
    path.write_text("a: [1e-9, 5.0e6, 5e6, -1.5E+3, .5e1, 1.e2, 7, 0.25]\nb: {c: 1e, d: e5}\n")
    numbers = [1e-9, 5e6, 5e6, -1500.0, 5.0, 100.0, 7, 0.25]
    assert files.read(path) == {"a": numbers, "b": {"c": "1e", "d": "e5"}}


def test_readings_are_of_the_same_drops() -> None:
    text, bit = (READINGS[name].instance(5) for name in ("text", "bit"))
    assert bit.snr_per_w == pytest.approx(text.snr_per_w)
    assert bit.mcycles == pytest.approx(8.0 * text.mcycles, rel=1e-5)
    km = READINGS["bit, km"].instance(5)
    assert 10.0 * np.log10(km.snr_per_w / text.snr_per_w) == pytest.approx(np.full(15, 112.8))
    assert READINGS["bit, 23 dBW"].instance(5).max_power_w == pytest.approx(np.full(15, 10.0**2.3))
    other = READINGS["text"].instance(5, energy_mj=1.5, edge_hz=38e9)
    assert other.energy_mj == pytest.approx(np.full(15, 1.5)) and other.edge_ghz == 38.0
    assert Instance.of(draw(5)).kbit == pytest.approx(text.kbit)
