"""Commands that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def write_log(root: Path, scenes: tuple[str, ...], **log: object) -> Path:
    """Scenes of one frame without a sensor; ``none`` has no frame."""
    for name in scenes:
        folder = root / "scenes" / name
        folder.mkdir(parents=True)
        frame = {
            "token": "f0",
            "timestamp_us": 1,
            "T_global_vehicle": {"rotation_wxyz": [1, 0, 0, 0], "translation_m": [0, 0, 0]},
            "cameras": [],
        }
        frames = [] if name == "none" else [frame]
        document = {"cameras": {}, "lidars": {}, "sweeps": [], "frames": frames}
        (folder / "scene.json").write_text(json.dumps(document))
    log |= {"format": "autolabel-folder", "version": 1, "name": "made-up", "licence": "none"}
    (root / "log.json").write_text(json.dumps(log))
    return root


def failing(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main
