"""A user's own log in a folder: what is read from it, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_log import START_US, Edit, edit_json, pose, vehicle_at, write_log
from PIL import Image

from datasets.errors import SceneError, SetupError
from datasets.frames import in_lidar_frame, points_in_ego
from datasets.geometry.transforms import inverse
from datasets.model_inputs import InputSpec, prepare_frame
from datasets.sources.folder import FolderSource
from datasets.sources.opening import open_source
from datasets.splits import labelled_subset


@pytest.fixture()
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log")


def test_points_of_all_sweeps_meet_in_the_ego_frame(log: Path) -> None:
    source = FolderSource(log, past_sweeps=3, future_sweeps=2)
    frames = source.scene("a").frames
    assert [f.token for f in frames] == ["a0", "a5", "a10"]
    assert [len(f.past_sweeps) for f in frames] == [0, 3, 3]
    assert [len(f.future_sweeps) for f in frames] == [2, 2, 0]
    points = points_in_ego(source, frames[1], past=3, future=2)
    np.testing.assert_allclose(points[:, 0], 15, atol=1e-4)  # the wall is at 20, 5 were driven
    np.testing.assert_allclose(np.unique(points[:, 4]), np.arange(-2, 4) / 10, atol=1e-6)
    assert (points[:, 3] == 200).all()


def test_camera_poses_are_interpolated_between_sweeps_and_continued_past_the_last(
    log: Path,
) -> None:
    for frame in FolderSource(log, past_sweeps=0).scene("a").frames:
        (view,) = frame.cameras
        expected = inverse(frame.T_global_ego) @ vehicle_at(view.timestamp_us)
        np.testing.assert_allclose(view.T_ego_vehicle, expected, atol=1e-6)
        assert view.T_ego_vehicle[0, 3] == pytest.approx(0.2, abs=1e-6)


def test_a_camera_pose_that_is_stated_wins(log: Path) -> None:
    T = vehicle_at(START_US + 7)

    def state(data: dict[str, Any]) -> None:
        data["frames"][0]["cameras"][0]["T_global_vehicle"] = pose(T)

    edit_json(log / "scenes/a/scene.json", state)
    frame = FolderSource(log, past_sweeps=0).scene("a").frames[0]
    np.testing.assert_allclose(
        frame.cameras[0].T_ego_vehicle, inverse(frame.T_global_ego) @ T, atol=1e-9
    )


def test_boxes_come_to_the_ego_frame_and_classes_belong_to_points(log: Path) -> None:
    source = FolderSource(log, past_sweeps=0)
    first, second, _ = source.scene("a").frames
    marks = source.annotations(first)
    assert [b.T_ego_box[0, 3] for b in marks.boxes] == pytest.approx([20, 0], abs=1e-9)
    assert [source.taxonomy.names[b.class_id] for b in marks.boxes] == ["car", "car"]
    assert marks.point_classes is not None and (marks.point_classes == 15).all()
    assert source.annotations(second).boxes == () and not source.annotations(second).annotated
    sideways = source.annotations(in_lidar_frame(first)).boxes  # LiDAR: x right, y forward
    np.testing.assert_allclose(sideways[0].T_ego_box[:3, 3], [0, 19.1, -0.8], atol=1e-9)


def test_a_network_takes_its_frames(log: Path) -> None:
    source = FolderSource(log, past_sweeps=2)
    inputs = prepare_frame(
        source, source.scene("a").frames[1], InputSpec(height=32, width=64, lidar=True)
    )
    assert inputs.images.shape == (1, 32, 64, 3)
    assert inputs.depth is not None and inputs.depth.max() == pytest.approx(13.3, abs=0.01)


def test_a_log_may_lack_lidar_or_cameras(log: Path) -> None:
    def no_lidar(data: dict[str, Any]) -> None:
        data["sweeps"], data["lidars"] = [], {}
        for i, frame in enumerate(data["frames"]):
            del frame["sweep"]
            frame["timestamp_us"] = START_US + i * 500_000
            frame["T_global_vehicle"] = pose(vehicle_at(frame["timestamp_us"]))

    edit_json(log / "scenes/a/scene.json", no_lidar)
    frame = FolderSource(log, past_sweeps=5).scene("a").frames[1]
    assert frame.lidar is None and frame.past_sweeps == () and len(frame.cameras) == 1
    assert frame.cameras[0].T_ego_vehicle[0, 3] == pytest.approx(0.2, abs=1e-6)

    def no_cameras(data: dict[str, Any]) -> None:
        data["cameras"] = {}
        for frame in data["frames"]:
            frame["cameras"] = []

    edit_json(log / "scenes/a/scene.json", no_cameras)
    assert FolderSource(log, past_sweeps=5).scene("a").frames[1].cameras == ()


def test_splits_come_from_the_log_or_are_drawn_as_published(tmp_path: Path) -> None:
    scenes = tuple("abcdefghij")
    root = write_log(tmp_path / "log", scenes, n_frames=1)
    drawn = labelled_subset(scenes, 0.2)
    source = FolderSource(root, past_sweeps=0)
    assert set(source.scene_ids("labeled")) == set(drawn)
    assert len(source.scene_ids("unlabeled")) == 8
    assert source.scene_ids("c,a") == ("c", "a")
    edit_json(root / "log.json", lambda d: d.update(splits={"labeled": ["b"], "val": ["c", "a"]}))
    source = FolderSource(root, past_sweeps=0)
    assert source.scene_ids("labeled") == ("b",)
    assert source.scene_ids("unlabeled") == tuple("acdefghij")
    assert source.scene_ids("val") == ("c", "a")
    assert FolderSource(root, past_sweeps=0, labelled=("j",)).scene_ids("labeled") == ("j",)
    with pytest.raises(SetupError, match="unknown split 'test'"):
        source.scene_ids("test")


def test_the_fingerprint_follows_poses_and_files(log: Path) -> None:
    before = FolderSource(log, past_sweeps=1).fingerprint("a")
    assert before == FolderSource(log, past_sweeps=1).fingerprint("a")

    def move(data: dict[str, Any]) -> None:
        data["sweeps"][5]["T_global_vehicle"]["translation_m"][0] += 0.01

    edit_json(log / "scenes/a/scene.json", move)
    moved = FolderSource(log, past_sweeps=1).fingerprint("a")
    assert moved != before
    (log / "scenes/a/front/000.png").write_bytes(b"")
    assert FolderSource(log, past_sweeps=1).fingerprint("a") != moved


def test_the_command_lines_open_it(log: Path) -> None:
    source = open_source("folder", log, past_sweeps=1)
    assert isinstance(source, FolderSource)
    assert (source.name, source.licence) == ("mine", "none")


PLY = "ply\nformat {form} 1.0\ncomment x\nelement vertex 2\n{properties}end_header\n"
POINTS = np.array([[1, 2, 3, 255], [4, 5, 6, 0]], np.float32)


def ply_header(form: str, *names: str) -> bytes:
    properties = "".join(f"property {name}\n" for name in names)
    return PLY.format(form=form, properties=properties).encode()


def write_points(log: Path, suffix: str, raw: bytes) -> FolderSource:
    """The first sweep in another kind of file."""
    (log / f"scenes/a/lidar/000{suffix}").write_bytes(raw)
    scene = log / "scenes/a/scene.json"
    scene.write_text(scene.read_text().replace("lidar/000.npz", f"lidar/000{suffix}"))
    return FolderSource(log, past_sweeps=0)


FLOATS = ("float x", "float y", "float z", "uchar intensity")
ROW = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("i", "u1")])
BINARY = np.array([(1, 2, 3, 255), (4, 5, 6, 0)], ROW).tobytes()


@pytest.mark.parametrize(
    ("suffix", "raw"),
    [
        (".bin", POINTS.tobytes()),
        (".ply", ply_header("ascii", *FLOATS) + b"1 2 3 255\n4 5 6 0\n"),
        (".ply", ply_header("binary_little_endian", *FLOATS) + BINARY),
        (".ply", ply_header("ascii", *FLOATS[::-1]) + b"255 3 2 1\n0 6 5 4\n"),
    ],
)
def test_points_are_the_same_in_every_kind_of_file(log: Path, suffix: str, raw: bytes) -> None:
    source = write_points(log, suffix, raw)
    frame = source.scene("a").frames[0]
    assert frame.lidar is not None
    np.testing.assert_array_equal(source.read_points(frame.lidar), POINTS)
    assert source.annotations(frame).point_classes is None
    np.save(log / "scenes/a/lidar/000.classes.npy", np.array([4, 255], np.uint8))
    classes = source.annotations(frame).point_classes
    assert classes is not None and classes.tolist() == [4, 255]


def test_intensity_and_columns_are_as_the_log_states_them(log: Path) -> None:
    points = {"intensity_max": 1.0, "bin_columns": ["intensity", "x", "y", "z", "ring"]}
    edit_json(log / "log.json", lambda d: d.update(points=points))
    rows = np.array([[0.5, 1, 2, 3, 9]], np.float32)
    source = write_points(log, ".bin", rows.tobytes())
    lidar = source.scene("a").frames[0].lidar
    assert lidar is not None
    np.testing.assert_allclose(source.read_points(lidar), [[1, 2, 3, 127.5]])


@pytest.mark.parametrize(
    ("suffix", "raw", "rule"),
    [
        (".npz", b"", "cannot be read"),
        (".npz", b"PK\x03\x04 cut short", "cannot be read"),
        (".bin", POINTS.tobytes()[:-3], "29 bytes is no multiple of 16.*'bin_columns'"),
        (".bin", b"", "it holds no point"),
        (
            ".bin",
            np.array([[1, 2, np.nan, 4]], "f4").tobytes(),
            "1 of 1 points are not finite, the first is point 0",
        ),
        (
            ".bin",
            np.array([[1, 2, 3, 256]], "f4").tobytes(),
            "intensity 256 is not in 0..255.*'intensity_max'",
        ),
        (".ply", b"solid", "no PLY header"),
        (".ply", ply_header("binary_big_endian", *FLOATS) + BINARY, "needs PLY ascii or"),
        (".ply", ply_header("ascii", *FLOATS[:3]) + b"1 2 3\n4 5 6\n", "property intensity"),
        (".ply", ply_header("binary_little_endian", *FLOATS) + BINARY[:-1], "2 vertices promised"),
        (".ply", ply_header("ascii", *FLOATS) + b"1 2 3 4\n", "2 vertices promised"),
        (".ply", ply_header("ascii", *FLOATS) + b"1 2 3 4\n5 6 x 7\n", "2 vertices promised"),
        (".ply", ply_header("ascii", *FLOATS, "list uchar int k"), "scalar vertex properties"),
    ],
)
def test_a_bad_point_file_is_named_with_the_rule(
    log: Path, suffix: str, raw: bytes, rule: str
) -> None:
    source = write_points(log, suffix, raw)
    lidar = source.scene("a").frames[0].lidar
    assert lidar is not None
    with pytest.raises(SceneError, match=rule) as caught:
        source.read_points(lidar)
    assert f"000{suffix}" in caught.value.where


@pytest.mark.parametrize(
    ("classes", "rule"),
    [
        (np.full(199, 15, np.uint8), r"classes of shape \(199,\) for 200 points"),
        (np.full(200, 15), "must be an array of uint8"),
        (np.full(200, 18, np.uint8), "class 18 is neither in 0..17 nor 255"),
    ],
)
def test_bad_point_classes_are_refused(log: Path, classes: np.ndarray, rule: str) -> None:
    path = log / "scenes/a/lidar/000.npz"
    with np.load(path) as arrays:
        points = arrays["points"]
    np.savez(path, points=points, classes=classes)
    source = FolderSource(log, past_sweeps=0)
    with pytest.raises(SceneError, match=rule) as caught:
        source.annotations(source.scene("a").frames[0])
    assert "000.npz" in caught.value.where


def test_pickles_inside_point_files_are_not_opened(log: Path) -> None:
    np.savez(log / "scenes/a/lidar/000.npz", points=np.array([{}], object))
    source = FolderSource(log, past_sweeps=0)
    lidar = source.scene("a").frames[0].lidar
    assert lidar is not None
    with pytest.raises(SceneError, match="cannot be read"):
        source.read_points(lidar)


def at(*keys: str | int, value: object = None, delete: bool = False) -> Edit:
    """An edit at a place in JSON."""

    def edit(data: dict[str, Any]) -> None:
        inner: Any = data
        for key in keys[:-1]:
            inner = inner[key]
        if delete:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = copy.deepcopy(value)

    return edit


SHEARED = np.eye(4)
SHEARED[0, 1] = 0.5
MIRROR = np.diag([1.0, -1, 1, 1])


@pytest.mark.parametrize(
    ("edit", "place", "rule"),
    [
        (at("speed", value=1), "", "unknown key 'speed'"),
        (at("lidars", delete=True), "", "'lidars' is missing"),
        (at("frames", value={}), "", "'frames' must be a list, is {}"),
        (at("frames", value=[]), "", "it has no frame"),
        (at("frames", 1, value=3), "frame 1", "must be an object, is 3"),
        (at("frames", 1, "token", value=5), "frame 1", "'token' must be a text, is 5"),
        (at("frames", 1, "token", value="a0"), "a0", "the token is that of another frame"),
        (at("frames", 1, "sweep", value="lidar/9.npz"), "a5", "not among the sweeps"),
        (at("frames", 1, "timestamp_us", value=1), "a5", "unknown key 'timestamp_us'"),
        (at("frames", 1, "sweep", delete=True), "a5", "'timestamp_us' is missing"),
        (at("frames", 1, "sweep", value="lidar/000.npz"), "a5", "time runs backwards"),
        (at("sweeps", 2, "timestamp_us", value=1.5), "lidar/002.npz", "must be a whole number"),
        (at("sweeps", 2, "timestamp_us", value=True), "lidar/002.npz", "must be a whole number"),
        (at("sweeps", 2, "timestamp_us", value=7), "lidar/002.npz", "out of time order"),
        (at("sweeps", 2, "file", value="lidar/001.npz"), "lidar/001.npz", "it occurs twice"),
        (at("sweeps", 2, "file", value="lidar/2.pcd"), "lidar/2.pcd", "ends in .npz, .bin, .ply"),
        (at("sweeps", 2, "file", value="../b.npz"), "sweep 2", "stay in the scene's folder"),
        (at("sweeps", 2, "file", value="/b.npz"), "sweep 2", "stay in the scene's folder"),
        (at("sweeps", 2, "lidar", value="roof"), "lidar/002.npz", "unknown lidar 'roof'"),
        (at("sweeps", 2, "T_global_vehicle", value=SHEARED.tolist()), "002", "not a rotation"),
        (at("sweeps", 2, "T_global_vehicle", value=MIRROR.tolist()), "002", "not a rotation"),
        (
            at("sweeps", 2, "T_global_vehicle", "rotation_wxyz", value=[2, 0, 0, 0]),
            "lidar/002.npz",
            "has length 2.0000, not 1",
        ),
        (
            at("lidars", "top", "T_vehicle_lidar", "translation_m", value=[1, 2]),
            "lidars top",
            r"'translation_m' must be 3 finite number\(s\), is \[1, 2\]",
        ),
        (at("cameras", "front", "width", value=0), "cameras front", "must be positive"),
        (at("cameras", "front", "intrinsics", 0, 0, value=-1), "cameras front", "'intrinsics'"),
        (at("cameras", "front", "intrinsics", 1, 0, value="x"), "cameras front", "3 x 3 finite"),
        (at("frames", 1, "cameras", 0, "camera", value="rear"), "a5, camera 0", "unknown camera"),
        (at("frames", 1, "cameras", 0, "file", value="a/../../b"), "a5, camera 0", "must be rel"),
        (
            at("frames", 2, "cameras", 0, "timestamp_us", value=START_US + 1_300_000),
            "a10, camera 0",
            "no vehicle pose near",
        ),
    ],
)
def test_a_broken_scene_is_refused_with_file_place_and_rule(
    log: Path, edit: Edit, place: str, rule: str
) -> None:
    path = log / "scenes/a/scene.json"
    edit_json(path, edit)
    source = FolderSource(log, past_sweeps=2)
    with pytest.raises(SceneError, match=rule) as caught:
        source.scene("a")
    assert place in caught.value.frame
    if "backwards" not in rule:
        assert caught.value.where == "scenes/a/scene.json"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "no readable JSON"),
        ("[]", r"must be an object, is \[\]"),
        ('{"frames": [], "frames": []}', "the key 'frames' occurs twice"),
        ('{"frames": NaN}', "NaN is no number"),
        ("\udcff", "no readable JSON"),
    ],
)
def test_a_scene_file_that_is_no_strict_json_is_refused(log: Path, text: str, rule: str) -> None:
    (log / "scenes/a/scene.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SceneError, match=rule):
        FolderSource(log, past_sweeps=0).scene("a")


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (at("format", value="nuscenes"), "format 'nuscenes' version 1, not 'autolabel-folder' 1"),
        (at("version", value=2), "version 2"),
        (at("licence", delete=True), "'licence' is missing"),
        (at("owner", value="me"), "unknown key 'owner'"),
        (at("taxonomy", value="cityscapes"), "unknown taxonomy 'cityscapes'; known: occ3d-"),
        (at("points", value={"intensity_max": 0}), "intensity_max must be positive"),
        (at("points", value={"bin_columns": ["x", "y", "z"]}), "bin_columns must name"),
        (at("points", value={"bin_columns": [1]}), "must be a list of texts"),
        (at("points", value={"unit": "m"}), "unknown key 'unit'"),
        (at("splits", value={"val": ["z"]}), "'val' names scenes that are not there: z"),
        (at("splits", value={"val": ["a", "a"]}), "'val' names a scene twice"),
    ],
)
def test_a_broken_log_file_stops_at_once(log: Path, edit: Edit, rule: str) -> None:
    edit_json(log / "log.json", edit)
    with pytest.raises(SetupError, match=rule) as caught:
        FolderSource(log, past_sweeps=0)
    assert "log.json" in str(caught.value)


def test_an_empty_folder_or_log_stops_at_once(log: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no log\.json"):
        FolderSource(tmp_path / "nothing", past_sweeps=0)
    (log / "scenes/a/scene.json").unlink()
    with pytest.raises(SetupError, match="no scene"):
        FolderSource(log, past_sweeps=0)


@pytest.mark.parametrize(
    ("edit", "place", "rule"),
    [
        (at("frames", "zz", value=[]), "", "scene.json has no frame zz"),
        (at("boxes", value=[]), "", "unknown key 'boxes'"),
        (at("frames", "a0", 1, "class", value="tank"), "a0, box 1", "unknown class 'tank'"),
        (at("frames", "a0", 1, "size_m", value=[1, 0, 1]), "a0, box 1", "must be positive"),
        (at("frames", "a0", 1, "size_m", value=[1, 1]), "a0, box 1", "must be 3 finite"),
        (at("frames", "a0", 1, "T_global_box", delete=True), "a0, box 1", "is missing"),
        (at("frames", "a0", 1, "T_vehicle_box", value=[]), "a0, box 1", "unknown key"),
        (at("frames", "a0", 1, "track", value=7), "a0, box 1", "'track' must be a text"),
    ],
)
def test_broken_annotations_are_refused(log: Path, edit: Edit, place: str, rule: str) -> None:
    edit_json(log / "scenes/a/annotations.json", edit)
    source = FolderSource(log, past_sweeps=0)
    with pytest.raises(SceneError, match=rule) as caught:
        source.annotations(source.scene("a").frames[0])
    assert caught.value.where == "scenes/a/annotations.json"
    assert caught.value.frame == place


@pytest.mark.parametrize(
    ("raw", "rule"),
    [(b"not a picture", "cannot be decoded"), (None, "cannot be decoded")],
)
def test_a_broken_or_missing_picture_is_named(log: Path, raw: bytes | None, rule: str) -> None:
    path = log / "scenes/a/front/000.png"
    path.unlink() if raw is None else path.write_bytes(raw)
    source = FolderSource(log, past_sweeps=0)
    with pytest.raises(SceneError, match=rule) as caught:
        source.read_image(source.scene("a").frames[0].cameras[0])
    assert "000.png" in caught.value.where


def test_a_picture_of_another_size_is_named(log: Path) -> None:
    Image.new("RGB", (32, 48)).save(log / "scenes/a/front/000.png")
    source = FolderSource(log, past_sweeps=0)
    with pytest.raises(SceneError, match=r"picture is 32x48, scene\.json says 64x48"):
        source.read_image(source.scene("a").frames[0].cameras[0])
