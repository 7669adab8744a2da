"""What a log is made of: scenes of frames, each with cameras and LiDAR sweeps.

The ego frame is X forward, Y left, Z up. Every pose of a ``Frame`` is given in the ego frame of
its key LiDAR sweep, so ego motion between sensors is already part of ``T_ego_camera`` and
``T_ego_lidar``. The dataclasses hold places and geometry; pixels and points are read on demand
through the ``SceneSource``, so that camera-only users open no LiDAR file.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError
from datasets.geometry.grid import Triple
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.names import check_scene, check_token


def _check_rigid(T: Transform, *, what: str, token: str) -> None:
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise SceneError(where=what, frame=token, rule="the pose must be a finite 4x4 matrix")
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
        raise SceneError(where=what, frame=token, rule="the pose's rotation is not a rotation")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraView:
    """One picture and where it was taken.

    Attributes:
        name: channel, e.g. ``CAM_FRONT``.
        path: the encoded picture.
        timestamp_us: capture time.
        width, height: pixels of the stored picture.
        intrinsics: (3, 3) pinhole matrix, pixels of the stored picture.
        T_ego_camera: camera (z forward, x right, y down) at capture time to the frame's ego.
        T_ego_vehicle: the vehicle at capture time to the frame's ego; identity where the log
            does not tell. Already part of ``T_ego_camera``.

    Raises:
        SceneError: the intrinsics or a pose are not finite or not what they must be.
    """

    name: str
    path: Path
    timestamp_us: int
    width: int
    height: int
    intrinsics: NDArray[np.float64]
    T_ego_camera: Transform
    T_ego_vehicle: Transform = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        for T in (self.T_ego_camera, self.T_ego_vehicle):
            _check_rigid(T, what=self.name, token=self.path.name)
        K = self.intrinsics
        if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise SceneError(
                where=self.name,
                frame=self.path.name,
                rule="intrinsics must be a finite 3x3 matrix with positive focal lengths",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LidarSweep:
    """One turn of one LiDAR.

    Attributes:
        path: the point file.
        timestamp_us: capture time.
        T_ego_lidar: LiDAR at capture time to the frame's ego.
        lidar: which LiDAR of the vehicle measured it.
        T_ego_vehicle: the vehicle at capture time to the frame's ego. Already part of
            ``T_ego_lidar``. None where the log does not tell: see ``Frame.vehicle_at``.

    Raises:
        SceneError: a pose is not a finite rigid transform.
    """

    path: Path
    timestamp_us: int
    T_ego_lidar: Transform
    lidar: str = "lidar"
    T_ego_vehicle: Transform | None = None

    def __post_init__(self) -> None:
        _check_rigid(self.T_ego_lidar, what="LiDAR pose", token=self.path.name)
        if self.T_ego_vehicle is not None:
            _check_rigid(self.T_ego_vehicle, what="vehicle pose", token=self.path.name)


VEHICLE_M: tuple[Triple, Triple] = ((-1.2, -1.1, -0.5), (3.6, 1.1, 2.2))
"""Lower and upper corner of a car with its sensors on the roof, in the vehicle frame (origin on the
ground below the rear axle): nuScenes' Renault Zoe with its rack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A key-frame: what the networks see and what one voxel grid describes.

    Attributes:
        token: unique name of the key-frame.
        timestamp_us: time of the key LiDAR sweep.
        T_global_ego: ego pose at that time.
        cameras: any number of views.
        lidar: the key sweep; None for a log without LiDAR.
        companions: sweeps of the vehicle's other LiDARs at the key sweep's moment.
        past_sweeps: earlier sweeps, newest first; may be shorter than asked for. Of several LiDARs
            each has its own.
        future_sweeps: later sweeps, soonest first (offboard use only).
        vehicle_m: lower and upper corner of the vehicle itself, vehicle frame. Returns from inside
            come from the vehicle.

    Raises:
        SceneError: the token cannot be a file name, the pose is not a finite rigid transform, or
            the corners are not in order.
    """

    scene_id: str
    token: str
    timestamp_us: int
    T_global_ego: Transform
    cameras: tuple[CameraView, ...]
    lidar: LidarSweep | None
    companions: tuple[LidarSweep, ...] = ()
    past_sweeps: tuple[LidarSweep, ...] = ()
    future_sweeps: tuple[LidarSweep, ...] = ()
    vehicle_m: tuple[Triple, Triple] = VEHICLE_M

    def __post_init__(self) -> None:
        check_token(self.token, where=f"scene {self.scene_id}")
        _check_rigid(self.T_global_ego, what="ego pose", token=self.token)
        if not np.less(*self.vehicle_m).all():
            raise SceneError(
                where=f"scene {self.scene_id}",
                frame=self.token,
                rule=f"the corners of the vehicle are not in order: {self.vehicle_m}",
            )

    @property
    def moment(self) -> tuple[LidarSweep, ...]:
        """The key sweep and those of the other LiDARs at its time; empty without LiDAR."""
        return () if self.lidar is None else (self.lidar, *self.companions)

    @property
    def sweeps(self) -> tuple[LidarSweep, ...]:
        """Every sweep: those of the moment, then past ones, then future ones."""
        return (*self.moment, *self.past_sweeps, *self.future_sweeps)

    def vehicle_at(self, sweep: LidarSweep) -> Transform:
        """The vehicle at a sweep's capture time to the frame's ego.

        Where the log does not tell, the sweep's LiDAR is thought mounted like the key LiDAR.
        """
        if sweep.T_ego_vehicle is not None:
            return sweep.T_ego_vehicle
        if self.lidar is None or sweep is self.lidar:
            return np.eye(4)
        return sweep.T_ego_lidar @ inverse(self.lidar.T_ego_lidar) @ self.vehicle_at(self.lidar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A drive: frames in time order.

    Raises:
        SceneError: the id cannot be a folder name, there is no frame, or the frames are not in
            strict time order.
    """

    scene_id: str
    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        check_scene(self.scene_id, where="the log")
        if not self.frames:
            raise SceneError(where=f"scene {self.scene_id}", rule="it has no frame")
        for a, b in zip(self.frames, self.frames[1:], strict=False):
            if b.timestamp_us <= a.timestamp_us:
                raise SceneError(
                    where=f"scene {self.scene_id}",
                    frame=b.token,
                    rule=f"time runs backwards: {b.timestamp_us} us after {a.timestamp_us} us",
                )


