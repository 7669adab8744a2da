"""The reviewer's hand in the overlay: entries are written in order by a thread of their own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from datasets.errors import AutolabelError
from datasets.reviews import (
    Entry,
    FrameVerdict,
    Judgement,
    Remark,
    Reviews,
    Stroke,
    Written,
)


class ReviewDesk:
    """Writes for one reviewer and reads what others wrote, off the interface's thread.

    Args:
        reviews: the overlay; None where the labels have none, then every write says so.
        told: called, in the writing thread, whenever something was written, read or refused.
    """

    def __init__(self, reviews: Reviews | None, reviewer: str, told: Callable[[], None]) -> None:
        self.reviews, self.reviewer, self._told = reviews, reviewer, told
        self.message, self.failed = "", False
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="review-desk")
        self._reading: Future[None] | None = None

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

    def verdicts(self, scene_id: str) -> dict[str, FrameVerdict]:
        """Of judged frames, by token."""
        return {} if self.reviews is None else self.reviews.verdicts(scene_id)

    def judged(self) -> set[tuple[str, str]]:
        """Scene and token of every frame that somebody judged."""
        if self.reviews is None:
            return set()
        scenes = self.reviews.scene_ids()
        return {(scene, token) for scene in scenes for token in self.reviews.verdicts(scene)}

    def strokes(self, scene_id: str, token: str) -> tuple[str, ...]:
        """Ids of the strokes that a frame's labels have."""
        if self.reviews is None:
            return ()
        return tuple(
            entry.id
            for entry in self.reviews.entries(scene_id)
            if isinstance(entry.what, Stroke) and entry.what.token == token
        )

    def entries_on(self, scene_id: str, token: str) -> tuple[Entry, ...]:
        """What people said of a frame, oldest first."""
        if self.reviews is None:
            return ()
        return tuple(e for e in self.reviews.entries(scene_id) if token in _tokens(e.what))

    def n_mine(self) -> int:
        """Entries of this reviewer that count."""
        if self.reviews is None:
            return 0
        return sum(entry.reviewer == self.reviewer for entry in self.reviews.entries())

    def _do(self, act: Callable[[Reviews], str]) -> None:
        self.failed = False
        try:
            if self.reviews is None:
                raise AutolabelError("these labels have no review overlay: nothing is written")
            self.message = act(self.reviews)
        except (AutolabelError, ValueError) as error:
            self.message, self.failed = f"not written: {error}", True
        self._told()

    def _write(self, reviews: Reviews, entries: tuple[Written, ...]) -> str:
        for what in entries:
            reviews.add(what, reviewer=self.reviewer)
        return f"saved: {in_words(*entries)}"

    def _undo(self, reviews: Reviews) -> str:
        entry = reviews.undo(self.reviewer)
        return "nothing of yours to undo" if entry is None else f"undone: {in_words(entry.what)}"

    def _refresh(self, reviews: Reviews) -> None:
        try:
            if reviews.refresh():
                self._told()
        except AutolabelError as error:
            self.message, self.failed = str(error), True
            self._told()


def in_words(*entries: Written) -> str:
    """What entries say, for a line of text."""
    parts = []
    n_frames = sum(len(e.tokens) for e in entries if isinstance(e, Judgement))
    judgements = [e for e in entries if isinstance(e, Judgement)]
    if judgements:
        frames = f"{n_frames} frames" if n_frames > 1 else "1 frame"
        parts.append(f"{judgements[0].verdict} on {frames}")
    for entry in entries:
        if isinstance(entry, Stroke):
            parts.append(f"{len(entry.voxels):,} voxels painted")
        elif isinstance(entry, Remark):
            parts.append("a note")
    return ", ".join(parts)


def _tokens(what: Written) -> tuple[str, ...]:
    if isinstance(what, Judgement):
        return what.tokens
    return (what.token,) if isinstance(what, Remark | Stroke) else ()
