"""Scores by range and over dynamic classes, and those of the other benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from datasets.geometry.grid import VoxelGrid
from datasets.metrics.confusion import ConfusionMatrix, RangeBins, RangedConfusion, ScoreTable
from datasets.metrics.fscore import FScore
from datasets.metrics.occ3d_waymo import WaymoScore
from datasets.metrics.openoccupancy import OpenOccupancyScore
from datasets.taxonomy import OCC3D_NUSCENES, OCC3D_WAYMO

GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4,) * 3, shape=(200, 200, 16))
SMALL = VoxelGrid(min_m=(-2.0, -2.0, 0.0), size_m=(0.4,) * 3, shape=(10, 10, 6))


def labels(*ids: int) -> NDArray[np.uint8]:
    return np.array(ids, np.uint8)


# ---- rings and dynamic classes -------------------------------------------------------------------


def test_a_voxel_belongs_to_the_ring_of_its_centre() -> None:
    bins = RangeBins()
    ring = bins.of(GRID)
    assert bins.names == ("0-10 m", "10-20 m", "20-30 m", "30-40 m", "beyond 40 m")
    assert ring.shape == GRID.shape
    for i, j in ((0, 0), (100, 100), (124, 100), (125, 99), (199, 100), (199, 199)):
        x, y, _ = GRID.centers(np.array([i, j, 0]))
        assert ring[i, j, 7] == min(int(np.hypot(x, y) // 10), 4)


def test_rings_lie_around_the_ego_frame_wherever_the_grid_is() -> None:
    ring = RangeBins(edges_m=(5.0,)).of(GRID, ego_m=(30.0, 0.0))
    assert ring[175, 100, 0] == 0 and ring[100, 100, 0] == 1


def test_an_edge_belongs_to_the_outer_ring() -> None:
    grid = VoxelGrid(min_m=(-0.5, -0.5, 0.0), size_m=(1.0, 1.0, 1.0), shape=(12, 1, 1))
    assert RangeBins(edges_m=(10.0,)).of(grid)[:, 0, 0].tolist() == [0] * 10 + [1, 1]


@pytest.mark.parametrize("edges", [(10.0, 10.0), (-1.0, 5.0), (float("nan"),)])
def test_edges_must_ascend(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        RangeBins(edges_m=edges)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_rings_add_up_to_the_whole(seed: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 18, (2, *SMALL.shape), np.uint8)
    truth[rng.random(SMALL.shape) < 0.1] = 255
    mask = rng.random(SMALL.shape) < 0.5 if masked else None
    bins = RangeBins(edges_m=(0.5, 1.5))
    whole, rings = ConfusionMatrix(18), RangedConfusion(18, bins)
    whole.update(truth, predicted, mask)
    rings.update(truth, predicted, bins.of(SMALL), mask)
    assert (rings.total().counts == whole.counts).all() and rings.total().frames == 1
    for k, matrix in enumerate(rings.matrices):
        inside = bins.of(SMALL) == k
        one = ConfusionMatrix(18)
        one.update(truth[inside], predicted[inside], None if mask is None else mask[inside])
        assert (matrix.counts == one.counts).all()


def test_rings_merge() -> None:
    ring = labels(0, 1, 4)
    whole, left, right = (RangedConfusion(18) for _ in range(3))
    for part, truth in ((left, labels(4, 4, 4)), (right, labels(7, 7, 4))):
        for score in (whole, part):
            score.update(truth, labels(4, 7, 4), ring)
    left.merge(right)
    pairs = zip(left.matrices, whole.matrices, strict=True)
    assert all((a.counts == b.counts).all() and a.frames == b.frames for a, b in pairs)
    with pytest.raises(ValueError, match="rings differ"):
        left.merge(RangedConfusion(18, RangeBins(edges_m=(7.0,))))


def test_the_table_has_dynamic_classes_and_rings() -> None:
    rings = RangedConfusion(18)
    rings.update(labels(4, 11, 11), labels(4, 11, 17), labels(0, 0, 4))
    table = ScoreTable.ranged(OCC3D_NUSCENES, {"all": rings})
    scores = table.to_json()
    assert scores["mIoU[all]"] == 75.0
    assert scores["mIoU[all, dynamic classes]"] == 100.0
    by_range = scores["by range[all]"]
    assert by_range["0-10 m"] == {  # type: ignore[index]
        "mIoU": 100.0,
        "mIoU, dynamic classes": 100.0,
        "voxels": 2,
    }
    assert by_range["beyond 40 m"]["mIoU"] == 0.0  # type: ignore[index]
    assert by_range["10-20 m"]["mIoU"] is None  # type: ignore[index]
    assert "mIoU, dynamic classes" in str(table) and "mIoU, beyond 40 m" in str(table)


# ---- other benchmarks ----------------------------------------------------------------------------


def test_openoccupancy_worked_example() -> None:
    score = OpenOccupancyScore()
    score.update(labels(0, 0, 0, 4, 4, 11, 255, 255, 7), labels(0, 4, 0, 4, 0, 11, 4, 0, 4))
    iou = score.iou()
    assert iou[[0, 4, 7, 11]] == pytest.approx([0.5, 0.25, 0, 1])
    assert score.occupancy(0).counts.tolist() == [[2, 1], [1, 3]]
    assert score.sc_iou() == pytest.approx(0.6)
    assert np.isnan(score.ssc_miou())  # the plain mean has no place for absent classes


def test_openoccupancy_mean_over_all_sixteen_classes() -> None:
    score = OpenOccupancyScore()
    score.update(np.arange(17, dtype=np.uint8), np.arange(17, dtype=np.uint8))
    score.update(labels(1), labels(2))
    assert score.ssc_miou() == pytest.approx((14 + 0.5 + 0.5) / 16)


def test_waymo_takes_free_space_by_either_number_and_voxels_in_all_masks() -> None:
    score = WaymoScore()
    in_view, seen = (np.array(mask, bool) for mask in ([1, 1, 1, 0, 1], [1, 1, 1, 1, 0]))
    score.update_masked(labels(23, 23, 1, 1, 2), labels(15, 23, 1, 2, 3), in_view, seen)
    assert score.counts.sum() == 3 and score.counts[15, 15] == 2 and score.counts[1, 1] == 1
    assert score.miou(OCC3D_WAYMO.semantic_ids) == 1.0


def test_fscore_agrees_with_nearest_neighbours() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = (
        np.where(rng.random(SMALL.shape) < 0.1, 4, 17).astype(np.uint8) for _ in range(2)
    )
    mask = rng.random(SMALL.shape) < 0.8
    score = FScore(SMALL, 17)
    score.update(truth, predicted, mask)
    t, p = (SMALL.centers(np.argwhere((v == 4) & mask)) for v in (truth, predicted))
    accuracy = (cKDTree(t).query(p)[0] < 0.6).mean()
    completeness = (cKDTree(p).query(t)[0] < 0.6).mean()
    f = 2 * accuracy * completeness / (accuracy + completeness)
    assert score.sums == pytest.approx([accuracy, completeness, f], abs=1e-7)


def test_fscore_without_prediction_is_zero_and_without_truth_undefined() -> None:
    free = np.full(SMALL.shape, 17, np.uint8)
    score = FScore(SMALL, 17)
    score.update(free, free)
    assert score.to_json() == {"accuracy": 0, "completeness": 0, "F": 0, "frames": 1}
    with pytest.raises(ValueError, match="no occupied voxel"):
        score.update(free, np.where(free == 17, np.uint8(4), free))
    assert score.frames == 1


def test_fscores_merge() -> None:
    box = np.full(SMALL.shape, 17, np.uint8)
    box[2:4] = 4
    whole, left, right = (FScore(SMALL, 17) for _ in range(3))
    for part, prediction in ((left, box), (right, np.roll(box, 3, axis=0))):
        for score in (whole, part):
            score.update(box, prediction)
    left.merge(right)
    assert left.to_json() == whole.to_json()
