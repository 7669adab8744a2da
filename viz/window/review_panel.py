"""The right panel: images, the picked voxel, verdict, painting, queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from open3d.visualization import gui
from PIL import Image

from viz.render.theme import BAD, FAINT, TEXT
from viz.review.keys import Action, key_of
from viz.review.state import TOOLS, ReviewState
from viz.session.picking import class_name
from viz.window.drawn_panels import VERDICT_COLORS, draw_facts
from viz.window.widgets import (
    ImageView,
    button,
    checkbox,
    choices,
    color,
    labelled,
    panel,
    row,
    section,
    text,
)

_TOOL_NAMES = ("paint off", "box", "component")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewWords:
    """What the panel says.

    Attributes:
        verdict: accept, reject, unsure or nothing.
        verdict_line: whose it is, and whether reviewers differ.
        voxel: names and values of the picked voxel.
        n_selected: voxels that would be painted.
        queue: lines on the queue's item and the estimate.
        written: what was written last; ``failed``: it was not.
    """

    verdict: str
    verdict_line: str
    voxel: Sequence[tuple[str, str]]
    n_selected: int
    queue: Sequence[tuple[str, str]]
    written: str
    failed: bool


class ReviewPanel:
    """What a reviewer reads and does of a frame.

    Args:
        changed: called after the state was changed by a widget.
        act: does an action as its key would.
        click_image: called with the pixel of the sheet of images that was clicked.
    """

    def __init__(
        self,
        state: ReviewState,
        changed: Callable[[], None],
        act: Callable[[Action], None],
        click_image: Callable[[float, float], None],
    ) -> None:
        self._state, self._changed = state, changed
        self.widget = panel()
        self._images = ImageView(click_image)
        self._facts, self._queue = ImageView(), ImageView()
        self._verdict, self._note, self._written = text(), text("", FAINT), text()
        self._mark = button(f"range {key_of(Action.MARK)}", lambda: act(Action.MARK))
        self._tool = choices(_TOOL_NAMES, self._set_tool)
        self._class = choices(
            [class_name(state.taxonomy, i) for i in state.paint_ids()], self._set_class
        )
        self._free = checkbox("free voxels too", self._set_free)
        self._layers = [gui.Slider(gui.Slider.INT) for _ in range(2)]
        for slider in self._layers:
            slider.set_limits(0, state.grid.shape[2] - 1)
            slider.set_on_value_changed(self._set_layers)
        self._apply = button("paint", lambda: act(Action.APPLY))
        self._box = labelled([("from layer", self._layers[0]), ("to layer", self._layers[1])], 80)

        def does(action: Action, words: str) -> object:
            return button(f"{words} {key_of(action)}", lambda: act(action), tip=action.value)

        for widget in (
            self._images.widget,
            section("Voxel"),
            self._facts.widget,
            section("Verdict"),
            self._verdict,
            row(
                does(Action.ACCEPT, "accept"),
                does(Action.REJECT, "reject"),
                does(Action.UNSURE, "unsure"),
            ),
            row(
                self._mark,
                does(Action.NOTE, "note"),
                does(Action.UNDO, "undo"),
            ),
            self._note,
            section("Paint  I"),
            row(self._tool, self._class, self._apply),
            self._free,
            self._box,
            section("Queue"),
            row(
                does(Action.NEXT_IN_QUEUE, "next in queue"),
                does(Action.PREVIOUS_IN_QUEUE, "back"),
            ),
            self._queue.widget,
            self._written,
        ):
            self.widget.add_child(widget)

    def show_images(self, sheet: Image.Image) -> bool:
        """Put the images up; whether the panel must be laid out anew."""
        return self._images.show(sheet)

    def update(self, words: ReviewWords, width: int) -> bool:
        """Show the state; whether the panel must be laid out anew."""
        state = self._state
        empty = "click a voxel, or a pixel of an image"
        resized = self._facts.show(draw_facts(words.voxel, width, empty=empty))
        resized |= self._queue.show(draw_facts(words.queue, width, empty="no queue"))
        self._verdict.text = words.verdict_line
        self._verdict.text_color = color(VERDICT_COLORS.get(words.verdict, FAINT))
        n, before = len(state.frames), (self._mark.text, self._apply.text, self._written.text)
        self._mark.text = f"{n} frames K" if state.marked is not None else "range K"
        self._note.text = f"note: {state.note}" if state.note else ""
        self._tool.selected_index = TOOLS.index(state.tool)
        self._class.selected_index = state.paint_ids().index(state.class_id)
        self._apply.text = f"paint {words.n_selected:,}" if words.n_selected else "paint"
        self._apply.enabled = words.n_selected > 0
        box, painting = state.box(), state.tool == "box"
        for visible, widget in (
            (state.tool != "off", self._apply),
            (painting, self._free),
            (box is not None, self._box),
            (bool(state.note), self._note),
        ):
            resized |= widget.visible != visible
            widget.visible = visible
        self._free.checked = state.free_too
        if box is not None:
            self._layers[0].int_value, self._layers[1].int_value = box[0][2], box[1][2]
        self._written.text = words.written
        self._written.text_color = color(BAD if words.failed else TEXT)
        texts = (self._mark.text, self._apply.text, self._written.text)
        return resized or texts != before

    def _set_tool(self, place: int) -> None:
        self._state.set_tool(TOOLS[place])
        self._changed()

    def _set_class(self, place: int) -> None:
        self._state.class_id = self._state.paint_ids()[place]
        self._changed()

    def _set_free(self, on: bool) -> None:
        self._state.free_too = on
        self._changed()

    def _set_layers(self, _: SupportsFloat) -> None:
        low, high = (slider.int_value for slider in self._layers)
        self._state.set_box_layers(low, high)
        self._changed()
