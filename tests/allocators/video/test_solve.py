"""One division of an instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra video")
pytest.importorskip("scipy", reason="the extra video")

from controller.allocators.video import frontier, orchestration
from controller.allocators.video.instance import Instance
from controller.allocators.video.solve import METHODS, solve
from controller.allocators.video.users import gain


def user(name: str, ela: float, cell: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "cell": cell,
        "ela": ela,
        "kbps_per_prb": 300.0,
        "environment": 1.2,
        "swipes_per_min": 4.0,
        "model": {"qos": ["stalled", "quality"], "s": [1.0, -0.4, 4.0], "deviation": 0.8},
        **more,
    }


def instance(prb: float = 20.0, edge: float = 10.0, users: int = 6) -> Instance:
    rows = [user(str(i), 3.0 + 0.3 * i, "ab"[i % 2], kbps_per_prb=200.0 + 60.0 * i) for i in range(users)]
    return Instance.of({"cells": {"a": prb, "b": prb}, "edge_gcycles": edge, "users": rows})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("prb", "edge"), [(4.0, 10.0), (20.0, 0.5), (200.0, 100.0)])
def test_no_more_than_there_is(method: str, prb: float, edge: float) -> None:
    of = solve(instance(prb, edge), {"method": method})
    assert all(cell["used"] <= prb * (1.0 + 1e-9) for cell in of["cells"].values())
    assert of["edge"]["used"] <= edge * (1.0 + 1e-9)


def test_with_plenty_all_but_the_impossible_are_content() -> None:
    of = solve(instance(1000.0, 1000.0), {})
    assert of["impossible"] and of["kept"] + len(of["impossible"]) == 6
    assert all(cell["price"] == pytest.approx(0.0, abs=1e-9) for cell in of["cells"].values())


def test_a_price_is_what_one_more_would_gain() -> None:
    users = instance(6.0, 100.0).users

    def total(prb: float) -> float:
        curves = frontier.hulls(users)
        kbps = frontier.divide(users, curves, np.array([prb, 6.0]), np.inf, 180.0).kbps
        return float(sum(np.interp(r, h.kbps, h.gain) for r, h in zip(kbps, curves, strict=True)))

    price = solve(instance(6.0, 100.0), {})["cells"]["a"]["price"]
    assert price > 0.0 and total(6.01) - total(6.0) == pytest.approx(0.01 * price, rel=1e-6)


def test_what_is_left_over_is_taken_from_nobody() -> None:
    """One cell has PRBs left and the edge is short: its users may not have what the other's need."""
    rows = [
        user("0", 4.0, "a", kbps_per_prb=2000.0),
        user("1", 3.5, "b", kbps_per_prb=150.0),
        user("2", 3.5, "b", kbps_per_prb=150.0),
    ]
    of = Instance.of({"cells": {"a": 100, "b": 40}, "edge_gcycles": 4.0, "users": rows})
    curves = frontier.hulls(of.users)
    r = of.resources
    least = frontier.divide(of.users, curves, r.prb, r.mcycles, r.cycles_per_bit).kbps
    plan = orchestration.convex(of.users, r)
    assert (plan.kbps >= least * orchestration.FULL_SHARE**2 - 1e-6).all()


def test_the_convex_division_gains_no_less_than_equal_shares() -> None:
    for prb in (4.0, 8.0, 16.0):
        totals = {}
        for method in METHODS:
            rows = solve(instance(prb), {"method": method})["users"]
            opinion, ela = (np.array([row[key] for row in rows]) for key in ("expected", "ela"))
            totals[method] = float(gain(opinion, ela).sum())
        assert totals["convex"] >= totals["round-robin"] - 0.02


def test_a_method_that_is_none() -> None:
    with pytest.raises(ValueError, match="'best' is none of convex"):
        solve(instance(), {"method": "best"})
