"""Parts of two frames put together: PolarMix (arXiv 2208.00223) for points, voxels and images.

A region of one frame is replaced by the same region of another: a sector around the vehicle, or the
surroundings of one object. Its returns and voxel labels are exchanged, and the pixels that look
there, where both frames have the same cameras in the same places; else those pixels become black.
The published method mixes points alone; a fusion network would see images that contradict them.

Legend: P points, N cameras, (X, Y, Z) voxels, (H, W) network pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets.geometry.grid import VoxelGrid
from datasets.loading.batch import Target
from datasets.model_inputs import FrameInputs

MIN_SECTOR_RAD, MAX_SECTOR_RAD = np.radians(45.0), np.radians(180.0)
SAME_MOUNT_M, SAME_MOUNT_RAD, SAME_INTRINSICS = 0.2, np.radians(2.0), 1e-3
AROUND_OBJECT_M, MAX_OBJECT_M = 0.5, 16.0
MIN_OBJECT_VOXELS, MIN_OBJECT_POINTS = 4, 5

PARTNERS = 8
"""Frames that are searched for an object of the class that was drawn."""

Mask = NDArray[np.bool_]
Region = Callable[[NDArray[Any]], Mask]
"""Whether each place (M, 3), metres of the frame's ego, belongs to a region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """How often frames are mixed.

    Attributes:
        grid: of the targets.
        classes: of objects that are taken over, each equally often.
        sector, objects: chances that a frame is given a sector of another, and an object.
    """

    grid: VoxelGrid
    classes: tuple[int, ...]
    sector: float
    objects: float

    def __post_init__(self) -> None:
        if not (0 <= self.sector <= 1 and 0 <= self.objects <= 1):
            raise ValueError(f"chances of mixing are 0..1: {self.sector}, {self.objects}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sector:
    """An angle around the vehicle, in radians to the left from ``start_rad``."""

    start_rad: float
    width_rad: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Sector:
        return cls(
            start_rad=float(rng.uniform(-np.pi, np.pi)),
            width_rad=float(rng.uniform(MIN_SECTOR_RAD, MAX_SECTOR_RAD)),
        )

    def __call__(self, places: NDArray[Any]) -> Mask:
        azimuth = np.arctan2(places[:, 1], places[:, 0])
        inside: Mask = (azimuth - self.start_rad) % (2 * np.pi) < self.width_rad
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """An upright box along the axes, from the ground up."""

    low_m: tuple[float, float]
    high_m: tuple[float, float]

    def __call__(self, places: NDArray[Any]) -> Mask:
        xy = places[:, :2]
        inside: Mask = ((xy >= self.low_m) & (xy <= self.high_m)).all(axis=1)
        return inside


def mix_sector(
    own: tuple[FrameInputs, Target],
    other: tuple[FrameInputs, Target],
    sector: Sector,
    grid: VoxelGrid,
) -> tuple[FrameInputs, Target]:
    """The first frame with a sector of the second."""
    inside = sector(_columns(grid)).reshape(grid.shape[:2])
    inputs = _with_points(own[0], other[0], sector)
    seen = [
        sector(_directions(own[0], k, T[:3, :3])).reshape(own[0].images.shape[1:3])
        for k, T in enumerate(own[0].T_ego_camera)
    ]
    return _with_pixels(inputs, other[0], seen), _with_voxels(own[1], other[1], inside)


def mix_object(
    own: tuple[FrameInputs, Target],
    other: tuple[FrameInputs, Target],
    class_id: int,
    grid: VoxelGrid,
    rng: np.random.Generator,
) -> tuple[FrameInputs, Target]:
    """The first frame with one object of a class of the second, where that has one.

    The object is a connected group of voxels with returns, drawn with even chances. Its whole
    columns go along, ground and all, so that nothing hangs in the air.
    """
    wanted = has_object(other[1], class_id)
    parts, n = ndimage.label(wanted.any(axis=2), structure=np.ones((3, 3)))
    for part in 1 + rng.permutation(n):
        cells = np.argwhere(parts == part)
        origin, size = np.array(grid.min_m[:2], np.float64), np.array(grid.size_m[:2])
        low = origin + cells.min(axis=0) * size - AROUND_OBJECT_M
        high = origin + (cells.max(axis=0) + 1) * size + AROUND_OBJECT_M
        box = Upright(low_m=(low[0], low[1]), high_m=(high[0], high[1]))
        inside = box(_columns(grid)).reshape(grid.shape[:2])
        levels = np.flatnonzero((wanted & inside[..., None]).any(axis=(0, 1)))
        if (wanted & inside[..., None]).sum() < MIN_OBJECT_VOXELS:
            continue
        if (high - low).max() > MAX_OBJECT_M or (low * high < 0).all():
            continue  # the vehicle stands in it
        points = other[0].points
        if points is not None and box(points).sum() < MIN_OBJECT_POINTS:
            continue
        top_m = grid.min_m[2] + (levels.max() + 1) * grid.size_m[2]
        seen = [_shows(own[0], k, box, top_m) for k in range(len(own[0].T_ego_camera))]
        inputs = _with_points(own[0], other[0], box)
        return _with_pixels(inputs, other[0], seen), _with_voxels(own[1], other[1], inside)
    return own


def has_object(target: Target, class_id: int) -> Mask:
    """(X, Y, Z) its voxels that count."""
    wanted: Mask = (target.semantics == class_id) & (target.weight > 0)
    return wanted


def _columns(grid: VoxelGrid) -> NDArray[np.float64]:
    """(X Y, 3) middles of the columns."""
    x, y = np.meshgrid(np.arange(grid.shape[0]), np.arange(grid.shape[1]), indexing="ij")
    return grid.centers(np.stack([x.ravel(), y.ravel(), np.zeros(x.size, np.int64)], axis=-1))


def _with_points(own: FrameInputs, other: FrameInputs, region: Region) -> FrameInputs:
    if own.points is None or other.points is None:
        return own
    kept, added = own.points[~region(own.points)], other.points[region(other.points)]
    # the key sweep's come first
    points = np.concatenate([kept, added])
    return replace(own, points=points[np.argsort(points[:, 5], kind="stable")])


def _with_voxels(own: Target, other: Target, inside: Mask) -> Target:
    def mixed(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        out = a.copy()
        out[inside] = b[inside]
        return out

    flow = own.flow
    if flow is not None and other.flow is not None:
        flow = mixed(flow, other.flow)
    return replace(
        own,
        semantics=mixed(own.semantics, other.semantics),
        weight=mixed(own.weight, other.weight),
        flow=flow,
    )


def _with_pixels(own: FrameInputs, other: FrameInputs, seen: list[Mask]) -> FrameInputs:
    """Pixels (H, W) of each camera from the other frame, or black."""
    images, depth = own.images.copy(), None if own.depth is None else own.depth.copy()
    for k, mask in enumerate(seen):
        same = k < len(other.images) and _same_camera(own, other, k)
        images[k][mask] = other.images[k][mask] if same else 0
        if depth is not None:
            known = same and other.depth is not None
            depth[k][mask] = other.depth[k][mask] if known and other.depth is not None else 0
    return replace(own, images=images, depth=depth)


def _same_camera(own: FrameInputs, other: FrameInputs, k: int) -> bool:
    apart = np.linalg.inv(own.T_ego_camera[k]) @ other.T_ego_camera[k]
    turn = np.arccos(np.clip((np.trace(apart[:3, :3]) - 1) / 2, -1, 1))
    scale = np.abs(own.intrinsics[k]).max()
    alike = np.allclose(own.intrinsics[k], other.intrinsics[k], atol=SAME_INTRINSICS * scale)
    alike = alike and np.allclose(own.post_image[k], other.post_image[k], atol=SAME_INTRINSICS)
    return bool(alike and np.linalg.norm(apart[:3, 3]) < SAME_MOUNT_M and turn < SAME_MOUNT_RAD)


def _directions(inputs: FrameInputs, k: int, R_ego_camera: NDArray[Any]) -> NDArray[np.float64]:
    """(H W, 3) where the pixels of a camera look, in the ego frame."""
    height, width = inputs.images.shape[1:3]
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=-1)
    to_ray = np.linalg.inv(inputs.post_image[k] @ inputs.intrinsics[k])
    out: NDArray[np.float64] = pixels @ to_ray.T @ R_ego_camera.T
    return out


def _shows(inputs: FrameInputs, k: int, box: Upright, top_m: float) -> Mask:
    """Pixels (H, W) of the rectangle around an upright box, from the ground to its top."""
    height, width = inputs.images.shape[1:3]
    out = np.zeros((height, width), np.bool_)
    (x0, y0), (x1, y1) = box.low_m, box.high_m
    corners = np.array([[x, y, z, 1] for x in (x0, x1) for y in (y0, y1) for z in (0.0, top_m)])
    p = (corners @ np.linalg.inv(inputs.T_ego_camera[k]).T)[:, :3]
    if (p[:, 2] < 0.5).any():
        return out
    uv = p @ (inputs.post_image[k] @ inputs.intrinsics[k]).T
    uv = uv[:, :2] / uv[:, 2:]
    (u0, v0), (u1, v1) = np.floor(uv.min(axis=0)), np.ceil(uv.max(axis=0))
    columns = slice(int(np.clip(u0, 0, width)), int(np.clip(u1, 0, width)))
    out[int(np.clip(v0, 0, height)) : int(np.clip(v1, 0, height)), columns] = True
    return out
