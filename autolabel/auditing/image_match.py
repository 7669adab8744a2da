"""Do the images of neighbouring frames match where the LiDAR says that the same thing is?

A return of one frame is projected into a camera's image of that frame and, by the poses, into its
image of the next one. What stands still must look alike in both. With a wrong mount, focal length
or time the two places do not belong together, so the match is best at what is right, and by how
much something is off is found as well. Each of ``HYPOTHESES`` is put right in turn. Things that
move along with the vehicle disturb it, and a straight street, the same all along, does not tell an
image's time.

Photometric consistency is that of direct visual odometry (Engel, Koltun, Cremers, "Direct Sparse
Odometry", arXiv 1607.02565); here the motion is known and the calibration is asked for.

Legend: P points, H hypotheses (``HYPOTHESES``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from autolabel.auditing.motion_fit import Trajectory, pose_near
from datasets.frames import CameraView, Frame
from datasets.geometry.transforms import Transform, about_axis, apply, inverse
from datasets.log_checks.ground import spread

Kind = Literal[
    "pitched",
    "yawed",
    "rolled",
    "focal length",
    "late",
    "LiDAR about its x",
    "LiDAR about its y",
    "LiDAR about its z",
    "LiDAR to the left",
    "LiDAR forward",
    "LiDAR up",
]
DEGREES = (-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0)
SECONDS = (-0.5, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.5)
SHARES, METRES = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2), (-0.5, -0.3, -0.15, 0.15, 0.3, 0.5)
AMOUNTS: dict[Kind, tuple[float, ...]] = {
    "pitched": DEGREES,
    "yawed": DEGREES,
    "rolled": DEGREES,
    "focal length": SHARES,
    "late": SECONDS,
    "LiDAR about its x": DEGREES,
    "LiDAR about its y": DEGREES,
    "LiDAR about its z": DEGREES,
    "LiDAR to the left": METRES,
    "LiDAR forward": METRES,
    "LiDAR up": METRES,
}
HYPOTHESES: tuple[tuple[Kind, float], ...] = tuple(
    (kind, amount) for kind, amounts in AMOUNTS.items() for amount in amounts
)
TURNED_AXES: dict[Kind, int] = {"pitched": 0, "yawed": 1, "rolled": 2}
MOVED_AXES: dict[Kind, int] = {"LiDAR forward": 0, "LiDAR to the left": 1, "LiDAR up": 2}

PAIRS = 8
MIN_MOVED_M, MAX_MOVED_M, MAX_APART_S = 1.0, 15.0, 1.6
"""Between the two frames: without motion anything matches, far apart nothing does."""
IMAGE_WIDTH_PX, BLUR_PX, CONTRAST_PX = 320, 1.0, 6.0
NEAR_M, FAR_M = 1.0, 60.0
MAX_POINTS, MIN_POINTS = 1500, 50
MIN_CONTRAST = 0.01
HIDING_PX, HIDING_SHARE, HIDING_M = 4, 1.25, 1.0
"""A return with another so much nearer in the cells beside it (``IMAGE_WIDTH_PX`` pixels) may be
hidden from the camera, which sits elsewhere than the LiDAR."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageMatch:
    """How well two images of one camera match, as a mean over points: 1 equal, -1 unlike.

    Attributes:
        points: that both images show, by what the log states.
        stated: the match as the log states the camera.
        under: (H,) with each of ``HYPOTHESES`` put right: ``stated``, and what points that stay in
            both images gain. NaN where the log does not tell or fewer than half of them stay.
    """

    points: int
    stated: float
    under: NDArray[np.float64]


def image_pairs(frames: Sequence[Frame], limit: int = PAIRS) -> list[tuple[Frame, Frame]]:
    """Frames with LiDAR and images, each with the next one that lies some metres away."""
    usable = [frame for frame in frames if frame.lidar is not None and frame.cameras]
    pairs = []
    for i, a in enumerate(usable):
        for b in usable[i + 1 :]:
            if (b.timestamp_us - a.timestamp_us) * 1e-6 > MAX_APART_S:
                break
            moved = np.linalg.norm(b.T_global_ego[:3, 3] - a.T_global_ego[:3, 3])
            if moved >= MIN_MOVED_M:
                if moved <= MAX_MOVED_M:
                    pairs.append((a, b))
                break
    return [pairs[k] for k in spread(len(pairs), limit)]


