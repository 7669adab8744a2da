"""What held-out LiDAR sweeps, which the teacher did not read, say of a frame's voxels.

Legend: X Y Z voxels, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.frames import Frame, SceneSource, of_the_moment, points_in_ego
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import lidar_evidence
from datasets.visibility import ray_origins

HELD_OUT_S, HELD_OUT_MAX_S = 0.3, 1.1
HELD_OUT_SWEEPS = 5
MIN_RETURNS = 3
SEEN_THROUGH, SEEN_THROUGH_NOW = 8, 6
"""Of a voxel's eight parts: so many crossed by all sweeps, or by the key sweep alone."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VoteEvidence:
    """What sweeps say of each voxel (X, Y, Z), in the frame's own grid.

    Attributes:
        hit: enough returns of held-out sweeps end in it.
        touched: a return of the key sweep or of a held-out one ends in it.
        through: seen through by all of them; ``through_now``: by the key sweep.
    """

    hit: Mask
    touched: Mask
    through: Mask
    through_now: Mask


def held_out(frame: Frame) -> int:
    """How many later sweeps of each LiDAR vote: those soon after the frame, else the next one."""
    lags = [
        (s.timestamp_us - frame.timestamp_us) * 1e-6
        for s in frame.future_sweeps
        if frame.lidar is not None and s.lidar == frame.lidar.lidar
    ]
    n_soon = sum(lag <= HELD_OUT_S for lag in lags)
    if n_soon:
        return min(n_soon, HELD_OUT_SWEEPS)
    return int(bool(lags) and lags[0] <= HELD_OUT_MAX_S)


def vote_evidence(source: SceneSource, frame: Frame, grid: VoxelGrid) -> VoteEvidence:
    """Gather the votes' evidence.

    Args:
        frame: in the frame that the grid lies in; opened with ``HELD_OUT_SWEEPS`` future sweeps.

    Raises:
        SceneError: it has no LiDAR, or a point file is bad.
    """
    X, Y, Z = grid.shape
    x, y, z = grid.size_m
    fine = VoxelGrid(min_m=grid.min_m, size_m=(x / 2, y / 2, z / 2), shape=(2 * X, 2 * Y, 2 * Z))
    points = points_in_ego(source, frame, future=held_out(frame))
    origins = ray_origins(frame, points)
    is_key = of_the_moment(frame, points)
    counts = lidar_evidence(origins[is_key], points[is_key, :3], fine)
    through_now = _parts(counts) >= SEEN_THROUGH_NOW
    returns_now = _blocks(counts[0]).any(axis=-1)
    all_counts = lidar_evidence(origins[~is_key], points[~is_key, :3], fine, onto=counts)
    touched = _blocks(all_counts[0]).any(axis=-1)
    inside = points[~is_key, :3]
    inside = inside[grid.contains(inside)]
    returns = np.bincount(grid.flat(grid.indices(inside)), minlength=grid.n_voxels)
    return VoteEvidence(
        hit=returns.reshape(grid.shape) >= MIN_RETURNS,
        touched=touched,
        through=(_parts(all_counts) >= SEEN_THROUGH) & ~touched,
        through_now=through_now & ~returns_now,
    )


def _blocks(fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(X, Y, Z, 8) of (2X, 2Y, 2Z)."""
    X, Y, Z = (n // 2 for n in fine.shape)
    return fine.reshape(X, 2, Y, 2, Z, 2).transpose(0, 2, 4, 1, 3, 5).reshape(X, Y, Z, 8)


def _parts(counts: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> NDArray[np.int64]:
    """How many parts of each voxel are crossed while nothing ends in them."""
    hits, passes = counts
    out: NDArray[np.int64] = _blocks(((passes > 0) & (hits == 0)).view(np.uint8)).sum(axis=-1)
    return out
