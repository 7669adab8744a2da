"""Valid LiDAR returns: the rule of all readers of point files.

A return that is not finite, or that lies at the sensor's own origin (drivers write a pulse that
nothing sent back as 0 0 0), says nothing about the world. Readers leave it out and count it.

Legend: N returns of one sweep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.plausibility import check_ranges

MIN_RANGE_M = 0.1
"""No LiDAR of a vehicle measures what is nearer to its origin than this."""
RANGES_ASKED = 2000
"""Returns of a sweep by which it is told whether they can be metres."""
MAX_NOT_FINITE = 0.05
"""A sweep of which a larger share is not finite is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedReturns:
    """Returns that were read and those of them that were left out.

    Attributes:
        read: in the file.
        not_finite: a coordinate or the intensity is NaN or infinite.
        at_origin: within ``MIN_RANGE_M`` of the sensor.
    """

    read: int = 0
    not_finite: int = 0
    at_origin: int = 0

    @property
    def dropped(self) -> int:
        return self.not_finite + self.at_origin

    def __add__(self, other: DroppedReturns) -> DroppedReturns:
        return DroppedReturns(
            read=self.read + other.read,
            not_finite=self.not_finite + other.not_finite,
            at_origin=self.at_origin + other.at_origin,
        )

    def __str__(self) -> str:
        kinds = (
            (self.at_origin, f"at the sensor's origin (within {MIN_RANGE_M:g} m)"),
            (self.not_finite, "not finite"),
        )
        parts = [f"{n:,} {kind}" for n, kind in kinds if n]
        return f"{' and '.join(parts) or 'none'} of {self.read:,} returns left out"


@dataclass(slots=True)
class ReturnTally:
    """What a reader left out, by sweep; reading a sweep again does not count it twice."""

    _of: dict[tuple[str, str, int], DroppedReturns] = field(default_factory=dict)

    def put(self, sweep: Any, dropped: DroppedReturns) -> None:
        self._of[_key(sweep)] = dropped

    def total(self, sweeps: Iterable[Any]) -> DroppedReturns:
        """Of those of the sweeps that were read."""
        keys = dict.fromkeys(map(_key, sweeps))
        return sum((self._of[k] for k in keys if k in self._of), DroppedReturns())

    def forget(self, sweeps: Iterable[Any]) -> None:
        for key in map(_key, sweeps):
            self._of.pop(key, None)


@runtime_checkable
class CountsReturns(Protocol):
    """A log that says what its reader left out."""

    returns: ReturnTally


def measuring(
    points: NDArray[Any],  # (N, 3 or more) LiDAR frame, metres; further columns: intensity ...
    where: str,
) -> tuple[NDArray[np.bool_], DroppedReturns]:
    """Which returns of a sweep measure something, (N,), and what the others are.

    Args:
        where: the file, for messages.

    Raises:
        SceneError: more than ``MAX_NOT_FINITE`` of the returns are not finite, none is left, or
            they cannot be metres (``datasets.plausibility``).
    """
    n, broken = len(points), 0
    finite = np.ones(n, np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        if not np.isfinite(points.sum(dtype=np.float64)):  # far cheaper than to ask each
            finite = np.isfinite(points).all(axis=1)
            broken = n - int(finite.sum())
    if broken > MAX_NOT_FINITE * n:
        raise SceneError(
            where=where,
            rule=f"{broken:,} of {n:,} points are not finite, the first is point "
            f"{int(np.argmin(finite))}; at most {100 * MAX_NOT_FINITE:g} % may be",
        )
    valid = finite.copy()
    near = np.flatnonzero(finite & (np.abs(points[:, 0]) < MIN_RANGE_M))
    xyz = points[near, :3].astype(np.float64)
    valid[near] = (xyz * xyz).sum(axis=1) >= MIN_RANGE_M**2
    if n and not valid.any():
        raise SceneError(
            where=where,
            rule=f"all of its {n:,} points lie at the sensor's origin or are not finite",
        )
    step = max(1, n // RANGES_ASKED)
    check_ranges(points[::step][valid[::step]], where)
    return valid, DroppedReturns(
        read=n, not_finite=broken, at_origin=int(finite.sum()) - int(valid.sum())
    )


def _key(sweep: Any) -> tuple[str, str, int]:
    return str(sweep.path), sweep.lidar, sweep.timestamp_us
