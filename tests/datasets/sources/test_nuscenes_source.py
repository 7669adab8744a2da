"""Frames from a nuScenes root: geometry on real data, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.benchmarks.occ3d_nuscenes import GRID
from datasets.errors import SceneError, SetupError
from datasets.frames import points_in_ego
from datasets.geometry.transforms import apply, inverse
from datasets.model_inputs import InputSpec, prepare_frame
from datasets.sources.nuscenes import NuScenesSource
from datasets.visibility import ray_origins

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data"))
needs_real_data = pytest.mark.skipif(
    not (REAL / "nuscenes-real").is_dir(), reason=f"no real nuScenes frames at {REAL}"
)


@pytest.fixture()
def real(tmp_path: Path) -> Path:
    """A writable copy of the two real key-frames."""
    copy = tmp_path / "nuscenes"
    shutil.copytree(REAL / "nuscenes-real", copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


@needs_real_data
def test_real_frames_have_six_cameras_and_points_in_the_ego_frame(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=9)
    assert len(source.scene_ids("all")) == 2
    for scene_id in source.scene_ids("all"):
        frame = source.scene(scene_id).frames[0]
        assert [c.name for c in frame.cameras][:2] == ["CAM_FRONT_LEFT", "CAM_FRONT"]
        assert len(frame.cameras) == 6
        assert frame.past_sweeps == ()
        points = points_in_ego(source, frame, past=9)
        assert points.shape[1] == 6
        # the road under the car is near z = 0 of the ego frame
        near = points[(np.abs(points[:, 0] - 10) < 5) & (np.abs(points[:, 1]) < 2)]
        assert abs(np.median(near[:, 2])) < 0.4
        assert GRID.contains(points[:, :3]).mean() > 0.8


@needs_real_data
def test_camera_poses_carry_the_ego_motion_between_sensors(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=0)
    frame = source.scene("scene-0061").frames[0]
    front = next(c for c in frame.cameras if c.name == "CAM_FRONT")
    tables = {
        name: {r["token"]: r for r in json.loads((real / "v1.0-mini" / f"{name}.json").read_text())}
        for name in ("sample_data", "ego_pose")
    }
    by_file = {r["filename"]: r for r in tables["sample_data"].values()}
    ego = tables["ego_pose"][by_file[f"samples/CAM_FRONT/{front.path.name}"]["ego_pose_token"]]
    global_position = apply(frame.T_global_ego, front.T_ego_camera[:3, 3])
    # 1.70 m ahead of and 1.51 m above where the ego was when the picture was taken
    moved = np.linalg.norm(global_position[:2] - ego["translation"][:2])
    assert moved == pytest.approx(1.7, abs=0.05)
    assert apply(inverse(front.T_ego_camera), np.array([30.0, 0, 0]))[2] > 25


@needs_real_data
def test_depth_maps_are_near_first_and_in_range(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=9)
    frame = source.scene("scene-0061").frames[0]
    spec = InputSpec(height=256, width=704, lidar=True)
    inputs = prepare_frame(source, frame, spec)
    assert inputs.images.shape == (6, 256, 704, 3)
    assert inputs.depth is not None
    seen = inputs.depth[inputs.depth > 0]
    assert 15_000 < seen.size < 25_000
    assert seen.min() >= 1 and seen.max() < 45


@needs_real_data
def test_missing_sweeps_and_cameras_are_tolerated(tmp_path: Path) -> None:
    copy = tmp_path / "sequence"
    shutil.copytree(REAL / "nuscenes-real-lidarseq", copy)
    source = NuScenesSource(copy, past_sweeps=3, future_sweeps=2)
    (scene_id,) = source.scene_ids("all")
    frames = source.scene(scene_id).frames
    assert [len(f.past_sweeps) for f in frames[:5]] == [0, 1, 2, 3, 3]
    assert [len(f.future_sweeps) for f in frames[-3:]] == [2, 1, 0]
    assert frames[0].cameras == ()
    lags = points_in_ego(source, frames[4], past=3, future=2)[:, 4]
    assert lags.min() < -0.9 and lags.max() > 1.4
    gone = frames[3].lidar
    assert gone is not None
    gone.path.chmod(0o644)
    gone.path.parent.chmod(0o755)
    gone.path.unlink()
    again = NuScenesSource(copy, past_sweeps=3).scene(scene_id).frames[4]
    assert len(again.past_sweeps) == 3
    assert gone.path not in {s.path for s in again.past_sweeps}


@needs_real_data
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.6180339])
def test_a_truncated_point_file_is_named(real: Path, keep: float) -> None:
    source = NuScenesSource(real, past_sweeps=0)
    lidar = source.scene("scene-0061").frames[0].lidar
    assert lidar is not None
    raw = lidar.path.read_bytes()
    lidar.path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(SceneError, match="truncated") as caught:
        source.read_points(lidar)
    assert lidar.path.name in str(caught.value)


@needs_real_data
def test_a_broken_picture_is_named(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=0)
    view = source.scene("scene-0061").frames[0].cameras[0]
    view.path.write_bytes(view.path.read_bytes()[:5000])
    with pytest.raises(SceneError, match="cannot be decoded"):
        source.read_image(view)
    view.path.write_bytes(b"not a jpg")
    with pytest.raises(SceneError, match=re.escape(view.path.name)):
        source.read_image(view)


@needs_real_data
def test_a_nan_pose_spoils_its_scene_only(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=0)
    lidar = source.scene("scene-0061").frames[0].lidar
    assert lidar is not None
    data = json.loads((real / "v1.0-mini" / "sample_data.json").read_text())
    token = next(r["ego_pose_token"] for r in data if r["filename"].endswith(lidar.path.name))
    path = real / "v1.0-mini" / "ego_pose.json"
    poses = json.loads(path.read_text())
    next(p for p in poses if p["token"] == token)["translation"][0] = float("nan")
    path.write_text(json.dumps(poses))
    source = NuScenesSource(real, past_sweeps=0)
    with pytest.raises(SceneError, match="not finite") as caught:
        source.scene("scene-0061")
    assert "ego_pose.json" in str(caught.value)
    other = next(s for s in source.scene_ids("all") if s != "scene-0061")
    assert len(source.scene(other).frames) == 1


@needs_real_data
@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("calibrated_sensor", "camera_intrinsic", [[1.0, 2.0], [3.0]]),
        ("calibrated_sensor", "rotation", [1.0, 0.0]),
        ("sample_data", "timestamp", "noon"),
        ("sample_data", "width", None),
        ("sample_data", "ego_pose_token", "nowhere"),
    ],
)
def test_a_damaged_row_spoils_its_scene_only(
    real: Path, table: str, field: str, value: object
) -> None:
    data = json.loads((real / "v1.0-mini" / "sample_data.json").read_text())
    row = next(r for r in data if "CAM_FRONT/n015-2018-07-24" in r["filename"])
    token = row["token"] if table == "sample_data" else row[f"{table}_token"]
    path = real / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    next(r for r in rows if r["token"] == token)[field] = value
    path.write_text(json.dumps(rows))
    source = NuScenesSource(real, past_sweeps=0)
    with pytest.raises(SceneError, match="scene-0061"):
        source.scene("scene-0061")
    other = next(s for s in source.scene_ids("all") if s != "scene-0061")
    assert len(source.scene(other).frames) == 1


@needs_real_data
def test_a_source_goes_to_workers_without_its_tables(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=0)
    sent = pickle.dumps(source)
    assert len(sent) < 20_000
    again = pickle.loads(sent)
    assert again.scene("scene-0061").frames[0].token == source.scene("scene-0061").frames[0].token
    assert again.fingerprint("scene-0061") == source.fingerprint("scene-0061")


@needs_real_data
def test_unknown_splits_and_roots_are_refused(real: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="unknown split 'nonsense'"):
        NuScenesSource(real, past_sweeps=0).scene_ids("nonsense")
    with pytest.raises(SetupError, match="no such folder"):
        NuScenesSource(tmp_path / "nowhere", past_sweeps=0)
    with pytest.raises(SetupError, match=r"v1\.0-"):
        NuScenesSource(tmp_path, past_sweeps=0)


@needs_real_data
def test_every_lidar_channel_belongs_to_its_key_frame(real: Path) -> None:
    folder = real / "v1.0-mini"

    def rows_of(table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((folder / f"{table}.json").read_text())
        return rows

    def add(table: str, row: dict[str, Any], **changes: Any) -> None:
        path = folder / f"{table}.json"
        path.write_text(json.dumps([*rows_of(table), row | changes]))

    def row(table: str, token: str) -> dict[str, Any]:
        return next(r for r in rows_of(table) if r["token"] == token)

    data = next(r for r in rows_of("sample_data") if "LIDAR_TOP/n015-2018-07-24" in r["filename"])
    mount = row("calibrated_sensor", data["calibrated_sensor_token"])
    sensor = row("sensor", mount["sensor_token"])
    shutil.copy(real / data["filename"], real / "samples" / "rear.pcd.bin")
    add("sensor", sensor, token="rear", channel="LIDAR_REAR")
    x, y, z = mount["translation"]
    place = [x - 2, y, z - 1]
    add("calibrated_sensor", mount, token="rear", sensor_token="rear", translation=place)
    own = {"calibrated_sensor_token": "rear", "filename": "samples/rear.pcd.bin"}
    later = {"timestamp": data["timestamp"] + 7}
    add("sample_data", data, token="rear", prev="", next="", **own, **later)
    source = NuScenesSource(real, past_sweeps=0)
    frame = source.scene("scene-0061").frames[0]
    assert [s.lidar for s in frame.moment] == ["LIDAR_TOP", "LIDAR_REAR"]
    points = points_in_ego(source, frame)
    origins = np.unique(ray_origins(frame, points), axis=0)
    np.testing.assert_allclose(origins, [place, [x, y, z]], atol=1e-9)
    assert 0.4 < (points[:, 5] == 1).mean() < 0.6


@needs_real_data
def test_real_drop_outs_are_left_out_but_for_published_networks(real: Path) -> None:
    source = NuScenesSource(real, past_sweeps=0)
    frame = source.scene("scene-0061").frames[0]
    kept = points_in_ego(source, frame, vehicle="kept")
    counted = source.returns.total(frame.sweeps)
    assert counted.at_origin > 400 and len(kept) == counted.read - counted.at_origin
    assert len(points_in_ego(source, frame, vehicle="published")) == counted.read
