"""Which scenes, frames and voxels to label next, told from the labels that a teacher gave them.

After the paper's active learning (EFFOcc, Table VII): voxels are worth a person's time where the
teacher is unsure. The published sampler sorts by scene names, selects in mirrored coordinates and
pads with voxels that nobody saw; nothing of that is here: whatever is chosen lies in the store's
own voxels and was observed.

A score is a mean over classes, so that free space, which is most of the voxels and easy, weighs as
much as any other class: what a frame holds of it (bits, disputed voxels), over the voxels that the
class has in an average frame.

Legend: N candidates, X Y Z voxels, K classes, R rings of distance, D numbers of a description.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.json_files import read_json_file
from datasets.label_store import StoredScene, StoreHeader
from datasets.log_identity import require_same_frame
from datasets.store_tools import RINGS_M, ring_of
from datasets.voxel_labels import FrameLabels, MaskBit

Strategy = Literal["mix", "entropy", "disagreement", "audit", "diversity", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
POOL = 3
"""The mix chooses the most diverse of so many times the budget, those that score best."""
OBSERVED = np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What the labels of some frames hold.

    Attributes:
        frames: how many.
        voxels: (R, K) observed voxels by ring and class.
        bits: (K,) sum of their uncertainties by class, see ``uncertainty``.
        disputed: (K,) voxels that two labels differ on, counted half for either's class.
    """

    frames: int
    voxels: Floats
    bits: Floats
    disputed: Floats

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            frames=self.frames + other.frames,
            voxels=self.voxels + other.voxels,
            bits=self.bits + other.bits,
            disputed=self.disputed + other.disputed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scene, or a frame of one, that may be chosen.

    Attributes:
        frame: index of the frame; None: the whole scene.
        token: of the frame.
        labelled: it is labelled already: never chosen, but others should differ from it.
    """

    scene_id: str
    counts: Counts
    frame: int | None = None
    token: str = ""
    labelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the candidates.

    Attributes:
        index: of the candidate.
        scores: why, by name; higher is more urgent.
        ranks: of each score among the candidates that were not labelled, 1 the most urgent.
        distance: of its description from the nearest labelled or earlier chosen one; infinite for
            the first.
    """

    index: int
    scores: dict[str, float]
    ranks: dict[str, int]
    distance: float


def uncertainty(levels: Sequence[float]) -> Floats:
    """Bits of each confidence level: the binary entropy of P(label is right); 1 from one half down,
    where the label is more likely wrong than right."""
    p = np.clip(np.asarray(levels, np.float64), 0.5, 1.0)
    q = 1 - p
    logs = np.log2(q, out=np.zeros_like(q), where=q > 0)
    return np.asarray(-p * np.log2(p) - q * logs, np.float64)


def count_scene(
    scene: StoredScene, header: StoreHeader, second: StoredScene | None = None
) -> list[Counts]:
    """Read a scene and count frame by frame.

    Disputed are the observed voxels that the second store's labels of the same frame contradict;
    without one, those that the frame before contradicts (``flicker``).

    Raises:
        SceneError: it cannot be read, or the second store lacks one of its frames.
        SetupError: the second store is of another log.
    """
    rings, bits = ring_of(header.grid), uncertainty(header.levels)
    K, R = header.taxonomy.n_classes, len(RINGS_M) + 1
    found: list[Counts] = []
    before: FrameLabels | None = None
    for k, token in enumerate(scene.frame_tokens):
        labels = scene.frame(k)
        seen = ((labels.mask & OBSERVED) > 0) & (labels.semantics < K)
        classes = labels.semantics[seen].astype(np.int64)
        if second is not None:
            if token not in second.frame_tokens:
                rule = "the second store has no labels of this frame"
                raise SceneError(where=f"scene {scene.scene_id}", frame=token, rule=rule)
            other = second.frame(second.index_of(token))
            require_same_frame("the second store", other, labels, header.frame)
            disputed = contradictions(labels, other, K)
        elif before is not None:
            disputed = flicker(before, labels, header.grid, K)
        else:
            disputed = np.zeros(K)
        counts = np.bincount(rings[seen] * K + classes, minlength=R * K)
        found.append(
            Counts(
                frames=1,
                voxels=counts.reshape(R, K).astype(np.float64),
                bits=np.bincount(classes, bits[labels.confidence[seen]], K).astype(np.float64),
                disputed=disputed,
            )
        )
        before = labels
    return found


