"""Occ3D-nuScenes labels: grid, taxonomy, reader and writer (arXiv 2304.14365, project README).

``gts/<scene name>/<sample token>/labels.npz`` holds ``semantics``, ``mask_lidar`` and
``mask_camera``, each (200, 200, 16) indexed [x, y, z] in the ego frame of the LiDAR key-frame.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 16))
TAXONOMY = OCC3D_NUSCENES


@dataclass(frozen=True, slots=True, kw_only=True)
class Occ3DLabels:
    """Ground truth of one frame.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids; unobserved voxels are free.
        mask_lidar: (X, Y, Z) bool, observed by LiDAR (hit or passed through).
        mask_camera: (X, Y, Z) bool, seen by a camera as well.
    """

    semantics: NDArray[np.uint8]
    mask_lidar: NDArray[np.bool_]
    mask_camera: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name in ("semantics", "mask_lidar", "mask_camera"):
            if (shape := getattr(self, name).shape) != GRID.shape:
                raise ValueError(f"{name} has shape {shape}, Occ3D has {GRID.shape}")


def labels_path(root: Path, scene_name: str, token: str) -> Path:
    """Where Occ3D keeps a frame's labels under the nuScenes root."""
    return root / "gts" / scene_name / token / "labels.npz"


def read_labels(path: Path) -> Occ3DLabels:
    """Read one ``labels.npz``.

    Raises:
        SceneError: missing or damaged file, an array is absent, or a class id is unknown.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            semantics = np.ascontiguousarray(data["semantics"]).astype(np.uint8)
            labels = Occ3DLabels(
                semantics=semantics,
                mask_lidar=data["mask_lidar"].astype(bool),
                mask_camera=data["mask_camera"].astype(bool),
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise SceneError(where=str(path), rule=f"not an Occ3D labels.npz: {error}") from error
    known = (semantics < TAXONOMY.n_classes) | (semantics == IGNORE_ID)
    if not known.all():
        bad = int(semantics[~known][0])
        raise SceneError(where=str(path), rule=f"class id {bad} is not an Occ3D class")
    return labels


def write_labels(path: Path, labels: Occ3DLabels) -> None:
    """Write one ``labels.npz`` as uint8 arrays, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        semantics=labels.semantics,
        mask_lidar=labels.mask_lidar.astype(np.uint8),
        mask_camera=labels.mask_camera.astype(np.uint8),
    )
