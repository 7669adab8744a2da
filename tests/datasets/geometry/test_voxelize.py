"""Hard voxelisation against a point-by-point account of its rules, and the reference's output."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_stages import oracle_folder

from datasets.geometry.grid import VoxelGrid
from models.ops.voxelize import Voxels, voxelize

GRID = VoxelGrid(min_m=(-2.0, -2.0, -1.0), size_m=(0.5, 0.5, 1.0), shape=(8, 8, 2))
ORACLE = oracle_folder(os.environ)


def one_by_one(points: torch.Tensor, *, max_points: int, max_voxels: int) -> Voxels:
    voxels: dict[tuple[int, int, int], list[torch.Tensor]] = {}
    for p in points:
        if not GRID.contains(p[:3].numpy()):
            continue
        x, y, z = (int(i) for i in GRID.indices(p[:3].numpy()))
        if (z, y, x) not in voxels and len(voxels) == max_voxels:
            continue
        kept = voxels.setdefault((z, y, x), [])
        if len(kept) < max_points:
            kept.append(p)
    return Voxels(
        zyx=torch.tensor(list(voxels), dtype=torch.int64).view(-1, 3),
        counts=torch.tensor([len(v) for v in voxels.values()], dtype=torch.int64),
        means=torch.stack([torch.stack(v).mean(0) for v in voxels.values()])
        if voxels
        else torch.zeros(0, points.shape[1]),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 120),
    max_points=st.integers(1, 4),
    max_voxels=st.integers(1, 40),
)
def test_keeps_the_first_points_of_the_first_voxels(
    seed: int, n: int, max_points: int, max_voxels: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 5, generator=g) * 6 - 3
    points[:, :2] = (points[:, :2] * 2).round() / 4  # many points in few voxels, some on borders
    got = voxelize(points, GRID, max_points=max_points, max_voxels=max_voxels)
    want = one_by_one(points, max_points=max_points, max_voxels=max_voxels)
    assert torch.equal(got.zyx, want.zyx)
    assert torch.equal(got.counts, want.counts)
    torch.testing.assert_close(got.means, want.means)


def test_points_that_are_no_numbers_are_left_out() -> None:
    points = torch.tensor([[float("nan"), 0, 0, 1, 0], [0, 0, float("inf"), 1, 0], [0, 0, 0, 1, 0]])
    got = voxelize(points, GRID, max_points=5, max_voxels=5)
    assert got.counts.tolist() == [1] and got.means.isfinite().all()


@pytest.mark.skipif(
    not (ORACLE / "teacher_r18.npz").is_file(),
    reason="no reference outputs: set AUTOLABEL_ORACLE to the oracle folder",
)
def test_real_sweep_gives_the_voxels_of_the_reference() -> None:
    with np.load(ORACLE / "teacher_r18.npz", allow_pickle=False) as z:
        points, zyx, counts, means = (
            z[k] for k in ("in_points_ego", "vox_zyx", "vox_npts", "vox_feat")
        )
    grid = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.05, 0.05, 0.16), shape=(1600, 1600, 40))
    got = voxelize(torch.from_numpy(points), grid, max_points=10, max_voxels=120_000)
    assert np.array_equal(got.zyx.numpy(), zyx)
    assert np.array_equal(got.counts.numpy(), counts)
    np.testing.assert_allclose(got.means.numpy(), means, rtol=1e-6, atol=1e-6)
