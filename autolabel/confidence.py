"""From a network's softmax to P(label is right), learnt per predicted class on labelled frames.

Isotonic regression of right against raw confidence (Zadrozny and Elkan, KDD 2002), separately for
every predicted class: a threshold on the result means the same for a car and for free space.
Classes with few samples lean on the map of their group, occupied or free.

Legend: V voxels, K classes, B bins of raw confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from datasets.metrics.calibration import ConfidenceCounts, calibration_error

N_BINS = 256
LOGIT_RANGE = (-4.0, 14.0)
"""Bins are uniform in logit(p), so they are fine near 1, where most voxels are."""

LEVELS = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    *(0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995),
)
"""What a store can express. A confidence is rounded down to one of these."""

PRIOR_SAMPLES = 200.0
"""Weight of the group's map in a class's map. Voxels of a frame are far from independent."""


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)


_EDGES_LOGIT = np.linspace(*LOGIT_RANGE, N_BINS + 1)
_INNER_EDGES = _sigmoid(_EDGES_LOGIT[1:-1]).astype(np.float32)
_LOWER_EDGES = _sigmoid(_EDGES_LOGIT[:-1])
BIN_CENTRES = _sigmoid((_EDGES_LOGIT[:-1] + _EDGES_LOGIT[1:]) / 2)
"""(B,) float64 raw confidence in the middle of each bin."""


def bin_of(raw_confidence: NDArray[Any]) -> NDArray[np.int64]:
    """Bin of each raw confidence, any shape.

    Raises:
        ValueError: a value is not in 0..1 (or NaN).
    """
    p = np.asarray(raw_confidence, np.float32, order="C")
    bins = np.empty(p.shape, np.int64)
    if not _look_up(p.ravel(), _INNER_EDGES, bins.ravel()):
        raise ValueError("raw confidence must lie in 0..1")
    return bins


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _look_up(p: Any, edges: Any, bins: Any) -> bool:
    """``np.searchsorted(edges, p, side="right")`` of N_BINS - 1 edges, a power of two less one,
    without branches: four times as fast. Whether every value is in 0..1."""
    good = True
    for i in range(len(p)):
        value = p[i]
        good &= (value >= 0.0) & (value <= 1.0 + 1e-6)
        low, step = 0, N_BINS >> 1
        while step:
            low += step * (edges[low + step - 1] <= value)
            step >>= 1
        bins[i] = low
    return good


class CalibrationHistogram(ConfidenceCounts):
    """Counts of voxels and of right ones per predicted class and bin. Streaming and mergeable.

    Args:
        n_classes: K, free space included.
        free_id: the class that forms a group of its own; the last one unless told otherwise.
    """

    def __init__(self, n_classes: int, *, free_id: int | None = None) -> None:
        super().__init__(n_classes, N_BINS)
        free_id = n_classes - 1 if free_id is None else free_id
        if not 0 <= free_id < n_classes:
            raise ValueError(f"free id {free_id} is not in 0..{n_classes - 1}")
        self.free_id = free_id

    def update(
        self,
        raw_confidence: NDArray[Any],  # (V,) softmax value of the predicted class
        predicted: NDArray[Any],  # (V,) class ids
        correct: NDArray[np.bool_],  # (V,)
    ) -> None:
        """Add voxels whose truth is known.

        Raises:
            ValueError: shapes differ, a class is unknown, or a confidence is not in 0..1.
        """
        self.count(bin_of(raw_confidence), predicted, correct)

    def merge(self, other: CalibrationHistogram) -> None:
        """Add the counts of another part of the data."""
        if other.seen.shape != self.seen.shape or other.free_id != self.free_id:
            raise ValueError("the histograms are of different class lists")
        self.add(other)

    def fit(self) -> Calibration:
        """The map of every class; with no sample at all, P(right) is taken for one half."""
        table = np.empty(self.seen.shape, np.uint8)
        ids = np.arange(len(self.seen))
        for group in (ids == self.free_id, ids != self.free_id):
            seen, right = self.seen[group].sum(0), self.right[group].sum(0)
            # one voxel of ignorance per bin, so that an empty bin is not taken for a sure one
            pooled = _isotonic((right + 0.5) / (seen + 1.0), seen + 1.0)
            prior = PRIOR_SAMPLES * (seen + 1.0) / (seen + 1.0).sum()
            for k in ids[group]:
                weight = self.seen[k] + prior
                p = _isotonic((self.right[k] + prior * pooled) / weight, weight)
                table[k] = _round_down(p)
        counts = tuple(int(n) for n in self.seen.sum(1))
        return Calibration(levels=LEVELS, table=table, counts=counts)


def _isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(isotonic_regression(values, weights=weights).x, np.float64)


def _round_down(p: NDArray[np.float64]) -> NDArray[np.uint8]:
    # a hair of tolerance: 0.7 computed as 0.6999999 is 0.7
    return (np.searchsorted(LEVELS, p + 1e-9, side="right") - 1).clip(0).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """P(label is right) from raw confidence and predicted class.

    Attributes:
        levels: probabilities, ascending.
        table: (K, B) uint8 index into the levels; never falls along B.
        counts: voxels per predicted class that the maps were learnt from.
        free_passes: LiDAR rays that must pass a voxel predicted free, see ``FreePasses``; 0 if that
            was not measured.

    Raises:
        ValueError: the table does not fit the levels or falls somewhere, or the rays are negative.
    """

    levels: tuple[float, ...]
    table: NDArray[np.uint8]
    counts: tuple[int, ...]
    free_passes: int = 0

    def __post_init__(self) -> None:
        v = np.asarray(self.levels)
        if v.size < 1 or not ((v >= 0) & (v <= 1)).all() or not (v[1:] > v[:-1]).all():
            raise ValueError(f"levels must be ascending values in 0..1: {self.levels}")
        if self.table.dtype != np.uint8 or self.table.shape != (len(self.counts), N_BINS):
            raise ValueError(f"table is {self.table.dtype} {self.table.shape}")
        if self.table.max() >= v.size or (self.table[:, 1:] < self.table[:, :-1]).any():
            raise ValueError("the table must rise along the bins and stay within the levels")
        if self.free_passes < 0:
            raise ValueError(f"a number of rays is not negative: {self.free_passes}")

    @classmethod
    def uncalibrated(cls, n_classes: int) -> Calibration:
        """Takes the softmax at its word (rounded down): for a teacher never measured."""
        row = _round_down(_LOWER_EDGES)
        return cls(levels=LEVELS, table=np.tile(row, (n_classes, 1)), counts=(0,) * n_classes)

    @property
    def is_measured(self) -> bool:
        """Whether it was learnt from data."""
        return any(self.counts)

    def levels_of(self, raw_confidence: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.uint8]:
        """Level index of each voxel; any shape, equal for both.

        Raises:
            ValueError: a confidence is not in 0..1.
        """
        flat = predicted.astype(np.int64) * N_BINS + bin_of(raw_confidence)
        return np.asarray(self.table.ravel()[flat], np.uint8)

    def to_json(self) -> dict[str, Any]:
        """JSON values; of each row only the bins at which the level rises are kept."""
        ranks = np.arange(1, len(self.levels))
        return {
            "bins": {"n": N_BINS, "logit_range": list(LOGIT_RANGE)},
            "levels": list(self.levels),
            "rises": [np.searchsorted(row, ranks).tolist() for row in self.table],
            "counts": list(self.counts),
            "free_passes": self.free_passes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if data["bins"] != {"n": N_BINS, "logit_range": list(LOGIT_RANGE)}:
            raise ValueError(f"other bins of raw confidence: {data['bins']}")
        levels = tuple(float(v) for v in data["levels"])
        rises = np.asarray(data["rises"], np.int64)
        if rises.ndim != 2 or rises.shape[1] != len(levels) - 1:
            raise ValueError(f"need {len(levels) - 1} rises per class")
        bins = np.arange(N_BINS)[None, :, None]
        table = (bins >= rises[:, None, :]).sum(-1).astype(np.uint8)
        return cls(
            levels=levels,
            table=table,
            counts=tuple(int(n) for n in data["counts"]),
            free_passes=int(data.get("free_passes", 0)),
        )

    def summary(self) -> str:
        """One line for people: what it was learnt from, and what the top bin of softmax means."""
        if not self.is_measured:
            return "uncalibrated: the softmax is taken at its word"
        few = sum(n < PRIOR_SAMPLES for n in self.counts)
        top = [self.levels[row[-1]] for row in self.table]
        return (
            f"calibrated on {sum(self.counts):,} voxels; {few} of {len(self.counts)} classes have "
            f"fewer than {PRIOR_SAMPLES:.0f} and lean on their group; "
            f"the surest labels are right with P >= {min(top)} to {max(top)} by class; free from "
            f"{self.free_passes} passing rays on"
        )

    def reliability(self, histogram: CalibrationHistogram) -> Reliability:
        """How far confidence is from the truth on (preferably other) labelled frames."""
        after = np.asarray(self.levels)[self.table]
        before = np.broadcast_to(BIN_CENTRES, after.shape)
        seen, right = histogram.seen, histogram.right
        return Reliability(
            samples=int(seen.sum()),
            ece_before=calibration_error(before, seen, right),
            ece_after=calibration_error(after, seen, right),
            class_ece_before=_class_errors(histogram, before),
            class_ece_after=_class_errors(histogram, after),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Expected calibration error, before and after; 0 is perfect, NaN where there is no sample.

    Voxels are grouped by the confidence they are given; the error is the mean over voxels of
    ``|share right - confidence|`` of their group. ``after`` contains the rounding to levels.

    Attributes:
        class_ece_before, class_ece_after: per predicted class.
    """

    samples: int
    ece_before: float
    ece_after: float
    class_ece_before: tuple[float, ...]
    class_ece_after: tuple[float, ...]


def _class_errors(
    histogram: CalibrationHistogram, confidence: NDArray[np.float64]
) -> tuple[float, ...]:
    rows = zip(confidence, histogram.seen, histogram.right, strict=True)
    return tuple(calibration_error(c, seen, right) for c, seen, right in rows)
