"""Shift the logits of a teacher's classes so that its predictions have the best mIoU.

Training sees rare classes more often than a log has them, by drawn columns, class weights and
pasted objects, and a network then finds them where they are not. The shifts are fitted on labeled
scenes, and become part of the last layer's bias: labeling costs nothing more.

Legend: V voxels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from autolabel.calibration.best_offsets import best_offsets
from datasets.frames import SceneSource, earlier_frames
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.model_inputs import collate, prepare_frame
from datasets.taxonomy import Taxonomy
from models.inference.predictor import OccupancyPredictor
from models.networks.heads import OccupancyHead

MAX_VOXELS = 2_000_000


def fit_offsets(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
) -> NDArray[np.float32]:
    """(K,) what to add to the logits, from scenes that the teacher was not trained on.

    Raises:
        SceneError: a file of a scene or of its truth is bad.
    """
    spec, taxonomy = teacher.preset.inputs, teacher.preset.taxonomy
    scenes = [source.scene(scene_id) for scene_id in scene_ids]
    per_frame = MAX_VOXELS // max(1, sum(len(scene.frames) for scene in scenes))
    rng = np.random.default_rng(0)
    logits, labels = [], []
    for scene in tqdm(scenes, desc="class offsets", unit="scene"):
        for k, frame in enumerate(scene.frames):
            expected = truth.labels(frame)
            usable = expected.scored() & (expected.semantics < taxonomy.n_classes)
            chosen = np.flatnonzero(usable)
            chosen = rng.permutation(chosen)[:per_frame]
            earlier = earlier_frames(scene.frames, k, spec.past_frames)
            inputs = collate([prepare_frame(source, frame, spec, earlier)])
            output = teacher.predict(inputs)[0].flatten(0, 2)
            logits.append(output[torch.from_numpy(chosen).to(output.device)].float().cpu())
            labels.append(torch.from_numpy(expected.semantics.ravel()[chosen].astype(np.int64)))
    if not logits:
        return np.zeros(taxonomy.n_classes, np.float32)
    return best_offsets(torch.cat(logits), torch.cat(labels), taxonomy.semantic_ids)


def add_offsets(network: nn.Module, offsets: NDArray[np.float32]) -> None:
    """Make them part of the network's last layer.

    Raises:
        ValueError: the network has no occupancy head, or of other classes.
    """
    head = getattr(network, "occ_head", None)
    if not isinstance(head, OccupancyHead):
        raise ValueError("the network has no occupancy head")
    if len(offsets) != head.config.classes:
        raise ValueError(f"{len(offsets)} offsets for {head.config.classes} classes")
    head.add_to_logits(torch.from_numpy(offsets))


def offsets_text(offsets: NDArray[np.float32], taxonomy: Taxonomy) -> str:
    """A line for people."""
    shifted = [
        f"{name} {offset:+.2f}"
        for name, offset in zip(taxonomy.names, offsets, strict=True)
        if offset
    ]
    return f"logits shifted: {', '.join(shifted) or 'none'}"
