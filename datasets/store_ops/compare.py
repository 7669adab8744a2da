"""Two stores of the same frames, voxel by voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.catalogue import voxels_in_words
from datasets.errors import SetupError
from datasets.geometry.transforms import Transform
from datasets.labels.log_identity import pose_distance
from datasets.labels.store import LabelStore, MaskBit
from datasets.metrics.confusion import RangeBins
from datasets.taxonomy import Taxonomy

RINGS = RangeBins(edges_m=(20.0, 40.0))
"""Of a store's comparison."""
SAME_PLACE_M, SAME_PLACE_RAD = 1e-3, 1e-4


@dataclass(slots=True, kw_only=True)
class StoreDifference:
    """Labels of the same frames in two stores.

    Attributes:
        only_a, only_b: scenes that the other one lacks.
        frames: compared.
        confusion: (R, K, K) voxels by ring, class in a and class in b, of those that a sensor
            observed according to either.
        trusted: (2, 2) of these voxels: in a or not, in b or not.
        unmatched: frames that the other one lacks.
        elsewhere: frames whose grids lie at other places, which no comparison of voxels can mend.
    """

    taxonomy: Taxonomy
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    frames: int
    confusion: NDArray[np.int64]
    trusted: NDArray[np.int64]
    unmatched: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether both hold the same frames, and all of them the same labels and trust."""
        unequal = self.only_a or self.only_b or self.unmatched or self.elsewhere or self.differ
        return self.frames > 0 and not unequal and not self.trusted[[0, 1], [1, 0]].any()

    @property
    def differ(self) -> int:
        """Voxels of another class."""
        total = self.confusion.sum(0)
        return int(total.sum() - np.trace(total))

    def iou(self, ring: int | None = None) -> NDArray[np.float64]:
        """(K,) agreement of each class, NaN where neither has it; of all rings or of one."""
        counts = self.confusion.sum(0) if ring is None else self.confusion[ring]
        intersection = counts.diagonal().astype(float)
        union = counts.sum(0) + counts.sum(1) - intersection
        return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def diff(
    a: LabelStore, b: LabelStore, *, on_scene: Callable[[], None] = lambda: None
) -> StoreDifference:
    """Compare two stores frame by frame; frames whose grids lie elsewhere are left out and named.

    Raises:
        SetupError: other voxels or classes.
        SceneError: a scene cannot be read.
    """
    voxels_a, voxels_b = ((h.grid, h.taxonomy, h.frame) for h in (a.header, b.header))
    if voxels_a != voxels_b:
        raise SetupError(
            f"{a.place} has {voxels_in_words(*voxels_a)}, "
            f"{b.place} has {voxels_in_words(*voxels_b)}"
        )
    taxonomy, rings = a.header.taxonomy, RINGS.of(a.header.grid)
    K, R = taxonomy.n_classes, len(RINGS.names)
    ids_a, ids_b = set(a.scene_ids()), set(b.scene_ids())
    difference = StoreDifference(
        taxonomy=taxonomy,
        only_a=tuple(sorted(ids_a - ids_b)),
        only_b=tuple(sorted(ids_b - ids_a)),
        frames=0,
        confusion=np.zeros((R, K, K), np.int64),
        trusted=np.zeros((2, 2), np.int64),
    )
    observed = np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
    for scene_id in sorted(ids_a & ids_b):
        scene_a, scene_b = a.scene(scene_id), b.scene(scene_id)
        for token in sorted(set(scene_a.frame_tokens) ^ set(scene_b.frame_tokens)):
            difference.unmatched.append(f"{scene_id} {token}")
        for k, token in enumerate(scene_a.frame_tokens):
            if token not in scene_b.frame_tokens:
                continue
            position = scene_b.index_of(token)
            if offset := _apart(scene_a.T_global_grid[k], scene_b.T_global_grid[position]):
                difference.elsewhere.append(f"{scene_id} {token}: {offset}")
                continue
            x, y = scene_a.frame(k), scene_b.frame(position)
            judged = (x.semantics < K) & (y.semantics < K) & ((x.mask | y.mask) & observed > 0)
            index = (rings[judged].astype(np.int64) * K + x.semantics[judged]) * K
            index += y.semantics[judged]
            difference.confusion += np.bincount(index, minlength=R * K * K).reshape(R, K, K)
            trust = [(labels.mask[judged] & MaskBit.TRUSTED > 0) for labels in (x, y)]
            difference.trusted += np.bincount(trust[0] * 2 + trust[1], minlength=4).reshape(2, 2)
            difference.frames += 1
        on_scene()
    return difference


def _apart(a: Transform, b: Transform) -> str:
    """How far apart two poses of a grid are; empty for the same place."""
    away_m, turn_rad = pose_distance(a, b)
    if away_m <= SAME_PLACE_M and turn_rad <= SAME_PLACE_RAD:
        return ""
    return f"{away_m:.3f} m and {np.degrees(turn_rad):.2f} degrees apart"
