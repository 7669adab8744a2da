"""Label files of every benchmark: what is read was written, in the published layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.benchmarks import (
    occ3d_nuscenes,
    occ3d_waymo,
    openocc_flow,
    openoccupancy,
    semantic_kitti,
    surroundocc,
)
from datasets.benchmarks.ground_truth import LAYERS, GroundTruth
from datasets.taxonomy import IGNORE_ID


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format as a test writes it."""

    name: str
    module: ModuleType
    file: Path
    layers: tuple[str, ...] = ()


_NPZ, _NPY = Path("labels.npz"), Path("labels.npy")
FORMATS = [
    Format(
        name="occ3d-nuscenes",
        module=occ3d_nuscenes,
        file=_NPZ,
        layers=("mask_lidar", "mask_camera"),
    ),
    Format(
        name="occ3d-waymo",
        module=occ3d_waymo,
        file=_NPZ,
        layers=("mask_lidar", "mask_camera", "in_view"),
    ),
    Format(name="openoccupancy", module=openoccupancy, file=_NPY),
    Format(name="openoccupancy-flow", module=openoccupancy, file=_NPY, layers=("flow",)),
    Format(name="openocc", module=openocc_flow, file=_NPZ, layers=("flow",)),
    Format(
        name="openocc-instances",
        module=openocc_flow,
        file=_NPZ,
        layers=("flow", "instances"),
    ),
    Format(name="surroundocc", module=surroundocc, file=_NPY),
    Format(
        name="semantic-kitti",
        module=semantic_kitti,
        file=Path("000000.label"),
        layers=("mask_lidar",),
    ),
]
each_format = pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)


def made_up(fmt: Format, seed: int = 0, occupied: int = 3000) -> GroundTruth:
    """Random sparse content at full size."""
    rng = np.random.default_rng(seed)
    grid, taxonomy = fmt.module.GRID, fmt.module.TAXONOMY
    semantics = np.full(grid.shape, taxonomy.free_id, np.uint8)
    where = rng.choice(grid.n_voxels, occupied, replace=False)
    classes = [*taxonomy.semantic_ids, IGNORE_ID]
    semantics.reshape(-1)[where] = rng.choice(classes, occupied)
    layers: dict[str, NDArray[Any]] = {}
    for name in fmt.layers:
        if name == "flow":
            flow = np.zeros((*grid.shape, 2), np.float32)
            flow.reshape(-1, 2)[where] = rng.normal(0, 5, (occupied, 2))
            layers[name] = flow
        elif name == "instances":
            layers[name] = rng.integers(-1, 70000, grid.shape, np.int32)
        else:
            layers[name] = rng.random(grid.shape, np.float32) < 0.3
    return GroundTruth(grid=grid, taxonomy=taxonomy, semantics=semantics, **layers)


def assert_same(a: GroundTruth, b: GroundTruth) -> None:
    assert (a.grid, a.taxonomy) == (b.grid, b.taxonomy)
    for name in ("semantics", *LAYERS):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        assert x is None or (x.dtype == y.dtype and np.array_equal(x, y)), name


@each_format
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_written_is_read_again(fmt: Format, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / fmt.file
    truth = made_up(fmt, seed, occupied=[3000, 1][seed])
    fmt.module.write_labels(path, truth)
    once = fmt.module.read_labels(path)
    assert_same(once, truth)
    fmt.module.write_labels(path, once)
    assert_same(fmt.module.read_labels(path), once)


@each_format
def test_a_frame_with_nothing_in_it_survives(fmt: Format, tmp_path: Path) -> None:
    truth = made_up(fmt, occupied=0)
    fmt.module.write_labels(tmp_path / fmt.file, truth)
    assert_same(fmt.module.read_labels(tmp_path / fmt.file), truth)


@each_format
def test_a_writer_drops_nothing_unsaid(fmt: Format, tmp_path: Path) -> None:
    truth = made_up(fmt)
    everything = Format(name="all", module=fmt.module, file=fmt.file, layers=LAYERS)
    for layer in set(LAYERS) - set(fmt.layers) - {"instances", "flow"}:
        extra = replace(truth, **{layer: getattr(made_up(everything), layer)})
        with pytest.raises(ValueError, match=layer):
            fmt.module.write_labels(tmp_path / fmt.file, extra)
    for layer in set(fmt.layers) - {"instances"}:
        if fmt.name != "openoccupancy-flow":
            with pytest.raises(ValueError, match=layer):
                fmt.module.write_labels(tmp_path / fmt.file, replace(truth, **{layer: None}))
    other = next(f for f in FORMATS if f.module.TAXONOMY != fmt.module.TAXONOMY)
    with pytest.raises(ValueError, match=r"grid|classes"):
        fmt.module.write_labels(tmp_path / fmt.file, made_up(other))
    assert not list(tmp_path.iterdir())


@each_format
def test_module_says_where_its_files_lie_and_in_which_frame(fmt: Format) -> None:
    assert fmt.module.FRAME in ("ego", "lidar")
    assert fmt.module.TAXONOMY.names[fmt.module.TAXONOMY.free_id] == "free"


def test_paths_follow_the_published_layouts() -> None:
    root = Path("r")
    assert occ3d_nuscenes.labels_path(root, "scene-0001", "t") == Path(
        "r/gts/scene-0001/t/labels.npz"
    )
    assert occ3d_waymo.labels_path(root, "training", 7, 42) == Path(
        "r/voxel04/training/007/042_04.npz"
    )
    assert openoccupancy.labels_path(root, "s", "l") == Path("r/scene_s/occupancy/l.npy")
    assert openocc_flow.labels_path(root, "scene-0001", "t") == Path(
        "r/openocc_v2/scene-0001/t/labels.npz"
    )
    assert surroundocc.labels_path(root, "n.pcd.bin") == Path("r/samples/n.pcd.bin.npy")
    assert semantic_kitti.labels_path(root, 8, 5) == Path("r/sequences/08/voxels/000005.label")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.int8])
