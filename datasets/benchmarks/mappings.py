"""From one benchmark to another: classes by explicit tables, voxels by ``resample``.

A table names every class of its source, free space included; a class without a counterpart
becomes 255, which is never scored. 255 stays 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.truth import Truth
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.taxonomy import (
    IGNORE_ID,
    OCC3D_NUSCENES,
    OPENOCC_FLOW,
    OPENOCCUPANCY,
    SEMANTIC_KITTI,
    SURROUNDOCC,
    Taxonomy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMapping:
    """What each class of one taxonomy is called in another.

    Attributes:
        names: class of the source -> class of the target, or None for 255. Names every class.
        lost: what the mapping cannot carry over, in words.

    Raises:
        ValueError: a class of the source is not named, or a name is no class.
    """

    source: Taxonomy
    target: Taxonomy
    names: Mapping[str, str | None]
    lost: str

    def __post_init__(self) -> None:
        if odd := set(self.names) ^ set(self.source.names):
            raise ValueError(f"the table must name each class of {self.source.name} once: {odd}")
        if odd := {n for n in self.names.values() if n} - set(self.target.names):
            raise ValueError(f"these are no classes of {self.target.name}: {odd}")

    def table(self) -> NDArray[np.uint8]:
        """(256,) uint8: id of the target by id of the source."""
        ids = np.full(256, IGNORE_ID, np.uint8)
        for old, new in self.names.items():
            if new is not None:
                ids[self.source.id_of(old)] = self.target.id_of(new)
        return ids

    @property
    def one_to_one(self) -> bool:
        """No two classes become one, so that what does not become 255 can be told again."""
        kept = [name for name in self.names.values() if name is not None]
        return len(kept) == len(set(kept))

    def apply(self, truth: Truth) -> Truth:
        """The same voxels in the target's classes; masks, flow and instances stay.

        Raises:
            ValueError: the labels are not in the source's classes.
        """
        if truth.taxonomy != self.source:
            raise ValueError(f"labels are {truth.taxonomy.name}, the table {self.source.name}")
        return replace(truth, taxonomy=self.target, semantics=self.table()[truth.semantics])


_SHARED = {
    "barrier": "barrier",
    "bicycle": "bicycle",
    "bus": "bus",
    "car": "car",
    "construction_vehicle": "construction_vehicle",
    "motorcycle": "motorcycle",
    "pedestrian": "pedestrian",
    "traffic_cone": "traffic_cone",
    "trailer": "trailer",
    "truck": "truck",
    "driveable_surface": "driveable_surface",
    "other_flat": "other_flat",
    "sidewalk": "sidewalk",
    "terrain": "terrain",
    "manmade": "manmade",
    "vegetation": "vegetation",
    "free": "free",
}
_FROM_OCC3D: dict[str, str | None] = {"others": None, **_SHARED}
_OTHERS = "others (animals, debris, strollers, emergency vehicles, ...) is not scored"
_NO_OTHERS = "nothing; no voxel becomes others, which Occ3D does score"
_NO_NOISE = "nothing; noise, which is not scored here, is what Occ3D calls others and scores"

OCC3D_TO_OPENOCC_FLOW = ClassMapping(
    source=OCC3D_NUSCENES, target=OPENOCC_FLOW, names=_FROM_OCC3D, lost=_OTHERS
)
OPENOCC_FLOW_TO_OCC3D = ClassMapping(
    source=OPENOCC_FLOW, target=OCC3D_NUSCENES, names=_SHARED, lost=_NO_OTHERS
)
OCC3D_TO_OPENOCCUPANCY = ClassMapping(
    source=OCC3D_NUSCENES, target=OPENOCCUPANCY, names=_FROM_OCC3D, lost=_OTHERS
)
OPENOCCUPANCY_TO_OCC3D = ClassMapping(
    source=OPENOCCUPANCY, target=OCC3D_NUSCENES, names=_SHARED, lost=_NO_NOISE
)
OCC3D_TO_SURROUNDOCC = ClassMapping(
    source=OCC3D_NUSCENES, target=SURROUNDOCC, names=_FROM_OCC3D, lost=_OTHERS
)
SURROUNDOCC_TO_OCC3D = ClassMapping(
    source=SURROUNDOCC, target=OCC3D_NUSCENES, names=_SHARED, lost=_NO_NOISE
)

OCC3D_TO_SEMANTIC_KITTI = ClassMapping(
    source=OCC3D_NUSCENES,
    target=SEMANTIC_KITTI,
    names={
        "others": None,
        "barrier": "fence",
        "bicycle": "bicycle",
        "bus": "other_vehicle",
        "car": "car",
        "construction_vehicle": "other_vehicle",
        "motorcycle": "motorcycle",
        "pedestrian": "person",
        "traffic_cone": None,
        "trailer": "other_vehicle",
        "truck": "truck",
        "driveable_surface": "road",
        "other_flat": "other_ground",
        "sidewalk": "sidewalk",
        "terrain": "terrain",
        "manmade": "building",
        "vegetation": "vegetation",
        "free": "free",
    },
    lost=(
        "coarse: buses, trailers and construction vehicles become one class; riders are part of "
        "their bicycle or motorcycle; parking is road; fences, poles and signs are manmade, so "
        "building; trunks are vegetation; others and traffic cones are not scored"
    ),
)


def resample(truth: Truth, grid: VoxelGrid, T_dst_src: Transform) -> Truth:
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
    if T.shape != (4, 4) or not np.allclose(T @ inverse(T), np.eye(4), atol=1e-3):
        raise ValueError("T_dst_src must be a rigid 4x4 matrix")
    there = _positions(truth.grid, grid, inverse(T))

    def moved(array: NDArray[Any] | None, outside: int = 0) -> NDArray[Any] | None:
        if array is None:
            return None
        out = np.asarray(array.reshape(truth.grid.n_voxels, -1)[there])
        out[there < 0] = outside
        return out.reshape(*grid.shape, *array.shape[3:])

    semantics = moved(truth.semantics, IGNORE_ID)
    flow = moved(truth.flow)
    assert semantics is not None
    return replace(
        truth,
        grid=grid,
        semantics=semantics,
        mask_lidar=moved(truth.mask_lidar),
        mask_camera=moved(truth.mask_camera),
        in_view=moved(truth.in_view),
        flow=None if flow is None else (flow @ T[:2, :2].T).astype(np.float32),
        instances=moved(truth.instances),
    )


def _positions(src: VoxelGrid, dst: VoxelGrid, T_src_dst: Transform) -> NDArray[np.int64]:
    """Row-major place in ``src`` of each voxel centre of ``dst`` (X * Y * Z,); -1 outside."""
    first = src.cells(apply(T_src_dst, dst.centers(np.zeros(3, np.int64))))
    steps = (T_src_dst[:3, :3] * np.array(dst.size_m)).T / np.array(src.size_m)
    along = [np.arange(n)[:, None] * step for n, step in zip(dst.shape, steps, strict=True)]
    slab = first + along[1][:, None] + along[2]  # (Y, Z, 3) cells of the source
    out = np.full(dst.shape, -1, np.int64)
    for i, shift in enumerate(along[0]):
        index = np.floor(slab + shift).astype(np.int64)
        inside = ((index >= 0) & (index < src.shape)).all(axis=-1)
        out[i][inside] = src.flat(index[inside])
    return out.reshape(-1)
