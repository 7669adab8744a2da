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
from datasets.labels.lidar_check import BANDS, LidarReference, band_of, expected_free
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
    all_seen, all_free = sum(seen), sum(free)
    assert isinstance(all_seen, np.ndarray) and isinstance(all_free, np.ndarray)
    errors, excess = [], []
    for scene, own_seen, own_free in zip(asked, seen, free, strict=True):
        assert scene.asked is not None and scene.occupancy is not None
        others = (all_seen - own_seen, all_free - own_free)
        counts = grouping.of(list(scene.asked))
        trusted = grouping.trusted(scene.occupancy.seen)
        wrong = trusted - grouping.trusted(scene.occupancy.right)
        if not (own_seen.any() and trusted.any()):
            continue
        errors.append(
            float(expected_free(own_seen, *others).sum() / own_seen.sum())
            - float(wrong.sum() / trusted.sum())
        )
        claimed = (sum(map(grouping.trusted, scene.asked)) * calibration.free_share).sum()
        excess.append(float((expected_free(counts, *others).sum() - claimed) / counts.sum()))
    return LidarReference(
        seen=all_seen, free=all_free, errors=np.array(errors), excess=np.array(excess)
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

    def trusted(self, part: Counts) -> Counts:
        """(K, L)."""
        return np.asarray(self.calibration.by_level(part).sum(0) * self.kept)
