"""What the check of a log finds in wrong logs, and that it lets right ones pass."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_log import edit_json, pose, vehicle_at, write_log
from PIL import Image

from datasets.cli.launch import launch
from datasets.frames import CameraView, Frame, LidarSweep
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.log_checks.cameras import NOTHING, CameraEvidence, camera_evidence, camera_findings
from datasets.log_checks.ground import columns, ground_height_m, spread
from datasets.log_checks.motion import check_motion, check_times
from datasets.log_checks.structure import StaticAgreement, pairs_to_compare, static_agreement
from datasets.sources.nuscenes import NuScenesSource
from datasets.taxonomy import OCC3D_WAYMO

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data"))
Change = Callable[[int, Frame], Frame]
SECOND_US = 1_000_000
LIDAR_AT = from_yaw(0.3, [1.0, 0.0, 1.8])
POLES = np.random.default_rng(4).uniform([-30, -30], [90, 30], (160, 2))


def vehicle(k: int) -> Transform:
    """Half-second steps of 4 m along a gentle curve that starts at 40 degrees."""
    yaw = np.radians(40 + 2 * k)
    way = np.array(
        [[4 * np.cos(np.radians(40 + 2 * i)), 4 * np.sin(np.radians(40 + 2 * i))] for i in range(k)]
    )
    x, y = way.sum(axis=0) if k else (0.0, 0.0)
    return from_yaw(yaw, [500 + x, 80 + y, 12])


def drive(n: int = 8) -> list[Frame]:
    return [
        Frame(
            scene_id="s",
            token=f"f{k}",
            timestamp_us=k * SECOND_US // 2,
            T_global_ego=vehicle(k),
            cameras=(),
            lidar=LidarSweep(
                path=Path(f"{k}.npz"), timestamp_us=k * SECOND_US // 2, T_ego_lidar=LIDAR_AT
            ),
        )
        for k in range(n)
    ]


def seen_points(k: int) -> np.ndarray:
    """Poles of the world and the ground's rings, in the LiDAR's frame at frame k."""
    z = np.linspace(0, 3, 16)
    poles = np.concatenate([np.c_[np.tile(p, (16, 1)), z] for p in POLES])
    first = vehicle(0)
    world = apply(first, poles)
    noise = np.random.default_rng(k).normal(0, 0.02, world.shape)
    angle = np.linspace(0, 2 * np.pi, 360)
    rings = [np.c_[r * np.cos(angle), r * np.sin(angle), 0 * angle] for r in (5, 8, 12, 20)]
    in_ego = np.concatenate([apply(inverse(vehicle(k)), world + noise), *rings])
    return apply(inverse(LIDAR_AT), in_ego)


def agreement(frames: list[Frame]) -> StaticAgreement:
    upright = {}
    for k, frame in enumerate(frames):
        assert frame.lidar is not None
        own = columns(apply(frame.lidar.T_ego_lidar, seen_points(k)))
        upright[frame.token, frame.lidar.lidar] = own
    return static_agreement(pairs_to_compare(frames, 10), upright, "lidar")


def with_pose(T: Callable[[Transform, int], Transform]) -> Change:
    return lambda k, f: replace(f, T_global_ego=T(f.T_global_ego, k))


def with_lidar_turned(degrees: float) -> Change:
    def change(_: int, frame: Frame) -> Frame:
        assert frame.lidar is not None
        turned = frame.lidar.T_ego_lidar @ from_yaw(np.radians(degrees), [0, 0, 0])
        return replace(frame, lidar=replace(frame.lidar, T_ego_lidar=turned))

    return change


def longer(factor: float) -> Change:
    def stretched(T: Transform, _: int) -> Transform:
        out = T.copy()
        out[:3, 3] = vehicle(0)[:3, 3] + factor * (T[:3, 3] - vehicle(0)[:3, 3])
        return out

    return with_pose(stretched)


def without_rotation(T: Transform, _: int) -> Transform:
    return from_yaw(0, T[:3, 3])


def drifting(T: Transform, k: int) -> Transform:
    return T @ from_yaw(np.radians(3 * k), [0, 0, 0])


def test_static_structure_stays_in_place_under_right_poses() -> None:
    found = agreement(drive())
    assert found.stated / found.n > 0.7
    assert found.unmoved / found.n < 0.2
    assert found.findings() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_pose(lambda T, _: inverse(T)), "does not stay in place"),
        (with_pose(without_rotation), "does not stay in place"),
        (with_pose(drifting), "does not stay in place"),
        (longer(1.1), "the motion 0.9 times as long"),
        (with_lidar_turned(4), "the LiDAR turned by -4 degrees"),
        (with_lidar_turned(-4), r"the LiDAR turned by \+4 degrees"),
        (with_lidar_turned(90), "does not stay in place"),
    ],
)
def test_wrong_poses_and_extrinsics_are_found(change: Change, says: str) -> None:
    (finding,) = agreement([change(k, f) for k, f in enumerate(drive())]).findings()
    assert finding.bad
    assert re.search(says, finding.text), finding.text


def test_ground_rings_and_walls_out_of_reach_get_no_vote() -> None:
    angle = np.linspace(0, 2 * np.pi, 360)
    rings = np.concatenate(
        [np.c_[r * np.cos(angle), r * np.sin(angle), 0 * angle] for r in (5, 10, 20, 60)]
    )
    barrier = np.c_[np.linspace(-30, 30, 600), np.full(600, 4), np.full(600, 0.7)]
    assert len(columns(np.concatenate([rings, barrier]))) == 0
    assert ground_height_m(rings - [0, 0, 0.8]) == pytest.approx(-0.8)
    assert ground_height_m(rings[:3]) is None


def test_a_vehicle_that_stands_is_not_judged() -> None:
    frames = [replace(f, T_global_ego=vehicle(0)) for f in drive()]
    (finding,) = agreement(frames).findings()
    assert not finding.bad and "not tested" in finding.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda k, f: _moved(f, 60) if k == 5 else f, "the pose jumps by"),
        (lambda k, f: _moved(f, 6) if k == 5 else f, "m/s2"),
        (lambda k, f: _turned(f, 80, "z") if k == 5 else f, "the vehicle turns by"),
        (lambda k, f: _turned(f, 25, "x") if k == 5 else f, "the vehicle tilts by 25 degrees"),
        (lambda k, f: _turned(f, 90, "z"), "travels 90 degrees off its X axis"),
        (lambda k, f: _with_camera(f, 20_000, 1.5) if k == 5 else f, "the vehicle is 1.5 m away"),
    ],
)
def test_motion_that_no_vehicle_makes_is_found(change: Change, says: str) -> None:
    assert check_motion(drive()) == []
    findings = check_motion([change(k, f) for k, f in enumerate(drive())])
    assert any(says in f.text and f.bad for f in findings), findings


@pytest.mark.parametrize(
    ("change", "bad", "says"),
    [
        (lambda k, f: _later(f, 2) if k > 4 else f, False, "frames: gap of 2.50 s, usually 0.50 s"),
        (lambda k, f: replace(f, lidar=None) if k == 4 else f, True, "no LiDAR sweep"),
        (lambda k, f: f if k == 4 else _with_camera(f, 0, 0), False, "no image of front"),
        (lambda k, f: _with_camera(f, 160_000, 1), True, "front was taken +0.160 s from"),
    ],
)
def test_gaps_and_sensors_that_come_and_go_are_found(change: Change, bad: bool, says: str) -> None:
    assert check_times(drive()) == []
    findings = check_times([change(k, f) for k, f in enumerate(drive())])
    assert any(says in f.text and f.bad == bad for f in findings), findings


def _moved(frame: Frame, metres: float) -> Frame:
    return replace(frame, T_global_ego=frame.T_global_ego @ from_yaw(0, [metres, 0, 0]))


def _turned(frame: Frame, degrees: float, axis: str) -> Frame:
    turn = from_yaw(np.radians(degrees), [0, 0, 0])
    if axis == "x":
        turn = np.roll(turn[:3, :3], (1, 1), (0, 1))
        turn = np.block([[turn, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    return replace(frame, T_global_ego=frame.T_global_ego @ turn)


def _later(frame: Frame, seconds: int) -> Frame:
    return replace(frame, timestamp_us=frame.timestamp_us + seconds * SECOND_US)


FORWARD = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]], float)


def _camera(time_us: int = 0, moved_m: float = 0.0) -> CameraView:
    T_ego_vehicle = from_yaw(0, [moved_m, 0, 0])
    return CameraView(
        name="front",
        path=Path("front.jpg"),
        timestamp_us=time_us,
        width=640,
        height=360,
        intrinsics=np.array([[400.0, 0, 320], [0, 400, 180], [0, 0, 1]]),
        T_ego_camera=T_ego_vehicle @ FORWARD,
        T_ego_vehicle=T_ego_vehicle,
    )


def _with_camera(frame: Frame, offset_us: int, moved_m: float) -> Frame:
    return replace(frame, cameras=(_camera(frame.timestamp_us + offset_us, moved_m),))


def street(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of posts before a wall, and the picture that the camera has of them."""
    rng = np.random.default_rng(seed)
    view = _camera()
    wall = np.stack(np.meshgrid([38.0], np.arange(-28, 28, 0.1), np.arange(-4, 8, 0.2)), -1)
    picture = np.full((360, 640, 3), 210, np.uint8)
    points = [wall.reshape(-1, 3)]
    for x, y in rng.uniform([8, -10], [25, 10], (12, 2)):
        post = np.stack(
            np.meshgrid([x], np.arange(y - 0.3, y + 0.3, 0.03), np.arange(0, 3, 0.1)), -1
        )
        points.append(post.reshape(-1, 3))
        corners = apply(inverse(view.T_ego_camera), np.array([[x, y + 0.3, 3], [x, y - 0.3, 0]]))
        (u0, v0), (u1, v1) = np.clip(
            (corners / corners[:, 2:]) @ view.intrinsics[:2].T, 0, [640, 360]
        ).astype(int)
        picture[v0:v1, u0:u1] = 60
    return np.concatenate(points), picture


