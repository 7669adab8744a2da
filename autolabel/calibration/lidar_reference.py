"""What held-out sweeps say of labels whose truth is known, for the check of other logs.

Legend: R rings of distance, K classes, L levels of confidence, G groups of classes, B bands, E what
the sweeps say, S scenes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.calibration.evaluation import SceneCounts
from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.lidar_check import group_of
from datasets.labels.lidar_check import (
    BANDS,
    LidarReference,
    band_of,
    expected_free,
    known_share,
)
from datasets.taxonomy import Taxonomy

Counts = NDArray[np.int64]


def lidar_reference(
    scenes: Sequence[SceneCounts], calibration: Calibration, taxonomy: Taxonomy
) -> LidarReference | None:
    """Of labels that are trusted by default; None where held-out sweeps were asked nowhere.

    How far an estimate lies off is measured on each scene with what the others give.
    """
    grouping = _Grouping(calibration, taxonomy)
    asked = [scene for scene in scenes if scene.asked is not None and scene.asked.any()]
    if not asked:
        return None
    seen = [grouping.of([histogram.seen for histogram in scene.said]) for scene in asked]
    right = [grouping.of([histogram.right for histogram in scene.said]) for scene in asked]
    free = [s - r for s, r in zip(seen, right, strict=True)]
    counts = [grouping.of(list(scene.asked)) for scene in asked if scene.asked is not None]
    totals = [np.sum(parts, axis=0) for parts in (seen, free, counts)]
    errors, excess = [], []
    for scene, *own in zip(asked, seen, free, counts, strict=True):
        assert scene.asked is not None and scene.occupancy is not None
        others = [total - part for total, part in zip(totals, own, strict=True)]
        known = known_share(others[0], others[2])
        trusted = grouping.trusted(scene.occupancy.seen)
        wrong = trusted - grouping.trusted(scene.occupancy.right)
        if not (own[0].any() and trusted.any()):
            continue
        voxels = own[2] * known
        estimated = float(expected_free(voxels, others[0], others[1]).sum() / voxels.sum())
        claimed = float((grouping.claimed(list(scene.asked)) * known).sum() / voxels.sum())
        errors.append(estimated - float(wrong.sum() / trusted.sum()))
        excess.append(estimated - claimed)
    return LidarReference(
        seen=totals[0],
        free=totals[1],
        asked=totals[2],
        errors=np.array(errors),
        excess=np.array(excess),
    )


class _Grouping:
    """Counts of occupied labels that would be trusted, by group, ring and band."""

    def __init__(self, calibration: Calibration, taxonomy: Taxonomy) -> None:
        self.calibration = calibration
        groups = group_of(taxonomy)
        self.in_group = groups == np.arange(groups.max())[:, None]  # (G, K), free left out
        bands = band_of(calibration.levels)
        trusted = np.asarray(calibration.levels) >= LabelingConfig().min_confidence
        self.in_band = (bands == np.arange(len(BANDS) + 1)[:, None]) & trusted  # (B, L)
        self.kept = trusted & (np.arange(taxonomy.n_classes) != taxonomy.free_id)[:, None]  # (K, L)

    def of(self, parts: Sequence[Counts]) -> Counts:
        """(G, R, B, E) of counts (R * K, bins), one for each of E."""
        by_level = np.stack([self.calibration.by_level(part) for part in parts])
        shares = (self.in_group.astype(np.int64), self.in_band.astype(np.int64))
        return np.asarray(np.einsum("erkl,gk,bl->grbe", by_level, *shares))

    def claimed(self, parts: Sequence[Counts]) -> NDArray[np.float64]:
        """(G, R, B, E) of these how many are free, by their confidence."""
        by_level = np.stack([self.calibration.by_level(part) for part in parts])
        free = by_level * self.calibration.free_share
        shares = (self.in_group.astype(np.float64), self.in_band.astype(np.float64))
        return np.asarray(np.einsum("erkl,gk,bl->grbe", free, *shares))

    def trusted(self, part: Counts) -> Counts:
        """(K, L)."""
        return np.asarray(self.calibration.by_level(part).sum(0) * self.kept)
