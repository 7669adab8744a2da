"""In which order frames are reviewed: most suspect first, with frames drawn by chance in between.

The frames drawn by chance are a seeded permutation of all frames of the store (``sampled_order``),
sorted by a hash of seed, scene and token: the same for everybody, on every day, and with scenes
added or taken away the others keep their order. What is judged already is passed over. From how far
that permutation has been judged, whoever judged it and why, ``error_rate`` tells how much of
the store is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.labels.store import LabelStore
from datasets.reviews.overlay import Reviews
from viz.review.priority import ReviewPriority, read_reports, store_priority

SEED = 0
RANDOM_SHARE = 0.25
_GOLDEN = 0.6180339887498949

Frames = Mapping[str, Sequence[str]]
"""Tokens of the frames of each scene, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """A frame to review.

    Attributes:
        k: index of the frame in its scene.
        why: it is here, in words.
        sampled: it was drawn by chance.
    """

    scene_id: str
    k: int
    token: str
    why: str
    sampled: bool


def review_queue(
    scenes: Frames,
    priority: ReviewPriority | Mapping[tuple[str, int], float] | Mapping[str, float],
    reviewed: Collection[tuple[str, str]],
    *,
    random_share: float = RANDOM_SHARE,
    seed: int = SEED,
) -> tuple[QueueItem, ...]:
    """All frames that are not judged yet, each once.

    Args:
        priority: scores of frames by scene and index, of scenes, or of both.
        reviewed: scene and token of what is judged already.
        random_share: of the items that are drawn by chance, evenly spread.

    Raises:
        ValueError: the share is not in 0..1.
    """
    if not 0 <= random_share <= 1:
        raise ValueError(f"the random share {random_share} is not in 0..1")
    priority = as_priority(priority)
    done = {
        (scene, list(scenes[scene]).index(t)) for scene, t in reviewed if _has(scenes, scene, t)
    }
    orders = {
        True: iter(sampled_order(scenes, seed)),
        False: iter(priority_order(scenes, priority)),
    }
    items: list[QueueItem] = []
    for i in range(sum(map(len, scenes.values())) - len(done)):
        sampled = int((i + 1) * random_share) > int(i * random_share)
        scene_id, k = next(frame for frame in orders[sampled] if frame not in done)
        done.add((scene_id, k))
        why = "drawn at random" if sampled else priority.reason(scene_id, k)
        token = scenes[scene_id][k]
        items.append(QueueItem(scene_id=scene_id, k=k, token=token, why=why, sampled=sampled))
    return tuple(items)


def sampled_order(scenes: Frames, seed: int = SEED) -> list[tuple[str, int]]:
    """Every frame, as scene and index, in an order drawn by chance."""
    drawn = [
        (hashlib.sha256(f"{seed}/{scene_id}/{token}".encode()).digest(), scene_id, k)
        for scene_id, tokens in scenes.items()
        for k, token in enumerate(tokens)
    ]
    return [(scene_id, k) for _, scene_id, k in sorted(drawn)]


def priority_order(scenes: Frames, priority: ReviewPriority) -> list[tuple[str, int]]:
    """Every frame, as scene and index, most suspect first.

    Frames with a score of their own, in scenes without, come first. The others are shared out
    among the scenes in proportion to the scenes' scores (D'Hondt: the n-th frame of a scene
    stands where its score / n does), and in a scene by their own score or else spread over time.
    """
    keyed: list[tuple[tuple[float, ...], str, int]] = []
    for scene_id, tokens in scenes.items():
        own = {k: priority.frames.get((scene_id, k), -1.0) for k in range(len(tokens))}
        score = priority.scenes.get(scene_id)
        turns = sorted(own, key=lambda k: (-own[k], (k * _GOLDEN) % 1))
        for turn, k in enumerate(turns):
            if score is None and own[k] >= 0:
                key = (0.0, -own[k], turn)
            else:
                key = (1.0, -(score or 0.0) / (turn + 1), turn)
            keyed.append((key, scene_id, k))
    return [(scene_id, k) for _, scene_id, k in sorted(keyed)]


def as_priority(
    scores: ReviewPriority | Mapping[tuple[str, int], float] | Mapping[str, float],
) -> ReviewPriority:
    """Plain scores of frames or of scenes, with their reasons."""
    if isinstance(scores, ReviewPriority):
        return scores
    frames = {key: float(v) for key, v in scores.items() if not isinstance(key, str)}
    by_scene = {key: float(v) for key, v in scores.items() if isinstance(key, str)}
    why = {key: f"priority {float(value):.3f}" for key, value in scores.items()}
    return ReviewPriority(scenes=by_scene, frames=frames, why=why)


def queue_of(
    store: LabelStore, reviews: Reviews, priority: ReviewPriority, *, seed: int = SEED
) -> tuple[QueueItem, ...]:
    """What is left to review of a store."""
    return review_queue(frames_of(store), priority, judged(reviews), seed=seed)


def review_priority(store: LabelStore, reports: Sequence[Path] = ()) -> ReviewPriority:
    """Of reports of audits and selections or, without one, the store's own confidence.

    Raises:
        SetupError: a report cannot be read, is none, or is of another store.
    """
    return read_reports(reports, frames_of(store)) if reports else store_priority(store)


def judged(reviews: Reviews) -> set[tuple[str, str]]:
    """Scene and token of every frame with a verdict that counts."""
    return {(scene, token) for scene in reviews.scene_ids() for token in reviews.verdicts(scene)}


def frames_of(store: LabelStore) -> dict[str, tuple[str, ...]]:
    """Tokens of the frames of every committed scene."""
    committed, _ = store.looked_at()
    return {name: tuple(scene["frame_tokens"]) for name, scene in committed.items()}


def _has(scenes: Frames, scene_id: str, token: str) -> bool:
    return scene_id in scenes and token in scenes[scene_id]
