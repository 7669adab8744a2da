"""Which voxels are which annotated object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import Box
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply, inverse
from datasets.taxonomy import Taxonomy


def box_instances(
    semantics: NDArray[np.uint8],  # (X, Y, Z)
    boxes: Sequence[Box],
    numbers: dict[str, int],
    grid: VoxelGrid,
    taxonomy: Taxonomy,
) -> NDArray[np.int32]:
    """(X, Y, Z) numbers of objects, 0: none.

    A voxel of a class that can move belongs to the box that its middle lies in, or that it touches;
    of several to the one whose walls it lies deepest within, or is nearest to.

    Args:
        boxes: of the frame that the grid lies in.
        numbers: of tracks, from 1; those that are new are added.
    """
    out = np.zeros(semantics.shape, np.int32)
    index = np.argwhere(np.isin(semantics, taxonomy.dynamic))
    if not len(index) or not boxes:
        return out
    middles = grid.centers(index)
    beyond = np.full((len(boxes), len(index)), np.inf)
    for b, box in enumerate(boxes):
        local = np.abs(apply(inverse(box.T_ego_box), middles))
        beyond[b] = (local - np.asarray(box.size_m) / 2).max(axis=1)
    nearest = beyond.argmin(axis=0)
    touched = beyond.min(axis=0) <= max(grid.size_m) / 2
    own = np.array([numbers.setdefault(box.track, len(numbers) + 1) for box in boxes], np.int32)
    out[tuple(index[touched].T)] = own[nearest[touched]]
    return out
