"""Plain numpy twins of the traversals in ``raycast``: all rays take a step together.

They say what the fast kernels must say, voxel for voxel, and what those save.

Legend: R rays, X Y Z voxels. Coordinates of the inner functions are cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import PinholeView, pixel_directions

_FAR = 1e30
Cells = NDArray[np.float64]


class _Walk:
    """R rays inside a grid of cells, each at its own voxel.

    Attributes:
        enter, leave: (R,) where the ray meets the grid; it does where ``enter <= leave``.
        at: (R, 3) int64 voxel, once ``start`` was called.
    """

    def __init__(self, origins: Cells, directions: Cells, shape: tuple[int, ...]) -> None:
        self.o, self.d, self.n = np.broadcast_to(origins, directions.shape), directions, shape
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = -self.o / self.d, (np.asarray(shape) - self.o) / self.d
        near, far = np.minimum(a, b), np.maximum(a, b)
        parallel = self.d == 0
        beside = parallel & ((self.o < 0) | (self.o >= shape))
        near[parallel], far[parallel] = 0.0, _FAR
        near[beside], far[beside] = _FAR, 0.0
        self.enter, self.leave = near.max(axis=1).clip(min=0), far.min(axis=1)

    def start(self, t: NDArray[np.float64]) -> None:
        """Go to the voxels at ray parameter t, (R,)."""
        self.at = np.floor(self.o + t[:, None] * self.d).astype(np.int64)
        self.at = self.at.clip(0, np.asarray(self.n) - 1)
        self.step = np.sign(self.d).astype(np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.next = np.where(self.d > 0, self.at + 1 - self.o, self.at - self.o) / self.d
            self.between = 1 / np.abs(self.d)
        self.next[self.d == 0] = self.between[self.d == 0] = _FAR

    def count_to(self, last: NDArray[np.int64]) -> NDArray[np.int64]:
        """Steps (R, 3) to the voxels ``last``; an axis that is done is never taken again."""
        self.steps = ((last - self.at) * self.step).clip(min=0)
        self.next[self.steps == 0] = _FAR
        return self.steps

    def advance(self, rays: NDArray[np.int64], *, counted: bool) -> NDArray[np.bool_]:
        """Take some rays to their next voxel; which of them are still in the grid."""
        t = self.next[rays]
        axis = np.where(t[:, 1] < t[:, 2], 1, 2)
        axis[(t[:, 0] < t[:, 1]) & (t[:, 0] < t[:, 2])] = 0
        self.at[rays, axis] += self.step[rays, axis]
        self.next[rays, axis] += self.between[rays, axis]
        if counted:
            self.steps[rays, axis] -= 1
            done = self.steps[rays, axis] <= 0
            self.next[rays[done], axis[done]] = _FAR
        cell = self.at[rays, axis]
        return np.asarray((cell >= 0) & (cell < np.asarray(self.n)[axis]))


def lidar_evidence(
    origins_m: NDArray[Any],  # (R, 3) or (3,)
    ends_m: NDArray[Any],  # (R, 3)
    grid: VoxelGrid,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Hits and passes as ``raycast.lidar_evidence`` counts them, (X, Y, Z) uint8 each."""
    origins, ends = np.atleast_2d(grid.cells(origins_m)), grid.cells(ends_m)
    last = np.floor(ends).astype(np.int64)
    inside = ((last >= 0) & (last < grid.shape)).all(axis=1)
    walk = _Walk(origins, ends - origins, grid.shape)
    reached = inside | ((walk.enter <= walk.leave) & (walk.enter < 1))
    walk.start(np.where(reached, np.minimum(walk.enter, 1), 0))
    left = walk.count_to(last)
    walk.at = np.where(inside[:, None] & (left == 0), last, walk.at)
    passes = np.zeros(grid.n_voxels, np.int64)
    rays = np.flatnonzero(reached)
    while len(rays):
        going = walk.steps[rays].sum(axis=1) > 0
        # a ray that ends outside leaves the grid and is dropped below, or ends here
        passing = rays[going | ~inside[rays]]
        passes += np.bincount(grid.flat(walk.at[passing]), minlength=grid.n_voxels)
        rays = rays[going]
        rays = rays[walk.advance(rays, counted=True)]
    hits = np.bincount(grid.flat(last[inside]), minlength=grid.n_voxels)
    counts = [np.minimum(c, 255).astype(np.uint8).reshape(grid.shape) for c in (hits, passes)]
    return counts[0], counts[1]


