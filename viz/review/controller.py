"""What a reviewer does to the state of the review and to the overlay; for any display."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from datasets.reviews.overlay import NoteEntry, Verdict
from viz.review.actions import perform
from viz.review.editing import edit_entry
from viz.review.error_rate import Estimate
from viz.review.keys import Action
from viz.review.state import ReviewState
from viz.review.writer import ReviewWriter
from viz.session.session import ReviewFrame

VERDICTS = {
    Action.ACCEPT: Verdict.ACCEPT,
    Action.REJECT: Verdict.REJECT,
    Action.UNSURE: Verdict.UNSURE,
}


class ReviewController:
    """The state, and the writer of one reviewer's entries.

    Args:
        notes: on all of the labels.

    A writer that writes at once raises ``AutolabelError`` where it is refused: the state is then
    as before.
    """

    def __init__(
        self, state: ReviewState, writer: ReviewWriter, notes: tuple[str, ...] = ()
    ) -> None:
        self.state, self.writer, self.shared, self.notes = state, writer, writer.shared, notes
        self.update_judged()

    def act(self, action: Action) -> bool:
        """Do what an action does; False where it is the display's to do."""
        if action in VERDICTS:
            self.judge(VERDICTS[action])
        elif action is Action.UNDO:
            self.writer.undo()
        else:
            return perform(self.state, action)
        return True

    def judge(self, verdict: Verdict, *, in_queue: bool = True, in_scene: bool = True) -> None:
        """Write a verdict on the frames of the state and go on as ``ReviewState.move_on``."""
        self.state.message = ""
        self.writer.write(*self.state.verdict_entries(verdict))
        self.state.move_on(in_queue=in_queue, in_scene=in_scene)

    def paint(self, frame: ReviewFrame | None, voxels: NDArray[np.int64] | None) -> None:
        """Write the edit of selected voxels.

        Args:
            frame: that is on the screen; one that the state has left is not painted.
            voxels: flat, of the grid as shown; None or empty: nothing is selected.
        """
        state = self.state
        if frame is None or voxels is None or not len(voxels):
            state.message = "nothing is selected: I chooses a tool, a click a voxel"
        elif frame.labels.token == state.token and state.show.voxels != "labels":
            state.message = "only labels can be painted: L shows them"
        elif frame.labels.token == state.token:
            state.message = ""
            self.writer.write(edit_entry(state, frame, voxels))
            state.note = ""
            state.drop_selection()

    def write_note(self) -> None:
        """Write the note alone, without a verdict."""
        if note := self.state.note:
            self.writer.write(
                NoteEntry(scene_id=self.state.scene_id, token=self.state.token, note=note)
            )
            self.state.note = ""

    def update_judged(self) -> None:
        """Pass over what has a verdict now, whoever gave it or took it back."""
        if self.writer.idle:
            self.state.judged = self.shared.judged()

    def queue_rows(self) -> list[tuple[str, str]]:
        """Where the queue stands, and why its item is in it."""
        state = self.state
        rows = [("note", note) for note in self.notes]
        if state.queue:
            left = sum((i.scene_id, i.token) not in state.judged for i in state.queue)
            rows.append(("to judge", f"{left:,} of {len(state.queue):,} in the queue"))
            if (item := state.item) is not None:
                rows.append(("here because", item.why))
            elif (place := state.next_place()) is not None:
                item = state.queue[place]
                rows.append(("next", f"{item.scene_id} frame {item.k}: {item.why}"))
        return rows

    def overlay_words(self) -> str:
        """How many entries there are, whose, and what was painted or noted on this frame."""
        overlay, token = self.shared.overlay, self.state.token
        if overlay is None:
            return "these labels have none: nothing can be written"
        entries = overlay.entries()
        mine = sum(entry.reviewer == self.writer.reviewer for entry in entries)
        words = [f"{mine:,} of yours", f"{len(entries) - mine:,} of others"]
        if edits := self.shared.edits(self.state.scene_id, token):
            words.append(f"{len(edits)} edits here")
        words += [
            f"note: {entry.what.note}"
            for entry in self.shared.entries(self.state.scene_id)
            if isinstance(entry.what, NoteEntry) and entry.what.token == token
        ]
        words += [f"{n:,} stale" for n in [len(overlay.stale())] if n]
        words += [f"{n:,} bad" for n in [len(overlay.damaged())] if n]
        return ", ".join(words)

    def verdicts(self) -> list[str]:
        """Of every frame of the scene; empty where there is none."""
        by_token = self.shared.verdicts(self.state.scene_id)
        tokens = self.state.tokens[self.state.scene_id]
        return [str(by_token[t].verdict) if t in by_token else "" for t in tokens]

    def verdict_line(self) -> tuple[str, str]:
        """The verdict on this frame, and in words whose it is."""
        state = self.state
        frame = self.shared.verdicts(state.scene_id).get(state.token)
        n = len(state.frames)
        frames = f"frames {state.frames[0]}..{state.frames[-1]}: " if n > 1 else ""
        if frame is None:
            return "", f"{frames}not judged yet"
        whose = "you" if frame.reviewer == self.writer.reviewer else frame.reviewer
        note = f": {frame.note}" if frame.note else ""
        disputed = "; disputed" if frame.disputed else ""
        return str(frame.verdict), f"{frames}{frame.verdict} by {whose}{disputed}{note}"


def estimate_rows(estimate: Estimate | None) -> list[tuple[str, str]]:
    """The share of wrong frames, and how many more frames make it certain enough."""
    if estimate is None:
        return []
    if math.isnan(estimate.wrong_share):
        judged = f"{estimate.n_reviewed:,} of {estimate.n_frames:,} frames judged"
        return [("wrong frames", judged)]
    share, low, high = (100 * x for x in (estimate.wrong_share, estimate.low, estimate.high))
    more = estimate.more_for(0.02)
    return [
        ("wrong frames", f"{share:.1f} % (95 %: {low:.1f}..{high:.1f})"),
        ("to be sure", f"{more:,} more drawn frames for +-2 %" if more else "known to +-2 %"),
    ]
