"""The catalogue of benchmarks: names, where the truth of a frame lies, what is refused."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from datasets.benchmarks import NAMES, occ3d_nuscenes
from datasets.benchmarks.catalogue import BENCHMARKS, benchmark
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, LidarSweep, SceneSource
from datasets.sources.nuscenes import NuScenesSource
from datasets.taxonomy import OCC3D_NUSCENES, OCC3D_WAYMO

FRAME = Frame(
    scene_id="08",
    token="000005",
    timestamp_us=0,
    T_global_ego=np.eye(4),
    cameras=(),
    lidar=LidarSweep(path=Path("a/n015.pcd.bin"), timestamp_us=0, T_ego_lidar=np.eye(4)),
)


class Log:
    """A log of a kind that no benchmark knows."""

    name = "mine"


class Waymo:
    name = "waymo"

    def __init__(self, **splits: list[str]) -> None:
        self.splits = splits

    def scene_ids(self, split: str) -> tuple[str, ...]:
        if split not in self.splits:
            raise SetupError(f"unknown split {split}")
        return tuple(self.splits[split])

    def number_of(self, frame: Frame) -> int:
        return 12


def path_of(name: str, source: object, frame: Frame = FRAME) -> Path:
    return benchmark(name).path(Path("r"), cast(SceneSource, source), frame)


def test_an_unknown_benchmark_is_answered_with_the_known_names() -> None:
    with pytest.raises(SetupError, match="'kitti'; known: occ3d_nuscenes, occ3d_waymo, openoccup"):
        benchmark("kitti")
    assert [benchmark(name) for name in NAMES] == list(BENCHMARKS)


def test_benchmarks_travel_to_workers() -> None:
    assert tuple(pickle.loads(pickle.dumps(BENCHMARKS))) == BENCHMARKS


def test_each_format_finds_its_files() -> None:
    log = Log()
    assert path_of("occ3d_nuscenes", log) == Path("r/gts/08/000005/labels.npz")
    assert path_of("openocc_flow", log) == Path("r/openocc_v2/08/000005/labels.npz")
    assert path_of("surroundocc", log) == Path("r/samples/n015.pcd.bin.npy")
    assert path_of("semantic_kitti", log) == Path("r/sequences/08/voxels/000005.label")


def test_what_cannot_be_found_in_a_log_is_refused() -> None:
    with pytest.raises(SetupError, match=r"OpenOccupancy labels nuScenes.*'mine'"):
        path_of("openoccupancy", Log())
    with pytest.raises(SetupError, match=r"Occ3D-Waymo labels Waymo.*'mine'"):
        path_of("occ3d_waymo", Log())
    with pytest.raises(SetupError, match=r"numbers its sequences.*'scene-0001', '000005'"):
        path_of("semantic_kitti", Log(), replace(FRAME, scene_id="scene-0001"))
    with pytest.raises(SceneError, match=r"000005.*no LiDAR"):
        path_of("surroundocc", Log(), replace(FRAME, lidar=None))


def test_openoccupancy_files_are_found_by_scene_and_lidar_token(city: Path, tmp_path: Path) -> None:
    shutil.copytree(city, tmp_path / "city", copy_function=os.link)
    source = NuScenesSource(tmp_path / "city", past_sweeps=0)
    frame = source.scene(source.scene_ids("all")[0]).frames[0]
    scene_token, lidar_token = source.scene_and_lidar_token(frame)
    path = path_of("openoccupancy", source, frame)
    assert path == Path(f"r/scene_{scene_token}/occupancy/{lidar_token}.npy")
    assert frame.token not in str(path)
    with pytest.raises(SceneError, match="no LiDAR"):
        path_of("openoccupancy", source, replace(frame, lidar=None))
    worker = pickle.loads(pickle.dumps(source))
    (tmp_path / "city" / source.version).rename(tmp_path / "tables")  # which nobody needs
    assert path_of("openoccupancy", worker, frame) == path


def test_waymo_scenes_are_numbered_by_name_only_where_none_is_missing() -> None:
    names = [f"{i:02d}" for i in range(202)]
    path = path_of("occ3d_waymo", Waymo(validation=names))
    assert path == Path("r/voxel04/validation/008/012_04.npz")
    with pytest.raises(SetupError, match=r"202 scenes of validation.*sequences\.csv"):
        path_of("occ3d_waymo", Waymo(validation=names[:50]))
    with pytest.raises(SetupError, match=r"neither.*sequences\.csv"):
        path_of("occ3d_waymo", Waymo(validation=["x"]))


def test_a_part_of_waymo_is_numbered_by_a_small_file_beside_the_labels(tmp_path: Path) -> None:
    waymo, listed = benchmark("occ3d_waymo"), tmp_path / "voxel04" / "sequences.csv"
    listed.parent.mkdir()
    listed.write_text("scene,split,sequence\n07,training,797\n08,validation,201\n")
    for log in (Waymo(), Waymo(training=["08"])):
        path = waymo.path(tmp_path, cast(SceneSource, log), FRAME)
        assert path == tmp_path / "voxel04" / "validation" / "201" / "012_04.npz"
    with pytest.raises(SetupError, match=r"sequences\.csv: scene 09 is not listed"):
        waymo.path(tmp_path, cast(SceneSource, Waymo()), replace(FRAME, scene_id="09"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "line 1: the header must be scene,split,sequence"),
        ("08,validation,3\n", "line 1: the header"),
        ("scene,split,sequence\n08,validation\n", "line 2: must be a scene"),
        ("scene,split,sequence\n08,testing,3\n", "line 2: must be .* training or validation"),
        ("scene,split,sequence\n08,validation,-1\n", "line 2: .* a number"),
        ("scene,split,sequence\n08,validation,202\n", "line 2: validation ends at 201"),
        ("scene,split,sequence\n08,training,3\n08,validation,3\n", "line 3: .*listed before"),
        ("scene,split,sequence\n08,training,3\n09,training,3\n", "line 3: .*listed before"),
        ("scene,split,sequence\n\xff", "not a CSV file"),
    ],
)
def test_a_bad_list_of_waymo_sequences_is_refused_by_line(
    tmp_path: Path, text: str, rule: str
) -> None:
    listed = tmp_path / "voxel04" / "sequences.csv"
    listed.parent.mkdir()
    listed.write_bytes(text.encode("latin-1"))
    with pytest.raises(SetupError, match=rule) as error:
        benchmark("occ3d_waymo").path(tmp_path, cast(SceneSource, Waymo()), FRAME)
    assert str(listed) in str(error.value)


def test_a_prediction_of_other_voxels_or_classes_is_refused_by_both_names() -> None:
    occ3d = benchmark("occ3d_nuscenes")
    occ3d.require("it", occ3d_nuscenes.GRID, OCC3D_NUSCENES, "ego")
    with pytest.raises(SetupError, match=r"it has 200x200x16 voxels.*occ3d-waymo.*occ3d_nuscenes"):
        occ3d.require("it", occ3d_nuscenes.GRID, OCC3D_WAYMO, "ego")
    with pytest.raises(SetupError, match=r"it has .* lidar frame"):
        occ3d.require("it", occ3d_nuscenes.GRID, OCC3D_NUSCENES, "lidar")
