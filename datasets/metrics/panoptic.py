"""Panoptic quality of objects, and whether they keep their identity.

PQ (Kirillov et al., arXiv 1801.00868): an object of the truth and one of the labels match where
they are of one class and overlap by an IoU above one half, which makes matches unique. ``PQ = SQ *
RQ``: the mean IoU of the matches, and the F1 score of finding objects. Identity is that of the
matches of a true object over its scene.

Legend: X, Y, Z axes of the grid; K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Over the true objects that were matched in two frames or more.

    Attributes:
        tracks: how many there are; ``whole``: of these, those that always match the same object.
        switches: changes of the matched object's number from one match to the next.
        links: pairs of matches that follow each other.
    """

    tracks: int
    whole: int
    switches: int
    links: int


class PanopticQuality:
    """Counts over frames.

    Args:
        classes: ids of objects that are scored.
        min_voxels: smaller true objects are no misses, and labels that lie on them no false finds.
    """

    def __init__(self, classes: Sequence[int], *, min_voxels: int = 1) -> None:
        self.classes, self.min_voxels = tuple(classes), min_voxels
        size = max(self.classes) + 1
        self.matched = np.zeros(size, np.int64)
        self.missed = np.zeros(size, np.int64)
        self.false = np.zeros(size, np.int64)
        self.iou = np.zeros(size, np.float64)
        self._matches: dict[tuple[str, int], list[int]] = defaultdict(list)

    def update(
        self,
        scene_id: str,
        truth: tuple[NDArray[np.uint8], NDArray[np.integer[Any]]],
        labels: tuple[NDArray[np.uint8], NDArray[np.integer[Any]]],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one frame; those of a scene in the order of time.

        Args:
            truth, labels: (X, Y, Z) class ids and numbers of objects, 0: none.
            mask: count only these voxels.

        Raises:
            ValueError: shapes differ.
        """
        arrays = [*truth, *labels, *([] if mask is None else [mask])]
        if len({array.shape for array in arrays}) != 1:
            raise ValueError(f"shapes differ: {[array.shape for array in arrays]}")
        inside = np.ones(truth[0].shape, np.bool_) if mask is None else mask
        true_class, true_id = (array[inside].astype(np.int64) for array in truth)
        label_class, label_id = (array[inside].astype(np.int64) for array in labels)
        true_classes, true_sizes = _objects(true_id, true_class)
        label_classes, label_sizes = _objects(label_id, label_class)
        pairs, counts = np.unique(
            np.stack([true_id, label_id])[:, (true_id > 0) & (label_id > 0)],
            axis=1,
            return_counts=True,
        )
        found, hit = set(), set()
        excused: dict[int, int] = defaultdict(int)
        for (t, j), n in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            if true_sizes[t] < self.min_voxels:
                excused[j] += n
                continue
            iou = n / (true_sizes[t] + label_sizes[j] - n)
            class_id = true_classes[t]
            if iou <= MIN_IOU or label_classes[j] != class_id or class_id not in self.classes:
                continue
            found.add(t)
            hit.add(j)
            self.matched[class_id] += 1
            self.iou[class_id] += iou
            self._matches[scene_id, t].append(j)
        for t, class_id in true_classes.items():
            if class_id in self.classes and t not in found and true_sizes[t] >= self.min_voxels:
                self.missed[class_id] += 1
        for j, class_id in label_classes.items():
            if class_id in self.classes and j not in hit and 2 * excused[j] <= label_sizes[j]:
                self.false[class_id] += 1

    def quality(self) -> dict[int, tuple[float, float, float]]:
        """PQ, SQ and RQ (0..1) of each class that occurs in truth or labels."""
        out = {}
        for k in self.classes:
            total = self.matched[k] + (self.missed[k] + self.false[k]) / 2
            if total:
                sq = float(self.iou[k] / self.matched[k]) if self.matched[k] else 0.0
                rq = float(self.matched[k] / total)
                out[k] = (sq * rq, sq, rq)
        return out

    def pq(self) -> float:
        """Mean over the classes that occur; NaN without any."""
        values = [quality[0] for quality in self.quality().values()]
        return float(np.mean(values)) if values else float("nan")

    def identity(self) -> Identity:
        """Whether objects keep their number."""
        followed = [numbers for numbers in self._matches.values() if len(numbers) > 1]
        return Identity(
            tracks=len(followed),
            whole=sum(len(set(numbers)) == 1 for numbers in followed),
            switches=sum(a != b for numbers in followed for a, b in pairwise(numbers)),
            links=sum(len(numbers) - 1 for numbers in followed),
        )


def _objects(
    ids: NDArray[np.int64], classes: NDArray[np.int64]
) -> tuple[dict[int, int], dict[int, int]]:
    """Class of most of its voxels, and size, of each object."""
    there = ids > 0
    if not there.any():
        return {}, {}
    ids, classes = ids[there], classes[there]
    numbers, place = np.unique(ids, return_inverse=True)
    votes = np.zeros((len(numbers), int(classes.max()) + 1), np.int64)
    np.add.at(votes, (place, classes), 1)
    sizes = votes.sum(axis=1)
    return (
        dict(zip(numbers.tolist(), votes.argmax(axis=1).tolist(), strict=True)),
        dict(zip(numbers.tolist(), sizes.tolist(), strict=True)),
    )
