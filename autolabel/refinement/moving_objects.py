"""What other frames saw of an object that moves, brought to where the object is.

The pool looks evidence up at the same places of the static world, and leaves out what moves. Here
an object's shape in another frame is laid over its shape in this one by the shift under which most
voxels meet: near where it was, for what stands, or near the distance of the two centres. Which are
one object is known by their numbers (``autolabel.instances``). Turns between frames are not undone.

Legend: X Y Z axes of the grid, N objects of a frame numbered 1..N (0: none), V voxels of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autolabel.refinement.kernels import count_met
from datasets.geometry.grid import VoxelGrid

MIN_IOU = 0.3
"""Shapes that overlap less, shifted, are not put together."""
STEPS = (-1.0, 0.0, 1.0)
"""Voxels along X and Y that are tried around a shift."""


class Objects:
    """The objects of one frame, to find them in others.

    Args:
        numbers: (X, Y, Z) numbers of a scene's objects; 0: none.
    """

    def __init__(self, numbers: NDArray[np.uint16], grid: VoxelGrid) -> None:
        flat = np.flatnonzero(numbers)
        self.numbers, slot = np.unique(numbers.ravel()[flat], return_inverse=True)
        self.slot = slot + 1
        self.cells = np.stack(np.unravel_index(flat, grid.shape), axis=-1).astype(np.float64)
        self.size = np.bincount(self.slot, minlength=len(self.numbers) + 1)

    def grown(self, numbers: NDArray[np.uint16]) -> NDArray[np.intp]:
        """(X, Y, Z) which of the N objects a voxel belongs to or touches; 0: none.

        Args:
            numbers: those that the objects were made of.
        """
        grown = ndimage.maximum_filter(numbers, size=3, mode="constant")
        grown = np.where(numbers > 0, numbers, grown)
        slots = np.zeros(int(numbers.max()) + 1, np.intp)
        slots[self.numbers] = np.arange(1, len(self.numbers) + 1)
        return np.asarray(slots[grown])

    def shifts(
        self, other: NDArray[np.uint16], matrix: NDArray[np.float64], offset: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(N + 1, 3) how far objects have gone until another frame, in its voxels; NaN where one
        was not found there, and for 0.

        Args:
            other: (X, Y, Z) its numbers.
            matrix, offset: take indices here to indices there.
        """
        n = len(self.numbers) + 1
        best = np.full((n, 3), np.nan)
        flat = np.flatnonzero(other)
        there = other.ravel()[flat]
        position = np.searchsorted(self.numbers, there)
        position = np.minimum(position, n - 2)
        same = self.numbers[position] == there if n > 1 else np.zeros(0, np.bool_)
        if not same.any():
            return best
        slot = position[same] + 1
        cells = np.stack(np.unravel_index(flat[same], other.shape), axis=-1)
        size = np.bincount(slot, minlength=n)
        seen = size > 0
        centre = _means(self.cells, self.slot, self.size) @ matrix.T + offset
        apart = np.where(seen[:, None], _means(cells, slot, size) + 0.5 - centre, 0.0)
        number = np.concatenate([[0], self.numbers])
        met_best = np.zeros(n)
        for guess in (np.zeros((n, 3)), apart):
            for step_x in STEPS:
                for step_y in STEPS:
                    shift = guess + np.array([step_x, step_y, 0.0])
                    met = np.zeros(n, np.int64)
                    count_met(self.cells, self.slot, matrix, offset, shift, other, number, met)
                    share = met / np.maximum(1, self.size + size - met)
                    better = seen & (share >= MIN_IOU) & (share > met_best)
                    best[better], met_best[better] = shift[better], share[better]
        best[0] = np.nan
        return best


def _means(
    cells: NDArray[Any],
    slot: NDArray[np.intp],
    size: NDArray[np.intp],
) -> NDArray[np.float64]:
    """(N + 1, 3) mean cell of each object."""
    sums = [np.bincount(slot, of, len(size)) for of in cells.T]
    return np.asarray(np.stack(sums, axis=-1) / np.maximum(1, size)[:, None])
