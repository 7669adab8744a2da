"""Parts of labeled frames that a refiner's network is trained on, compressed until they are used.

Legend: X Y Z voxels of a crop, V voxels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from autolabel.refinement.kernels import SURFACE
from autolabel.refinement.temporal_fusion import LOG_STEP, Pooled
from datasets.geometry.grid import VoxelGrid

SIDE = 64
"""Voxels along X and Y of a crop, at most."""
MAX_BYTES = 2 * 1024**3
"""Of all crops together."""
EXPECTED_RATIO = 1.8
"""Of a crop's bytes to its compressed ones."""
PER_FRAME = 2
"""Crops, at most."""
UNKNOWN = 255
_ZSTD = Zstd(level=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crop:
    """Evidence and truth of a part of a frame.

    Attributes:
        logs: (3, X, Y, Z, K) uint8, minus the log probabilities in steps of ``LOG_STEP``: of the
            frame, of near and of far ones.
        bins: (2, X, Y, Z) uint8 of the frame's own and of the others' LiDAR.
        surface: (X, Y, Z, 2 S) float16.
        self_only: (X, Y, Z) bool, see ``Pooled``.
        truth: (X, Y, Z) uint8 class ids, ``UNKNOWN`` where there is none.
    """

    logs: NDArray[np.uint8]
    bins: NDArray[np.uint8]
    surface: NDArray[np.float16]
    self_only: NDArray[np.bool_]
    truth: NDArray[np.uint8]

    def pooled(self, voxels: NDArray[np.intp]) -> Pooled:
        """Of these, flat indices (V,)."""
        own, near, far = (
            part.reshape(-1, part.shape[-1])[voxels] * np.float32(-LOG_STEP) for part in self.logs
        )
        own_bin, other_bin = self.bins.reshape(2, -1)[:, voxels].astype(np.intp)
        return Pooled(
            own=own,
            near=near,
            far=far,
            self_only=self.self_only.ravel()[voxels],
            own_bin=own_bin,
            other_bin=other_bin,
            surface=self.surface.reshape(-1, 2 * SURFACE)[voxels].astype(np.float32),
        )

    def mirrored(self, axes: Sequence[int]) -> Crop:
        """Along X (0) or Y (1) or both."""

        def flip(name: str, lead: int) -> NDArray[Any]:
            return np.ascontiguousarray(np.flip(getattr(self, name), [a + lead for a in axes]))

        lead = {"logs": 1, "bins": 1}
        return Crop(**{f.name: flip(f.name, lead.get(f.name, 0)) for f in fields(self)})

    def pack(self) -> PackedCrop:
        """Compressed."""
        return PackedCrop(
            parts=tuple(_ZSTD.encode(np.ascontiguousarray(getattr(self, f))) for f in _NAMES),
            layout=tuple((getattr(self, f).dtype, getattr(self, f).shape) for f in _NAMES),
        )


_NAMES = tuple(f.name for f in fields(Crop))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedCrop:
    """A compressed crop.

    Attributes:
        parts: its arrays by zstd; layout: their types and shapes.
    """

    parts: tuple[bytes, ...]
    layout: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]

    def unpack(self) -> Crop:
        """What was packed."""
        arrays = [np.empty(shape, dtype) for dtype, shape in self.layout]
        for array, part in zip(arrays, self.parts, strict=True):
            _ZSTD.decode(part, out=array)
        return Crop(**dict(zip(_NAMES, arrays, strict=True)))


class CropDraws:
    """Draws parts of frames: every second one anywhere, the others around a voxel of a class of
    the frame, so that rare classes are met.

    Args:
        frames: that will be drawn from.
    """

    def __init__(
        self, grid: VoxelGrid, n_classes: int, frames: int, *, free_id: int, seed: int = 0
    ) -> None:
        self.grid, self.free_id = grid, free_id
        self.rng = np.random.default_rng(seed)
        X, Y, Z = grid.shape
        self.size = (min(SIDE, X), min(SIDE, Y), Z)
        n_bytes = (3 * n_classes + 4 * SURFACE + 4) * int(np.prod(self.size))
        most = MAX_BYTES * EXPECTED_RATIO / n_bytes
        self.per_frame = min(PER_FRAME, most / max(1, frames))
        """Mean number of crops of a frame."""

    def draw(
        self,
        truth: NDArray[np.uint8],  # (V,)
        known: NDArray[np.bool_],  # (V,)
    ) -> list[NDArray[np.intp]]:
        """Flat indices of the voxels of each crop of a frame."""
        whole, part = divmod(self.per_frame, 1)
        ids = np.arange(self.grid.n_voxels).reshape(self.grid.shape)
        crops = []
        for _ in range(int(whole) + int(self.rng.random() < part)):
            x, y = self._corner(truth, known)
            crops.append(ids[x : x + self.size[0], y : y + self.size[1]].ravel())
        return crops

    def _corner(self, truth: NDArray[np.uint8], known: NDArray[np.bool_]) -> tuple[int, int]:
        most = [n - side for n, side in zip(self.grid.shape, self.size[:2], strict=False)]
        x, y = (int(self.rng.integers(n + 1)) for n in most)
        classes = np.unique(truth[known])
        classes = classes[classes != self.free_id]
        if not len(classes) or self.rng.random() < 0.5:
            return x, y
        met = np.flatnonzero(known & (truth == self.rng.choice(classes)))
        cell = np.unravel_index(self.rng.choice(met), self.grid.shape)[:2]
        back = (int(self.rng.integers(side)) for side in self.size[:2])
        x, y = (min(max(int(c) - b, 0), n) for c, b, n in zip(cell, back, most, strict=True))
        return x, y

    def crop(
        self,
        pooled: Pooled,
        truth: NDArray[np.uint8],  # (V,)
        known: NDArray[np.bool_],  # (V,)
    ) -> PackedCrop:
        """Of voxels that ``draw`` gave."""
        logs = np.stack([pooled.own, pooled.near, pooled.far]) * (-1 / LOG_STEP)
        bins = np.stack([pooled.own_bin, pooled.other_bin]).astype(np.uint8)
        return Crop(
            logs=logs.round().clip(0, 255).astype(np.uint8).reshape(3, *self.size, -1),
            bins=bins.reshape(2, *self.size),
            surface=pooled.surface.astype(np.float16).reshape(*self.size, -1),
            self_only=pooled.self_only.reshape(self.size),
            truth=np.where(known, truth, UNKNOWN).astype(np.uint8).reshape(self.size),
        ).pack()
