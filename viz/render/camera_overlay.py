"""Labels drawn over a camera image: what the camera would see if only the labels existed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.frames import CameraView
from datasets.geometry.transforms import inverse
from viz.render.rasterizer import Pinhole, nearest_faces
from viz.render.voxel_mesh import SurfaceMesh
from viz.session.session import CameraImage

NO_ID = 65535
OPACITY = 0.45
OUTLINE_OPACITY = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class IdImage:
    """What lies nearest in each pixel.

    Attributes:
        ids: (H, W) uint16 mesh id, ``NO_ID`` where there is no voxel.
        depth_m: (H, W) float32 along the optical axis, infinite where there is no voxel.
    """

    ids: NDArray[np.uint16]
    depth_m: NDArray[np.float32]


def pinhole_of(view: CameraView) -> Pinhole:
    """The camera of an image."""
    return Pinhole(
        width=view.width,
        height=view.height,
        intrinsics=view.intrinsics,
        T_camera_ego=inverse(view.T_ego_camera),
    )


def project_labels(meshes: Sequence[SurfaceMesh], camera: Pinhole) -> IdImage:
    """Nearest voxel of each pixel; a nearer voxel hides a farther one."""
    if not meshes:
        shape = (camera.height, camera.width)
        return IdImage(ids=np.full(shape, NO_ID, np.uint16), depth_m=np.full(shape, np.inf, "f4"))
    corners = np.concatenate([m.corners_m for m in meshes])
    owner = np.concatenate([np.full(len(m.corners_m), m.id, np.uint16) for m in meshes])
    face, depth = nearest_faces(corners, camera)
    return IdImage(ids=np.where(face >= 0, owner[face], np.uint16(NO_ID)), depth_m=depth)


def blend(
    rgb: NDArray[np.uint8], labels: IdImage, color_table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Lay class colors over an image so that both can be read; outlines are stronger.

    Args:
        rgb: (H, W, 3) uint8, of the id image's size.
        color_table: (256, 3) uint8, color of each id.
    """
    ids = labels.ids
    drawn = ids != NO_ID
    edge = np.zeros(ids.shape, bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    opacity = np.where(edge, OUTLINE_OPACITY, OPACITY) * drawn
    color = color_table[np.where(drawn, ids, 0)]
    mixed = rgb * (1 - opacity[..., None]) + color * opacity[..., None]
    return np.asarray(mixed.round(), np.uint8)


def draw_overlay(
    image: CameraImage,
    meshes: Sequence[SurfaceMesh],
    color_table: NDArray[np.uint8],
    *,
    width: int,
    height: int,
) -> Image.Image:
    """An image with the labels over it, resized to width x height."""
    small = Image.fromarray(image.rgb).resize((width, height), Image.Resampling.LANCZOS)
    labels = project_labels(meshes, pinhole_of(image.view).resized(width, height))
    return Image.fromarray(blend(np.asarray(small), labels, color_table))
