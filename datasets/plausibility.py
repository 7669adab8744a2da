"""Refusal of scenes and sweeps in impossible units.

Only what no vehicle and no sensor does is refused here, with the likely cause. What is merely odd
is for ``scripts/check_log.py`` to point out. A standing vehicle, a single frame, a LiDAR of 1 Hz,
lost sweeps and key-frames many seconds apart all can be.

Whether colours are BGR taken for RGB is not tested: no statistic of street pictures tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.frames import Frame, Scene
from datasets.geometry.transforms import Transform, inverse

LAST_YEAR_US = 250_000_000_000_000_000
"""Microseconds since 1970 to about the year 9900."""
MIN_FRAMES_APART_S = 0.004
MIN_SWEEPS_APART_S, MAX_SWEEPS_APART_S = 0.002, 20.0
"""The medians of a LiDAR's turns. Key-frames may be any time apart."""
MAX_CAMERA_APART_S = 10.0
MAX_SPEED_M_S = 340.0
CREEPING_M_S, CREEPING_S, CREEPING_STEPS = 0.15, 40.0, 3
"""A vehicle that moves on in this many steps of so many seconds is faster than this in one."""
MAX_MOUNT_M = 50.0
MAX_MEDIAN_RANGE_M = 1000.0
HEADINGS, MIN_HEADING_AGREEMENT, MIN_DEGREES_AGREEMENT = 8, 0.4, 0.6
"""How many frames show where the vehicle travels, and the length of the mean of unit vectors at
the angles between headings and travel; 1 where all angles are alike, near 0 for random ones."""
MOVED_M = 1.0


def check_units(scene: Scene) -> None:
    """Refuse times, poses and mounts in units that cannot be.

    Raises:
        SceneError: names the scene, the figure, the likely cause and what to do.
    """
    frames = scene.frames
    for rule in (_times(frames), _mounts(frames), _motion(frames), _headings(frames)):
        if rule:
            raise SceneError(where=f"scene {scene.scene_id}", rule=rule)


def check_ranges(points: NDArray[Any], where: str) -> None:
    """Refuse points (N, 3 or wider), LiDAR frame, that cannot be metres.

    Raises:
        SceneError: half of them lie beyond what a LiDAR reaches.
    """
    if not len(points):
        return
    middle_m = float(np.median(np.linalg.norm(points[:, :3].astype(np.float64), axis=1)))
    if middle_m > MAX_MEDIAN_RANGE_M:
        raise SceneError(
            where=where,
            rule=f"half of its points lie beyond {middle_m:,.0f} m of the LiDAR: "
            "points look like millimetres; write metres",
        )


def usual_step_s(times_us: Sequence[int]) -> float | None:
    """Median seconds between the times of a scene; None for fewer than two."""
    steps = np.diff(np.unique(np.asarray(times_us, np.int64)))
    return float(np.median(steps)) * 1e-6 if len(steps) else None


def sweep_times_us(frames: Sequence[Frame]) -> dict[str, list[int]]:
    """Times of all sweeps that the frames name, by LiDAR, in order."""
    times: dict[str, set[int]] = {}
    for frame in frames:
        for sweep in frame.sweeps:
            times.setdefault(sweep.lidar, set()).add(sweep.timestamp_us)
    return {name: sorted(stamps) for name, stamps in times.items()}


def _times(frames: Sequence[Frame]) -> str:
    last_us = frames[-1].timestamp_us
    if last_us > LAST_YEAR_US:
        return (
            f"time {last_us} us lies beyond the year 9900: times look like nanoseconds; write "
            "microseconds"
        )
    key_times = {frame.timestamp_us for frame in frames}
    if (apart_s := usual_step_s(sorted(key_times))) is not None and apart_s < MIN_FRAMES_APART_S:
        return f"key-frames are {apart_s:.2g} s apart: {_too_short(apart_s)}"
    for name, times in sweep_times_us(frames).items():
        step_s = usual_step_s(times)
        if step_s is None:
            continue
        if step_s < MIN_SWEEPS_APART_S:
            return f"sweeps of LiDAR {name!r} are {step_s:.2g} s apart: {_too_short(step_s)}"
        between = len(set(times) - key_times)
        if step_s > MAX_SWEEPS_APART_S and 2 * between >= len(times):
            return (
                f"sweeps of LiDAR {name!r} are {step_s:.0f} s apart: times look like nanoseconds; "
                "write microseconds"
            )
    offsets = [
        abs(view.timestamp_us - frame.timestamp_us) * 1e-6
        for frame in frames
        for view in frame.cameras
    ]
    if offsets and (middle_s := float(np.median(offsets))) > MAX_CAMERA_APART_S:
        return (
            f"images were taken {middle_s:.0f} s from their key-frames: times look like "
            "nanoseconds, or cameras and LiDAR have different clocks; write microseconds of one"
        )
    return ""


