"""torch Datasets: frames with labels from ground truth or from a label store.

A student's set (``InputSpec.lidar`` false) opens pictures and labels, never a LiDAR file.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, SceneSource, earlier_frames
from datasets.labels.log_identity import NO_SCENE, another_log, frames_digest
from datasets.loading.augmentation import Augmentation, DrawnView
from datasets.loading.batch import BadFrame, Batch, Target, make_batch
from datasets.loading.mixing import PARTNERS, Mixing, Sector, has_object, mix_object, mix_sector
from datasets.loading.source_cache import ByteBudgetCache, cached_source
from datasets.loading.targets import GroundTruthTargets, PseudoLabels, TargetSource, Unlabelled
from datasets.model_inputs import FrameInputs, InputSpec, prepare_frame

__all__ = [
    "BadFrame",
    "Batch",
    "FrameDataset",
    "GroundTruthTargets",
    "PseudoLabels",
    "Target",
    "TargetSource",
    "Unlabelled",
    "make_batch",
]


Prepared = tuple[FrameInputs, Target, tuple[bool, bool]]
"""A frame, its target, and whether x and y are mirrored."""


class FrameDataset(Dataset[Batch]):
    """Frames of one log with their labels, drawn by optimisation step.

    Item ``k`` is the batch of step ``k``: every frame once per epoch (of its kind, with
    ``human_share``) in an order, and with augmentation, that follow from the seed alone. A run that
    is stopped and continued at step ``k`` therefore sees exactly what it would have seen. A frame
    whose files are bad is skipped, the next one in the epoch's order taking its place, and named in
    the sample.

    Args:
        source: the log.
        labels: one or more label sources; a scene named by two is used twice.
        spec: what the network sees.
        batch: frames per step.
        augment: what is changed at random; None: nothing, and always the newest sweeps.
        seed: decides order and augmentation.
        memory_gib: keep what was read, up to so much in every process that prepares data: for
            small sets.
        human_share: share of the draws that are frames with ground truth, evenly spread, where
            there are others too; None: every frame equally often.
        mixing: of frames with ground truth with parts of others; None: none.

    Attributes:
        bad_scenes: scenes left out because their tables are bad.

    Raises:
        SetupError: there is no frame, a share is asked for of frames that are all of one kind, or
            labels are of another log.
    """

    def __init__(
        self,
        source: SceneSource,
        labels: Sequence[TargetSource],
        spec: InputSpec,
        *,
        batch: int = 1,
        augment: Augmentation | None = None,
        seed: int = 0,
        memory_gib: float = 0.0,
        human_share: float | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        self.cache = ByteBudgetCache(memory_gib)
        self.source = cached_source(source, self.cache)
        self.spec, self.batch = spec, batch
        self.augment, self.seed, self.mixing = augment, seed, mixing
        self.rank, self.world_size = 0, 1
        self.items: list[tuple[TargetSource, Frame]] = []
        self.earlier: list[tuple[Frame, ...]] = []
        self.bad_scenes: list[BadFrame] = []
        self._labels = tuple(labels)
        self._scenes: dict[str, tuple[Frame, ...]] = {}
        self._bad: dict[int, BadFrame] = {}
        for label_source in labels:
            for scene_id in label_source.scene_ids():
                self._add_scene(label_source, scene_id)
        if not self.items:
            reason = f"; {self.bad_scenes[0].reason}" if self.bad_scenes else ""
            raise SetupError(f"there is no frame to train on{reason}")
        self.human_share = human_share
        self.with_ground_truth = [
            i
            for i, (targets, _) in enumerate(self.items)
            if isinstance(targets, GroundTruthTargets)
        ]
        self.without_ground_truth = sorted(
            set(range(len(self.items))) - set(self.with_ground_truth)
        )
        if human_share is not None and not (
            0 < human_share < 1 and self.with_ground_truth and self.without_ground_truth
        ):
            raise SetupError(
                f"{human_share:g} as the share of frames with ground truth: it must be between 0 "
                f"and 1, and both kinds there ({len(self.with_ground_truth)} with, "
                f"{len(self.without_ground_truth)} without)"
            )

    def _add_scene(self, labels: TargetSource, scene_id: str) -> None:
        try:
            scene = self.source.scene(scene_id)
            labels.check(scene)
        except SceneError as error:
            self.bad_scenes.append(BadFrame(scene=scene_id, frame=error.frame, reason=str(error)))
            return
        except KeyError:
            raise another_log(labels.what, scene_id, "", NO_SCENE) from None
        frames = self._scenes[scene_id] = scene.frames
        excluded = labels.excluded_frames(scene_id)
        for k, frame in enumerate(frames):
            if frame.token not in excluded:
                self.items.append((labels, frame))
                self.earlier.append(earlier_frames(frames, k, self.spec.past_frames))

    def share(self, rank: int, world_size: int) -> FrameDataset:
        """The same set, of whose batches only the part of process ``rank`` is prepared.

        Raises:
            SetupError: the batch cannot be divided equally.
        """
        if self.batch % world_size:
            raise SetupError(f"a batch of {self.batch} cannot be shared by {world_size} workers")
        part = copy.copy(self)
        part.rank, part.world_size = rank, world_size
        return part

    def fingerprint(self) -> str:
        """Hash of the frames, their order and their augmentation."""
        tokens = [frame.token for _, frame in self.items]
        how = (tokens, self.spec, self.batch, self.augment, self.seed, self.human_share)
        text = repr(how if self.mixing is None else (*how, self.mixing))
        return hashlib.sha256(text.encode()).hexdigest()

    def data(self) -> dict[str, Any]:
        """What the samples are made from, by its kind and its scene, as hashes: the log's frames
        and files, the truth's files, the store's labels. A moved log is the same."""
        lidar = self.spec.lidar
        hashes: dict[str, Any] = {
            "log": {scene_id: frames_digest(f, lidar=lidar) for scene_id, f in self._scenes.items()}
        }
        for labels in self._labels:
            for kind, scenes in labels.identity(self._scenes).items():
                hashes[kind] = hashes.get(kind, {}) | scenes
        return hashes

    def __getitem__(self, step: int) -> Batch:
        size = self.batch // self.world_size
        first = step * self.batch + self.rank * size
        bad: list[BadFrame] = []
        drawn = [self._drawn(first + i, bad) for i in range(size)]
        tokens = [self.items[item][1].token for item, _ in drawn]
        frames = [frame for _, frame in drawn]
        return make_batch(frames, tokens=tokens, first_draw=first, bad=bad)

    def _drawn(self, draw: int, bad: list[BadFrame]) -> tuple[int, Prepared]:
        kind, turn = self._turn(draw)
        n = len(kind)
        epoch, position = divmod(turn, n)
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(n)
        for k in range(n):
            item = kind[order[(position + k) % n]]
            if item not in self._bad:
                try:
                    return item, self._prepared(item, draw)
                except SceneError as error:
                    scene = self.items[item][1].scene_id
                    frame = self.items[item][1].token
                    self._bad[item] = BadFrame(scene=scene, frame=frame, reason=str(error))
            bad.append(self._bad[item])
        raise SetupError(f"every one of the {n} frames is bad; {bad[0].reason}")

    def _turn(self, draw: int) -> tuple[Sequence[int], int]:
        """The items that a draw is from, and how many draws were from them before."""
        if self.human_share is None:
            return range(len(self.items)), draw
        before = int(draw * self.human_share)
        if int((draw + 1) * self.human_share) > before:
            return self.with_ground_truth, before
        return self.without_ground_truth, draw - before

    def _prepared(self, item: int, draw: int) -> Prepared:
        rng = np.random.default_rng((self.seed, 1, draw))
        frame, flip = self._viewed(item, rng)
        if self.mixing is not None and isinstance(self.items[item][0], GroundTruthTargets):
            frame = self._mixed(frame, self.mixing, np.random.default_rng((self.seed, 2, draw)))
        return *frame, flip

    def _viewed(
        self, item: int, rng: np.random.Generator
    ) -> tuple[tuple[FrameInputs, Target], tuple[bool, bool]]:
        frame = self.items[item][1]
        view = DrawnView(frame=frame)
        if self.augment is not None:
            view = self.augment.draw(frame, self.spec, rng)
        inputs = prepare_frame(self.source, view.frame, self.spec, self.earlier[item], view.fit)
        inputs = view.in_the_air(inputs, self.spec)
        return (inputs, self._target(item)), view.flip

    def _target(self, item: int) -> Target:
        labels, frame = self.items[item]
        return self.cache.get(item, lambda: labels.target(frame))

    def _mixed(
        self, frame: tuple[FrameInputs, Target], mixing: Mixing, rng: np.random.Generator
    ) -> tuple[FrameInputs, Target]:
        """The frame with parts of others, which are not mirrored: the whole is, later on."""
        partners = self.with_ground_truth
        if rng.random() < mixing.sector:
            other, _ = self._viewed(partners[int(rng.integers(len(partners)))], rng)
            frame = mix_sector(frame, other, Sector.draw(rng), mixing.grid)
        if mixing.classes and rng.random() < mixing.objects:
            class_id = mixing.classes[int(rng.integers(len(mixing.classes)))]
            for i in rng.permutation(len(partners))[:PARTNERS]:
                if has_object(self._target(partners[i]), class_id).any():
                    other, _ = self._viewed(partners[i], rng)
                    return mix_object(frame, other, class_id, mixing.grid, rng)
        return frame
