"""Waymo's own class lists, and which class of Occ3D-Waymo each is."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.sources.pictures import opened
from datasets.taxonomy import IGNORE_ID, OCC3D_WAYMO

OCC3D_OF_SEGMENT = {
    "undefined": None,
    "car": "vehicle",
    "truck": "vehicle",
    "bus": "vehicle",
    "other_vehicle": "vehicle",
    "motorcyclist": "cyclist",
    "bicyclist": "cyclist",
    "pedestrian": "pedestrian",
    "sign": "sign",
    "traffic_light": "traffic_light",
    "pole": "pole",
    "construction_cone": "construction_cone",
    "bicycle": "bicycle",
    "motorcycle": "motorcycle",
    "building": "building",
    "vegetation": "vegetation",
    "tree_trunk": "tree_trunk",
    "curb": "walkable",
    "road": "road",
    "lane_marker": "road",
    "other_ground": "road",
    "walkable": "walkable",
    "sidewalk": "walkable",
}
"""LiDAR segmentation (``Segmentation.Type`` in its order) to ``OCC3D_WAYMO``.

Occ3D does not say where curb, lane marker and other ground (paint that is no lane marker) went;
here they go with the surface that they are part of.
"""

PANOPTIC_CLASSES = (
    "undefined",
    "ego_vehicle",
    "car",
    "truck",
    "bus",
    "other_large_vehicle",
    "bicycle",
    "motorcycle",
    "trailer",
    "pedestrian",
    "cyclist",
    "motorcyclist",
    "bird",
    "ground_animal",
    "construction_cone_pole",
    "pole",
    "pedestrian_object",
    "sign",
    "traffic_light",
    "building",
    "road",
    "lane_marker",
    "road_marker",
    "sidewalk",
    "vegetation",
    "sky",
    "ground",
    "dynamic",
    "static",
)
"""Camera panoptic labels (``CameraSegmentation.Type`` in its order)."""


def occ3d_of_segments() -> NDArray[np.uint8]:
    """(256,) uint8: ``OCC3D_WAYMO`` id of each ``Segmentation.Type``; ``IGNORE_ID`` elsewhere."""
    table = np.full(256, IGNORE_ID, np.uint8)
    for i, name in enumerate(OCC3D_OF_SEGMENT.values()):
        if name is not None:
            table[i] = OCC3D_WAYMO.id_of(name)
    return table


def decode_panoptic(png: bytes, divisor: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Class and instance of each pixel.

    Args:
        png: 16 bits a pixel, class * divisor + instance.

    Returns:
        (H, W) index into ``PANOPTIC_CLASSES``, and (H, W) instance, 0 where there is none.

    Raises:
        SceneError: no such PNG, a bad divisor, or a class out of range.
    """
    location = "panoptic label"
    if divisor <= 0:
        raise SceneError(where=location, rule=f"the divisor must be positive, got {divisor}")
    try:
        with opened(io.BytesIO(png), formats=("PNG",)) as image:
            if not image.mode.startswith("I"):
                raise SceneError(where=location, rule=f"not 16 bits a pixel: PNG mode {image.mode}")
            values = np.asarray(image).astype(np.int32)
    except (OSError, ValueError) as error:
        raise SceneError(where=location, rule=f"cannot be decoded: {error}") from None
    classes, instances = np.divmod(values, divisor)
    if classes.max() >= len(PANOPTIC_CLASSES):
        raise SceneError(where=location, rule=f"class {classes.max()} is out of range")
    return classes.astype(np.uint8), instances.astype(np.uint16)


def panoptic_counts(classes: NDArray[np.uint8]) -> dict[str, int]:
    """Pixels of each class that occurs."""
    counts = np.bincount(classes.ravel(), minlength=len(PANOPTIC_CLASSES))
    return {PANOPTIC_CLASSES[i]: int(counts[i]) for i in np.flatnonzero(counts)}
