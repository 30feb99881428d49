"""Which of the judged frames a twin is trained on, and which it is tested on.

Neighbouring frames are nearly the same, and the windows from which they are predicted overlap: what is tested
on frames drawn at random has been seen in training. Blocks leave only their ends to that, a split in time
nothing.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np

from wire.definitions.poses import IntArray

Kind = Literal["temporal", "blocks", "random"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
BLOCKS: Final = 9


def split(
    frames: int, kind: Kind, seed: int = 0, *, history: int, lookahead: int
) -> tuple[IntArray, IntArray]:
    """The places 0..``frames`` - 1 of the frames to train on and of those to test on, int64, rising.

    About a third is for the test. ``temporal``: the last third; the ``history`` + ``lookahead`` frames before
    it are in neither, as the windows of both would reach them. ``blocks``: a third of :data:`BLOCKS` blocks
    drawn by ``seed``; frames within ``lookahead`` of them are in neither. ``random``: a third drawn frame by
    frame.

    ValueError where either is left empty, and for another kind.
    """
    test = np.zeros(frames, np.bool_)
    rng = np.random.default_rng(seed)
    if kind == "temporal":
        test[frames * 2 // 3 :] = True
        gap = history + lookahead
        near = np.zeros_like(test)
        near[max(frames * 2 // 3 - gap, 0) :] = True
    elif kind == "blocks":
        blocks = np.array_split(np.arange(frames), min(BLOCKS, max(frames, 1)))
        near = np.zeros_like(test)
        for chosen in rng.choice(len(blocks), len(blocks) // 3, replace=False).tolist():
            block = blocks[chosen]
            test[block] = True
            near[max(block[0] - lookahead, 0) : block[-1] + lookahead + 1] = True
    elif kind == "random":
        test[rng.choice(frames, frames // 3, replace=False)] = True
        near = test
    else:
        raise ValueError(f"split {kind!r} is none of {', '.join(KINDS)}")
    train_places, test_places = np.flatnonzero(~near), np.flatnonzero(test)
    if not len(train_places) or not len(test_places):
        raise ValueError(
            f"{frames} frames are too few for a {kind} split: nothing is left to train or test on"
        )
    return train_places, test_places
