"""The evaluation command: what it scores, names and refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autolabel.commands import evaluate
from datasets.benchmarks import occ3d_nuscenes, openocc_flow
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.conversion import Conversion
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.cli.launch import launch
from datasets.frames import Scene
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.sources.nuscenes import NuScenesSource
from datasets.taxonomy import OCC3D_NUSCENES, OCC3D_WAYMO, OPENOCC_FLOW, Taxonomy
from models.inference.predictor import OccupancyPredictor
from models.presets import build_network, preset

LEVELS = (0.0, 0.5, 0.9)


def scene_of(city: Path) -> Scene:
    source = NuScenesSource(city, past_sweeps=0)
    return source.scene(source.scene_ids("all")[0])


def truths(city: Path) -> list[GroundTruth]:
    scene = scene_of(city)
    return [
        occ3d_nuscenes.read_labels(occ3d_nuscenes.labels_path(city, scene.scene_id, f.token))
        for f in scene.frames
    ]


def make_store(
    path: Path,
    city: Path,
    semantics: NDArray[np.uint8],  # (T, X, Y, Z)
    *,
    taxonomy: Taxonomy = OCC3D_NUSCENES,
    level: NDArray[np.uint8] | None = None,
    flow: NDArray[np.float16] | None = None,
    scene_id: str | None = None,
) -> Path:
    scene = scene_of(city)
    header = StoreHeader(
        grid=occ3d_nuscenes.GRID,
        taxonomy=taxonomy,
        levels=LEVELS,
        licence="CC0-1.0",
        provenance={},
        run_id="test",
        flow=flow is not None,
    )
    seen = np.uint8(MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED)
    LabelStore.create(path, header).write_scene(
        SceneLabels(
            scene_id=scene_id or scene.scene_id,
            frame_tokens=tuple(f.token for f in scene.frames),
            timestamps_us=np.array([f.timestamp_us for f in scene.frames]),
            T_global_grid=np.stack([f.T_global_ego for f in scene.frames]),
            semantics=semantics,
            confidence=np.full(semantics.shape, 2, np.uint8) if level is None else level,
            mask=np.full(semantics.shape, seen),
            flow=flow,
        )
    )
    return path


def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    *arguments: object,
) -> tuple[dict[str, Any], str]:
    out = tmp_path / "scores.json"
    assert launch("evaluate", [*map(str, arguments), "--out", str(out)]) == 0
    return json.loads(out.read_text()), capsys.readouterr().out


def test_truth_as_a_store_scores_100_masked_and_unmasked(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    semantics = np.stack([t.semantics for t in truths(city)])
    store = make_store(tmp_path / "s.zarr", city, semantics)
    scores, printed = run(monkeypatch, capsys, tmp_path, "--store", store, "--root", city, "--rays")
    for mask in ("camera-visible", "all", "trusted"):
        assert scores[f"mIoU[{mask}]"] == 100.0
        assert scores[f"mIoU[{mask}, dynamic classes]"] in (100.0, None)
        assert list(scores[f"by range[{mask}]"])[-1] == "beyond 40 m"
        assert f"mIoU[{mask}] = 100.0" in printed
    assert scores["rays"]["RayIoU"] == 100.0 and scores["rays"]["frames"] == 3
    assert "RayIoU[rays that hit in the truth] = 100.00" in printed
    assert "trusted occupied voxels that are right: 100.00 %" in printed
    assert "trusted free voxels that are right: 100.00 %" in printed
    assert scores["benchmark"] == "occ3d_nuscenes" and scores["classes"] == "occ3d-nuscenes"
    assert scores["frames"] == 3 and scores["grid"]["frame"] == "ego"
    assert scores["converted"] is None and "converted" not in printed


def test_figures_in_and_out_of_the_mask_are_those_of_the_metric(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    semantics = []
    for truth in truths(city):
        assert truth.mask_camera is not None
        semantics.append(np.where(truth.mask_camera, truth.semantics, 17).astype(np.uint8))
    store = make_store(tmp_path / "s.zarr", city, np.stack(semantics))
    scores, _ = run(monkeypatch, capsys, tmp_path, "--store", store, "--root", city)
    assert scores["mIoU[camera-visible]"] == 100.0
    assert 0 < scores["mIoU[all]"] < 100.0
    assert scores["voxels[all]"] == 3 * 200 * 200 * 16 > scores["voxels[camera-visible]"] > 0
    rings = scores["by range[all]"].values()
    assert sum(ring["voxels"] for ring in rings) == scores["voxels[all]"]


def test_confidence_of_a_store_is_held_against_the_truth(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    rng = np.random.default_rng(0)
    truth = np.stack([t.semantics for t in truths(city)])
    level = rng.integers(1, 3, truth.shape, np.uint8)
    right = rng.random(truth.shape) < np.array(LEVELS)[level]
    other = np.where(truth == 0, 1, 0)
    semantics = np.where(right, truth, other).astype(np.uint8)
    store = make_store(tmp_path / "s.zarr", city, semantics, level=level)
    scores, printed = run(monkeypatch, capsys, tmp_path, "--store", store, "--root", city)
    confidence = scores["confidence[observed]"]
    assert confidence["ECE (plain)"] < 0.01
    assert [c["confidence"] for c in confidence["reliability"]] == [0.5, 0.9]
    assert confidence["reliability"][1]["right"] == pytest.approx(0.9, abs=0.01)
    assert confidence["risk-coverage"][-1]["risk"] == pytest.approx(0.3, abs=0.02)
    assert confidence["voxels"] == sum(int(t.observed().sum()) for t in truths(city))
    assert "ECE (plain)" in printed and "AURC" in printed


def refused(capsys: Any, *arguments: object) -> str:
    """What a command that ends with 2 complains of."""
    assert launch("evaluate", [str(word) for word in arguments]) == 2
    complaint: str = capsys.readouterr().err
    return complaint


def test_a_store_whose_classes_no_table_converts_is_refused_by_both_names(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    semantics = np.zeros((3, *occ3d_nuscenes.GRID.shape), np.uint8)
    store = make_store(tmp_path / "s.zarr", city, semantics, taxonomy=OCC3D_WAYMO)
    for name, theirs in (
        ("openoccupancy", "openoccupancy classes, to which no table leads"),
        ("occ3d_nuscenes", "occ3d-nuscenes classes, to which no table leads"),
    ):
        error = refused(capsys, "--store", store, "--root", city, "--benchmark", name)
        assert theirs in error and "s.zarr" in error and "occ3d-waymo classes" in error


def test_a_store_of_another_log_is_refused(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    semantics = np.stack([t.semantics for t in truths(city)])
    store = make_store(tmp_path / "s.zarr", city, semantics, scene_id="elsewhere")
    assert "another log" in refused(capsys, "--store", store, "--root", city)


def test_missing_ground_truth_is_named_with_what_helps(
    city: Path, tmp_path: Path, capsys: Any
) -> None:
    semantics = np.stack([t.semantics for t in truths(city)])
    store = make_store(tmp_path / "s.zarr", city, semantics)
    error = refused(capsys, "--store", store, "--root", city, "--truth", tmp_path)
    assert f"{tmp_path}/gts/" in error and "--truth" in error and "--lidar" in error


def test_a_store_is_compared_with_the_lidar_where_there_is_no_truth(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    semantics = np.stack([t.semantics for t in truths(city)])
    store = make_store(tmp_path / "s.zarr", city, semantics)
    arguments = ["--store", store, "--root", city, "--lidar", "--truth", tmp_path]
    assert launch("evaluate", [str(a) for a in arguments]) == 0
    printed = capsys.readouterr().out
    assert re.search("3 frames together +all labels", printed) and "ground truth" not in printed


def test_openocc_is_scored_along_rays_from_a_folder_of_its_own(
    city: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    scene, semantics = scene_of(city), []
    ids = [16 if n == "others" else OPENOCC_FLOW.id_of(n) for n in OCC3D_NUSCENES.names]
    for frame, truth in zip(scene.frames, truths(city), strict=True):
        semantics.append(np.array(ids, np.uint8)[truth.semantics])
        path = openocc_flow.labels_path(tmp_path / "truth", scene.scene_id, frame.token)
        flow = np.zeros((*truth.grid.shape, 2), np.float32)
        openocc_flow.write_labels(
            path,
            GroundTruth(grid=truth.grid, taxonomy=OPENOCC_FLOW, semantics=semantics[-1], flow=flow),
        )
    store = make_store(tmp_path / "s.zarr", city, np.stack(semantics), taxonomy=OPENOCC_FLOW)
    truth_folder = ("--truth", tmp_path / "truth", "--benchmark", "openocc_flow")
    scores, printed = run(
        monkeypatch, capsys, tmp_path, "--store", store, "--root", city, *truth_folder
    )
    assert scores["rays"]["RayIoU"] == 100.0 and "OccScore" not in scores["rays"]
    assert scores["masks"] == ["all", "trusted"]
    assert "has no mask" in printed and "flow is not predicted" in printed

    flow = np.zeros((3, *occ3d_nuscenes.GRID.shape, 2), np.float16)
    flow[..., 1] = 0.5
    store = make_store(
        tmp_path / "f.zarr", city, np.stack(semantics), taxonomy=OPENOCC_FLOW, flow=flow
    )
    scores, _ = run(monkeypatch, capsys, tmp_path, "--store", store, "--root", city, *truth_folder)
    assert scores["rays"]["RayIoU"] == 100.0
    assert scores["rays"]["mAVE [m/s]"] == pytest.approx(0.5)


def test_flow_of_a_network_enters_mave_and_occ_score(city: Path) -> None:
    tiny = preset("city_tiny")
    head = replace(tiny.network.head, classes=17, flow=True)
    tiny = replace(tiny, taxonomy=OPENOCC_FLOW, network=replace(tiny.network, head=head))
    torch.manual_seed(0)
    teacher = OccupancyPredictor(build_network(tiny.network).eval(), tiny)
    source = NuScenesSource(city, past_sweeps=tiny.inputs.past_sweeps)
    scene = source.scene(source.scene_ids("all")[0])
    prediction = evaluate.predict(teacher, source, scene, 1)
    assert prediction.flow.shape == (200, 200, 16, 2) and prediction.flow.dtype == np.float32

    openocc = benchmark("openocc_flow")
    conversion = Conversion(openocc, "it", tiny.grid, tiny.taxonomy, "ego")
    assert conversion.nothing
    scores = evaluate.Scores(conversion, levels=None, rays=True)
    semantics = np.full((200, 200, 16), 16, np.uint8)
    semantics[:, :, 1] = OPENOCC_FLOW.id_of("driveable_surface")
    semantics[120:130, 90:110, 1:5] = OPENOCC_FLOW.id_of("car")
    right = replace(prediction, semantics=semantics, flow=np.zeros_like(prediction.flow))
    flow = np.zeros_like(prediction.flow)
    flow[..., 0] = 0.25
    truth = GroundTruth(grid=openocc.grid, taxonomy=OPENOCC_FLOW, semantics=semantics, flow=flow)
    scores.update(right, truth)
    assert scores.rays.mave() == pytest.approx(0.25)
    assert scores.to_json()["rays"]["OccScore"] == pytest.approx(97.5)
