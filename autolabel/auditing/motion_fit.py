"""What is wrong with poses and LiDAR extrinsics, from how frames really fit together.

The upright structure of two frames about a second apart is laid over each other in the plane
(iterated closest points with a robust weight). What that adds to the stated motion is explained by
each of five causes: poses of another time, a LiDAR turned about its vertical, a motion of another
length, a LiDAR that sits farther left or forward. Each leaves its own trace: a delay shows where
the vehicle turns or changes its speed, a turned LiDAR as a drift aside on every straight, a wrong
length as a drift along it, a moved LiDAR where the vehicle turns, by as much as it turns. Which of
them it is, pairs tell that had no part in the fit. What none of them explains is noise of the
poses: an error of one pose throws the pair before it one way and the pair after it the other.

Legend: P pairs, C columns (``datasets.log_checks.ground.columns``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from datasets.frames import Frame
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.log_checks.ground import spread
from datasets.log_checks.motion import sweeps_of

APART_S, MAX_APART_S, MOVED_M = 0.95, 1.6, 1.5
PAIRS = 12
MIN_PARTNERS = 12
REACH_M = (1.5, 0.25)
TUKEY_M = (1.2, 0.2)
ITERATIONS = 15
Cause = Literal["delay", "turn", "stretch", "left", "forward"]
CAUSES: tuple[Cause, ...] = ("delay", "turn", "stretch", "left", "forward")
STEP = np.array([0.25, np.radians(0.2), 0.01, 0.05, 0.05])
"""Amounts of the causes, by which their traces are found: seconds, radians, share, metres. That of
the delay is long, for noise of neighbouring poses must not look like a motion."""
MIN_SCALE_M = 0.02
"""What remains between two right frames, at least, when explanations are compared."""
FOLDS = 10
MIN_PAIRS = 4
"""Fewer pairs are not explained: the causes would fit anything."""
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
        traces: (3, causes) what would be found for one unit of each of ``CAUSES``: [component,
            cause]. A column of NaN: the cause cannot be told here.
        tokens: of the earlier and the later frame.
        yaw_rad: by which the vehicle turns between them, to the left.
    """

    scene_id: str
    found: Vector
    traces: Vector
    tokens: tuple[str, str] = ("", "")
    yaw_rad: float = 0.0


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
    if (motion := lay_over(apply(T_b_a, columns_a)[:, :2], columns_b[:, :2])) is None:
        return None
    T_a_lidar, T_b_lidar = a.lidar.T_ego_lidar, b.lidar.T_ego_lidar

    def delayed(seconds: float) -> Transform | None:
        first = pose_near(trajectory, a.timestamp_us + seconds * 1e6, a)
        second = pose_near(trajectory, b.timestamp_us + seconds * 1e6, b)
        return None if first is None or second is None else inverse(second) @ first

    def turned(radians: float) -> Transform:
        turn = from_yaw(radians, [0, 0, 0])
        back = T_b_lidar @ inverse(turn) @ inverse(T_b_lidar)
        return np.asarray(back @ T_b_a @ T_a_lidar @ turn @ inverse(T_a_lidar))

    def stretched(share: float) -> Transform:
        T = T_b_a.copy()
        T[:3, 3] *= 1 + share
        return T

    def moved(axis: int) -> Callable[[float], Transform]:
        def by(metres: float) -> Transform:
            step = np.eye(4)
            step[axis, 3] = metres
            return np.asarray(inverse(step) @ T_b_a @ step)

        return by

    causes: tuple[Callable[[float], Transform | None], ...]
    causes = (delayed, turned, stretched, moved(1), moved(0))
    traces = [
        _trace(cause(step), cause(-step), step) for cause, step in zip(causes, STEP, strict=True)
    ]
    return MotionPair(
        scene_id=a.scene_id,
        found=motion,
        traces=np.stack(traces, axis=1),
        tokens=(a.token, b.token),
        yaw_rad=float(np.arctan2(T_b_a[0, 1], T_b_a[0, 0])),
    )


