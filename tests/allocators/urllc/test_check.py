"""Each constraint of problem (6), broken by a thousandth, is found, and only it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra urllc")

from controller.allocators.urllc import joint
from controller.allocators.urllc.check import violations
from controller.allocators.urllc.instance import Instance
from controller.allocators.urllc.model import Allocation, parts
from tests.allocators.urllc.instances import paper

LESS, MORE = 1.0 - 1e-3, 1.0 + 1e-3
M = 6
SENDS, CACHED = 2, 0


@pytest.fixture(scope="module")
def solved() -> tuple[Instance, Allocation]:
    """Device 0 is cached; the budgets are not used up, so that each can be cut alone."""
    i = paper(2, M).with_(cache_kbit=30.0)
    found = joint.resources_for(i, np.arange(M) == CACHED)
    assert found is not None and violations(i, found.allocation) == []
    a = found.allocation
    loose = i.with_(energy_mj=10.0, max_power_w=1.0, ue_ghz=2.0, edge_ghz=40.0)
    share = np.where(a.cached, 0.0, 0.5)
    f = np.where(a.cached, 0.0, 0.5)
    return loose, a.with_(bandwidth=0.9 * a.bandwidth, local_share=share, ue_ghz=f, edge_ghz=np.full(M, 5.0))


def at(a: Allocation, column: str, value: float) -> Allocation:
    changed = getattr(a, column).copy()
    changed[SENDS] = value
    return a.with_(**{column: changed})


def column(i: Instance, name: str, value: float) -> Instance:
    changed = getattr(i, name).copy()
    changed[SENDS] = value
    return i.with_(**{name: changed})


def edge_used(a: Allocation) -> float:
    return float(np.where(a.cached, 1.0, 1.0 - a.local_share) @ a.edge_ghz)


BREAKS: dict[str, tuple[str, str, Callable[[Instance, Allocation], tuple[Instance, Allocation]]]] = {
    "latency": (
        "6b", "ue-3", lambda i, a: (column(i, "deadline_ms", LESS * parts(i, a).latency_ms[SENDS]), a),
    ),
    "bandwidth": ("6c", "", lambda i, a: (i, a.with_(bandwidth=a.bandwidth * MORE / a.bandwidth.sum()))),
    "rate": (
        "6d", "ue-2",
        lambda i, a: (i.with_(min_rate_mbps=MORE * float(np.sort(parts(i, a).rate_mbps[1:])[0])), a),
    ),
    "energy": ("6e", "ue-3", lambda i, a: (column(i, "energy_mj", LESS * parts(i, a).energy_mj[SENDS]), a)),
    "edge rate": ("6f", "", lambda i, a: (i.with_(edge_ghz=LESS * edge_used(a)), a)),
    "cache": ("6g", "", lambda i, a: (i.with_(cache_kbit=LESS * float(i.task_cache_kbit[CACHED])), a)),
    "local share": ("6h", "ue-3", lambda i, a: (i, at(a, "local_share", MORE))),
    "power": ("6h", "ue-3", lambda i, a: (column(i, "max_power_w", LESS * a.power_w[SENDS]), a)),
    "processing rate of the UE": (
        "6h", "ue-3", lambda i, a: (column(i, "ue_ghz", LESS * a.ue_ghz[SENDS]), a),
    ),
}  # fmt: skip


def test_a_solution_breaks_nothing(solved: tuple[Instance, Allocation]) -> None:
    assert violations(*solved) == []


@pytest.mark.parametrize("name", BREAKS)
def test_a_constraint_that_is_broken_is_found_and_no_other(
    solved: tuple[Instance, Allocation], name: str
) -> None:
    constraint, device, broken = BREAKS[name]
    found = violations(*broken(*solved))
    assert [(v.constraint, v.name, v.device) for v in found] == [(constraint, name, device)]
    assert str(found[0]).startswith(f"({constraint}) {name}")


def test_the_rate_of_the_edge_for_a_device_is_at_most_the_edges(solved: tuple[Instance, Allocation]) -> None:
    i, a = solved
    found = violations(i.with_(edge_ghz=4.995), a)
    assert {(v.constraint, v.device) for v in found} == {("6f", "")} | {("6h", name) for name in i.ids}


@pytest.mark.parametrize("name", ["local_share", "bandwidth", "power_w", "ue_ghz", "edge_ghz"])
@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_what_is_no_number_or_negative_is_found(
    solved: tuple[Instance, Allocation], name: str, value: float
) -> None:
    i, a = solved
    assert "ue-3" in {v.device for v in violations(i, at(a, name, value)) if v.constraint == "6h"}


def test_an_allocation_of_other_devices_is_refused(solved: tuple[Instance, Allocation]) -> None:
    i, a = solved
    with pytest.raises(ValueError, match="of an instance of 6"):
        violations(i, a.with_(power_w=a.power_w[:-1]))
