"""Correction of height, roll and pitch of poses by registration of key sweeps.

nuScenes gives every ego pose z = 0, so that points gathered on a slope lie in layers. Here each
key-frame is registered to a map of the five before it: point-to-plane ICP (Chen and Medioni
1992) on all static structure with a robust weight (Tukey), in height, roll and pitch alone; the
horizontal place and the heading stay as the log has them. Roll and pitch are drawn to the log's
values, so that their error cannot add up along a drive.

Legend: T key-frames, N points of one, K neighbours. Metres, radians, ego or global frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from datasets.geometry.transforms import Transform, apply

Points = NDArray[np.float64]

RANGE_M = 50.0
CELL_M = 0.25
MAP_FRAMES = 5
NEIGHBOURS = 12
ITERATIONS = 20
REACH_M = (1.5, 0.4)
"""How far a point's partner may be, in the first round and in the last."""
TUKEY_M = (0.8, 0.15)
TILT_PRIOR_M2 = 4.0
"""Weight of the log's roll and pitch beside one mean squared lever arm."""
MIN_PARTNERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseCorrection:
    """What to add to the ego poses of a drive.

    Attributes:
        timestamps_us: (T,) int64, of the key-frames, ascending.
        z_m: (T,) upwards along global z.
        roll_rad, pitch_rad: (T,) about the vehicle's own x and y axes.

    Raises:
        ValueError: the shapes differ or a value is not finite.
    """

    timestamps_us: NDArray[np.int64]
    z_m: NDArray[np.float64]
    roll_rad: NDArray[np.float64]
    pitch_rad: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("z_m", "roll_rad", "pitch_rad"):
            values = getattr(self, name)
            if values.shape != self.timestamps_us.shape or not np.isfinite(values).all():
                raise ValueError(f"{name} needs one finite value per key-frame: {values}")

    def corrected(self, T_global_ego: Transform, timestamp_us: int) -> Transform:
        """An ego pose of any moment; between key-frames the correction goes evenly."""
        x = [
            float(np.interp(timestamp_us, self.timestamps_us, values))
            for values in (self.z_m, self.roll_rad, self.pitch_rad)
        ]
        return _moved(T_global_ego, np.array(x))


def no_correction(timestamps_us: Sequence[int]) -> PoseCorrection:
    """Of a log whose poses are right."""
    zero = np.zeros(len(timestamps_us))
    times = np.array(timestamps_us, np.int64)
    return PoseCorrection(timestamps_us=times, z_m=zero, roll_rad=zero, pitch_rad=zero)


def estimate_correction(
    clouds: Sequence[NDArray[np.floating[Any]]],  # T x (N, 3) static points, ego frame
    T_global_ego: Sequence[Transform],
    timestamps_us: Sequence[int],
) -> PoseCorrection:
    """Heights and tilts under which consecutive key-frames fit; the first key-frame keeps its pose.

    A key-frame that has too little in common with those before it takes over their correction.

    Raises:
        ValueError: not one cloud, pose and time per key-frame.
    """
    if not len(clouds) == len(T_global_ego) == len(timestamps_us):
        raise ValueError(
            f"{len(clouds)} clouds, {len(T_global_ego)} poses and {len(timestamps_us)} times"
        )
    corrections = np.zeros((len(clouds), 3))
    # near zero, where float64 has room for squares
    origin = T_global_ego[0][:3, 3] if T_global_ego else np.zeros(3)
    recent: list[tuple[Points, Points]] = []
    for k, (cloud, T_given) in enumerate(zip(clouds, T_global_ego, strict=True)):
        points = _thinned(np.asarray(cloud, np.float64)[:, :3])
        T = T_given.copy()
        T[:3, 3] -= origin
        if k:
            corrections[k] = _align(points, T, recent, corrections[k - 1])
        placed = apply(_moved(T, corrections[k]), points)
        nearby = np.concatenate([placed, *(p for p, _ in recent)])
        recent = [*recent[1 - MAP_FRAMES :], (placed, _normals(placed, nearby))]
    return PoseCorrection(
        timestamps_us=np.array(timestamps_us, np.int64),
        z_m=corrections[:, 0],
        roll_rad=corrections[:, 1],
        pitch_rad=corrections[:, 2],
    )


