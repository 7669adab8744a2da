"""The QA viewer over logs of every kind: stores and ground truth drawn over whatever cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import run_script
from folder_log import LIDAR_AT, edit_json, write_log
from PIL import Image
from small_stores import ROAD, TAXONOMY, write_store, write_truth
from waymo_log import segment, write_records

from datasets.benchmarks.catalogue import benchmark
from datasets.cli.launch import launch
from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply, from_yaw, inverse
from datasets.labels.label_set import GroundTruthLabels, StoredLabels
from datasets.labels.store import (
    FrameLabels,
)
from datasets.sources.folder import FolderSource
from datasets.sources.opening import open_source
from datasets.sources.waymo.source import WaymoSource
from viz.session.grid_rotation import stored_voxels, turned_grid, turned_labels, turns_to_forward
from viz.session.session import ReviewSession, open_log, shown_voxels

COLOR = np.array(TAXONOMY.colors[ROAD])


def screenshot(*arguments: str | Path) -> tuple[str, str]:
    """Output and complaints of the command."""
    options = ("--size", "1280x720", "--renderer", "plain")
    done = run_script("viz/inspect.py", *arguments, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def share_of_road(picture: Path) -> float:
    """How much of the place for camera pictures has the road's color laid over it."""
    with Image.open(picture) as image:
        pixels = np.asarray(image, int)[40:480, 648:]
    away = np.abs(pixels - COLOR).sum(axis=2)
    return float((away < 300).mean())


def test_store_of_a_folder_log_is_drawn_over_its_camera(tmp_path: Path) -> None:
    root, shot = write_log(tmp_path / "log"), tmp_path / "shot.png"
    store = write_store(tmp_path / "labels.zarr", FolderSource(root, past_sweeps=0), "folder")
    _, complaints = screenshot(store, "--root", root, "--frame", "1", "--screenshot", shot)
    assert complaints == ""
    with_log = share_of_road(shot)
    screenshot(store, "--frame", "1", "--screenshot", shot)
    assert with_log > share_of_road(shot) + 0.2


def test_store_of_a_waymo_log_is_drawn_over_its_five_cameras(tmp_path: Path) -> None:
    write_records(tmp_path / "log/segment-x.tfrecord", segment(frames=2))
    source, shot = WaymoSource(tmp_path / "log"), tmp_path / "shot.png"
    store = write_store(tmp_path / "labels.zarr", source, "waymo")
    _, complaints = screenshot(store, "--root", tmp_path / "log", "--screenshot", shot)
    assert complaints == ""
    assert share_of_road(shot) > 0.2
    labels = StoredLabels(store)
    kind = labels.store.header.provenance["source"]
    frame = ReviewSession(labels, open_log(kind, tmp_path / "log")).frame("x", 1)
    assert len(frame.images) == 5
    assert frame.points_m is not None and len(frame.points_m) > 1000
    other = open_source("waymo", tmp_path / "log", past_sweeps=0)
    (view, *_) = other.scene("x").frames[1].cameras
    np.testing.assert_array_equal(frame.images[0].rgb, other.read_image(view))


def test_labels_along_the_lidars_axes_are_turned_forward_with_cameras_and_points(
    tmp_path: Path,
) -> None:
    source = FolderSource(write_log(tmp_path / "log"), past_sweeps=0)
    store = write_store(tmp_path / "labels.zarr", source, "folder", frame="lidar")
    session = ReviewSession(StoredLabels(store), source)
    frame = session.frame("a", 1)
    # this LiDAR has x right and y forward; turned, it looks ahead from its place
    T_ego_turned = from_yaw(0.0, LIDAR_AT[:3, 3])
    (picture,) = frame.images
    expected = inverse(T_ego_turned) @ source.scene("a").frames[1].cameras[0].T_ego_camera
    np.testing.assert_allclose(picture.view.T_ego_camera, expected, atol=1e-9)
    assert frame.points_m is not None
    np.testing.assert_allclose(frame.points_m[:, 0], 14.1, atol=1e-4)  # the wall ahead
    T_global_ego = source.scene("a").frames[1].T_global_ego
    np.testing.assert_allclose(frame.labels.T_global_grid, T_global_ego @ T_ego_turned, atol=1e-9)
    assert frame.notes == session.notes


@pytest.mark.parametrize("yaw_deg", [0, 3, -90, 90, 178, -178])
def test_turned_voxels_stay_where_they_are(yaw_deg: float) -> None:
    grid = VoxelGrid(min_m=(-1.0, 2.0, 0.0), size_m=(0.5, 0.25, 1.0), shape=(3, 4, 2))
    rng = np.random.default_rng(0)
    semantics, confidence, mask, hits, passes = rng.integers(0, 9, (5, *grid.shape), dtype=np.uint8)
    flow = rng.normal(0, 5, (*grid.shape, 2)).astype(np.float16)
    T_global_lidar = from_yaw(np.radians(yaw_deg), (5.0, 6.0, 7.0))
    labels = FrameLabels(
        token="t",
        timestamp_us=0,
        T_global_grid=T_global_lidar,
        semantics=semantics,
        confidence=confidence,
        mask=mask,
        hits=hits,
        passes=passes,
        flow=flow,
        instances=rng.integers(0, 65_536, grid.shape, dtype=np.uint16),
    )
    turns = turns_to_forward(T_global_lidar)
    after, there = turned_labels(labels, turns), turned_grid(grid, turns)
    assert abs(np.arctan2(after.T_global_grid[1, 0], after.T_global_grid[0, 0])) < 0.1
    index = np.argwhere(np.ones(grid.shape, bool))
    places = apply(inverse(after.T_global_grid) @ T_global_lidar, grid.centers(index))
    moved = tuple(there.indices(places).T)
    for name in ("semantics", "confidence", "mask", "hits", "passes", "instances"):
        np.testing.assert_array_equal(
            getattr(after, name)[moved], getattr(labels, name)[tuple(index.T)]
        )
    assert there.contains(places).all() and there.n_voxels == grid.n_voxels
    # the same velocities over ground
    assert after.flow is not None and after.flow.dtype == np.float16
    R_turned, R_lidar = after.T_global_grid[:2, :2], T_global_lidar[:2, :2]
    np.testing.assert_allclose(
        after.flow[moved].astype(float) @ R_turned.T,
        flow[tuple(index.T)].astype(float) @ R_lidar.T,
        atol=1e-9,
    )
    # painted in the turned grid, stored in the other
    painted = np.sort(there.flat(np.stack(moved, axis=1)[[0, 5, 17]]))
    stored = stored_voxels(painted, there.shape, turns)
    np.testing.assert_array_equal(stored, np.sort(grid.flat(index[[0, 5, 17]])))


