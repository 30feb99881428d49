"""The sentences of section IV's discussion of figure 5, held against runs.

A sentence is made of comparisons, each of which the 95 % interval decides of the differences seed by seed.
It holds where all of them do, it does not where one of them is the other way round, and else it is undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from controller.experiments.video.study import compared, mean

FloatArray = NDArray[np.float64]

PROPOSED, WITHOUT, PDRL, HSLA = "agents", "without-agents", "pdrl-l1", "hsla-l2"
PERCENTILES: Final = np.arange(5, 100, 5)
RATIOS: Final = np.linspace(0.0, 1.6, 81)
"""At which the CDF is given."""
MIDDLE: Final = (0.6, 0.7)
YES, NO, OPEN = "yes", "no", "undecided"


def measures(achieved: FloatArray, scores: FloatArray) -> dict[str, Any]:
    """Of one scheme and seed, from achieved ELA ratios and scores of any shape: ``quantiles`` at
    PERCENTILES and ``cdf`` at RATIOS of the former, their ``mean``, and ``median``, ``iqr`` and ``box``, the
    five numbers (5, 25, 50, 75, 95 %) of the latter."""
    ratios, values = np.sort(achieved.ravel()), scores.ravel()
    box = np.percentile(values, (5, 25, 50, 75, 95))
    return {
        "quantiles": np.percentile(ratios, PERCENTILES).tolist(),
        "cdf": (np.searchsorted(ratios, RATIOS + 1e-9, side="right") / len(ratios)).tolist(),
        "mean": float(ratios.mean()),
        "median": float(box[2]),
        "iqr": float(box[3] - box[1]),
        "box": box.tolist(),
    }


def verdicts(
    seeds: Sequence[Mapping[str, Mapping[str, Any]]], proposed: str = PROPOSED
) -> list[dict[str, Any]]:
    """Of each sentence: ``sentence``, ``figure``, ``holds`` and ``numbers``, what it was decided by.

    ``seeds``: scheme -> :func:`measures`, of each seed. A sentence about a scheme that was not run is left
    out.
    """
    names = [name for name in (proposed, PDRL, WITHOUT, HSLA) if all(name in seed for seed in seeds)]
    by_name = {name: [seed[name] for seed in seeds] for name in names}
    out = []

    def column(name: str, key: str) -> list[float]:
        return [float(of[key]) for of in by_name[name]]

    def numbers(key: str) -> dict[str, Any]:
        return {name: mean(column(name, key)) for name in names}

    def decide(figure: str, sentence: str, needed: Sequence[str], signs: Sequence[int], seen: Any) -> None:
        if all(name in by_name for name in needed):
            out.append({"figure": figure, "sentence": sentence, "holds": _holds(signs), "numbers": seen})

    def above(key: str, of: str, others: Sequence[str]) -> list[int]:
        return [compared(column(of, key), column(o, key)) for o in others if of in by_name and o in by_name]

    others = [name for name in names if name != proposed]
    if proposed in by_name and others:
        counts = _percentiles(by_name, proposed, others)
        half = len(PERCENTILES) / 2.0
        sign = 1 if counts["highest"] > half else -1 if counts["beaten"] >= half else 0
        decide("a", "the proposed scheme has the highest ratio in most percentiles", (), [sign], counts)
    if PDRL in by_name:
        share = {name: [_middle(of["cdf"]) for of in by_name[name]] for name in (proposed, PDRL)}
        decide(
            "a",
            "PDRL-L1 is slightly ahead of the proposed scheme between 0.6 and 0.7",
            (proposed, PDRL),
            [compared(share[proposed], share[PDRL])],
            {"users' windows below": {name: mean(values) for name, values in share.items()}},
        )
    behind = [-sign for sign in above("mean", WITHOUT, (proposed, PDRL))]
    decide(
        "a",
        "without agents is moderate: behind the proposed scheme and PDRL-L1, ahead of HSLA-L2",
        (WITHOUT, PDRL, HSLA),
        [*behind, *above("mean", WITHOUT, (HSLA,))],
        numbers("mean"),
    )
    rest = [name for name in names if name != HSLA]
    decide("a", "HSLA-L2 is the poorest", (HSLA,), [-s for s in above("mean", HSLA, rest)], numbers("mean"))
    decide(
        "b",
        "the proposed scheme has the highest median",
        (proposed,),
        above("median", proposed, others),
        numbers("median"),
    )
    narrower = above("iqr", proposed, others)
    decide(
        "b",
        "the interquartile range of the proposed scheme is not the narrowest",
        (proposed,),
        [max(narrower, default=0)],
        numbers("iqr"),
    )
    rest = [name for name in names if name != WITHOUT]
    lowest = [-sign for sign in above("median", WITHOUT, rest)]
    decide("b", "without agents has the lowest median", (WITHOUT,), lowest, numbers("median"))
    decide(
        "b",
        "without agents has a wide interquartile range: wider than that of the proposed scheme",
        (WITHOUT,),
        above("iqr", WITHOUT, (proposed,)),
        numbers("iqr"),
    )
    last = [-sign for sign in above("mean", HSLA, (WITHOUT,))]
    decide(
        "a, b",
        "of the last two it is as in (a): HSLA-L2 is behind without agents (no: as in (b))",
        (WITHOUT, HSLA),
        last,
        {key: {name: mean(column(name, key)) for name in names} for key in ("mean", "median")},
    )
    return out


def _holds(signs: Sequence[int]) -> str:
    """Of comparisons, each 1 where it is as the sentence has it and -1 where it is the other way round."""
    if signs and min(signs) > 0:
        return YES
    return NO if signs and min(signs) < 0 else OPEN


def _percentiles(
    by_name: Mapping[str, Sequence[Mapping[str, Any]]], proposed: str, others: Sequence[str]
) -> dict[str, int]:
    """Of how many percentiles the proposed scheme is ahead of all others, and behind one of them."""
    quantiles = {name: np.array([of["quantiles"] for of in rows]) for name, rows in by_name.items()}
    highest = beaten = 0
    for place in range(len(PERCENTILES)):
        own = quantiles[proposed][:, place].tolist()
        signs = [compared(own, quantiles[name][:, place].tolist()) for name in others]
        highest += min(signs) > 0
        beaten += min(signs) < 0
    return {"percentiles": len(PERCENTILES), "highest": int(highest), "beaten": int(beaten)}


def _middle(cdf: Sequence[float]) -> float:
    """Mean of the CDF from 0.6 to 0.7: the less, the better."""
    at = (MIDDLE[0] - 1e-9 <= RATIOS) & (MIDDLE[1] + 1e-9 >= RATIOS)
    return float(np.asarray(cdf)[at].mean())
