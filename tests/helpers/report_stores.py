"""A label store with everything that a report tells of, and the report read back, for tests."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from datasets.cli.launch import launch
from datasets.geometry.grid import VoxelGrid
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-30.0, -30.0, -1.0), size_m=(1.5, 1.5, 1.5), shape=(40, 40, 4))
LEVELS = (0.0, 0.5, 0.9, 0.99)
OBSERVED = MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE
FREE, N = OCC3D_NUSCENES.free_id, OCC3D_NUSCENES.n_classes
HOSTILE = "<script>alert('x')</script> & \"quoted\""


def provenance() -> dict[str, object]:
    rng = np.random.default_rng(8)
    seen = rng.integers(0, 1000, (N, len(LEVELS)))
    promised = {"threshold": 0.9, "error": 0.03, "coverage": 0.5, "coverage_by_ring": [0.5]}
    return {
        "source": "city",
        "preset": HOSTILE,
        "weights_sha256": "ab" * 32,
        "config": {
            "past_sweeps": 4,
            "promise": {
                "max_error": 0.05,
                "confidence": 0.9,
                "test": "t",
                "scenes": 40,
                "thresholds": [2] * N,
                "groups": {"occupied": promised, "free": promised},
                "class_error": [0.0123, *[None] * (N - 1)],
                "class_coverage": [0.5] * N,
            },
        },
        "software": {"torch": "2.9"},
        "calibration": {
            "counts": [10] * N,
            "method": "class",
            "reliability": {"voxels": seen.tolist(), "right": (seen * 3 // 4).tolist()},
        },
    }


def labels(scene_id: str, seed: int, *, frames: int = 3) -> SceneLabels:
    rng = np.random.default_rng(seed)
    shape = (frames, *GRID.shape)
    semantics = np.where(rng.random(shape) < 0.7, FREE, rng.integers(0, N, shape))
    semantics[rng.random(shape) < 0.01] = IGNORE_ID
    return SceneLabels(
        scene_id=scene_id,
        frame_tokens=tuple(f"{scene_id}-{k}" for k in range(frames)),
        timestamps_us=np.arange(frames, dtype=np.int64),
        T_global_grid=np.stack([np.eye(4)] * frames),
        semantics=semantics.astype(np.uint8),
        confidence=rng.integers(0, len(LEVELS), shape, dtype=np.uint8),
        mask=rng.integers(0, 16, shape, dtype=np.uint8),
    )


SCENES = (labels("scene-a", 1), labels("scene-b", 2, frames=2))


def header(**changes: object) -> StoreHeader:
    fields: dict[str, object] = {
        "grid": GRID,
        "taxonomy": OCC3D_NUSCENES,
        "levels": LEVELS,
        "licence": "CC0-1.0",
        "provenance": provenance(),
        "run_id": "run-1",
    }
    return StoreHeader(**(fields | changes))  # type: ignore[arg-type]


def make_store(path: Path) -> Path:
    """Two scenes, and one that was set aside."""
    store = LabelStore.create(path, header())
    for scene in SCENES:
        store.write_scene(scene)
    store.quarantine("scene-q", HOSTILE, f"Traceback:\n  {HOSTILE}")
    return path


def report(store: Path, *arguments: str, code: int = 0) -> str:
    """The page of a store, written by the command."""
    out = store.parent / "report.html"
    asked = [str(store), "--out", str(out), "--renderer", "plain", *arguments]
    if "--pictures" not in asked:
        asked += ["--pictures", "1"]
    assert launch("report", asked) == code
    return out.read_text(encoding="utf-8")


class Cells(HTMLParser):
    """Texts of the rows of every table by its caption; every attribute that fetches something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._caption = self._text = ""
        self.feed(page)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.fetched += [v or "" for k, v in attributes if k in ("src", "href", "srcset", "action")]
        if name == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if name in ("td", "th", "caption"):
            self._text = ""

    def handle_endtag(self, name: str) -> None:
        if name == "caption":
            self._caption = self._text
        if name in ("td", "th"):
            self.tables[self._caption][-1].append(self._text.replace("\u00a0", " "))

    def handle_data(self, data: str) -> None:
        self._text += data

    def row(self, caption: str, first: str) -> dict[str, str]:
        heads, *rows = self.tables[caption]
        (found,) = [row for row in rows if row[0] == first]
        return dict(zip(heads, found, strict=True))


def audit_file(folder: Path, **changes: object) -> Path:
    scene = {
        "score": 0.5,
        "frames": 3,
        "expected_error": 0.1,
        "untrusted": 0.2,
        "votes": {"misses": 0.031, "flicker": None},
        "flips": None,
        "fit": 0.8,
        "pose_noise_m": None,
        "problems": [],
    }
    data = {
        "format": "label-audit",
        "format_version": 1,
        "what": "label store labels.zarr",
        "scenes": [
            {"scene_id": "scene-b"} | scene,
            {"scene_id": "scene-a"} | scene | {"score": 0.4},
        ],
        "by_class": {"misses": {"car": [3, 40]}, "flicker": {}},
        "by_range": {"misses": {"0-10 m": [3, 40]}, "flicker": {}},
        "faults": [{"name": "pose jumps", "scene_id": "scene-b", "evidence": HOSTILE}],
        "set_aside": {"scene-c": "no LiDAR"},
        "notes": ["flips were not asked for"],
    }
    path = folder / "audit.json"
    path.write_text(json.dumps(data | changes))
    return path
