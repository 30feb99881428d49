"""What an instance is read from, and what is refused."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest

from controller.allocators.urllc.instance import DEFAULTS, MAX_DEVICES, Instance, watt

DEVICE = {"bits": 10832, "cycles": 270_800, "channel_gain": 6.1e-9}


def of(cell: dict[str, Any] | None = None, **device: Any) -> Instance:
    return Instance.of({**(cell or {}), "devices": [{**DEVICE, **device}]})


def test_units_are_those_that_the_keys_name() -> None:
    i = of(deadline_ms=7, energy_mj=2, power_dbm=20, ue_hz=2e9, error=1e-5, edge_deviation=-0.1)
    assert (i.kbit[0], i.mcycles[0]) == (10.832, 0.2708)
    assert (i.deadline_ms[0], i.energy_mj[0], i.ue_ghz[0], i.edge_deviation[0]) == (7.0, 2.0, 2.0, -0.1)
    assert i.max_power_w[0] == pytest.approx(0.1)
    assert (i.bandwidth_mhz, i.edge_ghz, i.cache_kbit, i.min_rate_mbps) == (5.0, 30.0, 60.0, 1.0)
    # -174 dBm/Hz in 5 MHz are 1.9905e-14 W.
    assert i.snr_per_w[0] == pytest.approx(6.1e-9 / 1.99053585e-14, rel=1e-8)
    # 1e-26 / 2 x 10^6 cycles x (10^9 Hz)^2 = 5 mJ, and Q^-1(1e-5) = 4.2649.
    assert i.mj_per_mcycle[0] == pytest.approx(5.0)
    assert i.inverse_q[0] == pytest.approx(4.26489, abs=1e-5)
    assert i.task_cache_kbit[0] == i.kbit[0] and i.ids == ("ue-1",)


def test_the_defaults_are_those_of_the_paper() -> None:
    i = of()
    assert i.deadline_ms[0] == 10.0 and i.energy_mj[0] == 3.0 and i.ue_ghz[0] == 1.5
    assert i.max_power_w[0] == pytest.approx(watt(23.0)) and i.error[0] == 1e-7
    assert i.theta == 1e-26 and i.transmitted == "whole" and DEFAULTS["edge_hz"] == 30e9


def test_columns_are_changed_and_devices_picked() -> None:
    i = Instance.of({"devices": [{**DEVICE, "id": n, "error": e} for n, e in (("a", 1e-3), ("b", 1e-5))]})
    wider = i.with_(ue_deviation=0.5, edge_ghz=1.0)
    assert wider.ue_deviation.tolist() == [0.5, 0.5] and wider.edge_ghz == 1.0 and i.edge_ghz == 30.0
    assert wider.energy_deviation.tolist() == [0.5, 0.5] and (wider.mj_per_mcycle == i.mj_per_mcycle).all()
    assert i.with_(energy_deviation=-1.0).mj_per_mcycle == pytest.approx(4.0 * i.mj_per_mcycle)
    second = i.only(np.array([False, True]))
    assert second.ids == ("b",) and second.inverse_q == i.inverse_q[1:]
    assert i.with_(error=1e-3).inverse_q == pytest.approx([i.inverse_q[0]] * 2)


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        ({"bandwidth_hz": 0}, "bandwidth_hz"),
        ({"bandwidth_hz": -5e6}, "bandwidth_hz"),
        ({"interval_ms": nan}, "interval_ms"),
        ({"edge_hz": inf}, "edge_hz"),
        ({"edge_hz": True}, "edge_hz"),
        ({"min_rate_bps": -1}, "min_rate_bps"),
        ({"cache_bits": "60 kB"}, "cache_bits"),
        ({"theta": 1e-40}, "theta"),
        ({"noise_dbm_per_hz": 900}, "noise_dbm_per_hz"),
        ({"transmitted": "half"}, "transmitted"),
        ({"bandwith_hz": 5e6}, "bandwith_hz"),
        ({"devices": []}, "devices"),
        ({"devices": "ue-1"}, "devices"),
        ({"devices": [DEVICE] * (MAX_DEVICES + 1)}, "devices"),
        ({"devices": [DEVICE, 7]}, r"devices\[1\]"),
        ({"devices": [{**DEVICE, "id": "a"}] * 2}, "'a' is there twice"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_by_its_key(cell: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        Instance.of({"devices": [DEVICE], **cell})


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ({"bits": 0}, "bits"),
        ({"bits": None}, "bits"),
        ({"cycles": -1}, "cycles"),
        ({"cycles": 10**400}, "cycles"),
        ({"id": [1]}, "id"),
        ({"id": None}, "id"),
        ({"channel_gain": nan}, "channel_gain"),
        ({"channel_gain": -1e-9}, "channel_gain"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"energy_mj": 0}, "energy_mj"),
        ({"ue_hz": -1.5e9}, "ue_hz"),
        ({"error": 0.5}, "error"),
        ({"error": 0}, "error"),
        ({"ue_deviation": 1.0}, "ue_deviation"),
        ({"edge_deviation": -1.0}, "edge_deviation"),
        ({"power_dbm": 300}, "power_dbm"),
        ({"speed": 3}, "speed"),
    ],
)
def test_a_device_that_cannot_be_is_refused_by_its_place(device: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=rf"devices\[0\]\.{place}"):
        of(**device)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"devices\[0\]: cycles, channel_gain missing"):
        Instance.of({"devices": [{"bits": 1}]})
    for data in ([], None, 3):
        with pytest.raises(ValueError, match="mapping"):
            Instance.of(data)  # type: ignore[arg-type]