def test_occ3d_is_read_whatever_number_type_it_is_stored_in(dtype: Any, tmp_path: Path) -> None:
    truth = made_up(FORMATS[0])
    truth = replace(truth, semantics=np.where(truth.semantics == 255, 4, truth.semantics))
    arrays = {n: getattr(truth, n).astype(dtype) for n in ("semantics", *FORMATS[0].layers)}
    np.savez(tmp_path / "labels.npz", **arrays)
    assert_same(occ3d_nuscenes.read_labels(tmp_path / "labels.npz"), truth)


def test_waymo_free_is_23_on_disk_and_scored_is_in_view_and_seen(tmp_path: Path) -> None:
    truth = made_up(FORMATS[1])
    occ3d_waymo.write_labels(tmp_path / "f.npz", truth)
    with np.load(tmp_path / "f.npz") as data:
        assert sorted(data.files) == [
            "final_voxel_state",
            "infov",
            "origin_voxel_state",
            "voxel_label",
        ]
        label, seen = data["voxel_label"], data["infov"] & data["final_voxel_state"]
    assert (label == 23).sum() == (truth.semantics == 15).sum() > 0 and not (label == 15).any()
    assert np.array_equal(truth.scored(), (seen > 0) & (label != 255))


def test_openoccupancy_rows_are_z_y_x_and_noise_is_not_scored(tmp_path: Path) -> None:
    rows = np.array([[39, 2, 511, 4], [0, 1, 0, 0]], np.int64)
    np.save(tmp_path / "f.npy", rows)
    truth = openoccupancy.read_labels(tmp_path / "f.npy")
    assert truth.semantics[511, 2, 39] == 4 and truth.semantics[0, 1, 0] == IGNORE_ID
    assert (truth.semantics > 0).sum() == 2 and not truth.scored()[0, 1, 0]


def test_openoccupancy_velocity_stays_with_its_voxel(tmp_path: Path) -> None:
    rows = np.array([[3, 2, 1, 9.5, -2.5, 7.0, 4], [0, 1, 0, 1.0, 2.0, 3.0, 0]])
    np.save(tmp_path / "f.npy", rows)
    truth = openoccupancy.read_labels(tmp_path / "f.npy")
    assert truth.flow is not None and truth.flow[1, 2, 3].tolist() == [9.5, -2.5]
    assert truth.semantics[1, 2, 3] == 4 and np.count_nonzero(truth.flow) == 4


def test_the_flow_of_free_space_is_not_lost_unsaid(tmp_path: Path) -> None:
    truth = made_up(FORMATS[3])
    assert truth.flow is not None
    truth.flow[truth.semantics == 0] = 1
    with pytest.raises(ValueError, match="free voxels"):
        openoccupancy.write_labels(tmp_path / "f.npy", truth)


