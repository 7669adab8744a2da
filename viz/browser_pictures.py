"""A frame's camera pictures with the drawn labels over them, in the size of a browser's panel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from viz.camera_overlay import draw_overlay
from viz.layers import Drawn
from viz.picking import camera_pixel
from viz.review import ReviewFrame

WIDTH_PX = 480
_MARK = (255, 255, 255)


def camera_pictures(
    frame: ReviewFrame, drawn: Drawn, picked_m: NDArray[np.float64] | None
) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) uint8 of every camera in the frame's order; ``picked_m`` (3,), a place in the
    grid's frame, is ringed where the camera sees it."""
    for picture in frame.pictures:
        view = picture.view
        height = round(WIDTH_PX * view.height / view.width)
        overlay = draw_overlay(
            picture, drawn.surface, drawn.colour_table, width=WIDTH_PX, height=height
        )
        at = None if picked_m is None else camera_pixel(view, picked_m)
        if at is not None:
            _ring(overlay, at[0] * WIDTH_PX / view.width, at[1] * height / view.height)
        yield np.asarray(overlay)


def _ring(picture: Image.Image, u: float, v: float) -> None:
    draw = ImageDraw.Draw(picture)
    for radius, colour in ((11, (0, 0, 0)), (9, _MARK)):
        draw.ellipse((u - radius, v - radius, u + radius, v + radius), outline=colour, width=2)
