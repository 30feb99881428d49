from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from numpy.typing import NDArray

from controller.twins.slice.game import Game, make_game

Curves = list[NDArray[np.float64]]


def curves(rng: np.random.Generator, players: int, units: int) -> Curves:
    """Concave gains: of every shape from flat to steep, with equal ones among them."""
    out = []
    for _ in range(players):
        n = int(rng.integers(0, units + 1))
        kind = rng.integers(0, 3)
        if kind == 0:
            gain = np.full(n, rng.random())
        elif kind == 1:
            gain = np.sort(rng.integers(0, 4, n) / 4.0)[::-1]
        else:
            gain = np.diff(np.log1p(rng.uniform(0.01, 2.0) * np.arange(n + 1)))
        out.append(gain)
    return out


def profiles(game: Game) -> list[tuple[int, ...]]:
    return list(product(*(range(len(gain) + 1) for gain in game.gains)))


def test_a_move_changes_payoff_and_potential_by_exactly_the_same() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        game = make_game(curves(rng, 5, 40), int(rng.integers(0, 120)), rng.random())
        actions = [int(rng.integers(0, len(gain) + 1)) for gain in game.gains]
        player = int(rng.integers(0, 5))
        moved = list(actions)
        moved[player] = int(rng.integers(0, len(game.gains[player]) + 1))
        assert game.payoff(player, moved) - game.payoff(player, actions) == game.potential(
            moved
        ) - game.potential(actions)


def test_the_best_response_is_the_least_of_the_best_of_all_actions() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        game = make_game(curves(rng, 3, 30), int(rng.integers(0, 60)), rng.random())
        actions = [int(rng.integers(0, len(gain) + 1)) for gain in game.gains]
        for player, gain in enumerate(game.gains):
            payoffs = [
                game.payoff(player, [*actions[:player], x, *actions[player + 1 :]])
                for x in range(len(gain) + 1)
            ]
            assert game.best_response(player, actions) == payoffs.index(max(payoffs))


def test_play_ends_in_an_equilibrium_and_the_potential_rises_with_every_move() -> None:
    rng = np.random.default_rng(3)
    moves = 0
    for _ in range(150):
        gains = curves(rng, int(rng.integers(1, 9)), 60)
        capacity = int(rng.integers(0, 200))
        game = make_game(gains, capacity, rng.choice([0.0, 0.1, 0.5, 1.0]))
        for start in (None, [int(rng.integers(0, len(g) + 1)) for g in gains]):
            end = game.play(start)
            assert game.is_equilibrium(end.actions)
            assert sum(end.actions) <= capacity
            assert all(a < b for a, b in pairwise(end.potentials))
            assert end.potentials[-1] == game.potential(end.actions)
            moves += len(end.potentials) - 1
    assert moves > 500


def test_equilibria_of_small_games_by_trying_every_profile() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(60):
        gains = curves(rng, 3, 5)
        capacity = int(rng.integers(0, 10))
        game = make_game(gains, capacity, rng.choice([0.0, 0.1, 1.0]))
        nash = {x for x in profiles(game) if game.is_equilibrium(x)}
        assert max(profiles(game), key=game.potential) in nash
        assert all(sum(x) <= capacity for x in nash)
        for start in profiles(game):
            assert game.play(start).actions in nash
        found += len(nash) > 1
    assert found  # some have several


def test_what_is_no_equilibrium_is_recognised() -> None:
    game = make_game([[3.0, 1.0], [2.0, 1.0]], 2)
    assert game.play().actions == (1, 1)
    assert game.is_equilibrium((1, 1))
    assert not game.is_equilibrium((2, 0))
    assert not game.is_equilibrium((0, 0))


def test_where_all_fits_everybody_takes_what_gains() -> None:
    game = make_game([[2.0, 1.0, 0.0], [5.0]], 4)
    assert game.play().actions == (2, 1)
    assert game.welfare((2, 1)) == game.optimum(4) == game.optimum(100)


def test_the_optimum_is_the_best_of_all_allocations() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        capacity = int(rng.integers(0, 10))
        game = make_game(curves(rng, 3, 5), capacity)
        assert game.optimum(capacity) == max(game.welfare(x) for x in profiles(game) if sum(x) <= capacity)


@pytest.mark.parametrize(("players", "at_most"), [(2, 1.25), (4, 1.1), (16, 1.02)])
def test_price_of_anarchy_on_random_concave_curves(players: int, at_most: float) -> None:
    rng = np.random.default_rng(6)
    for _ in range(40):
        gains = [
            np.diff(np.log1p(rng.uniform(0.01, 1.0) * np.arange(rng.integers(26, 102)))) * rng.random()
            for _ in range(players)
        ]
        capacity = int(sum(map(len, gains)) * rng.uniform(0.2, 0.8))
        game = make_game(gains, capacity)
        assert game.optimum(capacity) <= at_most * game.welfare(game.play().actions)


@pytest.mark.parametrize("players", [1, 2, 5])
def test_equal_constant_gains_leave_as_much_unused_as_cournot_s_players_do(players: int) -> None:
    game = make_game([[1.0] * 600] * players, 300)
    each = 300 / (players + 1)
    assert all(abs(x - each) <= 1 for x in game.play().actions)


def test_a_flat_slope_is_a_posted_price() -> None:
    game = make_game([[4.0, 3.0, 2.0], [3.5, 1.0, 0.5]], 3, steepness=0.0)
    assert game.play().actions == (2, 1)


def test_no_player_and_no_capacity() -> None:
    assert make_game([], 5).play().actions == ()
    assert make_game([[1.0, 0.5], []], 0).play().actions == (0, 0)


def test_what_cannot_be_is_refused() -> None:
    for gain in ([1.0, 2.0], [-1.0], [float("nan")], [float("inf")], [[1.0]]):
        with pytest.raises(ValueError, match="player 1: gains"):
            make_game([[1.0], gain], 5)  # type: ignore[list-item]
    for capacity, steepness in ((-1, 0.5), (3, -0.1), (3, 1.1), (3, float("nan"))):
        with pytest.raises(ValueError, match="capacity"):
            make_game([[1.0]], capacity, steepness)
    with pytest.raises(ValueError, match="price"):
        Game(((1,),), -1, 1)
    with pytest.raises(ValueError, match="player 0"):
        Game(((1, 2),), 0, 1)
    for start in ([0], [0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="start"):
            make_game([[1.0], [1.0]], 1).play(start)
