"""A plain rasteriser: rectangles, lines and points through a pinhole camera with a depth buffer.

It draws the labels over the camera images, and the 3D view where Open3D cannot.

Legend: F faces, N points; H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.compiled import compiled
from datasets.geometry.transforms import Transform, apply, inverse

NEAR_M = 0.1
_EDGE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinhole:
    """A camera: z forward, x right, y down; pixel (0, 0)'s centre lies at u = v = 0.

    Attributes:
        intrinsics: (3, 3), pixels.
        T_camera_ego: ego to camera, metres.
    """

    width: int
    height: int
    intrinsics: NDArray[np.float64]
    T_camera_ego: Transform

    def resized(self, width: int, height: int) -> Pinhole:
        """The same camera with another number of pixels."""
        sx, sy = width / self.width, height / self.height
        # pixel centres at whole numbers: u' = (u + 0.5) s - 0.5
        S = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
        return Pinhole(
            width=width,
            height=height,
            intrinsics=S @ self.intrinsics,
            T_camera_ego=self.T_camera_ego,
        )


def look_at(
    *,
    eye_m: NDArray[np.float64],
    target_m: NDArray[np.float64],
    vertical_fov_deg: float,
    width: int,
    height: int,
) -> Pinhole:
    """A camera at ``eye_m`` that looks at ``target_m`` with +Z up. Both (3,), ego frame."""
    forward = target_m - eye_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T_ego_camera = np.eye(4)
    T_ego_camera[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T_ego_camera[:3, 3] = eye_m
    f = height / 2 / np.tan(np.radians(vertical_fov_deg) / 2)
    K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
    return Pinhole(width=width, height=height, intrinsics=K, T_camera_ego=inverse(T_ego_camera))


def nearest_faces(
    corners_m: NDArray[np.float32], camera: Pinhole
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which rectangle each pixel's ray meets first.

    Args:
        corners_m: (F, 4, 3) rectangles in the ego frame, counter-clockwise seen from the side
            that is drawn. Those that reach within 0.1 m of the camera's plane are left out.

    Returns:
        face: (H, W) int64, -1 where there is none.
        depth_m: (H, W) float32 along the optical axis, infinite where there is none.
    """
    T, K = camera.T_camera_ego, camera.intrinsics
    face = np.full((camera.height, camera.width), -1, np.int64)
    depth = np.full(face.shape, np.inf, np.float32)
    corners = np.ascontiguousarray(corners_m, np.float32)
    _nearest_faces(corners, T, K, np.linalg.inv(K), face, depth)
    return face, depth


