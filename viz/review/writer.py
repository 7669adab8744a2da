"""The reviewer's hand in the overlay: entries are written in order by a thread of their own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from datasets.errors import AutolabelError
from datasets.reviews.overlay import (
    EditEntry,
    FrameVerdict,
    NoteEntry,
    Reviews,
    VerdictEntry,
    Written,
)
from viz.review.error_rate import Estimate, Estimator
from viz.review.priority import ReviewPriority
from viz.review.review_queue import judged, suspicion_for


class ReviewWriter:
    """Writes for one reviewer, reads what others wrote and keeps the estimate of the share of
    wrong frames, off the interface's thread.

    Args:
        reviews: the overlay; None where the labels have none, then every write says so.
        suspicion: that the queue was made with; the store's own, if none is given.
        told: called, in another thread, whenever something was written, read, counted or refused.
    """

    def __init__(
        self,
        reviews: Reviews | None,
        reviewer: str,
        told: Callable[[], None],
        *,
        suspicion: ReviewPriority | None = None,
    ) -> None:
        self.reviews, self.reviewer, self._told = reviews, reviewer, told
        self.message, self.failed = "", False
        self.estimate: Estimate | None = None
        self._suspicion = suspicion
        self._estimator: Estimator | None = None
        self._to_count = threading.Event()
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="review-pen")
        self._counter = ThreadPoolExecutor(1, thread_name_prefix="review-counter")
        self._reading: Future[None] | None = None
        self._count_again()

    def write(self, *entries: Written) -> None:
        """Write them one after the other."""
        self._pen.submit(self._do, lambda reviews: self._write(reviews, entries))

    def undo(self) -> None:
        """Take back this reviewer's last entry."""
        self._pen.submit(self._do, self._undo)

    def refresh(self) -> None:
        """Read what others wrote; a call while one is under way does nothing."""
        if self.reviews is None or not (self._reading is None or self._reading.done()):
            return
        self._reading = self._pen.submit(self._refresh, self.reviews)

    def close(self) -> None:
        """Wait until all is written."""
        self._pen.shutdown(wait=True)
        self._counter.shutdown(wait=True, cancel_futures=True)

    def verdicts(self, scene_id: str) -> dict[str, FrameVerdict]:
        """Of judged frames, by token."""
        return {} if self.reviews is None else self.reviews.verdicts(scene_id)

    def judged(self) -> set[tuple[str, str]]:
        """Scene and token of every frame that somebody judged."""
        return set() if self.reviews is None else judged(self.reviews)

    def strokes(self, scene_id: str, token: str) -> tuple[str, ...]:
        """Ids of the strokes that a frame's labels have."""
        if self.reviews is None:
            return ()
        return tuple(
            entry.id
            for entry in self.reviews.entries(scene_id)
            if isinstance(entry.what, EditEntry) and entry.what.token == token
        )

    def overlay_words(self, scene_id: str, token: str) -> str:
        """How many entries there are, whose, and what was painted here."""
        if self.reviews is None:
            return "these labels have none: nothing can be written"
        entries = self.reviews.entries()
        mine = sum(entry.reviewer == self.reviewer for entry in entries)
        words = [f"{mine:,} of yours", f"{len(entries) - mine:,} of others"]
        strokes = len(self.strokes(scene_id, token))
        notes = [
            entry.what.note
            for entry in self.reviews.entries(scene_id)
            if isinstance(entry.what, NoteEntry) and entry.what.token == token
        ]
        words += [f"{strokes} strokes here"] * bool(strokes)
        words += [f"note: {note}" for note in notes]
        for n, what in ((len(self.reviews.stale()), "stale"), (len(self.reviews.damaged()), "bad")):
            words += [f"{n:,} {what}"] * bool(n)
        return ", ".join(words)

    def estimate_words(self) -> tuple[str, str]:
        """The share of wrong frames, and how many more frames make it certain enough."""
        found = self.estimate
        if found is None:
            return "", ""
        if math.isnan(found.wrong_share):
            return f"{found.n_reviewed:,} of {found.n_frames:,} frames judged", ""
        share, low, high = (100 * x for x in (found.wrong_share, found.low, found.high))
        more = found.more_for(0.02)
        return (
            f"{share:.1f} % (95 %: {low:.1f}..{high:.1f})",
            f"{more:,} more drawn frames for +-2 %" if more else "known to +-2 %",
        )

    def _do(self, act: Callable[[Reviews], str]) -> None:
        self.failed = False
        try:
            if self.reviews is None:
                raise AutolabelError("these labels have no review overlay")
            self.message = act(self.reviews)
        except (AutolabelError, ValueError) as error:
            self.message, self.failed = f"not written: {error}", True
        self._told()
        self._count_again()

    def _write(self, reviews: Reviews, entries: tuple[Written, ...]) -> str:
        for what in entries:
            reviews.add(what, reviewer=self.reviewer)
        return f"saved: {in_words(*entries)}"

    def _undo(self, reviews: Reviews) -> str:
        entry = reviews.undo(self.reviewer)
        return "nothing of yours to undo" if entry is None else f"undone: {in_words(entry.what)}"

    def _refresh(self, reviews: Reviews) -> None:
        try:
            new = reviews.refresh()
        except AutolabelError as error:
            self.message, self.failed, new = str(error), True, True
        if new:
            self._told()
            self._count_again()

    def _count_again(self) -> None:
        """Once more after all that is known now; what waits already will see it too."""
        if self.reviews is not None and not self._to_count.is_set():
            self._to_count.set()
            self._counter.submit(self._count, self.reviews)

    def _count(self, reviews: Reviews) -> None:
        self._to_count.clear()
        if self._estimator is None:
            suspicion = self._suspicion or suspicion_for(reviews.store)
            self._estimator = Estimator.of_store(reviews.store, suspicion)
        self.estimate = self._estimator.of_reviews(reviews)
        self._told()


def in_words(*entries: Written) -> str:
    """What entries say, for a line of text."""
    parts = []
    judgements = [entry for entry in entries if isinstance(entry, VerdictEntry)]
    if judgements:
        n = sum(len(one.tokens) for one in judgements)
        parts.append(f"{judgements[0].verdict} on {n} frame{'s' * (n > 1)}")
    for entry in entries:
        if isinstance(entry, EditEntry):
            parts.append(f"{len(entry.voxels):,} voxels painted")
        elif isinstance(entry, NoteEntry):
            parts.append("a note")
    return ", ".join(parts)
