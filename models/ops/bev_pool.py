"""Weighted sums of picture features into BEV cells.

Every sample says: add ``weight * features[row]`` to ``cell``. Sorted by cell, that is an embedding
bag, whose kernels never build the (samples, channels) array and exist on CPU and CUDA, forward and
backward. The depth lift pools frustum points this way (BEVPoolv2, arXiv 2211.17111); the pull
lift pools the bilinear taps around projected cell centres.

Legend: M samples, R feature rows, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pool(
    features: Tensor,  # (R, C) float
    rows: Tensor,  # (M,) int64, row of each sample
    weights: Tensor,  # (M,) float, weight of each sample
    cells: Tensor,  # (M,) int64, cell of each sample; negative: the sample is dropped
    n_cells: int,
) -> Tensor:
    """Sum of weight x feature per cell, (n_cells, C); zero where no sample falls.

    Gradients flow to ``features`` and ``weights``. Sums run in the order of the samples.
    """
    kept = (cells >= 0).nonzero()[:, 0]
    ordered, order = cells[kept].int().sort(stable=True)  # int32 sorts in half the time
    kept = kept[order]
    return pool_sorted(features, rows[kept], weights[kept], ordered, n_cells)


def pool_sorted(
    features: Tensor,  # (R, C) float
    rows: Tensor,  # (M,) int64
    weights: Tensor,  # (M,) float
    cells: Tensor,  # (M,) int, ascending, within 0..n_cells - 1
    n_cells: int,
) -> Tensor:
    """``pool`` for samples that come sorted by cell."""
    boundaries = torch.arange(n_cells + 1, device=cells.device, dtype=cells.dtype)
    return nn.functional.embedding_bag(
        rows,
        features,
        offsets=torch.searchsorted(cells, boundaries),
        per_sample_weights=weights,
        mode="sum",
        include_last_offset=True,
    )
