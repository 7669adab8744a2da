"""Pseudo-labels changed in one respect, to tell what limits them, and what their mask is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from datasets.frames import Frame, Scene
from datasets.loading.frame_dataset import GroundTruthTargets, PseudoLabels, Target


class Unmasked:
    """Every voxel is what the teacher says, with weight 1: no mask, no confidence."""

    def __init__(self, pseudo: PseudoLabels) -> None:
        self.pseudo = pseudo

    @property
    def what(self) -> str:
        return self.pseudo.what

    def check(self, scene: Scene) -> None:
        self.pseudo.check(scene)

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        return self.pseudo.identity(scenes)

    def scene_ids(self) -> tuple[str, ...]:
        return self.pseudo.scene_ids()

    def target(self, frame: Frame) -> Target:
        target = self.pseudo.target(frame)
        return replace(target, weight=np.ones_like(target.weight))

    def excluded_frames(self, scene_id: str) -> frozenset[str]:
        return self.pseudo.excluded_frames(scene_id)


class _WithTruth(Unmasked):
    """Part of each target is the ground truth's."""

    def __init__(self, pseudo: PseudoLabels, truth: GroundTruthTargets) -> None:
        super().__init__(pseudo)
        self.truth = truth

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        return self.pseudo.identity(scenes) | self.truth.identity(scenes)


class TrueClasses(_WithTruth):
    """The classes of the truth with the weights of a store: the mask is the store's."""

    def target(self, frame: Frame) -> Target:
        return replace(self.pseudo.target(frame), semantics=self.truth.target(frame).semantics)


class TrueMask(_WithTruth):
    """The classes of a store wherever the benchmark scores, all with weight 1."""

    def target(self, frame: Frame) -> Target:
        return replace(self.pseudo.target(frame), weight=self.truth.target(frame).weight)
