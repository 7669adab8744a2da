"""Calibration of confidences: reliability, calibration error and risk-coverage curves.

Confidence falls into few values: the levels of a label store, or bins of a softmax. Counting voxels
and right ones per value is all that is needed, so frames stream and parts merge.

Legend: K classes, B values of confidence, V voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from datasets.metrics.confusion import RangeBins
from datasets.taxonomy import Taxonomy

Counts = NDArray[np.int64]


class ConfidenceCounts:
    """Voxels and right ones per predicted class and bin of confidence.

    Attributes:
        seen, right: (K, B) int64.
    """

    def __init__(self, n_classes: int, n_bins: int) -> None:
        self.seen: Counts = np.zeros((n_classes, n_bins), np.int64)
        self.right: Counts = np.zeros((n_classes, n_bins), np.int64)

    def count(
        self,
        bins: NDArray[Any],  # (V,) 0..B-1
        predicted: NDArray[Any],  # (V,) class ids
        correct: NDArray[np.bool_],  # (V,)
    ) -> None:
        """Add voxels whose truth is known; any shape, equal for all.

        Raises:
            ValueError: shapes differ, or a class or bin is unknown.
        """
        if not bins.shape == predicted.shape == correct.shape:
            raise ValueError(f"shapes differ: {bins.shape}, {predicted.shape}, {correct.shape}")
        K, B = self.seen.shape
        for name, ids, n in (("predicted class", predicted, K), ("bin", bins, B)):
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < n:
                raise ValueError(f"a {name} is not in 0..{n - 1}")
        flat = predicted.astype(np.int64) * B + bins
        self.seen += np.bincount(flat.ravel(), minlength=K * B).reshape(K, B)
        self.right += np.bincount(flat[correct], minlength=K * B).reshape(K, B)

    def add(self, other: ConfidenceCounts) -> None:
        """Add the counts of another part of the data. Raises ``ValueError``: other shapes."""
        if other.seen.shape != self.seen.shape:
            raise ValueError(f"counts of shape {other.seen.shape}, not {self.seen.shape}")
        self.seen += other.seen
        self.right += other.right


def calibration_error(
    confidence: NDArray[np.float64],  # any shape, equal for all three
    seen: Counts,
    right: Counts,
) -> float:
    """Plain expected calibration error, 0..1 (no debiasing); NaN without a voxel.

    Voxels are grouped by the confidence they are given; the error is the mean over voxels of
    ``|share right - confidence|`` of their group.
    """
    n = seen.sum()
    if n == 0:
        return float("nan")
    values, group = np.unique(confidence, return_inverse=True)
    in_group = np.bincount(group.reshape(-1), weights=seen.ravel())
    right_in_group = np.bincount(group.reshape(-1), weights=right.ravel())
    return float(np.abs(right_in_group - in_group * values).sum() / n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskCoverage:
    """Error rate among the surest voxels, as more and more of them are taken.

    Attributes:
        confidence: (B,) descending: take the voxels with at least this one.
        coverage: (B,) share of all voxels that are taken.
        risk: (B,) share of wrong ones among them; NaN while none is taken.
        area: the area under the risk (AURC): its mean over taking 1, 2, ... all voxels, where
            voxels of equal confidence come in random order (the exact expectation).
    """

    confidence: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    area: float


def risk_coverage(confidence: NDArray[np.float64], seen: Counts, right: Counts) -> RiskCoverage:
    """From (B,) counts per value of confidence, in any order; NaN without a voxel."""
    order = np.argsort(-confidence, kind="stable")
    n, wrong = seen[order].astype(np.float64), (seen - right)[order].astype(np.float64)
    covered, errors = n.cumsum(), wrong.cumsum()
    total = covered[-1]
    risk = np.divide(errors, covered, out=np.full(len(n), np.nan), where=covered > 0)
    coverage = covered / total if total else np.full(len(n), np.nan)
    # within a group of n voxels and error rate e after n0 voxels with E0 errors, the expected risk
    # of the first i voxels is (E0 + (i - n0) e) / i; digamma sums 1 / i
    filled = n > 0
    n0, E0, e = (covered - n)[filled], (errors - wrong)[filled], wrong[filled] / n[filled]
    harmonic = digamma(covered[filled] + 1) - digamma(n0 + 1)
    area = (
        float(((E0 - n0 * e) * harmonic + e * n[filled]).sum() / total) if total else float("nan")
    )
    return RiskCoverage(confidence=confidence[order], coverage=coverage, risk=risk, area=area)


class ConfidenceScore:
    """Confidence against truth, per class and per ring. Streaming and mergeable.

    Attributes:
        confidence: (B,) P(label is right) that each bin claims.
        counts: one per ring of ``bins``.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        confidence: NDArray[np.float64] | tuple[float, ...],
        bins: RangeBins | None = None,
    ) -> None:
        """Raises ``ValueError`` for a confidence outside 0..1."""
        self.taxonomy, self.bins = taxonomy, bins or RangeBins()
        self.confidence: NDArray[np.float64] = np.asarray(confidence, np.float64)
        if self.confidence.ndim != 1 or not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            raise ValueError(f"confidences must be a row of values in 0..1: {confidence}")
        size = (taxonomy.n_classes, len(self.confidence))
        self.counts = tuple(ConfidenceCounts(*size) for _ in self.bins.names)
        self.frames = 0

    def update(
        self,
        level: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        truth: NDArray[np.uint8],
        ring: NDArray[np.uint8],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one frame.

        Args:
            level: bin of confidence of every voxel; predicted, truth: class ids; ring: as
                ``RangeBins.of`` gives it. Equal shapes. Truth outside the classes is ignored.
            mask: count only these voxels.

        Raises:
            ValueError: shapes differ, or a counted class or level is unknown.
        """
        shapes = {a.shape for a in (level, predicted, truth, ring)}
        if len(shapes) > 1 or (mask is not None and mask.shape != truth.shape):
            raise ValueError(f"shapes differ: {shapes}")
        keep = truth < self.taxonomy.n_classes
        if mask is not None:
            keep = keep & mask
        level, predicted, truth, ring = (a[keep] for a in (level, predicted, truth, ring))
        for k, counts in enumerate(self.counts):
            in_ring = ring == k
            counts.count(level[in_ring], predicted[in_ring], (predicted == truth)[in_ring])
        self.frames += 1

    def merge(self, other: ConfidenceScore) -> None:
        """Add the counts of another part of the set."""
        comparable = other.bins == self.bins and np.array_equal(other.confidence, self.confidence)
        if not comparable or other.taxonomy != self.taxonomy:
            raise ValueError("the counts are of other classes, rings or confidences")
        for own, added in zip(self.counts, other.counts, strict=True):
            own.add(added)
        self.frames += other.frames

    def total(self) -> ConfidenceCounts:
        """All rings together."""
        out = ConfidenceCounts(*self.counts[0].seen.shape)
        for counts in self.counts:
            out.add(counts)
        return out

    def ece(self, counts: ConfidenceCounts | None = None) -> float:
        """Plain calibration error over all classes, of one ring or of all of them."""
        counts = counts or self.total()
        return calibration_error(self.confidence, counts.seen.sum(0), counts.right.sum(0))

    def class_ece(self) -> NDArray[np.float64]:
        """(K,) plain calibration error of the voxels predicted as each class; NaN for none."""
        counts = self.total()
        pairs = zip(counts.seen, counts.right, strict=True)
        return np.array([calibration_error(self.confidence, n, r) for n, r in pairs])

    def risk_coverage(self) -> RiskCoverage:
        """Over all classes and rings."""
        counts = self.total()
        return risk_coverage(self.confidence, counts.seen.sum(0), counts.right.sum(0))

    def brier(self) -> float:
        """Mean of (confidence - right)^2, right being 0 or 1; NaN without a voxel."""
        counts = self.total()
        voxels, right = counts.seen.sum(0), counts.right.sum(0)
        c = self.confidence
        total = (right * (1 - c) ** 2 + (voxels - right) * c**2).sum()
        return float(total / voxels.sum()) if voxels.sum() else float("nan")

    def to_json(self) -> dict[str, object]:
        """Fractions; what has no voxel is null or left out."""
        counts, curve = self.total(), self.risk_coverage()
        class_ece = self.class_ece()
        bins = np.flatnonzero(curve.coverage > 0)
        return {
            "ECE (plain)": _rounded(self.ece()),
            "Brier": _rounded(self.brier()),
            "AURC": _rounded(curve.area),
            "reliability": self._curve(counts.seen.sum(0), counts.right.sum(0)),
            "risk-coverage": [
                {
                    "confidence at least": _rounded(curve.confidence[b]),
                    "coverage": _rounded(curve.coverage[b]),
                    "risk": _rounded(curve.risk[b]),
                }
                for b in bins
            ],
            "per predicted class": {
                name: {
                    "ECE (plain)": _rounded(class_ece[i]),
                    "reliability": self._curve(counts.seen[i], counts.right[i]),
                }
                for i, name in enumerate(self.taxonomy.names)
            },
            "by range": {
                ring: {
                    "ECE (plain)": _rounded(self.ece(of_ring)),
                    "reliability": self._curve(of_ring.seen.sum(0), of_ring.right.sum(0)),
                }
                for ring, of_ring in zip(self.bins.names, self.counts, strict=True)
            },
            "voxels": int(counts.seen.sum()),
            "frames": self.frames,
        }

    def _curve(self, voxels: Counts, right: Counts) -> list[dict[str, float | int | None]]:
        return [
            {
                "confidence": _rounded(self.confidence[b]),
                "right": _rounded(right[b] / voxels[b]),
                "voxels": int(voxels[b]),
            }
            for b in np.flatnonzero(voxels)
        ]


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
