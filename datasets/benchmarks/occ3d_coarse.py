"""Occ3D-nuScenes at half the resolution in eight classes: a benchmark for small networks.

Read from the files of Occ3D-nuScenes (``occ3d_nuscenes.py``): a coarse voxel is made of 2 x 2 x 2
fine ones. It is in a mask if any of them is. Its class is decided by the best-observed of them:
those that a camera sees; if there is none, those that LiDAR observed; if there is none, all. Of
these it is the most frequent occupied class (the lowest id where they tie), and free if none is
occupied. So what is scored follows from what the cameras see, and what is never observed changes no
label inside a mask. Fine voxels labeled 255 count as unobserved and have no say; a voxel made of
nothing else is 255.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks import occ3d_nuscenes
from datasets.benchmarks.class_mapping import OCC3D_TO_COARSE
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID, OCC3D_COARSE, OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.8, 0.8, 0.8), shape=(100, 100, 8))
TAXONOMY = OCC3D_COARSE
FRAME = occ3d_nuscenes.FRAME

CLASSES = OCC3D_TO_COARSE


def read_labels(path: Path) -> GroundTruth:
    """Read one ``labels.npz`` of Occ3D-nuScenes and merge it.

    Raises:
        SceneError: as ``occ3d_nuscenes.read_labels``.
    """
    return merge(occ3d_nuscenes.read_labels(path))


def merge(fine: GroundTruth) -> GroundTruth:
    """Occ3D-nuScenes labels at half the resolution, in the eight classes.

    Raises:
        ValueError: another grid or taxonomy, or a mask is absent.
    """
    fine.require(occ3d_nuscenes.GRID, OCC3D_NUSCENES, needs=("mask_lidar", "mask_camera"))
    assert fine.mask_lidar is not None and fine.mask_camera is not None
    classes = CLASSES.table()[fine.semantics]
    labeled = classes != IGNORE_ID
    evidence = labeled.view(np.uint8) * np.uint8(_LABELLED)
    evidence |= (labeled & fine.mask_lidar).view(np.uint8) * np.uint8(_LIDAR)
    evidence |= (labeled & fine.mask_camera).view(np.uint8) * np.uint8(_CAMERA)
    semantics, merged_evidence = np.empty(GRID.shape, np.uint8), np.empty(GRID.shape, np.uint8)
    _decide(
        classes, evidence, OCC3D_COARSE.n_classes, OCC3D_COARSE.free_id, semantics, merged_evidence
    )
    return GroundTruth(
        grid=GRID,
        taxonomy=OCC3D_COARSE,
        semantics=semantics,
        mask_lidar=merged_evidence & _LIDAR > 0,
        mask_camera=merged_evidence & _CAMERA > 0,
    )


_LABELLED, _LIDAR, _CAMERA = 1, 2, 4  # evidence of a fine voxel, from weak to strong


@compiled
def _decide(
    classes: NDArray[np.uint8],  # (2X, 2Y, 2Z)
    evidence: NDArray[np.uint8],  # (2X, 2Y, 2Z)
    n_classes: int,
    free_id: int,
    out: NDArray[np.uint8],  # (X, Y, Z)
    merged_evidence: NDArray[np.uint8],  # (X, Y, Z) evidence of any of the eight
) -> None:
    votes = np.zeros(n_classes, np.int64)
    for x, y, z in np.ndindex(out.shape):
        any_of = 0
        for i in range(8):
            any_of |= evidence[2 * x + (i >> 2), 2 * y + (i >> 1 & 1), 2 * z + (i & 1)]
        merged_evidence[x, y, z] = any_of
        out[x, y, z] = IGNORE_ID
        if any_of == 0:
            continue
        best = _CAMERA if any_of & _CAMERA else _LIDAR if any_of & _LIDAR else _LABELLED
        votes[:] = 0
        for i in range(8):
            fx, fy, fz = 2 * x + (i >> 2), 2 * y + (i >> 1 & 1), 2 * z + (i & 1)
            if evidence[fx, fy, fz] & best:
                votes[classes[fx, fy, fz]] += 1
        votes[free_id] = 0
        winner = np.argmax(votes)
        out[x, y, z] = winner if votes[winner] else free_id
