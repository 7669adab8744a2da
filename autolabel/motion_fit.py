"""What is wrong with poses and LiDAR extrinsics, from how frames really fit together.

The upright structure of two frames about a second apart is laid over each other in the plane
(iterated closest points with a robust weight). What that adds to the stated motion is explained, by
least squares over all pairs, by three causes at once: poses of another time, a LiDAR turned about
its vertical, a motion of another length. Each leaves its own trace: a delay shows where the vehicle
turns or changes its speed, a turned LiDAR as a drift aside on every straight, a wrong length as a
drift along it. What none of them explains is noise of the poses.

Legend: P pairs, C columns (``datasets.log_checks.columns``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from datasets.frames import Frame
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.log_checks import spread, sweeps_of

APART_S, MAX_APART_S, MOVED_M = 0.95, 1.6, 1.5
PAIRS = 12
MIN_PARTNERS = 12
REACH_M = (1.5, 0.25)
TUKEY_M = (1.2, 0.2)
ITERATIONS = 15
STEP = np.array([0.02, np.radians(0.2), 0.01])
"""Small amounts of the three causes, by which their traces are found: seconds, radians, share."""
ARM_M = 15.0
"""A turn counts as the way it moves things so far away."""

Vector = NDArray[np.float64]


class Trajectory:
    """Where the vehicle was at any time: between the moments of frames and sweeps it goes evenly.

    Args:
        frames: of one scene, with LiDAR.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        poses: dict[int, Transform] = {}
        for frame in frames:
            if frame.lidar is None:
                continue
            for sweep in sweeps_of(frame):
                T = frame.T_global_ego @ frame.vehicle_at(sweep)
                poses.setdefault(sweep.timestamp_us, T)
        self._us = np.array(sorted(poses), np.int64)
        self._poses = np.array([poses[t] for t in self._us]).reshape(-1, 4, 4)
        if len(self._us) > 1:
            seconds = (self._us - self._us[0]) * 1e-6
            self._turns = Slerp(seconds, Rotation.from_matrix(self._poses[:, :3, :3]))

    @property
    def start_us(self) -> int:
        """The first moment. Raises ``IndexError`` where there is none."""
        return int(self._us[0])

    def at(self, us: float) -> Transform | None:
        """The pose (global from ego); None before the first or after the last moment."""
        if len(self._us) < 2 or not self._us[0] <= us <= self._us[-1]:
            return None
        T = np.eye(4)
        seconds = (us - self._us[0]) * 1e-6
        T[:3, :3] = self._turns(min(seconds, (self._us[-1] - self._us[0]) * 1e-6)).as_matrix()
        offsets = (self._us - self._us[0]).astype(np.float64)
        for axis in range(3):
            T[axis, 3] = np.interp(us - self._us[0], offsets, self._poses[:, axis, 3])
        return T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MotionPair:
    """Two frames of a scene.

    Attributes:
        found: (3,) what the fit adds to the stated motion, in the later frame: metres along x and
            y, and radians about z times ``ARM_M``.
        traces: (3, 3) what would be found for one second, one radian and a motion twice as long:
            [component, cause]. A column of NaN: the cause cannot be told here.
    """

    scene_id: str
    found: Vector
    traces: Vector


def pairs_apart(frames: Sequence[Frame], limit: int = PAIRS) -> list[tuple[Frame, Frame]]:
    """Frames about a second apart between which the vehicle moved, spread over the scene."""
    pairs = []
    for i, a in enumerate(frames):
        for b in frames[i + 1 :]:
            apart_s = (b.timestamp_us - a.timestamp_us) * 1e-6
            if apart_s < APART_S:
                continue
            moved = np.linalg.norm(b.T_global_ego[:3, 3] - a.T_global_ego[:3, 3])
            if apart_s <= MAX_APART_S and moved >= MOVED_M and a.lidar and b.lidar:
                pairs.append((a, b))
            break
    return [pairs[k] for k in spread(len(pairs), limit)]


def fit_pair(
    a: Frame, b: Frame, columns_a: Vector, columns_b: Vector, trajectory: Trajectory
) -> MotionPair | None:
    """Lay the columns (C, 3) of frame a over those of frame b; None where too few meet."""
    if a.lidar is None or b.lidar is None:
        raise ValueError("both frames need a LiDAR sweep")
    T_b_a = inverse(b.T_global_ego) @ a.T_global_ego
    if (found := lay_over(apply(T_b_a, columns_a)[:, :2], columns_b[:, :2])) is None:
        return None
    T_a_lidar, T_b_lidar = a.lidar.T_ego_lidar, b.lidar.T_ego_lidar

    def delayed(seconds: float) -> Transform | None:
        first = trajectory.at(a.timestamp_us + seconds * 1e6)
        second = trajectory.at(b.timestamp_us + seconds * 1e6)
        return None if first is None or second is None else inverse(second) @ first

    def turned(radians: float) -> Transform:
        turn = from_yaw(radians, [0, 0, 0])
        back = T_b_lidar @ inverse(turn) @ inverse(T_b_lidar)
        return np.asarray(back @ T_b_a @ T_a_lidar @ turn @ inverse(T_a_lidar))

    def stretched(share: float) -> Transform:
        T = T_b_a.copy()
        T[:3, 3] *= 1 + share
        return T

    causes: tuple[Callable[[float], Transform | None], ...] = (delayed, turned, stretched)
    traces = [
        _trace(cause(step), cause(-step), step) for cause, step in zip(causes, STEP, strict=True)
    ]
    return MotionPair(scene_id=a.scene_id, found=found, traces=np.stack(traces, axis=1))


