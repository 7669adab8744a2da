"""Labels on another grid, in another frame: each voxel takes what was at its centre."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply, inverse


def sample_nearest(
    array: NDArray[Any], correspondence: NDArray[np.int64], outside: int = 0
) -> NDArray[Any]:
    """(X', Y', Z', ...): values of an array (X, Y, Z, ...) at a ``voxel_correspondence``."""
    out = np.asarray(array.reshape(-1, *array.shape[3:])[correspondence])
    out[correspondence < 0] = outside
    return out


def rotate_flow(flow: NDArray[np.float32], T_dst_src: Transform) -> NDArray[np.float32]:
    """Velocities (..., 2) m/s along the axes of the other frame."""
    return (flow @ T_dst_src[:2, :2].T).astype(np.float32)


def voxel_correspondence(src: VoxelGrid, dst: VoxelGrid, T_dst_src: Transform) -> NDArray[np.int64]:
    """(X', Y', Z') row-major index in ``src`` of each voxel centre of ``dst``; -1 outside.

    Raises:
        ValueError: the transform is not rigid.
    """
    T = np.asarray(T_dst_src, np.float64)
    if T.shape != (4, 4) or not np.allclose(T @ inverse(T), np.eye(4), atol=1e-3):
        raise ValueError("T_dst_src must be a rigid 4x4 matrix")
    T_src_dst = inverse(T)
    first = src.cells(apply(T_src_dst, dst.centers(np.zeros(3, np.int64))))
    steps = (T_src_dst[:3, :3] * np.array(dst.size_m)).T / np.array(src.size_m)
    along = [np.arange(n)[:, None] * step for n, step in zip(dst.shape, steps, strict=True)]
    slab = first + along[1][:, None] + along[2]  # (Y, Z, 3) cells of the source
    out = np.full(dst.shape, -1, np.int64)
    for i, shift in enumerate(along[0]):
        index = np.floor(slab + shift).astype(np.int64)
        inside = ((index >= 0) & (index < src.shape)).all(axis=-1)
        out[i][inside] = src.flat(index[inside])
    return out
