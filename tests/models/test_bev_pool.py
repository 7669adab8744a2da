"""Pooling into BEV cells, and the two ways of looking into pictures that use it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import ModelInputs
from models.networks.view_transform import (
    LssConfig,
    LssViewTransform,
    PullConfig,
    PullViewTransform,
)
from models.ops.bev_pool import pool, pooling_plan

GRID = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(1.0, 1.0, 6.4), shape=(16, 12, 1))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), samples=st.integers(0, 60), cells=st.integers(1, 9))
def test_equals_the_written_out_sum_in_value_and_gradient(
    seed: int, samples: int, cells: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 3, generator=g, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(samples, generator=g, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(0, 5, (samples,), generator=g)
    into = torch.randint(-1, cells, (samples,), generator=g)
    upstream = torch.randn(cells, 3, generator=g, dtype=torch.float64)

    out = pool(features, weights, pooling_plan(rows, into, cells))
    kept = into >= 0
    expected = torch.zeros(cells, 3, dtype=torch.float64).index_add(
        0, into[kept], (weights[:, None] * features[rows])[kept]
    )
    torch.testing.assert_close(out, expected)
    got = torch.autograd.grad(out, (features, weights), upstream, allow_unused=True)
    want = torch.autograd.grad(expected, (features, weights), upstream, allow_unused=True)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(torch.zeros(1) if a is None else a, a if b is None else b)


def test_gradients_equal_double_precision_differences() -> None:
    g = torch.Generator().manual_seed(3)
    features = torch.randn(5, 3, generator=g, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(40, generator=g, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(0, 5, (40,), generator=g)
    plan = pooling_plan(rows, torch.randint(-1, 7, (40,), generator=g), 7)
    assert torch.autograd.gradcheck(lambda f, w: pool(f, w, plan), (features, weights))


def test_pooling_is_reproducible_bit_by_bit() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 500, (20_000,), generator=g)
    features, weights = torch.randn(500, 16, generator=g), torch.rand(20_000, generator=g)
    cells = torch.randint(-1, 300, (20_000,), generator=g)
    first = pool(features, weights, pooling_plan(rows, cells, 300))
    for _ in range(3):
        assert torch.equal(first, pool(features, weights, pooling_plan(rows, cells, 300)))


def one_camera(*, yaw_rad: float = 0.0, bda: np.ndarray | None = None) -> ModelInputs:  # type: ignore[type-arg]
    """A camera 1.5 m above the origin looking along yaw; 32 x 64 pixels, 90 degrees wide."""
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    T = torch.eye(4)
    T[:3, :3] = torch.tensor([[s, 0.0, c], [-c, 0.0, s], [0.0, -1.0, 0.0]])
    T[2, 3] = 1.5
    K = torch.tensor([[32.0, 0.0, 31.5], [0.0, 32.0, 15.5], [0.0, 0.0, 1.0]])
    return ModelInputs(
        images=torch.zeros(1, 1, 3, 32, 64),
        T_ego_camera=T[None, None],
        intrinsics=K[None, None],
        post_image=torch.eye(3)[None, None],
        T_bda=(torch.eye(4) if bda is None else torch.from_numpy(bda).float())[None],
        points=None,
        depth=None,
    )


def pull(heights_m: tuple[float, ...] = (1.5,)) -> PullViewTransform:
    return PullViewTransform(PullConfig(grid=GRID, heights_m=heights_m, channels=1), 4)


def lift(parity: bool) -> LssViewTransform:
    config = LssConfig(
        grid=GRID,
        depth_max_m=9.0,
        context_channels=1,
        depth_channels=None,
        lidar_depth=False,
        reference_parity=parity,
    )
    return LssViewTransform(config, 1, 4)


def test_pull_reads_the_pixel_that_sees_the_cell() -> None:
    columns = torch.arange(16.0).expand(1, 1, 8, 16)  # feature value = its column
    bev = pull()(columns, one_camera())[0, 0]
    # cell (x 4.5, y 2.5) is at u = 31.5 - 32 * 2.5 / 4.5 network pixels
    u = 31.5 - 32 * 2.5 / 4.5
    assert bev[10, 12].item() == pytest.approx((u + 0.5) / 4 - 0.5, abs=1e-4)
    assert not bev[:, :8].any()  # behind the camera


def test_cells_seen_by_two_cameras_get_the_mean() -> None:
    one = one_camera()
    two = ModelInputs(
        images=one.images.expand(1, 2, -1, -1, -1),
        T_ego_camera=one.T_ego_camera.expand(1, 2, -1, -1),
        intrinsics=one.intrinsics.expand(1, 2, -1, -1),
        post_image=one.post_image.expand(1, 2, -1, -1),
        T_bda=one.T_bda,
        points=None,
        depth=None,
    )
    maps = torch.stack((torch.full((1, 8, 16), 2.0), torch.full((1, 8, 16), 4.0)))
    bev = pull()(maps, two)
    assert set(bev.unique().tolist()) == {0.0, 3.0}


def test_pull_tells_where_its_cells_are_and_moves_nothing_in_memory() -> None:
    torch.manual_seed(0)
    features = torch.rand(1, 1, 8, 16)
    plain = pull((0.5, 2.0))
    told = PullViewTransform(replace(plain.config, places=True), 4)
    bev, more = plain(features, one_camera()), told(features, one_camera())
    assert plain.config.out_channels == 2 and told.config.out_channels == more.shape[1] == 10
    assert torch.equal(more[:, :2], bev) and bev.any()
    assert bev.is_contiguous(memory_format=torch.channels_last)
    x, y, distance = more[0, 2:5] * abs(GRID.min_m[0] + GRID.size_m[0] / 2)  # metres
    row, column = 5, 12
    centre = [GRID.min_m[i] + (n + 0.5) * GRID.size_m[i] for i, n in enumerate((column, row))]
    assert [x[row, column], y[row, column]] == pytest.approx(centre, abs=1e-4)
    assert distance[row, column].item() == pytest.approx(math.hypot(*centre), abs=1e-4)


def splat(module: LssViewTransform, inputs: ModelInputs) -> torch.Tensor:
    h, w, D = 8, 16, module.config.n_depths
    g = torch.Generator().manual_seed(0)
    probability = torch.rand(1, D, h, w, generator=g)
    context = torch.rand(1, 1, h, w, generator=g)
    return module.splat(probability, context, module.plan(inputs, h, w), 1)


@pytest.mark.parametrize("flip", ["x", "y"])
@pytest.mark.parametrize("how", ["pull", "lift"])
def test_bev_augmentation_flips_the_map(how: str, flip: str) -> None:
    grid = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(1.0, 1.0, 6.4), shape=(16, 16, 1))
    bda = np.diag([-1.0, 1, 1, 1] if flip == "x" else [1.0, -1, 1, 1])
    plain, flipped = one_camera(yaw_rad=0.4), one_camera(yaw_rad=0.4, bda=bda)
    features = torch.rand(1, 1, 8, 16, generator=torch.Generator().manual_seed(1))
    if how == "pull":
        module = PullViewTransform(PullConfig(grid=grid, heights_m=(0.5, 2.0), channels=1), 4)
        a, b = module(features, plain), module(features, flipped)
    else:
        config = LssConfig(
            grid=grid, context_channels=1, depth_channels=None, lidar_depth=False,
            depth_max_m=9.0, reference_parity=False,
        )  # fmt: skip
        lss = LssViewTransform(config, 1, 4)
        a, b = splat(lss, plain), splat(lss, flipped)
    assert a.any()
    torch.testing.assert_close(b, a.flip(3 if flip == "x" else 2), rtol=1e-3, atol=1e-4)


def test_published_truncation_pools_a_strip_below_the_lower_border() -> None:
    inputs = one_camera(yaw_rad=math.pi)  # looks toward -x, at most 9 m
    published = lift(True)
    points = published.frustum(inputs, 8, 16)[0, 0]
    kept = published.cells(inputs, 8, 16)[0, 0] >= 0
    strip = (points[0] < -8.001) & (points[0] > -8.999) & (points[1].abs() < 3)
    strip &= (points[2] > -7) & (points[2] < 5)
    assert strip.any() and kept[strip].all()
    clean = lift(False)
    below = clean.frustum(inputs, 8, 16)[0, 0][0] < -8.001
    assert below.any() and not (clean.cells(inputs, 8, 16)[0, 0] >= 0)[below].any()


def test_frames_of_a_batch_are_lifted_apart() -> None:
    one = one_camera()
    two = ModelInputs(
        images=one.images.expand(2, -1, -1, -1, -1),
        T_ego_camera=torch.cat((one.T_ego_camera, one_camera(yaw_rad=2.0).T_ego_camera)),
        intrinsics=one.intrinsics.expand(2, -1, -1, -1),
        post_image=one.post_image.expand(2, -1, -1, -1),
        T_bda=one.T_bda.expand(2, -1, -1),
        points=None,
        depth=None,
    )
    torch.manual_seed(0)
    module = lift(False)
    features = torch.randn(2, 1, 8, 16)
    with torch.no_grad():
        together = module(features, two)
        first = module(features[:1], one)
        second = module(features[1:], one_camera(yaw_rad=2.0))
    torch.testing.assert_close(together, torch.cat((first, second)))
    assert first.any() and second.any()


@pytest.mark.parametrize("how", ["pull", "lift"])
def test_geometry_is_computed_once_and_follows_the_calibration(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = (pull() if how == "pull" else lift(False)).eval()
    built: list[str] = []
    method = "project" if how == "pull" else "frustum"
    original = getattr(type(module), method)

    def counted(self: object, *args: object) -> object:
        built.append(method)
        return original(self, *args)

    monkeypatch.setattr(type(module), method, counted)
    features = torch.rand(1, 1, 8, 16)
    with torch.inference_mode():
        first = module(features, one_camera())
        again = module(features, one_camera())
        other = module(features, one_camera(yaw_rad=1.0))
    assert len(built) == 2 and torch.equal(first, again) and not torch.equal(first, other)
    tracked = features.clone().requires_grad_()
    module(tracked, one_camera()).sum().backward()  # a plan made in inference mode still trains
    assert len(built) == 2 and tracked.grad is not None
