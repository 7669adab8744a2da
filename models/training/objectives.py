"""Training objectives: the named loss terms that a step minimises.

An ``Objective`` gives named terms; their sum is minimised. ``LabelLoss`` is the loss of the labels:
on some BEV columns of every frame, half of them drawn from columns that hold objects, or on all
voxels.

Legend: B frames, (X, Y, Z) voxels, (Y, X) BEV cells, M columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from datasets.errors import SceneError
from datasets.loading.batch import Batch
from datasets.loading.frame_dataset import FrameDataset
from datasets.model_inputs import ModelInputs
from datasets.taxonomy import Taxonomy
from models.training.losses import flow_loss, four_losses, ohem_cross_entropy, voxel_cross_entropy

LossKind = Literal["ce", "ohem", "four"]


class Objective(Protocol):
    """Named scalar terms of a network's answer to a batch.

    A term is a mean over the batch. Where a batch is computed in parts (``accumulation_steps``,
    several workers), a term of the whole is the mean of the terms of the parts, by frames; or, if
    the objective is also ``Weighted``, by its ``weight_sums``.
    """

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]: ...


@runtime_checkable
class Weighted(Protocol):
    """An objective whose terms are means with unequal weights, such as numbers of voxels."""

    def weight_sums(self, batch: Batch) -> dict[str, Tensor]:
        """Sum of weights of each term by name; a missing term weighs by frames."""
        ...


class Head(Protocol):
    def __call__(self, bev: Tensor) -> Tensor: ...

    def columns(self, bev: Tensor, column_index: Tensor) -> Tensor: ...

    def features(self, bev: Tensor) -> Tensor: ...

    def logits(self, features: Tensor) -> Tensor: ...

    def flow(self, features: Tensor) -> Tensor: ...


class OccupancyNetwork(Protocol):
    """What the loss needs of a network; ``FusionTeacher`` and ``CameraStudent`` have it."""

    occ_head: Head

    def bev(self, inputs: ModelInputs) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLoss:
    """The loss of the labels.

    Attributes:
        kind: ``ce`` masked cross-entropy, ``ohem`` (Waymo), ``four`` (OpenOccupancy).
        class_weights: (K,) float; None: 1 for every class.
        columns: BEV columns per frame that are scored in a step; None: every voxel.
        unbiased: a column counts by the inverse of its chance to be drawn, so that objects, which
            are drawn more often, are not found where none are.
        flow: weight of the velocity error (L1, published with 0.25) of voxels that can move; not
            with columns.
        seed: decides the columns.
    """

    taxonomy: Taxonomy
    kind: LossKind = "ce"
    class_weights: Tensor | None = None
    columns: int | None = None
    unbiased: bool = False
    flow: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(LossKind):
            raise ValueError(f"kind must be one of {get_args(LossKind)}: {self.kind!r}")
        if self.flow and self.columns is not None:
            raise ValueError("the flow's loss needs every voxel, not columns")

    def __call__(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        return self.of_bev(network, cast(OccupancyNetwork, network).bev(batch.inputs), batch)

    def of_bev(self, network: nn.Module, bev: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms, where the BEV features (B, C, Y, X) are there already."""
        head = cast(OccupancyNetwork, network).occ_head
        if self.columns is not None:
            columns = self.drawn(batch)
            labels, weight = _at(columns, self.counted(batch))
            return self.of_voxels(head.columns(bev, columns), labels, weight)
        if not self.flow:
            return self.of_voxels(head(bev), batch.semantics, batch.weight)
        features = head.features(bev)
        terms = self.of_voxels(head.logits(features), batch.semantics, batch.weight)
        return terms | {"flow": self.flow * self._flow_error(head.flow(features), batch)}

    def _flow_error(self, flow: Tensor, batch: Batch) -> Tensor:
        if batch.flow is None:
            raise ValueError("the loss of the flow needs labels with flow")
        dynamic = torch.isin(
            batch.semantics,
            torch.tensor(self.taxonomy.dynamic, dtype=torch.uint8, device=flow.device),
        )
        return flow_loss(flow.float(), batch.flow, batch.weight * dynamic, norm=1)

    def of_voxels(self, logits: Tensor, labels: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The terms of voxels: logits (..., K), labels and weight (...)."""
        logits, classes = logits.float(), self._class_weights(logits)
        if self.kind == "four":
            free = self.taxonomy.free_id
            return four_losses(logits, labels, weight, empty=free, class_weights=classes)
        loss = voxel_cross_entropy if self.kind == "ce" else ohem_cross_entropy
        return {self.kind: loss(logits, labels, weight, class_weights=classes)}

    def weight_sums(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy is a mean over weighted voxels."""
        if self.kind != "ce":
            return {}
        labels, weight = batch.semantics, batch.weight
        if self.columns is not None:
            labels, weight = _at(self.drawn(batch), self.counted(batch))
        if (classes := self._class_weights(weight)) is not None:
            in_range = labels < len(classes)
            weight = weight * torch.where(
                in_range, classes[torch.where(in_range, labels, 0).long()], 0
            )
        return {"ce": weight.sum(dtype=torch.float64)}

    def drawn(self, batch: Batch) -> Tensor:
        """(M,) int64: the columns scored, row-major over (B, X, Y)."""
        assert self.columns is not None
        device = batch.weight.device
        usable, with_object = (batch.weight > 0).any(-1), self._with_object(batch)
        n = batch.semantics[0, ..., 0].numel()
        drawn = []
        for b in range(len(batch)):
            generator = torch.Generator(device)
            generator.manual_seed(self.seed * 1_000_003 + batch.first_draw + b)
            columns = draw_columns(usable[b], with_object[b], self.columns, generator)
            drawn.append(columns + b * n)
        return torch.cat(drawn)

    def counted(self, batch: Batch) -> Batch:
        """The batch with weights by which drawn columns stand for all of a frame."""
        if not self.unbiased or self.columns is None:
            return batch
        usable = (batch.weight > 0).any(-1)
        with_object = self._with_object(batch)
        factors = [
            column_weights(usable[b], with_object[b], self.columns) for b in range(len(batch))
        ]
        return replace(batch, weight=batch.weight * torch.stack(factors)[..., None])

    def _with_object(self, batch: Batch) -> Tensor:
        """(B, X, Y) columns with a usable voxel of an object."""
        foreground = torch.zeros(256, dtype=torch.bool, device=batch.weight.device)
        foreground[list(self.taxonomy.foreground)] = True
        return ((batch.weight > 0) & foreground[batch.semantics.long()]).any(-1)

    def _class_weights(self, weight: Tensor) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(weight.device)


def _at(columns: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels and weight (M, Z) of columns."""
    return batch.semantics.flatten(0, 2)[columns], batch.weight.flatten(0, 2)[columns]


def draw_columns(
    usable: Tensor,  # (X, Y) bool
    with_object: Tensor,  # (X, Y) bool, of these
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Columns of a frame to score: half from those with an object, half from all usable ones.

    Returns:
        (M,) int64, row-major over (X, Y); M <= count, each at most once.
    """
    objects = _pick(with_object, count // 2, generator)
    others = usable.flatten().clone()
    others[objects] = False
    return torch.cat((objects, _pick(others, count - len(objects), generator)))


def column_weights(
    usable: Tensor,  # (X, Y) bool
    with_object: Tensor,  # (X, Y) bool, of these
    count: int,
) -> Tensor:
    """(X, Y) float: the inverse of the chance that ``draw_columns`` draws a column, scaled so that
    drawn columns weigh 1 on average; 0 where it cannot be drawn."""
    n, n_objects = int(usable.sum()), int(with_object.sum())
    if not n:
        return torch.zeros(usable.shape, device=usable.device)
    first = min(count // 2, n_objects)
    second = min(count - first, n - first)
    chance_second = second / max(1, n - first)
    chance_first = first / max(1, n_objects)
    objects = chance_first + (1 - chance_first) * chance_second
    chance = torch.where(with_object, objects, chance_second)
    drawn = first + second
    weights: Tensor = torch.where(usable, drawn / (n * chance.clamp(min=1e-9)), 0.0)
    return weights


def _pick(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    index = candidates.flatten().nonzero().squeeze(1)
    order = torch.randperm(len(index), generator=generator, device=index.device)
    return index[order[:count]]


def count_labels(dataset: FrameDataset, n_classes: int, *, at_most: int = 64) -> Tensor:
    """(K,) usable voxels per class in evenly spaced frames of the set; bad ones left out."""
    step = max(1, len(dataset.items) // at_most)
    counts = torch.zeros(256)
    for labels, frame in dataset.items[::step]:
        try:
            target = labels.target(frame)
        except SceneError:
            continue  # named when training meets it
        usable = torch.from_numpy(target.semantics[target.weight > 0]).long()
        counts += torch.bincount(usable, minlength=256)
    return counts[:n_classes]


def class_weights(counts: Tensor, rarity: float) -> Tensor:
    """``frequency ** -rarity``, scaled so that the mean over all voxels is 1.

    Args:
        counts: (K,) voxels per class. A class with very few weighs as much as one with 1e-5 of
            the voxels, so that a handful of voxels never steers the training.
    """
    frequency = counts.double() / counts.sum().clamp(min=1)
    weights = frequency.clamp(min=1e-5).pow(-rarity)
    return (weights / (weights * frequency).sum()).float()
