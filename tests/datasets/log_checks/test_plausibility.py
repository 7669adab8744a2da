"""Units that cannot be are refused with the likely cause; what only is odd is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_log import edit_json, write_log

from datasets.errors import SceneError
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.transforms import from_yaw
from datasets.plausibility import check_ranges, check_units
from datasets.sources.opening import open_source

ROOT = Path(__file__).resolve().parents[3]
START_US = 1_600_000_000_000_000
Pose = Callable[[float], Any]


def straight(seconds: float, speed_m_s: float = 5.0) -> np.ndarray:
    return from_yaw(
        0.4, [100 + speed_m_s * seconds * np.cos(0.4), speed_m_s * seconds * np.sin(0.4), 0]
    )


def curve(seconds: float, heading: Callable[[float], float] = lambda yaw: yaw) -> np.ndarray:
    yaw = 0.15 * seconds
    return from_yaw(heading(yaw), [40 * np.sin(yaw), 40 * (1 - np.cos(yaw)), 0])


def scene(
    *,
    frames_s: float = 0.5,
    sweeps_s: float | None = 0.05,
    n: int = 12,
    pose: Pose = straight,
    unit: float = 1.0,
    start_us: int = START_US,
    mount_m: float = 1.8,
    camera_m: float = 1.5,
) -> Scene:
    """Key-frames so far apart with the sweeps between; times come out times ``unit``."""

    def us(seconds: float) -> int:
        return round((start_us + seconds * 1e6) * unit)

    frames = []
    for k in range(n):
        now = k * frames_s
        count = 0 if sweeps_s is None else min(20, round(now / sweeps_s))
        mount = from_yaw(0, [0, 0, mount_m])
        sweeps = [
            LidarSweep(
                path=Path(f"{k}_{i}.bin"),
                timestamp_us=us(now - i * (sweeps_s or 0)),
                T_ego_lidar=mount,
            )
            for i in range(count + 1)
        ]
        view = CameraView(
            name="front",
            path=Path("a.jpg"),
            timestamp_us=us(now + 0.03),
            width=64,
            height=48,
            intrinsics=np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]]),
            T_ego_camera=from_yaw(0, [camera_m, 0, 1.5]),
        )
        frames.append(
            Frame(
                scene_id="s",
                token=f"f{k}",
                timestamp_us=us(now),
                T_global_ego=pose(now),
                cameras=(view,),
                lidar=sweeps[0],
                past_sweeps=tuple(sweeps[1:]),
            )
        )
    return Scene(scene_id="s", frames=tuple(frames))


@pytest.mark.parametrize(
    "right",
    [
        scene(),
        scene(n=1),
        scene(n=2),
        scene(start_us=0),
        scene(pose=lambda _: straight(0)),
        scene(sweeps_s=1.0, frames_s=1.0),
        scene(sweeps_s=None, frames_s=5.0),
        scene(sweeps_s=None, frames_s=30.0),
        scene(sweeps_s=None, frames_s=60.0, pose=lambda _: straight(0)),
        scene(frames_s=0.033, sweeps_s=0.033),
        scene(pose=lambda s: straight(s, 60.0)),
        scene(pose=curve, n=30),
        scene(pose=lambda s: curve(s, lambda yaw: yaw + np.pi), n=30),
    ],
    ids=[
        "usual",
        "one frame",
        "two frames",
        "times from zero",
        "standing",
        "LiDAR of 1 Hz",
        "key-frames 5 s apart",
        "key-frames 30 s apart",
        "standing, a frame a minute",
        "every sweep of 30 Hz",
        "60 m/s",
        "curve",
        "backwards",
    ],
)
def test_what_can_be_is_not_refused(right: Scene) -> None:
    check_units(right)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (scene(unit=1e3), "beyond the year 9900: times look like nanoseconds"),
        (scene(unit=1e3, start_us=0), "sweeps of LiDAR 'lidar' are 50 s apart: .* nanoseconds"),
        (scene(unit=1e3, start_us=0, sweeps_s=None), "30 s from their key-frames: .* nanoseconds"),
        (scene(unit=1e-3), "key-frames are 0.0005 s apart: times look like milliseconds"),
        (scene(unit=1e-3, pose=lambda _: straight(0)), "times look like milliseconds"),
        (scene(unit=1e-6, frames_s=2, sweeps_s=None), "times look like seconds"),
        (scene(mount_m=1800), "LiDAR 'lidar' is mounted 1,800 m .* look like millimetres"),
        (scene(camera_m=1500), "camera 'front' is mounted 1,500 m .* look like millimetres"),
        (scene(camera_m=150), "camera 'front' .* look like centimetres"),
        (
            scene(pose=lambda s: straight(s, 5000)),
            "moves at 5,000 m/s: poses look like millimetres",
        ),
        (
            scene(pose=lambda s: curve(s, np.degrees), n=40),
            "headings look like degrees taken for radians",
        ),
    ],
)
def test_units_that_cannot_be_are_refused_with_the_likely_cause(wrong: Scene, says: str) -> None:
    with pytest.raises(SceneError, match=f"scene s: .*{says}"):
        check_units(wrong)


def test_a_camera_less_log_in_nanoseconds_shows_by_its_creeping() -> None:
    slow = scene(unit=1e3, start_us=0, sweeps_s=None)
    slow = replace(slow, frames=tuple(replace(f, cameras=()) for f in slow.frames))
    with pytest.raises(
        SceneError, match=r"moves on at 0\.005 m/s at most, in key-frames 500 s apart"
    ):
        check_units(slow)


def test_points_in_millimetres_are_refused() -> None:
    points = np.random.default_rng(0).uniform(-40, 40, (500, 4))
    check_ranges(points, "a.bin")
    check_ranges(points[:0], "a.bin")
    with pytest.raises(SceneError, match=r"a\.bin: .* points look like millimetres"):
        check_ranges(points * 1000, "a.bin")


def test_every_command_opens_logs_so_that_impossible_times_set_the_scene_aside(
    tmp_path: Path,
) -> None:
    def in_nanoseconds(data: dict[str, Any]) -> None:
        for sweep in data["sweeps"]:
            sweep["timestamp_us"] *= 1000
        for frame in data["frames"]:
            frame["cameras"] = []

    log = write_log(tmp_path / "log", ("a", "b"))
    edit_json(log / "scenes/a/scene.json", in_nanoseconds)
    source = open_source("folder", log, past_sweeps=3)
    with pytest.raises(SceneError, match="times look like nanoseconds"):
        source.scene("a")
    assert source.scene("b").frames


REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real sensor data at {REAL}")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("nuscenes", "nuscenes-real"), ("nuscenes", "nuscenes-real-lidarseq"), ("waymo", "waymo")],
)
def test_real_logs_are_not_refused(kind: str, name: str) -> None:
    source = open_source(kind, REAL / name, past_sweeps=10)
    for scene_id in source.scene_ids("all"):
        assert source.scene(scene_id).frames