def contradictions(labels: FrameLabels, other: FrameLabels, n_classes: int) -> Floats:
    """(K,) voxels that either calls observed and the two label differently."""
    known = (labels.semantics < n_classes) & (other.semantics < n_classes)
    differ = known & (((labels.mask | other.mask) & OBSERVED) > 0)
    differ &= labels.semantics != other.semantics
    return _halves(labels.semantics[differ], other.semantics[differ], n_classes)


def flicker(before: FrameLabels, now: FrameLabels, grid: VoxelGrid, n_classes: int) -> Floats:
    """(K,) observed voxels of things that do not move whose class the frame before does not know.

    A voxel's centre lies between eight voxels of the frame before; it is disputed if all eight were
    observed, none is of a class that can move, and none has its label. So the edges of things do
    not flicker because the vehicle moved by half a voxel.
    """
    still = _still(now, n_classes)
    cells = np.argwhere(still)
    T_before_now = _between(before.T_global_grid, now.T_global_grid)
    corner = np.floor(grid.cells(apply(T_before_now, grid.centers(cells))) - 0.5).astype(np.int64)
    inside = ((corner >= 0) & (corner < np.asarray(grid.shape) - 1)).all(axis=1)
    cells, corner = cells[inside], corner[inside]
    label = now.semantics[tuple(cells.T)]
    was_still = _still(before, n_classes)
    comparable, known = np.ones(len(cells), bool), np.zeros(len(cells), bool)
    for offset in np.ndindex(2, 2, 2):
        at = tuple((corner + offset).T)
        comparable &= was_still[at]
        known |= before.semantics[at] == label
    disputed = comparable & ~known
    nearest = before.semantics[tuple((corner[disputed] + 1).T)]
    return _halves(label[disputed], nearest, n_classes)


def _still(labels: FrameLabels, n_classes: int) -> NDArray[np.bool_]:
    moving = (labels.mask & np.uint8(MaskBit.DYNAMIC)) > 0
    return ((labels.mask & OBSERVED) > 0) & ~moving & (labels.semantics < n_classes)


def _between(T_global_dst: Transform, T_global_src: Transform) -> Transform:
    return np.asarray(inverse(T_global_dst) @ T_global_src, np.float64)


def _halves(a: NDArray[np.uint8], b: NDArray[np.uint8], n_classes: int) -> Floats:
    both = np.bincount(a, minlength=n_classes) + np.bincount(b, minlength=n_classes)
    return np.asarray(both / 2, np.float64)


def candidates(
    counted: Mapping[str, Sequence[tuple[str, Counts]]],
    *,
    by_frame: bool,
    labelled: Sequence[str] = (),
) -> list[Candidate]:
    """Scenes or frames in order.

    Args:
        counted: token and counts of every frame by scene id.
        labelled: scenes that are labelled already.
    """
    found = []
    for scene_id, frames in sorted(counted.items()):
        known = scene_id in labelled
        if by_frame:
            found += [
                Candidate(scene_id=scene_id, counts=one, frame=k, token=token, labelled=known)
                for k, (token, one) in enumerate(frames)
            ]
        else:
            total = frames[0][1]
            for _, one in frames[1:]:
                total = total + one
            found.append(Candidate(scene_id=scene_id, counts=total, labelled=known))
    return found


