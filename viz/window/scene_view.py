"""The 3D view of the review window: named geometry, a camera, and the ray of a click."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray
from open3d.visualization import gui, rendering

from datasets.geometry.grid import VoxelGrid
from viz.render.layers import RenderedLayers
from viz.render.merged_faces import merged_faces
from viz.render.open3d_geometry import open3d_background, open3d_lines, open3d_mesh, open3d_points
from viz.render.scene3d import (
    BACKGROUND,
    VERTICAL_FOV_DEG,
    ColoredMesh,
    default_camera,
)
from viz.window.saved_views import Point, View, read_views, views_file, write_views

CLICK_SLACK_PX = 4
"""A press and a release nearer to each other are a click, not a drag."""

UNDERSIDES = "undersides"
"""The mesh of a third of all faces, those that look down: nobody above them sees any."""

Geometry = Mapping[str, tuple[Any, Any]]
"""Open3D's geometry and material by name."""


def open3d_geometry(drawn: RenderedLayers, grid: VoxelGrid) -> Geometry:
    """What to put on the screen: the voxels' faces in two meshes, the ego, the points, the lines.
    Any thread may make it."""
    out = dict[str, tuple[Any, Any]]()
    voxels = merged_faces(drawn.ids, drawn.shown, grid, drawn.color_table)
    down = faces_down(voxels.corners_m)
    for name, part in (("sides", ~down), (UNDERSIDES, down)):
        if part.any():
            mesh = ColoredMesh(
                name=name, corners_m=voxels.corners_m[part], colors=voxels.colors[part]
            )
            out[name] = open3d_mesh(mesh), material("defaultUnlit")
    ego = drawn.meshes[-1]
    out[ego.name] = open3d_mesh(ego), material("defaultUnlit")
    for points in drawn.points:
        if len(points.points_m):
            out[f"points {points.name}"] = open3d_points(points), material("defaultUnlit", point=3)
    for lines in drawn.lines:
        if len(lines.ends_m):
            out[f"lines {lines.name}"] = open3d_lines(lines), material("unlitLine", line=2)
    return out