def normalized_image(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, ``IMAGE_WIDTH_PX``, 3) brightness and two color differences, each less its local mean and
    by its local contrast: exposure and shadows have no part in it."""
    height = max(2, round(rgb.shape[0] * IMAGE_WIDTH_PX / rgb.shape[1]))
    small = Image.fromarray(rgb).resize((IMAGE_WIDTH_PX, height), Image.Resampling.BOX)
    red, green, blue = np.moveaxis(np.asarray(small, np.float32) / 255, -1, 0)
    channels = []
    for channel in ((red + green + blue) / 3, red - green, blue - green):
        smooth = ndimage.gaussian_filter(channel, BLUR_PX)
        detail = smooth - ndimage.gaussian_filter(smooth, CONTRAST_PX)
        power = ndimage.gaussian_filter(detail**2, CONTRAST_PX)
        channels.append(detail / np.sqrt(power + MIN_CONTRAST**2))
    out: NDArray[np.float32] = np.stack(channels, axis=-1).astype(np.float32)
    return out


def match_images(
    points_ego: NDArray[Any],
    first: Frame,
    second: Frame,
    images: tuple[Mapping[str, NDArray[np.float32]], Mapping[str, NDArray[np.float32]]],
    trajectory: Trajectory,
) -> dict[str, ImageMatch]:
    """Try every hypothesis on the cameras that both frames have.

    Args:
        points_ego: (N, 3) or wider, of the first frame, in its ego.
        images: ``normalized_image`` of each frame's cameras, by name.
        trajectory: of their scene.

    Returns:
        By camera, where both images show enough points.
    """
    T_second_first = inverse(second.T_global_ego) @ first.T_global_ego
    views = {view.name: view for view in second.cameras}
    out = {}
    for view in first.cameras:
        if (other := views.get(view.name)) is None:
            continue
        if view.name not in images[0] or view.name not in images[1]:
            continue
        shown = _shown(points_ego, view, np.eye(4)) & _shown(points_ego, other, T_second_first)
        seen = np.flatnonzero(shown)
        chosen = seen[spread(len(seen), MAX_POINTS)]
        points = np.asarray(points_ego[chosen, :3], np.float64)
        pair = (_Image(view, images[0][view.name]), _Image(other, images[1][view.name]))
        as_stated = _match(points, pair, (np.eye(4), T_second_first), None)
        if (n := len(points)) < MIN_POINTS:
            continue
        stated = float(as_stated.mean())
        under = np.full(len(HYPOTHESES), np.nan)
        for h, (kind, amount) in enumerate(HYPOTHESES):
            steps = _steps(kind, amount, first, second, pair, trajectory, T_second_first)
            if steps is None:
                continue
            gains = _match(points, pair, steps, (kind, amount)) - as_stated
            stay = np.isfinite(gains)
            if 2 * stay.sum() >= n:
                under[h] = stated + float(gains[stay].mean())
        out[view.name] = ImageMatch(points=n, stated=stated, under=under)
    return out


@dataclass(frozen=True, slots=True)
class _Image:
    view: CameraView
    values: NDArray[np.float32]


Steps = tuple[Transform, Transform]
"""From the first frame's ego to that of the first and of the second image."""


def _steps(
    kind: Kind,
    amount: float,
    first: Frame,
    second: Frame,
    pair: tuple[_Image, _Image],
    trajectory: Trajectory,
    T_second_first: Transform,
) -> Steps | None:
    if kind == "late":
        a, b = (
            motion_after(trajectory, frame, image.view, amount)
            for frame, image in zip((first, second), pair, strict=True)
        )
        return None if a is None or b is None else (inverse(a), inverse(b) @ T_second_first)
    if not kind.startswith("LiDAR"):
        return np.eye(4), T_second_first
    assert first.lidar is not None
    back = np.eye(4)
    if kind in MOVED_AXES:
        back[MOVED_AXES[kind], 3] = -amount
    else:
        T_ego_lidar = first.lidar.T_ego_lidar
        back = T_ego_lidar @ about_axis("xyz".index(kind[-1]), -amount) @ inverse(T_ego_lidar)
    return back, T_second_first @ back


