"""Writes one reviewer's entries, on threads of its own where the caller must not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from datasets.errors import AutolabelError
from datasets.reviews.overlay import Entry, Written
from viz.review.error_rate import Estimate
from viz.review.shared_review import SharedReview, in_words


class ReviewWriter:
    """Writes at once; what is refused raises ``AutolabelError``.

    Attributes:
        message: what was done last, in words.
        failed: it was refused.
        undone: the entry that was taken back last.
    """

    def __init__(self, shared: SharedReview, reviewer: str) -> None:
        self.shared, self.reviewer = shared, reviewer
        self.message, self.failed = "", False
        self.undone: Entry | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits to be read or written."""
        return True

    def write(self, *entries: Written) -> None:
        """Write entries one after the other."""
        self._run(lambda: self.shared.write(*entries, reviewer=self.reviewer))

    def undo(self) -> None:
        """Take back this reviewer's last entry."""
        self._run(self._undo)

    def _run(self, act: Callable[[], str]) -> None:
        self.message = act()

    def _undo(self) -> str:
        self.undone = self.shared.undo(self.reviewer)
        if self.undone is None:
            return f"{self.reviewer} has nothing to take back"
        return f"taken back: {in_words(self.undone.what)}"


class BackgroundWriter(ReviewWriter):
    """Returns at once: one thread reads and writes in order, another estimates the error rate.
    What is refused is said in ``message``.

    Args:
        on_change: called, in another thread, whenever something was written, read, estimated or
            refused.
    """

    def __init__(self, shared: SharedReview, reviewer: str, on_change: Callable[[], None]) -> None:
        super().__init__(shared, reviewer)
        self.estimate: Estimate | None = None
        self._on_change = on_change
        self._estimate_due = threading.Event()
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="review-pen")
        self._estimating = ThreadPoolExecutor(1, thread_name_prefix="review-estimate")
        self._last: Future[None] | None = None
        self._estimate_again()

    @property
    def idle(self) -> bool:
        return self._last is None or self._last.done()

    def refresh(self) -> None:
        """Read what others wrote, unless something is read or written right now."""
        if self.idle:
            self._last = self._pen.submit(self._refresh)

    def close(self) -> None:
        """Wait until all is written."""
        self._pen.shutdown(wait=True)
        self._estimating.shutdown(wait=True, cancel_futures=True)

    def _run(self, act: Callable[[], str]) -> None:
        self._last = self._pen.submit(self._do, act)

    def _do(self, act: Callable[[], str]) -> None:
        try:
            self.message, self.failed = act(), False
        except AutolabelError as error:
            self.message, self.failed = f"not written: {error}", True
        self._changed()

    def _refresh(self) -> None:
        try:
            if not self.shared.refresh():
                return
        except AutolabelError as error:
            self.message, self.failed = str(error), True
        self._changed()

    def _changed(self) -> None:
        self._on_change()
        self._estimate_again()

    def _estimate_again(self) -> None:
        """Once more after all that is known now; what waits already will see it too."""
        if self.shared.overlay is not None and not self._estimate_due.is_set():
            self._estimate_due.set()
            self._estimating.submit(self._estimate)

    def _estimate(self) -> None:
        self._estimate_due.clear()
        self.estimate = self.shared.estimate()
        self._on_change()
