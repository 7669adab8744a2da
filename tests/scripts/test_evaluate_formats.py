"""Every label format scored by the evaluation command, end to end: files, conversion, figures.

The truth is written by our writers, predictions lie in a store. Where a store's voxels or classes
are not the benchmark's, the truth is the store's labels, converted by the named converters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_script
from numpy.typing import NDArray
from resampled_labels import resample

from datasets.benchmarks import class_mapping as mappings
from datasets.benchmarks import (
    occ3d_nuscenes,
    occ3d_waymo,
    openocc_flow,
    openoccupancy,
    semantic_kitti,
    surroundocc,
)
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.frames import Scene, SceneSource, in_lidar_frame
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, from_yaw, inverse
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.labels.voxel_labels import GridFrame
from datasets.sources.folder import FolderSource
from datasets.sources.nuscenes import NuScenesSource
from datasets.taxonomy import (
    IGNORE_ID,
    OCC3D_NUSCENES,
    OCC3D_WAYMO,
    SEMANTIC_KITTI,
    Taxonomy,
)

ROOT = Path(__file__).resolve().parents[2]
NAMED = {  # what is mistaken for what, by the classes of the store
    "occ3d-nuscenes": ("driveable_surface", "sidewalk"),
    "occ3d-waymo": ("road", "walkable"),
    "semantic-kitti": ("road", "sidewalk"),
}
IN_KITTI = {"driveable_surface": "road"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A log, its truth files, and a prediction equal to the truth.

    Attributes:
        benchmark: its name.
        options: of the command: source, root and truth.
        truths: per frame, as the benchmark has them.
        semantics: (T, X, Y, Z) of the store, in ``taxonomy``.
        grid, frame: of the store.
    """

    benchmark: str
    options: list[str]
    scene: Scene
    truths: list[GroundTruth]
    semantics: NDArray[np.uint8]
    taxonomy: Taxonomy
    grid: VoxelGrid = occ3d_nuscenes.GRID
    frame: GridFrame = "ego"

    def mask(self, truth: GroundTruth, name: str) -> NDArray[np.bool_]:
        return truth.semantics != IGNORE_ID if name == "all" else truth.scored()


