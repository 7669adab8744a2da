"""Tracks of annotated objects, interpolated between key-frames.

A box moves evenly from one annotated key-frame to the next. Where it would have to be faster than
anything on a road, its track id names two objects, each followed by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.annotations import Box
from datasets.geometry.transforms import Transform

BEYOND_TRACK_US = 600_000
"""A box is thought to move on so long before its first and after its last key-frame."""
MAX_OBJECT_SPEED_M_S = 70.0
JUMP_SLACK_M = 1.0
"""Boxes are drawn by hand: so much is no jump in however short a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackPoint:
    """An object in an annotated key-frame.

    Attributes:
        token: the key-frame; at_us: its time.
        T_global_box: box to global.
    """

    token: str
    at_us: int
    T_global_box: Transform
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Track:
    """One object, in time order."""

    points: Sequence[TrackPoint]

    def at(self, us: int) -> Transform | None:
        """Global pose of the box; None too long before the first or after the last point."""
        times = [p.at_us for p in self.points]
        if not times[0] - BEYOND_TRACK_US <= us <= times[-1] + BEYOND_TRACK_US:
            return None
        if us in times:
            return self.points[times.index(us)].T_global_box
        if len(times) == 1:
            return self.points[0].T_global_box
        i = int(np.clip(np.searchsorted(times, us) - 1, 0, len(times) - 2))
        a, b = self.points[i].T_global_box, self.points[i + 1].T_global_box
        share = (us - times[i]) / (times[i + 1] - times[i])
        turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).as_rotvec()
        T: Transform = a.copy()
        T[:3, :3] = a[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
        T[:3, 3] += share * (b[:3, 3] - a[:3, 3])
        return T


def tracks_of(points: Iterable[TrackPoint]) -> list[Track]:
    """The tracks of a scene, in the order of their first points."""
    by_id: dict[str, list[TrackPoint]] = {}
    for point in points:
        by_id.setdefault(point.box.track, []).append(point)
    return [
        Track(points=part)
        for own in by_id.values()
        for part in _without_jumps(sorted(own, key=lambda p: p.at_us))
    ]


def jumps(a: TrackPoint, b: TrackPoint) -> bool:
    """Whether no object gets from one place to the other in that time."""
    way_m = float(np.linalg.norm(b.T_global_box[:3, 3] - a.T_global_box[:3, 3]))
    return way_m > MAX_OBJECT_SPEED_M_S * (b.at_us - a.at_us) * 1e-6 + JUMP_SLACK_M


def _without_jumps(points: Sequence[TrackPoint]) -> Iterator[list[TrackPoint]]:
    part = [points[0]]
    for a, b in itertools.pairwise(points):
        if jumps(a, b):
            yield part
            part = []
        part.append(b)
    yield part
