"""How well a store's objects are those of an annotated log."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import AnnotatedSource
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.frames import Frame
from datasets.ground_truth.box_instances import box_instances
from datasets.metrics.panoptic import PanopticQuality

MIN_VOXELS = 4


class ObjectScores:
    """Panoptic quality and identity of the objects of classes that can move, where they are scored.

    True objects are the annotated boxes' voxels of the ground truth. Those of fewer than
    ``MIN_VOXELS`` scored voxels are left out.

    Args:
        source: the labeled log, whose boxes have tracks.
    """

    def __init__(self, source: AnnotatedSource, dynamic: tuple[int, ...]) -> None:
        self.source = source
        self.quality = PanopticQuality(dynamic, min_voxels=MIN_VOXELS)
        self.frames = 0
        self._scene_id = ""
        self._numbers: dict[str, int] = {}

    def update(
        self,
        frame: Frame,
        labels: tuple[NDArray[np.uint8], NDArray[np.uint16]],
        truth: GroundTruth,
        scored: NDArray[np.bool_],
    ) -> None:
        """Add a frame; those of a scene in the order of time. Nothing happens where nobody
        annotated.

        Args:
            labels: (X, Y, Z) class ids and numbers of objects.
            scored: (X, Y, Z) voxels that count.

        Raises:
            SceneError: annotations are bad.
        """
        annotations = self.source.annotations(frame)
        if not annotations.annotated:
            return
        if frame.scene_id != self._scene_id:
            self._scene_id, self._numbers = frame.scene_id, {}
        true_ids = box_instances(
            truth.semantics, annotations.boxes, self._numbers, truth.grid, truth.taxonomy
        )
        self.quality.update(frame.scene_id, (truth.semantics, true_ids), labels, scored)
        self.frames += 1

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Figures, in percent."""
        identity = self.quality.identity()
        return {
            "frames": self.frames,
            "PQ": _percent(self.quality.pq()),
            "PQ, SQ, RQ by class": {
                names[k]: [_percent(v) for v in values]
                for k, values in self.quality.quality().items()
            },
            "tracks": identity.tracks,
            "tracks with one number": identity.whole,
            "matches that follow each other": identity.links,
            "of these with another number": identity.switches,
        }

    def to_text(self) -> str:
        """Two lines for people."""
        identity = self.quality.identity()
        if not self.quality.quality():
            return "objects: there are none that are scored"
        return (
            f"PQ[objects that can move] = {100 * self.quality.pq():.2f} ({self.frames} frames)\n"
            f"objects matched in two frames or more: {identity.tracks}, of which {identity.whole} "
            "keep one number"
        )


def _percent(share: float) -> float | None:
    return round(100 * share, 2) if np.isfinite(share) else None