def test_named_kind_of_log_wins_over_the_stores(tmp_path: Path) -> None:
    root, shot = write_log(tmp_path / "log"), tmp_path / "shot.png"
    store = write_store(tmp_path / "labels.zarr", FolderSource(root, past_sweeps=0), "")
    _, complaints = screenshot(store, "--root", root, "--screenshot", shot)
    assert "no images or points" in complaints
    _, complaints = screenshot(store, "--root", root, "--source", "folder", "--screenshot", shot)
    assert "no images" not in complaints and "not verified" in complaints


def test_store_of_another_log_than_a_city_is_shown_alone_unless_its_root_is_named(
    tmp_path: Path,
) -> None:
    root, shot = write_log(tmp_path / "log"), tmp_path / "shot.png"
    store = write_store(tmp_path / "labels.zarr", FolderSource(root, past_sweeps=0), "folder")
    _, complaints = screenshot(store, "--screenshot", shot)
    assert "no images or points: name the folder log with --root" in complaints


def test_no_city_is_generated_to_look_at_labels(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no table folder"):
        open_log("city", tmp_path)
    assert not list(tmp_path.iterdir())


def test_ground_truth_is_drawn_without_a_store(tmp_path: Path) -> None:
    root, shot = write_log(tmp_path / "log", ("a", "b")), tmp_path / "shot.png"
    truth = write_truth(tmp_path / "labels", FolderSource(root, past_sweeps=0), "b")
    log = ["--root", root, "--source", "folder"]
    out, complaints = screenshot("--truth", truth, *log, "--frame", "2", "--screenshot", shot)
    assert complaints == "" and str(shot) in out
    assert share_of_road(shot) > 0.2


def test_masks_of_ground_truth_are_those_of_its_files(tmp_path: Path) -> None:
    source = FolderSource(write_log(tmp_path / "log"), past_sweeps=0)
    truth = write_truth(tmp_path / "labels", source, "a")
    labels = GroundTruthLabels(benchmark("occ3d_nuscenes"), truth, source, every_frame=True)
    frame = ReviewSession(labels, source).frame(labels.first_scene(), 1)
    n = {m: int(shown_voxels(frame.labels, TAXONOMY, m).sum()) for m in ("all", "camera", "lidar")}
    assert n == {"all": 200 * 200, "camera": 100 * 200, "lidar": 200 * 200}
    assert frame.levels == () and frame.labels.token == "a5"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--frame", "0"], "a0"),  # the one frame without labels
        (["--scene", "c"], "it has a"),
        (["--benchmark", "openoccupancy"], "not a log of kind 'mine'"),
        (["--truth", "elsewhere"], "--truth elsewhere: there is no such folder"),
        (["--root", "elsewhere"], "elsewhere"),
    ],
)
def test_ground_truth_that_cannot_be_shown_is_one_line_and_exit_code_2(
    more: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = FolderSource(write_log(tmp_path / "log"), past_sweeps=0)
    truth = write_truth(tmp_path / "labels", source, "a")
    options = ["--truth", truth, "--root", tmp_path / "log", "--source", "folder", "--frame", "1"]
    arguments = [*map(str, options), *more, "--screenshot", str(tmp_path / "a.png")]
    assert launch("inspect", arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert named in error


@pytest.mark.parametrize("arguments", [[], ["a.zarr", "--truth", "b"], ["a.zarr", "--benchmark"]])
def test_store_or_truth_must_be_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[-1:] == ["--benchmark"]:
        arguments = [*arguments, "openocc_flow"]
    assert launch("inspect", arguments) == 2
    assert "--truth" in capsys.readouterr().err


def test_cameras_of_different_sizes_share_a_page(tmp_path: Path) -> None:
    root = write_log(tmp_path / "log", n_frames=2)

    def add_tall(data: dict) -> None:
        tall = {**data["cameras"]["front"], "width": 40, "height": 90}
        data["cameras"]["tall"] = tall
        entry = data["frames"][0]["cameras"][0]
        data["frames"][0]["cameras"].append({**entry, "camera": "tall", "file": "front/tall.png"})

    edit_json(root / "scenes/a/scene.json", add_tall)
    Image.new("RGB", (40, 90), (9, 99, 199)).save(root / "scenes/a/front/tall.png")
    source, shot = FolderSource(root, past_sweeps=0), tmp_path / "shot.png"
    store = write_store(tmp_path / "labels.zarr", source, "folder")
    _, complaints = screenshot(store, "--root", root, "--screenshot", shot)
    assert complaints == ""
    assert share_of_road(shot) > 0.05
