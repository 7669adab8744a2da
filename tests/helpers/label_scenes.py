"""Label stores of random scenes, for tests and for the processes that they start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.store import GridFrame, SceneLabels, StoredScene, StoreHeader
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-2.0, -2.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(8, 6, 4))
LEVELS = (0.0, 0.5, 0.9, 0.99)


def header(**changes: object) -> StoreHeader:
    fields: dict[str, object] = {
        "grid": GRID,
        "taxonomy": OCC3D_NUSCENES,
        "levels": LEVELS,
        "licence": "CC0",
        "provenance": {"config": {"min_confidence": 0.5}, "weights": "ab" * 32},
        "run_id": "run-1",
    }
    return StoreHeader(**(fields | changes))  # type: ignore[arg-type]


def scene(
    scene_id: str = "scene-0001",
    *,
    frames: int = 3,
    grid: VoxelGrid = GRID,
    seed: int = 0,
    evidence: bool = False,
    flow: bool = False,
    instances: bool = False,
    frame: GridFrame = "ego",
) -> SceneLabels:
    rng = np.random.default_rng(seed)
    shape = (frames, *grid.shape)
    counts = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    velocities = rng.normal(0, 20, (*shape, 2)).astype(np.float16)
    velocities[rng.random(shape) < 0.5] = -0.0
    return SceneLabels(
        scene_id=scene_id,
        frame_tokens=tuple(f"{scene_id}-{i}" for i in range(frames)),
        timestamps_us=np.arange(frames, dtype=np.int64) * 500_000 + 1_533_000_000_000_000,
        T_global_grid=drive(frames),
        semantics=rng.integers(0, 18, shape, dtype=np.uint8),
        confidence=rng.integers(0, 4, shape, dtype=np.uint8),
        mask=rng.integers(0, 16, shape, dtype=np.uint8),
        hits=counts[0] if evidence else None,
        passes=counts[1] if evidence else None,
        flow=velocities if flow else None,
        instances=rng.integers(0, 65_536, shape, dtype=np.uint16) if instances else None,
        frame=frame,
    )


def as_older_code_wrote_it(store: Path) -> None:
    """Take the digests, and what is stated of files and array documents, out of a store."""
    for path in (store / "zarr.json", *store.glob("scenes/*/zarr.json")):
        document = json.loads(path.read_text())
        for key in ("digest", "documents", "files"):
            document["attributes"].pop(key, None)
        path.write_text(json.dumps(document))


def drive(frames: int) -> np.ndarray:  # type: ignore[type-arg]
    """(T, 4, 4) poses of a scene, whatever its labels are."""
    return np.stack(
        [from_yaw(0.1 * k, [300 + 5.25 * k, 1000 - 0.3 * k, 0.7]) for k in range(frames)]
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def assert_equal(stored: StoredScene, labels: SceneLabels) -> None:
    assert stored.frame_tokens == labels.frame_tokens
    np.testing.assert_array_equal(stored.timestamps_us, labels.timestamps_us)
    np.testing.assert_array_equal(stored.T_global_grid, labels.T_global_grid)
    for k in range(len(labels)):
        frame = stored.frame(k)
        assert (frame.token, frame.timestamp_us) == (
            labels.frame_tokens[k],
            labels.timestamps_us[k],
        )
        for name in ("semantics", "confidence", "mask", "hits", "passes", "flow"):
            want, got = getattr(labels, name), getattr(frame, name)
            assert (want is None) == (got is None)
            if want is not None:
                assert got.dtype == want.dtype
                assert got.tobytes() == want[k].tobytes()