def score(
    those: Sequence[Candidate], audit: Mapping[str, float] | None = None
) -> dict[str, Floats]:
    """``entropy``, ``disagreement`` and, where there is one, ``audit``: (N,) each."""
    found = {
        "entropy": _balanced(those, [one.counts.bits for one in those]),
        "disagreement": _balanced(those, [one.counts.disputed for one in those]),
    }
    if audit is not None:
        found["audit"] = np.asarray([audit[one.scene_id] for one in those], np.float64)
    return found


def _balanced(those: Sequence[Candidate], of_class: Sequence[Floats]) -> Floats:
    """Per frame, over what the class has in an average frame; mean of the classes there are."""
    frames = np.asarray([one.counts.frames for one in those], np.float64)
    voxels = np.sum([one.counts.voxels.sum(0) for one in those], axis=0) / frames.sum()
    there = voxels > 0
    if not there.any():
        return np.zeros(len(those))
    per_frame = np.stack(of_class)[:, there] / frames[:, None]
    return np.asarray((per_frame / voxels[there]).mean(1), np.float64)


def describe(those: Sequence[Candidate]) -> Floats:
    """(N, D) what tells candidates apart: the shares of the classes in each ring of distance, and
    how unsure each class is. Every number is measured in its standard deviations."""
    rows = []
    for one in those:
        voxels = one.counts.voxels
        shares = voxels / np.maximum(1, voxels.sum(1, keepdims=True))
        unsure = one.counts.bits / np.maximum(1, voxels.sum(0))
        rows.append(np.concatenate([np.sqrt(shares).ravel(), unsure]))
    table = np.stack(rows)
    spread = table.std(0)
    kept = spread > 1e-9
    return np.asarray((table[:, kept] - table[:, kept].mean(0)) / spread[kept], np.float64)


def choose(
    those: Sequence[Candidate],
    scores: Mapping[str, Floats],
    *,
    budget: int,
    strategy: Strategy,
    seed: int = 0,
    gap: int = 1,
) -> list[Choice]:
    """The candidates to label, in the order in which they were chosen; fewer than the budget where
    there are no more. Ties go to the first.

    ``diversity`` takes the farthest from all that is labelled or chosen (k-centre greedy, Sener and
    Savarese, ICLR 2018), to begin with, where nothing is labelled, the most typical one; ``mix``
    does so among those with the best mean rank over the scores, and begins with the best.

    Args:
        scores: by name, see ``score``.
        seed: of ``random``.
        gap: between frames that are chosen in one scene, in frames.

    Raises:
        SetupError: the strategy needs a score that is not there.
        ValueError: the budget or the gap is below 1.
    """
    if budget < 1 or gap < 1:
        raise ValueError(f"budget and gap must be positive: {budget}, {gap}")
    if strategy not in ("mix", "diversity", "random", *scores):
        raise SetupError(f"strategy {strategy} needs a score that was not given")
    free = np.asarray([not one.labelled for one in those], bool)
    described = describe(those)
    nearest = np.full(len(those), math.inf)
    for k in np.flatnonzero(~free):
        nearest = np.minimum(nearest, _distances(described, int(k)))
    ranks = {name: _ranks(values, free) for name, values in scores.items()}
    mean_rank = np.mean([_ranks(v, free, tied="mean") for v in scores.values()], axis=0)
    pool = free & (_ranks(-mean_rank, free) <= POOL * budget)
    drawn = np.random.default_rng(seed).permutation(len(those)).astype(np.float64)
    typical = -np.linalg.norm(described, axis=1)
    scene = np.asarray([one.scene_id for one in those])
    frame = np.asarray([-1 if one.frame is None else one.frame for one in those])

    chosen: list[Choice] = []
    while len(chosen) < budget and free.any():
        if strategy == "random":
            value = drawn
        elif strategy == "diversity":
            value = nearest if np.isfinite(nearest).all() else typical
        elif strategy == "mix":
            value = nearest if chosen else -mean_rank
            if (free & pool).any():
                value = np.where(pool, value, -math.inf)
        else:
            value = scores[strategy]
        k = int(np.argmax(np.where(free, value, -math.inf)))
        chosen.append(
            Choice(
                index=k,
                scores={name: float(values[k]) for name, values in scores.items()},
                ranks={name: int(values[k]) for name, values in ranks.items()},
                distance=float(nearest[k]),
            )
        )
        nearest = np.minimum(nearest, _distances(described, k))
        free &= (scene != scene[k]) | (np.abs(frame - frame[k]) >= gap)
    return chosen