def _match(
    points: NDArray[np.float64],  # (P, 3)
    pair: tuple[_Image, _Image],
    steps: Steps,
    hypothesis: tuple[Kind, float] | None,
) -> NDArray[np.float64]:
    """(P,) how alike both images are at each point; NaN where not both show it."""
    projected = []
    for image, step in zip(pair, steps, strict=True):
        T_camera_ego = inverse(image.view.T_ego_camera) @ step
        zoom = 1.0
        if hypothesis is not None:
            kind, amount = hypothesis
            if kind in TURNED_AXES:
                T_camera_ego = about_axis(TURNED_AXES[kind], amount) @ T_camera_ego
            elif kind == "focal length":
                zoom = 1 / (1 + amount)
        projected.append(_pixels(T_camera_ego, points, image.view, zoom))
    (uv_a, _, inside_a), (uv_b, _, inside_b) = projected
    out = np.full(len(points), np.nan)
    both = inside_a & inside_b
    a, b = (
        _sample(image.values, uv[both], image.view)
        for image, uv in zip(pair, (uv_a, uv_b), strict=True)
    )
    out[both] = 1 - np.minimum(np.abs(a - b), 2.0).mean(axis=1)
    return out


def _shown(points_ego: NDArray[Any], view: CameraView, step: Transform) -> NDArray[np.bool_]:
    """(N,) which points the image shows: inside, and nothing much nearer around them."""
    uv, depth, inside = _pixels(inverse(view.T_ego_camera) @ step, points_ego, view)
    inside &= (depth > NEAR_M) & (depth < FAR_M)
    scale = IMAGE_WIDTH_PX / view.width / HIDING_PX
    cells = (uv[inside] * scale).astype(np.int64)
    nearest = np.full((int(view.height * scale) + 1, int(view.width * scale) + 1), np.inf)
    np.minimum.at(nearest, (cells[:, 1], cells[:, 0]), depth[inside])
    around = ndimage.minimum_filter1d(nearest, 3, axis=1, mode="nearest")[cells[:, 1], cells[:, 0]]
    inside[inside] = depth[inside] < HIDING_SHARE * around + HIDING_M
    return inside


def _pixels(
    T_camera_ego: Transform, points_ego: NDArray[Any], view: CameraView, zoom: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(P, 2) pixels, (P,) metres along the axis, (P,) whether inside the image."""
    p = apply(T_camera_ego, np.asarray(points_ego[:, :3], np.float64)) * [zoom, zoom, 1.0]
    depth = p[:, 2]
    uv = (p / np.maximum(depth, 0.1)[:, None]) @ view.intrinsics[:2].T
    inside = (depth > NEAR_M / 2) & (uv >= 0).all(axis=1)
    inside &= (uv < [view.width, view.height]).all(axis=1)
    return uv, depth, inside


def _sample(
    values: NDArray[np.float32], uv: NDArray[np.float64], view: CameraView
) -> NDArray[np.float32]:
    """(P, 3) between the pixels of a ``normalized_image``."""
    last = np.array([values.shape[1] - 1, values.shape[0] - 1])
    scale = np.array([values.shape[1] / view.width, values.shape[0] / view.height])
    at = np.clip(uv * scale - 0.5, 0, last)
    low = np.minimum(at.astype(np.int64), last - 1)
    x, y = (at - low).astype(np.float32).T[..., None]
    i, j = low.T
    above = values[j, i] * (1 - x) + values[j, i + 1] * x
    below = values[j + 1, i] * (1 - x) + values[j + 1, i + 1] * x
    out: NDArray[np.float32] = above * (1 - y) + below * y
    return out


def motion_after(
    trajectory: Trajectory, frame: Frame, view: CameraView, seconds: float
) -> Transform | None:
    """What the vehicle does after an image's time, in the frame's ego; None: nothing tells."""
    then = pose_near(trajectory, view.timestamp_us + seconds * 1e6, frame)
    now = pose_near(trajectory, view.timestamp_us, frame)
    if then is None or now is None:
        return None
    T_ego_global = inverse(frame.T_global_ego)
    return np.asarray(T_ego_global @ then @ inverse(now) @ frame.T_global_ego)
