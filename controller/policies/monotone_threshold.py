"""The first action whose chance of QoS is at least a threshold, where more resources do not worsen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log
from typing import Any, ClassVar

from controller.policies.base import NOT_PULLED, UNKNOWN, Context, Explanation
from controller.policies.isotonic import isotonic
from controller.policies.tally import Tally


class MonotoneThreshold(Tally):
    """Plays the smallest action that meets the QoS in ``threshold`` of the control slots, as far as known.

    The problem is that of Varude, Chaudhary, Kaushik and Chaporkar (2025, arXiv:2509.02119): of arms with
    non-decreasing means, play the first whose mean is above a threshold. Their lower bound of its regret
    depends on the arms beside the threshold alone, says their abstract; their algorithms are not what is
    here. The rule is put together from

    - isotonic regression of the shares of bits that were met, the maximum of the likelihood under the order;
    - its likelihood ratio against log t, as in KL-UCB (Garivier and Cappé, 2011): an action is too small
      beyond doubt where the sum, over it and the actions above it, of n kl(isotonic share, threshold), of the
      shares below the threshold, is above log t (t the updates of the instance);
    - a leader, and exploration next to it, after OSUB (Combes and Proutière, 2014): the leader is the
      smallest action that was played and whose isotonic share is at least the threshold; the largest where
      there is none. Costs here need not be unimodal, so it is not OSUB itself;
    - bisection: of the actions below the leader that are not too small beyond doubt, the middle one is
      played, the larger of two; where there is none, the leader. So a thousand actions take ten steps and
      not a thousand, and in the end the one below the leader is all that is tried, ever more seldom.

    The first pull is the largest action. There is no cost and no tradeoff: the threshold says what is
    enough. Where no action reaches it, it ends at the largest. The default, 0.9, is just below what all
    resources give the uplink of the paper's scenario 1.

    >>> from controller.policies import Feedback
    >>> policy = MonotoneThreshold([10, 20, 30, 40])
    >>> for bit in (1, 1, 0):
    ...     policy.update(policy.pull(), Feedback(bit))
    >>> policy.pull(), policy.explain().reason
    (20, 'exploit')
    """

    name: ClassVar[str] = "monotone_threshold"
    option_names: ClassVar[tuple[str, ...]] = ("threshold",)
    reasons: ClassVar[Mapping[str, str]] = {
        "first visit": "the first pull: the largest action",
        "explore": "halves what lies between the smallest action that is not too small beyond doubt and the "
        "smallest that reaches the threshold, or tries the latter for the first time",
        "exploit": "the smallest action that was seen to reach the threshold; all smaller ones are too small "
        "beyond doubt",
    }

    def __init__(self, actions: Sequence[int], *, threshold: float = 0.9) -> None:
        super().__init__(actions)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise ValueError(f"policy {self.name}: option threshold {threshold!r} is not a number")
        if not (isfinite(threshold) and 0 < threshold < 1):
            raise ValueError(f"policy {self.name}: option threshold {threshold!r} is not between 0 and 1")
        self._threshold = float(threshold)
        self._explanation = NOT_PULLED

    def pull(self, context: Context = UNKNOWN) -> int:
        if not self._t:
            self._explanation = Explanation(None, "first visit")
            return self.actions[-1]
        leader, smallest = self._candidates()
        chosen = (smallest + leader) // 2 if smallest < leader else leader
        known = chosen == leader and self._n[leader] > 0
        self._explanation = Explanation(None, "exploit" if known else "explore")
        return self.actions[chosen]

    def _candidates(self) -> tuple[int, int]:
        """Positions of the leader and of the smallest action that is not too small beyond doubt."""
        n, met = self._n.tolist(), self._met.tolist()
        played = [i for i, count in enumerate(n) if count]
        shares = isotonic([met[i] / n[i] for i in played], [n[i] for i in played])
        doubt, leader = [0.0] * len(n), len(n) - 1
        for i, share in zip(played, shares, strict=True):
            if share >= self._threshold:
                leader = i
                break
            doubt[i] = n[i] * kl(share, self._threshold)
        against, most = 0.0, log(self._t)
        for i in range(leader, -1, -1):
            against += doubt[i]
            if against > most:
                return leader, i + 1
        return leader, 0

    def explain(self) -> Explanation:
        return self._explanation

    def options(self) -> dict[str, Any]:
        return {"threshold": self._threshold}


def kl(p: float, q: float) -> float:
    """Kullback-Leibler divergence of Bernoulli p from Bernoulli q, p in 0..1, 0 < q < 1."""
    return (p * log(p / q) if p > 0 else 0.0) + ((1 - p) * log((1 - p) / (1 - q)) if p < 1 else 0.0)
