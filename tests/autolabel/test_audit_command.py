"""The audit as a command: what it prints, refuses and survives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.benchmarks.catalogue import benchmark
from datasets.cli.launch import launch
from datasets.labels.label_set import GroundTruthLabels
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.voxel_labels import SceneLabels
from datasets.sources.nuscenes import NuScenesSource

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse true labels as a teacher's that doubts everything a little."""
    where = tmp_path_factory.mktemp("store") / "labels.zarr"
    source = NuScenesSource(city, past_sweeps=1)
    coarse = benchmark("occ3d_coarse")
    labels = GroundTruthLabels(coarse, city, source)
    header = StoreHeader(
        grid=coarse.grid,
        taxonomy=coarse.taxonomy,
        levels=(0.0, 0.9),
        licence="CC0",
        provenance={"config": {"past_sweeps": 1}},
        run_id="run-1",
    )
    made = LabelStore.create(where, header)
    for scene_id in labels.scene_ids():
        scene = labels.scene(scene_id)
        frames = [scene.frame(k) for k in range(len(scene.frame_tokens))]
        for frame in frames:
            frame.confidence[frame.mask > 0] = 1
        inputs = source.fingerprint(scene_id)
        made.write_scene(SceneLabels.of_frames(scene_id, frames, inputs=inputs))
    return where


def names(report: Path) -> set[str]:
    return {fault["name"] for fault in json.loads(report.read_text())["faults"]}


def test_true_labels_of_a_right_log_raise_no_alarm(
    city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "audit.json"
    options = ["--truth", str(city), "--benchmark", "occ3d_coarse", "--root", str(city)]
    assert launch("audit", [*options, "--json", str(report)]) == 0
    said = capsys.readouterr().out
    assert "no fault found" in said
    assert "2 scenes do not tell from what inputs" in said
    data = json.loads(report.read_text())
    assert [s["expected_error"] for s in data["scenes"]] == [None, None]
    assert data["by_class"]["misses"]["driveable_surface"][1] > 100
    assert all(s["fit"] > 0.5 for s in data["scenes"])


def test_a_store_of_this_log_is_ranked(
    city: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("audit", [str(store), "--root", str(city)]) == 0
    said = capsys.readouterr().out
    assert said.index("score") < said.index("scene-2001")
    assert "do not tell from what inputs" not in said


def test_a_store_of_a_log_that_changed_is_stale(city: Path, store: Path, tmp_path: Path) -> None:
    changed, report = tmp_path / "city", tmp_path / "audit.json"
    shutil.copytree(city, changed)
    poses = changed / "v1.0-trainval" / "ego_pose.json"
    rows = json.loads(poses.read_text())
    for row in rows:
        row["translation"][0] += 0.3
    poses.write_text(json.dumps(rows))
    assert launch("audit", [str(store), "--root", str(changed), "--json", str(report)]) == 1
    assert names(report) == {"stale labels"}


def test_a_broken_sweep_costs_its_frame_and_no_more(
    city: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "city"
    shutil.copytree(city, broken)
    source = NuScenesSource(broken, past_sweeps=0)
    lidar = source.scene("scene-2001").frames[1].lidar
    assert lidar is not None
    np.full(lidar.path.stat().st_size // 4, np.nan, np.float32).tofile(lidar.path)
    assert launch("audit", [str(store), "--root", str(broken)]) == 1
    said = capsys.readouterr().out
    assert "left out: scene-2001" in said
    assert "2 scenes audited" in said


def test_a_scene_that_cannot_be_opened_is_set_aside(
    city: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "city"
    shutil.copytree(city, broken)
    samples = broken / "v1.0-trainval" / "sample.json"
    rows = json.loads(samples.read_text())
    next(row for row in rows if row["prev"])["next"] = "nowhere"
    samples.write_text(json.dumps(rows))
    assert launch("audit", [str(store), "--root", str(broken)]) == 1
    said = capsys.readouterr().out
    assert "quarantined: scene-2001" in said
    assert "1 scenes audited" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name a STORE"),
        (["{store}", "--benchmark", "occ3d_coarse"], "--benchmark needs --truth"),
        (["{store}", "--root", "nowhere"], "nowhere: no such folder"),
        (["nowhere.zarr", "--root", "{city}"], "nowhere.zarr"),
        (["{store}", "--root", "{city}", "--scenes", "scene-9999"], "no scene scene-9999"),
        (["--truth", "{store}", "--root", "{city}"], "there are none of any scene"),
        (["{store}", "--unknown"], "no option --unknown"),
    ],
)
def test_what_cannot_start_says_why_in_a_line(
    options: list[str],
    says: str,
    city: Path,
    store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert launch("audit", [option.format(store=store, city=city) for option in options]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_it_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "autolabel" / "audit.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "STORE" in done.stdout
