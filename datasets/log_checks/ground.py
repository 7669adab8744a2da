"""Height and slope of the ground, and upright columns, of a LiDAR sweep.

A column is a small horizontal cell with returns over a metre of height (pole, trunk, car, corner).
Ground rings and long barriers also agree under wrong poses, so they are not used.

Legend: N points, C columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_GROUND_OFF_M = 0.5

COLUMN_CELL_M, COLUMN_HEIGHT_M = 0.3, 1.0
COLUMN_FROM_M, COLUMN_TO_M = 0.5, 4.0
COLUMN_NEAR_M, COLUMN_FAR_M = 3.0, 40.0


def ground_height_m(points_ego: NDArray[Any]) -> float | None:
    """Height of the lowest surface around the vehicle; None with too few returns there.

    Args:
        points_ego: (N, 3) or wider.
    """
    near = points_ego[np.abs(np.linalg.norm(points_ego[:, :2], axis=1) - 8) < 5]
    cell = np.floor(near[:, :2]).astype(np.int64)
    lows = np.full((32, 32), np.inf)
    np.minimum.at(lows, (cell[:, 0] + 16, cell[:, 1] + 16), near[:, 2])
    heights = lows[np.isfinite(lows)]
    return float(np.median(heights)) if len(heights) >= 20 else None


def ground_slopes(points_ego: NDArray[Any]) -> NDArray[np.float64] | None:
    """(2,) how the ground around the vehicle rises along x and along y; None with too few returns.

    A plane through the lowest return of every square metre, robust against what stands on it. On
    the whole of a drive it is level, the vehicle standing on it: else the LiDAR is tilted.

    Args:
        points_ego: (N, 3) or wider.
    """
    near = points_ego[np.abs(np.linalg.norm(points_ego[:, :2], axis=1) - 8) < 5]
    cell = np.floor(near[:, :2]).astype(np.int64)
    order = np.lexsort((near[:, 2], cell[:, 1], cell[:, 0]))
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(cell[order], axis=0) != 0).any(axis=1)
    lows = np.asarray(near[order[first], :3], np.float64)
    if len(lows) < 40:
        return None
    A = np.c_[lows[:, :2], np.ones(len(lows))]
    weight = np.ones(len(lows))
    for _ in range(10):
        plane = np.linalg.lstsq(A * weight[:, None], lows[:, 2] * weight, rcond=None)[0]
        left = lows[:, 2] - A @ plane
        scale = max(1.48 * float(np.median(np.abs(left))), 0.02)
        weight = np.sqrt(1 / (1 + (left / scale) ** 2))
    slopes: NDArray[np.float64] = plane[:2]
    return slopes


def columns(points_ego: NDArray[Any]) -> NDArray[np.float64]:
    """(C, 3) middles of upright structure in metres, from (N, 3) points of one sweep."""
    distance = np.linalg.norm(points_ego[:, :2], axis=1)
    z = points_ego[:, 2]
    keep = (
        (z > COLUMN_FROM_M)
        & (z < COLUMN_TO_M)
        & (distance > COLUMN_NEAR_M)
        & (distance < COLUMN_FAR_M)
    )
    points = np.asarray(points_ego[keep, :3], np.float64)
    if not len(points):
        return np.empty((0, 3))
    cell = np.floor(points[:, :2] / COLUMN_CELL_M).astype(np.int64)
    _, column = np.unique(cell, axis=0, return_inverse=True)
    count = np.bincount(column)
    low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(low, column, points[:, 2])
    np.maximum.at(high, column, points[:, 2])
    middles = np.stack([np.bincount(column, points[:, i]) / count for i in range(3)], axis=1)
    upright: NDArray[np.float64] = middles[high - low >= COLUMN_HEIGHT_M]
    return upright


def spread(n: int, limit: int) -> list[int]:
    """At most ``limit`` of n indices, evenly spread."""
    return sorted({round(k) for k in np.linspace(0, n - 1, min(n, limit))}) if n else []
