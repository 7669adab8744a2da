"""Which voxels of a frame LiDAR and cameras observe, given the predicted occupancy.

Legend: X Y Z voxels, P LiDAR returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datasets.frames import CameraView, Frame, SceneSource, points_in_ego
from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import FrameInputs, InputSpec
from datasets.visibility import RAY_COLUMNS, camera_mask, sweep_evidence

BESIDE_M, BELOW_M = 3.0, 1.0
"""Extent of the blind zone of the vehicle around and below a camera."""

FREE_PASSES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Minimum numbers of crossing rays that ``FreeRayThreshold`` tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibilityConfig:
    """How camera visibility is decided; see ``LabelingConfig``."""

    ray_columns: int = RAY_COLUMNS
    split: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Visibility:
    """What the sensors observe of one frame's voxels.

    Attributes:
        hits, passes: (X, Y, Z) uint8 LiDAR rays that end in a voxel, or cross it.
        visible: (X, Y, Z) bool, a camera sees it.
    """

    hits: NDArray[np.uint8]
    passes: NDArray[np.uint8]
    visible: NDArray[np.bool_]

    @property
    def observed(self) -> NDArray[np.bool_]:
        """(X, Y, Z) LiDAR or a camera sees it."""
        return (self.hits > 0) | (self.passes > 0) | self.visible

    def has_evidence(self, occupied: NDArray[np.bool_], free_passes: int) -> NDArray[np.bool_]:
        """(X, Y, Z): predicted occupied, or free with evidence; see
        ``LabelingConfig.free_passes``."""
        return occupied | (self.hits > 0) | (self.passes >= free_passes)


def metric_points(
    source: SceneSource, frame: Frame, inputs: FrameInputs, spec: InputSpec
) -> NDArray[np.float32] | None:
    """Returns (P, 5 or more) of the sweeps that a network reads, metres, in that frame.

    Args:
        frame: in the frame that the grid lies in.
        inputs: of that frame, prepared to ``spec``; their points are taken where they are metric.

    Raises:
        SceneError: a LiDAR file is bad.
    """
    plain = not spec.reference_parity and spec.point_features == "intensity_lag"
    if frame.lidar is None or (inputs.points is not None and plain):
        return inputs.points
    return points_in_ego(source, frame, past=spec.past_sweeps)


@dataclass(slots=True)
class FreeRayThreshold:
    """How many rays must cross a voxel predicted free: the number with the best F1 against a
    benchmark's mask, among voxels that a camera sees.

    Labels where the benchmark does not score (mostly free, high and far, crossed by few rays)
    shift a student's classes towards free space. Streaming over frames.
    """

    occupied: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    free: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((len(FREE_PASSES), 2), np.int64)
    )
    scored: int = 0

    def update(
        self, visibility: Visibility, occupied: NDArray[np.bool_], scored: NDArray[np.bool_]
    ) -> None:
        """Count a frame; all arrays (X, Y, Z)."""
        self.scored += int(scored.sum())
        proven = visibility.visible & (occupied | (visibility.hits > 0))
        self.occupied += proven.sum(), (proven & scored).sum()
        free = visibility.visible & ~proven
        for k, min_passes in enumerate(FREE_PASSES):
            crossed = free & (visibility.passes >= min_passes)
            self.free[k] += crossed.sum(), (crossed & scored).sum()

    def f1(self) -> NDArray[np.float64]:
        """Of each number of ``FREE_PASSES``; 0 where nothing was counted."""
        trusted, right = (self.occupied + self.free).T
        return np.asarray(2 * right / np.maximum(1, trusted + self.scored), np.float64)

    def best(self) -> int:
        """The smallest number with the best F1."""
        return FREE_PASSES[int(self.f1().argmax())]


def visible_to_cameras(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    hits: NDArray[np.uint8],  # (X, Y, Z)
    points: NDArray[np.float32] | None,  # (P, 5 or more)
    frame: Frame,
    grid: VoxelGrid,
    config: VisibilityConfig,
) -> NDArray[np.bool_]:
    """Camera-visible voxels (X, Y, Z); see ``LabelingConfig.visibility_split``.

    Predictions in the blind zone around the vehicle occlude nothing: no sensor reaches it, so no
    teacher learns it, and a single voxel of it before a camera would occlude the whole image.
    """
    n, (X, Y, Z) = config.split, grid.shape
    if n == 1:
        occluding = occupied & ~((hits == 0) & _beside_cameras(grid, frame.cameras))
        return camera_mask(occluding, grid, frame.cameras, ray_columns=config.ray_columns)
    size_m = (grid.size_m[0] / n, grid.size_m[1] / n, grid.size_m[2] / n)
    grid = VoxelGrid(min_m=grid.min_m, size_m=size_m, shape=(X * n, Y * n, Z * n))
    hits, passes = sweep_evidence(frame, points, grid)
    unknown = (hits == 0) & ((passes > 0) | _beside_cameras(grid, frame.cameras))
    occluding = occupied.repeat(n, 0).repeat(n, 1).repeat(n, 2) & ~unknown
    visible = camera_mask(occluding, grid, frame.cameras, ray_columns=config.ray_columns)
    any_part: NDArray[np.bool_] = visible.reshape(X, n, Y, n, Z, n).any(axis=(1, 3, 5))
    return any_part


def _beside_cameras(grid: VoxelGrid, cameras: Sequence[CameraView]) -> NDArray[np.bool_]:
    """(X, Y, Z): voxels within ``BESIDE_M`` of a camera, and above the road."""
    near = np.zeros(grid.shape, np.bool_)
    for view in cameras:
        eye = view.T_ego_camera[:3, 3]
        low = np.clip(grid.indices(eye - BESIDE_M), 0, grid.shape)
        high = np.clip(grid.indices(eye + BESIDE_M) + 1, 0, grid.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        cells = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
        offset_m = grid.centers(cells) - eye
        near[box] |= (np.linalg.norm(offset_m, axis=-1) < BESIDE_M) & (offset_m[..., 2] > -BELOW_M)
    return near
