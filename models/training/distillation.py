"""Multi-stage distillation from a frozen teacher (EFFOcc, arXiv 2406.07042).

The stages: the teacher's head is copied into the student; then the student's BEV features and
occupancy logits are pulled to the teacher's, by regions of objects, background and free space.
Corrected where the published code errs: BEV masks lie as the features do (Y, X), background means
background classes, the teacher's batch norms never learn, and its head runs once a step.

Legend: B frames, C channels, (Y, X) BEV cells, (X, Y, Z) voxels, K classes, M sampled columns,
R regions (3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from datasets.loading.batch import Batch
from datasets.taxonomy import IGNORE_ID, Taxonomy
from models.training.frozen_teacher import TeacherOutputs, TeacherSource
from models.training.objectives import LabelLoss, OccupancyNetwork

REGIONS = ("foreground", "background", "empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationConfig:
    """What is distilled at every step; the head is inherited before the first one, by
    ``inherit_head``. The defaults are the published choice.

    Attributes:
        bev: BEV features: squared error by region, or plain L1 over the whole map.
        logits: occupancy logits, 1 - cosine over the classes, by region.
        regions_from: what says which class a voxel has: the labels, and the teacher's prediction
            where there are none (unlabeled frames, voxels labeled 255); or the teacher alone.
        bev_weight, logit_weight: factors of the terms.
    """

    bev: Literal["regions", "plain", "none"] = "regions"
    logits: bool = True
    regions_from: Literal["labels", "teacher"] = "labels"
    bev_weight: float = 1.0
    logit_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.bev not in ("regions", "plain", "none"):
            raise ValueError(f"bev must be regions, plain or none: {self.bev!r}")
        if self.regions_from not in ("labels", "teacher"):
            raise ValueError(f"regions_from must be labels or teacher: {self.regions_from!r}")
        if not (0 <= self.bev_weight < float("inf") and 0 <= self.logit_weight < float("inf")):
            raise ValueError(f"factors must be finite and not negative: {self}")


class Distillation(nn.Module):
    """The distillation terms of a batch.

    As a module it holds the adapter alone, if there is one: ``parameters()`` join the student's in
    the optimiser and ``state_dict()`` belongs to the state of the training, not to the student's
    weights.

    Args:
        taxonomy: groups the classes into regions.
        teacher: where the teacher's outputs come from, such as ``FrozenTeacher``.
        adapter: (B, C of the student, Y, X) -> (B, C of the teacher, Y, X), such as a 1x1
            convolution; None: the channels are the same.

    Raises:
        ValueError: the teacher is a module, which would make it a part of this one.
    """

    def __init__(
        self,
        config: DistillationConfig,
        *,
        taxonomy: Taxonomy,
        teacher: TeacherSource,
        adapter: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if isinstance(teacher, nn.Module):
            raise ValueError("a teacher must not be trained along: wrap it in FrozenTeacher")
        self.config, self.taxonomy, self.teacher, self.adapter = config, taxonomy, teacher, adapter

    def forward(
        self,
        bev: Tensor,  # (B, C, Y, X) of the student
        logits: Tensor,  # (B, X, Y, Z, K), or (M, Z, K) at the columns
        batch: Batch,
        columns: Tensor | None = None,  # (M,) int64, row-major over (B, X, Y)
        within: Tensor | None = None,  # (B, X, Y, Z) bool: the voxels that count; None: all
    ) -> dict[str, Tensor]:
        """The terms by name, float32 scalars: ``bev_foreground``, ..., ``logits_empty``.

        Columns restrict the logit terms; the BEV terms cover the whole map all the same. A region
        without a voxel gives 0.

        Raises:
            ValueError: the teacher's outputs do not fit the student's.
        """
        if self.config.bev == "none" and not self.config.logits:
            return {}
        teacher = self.teacher(batch).seen_under(batch.inputs.T_bda)
        terms = {}
        if self.config.bev == "plain":
            terms = self._plain_term(bev, teacher.bev, within)
        if self.config.bev == "regions" or self.config.logits:
            regions = voxel_regions(self._classes(batch, teacher), self.taxonomy)
            if within is not None:
                regions &= within
            if self.config.bev == "regions":
                terms |= self._bev_terms(bev, teacher.bev, regions)
            if self.config.logits:
                terms |= self._logit_terms(logits, teacher.logits, regions, columns)
        return terms

    def _classes(self, batch: Batch, teacher: TeacherOutputs) -> Tensor:
        """(B, X, Y, Z) class ids, none of them 255."""
        if batch.semantics.shape != teacher.logits.shape[:-1]:
            raise ValueError(
                f"the teacher's logits {tuple(teacher.logits.shape)} are not on the grid of the "
                f"labels {tuple(batch.semantics.shape)}"
            )
        if self.config.regions_from == "teacher":
            return teacher.logits.argmax(-1)
        has_label = (batch.semantics != IGNORE_ID) & batch.labelled[:, None, None, None]
        if has_label.all():
            return batch.semantics
        return batch.semantics.long().where(has_label, teacher.logits.argmax(-1))

    def _plain_term(
        self, student: Tensor, teacher: Tensor, within: Tensor | None
    ) -> dict[str, Tensor]:
        student, teacher = self._comparable(student, teacher)
        error = (student - teacher).abs().mean(1)  # (B, Y, X)
        mask = torch.ones_like(error, dtype=torch.bool)
        if within is not None:
            mask = in_cells(within, error.shape[-2:])
        return {"bev": self.config.bev_weight * _mean_within(error, mask)}

    def _bev_terms(self, student: Tensor, teacher: Tensor, regions: Tensor) -> dict[str, Tensor]:
        student, teacher = self._comparable(student, teacher)
        error = (student - teacher).square().mean(1)  # (B, Y, X)
        return {
            f"bev_{name}": self.config.bev_weight * _mean_within(error, mask)
            for name, mask in zip(REGIONS, cell_regions(regions, error.shape[-2:]), strict=True)
        }

    def _comparable(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student = (student if self.adapter is None else self.adapter(student)).float()
        teacher = pooled_to(teacher.float(), student.shape[-2:])
        if student.shape != teacher.shape:
            raise ValueError(
                f"BEV features of the student {tuple(student.shape)} and the teacher "
                f"{tuple(teacher.shape)} differ: other channels need an adapter"
            )
        return student, teacher

    def _logit_terms(
        self, student: Tensor, teacher: Tensor, regions: Tensor, columns: Tensor | None
    ) -> dict[str, Tensor]:
        if columns is not None:
            teacher = teacher.flatten(0, 2)[columns]
            regions = regions.flatten(1, 3)[:, columns]
        if student.shape != teacher.shape:
            raise ValueError(
                f"logits of the student {tuple(student.shape)} and the teacher "
                f"{tuple(teacher.shape)} differ"
            )
        error = 1 - nn.functional.cosine_similarity(student.float(), teacher.float(), dim=-1)
        return {
            f"logits_{name}": self.config.logit_weight * _mean_within(error, mask)
            for name, mask in zip(REGIONS, regions, strict=True)
        }


class DistillationObjective(nn.Module):
    """Label loss and distillation of one pass: an ``Objective``.

    The student's trunk and head run once each. Where the label loss reads sampled columns, the
    logit terms read the same, and in frames without labels as many that are drawn evenly.

    As a module it holds the adapter alone, like ``Distillation``. Of a batch computed in parts the
    distillation terms are the means of the parts' terms, by frames: close to, not the same as,
    those of the whole, whose regions are averaged as one.

    Args:
        within: gives the voxels (B, X, Y, Z) that the distillation terms cover, such as
            ``used_voxels``; None: all of them, seen or not, as published.

    Raises:
        ValueError: the label loss has a flow term, which is for training without a teacher.
    """

    def __init__(
        self,
        label_loss: LabelLoss,
        distillation: Distillation,
        *,
        within: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if label_loss.flow:
            raise ValueError("there is no distillation with a flow term")
        self.label_loss, self.distillation, self.within = label_loss, distillation, within

    def forward(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """The terms of the label loss and of the distillation, by name."""
        student = cast(OccupancyNetwork, network)
        bev = student.bev(batch.inputs)
        within = None if self.within is None else self.within(batch)
        labels, weight = batch.semantics, self.label_loss.counted(batch).weight
        if self.label_loss.columns is None:
            columns, logits = None, student.occ_head(bev)
            terms = self.label_loss.of_voxels(logits, labels, weight)
        else:
            columns = scored = self.label_loss.drawn(batch)
            if self.distillation.config.logits:
                unlabelled = self._of_unlabelled(batch, self.label_loss.columns)
                columns = torch.cat((scored, unlabelled))
            logits = student.occ_head.columns(bev, columns)
            terms = self.label_loss.of_voxels(
                logits[: len(scored)],
                labels.flatten(0, 2)[scored],
                weight.flatten(0, 2)[scored],
            )
        distilled: dict[str, Tensor] = self.distillation(bev, logits, batch, columns, within)
        return terms | distilled

    def weight_sums(self, batch: Batch) -> dict[str, Tensor]:
        """Those of the label loss."""
        return self.label_loss.weight_sums(batch)

    def _of_unlabelled(self, batch: Batch, count: int) -> Tensor:
        """(M,) int64: columns of the frames without labels, row-major over (B, X, Y)."""
        X, Y = batch.semantics.shape[1:3]
        drawn = [torch.empty(0, dtype=torch.int64)]
        for b in (~batch.labelled).nonzero().flatten().tolist():
            seed = self.label_loss.seed * 1_000_003 + batch.first_draw + b
            order = torch.randperm(X * Y, generator=torch.Generator().manual_seed(seed))
            drawn.append(order[:count] + b * X * Y)
        return torch.cat(drawn).to(batch.semantics.device)


def used_voxels(batch: Batch) -> Tensor:
    """(B, X, Y, Z) bool: what the label loss reads, and all of a frame without labels."""
    return (batch.weight > 0) | ~batch.labelled[:, None, None, None]


def voxel_regions(
    classes: Tensor,  # (...) integer class ids
    taxonomy: Taxonomy,
) -> Tensor:
    """Which voxels are foreground, background (every other class) and empty.

    Returns:
        (R, ...) bool; a voxel is in one region, or in none if its id is no class.
    """
    table = torch.zeros(len(REGIONS), 256, dtype=torch.bool)
    table[1, : taxonomy.n_classes] = True
    table[1, [taxonomy.free_id, *taxonomy.foreground]] = False
    table[0, list(taxonomy.foreground)] = True
    table[2, taxonomy.free_id] = True
    return table.to(classes.device)[:, classes.long()]


def cell_regions(
    regions: Tensor,  # (R, B, X, Y, Z) bool, of voxels
    shape: torch.Size | tuple[int, int],  # (Y, X) of the BEV map
) -> Tensor:
    """Which BEV cells have a foreground voxel, have a background voxel, and have free ones only.

    A car on a road makes its cells foreground and background, and they count in both. A cell
    without a voxel of any region is in none.

    Returns:
        (R, B, Y, X) bool, laid out like BEV features.

    Raises:
        ValueError: a cell is not a whole number of columns wide.
    """
    foreground, background, free = (in_cells(region, shape) for region in regions)
    return torch.stack((foreground, background, free & ~foreground & ~background))


def in_cells(
    voxels: Tensor,  # (B, X, Y, Z) bool
    shape: torch.Size | tuple[int, int],  # (Y, X) of the BEV map, as fine as the voxels or coarser
) -> Tensor:
    """Whether any of a BEV cell's voxels is true, (B, Y, X) bool, laid out like BEV features.

    Raises:
        ValueError: a cell is not a whole number of columns wide.
    """
    B, X, Y, _ = voxels.shape
    rows, cols = shape
    if X % cols or Y % rows:
        raise ValueError(f"{X} x {Y} (x, y) columns do not divide into {cols} x {rows} BEV cells")
    blocks = voxels.any(-1).view(B, cols, X // cols, rows, Y // rows)
    return blocks.any(4).any(2).transpose(1, 2)


def pooled_to(
    bev: Tensor,  # (B, C, Y', X') float
    shape: torch.Size | tuple[int, int],  # (Y, X)
) -> Tensor:
    """The mean of the cells that make up a coarser one, (B, C, Y, X).

    Raises:
        ValueError: a cell is not made of whole cells.
    """
    (fine_rows, fine_cols), (rows, cols) = bev.shape[-2:], shape
    if fine_rows % rows or fine_cols % cols:
        raise ValueError(
            f"the teacher's BEV map, {fine_rows} x {fine_cols}, is not finer than the student's, "
            f"{rows} x {cols}, by a whole factor"
        )
    return nn.functional.avg_pool2d(bev, (fine_rows // rows, fine_cols // cols))


def _mean_within(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of the errors in the mask; 0 with zero gradients where it is empty."""
    weight = mask.to(error)
    return (error * weight).sum() / weight.sum().clamp(min=1)
