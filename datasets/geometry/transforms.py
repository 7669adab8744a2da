"""Rigid transforms. ``T_dst_src`` is 4x4 float64 and takes coordinates in src to dst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Transform = NDArray[np.float64]


def from_quaternion(wxyz: Sequence[float], translation_m: Sequence[float]) -> Transform:
    """Pose (rotation quaternion w, x, y, z; translation) as 4x4.

    Raises:
        ValueError: a value is not finite or the quaternion is not of unit length (to 1e-2).
    """
    q = np.asarray(wxyz, np.float64)
    t = np.asarray(translation_m, np.float64)
    if q.shape != (4,) or t.shape != (3,):
        raise ValueError(f"need 4 quaternion and 3 translation values, got {q.shape} and {t.shape}")
    if not (np.isfinite(q).all() and np.isfinite(t).all()):
        raise ValueError(f"pose is not finite: rotation={q.tolist()} translation={t.tolist()}")
    norm = float(np.linalg.norm(q))
    if abs(norm - 1) > 1e-2:
        raise ValueError(f"rotation quaternion has length {norm:.4f}, not 1")
    w, x, y, z = q / norm
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = t
    return T


def to_quaternion(T: Transform) -> NDArray[np.float64]:
    """Rotation of a rigid transform as a unit quaternion (w, x, y, z), w >= 0."""
    m = T[:3, :3]
    # the largest of the four squared components is the stable one to divide by
    squares = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    i = int(np.argmax(squares))
    d = 2 * np.sqrt(squares[i])
    rows = [
        [squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], squares[1], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0]],
        [m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], squares[2], m[2, 1] + m[1, 2]],
        [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], squares[3]],
    ]
    q: NDArray[np.float64] = np.array(rows[i]) / d
    return q if q[0] >= 0 else -q


def from_yaw(yaw_rad: float, translation_m: Sequence[float]) -> Transform:
    """Rotation about +Z then translation."""
    T = np.eye(4)
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:3, 3] = translation_m
    return T


def about_axis(axis: int, degrees: float) -> Transform:
    """Rotation about the x (0), y (1) or z (2) axis."""
    T = np.eye(4)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    T[i, i], T[i, j], T[j, i], T[j, j] = c, -s, s, c
    return T


def inverse(T: Transform) -> Transform:
    """Inverse of a rigid transform."""
    out = np.eye(4)
    out[:3, :3] = T[:3, :3].T
    out[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return out


def apply(T_dst_src: Transform, points_src: NDArray[Any]) -> NDArray[np.float64]:
    """Points (..., 3) in src to dst, float64."""
    out: NDArray[np.float64] = np.asarray(points_src, np.float64) @ T_dst_src[:3, :3].T
    return out + T_dst_src[:3, 3]
