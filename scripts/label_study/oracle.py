"""Pseudo-labels put right in one respect, to tell what limits them: their classes or their mask."""

from __future__ import annotations

from dataclasses import replace

from datasets.frames import Frame
from datasets.training_sets import GroundTruth, PseudoLabels, Target


class TrueClasses:
    """The classes of the truth with the weights of a store: the mask is the store's."""

    def __init__(self, pseudo: PseudoLabels, truth: GroundTruth) -> None:
        self.pseudo, self.truth = pseudo, truth

    def scene_ids(self) -> tuple[str, ...]:
        return self.pseudo.scene_ids()

    def target(self, frame: Frame) -> Target:
        return replace(self.pseudo.target(frame), semantics=self.truth.target(frame).semantics)

    def left_out(self, scene_id: str) -> frozenset[str]:
        return self.pseudo.left_out(scene_id)


class TrueMask:
    """The classes of a store wherever the benchmark scores, all with weight 1."""

    def __init__(self, pseudo: PseudoLabels, truth: GroundTruth) -> None:
        self.pseudo, self.truth = pseudo, truth

    def scene_ids(self) -> tuple[str, ...]:
        return self.pseudo.scene_ids()

    def target(self, frame: Frame) -> Target:
        return replace(self.pseudo.target(frame), weight=self.truth.target(frame).weight)

    def left_out(self, scene_id: str) -> frozenset[str]:
        return self.pseudo.left_out(scene_id)
