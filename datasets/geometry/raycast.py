"""Voxel traversal: hits and passes of LiDAR rays, camera visibility, first hits.

Traversal after Amanatides and Woo, "A fast voxel traversal algorithm for ray tracing" (1987).
The steps of a ray with a known end are counted beforehand, so that it always ends in the voxel that
``VoxelGrid.indices`` gives for its end, whatever the rounding on the way. Of equally near faces a
ray crosses z before y before x, the order that the published RayIoU follows.

Legend: R rays, X Y Z voxels of the grid. Grids are indexed [x, y, z]. One thread where counters
are shared between rays: the result must not depend on scheduling.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.compiled import compiled
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


@compiled
def _slab(o: float, d: float, n: int, enter: float, leave: float) -> tuple[float, float]:
    """Narrow the part of a ray that is in the grid by one axis; enter > leave: nothing is left."""
    if d == 0.0:
        if o < 0.0 or o >= n:
            return _FAR, 0.0
        return enter, leave
    a, b = -o / d, (n - o) / d
    if a > b:
        a, b = b, a
    return max(enter, a), min(leave, b)


@compiled
def _axis(o: float, d: float, t: float, n: int) -> tuple[int, int, float, float]:
    """Walk along one axis from parameter t: cell, step, t of the next face, t between faces."""
    cell = min(max(int(np.floor(o + t * d)), 0), n - 1)
    if d > 0.0:
        return cell, 1, (cell + 1 - o) / d, 1.0 / d
    if d < 0.0:
        return cell, -1, (cell - o) / d, -1.0 / d
    return cell, 0, _FAR, _FAR


@compiled
def _evidence(origins: Any, ends: Any, hits: Any, passes: Any) -> None:
    nx, ny, nz = hits.shape
    for r in range(ends.shape[0]):
        q = r % origins.shape[0]
        ox, oy, oz = origins[q, 0], origins[q, 1], origins[q, 2]
        ex, ey, ez = ends[r, 0], ends[r, 1], ends[r, 2]
        dx, dy, dz = ex - ox, ey - oy, ez - oz
        lx, ly, lz = int(np.floor(ex)), int(np.floor(ey)), int(np.floor(ez))
        inside = 0 <= lx < nx and 0 <= ly < ny and 0 <= lz < nz
        enter, leave = _slab(ox, dx, nx, 0.0, _FAR)
        enter, leave = _slab(oy, dy, ny, enter, leave)
        enter, leave = _slab(oz, dz, nz, enter, leave)
        if inside:
            enter = min(enter, 1.0)
        elif enter > leave or enter >= 1.0:
            continue
        x, step_x, tx, dtx = _axis(ox, dx, enter, nx)
        y, step_y, ty, dty = _axis(oy, dy, enter, ny)
        z, step_z, tz, dtz = _axis(oz, dz, enter, nz)
        # steps left on each axis; an axis that is done is never the nearest again
        cx, cy, cz = (lx - x) * step_x, (ly - y) * step_y, (lz - z) * step_z
        if cx <= 0:
            cx, tx = 0, _FAR
        if cy <= 0:
            cy, ty = 0, _FAR
        if cz <= 0:
            cz, tz = 0, _FAR
        if inside:  # an entry point rounded past a face next to the end
            x = lx if cx == 0 else x
            y = ly if cy == 0 else y
            z = lz if cz == 0 else z
        left = cx + cy + cz
        while left > 0:
            if passes[x, y, z] < 255:
                passes[x, y, z] += 1
            left -= 1
            if tx < ty and tx < tz:
                x += step_x
                cx -= 1
                tx = tx + dtx if cx > 0 else _FAR
                if x < 0 or x >= nx:
                    left = -1
            elif ty < tz:
                y += step_y
                cy -= 1
                ty = ty + dty if cy > 0 else _FAR
                if y < 0 or y >= ny:
                    left = -1
            else:
                z += step_z
                cz -= 1
                tz = tz + dtz if cz > 0 else _FAR
                if z < 0 or z >= nz:
                    left = -1
        if inside:
            if hits[lx, ly, lz] < 255:
                hits[lx, ly, lz] += 1
        elif left == 0 and passes[x, y, z] < 255:
            passes[x, y, z] += 1


def lidar_evidence(
    origins_m: NDArray[Any],  # (R, 3) or (3,)
    ends_m: NDArray[Any],  # (R, 3)
    grid: VoxelGrid,
    *,
    onto: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Count what LiDAR rays say about each voxel.

    Args:
        origins_m: sensor position of every ray, or one for all; metres in the grid's frame.
        ends_m: the returns.
        onto: hits and passes of earlier rays, which are counted on in place.

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
    hits, passes = onto or (np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8))
    if not hits.shape == passes.shape == grid.shape:
        raise ValueError(f"counts have shapes {hits.shape}, {passes.shape}, the grid {grid.shape}")
    if len(ends):
        _evidence(np.ascontiguousarray(origins), np.ascontiguousarray(ends), hits, passes)
    return hits, passes


@compiled
def _march(occupied: Any, origins: Any, directions: Any, visible: Any) -> None:
    nx, ny, nz = occupied.shape
    for r in range(directions.shape[0]):
        q = r % origins.shape[0]
        ox, oy, oz = origins[q, 0], origins[q, 1], origins[q, 2]
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        enter, leave = _slab(ox, dx, nx, 0.0, _FAR)
        enter, leave = _slab(oy, dy, ny, enter, leave)
        enter, leave = _slab(oz, dz, nz, enter, leave)
        if enter > leave:
            continue
        x, step_x, tx, dtx = _axis(ox, dx, enter, nx)
        y, step_y, ty, dty = _axis(oy, dy, enter, ny)
        z, step_z, tz, dtz = _axis(oz, dz, enter, nz)
        visible[x, y, z] = True
        if step_x == 0 and step_y == 0 and step_z == 0:
            continue
        if enter > 0.0 and occupied[x, y, z]:
            continue
        while True:
            if tx < ty and tx < tz:
                x += step_x
                tx += dtx
                if x < 0 or x >= nx:
                    break
            elif ty < tz:
                y += step_y
                ty += dty
                if y < 0 or y >= ny:
                    break
            else:
                z += step_z
                tz += dtz
                if z < 0 or z >= nz:
                    break
            visible[x, y, z] = True
            if occupied[x, y, z]:
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


@compiled
def _first_hits(occupied: Any, origins: Any, directions: Any, cells: Any, leaves: Any) -> None:
    nx, ny, nz = occupied.shape
    for r in range(directions.shape[0]):
        q = r % origins.shape[0]
        ox, oy, oz = origins[q, 0], origins[q, 1], origins[q, 2]
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        enter, leave = _slab(ox, dx, nx, 0.0, _FAR)
        enter, leave = _slab(oy, dy, ny, enter, leave)
        enter, leave = _slab(oz, dz, nz, enter, leave)
        if enter > leave:
            continue
        x, step_x, tx, dtx = _axis(ox, dx, enter, nx)
        y, step_y, ty, dty = _axis(oy, dy, enter, ny)
        z, step_z, tz, dtz = _axis(oz, dz, enter, nz)
        inside = True
        while inside:
            cells[r, 0], cells[r, 1], cells[r, 2] = x, y, z
            hit = occupied[x, y, z]
            if tx < ty and tx < tz:
                leaves[r] = tx
                x += step_x
                tx += dtx
                inside = 0 <= x < nx
            elif ty < tz:
                leaves[r] = ty
                y += step_y
                ty += dty
                inside = 0 <= y < ny
            else:
                leaves[r] = tz
                z += step_z
                tz += dtz
                inside = 0 <= z < nz
            if hit:
                break


def first_hits(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    origins: NDArray[np.float64],  # (R, 3) or (3,)
    directions: NDArray[np.float64],  # (R, 3)
    *,
    threads: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The voxel in which each ray ends: the first occupied one, or else the last of the grid.

    The voxel that holds a ray's origin counts, even where the ray leaves it at once. Unlike above,
    coordinates are cells (``VoxelGrid.cells``), so that a caller decides on their rounding.

    Args:
        threads: the rays are shared among so many; the result is the same.

    Returns:
        Indices of those voxels, (R, 3) int64, and where the rays leave them: (R,) float64, in
        lengths of the direction. -1 and inf for a ray that never meets the grid.

    Raises:
        ValueError: shapes do not fit, a value is not finite or a direction is zero.
    """
    starts = np.ascontiguousarray(np.atleast_2d(origins), np.float64)
    rays = np.ascontiguousarray(directions, np.float64)
    if rays.ndim != 2 or rays.shape[1:] != (3,) or starts.shape not in ((1, 3), rays.shape):
        raise ValueError(f"shapes do not fit: {np.shape(origins)} and {np.shape(directions)}")
    if not (np.isfinite(starts).all() and np.isfinite(rays).all() and rays.any(axis=1).all()):
        raise ValueError("an origin or a direction is not finite, or a direction is zero")
    cells, leaves = np.full(rays.shape, -1, np.int64), np.full(len(rays), np.inf)
    if not len(rays):
        return cells, leaves
    grid = np.ascontiguousarray(occupied)

    def cast(part: slice) -> None:
        own = starts if len(starts) == 1 else starts[part]
        _first_hits(grid, own, rays[part], cells[part], leaves[part])

    size = -(-len(rays) // threads)
    parts = [slice(i, i + size) for i in range(0, len(rays), size)]
    if threads == 1:
        cast(parts[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(cast, parts))
    return cells, leaves


def first_hits_plain(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    origins: NDArray[np.float64],  # (R, 3)
    directions: NDArray[np.float64],  # (R, 3)
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Twin of ``first_hits`` in plain numpy, for rays that start inside the grid: all rays in step.

    Slow; what the fast one is checked against.
    """
    cells, leaves = np.empty(directions.shape, np.int64), np.empty(len(directions))
    cell, step = np.floor(origins).astype(np.int64), np.sign(directions).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(step == 0, np.inf, (cell + (step > 0) - origins) / directions)
        dt = np.abs(1 / directions)
    rays = np.arange(len(directions))
    while len(rays):
        x, y, z = cell[rays].T
        tx, ty, tz = t[rays].T
        axis = np.where((tx < ty) & (tx < tz), 0, np.where(ty < tz, 1, 2))
        cells[rays], leaves[rays] = cell[rays], t[rays, axis]
        cell[rays, axis] += step[rays, axis]
        t[rays, axis] += dt[rays, axis]
        inside = ((cell[rays] >= 0) & (cell[rays] < occupied.shape)).all(axis=1)
        rays = rays[inside & ~occupied[x, y, z]]
    return cells, leaves


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


@compiled
def _is_clear(
    occupied: Any, ox: float, oy: float, oz: float, px: float, py: float, pz: float
) -> bool:
    """Whether the line from o to p (cells) meets no occupied voxel but the first and the last."""
    nx, ny, nz = occupied.shape
    dx, dy, dz = px - ox, py - oy, pz - oz
    enter, leave = _slab(ox, dx, nx, 0.0, _FAR)
    enter, leave = _slab(oy, dy, ny, enter, leave)
    enter, leave = _slab(oz, dz, nz, enter, leave)
    start = min(enter, 1.0)
    x, step_x, tx, dtx = _axis(ox, dx, start, nx)
    y, step_y, ty, dty = _axis(oy, dy, start, ny)
    z, step_z, tz, dtz = _axis(oz, dz, start, nz)
    cx, cy, cz = (int(px) - x) * step_x, (int(py) - y) * step_y, (int(pz) - z) * step_z
    if cx <= 0:
        cx, tx = 0, _FAR
    if cy <= 0:
        cy, ty = 0, _FAR
    if cz <= 0:
        cz, tz = 0, _FAR
    left = cx + cy + cz
    at_home = start == 0.0
    while left > 0:
        if occupied[x, y, z] and not at_home:
            return False
        at_home = False
        left -= 1
        if tx < ty and tx < tz:
            x += step_x
            cx -= 1
            tx = tx + dtx if cx > 0 else _FAR
        elif ty < tz:
            y += step_y
            cy -= 1
            ty = ty + dty if cy > 0 else _FAR
        else:
            z += step_z
            cz -= 1
            tz = tz + dtz if cz > 0 else _FAR
    return True


@compiled
def _faces_to(cell: int, o: float) -> float:
    """Where the face of a cell that looks to coordinate o lies, just within; -1 for none."""
    if o < cell:
        return cell + 1e-3
    if o > cell + 1:
        return cell + 1 - 1e-3
    return -1.0


@compiled
def _lets_in(occupied: Any, x: int, y: int, z: int, eye: tuple[int, int, int]) -> bool:
    """Whether a line from voxel ``eye`` can have come through (x, y, z), its last but one."""
    nx, ny, nz = occupied.shape
    if x < 0 or x >= nx or y < 0 or y >= ny or z < 0 or z >= nz:
        return True
    return not occupied[x, y, z] or (x == eye[0] and y == eye[1] and z == eye[2])


@compiled
def _is_walled(occupied: Any, x: int, y: int, z: int, eye: tuple[int, int, int]) -> bool:
    """Whether no line from voxel ``eye`` can reach (x, y, z): all that lie before it are occupied.

    Spares the walk to most voxels, which lie inside of things.
    """
    dx, dy, dz = np.sign(eye[0] - x), np.sign(eye[1] - y), np.sign(eye[2] - z)
    return not (
        (dx == 0 and dy == 0 and dz == 0)
        or (dx != 0 and _lets_in(occupied, x + dx, y, z, eye))
        or (dy != 0 and _lets_in(occupied, x, y + dy, z, eye))
        or (dz != 0 and _lets_in(occupied, x, y, z + dz, eye))
    )


@compiled
def _picture_sides(P: Any, width: int, height: int) -> Any:
    """Five planes (5, 4): below 0 at the centre of a voxel of which no point is in the picture."""
    sides = np.empty((5, 4))
    sides[0], sides[1], sides[2] = P[2], P[0], P[1]
    sides[3], sides[4] = width * P[2] - P[0], height * P[2] - P[1]
    for s in range(5):
        reach = np.abs(sides[s, :3]).sum() * 0.5
        sides[s, 3] += reach + 1e-6 * (1.0 + reach)  # the rounding of either way
    return sides


@compiled
def _is_beside(sides: Any, x: float, y: float, z: float) -> bool:
    for s in range(5):
        if sides[s, 0] * x + sides[s, 1] * y + sides[s, 2] * z + sides[s, 3] < 0.0:
            return True
    return False


@compiled
def _reach(occupied: Any, origin: Any, P: Any, width: int, height: int, visible: Any) -> None:
    """Mark each occupied voxel that one camera reaches. ``P`` (3, 4): cells to pixels."""
    nx, ny, nz = occupied.shape
    ox, oy, oz = origin[0], origin[1], origin[2]
    eye = int(np.floor(ox)), int(np.floor(oy)), int(np.floor(oz))
    sides = _picture_sides(P, width, height)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if not occupied[i, j, k] or visible[i, j, k]:
                    continue
                if _is_beside(sides, i + 0.5, j + 0.5, k + 0.5):
                    continue
                if _is_walled(occupied, i, j, k, eye):
                    continue
                for point in range(4):  # the centre, then the faces that look to the camera
                    x, y, z = i + 0.5, j + 0.5, k + 0.5
                    if point == 1:
                        x = _faces_to(i, ox)
                    elif point == 2:
                        y = _faces_to(j, oy)
                    elif point == 3:
                        z = _faces_to(k, oz)
                    if x < 0.0 or y < 0.0 or z < 0.0:
                        continue
                    depth = P[2, 0] * x + P[2, 1] * y + P[2, 2] * z + P[2, 3]
                    if depth < 1e-3:
                        continue
                    u = (P[0, 0] * x + P[0, 1] * y + P[0, 2] * z + P[0, 3]) / depth
                    v = (P[1, 0] * x + P[1, 1] * y + P[1, 2] * z + P[1, 3]) / depth
                    if u < 0 or u >= width or v < 0 or v >= height:
                        continue
                    if _is_clear(occupied, ox, oy, oz, x, y, z):
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
