"""Voxel traversal against hand-made scenes, densely sampled rays and properties."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import (
    PinholeView,
    camera_visible,
    first_hits,
    first_hits_plain,
    lidar_evidence,
    pixel_directions,
    visible_from_cameras,
)

GRID = VoxelGrid(min_m=(-2.0, -1.0, 0.0), size_m=(0.5, 0.25, 0.5), shape=(8, 10, 6))
INSIDE = st.tuples(st.floats(-1.99, 1.99), st.floats(-0.99, 1.49), st.floats(0.01, 2.99))
FEW = settings(max_examples=60, deadline=None)
ANYWHERE = st.tuples(*[st.floats(-6, 6, allow_nan=False)] * 3)


def voxels(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> set[tuple[int, int, int]]:
    return {(int(i), int(j), int(k)) for i, j, k in np.argwhere(mask)}


def sampled(start: NDArray[np.float64], end: NDArray[np.float64]) -> set[tuple[int, int, int]]:
    """Voxels that points every 2000th of a segment lie in."""
    points = start + np.linspace(0, 1, 2001)[:, None] * (end - start)
    index = GRID.indices(points[GRID.contains(points)])
    return {(int(i), int(j), int(k)) for i, j, k in np.unique(index, axis=0)}


def share_within(
    cell: tuple[int, int, int], a: NDArray[np.float64], b: NDArray[np.float64]
) -> float:
    """Share of the segment from a to b that lies in a voxel."""
    lo = GRID.centers(np.array(cell)) - np.asarray(GRID.size_m) / 2
    hi = lo + np.asarray(GRID.size_m)
    along = a != b
    t = np.stack([(lo - a)[along], (hi - a)[along]]) / (b - a)[along]
    enter, leave = max(t.min(0).max(initial=0), 0), min(t.max(0).min(initial=1), 1)
    return float(leave - enter)


def test_ray_along_an_axis_passes_every_voxel_before_its_end() -> None:
    hits, passes = lidar_evidence(np.array([-1.9, 0.1, 1.2]), np.array([[1.2, 0.1, 1.2]]), GRID)
    assert voxels(hits) == {(6, 4, 2)}
    assert voxels(passes) == {(i, 4, 2) for i in range(6)}


def test_ray_within_one_voxel_is_only_a_hit() -> None:
    hits, passes = lidar_evidence(np.array([0.1, 0.1, 0.1]), np.array([[0.3, 0.2, 0.4]]), GRID)
    assert hits.sum() == 1 and passes.sum() == 0


def test_ray_from_outside_to_outside_passes_through() -> None:
    hits, passes = lidar_evidence(np.array([-9.0, 0.1, 1.2]), np.array([[9.0, 0.1, 1.2]]), GRID)
    assert hits.sum() == 0
    assert voxels(passes) == {(i, 4, 2) for i in range(8)}


def test_ray_that_ends_before_the_grid_says_nothing() -> None:
    hits, passes = lidar_evidence(np.array([-9.0, 0.1, 1.2]), np.array([[-3.0, 0.1, 1.2]]), GRID)
    assert hits.sum() == 0 and passes.sum() == 0


def test_counts_stay_at_255() -> None:
    ends = np.tile([[1.2, 0.1, 1.2]], (400, 1))
    hits, passes = lidar_evidence(np.array([-1.9, 0.1, 1.2]), ends, GRID)
    assert hits.max() == 255 and passes.max() == 255


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_ray_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        lidar_evidence(np.zeros(3), np.array([[1.0, bad, 0.0]]), GRID)


def test_origins_that_do_not_fit_the_rays_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rays"):
        lidar_evidence(np.zeros((2, 3)), np.zeros((3, 3)), GRID)


@FEW
@given(INSIDE, INSIDE)
def test_passes_and_hit_are_a_chain_of_neighbours_from_origin_to_end(
    start: tuple[float, ...], end: tuple[float, ...]
) -> None:
    a, b = np.array(start), np.array(end)
    hits, passes = lidar_evidence(a, b[None], GRID)
    first, last = (tuple(int(v) for v in GRID.indices(p)) for p in (a, b))
    assert voxels(hits) == {last} and hits.sum() == 1
    chain = voxels(passes) | {last}
    assert first in chain
    # one step along one axis at a time, none twice: as many voxels as steps, plus one
    assert (
        int(passes.sum())
        == len(voxels(passes))
        == sum(abs(p - q) for p, q in zip(first, last, strict=True))
    )
    reached, front = {first}, [first]
    while front:
        i, j, k = front.pop()
        for n in (
            (i - 1, j, k),
            (i + 1, j, k),
            (i, j - 1, k),
            (i, j + 1, k),
            (i, j, k - 1),
            (i, j, k + 1),
        ):
            if n in chain and n not in reached:
                reached.add(n)
                front.append(n)
    assert reached == chain


@FEW
@given(ANYWHERE, ANYWHERE)
def test_traversal_covers_what_dense_sampling_finds(
    start: tuple[float, ...], end: tuple[float, ...]
) -> None:
    a, b = np.array(start), np.array(end)
    hits, passes = lidar_evidence(a, b[None], GRID)
    for cell in (voxels(passes) | voxels(hits)) ^ sampled(a, b):
        assert share_within(cell, a, b) < 1.1 / 2000, cell  # only grazed


@FEW
@given(INSIDE, INSIDE)
def test_ray_and_its_reverse_meet_the_same_voxels_up_to_ties(
    start: tuple[float, ...], end: tuple[float, ...]
) -> None:
    a, b = np.array(start), np.array(end)
    there = [voxels(m) for m in lidar_evidence(a, b[None], GRID)]
    back = [voxels(m) for m in lidar_evidence(b, a[None], GRID)]
    one, other = there[0] | there[1], back[0] | back[1]
    assert len(one) == len(other)
    for cell in one ^ other:
        assert share_within(cell, a, b) < 1e-9, cell


def test_one_origin_and_one_origin_per_ray_agree() -> None:
    rng = np.random.default_rng(0)
    ends, origin = rng.uniform(-3, 3, (200, 3)), np.array([0.1, 0.2, 1.0])
    one = lidar_evidence(origin, ends, GRID)
    many = lidar_evidence(np.tile(origin, (200, 1)), ends, GRID)
    assert all((a == b).all() for a, b in zip(one, many, strict=True))


def test_rays_counted_in_two_parts_give_the_counts_of_all() -> None:
    rng = np.random.default_rng(1)
    ends, origin = rng.uniform(-3, 3, (300, 3)), np.array([0.1, 0.2, 1.0])
    whole = lidar_evidence(origin, ends, GRID)
    parts = lidar_evidence(origin, ends[:120], GRID)
    lidar_evidence(origin, ends[120:], GRID, onto=parts)
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))
    with pytest.raises(ValueError, match="counts"):
        lidar_evidence(origin, ends, CUBES, onto=parts)


# ---- cameras -------------------------------------------------------------------------------------


def view(position: tuple[float, float, float], *, size: int = 40) -> PinholeView:
    """A camera that looks along +X with a right angle of view."""
    T = np.eye(4)
    T[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T[:3, 3] = position
    K = np.array([[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1.0]])
    return SimpleNamespace(width=size, height=size, intrinsics=K, T_ego_camera=T)


CUBES = VoxelGrid(min_m=(0.0, -5.0, -5.0), size_m=(1.0, 1.0, 1.0), shape=(20, 10, 10))


def test_wall_is_seen_and_hides_what_is_behind_it() -> None:
    occupied = np.zeros(CUBES.shape, bool)
    occupied[6] = True
    occupied[12] = True
    seen = visible_from_cameras(occupied, CUBES, [view((0.5, 0.0, 0.0))])
    assert seen[6].all() and not seen[7:].any()
    assert seen[5, 5, 5] and not seen[1, 0, 0]  # beside the picture


def test_nothing_is_seen_behind_a_camera() -> None:
    occupied = np.zeros(CUBES.shape, bool)
    occupied[2] = True
    assert not visible_from_cameras(occupied, CUBES, [view((8.5, 0.0, 0.0))])[:8].any()


def test_camera_inside_an_occupied_voxel_is_not_blinded_by_it() -> None:
    occupied = np.zeros(CUBES.shape, bool)
    occupied[0, 5, 5] = True
    occupied[9, 5, 5] = True
    seen = visible_from_cameras(occupied, CUBES, [view((0.5, 0.5, 0.5))])
    assert seen[9, 5, 5] and seen[5, 5, 5] and not seen[10, 5, 5]


def test_march_stops_at_the_first_occupied_voxel_and_includes_it() -> None:
    occupied = np.zeros(CUBES.shape, bool)
    occupied[4, 5, 5] = True
    seen = camera_visible(occupied, CUBES, np.array([-3.0, 0.5, 0.5]), np.array([[2.0, 0, 0]]))
    assert voxels(seen) == {(i, 5, 5) for i in range(5)}


def test_far_ground_is_seen_even_with_few_pixel_rays() -> None:
    grid = VoxelGrid(min_m=(0.0, -20.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(100, 100, 16))
    ground = np.zeros(grid.shape, bool)
    ground[:, :, 2] = True
    camera = view((0.2, 0.0, 1.5), size=32)
    rays = camera_visible(ground, grid, camera.T_ego_camera[:3, 3], pixel_directions(camera))
    both = visible_from_cameras(ground, grid, [camera])
    far = np.zeros(grid.shape, bool)
    far[60:, 30:70, 2] = True
    assert rays[far].mean() < 0.4
    assert both[far].all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_visibility_agrees_with_densely_sampled_lines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    occupied = rng.random(CUBES.shape) < 0.04
    camera = view(tuple(rng.uniform((0.2, -3, -3), (3, 3, 3))))
    origin = camera.T_ego_camera[:3, 3]
    home = tuple(int(v) for v in CUBES.indices(origin))
    seen = visible_from_cameras(occupied, CUBES, [camera])
    for cell in np.argwhere(occupied)[:40]:
        center = CUBES.centers(cell)
        depth = center[0] - origin[0]
        if depth <= 0.01 or np.abs((center - origin)[1:]).max() > 0.99 * depth:
            continue
        line = origin + np.linspace(0, 1, 4001)[:, None] * (center - origin)
        on_way = {tuple(int(v) for v in c) for c in CUBES.indices(line)} - {tuple(cell), home}
        if not any(occupied[c] for c in on_way):
            # a grazed edge may go either way in the sampling, never in what it finds clear
            near = {tuple(c) for c in CUBES.indices(line + 1e-3)} | {
                tuple(c) for c in CUBES.indices(line - 1e-3)
            }
            if not any(occupied[c] for c in near - {tuple(cell), home}):
                assert seen[tuple(cell)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_more_obstacles_never_show_more_free_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = rng.random(CUBES.shape) < 0.03
    more = some | (rng.random(CUBES.shape) < 0.03)
    camera = view((0.5, 0.3, 0.2))
    a = visible_from_cameras(some, CUBES, [camera])
    b = visible_from_cameras(more, CUBES, [camera])
    assert not (b & ~a & ~more).any()


# ---- first hits ----------------------------------------------------------------------------------


def test_a_ray_ends_where_it_leaves_the_first_occupied_voxel() -> None:
    occupied = np.zeros(CUBES.shape, bool)
    occupied[4, 5, 5] = True
    rays = np.array([[2.0, 0, 0], [-1.0, 0, 0]])
    cells, leaves = first_hits(occupied, np.array([1.5, 5.5, 5.5]), rays)
    assert cells.tolist() == [[4, 5, 5], [0, 5, 5]]  # the second leaves the grid
    assert leaves.tolist() == [3.5 / 2, 1.5]


def test_the_voxel_of_the_origin_counts_even_if_left_at_once() -> None:
    occupied = np.zeros(CUBES.shape, bool)
    occupied[4, 5, 5] = True
    cells, leaves = first_hits(occupied, np.array([4.0, 5.5, 5.5]), np.array([[-1.0, 0, 0]]))
    assert cells.tolist() == [[4, 5, 5]] and leaves.tolist() == [0.0]


def test_a_ray_beside_the_grid_ends_nowhere_and_one_from_outside_enters_it() -> None:
    occupied = np.ones(CUBES.shape, bool)
    origins = np.array([[-3.0, 5.5, 5.5], [-3.0, 50.0, 5.5]])
    cells, leaves = first_hits(occupied, origins, np.tile([1.0, 0, 0], (2, 1)))
    assert cells.tolist() == [[0, 5, 5], [-1, -1, -1]]
    assert leaves.tolist() == [4.0, np.inf]


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_first_hits_refuse_a_ray_without_direction(bad: float) -> None:
    with pytest.raises(ValueError, match="direction"):
        first_hits(np.zeros(CUBES.shape, bool), np.zeros(3), np.array([[bad, 0.0, 0.0]]))


@FEW
@given(INSIDE, st.tuples(*[st.floats(-1, 1)] * 3), st.integers(0, 2**32 - 1))
def test_first_hits_agree_with_what_a_camera_sees(
    start: tuple[float, ...], direction: tuple[float, ...], seed: int
) -> None:
    ray = np.array([direction])
    if np.abs(ray).max() < 1e-3:
        return
    occupied = np.random.default_rng(seed).random(GRID.shape) < 0.1
    origin, steps = GRID.cells(np.array(start)), ray / np.asarray(GRID.size_m)
    occupied[tuple(np.floor(origin).astype(int))] = False  # it does not blind a camera
    cells, _ = first_hits(occupied, origin, steps)
    seen = camera_visible(occupied, GRID, np.array(start), ray)
    hit = voxels(seen & occupied)
    assert tuple(cells[0]) in voxels(seen)
    assert hit in ({tuple(cells[0])}, set())
    assert bool(hit) == occupied[tuple(cells[0])]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_first_hits_equal_their_plain_twin_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    occupied = rng.random(GRID.shape) < 0.05
    origins = rng.uniform(0, GRID.shape, (500, 3))
    origins[:100] = np.floor(origins[:100])  # on faces, edges and corners
    rays = rng.normal(size=(500, 3))
    rays[50:200] = rng.choice([-1.0, 0.0, 1.0], (150, 3))  # along axes and diagonals
    rays[~rays.any(axis=1)] = (0.0, 0.0, 1.0)
    fast, plain = (f(occupied, origins, rays) for f in (first_hits, first_hits_plain))
    assert (fast[0] == plain[0]).all() and (fast[1] == plain[1]).all()
    shared = first_hits(occupied, origins, rays, threads=3)
    assert (shared[0] == plain[0]).all() and (shared[1] == plain[1]).all()
