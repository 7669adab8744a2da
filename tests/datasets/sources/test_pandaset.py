"""PandaSet through the folder format: axes, classes, cuboids, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_script
from PIL import Image

from datasets.errors import AutolabelError, SetupError
from datasets.frames import points_in_ego
from datasets.geometry.transforms import apply, from_quaternion, inverse
from datasets.log_checks.ground import columns
from datasets.log_checks.structure import pairs_to_compare, static_agreement
from datasets.sources.folder import FolderSource
from datasets.sources.pandaset import NAMES, PandasetSequence, class_table, write_log_file
from datasets.taxonomy import OCC3D_NUSCENES

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data")) / "pandaset"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no PandaSet sequence at {REAL}")

COLUMNS = [
    *("uuid", "label", "yaw", "position.x", "position.y", "position.z"),
    *("dimensions.x", "dimensions.y", "dimensions.z", "cuboids.sibling_id", "cuboids.sensor_id"),
]
CAR = ["a", "Car", 0.0, 3.0, 10.0, 0.4, 1.9, 4.6, 1.6, "-", -1]
ROAD_Z = -0.3
CAMERA = {"w": 0.5**0.5, "x": -(0.5**0.5), "y": 0, "z": 0}  # looks along the pose frame's y


def as_json(q: dict[str, float], *xyz: float) -> dict[str, dict[str, float]]:
    return {"position": dict(zip("xyz", xyz, strict=True)), "heading": q}


def write_sequence(root: Path, cuboids: list[list[Any]] | None = None) -> Path:
    """Two LiDAR frames, the vehicle a metre on in the second; a picture of the second only."""
    upright = {"w": 1, "x": 0, "y": 0, "z": 0}
    lidar, camera = root / "002/lidar", root / "002/camera/front_camera"
    for folder in (lidar, camera, root / "002_compact/lidar", root / "002/annotations/cuboids_csv"):
        folder.mkdir(parents=True)
    (lidar / "poses.json").write_text(json.dumps([as_json(upright, 0, i, 0) for i in (0, 0, 1)]))
    (camera / "poses.json").write_text(json.dumps([as_json(CAMERA, 0, i, 1.5) for i in (0, 0, 1)]))
    (camera / "timestamps.json").write_text("[9.95, 10.05, 10.15]")
    (camera / "intrinsics.json").write_text('{"fx": 900, "fy": 900, "cx": 960, "cy": 540}')
    Image.new("RGB", (1920, 1080)).save(camera / "02.jpg")
    road = np.stack(np.meshgrid([-4, 0, 4], [-4, 0, 4], [ROAD_Z]), -1).reshape(-1, 3)
    ahead_and_right = [[0, 10, 1], [5, 0, 1], [5, 0, 2]]
    for i in (1, 2):
        np.savez(
            root / f"002_compact/lidar/{i:02d}.npz",
            xyz_cm=np.round(100 * np.concatenate([road, ahead_and_right])).astype(np.int16).T,
            intensity=np.arange(12, dtype=np.uint8),
            sensor=np.array([0] * 11 + [1], np.uint8),
            semseg=np.array([7] * 9 + [13, 4, 41], np.uint8),
            timestamp=np.float64(10 + i / 10),
        )
    with (root / "002/annotations/cuboids_csv/02.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([CAR] if cuboids is None else cuboids)])
    return root


def convert(root: Path, out: Path) -> FolderSource:
    sequence = PandasetSequence(root, "002")
    scene = out / "scenes" / "002"
    scene.mkdir(parents=True)
    for frame in sequence.frames:
        sequence.write_sweep(frame, scene)
    sequence.write_scene(scene)
    write_log_file(out)
    return FolderSource(out, past_sweeps=4)


def test_ahead_becomes_x_left_becomes_y_and_the_road_lies_at_zero(tmp_path: Path) -> None:
    source = convert(write_sequence(tmp_path / "in"), tmp_path / "out")
    (frame,) = source.scene("002").frames
    assert (frame.token, frame.timestamp_us) == ("002-02", 10_200_000)
    assert frame.lidar is not None and len(frame.past_sweeps) == 1
    points = points_in_ego(source, frame)
    np.testing.assert_allclose(points[-2:, :3], [[10, 0, 1.3], [0, -5, 1.3]], atol=1e-5)
    np.testing.assert_allclose(points[:8, 2], 0, atol=1e-5)
    assert points[-1, 3] == 10
    earlier = points_in_ego(source, frame, past=1)[len(points) :]
    np.testing.assert_allclose(earlier[-2, :3], [9, 0, 1.3], atol=1e-5)


def test_every_sweep_may_be_a_key_frame(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "in")
    assert PandasetSequence(root, "002").key_frames == [2]
    sequence = PandasetSequence(root, "002", key="sweep")
    assert sequence.key_frames == sequence.frames == [1, 2]
    scene = tmp_path / "out/scenes/002"
    scene.mkdir(parents=True)
    for frame in sequence.frames:
        sequence.write_sweep(frame, scene)
    sequence.write_scene(scene)
    write_log_file(tmp_path / "out")
    first, second = FolderSource(tmp_path / "out", past_sweeps=4).scene("002").frames
    assert (first.cameras, len(second.cameras)) == ((), 1), "only one of them has an image"


def test_classes_and_cuboids_become_ours(tmp_path: Path) -> None:
    twin = [*CAR[:9], "b", 1]
    source = convert(write_sequence(tmp_path / "in", [CAR, twin]), tmp_path / "out")
    (frame,) = source.scene("002").frames
    marks = source.annotations(frame)
    assert marks.point_classes is not None
    assert marks.point_classes.tolist() == [11] * 9 + [4, 255]
    (box,) = marks.boxes  # what the PandarGT saw of the same car is left out
    assert OCC3D_NUSCENES.names[box.class_id] == "car"
    assert box.size_m == (4.6, 1.9, 1.6)
    np.testing.assert_allclose(box.T_ego_box[:3, 3], [9, -3, 0.7], atol=1e-9)
    np.testing.assert_allclose(box.T_ego_box[:3, 0], [1, 0, 0], atol=1e-9)


def test_a_camera_stands_in_the_world_where_it_was(tmp_path: Path) -> None:
    source = convert(write_sequence(tmp_path / "in"), tmp_path / "out")
    (frame,) = source.scene("002").frames
    (view,) = frame.cameras
    expected = from_quaternion([CAMERA[k] for k in "wxyz"], [0, 1, 1.5])
    np.testing.assert_allclose(frame.T_global_ego @ view.T_ego_camera, expected, atol=1e-9)
    assert apply(inverse(view.T_ego_camera), np.array([30.0, 0, 0]))[2] == pytest.approx(30)


def test_every_class_has_a_place() -> None:
    table = class_table()
    assert len(NAMES) == 42
    assert (table[[0, 1, 2, 3, 4, 43]] == 255).all()
    assert (table[5:43] < OCC3D_NUSCENES.free_id).all()


@pytest.mark.parametrize(
    ("cuboid", "rule"),
    [
        (["a", "Spaceship", *CAR[2:]], "Spaceship"),
        (["a", "Car", "north", *CAR[3:]], "north"),
        (CAR[:5], "damaged"),
    ],
)
def test_a_frame_with_bad_cuboids_is_named_and_not_annotated(
    tmp_path: Path, cuboid: list[Any], rule: str
) -> None:
    root = write_sequence(tmp_path / "in", [CAR, cuboid])
    done = run_script("scripts/convert_pandaset.py", root, tmp_path / "out")
    assert done.returncode == 1 and rule in done.stderr
    assert "002-02" in done.stderr and "02.csv (frame row 1)" in done.stderr
    source = FolderSource(tmp_path / "out", past_sweeps=0)
    (frame,) = source.scene("002").frames
    marks = source.annotations(frame)
    assert marks.boxes == () and not marks.annotated


def test_a_frame_without_a_table_of_cuboids_is_not_annotated(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "in")
    (root / "002/annotations/cuboids_csv/02.csv").unlink()
    source = convert(root, tmp_path / "out")
    assert not source.annotations(source.scene("002").frames[0]).annotated


def _camera_file(root: Path, name: str, text: str) -> None:
    (root / f"002/camera/front_camera/{name}.json").write_text(text)


NO_ROTATION = json.dumps([as_json({"w": 2, "x": 0, "y": 0, "z": 0}, 0, 0, 0)])


def _points(root: Path, **change: Any) -> None:
    path = root / "002_compact/lidar/02.npz"
    with np.load(path) as file:
        np.savez(path, **{**file, **change})


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda r: _points(r, semseg=np.zeros(11, np.uint8)), "needs xyz_cm"),
        (lambda r: _points(r, xyz_cm=np.zeros((3, 12))), "needs xyz_cm"),
        (lambda r: _points(r, semseg=np.full(12, 43, np.uint8)), r"a class is not in 0\.\.42"),
        (lambda r: _points(r, semseg=np.array([{}] * 12)), "cannot be read"),
        (lambda r: (r / "002_compact/lidar/02.npz").write_bytes(b"PK"), "cannot be read"),
        (lambda r: (r / "002/lidar/poses.json").write_text("[]"), "no frame 2"),
        (lambda r: _camera_file(r, "timestamps", "[1, 2]"), "timestamps.json: no frame 2"),
        (lambda r: _camera_file(r, "timestamps", '["a"]'), "must be a list of seconds"),
        (lambda r: _camera_file(r, "poses", "[]"), "front_camera/poses.json: no frame 2"),
        (lambda r: _camera_file(r, "poses", NO_ROTATION), "has length 2.0000, not 1"),
        (lambda r: (r / "002/lidar/poses.json").write_text("{}"), "must be a list"),
        (lambda r: (r / "002/lidar/poses.json").write_text("[{}]"), "'heading' is missing"),
        (lambda r: (r / "002/camera/front_camera/intrinsics.json").unlink(), "no readable JSON"),
        (lambda r: [p.unlink() for p in r.glob("002_compact/lidar/*")], "no exported points"),
    ],
)
def test_damaged_sequences_are_refused(tmp_path: Path, damage: Any, rule: str) -> None:
    root = write_sequence(tmp_path / "in")
    damage(root)
    with pytest.raises(AutolabelError, match=rule):
        convert(root, tmp_path / "out")


def test_published_pickles_are_not_opened(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "in")
    for path in root.glob("002_compact/lidar/*"):
        path.rename(root / "002/lidar" / path.with_suffix(".pkl.gz").name)
    with pytest.raises(SetupError, match="pickles, which are not opened"):
        PandasetSequence(root, "002")


def test_the_command_converts_once(tmp_path: Path) -> None:
    root, out = write_sequence(tmp_path / "in"), tmp_path / "out"
    command = [sys.executable, "scripts/convert_pandaset.py", str(root), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "002: 2 sweeps, 1 key-frames; road 0.30 m below PandaSet's origin" in done.stdout
    again = run_script("scripts/convert_pandaset.py", root, out)
    assert again.returncode == 2 and "there is a log already" in again.stderr


def test_parts_of_a_sequence_become_scenes_of_their_own(tmp_path: Path) -> None:
    root, out = write_sequence(tmp_path / "in"), tmp_path / "out"
    done = run_script("scripts/convert_pandaset.py", root, out, "--parts", "2-9")
    assert done.returncode == 0, done.stderr
    source = FolderSource(out, past_sweeps=1)
    (scene_id,) = source.scene_ids("all")
    assert scene_id == "002-02-09"
    assert [f.token for f in source.scene(scene_id).frames] == ["002-02"]
    assert [p.name for p in (out / "scenes" / scene_id / "lidar").iterdir()] == ["02.npz"]
    with pytest.raises(SetupError, match="no frame from 5 to 9"):
        PandasetSequence(root, "002", (5, 9))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Six key-frames of the real sequence, in our folder."""
    root = tmp_path_factory.mktemp("pandaset")
    (root / "002").symlink_to(REAL / "002")
    (root / "002_compact/lidar").mkdir(parents=True)
    for i in (40, 45, 50, 55, 60, 65):
        (root / f"002_compact/lidar/{i}.npz").symlink_to(REAL / f"002_compact/lidar/{i}.npz")
    return convert(root, tmp_path_factory.mktemp("log"))


