"""Training sets and the optimisation loop, on a made-up log of one camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.occ3d_nuscenes import GRID, TAXONOMY, labels_path, write_labels
from datasets.benchmarks.truth import Truth
from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.inputs import InputSpec, ModelInputs, collate, prepare_frame
from datasets.label_store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.taxonomy import OCC3D_NUSCENES
from datasets.training_sets import FrameSet, GroundTruth, PseudoLabels, Target, make_sample
from models.training import TrainingConfig, class_weights, draw_columns, load_state, train

SPEC = InputSpec(height=8, width=16, lidar=False)
T_EGO_CAMERA = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])


class OneCameraLog:
    """Two frames of a grey picture; any LiDAR access is an error unless points are given."""

    name, licence = "made-up", "none"

    def __init__(self, points: NDArray[np.float32] | None = None) -> None:
        self.points = points

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("a",)

    def scene(self, scene_id: str) -> Scene:
        view = CameraView(
            name="CAM_FRONT",
            path=Path("grey.jpg"),
            timestamp_us=0,
            width=32,
            height=24,
            intrinsics=np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]]),
            T_ego_camera=T_EGO_CAMERA,
        )
        sweep = LidarSweep(path=Path("sweep.bin"), timestamp_us=0, T_ego_lidar=np.eye(4))
        frames = tuple(
            Frame(
                scene_id=scene_id,
                token=f"t{i}",
                timestamp_us=i,
                T_global_ego=np.eye(4),
                cameras=(view,),
                lidar=sweep,
            )
            for i in range(2)
        )
        return Scene(scene_id=scene_id, frames=frames)

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return np.full((24, 32, 3), 128, np.uint8)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        assert self.points is not None, "a camera-only set opened a LiDAR file"
        return self.points

    def fingerprint(self, scene_id: str) -> str:
        return "made-up"


def labels() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    semantics = np.full(GRID.shape, 17, np.uint8)
    semantics[:, :, 2] = 11
    semantics[150, 120, 3] = 4
    visible = np.zeros(GRID.shape, bool)
    visible[100:, 50:150] = True
    return semantics, visible


@pytest.fixture()
def truth(tmp_path: Path) -> GroundTruth:
    semantics, visible = labels()
    for token in ("t0", "t1"):
        write_labels(
            labels_path(tmp_path, "a", token),
            Truth(
                grid=GRID,
                taxonomy=TAXONOMY,
                semantics=semantics,
                mask_lidar=visible,
                mask_camera=visible,
            ),
        )
    return GroundTruth(benchmark("occ3d_nuscenes"), tmp_path, OneCameraLog(), ["a"])


def test_a_camera_set_opens_no_lidar_file(truth: GroundTruth) -> None:
    sample = FrameSet(OneCameraLog(), [truth], SPEC)[0]
    assert sample.inputs.points is None and sample.inputs.depth is None
    assert sample.inputs.images.shape == (1, 1, 3, 8, 16)


def test_a_step_is_the_same_whenever_it_is_drawn(truth: GroundTruth) -> None:
    first = FrameSet(OneCameraLog(), [truth], SPEC, batch=2, seed=3)
    again = FrameSet(OneCameraLog(), [truth], SPEC, batch=2, seed=3)
    for step in (5, 0, 11):
        assert torch.equal(first[step].semantics, again[step].semantics)
        assert torch.equal(first[step].inputs.T_bda, again[step].inputs.T_bda)
    flips = {tuple(first[s].inputs.T_bda[0].diagonal().tolist()) for s in range(40)}
    assert len(flips) == 4


def test_labels_flip_with_the_points() -> None:
    at = np.array([[20.1, 8.1, 0.3]], np.float32)  # voxel (150, 120, 3): the car
    log = OneCameraLog(np.hstack([at, [[7.0]]]).astype(np.float32))
    spec = InputSpec(height=8, width=16, lidar=True, past_sweeps=0)
    frame = log.scene("a").frames[0]
    semantics, visible = labels()
    target = Target(semantics=semantics, weight=visible.astype(np.float32))
    for flip in [(False, False), (True, False), (False, True), (True, True)]:
        sample = make_sample([(prepare_frame(log, frame, spec), target, flip)])
        assert sample.inputs.points is not None
        point = sample.inputs.points[0][:, :3].numpy()
        i, j, k = GRID.indices(point)[0]
        assert sample.semantics[0, i, j, k] == 4
        car = (sample.semantics[0] == 4).nonzero()
        assert len(car) == 1


def test_the_pictures_affine_follows_resize_and_crop() -> None:
    log = OneCameraLog(np.array([[10.0, 0.0, 0.5, 1.0]], np.float32))
    spec = InputSpec(height=8, width=16, lidar=True, past_sweeps=0)
    inputs = prepare_frame(log, log.scene("a").frames[0], spec)
    # 32x24 -> 16x12, the top 4 rows cut off
    assert np.allclose(inputs.post_image[0], [[0.5, 0, 0], [0, 0.5, -4], [0, 0, 1]])
    assert inputs.depth is not None
    # 9 m ahead of and 1 m below the camera: u = 16, v = 12 + 20 / 9 -> (8, 3.1)
    row, col = np.argwhere(inputs.depth[0] > 0)[0]
    assert (row, col) == (3, 8)
    assert inputs.depth[0, row, col] == pytest.approx(9.0)


def test_the_nearest_return_wins_a_pixel() -> None:
    points = np.array([[21.0, 0, 1.5, 0], [11.0, 0, 1.5, 0], [31.0, 0, 1.5, 0]], np.float32)
    log = OneCameraLog(points)
    spec = InputSpec(height=8, width=16, lidar=True, past_sweeps=0)
    depth = prepare_frame(log, log.scene("a").frames[0], spec).depth
    assert depth is not None and depth.max() == pytest.approx(10.0)


def test_frames_of_different_camera_counts_are_not_batched() -> None:
    inputs = prepare_frame(OneCameraLog(), OneCameraLog().scene("a").frames[0], SPEC)
    import dataclasses

    other = dataclasses.replace(inputs, images=np.zeros((2, 8, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="camera count"):
        collate([inputs, other])


def test_pseudo_labels_weigh_trusted_visible_voxels_by_confidence(tmp_path: Path) -> None:
    semantics, _ = labels()
    mask = np.zeros((1, *GRID.shape), np.uint8)
    mask[0, 0] = MaskBit.TRUSTED | MaskBit.CAMERA_VISIBLE
    mask[0, 1] = MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED
    mask[0, 2] = MaskBit.CAMERA_VISIBLE
    confidence = np.zeros_like(mask)
    confidence[0, :3] = 1
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.5, 0.9),
        licence="none",
        provenance={},
        run_id="x",
    )
    store = LabelStore.create(tmp_path / "s.zarr", header)
    store.write_scene(
        SceneLabels(
            scene_id="a",
            frame_tokens=("t0",),
            timestamps_us=np.array([0]),
            T_global_ego=np.eye(4)[None],
            semantics=semantics[None],
            confidence=confidence,
            mask=mask,
            hits=None,
            passes=None,
        )
    )
    frame = OneCameraLog().scene("a").frames[0]
    weight = PseudoLabels(tmp_path / "s.zarr").target(frame).weight
    assert np.unique(weight[0]).tolist() == [np.float32(0.9)]
    assert not weight[1:].any()
    everything = PseudoLabels(tmp_path / "s.zarr", only_visible=False).target(frame).weight
    assert everything[1].all() and not everything[2:].any()
    with pytest.raises(SceneError, match="t1"):
        PseudoLabels(tmp_path / "s.zarr").target(OneCameraLog().scene("a").frames[1])


def test_an_empty_store_cannot_be_learned_from(tmp_path: Path) -> None:
    header = StoreHeader(
        grid=GRID, taxonomy=OCC3D_NUSCENES, levels=(0.5,), licence="", provenance={}, run_id="x"
    )
    LabelStore.create(tmp_path / "s.zarr", header)
    with pytest.raises(SetupError, match="no finished scene"):
        PseudoLabels(tmp_path / "s.zarr")


def test_columns_are_usable_distinct_and_rich_in_objects() -> None:
    semantics, visible = labels()
    weight = torch.from_numpy(visible.astype(np.float32))[None].repeat(2, 1, 1, 1)
    foreground = torch.zeros(256, dtype=torch.bool)
    foreground[:11] = True
    drawn = draw_columns(
        torch.from_numpy(semantics)[None].repeat(2, 1, 1, 1),
        weight,
        foreground,
        100,
        torch.Generator().manual_seed(0),
    )
    assert len(drawn) == 200 == len(drawn.unique())
    assert (weight.any(-1).flatten()[drawn]).all()
    car = 150 * 200 + 120
    assert {car, car + 200 * 200} <= set(drawn.tolist())


def test_rare_classes_weigh_more_and_the_mean_weight_is_one() -> None:
    counts = torch.tensor([10.0, 990.0, 0.0])
    weights = class_weights(counts, 0.35)
    assert weights[2] > weights[0] > weights[1]
    assert (weights * counts / counts.sum()).sum() == pytest.approx(1.0)
    assert class_weights(counts, 0.0)[:2].tolist() == [1.0, 1.0]


class ToyHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(1, 16 * 18)

    def columns(self, bev: Tensor, index: Tensor) -> Tensor:
        logits: Tensor = self.out(bev.flatten()[index][:, None]).view(-1, 16, 18)
        return logits


class ToyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.occ_head = ToyHead()
        self.norm = nn.BatchNorm2d(1)

    def bev(self, inputs: ModelInputs) -> Tensor:
        mean = inputs.images.mean((1, 2, 3, 4)).view(-1, 1, 1, 1)
        bev: Tensor = self.norm(mean + torch.zeros(len(mean), 1, 200, 200))
        return bev


def run(truth: GroundTruth, folder: Path, steps: int, stop: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    config = TrainingConfig(steps=steps, columns=50, save_every=2, log_every=1)
    samples = FrameSet(OneCameraLog(), [truth], SPEC)
    start, state = load_state(folder, config)
    return train(
        ToyNetwork(),
        [samples[k] for k in range(start, stop or steps)],
        config=config,
        taxonomy=OCC3D_NUSCENES,
        class_weights=torch.ones(18),
        folder=folder,
        start=start,
        state=state,
    )


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(
    truth: GroundTruth, tmp_path: Path
) -> None:
    whole = run(truth, tmp_path / "whole", 6)
    run(truth, tmp_path / "parts", 6, stop=3)  # the state on disk is that of step 2
    resumed = run(truth, tmp_path / "parts", 6)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    log = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 6


def test_training_lowers_the_loss(truth: GroundTruth, tmp_path: Path) -> None:
    run(truth, tmp_path / "t", 20)
    log = [json.loads(x) for x in (tmp_path / "t" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]


def test_another_configuration_does_not_continue_a_run(truth: GroundTruth, tmp_path: Path) -> None:
    run(truth, tmp_path / "t", 1)
    with pytest.raises(SetupError, match="another configuration"):
        run(truth, tmp_path / "t", 2)
