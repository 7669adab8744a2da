"""What the rest of a drive says about a frame: predictions and LiDAR of other frames, brought
together through the poses.

A labeller sees the future. Of every frame are kept the network's class probabilities and the hits
and passes of its LiDAR rays. For a frame at hand those of frames up to some seconds before and
after are looked up at the same places of the static world and put together with its own in a
log-linear pool (Genest and Zidek, Statistical Science 1986); LiDAR counts enter as likelihood
ratios of occupied against free. The pool's weights and the ratios are learnt on labelled scenes by
maximum likelihood (``RefinerFit``). Voxels in which another frame predicts a moving class say
nothing about this one, and those in which this one does are left to its own prediction and LiDAR:
nothing that moves is smeared along its path.

Legend: X Y Z voxels, K classes, V voxels looked at.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from datasets.frames import Frame, of_the_moment
from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import lidar_evidence
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.taxonomy import Taxonomy
from datasets.visibility import ray_origins

Counts = NDArray[np.uint8]
A = TypeVar("A")

LOG_STEP = 1 / 16
"""Log probabilities are kept as multiples of this, down to -255 of them (1.2e-7)."""
OBSERVED_WEIGHT = 4
"""How much more a frame counts where its own LiDAR saw the voxel."""
HIT_EDGES = (1, 2, 4, 8, 16)
PASS_EDGES = (1, 4, 16, 64)
"""Where bins of hits and passes begin, after the one of none."""
EVIDENCE_BINS = (len(HIT_EDGES) + 1) * (len(PASS_EDGES) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Which parts of the refinement are on.

    Attributes:
        near, far: pool with frames at these offsets, before and after.
        evidence: use LiDAR hits and passes.
        past_only: look back only, as on board.
    """

    near: tuple[int, ...] = (1,)
    far: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    evidence: bool = True
    past_only: bool = False

    @property
    def reach(self) -> int:
        """Frames that must be at hand before and after."""
        return max((*self.near, *self.far), default=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refiner:
    """The weights of the pool.

    Attributes:
        how: what it was learnt for.
        own, near, far: exponents of the frame's own probabilities and of the means of near and far
            frames; alone: of its own where it predicts a moving class.
        own_evidence, other_evidence: (K, ``EVIDENCE_BINS``) log likelihood ratios of each class
            against free, per bin of hits and passes; of the frame's own LiDAR, and of the other
            frames' together.
        voxels: that these were learnt from.

    Raises:
        ValueError: a table has another shape, or a value is not finite.
    """

    how: Refinement
    own: float
    near: float
    far: float
    alone: float
    own_evidence: NDArray[np.float32]
    other_evidence: NDArray[np.float32]
    voxels: int = 0

    def __post_init__(self) -> None:
        for name in ("own_evidence", "other_evidence"):
            table = getattr(self, name)
            if table.ndim != 2 or table.shape[1] != EVIDENCE_BINS or not np.isfinite(table).all():
                raise ValueError(f"{name} must be finite values of shape (K, {EVIDENCE_BINS})")
        if not np.isfinite([self.own, self.near, self.far, self.alone]).all():
            raise ValueError("the weights of a refiner must be finite")

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        for name in ("own_evidence", "other_evidence"):
            values[name] = np.round(values[name].astype(float), 5).tolist()
        return values

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Refiner:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        how = data["how"]
        return cls(
            how=Refinement(
                near=tuple(int(n) for n in how["near"]),
                far=tuple(int(n) for n in how["far"]),
                evidence=bool(how["evidence"]),
                past_only=bool(how["past_only"]),
            ),
            own=float(data["own"]),
            near=float(data["near"]),
            far=float(data["far"]),
            alone=float(data["alone"]),
            own_evidence=np.asarray(data["own_evidence"], np.float32),
            other_evidence=np.asarray(data["other_evidence"], np.float32),
            voxels=int(data["voxels"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameEvidence:
    """What one frame says.

    Attributes:
        T_global_grid: pose of the frame that the grid lies in.
        surprise: (X, Y, Z, K) uint8, minus the log probabilities in steps of ``LOG_STEP``.
        moving: (X, Y, Z) bool, in or beside a voxel predicted as a moving class.
        hits, passes: (X, Y, Z) uint8 of all the sweeps that the network read.
        ends: (P, 3) float32 metres, where rays of the frame's moment ended, but for those in moving
            voxels; origin: where they began, (3,), or (P, 3) where several LiDARs measured.
    """

    T_global_grid: Transform
    surprise: NDArray[np.uint8]
    moving: NDArray[np.bool_]
    hits: Counts
    passes: Counts
    ends: NDArray[np.float32]
    origin: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pooled:
    """What a frame and the others around it say, before they are weighed.

    Attributes:
        own, near, far: (V, K) float32 log probabilities. Where no frame is near, ``near`` is
            ``own``; where none is far, ``far`` is ``near``.
        alone: (V,) bool, the frame predicts a moving class: the others are not asked.
        own_bin, other_bin: (V,) bin of hits and passes in a table flattened over both.
    """

    own: NDArray[np.float32]
    near: NDArray[np.float32]
    far: NDArray[np.float32]
    alone: NDArray[np.bool_]
    own_bin: NDArray[np.intp]
    other_bin: NDArray[np.intp]


def sight_of(
    frame: Frame,
    points: NDArray[np.float32] | None,  # (P, 6)
    logits: Tensor,  # (X, Y, Z, K)
    hits: Counts,  # (X, Y, Z)
    passes: Counts,  # (X, Y, Z)
    grid: VoxelGrid,
    taxonomy: Taxonomy,
) -> FrameEvidence:
    """What one frame's prediction and LiDAR say."""
    with torch.inference_mode():
        steps = logits.float().log_softmax(-1).mul_(-1 / LOG_STEP).round_().clamp_(0, 255)
        surprise = steps.to(torch.uint8).cpu().numpy()
    predicted = surprise.argmin(-1)
    moving = np.isin(predicted, taxonomy.dynamic)
    moving = ndimage.binary_dilation(moving, np.ones((3, 3, 3), bool))
    ends, origin = np.empty((0, 3), np.float32), np.zeros(3)
    if points is not None and frame.lidar is not None:
        now = points[of_the_moment(frame, points)]
        ends, origin = now[:, :3], frame.lidar.T_ego_lidar[:3, 3]
        if frame.companions:
            origin = ray_origins(frame, now)
        inside = np.flatnonzero(grid.contains(ends))
        still = np.ones(len(ends), bool)
        still[inside] = ~moving[tuple(grid.indices(ends[inside]).T)]
        ends = ends[still]
        if frame.companions:
            origin = origin[still]
    return FrameEvidence(
        T_global_grid=frame.T_global_ego,
        surprise=surprise,
        moving=moving,
        hits=hits,
        passes=passes,
        ends=ends,
        origin=origin,
    )


def windows(sights: Iterable[A], reach: int) -> Generator[tuple[list[A], int], None, None]:
    """Of each in turn, those up to ``reach`` before and after it, and its place among them."""
    held: list[A] = []
    first = k = 0  # index of held[0]; of the one that is due
    for one in sights:
        held.append(one)
        if first + len(held) > k + reach:
            yield list(held), k - first
            k += 1
            if first < k - reach:
                held.pop(0)
                first += 1
    while k < first + len(held):
        yield list(held), k - first
        k += 1
        if first < k - reach:
            held.pop(0)
            first += 1


def pool(
    around: Sequence[FrameEvidence],
    k: int,
    grid: VoxelGrid,
    taxonomy: Taxonomy,
    how: Refinement,
    voxels: NDArray[np.intp] | None = None,  # (V,) flat indices; None: all
) -> Pooled:
    """What ``around[k]`` and its neighbours at the offsets of ``how`` say of its voxels."""
    here = around[k]
    n_classes = here.surprise.shape[-1]
    cells = np.arange(grid.n_voxels) if voxels is None else voxels
    own = here.surprise.reshape(-1, n_classes)[cells].astype(np.float32) * -LOG_STEP
    hits = np.zeros(grid.n_voxels, np.int32)
    passes = np.zeros(grid.n_voxels, np.int32)
    means = []
    behind: NDArray[np.float32] = own
    for offsets in (how.near, how.far):
        total = np.zeros((len(cells), n_classes), np.float32)
        weight = np.zeros(len(cells), np.float32)
        for offset in offsets:
            for j in (k - offset, *(() if how.past_only else (k + offset,))):
                if 0 <= j < len(around):
                    there = around[j]
                    T = inverse(there.T_global_grid) @ here.T_global_grid
                    _look_up(
                        cells,
                        *_affine(T, grid),
                        there.surprise,
                        there.moving,
                        (there.hits > 0) | (there.passes > 0),
                        total,
                        weight,
                    )
                    if how.evidence:
                        T = inverse(T)
                        ended, passed = lidar_evidence(
                            apply(T, there.origin), apply(T, there.ends), grid
                        )
                        hits += ended.ravel()
                        passes += passed.ravel()
        seen = weight > 0
        mean = behind.copy()
        mean[seen] = total[seen] * (-LOG_STEP / weight[seen, None])
        means.append(mean)
        behind = mean
    alone = np.isin(own.argmax(-1), taxonomy.dynamic)
    return Pooled(
        own=own,
        near=means[0],
        far=means[1],
        alone=alone,
        own_bin=_bin(here.hits.ravel()[cells], here.passes.ravel()[cells]),
        other_bin=_bin(hits[cells], passes[cells]),
    )


def refine(pooled: Pooled, refiner: Refiner, how: Refinement) -> NDArray[np.float32]:
    """(V, K) logits."""
    logits = refiner.own * pooled.own
    if how.near:
        logits += refiner.near * pooled.near
    if how.far:
        logits += refiner.far * pooled.far
    logits[pooled.alone] = refiner.alone * pooled.own[pooled.alone]
    if how.evidence:
        logits += refiner.own_evidence.T[pooled.own_bin]
        logits[~pooled.alone] += refiner.other_evidence.T[pooled.other_bin[~pooled.alone]]
    return logits


def _bin(hits: NDArray[Any], passes: NDArray[Any]) -> NDArray[np.intp]:
    h = np.searchsorted(HIT_EDGES, hits, side="right")
    return np.asarray(h * (len(PASS_EDGES) + 1) + np.searchsorted(PASS_EDGES, passes, side="right"))


def _affine(T: Transform, grid: VoxelGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset that take a cell's indices to (fractional) indices under ``T``."""
    size, low = np.asarray(grid.size_m), np.asarray(grid.min_m)
    matrix = T[:3, :3] * size[None, :] / size[:, None]
    offset = (T[:3, :3] @ (low + size / 2) + T[:3, 3] - low) / size
    return matrix, offset


@compiled
def _look_up(
    cells: Any,
    matrix: Any,
    offset: Any,
    surprise: Any,
    moving: Any,
    observed: Any,
    total: Any,
    weight: Any,
) -> None:
    """Add what another frame says at the places of our cells."""
    X, Y, Z, K = surprise.shape
    for v in range(len(cells)):
        z = cells[v] % Z
        y = cells[v] // Z % Y
        x = cells[v] // (Z * Y)
        i = int(np.floor(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + offset[0]))
        j = int(np.floor(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + offset[1]))
        k = int(np.floor(matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + offset[2]))
        if i < 0 or j < 0 or k < 0 or i >= X or j >= Y or k >= Z or moving[i, j, k]:
            continue
        w = np.float32(OBSERVED_WEIGHT if observed[i, j, k] else 1)
        weight[v] += w
        for c in range(K):
            total[v, c] += w * surprise[i, j, k, c]
