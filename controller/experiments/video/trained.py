"""The networks that figures take, trained beside each other and kept where the figures go."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from controller.allocators.video.bdqn import KINDS, BranchingNetwork
from controller.experiments import pool
from controller.experiments.figures import Progress
from controller.store.files import write_atomic
from wire.definitions.extras import missing as missing_extra

SEED: Final = 0
NEEDED: Final = ("torch", "gymnasium")


def train_all(out: Path, steps: int, workers: int, progress: Progress) -> dict[str, str]:
    """A network of each kind as a file of ``out``, by kind. Those that are there of the same training stay:
    it would give the same, bit for bit.

    MissingExtra, naming the extra ``drl``, where what training needs is not installed.
    """
    for name in NEEDED:
        if find_spec(name) is None:
            raise missing_extra(name, "drl", "training (which --train-steps 0 leaves out)")
    files = {kind: out / f"{kind}.weights" for kind in KINDS}
    missing = [kind for kind, file in files.items() if not _there(file, kind, steps)]
    out.mkdir(parents=True, exist_ok=True)
    if missing:
        jobs = [(kind, steps) for kind in missing]
        with progress("networks", len(jobs)) as advance:
            for place, weights in pool.local(_train, jobs, workers):
                write_atomic(files[missing[place]], weights)
                advance(missing[place])
    return {kind: str(file) for kind, file in files.items()}


def _train(job: tuple[str, int]) -> bytes:
    from controller.experiments.video.training.learner import Training, train

    kind, steps = job
    return train(Training(kind, SEED, steps)).to_bytes()


def _there(file: Path, kind: str, steps: int) -> bool:
    from controller.experiments.video.training.learner import Training

    try:
        network = BranchingNetwork.from_bytes(file.read_bytes())
    except (OSError, ValueError):
        return False
    asked = asdict(Training(kind, SEED, steps))
    return network.kind == kind and all(network.training.get(name) == value for name, value in asked.items())
