"""The masks of one frame, from its own sweeps and cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.frames import Frame, SceneSource, points_in_ego
from datasets.geometry.grid import VoxelGrid
from datasets.visibility import Visibility, camera_mask, sweep_evidence


def frame_visibility(
    source: SceneSource,
    frame: Frame,
    grid: VoxelGrid,
    occupied: NDArray[np.bool_] | None = None,  # (X, Y, Z)
    *,
    past: int = 0,
    future: int = 0,
) -> Visibility:
    """Masks of a frame on any grid.

    Args:
        occupied: what hides things from the cameras; None: the voxels with a LiDAR hit.
        past, future: sweeps to use beside the key sweep.

    Raises:
        SceneError: a point file is bad.
        ValueError: ``occupied`` is not of the grid's shape.
    """
    points = None
    if frame.lidar is not None:
        points = points_in_ego(source, frame, past=past, future=future)
    hits, passes = sweep_evidence(frame, points, grid)
    camera = camera_mask(hits > 0 if occupied is None else occupied, grid, frame.cameras)
    return Visibility(hits=hits, passes=passes, camera=camera)
