"""Ground truth of the city: Occ3D voxels from its surfaces, masks from voxel traversal.

A voxel is occupied when a surface of the scene passes through it (surfaces are sampled every 0.2 m
or closer). Its class is the one with the largest weighted area within it; things that are small or
thin weigh more, so that a cone or a pole is not lost in the ground it stands on. Vehicles and
people are filled; buildings and trees are shells. As in Occ3D, what LiDAR never observed is free
in ``semantics`` and 0 in ``mask_lidar``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.occ3d_nuscenes import GRID, TAXONOMY
from datasets.geometry.compiled import compiled
from datasets.geometry.raycast import PinholeView, lidar_evidence, visible_from_cameras
from datasets.geometry.transforms import Transform, inverse
from datasets.sources.synthetic.objects.shapes import Mesh
from datasets.sources.synthetic.sensors.ray_tracing import Stage
from datasets.sources.synthetic.world.builder import actor_poses, velocities

GROUND_SPACING_M = 0.2
SURFACE_SPACING_M = 0.15
MIN_PASSES = 8
_ABOVE_M = 7.5  # no voxel grid reaches higher above the highest ground

_FLAT = tuple(TAXONOMY.id_of(n) for n in ("driveable_surface", "other_flat", "sidewalk", "terrain"))


def _class_weights() -> NDArray[np.float32]:
    small = {"traffic_cone": 8.0, "pedestrian": 4.0, "bicycle": 4.0, "motorcycle": 3.0}
    small |= {"others": 3.0, "barrier": 3.0, "manmade": 2.0, "vegetation": 4.0}
    flat = {"driveable_surface": 1.0, "other_flat": 1.0, "sidewalk": 1.0, "terrain": 1.0}
    return np.array([(small | flat).get(n, 2.0) for n in TAXONOMY.names], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceSamples:
    """Points that stand for surface.

    Attributes:
        points_m: (n, 3) float64.
        classes: (n,) uint8.
        weights: (n,) float32, square metres times the weight of the class.
    """

    points_m: NDArray[np.float64]
    classes: NDArray[np.uint8]
    weights: NDArray[np.float32]


def _of_mesh(mesh: Mesh, below_m: float = np.inf) -> SurfaceSamples:
    """Samples of the faces that begin below a height."""
    low = mesh.vertices[:, 2][mesh.faces].min(axis=1) < below_m
    mesh = replace(
        mesh,
        faces=mesh.faces[low],
        classes=mesh.classes[low],
        colours=mesh.colours[low],
        finishes=mesh.finishes[low],
        styles=mesh.styles[low],
    )
    points, face, area = mesh.surface_samples(SURFACE_SPACING_M)
    classes = mesh.classes[face]
    return SurfaceSamples(
        points_m=points, classes=classes, weights=area * _class_weights()[classes]
    )


def _filled(mesh: Mesh) -> SurfaceSamples:
    """A mover's surface, and its inside halfway and all the way to the middle line."""
    s = _of_mesh(mesh)
    parts = [s.points_m]
    for share in (0.7, 0.4, 0.1):
        inner = s.points_m.copy()
        inner[:, 1] *= share
        parts.append(inner)
    return SurfaceSamples(
        points_m=np.concatenate(parts),
        classes=np.tile(s.classes, len(parts)),
        weights=np.concatenate([s.weights] + [s.weights * 1e-3] * (len(parts) - 1)),
    )


@compiled
def _vote(points: Any, classes: Any, weights: Any, T: Any, lo: Any, size: Any, score: Any) -> None:
    nx, ny, nz, _ = score.shape
    for r in range(points.shape[0]):
        x, y, z = points[r, 0], points[r, 1], points[r, 2]
        i = int(np.floor((T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3] - lo[0]) / size[0]))
        if i < 0 or i >= nx:
            continue
        j = int(np.floor((T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3] - lo[1]) / size[1]))
        if j < 0 or j >= ny:
            continue
        k = int(np.floor((T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3] - lo[2]) / size[2]))
        if k < 0 or k >= nz:
            continue
        score[i, j, k, classes[r]] += weights[r]