def about_y(degrees: float) -> Transform:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]])


def cameras(
    change: Callable[[CameraView], CameraView], *, quarter_turns: int = 0
) -> dict[str, CameraEvidence]:
    """Evidence of four cameras, each of which looks at posts of its own over four frames."""
    frames = [replace(f, cameras=tuple(change(v) for v in _four(f.timestamp_us))) for f in drive(4)]
    found: dict[str, CameraEvidence] = {}
    for k in range(len(frames)):
        pictures, points = {}, []
        for i, (name, yaw) in enumerate(AROUND.items()):
            world, picture = street(10 * k + i)
            picture = np.rot90(picture, quarter_turns)
            points.append(apply(from_yaw(yaw, [0, 0, 0]), world))
            pictures[SWAPPED_NAMES.get(name, name) if change is swapped else name] = picture
        for name, evidence in camera_evidence(frames, k, np.concatenate(points), pictures).items():
            found[name] = found.get(name, NOTHING) + evidence
    return found


AROUND = {"front": 0.0, "left": np.pi / 2, "back": np.pi, "right": -np.pi / 2}
SWAPPED_NAMES = {"front": "left", "left": "front"}


def _four(time_us: int) -> tuple[CameraView, ...]:
    view = replace(_camera(time_us), T_ego_vehicle=np.eye(4))
    return tuple(
        replace(view, name=name, T_ego_camera=from_yaw(yaw, [0, 0, 0]) @ FORWARD)
        for name, yaw in AROUND.items()
    )


