"""Rows of occupied voxels made dense: the fast loop does what a plain count does."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datasets.benchmarks.sparse_rows import dense_labels
from datasets.geometry.grid import VoxelGrid

GRID = VoxelGrid(min_m=(0.0, 0.0, 0.0), size_m=(1.0, 1.0, 1.0), shape=(5, 4, 3))
TYPES = ("i1", "u1", "<i2", ">i4", "<i4", "<i8", ">u8", "<f2", "<f4", ">f4", "<f8", "longdouble")


def counted(rows: NDArray[Any]) -> tuple[NDArray[np.uint8], dict[tuple[int, ...], int]]:
    """Labels, and the row that gave each voxel its class, from rows x, y, z, class."""
    votes: dict[tuple[int, ...], Counter[int]] = {}
    first: dict[tuple[int, ...], int] = {}
    for i, (x, y, z, label) in enumerate(rows.astype(int).tolist()):
        votes.setdefault((x, y, z), Counter())[label or 255] += 1
        first.setdefault((x, y, z, label or 255), i)
    dense, given_by = np.zeros(GRID.shape, np.uint8), {}
    for voxel, count in votes.items():
        label = min(count, key=lambda c: (-count[c], c))
        dense[voxel], given_by[voxel] = label, first[*voxel, label]
    return dense, given_by


@given(
    n=st.integers(0, 150),
    seed=st.integers(0, 999),
    dtype=st.sampled_from(TYPES),
    alone=st.booleans(),
    fortran=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_dense_labels_are_those_of_a_plain_count(
    n: int, seed: int, dtype: str, alone: bool, fortran: bool
) -> None:
    rng = np.random.default_rng(seed)
    places = rng.integers(0, GRID.shape, (n, 3))
    if alone:
        places = np.unique(places, axis=0)
        rng.shuffle(places)
    rows = np.c_[places, rng.choice([0, 1, 2, 16, 127], len(places))].astype(dtype)
    expected, given_by = counted(rows)
    stored = np.asfortranarray(rows) if fortran else rows
    semantics, voxels, kept = dense_labels(stored, (0, 1, 2), 3, GRID)
    assert np.array_equal(semantics, expected)
    assert {int(v): int(k) for v, k in zip(voxels, kept, strict=True)} == {
        int(np.ravel_multi_index(voxel, GRID.shape)): i for voxel, i in given_by.items()
    }


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "<f4", "<f8"])
@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        (0, 5, r"x index: 5(\.0)? is not in 0\.\.4"),
        (1, -1, r"y index: -1(\.0)? is not in 0\.\.3"),
        (2, 3, r"z index: 3(\.0)? is not in 0\.\.2"),
        (3, 256, r"class: 256(\.0)? is not in 0\.\.255"),
        (3, -1, r"class: -1(\.0)? is not in 0\.\.255"),
        (0, 1 << 30, r"x index: 1073741824(\.0)? is not in 0\.\.4"),
    ],
)
def test_a_number_out_of_range_is_named(dtype: str, column: int, value: int, rule: str) -> None:
    rows = np.ones((9, 4), dtype)
    rows[7, column] = value
    with pytest.raises(ValueError, match=rule):
        dense_labels(rows, (0, 1, 2), 3, GRID)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("column", "name"), [(0, "x"), (1, "y"), (2, "z"), (3, "class")])
def test_a_number_that_is_not_whole_is_named(value: float, column: int, name: str) -> None:
    rows = np.ones((9, 4), np.float32)
    rows[7, column] = value
    with pytest.raises(ValueError, match=f"{name}.*not a whole number"):
        dense_labels(rows, (0, 1, 2), 3, GRID)


def test_unsigned_numbers_beyond_the_signed_ones_are_not_taken_for_small_ones() -> None:
    rows = np.ones((3, 4), np.uint64)
    rows[1, 0] = np.uint64(2**64 - 1)
    with pytest.raises(ValueError, match="x index"):
        dense_labels(rows, (0, 1, 2), 3, GRID)


def test_what_is_no_number_is_refused() -> None:
    for dtype in ("?", "<c8", "<M8[s]", "S4"):
        with pytest.raises(ValueError, match="not whole numbers"):
            dense_labels(np.ones((2, 4)).astype(dtype), (0, 1, 2), 3, GRID)