def faces_down(corners_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(F,) which of the rectangles (F, 4, 3) look straight down."""
    a, b = corners_m[:, 1] - corners_m[:, 0], corners_m[:, 3] - corners_m[:, 0]
    flat = (a[:, 2] == 0) & (b[:, 2] == 0)
    return np.asarray(flat & (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0))


def material(shader: str, *, point: float = 1, line: float = 1) -> Any:
    """Colors come out as they are; sizes in pixels."""
    record = rendering.MaterialRecord()
    record.shader, record.point_size, record.line_width = shader, point, line
    return record


class SceneView:
    """Open3D's scene widget with what the review needs of it.

    Args:
        on_click: called with the eye and the direction, each (3,), grid's frame, of a click.
    """

    def __init__(
        self,
        window: Any,
        grid: VoxelGrid,
        on_click: Callable[[NDArray[np.float64], NDArray[np.float64]], None],
    ) -> None:
        self.grid, self._on_click = grid, on_click
        self.widget = gui.SceneWidget()
        self.widget.scene = rendering.Open3DScene(window.renderer)
        self.widget.scene.set_background(open3d_background(BACKGROUND))
        view = self.widget.scene.view
        view.set_post_processing(False)  # colors come out as given
        view.set_ambient_occlusion(False, False)
        view.set_shadowing(False, rendering.View.ShadowType.PCF)
        self.widget.scene.scene.enable_sun_light(False)  # nothing here is lit
        self.widget.scene.scene.enable_indirect_light(False)
        view.set_sample_count(4 if _has_gpu() else 1)  # in software it halves the frame rate
        self.widget.enable_scene_caching(True)  # panels may change without drawing it again
        self.widget.set_on_mouse(self._mouse)
        self._pressed: tuple[int, int] | None = None
        self._there: dict[str, set[str]] = {}

    def put(self, layer: str, geometry: Geometry) -> None:
        """Replace the geometry of a layer."""
        scene = self.widget.scene
        for name in self._there.get(layer, ()):
            scene.remove_geometry(name)
        names = {f"{layer}/{name}" for name in geometry}
        for name, (geometry_of, made_of) in geometry.items():
            scene.add_geometry(f"{layer}/{name}", geometry_of, made_of)
        self._there[layer] = names
        self._hide_undersides()
        self.widget.force_redraw()

    def look_from_home(self) -> None:
        """From behind and above the ego, looking forward."""
        eye, target = default_camera(self.grid)
        self.look(View(eye_m=_point(eye), target_m=_point(target)))

    def look_from_above(self) -> None:
        """Straight down, ahead up, the whole grid in sight."""
        low, high = np.asarray(self.grid.min_m), np.asarray(self.grid.max_m)
        middle, extent = (low + high) / 2, high - low
        frame = self.widget.frame
        aspect = max(frame.width, 1) / max(frame.height, 1)
        half = max(extent[0] / 2, extent[1] / 2 / aspect)
        eye = middle.copy()
        eye[2] += 1.04 * half / np.tan(np.radians(VERTICAL_FOV_DEG) / 2)
        self.look(View(eye_m=_point(eye), target_m=_point(middle), up=(1.0, 0.0, 0.0)))

    def look(self, view: View) -> None:
        """Take the place of a view."""
        eye, target = np.asarray(view.eye_m), np.asarray(view.target_m)
        reach = float(np.linalg.norm(np.asarray(self.grid.max_m) - np.asarray(self.grid.min_m)))
        low, high = np.asarray(self.grid.min_m) - 0.2 * reach, np.asarray(self.grid.max_m)
        box = o3d.geometry.AxisAlignedBoundingBox(low, high + 0.2 * reach)
        self.widget.setup_camera(VERTICAL_FOV_DEG, box, target.astype(np.float32))
        self.widget.look_at(target, eye, np.asarray(view.up))
        self._hide_undersides()
        self.widget.force_redraw()

    def view(self) -> View:
        """The place that the camera has now."""
        model = np.asarray(self.widget.scene.camera.get_model_matrix(), np.float64)
        eye, forward = model[:3, 3], -model[:3, 2]
        distance = float(np.linalg.norm(np.asarray(self.widget.center_of_rotation) - eye))
        target = eye + max(distance, 1.0) * forward
        return View(eye_m=_point(eye), target_m=_point(target), up=_point(model[:3, 1]))

    def _hide_undersides(self) -> None:
        """Unless the camera is low enough to see some."""
        eye_z = float(np.asarray(self.widget.scene.camera.get_model_matrix())[2, 3])
        for layer, names in self._there.items():
            if (name := f"{layer}/{UNDERSIDES}") in names:
                self.widget.scene.show_geometry(name, eye_z < self.grid.max_m[2])

    def _mouse(self, event: Any) -> Any:
        self._hide_undersides()
        kind = gui.MouseEvent.Type
        if event.type == kind.BUTTON_DOWN:
            self._pressed = None
            if event.is_button_down(gui.MouseButton.LEFT):
                self._pressed = (event.x, event.y)
        elif event.type == kind.BUTTON_UP and self._pressed is not None:
            x, y = self._pressed
            self._pressed = None
            if abs(event.x - x) <= CLICK_SLACK_PX and abs(event.y - y) <= CLICK_SLACK_PX:
                self._on_click(*self._ray(event.x, event.y))
        return gui.Widget.EventCallbackResult.IGNORED

    def _ray(self, x: int, y: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        frame, camera = self.widget.frame, self.widget.scene.camera
        return ray_of(
            np.asarray(camera.get_model_matrix(), np.float64),
            np.asarray(camera.get_projection_matrix(), np.float64),
            (x - frame.x + 0.5) / frame.width,
            (y - frame.y + 0.5) / frame.height,
        )


def recall_view(scene: SceneView, number: int) -> str:
    """Look from a saved view; what to tell of it, if anything."""
    view = read_views(views_file()).get(number)
    if view is None:
        return f"there is no view {number} yet: Shift {number} saves one"
    scene.look(view)
    return ""


def keep_view(scene: SceneView, number: int) -> str:
    """Save where the camera is; what to tell of it."""
    path = views_file()
    try:
        write_views(path, {**read_views(path), number: scene.view()})
    except OSError as error:
        return f"view not saved: {path}: {error.strerror}"
    return f"view {number} saved"


def ray_of(
    model: NDArray[np.float64], projection: NDArray[np.float64], across: float, down: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eye and unit direction, each (3,), of a place of the view: shares of its width and height.

    Args:
        model: (4, 4) camera to world; the camera looks along -z with y up.
        projection: (4, 4) as of OpenGL.
    """
    x, y = 2 * across - 1, 1 - 2 * down
    ray = np.array(
        [(x + projection[0, 2]) / projection[0, 0], (y + projection[1, 2]) / projection[1, 1], -1.0]
    )
    direction = model[:3, :3] @ ray
    return model[:3, 3].copy(), direction / np.linalg.norm(direction)


def _has_gpu() -> bool:
    """Whether drawing is likely fast; on Linux a graphics device has a file."""
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("LIBGL_ALWAYS_SOFTWARE", "0") not in ("", "0"):
        return False
    return any(Path("/dev/dri").glob("render*")) or Path("/dev/nvidia0").exists()


def _point(values: NDArray[Any]) -> Point:
    x, y, z = (float(v) for v in values)
    return x, y, z
