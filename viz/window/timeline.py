"""Above and below the 3D view: scene, frame and verdict; timeline, slider and play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

from open3d.visualization import gui

from viz.render.theme import EDGE_PX, FAINT, GAP_PX, PANEL
from viz.review.keys import Action
from viz.review.state import ReviewState
from viz.window.drawn_panels import VERDICT_COLORS, draw_timeline, timeline_frame
from viz.window.layout import Rect
from viz.window.widgets import ImageView, button, choices, color, level, row, text


class TimeBar:
    """Which frame it is, and how to get to another.

    Args:
        changed: called after the state was changed by a widget.
        act: does an action as its key would.
    """

    def __init__(
        self, state: ReviewState, changed: Callable[[], None], act: Callable[[Action], None]
    ) -> None:
        self._state, self._changed = state, changed
        self._scenes = list(state.tokens)
        self._scene = choices(self._scenes, self._set_scene)
        self._frame, self._verdict, self._message = text(), text(), text("", FAINT)
        self._header = gui.Horiz(2 * GAP_PX, gui.Margins(EDGE_PX, GAP_PX - 1, EDGE_PX, 0))
        for widget in (self._scene, level(self._frame), level(self._verdict)):
            self._header.add_child(widget)
        self._timeline = ImageView(self._click)
        self._slider = gui.Slider(gui.Slider.INT)
        self._slider.set_on_value_changed(self._slide)
        self._play = button("play", lambda: act(Action.PLAY), tip="Space")
        self._footer = gui.Vert(GAP_PX, gui.Margins(EDGE_PX, GAP_PX - 1, EDGE_PX, 0))
        self._footer.add_child(self._timeline.widget)
        self._footer.add_child(
            row(
                button("<", lambda: act(Action.PREVIOUS_FRAME), tip="Left"),
                self._play,
                button(">", lambda: act(Action.NEXT_FRAME), tip="Right"),
                button("keys H", lambda: act(Action.HELP)),
                self._slider,
            )
        )
        self._footer.add_child(self._message)
        for widget in (self._header, self._footer):
            widget.background_color = color(PANEL)
        self.widgets: tuple[Any, ...] = (self._header, self._footer)
        self._width = 0

    def update(self, verdicts: Sequence[str], verdict: str, *, waiting: bool) -> bool:
        """Show the state; whether the texts must be laid out anew.

        Args:
            verdicts: of every frame of the scene; empty where there is none.
            verdict: on this frame.
            waiting: the frame is not on the screen yet.
        """
        state = self._state
        self._scene.selected_index = self._scenes.index(state.scene_id)
        self._slider.set_limits(0, max(state.n_frames - 1, 1))
        self._slider.int_value = state.k
        before = self._frame.text, self._verdict.text, self._play.text
        self._frame.text = f"frame {state.k} of 0..{state.n_frames - 1}   {state.token}"
        self._verdict.text = verdict
        self._verdict.text_color = color(VERDICT_COLORS.get(verdict, FAINT))
        self._play.text = "pause" if state.playing else "play"
        self._message.text = state.message or ("reading ..." if waiting else "")
        if self._width > 0:
            self._timeline.show(draw_timeline(state, verdicts, self._width))
        return before != (self._frame.text, self._verdict.text, self._play.text)

    def place(self, header: Rect, footer: Rect) -> None:
        """Lay the widgets out."""
        self._header.frame = gui.Rect(header.left, header.top, header.width, header.height)
        self._footer.frame = gui.Rect(footer.left, footer.top, footer.width, footer.height)
        self._width = footer.width - 2 * EDGE_PX

    def _set_scene(self, place: int) -> None:
        self._state.go(self._scenes[place], 0)
        self._changed()

    def _slide(self, value: SupportsFloat) -> None:
        self._state.go(self._state.scene_id, round(float(value)))
        self._changed()

    def _click(self, x: float, _: float) -> None:
        n = self._state.n_frames
        self._state.go(self._state.scene_id, timeline_frame(x, self._timeline.size[0], n))
        self._changed()
