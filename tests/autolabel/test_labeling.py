"""One scene through a teacher: what the labels, their confidence and their mask promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat_ground import CAR, FREE, GRID, ROAD, Ground, Stub, label, teacher, truth_by
from numpy.typing import NDArray
from torch import Tensor, nn

from autolabel.calibration.fit import CrossFitted, calibrate, fit_refiners
from autolabel.confidence.calibration import LEVELS, Calibration, CalibrationHistogram
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_frames, warm_up
from autolabel.labeling.store_header import store_header
from autolabel.labeling.visibility import visible_to_cameras
from autolabel.refinement.temporal_fusion import Refinement, Refiner
from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SceneError
from datasets.frames import CameraView
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.store import LabelStore, MaskBit, SceneLabels
from datasets.loading.targets import GroundTruthTargets
from datasets.model_inputs import ModelInputs
from datasets.taxonomy import OCC3D_NUSCENES, OPENOCCUPANCY
from models.checkpoints.checkpoint import LoadedModel
from models.inference.predictor import OccupancyPredictor


def bit(labels: SceneLabels, which: MaskBit) -> NDArray[np.bool_]:
    return (labels.mask & which) > 0


def test_labels_carry_the_teachers_classes_and_the_frames_poses() -> None:
    labels = label()
    assert labels.frame_tokens == ("s1-0", "s1-1")
    np.testing.assert_array_equal(labels.timestamps_us, [0, 500_000])
    np.testing.assert_allclose(labels.T_global_grid[1], from_yaw(0.1, (1, 0, 0)))
    assert (labels.semantics[:, 28:32, 24:28, 2:4] == CAR).all()
    assert (labels.semantics[..., :2] == ROAD).all()
    assert set(np.unique(labels.semantics)) == {FREE, CAR, ROAD}


def test_dynamic_bit_marks_the_classes_that_can_move() -> None:
    labels = label()
    np.testing.assert_array_equal(bit(labels, MaskBit.DYNAMIC), labels.semantics == CAR)


def test_trusted_means_observed_and_sure_enough() -> None:
    calibration = Calibration.uncalibrated(18)
    for threshold in (0.0, 0.7, 0.98):
        labels = label(calibration=calibration, min_confidence=threshold)
        observed = bit(labels, MaskBit.LIDAR_OBSERVED) | bit(labels, MaskBit.CAMERA_VISIBLE)
        sure = np.asarray(LEVELS)[labels.confidence] >= threshold
        np.testing.assert_array_equal(bit(labels, MaskBit.TRUSTED), observed & sure)
        assert (labels.confidence[~observed] == 0).all()
        assert 0 < observed.mean() < 1


@pytest.mark.parametrize("rays", [0, 1, 3])
def test_free_space_is_trusted_only_where_so_many_rays_pass(rays: int) -> None:
    labels = label(min_confidence=0.0, free_passes=rays, store_evidence=True)
    assert labels.hits is not None and labels.passes is not None
    observed = bit(labels, MaskBit.LIDAR_OBSERVED) | bit(labels, MaskBit.CAMERA_VISIBLE)
    founded = (labels.semantics != FREE) | (labels.hits > 0) | (labels.passes >= rays)
    np.testing.assert_array_equal(bit(labels, MaskBit.TRUSTED), observed & founded)
    assert (observed & ~founded).any() == (rays > 0)
    measured = replace(Calibration.uncalibrated(18), min_free_rays=rays)
    again = label(calibration=measured, min_confidence=0.0)
    np.testing.assert_array_equal(again.mask, labels.mask)


def test_calibration_finds_the_rays_from_which_a_benchmark_scores_free_space(
    tmp_path: Path,
) -> None:
    model, log = teacher(), Ground()
    guess = label(log, store_evidence=True)  # the same in both frames

    def kept(rays: int) -> NDArray[np.bool_]:
        assert guess.hits is not None and guess.passes is not None
        founded = (guess.semantics != FREE) | (guess.hits > 0) | (guess.passes >= rays)
        return (bit(guess, MaskBit.CAMERA_VISIBLE) & founded)[0]

    scored = kept(4)
    assert (kept(0) & ~scored).any() and (scored & ~kept(6)).any()
    where_rays_pass = Benchmark(
        name="where rays pass",
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        frame="ego",
        mask="camera-visible",
        path=lambda root, source, frame: root,
        read=lambda path: GroundTruth(
            grid=GRID, taxonomy=OCC3D_NUSCENES, semantics=guess.semantics[0], mask_camera=scored
        ),
    )
    truth = GroundTruthTargets(where_rays_pass, tmp_path, log, ["s1"])
    made_by = OccupancyPredictor(model.module, model.preset)
    asked = calibrate(made_by, log, truth, ["s1"], LabelingConfig(), kind="test").calibration
    np.testing.assert_array_equal(kept(asked.min_free_rays), scored)
    assert Calibration.from_json(asked.to_json()).min_free_rays == asked.min_free_rays


def test_a_class_that_is_often_wrong_is_not_trusted_whatever_its_softmax_says() -> None:
    histogram = CalibrationHistogram(18, free_id=FREE)
    rng = np.random.default_rng(0)
    for k in (FREE, ROAD, CAR):
        n = 20_000
        right = rng.random(n) < (0.2 if k == CAR else 0.97)
        histogram.update(rng.uniform(0.6, 1, n), np.full(n, k), right)
    labels = label(calibration=histogram.fit())
    trusted = bit(labels, MaskBit.TRUSTED)
    car = labels.semantics == CAR
    assert bit(labels, MaskBit.CAMERA_VISIBLE)[car].any()
    assert not trusted[car].any()
    assert trusted[labels.semantics == ROAD].any()


def test_each_sweeps_rays_start_where_it_was_taken() -> None:
    # the past sweep stood at x = -3: above the ground there, rays have passed
    above = GRID.indices(np.array([-3.0 + 1.2, 0.01, 0.9]))
    with_past, without = label(store_evidence=True), label(past_sweeps=0, store_evidence=True)
    assert with_past.passes is not None
    assert without.passes is not None
    assert with_past.passes[(0, *above)] > without.passes[(0, *above)]
    for labels in (with_past, without):
        assert labels.hits is not None and labels.passes is not None
        seen = (labels.hits > 0) | (labels.passes > 0)
        np.testing.assert_array_equal(bit(labels, MaskBit.LIDAR_OBSERVED), seen)


def test_evidence_is_left_out_unless_asked_for() -> None:
    assert label().hits is None
    assert label().passes is None


def test_camera_mask_keeps_the_road_in_view() -> None:
    labels = label(Ground(frames=1))
    visible = bit(labels, MaskBit.CAMERA_VISIBLE)[0]
    x, y = np.meshgrid(np.arange(40), np.arange(40), indexing="ij")
    centres = GRID.centers(np.stack([x, y, np.ones_like(x)], -1))
    slope = centres[..., 1] / centres[..., 0]
    in_view = (centres[..., 0] > 4) & (slope > -0.8) & (slope < 0.25)  # right of the car
    assert visible[:, :, 1][in_view].mean() > 0.97
    assert not visible[:, :, 0].any()  # below the road
    assert not visible[:15].any()  # behind the camera


def test_what_lidar_rays_cross_hides_nothing_from_the_cameras_where_voxels_are_split() -> None:
    def visible(source: Ground, split: int) -> NDArray[np.bool_]:
        model = teacher(lidar=source.lidar)
        return bit(label(source, model, visibility_split=split), MaskBit.CAMERA_VISIBLE)[0]

    behind_the_car = np.s_[32:36, 26:31, 1]  # rays end there, so no car can stand before it
    lidar, blind = Ground(frames=1), Ground(frames=1, lidar=False)
    assert not visible(lidar, 1)[behind_the_car].any()
    assert visible(lidar, 2)[behind_the_car].any()
    assert not visible(blind, 2)[behind_the_car].any()
    whole, split = visible(blind, 1), visible(blind, 2)
    assert (whole & ~split).sum() < 0.01 * whole.sum() and split.mean() < 1.2 * whole.mean()


@pytest.mark.parametrize("split", [1, 2])
def test_what_is_predicted_in_the_vehicles_blind_zone_hides_no_picture(split: int) -> None:
    frame = Ground(frames=1).scene("s1").frames[0]
    config = LabelingConfig(visibility_split=split).visibility
    nothing = np.zeros(GRID.shape, np.uint8)

    def seen(occupied: NDArray[np.bool_], hits: NDArray[np.uint8] = nothing) -> int:
        visible = visible_to_cameras(occupied, hits, None, frame, GRID, config)
        return int(visible[30:].sum())  # from five metres ahead

    around, road = np.zeros(GRID.shape, np.bool_), np.zeros(GRID.shape, np.bool_)
    around[18:23, 18:22, 3:7] = True  # from half a metre above the road, around the camera
    road[:, :, 1] = True
    assert seen(road | around) == seen(road) > 1000
    if split == 1:  # there is LiDAR evidence: something does stand there
        assert seen(road | around, around.astype(np.uint8)) < 0.1 * seen(road)
    beyond = road.copy()
    beyond[27, :, 1:] = True  # a wall, farther than the blind zone reaches
    assert seen(beyond) < 0.1 * seen(road)


def test_camera_only_teacher_labels_a_log_without_lidar() -> None:
    labels = label(Ground(lidar=False), teacher(lidar=False))
    assert not bit(labels, MaskBit.LIDAR_OBSERVED).any()
    assert bit(labels, MaskBit.TRUSTED).any()


def test_lidar_teacher_refuses_a_frame_without_lidar() -> None:
    with pytest.raises(SceneError, match="no LiDAR"):
        label(Ground(lidar=False))


def test_output_that_is_not_finite_is_the_scenes_fault_and_not_a_sure_label() -> None:
    with pytest.raises(SceneError, match="not finite"):
        label(model=teacher(Stub(value=float("nan"))))


def test_labels_are_the_same_every_time_and_fit_the_store(tmp_path: Path) -> None:
    model, calibration, config = teacher(), Calibration.uncalibrated(18), LabelingConfig()
    header = store_header(model, calibration, config, source="ground", licence="CC0")
    a, b = label(model=model), label(model=model)
    for name, array in a.arrays().items():
        np.testing.assert_array_equal(array, b.arrays()[name])
    store = LabelStore.create(tmp_path / "labels.zarr", header)
    store.write_scene(a)
    stored = LabelStore.open(tmp_path / "labels.zarr").scene("s1")
    np.testing.assert_array_equal(stored.frame(1).mask, a.mask[1])


def test_run_id_follows_all_that_determines_the_labels() -> None:
    model, calibration = teacher(), Calibration.uncalibrated(18)

    def run_id(
        model: LoadedModel = model,
        calibration: Calibration = calibration,
        source: str = "city",
        **config: Any,
    ) -> str:
        return store_header(
            model, calibration, LabelingConfig(**config), source=source, licence="CC0"
        ).run_id

    same = run_id()
    assert run_id(past_sweeps=1) == same  # what the teacher asks for anyway
    others = [
        run_id(min_confidence=0.6),
        run_id(past_sweeps=0),
        run_id(store_evidence=True),
        run_id(fast=True),
        run_id(flips=True),
        run_id(source="nuscenes"),
        run_id(model=replace(model, weights_sha256="cd" * 32)),
        run_id(calibration=CalibrationHistogram(18, free_id=FREE).fit()),
    ]
    assert len({same, *others}) == len(others) + 1


@pytest.mark.parametrize(
    "values",
    [
        {"min_confidence": 1.5},
        {"min_confidence": float("nan")},
        {"past_sweeps": -1},
        {"threads": 0},
        {"visibility_split": 0},
    ],
)
def test_bad_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LabelingConfig(**values)


class RoadOrFree(nn.Module):
    """In the classes of OpenOccupancy, whose free space is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(4.0))

    def forward(self, inputs: ModelInputs) -> Tensor:
        logits = torch.zeros(len(inputs.images), *GRID.shape, OPENOCCUPANCY.n_classes)
        logits[..., :2, OPENOCCUPANCY.id_of("driveable_surface")] = self.margin
        logits[..., 2:, OPENOCCUPANCY.free_id] = self.margin
        return logits


