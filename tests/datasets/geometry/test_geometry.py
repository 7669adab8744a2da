"""Grids and rigid transforms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.benchmarks.occ3d_nuscenes import GRID
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply, from_quaternion, from_yaw, inverse, to_quaternion

finite = st.floats(-50, 50, allow_nan=False)
quaternions = (
    st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: np.array(q) / np.linalg.norm(q))
)


@given(i=st.integers(0, 199), j=st.integers(0, 199), k=st.integers(0, 15))
def test_a_voxel_centre_lies_in_its_voxel(i: int, j: int, k: int) -> None:
    index = np.array([[i, j, k]])
    center = GRID.centers(index)
    assert (GRID.indices(center) == index).all()
    assert GRID.contains(center).all()
    flat = GRID.flat(index)[0]
    assert np.unravel_index(flat, GRID.shape) == (i, j, k)


def test_cells_are_half_open() -> None:
    grid = VoxelGrid(min_m=(0, 0, 0), size_m=(0.5, 0.5, 0.5), shape=(4, 4, 4))
    points = np.array([[0.5, 0, 0], [0.49, 0, 0], [2.0, 0, 0], [-1e-9, 0, 0], [np.nan, 0, 0]])
    assert grid.indices(points[:2])[:, 0].tolist() == [1, 0]
    assert grid.contains(points).tolist() == [True, True, False, False, False]
    assert grid.max_m == (2.0, 2.0, 2.0)


def test_a_grid_survives_json() -> None:
    assert VoxelGrid.from_json(GRID.to_json()) == GRID


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"size_m": (0.0, 1, 1)}, "positive"),
        ({"min_m": (float("nan"), 0, 0)}, "finite"),
        ({"shape": (0, 1, 1)}, "at least one"),
    ],
)
def test_an_impossible_grid_is_refused(change: dict[str, object], rule: str) -> None:
    fields: dict[str, object] = {"min_m": (0, 0, 0), "size_m": (1, 1, 1), "shape": (2, 2, 2)}
    with pytest.raises(ValueError, match=rule):
        VoxelGrid(**{**fields, **change})  # type: ignore[arg-type]


@given(q=quaternions, t=st.tuples(finite, finite, finite), p=st.tuples(finite, finite, finite))
def test_inverse_undoes_and_quaternions_round_trip(
    q: np.ndarray, t: tuple[float, float, float], p: tuple[float, float, float]
) -> None:
    T = from_quaternion(q.tolist(), t)
    point = np.array([p])
    assert np.allclose(apply(inverse(T), apply(T, point)), point, atol=1e-9)
    again = to_quaternion(T)
    assert np.allclose(from_quaternion(again.tolist(), t), T, atol=1e-9)


def test_yaw_turns_left() -> None:
    T = from_yaw(np.pi / 2, (1, 0, 0))
    assert np.allclose(apply(T, np.array([1.0, 0, 0])), [1, 1, 0])


@pytest.mark.parametrize(
    ("q", "t"),
    [([1, 0, 0, 0], [0, float("nan"), 0]), ([2, 0, 0, 0], [0, 0, 0]), ([1, 0, 0], [0, 0, 0])],
)
def test_a_bad_pose_is_refused(q: list[float], t: list[float]) -> None:
    with pytest.raises(ValueError):
        from_quaternion(q, t)
