"""Temporal fusion: a frame's prediction with the predictions and LiDAR of the frames around it.

Offline labeling sees the future. The evidence of every frame is kept: class probabilities, and
hits and passes of LiDAR rays. Evidence of frames up to some seconds before and after is looked up
at the same places of the static world, through the poses, and combined with a frame's own in a
log-linear pool (Genest and Zidek, Statistical Science 1986); LiDAR counts enter as likelihood
ratios of occupied against free. Weights and ratios are fitted on labeled scenes by maximum
likelihood (``RefinerFit``). A voxel where another frame predicts a moving class is skipped in that
frame, and one where the frame itself does uses its own evidence only: no dynamic ghosting.

Legend: X Y Z voxels, K classes, V selected voxels, P LiDAR returns.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from autolabel.refinement.network import RefinerNetwork
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
"""Weight of a frame where its own LiDAR observed the voxel; 1 elsewhere."""
HIT_EDGES = (1, 2, 4, 8, 16)
PASS_EDGES = (1, 4, 16, 64)
"""Lower edges of the bins of hits and passes; the first bin is none."""
SURFACE = 4
"""Numbers about the returns in a voxel."""
EVIDENCE_BINS = (len(HIT_EDGES) + 1) * (len(PASS_EDGES) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Which parts of temporal fusion are on.

    Attributes:
        near, far: pool with frames at these offsets, before and after.
        evidence: use LiDAR hits and passes.
        past_only: use earlier frames only, as on board.
    """

    near: tuple[int, ...] = (1,)
    far: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    evidence: bool = True
    past_only: bool = False

    @property
    def reach(self) -> int:
        """Frames needed before and after."""
        return max((*self.near, *self.far), default=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refiner:
    """The weights of the pool.

    Attributes:
        config: the parts it was fitted with.
        own, near, far: exponents of the frame's own probabilities and of the means of near and far
            frames; self_only: of its own where it predicts a moving class.
        own_evidence, other_evidence: (K, ``EVIDENCE_BINS``) log likelihood ratios of each class
            against free, per bin of hits and passes; of the frame's own LiDAR, and of the other
            frames' together.
        voxels: number that these were fitted on.
        network: adds to the pool's logits; None: nothing does.
        offsets: (K,) of the logits, for the best mIoU; None: the likeliest class is taken.

    Raises:
        ValueError: a table has another shape, the network has other classes, or a value is not
            finite.
    """

    config: Refinement
    own: float
    near: float
    far: float
    self_only: float
    own_evidence: NDArray[np.float32]
    other_evidence: NDArray[np.float32]
    voxels: int = 0
    network: RefinerNetwork | None = None
    offsets: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n_classes = len(self.own_evidence)
        if self.network is not None and self.network.shape.classes != n_classes:
            raise ValueError(
                f"a network of {self.network.shape.classes} classes in a refiner of {n_classes}"
            )
        if self.offsets is not None and (
            self.offsets.shape != (n_classes,) or not np.isfinite(self.offsets).all()
        ):
            raise ValueError(f"offsets must be finite values of shape ({n_classes},)")
        for name in ("own_evidence", "other_evidence"):
            table = getattr(self, name)
            if table.ndim != 2 or table.shape[1] != EVIDENCE_BINS or not np.isfinite(table).all():
                raise ValueError(f"{name} must be finite values of shape (K, {EVIDENCE_BINS})")
        if not np.isfinite([self.own, self.near, self.far, self.self_only]).all():
            raise ValueError("the weights of a refiner must be finite")

    def to_json(self) -> dict[str, Any]:
        optional: dict[str, Any] = {}
        if self.network is not None:
            optional["network"] = self.network.to_json()
        if self.offsets is not None:
            optional["offsets"] = np.round(self.offsets.astype(float), 5).tolist()
        return {
            "how": asdict(self.config),
            "own": self.own,
            "near": self.near,
            "far": self.far,
            "alone": self.self_only,
            "own_evidence": np.round(self.own_evidence.astype(float), 5).tolist(),
            "other_evidence": np.round(self.other_evidence.astype(float), 5).tolist(),
            "voxels": self.voxels,
            **optional,
        }

    def describe(self) -> dict[str, Any]:
        """As ``to_json``, with what tells the network from others in the place of its weights."""
        network = {} if self.network is None else {"network": self.network.describe()}
        return self.to_json() | network

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Refiner:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        config = data["how"]
        return cls(
            config=Refinement(
                near=tuple(int(n) for n in config["near"]),
                far=tuple(int(n) for n in config["far"]),
                evidence=bool(config["evidence"]),
                past_only=bool(config["past_only"]),
            ),
            own=float(data["own"]),
            near=float(data["near"]),
            far=float(data["far"]),
            self_only=float(data["alone"]),
            own_evidence=np.asarray(data["own_evidence"], np.float32),
            other_evidence=np.asarray(data["other_evidence"], np.float32),
            voxels=int(data["voxels"]),
            network=RefinerNetwork.from_json(data["network"]) if "network" in data else None,
            offsets=np.asarray(data["offsets"], np.float32) if "offsets" in data else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameEvidence:
    """Prediction and LiDAR of one frame, as kept for the others.

    Attributes:
        T_global_grid: pose of the frame that the grid lies in.
        surprisal: (X, Y, Z, K) uint8, minus the log probabilities in steps of ``LOG_STEP``.
        moving: (X, Y, Z) bool, in or beside a voxel predicted as a moving class.
        hits, passes: (X, Y, Z) uint8 of all the sweeps that the network read.
        ends: (P, 3) float32 metres, ends of the rays of the frame's moment, without those in moving
            voxels; origin: their starts, (3,), or (P, 3) with several LiDARs; intensity: (P,)
            float32 of these returns, 0..255.
    """

    T_global_grid: Transform
    surprisal: NDArray[np.uint8]
    moving: NDArray[np.bool_]
    hits: Counts
    passes: Counts
    ends: NDArray[np.float32]
    origin: NDArray[np.float64]
    intensity: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pooled:
    """Evidence of a frame and of its window, before it is weighted.

    Attributes:
        own, near, far: (V, K) float32 log probabilities. Where no frame is near, ``near`` is
            ``own``; where none is far, ``far`` is ``near``.
        self_only: (V,) bool, the frame predicts a moving class: the others are not used.
        own_bin, other_bin: (V,) bin of hits and passes in a table flattened over both.
        surface: (V, 2 * ``SURFACE``) float32, of the returns in a voxel of the frame itself and of
            the others: how many, their mean intensity, mean height and spread of height; see
            ``_surface``.
    """

    own: NDArray[np.float32]
    near: NDArray[np.float32]
    far: NDArray[np.float32]
    self_only: NDArray[np.bool_]
    own_bin: NDArray[np.intp]
    other_bin: NDArray[np.intp]
    surface: NDArray[np.float32]

    def split(self, lengths: Sequence[int]) -> list[Pooled]:
        """Parts of so many voxels each, in memory of their own, so that one may be kept alone."""
        ends = np.cumsum(lengths)
        parts = [slice(end - n, end) for end, n in zip(ends, lengths, strict=True)]
        return [
            Pooled(**{f.name: getattr(self, f.name)[part].copy() for f in fields(self)})
            for part in parts
        ]


def evidence_of(
    frame: Frame,
    points: NDArray[np.float32] | None,  # (P, 6)
    logits: Tensor,  # (X, Y, Z, K)
    hits: Counts,  # (X, Y, Z)
    passes: Counts,  # (X, Y, Z)
    grid: VoxelGrid,
    taxonomy: Taxonomy,
) -> FrameEvidence:
    """Evidence of one frame's prediction and LiDAR."""
    with torch.inference_mode():
        steps = logits.float().log_softmax(-1).mul_(-1 / LOG_STEP).round_().clamp_(0, 255)
        surprisal = steps.to(torch.uint8).cpu().numpy()
    predicted = surprisal.argmin(-1)
    moving = np.isin(predicted, taxonomy.dynamic)
    moving = ndimage.binary_dilation(moving, np.ones((3, 3, 3), bool))
    ends, origin = np.empty((0, 3), np.float32), np.zeros(3)
    intensity = np.empty(0, np.float32)
    if points is not None and frame.lidar is not None:
        own = points[of_the_moment(frame, points)]
        ends, origin = own[:, :3], frame.lidar.T_ego_lidar[:3, 3]
        intensity = own[:, 3]
        if frame.companions:
            origin = ray_origins(frame, own)
        inside = np.flatnonzero(grid.contains(ends))
        static = np.ones(len(ends), bool)
        static[inside] = ~moving[tuple(grid.indices(ends[inside]).T)]
        ends, intensity = ends[static], intensity[static]
        if frame.companions:
            origin = origin[static]
    return FrameEvidence(
        T_global_grid=frame.T_global_ego,
        surprisal=surprisal,
        moving=moving,
        hits=hits,
        passes=passes,
        ends=ends,
        origin=origin,
        intensity=intensity,
    )


def windows(frames: Iterable[A], reach: int) -> Generator[tuple[list[A], int], None, None]:
    """Each frame with those up to ``reach`` before and after it, and its position among them."""
    window: list[A] = []
    start = 0  # position in the drive of window[0]
    for n, frame in enumerate(itertools.chain(frames, itertools.repeat(None, reach))):
        if frame is not None:
            window.append(frame)
        k = n - reach
        if k >= 0:
            yield list(window), k - start
            if k - start == reach:
                window.pop(0)
                start += 1


def pool(
    window: Sequence[FrameEvidence],
    k: int,
    grid: VoxelGrid,
    taxonomy: Taxonomy,
    config: Refinement,
    voxels: NDArray[np.intp] | None = None,  # (V,) flat indices; None: all
) -> Pooled:
    """Evidence of ``window[k]`` and of its neighbours at the offsets of ``config``."""
    frame = window[k]
    n_classes = frame.surprisal.shape[-1]
    cells = np.arange(grid.n_voxels) if voxels is None else voxels
    own = frame.surprisal.reshape(-1, n_classes)[cells].astype(np.float32) * -LOG_STEP
    hits = np.zeros(grid.n_voxels, np.int32)
    passes = np.zeros(grid.n_voxels, np.int32)
    returns = np.zeros((2, grid.n_voxels, SURFACE), np.float32)
    _add_returns(frame.ends, frame.intensity, *_low_and_size(grid), grid.shape, returns[0])
    means = []
    fallback: NDArray[np.float32] = own
    for offsets in (config.near, config.far):
        total = np.zeros((len(cells), n_classes), np.float32)
        weight = np.zeros(len(cells), np.float32)
        for offset in offsets:
            for j in (k - offset, *(() if config.past_only else (k + offset,))):
                if 0 <= j < len(window):
                    other = window[j]
                    T_other_frame = inverse(other.T_global_grid) @ frame.T_global_grid
                    _add_surprisal(
                        cells,
                        *_affine(T_other_frame, grid),
                        other.surprisal,
                        other.moving,
                        (other.hits > 0) | (other.passes > 0),
                        total,
                        weight,
                    )
                    if config.evidence:
                        T_frame_other = inverse(T_other_frame)
                        ends = apply(T_frame_other, other.ends)
                        origin = apply(T_frame_other, other.origin)
                        ended, passed = lidar_evidence(origin, ends, grid)
                        _add_returns(
                            ends, other.intensity, *_low_and_size(grid), grid.shape, returns[1]
                        )
                        hits += ended.ravel()
                        passes += passed.ravel()
        weighted = weight > 0
        mean = fallback.copy()
        mean[weighted] = total[weighted] * (-LOG_STEP / weight[weighted, None])
        means.append(mean)
        fallback = mean
    return Pooled(
        own=own,
        near=means[0],
        far=means[1],
        self_only=np.isin(own.argmax(-1), taxonomy.dynamic),
        own_bin=_bin(frame.hits.ravel()[cells], frame.passes.ravel()[cells]),
        other_bin=_bin(hits[cells], passes[cells]),
        surface=np.concatenate([_surface(part[cells]) for part in returns], axis=1),
    )


def refine(
    pooled: Pooled, refiner: Refiner, config: Refinement, grid: VoxelGrid
) -> NDArray[np.float32]:
    """(X, Y, Z, K) logits, of a frame whose voxels were all pooled: the pool's, what the network
    adds, and the offsets."""
    logits = pool_logits(pooled, refiner, config).reshape(*grid.shape, -1)
    if refiner.network is not None:
        logits += refiner.network.of_frame(
            (pooled.own, pooled.near, pooled.far),
            (pooled.own_bin, pooled.other_bin),
            pooled.surface,
            grid.shape,
        )
    if refiner.offsets is not None:
        logits += refiner.offsets
    return logits


def pool_logits(pooled: Pooled, refiner: Refiner, config: Refinement) -> NDArray[np.float32]:
    """(V, K) logits of the log-linear pool."""
    logits = refiner.own * pooled.own
    if config.near:
        logits += refiner.near * pooled.near
    if config.far:
        logits += refiner.far * pooled.far
    logits[pooled.self_only] = refiner.self_only * pooled.own[pooled.self_only]
    if config.evidence:
        logits += refiner.own_evidence.T[pooled.own_bin]
        logits[~pooled.self_only] += refiner.other_evidence.T[pooled.other_bin[~pooled.self_only]]
    return logits


def _low_and_size(grid: VoxelGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(grid.min_m, np.float64), np.asarray(grid.size_m, np.float64)


@compiled
def _add_returns(ends: Any, intensity: Any, low: Any, size: Any, shape: Any, sums: Any) -> None:
    """Add to each voxel's (``SURFACE``) sums: returns, intensity, height within the voxel
    (-0.5..0.5 of its side) and its square."""
    X, Y, Z = shape
    for p in range(len(ends)):
        x, y, z = (ends[p, 0] - low[0], ends[p, 1] - low[1], ends[p, 2] - low[2])
        i, j = int(np.floor(x / size[0])), int(np.floor(y / size[1]))
        level = z / size[2]
        k = int(np.floor(level))
        if i < 0 or j < 0 or k < 0 or i >= X or j >= Y or k >= Z:
            continue
        v = (i * Y + j) * Z + k
        height = np.float32(level - k - 0.5)
        sums[v, 0] += 1
        sums[v, 1] += min(max(intensity[p], np.float32(0)), np.float32(255))
        sums[v, 2] += height
        sums[v, 3] += height * height


def _surface(sums: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers about one in size, of sums (V, ``SURFACE``): logs of the returns and of their mean
    intensity, mean height in the voxel and its standard deviation; 0 without returns. A road
    returns little, and grass little more: a log tells them apart."""
    out = np.zeros_like(sums)
    filled = np.flatnonzero(sums[:, 0])
    n, intensity, height, square = sums[filled].T
    intensity, height, square = intensity / n, height / n, square / n
    out[filled, 0] = np.log1p(n) / 2
    out[filled, 1] = 2 * (np.log1p(intensity) - 2)
    out[filled, 2] = 4 * height
    out[filled, 3] = 4 * np.sqrt(np.maximum(square - height**2, 0))
    return out


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
def _add_surprisal(
    cells: Any,
    matrix: Any,
    offset: Any,
    surprisal: Any,
    moving: Any,
    observed: Any,
    total: Any,
    weight: Any,
) -> None:
    """Add another frame's surprisal at the places of our cells."""
    X, Y, Z, K = surprisal.shape
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
            total[v, c] += w * surprisal[i, j, k, c]