def _distances(described: Floats, k: int) -> Floats:
    """Root mean square of the differences from one of them."""
    width = max(1, described.shape[1])
    away = np.linalg.norm(described - described[k], axis=1) / math.sqrt(width)
    return np.asarray(away, np.float64)


def _ranks(
    values: Floats, among: NDArray[np.bool_], tied: Literal["least", "mean"] = "least"
) -> Floats:
    """1 for the highest; of equal ones the same, the least or the mean of theirs."""
    ordered = np.sort(values[among])
    above = len(ordered) - np.searchsorted(ordered, values, side="right")
    least = above + 1.0
    if tied == "least":
        return np.asarray(least, np.float64)
    equal = len(ordered) - above - np.searchsorted(ordered, values, side="left")
    return np.asarray(least + (equal - 1) / 2, np.float64)


def choose_voxels(
    labels: FrameLabels,  # (X, Y, Z)
    levels: Sequence[float],
    share: float,
    *,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """(X, Y, Z) the voxels of a frame to label: the most unsure ones of every predicted class.

    The classes get equal parts of the budget; what a class cannot use goes to the others. Only
    observed voxels count whose label may be wrong, so there may be fewer than asked for. Among
    voxels of one level, of which there are many, chance decides, which follows from seed and token.

    Args:
        share: of all voxels of the grid, 0..1.

    Raises:
        ValueError: the share is not within 0..1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of voxels must lie in 0..1, got {share}")
    bits = uncertainty(levels)[labels.confidence].ravel()
    usable = ((labels.mask & OBSERVED) > 0).ravel() & (bits > 0)
    there = np.flatnonzero(usable)
    budget = round(share * usable.size)
    classes = labels.semantics.ravel()[there]
    rng = np.random.default_rng([seed, zlib.crc32(labels.token.encode())])
    order = np.lexsort((rng.random(len(there)), -bits[there]))
    chosen = np.zeros(usable.size, bool)
    ids, sizes = np.unique(classes, return_counts=True)
    for k, n in zip(ids, equal_parts(sizes, budget), strict=True):
        of_class = order[classes[order] == k]
        chosen[there[of_class[:n]]] = True
    return chosen.reshape(labels.semantics.shape)


def equal_parts(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """The budget divided equally, but nobody gets more than its size: what is over goes to the
    others, and what does not divide to the first."""
    parts = np.zeros(len(sizes), np.int64)
    left = min(budget, int(sizes.sum()))
    while left:
        open_ = np.flatnonzero(parts < sizes)
        if left < len(open_):
            parts[open_[:left]] += 1
            break
        more = np.minimum(left // len(open_), sizes[open_] - parts[open_])
        parts[open_] += more
        left -= int(more.sum())
    return parts


def read_audit(path: Path) -> dict[str, float]:
    """Scores of scenes from an audit's report: JSON whose ``scenes`` are objects with ``scene_id``
    and ``score``; the higher the score, the more is wrong.

    Raises:
        SetupError: it cannot be read or is something else.
    """
    try:
        scenes = read_json_file(path)["scenes"]
        if not isinstance(scenes, list):
            raise ValueError("its scenes are not a list")
        found = {str(one["scene_id"]): float(one["score"]) for one in scenes}
    except OSError as error:
        raise SetupError(f"audit {path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise SetupError(
            f"audit {path}: not a JSON report with a list of scenes, each with scene_id and score: "
            f"{type(error).__name__}: {error}"
        ) from error
    if bad := [scene for scene, value in found.items() if not math.isfinite(value)]:
        raise SetupError(f"audit {path}: the score of {bad[0]} is no number")
    return found
