"""How held-out LiDAR sweeps vote on the labels of a frame; needs no ground truth.

Sweeps that the teacher did not read say what it could not know: where returns end something
stands, and what rays see through is empty. One ray proves little: rays cross 87 % of the observed
occupied voxels of the city's true labels, most of them grazing the ground. So a vote against an
occupied voxel asks that no return ends in it and rays cross each of its eight parts, and flat
classes have no such vote; of voxels so voted down 61 % were free in the city's truth, of those in
which a return ends 3 %. A vote against a free voxel asks for three returns; of those 80 % were
occupied in the truth beside what is labelled occupied, 11 % elsewhere: in mid-air it is rain.

- a *miss*: returns end in a voxel labelled free beside an occupied one, to whose class it is put
  down;
- a *violation*: an upright voxel of a static class that is seen through;
- a *trail*: a voxel of a class that can move that the key sweep itself sees through;
- *flicker*: a static occupied voxel that is of another class a frame later.

Only observed voxels are judged. What moves is somewhere else in a held-out sweep, so its
surroundings have no part in misses and violations.

Legend: X Y Z voxels, K classes, R rings of distance, P points, S shifts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autolabel.confidence.held_out_sweeps import VoteEvidence
from datasets.benchmarks.resampling import sample_nearest, voxel_correspondence
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import inverse
from datasets.labels.voxel_labels import FrameLabels, MaskBit
from datasets.metrics.confusion import RangeBins
from datasets.taxonomy import IGNORE_ID, Taxonomy

VOTES = ("misses", "violations", "trails", "flicker")
RINGS = RangeBins(edges_m=(10.0, 20.0, 30.0, 40.0))
FLAT = frozenset(
    ("driveable_surface", "other_flat", "sidewalk", "terrain", "road", "walkable", "parking")
) | {"other_ground"}
"""Names of classes that rays graze, in every taxonomy."""
MOVING_REACH_M = 3.0
SHIFTS = tuple(s for s in itertools.product((-1, 0, 1), repeat=3) if any(s))
Turn = Literal["mirrored left to right", "mirrored front to back", "half", "left", "right"]
TURNS: tuple[Turn, ...] = get_args(Turn)
"""How labels may lie instead: mirrored, or turned by a half or a quarter about the vertical."""

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VoteCounts:
    """Votes of one kind: (K, R) voxels judged, and of these found bad, by label and ring."""

    bad: Counts
    judged: Counts

    def __add__(self, other: VoteCounts) -> VoteCounts:
        return VoteCounts(bad=self.bad + other.bad, judged=self.judged + other.judged)

    @classmethod
    def none(cls, n_classes: int) -> VoteCounts:
        zero = np.zeros((n_classes, len(RINGS.names)), np.int64)
        return cls(bad=zero, judged=zero.copy())

    @classmethod
    def of(
        cls, bad: Mask, judged: Mask, semantics: NDArray[np.uint8], ring: NDArray[np.uint8], n: int
    ) -> VoteCounts:
        """Count voxels (X, Y, Z); ``bad`` outside ``judged`` does not count."""

        def count(voxels: Mask) -> Counts:
            cells = semantics[voxels].astype(np.int64) * len(RINGS.names) + ring[voxels]
            return np.bincount(cells, minlength=n * len(RINGS.names)).reshape(n, -1)

        return cls(bad=count(bad & judged), judged=count(judged))

    @property
    def share(self) -> float:
        """Of all that was judged; NaN if nothing was."""
        total = int(self.judged.sum())
        return int(self.bad.sum()) / total if total else float("nan")


def observed(labels: FrameLabels) -> Mask:
    """(X, Y, Z) labeled, and observed by a sensor.

    Trusted voxels were observed; of a benchmark without visibility masks nothing else tells.
    """
    bits = MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE | MaskBit.TRUSTED
    by_sensor = (labels.mask & np.uint8(bits)) > 0
    return np.asarray(by_sensor & (labels.semantics != IGNORE_ID))


def frame_votes(
    labels: FrameLabels, evidence: VoteEvidence, grid: VoxelGrid, taxonomy: Taxonomy
) -> dict[str, VoteCounts]:
    """Misses, violations and trails of one frame."""
    semantics, n = labels.semantics, taxonomy.n_classes
    ring, labeled = RINGS.of(grid), observed(labels) & (semantics < n)
    occupied = (semantics != taxonomy.free_id) & (semantics < n)
    moving = np.isin(semantics, taxonomy.dynamic)
    near_moving = within_reach(moving, grid, MOVING_REACH_M)
    judged = labeled & ~near_moving
    beside_occupied = ndimage.binary_dilation(occupied, np.ones((3, 3, 3)))
    flat = [i for i, name in enumerate(taxonomy.names) if name in FLAT]
    upright = occupied & ~moving & ~np.isin(semantics, flat)
    return {
        "misses": VoteCounts.of(
            ~occupied,
            judged & evidence.hit & beside_occupied,
            _nearest(semantics, occupied),
            ring,
            n,
        ),
        "violations": VoteCounts.of(
            evidence.through,
            judged & upright & (evidence.touched | evidence.through),
            semantics,
            ring,
            n,
        ),
        "trails": VoteCounts.of(
            evidence.through_now,
            labeled & moving & (evidence.touched | evidence.through_now),
            semantics,
            ring,
            n,
        ),
    }


def _nearest(semantics: NDArray[np.uint8], occupied: Mask) -> NDArray[np.uint8]:
    """(X, Y, Z) class of the nearest occupied voxel, to which a miss is put down."""
    if not occupied.any():
        return semantics
    indices = ndimage.distance_transform_edt(~occupied, return_distances=False, return_indices=True)
    return np.asarray(semantics[tuple(indices)])


def within_reach(marked: Mask, grid: VoxelGrid, reach_m: float) -> Mask:
    """Voxels within so many metres, horizontally, of the columns of marked ones."""
    if not marked.any():
        return np.zeros(marked.shape, np.bool_)
    distance_m = ndimage.distance_transform_edt(~marked.any(axis=2), sampling=grid.size_m[:2])
    return np.broadcast_to((distance_m <= reach_m)[:, :, None], marked.shape)


def flicker_votes(
    labels: FrameLabels, later: FrameLabels, grid: VoxelGrid, taxonomy: Taxonomy
) -> VoteCounts:
    """Static occupied labels of a frame that are of another class in the next one."""
    n, free = taxonomy.n_classes, np.uint8(taxonomy.free_id)
    T_now_later = inverse(labels.T_global_grid) @ later.T_global_grid
    cells = voxel_correspondence(grid, grid, T_now_later)
    semantics = labels.semantics
    then = sample_nearest(later.semantics, cells, outside=IGNORE_ID)
    moving = np.isin(semantics, taxonomy.dynamic)
    judged = (semantics != free) & (semantics < n) & ~moving & (then != free) & (then < n)
    judged &= observed(labels) & sample_nearest(observed(later), cells).astype(np.bool_)
    judged &= ~within_reach(moving, grid, MOVING_REACH_M)
    return VoteCounts.of(semantics != then, judged, semantics, RINGS.of(grid), n)


def lidar_iou(occupied: Mask, evidence: VoteEvidence) -> float:
    """How well labels fit the sweeps: IoU of occupied with touched voxels, where sweeps tell.

    Args:
        occupied: (X, Y, Z).
    """
    intersection = int((occupied & evidence.touched).sum())
    union = int((occupied & evidence.through).sum()) + int(evidence.touched.sum())
    return intersection / max(union, 1)


def shifted_ious(occupied: Mask, evidence: VoteEvidence) -> tuple[float, ...]:
    """``lidar_iou`` of the labels moved by each of ``SHIFTS``, (S,)."""
    return tuple(lidar_iou(_shifted(occupied, shift), evidence) for shift in SHIFTS)


def turned_ious(occupied: Mask, evidence: VoteEvidence, grid: VoxelGrid) -> tuple[float, ...]:
    """``lidar_iou`` of the labels lying as each of ``TURNS``; NaN where the grid has no such
    symmetry."""
    (x, y, _), (X, Y, _), (dx, dy, _) = grid.min_m, grid.shape, grid.size_m
    even_x, even_y = (abs(2 * low + n * d) < d / 2 for low, n, d in ((x, X, dx), (y, Y, dy)))
    square = even_x and even_y and X == Y and dx == dy
    turned = (
        occupied[:, ::-1] if even_y else None,
        occupied[::-1] if even_x else None,
        occupied[::-1, ::-1] if even_x and even_y else None,
        np.rot90(occupied, 1) if square else None,
        np.rot90(occupied, -1) if square else None,
    )
    return tuple(float("nan") if v is None else lidar_iou(v, evidence) for v in turned)


def _shifted(voxels: Mask, shift: Sequence[int]) -> Mask:
    out = np.zeros(voxels.shape, np.bool_)
    dst = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, voxels.shape, strict=True))
    src = tuple(slice(max(-s, 0), n + min(-s, 0)) for s, n in zip(shift, voxels.shape, strict=True))
    out[dst] = voxels[src]
    return out


def vote_rows(votes: VoteCounts, names: Sequence[str], axis: int) -> Iterator[tuple[str, int, int]]:
    """Name, bad and judged of each class (axis 0) or ring (axis 1) where something was judged."""
    bad, judged = votes.bad.sum(axis=1 - axis), votes.judged.sum(axis=1 - axis)
    for name, b, j in zip(names, bad, judged, strict=True):
        if j:
            yield name, int(b), int(j)
