"""Views from above: the topmost shown voxel of each column.

Legend: X forward (up in the image), Y left (left in the image), Z up.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from viz.render.scene3d import BACKGROUND


def class_map(
    ids: NDArray[np.uint8], shown: NDArray[np.bool_], color_table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colors from above, lower voxels a little darker.

    Args:
        ids, shown: (X, Y, Z).
        color_table: (256, 3), color of each id.

    Returns:
        (X, Y, 3) uint8, row 0 the farthest ahead, column 0 the farthest left.
    """
    any_shown, top = _topmost(shown)
    top_ids = np.take_along_axis(ids, top[..., None], axis=2)[..., 0]
    light = 0.75 + 0.25 * top / max(shown.shape[2] - 1, 1)
    return _oriented(color_table[top_ids] * light[..., None], any_shown)


def confidence_map(
    confidence: NDArray[np.uint8], shown: NDArray[np.bool_], level_table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Confidence of the topmost shown voxel, in the colors of ``level_colors``; see above."""
    any_shown, top = _topmost(shown)
    level = np.take_along_axis(confidence, top[..., None], axis=2)[..., 0]
    return _oriented(level_table[level].astype(np.float64), any_shown)


def level_colors(levels: tuple[float, ...]) -> NDArray[np.uint8]:
    """(256, 3) uint8: color of each confidence level; dark blue is 0, yellow is 1."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(levels)] = heat(np.asarray(levels))
    return table


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(..., 3) uint8 colors of values 0..1."""
    return np.asarray(colormaps["plasma"](values)[..., :3] * 255).round().astype(np.uint8)


def _topmost(shown: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    top = shown.shape[2] - 1 - np.argmax(shown[:, :, ::-1], axis=2)
    return shown.any(axis=2), top


def _oriented(colors: NDArray[np.float64], drawn: NDArray[np.bool_]) -> NDArray[np.uint8]:
    out = np.where(drawn[..., None], colors, BACKGROUND).round().astype(np.uint8)
    return np.ascontiguousarray(out[::-1, ::-1])
