"""A teacher's BEV features kept on disk, so that no student has to run it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from datasets.files.json_files import write_json
from datasets.files.replacing import replacing
from datasets.frames import Frame, SceneSource
from datasets.loading.batch import Batch
from datasets.model_inputs import collate, prepare_frame
from models.inference.predictor import OccupancyPredictor
from models.training.frozen_teacher import TeacherOutputs


def keep_features(
    teacher: OccupancyPredictor, source: SceneSource, frames: Iterable[Frame], folder: Path
) -> None:
    """Write the BEV map that the head reads, (C, Y, X) float16, of every frame."""
    maps, tokens = [], []
    for frame in frames:
        inputs = collate([prepare_frame(source, frame, teacher.preset.inputs)])
        with torch.inference_mode():
            maps.append(teacher.network.bev(inputs.to(teacher.device))[0].half().cpu().numpy())
        tokens.append(frame.token)
    with replacing(folder / "features.npy") as partial:
        np.save(partial, np.stack(maps))
    write_json(folder / "tokens.json", tokens)


class ReplayedPredictor:
    """A ``TeacherSource``: kept features, and what the teacher's head makes of them.

    Features and logits are those of the frame as it is; mirrored with a mirrored frame they are
    close to what the teacher would make of it.
    """

    def __init__(self, folder: Path, head: nn.Module) -> None:
        tokens = json.loads((folder / "tokens.json").read_text())
        self.row = {token: row for row, token in enumerate(tokens)}
        self.maps = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        self.head = head.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutputs:
        maps = self.maps[[self.row[token] for token in batch.tokens]]
        T_bda = torch.eye(4).expand(len(batch), 4, 4).to(batch.inputs.T_bda)
        bev = torch.from_numpy(maps).to(T_bda)
        return TeacherOutputs(bev=bev, logits=self.head(bev), T_bda=T_bda)
