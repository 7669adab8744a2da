"""Objects numbered in plainer ways, beside the tracker."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from objects import numberings

from datasets.frames import Frame
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(32, 32, 6))
CAR, FREE = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.free_id


def frame(n: int) -> Frame:
    return Frame(
        scene_id="s",
        token=str(n),
        timestamp_us=500_000 * n,
        T_global_ego=from_yaw(0.0, (0.0, 0.0, 0.0)),
        cameras=(),
        lidar=None,
    )


def cars(*places: int) -> NDArray[np.uint8]:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    for place in places:
        semantics[place : place + 4, 10:13, 1:3] = CAR
    return semantics


@pytest.mark.parametrize(
    ("name", "same"), [("tracks", True), ("nearest", True), ("components", False)]
)
def test_a_car_keeps_its_number_where_frames_are_linked(name: str, same: bool) -> None:
    number = numberings(GRID, OCC3D_NUSCENES)[name]
    before = number(cars(4, 20), frame(0))
    after = number(cars(22), frame(1))  # the first is gone, the second is the first component
    assert len(np.unique(before)) == 3 and before.shape == GRID.shape
    assert (after[22, 10, 1] == before[20, 10, 1]) == same


def test_nearest_gives_a_number_once() -> None:
    number = numberings(GRID, OCC3D_NUSCENES)["nearest"]
    number(cars(10), frame(0))
    after = number(cars(8, 14), frame(1))
    assert after[8, 10, 1] != after[14, 10, 1]
