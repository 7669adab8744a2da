"""The objects of one frame: connected voxels of classes that can move.

Classes of a group (vehicles; people and two-wheelers) connect to each other, for one object is
often labeled in two classes; it bears the one that most of its voxels have.

Legend: X, Y, Z axes of the grid; N voxels of an object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply
from datasets.taxonomy import Taxonomy

MIN_VOXELS = 2
NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
"""Voxels that touch at a face, an edge or a corner are connected."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """One object of one frame.

    Attributes:
        group: of its classes (``Taxonomy.class_groups``).
        class_id: of most of its voxels.
        voxels: (N,) flat indices of the grid.
        centre_m: (3,) mean of its voxels in the global frame.
        extent_m: horizontal diagonal.
    """

    group: str
    class_id: int
    voxels: NDArray[np.int64]
    centre_m: NDArray[np.float64]
    extent_m: float


def segments(
    semantics: NDArray[np.uint8], grid: VoxelGrid, T_global_grid: Transform, taxonomy: Taxonomy
) -> list[Segment]:
    """The objects of labels (X, Y, Z) of at least ``MIN_VOXELS`` voxels, in the order of the grid.

    Args:
        T_global_grid: pose of the frame that the grid lies in, metres.
    """
    out = []
    for group, ids in taxonomy.class_groups().items():
        moving = [i for i in ids if i in taxonomy.dynamic]
        if not moving:
            continue
        wanted = np.zeros(256, np.bool_)
        wanted[moving] = True
        parts, n = ndimage.label(wanted[semantics], NEIGHBOURS)
        if not n:
            continue
        flat = np.flatnonzero(parts)
        part = parts.ravel()[flat] - 1
        index = np.stack(np.unravel_index(flat, grid.shape), axis=-1)
        counts = np.bincount(part, minlength=n)
        votes = np.zeros((n, taxonomy.n_classes), np.int64)
        np.add.at(votes, (part, semantics.ravel()[flat]), 1)
        middle = np.stack([np.bincount(part, i, n) for i in index.T], axis=-1) / counts[:, None]
        centres = apply(T_global_grid, grid.centers(middle))
        low, high = np.full((n, 2), grid.n_voxels), np.zeros((n, 2), np.int64)
        np.minimum.at(low, part, index[:, :2])
        np.maximum.at(high, part, index[:, :2])
        extents = np.hypot(*((high - low + 1) * grid.size_m[:2]).T)
        voxels_of = np.split(flat[np.argsort(part, kind="stable")], np.cumsum(counts)[:-1])
        out += [
            Segment(
                group=group,
                class_id=int(votes[k].argmax()),
                voxels=voxels_of[k],
                centre_m=centres[k],
                extent_m=float(extents[k]),
            )
            for k in np.flatnonzero(counts >= MIN_VOXELS)
        ]
    return out
