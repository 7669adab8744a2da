"""What a store's header says of its confidence: how it was calibrated, what it was worth, and the
bound on wrong labels that it was made for.

Legend: K classes, R rings of distance, L levels of confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.labels.header import StoreHeader
from datasets.taxonomy import GROUP_LABELS

Test = Literal["t", "exact"]
"""How a risk bound is tested (``autolabel.confidence.risk_control``)."""
VANISHED = 0.01
"""A class of which a smaller share is kept practically vanishes."""


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
    refiner: what refines the labels, in words; empty if nothing does.
    """

    method: str
    voxels: int
    reliability: ReliabilityCounts | None
    refiner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRiskBound:
    """The bound of a group of classes.

    Attributes:
        max_error: share of wrong labels that is allowed.
        threshold: P(label is right) from which on labels are trusted; None where that differs
            between the classes, or none is.
        error: share of wrong ones among those of the calibration scenes; None: none is trusted.
        coverage: share of the voxels that could be trusted which are.
        coverage_by_ring: (R,) the same per ring of distance.
        refused: why no label of the group is trusted; empty: some are.
    """

    max_error: float
    threshold: float | None
    error: float | None
    coverage: float
    coverage_by_ring: tuple[float, ...]
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "max_error": self.max_error,
            "threshold": self.threshold,
            "error": None if self.error is None else round(self.error, 6),
            "coverage": round(self.coverage, 6),
            "coverage_by_ring": [round(c, 6) for c in self.coverage_by_ring],
            **({"refused": self.refused} if self.refused else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], max_error: float) -> GroupRiskBound:
        """Inverse of ``to_json``; ``max_error``: of the whole bound, for what older code wrote."""
        refused = str(data.get("refused", ""))
        threshold, error = data["threshold"], data["error"]
        if error is None and not refused:
            raise ValueError("a group without an error does not say why")
        return cls(
            max_error=float(data.get("max_error", max_error)),
            threshold=None if threshold is None else float(threshold),
            error=None if error is None else float(error),
            coverage=float(data["coverage"]),
            coverage_by_ring=tuple(float(c) for c in data.get("coverage_by_ring", ())),
            refused=refused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBound:
    """So many of the trusted voxels of each group of classes, and of all occupied ones together,
    are wrong at most.

    Attributes:
        max_error: of the occupied voxels together, the largest of their groups'.
        confidence: that it holds, over the draw of the calibration scenes.
        test: how that was tested; scenes: on how many, or on how many frames (``unit``).
        thresholds: (K,) lowest trusted level of each class.
        groups: ``occupied``, then those of ``Taxonomy.class_groups``, ``free`` last.
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
    unit: Literal["scenes", "frames"] = "scenes"

    def to_json(self) -> dict[str, Any]:
        return {
            "max_error": self.max_error,
            "confidence": self.confidence,
            "test": self.test,
            "scenes": self.scenes,
            **({} if self.unit == "scenes" else {"unit": self.unit}),
            "thresholds": list(self.thresholds),
            "groups": {name: group.to_json() for name, group in self.groups.items()},
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
        max_error = float(data["max_error"])
        return cls(
            max_error=max_error,
            confidence=float(data["confidence"]),
            test=data["test"],
            scenes=int(data["scenes"]),
            thresholds=tuple(int(t) for t in data.get("thresholds", ())),
            groups={
                str(name): GroupRiskBound.from_json(group, max_error)
                for name, group in data["groups"].items()
            },
            class_error=errors,
            class_coverage=coverages,
            unit="frames" if data.get("unit") == "frames" else "scenes",
        )

    def vanished(self, names: Sequence[str]) -> list[str]:
        """Classes of which practically nothing is kept, with the share. ``names``: of classes."""
        return [
            f"{name} ({100 * kept:.2g} %)"
            for name, kept in zip(names, self.class_coverage, strict=True)
            if kept is not None and kept < VANISHED
        ]

    def to_text(self, names: Sequence[str]) -> str:
        """Lines to print. ``names``: of the classes."""
        lines = [
            f"error bound, each with {100 * self.confidence:g} % confidence ({self.test} test, "
            f"{self.scenes} {self.unit}):"
        ]
        for name, g in self.groups.items():
            label = GROUP_LABELS.get(name, name)
            if g.error is None:
                lines.append(f"  {label}: no label is trusted: {g.refused}")
                continue
            rings = ", ".join(f"{100 * c:.1f}" for c in g.coverage_by_ring)
            start = "" if g.threshold is None else f", trusted from P {g.threshold:g} on"
            lines.append(
                f"  {label}: at most {100 * g.max_error:g} % wrong: {100 * g.coverage:.1f} % are "
                f"kept (by distance {rings}), {100 * g.error:.2f} % of them wrong in calibration"
                f"{start}"
            )
        for name, error, coverage in zip(names, self.class_error, self.class_coverage, strict=True):
            if coverage is not None:
                wrong = "" if error is None else f", {100 * error:.2f} % of them wrong"
                lines.append(f"    {name:<22} {100 * coverage:5.1f} % kept{wrong}")
        if gone := self.vanished(names):
            lines.append(f"  practically nothing is kept of {', '.join(gone)}")
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
            refiner=_refiner_label(data.get("refiner")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"calibration: {type(error).__name__}: {error}") from error


def _refiner_label(refiner: Mapping[str, Any] | None) -> str:
    """What refines the labels, to print; empty if nothing does."""
    if refiner is None:
        return ""
    if (network := refiner.get("network")) is None:
        return "a pool over the drive"
    return (
        f"a pool over the drive and a network of {int(network['weights']):,} weights, sha256 "
        f"{str(network['sha256'])[:12]}"
    )


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
