"""Checks of times and poses against the motion of a vehicle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.frames import Frame
from datasets.geometry.transforms import inverse
from datasets.plausibility import sweep_times_us, usual_step_s

MAX_SPEED_M_S = 70.0
MAX_TURN_RAD_S = 2.0
MAX_ACCELERATION_M_S2 = 15.0
MAX_TILT_CHANGE_RAD = 0.35
MAX_SIDEWAYS_RAD = 0.5
MAX_CAMERA_OFFSET_S = 0.15
GAP_FACTOR = 2.5
LEAST_TURN_S, LONGEST_TURN_S = 0.01, 2.0
ODD_TURNS = "a LiDAR turns 1 to 30 times a second; are the times microseconds?"
VEHICLE_SLACK_M = 0.5


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
    of_sweeps = sweep_times_us(frames)
    for label, times in (
        ("frames", [f.timestamp_us for f in frames]),
        *(
            (f"sweeps of {name}" if len(of_sweeps) > 1 else "sweeps", of_lidar)
            for name, of_lidar in of_sweeps.items()
        ),
    ):
        steps = np.diff(np.asarray(times, np.int64)) * 1e-6
        if len(steps) > 1:
            usual = float(np.median(steps))
            for k in np.flatnonzero(steps > GAP_FACTOR * usual):
                after = (times[k] - times[0]) * 1e-6
                text = f"{label}: gap of {steps[k]:.2f} s, usually {usual:.2f} s, {after:.2f} s in"
                findings.append(Finding(bad=False, text=text))
    findings += [
        Finding(bad=False, text=f"sweeps of {name} are usually {apart_s:.2g} s apart: {ODD_TURNS}")
        for name, of_lidar in of_sweeps.items()
        if (apart_s := usual_step_s(of_lidar)) is not None
        and set(of_lidar) - {f.timestamp_us for f in frames}
        and not LEAST_TURN_S <= apart_s <= LONGEST_TURN_S
    ]
    camera_names = {v.name for f in frames for v in f.cameras}
    with_lidar = any(f.lidar is not None for f in frames)
    for frame in frames:
        if lacking := sorted(camera_names - {v.name for v in frame.cameras}):
            text = f"no image of {', '.join(lacking)}"
            findings.append(Finding(bad=False, frame=frame.token, text=text))
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
