"""Sources of training targets: ground truth, a label store, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SceneError, SetupError
from datasets.files.store_path import StorePath
from datasets.frames import Frame, Scene, SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.labels.log_identity import files_digest, require_same_log
from datasets.labels.store import GridFrame, LabelStore, MaskBit, StoredScene
from datasets.loading.batch import Target
from datasets.reviews.edits import distrusted
from datasets.reviews.overlay import Reviews, labels_digest
from datasets.taxonomy import IGNORE_ID, Taxonomy

BALANCE = 10.0


class TargetSource(Protocol):
    """Where targets come from. Picklable; opens files only when asked for a target, to ``check`` a
    scene or for its ``identity``."""

    @property
    def what(self) -> str:
        """The labels, in the words of a message."""
        ...

    def scene_ids(self) -> tuple[str, ...]: ...

    def check(self, scene: Scene) -> None:
        """Raises ``SetupError``: the labels of this scene are known to be of another log's."""
        ...

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        """What targets are made from: kind, such as ``truth``, -> scene -> hash.

        Args:
            scenes: the log's frames; those of others do not matter.
        """
        ...

    def target(self, frame: Frame) -> Target: ...

    def excluded_frames(self, scene_id: str) -> frozenset[str]:
        """Tokens of the scene's frames that nothing is to be learnt from."""


