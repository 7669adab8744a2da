"""What a key does in the review window: one table, which the help sheet shows too."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Action(enum.StrEnum):
    """All that a reviewer can do without the mouse."""

    NEXT_FRAME = "next frame"
    PREVIOUS_FRAME = "previous frame"
    FIRST_FRAME = "first frame"
    LAST_FRAME = "last frame"
    NEXT_SCENE = "next scene"
    PREVIOUS_SCENE = "previous scene"
    PLAY = "play, pause"
    NEXT_IN_QUEUE = "next in the queue"
    PREVIOUS_IN_QUEUE = "back in the queue"

    LABELS = "labels"
    TRUTH = "ground truth"
    SECOND = "second store"
    DIFFERENCE = "difference"
    COLOR = "color: class, confidence, evidence"
    MASK = "next mask"
    POINTS = "LiDAR points: height, class, hit, off"
    FLOW = "flow arrows"
    BOXES = "boxes"
    RINGS = "range rings"
    OVERLAY = "labels over the images"
    LARGE_IMAGE = "enlarge the next image"

    NEXT_CLASS = "next class"
    PREVIOUS_CLASS = "previous class"
    HIDE_CLASS = "hide or show that class"
    ALL_CLASSES = "show every class"
    TOP_DOWN = "clip lower from above"
    TOP_UP = "clip higher from above"
    BOTTOM_DOWN = "clip lower from below"
    BOTTOM_UP = "clip higher from below"
    NO_CLIP = "no height clip"

    HOME_VIEW = "view from behind the ego"
    TOP_VIEW = "view from above"
    VIEW_1 = "saved view 1"
    VIEW_2 = "saved view 2"
    VIEW_3 = "saved view 3"
    VIEW_4 = "saved view 4"
    KEEP_VIEW_1 = "save view 1"
    KEEP_VIEW_2 = "save view 2"
    KEEP_VIEW_3 = "save view 3"
    KEEP_VIEW_4 = "save view 4"

    ACCEPT = "accept"
    REJECT = "reject"
    UNSURE = "unsure"
    MARK = "mark the start of a range"
    NOTE = "write a note"
    UNDO = "undo my last entry"

    TOOL = "paint: box, component, off"
    FREE_TOO = "box: free voxels as well"
    APPLY = "paint what is selected"
    BOX_TOP_UP = "box: raise the top"
    BOX_TOP_DOWN = "box: lower the top"
    BOX_BOTTOM_UP = "box: raise the bottom"
    BOX_BOTTOM_DOWN = "box: lower the bottom"
    CANCEL = "drop selection, range, tool; close"

    HELP = "this sheet"
    QUIT = "close"


VIEWS = (Action.VIEW_1, Action.VIEW_2, Action.VIEW_3, Action.VIEW_4)
KEEP_VIEWS = (Action.KEEP_VIEW_1, Action.KEEP_VIEW_2, Action.KEEP_VIEW_3, Action.KEEP_VIEW_4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A key as Open3D names it in lower case, with Shift held or not."""

    key: str
    action: Action
    shift: bool = False

    @property
    def label(self) -> str:
        """As it stands on the keyboard."""
        name = _LABELS.get(self.key, self.key.replace("_", " ").title())
        return f"Shift {name}" if self.shift else name


def _keys(*pairs: tuple[str, Action]) -> tuple[Binding, ...]:
    return tuple(
        Binding(key=key.removeprefix("shift "), action=action, shift=key.startswith("shift "))
        for key, action in pairs
    )


SECTIONS: dict[str, tuple[Binding, ...]] = {
    "Frames": _keys(
        ("right", Action.NEXT_FRAME),
        ("left", Action.PREVIOUS_FRAME),
        ("home", Action.FIRST_FRAME),
        ("end", Action.LAST_FRAME),
        ("page_down", Action.NEXT_SCENE),
        ("page_up", Action.PREVIOUS_SCENE),
        ("space", Action.PLAY),
        ("j", Action.NEXT_IN_QUEUE),
        ("shift j", Action.PREVIOUS_IN_QUEUE),
    ),
    "Layers": _keys(
        ("l", Action.LABELS),
        ("g", Action.TRUTH),
        ("s", Action.SECOND),
        ("d", Action.DIFFERENCE),
        ("c", Action.COLOR),
        ("m", Action.MASK),
        ("p", Action.POINTS),
        ("f", Action.FLOW),
        ("b", Action.BOXES),
        ("o", Action.RINGS),
        ("v", Action.OVERLAY),
        ("w", Action.LARGE_IMAGE),
    ),
    "Classes and height": _keys(
        ("right_bracket", Action.NEXT_CLASS),
        ("left_bracket", Action.PREVIOUS_CLASS),
        ("y", Action.HIDE_CLASS),
        ("zero", Action.ALL_CLASSES),
        ("comma", Action.TOP_DOWN),
        ("period", Action.TOP_UP),
        ("shift comma", Action.BOTTOM_DOWN),
        ("shift period", Action.BOTTOM_UP),
        ("slash", Action.NO_CLIP),
    ),
    "View": _keys(
        ("r", Action.HOME_VIEW),
        ("t", Action.TOP_VIEW),
        *zip(("one", "two", "three", "four"), VIEWS, strict=True),
        *zip(("shift one", "shift two", "shift three", "shift four"), KEEP_VIEWS, strict=True),
    ),
    "Judge": _keys(
        ("a", Action.ACCEPT),
        ("x", Action.REJECT),
        ("u", Action.UNSURE),
        ("k", Action.MARK),
        ("n", Action.NOTE),
        ("z", Action.UNDO),
    ),
    "Paint": _keys(
        ("i", Action.TOOL),
        ("shift i", Action.FREE_TOO),
        ("up", Action.BOX_TOP_UP),
        ("down", Action.BOX_TOP_DOWN),
        ("shift up", Action.BOX_BOTTOM_UP),
        ("shift down", Action.BOX_BOTTOM_DOWN),
        ("enter", Action.APPLY),
        ("escape", Action.CANCEL),
    ),
    "Window": _keys(("h", Action.HELP), ("q", Action.QUIT)),
}

_LABELS = {
    "right_bracket": "]",
    "left_bracket": "[",
    "comma": ",",
    "period": ".",
    "slash": "/",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "escape": "Esc",
}
_ACTIONS = {(b.key, b.shift): b.action for part in SECTIONS.values() for b in part}
_KEY_OF = {b.action: b.label for part in SECTIONS.values() for b in part}


def action_of(key: str, *, shift: bool = False) -> Action | None:
    """What a key does; a key that has no other meaning with Shift does the same with it."""
    return _ACTIONS.get((key.lower(), shift)) or _ACTIONS.get((key.lower(), False))


def key_of(action: Action) -> str:
    """The key of an action, for a label beside its switch."""
    return _KEY_OF[action]
