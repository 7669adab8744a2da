"""mIoU from one confusion matrix over a whole set (the Occ3D protocol, spec of its challenge).

``IoU_c = H_cc / (row_c + col_c - H_cc)`` over all voxels of all frames; mIoU is the mean over the
semantic classes that occur in truth or prediction. It is a figure of the set, not a mean of
frames.

Legend: K classes, X Y Z voxels of a grid.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
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
        n = len(self.counts)
        self.counts += _count(n, truth, prediction, mask)[0]
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

    def occupancy(self, free_id: int) -> ConfusionMatrix:
        """The same voxels as free (0) and occupied (1)."""
        out = ConfusionMatrix(2)
        occupied = (np.arange(len(self.counts)) != free_id).astype(np.int64)
        np.add.at(out.counts, (occupied[:, None], occupied[None, :]), self.counts)
        out.frames = self.frames
        return out


def _count(
    n: int,
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    group: NDArray[np.uint8] | None = None,
    n_groups: int = 1,
) -> NDArray[np.int64]:
    """(groups, n, n) pairs of truth and prediction."""
    if truth.shape != prediction.shape or (mask is not None and mask.shape != truth.shape):
        raise ValueError(f"shapes differ: {truth.shape}, {prediction.shape}")
    keep = truth < n if mask is None else mask & (truth < n)
    t, p = truth[keep].astype(np.int64), prediction[keep].astype(np.int64)
    if p.size and p.max() >= n:
        raise ValueError(f"prediction {int(p.max())} is not in 0..{n - 1}")
    pairs = t * n + p
    if group is not None:
        pairs += group[keep].astype(np.int64) * (n * n)
    return np.bincount(pairs, minlength=n_groups * n * n).reshape(n_groups, n, n)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeBins:
    """Rings around the ego frame's origin, by the horizontal distance of a voxel's centre.

    Attributes:
        edges_m: where a ring ends and the next begins (the end excluded); beyond the last there
            is one more ring.

    Raises:
        ValueError: the edges are not positive and ascending, or more than 255.
    """

    edges_m: tuple[float, ...] = (10.0, 20.0, 30.0, 40.0)

    def __post_init__(self) -> None:
        bounds = (0.0, *self.edges_m)
        if len(bounds) > 255 or not all(b > a for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"edges must be positive and ascending: {self.edges_m}")

    @property
    def names(self) -> tuple[str, ...]:
        """One per ring, such as ``0-10 m`` and ``beyond 40 m``."""
        bounds = (0.0, *self.edges_m)
        rings = [f"{a:g}-{b:g} m" for a, b in itertools.pairwise(bounds)]
        return (*rings, f"beyond {bounds[-1]:g} m")

    def of(self, grid: VoxelGrid, ego_m: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.uint8]:
        """(X, Y, Z) uint8 ring of every voxel, a read-only view.

        Args:
            ego_m: x and y of the ego frame's origin in the grid's frame.
        """
        x, y = (
            grid.min_m[axis] + (np.arange(grid.shape[axis]) + 0.5) * grid.size_m[axis] - ego_m[axis]
            for axis in (0, 1)
        )
        distance_m = np.hypot(x[:, None], y[None, :])
        ring = np.searchsorted(self.edges_m, distance_m, side="right").astype(np.uint8)
        return np.broadcast_to(ring[:, :, None], grid.shape)


class RangedConfusion:
    """One confusion matrix per ring. Streaming and mergeable.

    Attributes:
        matrices: one per name of ``bins``.
    """

    def __init__(self, n_classes: int, bins: RangeBins | None = None) -> None:
        """Rings of 10 m up to 40 m, unless told otherwise."""
        self.bins = bins or RangeBins()
        self.matrices = tuple(ConfusionMatrix(n_classes) for _ in self.bins.names)

    def update(
        self,
        truth: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        ring: NDArray[np.uint8],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one frame.

        Args:
            ring: of every voxel (``RangeBins.of``). The rest as ``ConfusionMatrix.update``.

        Raises:
            ValueError: as there.
        """
        if ring.shape != truth.shape:
            raise ValueError(f"shapes differ: {truth.shape}, {ring.shape}")
        n, groups = len(self.matrices[0].counts), len(self.matrices)
        counts = _count(n, truth, prediction, mask, ring, groups)
        for matrix, of_ring in zip(self.matrices, counts, strict=True):
            matrix.counts += of_ring
            matrix.frames += 1

    def merge(self, other: RangedConfusion) -> None:
        """Add the counts of another part of the set."""
        if other.bins != self.bins:
            raise ValueError(f"rings differ: {self.bins.edges_m} and {other.bins.edges_m}")
        for own, added in zip(self.matrices, other.matrices, strict=True):
            own.merge(added)

    def total(self) -> ConfusionMatrix:
        """All rings together."""
        out = ConfusionMatrix(len(self.matrices[0].counts))
        for matrix in self.matrices:
            out.merge(matrix)
        out.frames = self.matrices[0].frames
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """Scores of one model or store under named masks, ready to print or write.

    Attributes:
        matrices: one confusion matrix per mask name.
        by_range: the same by rings, for some or all of these masks.
    """

    taxonomy: Taxonomy
    matrices: dict[str, ConfusionMatrix]
    by_range: dict[str, RangedConfusion] = field(default_factory=dict)

    @classmethod
    def ranged(cls, taxonomy: Taxonomy, by_range: dict[str, RangedConfusion]) -> ScoreTable:
        """A table with rings under every mask."""
        matrices = {mask: ranged.total() for mask, ranged in by_range.items()}
        return cls(taxonomy=taxonomy, matrices=matrices, by_range=by_range)

    def to_json(self) -> dict[str, object]:
        """Percentages; a class that does not occur is null, as is a mean over no class."""
        semantic, dynamic = self.taxonomy.semantic_ids, self.taxonomy.dynamic
        out: dict[str, object] = {}
        for mask, matrix in self.matrices.items():
            iou = matrix.iou()
            out[f"mIoU[{mask}]"] = _percent(matrix.miou(semantic))
            out[f"mIoU[{mask}, dynamic classes]"] = _percent(matrix.miou(dynamic))
            out[f"IoU[{mask}]"] = {
                name: _percent(iou[i]) for i, name in enumerate(self.taxonomy.names)
            }
            out[f"voxels[{mask}]"] = int(matrix.counts.sum())
            out["frames"] = matrix.frames
            if mask in self.by_range:
                ranged = self.by_range[mask]
                out[f"by range[{mask}]"] = {
                    ring: {
                        "mIoU": _percent(of_ring.miou(semantic)),
                        "mIoU, dynamic classes": _percent(of_ring.miou(dynamic)),
                        "voxels": int(of_ring.counts.sum()),
                    }
                    for ring, of_ring in zip(ranged.bins.names, ranged.matrices, strict=True)
                }
        return out

    def __str__(self) -> str:
        masks = list(self.matrices)
        iou = {m: self.matrices[m].iou() for m in masks}
        semantic, dynamic = self.taxonomy.semantic_ids, self.taxonomy.dynamic
        rows = [(n, [iou[m][i] for m in masks]) for i, n in enumerate(self.taxonomy.names)]
        rows.append(("mIoU", [self.matrices[m].miou(semantic) for m in masks]))
        rows.append(("mIoU, dynamic classes", [self.matrices[m].miou(dynamic) for m in masks]))
        if set(masks) <= set(self.by_range):
            for k, ring in enumerate(self.by_range[masks[0]].bins.names):
                values = [self.by_range[m].matrices[k].miou(semantic) for m in masks]
                rows.append((f"mIoU, {ring}", values))
        width = max(len(name) for name, _ in rows) + 2
        column = max(22, *(len(f"IoU[{m}]") + 2 for m in masks))
        lines = [" " * width + "".join(f"{f'IoU[{m}]':>{column}}" for m in masks)]
        lines += [
            f"{name:<{width}}" + "".join(f"{_text(v):>{column}}" for v in row) for name, row in rows
        ]
        frames = next(iter(self.matrices.values())).frames
        lines.append(
            f"{frames} frames; mean over {len(semantic)} semantic classes, {len(dynamic)} of them "
            "dynamic; those absent from truth and prediction left out"
        )
        return "\n".join(lines)


def _percent(value: float) -> float | None:
    return round(100 * float(value), 2) if np.isfinite(value) else None


def _text(value: float) -> str:
    return f"{100 * value:.2f}" if np.isfinite(value) else "absent"
