"""Plane curves of straight lines and arcs: where streets run and vehicles drive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STRAIGHT = 1e-6  # 1/m, below it the centre of an arc is too far away to reckon with


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Lines and arcs in a row, smooth where they meet.

    Attributes:
        segments: (n, 6) float64: x, y, heading and ``s`` at the start of each, its length and its
            curvature (1/m, positive to the left). The first and the last go on for ever.
    """

    segments: Floats

    def place(self, s: Floats, d: Floats) -> tuple[Floats, Floats, Floats]:
        """Way along the curve and distance to its left: x, y and heading there."""
        s, d = np.asarray(s, np.float64), np.asarray(d, np.float64)
        index = np.searchsorted(self.segments[1:, 3], s, side="right")
        x, y, yaw, begin, _, bend = np.moveaxis(self.segments[index], -1, 0)
        t = s - begin
        turn = bend * t
        half = turn / 2
        chord = t * np.sinc(half / np.pi)
        x = x + chord * np.cos(yaw + half)
        y = y + chord * np.sin(yaw + half)
        yaw = yaw + turn
        return x - d * np.sin(yaw), y + d * np.cos(yaw), yaw


def curve(
    x: float, y: float, yaw_rad: float, pieces: Sequence[tuple[float, float]], *, s_m: float = 0.0
) -> Curve:
    """A curve from a point on: ``pieces`` of length and curvature; ``s_m`` is ``s`` at the point.

    Raises:
        ValueError: there is no piece, or one has no length.
    """
    if not pieces or min(length for length, _ in pieces) <= 0:
        raise ValueError(f"a curve needs pieces of positive length: {list(pieces)}")
    rows = []
    for length, bend in pieces:
        if abs(bend) < _STRAIGHT:
            bend = 0.0
        rows.append((x, y, yaw_rad, s_m, length, bend))
        half = bend * length / 2
        chord = length * float(np.sinc(half / np.pi))
        x, y = x + chord * np.cos(yaw_rad + half), y + chord * np.sin(yaw_rad + half)
        yaw_rad, s_m = yaw_rad + 2 * half, s_m + length
    return Curve(segments=np.array(rows, np.float64))
