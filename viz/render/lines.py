"""Lines in the 3D view: flow arrows, boxes, range rings, the outline of a voxel.

Legend: L lines, by their ends in metres of the grid's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import Box
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply
from datasets.taxonomy import Taxonomy
from viz.render.scene3d import ColoredLines

RING_STEP_M = 10.0
MAX_ARROWS = 500
ARROW_STEP_M = 1.0
SLOWEST_MPS = 0.2
ARROW_COLOR = (255, 255, 255)
RING_COLOR = (150, 156, 170)
CELL_COLOR = (255, 240, 60)
BOX_EDGES = np.array([(a, b) for a in range(8) for b in range(a) if (a ^ b) in (1, 2, 4)])
UNIT_CORNERS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_PIN_M = 3.0


def flow_arrows(
    flow: NDArray[np.floating[Any]],  # (X, Y, Z, 2) m/s
    shown: NDArray[np.bool_],  # (X, Y, Z)
    grid: VoxelGrid,
) -> ColoredLines:
    """One arrow over each square metre with shown voxels that move, as long as what is travelled
    in 1 s.

    It is the mean of the moving voxels there. Where there are more than ``MAX_ARROWS`` every n-th
    is drawn.
    """
    x, y, z = np.nonzero(shown & (np.abs(flow) > 0).any(axis=-1))
    velocity = flow[x, y, z].astype(np.float64)
    moving = np.linalg.norm(velocity, axis=1) >= SLOWEST_MPS
    x, y, z, velocity = x[moving], y[moving], z[moving], velocity[moving]
    block_x, block_y = (max(1, round(ARROW_STEP_M / size)) for size in grid.size_m[:2])
    _, block_of, n = np.unique(
        x // block_x * grid.shape[1] + y // block_y, return_inverse=True, return_counts=True
    )
    starts_m = grid.centers(np.stack([x, y, z], axis=1))
    mean = np.stack([np.bincount(block_of, velocity[:, i]) / n for i in (0, 1)], axis=1)
    start = np.stack([np.bincount(block_of, starts_m[:, i]) / n for i in (0, 1, 2)], axis=1)
    start[:, 2] = -np.inf
    np.maximum.at(start[:, 2], block_of, starts_m[:, 2] + grid.size_m[2])
    keep = slice(None, None, -(-len(n) // MAX_ARROWS) or 1)
    start, mean = start[keep], mean[keep]
    along = np.concatenate([mean, np.zeros((len(mean), 1))], axis=1)
    end = start + along
    # barbs of half a metre, shorter on short arrows
    length = np.linalg.norm(along, axis=1, keepdims=True)
    back = along * np.minimum(0.4, 0.5 / np.maximum(length, SLOWEST_MPS))
    sideways = 0.6 * np.stack([-back[:, 1], back[:, 0], back[:, 2]], axis=1)
    lines = [(start, end), (end, end - back + sideways), (end, end - back - sideways)]
    ends = np.concatenate([np.stack(pair, axis=1) for pair in lines])
    return _lines("flow", ends, ARROW_COLOR)


def box_lines(boxes: Sequence[Box], taxonomy: Taxonomy) -> ColoredLines:
    """Edges of boxes in their classes' colors, made brighter, with a line towards the front."""
    ends, colors = [np.zeros((0, 2, 3))], [np.zeros((0, 3), np.uint8)]
    table = taxonomy.color_table().astype(np.float64)
    for box in boxes:
        corners = apply(box.T_ego_box, UNIT_CORNERS * np.asarray(box.size_m))
        nose = [[0, 0, 0], [0.5 * box.size_m[0] + 0.8, 0, 0]]
        lines = np.concatenate([corners[BOX_EDGES], apply(box.T_ego_box, np.array(nose))[None]])
        ends.append(lines)
        bright = (0.6 * table[box.class_id] + 0.4 * 255).round().astype(np.uint8)
        colors.append(np.tile(bright, (len(lines), 1)))
    return ColoredLines(
        name="boxes",
        ends_m=np.concatenate(ends).astype(np.float32),
        colors=np.concatenate(colors),
    )


def range_rings(grid: VoxelGrid, height_m: float) -> ColoredLines:
    """A ring every 10 m around the origin, inside the grid, at a height."""
    low, high = np.asarray(grid.min_m), np.asarray(grid.max_m)
    farthest = float(np.hypot(*np.maximum(np.abs(low[:2]), np.abs(high[:2]))))
    turn = np.linspace(0, 2 * np.pi, 181)
    unit = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    rings = []
    for radius in np.arange(RING_STEP_M, farthest, RING_STEP_M):
        points = np.concatenate([radius * unit, np.full((len(unit), 1), height_m)], axis=1)
        inside = ((points[:, :2] >= low[:2]) & (points[:, :2] <= high[:2])).all(axis=1)
        rings.append(np.stack([points[:-1], points[1:]], axis=1)[inside[:-1] & inside[1:]])
    ends = np.concatenate(rings) if rings else np.zeros((0, 2, 3))
    return _lines("range rings", ends, RING_COLOR)


def cell_outline(cell: tuple[int, int, int], grid: VoxelGrid) -> ColoredLines:
    """The edges of a voxel, a little outside of it, and a pin that stands on it."""
    size = np.asarray(grid.size_m)
    centre = grid.centers(np.asarray(cell))
    corners = centre + 1.06 * UNIT_CORNERS * size
    top = centre + np.array([0.0, 0.0, 0.5 * size[2]])
    pin = np.stack([top, top + np.array([0.0, 0.0, _PIN_M])])
    return _lines("picked voxel", np.concatenate([corners[BOX_EDGES], pin[None]]), CELL_COLOR)


def ground_top_m(shown: NDArray[np.bool_], grid: VoxelGrid, *, within_m: float = 15.0) -> float:
    """Top of the lowest shown voxels around the origin (median of the columns); 0 if none."""
    low = grid.indices(np.array([-within_m, -within_m, 0.0])).clip(0, grid.shape)
    high = grid.indices(np.array([within_m, within_m, 0.0])).clip(0, grid.shape)
    near = shown[low[0] : high[0], low[1] : high[1]]
    occupied = near.any(axis=2)
    if not occupied.any():
        return 0.0
    lowest = float(np.median(np.argmax(near, axis=2)[occupied]))
    return grid.min_m[2] + (lowest + 1) * grid.size_m[2]


def _lines(
    name: str, ends_m: NDArray[np.floating[Any]], color: tuple[int, int, int]
) -> ColoredLines:
    return ColoredLines(
        name=name,
        ends_m=ends_m.astype(np.float32),
        colors=np.tile(np.array(color, np.uint8), (len(ends_m), 1)),
    )
