"""Pictures of labelled frames, small and inside the page: cameras, 3D view, views from above."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import SceneError, SetupError
from datasets.geometry.grid import VoxelGrid
from viz.camera_overlay import draw_overlay
from viz.maps import class_map, confidence_map, level_colours
from viz.mesh import SurfaceMesh, surface_meshes
from viz.offscreen import draw_open3d
from viz.report_statistics import OBSERVED, SceneNumbers
from viz.review import ReviewFrame, ReviewSession, shown_voxels
from viz.scene3d import Scene3D, coloured, default_camera, draw_plain, ego_marker

VIEW_PX = (880, 500)
CAMERA_PX = 480
QUALITY = 78


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A picture as a data URI, its size in pixels, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePictures:
    """Attributes:
    view: from behind and above.
    maps: from above, one pixel a column of voxels, ahead up.
    grid: of the maps.
    notes: what could not be shown, and why.
    """

    scene_id: str
    token: str
    k: int
    n_frames: int
    view: Embedded
    maps: tuple[Embedded, ...]
    cameras: tuple[Embedded, ...]
    grid: VoxelGrid
    notes: tuple[str, ...]


class Renderer:
    """Draws 3D views with Open3D while that works, and plainly from its first failure on.

    Attributes:
        drawn_by: what draws; empty before the first view.
        note: why that is not Open3D; empty if it is, or was not asked for.
    """

    def __init__(self, choice: str) -> None:
        self._plain = choice == "plain"
        self._must = choice == "open3d"
        self.drawn_by = self.note = ""

    def draw(self, scene: Scene3D, size_px: tuple[int, int]) -> Image.Image:
        """Raises ``SetupError``: Open3D was asked for and cannot draw on this machine."""
        width, height = size_px
        if not self._plain:
            drawn = draw_open3d(scene, width=width, height=height)
            if isinstance(drawn, Image.Image):
                self.drawn_by = "Open3D"
                return drawn
            if self._must:
                raise SetupError(f"--renderer open3d: Open3D cannot draw here: {drawn}")
            self.note, self._plain = f"Open3D cannot draw here: {drawn}", True
        self.drawn_by = "plain rasteriser"
        return draw_plain(scene, width=width, height=height)


def frame_pictures(
    session: ReviewSession,
    scenes: Sequence[SceneNumbers],
    renderer: Renderer,
    *,
    on_scene: Callable[[], object] = lambda: None,
) -> tuple[tuple[FramePictures, ...], dict[str, str]]:
    """The worst frame of each scene; and scene id -> why it could not be drawn."""
    drawn, bad = [], {}
    for scene in scenes:
        try:
            drawn.append(_pictures(session.frame(scene.scene_id, scene.worst_frame), renderer))
        except SceneError as error:
            bad[scene.scene_id] = str(error)
        on_scene()
    return tuple(drawn), bad


def _pictures(frame: ReviewFrame, renderer: Renderer) -> FramePictures:
    labels, grid, taxonomy = frame.labels, frame.grid, frame.taxonomy
    table = taxonomy.colour_table()
    trusted = shown_voxels(labels, taxonomy, "trusted")
    observed = shown_voxels(labels, taxonomy, "all") & ((labels.mask & OBSERVED) > 0)
    meshes = surface_meshes(labels.semantics, trusted, grid)
    where = f"scene {frame.scene_id}, frame {frame.k}"
    maps = [
        _map(
            class_map(labels.semantics, trusted, table),
            f"{where}: classes of the trusted voxels from above",
            "trusted classes",
        ),
        _map(
            confidence_map(labels.confidence, observed, level_colours(frame.levels)),
            f"{where}: confidence of the observed voxels from above",
            "confidence of all observed",
        ),
    ]
    return FramePictures(
        scene_id=frame.scene_id,
        token=labels.token,
        k=frame.k,
        n_frames=frame.n_frames,
        view=_view(frame, meshes, renderer, where),
        maps=tuple(maps),
        cameras=tuple(_cameras(frame, meshes, table, where)),
        grid=grid,
        notes=frame.notes,
    )


def _view(
    frame: ReviewFrame, meshes: tuple[SurfaceMesh, ...], renderer: Renderer, where: str
) -> Embedded:
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
    what = "trusted labels" + (" and LiDAR points (white)" if len(points) else "")
    image = renderer.draw(scene, VIEW_PX)
    return embedded(image, f"{where}: {what} in 3D", f"{what}, drawn by {renderer.drawn_by}")


def _cameras(
    frame: ReviewFrame, meshes: tuple[SurfaceMesh, ...], table: NDArray[np.uint8], where: str
) -> list[Embedded]:
    found = []
    for picture in frame.pictures:
        view = picture.view
        width = min(CAMERA_PX, view.width)
        height = max(1, round(view.height * width / view.width))
        overlay = draw_overlay(picture, meshes, table, width=width, height=height)
        alt = f"{where}: {view.name} with the trusted labels drawn over it"
        found.append(embedded(overlay, alt, view.name))
    return found


def _map(pixels: NDArray[np.uint8], alt: str, caption: str) -> Embedded:
    return embedded(Image.fromarray(pixels), alt, caption, lossless=True)


def embedded(image: Image.Image, alt: str, caption: str, *, lossless: bool = False) -> Embedded:
    """A picture as WebP inside the page."""
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=lossless, quality=QUALITY, method=4)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Embedded(
        uri=f"data:image/webp;base64,{text}",
        width=image.width,
        height=image.height,
        alt=alt,
        caption=caption,
    )
