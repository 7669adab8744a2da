"""What the QA viewer promises: its command, its meshes, its overlays, its pictures."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import chromium
from PIL import Image
from plain_drawing import nearest_faces_plain, surface_meshes_plain

from datasets.cli.launch import launch
from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView
from datasets.geometry.grid import VoxelGrid
from datasets.labels.label_set import StoredLabels
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.taxonomy import OCC3D_NUSCENES
from viz.commands.inspect_labels import layers_of
from viz.commands.options.inspect_labels import parse
from viz.render.bev_images import class_map
from viz.render.camera_overlay import NO_ID, blend, pinhole_of, project_labels
from viz.render.layers import LayerSettings
from viz.render.offscreen import Open3DProcess
from viz.render.rasterizer import Pinhole, nearest_faces
from viz.render.renderer import ViewPainter
from viz.render.scene3d import (
    BACKGROUND,
    EGO_COLOR,
    ColoredLines,
    ColoredPoints,
    Scene3D,
    colored,
    default_camera,
    draw_plain,
    ego_marker,
)
from viz.render.screenshot import screenshot
from viz.render.voxel_mesh import surface_meshes
from viz.session.session import CameraImage, ReviewFrame, ReviewSession, read_images, shown_voxels

REPOSITORY = Path(__file__).resolve().parents[2]
GRID = VoxelGrid(min_m=(-10.0, -10.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(40, 40, 8))
FREE = OCC3D_NUSCENES.free_id
CAR, ROAD = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.id_of("driveable_surface")

# the camera looks along +X of the ego frame, from the origin
T_EGO_CAMERA = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "viz/inspect.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def camera_view(name: str = "CAM_FRONT") -> CameraView:
    return CameraView(
        name=name,
        path=Path("nowhere.jpg"),
        timestamp_us=0,
        width=160,
        height=90,
        intrinsics=np.array([[100.0, 0.0, 80.0], [0.0, 100.0, 45.0], [0.0, 0.0, 1.0]]),
        T_ego_camera=T_EGO_CAMERA,
    )


def one_hot(*voxels: tuple[int, int, int, int]) -> np.ndarray:
    """Semantics with (x, y, z, class) voxels in free space."""
    semantics = np.full(GRID.shape, FREE, np.uint8)
    for x, y, z, label in voxels:
        semantics[x, y, z] = label
    return semantics


def meshes_of(semantics: np.ndarray):
    return surface_meshes(semantics, semantics != FREE, GRID)


def street() -> np.ndarray:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[:, :, 1] = ROAD
    semantics[26:32, 18:22, 2:5] = CAR
    return semantics


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "labels.zarr"
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.0, 0.5, 1.0),
        licence="none",
        provenance={},
        run_id="test",
    )
    semantics = np.stack([street(), np.roll(street(), 3, axis=0)])
    mask = np.full(semantics.shape, MaskBit.LIDAR_OBSERVED, np.uint8)
    mask[:, 20:] |= np.uint8(MaskBit.TRUSTED)
    LabelStore.create(path, header).write_scene(
        SceneLabels(
            scene_id="scene-a",
            frame_tokens=("first", "second"),
            timestamps_us=np.array([1, 2]),
            T_global_grid=np.stack([np.eye(4)] * 2),
            semantics=semantics,
            confidence=np.full(semantics.shape, 1, np.uint8),
            mask=mask,
        )
    )
    return path


@pytest.fixture
def frame(store: Path) -> ReviewFrame:
    return ReviewSession(StoredLabels(store), "there is no log").frame("scene-a", 0)


def with_cameras(frame: ReviewFrame, n: int) -> ReviewFrame:
    images = tuple(
        CameraImage(view=camera_view(f"CAM_{i}"), rgb=np.full((90, 160, 3), 200, np.uint8))
        for i in range(n)
    )
    points = np.random.default_rng(0).uniform(-12, 12, (500, 3)).astype(np.float32)
    return replace(frame, images=images, points_m=points)


def test_the_literal_command_prints_its_help() -> None:
    done = command("--help")
    assert done.returncode == 0, done.stderr
    assert "--screenshot" in done.stdout and "--scene" in done.stdout


def test_the_command_works_from_inside_viz() -> None:
    done = subprocess.run(
        [sys.executable, "inspect.py", "--help"],
        cwd=REPOSITORY / "viz",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_inspect_beside_the_script_gives_the_standard_module() -> None:
    program = "import inspect, numpy; print(inspect.signature(print).parameters.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY / "viz",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_file_of_viz_but_the_entry_bears_a_standard_name() -> None:
    names = {p.stem for p in (REPOSITORY / "viz").glob("*.py")} - {"__init__"}
    assert names & sys.stdlib_module_names == {"inspect"}


def test_single_voxel_has_six_faces_at_the_grids_place() -> None:
    (mesh,) = meshes_of(one_hot((22, 20, 2, CAR)))
    assert mesh.id == CAR and mesh.corners_m.shape == (6, 4, 3)
    corners = mesh.corners_m.reshape(-1, 3)
    np.testing.assert_allclose(corners.min(axis=0), [1.0, 0.0, 0.0])
    np.testing.assert_allclose(corners.max(axis=0), [1.5, 0.5, 0.5])
    assert len(np.unique(corners, axis=0)) == 8


def test_faces_look_outwards() -> None:
    (mesh,) = meshes_of(one_hot((22, 20, 2, CAR)))
    c = mesh.corners_m.astype(np.float64)
    normals = np.cross(c[:, 1] - c[:, 0], c[:, 3] - c[:, 0])
    outwards = c.mean(axis=1) - GRID.centers(np.array([22, 20, 2]))
    assert ((normals * outwards).sum(axis=1) > 0).all()


@pytest.mark.parametrize("second", [(23, 20, 2), (22, 21, 2), (22, 20, 3)])
def test_two_adjacent_voxels_have_ten_faces(second: tuple[int, int, int]) -> None:
    (mesh,) = meshes_of(one_hot((22, 20, 2, CAR), (*second, CAR)))
    assert len(mesh.corners_m) == 10


def test_no_face_between_voxels_of_different_classes() -> None:
    car, road = meshes_of(one_hot((22, 20, 2, CAR), (22, 20, 1, ROAD)))
    assert (car.id, road.id) == (CAR, ROAD)
    assert len(car.corners_m) == len(road.corners_m) == 5


def test_voxels_at_the_grids_edge_have_their_outer_faces() -> None:
    full = np.full(GRID.shape, ROAD, np.uint8)
    (mesh,) = meshes_of(full)
    x, y, z = GRID.shape
    assert len(mesh.corners_m) == 2 * (x * y + y * z + z * x)


def test_hidden_voxels_uncover_their_neighbours() -> None:
    semantics = one_hot((22, 20, 2, CAR), (23, 20, 2, CAR))
    shown = semantics != FREE
    shown[23] = False
    (mesh,) = surface_meshes(semantics, shown, GRID)
    assert len(mesh.corners_m) == 6


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_fast_and_plain_meshes_are_the_same(share: float) -> None:
    grid = VoxelGrid(min_m=(-1.3, 2.0, -0.7), size_m=(0.4, 0.3, 0.25), shape=(13, 9, 6))
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 256, grid.shape, dtype=np.uint8)
    shown = rng.random(grid.shape) < share
    fast, plain = surface_meshes(ids, shown, grid), surface_meshes_plain(ids, shown, grid)
    assert [m.id for m in fast] == [m.id for m in plain] and len(fast) > 3
    for a, b in zip(fast, plain, strict=True):
        assert a.corners_m.tobytes() == b.corners_m.tobytes()
        assert a.shades.tobytes() == b.shades.tobytes()


def test_nothing_shown_gives_no_mesh() -> None:
    assert meshes_of(one_hot()) == ()


def test_known_voxel_lands_on_the_known_pixels() -> None:
    # the near side of the voxel: x 4.0, y -1.0..-0.5 (right), z 0.5..1.0 (above)
    labels = project_labels(meshes_of(one_hot((28, 18, 3, CAR))), pinhole_of(camera_view()))
    rows, columns = np.nonzero(labels.ids == CAR)
    # u = 80 + 100 * 0.5 / 4 ... 80 + 100 * 1 / 4; inner sides reach to 0.5 / 4.5 of depth
    assert (columns.min(), columns.max()) == (92, 105)
    assert (rows.min(), rows.max()) == (20, 33)
    assert labels.depth_m[25, 100] == pytest.approx(4.0, abs=1e-5)
    assert set(np.unique(labels.ids)) == {CAR, NO_ID}


@pytest.mark.parametrize("near_first", [True, False])
def test_nearer_voxel_hides_a_farther_one(near_first: bool) -> None:
    near, far = (28, 20, 2, CAR), (36, 20, 2, ROAD)
    semantics = one_hot(near, far)
    if not near_first:
        semantics = np.where(semantics == CAR, ROAD, np.where(semantics == ROAD, CAR, semantics))
    labels = project_labels(meshes_of(semantics.astype(np.uint8)), pinhole_of(camera_view()))
    ids = set(np.unique(labels.ids)) - {NO_ID}
    assert ids == {CAR if near_first else ROAD}


def test_voxels_behind_the_camera_are_not_drawn() -> None:
    labels = project_labels(meshes_of(one_hot((8, 20, 2, CAR))), pinhole_of(camera_view()))
    assert (labels.ids == NO_ID).all()


def test_rasteriser_agrees_with_ray_casting() -> None:
    """Brute force: every ray against every box of a random scene (slab method)."""
    rng = np.random.default_rng(5)
    semantics = np.where(rng.random(GRID.shape) < 0.06, CAR, FREE).astype(np.uint8)
    semantics[18:24, 17:23] = FREE  # room for the camera
    view = Pinhole(
        width=48,
        height=27,
        intrinsics=np.array([[30.0, 0, 24.31], [0, 29.0, 13.17], [0, 0, 1]]),
        T_camera_ego=np.linalg.inv(T_EGO_CAMERA),
    )
    (mesh,) = meshes_of(semantics)
    _, depth = nearest_faces(mesh.corners_m, view)
    v, u = np.mgrid[:27, :48]
    rays = np.stack([(u - 24.31) / 30, (v - 13.17) / 29, np.ones(u.shape)], axis=-1)
    rays = (rays @ T_EGO_CAMERA[:3, :3].T).reshape(-1, 1, 3) + 1e-12
    low = np.argwhere(semantics == CAR) * 0.5 + np.array(GRID.min_m)
    near, far = low / rays, (low + 0.5) / rays
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    hit = (enter <= leave) & (enter > 0.1)
    expected = np.where(hit, enter, np.inf).min(axis=1).reshape(27, 48)
    same = np.isclose(depth, expected, rtol=1e-4) | (np.isinf(depth) & np.isinf(expected))
    assert np.isfinite(expected).mean() > 0.2
    assert same.mean() > 0.995  # rays along a voxel's edge may fall on either side


def test_fast_and_plain_rasteriser_are_the_same() -> None:
    rng = np.random.default_rng(3)
    semantics = np.where(rng.random(GRID.shape) < 0.1, CAR, FREE).astype(np.uint8)
    (mesh,) = meshes_of(semantics)
    eye, target = default_camera(GRID)
    scene = replace(street_scene(), eye_m=eye, target_m=target)
    for camera in (scene.camera(150, 90), pinhole_of(camera_view())):
        face, depth = nearest_faces(mesh.corners_m, camera)
        plain_face, plain_depth = nearest_faces_plain(mesh.corners_m, camera)
        np.testing.assert_array_equal(face, plain_face)
        np.testing.assert_allclose(depth, plain_depth, rtol=1e-6)
        assert (face >= 0).mean() > 0.3


def test_blended_picture_keeps_the_photograph_and_takes_the_class_color() -> None:
    labels = project_labels(meshes_of(one_hot((28, 20, 2, CAR))), pinhole_of(camera_view()))
    grey = np.full((90, 160, 3), 100, np.uint8)
    out = blend(grey, labels, OCC3D_NUSCENES.color_table())
    assert (out[labels.ids == NO_ID] == 100).all()
    inside = out[40, 76].astype(int)
    red, _, blue = OCC3D_NUSCENES.colors[CAR]
    assert 100 < inside[0] < red and blue < inside[2] < 100


def test_map_shows_ahead_up_and_left_left() -> None:
    semantics = one_hot((39, 39, 2, CAR), (0, 0, 2, ROAD))
    table = OCC3D_NUSCENES.color_table()
    picture = class_map(semantics, semantics != FREE, table).astype(int)
    assert picture[0, 0, 0] > 150 > picture[0, 0, 2]  # orange: the car ahead on the left
    assert picture[-1, -1, 0] < 50 < picture[-1, -1, 1]  # the road behind on the right


def test_masks_choose_the_voxels(frame: ReviewFrame) -> None:
    n = {m: int(shown_voxels(frame.labels, OCC3D_NUSCENES, m).sum()) for m in ("all", "trusted")}
    assert n["all"] == (frame.labels.semantics != FREE).sum() > n["trusted"] > 0
    assert not shown_voxels(frame.labels, OCC3D_NUSCENES, "camera").any()
    assert shown_voxels(frame.labels, OCC3D_NUSCENES, "lidar").sum() == n["all"]


@pytest.mark.parametrize("n_cameras", [0, 1, 5, 6])
def test_screenshot_has_the_asked_size_with_any_number_of_cameras(
    frame: ReviewFrame, n_cameras: int
) -> None:
    shot = screenshot(
        with_cameras(frame, n_cameras),
        show=LayerSettings(mask="all"),
        size_px=(960, 540),
        renderer="plain",
    )
    assert shot.image.size == (960, 540)
    assert shot.drawn_by == "plain rasteriser"


def test_frame_without_a_shown_voxel_can_be_drawn(frame: ReviewFrame) -> None:
    show = LayerSettings(mask="camera")
    shot = screenshot(with_cameras(frame, 1), show=show, size_px=(960, 540), renderer="plain")
    assert shot.image.size == (960, 540)


def test_unreadable_picture_is_noted_and_the_others_are_kept() -> None:
    class Source:
        def read_image(self, view: CameraView) -> np.ndarray:
            if view.name == "BAD":
                raise SceneError(where="BAD", rule="cannot be decoded")
            return np.zeros((90, 160, 3), np.uint8)

    views = [camera_view("GOOD"), camera_view("BAD")]
    images, notes = read_images(Source(), views)  # type: ignore[arg-type]
    assert [p.view.name for p in images] == ["GOOD"]
    assert len(notes) == 1 and "BAD" in notes[0]


def street_scene() -> Scene3D:
    eye, target = default_camera(GRID)
    meshes = colored(meshes_of(street()), OCC3D_NUSCENES.names, OCC3D_NUSCENES.color_table())
    return Scene3D(
        meshes=(*meshes, ego_marker()),
        points=(),
        lines=(),
        eye_m=eye,
        target_m=target,
    )


def test_plain_view_shows_road_car_and_ego() -> None:
    pixels = np.asarray(draw_plain(street_scene(), width=320, height=180)).reshape(-1, 3)
    for color in (OCC3D_NUSCENES.colors[ROAD], OCC3D_NUSCENES.colors[CAR], EGO_COLOR):
        assert (np.abs(pixels.astype(int) - color).max(axis=1) < 30).sum() > 20, color


def with_line_and_points(scene: Scene3D) -> Scene3D:
    """A red line and blue points over the road, and others of the same colors under it."""
    line = np.array([[[5, -4, z], [5, 4, z]] for z in (0.3, -3.0)], np.float32)
    x, y = (a.ravel() for a in np.mgrid[-4:4:40j, 5:8:40j])
    dots = np.concatenate([np.stack([x, y, np.full(x.shape, z)], 1) for z in (0.3, -3.0)])
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    return replace(
        scene,
        lines=(ColoredLines(name="l", ends_m=line, colors=colors[[0, 1]]),),
        points=(
            ColoredPoints(
                name="p",
                points_m=dots.astype(np.float32),
                colors=np.repeat(colors[[1, 0]], len(x), axis=0),
            ),
        ),
    )


def test_lines_and_points_have_their_colors_and_are_hidden_by_voxels() -> None:
    scene = with_line_and_points(street_scene())
    drawn = np.asarray(draw_plain(scene, width=640, height=360)).astype(int)
    # the line crosses ahead of the ego, the points lie on the left
    red = (drawn[..., 0] > 150) & (drawn[..., 1:].max(axis=2) < 90)
    blue = (drawn[..., 2] > 150) & (drawn[..., :2].max(axis=2) < 90)
    rows, _ = np.nonzero(red)
    assert len(rows) > 80 and np.ptp(rows) < 8  # level, and none of the red points below
    assert blue.sum() > 100 and np.nonzero(blue)[1].max() < 320


def test_line_behind_the_camera_is_cut() -> None:
    scene = with_line_and_points(street_scene())
    ahead = scene.target_m - scene.eye_m
    ends = np.array([[scene.eye_m - ahead, scene.target_m]], np.float32)
    ends[..., 2] -= 2
    lines = ColoredLines(name="l", ends_m=ends, colors=np.array([[255, 0, 0]], np.uint8))
    scene = replace(scene, meshes=(), points=(), lines=(lines,))
    drawn = np.asarray(draw_plain(scene, width=320, height=180)).astype(int)
    other = np.abs(drawn - BACKGROUND).max(axis=2) > 60
    assert 5 < other.sum() < 200


def test_scene_of_another_process_is_the_same(tmp_path: Path) -> None:
    scene = with_line_and_points(street_scene())
    scene.save(tmp_path / "scene.npz")
    again = Scene3D.load(tmp_path / "scene.npz")
    assert [m.name for m in again.meshes] == [m.name for m in scene.meshes]
    one, other = (draw_plain(s, width=160, height=90) for s in (scene, again))
    assert one.tobytes() == other.tobytes()


def test_a_scene_that_another_program_wrote_is_refused(tmp_path: Path) -> None:
    for name, arrays in {
        "none.npz": {},
        "large.npz": {"meshes": np.zeros((1 << 27) + 4096, "f8")},
    }.items():
        np.savez_compressed(tmp_path / name, **arrays)
        with pytest.raises(ValueError):
            Scene3D.load(tmp_path / name)


def test_the_ego_marker_points_ahead_only_where_the_heading_is_known() -> None:
    ego, lidar = ego_marker("ego").corners_m, ego_marker("lidar").corners_m
    assert ego[..., 0].max() > 2 * -ego[..., 0].min()
    assert lidar[..., 2].max() < 0 < ego[..., 2].min()
    unknown = ego_marker("lidar", heading_known=False).corners_m
    np.testing.assert_allclose(unknown[..., 0].max(), -unknown[..., 0].min())


def test_open3d_draws_the_same_view_as_the_plain_rasteriser() -> None:
    scene = with_line_and_points(street_scene())
    with Open3DProcess() as process:
        drawn = process.draw(scene, width=320, height=180)
    if isinstance(drawn, str):
        pytest.skip(f"Open3D cannot draw on this machine: {drawn}")
    plain = np.asarray(draw_plain(scene, width=320, height=180)).astype(int)
    differs = np.abs(np.asarray(drawn).astype(int) - plain).max(axis=2) > 24
    assert differs.mean() < 0.05  # only along edges and lines


def test_screenshot_command_needs_no_display_and_names_its_renderer(
    store: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "new" / "shot.png"
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    options = ["--scene", "scene-a", "--frame", "1", "--size", "1280x720", "--renderer", "plain"]
    root = ["--root", str(tmp_path / "absent")]
    done = command(str(store), *options, *root, "--screenshot", str(picture), env=environment)
    assert done.returncode == 0, done.stderr
    assert "plain rasteriser" in done.stdout
    assert "no images or points" in done.stderr and "absent" in done.stderr
    shown = [str(store), *root, "--scene", "scene-a", "--frame", "1", "--serve"]
    assert done.stdout.splitlines()[-1] == shlex.join(["next:", "python", "viz/inspect.py", *shown])
    with Image.open(picture) as image:
        assert image.size == (1280, 720)


def other_version(store: Path, tmp_path: Path) -> list[str]:
    path = tmp_path / "future.zarr"
    path.mkdir()
    group = json.loads((store / "zarr.json").read_text())
    group["attributes"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(group))
    return [str(path)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (lambda s, t: [str(t / "none.zarr")], "none.zarr"),
        (lambda s, t: [str(s), "--scene", "scene-x"], "it has scene-a"),
        (lambda s, t: [str(s), "--scene", "scene-a", "--frame", "2"], "frames 0..1"),
        (lambda s, t: [str(s), "--scene", "scene-a", "--frame", "-1"], "frames 0..1"),
        (other_version, "99"),
    ],
    ids=["missing store", "unknown scene", "frame beyond", "negative frame", "other version"],
)
def test_users_fault_is_one_line_and_exit_code_2(
    arguments: object, named: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(arguments)
    picture = ["--screenshot", str(tmp_path / "a.png"), "--root", str(tmp_path / "absent")]
    assert launch("inspect", [*arguments(store, tmp_path), *picture]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert named in error


def test_window_without_a_display_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("displays are found otherwise on this system")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert launch("inspect", [str(store)]) == 2
    assert "--screenshot" in capsys.readouterr().err


def test_video_has_the_frames_asked_for(store: Path, tmp_path: Path) -> None:
    options = [str(store), "--root", str(tmp_path / "absent"), "--size", "961x541"]
    film = tmp_path / "new" / "film.gif"
    more = ["--renderer", "plain", "--fps", "5", "--mask", "all"]
    assert launch("inspect", [*options, *more, "--video", str(film)]) == 0
    with Image.open(film) as image:
        assert (image.size, image.n_frames) == ((961, 541), 2)
        assert image.info["duration"] == 200
    one = tmp_path / "one.mp4"
    assert launch("inspect", [*options, *more, "--frames", "1:2", "--video", str(one)]) == 0
    cv2 = pytest.importorskip("cv2")
    reader = cv2.VideoCapture(str(one))
    there, picture = reader.read()
    assert there and picture.shape == (540, 960, 3) and not reader.read()[0]
    assert b"vp09" in one.read_bytes()
    assert {p.name for p in tmp_path.rglob("*.*") if p.is_file()} == {"film.gif", "one.mp4"}


def test_video_plays_in_a_browser(store: Path, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    options = [str(store), "--root", str(tmp_path / "absent"), "--size", "960x540"]
    assert launch("inspect", [*options, "--renderer", "plain", "--video", str(video)]) == 0
    with chromium(tmp_path / "profile") as page:
        page.open(video.as_uri())
        page.until("document.querySelector('video')?.videoWidth === 960")
        page.until("document.querySelector('video').readyState >= 2")


def test_where_there_is_no_vp9_the_note_says_that_browsers_play_none(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from viz.render import video

    monkeypatch.setattr(video, "CODECS", {"none": "", "mp4v": video.CODECS["mp4v"]})
    options = [str(store), "--root", str(tmp_path / "absent"), "--size", "960x540"]
    made = tmp_path / "video.mp4"
    assert launch("inspect", [*options, "--renderer", "plain", "--video", str(made)]) == 0
    assert "browsers do not play" in capsys.readouterr().err
    assert b"mp4v" in made.read_bytes()


def test_video_that_fails_leaves_no_file(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(store), "--root", str(tmp_path / "absent"), "--renderer", "plain"]
    for name, frames, named in (("a.gif", "0:3", "frames 0..1"), ("a.avi", "0:1", ".mp4 or .gif")):
        film = tmp_path / name
        assert launch("inspect", [*options, "--video", str(film), "--frames", frames]) == 2
        assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_one_process_draws_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Counted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **options: object) -> None:
            started.append(arguments)
            super().__init__(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Counted)
    scene = street_scene()
    with ViewPainter("auto") as painter:
        sizes = [painter.draw(scene, width=w, height=90).size for w in (160, 160, 120)]
    assert sizes == [(160, 90), (160, 90), (120, 90)]
    assert len(started) == 1


def test_renderer_that_dies_is_named_once_and_the_plain_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ViewPainter("auto") as painter:
        assert painter.draw(street_scene(), width=160, height=90).size == (160, 90)
        assert painter.drawn_by == "plain rasteriser" and "exit code 1" in painter.note
        painter.draw(street_scene(), width=160, height=90)
    with ViewPainter("open3d") as painter, pytest.raises(SetupError, match="cannot draw"):
        painter.draw(street_scene(), width=160, height=90)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("a.zarr --screenshot a.png --video b.gif", "--screenshot and --video"),
        ("a.zarr --serve --screenshot a.png", "--screenshot and --serve"),
        ("a.zarr --frames 0:2", "--frames needs --video"),
        ("a.zarr --fps 3", "--fps needs --video"),
        ("a.zarr --renderer plain", "--renderer needs"),
        ("a.zarr --audit a.json", "--audit needs --queue"),
        ("a.zarr --video a.gif --frame 0", "--video and --frame"),
        ("a.zarr --serve --size 960x540", "--serve and --size"),
        ("a.zarr --queue --screenshot a.png", "--queue and --screenshot"),
        ("a.zarr --queue --scene s", "--queue and --scene"),
        ("a.zarr --reviewer me --screenshot a.png", "--reviewer and --screenshot"),
        ("a.zarr --voxels truth", "needs --with-truth"),
        ("a.zarr --voxels second", "needs --second"),
        ("a.zarr --voxels difference", "needs --second or --with-truth"),
        ("a.zarr --voxels none --colour class", "--color is of labels"),
        ("a.zarr --voxels none --flow", "--flow needs voxels"),
        ("a.zarr --benchmark openocc_flow", "--with-truth"),
        ("--truth a --queue", "--queue needs a STORE"),
        ("--truth a --with-truth b", "--with-truth needs a STORE"),
        ("a.zarr --height 2:1", "LO below HI"),
        ("a.zarr --video a.gif --frames 3:3", "A below B"),
        ("a.zarr --video a.gif --fps 0", "0.1 to 60"),
        ("a.zarr --serve 70000", "65535"),
        ("a.zarr --wrong", "--wrong"),
    ],
)
def test_option_that_would_be_ignored_is_an_error(
    options: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("inspect", options.split()) == 2
    assert named in capsys.readouterr().err


def test_options_switch_the_layers_on() -> None:
    given = "a.zarr --mask all --points hit --flow --boxes --height=-1:2.5 --colour evidence"
    options = parse([*given.split(), "--classes", "car,driveable_surface"])
    assert layers_of(options, OCC3D_NUSCENES) == LayerSettings(
        color="evidence",
        mask="all",
        classes=frozenset({CAR, ROAD}),
        height_m=(-1.0, 2.5),
        points="hit",
        flow=True,
        boxes=True,
    )
    assert layers_of(parse(["a.zarr"]), OCC3D_NUSCENES) == LayerSettings()
    assert layers_of(parse(["--truth", "a"]), OCC3D_NUSCENES).mask == "all"
    options.classes = "car,unicorn"
    with pytest.raises(SetupError, match="unicorn"):
        layers_of(options, OCC3D_NUSCENES)
