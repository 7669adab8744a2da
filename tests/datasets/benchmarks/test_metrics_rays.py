"""RayIoU, mAVE and OccScore: the worked examples, the protocol's rules, and merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.frames import Frame, LidarSweep
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.metrics.confusion import ConfusionMatrix
from datasets.metrics.rays import RayEnds, RayScore, lidar_origins, lidar_rays, ray_ends
from datasets.taxonomy import OCC3D_NUSCENES, OPENOCC_FLOW

GRID = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(0.4,) * 3, shape=(40, 40, 16))
FREE = OCC3D_NUSCENES.free_id
ORIGIN = np.array([[0.1, 0.05, 1.8]])


def ends(labels: list[int], distances_m: list[float]) -> RayEnds:
    n = len(labels)
    return RayEnds(
        label=np.array(labels, np.uint8),
        distance_m=np.array(distances_m, np.float32),
        voxel=np.zeros((n, 3), np.int64),
    )


def street(seed: int = 0) -> NDArray[np.uint8]:
    """Ground with a few blocks of every class on it."""
    rng = np.random.default_rng(seed)
    labels = np.full(GRID.shape, FREE, np.uint8)
    labels[:, :, 0] = 11
    for label in (*range(17), *range(17)):
        x, y = rng.integers(0, 37, 2)
        labels[x : x + 3, y : y + 3, 1 : rng.integers(2, 12)] = label
    labels[17:24, 17:24, 1:] = FREE  # where the sensor is
    return labels


def scored(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], **more: Any) -> RayScore:
    score = RayScore(OCC3D_NUSCENES, GRID)
    score.update(truth, prediction, ORIGIN, **more)
    return score


def test_worked_example_of_ray_iou() -> None:
    score = RayScore(OCC3D_NUSCENES, GRID)
    score.add(
        ends([4, 4, 7, 11, 11], [10, 10, 5, 20, 20]),
        ends([4, 4, 4, 11, 17], [10.5, 13, 5, 21.5, 40]),
    )
    iou = score.iou()
    assert iou[:, 4] == pytest.approx([0.25, 0.25, 2 / 3])
    assert iou[:, 7] == pytest.approx([0, 0, 0])
    assert iou[:, 11] == pytest.approx([0, 0.5, 0.5])
    assert np.nanmean(iou, axis=1) == pytest.approx([0.0833, 0.25, 0.3889], abs=1e-4)
    assert score.ray_iou() == pytest.approx(0.2407, abs=1e-4)


@pytest.mark.parametrize(
    ("ray_iou", "mave", "occ_score"), [(0.40, 0.5, 0.41), (0.44133, 2.156, 0.3972)]
)
def test_worked_examples_of_occ_score(
    ray_iou: float, mave: float, occ_score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayScore, "ray_iou", lambda self: ray_iou)
    monkeypatch.setattr(RayScore, "mave", lambda self: mave)
    assert RayScore(OPENOCC_FLOW, GRID).occ_score() == pytest.approx(occ_score, abs=1e-5)


def test_rays_are_39_pitches_times_360_azimuths() -> None:
    rays = lidar_rays()
    assert rays.shape == (14_040, 3) and rays.dtype == np.float32
    pitch = np.rad2deg(np.arcsin(rays[::360, 2].astype(np.float64)))
    assert pitch[[0, 9, 38]] == pytest.approx([-45, -5.711, 12.548], abs=1e-3)
    assert np.linalg.norm(rays, axis=1) == pytest.approx(1, abs=1e-6)


def test_a_threshold_is_not_reached_by_its_own_distance() -> None:
    score = RayScore(OCC3D_NUSCENES, GRID)
    score.add(ends([4], [10]), ends([4], [12]))
    assert score.right[:, 4].tolist() == [0, 0, 1]


def test_truth_as_its_own_prediction_is_perfect() -> None:
    flow = np.random.default_rng(0).normal(size=(*GRID.shape, 2)).astype(np.float32)
    score = scored(street(), street(), truth_flow=flow, predicted_flow=flow)
    assert score.ray_iou() == 1 and score.mave() == 0 and score.occ_score() == 1


def test_a_prediction_with_x_and_y_exchanged_is_far_from_perfect() -> None:
    assert scored(street(), street().transpose(1, 0, 2)).ray_iou() < 0.5


def test_a_thin_wall_off_by_one_voxel_is_lost_to_miou_but_not_to_rays() -> None:
    truth = np.full(GRID.shape, FREE, np.uint8)
    truth[30] = 15
    shifted = np.roll(truth, 1, axis=0)
    matrix = ConfusionMatrix(18)
    matrix.update(truth, shifted)
    assert matrix.iou()[15] == 0
    assert scored(truth, shifted).iou()[0, 15] > 0.9


def test_nothing_predicted_is_zero() -> None:
    nothing = np.full(GRID.shape, FREE, np.uint8)
    assert scored(street(), nothing).ray_iou() == 0


def test_no_hit_in_the_truth_is_null_with_a_count_and_not_a_zero() -> None:
    nothing = np.full(GRID.shape, FREE, np.uint8)
    score = scored(nothing, street())
    assert np.isnan(score.iou()).all() and np.isnan(score.threshold_iou()).all()
    assert np.isnan(score.ray_iou()) and np.isnan(score.occ_score())
    told = score.to_json()
    assert told["RayIoU"] is None and told["rays"] == 0
    assert told["rays without a hit"] == len(lidar_rays()) * score.origins > 0


def test_ignored_truth_is_free_space() -> None:
    truth = street()
    ignored = np.where(truth == 4, np.uint8(255), truth)
    free = np.where(truth == 4, np.uint8(FREE), truth)
    a, b = scored(ignored, truth), scored(free, truth)
    assert (a.truth == b.truth).all() and (a.right == b.right).all()


def test_the_distance_is_taken_where_the_ray_leaves_the_voxel() -> None:
    labels = np.full(GRID.shape, FREE, np.uint8)
    labels[30, 20, 7] = 4
    origin, ahead = np.array([[0.2, 0.2, 2.0]]), np.array([[1, 0, 0]], np.float32)
    found = ray_ends(labels, GRID, FREE, origin, ahead)
    assert found.label.tolist() == [4] and found.voxel.tolist() == [[30, 20, 7]]
    assert found.distance_m == pytest.approx([31 * 0.4 - 8.2])


def test_the_voxel_of_the_sensor_counts() -> None:
    labels = np.full(GRID.shape, FREE, np.uint8)
    labels[20, 20, 7] = 4
    origin, back = np.array([[0.0, 0.2, 2.0]]), np.array([[-1, 0, 0]], np.float32)
    found = ray_ends(labels, GRID, FREE, origin, back)
    assert found.label.tolist() == [4] and found.distance_m.tolist() == [0]


def test_velocity_counts_only_right_rays_of_movable_classes() -> None:
    score = RayScore(OCC3D_NUSCENES, GRID)
    score.add(
        ends([4, 4, 7, 11, 3], [10, 10, 5, 20, 7]),
        ends([4, 4, 7, 11, 3], [11.5, 12.5, 5, 20, 7]),
        np.array([1.0, 100.0, 3.0, 100.0, 2.0]),
    )
    error = score.velocity_errors()
    assert error[4] == 1 and error[7] == 3 and error[3] == 2 and np.isnan(error[11])
    assert score.mave() == 2


def test_without_flow_there_is_no_velocity_error() -> None:
    score = scored(street(), street())
    assert np.isnan(score.mave()) and np.isnan(score.occ_score())
    assert not {"mAVE [m/s]", "OccScore"} & set(score.to_json())


def test_flow_of_one_side_only_is_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        scored(street(), street(), truth_flow=np.zeros((*GRID.shape, 2), np.float32))


def test_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction 200"):
        scored(street(), np.where(street() == 11, np.uint8(200), street()))


def test_a_ray_that_ends_in_a_class_without_a_name_is_wrong_and_counts_for_no_class() -> None:
    truth, prediction = street(), street()
    prediction[prediction == 4] = OCC3D_NUSCENES.n_classes
    with pytest.raises(ValueError, match="prediction 18"):
        scored(truth, prediction)
    score = RayScore(OCC3D_NUSCENES, GRID, has_unmapped=True)
    score.update(truth, prediction, ORIGIN)
    iou = score.iou()
    assert (iou[:, 4] == 0).all() and score.truth[4] > 0 == score.predicted[4]
    others = [k for k in range(17) if k != 4 and score.truth[k]]
    assert (iou[:, others] == 1).all()


def test_flat_voxels_are_refused() -> None:
    flat = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(0.4, 0.4, 0.2), shape=GRID.shape)
    with pytest.raises(ValueError, match="cubic"):
        RayScore(OCC3D_NUSCENES, flat).update(street(), street(), ORIGIN)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=4), st.integers(1, 3))
def test_parts_merge_to_the_whole(seeds: list[int], cut: int) -> None:
    whole, left, right = (RayScore(OCC3D_NUSCENES, GRID) for _ in range(3))
    flow = np.random.default_rng(0).normal(size=(2, *GRID.shape, 2)).astype(np.float32)
    for i, seed in enumerate(seeds):
        part = left if i < cut else right
        for score in (whole, part):
            score.update(
                street(seed),
                street(seed + 1),
                ORIGIN,
                truth_flow=flow[0],
                predicted_flow=flow[1],
            )
    left.merge(right)
    assert (left.right == whole.right).all() and (left.truth == whole.truth).all()
    assert left.mave() == pytest.approx(whole.mave(), nan_ok=True)
    assert left.to_json() == whole.to_json()


def test_scores_of_different_classes_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different"):
        RayScore(OCC3D_NUSCENES, GRID).merge(RayScore(OPENOCC_FLOW, GRID))


# ---- origins -------------------------------------------------------------------------------------


def drive(xs: list[float], *, lidar: bool = True) -> list[Frame]:
    """Frames along a road that runs at 30 degrees, with a LiDAR 1 m ahead of and 1.8 m above."""
    T_ego_lidar = from_yaw(-np.pi / 2, (1.0, 0.0, 1.8))
    direction = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    return [
        Frame(
            scene_id="s",
            token=str(i),
            timestamp_us=i,
            T_global_ego=from_yaw(np.pi / 6, (*(direction * x + 600), 0.0)),
            cameras=(),
            lidar=LidarSweep(path=Path("x"), timestamp_us=i, T_ego_lidar=T_ego_lidar)
            if lidar
            else None,
        )
        for i, x in enumerate(xs)
    ]


def test_origins_are_the_lidar_places_of_the_scene_in_the_frame() -> None:
    origins = lidar_origins(drive([0, 5, 12]), 1)
    assert origins == pytest.approx(np.array([[-4, 0, 1.8], [1, 0, 1.8], [8, 0, 1.8]]), abs=1e-4)


def test_places_39_m_away_are_left_out() -> None:
    origins = lidar_origins(drive([-41, -39, 0, 37, 38.5, 100]), 2)
    assert origins[:, 0] == pytest.approx([-38, 1, 38], abs=1e-4)


def test_of_many_places_eight_are_taken_evenly_first_and_last_among_them() -> None:
    origins = lidar_origins(drive([float(x) for x in range(17)]), 0)
    # round(linspace(0, 16, 8)) = 0 2 5 7 9 11 14 16
    assert origins[:, 0] == pytest.approx([1, 3, 6, 8, 10, 12, 15, 17], abs=1e-4)


def test_a_frame_without_lidar_has_no_origins() -> None:
    with pytest.raises(SceneError, match="LiDAR"):
        lidar_origins(drive([0, 1], lidar=False), 0)
