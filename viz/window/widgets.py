"""Small helpers for Open3D's widgets in the window's look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import open3d as o3d
from open3d.visualization import gui
from PIL import Image

from viz.render.theme import EDGE_PX, FAINT, GAP_PX, PANEL, RAISED, TEXT, Color

_LETTERS_DOWN_PX = 3


def color(rgb: Color) -> Any:
    return gui.Color(*(c / 255 for c in rgb))


def open3d_image(image: Image.Image) -> Any:
    pixels: Any = np.ascontiguousarray(np.asarray(image.convert("RGB")))
    return o3d.geometry.Image(pixels)


def panel() -> Any:
    """A column of widgets that scrolls where it is too long."""
    column = gui.ScrollableVert(GAP_PX, gui.Margins(EDGE_PX, EDGE_PX, EDGE_PX, EDGE_PX))
    column.background_color = color(PANEL)
    return column


def heading(text: str) -> Any:
    label = gui.Label(text)
    label.text_color = color(FAINT)
    return label


def section(words: str) -> Any:
    """A heading with room above it."""
    column = gui.Vert(0, gui.Margins(0, GAP_PX, 0, 0))
    column.add_child(heading(words))
    return column


def text(words: str = "", ink: Color = TEXT) -> Any:
    label = gui.Label(words)
    label.text_color = color(ink)
    return label


def button(words: str, clicked: Callable[[], None], *, tip: str = "") -> Any:
    widget = gui.Button(words)
    widget.horizontal_padding_em, widget.vertical_padding_em = 0.5, 0.15
    widget.background_color = color(RAISED)
    widget.set_on_clicked(clicked)
    if tip:
        widget.tooltip = tip
    return widget


def checkbox(words: str, changed: Callable[[bool], None]) -> Any:
    widget = gui.Checkbox(words)
    widget.set_on_checked(changed)
    return widget


def choices(names: Sequence[str], chosen: Callable[[int], None]) -> Any:
    """A list that opens; calls ``chosen`` with the place of what is chosen."""
    widget = gui.Combobox()
    for name in names:
        widget.add_item(name)
    widget.set_on_selection_changed(lambda _, place: chosen(int(place)))
    return widget


def row(*widgets: Any) -> Any:
    """Widgets side by side."""
    line = gui.Horiz(GAP_PX)
    for widget in widgets:
        line.add_child(widget)
    return line


def level(label: Any) -> Any:
    """A text that stands as high as the widgets beside it."""
    column = gui.Vert(0, gui.Margins(0, _LETTERS_DOWN_PX, 0, 0))
    column.add_child(label)
    return column


def labelled(rows: Sequence[tuple[str, Any]], width: int) -> Any:
    """Names in a column of a width, their widgets beside them."""
    column = gui.Vert(GAP_PX)
    for name, widget in rows:
        words = level(heading(name))
        words.preferred_width = width
        column.add_child(row(words, widget))
    return column


class ImageView:
    """An image in the window that can be clicked.

    Args:
        clicked: called with the pixel of the image.
    """

    def __init__(self, clicked: Callable[[float, float], None] | None = None) -> None:
        self.widget = gui.ImageWidget()
        self.size = (1, 1)
        self._pixels = b""
        self.widget.update_image(open3d_image(Image.new("RGB", self.size, PANEL)))
        self._clicked = clicked
        self.widget.set_on_mouse(self._mouse)

    def show(self, image: Image.Image) -> bool:
        """Put an image up; whether its size is another than before."""
        if (pixels := image.tobytes()) == self._pixels and image.size == self.size:
            return False
        changed = image.size != self.size
        self.size, self._pixels = image.size, pixels
        self.widget.update_image(open3d_image(image))
        return changed

    def _mouse(self, event: Any) -> Any:
        result = gui.Widget.EventCallbackResult
        if self._clicked is None or event.type != gui.MouseEvent.Type.BUTTON_DOWN:
            return result.IGNORED
        frame = self.widget.frame
        self._clicked(float(event.x - frame.x), float(event.y - frame.y))
        return result.HANDLED
