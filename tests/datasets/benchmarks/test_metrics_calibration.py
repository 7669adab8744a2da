"""Confidence against truth: errors, curves and areas by hand, and merging."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.geometry.grid import VoxelGrid
from datasets.metrics.calibration import (
    ConfidenceCounts,
    ConfidenceScore,
    calibration_error,
    risk_coverage,
)
from datasets.metrics.confusion import RangeBins
from datasets.taxonomy import OCC3D_NUSCENES

LEVELS = (0.0, 0.5, 0.8, 0.9)
GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(4.0, 4.0, 0.4), shape=(20, 20, 2))
RING = RangeBins().of(GRID)


def score(seed: int) -> ConfidenceScore:
    out = ConfidenceScore(OCC3D_NUSCENES, LEVELS)
    add(out, seed)
    return out


def add(out: ConfidenceScore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    level = rng.integers(0, len(LEVELS), GRID.shape, np.uint8)
    truth = rng.integers(0, 17, GRID.shape, np.uint8)
    predicted = np.where(rng.random(GRID.shape) < np.array(LEVELS)[level], truth, 17)
    out.update(level, predicted.astype(np.uint8), truth, RING, rng.random(GRID.shape) < 0.9)


def test_calibration_error_is_the_mean_distance_of_groups_from_their_confidence() -> None:
    confidence = np.array([0.5, 0.9, 0.9])
    error = calibration_error(confidence, np.array([4, 5, 5]), np.array([2, 5, 2]))
    assert error == pytest.approx((0 * 4 + 0.2 * 10) / 14)


def test_calibration_error_of_nothing_is_undefined() -> None:
    assert np.isnan(calibration_error(np.array([0.5]), np.array([0]), np.array([0])))


def test_risk_and_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.5, 0.9]), np.array([2, 2]), np.array([0, 2]))
    assert curve.confidence.tolist() == [0.9, 0.5]
    assert curve.coverage.tolist() == [0.5, 1.0]
    assert curve.risk.tolist() == [0.0, 0.5]
    assert curve.area == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=6))
def test_area_is_the_mean_over_all_orders_of_equally_sure_voxels(
    voxels: list[tuple[float, bool]],
) -> None:
    areas = []
    for order in itertools.permutations(voxels):
        if [c for c, _ in order] == sorted((c for c, _ in order), reverse=True):
            wrong = np.array([not right for _, right in order]).cumsum()
            areas.append((wrong / np.arange(1, len(order) + 1)).mean())
    levels = np.array([0.2, 0.5, 0.9])
    seen = np.array([sum(c == v for c, _ in voxels) for v in levels])
    right = np.array([sum(c == v and ok for c, ok in voxels) for v in levels])
    assert risk_coverage(levels, seen, right).area == pytest.approx(np.mean(areas))


def test_risk_of_nothing_is_undefined() -> None:
    assert np.isnan(risk_coverage(np.array([0.5]), np.array([0]), np.array([0])).area)


def test_counts_are_kept_per_class_and_ring() -> None:
    out = ConfidenceScore(OCC3D_NUSCENES, LEVELS)
    level = np.full(GRID.shape, 3, np.uint8)
    truth = np.full(GRID.shape, 4, np.uint8)
    predicted = np.where(RING == 4, np.uint8(7), np.uint8(4))  # all wrong beyond 40 m
    out.update(level, predicted, truth, RING)
    far = out.to_json()["by range"]["beyond 40 m"]  # type: ignore[index]
    near = out.to_json()["by range"]["0-10 m"]  # type: ignore[index]
    assert far["ECE (plain)"] == pytest.approx(0.9) and near["ECE (plain)"] == pytest.approx(0.1)
    error = out.class_ece()
    assert error[7] == pytest.approx(0.9) and error[4] == pytest.approx(0.1) and np.isnan(error[0])


def test_brier_by_hand() -> None:
    out = ConfidenceScore(OCC3D_NUSCENES, LEVELS)
    level, predicted = np.array([2, 3], np.uint8), np.array([4, 4], np.uint8)
    out.update(level, predicted, np.array([4, 7], np.uint8), np.zeros(2, np.uint8))
    assert out.brier() == pytest.approx((0.2**2 + 0.9**2) / 2)


def test_calibrated_levels_have_a_small_error_and_others_a_large_one() -> None:
    out, boast = (ConfidenceScore(OCC3D_NUSCENES, v) for v in (LEVELS, (0.9, 0.95, 0.98, 0.99)))
    for seed in range(30):
        add(out, seed)
        add(boast, seed)
    assert out.ece() < 0.03 < 0.2 < boast.ece()


@given(st.lists(st.integers(0, 100), min_size=2, max_size=4))
def test_parts_merge_to_the_whole(seeds: list[int]) -> None:
    whole = score(seeds[0])
    left = score(seeds[0])
    for seed in seeds[1:]:
        add(whole, seed)
        left.merge(score(seed))
    assert json.dumps(left.to_json()) == json.dumps(whole.to_json())


def test_ignored_truth_does_not_count() -> None:
    out = ConfidenceScore(OCC3D_NUSCENES, LEVELS)
    ids = np.array([4, 255], np.uint8)
    out.update(np.zeros(2, np.uint8), np.array([4, 4], np.uint8), ids, np.zeros(2, np.uint8))
    assert out.total().seen.sum() == 1


@pytest.mark.parametrize(("bins", "classes"), [([4], [0]), ([0], [18])])
def test_an_unknown_level_or_class_is_refused(bins: list[int], classes: list[int]) -> None:
    with pytest.raises(ValueError, match="is not in 0"):
        ConfidenceCounts(18, 4).count(np.array(bins), np.array(classes), np.array([True]))


def test_other_levels_do_not_merge() -> None:
    with pytest.raises(ValueError, match="other classes, rings or confidences"):
        score(0).merge(ConfidenceScore(OCC3D_NUSCENES, (0.5, 0.9)))


@pytest.mark.parametrize("bad", [(1.2,), (float("nan"),)])
def test_confidence_must_be_a_probability(bad: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        ConfidenceScore(OCC3D_NUSCENES, bad)
