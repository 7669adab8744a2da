"""What sources do alike with the files that a scene names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import SceneError
from datasets.frames import VEHICLE_M, CameraView, Scene


def read_picture(view: CameraView, *, stated_by: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB.

    Args:
        stated_by: the file that states the picture's size, for the message.

    Raises:
        SceneError: missing, cannot be decoded, or of another size than ``view`` states.
    """
    try:
        with Image.open(view.path) as image:
            pixels = np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SceneError(where=str(view.path), rule=f"picture cannot be decoded: {error}") from None
    if pixels.shape != (view.height, view.width, 3):
        raise SceneError(
            where=str(view.path),
            rule=f"picture is {pixels.shape[1]}x{pixels.shape[0]}, "
            f"{stated_by} says {view.width}x{view.height}",
        )
    return pixels


def scene_fingerprint(scene: Scene) -> str:
    """SHA-256 of all that a scene states, and of the names and sizes of its files."""
    digest = hashlib.sha256()
    for frame in scene.frames:
        digest.update(f"{frame.token} {frame.timestamp_us}".encode())
        digest.update(frame.T_global_ego.tobytes())
        for view in frame.cameras:
            digest.update(f"{view.name} {_size(view.path)}".encode())
            digest.update(view.intrinsics.tobytes() + view.T_ego_camera.tobytes())
        if frame.vehicle_m != VEHICLE_M:
            digest.update(repr(frame.vehicle_m).encode())
        for sweep in frame.sweeps:
            digest.update(f"{sweep.timestamp_us} {_size(sweep.path)}".encode())
            digest.update(sweep.T_ego_lidar.tobytes())
    return digest.hexdigest()


def _size(path: Path) -> str:
    return f"{path.name} {path.stat().st_size if path.exists() else 'missing'}"
