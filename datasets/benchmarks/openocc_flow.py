"""OpenOcc v2 labels with flow (CVPR 2024 occupancy and flow challenge): grid, taxonomy, files.

``openocc_v2/<scene name>/<sample token>/labels.npz`` holds ``semantics`` (200, 200, 16) with
free = 16, ``flow`` (200, 200, 16, 2) in m/s along x and y, and ``instances`` (200, 200, 16)
where a release has them; all indexed [x, y, z] in the ego frame of the LiDAR key-frame, the grid
of Occ3D. There is no mask: the challenge scores along rays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import (
    class_ids,
    naming,
    read_npz,
    velocities,
    whole,
    write_npz,
)
from datasets.geometry.grid import VoxelGrid
from datasets.names import inside
from datasets.taxonomy import OPENOCC_FLOW

GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 16))
TAXONOMY = OPENOCC_FLOW
FRAME = "ego"

_SHAPES = {"semantics": GRID.shape, "flow": (*GRID.shape, 2), "instances": GRID.shape}
_INT32 = np.iinfo(np.int32)


def labels_path(root: Path, scene_name: str, token: str) -> Path:
    """Where a frame's labels lie under the nuScenes root.

    Raises:
        SceneError: a name would lead out of its folder.
    """
    return inside(root / "openocc_v2", scene_name, token) / "labels.npz"


def read_labels(path: Path) -> GroundTruth:
    """Read one ``labels.npz``: semantics, flow, and instances where it has them.

    Raises:
        SceneError: missing or damaged file, an array is absent or of another shape, or a value
            is no class, no finite velocity or no instance number.
    """
    with naming(path, "an OpenOcc labels.npz"):
        data = read_npz(path, _SHAPES, optional=("instances",))
        instances = data.get("instances")
        if instances is not None:
            whole("instances", instances, _INT32.min, _INT32.max)
        return GroundTruth(
            grid=GRID,
            taxonomy=TAXONOMY,
            semantics=class_ids("semantics", data["semantics"]),
            flow=velocities("flow", data["flow"]),
            instances=None if instances is None else instances.astype(np.int32),
        )


def write_labels(path: Path, truth: GroundTruth) -> None:
    """Write one ``labels.npz`` (uint8, float32, int32), creating its folder.

    Raises:
        ValueError: another grid or taxonomy, flow is absent, or there is a mask.
    """
    truth.require(GRID, TAXONOMY, needs=("flow",), may_have=("instances",))
    assert truth.flow is not None
    arrays: dict[str, NDArray[Any]] = {"semantics": truth.semantics, "flow": truth.flow}
    if truth.instances is not None:
        arrays["instances"] = truth.instances
    write_npz(path, arrays)