def score(
    case: Case, tmp_path: Path, semantics: NDArray[np.uint8], *, process: bool = False
) -> dict[str, Any]:
    """The JSON that the command writes for a store of these labels, trusted everywhere.

    ``process`` starts the literal command, else it runs inside this process.
    """
    path, out = tmp_path / "labels.zarr", tmp_path / "scores.json"
    header = StoreHeader(
        grid=case.grid,
        taxonomy=case.taxonomy,
        frame=case.frame,
        levels=(0.0, 1.0),
        licence="none",
        provenance={},
        run_id="test",
    )
    frames = case.scene.frames
    if case.frame == "lidar":
        frames = tuple(in_lidar_frame(f) for f in frames)
    LabelStore.create(path, header).write_scene(
        SceneLabels(
            scene_id=case.scene.scene_id,
            frame_tokens=tuple(f.token for f in frames),
            timestamps_us=np.array([f.timestamp_us for f in frames]),
            T_global_grid=np.stack([f.T_global_ego for f in frames]),
            semantics=semantics,
            confidence=np.ones(semantics.shape, np.uint8),
            mask=np.full(semantics.shape, MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED, np.uint8),
            frame=case.frame,
        )
    )
    options = ["--store", str(path), *case.options, "--benchmark", case.benchmark]
    options += ["--out", str(out)]
    if process:
        command = [sys.executable, "scripts/evaluate.py", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    else:
        done = run_script("scripts/evaluate.py", *options)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures | {"printed": done.stdout}


def assert_scores(case: Case, tmp_path: Path, *, process: bool = False) -> dict[str, Any]:
    """The truth scores 100; with one class taken for another what counting the truth says.

    ``process`` is that of ``score`` for the truth.
    """
    masks = [name for name in (benchmark(case.benchmark).mask, "all") if name]
    perfect = score(case, tmp_path / "right", case.semantics, process=process)
    assert perfect["frames"] == len(case.truths)
    for mask in [*masks, "trusted"]:
        assert perfect[f"mIoU[{mask}]"] == 100.0
        assert f"mIoU[{mask}] = 100.0" in perfect["printed"]

    old, new = NAMED[case.taxonomy.name]
    wrong = case.semantics.copy()
    wrong[wrong == case.taxonomy.id_of(old)] = case.taxonomy.id_of(new)
    damaged = score(case, tmp_path / "wrong", wrong)
    target = benchmark(case.benchmark).taxonomy
    old = IN_KITTI.get(old, old) if target.name == "semantic-kitti" else old
    for mask in masks:
        voxels = sum(
            np.bincount(t.semantics[case.mask(t, mask)], minlength=target.n_classes)
            for t in case.truths
        )
        n_old, n_new = voxels[target.id_of(old)], voxels[target.id_of(new)]
        assert n_old > 0 and n_new > 0
        occurring = sum(voxels[i] > 0 for i in target.semantic_ids)
        expected = 100 * (occurring - 2 + n_new / (n_old + n_new)) / occurring
        assert damaged[f"mIoU[{mask}]"] == pytest.approx(expected, abs=0.0051)
        assert damaged[f"IoU[{mask}]"][old] == 0.0
        assert damaged[f"voxels[{mask}]"] == voxels.sum()
    return perfect


def city_case(
    city: Path,
    name: str,
    folder: Path,
    convert: Callable[[GroundTruth, Transform], GroundTruth],
    write: Callable[[Path, GroundTruth], None],
) -> Case:
    """The truth of the city, converted (with ``T_lidar_ego``) and written under ``folder``."""
    source = NuScenesSource(city, past_sweeps=0)
    scene = source.scene(source.scene_ids("all")[0])
    ours, theirs = [], []
    for frame in scene.frames:
        assert frame.lidar is not None
        ours.append(benchmark("occ3d_nuscenes").labels(city, source, frame))
        theirs.append(convert(ours[-1], inverse(frame.lidar.T_ego_lidar)))
        write(benchmark(name).path(folder, source, frame), theirs[-1])
    return Case(
        benchmark=name,
        options=["--source", "city", "--root", str(city), "--truth", str(folder)],
        scene=scene,
        truths=theirs,
        semantics=np.stack([t.semantics for t in ours]),
        taxonomy=OCC3D_NUSCENES,
    )


def without_masks(truth: GroundTruth) -> GroundTruth:
    return replace(truth, mask_lidar=None, mask_camera=None)


def to_openocc_flow(truth: GroundTruth, T_lidar_ego: Transform) -> GroundTruth:
    moved = without_masks(mappings.OCC3D_TO_OPENOCC_FLOW.apply(truth))
    return replace(moved, flow=np.zeros((*truth.grid.shape, 2), np.float32))


def to_openoccupancy(truth: GroundTruth, T_lidar_ego: Transform) -> GroundTruth:
    moved = mappings.OCC3D_TO_OPENOCCUPANCY.apply(without_masks(truth))
    return resample(moved, openoccupancy.GRID, T_lidar_ego)


def to_surroundocc(truth: GroundTruth, T_lidar_ego: Transform) -> GroundTruth:
    moved = mappings.OCC3D_TO_SURROUNDOCC.apply(without_masks(truth))
    return resample(moved, surroundocc.GRID, T_lidar_ego)


def test_occ3d_nuscenes(city: Path, tmp_path: Path) -> None:
    write = occ3d_nuscenes.write_labels
    case = city_case(city, "occ3d_nuscenes", tmp_path / "truth", lambda t, T: t, write)
    assert assert_scores(case, tmp_path, process=True)["converted"] is None


def test_openocc_flow_from_other_classes(city: Path, tmp_path: Path) -> None:
    write = openocc_flow.write_labels
    case = city_case(city, "openocc_flow", tmp_path / "truth", to_openocc_flow, write)
    scores = assert_scores(case, tmp_path)
    assert scores["converted"]["voxels"] == "the same"
    assert "table from occ3d-nuscenes; lost: others" in scores["converted"]["classes"]
    assert scores["rays"]["RayIoU"] == 100.0


def test_openoccupancy_from_other_voxels_and_classes(city: Path, tmp_path: Path) -> None:
    write = openoccupancy.write_labels
    case = city_case(city, "openoccupancy", tmp_path / "truth", to_openoccupancy, write)
    scores = assert_scores(case, tmp_path)
    assert scores["SC IoU"] == 100.0
    assert "converted from 200x200x16 voxels of 0.4 m in the ego frame" in scores["printed"]
    assert scores["converted"]["voxels that the prediction reaches[all]"] == 100.0


def test_surroundocc_where_the_prediction_reaches(city: Path, tmp_path: Path) -> None:
    """Truth beyond the prediction's grid is left out of the score, and its share stated."""
    whole: list[GroundTruth] = []

    def convert(truth: GroundTruth, T_lidar_ego: Transform) -> GroundTruth:
        moved = to_surroundocc(truth, T_lidar_ego)
        reached = resample(truth, surroundocc.GRID, T_lidar_ego).semantics != IGNORE_ID
        filled = np.where(reached, moved.semantics, 1).astype(np.uint8)
        whole.append(replace(moved, semantics=filled))
        return moved

    def write(path: Path, truth: GroundTruth) -> None:
        surroundocc.write_labels(path, whole[-1])

    case = city_case(city, "surroundocc", tmp_path / "truth", convert, write)
    scores = assert_scores(case, tmp_path)
    labelled, reached = (
        sum(int((t.semantics != IGNORE_ID).sum()) for t in truths)
        for truths in (whole, case.truths)
    )
    stated = scores["converted"]["voxels that the prediction reaches[all]"]
    assert 20 < stated < 80 and stated == pytest.approx(100 * reached / labelled, abs=0.0051)


def test_a_class_without_counterpart_is_wrong_and_nothing_else(city: Path, tmp_path: Path) -> None:
    write = openoccupancy.write_labels
    case = city_case(city, "openoccupancy", tmp_path / "truth", to_openoccupancy, write)
    odd = case.semantics.copy()
    odd[odd == OCC3D_NUSCENES.id_of("sidewalk")] = OCC3D_NUSCENES.id_of("others")
    scores = score(case, tmp_path, odd)
    iou = {name: value for name, value in scores["IoU[all]"].items() if value is not None}
    assert iou.pop("sidewalk") == 0.0 and set(iou.values()) == {100.0} and len(iou) > 3
    assert scores["SC IoU"] == 100.0  # something is there
    labelled = np.concatenate([t.semantics[t.semantics != IGNORE_ID] for t in case.truths])
    share = 100 * (labelled == openoccupancy.TAXONOMY.id_of("sidewalk")).mean()
    stated = scores["converted"]["voxels predicted as a class without counterpart[all]"]
    assert stated == pytest.approx(share, abs=0.0051)


def street(taxonomy: Taxonomy, road: str, side: str, seed: int) -> NDArray[np.uint8]:
    """Flat ground of two classes and boxes of any class on it, in the grid of Occ3D."""
    rng = np.random.default_rng(seed)
    out = np.full(occ3d_nuscenes.GRID.shape, taxonomy.free_id, np.uint8)
    out[:, :, :3] = taxonomy.id_of(road)
    out[:, 120:, :3] = taxonomy.id_of(side)
    for x, y in rng.integers(0, 180, (60, 2)):
        out[x : x + 12, y : y + 9, 3:7] = rng.choice(taxonomy.semantic_ids)
    return out


def test_semantic_kitti_on_a_folder(tmp_path: Path) -> None:
    T_vehicle_lidar = from_yaw(0.02, (0.8, 0.0, 1.73))
    log = tmp_path / "log"
    (log / "scenes" / "08").mkdir(parents=True)
    sweeps, frames = [], []
    for i in (0, 5):
        file = f"{i:06d}.npz"
        np.savez(log / "scenes" / "08" / file, points=np.ones((3, 4), np.float32))
        here = from_yaw(0.0, (float(i), 0.0, 0.0)).tolist()
        sweeps.append(
            {"file": file, "lidar": "top", "timestamp_us": 100_000 * i, "T_global_vehicle": here}
        )
        frames.append({"token": f"{i:06d}", "sweep": file, "cameras": []})
    lidars = {"top": {"T_vehicle_lidar": T_vehicle_lidar.tolist()}}
    record = {"cameras": {}, "lidars": lidars, "sweeps": sweeps, "frames": frames}
    (log / "scenes" / "08" / "scene.json").write_text(json.dumps(record))
    about = {"format": "autolabel-folder", "version": 1, "name": "kitti", "licence": "none"}
    (log / "log.json").write_text(json.dumps(about))

    source: SceneSource = FolderSource(log, past_sweeps=0)
    scene = source.scene("08")
    rng = np.random.default_rng(0)
    semantics, truths = [], []
    for i, frame in enumerate(scene.frames):
        semantics.append(street(OCC3D_NUSCENES, "driveable_surface", "sidewalk", i))
        seen = rng.random(occ3d_nuscenes.GRID.shape) < 0.7
        ours = GroundTruth(
            grid=occ3d_nuscenes.GRID,
            taxonomy=OCC3D_NUSCENES,
            semantics=semantics[-1],
            mask_lidar=seen,
        )
        moved = mappings.OCC3D_TO_SEMANTIC_KITTI.apply(ours)
        truths.append(resample(moved, semantic_kitti.GRID, inverse(T_vehicle_lidar)))
        path = benchmark("semantic_kitti").path(tmp_path, source, frame)
        assert path == tmp_path / "sequences" / "08" / "voxels" / f"{frame.token}.label"
        semantic_kitti.write_labels(path, truths[-1])
    case = Case(
        benchmark="semantic_kitti",
        options=["--source", "folder", "--root", str(log), "--truth", str(tmp_path)],
        scene=scene,
        truths=truths,
        semantics=np.stack(semantics),
        taxonomy=OCC3D_NUSCENES,
    )
    scores = assert_scores(case, tmp_path)
    assert scores["masks"] == ["observed", "all", "trusted"]
    assert "riders are part of" in scores["converted"]["classes"]

    labels = np.stack([t.semantics for t in truths])
    labels[labels == IGNORE_ID] = SEMANTIC_KITTI.free_id  # where nothing is scored
    same = replace(
        case, semantics=labels, taxonomy=SEMANTIC_KITTI, grid=semantic_kitti.GRID, frame="lidar"
    )
    assert assert_scores(same, tmp_path / "same")["converted"] is None


def test_occ3d_waymo_on_a_part_of_waymo(tmp_path: Path) -> None:
    needs = "waymo-open-dataset's protos and the extra waymo"
    pytest.importorskip("waymo_open_dataset.dataset_pb2", reason=needs)
    pytest.importorskip("pyarrow", reason=needs)
    import waymo_log

    from datasets.sources.waymo.source import WaymoSource

    log = tmp_path / "log"
    name = f"segment-{waymo_log.CONTEXT}_with_camera_labels.tfrecord"
    waymo_log.write_records(log / "validation" / name, waymo_log.segment(frames=2))
    source = WaymoSource(log)
    scene = source.scene(waymo_log.CONTEXT)
    truth = tmp_path / "occ3d-waymo"
    (truth / "voxel04").mkdir(parents=True)
    listed = f"scene,split,sequence\n{waymo_log.CONTEXT},validation,17\n"
    (truth / "voxel04" / "sequences.csv").write_text(listed)
    rng = np.random.default_rng(0)
    truths = []
    for i, frame in enumerate(scene.frames):
        shape = occ3d_waymo.GRID.shape
        seen, in_view, near = (rng.random(shape) < share for share in (0.6, 0.8, 1))
        truths.append(
            GroundTruth(
                grid=occ3d_waymo.GRID,
                taxonomy=OCC3D_WAYMO,
                semantics=street(OCC3D_WAYMO, "road", "walkable", i),
                mask_lidar=near,
                mask_camera=seen,
                in_view=in_view,
            )
        )
        path = benchmark("occ3d_waymo").path(truth, source, frame)
        assert path == truth / "voxel04" / "validation" / "017" / f"{i:03d}_04.npz"
        occ3d_waymo.write_labels(path, truths[-1])
    case = Case(
        benchmark="occ3d_waymo",
        options=["--source", "waymo", "--root", str(log), "--truth", str(truth)],
        scene=scene,
        truths=truths,
        semantics=np.stack([t.semantics for t in truths]),
        taxonomy=OCC3D_WAYMO,
    )
    scores = assert_scores(case, tmp_path)
    assert scores["masks"] == ["in view and camera-visible", "all", "trusted"]
    assert scores["converted"] is None
