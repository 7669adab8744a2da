"""Occ3D merged to eight classes on voxels twice as long: what decides a coarse voxel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datasets.benchmarks import occ3d_coarse, occ3d_nuscenes
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SceneError
from datasets.taxonomy import IGNORE_ID, OCC3D_COARSE, OCC3D_NUSCENES

FREE, COARSE_FREE = OCC3D_NUSCENES.free_id, OCC3D_COARSE.free_id
CAR, CONE = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.id_of("traffic_cone")
ROAD, BUS = OCC3D_NUSCENES.id_of("driveable_surface"), OCC3D_NUSCENES.id_of("bus")


def made_up(seed: int) -> GroundTruth:
    """Random labels, half of them free, half of the voxels seen by each sensor."""
    rng = np.random.default_rng(seed)
    shape = occ3d_nuscenes.GRID.shape
    ids = rng.choice(np.array([*range(18), *[FREE] * 17, IGNORE_ID], np.uint8), shape)
    camera, lidar = rng.random((2, *shape)) < 0.3
    return GroundTruth(
        grid=occ3d_nuscenes.GRID,
        taxonomy=OCC3D_NUSCENES,
        semantics=ids,
        mask_lidar=lidar,
        mask_camera=camera,
    )


def one_voxel(
    ids: list[int], *, camera: list[int] | None = None, lidar: list[int] | None = None
) -> tuple[int, bool, bool]:
    """Label and masks of a coarse voxel made of these eight; the masks name seen ones."""
    fine = made_up(0)
    semantics, seen = np.full(fine.grid.shape, FREE, np.uint8), np.zeros((2, *fine.grid.shape), "?")
    block = np.s_[40:42, 60:62, 4:6]
    semantics[block] = np.array(ids, np.uint8).reshape(2, 2, 2)
    for mask, which in zip(seen, (camera, lidar), strict=True):
        flat = np.zeros(8, bool)
        flat[which or []] = True
        mask[block] = flat.reshape(2, 2, 2)
    out = occ3d_coarse.merge(
        replace(fine, semantics=semantics, mask_camera=seen[0], mask_lidar=seen[1])
    )
    assert out.mask_camera is not None and out.mask_lidar is not None
    at = (20, 30, 2)
    return int(out.semantics[at]), bool(out.mask_camera[at]), bool(out.mask_lidar[at])


VEHICLE, SMALL = OCC3D_COARSE.id_of("vehicle"), OCC3D_COARSE.id_of("small_object")
DRIVEABLE = OCC3D_COARSE.id_of("driveable_surface")


@pytest.mark.parametrize(
    ("ids", "camera", "lidar", "expected"),
    [
        # one occupied voxel among those seen makes it occupied
        ([CAR] + [FREE] * 7, range(8), [], (VEHICLE, True, False)),
        # classes that merge are counted together
        ([CAR, BUS, ROAD, *[FREE] * 5], range(8), [], (VEHICLE, True, False)),
        ([CAR, ROAD, ROAD, *[FREE] * 5], range(8), [], (DRIVEABLE, True, False)),
        # a tie goes to the lowest id
        ([ROAD, CAR, CONE, *[FREE] * 5], range(8), [], (VEHICLE, True, False)),
        # what the camera does not see has no say where it sees anything
        ([FREE] + [CAR] * 7, [0], range(8), (COARSE_FREE, True, True)),
        # what the LiDAR does not observe has none where it alone observes
        ([FREE, CONE] + [CAR] * 6, [], [0, 1], (SMALL, False, True)),
        # nobody saw it: all have a say
        ([FREE] * 6 + [CAR, CONE], [], [], (VEHICLE, False, False)),
        # 255 is no evidence and in no mask
        ([IGNORE_ID] + [CAR] * 7, [0], [1], (VEHICLE, False, True)),
        ([IGNORE_ID] * 8, range(8), range(8), (IGNORE_ID, False, False)),
    ],
)
def test_the_best_observed_voxels_decide(
    ids: list[int], camera: list[int], lidar: list[int], expected: tuple[int, bool, bool]
) -> None:
    assert one_voxel(ids, camera=list(camera), lidar=list(lidar)) == expected


def by_hand(fine: GroundTruth) -> NDArray[np.uint8]:
    """The same labels from a sort of the votes, for some voxels."""
    assert fine.mask_camera is not None and fine.mask_lidar is not None
    table = occ3d_coarse.CLASSES.table()
    out = np.empty((10, 10, 8), np.uint8)
    for at in np.ndindex(out.shape):
        block = tuple(slice(2 * i, 2 * i + 2) for i in at)
        ids = table[fine.semantics[block]].ravel()
        known = ids != IGNORE_ID
        evidence = [
            fine.mask_camera[block].ravel(),
            fine.mask_lidar[block].ravel(),
            np.ones(8, "?"),
        ]
        say = next((ids[m & known] for m in evidence if (m & known).any()), ids[:0])
        occupied = sorted(say[say != COARSE_FREE])
        free = COARSE_FREE if len(say) else IGNORE_ID
        out[at] = max(sorted(set(occupied)), key=occupied.count) if occupied else free
    return out


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1 << 30))
def test_merging_equals_counting_by_hand(seed: int) -> None:
    fine = made_up(seed)
    assert np.array_equal(occ3d_coarse.merge(fine).semantics[:10, :10], by_hand(fine))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 30))
def test_what_is_scored_follows_from_what_is_seen_alone(seed: int) -> None:
    fine = made_up(seed)
    assert fine.mask_camera is not None and fine.mask_lidar is not None
    unseen = ~fine.mask_camera
    other = replace(fine, semantics=np.where(unseen & ~fine.mask_lidar, CAR, fine.semantics))
    camera_only = replace(fine, semantics=np.where(unseen, CAR, fine.semantics))
    a, b, c = (occ3d_coarse.merge(t) for t in (fine, other, camera_only))
    assert np.array_equal(a.semantics[a.observed()], b.semantics[a.observed()])
    assert np.array_equal(a.semantics[a.scored()], c.semantics[a.scored()])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([0, 1]))
def test_merging_commutes_with_mirrors_and_never_loses_a_seen_voxel(seed: int, axis: int) -> None:
    fine = made_up(seed)
    assert fine.mask_camera is not None and fine.mask_lidar is not None
    mirrored = replace(
        fine,
        semantics=np.flip(fine.semantics, axis).copy(),
        mask_camera=np.flip(fine.mask_camera, axis).copy(),
        mask_lidar=np.flip(fine.mask_lidar, axis).copy(),
    )
    a, b = occ3d_coarse.merge(fine), occ3d_coarse.merge(mirrored)
    assert np.array_equal(np.flip(a.semantics, axis), b.semantics)
    seen = fine.scored().reshape(100, 2, 100, 2, 8, 2).any(axis=(1, 3, 5))
    assert np.array_equal(a.scored(), seen)
    observed = fine.observed().reshape(100, 2, 100, 2, 8, 2).any(axis=(1, 3, 5))
    assert np.array_equal(a.observed(), observed)


def test_only_occ3d_is_merged() -> None:
    with pytest.raises(ValueError, match="needs mask_camera"):
        occ3d_coarse.merge(replace(made_up(0), mask_camera=None))


def test_the_catalogue_reads_occ3d_files_as_coarse_labels(tmp_path: Path) -> None:
    coarse, path = benchmark("occ3d_coarse"), tmp_path / "labels.npz"
    assert coarse.grid.max_m == pytest.approx(occ3d_nuscenes.GRID.max_m)
    fine = made_up(1)
    occ3d_nuscenes.write_labels(path, fine)
    assert np.array_equal(coarse.read(path).semantics, occ3d_coarse.merge(fine).semantics)
    with pytest.raises(SceneError, match=r"other\.npz: no such file"):
        coarse.read(tmp_path / "other.npz")
