"""Losses over voxels.

Legend: K classes; ``...`` any shape of voxels, such as (B, X, Y, Z) or sampled columns (M, Z).
"""

from __future__ import annotations

from torch import Tensor, nn

from datasets.taxonomy import IGNORE_ID


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
    if labels.shape != logits.shape[:-1] or (weight is not None and weight.shape != labels.shape):
        raise ValueError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, weight "
            f"{None if weight is None else tuple(weight.shape)}: one label and weight per voxel"
        )
    flat = labels.reshape(-1).long()
    valid = flat != IGNORE_ID
    w = valid.to(logits.dtype)
    if weight is not None:
        w = w * weight.reshape(-1).to(logits.dtype)
    if class_weights is not None:
        w = w * class_weights.to(logits.dtype)[flat.masked_fill(~valid, 0)]
    ce = nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), flat, ignore_index=IGNORE_ID, reduction="none"
    )
    total = w.sum()
    return (ce * w).sum() / total.where(total > 0, 1)
