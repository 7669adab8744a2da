"""A small log in the folder form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.geometry.transforms import from_yaw, inverse, to_quaternion

Edit = Callable[[dict[str, Any]], None]
FORWARD_CAMERA = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]], float)
LIDAR_AT = from_yaw(-np.pi / 2, [0.9, 0, 1.8])
SPEED_M_S = 10.0
START_US = 1_600_000_000_000_000


def pose(T: np.ndarray) -> dict[str, list[float]]:
    return {"rotation_wxyz": to_quaternion(T).tolist(), "translation_m": T[:3, 3].tolist()}


def vehicle_at(time_us: int) -> np.ndarray:
    """Ten metres a second along a heading of 30 degrees."""
    way = SPEED_M_S * (time_us - START_US) * 1e-6
    yaw = np.radians(30)
    return from_yaw(yaw, [100 + way * np.cos(yaw), 50 + way * np.sin(yaw), 3])


def write_log(root: Path, scenes: tuple[str, ...] = ("a",), n_frames: int = 3) -> Path:
    """Scenes at 10 Hz with a key-frame every half second; a wall of points stands in the world."""
    log = {"format": "autolabel-folder", "version": 1, "name": "mine", "licence": "none"}
    for scene_id in scenes:
        folder = root / "scenes" / scene_id
        for sub in ("lidar", "front"):
            (folder / sub).mkdir(parents=True)
        sweeps, frames = [], []
        for i in range(5 * (n_frames - 1) + 1):
            time_us, name = START_US + i * 100_000, f"lidar/{i:03d}.npz"
            T = vehicle_at(time_us)
            wall = np.random.default_rng(0).uniform([20, -5, 0], [20, 5, 3], (200, 3))
            T_lidar_world = inverse(T @ LIDAR_AT) @ vehicle_at(START_US)
            points = wall @ T_lidar_world[:3, :3].T + T_lidar_world[:3, 3]
            np.savez(
                folder / name,
                points=np.c_[points, np.full(200, 200)].astype(np.float32),
                classes=np.full(200, 15, np.uint8),
            )
            sweeps.append(
                {"file": name, "lidar": "top", "timestamp_us": time_us, "T_global_vehicle": pose(T)}
            )
            if i % 5 == 0:
                picture = f"front/{i:03d}.png"
                Image.new("RGB", (64, 48), (9, 99, 199)).save(folder / picture)
                view = {"camera": "front", "file": picture, "timestamp_us": time_us + 20_000}
                frames.append({"token": f"{scene_id}{i}", "sweep": name, "cameras": [view]})
        write_json(
            folder / "scene.json",
            {
                "cameras": {
                    "front": {
                        "width": 64,
                        "height": 48,
                        "intrinsics": [[40, 0, 32], [0, 40, 24], [0, 0, 1]],
                        "T_vehicle_camera": FORWARD_CAMERA.tolist(),
                    }
                },
                "lidars": {"top": {"T_vehicle_lidar": pose(LIDAR_AT)}},
                "sweeps": sweeps,
                "frames": frames,
            },
        )
        box = {"class": "car", "size_m": [4.5, 1.9, 1.6]}
        write_json(
            folder / "annotations.json",
            {
                "frames": {
                    f"{scene_id}0": [
                        {**box, "track": "7", "T_vehicle_box": pose(from_yaw(0.1, [20, 0, 1]))},
                        {**box, "track": "8", "T_global_box": pose(vehicle_at(START_US))},
                    ]
                }
            },
        )
    write_json(root / "log.json", log)
    return root


def write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data))


def edit_json(path: Path, edit: Edit) -> None:
    data = json.loads(path.read_text())
    edit(data)
    write_json(path, data)
