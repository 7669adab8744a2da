"""Training sets on a made-up log of one camera."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_camera_log import SPEC, OneCameraLog, labels, write_truth

from datasets.benchmarks.occ3d_nuscenes import GRID
from datasets.benchmarks.openoccupancy import GRID as OPENOCCUPANCY_GRID
from datasets.errors import SceneError, SetupError
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.loading.augmentation import Augmentation
from datasets.loading.frame_dataset import (
    Batch,
    FrameDataset,
    GroundTruthTargets,
    PseudoLabels,
    Target,
    TargetSource,
    Unlabelled,
    make_batch,
)
from datasets.model_inputs import InputSpec, collate, prepare_frame
from datasets.taxonomy import OCC3D_NUSCENES, OPENOCC_FLOW


@pytest.fixture()
def truth(tmp_path: Path) -> GroundTruthTargets:
    return write_truth(tmp_path, OneCameraLog())


def test_a_camera_set_opens_no_lidar_file(truth: GroundTruthTargets) -> None:
    sample = FrameDataset(OneCameraLog(), [truth], SPEC)[0]
    assert sample.inputs.points is None and sample.inputs.depth is None
    assert sample.inputs.images.shape == (1, 1, 3, 8, 16)


def test_a_step_is_the_same_whenever_it_is_drawn(truth: GroundTruthTargets) -> None:
    augment = Augmentation()
    first = FrameDataset(OneCameraLog(), [truth], SPEC, batch=2, augment=augment, seed=3)
    again = FrameDataset(OneCameraLog(), [truth], SPEC, batch=2, augment=augment, seed=3)
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
        sample = make_batch([(prepare_frame(log, frame, spec), target, flip)])
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


def test_a_frame_with_fewer_cameras_is_filled_up_and_says_so() -> None:
    one = prepare_frame(OneCameraLog(), OneCameraLog().scene("a").frames[0], SPEC)
    two = dataclasses.replace(
        one,
        images=np.concatenate([one.images] * 2),
        T_ego_camera=np.concatenate([one.T_ego_camera] * 2),
        intrinsics=np.concatenate([one.intrinsics] * 2),
        post_image=np.concatenate([one.post_image] * 2),
    )
    assert collate([one, one]).present is None
    batch = collate([one, two])
    assert batch.present is not None and batch.present.tolist() == [[True, False], [True, True]]
    alone = collate([one])
    assert torch.equal(batch.images[0, :1], alone.images[0])
    assert len(batch.pictures()) == 3
    assert batch.by_view(batch.pictures())[1].count_nonzero() == 0
    with pytest.raises(ValueError, match="at least one frame"):
        collate([])


def store_header(**changes: Any) -> StoreHeader:
    fields: dict[str, Any] = {
        "grid": GRID,
        "taxonomy": OCC3D_NUSCENES,
        "levels": (0.5, 0.9),
        "licence": "none",
        "provenance": {},
        "run_id": "x",
    }
    return StoreHeader(**(fields | changes))


def test_pseudo_labels_weigh_trusted_visible_voxels_by_confidence(tmp_path: Path) -> None:
    semantics, _ = labels()
    mask = np.zeros((1, *GRID.shape), np.uint8)
    mask[0, 0] = MaskBit.TRUSTED | MaskBit.CAMERA_VISIBLE
    mask[0, 1] = MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED
    mask[0, 2] = MaskBit.CAMERA_VISIBLE
    confidence = np.zeros_like(mask)
    confidence[0, :3] = 1
    LabelStore.create(tmp_path / "s.zarr", store_header()).write_scene(
        SceneLabels(
            scene_id="a",
            frame_tokens=("t0",),
            timestamps_us=np.array([0]),
            T_global_grid=np.eye(4)[None],
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


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"expect_grid": OPENOCCUPANCY_GRID}, "its grid is 200x200x16"),
        ({"expect_taxonomy": OPENOCC_FLOW}, "its classes are occ3d-nuscenes, expected openocc"),
        ({"expect_frame": "lidar"}, "lie in the ego frame, expected the lidar frame"),
    ],
)
def test_pseudo_labels_of_another_kind_than_the_network_are_refused(
    tmp_path: Path, expected: dict[str, Any], says: str
) -> None:
    LabelStore.create(tmp_path / "s.zarr", store_header())
    with pytest.raises(SetupError, match=says):
        PseudoLabels(tmp_path / "s.zarr", **expected)
    LabelStore.create(tmp_path / "lidar.zarr", store_header(frame="lidar"))
    with pytest.raises(SetupError, match="lie in the lidar frame"):
        PseudoLabels(tmp_path / "lidar.zarr")


def test_flow_of_a_store_is_learned_mirrored_like_the_labels(tmp_path: Path) -> None:
    semantics, _ = labels()
    flow = np.zeros((1, *GRID.shape, 2), np.float16)
    flow[0, 10, 20, 3] = (2.5, -1.25)
    LabelStore.create(tmp_path / "s.zarr", store_header(flow=True)).write_scene(
        SceneLabels(
            scene_id="a",
            frame_tokens=("t0",),
            timestamps_us=np.array([0]),
            T_global_grid=np.eye(4)[None],
            semantics=semantics[None],
            confidence=np.zeros((1, *GRID.shape), np.uint8),
            mask=np.zeros((1, *GRID.shape), np.uint8),
            flow=flow,
        )
    )
    target = PseudoLabels(tmp_path / "s.zarr").target(OneCameraLog().scene("a").frames[0])
    mirrored = target.mirrored(x=True, y=False)
    assert mirrored.flow is not None and mirrored.flow.dtype == np.float32
    assert mirrored.flow[-11, 20, 3].tolist() == [-2.5, -1.25]


def test_an_empty_store_cannot_be_learned_from(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "s.zarr", store_header())
    with pytest.raises(SetupError, match="no finished scene"):
        PseudoLabels(tmp_path / "s.zarr")


def test_unlabelled_frames_come_without_a_weight(truth: GroundTruthTargets) -> None:
    nothing = Unlabelled(["a"], GRID)
    sample = FrameDataset(OneCameraLog(), [truth, nothing], SPEC, batch=4)[0]
    assert sorted(sample.labelled.tolist()) == [False, False, True, True]
    assert torch.equal(sample.labelled, sample.is_ground_truth)
    assert torch.equal(sample.weight.flatten(1).any(1), sample.labelled)


def test_a_bad_frame_is_named_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    log = OneCameraLog(frames=4, bad=("t2",))
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC, batch=2, seed=1)
    drawn = [samples[step] for step in range(4)]  # two epochs
    assert all(len(sample) == 2 for sample in drawn)
    assert {bad.frame for sample in drawn for bad in sample.bad} == {"t2"}
    assert "the picture is torn" in next(bad.reason for s in drawn for bad in s.bad)
    again = FrameDataset(log, [write_truth(tmp_path, log)], SPEC, batch=2, seed=1)
    assert torch.equal(again[3].inputs.images, drawn[3].inputs.images)


def test_frames_with_ground_truth_can_be_drawn_more_often(tmp_path: Path) -> None:
    """Two of them beside six others: in every batch of two one of each, each kind in its epochs."""
    log = OneCameraLog()
    sources = [Unlabelled(["a", "b", "c"], GRID), write_truth(tmp_path, log)]
    samples = FrameDataset(log, sources, SPEC, batch=2, seed=4, human_share=0.5)
    batches = [samples[step] for step in range(12)]
    assert all(sample.is_ground_truth.tolist().count(True) == 1 for sample in batches)

    def grey(sample: Batch, human: bool) -> list[float]:
        return sample.inputs.images[sample.is_ground_truth == human, 0, 0, 0, 0].tolist()

    of_human = [value for sample in batches for value in grey(sample, True)]
    assert all(len(set(of_human[i : i + 2])) == 2 for i in range(0, 12, 2)), "once per epoch"
    of_others = sorted(value for sample in batches[:6] for value in grey(sample, False))
    assert of_others == sorted([min(of_human), max(of_human)] * 3)
    rare = FrameDataset(log, sources, SPEC, batch=2, human_share=0.1)
    assert sum(int(rare[step].is_ground_truth.sum()) for step in range(50)) == 10
    assert torch.equal(samples[7].inputs.images, batches[7].inputs.images)
    assert samples.fingerprint() != FrameDataset(log, sources, SPEC, batch=2, seed=4).fingerprint()


@pytest.mark.parametrize("share", [0.0, 1.0, 0.5])
def test_a_share_needs_both_kinds_of_frames(truth: GroundTruthTargets, share: float) -> None:
    sources: list[TargetSource] = [truth]
    if share != 0.5:
        sources.append(Unlabelled(["b"], GRID))
    with pytest.raises(SetupError, match="share of frames with ground truth"):
        FrameDataset(OneCameraLog(), sources, SPEC, human_share=share)


def test_only_bad_frames_are_an_error(tmp_path: Path) -> None:
    log = OneCameraLog(bad=("t0", "t1"))
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC)
    with pytest.raises(SetupError, match=r"every one of the 2 frames.*torn"):
        samples[0]


def test_workers_divide_the_batch_of_a_step(tmp_path: Path) -> None:
    log = OneCameraLog(frames=4)
    augment = Augmentation()
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC, batch=4, augment=augment)
    shares = [samples.share(worker, 2)[3] for worker in range(2)]
    whole = samples[3]
    assert [share.first_draw for share in shares] == [12, 14]
    assert torch.equal(torch.cat([s.inputs.images for s in shares]), whole.inputs.images)
    assert torch.equal(torch.cat([s.semantics for s in shares]), whole.semantics)
    parts = whole.parts(2)
    assert [part.first_draw for part in parts] == [12, 14]
    assert torch.equal(parts[1].inputs.T_bda, shares[1].inputs.T_bda)
    with pytest.raises(SetupError, match="cannot be shared by 3"):
        samples.share(0, 3)


def test_a_frame_without_a_camera_is_refused_by_name_for_a_camera_network() -> None:
    log = OneCameraLog()
    blind = dataclasses.replace(log.scene("a").frames[0], cameras=())
    with pytest.raises(SceneError, match=r"scene a.*has no camera, and this network reads nothing"):
        prepare_frame(log, blind, SPEC)