def test_calibration_keeps_free_space_apart_wherever_its_id_stands(tmp_path: Path) -> None:
    free = np.full(GRID.shape, OPENOCCUPANCY.free_id, np.uint8)
    nothing_there = Benchmark(
        name="empty",
        grid=GRID,
        taxonomy=OPENOCCUPANCY,
        frame="ego",
        mask=None,
        path=lambda root, source, frame: root,
        read=lambda path: GroundTruth(grid=GRID, taxonomy=OPENOCCUPANCY, semantics=free),
    )
    model = teacher(RoadOrFree())
    preset = replace(model.preset, taxonomy=OPENOCCUPANCY)
    truth = GroundTruthTargets(nothing_there, tmp_path, Ground(), ["s1"])
    labeller = OccupancyPredictor(model.module, preset)
    calibration = calibrate(
        labeller, Ground(), truth, ["s1"], LabelingConfig(), kind="test"
    ).calibration
    n = OPENOCCUPANCY.n_classes
    sure = np.full(n, 0.77)  # as sure as the stub is of free space and of the road
    confidence = np.asarray(calibration.levels)[calibration.levels_of(sure, np.arange(n))]
    assert confidence[OPENOCCUPANCY.free_id] > 0.95  # always right
    # never predicted, so they lean on what is occupied: the road, which was never right
    assert confidence[OPENOCCUPANCY.id_of("car")] < 0.05
    assert confidence[OPENOCCUPANCY.id_of("vegetation")] < 0.05


