"""The root attributes of a label store: what holds for every scene of it.

Format version 2 adds the LiDAR's frame and flow. A header with neither is written as version 1, so
that older code reads such a store, and a job begun with older code goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.files.json_files import json_text
from datasets.files.seals import DIGEST
from datasets.geometry.grid import VoxelGrid
from datasets.labels.voxel_labels import GridFrame
from datasets.taxonomy import Taxonomy

FORMAT = "occupancy-labels"
FORMAT_VERSIONS = (1, 2)
_KEYS = {
    *("format", "format_version", "run_id", "frame", "grid", "taxonomy", "levels", "licence"),
    *("provenance", "flow", DIGEST),
}
FRAMES: dict[GridFrame, str] = {
    "ego": "ego at the LiDAR key-frame: X forward, Y left, Z up",
    "lidar": "LiDAR at the key-frame: its origin and its own axes (nuScenes: X right, Y forward, "
    "Z up)",
}
"""What a store's attributes say of the frame that its voxels lie in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHeader:
    """What holds for every scene of a store.

    Attributes:
        levels: P(label is right) of each confidence level, ascending, 0..1.
        licence: licence of the source data.
        provenance: JSON values: whatever determined the labels (weights hash, resolved
            configuration, calibration, source), and the versions of the software.
        run_id: hash of all that determines the labels; a store takes scenes of one run only.
        frame: that the grid lies in.
        flow: whether every scene has flow.

    Raises:
        ValueError: the levels are not 1..256 ascending probabilities, there is no run id, or the
            frame is unknown.
    """

    grid: VoxelGrid
    taxonomy: Taxonomy
    levels: tuple[float, ...]
    licence: str
    provenance: dict[str, Any]
    run_id: str
    frame: GridFrame = "ego"
    flow: bool = False

    def __post_init__(self) -> None:
        v = np.asarray(self.levels, np.float64)
        if not (
            1 <= v.size <= 256 and (v >= 0).all() and (v <= 1).all() and (v[1:] > v[:-1]).all()
        ):
            raise ValueError(f"levels must be 1..256 ascending values in 0..1: {self.levels}")
        if not self.run_id:
            raise ValueError("the run id is empty")
        if self.frame not in FRAMES:
            raise ValueError(f"unknown frame {self.frame!r}; known: {', '.join(FRAMES)}")

    def to_json(self) -> dict[str, Any]:
        new = self.flow or self.frame != "ego"
        return {
            "format": FORMAT,
            "format_version": 2 if new else 1,
            "run_id": self.run_id,
            "frame": FRAMES[self.frame],
            "grid": self.grid.to_json(),
            "taxonomy": self.taxonomy.to_json(),
            "levels": list(self.levels),
            "licence": self.licence,
            "provenance": self.provenance,
            **({"flow": self.flow} if new else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StoreHeader:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        names = {text: name for name, text in FRAMES.items()}
        if odd := sorted(data.keys() - _KEYS):
            raise ValueError(f"unknown key {odd[0]!r}")
        if data["frame"] not in names:
            raise ValueError(f"unknown frame {data['frame']!r}")
        return cls(
            grid=VoxelGrid.from_json(data["grid"]),
            taxonomy=Taxonomy.from_json(data["taxonomy"]),
            levels=tuple(float(v) for v in data["levels"]),
            licence=str(data["licence"]),
            provenance=dict(data["provenance"]),
            run_id=str(data["run_id"]),
            frame=names[data["frame"]],
            flow=bool(data.get("flow", False)),
        )


def header_difference(there: StoreHeader, here: StoreHeader) -> str:
    """What tells two headers apart, in a few words."""
    a, b = (_flat(json.loads(json_text(header.to_json()))) for header in (there, here))
    keys = [k for k in sorted(a.keys() | b.keys()) if k != "run_id" and a.get(k) != b.get(k)]
    shown = [f"{k} {_short(a.get(k))} there, {_short(b.get(k))} here" for k in keys or ["run_id"]]
    return "; ".join(shown[:3]) + (f"; and {len(shown) - 3} more" if len(shown) > 3 else "")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as dotted names -> plain values."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    dot = "." if prefix else ""
    return {k: v for name, x in value.items() for k, v in _flat(x, prefix + dot + name).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
