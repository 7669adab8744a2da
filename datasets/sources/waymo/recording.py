"""Content of a Waymo scene, of either format, before conversion to frames.

The vehicle frame is our ego frame: X forward, Y left, Z up, its origin on the ground below the
middle of the rear axle. The frame's vehicle pose belongs to about the middle of the LiDAR turn;
points and boxes are in it. Legend: H rows (top row first) and W columns of a range image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import Box
from datasets.errors import SceneError
from datasets.geometry.transforms import Transform, from_yaw

CAMERAS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
"""``CameraName`` 1 to 5."""
LASERS = ("TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR")
"""``LaserName`` 1 to 5."""
TOP = 1
BOX_TYPES = 5  # unknown, vehicle, pedestrian, sign, cyclist: the same ids in OCC3D_WAYMO


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraCalibration:
    """A camera.

    Attributes:
        name: ``CameraName``.
        width, height: pixels.
        focal_px, centre_px: (u, v); 0 is the left or upper edge of the first pixel.
        distortion: k1, k2, p1, p2, k3 as OpenCV defines them.
        T_vehicle_camera: camera (Waymo's axes: x along the view, y left, z up) to vehicle.
    """

    name: int
    width: int
    height: int
    focal_px: tuple[float, float]
    centre_px: tuple[float, float]
    distortion: tuple[float, float, float, float, float]
    T_vehicle_camera: Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture: when and from where. Times are seconds since the epoch.

    Attributes:
        T_global_vehicle: at ``pose_s``.
        linear_m_s: (3,) velocity in the global frame.
        angular_rad_s: (3,) in the global frame.
        trigger_s: the exposure of the first column begins.
        readout_done_s: the last column is read.
    """

    calibration: CameraCalibration
    T_global_vehicle: Transform
    linear_m_s: NDArray[np.float64]
    angular_rad_s: NDArray[np.float64]
    pose_s: float
    trigger_s: float
    readout_done_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFrame:
    """One LiDAR turn and its pictures, without points and pixels.

    Attributes:
        timestamp_us: start of the turn.
        T_vehicle_lasers: calibration of each laser by ``LaserName``, TOP among them; empty where
            the frame has no returns at all.
    """

    context: str
    timestamp_us: int
    T_global_vehicle: Transform
    shots: tuple[Shot, ...]
    T_vehicle_lasers: Mapping[int, Transform]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaserImage:
    """The range images of one laser.

    Attributes:
        name: ``LaserName``.
        T_vehicle_laser: calibration.
        inclinations_rad: (H,) pitch of each row.
        returns: one or two of (H, W, 4) float32: range in metres (not positive: no return),
            intensity, elongation, and whether in a no-label zone (positive: yes).
        pixel_poses: (H, W, 6) float32 roll, pitch, yaw, x, y, z of the vehicle in the global
            frame when the pixel was measured; None where the image is already of one pose.
        labels: as many as returns, or none: (H, W, 2) int32 instance and semantic class.
    """

    name: int
    T_vehicle_laser: Transform
    inclinations_rad: NDArray[np.float64]
    returns: tuple[NDArray[np.float32], ...]
    pixel_poses: NDArray[np.float32] | None
    labels: tuple[NDArray[np.int32], ...]

    def __post_init__(self) -> None:
        rows, columns = self.returns[0].shape[:2]
        images: list[tuple[NDArray[Any], int]] = [(image, 4) for image in self.returns]
        images += [(image, 2) for image in self.labels]
        if self.pixel_poses is not None:
            images.append((self.pixel_poses, 6))
        for image, channels in images:
            if image.shape != (rows, columns, channels):
                raise SceneError(
                    where=f"laser {laser_name(self.name)}",
                    rule=f"an image is {image.shape}, not {(rows, columns, channels)}",
                )
        if self.inclinations_rad.shape != (rows,):
            raise SceneError(
                where=f"laser {laser_name(self.name)}",
                rule=f"{len(self.inclinations_rad)} inclinations for {rows} rows",
            )


class Recording(Protocol):
    """One scene in one of the formats. Every method raises ``SceneError`` for bad data."""

    def n_frames(self) -> int:
        """How many there are; reads no more than that takes."""
        ...

    def frames(self) -> Sequence[RecordedFrame]:
        """All frames in time order."""
        ...

    def picture(self, number: int, camera: int) -> bytes:
        """The JPEG of a camera in a frame."""
        ...

    def lasers(self, number: int) -> tuple[LaserImage, ...]:
        """The lasers with returns in a frame, by ``LaserName``."""
        ...

    def boxes(self, number: int) -> tuple[Box, ...]:
        """The marked objects of a frame."""
        ...

    def tracks(self) -> Sequence[Collection[str]]:
        """Ids of the marked objects of each frame."""
        ...

    def panoptic(self, number: int, camera: int) -> tuple[bytes, int] | None:
        """PNG and divisor of a picture's panoptic label; None where it has none."""
        ...

    def fingerprint(self) -> bytes:
        """Tells contents apart."""
        ...

    def picture_path(self) -> Path:
        """The file of the pictures."""
        ...

    def laser_path(self) -> Path:
        """The file of the range images."""
        ...


def laser_name(name: int) -> str:
    """In words."""
    return LASERS[name - 1] if 1 <= name <= len(LASERS) else f"number {name}"


def matrix(values: Sequence[float], *, what: str) -> Transform:
    """4x4 from 16 values in rows. Raises ``SceneError`` for another number, or not finite."""
    out = np.asarray(values, np.float64)
    if out.shape != (16,) or not np.isfinite(out).all():
        raise SceneError(where=what, rule="the pose must be 16 finite values")
    return out.reshape(4, 4)


def uniform_inclinations(low_rad: float, high_rad: float, rows: int) -> NDArray[np.float64]:
    """(H,) the middles of equal parts of the range, highest first."""
    return high_rad - (np.arange(rows) + 0.5) / rows * (high_rad - low_rad)


def upright_box(
    track: str,
    kind: int,
    *,
    centre_m: tuple[float, float, float],
    size_m: tuple[float, float, float],
    heading_rad: float,
) -> Box:
    """A label as a box of the ego frame, class ids of ``OCC3D_WAYMO``.

    Raises:
        SceneError: an unknown type, a bad size, or values that are not finite.
    """
    if not 0 <= kind < BOX_TYPES:
        raise SceneError(where=f"box {track}", rule=f"unknown type {kind}")
    return Box(track=track, class_id=kind, T_ego_box=from_yaw(heading_rad, centre_m), size_m=size_m)
