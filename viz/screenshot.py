"""One picture of one frame: the 3D view, two views from above, the cameras, the legend."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


def screenshot(
    frame: ReviewFrame, *, mask: str, size_px: tuple[int, int], renderer: str = "auto"
) -> tuple[Image.Image, str]:
    """Draw a frame.

    Args:
        mask: key of ``viz.review.MASKS``.
        size_px: width and height.
        renderer: ``open3d``, ``plain``, or ``auto`` for the first that works.

    Returns:
        The picture and the name of what drew its 3D view.
    """
    header, labels = frame.header, frame.labels
    shown = shown_voxels(labels, header.taxonomy, mask)
    meshes = surface_meshes(labels.semantics, shown, header.grid)
    page = Page(size_px)
    view, drawn_by = _view_3d(frame, meshes, (page.view_box.width, page.view_box.height), renderer)
    page.title(_title(frame, mask), f"3D view: {drawn_by}")
    page.view(view, _view_caption(frame, shown, mask))
    table = header.taxonomy.colour_table()
    from_above = class_map(labels.semantics, shown, table)
    page.map(0, from_above, "classes from above, 10 m rings", header.grid)
    levels = level_colours(header.levels)
    page.map(1, confidence_map(labels.confidence, shown, levels), "confidence", header.grid)
    page.heat_bar()
    page.pictures(frame.pictures, meshes, table)
    counts = class_counts(labels, shown, header.taxonomy)
    page.legend(header.taxonomy, counts, mask)
    page.notes(frame.notes)
    return page.canvas, drawn_by


def _title(frame: ReviewFrame, mask: str) -> str:
    return (
        f"{frame.store_name}   scene {frame.scene_id}   "
        f"frame {frame.k} ({frame.n_frames} in all)   token {frame.labels.token}   mask: {mask}"
    )


def _view_caption(frame: ReviewFrame, shown: NDArray[np.bool_], mask: str) -> str:
    if not shown.any():
        return f"no occupied voxel is shown under the mask '{mask}'"
    return "labels" if frame.points_m is None else "labels, and LiDAR points in white"


def _view_3d(
    frame: ReviewFrame, meshes: tuple[SurfaceMesh, ...], size: tuple[int, int], renderer: str
) -> tuple[Image.Image, str]:
    grid, taxonomy = frame.header.grid, frame.header.taxonomy
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
    if renderer in ("auto", "open3d"):
        drawn = draw_open3d(scene, width=width, height=height)
        if isinstance(drawn, Image.Image):
            return drawn, "Open3D"
        print(f"note: Open3D cannot draw here ({drawn}); drawing plainly", file=sys.stderr)
    return draw_plain(scene, width=width, height=height), "plain rasteriser"
