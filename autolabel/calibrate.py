"""Run a teacher over scenes whose truth is known: how good are its labels, and how sure?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from autolabel.confidence import Calibration, CalibrationHistogram
from datasets.errors import SetupError
from datasets.frames import SceneSource, earlier_frames
from datasets.inputs import collate, prepare_frame
from datasets.metrics.confusion import ConfusionMatrix, ScoreTable
from datasets.taxonomy import OCC3D_NUSCENES
from datasets.training_sets import GroundTruth
from models.inference import Teacher
from models.presets import Preset


def calibrate(
    teacher: Teacher, source: SceneSource, truth: GroundTruth, scene_ids: Sequence[str]
) -> tuple[Calibration, ScoreTable]:
    """Calibration table and scores of a teacher on labelled scenes it was not trained on.

    Confidence is fitted on the voxels that a sensor observed.

    Raises:
        SceneError: a file of a scene or of its truth is bad.
    """
    spec, taxonomy = teacher.preset.inputs, teacher.preset.taxonomy
    histogram = CalibrationHistogram(taxonomy.n_classes)
    matrices = {mask: ConfusionMatrix(taxonomy.n_classes) for mask in ("camera-visible", "all")}
    scenes = [source.scene(scene_id).frames for scene_id in scene_ids]
    moments = [(frames, k) for frames in scenes for k in range(len(frames))]
    for frames, k in tqdm(moments, desc="calibrate", unit="frame"):
        earlier = earlier_frames(frames, k, spec.past_frames)
        inputs = collate([prepare_frame(source, frames[k], spec, earlier)])
        raw, labels = teacher.predict(inputs)[0].softmax(-1).max(-1)
        predicted = labels.to(torch.uint8).cpu().numpy()
        expected = truth.labels(frames[k])
        known = expected.observed()
        correct = predicted[known] == expected.semantics[known]
        histogram.update(raw.cpu().numpy()[known], predicted[known], correct)
        matrices["camera-visible"].update(expected.semantics, predicted, expected.mask_camera)
        matrices["all"].update(expected.semantics, predicted)
    return histogram.fit(), ScoreTable(taxonomy=taxonomy, matrices=matrices)


def require_known_truth(preset: Preset) -> None:
    """Ground truth is read in the classes and the grid of Occ3D-nuScenes so far.

    Raises:
        SetupError: the preset predicts others.
    """
    if preset.taxonomy != OCC3D_NUSCENES or preset.inputs.frame != "ego":
        raise SetupError(
            f"preset {preset.name!r} predicts other classes or another grid than Occ3D-nuScenes, "
            "the one benchmark whose ground truth can be read so far"
        )
