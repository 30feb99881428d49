"""KL-UCB (Garivier and Cappé, 2011; Cappé et al., 2013) for Bernoulli QoS, on the cost of MUCB1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from controller.policies.base import NOT_PULLED, UNKNOWN, UNTRIED, Context, Explanation
from controller.policies.cost import rewards, tradeoff_of
from controller.policies.tally import Tally

_NEWTON = 8
_LAST = 1e-7  # converges quadratically: after such a step less than 1e-9 is left


class KlUcb(Tally):
    """Plays the action with the greatest reward under an upper confidence bound of its chance.

    What is uncertain of an action is the chance p that its QoS is met, a Bernoulli mean; what it takes is
    known. So the bound is put on p: the largest u with n kl(mean of the bits, u) <= f(t), n the updates of
    the action, t those of the instance. The index is the reward of :func:`controller.policies.cost.rewards`
    where the QoS is met with chance u. Ties go to the smaller action.

    f(t) = log t + c log log t with c = 0, which Garivier and Cappé recommend in practice; their theorem has
    c = 3. Every action is played once before any bound decides. The literature leaves the order open; here
    the largest goes first, so that a state seen seldom is served well. Nothing is known of monotonicity: an
    action speaks for itself alone.

    >>> from controller.policies import Feedback
    >>> policy = KlUcb([10, 30, 50])
    >>> policy.pull()
    50
    >>> policy.update(50, Feedback(1))
    >>> policy.pull()
    30
    """

    name: ClassVar[str] = "kl_ucb"
    option_names: ClassVar[tuple[str, ...]] = ("tradeoff",)
    index_text: ClassVar[str] = "reward under the KL upper confidence bound of the chance of QoS"
    reasons: ClassVar[Mapping[str, str]] = {
        "first visit": "the first pull: the largest action",
        UNTRIED: "never tried in this state: such actions go first, the largest before the others",
        "explore": "the greatest index, though another has the better mean reward so far",
        "exploit": "the greatest index, and the best mean reward so far",
    }

    def __init__(self, actions: Sequence[int], *, tradeoff: float = 2.0) -> None:
        super().__init__(actions)
        self._tradeoff = tradeoff_of(self.name, tradeoff)
        self._missed_reward, met = rewards(self.actions, self._tradeoff)
        self._gain = met - self._missed_reward
        self._explanation = NOT_PULLED

    def pull(self, context: Context = UNKNOWN) -> int:
        n = self._n
        if self._t < len(n) or not n.all():
            last = len(n) - 1 - int((n[::-1] == 0).argmax())
            self._explanation = Explanation(None, "explore" if self._t else "first visit")
            return self.actions[last]
        p = self._met / n
        indices = self._missed_reward + self._gain * upper_bounds(p, log(self._t) / n)
        chosen = int(indices.argmax())
        means = self._missed_reward + self._gain * p
        self._explanation = Explanation(indices, "exploit" if means[chosen] >= means.max() else "explore")
        return self.actions[chosen]

    def explain(self) -> Explanation:
        return self._explanation

    def options(self) -> dict[str, Any]:
        return {"tradeoff": self._tradeoff}


def upper_bounds(p: NDArray[np.float64], divergence: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest u of p..1 with kl(p, u) <= ``divergence``, Bernoulli, float64 [n], to 1e-9.

    ``p`` are shares of successes, of n tries each, and ``divergence`` = f / n. kl(p, .) is convex and grows
    from p on, so Newton's method from above stays above and comes down. It starts at the smaller of two
    bounds from above: Pinsker's, and where -(1 - p) log(1 - u) alone is the divergence. Eight steps are
    enough for counts up to ten millions, four do as a rule.
    """
    moves = (p < 1) & (divergence > 0)  # else the bound is p itself, and Newton's slope may be 0
    share, divergence = np.where(moves, p, 0.5), np.where(moves, divergence, 1.0)
    q = 1.0 - share
    p_log_p = share * np.log(np.where(share > 0, share, 1.0))
    rest = p_log_p + q * np.log(q) - divergence
    u = np.minimum(share + np.sqrt(divergence / 2), 1.0 - q * np.exp((p_log_p - divergence) / q))
    for _ in range(_NEWTON):
        step = (rest - share * np.log(u) - q * np.log1p(-u)) * u * (1.0 - u) / (u - share)
        u = u - step
        if step.max() < _LAST:
            break
    return np.where(moves, u, p)
