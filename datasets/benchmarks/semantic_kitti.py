"""SemanticKITTI scene completion (arXiv 1904.01416): grid, taxonomy, reader and writer.

``sequences/<two digits>/voxels/<six digits>`` with four endings; every file covers the
(256, 256, 32) voxels, row-major [x, y, z], in the LiDAR frame (x forward, y left, z up):

============= =======================================================================
``.label``    uint16 original labels of the accumulated scans; 0 is free, not "unlabeled"
``.invalid``  one bit a voxel, the first in the highest bit: no scan ever observed it
``.occluded`` likewise: hidden from this scan
``.bin``      likewise: occupied in this scan (the task's input)
============= =======================================================================

``LEARNING_MAP`` makes the benchmark's 20 classes of the original labels; what it leaves out
(outlier, other-structure, other-object) becomes 255. Scored outside ``.invalid``, which is
``GroundTruth.mask_lidar`` here. Train 00-07, 09, 10; validation 08.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import naming
from datasets.files.replacing import write_file
from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID, SEMANTIC_KITTI

GRID = VoxelGrid(min_m=(0.0, -25.6, -2.0), size_m=(0.2, 0.2, 0.2), shape=(256, 256, 32))
TAXONOMY = SEMANTIC_KITTI
FRAME = "lidar"

LEARNING_MAP: dict[int, str | None] = {
    0: "free",
    1: None,  # outlier
    10: "car",
    11: "bicycle",
    13: "other_vehicle",  # bus
    15: "motorcycle",
    16: "other_vehicle",  # on rails
    18: "truck",
    20: "other_vehicle",
    30: "person",
    31: "bicyclist",
    32: "motorcyclist",
    40: "road",
    44: "parking",
    48: "sidewalk",
    49: "other_ground",
    50: "building",
    51: "fence",
    52: None,  # other structure
    60: "road",  # lane marking
    70: "vegetation",
    71: "trunk",
    72: "terrain",
    80: "pole",
    81: "traffic_sign",
    99: None,  # other object
    252: "car",  # from here on: seen moving
    253: "bicyclist",
    254: "person",
    255: "motorcyclist",
    256: "other_vehicle",  # on rails
    257: "other_vehicle",  # bus
    258: "truck",
    259: "other_vehicle",
}
"""Original label -> class, None where it is not scored (semantic-kitti.yaml of the authors)."""

NOT_SCORED_ON_DISK = 1
_UNKNOWN = 254


def labels_path(root: Path, sequence: int, frame: int) -> Path:
    """The ``.label`` file of a frame under the dataset's root."""
    return root / "sequences" / f"{sequence:02d}" / "voxels" / f"{frame:06d}.label"


def read_labels(path: Path) -> GroundTruth:
    """Read a ``.label`` file and the ``.invalid`` file beside it.

    Raises:
        SceneError: one is missing or not of its exact size, or a label is not SemanticKITTI's.
    """
    with naming(path, "a SemanticKITTI voxel label file"):
        raw = np.frombuffer(_bytes_of(path, 2 * GRID.n_voxels), "<u2").astype(np.uint16, copy=False)
        ids, all_known = _looked_up(_READ, raw)
        if not all_known:
            raise ValueError(f"label {raw[ids == _UNKNOWN][0]} is unknown")
        unobserved = read_bits(path.with_suffix(".invalid"))
        return GroundTruth(
            grid=GRID,
            taxonomy=TAXONOMY,
            semantics=ids.reshape(GRID.shape),
            mask_lidar=np.logical_not(unobserved, out=unobserved),
        )


def write_labels(path: Path, truth: GroundTruth) -> None:
    """Write a ``.label`` file and its ``.invalid`` file, creating their folder.

    A class becomes the first original label that ``LEARNING_MAP`` gives it, 255 the outlier.

    Raises:
        ValueError: another grid or taxonomy, no LiDAR mask, or a layer has no place in it.
    """
    truth.require(GRID, TAXONOMY, needs=("mask_lidar",))
    assert truth.mask_lidar is not None
    write_bits(path.with_suffix(".invalid"), ~truth.mask_lidar)
    write_file(path, _WRITTEN[truth.semantics].tobytes())


def read_bits(path: Path) -> NDArray[np.bool_]:
    """(256, 256, 32) bool of a ``.bin``, ``.invalid`` or ``.occluded`` file.

    Raises:
        SceneError: it is missing or not of its exact size.
    """
    with naming(path, "a SemanticKITTI file of one bit a voxel"):
        packed = np.frombuffer(_bytes_of(path, GRID.n_voxels // 8), np.uint8)
        return np.unpackbits(packed).view(np.bool_).reshape(GRID.shape)


def write_bits(path: Path, bits: NDArray[np.bool_]) -> None:
    """Write a ``.bin``, ``.invalid`` or ``.occluded`` file. Raises ``ValueError`` for a shape."""
    if bits.shape != GRID.shape:
        raise ValueError(f"bits have shape {bits.shape}, the grid {GRID.shape}")
    write_file(path, np.packbits(bits).tobytes())


def _bytes_of(path: Path, size: int) -> bytes:
    if (n_bytes := path.stat().st_size) != size:
        raise ValueError(f"{n_bytes} bytes, must be {size}")
    return path.read_bytes()


@compiled
def _looked_up(table: NDArray[np.uint8], raw: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], bool]:
    """``table[raw]``, which numpy does by way of 64-bit indices; is nothing ``_UNKNOWN``?"""
    out, all_known = np.empty(raw.size, np.uint8), True
    for i in range(raw.size):
        out[i] = table[raw[i]]
        all_known &= out[i] != _UNKNOWN
    return out, all_known


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    read = np.full(1 << 16, _UNKNOWN, np.uint8)
    written = np.full(256, NOT_SCORED_ON_DISK, "<u2")
    for raw, name in reversed(LEARNING_MAP.items()):
        read[raw] = IGNORE_ID if name is None else TAXONOMY.id_of(name)
        if name is not None:
            written[read[raw]] = raw
    return read, written


_READ, _WRITTEN = _tables()
