"""How good a store's labels are where a student uses them, class by class.

Legend: K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.labels.store import MaskBit
from datasets.metrics.confusion import ConfusionMatrix
from datasets.taxonomy import Taxonomy

KEPT = MaskBit.TRUSTED | MaskBit.CAMERA_VISIBLE
"""Bits of a voxel that a camera student learns from."""


class StoreQuality:
    """Counts over frames whose truth is known.

    Attributes:
        scored: what the benchmark scores, whether kept or not: truth against label.
        kept: of these, what the store's mask keeps.
        trusted: of what a sensor observed, what the store trusts.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.scored = ConfusionMatrix(taxonomy.n_classes)
        self.kept = ConfusionMatrix(taxonomy.n_classes)
        self.trusted = ConfusionMatrix(taxonomy.n_classes)
        self.kept_voxels = 0

    def update(
        self,
        semantics: NDArray[np.uint8],  # (X, Y, Z)
        mask: NDArray[np.uint8],  # (X, Y, Z) bits
        truth: GroundTruth,
    ) -> None:
        """Add a frame."""
        in_mask = (mask & KEPT) == KEPT
        trusted = ((mask & MaskBit.TRUSTED) > 0) & truth.observed()
        scored = truth.scored()
        self.kept_voxels += int(in_mask.sum())
        self.trusted.update(truth.semantics, semantics, trusted)
        self.scored.update(truth.semantics, semantics, scored)
        self.kept.update(truth.semantics, semantics, scored & in_mask)

    def to_json(self) -> dict[str, Any]:
        """Percentages, None where nothing is counted.

        ``mask keeps``: of the true voxels of a class that are scored, those the mask keeps;
        ``recall``: those it keeps with the right label; ``precision``: of what is kept and scored
        and labelled so, what is right; ``share``: of a class among what is kept, and in the truth.
        """
        counts, scored = self.kept.counts, self.scored.counts
        right = np.diag(counts)
        by_class = {
            name: {
                "mask keeps": _percent(counts[k].sum(), scored[k].sum()),
                "recall": _percent(right[k], scored[k].sum()),
                "precision": _percent(right[k], counts[:, k].sum()),
                "share of kept": _percent(counts[:, k].sum(), counts.sum()),
                "share of truth": _percent(scored[k].sum(), scored.sum()),
            }
            for k, name in enumerate(self.taxonomy.names)
        }
        semantic, free = self.taxonomy.semantic_ids, self.taxonomy.free_id
        trusted, trusted_right = self.trusted.counts.sum(0), np.diag(self.trusted.counts)
        return {
            "trusted occupied voxels that are right": _percent(
                trusted_right.sum() - trusted_right[free], trusted.sum() - trusted[free]
            ),
            "trusted free voxels that are right": _percent(trusted_right[free], trusted[free]),
            "scored voxels that are kept": _percent(counts.sum(), scored.sum()),
            "kept voxels that are scored": _percent(counts.sum(), self.kept_voxels),
            "kept voxels that are right": _percent(right.sum(), counts.sum()),
            "mIoU of all labels": round(100 * self.scored.miou(semantic), 2),
            "mIoU of kept labels": round(100 * self.kept.miou(semantic), 2),
            "by class": by_class,
            "frames": self.kept.frames,
        }


def _percent(part: float, total: float) -> float | None:
    return round(100 * float(part) / float(total), 2) if total else None
