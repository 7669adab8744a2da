"""Classes and voxels carried from one benchmark to another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resampled_labels import resample

from datasets.benchmarks import class_mapping as mappings
from datasets.benchmarks import occ3d_nuscenes, openoccupancy
from datasets.benchmarks.catalogue import BENCHMARKS, Benchmark
from datasets.benchmarks.class_mapping import MAPPINGS, ClassMapping, class_mapping
from datasets.benchmarks.conversion import Conversion
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply, from_quaternion, from_yaw, inverse
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES, OCC3D_WAYMO, SEMANTIC_KITTI

TABLES = {name: v for name, v in vars(mappings).items() if isinstance(v, ClassMapping)}
PAIRS = [
    (mappings.OCC3D_TO_OPENOCC_FLOW, mappings.OPENOCC_FLOW_TO_OCC3D),
    (mappings.OCC3D_TO_OPENOCCUPANCY, mappings.OPENOCCUPANCY_TO_OCC3D),
    (mappings.OCC3D_TO_SURROUNDOCC, mappings.SURROUNDOCC_TO_OCC3D),
]
SAME_CLASSES = [
    (mappings.OPENOCC_FLOW_TO_OPENOCCUPANCY, mappings.OPENOCCUPANCY_TO_OPENOCC_FLOW),
    (mappings.OPENOCC_FLOW_TO_SURROUNDOCC, mappings.SURROUNDOCC_TO_OPENOCC_FLOW),
    (mappings.OPENOCCUPANCY_TO_SURROUNDOCC, mappings.SURROUNDOCC_TO_OPENOCCUPANCY),
]
GRID = VoxelGrid(min_m=(-4.0, -4.0, -1.0), size_m=(0.5, 0.5, 0.25), shape=(16, 16, 8))
FINE = VoxelGrid(min_m=(-5.0, -4.5, -1.25), size_m=(0.25, 0.25, 0.125), shape=(40, 36, 20))


COARSE = {"occ3d-nuscenes", "openocc-flow", "openoccupancy", "surroundocc"}
LEAD_TO = {  # what each taxonomy of a benchmark can be made from, besides itself
    "occ3d-nuscenes": {"openocc-flow", "openoccupancy", "surroundocc"},
    "openocc-flow": {"occ3d-nuscenes", "openoccupancy", "surroundocc"},
    "openoccupancy": {"occ3d-nuscenes", "openocc-flow", "surroundocc"},
    "surroundocc": {"occ3d-nuscenes", "openocc-flow", "openoccupancy"},
    "occ3d-coarse": COARSE,
    "semantic-kitti": COARSE,
    "occ3d-waymo": COARSE,
}


@pytest.mark.parametrize("target", BENCHMARKS, ids=lambda b: b.name)
@pytest.mark.parametrize("source", BENCHMARKS, ids=lambda b: b.name)
def test_every_pair_of_benchmarks_converts_or_names_what_would(
    source: Benchmark, target: Benchmark
) -> None:
    given = (target, "the store", source.grid, source.taxonomy, source.frame)
    name = source.taxonomy.name
    if source.taxonomy == target.taxonomy or name in LEAD_TO[target.taxonomy.name]:
        found = Conversion(*given)
        assert found.nothing == (source.name == target.name)
        return
    with pytest.raises(SetupError) as error:
        Conversion(*given)
    for known in (name, target.taxonomy.name, *LEAD_TO[target.taxonomy.name]):
        assert known in str(error.value)


def made_up(grid: VoxelGrid, seed: int = 0) -> GroundTruth:
    rng = np.random.default_rng(seed)
    return GroundTruth(
        grid=grid,
        taxonomy=OCC3D_NUSCENES,
        semantics=rng.choice(np.array([*range(18), 255], np.uint8), grid.shape),
        mask_lidar=rng.random(grid.shape) < 0.5,
        mask_camera=rng.random(grid.shape) < 0.5,
        flow=rng.normal(size=(*grid.shape, 2)).astype(np.float32),
        instances=rng.integers(0, 9, grid.shape, np.int32),
    )


def assert_same(a: GroundTruth, b: GroundTruth) -> None:
    assert a.grid == b.grid
    for name in ("semantics", "mask_lidar", "mask_camera", "flow", "instances"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_table_is_total_and_says_what_is_lost(table: ClassMapping) -> None:
    ids = table.table()
    for old, new in table.names.items():
        found = ids[table.source.id_of(old)]
        assert found == (IGNORE_ID if new is None else table.target.id_of(new))
    assert (ids[table.source.n_classes :] == IGNORE_ID).all()
    assert ids[table.source.free_id] == table.target.free_id
    assert table.lost


@pytest.mark.parametrize(("there", "back"), PAIRS)
def test_round_trip_keeps_all_but_others(there: ClassMapping, back: ClassMapping) -> None:
    for first, second in ((there, back), (back, there)):
        ids = np.arange(first.source.n_classes)
        again = second.table()[first.table()[ids]]
        lost = [first.source.names[i] for i in ids[again != ids]]
        assert lost == (["others"] if first is there else [])
        assert (again[again != ids] == IGNORE_ID).all()


@pytest.mark.parametrize(("there", "back"), SAME_CLASSES)
def test_the_same_classes_come_back_whole(there: ClassMapping, back: ClassMapping) -> None:
    ids = np.arange(there.source.n_classes)
    assert np.array_equal(back.table()[there.table()[ids]], ids)
    assert all(old == new for old, new in there.names.items())


COARSE = [m for m in MAPPINGS if m.target in (SEMANTIC_KITTI, OCC3D_WAYMO)]


@pytest.mark.parametrize("table", COARSE, ids=[f"{m.source.name}-{m.target.name}" for m in COARSE])
def test_coarse_tables_keep_what_moves_apart_from_what_does_not(table: ClassMapping) -> None:
    kept = [name for name in table.names.values() if name is not None]
    assert len(set(kept)) < len(kept)
    ids = table.table()
    for i in table.source.dynamic:
        assert ids[i] in table.target.dynamic
    for name in ("driveable_surface", "sidewalk", "terrain", "manmade", "vegetation"):
        assert ids[table.source.id_of(name)] not in table.target.dynamic


def test_a_table_is_found_by_its_classes_and_never_made_up() -> None:
    assert set(map(id, MAPPINGS)) == set(map(id, TABLES.values()))
    for table in MAPPINGS:
        assert class_mapping(table.source, table.target) is table
    assert class_mapping(OCC3D_WAYMO, OCC3D_NUSCENES) is None
    assert class_mapping(SEMANTIC_KITTI, OCC3D_NUSCENES) is None


def test_a_table_with_a_hole_or_a_foreign_name_is_refused() -> None:
    whole = dict(mappings.OCC3D_TO_OPENOCC_FLOW.names)
    for names in ({k: v for k, v in whole.items() if k != "car"}, {**whole, "car": "tram"}):
        with pytest.raises(ValueError, match=r"car|tram"):
            replace(mappings.OCC3D_TO_OPENOCC_FLOW, names=names)


def test_apply_changes_classes_and_nothing_else() -> None:
    truth = made_up(GRID)
    moved = mappings.OCC3D_TO_OPENOCC_FLOW.apply(truth)
    assert moved.taxonomy.name == "openocc-flow"
    same = (truth.semantics != 0) & (truth.semantics != IGNORE_ID)
    names = np.array([*truth.taxonomy.names])[truth.semantics[same]]
    assert (np.array([*moved.taxonomy.names])[moved.semantics[same]] == names).all()
    assert (moved.semantics[~same] == IGNORE_ID).all()
    assert moved.flow is truth.flow and moved.mask_camera is truth.mask_camera
    with pytest.raises(ValueError, match="openocc-flow"):
        mappings.OCC3D_TO_OPENOCC_FLOW.apply(moved)


@given(seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_resampling_onto_the_same_grid_changes_nothing(seed: int) -> None:
    truth = made_up(GRID, seed)
    assert_same(resample(truth, GRID, np.eye(4)), truth)


@given(turns=st.integers(0, 3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_quarter_turns_come_back(turns: int, seed: int) -> None:
    """As between the nuScenes ego (x forward) and LiDAR (x right) axes."""
    truth = made_up(GRID, seed)
    T = from_yaw(turns * np.pi / 2, (0, 0, 0))
    turned = resample(truth, GRID, T)
    assert np.array_equal(turned.semantics, np.rot90(truth.semantics, turns))
    back = resample(turned, GRID, inverse(T))
    assert back.flow is not None and truth.flow is not None
    np.testing.assert_allclose(back.flow, truth.flow, atol=1e-6)
    assert_same(replace(back, flow=truth.flow), truth)


def test_velocity_turns_with_the_axes() -> None:
    truth = made_up(GRID)
    assert truth.flow is not None
    truth.flow[:] = (3, 0)
    flow = resample(truth, GRID, from_yaw(np.pi / 2, (0, 0, 0))).flow
    assert flow is not None
    np.testing.assert_allclose(flow, np.broadcast_to((0, 3), flow.shape), atol=1e-6)


@given(shift=st.tuples(*[st.integers(-3, 3)] * 3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_a_shift_by_whole_voxels_is_exact_and_the_rest_unknown(
    shift: tuple[int, int, int], seed: int
) -> None:
    truth = made_up(GRID, seed)
    T = from_yaw(0, np.array(shift) * GRID.size_m)
    moved = resample(truth, GRID, T)
    back = resample(moved, GRID, inverse(T))
    inside = np.zeros(GRID.shape, bool)
    kept = [slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, GRID.shape, strict=True)]
    inside[tuple(kept)] = True
    assert np.array_equal(back.semantics[inside], truth.semantics[inside])
    assert (back.semantics[~inside] == IGNORE_ID).all()
    assert back.mask_lidar is not None and not back.mask_lidar[~inside].any()
    assert back.flow is not None and not back.flow[~inside].any()


def test_a_finer_grid_around_it_and_back_changes_nothing() -> None:
    truth = made_up(GRID)
    fine = resample(truth, FINE, np.eye(4))
    assert_same(resample(fine, GRID, np.eye(4)), truth)


@st.composite
def poses(draw: st.DrawFn) -> Transform:
    q = np.array([2 + draw(st.floats(-1, 1)), *(draw(st.floats(-1, 1)) for _ in range(3))])
    t = [draw(st.floats(-2, 2)) for _ in range(3)]
    return from_quaternion(q / np.linalg.norm(q), t)


@given(T=poses(), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_each_voxel_has_the_label_that_holds_its_centre(T: Transform, seed: int) -> None:
    truth = made_up(GRID, seed)
    moved = resample(truth, FINE, T)
    index = np.argwhere(np.ones(FINE.shape, bool))
    centres = apply(inverse(T), FINE.centers(index))
    cells = GRID.cells(centres)
    clear = (np.abs(cells - cells.round()) > 1e-6).all(axis=1)  # not on the edge of a voxel
    inside = GRID.contains(centres)
    found = moved.semantics.reshape(-1)
    assert (found[~inside & clear] == IGNORE_ID).all()
    expected = truth.semantics[tuple(GRID.indices(centres[inside & clear]).T)]
    assert np.array_equal(found[inside & clear], expected)


def test_occ3d_to_openoccupancy_and_back_at_full_size() -> None:
    """Aligned axes: exact where the grids overlap. With the mounting of a real LiDAR: what comes
    back is the label of the same voxel or of a neighbour."""
    truth = replace(made_up(occ3d_nuscenes.GRID), flow=None, instances=None)
    fine = resample(truth, openoccupancy.GRID, np.eye(4))
    back = resample(fine, occ3d_nuscenes.GRID, np.eye(4))
    low = 10  # OpenOccupancy ends at z = 3 m, ten voxels of Occ3D up
    assert np.array_equal(back.semantics[:, :, :low], truth.semantics[:, :, :low])
    assert (back.semantics[:, :, low:] == IGNORE_ID).all()

    T_lidar_ego = inverse(from_yaw(-np.pi / 2 + 0.01, (0.94, 0.0, 1.84)))
    ground = np.full(occ3d_nuscenes.GRID.shape, 17, np.uint8)
    ground[:, :, :3] = 11
    flat = replace(truth, semantics=ground)
    fine = resample(flat, openoccupancy.GRID, T_lidar_ego)
    again = resample(fine, occ3d_nuscenes.GRID, inverse(T_lidar_ego)).semantics
    known = again != IGNORE_ID
    assert known[:, :, :14].all()  # the LiDAR's grid ends at 3 m above it: 4.84 m
    assert (again[known] == ground[known]).mean() > 0.99


def test_a_pose_that_scales_is_refused() -> None:
    with pytest.raises(ValueError, match="rigid"):
        resample(made_up(GRID), GRID, np.diag([2.0, 1, 1, 1]))
