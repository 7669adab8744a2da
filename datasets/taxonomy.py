"""Class lists: names, colors, the free and ignore ids, and the groups of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.files.printable import printable

IGNORE_ID = 255
Color = tuple[int, int, int]

GROUP_LABELS = {
    "vehicles": "vehicles",
    "people": "people and two-wheelers",
    "ground": "ground",
    "structures": "structures",
    "vegetation": "vegetation",
    "free": "free",
}
"""Groups of classes that error bounds are given for, and what they are called."""
_GROUP_OF = {
    **dict.fromkeys(
        ("vehicle", "other_vehicle", "car", "truck", "bus", "trailer", "construction_vehicle"),
        "vehicles",
    ),
    **dict.fromkeys(
        ("pedestrian", "person", "bicycle", "motorcycle", "bicyclist", "motorcyclist", "cyclist"),
        "people",
    ),
    **dict.fromkeys(
        ("driveable_surface", "road", "parking", "other_flat", "other_ground", "sidewalk"), "ground"
    ),
    **dict.fromkeys(("walkable", "terrain"), "ground"),
    **dict.fromkeys(("vegetation", "trunk", "tree_trunk"), "vegetation"),
    "small_object": "people",
}
"""Every other class is a structure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taxonomy:
    """Classes of a voxel label, by id.

    Attributes:
        names: one per id, free space included.
        colors: RGB 0..255, one per id.
        free_id: the id of free space.
        foreground: ids of objects (as the distillation masks of the paper group them).
        dynamic: ids that can move.

    Raises:
        ValueError: lengths differ, an id is out of range, or a name occurs twice.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    free_id: int
    foreground: tuple[int, ...]
    dynamic: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} names but {len(self.colors)} colors")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"a class name occurs twice: {self.names}")
        if odd := [name for name in (self.name, *self.names) if printable(name) != name]:
            raise ValueError(f"a class name holds a control character: {odd[0]!r}")
        for i in (self.free_id, *self.foreground, *self.dynamic):
            if not 0 <= i < len(self.names):
                raise ValueError(f"class id {i} is not in 0..{len(self.names) - 1}")

    @property
    def n_classes(self) -> int:
        """Number of ids, free space included."""
        return len(self.names)

    @property
    def semantic_ids(self) -> tuple[int, ...]:
        """Every id but free space: what mIoU averages over."""
        return tuple(i for i in range(self.n_classes) if i != self.free_id)

    def id_of(self, name: str) -> int:
        return self.names.index(name)

    def class_groups(self) -> dict[str, tuple[int, ...]]:
        """The ids of each of ``GROUP_LABELS`` that has any; ``free`` comes last."""
        groups: dict[str, list[int]] = {name: [] for name in GROUP_LABELS}
        for i in self.semantic_ids:
            groups[_GROUP_OF.get(self.names[i], "structures")].append(i)
        groups["free"].append(self.free_id)
        return {name: tuple(ids) for name, ids in groups.items() if ids}

    def color_table(self) -> NDArray[np.uint8]:
        """(256, 3) uint8; unknown ids are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.n_classes] = self.colors
        return table

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "names": list(self.names),
            "colours": [list(c) for c in self.colors],
            "free_id": self.free_id,
            "ignore_id": IGNORE_ID,
            "foreground": list(self.foreground),
            "dynamic": list(self.dynamic),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Taxonomy:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        return cls(
            name=data["name"],
            names=tuple(data["names"]),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in data["colours"]),
            free_id=int(data["free_id"]),
            foreground=tuple(int(i) for i in data["foreground"]),
            dynamic=tuple(int(i) for i in data["dynamic"]),
        )


OCC3D_NUSCENES = Taxonomy(
    name="occ3d-nuscenes",
    names=(
        "others",
        "barrier",
        "bicycle",
        "bus",
        "car",
        "construction_vehicle",
        "motorcycle",
        "pedestrian",
        "traffic_cone",
        "trailer",
        "truck",
        "driveable_surface",
        "other_flat",
        "sidewalk",
        "terrain",
        "manmade",
        "vegetation",
        "free",
    ),
    # nuScenes-lidarseg colors where they can be told apart on a grey street
    colors=(
        (90, 90, 90),
        (112, 128, 144),
        (220, 20, 60),
        (255, 127, 80),
        (255, 158, 0),
        (233, 150, 70),
        (255, 61, 99),
        (0, 0, 230),
        (47, 79, 79),
        (255, 140, 0),
        (255, 99, 71),
        (0, 207, 191),
        (175, 0, 75),
        (110, 70, 160),
        (112, 180, 60),
        (222, 184, 135),
        (0, 135, 0),
        (255, 255, 255),
    ),
    free_id=17,
    foreground=tuple(range(11)),
    dynamic=(2, 3, 4, 5, 6, 7, 9, 10),
)
"""Occ3D-nuScenes: the nuScenes-lidarseg challenge ids plus free (Occ3D, arXiv 2304.14365)."""

