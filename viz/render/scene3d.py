"""The 3D view as data: meshes, points and a camera, to be drawn by Open3D or by ourselves.

Legend: F faces, N points, L lines.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.files.bounded_files import npz_member, open_npz, parsing
from datasets.files.replacing import naming_file
from datasets.geometry.grid import VoxelGrid
from datasets.labels.voxel_labels import GridFrame
from viz.render.rasterizer import (
    Pinhole,
    look_at,
    nearest_faces,
    visible_line_pixels,
    visible_points,
)
from viz.render.voxel_mesh import SurfaceMesh

BACKGROUND = (24, 26, 32)
EGO_COLOR = (255, 60, 200)
VERTICAL_FOV_DEG = 52.0
_LIFT_M = 0.75
_MAX_BYTES = 1 << 30
_LIDAR_M = (0.9, 1.8)
"""Of a LiDAR on a roof: how far ahead of the rear axle and over the ground, roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoredMesh:
    """Rectangles with a color each: corners (F, 4, 3) float32 metres, colors (F, 3) uint8."""

    name: str
    corners_m: NDArray[np.float32]
    colors: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoredPoints:
    """Points with a color each: (N, 3) float32 metres, (N, 3) uint8."""

    name: str
    points_m: NDArray[np.float32]
    colors: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColoredLines:
    """Straight lines with a color each: ends (L, 2, 3) float32 metres, colors (L, 3) uint8."""

    name: str
    ends_m: NDArray[np.float32]
    colors: NDArray[np.uint8]


