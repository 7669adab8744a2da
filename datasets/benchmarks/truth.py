"""Ground truth of one frame, whatever the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID, Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Labels on a grid, and where they may be scored.

    Attributes:
        grid, taxonomy: of the labels.
        semantics: (X, Y, Z) uint8 class ids; 255 where the voxel must not be scored.
        mask_lidar: (X, Y, Z) bool, observed by LiDAR; None where the benchmark has no such mask.
        mask_camera: (X, Y, Z) bool, seen by a camera; None likewise.
        flow: (X, Y, Z, 2) float32 m/s along x and y of the grid's frame; None without flow.

    Raises:
        ValueError: a shape is not the grid's, a class id is unknown, or a velocity is not finite.
    """

    grid: VoxelGrid
    taxonomy: Taxonomy
    semantics: NDArray[np.uint8]
    mask_lidar: NDArray[np.bool_] | None = None
    mask_camera: NDArray[np.bool_] | None = None
    flow: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name in ("semantics", "mask_lidar", "mask_camera"):
            array = getattr(self, name)
            if array is not None and array.shape != self.grid.shape:
                raise ValueError(f"{name} has shape {array.shape}, the grid {self.grid.shape}")
        known = (self.semantics < self.taxonomy.n_classes) | (self.semantics == IGNORE_ID)
        if not known.all():
            bad = int(self.semantics[~known][0])
            raise ValueError(f"class id {bad} is not in taxonomy {self.taxonomy.name}")
        if self.flow is not None:
            if self.flow.shape != (*self.grid.shape, 2):
                raise ValueError(f"flow has shape {self.flow.shape}, the grid {self.grid.shape}")
            if not np.isfinite(self.flow).all():
                raise ValueError("a velocity is not finite")
