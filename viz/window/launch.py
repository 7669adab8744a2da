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
from viz.review.shared_review import SharedReview
from viz.review.state import ReviewState
from viz.review.writer import BackgroundWriter
from viz.session.session import ReviewFrame, ReviewSession
from viz.window.window import ReviewWindow


def show(
    session: ReviewSession,
    frame: ReviewFrame,
    *,
    show: LayerSettings,
    size_px: tuple[int, int],
    reviewer: str,
    queue: Sequence[QueueItem] = (),
    priority: ReviewPriority | None = None,
) -> None:
    """Open the window on a frame; returns when it is closed and all is written.

    Args:
        show: the layers at the start.
        reviewer: in whose name entries are written.
        queue: frames to judge, most urgent first.
        priority: that the queue was made with, for the estimate; the store's own, if none is
            given.
    """
    app = gui.Application.instance
    app.initialize()
    use_our_font(app)
    windows = list[ReviewWindow]()

    def on_change() -> None:
        for window in windows:
            window.on_change()

    shared = SharedReview(session.reviews, queue, priority)
    tokens = {scene_id: session.tokens(scene_id) for scene_id in session.scene_ids()}
    state = ReviewState.of_frame(frame, tokens, show=show, queue=queue)
    writer = BackgroundWriter(shared, reviewer, on_change)
    windows.append(ReviewWindow(session, state, writer, size_px=size_px))
    app.run()
    windows[0].end()


def use_our_font(app: gui.Application) -> None:
    """The widgets' letters are those of the drawn panels."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    app.set_font(app.DEFAULT_FONT_ID, gui.FontDescription(str(path), gui.FontStyle.NORMAL, FONT_PX))