def swapped(view: CameraView) -> CameraView:
    return view


def turned_front(view: CameraView) -> CameraView:
    if view.name != "front":
        return view
    return replace(view, T_ego_camera=view.T_ego_camera @ about_y(4))


def all_turned(view: CameraView) -> CameraView:
    return replace(view, T_ego_camera=view.T_ego_camera @ about_y(4))


def longer_lens(name: str) -> Callable[[CameraView], CameraView]:
    def change(view: CameraView) -> CameraView:
        scale = np.diag([1.1, 1.1, 1]) if name in (view.name, "all") else np.eye(3)
        K = scale @ view.intrinsics
        K[:2, 2] = view.intrinsics[:2, 2]
        return replace(view, intrinsics=K)

    return change


def with_mount(change: Callable[[Transform], Transform]) -> Callable[[CameraView], CameraView]:
    """``T_vehicle_camera`` in another convention; the vehicle frame is the ego frame here."""
    return lambda view: replace(view, T_ego_camera=change(view.T_ego_camera))


def scaled(factor: float, *, size: bool = False) -> Callable[[CameraView], CameraView]:
    """Focal lengths so many times the true ones; with ``size`` intrinsics of another image."""

    def change(view: CameraView) -> CameraView:
        K = np.diag([factor, factor, 1]) @ view.intrinsics
        if not size:
            K[:2, 2] = view.intrinsics[:2, 2]
        return replace(view, intrinsics=K)

    return change


