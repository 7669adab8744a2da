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
        ranks: of each score among the candidates that were not labeled, 1 the most urgent.
        distance: of its description from the nearest labeled or earlier chosen one; infinite for
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
    out = []
    for scene_id, frames in sorted(counted.items()):
        is_labeled = scene_id in labelled
        if by_frame:
            out += [
                Candidate(
                    scene_id=scene_id, counts=counts, frame=k, token=token, labelled=is_labeled
                )
                for k, (token, counts) in enumerate(frames)
            ]
        else:
            total = frames[0][1]
            for _, counts in frames[1:]:
                total = total + counts
            out.append(Candidate(scene_id=scene_id, counts=total, labelled=is_labeled))
    return out


def score(pool: Sequence[Candidate], audit: Mapping[str, float] | None = None) -> dict[str, Floats]:
    """``entropy``, ``disagreement`` and, where there is one, ``audit``: (N,) each."""
    scores = {
        "entropy": _balanced(pool, [candidate.counts.bits for candidate in pool]),
        "disagreement": _balanced(pool, [candidate.counts.disputed for candidate in pool]),
    }
    if audit is not None:
        scores["audit"] = np.asarray([audit[candidate.scene_id] for candidate in pool], np.float64)
    return scores


def _balanced(pool: Sequence[Candidate], of_class: Sequence[Floats]) -> Floats:
    """Per frame, over what the class has in an average frame; mean of the classes there are."""
    frames = np.asarray([candidate.counts.frames for candidate in pool], np.float64)
    voxels = np.sum([candidate.counts.voxels.sum(0) for candidate in pool], axis=0) / frames.sum()
    present = voxels > 0
    if not present.any():
        return np.zeros(len(pool))
    per_frame = np.stack(of_class)[:, present] / frames[:, None]
    return np.asarray((per_frame / voxels[present]).mean(1), np.float64)


def feature_vectors(pool: Sequence[Candidate]) -> Floats:
    """(N, D) what tells candidates apart: the shares of the classes in each ring of distance, and
    how unsure each class is. Every number is measured in its standard deviations."""
    rows = []
    for candidate in pool:
        voxels = candidate.counts.voxels
        shares = voxels / np.maximum(1, voxels.sum(1, keepdims=True))
        unsure = candidate.counts.bits / np.maximum(1, voxels.sum(0))
        rows.append(np.concatenate([np.sqrt(shares).ravel(), unsure]))
    table = np.stack(rows)
    spread = table.std(0)
    varying = spread > 1e-9
    return np.asarray((table[:, varying] - table[:, varying].mean(0)) / spread[varying], np.float64)


def select_candidates(
    pool: Sequence[Candidate],
    scores: Mapping[str, Floats],
    *,
    budget: int,
    strategy: Strategy,
    seed: int = 0,
    gap: int = 1,
) -> list[SelectedCandidate]:
    """The candidates to label, in the order in which they were chosen; fewer than the budget where
    there are no more. Ties go to the first.

    ``diversity`` takes the farthest from all that is labeled or chosen (k-centre greedy, Sener and
    Savarese, ICLR 2018), to begin with, where nothing is labeled, the most typical one; ``mix``
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
    free = np.asarray([not candidate.labelled for candidate in pool], bool)
    described = feature_vectors(pool)
    nearest = np.full(len(pool), math.inf)
    for k in np.flatnonzero(~free):
        nearest = np.minimum(nearest, _distances(described, int(k)))
    ranks = {name: _ranks(values, free) for name, values in scores.items()}
    mean_rank = np.mean([_ranks(v, free, tied="mean") for v in scores.values()], axis=0)
    in_pool = free & (_ranks(-mean_rank, free) <= POOL * budget)
    drawn = np.random.default_rng(seed).permutation(len(pool)).astype(np.float64)
    typical = -np.linalg.norm(described, axis=1)
    scene = np.asarray([candidate.scene_id for candidate in pool])
    frame = np.asarray([-1 if candidate.frame is None else candidate.frame for candidate in pool])

    chosen: list[SelectedCandidate] = []
    while len(chosen) < budget and free.any():
        if strategy == "random":
            value = drawn
        elif strategy == "diversity":
            value = nearest if np.isfinite(nearest).all() else typical
        elif strategy == "mix":
            value = nearest if chosen else -mean_rank
            if (free & in_pool).any():
                value = np.where(in_pool, value, -math.inf)
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
    distance = np.linalg.norm(described - described[k], axis=1) / math.sqrt(width)
    return np.asarray(distance, np.float64)


def _ranks(
    values: Floats, among: NDArray[np.bool_], tied: Literal["least", "mean"] = "least"
) -> Floats:
    """1 for the highest; of equal ones the same, the least or the mean of theirs."""
    ordered = np.sort(values[among])
    above = len(ordered) - np.searchsorted(ordered, values, side="right")
    lowest = above + 1.0
    if tied == "least":
        return np.asarray(lowest, np.float64)
    equal = len(ordered) - above - np.searchsorted(ordered, values, side="left")
    return np.asarray(lowest + (equal - 1) / 2, np.float64)
