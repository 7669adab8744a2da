"""Faces of voxels put together into rectangles as large as one color reaches: a tenth of the
triangles, which is what a software renderer's time goes by.

A chequer of blocks, lighter and darker, keeps the scale readable; no rectangle leaves its block.

Legend: R rectangles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid
from viz.render.scene3d import ColoredMesh
from viz.render.voxel_mesh import CORNERS, SHADES

BLOCK = 5
"""Voxels along a side of a block of the chequer."""
_DARKER = 0.94


def merged_faces(
    ids: NDArray[np.uint8],
    shown: NDArray[np.bool_],
    grid: VoxelGrid,
    color_table: NDArray[np.uint8],
    *,
    name: str = "voxels",
) -> ColoredMesh:
    """The surface of the shown voxels, as ``viz.render.voxel_mesh.surface_meshes`` has it face by
    face.

    Args:
        ids: (X, Y, Z) uint8, the id of each voxel; ``shown``: (X, Y, Z) bool.
        color_table: (256, 3) uint8, color of each id.

    Raises:
        ValueError: a shape is not the grid's.
    """
    if ids.shape != grid.shape or shown.shape != grid.shape:
        raise ValueError(f"ids {ids.shape} and shown {shown.shape}, the grid is {grid.shape}")
    rectangles = _rectangles(np.ascontiguousarray(ids), np.ascontiguousarray(shown), BLOCK)
    direction, low, extent = rectangles[:, 0], rectangles[:, 1:4], rectangles[:, 4:7]
    cells = low[:, None, :] + CORNERS[direction] * extent[:, None, :]
    corners = cells * np.asarray(grid.size_m) + np.asarray(grid.min_m)
    odd = (low // BLOCK).sum(axis=1) % 2 == 1
    shade = SHADES[direction] * np.where(odd, _DARKER, 1.0)
    colors = (color_table[rectangles[:, 7]] * shade[:, None]).round().astype(np.uint8)
    return ColoredMesh(name=name, corners_m=corners.astype(np.float32), colors=colors)


@compiled
def _rectangles(ids: Any, shown: Any, block: int) -> Any:
    """(R, 8) int64: direction, lowest cell, extent in cells (1 along the direction's axis), id.

    In every layer of every direction rectangles grow first along one axis, then along the other,
    and stop at the end of their block.
    """
    n = shown.shape
    capacity = 1024
    out = np.empty((capacity, 8), np.int64)
    count = 0
    for direction in range(6):
        axis, step = direction // 2, 2 * (direction % 2) - 1
        a, b = (axis + 1) % 3, (axis + 2) % 3
        open_id = np.empty((n[a], n[b]), np.int64)
        cell = np.zeros(3, np.int64)
        for layer in range(n[axis]):
            cell[axis] = layer
            beside = layer + step
            for i in range(n[a]):
                cell[a] = i
                for j in range(n[b]):
                    cell[b] = j
                    open_id[i, j] = -1
                    if shown[cell[0], cell[1], cell[2]]:
                        covered = False
                        if 0 <= beside < n[axis]:
                            cell[axis] = beside
                            covered = shown[cell[0], cell[1], cell[2]]
                            cell[axis] = layer
                        if not covered:
                            open_id[i, j] = ids[cell[0], cell[1], cell[2]]
            for i in range(n[a]):
                for j in range(n[b]):
                    face_id = open_id[i, j]
                    if face_id < 0:
                        continue
                    end_j = min((j // block + 1) * block, n[b])
                    end_i = min((i // block + 1) * block, n[a])
                    wide = 1
                    while j + wide < end_j and open_id[i, j + wide] == face_id:
                        wide += 1
                    high = 1
                    while i + high < end_i:
                        mergeable = True
                        for jj in range(j, j + wide):
                            if open_id[i + high, jj] != face_id:
                                mergeable = False
                                break
                        if not mergeable:
                            break
                        high += 1
                    open_id[i : i + high, j : j + wide] = -1
                    if count == capacity:
                        larger = np.empty((2 * capacity, 8), np.int64)
                        larger[:capacity] = out
                        out, capacity = larger, 2 * capacity
                    out[count, 0], out[count, 7] = direction, face_id
                    out[count, 1 + axis], out[count, 4 + axis] = layer, 1
                    out[count, 1 + a], out[count, 4 + a] = i, high
                    out[count, 1 + b], out[count, 4 + b] = j, wide
                    count += 1
    return out[:count]