def earlier_frames(frames: Sequence[Frame], k: int, count: int) -> tuple[Frame, ...]:
    """The ``count`` key-frames before ``frames[k]``, nearest first.

    Where the scene has none, ``frames[k]`` stands in for it, as in BEVDet4D's published loader.
    """
    return tuple(frames[k - i if i <= k else k] for i in range(1, count + 1))


class SceneSource(Protocol):
    """A log on disk or in an object store. Cheap to construct in every worker; knows its own file
    formats."""

    name: str
    licence: str

    def scene_ids(self, split: str) -> tuple[str, ...]:
        """Scene ids of a split in a fixed order. Raises ``SetupError`` for an unknown split."""
        ...

    def n_frames(self, scene_id: str) -> int:
        """Frames of a scene, as cheaply as they can be counted. Raises as ``scene``."""
        ...

    def scene(self, scene_id: str) -> Scene:
        """One scene. Raises ``SceneError`` for bad data, ``KeyError`` for an unknown id."""
        ...

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        """(H, W, 3) RGB. Raises ``SceneError`` if it cannot be decoded or has another size."""
        ...

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        """(N, 4) x, y, z metres in the LiDAR frame and raw intensity 0..255, of the returns that
        measure something (``datasets.returns``).

        Raises:
            SceneError: missing or truncated file, or too many values that are not finite.
        """
        ...

    def fingerprint(self, scene_id: str) -> str:
        """Hash of what determines the scene's inputs; part of the run id."""
        ...


