"""The frozen teacher of a distillation: its outputs, computed or replayed, and its head.

Legend: B frames, C channels, (Y, X) BEV cells, (X, Y, Z) voxels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from datasets.errors import SetupError
from datasets.loading.batch import Batch
from datasets.model_inputs import InputSpec
from models.training.objectives import OccupancyNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherOutputs:
    """What a teacher makes of a batch.

    Attributes:
        bev: (B, C, Y, X) float, what its head reads.
        logits: (B, X, Y, Z, K) float.
        T_bda: (B, 4, 4) float32, the BEV augmentation under which it saw the frames.
    """

    bev: Tensor
    logits: Tensor
    T_bda: Tensor

    def __post_init__(self) -> None:
        B = len(self.T_bda)
        if self.bev.ndim != 4 or self.logits.ndim != 5 or {len(self.bev), len(self.logits)} != {B}:
            raise ValueError(
                f"expected bev (B, C, Y, X), logits (B, X, Y, Z, K) and B transforms, got "
                f"{tuple(self.bev.shape)}, {tuple(self.logits.shape)}, {tuple(self.T_bda.shape)}"
            )

    def seen_under(
        self,
        T_bda: Tensor,  # (B, 4, 4)
    ) -> TeacherOutputs:
        """The same outputs mirrored into another augmented frame: for outputs kept from before.

        A network is no exact mirror of itself, so this is close to, not the same as, what the
        teacher would make of the mirrored frame. Needs a grid that is symmetric about x = y = 0.

        Raises:
            ValueError: the frames differ by more than mirrored x and y axes.
        """
        if torch.equal(T_bda, self.T_bda):
            return self
        between = T_bda.double() @ torch.linalg.inv(self.T_bda.double())
        signs = between.diagonal(dim1=1, dim2=2)
        mirrors = torch.cat((signs[:, :2].sign(), torch.ones_like(signs[:, 2:])), dim=1)
        if not torch.allclose(between, mirrors.diag_embed()):
            raise ValueError("BEV frames that differ by more than mirrored x and y axes")
        bev, logits = self.bev.clone(), self.logits.clone()
        for b, (x, y) in enumerate((mirrors[:, :2] < 0).tolist()):
            axes = [axis for axis, mirrored in enumerate((x, y)) if mirrored]
            bev[b] = bev[b].flip([2 - axis for axis in axes])
            logits[b] = logits[b].flip(axes)
        return TeacherOutputs(bev=bev, logits=logits, T_bda=T_bda)


TeacherSource = Callable[[Batch], TeacherOutputs]
"""Gives the teacher's outputs for a batch: a network at work, or a store of earlier outputs."""


class FrozenTeacher:
    """A ``TeacherSource`` that runs the network.

    The network, which lies on the batches' device, is frozen and stays in eval mode. This is no
    module, so that no student's ``train()``, ``state_dict()`` or ``parameters()`` reaches it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutputs:
        """The outputs in the batch's augmented frame: the trunk and the head, each run once.

        Raises:
            ValueError: the teacher reads points, and the batch has none.
        """
        network = cast(OccupancyNetwork, self.network.eval())
        bev = network.bev(batch.inputs)
        return TeacherOutputs(bev=bev, logits=network.occ_head(bev), T_bda=batch.inputs.T_bda)


def inherit_head(student: nn.Module, teacher: nn.Module) -> None:
    """Copy the teacher's occupancy head into the student's, which then learns on its own.

    Raises:
        SetupError: the heads have other layers or shapes.
    """
    own = student.get_submodule("occ_head").state_dict()
    head = teacher.get_submodule("occ_head").state_dict()
    for name in sorted(own.keys() | head.keys()):
        shapes = [tuple(s[name].shape) if name in s else None for s in (own, head)]
        if shapes[0] != shapes[1]:
            raise SetupError(
                f"the student cannot inherit the teacher's head: occ_head.{name} is {shapes[0]} "
                f"in the student and {shapes[1]} in the teacher"
            )
    student.get_submodule("occ_head").load_state_dict(head)


def joint_inputs(student: InputSpec, teacher: InputSpec) -> InputSpec:
    """What must be read so that both see one batch: the student's pictures, the teacher's points.

    Raises:
        SetupError: they want other pictures, or another frame.
    """
    compared = ["height", "width", "reference_parity", "frame"]
    if teacher.past_frames:
        compared.append("past_frames")
    for name in compared:
        own, wanted = getattr(student, name), getattr(teacher, name)
        if own != wanted:
            raise SetupError(
                f"student and teacher cannot read one batch: {name} is {own} for the student and "
                f"{wanted} for the teacher"
            )
    return replace(
        student,
        lidar=teacher.lidar,
        past_sweeps=teacher.past_sweeps,
        point_features=teacher.point_features,
        depth=teacher.depth,
        depth_min_m=teacher.depth_min_m,
        depth_max_m=teacher.depth_max_m,
    )
