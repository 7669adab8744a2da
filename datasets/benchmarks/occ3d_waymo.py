"""Occ3D-Waymo labels at 0.4 m: grid, taxonomy, reader and writer (arXiv 2304.14365, CVT-Occ).

``voxel04/{training,validation}/<sequence>/<frame>_04.npz``, both numbers of three digits, holds
(200, 200, 16) arrays indexed [x, y, z] in the vehicle frame:

==================== =======================================
``voxel_label``      ids 0..14, and 23 for free space
``origin_voxel_state`` observed by LiDAR
``final_voxel_state``  seen by a camera
``infov``              within the field of view of a camera
==================== =======================================

Free is 15 in our taxonomy, as in every published metric. Scored where ``infov`` and
``final_voxel_state`` hold: ``GroundTruth.scored``. The 0.1 m files (without ``_04``) have
another grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import class_ids, flags, naming, read_npz, write_npz
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import OCC3D_WAYMO

GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 16))
TAXONOMY = OCC3D_WAYMO
FRAME = "ego"

FREE_ON_DISK = 23
_MASKS = {
    "mask_lidar": "origin_voxel_state",
    "mask_camera": "final_voxel_state",
    "in_view": "infov",
}


def labels_path(root: Path, split: str, sequence: int, frame: int) -> Path:
    """Where a frame's labels lie under the Occ3D-Waymo root.

    Args:
        split: ``training`` or ``validation``.
        sequence, frame: 0..999.
    """
    return root / "voxel04" / split / f"{sequence:03d}" / f"{frame:03d}_04.npz"


def read_labels(path: Path) -> GroundTruth:
    """Read one ``*_04.npz``: semantics, both masks and the field of view.

    Raises:
        SceneError: missing or damaged file, an array is absent or of another shape, or a value
            is no class or no 0/1.
    """
    with naming(path, "an Occ3D-Waymo label file"):
        data = read_npz(path, dict.fromkeys(("voxel_label", *_MASKS.values()), GRID.shape))
        semantics = class_ids("voxel_label", data["voxel_label"])
        if (semantics == TAXONOMY.free_id).any():
            raise ValueError(f"voxel_label: {TAXONOMY.free_id} is no class in these files")
        semantics[semantics == FREE_ON_DISK] = TAXONOMY.free_id
        return GroundTruth(
            grid=GRID,
            taxonomy=TAXONOMY,
            semantics=semantics,
            mask_lidar=flags("origin_voxel_state", data["origin_voxel_state"]),
            mask_camera=flags("final_voxel_state", data["final_voxel_state"]),
            in_view=flags("infov", data["infov"]),
        )


def write_labels(path: Path, truth: GroundTruth) -> None:
    """Write one ``*_04.npz`` as uint8 arrays, creating its folder.

    Raises:
        ValueError: another grid or taxonomy, a mask is absent, or a layer has no place in it.
    """
    truth.require(GRID, TAXONOMY, needs=tuple(_MASKS))
    label = np.where(truth.semantics == TAXONOMY.free_id, np.uint8(FREE_ON_DISK), truth.semantics)
    masks = {key: getattr(truth, layer).astype(np.uint8) for layer, key in _MASKS.items()}
    write_npz(path, {"voxel_label": label, **masks})