def lay_over(ours: Vector, theirs: Vector) -> Vector | None:
    """The planar motion, as ``MotionPair.found``, that lays (C, 2) points over others."""
    if min(len(ours), len(theirs)) < MIN_PARTNERS:
        return None
    tree = cKDTree(theirs)
    D = np.eye(3)
    for reach, tukey in zip(
        np.geomspace(*REACH_M, ITERATIONS), np.geomspace(*TUKEY_M, ITERATIONS), strict=True
    ):
        placed = ours @ D[:2, :2].T + D[:2, 2]
        away, partner = tree.query(placed, distance_upper_bound=reach)
        found = np.isfinite(away)
        if found.sum() < MIN_PARTNERS:
            return None
        weight = np.clip(1 - (away[found] / tukey) ** 2, 0, None) ** 2
        p, q = placed[found], theirs[partner[found]]
        if (total := weight.sum()) < 1e-6:
            return None
        p_mean, q_mean = weight @ p / total, weight @ q / total
        p, q = p - p_mean, q - q_mean
        turn = np.arctan2(
            weight @ (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]), weight @ (p * q).sum(axis=1)
        )
        step = np.eye(3)
        step[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        step[:2, 2] = q_mean - step[:2, :2] @ p_mean
        D = step @ D
    return np.array([D[0, 2], D[1, 2], np.arctan2(D[1, 0], D[0, 0]) * ARM_M])


def _trace(plus: Transform | None, minus: Transform | None, step: float) -> Vector:
    if plus is None or minus is None:
        return np.full(3, np.nan)
    D = plus @ inverse(minus)
    return np.array([D[0, 3], D[1, 3], np.arctan2(D[1, 0], D[0, 0]) * ARM_M]) / (2 * step)


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionFit:
    """What explains how frames really fit together.

    Attributes:
        pairs: pairs of frames that could be laid over each other.
        delay_s: poses of so much later fit best: the log's poses are so much delayed.
        yaw_rad: the LiDAR is turned by so much about its vertical against what the log says.
        stretch: the motion is longer than stated by this share.
        errors: standard errors of these three, from scenes drawn again and again; infinite where
            the drives do not tell.
        noise_m: median of what remains between two frames.
    """

    pairs: int
    delay_s: float
    yaw_rad: float
    stretch: float
    errors: tuple[float, float, float]
    noise_m: float


def explain(pairs: Sequence[MotionPair]) -> MotionFit:
    """The least-squares explanation of all pairs, robust against pairs that were laid wrong."""
    usable = [pair for pair in pairs if np.isfinite(pair.traces).all()]
    blind = (np.inf,) * 3
    if not usable:
        noise = float(np.median([np.hypot(*p.found[:2]) for p in pairs])) if pairs else np.nan
        return MotionFit(
            pairs=len(pairs), delay_s=0, yaw_rad=0, stretch=0, errors=blind, noise_m=noise
        )
    A = np.array([pair.traces for pair in usable])  # (P, 3, 3)
    y = np.array([pair.found for pair in usable])  # (P, 3)
    scenes = np.unique([pair.scene_id for pair in usable], return_inverse=True)[1]
    x = _robust(A, y)
    left = y - A @ x
    rng = np.random.default_rng(0)
    n, draws = scenes.max() + 1, []
    # few scenes: draw pairs instead
    group = scenes if n >= 8 else np.arange(len(usable))
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    for _ in range(100):
        chosen = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        draws.append(_robust(A[chosen], y[chosen]))
    errors = np.std(draws, axis=0) if len(members) >= 4 else np.full(3, np.inf)
    return MotionFit(
        pairs=len(pairs),
        delay_s=float(x[0]),
        yaw_rad=float(x[1]),
        stretch=float(x[2]),
        errors=(float(errors[0]), float(errors[1]), float(errors[2])),
        noise_m=float(np.median(np.hypot(left[:, 0], left[:, 1]))),
    )


def _robust(A: Vector, y: Vector) -> Vector:
    """Iterated weighted least squares (Cauchy) of (P, 3) values by (P, 3, 3) traces."""
    weight = np.ones(y.shape)
    x = np.zeros(3)
    prior = np.diag([1e-3, 1e-3, 1e-3])  # leaves at 0 what nothing tells
    for _ in range(8):
        x = np.linalg.solve(
            np.einsum("pci,pc,pcj->ij", A, weight, A) + prior,
            np.einsum("pci,pc,pc->i", A, weight, y),
        )
        left = y - A @ x
        scale = np.maximum(1.48 * np.median(np.abs(left), axis=0), 0.01)
        weight = 1 / (1 + (left / scale) ** 2)
    return x
