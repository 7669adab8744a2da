"""What a reviewer looks at, and what an action changes in it; no display.

Legend: k, a frame of the scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from datasets.geometry.grid import VoxelGrid
from datasets.reviews.overlay import Undo, Verdict, VerdictEntry, Written
from datasets.taxonomy import IGNORE_ID, Taxonomy
from viz.render.layers import LayerSettings, Voxels
from viz.review.review_queue import QueueItem
from viz.session.picking import Cell
from viz.session.session import ReviewFrame

Tool = Literal["off", "box", "component"]
TOOLS: tuple[Tool, ...] = ("off", "box", "component")


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """What there is to show of a frame: a switch of anything else is refused with a word why."""

    truth: bool = False
    second: bool = False
    confidence: bool = True
    evidence: bool = False
    instances: bool = False
    flow: bool = False
    boxes: bool = False
    points: bool = False

    def missing(self, voxels: str) -> str:
        """Why these voxels cannot be shown; empty if they can."""
        if voxels == "truth" and not self.truth:
            return "no ground truth at hand"
        if voxels == "second" and not self.second:
            return "no second store: name one with --second"
        if voxels == "difference" and not (self.truth or self.second):
            return "nothing to compare with"
        return ""


def available(frame: ReviewFrame) -> Available:
    """What there is to show of a frame."""
    labels = frame.labels
    flows = [side.flow for side in (labels, frame.truth) if side is not None]
    return Available(
        truth=frame.truth is not None,
        second=frame.second is not None,
        confidence=bool(frame.levels),
        evidence=labels.hits is not None or frame.points_m is not None,
        instances=labels.instances is not None,
        flow=any(flow is not None for flow in flows),
        boxes=frame.box_taxonomy is not None,
        points=frame.points_m is not None,
    )


@dataclass(slots=True, kw_only=True)
class ReviewState:
    """The frame, the layers, the selection and the queue.

    Attributes:
        tokens: of every scene's frames, in order.
        class_id: the class at hand: what is painted, and hidden or shown.
        marked: (scene, k) where a range of frames began.
        corners: picked cells of a box, at most two; of a component, one.
        box_k: lowest and highest layer of the box; None: as the corners lie.
        free_too: a box paints all its voxels, not only those that are shown.
        place: in the queue; None until it is entered.
        message: what the last action says, for the status line.
    """

    grid: VoxelGrid
    taxonomy: Taxonomy
    tokens: Mapping[str, Sequence[str]]
    scene_id: str
    k: int
    show: LayerSettings
    queue: Sequence[QueueItem] = ()
    available: Available = field(default_factory=Available)
    judged: set[tuple[str, str]] = field(default_factory=set)
    class_id: int = 0
    tool: Tool = "off"
    corners: tuple[Cell, ...] = ()
    box_k: tuple[int, int] | None = None
    free_too: bool = False
    marked: tuple[str, int] | None = None
    note: str = ""
    place: int | None = None
    playing: bool = False
    overlay: bool = True
    large: int | None = None
    n_images: int = 0
    help: bool = False
    message: str = ""

    @classmethod
    def of_frame(
        cls,
        frame: ReviewFrame,
        tokens: Mapping[str, Sequence[str]],
        *,
        show: LayerSettings,
        queue: Sequence[QueueItem] = (),
    ) -> ReviewState:
        """The state in which a frame is opened."""
        state = cls(
            grid=frame.grid,
            taxonomy=frame.taxonomy,
            tokens=tokens,
            scene_id=frame.scene_id,
            k=frame.k,
            show=show,
            queue=queue,
            available=available(frame),
            class_id=frame.taxonomy.semantic_ids[0],
        )
        state.enter_queue()
        return state

    def take_frame(self, frame: ReviewFrame) -> None:
        """A frame is on the screen: what there is to show of it."""
        self.n_images, self.available = len(frame.images), available(frame)

    @property
    def n_frames(self) -> int:
        return len(self.tokens[self.scene_id])

    @property
    def token(self) -> str:
        return self.tokens[self.scene_id][self.k]

    @property
    def item(self) -> QueueItem | None:
        """The queue's item that is on the screen."""
        if self.place is None:
            return None
        item = self.queue[self.place]
        return item if (item.scene_id, item.k) == (self.scene_id, self.k) else None

    @property
    def can_cancel(self) -> bool:
        """There is a selection, a range, a tool or the help sheet to drop."""
        selected = bool(self.corners) or self.show.cell is not None
        return selected or self.help or self.marked is not None or self.tool != "off"

    @property
    def frames(self) -> range:
        """Frames that a verdict now is on: the marked range, or this one."""
        if self.marked is None or self.marked[0] != self.scene_id:
            return range(self.k, self.k + 1)
        low, high = sorted((self.marked[1], self.k))
        return range(low, high + 1)

    def go(self, scene_id: str, k: int) -> None:
        """To a frame, as near as the scene has it; a selection of voxels does not come along."""
        k = min(max(k, 0), len(self.tokens[scene_id]) - 1)
        if (scene_id, k) == (self.scene_id, self.k):
            return
        if scene_id != self.scene_id:
            self.marked = None
        self.scene_id, self.k = scene_id, k
        self.drop_selection()

    def drop_selection(self) -> None:
        """No picked voxel and no box."""
        self.corners, self.box_k = (), None
        self.show = replace(self.show, cell=None)

    def ahead(self) -> tuple[tuple[str, int], ...]:
        """Frames that are likely to be asked for next, most likely first."""
        likely = [(self.scene_id, self.k + 1), (self.scene_id, self.k - 1)]
        if self.place is not None and (after := self.next_place()) is not None:
            likely.insert(0, (self.queue[after].scene_id, self.queue[after].k))
        return tuple(f for f in dict.fromkeys(likely) if 0 <= f[1] < len(self.tokens[f[0]]))

    def pick(self, cell: Cell | None) -> None:
        """A voxel was clicked; None: nothing was hit."""
        self.message = ""
        self.show = replace(self.show, cell=cell)
        if self.tool == "off" or cell is None:
            return
        self.box_k = None
        if self.tool == "component":
            self.corners = (cell,)
        else:
            self.corners = (*self.corners, cell) if len(self.corners) == 1 else (cell,)
        if self.tool == "box" and len(self.corners) == 1:
            self.message = "pick the opposite corner"

    def box(self) -> tuple[Cell, Cell] | None:
        """Lowest and highest cell of the box, both included; None before two corners are there."""
        if self.tool != "box" or len(self.corners) < 2:
            return None
        (x0, x1), (y0, y1), (z0, z1) = (sorted(axis) for axis in zip(*self.corners, strict=True))
        if self.box_k is not None:
            z0, z1 = self.box_k
        return (x0, y0, z0), (x1, y1, z1)

    def next_place(self) -> int | None:
        """Place of the queue's next item that is not judged."""
        for place in range(0 if self.place is None else self.place + 1, len(self.queue)):
            item = self.queue[place]
            if (item.scene_id, item.token) not in self.judged:
                return place
        return None

    def go_in_queue(self, by: int) -> None:
        """To the next item that is not judged (``by`` > 0), or back by one."""
        if not self.queue:
            self.message = "there is no queue: name an audit with --queue"
            return
        place = self.next_place() if by > 0 else max((self.place or 0) - 1, 0)
        if place is None:
            self.message = "the queue is done"
            return
        if place == self.place:
            self.message = "the queue begins here"
        self.place = place
        self.go(self.queue[place].scene_id, self.queue[place].k)

    def enter_queue(self) -> None:
        """Take the queue's item of this frame, if it has one."""
        for place, item in enumerate(self.queue):
            if (item.scene_id, item.k) == (self.scene_id, self.k):
                self.place = place
                return

    def go_to_entry(self, entry: Written) -> None:
        """To the first frame that an entry is on, in the queue if it is there."""
        if isinstance(entry, Undo):
            return
        token = entry.tokens[0] if isinstance(entry, VerdictEntry) else entry.token
        self.go(entry.scene_id, list(self.tokens[entry.scene_id]).index(token))
        self.enter_queue()

    def verdict_entries(self, verdict: Verdict) -> tuple[VerdictEntry, ...]:
        """The entries of a verdict on ``frames``: what the queue drew at random is kept apart."""
        sampled = {(item.scene_id, item.k) for item in self.queue if item.sampled}
        tokens = self.tokens[self.scene_id]
        entries = []
        for by_chance in (False, True):
            ks = [k for k in self.frames if ((self.scene_id, k) in sampled) is by_chance]
            if ks:
                entries.append(
                    VerdictEntry(
                        scene_id=self.scene_id,
                        tokens=tuple(tokens[k] for k in ks),
                        verdict=verdict,
                        note=self.note,
                        sampled=by_chance,
                    )
                )
        return tuple(entries)

    def move_on(self, *, in_queue: bool = True, in_scene: bool = True) -> None:
        """After a verdict on ``frames``: to the queue's next item, or to the frame after them.

        Args:
            in_queue, in_scene: False stays at a frame of the queue, or at any other.
        """
        frames = self.frames
        self.judged.update((self.scene_id, self.tokens[self.scene_id][k]) for k in frames)
        self.marked, self.note = None, ""
        if self.item is not None and in_queue:
            self.go_in_queue(1)
        elif not in_scene:
            return
        elif frames[-1] + 1 < self.n_frames:
            self.go(self.scene_id, frames[-1] + 1)
        else:
            self.message = "that was the last frame of the scene"

    def shown_classes(self) -> frozenset[int]:
        """Ids of the classes that are not hidden."""
        all_ids = frozenset(self.taxonomy.semantic_ids)
        return all_ids if self.show.classes is None else self.show.classes

    def toggle_class(self, class_id: int) -> None:
        """Hide a class or show it again."""
        classes = self.shown_classes() ^ {class_id}
        all_shown = classes == frozenset(self.taxonomy.semantic_ids)
        self.show = replace(self.show, classes=None if all_shown else classes)

    def paint_ids(self) -> tuple[int, ...]:
        """What a voxel can be painted to: the classes, free space, and not to be used at all."""
        return (*self.taxonomy.semantic_ids, self.taxonomy.free_id, IGNORE_ID)

    def clip(self, low_m: float, high_m: float) -> None:
        """Show only what lies between two heights; the whole grid's are no clip."""
        bottom, top = self.grid.min_m[2], self.grid.max_m[2]
        low_m, high_m = max(low_m, bottom), min(high_m, top)
        if high_m <= low_m:
            return
        unclipped = low_m <= bottom + 1e-6 and high_m >= top - 1e-6
        self.show = replace(self.show, height_m=None if unclipped else (low_m, high_m))

    def heights(self) -> tuple[float, float]:
        """Lowest and highest metre shown."""
        return self.show.height_m or (self.grid.min_m[2], self.grid.max_m[2])

    def set_voxels(self, voxels: Voxels) -> None:
        """Show these, if they are there."""
        if why := self.available.missing(voxels):
            self.message = why
        else:
            self.show = replace(self.show, voxels=voxels)

    def set_box_layers(self, low: int, high: int) -> None:
        """Lowest and highest layer of the box; kept inside the grid, no change if inverted."""
        low, high = max(low, 0), min(high, self.grid.shape[2] - 1)
        if low <= high:
            self.box_k = (low, high)

    def set_tool(self, tool: Tool) -> None:
        self.tool, self.corners, self.box_k = tool, (), None
        if tool != "off":
            self.message = "pick a voxel" if tool == "component" else "pick two corners"
