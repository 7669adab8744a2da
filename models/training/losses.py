"""Losses over voxels.

A voxel is left out where its label is 255 or its weight is 0. What has nothing to learn from is
zero, with zero gradients. Sums run over all voxels of the batch together.

Legend: K classes; V voxels; ``...`` any shape of voxels, such as (B, X, Y, Z) or sampled columns
(M, Z). Logits are float32: callers under autocast convert first.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.taxonomy import IGNORE_ID

CLAMP = 100.0
"""Largest -ln of one share, as in PyTorch's binary cross-entropy, which the published code uses."""


def voxel_cross_entropy(
    logits: Tensor,  # (..., K) float
    labels: Tensor,  # (...) integer class ids; 255 is ignored
    weight: Tensor | None = None,  # (...) mask x confidence, >= 0; None: 1 everywhere
    *,
    class_weights: Tensor | None = None,  # (K,) float
) -> Tensor:
    """Weighted mean cross-entropy, a scalar.

    sum(w c[y] CE) / sum(w c[y]) over all voxels of the batch together: one average, as in the
    published masked loss, with PyTorch's meaning of class weights. Nothing to average gives zero,
    with zero gradients.

    Raises:
        ValueError: shapes differ.
    """
    flat, w = _labels_and_weights(logits, labels, weight)
    used = w.nonzero().squeeze(1)  # often a small part: the rest costs nothing
    ce, w = _weighted_cross_entropy(
        logits.reshape(-1, logits.shape[-1])[used], flat[used], w[used], class_weights
    )
    total = w.sum()
    return (ce * w).sum() / total.where(total > 0, 1)


def ohem_cross_entropy(
    logits: Tensor,  # (..., K) float
    labels: Tensor,  # (...) integer class ids; 255 is ignored
    weight: Tensor | None = None,  # (...) mask x confidence, >= 0; None: 1 everywhere
    *,
    class_weights: Tensor | None = None,  # (K,) float
    hard_share: float = 0.2,
    hard_factor: float = 4.0,
) -> Tensor:
    """Cross-entropy with the hardest voxels counted again, a scalar (EFFOcc on Waymo).

    With l = w c[y] CE: mean(l) + ``hard_factor`` mean(the largest ``hard_share`` of l). Both means
    are over all V voxels, those left out counting as 0: a smaller mask makes a smaller loss.

    Raises:
        ValueError: shapes differ.
    """
    ce, w = _weighted_cross_entropy(logits, labels, weight, class_weights)
    losses = ce * w
    if len(losses) == 0:
        return losses.sum()
    hardest = losses.topk(max(int(hard_share * len(losses)), 1), sorted=False).values
    return losses.mean() + hard_factor * hardest.mean()


def geo_scal(
    logits: Tensor,  # (..., K) float
    labels: Tensor,  # (...) integer class ids; 255 is ignored
    weight: Tensor | None = None,  # (...) 0: ignored; None: 1 everywhere
    *,
    empty: int,
) -> Tensor:
    """-ln of precision, recall and specificity of "occupied", a scalar (MonoScene's geometric
    scene-class affinity, arXiv 2112.00726, as OpenOccupancy has it).

    With no occupied voxel the first two are left out, with no empty one the third: nothing could
    improve them (the published code adds a constant 100 there).

    Args:
        empty: the class id of free space.

    Raises:
        ValueError: shapes differ.
    """
    p, y = _known_probabilities(logits, labels, weight)
    free = p[:, empty].double()
    full = 1 - free
    occupied = y != empty
    hits, rejections = full[occupied].sum(), free[~occupied].sum()
    n, eps = occupied.sum(), 1e-5
    precision_recall = _minus_log(hits / (full.sum() + eps)) + _minus_log(hits / (n + eps))
    rejected = _minus_log(rejections / (len(y) - n + eps))
    return (precision_recall.where(n > 0, 0) + rejected.where(n < len(y), 0)).to(p)


def sem_scal(
    logits: Tensor,  # (..., K) float
    labels: Tensor,  # (...) integer class ids; 255 is ignored
    weight: Tensor | None = None,  # (...) 0: ignored; None: 1 everywhere
) -> Tensor:
    """-ln of precision, recall and specificity of a class, averaged over the classes present, free
    space included; a scalar (MonoScene's semantic scene-class affinity, as in OpenOccupancy).

    Raises:
        ValueError: shapes differ.
    """
    p, y = _known_probabilities(logits, labels, weight)
    n = torch.bincount(
        y, minlength=p.shape[1]
    )  # (K,) voxels of a class, and their probability mass
    own = p.gather(1, y[:, None]).squeeze(1).double()
    hits = torch.zeros_like(n, dtype=torch.double).index_add(0, y, own)
    predicted = p.sum(0, dtype=torch.double)
    others = len(y) - n
    rejected = _minus_log((others - (predicted - hits)) / others.clamp(min=1)).where(others > 0, 0)
    of_class = _minus_log(hits / predicted.clamp(min=1e-30)) + _minus_log(hits / n.clamp(min=1))
    present = n > 0
    total = (of_class + rejected).where(present, 0).sum()
    return (total / present.sum().clamp(min=1)).to(p)


