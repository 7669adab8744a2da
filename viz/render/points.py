"""LiDAR points with the colors of what they are looked at for.

Legend: N points.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from datasets.labels.store import FrameLabels
from datasets.taxonomy import IGNORE_ID
from viz.render.scene3d import ColoredPoints
from viz.session.session import ReviewFrame

IN_OCCUPIED = (90, 235, 120)
IN_FREE = (255, 70, 70)
IN_UNKNOWN = (170, 170, 180)
_FREE_CLASS = (235, 235, 245)
_HEIGHTS_M = (-1.0, 4.0)
"""Above the lowest voxel that LiDAR points come from: the ends of the color range."""


def colored_points(
    frame: ReviewFrame,
    labels: FrameLabels | None,
    color: Literal["height", "class", "hit"],
    height_m: tuple[float, float] | None,
) -> tuple[tuple[ColoredPoints, ...], str]:
    """The points inside the grid, and what their colors mean; none if the log has none.

    Args:
        labels: whose voxels the points lie in; None: height it is.
        height_m: lowest and highest point shown.
    """
    if frame.points_m is None:
        return (), ""
    grid = frame.grid
    points = frame.points_m[grid.contains(frame.points_m)]
    if height_m is not None:
        points = points[(points[:, 2] >= height_m[0]) & (points[:, 2] <= height_m[1])]
    if color == "height" or labels is None:
        colors, caption = height_colors(points[:, 2]), "LiDAR by height, blue low"
    else:
        x, y, z = grid.indices(points).T
        classes = labels.semantics[x, y, z]
        free = frame.taxonomy.free_id
        if color == "class":
            table = frame.taxonomy.color_table()
            table[free], table[IGNORE_ID] = _FREE_CLASS, IN_UNKNOWN
            caption = "LiDAR by class of its voxel, white free"
        else:
            table = np.tile(np.array(IN_OCCUPIED, np.uint8), (256, 1))
            table[free], table[IGNORE_ID] = IN_FREE, IN_UNKNOWN
            caption = "LiDAR green in occupied, red in free voxels"
        colors = table[classes]
    return (ColoredPoints(name="LiDAR points", points_m=points, colors=colors),), caption


def height_colors(z_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 3) uint8: blue near the ground (the lowest twentieth), over green to yellow 5 m above."""
    if not len(z_m):
        return np.zeros((0, 3), np.uint8)
    low = float(np.percentile(z_m, 5)) + _HEIGHTS_M[0]
    share = (z_m - low) / (_HEIGHTS_M[1] - _HEIGHTS_M[0])
    table = (colormaps["turbo"](np.linspace(0.1, 0.95, 256))[:, :3] * 255).round().astype(np.uint8)
    return np.asarray(table[(share.clip(0, 1) * 255).astype(np.int64)])
