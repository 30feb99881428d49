"""Training of a branching duelling Q-network by PyTorch on the CPU.

Tavakoli et al. 2018: double Q-learning with a target network, the temporal-difference target

    y = r + gamma x mean over branches d of Q'_d(s', argmax over a of Q_d(s', a)),

the same for all branches, and the loss the mean over branches of (y - Q_d(s, a_d))^2. What is simpler here:
experience is replayed uniformly and not by priority, and gradients of the shared layers are not divided by
the number of branches, as Adam makes up for it. Each cell is an agent; all have the same weights and write to
the same memory.

Everything that is drawn is drawn by NumPy from (seed, episode), so that training is the same, bit for bit, on
one machine, and goes on from a checkpoint as if it had not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.allocators.video.bdqn import GROUP, LEVELS, SHAPES, BranchingNetwork
from controller.experiments.video.training.environments import environment
from controller.experiments.video.training.worlds import (
    EPISODE,
    HELD_OUT,
    LOADS,
    PEOPLE,
    SEED_BASE,
    Place,
    places,
)
from wire.definitions.extras import needs

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Training:
    """``steps`` of the environment, in whole episodes; ``gamma`` is small since what a step leaves behind, a
    buffer, is used up within the next; ``exploring``: part of the steps over which the probability of a
    random level of a branch falls from 1 to ``epsilon``; ``validate``: episodes between two validations, each
    of which is a checkpoint."""

    kind: str = GROUP
    seed: int = 0
    steps: int = 24_000
    gamma: float = 0.3
    rate: float = 5e-4
    batch: int = 128
    memory: int = 30_000
    update: int = 1
    target: int = 250
    exploring: float = 0.6
    epsilon: float = 0.05
    validate: int = 25
    sets: int = PEOPLE
    held_out: int = HELD_OUT
    loads: int = LOADS
    validations: int = 12

    def __post_init__(self) -> None:
        whole = (
            self.steps,
            self.batch,
            self.memory,
            self.update,
            self.target,
            self.validate,
            self.validations,
        )
        if self.kind not in SHAPES or min(*whole, self.sets, self.held_out, self.loads) < 1 or self.seed < 0:
            raise ValueError(f"{self}: no such training")
        if not 0.0 <= self.gamma < 1.0 or not self.rate > 0.0 or not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(
                f"gamma {self.gamma}, rate {self.rate}, epsilon {self.epsilon}: no such training"
            )

    @property
    def episodes(self) -> int:
        return -(-self.steps // EPISODE)

    @property
    def checkpoints(self) -> int:
        """Validations, the first before anything is learnt."""
        return 1 + -(-self.episodes // self.validate)


Progress = Callable[[str], None]


def initial(training: Training) -> Arrays:
    """Weights to begin with: uniform by He et al. (2015), biases 0."""
    rng = np.random.default_rng((training.seed, 0))
    out = {}
    for name, shape in SHAPES[training.kind].arrays().items():
        limit = 0.0 if name.endswith("_b") else np.sqrt(6.0 / shape[-2])
        out[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
    out["value_1_w"] *= np.float32(0.1)
    out["advantage_1_w"] *= np.float32(0.1)
    return out


def q_values(weights: Any, states: Any, shared: int) -> Any:
    """:meth:`BranchingNetwork.q` in PyTorch."""
    import torch

    x = states
    for i in range(shared):
        x = torch.relu(x @ weights[f"shared_{i}_w"] + weights[f"shared_{i}_b"])
    value = torch.relu(x @ weights["value_0_w"] + weights["value_0_b"]) @ weights["value_1_w"]
    streams = torch.relu(x @ weights["advantage_0_w"] + weights["advantage_0_b"])
    advantage = streams @ weights["advantage_1_w"] + weights["advantage_1_b"]
    advantage = advantage - advantage.mean(dim=-1, keepdim=True)
    return (value + weights["value_1_b"])[:, None] + advantage.transpose(0, 1)


def train(
    training: Training,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    until: int | None = None,
) -> BranchingNetwork:
    """The network that was best in validation.

    ``checkpoint``: a file that is written at each validation, and that training goes on from where it is
    there; ``until``: the episode before which to stop for now.

    Raises:
        ImportError: PyTorch or Gymnasium is not installed; names the extra ``drl``.
        ValueError: the checkpoint is of another training, or none.
    """
    with needs("drl", "training"):
        import torch
    learner = _Learner(training, torch)
    if checkpoint is not None and checkpoint.exists():
        learner.load(checkpoint)
    worlds = places(training.seed, training.sets, training.loads)
    held_out = places(training.seed, training.held_out, training.loads, held_out=True)
    with _reproducible(torch):
        return learner.run(worlds, held_out, checkpoint, progress, until)


@contextmanager
def _reproducible(torch: Any) -> Iterator[None]:
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads)


class _Learner:
    def __init__(self, training: Training, torch: Any) -> None:
        self.training, self.torch = training, torch
        self.shape = SHAPES[training.kind]
        start = initial(training)
        self.weights = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in start.items()}
        self.target = {n: torch.from_numpy(a.copy()) for n, a in start.items()}
        self.adam = torch.optim.Adam(self.weights.values(), lr=training.rate)
        self.memory = _Memory(training.memory, self.shape.inputs, self.shape.branches)
        self.episode, self.updates = 0, 0
        self.best, self.best_gain = start, -np.inf
        self.curve: list[tuple[int, float]] = []

    def run(
        self,
        worlds: list[Place],
        held_out: list[Place],
        checkpoint: Path | None,
        progress: Progress | None,
        until: int | None,
    ) -> BranchingNetwork:
        t = self.training
        env = environment(t.kind, worlds)
        if not self.curve:
            self._validate(held_out, progress)
        while self.episode < min(t.episodes, until or t.episodes):
            self._play(env)
            self.episode += 1
            if self.episode % t.validate == 0 or self.episode == t.episodes:
                self._validate(held_out, progress)
                if checkpoint is not None:
                    self.save(checkpoint)
        values = asdict(t) | {"validated": round(self.best_gain, 6), "curve": self.curve}
        return BranchingNetwork(t.kind, self.best, values)

    def _epsilon(self, step: int) -> float:
        t = self.training
        part = min(step / max(t.exploring * t.episodes * EPISODE, 1.0), 1.0)
        return 1.0 + part * (t.epsilon - 1.0)

    def _play(self, env: Any) -> None:
        t = self.training
        rng = np.random.default_rng((t.seed, 1, self.episode))
        observed, _ = env.reset(seed=int(rng.integers(2**31)))
        states = observed.reshape(-1, self.shape.inputs)
        truncated, step = False, self.episode * EPISODE
        while not truncated:
            actions = self._act(states)
            random = rng.uniform(size=actions.shape) < self._epsilon(step)
            actions = np.where(random, rng.integers(0, LEVELS, actions.shape), actions)
            observed, _, _, truncated, info = env.step(actions.ravel())
            after = observed.reshape(states.shape)
            served = info["users"] > 0
            self.memory.add(states[served], actions[served], info["gain"][served], after[served])
            states, step = after, step + 1
            if self.memory.count >= 4 * t.batch and step % t.update == 0:
                self._update(rng)

    def _act(self, states: Any) -> NDArray[np.int64]:
        with self.torch.no_grad():
            q = q_values(self.weights, self.torch.from_numpy(states), len(self.shape.shared))
        return np.asarray(q.argmax(dim=-1).numpy())

    def _update(self, rng: np.random.Generator) -> None:
        torch, t, layers = self.torch, self.training, len(self.shape.shared)
        states, actions, rewards, after = (
            torch.from_numpy(a) for a in self.memory.rows(rng.integers(0, self.memory.count, t.batch))
        )
        with torch.no_grad():
            chosen = q_values(self.weights, after, layers).argmax(dim=-1, keepdim=True)
            following = q_values(self.target, after, layers).gather(-1, chosen).mean(dim=1)
            wanted = rewards[:, None] + t.gamma * following
        q = q_values(self.weights, states, layers).gather(-1, actions[:, :, None])[:, :, 0]
        loss = ((wanted - q) ** 2).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.updates += 1
        if self.updates % t.target == 0:
            self.target = {n: a.detach().clone() for n, a in self.weights.items()}

    def _validate(self, held_out: list[Place], progress: Progress | None) -> None:
        """The mean gain of expected scores, without exploring, in episodes that are the same each time."""
        t, gains = self.training, []
        env = environment(t.kind, held_out)
        for episode in range(t.validations):
            observed, _ = env.reset(seed=SEED_BASE + episode)
            truncated = False
            while not truncated:
                actions = self._act(observed.reshape(-1, self.shape.inputs))
                observed, _, _, truncated, info = env.step(actions.ravel())
                gains.append(info["expected"])
        gain = float(np.mean(gains))
        self.curve.append((self.episode * EPISODE, round(gain, 6)))
        if gain > self.best_gain:
            self.best_gain = gain
            self.best = {n: a.detach().numpy().copy() for n, a in self.weights.items()}
        if progress is not None:
            progress(f"{self.episode * EPISODE} of {t.episodes * EPISODE} steps: gain {gain:.4f}")

    def save(self, path: Path) -> None:
        state = {
            "training": asdict(self.training),
            "episode": self.episode,
            "updates": self.updates,
            "curve": self.curve,
            "best_gain": self.best_gain,
            "best": {n: self.torch.from_numpy(a) for n, a in self.best.items()},
            "weights": {n: a.detach() for n, a in self.weights.items()},
            "target": self.target,
            "adam": self.adam.state_dict(),
            "memory": {n: self.torch.from_numpy(a) for n, a in self.memory.arrays().items()},
            "written": self.memory.written,
        }
        part = path.with_name(path.name + ".part")
        self.torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        try:
            state = self.torch.load(path, weights_only=True)
            if state["training"] != asdict(self.training):
                raise ValueError(f"{path}: a checkpoint of another training")
            self.episode, self.updates = state["episode"], state["updates"]
            self.curve = [(int(step), float(gain)) for step, gain in state["curve"]]
            self.best_gain = state["best_gain"]
            self.best = {n: a.numpy() for n, a in state["best"].items()}
            with self.torch.no_grad():
                for name, a in state["weights"].items():
                    self.weights[name].copy_(a)
            self.target = state["target"]
            self.adam.load_state_dict(state["adam"])
            self.memory.restore({n: a.numpy() for n, a in state["memory"].items()}, state["written"])
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"{path}: no checkpoint: {error!r}") from error


class _Memory:
    """The last ``size`` transitions of a cell."""

    def __init__(self, size: int, inputs: int, branches: int) -> None:
        self.size, self.written = size, 0
        self.states = np.zeros((size, inputs), np.float32)
        self.actions = np.zeros((size, branches), np.int64)
        self.rewards = np.zeros(size, np.float32)
        self.after = np.zeros((size, inputs), np.float32)

    @property
    def count(self) -> int:
        return min(self.written, self.size)

    def add(self, states: Any, actions: Any, rewards: Any, after: Any) -> None:
        at = (self.written + np.arange(len(states))) % self.size
        self.states[at], self.actions[at], self.rewards[at], self.after[at] = states, actions, rewards, after
        self.written += len(states)

    def rows(self, at: Any) -> tuple[Any, Any, Any, Any]:
        return self.states[at], self.actions[at], self.rewards[at], self.after[at]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has been written."""
        names = ("states", "actions", "rewards", "after")
        return {n: getattr(self, n)[: self.count] for n in names}

    def restore(self, arrays: dict[str, NDArray[Any]], written: int) -> None:
        self.written = written
        for name, a in arrays.items():
            getattr(self, name)[: self.count] = a
