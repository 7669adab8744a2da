"""From voxels to faces: only those a viewer can see.

Legend: F faces; X forward, Y left, Z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid

# Per direction (-X, +X, -Y, +Y, -Z, +Z): the four corners of that side of a unit cube, counter-
# clockwise seen from outside. The first two edges of a face meet at its first corner.
_CORNERS = np.array(
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
_SHADES = np.array([0.74, 0.80, 0.66, 0.70, 0.50, 1.00])
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

    def face_colours(self, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
        """(F, 3) the colour, shaded."""
        return (np.asarray(colour, np.float32) * self.shades[:, None]).round().astype(np.uint8)


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
    if ids.shape != grid.shape or shown.shape != grid.shape:
        raise ValueError(f"ids {ids.shape} and shown {shown.shape}, the grid is {grid.shape}")
    padded = np.pad(shown, 1)
    voxels, directions = [], []
    for direction in range(6):
        axis, step = direction // 2, 2 * (direction % 2) - 1
        neighbour = np.roll(padded, -step, axis=axis)[1:-1, 1:-1, 1:-1]
        found = np.argwhere(shown & ~neighbour)
        voxels.append(found)
        directions.append(np.full(len(found), direction))
    voxel, direction_of = np.concatenate(voxels), np.concatenate(directions)
    id_of = ids[tuple(voxel.T)]
    cells = voxel[:, None, :] + _CORNERS[direction_of]
    corners = (cells * np.asarray(grid.size_m) + np.asarray(grid.min_m)).astype(np.float32)
    chequer = np.where(voxel.sum(axis=1) % 2 == 0, 1.0, _CHEQUER)
    shades = (_SHADES[direction_of] * chequer).astype(np.float32)
    return tuple(
        SurfaceMesh(id=int(i), corners_m=corners[id_of == i], shades=shades[id_of == i])
        for i in np.unique(id_of)
    )
