"""Run a teacher over scenes whose truth is known: how good are its labels, and how sure?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from autolabel.confidence import Calibration, CalibrationHistogram
from autolabel.labeling import LabelingConfig
from autolabel.observing import FreePasses, metric_points, observe
from datasets.frames import SceneSource, earlier_frames, in_lidar_frame
from datasets.inputs import collate, prepare_frame
from datasets.metrics.confusion import ConfusionMatrix, ScoreTable
from datasets.training_sets import GroundTruth
from models.inference import Teacher


def calibrate(
    teacher: Teacher,
    source: SceneSource,
    truth: GroundTruth,
    scene_ids: Sequence[str],
    *,
    config: LabelingConfig | None = None,
) -> tuple[Calibration, ScoreTable]:
    """Calibration table and scores of a teacher on labelled scenes it was not trained on.

    Confidence is fitted on the voxels that a sensor observed.

    Args:
        config: how labels will be made; with it ``Calibration.free_passes`` is fitted as well.

    Raises:
        SetupError: the benchmark has another grid, other classes or another frame than the preset.
        SceneError: a file of a scene or of its truth is bad.
    """
    spec, taxonomy = teacher.preset.inputs, teacher.preset.taxonomy
    if config is not None:
        spec = config.input_spec(spec)
    truth.benchmark.require(
        f"preset {teacher.preset.name}", teacher.preset.grid, taxonomy, spec.frame
    )
    histogram = CalibrationHistogram(taxonomy.n_classes, free_id=taxonomy.free_id)
    passes = FreePasses()
    masks = [mask for mask in (truth.benchmark.mask, "all") if mask]
    matrices = {mask: ConfusionMatrix(taxonomy.n_classes) for mask in masks}
    scenes = [source.scene(scene_id).frames for scene_id in scene_ids]
    moments = [(frames, k) for frames in scenes for k in range(len(frames))]
    for frames, k in tqdm(moments, desc="calibrate", unit="frame"):
        earlier = earlier_frames(frames, k, spec.past_frames)
        inputs = prepare_frame(source, frames[k], spec, earlier)
        raw, labels = teacher.predict(collate([inputs]))[0].softmax(-1).max(-1)
        predicted = labels.to(torch.uint8).cpu().numpy()
        expected = truth.labels(frames[k])
        known = expected.observed()
        correct = predicted[known] == expected.semantics[known]
        histogram.update(raw.cpu().numpy()[known], predicted[known], correct)
        if config is not None:
            frame = in_lidar_frame(frames[k]) if spec.frame == "lidar" else frames[k]
            occupied = predicted != taxonomy.free_id
            points = metric_points(source, frame, inputs, spec)
            seen = observe(frame, points, teacher.preset.grid, occupied, config.seeing)
            passes.update(seen, occupied, expected.scored())
        for mask, matrix in matrices.items():
            voxels = None if mask == "all" else expected.scored()
            matrix.update(expected.semantics, predicted, voxels)
    calibration = replace(histogram.fit(), free_passes=passes.best())
    return calibration, ScoreTable(taxonomy=taxonomy, matrices=matrices)
