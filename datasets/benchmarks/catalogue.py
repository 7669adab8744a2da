"""The benchmarks by name: what each scores, and where the truth of a frame lies.

``benchmark("occ3d_nuscenes")``; ``NAMES`` lists them. A benchmark's own module has its files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from datasets.benchmarks import (
    NAMES,
    occ3d_coarse,
    occ3d_nuscenes,
    occ3d_waymo,
    openocc_flow,
    openoccupancy,
    semantic_kitti,
    surroundocc,
)
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.waymo_sequences import sequence_of
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, LidarSweep, SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is scored, and where its truth lies. Picklable.

    Attributes:
        frame: of the grid, ``ego`` or ``lidar``.
        mask: name of the voxels that the benchmark scores; None if those are all labeled ones.
        path: label file of a frame, under the folder of the truth.
        read: its reader.
        write: its writer; None where no file of its own exists.
        folder: of the truth, in the log's.
    """

    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    frame: str
    mask: str | None
    path: Callable[[Path, SceneSource, Frame], Path]
    read: Callable[[Path], GroundTruth]
    write: Callable[[Path, GroundTruth], None] | None = None
    folder: str = "."

    def require(self, what: str, grid: VoxelGrid, taxonomy: Taxonomy, frame: str) -> None:
        """Raises ``SetupError``: what is named so has other voxels or classes."""
        voxels = (grid, taxonomy, frame)
        if voxels != (self.grid, self.taxonomy, self.frame):
            raise SetupError(
                f"{what} has {voxels_in_words(*voxels)}; benchmark {self.name} has "
                f"{voxels_in_words(self.grid, self.taxonomy, self.frame)}"
            )

    def labels(self, root: Path, source: SceneSource, frame: Frame) -> GroundTruth:
        """The truth of a frame of the log, from its file under ``root``.

        Raises:
            SetupError: the benchmark does not label such a log.
            SceneError: the frame has no label file, or the file is bad.
        """
        return self.read(self.path(root, source, frame))


def voxels_in_words(grid: VoxelGrid, taxonomy: Taxonomy, frame: str) -> str:
    """Such as ``200x200x16 voxels of 0.4 m in the ego frame with occ3d-nuscenes classes``."""
    shape = "x".join(str(n) for n in grid.shape)
    return f"{shape} voxels of {grid.size_m[0]} m in the {frame} frame with {taxonomy.name} classes"


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises ``SetupError`` where there is none."""
    for candidate in BENCHMARKS:
        if candidate.name == name:
            return candidate
    raise SetupError(f"unknown benchmark {name!r}; known: {', '.join(NAMES)}")


@runtime_checkable
class _NamesSceneAndLidar(Protocol):
    def scene_and_lidar_token(self, frame: Frame) -> tuple[str, str]: ...


@runtime_checkable
class _NumbersFrames(Protocol):
    def number_of(self, frame: Frame) -> int: ...


def _occ3d_nuscenes_path(root: Path, source: SceneSource, frame: Frame) -> Path:
    return occ3d_nuscenes.labels_path(root, frame.scene_id, frame.token)


def _openocc_flow_path(root: Path, source: SceneSource, frame: Frame) -> Path:
    return openocc_flow.labels_path(root, frame.scene_id, frame.token)


def _openoccupancy_path(root: Path, source: SceneSource, frame: Frame) -> Path:
    if not isinstance(source, _NamesSceneAndLidar):
        raise SetupError(f"OpenOccupancy labels nuScenes, not a log of kind {source.name!r}")
    _key_sweep(frame, "OpenOccupancy")
    return openoccupancy.labels_path(root, *source.scene_and_lidar_token(frame))


def _surroundocc_path(root: Path, source: SceneSource, frame: Frame) -> Path:
    return surroundocc.labels_path(root, _key_sweep(frame, "SurroundOcc").path.name)


def _key_sweep(frame: Frame, labels: str) -> LidarSweep:
    if frame.lidar is None:
        raise SceneError(
            where=f"scene {frame.scene_id}",
            frame=frame.token,
            rule=f"it has no LiDAR, after whose key sweep {labels} names its files",
        )
    return frame.lidar


def _semantic_kitti_path(root: Path, source: SceneSource, frame: Frame) -> Path:
    numbers = (frame.scene_id, frame.token)
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise SetupError(
            "SemanticKITTI numbers its sequences and frames, so scene ids and frame tokens must "
            f"be those numbers (08, 000005); this log has {frame.scene_id!r}, {frame.token!r}"
        )
    return semantic_kitti.labels_path(root, int(frame.scene_id), int(frame.token))


def _occ3d_waymo_path(root: Path, source: SceneSource, frame: Frame) -> Path:
    if not isinstance(source, _NumbersFrames):
        raise SetupError(f"Occ3D-Waymo labels Waymo, not a log of kind {source.name!r}")
    split, sequence = sequence_of(root, source, frame.scene_id)
    return occ3d_waymo.labels_path(root, split, sequence, source.number_of(frame))


BENCHMARKS = (
    Benchmark(
        name="occ3d_nuscenes",
        grid=occ3d_nuscenes.GRID,
        taxonomy=occ3d_nuscenes.TAXONOMY,
        frame=occ3d_nuscenes.FRAME,
        mask="camera-visible",
        path=_occ3d_nuscenes_path,
        read=occ3d_nuscenes.read_labels,
        write=occ3d_nuscenes.write_labels,
    ),
    Benchmark(
        name="occ3d_waymo",
        grid=occ3d_waymo.GRID,
        taxonomy=occ3d_waymo.TAXONOMY,
        frame=occ3d_waymo.FRAME,
        mask="in view and camera-visible",
        path=_occ3d_waymo_path,
        read=occ3d_waymo.read_labels,
        write=occ3d_waymo.write_labels,
    ),
    Benchmark(
        name="openoccupancy",
        grid=openoccupancy.GRID,
        taxonomy=openoccupancy.TAXONOMY,
        frame=openoccupancy.FRAME,
        mask=None,
        path=_openoccupancy_path,
        read=openoccupancy.read_labels,
        write=openoccupancy.write_labels,
        folder="nuScenes-Occupancy-v0.1",
    ),
    Benchmark(
        name="openocc_flow",
        grid=openocc_flow.GRID,
        taxonomy=openocc_flow.TAXONOMY,
        frame=openocc_flow.FRAME,
        mask=None,
        path=_openocc_flow_path,
        read=openocc_flow.read_labels,
        write=openocc_flow.write_labels,
    ),
    Benchmark(
        name="surroundocc",
        grid=surroundocc.GRID,
        taxonomy=surroundocc.TAXONOMY,
        frame=surroundocc.FRAME,
        mask=None,
        path=_surroundocc_path,
        read=surroundocc.read_labels,
        write=surroundocc.write_labels,
        folder="nuscenes_occ",
    ),
    Benchmark(
        name="occ3d_coarse",
        grid=occ3d_coarse.GRID,
        taxonomy=occ3d_coarse.TAXONOMY,
        frame=occ3d_coarse.FRAME,
        mask="camera-visible",
        path=_occ3d_nuscenes_path,
        read=occ3d_coarse.read_labels,
    ),
    Benchmark(
        name="semantic_kitti",
        grid=semantic_kitti.GRID,
        taxonomy=semantic_kitti.TAXONOMY,
        frame=semantic_kitti.FRAME,
        mask="observed",
        path=_semantic_kitti_path,
        read=semantic_kitti.read_labels,
        write=semantic_kitti.write_labels,
    ),
)
