"""LiDAR agreement on a hand-made scene."""

from __future__ import annotations

import numpy as np

from autolabel.auditing.lidar_agreement import lidar_agreement
from datasets.geometry.grid import VoxelGrid

GRID = VoxelGrid(min_m=(0, 0, 0), size_m=(1, 1, 1), shape=(10, 5, 5))


def test_returns_rays_and_neighbours_are_counted() -> None:
    occupied = np.zeros(GRID.shape, bool)
    occupied[6, 2, 2] = True  # where two returns end
    occupied[3, 2, 2] = True  # in the way of them
    occupied[1, 4, 4] = True  # nothing goes there
    points = np.array(
        [[6.5, 2.5, 2.5], [6.6, 2.5, 2.5], [7.5, 2.5, 2.5], [99, 0, 0], [0.5, 2.5, 2.6]],
        np.float32,
    )
    own = np.array([False, False, False, False, True])
    found = lidar_agreement(occupied, points, np.array([0.5, 2.5, 2.5]), own, GRID)
    assert (found.returns, found.returns_occupied, found.returns_near) == (3, 2, 3)
    assert found.on_vehicle == 1
    assert (found.occupied, found.observed) == (3, 2)
    # the third return's ray passes through both; only the nearer one is never hit
    assert (found.crossed, found.crossed_only) == (2, 1)
    assert found.row() == ("3", "66.7", "100.0", "66.7", "33.3", "66.7")
    assert (found + found).returns_near == 6