def visible_from_cameras(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    grid: VoxelGrid,
    views: Iterable[PinholeView],
    *,
    stride: int = 1,
) -> NDArray[np.bool_]:
    """Voxels that a camera sees, by both rules of ``raycast.visible_from_cameras``: (X, Y, Z)."""
    visible = np.zeros(grid.shape, np.bool_)
    T_ego_cell = np.diag([*grid.size_m, 1.0])
    T_ego_cell[:3, 3] = grid.min_m
    for view in views:
        origin = grid.cells(view.T_ego_camera[:3, 3])
        directions = pixel_directions(view, stride=stride) / np.asarray(grid.size_m)
        visible |= _seen_by_rays(occupied, origin, directions)
        P = view.intrinsics @ (np.linalg.inv(view.T_ego_camera) @ T_ego_cell)[:3]
        visible |= _seen_by_voxel(occupied, origin, P, view)
    return visible


def _seen_by_rays(
    occupied: NDArray[np.bool_], origin: Cells, directions: Cells
) -> NDArray[np.bool_]:
    visible = np.zeros(occupied.shape, np.bool_)
    walk = _Walk(origin[None], directions, occupied.shape)
    walk.start(walk.enter * (walk.enter <= walk.leave))
    rays, first = np.flatnonzero(walk.enter <= walk.leave), True
    while len(rays):
        cell = tuple(walk.at[rays].T)
        visible[cell] = True
        # the voxel that holds the camera never blocks it
        rays = rays[~occupied[cell] | (first & (walk.enter[rays] == 0))]
        rays, first = rays[walk.advance(rays, counted=False)], False
    return visible


def _seen_by_voxel(
    occupied: NDArray[np.bool_], origin: Cells, P: NDArray[np.float64], view: PinholeView
) -> NDArray[np.bool_]:
    visible = np.zeros(occupied.shape, np.bool_)
    voxels = np.argwhere(occupied)
    # the face of each axis that looks to the camera, just within; -1 for none
    faces = np.where(origin < voxels, voxels + 1e-3, -1.0)
    faces = np.where(origin > voxels + 1, voxels + 1 - 1e-3, faces)
    for axis in (None, 0, 1, 2):
        points = voxels + 0.5
        if axis is not None:
            points[:, axis] = faces[:, axis]
        with np.errstate(divide="ignore", invalid="ignore"):
            uvd = points @ P[:, :3].T + P[:, 3]
            u, v = uvd[:, 0] / uvd[:, 2], uvd[:, 1] / uvd[:, 2]
        shown = (points >= 0).all(axis=1) & (uvd[:, 2] >= 1e-3)
        shown &= (u >= 0) & (u < view.width) & (v >= 0) & (v < view.height)
        walk = _Walk(origin[None], points[shown] - origin, occupied.shape)
        walk.start(np.minimum(walk.enter, 1))
        walk.count_to(points[shown].astype(np.int64))
        clear = np.ones(shown.sum(), bool)
        rays, at_home = np.arange(shown.sum()), walk.enter == 0
        while len(rays := rays[walk.steps[rays].sum(axis=1) > 0]):
            blocked = occupied[tuple(walk.at[rays].T)] & ~at_home[rays]
            clear[rays[blocked]] = False
            at_home[:] = False
            rays = rays[~blocked]
            rays = rays[walk.advance(rays, counted=True)]
        visible[tuple(voxels[shown][clear].T)] = True
    return visible
