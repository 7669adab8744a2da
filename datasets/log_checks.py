"""Is a log what it says? Pure checks of times, poses, extrinsics and camera calibration.

Poses and LiDAR extrinsics are judged by upright structure. Ground rings and long barriers look
alike from everywhere and agree under wrong poses too, so one vote goes to each column: a small
horizontal cell with returns over a metre of height (poles, trunks, cars, corners). Columns of
frames some metres apart must meet with the stated motion and miss without it. Cameras are judged by
near edges in the LiDAR's depth: they must lie on edges of the picture more than under turned
cameras.

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
from scipy.spatial import cKDTree

from datasets.frames import CameraView, Frame
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse

MAX_SPEED_M_S = 70.0
MAX_TURN_RAD_S = 2.0
MAX_ACCELERATION_M_S2 = 15.0
MAX_TILT_CHANGE_RAD = 0.35
MAX_SIDEWAYS_RAD = 0.5
MAX_CAMERA_OFFSET_S = 0.15
GAP_FACTOR = 2.5
VEHICLE_SLACK_M = 0.5
MAX_GROUND_OFF_M = 0.5

PAIR_MOVED_M, PAIR_APART_S = 3.0, 3.0
COLUMN_CELL_M, COLUMN_HEIGHT_M = 0.3, 1.0
COLUMN_FROM_M, COLUMN_TO_M = 0.5, 4.0
COLUMN_NEAR_M, COLUMN_FAR_M = 3.0, 40.0
MEET_M = 0.2
MIN_COLUMNS, MIN_MEETING = 40, 0.1

EDGE_WIDTH_PX, EDGE_CELL_PX = 640, 4
EDGE_FAR_M = 40.0
MIN_EDGES, MIN_EDGE_GRADIENT = 1000, 1.15
TURNS_DEG = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)
LENGTHS = (0.75, 0.9, 1.1, 1.25)
OTHERWISE = (
    *(f"the LiDAR turned by {degrees:+.0f} degrees about its vertical" for degrees in TURNS_DEG),
    *(f"the motion {length:g} times as long" for length in LENGTHS),
)


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
    for what, times in (
        ("frames", [f.timestamp_us for f in frames]),
        ("sweeps", sorted({s.timestamp_us for f in frames for s in sweeps_of(f)})),
    ):
        steps = np.diff(np.asarray(times, np.int64)) * 1e-6
        if len(steps) > 1:
            usual = float(np.median(steps))
            for k in np.flatnonzero(steps > GAP_FACTOR * usual):
                after = (times[k] - times[0]) * 1e-6
                text = f"{what}: gap of {steps[k]:.2f} s, usually {usual:.2f} s, {after:.2f} s in"
                findings.append(Finding(bad=False, text=text))
    everything = {v.name for f in frames for v in f.cameras}
    with_lidar = any(f.lidar is not None for f in frames)
    for frame in frames:
        if lacking := sorted(everything - {v.name for v in frame.cameras}):
            text = f"no picture of {', '.join(lacking)}"
            findings.append(Finding(bad=True, frame=frame.token, text=text))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticAgreement:
    """How many columns of one frame have one of a later frame within 0.2 m, horizontally.

    Attributes:
        pairs: pairs of frames.
        n: columns looked up.
        stated: of these, met with the stated motion; ``unmoved``: with the motion left out.
        otherwise: met under each of ``OTHERWISE``.
        moved_m: metres between the frames, summed.
    """

    pairs: int = 0
    n: int = 0
    stated: int = 0
    unmoved: int = 0
    otherwise: tuple[int, ...] = (0,) * len(OTHERWISE)
    moved_m: float = 0.0

    def __add__(self, other: StaticAgreement) -> StaticAgreement:
        return StaticAgreement(
            pairs=self.pairs + other.pairs,
            n=self.n + other.n,
            stated=self.stated + other.stated,
            unmoved=self.unmoved + other.unmoved,
            otherwise=tuple(a + b for a, b in zip(self.otherwise, other.otherwise, strict=True)),
            moved_m=self.moved_m + other.moved_m,
        )

    def __str__(self) -> str:
        if not self.pairs:
            return "not tested: no two frames 3 m and at most 3 s apart"
        with_, without = 100 * self.stated / max(self.n, 1), 100 * self.unmoved / max(self.n, 1)
        return (
            f"{with_:.0f} % of {self.n} upright columns meet within 0.2 m, {without:.0f} % without "
            f"the motion ({self.pairs} pairs, {self.moved_m / self.pairs:.1f} m apart)"
        )

    def findings(self) -> list[Finding]:
        if self.n < MIN_COLUMNS:
            return [Finding(bad=False, text=f"static structure: {self}")]
        stated, unmoved = self.stated / self.n, self.unmoved / self.n
        least = max(MIN_MEETING, 1.2 * unmoved)
        best = int(np.argmax(self.otherwise))
        if (better := self.otherwise[best] / self.n) > max(stated + 0.05, least):
            text = (
                f"poses or LiDAR extrinsics: {100 * better:.0f} % of columns would meet with "
                f"{OTHERWISE[best]}, {100 * stated:.0f} % do as stated"
            )
            return [Finding(bad=True, text=text)]
        if stated < least:
            text = f"poses or LiDAR extrinsics: static structure does not stay in place: {self}"
            return [Finding(bad=True, text=text)]
        return []


def pairs_to_compare(frames: Sequence[Frame], limit: int) -> list[tuple[Frame, Frame]]:
    """Frames with LiDAR and the first later one that is 3 m on, spread over the scene."""
    pairs = []
    for i, a in enumerate(frames):
        for b in frames[i + 1 :]:
            if b.timestamp_us - a.timestamp_us > PAIR_APART_S * 1e6:
                break
            moved = np.linalg.norm(b.T_global_ego[:3, 3] - a.T_global_ego[:3, 3])
            if moved >= PAIR_MOVED_M and a.lidar and b.lidar:
                pairs.append((a, b))
                break
    return [pairs[k] for k in spread(len(pairs), limit)]


def spread(n: int, limit: int) -> list[int]:
    """At most ``limit`` of n indices, evenly spread."""
    return sorted({round(k) for k in np.linspace(0, n - 1, min(n, limit))}) if n else []


def static_agreement(
    a: Frame, b: Frame, columns_a: NDArray[np.float64], columns_b: NDArray[np.float64]
) -> StaticAgreement:
    """Compare the upright structure of two frames with LiDAR, each (C, 3) in its own ego frame."""
    if a.lidar is None or b.lidar is None:
        raise ValueError("both frames need a LiDAR sweep")
    T_b_a = inverse(b.T_global_ego) @ a.T_global_ego
    moved = float(np.linalg.norm(T_b_a[:3, 3]))
    if not len(columns_a) or not len(columns_b):
        return StaticAgreement(pairs=1, moved_m=moved)

    def meeting(T: Transform, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> int:
        away, _ = cKDTree(theirs[:, :2]).query(apply(T, ours)[:, :2])
        return int((away <= MEET_M).sum())

    def turned(T_ego_lidar: Transform, degrees: float, points: NDArray[Any]) -> NDArray[Any]:
        turn = from_yaw(np.radians(degrees), [0, 0, 0])
        return apply(T_ego_lidar @ turn @ inverse(T_ego_lidar), points)

    def stretched(length: float) -> Transform:
        T = T_b_a.copy()
        T[:3, 3] *= length
        return T

    T_a, T_b = a.lidar.T_ego_lidar, b.lidar.T_ego_lidar
    return StaticAgreement(
        pairs=1,
        n=len(columns_a),
        stated=meeting(T_b_a, columns_a, columns_b),
        unmoved=meeting(np.eye(4), columns_a, columns_b),
        otherwise=(
            *(
                meeting(T_b_a, turned(T_a, d, columns_a), turned(T_b, d, columns_b))
                for d in TURNS_DEG
            ),
            *(meeting(stretched(length), columns_a, columns_b) for length in LENGTHS),
        ),
        moved_m=moved,
    )


def project(
    points_ego: NDArray[Any], view: CameraView
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(N, 2) pixels, (N,) metres along the optical axis, and (N,) whether inside the picture."""
    p = apply(inverse(view.T_ego_camera), points_ego[:, :3])
    return _to_pixels(p, view)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraAgreement:
    """How strongly a picture's edges lie under near edges of the LiDAR's depth.

    Attributes:
        frames: pictures looked at.
        points: LiDAR points; ``inside``: of these in the picture.
        edges: near edges in the depth.
        stated: picture gradient under them relative to the whole picture's, summed over edges;
            ``yawed``, ``pitched``, ``rolled``: with the camera turned by each of ``TURNS_DEG``
            about its y, x and z axis.
    """

    frames: int = 0
    points: int = 0
    inside: int = 0
    edges: int = 0
    stated: float = 0.0
    yawed: tuple[float, ...] = (0.0,) * len(TURNS_DEG)
    pitched: tuple[float, ...] = (0.0,) * len(TURNS_DEG)
    rolled: tuple[float, ...] = (0.0,) * len(TURNS_DEG)

    def __add__(self, other: CameraAgreement) -> CameraAgreement:
        return CameraAgreement(
            frames=self.frames + other.frames,
            points=self.points + other.points,
            inside=self.inside + other.inside,
            edges=self.edges + other.edges,
            stated=self.stated + other.stated,
            yawed=tuple(a + b for a, b in zip(self.yawed, other.yawed, strict=True)),
            pitched=tuple(a + b for a, b in zip(self.pitched, other.pitched, strict=True)),
            rolled=tuple(a + b for a, b in zip(self.rolled, other.rolled, strict=True)),
        )

    def __str__(self) -> str:
        share = 100 * self.inside / max(self.points, 1)
        if not self.edges:
            return f"{share:.1f} % of the points lie in the picture; no depth edges"
        turned = max(*self.yawed, *self.pitched) / self.edges
        return (
            f"{share:.1f} % of the points lie in the picture; {self.edges} depth edges lie on "
            f"{self.stated / self.edges:.2f} times the mean gradient, turned by 1 to 4 degrees on "
            f"{turned:.2f} at most"
        )

    def findings(self, name: str) -> list[Finding]:
        """Bad ones only; fewer than 1000 depth edges are not judged."""
        if self.points and self.inside < 0.002 * self.points:
            text = (
                f"{name}: {100 * self.inside / self.points:.2f} % of the points lie in its picture"
            )
            return [Finding(bad=True, text=text)]
        if self.edges < MIN_EDGES:
            return []
        for axis, sums in (("y", self.yawed), ("x", self.pitched)):
            best = int(np.argmax(sums))
            if abs(TURNS_DEG[best]) >= 2 and sums[best] > 1.25 * self.stated:
                text = (
                    f"{name}: its extrinsics turned by {TURNS_DEG[best]:+.0f} degrees about the "
                    f"camera's {axis} axis would fit better: {self}"
                )
                return [Finding(bad=True, text=text)]
        if self.stated < MIN_EDGE_GRADIENT * self.edges:
            return [Finding(bad=True, text=f"{name}: edges do not lie on its picture's: {self}")]
        return []


def camera_agreement(
    points_ego: NDArray[Any], view: CameraView, rgb: NDArray[np.uint8]
) -> CameraAgreement:
    """Compare one picture (H, W, 3) with the points (N, 3) of its frame."""
    p = apply(inverse(view.T_ego_camera), points_ego[:, :3])
    _, _, inside = _to_pixels(p, view)
    edges, gradient = depth_edges(points_ego, view), picture_gradient(rgb)

    def under(turn: Transform | None) -> float:
        return gradient_under(edges if turn is None else apply(turn, edges), view, gradient)

    return CameraAgreement(
        frames=1,
        points=len(p),
        inside=int(inside.sum()),
        edges=len(edges),
        stated=under(None),
        yawed=tuple(under(_turn(1, -degrees)) for degrees in TURNS_DEG),
        pitched=tuple(under(_turn(0, -degrees)) for degrees in TURNS_DEG),
        rolled=tuple(under(_turn(2, -degrees)) for degrees in TURNS_DEG),
    )


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


def _turn(axis: int, degrees: float) -> Transform:
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
