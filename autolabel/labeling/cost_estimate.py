"""Cost estimate of a labelling job, from a few of its frames: ``run.py --dry-run``."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_frames
from datasets.errors import SceneError, SetupError
from datasets.frames import SceneSource
from datasets.labels.store import LabelStore, StoreHeader
from datasets.storage.backend import LocalBackend
from models.checkpoints.checkpoint import LoadedModel
from models.inference.predictor import OccupancyPredictor

TIMED = 4
"""Frames that are timed after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Attributes:
    scenes, frames: that the store lacks; bad: scene id -> why it cannot be opened.
    seconds, bytes_: per frame.
    timed: frames that these are measured on.
    workers: that would share the work.
    """

    scenes: int
    frames: int
    bad: dict[str, str]
    seconds: float
    bytes_: float
    timed: int
    workers: int

    def describe(self) -> str:
        seconds, size = self.frames * self.seconds / self.workers, self.frames * self.bytes_
        duration = f"{seconds:.0f} s"
        if seconds >= 7200:
            duration = f"{seconds / 3600:.1f} hours"
        elif seconds >= 120:
            duration = f"{seconds / 60:.0f} min"
        room = f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e9:.1f} GB"
        lines = [
            f"{self.scenes} scenes, {self.frames} frames to label",
            f"{self.seconds:.2f} s a frame and worker (measured on {self.timed} frames): about "
            f"{duration} with {self.workers} workers",
            f"{self.bytes_ / 1e3:.1f} kB a frame: about {room}",
            *(f"  cannot be labeled: {scene}: {reason}" for scene, reason in self.bad.items()),
        ]
        return "\n".join(lines)


def estimate(
    scene_ids: Sequence[str],
    source: SceneSource,
    model: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    header: StoreHeader,
    *,
    workers: int | None,
    readers: int,
) -> Estimate:
    """Time a few frames of the longest scene; keep nothing.

    Args:
        workers: None: as many as this machine has cores (on a GPU one).

    Raises:
        SetupError: no scene can be labelled.
    """
    lengths: dict[str, int] = {}
    bad: dict[str, str] = {}
    for scene_id in tqdm(scene_ids, desc="count", unit="scene", leave=False):
        try:
            lengths[scene_id] = source.n_frames(scene_id)
        except SceneError as error:
            bad[scene_id] = str(error)
    longest = None
    while lengths and longest is None:
        scene_id = max(lengths, key=lengths.__getitem__)
        try:
            longest = source.scene(scene_id)
        except SceneError as error:
            bad[scene_id] = str(error)
            del lengths[scene_id]
    frames = sum(lengths.values())
    device = next(model.module.parameters()).device.type
    if workers is None:
        workers = 1 if device == "cuda" else max(1, len(os.sched_getaffinity(0)) // config.threads)
    if longest is None:
        return Estimate(
            scenes=0, frames=0, bad=bad, seconds=0.0, bytes_=0.0, timed=0, workers=workers
        )
    torch.set_num_threads(config.threads)
    teacher = OccupancyPredictor(
        model.module, model.preset, bfloat16=config.fast, tta_flips=config.flips
    )
    first = replace(longest, frames=longest.frames[: TIMED + 1])
    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = LabelStore.create(Path(folder) / "trial.zarr", header)
        try:
            start = time.monotonic()
            with store.writer(first.scene_id, len(first.frames)) as writer:
                labels = label_frames(first, source, teacher, calibration, config, readers=readers)
                for frame in labels:
                    writer.append(frame)
                    stamps.append(time.monotonic())
                began = time.monotonic()
            stamps[-1] += time.monotonic() - began  # the commit
        except SceneError as error:
            raise SetupError(f"scene {first.scene_id} cannot be timed: {error}") from error
        size = sum(
            n for _, n in LocalBackend(Path(folder)).files(f"trial.zarr/scenes/{first.scene_id}")
        )
    steps = [b - a for a, b in itertools.pairwise(stamps)]
    # refined labels come once the frames after them are read
    if config.refinement is not None or not steps:
        steps = [(stamps[-1] - start) / len(stamps)] * max(1, len(steps))
    return Estimate(
        scenes=len(lengths),
        frames=frames,
        bad=bad,
        seconds=sum(steps) / len(steps),
        bytes_=size / len(first.frames),
        timed=len(steps),
        workers=workers,
    )
