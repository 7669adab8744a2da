"""LiDAR and camera visibility of a voxel grid; all masks follow it.

- A voxel's ``hits`` are the returns that end in it, its ``passes`` the rays that cross it on their
  way to a return elsewhere. Both are counted to 255 and kept beside the verdicts. A ray starts
  where its own sweep was taken.
- It is LiDAR-observed where there is a hit or a pass; elsewhere it is unknown, not free.
- It is camera-visible where a camera of the frame sees it through a given occupancy
  (``visible_from_cameras``): per pixel ray and per occupied voxel.

Legend: P returns, X Y Z voxels. Everything is in the frame's ego frame; ``in_lidar_frame`` turns a
frame around for grids that lie along the LiDAR's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.frames import CameraView, Frame
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import lidar_evidence, visible_from_cameras

Counts = NDArray[np.uint8]
RAY_COLUMNS = 400
"""Rays per picture row. Far surfaces do not depend on it: they are looked at voxel by voxel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """What was observed of each voxel.

    Attributes:
        hits, passes: (X, Y, Z) uint8 LiDAR evidence that stays at 255.
        camera: (X, Y, Z) bool, camera-visible.

    Raises:
        ValueError: the shapes differ.
    """

    hits: Counts
    passes: Counts
    camera: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.hits.shape == self.passes.shape == self.camera.shape:
            raise ValueError(
                f"shapes differ: hits {self.hits.shape}, passes {self.passes.shape}, "
                f"camera {self.camera.shape}"
            )

    @property
    def lidar(self) -> NDArray[np.bool_]:
        """(X, Y, Z) LiDAR-observed."""
        return (self.hits > 0) | (self.passes > 0)


def sweep_evidence(
    frame: Frame,
    points: NDArray[np.float32] | None,  # (P, 6)
    grid: VoxelGrid,
) -> tuple[Counts, Counts]:
    """Hits and passes (X, Y, Z) of points gathered by ``points_in_ego``.

    Each ray starts where its sweep was taken. No points: nothing is hit or passed.
    """
    if points is None or frame.lidar is None:
        return np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    return lidar_evidence(ray_origins(frame, points), points[:, :3], grid)


def ray_origins(
    frame: Frame,
    points: NDArray[np.float32],  # (P, 6)
) -> NDArray[np.float64]:
    """Where the sensor was for each point gathered by ``points_in_ego``: (P, 3) metres, ego.

    A ray starts at the LiDAR that measured it, whatever the times of the sweeps say.

    Raises:
        ValueError: the frame has no LiDAR.
    """
    if frame.lidar is None:
        raise ValueError(f"frame {frame.token} has no LiDAR")
    places = np.array([sweep.T_ego_lidar[:3, 3] for sweep in frame.sweeps], np.float64)
    return np.asarray(places[points[:, 5].astype(np.int64)])


def camera_mask(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    grid: VoxelGrid,
    views: Sequence[CameraView],
    *,
    ray_columns: int = RAY_COLUMNS,
) -> NDArray[np.bool_]:
    """Voxels (X, Y, Z) that a camera sees through the given occupancy; none without a camera.

    Args:
        ray_columns: rays per picture row; wider pictures are sampled.

    Raises:
        ValueError: ``occupied`` is not of the grid's shape.
    """
    stride = ray_stride(views, ray_columns=ray_columns)
    return visible_from_cameras(occupied, grid, views, stride=stride)


def ray_stride(views: Sequence[CameraView], *, ray_columns: int = RAY_COLUMNS) -> int:
    """Pixels from one ray to the next, so that no picture has fewer rays per row than asked for."""
    return max(1, min((v.width for v in views), default=1) // ray_columns)