def pose_near(trajectory: Trajectory, us: float, frame: Frame) -> Transform | None:
    """The pose at a time near a frame; beyond the ends of a drive the vehicle goes on as it went
    before them. None where the drive is too short for that."""
    if (T := trajectory.at(us)) is not None:
        return T
    T, mirrored = trajectory.at(frame.timestamp_us), trajectory.at(2 * frame.timestamp_us - us)
    return None if T is None or mirrored is None else T @ inverse(mirrored) @ T


def lay_over(points: Vector, target: Vector) -> Vector | None:
    """The planar motion, as ``MotionPair.found``, that lays (C, 2) points over others."""
    if min(len(points), len(target)) < MIN_PARTNERS:
        return None
    tree = cKDTree(target)
    D = np.eye(3)
    for reach, tukey in zip(
        np.geomspace(*REACH_M, ITERATIONS), np.geomspace(*TUKEY_M, ITERATIONS), strict=True
    ):
        placed = points @ D[:2, :2].T + D[:2, 2]
        distance, partner = tree.query(placed, distance_upper_bound=reach)
        matched = np.isfinite(distance)
        if matched.sum() < MIN_PARTNERS:
            return None
        weight = np.clip(1 - (distance[matched] / tukey) ** 2, 0, None) ** 2
        p, q = placed[matched], target[partner[matched]]
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
        amounts: of each of ``CAUSES``, were it the only one: poses of so many seconds later fit
            best, the LiDAR is turned by so many radians or sits so many metres farther left or
            forward than the log says, the motion is longer than stated by this share.
        errors: standard errors of these, from pairs drawn again and again (all of a scene at once
            where there are many scenes); infinite where the drives do not tell.
        best: the cause that explains best the pairs that had no part in its fit.
        gain: by how much it raises the log-likelihood of these pairs over no cause.
        lead: by how many standard errors it explains them better than the runner-up does, and
            than no cause; ``rest``: by how many all causes together explain them better still.
        noise_m: median of what remains between two frames under all causes together; of too few
            pairs to explain, of what was found.
        chain: correlation of what remains of pairs that share a frame, -0.5 for noise of poses and
            0 for other errors, and its standard error; NaN where no pairs share a frame.
    """

    pairs: int
    amounts: dict[Cause, float]
    errors: dict[Cause, float]
    best: Cause
    gain: float
    lead: float
    rest: float
    noise_m: float
    chain: tuple[float, float]


def explain(pairs: Sequence[MotionPair]) -> MotionFit:
    """Compare the explanations of all pairs, robust against pairs that were laid wrong."""
    usable = [pair for pair in pairs if np.isfinite(pair.traces).all()]
    if len(usable) < MIN_PAIRS:
        noise = float(np.median([np.hypot(*p.found[:2]) for p in pairs])) if pairs else np.nan
        return MotionFit(
            pairs=len(pairs),
            amounts=dict.fromkeys(CAUSES, 0.0),
            errors=dict.fromkeys(CAUSES, np.inf),
            best=CAUSES[0],
            gain=0.0,
            lead=0.0,
            rest=0.0,
            noise_m=noise,
            chain=(np.nan, np.nan),
        )
    A = np.array([pair.traces for pair in usable])  # (P, 3, causes)
    y = np.array([pair.found for pair in usable])  # (P, 3)
    scenes = np.unique([pair.scene_id for pair in usable], return_inverse=True)[1]
    # few scenes: pairs instead
    group = scenes if scenes.max() + 1 >= 8 else np.arange(len(usable))
    left = y - A @ _robust(A, y)
    amounts = [float(_robust(A[:, :, [k]], y)[0]) for k in range(len(CAUSES))]
    errors = _errors(A, y, group)
    gains = _gains(A, y, group, np.maximum(_scale(left), MIN_SCALE_M))
    best = int(gains[: len(CAUSES)].sum(axis=1).argmax())
    rivals = [gains[k] for k in range(len(CAUSES)) if k != best] + [np.zeros(len(usable))]
    return MotionFit(
        pairs=len(pairs),
        amounts=dict(zip(CAUSES, amounts, strict=True)),
        errors=dict(zip(CAUSES, errors, strict=True)),
        best=CAUSES[best],
        gain=float(gains[best].sum()),
        lead=min(sigmas(gains[best] - rival) for rival in rivals),
        rest=sigmas(gains[-1] - gains[best]),
        noise_m=float(np.median(np.hypot(left[:, 0], left[:, 1]))),
        chain=_chain(usable, left),
    )


def sigmas(gains: Vector) -> float:
    """How many standard errors the mean of (N,) is above 0; 0 of fewer than two."""
    if len(gains) < 2 or not gains.any():
        return 0.0
    error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    return float(gains.mean()) / max(error, 1e-9)


def _errors(A: Vector, y: Vector, group: NDArray[np.int64]) -> list[float]:
    """Of each cause alone (bootstrap over groups)."""
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    if len(members) < 4:
        return [np.inf] * len(CAUSES)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(50):
        drawn = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        draws.append([float(_robust(A[drawn][:, :, [k]], y[drawn])[0]) for k in range(len(CAUSES))])
    return [float(error) for error in np.std(draws, axis=0)]


def _gains(A: Vector, y: Vector, group: NDArray[np.int64], scale: Vector) -> Vector:
    """(causes + 1, P): by how much each cause, and last all together, raises the log-likelihood
    (Cauchy) of pairs that had no part in its fit."""
    fold = np.unique(group, return_inverse=True)[1] % FOLDS
    columns = [[k] for k in range(len(CAUSES))] + [list(range(len(CAUSES)))]
    gains = np.zeros((len(columns), len(y)))
    if fold.max() == 0:
        return gains
    for f in range(fold.max() + 1):
        held, fitted = fold == f, fold != f
        for k, cause in enumerate(columns):
            x = _robust(A[fitted][:, :, cause], y[fitted])
            left = y[held] - A[held][:, :, cause] @ x
            before, after = ((v / scale) ** 2 for v in (y[held], left))
            gains[k, held] = (np.log1p(before) - np.log1p(after)).sum(axis=1)
    return gains


def _chain(pairs: Sequence[MotionPair], left: Vector) -> tuple[float, float]:
    """Correlation of (P, 3) residuals of pairs of which one ends where the other begins."""
    ends = {(pair.scene_id, pair.tokens[1]): k for k, pair in enumerate(pairs)}
    limit = 3 * np.maximum(_scale(left), 1e-6)  # pairs that were laid wrong must not decide
    left = np.clip(left, -limit, limit)
    products, squares = [], []
    for k, pair in enumerate(pairs):
        if not pair.tokens[0] or (j := ends.get((pair.scene_id, pair.tokens[0]))) is None:
            continue
        turn = from_yaw(pair.yaw_rad, [0, 0, 0])[:3, :3]
        before, after = turn @ left[j], left[k]  # both in the later frame
        products.append(before * after)
        squares.append((before**2 + after**2) / 2)
    if not products:
        return np.nan, np.nan
    product, square = np.concatenate(products), np.concatenate(squares)
    total = max(float(square.sum()), 1e-12)
    return float(product.sum()) / total, float(np.sqrt((product**2).sum())) / total


def _scale(left: Vector) -> Vector:
    """(3,) robust spread of (P, 3) residuals."""
    out: Vector = 1.48 * np.median(np.abs(left), axis=0)
    return out


def _robust(A: Vector, y: Vector) -> Vector:
    """Iterated weighted least squares (Cauchy) of (P, 3) values by (P, 3, causes) traces."""
    weight = np.ones(y.shape)
    x = np.zeros(A.shape[2])
    prior = 1e-3 * np.eye(A.shape[2])  # leaves at 0 what nothing tells
    for _ in range(8):
        x = np.linalg.solve(
            np.einsum("pci,pc,pcj->ij", A, weight, A) + prior,
            np.einsum("pci,pc,pc->i", A, weight, y),
        )
        left = y - A @ x
        weight = 1 / (1 + (left / np.maximum(_scale(left), 0.01)) ** 2)
    return x
