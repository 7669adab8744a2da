"""A training of a toy network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from one_camera_log import SPEC, OneCameraLog, write_truth
from torch import Tensor, nn

from datasets.loading.augmentation import Augmentation
from datasets.loading.frame_dataset import FrameDataset
from datasets.model_inputs import ModelInputs
from datasets.taxonomy import OCC3D_NUSCENES
from models.training.loop import Trained, TrainingConfig, fit
from models.training.objectives import LabelLoss


class ToyHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 16 * 18)
        self.dropout = nn.Dropout(0.2)

    def columns(self, bev: Tensor, index: Tensor) -> Tensor:
        features = self.dropout(bev.permute(0, 3, 2, 1).flatten(0, 2)[index])
        logits: Tensor = self.out(features).view(-1, 16, 18)
        return logits


class ToyNetwork(nn.Module):
    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.occ_head = ToyHead()
        self.norm = nn.BatchNorm2d(2) if norm else nn.Identity()
        if not norm:
            self.occ_head.dropout.p = 0.0

    def bev(self, inputs: ModelInputs) -> Tensor:
        mean = inputs.images.mean((1, 2, 3, 4)).view(-1, 1, 1, 1)
        ramp = torch.linspace(-1, 1, 200).expand(200, 200)
        bev: Tensor = self.norm(torch.cat((mean + ramp[None, None], mean * ramp.T), 1))
        return bev


CONFIG = TrainingConfig(
    steps=6, precision="float32", save_every=2, log_every=1, loaders=0, learning_rate=1e-2
)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


LOSS = LabelLoss(taxonomy=OCC3D_NUSCENES, columns=50)


@pytest.fixture()
def samples(tmp_path: Path) -> FrameDataset:
    log = OneCameraLog(frames=4)
    truth = write_truth(tmp_path, log)
    return FrameDataset(log, [truth], SPEC, batch=2, augment=Augmentation())


def run(
    samples: FrameDataset,
    folder: Path,
    config: TrainingConfig = CONFIG,
    *,
    network: nn.Module | None = None,
    job: dict[str, object] | None = None,
) -> Trained:
    torch.manual_seed(0)
    network = network or ToyNetwork()
    return fit(network, samples, objective=LOSS, config=config, folder=folder, job=job)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
