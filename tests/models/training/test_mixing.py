"""Frames put together: points, voxels and pixels of a region come from the same frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_training import SPEC, OneCameraLog, write_truth

from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import about_axis
from datasets.loading.batch import Target
from datasets.loading.frame_dataset import FrameDataset
from datasets.loading.mixing import Mixing, Sector, Upright, mix_object, mix_sector
from datasets.model_inputs import FrameInputs
from datasets.taxonomy import OCC3D_NUSCENES
from models.training.recipes import recipe

GRID = VoxelGrid(min_m=(-8, -8, -1), size_m=(1, 1, 1), shape=(16, 16, 4))
CAR, GROUND, FREE = 4, 11, OCC3D_NUSCENES.free_id
HEIGHT, WIDTH = 20, 40
T_AHEAD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1.0]])
LEFT_HALF = Sector(start_rad=0.0, width_rad=np.pi)


def frame(brightness: int, *, car_at: tuple[int, int] | None = None) -> tuple[FrameInputs, Target]:
    """Returns on a lattice of the ground, every voxel above free, one camera ahead."""
    x, y = np.meshgrid(np.arange(-7.5, 8), np.arange(-7.5, 8), indexing="ij")
    points = np.zeros((x.size, 6), np.float32)
    points[:, 0], points[:, 1], points[:, 3] = x.ravel(), y.ravel(), brightness
    points[::3, 5] = 1
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[..., 0] = GROUND
    if car_at is not None:
        i, j = car_at
        semantics[i : i + 2, j : j + 2, 1:3] = CAR
    inputs = FrameInputs(
        images=np.full((1, HEIGHT, WIDTH, 3), brightness, np.uint8),
        T_ego_camera=T_AHEAD[None],
        intrinsics=np.array([[[20, 0, 20], [0, 20, 10], [0, 0, 1.0]]]),
        post_image=np.eye(3)[None],
        points=points,
        depth=np.full((1, HEIGHT, WIDTH), float(brightness), np.float32),
    )
    weight = np.full(GRID.shape, float(brightness), np.float32)
    return inputs, Target(semantics=semantics, weight=weight)


def test_a_sector_brings_its_points_voxels_and_pixels() -> None:
    inputs, target = mix_sector(frame(1), frame(2), LEFT_HALF, GRID)
    assert inputs.points is not None and inputs.depth is not None
    left = inputs.points[:, 1] > 0
    assert set(inputs.points[left, 3]) == {2.0} and set(inputs.points[~left, 3]) == {1.0}
    assert len(inputs.points) == 256
    assert (np.diff(inputs.points[:, 5]) >= 0).all(), "those of the key sweep come first"
    assert (target.weight[:, 8:] == 2).all() and (target.weight[:, :8] == 1).all()
    middle = WIDTH // 2
    assert (inputs.images[0][:, :middle] == 2).all(), "left of the axis the camera looks left"
    assert (inputs.images[0][:, middle:] == 1).all()
    assert (inputs.depth[0][:, :middle] == 2).all()


def test_pixels_of_another_camera_become_black() -> None:
    own, other = frame(1), frame(2)
    turned = replace(other[0], T_ego_camera=(T_AHEAD @ about_axis(1, 10))[None])
    shorter = replace(other[0], intrinsics=other[0].intrinsics * [[[1.1], [1.1], [1]]])
    fewer = replace(
        other[0],
        images=other[0].images[:0],
        T_ego_camera=other[0].T_ego_camera[:0],
        intrinsics=other[0].intrinsics[:0],
        post_image=other[0].post_image[:0],
    )
    for different in (turned, shorter, fewer):
        inputs, _ = mix_sector(own, (different, other[1]), LEFT_HALF, GRID)
        assert (inputs.images[0][:, : WIDTH // 2] == 0).all()
        assert inputs.depth is not None and (inputs.depth[0][:, : WIDTH // 2] == 0).all()
    assert (own[0].images == 1).all(), "the frame itself stays"


def test_a_sector_may_pass_straight_behind() -> None:
    behind = Sector(start_rad=np.radians(170), width_rad=np.radians(20))
    places = np.array([[-5, 0.1, 0], [-5, -0.1, 0], [5, 0, 0], [-5, 5, 0]])
    assert behind(places).tolist() == [True, True, False, False]


def test_an_object_comes_with_its_columns() -> None:
    own, other = frame(1), frame(2, car_at=(12, 9))
    inputs, target = mix_object(own, other, CAR, GRID, np.random.default_rng(0))
    assert (target.semantics == CAR).sum() == (other[1].semantics == CAR).sum() == 8
    moved = target.weight == 2
    assert moved[12:14, 9:11].all() and not moved[:10].any()
    assert inputs.points is not None
    taken = inputs.points[:, 3] == 2
    box = Upright(low_m=(3.5, 0.5), high_m=(6.5, 3.5))
    np.testing.assert_array_equal(taken, box(inputs.points))
    assert (inputs.images[0] == 2).any() and (inputs.images[0] == 1).any()
    v, u = np.argwhere((inputs.images[0] == 2).all(axis=-1)).T
    assert u.max() < WIDTH // 2, "the car stands to the left"
    assert v.max() <= 10 + 20 * 1.5 / 3.5 + 1, "and not below its near edge on the ground"


@pytest.mark.parametrize("car_at", [None, (7, 7)])
def test_no_object_or_one_where_the_vehicle_stands_changes_nothing(
    car_at: tuple[int, int] | None,
) -> None:
    own = frame(1)
    other = frame(2, car_at=car_at)
    assert mix_object(own, other, CAR, GRID, np.random.default_rng(0)) is own
    unseen = frame(2, car_at=(12, 9))
    assert unseen[0].points is not None
    far = replace(unseen[0], points=unseen[0].points[unseen[0].points[:, 0] < 0])
    assert mix_object(own, (far, unseen[1]), CAR, GRID, np.random.default_rng(0)) is own


def test_a_set_mixes_by_the_draw_alone(tmp_path: Path) -> None:
    log = OneCameraLog(frames=4)
    truth = write_truth(tmp_path, log)
    grid = truth.benchmark.grid

    def samples(chance: float | None) -> FrameDataset:
        mixing = None
        if chance is not None:
            mixing = Mixing(grid=grid, classes=(CAR,), sector=chance, objects=chance)
        return FrameDataset(log, [truth], SPEC, batch=2, mixing=mixing)

    plain, first, again = samples(None), samples(1.0), samples(1.0)
    assert first.fingerprint() != plain.fingerprint() != samples(0.5).fingerprint()
    for step in (3, 0):
        a, b = first[step], again[step]
        np.testing.assert_array_equal(a.semantics.numpy(), b.semantics.numpy())
        np.testing.assert_array_equal(a.inputs.images.numpy(), b.inputs.images.numpy())
    with pytest.raises(ValueError, match="chances"):
        Mixing(grid=grid, classes=(), sector=2.0, objects=0.0)


def test_the_share_is_the_recipes_or_the_commands() -> None:
    how = recipe("city_student")
    assert how.mixing(GRID, OCC3D_NUSCENES) is None
    mixing = how.mixing(GRID, OCC3D_NUSCENES, 0.5)
    assert mixing is not None and mixing.classes == OCC3D_NUSCENES.foreground
    with pytest.raises(SetupError, match="--mix 2 is not a share"):
        how.mixing(GRID, OCC3D_NUSCENES, 2.0)
