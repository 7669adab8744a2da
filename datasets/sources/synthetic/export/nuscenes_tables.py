"""The tables of a nuScenes root that do not depend on the drives, and how tables are written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from datasets.files.json_files import json_text
from datasets.sources.synthetic.sensors.cameras import CAMERAS

VERSION = "v1.0-trainval"
LIDAR = "LIDAR_TOP"
TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map"),
    *("sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)
_CATEGORIES = (
    *("human.pedestrian.adult", "human.pedestrian.construction_worker", "animal", "vehicle.car"),
    *("vehicle.motorcycle", "vehicle.bicycle", "vehicle.bus.rigid", "vehicle.truck"),
    *("vehicle.construction", "vehicle.trailer", "movable_object.barrier"),
    *("movable_object.trafficcone", "movable_object.pushable_pullable", "movable_object.debris"),
    "static_object.bicycle_rack",
)
_ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider"),
    *("cycle.without_rider", "pedestrian.standing", "pedestrian.moving"),
)
_LEVELS = ("v0-40", "v40-60", "v60-80", "v80-100")


Rows = dict[str, list[dict[str, Any]]]


def token(*parts: object) -> str:
    """A 32-digit hexadecimal token of anything."""
    return hashlib.md5("|".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def shared_rows() -> Rows:
    """Tables that do not depend on the scenes."""
    return {
        "category": [
            {"token": token("category", n), "name": n, "description": ""} for n in _CATEGORIES
        ],
        "attribute": [
            {"token": token("attribute", n), "name": n, "description": ""} for n in _ATTRIBUTES
        ],
        "visibility": [
            {"token": str(i + 1), "level": level, "description": f"visible: {level[1:]} %"}
            for i, level in enumerate(_LEVELS)
        ],
        "sensor": [
            {
                "token": token("sensor", n),
                "channel": n,
                "modality": "lidar" if n == LIDAR else "camera",
            }
            for n in (*CAMERAS, LIDAR)
        ],
    }


def write_tables(root: Path, rows: Rows) -> None:
    """The 13 tables and the map picture that one of them names."""
    folder = root / VERSION
    folder.mkdir(parents=True)
    map_token = token("map")
    (root / "maps").mkdir()
    Image.new("L", (8, 8), 0).save(root / "maps" / f"{map_token}.png")
    rows = dict(rows)
    rows["map"] = [
        {
            "category": "semantic_prior",
            "token": map_token,
            "filename": f"maps/{map_token}.png",
            "log_tokens": [r["token"] for r in rows["log"]],
        }
    ]
    for name in TABLES:
        (folder / f"{name}.json").write_text(json_text(rows[name], indent=0) + "\n")
