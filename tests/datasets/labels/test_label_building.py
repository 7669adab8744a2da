"""Labels of a made-up street: a lorry drives between the vehicle and a wall."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.annotations import Annotations, Box
from datasets.benchmarks.occ3d_nuscenes import labels_path, read_labels
from datasets.errors import SceneError
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.ground_truth.scene_reconstruction import (
    BuiltLabels,
    LabelBuildingConfig,
    SceneReconstruction,
    close_holes,
)
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES, Taxonomy

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", ROOT.parent / "shared" / "data"))
FREE, TRUCK, ROAD, WALL = (
    OCC3D_NUSCENES.id_of(n) for n in ("free", "truck", "driveable_surface", "manmade")
)
GRID = VoxelGrid(min_m=(-20.0, -16.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(100, 80, 12))
T_VEHICLE_LIDAR = from_yaw(0.3, (1.0, 0.0, 1.8))
LORRY_M = (6.0, 2.4, 2.8)
FRAMES = 5


@dataclass(frozen=True)
class Solid:
    """A box of the world: its pose in the world, half its size, its class."""

    T: Transform
    half: tuple[float, float, float]
    class_id: int


def vehicle_at(k: float) -> Transform:
    return from_yaw(0.02 * k, (2.0 * k, 0.1 * k, 0.0))


def lorry_at(k: float) -> Transform:
    return from_yaw(0.05 * k, (5.0 * k - 6.0, 4.5, 1.5))


def world(k: float) -> list[Solid]:
    body = from_yaw(0.0, (1.2, 0.0, 0.8))
    half = (LORRY_M[0] / 2, LORRY_M[1] / 2, LORRY_M[2] / 2)
    return [
        Solid(from_yaw(0.0, (0.0, 0.0, -0.2)), (200.0, 200.0, 0.2), ROAD),
        Solid(from_yaw(0.0, (0.0, 10.0, 2.0)), (200.0, 0.5, 2.0), WALL),
        Solid(lorry_at(k), half, TRUCK),
        Solid(vehicle_at(k) @ body, (2.0, 0.8, 0.7), 0),  # the vehicle's own bonnet
    ]


def scan(k: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Returns in the LiDAR frame and the class of each."""
    azimuth, elevation = np.meshgrid(np.radians(np.arange(0, 360, 0.7)), np.linspace(-0.5, 0.2, 44))
    a, e = azimuth.ravel() + 0.01 * k, elevation.ravel()
    rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
    T_world_lidar = vehicle_at(k) @ T_VEHICLE_LIDAR
    nearest, classes = np.full(len(rays), np.inf), np.zeros(len(rays), np.uint8)
    for solid in world(k):
        T = inverse(solid.T) @ T_world_lidar
        o, d = T[:3, 3], rays @ T[:3, :3].T
        with np.errstate(divide="ignore"):
            t = np.stack([(-np.array(solid.half) - o) / d, (np.array(solid.half) - o) / d])
        enter, leave = t.min(axis=0).max(axis=1), t.max(axis=0).min(axis=1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest)
        nearest[hit], classes[hit] = enter[hit], solid.class_id
    seen = nearest < 60
    points = rays[seen] * nearest[seen, None]
    return np.c_[points, np.zeros(len(points))].astype(np.float32), classes[seen]


