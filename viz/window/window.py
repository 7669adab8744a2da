"""The review window: a thin shell of Open3D's widgets around ``ReviewController``.

Nothing is built here: a ``LatestWorker`` makes what the state asks for, and what arrives is shown
if it is still what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from open3d.visualization import gui
from PIL import Image

from viz.render.camera_mosaic import mark_places
from viz.render.lines import cell_outline
from viz.render.open3d_geometry import open3d_lines, open3d_mesh
from viz.render.theme import EDGE_PX
from viz.review.controller import ReviewController, estimate_rows
from viz.review.keys import KEEP_VIEWS, VIEWS, Action, action_of
from viz.review.state import ReviewState
from viz.review.voxel_description import fact_rows
from viz.review.writer import BackgroundWriter
from viz.session.picking import Cell, voxel_at, voxel_of_pixel
from viz.session.session import ReviewSession
from viz.window.drawn_panels import draw_color_key, draw_help
from viz.window.layer_panel import LayerPanel
from viz.window.layout import Rect, WindowLayout, window_layout
from viz.window.note_dialog import note_dialog
from viz.window.render_jobs import (
    Job,
    Made,
    MadeFacts,
    MadeImages,
    MadeSelection,
    MadeView,
    WantedJobs,
    make,
    wanted_jobs,
)
from viz.window.render_worker import LatestWorker
from viz.window.review_panel import ReviewPanel, ReviewWords
from viz.window.scene_view import SceneView, keep_view, material, recall_view
from viz.window.timeline import TimeBar
from viz.window.widgets import ImageView

KEPT = 24
"""Results that are remembered: views, sheets of images, facts, selections."""
PLAY_S = 0.2
REFRESH_S = 3.0
SCROLL_PX = 14
ESCAPE_S = 0.5
REDRAWN_S = (0.1, 0.3, 1.0)
"""So long after a change it is drawn again: Open3D leaves a drawing out while a slow renderer is
still at the one before it."""
_REPEATING = {
    Action.NEXT_FRAME,
    Action.PREVIOUS_FRAME,
    Action.NEXT_CLASS,
    Action.PREVIOUS_CLASS,
    Action.TOP_DOWN,
    Action.TOP_UP,
    Action.BOTTOM_DOWN,
    Action.BOTTOM_UP,
}
"""What a key that is held down does again and again."""
_KEYS = {int(key): name.lower() for name, key in gui.KeyName.__members__.items()}


class ReviewWindow:
    """The window, from its opening to its close.

    Args:
        on_shown: called in the interface's thread with each view that comes on the screen.
    """

    def __init__(
        self,
        session: ReviewSession,
        state: ReviewState,
        writer: BackgroundWriter,
        *,
        size_px: tuple[int, int],
        on_shown: Callable[[MadeView], None] = lambda view: None,
    ) -> None:
        self._controller = ReviewController(state, writer, session.notes)
        self._writer = writer
        self._state, self._on_shown = state, on_shown
        self._closed, self._quitting, self._shift = False, False, False
        self._stop_typing: Callable[[], None] | None = None
        self._escaped, self._redraw_at = 0.0, list[float]()
        self._wanted: WantedJobs | None = None
        self._shown_view: Job | None = None
        self._marked: tuple[Cell | None, ...] = (None,)
        self._view: MadeView | None = None
        self._images: MadeImages | None = None
        self._facts: MadeFacts | None = None
        self._selection: MadeSelection | None = None
        self._last_refresh = self._last_step = time.monotonic()
        self._worker: LatestWorker[Job, Made] = LatestWorker(
            lambda job: make(session, job, self._worker.made), self._deliver, keep=KEPT
        )
        self.window = gui.Application.instance.create_window("Label review", *size_px)
        self.scene = SceneView(self.window, self._state.grid, self._click)
        self._layers = LayerPanel(self._state, self.refresh, self.act)
        self._review = ReviewPanel(self._state, self.refresh, self.act, self._click_image)
        self._time = TimeBar(self._state, self.refresh, self.act)
        self._key, self._help = ImageView(), ImageView(lambda x, y: self.act(Action.HELP))
        for widget in (
            self.scene.widget,
            self._layers.widget,
            self._review.widget,
            *self._time.widgets,
            self._key.widget,
            self._help.widget,
        ):
            self.window.add_child(widget)
        self._key.widget.visible = self._help.widget.visible = False
        self.window.set_on_layout(lambda context: self._layout())
        self.window.set_on_key(self._on_key)
        self.window.set_on_tick_event(self._tick)
        self.window.set_on_close(self._close)
        self.scene.look_from_home()
        self.refresh()

    def act(self, action: Action) -> None:
        """Do what the action's key does."""
        if not self._controller.act(action):
            self._act_here(action)
        self.refresh()

    def refresh(self) -> None:
        """Ask for what the state wants, and show what of it is at hand."""
        if self._closed:
            return
        width = _inside(self._parts().review)
        wanted = self._wanted = wanted_jobs(self._state, self._writer.shared, width)
        self._worker.want((*wanted.now(), *wanted.ahead))
        if wanted.facts is None:
            self._facts = None
        if wanted.selection is None and self._selection is not None:
            self._selection = None
            self.scene.put("selection", {})
        for job in wanted.now():
            if (result := self._worker.made(job)) is not None:
                self._take(job, result)
        self._mark_cell()
        self._update()

    def on_change(self) -> None:
        """The overlay changed; any thread may call this."""
        self._post(self._overlay_changed)

    def _overlay_changed(self) -> None:
        self._controller.update_judged()
        self.refresh()

    def _deliver(self, job: Job, made: Made | Exception) -> None:
        self._post(lambda: self._arrived(job, made))

    def _post(self, act: Callable[[], None]) -> None:
        if not self._closed:
            gui.Application.instance.post_to_main_thread(self.window, act)

    def _arrived(self, job: Job, made: Made | Exception) -> None:
        wanted = self._wanted
        if self._closed or wanted is None or job not in wanted.now():
            return  # made ahead, or no longer asked for
        if isinstance(made, Exception):
            self._state.message = f"cannot be shown: {made}"
        else:
            self._take(job, made)
        self._update()

    def _take(self, job: Job, made: Made) -> None:
        if isinstance(made, MadeView):
            if job != self._shown_view:
                self._shown_view, self._view = job, made
                self._state.take_frame(made.frame)
                self.scene.put("frame", made.geometry)
                self._on_shown(made)
        elif isinstance(made, MadeImages):
            self._images = made
        elif isinstance(made, MadeSelection):
            if made is not self._selection:
                self._selection = made
                shown = {}
                if len(made.voxels):
                    shown["voxels"] = (open3d_mesh(made.mesh), material("defaultUnlit"))
                self.scene.put("selection", shown)
        else:
            self._facts = made

    def _mark_cell(self) -> None:
        """Outline the picked voxel and the corners of a selection."""
        cells = tuple(dict.fromkeys((*self._state.corners, self._state.show.cell)))
        if cells == self._marked:
            return
        self._marked, lines = cells, {}
        for i, cell in enumerate(cells):
            if cell is not None:
                outline = open3d_lines(cell_outline(cell, self._state.grid))
                lines[f"cell {i}"] = (outline, material("unlitLine", line=3))
        self.scene.put("cells", lines)

    def _update(self) -> None:
        """Panels and texts."""
        state, view = self._state, self._view
        resized = self._layers.update(
            view.drawn.counts if view else {}, _inside(self._parts().layers)
        )
        controller, writer, selection = self._controller, self._writer, self._selection
        verdict, verdict_line = controller.verdict_line()
        words = ReviewWords(
            verdict=verdict,
            verdict_line=verdict_line,
            voxel=fact_rows(self._facts.facts, state.taxonomy) if self._facts else (),
            n_selected=0 if selection is None else len(selection.voxels),
            queue=(
                *controller.queue_rows(),
                *estimate_rows(writer.estimate),
                ("overlay", controller.overlay_words()),
            ),
            written=writer.message,
            failed=writer.failed,
        )
        resized |= self._review.update(words, _inside(self._parts().review))
        if self._images is not None and view is not None:
            resized |= self._review.show_images(self._marked_sheet(self._images, view))
        waiting = self._wanted is not None and self._shown_view != self._wanted.view
        title = f"{state.scene_id} frame {state.k} {verdict or 'not judged'}"
        if not waiting and title != self.window.title:
            self.window.title = title
        resized |= self._time.update(controller.verdicts(), verdict, waiting=waiting)
        if view is not None:
            by_class = state.show.color == "class" and state.show.voxels != "difference"
            key = draw_color_key(view.drawn, by_class=by_class, max_width=self._parts().scene.width)
            resized |= self._key.show(key) or not self._key.widget.visible
            self._key.widget.visible = True
        if state.help != self._help.widget.visible:
            resized, self._help.widget.visible = True, state.help
        if resized:
            self.window.set_needs_layout()
        self.window.post_redraw()
        now = time.monotonic()
        self._redraw_at = [now + after for after in REDRAWN_S]

    def _marked_sheet(self, images: MadeImages, view: MadeView) -> Image.Image:
        views = [image.view for image in view.frame.images]
        if self._facts is None or not views:
            return images.sheet
        return mark_places(images.sheet, images.layout, views, self._facts.places)

    def _act_here(self, action: Action) -> None:
        if action is Action.HOME_VIEW:
            self.scene.look_from_home()
        elif action is Action.TOP_VIEW:
            self.scene.look_from_above()
        elif action in VIEWS:
            self._state.message = recall_view(self.scene, VIEWS.index(action) + 1)
        elif action in KEEP_VIEWS:
            self._state.message = keep_view(self.scene, KEEP_VIEWS.index(action) + 1)
        elif action is Action.NOTE:
            self._ask_for_note()
        elif action is Action.APPLY:
            view, selection = self._view, self._selection
            voxels = None if selection is None else selection.voxels
            self._controller.paint(None if view is None else view.frame, voxels)
        elif action is Action.QUIT:
            self._quitting = True
            self.window.close()

    def _ask_for_note(self) -> None:
        before = self._state.note

        def end(note: str, alone: bool) -> None:
            self._stop_typing = None
            self.window.close_dialog()
            self._state.note = note
            if alone:
                self._controller.write_note()
            self.refresh()

        self._stop_typing = lambda: end(before, False)
        self.window.show_dialog(note_dialog(self._state.note, end))

    def _click(self, eye_m: NDArray[np.float64], direction: NDArray[np.float64]) -> None:
        if (view := self._view) is not None:
            self._state.pick(voxel_at(view.frame, view.drawn.shown, eye_m, direction))
            self.refresh()

    def _click_image(self, x: float, y: float) -> None:
        if (view := self._view) is None or self._images is None:
            return
        views = [image.view for image in view.frame.images]
        if (hit := self._images.layout.pixel_at(views, x, y)) is not None:
            i, u, v = hit
            self._state.pick(voxel_of_pixel(view.frame, view.drawn.shown, views[i], u, v))
            self.refresh()

    def _on_key(self, event: Any) -> bool:
        name, down = _KEYS.get(int(event.key), ""), event.type == gui.KeyEvent.Type.DOWN
        if name in ("left_shift", "right_shift"):
            self._shift = down
        action = action_of(name, shift=self._shift)
        if action is Action.CANCEL or action is None or self._stop_typing is not None:
            return False  # Escape comes as a wish to close
        if down and (not event.is_repeat or action in _REPEATING):
            self.act(action)
        return True

    def _tick(self) -> bool:
        now = time.monotonic()
        if now - self._last_refresh > REFRESH_S:
            self._last_refresh = now
            self._writer.refresh()
        shown = self._wanted is not None and self._shown_view == self._wanted.view
        if self._state.playing and shown and now - self._last_step > PLAY_S:
            self._last_step = now
            if self._state.k + 1 == self._state.n_frames:
                self._state.playing = False
            self.act(Action.NEXT_FRAME)
        due = [at for at in self._redraw_at if at <= now]
        self._redraw_at = [at for at in self._redraw_at if at > now]
        return bool(due)

    def _close(self) -> bool:
        """Whether the window may go. Open3D takes Escape for a wish to close, twice for one
        press: while there is something to drop, that is what it does."""
        if not self._quitting:
            if time.monotonic() - self._escaped < ESCAPE_S:
                return False
            if self._stop_typing is not None or self._state.can_cancel:
                self._escape()
                return False
        self._closed = True
        return True

    def _escape(self) -> None:
        self._escaped = time.monotonic()
        if self._stop_typing is not None:
            self._stop_typing()
        else:
            self.act(Action.CANCEL)

    def end(self) -> None:
        """Wait for what is being made and written; after the window was closed."""
        self._worker.close()
        self._writer.close()

    def _parts(self) -> WindowLayout:
        return window_layout(*self._content())

    def _content(self) -> tuple[int, int, int, int]:
        area = self.window.content_rect
        return area.x, area.y, area.width, area.height

    def _layout(self) -> None:
        parts = self._parts()
        _place(self._layers.widget, parts.layers)
        _place(self._review.widget, parts.review)
        _place(self.scene.widget, parts.scene)
        self._time.place(parts.header, parts.footer)
        _place(self._key.widget, parts.scene.inside(*self._key.size, at="corner"))
        sheet = Rect(left=0, top=0, width=parts.review.right, height=parts.review.bottom)
        if self._help.widget.visible:
            self._help.show(draw_help(sheet.width - 40, sheet.height - 40))
            _place(self._help.widget, sheet.inside(*self._help.size, at="middle"))
        if self._wanted is None or self._wanted.images.width != _inside(self._parts().review):
            self._post(self.refresh)  # the window has another size


def _place(widget: Any, rect: Rect) -> None:
    """Unless it lies there already: a 3D view that is laid out anew is drawn anew."""
    now = widget.frame
    if (now.x, now.y, now.width, now.height) != (rect.left, rect.top, rect.width, rect.height):
        widget.frame = gui.Rect(rect.left, rect.top, rect.width, rect.height)


def _inside(panel: Rect) -> int:
    """Width of what a panel holds, its scroll bar left free."""
    return panel.width - 2 * EDGE_PX - SCROLL_PX
