"""Voxel traversal: what LiDAR rays hit and pass, and what cameras can see.

Traversal after Amanatides and Woo, "A fast voxel traversal algorithm for ray tracing" (1987).
The steps along each axis are counted beforehand, so that a ray always ends in the voxel that
``VoxelGrid.indices`` gives for its end, whatever the rounding on the way.

Legend: R rays, X Y Z voxels of the grid. Grids are indexed [x, y, z]. One thread: the counters
are shared between rays, and the result must not depend on scheduling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform

_FAR = 1e30


class PinholeView(Protocol):
    """What visibility needs of a camera (``CameraView`` has it)."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def intrinsics(self) -> NDArray[np.float64]: ...
    @property
    def T_ego_camera(self) -> Transform: ...  # noqa: N802


@numba.njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _clip(o: Any, d: Any, shape: Any) -> tuple[float, float]:
    """Parameters at which ``o + t d`` (cells) enters and leaves the grid; enter > leave: never."""
    enter, leave = 0.0, _FAR
    for a in range(3):
        if d[a] == 0.0:
            if o[a] < 0.0 or o[a] >= shape[a]:
                return 1.0, 0.0
            continue
        t0 = (0.0 - o[a]) / d[a]
        t1 = (shape[a] - o[a]) / d[a]
        if t0 > t1:
            t0, t1 = t1, t0
        enter = max(enter, t0)
        leave = min(leave, t1)
    return enter, leave


@numba.njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _start(
    o: Any, d: Any, t: float, shape: Any, cell: Any, step: Any, t_next: Any, dt: Any
) -> None:
    """Set up the walk at parameter ``t``: voxel, direction and the next crossing of each axis."""
    for a in range(3):
        cell[a] = min(max(int(np.floor(o[a] + t * d[a])), 0), shape[a] - 1)
        if d[a] > 0.0:
            step[a], dt[a], t_next[a] = 1, 1.0 / d[a], (cell[a] + 1 - o[a]) / d[a]
        elif d[a] < 0.0:
            step[a], dt[a], t_next[a] = -1, -1.0 / d[a], (cell[a] - o[a]) / d[a]
        else:
            step[a], dt[a], t_next[a] = 0, _FAR, _FAR


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _evidence(origins: Any, ends: Any, hits: Any, passes: Any) -> None:
    shape = np.array(hits.shape)
    cell, step, left = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    last = np.zeros(3, np.int64)
    t_next, dt, d = np.zeros(3), np.zeros(3), np.zeros(3)
    for r in range(ends.shape[0]):
        o, e = origins[r % origins.shape[0]], ends[r]
        inside = True
        for a in range(3):
            d[a] = e[a] - o[a]
            last[a] = int(np.floor(e[a]))
            if last[a] < 0 or last[a] >= shape[a]:
                inside = False
        enter, leave = _clip(o, d, shape)
        if not inside and (enter > leave or enter >= 1.0):
            continue
        if inside:
            enter = min(enter, 1.0)
        _start(o, d, enter, shape, cell, step, t_next, dt)
        total = 0
        for a in range(3):
            left[a] = max((last[a] - cell[a]) * step[a], 0)
            if inside and left[a] == 0:
                cell[a] = last[a]  # an entry point rounded past a face next to the end
            total += left[a]
        while total > 0:
            n = passes[cell[0], cell[1], cell[2]]
            if n < 255:
                passes[cell[0], cell[1], cell[2]] = n + 1
            axis = -1
            for a in range(3):
                if left[a] > 0 and (axis < 0 or t_next[a] < t_next[axis]):
                    axis = a
            cell[axis] += step[axis]
            t_next[axis] += dt[axis]
            left[axis] -= 1
            total -= 1
            if cell[axis] < 0 or cell[axis] >= shape[axis]:
                total = -1
        if inside:
            n = hits[last[0], last[1], last[2]]
            if n < 255:
                hits[last[0], last[1], last[2]] = n + 1
        elif total == 0:
            n = passes[cell[0], cell[1], cell[2]]
            if n < 255:
                passes[cell[0], cell[1], cell[2]] = n + 1


