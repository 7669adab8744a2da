"""What a reviewer says in one browser tab: verdicts, their undoing, the way through the queue.

All of it is called by the tab's worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from datasets.reviews.overlay import EditEntry, Entry, NoteEntry, Verdict, VerdictEntry
from viz.browser.html_fragments import entry_in_words, lines, queue_facts, verdict_facts
from viz.browser.panel import Panel
from viz.browser.shared_session import SharedReview
from viz.session.session import ReviewFrame


class VerdictController:
    """See above.

    Args:
        client: ``viser.ClientHandle``, to tell the reviewer what was done.
        show_frame: shows frame k of a scene; called with both.
        frame: with which the tab begins.
    """

    def __init__(
        self,
        desk: SharedReview,
        panel: Panel,
        client: Any,
        show_frame: Callable[[str, int], None],
        frame: ReviewFrame,
    ) -> None:
        self._desk, self._panel, self._client = desk, panel, client
        self._show_frame = show_frame
        self._at = desk.place_of(frame)
        self._seen: tuple[Entry, ...] = ()

    def judge(self, frame: ReviewFrame, verdict: Verdict, *, note: str, reviewer: str) -> None:
        """Write a verdict on a frame; one on the queue's frame leads to its next, if wished."""
        if not reviewer:
            self.warn("Fill in the reviewer's name first.")
            return
        try:
            self._desk.judge(frame, verdict, note=note, reviewer=reviewer)
        except ValueError as error:
            self.warn(str(error))
            return
        self._panel.clear_note()
        self.tell(f"{verdict.value}: {frame.scene_id}, frame {frame.k}; written")
        queued = self._at >= 0 and self._at == self._desk.place_of(frame)
        if queued and self._panel.queue_goes_on:
            self.step_in_queue(1)
        else:
            self.show(frame)

    def undo(self, reviewer: str) -> None:
        """Take back the reviewer's last entry and show its frame."""
        entry = self._desk.reviews.undo(reviewer)
        if entry is None:
            self.tell(f"{reviewer} has nothing to take back.")
            return
        self.tell(f"taken back: {entry_in_words(entry)}")
        match entry.what:
            case VerdictEntry(scene_id=scene_id, tokens=(token, *_)):
                pass
            case (
                EditEntry(scene_id=scene_id, token=token)
                | NoteEntry(scene_id=scene_id, token=token)
            ):
                pass
            case _:
                return
        k = self._desk.session.tokens(scene_id).index(token)
        self._at = self._desk.index_of(scene_id, token, otherwise=self._at)
        self._show_frame(scene_id, k)

    def step_in_queue(self, by: int) -> None:
        """To the next frame of the queue that nobody has judged (1), or to the one before (-1)."""
        queue, judged = self._desk.queue, self._desk.judged()
        at = self._at + by
        while by > 0 and at < len(queue) and (queue[at].scene_id, queue[at].token) in judged:
            at += 1
        if not 0 <= at < len(queue):
            self.tell("All that follows is judged." if by > 0 else "The queue begins here.")
            at = self._at
        self._at = at
        if at >= 0:
            self._show_frame(queue[at].scene_id, queue[at].k)

    def refresh(self, frame: ReviewFrame) -> bool:
        """Read what others wrote and show their verdicts; whether they painted in the scene."""
        self._desk.reviews.refresh()
        now, before = self._desk.reviews.entries(frame.scene_id), self._seen
        if now == before:
            return False
        self.show(frame)
        return _strokes(now) != _strokes(before)

    def show(self, frame: ReviewFrame) -> None:
        """Say what holds for a frame and where the queue is."""
        desk, panel = self._desk, self._panel
        if not desk.takes_verdicts:
            panel.verdict.content = lines(["Ground truth takes no verdicts."])
            return
        self._seen = desk.reviews.entries(frame.scene_id)
        holds = desk.reviews.verdicts(frame.scene_id).get(frame.labels.token)
        panel.verdict.content = verdict_facts(frame, holds, self._seen, now_s=time.time())
        if desk.queue:
            panel.queue.content = queue_facts(desk.queue, self._at, desk.judged())

    def show_estimate(self) -> None:
        """Say what share of the store's frames is wrong, as far as is known."""
        self._panel.estimate.content = lines([self._desk.wrong_share()])

    def warn(self, text: str) -> None:
        self._client.add_notification("Not done", text, color="red", auto_close_seconds=10.0)

    def tell(self, text: str) -> None:
        self._client.add_notification("Review", text, auto_close_seconds=4.0)


def _strokes(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in entries if isinstance(entry.what, EditEntry)]