def test_what_a_scene_is_calibrated_on_was_learnt_without_it(tmp_path: Path) -> None:
    scenes = ["s1", "s2"]
    log, model = Ground(frames=1), teacher()
    by = OccupancyPredictor(model.module, model.preset)

    def learnt(odd: int) -> CrossFitted[Refiner]:
        """With a truth of the scene ``s2`` that may be another."""
        truth = truth_by(
            lambda scene: np.full(GRID.shape, odd if scene == "s2" else ROAD, np.uint8),
            tmp_path,
            log,
            scenes,
        )
        config = LabelingConfig(refinement=Refinement())
        return fit_refiners(by, log, truth, scenes, config)

    usual, other = learnt(ROAD), learnt(CAR)
    assert other.on_all.to_json() != usual.on_all.to_json()
    assert other.held_out["s2"].to_json() == usual.held_out["s2"].to_json()
    assert other.held_out["s1"].to_json() != usual.held_out["s1"].to_json()


def test_batches_and_readers_change_no_label() -> None:
    log, model = Ground(frames=5), teacher()
    alone = label(log, model)
    together = label(log, model, batch=2)
    for name, array in alone.arrays().items():
        np.testing.assert_array_equal(together.arrays()[name], array)
    made_by, calibration = (
        OccupancyPredictor(model.module, model.preset),
        Calibration.uncalibrated(18),
    )
    frames = list(
        label_frames(log.scene("s1"), log, made_by, calibration, LabelingConfig(), readers=3)
    )
    assert [frame.token for frame in frames] == list(alone.frame_tokens)
    for frame, mask in zip(frames, alone.mask, strict=True):
        np.testing.assert_array_equal(frame.mask, mask)


