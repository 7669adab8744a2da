"""The page of a screenshot: where everything goes, at any size.

Left: the 3D view over two maps. Right: the images over the legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from datasets.geometry.grid import VoxelGrid
from viz.render.bev_images import heat
from viz.render.camera_overlay import draw_overlay
from viz.render.lines import RING_STEP_M
from viz.render.scene3d import BACKGROUND, EGO_COLOR
from viz.render.text import FAINT, TEXT, LegendRow, draw_rows, fitted, font
from viz.render.voxel_mesh import SurfaceMesh
from viz.session.session import CameraImage

PAPER = (40, 43, 51)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle of the page, pixels; right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


class Page:
    """An empty page of a size, at least 960 x 540."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        width, height = size_px
        self.canvas = Image.new("RGB", size_px, PAPER)
        self._draw = ImageDraw.Draw(self.canvas)
        self._size = max(9, round(height / 77))
        self._line = round(self._size * 1.6)
        self._gap = gap = max(4, height // 135)
        split, top = width // 2, 2 * self._line
        self._title_box = Box(left=gap, top=0, right=width - gap, bottom=top)
        # the maps are squares; the 3D view keeps the greater part of the height
        side = min((split - 2 * gap) // 2, round((height - top) * 0.41))
        maps_top = height - gap - side
        self._maps = [
            Box(left=left, top=maps_top, right=left + side, bottom=maps_top + side)
            for left in (gap, split - side)
        ]
        bottom = maps_top - self._line - gap
        self.view_box = Box(left=gap, top=top, right=split, bottom=bottom)
        notes_top = height - gap - self._line
        legend_top = notes_top - round(6.5 * self._line)
        left, right = split + gap, width - gap
        self._legend_box = Box(left=left, top=legend_top, right=right, bottom=notes_top)
        self._notes_box = Box(left=left, top=notes_top, right=right, bottom=height - gap)
        self._image_box = Box(left=left, top=top, right=right, bottom=legend_top - gap)

    def title(self, text: str, right_text: str) -> None:
        """The line at the top; ``right_text`` is never cut."""
        face, small = font(self._size + 1, bold=True), font(self._size)
        box = self._title_box
        middle = box.height // 2
        end = small.getlength(right_text)
        self._draw.text((box.right - end, middle), right_text, font=small, fill=FAINT, anchor="lm")
        text = fitted(text, face, box.width - end - 4 * self._gap)
        self._draw.text((box.left, middle), text, font=face, fill=TEXT, anchor="lm")

    def view(self, image: Image.Image, captions: Sequence[str]) -> None:
        """The 3D view, of the size of ``view_box``, under as many lines as the captions need."""
        box = self.view_box
        self.canvas.paste(image, (box.left, box.top))
        lines, face = list[str](), font(self._size)
        for caption in captions:
            joined = f"{lines[-1]}; {caption}" if lines else caption
            if lines and face.getlength(joined) <= box.width - 2 * self._gap:
                lines[-1] = joined
            else:
                lines.append(caption)
        for i, line in enumerate(lines):
            self._caption(replace(box, top=box.top + i * self._line), line)

    def map(
        self,
        place: int,
        pixels: NDArray[np.uint8],
        name: str,
        grid: VoxelGrid,
        *,
        heading_known: bool,
    ) -> None:
        """A view from above, X up, with rings around the ego; ``place`` is 0 or 1."""
        box = self._maps[place]
        self._text_above(box, name, share=0.95 if place == 0 else 0.5)
        rows_m = grid.max_m[0] - grid.min_m[0]
        columns_m = grid.max_m[1] - grid.min_m[1]
        scale = min(box.width / columns_m, box.height / rows_m)  # pixels per metre
        size = (max(1, round(columns_m * scale)), max(1, round(rows_m * scale)))
        image = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(image, "RGBA")
        x, y = grid.max_m[1] * scale, grid.max_m[0] * scale
        farthest = max(*map(abs, (*grid.min_m[:2], *grid.max_m[:2])))
        for radius_m in np.arange(RING_STEP_M, farthest + 1, RING_STEP_M):
            r = radius_m * scale
            draw.ellipse((x - r, y - r, x + r, y + r), outline=(255, 255, 255, 90))
        a = 2.0 * scale
        if heading_known:
            arrow = [(x, y - 1.6 * a), (x - a / 2, y + a / 2), (x + a / 2, y + a / 2)]
            draw.polygon(arrow, EGO_COLOR)
        else:
            draw.ellipse((x - a / 2, y - a / 2, x + a / 2, y + a / 2), EGO_COLOR)
        frame = Image.new("RGB", (box.width, box.height), BACKGROUND)
        frame.paste(image, ((box.width - size[0]) // 2, (box.height - size[1]) // 2))
        self.canvas.paste(frame, (box.left, box.top))

    def heat_bar(self) -> None:
        """What the colors of the second map mean, above it on the right."""
        box, face = self._maps[1], font(self._size)
        width = box.width // 3
        right = box.right - round(face.getlength("1")) - self._gap
        left, middle = right - width, box.top - self._line // 2
        ramp = heat(np.linspace(0, 1, width))
        bar = Image.fromarray(np.repeat(ramp[None], self._size - 2, axis=0))
        self.canvas.paste(bar, (left, middle - bar.height // 2))
        for x, digit, anchor in ((right + self._gap, "1", "lm"), (left - self._gap, "0", "rm")):
            self._draw.text((x, middle), digit, font=face, fill=TEXT, anchor=anchor)

    def images(
        self,
        images: Sequence[CameraImage],
        meshes: Sequence[SurfaceMesh],
        color_table: NDArray[np.uint8],
    ) -> None:
        """Any number of images with the labels over them, column by column, as large as fits."""
        box = self._image_box
        if not images:
            text, face = "no camera images", font(self._size + 2)
            middle = (box.left + box.width // 2, box.top + box.height // 2)
            self._draw.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), BACKGROUND)
            self._draw.text(middle, text, font=face, fill=FAINT, anchor="mm")
            return
        aspect = max(p.view.height / p.view.width for p in images)
        n_columns = max(
            range(1, len(images) + 1), key=lambda n: self._cell_width(n, len(images), aspect)
        )
        n_rows = -(-len(images) // n_columns)
        cell_w = round(self._cell_width(n_columns, len(images), aspect))
        cell_h = min((box.height - (n_rows - 1) * self._gap) // n_rows, round(cell_w * aspect))
        for i, image in enumerate(images):
            left = box.left + (i // n_rows) * (cell_w + self._gap)
            top = box.top + (i % n_rows) * (cell_h + self._gap)
            view = image.view
            scale = min(cell_w / view.width, cell_h / view.height)
            width = max(1, int(view.width * scale))
            height = max(1, int(view.height * scale))
            overlay = draw_overlay(image, meshes, color_table, width=width, height=height)
            self.canvas.paste(overlay, (left, top))
            self._caption(
                Box(left=left, top=top, right=left + width, bottom=top + height), view.name
            )
        # flat images leave room, which the legend takes
        used = box.top + n_rows * (cell_h + self._gap)
        self._legend_box = replace(self._legend_box, top=min(used, self._legend_box.top))

    def legend(self, rows: Sequence[LegendRow], mask: str) -> None:
        """Colors, what they mean, and counts; comes after the images."""
        box = self._legend_box
        face = font(self._size, bold=True)
        total = f"{sum(row.count for row in rows):,} voxels shown, mask: {mask}"
        text = fitted(total, face, box.width)
        self._draw.text((box.left, box.top), text, font=face, fill=TEXT)
        draw_rows(
            self.canvas,
            (box.left, box.top + self._line, box.right, box.bottom),
            rows=rows,
            size_px=round(1.4 * self._size),
        )

    def notes(self, notes: Sequence[str]) -> None:
        """What could not be shown, at the bottom on the right."""
        box, face = self._notes_box, font(self._size)
        text = fitted("; ".join(notes), face, box.width)
        middle = box.top + box.height // 2
        self._draw.text((box.left, middle), text, font=face, fill=(255, 190, 90), anchor="lm")

    def _cell_width(self, n_columns: int, n: int, aspect: float) -> float:
        """Width of an image when ``n`` are laid in so many columns."""
        box, n_rows = self._image_box, -(-n // n_columns)
        by_width = (box.width - (n_columns - 1) * self._gap) / n_columns
        by_height = (box.height - (n_rows - 1) * self._gap) / n_rows / aspect
        return min(by_width, by_height)

    def _caption(self, box: Box, text: str) -> None:
        """A text in the upper left corner of a box, on a ground of its own."""
        face = font(self._size)
        text = fitted(text, face, box.width - 2 * self._gap)
        width = round(face.getlength(text)) + 2 * self._gap
        self._draw.rectangle((box.left, box.top, box.left + width, box.top + self._line), PAPER)
        place = (box.left + self._gap, box.top + self._line // 2)
        self._draw.text(place, text, font=face, fill=TEXT, anchor="lm")

    def _text_above(self, box: Box, text: str, share: float) -> None:
        face = font(self._size)
        text = fitted(text, face, box.width * share)
        place = (box.left, box.top - self._line // 2)
        self._draw.text(place, text, font=face, fill=TEXT, anchor="lm")