class Street:
    """An ``AnnotatedSource`` of that world. Sweeps are numbered by their time in key-frames."""

    name = "street"
    licence = "CC0"
    taxonomy: Taxonomy = OCC3D_NUSCENES

    def __init__(
        self, *, past: int = 0, marked: bool = True, sinking_m: float = 0.0, boxes: bool = True
    ) -> None:
        self.past, self.marked, self.sinking_m, self.boxes = past, marked, sinking_m, boxes
        self.broken: set[str] = set()

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("s",)

    def scene(self, scene_id: str) -> Scene:
        return Scene(scene_id=scene_id, frames=tuple(self._frame(k) for k in range(FRAMES)))

    def _pose(self, k: float) -> Transform:
        T = vehicle_at(k)
        T[2, 3] -= self.sinking_m * k
        return T

    def _frame(self, k: int) -> Frame:
        sweeps = []
        for step in range(self.past + 1):
            at = k - step / (self.past + 1)
            T = inverse(self._pose(k)) @ self._pose(at) @ T_VEHICLE_LIDAR
            sweeps.append(
                LidarSweep(path=Path(f"{at:.3f}"), timestamp_us=round(500_000 * at), T_ego_lidar=T)
            )
        T_ego_camera = np.eye(4)
        T_ego_camera[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # looks left
        T_ego_camera[:3, 3] = (1.0, 0.0, 1.6)
        camera = CameraView(
            name="LEFT",
            path=Path("left.jpg"),
            timestamp_us=500_000 * k,
            width=160,
            height=90,
            intrinsics=np.array([[80.0, 0, 80], [0, 80, 45], [0, 0, 1]]),
            T_ego_camera=T_ego_camera,
        )
        return Frame(
            scene_id="s",
            token=f"f{k}",
            timestamp_us=500_000 * k,
            T_global_ego=self._pose(k),
            cameras=(camera,),
            lidar=sweeps[0],
            past_sweeps=tuple(sweeps[1:]),
        )

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        if sweep.path.name in self.broken:
            raise SceneError(where=sweep.path.name, rule="truncated")
        return scan(float(sweep.path.name))[0]

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        raise AssertionError("labels need no picture")

    def n_frames(self, scene_id: str) -> int:
        return len(self.scene(scene_id).frames)

    def fingerprint(self, scene_id: str) -> str:
        return scene_id

    def annotations(self, frame: Frame) -> Annotations:
        k = int(frame.token[1:])
        T = inverse(vehicle_at(k)) @ lorry_at(k)
        lorry = Box(track="lorry", class_id=TRUCK, T_ego_box=T, size_m=LORRY_M)
        return Annotations(
            boxes=(lorry,) if self.boxes else (), point_classes=scan(k)[1] if self.marked else None
        )


EXACT = LabelBuildingConfig(correct_heights=False)


def built(
    source: Street, config: LabelBuildingConfig = EXACT, *, token: str = "f2", out: str = ""
) -> BuiltLabels:
    scene = source.scene("s")
    reconstruction = SceneReconstruction(scene, source, config, hold_out=(out,) if out else ())
    assert not reconstruction.bad_frames
    return reconstruction.labels(token, GRID)


@pytest.fixture(scope="module")
def labels() -> BuiltLabels:
    return built(Street())


def centres(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return GRID.centers(np.argwhere(mask))


def at_wall(k: int = 2) -> NDArray[np.bool_]:
    """Voxels of the wall's face in the ego frame of a key-frame, well above the ground."""
    every = GRID.centers(np.argwhere(np.ones(GRID.shape, bool)))
    p = apply(vehicle_at(k), every)
    face = (np.abs(p[:, 1] - 9.5) < 0.2) & (p[:, 2] > 0.6) & (p[:, 2] < 3.0)
    return np.asarray((face & (np.abs(p[:, 0] - 4) < 12)).reshape(GRID.shape))


def off_the_lorry(points_ego: NDArray[np.float64], k: float, margin: float) -> NDArray[np.bool_]:
    local = apply(inverse(lorry_at(k)) @ vehicle_at(2), points_ego)
    return np.asarray((np.abs(local) > np.array(LORRY_M) / 2 + margin).any(axis=1))


@pytest.mark.parametrize("past", [0, 3])
def test_moving_object_leaves_no_trail(past: int) -> None:
    found = built(Street(past=past))
    lorry = centres(found.semantics == TRUCK)
    assert len(lorry) > 150
    assert not off_the_lorry(lorry, 2, 0.45).any()
    # where it was and will be there is nothing above the ground
    rest = centres((found.semantics != FREE) & (found.semantics != WALL))
    high = rest[rest[:, 2] > 0.7]
    assert not off_the_lorry(high, 2, 0.45).any()


def test_far_side_of_an_object_comes_from_other_frames(labels: BuiltLabels) -> None:
    # the vehicle passes from behind to ahead of it, so both its ends are seen over the drive
    lorry = centres(labels.semantics == TRUCK)
    local = apply(inverse(lorry_at(2)) @ vehicle_at(2), lorry)
    assert local[:, 0].min() < -2.6 and local[:, 0].max() > 2.6


def test_wall_behind_the_lorry_is_there(labels: BuiltLabels) -> None:
    points, classes = scan(2)
    seen_now = np.zeros(GRID.shape, bool)
    ends = apply(T_VEHICLE_LIDAR, points[classes == WALL, :3])
    seen_now[tuple(GRID.indices(ends[GRID.contains(ends)]).T)] = True
    wall = labels.semantics == WALL
    hidden = wall & ~seen_now & at_wall()
    assert hidden.sum() > 60
    assert wall[at_wall()].mean() > 0.9


def test_vehicle_itself_is_nowhere(labels: BuiltLabels) -> None:
    own = labels.semantics == 0
    assert not own.any()
    p = centres(labels.semantics != FREE)
    body = (np.abs(p[:, 0] - 1.2) < 1.6) & (np.abs(p[:, 1]) < 0.6) & (p[:, 2] > 0.4)
    assert not body.any()


def test_what_no_ray_met_stays_unknown(labels: BuiltLabels) -> None:
    every = GRID.centers(np.argwhere(np.ones(GRID.shape, bool)))
    p = apply(vehicle_at(2), every)
    behind = ((p[:, 1] > 11.2) & (p[:, 2] < 1)).reshape(GRID.shape)
    below = (p[:, 2] < -0.6).reshape(GRID.shape)
    for hidden in (behind, below):
        assert not labels.mask_lidar[hidden].any() and not labels.mask_camera[hidden].any()
        assert (labels.semantics[hidden] == FREE).all()


def test_masks_hold_what_was_hit_or_passed(labels: BuiltLabels) -> None:
    occupied = labels.semantics != FREE
    assert (labels.mask_lidar == (occupied | (labels.passes > 0))).all()
    assert occupied[labels.hits > 0].all()
    assert not (labels.mask_camera & ~labels.mask_lidar).any()
    # the camera looks left: the near side of the lorry hides the wall from it
    lorry = labels.semantics == TRUCK
    assert (labels.mask_camera & lorry).any()
    p = centres(labels.mask_camera)
    assert (p[:, 1] > -1).all()
    assert labels.mask_camera[at_wall()].mean() < labels.mask_lidar[at_wall()].mean()


def test_points_without_marks_are_occupied_but_not_scored() -> None:
    found = built(Street(marked=False))
    assert set(np.unique(found.semantics)) == {TRUCK, FREE, IGNORE_ID}
    assert not off_the_lorry(centres(found.semantics == TRUCK), 2, 0.45).any()
    assert (found.semantics[at_wall()] == IGNORE_ID).mean() > 0.9


def test_sweeps_without_marks_take_the_class_of_their_surroundings() -> None:
    few, many = built(Street()), built(Street(past=3))
    assert many.hits.sum(dtype=int) > 2 * few.hits.sum(dtype=int)
    near = (many.semantics != FREE) & (few.semantics != FREE)
    assert (many.semantics == few.semantics)[near].mean() > 0.97
    assert (many.semantics == IGNORE_ID).sum() < 0.02 * (many.semantics != FREE).sum()


def test_mover_without_a_box_counts_in_its_own_frame_only() -> None:
    found = built(Street(boxes=False))
    lorry = centres(found.semantics == TRUCK)
    assert len(lorry) > 40
    assert not off_the_lorry(lorry, 2, 0.45).any()


def test_returns_of_a_frame_held_out_are_not_used() -> None:
    source = Street(past=1)
    before = built(source, out="f2")
    source.read_points = lambda sweep: (  # type: ignore[method-assign]
        scan(float(sweep.path.name))[0] * (0.3 if sweep.path.name in ("2.000", "1.500") else 1)
    )
    after = built(source, out="f2")
    assert (before.semantics == after.semantics).all() and (before.passes == after.passes).all()


def test_labels_predict_the_returns_of_a_frame_held_out() -> None:
    found = built(Street(), out="f2")
    points, classes = scan(2)
    ends = apply(T_VEHICLE_LIDAR, points[:, :3])
    used = GRID.contains(ends) & (classes > 0)
    at = found.semantics[tuple(GRID.indices(ends[used]).T)]
    assert (at != FREE).mean() > 0.9
    assert (at == classes[used]).mean() > 0.85


def test_lost_heights_are_found_again() -> None:
    right = built(Street())
    ground = {}
    for correct in (False, True):
        config = replace(EXACT, correct_heights=correct)
        found = built(Street(sinking_m=0.2), config)
        ground[correct] = int((found.semantics == ROAD).sum())
    expected = int((right.semantics == ROAD).sum())
    assert ground[False] > 1.3 * expected
    assert abs(ground[True] - expected) < 0.1 * expected


def test_bad_frame_is_set_aside_and_the_others_are_labelled() -> None:
    source = Street()
    source.broken = {"3.000"}
    reconstruction = SceneReconstruction(source.scene("s"), source, EXACT)
    assert list(reconstruction.bad_frames) == ["f3"]
    assert "truncated" in reconstruction.bad_frames["f3"]
    assert [f.token for f in reconstruction.frames] == ["f0", "f1", "f2", "f4"]
    assert (reconstruction.labels("f2", GRID).semantics == TRUCK).any()
    source.broken = {f"{k}.000" for k in range(FRAMES)}
    with pytest.raises(SceneError, match="no key-frame is left"):
        SceneReconstruction(source.scene("s"), source, EXACT)


def test_marks_that_do_not_fit_the_points_are_refused() -> None:
    source = Street()
    marks = Annotations(boxes=(), point_classes=np.zeros(7, np.uint8))
    source.annotations = lambda frame: marks  # type: ignore[method-assign]
    with pytest.raises(SceneError, match="7 point classes"):
        SceneReconstruction(source.scene("s"), source, EXACT)


def test_labels_are_the_same_every_time() -> None:
    config = LabelBuildingConfig()
    a, b = built(Street(past=1), config), built(Street(past=1), config)
    for name in BuiltLabels.__slots__:
        assert (getattr(a, name) == getattr(b, name)).all()


def test_holes_are_closed_only_where_nothing_passed() -> None:
    rng = np.random.default_rng(0)
    semantics = np.full((30, 30, 8), FREE, np.uint8)
    semantics[:, :, 2] = ROAD
    semantics[10, :, 2:6] = WALL
    whole = semantics.copy()
    holes = rng.random(semantics.shape) < 0.3
    semantics[holes] = FREE
    passed = rng.random(semantics.shape) < 0.2
    before = semantics.copy()
    close_holes(semantics, passed, OCC3D_NUSCENES)
    changed = semantics != before
    assert changed.sum() > 100
    assert not (changed & passed).any()
    assert (before[changed] == FREE).all()
    assert (semantics == whole)[changed].mean() > 0.9
    inner = np.s_[3:-3, 3:-3, 2]
    closed = (semantics[inner] != FREE) | passed[inner]
    assert closed.mean() > 0.95


@pytest.mark.parametrize(
    "wrong", [{"box_margin_m": -1.0}, {"vehicle_m": ((0.0, 0.0, 0.0), (1.0, -1.0, 1.0))}]
)
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must not|not in order"):
        LabelBuildingConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.skipif(
    not (REAL / "nuscenes-real-lidarseq").is_dir(), reason=f"no real nuScenes frames at {REAL}"
)
def test_command_labels_a_real_drive_on_a_slope_and_sets_its_bad_frame_aside(
    tmp_path: Path,
) -> None:
    log, out = tmp_path / "log", tmp_path / "labels"
    shutil.copytree(REAL / "nuscenes-real-lidarseq", log)
    for path in (log, *log.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    samples = json.loads((log / "v1.0-mini" / "sample.json").read_text())
    tokens = [row["token"] for row in sorted(samples, key=lambda row: row["timestamp"])]
    sweeps = sorted((log / "samples" / "LIDAR_TOP").iterdir())
    sweeps[9].write_bytes(sweeps[9].read_bytes()[:-7])
    command = [sys.executable, "scripts/make_labels.py", "--root", str(log), "--split", "all"]
    done = subprocess.run(
        [*command, "--out", str(out), "--hold-out", tokens[5], "--evidence"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert tokens[9] in done.stderr and sweeps[9].name in done.stderr
    report = json.loads((out / "make_labels.json").read_text())
    figures = report["scenes"]["scene-surroundocc"]
    assert list(report["set_aside"]["scene-surroundocc"]) == [tokens[9]]
    assert figures["ground_thickness_m"] < 0.06 < 0.4 < figures["ground_thickness_as_logged_m"]
    found = figures["held_out"][tokens[5]]
    assert found["returns"] > 25_000
    assert found["occupied"] > 0.92 and found["right_class"] > 0.9
    for token in tokens:
        path = labels_path(out, "scene-surroundocc", token)
        assert path.exists() == (token != tokens[9])
        if path.exists():
            truth = read_labels(path)
            assert truth.mask_lidar is not None and truth.mask_lidar.mean() > 0.2
            with np.load(path.with_name("evidence.npz")) as evidence:
                assert (truth.mask_lidar | (evidence["hits"] == 0)).all()
                assert (truth.mask_lidar | (evidence["passes"] == 0)).all()