OCC3D_COARSE = Taxonomy(
    name="occ3d-coarse",
    names=(
        "vehicle",
        "small_object",
        "driveable_surface",
        "sidewalk",
        "terrain",
        "manmade",
        "vegetation",
        "free",
    ),
    colors=(
        (255, 158, 0),
        (220, 20, 60),
        (0, 207, 191),
        (110, 70, 160),
        (112, 180, 60),
        (222, 184, 135),
        (0, 135, 0),
        (255, 255, 255),
    ),
    free_id=7,
    foreground=(0, 1),
    dynamic=(0, 1),
)
"""Occ3D-nuScenes merged for small networks (``datasets/benchmarks/occ3d_coarse.py``)."""

_COLOR = dict(zip(OCC3D_NUSCENES.names, OCC3D_NUSCENES.colors, strict=True))
_OPENOCCUPANCY_NAMES = ("free", *OCC3D_NUSCENES.names[1:17])
_OPENOCC_FLOW_NAMES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
    "driveable_surface",
    "other_flat",
    "sidewalk",
    "terrain",
    "manmade",
    "vegetation",
    "free",
)

OPENOCCUPANCY = Taxonomy(
    name="openoccupancy",
    names=_OPENOCCUPANCY_NAMES,
    colors=tuple(_COLOR[name] for name in _OPENOCCUPANCY_NAMES),
    free_id=0,
    foreground=tuple(range(1, 11)),
    dynamic=(2, 3, 4, 5, 6, 7, 9, 10),
)
"""nuScenes-Occupancy (OpenOccupancy, arXiv 2303.03991): the ids of nuScenes-lidarseg, 0 is free.

In the files absent voxels are free and 0 is noise, which a reader turns into ``IGNORE_ID``.
"""

OPENOCC_FLOW = Taxonomy(
    name="openocc-flow",
    names=_OPENOCC_FLOW_NAMES,
    colors=tuple(_COLOR[name] for name in _OPENOCC_FLOW_NAMES),
    free_id=16,
    foreground=tuple(range(10)),
    dynamic=tuple(range(8)),
)
"""OpenOcc v2 (CVPR 2024 occupancy and flow challenge); the dynamic ids are those with a velocity
error (mAVE)."""

SURROUNDOCC = Taxonomy(
    name="surroundocc",
    names=_OPENOCCUPANCY_NAMES,
    colors=tuple(_COLOR[name] for name in _OPENOCCUPANCY_NAMES),
    free_id=0,
    foreground=tuple(range(1, 11)),
    dynamic=(2, 3, 4, 5, 6, 7, 9, 10),
)
"""SurroundOcc (arXiv 2303.09551): the ids of nuScenes-lidarseg, 0 is free, as in its metric.

In the files absent voxels are free and 0 is noise, which a reader turns into ``IGNORE_ID``.
"""

SEMANTIC_KITTI = Taxonomy(
    name="semantic-kitti",
    names=(
        "free",
        "car",
        "bicycle",
        "motorcycle",
        "truck",
        "other_vehicle",
        "person",
        "bicyclist",
        "motorcyclist",
        "road",
        "parking",
        "sidewalk",
        "other_ground",
        "building",
        "fence",
        "vegetation",
        "trunk",
        "terrain",
        "pole",
        "traffic_sign",
    ),
    colors=(
        (255, 255, 255),
        (255, 158, 0),
        (220, 20, 60),
        (255, 61, 99),
        (255, 99, 71),
        (255, 127, 80),
        (0, 0, 230),
        (160, 60, 220),
        (110, 0, 140),
        (0, 207, 191),
        (90, 160, 200),
        (110, 70, 160),
        (175, 0, 75),
        (222, 184, 135),
        (112, 128, 144),
        (0, 135, 0),
        (120, 80, 40),
        (112, 180, 60),
        (47, 79, 79),
        (230, 200, 60),
    ),
    free_id=0,
    foreground=(1, 2, 3, 4, 5, 6, 7, 8, 18, 19),
    dynamic=(1, 2, 3, 4, 5, 6, 7, 8),
)
"""SemanticKITTI scene completion (arXiv 1904.01416): the 19 classes of its learning map, 0 is
free rather than "unlabeled"; what has no class is ``IGNORE_ID``."""

OCC3D_WAYMO = Taxonomy(
    name="occ3d-waymo",
    names=(
        "general_object",
        "vehicle",
        "pedestrian",
        "sign",
        "cyclist",
        "traffic_light",
        "pole",
        "construction_cone",
        "bicycle",
        "motorcycle",
        "building",
        "vegetation",
        "tree_trunk",
        "road",
        "walkable",
        "free",
    ),
    colors=(
        (90, 90, 90),
        (255, 158, 0),
        (0, 0, 230),
        (230, 200, 60),
        (160, 60, 220),
        (200, 30, 30),
        (112, 128, 144),
        (47, 79, 79),
        (220, 20, 60),
        (255, 61, 99),
        (222, 184, 135),
        (0, 135, 0),
        (120, 80, 40),
        (0, 207, 191),
        (110, 70, 160),
        (255, 255, 255),
    ),
    free_id=15,
    foreground=tuple(range(10)),
    dynamic=(1, 2, 4, 8, 9),
)
"""Occ3D-Waymo (arXiv 2304.14365), in the order of its authors; free is 23 in the files.

The published EFFOcc metric prints ids 2 to 4 as bicyclist, pedestrian and sign; a mean over the
classes does not depend on it.
"""
