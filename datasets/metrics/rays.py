"""RayIoU, mAVE and OccScore: simulated LiDAR rays in ground truth and prediction.

The protocol of SparseOcc (arXiv 2312.17118) and of the CVPR 2024 occupancy and flow challenge: the
rays of a LiDAR, started from where it was at several moments of the drive, end in the first
occupied voxel. A ray is right if both grids give it the same class and the distances, taken where
it leaves that voxel, differ by less than 1, 2 or 4 m. Rays that meet nothing in the truth are left
out. Masks play no part. The arithmetic, float32 where the published code rounds to it, is that of
the published code, so that its figures come out to the last digit.

Legend: R rays, T origins, K classes with free space among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.frames import Frame
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import first_hits
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.taxonomy import IGNORE_ID, Taxonomy

THRESHOLDS_M = (1.0, 2.0, 4.0)
VELOCITY_THRESHOLD_M = 2.0
MAX_ORIGINS = 8
ORIGIN_RANGE_M = 39.0


@cache
def lidar_rays() -> NDArray[np.float32]:
    """(14040, 3) float32 unit directions: 39 pitches times 360 azimuths.

    The ten lowest pitches meet flat ground at 1, 2, ... 10 sensor heights; from there they rise in
    equal steps to above 0.21 rad, the top of nuScenes' LiDAR.
    """
    pitch = [-(np.pi / 2 - np.arctan(k + 1)) for k in range(10)]
    while pitch[-1] < 0.21:
        pitch.append(pitch[-1] + (pitch[-1] - pitch[-2]))
    p, a = (v.ravel() for v in np.meshgrid(pitch, np.deg2rad(np.arange(360)), indexing="ij"))
    directions = np.stack([np.cos(p) * np.cos(a), np.cos(p) * np.sin(a), np.sin(p)], axis=1)
    rays: NDArray[np.float32] = directions.astype(np.float32)
    rays.setflags(write=False)
    return rays


def lidar_origins(frames: Sequence[Frame], k: int) -> NDArray[np.float64]:
    """Where the rays of ``frames[k]`` start.

    The LiDAR of every key-frame of the scene, as far as it lies within 39 m of the ego frame's
    origin in x and in y; of more than 8 such places 8, evenly in time.

    Args:
        frames: all key-frames of the scene in time order. Ones without LiDAR are left out.

    Returns:
        (T, 3) float64 metres in the ego frame of ``frames[k]``, T in 1..8.

    Raises:
        SceneError: ``frames[k]`` has no LiDAR, or no place is within 39 m.
    """
    current = frames[k]
    location = f"scene {current.scene_id}"
    if current.lidar is None:
        raise SceneError(
            where=location, frame=current.token, rule="rays need a LiDAR to start from"
        )
    T_ego_lidar: Transform = current.lidar.T_ego_lidar
    T_lidar_global = inverse(current.T_global_ego @ T_ego_lidar)
    origins = []
    for frame in frames:
        if frame.lidar is None:
            continue
        in_lidar = np.zeros(3)
        if frame is not current:
            in_lidar = (T_lidar_global @ frame.T_global_ego @ frame.lidar.T_ego_lidar)[:3, 3]
        origin = apply(T_ego_lidar, in_lidar.astype(np.float32))
        if (np.abs(origin[:2]) < ORIGIN_RANGE_M).all():
            origins.append(origin)
    if not origins:
        raise SceneError(
            where=location, frame=current.token, rule=f"no LiDAR within {ORIGIN_RANGE_M:.0f} m"
        )
    if len(origins) > MAX_ORIGINS:
        chosen = np.round(np.linspace(0, len(origins) - 1, MAX_ORIGINS)).astype(int)
        origins = [origins[i] for i in chosen]
    return np.stack(origins)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RayEnds:
    """Where rays end in a grid.

    Attributes:
        label: (R,) uint8 class of the voxel; free for a ray that meets nothing.
        distance_m: (R,) float32, from the origin to where the ray leaves the voxel.
        voxel: (R, 3) int64 index; -1 for a ray that never meets the grid.
    """

    label: NDArray[np.uint8]
    distance_m: NDArray[np.float32]
    voxel: NDArray[np.int64]


def ray_ends(
    semantics: NDArray[np.uint8],  # (X, Y, Z)
    grid: VoxelGrid,
    free_id: int,
    origins_m: NDArray[np.float64],  # (R, 3)
    rays: NDArray[np.float32],  # (R, 3)
    *,
    threads: int = 1,
) -> RayEnds:
    """Cast rays into labels, on so many threads. Voxels with ``IGNORE_ID`` are free space.

    Raises:
        ValueError: a shape does not fit, a value is not finite, or the voxels are no cubes.
    """
    if semantics.shape != grid.shape:
        raise ValueError(f"semantics has shape {semantics.shape}, the grid {grid.shape}")
    if len(set(grid.size_m)) != 1:
        raise ValueError(f"rays need cubic voxels, not {grid.size_m} m")
    size, low = np.float32(grid.size_m[0]), np.asarray(grid.min_m, np.float32).astype(np.float64)
    starts = ((origins_m - low) / float(size)).astype(np.float32).astype(np.float64)
    ends = ((rays + origins_m - low) / float(size)).astype(np.float32).astype(np.float64)
    steps = ends - starts
    steps /= np.sqrt(steps[:, :1] ** 2 + steps[:, 1:2] ** 2 + steps[:, 2:] ** 2)
    occupied = (semantics != free_id) & (semantics != IGNORE_ID)
    voxel, leaves = first_hits(occupied, starts, steps, threads=threads)
    x, y, z = voxel.T
    met = occupied[x, y, z] & (x >= 0)
    return RayEnds(
        label=np.where(met, semantics[x, y, z], np.uint8(free_id)),
        distance_m=leaves.astype(np.float32) * size,
        voxel=voxel,
    )


class RayScore:
    """RayIoU of a set of frames, and velocity errors where they come with flow.

    Streaming and mergeable.

    Attributes:
        truth, predicted: (K,) rays per class.
        right: (3, K) rays of the right class and distance, per threshold.
        velocity_error, velocity_rays: (K,) sum of errors in m/s, and of how many rays.
        frames, origins: how many were scored.
    """

    def __init__(
        self, taxonomy: Taxonomy, grid: VoxelGrid, *, threads: int = 1, has_unmapped: bool = False
    ) -> None:
        """``taxonomy.dynamic`` are the classes whose velocity counts; ``threads`` cast rays.

        ``has_unmapped`` lets predictions have the id K: a ray ends there, and is never right.
        """
        K = taxonomy.n_classes
        self.taxonomy, self.grid, self.threads = taxonomy, grid, threads
        self.has_unmapped = has_unmapped
        self.truth: NDArray[np.int64] = np.zeros(K, np.int64)
        self.predicted: NDArray[np.int64] = np.zeros(K, np.int64)
        self.right: NDArray[np.int64] = np.zeros((len(THRESHOLDS_M), K), np.int64)
        self.velocity_error: NDArray[np.float64] = np.zeros(K)
        self.velocity_rays: NDArray[np.int64] = np.zeros(K, np.int64)
        self.frames = self.origins = self.missed = 0

    def update(
        self,
        truth: NDArray[np.uint8],  # (X, Y, Z)
        prediction: NDArray[np.uint8],  # (X, Y, Z)
        origins_m: NDArray[np.float64],  # (T, 3)
        *,
        truth_flow: NDArray[np.float32] | None = None,  # (X, Y, Z, 2) m/s
        predicted_flow: NDArray[np.float32] | None = None,
    ) -> None:
        """Cast the rays of one frame and add what they meet.

        Raises:
            ValueError: shapes do not fit, a class is unknown, or only one flow is given.
        """
        rays = lidar_rays()
        starts = np.repeat(np.asarray(origins_m, np.float64), len(rays), axis=0)
        rays = np.tile(rays, (len(origins_m), 1))
        free = self.taxonomy.free_id
        wanted = ray_ends(truth, self.grid, free, starts, rays, threads=self.threads)
        valid = wanted.label != free
        self.missed += int((~valid).sum())
        wanted = RayEnds(
            label=wanted.label[valid],
            distance_m=wanted.distance_m[valid],
            voxel=wanted.voxel[valid],
        )
        got = ray_ends(
            prediction, self.grid, free, starts[valid], rays[valid], threads=self.threads
        )
        if (truth_flow is None) != (predicted_flow is None):
            raise ValueError("flow of truth and prediction come together")
        velocity_error = None
        if truth_flow is not None and predicted_flow is not None:
            v, w = truth_flow[tuple(wanted.voxel.T)], predicted_flow[tuple(got.voxel.T)]
            velocity_error = np.linalg.norm(v.astype(np.float64) - w, axis=1)
        self.add(wanted, got, velocity_error)
        self.frames += 1
        self.origins += len(origins_m)

    def add(
        self, truth: RayEnds, prediction: RayEnds, velocity_error: NDArray[np.float64] | None = None
    ) -> None:
        """Add rays whose ends are known.

        Args:
            truth: no ray of it ends in free space.
            prediction: of the same rays.
            velocity_error: (R,) m/s.

        Raises:
            ValueError: a class is unknown, or a ray of the truth ends in free space.
        """
        K, free = len(self.truth), self.taxonomy.free_id
        last = {"truth": K - 1, "prediction": K if self.has_unmapped else K - 1}
        for name, labels in (("truth", truth.label), ("prediction", prediction.label)):
            if labels.size and labels.max() > last[name]:
                raise ValueError(f"{name} {int(labels.max())} is not in 0..{last[name]}")
        if (truth.label == free).any():
            raise ValueError("a ray of the truth ends in free space")
        self.truth += np.bincount(truth.label, minlength=K)
        self.predicted += np.bincount(prediction.label, minlength=K)[:K]
        class_matches = truth.label == prediction.label
        off_m = np.abs(truth.distance_m.astype(np.float64) - prediction.distance_m)
        for j, threshold_m in enumerate(THRESHOLDS_M):
            right = class_matches & (off_m < threshold_m)
            self.right[j] += np.bincount(truth.label[right], minlength=K)
            if threshold_m == VELOCITY_THRESHOLD_M and velocity_error is not None:
                moving = right & np.isin(truth.label, self.taxonomy.dynamic)
                labels = truth.label[moving]
                self.velocity_rays += np.bincount(labels, minlength=K)
                self.velocity_error += np.bincount(labels, velocity_error[moving], minlength=K)

    def merge(self, other: RayScore) -> None:
        """Add the rays of another part of the set."""
        if (other.taxonomy, other.grid) != (self.taxonomy, self.grid):
            raise ValueError("the scores are of different classes or grids")
        for name in ("truth", "predicted", "right", "velocity_error", "velocity_rays"):
            getattr(self, name).__iadd__(getattr(other, name))
        self.frames += other.frames
        self.origins += other.origins
        self.missed += other.missed

    def iou(self) -> NDArray[np.float64]:
        """(3, K) per threshold and class as fractions; NaN for free space and absent classes."""
        union = (self.truth + self.predicted - self.right).astype(np.float64)
        union[:, self.taxonomy.free_id] = 0
        return np.divide(self.right, union, out=np.full(union.shape, np.nan), where=union > 0)

    def ray_iou(self) -> float:
        """Mean over thresholds and the classes that occur; NaN where none does."""
        return _mean(self.iou())

    def threshold_iou(self) -> NDArray[np.float64]:
        """(3,) mean at each threshold over the classes that occur; NaN where none does."""
        return np.array([_mean(row) for row in self.iou()])

    def velocity_errors(self) -> NDArray[np.float64]:
        """(K,) AVE in m/s over rays that are right at 2 m; NaN where there is none."""
        n = self.velocity_rays
        return np.divide(self.velocity_error, n, out=np.full(len(n), np.nan), where=n > 0)

    def mave(self) -> float:
        """Mean AVE of the movable classes, m/s; NaN without flow or without a right ray."""
        error = self.velocity_errors()
        return float(np.nanmean(error)) if np.isfinite(error).any() else float("nan")

    def occ_score(self) -> float:
        """0.9 RayIoU + 0.1 max(1 - mAVE, 0); NaN where either does not exist."""
        mave = self.mave()
        bonus = max(1 - mave, 0.0) if np.isfinite(mave) else float("nan")
        return 0.9 * self.ray_iou() + 0.1 * bonus

    def to_json(self) -> dict[str, object]:
        """Percentages and m/s, null for what does not occur; mAVE and OccScore only with flow.

        Rays that meet nothing in the truth are counted and not scored; where all are such, RayIoU
        is null.
        """
        iou, names = self.iou(), self.taxonomy.names
        out: dict[str, object] = {"RayIoU": _rounded(100 * _mean(iou))}
        for row, threshold_m in zip(iou, THRESHOLDS_M, strict=True):
            key = f"RayIoU@{threshold_m:.0f}m"
            out[key] = _rounded(100 * _mean(row))
            out[f"{key} per class"] = {
                names[i]: _rounded(100 * row[i]) for i in self.taxonomy.semantic_ids
            }
        if self.velocity_rays.any():
            error = self.velocity_errors()
            out["mAVE [m/s]"] = _rounded(self.mave(), 4)
            out["AVE per class [m/s]"] = {
                names[i]: _rounded(error[i], 4) for i in self.taxonomy.dynamic
            }
            out["OccScore"] = _rounded(100 * self.occ_score())
        return out | {
            "rays": int(self.truth.sum()),
            "rays without a hit": self.missed,
            "origins": self.origins,
            "frames": self.frames,
        }


def _mean(iou: NDArray[np.float64]) -> float:
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


def _rounded(value: float, digits: int = 2) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
