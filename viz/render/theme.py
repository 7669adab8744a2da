"""Colors and sizes of the review window: one dark theme for its widgets and its drawn panels."""

from __future__ import annotations

Color = tuple[int, int, int]

WINDOW: Color = (20, 22, 27)
PANEL: Color = (32, 35, 42)
RAISED: Color = (48, 52, 62)
HELD: Color = (58, 92, 160)
TEXT: Color = (230, 233, 240)
FAINT: Color = (150, 156, 170)
MARK: Color = (255, 255, 90)
GOOD: Color = (86, 190, 120)
BAD: Color = (232, 92, 88)
DOUBT: Color = (236, 180, 74)

FONT_PX = 14
GAP_PX = 6
EDGE_PX = 10
