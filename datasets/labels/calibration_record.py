"""What a store's header tells of its confidence: the calibration's measurements and the promise.

Legend: K classes, L levels of confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels.store import StoreHeader


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Attributes:
    method: how confidence was learnt.
    voxels: that it was learnt from; 0: the softmax is taken at its word.
    seen, right: (K, L) voxels of scenes left out of the fit, and the right ones; None where that
        was not measured.
    """

    method: str
    voxels: int
    seen: NDArray[np.int64] | None
    right: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRiskBound:
    """Attributes:
    threshold: P(label is right) from which on labels are trusted.
    error, coverage: share of wrong ones among these, and their share of what could be trusted, on
        the calibration scenes.
    """

    threshold: float
    error: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBound:
    """At most ``max_error`` of the trusted voxels are wrong, occupied and free ones each.

    Attributes:
        confidence: that it holds; test: how that was found; scenes: on how many.
        groups: of ``occupied`` and of ``free``.
        class_error, class_coverage: (K,) on the calibration scenes; None where a class is absent.
    """

    max_error: float
    confidence: float
    test: str
    scenes: int
    groups: dict[str, GroupRiskBound]
    class_error: tuple[float | None, ...]
    class_coverage: tuple[float | None, ...]


def stored_calibration(header: StoreHeader) -> Calibration | None:
    """None where the header holds none.

    Raises:
        ValueError: it is not in the form that labelling writes.
    """
    if (data := header.provenance.get("calibration")) is None:
        return None
    shape = (header.taxonomy.n_classes, len(header.levels))
    try:
        seen = right = None
        if measured := data.get("reliability"):
            seen, right = (np.asarray(measured[k], np.int64) for k in ("voxels", "right"))
            if seen.shape != shape or right.shape != shape:
                raise ValueError(f"counts of shape {seen.shape}, not {shape}")
            if (right < 0).any() or (right > seen).any():
                raise ValueError("more voxels are right than there are")
        voxels = sum(int(n) for n in data["counts"])
        method = str(data.get("method", "class")) if voxels else "softmax at its word"
        if voxels and "meta" in data:
            method = "meta classifier" + (f", {method}" if method != "softmax" else "")
        return Calibration(method=method, voxels=voxels, seen=seen, right=right)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"calibration: {type(error).__name__}: {error}") from error


def stored_promise(header: StoreHeader) -> RiskBound | None:
    """None where labels were made without one. Raises ``ValueError`` as ``stored_calibration``."""
    config = header.provenance.get("config")
    data: Any = config.get("promise") if isinstance(config, dict) else None
    if data is None:
        return None
    n = header.taxonomy.n_classes
    try:
        errors, coverages = (
            tuple(None if v is None else float(v) for v in data[key])
            for key in ("class_error", "class_coverage")
        )
        if not len(errors) == len(coverages) == n:
            raise ValueError(f"{len(errors)} classes, not {n}")
        return RiskBound(
            max_error=float(data["max_error"]),
            confidence=float(data["confidence"]),
            test=str(data["test"]),
            scenes=int(data["scenes"]),
            groups={
                str(name): GroupRiskBound(
                    threshold=float(group["threshold"]),
                    error=float(group["error"]),
                    coverage=float(group["coverage"]),
                )
                for name, group in data["groups"].items()
            },
            class_error=errors,
            class_coverage=coverages,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"promise: {type(error).__name__}: {error}") from error
