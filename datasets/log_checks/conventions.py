"""Gross errors of cameras: extrinsics in another convention, focal lengths of another image size.

Each convention is applied to the stated cameras, and the depth edges of the LiDAR are searched
again in the changed views. A right view has them on edges of the image and not on those of the
mirrored image; the difference of both is what counts, since any view that looks at the horizon
lies on strong edges. Extrinsics are only questioned where the stated camera does not stand upright
on the vehicle and the changed one does, so a log with upright cameras is never blamed for its axes.

Legend: F frames, K conventions, T turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.frames import CameraView
from datasets.geometry.transforms import Transform, about_axis, apply, inverse
from datasets.log_checks.projection import (
    TURNS_DEG,
    depth_edges,
    gradient_under,
)

UPRIGHT, NOT_UPRIGHT = 0.8, 0.5
"""Cosines between a camera's up and the vehicle's: what is upright, and what clearly is not."""
MIN_FRAMES, MIN_EDGES, MIN_CAMERA_EDGES, MIN_CAMERAS = 4, 500, 100, 3
MIN_GAIN_AXES, MIN_T_AXES = 0.1, 2.0
MIN_GAIN_FOCAL, MIN_T_FOCAL = 0.15, 3.0
"""Of the mean difference, in mean gradients of an image, and how surely frame by frame."""
MIN_SHARE = 0.6
"""Of the cameras, that must agree."""

_T_BODY_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)
"""From OpenCV's camera axes (x right, y down, z forward) to a body's (x forward, y left, z up)."""
_T_OPENGL_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0])

Change = Callable[[CameraView], CameraView]
Sums = tuple[int, float]
"""Depth edges of a view, and the sum of the image gradient under them less the mirrored image's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """A change of a stated camera.

    Attributes:
        text: what the log would then state.
        is_focal: of the intrinsics; otherwise of the extrinsics.
    """

    text: str
    change: Change
    is_focal: bool = False


def vehicle_to_camera_pose(view: CameraView) -> Transform:
    """``T_vehicle_camera`` of a view."""
    return inverse(view.T_ego_vehicle) @ view.T_ego_camera


def with_mount(view: CameraView, T_vehicle_camera: Transform) -> CameraView:
    """The view from another mount on the vehicle."""
    return replace(view, T_ego_camera=view.T_ego_vehicle @ T_vehicle_camera)


def with_focal_length(view: CameraView, factor: float) -> CameraView:
    """The view with a focal length so many times as long.

    The principal point scales along if that brings it nearer to the image's middle: intrinsics
    of another image size.
    """
    K = view.intrinsics.copy()
    K[:2, :2] *= factor
    middle, point = np.array([view.width, view.height]) / 2, K[:2, 2]
    if np.linalg.norm(factor * point - middle) < np.linalg.norm(point - middle):
        K[:2, 2] *= factor
    return replace(view, intrinsics=K)


def _axes(T_stated_camera: Transform) -> Change:
    return lambda view: with_mount(view, vehicle_to_camera_pose(view) @ T_stated_camera)


def _focal(factor: float) -> Change:
    return lambda view: with_focal_length(view, factor)


CONVENTIONS = (
    Convention(
        text="the extrinsics look inverted (vehicle to camera); write T_vehicle_camera",
        change=lambda view: with_mount(view, inverse(vehicle_to_camera_pose(view))),
    ),
    Convention(
        text="the extrinsics look like axes X forward, Y left, Z up; write a camera's axes "
        "(x right, y down, z forward)",
        change=_axes(_T_BODY_CAMERA),
    ),
    Convention(
        text="the extrinsics look like OpenGL's axes (y up, z backward); write y down, z forward",
        change=_axes(_T_OPENGL_CAMERA),
    ),
    *(
        Convention(
            text=f"a focal length about {factor:g} times the stated one would fit better; "
            "intrinsics must be those of the stored image size",
            change=_focal(factor),
            is_focal=True,
        )
        for factor in (0.5, 0.7, 1.4, 2)
    ),
)


TURNS = tuple((axis, degrees) for axis in (0, 1) for degrees in TURNS_DEG)
"""Axis (camera's x, y) and degrees. Turned cameras, too, fit better with a shorter focal length;
where a turn fits best, no focal length is named."""


def convention_sums(
    points_ego: NDArray[Any],  # (N, 3) or wider
    view: CameraView,
    gradient: NDArray[np.float64],
) -> tuple[Sums, ...]:
    """(1 + K + T,) evidence of one image: as stated, for each of ``CONVENTIONS`` (0 edges where it
    is implausible) and for each of ``TURNS``."""
    contrast = gradient - gradient[:, ::-1]
    is_upright = _up(view) >= NOT_UPRIGHT
    views = [view, *(convention.change(view) for convention in CONVENTIONS)]
    plausible = [
        True,
        *(
            convention.is_focal or (not is_upright and _up(changed) >= UPRIGHT)
            for convention, changed in zip(CONVENTIONS, views[1:], strict=True)
        ),
    ]
    edges_of = [
        depth_edges(points_ego, changed) if asked else np.empty((0, 3))
        for changed, asked in zip(views, plausible, strict=True)
    ]
    sums = [
        (len(edges), gradient_under(edges, changed, contrast))
        for edges, changed in zip(edges_of, views, strict=True)
    ]
    edges = edges_of[0]
    for axis, degrees in TURNS:
        moved = apply(about_axis(axis, -degrees), edges)
        sums.append((len(edges), gradient_under(moved, view, contrast, outside=0)))
    return tuple(sums)


def _up(view: CameraView) -> float:
    """Cosine between the camera's up and the vehicle's."""
    return -float(vehicle_to_camera_pose(view)[2, 1])


def wrong_convention(cameras: Sequence[NDArray[np.float64]], n_scenes: int) -> str:
    """The convention that fits the cameras clearly better than what is stated; else empty.

    Args:
        cameras: (F, 1 + K + T, 2) of each camera, from ``convention_sums``.
        n_scenes: that the frames are of.
    """
    n_frames = max((len(c) for c in cameras), default=0)
    judged = [c for c in cameras if len(c) == n_frames]
    if n_frames < MIN_FRAMES:
        return ""
    focal = [k for k, convention in enumerate(CONVENTIONS, start=1) if convention.is_focal]
    axes = [k for k in range(1, 1 + len(CONVENTIONS)) if k not in focal]
    if best := _best(judged, axes):
        of_cameras = [c for c in judged if c[:, best, 0].sum()]
        if _is_better(of_cameras, best, MIN_GAIN_AXES, MIN_T_AXES):
            return f"all cameras: {CONVENTIONS[best - 1].text}"
    turns = list(range(1 + len(CONVENTIONS), 1 + len(CONVENTIONS) + len(TURNS)))
    best = _best(judged, focal + turns)
    if best not in focal or max(len(judged), n_scenes) < MIN_CAMERAS:
        return ""
    if not _is_better(judged, best, MIN_GAIN_FOCAL, MIN_T_FOCAL):
        return ""
    return f"all cameras: {CONVENTIONS[best - 1].text}"


def _best(cameras: Sequence[NDArray[np.float64]], asked: Sequence[int]) -> int:
    """Which of these fits best, among those that are plausible for half of the cameras; 0: none."""
    plausible = [k for k in asked if 2 * sum(c[:, k, 0].any() for c in cameras) >= len(cameras)]
    pooled = np.sum([c.sum(axis=0) for c in cameras], axis=0)
    return max(plausible, key=lambda k: _mean(pooled[k]), default=0)


def _is_better(
    cameras: Sequence[NDArray[np.float64]], k: int, min_gain: float, min_t: float
) -> bool:
    """Whether a convention fits clearly better than what is stated, by frames and by cameras."""
    by_frame = np.sum(cameras, axis=0)[:, [0, k]]  # (F, 2, 2)
    stated, changed = by_frame.sum(axis=0)
    if changed[0] < MIN_EDGES or _mean(changed) - _mean(stated) < min_gain:
        return False
    gains = np.array([_mean(after) - _mean(before) for before, after in by_frame])
    error = float(gains.std(ddof=1)) / np.sqrt(len(gains))
    if float(gains.mean()) < min_t * max(error, 1e-9):
        return False
    pooled = [c.sum(axis=0) for c in cameras if c[:, k, 0].sum() >= MIN_CAMERA_EDGES]
    return sum(_mean(c[k]) > _mean(c[0]) for c in pooled) >= MIN_SHARE * len(pooled)


def _mean(sums: NDArray[np.float64]) -> float:
    """Per edge; 0 without edges, as of a view that fits nowhere."""
    return float(sums[1] / sums[0]) if sums[0] else 0.0
