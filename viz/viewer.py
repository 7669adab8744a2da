"""The window: the labels in 3D, and beside them the pictures and the legend.

Keys: left and right arrow for the frame, L labels, M mask, C confidence, P LiDAR points, R view,
Q or Escape to close.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray
from open3d.visualization import gui, rendering
from PIL import Image, ImageDraw

from datasets.errors import AutolabelError
from viz.camera_overlay import draw_overlay
from viz.lettering import FAINT, TEXT, draw_legend, fitted, font
from viz.maps import level_colours
from viz.mesh import SurfaceMesh, surface_meshes
from viz.open3d_mesh import open3d_background, open3d_mesh
from viz.page import PAPER
from viz.review import MASKS, Picture, ReviewFrame, ReviewSession, class_counts, shown_voxels
from viz.scene3d import (
    BACKGROUND,
    POINT_COLOUR,
    VERTICAL_FOV_DEG,
    coloured,
    default_camera,
    ego_marker,
)

KEYS = "arrows: frame   L labels   M mask   C confidence   P points   R view   Q quit"
_PANEL_EM = 38


def show(
    session: ReviewSession, frame: ReviewFrame, *, mask: str, size_px: tuple[int, int]
) -> None:
    """Open the window on a frame; returns when it is closed."""
    gui.Application.instance.initialize()
    Viewer(session, frame, mask=mask, size_px=size_px)
    gui.Application.instance.run()


class Viewer:
    """The window and its state: which frame, which mask, which layers."""

    def __init__(
        self, session: ReviewSession, frame: ReviewFrame, *, mask: str, size_px: tuple[int, int]
    ) -> None:
        self.session, self.frame, self.mask = session, frame, mask
        self.labels_on, self.points_on, self.confidence_on = True, True, False
        app = gui.Application.instance
        self.window = app.create_window(f"labels of {frame.name}", *size_px)
        em = self.window.theme.font_size
        self._panel_px = round(_PANEL_EM * em)
        self._view = gui.SceneWidget()
        self._view.scene = rendering.Open3DScene(self.window.renderer)
        self._view.scene.set_background(open3d_background(BACKGROUND))
        self._view.scene.view.set_post_processing(False)  # colours come out as given
        self._state = gui.Label("")
        self._panel = gui.ScrollableVert(round(0.3 * em), gui.Margins(em // 2))
        self._panel.add_child(self._state)
        self._panel.add_child(gui.Label(KEYS))
        self._legend = gui.ImageWidget()
        self._panel.add_child(self._legend)
        self._pictures = gui.ImageWidget()
        self._panel.add_child(self._pictures)
        for child in (self._view, self._panel):
            self.window.add_child(child)
        self.window.set_on_layout(self._layout)
        self.window.set_on_key(self._on_key)
        self.redraw()
        self.reset_view()

    def reset_view(self) -> None:
        """Back behind and above the ego, looking forward."""
        grid = self.frame.grid
        box = o3d.geometry.AxisAlignedBoundingBox(np.array(grid.min_m), np.array(grid.max_m))
        eye, target = default_camera(grid)
        self._view.setup_camera(VERTICAL_FOV_DEG, box, target.astype(np.float32))
        self._view.look_at(target, eye, np.array([0.0, 0.0, 1.0]))

    def step(self, by: int) -> None:
        """Another frame of the scene; stays where there is none or it cannot be read."""
        k = self.frame.k + by
        if not 0 <= k < self.frame.n_frames:
            return
        try:
            self.frame = self.session.frame(self.frame.scene_id, k)
        except AutolabelError as error:
            self.window.show_message_box("This frame cannot be read", str(error))
            return
        self.redraw()

    def redraw(self) -> None:
        """Everything that depends on the frame, the mask and the layers."""
        labels, grid, taxonomy = self.frame.labels, self.frame.grid, self.frame.taxonomy
        shown = shown_voxels(labels, taxonomy, self.mask)
        table = taxonomy.colour_table()
        by_class = surface_meshes(labels.semantics, shown, grid)
        drawn = coloured(by_class, taxonomy.names, table)
        if self.confidence_on:
            by_level = surface_meshes(labels.confidence, shown, grid)
            names = [f"confidence {v:g}" for v in self.frame.levels]
            drawn = coloured(by_level, names, level_colours(self.frame.levels))
        scene = self._view.scene
        scene.clear_geometry()
        material = rendering.MaterialRecord()
        material.shader = "defaultUnlit"
        for mesh in (*(drawn if self.labels_on else ()), ego_marker(grid)):
            scene.add_geometry(mesh.name, open3d_mesh(mesh), material)
        points = self.frame.points_m
        if self.points_on and points is not None and len(points):
            cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
            cloud.paint_uniform_color([c / 255 for c in POINT_COLOUR])
            dots = rendering.MaterialRecord()
            dots.shader, dots.point_size = "defaultUnlit", 2.0
            scene.add_geometry("LiDAR points", cloud, dots)

        width = self._panel_px - 2 * self.window.theme.font_size
        legend = Image.new("RGB", (width, 17 * (taxonomy.n_classes // 2 + 1)), PAPER)
        draw_legend(
            legend,
            (4, 4, width - 4, legend.height),
            taxonomy=taxonomy,
            counts=class_counts(labels, shown, taxonomy),
            size_px=11,
        )
        self._legend.update_image(_open3d_image(legend))
        sheet = _picture_sheet(
            self.frame.pictures, by_class if self.labels_on else (), table, width
        )
        self._pictures.update_image(_open3d_image(sheet))
        self._state.text = self._state_text()
        self.window.set_needs_layout()
        self._view.force_redraw()
        self.window.post_redraw()

    def _state_text(self) -> str:
        frame = self.frame
        layers = [
            f"mask: {self.mask}",
            "confidence (dark blue 0, yellow 1)" if self.confidence_on else "classes",
            "labels " + ("on" if self.labels_on else "off"),
            "points " + ("on" if self.points_on else "off"),
        ]
        lines = [
            f"scene {frame.scene_id}   frame {frame.k} ({frame.n_frames} in all)",
            f"token {frame.labels.token}",
            "   ".join(layers),
            *(note if len(note) < 90 else note[:87] + "..." for note in frame.notes),
        ]
        return "\n".join(lines)

    def _layout(self, context: Any) -> None:
        area = self.window.content_rect
        split = area.width - self._panel_px
        self._view.frame = gui.Rect(area.x, area.y, split, area.height)
        self._panel.frame = gui.Rect(area.x + split, area.y, self._panel_px, area.height)

    def _on_key(self, event: Any) -> bool:
        key = gui.KeyName
        actions = {
            key.RIGHT: lambda: self.step(1),
            key.LEFT: lambda: self.step(-1),
            key.L: lambda: self._toggle("labels_on"),
            key.P: lambda: self._toggle("points_on"),
            key.C: lambda: self._toggle("confidence_on"),
            key.M: self._next_mask,
            key.R: self.reset_view,
            key.Q: self.window.close,
            key.ESCAPE: self.window.close,
        }
        action = actions.get(event.key)
        if action is None:
            return False
        if event.type == gui.KeyEvent.Type.DOWN:
            action()
        return True

    def _toggle(self, layer: str) -> None:
        if layer == "confidence_on" and not self.frame.levels:
            return
        setattr(self, layer, not getattr(self, layer))
        self.redraw()

    def _next_mask(self) -> None:
        masks = list(MASKS)
        self.mask = masks[(masks.index(self.mask) + 1) % len(masks)]
        self.redraw()


def _open3d_image(image: Image.Image) -> Any:
    pixels: Any = np.ascontiguousarray(np.asarray(image))
    return o3d.geometry.Image(pixels)


def _picture_sheet(
    pictures: Sequence[Picture],
    meshes: Sequence[SurfaceMesh],
    colour_table: NDArray[np.uint8],
    width: int,
) -> Image.Image:
    """The pictures with the labels over them and their names, in two columns, front ones left."""
    if not pictures:
        sheet = Image.new("RGB", (width, 30), PAPER)
        ImageDraw.Draw(sheet).text((4, 6), "no camera pictures", font=font(12), fill=FAINT)
        return sheet
    n_columns = min(2, len(pictures))
    n_rows = -(-len(pictures) // n_columns)
    cell_w = width // n_columns - 4
    cell_h = round(cell_w * max(p.view.height / p.view.width for p in pictures))
    sheet = Image.new("RGB", (width, n_rows * (cell_h + 22)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        x, y = (i // n_rows) * (width // n_columns), (i % n_rows) * (cell_h + 22)
        view = picture.view
        height = min(cell_h, round(cell_w * view.height / view.width))
        draw.text((x + 2, y + 3), fitted(view.name, font(12), cell_w), font=font(12), fill=TEXT)
        overlay = draw_overlay(picture, meshes, colour_table, width=cell_w, height=height)
        sheet.paste(overlay, (x, y + 20))
    return sheet
