"""Hard voxelisation: from points to the mean of the first few points of each voxel.

Legend: P points, V voxels, F values per point (x, y, z first).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.geometry.grid import VoxelGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class Voxels:
    """Voxels of one frame, numbered by their first point.

    Attributes:
        zyx: (V, 3) int64.
        counts: (V,) int64, points kept.
        means: (V, F) float, mean over the kept points.
    """

    zyx: Tensor
    counts: Tensor
    means: Tensor


def voxelize(
    points: Tensor,  # (P, F) float32, x, y, z in the grid's frame, metres
    grid: VoxelGrid,
    *,
    max_points: int,
    max_voxels: int,
) -> Voxels:
    """First come, first kept: ``max_points`` a voxel, ``max_voxels`` in all.

    A full table of voxels still takes points into the voxels it has. Points outside the grid and
    points with NaN are left out. Same result as mmcv's hard voxelisation, points in the same order.
    """
    size, low = points.new_tensor(grid.size_m), points.new_tensor(grid.min_m)
    cell = ((points[:, :3] - low) / size).floor()
    inside = ((cell >= 0) & (cell < cell.new_tensor(grid.shape))).all(dim=1)
    inside_points, (x, y, z) = points[inside], cell[inside].long().unbind(1)
    X, Y, _ = grid.shape
    keys, order = ((z * Y + y) * X + x).sort(stable=True)
    distinct, group, sizes = torch.unique_consecutive(keys, return_inverse=True, return_counts=True)
    starts = sizes.cumsum(0) - sizes

    by_first = order[starts].argsort()[:max_voxels]  # group of each voxel number
    number = torch.full_like(starts, -1)
    number[by_first] = torch.arange(len(by_first), device=points.device)
    rank = torch.arange(len(keys), device=points.device) - starts[group]
    take = (rank < max_points) & (number[group] >= 0)

    counts = sizes[by_first].clamp(max=max_points)
    sums = inside_points.new_zeros(len(by_first), points.shape[1])
    sums.index_add_(0, number[group[take]], inside_points[order[take]])
    key = distinct[by_first]
    return Voxels(
        zyx=torch.stack((key // (X * Y), key // X % Y, key % X), dim=1),
        counts=counts,
        means=sums / counts[:, None],
    )
