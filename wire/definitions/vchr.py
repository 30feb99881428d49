"""Virtual content hit rate (VCHR): how much of what a user sees of virtual content had been prepared.

The content is a box whose cells are taken as solid; it stands on the floor. A cell is visible from a pose
when its centre is in the viewing frustum and the straight line to it is free of other cells (the method of
ViVo, Han et al., MobiCom 2020). Coordinates, poses and units: :mod:`wire.definitions.poses`.

Source: Digital-twin-based QoE-CSP, equation (6).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire.definitions.poses import FloatArray, forward, rotation

BoolArray = NDArray[np.bool_]

FIELD_OF_VIEW_DEG: Final = (90.0, 90.0)
"""Horizontal and vertical angle of the viewing frustum."""
_AXES = "xyz"
_TOGETHER = 1024
"""Poses at a time: what is computed of them stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Content:
    """A box of ``size_m`` metres that stands on the floor at (``x``, ``z``), divided into ``cells``.

    ``size_m`` and ``cells`` are along x, y and z. ValueError for a size that is none, and for no cells.
    """

    x: float
    z: float
    size_m: tuple[float, float, float] = (0.7, 1.8, 0.5)
    cells: tuple[int, int, int] = (4, 4, 2)

    def __post_init__(self) -> None:
        if not (isfinite(self.x) and isfinite(self.z)):
            raise ValueError(f"content at ({self.x}, {self.z}) stands nowhere")
        for axis, size, cells in zip(_AXES, self.size_m, self.cells, strict=True):
            if not (isfinite(size) and size > 0.0):
                raise ValueError(f"content of {size} m along {axis}: not above 0")
            if cells < 1:
                raise ValueError(f"content of {cells} cells along {axis}: not at least 1")

    @property
    def least(self) -> tuple[float, float, float]:
        """The corner of the smallest coordinates."""
        return (self.x - self.size_m[0] / 2, 0.0, self.z - self.size_m[2] / 2)

    def edges(self, axis: int) -> FloatArray:
        """Where the cells begin and end along an axis, rising: float64 [cells + 1]."""
        return self.least[axis] + self.size_m[axis] * np.arange(self.cells[axis] + 1) / self.cells[axis]


def gaze_point(poses: FloatArray) -> FloatArray:
    """The point to which the lines of gaze of poses [..., 6] come nearest, in least squares: float64 [3].

    ValueError where the lines are parallel, or are none.
    """
    return meeting_point(gaze_equations(poses))


def gaze_equations(poses: FloatArray) -> FloatArray:
    """The normal equations of :func:`gaze_point`, coefficients and right-hand side, [3, 4]: those of more
    poses are added to them."""
    flat = poses.reshape(-1, 6)
    direction = forward(flat)
    # Of the offset from a line the part along it does not count.
    normal = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    return np.column_stack([normal.sum(axis=0), np.einsum("nij,nj->i", normal, flat[:, :3])])


def meeting_point(equations: FloatArray) -> FloatArray:
    """The solution of :func:`gaze_equations`; ValueError as :func:`gaze_point`."""
    total = equations[:, :3]
    if not total.any() or np.linalg.cond(total) > 1e9:
        raise ValueError("the lines of gaze meet nowhere: they are parallel")
    return np.asarray(np.linalg.solve(total, equations[:, 3]), np.float64)


def visible(
    poses: FloatArray, content: Content, field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG
) -> BoolArray:
    """Which cells are seen from poses [..., 6]: bool [..., cells], the cells in C order of (x, y, z).

    The cells fill the box, so a line to the centre of one is free of the others where it enters the box
    through that cell's own face. From within the box the cell that one is in hides all others.

    ValueError for a field of view outside (0, 180) degrees.
    """
    for angle in field_of_view_deg:
        if not 0.0 < angle < 180.0:
            raise ValueError(f"field of view of {angle} degrees is outside (0, 180)")
    flat = poses.reshape(-1, 6)
    seen = np.empty((len(flat), int(np.prod(content.cells))), np.bool_)
    for first in range(0, len(flat), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        seen[some] = _visible(flat[some], content, field_of_view_deg).T
    return seen.reshape(*poses.shape[:-1], seen.shape[1])


def _visible(poses: FloatArray, content: Content, field_of_view_deg: tuple[float, float]) -> BoolArray:
    """bool [cells, n] for poses [n, 6]. The poses are along the last axis, where NumPy is fast."""
    axes = rotation(poses)
    offsets, into_box, into_cell = [], [], []
    for axis in range(3):
        shape = [1, 1, 1, len(poses)]
        shape[axis] = content.cells[axis]
        edges, eye = content.edges(axis)[:, None], poses[:, axis]
        offset = (edges[:-1] + edges[1:]) / 2 - eye
        ahead = offset > 0.0
        # Where along the line, 0 at the eye and 1 at the centre, it passes the near plane of box and cell.
        with np.errstate(divide="ignore", invalid="ignore"):
            to_box = (np.where(ahead, edges[0], edges[-1]) - eye) / offset
            to_cell = (np.where(ahead, edges[:-1], edges[1:]) - eye) / offset
        across = offset == 0.0
        into_box.append(np.where(across, -np.inf, to_box).reshape(shape))
        into_cell.append(np.where(across, -np.inf, to_cell).reshape(shape))
        offsets.append(offset.reshape(shape))
    # From within, the planes of the box lie behind and those of the other cells ahead.
    entered_box = np.maximum(np.maximum(into_box[0], into_box[1]), np.maximum(into_box[2], 0.0))
    entered_cell = np.maximum(np.maximum(into_cell[0], into_cell[1]), np.maximum(into_cell[2], 0.0))
    right, up, depth = (
        offsets[0] * axes[:, 0, column] + offsets[1] * axes[:, 1, column] + offsets[2] * axes[:, 2, column]
        for column in range(3)
    )
    across_depth, along_depth = (np.tan(np.radians(angle / 2)) * depth for angle in field_of_view_deg)
    seen = (entered_cell <= entered_box) & (depth > 0.0)
    seen &= (np.abs(right) <= across_depth) & (np.abs(up) <= along_depth)
    return seen.reshape(-1, len(poses))


def hit_rate(seen: BoolArray, prepared: BoolArray) -> FloatArray:
    """Equation (6): of the cells [..., cells] that are seen or prepared, the share that is both: 0..1.

    NaN where there is no such cell: nothing was to be rendered, and nothing was.
    """
    both = np.count_nonzero(seen & prepared, axis=-1)
    either = np.count_nonzero(seen | prepared, axis=-1)
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)
