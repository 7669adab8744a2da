"""Waymo: made-up segments in the published formats, and one real frame."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded_reading import refusal_of
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView, points_in_ego
from datasets.geometry.transforms import apply, from_yaw, inverse
from datasets.model_inputs import InputSpec, prepare_frame
from datasets.sources.opening import open_source
from datasets.taxonomy import IGNORE_ID, OCC3D_WAYMO
from viz.render.boxes import box_lines_px, draw_boxes

NEEDS = "pip install --no-deps waymo-open-dataset-tf-2-12-0==1.6.7 and the waymo extra"
pytest.importorskip("waymo_open_dataset.dataset_pb2", reason=NEEDS)
pytest.importorskip("pyarrow", reason=NEEDS)

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import waymo_log  # noqa: E402

from datasets.sources.waymo import components, frame_records  # noqa: E402
from datasets.sources.waymo.cameras import (  # noqa: E402
    RecordedView,
    straightened,
    with_our_axes,
)
from datasets.sources.waymo.classes import (  # noqa: E402
    OCC3D_OF_SEGMENT,
    PANOPTIC_CLASSES,
    decode_panoptic,
    occ3d_of_segments,
    panoptic_counts,
)
from datasets.sources.waymo.range_images import LaserPoints  # noqa: E402
from datasets.sources.waymo.recording import CameraCalibration  # noqa: E402
from datasets.sources.waymo.source import RecordedSweep, WaymoSource  # noqa: E402
from datasets.sources.waymo.tfrecord import masked_crc  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data")) / "waymo"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real Waymo frame at {REAL}")
REAL_SCENE = "pvps_data_one_frame"
SCENE = waymo_log.CONTEXT
FILE = f"segment-{SCENE}_with_camera_labels.tfrecord"


@pytest.fixture(scope="module")
def written() -> waymo_log.Segment:
    return waymo_log.segment()


@pytest.fixture(scope="module", params=["records", "components"])
def root(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    written: waymo_log.Segment,
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "records":
        waymo_log.write_records(folder / "training" / FILE, written)
    else:
        waymo_log.write_components(folder / "training", written)
    return folder


@pytest.fixture()
def file(tmp_path: Path, written: waymo_log.Segment) -> Path:
    """A TFRecord file to damage."""
    return waymo_log.write_records(tmp_path / FILE, written)


def changed(written: waymo_log.Segment, change: Any) -> waymo_log.Segment:
    """A copy whose second frame ``change`` has worked on."""
    frames = []
    for k, frame in enumerate(written.frames):
        copy = frame_records.protos().Frame()
        copy.CopyFrom(frame)
        if k == 1:
            change(copy)
        frames.append(copy)
    return waymo_log.Segment(frames=frames, points_m=written.points_m)


def sweep_of(source: WaymoSource, k: int) -> RecordedSweep:
    lidar = source.scene(SCENE).frames[k].lidar
    assert isinstance(lidar, RecordedSweep)
    return lidar


def turn_of(source: WaymoSource, k: int) -> LaserPoints:
    """The points of every laser in a frame."""
    parts = [source.laser_points(sweep) for sweep in source.scene(SCENE).frames[k].moment]
    return LaserPoints(
        **{
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(LaserPoints)
        }
    )


def test_points_of_both_returns_come_back_to_a_millimetre_from_a_moving_car(
    root: Path, written: waymo_log.Segment
) -> None:
    source = WaymoSource(root)
    for k in range(3):
        points = turn_of(source, k)
        truth = written.in_order(k)
        assert points.xyz_m.shape == truth.shape
        assert len(truth) > 3000
        assert np.abs(points.xyz_m - truth).max() < 1e-3
        assert set(points.laser) == {1, 2, 5} and set(points.return_number) == {1, 2}
        # without the pose of each pixel, far points of a turn would be decimetres off
        assert np.linalg.norm(waymo_log.SPEED_M_S) * waymo_log.TURN_S / 2 > 0.5


def test_features_and_no_label_zones_stay_with_their_points(
    root: Path, written: waymo_log.Segment
) -> None:
    source = WaymoSource(root)
    points = turn_of(source, 1)
    ahead = written.in_order(1)[:, 0] > waymo_log.NO_LABEL_X_M
    assert 0.02 < ahead.mean() < 0.98
    np.testing.assert_array_equal(points.in_no_label_zone, ahead)
    second = points.return_number == 2
    assert set(points.intensity[second]) == {20000.0} and set(points.elongation[second]) == {1.5}
    assert (points.elongation[~second] == 0.5).all() and points.intensity[~second].max() < 20
    without = WaymoSource(root, no_label_zones=False)
    kept = turn_of(without, 1)
    np.testing.assert_array_equal(kept.xyz_m, points.xyz_m[~ahead])


def test_points_in_the_ego_frame_are_those_of_the_vehicle_frame(
    root: Path, written: waymo_log.Segment
) -> None:
    source = WaymoSource(root)
    frame = source.scene(SCENE).frames[2]
    assert frame.lidar is not None
    # rays are cast from where each laser is, along the vehicle's axes
    assert [sweep.lidar for sweep in frame.moment] == ["TOP", "FRONT", "REAR"]
    np.testing.assert_allclose(frame.lidar.T_ego_lidar, from_yaw(0, (1.43, 0, 2.18)), atol=1e-12)
    points = points_in_ego(source, frame, vehicle="kept")
    assert np.abs(points[:, :3] - written.in_order(2)).max() < 1e-3


def test_earlier_turns_lie_where_the_car_was(root: Path, written: waymo_log.Segment) -> None:
    source = WaymoSource(root, past_sweeps=5, future_sweeps=1)
    frames = source.scene(SCENE).frames
    assert [len(f.past_sweeps) for f in frames] == [0, 3, 6]
    assert [len(f.future_sweeps) for f in frames] == [3, 3, 0]
    points = np.concatenate(
        [
            apply(sweep.T_ego_lidar, source.read_points(sweep)[:, :3])
            for sweep in frames[2].past_sweeps[3:]
        ]
    )
    T = inverse(waymo_log.pose(2.5 * waymo_log.TURN_S)) @ waymo_log.pose(0.5 * waymo_log.TURN_S)
    assert np.abs(points - apply(T, written.in_order(0))).max() < 1e-3
    lags = points_in_ego(source, frames[2], past=5)[:, 4]
    np.testing.assert_allclose(np.unique(lags), [0, 0.1, 0.2], atol=1e-6)


def test_cameras_are_where_the_car_was_in_the_middle_of_the_readout(root: Path) -> None:
    frame = WaymoSource(root).scene(SCENE).frames[1]
    names = ["FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT"]
    assert [view.name for view in frame.cameras] == names
    for number, view in enumerate(frame.cameras, start=1):
        t_s = waymo_log.TURN_S + 0.02 + 0.005 * number + 0.023
        assert view.timestamp_us == pytest.approx((waymo_log.START_S + t_s) * 1e6, abs=1)
        T = inverse(waymo_log.pose(1.5 * waymo_log.TURN_S)) @ waymo_log.pose(t_s)
        np.testing.assert_allclose(view.T_ego_vehicle, T, atol=1e-5)
        yaw = waymo_log.CAMERAS[number]
        ahead = np.array([1.5 + 20 * np.cos(yaw), 0.1 * yaw + 20 * np.sin(yaw), 2.1])
        seen = apply(inverse(view.T_ego_camera), apply(T, ahead))
        np.testing.assert_allclose(seen, [0, 0, 20], atol=1e-4)


def test_camera_axes_are_turned() -> None:
    T_ego_camera = from_yaw(0.4, (1.0, 2.0, 3.0))
    ours = with_our_axes(T_ego_camera)
    np.testing.assert_allclose(np.linalg.det(ours[:3, :3]), 1)
    # a point 5 m along Waymo's x, 2 m left and 1 m up: right is -2, down is -1
    point = apply(T_ego_camera, np.array([5.0, 2.0, 1.0]))
    np.testing.assert_allclose(apply(inverse(ours), point), [-2, -1, 5], atol=1e-12)


def test_both_formats_give_the_same_frames(tmp_path: Path, written: waymo_log.Segment) -> None:
    waymo_log.write_records(tmp_path / "v1" / FILE, written)
    waymo_log.write_components(tmp_path / "v2", written)
    one, two = WaymoSource(tmp_path / "v1"), WaymoSource(tmp_path / "v2")
    for a, b in zip(one.scene(SCENE).frames, two.scene(SCENE).frames, strict=True):
        assert a.token == b.token and a.timestamp_us == b.timestamp_us
        np.testing.assert_array_equal(a.T_global_ego, b.T_global_ego)
        for x, y in zip(a.cameras, b.cameras, strict=True):
            assert x.name == y.name and x.timestamp_us == y.timestamp_us
            np.testing.assert_array_equal(x.intrinsics, y.intrinsics)
            np.testing.assert_array_equal(x.T_ego_camera, y.T_ego_camera)
            np.testing.assert_array_equal(one.read_image(x), two.read_image(y))
            first, second = one.panoptic(x), two.panoptic(y)
            assert first is not None and second is not None
            np.testing.assert_array_equal(first[0], second[0])
        assert a.lidar is not None and b.lidar is not None
        np.testing.assert_array_equal(one.read_points(a.lidar), two.read_points(b.lidar))
        marked = one.annotations(a), two.annotations(b)
        assert [box.track for box in marked[0].boxes] == [box.track for box in marked[1].boxes]
        for p, q in zip(marked[0].boxes, marked[1].boxes, strict=True):
            np.testing.assert_array_equal(p.T_ego_box, q.T_ego_box)
            assert p.size_m == q.size_m and p.class_id == q.class_id
        assert marked[0].point_classes is not None and marked[1].point_classes is not None
        np.testing.assert_array_equal(marked[0].point_classes, marked[1].point_classes)


def test_boxes_and_point_classes_are_of_occ3d_waymo(root: Path) -> None:
    source = WaymoSource(root)
    frame = source.scene(SCENE).frames[1]
    marked = source.annotations(frame)
    names = [OCC3D_WAYMO.names[box.class_id] for box in marked.boxes]
    assert names == ["vehicle", "pedestrian", "sign", "cyclist"]
    box = marked.boxes[2]
    assert box.track == "object-2" and box.size_m == (4.0, 2.0, 1.5)
    np.testing.assert_allclose(box.T_ego_box, from_yaw(0.2, (11.0, 6.0, 1.0)))
    assert frame.lidar is not None
    classes, points = marked.point_classes, source.laser_points(frame.lidar)
    assert classes is not None and len(classes) == len(source.read_points(frame.lidar))
    assert set(points.laser) == {1} and marked.companion_classes == ()
    top = [OCC3D_WAYMO.id_of("road"), OCC3D_WAYMO.id_of("building"), IGNORE_ID]
    assert set(classes) <= set(top)
    assert (classes == top[0]).sum() > 500 and (classes == top[1]).sum() > 500


def test_splits_are_the_folders(tmp_path: Path, written: waymo_log.Segment) -> None:
    one = waymo_log.Segment(frames=written.frames[:1], points_m=[])
    for name in "abcde":
        waymo_log.write_records(tmp_path / "training" / f"{name}.tfrecord", one)
    waymo_log.write_records(tmp_path / "validation" / "f.tfrecord", one)
    source = WaymoSource(tmp_path)
    assert source.scene_ids("train") == source.scene_ids("training") == tuple("abcde")
    assert source.scene_ids("val") == ("f",) and source.scene_ids("all") == tuple("abcdef")
    assert len(source.scene_ids("labeled")) == 1 and len(source.scene_ids("unlabeled")) == 4
    assert WaymoSource(tmp_path, labelled=("b",)).scene_ids("labeled") == ("b",)
    assert source.scene_ids("c,f") == ("c", "f")
    with pytest.raises(SetupError, match="unknown split 'testing'"):
        source.scene_ids("testing")
    waymo_log.write_records(tmp_path / "validation" / "a.tfrecord", one)
    with pytest.raises(SetupError, match="another folder has too: a"):
        WaymoSource(tmp_path)


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="neither"):
        WaymoSource(tmp_path)


def test_the_networks_inputs_are_made_of_it(root: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source("waymo", root, past_sweeps=1)))
    frame = source.scene(SCENE).frames[1]
    inputs = prepare_frame(source, frame, InputSpec(height=64, width=96, lidar=True))
    assert inputs.images.shape == (5, 64, 96, 3)
    assert inputs.depth is not None and (inputs.depth > 0).sum() > 100


def test_the_fingerprint_tells_contents_and_options_apart(
    tmp_path: Path, written: waymo_log.Segment
) -> None:
    def moved(frame: Any) -> None:
        frame.laser_labels[0].box.center_x += 0.01

    waymo_log.write_records(tmp_path / "a" / FILE, written)
    waymo_log.write_records(tmp_path / "b" / FILE, changed(written, moved))
    prints = {
        WaymoSource(tmp_path / "a").fingerprint(SCENE),
        WaymoSource(tmp_path / "b").fingerprint(SCENE),
        WaymoSource(tmp_path / "a", straighten=False).fingerprint(SCENE),
    }
    assert len(prints) == 3
    assert WaymoSource(tmp_path / "a").fingerprint(SCENE) in prints


def test_a_frame_without_returns_has_no_lidar(tmp_path: Path, written: waymo_log.Segment) -> None:
    def emptied(frame: Any) -> None:
        for laser in frame.lasers:
            laser.ClearField("ri_return1")
            laser.ClearField("ri_return2")

    waymo_log.write_records(tmp_path / FILE, changed(written, emptied))
    source = WaymoSource(tmp_path, past_sweeps=2)
    frames = source.scene(SCENE).frames
    assert [f.lidar is None for f in frames] == [False, True, False]
    assert [len(f.past_sweeps) for f in frames] == [0, 3, 3]
    assert len(source.annotations(frames[1]).boxes) == 4
    with pytest.raises(SceneError, match="has no LiDAR"):
        points_in_ego(source, frames[1])


def _nan_range(frame: Any) -> None:
    values = np.zeros((16, 180, 4), np.float32)
    values[3:9] = np.nan
    frame.lasers[0].ri_return1.range_image_compressed = waymo_log.packed(values)


def _wrong_size(frame: Any) -> None:
    values = np.zeros((16, 181, 4), np.float32)
    frame.lasers[0].ri_return2.range_image_compressed = waymo_log.packed(values)


def _cut_zlib(frame: Any) -> None:
    image = frame.lasers[0].ri_return1
    image.range_image_compressed = image.range_image_compressed[:-20]


def _huge(frame: Any) -> None:
    frame.lasers[0].ri_return1.range_image_compressed = zlib.compress(bytes(80 << 20), 1)


def _inclinations(frame: Any) -> None:
    frame.context.laser_calibrations[0].beam_inclinations.pop()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_nan_range, "not finite"),
        (_wrong_size, r"an image is \(16, 181, 4\)"),
        (_cut_zlib, "truncated"),
        (_huge, "unpacks to over"),
        (_inclinations, "15 inclinations for 16 rows"),
    ],
)
def test_a_damaged_range_image_names_file_record_and_laser(
    tmp_path: Path, written: waymo_log.Segment, change: Any, rule: str
) -> None:
    waymo_log.write_records(tmp_path / FILE, changed(written, change))
    source = WaymoSource(tmp_path)
    with pytest.raises(SceneError, match=rule) as caught:
        source.read_points(sweep_of(source, 1))
    assert FILE in str(caught.value) and "record 1" in str(caught.value)
    assert "laser TOP" in str(caught.value)
    assert len(source.read_points(sweep_of(source, 2))) > 2000


def test_one_return_that_is_not_finite_is_left_out_and_counted(
    tmp_path: Path, written: waymo_log.Segment
) -> None:
    def spoiled(frame: Any) -> None:
        values = np.zeros((16, 180, 4), np.float32)
        values[3, 4], values[3, 5:105, 0] = np.nan, 9.0
        frame.lasers[0].ri_return1.range_image_compressed = waymo_log.packed(values)

    waymo_log.write_records(tmp_path / FILE, changed(written, spoiled))
    source = WaymoSource(tmp_path)
    sweep = sweep_of(source, 1)
    points = source.read_points(sweep)
    counted = source.returns.total([sweep])
    assert counted.not_finite == 1 and counted.read == len(points) + 1


def _other_context(frame: Any) -> None:
    frame.context.name = "another"


def _no_pose(frame: Any) -> None:
    frame.ClearField("pose")


def _late_pose(frame: Any) -> None:
    frame.images[2].pose_timestamp += 3


def _uncalibrated(frame: Any) -> None:
    del frame.context.camera_calibrations[2]


def _time_backwards(frame: Any) -> None:
    frame.timestamp_micros = 5


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_other_context, "record 1.*is of another"),
        (_no_pose, "record 1.*16 finite values"),
        (_late_pose, "s from its picture"),
        (_uncalibrated, "record 1.*camera 3: it has no calibration"),
        (_time_backwards, "time runs backwards"),
    ],
)
def test_a_damaged_frame_is_named(
    tmp_path: Path, written: waymo_log.Segment, change: Any, rule: str
) -> None:
    waymo_log.write_records(tmp_path / FILE, changed(written, change))
    with pytest.raises(SceneError, match=rule):
        WaymoSource(tmp_path).scene(SCENE)


def test_a_corrupt_record_is_set_aside_with_its_scene(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(SceneError, match=r"record 1.*checksum of its data") as caught:
        WaymoSource(file.parent).scene(SCENE)
    assert str(file) in str(caught.value)


def test_a_record_that_is_no_frame_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(waymo_log.record(b"\xff\xff\xff"))
    with pytest.raises(SceneError, match=r"record 0.*no Frame proto"):
        WaymoSource(tmp_path).scene(SCENE)


def _other_picture(frame: Any) -> None:
    frame.images[0].image = waymo_log.jpeg(np.zeros((64, 64, 3), np.uint8))


def _no_picture(frame: Any) -> None:
    frame.images[0].image = b"JFIF"


@pytest.mark.parametrize(
    ("change", "rule"), [(_other_picture, "64x64"), (_no_picture, "cannot be decoded")]
)
def test_a_bad_picture_names_file_record_and_camera(
    tmp_path: Path, written: waymo_log.Segment, change: Any, rule: str
) -> None:
    waymo_log.write_records(tmp_path / FILE, changed(written, change))
    source = WaymoSource(tmp_path)
    with pytest.raises(SceneError, match=f"FRONT.*record 1.*{rule}"):
        source.read_image(source.scene(SCENE).frames[1].cameras[0])


def _bad_size(frame: Any) -> None:
    frame.laser_labels[3].box.width = 0


def _nan_heading(frame: Any) -> None:
    frame.laser_labels[3].box.heading = np.nan


@pytest.mark.parametrize("change", [_bad_size, _nan_heading])
def test_a_bad_box_names_file_record_and_track(
    tmp_path: Path, written: waymo_log.Segment, change: Any
) -> None:
    waymo_log.write_records(tmp_path / FILE, changed(written, change))
    source = WaymoSource(tmp_path)
    with pytest.raises(SceneError, match=r"record 1.*object-3"):
        source.annotations(source.scene(SCENE).frames[1])


def test_damaged_components_name_their_file(tmp_path: Path, written: waymo_log.Segment) -> None:
    waymo_log.write_components(tmp_path, written)
    lidar = tmp_path / "lidar" / f"{SCENE}.parquet"
    lidar.write_bytes(lidar.read_bytes()[:-100])
    with pytest.raises(SceneError, match="cannot be read") as caught:
        WaymoSource(tmp_path).scene(SCENE)
    assert str(lidar) in str(caught.value)
    lidar.unlink()
    source = WaymoSource(tmp_path)
    frames = source.scene(SCENE).frames
    assert all(f.lidar is None and len(f.cameras) == 5 for f in frames)
    (tmp_path / "camera_image" / f"{SCENE}.parquet").unlink()
    with pytest.raises(SceneError, match="no sensor's data"):
        source = WaymoSource(tmp_path)
        source.annotations(source.scene(SCENE).frames[0])


def test_a_record_of_a_million_empty_messages_is_refused(
    tmp_path: Path, written: waymo_log.Segment
) -> None:
    """Two bytes in the file are a hundred in memory."""

    def large(frame: Any) -> None:
        frame.images[0].image = bytes(6 << 20)

    path = waymo_log.write_records(tmp_path / FILE, changed(written, large))
    assert len(frame_records.FrameRecords(path).frames()) == len(written.frames)
    frame = written.frames[0]
    for field in (b"\x32\x00", b"\x0a\x02\x12\x00"):  # laser_labels, context.camera_calibrations
        kind = frame_records.protos().Frame
        data = frame.SerializeToString() + field * (3 << 20)
        kind_of = kind.DESCRIPTOR.fields_by_number
        assert kind_of[field[0] >> 3].message_type is not None
        path.write_bytes(record(data))
        assert "MAX_MESSAGES" in refusal_of(lambda: frame_records.FrameRecords(path).frames())


@pytest.mark.parametrize(
    "data", [b"\x32", b"\x32\x80", b"\x32\x05a", b"\x33", b"\xff" * 12, b"\x32\x02\x0a\x05"]
)
def test_messages_that_are_cut_off_are_not_counted_for_ever(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|group"):
        frame_records.check_messages(data, frame_records.protos().Frame.DESCRIPTOR)


def record(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    sums = [masked_crc(part).to_bytes(4, "little") for part in (length, data)]
    return length + sums[0] + data + sums[1]


def component(folder: Path, name: str, written: waymo_log.Segment) -> Path:
    waymo_log.write_components(folder, written)
    return folder / name / f"{SCENE}.parquet"


COMPONENTS = ("vehicle_pose", "camera_image", "lidar", "lidar_box", "camera_calibration")


def read_all(folder: Path) -> None:
    source = WaymoSource(folder)
    for frame in source.scene(SCENE).frames:
        source.annotations(frame)
        for sweep in frame.sweeps:
            source.read_points(sweep)
        for view in frame.cameras:
            source.read_image(view)


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_are_measured_before_they_are_opened(
    tmp_path: Path, written: waymo_log.Segment, name: str
) -> None:
    path = component(tmp_path, name, written)
    raw = path.read_bytes()
    os.truncate(path, 3 << 30)
    assert "no Parquet file" in refusal_of(lambda: read_all(tmp_path))
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write((2 << 30).to_bytes(4, "little") + b"PAR1")
    assert "MAX_FOOTER_BYTES" in refusal_of(lambda: read_all(tmp_path))
    path.write_bytes(raw)
    read_all(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refusal_of(lambda: read_all(tmp_path))


@pytest.mark.parametrize(
    "limit", ["MAX_FILE_BYTES", "MAX_ROWS", "MAX_GROUP_BYTES", "MAX_READ_BYTES"]
)
def test_what_components_unpack_to_is_limited(
    tmp_path: Path, written: waymo_log.Segment, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    component(tmp_path, "lidar", written)
    monkeypatch.setattr(components, limit, 1)
    assert limit in refusal_of(lambda: read_all(tmp_path))


def test_equal_values_count_as_what_they_unpack_to(
    tmp_path: Path, written: waymo_log.Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six million of them take some kilobytes."""
    path = component(tmp_path, "lidar", written)
    table = pq.read_table(path).slice(0, 1)
    at = table.schema.get_field_index("[LiDARComponent].range_image_return1.values")
    row = pa.array([np.zeros(6_000_000, np.float32)], table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), row), path)
    assert path.stat().st_size < 1 << 20
    source = WaymoSource(tmp_path)
    sweep = sweep_of(source, 0)
    monkeypatch.setattr(components, "MAX_GROUP_BYTES", 40 << 20)
    assert "MAX_GROUP_BYTES" in refusal_of(lambda: source.read_points(sweep))


