"""Opens the review window on a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from open3d.visualization import gui

from viz.render.layers import LayerSettings
from viz.render.theme import FONT_PX
from viz.review.priority import ReviewPriority
from viz.review.review_queue import QueueItem
from viz.review.state import ReviewState
from viz.review.writer import ReviewWriter
from viz.session.session import ReviewFrame, ReviewSession
from viz.window.controller import ReviewController, available
from viz.window.window import ReviewWindow


def show(
    session: ReviewSession,
    frame: ReviewFrame,
    *,
    show: LayerSettings,
    size_px: tuple[int, int],
    reviewer: str,
    queue: Sequence[QueueItem] = (),
    suspicion: ReviewPriority | None = None,
) -> None:
    """Open the window on a frame; returns when it is closed and all is written.

    Args:
        show: the layers at the start.
        reviewer: in whose name entries are written.
        queue: frames to judge, most urgent first.
        suspicion: that the queue was made with, for the estimate; the store's own, if none is
            given.
    """
    app = gui.Application.instance
    app.initialize()
    use_our_font(app)
    window = list[ReviewWindow]()

    def told() -> None:
        for one in window:
            one.told()

    desk = ReviewWriter(session.reviews, reviewer, told, suspicion=suspicion)
    state = ReviewState(
        grid=frame.grid,
        taxonomy=frame.taxonomy,
        tokens={scene_id: session.tokens(scene_id) for scene_id in session.scene_ids()},
        scene_id=frame.scene_id,
        k=frame.k,
        show=show,
        queue=queue,
        available=available(frame),
        class_id=frame.taxonomy.semantic_ids[0],
    )
    if queue and (queue[0].scene_id, queue[0].k) == (frame.scene_id, frame.k):
        state.place = 0
    window.append(ReviewWindow(session, ReviewController(state, desk), size_px=size_px))
    app.run()
    window[0].end()


def use_our_font(app: gui.Application) -> None:
    """The widgets' letters are those of the drawn panels."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    app.set_font(app.DEFAULT_FONT_ID, gui.FontDescription(str(path), gui.FontStyle.NORMAL, FONT_PX))
