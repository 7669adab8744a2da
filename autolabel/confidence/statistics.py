"""Statistics of a frame by which logs are told apart (``datasets.labels.domain``).

They are what the cameras and the LiDAR deliver, how sure the teacher is, and what it sees where.

Legend: P points, X Y Z voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.frames import Frame, of_the_moment
from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import FrameInputs
from datasets.taxonomy import Taxonomy

FAR_M = 20.0
NEAR_M = 15.0

Statistics = dict[str, float]


def of_inputs(
    inputs: FrameInputs,
    frame: Frame,
    points: NDArray[np.float32] | None,  # (P, 6), as ``points_in_ego`` gives them
) -> Statistics:
    """What the sensors delivered for one frame."""
    out: Statistics = {}
    if inputs.images.size:
        green = inputs.images[..., 1].astype(np.float32)
        out["picture brightness"] = float(green.mean())
        out["picture contrast"] = float(green.std(axis=(1, 2)).mean())
        out["picture detail"] = float(np.abs(np.diff(green, axis=2)).mean())
    if points is not None and frame.lidar is not None:
        key = points[of_the_moment(frame, points)]
        distance_m = np.hypot(key[:, 0], key[:, 1])
        out["LiDAR returns"] = float(len(key))
        out["LiDAR height, m"] = float(frame.lidar.T_ego_lidar[2, 3])
        if len(key):
            out["LiDAR returns far off, share"] = float((distance_m > FAR_M).mean())
            out["LiDAR intensity"] = float(key[:, 3].mean())
        if (distance_m < NEAR_M).any():
            out["height of the ground, m"] = float(np.percentile(key[distance_m < NEAR_M, 2], 10))
    return out


def of_labels(
    semantics: NDArray[np.uint8],  # (X, Y, Z)
    raw: NDArray[np.float32],  # (X, Y, Z) softmax value of the class
    hits: NDArray[np.uint8],  # (X, Y, Z)
    passes: NDArray[np.uint8],  # (X, Y, Z)
    grid: VoxelGrid,
    taxonomy: Taxonomy,
) -> Statistics:
    """What the teacher makes of one frame, where LiDAR saw something."""
    observed = (hits > 0) | (passes > 0)
    occupied = observed & (semantics != taxonomy.free_id)
    n = max(1, int(occupied.sum()))
    out: Statistics = {"observed by LiDAR, share": float(observed.mean())}
    for name, voxels in (("occupied", occupied), ("free", observed & ~occupied)):
        if voxels.any():
            out[f"softmax of {name}"] = float(raw[voxels].mean())
    out["hit of occupied, share"] = float((hits > 0)[occupied].sum() / n)
    height = grid.min_m[2] + (np.arange(grid.shape[2]) + 0.5) * grid.size_m[2]
    layers = occupied.sum((0, 1))
    out["height of occupied, m"] = float((layers * height).sum() / n)
    counts = np.bincount(semantics[occupied], minlength=taxonomy.n_classes)
    for k in taxonomy.semantic_ids:
        out[f"{taxonomy.names[k]}, share"] = float(counts[k] / n)
    return out
