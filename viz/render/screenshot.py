"""One image of one frame: the 3D view, two views from above, the cameras, the legend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PIL import Image

from viz.render.bev_images import class_map, confidence_map, level_colors
from viz.render.layers import LayerSettings, RenderedLayers, draw, voxels_of
from viz.render.renderer import Renderer, ViewPainter, scene_of
from viz.render.screenshot_layout import Page
from viz.session.session import ReviewFrame, shown_voxels


@dataclass(frozen=True, slots=True, kw_only=True)
class Screenshot:
    """An image, the name of what drew its 3D view, and why that is not Open3D (or nothing)."""

    image: Image.Image
    drawn_by: str
    note: str


def screenshot(
    frame: ReviewFrame,
    *,
    show: LayerSettings,
    size_px: tuple[int, int],
    renderer: Renderer | ViewPainter = "auto",
) -> Screenshot:
    """Draw a frame.

    Args:
        size_px: width and height.
        renderer: who draws the 3D view: ``open3d``, ``plain``, or ``auto`` for the first that
            works; a ``ViewPainter`` for one that draws more images.

    Raises:
        SetupError: Open3D was asked for and cannot draw on this machine.
    """
    if not isinstance(renderer, ViewPainter):
        with ViewPainter(renderer) as painter:
            return screenshot(frame, show=show, size_px=size_px, renderer=painter)
    drawn = draw(frame, show)
    page = Page(size_px)
    size = page.view_box
    view = renderer.draw(scene_of(frame, drawn), width=size.width, height=size.height)
    page.title(_title(frame), f"3D view: {renderer.drawn_by}")
    page.view(view, _view_captions(drawn, show))
    add_map = partial(page.map, grid=frame.grid, heading_known=frame.heading_known)
    labels = voxels_of(frame, show.voxels)
    if labels is not None and show.color == "confidence":  # the other map has the confidence
        classes = frame.taxonomy.color_table()
        above = class_map(labels.semantics, drawn.shown, classes)
        add_map(0, above, "classes from above, 10 m rings")
    else:
        above = class_map(drawn.ids, drawn.shown, drawn.color_table)
        add_map(0, above, "from above, 10 m rings")
    if labels is frame.labels and frame.levels:
        levels = level_colors(frame.levels)
        add_map(1, confidence_map(labels.confidence, drawn.shown, levels), "confidence")
        page.heat_bar()
    else:
        visible = drawn.shown
        if labels is not None:
            visible = visible & shown_voxels(labels, frame.taxonomy, "camera")
        caption = "camera-visible" if visible.any() else "camera-visible: none"
        add_map(1, class_map(drawn.ids, visible, drawn.color_table), caption)
    page.images(frame.images, drawn.surface, drawn.color_table)
    page.legend(drawn.legend, show.mask)
    page.notes(frame.notes)
    return Screenshot(image=page.canvas, drawn_by=renderer.drawn_by, note=renderer.note)


def _title(frame: ReviewFrame) -> str:
    verdict = ""
    if frame.verdict is not None:
        verdict = f"{frame.verdict.verdict}{', disputed' if frame.verdict.disputed else ''}   "
    return (
        f"{verdict}{frame.name}   scene {frame.scene_id}   "
        f"frame {frame.k} ({frame.n_frames} in all)   token {frame.labels.token}"
    )


def _view_captions(drawn: RenderedLayers, show: LayerSettings) -> list[str]:
    captions = drawn.caption.split("; ")
    if show.voxels != "none" and not drawn.shown.any():
        captions.insert(0, f"no voxel is shown under the mask '{show.mask}'")
    return captions
