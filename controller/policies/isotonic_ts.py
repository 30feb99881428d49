"""Thompson sampling that knows that more resources do not worsen the QoS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from controller.policies.base import NOT_PULLED, UNKNOWN, Context, Explanation
from controller.policies.cost import rewards, tradeoff_of
from controller.policies.isotonic import isotonic
from controller.policies.tally import Tally


class IsotonicTs(Tally):
    """Draws a chance of QoS for each action, makes the draws monotone, plays the action that they favour.

    Thompson sampling (Thompson, 1933; as Chapelle and Li, 2011, play it) with a Beta(1, 1) prior for the
    chance of each action. What is known of their order enters as Dunson and Neelon (2003) bring it into a
    posterior: draws without it are projected on the non-decreasing sequences, by isotonic regression. They
    weigh by posterior precision; here a draw weighs the size of its Beta distribution (the updates of its
    action and the two of the prior), which is the precision but for the factor p (1 - p): that would trust
    an action most where all its few bits agree. So an action seldom played takes its value from those
    around it, and what was seen at one action moves the others, both ways, without a count that it did not
    earn.

    The index is the reward of :func:`controller.policies.cost.rewards` under the projected draw, so the
    greatest is the least drawn cost; ties go to the smaller action. The first pull needs no rule of its
    own: it is a draw from the prior.

    ``pull`` takes one Beta draw an action from the generator of its context. ValueError where there is none.

    >>> policy = IsotonicTs([10, 30, 50])
    >>> policy.pull(Context(rng=np.random.Generator(np.random.PCG64(1)))) in policy.actions
    True
    """

    name: ClassVar[str] = "isotonic_ts"
    draws: ClassVar[bool] = True
    option_names: ClassVar[tuple[str, ...]] = ("tradeoff",)
    index_text: ClassVar[str] = "reward under chances of QoS drawn from the posterior and made monotone"
    reasons: ClassVar[Mapping[str, str]] = {
        "first visit": "the first pull: the greatest index of draws from the prior",
        "explore": "the draws favour it; by the posterior means another is best, or it was never played",
        "exploit": "the draws favour it, and so do the posterior means",
    }

    def __init__(self, actions: Sequence[int], *, tradeoff: float = 2.0) -> None:
        super().__init__(actions)
        self._tradeoff = tradeoff_of(self.name, tradeoff)
        self._missed_reward, met = rewards(self.actions, self._tradeoff)
        self._gain = met - self._missed_reward
        self._explanation = NOT_PULLED

    def pull(self, context: Context = UNKNOWN) -> int:
        if context.rng is None:
            raise ValueError(f"policy {self.name} draws, and its context has no generator")
        n, met = self._n, self._met
        draws = context.rng.beta(1.0 + met, 1.0 + n - met)
        indices = self._reward_at(draws)
        chosen = int(indices.argmax())
        if not self._t:
            reason = "first visit"
        else:
            best = int(self._reward_at((1.0 + met) / (2.0 + n)).argmax())
            reason = "exploit" if chosen == best and n[chosen] else "explore"
        self._explanation = Explanation(indices, reason)
        return self.actions[chosen]

    def _reward_at(self, chances: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        """Reward of each action where its chance of QoS is that of ``chances`` made monotone, [n_actions]."""
        return self._missed_reward + self._gain * isotonic(chances.tolist(), (self._n + 2.0).tolist())

    def explain(self) -> Explanation:
        return self._explanation

    def options(self) -> dict[str, Any]:
        return {"tradeoff": self._tradeoff}