Drawable = TypeVar("Drawable", ColoredPoints, ColoredLines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene3D:
    """What to draw and from where.

    Attributes:
        eye_m, target_m: (3,) the camera's place and what it looks at; +Z is up.
    """

    meshes: tuple[ColoredMesh, ...]
    points: tuple[ColoredPoints, ...]
    lines: tuple[ColoredLines, ...]
    eye_m: NDArray[np.float64]
    target_m: NDArray[np.float64]

    def camera(self, width: int, height: int) -> Pinhole:
        return look_at(
            eye_m=self.eye_m,
            target_m=self.target_m,
            vertical_fov_deg=VERTICAL_FOV_DEG,
            width=width,
            height=height,
        )

    def in_front(self, thing: Drawable) -> Drawable:
        """Points or lines, ``lifted``."""
        if isinstance(thing, ColoredPoints):
            return replace(thing, points_m=lifted(thing.points_m, self.eye_m))
        return replace(thing, ends_m=lifted(thing.ends_m, self.eye_m))

    def save(self, path: Path) -> None:
        """Write as npz, for the process that draws it. Raises ``OSError``."""
        arrays: dict[str, NDArray[np.generic]] = {"eye_m": self.eye_m, "target_m": self.target_m}
        for kind in _KINDS:
            things = getattr(self, kind)
            arrays[kind] = np.array([thing.name for thing in things], str)
            for i, thing in enumerate(things):
                arrays[f"{kind}_places_{i}"] = getattr(thing, _KINDS[kind][1])
                arrays[f"{kind}_colors_{i}"] = thing.colors
        packed = io.BytesIO()  # zipfile prints a traceback where a disk is full
        np.savez(packed, **arrays)
        with naming_file(path):
            path.write_bytes(packed.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Scene3D:
        """Inverse of ``save``.

        Raises:
            OSError, ValueError: no such file, none that ``save`` wrote, or larger than 1 GiB.
        """
        with parsing(), open_npz(path) as file:
            data = partial(npz_member, file, limit=_MAX_BYTES)
            things: dict[str, Any] = {
                kind: tuple(
                    drawable(
                        name=str(name),
                        colors=data(f"{kind}_colors_{i}"),
                        **{places: data(f"{kind}_places_{i}")},
                    )
                    for i, name in enumerate(data(kind))
                )
                for kind, (drawable, places) in _KINDS.items()
            }
            return cls(eye_m=data("eye_m"), target_m=data("target_m"), **things)


_KINDS: dict[str, tuple[Any, str]] = {
    "meshes": (ColoredMesh, "corners_m"),
    "points": (ColoredPoints, "points_m"),
    "lines": (ColoredLines, "ends_m"),
}


def lifted(places_m: NDArray[np.float32], eye_m: NDArray[np.float64]) -> NDArray[np.float32]:
    """(..., 3) places moved towards the eye (3,) along its rays, so that the voxels they lie in do
    not hide them; they keep their place in the image."""
    to_eye = eye_m - places_m
    distance = np.linalg.norm(to_eye, axis=-1, keepdims=True)
    lift = np.minimum(_LIFT_M / np.maximum(distance, 1e-6), 0.5)
    return np.asarray(places_m + to_eye * lift, np.float32)


def default_camera(grid: VoxelGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eye and target behind and above the ego, looking forward: each (3,), metres."""
    low, high = np.asarray(grid.min_m), np.asarray(grid.max_m)
    reach = float(high[0] - low[0])
    mid_y = float((low[1] + high[1]) / 2)
    eye = np.array([low[0] + 0.12 * reach, mid_y, low[2] + 0.28 * reach])
    target = np.array([low[0] + 0.54 * reach, mid_y, low[2]])
    return eye, target


def ego_marker(grid_frame: GridFrame = "ego", *, heading_known: bool = True) -> ColoredMesh:
    """The vehicle: a body, a cabin on it, and an arrow ahead on the ground.

    Args:
        grid_frame: what lies at the origin, the rear axle on the ground or a LiDAR on the roof.
        heading_known: X points forward; else a pillar that points nowhere.
    """
    x, ground = (0.0, 0.0) if grid_frame == "ego" else (-_LIDAR_M[0], -_LIDAR_M[1])
    boxes = [(-1.0, 3.6, 0.95, 0.3, 0.9), (-0.7, 2.2, 0.8, 0.9, 1.5)]
    arrow = [[4.0, -1.1, 0.3], [8.0, 0.0, 0.3], [8.0, 0.0, 0.3], [4.0, 1.1, 0.3]]
    quads, shades = [arrow], [1.0]
    if not heading_known:
        x, boxes, quads, shades = 0.0, [(-0.8, 0.8, 0.8, 0.3, 1.5)], [], []
    for x0, x1, half, z0, z1 in boxes:
        for corners, shade in (
            ([(x0, -half, z1), (x1, -half, z1), (x1, half, z1), (x0, half, z1)], 1.0),
            ([(x0, -half, z0), (x1, -half, z0), (x1, -half, z1), (x0, -half, z1)], 0.7),
            ([(x1, half, z0), (x0, half, z0), (x0, half, z1), (x1, half, z1)], 0.7),
            ([(x0, half, z0), (x0, -half, z0), (x0, -half, z1), (x0, half, z1)], 0.85),
            ([(x1, -half, z0), (x1, half, z0), (x1, half, z1), (x1, -half, z1)], 0.85),
        ):
            quads.append([list(corner) for corner in corners])
            shades.append(shade)
    corners_m = np.array(quads, np.float32) + np.array([x, 0.0, ground], np.float32)
    colors = np.outer(shades, EGO_COLOR).astype(np.uint8)
    return ColoredMesh(name="ego", corners_m=corners_m, colors=colors)


def colored(
    meshes: Sequence[SurfaceMesh], names: Sequence[str], table: NDArray[np.uint8]
) -> tuple[ColoredMesh, ...]:
    """Surface meshes with the colors of a (256, 3) table."""
    return tuple(
        ColoredMesh(
            name=names[m.id] if m.id < len(names) else f"id {m.id}",
            corners_m=m.corners_m,
            colors=m.face_colors((int(table[m.id, 0]), int(table[m.id, 1]), int(table[m.id, 2]))),
        )
        for m in meshes
    )


def draw_plain(scene: Scene3D, *, width: int, height: int) -> Image.Image:
    """Draw with our own rasteriser, at twice the size and reduced, so that edges are smooth."""
    camera = scene.camera(2 * width, 2 * height)
    meshes = scene.meshes
    pixels = np.empty((2 * height, 2 * width, 3), np.uint8)
    pixels[:] = BACKGROUND
    depth = np.full(pixels.shape[:2], np.inf, np.float32)
    if meshes:
        face, depth = nearest_faces(np.concatenate([m.corners_m for m in meshes]), camera)
        colors = np.concatenate([m.colors for m in meshes])
        pixels = np.where((face >= 0)[..., None], colors[face], pixels)
    for lines in scene.lines:
        rows, columns, index = visible_line_pixels(scene.in_front(lines).ends_m, camera, depth)
        _dot(pixels, rows, columns, lines.colors[index])
    for points in scene.points:
        rows, columns, index = visible_points(scene.in_front(points).points_m, camera, depth)
        _dot(pixels, rows, columns, points.colors[index])
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)


def _dot(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    colors: NDArray[np.uint8],
) -> None:
    """Dots of 2 x 2 pixels."""
    height, width = pixels.shape[:2]
    for dr, dc in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside = (rows + dr < height) & (columns + dc < width)
        pixels[rows[inside] + dr, columns[inside] + dc] = colors[inside]
