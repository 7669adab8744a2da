"""Dense labels from rows of occupied voxels (OpenOccupancy, SurroundOcc)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.label_files import whole
from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID

_BAD = -1
_COMPILED = tuple(np.dtype(t) for t in (np.int32, np.int64, np.float32, np.float64))


def dense_labels(
    rows: NDArray[Any], xyz: tuple[int, int, int], class_column: int, grid: VoxelGrid
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Dense labels from rows of occupied voxels, as OpenOccupancy's authors read them.

    Class 0 (noise) becomes 255 and absent voxels become 0. Of several rows in one voxel the class
    with the most rows wins, the lowest id where they tie (noise counts as 255).

    Args:
        rows: (N, W) voxel indices and classes, whole numbers of any type.
        xyz: columns of the indices.
        class_column: that of the class.

    Returns:
        semantics (X, Y, Z); the row-major positions (M,) of the labeled voxels; and for each
        the first of the rows that gave it its class (M,).

    Raises:
        ValueError: an index is not in the grid, or a class is not a whole number in 0..255.
    """
    semantics = np.zeros(grid.shape, np.uint8)
    voxels = np.empty(len(rows), np.int64)
    repeated = np.zeros(len(rows), np.bool_)
    columns = np.array((*xyz, class_column))
    shape, flat = np.array(grid.shape), semantics.reshape(-1)
    n_repeated = _BAD
    if rows.dtype.kind in "iuf":
        n_repeated = _place(_compiled(rows), columns, shape, flat, voxels, repeated)
    if n_repeated == _BAD:
        for axis, column in enumerate(xyz):
            whole(f"{'xyz'[axis]} index", rows[:, column], 0, grid.shape[axis] - 1)
        whole("class", rows[:, class_column], 0, 255)
        raise AssertionError("one of these must have said what is wrong")
    row_index = np.arange(len(rows))
    if n_repeated:
        voxels, row_index = _voted(
            voxels, voxels[repeated], rows[:, class_column].astype(np.uint8), flat
        )
    return semantics, voxels, row_index


def _compiled(rows: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in one of the types that the loop below is compiled for."""
    if rows.dtype in _COMPILED:
        return np.ascontiguousarray(rows)
    fits = rows.dtype.kind == "i" or (rows.dtype.kind == "u" and rows.dtype.itemsize < 8)
    return np.ascontiguousarray(rows, np.int64 if fits else np.float64)


@compiled
def _place(
    rows: NDArray[Any],  # (N, W)
    columns: NDArray[np.int64],  # (4,) of x, y, z and class
    shape: NDArray[np.int64],  # (3,)
    semantics: NDArray[np.uint8],  # (X * Y * Z,) of zeros
    voxels: NDArray[np.int64],  # (N,) where each row lies
    repeated: NDArray[np.bool_],  # (N,) an earlier row lies in the same voxel
) -> int:
    """How many rows came again; -1 for a number that must not be there."""
    n_repeated = 0
    for i in range(rows.shape[0]):
        voxel = 0
        for axis in range(3):
            value = rows[i, columns[axis]]
            if not 0 <= value < shape[axis]:  # nor is a NaN
                return _BAD
            index = int(value)
            if index != value:
                return _BAD
            voxel = voxel * shape[axis] + index
        value = rows[i, columns[3]]
        if not 0 <= value <= 255 or int(value) != value:
            return _BAD
        voxels[i] = voxel
        if semantics[voxel]:
            repeated[i] = True
            n_repeated += 1
        else:
            semantics[voxel] = int(value) if value else IGNORE_ID
    return n_repeated


def _voted(
    voxels: NDArray[np.int64],  # (N,) of each row
    contested: NDArray[np.int64],  # with more than one row
    ids: NDArray[np.uint8],  # (N,)
    semantics: NDArray[np.uint8],  # (X * Y * Z,), where the winners are written
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels without repetition, and the row that each has its class from."""
    is_contested = np.zeros(len(semantics), np.bool_)
    is_contested[contested] = True
    is_contested = is_contested[voxels]
    rows = np.flatnonzero(is_contested)
    classes = np.where(ids[rows] == 0, IGNORE_ID, ids[rows])
    pairs, first, votes = np.unique(
        voxels[rows] * 256 + classes, return_index=True, return_counts=True
    )
    order = np.lexsort((-(pairs % 256), votes, pairs // 256))  # the winner last in its voxel
    pairs, first = pairs[order], first[order]
    last = np.append(pairs[1:] // 256 != pairs[:-1] // 256, True)
    won = pairs[last] // 256
    semantics[won] = pairs[last] % 256
    uncontested = np.flatnonzero(~is_contested)
    return np.concatenate([voxels[uncontested], won]), np.concatenate(
        [uncontested, rows[first[last]]]
    )
