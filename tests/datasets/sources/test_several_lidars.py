"""Several LiDARs on one vehicle: each ray from its own sensor, the vehicle cut in its own frame."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_script
from frame_visibility import frame_visibility
from numpy.typing import NDArray

from autolabel.cluster.progress import describe
from autolabel.cluster.summary import JobSummary
from autolabel.cluster.worker import Worker
from datasets.annotations import Annotations, annotated_frames
from datasets.errors import SceneError
from datasets.frames import from_vehicle, in_lidar_frame, nearest_of_each, points_in_ego
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply, inverse
from datasets.ground_truth.scene_reconstruction import (
    LabelBuildingConfig,
    SceneReconstruction,
    key_returns,
)
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.returns import DroppedReturns
from datasets.sources.folder import FolderSource
from datasets.taxonomy import OCC3D_NUSCENES
from datasets.visibility import ray_origins

GRID = VoxelGrid(min_m=(-40, -40, -1), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 16))
T0 = 10_000_000
FRONT, REAR = (3.0, 0.0, 1.8), (-3.0, 0.5, 1.0)
SPEED_M_S = 5.0
Json = dict[str, Any]


def at(x: float = 0, y: float = 0, z: float = 0) -> list[list[float]]:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T.tolist()


def returns(xyz: NDArray[Any], intensity: float = 50) -> NDArray[np.float32]:
    return np.c_[xyz, np.full(len(xyz), intensity)].astype(np.float32)


def wall(x: float) -> NDArray[np.float64]:
    y = np.linspace(-10, 10, 41)
    return np.stack([np.full(41, x), y, np.full(41, 1.0)], axis=1)


def ground(n: int = 2000) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    r, a = rng.uniform(6, 25, n), rng.uniform(-np.pi, np.pi, n)
    return np.stack([r * np.cos(a), r * np.sin(a), np.full(n, 0.05)], axis=1)


def write(
    root: Path,
    sweeps: list[Json],
    points: dict[str, NDArray[np.float32]],
    frames: list[Json],
    *,
    lidars: dict[str, tuple[float, float, float]] | None = None,
    boxes: Json | None = None,
    log: Json | None = None,
) -> FolderSource:
    scene = root / "scenes/s"
    scene.mkdir(parents=True)
    mounts = lidars or {"front": FRONT, "rear": REAR}
    for name, values in points.items():
        np.savez(scene / name, points=values)
    for sweep in sweeps:
        x = SPEED_M_S * (sweep["timestamp_us"] - T0) * 1e-6
        sweep.setdefault("T_global_vehicle", at(x))
    document = {
        "cameras": {},
        "lidars": {name: {"T_vehicle_lidar": at(*place)} for name, place in mounts.items()},
        "sweeps": sweeps,
        "frames": frames,
    }
    (scene / "scene.json").write_text(json.dumps(document))
    if boxes is not None:
        (scene / "annotations.json").write_text(json.dumps({"frames": boxes}))
    head = {"format": "autolabel-folder", "version": 1, "name": "rig", "licence": "none"}
    (root / "log.json").write_text(json.dumps(head | (log or {})))
    return FolderSource(root, past_sweeps=2)


def frame_at(file: str, token: str = "f0") -> Json:
    return {"token": token, "sweep": file, "cameras": []}


def sweep(file: str, lidar: str, us: int) -> Json:
    return {"file": file, "lidar": lidar, "timestamp_us": us}


@pytest.mark.parametrize("later_us", [-1, 0, 1, 30_000, -30_000])
@pytest.mark.parametrize("key_first", [True, False])
def test_each_ray_starts_at_its_own_lidar_whatever_the_times_say(
    tmp_path: Path, later_us: int, key_first: bool
) -> None:
    rows = [sweep("f.npz", "front", T0), sweep("r.npz", "rear", T0 + later_us)]
    rows = sorted(rows if key_first else rows[::-1], key=lambda row: row["timestamp_us"])
    points = {"f.npz": returns(wall(20) - FRONT), "r.npz": returns(wall(-20) - REAR)}
    source = write(tmp_path, rows, points, [frame_at("f.npz")])
    (frame,) = source.scene("s").frames
    assert [s.lidar for s in frame.moment] == ["front", "rear"] and frame.past_sweeps == ()
    got = points_in_ego(source, frame)
    moved = SPEED_M_S * later_us * 1e-6
    expected = np.where(got[:, :1] > 0, [FRONT], [np.add(REAR, (moved, 0, 0))])
    np.testing.assert_allclose(ray_origins(frame, got), expected, atol=1e-9)
    turned = in_lidar_frame(frame)
    np.testing.assert_allclose(
        ray_origins(turned, points_in_ego(source, turned)),
        apply(inverse(frame.moment[0].T_ego_lidar), expected),
        atol=1e-9,
    )
    seen = frame_visibility(source, frame, GRID)
    behind = GRID.indices(np.array([[-10.0, 0.5, 1.0]]))[0]
    assert seen.passes[tuple(behind)] > 0  # between the rear LiDAR and its wall
    beside = GRID.indices(np.array([[0.2, 0.2, 1.4]]))[0]
    assert seen.passes[tuple(beside)] == 0  # between the LiDARs no ray went


@pytest.mark.parametrize("grouped", [False, True])
def test_past_sweeps_are_counted_for_each_lidar(tmp_path: Path, grouped: bool) -> None:
    rows, points = [], {}
    for k in range(-4, 1):
        for lidar, shift in (("rear", -20_000), ("front", 0)):
            name = f"{lidar}{k}.npz"
            rows.append(sweep(name, lidar, T0 + 100_000 * k + shift))
            points[name] = returns(wall(20))
    if grouped:  # all sweeps of one LiDAR, then all of the other
        rows.sort(key=lambda row: row["lidar"])
    source = write(tmp_path, rows, points, [frame_at("front0.npz")])
    (frame,) = source.scene("s").frames
    assert [s.path.stem for s in frame.moment] == ["front0", "rear0"]
    assert [s.path.stem for s in frame.past_sweeps] == ["front-1", "rear-1", "front-2", "rear-2"]
    assert [s.path.stem for s in nearest_of_each(frame.past_sweeps, 1)] == ["front-1", "rear-1"]
    lags = np.unique(points_in_ego(source, frame, past=1)[:, 4])
    np.testing.assert_allclose(lags, [0, 0.02, 0.1, 0.12], atol=1e-6)


def test_the_vehicle_is_cut_in_its_own_frame_for_every_lidar(tmp_path: Path) -> None:
    mounts = {"roof": (1.0, 0.0, 1.9), "bumper": (3.8, 0.0, 0.6)}
    bollard = np.stack([np.full(50, 5.3), np.zeros(50), np.linspace(0.1, 1.1, 50)], axis=1)
    bonnet = np.stack([np.full(50, 3.0), np.linspace(-0.8, 0.8, 50), np.full(50, 1.1)], axis=1)
    rows = [sweep("b.npz", "bumper", T0 - 1000), sweep("r.npz", "roof", T0)]
    points = {
        "r.npz": returns(ground() - mounts["roof"]),
        "b.npz": returns(np.concatenate([bollard, bonnet]) - mounts["bumper"]),
    }
    source = write(tmp_path, rows, points, [frame_at("r.npz")], lidars=mounts)
    (frame,) = source.scene("s").frames
    kept = points_in_ego(source, frame, vehicle="kept")
    assert len(kept) == 2100 and from_vehicle(frame, kept).sum() == 50
    assert len(points_in_ego(source, frame)) == 2050
    config = LabelBuildingConfig(correct_heights=False)
    built = SceneReconstruction(source.scene("s"), source, config)
    labels = built.labels("f0", GRID)
    free = OCC3D_NUSCENES.free_id
    cells = GRID.indices(bollard)
    assert (labels.semantics[tuple(cells.T)] != free).all()
    assert (labels.semantics[tuple(GRID.indices(bonnet).T)] == free).all()
    assert len(key_returns(source, frame, config)[0]) == 2050
    # as the log states it: this vehicle is a van whose front reaches over the bollard
    (tmp_path / "van").mkdir()
    van = write(
        tmp_path / "van",
        rows,
        points,
        [frame_at("r.npz")],
        lidars=mounts,
        log={"vehicle_m": [[-1, -1, -1], [6, 1, 3]]},
    )
    assert len(points_in_ego(van, van.scene("s").frames[0])) == 2000
    assert van.fingerprint("s") != source.fingerprint("s")


def test_returns_that_measure_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    good = returns(ground(200) - FRONT)
    bad = good.copy()
    bad[:30, :3] = 0
    bad[30:40, :3] = [0.01, -0.02, 0.03]
    bad[40, 1] = np.nan
    bad[41, 3] = np.inf
    rows = [sweep("f.npz", "front", T0)]
    source = write(tmp_path, rows, {"f.npz": bad}, [frame_at("f.npz")])
    np.savez(
        tmp_path / "scenes/s/f.npz", points=bad, classes=(np.arange(200) % 17).astype(np.uint8)
    )
    (frame,) = source.scene("s").frames
    assert frame.lidar is not None
    np.testing.assert_array_equal(source.read_points(frame.lidar), good[42:])
    marks = source.annotations(frame)
    np.testing.assert_array_equal(marks.point_classes, np.arange(42, 200) % 17)
    counted = source.returns.total(frame.sweeps)
    assert counted == DroppedReturns(read=200, not_finite=2, at_origin=40)
    assert "40 at the sensor's origin (within 0.1 m) and 2 not finite of 200" in str(counted)
    seen = frame_visibility(source, frame, GRID)
    assert seen.hits[tuple(GRID.indices(np.array([FRONT]))[0])] == 0
    bad[:20, 2] = np.nan
    np.savez(tmp_path / "scenes/s/f.npz", points=bad)
    with pytest.raises(SceneError, match=r"22 of 200 points are not finite.*at most 5 %"):
        source.read_points(frame.lidar)
    np.savez(tmp_path / "scenes/s/f.npz", points=np.zeros((9, 4), np.float32))
    with pytest.raises(SceneError, match="all of its 9 points lie at the sensor's origin"):
        source.read_points(frame.lidar)


def test_a_job_reports_what_its_workers_left_out(tmp_path: Path) -> None:
    points = returns(ground(200) - FRONT)
    points[:30, :3] = 0
    rows = [sweep("f.npz", "front", T0)]
    source = write(tmp_path, rows, {"f.npz": points}, [frame_at("f.npz")])
    scene = source.scene("s")
    worker = object.__new__(Worker)
    worker.source = source
    for _ in range(2):  # read twice, counted once
        points_in_ego(source, scene.frames[0])
    dropped = worker._returns(scene)
    assert dropped == DroppedReturns(read=200, at_origin=30)
    assert worker._returns(scene) == DroppedReturns()  # a long job keeps no list of its files
    summary = JobSummary(
        scenes=1,
        frames=1,
        skipped=0,
        failures={},
        voxels=1,
        trusted=1,
        trusted_occupied=1,
        returns=dropped,
        retries=0,
        seconds=1.0,
        worker_s=1.0,
    )
    assert "LiDAR: 30 at the sensor's origin (within 0.1 m) of 200" in describe(summary, tmp_path)


def test_classes_of_ones_own_are_mapped(tmp_path: Path) -> None:
    box = {"track": "1", "class": "Van", "size_m": [4, 2, 2], "T_vehicle_box": at(10)}
    source = write(
        tmp_path,
        [sweep("f.npz", "front", T0)],
        {"f.npz": returns(ground(4) - FRONT)},
        [frame_at("f.npz")],
        boxes={"f0": [box]},
        log={"class_map": {"Van": "car", "7": "sidewalk", "3": None}},
    )
    (frame,) = source.scene("s").frames
    path = tmp_path / "scenes/s/f.npz"

    def marked(*classes: int) -> Annotations:
        np.savez(path, points=returns(ground(4) - FRONT), classes=np.array(classes, np.uint8))
        return source.annotations(frame)

    marks = marked(7, 3, 255, 7)
    assert [OCC3D_NUSCENES.names[b.class_id] for b in marks.boxes] == ["car"]
    sidewalk = OCC3D_NUSCENES.id_of("sidewalk")
    np.testing.assert_array_equal(marks.point_classes, [sidewalk, 255, 255, sidewalk])
    with pytest.raises(SceneError, match="class 4 is not in 'class_map'"):
        marked(4, 7, 7, 7)


@pytest.mark.parametrize(
    ("table", "rule"),
    [({"Van": "lorry"}, "unknown class 'lorry'"), ({"Van": None}, "a box needs a class")],
)
def test_a_class_map_to_nowhere_is_refused(tmp_path: Path, table: Json, rule: str) -> None:
    from datasets.errors import SetupError

    with pytest.raises(SetupError, match=rule):
        write(
            tmp_path,
            [sweep("f.npz", "front", T0)],
            {"f.npz": returns(ground(4))},
            [frame_at("f.npz")],
            log={"class_map": table},
        )


def test_evaluation_scores_the_returns_of_every_lidar(tmp_path: Path) -> None:
    rows = [sweep("f.npz", "front", T0), sweep("r.npz", "rear", T0)]
    points = {"f.npz": returns(wall(20) - FRONT), "r.npz": returns(wall(-20) - REAR)}
    source = write(tmp_path / "log", rows, points, [frame_at("f.npz")])
    (frame,) = source.scene("s").frames
    semantics = np.full((1, *GRID.shape), OCC3D_NUSCENES.free_id, np.uint8)
    for x in (20, -20):
        semantics[(0, *GRID.indices(wall(x)).T)] = OCC3D_NUSCENES.id_of("manmade")
    store = LabelStore.create(
        tmp_path / "labels.zarr",
        StoreHeader(
            grid=GRID,
            taxonomy=OCC3D_NUSCENES,
            levels=(0.0, 1.0),
            licence="none",
            provenance={"source": "folder"},
            run_id="run-1",
        ),
    )
    store.write_scene(
        SceneLabels(
            scene_id="s",
            frame_tokens=(frame.token,),
            timestamps_us=np.array([frame.timestamp_us]),
            T_global_grid=frame.T_global_ego[None],
            semantics=semantics,
            confidence=np.ones_like(semantics),
            mask=np.full_like(semantics, MaskBit.TRUSTED),
        )
    )
    options = ["--store", "labels.zarr", "--root", "log", "--lidar", "--source", "folder"]
    done = run_script("scripts/evaluate.py", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    # two walls of 41 returns, each ray from the LiDAR that measured it
    assert re.search(r"all labels +82 +100\.0 +100\.0 +[\d.]+ +0\.0 ", done.stdout)


# --- frames that nobody annotated, and boxes that cannot be


CAR_X = (-15.0, 0.0, 15.0)


def passing_car(root: Path, boxes: Json, keys: tuple[int, ...] = (0, 1, 2)) -> FolderSource:
    """A car passes at y = 8 m, half a second from frame to frame; the vehicle stands."""
    rng, rows, points = np.random.default_rng(0), [], {}
    for k, x in enumerate(CAR_X):
        around = ground()
        around = around[~((np.abs(around[:, 0] - x) < 2.3) & (around[:, 1] > 7))]
        side = np.stack(
            [rng.uniform(x - 2.1, x + 2.1, 600), np.full(600, 7.2), rng.uniform(0.2, 1.5, 600)],
            axis=1,
        )
        rows.append(sweep(f"{k}.npz", "front", T0 + 500_000 * k) | {"T_global_vehicle": at()})
        points[f"{k}.npz"] = returns(np.concatenate([side, around]) - FRONT)
    frames = [frame_at(f"{k}.npz", f"f{k}") for k in keys]
    return write(root, rows, points, frames, boxes=boxes)


def car(x: float, track: str = "7", **other: Any) -> Json:
    box = {"track": track, "class": "car", "size_m": [4.5, 2, 1.7]}
    return box | {"T_vehicle_box": at(x, 8, 0.85)} | other


def phantoms(source: FolderSource) -> tuple[list[str], dict[str, str]]:
    """Frames that show the car where it is in another one, and the frames set aside."""
    config = LabelBuildingConfig(correct_heights=False)
    built = SceneReconstruction(source.scene("s"), source, config)
    wrong = []
    for frame in built.frames:
        occupied = built.labels(frame.token, GRID).semantics != OCC3D_NUSCENES.free_id
        for k, x in enumerate(CAR_X):
            low, high = GRID.indices(np.array([[x - 2.2, 7, 1], [x + 2.2, 9.2, 1]]))
            there = occupied[low[0] : high[0], low[1] : high[1], 4:8].any()
            if there != (frame.token == f"f{k}"):
                wrong.append(f"{frame.token} at the place of f{k}: {there}")
    return wrong, built.bad_frames


def test_a_key_frame_that_nobody_annotated_has_the_boxes_between(tmp_path: Path) -> None:
    everything = {f"f{k}": [car(x)] for k, x in enumerate(CAR_X)}
    assert phantoms(passing_car(tmp_path / "all", everything)) == ([], {})
    some = {k: boxes for k, boxes in everything.items() if k != "f1"}
    assert phantoms(passing_car(tmp_path / "some", some)) == ([], {})


def test_a_key_frame_far_from_any_annotation_is_left_out(tmp_path: Path) -> None:
    wrong, bad = phantoms(passing_car(tmp_path, {"f0": [car(CAR_X[0])]}))
    assert list(bad) == ["f1", "f2"] and "nobody annotated it" in bad["f2"]
    assert wrong == []


@pytest.mark.parametrize(
    ("tracks", "annotated"),
    [
        ([], []),
        ([(), ()], [False, False]),
        ([("a",), (), ("a", "b")], [True, False, True]),
        ([("a",), (), (), ("a",), ()], [True, False, False, True, True]),
        ([("a",), (), ("b",)], [True, True, True]),
    ],
)
def test_an_empty_frame_between_frames_of_one_track_was_not_annotated(
    tracks: list[tuple[str, ...]], annotated: list[bool]
) -> None:
    assert annotated_frames(tracks) == annotated


def test_no_annotations_at_all_is_said(tmp_path: Path) -> None:
    source = passing_car(tmp_path, {})
    built = SceneReconstruction(
        source.scene("s"), source, LabelBuildingConfig(correct_heights=False)
    )
    assert not built.annotated and not built.bad_frames


@pytest.mark.parametrize(
    ("boxes", "rule"),
    [
        ([car(0), car(12)], "track 7: 2 boxes of the frame"),
        ([car(0, size_m=[4.5, 0, 1.7])], "must be positive"),
        ([car(0, size_m=[4.5, float("nan"), 1.7])], "finite"),
    ],
)
def test_only_the_frame_with_impossible_boxes_suffers(
    tmp_path: Path, boxes: list[Json], rule: str
) -> None:
    everything = {"f0": [car(CAR_X[0])], "f1": boxes, "f2": [car(CAR_X[2])]}
    source = passing_car(tmp_path, everything)
    with pytest.raises(SceneError, match=rule) as caught:
        source.annotations(source.scene("s").frames[1])
    assert "f1" in str(caught.value)
    wrong, bad = phantoms(source)
    assert list(bad) == ["f1"] and wrong == []


def test_a_track_that_jumps_is_followed_as_two_objects(tmp_path: Path) -> None:
    """Between the key-frames no car moves through the air from one place to the other."""
    boxes = {"f0": [car(CAR_X[0])], "f2": [car(500)]}
    source = passing_car(tmp_path, boxes, keys=(0, 2))
    built = SceneReconstruction(
        source.scene("s"), source, LabelBuildingConfig(correct_heights=False)
    )
    own = built.labels("f0", GRID).semantics == OCC3D_NUSCENES.id_of("car")
    x = GRID.centers(np.argwhere(own))[:, 0]
    assert len(x) and np.abs(x - CAR_X[0]).max() < 3
