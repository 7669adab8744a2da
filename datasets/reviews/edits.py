"""Edits applied to the labels of a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from datasets.labels.header import StoreHeader
from datasets.labels.voxel_labels import FrameLabels, MaskBit
from datasets.reviews.entries import EditEntry
from datasets.taxonomy import IGNORE_ID


def distrusted(labels: FrameLabels) -> FrameLabels:
    """The labels of a rejected frame: no voxel is trusted."""
    return replace(labels, mask=labels.mask & np.uint8(255 - MaskBit.TRUSTED))


def apply_edits(
    labels: FrameLabels, edits: Iterable[EditEntry], header: StoreHeader
) -> FrameLabels:
    """The labels with edits applied in order; the arrays given are not changed.

    A voxel set to a class is trusted with the highest confidence, and dynamic if its class is;
    one set to ``IGNORE_ID`` keeps its class, is not trusted, and has no confidence. Bits and
    evidence of the sensors stay as they are. Flow becomes 0 where the class cannot move; where it
    can, and the voxel was of a class that cannot, its velocity is unknown: not a number. A voxel
    whose class cannot move is part of no object, nor is one that was none before.

    Args:
        header: of the store that the labels are from.
    """
    semantics, confidence, mask = (
        array.copy() for array in (labels.semantics, labels.confidence, labels.mask)
    )
    flow = None if labels.flow is None else labels.flow.copy()
    instances = None if labels.instances is None else labels.instances.copy()
    for edit in edits:
        voxels = np.unravel_index(edit.voxels, header.grid.shape)
        if edit.class_id == IGNORE_ID:
            mask[voxels] &= np.uint8(255 - MaskBit.TRUSTED)
            confidence[voxels] = 0
            continue
        moves = edit.class_id in header.taxonomy.dynamic
        if flow is not None:
            moved = np.isin(semantics[voxels], header.taxonomy.dynamic)
            flow[voxels] = np.where(moved[:, None], flow[voxels], np.nan) if moves else 0
        if instances is not None and not moves:
            instances[voxels] = 0
        semantics[voxels] = edit.class_id
        confidence[voxels] = len(header.levels) - 1
        mask[voxels] &= np.uint8(255 - MaskBit.DYNAMIC)
        mask[voxels] |= np.uint8(MaskBit.TRUSTED | (MaskBit.DYNAMIC if moves else 0))
    return replace(
        labels,
        semantics=semantics,
        confidence=confidence,
        mask=mask,
        flow=flow,
        instances=instances,
    )
