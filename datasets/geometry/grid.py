"""Voxel grids: conversion between metres and voxel indices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_VOXELS = 1 << 30
"""Of a grid: 25 times the largest published. Labels take a byte for each."""
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelGrid:
    """A box of equal voxels, axis order (X forward, Y left, Z up).

    Voxel ``(i, j, k)`` is the half-open box ``[min + index * size, min + (index + 1) * size)``;
    the index of a point is ``floor((p - min) / size)``.

    Raises:
        ValueError: a size is not positive, a bound is not finite, or a shape entry is below 1, or
            there are more voxels than ``MAX_VOXELS``.
    """

    min_m: Triple
    size_m: Triple
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (*self.min_m, *self.size_m)):
            raise ValueError(f"grid bounds must be finite: min_m={self.min_m} size_m={self.size_m}")
        if min(self.size_m) <= 0:
            raise ValueError(f"voxel size must be positive: size_m={self.size_m}")
        if min(self.shape) < 1:
            raise ValueError(f"every axis needs at least one voxel: shape={self.shape}")
        if self.n_voxels > MAX_VOXELS:
            raise ValueError(
                f"shape={self.shape} has more voxels than the {MAX_VOXELS:,} of MAX_VOXELS"
            )

    @property
    def max_m(self) -> Triple:
        """Upper corner (exclusive), metres."""
        x, y, z = (lo + n * s for lo, n, s in zip(self.min_m, self.shape, self.size_m, strict=True))
        return (x, y, z)

    @property
    def n_voxels(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def cells(self, points_m: NDArray[Any]) -> NDArray[np.float64]:
        """Continuous voxel coordinates: (..., 3) metres -> (..., 3) cells, float64."""
        offset = np.asarray(points_m, np.float64) - np.asarray(self.min_m)
        return np.asarray(offset / np.asarray(self.size_m), np.float64)

    def indices(self, points_m: NDArray[Any]) -> NDArray[np.int64]:
        """Voxel of each point: (..., 3) metres -> (..., 3) int64, also outside the grid."""
        return np.floor(self.cells(points_m)).astype(np.int64)

    def contains(self, points_m: NDArray[Any]) -> NDArray[np.bool_]:
        """Which points lie inside: (..., 3) metres -> (...) bool. NaN is outside."""
        cells = self.cells(points_m)
        return np.asarray(((cells >= 0) & (cells < np.asarray(self.shape))).all(axis=-1))

    def flat(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row-major position of voxels inside the grid: (..., 3) -> (...) int64."""
        return (indices[..., 0] * self.shape[1] + indices[..., 1]) * self.shape[2] + indices[..., 2]

    def centers(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Voxel centres: (..., 3) indices -> (..., 3) metres."""
        inner = (indices + 0.5) * np.asarray(self.size_m)
        return np.asarray(inner + np.asarray(self.min_m), np.float64)

    def to_json(self) -> dict[str, list[float] | list[int]]:
        return {"min_m": list(self.min_m), "size_m": list(self.size_m), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VoxelGrid:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        min_m, size_m, shape = data["min_m"], data["size_m"], data["shape"]
        if not len(min_m) == len(size_m) == len(shape) == 3:
            raise ValueError(f"a grid has three axes: {data}")
        return cls(
            min_m=(float(min_m[0]), float(min_m[1]), float(min_m[2])),
            size_m=(float(size_m[0]), float(size_m[1]), float(size_m[2])),
            shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        )
