"""What each action of the reviewer changes in the state of the review."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from viz.render.layers import COLORS, POINT_COLORS, Color, Voxels
from viz.review.keys import Action
from viz.review.state import TOOLS, ReviewState
from viz.session.picking import class_name
from viz.session.session import MASKS

T = TypeVar("T")


def perform(state: ReviewState, action: Action) -> bool:
    """Change what an action changes in the state; False where it is the window's to do."""
    change = _CHANGES.get(action)
    if change is not None:
        state.message = ""
        change(state)
    return change is not None


def colors_there(state: ReviewState) -> tuple[Color, ...]:
    """Ways to color a voxel for which the labels have the data."""
    stored = {
        "class": True,
        "confidence": state.available.confidence,
        "evidence": state.available.evidence,
        "object": state.available.instances,
    }
    return tuple(color for color in COLORS if stored[color])


def _after(order: Sequence[T], now: T) -> T:
    """The one after ``now``, in a circle."""
    return order[(order.index(now) + 1) % len(order)] if now in order else order[0]


def _by_frames(by: int) -> Callable[[ReviewState], None]:
    return lambda state: state.go(state.scene_id, state.k + by)


def _to_scene(state: ReviewState, by: int) -> None:
    scenes = list(state.tokens)
    place = scenes.index(state.scene_id) + by
    if 0 <= place < len(scenes):
        state.go(scenes[place], 0)
    else:
        state.message = "there is no further scene"


def _voxels(
    wanted: Voxels,
) -> Callable[[ReviewState], None]:
    """Show these; shown already, show the labels; the labels themselves go off."""
    fallback: Voxels = "none" if wanted == "labels" else "labels"
    return lambda state: state.set_voxels(fallback if state.show.voxels == wanted else wanted)


def _color(state: ReviewState) -> None:
    colors = colors_there(state)
    state.show = replace(state.show, color=_after(colors, state.show.color))
    if len(colors) == 1:
        state.message = "neither confidence nor evidence is stored"


def _mask(state: ReviewState) -> None:
    state.show = replace(state.show, mask=_after(tuple(MASKS), state.show.mask))


def _points(state: ReviewState) -> None:
    if not state.available.points:
        state.message = "no LiDAR points at hand"
    state.show = replace(state.show, points=_after(POINT_COLORS, state.show.points))


def _flow(state: ReviewState) -> None:
    if not state.available.flow:
        state.message = "no flow in these labels"
    state.show = replace(state.show, flow=not state.show.flow)


def _boxes(state: ReviewState) -> None:
    if not state.available.boxes:
        state.message = "no boxes in this log"
    state.show = replace(state.show, boxes=not state.show.boxes)


def _rings(state: ReviewState) -> None:
    state.show = replace(state.show, rings=not state.show.rings)


def _class(by: int) -> Callable[[ReviewState], None]:
    def change(state: ReviewState) -> None:
        ids = state.paint_ids()
        place = ids.index(state.class_id) if state.class_id in ids else 0
        state.class_id = ids[(place + by) % len(ids)]
        state.message = f"class at hand: {class_name(state.taxonomy, state.class_id)}"

    return change


def _hide_class(state: ReviewState) -> None:
    if state.class_id in state.taxonomy.semantic_ids:
        state.toggle_class(state.class_id)


def _all_classes(state: ReviewState) -> None:
    state.show = replace(state.show, classes=None)


def _clip(*, bottom: int = 0, top: int = 0) -> Callable[[ReviewState], None]:
    def change(state: ReviewState) -> None:
        low, high = state.heights()
        step = state.grid.size_m[2]
        state.clip(low + bottom * step, high + top * step)

    return change


def _no_clip(state: ReviewState) -> None:
    state.show = replace(state.show, height_m=None)


def _box(*, bottom: int = 0, top: int = 0) -> Callable[[ReviewState], None]:
    def change(state: ReviewState) -> None:
        if (box := state.box()) is not None:
            state.set_box_layers(box[0][2] + bottom, box[1][2] + top)

    return change


def _mark(state: ReviewState) -> None:
    state.marked = None if state.marked is not None else (state.scene_id, state.k)
    if state.marked is not None:
        state.message = "range begins here: go to its other end and judge"


def _enlarge(state: ReviewState) -> None:
    state.large = _after((None, *range(state.n_images)), state.large)


def _cancel(state: ReviewState) -> None:
    if state.help:
        state.help = False
    elif state.corners or state.show.cell is not None:
        state.drop_selection()
    elif state.marked is not None:
        state.marked = None
    else:
        state.tool, state.playing = "off", False


def _flip_playing(state: ReviewState) -> None:
    state.playing = not state.playing


def _flip_free_too(state: ReviewState) -> None:
    state.free_too = not state.free_too


def _flip_overlay(state: ReviewState) -> None:
    state.overlay = not state.overlay


def _flip_help(state: ReviewState) -> None:
    state.help = not state.help


_CHANGES: dict[Action, Callable[[ReviewState], None]] = {
    Action.NEXT_FRAME: _by_frames(1),
    Action.PREVIOUS_FRAME: _by_frames(-1),
    Action.FIRST_FRAME: lambda state: state.go(state.scene_id, 0),
    Action.LAST_FRAME: lambda state: state.go(state.scene_id, state.n_frames - 1),
    Action.NEXT_SCENE: lambda state: _to_scene(state, 1),
    Action.PREVIOUS_SCENE: lambda state: _to_scene(state, -1),
    Action.PLAY: _flip_playing,
    Action.NEXT_IN_QUEUE: lambda state: state.go_in_queue(1),
    Action.PREVIOUS_IN_QUEUE: lambda state: state.go_in_queue(-1),
    Action.LABELS: _voxels("labels"),
    Action.TRUTH: _voxels("truth"),
    Action.SECOND: _voxels("second"),
    Action.DIFFERENCE: _voxels("difference"),
    Action.COLOR: _color,
    Action.MASK: _mask,
    Action.POINTS: _points,
    Action.FLOW: _flow,
    Action.BOXES: _boxes,
    Action.RINGS: _rings,
    Action.OVERLAY: _flip_overlay,
    Action.LARGE_IMAGE: _enlarge,
    Action.NEXT_CLASS: _class(1),
    Action.PREVIOUS_CLASS: _class(-1),
    Action.HIDE_CLASS: _hide_class,
    Action.ALL_CLASSES: _all_classes,
    Action.TOP_DOWN: _clip(top=-1),
    Action.TOP_UP: _clip(top=1),
    Action.BOTTOM_DOWN: _clip(bottom=-1),
    Action.BOTTOM_UP: _clip(bottom=1),
    Action.NO_CLIP: _no_clip,
    Action.MARK: _mark,
    Action.TOOL: lambda state: state.set_tool(_after(TOOLS, state.tool)),
    Action.FREE_TOO: _flip_free_too,
    Action.BOX_TOP_UP: _box(top=1),
    Action.BOX_TOP_DOWN: _box(top=-1),
    Action.BOX_BOTTOM_UP: _box(bottom=1),
    Action.BOX_BOTTOM_DOWN: _box(bottom=-1),
    Action.CANCEL: _cancel,
    Action.HELP: _flip_help,
}
