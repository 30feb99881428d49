"""The game of reservations: groups of users, or slices, compete for whole units of one resource.

Player g takes x_g of 0..n_g units and pays the same price for each of them, which rises with what all take:

    payoff_g(x) = G_g(x_g) - x_g p(X),    p(X) = base + slope X,    X = sum of x,

where G_g(k) is the sum of the first k of the player's gains, which never rise. This is Cournot's competition
with an affine price, an exact potential game (Monderer & Shapley, Potential Games, 1996): whenever one player
moves, its payoff and

    potential(x) = sum over g of (G_g(x_g) - base x_g) - slope (X^2 + sum over g of x_g^2) / 2

change by the same.

Best response in turn ends: a player moves only where its payoff, and with it the potential, strictly rises,
so no profile comes twice, and there are finitely many. Where it ends nobody gains by deviating alone, a
pure Nash equilibrium. Prices and gains are whole numbers (see :func:`make_game`), so that all this holds
without rounding.

Section III-D of Revolutionizing QoE-driven Network Management with Digital Agents in 6G asks for such a game
and leaves utilities and prices open. It says that in the equilibrium nobody can improve "without adversely
affecting others", which is Pareto's optimum; Nash's is that nobody improves by a move of its own, and that
is what best responses find.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RESOLUTION: Final = 1 << 40
"""Whole units of the largest gain."""
STEEPNESS: Final = 0.1
"""Of the price (see :func:`make_game`). The steeper, the more an equilibrium leaves unused, for shares that
are hardly more even: on random concave curves of 2, 4 and 16 players the optimum has on average 1.03, 1.01
and 1.00 times the welfare of the equilibrium at 0.1, and 1.18, 1.07 and 1.02 times at 1."""


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """``actions`` [players] in units; ``potentials`` [1 + moves]: at the start and after each move."""

    actions: tuple[int, ...]
    potentials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Game:
    """``gains``: for each player what each further unit adds, int [n_g], not negative, never rising.

    ``base`` is the price at no load, ``slope`` what each unit taken adds to it, both in the gains' unit.
    ValueError for other gains and for negative prices.
    """

    gains: tuple[tuple[int, ...], ...]
    base: int
    slope: int

    def __post_init__(self) -> None:
        if self.base < 0 or self.slope < 0:
            raise ValueError(f"price of {self.base} + {self.slope} X: must not be negative")
        for player, gain in enumerate(self.gains):
            if any(k < later for k, later in pairwise(gain)) or (gain and gain[-1] < 0):
                raise ValueError(f"player {player}: gains must not rise and not be negative")

    def payoff(self, player: int, actions: Sequence[int]) -> int:
        """What the player has of its units, less what it pays for them."""
        x = actions[player]
        return sum(self.gains[player][:x]) - x * (self.base + self.slope * sum(actions))

    def potential(self, actions: Sequence[int]) -> int:
        """Of :mod:`this game <controller.twins.slice.game>`."""
        gained = sum(sum(gain[:x]) - self.base * x for gain, x in zip(self.gains, actions, strict=True))
        # X^2 and the sum of squares are both odd or both even.
        return gained - self.slope * ((sum(actions) ** 2 + sum(x * x for x in actions)) // 2)

    def best_response(self, player: int, actions: Sequence[int]) -> int:
        """The units with the highest payoff where the others stay; the fewest among equals.

        The k-th unit costs k p(Y + k) - (k - 1) p(Y + k - 1) = base + slope (Y + 2 k - 1) with Y taken by the
        others. That rises with k and gains do not, so the player takes units as long as they gain more.
        """
        gain, others = self.gains[player], sum(actions) - actions[player]
        return bisect_left(
            range(len(gain)), True, key=lambda i: gain[i] <= self.base + self.slope * (others + 2 * i + 1)
        )

    def is_equilibrium(self, actions: Sequence[int]) -> bool:
        """Whether no player has a higher payoff by any other action of its own: all of them are tried."""
        for player, gain in enumerate(self.gains):
            has = self.payoff(player, actions)
            for x in range(len(gain) + 1):
                if self.payoff(player, [*actions[:player], x, *actions[player + 1 :]]) > has:
                    return False
        return True

    def play(self, start: Sequence[int] | None = None) -> Equilibrium:
        """Best responses in turn, from ``start`` (from nothing taken), until nobody moves.

        ValueError for a start that is none.
        """
        actions = [0] * len(self.gains) if start is None else list(start)
        if len(actions) != len(self.gains) or any(
            not 0 <= x <= len(gain) for x, gain in zip(actions, self.gains, strict=True)
        ):
            raise ValueError(f"start {actions} does not fit players of {[len(g) for g in self.gains]} units")
        potentials = [self.potential(actions)]
        settled = 0
        player = 0
        while settled < len(actions):
            here = list(actions)
            here[player] = self.best_response(player, actions)
            more = self.payoff(player, here) - self.payoff(player, actions)
            if more > 0:
                actions = here
                potentials.append(potentials[-1] + more)
                settled = 1
            else:
                settled += 1
            player = (player + 1) % len(actions)
        return Equilibrium(tuple(actions), tuple(potentials))

    def welfare(self, actions: Sequence[int]) -> int:
        """The sum of what all gain; what they pay is moved, not lost."""
        return sum(sum(gain[:x]) for gain, x in zip(self.gains, actions, strict=True))

    def optimum(self, capacity: int) -> int:
        """The highest welfare of at most ``capacity`` units: the largest gains of all."""
        return sum(sorted((k for gain in self.gains for k in gain), reverse=True)[:capacity])


def make_game(
    gains: Sequence[Sequence[float] | NDArray[Any]], capacity: int, steepness: float = STEEPNESS
) -> Game:
    """The game for ``capacity`` units of a resource.

    ``gains``: for each player float [n_g], what each further unit adds, in one unit for all, not negative and
    never rising; they are rounded to :data:`RESOLUTION` parts of the largest.

    The price at capacity is the shadow price s of the convex optimum, the largest gain that the capacity does
    not serve (0 where it serves all). ``steepness`` (0..1) is the part of it that rises with the load:
    p(X) = s (1 - steepness + steepness X / capacity), the slope being one part at least. So no equilibrium
    takes more than there is: where X is above the capacity, whoever has x_g > 0 units would rather leave the
    last one unless it gains base + slope (X + x_g - 1) > p(capacity) >= s or more, and the units that gain
    more than s fit the capacity.

    ValueError for other gains, a negative capacity and a steepness outside 0..1.
    """
    if capacity < 0 or not 0.0 <= steepness <= 1.0:
        raise ValueError(f"capacity {capacity} and steepness {steepness}")
    rows = [np.asarray(gain, np.float64) for gain in gains]
    for player, row in enumerate(rows):
        if row.ndim != 1 or not np.isfinite(row).all() or (row < 0.0).any() or (np.diff(row) > 0.0).any():
            raise ValueError(f"player {player}: gains must be finite, not negative and never rise")
    largest = max((float(row[0]) for row in rows if len(row)), default=0.0) or 1.0
    whole = tuple(tuple(int(k) for k in np.rint(row / largest * RESOLUTION)) for row in rows)
    unserved = sorted((k for gain in whole for k in gain), reverse=True)[capacity:]
    shadow = unserved[0] if unserved else 0
    slope = max(1, int(shadow * steepness) // max(capacity, 1))
    return Game(whole, max(0, shadow - slope * capacity), slope)
