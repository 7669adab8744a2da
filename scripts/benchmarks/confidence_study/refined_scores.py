"""How right labels are with a refinement and without, and what they leave behind moving objects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolabel.refinement.temporal_fusion import FrameEvidence, Refinement, Refiner, pool, refine
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply, inverse
from datasets.metrics.confusion import ConfusionMatrix
from datasets.taxonomy import Taxonomy

BOUNDS = ("all, were its occupancy true", "all, were its classes true")
"""What the refined labels would be worth with one of the two put right: with the truth's occupancy
and the likeliest class but free space; and with the truth's class where both are occupied."""


def score_scene(
    scores: dict[str, Scores],
    refiners: dict[str, tuple[Refinement, Refiner]],
    evidence: Sequence[FrameEvidence],
    truths: Sequence[GroundTruth],
    taxonomy: Taxonomy,
    grid: VoxelGrid,
) -> None:
    """Add a scene's frames to the score of each way to refine; ``none`` takes frames as the teacher
    does, those of ``BOUNDS`` come from ``all``."""
    moving = [np.isin(e.semantics, taxonomy.dynamic) for e in truths]
    poses = [s.T_global_grid for s in evidence]
    for k, expected in enumerate(truths):
        was = moved_through(moving, poses, k, grid)
        bounds: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None
        for name, score in scores.items():
            began = time.perf_counter()
            if name in refiners:
                refinement, refiner = refiners[name]
                pooled = pool(evidence, k, grid, taxonomy, refinement)
                logits = refine(pooled, refiner, refinement, grid)
                semantics = logits.argmax(-1)
            elif name in BOUNDS:
                assert bounds is not None  # they come after
                semantics = bounds[BOUNDS.index(name)]
            else:
                semantics = evidence[k].surprisal.argmin(-1)
            score.seconds += time.perf_counter() - began
            if name == "all":
                bounds = _bounds(logits, expected.semantics, taxonomy)
            score.add(semantics.astype(np.uint8), expected, was & ~moving[k])


def _bounds(
    logits: NDArray[np.float32], truth: NDArray[np.uint8], taxonomy: Taxonomy
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    free, labeled = taxonomy.free_id, truth < taxonomy.n_classes
    predicted = logits.argmax(-1)
    kind = np.where(np.arange(logits.shape[-1]) == free, -np.inf, logits).argmax(-1)
    true_occupancy = np.where(truth == free, free, np.where(labeled, kind, predicted))
    occupied = (predicted != free) & (truth != free) & labeled
    return true_occupancy, np.where(occupied, truth, predicted)


class Scores:
    """Of one way to refine."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.visible = ConfusionMatrix(taxonomy.n_classes)
        self.observed = ConfusionMatrix(taxonomy.n_classes)
        self.lidar = ConfusionMatrix(taxonomy.n_classes)
        self.moving = self.trails = 0
        self.seconds = 0.0

    def add(
        self, semantics: NDArray[np.uint8], expected: GroundTruth, was: NDArray[np.bool_]
    ) -> None:
        truth = expected.semantics
        self.visible.update(truth, semantics, expected.scored())
        self.observed.update(truth, semantics, expected.observed())
        if expected.mask_lidar is not None:
            self.lidar.update(truth, semantics, expected.mask_lidar)
        moving = np.isin(semantics, self.taxonomy.dynamic) & expected.observed()
        self.moving += int(moving.sum())
        self.trails += int((moving & was).sum())

    def to_json(self, base: Scores) -> dict[str, Any]:
        moving = self.taxonomy.dynamic
        static = tuple(i for i in self.taxonomy.semantic_ids if i not in moving)
        names = self.taxonomy.names
        out: dict[str, Any] = {}
        for mask in ("visible", "observed", "lidar"):
            matrix, before = getattr(self, mask), getattr(base, mask)
            if not matrix.counts.any():
                continue
            gap = (matrix.miou(static) - before.miou(static)) / (1 - before.miou(static))
            iou = matrix.iou()
            out[mask] = {
                "mIoU": round(100 * matrix.miou(self.taxonomy.semantic_ids), 2),
                "static": round(100 * matrix.miou(static), 2),
                "moving": round(100 * matrix.miou(moving), 2),
                "static gap closed %": round(100 * gap, 1),
                "IoU": {names[i]: round(100 * float(iou[i]), 2) for i in range(len(names))},
            }
        frames = self.visible.frames
        return out | {
            "trails %": round(100 * self.trails / max(1, self.moving), 3),
            "moving voxels a frame": round(self.moving / frames, 1),
            "seconds a frame": round(self.seconds / frames, 3),
            "frames": frames,
        }


def moved_through(
    moving: Sequence[NDArray[np.bool_]],
    poses: Sequence[NDArray[np.float64]],
    k: int,
    grid: VoxelGrid,
) -> NDArray[np.bool_]:
    """(X, Y, Z): a moving class is there in another frame, at the same place of the world."""
    out = np.zeros(grid.shape, bool)
    for j, occupied in enumerate(moving):
        if j == k:
            continue
        cells = np.argwhere(occupied)
        points = apply(inverse(poses[k]) @ poses[j], grid.centers(cells))
        out[tuple(grid.indices(points[grid.contains(points)]).T)] = True
    return out
