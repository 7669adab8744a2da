"""mIoU from one confusion matrix over a whole set (the Occ3D protocol, spec of its challenge).

``IoU_c = H_cc / (row_c + col_c - H_cc)`` over all voxels of all frames; mIoU is the mean over the
semantic classes that occur in truth or prediction. It is a figure of the set, not a mean of
frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.taxonomy import Taxonomy


class ConfusionMatrix:
    """Counts [truth, prediction] of voxels. Streaming and mergeable."""

    def __init__(self, n_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((n_classes, n_classes), np.int64)
        self.frames = 0

    def update(
        self,
        truth: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one frame.

        Args:
            truth, prediction: class ids of equal shape. Truth outside the classes is ignored.
            mask: count only these voxels.

        Raises:
            ValueError: shapes differ, or a counted prediction is no class.
        """
        if truth.shape != prediction.shape or (mask is not None and mask.shape != truth.shape):
            raise ValueError(f"shapes differ: {truth.shape}, {prediction.shape}")
        n = len(self.counts)
        keep = truth < n if mask is None else mask & (truth < n)
        t, p = truth[keep].astype(np.int64), prediction[keep].astype(np.int64)
        if p.size and p.max() >= n:
            raise ValueError(f"prediction {int(p.max())} is not in 0..{n - 1}")
        self.counts += np.bincount(t * n + p, minlength=n * n).reshape(n, n)
        self.frames += 1

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another part of the set."""
        if other.counts.shape != self.counts.shape:
            raise ValueError(f"classes differ: {len(other.counts)} and {len(self.counts)}")
        self.counts += other.counts
        self.frames += other.frames

    def iou(self) -> NDArray[np.float64]:
        """(K,) IoU per class as a fraction; NaN for a class in neither truth nor prediction."""
        hit = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)

    def miou(self, class_ids: tuple[int, ...]) -> float:
        """Mean IoU of the classes that occur, as a fraction; NaN if none does."""
        iou = self.iou()[list(class_ids)]
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """Scores of one model or store under named masks, ready to print or write.

    Attributes:
        matrices: one confusion matrix per mask name.
    """

    taxonomy: Taxonomy
    matrices: dict[str, ConfusionMatrix]

    def to_json(self) -> dict[str, object]:
        """Percentages; a class that does not occur is null."""
        out: dict[str, object] = {}
        for mask, matrix in self.matrices.items():
            iou = matrix.iou()
            out[f"mIoU[{mask}]"] = _percent(matrix.miou(self.taxonomy.semantic_ids))
            out[f"IoU[{mask}]"] = {
                name: _percent(iou[i]) for i, name in enumerate(self.taxonomy.names)
            }
            out[f"voxels[{mask}]"] = int(matrix.counts.sum())
            out["frames"] = matrix.frames
        return out

    def __str__(self) -> str:
        masks = list(self.matrices)
        iou = {m: self.matrices[m].iou() for m in masks}
        width = max(len(n) for n in self.taxonomy.names) + 2
        lines = [" " * width + "".join(f"{f'IoU[{m}]':>22}" for m in masks)]
        for i, name in enumerate(self.taxonomy.names):
            lines.append(f"{name:<{width}}" + "".join(f"{_text(iou[m][i]):>22}" for m in masks))
        ids = self.taxonomy.semantic_ids
        total = [f"{_text(self.matrices[m].miou(ids)):>22}" for m in masks]
        lines.append(f"{'mIoU':<{width}}" + "".join(total))
        frames = next(iter(self.matrices.values())).frames
        lines.append(
            f"{frames} frames; mean over {len(ids)} semantic classes, those absent from truth "
            "and prediction left out"
        )
        return "\n".join(lines)


def _percent(value: float) -> float | None:
    return round(100 * float(value), 2) if np.isfinite(value) else None


def _text(value: float) -> str:
    return f"{100 * value:.2f}" if np.isfinite(value) else "absent"
