"""Boxes and point classes of a nuScenes root, on real frames."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes.utils.color_map import get_colormap

from datasets.errors import SceneError
from datasets.frames import in_lidar_frame
from datasets.geometry.transforms import apply
from datasets.sources.nuscenes import OCC3D_NAMES, NuScenesSource
from datasets.taxonomy import OCC3D_NUSCENES

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data"))
needs_real_data = pytest.mark.skipif(
    not (REAL / "nuscenes-real-lidarseq").is_dir(), reason=f"no real nuScenes frames at {REAL}"
)


@pytest.fixture()
def marked(tmp_path: Path) -> Path:
    """A writable copy of the frames with point classes."""
    copy = tmp_path / "nuscenes"
    shutil.copytree(REAL / "nuscenes-real-lidarseq", copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def edit(root: Path, table: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_every_category_of_nuscenes_has_a_class() -> None:
    assert set(OCC3D_NAMES) == set(get_colormap())
    assert set(OCC3D_NAMES.values()) == set(OCC3D_NUSCENES.names) - {"free"}


@needs_real_data
def test_boxes_hold_the_points_that_the_tables_count() -> None:
    root = REAL / "nuscenes-real"
    source = NuScenesSource(root, past_sweeps=0)
    rows = json.loads((root / "v1.0-mini" / "sample_annotation.json").read_text())
    counted = {(r["sample_token"], r["instance_token"]): r["num_lidar_pts"] for r in rows}
    seen = 0
    for scene_id in source.scene_ids("all"):
        for frame in source.scene(scene_id).frames:
            assert frame.lidar is not None
            points = apply(frame.lidar.T_ego_lidar, source.read_points(frame.lidar)[:, :3])
            found = source.annotations(frame)
            assert found.point_classes is None
            for box in found.boxes:
                assert box.contains(points).sum() == counted[frame.token, box.track]
                seen += 1
    assert seen == len(rows) > 100


@needs_real_data
def test_tracks_last_over_frames_and_their_points_bear_the_class_of_the_box() -> None:
    source = NuScenesSource(REAL / "nuscenes-real-lidarseq", past_sweeps=0)
    frames = source.scene("scene-surroundocc").frames
    classes_of: dict[str, set[int]] = {}
    same = inside = 0
    for frame in frames:
        assert frame.lidar is not None
        found = source.annotations(frame)
        points = apply(frame.lidar.T_ego_lidar, source.read_points(frame.lidar)[:, :3])
        assert found.point_classes is not None and found.point_classes.shape == (len(points),)
        for box in found.boxes:
            classes_of.setdefault(box.track, set()).add(box.class_id)
            marks = found.point_classes[box.contains(points)]
            inside += len(marks)
            same += int((marks == box.class_id).sum())
    assert len(classes_of) == 84
    assert all(len(ids) == 1 for ids in classes_of.values())
    assert same / inside > 0.95


@needs_real_data
def test_boxes_follow_a_frame_that_is_turned_to_its_lidar() -> None:
    source = NuScenesSource(REAL / "nuscenes-real-lidarseq", past_sweeps=0)
    frame = source.scene("scene-surroundocc").frames[0]
    assert frame.lidar is not None
    points = source.read_points(frame.lidar)[:, :3]
    ego, lidar = source.annotations(frame), source.annotations(in_lidar_frame(frame))
    for a, b in zip(ego.boxes, lidar.boxes, strict=True):
        in_ego = a.contains(apply(frame.lidar.T_ego_lidar, points))
        assert (in_ego == b.contains(points.astype(np.float64))).all()


@needs_real_data
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda rows: rows[0].update(size=[1.0, -4.0, 1.0]), "bad size"),
        (lambda rows: rows[0].update(size=[1.0, 4.0]), "damaged row"),
        (lambda rows: rows[0].update(rotation=[0.0, 0.0, 0.0, 0.0]), "length 0"),
        (lambda rows: rows[0].update(translation=[float("nan"), 0.0, 0.0]), "not finite"),
    ],
)
def test_damaged_box_is_refused(
    marked: Path, change: Callable[[list[dict[str, Any]]], object], rule: str
) -> None:
    edit(marked, "sample_annotation", change)
    source = NuScenesSource(marked, past_sweeps=0)
    with pytest.raises(SceneError, match=rule):
        source.annotations(source.scene("scene-surroundocc").frames[0])


@needs_real_data
def test_unknown_category_is_refused(marked: Path) -> None:
    (marked / "v1.0-mini" / "lidarseg.json").unlink()  # with it the devkit refuses the table
    edit(marked, "category", lambda rows: [r.update(name="vehicle.submarine") for r in rows[8:9]])
    source = NuScenesSource(marked, past_sweeps=0)
    with pytest.raises(SceneError, match="submarine"):
        source.annotations(source.scene("scene-surroundocc").frames[0])


@needs_real_data
@pytest.mark.parametrize(
    ("content", "rule"), [(b"\x18" * 7, "7 classes for"), (None, "cannot be read")]
)
def test_point_classes_that_do_not_fit_the_sweep_are_refused(
    marked: Path, content: bytes | None, rule: str
) -> None:
    source = NuScenesSource(marked, past_sweeps=0)
    frame = source.scene("scene-surroundocc").frames[0]
    path = next(marked.glob("lidarseg/*/56feb569*_lidarseg.bin"))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(SceneError, match=rule):
        source.annotations(frame)


@needs_real_data
def test_class_that_is_no_category_is_refused(marked: Path) -> None:
    source = NuScenesSource(marked, past_sweeps=0)
    frame = source.scene("scene-surroundocc").frames[0]
    path = next(marked.glob("lidarseg/*/56feb569*_lidarseg.bin"))
    marks = np.fromfile(path, np.uint8)
    marks[3] = 77
    path.write_bytes(marks.tobytes())
    with pytest.raises(SceneError, match="class 77"):
        source.annotations(frame)
