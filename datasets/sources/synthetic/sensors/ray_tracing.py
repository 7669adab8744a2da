"""Rays through one scene at one moment: Embree (Open3D's RaycastingScene), one thread.

What stands still is one search tree per scene; what moves is a small tree per moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from datasets.sources.synthetic.objects.shapes import Mesh, merge
from datasets.sources.synthetic.world.builder import REACH_M, Actor, World, actor_poses
from datasets.sources.synthetic.world.layout import Layout
from datasets.taxonomy import OCC3D_NUSCENES

CELL_M = 0.5  # of the ground mesh
NOTHING, GROUND, STATIC, MOVING = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundMesh:
    """The ground near the drive as a regular grid of heights.

    Attributes:
        origin_m: x and y of the first vertex.
        heights_m: (I, J) float64 by x and y.
    """

    origin_m: tuple[float, float]
    heights_m: NDArray[np.float64]

    def samples(
        self, layout: Layout, spacing_m: float
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Points on the mesh every ``spacing_m``: (n, 3) metres and their classes."""
        n_x, n_y = (int((n - 1) * CELL_M / spacing_m - 0.5) for n in self.heights_m.shape)
        u = (np.arange(n_x) + 0.5) * spacing_m / CELL_M
        v = (np.arange(n_y) + 0.5) * spacing_m / CELL_M
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        fu, fv = (u - i)[:, None], (v - j)[None, :]
        h = self.heights_m
        z = (h[i][:, j] * (1 - fv) + h[i][:, j + 1] * fv) * (1 - fu)
        z += (h[i + 1][:, j] * (1 - fv) + h[i + 1][:, j + 1] * fv) * fu
        x, y = np.meshgrid(
            u * CELL_M + self.origin_m[0], v * CELL_M + self.origin_m[1], indexing="ij"
        )
        points = np.stack([x, y, z], -1).reshape(-1, 3)
        return points, layout.ground(points[:, 0], points[:, 1]).classes


def _grid_faces(n_x: int, n_y: int) -> NDArray[np.int32]:
    index = np.arange(n_x * n_y).reshape(n_x, n_y)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    up = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2)
    return np.asarray(up.reshape(-1, 3), np.int32)


def _tensor(array: NDArray[Any]) -> Any:
    core: Any = o3d.core
    return core.Tensor(array)


