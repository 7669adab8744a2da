"""What an overlay holds, in numbers, and carrying it from one store to another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from datasets.errors import UnreadableError
from datasets.labels.store import LabelStore
from datasets.reviews.entries import EditEntry, Verdict
from datasets.reviews.overlay import REVIEWS, Reviews
from datasets.storage.backend import GROUP, write_group
from datasets.taxonomy import IGNORE_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCounts:
    """Attributes:
    accepted, rejected, unsure: frames.
    disputed: frames on which reviewers differ.
    notes: verdicts and strokes with a note, and notes alone.
    strokes: that count.
    painted_frames, painted, ignored: of frames that are not rejected: how many have strokes, how
        many voxels were given a class, how many were taken out.
    reviewers: whose entries count, sorted.
    stale: entries on labels that the store no longer has.
    damaged: names of files that are no entries.
    """

    accepted: int
    rejected: int
    unsure: int
    disputed: int
    notes: int
    strokes: int
    painted_frames: int
    painted: int
    ignored: int
    reviewers: tuple[str, ...]
    stale: int
    damaged: tuple[str, ...]

    @property
    def changes(self) -> str:
        """What they change for those who learn from the labels, in words; empty if nothing."""
        parts = []
        if self.rejected:
            parts.append(f"{self.rejected} frames rejected and left out")
        if self.painted_frames:
            parts.append(
                f"{self.painted:,} voxels given a class and {self.ignored:,} taken out in "
                f"{self.painted_frames} frames"
            )
        return "; ".join(parts)


def count_reviews(reviews: Reviews) -> ReviewCounts:
    """Counts of an overlay as it was read."""
    verdicts = dict.fromkeys(Verdict, 0)
    disputed = frames = painted = ignored = 0
    for scene_id in reviews.scene_ids():
        for verdict in reviews.verdicts(scene_id).values():
            verdicts[verdict.verdict] += 1
            disputed += verdict.disputed
        rejected = reviews.rejected(scene_id)
        for token, edits in reviews.edits(scene_id).items():
            if token not in rejected:
                frames += 1
                left, out = _outcome(edits)
                painted, ignored = painted + left, ignored + out
    entries = reviews.entries()
    return ReviewCounts(
        accepted=verdicts[Verdict.ACCEPT],
        rejected=verdicts[Verdict.REJECT],
        unsure=verdicts[Verdict.UNSURE],
        disputed=disputed,
        notes=sum(bool(getattr(entry.what, "note", "")) for entry in entries),
        strokes=sum(isinstance(entry.what, EditEntry) for entry in entries),
        painted_frames=frames,
        painted=painted,
        ignored=ignored,
        reviewers=tuple(sorted({entry.reviewer for entry in entries})),
        stale=len(reviews.stale()),
        damaged=reviews.damaged(),
    )


def carry_over(stores: Iterable[LabelStore], out: LabelStore) -> int:
    """Copy the entries of stores to another one; gives how many are new there. What is there
    stays, so that it can be repeated.

    Raises:
        UnreadableError: an entry cannot be read.
        OSError: an entry cannot be written.
    """
    new = 0
    for store in stores:
        names = [name for name in store.place.list_files(REVIEWS) if name != GROUP]
        if names:
            write_group(out.place, REVIEWS, {})
        for name in names:
            key = f"{REVIEWS}/{name}"
            try:
                document = store.place.read(key)
            except OSError as error:
                raise UnreadableError(f"label store {store.place}: {key}: {error}") from error
            new += out.place.create(key, document)
    return new


def _outcome(edits: Iterable[EditEntry]) -> tuple[int, int]:
    """Voxels of a frame that end with a class, and those that end ignored."""
    newest_first = list(edits)[::-1]
    voxels = np.concatenate([edit.voxels for edit in newest_first])
    ids = np.concatenate([np.full(len(edit.voxels), edit.class_id) for edit in newest_first])
    _, first = np.unique(voxels, return_index=True)
    ignored = int((ids[first] == IGNORE_ID).sum())
    return len(first) - ignored, ignored
