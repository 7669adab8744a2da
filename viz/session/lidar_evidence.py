"""What LiDAR says of the voxels of a frame, and whether the labels agree.

Legend: X, Y, Z voxels.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.raycast import lidar_evidence
from datasets.labels.store import FrameLabels
from viz.session.session import ReviewFrame

MISSED_HITS = 3
"""So many returns end in a voxel that is labeled free before it counts as missed."""


class Finding(enum.IntEnum):
    """What LiDAR says of a voxel and its label.

    Rays that graze the ground pass through voxels whose lower part is road: there the two findings
    about passes are no proof. On what stands upright they are.
    """

    UNSEEN = 0
    HIT = 1
    MOSTLY_PASSED = 2
    ONLY_PASSED = 3
    MISSED = 4


FINDING_NAMES = {
    Finding.UNSEEN: "occupied, no ray came there",
    Finding.HIT: "occupied, hit as often as passed",
    Finding.MOSTLY_PASSED: "hit, but mostly passed",
    Finding.ONLY_PASSED: "violation: passed, never hit",
    Finding.MISSED: "violation: returns, but labeled free",
}
FINDING_COLORS = {
    Finding.UNSEEN: (110, 114, 124),
    Finding.HIT: (70, 190, 100),
    Finding.MOSTLY_PASSED: (255, 176, 46),
    Finding.ONLY_PASSED: (235, 52, 52),
    Finding.MISSED: (190, 90, 255),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Rays that ended in (``hits``) or went through (``passes``) each voxel, (X, Y, Z) uint8.

    Attributes:
        stored: the store has them, of every sweep it used; else they are of the frame's moment.
    """

    hits: NDArray[np.uint8]
    passes: NDArray[np.uint8]
    stored: bool


def evidence_of(frame: ReviewFrame) -> Evidence | None:
    """What the store has, or else what the frame's own sweeps say; None without either."""
    labels = frame.labels
    if labels.hits is not None and labels.passes is not None:
        return Evidence(hits=labels.hits, passes=labels.passes, stored=True)
    if frame.points_m is None or frame.lidar_m is None:
        return None
    hits, passes = lidar_evidence(frame.lidar_m, frame.points_m, frame.grid)
    return Evidence(hits=hits, passes=passes, stored=False)


def findings(
    evidence: Evidence, labels: FrameLabels, occupied: NDArray[np.bool_], free_id: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """``Finding`` of every voxel, and which are worth showing: the occupied ones, and those that
    are labeled free but hit often and more often than passed. Both (X, Y, Z)."""
    hits, passes = evidence.hits, evidence.passes
    out = np.zeros(hits.shape, np.uint8)
    reached = (hits > 0) | (passes > 0)
    out[reached] = Finding.HIT
    out[passes > hits] = Finding.MOSTLY_PASSED
    out[(passes > 0) & (hits == 0)] = Finding.ONLY_PASSED
    missed = (labels.semantics == free_id) & (hits >= MISSED_HITS) & (hits > passes)
    out[missed] = Finding.MISSED
    return out, occupied | missed
