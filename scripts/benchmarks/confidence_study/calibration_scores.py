"""What confidence is worth on other scenes: figures, and reliability drawn.

Legend: R rings of distance, K classes, B bins of raw confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from numpy.typing import NDArray

from autolabel.calibration.evaluation import SceneCounts
from autolabel.calibration.fit import fit_calibration
from autolabel.confidence.calibration import BIN_CENTRES
from datasets.metrics.calibration import calibration_error
from datasets.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """What is claimed of voxels, beside what is right: (R, K, B) each."""

    name: str
    claimed: NDArray[np.float64]
    seen: NDArray[np.int64]
    right: NDArray[np.int64]


class CalibrationScore:
    """Of the raw confidence and of the map chosen on the scenes learnt from, on the voxels of the
    tested ones that may be trusted."""

    def __init__(
        self,
        learnt: Sequence[SceneCounts],
        tested: Sequence[SceneCounts],
        min_free_rays: int,
        taxonomy: Taxonomy,
    ) -> None:
        self.taxonomy, self.min_free_rays = taxonomy, min_free_rays
        self.calibration, _ = fit_calibration(learnt, min_free_rays)
        self.seen, self.right = sum_of(tested, min_free_rays)
        levels = np.asarray(self.calibration.levels)[self.calibration.table]
        self.claimed = {
            "raw": np.broadcast_to(BIN_CENTRES, self.seen.shape),
            "calibrated": np.broadcast_to(levels, self.seen.shape),
        }

    def to_json(self) -> dict[str, Any]:
        """By group and class."""
        method = self.calibration.method
        return {
            "map": "none" if method == "softmax" else method,
            "free passes": self.min_free_rays,
            "choices": [
                {"method": c.method, "log loss": round(c.log_loss, 5), "Brier": round(c.brier, 5)}
                for c in self.calibration.method_scores
            ],
            "of": {name: self._row(ids) for name, ids in parts_of(self.taxonomy).items()},
        }

    def curves(self, raw: str) -> list[Curve]:
        """The softmax is drawn unmapped as well; of a meta classifier that is hardly different."""
        drawn = {f"{raw}, calibrated": self.claimed["calibrated"]}
        if raw == "softmax":
            drawn = {raw: self.claimed["raw"]} | drawn
        return [
            Curve(name=name, claimed=p, seen=self.seen, right=self.right)
            for name, p in drawn.items()
        ]

    def _row(self, ids: NDArray[np.bool_]) -> dict[str, Any]:
        n, good = self.seen[:, ids], self.right[:, ids]
        row: dict[str, Any] = {"voxels": int(n.sum())}
        for kind, claimed in self.claimed.items():
            p = claimed[:, ids]
            brier = (good * (1 - p) ** 2 + (n - good) * p**2).sum() / max(1, n.sum())
            row[kind] = {
                "ECE %": round(100 * calibration_error(p, n, good), 2),
                "Brier": round(float(brier), 4),
            }
        return row


def parts_of(taxonomy: Taxonomy) -> dict[str, NDArray[np.bool_]]:
    """(K,) of all classes, of both groups and of each."""
    free = np.arange(taxonomy.n_classes) == taxonomy.free_id
    parts = {"all": free | ~free, "occupied": ~free, "free": free}
    return parts | {name: np.arange(len(free)) == k for k, name in enumerate(taxonomy.names)}


def sum_of(
    scenes: Sequence[SceneCounts], min_free_rays: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(R, K, B) voxels that may be trusted, and right ones."""
    parts = [s.trustable(min_free_rays).by_ring() for s in scenes]
    n_seen, right = (np.sum([p[i] for p in parts], axis=0) for i in (0, 1))
    return n_seen, right


def draw_reliability(
    rows: Mapping[str, Sequence[Curve]], taxonomy: Taxonomy, path: Path, *, least: int = 100
) -> None:
    """A row of panels per way that labels were made; points of at least so many voxels."""
    figure = reporting.new_figure(10, 4.6 * len(rows))
    axes = figure.subplots(len(rows), 2, squeeze=False)
    parts = parts_of(taxonomy)
    inner = np.linspace(0, 1, 11)[1:-1]
    for row, (way, curves) in zip(axes, rows.items(), strict=True):
        for ax, group in zip(row, ("occupied", "free"), strict=True):
            ids = parts[group]
            ax.plot([0, 1], [0, 1], color="0.7", linewidth=1)
            for curve in curves:
                p, n = curve.claimed[:, ids].ravel(), curve.seen[:, ids].ravel()
                bins = np.digitize(p, inner)
                count = np.bincount(bins, n, 10)
                keep = count >= least
                claimed = np.bincount(bins, n * p, 10)[keep] / count[keep]
                right = np.bincount(bins, curve.right[:, ids].ravel(), 10)[keep] / count[keep]
                ax.plot(claimed, right, marker="o", label=curve.name)
            ax.set(title=f"{group} voxels, {way}", xlabel="confidence", ylabel="share right")
            ax.set(xlim=(0, 1), ylim=(0, 1))
            ax.legend(loc="upper left", frameon=False)
    reporting.save_figure(figure, path, dpi=110)
