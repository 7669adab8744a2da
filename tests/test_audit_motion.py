"""Delays, turned LiDARs and stretched motions are told apart by how frames fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autolabel.motion_fit import MotionFit, Trajectory, explain, fit_pair, lay_over, pairs_apart
from datasets.frames import Frame, LidarSweep
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse

POLES = np.random.default_rng(5).uniform([-40, -60], [140, 60], (500, 2))
T_VEHICLE_LIDAR = from_yaw(0.4, [1.0, 0.0, 1.8])


def vehicle(seconds: float) -> Transform:
    """Speeds up and slows down on a winding road."""
    x = 8 * seconds + 3 * np.sin(seconds)
    return from_yaw(0.3 * np.sin(0.8 * seconds), [x, 4 * np.sin(0.3 * seconds), 0])


def frames(pose: Callable[[float], Transform], turned_rad: float = 0.0) -> list[Frame]:
    def sweep(at_s: float, key_s: float) -> LidarSweep:
        T = inverse(pose(key_s)) @ pose(at_s) @ T_VEHICLE_LIDAR @ from_yaw(turned_rad, [0, 0, 0])
        return LidarSweep(path=Path("x"), timestamp_us=round(at_s * 1e6), T_ego_lidar=T)

    return [
        Frame(
            scene_id="drive",
            token=f"{k}",
            timestamp_us=round(k * 5e5),
            T_global_ego=pose(k / 2),
            cameras=(),
            lidar=sweep(k / 2, k / 2),
            past_sweeps=tuple(sweep(k / 2 - i / 10, k / 2) for i in range(1, 5)),
        )
        for k in range(1, 20)
    ]


def seen(frame: Frame) -> NDArray[np.float64]:
    """Columns in the frame's own ego frame: where the log puts what the LiDAR really saw."""
    seconds = frame.timestamp_us * 1e-6
    noise = np.random.default_rng(frame.timestamp_us).normal(0, 0.03, POLES.shape)
    world = np.c_[POLES + noise, np.ones(len(POLES))]
    in_lidar = apply(inverse(vehicle(seconds) @ T_VEHICLE_LIDAR), world)
    near = in_lidar[np.linalg.norm(in_lidar[:, :2], axis=1) < 40]
    assert frame.lidar is not None
    return apply(frame.lidar.T_ego_lidar, near)


def explained(drive: list[Frame]) -> MotionFit:
    trajectory = Trajectory(drive)
    pairs = [
        pair
        for a, b in pairs_apart(drive)
        if (pair := fit_pair(a, b, seen(a), seen(b), trajectory)) is not None
    ]
    assert len(pairs) >= 8
    return explain(pairs)


def test_right_poses_are_right() -> None:
    found = explained(frames(vehicle))
    assert abs(found.delay_s) < 0.01
    assert abs(np.degrees(found.yaw_rad)) < 0.1
    assert abs(found.stretch) < 0.005
    assert found.noise_m < 0.03


def test_late_poses_are_found_to_be_late() -> None:
    found = explained(frames(lambda seconds: vehicle(seconds - 0.1)))
    assert found.delay_s == pytest.approx(0.1, abs=0.015)
    assert abs(np.degrees(found.yaw_rad)) < 0.2
    assert abs(found.delay_s) > 5 * found.errors[0]


def test_a_turned_lidar_is_no_delay() -> None:
    found = explained(frames(vehicle, turned_rad=np.radians(2)))
    assert np.degrees(found.yaw_rad) == pytest.approx(-2, abs=0.15)
    assert abs(found.delay_s) < 0.015


def test_a_stretched_motion_is_told() -> None:
    def longer(seconds: float) -> Transform:
        T = vehicle(seconds)
        T[:3, 3] *= 1.05
        return T

    assert explained(frames(longer)).stretch == pytest.approx(-0.05, abs=0.01)


def test_noisy_poses_leave_noise() -> None:
    def noisy(seconds: float) -> Transform:
        rng = np.random.default_rng(round(seconds * 10))
        return vehicle(seconds) @ from_yaw(0, [*rng.normal(0, 0.2, 2), 0])

    assert explained(frames(noisy)).noise_m > 0.1


def test_a_vehicle_that_stands_tells_nothing() -> None:
    assert pairs_apart(frames(lambda _: np.eye(4))) == []
    found = explain([])
    assert found.pairs == 0
    assert np.isinf(found.errors).all()


def test_too_few_columns_are_not_laid_over() -> None:
    assert lay_over(POLES[:5], POLES) is None
    assert lay_over(POLES, POLES + 500) is None


def test_a_trajectory_knows_only_its_own_time() -> None:
    drive = frames(vehicle)
    trajectory = Trajectory(drive)
    assert trajectory.start_us == 100_000
    assert trajectory.at(0) is None
    assert trajectory.at(1e9) is None
    between = trajectory.at(1_050_000)
    assert between is not None
    np.testing.assert_allclose(between, vehicle(1.05), atol=0.02)
    assert Trajectory([replace(drive[0], lidar=None)]).at(0) is None
