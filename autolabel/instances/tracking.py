"""Objects keep their number from frame to frame of a scene.

Each object is where it would be had it gone on as before; objects of a frame are matched to those
of earlier ones by distance, best overall (the Hungarian method; Kuhn 1955), within a gate. Poses
take the vehicle's own motion out. What was matched to nothing for some frames is given up.

Legend: X, Y, Z axes of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from autolabel.instances.segmentation import Segment, segments
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform
from datasets.taxonomy import Taxonomy

KEEP_S = 1.6
"""An object may go unseen so long: three key-frames of 2 Hz."""
GATE_M, GATE_SHARE = 1.0, 0.5
"""An object may be off by so much, and by so much of its own size."""
MAX_ACCELERATION_M_S2 = 4.0
MAX_SPEED_M_S: dict[str, float] = {"vehicles": 25.0, "people": 8.0}
"""Of an object seen once, whose speed is unknown."""
SIZE_COST = 0.3
"""Metres that an object counts as farther away, for each metre that its size differs."""
FAR_M = 1e6
MAX_INSTANCES = 65_535


@dataclass(slots=True)
class _Track:
    number: int
    group: str
    centre_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64] | None
    extent_m: float
    seen_us: int

    def predicted(self, timestamp_us: int) -> NDArray[np.float64]:
        if self.velocity_m_s is None:
            return self.centre_m
        out: NDArray[np.float64] = self.centre_m + self.velocity_m_s * self._seconds(timestamp_us)
        return out

    def gate_m(self, timestamp_us: int, extent_m: float) -> float:
        """How far from there it may be found, by an object of that size."""
        seconds = self._seconds(timestamp_us)
        size = GATE_M + GATE_SHARE * min(self.extent_m, extent_m)
        if self.velocity_m_s is None:
            return size + MAX_SPEED_M_S.get(self.group, 0.0) * seconds
        return size + 0.5 * MAX_ACCELERATION_M_S2 * seconds**2

    def see(self, segment: Segment, timestamp_us: int) -> None:
        seconds = self._seconds(timestamp_us)
        if seconds > 0:
            self.velocity_m_s = (segment.centre_m - self.centre_m) / seconds
            self.velocity_m_s[2] = 0.0
        self.centre_m, self.extent_m = segment.centre_m, segment.extent_m
        self.seen_us = timestamp_us

    def _seconds(self, timestamp_us: int) -> float:
        return (timestamp_us - self.seen_us) * 1e-6


class Tracker:
    """Numbers the objects of a scene's frames, given in the order of time.

    Args:
        grid, taxonomy: of the labels.
    """

    def __init__(self, grid: VoxelGrid, taxonomy: Taxonomy) -> None:
        self.grid, self.taxonomy = grid, taxonomy
        self._tracks: list[_Track] = []
        self._next = 1

    def update(
        self, semantics: NDArray[np.uint8], T_global_grid: Transform, timestamp_us: int
    ) -> NDArray[np.uint16]:
        """(X, Y, Z) numbers of the objects of the next frame's labels; 0: no object.

        Raises:
            ValueError: the frame is earlier than one before it.
        """
        if any(track.seen_us > timestamp_us for track in self._tracks):
            raise ValueError(f"a frame at {timestamp_us} us comes after a later one")
        self._tracks = [
            track for track in self._tracks if (timestamp_us - track.seen_us) * 1e-6 <= KEEP_S
        ]
        found = segments(semantics, self.grid, T_global_grid, self.taxonomy)
        out = np.zeros(semantics.size, np.uint16)
        for segment, number in zip(found, self._numbers(found, timestamp_us), strict=True):
            out[segment.voxels] = number
        return out.reshape(semantics.shape)

    def _numbers(self, found: Sequence[Segment], timestamp_us: int) -> list[int]:
        known = self._tracks
        cost = np.full((len(found), len(known)), FAR_M)
        for i, segment in enumerate(found):
            for j, track in enumerate(known):
                if track.group != segment.group:
                    continue
                away = segment.centre_m - track.predicted(timestamp_us)
                distance = float(np.hypot(away[0], away[1]))
                if distance <= track.gate_m(timestamp_us, segment.extent_m):
                    cost[i, j] = distance + SIZE_COST * abs(segment.extent_m - track.extent_m)
        matched = {
            int(i): known[j]
            for i, j in zip(*linear_sum_assignment(cost), strict=True)
            if cost[i, j] < FAR_M
        }
        numbers = []
        for i, segment in enumerate(found):
            if (same := matched.get(i)) is None:
                numbers.append(self._start(segment, timestamp_us))
            else:
                same.see(segment, timestamp_us)
                numbers.append(same.number)
        return numbers

    def _start(self, segment: Segment, timestamp_us: int) -> int:
        """A number that no object of the scene has had; 0 where they are used up."""
        if self._next > MAX_INSTANCES:
            return 0
        number, self._next = self._next, self._next + 1
        self._tracks.append(
            _Track(
                number=number,
                group=segment.group,
                centre_m=segment.centre_m,
                velocity_m_s=None,
                extent_m=segment.extent_m,
                seen_us=timestamp_us,
            )
        )
        return number