class GroundTruthTargets:
    """The labels of a benchmark.

    Args:
        root: folder of the truth.
        source: the log whose frames are labeled.
        scenes: the scenes that may be used: the labeled ones.
        only_visible: train where the benchmark scores, as published. Otherwise also where only
            LiDAR observed the voxel: a labeler vouches for those voxels too.
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

    @property
    def what(self) -> str:
        return f"{self.benchmark.name} labels in {self.root}"

    def check(self, scene: Scene) -> None:
        """Nothing: label files bear tokens alone, no time and no pose."""

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        digests: dict[str, str] = {}
        for scene_id in set(self.scenes) & set(scenes):
            frames = scenes[scene_id]
            paths = [self.benchmark.path(self.root, self.source, frame) for frame in frames]
            digests[scene_id] = f"{self.benchmark.name} {files_digest(paths)}"
        return {"truth": digests}

    def scene_ids(self) -> tuple[str, ...]:
        return self.scenes

    def labels(self, frame: Frame) -> GroundTruth:
        return self.benchmark.labels(self.root, self.source, frame)

    def target(self, frame: Frame) -> Target:
        truth = self.labels(frame)
        usable = truth.scored() if self.only_visible else truth.observed()
        return Target(semantics=truth.semantics, weight=usable.astype(np.float32), flow=truth.flow)

    def excluded_frames(self, scene_id: str) -> frozenset[str]:
        return frozenset()


class PseudoLabels:
    """The trusted voxels of a label store, weighted by their calibrated confidence, as reviewed:
    strokes applied, rejected frames left out.

    Args:
        only_visible: keep the voxels that a camera sees, the ones a camera student can learn.
        expect_grid, expect_taxonomy, expect_frame: of the network that shall learn them.
        balance: weigh classes up, or down, against the share of their voxels that trust and
            confidence keep (``class_balance``), up to this factor; 1: no class is weighed. None:
            10 in a store made with a promise about errors, which drops more of what is hard, and
            else 1.
        use_reviews: False: as the teacher wrote them. True: with the store's reviews as they are
            now, which stay those of this object; or with reviews read before, which makes several
            processes learn the same.

    Raises:
        SetupError: the store or a review cannot be read, is not as expected, or there is no
            finished scene.
        SceneError: for the balance, a scene cannot be read.
    """

    def __init__(
        self,
        store: StorePath,
        *,
        only_visible: bool = True,
        expect_grid: VoxelGrid | None = None,
        expect_taxonomy: Taxonomy | None = None,
        expect_frame: GridFrame = "ego",
        balance: float | None = None,
        use_reviews: bool | Reviews = True,
    ) -> None:
        self.path = store
        visibility = MaskBit.CAMERA_VISIBLE if only_visible else MaskBit(0)
        self.bits = MaskBit.TRUSTED | visibility
        opened = LabelStore.open(
            store,
            expect_grid=expect_grid,
            expect_taxonomy=expect_taxonomy,
            expect_frame=expect_frame,
        )
        committed = opened.committed()
        self.scenes = tuple(committed)
        if not self.scenes:
            raise SetupError(f"{store}: the store holds no finished scene")
        self.levels = np.asarray(opened.header.levels, np.float32)
        run_id, self.frame = opened.header.run_id, opened.header.frame
        self._digests = {s: f"{run_id} {labels_digest(a)}" for s, a in committed.items()}
        self.reviews = Reviews(opened) if use_reviews is True else use_reviews or None
        if self.reviews is not None:
            self.reviews.require_whole()
        self.class_weights = np.ones(256, np.float32)
        if balance is None:
            promised = "promise" in opened.header.provenance.get("config", {})
            balance = BALANCE if promised else 1.0
        if balance != 1:
            trusted, observed = trusted_by_class(opened, visibility, self.reviews)
            self.class_weights = class_balance(trusted, observed, at_most=balance)
        self._open: dict[str, StoredScene] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def scene_ids(self) -> tuple[str, ...]:
        return self.scenes

    @property
    def what(self) -> str:
        return f"label store {self.path}"

    def check(self, scene: Scene) -> None:
        require_same_log(self.what, self._scene(scene.scene_id), scene, self.frame)

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        return {
            "labels": {
                scene_id: self._digests[scene_id] for scene_id in self.scenes if scene_id in scenes
            }
        }

    def excluded_frames(self, scene_id: str) -> frozenset[str]:
        return frozenset() if self.reviews is None else self.reviews.rejected(scene_id)

    def _scene(self, scene_id: str) -> StoredScene:
        if scene_id not in self._open:
            self._open[scene_id] = LabelStore.open(self.path).scene(scene_id)
        return self._open[scene_id]

    def target(self, frame: Frame) -> Target:
        scene = self._scene(frame.scene_id)
        try:
            labels = scene.frame(scene.index_of(frame.token))
        except KeyError:
            raise SceneError(
                where=f"{self.path}: scene {frame.scene_id}",
                frame=frame.token,
                rule="the store has no labels of this frame; is it of another log?",
            ) from None
        if self.reviews is not None:
            labels = self.reviews.reviewed(labels, frame.scene_id)
        if frame.token in self.excluded_frames(frame.scene_id):
            labels = distrusted(labels)
        usable = (labels.mask & self.bits) == self.bits
        weight = self.levels[labels.confidence] * self.class_weights[labels.semantics]
        return Target(
            semantics=labels.semantics,
            weight=np.where(usable, weight, np.float32(0)),
            flow=None if labels.flow is None else labels.flow.astype(np.float32),
            is_ground_truth=False,
        )


def trusted_by_class(
    store: LabelStore, visibility: MaskBit, reviews: Reviews | None = None, *, at_most: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each class the sum of the trusted voxels' confidences, and how many voxels a sensor
    observed, (256,) each, in evenly spaced frames of a store.

    Args:
        seen: bits that a voxel must have to be counted at all.
        reviews: applied; frames that they reject do not count.
    """
    observed = MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE
    levels = np.asarray(store.header.levels)
    confidences, voxels = np.zeros(256), np.zeros(256, np.int64)
    scenes = [store.scene(scene_id) for scene_id in store.scene_ids()]
    moments = [(scene, k) for scene in scenes for k in range(len(scene))]
    for scene, k in moments[:: max(1, len(moments) // at_most)]:
        labels = scene.frame(k)
        if reviews is not None:
            if labels.token in reviews.rejected(scene.scene_id):
                continue
            labels = reviews.reviewed(labels, scene.scene_id)
        counted = ((labels.mask & visibility) == visibility) & ((labels.mask & observed) > 0)
        trusted = counted & ((labels.mask & MaskBit.TRUSTED) > 0)
        voxels += np.bincount(labels.semantics[counted], minlength=256)
        confidence = levels[labels.confidence[trusted]]
        confidences += np.bincount(labels.semantics[trusted], confidence, minlength=256)
    return confidences, voxels


def class_balance(
    confidences: NDArray[np.float64], voxels: NDArray[np.int64], *, at_most: float
) -> NDArray[np.float32]:
    """Weights that give each class the part in the loss that it has in what was observed.

    The share kept of all voxels, a voxel counting by its confidence, divided by the share kept of
    the class's; within ``1 / at_most`` to ``at_most``, and 1 for a class of which nothing is kept
    or there. Without it a student learns emptiness: labels of free space are trusted most.

    Raises:
        ValueError: ``at_most`` is below 1.
    """
    if not at_most >= 1:
        raise ValueError(f"the largest weight of a class must be at least 1, got {at_most}")
    overall = confidences.sum() / max(1, voxels.sum())
    share = confidences / np.maximum(voxels, 1)
    weights = np.divide(overall, share, out=np.ones(len(confidences)), where=confidences > 0)
    return weights.clip(1 / at_most, at_most).astype(np.float32)


class Unlabelled:
    """Frames without any label, for what can be learnt from a teacher's features alone."""

    def __init__(self, scenes: Sequence[str], grid: VoxelGrid) -> None:
        self.scenes, self.grid = tuple(scenes), grid

    @property
    def what(self) -> str:
        return "scenes without labels"

    def check(self, scene: Scene) -> None:
        """Nothing: there are no labels."""

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        return {}

    def scene_ids(self) -> tuple[str, ...]:
        return self.scenes

    def target(self, frame: Frame) -> Target:
        return Target(
            semantics=np.full(self.grid.shape, IGNORE_ID, np.uint8),
            weight=np.zeros(self.grid.shape, np.float32),
            labelled=False,
            is_ground_truth=False,
        )

    def excluded_frames(self, scene_id: str) -> frozenset[str]:
        return frozenset()
