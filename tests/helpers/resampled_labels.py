"""Labels on another grid, in another frame, with all their masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.resampling import rotate_flow, sample_nearest, voxel_correspondence
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform
from datasets.taxonomy import IGNORE_ID


def resample(truth: GroundTruth, grid: VoxelGrid, T_dst_src: Transform) -> GroundTruth:
    """The labels on another grid, in another frame.

    Each voxel takes what the source has at the voxel's centre. This loses detail (things thinner
    than a voxel come and go, edges move by up to half a diagonal) except where every voxel of
    the one grid is a voxel of the other, or is made of, or part of, whole ones. What lies outside
    the source is 255, in no mask, without velocity or instance.

    Args:
        T_dst_src: from the frame of ``truth`` to the one of ``grid``, e.g. ``T_lidar_ego`` from
            Occ3D to OpenOccupancy. Velocities turn with it (their z is taken as 0).

    Raises:
        ValueError: the transform is not rigid.
    """
    T = np.asarray(T_dst_src, np.float64)
    correspondence = voxel_correspondence(truth.grid, grid, T)
    moved: dict[str, Any] = {
        name: sample_nearest(array, correspondence)
        for name in ("mask_lidar", "mask_camera", "in_view", "flow", "instances")
        if (array := getattr(truth, name)) is not None
    }
    if truth.flow is not None:
        moved["flow"] = rotate_flow(moved["flow"], T)
    semantics = sample_nearest(truth.semantics, correspondence, outside=IGNORE_ID)
    return replace(truth, grid=grid, semantics=semantics, **moved)
