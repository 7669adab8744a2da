"""Text that fits: a TrueType font that comes with matplotlib, and lines cut to a width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

TEXT = (232, 234, 240)
FAINT = (165, 170, 182)


@cache
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of a size in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), size_px)


def fitted(text: str, face: ImageFont.FreeTypeFont, width_px: float) -> str:
    """The text, or its beginning and an ellipsis where it is wider than ``width_px``."""
    if face.getlength(text) <= width_px:
        return text
    while text and face.getlength(text + "...") > width_px:
        text = text[:-1]
    return text + "..." if text else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendRow:
    """A color, what it means, and how many voxels have it."""

    color: tuple[int, int, int]
    name: str
    count: int


def draw_rows(
    canvas: Image.Image,
    box: tuple[int, int, int, int],
    *,
    rows: Sequence[LegendRow],
    size_px: int,
) -> None:
    """Color, name and number of every row, in as many columns as needed.

    Args:
        box: left, top, right, bottom in the canvas; nothing is drawn outside it.
        size_px: height of the letters; made smaller where the box is too small.
    """
    if not rows:
        return
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = box
    names = [row.name.replace("_", " ") for row in rows]
    for size in range(size_px, 6, -1):
        face, line = font(size), round(size * 1.5)
        per_column = max(1, (bottom - top) // line)
        n_columns = -(-len(rows) // per_column)
        texts = (f"{name}  {row.count:,}" for name, row in zip(names, rows, strict=True))
        widest = max(map(face.getlength, texts)) + 2.2 * size
        if n_columns * (widest + size) <= right - left + size:
            break
    per_column = -(-len(rows) // n_columns)
    width = (right - left + size) / n_columns
    if n_columns == 1:
        width = min(width, widest + 4 * size)
    for i, (name, row) in enumerate(zip(names, rows, strict=True)):
        x = left + (i // per_column) * width
        y = top + (i % per_column) * line
        end = x + width - size
        ink = TEXT if row.count else FAINT
        number = f"{row.count:,}"
        draw.rectangle((x, y + size * 0.2, x + size, y + size * 1.2), row.color, FAINT)
        room = end - x - 2.2 * size - face.getlength(number)
        draw.text((x + 1.5 * size, y), fitted(name, face, room), font=face, fill=ink)
        draw.text((end - face.getlength(number), y), number, font=face, fill=ink)