def lovasz_softmax(
    logits: Tensor,  # (..., K) float
    labels: Tensor,  # (...) integer class ids; 255 is ignored
    weight: Tensor | None = None,  # (...) 0: ignored; None: 1 everywhere
) -> Tensor:
    """A convex stand-in for 1 - IoU, averaged over the classes present, a scalar (Lovasz-Softmax,
    arXiv 1705.08790, over the flattened batch).

    Raises:
        ValueError: shapes differ.
    """
    p, y = _known_probabilities(logits, labels, weight)
    losses = []
    for c in y.bincount().nonzero().flatten().tolist():
        of_class = y == c
        errors = (of_class.to(p) - p[:, c]).abs()
        losses.append(errors.dot(_jaccard_slopes(errors.detach(), of_class)))
    return torch.stack(losses).mean() if losses else p.sum()


def four_losses(
    logits: Tensor,  # (..., K) float
    labels: Tensor,  # (...) integer class ids; 255 is ignored
    weight: Tensor | None = None,  # (...) mask x confidence, >= 0; None: 1 everywhere
    *,
    empty: int,
    class_weights: Tensor | None = None,  # (K,) float, as from ``log_frequency_weights``
) -> dict[str, Tensor]:
    """The four losses of OpenOccupancy by name; training minimises their sum.

    A confidence between 0 and 1 counts as such in the cross-entropy; the other three know only
    voxels that are used (weight above 0) and voxels that are not.

    Args:
        empty: the class id of free space.

    Raises:
        ValueError: shapes differ.
    """
    return {
        "cross_entropy": voxel_cross_entropy(logits, labels, weight, class_weights=class_weights),
        "sem_scal": sem_scal(logits, labels, weight),
        "geo_scal": geo_scal(logits, labels, weight, empty=empty),
        "lovasz": lovasz_softmax(logits, labels, weight),
    }


def log_frequency_weights(
    voxels: Tensor,  # (K,) voxels of each class in the training set
) -> Tensor:
    """Class weights 1 / ln(f + 0.001), (K,) float32, as OpenOccupancy's cross-entropy has them.

    The formula is meant for large counts. Below e it grows without bound and turns negative, so a
    class that rare gets 1.

    Raises:
        ValueError: a count is negative or not finite.
    """
    counts = voxels.double()
    if not (counts.isfinite() & (counts >= 0)).all():
        raise ValueError(f"voxels of each class must be finite and not negative: {voxels}")
    return (1 / (counts + 0.001).log().clamp(min=1)).float()


def flow_loss(
    flow: Tensor,  # (..., 2) m/s
    target: Tensor,  # (..., 2) m/s, in the same frame; not a number: unknown, ignored
    weight: Tensor,  # (...) bool or >= 0; 0: ignored
    *,
    norm: Literal[1, 2] = 2,
) -> Tensor:
    """Weighted mean length of the velocity errors, m/s, a scalar.

    With norm 2 and the voxels of one class this is the velocity error that mAVE averages. What
    stands still or is free has no place in the weight: it would drown what moves. A network that
    sees a mirrored world predicts mirrored velocities: the target must be mirrored along with its
    cells, as ``Target.mirrored`` does (the published code mirrors the cells alone).

    Raises:
        ValueError: shapes differ.
    """
    if flow.shape != target.shape or flow.shape[-1:] != (2,) or weight.shape != flow.shape[:-1]:
        raise ValueError(
            f"flow {tuple(flow.shape)}, target {tuple(target.shape)}, weight "
            f"{tuple(weight.shape)}: two components and one weight per voxel"
        )
    used = (weight > 0) & target.isfinite().all(-1)
    errors: Tensor = torch.linalg.vector_norm(flow[used] - target[used], ord=norm, dim=-1)
    w = weight[used].to(errors)
    return (errors * w).sum() / w.sum().clamp(min=torch.finfo(errors.dtype).tiny)


def _weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and weight of every voxel, (V,) each; both 0 where it is left out."""
    flat, w = _labels_and_weights(logits, labels, weight)
    if class_weights is not None:
        w = w * class_weights.to(logits.dtype)[flat.masked_fill(flat == IGNORE_ID, 0)]
    ce = nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), flat, ignore_index=IGNORE_ID, reduction="none"
    )
    return ce, w


def _known_probabilities(
    logits: Tensor, labels: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Probabilities (V, K) and labels (V,) int64 of the voxels that are not left out."""
    flat, w = _labels_and_weights(logits, labels, weight)
    used = w > 0
    return logits.reshape(-1, logits.shape[-1])[used].softmax(-1), flat[used]


def _labels_and_weights(
    logits: Tensor, labels: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Labels (V,) int64 and weights (V,) in the type of the logits, 0 where the label is 255."""
    if labels.shape != logits.shape[:-1] or (weight is not None and weight.shape != labels.shape):
        raise ValueError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, weight "
            f"{None if weight is None else tuple(weight.shape)}: one label and weight per voxel"
        )
    flat = labels.reshape(-1).long()
    w = (flat != IGNORE_ID).to(logits.dtype)
    return flat, w if weight is None else w * weight.reshape(-1).to(logits.dtype)


def _minus_log(share: Tensor) -> Tensor:
    """-ln, 100 at most: a smaller share has no gradient."""
    return -share.clamp(min=math.exp(-CLAMP)).log()


@torch.no_grad()
def _jaccard_slopes(errors: Tensor, of_class: Tensor) -> Tensor:
    """(V,) slope of the Jaccard loss's Lovasz extension along each voxel's error.

    Differences of neighbouring IoUs, which need float64: with a million voxels they are about 1e-6.
    """
    order = errors.argsort(descending=True, stable=True)
    inside = of_class[order].double()
    total = inside.sum()
    iou = (total - inside.cumsum(0)) / (total + (1 - inside).cumsum(0))
    slopes = torch.empty_like(errors)
    slopes[order] = -iou.diff(prepend=iou.new_ones(1)).to(errors)
    return slopes