def lidar_evidence(
    origins_m: NDArray[Any],  # (R, 3) or (3,)
    ends_m: NDArray[Any],  # (R, 3)
    grid: VoxelGrid,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Count what LiDAR rays say about each voxel.

    Args:
        origins_m: sensor position of every ray, or one for all; metres in the grid's frame.
        ends_m: the returns.

    Returns:
        ``hits`` and ``passes``, both (X, Y, Z) uint8 that stay at 255 once they reach it. A hit is
        the voxel in which a return ends; passes are the voxels its ray crosses before that one.
        Rays that start outside the grid count from where they enter it; returns that end outside
        the grid count as passes up to where they leave it.

    Raises:
        ValueError: shapes do not fit or a coordinate is not finite.
    """
    origins = np.atleast_2d(grid.cells(origins_m))
    ends = grid.cells(ends_m)
    if ends.ndim != 2 or ends.shape[1:] != (3,):
        raise ValueError(f"ends_m has shape {ends.shape}, not (R, 3)")
    if origins.shape not in ((1, 3), ends.shape):
        raise ValueError(f"origins_m has shape {np.shape(origins_m)} for {len(ends)} rays")
    if not (np.isfinite(origins).all() and np.isfinite(ends).all()):
        raise ValueError("a ray's origin or end is not finite")
    hits, passes = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    if len(ends):
        _evidence(np.ascontiguousarray(origins), np.ascontiguousarray(ends), hits, passes)
    return hits, passes


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _march(occupied: Any, origins: Any, directions: Any, visible: Any) -> None:
    shape = np.array(occupied.shape)
    cell, step = np.zeros(3, np.int64), np.zeros(3, np.int64)
    t_next, dt = np.zeros(3), np.zeros(3)
    for r in range(directions.shape[0]):
        o, d = origins[r % origins.shape[0]], directions[r]
        enter, leave = _clip(o, d, shape)
        if enter > leave:
            continue
        _start(o, d, enter, shape, cell, step, t_next, dt)
        first = enter == 0.0
        while True:
            visible[cell[0], cell[1], cell[2]] = True
            if occupied[cell[0], cell[1], cell[2]] and not first:
                break
            first = False
            axis = 0
            if t_next[1] < t_next[axis]:
                axis = 1
            if t_next[2] < t_next[axis]:
                axis = 2
            if step[axis] == 0:
                break
            cell[axis] += step[axis]
            t_next[axis] += dt[axis]
            if cell[axis] < 0 or cell[axis] >= shape[axis]:
                break


def camera_visible(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    grid: VoxelGrid,
    origins_m: NDArray[Any],  # (R, 3) or (3,)
    directions: NDArray[Any],  # (R, 3), any length
) -> NDArray[np.bool_]:
    """Voxels that rays see: every free voxel up to the first occupied one, and that one.

    The voxel that holds a ray's origin never blocks it.

    Returns:
        (X, Y, Z) bool.

    Raises:
        ValueError: shapes do not fit or a value is not finite.
    """
    visible = np.zeros(grid.shape, np.bool_)
    if occupied.shape != grid.shape:
        raise ValueError(f"occupied has shape {occupied.shape}, the grid {grid.shape}")
    origins = np.atleast_2d(grid.cells(origins_m))
    steps = np.asarray(directions, np.float64) / np.asarray(grid.size_m)
    if steps.ndim != 2 or steps.shape[1:] != (3,) or origins.shape not in ((1, 3), steps.shape):
        raise ValueError(f"shapes do not fit: {np.shape(origins_m)} and {np.shape(directions)}")
    if not (np.isfinite(origins).all() and np.isfinite(steps).all()):
        raise ValueError("a ray's origin or direction is not finite")
    if len(steps):
        _march(np.ascontiguousarray(occupied), np.ascontiguousarray(origins), steps, visible)
    return visible


def pixel_directions(view: PinholeView, *, stride: int = 1) -> NDArray[np.float64]:
    """Ray directions of a picture's pixels in the ego frame.

    Returns:
        (ceil(H / stride) * ceil(W / stride), 3) float64, through pixel centres, of unit depth.
    """
    u, v = np.meshgrid(
        np.arange(0, view.width, stride) + 0.5, np.arange(0, view.height, stride) + 0.5
    )
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1)
    rays: NDArray[np.float64] = pixels @ np.linalg.inv(view.intrinsics).T
    return np.asarray(rays @ view.T_ego_camera[:3, :3].T)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _reach(occupied: Any, origin: Any, P: Any, width: int, height: int, visible: Any) -> None:
    """Mark each occupied voxel that one camera reaches. ``P`` (3, 4): cells to pixels."""
    shape = np.array(occupied.shape)
    cell, step, left = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    t_next, dt, d, at = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    target, home = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for a in range(3):
        home[a] = int(np.floor(origin[a]))
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                if not occupied[i, j, k] or visible[i, j, k]:
                    continue
                target[0], target[1], target[2] = i, j, k
                for point in range(4):  # the centre, then the faces that look to the camera
                    for a in range(3):
                        at[a] = target[a] + 0.5
                    if point > 0:
                        a = point - 1
                        if origin[a] < target[a]:
                            at[a] = target[a] + 1e-3
                        elif origin[a] > target[a] + 1:
                            at[a] = target[a] + 1 - 1e-3
                        else:
                            continue
                    depth = P[2, 0] * at[0] + P[2, 1] * at[1] + P[2, 2] * at[2] + P[2, 3]
                    if depth < 1e-3:
                        continue
                    u = (P[0, 0] * at[0] + P[0, 1] * at[1] + P[0, 2] * at[2] + P[0, 3]) / depth
                    v = (P[1, 0] * at[0] + P[1, 1] * at[1] + P[1, 2] * at[2] + P[1, 3]) / depth
                    if u < 0 or u >= width or v < 0 or v >= height:
                        continue
                    for a in range(3):
                        d[a] = at[a] - origin[a]
                    enter, _ = _clip(origin, d, shape)
                    _start(origin, d, min(enter, 1.0), shape, cell, step, t_next, dt)
                    total = 0
                    for a in range(3):
                        left[a] = max((target[a] - cell[a]) * step[a], 0)
                        total += left[a]
                    free = True
                    while total > 0 and free:
                        if occupied[cell[0], cell[1], cell[2]]:
                            free = cell[0] == home[0] and cell[1] == home[1] and cell[2] == home[2]
                        axis = -1
                        for a in range(3):
                            if left[a] > 0 and (axis < 0 or t_next[a] < t_next[axis]):
                                axis = a
                        cell[axis] += step[axis]
                        t_next[axis] += dt[axis]
                        left[axis] -= 1
                        total -= 1
                    if free:
                        visible[i, j, k] = True
                        break


def visible_from_cameras(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    grid: VoxelGrid,
    views: Iterable[PinholeView],
    *,
    stride: int = 1,
) -> NDArray[np.bool_]:
    """Voxels that at least one camera sees through the given occupancy.

    A voxel is visible when (1) a ray through the centre of every ``stride``-th pixel crosses it
    before the first occupied voxel, or is stopped by it; or (2) it is occupied and its centre, or
    the centre of a face that looks to the camera, projects into the picture and the straight line
    from the camera to that point meets no other occupied voxel. Rule 2 is there because pixel rays
    alone are too sparse over distant ground: they keep the free space above it and lose the
    surface.

    Returns:
        (X, Y, Z) bool.

    Raises:
        ValueError: ``occupied`` is not of the grid's shape, or a pose is not finite.
    """
    visible = np.zeros(grid.shape, np.bool_)
    T_ego_cell = np.diag([*grid.size_m, 1.0])
    T_ego_cell[:3, 3] = grid.min_m
    for view in views:
        origin_m = view.T_ego_camera[:3, 3]
        visible |= camera_visible(occupied, grid, origin_m, pixel_directions(view, stride=stride))
        P = view.intrinsics @ (np.linalg.inv(view.T_ego_camera) @ T_ego_cell)[:3]
        origin = grid.cells(origin_m)
        _reach(
            np.ascontiguousarray(occupied),
            origin,
            np.ascontiguousarray(P),
            view.width,
            view.height,
            visible,
        )
    return visible
