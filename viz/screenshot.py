"""One picture of one frame: the 3D view, two views from above, the cameras, the legend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import SetupError
from viz.maps import class_map, confidence_map, level_colours
from viz.mesh import SurfaceMesh, surface_meshes
from viz.offscreen import draw_open3d
from viz.page import Page
from viz.review import ReviewFrame, class_counts, shown_voxels
from viz.scene3d import (
    Scene3D,
    coloured,
    default_camera,
    draw_plain,
    ego_marker,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screenshot:
    """A picture, the name of what drew its 3D view, and why that is not Open3D (or nothing)."""

    picture: Image.Image
    drawn_by: str
    note: str


def screenshot(
    frame: ReviewFrame, *, mask: str, size_px: tuple[int, int], renderer: str = "auto"
) -> Screenshot:
    """Draw a frame.

    Args:
        mask: key of ``viz.review.MASKS``.
        size_px: width and height.
        renderer: ``open3d``, ``plain``, or ``auto`` for the first that works.

    Raises:
        SetupError: Open3D was asked for and cannot draw on this machine.
    """
    labels, grid, taxonomy = frame.labels, frame.grid, frame.taxonomy
    shown = shown_voxels(labels, taxonomy, mask)
    meshes = surface_meshes(labels.semantics, shown, grid)
    page = Page(size_px)
    size = (page.view_box.width, page.view_box.height)
    view, drawn_by, note = _view_3d(frame, meshes, size, renderer)
    page.title(_title(frame, mask), f"3D view: {drawn_by}")
    page.view(view, _view_caption(frame, shown, mask))
    table = taxonomy.colour_table()
    page.map(0, class_map(labels.semantics, shown, table), "classes from above, 10 m rings", grid)
    if frame.levels:
        confidence = confidence_map(labels.confidence, shown, level_colours(frame.levels))
        page.map(1, confidence, "confidence", grid)
        page.heat_bar()
    else:
        visible = shown & shown_voxels(labels, taxonomy, "camera")
        caption = "camera-visible" if visible.any() else "camera-visible: none"
        page.map(1, class_map(labels.semantics, visible, table), caption, grid)
    page.pictures(frame.pictures, meshes, table)
    page.legend(taxonomy, class_counts(labels, shown, taxonomy), mask)
    page.notes(frame.notes)
    return Screenshot(picture=page.canvas, drawn_by=drawn_by, note=note)


def _title(frame: ReviewFrame, mask: str) -> str:
    return (
        f"{frame.name}   scene {frame.scene_id}   "
        f"frame {frame.k} ({frame.n_frames} in all)   token {frame.labels.token}   mask: {mask}"
    )


def _view_caption(frame: ReviewFrame, shown: NDArray[np.bool_], mask: str) -> str:
    if not shown.any():
        return f"no occupied voxel is shown under the mask '{mask}'"
    return "labels" if frame.points_m is None else "labels, and LiDAR points in white"


def _view_3d(
    frame: ReviewFrame, meshes: tuple[SurfaceMesh, ...], size: tuple[int, int], renderer: str
) -> tuple[Image.Image, str, str]:
    grid, taxonomy = frame.grid, frame.taxonomy
    eye, target = default_camera(grid)
    points = np.empty((0, 3), np.float32)
    if frame.points_m is not None:
        points = frame.points_m[grid.contains(frame.points_m)]
    scene = Scene3D(
        meshes=(*coloured(meshes, taxonomy.names, taxonomy.colour_table()), ego_marker(grid)),
        points_m=points,
        eye_m=eye,
        target_m=target,
    )
    width, height = size
    note = ""
    if renderer in ("auto", "open3d"):
        drawn = draw_open3d(scene, width=width, height=height)
        if isinstance(drawn, Image.Image):
            return drawn, "Open3D", ""
        if renderer == "open3d":
            raise SetupError(f"--renderer open3d: Open3D cannot draw here: {drawn}")
        note = f"Open3D cannot draw here ({drawn}); the 3D view is drawn plainly"
    return draw_plain(scene, width=width, height=height), "plain rasteriser", note
