"""Occ3D-nuScenes labels: grid, taxonomy, reader and writer (arXiv 2304.14365, project README).

``gts/<scene name>/<sample token>/labels.npz`` holds ``semantics``, ``mask_lidar`` and
``mask_camera``, each (200, 200, 16) indexed [x, y, z] in the ego frame of the LiDAR key-frame.
Scored inside ``mask_camera``; voxels that nothing observed are free in ``semantics``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import class_ids, flags, naming, read_npz, write_npz
from datasets.geometry.grid import VoxelGrid
from datasets.names import inside
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 16))
TAXONOMY = OCC3D_NUSCENES
FRAME = "ego"

_MASKS = ("mask_lidar", "mask_camera")


def labels_path(root: Path, scene_name: str, token: str) -> Path:
    """Where Occ3D keeps a frame's labels under the nuScenes root.

    Raises:
        SceneError: a name would lead out of its folder.
    """
    return inside(root / "gts", scene_name, token) / "labels.npz"


def read_labels(path: Path) -> GroundTruth:
    """Read one ``labels.npz``: semantics and both masks.

    Raises:
        SceneError: missing or damaged file, an array is absent or of another shape, or a value
            is no class or no 0/1.
    """
    with naming(path, "an Occ3D labels.npz"):
        data = read_npz(path, dict.fromkeys(("semantics", *_MASKS), GRID.shape))
        return GroundTruth(
            grid=GRID,
            taxonomy=TAXONOMY,
            semantics=class_ids("semantics", data["semantics"]),
            mask_lidar=flags("mask_lidar", data["mask_lidar"]),
            mask_camera=flags("mask_camera", data["mask_camera"]),
        )


def write_labels(path: Path, truth: GroundTruth) -> None:
    """Write one ``labels.npz`` as uint8 arrays, creating its folder.

    Raises:
        ValueError: another grid or taxonomy, a mask is absent, or a layer has no place in it.
    """
    truth.require(GRID, TAXONOMY, needs=_MASKS)
    masks = {name: getattr(truth, name).astype(np.uint8) for name in _MASKS}
    write_npz(path, {"semantics": truth.semantics, **masks})
