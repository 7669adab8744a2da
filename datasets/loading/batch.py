"""Batches of frames and their training targets.

Legend: B frames, (X, Y, Z) voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.model_inputs import FrameInputs, ModelInputs, collate


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a frame is trained towards.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids.
        weight: (X, Y, Z) float32; 0 where the label must not be used.
        flow: (X, Y, Z, 2) float32, m/s along x and y; None without flow.
        labelled: False for a frame without any label.
        is_ground_truth: True for ground truth, False for pseudo-labels or none.
    """

    semantics: NDArray[np.uint8]
    weight: NDArray[np.float32]
    flow: NDArray[np.float32] | None = None
    labelled: bool = True
    is_ground_truth: bool = True

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(a.nbytes for a in (self.semantics, self.weight, self.flow) if a is not None)

    def mirrored(self, *, x: bool, y: bool) -> Target:
        """The same labels in a mirrored BEV frame: x makes forward backward, y left right."""
        axes = [axis for axis, mirrored in enumerate((x, y)) if mirrored]
        flow = self.flow
        if flow is not None:
            flow = np.flip(flow, axes) * np.array([1 - 2 * x, 1 - 2 * y], np.float32)
        return replace(
            self,
            semantics=np.flip(self.semantics, axes),
            weight=np.flip(self.weight, axes),
            flow=flow,
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BadFrame:
    """A frame that training skips."""

    scene: str
    frame: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one optimisation step reads: B frames and their targets.

    Attributes:
        semantics: (B, X, Y, Z) uint8.
        weight: (B, X, Y, Z) float32.
        labelled: (B,) bool; False: the frame has no label at all, its weights are 0.
        is_ground_truth: (B,) bool; True: ground truth, False: pseudo-labels or none.
        flow: (B, X, Y, Z, 2) float32, m/s; None if a frame has none.
        tokens: of the frames, where they were drawn from a set.
        first_draw: the frames are the draws ``first_draw``, ``first_draw + 1``, ... of the
            training; whatever is random about a frame follows from its number.
        bad: frames that were met and skipped while this batch was made.
    """

    inputs: ModelInputs
    semantics: Tensor
    weight: Tensor
    labelled: Tensor
    is_ground_truth: Tensor
    flow: Tensor | None = None
    tokens: tuple[str, ...] = ()
    first_draw: int = 0
    bad: tuple[BadFrame, ...] = ()

    def __len__(self) -> int:
        return len(self.semantics)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            semantics=self.semantics.to(device),
            weight=self.weight.to(device),
            labelled=self.labelled.to(device),
            is_ground_truth=self.is_ground_truth.to(device),
            flow=None if self.flow is None else self.flow.to(device),
        )

    def parts(self, count: int) -> list[Batch]:
        """The frames in ``count`` equal parts, in order.

        Raises:
            ValueError: the frames cannot be divided so.
        """
        size, remainder = divmod(len(self), count)
        if remainder:
            raise ValueError(f"{len(self)} frames cannot be divided into {count} equal parts")
        return [self._some(i * size, (i + 1) * size) for i in range(count)]

    def _some(self, a: int, b: int) -> Batch:
        return replace(
            self,
            inputs=_some_inputs(self.inputs, a, b),
            semantics=self.semantics[a:b],
            weight=self.weight[a:b],
            labelled=self.labelled[a:b],
            is_ground_truth=self.is_ground_truth[a:b],
            flow=None if self.flow is None else self.flow[a:b],
            tokens=self.tokens[a:b],
            first_draw=self.first_draw + a,
        )


def _some_inputs(inputs: ModelInputs, a: int, b: int) -> ModelInputs:
    return ModelInputs(
        images=inputs.images[a:b],
        T_ego_camera=inputs.T_ego_camera[a:b],
        intrinsics=inputs.intrinsics[a:b],
        post_image=inputs.post_image[a:b],
        T_bda=inputs.T_bda[a:b],
        points=None if inputs.points is None else inputs.points[a:b],
        depth=None if inputs.depth is None else inputs.depth[a:b],
        previous=tuple(_some_inputs(frame, a, b) for frame in inputs.previous),
        present=None if inputs.present is None else inputs.present[a:b],
    )


def make_batch(
    frames: Sequence[tuple[FrameInputs, Target, tuple[bool, bool]]],
    *,
    tokens: Sequence[str] = (),
    first_draw: int = 0,
    bad: Sequence[BadFrame] = (),
) -> Batch:
    """Batch frames, each mirrored as told: x makes forward backward, y makes left right."""
    T_bda = np.array([np.diag([1.0 - 2 * x, 1.0 - 2 * y, 1.0, 1.0]) for _, _, (x, y) in frames])
    targets = [target.mirrored(x=x, y=y) for _, target, (x, y) in frames]
    flows = [target.flow for target in targets if target.flow is not None]
    return Batch(
        inputs=collate([inputs for inputs, _, _ in frames], T_bda),
        semantics=torch.from_numpy(np.stack([t.semantics for t in targets])),
        weight=torch.from_numpy(np.stack([t.weight for t in targets])),
        labelled=torch.tensor([t.labelled for t in targets]),
        is_ground_truth=torch.tensor([t.is_ground_truth for t in targets]),
        flow=torch.from_numpy(np.stack(flows)) if len(flows) == len(targets) else None,
        tokens=tuple(tokens),
        first_draw=first_draw,
        bad=tuple(bad),
    )
