"""Is a log what it says? Pure checks of times, poses, extrinsics and camera calibration.

Poses and LiDAR extrinsics are judged by upright structure. Ground rings and long barriers look
alike from everywhere and agree under wrong poses too, so one vote goes to each column: a small
horizontal cell with returns over a metre of height (poles, trunks, cars, corners). Cameras are
judged by near edges in the LiDAR's depth, which must lie on edges of the picture.
``datasets.checks`` draws the conclusions.

Legend: N points, C columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from datasets.frames import CameraView, Frame
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.plausibility import sweep_times_us, usual_step_s

MAX_SPEED_M_S = 70.0
MAX_TURN_RAD_S = 2.0
MAX_ACCELERATION_M_S2 = 15.0
MAX_TILT_CHANGE_RAD = 0.35
MAX_SIDEWAYS_RAD = 0.5
MAX_CAMERA_OFFSET_S = 0.15
GAP_FACTOR = 2.5
LEAST_TURN_S, LONGEST_TURN_S = 0.01, 2.0
ODD_TURNS = "a LiDAR turns 1 to 30 times a second; are the times microseconds?"
VEHICLE_SLACK_M = 0.5
MAX_GROUND_OFF_M = 0.5

COLUMN_CELL_M, COLUMN_HEIGHT_M = 0.3, 1.0
COLUMN_FROM_M, COLUMN_TO_M = 0.5, 4.0
COLUMN_NEAR_M, COLUMN_FAR_M = 3.0, 40.0

EDGE_WIDTH_PX, EDGE_CELL_PX = 640, 4
EDGE_FAR_M = 40.0
MIN_EDGES = 1000
TURNS_DEG = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to look at.

    Attributes:
        bad: missing or implausible; else only worth knowing, or not to be judged from this log.
        frame: token, or empty for the whole scene.
    """

    bad: bool
    text: str
    frame: str = ""


def check_times(frames: Sequence[Frame]) -> list[Finding]:
    """Gaps, cameras far from their LiDAR sweep in time, and sensors that come and go."""
    findings = []
    of_sweeps = sweep_times_us(frames)
    for what, times in (
        ("frames", [f.timestamp_us for f in frames]),
        *(
            (f"sweeps of {name}" if len(of_sweeps) > 1 else "sweeps", found)
            for name, found in of_sweeps.items()
        ),
    ):
        steps = np.diff(np.asarray(times, np.int64)) * 1e-6
        if len(steps) > 1:
            usual = float(np.median(steps))
            for k in np.flatnonzero(steps > GAP_FACTOR * usual):
                after = (times[k] - times[0]) * 1e-6
                text = f"{what}: gap of {steps[k]:.2f} s, usually {usual:.2f} s, {after:.2f} s in"
                findings.append(Finding(bad=False, text=text))
    findings += [
        Finding(bad=False, text=f"sweeps of {name} are usually {apart_s:.2g} s apart: {ODD_TURNS}")
        for name, found in of_sweeps.items()
        if (apart_s := usual_step_s(found)) is not None
        and set(found) - {f.timestamp_us for f in frames}
        and not LEAST_TURN_S <= apart_s <= LONGEST_TURN_S
    ]
    everything = {v.name for f in frames for v in f.cameras}
    with_lidar = any(f.lidar is not None for f in frames)
    for frame in frames:
        if lacking := sorted(everything - {v.name for v in frame.cameras}):
            text = f"no picture of {', '.join(lacking)}"
            findings.append(Finding(bad=False, frame=frame.token, text=text))
        if with_lidar and frame.lidar is None:
            findings.append(Finding(bad=True, frame=frame.token, text="no LiDAR sweep"))
        for view in frame.cameras:
            offset = (view.timestamp_us - frame.timestamp_us) * 1e-6
            if abs(offset) > MAX_CAMERA_OFFSET_S:
                text = f"{view.name} was taken {offset:+.3f} s from the frame's time"
                findings.append(Finding(bad=True, frame=frame.token, text=text))
    return findings


def sweeps_of(frame: Frame) -> tuple[Any, ...]:
    """Every sweep that a frame names."""
    return frame.sweeps


