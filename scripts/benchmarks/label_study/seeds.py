"""What scores over a few seeds allow one to say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

CLEAR = 2.0
"""A difference is clear from so many of its standard errors on."""

Scores = Mapping[int, float]
"""By seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference of means, and its standard error (NaN with a single seed)."""

    value: float
    error: float

    @property
    def clear(self) -> bool:
        """Above zero by more than ``CLEAR`` standard errors; never with a single seed."""
        return self.value > CLEAR * self.error

    def to_json(self) -> dict[str, float | bool | None]:
        return {
            "value": rounded(self.value),
            "standard error": rounded(self.error),
            "clear": self.clear,
        }

    def __str__(self) -> str:
        return f"{self.value:+.2f} +- {self.error:.2f}" if self.error >= 0 else f"{self.value:+.2f}"


def rounded(value: float) -> float | None:
    """To hundredths; None for NaN."""
    return round(value, 2) if math.isfinite(value) else None


def mean(scores: Scores) -> float:
    return statistics.fmean(scores.values()) if scores else math.nan


def spread(scores: Scores) -> float:
    """Standard deviation over the seeds (n - 1); NaN with a single one."""
    return statistics.stdev(scores.values()) if len(scores) > 1 else math.nan


def between(a: Scores, b: Scores) -> Difference:
    """Mean of a minus mean of b, taken as independent."""
    error = math.sqrt(sum(_variance_of_mean(s) for s in (a, b)))
    return Difference(value=mean(a) - mean(b), error=error)


def paired(a: Scores, b: Scores) -> Difference | None:
    """Mean of a minus b over the seeds of both, which share draw and initial weights."""
    differences = {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()}
    if not differences:
        return None
    return Difference(value=mean(differences), error=math.sqrt(_variance_of_mean(differences)))


def _variance_of_mean(scores: Scores) -> float:
    return spread(scores) ** 2 / len(scores) if scores else math.nan
