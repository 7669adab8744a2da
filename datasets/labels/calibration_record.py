"""What a store's header says of its confidence: how it was calibrated, what it was worth, and the
bound on wrong labels that it was made for.

Legend: K classes, R rings of distance, L levels of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.labels.header import StoreHeader

Test = Literal["t", "exact"]
"""How a risk bound is tested (``autolabel.confidence.risk_control``)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReliabilityCounts:
    """Voxels of scenes left out of a calibration's fit, (K, L) int64, and the right ones.

    Raises:
        ValueError: the shapes differ, or more voxels are right than there are.
    """

    seen: NDArray[np.int64]
    right: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.seen.shape != self.right.shape:
            raise ValueError(f"counts of shape {self.right.shape}, not {self.seen.shape}")
        if (self.right < 0).any() or (self.right > self.seen).any():
            raise ValueError("more voxels are right than there are")

    def to_json(self) -> dict[str, Any]:
        return {"voxels": self.seen.tolist(), "right": self.right.tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ReliabilityCounts:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        seen, right = (np.asarray(data[key], np.int64) for key in ("voxels", "right"))
        return cls(seen=seen, right=right)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """Attributes:
    method: how confidence was learned, see ``method_label``.
    voxels: that it was learned from; 0: the softmax is taken at its word.
    reliability: None where that was not measured.
    """

    method: str
    voxels: int
    reliability: ReliabilityCounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRiskBound:
    """The bound of occupied or of free voxels.

    Attributes:
        threshold: P(label is right) from which on labels are trusted.
        error: share of wrong ones among those of the calibration scenes.
        coverage: share of the voxels that could be trusted which are.
        coverage_by_ring: (R,) the same per ring of distance.
    """

    threshold: float
    error: float
    coverage: float
    coverage_by_ring: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBound:
    """At most ``max_error`` of the trusted voxels are wrong, occupied and free ones each.

    Attributes:
        confidence: that it holds, over the draw of the calibration scenes.
        test: how that was tested; scenes: on how many.
        thresholds: (K,) lowest trusted level of each class.
        groups: of ``occupied`` and of ``free``.
        class_error, class_coverage: (K,) on the calibration scenes; None where a class is absent.
    """

    max_error: float
    confidence: float
    test: Test
    scenes: int
    thresholds: tuple[int, ...]
    groups: dict[str, GroupRiskBound]
    class_error: tuple[float | None, ...]
    class_coverage: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "max_error": self.max_error,
            "confidence": self.confidence,
            "test": self.test,
            "scenes": self.scenes,
            "thresholds": list(self.thresholds),
            "groups": {
                name: {
                    "threshold": g.threshold,
                    "error": round(g.error, 6),
                    "coverage": round(g.coverage, 6),
                    "coverage_by_ring": [round(c, 6) for c in g.coverage_by_ring],
                }
                for name, g in self.groups.items()
            },
            "class_error": [None if e is None else round(e, 6) for e in self.class_error],
            "class_coverage": [None if c is None else round(c, 6) for c in self.class_coverage],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RiskBound:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if data["test"] not in get_args(Test):
            raise ValueError(f"unknown test {data['test']!r:.40}")
        errors, coverages = (
            tuple(None if v is None else float(v) for v in data[key])
            for key in ("class_error", "class_coverage")
        )
        return cls(
            max_error=float(data["max_error"]),
            confidence=float(data["confidence"]),
            test=data["test"],
            scenes=int(data["scenes"]),
            thresholds=tuple(int(t) for t in data.get("thresholds", ())),
            groups={
                str(name): GroupRiskBound(
                    threshold=float(g["threshold"]),
                    error=float(g["error"]),
                    coverage=float(g["coverage"]),
                    coverage_by_ring=tuple(float(c) for c in g.get("coverage_by_ring", ())),
                )
                for name, g in data["groups"].items()
            },
            class_error=errors,
            class_coverage=coverages,
        )

    def to_text(self, names: Sequence[str]) -> str:
        """Lines to print. ``names``: of the classes."""
        lines = [
            f"error bound: at most {100 * self.max_error:g} % of the trusted occupied and of the "
            f"trusted free voxels are wrong, each with {100 * self.confidence:g} % confidence "
            f"({self.test} test, {self.scenes} scenes)"
        ]
        for name, g in self.groups.items():
            rings = ", ".join(f"{100 * c:.1f}" for c in g.coverage_by_ring)
            lines.append(
                f"  {name}: trusted from P {g.threshold:g} on: {100 * g.coverage:.1f} % are kept "
                f"(by distance {rings}), {100 * g.error:.2f} % of them wrong in calibration"
            )
        for name, error, coverage in zip(names, self.class_error, self.class_coverage, strict=True):
            if coverage is not None:
                wrong = "" if error is None else f", {100 * error:.2f} % of them wrong"
                lines.append(f"    {name:<22} {100 * coverage:5.1f} % kept{wrong}")
        return "\n".join(lines)


def method_label(method: str, *, meta: bool) -> str:
    """How confidence is made, to print: by a meta classifier, and by the map of what it gives."""
    if not meta:
        return method
    return "meta classifier" if method == "softmax" else f"meta classifier, {method}"


def stored_calibration(header: StoreHeader) -> CalibrationRecord | None:
    """None where the header holds none.

    Raises:
        ValueError: it is not in the form that labeling writes.
    """
    if (data := header.provenance.get("calibration")) is None:
        return None
    shape = (header.taxonomy.n_classes, len(header.levels))
    try:
        reliability = None
        if measured := data.get("reliability"):
            reliability = ReliabilityCounts.from_json(measured)
            if reliability.seen.shape != shape:
                raise ValueError(f"counts of shape {reliability.seen.shape}, not {shape}")
        voxels = sum(int(n) for n in data["counts"])
        method = method_label(str(data.get("method", "class")), meta="meta" in data)
        return CalibrationRecord(
            method=method if voxels else "softmax at its word",
            voxels=voxels,
            reliability=reliability,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"calibration: {type(error).__name__}: {error}") from error


def stored_risk_bound(header: StoreHeader) -> RiskBound | None:
    """None where labels were made without one. Raises ``ValueError`` as ``stored_calibration``."""
    config = header.provenance.get("config")
    data: Any = config.get("promise") if isinstance(config, dict) else None
    if data is None:
        return None
    try:
        bound = RiskBound.from_json(data)
        K = header.taxonomy.n_classes
        if not len(bound.class_error) == len(bound.class_coverage) == K:
            raise ValueError(f"{len(bound.class_error)} classes, not {K}")
        return bound
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"promise: {type(error).__name__}: {error}") from error
