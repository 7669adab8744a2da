"""Frames of a drive put together: the static world agrees, what moves is left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autolabel.refinement.fit import RefinerFit
from autolabel.refinement.temporal_fusion import (
    EVIDENCE_BINS,
    LOG_STEP,
    FrameEvidence,
    Refinement,
    Refiner,
    evidence_of,
    pool,
    refine,
    windows,
)
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.frames import Frame, LidarSweep
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(32, 32, 6))
FREE, CAR, ROAD = OCC3D_NUSCENES.free_id, OCC3D_NUSCENES.id_of("car"), 11
WALL = OCC3D_NUSCENES.id_of("manmade")
K = OCC3D_NUSCENES.n_classes
NO_LIDAR = np.zeros(GRID.shape, np.uint8)


def refiner(how: Refinement, **values: Any) -> Refiner:
    table = np.zeros((K, EVIDENCE_BINS), np.float32)
    given = {"own": 0.2, "near": 0.4, "far": 0.4, "self_only": 1.0} | values
    return Refiner(config=how, own_evidence=table, other_evidence=table.copy(), **given)


def sight(
    classes: NDArray[np.integer[Any]], x_m: float = 0.0, margin: float = 3.0, k: int = 0
) -> FrameEvidence:
    logits = torch.zeros(*GRID.shape, K)
    logits.scatter_(-1, torch.from_numpy(classes.astype(np.int64))[..., None], margin)
    frame = Frame(
        scene_id="s",
        token=str(k),
        timestamp_us=k,
        T_global_ego=from_yaw(0.0, (x_m, 0.0, 0.0)),
        cameras=(),
        lidar=None,
    )
    return evidence_of(frame, None, logits, NO_LIDAR, NO_LIDAR, GRID, OCC3D_NUSCENES)


def empty() -> NDArray[np.int64]:
    return np.full(GRID.shape, FREE)


@pytest.mark.parametrize("reach", [0, 1, 3])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_windows_hold_each_frame_with_those_around_it(n: int, reach: int) -> None:
    found = [(around[k], list(around)) for around, k in windows(range(n), reach)]
    want = [(k, list(range(max(0, k - reach), min(n, k + reach + 1)))) for k in range(n)]
    assert [one for one, _ in found] == list(range(n))
    for (_, around), (_, least) in zip(found, want, strict=True):
        assert set(least) <= set(around) and len(around) <= 2 * reach + 2


def test_windows_take_no_more_frames_than_they_need() -> None:
    drawn = []

    def frames() -> Any:
        for k in range(100):
            drawn.append(k)
            yield k

    next(windows(frames(), 2))
    assert drawn == [0, 1, 2]


def test_other_frames_outvote_a_wrong_one_at_the_same_place_of_the_world() -> None:
    wall = empty()
    wall[20, 10:20, 2] = ROAD
    seen_from_1m_ahead = empty()
    seen_from_1m_ahead[18, 10:20, 2] = ROAD  # 1 m is two voxels
    around = [sight(empty()), sight(seen_from_1m_ahead, 1.0), sight(wall)]
    how = Refinement(near=(1, 2), far=(), evidence=False)
    found = refine(pool(around, 0, GRID, OCC3D_NUSCENES, how), refiner(how), how, GRID)
    np.testing.assert_array_equal(found.argmax(-1), wall)


def test_what_moved_leaves_no_trail_and_is_left_where_it_is() -> None:
    here, there = empty(), empty()
    here[10:13, 10:13, 2] = CAR
    there[20:23, 10:13, 2] = CAR
    around = [sight(there), sight(here), sight(there)]
    how = Refinement(near=(1,), far=(2,), evidence=False)
    pooled = pool(around, 1, GRID, OCC3D_NUSCENES, how)
    found = refine(pooled, refiner(how, own=0.01), how, GRID)
    np.testing.assert_array_equal(found.argmax(-1), here)


def test_past_only_looks_at_no_later_frame() -> None:
    around = [sight(empty()), sight(empty()), sight(np.full(GRID.shape, ROAD))]
    how = Refinement(near=(1,), far=(), evidence=False)
    both = pool(around, 1, GRID, OCC3D_NUSCENES, how)
    past = Refinement(near=(1,), far=(), evidence=False, past_only=True)
    only = pool(around, 1, GRID, OCC3D_NUSCENES, past)
    np.testing.assert_array_equal(only.near, pool(around[:2], 1, GRID, OCC3D_NUSCENES, past).near)
    assert not np.array_equal(both.near, only.near)


def test_without_neighbours_a_frame_stands_for_them() -> None:
    how = Refinement(evidence=False)
    pooled = pool([sight(empty())], 0, GRID, OCC3D_NUSCENES, how)
    np.testing.assert_array_equal(pooled.near, pooled.own)
    np.testing.assert_array_equal(pooled.far, pooled.own)


def test_returns_of_other_frames_count_at_their_place_unless_they_lie_on_what_moves() -> None:
    classes = empty()
    classes[24, 16, 2] = CAR
    lidar = LidarSweep(path=Path("x.bin"), timestamp_us=1, T_ego_lidar=np.eye(4))
    frame = Frame(
        scene_id="s",
        token="1",
        timestamp_us=1,
        T_global_ego=from_yaw(0.0, (1.0, 0.0, 0.0)),
        cameras=(),
        lidar=lidar,
    )
    points = np.array([[2.2, -3.0, 0.2, 51, 0, 0], [4.2, 0.2, 0.2, 0, 0, 0]], np.float32)
    logits = torch.zeros(*GRID.shape, K)
    logits.scatter_(-1, torch.from_numpy(classes)[..., None], 3.0)
    other = evidence_of(frame, points, logits, NO_LIDAR, NO_LIDAR, GRID, OCC3D_NUSCENES)
    assert len(other.ends) == 1  # the second lies on the car
    how = Refinement(near=(1,), far=())
    pooled = pool([sight(empty()), other], 0, GRID, OCC3D_NUSCENES, how)
    hit = np.flatnonzero(pooled.other_bin >= 5)
    at = np.stack(np.unravel_index(hit, GRID.shape), -1)
    np.testing.assert_array_equal(at, GRID.indices(np.array([[3.2, -3.0, 0.2]])))
    own, others = np.split(pooled.surface[hit[0]], 2)
    assert not own.any()
    count, intensity, height, spread = others
    assert count == pytest.approx(np.log(2) / 2)
    assert intensity == pytest.approx(2 * (np.log(52) - 2))
    assert height == pytest.approx(4 * (0.2 / 0.5 - 0.5)) and spread == pytest.approx(0, abs=0.01)


def test_the_surface_in_a_voxel_is_the_mean_of_its_returns() -> None:
    lidar = LidarSweep(path=Path("x.bin"), timestamp_us=1, T_ego_lidar=np.eye(4))
    frame = Frame(
        scene_id="s",
        token="1",
        timestamp_us=1,
        T_global_ego=np.eye(4),
        cameras=(),
        lidar=lidar,
    )
    heights = np.array([0.05, 0.25, 0.45], np.float32)
    points = np.zeros((4, 6), np.float32)
    points[:3, 2], points[:3, 3] = heights, [0, 255, 300]  # brighter than bright counts as bright
    points[3, :3] = 100.0  # beyond the grid
    logits = torch.zeros(*GRID.shape, K)
    logits[..., FREE] = 3.0
    seen = evidence_of(frame, points, logits, NO_LIDAR, NO_LIDAR, GRID, OCC3D_NUSCENES)
    pooled = pool([seen], 0, GRID, OCC3D_NUSCENES, Refinement())
    assert np.flatnonzero(pooled.surface.any(axis=1)).tolist() == [
        GRID.flat(GRID.indices(np.zeros((1, 3))))[0]
    ]
    found = pooled.surface[GRID.flat(GRID.indices(np.zeros((1, 3))))[0], :4]
    want = [np.log(4) / 2, 2 * (np.log(171) - 2), 4 * (heights.mean() / 0.5 - 0.5)]
    want.append(4 * heights.std() / 0.5)
    np.testing.assert_allclose(found, want, atol=1e-3)


def test_log_probabilities_are_kept_to_half_a_step() -> None:
    logits = torch.randn(*GRID.shape, K, generator=torch.Generator().manual_seed(0)) * 3
    frame = Frame(
        scene_id="s", token="0", timestamp_us=0, T_global_ego=np.eye(4), cameras=(), lidar=None
    )
    kept = evidence_of(frame, None, logits, NO_LIDAR, NO_LIDAR, GRID, OCC3D_NUSCENES).surprisal
    exact = -logits.log_softmax(-1).numpy()
    shown = exact < 255 * LOG_STEP
    off = np.abs(kept * LOG_STEP - exact)[shown]
    assert off.max() <= LOG_STEP / 2 + 1e-5


def test_a_fit_learns_whom_to_believe() -> None:
    rng = np.random.default_rng(0)
    how = Refinement(near=(1,), far=(), evidence=False)
    learning = RefinerFit(OCC3D_NUSCENES, how, per_frame=2000)

    def noisy(truth: NDArray[np.int64], wrong: float) -> NDArray[np.int64]:
        other = np.where(rng.random(truth.shape) < 0.5, FREE, ROAD)
        return np.where(rng.random(truth.shape) < wrong, other, truth)

    scenes = []
    for _ in range(4):
        truth = np.where(rng.random(GRID.shape) < 0.5, FREE, ROAD)
        scenes.append((truth, [sight(noisy(truth, 0.8)), sight(noisy(truth, 0.1))]))
    for s, (truth, around) in enumerate(scenes[:3]):
        everywhere = np.ones(GRID.shape, bool)
        expected = GroundTruth(
            grid=GRID,
            taxonomy=OCC3D_NUSCENES,
            semantics=truth.astype(np.uint8),
            mask_lidar=everywhere,
            mask_camera=everywhere,
        )
        learning.update(around, 0, GRID, expected, f"scene-{s}")
    learnt = learning.fit()
    assert learnt.near > 2 * learnt.own > 0 and learnt.far == 0
    truth, around = scenes[3]
    found = refine(pool(around, 0, GRID, OCC3D_NUSCENES, how), learnt, how, GRID).argmax(-1)
    right = (found == truth).mean()
    assert right > 0.93 > 0.7 > (around[0].surprisal.argmin(-1) == truth).mean()
    again = Refiner.from_json(json.loads(json.dumps(learnt.to_json())))
    assert again.config == how and again.near == learnt.near
    np.testing.assert_allclose(again.own_evidence, learnt.own_evidence, atol=1e-5)


def test_a_refiner_with_a_table_of_another_shape_is_refused() -> None:
    good = refiner(Refinement())
    with pytest.raises(ValueError, match="own_evidence must be finite values of shape"):
        Refiner.from_json(good.to_json() | {"own_evidence": [[0.0]]})


def test_a_frame_whose_own_lidar_saw_the_voxel_counts_four_times() -> None:
    road, wall = empty(), empty()
    road[20, 16, 2], wall[20, 16, 2] = ROAD, WALL
    seen = NO_LIDAR.copy()
    seen[20, 16, 2] = 1
    how = Refinement(near=(1,), far=(), evidence=False)
    cell = GRID.flat(np.array([[20, 16, 2]]))

    def mean(hits: NDArray[np.uint8]) -> NDArray[np.float32]:
        before, here, after = sight(road), sight(empty()), sight(wall)
        around = [replace(before, hits=hits), here, after]
        near: NDArray[np.float32] = pool(around, 1, GRID, OCC3D_NUSCENES, how, cell).near[0]
        return near

    says_road, says_wall = (
        sight(one).surprisal[20, 16, 2].astype(np.float32) * -LOG_STEP for one in (road, wall)
    )
    np.testing.assert_allclose(mean(NO_LIDAR), (says_road + says_wall) / 2, rtol=1e-5)
    np.testing.assert_allclose(mean(seen), (4 * says_road + says_wall) / 5, rtol=1e-5)


def test_parts_of_pooled_evidence_keep_no_memory_of_the_others() -> None:
    whole = pool([sight(empty())], 0, GRID, OCC3D_NUSCENES, Refinement(evidence=False))
    few, rest = whole.split([10, GRID.n_voxels - 10])
    for name in ("own", "near", "far", "self_only", "own_bin", "other_bin", "surface"):
        parts = [getattr(few, name), getattr(rest, name)]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
        assert parts[0].base is None
