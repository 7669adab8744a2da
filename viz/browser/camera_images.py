"""A frame's camera images with the drawn labels over them, in the size of a browser's panel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from viz.render.camera_overlay import draw_overlay
from viz.render.layers import RenderedLayers
from viz.session.picking import Cell, in_cameras
from viz.session.session import ReviewFrame

WIDTH_PX = 480
_SEEN, _HIDDEN = (255, 255, 255), (150, 150, 150)


def camera_images(
    frame: ReviewFrame, drawn: RenderedLayers, picked: Cell | None
) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) uint8 of every camera in the frame's order; a picked voxel is ringed, white where
    the camera sees it, grey where others hide it."""
    marks = {} if picked is None else {m.camera: m for m in in_cameras(frame, drawn.shown, picked)}
    for image in frame.images:
        view = image.view
        height = round(WIDTH_PX * view.height / view.width)
        overlay = draw_overlay(
            image, drawn.surface, drawn.color_table, width=WIDTH_PX, height=height
        )
        if (mark := marks.get(view.name)) is not None:
            center = mark.u * WIDTH_PX / view.width, mark.v * height / view.height
            _ring(overlay, *center, color=_HIDDEN if mark.hidden else _SEEN)
        yield np.asarray(overlay)


def _ring(image: Image.Image, u: float, v: float, *, color: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(image)
    for radius, shade in ((11, (0, 0, 0)), (9, color)):
        draw.ellipse((u - radius, v - radius, u + radius, v + radius), outline=shade, width=2)
