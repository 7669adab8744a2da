"""The left panel: layers, classes, heights, views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, SupportsFloat

from open3d.visualization import gui

from viz.render.layers import COLORS, POINT_COLORS, VOXELS, Voxels
from viz.render.theme import GAP_PX
from viz.review.keys import KEEP_VIEWS, VIEWS, Action, key_of
from viz.review.state import ReviewState
from viz.session.session import MASKS
from viz.window.drawn_panels import class_row, draw_classes
from viz.window.widgets import (
    ImageView,
    button,
    checkbox,
    choices,
    heading,
    labelled,
    level,
    panel,
    row,
)

_VOXEL_NAMES: dict[Voxels, str] = {
    "labels": f"labels  {key_of(Action.LABELS)}",
    "truth": f"ground truth  {key_of(Action.TRUTH)}",
    "second": f"second store  {key_of(Action.SECOND)}",
    "difference": f"difference  {key_of(Action.DIFFERENCE)}",
    "none": "off",
}
_NAMES_PX = 72


class LayerPanel:
    """Switches of what is shown.

    Args:
        changed: called after the state was changed by a widget.
        act: does an action as its key would.
    """

    def __init__(
        self, state: ReviewState, changed: Callable[[], None], act: Callable[[Action], None]
    ) -> None:
        self._state, self._changed, self._act = state, changed, act
        self.widget = panel()
        self._voxels = choices([_VOXEL_NAMES[kind] for kind in VOXELS], self._set_voxels)
        self._color = choices(COLORS, lambda i: self._set(color=COLORS[i]))
        self._mask = choices(tuple(MASKS), lambda i: self._set(mask=tuple(MASKS)[i]))
        self._points = choices(POINT_COLORS, lambda i: self._set(points=POINT_COLORS[i]))
        self.widget.add_child(
            labelled(
                [
                    ("Voxels", self._voxels),
                    (f"Color  {key_of(Action.COLOR)}", self._color),
                    (f"Mask  {key_of(Action.MASK)}", self._mask),
                    (f"Points  {key_of(Action.POINTS)}", self._points),
                ],
                _NAMES_PX,
            )
        )
        self._flow = checkbox(f"flow  {key_of(Action.FLOW)}", lambda on: self._set(flow=on))
        self._boxes = checkbox(f"boxes  {key_of(Action.BOXES)}", lambda on: self._set(boxes=on))
        self._rings = checkbox(f"rings  {key_of(Action.RINGS)}", lambda on: self._set(rings=on))
        self._overlay = checkbox(f"on images  {key_of(Action.OVERLAY)}", self._set_overlay)
        switches = gui.VGrid(2, GAP_PX)
        for switch in (self._flow, self._boxes, self._rings, self._overlay):
            switches.add_child(switch)
        self.widget.add_child(switches)

        all_classes = button("all  0", lambda: act(Action.ALL_CLASSES))
        self._total = heading("")
        self.widget.add_child(row(all_classes, level(self._total)))
        self._classes = ImageView(self._click_class)
        self.widget.add_child(self._classes.widget)

        self._low, self._high = (gui.Slider(gui.Slider.DOUBLE) for _ in range(2))
        for slider in (self._low, self._high):
            slider.set_limits(state.grid.min_m[2], state.grid.max_m[2])
            slider.set_on_value_changed(self._set_heights)
        self.widget.add_child(labelled([("from m", self._low), ("to m", self._high)], _NAMES_PX))

        views = gui.Horiz(GAP_PX)
        views.add_child(button("home R", lambda: act(Action.HOME_VIEW)))
        views.add_child(button("top T", lambda: act(Action.TOP_VIEW)))
        self.widget.add_child(views)
        self._views = gui.Horiz(GAP_PX)
        for number, (recall, keep) in enumerate(zip(VIEWS, KEEP_VIEWS, strict=True), 1):
            tip = f"{key_of(recall)}: look from here; {key_of(keep)}: save the view here"
            self._views.add_child(button(f" {number} ", self._doing(recall), tip=tip))
        self.widget.add_child(self._views)

    def update(self, counts: Mapping[int, int], width: int) -> bool:
        """Show the state; whether the panel must be laid out anew."""
        state, show = self._state, self._state.show
        self._voxels.selected_index = VOXELS.index(show.voxels)
        self._color.selected_index = COLORS.index(show.color)
        self._mask.selected_index = tuple(MASKS).index(show.mask)
        self._points.selected_index = POINT_COLORS.index(show.points)
        self._flow.checked, self._boxes.checked = show.flow, show.boxes
        self._rings.checked, self._overlay.checked = show.rings, state.overlay
        self._flow.enabled = state.available.flow
        self._boxes.enabled = state.available.boxes
        self._points.enabled = state.available.points
        self._low.double_value, self._high.double_value = state.heights()
        self._total.text = f"{sum(counts.values()):,} voxels shown"
        return self._classes.show(draw_classes(state, counts, width))

    def _doing(self, action: Action) -> Callable[[], None]:
        return lambda: self._act(action)

    def _set(self, **change: Any) -> None:
        self._state.show = replace(self._state.show, **change)
        self._changed()

    def _set_voxels(self, place: int) -> None:
        self._state.set_voxels(VOXELS[place])
        self._changed()

    def _set_overlay(self, on: bool) -> None:
        self._state.overlay = on
        self._changed()

    def _set_heights(self, _: SupportsFloat) -> None:
        before = self._state.show.height_m
        self._state.clip(round(self._low.double_value, 2), round(self._high.double_value, 2))
        if self._state.show.height_m != before:  # Open3D also tells of values that we set
            self._changed()

    def _click_class(self, _: float, y: float) -> None:
        if (class_id := class_row(self._state, y)) is not None:
            self._state.class_id = class_id
            self._state.toggle_class(class_id)
            self._changed()
