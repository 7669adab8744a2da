"""Logs and labels with faults put into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolabel.auditing.motion_fit import Trajectory
from datasets.frames import CameraView, Frame, LidarSweep, Scene, SceneSource
from datasets.geometry.transforms import Transform, about_axis, from_yaw, inverse
from datasets.labels.label_set import LabeledScene, LabelSet
from datasets.labels.voxel_labels import FrameLabels
from datasets.sources.scene_files import scene_fingerprint

Frames = tuple[Frame, ...]
Change = Callable[[Frames], Frames]
WINDOW_US = 100_000


class ChangedLog:
    """A log with a fault in what it states; files and times stay."""

    def __init__(self, log: SceneSource, change: Change) -> None:
        self.log, self.change = log, change
        self.name, self.licence = log.name, log.licence

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return self.log.scene_ids(split)

    def n_frames(self, scene_id: str) -> int:
        return self.log.n_frames(scene_id)

    def scene(self, scene_id: str) -> Scene:
        scene = self.log.scene(scene_id)
        return replace(scene, frames=self.change(scene.frames))

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return self.log.read_image(view)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        return self.log.read_points(sweep)

    def fingerprint(self, scene_id: str) -> str:
        return scene_fingerprint(self.scene(scene_id))


def each_sweep(frame: Frame, change: Callable[[LidarSweep], LidarSweep]) -> Frame:
    return replace(
        frame,
        lidar=change(frame.lidar) if frame.lidar else None,
        companions=tuple(map(change, frame.companions)),
        past_sweeps=tuple(map(change, frame.past_sweeps)),
        future_sweeps=tuple(map(change, frame.future_sweeps)),
    )


def lidar_turned(axis: int, degrees: float) -> Change:
    def moved(sweep: LidarSweep) -> LidarSweep:
        return replace(sweep, T_ego_lidar=sweep.T_ego_lidar @ about_axis(axis, degrees))

    return lambda frames: tuple(each_sweep(frame, moved) for frame in frames)


def camera_turned(name: str, axis: int, degrees: float) -> Change:
    def moved(view: CameraView) -> CameraView:
        T = view.T_ego_camera @ about_axis(axis, degrees)
        return replace(view, T_ego_camera=T) if view.name == name else view

    return lambda frames: tuple(replace(f, cameras=tuple(map(moved, f.cameras))) for f in frames)


def lidar_moved(*, forward_m: float = 0.0, left_m: float = 0.0, up_m: float = 0.0) -> Change:
    """The LiDAR's stated place is off by so much along the vehicle's axes."""

    def changed(frame: Frame) -> Frame:
        assert frame.lidar is not None
        # the key sweep's axes are the vehicle's, and every turn of it is mounted alike
        step = np.eye(4)
        step[:3, 3] = frame.lidar.T_ego_lidar[:3, :3].T @ [forward_m, left_m, up_m]
        return each_sweep(frame, lambda s: replace(s, T_ego_lidar=s.T_ego_lidar @ step))

    return lambda frames: tuple(map(changed, frames))


def focal_length_scaled(factor: float, name: str | None = None) -> Change:
    """The stated focal lengths of one camera, or of all, are so many times the true ones."""

    def changed(view: CameraView) -> CameraView:
        if name is not None and view.name != name:
            return view
        return replace(
            view, intrinsics=np.diag([factor, factor, 1.0]) @ view.intrinsics + centre(view)
        )

    def centre(view: CameraView) -> NDArray[np.float64]:
        keep = np.zeros((3, 3))
        keep[:2, 2] = (1 - factor) * view.intrinsics[:2, 2]
        return keep

    return lambda frames: tuple(replace(f, cameras=tuple(map(changed, f.cameras))) for f in frames)


def cameras_mounted(mount: Callable[[Transform], Transform]) -> Change:
    """The stated ``T_vehicle_camera`` of all cameras are in another convention."""

    def changed(view: CameraView) -> CameraView:
        T_vehicle_camera = inverse(view.T_ego_vehicle) @ view.T_ego_camera
        return replace(view, T_ego_camera=view.T_ego_vehicle @ mount(T_vehicle_camera))

    return lambda frames: tuple(replace(f, cameras=tuple(map(changed, f.cameras))) for f in frames)


def lidar_inverted() -> Change:
    """The stated ``T_vehicle_lidar`` of all LiDARs are inverted."""

    def changed(frame: Frame) -> Frame:
        def inverted(sweep: LidarSweep) -> LidarSweep:
            T_ego_vehicle = frame.vehicle_at(sweep)
            T_vehicle_lidar = inverse(T_ego_vehicle) @ sweep.T_ego_lidar
            return replace(sweep, T_ego_lidar=T_ego_vehicle @ inverse(T_vehicle_lidar))

        return each_sweep(frame, inverted)

    return lambda frames: tuple(map(changed, frames))


def cameras_late(seconds: float, name: str | None = None) -> Change:
    """Images of one camera, or of all, were taken so long after what the log says."""

    def changed(frames: Frames) -> Frames:
        trajectory = Trajectory(frames)

        def earlier(frame: Frame, view: CameraView) -> CameraView:
            if name is not None and view.name != name:
                return view
            time_us = view.timestamp_us
            T_now, then = trajectory.at(time_us), trajectory.at(time_us - seconds * 1e6)
            if then is None:  # before the first sweep: as the vehicle went after it
                first = trajectory.start_us
                a, b = trajectory.at(first), trajectory.at(first + WINDOW_US)
                assert a is not None and b is not None
                then = a.copy()
                then[:3, 3] += (b[:3, 3] - a[:3, 3]) * (time_us - seconds * 1e6 - first) / WINDOW_US
            if T_now is None:
                T_now = frame.T_global_ego @ view.T_ego_vehicle
            step = inverse(frame.T_global_ego) @ then @ inverse(T_now) @ frame.T_global_ego
            return replace(
                view,
                T_ego_vehicle=step @ view.T_ego_vehicle,
                T_ego_camera=step @ view.T_ego_camera,
            )

        return tuple(
            replace(f, cameras=tuple(earlier(f, view) for view in f.cameras)) for f in frames
        )

    return changed


def cameras_swapped(a: str, b: str) -> Change:
    def changed(frame: Frame) -> Frame:
        paths = {view.name: view.path for view in frame.cameras}
        other = {a: b, b: a}
        views = (replace(v, path=paths[other.get(v.name, v.name)]) for v in frame.cameras)
        return replace(frame, cameras=tuple(views))

    return lambda frames: tuple(map(changed, frames))


def poses_delayed(seconds: float) -> Change:
    def changed(frames: Frames) -> Frames:
        trajectory = Trajectory(frames)

        def pose(time_us: int) -> Transform:
            then = time_us - seconds * 1e6
            if (T := trajectory.at(then)) is not None:
                return T
            # before the first sweep: as the vehicle went after it
            first = trajectory.start_us
            a, b = trajectory.at(first), trajectory.at(first + WINDOW_US)
            assert a is not None and b is not None
            T = a.copy()
            T[:3, 3] += (b[:3, 3] - a[:3, 3]) * (then - first) / WINDOW_US
            return T

        out = []
        for frame in frames:
            assert frame.lidar is not None
            T_key = pose(frame.timestamp_us)
            T_ego_global = inverse(T_key)

            def swept(
                sweep: LidarSweep, T: Transform = T_ego_global, frame: Frame = frame
            ) -> LidarSweep:
                T_vehicle_lidar = inverse(frame.vehicle_at(sweep)) @ sweep.T_ego_lidar
                T_ego_vehicle = T @ pose(sweep.timestamp_us)
                return replace(
                    sweep,
                    T_ego_lidar=T_ego_vehicle @ T_vehicle_lidar,
                    T_ego_vehicle=T_ego_vehicle,
                )

            views = []
            for view in frame.cameras:
                T_vehicle_camera = inverse(view.T_ego_vehicle) @ view.T_ego_camera
                T_ego_vehicle = T_ego_global @ pose(view.timestamp_us)
                T = T_ego_vehicle @ T_vehicle_camera
                views.append(replace(view, T_ego_vehicle=T_ego_vehicle, T_ego_camera=T))
            moved = each_sweep(frame, swept)
            out.append(replace(moved, T_global_ego=T_key, cameras=tuple(views)))
        return tuple(out)

    return changed


def poses_noisy(metres: float, degrees: float) -> Change:
    def changed(frames: Frames) -> Frames:
        rng = np.random.default_rng(abs(hash(frames[0].timestamp_us)) % 2**32)
        errors: dict[int, Transform] = {}

        def error(time_us: int) -> Transform:
            if time_us not in errors:
                x, y = rng.normal(0, metres, 2)
                errors[time_us] = from_yaw(np.radians(rng.normal(0, degrees)), [x, y, 0])
            return errors[time_us]

        out = []
        for frame in frames:
            T_own = error(frame.timestamp_us)

            def swept(sweep: LidarSweep, T: Transform = T_own, frame: Frame = frame) -> LidarSweep:
                T_now = inverse(T) @ error(sweep.timestamp_us)
                return replace(
                    sweep,
                    T_ego_lidar=T_now @ sweep.T_ego_lidar,
                    T_ego_vehicle=T_now @ frame.vehicle_at(sweep),
                )

            moved = each_sweep(frame, swept)
            out.append(replace(moved, T_global_ego=frame.T_global_ego @ T_own))
        return tuple(out)

    return changed


class ChangedLabels:
    """Labels with a fault in them."""

    def __init__(
        self,
        labels: LabelSet,
        *,
        shift: tuple[int, int, int] = (0, 0, 0),
        frames_late: int = 0,
        scenes_late: int = 0,
        mirrored: bool = False,
        of_log: LabelSet | None = None,
    ) -> None:
        """Args:
        of_log: the content comes from these labels, of scenes with the same place in their log.
        """
        self.labels, self.header, self.mirrored = labels, labels.header, mirrored
        self.shift, self.frames_late, self.scenes_late = shift, frames_late, scenes_late
        self._content = of_log or labels

    def scene_ids(self) -> tuple[str, ...]:
        return self.labels.scene_ids()

    def first_scene(self) -> str:
        return self.labels.first_scene()

    def scene(self, scene_id: str) -> LabeledScene:
        place, ids = self.labels.scene_ids().index(scene_id), self._content.scene_ids()
        other = ids[(place + self.scenes_late) % len(ids)]
        return _ChangedScene(self, self.labels.scene(scene_id), self._content.scene(other))


class _ChangedScene:
    def __init__(self, changes: ChangedLabels, own: LabeledScene, content: LabeledScene) -> None:
        self._how, self._own, self._content = changes, own, content
        self.frame_tokens, self.timestamps_us = own.frame_tokens, own.timestamps_us
        self.T_global_grid, self.inputs = own.T_global_grid, own.inputs

    def __len__(self) -> int:
        return len(self.frame_tokens)

    def frame(self, k: int) -> FrameLabels:
        own = self._own.frame(k)
        last = len(self._content.frame_tokens) - 1
        other = self._content.frame(min(k + self._how.frames_late, last))
        voxels: dict[str, Any] = {
            name: np.roll(self._turned(getattr(other, name)), self._how.shift, axis=(0, 1, 2))
            for name in ("semantics", "confidence", "mask")
        }
        return replace(own, **voxels)

    def _turned(self, voxels: NDArray[Any]) -> NDArray[Any]:
        return voxels[:, ::-1] if self._how.mirrored else voxels
