"""Labels along a LiDAR's axes, turned by right angles so that X points most nearly forward.

nuScenes' LiDAR has X right and Y forward; maps, marker and the first view look along X.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, from_yaw, inverse
from datasets.label_store import FrameLabels


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
    """The same labels on the turned grid; evidence and flow are left out."""
    return replace(
        labels,
        T_global_grid=labels.T_global_grid @ inverse(turned_frame(turns)),
        semantics=np.rot90(labels.semantics, turns),
        confidence=np.rot90(labels.confidence, turns),
        mask=np.rot90(labels.mask, turns),
        hits=None,
        passes=None,
        flow=None,
    )
