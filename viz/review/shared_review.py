"""What all reviewers of a store share: its overlay, the order of review, the error rate."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from datasets.errors import SetupError
from datasets.reviews.overlay import (
    EditEntry,
    Entry,
    FrameVerdict,
    NoteEntry,
    Reviews,
    VerdictEntry,
    Written,
)
from viz.review.error_rate import Estimate, Estimator
from viz.review.priority import ReviewPriority
from viz.review.review_queue import QueueItem, judged, review_priority


class SharedReview:
    """The overlay of a store, or none. Threads may share it.

    Args:
        overlay: None where the labels take no entries.
        queue: order of review, may be empty.
        priority: that the queue was made with; None: the store's own.
    """

    def __init__(
        self,
        overlay: Reviews | None,
        queue: Sequence[QueueItem] = (),
        priority: ReviewPriority | None = None,
    ) -> None:
        self.overlay, self.queue = overlay, tuple(queue)
        self._priority = priority
        self._estimator: Estimator | None = None
        self._lock = threading.Lock()

    def verdicts(self, scene_id: str) -> dict[str, FrameVerdict]:
        """Verdict of each judged frame of a scene, by token."""
        return {} if self.overlay is None else self.overlay.verdicts(scene_id)

    def judged(self) -> set[tuple[str, str]]:
        """Scene and token of every frame with a verdict."""
        return set() if self.overlay is None else judged(self.overlay)

    def entries(self, scene_id: str) -> tuple[Entry, ...]:
        """Entries of a scene that count, oldest first."""
        return () if self.overlay is None else self.overlay.entries(scene_id)

    def edits(self, scene_id: str, token: str) -> tuple[str, ...]:
        """Ids of the edits of a frame's labels."""
        return tuple(
            entry.id
            for entry in self.entries(scene_id)
            if isinstance(entry.what, EditEntry) and entry.what.token == token
        )

    def write(self, *entries: Written, reviewer: str) -> str:
        """Write entries in order; what was saved, in words.

        Raises:
            SetupError: the labels take no entries, or the overlay refuses one.
        """
        overlay = self._required()
        try:
            for entry in entries:
                overlay.add(entry, reviewer=reviewer)
        except ValueError as error:
            raise SetupError(str(error)) from error
        return f"saved: {in_words(*entries)}"

    def undo(self, reviewer: str) -> Entry | None:
        """Take back the reviewer's last entry; None if there is none. Raises as ``write``."""
        return self._required().undo(reviewer)

    def refresh(self) -> bool:
        """Read what others wrote; whether there was anything new."""
        return self.overlay is not None and self.overlay.refresh()

    def estimate(self) -> Estimate:
        """The share of wrong frames, from all verdicts. Raises as ``write``."""
        overlay = self._required()
        with self._lock:
            if self._estimator is None:
                priority = self._priority or review_priority(overlay.store)
                self._estimator = Estimator.of_store(overlay.store, priority)
        return self._estimator.of_reviews(overlay)

    def _required(self) -> Reviews:
        if self.overlay is None:
            raise SetupError("these labels have no review overlay")
        return self.overlay


def in_words(*entries: Written) -> str:
    """What entries say, for a line of text."""
    parts = []
    verdicts = [entry for entry in entries if isinstance(entry, VerdictEntry)]
    if verdicts:
        n = sum(len(entry.tokens) for entry in verdicts)
        parts.append(f"{verdicts[0].verdict} on {n} frame{'s' * (n > 1)} of {verdicts[0].scene_id}")
    for entry in entries:
        if isinstance(entry, EditEntry):
            parts.append(f"{len(entry.voxels):,} voxels painted in {entry.scene_id}")
        elif isinstance(entry, NoteEntry):
            parts.append(f"a note in {entry.scene_id}")
    return ", ".join(parts)