PointFeatures = Literal["intensity_lag", "tanh_intensity_elongation"]
"""What a point has besides its place; see ``points_in_ego``."""


@runtime_checkable
class ElongationSource(Protocol):
    """A log whose LiDAR also records how much longer than sent a pulse comes back (Waymo)."""

    def read_points_and_elongation(self, sweep: LidarSweep) -> NDArray[np.float32]:
        """(N, 5): the points of ``read_points`` and their elongation. Raises as there."""
        ...


@runtime_checkable
class KeepsDropOuts(Protocol):
    """A log whose files hold returns at the sensor's origin, which published pipelines read."""

    def read_all_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        """(N, 4): the points of ``read_points`` and those at the origin. Raises as there."""
        ...


def elongation_source(source: SceneSource, features: PointFeatures) -> ElongationSource | None:
    """The log, for features that need elongation; None for others.

    Raises:
        SetupError: they need it, and the log has none.
    """
    if features == "intensity_lag":
        return None
    if not isinstance(source, ElongationSource):
        raise SetupError(
            "the network reads the elongation of LiDAR returns, which Waymo records and a log of "
            f"kind {source.name!r} does not"
        )
    return source


PUBLISHED_NEAR_M = 1.0
"""The published pipelines cut returns of past sweeps nearer to the sensor than this in x and y."""


def nearest_of_each(sweeps: Sequence[LidarSweep], limit: int) -> tuple[LidarSweep, ...]:
    """The first ``limit`` sweeps of each LiDAR, in the order given."""
    counts: Counter[str] = Counter()
    chosen = []
    for sweep in sweeps:
        counts[sweep.lidar] += 1
        if counts[sweep.lidar] <= limit:
            chosen.append(sweep)
    return tuple(chosen)


def points_in_ego(
    source: SceneSource,
    frame: Frame,
    *,
    past: int = 0,
    future: int = 0,
    vehicle: Literal["cut", "kept", "published"] = "cut",
    features: PointFeatures = "intensity_lag",
) -> NDArray[np.float32]:
    """The sweeps of a frame's moment and their neighbours in the frame's ego frame.

    Args:
        past, future: so many sweeps of each LiDAR beside those of the moment.
        vehicle: returns from inside ``frame.vehicle_m`` are cut or kept. ``published``: as in the
            published pipelines, those of the moment are kept, even at the sensor's origin, and
            those of neighbours are cut within 1 m of their sensor in x and y.

    Returns:
        (N, 6) float32: x, y, z metres (ego), raw intensity, time lag ``t_key - t_sweep`` in
        seconds (positive for past sweeps), and the place of the return's sweep in
        ``frame.sweeps``. With ``tanh_intensity_elongation`` columns 3 and 4 are the hyperbolic
        tangents of intensity and elongation instead. The key sweep comes first.

    Raises:
        SceneError: the frame has no LiDAR, or a point file is bad.
        SetupError: the log does not record the features.
    """
    elongated = elongation_source(source, features)
    if frame.lidar is None:
        raise SceneError(where=f"scene {frame.scene_id}", frame=frame.token, rule="it has no LiDAR")
    number = {id(sweep): i for i, sweep in enumerate(frame.sweeps)}
    neighbours = (
        *nearest_of_each(frame.past_sweeps, past),
        *nearest_of_each(frame.future_sweeps, future),
    )
    parts = []
    for sweep in (*frame.moment, *neighbours):
        if elongated is None:
            if vehicle == "published" and isinstance(source, KeepsDropOuts):
                points = source.read_all_points(sweep)
            else:
                points = source.read_points(sweep)
        else:
            points = elongated.read_points_and_elongation(sweep)
        if vehicle == "published" and number[id(sweep)] >= len(frame.moment):
            x, y = np.abs(points[:, 0]), np.abs(points[:, 1])
            points = points[(x >= PUBLISHED_NEAR_M) | (y >= PUBLISHED_NEAR_M)]
        elif vehicle == "cut":
            T_vehicle_lidar = inverse(frame.vehicle_at(sweep)) @ sweep.T_ego_lidar
            own = _inside(points, T_vehicle_lidar, frame.vehicle_m)
            points = np.delete(points, own, axis=0) if len(own) else points
        out = np.empty((len(points), 6), np.float32)
        T = sweep.T_ego_lidar
        out[:, :3] = points[:, :3].astype(np.float64) @ T[:3, :3].T + T[:3, 3]
        if elongated is None:
            out[:, 3] = points[:, 3]
            out[:, 4] = (frame.lidar.timestamp_us - sweep.timestamp_us) * 1e-6
        else:
            np.tanh(points[:, 3:], out=out[:, 3:5])
        out[:, 5] = number[id(sweep)]
        parts.append(out)
    return np.concatenate(parts)