def _too_short(apart_s: float) -> str:
    unit = "milliseconds" if apart_s >= 2e-5 else "seconds"
    return f"times look like {unit}; write microseconds"


def _mounts(frames: Sequence[Frame]) -> str:
    for frame in frames:
        mounts: list[tuple[str, Transform]] = [
            (f"LiDAR {sweep.lidar!r}", inverse(frame.vehicle_at(sweep)) @ sweep.T_ego_lidar)
            for sweep in frame.moment
        ]
        mounts += [
            (f"camera {view.name!r}", inverse(view.T_ego_vehicle) @ view.T_ego_camera)
            for view in frame.cameras
        ]
        for sensor, T in mounts:
            if (away_m := float(np.linalg.norm(T[:3, 3]))) > MAX_MOUNT_M:
                unit = "millimetres" if away_m > 400 else "centimetres"
                return (
                    f"{sensor} is mounted {away_m:,.0f} m from the vehicle's origin (frame "
                    f"{frame.token}): extrinsics look like {unit}, or stand in the global frame; "
                    "write metres in the vehicle frame"
                )
    return ""


def _motion(frames: Sequence[Frame]) -> str:
    seconds, ways = _steps(frames)
    if not len(seconds):
        return ""
    lengths = np.linalg.norm(ways, axis=1)
    speed_m_s = float(np.median(lengths / seconds))
    if speed_m_s > MAX_SPEED_M_S:
        return (
            f"the vehicle moves at {speed_m_s:,.0f} m/s: poses look like millimetres, or times are "
            "too short; write metres and microseconds"
        )
    moving = lengths > MOVED_M
    if moving.sum() >= CREEPING_STEPS and float(np.median(seconds[moving])) > CREEPING_S:
        fastest_m_s = float((lengths[moving] / seconds[moving]).max())
        if fastest_m_s < CREEPING_M_S:
            return (
                f"the vehicle moves on at {fastest_m_s:.2g} m/s at most, in key-frames "
                f"{np.median(seconds[moving]):.0f} s apart: times look like nanoseconds; write "
                "microseconds"
            )
    return ""


def _headings(frames: Sequence[Frame]) -> str:
    """Headings against the way between the frames before and after."""
    if len(frames) < HEADINGS + 2:
        return ""
    _, ways = _steps(frames)
    lengths = np.linalg.norm(ways[:, :2], axis=1)
    moving = (lengths[:-1] > MOVED_M) & (lengths[1:] > MOVED_M)
    if moving.sum() < HEADINGS:
        return ""
    along = (ways[:-1] + ways[1:])[moving]
    travel = np.arctan2(along[:, 1], along[:, 0])
    rotations = np.array([frame.T_global_ego[:3, :3] for frame in frames[1:-1]])[moving]
    heading = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    # twice the angle: a vehicle may travel backwards
    if _agreement(2 * (heading - travel)) >= MIN_HEADING_AGREEMENT:
        return ""
    degrees_as_radians = np.degrees(travel), np.degrees(travel % (2 * np.pi))
    degrees = max(_agreement(heading - angle) for angle in degrees_as_radians)
    cause = (
        "headings look like degrees taken for radians"
        if degrees > MIN_DEGREES_AGREEMENT
        else "its rotations look wrong (degrees taken for radians, another order of the quaternion "
        "or another frame)"
    )
    return (
        f"the vehicle points elsewhere than it travels in {moving.sum()} frames, each time by "
        f"another angle: {cause}; write T_global_vehicle with X forward"
    )


def _agreement(angles_rad: NDArray[np.float64]) -> float:
    return float(np.abs(np.exp(1j * angles_rad).mean()))


def _steps(frames: Sequence[Frame]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F - 1,) seconds and (F - 1, 3) metres from each of F frames to the next."""
    places = np.array([frame.T_global_ego[:3, 3] for frame in frames]).reshape(-1, 3)
    times = np.array([frame.timestamp_us for frame in frames], np.int64)
    return np.diff(times) * 1e-6, np.diff(places, axis=0)
