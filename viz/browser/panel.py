"""The controls of one browser tab. They hold what is chosen; ``BrowserTab`` acts on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from datasets.reviews.overlay import Verdict
from viz.browser.html_fragments import PAINTING, PICK, VERDICT_COLORS, legend, lines
from viz.render.layers import COLORS, POINT_COLORS, VOXELS, LayerSettings, RenderedLayers
from viz.session.session import MASKS, ReviewFrame

PANEL_PX, IMAGES_PX = 350, 330
_HIDDEN = (70, 72, 78)


class Actions(Protocol):
    """What a tab does when its reviewer touches a control. None of it may wait."""

    def go(self, scene_id: str, k: int) -> None: ...
    def step(self, by: int) -> None: ...
    def play(self) -> None: ...
    def redraw(self) -> None: ...
    def first_view(self) -> None: ...
    def renamed(self) -> None: ...
    def judge(self, verdict: Verdict) -> None: ...
    def undo(self) -> None: ...
    def queue_step(self, by: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a tab has controls for.

    Attributes:
        scenes: ids, at least one.
        sets: which voxels there are to show, of ``LayerSettings.voxels``.
        judged: verdicts can be given.
        queued: there is an order of review.
    """

    scenes: tuple[str, ...]
    sets: frozenset[str]
    judged: bool
    queued: bool


