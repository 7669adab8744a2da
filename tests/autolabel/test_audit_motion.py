"""Delays, turned LiDARs and stretched motions are told apart by how frames fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autolabel.auditing.motion_fit import (
    Cause,
    MotionFit,
    Trajectory,
    explain,
    fit_pair,
    lay_over,
    pairs_apart,
)
from datasets.frames import Frame, LidarSweep
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse

POLES = np.random.default_rng(5).uniform([-40, -60], [140, 60], (500, 2))
T_VEHICLE_LIDAR = from_yaw(0.4, [1.0, 0.0, 1.8])


def vehicle(seconds: float) -> Transform:
    """Speeds up and slows down on a winding road."""
    x = 8 * seconds + 3 * np.sin(seconds)
    return from_yaw(0.3 * np.sin(0.8 * seconds), [x, 4 * np.sin(0.3 * seconds), 0])


def frames(
    pose: Callable[[float], Transform], turned_rad: float = 0.0, aside_m: Sequence[float] = (0, 0)
) -> list[Frame]:
    """``aside_m``: the log says that the LiDAR sits so much farther forward and left."""
    T_moved = from_yaw(0, [*aside_m, 0]) @ T_VEHICLE_LIDAR

    def sweep(at_s: float, key_s: float) -> LidarSweep:
        T = inverse(pose(key_s)) @ pose(at_s) @ T_moved @ from_yaw(turned_rad, [0, 0, 0])
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
    assert abs(found.amounts["delay"]) < 0.01
    assert abs(np.degrees(found.amounts["turn"])) < 0.1
    assert abs(found.amounts["stretch"]) < 0.005
    assert abs(found.amounts["left"]) < 0.05
    assert found.noise_m < 0.03
    assert found.gain < 10


def test_late_poses_are_found_to_be_late() -> None:
    found = explained(frames(lambda seconds: vehicle(seconds - 0.1)))
    assert found.best == "delay" and found.lead > 3 and found.gain > 10
    assert found.amounts["delay"] == pytest.approx(0.1, abs=0.015)


def test_a_turned_lidar_is_no_delay() -> None:
    found = explained(frames(vehicle, turned_rad=np.radians(2)))
    assert found.best == "turn" and found.lead > 3 and found.gain > 10
    assert np.degrees(found.amounts["turn"]) == pytest.approx(-2, abs=0.15)


@pytest.mark.parametrize(("aside_m", "cause"), [([0, 0.3], "left"), ([0.3, 0], "forward")])
def test_a_moved_lidar_is_no_longer_motion(aside_m: list[float], cause: Cause) -> None:
    found = explained(frames(vehicle, aside_m=aside_m))
    assert found.best == cause and found.lead > 3 and found.gain > 10
    assert found.amounts[cause] == pytest.approx(-0.3, abs=0.05)


def test_a_stretched_motion_is_told() -> None:
    def longer(seconds: float) -> Transform:
        T = vehicle(seconds)
        T[:3, 3] *= 1.05
        return T

    found = explained(frames(longer))
    assert found.best == "stretch" and found.lead > 3
    assert found.amounts["stretch"] == pytest.approx(-0.05, abs=0.01)


def test_noisy_poses_leave_noise() -> None:
    def noisy(seconds: float) -> Transform:
        rng = np.random.default_rng(round(seconds * 10))
        return vehicle(seconds) @ from_yaw(0, [*rng.normal(0, 0.2, 2), 0])

    found = explained(frames(noisy))
    assert found.noise_m > 0.1
    assert found.chain[0] < -0.2, "a wrong pose throws its two pairs opposite ways"
    assert found.lead < 3, "no cause explains noise"


def test_a_vehicle_that_stands_tells_nothing() -> None:
    assert pairs_apart(frames(lambda _: np.eye(4))) == []
    found = explain([])
    assert found.pairs == 0
    assert all(np.isinf(error) for error in found.errors.values())


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
