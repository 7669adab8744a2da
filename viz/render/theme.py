"""Colours and sizes of the review window: one dark theme for its widgets and its drawn panels."""

from __future__ import annotations

Colour = tuple[int, int, int]

WINDOW: Colour = (20, 22, 27)
PANEL: Colour = (32, 35, 42)
RAISED: Colour = (48, 52, 62)
HELD: Colour = (58, 92, 160)
TEXT: Colour = (230, 233, 240)
FAINT: Colour = (150, 156, 170)
MARK: Colour = (255, 255, 90)
GOOD: Colour = (86, 190, 120)
BAD: Colour = (232, 92, 88)
DOUBT: Colour = (236, 180, 74)

FONT_PX = 14
GAP_PX = 6
EDGE_PX = 10
