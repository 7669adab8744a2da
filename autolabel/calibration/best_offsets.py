"""Offsets of the classes' logits with the best mean IoU (logit adjustment: Menon et al., arXiv
2007.07314). What the balance of a training implies is not what mIoU asks for, so they are fitted.

Legend: V voxels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEPS = (1.0, 0.5, 0.25)
MAX_OFFSET = 6.0
MIN_GAIN = 1e-4
"""Of mIoU (0..1), for a step to be taken."""


def best_offsets(
    logits: Tensor,  # (V, K)
    labels: Tensor,  # (V,) int64
    scored: Sequence[int],
) -> NDArray[np.float32]:
    """(K,) offsets of the best mean IoU of the scored classes, by coordinate ascent. Classes that
    do not occur stay as they are."""
    n_classes = logits.shape[1]
    occurring = [k for k in scored if (labels == k).any()]
    offsets = torch.zeros(n_classes)
    shifted = logits.clone()
    best = _miou(shifted.argmax(dim=1), labels, n_classes, occurring)
    for step in STEPS:
        gained = True
        while gained:
            gained = False
            for k in range(n_classes):
                own = shifted[:, k].clone()
                shifted[:, k] = -torch.inf
                highest, others = shifted.max(dim=1)
                for sign in (-step, step):
                    if abs(float(offsets[k]) + sign) > MAX_OFFSET:
                        continue
                    chosen = torch.where(own + sign > highest, k, others)
                    miou = _miou(chosen, labels, n_classes, occurring)
                    if miou > best + MIN_GAIN:
                        offsets[k] += sign
                        own += sign
                        best, gained = miou, True
                        break
                shifted[:, k] = own
    return np.asarray(offsets.numpy(), np.float32)


def _miou(chosen: Tensor, labels: Tensor, n_classes: int, of: Sequence[int]) -> float:
    pairs = torch.bincount(labels * n_classes + chosen, minlength=n_classes**2)
    counts = pairs.view(n_classes, n_classes).double()
    hit = counts.diagonal()
    iou = hit / (counts.sum(0) + counts.sum(1) - hit).clamp(min=1)
    return float(iou[list(of)].mean()) if of else 0.0
