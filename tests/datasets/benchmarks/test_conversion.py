"""Predictions in a benchmark's voxels and classes: the same as converting labels by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from resampled_labels import resample

from datasets.benchmarks import class_mapping as mappings
from datasets.benchmarks import openoccupancy
from datasets.benchmarks.catalogue import Benchmark, benchmark
from datasets.benchmarks.conversion import Conversion, Prediction
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, LidarSweep, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw, inverse
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES, OCC3D_WAYMO, OPENOCC_FLOW

GRID = VoxelGrid(min_m=(-4.0, -4.0, -1.0), size_m=(0.4,) * 3, shape=(20, 20, 10))
MOUNTED = from_yaw(-np.pi / 2 + 0.02, (0.94, 0.0, 1.84))


def scene(*, lidar: bool = True) -> Scene:
    sweep = LidarSweep(path=Path("a"), timestamp_us=0, T_ego_lidar=MOUNTED)
    frame = Frame(
        scene_id="s",
        token="t",
        timestamp_us=0,
        T_global_ego=np.eye(4),
        cameras=(),
        lidar=sweep if lidar else None,
    )
    return Scene(scene_id="s", frames=(frame,))


def prediction(classes: int, *, lidar: bool = True) -> Prediction:
    rng = np.random.default_rng(0)
    return Prediction(
        scene=scene(lidar=lidar),
        k=0,
        semantics=rng.integers(0, classes, GRID.shape, np.uint8),
        flow=rng.normal(size=(*GRID.shape, 2)).astype(np.float32),
        confidence=rng.integers(0, 3, GRID.shape, np.uint8),
        mask=rng.integers(1, 16, GRID.shape, np.uint8),
    )


def openoccupancy_of(frame: str) -> Benchmark:
    known = benchmark("openoccupancy")
    coarse = VoxelGrid(min_m=(-6.0, -6.0, -3.0), size_m=(0.3,) * 3, shape=(40, 40, 20))
    return Benchmark(
        name=known.name,
        grid=coarse,
        taxonomy=known.taxonomy,
        frame=frame,
        mask=None,
        path=known.path,
        read=known.read,
    )


@pytest.mark.parametrize("theirs", ["ego", "lidar"])
@pytest.mark.parametrize("ours", ["ego", "lidar"])
def test_a_prediction_is_converted_as_labels_are(ours: str, theirs: str) -> None:
    target = openoccupancy_of(theirs)
    made = prediction(17)
    got = Conversion(target, "it", GRID, OPENOCC_FLOW, ours).apply(made)
    T = np.eye(4) if ours == theirs else MOUNTED if ours == "lidar" else inverse(MOUNTED)
    labels = GroundTruth(grid=GRID, taxonomy=OPENOCC_FLOW, semantics=made.semantics, flow=made.flow)
    labels = mappings.OPENOCC_FLOW_TO_OPENOCCUPANCY.apply(labels)
    expected = resample(labels, target.grid, T)
    assert np.array_equal(got.semantics, expected.semantics)
    assert got.flow is not None and expected.flow is not None
    assert np.array_equal(got.flow, expected.flow)
    assert got.valid is not None and got.mask is not None
    assert np.array_equal(got.valid, expected.semantics != IGNORE_ID)
    assert np.array_equal(got.mask > 0, got.valid)  # every mask here is above 0
    assert 0.1 < got.valid.mean() < 0.9


def test_voxels_of_the_same_grid_and_frame_stay_where_they_are() -> None:
    target = benchmark("openocc_flow")
    made = prediction(18)
    conversion = Conversion(target, "it", target.grid, OCC3D_NUSCENES, "ego")
    got = conversion.apply(made)
    assert conversion.same_voxels and not conversion.nothing
    assert got.valid is None and got.flow is made.flow and got.mask is made.mask
    others = made.semantics == OCC3D_NUSCENES.id_of("others")
    assert conversion.unmapped_id == OPENOCC_FLOW.n_classes
    assert np.array_equal(got.semantics == conversion.unmapped_id, others)
    names, ours = np.array(OPENOCC_FLOW.names), np.array(OCC3D_NUSCENES.names)
    assert np.array_equal(names[got.semantics[~others]], ours[made.semantics[~others]])


def test_the_same_classes_and_voxels_need_nothing() -> None:
    target = benchmark("occ3d_waymo")
    conversion = Conversion(target, "it", target.grid, OCC3D_WAYMO, "ego")
    made = prediction(16)
    assert conversion.nothing and conversion.unmapped_id is None and conversion.to_json() is None
    assert conversion.apply(made).semantics is made.semantics


def test_an_id_beyond_the_classes_is_not_taken_for_a_class() -> None:
    target = benchmark("openocc_flow")
    got = Conversion(target, "it", target.grid, OCC3D_NUSCENES, "ego").apply(prediction(19))
    assert set(np.unique(got.semantics)) == {*range(18), IGNORE_ID}


def test_classes_without_a_table_are_refused_by_both_names() -> None:
    with pytest.raises(SetupError, match=r"preset x has .*occ3d-waymo.*openoccupancy classes"):
        Conversion(benchmark("openoccupancy"), "preset x", GRID, OCC3D_WAYMO, "ego")


def test_frames_without_lidar_have_no_lidar_frame() -> None:
    conversion = Conversion(benchmark("openoccupancy"), "it", GRID, OCC3D_NUSCENES, "ego")
    with pytest.raises(SceneError, match=r"frame t.*no LiDAR"):
        conversion.apply(prediction(18, lidar=False))


def test_a_prediction_in_the_lidar_frame_needs_no_lidar_for_the_same_frame() -> None:
    conversion = Conversion(benchmark("openoccupancy"), "it", GRID, openoccupancy.TAXONOMY, "lidar")
    assert conversion.apply(prediction(17, lidar=False)).valid is not None
