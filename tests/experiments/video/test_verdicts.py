"""Verdicts on made-up runs in which each sentence is true, false or open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra video")
pytest.importorskip("numba", reason="the extra video")

from controller.experiments.video.verdicts import (
    HSLA,
    NO,
    OPEN,
    PDRL,
    PROPOSED,
    WITHOUT,
    YES,
    measures,
    verdicts,
)

Seeds = list[dict[str, dict[str, Any]]]
AS_IN_THE_PAPER = {
    PROPOSED: (0.95, 4.2, 0.7),
    PDRL: (0.85, 3.8, 0.5),
    WITHOUT: (0.75, 2.8, 1.0),
    HSLA: (0.6, 3.2, 0.6),
}
"""Mean ratio, median score, deviation of scores."""


def made(of: Mapping[str, tuple[float, float, float]], noise: float = 0.002, seeds: int = 6) -> Seeds:
    out = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        out.append(
            {
                name: measures(
                    np.linspace(ratio - 0.3, ratio + 0.3, 400) + noise * rng.standard_normal(),
                    np.linspace(score - sd, score + sd, 400) + noise * rng.standard_normal(),
                )
                for name, (ratio, score, sd) in of.items()
            }
        )
    return out


def holds(seeds: Seeds) -> dict[str, str]:
    return {f"{v['figure']}: {v['sentence']}": v["holds"] for v in verdicts(seeds)}


def verdict_on(found: dict[str, str], text: str) -> str:
    (value,) = [holds for sentence, holds in found.items() if text in sentence]
    return value


def test_all_sentences_of_a_study_that_came_out_as_the_papers() -> None:
    found = holds(made(AS_IN_THE_PAPER))
    assert verdict_on(found, "slightly ahead") == NO  # the whole distribution is shifted
    assert len(found) == 9
    assert {value for sentence, value in found.items() if "slightly ahead" not in sentence} == {YES}


def test_all_sentences_the_other_way_round() -> None:
    scores = list(AS_IN_THE_PAPER.values())
    turned = dict(
        zip(
            AS_IN_THE_PAPER,
            [(*s[:2], sd) for s, sd in zip(scores[::-1], (0.5, 0.7, 0.6, 1.0), strict=True)],
            strict=True,
        )
    )
    found = holds(made(turned))
    for text in ("most percentiles", "moderate", "poorest", "highest median", "not the narrowest"):
        assert verdict_on(found, text) == NO, text
    assert verdict_on(found, "slightly ahead") == YES
    assert verdict_on(found, "of the last two") == NO


def test_where_seeds_differ_more_than_schemes_nothing_is_told() -> None:
    alike = dict.fromkeys(AS_IN_THE_PAPER, (0.8, 3.5, 0.7))
    assert set(holds(made(alike, noise=0.05)).values()) == {OPEN}


def test_schemes_that_were_not_run_are_not_spoken_of() -> None:
    without = {name: of for name, of in AS_IN_THE_PAPER.items() if name != PDRL}
    found = holds(made(without))
    assert not any("PDRL" in sentence for sentence in found)
    assert verdict_on(found, "highest median") == YES


def test_measures_of_a_known_sample() -> None:
    of = measures(np.linspace(0.0, 1.0, 101), np.linspace(1.0, 5.0, 401))
    assert of["mean"] == pytest.approx(0.5) and of["median"] == pytest.approx(3.0)
    assert of["iqr"] == pytest.approx(2.0) and of["quantiles"][0] == pytest.approx(0.05)
    assert of["cdf"][25] == pytest.approx(0.5, abs=0.01) and of["cdf"][-1] == 1.0
