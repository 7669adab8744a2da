"""What a training and labels were made from: the same wherever it lies, another once it changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folder_log import write_log
from PIL import Image
from training_command import write_labelled_log

from datasets.benchmarks import occ3d_nuscenes
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.cli.launch import launch
from datasets.errors import SetupError
from datasets.frames import Frame
from datasets.labels.label_set import StoredLabels
from datasets.labels.log_identity import (
    labeled_scene,
    pose_distance,
    require_log_of,
    require_same_frame,
)
from datasets.labels.store import LabelStore, SceneLabels
from datasets.loading.frame_dataset import (
    FrameDataset,
    GroundTruthTargets,
    PseudoLabels,
    TargetSource,
    Unlabelled,
)
from datasets.model_inputs import InputSpec
from datasets.sources.folder import FolderSource
from datasets.store_ops.export import export
from models.presets import COARSE_GRID
from models.training.resume_state import load_state, save_state
from viz.session.log_frames import LogOfLabels
from viz.session.session import ReviewSession

CAMERA = InputSpec(height=8, width=16, lidar=False)
WITH_LIDAR = InputSpec(height=8, width=16, lidar=True, past_sweeps=1)


@pytest.fixture()
def log(tmp_path: Path) -> Path:
    return write_labelled_log(tmp_path / "log", ("a", "b"), lidar=True)


def data_of(root: Path, spec: InputSpec = CAMERA, *labels: TargetSource) -> dict[str, object]:
    """Of a set on both scenes of a log."""
    source = FolderSource(root, past_sweeps=1)
    return FrameDataset(source, labels or (Unlabelled(("a", "b"), COARSE_GRID),), spec).data()


def edit_scene(root: Path, change: Callable[[dict[str, object]], None], scene: str = "a") -> None:
    path = root / "scenes" / scene / "scene.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def later(data: dict) -> None:  # type: ignore[type-arg]
    for one in data["sweeps"]:
        one["timestamp_us"] += 5000
    for frame in data["frames"]:
        for view in frame["cameras"]:
            view["timestamp_us"] += 5000


def elsewhere(data: dict) -> None:  # type: ignore[type-arg]
    for one in data["sweeps"]:
        one["T_global_vehicle"]["translation_m"][0] += 0.5


def zoomed(data: dict) -> None:  # type: ignore[type-arg]
    data["cameras"]["front"]["intrinsics"][0][0] += 1


def test_a_moved_log_is_the_same(log: Path, tmp_path: Path) -> None:
    before = (
        data_of(log),
        data_of(log, WITH_LIDAR),
        FolderSource(log, past_sweeps=1).fingerprint("a"),
    )
    log.rename(tmp_path / "elsewhere")
    log = tmp_path / "elsewhere"
    now = data_of(log), data_of(log, WITH_LIDAR), FolderSource(log, past_sweeps=1).fingerprint("a")
    assert now == before


@pytest.mark.parametrize("change", [later, elsewhere, zoomed])
def test_another_time_pose_or_calibration_is_another_log(
    log: Path, change: Callable[[dict[str, object]], None]
) -> None:
    before = data_of(log)["log"]
    edit_scene(log, change)
    now = data_of(log)["log"]
    assert isinstance(before, dict) and isinstance(now, dict)
    assert now["a"] != before["a"] and now["b"] == before["b"]


def test_another_picture_is_another_log_and_a_point_file_only_where_it_is_read(log: Path) -> None:
    camera, both = data_of(log), data_of(log, WITH_LIDAR)
    points = log / "scenes/a/lidar/005.npz"
    np.savez(points, points=np.ones((7, 4), np.float32))
    assert data_of(log) == camera and data_of(log, WITH_LIDAR) != both
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(log / "scenes/a/front/005.png")
    assert data_of(log) != camera


def test_truth_of_the_same_size_with_other_content_is_another(tmp_path: Path) -> None:
    """Written without compression, so that no size changes."""
    root, known = write_log(tmp_path / "log", ("a", "b")), benchmark("occ3d_nuscenes")
    source = FolderSource(root, past_sweeps=0)
    truth = GroundTruthTargets(known, root, source, ("a", "b"))
    semantics = np.zeros(known.grid.shape, np.uint8)
    for scene in "ab":
        for frame in source.scene(scene).frames:
            _write(root, frame, semantics)
    before = data_of(root, CAMERA, truth)["truth"]
    path = _write(root, source.scene("b").frames[1], semantics)
    assert data_of(root, CAMERA, truth)["truth"] == before
    size = path.stat().st_size
    semantics[3, 4, 5] = 1
    assert _write(root, source.scene("b").frames[1], semantics).stat().st_size == size
    now = data_of(root, CAMERA, truth)["truth"]
    assert isinstance(before, dict) and isinstance(now, dict)
    assert now["b"] != before["b"] and now["a"] == before["a"]
    path.unlink()
    assert data_of(root, CAMERA, truth)["truth"] not in (before, now)


def _write(root: Path, frame: Frame, semantics: np.ndarray) -> Path:  # type: ignore[type-arg]
    path = occ3d_nuscenes.labels_path(root, frame.scene_id, frame.token)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.ones_like(semantics)
    np.savez(path, semantics=semantics, mask_lidar=mask, mask_camera=mask)
    return path


def test_a_scene_labelled_anew_by_the_same_run_is_another(log: Path) -> None:
    where = log / "labels.zarr"
    before = data_of(log, CAMERA, PseudoLabels(where))
    relabel(where, "b")
    now = data_of(log, CAMERA, PseudoLabels(where))
    assert now["log"] == before["log"]
    ours, theirs = now["labels"], before["labels"]
    assert isinstance(ours, dict) and isinstance(theirs, dict)
    assert ours["b"] != theirs["b"] and ours["a"] == theirs["a"]


def relabel(where: Path, scene_id: str) -> None:
    store = LabelStore.open(where)
    old = store.scene(scene_id)
    frames = [old.frame(k) for k in range(len(old))]
    changed = np.stack([frame.semantics for frame in frames])
    changed[0, 0, 0, 0] ^= 1
    store.place.remove(f"scenes/{scene_id}")
    store.write_scene(
        SceneLabels(
            scene_id=scene_id,
            frame_tokens=old.frame_tokens,
            timestamps_us=old.timestamps_us,
            T_global_grid=old.T_global_grid,
            semantics=changed,
            confidence=np.stack([frame.confidence for frame in frames]),
            mask=np.stack([frame.mask for frame in frames]),
        )
    )


def test_the_data_that_differ_are_named_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    made = {"config": {"steps": 3}, "data": {"log": {"a": "1", "b": "2"}, "truth": {"a": "3"}}}
    save_state(path, {"identity": made, "threads": 1, "step": 3})

    def told(now: dict[str, object]) -> str:
        with pytest.raises(SetupError, match="another configuration") as refused:
            load_state(tmp_path, now)
        return str(refused.value)

    other_log = {"log": {"a": "1", "b": "9"}, "truth": {"a": "3"}}
    assert "(the log differs: scene b); choose another --out" in told(made | {"data": other_log})
    many = {"log": dict.fromkeys("vwxyz", "1") | {"a": "1", "b": "2"}, "truth": {"a": "3"}}
    assert "(the log differs: scene v, w, x and 2 more)" in told(made | {"data": many})
    labels = {"log": {"a": "1", "b": "2"}, "labels": {"a": "4"}}
    assert "the labels differ, the truth differs" in told(made | {"data": labels})
    save_state(path, {"identity": {"config": {"steps": 3}}, "threads": 1, "step": 3})
    assert "(its log and labels are not known: an earlier version made it)" in told(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (later, r"scene a, frame a0: its time is another, by \+0\.005 s"),
        (elsewhere, r"scene a, frame a0: its pose is another, by 0\.50 m and 0\.00 degrees"),
    ],
)
def test_labels_of_another_log_are_refused(
    log: Path, tmp_path: Path, change: Callable[[dict[str, object]], None], says: str
) -> None:
    where = log / "labels.zarr"
    store = LabelStore.open(where)
    labeled_scene(store, "a", FolderSource(log, past_sweeps=0))
    edit_scene(log, change)
    source = FolderSource(log, past_sweeps=0)
    says = rf"labels of another log: the log differs: {says}"
    with pytest.raises(SetupError, match=says):
        FrameDataset(source, [PseudoLabels(where)], CAMERA)
    with pytest.raises(SetupError, match=says):
        labeled_scene(store, "a", source)
    with pytest.raises(SetupError, match=says):
        require_log_of(store, "a", source)
    require_log_of(store, "b", source)


def test_a_log_without_the_scene_or_its_frames_is_another(log: Path) -> None:
    where = log / "labels.zarr"

    def renamed(data: dict) -> None:  # type: ignore[type-arg]
        for frame in data["frames"]:
            frame["token"] = "x" + frame["token"]

    (log / "scenes/a/annotations.json").unlink(missing_ok=True)
    edit_scene(log, renamed)
    with pytest.raises(SetupError, match="none of the labeled frames is in the log"):
        FrameDataset(FolderSource(log, past_sweeps=0), [PseudoLabels(where)], CAMERA)
    shutil.rmtree(log / "scenes/a")
    with pytest.raises(SetupError, match="the log differs: scene a: the log has no such scene"):
        FrameDataset(FolderSource(log, past_sweeps=0), [PseudoLabels(where)], CAMERA)


def test_rounded_times_and_poses_are_the_same(log: Path) -> None:
    stored, scene = labeled_scene(
        LabelStore.open(log / "labels.zarr"), "a", FolderSource(log, past_sweeps=0)
    )
    frame = scene.frames[0]
    T = frame.T_global_ego.copy()
    T[:3, 3] += 0.004
    rounded = replace(frame, T_global_ego=T, timestamp_us=frame.timestamp_us + 400)
    require_same_frame("labels", stored.frame(0), rounded, "ego")
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(2e-3), -np.sin(2e-3)], [np.sin(2e-3), np.cos(2e-3)]]
    assert pose_distance(T, T @ turn) == pytest.approx((0, 2e-3))
    with pytest.raises(SetupError, match="0\\.11 degrees"):
        turned = replace(frame, T_global_ego=frame.T_global_ego @ turn)
        require_same_frame("labels", stored.frame(0), turned, "ego")


def test_the_viewer_shows_nothing_of_another_log(log: Path) -> None:
    labels = StoredLabels(log / "labels.zarr")
    frame = labels.scene("a").frame(0)
    assert LogOfLabels(FolderSource(log, past_sweeps=0), "ego").of("a", frame).images
    edit_scene(log, elsewhere)
    shown = LogOfLabels(FolderSource(log, past_sweeps=0), "ego").of("a", frame)
    assert not shown.images and shown.points_m is None
    assert "labels of another log: the log differs: its pose is another" in shown.notes[0]
    session = ReviewSession(labels, FolderSource(log, past_sweeps=0))
    with pytest.raises(SetupError, match="the log differs"):
        session.require_log_of(labels.store, "a")


def test_a_report_with_another_log_is_refused(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_scene(log, elsewhere, "b")
    page = tmp_path / "page.html"
    where = str(log / "labels.zarr")
    assert (
        launch("report", [where, "--source", "folder", "--root", str(log), "--out", str(page)]) == 2
    )
    assert "labels of another log" in capsys.readouterr().err and not page.exists()


def test_labels_of_another_log_are_not_exported(log: Path, tmp_path: Path) -> None:
    where, known = log / "labels.zarr", benchmark("occ3d_coarse")
    known = replace(known, write=lambda path, truth: _touch(path, truth))
    edit_scene(log, later)
    bad = export(where, known, FolderSource(log, past_sweeps=0), tmp_path / "out")
    assert set(bad) == {"a"} and "its time is another" in bad["a"]
    assert not (tmp_path / "out/gts/a").exists() and (tmp_path / "out/gts/b").exists()


def _touch(path: Path, truth: GroundTruth) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(truth.taxonomy.name)
