"""What is drawn of a frame, for what is switched on. Pure; any thread may call it.

Legend: X, Y, Z voxels; N points; L lines.
"""

from __future__ import annotations

import colorsys
import enum
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.labels.store import FrameLabels, MaskBit
from datasets.taxonomy import IGNORE_ID, Taxonomy
from viz.render.bev_images import level_colors
from viz.render.lines import (
    box_lines,
    cell_outline,
    flow_arrows,
    ground_top_m,
    range_rings,
)
from viz.render.points import colored_points
from viz.render.scene3d import ColoredLines, ColoredMesh, ColoredPoints, colored, ego_marker
from viz.render.text import LegendRow
from viz.render.voxel_mesh import SurfaceMesh, surface_meshes
from viz.session.lidar_evidence import (
    FINDING_COLORS,
    FINDING_NAMES,
    Finding,
    evidence_of,
    findings,
)
from viz.session.session import MASKS, ReviewFrame, class_counts

Voxels = Literal["labels", "truth", "second", "difference", "none"]
Color = Literal["class", "confidence", "evidence", "object"]
PointColor = Literal["height", "class", "hit", "off"]
VOXELS: tuple[Voxels, ...] = get_args(Voxels)
COLORS: tuple[Color, ...] = get_args(Color)
POINT_COLORS: tuple[PointColor, ...] = get_args(PointColor)
RING_LIFT_M = 0.15
OBJECT_COLORS, GOLDEN_ANGLE = 200, 0.381966
"""Colors of objects, each far from those before it."""
PALE = (205, 208, 212)
_OBSERVED = MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSettings:
    """What is switched on.

    Attributes:
        voxels: whose voxels. ``difference``: the labels against the second store, or where there
            is none against the ground truth.
        color: of the voxels of labels; the other kinds have their classes' colors.
        mask: key of ``viz.session.session.MASKS``; for a difference that of the labels.
        classes: ids shown; None: all but free space.
        height_m: lowest and highest voxel centre and point shown, metres of the grid's frame.
        points: color of the LiDAR points: height, class of the voxel that they lie in, or
            whether that is occupied.
        cell: index of a voxel to outline.

    Raises:
        ValueError: an unknown mask, or heights that are not in order.
    """

    voxels: Voxels = "labels"
    color: Color = "class"
    mask: str = "trusted"
    classes: frozenset[int] | None = None
    height_m: tuple[float, float] | None = None
    points: PointColor = "height"
    flow: bool = False
    boxes: bool = False
    rings: bool = True
    cell: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"unknown mask {self.mask!r}; there are {', '.join(MASKS)}")
        if self.height_m is not None and not self.height_m[0] < self.height_m[1]:
            raise ValueError(f"heights must be in order, got {self.height_m}")


class Difference(enum.IntEnum):
    """How two sets of labels differ in a voxel that one of them has occupied."""

    SAME = 0
    OTHER_CLASS = 1
    ONLY_LABELS = 2
    ONLY_OTHER = 3


