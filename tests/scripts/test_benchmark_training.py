"""Any benchmark's truth trains and calibrates networks of its voxels and classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from one_camera_log import SPEC, OneCameraLog
from torch import Tensor, nn

from autolabel.calibration.evaluation import score
from autolabel.calibration.fit import calibrate
from autolabel.labeling.config import LabelingConfig
from datasets.benchmarks import occ3d_waymo, openocc_flow
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SetupError
from datasets.frames import SceneSource
from datasets.loading.frame_dataset import FrameDataset, GroundTruthTargets
from datasets.model_inputs import InputSpec, ModelInputs
from datasets.taxonomy import OCC3D_WAYMO, OPENOCC_FLOW, Taxonomy
from models.inference.predictor import OccupancyPredictor
from models.presets import Preset, preset

WAYMO = InputSpec(
    height=32,
    width=64,
    lidar=True,
    past_sweeps=0,
    point_features="tanh_intensity_elongation",
)


class Knowing(nn.Module):
    """Predicts these labels (X, Y, Z), all as sure."""

    def __init__(self, semantics: NDArray[np.uint8], taxonomy: Taxonomy) -> None:
        super().__init__()
        self.known = nn.Parameter(torch.zeros(1))
        labels = torch.from_numpy(semantics.astype(np.int64))
        self.logits = 3 * nn.functional.one_hot(labels, taxonomy.n_classes).float()

    def forward(self, inputs: ModelInputs) -> Tensor:
        return self.logits[None]


def teacher(
    semantics: NDArray[np.uint8], taxonomy: Taxonomy, inputs: InputSpec
) -> OccupancyPredictor:
    tiny: Preset = replace(preset("city_tiny"), taxonomy=taxonomy, inputs=inputs)
    module: Any = Knowing(semantics, taxonomy)
    return OccupancyPredictor(module.eval(), tiny)


def waymo_log_and_truth(tmp_path: Path) -> tuple[SceneSource, Path, list[GroundTruth]]:
    needs = "waymo-open-dataset's protos and the extra waymo"
    pytest.importorskip("waymo_open_dataset.dataset_pb2", reason=needs)
    pytest.importorskip("pyarrow", reason=needs)
    import waymo_log

    from datasets.sources.waymo.source import WaymoSource

    folder, root = tmp_path / "log", tmp_path / "truth"
    waymo_log.write_records(folder / "training" / "a.tfrecord", waymo_log.segment(frames=2))
    (root / "voxel04").mkdir(parents=True)
    (root / "voxel04" / "sequences.csv").write_text("scene,split,sequence\na,training,3\n")
    source = WaymoSource(folder)
    truths = []
    for k in range(2):
        rng = np.random.default_rng(k)
        shape = occ3d_waymo.GRID.shape
        lidar, camera, in_view = (rng.random(shape) < 0.5 for _ in range(3))
        truths.append(
            GroundTruth(
                grid=occ3d_waymo.GRID,
                taxonomy=OCC3D_WAYMO,
                semantics=rng.choice(np.array([1, 13, 15], np.uint8), shape),
                mask_lidar=lidar,
                mask_camera=camera,
                in_view=in_view,
            )
        )
        occ3d_waymo.write_labels(root / f"voxel04/training/003/{k:03d}_04.npz", truths[-1])
    return source, root, truths


@pytest.mark.parametrize("only_visible", [True, False])
def test_waymo_is_trained_where_it_is_scored_or_where_anything_saw(
    tmp_path: Path, only_visible: bool
) -> None:
    source, root, truths = waymo_log_and_truth(tmp_path)
    labels = GroundTruthTargets(
        benchmark("occ3d_waymo"), root, source, ["a"], only_visible=only_visible
    )
    remembering, plain = (
        FrameDataset(source, [labels], WAYMO, batch=2, memory_gib=gib) for gib in (1.0, 0.0)
    )
    for step in (0, 1, 0):  # the second epoch comes from memory
        sample, again = remembering[step], plain[step]
        assert torch.equal(sample.inputs.images, again.inputs.images)
        assert torch.equal(sample.semantics, again.semantics)
        assert sample.inputs.points is not None and again.inputs.points is not None
        for points, others in zip(sample.inputs.points, again.inputs.points, strict=True):
            assert torch.equal(points, others)
            assert float(points[:, 4].max()) == pytest.approx(np.tanh(1.5))  # elongation
    frames = source.scene("a").frames
    assert not torch.equal(remembering[0].inputs.images[0], remembering[0].inputs.images[1])
    for frame, truth in zip(frames, truths, strict=True):
        assert truth.mask_camera is not None and truth.mask_lidar is not None
        assert truth.in_view is not None
        seen = truth.mask_camera & truth.in_view
        if not only_visible:
            seen = truth.mask_camera | truth.mask_lidar
        target = labels.target(frame)
        assert np.array_equal(target.semantics, truth.semantics)
        assert np.array_equal(target.weight > 0, seen)


def test_a_waymo_teacher_is_calibrated_under_waymos_mask(tmp_path: Path) -> None:
    source, root, truths = waymo_log_and_truth(tmp_path)
    truth = GroundTruthTargets(benchmark("occ3d_waymo"), root, source, ["a"])
    guess = truths[0].semantics
    labeller = teacher(guess, OCC3D_WAYMO, WAYMO)
    found = calibrate(labeller, source, truth, ["a"], LabelingConfig(), kind="waymo")
    calibration, table = found.calibration, found.table
    assert list(table.matrices) == ["in view and camera-visible", "all"]
    both = [t.scored() for t in truths]
    counts = table.matrices["in view and camera-visible"].counts
    assert counts.sum() == sum(int(mask.sum()) for mask in both)
    right = sum(int((t.semantics == guess)[m].sum()) for t, m in zip(truths, both, strict=True))
    assert np.trace(counts) == right and counts.shape == (16, 16)
    assert 0.5 < right / counts.sum() < 0.8  # the first frame all, the second a third
    seen = [t.observed() for t in truths]
    share = sum(int((t.semantics == guess)[m].sum()) for t, m in zip(truths, seen, strict=True))
    share /= sum(int(m.sum()) for m in seen)
    raw = np.full((1,), np.exp(3.0) / (np.exp(3.0) + 15), np.float32)
    level = int(calibration.levels_of(raw, np.array([13], np.uint8))[0])
    assert calibration.levels[level] == pytest.approx(share, abs=0.01)


def test_a_benchmark_without_a_mask_is_calibrated_on_all_labelled_voxels(tmp_path: Path) -> None:
    log = OneCameraLog()
    semantics = np.full(openocc_flow.GRID.shape, 16, np.uint8)
    semantics[:, :, 1] = OPENOCC_FLOW.id_of("driveable_surface")
    flow = np.zeros((*semantics.shape, 2), np.float32)
    labels = GroundTruth(
        grid=openocc_flow.GRID, taxonomy=OPENOCC_FLOW, semantics=semantics, flow=flow
    )
    known = benchmark("openocc_flow")
    scenes = log.scene_ids("all")
    for frame in log.scene(scenes[0]).frames:
        openocc_flow.write_labels(known.path(tmp_path, log, frame), labels)
    truth = GroundTruthTargets(known, tmp_path, log, scenes[:1])
    table = score(teacher(semantics, OPENOCC_FLOW, SPEC), log, truth, scenes[:1])
    assert list(table.matrices) == ["all"]
    assert table.to_json()["mIoU[all]"] == 100.0


def test_a_teacher_of_other_classes_is_not_calibrated(tmp_path: Path) -> None:
    log = OneCameraLog()
    semantics = np.zeros(openocc_flow.GRID.shape, np.uint8)
    truth = GroundTruthTargets(benchmark("openocc_flow"), tmp_path, log, ["a"])
    with pytest.raises(SetupError, match=r"preset city_tiny has .*occ3d-waymo.*openocc-flow"):
        score(teacher(semantics, OCC3D_WAYMO, SPEC), log, truth, ["a"])
