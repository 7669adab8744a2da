"""The built-in city: a real nuScenes root, reproducible bytes, labels that fit the sensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_script
from numpy.typing import NDArray
from nuscenes import NuScenes
from PIL import Image

from datasets.benchmarks import openocc_flow
from datasets.benchmarks.class_mapping import OCC3D_TO_OPENOCC_FLOW
from datasets.benchmarks.occ3d_nuscenes import GRID, TAXONOMY, labels_path, read_labels
from datasets.errors import SetupError
from datasets.geometry.transforms import Transform, apply, from_quaternion, inverse
from datasets.sources.synthetic.city import (
    CityConfig,
    city_config,
    city_splits,
    ensure_city,
    generate_city,
)
from datasets.sources.synthetic.export.class_statistics import (
    NUSCENES_VOXELS,
    city_statistics,
    contact_sheet,
)

CONFIG = CityConfig(labeled_scenes=1, unlabeled_scenes=0, val_scenes=1, frames_per_scene=2)
FREE = TAXONOMY.free_id
TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map"),
    *("sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_city(tmp_path_factory.mktemp("city") / "root", CONFIG, workers=1, progress=False)


@pytest.fixture(scope="session")
def nusc(city: Path) -> Any:
    return NuScenes("v1.0-trainval", dataroot=str(city), verbose=False)


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def sensor_pose(nusc: Any, data: Any) -> tuple[Transform, Transform]:
    """Sensor to ego, ego to global."""
    mount = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
    pose = nusc.get("ego_pose", data["ego_pose_token"])
    return (
        from_quaternion(mount["rotation"], mount["translation"]),
        from_quaternion(pose["rotation"], pose["translation"]),
    )


def key_returns(nusc: Any, city: Path, sample: Any) -> NDArray[np.float64]:
    """Key sweep in the ego frame."""
    data = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
    points = np.fromfile(city / data["filename"], np.float32).reshape(-1, 5)
    return apply(sensor_pose(nusc, data)[0], points[:, :3])


def test_all_13_tables_exist_and_every_file_they_name(nusc: Any, city: Path) -> None:
    assert {p.stem for p in (city / "v1.0-trainval").glob("*.json")} == set(TABLES)
    for row in nusc.sample_data:
        path = city / row["filename"]
        if row["fileformat"] == "jpg":
            assert Image.open(path).size == (row["width"], row["height"]) == (256, 96)
        else:
            assert path.stat().st_size % 20 == 0 and path.stat().st_size > 200_000
    for row in nusc.map:
        assert (city / row["filename"]).is_file()


def test_tokens_are_unique(nusc: Any) -> None:
    for table in TABLES:
        tokens = [row["token"] for row in getattr(nusc, table)]
        assert len(tokens) == len(set(tokens)), table


@pytest.mark.parametrize("table", ["sample", "sample_data", "sample_annotation"])
def test_chains_are_whole_in_both_directions(nusc: Any, table: str) -> None:
    starts = [row for row in getattr(nusc, table) if row["prev"] == ""]
    seen = 0
    for row in starts:
        seen += 1
        while row["next"]:
            following = nusc.get(table, row["next"])
            assert following["prev"] == row["token"]
            if "timestamp" in row:
                assert following["timestamp"] > row["timestamp"]
            row = following
            seen += 1
    assert seen == len(getattr(nusc, table))


def test_instances_name_the_ends_of_their_tracks(nusc: Any) -> None:
    for instance in nusc.instance:
        first = nusc.get("sample_annotation", instance["first_annotation_token"])
        last = nusc.get("sample_annotation", instance["last_annotation_token"])
        assert first["prev"] == "" and last["next"] == ""
        nusc.get("category", instance["category_token"])


def test_lidar_runs_at_20_hz_with_nine_sweeps_between_key_frames(nusc: Any) -> None:
    for scene in nusc.scene:
        sample = nusc.get("sample", scene["first_sample_token"])
        row = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        before = row
        for lag in range(1, 10):
            before = nusc.get("sample_data", before["prev"])
            assert row["timestamp"] - before["timestamp"] == lag * 50_000
            assert not before["is_key_frame"]
        keys = 0
        while row["next"]:
            row = nusc.get("sample_data", row["next"])
            keys += row["is_key_frame"]
        assert keys == 1 and row["is_key_frame"]


def test_cameras_have_their_own_times_and_poses(nusc: Any) -> None:
    sample = nusc.sample[0]
    poses = []
    for channel, token in sample["data"].items():
        data = nusc.get("sample_data", token)
        assert abs(data["timestamp"] - sample["timestamp"]) < 50_000, channel
        poses.append(tuple(sensor_pose(nusc, data)[1][:3, 3]))
    assert len(set(poses)) == 7


def test_box_point_counts_are_those_the_devkit_finds(nusc: Any, city: Path) -> None:
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    sample = nusc.sample[0]
    path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    points = LidarPointCloud.from_file(path).points[:3]
    written = [nusc.get("sample_annotation", b.token)["num_lidar_pts"] for b in boxes]
    found = [int(points_in_box(b, points).sum()) for b in boxes]
    assert sum(written) > 300
    # a return on the very face of a box may fall either way
    assert all(abs(a - b) <= 2 + 0.02 * b for a, b in zip(written, found, strict=True))


def test_returns_of_the_key_sweep_end_in_occupied_voxels(nusc: Any, city: Path) -> None:
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        labels = read_labels(labels_path(city, scene["name"], sample["token"]))
        points = key_returns(nusc, city, sample)
        cells = GRID.indices(points[GRID.contains(points)])
        found = labels.semantics[tuple(cells.T)]
        assert (found != FREE).mean() > 0.95
        assert labels.mask_lidar[tuple(cells.T)].all()


def test_labels_flipped_left_to_right_do_not_fit_the_returns(nusc: Any, city: Path) -> None:
    sample = nusc.sample[0]
    scene = nusc.get("scene", sample["scene_token"])
    labels = read_labels(labels_path(city, scene["name"], sample["token"]))
    points = key_returns(nusc, city, sample)
    points = points[GRID.contains(points) & (points[:, 2] > 0.6)]
    cells = tuple(GRID.indices(points).T)
    right = (labels.semantics[cells] != FREE).mean()
    wrong = (labels.semantics[:, ::-1][cells] != FREE).mean()
    assert right > 0.9 > wrong + 0.3


def test_masks_are_nested_and_of_a_sensible_size(nusc: Any, city: Path) -> None:
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        labels = read_labels(labels_path(city, scene["name"], sample["token"]))
        assert not (labels.mask_camera & ~labels.mask_lidar).any()
        assert 0.05 < labels.mask_camera.mean() < 0.4
        assert labels.mask_lidar.mean() > 1.1 * labels.mask_camera.mean()
        assert (labels.semantics[~labels.mask_lidar] == FREE).all()
        shares = np.bincount(labels.semantics[labels.mask_camera], minlength=18)
        assert 0.6 < shares[FREE] / shares.sum() < 0.97
        assert shares[TAXONOMY.id_of("driveable_surface")] > 1000


def test_road_ahead_is_flat_road(nusc: Any, city: Path) -> None:
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        labels = read_labels(labels_path(city, scene["name"], sample["token"]))
        ahead = labels.semantics[102:112, 98:102, 1:4]
        road = (ahead == TAXONOMY.id_of("driveable_surface")).any(axis=2)
        assert road.mean() > 0.9


def test_lidar_returns_fall_on_the_things_that_the_pictures_show(nusc: Any, city: Path) -> None:
    """Edges of range, projected, lie on edges of the picture more often than anywhere else."""
    on_edge, anywhere = [], []
    for sample in nusc.sample:
        data = nusc.get("sample_data", sample["data"]["CAM_FRONT"])
        lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        T_ego_cam, T_global_cam_ego = sensor_pose(nusc, data)
        T_ego_lidar, T_global_ego = sensor_pose(nusc, lidar)
        raw = np.fromfile(city / lidar["filename"], np.float32).reshape(-1, 5)
        T_cam_lidar = inverse(T_global_cam_ego @ T_ego_cam) @ T_global_ego @ T_ego_lidar
        K = np.array(
            nusc.get("calibrated_sensor", data["calibrated_sensor_token"])["camera_intrinsic"]
        )
        image = np.asarray(Image.open(city / data["filename"]).convert("L"), np.float64)
        gradient = np.abs(np.gradient(image)).sum(0)
        gradient = np.maximum.reduce([np.roll(gradient, s, 1) for s in (-1, 0, 1)])
        p = apply(T_cam_lidar, raw[:, :3])
        uv = (p @ K.T)[:, :2] / p[:, 2:]
        inside = (p[:, 2] > 1) & (uv >= 1).all(1) & (uv < [255, 95]).all(1) & (p[:, 2] < 40)
        near = np.flatnonzero((np.abs(np.diff(p[:, 2])) > 3) & (np.diff(raw[:, 4]) == 0))
        jump = np.where(p[near, 2] < p[near + 1, 2], near, near + 1)
        jump = jump[inside[jump]]
        on_edge += list(gradient[uv[jump, 1].astype(int), uv[jump, 0].astype(int)])
        anywhere += list(gradient[uv[inside, 1].astype(int), uv[inside, 0].astype(int)])
    assert len(on_edge) > 100
    assert np.median(on_edge) > 1.8 * np.median(anywhere)


def test_classes_of_small_things_survive_in_the_voxels(nusc: Any, city: Path) -> None:
    """An annotated object that the key sweep saw well has voxels of its class in its box."""
    wanted = {
        "movable_object.trafficcone": "traffic_cone",
        "human.pedestrian.adult": "pedestrian",
        "vehicle.bicycle": "bicycle",
        "vehicle.car": "car",
        "movable_object.barrier": "barrier",
    }
    kept, seen = 0, 0
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        labels = read_labels(labels_path(city, scene["name"], sample["token"]))
        lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        T_ego_global = inverse(sensor_pose(nusc, lidar)[1])
        for token in sample["anns"]:
            row = nusc.get("sample_annotation", token)
            name = wanted.get(row["category_name"])
            center = apply(T_ego_global, np.array(row["translation"]))
            if name is None or row["num_lidar_pts"] < 5 or np.abs(center[:2]).max() > 38:
                continue
            cell = GRID.indices(center)
            i, j = (slice(max(c - 2, 0), c + 3) for c in cell[:2])
            seen += 1
            kept += bool((labels.semantics[i, j] == TAXONOMY.id_of(name)).any())
    assert seen > 20
    assert kept / seen > 0.95


def test_flow_labels_hold_the_same_classes_and_flow_of_moving_objects_alone(
    nusc: Any, city: Path
) -> None:
    moving = 0
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        labels = read_labels(labels_path(city, scene["name"], sample["token"]))
        found = openocc_flow.read_labels(
            openocc_flow.labels_path(city, scene["name"], sample["token"])
        )
        same = OCC3D_TO_OPENOCC_FLOW.table()[labels.semantics]
        assert (found.semantics == same).all()
        assert found.flow is not None
        flows = (found.flow != 0).any(axis=-1)
        assert np.isin(found.semantics[flows], openocc_flow.TAXONOMY.dynamic).all()
        moving += int(flows.sum())
    assert moving > 200


def test_flow_is_the_velocity_that_the_tracks_tell(nusc: Any, city: Path) -> None:
    """The devkit's velocity of a box, turned into the ego frame, against the voxels in the box."""
    compared = 0
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        found = openocc_flow.read_labels(
            openocc_flow.labels_path(city, scene["name"], sample["token"])
        )
        assert found.flow is not None
        lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        T_ego_global = inverse(sensor_pose(nusc, lidar)[1])
        for token in sample["anns"]:
            row = nusc.get("sample_annotation", token)
            velocity = T_ego_global[:3, :3] @ nusc.box_velocity(token)
            center = apply(T_ego_global, np.array(row["translation"]))
            if row["category_name"] != "vehicle.car" or np.abs(center[:2]).max() > 38:
                continue
            if np.isnan(velocity).any() or np.linalg.norm(velocity) < 1:
                continue
            i, j, _ = GRID.indices(center)
            near = found.flow[max(i - 2, 0) : i + 3, max(j - 1, 0) : j + 2, 2:6].reshape(-1, 2)
            near = near[(near != 0).any(axis=1)]
            if len(near):
                # a chord over half a second and the speed at its beginning or end
                np.testing.assert_allclose(near.mean(axis=0), velocity[:2], atol=0.6)
                compared += 1
    assert compared >= 2