def _add(scene: Any, vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    scene.add_triangles(
        _tensor(np.ascontiguousarray(vertices, np.float32)),
        _tensor(np.ascontiguousarray(faces, np.uint32)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHits:
    """First surface on each of R rays.

    Attributes:
        what: uint8, ``NOTHING``, ``GROUND``, ``STATIC`` or ``MOVING``.
        range_m: float32, infinite for nothing.
        points_m: (R, 3) float32, scene frame.
        normals: (R, 3) float32, turned towards the ray's origin.
        face: int64 index into the static or the moving mesh.
    """

    what: NDArray[np.uint8]
    range_m: NDArray[np.float32]
    points_m: NDArray[np.float32]
    normals: NDArray[np.float32]
    face: NDArray[np.int64]


class Stage:
    """What stands still in a scene, ready for rays."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.layout = world.layout
        parked = [a for a in world.actors if not a.moves]
        poses = actor_poses(parked, world.layout, 0.0)
        placed = [a.mesh.moved(T) for a, T in zip(parked, poses, strict=True)]
        self.mesh = merge([world.static, *placed])
        self.movers: tuple[Actor, ...] = tuple(a for a in world.actors if a.moves)
        s = np.linspace(0, world.ego_length_m, 25)
        x, y, _ = world.layout.route.place(s, np.full(25, world.layout.route_d_m))
        lo = np.floor(np.array([x.min(), y.min()]) - REACH_M)
        shape = np.ceil((np.array([x.max(), y.max()]) + REACH_M - lo) / CELL_M).astype(int) + 1
        gx, gy = np.meshgrid(*(lo[a] + CELL_M * np.arange(shape[a]) for a in (0, 1)), indexing="ij")
        heights = world.layout.height(gx, gy)
        self.ground = GroundMesh(origin_m=(float(lo[0]), float(lo[1])), heights_m=heights)
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        _add(self._scene, np.stack([gx, gy, heights], -1).reshape(-1, 3), _grid_faces(*gx.shape))
        # far ground, coarse and a little lower
        fx, fy = np.meshgrid(
            *(np.arange(lo[a] - 120, lo[a] + shape[a] * CELL_M + 120, 4.0) for a in (0, 1)),
            indexing="ij",
        )
        far = world.layout.height(fx, fy) - 0.35
        _add(self._scene, np.stack([fx, fy, far], -1).reshape(-1, 3), _grid_faces(*fx.shape))
        _add(self._scene, self.mesh.vertices, self.mesh.faces)

    def at(self, time_s: float) -> Moment:
        """The scene at a time."""
        return Moment(self, time_s)


class Moment:
    """A scene at one time: the stage and the movers where they are then."""

    def __init__(self, stage: Stage, time_s: float) -> None:
        self.stage = stage
        self.mesh: Mesh | None = None
        if stage.movers:
            poses = actor_poses(stage.movers, stage.layout, time_s)
            self.mesh = merge([a.mesh.moved(T) for a, T in zip(stage.movers, poses, strict=True)])
            self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
            _add(self._scene, self.mesh.vertices, self.mesh.faces)

    def cast(self, origin_m: NDArray[Any], directions: NDArray[np.float32]) -> RayHits:
        """First hits; origin (3,) for all or (R, 3), unit directions (R, 3), scene frame."""
        rays = np.empty((len(directions), 6), np.float32)
        rays[:, :3], rays[:, 3:] = origin_m, directions
        tensor = _tensor(rays)
        static = self.stage._scene.cast_rays(tensor, nthreads=1)
        distance = static["t_hit"].numpy()
        geometry = static["geometry_ids"].numpy()
        face = static["primitive_ids"].numpy().astype(np.int64)
        normals = static["primitive_normals"].numpy()
        hit_kind = np.full(len(rays), STATIC, np.uint8)
        hit_kind[geometry < 2] = GROUND
        if self.mesh is not None:
            moving = self._scene.cast_rays(tensor, nthreads=1)
            t = moving["t_hit"].numpy()
            near = np.flatnonzero(t < distance)
            distance[near] = t[near]
            face[near] = moving["primitive_ids"].numpy()[near]
            normals[near] = moving["primitive_normals"].numpy()[near]
            hit_kind[near] = MOVING
        hit_kind[np.isinf(distance)] = NOTHING
        backfacing = np.einsum("ij,ij->i", normals, directions) > 0
        normals[backfacing] *= -1
        reach = np.where(np.isinf(distance), np.float32(1e4), distance)
        points = rays[:, :3] + reach[:, None] * rays[:, 3:]
        return RayHits(what=hit_kind, range_m=distance, points_m=points, normals=normals, face=face)

    def on_meshes(self, hits: RayHits) -> Iterator[tuple[Mesh, NDArray[np.int64]]]:
        """The meshes and which of the hits are on each."""
        yield self.stage.mesh, np.flatnonzero(hits.what == STATIC)
        if self.mesh is not None:
            yield self.mesh, np.flatnonzero(hits.what == MOVING)

    def shadowed(
        self, points_m: NDArray[np.float32], to_sun: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Whether something stands between points and the sun."""
        rays = np.empty((len(points_m), 6), np.float32)
        rays[:, :3], rays[:, 3:] = points_m, to_sun
        tensor = _tensor(rays)
        dark: NDArray[np.bool_] = self.stage._scene.test_occlusions(tensor, nthreads=1).numpy()
        if self.mesh is not None:
            dark = dark | self._scene.test_occlusions(tensor, nthreads=1).numpy()
        return dark

    def classes(self, hits: RayHits) -> NDArray[np.uint8]:
        """Occ3D class of every hit; free for nothing."""
        out = np.full(len(hits.what), OCC3D_NUSCENES.free_id, np.uint8)
        ground = hits.what == GROUND
        p = hits.points_m[ground]
        out[ground] = self.stage.layout.ground(p[:, 0], p[:, 1]).classes
        for mesh, index in self.on_meshes(hits):
            out[index] = mesh.classes[hits.face[index]]
        return out
