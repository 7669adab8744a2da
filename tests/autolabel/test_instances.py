"""Objects of a frame, and their numbers over a scene."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from autolabel.instances import Tracker, segments
from autolabel.instances.tracking import KEEP_S
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, from_yaw
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-20, -20, -1), size_m=(0.5, 0.5, 0.5), shape=(80, 80, 8))
CAR, TRUCK, PEDESTRIAN, ROAD = 4, 10, 7, 11
FREE = OCC3D_NUSCENES.free_id
HALF_S = 500_000


def labels(*objects: tuple[int, float, float]) -> NDArray[np.uint8]:
    """Objects of a class with their middle at x, y of the grid's frame: 4 x 2 m, people 1 x 1."""
    out = np.full(GRID.shape, FREE, np.uint8)
    out[..., 0] = ROAD
    for class_id, x, y in objects:
        half = (0.5, 0.5) if class_id == PEDESTRIAN else (2.0, 1.0)
        i0, j0 = (round((v - h + 20) / 0.5) for v, h in zip((x, y), half, strict=True))
        i1, j1 = (round((v + h + 20) / 0.5) for v, h in zip((x, y), half, strict=True))
        out[i0:i1, j0:j1, 1:4] = class_id
    return out


def numbers_at(ids: NDArray[np.uint16], *places: tuple[float, float]) -> list[int]:
    return [int(ids[round((x + 20) / 0.5), round((y + 20) / 0.5), 2]) for x, y in places]


def follow(*frames: NDArray[np.uint8], T: list[Transform] | None = None) -> list[NDArray]:
    tracker = Tracker(GRID, OCC3D_NUSCENES)
    poses = T or [np.eye(4)] * len(frames)
    return [tracker.update(f, poses[k], k * HALF_S) for k, f in enumerate(frames)]


def test_objects_of_a_frame() -> None:
    both = labels((CAR, 5, 5), (PEDESTRIAN, 5, 8), (CAR, -8, -3))
    found = segments(both, GRID, from_yaw(0, [100, 0, 0]), OCC3D_NUSCENES)
    assert [(s.class_id, s.group) for s in found] == [
        (CAR, "vehicles"),
        (CAR, "vehicles"),
        (PEDESTRIAN, "people"),
    ]
    np.testing.assert_allclose(found[0].centre_m, [92, -3, 0.25])
    assert found[0].extent_m == pytest.approx(np.hypot(4, 2))
    assert (both.ravel()[found[2].voxels] == PEDESTRIAN).all()


def test_an_object_of_two_classes_is_one() -> None:
    mixed = labels((CAR, 5, 5))
    mixed[46:49, 48:52, 3][mixed[46:49, 48:52, 3] == CAR] = TRUCK
    (one,) = segments(mixed, GRID, np.eye(4), OCC3D_NUSCENES)
    assert one.class_id == CAR


def test_nothing_that_moves() -> None:
    assert segments(labels(), GRID, np.eye(4), OCC3D_NUSCENES) == []
    single = labels()
    single[40, 40, 3] = CAR
    assert segments(single, GRID, np.eye(4), OCC3D_NUSCENES) == [], "one voxel is no object"
    assert not follow(labels())[0].any()


def test_moving_objects_keep_their_number_and_new_ones_get_another() -> None:
    first, second, third = follow(
        labels((CAR, -10, 0), (CAR, 5, 5)),
        labels((CAR, -4, 0), (CAR, 5, 5)),
        labels((CAR, 2, 0), (CAR, 5, 5), (PEDESTRIAN, 0, -10)),
    )
    moving, parked = numbers_at(first, (-10, 0), (5, 5))
    assert moving != parked and {moving, parked} == {1, 2}
    assert numbers_at(second, (-4, 0), (5, 5)) == [moving, parked]
    assert numbers_at(third, (2, 0), (5, 5), (0, -10)) == [moving, parked, 3]


def test_the_vehicles_own_motion_is_no_motion_of_others() -> None:
    poses = [from_yaw(0.2 * k, [8.0 * k, 0, 0]) for k in range(2)]
    place = np.array([12.0, 2.0, 0, 1])
    x, y = (np.linalg.inv(poses[1]) @ place)[:2]
    first, second = follow(labels((CAR, 12, 2)), labels((CAR, x, y)), T=poses)
    assert numbers_at(first, (12, 2)) == numbers_at(second, (x, y)) == [1]


def test_cars_that_follow_each_other_are_not_exchanged() -> None:
    frames = [labels((CAR, -15 + 5 * k, 0), (CAR, -8 + 5 * k, 0)) for k in range(4)]
    out = follow(*frames)
    for k in range(1, 4):
        assert numbers_at(out[k], (-15 + 5 * k, 0), (-8 + 5 * k, 0)) == numbers_at(
            out[0], (-15, 0), (-8, 0)
        )


def test_an_object_may_be_hidden_for_a_while() -> None:
    car = labels((CAR, 5, 5))
    out = follow(car, labels(), labels(), car)
    assert numbers_at(out[3], (5, 5)) == [1]
    tracker = Tracker(GRID, OCC3D_NUSCENES)
    tracker.update(car, np.eye(4), 0)
    later = tracker.update(car, np.eye(4), int((KEEP_S + 0.5) * 1e6))
    assert numbers_at(later, (5, 5)) == [2], "after too long it is another"


def test_a_person_is_not_continued_as_a_car() -> None:
    out = follow(labels((PEDESTRIAN, 5, 5)), labels((CAR, 5, 5)))
    assert numbers_at(out[1], (5, 5)) == [2]


def test_frames_come_in_the_order_of_time() -> None:
    tracker = Tracker(GRID, OCC3D_NUSCENES)
    tracker.update(labels((CAR, 5, 5)), np.eye(4), HALF_S)
    with pytest.raises(ValueError, match="after a later one"):
        tracker.update(labels(), np.eye(4), 0)
