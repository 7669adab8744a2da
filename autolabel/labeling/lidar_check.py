"""Held-out LiDAR sweeps as evidence for the trusted labels of a few frames of each scene.

Legend: X Y Z voxels, K classes, L levels of confidence, G groups of classes, R rings of distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.confidence.calibration import RINGS, Calibration
from autolabel.confidence.held_out_sweeps import VoteEvidence, held_out, vote_evidence
from datasets.errors import SceneError
from datasets.frames import Frame, SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.labels.lidar_check import (
    BANDS,
    NEITHER,
    THROUGH,
    TOUCHED,
    LidarEvidence,
    band_of,
)
from datasets.labels.voxel_labels import FrameLabels, MaskBit
from datasets.taxonomy import Taxonomy

MIN_FRAMES, ONE_IN = 2, 16
"""So many frames of a scene are checked at least, and one in so many."""


def checked_frames(frames: Sequence[Frame]) -> frozenset[str]:
    """Tokens of the frames of a scene that are checked, evenly spread over those that held-out
    sweeps follow."""
    tokens = [f.token for f in frames if held_out(f)] or [f.token for f in frames]
    n = min(len(tokens), max(MIN_FRAMES, len(frames) // ONE_IN))
    return frozenset(tokens[(2 * i + 1) * len(tokens) // (2 * n)] for i in range(n))


def lidar_check(
    labels: FrameLabels,
    frame: Frame,
    source: SceneSource,
    calibration: Calibration,
    grid: VoxelGrid,
    taxonomy: Taxonomy,
) -> LidarEvidence | str:
    """What held-out sweeps say of a frame's trusted voxels, or why they cannot be asked.

    Args:
        frame: in the frame that the grid lies in; opened with ``HELD_OUT_SWEEPS`` future sweeps.
    """
    if not held_out(frame):
        return "the log has no LiDAR sweeps soon after its frames that the teacher did not read"
    try:
        evidence = vote_evidence(source, frame, grid)
    except SceneError as error:
        return f"a held-out sweep cannot be read: {error}"
    trusted = (labels.mask & np.uint8(MaskBit.TRUSTED)) > 0
    voxels = trusted & (labels.semantics != taxonomy.free_id)
    groups = group_of(taxonomy)
    group, ring = groups[labels.semantics[voxels]], RINGS.of(grid)[voxels]
    level = labels.confidence[voxels]
    shape = (int(groups.max()), len(RINGS.names), len(BANDS) + 1, 3)
    cell = (group, ring, band_of(calibration.levels)[level], said_of(evidence)[voxels])
    flat = np.ravel_multi_index(cell, shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape)))
    free = calibration.free_share[labels.semantics[voxels], level]
    claimed = np.bincount(flat, weights=free, minlength=len(counts)).astype(np.float64)
    return LidarEvidence(counts=counts.reshape(shape), claimed=claimed.reshape(shape))


def said_of(evidence: VoteEvidence) -> NDArray[np.uint8]:
    """(X, Y, Z) ``TOUCHED``, ``THROUGH`` or ``NEITHER``."""
    out = np.full(evidence.touched.shape, NEITHER, np.uint8)
    out[evidence.through] = THROUGH
    out[evidence.touched] = TOUCHED
    return out


def group_of(taxonomy: Taxonomy) -> NDArray[np.int64]:
    """(K,) position of each class's group in ``Taxonomy.class_groups``; ``free`` is the last."""
    out = np.zeros(taxonomy.n_classes, np.int64)
    for g, ids in enumerate(taxonomy.class_groups().values()):
        out[list(ids)] = g
    return out
