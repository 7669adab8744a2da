"""torch Datasets: frames with labels from ground truth or from a label store.

A student's set (``InputSpec.lidar`` false) opens pictures and labels, never a LiDAR file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.truth import Truth
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, SceneSource, earlier_frames
from datasets.geometry.grid import VoxelGrid
from datasets.inputs import FrameInputs, InputSpec, ModelInputs, collate, prepare_frame
from datasets.label_store import LabelStore, MaskBit, StoredScene


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a frame is trained towards.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids.
        weight: (X, Y, Z) float32; 0 where the label must not be used.
    """

    semantics: NDArray[np.uint8]
    weight: NDArray[np.float32]


class LabelSource(Protocol):
    """Where targets come from. Picklable; opens files only when asked for a target."""

    def scene_ids(self) -> tuple[str, ...]: ...

    def target(self, frame: Frame) -> Target: ...


class GroundTruth:
    """The labels of a benchmark.

    Args:
        root: folder of the truth.
        source: the log whose frames are labelled.
        scenes: the scenes that may be used: the labelled ones.
        only_visible: train where the benchmark scores, as published. Otherwise also where only
            LiDAR observed the voxel: a labeller vouches for those voxels too.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        root: Path,
        source: SceneSource,
        scenes: Sequence[str],
        *,
        only_visible: bool = True,
    ) -> None:
        self.benchmark, self.root, self.source = benchmark, root, source
        self.scenes, self.only_visible = tuple(scenes), only_visible

    def scene_ids(self) -> tuple[str, ...]:
        return self.scenes

    def labels(self, frame: Frame) -> Truth:
        return self.benchmark.labels(self.root, self.source, frame)

    def target(self, frame: Frame) -> Target:
        truth = self.labels(frame)
        known = truth.scored() if self.only_visible else truth.observed()
        return Target(semantics=truth.semantics, weight=known.astype(np.float32))


class PseudoLabels:
    """The trusted voxels of a label store, weighted by their calibrated confidence.

    ``only_visible`` keeps the voxels that a camera sees, the ones a camera student can learn.
    """

    def __init__(
        self, store: Path, *, only_visible: bool = True, expect_grid: VoxelGrid | None = None
    ) -> None:
        self.path = store
        self.bits = MaskBit.TRUSTED | (MaskBit.CAMERA_VISIBLE if only_visible else 0)
        opened = LabelStore.open(store, expect_grid=expect_grid)
        self.scenes = opened.scene_ids()
        if not self.scenes:
            raise SetupError(f"{store}: the store holds no finished scene")
        self.levels = np.asarray(opened.header.levels, np.float32)
        self._open: dict[str, StoredScene] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def scene_ids(self) -> tuple[str, ...]:
        return self.scenes

    def target(self, frame: Frame) -> Target:
        if frame.scene_id not in self._open:
            self._open[frame.scene_id] = LabelStore.open(self.path).scene(frame.scene_id)
        scene = self._open[frame.scene_id]
        try:
            labels = scene.frame(scene.index_of(frame.token))
        except KeyError:
            raise SceneError(
                where=f"{self.path}: scene {frame.scene_id}",
                frame=frame.token,
                rule="the store has no labels of this frame; is it of another log?",
            ) from None
        usable = (labels.mask & self.bits) == self.bits
        return Target(
            semantics=labels.semantics,
            weight=np.where(usable, self.levels[labels.confidence], np.float32(0)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one optimisation step reads: B frames and their targets.

    Attributes:
        semantics: (B, X, Y, Z) uint8.
        weight: (B, X, Y, Z) float32.
    """

    inputs: ModelInputs
    semantics: Tensor
    weight: Tensor


class FrameSet(Dataset[Sample]):
    """Labelled frames of one log, drawn by optimisation step.

    Item ``k`` is the batch of step ``k``: every frame once per epoch in an order, and with
    augmentation, that follow from the seed alone. A run that is stopped and continued at step ``k``
    therefore sees exactly what it would have seen.

    Args:
        source: the log.
        labels: one or more label sources; a scene named by two is used twice.
        spec: what the network sees.
        batch: frames per step.
        augment: mirror x and y of the ego frame at random (points, labels and the lift alike),
            and give every second frame fewer past sweeps, as at the start of a log.
        seed: decides order and augmentation.

    Raises:
        SetupError: there is no labelled frame.
        SceneError: a labelled scene's tables are bad.
    """

    def __init__(
        self,
        source: SceneSource,
        labels: Sequence[LabelSource],
        spec: InputSpec,
        *,
        batch: int = 1,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        self.source, self.spec, self.batch = source, spec, batch
        self.augment, self.seed = augment, seed
        self.items: list[tuple[LabelSource, Frame]] = []
        self.earlier: list[tuple[Frame, ...]] = []
        for label_source in labels:
            for scene_id in label_source.scene_ids():
                frames = source.scene(scene_id).frames
                self.items += [(label_source, frame) for frame in frames]
                self.earlier += [
                    earlier_frames(frames, k, spec.past_frames) for k in range(len(frames))
                ]
        if not self.items:
            raise SetupError("there is no labelled frame to train on")

    def __getitem__(self, step: int) -> Sample:
        return make_sample([self._drawn(step * self.batch + i) for i in range(self.batch)])

    def _drawn(self, draw: int) -> tuple[FrameInputs, Target, tuple[bool, bool]]:
        epoch, position = divmod(draw, len(self.items))
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.items))
        labels, frame = self.items[order[position]]
        earlier = self.earlier[order[position]]
        spec, flip = self.spec, (False, False)
        if self.augment:
            rng = np.random.default_rng((self.seed, 1, draw))
            flip = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
            if rng.random() < 0.5:
                spec = replace(spec, past_sweeps=int(rng.integers(spec.past_sweeps + 1)))
        return prepare_frame(self.source, frame, spec, earlier), labels.target(frame), flip


def make_sample(frames: Sequence[tuple[FrameInputs, Target, tuple[bool, bool]]]) -> Sample:
    """Batch frames, each mirrored as told: x makes forward backward, y makes left right."""
    T_bda = np.array([np.diag([1.0 - 2 * x, 1.0 - 2 * y, 1.0, 1.0]) for _, _, (x, y) in frames])
    axes = [[axis for axis, on in enumerate(flip) if on] for _, _, flip in frames]
    semantics = [np.flip(t.semantics, a) for (_, t, _), a in zip(frames, axes, strict=True)]
    weight = [np.flip(t.weight, a) for (_, t, _), a in zip(frames, axes, strict=True)]
    return Sample(
        inputs=collate([inputs for inputs, _, _ in frames], T_bda),
        semantics=torch.from_numpy(np.stack(semantics)),
        weight=torch.from_numpy(np.stack(weight)),
    )