def surface_thickness(points: NDArray[np.floating[Any]], *, cell_m: float = 1.0) -> float:
    """How thick points (N, 3) of a surface lie: of the columns with at least ten points, the median
    distance between the heights that 10 % and 90 % of their points stay below. NaN without any."""
    cells = np.floor(points[:, :2] / cell_m).astype(np.int64)
    _, column = np.unique((cells[:, 0] << 32) + cells[:, 1], return_inverse=True)
    order = np.lexsort((points[:, 2], column))
    heights = points[order, 2]
    counts = np.bincount(column)
    first = np.cumsum(counts) - counts
    used = counts >= 10
    low, high = (
        heights[(first + np.floor(share * (counts - 1)).astype(np.int64))[used]]
        for share in (0.1, 0.9)
    )
    return float(np.median(high - low)) if used.any() else float("nan")


def _moved(T_global_ego: Transform, x: NDArray[np.float64]) -> Transform:
    """A pose with height, roll and pitch added."""
    (_, cos_r, cos_p), (_, sin_r, sin_p) = np.cos(x), np.sin(x)
    roll, pitch = np.eye(4), np.eye(4)
    roll[1:3, 1:3] = [[cos_r, -sin_r], [sin_r, cos_r]]
    pitch[:3:2, :3:2] = [[cos_p, sin_p], [-sin_p, cos_p]]
    T: Transform = T_global_ego @ pitch @ roll
    T[2, 3] += x[0]
    return T


def _thinned(points: Points) -> Points:
    """The first point of every small cell, in range."""
    points = np.asarray(points[(np.abs(points) < RANGE_M).all(axis=1)])
    cells = np.floor(points / CELL_M).astype(np.int64) + 2**20
    _, first = np.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2], return_index=True)
    return np.asarray(points[np.sort(first)])


def _normals(points: Points, among: Points) -> Points:
    """(N, 3) unit normals where the neighbours lie in a plane, NaN elsewhere."""
    normals = np.full(points.shape, np.nan)
    if len(among) < NEIGHBOURS:
        return normals
    distance, index = cKDTree(among).query(points, k=NEIGHBOURS)
    near = among[index]  # (N, K, 3)
    near = near - near.mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near) / NEIGHBOURS)
    # thin, and no mere line: the points of one ring of the LiDAR tell no plane
    flat = (spread[:, 0] < 0.05 * spread[:, 1]) & (spread[:, 1] > 0.05 * spread[:, 2])
    flat &= distance[:, -1] < 3.0
    normals[flat] = axes[flat, :, 0]
    return normals


def _align(
    points: Points, T: Transform, recent: list[tuple[Points, Points]], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Height, roll and pitch to add to ``T`` so that the points fit the map."""
    surface, normals = (np.concatenate(parts) for parts in zip(*recent, strict=True))
    has_normal = np.isfinite(normals[:, 0])
    surface, normals = surface[has_normal], normals[has_normal]
    if not len(surface) or not len(points):
        return start
    tree = cKDTree(surface)
    x = start.copy()
    for reach, tukey in zip(
        np.geomspace(*REACH_M, ITERATIONS), np.geomspace(*TUKEY_M, ITERATIONS), strict=True
    ):
        T_now = _moved(T, x)
        placed = apply(T_now, points)
        distance, partner = tree.query(placed, distance_upper_bound=reach)
        matched = np.isfinite(distance)
        if matched.sum() < MIN_PARTNERS:
            return start
        n, arm = normals[partner[matched]], placed[matched] - T_now[:3, 3]
        error = np.einsum("ni,ni->n", n, placed[matched] - surface[partner[matched]])
        weight = np.clip(1 - (error / tukey) ** 2, 0, None) ** 2
        # how the error changes with height, roll and pitch
        turns = [np.einsum("ni,ni->n", np.cross(T_now[:3, a], arm), n) for a in (0, 1)]
        J = np.stack([n[:, 2], *turns], axis=1)
        total = max(float(weight.sum()), 1e-9)
        A = (J * weight[:, None]).T @ J / total + np.diag([1e-6, TILT_PRIOR_M2, TILT_PRIOR_M2])
        b = J.T @ (weight * error) / total + np.array([0, *(TILT_PRIOR_M2 * x[1:])])
        x = x - np.linalg.solve(A, b)
    return x