def speeds_m_s(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(frames - 1,) between neighbouring frames."""
    places = np.array([f.T_global_ego[:3, 3] for f in frames])
    times = np.array([f.timestamp_us for f in frames], np.int64)
    out: NDArray[np.float64] = np.linalg.norm(np.diff(places, axis=0), axis=1) / (
        np.diff(times) * 1e-6
    )
    return out


def check_motion(frames: Sequence[Frame]) -> list[Finding]:
    """Jumps, turns no vehicle makes, travel across X, and cameras' poses off the vehicle's path."""
    findings = []
    speeds, last_m_s, headings = speeds_m_s(frames), None, []
    for k, (a, b) in enumerate(itertools.pairwise(frames)):
        seconds = (b.timestamp_us - a.timestamp_us) * 1e-6
        step = inverse(a.T_global_ego) @ b.T_global_ego
        turn = float(np.arccos(np.clip((np.trace(step[:3, :3]) - 1) / 2, -1, 1)))
        tilt = float(np.arccos(np.clip(step[2, 2], -1, 1)))
        velocity = (b.T_global_ego[:3, 3] - a.T_global_ego[:3, 3]) / seconds
        bad = []
        if speeds[k] > MAX_SPEED_M_S:
            bad.append(f"the pose jumps by {speeds[k] * seconds:.1f} m in {seconds:.2f} s")
        elif last_m_s is not None:
            change = float(np.linalg.norm(velocity - last_m_s)) / seconds
            if change > MAX_ACCELERATION_M_S2:
                bad.append(f"the pose jumps: {change:.0f} m/s2")
        if turn / seconds > MAX_TURN_RAD_S:
            bad.append(f"the vehicle turns by {np.degrees(turn):.0f} degrees in {seconds:.2f} s")
        if tilt > MAX_TILT_CHANGE_RAD:
            bad.append(f"the vehicle tilts by {np.degrees(tilt):.0f} degrees")
        findings += [Finding(bad=True, frame=b.token, text=text) for text in bad]
        last_m_s = velocity
        if np.linalg.norm(step[:2, 3]) > 1:
            headings.append(np.arctan2(abs(step[1, 3]), abs(step[0, 3])))
    if headings and (sideways := float(np.median(headings))) > MAX_SIDEWAYS_RAD:
        text = f"the vehicle travels {np.degrees(sideways):.0f} degrees off its X axis (X: forward)"
        findings.append(Finding(bad=True, text=text))
    top = np.append(speeds, speeds[-1:]) if len(speeds) else np.zeros(1)
    for frame, speed in zip(frames, top, strict=True):
        for view in frame.cameras:
            seconds = abs(view.timestamp_us - frame.timestamp_us) * 1e-6
            way = float(np.linalg.norm(view.T_ego_vehicle[:3, 3]))
            if way > 1.5 * speed * seconds + VEHICLE_SLACK_M:
                text = (
                    f"{view.name}: the vehicle is {way:.1f} m away {seconds:.3f} s from the frame"
                )
                findings.append(Finding(bad=True, frame=frame.token, text=text))
    return findings


def ground_height_m(points_ego: NDArray[Any]) -> float | None:
    """Height of the lowest surface around the vehicle; None with too few returns there.

    Args:
        points_ego: (N, 3) or wider.
    """
    near = points_ego[np.abs(np.linalg.norm(points_ego[:, :2], axis=1) - 8) < 5]
    cell = np.floor(near[:, :2]).astype(np.int64)
    lows = np.full((32, 32), np.inf)
    np.minimum.at(lows, (cell[:, 0] + 16, cell[:, 1] + 16), near[:, 2])
    found = lows[np.isfinite(lows)]
    return float(np.median(found)) if len(found) >= 20 else None


def ground_slopes(points_ego: NDArray[Any]) -> NDArray[np.float64] | None:
    """(2,) how the ground around the vehicle rises along x and along y; None with too few returns.

    A plane through the lowest return of every square metre, robust against what stands on it. On
    the whole of a drive it is level, the vehicle standing on it: else the LiDAR is tilted.

    Args:
        points_ego: (N, 3) or wider.
    """
    near = points_ego[np.abs(np.linalg.norm(points_ego[:, :2], axis=1) - 8) < 5]
    cell = np.floor(near[:, :2]).astype(np.int64)
    order = np.lexsort((near[:, 2], cell[:, 1], cell[:, 0]))
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(cell[order], axis=0) != 0).any(axis=1)
    lows = np.asarray(near[order[first], :3], np.float64)
    if len(lows) < 40:
        return None
    A = np.c_[lows[:, :2], np.ones(len(lows))]
    weight = np.ones(len(lows))
    for _ in range(10):
        plane = np.linalg.lstsq(A * weight[:, None], lows[:, 2] * weight, rcond=None)[0]
        left = lows[:, 2] - A @ plane
        scale = max(1.48 * float(np.median(np.abs(left))), 0.02)
        weight = np.sqrt(1 / (1 + (left / scale) ** 2))
    slopes: NDArray[np.float64] = plane[:2]
    return slopes


def columns(points_ego: NDArray[Any]) -> NDArray[np.float64]:
    """(C, 3) middles of upright structure in metres, from (N, 3) points of one sweep."""
    away = np.linalg.norm(points_ego[:, :2], axis=1)
    z = points_ego[:, 2]
    keep = (z > COLUMN_FROM_M) & (z < COLUMN_TO_M) & (away > COLUMN_NEAR_M) & (away < COLUMN_FAR_M)
    points = np.asarray(points_ego[keep, :3], np.float64)
    if not len(points):
        return np.empty((0, 3))
    cell = np.floor(points[:, :2] / COLUMN_CELL_M).astype(np.int64)
    _, of = np.unique(cell, axis=0, return_inverse=True)
    count = np.bincount(of)
    low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
    np.minimum.at(low, of, points[:, 2])
    np.maximum.at(high, of, points[:, 2])
    middles = np.stack([np.bincount(of, points[:, i]) / count for i in range(3)], axis=1)
    upright: NDArray[np.float64] = middles[high - low >= COLUMN_HEIGHT_M]
    return upright


def spread(n: int, limit: int) -> list[int]:
    """At most ``limit`` of n indices, evenly spread."""
    return sorted({round(k) for k in np.linspace(0, n - 1, min(n, limit))}) if n else []


def project(
    points_ego: NDArray[Any], view: CameraView
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(N, 2) pixels, (N,) metres along the optical axis, and (N,) whether inside the picture."""
    p = apply(inverse(view.T_ego_camera), points_ego[:, :3])
    return _to_pixels(p, view)


def depth_edges(points_ego: NDArray[Any], view: CameraView) -> NDArray[np.float64]:
    """(E, 3) in the camera's frame: points (N, 3) beside which it is much farther."""
    p = apply(inverse(view.T_ego_camera), points_ego[:, :3])
    uv, depth, inside = _to_pixels(p, view)
    scale = EDGE_WIDTH_PX / view.width
    edges: NDArray[np.float64] = p[_near_edges(uv * scale, depth, inside & (depth < EDGE_FAR_M))]
    return edges


def gradient_under(
    edges: NDArray[np.float64], view: CameraView, gradient: NDArray[np.float64]
) -> float:
    """Sum of a picture's gradient (``picture_gradient``) under ``depth_edges`` of the view; edges
    that leave the picture count as average ones."""
    scale = EDGE_WIDTH_PX / view.width
    pixels, _, seen = _to_pixels(edges, view)
    at = np.floor(pixels[seen] * scale).astype(np.int64)
    at = np.minimum(at, [gradient.shape[1] - 1, gradient.shape[0] - 1])
    return float(gradient[at[:, 1], at[:, 0]].sum() + (~seen).sum())


def _to_pixels(
    p: NDArray[np.float64], view: CameraView
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    depth = p[:, 2]
    front = depth > 0.5
    uv = np.full((len(p), 2), -1.0)
    uv[front] = (p[front] / depth[front, None]) @ view.intrinsics[:2].T
    inside = front & (uv >= 0).all(axis=1) & (uv < [view.width, view.height]).all(axis=1)
    return uv, depth, inside


def _near_edges(
    uv: NDArray[np.float64], depth: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Indices of the nearest points beside which, in the same row, it is much farther."""
    index = np.flatnonzero(inside)
    col, row = (uv[index] / EDGE_CELL_PX).astype(np.int64).T
    if not len(index):
        return index
    shape = (int(row.max()) + 1, int(col.max()) + 1)
    near, far = np.full(shape, np.inf), np.full(shape, -np.inf)
    z = depth[index]
    np.minimum.at(near, (row, col), z)
    far[np.isfinite(near)] = near[np.isfinite(near)]
    beside = ndimage.maximum_filter1d(far, 5, axis=1, mode="constant", cval=-np.inf)
    edge = (beside[row, col] > 1.1 * z + 1) & (z < 1.05 * near[row, col] + 0.1)
    edges: NDArray[np.int64] = index[edge]
    return edges


def picture_gradient(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Horizontal gradient at ``EDGE_WIDTH_PX``, blurred, strong edges cut, of mean 1."""
    height = max(1, round(rgb.shape[0] * EDGE_WIDTH_PX / rgb.shape[1]))
    grey = Image.fromarray(rgb).convert("L").resize((EDGE_WIDTH_PX, height))
    steps = np.abs(ndimage.sobel(np.asarray(grey, np.float64), axis=1))
    strongest = float(np.percentile(steps[steps > 0], 98)) if steps.any() else 0.0
    blurred = ndimage.gaussian_filter(np.minimum(steps, strongest), 1.5)
    out: NDArray[np.float64] = blurred / max(float(blurred.mean()), 1e-9)
    return out


def camera_turn(axis: int, degrees: float) -> Transform:
    """A turn about the camera's x (0, pitch), y (1, yaw) or z (2, roll) axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    T = np.eye(4)
    if axis == 0:
        T[1:3, 1:3] = [[c, -s], [s, c]]
    elif axis == 2:
        T[:2, :2] = [[c, -s], [s, c]]
    else:
        T[0, 0], T[0, 2], T[2, 0], T[2, 2] = c, s, -s, c
    return T
