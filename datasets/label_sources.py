"""Where the targets of training come from: ground truth, a label store, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.truth import Truth
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.label_store import GridFrame, LabelStore, MaskBit, StoredScene
from datasets.samples import Target
from datasets.taxonomy import IGNORE_ID, Taxonomy


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
        return Target(semantics=truth.semantics, weight=known.astype(np.float32), flow=truth.flow)


class PseudoLabels:
    """The trusted voxels of a label store, weighted by their calibrated confidence.

    Args:
        only_visible: keep the voxels that a camera sees, the ones a camera student can learn.
        expect_grid, expect_taxonomy, expect_frame: of the network that shall learn them.

    Raises:
        SetupError: the store cannot be read, is not as expected, or holds no finished scene.
    """

    def __init__(
        self,
        store: Path,
        *,
        only_visible: bool = True,
        expect_grid: VoxelGrid | None = None,
        expect_taxonomy: Taxonomy | None = None,
        expect_frame: GridFrame = "ego",
    ) -> None:
        self.path = store
        self.bits = MaskBit.TRUSTED | (MaskBit.CAMERA_VISIBLE if only_visible else 0)
        opened = LabelStore.open(
            store,
            expect_grid=expect_grid,
            expect_taxonomy=expect_taxonomy,
            expect_frame=expect_frame,
        )
        self.scenes = opened.scene_ids()
        if not self.scenes:
            raise SetupError(f"{store}: the store holds no finished scene")
        self.levels = np.asarray(opened.header.levels, np.float32)
        self.run_id = opened.header.run_id
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
            flow=None if labels.flow is None else labels.flow.astype(np.float32),
            human=False,
        )


class Unlabelled:
    """Frames without any label, for what can be learnt from a teacher's features alone."""

    def __init__(self, scenes: Sequence[str], grid: VoxelGrid) -> None:
        self.scenes, self.grid = tuple(scenes), grid

    def scene_ids(self) -> tuple[str, ...]:
        return self.scenes

    def target(self, frame: Frame) -> Target:
        return Target(
            semantics=np.full(self.grid.shape, IGNORE_ID, np.uint8),
            weight=np.zeros(self.grid.shape, np.float32),
            labelled=False,
            human=False,
        )
