"""From the classes of one benchmark to those of another, by explicit tables.

A table names every class of its source, free space included; a class without a counterpart
becomes 255, which is never scored. 255 stays 255. Voxels move by ``resampling.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.taxonomy import (
    IGNORE_ID,
    OCC3D_COARSE,
    OCC3D_NUSCENES,
    OCC3D_WAYMO,
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

    def apply(self, truth: GroundTruth) -> GroundTruth:
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
_IN_SEMANTIC_KITTI: dict[str, str | None] = {
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
}
_IN_WAYMO: dict[str, str | None] = {
    "barrier": "general_object",
    "bicycle": "bicycle",
    "bus": "vehicle",
    "car": "vehicle",
    "construction_vehicle": "vehicle",
    "motorcycle": "motorcycle",
    "pedestrian": "pedestrian",
    "traffic_cone": "construction_cone",
    "trailer": "vehicle",
    "truck": "vehicle",
    "driveable_surface": "road",
    "other_flat": "walkable",
    "sidewalk": "walkable",
    "terrain": "walkable",
    "manmade": "building",
    "vegetation": "vegetation",
    "free": "free",
}
_FROM_OCC3D: dict[str, str | None] = {"others": None, **_SHARED}
_OTHERS = "others (animals, debris, strollers, emergency vehicles, ...) is not scored"
_NO_OTHERS = "nothing; no voxel becomes others, which Occ3D does score"
_NO_NOISE = "nothing; noise, which is not scored here, is what Occ3D calls others and scores"
_SAME_CLASSES = "nothing: the same classes under other numbers"
_COARSE_IN_SEMANTIC_KITTI = (
    "coarse: buses, trailers and construction vehicles become one class; riders are part of "
    "their bicycle or motorcycle; parking is road; fences, poles and signs are manmade, so "
    "building; trunks are vegetation; traffic cones are not scored"
)
_COARSE_IN_WAYMO = (
    "coarse: all vehicles become one class; riders are part of their bicycle or motorcycle, so "
    "nothing becomes cyclist; poles, signs and traffic lights are manmade, so building; trunks "
    "are vegetation; what is flat but no road is walkable"
)

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
OPENOCC_FLOW_TO_OPENOCCUPANCY = ClassMapping(
    source=OPENOCC_FLOW, target=OPENOCCUPANCY, names=_SHARED, lost=_SAME_CLASSES
)
OPENOCCUPANCY_TO_OPENOCC_FLOW = ClassMapping(
    source=OPENOCCUPANCY, target=OPENOCC_FLOW, names=_SHARED, lost=_SAME_CLASSES
)
OPENOCC_FLOW_TO_SURROUNDOCC = ClassMapping(
    source=OPENOCC_FLOW, target=SURROUNDOCC, names=_SHARED, lost=_SAME_CLASSES
)
SURROUNDOCC_TO_OPENOCC_FLOW = ClassMapping(
    source=SURROUNDOCC, target=OPENOCC_FLOW, names=_SHARED, lost=_SAME_CLASSES
)
OPENOCCUPANCY_TO_SURROUNDOCC = ClassMapping(
    source=OPENOCCUPANCY, target=SURROUNDOCC, names=_SHARED, lost=_SAME_CLASSES
)
SURROUNDOCC_TO_OPENOCCUPANCY = ClassMapping(
    source=SURROUNDOCC, target=OPENOCCUPANCY, names=_SHARED, lost=_SAME_CLASSES
)

OCC3D_TO_SEMANTIC_KITTI = ClassMapping(
    source=OCC3D_NUSCENES,
    target=SEMANTIC_KITTI,
    names={"others": None, **_IN_SEMANTIC_KITTI},
    lost=f"{_COARSE_IN_SEMANTIC_KITTI}; {_OTHERS}",
)
OPENOCC_FLOW_TO_SEMANTIC_KITTI = ClassMapping(
    source=OPENOCC_FLOW,
    target=SEMANTIC_KITTI,
    names=_IN_SEMANTIC_KITTI,
    lost=_COARSE_IN_SEMANTIC_KITTI,
)
OPENOCCUPANCY_TO_SEMANTIC_KITTI = ClassMapping(
    source=OPENOCCUPANCY,
    target=SEMANTIC_KITTI,
    names=_IN_SEMANTIC_KITTI,
    lost=_COARSE_IN_SEMANTIC_KITTI,
)
SURROUNDOCC_TO_SEMANTIC_KITTI = ClassMapping(
    source=SURROUNDOCC,
    target=SEMANTIC_KITTI,
    names=_IN_SEMANTIC_KITTI,
    lost=_COARSE_IN_SEMANTIC_KITTI,
)
OCC3D_TO_WAYMO = ClassMapping(
    source=OCC3D_NUSCENES,
    target=OCC3D_WAYMO,
    names={"others": "general_object", **_IN_WAYMO},
    lost=_COARSE_IN_WAYMO,
)
OPENOCC_FLOW_TO_WAYMO = ClassMapping(
    source=OPENOCC_FLOW, target=OCC3D_WAYMO, names=_IN_WAYMO, lost=_COARSE_IN_WAYMO
)
OPENOCCUPANCY_TO_WAYMO = ClassMapping(
    source=OPENOCCUPANCY, target=OCC3D_WAYMO, names=_IN_WAYMO, lost=_COARSE_IN_WAYMO
)
SURROUNDOCC_TO_WAYMO = ClassMapping(
    source=SURROUNDOCC, target=OCC3D_WAYMO, names=_IN_WAYMO, lost=_COARSE_IN_WAYMO
)

_IN_COARSE: dict[str, str | None] = {
    "barrier": "small_object",
    "bicycle": "small_object",
    "bus": "vehicle",
    "car": "vehicle",
    "construction_vehicle": "vehicle",
    "motorcycle": "small_object",
    "pedestrian": "small_object",
    "traffic_cone": "small_object",
    "trailer": "vehicle",
    "truck": "vehicle",
    "driveable_surface": "driveable_surface",
    "other_flat": "sidewalk",
    "sidewalk": "sidewalk",
    "terrain": "terrain",
    "manmade": "manmade",
    "vegetation": "vegetation",
    "free": "free",
}
_COARSE_LOSES = "the kind of a vehicle or small object; what is flat but neither road nor terrain"
OCC3D_TO_COARSE = ClassMapping(
    source=OCC3D_NUSCENES,
    target=OCC3D_COARSE,
    # others: strollers, animals, debris, bicycle racks
    names={"others": "small_object", **_IN_COARSE},
    lost=_COARSE_LOSES,
)
OPENOCC_FLOW_TO_COARSE = ClassMapping(
    source=OPENOCC_FLOW, target=OCC3D_COARSE, names=_IN_COARSE, lost=_COARSE_LOSES
)
OPENOCCUPANCY_TO_COARSE = ClassMapping(
    source=OPENOCCUPANCY, target=OCC3D_COARSE, names=_IN_COARSE, lost=_COARSE_LOSES
)
SURROUNDOCC_TO_COARSE = ClassMapping(
    source=SURROUNDOCC, target=OCC3D_COARSE, names=_IN_COARSE, lost=_COARSE_LOSES
)

MAPPINGS = (
    OCC3D_TO_COARSE,
    OPENOCC_FLOW_TO_COARSE,
    OPENOCCUPANCY_TO_COARSE,
    SURROUNDOCC_TO_COARSE,
    OCC3D_TO_OPENOCC_FLOW,
    OPENOCC_FLOW_TO_OCC3D,
    OCC3D_TO_OPENOCCUPANCY,
    OPENOCCUPANCY_TO_OCC3D,
    OCC3D_TO_SURROUNDOCC,
    SURROUNDOCC_TO_OCC3D,
    OPENOCC_FLOW_TO_OPENOCCUPANCY,
    OPENOCCUPANCY_TO_OPENOCC_FLOW,
    OPENOCC_FLOW_TO_SURROUNDOCC,
    SURROUNDOCC_TO_OPENOCC_FLOW,
    OPENOCCUPANCY_TO_SURROUNDOCC,
    SURROUNDOCC_TO_OPENOCCUPANCY,
    OCC3D_TO_SEMANTIC_KITTI,
    OPENOCC_FLOW_TO_SEMANTIC_KITTI,
    OPENOCCUPANCY_TO_SEMANTIC_KITTI,
    SURROUNDOCC_TO_SEMANTIC_KITTI,
    OCC3D_TO_WAYMO,
    OPENOCC_FLOW_TO_WAYMO,
    OPENOCCUPANCY_TO_WAYMO,
    SURROUNDOCC_TO_WAYMO,
)


def sources_of(target: Taxonomy) -> tuple[str, ...]:
    """Names of the classes that lead to these: their own, and those with a table."""
    return (target.name, *(m.source.name for m in MAPPINGS if m.target == target))


def class_mapping(source: Taxonomy, target: Taxonomy) -> ClassMapping | None:
    """The table from one to the other; None where there is none."""
    return next((m for m in MAPPINGS if (m.source, m.target) == (source, target)), None)
