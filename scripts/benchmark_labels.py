"""How fast label files of every benchmark are read, beside plain numpy on the same files.

    python scripts/benchmark_labels.py

Files are made up (a ground plane and boxes), 10 per format, and read once before it counts. Plain
numpy opens the arrays and checks nothing; the readers check them and, for formats that list only
occupied voxels, fill the grid.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.benchmarks import (
    occ3d_nuscenes,
    occ3d_waymo,
    openocc_flow,
    openoccupancy,
    semantic_kitti,
    surroundocc,
)
from datasets.benchmarks.truth import Truth
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import Taxonomy

FILES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one benchmark's files are written and read."""

    grid: VoxelGrid
    taxonomy: Taxonomy
    suffix: str
    masks: tuple[str, ...]
    flow: bool
    write: Callable[[Path, Truth], None]
    read: Callable[[Path], Truth]


def known_formats() -> dict[str, Format]:
    masks = ("mask_lidar", "mask_camera")
    rows = {
        "Occ3D-nuScenes": (occ3d_nuscenes, ".npz", masks, False),
        "Occ3D-Waymo": (occ3d_waymo, ".npz", (*masks, "in_view"), False),
        "OpenOcc v2 with flow": (openocc_flow, ".npz", (), True),
        "OpenOccupancy": (openoccupancy, ".npy", (), False),
        "SurroundOcc": (surroundocc, ".npy", (), False),
        "SemanticKITTI": (semantic_kitti, ".label", ("mask_lidar",), False),
    }
    return {
        name: Format(
            grid=module.GRID,
            taxonomy=module.TAXONOMY,
            suffix=suffix,
            masks=layers,
            flow=flow,
            write=module.write_labels,
            read=module.read_labels,
        )
        for name, (module, suffix, layers, flow) in rows.items()
    }


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False).parse_args()
    print("| format | kB a file | files/s | MB/s | plain numpy, files/s | share of its rate |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, form in tqdm(known_formats().items(), desc="labels", leave=False):
            paths = [Path(folder) / f"{name}-{i}{form.suffix}" for i in range(FILES)]
            for i, path in enumerate(paths):
                form.write(path, made_up(form, np.random.default_rng(i)))
            size = statistics.mean(path.stat().st_size for path in paths)
            ours, plain = (files_per_s(read, paths) for read in (form.read, plain_numpy))
            print(
                f"| {name} | {size / 1e3:.0f} | {ours:.0f} | {ours * size / 1e6:.0f} | {plain:.0f} "
                f"| {100 * ours / plain:.0f} % |"
            )
    return 0


def made_up(form: Format, rng: np.random.Generator) -> Truth:
    """Ground over the whole grid and forty boxes."""
    X, Y, Z = form.grid.shape
    classes = np.array(form.taxonomy.semantic_ids, np.uint8)
    classes = classes[classes > 0]  # some formats keep 0 for noise
    semantics = np.full(form.grid.shape, form.taxonomy.free_id, np.uint8)
    semantics[..., Z // 4] = classes[-1]
    for _ in range(40):
        x, y, size = rng.integers(X), rng.integers(Y), rng.integers(2, 20)
        semantics[x : x + size, y : y + size, Z // 4 : Z // 2] = rng.choice(classes)
    occupied = semantics != form.taxonomy.free_id
    seen = occupied | (rng.random(form.grid.shape) < 0.2)
    layers: dict[str, object] = dict.fromkeys(form.masks, seen)
    if form.flow:
        speed = rng.normal(0, 3, (*form.grid.shape, 2)) * occupied[..., None]
        layers["flow"] = speed.astype(np.float32)
    return Truth(grid=form.grid, taxonomy=form.taxonomy, semantics=semantics, **layers)  # type: ignore[arg-type]


def plain_numpy(path: Path) -> None:
    if path.suffix == ".label":
        np.fromfile(path, np.uint16)
        return
    loaded = np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        with loaded:
            for key in loaded.files:
                loaded[key]


def files_per_s(read: Callable[[Path], object], paths: list[Path]) -> float:
    taken = []
    for counted in (False, True, True):
        for path in paths:
            began = time.perf_counter()
            read(path)
            if counted:
                taken.append(time.perf_counter() - began)
    return 1 / statistics.median(taken)


if __name__ == "__main__":
    sys.exit(main())
