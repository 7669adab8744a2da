"""Panoptic quality and identity, on objects whose overlap is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.annotations import Box
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.ground_truth.box_instances import box_instances
from datasets.metrics.panoptic import PanopticQuality
from datasets.taxonomy import OCC3D_NUSCENES

CAR, TRUCK, ROAD = 4, 10, 11
Pair = tuple[NDArray[np.uint8], NDArray[np.int64]]


def row(*objects: tuple[int, int, int, int]) -> Pair:
    """A row of 40 voxels: class, number, first, last + 1."""
    semantics = np.full(40, ROAD, np.uint8)
    ids = np.zeros(40, np.int64)
    for class_id, number, start, stop in objects:
        semantics[start:stop], ids[start:stop] = class_id, number
    return semantics, ids


def test_quality_is_the_mean_iou_times_the_f1_score() -> None:
    quality = PanopticQuality((CAR, TRUCK))
    truth = row((CAR, 1, 0, 10), (CAR, 2, 20, 30), (TRUCK, 3, 35, 40))
    quality.update("s", truth, row((CAR, 7, 0, 8), (CAR, 8, 25, 35)))
    # the first car matches by 8 of 10; the second overlaps by 5 of 15; the truck is missed
    pq, sq, rq = quality.quality()[CAR]
    assert (sq, rq) == (pytest.approx(0.8), pytest.approx(1 / 2))
    assert pq == pytest.approx(0.4)
    assert quality.quality()[TRUCK] == (0, 0, 0)
    assert quality.pq() == pytest.approx(0.2)


def test_another_class_is_no_match() -> None:
    quality = PanopticQuality((CAR, TRUCK))
    quality.update("s", row((CAR, 1, 0, 10)), row((TRUCK, 1, 0, 10)))
    assert quality.quality() == {CAR: (0, 0, 0), TRUCK: (0, 0, 0)}
    assert np.isnan(PanopticQuality((CAR,)).pq())


def test_masked_voxels_and_small_objects_do_not_count() -> None:
    truth, labels = row((CAR, 1, 0, 10), (CAR, 2, 20, 22)), row((CAR, 5, 0, 20), (CAR, 6, 20, 24))
    mask = np.arange(40) < 10
    masked = PanopticQuality((CAR,))
    masked.update("s", truth, labels, mask)
    assert masked.quality()[CAR] == (1, 1, 1)
    large = PanopticQuality((CAR,), min_voxels=4)
    large.update("s", row((CAR, 2, 20, 22)), row((CAR, 6, 20, 23)))
    assert large.quality() == {}, "neither missed nor found for nothing"
    large.update("s", row((CAR, 2, 20, 22)), row((CAR, 6, 20, 30)))
    assert large.false[CAR] == 1


def test_identity_follows_the_matches_of_a_scene() -> None:
    quality = PanopticQuality((CAR,))
    for scene, numbers in (("a", (1, 1, 1)), ("b", (1, 1, 2)), ("c", (4,))):
        for number in numbers:
            quality.update(scene, row((CAR, 9, 0, 10)), row((CAR, number, 0, 10)))
    identity = quality.identity()
    assert (identity.tracks, identity.whole) == (2, 1)
    assert (identity.switches, identity.links) == (1, 4)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        PanopticQuality((CAR,)).update("s", row(), (np.zeros(3, np.uint8), np.zeros(3, np.int64)))


def test_voxels_belong_to_the_box_around_them() -> None:
    grid = VoxelGrid(min_m=(-10, -10, -1), size_m=(1, 1, 1), shape=(20, 20, 4))
    semantics = np.full(grid.shape, OCC3D_NUSCENES.free_id, np.uint8)
    semantics[12:17, 9:11, 1:3] = CAR
    semantics[2:4, 2:4, 1] = CAR  # in no box
    semantics[..., 0] = ROAD
    boxes = [
        Box(track="a", class_id=CAR, T_ego_box=from_yaw(0, [3.5, 0, 1]), size_m=(3, 2, 2)),
        Box(track="b", class_id=CAR, T_ego_box=from_yaw(0, [6, 0, 1]), size_m=(2, 2, 2)),
    ]
    numbers: dict[str, int] = {"b": 1}
    ids = box_instances(semantics, boxes, numbers, grid, OCC3D_NUSCENES)
    assert numbers == {"b": 1, "a": 2}
    assert (ids[12:15, 9:11, 1:3] == 2).all() and (ids[15:17, 9:11, 1:3] == 1).all()
    assert not ids[2:4, 2:4].any() and not ids[..., 0].any()
    assert not box_instances(semantics, [], numbers, grid, OCC3D_NUSCENES).any()
