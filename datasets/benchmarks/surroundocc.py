"""SurroundOcc labels on nuScenes (arXiv 2303.09551): grid, taxonomy, reader and writer.

``samples/<file name of the key sweep>.npy`` lists the occupied voxels, one row each:
``[x, y, z, class]``. The frame is the LiDAR's: x right, y forward, z up.

Class 0 is the authors' "ignore" (noise of nuScenes-lidarseg) and becomes 255; absent voxels are
free, which their metric also numbers 0. A voxel with several rows takes the class of most of
them, the lowest id where they tie. There is no mask: every voxel but the noise is scored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import naming, read_rows, write_rows
from datasets.benchmarks.sparse_rows import dense_labels
from datasets.geometry.grid import VoxelGrid
from datasets.names import inside
from datasets.taxonomy import IGNORE_ID, SURROUNDOCC

GRID = VoxelGrid(min_m=(-50.0, -50.0, -5.0), size_m=(0.5, 0.5, 0.5), shape=(200, 200, 16))
TAXONOMY = SURROUNDOCC
FRAME = "lidar"


def labels_path(root: Path, sweep: str) -> Path:
    """Where a frame's labels lie under the SurroundOcc folder (``nuscenes_occ``).

    Args:
        sweep: file name of the key sweep, e.g. ``n015-...__LIDAR_TOP__1532402927647951.pcd.bin``.

    Raises:
        SceneError: the name would lead out of its folder.
    """
    return inside(root / "samples", f"{sweep}.npy")


def read_labels(path: Path) -> GroundTruth:
    """Read one file.

    Raises:
        SceneError: missing or damaged file, an index outside the grid, or an unknown class.
    """
    with naming(path, "a SurroundOcc label file"):
        rows = read_rows(path, (4,))
        semantics, _, _ = dense_labels(rows, (0, 1, 2), 3, GRID)
        return GroundTruth(grid=GRID, taxonomy=TAXONOMY, semantics=semantics)


def write_labels(path: Path, truth: GroundTruth) -> None:
    """Write one file of int32 rows, creating its folder.

    Raises:
        ValueError: another grid or taxonomy, or a layer has no place in it.
    """
    truth.require(GRID, TAXONOMY)
    occupied = truth.semantics != TAXONOMY.free_id
    classes = truth.semantics[occupied].astype(np.int32)
    classes[classes == IGNORE_ID] = 0
    write_rows(path, np.stack([*np.nonzero(occupied), classes], axis=1).astype(np.int32))
