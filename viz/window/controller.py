"""A review session without its window: actions in, jobs to be made and words to be shown out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from datasets.reviews.overlay import NoteEntry, Verdict
from viz.review.actions import perform
from viz.review.editing import stroke
from viz.review.keys import Action
from viz.review.state import Available, ReviewState
from viz.review.writer import ReviewWriter
from viz.session.session import ReviewFrame
from viz.window.render_jobs import (
    FactsJob,
    Job,
    MadeSelection,
    MadeView,
    PicturesJob,
    SelectionJob,
    ViewJob,
)

_VERDICTS = {
    Action.ACCEPT: Verdict.ACCEPT,
    Action.REJECT: Verdict.REJECT,
    Action.UNSURE: Verdict.UNSURE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Jobs that the state asks for; ``ahead`` will be asked for next."""

    view: ViewJob
    pictures: PicturesJob
    facts: FactsJob | None
    selection: SelectionJob | None
    ahead: tuple[Job, ...]

    def in_order(self) -> tuple[Job, ...]:
        """Most urgent first."""
        now = (self.view, self.selection, self.pictures, self.facts, *self.ahead)
        return tuple(job for job in now if job is not None)


class ReviewController:
    """The state and the overlay, and what an action does to them."""

    def __init__(self, state: ReviewState, desk: ReviewWriter) -> None:
        self.state, self.desk = state, desk
        state.judged |= desk.judged()
        self.view: MadeView | None = None
        self.selection: MadeSelection | None = None

    def act(self, action: Action) -> bool:
        """Do what an action does; False where it is the window's to do."""
        if action in _VERDICTS:
            self.judge(_VERDICTS[action])
        elif action is Action.APPLY:
            self.paint()
        elif action is Action.UNDO:
            self.desk.undo()
        else:
            return perform(self.state, action)
        return True

    def judge(self, verdict: Verdict) -> None:
        """Write a verdict on the frames at hand and go on to the next."""
        self.state.message = ""
        self.desk.write(*self.state.judgements(verdict))
        self.state.move_on()

    def paint(self) -> None:
        """Write the stroke that is selected."""
        state, view, selection = self.state, self.view, self.selection
        if view is None or selection is None or not len(selection.voxels):
            state.message = "nothing is selected: I chooses a tool, a click a voxel"
            return
        if view.frame.labels.token != state.token:
            return
        if state.show.voxels != "labels":
            state.message = "only labels can be painted: L shows them"
            return
        state.message = ""
        self.desk.write(stroke(state, view.frame, selection.voxels))
        state.note = ""
        state.drop_selection()

    def write_note(self) -> None:
        """Write the note alone, without a verdict."""
        if note := self.state.note:
            self.desk.write(
                NoteEntry(scene_id=self.state.scene_id, token=self.state.token, note=note)
            )
            self.state.note = ""

    def wanted(self, width: int) -> Wanted:
        """What the window needs now, with pictures laid out for a width in pixels."""
        state = self.state
        view = self._view_job(state.scene_id, state.k)
        cell = state.show.cell
        selection = None
        if (state.tool == "component" and state.corners) or state.box() is not None:
            selection = SelectionJob(
                view=view,
                tool=state.tool,
                corners=state.corners,
                box=state.box(),
                free_too=state.free_too,
            )
        ahead = list[Job]()
        for scene_id, k in state.ahead():
            later = self._view_job(scene_id, k)
            ahead += [later, self._pictures_job(later, width)]
        return Wanted(
            view=view,
            pictures=self._pictures_job(view, width),
            facts=None if cell is None else FactsJob(view=view, cell=cell),
            selection=selection,
            ahead=tuple(ahead),
        )

    def take_view(self, view: MadeView) -> None:
        """The view that is on the screen now."""
        self.view = view
        frame, state = view.frame, self.state
        state.n_pictures = len(frame.pictures)
        state.available = available(frame)

    def verdicts(self) -> list[str]:
        """Of every frame of the scene; empty where there is none."""
        known = self.desk.verdicts(self.state.scene_id)
        tokens = self.state.tokens[self.state.scene_id]
        return [str(known[t].verdict) if t in known else "" for t in tokens]

    def verdict_line(self) -> tuple[str, str]:
        """The verdict on this frame, and in words whose it is."""
        state = self.state
        found = self.desk.verdicts(state.scene_id).get(state.token)
        n = len(state.frames)
        frames = f"frames {state.frames[0]}..{state.frames[-1]}: " if n > 1 else ""
        if found is None:
            return "", f"{frames}not judged yet"
        whose = "you" if found.reviewer == self.desk.reviewer else found.reviewer
        note = f": {found.note}" if found.note else ""
        disputed = "; disputed" if found.disputed else ""
        return str(found.verdict), f"{frames}{found.verdict} by {whose}{disputed}{note}"

    def queue_rows(self) -> list[tuple[str, str]]:
        """Where the queue, the estimate and the overlay stand."""
        state, rows = self.state, list[tuple[str, str]]()
        if state.queue:
            left = sum((i.scene_id, i.token) not in state.judged for i in state.queue)
            rows.append(("to judge", f"{left:,} of {len(state.queue):,} in the queue"))
            if (item := state.item) is not None:
                rows.append(("here because", item.why))
            elif (place := state.next_place()) is not None:
                item = state.queue[place]
                rows.append(("next", f"{item.scene_id} frame {item.k}: {item.why}"))
        share, more = self.desk.estimate_words()
        rows += [("wrong frames", share)] if share else []
        rows += [("to be sure", more)] if more else []
        rows.append(("overlay", self.desk.overlay_words(state.scene_id, state.token)))
        return rows

    def _view_job(self, scene_id: str, k: int) -> ViewJob:
        state = self.state
        strokes = self.desk.strokes(scene_id, state.tokens[scene_id][k])
        return ViewJob(scene_id=scene_id, k=k, show=replace(state.show, cell=None), strokes=strokes)

    def _pictures_job(self, view: ViewJob, width: int) -> PicturesJob:
        state = self.state
        return PicturesJob(view=view, width=width, large=state.large, overlay=state.overlay)


def available(frame: ReviewFrame) -> Available:
    """What there is to show of a frame."""
    labels = frame.labels
    return Available(
        truth=frame.truth is not None,
        second=frame.second is not None,
        confidence=bool(frame.levels),
        evidence=labels.hits is not None or frame.points_m is not None,
        flow=any(one is not None and one.flow is not None for one in (labels, frame.truth)),
        boxes=frame.box_taxonomy is not None,
        points=frame.points_m is not None,
    )
