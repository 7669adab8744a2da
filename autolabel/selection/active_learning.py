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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from autolabel.selection.scores import Floats, LabelCounts
from datasets.errors import SetupError

Strategy = Literal["mix", "entropy", "disagreement", "audit", "diversity", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
POOL = 3
"""The mix chooses the most diverse of so many times the budget, those that score best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scene, or a frame of one, that may be chosen.

    Attributes:
        frame: index of the frame; None: the whole scene.
        token: of the frame.
        labelled: it is labelled already: never chosen, but others should differ from it.
    """

    scene_id: str
    counts: LabelCounts
    frame: int | None = None
    token: str = ""
    labelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedCandidate:
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


def candidates(
    counted: Mapping[str, Sequence[tuple[str, LabelCounts]]],
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


def feature_vectors(those: Sequence[Candidate]) -> Floats:
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


def select_candidates(
    those: Sequence[Candidate],
    scores: Mapping[str, Floats],
    *,
    budget: int,
    strategy: Strategy,
    seed: int = 0,
    gap: int = 1,
) -> list[SelectedCandidate]:
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
    described = feature_vectors(those)
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

    chosen: list[SelectedCandidate] = []
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
            SelectedCandidate(
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