@compiled
def _winner(score: Any, free: int, out: Any) -> None:
    """The heaviest class of every voxel; leaves ``score`` zero."""
    nx, ny, nz, n = score.shape
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                best, winner = np.float32(0.0), free
                for c in range(n):
                    if score[i, j, k, c] > best:
                        best, winner = score[i, j, k, c], c
                    score[i, j, k, c] = 0.0
                out[i, j, k] = winner


@compiled
def _own(
    points: Any,
    classes: Any,
    weights: Any,
    T: Any,
    lo: Any,
    size: Any,
    semantics: Any,
    weight: Any,
    best: Any,
    owner: Any,
    number: int,
) -> None:
    """Give a mover the voxels of its class where it weighs more than the movers before it.

    Leaves ``weight`` zero.
    """
    nx, ny, nz = semantics.shape
    for turn in range(3):  # weigh, compare, clear
        for r in range(points.shape[0]):
            x, y, z = points[r, 0], points[r, 1], points[r, 2]
            i = int(np.floor((T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3] - lo[0]) / size[0]))
            j = int(np.floor((T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3] - lo[1]) / size[1]))
            k = int(np.floor((T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3] - lo[2]) / size[2]))
            if i < 0 or i >= nx or j < 0 or j >= ny or k < 0 or k >= nz:
                continue
            if semantics[i, j, k] != classes[r]:
                continue
            if turn == 0:
                weight[i, j, k] += weights[r]
            elif turn == 2:
                weight[i, j, k] = 0.0
            elif weight[i, j, k] > best[i, j, k]:
                best[i, j, k], owner[i, j, k] = weight[i, j, k], number


class CityLabeler:
    """Voxel labels of one scene at any moment."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        ground, classes = stage.ground.samples(stage.layout, GROUND_SPACING_M)
        area = np.full(len(ground), GROUND_SPACING_M**2, np.float32)
        solid = _of_mesh(stage.mesh, ground[:, 2].max() + _ABOVE_M)
        low = solid.points_m[:, 2] < ground[:, 2].max() + _ABOVE_M
        self._static = SurfaceSamples(
            points_m=np.concatenate([ground, solid.points_m[low]]),
            classes=np.concatenate([classes, solid.classes[low]]),
            weights=np.concatenate([area * _class_weights()[classes], solid.weights[low]]),
        )
        self._movers = tuple(_filled(a.mesh) for a in stage.movers)
        # kept between frames: every run through it leaves it zero
        self._score = np.zeros((*GRID.shape, TAXONOMY.n_classes - 1), np.float32)
        self._weight = np.zeros(GRID.shape, np.float32)

    def semantics(self, T_scene_ego: Transform, time_s: float) -> NDArray[np.uint8]:
        """(X, Y, Z) uint8 class of every voxel, hidden ones too; free where there is no surface."""
        score = self._score
        poses = actor_poses(self._stage.movers, self._stage.layout, time_s)
        T_ego_scene = inverse(T_scene_ego)
        lo, size = np.asarray(GRID.min_m), np.asarray(GRID.size_m)
        s = self._static
        _vote(s.points_m, s.classes, s.weights, T_ego_scene, lo, size, score)
        for pose, s in zip(poses, self._movers, strict=True):
            T = T_ego_scene @ pose
            if np.hypot(T[0, 3], T[1, 3]) < 70:
                _vote(s.points_m, s.classes, s.weights, T, lo, size, score)
        out = np.empty(GRID.shape, np.uint8)
        _winner(score, TAXONOMY.free_id, out)
        return out

    def flow(
        self, semantics: NDArray[np.uint8], T_scene_ego: Transform, time_s: float
    ) -> NDArray[np.float32]:
        """(X, Y, Z, 2) float32 m/s: velocity over the ground, along x and y of the ego frame.

        Of the moving object that a voxel of ``semantics`` belongs to, 0 everywhere else.
        """
        movers, layout = self._stage.movers, self._stage.layout
        poses = actor_poses(movers, layout, time_s)
        T_ego_scene = inverse(T_scene_ego)
        lo, size = np.asarray(GRID.min_m), np.asarray(GRID.size_m)
        best, owner = np.zeros(GRID.shape, np.float32), np.full(GRID.shape, -1, np.int64)
        for number, (pose, s) in enumerate(zip(poses, self._movers, strict=True)):
            T = T_ego_scene @ pose
            if np.hypot(T[0, 3], T[1, 3]) < 70:
                _own(
                    s.points_m,
                    s.classes,
                    s.weights,
                    T,
                    lo,
                    size,
                    semantics,
                    self._weight,
                    best,
                    owner,
                    number,
                )
        speeds = velocities(movers, layout, time_s) @ T_ego_scene[:2, :3].T
        table = np.concatenate([speeds, np.zeros((1, 2))]).astype(np.float32)
        return np.asarray(table[owner])


def _stride(views: Sequence[PinholeView]) -> int:
    """Pixels between rays that are still less than a voxel apart at the grid's far corners."""
    focal = min((float(v.intrinsics[0, 0]) for v in views), default=0.0)
    return max(1, int(focal * GRID.size_m[0] / 57))