@pytest.mark.parametrize("module", [openoccupancy, surroundocc])
def test_a_voxel_with_several_rows_takes_the_class_of_most(
    module: ModuleType, tmp_path: Path
) -> None:
    """Against a plain count per voxel; noise counts as 255, the lowest id wins a tie."""
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.integers(0, 6, (2000, 3)), rng.integers(0, 17, (2000, 1))], axis=1)
    np.save(tmp_path / "f.npy", rows)
    votes = np.zeros((6, 6, 6, 256), np.int64)
    z_y_x = module is openoccupancy
    for a, b, c, label in rows:
        x, y, z = (c, b, a) if z_y_x else (a, b, c)
        votes[x, y, z, label or 255] += 1
    expected = np.where(votes.sum(-1) > 0, votes.argmax(-1), 0)
    found = module.read_labels(tmp_path / "f.npy").semantics
    assert np.array_equal(found[:6, :6, :6], expected)
    assert not found[6:].any()


def test_surroundocc_rows_are_x_y_z_and_absent_is_free(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.array([[199, 2, 15, 16], [1, 0, 0, 0]], np.float64))
    truth = surroundocc.read_labels(tmp_path / "f.npy")
    assert truth.semantics[199, 2, 15] == 16 and truth.semantics[1, 0, 0] == IGNORE_ID
    assert (truth.semantics == 0).sum() == truth.grid.n_voxels - 2


def test_semantic_kitti_bits_begin_with_the_highest_and_z_runs_fastest(tmp_path: Path) -> None:
    raw = np.zeros((256, 256, 32), "<u2")
    raw[3, 2, 1], raw[4, 0, 0], raw[5, 0, 0] = 252, 99, 257
    (tmp_path / "0.label").write_bytes(raw.tobytes())
    invalid = np.zeros(256 * 256 * 4, np.uint8)
    invalid[0] = 0b01000000  # voxel (0, 0, 1)
    (tmp_path / "0.invalid").write_bytes(invalid.tobytes())
    truth = semantic_kitti.read_labels(tmp_path / "0.label")
    names = semantic_kitti.TAXONOMY.names
    assert names[truth.semantics[3, 2, 1]] == "car"  # moving-car
    assert truth.semantics[4, 0, 0] == IGNORE_ID  # other-object
    assert names[truth.semantics[5, 0, 0]] == "other_vehicle"  # moving-bus
    assert truth.mask_lidar is not None
    assert np.argwhere(~truth.mask_lidar).tolist() == [[0, 0, 1]]
    assert (~truth.scored()).sum() == 2


def test_semantic_kitti_bits_survive(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).random((256, 256, 32)) < 0.1
    semantic_kitti.write_bits(tmp_path / "0.occluded", bits)
    assert (tmp_path / "0.occluded").stat().st_size == 256 * 256 * 32 // 8
    assert np.array_equal(semantic_kitti.read_bits(tmp_path / "0.occluded"), bits)
    with pytest.raises(ValueError, match="shape"):
        semantic_kitti.write_bits(tmp_path / "0.bin", bits[:-1])


def test_learning_map_has_19_classes_and_what_it_leaves_out_is_not_scored() -> None:
    names = [name for name in semantic_kitti.LEARNING_MAP.values() if name is not None]
    assert set(names) == set(semantic_kitti.TAXONOMY.names)
    out = [raw for raw, name in semantic_kitti.LEARNING_MAP.items() if name is None]
    assert out == [1, 52, 99] and len(semantic_kitti.LEARNING_MAP) == 34


def test_scored_and_observed_follow_the_masks() -> None:
    truth = made_up(FORMATS[0])
    assert truth.mask_lidar is not None and truth.mask_camera is not None
    labelled = truth.semantics != IGNORE_ID
    assert np.array_equal(truth.scored(), labelled & truth.mask_camera)
    assert np.array_equal(truth.observed(), labelled & (truth.mask_camera | truth.mask_lidar))
    unmasked = replace(truth, mask_camera=None, mask_lidar=None)
    assert np.array_equal(unmasked.scored(), labelled)
    assert np.array_equal(unmasked.observed(), labelled)
    assert np.array_equal(replace(truth, mask_camera=None).scored(), labelled & truth.mask_lidar)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("semantics", np.zeros((200, 200, 15), np.uint8)),
        ("semantics", np.zeros((200, 200, 16), np.int64)),
        ("semantics", np.full((200, 200, 16), 18, np.uint8)),
        ("mask_lidar", np.zeros((200, 200, 16), np.uint8)),
        ("flow", np.zeros((200, 200, 16), np.float32)),
        ("flow", np.full((200, 200, 16, 2), np.nan, np.float32)),
        ("instances", np.zeros((200, 200, 16), np.int64)),
    ],
)
def test_truth_checks_itself(name: str, value: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"shape|must be|class id|finite"):
        replace(made_up(FORMATS[0]), **{name: value})
