"""Logs unlike the calibration scenes are noticed; logs like them are not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autolabel.confidence.drift import (
    Statistics,
    drift,
    drift_warning,
    mean_of,
    of_labels,
    reference_from_json,
    reference_to_json,
)
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import OCC3D_NUSCENES

NAMES = tuple(f"statistic {k}" for k in range(20))


def scenes(n: int, seed: int, **shifts: float) -> list[Statistics]:
    rng = np.random.default_rng(seed)
    return [{name: float(rng.normal(shifts.get(name, 0.0))) for name in NAMES} for _ in range(n)]


def test_logs_of_the_same_kind_hardly_ever_raise_it() -> None:
    alarms = sum(bool(drift(scenes(20, 2 * s), scenes(40, 2 * s + 1))) for s in range(300))
    assert alarms <= 9  # 3 are expected of 300


def test_what_differs_is_named_first() -> None:
    found = drift(scenes(12, 0, **{"statistic 7": 5.0}), scenes(30, 1))
    assert [d.name for d in found] == ["statistic 7"]
    assert found[0].here > 4 > 1 > found[0].there
    text = drift_warning(found, promised=True)
    assert "statistic 7" in text and "--max-error" in text
    assert "--max-error" not in drift_warning(found, promised=False)
    assert drift_warning([], promised=True) == ""


def test_statistics_that_a_log_lacks_are_passed_over() -> None:
    blind = [{k: v for k, v in one.items() if k != "statistic 3"} for one in scenes(8, 0)]
    assert drift(blind, scenes(30, 1)) == []


def test_too_few_scenes_are_no_sample() -> None:
    with pytest.raises(ValueError, match="at least 3 of each"):
        drift(scenes(2, 0), scenes(30, 1))


def test_a_reference_survives_json() -> None:
    reference = [*scenes(3, 0), {"statistic 1": 2.0, "other": 1.0}]
    again = reference_from_json(json.loads(json.dumps(reference_to_json(reference))))
    assert again == reference


def test_a_scene_has_the_means_of_its_frames() -> None:
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 2.0}]) == {"a": 1.5, "b": 2.0}


def test_labels_are_counted_where_lidar_saw_them() -> None:
    grid = VoxelGrid(min_m=(0.0, 0.0, -1.0), size_m=(1.0, 1.0, 1.0), shape=(2, 2, 2))
    free, car, road = OCC3D_NUSCENES.free_id, OCC3D_NUSCENES.id_of("car"), 11
    semantics = np.full(grid.shape, free, np.uint8)
    semantics[0, :, 0] = road
    semantics[0, 0, 1] = semantics[1, 1, 1] = car  # the second unseen
    raw = np.where(semantics == free, 0.9, 0.6).astype(np.float32)
    hits, passes = np.zeros((2, *grid.shape), np.uint8)
    hits[0, :, 0] = 1
    passes[0, 0, 1] = passes[1, 0, 0] = 3
    found = of_labels(semantics, raw, hits, passes, grid, OCC3D_NUSCENES)
    assert found["observed by LiDAR, share"] == 0.5
    assert found["softmax of occupied"] == pytest.approx(0.6)
    assert found["softmax of free"] == pytest.approx(0.9)
    assert found["hit of occupied, share"] == pytest.approx(2 / 3)
    assert found["car, share"] == pytest.approx(1 / 3)
    assert found["height of occupied, m"] == pytest.approx((-0.5 - 0.5 + 0.5) / 3)
