"""The worlds as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controller.allocators.video.bdqn import LEVELS, MOST, SHAPES
from controller.experiments.video.training.worlds import Episode, Place
from wire.definitions.extras import needs


def environment(kind: str, places: Sequence[Place]) -> Any:
    """A ``gymnasium.Env`` of the places for a network of a kind: each episode is part of one of them, with
    fewer users, at random.

    Observation, float32 [cells x inputs]: the states of the cells (:mod:`controller.allocators.video.bdqn`).
    Action, ``MultiDiscrete`` [cells x branches]. Reward: the mean over all users; ``info`` has it for each
    cell, and ``expected``, with the mean of each user's scores instead of the score that was drawn. An
    episode is truncated, never terminated.

    ImportError, naming the extra ``drl``, where Gymnasium is not installed; ValueError without places.
    """
    with needs("drl", "training"):
        import gymnasium
    if not places:
        raise ValueError("no places to learn in")
    cells, shape = places[0].traces.spec.cells, SHAPES[kind]

    class Cells(gymnasium.Env[Any, Any]):
        def __init__(self) -> None:
            self.observation_space = gymnasium.spaces.Box(0.0, MOST, (cells * shape.inputs,), np.float32)
            self.action_space = gymnasium.spaces.MultiDiscrete([LEVELS] * (cells * shape.branches))

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed, options=options)
            place = places[int(self.np_random.integers(len(places)))]
            self.episode = Episode.of(place, kind, self.np_random)
            return self._observed(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            gain, expected, cell = self.episode.step(np.asarray(action).reshape(cells, shape.branches))
            users = np.bincount(cell, minlength=cells)
            of_cell = np.bincount(cell, gain, cells) / np.maximum(users, 1)
            info = {"gain": of_cell, "users": users, "expected": float(expected.mean())}
            return self._observed(), float(gain.mean()), False, self.episode.done, info

        def _observed(self) -> Any:
            return self.episode.states().ravel().astype(np.float32)

    return Cells()