def test_rows_are_the_same_however_many_are_decoded_at_a_time(
    tmp_path: Path, written: waymo_log.Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = component(tmp_path, "lidar", written)
    whole = turn_of(WaymoSource(tmp_path), 1)
    monkeypatch.setattr(components, "_BATCH_BYTES", 1)
    for size in (1, 2, 1000):
        pq.write_table(pq.read_table(path), path, row_group_size=size)
        np.testing.assert_array_equal(turn_of(WaymoSource(tmp_path), 1).xyz_m, whole.xyz_m)


@pytest.mark.parametrize("name", COMPONENTS)
def test_columns_of_another_kind_are_refused_with_the_scene(
    tmp_path: Path, written: waymo_log.Segment, name: str
) -> None:
    path = component(tmp_path, name, written)
    table = pq.read_table(path)
    pq.write_table(
        table.set_column(1, table.schema.field(1).name, pa.array(["x"] * len(table))), path
    )
    with pytest.raises(SceneError, match="is of string"):
        read_all(tmp_path)
    for i, field in enumerate(table.schema):
        for other in (pa.array(["x"] * len(table)), pa.nulls(len(table), pa.float64())):
            for damaged in (
                table.set_column(i, field.name, other),
                table.drop_columns([field.name]),
            ):
                pq.write_table(damaged, path)
                try:
                    read_all(tmp_path)
                except SceneError as error:
                    assert str(tmp_path) in str(error)


def test_another_logs_views_are_refused(root: Path) -> None:
    source = WaymoSource(root)
    view = CameraView(
        name="CAM",
        path=Path("x.jpg"),
        timestamp_us=0,
        width=4,
        height=4,
        intrinsics=np.eye(3),
        T_ego_camera=np.eye(4),
    )
    with pytest.raises(ValueError, match="not of a Waymo scene"):
        source.read_image(view)


def test_straightening_undoes_the_lens() -> None:
    camera = CameraCalibration(
        name=1,
        width=480,
        height=320,
        focal_px=(510.0, 505.0),
        centre_px=(238.0, 161.5),
        distortion=(0.04, -0.33, 0.001, -0.0016, 0.02),
        T_vehicle_camera=np.eye(4),
    )
    k1, k2, p1, p2, k3 = camera.distortion

    def pattern(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([120 + 90 * np.sin(40 * x), 120 + 90 * np.cos(35 * y), 99 + 0 * x], -1)

    v, u = np.mgrid[0:320, 0:480] + 0.5
    x_seen, y_seen = (u - 238.0) / 510.0, (v - 161.5) / 505.0
    x, y = x_seen.copy(), y_seen.copy()
    for _ in range(60):  # which ray of a pinhole ends where this pixel is
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x = (x_seen - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial
        y = (y_seen - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial
    stored = pattern(x, y).round().astype(np.uint8)
    wanted = pattern(x_seen, y_seen)
    bent = np.abs(stored - wanted).max()
    left = np.abs(straightened(stored, camera)[2:-2, 2:-2] - wanted[2:-2, 2:-2]).max()
    assert bent > 25 and left < 1.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -1e308])
@pytest.mark.parametrize("place", range(9))
def test_a_lens_that_cannot_be_reads_no_memory_of_others(
    tmp_path: Path, written: waymo_log.Segment, place: int, value: float
) -> None:
    """A position that is no number is no index either."""

    def spoil(frame: Any) -> None:
        for camera in frame.context.camera_calibrations:
            camera.intrinsic[place] = value

    waymo_log.write_records(tmp_path / FILE, changed(written, spoil))
    source = WaymoSource(tmp_path)
    try:
        (view, *_) = source.scene(SCENE).frames[1].cameras
        pixels = source.read_image(view)
    except SceneError as error:
        assert str(tmp_path) in str(error)
        return
    assert np.isfinite(value)
    stored = WaymoSource(tmp_path, straighten=False).read_image(view)
    assert pixels.min() >= stored.min() and pixels.max() <= stored.max()


def test_class_lists_are_those_of_the_protos() -> None:
    from waymo_open_dataset.protos import camera_segmentation_pb2, segmentation_pb2

    def names(enum: Any) -> list[str]:
        return [name.removeprefix("TYPE_").lower() for name, _ in sorted(enum, key=lambda e: e[1])]

    assert names(segmentation_pb2.Segmentation.Type.items()) == list(OCC3D_OF_SEGMENT)
    assert names(camera_segmentation_pb2.CameraSegmentation.Type.items()) == list(PANOPTIC_CLASSES)
    table = occ3d_of_segments()
    assert table[0] == IGNORE_ID and set(table[23:]) == {IGNORE_ID}
    assert set(table[1:23]) == set(range(1, 15))


def test_panoptic_labels_are_decoded_and_bad_ones_refused(root: Path) -> None:
    source = WaymoSource(root)
    view = source.scene(SCENE).frames[0].cameras[3]
    label = source.panoptic(view)
    assert label is not None
    classes, instances = label
    assert panoptic_counts(classes) == {"car": 192 * 64, "sky": 192 * 64}
    assert set(instances[64:].ravel()) == {4} and not instances[:64].any()
    png = waymo_log.png(np.full((2, 2), 29000, np.uint16))
    for data, divisor, rule in (
        (png, 1000, "class 29 is out of range"),
        (png, 0, "divisor must be positive"),
        (b"no picture", 1000, "cannot be decoded"),
        (waymo_log.png(np.zeros((2, 2), np.uint8)), 1000, "not 16 bits"),
    ):
        with pytest.raises(SceneError, match=rule):
            decode_panoptic(data, divisor)


def test_reading_imports_no_tensorflow(file: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from datasets.sources.waymo.source import WaymoSource; "
        f"source = WaymoSource(Path({str(file.parent)!r})); "
        f"frame = source.scene({SCENE!r}).frames[0]; "
        "source.read_points(frame.lidar); source.read_image(frame.cameras[0]); "
        "assert not any('tensorflow' in name for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_without_the_protos_the_error_says_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "waymo_open_dataset", None)
    with pytest.raises(SetupError, match=r"--no-deps waymo-open-dataset-tf-2-12-0==1\.6\.7"):
        WaymoSource(file.parent).scene(SCENE)


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vehicle_pose").mkdir()
    (tmp_path / "vehicle_pose" / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SetupError, match=r"-e '\.\[waymo\]'"):
        WaymoSource(tmp_path).scene("a")


@needs_real_data
def test_the_real_frame_has_five_pictures_and_75_boxes_and_no_lidar() -> None:
    source = WaymoSource(REAL)
    assert source.scene_ids("all") == (REAL_SCENE,)
    (frame,) = source.scene(REAL_SCENE).frames
    assert frame.lidar is None
    assert frame.token == "1024360143612057520_3580_000_3600_000_1553735853462203"
    sizes = [(view.width, view.height) for view in frame.cameras]
    assert sizes == [(1920, 1280)] * 3 + [(1920, 886)] * 2
    for view in frame.cameras:
        assert source.read_image(view).shape == (view.height, view.width, 3)
    boxes = source.annotations(frame).boxes
    counts = np.bincount([box.class_id for box in boxes])
    assert len(boxes) == 75 and counts.tolist() == [0, 37, 12, 25, 1]
    label = source.panoptic(frame.cameras[0])
    assert label is not None
    counted = panoptic_counts(label[0])
    assert counted["road"] == 889368 and counted["pedestrian"] == 66505
    assert sum(counted.values()) == 1920 * 1280


def _distorted_px(view: RecordedView, px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where points of the straightened picture lie in the stored one."""
    K = view.intrinsics
    x, y = (px[:, 0] - K[0, 2]) / K[0, 0], (px[:, 1] - K[1, 2]) / K[1, 1]
    k1, k2, p1, p2, k3 = view.calibration.distortion
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([u * K[0, 0] + K[0, 2], v * K[1, 1] + K[1, 2]], axis=1)


@needs_real_data
def test_real_boxes_project_to_where_waymo_projects_them() -> None:
    source = WaymoSource(REAL)
    (frame,) = source.scene(REAL_SCENE).frames
    boxes = {box.track: box for box in source.annotations(frame).boxes}
    path = REAL / f"{REAL_SCENE}.tfrecord"
    proto = frame_records.FrameRecords(path)._frame(0)
    offsets = []
    for projected in proto.projected_lidar_labels:
        view = frame.cameras[projected.name - 1]
        assert isinstance(view, RecordedView)
        for label in projected.labels:
            box = boxes[next(track for track in boxes if label.id.startswith(track))]
            corners = _distorted_px(view, box_lines_px(view, box).reshape(-1, 2))
            low, high = corners.min(0), corners.max(0)
            inside = (low > 5).all() and (high < (view.width - 5, view.height - 5)).all()
            if not inside:  # Waymo cuts these at the picture's edge
                continue
            middle = np.array([label.box.center_x, label.box.center_y])
            half = np.array([label.box.length, label.box.width]) / 2
            offsets += [low - (middle - half), high - (middle + half)]
    assert len(offsets) == 2 * 43
    assert np.abs(offsets).max() < 0.3  # pixels; the rolling shutter is what is left


@needs_real_data
def test_boxes_are_drawn_over_a_real_picture() -> None:
    source = WaymoSource(REAL)
    frame = source.scene(REAL_SCENE).frames[0]
    view = frame.cameras[0]
    pixels = source.read_image(view)
    boxes = source.annotations(frame).boxes
    drawn = np.asarray(draw_boxes(pixels, view, boxes, source.taxonomy))
    different = (drawn != pixels).any(axis=2)
    assert 0.002 < different.mean() < 0.05
    colors = {tuple(c) for c in np.unique(drawn[different], axis=0).tolist()}
    assert colors == {OCC3D_WAYMO.colors[i] for i in (1, 2, 3)}  # the cyclist is elsewhere


@needs_real_data
def test_real_components_without_sensors_give_poses() -> None:
    source = WaymoSource(REAL / "v2")
    (scene_id,) = source.scene_ids("all")
    frames = source.scene(scene_id).frames
    assert len(frames) == 199
    assert all(f.lidar is None and not f.cameras for f in frames)
    steps_s = np.diff([f.timestamp_us for f in frames]) * 1e-6
    assert np.abs(steps_s - 0.1).max() < 0.01
    places = np.array([f.T_global_ego[:3, 3] for f in frames])
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 4  # m in 0.1 s