@compiled
def _mark(points: Any, T: Any, lo: Any, size: Any, hit: Any) -> None:
    nx, ny, nz = hit.shape
    for r in range(points.shape[0]):
        x, y, z = points[r, 0], points[r, 1], points[r, 2]
        i = int(np.floor((T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3] - lo[0]) / size[0]))
        if i < 0 or i >= nx:
            continue
        j = int(np.floor((T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3] - lo[1]) / size[1]))
        if j < 0 or j >= ny:
            continue
        k = int(np.floor((T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3] - lo[2]) / size[2]))
        if 0 <= k < nz:
            hit[i, j, k] = True


def observed_labels(
    semantics: NDArray[np.uint8],
    near_sweeps: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    still_returns: Sequence[NDArray[np.float32]],
    T_ego_scene: Transform,
    views: Sequence[PinholeView],
) -> GroundTruth:
    """Occ3D labels of a frame from the true occupancy.

    Args:
        semantics: (X, Y, Z) true classes.
        near_sweeps: origin (3,) and returns (N, 3) of the key sweep and sweeps within half a
            second, frame's ego, metres. Their rays tell what is free.
        still_returns: (N, 3) returns, scene frame, of what stands still, from the whole drive and
            from the way before and after it: surfaces accumulate, free space does not, since
            things move.
        T_ego_scene: scene to the frame's ego.
        views: the frame's cameras.

    Returns:
        ``mask_lidar``: free voxels that ``MIN_PASSES`` rays cross, and occupied ones that are
        crossed, hit, or next to a hit: Occ3D closes the holes between the beams by surface
        reconstruction, here the ground is closed up to three voxels (1.2 m) from a hit on ground
        and any other surface up to one voxel. ``mask_camera``: visible to a camera through the
        true occupancy (``visible_from_cameras``) and in ``mask_lidar`` as well.
    """
    free = np.uint8(TAXONOMY.free_id)
    hit = np.zeros(GRID.shape, bool)
    passed = np.zeros(GRID.shape, np.uint16)
    for origin, ends in near_sweeps:
        hits, passes = lidar_evidence(origin, ends, GRID)
        hit |= hits > 0
        passed += passes
    for points in still_returns:
        _mark(points, T_ego_scene, np.asarray(GRID.min_m), np.asarray(GRID.size_m), hit)
    flat = np.isin(semantics, _FLAT)
    near_flat = maximum_filter((hit & flat).astype(np.uint8), size=(7, 7, 3)) > 0
    near_other = maximum_filter((hit & ~flat).astype(np.uint8), size=3) > 0
    solid = semantics != free
    lidar = hit | (passed >= MIN_PASSES) | (flat & near_flat) | (solid & ~flat & near_other)
    camera = visible_from_cameras(solid, GRID, views, stride=_stride(views))
    return GroundTruth(
        grid=GRID,
        taxonomy=TAXONOMY,
        semantics=np.where(lidar, semantics, free),
        mask_lidar=lidar,
        mask_camera=camera & lidar,
    )
