"""A made-up frame of real size and density, for benchmarks and exports: no files needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform
from datasets.inputs import FrameInputs, InputSpec, ModelInputs, collate, depth_maps

YAWS_DEG = (55, 0, -55, 110, 180, -110)
LIDAR_HEIGHT_M = 1.84
BEAMS, AZIMUTHS = 32, 1080
KEY_FRAME_M = 5.0
"""What the car drives between key-frames."""


def example_inputs(spec: InputSpec, *, frames: int = 1, seed: int = 0) -> ModelInputs:
    """Six cameras around the car, noise as pictures, and sweeps of a 32-beam LiDAR among walls.

    Every frame has the same rig, and its own pictures and walls. Point counts and their spread are
    those of nuScenes: 34,560 rays a sweep, of which the ones into the sky do not return.
    """
    rng = np.random.default_rng(seed)
    return collate([_frame(spec, rng) for _ in range(frames)])


def _frame(spec: InputSpec, rng: np.random.Generator) -> FrameInputs:
    H, W = spec.height, spec.width
    poses = [_camera_pose(np.deg2rad(yaw)) for yaw in YAWS_DEG]
    focal = 1266.0 * W / 1600
    K = np.array([[focal, 0, W / 2], [0, focal, H / 2], [0, 0, 1]])
    n = len(poses)
    intrinsics, post_image = np.tile(K, (n, 1, 1)), np.tile(np.eye(3), (n, 1, 1))
    points = depth = None
    if spec.lidar:
        points = _sweeps(1 + spec.past_sweeps, rng)
        depth = depth_maps(points[:, :3], poses, intrinsics, post_image, spec)
    current = FrameInputs(
        images=rng.integers(0, 256, (n, H, W, 3), np.uint8),
        T_ego_camera=np.array(poses),
        intrinsics=intrinsics,
        post_image=post_image,
        points=points,
        depth=depth,
    )
    past = replace(spec, lidar=False, past_frames=0)
    previous = tuple(_frame(past, rng) for _ in range(spec.past_frames))
    for k, earlier in enumerate(previous, start=1):
        earlier.T_ego_camera[:, 0, 3] -= KEY_FRAME_M * k
    return replace(current, previous=previous)


def _camera_pose(yaw_rad: float) -> Transform:
    """A level camera 1.5 m above the ground and 1 m from the centre, looking outward."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    T = np.eye(4)
    T[:3, :3] = [[s, 0, c], [-c, 0, s], [0, -1, 0]]
    T[:3, 3] = c, s, 1.5
    return T


def _sweeps(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(P, 5) points on flat ground and on walls 5 to 60 m away, the car driving 0.5 m a sweep."""
    elevation = np.deg2rad(np.linspace(-30.67, 10.67, BEAMS))[:, None]
    azimuth = np.linspace(-np.pi, np.pi, AZIMUTHS, endpoint=False)[None, :]
    knots = rng.uniform(5, 60, 37)
    knots[-1] = knots[0]
    wall_m = np.interp(azimuth, np.linspace(-np.pi, np.pi, 37), knots)
    parts = []
    for k in range(count):
        slope = np.tan(elevation)
        ground_m = np.where(slope < -1e-3, -LIDAR_HEIGHT_M / np.minimum(slope, -1e-3), np.inf)
        range_m = np.minimum(ground_m, wall_m) * rng.normal(1, 2e-3, (BEAMS, AZIMUTHS))
        z = LIDAR_HEIGHT_M + range_m * slope
        x, y = range_m * np.cos(azimuth) - 0.5 * k, range_m * np.sin(azimuth)
        returned = (z < 8) & (range_m < 100)
        intensity, lag = rng.uniform(0, 255, z.shape), np.full(z.shape, 0.05 * k)
        parts.append(np.stack((x, y, z, intensity, lag), axis=-1)[returned])
    points: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return points
