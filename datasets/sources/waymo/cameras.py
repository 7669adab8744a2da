"""Waymo's cameras as pinhole views.

Waymo's pictures have lens distortion of up to some 25 pixels in the corners. The rest of the
toolkit knows pinholes only, so pictures are straightened when they are read; the intrinsic matrix
stays the recorded one. The rolling shutter (some 45 ms from the first to the last column) is
represented by its middle: every picture has one pose, that at the exposure of its middle column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.frames import CameraView
from datasets.geometry.compiled import compiled
from datasets.geometry.transforms import Transform
from datasets.sources.waymo.recording import CameraCalibration, Shot

MAX_EXTRAPOLATION_S = 0.2
"""A pose farther than this from its picture is not that picture's (frames are 0.1 s apart)."""

_FROM_OURS = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def with_our_axes(T_dst_camera: Transform) -> Transform:
    """From Waymo's camera axes (x along the view, y left, z up) to ours (z, -x, -y)."""
    out: Transform = T_dst_camera @ _FROM_OURS
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedView(CameraView):
    """A picture inside a file that holds many.

    Attributes:
        scene_id: whose file it is.
        record: number of the frame in the file.
        calibration: of the camera, with the distortion of the stored picture.
    """

    scene_id: str
    record: int
    calibration: CameraCalibration


def capture_time_s(shot: Shot) -> float:
    """The middle of the exposure of the middle column.

    Columns are exposed one after the other, all equally long: from the trigger to the end of the
    readout, the middle is that of the middle column.
    """
    return (shot.trigger_s + shot.readout_done_s) / 2


def pose_at_capture(shot: Shot) -> Transform:
    """``T_global_vehicle`` when the middle column was exposed, from pose and velocity.

    Raises:
        SceneError: the pose is of another time altogether.
    """
    elapsed_s = capture_time_s(shot) - shot.pose_s
    if not abs(elapsed_s) <= MAX_EXTRAPOLATION_S:
        raise SceneError(
            where=f"camera {shot.calibration.name}",
            rule=f"its pose is {elapsed_s:.3f} s from its picture",
        )
    out = shot.T_global_vehicle.copy()
    out[:3, :3] = _rotation(shot.angular_rad_s * elapsed_s) @ out[:3, :3]
    out[:3, 3] += shot.linear_m_s * elapsed_s
    return out


def _rotation(turn_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) about an axis by its length (Rodrigues)."""
    angle = float(np.linalg.norm(turn_rad))
    if angle == 0:
        return np.eye(3)
    x, y, z = turn_rad / angle
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    out: NDArray[np.float64] = np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K
    return out


def straightened(pixels: NDArray[np.uint8], calibration: CameraCalibration) -> NDArray[np.uint8]:
    """(H, W, 3) the picture a pinhole with the same matrix would take; edges are repeated.

    Raises:
        SceneError: the calibration holds a number that is not finite, or no focal length.
    """
    lens = (*calibration.focal_px, *calibration.centre_px, *calibration.distortion)
    if not np.isfinite(lens).all() or 0 in calibration.focal_px:
        raise SceneError(where=f"camera {calibration.name}", rule=f"its calibration is {lens}")
    out = np.empty_like(pixels)
    _straighten(
        np.ascontiguousarray(pixels),
        np.array([*calibration.focal_px, *calibration.centre_px]),
        np.array(calibration.distortion),
        out,
    )
    return out


@compiled
def _straighten(
    pixels: NDArray[np.uint8],
    pinhole: NDArray[np.float64],
    distortion: NDArray[np.float64],
    out: NDArray[np.uint8],
) -> None:
    height, width = pixels.shape[0], pixels.shape[1]
    f_u, f_v, c_u, c_v = pinhole
    k1, k2, p1, p2, k3 = distortion
    for row in range(height):
        y = (row + 0.5 - c_v) / f_v
        for column in range(width):
            x = (column + 0.5 - c_u) / f_u
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            u = f_u * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + c_u - 0.5
            v = f_v * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + c_v - 0.5
            u = min(u, width - 1.0) if u > 0 else 0.0  # a NaN is no place in the picture
            v = min(v, height - 1.0) if v > 0 else 0.0
            left, top = int(u), int(v)
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
            a, b = u - left, v - top
            for channel in range(3):
                upper = (1 - a) * pixels[top, left, channel] + a * pixels[top, right, channel]
                lower = (1 - a) * pixels[bottom, left, channel] + a * pixels[bottom, right, channel]
                out[row, column, channel] = np.uint8((1 - b) * upper + b * lower + 0.5)
