"""Files of a scene: existence and fingerprint, for all sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.frames import VEHICLE_M, CameraView, Scene
from datasets.sources.pictures import decode_picture


def read_picture(view: CameraView, *, stated_by: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB.

    Args:
        stated_by: the file that states the picture's size, for the message.

    Raises:
        SceneError: as ``decode_picture``.
    """
    size = view.width, view.height
    return decode_picture(view.path, size=size, stated_by=stated_by, where=str(view.path))


def scene_fingerprint(scene: Scene) -> str:
    """SHA-256 of what a scene states, and of the names and sizes of its files; future sweeps, which
    no label is made from, are left out."""
    digest = hashlib.sha256()
    for frame in scene.frames:
        digest.update(f"{frame.token} {frame.timestamp_us}".encode())
        digest.update(frame.T_global_ego.tobytes())
        for view in frame.cameras:
            digest.update(f"{view.name} {_size(view.path)}".encode())
            digest.update(view.intrinsics.tobytes() + view.T_ego_camera.tobytes())
        if frame.vehicle_m != VEHICLE_M:
            digest.update(repr(frame.vehicle_m).encode())
        for sweep in (*frame.moment, *frame.past_sweeps):
            digest.update(f"{sweep.timestamp_us} {_size(sweep.path)}".encode())
            digest.update(sweep.T_ego_lidar.tobytes())
    return digest.hexdigest()


def _size(path: Path) -> str:
    return f"{path.name} {path.stat().st_size if path.exists() else 'missing'}"