def test_pose_errors_reach_the_tables_and_not_the_data(city: Path, tmp_path: Path) -> None:
    val = {"labeled_scenes": 0, "unlabeled_scenes": 0, "val_scenes": 1}
    val |= {"frames_per_scene": 1, "sweeps": 1}
    for name, options in (
        ("clean", {}),
        ("noisy", {"pose_noise_m": 0.2, "pose_noise_deg": 1.0}),
        ("flat", {"flat_poses": True}),
    ):
        config = CityConfig(**val, **options)  # type: ignore[arg-type]
        generate_city(tmp_path / name, config, workers=1, progress=False)
    clean, noisy, flat = (digests(tmp_path / name) for name in ("clean", "noisy", "flat"))
    apart = {"v1.0-trainval/ego_pose.json", "v1.0-trainval/sample_annotation.json", "city.json"}
    assert {k for k in clean if clean[k] != noisy[k]} == apart
    assert {k for k in clean if clean[k] != flat[k]} == apart

    def tables(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        nusc = NuScenes("v1.0-trainval", dataroot=str(tmp_path / name), verbose=False)
        poses = np.array([row["translation"] for row in nusc.ego_pose])
        key = nusc.get("sample_data", nusc.sample[0]["data"]["LIDAR_TOP"])
        centers = np.array([row["translation"] for row in nusc.sample_annotation])
        return poses, apply(inverse(sensor_pose(nusc, key)[1]), centers)

    (true, boxes), (wrong, of_noisy), (level, of_flat) = map(tables, ("clean", "noisy", "flat"))
    assert 0.1 < (wrong - true).std() < 0.3
    assert (level[:, 2] == 0).all() and (level[:, :2] == true[:, :2]).all()
    np.testing.assert_allclose(of_noisy, boxes, atol=1e-6)  # boxes stay on their returns
    np.testing.assert_allclose(of_flat, boxes, atol=1e-6)


def test_statistics_count_what_is_in_the_camera_mask(nusc: Any, city: Path) -> None:
    found = city_statistics(city)
    assert found.frames == len(nusc.sample) and found.shares.sum() == pytest.approx(1)
    voxels = sum(int(read_labels(p).mask_camera.sum()) for p in city.glob("gts/*/*/labels.npz"))  # type: ignore[union-attr]
    assert found.voxels.sum() == voxels < found.lidar_voxels
    assert f"{NUSCENES_VOXELS[4] / NUSCENES_VOXELS.sum() * 100:.4f}" in found.table()
    assert contact_sheet(city, scenes=2).size == (6 * 320, 2 * 120)


def test_statistics_of_a_folder_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no labels"):
        city_statistics(tmp_path)


def test_profile_shares_out_a_fifth_of_the_scenes_as_labelled() -> None:
    tiny, full = city_config("tiny", scenes=30), city_config("full", scenes=7, seed=4)
    assert (tiny.labeled_scenes, tiny.unlabeled_scenes, tiny.val_scenes) == (6, 24, 6)
    assert (tiny.image_height, tiny.image_width, tiny.frames_per_scene) == (96, 256, 8)
    assert (full.labeled_scenes, full.unlabeled_scenes, full.val_scenes, full.seed) == (1, 6, 1, 4)
    assert (full.image_height, full.image_width, full.frames_per_scene) == (900, 1600, 40)
    with pytest.raises(ValueError, match="'huge'"):
        city_config("huge", scenes=3)
    with pytest.raises(ValueError, match="not 1"):
        city_config("tiny", scenes=1)


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(
    city: Path, tmp_path: Path
) -> None:
    generate_city(tmp_path / "again", CONFIG, workers=2, progress=False)
    assert digests(tmp_path / "again") == digests(city)


def test_scene_does_not_depend_on_how_many_others_there_are(city: Path, tmp_path: Path) -> None:
    only_val = CityConfig(labeled_scenes=0, unlabeled_scenes=0, val_scenes=1, frames_per_scene=2)
    generate_city(tmp_path / "val", only_val, workers=1, progress=False)
    name = only_val.scene_names("val")[0]
    mine = {k: v for k, v in digests(tmp_path / "val").items() if name in k}
    assert mine == {k: v for k, v in digests(city).items() if name in k}
    assert len(mine) > 30


def test_another_seed_gives_another_city() -> None:
    from datasets.sources.synthetic.traffic.population import draw_world

    a, b = (draw_world(np.random.default_rng((seed, 0, 0, 0)), 1.0) for seed in (0, 1))
    assert a.layout.walk_m != b.layout.walk_m and a.ego_speed_mps != b.ego_speed_mps


def test_splits_are_disjoint_and_train_is_labeled_plus_unlabeled() -> None:
    config = CityConfig(labeled_scenes=3, unlabeled_scenes=2, val_scenes=2)
    names = [config.scene_names(s) for s in ("labeled", "unlabeled", "val")]
    assert len(set().union(*names)) == 7


def test_marker_names_the_splits(city: Path) -> None:
    splits = city_splits(city)
    assert splits["train"] == splits["labeled"] == ("scene-2001",)
    assert splits["unlabeled"] == () and splits["val"] == ("scene-6001",)
    assert splits["all"] == ("scene-2001", "scene-6001")


def test_city_that_is_there_is_used_again(city: Path) -> None:
    before = (city / "city.json").stat().st_mtime_ns
    assert ensure_city(city, CONFIG) == city
    assert (city / "city.json").stat().st_mtime_ns == before


def test_city_of_another_config_is_refused(city: Path) -> None:
    other = CityConfig(labeled_scenes=2, unlabeled_scenes=0, val_scenes=1, frames_per_scene=2)
    with pytest.raises(SetupError, match="another config"):
        ensure_city(city, other)


def test_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(SetupError, match="not a built-in city"):
        ensure_city(tmp_path, CONFIG)
    with pytest.raises(SetupError, match="not empty"):
        generate_city(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_failed_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("datasets.sources.synthetic.city._drive", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_city(tmp_path / "root", CONFIG, workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"frames_per_scene": 0},
        {"image_width": 4},
        {"val_scenes": -1},
        {"sweeps": 0},
        {"pose_noise_m": -1},
        {"pose_noise_deg": float("nan")},
    ],
)
def test_config_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"labeled_scenes": 1, "unlabeled_scenes": 1, "val_scenes": 1}
    with pytest.raises(ValueError, match=r"-?\d|nan"):
        CityConfig(**{**good, **change})


def test_script_refuses_a_wrong_folder_in_one_line_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    done = run_script("scripts/make_city.py", "--root", tmp_path, "--val", "1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and str(tmp_path) in done.stderr


def test_marker_is_json_with_the_generator_version(city: Path) -> None:
    marker = json.loads((city / "city.json").read_text())
    assert marker["generator_version"] >= 1 and marker["config"]["seed"] == 0
