"""The label store beside Occ3D's npz files, on the same labels, in one run.

    python scripts/benchmarks/label_store.py runs/labels.zarr --json OUT.json

The frames of a store are written and read back as a store and as one ``labels.npz`` per frame, with
the same three arrays: compressed, as the published files are (``np.savez_compressed``), and plain
(``np.savez``). Printed are bytes of a frame, write rate, time of one frame at random and rate of a
whole scan, in uncompressed bytes; medians of several rounds, the formats taking turns. Files are in
the page cache for all of them.
"""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from tqdm import tqdm

from datasets.cli.exit_codes import exit_code
from datasets.labels.store import LabelStore
from datasets.labels.voxel_labels import SceneLabels

ARRAYS = ("semantics", "confidence", "mask")
FORMATS = ("store", "npz compressed", "npz plain")


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("store", type=Path)
    parser.add_argument("--scenes", type=int, default=4, help="at most")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    source = LabelStore.open(args.store)
    scenes = []
    for scene_id in source.scene_ids()[: args.scenes]:
        stored = source.scene(scene_id)
        frames = [stored.frame(k) for k in range(len(stored))]
        scenes.append(SceneLabels.of_frames(scene_id, frames, frame=source.header.frame))
    n_bytes = sum(getattr(scene, name).nbytes for scene in scenes for name in ARRAYS)
    n_frames = sum(map(len, scenes))

    figures: dict[str, dict[str, list[float]]] = {f: {} for f in FORMATS}
    with tempfile.TemporaryDirectory() as folder:
        for k in tqdm(range(args.rounds), desc="rounds"):
            for name in FORMATS[k % 3 :] + FORMATS[: k % 3]:
                path = Path(folder) / name
                shutil.rmtree(path, ignore_errors=True)
                form = STORES[name](path, scenes, source)
                for quantity, value in measure(form, scenes, n_bytes, n_frames).items():
                    figures[name].setdefault(quantity, []).append(value)
    table = {f: {w: statistics.median(v) for w, v in rows.items()} for f, rows in figures.items()}
    print(f"{n_frames} frames\n\n{compared(table)}")
    reporting.write_figures({"frames": n_frames, "formats": table}, args.json)
    return 0


class InStore:
    """As a label store."""

    def __init__(self, path: Path, scenes: list[SceneLabels], template: LabelStore) -> None:
        self.path, self.scenes, self.like = path, scenes, template

    def write(self) -> None:
        store = LabelStore.create(self.path, self.like.header)
        for scene in self.scenes:
            store.write_scene(scene)

    def opened(self) -> Callable[[int, int], Any]:
        store = LabelStore.open(self.path)
        stored = [store.scene(scene.scene_id) for scene in self.scenes]
        return lambda s, k: stored[s].frame(k)


class InFiles:
    """As one npz file a frame."""

    save = staticmethod(np.savez_compressed)

    def __init__(self, path: Path, scenes: list[SceneLabels], template: LabelStore) -> None:
        self.path, self.scenes = path, scenes

    def write(self) -> None:
        for s, scene in enumerate(self.scenes):
            for k in range(len(scene)):
                path = self._path(s, k)
                path.parent.mkdir(parents=True)
                self.save(path, **{name: getattr(scene, name)[k] for name in ARRAYS})

    def opened(self) -> Callable[[int, int], Any]:
        def read(s: int, k: int) -> list[Any]:
            with np.load(self._path(s, k), allow_pickle=False) as file:
                return [file[name] for name in ARRAYS]

        return read

    def _path(self, s: int, k: int) -> Path:
        scene = self.scenes[s]
        return self.path / "gts" / scene.scene_id / scene.frame_tokens[k] / "labels.npz"


class InPlainFiles(InFiles):
    save = staticmethod(np.savez)


STORES: dict[str, Any] = {
    "store": InStore,
    "npz compressed": InFiles,
    "npz plain": InPlainFiles,
}


def measure(form: Any, scenes: list[SceneLabels], n_bytes: int, n_frames: int) -> dict[str, float]:
    began = time.perf_counter()
    form.write()
    writing = time.perf_counter() - began
    size = sum(p.stat().st_size for p in form.path.rglob("*") if p.is_file())
    frames = [(s, k) for s, scene in enumerate(scenes) for k in range(len(scene))]
    read = form.opened()
    began = time.perf_counter()
    for s, k in frames:
        read(s, k)
    scanning = time.perf_counter() - began
    read = form.opened()
    times = []
    for s, k in random.Random(0).choices(frames, k=60):
        began = time.perf_counter()
        read(s, k)
        times.append(time.perf_counter() - began)
    return {
        "kB a frame": size / n_frames / 1e3,
        "write MB/s": n_bytes / writing / 1e6,
        "random frame ms": 1e3 * statistics.median(times),
        "full scan MB/s": n_bytes / scanning / 1e6,
    }


def compared(table: dict[str, dict[str, float]]) -> str:
    """The formats' figures, and how far the store is ahead of each other one."""
    rows: dict[str, dict[str, str]] = {
        form: {name: f"{value:.2f}" for name, value in row.items()} for form, row in table.items()
    }
    for form in FORMATS[1:]:
        ratios = {name: value / table[form][name] for name, value in table["store"].items()}
        rows[f"ahead of {form}"] = {
            name: f"{ratio if 'MB/s' in name else 1 / ratio:.2f}x" for name, ratio in ratios.items()
        }
    return reporting.table_of(rows, "format")


if __name__ == "__main__":
    sys.exit(exit_code(main))
