"""SC IoU and SSC mIoU of OpenOccupancy (arXiv 2303.03991): no mask, noise voxels left out.

The published code starts its sums with the first frame and then adds that frame again. Here every
frame counts once; adding the first one twice gives the published code's figures.
"""

from __future__ import annotations

import numpy as np

from datasets.metrics.confusion import ConfusionMatrix
from datasets.taxonomy import OPENOCCUPANCY


class OpenOccupancyScore(ConfusionMatrix):
    """Class ids of ``OPENOCCUPANCY``; 255 in the truth is noise. Streaming and mergeable."""

    def __init__(self) -> None:
        super().__init__(OPENOCCUPANCY.n_classes)

    @classmethod
    def of(cls, matrix: ConfusionMatrix) -> OpenOccupancyScore:
        """The figures of counts; a class after the last is one that no truth has."""
        out = cls()
        out.counts, out.frames = matrix.counts, matrix.frames
        return out

    def sc_iou(self) -> float:
        """IoU of occupied against free, whatever the class, as a fraction."""
        return float(self.occupancy(OPENOCCUPANCY.free_id).iou()[1])

    def ssc_miou(self) -> float:
        """Plain mean over the 16 classes, as a fraction: NaN as soon as one does not occur."""
        return float(np.mean(self.iou()[list(OPENOCCUPANCY.semantic_ids)]))
