"""A synthetic log of realistic size without files, for benchmarks, exports and warm-up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.frames import CameraView, Frame, LidarSweep, Scene, earlier_frames
from datasets.geometry.transforms import Transform
from datasets.model_inputs import InputSpec, ModelInputs, collate, prepare_frame

YAWS_DEG = (55, 0, -55, 110, 180, -110)
LIDAR_HEIGHT_M = 1.84
BEAMS, AZIMUTHS = 32, 1080
KEY_FRAME_M, KEY_FRAME_US = 5.0, 500_000
"""What the car drives between key-frames."""
SWEEP_M, SWEEP_US = 0.5, 50_000


class ExampleLog:
    """One scene: six cameras around a car, noise as pictures, a 32-beam LiDAR among walls.

    Every key-frame has its own pictures and walls. Point counts and their spread are those of
    nuScenes: 34,560 rays a sweep, of which the ones into the sky do not return.

    Args:
        spec: the size of its pictures, which are not resized, and how many sweeps a frame has.
        frames: key-frames.
    """

    name = "example"
    licence = "CC0-1.0 (synthetic)"

    def __init__(self, spec: InputSpec, *, frames: int = 1, seed: int = 0) -> None:
        self.spec, self.frames, self.seed = spec, frames, seed

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("example",)

    def n_frames(self, scene_id: str) -> int:
        return self.frames

    def scene(self, scene_id: str) -> Scene:
        return Scene(scene_id=scene_id, frames=tuple(map(self._frame, range(self.frames))))

    def _frame(self, k: int) -> Frame:
        T_global_ego = np.eye(4)
        T_global_ego[0, 3] = KEY_FRAME_M * k
        time_us = KEY_FRAME_US * (k + 1)
        H, W = self.spec.height, self.spec.width
        focal = 1266.0 * W / 1600
        views = tuple(
            CameraView(
                name=f"CAM_{i}",
                path=Path(f"{k}/{i}"),
                timestamp_us=time_us,
                width=W,
                height=H,
                intrinsics=np.array([[focal, 0, W / 2], [0, focal, H / 2], [0, 0, 1]]),
                T_ego_camera=_camera_pose(np.deg2rad(yaw)),
            )
            for i, yaw in enumerate(YAWS_DEG)
        )
        key, *past = (_sweep_at(k, j, time_us) for j in range(1 + self.spec.past_sweeps))
        return Frame(
            scene_id="example",
            token=f"{k}",
            timestamp_us=time_us,
            T_global_ego=T_global_ego,
            cameras=views,
            lidar=key,
            past_sweeps=tuple(past),
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self.seed, *map(int, view.path.parts)))
        return rng.integers(0, 256, (view.height, view.width, 3), np.uint8)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        return self.read_points_and_elongation(sweep)[:, :4]

    def read_points_and_elongation(self, sweep: LidarSweep) -> NDArray[np.float32]:
        """(P, 5) points on flat ground and on walls 5 to 60 m away, in the LiDAR's frame."""
        k, j = map(int, sweep.path.parts)
        knots = np.random.default_rng((self.seed, k)).uniform(5, 60, 37)
        knots[-1] = knots[0]
        elevation = np.deg2rad(np.linspace(-30.67, 10.67, BEAMS))[:, None]
        azimuth = np.linspace(-np.pi, np.pi, AZIMUTHS, endpoint=False)[None, :]
        wall_m = np.interp(azimuth, np.linspace(-np.pi, np.pi, 37), knots)
        slope = np.tan(elevation)
        ground_m = np.where(slope < -1e-3, -LIDAR_HEIGHT_M / np.minimum(slope, -1e-3), np.inf)
        rng = np.random.default_rng((self.seed, k, j))
        range_m = np.minimum(ground_m, wall_m) * rng.normal(1, 2e-3, (BEAMS, AZIMUTHS))
        x, y, z = range_m * np.cos(azimuth), range_m * np.sin(azimuth), range_m * slope
        returned = (z < 8 - LIDAR_HEIGHT_M) & (range_m < 100)
        intensity, elongation = rng.uniform(0, 255, z.shape), rng.uniform(0, 1, z.shape)
        points = np.stack((x, y, z, intensity, elongation), axis=-1)[returned]
        return np.asarray(points, np.float32)

    def fingerprint(self, scene_id: str) -> str:
        return f"{self.spec} {self.frames} {self.seed}"


def example_inputs(spec: InputSpec, *, frames: int = 1, seed: int = 0) -> ModelInputs:
    """A batch of the last key-frames of an ``ExampleLog``."""
    log = ExampleLog(spec, frames=spec.past_frames + frames, seed=seed)
    scene = log.scene("example").frames
    return collate(
        [
            prepare_frame(log, scene[k], spec, earlier_frames(scene, k, spec.past_frames))
            for k in range(spec.past_frames, len(scene))
        ]
    )


def _sweep_at(k: int, j: int, time_us: int) -> LidarSweep:
    T_ego_lidar = np.eye(4)
    T_ego_lidar[:3, 3] = -SWEEP_M * j, 0.0, LIDAR_HEIGHT_M
    return LidarSweep(
        path=Path(f"{k}/{j}"), timestamp_us=time_us - SWEEP_US * j, T_ego_lidar=T_ego_lidar
    )


def _camera_pose(yaw_rad: float) -> Transform:
    """A level camera 1.5 m above the ground and 1 m from the centre, looking outward."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    T = np.eye(4)
    T[:3, :3] = [[s, 0, c], [-c, 0, s], [0, -1, 0]]
    T[:3, 3] = c, s, 1.5
    return T
