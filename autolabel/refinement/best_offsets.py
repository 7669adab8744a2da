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
    best = _miou(logits, labels, occurring)
    for step in STEPS:
        gained = True
        while gained:
            gained = False
            for k in range(n_classes):
                for sign in (-step, step):
                    tried = offsets.clone()
                    tried[k] += sign
                    if abs(float(tried[k])) > MAX_OFFSET:
                        continue
                    miou = _miou(logits + tried, labels, occurring)
                    if miou > best + MIN_GAIN:
                        offsets, best, gained = tried, miou, True
                        break
    return np.asarray(offsets.numpy(), np.float32)


def _miou(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> float:
    n = logits.shape[1]
    counts = torch.bincount(labels * n + logits.argmax(dim=1), minlength=n * n).view(n, n).double()
    hit = counts.diagonal()
    iou = hit / (counts.sum(0) + counts.sum(1) - hit).clamp(min=1)
    return float(iou[list(classes)].mean()) if classes else 0.0