def rolled(turns: int) -> dict[str, CameraEvidence]:
    """Evidence of cameras that are mounted rolled by quarter turns, and say so."""
    c, s = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    roll = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64)

    def change(view: CameraView) -> CameraView:
        K = view.intrinsics.copy()
        if turns % 2:
            K[:2, 2] = K[1::-1, 2]
        size = (view.height, view.width) if turns % 2 else (view.width, view.height)
        return replace(
            view,
            T_ego_camera=view.T_ego_camera @ roll,
            intrinsics=K,
            width=size[0],
            height=size[1],
        )

    return cameras(change, quarter_turns=turns)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_cameras_that_are_mounted_rolled_are_right(turns: int) -> None:
    assert camera_findings([rolled(turns)] * 3) == []


def test_depth_edges_lie_on_picture_edges_of_right_cameras() -> None:
    found = cameras(lambda view: view)
    assert min(sum(c.edges) for c in found.values()) > 400
    assert camera_findings([found] * 3) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (turned_front, r"^front: its extrinsics turned by -4 degrees about the camera's y axis"),
        (longer_lens("front"), r"^front: a focal length 0.91 times the stated one"),
        (longer_lens("all"), r"^all cameras: a focal length 0.91 times the stated one"),
        (swapped, "^images of front and left look swapped"),
        (all_turned, "the cause is not told"),
        (with_mount(inverse), "^all cameras: the extrinsics look inverted"),
        (
            with_mount(lambda T: T @ inverse(FORWARD)),
            "^all cameras: the extrinsics look like axes X forward, Y left, Z up",
        ),
        (
            with_mount(lambda T: T @ np.diag([1.0, -1, -1, 1])),
            "^all cameras: the extrinsics look like OpenGL's axes",
        ),
        (scaled(0.5), "^all cameras: a focal length about 2 times the stated one"),
        (scaled(2), "^all cameras: a focal length about 0.5 times the stated one"),
        (scaled(0.5, size=True), "^all cameras: a focal length about 2 times the stated one"),
        (scaled(2, size=True), "^all cameras: a focal length about 0.5 times the stated one"),
    ],
)
def test_a_wrong_camera_is_named_only_where_it_is_alone(
    change: Callable[[CameraView], CameraView], says: str
) -> None:
    (finding,) = camera_findings([cameras(change)] * 3)
    assert finding.bad
    assert re.search(says, finding.text), finding.text


def test_a_camera_that_looks_away_from_all_points_is_named() -> None:
    view = replace(_camera(), T_ego_camera=_camera().T_ego_camera @ about_y(180))
    frame = replace(drive(1)[0], cameras=(view,))
    world, picture = street(0)
    (finding,) = camera_findings([camera_evidence([frame], 0, world, {"front": picture})])
    assert "0.00 % of the points lie in its image" in finding.text


def test_indices_are_spread_over_all() -> None:
    assert spread(0, 5) == []
    assert spread(3, 5) == [0, 1, 2]
    assert spread(101, 5) == [0, 25, 50, 75, 100]


def run(capsys: Any, *argv: object) -> tuple[int, str]:
    code = launch("check-log", [str(word) for word in argv])
    return code, capsys.readouterr().out


def test_a_right_log_passes_and_is_drawn(capsys: Any, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", ("a", "b"))
    picture = tmp_path / "out" / "overlay.png"
    code, out = run(capsys, log, "--picture", picture)
    assert code == 0, out
    assert "2 scenes checked: nothing bad" in out
    with Image.open(picture) as image:
        assert image.size == (800, 600)
        drawn = (np.asarray(image)[100:] != [9, 99, 199]).any(axis=-1)
    assert 400 < drawn.sum() < 800  # 200 points of the wall, four pixels each, some in one place


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real sensor data at {REAL}")
def test_boxes_and_picture_labels_are_counted_and_boxes_drawn_without_lidar(
    capsys: Any, tmp_path: Path
) -> None:
    picture = tmp_path / "boxes.png"
    code, out = run(capsys, REAL / "waymo", "--source", "waymo", "--picture", picture)
    assert code == 0, out
    assert "37 vehicle, 25 sign, 12 pedestrian, 1 cyclist" in out
    assert "2,100,961 car, 1,987,416 road" in out
    with Image.open(picture) as image:
        colors = {tuple(c) for c in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}
    assert {OCC3D_WAYMO.colors[i] for i in (1, 2, 3)} <= colors


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda a: (a / "front/005.png").unlink(), "missing file"),
        (lambda a: _cut(a / "front/005.png"), "a5): .*005.png: picture cannot be decoded"),
        (lambda a: (a / "lidar/003.npz").unlink(), "missing file: .*003.npz"),
        (lambda a: _cut(a / "lidar/005.npz"), "a5): .*005.npz: cannot be read"),
        (lambda a: (a / "scene.json").write_text("{"), "scene.json: no readable JSON"),
        (lambda a: (a / "annotations.json").write_text("{"), "annotations.json: no readable JSON"),
        (
            lambda a: edit_json(a / "scene.json", _raise_sweeps),
            r"the ground lies at z = -1\.\d\d m",
        ),
        (
            lambda a: edit_json(a / "scene.json", _invert_lidar),
            r"the ground lies at z = -3\.6\d m .* its extrinsics look inverted",
        ),
    ],
)
def test_damage_is_named_and_ends_with_code_1(
    capsys: Any,
    tmp_path: Path,
    damage: Callable[[Path], object],
    says: str,
) -> None:
    log = write_log(tmp_path / "log", ("a", "b"))
    _add_ground(log / "scenes/a")
    damage(log / "scenes/a")
    code, out = run(capsys, log)
    assert code == 1
    assert re.search(says.replace("a5)", r"a5\)"), out), out
    assert "scene b" in out  # the other scene is checked all the same
    code, out = run(capsys, log, "--scene", "b")
    assert code == 0, out


