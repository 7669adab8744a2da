"""The cameras' images on one sheet, and which image and pixel a click on it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from datasets.frames import CameraView
from viz.render.boxes import draw_boxes
from viz.render.camera_overlay import draw_overlay, pinhole_of
from viz.render.layers import RenderedLayers
from viz.render.text import fitted, font
from viz.render.theme import FAINT, MARK, PANEL, TEXT
from viz.session.picking import InCamera
from viz.session.session import ReviewFrame

GAP_PX = 4
_CAPTION_PX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetCell:
    """Where an image lies on the sheet, pixels, its name above it; which one it is."""

    image: int
    left: int
    top: int
    width: int
    height: int

    def contains(self, x: float, y: float) -> bool:
        return self.left <= x < self.left + self.width and self.top <= y < self.top + self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetLayout:
    """Cells of the images and the size of the sheet."""

    width: int
    height: int
    cells: tuple[SheetCell, ...]

    def pixel_at(
        self, views: Sequence[CameraView], x: float, y: float
    ) -> tuple[int, float, float] | None:
        """The image at a place of the sheet and the (u, v) of its stored pixels; None: none."""
        for cell in self.cells:
            if cell.contains(x, y):
                view = views[cell.image]
                u = (x - cell.left + 0.5) * view.width / cell.width - 0.5
                v = (y - cell.top + 0.5) * view.height / cell.height - 0.5
                return cell.image, u, v
        return None


def sheet_layout(views: Sequence[CameraView], width: int, *, large: int | None) -> SheetLayout:
    """Two columns, the first half of the images on the left, or one large image."""
    if not views:
        return SheetLayout(width=width, height=30, cells=())
    chosen = range(len(views)) if large is None else [large % len(views)]
    n_columns = min(2, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    cell_w = (width - (n_columns - 1) * GAP_PX) // n_columns
    cell_h = round(cell_w * max(views[i].height / views[i].width for i in chosen))
    pitch = cell_h + _CAPTION_PX + GAP_PX
    cells = []
    for place, i in enumerate(chosen):
        view = views[i]
        cells.append(
            SheetCell(
                image=i,
                left=(place // n_rows) * (cell_w + GAP_PX),
                top=(place % n_rows) * pitch + _CAPTION_PX,
                width=cell_w,
                height=max(1, min(cell_h, round(cell_w * view.height / view.width))),
            )
        )
    return SheetLayout(width=width, height=n_rows * pitch - GAP_PX, cells=tuple(cells))


def draw_sheet(
    frame: ReviewFrame, drawn: RenderedLayers, layout: SheetLayout, *, overlay: bool, boxes: bool
) -> Image.Image:
    """The images with the shown voxels over them, and the log's boxes, if asked for."""
    sheet = Image.new("RGB", (layout.width, layout.height), PANEL)
    draw = ImageDraw.Draw(sheet)
    if not layout.cells:
        draw.text((0, 6), "no camera images", font=font(13), fill=FAINT)
    for cell in layout.cells:
        image = frame.images[cell.image]
        pixels = draw_overlay(
            image,
            drawn.surface if overlay else (),
            drawn.color_table,
            width=cell.width,
            height=cell.height,
        )
        if boxes and frame.box_taxonomy is not None:
            small = resized_view(image.view, cell.width, cell.height)
            pixels = draw_boxes(
                np.asarray(pixels), small, frame.boxes, frame.box_taxonomy, width_px=1
            )
        sheet.paste(pixels, (cell.left, cell.top))
        name = fitted(image.view.name.replace("_", " "), font(11), cell.width)
        draw.text((cell.left, cell.top - _CAPTION_PX + 1), name, font=font(11), fill=TEXT)
    return sheet


def mark_places(
    sheet: Image.Image,
    layout: SheetLayout,
    views: Sequence[CameraView],
    places: Sequence[InCamera],
) -> Image.Image:
    """A copy with a cross-hair where the images have the picked voxel, grey where other voxels
    hide it."""
    marked = sheet.copy()
    place_of = {place.camera: place for place in places}
    for cell in layout.cells:
        view = views[cell.image]
        if (place := place_of.get(view.name)) is None:
            continue
        box = (cell.left, cell.top, cell.left + cell.width, cell.top + cell.height)
        image = marked.crop(box)  # the mark does not reach into the next image
        draw = ImageDraw.Draw(image)
        x = (place.u + 0.5) * cell.width / view.width
        y = (place.v + 0.5) * cell.height / view.height
        for width, color in ((4, (0, 0, 0)), (2, FAINT if place.hidden else MARK)):
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=color, width=width)
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                ends = (x + 7 * dx, y + 7 * dy, x + 13 * dx, y + 13 * dy)
                draw.line(ends, fill=color, width=width)
        marked.paste(image, box[:2])
    return marked


def resized_view(view: CameraView, width: int, height: int) -> CameraView:
    """The same camera with another number of pixels."""
    small = pinhole_of(view).resized(width, height)
    return replace(view, width=width, height=height, intrinsics=small.intrinsics)