DIFFERENCE_COLORS = {
    Difference.SAME: (120, 124, 134),
    Difference.OTHER_CLASS: (255, 214, 50),
    Difference.ONLY_LABELS: (240, 80, 60),
    Difference.ONLY_OTHER: (70, 150, 255),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedLayers:
    """What to draw.

    Attributes:
        meshes: surface voxels by class (or level, or finding), and the ego marker.
        counts: shown voxels by class id, classes without any included.
        surface, color_table: the same voxels for ``viz.render.camera_overlay``; the (256, 3) uint8
            table has the color of each mesh id.
        caption: what the colors mean, one line.
        legend: what the colors mean, row by row.
        shown, ids: (X, Y, Z) bool, which voxels are drawn; uint8, their ids in ``color_table``.
    """

    meshes: tuple[ColoredMesh, ...]
    points: tuple[ColoredPoints, ...]
    lines: tuple[ColoredLines, ...]
    counts: dict[int, int]
    surface: tuple[SurfaceMesh, ...]
    color_table: NDArray[np.uint8]
    caption: str
    legend: tuple[LegendRow, ...]
    shown: NDArray[np.bool_]
    ids: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Painted:
    """Voxels with ids, and what the ids mean."""

    ids: NDArray[np.uint8]
    shown: NDArray[np.bool_]
    names: tuple[str, ...]
    table: NDArray[np.uint8]
    caption: str


def draw(frame: ReviewFrame, show: LayerSettings) -> RenderedLayers:
    """Everything that is switched on. What the frame has not is left out; the caption says so."""
    painted = _painted(frame, show)
    shown = painted.shown
    if show.height_m is not None:
        shown = shown & _slice_of(frame, show.height_m)
    surface = surface_meshes(painted.ids, shown, frame.grid)
    labels = voxels_of(frame, show.voxels)
    points: tuple[ColoredPoints, ...] = ()
    point_caption = ""
    if show.points != "off":
        points, point_caption = colored_points(frame, labels, show.points, show.height_m)
    captions = [painted.caption, point_caption]
    lines = list[ColoredLines]()
    if show.rings:
        lines.append(range_rings(frame.grid, ground_top_m(shown, frame.grid) + RING_LIFT_M))
    if show.flow:
        if labels is None or labels.flow is None:
            captions.append("no flow is stored")
        else:
            lines.append(flow_arrows(labels.flow, shown, frame.grid))
            captions.append("arrows: way in 1 s")
    if show.boxes:
        if frame.box_taxonomy is None:
            captions.append("the log has no boxes")
        else:
            lines.append(box_lines(frame.boxes, frame.box_taxonomy))
            captions.append(f"{len(frame.boxes)} boxes of the log")
    if show.cell is not None:
        lines.append(cell_outline(show.cell, frame.grid))
    n_of = np.bincount(painted.ids[shown], minlength=256)
    counts = dict.fromkeys(frame.taxonomy.semantic_ids, 0)
    if labels is not None:
        counts = class_counts(labels, shown, frame.taxonomy)
    return RenderedLayers(
        meshes=(
            *colored(surface, painted.names, painted.table),
            ego_marker(frame.grid_frame, heading_known=frame.heading_known),
        ),
        points=points,
        lines=tuple(line for line in lines if len(line.ends_m)),
        counts=counts,
        surface=surface,
        color_table=painted.table,
        caption="; ".join(caption for caption in captions if caption),
        legend=tuple(
            LegendRow(color=_color(painted.table, i), name=name, count=int(n_of[i]))
            for i, name in enumerate(painted.names)
            if name
        ),
        shown=shown,
        ids=painted.ids,
    )


def voxels_of(frame: ReviewFrame, voxels: Voxels) -> FrameLabels | None:
    """The labels that are shown (those under review for a difference); None if not there."""
    if voxels == "truth":
        return frame.truth
    if voxels == "second":
        return frame.second
    return None if voxels == "none" else frame.labels


def _painted(frame: ReviewFrame, show: LayerSettings) -> _Painted:
    labels, taxonomy = voxels_of(frame, show.voxels), frame.taxonomy
    names = tuple("" if i == taxonomy.free_id else n for i, n in enumerate(taxonomy.names))
    table = taxonomy.color_table()
    none_shown = np.zeros(frame.grid.shape, bool)
    if show.voxels == "difference":
        return _difference(frame, show)
    if labels is None:
        missing = {"truth": "no ground truth", "second": "the second store has no labels"}
        caption = "voxels off"
        if show.voxels in missing:
            caption = f"{missing[show.voxels]} of this frame"
        ids = np.zeros(frame.grid.shape, np.uint8)
        return _Painted(ids=ids, shown=none_shown, names=names, table=table, caption=caption)
    masked = _masked(labels, show.mask)
    shown = masked & _allowed(taxonomy, show.classes)[labels.semantics]
    caption = {"labels": "classes", "truth": "ground truth", "second": "second store"}[show.voxels]
    if show.voxels == "labels" and show.color == "confidence":
        if frame.levels:
            return _Painted(
                ids=labels.confidence,
                shown=shown,
                names=tuple(f"confidence {level:g}" for level in frame.levels),
                table=level_colors(frame.levels),
                caption="confidence: dark blue 0, yellow 1",
            )
        caption = "classes; these labels have no confidence"
    if show.voxels == "labels" and show.color == "evidence":
        evidence = evidence_of(frame)
        if evidence is not None:
            ids, worth = findings(evidence, labels, shown, taxonomy.free_id)
            shown = worth if show.classes is None else shown
            rays = "evidence of the store" if evidence.stored else "evidence of the key sweep"
            return _Painted(
                ids=ids,
                shown=shown & masked,
                names=tuple(FINDING_NAMES[f] for f in Finding),
                table=_table(FINDING_COLORS),
                caption=f"{rays}: green hit, orange mostly passed, red only passed, violet missed",
            )
        caption = "classes; neither store nor log has LiDAR evidence"
    if show.voxels == "labels" and show.color == "object":
        if labels.instances is not None:
            return _objects(labels, shown, labels.instances)
        caption = "classes; objects are not told apart in these labels"
    return _Painted(ids=labels.semantics, shown=shown, names=names, table=table, caption=caption)


def _objects(
    labels: FrameLabels, shown: NDArray[np.bool_], instances: NDArray[np.uint16]
) -> _Painted:
    """Each object in a color of its own, the same in every frame; all else pale."""
    ids = np.where(instances > 0, 1 + (instances - 1) % OBJECT_COLORS, 0).astype(np.uint8)
    hue = (np.arange(OBJECT_COLORS) * GOLDEN_ANGLE) % 1.0
    value = np.where(np.arange(OBJECT_COLORS) % 2, 0.75, 1.0)
    table = np.zeros((256, 3), np.uint8)
    table[0] = PALE
    rows = [colorsys.hsv_to_rgb(h, 0.8, v) for h, v in zip(hue, value, strict=True)]
    table[1 : 1 + OBJECT_COLORS] = np.round(255 * np.array(rows))
    n = len(np.unique(instances[shown & (instances > 0)]))
    return _Painted(
        ids=ids,
        shown=shown,
        names=("no object", *[""] * OBJECT_COLORS),
        table=table,
        caption=f"{n} objects, each in one color over the scene",
    )


def _difference(frame: ReviewFrame, show: LayerSettings) -> _Painted:
    """The labels beside the second store or the ground truth."""
    other, side = frame.second, "second store"
    if other is None:
        other, side = frame.truth, "ground truth"
    names = (
        "the same class",
        "occupied in both, other class",
        "only in the labels",
        f"only in the {side}",
    )
    ids = np.zeros(frame.grid.shape, np.uint8)
    shown = np.zeros(frame.grid.shape, bool)
    caption = "nothing to compare with in this frame"
    if other is not None:
        taxonomy, a, b = frame.taxonomy, frame.labels.semantics, other.semantics
        comparable = (a != IGNORE_ID) & (b != IGNORE_ID)
        if other is frame.truth:  # elsewhere benchmarks write free and mean unknown
            comparable &= (other.mask & np.uint8(_OBSERVED)) != 0
        in_a, in_b = a != taxonomy.free_id, b != taxonomy.free_id
        allowed = _allowed(taxonomy, show.classes)
        shown = comparable & (allowed[a] | allowed[b]) & (in_a | in_b)
        shown &= _masked(frame.labels, show.mask)
        ids[in_a & in_b & (a != b)] = Difference.OTHER_CLASS
        ids[in_a & ~in_b] = Difference.ONLY_LABELS
        ids[~in_a & in_b] = Difference.ONLY_OTHER
        caption = (
            f"labels against the {side}: red only in the labels, blue only in the {side}, "
            "yellow other class"
        )
    return _Painted(
        ids=ids, shown=shown, names=names, table=_table(DIFFERENCE_COLORS), caption=caption
    )


def _masked(labels: FrameLabels, mask: str) -> NDArray[np.bool_]:
    bit: MaskBit | None = MASKS[mask]
    if bit is None:
        return np.ones(labels.mask.shape, bool)
    return np.asarray((labels.mask & np.uint8(bit)) != 0)


def _allowed(taxonomy: Taxonomy, classes: frozenset[int] | None) -> NDArray[np.bool_]:
    """(256,) bool: ids that are shown."""
    allowed = np.zeros(256, bool)
    allowed[list(taxonomy.semantic_ids if classes is None else classes)] = True
    return allowed


def _slice_of(frame: ReviewFrame, height_m: tuple[float, float]) -> NDArray[np.bool_]:
    """(Z,) bool: layers whose centres lie between the heights."""
    n, size, low = frame.grid.shape[2], frame.grid.size_m[2], frame.grid.min_m[2]
    centre = low + (np.arange(n) + 0.5) * size
    return np.asarray((centre >= height_m[0]) & (centre <= height_m[1]))


def _table(
    colors: dict[Difference, tuple[int, int, int]] | dict[Finding, tuple[int, int, int]],
) -> NDArray[np.uint8]:
    table = np.zeros((256, 3), np.uint8)
    for i, color in colors.items():
        table[i] = color
    return table


def _color(table: NDArray[np.uint8], i: int) -> tuple[int, int, int]:
    return int(table[i, 0]), int(table[i, 1]), int(table[i, 2])
