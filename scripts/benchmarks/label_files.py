"""How fast label files of every benchmark are read, beside plain numpy on the same files.

    python scripts/benchmarks/label_files.py

Files are made up (a ground plane and boxes), 10 per format, and read once before it counts. Plain
numpy makes the same dense classes and masks, as loaders commonly do, and checks nothing; the
readers check every value, and resolve voxels that are listed twice.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.benchmarks import (
    occ3d_nuscenes,
    occ3d_waymo,
    openocc_flow,
    openoccupancy,
    semantic_kitti,
    surroundocc,
)
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.cli.exit_codes import exit_code
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import Taxonomy

FILES = 10
KITTI_CLASSES = np.full(1 << 16, 255, np.uint8)
for _original, _name in semantic_kitti.LEARNING_MAP.items():
    if _name is not None:
        KITTI_CLASSES[_original] = semantic_kitti.TAXONOMY.id_of(_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one benchmark's files are written and read."""

    grid: VoxelGrid
    taxonomy: Taxonomy
    suffix: str
    masks: tuple[str, ...]
    flow: bool
    write: Callable[[Path, GroundTruth], None]
    read: Callable[[Path], GroundTruth]
    plain: Callable[[Path], tuple[NDArray[Any], ...]]


def known_formats() -> dict[str, Format]:
    masks = ("mask_lidar", "mask_camera")
    rows = {
        "Occ3D-nuScenes": (occ3d_nuscenes, ".npz", masks, False, plain_occ3d),
        "Occ3D-Waymo": (occ3d_waymo, ".npz", (*masks, "in_view"), False, plain_waymo),
        "OpenOcc v2 with flow": (openocc_flow, ".npz", (), True, plain_openocc),
        "OpenOccupancy": (openoccupancy, ".npy", (), False, plain_openoccupancy),
        "SurroundOcc": (surroundocc, ".npy", (), False, plain_surroundocc),
        "SemanticKITTI": (semantic_kitti, ".label", ("mask_lidar",), False, plain_kitti),
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
            plain=plain,
        )
        for name, (module, suffix, layers, flow, plain) in rows.items()
    }


def main() -> int:
    args = reporting.parser(__doc__, json=True).parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, form in tqdm(known_formats().items(), desc="labels", leave=False):
            paths = [Path(folder) / f"{name}-{i}{form.suffix}" for i in range(FILES)]
            for i, path in enumerate(paths):
                form.write(path, made_up(form, np.random.default_rng(i)))
            check_the_same(form, paths[0])
            size = statistics.mean(path.stat().st_size for path in paths)
            rate, numpy_rate = (files_per_s(read, paths) for read in (form.read, form.plain))
            figures[name] = {
                "kB a file": round(size / 1e3),
                "files/s": round(rate),
                "MB/s": round(rate * size / 1e6),
                "plain numpy, files/s": round(numpy_rate),
                "share of its rate %": round(100 * rate / numpy_rate),
            }
    print(reporting.table_of(figures, "format"))
    reporting.write_figures(figures, args.json)
    return 0


def check_the_same(form: Format, path: Path) -> None:
    """Raises ``AssertionError``: both do not do the same work."""
    truth = form.read(path)
    layers = [truth.semantics, *(getattr(truth, name) for name in form.masks)]
    if form.flow:
        layers.append(truth.flow)
    for layer, plain in zip(layers, form.plain(path), strict=True):
        assert layer.dtype == plain.dtype and np.array_equal(layer, plain), path


def made_up(form: Format, rng: np.random.Generator) -> GroundTruth:
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
    observed = occupied | (rng.random(form.grid.shape) < 0.2)
    layers: dict[str, object] = dict.fromkeys(form.masks, observed)
    if form.flow:
        speed = rng.normal(0, 3, (*form.grid.shape, 2)) * occupied[..., None]
        layers["flow"] = speed.astype(np.float32)
    return GroundTruth(grid=form.grid, taxonomy=form.taxonomy, semantics=semantics, **layers)  # type: ignore[arg-type]


def plain_occ3d(path: Path) -> tuple[NDArray[Any], ...]:
    with np.load(path, allow_pickle=False) as file:
        masks = (file["mask_lidar"].astype(bool), file["mask_camera"].astype(bool))
        return (file["semantics"], *masks)


def plain_waymo(path: Path) -> tuple[NDArray[Any], ...]:
    with np.load(path, allow_pickle=False) as file:
        labels = file["voxel_label"]
        labels[labels == occ3d_waymo.FREE_ON_DISK] = occ3d_waymo.TAXONOMY.free_id
        names = ("origin_voxel_state", "final_voxel_state", "infov")
        return (labels, *(file[name].astype(bool) for name in names))


def plain_openocc(path: Path) -> tuple[NDArray[Any], ...]:
    with np.load(path, allow_pickle=False) as file:
        return file["semantics"], file["flow"]


def plain_openoccupancy(path: Path) -> tuple[NDArray[Any], ...]:
    z, y, x, classes = np.load(path, allow_pickle=False).T
    dense = np.zeros(openoccupancy.GRID.shape, np.uint8)
    dense[x, y, z] = np.where(classes == 0, 255, classes)
    return (dense,)


def plain_surroundocc(path: Path) -> tuple[NDArray[Any], ...]:
    x, y, z, classes = np.load(path, allow_pickle=False).T
    dense = np.zeros(surroundocc.GRID.shape, np.uint8)
    dense[x, y, z] = np.where(classes == 0, 255, classes)
    return (dense,)


def plain_kitti(path: Path) -> tuple[NDArray[Any], ...]:
    labels = KITTI_CLASSES[np.fromfile(path, np.uint16)]
    invalid = np.unpackbits(np.fromfile(path.with_suffix(".invalid"), np.uint8))
    shape = semantic_kitti.GRID.shape
    return labels.reshape(shape), ~invalid.astype(bool).reshape(shape)


def files_per_s(read: Callable[[Path], object], paths: list[Path]) -> float:
    calls = {path: functools.partial(read, path) for path in paths}
    return 1 / statistics.median(reporting.median_seconds(calls, rounds=2).values())


if __name__ == "__main__":
    sys.exit(exit_code(main))
