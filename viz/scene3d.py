"""The 3D view as data: meshes, points and a camera, to be drawn by Open3D or by ourselves.

Legend: F faces, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.geometry.grid import VoxelGrid
from viz.mesh import SurfaceMesh
from viz.raster import Pinhole, look_at, nearest_faces, visible_points

BACKGROUND = (24, 26, 32)
POINT_COLOUR = (255, 255, 255)
EGO_COLOUR = (255, 60, 200)
VERTICAL_FOV_DEG = 52.0
_POINT_LIFT_M = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class ColouredMesh:
    """Rectangles with a colour each: corners (F, 4, 3) float32 metres, colours (F, 3) uint8."""

    name: str
    corners_m: NDArray[np.float32]
    colours: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene3D:
    """What to draw and from where.

    Attributes:
        points_m: (N, 3) float32 ego frame; N may be 0.
        eye_m, target_m: (3,) the camera's place and what it looks at; +Z is up.
    """

    meshes: tuple[ColouredMesh, ...]
    points_m: NDArray[np.float32]
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

    def lifted_points(self) -> NDArray[np.float32]:
        """The points, moved towards the eye along its rays so that the voxel they lie in does
        not hide them; they keep their place in the picture."""
        to_eye = self.eye_m - self.points_m
        distance = np.linalg.norm(to_eye, axis=1, keepdims=True)
        keep = distance[:, 0] > 2 * _POINT_LIFT_M
        lifted = self.points_m + to_eye * (_POINT_LIFT_M / np.maximum(distance, 1e-6))
        return np.asarray(lifted[keep], np.float32)

    def save(self, path: Path) -> None:
        """Write as npz, for the process that draws it."""
        arrays: dict[str, NDArray[np.generic]] = {
            "points_m": self.points_m,
            "eye_m": self.eye_m,
            "target_m": self.target_m,
        }
        for i, mesh in enumerate(self.meshes):
            arrays[f"corners_m_{i}"] = mesh.corners_m
            arrays[f"colours_{i}"] = mesh.colours
        np.savez(path, names=np.array([m.name for m in self.meshes], str), **arrays)

    @classmethod
    def load(cls, path: Path) -> Scene3D:
        """Inverse of ``save``."""
        with np.load(path, allow_pickle=False) as data:
            meshes = tuple(
                ColouredMesh(
                    name=str(name), corners_m=data[f"corners_m_{i}"], colours=data[f"colours_{i}"]
                )
                for i, name in enumerate(data["names"])
            )
            return cls(
                meshes=meshes,
                points_m=data["points_m"],
                eye_m=data["eye_m"],
                target_m=data["target_m"],
            )


def default_camera(grid: VoxelGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eye and target behind and above the ego, looking forward: each (3,), metres."""
    low, high = np.asarray(grid.min_m), np.asarray(grid.max_m)
    reach = float(high[0] - low[0])
    mid_y = float((low[1] + high[1]) / 2)
    eye = np.array([low[0] + 0.12 * reach, mid_y, low[2] + 0.28 * reach])
    target = np.array([low[0] + 0.54 * reach, mid_y, low[2]])
    return eye, target


def ego_marker(grid: VoxelGrid) -> ColouredMesh:
    """A flat bar at the origin that points forward, drawn over the ground."""
    size = grid.size_m[0]
    z = max(grid.min_m[2] + 3 * grid.size_m[2], 0.6)
    bars = []
    for x0, x1, half in ((-1.0, 3.0, 0.35), (3.0, 3.0 + 2 * size, 0.9)):
        bars.append([[x0, -half, z], [x1, -half, z], [x1, half, z], [x0, half, z]])
    colours = np.tile(np.array(EGO_COLOUR, np.uint8), (len(bars), 1))
    return ColouredMesh(name="ego", corners_m=np.array(bars, np.float32), colours=colours)


def coloured(
    meshes: Sequence[SurfaceMesh], names: Sequence[str], table: NDArray[np.uint8]
) -> tuple[ColouredMesh, ...]:
    """Surface meshes with the colours of a (256, 3) table."""
    return tuple(
        ColouredMesh(
            name=names[m.id] if m.id < len(names) else f"id {m.id}",
            corners_m=m.corners_m,
            colours=m.face_colours((int(table[m.id, 0]), int(table[m.id, 1]), int(table[m.id, 2]))),
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
        colours = np.concatenate([m.colours for m in meshes])
        pixels = np.where((face >= 0)[..., None], colours[face], pixels)
    if len(scene.points_m):
        rows, columns = visible_points(scene.lifted_points(), camera, depth).T
        for dr, dc in ((0, 0), (0, 1), (1, 0), (1, 1)):
            inside = (rows + dr < 2 * height) & (columns + dc < 2 * width)
            pixels[rows[inside] + dr, columns[inside] + dc] = POINT_COLOUR
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