@pytest.mark.parametrize("kind", [{}, {"lidar": False}, {"frame": "lidar"}, {"flow": True}])
def test_any_teacher_rehearses(kind: dict[str, Any]) -> None:
    model, calibration = teacher(**kind), Calibration.uncalibrated(18)
    made_by = OccupancyPredictor(model.module, model.preset)
    for config in (LabelingConfig(), LabelingConfig(batch=2, visibility_split=2)):
        header = store_header(model, calibration, config, source="none", licence="none")
        warm_up(made_by, calibration, config, header)


def test_a_rehearsal_shows_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calibration, config = teacher(), Calibration.uncalibrated(18), LabelingConfig()
    header = store_header(model, calibration, config, source="none", licence="none")
    made_by = OccupancyPredictor(model.module, model.preset)
    monkeypatch.setattr(made_by, "predict", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        warm_up(made_by, calibration, config, header)


def test_no_more_frames_are_read_than_are_soon_needed() -> None:
    class Counting(Ground):
        read = 0

        def read_image(self, view: CameraView) -> NDArray[np.uint8]:
            self.read += 1
            return super().read_image(view)

    log, model = Counting(frames=30), teacher()
    made_by, calibration = (
        OccupancyPredictor(model.module, model.preset),
        Calibration.uncalibrated(18),
    )
    labels = label_frames(log.scene("s1"), log, made_by, calibration, LabelingConfig())
    for k in range(5):
        next(labels)
        assert log.read <= k + 9
    labels.close()
    assert log.read < 20


def test_a_bad_frame_ends_a_scene_after_the_good_ones_before_it() -> None:
    class Broken(Ground):
        def read_image(self, view: CameraView) -> NDArray[np.uint8]:
            if view.timestamp_us == 2 * 500_000:
                raise SceneError(where="front.jpg", rule="cannot be decoded")
            return super().read_image(view)

    log, model = Broken(frames=6), teacher()
    made_by, calibration = (
        OccupancyPredictor(model.module, model.preset),
        Calibration.uncalibrated(18),
    )
    labels = label_frames(log.scene("s1"), log, made_by, calibration, LabelingConfig())
    with pytest.raises(SceneError, match="cannot be decoded"):
        list(labels)


IN_LIDAR = VoxelGrid(min_m=(-10.0, -10.0, -2.6), size_m=GRID.size_m, shape=GRID.shape)
"""``GRID`` seen from the sensor, which stands 1.6 m above the ego frame's origin."""


def turned(ego: NDArray[Any]) -> NDArray[Any]:
    """(T, X, Y, Z) of the ego frame seen by a LiDAR whose x points right and y forward."""
    return ego.swapaxes(1, 2)[:, ::-1]


def test_a_teacher_in_the_lidar_frame_labels_along_the_lidars_axes() -> None:
    source = Ground(lidar_yaw=-np.pi / 2)
    stub = Stub(car=False)
    ego = label(source, teacher(stub))
    lidar = label(source, teacher(stub, frame="lidar", grid=IN_LIDAR))
    assert (ego.frame, lidar.frame) == ("ego", "lidar")
    for k, frame in enumerate(source.scene("s1").frames):
        assert frame.lidar is not None
        np.testing.assert_allclose(
            lidar.T_global_grid[k], frame.T_global_ego @ frame.lidar.T_ego_lidar
        )
    for which in (MaskBit.LIDAR_OBSERVED, MaskBit.CAMERA_VISIBLE):
        there, here = turned(bit(ego, which)), bit(lidar, which)
        assert (there == here).mean() > 0.99  # rays along the edges of voxels fall on either side
        assert (bit(ego, which) == here).mean() < 0.95


def test_labels_in_the_lidar_frame_fit_their_store_and_no_other(tmp_path: Path) -> None:
    calibration, config = Calibration.uncalibrated(18), LabelingConfig()
    model = teacher(frame="lidar")
    header = store_header(model, calibration, config, source="ground", licence="CC0")
    in_ego = store_header(teacher(), calibration, config, source="ground", licence="CC0")
    assert header.frame == "lidar" and header.run_id != in_ego.run_id
    LabelStore.create(tmp_path / "lidar", header).write_scene(label(model=model))
    labels = LabelStore.open(tmp_path / "lidar", expect_frame="lidar").scene("s1").frame(1)
    np.testing.assert_allclose(labels.T_global_grid, label(model=model).T_global_grid[1])
    with pytest.raises(ValueError, match="in the lidar frame, not ego"):
        LabelStore.create(tmp_path / "ego", in_ego).write_scene(label(model=model))


def test_a_frame_without_lidar_has_no_lidar_frame() -> None:
    with pytest.raises(SceneError, match="no LiDAR"):
        label(Ground(lidar=False), teacher(lidar=False, frame="lidar"))


def test_flow_is_kept_where_the_class_can_move(tmp_path: Path) -> None:
    model = teacher(flow=True)
    labels = label(model=model)
    car = labels.semantics == CAR
    assert labels.flow is not None and labels.flow.dtype == np.float16
    np.testing.assert_array_equal(labels.flow[car], np.float16([[1.5, -0.1]] * int(car.sum())))
    assert not labels.flow[~car].any()
    assert label().flow is None
    calibration, config = Calibration.uncalibrated(18), LabelingConfig()
    header = store_header(model, calibration, config, source="ground", licence="CC0")
    assert header.flow
    store = LabelStore.create(tmp_path / "labels.zarr", header)
    store.write_scene(labels)
    stored = store.scene("s1").frame(1).flow
    assert stored is not None
    np.testing.assert_array_equal(stored, labels.flow[1])


def test_objects_are_numbered_where_the_configuration_asks(tmp_path: Path) -> None:
    labels = label(instances=True)
    car = labels.semantics == CAR
    assert labels.instances is not None and labels.instances.dtype == np.uint16
    assert (labels.instances[car] > 0).all() and not labels.instances[~car].any()
    assert len(set(labels.instances[car].tolist())) == 1, "the car is one over the scene"
    assert label().instances is None
    with_numbers = LabelingConfig(instances=True).resolved(teacher().preset.inputs)
    without = LabelingConfig().resolved(teacher().preset.inputs)
    assert with_numbers == without | {"instances": True}


@pytest.mark.parametrize("speed", [float("nan"), 1e6])
def test_a_velocity_that_a_store_cannot_hold_is_the_scenes_fault(speed: float) -> None:
    with pytest.raises(SceneError, match="not finite"):
        label(model=teacher(Stub(speed=speed), flow=True))
