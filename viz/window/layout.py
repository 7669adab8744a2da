"""Where the parts of the review window lie, at any size."""

from __future__ import annotations

from dataclasses import dataclass

LEFT_PX = (224, 272)
RIGHT_PX = (400, 600)
RIGHT_SHARE = 0.29
HEADER_PX = 34
FOOTER_PX = 82
INSET_PX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rect:
    """Pixels of the window."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def inside(self, width: int, height: int, *, at: str) -> Rect:
        """A rectangle of a size in the ``middle`` or the ``corner`` (lower left), cut to fit."""
        width, height = min(width, self.width), min(height, self.height)
        left, top = self.left + INSET_PX, self.bottom - height - INSET_PX
        if at == "middle":
            left = self.left + (self.width - width) // 2
            top = self.top + (self.height - height) // 2
        return Rect(left=left, top=max(top, self.top), width=width, height=height)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLayout:
    """Two panels of the whole height; between them header, 3D view and footer."""

    layers: Rect
    header: Rect
    scene: Rect
    footer: Rect
    review: Rect


def window_layout(left: int, top: int, width: int, height: int) -> WindowLayout:
    """The parts of a content area of a size, whose corner lies at (left, top)."""
    first = min(max(round(0.15 * width), LEFT_PX[0]), LEFT_PX[1])
    last = min(max(round(RIGHT_SHARE * width), RIGHT_PX[0]), RIGHT_PX[1])
    middle = max(width - first - last, 1)
    x = left + first
    scene = max(height - HEADER_PX - FOOTER_PX, 1)
    return WindowLayout(
        layers=Rect(left=left, top=top, width=first, height=height),
        header=Rect(left=x, top=top, width=middle, height=HEADER_PX),
        scene=Rect(left=x, top=top + HEADER_PX, width=middle, height=scene),
        footer=Rect(left=x, top=top + HEADER_PX + scene, width=middle, height=FOOTER_PX),
        review=Rect(left=x + middle, top=top, width=last, height=height),
    )
