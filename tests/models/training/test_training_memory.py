"""What a training set has read is kept in memory where asked for."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from one_camera_log import SPEC, OneCameraLog, write_truth

from datasets.frames import CameraView
from datasets.loading.augmentation import Augmentation
from datasets.loading.frame_dataset import FrameDataset


class CountingLog(OneCameraLog):
    def __init__(self, *, frames: int) -> None:
        super().__init__(frames=frames)
        self.opened: list[str] = []

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        self.opened.append(view.path.name)
        return super().read_image(view)


@pytest.mark.parametrize(("gib", "opened"), [(1.0, 3), (0.0, 12), (24 * 32 * 3 / 2**30, 9)])
def test_pictures_are_opened_once_as_long_as_there_is_room(
    tmp_path: Path, gib: float, opened: int
) -> None:
    """Three frames, four epochs; in the last case there is room for one picture."""
    log = CountingLog(frames=3)
    truth = write_truth(tmp_path, log)
    plain = FrameDataset(OneCameraLog(frames=3), [truth], SPEC, batch=3, augment=Augmentation())
    samples = FrameDataset(log, [truth], SPEC, batch=3, augment=Augmentation(), memory_gib=gib)
    for step in range(4):
        got, expected = samples[step], plain[step]
        assert torch.equal(got.inputs.images, expected.inputs.images)
        assert torch.equal(got.semantics, expected.semantics)
    assert len(log.opened) == opened


def test_memory_travels_empty_to_other_processes(tmp_path: Path) -> None:
    log = OneCameraLog()
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC, memory_gib=1.0)
    assert len(pickle.dumps(samples)) < 20_000
    samples[0]
    assert len(pickle.dumps(samples)) < 20_000
    assert pickle.loads(pickle.dumps(samples)).cache.room == 2**30
