"""From voxels to faces: only those a viewer can see.

Legend: F faces; X forward, Y left, Z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid

# Per direction (-X, +X, -Y, +Y, -Z, +Z): the four corners of that side of a unit cube, counter-
# clockwise seen from outside. The first two edges of a face meet at its first corner.
CORNERS = np.array(
    [
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[0, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 0]],
        [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]],
        [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
    ],
    np.float64,
)
_STEPS = CORNERS.astype(np.int64)
SHADES = np.array([0.74, 0.80, 0.66, 0.70, 0.50, 1.00])
_CHEQUER = 0.94
"""Neighbouring voxels differ a little in brightness, so that single voxels can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceMesh:
    """Faces of all shown voxels of one id. Corners are not shared: each face has its own shade.

    Attributes:
        id: class id, or confidence level, by what the caller grouped.
        corners_m: (F, 4, 3) float32, ego frame, counter-clockwise seen from outside.
        shades: (F,) float32 brightness 0..1.
    """

    id: int
    corners_m: NDArray[np.float32]
    shades: NDArray[np.float32]

    def face_colors(self, color: tuple[int, int, int]) -> NDArray[np.uint8]:
        """(F, 3) the color, shaded."""
        return (np.asarray(color, np.float32) * self.shades[:, None]).round().astype(np.uint8)


def surface_meshes(
    ids: NDArray[np.uint8], shown: NDArray[np.bool_], grid: VoxelGrid
) -> tuple[SurfaceMesh, ...]:
    """One mesh per id: the faces of shown voxels whose neighbour is not shown or outside.

    Args:
        ids: (X, Y, Z) uint8, the id of each voxel.
        shown: (X, Y, Z) bool.

    Returns:
        Meshes in ascending order of id; ids without a face are left out.

    Raises:
        ValueError: a shape is not the grid's.
    """
    _check(ids, shown, grid)
    dense, visible = np.ascontiguousarray(ids), np.ascontiguousarray(shown)
    open_sides, counts = _open_sides(dense, visible)
    corners = np.empty((int(counts.sum()), 4, 3), np.float32)
    shades = np.empty(len(corners), np.float32)
    ends = np.cumsum(counts).reshape(counts.shape)
    planes = [  # where the voxels of an axis begin and end
        (np.arange(n + 1) * size + low).astype(np.float32)
        for n, size, low in zip(grid.shape, grid.size_m, grid.min_m, strict=True)
    ]
    xs, ys, zs = planes
    _fill_faces(dense, open_sides, ends - counts, xs, ys, zs, corners, shades)
    return tuple(
        SurfaceMesh(id=int(i), corners_m=corners[start:end], shades=shades[start:end])
        for i in np.flatnonzero(counts.any(axis=1))
        for start, end in [(ends[i, 0] - counts[i, 0], ends[i, -1])]
    )


def _check(ids: NDArray[np.uint8], shown: NDArray[np.bool_], grid: VoxelGrid) -> None:
    if ids.shape != grid.shape or shown.shape != grid.shape:
        raise ValueError(f"ids {ids.shape} and shown {shown.shape}, the grid is {grid.shape}")


@compiled
def _open_sides(ids: Any, shown: Any) -> Any:
    """(X, Y, Z) uint8 bits of the directions in which a shown voxel can be seen, and (256, 6)
    int64 how many faces every id has in each."""
    nx, ny, nz = shown.shape
    sides, counts = np.zeros(shown.shape, np.uint8), np.zeros((256, 6), np.int64)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not shown[x, y, z]:
                    continue
                side = 0
                if x == 0 or not shown[x - 1, y, z]:
                    side |= 1
                if x == nx - 1 or not shown[x + 1, y, z]:
                    side |= 2
                if y == 0 or not shown[x, y - 1, z]:
                    side |= 4
                if y == ny - 1 or not shown[x, y + 1, z]:
                    side |= 8
                if z == 0 or not shown[x, y, z - 1]:
                    side |= 16
                if z == nz - 1 or not shown[x, y, z + 1]:
                    side |= 32
                if side:
                    sides[x, y, z] = side
                    for direction in range(6):
                        counts[ids[x, y, z], direction] += (side >> direction) & 1
    return sides, counts


@compiled
def _fill_faces(
    ids: Any, sides: Any, places: Any, xs: Any, ys: Any, zs: Any, corners: Any, shades: Any
) -> None:
    """Write every face to the next of the places of its id and direction."""
    nx, ny, nz = sides.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                side = sides[x, y, z]
                if side == 0:
                    continue
                chequer = 1.0 if (x + y + z) % 2 == 0 else _CHEQUER
                for direction in range(6):
                    if not (side >> direction) & 1:
                        continue
                    i = ids[x, y, z]
                    f = places[i, direction]
                    places[i, direction] = f + 1
                    shades[f] = SHADES[direction] * chequer
                    for c in range(4):
                        corners[f, c, 0] = xs[x + _STEPS[direction, c, 0]]
                        corners[f, c, 1] = ys[y + _STEPS[direction, c, 1]]
                        corners[f, c, 2] = zs[z + _STEPS[direction, c, 2]]
