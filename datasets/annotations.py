"""Annotations of a log: boxes with tracks, and classes of LiDAR points."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.frames import Frame, SceneSource
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """An object in one frame.

    Attributes:
        track: the same in every frame of the scene that shows the object.
        class_id: of the source's taxonomy.
        T_ego_box: box to ego at the LiDAR key-frame; the origin is the box's centre, X its front.
        size_m: length (along X), width (along Y), height (along Z).

    Raises:
        SceneError: the size is not positive and finite, or the pose is not finite.
    """

    track: str
    class_id: int
    T_ego_box: Transform
    size_m: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.size_m).all() and min(self.size_m) > 0):
            raise SceneError(where=f"box {self.track}", rule=f"bad size {self.size_m} m")
        if self.T_ego_box.shape != (4, 4) or not np.isfinite(self.T_ego_box).all():
            raise SceneError(where=f"box {self.track}", rule="the pose must be a finite 4x4 matrix")

    def contains(
        self, points_ego: NDArray[np.floating[Any]], *, margin_m: float = 0.0
    ) -> NDArray[np.bool_]:
        """Which points (N, 3) lie in the box, grown by a margin on every side."""
        local = apply(inverse(self.T_ego_box), points_ego[:, :3])
        inside: NDArray[np.bool_] = (np.abs(local) <= np.asarray(self.size_m) / 2 + margin_m).all(
            axis=1
        )
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """Of one key-frame.

    Attributes:
        boxes: every marked object.
        point_classes: (N,) uint8, one per point of the key sweep in the order of
            ``SceneSource.read_points``, 255 where nobody said; None: points are not marked.
        companion_classes: the same of each of ``Frame.companions``; empty: none is marked.
        annotated: somebody looked for objects here. A frame that nobody annotated is not one
            without objects.

    Raises:
        SceneError: two boxes have one track, or there are boxes though nobody annotated.
    """

    boxes: tuple[Box, ...]
    point_classes: NDArray[np.uint8] | None = None
    companion_classes: tuple[NDArray[np.uint8] | None, ...] = ()
    annotated: bool = True

    def __post_init__(self) -> None:
        counts = Counter(box.track for box in self.boxes)
        if twins := [track for track, n in counts.items() if n > 1]:
            raise SceneError(
                where=f"track {twins[0]}",
                rule=f"{counts[twins[0]]} boxes of the frame have this track; a track is one "
                "object, so give every object an id of its own",
            )
        if self.boxes and not self.annotated:
            raise SceneError(where="annotations", rule="boxes in a frame that nobody annotated")


def annotated_frames(tracks: Sequence[Collection[str]]) -> list[bool]:
    """Which frames of a scene somebody annotated, for logs that do not say.

    Those with objects. One without any is taken for looked at, unless the nearest frames with
    objects before and after it share a track: an object does not vanish and come back.

    Args:
        tracks: of each frame in time order.
    """
    annotated = [bool(own) for own in tracks]
    with_objects = [k for k, own in enumerate(tracks) if own]
    if not with_objects:
        return annotated
    for k in range(len(tracks)):
        if not tracks[k]:
            i = bisect.bisect_left(with_objects, k)
            if 0 < i < len(with_objects):
                before, after = tracks[with_objects[i - 1]], tracks[with_objects[i]]
                annotated[k] = not set(before) & set(after)
            else:
                annotated[k] = True
    return annotated


class AnnotatedSource(SceneSource, Protocol):
    """A log with annotations.

    Attributes:
        taxonomy: what the class ids mean.
    """

    taxonomy: Taxonomy

    def annotations(self, frame: Frame) -> Annotations:
        """What is marked in a key-frame.

        Raises:
            SceneError: a row or file is damaged, or does not fit its point file.
        """
        ...
