"""From a click to a voxel, from a voxel to the images, and what is known of it.

Legend: X, Y, Z voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets.errors import AutolabelError
from datasets.frames import CameraView
from datasets.geometry.raycast import first_hits
from datasets.geometry.transforms import apply, inverse
from datasets.labels.store import FrameLabels, MaskBit
from datasets.taxonomy import Taxonomy
from viz.session.lidar_evidence import evidence_of
from viz.session.session import ReviewFrame, ReviewSession

Cell = tuple[int, int, int]
NEAR_M = 0.1
HISTORY_FRAMES = 10


def voxel_at(
    frame: ReviewFrame,
    shown: NDArray[np.bool_],  # (X, Y, Z)
    eye_m: NDArray[np.float64],  # (3,)
    direction: NDArray[np.float64],  # (3,)
) -> Cell | None:
    """The first shown voxel that a ray meets; None where it meets none.

    Args:
        eye_m, direction: metres of the grid's frame; the direction may have any length.

    Raises:
        ValueError: a coordinate is not finite, or the direction is zero.
    """
    grid = frame.grid
    along = np.asarray(direction, np.float64) / np.asarray(grid.size_m)
    cells, _ = first_hits(shown, grid.cells(eye_m), along[None])
    x, y, z = (int(i) for i in cells[0])
    # of a ray that meets nothing the last voxel of the grid is given
    return (x, y, z) if x >= 0 and shown[x, y, z] else None


def camera_pixel(view: CameraView, point_m: NDArray[np.float64]) -> tuple[float, float] | None:
    """Where a camera has a point of the grid's frame: (u, v), pixels of the stored image; None
    if that is behind the camera or outside the image."""
    p = apply(inverse(view.T_ego_camera), point_m)
    if p[2] <= NEAR_M:
        return None
    u, v = (float(i) for i in (view.intrinsics @ (p / p[2]))[:2])
    inside = -0.5 <= u < view.width - 0.5 and -0.5 <= v < view.height - 0.5
    return (u, v) if inside else None


@dataclass(frozen=True, slots=True, kw_only=True)
class InCamera:
    """Where a camera has a voxel.

    Attributes:
        u, v: its centre, pixels of the stored image.
        hidden: the shown voxels lie before it; the camera cannot see it.
    """

    camera: str
    u: float
    v: float
    hidden: bool


def in_cameras(frame: ReviewFrame, shown: NDArray[np.bool_], cell: Cell) -> tuple[InCamera, ...]:
    """Every image that has a voxel's centre. It is hidden from a camera if the rays to its
    centre and to the middles of its six sides all meet another shown voxel first."""
    grid = frame.grid
    centre = grid.centers(np.asarray(cell))
    sides = 0.49 * np.concatenate([np.eye(3), -np.eye(3)]) * np.asarray(grid.size_m)
    targets = np.concatenate([centre[None], centre + sides])
    blocking = shown.copy()
    blocking[cell] = True
    places = []
    for image in frame.images:
        view = image.view
        if (pixel := camera_pixel(view, centre)) is None:
            continue
        eye = view.T_ego_camera[:3, 3]
        along = (targets - eye) / np.asarray(grid.size_m)
        first, _ = first_hits(blocking, grid.cells(eye), along)
        visible = bool((first == np.asarray(cell)).all(axis=1).any())
        places.append(InCamera(camera=view.name, u=pixel[0], v=pixel[1], hidden=not visible))
    return tuple(places)


def voxel_of_pixel(
    frame: ReviewFrame, shown: NDArray[np.bool_], view: CameraView, u: float, v: float
) -> Cell | None:
    """The shown voxel that a pixel sees; None where it sees none.

    Args:
        view: of the frame's images (its pose is in the grid's frame).
        u, v: pixels of the stored image; pixel centres at whole numbers.
    """
    ray = np.linalg.inv(view.intrinsics) @ np.array([u, v, 1.0])
    eye = view.T_ego_camera[:3, 3]
    direction = view.T_ego_camera[:3, :3] @ ray
    # what lies before the near plane is not in the overlay either
    return voxel_at(frame, shown, eye + NEAR_M * direction, direction)


class Moment(NamedTuple):
    """What another frame says of the same place.

    Attributes:
        k: the frame.
        class_id: of the voxel there; ``IGNORE_ID`` where it has no class.
        confidence: P(label is right); None where labels have none.
    """

    k: int
    class_id: int
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelFacts:
    """What is known of a voxel.

    Attributes:
        cell, centre_m: index and centre, metres of the grid's frame.
        class_id, class_name: ``IGNORE_ID`` and ``ignore`` where it must not be used.
        confidence: P(label is right); None where labels have none.
        second_choice: the class that the teacher held next likely, in words.
        hits, passes: LiDAR rays that end in it or go through; None if not known.
        evidence_stored: they are the store's; else of the key sweep alone.
        bits: of its mask.
        flow_mps: velocity along x and y, m/s; None where no flow is stored.
        instance: number of the object; 0: none; None where objects are not told apart.
        truth, other: class ids of the ground truth and of the second store; None without.
        history: the same place of the world in up to 10 frames before and after, and in this one.
    """

    cell: Cell
    centre_m: tuple[float, float, float]
    class_id: int
    class_name: str
    confidence: float | None
    second_choice: str
    hits: int | None
    passes: int | None
    evidence_stored: bool
    bits: MaskBit
    flow_mps: tuple[float, float] | None
    instance: int | None
    truth: int | None
    other: int | None
    history: tuple[Moment, ...]


def class_name(taxonomy: Taxonomy, class_id: int) -> str:
    """Its name, with spaces; ``ignore`` for what has no class."""
    return taxonomy.names[class_id].replace("_", " ") if class_id < taxonomy.n_classes else "ignore"


def describe(session: ReviewSession, frame: ReviewFrame, cell: Cell) -> VoxelFacts:
    """What is known of a voxel of a frame. Frames that cannot be read are left out of the history.

    Raises:
        IndexError: the grid has no such voxel.
    """
    if not all(0 <= i < n for i, n in zip(cell, frame.grid.shape, strict=True)):
        raise IndexError(f"voxel {cell} is not in a grid of shape {frame.grid.shape}")
    labels, evidence = frame.labels, evidence_of(frame)
    x, y, z = (float(i) for i in frame.grid.centers(np.asarray(cell)))
    flow = None
    if labels.flow is not None:
        flow = (float(labels.flow[cell][0]), float(labels.flow[cell][1]))
    class_id = int(labels.semantics[cell])
    return VoxelFacts(
        cell=cell,
        centre_m=(x, y, z),
        class_id=class_id,
        class_name=class_name(frame.taxonomy, class_id),
        confidence=_confidence(labels, frame.levels, cell),
        second_choice="not stored",
        hits=None if evidence is None else int(evidence.hits[cell]),
        passes=None if evidence is None else int(evidence.passes[cell]),
        evidence_stored=evidence is not None and evidence.stored,
        bits=MaskBit(int(labels.mask[cell])),
        flow_mps=flow,
        instance=None if labels.instances is None else int(labels.instances[cell]),
        truth=None if frame.truth is None else int(frame.truth.semantics[cell]),
        other=None if frame.second is None else int(frame.second.semantics[cell]),
        history=_history(session, frame, cell),
    )


def component(
    frame: ReviewFrame, cell: Cell, *, within: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """The voxels of the same class that hang together with a voxel by faces, edges or corners,
    itself included: sorted flat C-order indices in the frame's grid.

    Args:
        within: (X, Y, Z) only these count, e.g. those shown; the voxel itself does in any case.
    """
    semantics = frame.labels.semantics
    component_mask = semantics == semantics[cell]
    if within is not None:
        component_mask &= within
        component_mask[cell] = True
    numbers, _ = ndimage.label(component_mask, structure=np.ones((3, 3, 3), bool))
    return np.flatnonzero(numbers == numbers[cell])


def box_cells(frame: ReviewFrame, a: Cell, b: Cell) -> NDArray[np.int64]:
    """The voxels of the box with two voxels at opposite corners, both included: sorted flat
    C-order indices in the frame's grid. What lies outside the grid is cut."""
    low = np.clip(np.minimum(a, b), 0, frame.grid.shape)
    high = np.clip(np.maximum(a, b) + 1, 0, frame.grid.shape)
    axes = [np.arange(start, stop) for start, stop in zip(low, high, strict=True)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return frame.grid.flat(index)


def _history(session: ReviewSession, frame: ReviewFrame, cell: Cell) -> tuple[Moment, ...]:
    centre = frame.grid.centers(np.asarray(cell))
    place = apply(frame.labels.T_global_grid, centre)
    grid = session.labels.header.grid
    moments = []
    first, last = (
        max(0, frame.k - HISTORY_FRAMES),
        min(frame.n_frames, frame.k + HISTORY_FRAMES + 1),
    )
    for k in range(first, last):
        if k == frame.k:
            labels, index = frame.labels, np.asarray(cell)
        else:
            try:
                labels = session.stored(frame.scene_id, k)
            except AutolabelError:
                continue
            index = grid.indices(apply(inverse(labels.T_global_grid), place))
            if not ((index >= 0) & (index < grid.shape)).all():
                continue
        voxel = (int(index[0]), int(index[1]), int(index[2]))
        class_id = int(labels.semantics[voxel])
        confidence = _confidence(labels, frame.levels, voxel)
        moments.append(Moment(k=k, class_id=class_id, confidence=confidence))
    return tuple(moments)


def _confidence(labels: FrameLabels, levels: tuple[float, ...], cell: Cell) -> float | None:
    return float(levels[labels.confidence[cell]]) if levels else None
