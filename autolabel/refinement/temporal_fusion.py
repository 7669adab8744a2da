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
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from autolabel.refinement.kernels import (
    SURFACE,
    add_returns,
    add_surprisal,
    take_own,
    to_mean,
    to_surface,
    weigh,
)
from autolabel.refinement.moving_objects import Objects
from autolabel.refinement.network import RefinerNetwork
from datasets.frames import Frame, of_the_moment
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import lidar_evidence
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.taxonomy import Taxonomy
from datasets.visibility import ray_origins

Counts = NDArray[np.uint8]
A = TypeVar("A")

LOG_STEP = 1 / 16
"""Log probabilities are kept as multiples of this, down to -255 of them (1.2e-7)."""
OBSERVED_WEIGHT = np.float32(4)
"""Weight of a frame where its own LiDAR observed the voxel; 1 elsewhere."""
HIT_EDGES = (1, 2, 4, 8, 16)
PASS_EDGES = (1, 4, 16, 64)
"""Lower edges of the bins of hits and passes; the first bin is none."""
BLOCK = 8192
"""Voxels that are pooled together."""
EVIDENCE_BINS = (len(HIT_EDGES) + 1) * (len(PASS_EDGES) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Which parts of temporal fusion are on.

    Attributes:
        near, far: pool with frames at these offsets, before and after.
        evidence: use LiDAR hits and passes.
        past_only: use earlier frames only, as on board.
        objects: what moves is looked up where other frames saw it (``moving_objects``), for the
            network; else what they saw there is left out.
    """

    near: tuple[int, ...] = (1,)
    far: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    evidence: bool = True
    past_only: bool = False
    objects: bool = True

    @property
    def reach(self) -> int:
        """Frames needed before and after."""
        return max((*self.near, *self.far), default=0)

    def to_json(self) -> dict[str, Any]:
        """JSON values; without ``objects`` where they are off, as before there were any."""
        values: dict[str, Any] = asdict(self) | {"near": list(self.near), "far": list(self.far)}
        if not self.objects:
            del values["objects"]
        return values

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Refinement:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        return cls(
            near=tuple(int(n) for n in data["near"]),
            far=tuple(int(n) for n in data["far"]),
            evidence=bool(data["evidence"]),
            past_only=bool(data["past_only"]),
            objects=bool(data.get("objects", False)),
        )


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

    def __post_init__(self) -> None:
        n_classes = len(self.own_evidence)
        if self.network is not None and self.network.shape.classes != n_classes:
            raise ValueError(
                f"a network of {self.network.shape.classes} classes in a refiner of {n_classes}"
            )
        for name in ("own_evidence", "other_evidence"):
            table = getattr(self, name)
            if table.ndim != 2 or table.shape[1] != EVIDENCE_BINS or not np.isfinite(table).all():
                raise ValueError(f"{name} must be finite values of shape (K, {EVIDENCE_BINS})")
        if not np.isfinite([self.own, self.near, self.far, self.self_only]).all():
            raise ValueError("the weights of a refiner must be finite")

    def to_json(self) -> dict[str, Any]:
        network = {} if self.network is None else {"network": self.network.to_json()}
        return {
            "how": self.config.to_json(),
            "own": self.own,
            "near": self.near,
            "far": self.far,
            "alone": self.self_only,
            "own_evidence": np.round(self.own_evidence.astype(float), 5).tolist(),
            "other_evidence": np.round(self.other_evidence.astype(float), 5).tolist(),
            "voxels": self.voxels,
            **network,
        }

    def describe(self) -> dict[str, Any]:
        """As ``to_json``, with what tells the network from others in the place of its weights."""
        network = {} if self.network is None else {"network": self.network.describe()}
        return self.to_json() | network

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Refiner:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if "offsets" in data:
            raise ValueError("a refiner of an older set, with offsets: calibrate the weights again")
        return cls(
            config=Refinement.from_json(data["how"]),
            own=float(data["own"]),
            near=float(data["near"]),
            far=float(data["far"]),
            self_only=float(data["alone"]),
            own_evidence=np.asarray(data["own_evidence"], np.float32),
            other_evidence=np.asarray(data["other_evidence"], np.float32),
            voxels=int(data["voxels"]),
            network=RefinerNetwork.from_json(data["network"]) if "network" in data else None,
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
        objects: (X, Y, Z) numbers of objects that can move, the same in every frame of the scene;
            0: none. None: nobody followed them.
    """

    timestamp_us: int
    T_global_grid: Transform
    surprisal: NDArray[np.uint8]
    moving: NDArray[np.bool_]
    hits: Counts
    passes: Counts
    ends: NDArray[np.float32]
    origin: NDArray[np.float64]
    intensity: NDArray[np.float32]
    objects: NDArray[np.uint16] | None = None


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
            ``to_surface``.
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
        timestamp_us=frame.timestamp_us,
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
    hits = np.zeros(grid.n_voxels, np.int32)
    passes = np.zeros(grid.n_voxels, np.int32)
    returns = np.zeros((2, grid.n_voxels, SURFACE), np.float32)
    low_and_size = np.asarray(grid.min_m, np.float64), np.asarray(grid.size_m, np.float64)
    add_returns(frame.ends, frame.intensity, *low_and_size, grid.shape, returns[0])
    slots, objects = np.zeros(grid.n_voxels, np.intp), None
    if config.objects and frame.objects is not None and frame.objects.any():
        objects = Objects(frame.objects, grid)
        slots = objects.grown(frame.objects).ravel()
    nowhere = np.full((1, 3), np.nan)
    others: list[list[tuple[tuple[Any, Any, Any, Any, Any], Any]]] = []
    for offsets in (config.near, config.far):
        others.append([])
        for other in _at(offsets, window, k, past_only=config.past_only):
            T_other_frame = inverse(other.T_global_grid) @ frame.T_global_grid
            affine = _affine(T_other_frame, grid)
            shifts = nowhere
            if objects is not None and other.objects is not None:
                shifts = objects.shifts(other.objects, *affine)
            lidar = other.hits, other.passes
            others[-1].append(((*affine, other.surprisal, other.moving, lidar), shifts))
            if config.evidence:
                T_frame_other = inverse(T_other_frame)
                ends, origin = apply(T_frame_other, other.ends), apply(T_frame_other, other.origin)
                ended, passed = lidar_evidence(origin, ends, grid)
                add_returns(ends, other.intensity, *low_and_size, grid.shape, returns[1])
                hits += ended.ravel()
                passes += passed.ravel()
    own, near, far = np.empty((3, len(cells), n_classes), np.float32)
    self_only = np.empty(len(cells), np.bool_)
    dynamic = np.isin(np.arange(n_classes), taxonomy.dynamic)
    step = np.float32(-LOG_STEP)
    surface = np.empty((len(cells), 2 * SURFACE), np.float32)
    none = np.zeros(BLOCK, np.intp)
    for start in range(0, len(cells), BLOCK):  # its sums stay in a core's cache
        block = slice(start, start + BLOCK)
        surprisal = frame.surprisal.reshape(-1, n_classes)
        to_surface(cells[block], returns, surface[block])
        take_own(cells[block], surprisal, dynamic, step, own[block], self_only[block])
        fallback = own[block]
        for mean, seen in zip((near[block], far[block]), others, strict=True):
            mean[:] = 0
            weight = np.zeros(len(mean), np.float32)
            for other_frame, shifts in seen:
                add_surprisal(
                    cells[block],
                    *other_frame,
                    OBSERVED_WEIGHT,
                    slots[cells[block]] if len(shifts) > 1 else none[: len(mean)],
                    shifts,
                    mean,
                    weight,
                )
            to_mean(mean, weight, step, fallback)
            fallback = mean
    return Pooled(
        own=own,
        near=near,
        far=far,
        self_only=self_only,
        own_bin=_bin(frame.hits.ravel()[cells], frame.passes.ravel()[cells]),
        other_bin=_bin(hits[cells], passes[cells]),
        surface=surface,
    )


def _at(
    offsets: Sequence[int], window: Sequence[FrameEvidence], k: int, *, past_only: bool
) -> Iterator[FrameEvidence]:
    for offset in offsets:
        for j in (k - offset, *(() if past_only else (k + offset,))):
            if 0 <= j < len(window):
                yield window[j]


def refine(
    pooled: Pooled, refiner: Refiner, config: Refinement, grid: VoxelGrid
) -> NDArray[np.float32]:
    """(X, Y, Z, K) logits, of a frame whose voxels were all pooled: the pool's, and what the
    network adds."""
    logits = pool_logits(pooled, refiner, config).reshape(*grid.shape, -1)
    if refiner.network is not None:
        logits = refiner.network.of_frame(
            (pooled.own, pooled.near, pooled.far),
            (pooled.own_bin, pooled.other_bin),
            pooled.surface,
            logits,
        )
    return logits


def pool_logits(pooled: Pooled, refiner: Refiner, config: Refinement) -> NDArray[np.float32]:
    """(V, K) logits of the log-linear pool."""
    weights = (
        refiner.own,
        refiner.near if config.near else 0.0,
        refiner.far if config.far else 0.0,
        refiner.self_only,
    )
    used = np.float32(config.evidence)
    logits = np.empty_like(pooled.own)
    weigh(
        (pooled.own, pooled.near, pooled.far),
        pooled.self_only,
        (pooled.own_bin, pooled.other_bin),
        np.asarray(weights, np.float32),
        np.ascontiguousarray(refiner.own_evidence.T) * used,
        np.ascontiguousarray(refiner.other_evidence.T) * used,
        logits,
    )
    return logits


def _bin(hits: NDArray[Any], passes: NDArray[Any]) -> NDArray[np.intp]:
    h = _of_count(HIT_EDGES)[np.minimum(hits, HIT_EDGES[-1])]
    p = _of_count(PASS_EDGES)[np.minimum(passes, PASS_EDGES[-1])]
    return np.asarray(h * (len(PASS_EDGES) + 1) + p)


def _of_count(edges: tuple[int, ...]) -> NDArray[np.intp]:
    """The bin of every count up to the last edge."""
    return np.searchsorted(edges, np.arange(edges[-1] + 1), side="right")


def _affine(T: Transform, grid: VoxelGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset that take a cell's indices to (fractional) indices under ``T``."""
    size, low = np.asarray(grid.size_m), np.asarray(grid.min_m)
    matrix = T[:3, :3] * size[None, :] / size[:, None]
    offset = (T[:3, :3] @ (low + size / 2) + T[:3, 3] - low) / size
    return matrix, offset
