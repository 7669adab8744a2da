"""Range images to points of the vehicle frame.

Geometry: column c of W looks along azimuth ``pi - (c + 0.5) / W * 2 pi`` of axes that are the
laser's turned back by the yaw of its calibration, row r along ``inclinations_rad[r]``. Where each
pixel has its own vehicle pose, points go through the global frame to the frame's vehicle pose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.geometry.compiled import compiled
from datasets.geometry.transforms import Transform, inverse
from datasets.sources.waymo.recording import LaserImage, laser_name


@dataclass(frozen=True, slots=True, kw_only=True)
class LaserPoints:
    """N points of any number of lasers and returns.

    Attributes:
        xyz_m: (N, 3) float64, vehicle frame at the frame's pose.
        intensity: (N,) float32, as recorded: without a unit and without an upper bound.
        elongation: (N,) float32, of the pulse, as recorded.
        in_no_label_zone: (N,) bool: annotators left out where the point lies.
        laser: (N,) uint8 ``LaserName``.
        return_number: (N,) uint8, 1 or 2.
        segment: (N,) uint8 ``Segmentation.Type``, 0 where nobody said.
    """

    xyz_m: NDArray[np.float64]
    intensity: NDArray[np.float32]
    elongation: NDArray[np.float32]
    in_no_label_zone: NDArray[np.bool_]
    laser: NDArray[np.uint8]
    return_number: NDArray[np.uint8]
    segment: NDArray[np.uint8]

    def chosen(self, which: NDArray[np.bool_]) -> LaserPoints:
        """The points where the mask (N,) holds."""
        return LaserPoints(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def points_of(images: Sequence[LaserImage], T_global_vehicle: Transform) -> LaserPoints:
    """All points: laser by laser, first returns before second ones, row by row.

    Args:
        images: at least one.
        T_global_vehicle: the frame's pose.

    A return that is not finite stays in, for its reader to leave out.

    Raises:
        SceneError: a label is no class.
    """
    parts = [
        _points(image, k, T_global_vehicle) for image in images for k in range(len(image.returns))
    ]
    return LaserPoints(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(LaserPoints)}
    )


def _points(image: LaserImage, k: int, T_global_vehicle: Transform) -> LaserPoints:
    values = image.returns[k]
    rows, columns = np.nonzero(~(values[..., 0] <= 0))  # a NaN stays in
    poses = None if image.pixel_poses is None else image.pixel_poses[rows, columns]
    measured = values[rows, columns]
    location = f"laser {laser_name(image.name)}, return {k + 1}"
    T = image.T_vehicle_laser
    yaw = np.arctan2(T[1, 0], T[0, 0])
    azimuths = np.pi - (np.arange(values.shape[1]) + 0.5) / values.shape[1] * 2 * np.pi - yaw
    directions = np.stack([np.cos(azimuths), np.sin(azimuths)], axis=1)
    tilts = np.stack([np.cos(image.inclinations_rad), np.sin(image.inclinations_rad)], axis=1)
    range_m = measured[:, 0].astype(np.float64)
    flat_m = range_m * tilts[rows, 0]
    xyz_m = np.empty((len(rows), 3))
    xyz_m[:, :2] = directions[columns] * flat_m[:, None]
    xyz_m[:, 2] = range_m * tilts[rows, 1]
    xyz_m = xyz_m @ T[:3, :3].T + T[:3, 3]
    if poses is not None:
        _move(xyz_m, poses.astype(np.float64), inverse(T_global_vehicle)[:3, :3], T_global_vehicle)
    return LaserPoints(
        xyz_m=xyz_m,
        intensity=measured[:, 1],
        elongation=measured[:, 2],
        in_no_label_zone=measured[:, 3] > 0,
        laser=np.full(len(rows), image.name, np.uint8),
        return_number=np.full(len(rows), k + 1, np.uint8),
        segment=_segments(image, k, location)[rows, columns],
    )


def _segments(image: LaserImage, k: int, where: str) -> NDArray[np.uint8]:
    if not image.labels:
        return np.zeros(image.returns[k].shape[:2], np.uint8)
    classes = image.labels[k][..., 1]
    if classes.min() < 0 or classes.max() > 255:
        raise SceneError(where=where, rule="a segmentation label is no class")
    return classes.astype(np.uint8)


@compiled
def _move(
    xyz_m: NDArray[np.float64],  # (N, 3) vehicle when measured; becomes vehicle of the frame
    poses: NDArray[np.float64],  # (N, 6)
    R_vehicle_global: NDArray[np.float64],
    T_global_vehicle: NDArray[np.float64],
) -> None:
    for i in range(xyz_m.shape[0]):
        roll, pitch, yaw = poses[i, 0], poses[i, 1], poses[i, 2]
        x, y, z = xyz_m[i, 0], xyz_m[i, 1], xyz_m[i, 2]
        # about x, then y, then z
        c, s = np.cos(roll), np.sin(roll)
        y, z = c * y - s * z, s * y + c * z
        c, s = np.cos(pitch), np.sin(pitch)
        x, z = c * x + s * z, c * z - s * x
        c, s = np.cos(yaw), np.sin(yaw)
        x, y = c * x - s * y, s * x + c * y
        x += poses[i, 3] - T_global_vehicle[0, 3]  # first: the global origin may be 40 km away
        y += poses[i, 4] - T_global_vehicle[1, 3]
        z += poses[i, 5] - T_global_vehicle[2, 3]
        for a in range(3):
            R = R_vehicle_global
            xyz_m[i, a] = R[a, 0] * x + R[a, 1] * y + R[a, 2] * z
