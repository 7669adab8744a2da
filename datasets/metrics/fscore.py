"""Geometric F-score of occupied voxels (the CVPR 2023 occupancy challenge's second figure)."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID

EPSILON = 1e-8


class FScore:
    """Mean over frames of accuracy, completeness and F. Streaming and mergeable.

    Accuracy is the share of predicted occupied voxels whose centre lies less than ``within_m`` from
    that of an occupied voxel of the truth, completeness the reverse, and F their harmonic mean.

    Attributes:
        sums: (3,) of accuracy, completeness and F over frames.
    """

    def __init__(self, grid: VoxelGrid, free_id: int, *, within_m: float = 0.6) -> None:
        self.grid, self.free_id, self.within_m = grid, free_id, within_m
        self.sums: NDArray[np.float64] = np.zeros(3)
        self.frames = 0
        reach = [int(within_m / s) for s in grid.size_m]
        self._near = np.zeros([2 * n + 1 for n in reach], bool)
        for index in itertools.product(*(range(2 * n + 1) for n in reach)):
            offset_m = (np.array(index) - reach) * np.asarray(grid.size_m)
            self._near[index] = np.linalg.norm(offset_m) < within_m

    def update(
        self,
        truth: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one frame, (X, Y, Z) each; without any predicted voxel it counts as 0.

        Raises:
            ValueError: a shape is not the grid's, or something is predicted but the truth has no
                occupied voxel.
        """
        occupied = []
        for labels in (truth, prediction):
            if labels.shape != self.grid.shape:
                raise ValueError(f"labels of shape {labels.shape}, the grid has {self.grid.shape}")
            voxels = (labels != self.free_id) & (labels != IGNORE_ID)
            occupied.append(voxels if mask is None else voxels & mask)
        t, p = occupied
        if p.any() and not t.any():
            raise ValueError("the truth has no occupied voxel to compare with")
        self.frames += 1
        if not p.any():
            return
        accuracy = float(binary_dilation(t, self._near)[p].mean())
        completeness = float(binary_dilation(p, self._near)[t].mean())
        f = 2 / (1 / (accuracy + EPSILON) + 1 / (completeness + EPSILON))
        self.sums += (accuracy, completeness, f)

    def merge(self, other: FScore) -> None:
        """Add the frames of another part of the set."""
        if (other.grid, other.free_id, other.within_m) != (self.grid, self.free_id, self.within_m):
            raise ValueError("the scores are of different grids, classes or distances")
        self.sums += other.sums
        self.frames += other.frames

    def to_json(self) -> dict[str, float | int | None]:
        """Fractions; null without a frame."""
        names = ("accuracy", "completeness", "F")
        means: list[float | None] = [
            float(s / self.frames) if self.frames else None for s in self.sums
        ]
        return dict(zip(names, means, strict=True)) | {"frames": self.frames}