class Panel:
    """Widgets of one tab, right the controls and left the cameras.

    Args:
        gui: the tab's ``viser.GuiApi``.
        frame: whose grid and classes the controls are for.
    """

    def __init__(
        self,
        gui: Any,
        actions: Actions,
        offered: Offered,
        *,
        frame: ReviewFrame,
        show: LayerSettings,
        reviewer: str,
    ) -> None:
        self._gui, self._actions = gui, actions
        gui.set_panel_label(f"Review of {frame.name}")
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        tabs = gui.add_tab_group()
        with tabs.add_tab("Review"):
            self.facts = gui.add_html("")
            self._frame_controls(offered, frame)
            self._verdict_controls(offered, reviewer)
            with gui.add_folder("Picked voxel"):
                self.picked = gui.add_html(lines([PICK]))
            self._queue_controls(offered)
            gui.add_html(lines([PAINTING]))
        with tabs.add_tab("Layers"):
            self._layer_controls(offered, frame, show)
            self._class_controls(frame, show)
        self._cameras(frame)
        gui.main_panel.dock_right()
        gui.main_panel.set_width(PANEL_PX)

    def show(self) -> LayerSettings:
        """The layers chosen, no voxel picked."""
        low, high = self._height.value
        unclipped = low <= self._height.min and high >= self._height.max
        all_shown = all(self._on.values())
        return LayerSettings(
            voxels=self._voxels.value,
            color=self._color.value,
            mask=self._mask.value,
            classes=None if all_shown else frozenset(i for i, on in self._on.items() if on),
            height_m=None if unclipped else (low, high),
            points=self._points.value,
            flow=self._flow.value,
            boxes=self._boxes.value,
            rings=self._rings.value,
        )

    def point_at(self, frame: ReviewFrame) -> None:
        """Let scene and slider say which frame is shown."""
        self._scene.value = frame.scene_id
        self._slider.max = max(frame.n_frames - 1, 1)
        self._slider.disabled = frame.n_frames < 2
        self._slider.value = frame.k

    def fill(self, frame: ReviewFrame, drawn: RenderedLayers) -> None:
        """Put what is drawn of a frame into the controls: voxels by class, other colors."""
        for i, button in self._classes.items():
            label = f"{frame.taxonomy.names[i]} ({drawn.counts.get(i, 0):,})"
            if button.label != label:
                button.label = label
        by_class = {row.name for row in drawn.legend} <= set(frame.taxonomy.names)
        self._legend.content = "" if by_class else legend(drawn.legend)

    @property
    def playing(self) -> bool:
        return bool(self._play.value)

    def stop_playing(self) -> None:
        self._play.value = False

    @property
    def queue_goes_on(self) -> bool:
        """Whether a verdict on a frame of the queue leads to the next."""
        return bool(self._goes_on.value)

    @property
    def reviewer(self) -> str:
        return str(self._reviewer.value).strip()

    @property
    def note(self) -> str:
        return str(self._note.value).strip()

    def clear_note(self) -> None:
        self._note.value = ""

    def _frame_controls(self, offered: Offered, frame: ReviewFrame) -> None:
        gui, actions = self._gui, self._actions
        with gui.add_folder("Frame"):
            self._scene = gui.add_dropdown("scene", offered.scenes, initial_value=frame.scene_id)
            last = max(frame.n_frames - 1, 1)
            self._slider = gui.add_slider("frame", 0, last, 1, frame.k)
            steps = gui.add_button_group("step", ("-10", "-1", "+1", "+10"))
            self._play = gui.add_checkbox("play", False)
        _when(self._scene, lambda scene_id: actions.go(scene_id, 0))
        _when(self._slider, lambda k: actions.go(self._scene.value, int(k)))
        _chosen(steps, lambda by: actions.step(int(by)))
        _when(self._play, lambda on: actions.play() if on else None)

    def _verdict_controls(self, offered: Offered, reviewer: str) -> None:
        gui, actions = self._gui, self._actions
        with gui.add_folder("Verdict"):
            self.verdict = gui.add_html("")
            self._reviewer = gui.add_text("reviewer", reviewer, visible=offered.judged)
            self._note = gui.add_text("note", "", visible=offered.judged)
            _when(self._reviewer, lambda _: actions.renamed())
            for verdict in Verdict:
                button = gui.add_button(
                    verdict.value, color=VERDICT_COLORS[verdict], visible=offered.judged
                )
                _pressed(button, partial(actions.judge, verdict))
            undo = gui.add_button("undo my last", color="gray", visible=offered.judged)
            _pressed(undo, actions.undo)

    def _queue_controls(self, offered: Offered) -> None:
        gui, actions = self._gui, self._actions
        with gui.add_folder("Queue", visible=offered.queued):
            self.queue = gui.add_html("")
            self.estimate = gui.add_html("")
            steps = gui.add_button_group("item", ("previous", "next"))
            self._goes_on = gui.add_checkbox(
                "go on", True, hint="a verdict leads to the next frame of the queue"
            )
        _chosen(steps, lambda to: actions.queue_step(1 if to == "next" else -1))

    def _layer_controls(self, offered: Offered, frame: ReviewFrame, show: LayerSettings) -> None:
        gui = self._gui
        grid = frame.grid
        low, high, step = grid.min_m[2], grid.max_m[2], grid.size_m[2]
        sets = [name for name in VOXELS if name in offered.sets]
        with gui.add_folder("Layers"):
            self._voxels = gui.add_dropdown("voxels", sets, initial_value=show.voxels)
            self._color = gui.add_dropdown("color", COLORS, initial_value=show.color)
            self._mask = gui.add_dropdown("mask", tuple(MASKS), initial_value=show.mask)
            self._points = gui.add_dropdown("points", POINT_COLORS, initial_value=show.points)
            self._rings = gui.add_checkbox("range rings", show.rings)
            self._boxes = gui.add_checkbox("boxes", show.boxes)
            self._flow = gui.add_checkbox("flow", show.flow)
            heights = show.height_m or (low, high)
            inside = tuple(float(min(max(z, low), high)) for z in heights)
            self._height = gui.add_multi_slider(
                "height m", float(low), float(high), float(step), inside, min_range=float(step)
            )
            self._legend = gui.add_html("")
            _pressed(gui.add_button("first view", color="gray"), self._actions.first_view)
        chosen = (self._voxels, self._color, self._mask, self._points)
        for control in (*chosen, self._rings, self._boxes, self._flow, self._height):
            _when(control, lambda _: self._actions.redraw())

    def _class_controls(self, frame: ReviewFrame, show: LayerSettings) -> None:
        gui, taxonomy = self._gui, frame.taxonomy
        self._on = {i: show.classes is None or i in show.classes for i in taxonomy.semantic_ids}
        self._colors = {i: tuple(taxonomy.colors[i]) for i in taxonomy.semantic_ids}
        self._classes = {}
        with gui.add_folder("Classes and voxels shown"):
            buttons = gui.add_button_group("show", ("all", "none"))
            _chosen(buttons, lambda name: self._turn(self._on, name == "all"))
            for i in taxonomy.semantic_ids:
                button = gui.add_button(taxonomy.names[i], color=self._class_color(i))
                _pressed(button, partial(self._toggle, i))
                self._classes[i] = button

    def _toggle(self, i: int) -> None:
        self._turn([i], not self._on[i])

    def _turn(self, ids: Iterable[int], on: bool) -> None:
        """Show or hide classes."""
        for i in ids:
            self._on[i] = on
            self._classes[i].color = self._class_color(i)
        self._actions.redraw()

    def _class_color(self, i: int) -> tuple[int, ...]:
        return self._colors[i] if self._on[i] else _HIDDEN

    def _cameras(self, frame: ReviewFrame) -> None:
        gui = self._gui
        self.images: Sequence[Any] = ()
        if not frame.images:
            return
        panel = gui.add_panel()
        with panel.add_tab("Cameras"):
            blank = np.zeros((2, 3, 3), np.uint8)
            self.images = [
                gui.add_image(blank, label=p.view.name, jpeg_quality=80) for p in frame.images
            ]
        panel.dock_left()
        panel.set_width(IMAGES_PX)


def _when(handle: Any, do: Callable[[Any], None]) -> None:
    """Call ``do`` with the value when the reviewer changes an input, not when we do."""

    def changed(event: Any) -> None:
        if event.client is not None:
            do(handle.value)

    handle.on_update(changed)


def _pressed(button: Any, do: Callable[[], None]) -> None:
    """Call ``do`` when the reviewer presses a button."""
    button.on_click(lambda _: do())


def _chosen(buttons: Any, do: Callable[[str], None]) -> None:
    """Call ``do`` with the one that the reviewer presses of a group of buttons."""
    buttons.on_click(lambda _: do(buttons.value))
