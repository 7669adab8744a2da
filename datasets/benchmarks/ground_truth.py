"""Ground truth of one frame, whatever the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID, Taxonomy

LAYERS = ("mask_lidar", "mask_camera", "in_view", "flow", "instances")
"""What a benchmark may give besides the semantics."""

_CHUNK = 1 << 18
_DTYPES = {"semantics": np.uint8, "flow": np.float32, "instances": np.int32}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """Labels on a grid, and where they may be scored.

    Attributes:
        grid, taxonomy: of the labels.
        semantics: (X, Y, Z) uint8 class ids; 255 where the voxel must not be scored.
        mask_lidar: (X, Y, Z) bool, observed by LiDAR; None where the benchmark has no such mask.
        mask_camera: (X, Y, Z) bool, seen by a camera; None likewise.
        in_view: (X, Y, Z) bool, within the field of view of a camera, seen or not; None where
            the cameras look all round (every benchmark but Occ3D-Waymo).
        flow: (X, Y, Z, 2) float32 m/s along x and y of the grid's frame; None without flow.
        instances: (X, Y, Z) int32 numbers of objects; None where they are not told apart.

    Raises:
        ValueError: a shape is not the grid's, a dtype is wrong, a class id is unknown, or a
            velocity is not finite.
    """

    grid: VoxelGrid
    taxonomy: Taxonomy
    semantics: NDArray[np.uint8]
    mask_lidar: NDArray[np.bool_] | None = None
    mask_camera: NDArray[np.bool_] | None = None
    in_view: NDArray[np.bool_] | None = None
    flow: NDArray[np.float32] | None = None
    instances: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        for name in ("semantics", *LAYERS):
            if (array := getattr(self, name)) is None:
                continue
            shape = (*self.grid.shape, 2) if name == "flow" else self.grid.shape
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, the grid needs {shape}")
            if array.dtype != (dtype := _DTYPES.get(name, np.bool_)):
                raise ValueError(f"{name} is {array.dtype}, must be {np.dtype(dtype)}")
        n_classes = self.taxonomy.n_classes
        if self.semantics.max() >= n_classes:
            flat = self.semantics.reshape(-1)
            for start in range(0, flat.size, _CHUNK):  # no large array beside it
                ids = flat[start : start + _CHUNK]
                if (ids + np.uint8(1)).max() > n_classes:  # IGNORE_ID becomes 0
                    bad = int(ids[(ids >= n_classes) & (ids != IGNORE_ID)][0])
                    raise ValueError(f"class id {bad} is not in taxonomy {self.taxonomy.name}")
        if self.flow is not None and not np.isfinite(self.flow).all():
            raise ValueError("a velocity is not finite")

    def scored(self) -> NDArray[np.bool_]:
        """(X, Y, Z) bool: what the benchmark scores.

        The labeled voxels inside the camera mask and in view; where there is no camera mask
        those that LiDAR observed; where there is no mask at all, every labeled voxel.
        """
        keep: NDArray[np.bool_] = self.semantics != IGNORE_ID
        for mask in (self.mask_camera, self.mask_lidar):
            if mask is not None:
                keep &= mask
                break
        if self.in_view is not None:
            keep &= self.in_view
        return keep

    def observed(self) -> NDArray[np.bool_]:
        """(X, Y, Z) bool: labeled, and seen by LiDAR or a camera where the benchmark tells."""
        keep: NDArray[np.bool_] = self.semantics != IGNORE_ID
        if masks := [mask for mask in (self.mask_lidar, self.mask_camera) if mask is not None]:
            keep &= np.logical_or.reduce(masks)
        return keep

    def require(
        self,
        grid: VoxelGrid,
        taxonomy: Taxonomy,
        *,
        needs: tuple[str, ...] = (),
        may_have: tuple[str, ...] = (),
    ) -> None:
        """What a writer asks for, so that nothing is lost unsaid.

        Raises:
            ValueError: another grid or taxonomy, a layer that the format needs is absent, or one
                is there that it cannot hold.
        """
        if self.grid != grid:
            raise ValueError(f"the grid is {self.grid}, the format's is {grid}")
        if self.taxonomy != taxonomy:
            raise ValueError(f"the classes are {self.taxonomy.name}, the format's {taxonomy.name}")
        for name in LAYERS:
            has_layer = getattr(self, name) is not None
            if name in needs and not has_layer:
                raise ValueError(f"the {taxonomy.name} format needs {name}")
            if has_layer and name not in (*needs, *may_have):
                raise ValueError(f"the {taxonomy.name} format has no place for {name}")
