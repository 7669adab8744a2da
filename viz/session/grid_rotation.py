"""Labels along a LiDAR's axes, turned by right angles so that X points most nearly forward.

nuScenes' LiDAR has X right and Y forward; maps, marker and the first view look along X.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, from_yaw, inverse
from datasets.labels.store import FrameLabels


def turns_to_forward(T_ego_lidar: Transform) -> int:
    """Right angles, counter-clockwise seen from above, -2..2."""
    return round(float(np.arctan2(T_ego_lidar[1, 0], T_ego_lidar[0, 0])) / (np.pi / 2))


def turned_frame(turns: int) -> Transform:
    """Coordinates in the frame as it is to those in the turned one."""
    return from_yaw(turns * np.pi / 2, (0.0, 0.0, 0.0)).round()


def turned_grid(grid: VoxelGrid, turns: int) -> VoxelGrid:
    """The same voxels in the turned frame."""
    for _ in range(turns % 4):
        (low_x, _, low_z), (_, high_y, _) = grid.min_m, grid.max_m
        (size_x, size_y, size_z), (n_x, n_y, n_z) = grid.size_m, grid.shape
        grid = VoxelGrid(
            min_m=(-high_y, low_x, low_z),
            size_m=(size_y, size_x, size_z),
            shape=(n_y, n_x, n_z),
        )
    return grid


def turned_labels(labels: FrameLabels, turns: int) -> FrameLabels:
    """The same labels on the turned grid; flow turns with it."""
    if turns % 4 == 0:
        return labels
    T = turned_frame(turns)
    flow = None
    if labels.flow is not None:
        rotation = T[:2, :2].astype(np.float16)  # entries are 0, 1 and -1: nothing is rounded
        flow = np.ascontiguousarray(np.rot90(labels.flow, turns) @ rotation.T)
    return replace(
        labels,
        T_global_grid=labels.T_global_grid @ inverse(T),
        semantics=_turned(labels.semantics, turns),
        confidence=_turned(labels.confidence, turns),
        mask=_turned(labels.mask, turns),
        hits=None if labels.hits is None else _turned(labels.hits, turns),
        passes=None if labels.passes is None else _turned(labels.passes, turns),
        flow=flow,
        instances=None if labels.instances is None else _turned(labels.instances, turns),
    )


def stored_voxels(
    voxels: NDArray[np.int64], turned_shape: tuple[int, int, int], turns: int
) -> NDArray[np.int64]:
    """Voxels of a turned grid as those of the grid that was turned, sorted.

    Args:
        voxels: flat C-order indices in the turned grid, whose shape is ``turned_shape``.
    """
    x, y, z = np.unravel_index(voxels, turned_shape)
    n_x, n_y, n_z = turned_shape
    for _ in range(turns % 4):
        # np.rot90 once: turned[x, y] is stored[y, n_x - 1 - x]
        x, y, n_x, n_y = y, n_x - 1 - x, n_y, n_x
    return np.sort((x * n_y + y) * n_z + z)


def _turned(array: NDArray[Any], turns: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.rot90(array, turns))