def test_every_sweep_is_opened_when_asked_for(capsys: Any, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    _cut(log / "scenes/a/lidar/002.npz")
    assert run(capsys, log)[0] == 0
    code, out = run(capsys, log, "--frames", 0)
    assert code == 1 and "002.npz: cannot be read" in out


def _add_ground(scene: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 400)
    rings = np.concatenate(
        [np.c_[r * np.cos(angle), r * np.sin(angle), 0 * angle - 1.8, 0 * angle] for r in (6, 9)]
    )
    for path in (scene / "lidar").iterdir():
        np.savez(path, points=rings.astype(np.float32))


def _raise_sweeps(data: dict[str, Any]) -> None:
    data["lidars"]["top"]["T_vehicle_lidar"]["translation_m"][2] -= 1.2


def _invert_lidar(data: dict[str, Any]) -> None:
    mounted = from_yaw(-np.pi / 2, [0.9, 0, 1.8])
    assert data["lidars"]["top"]["T_vehicle_lidar"] == pose(mounted)
    data["lidars"]["top"]["T_vehicle_lidar"] = pose(inverse(mounted))


def test_what_cannot_be_opened_ends_with_code_2(capsys: Any, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    for words, named in (
        ((tmp_path / "nothing",), "no such folder"),
        ((tmp_path,), "no log.json"),
        ((log, "--scene", "z"), "unknown split 'z'"),
    ):
        assert launch("check-log", [str(word) for word in words]) == 2
        assert named in capsys.readouterr().err


def test_wrong_poses_of_a_folder_log_end_with_code_1(capsys: Any, tmp_path: Path) -> None:
    def sideways(data: dict[str, Any]) -> None:
        for sweep in data["sweeps"]:
            T = vehicle_at(sweep["timestamp_us"])
            sweep["T_global_vehicle"] = pose(T @ from_yaw(np.pi / 2, [0, 0, 0]))

    log = write_log(tmp_path / "log")
    edit_json(log / "scenes/a/scene.json", sideways)
    code, out = run(capsys, log)
    assert code == 1
    assert "travels 90 degrees off its X axis" in out


@pytest.mark.skipif(
    not (REAL / "nuscenes-real-lidarseq").is_dir(), reason=f"no real nuScenes sequence at {REAL}"
)
def test_real_poses_pass_and_wrong_ones_do_not() -> None:
    source = NuScenesSource(REAL / "nuscenes-real-lidarseq", past_sweeps=0)
    frames = list(source.scene(source.scene_ids("all")[0]).frames)

    def agree(changed: list[Frame]) -> StaticAgreement:
        upright = {
            (f.token, s.lidar): columns(apply(s.T_ego_lidar, source.read_points(s)[:, :3]))
            for f in changed
            for s in f.moment
        }
        lidar = changed[0].moment[0].lidar
        return static_agreement(pairs_to_compare(changed, 5), upright, lidar)

    right = agree(frames)
    assert right.findings() == []
    assert right.stated > 2 * right.unmoved
    for change in (with_pose(without_rotation), with_pose(drifting), with_lidar_turned(4)):
        (finding,) = agree([change(k, f) for k, f in enumerate(frames)]).findings()
        assert finding.bad
