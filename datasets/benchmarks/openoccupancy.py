"""nuScenes-Occupancy v0.1 labels (OpenOccupancy, arXiv 2303.03991): grid, taxonomy, files.

``scene_<scene token>/occupancy/<LIDAR_TOP sample_data token>.npy`` lists the occupied voxels,
one row each: ``[z, y, x, class]``, or ``[z, y, x, vx, vy, vz, class]`` with velocities in m/s.
The frame is the LiDAR's: x right, y forward, z up.

Absent voxels are free (0). Class 0 is noise and becomes 255. A voxel with several rows takes the
class of most of them (the lowest id where they tie) and the velocity of the first of those.
There is no mask: every voxel but the noise is scored. Our flow has two axes, so ``vz`` is not
kept, and is written as 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import naming, read_rows, velocities, write_rows
from datasets.benchmarks.sparse_rows import dense_labels
from datasets.geometry.grid import VoxelGrid
from datasets.names import inside
from datasets.taxonomy import IGNORE_ID, OPENOCCUPANCY

GRID = VoxelGrid(min_m=(-51.2, -51.2, -5.0), size_m=(0.2, 0.2, 0.2), shape=(512, 512, 40))
TAXONOMY = OPENOCCUPANCY
FRAME = "lidar"


def labels_path(root: Path, scene_token: str, lidar_token: str) -> Path:
    """Where a frame's labels lie under the ``nuScenes-Occupancy-v0.1`` folder.

    Args:
        lidar_token: token of the key sweep's ``sample_data`` row, not of its sample.

    Raises:
        SceneError: a token would lead out of its folder.
    """
    return inside(root, f"scene_{scene_token}", "occupancy", f"{lidar_token}.npy")


def read_labels(path: Path) -> GroundTruth:
    """Read one file; ``flow`` is set where it has velocities, and 0 in free voxels.

    Raises:
        SceneError: missing or damaged file, an index outside the grid, an unknown class, or a
            velocity that is not finite.
    """
    with naming(path, "an OpenOccupancy label file"):
        rows = read_rows(path, (4, 7))
        semantics, voxels, row_index = dense_labels(rows, (2, 1, 0), rows.shape[1] - 1, GRID)
        flow = None
        if rows.shape[1] == 7:
            flow = np.zeros((*GRID.shape, 2), np.float32)
            flow.reshape(-1, 2)[voxels] = velocities("velocity", rows[:, 3:6])[row_index, :2]
        return GroundTruth(grid=GRID, taxonomy=TAXONOMY, semantics=semantics, flow=flow)


def write_labels(path: Path, truth: GroundTruth) -> None:
    """Write one file, creating its folder: int32 rows, or float32 rows where there is flow.

    Raises:
        ValueError: another grid or taxonomy, a mask, or flow in a free voxel.
    """
    truth.require(GRID, TAXONOMY, may_have=("flow",))
    occupied = truth.semantics != TAXONOMY.free_id
    classes = truth.semantics[occupied].astype(np.int32)
    classes[classes == IGNORE_ID] = 0
    columns = [*np.nonzero(occupied)[::-1], classes]
    if truth.flow is None:
        write_rows(path, np.stack(columns, axis=1).astype(np.int32))
        return
    if truth.flow[~occupied].any():
        raise ValueError("OpenOccupancy has no place for the flow of free voxels")
    vx, vy = truth.flow[occupied].T
    columns[3:3] = [vx, vy, np.zeros_like(vx)]
    write_rows(path, np.stack(columns, axis=1).astype(np.float32))