@needs_real_data
def test_real_points_boxes_and_classes_fit_together(real: FolderSource) -> None:
    frames = real.scene("002").frames
    assert len(frames) == 6 and all(len(f.cameras) == 6 for f in frames)
    for frame in frames[::3]:
        assert frame.lidar is not None
        points = apply(frame.lidar.T_ego_lidar, real.read_points(frame.lidar)[:, :3])
        marks = real.annotations(frame)
        assert marks.point_classes is not None
        inside = np.zeros(len(points), bool)
        right = total = 0
        for box in marks.boxes:
            mine = box.contains(points, margin_m=0.05)
            inside |= mine
            total += int(mine.sum())
            right += int((marks.point_classes[mine] == box.class_id).sum())
        assert right / total > 0.9
        assert inside[np.isin(marks.point_classes, range(1, 11))].mean() > 0.97
        road = (np.abs(points[:, :2]) < 8).all(axis=1) & (marks.point_classes == 11)
        assert abs(np.median(points[road, 2])) < 0.2


@needs_real_data
def test_real_static_structure_stays_in_place(real: FolderSource) -> None:
    frames = real.scene("002").frames
    upright = {
        (f.token, s.lidar): columns(apply(s.T_ego_lidar, real.read_points(s)[:, :3]))
        for f in frames
        for s in f.moment
    }
    lidar = frames[0].moment[0].lidar
    found = static_agreement(pairs_to_compare(frames, 5), upright, lidar)
    assert found.stated / found.n > 0.6 > 0.45 > found.unmoved / found.n
    assert found.findings() == []