def of_the_moment(frame: Frame, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which points (N, 6) of ``points_in_ego`` the frame's own moment gave, (N,)."""
    mask: NDArray[np.bool_] = points[:, 5] < len(frame.moment)
    return mask


def from_vehicle(frame: Frame, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which points (N, 6) of ``points_in_ego`` come from the vehicle itself, (N,)."""
    out = np.zeros(len(points), np.bool_)
    for i, sweep in enumerate(frame.sweeps):
        own = points[:, 5] == i
        out[own] = in_box(apply(inverse(frame.vehicle_at(sweep)), points[own, :3]), frame.vehicle_m)
    return out


def _inside(
    points: NDArray[np.float32],  # (N, 3 or more) LiDAR frame
    T_vehicle_lidar: Transform,
    box_m: tuple[Triple, Triple],
) -> NDArray[np.int64]:
    """Which points lie in a box of the vehicle frame; only those near it are looked at closely."""
    corners = np.array(list(itertools.product(*zip(*box_m, strict=True))))
    corners_lidar = apply(inverse(T_vehicle_lidar), corners)
    low, high = corners_lidar.min(axis=0), corners_lidar.max(axis=0)
    x, y = points[:, 0], points[:, 1]
    near = np.flatnonzero((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
    return near[in_box(apply(T_vehicle_lidar, points[near, :3]), box_m)]


def in_box(points: NDArray[Any], box_m: tuple[Triple, Triple]) -> NDArray[np.bool_]:
    """Which points (N, 3) lie between two corners, (N,)."""
    inside: NDArray[np.bool_] = ((points > box_m[0]) & (points < box_m[1])).all(axis=1)
    return inside


def in_lidar_frame(frame: Frame) -> Frame:
    """The same frame with the key LiDAR's own axes (nuScenes: x right, y forward) for an ego frame.

    All that is named ``ego`` in it (``T_global_ego``, ``T_ego_camera``, ...) then means the LiDAR.

    Raises:
        SceneError: the frame has no LiDAR.
    """
    if frame.lidar is None:
        raise SceneError(where=f"scene {frame.scene_id}", frame=frame.token, rule="it has no LiDAR")
    T_lidar_ego = inverse(frame.lidar.T_ego_lidar)

    def moved(sweep: LidarSweep) -> LidarSweep:
        return replace(
            sweep,
            T_ego_lidar=T_lidar_ego @ sweep.T_ego_lidar,
            T_ego_vehicle=T_lidar_ego @ frame.vehicle_at(sweep),
        )

    return replace(
        frame,
        T_global_ego=frame.T_global_ego @ frame.lidar.T_ego_lidar,
        cameras=tuple(
            replace(
                view,
                T_ego_camera=T_lidar_ego @ view.T_ego_camera,
                T_ego_vehicle=T_lidar_ego @ view.T_ego_vehicle,
            )
            for view in frame.cameras
        ),
        lidar=moved(frame.lidar),
        companions=tuple(moved(sweep) for sweep in frame.companions),
        past_sweeps=tuple(moved(sweep) for sweep in frame.past_sweeps),
        future_sweeps=tuple(moved(sweep) for sweep in frame.future_sweeps),
    )
