"""Fronts of views against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra vr")

from controller.allocators.vr.check import Objective
from controller.allocators.vr.instance import Instance
from controller.allocators.vr.menus import front, menu
from tests.allocators.vr.worlds import draw


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("objective", ["weighted", "printed"])
def test_a_front_is_that_of_brute_force(seed: int, objective: Objective) -> None:
    instance = Instance.of(draw(seed, 1, objects=4))
    (user,) = instance.users
    found = menu(instance, user, objective)
    scale = {k: pixels / (640 * 360) for k, pixels in instance.resolution_pixels.items()}
    every = []
    for classes in product(user.resolutions, repeat=len(user.objects)):
        pixels = sum(o.pixels * scale[k] for o, k in zip(user.objects, classes, strict=True))
        weight = [o.attention if objective == "weighted" else float(o.attention > 0) for o in user.objects]
        every.append((pixels, sum(w * np.log(k / 2) for w, k in zip(weight, classes, strict=True))))
    expected: list[tuple[float, float]] = []
    for pixels, value in sorted(every, key=lambda of: (of[0], -of[1])):
        if not expected or value > expected[-1][1] + 1e-9:
            expected.append((pixels, value))
    assert found.exact and len(found.pixels) == len(expected)
    np.testing.assert_allclose(found.pixels, [p for p, _ in expected])
    np.testing.assert_allclose(found.value, [v for _, v in expected], atol=1e-9)
    for k in range(len(found.pixels)):
        chosen = found.resolutions(k)
        pixels = sum(o.pixels * scale[c] for o, c in zip(user.objects, chosen, strict=True))
        assert pixels == pytest.approx(found.pixels[k])


def test_a_thinned_front_keeps_its_ends_and_says_so() -> None:
    rng = np.random.default_rng(0)
    pixels = np.sort(rng.uniform(1, 9, (12, 3)), axis=1)
    value = np.sort(rng.uniform(0, 5, (12, 3)), axis=1)
    p, v, choice, exact = front(pixels, value, 1 << 15)
    few_p, few_v, few_choice, all_there = front(pixels, value, 40)
    assert exact and not all_there and 20 <= len(few_p) <= 40 < len(p)
    assert (np.diff(few_p) > 0).all() and (np.diff(few_v) > 0).all()
    assert few_p[0] == p[0] and few_v[-1] == pytest.approx(v[-1])
    rows = np.arange(12)
    for k in range(len(few_p)):
        assert few_p[k] == pytest.approx(pixels[rows, few_choice[k]].sum())
        assert few_v[k] == pytest.approx(value[rows, few_choice[k]].sum())
    # Nothing of it is better than the front.
    assert (few_v <= v[np.searchsorted(p, few_p + 1e-9) - 1] + 1e-9).all() and len(choice) == len(p)
