"""Which voxels of a frame to label."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.selection.scores import OBSERVED, uncertainty
from datasets.labels.voxel_labels import FrameLabels


def select_voxels(
    labels: FrameLabels,  # (X, Y, Z)
    levels: Sequence[float],
    share: float,
    *,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """(X, Y, Z) the voxels of a frame to label: the most unsure ones of every predicted class.

    The classes get equal parts of the budget; what a class cannot use goes to the others. Only
    observed voxels count whose label may be wrong, so there may be fewer than asked for. Among
    voxels of one level, of which there are many, chance decides, which follows from seed and token.

    Args:
        share: of all voxels of the grid, 0..1.

    Raises:
        ValueError: the share is not within 0..1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of voxels must lie in 0..1, got {share}")
    bits = uncertainty(levels)[labels.confidence].ravel()
    usable = ((labels.mask & OBSERVED) > 0).ravel() & (bits > 0)
    candidates = np.flatnonzero(usable)
    budget = round(share * usable.size)
    classes = labels.semantics.ravel()[candidates]
    rng = np.random.default_rng([seed, zlib.crc32(labels.token.encode())])
    order = np.lexsort((rng.random(len(candidates)), -bits[candidates]))
    chosen = np.zeros(usable.size, bool)
    ids, sizes = np.unique(classes, return_counts=True)
    for k, n in zip(ids, equal_parts(sizes, budget), strict=True):
        of_class = order[classes[order] == k]
        chosen[candidates[of_class[:n]]] = True
    return chosen.reshape(labels.semantics.shape)


def equal_parts(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """The budget divided equally, but nobody gets more than its size: what is over goes to the
    others, and what does not divide to the first."""
    parts = np.zeros(len(sizes), np.int64)
    left = min(budget, int(sizes.sum()))
    while left:
        open_ = np.flatnonzero(parts < sizes)
        if left < len(open_):
            parts[open_[:left]] += 1
            break
        added = np.minimum(left // len(open_), sizes[open_] - parts[open_])
        parts[open_] += added
        left -= int(added.sum())
    return parts
