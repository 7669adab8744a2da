"""The teacher and the objective that the options of distillation ask for."""

from __future__ import annotations

import argparse

from torch import nn

from datasets.errors import SetupError
from datasets.model_inputs import InputSpec
from models.checkpoints.checkpoint import LoadedModel, load_checkpoint
from models.presets import OccupancyNet, Preset
from models.training.distillation import (
    Distillation,
    DistillationConfig,
    DistillationObjective,
    used_voxels,
)
from models.training.frozen_teacher import FrozenTeacher, inherit_head, joint_inputs
from models.training.objectives import LabelLoss

_ONLY_WITH_A_TEACHER = {
    "unlabelled_split": None,
    "no_inherit_head": False,
    "distill_bev": "regions",
    "no_distill_logits": False,
    "distill_regions": "labels",
    "distill_where": "all",
}


def teacher_of(args: argparse.Namespace, network: Preset) -> LoadedModel | None:
    """The teacher, or None without ``--distill``.

    Raises:
        SetupError: the weights file is bad, the teacher predicts something else, or there is
            none and an option needs one.
    """
    if args.distill is None:
        for name, default in _ONLY_WITH_A_TEACHER.items():
            if getattr(args, name) != default:
                raise SetupError(f"--{name.replace('_', '-')} needs --distill TEACHER")
        return None
    teacher = load_checkpoint(args.distill, device=args.device)
    its, ours = teacher.preset, network
    if (its.grid, its.taxonomy) != (ours.grid, ours.taxonomy):
        raise SetupError(
            f"{args.distill}: a teacher of preset {its.name!r} has another grid or other classes "
            f"than {ours.name!r}"
        )
    return teacher


def inputs_for(network: Preset, teacher: LoadedModel | None) -> InputSpec:
    """What the samples must hold."""
    return joint_inputs(network.inputs, teacher.preset.inputs) if teacher else network.inputs


def distilled(
    args: argparse.Namespace, loss: LabelLoss, network: OccupancyNet, teacher: LoadedModel
) -> DistillationObjective:
    """The label loss with the teacher's terms; the network is given the teacher's head.

    Raises:
        SetupError: the heads differ, and the head shall be inherited.
    """
    if not args.no_inherit_head:
        try:
            inherit_head(network, teacher.module)
        except SetupError as error:
            raise SetupError(f"{error}; or leave it out with --no-inherit-head") from error
    mine, its = _bev_channels(network), _bev_channels(teacher.module)
    distillation = Distillation(
        DistillationConfig(
            bev=args.distill_bev,
            logits=not args.no_distill_logits,
            regions_from=args.distill_regions,
        ),
        taxonomy=teacher.preset.taxonomy,
        teacher=FrozenTeacher(teacher.module),
        adapter=None if mine == its else nn.Conv2d(mine, its, 1),
    )
    within = used_voxels if args.distill_where == "used" else None
    return DistillationObjective(loss, distillation, within=within)


def _bev_channels(network: OccupancyNet) -> int:
    conv = network.occ_head.final_conv.get_submodule("conv")
    assert isinstance(conv, nn.Conv2d)
    return conv.in_channels