@compiled
def _nearest_faces(corners: Any, T: Any, K: Any, to_ray: Any, face: Any, depth: Any) -> None:
    height, width = face.shape
    p = np.empty((4, 3))
    for f in range(corners.shape[0]):
        nearest = np.inf
        u_low, u_high, v_low, v_high = np.inf, -np.inf, np.inf, -np.inf
        for c in range(4):
            x, y, z = corners[f, c, 0], corners[f, c, 1], corners[f, c, 2]
            for i in range(3):
                p[c, i] = T[i, 0] * x + T[i, 1] * y + T[i, 2] * z + T[i, 3]
            nearest = min(nearest, p[c, 2])
        if nearest <= NEAR_M:
            continue
        ax, ay, az = p[1, 0] - p[0, 0], p[1, 1] - p[0, 1], p[1, 2] - p[0, 2]
        bx, by, bz = p[3, 0] - p[0, 0], p[3, 1] - p[0, 1], p[3, 2] - p[0, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        offset = nx * p[0, 0] + ny * p[0, 1] + nz * p[0, 2]
        if offset >= 0:  # seen from behind
            continue
        for c in range(4):
            x, y = p[c, 0] / p[c, 2], p[c, 1] / p[c, 2]
            u = K[0, 0] * x + K[0, 1] * y + K[0, 2]
            v = K[1, 1] * y + K[1, 2]
            u_low, u_high = min(u_low, u), max(u_high, u)
            v_low, v_high = min(v_low, v), max(v_high, v)
        # coordinates along the two edges, 0..1 inside the rectangle
        aa, bb = ax * ax + ay * ay + az * az, bx * bx + by * by + bz * bz
        a_0 = (ax * p[0, 0] + ay * p[0, 1] + az * p[0, 2]) / aa
        b_0 = (bx * p[0, 0] + by * p[0, 1] + bz * p[0, 2]) / bb
        first_u, last_u = max(np.ceil(u_low), 0.0), min(np.floor(u_high), width - 1.0)
        first_v, last_v = max(np.ceil(v_low), 0.0), min(np.floor(v_high), height - 1.0)
        for v in range(int(first_v), int(last_v) + 1):
            ray_y = to_ray[1, 1] * v + to_ray[1, 2]
            for u in range(int(first_u), int(last_u) + 1):
                ray_x = to_ray[0, 0] * u + to_ray[0, 1] * v + to_ray[0, 2]
                facing = nx * ray_x + ny * ray_y + nz
                if facing >= 0:
                    continue
                z = offset / facing
                along_a = (ax * ray_x + ay * ray_y + az) / aa * z - a_0
                along_b = (bx * ray_x + by * ray_y + bz) / bb * z - b_0
                if not (-_EDGE <= along_a <= 1 + _EDGE and -_EDGE <= along_b <= 1 + _EDGE):
                    continue
                near = np.float32(z)
                if z > NEAR_M and near < depth[v, u]:  # of equally near ones the first stays
                    depth[v, u] = near
                    face[v, u] = f


def visible_points(
    points_m: NDArray[np.float32],
    camera: Pinhole,
    depth_m: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of the points that lie before the depth buffer.

    Args:
        points_m: (N, 3) ego frame.
        depth_m: (H, W) as ``nearest_faces`` gives it.

    Returns:
        (M,) int64 each: rows, columns, and which point it is.
    """
    p = apply(camera.T_camera_ego, points_m)
    index = np.flatnonzero(p[:, 2] > NEAR_M)
    p = p[index]
    uv = (p / p[:, 2:]) @ camera.intrinsics[:2].T
    return _before(uv, p[:, 2], index, camera, depth_m)


def visible_line_pixels(
    ends_m: NDArray[np.float32],
    camera: Pinhole,
    depth_m: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of the parts of lines that lie before the depth buffer.

    Args:
        ends_m: (L, 2, 3) ego frame; what lies behind the camera is cut.
        depth_m: (H, W) as ``nearest_faces`` gives it.

    Returns:
        (M,) int64 each: rows, columns, and which line it is.
    """
    p = apply(camera.T_camera_ego, ends_m)
    near = 2 * NEAR_M
    index = np.flatnonzero((p[..., 2] > near).any(axis=1))
    a, b = p[index, 0], p[index, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (near - a[:, 2]) / (b[:, 2] - a[:, 2])
        cut = a + share[:, None] * (b - a)
    a, b = (
        np.where(a[:, 2:] < near, cut, a),
        np.where(b[:, 2:] < near, cut, b),
    )
    uv_a, uv_b = ((e / e[:, 2:]) @ camera.intrinsics[:2].T for e in (a, b))
    longest = 2 * (camera.width + camera.height)  # of a line that leaves the image
    steps = np.abs(uv_b - uv_a).max(axis=1).clip(1, longest).astype(np.int64) + 1
    line = np.repeat(np.arange(len(index)), steps)
    first = np.cumsum(steps) - steps
    t = (np.arange(len(line)) - first[line]) / (steps[line] - 1)
    uv = uv_a[line] + t[:, None] * (uv_b - uv_a)[line]
    inverse_z = 1 / a[line, 2] + t * (1 / b[line, 2] - 1 / a[line, 2])
    return _before(uv, 1 / inverse_z, index[line], camera, depth_m)


def _before(
    uv: NDArray[np.float64],
    z_m: NDArray[np.float64],
    which: NDArray[np.int64],
    camera: Pinhole,
    depth_m: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    inside = ((uv > -0.5) & (uv < np.array([camera.width, camera.height]) - 0.5)).all(axis=1)
    columns, rows = np.rint(uv[inside]).astype(np.int64).T
    before = z_m[inside] < depth_m[rows, columns]
    return rows[before], columns[before], which[inside][before]
