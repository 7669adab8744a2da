"""What moves is looked up where other frames saw it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autolabel.instances import Tracker
from autolabel.refinement.moving_objects import Objects
from autolabel.refinement.temporal_fusion import (
    FrameEvidence,
    Pooled,
    Refinement,
    evidence_of,
    pool,
)
from datasets.frames import Frame
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(32, 32, 6))
CAR, ROAD = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.id_of("driveable_surface")
FREE, K = OCC3D_NUSCENES.free_id, OCC3D_NUSCENES.n_classes
OFF = Refinement(near=(1,), far=(2,), evidence=False, objects=False)
ON = replace(OFF, objects=True)
NO_LIDAR = np.zeros(GRID.shape, np.uint8)


def scene(drawn: list[tuple[slice, slice, float]]) -> list[FrameEvidence]:
    """A car at these places of frames half a second apart, seen from x metres along the road."""
    tracker, frames = Tracker(GRID, OCC3D_NUSCENES), []
    for n, (along, across, ego_m) in enumerate(drawn):
        classes = np.full(GRID.shape, FREE)
        classes[..., 0] = ROAD
        classes[along, across, 1:3] = CAR
        logits = torch.zeros(*GRID.shape, K)
        logits.scatter_(-1, torch.from_numpy(classes)[..., None], 5.0)
        frame = Frame(
            scene_id="s",
            token=str(n),
            timestamp_us=500_000 * n,
            T_global_ego=from_yaw(0.0, (ego_m, 0.0, 0.0)),
            cameras=(),
            lidar=None,
        )
        evidence = evidence_of(frame, None, logits, NO_LIDAR, NO_LIDAR, GRID, OCC3D_NUSCENES)
        numbers = tracker.update(classes.astype(np.uint8), frame.T_global_ego, frame.timestamp_us)
        frames.append(replace(evidence, objects=numbers))
    return frames


def near(window: list[FrameEvidence], k: int, how: Refinement) -> NDArray[np.intp]:
    return pool(window, k, GRID, OCC3D_NUSCENES, how).near.argmax(-1).reshape(GRID.shape)


def cars(classes: NDArray[Any]) -> set[tuple[int, ...]]:
    return {tuple(int(i) for i in at) for at in np.argwhere(classes == CAR)}


def box(along: slice, across: slice) -> set[tuple[int, ...]]:
    whole = np.full(GRID.shape, FREE)
    whole[along, across, 1:3] = CAR
    return cars(whole)


def test_a_parked_car_half_seen_is_whole_in_what_other_frames_say() -> None:
    whole, half = (slice(10, 18), slice(10, 14)), (slice(10, 15), slice(10, 14))
    window = scene([(*whole, 0.0), (*half, 0.0), (*whole, 0.0)])
    found = cars(near(window, 1, ON))
    assert box(*half) < found <= box(*whole)
    assert found == box(slice(10, 16), whole[1])  # one voxel further than it was predicted
    assert not cars(near(window, 1, OFF)) - box(*half)


@pytest.mark.parametrize("speed", [1, 3, 6])
@pytest.mark.parametrize("ego_m", [0.0, 1.0])
def test_a_car_that_drives_is_met_where_it_has_gone(speed: int, ego_m: float) -> None:
    across, step = slice(10, 14), speed - round(ego_m / GRID.size_m[0])
    places = [slice(4 + step * n, 12 + step * n) for n in range(3)]
    window = scene([(at, across, ego_m * n) for n, at in enumerate(places)])
    place = places[1]
    assert cars(near(window, 1, ON)) == box(place, across)
    pooled = pool(window, 1, GRID, OCC3D_NUSCENES, ON)
    certain = pooled.near.reshape(*GRID.shape, K)[place, across, 1:3, CAR]
    assert certain.min() > -0.2  # what the others say, sure of it


def test_what_was_not_seen_elsewhere_is_left_as_it_was() -> None:
    across = slice(10, 14)
    window = scene([(slice(0, 0), across, 0.0), (slice(10, 18), across, 0.0)])
    for part in ("own", "near", "far", "self_only"):
        of: list[Pooled] = [pool(window, 1, GRID, OCC3D_NUSCENES, how) for how in (ON, OFF)]
        np.testing.assert_array_equal(getattr(of[0], part), getattr(of[1], part))


def test_shapes_that_hardly_overlap_are_not_put_together() -> None:
    numbers, other = np.zeros(GRID.shape, np.uint16), np.zeros(GRID.shape, np.uint16)
    numbers[10:20, 10, 1], other[10, 5:25, 1] = 7, 7
    matrix, offset = np.eye(3), np.full(3, 0.5)
    assert np.isnan(Objects(numbers, GRID).shifts(other, matrix, offset)).all()
    shifts = Objects(numbers, GRID).shifts(np.roll(numbers, 4, 0), matrix, offset)
    np.testing.assert_array_equal(shifts[1], (4, 0, 0))


def test_without_numbers_nothing_is_looked_up() -> None:
    across = slice(10, 14)
    followed = scene([(slice(4 + 3 * n, 12 + 3 * n), across, 0.0) for n in range(3)])
    window = [replace(frame, objects=None) for frame in followed]
    np.testing.assert_array_equal(near(window, 1, ON), near(window, 1, OFF))


def test_a_configuration_from_before_says_what_it_said() -> None:
    assert "objects" not in OFF.to_json() and ON.to_json()["objects"] is True
    for how in (ON, OFF):
        assert Refinement.from_json(how.to_json()) == how
