"""Random views for training: geometry that follows the pixels, flips, sweeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from one_camera_log import GRID, OneCameraLog, labels

from datasets.frames import CameraView, LidarSweep
from datasets.loading.augmentation import (
    AirborneReturns,
    Augmentation,
    ImageAugmentation,
    PictureView,
)
from datasets.loading.batch import Target, make_batch
from datasets.loading.frame_dataset import FrameDataset, Unlabelled
from datasets.model_inputs import InputSpec, fit_image, fitted_map, prepare_frame

SPEC = InputSpec(height=48, width=80, lidar=False)
STORED = (90, 160)  # height, width


def picture_of_a_blob(u: float, v: float) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[: STORED[0], : STORED[1]]
    grey = 255 * np.exp(-((cols - u) ** 2 + (rows - v) ** 2) / (2 * 4.0**2))
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def centroid(picture: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    """Where the blob is, as (u, v), and how much of it there is."""
    grey = np.clip(picture[..., 0].astype(np.float64) - 10, 0, None)
    rows, cols = np.mgrid[: grey.shape[0], : grey.shape[1]]
    total = grey.sum()
    at = np.array([(grey * cols).sum(), (grey * rows).sum()]) / max(total, 1)
    return at, total


def moved(post: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    return post[:2, :2] @ at + post[:2, 2]


def test_a_pictures_map_follows_what_is_on_it() -> None:
    rng = np.random.default_rng(0)
    augmentation = ImageAugmentation(rotation_deg=10.0)
    plain_map = fitted_map(STORED[1], STORED[0], SPEC)
    seen = mirrored = 0
    for _ in range(150):
        blob = picture_of_a_blob(rng.uniform(40, 120), rng.uniform(45, 75))
        plain, full = centroid(fit_image(blob, SPEC)[0])
        view = augmentation.draw(rng)
        picture, post = view(blob, SPEC)
        found, amount = centroid(picture)
        if amount < 0.98 * view.scale**2 * full or min(found) < 12:  # cut at a border
            continue
        expected = moved(post @ np.linalg.inv(plain_map), plain)
        assert np.abs(found - expected).max() < 0.15, view
        seen += 1
        mirrored += view.mirrored
    assert seen > 40 and 10 < mirrored < seen - 10


def test_a_plain_view_is_the_plain_fit() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*STORED, 3), np.uint8)
    picture, post = PictureView()(pixels, SPEC)
    expected, plain = fit_image(pixels, SPEC)
    assert np.array_equal(picture, expected)
    assert np.allclose(post, plain)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_map_is_the_published_one_within_a_pixel(mirrored: bool) -> None:
    """Scale, minus crop, mirrored about the width, turned about the middle of the crop."""
    spec = InputSpec(height=256, width=704, lidar=False)
    view = PictureView(scale=0.5 / 0.44, left=0.25, mirrored=mirrored, rotation_deg=5.0)
    post = view(np.zeros((900, 1600, 3), np.uint8), spec)[1]
    A, b = 0.5 * np.eye(2), -np.array([24.0, 450 - 256])
    if mirrored:
        A, b = np.diag([-1.0, 1]) @ A, np.diag([-1.0, 1]) @ b + [704, 0]
    c, s = np.cos(np.radians(5)), np.sin(np.radians(5))
    R, middle = np.array([[c, s], [-s, c]]), np.array([352.0, 128])
    A, b = R @ A, R @ (b - middle) + middle
    for corner in ((0, 0), (1600, 0), (0, 900), (1600, 900)):
        at = np.array(corner, np.float64)
        assert np.abs(moved(post, at) - (A @ at + b)).max() < 1.1


class LogOfADot(OneCameraLog):
    """A LiDAR point, and a picture with a dot where the camera sees it."""

    def __init__(self, point: tuple[float, float, float]) -> None:
        super().__init__(np.array([[*point, 1.0]], np.float32), frames=1)
        self.dot = point

    def _view(self, i: int) -> CameraView:
        view = super()._view(i)
        K = np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]])
        return dataclasses.replace(view, width=STORED[1], height=STORED[0], intrinsics=K)

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        camera = np.linalg.inv(view.T_ego_camera) @ [*self.dot, 1]
        u, v, _ = view.intrinsics @ camera[:3] / camera[2]
        return picture_of_a_blob(u, v)


def test_a_lidar_point_lands_on_the_same_pixels_in_every_view() -> None:
    log, rng = LogOfADot((11.0, 1.5, 1.0)), np.random.default_rng(3)
    spec = dataclasses.replace(SPEC, lidar=True, past_sweeps=0)
    augmentation = Augmentation(images=ImageAugmentation(), fewer_sweeps=0.0)
    for _ in range(20):
        view = augmentation.draw(log.scene("a").frames[0], spec, rng)
        inputs = prepare_frame(log, view.frame, spec, fit=view.fit)
        assert inputs.depth is not None
        (row, col), *others = np.argwhere(inputs.depth[0] > 0)
        assert not others
        assert np.abs(centroid(inputs.images[0])[0] - (col, row)).max() <= 1.0


def test_brightness_contrast_and_saturation_are_off_unless_asked_for() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = ImageAugmentation().draw(rng)
        assert (view.brightness, view.contrast, view.saturation) == (1, 1, 1)
    pixels = np.random.default_rng(1).integers(0, 256, (*STORED, 3), np.uint8)
    still = ImageAugmentation(scale=(1, 1), flip=0, rotation_deg=0, brightness=0.4, saturation=0.9)
    view = still.draw(rng)
    picture, post = view(pixels, SPEC)
    assert np.allclose(post, fit_image(pixels, SPEC)[1])
    assert not np.array_equal(picture, fit_image(pixels, SPEC)[0])
    ratio = picture.mean() / fit_image(pixels, SPEC)[0].mean()
    assert ratio == pytest.approx(view.brightness, abs=0.1)


def test_labels_weights_and_flow_flip_with_the_points() -> None:
    """A car drives from one voxel to another; in every mirror its velocity says so."""
    semantics, visible = labels()
    before, after = np.array([150, 120, 3]), np.array([153, 118, 3])
    velocity = (after - before)[:2] * 0.4 / 0.5
    flow = np.zeros((*GRID.shape, 2), np.float32)
    flow[tuple(before)] = velocity
    weight = visible.astype(np.float32)
    weight[tuple(before)] = 0.25
    target = Target(semantics=semantics, weight=weight, flow=flow)
    points = (np.stack([before, after]) + 0.5) * 0.4 + [-40, -40, -1]
    log = OneCameraLog(np.hstack([points, np.ones((2, 1))]).astype(np.float32))
    spec = InputSpec(height=8, width=16, lidar=True, past_sweeps=0)
    inputs = prepare_frame(log, log.scene("a").frames[0], spec)
    for flip in [(False, False), (True, False), (False, True), (True, True)]:
        sample = make_batch([(inputs, target, flip)])
        assert sample.inputs.points is not None and sample.flow is not None
        first, second = sample.inputs.points[0][:, :3].numpy()
        i, j, k = GRID.indices(first[None])[0]
        assert sample.semantics[0, i, j, k] == 4 and sample.weight[0, i, j, k] == 0.25
        seen = sample.flow[0, i, j, k].numpy() * 0.5
        assert np.allclose(seen, (second - first)[:2], atol=1e-5)
        assert sample.flow.count_nonzero() == 2


class LogOfSweeps(OneCameraLog):
    """Its one frame has twelve past sweeps."""

    def __init__(self) -> None:
        super().__init__(np.array([[10.0, 0, 0, 1]], np.float32), frames=1)

    def scene(self, scene_id: str):  # type: ignore[no-untyped-def]
        scene = super().scene(scene_id)
        key = scene.frames[0].lidar
        assert key is not None
        past = tuple(
            LidarSweep(path=key.path, timestamp_us=-k, T_ego_lidar=np.eye(4)) for k in range(1, 13)
        )
        return dataclasses.replace(
            scene, frames=(dataclasses.replace(scene.frames[0], past_sweeps=past),)
        )


def test_training_draws_sweeps_and_evaluation_takes_the_newest() -> None:
    log = LogOfSweeps()
    frame, spec = log.scene("a").frames[0], InputSpec(height=8, width=16, lidar=True)
    drawn = set()
    augmentation = Augmentation(random_sweeps=True, fewer_sweeps=0.0)
    for k in range(30):
        view = augmentation.draw(frame, spec, np.random.default_rng(k))
        ages = tuple(-sweep.timestamp_us for sweep in view.frame.past_sweeps)
        assert len(ages) == 9 and sorted(set(ages)) == list(ages)
        drawn.add(ages)
    assert len(drawn) > 20 and {age for ages in drawn for age in ages} == set(range(1, 13))
    samples = FrameDataset(log, [Unlabelled(["a"], GRID)], spec)
    for step in range(3):
        points = samples[step].inputs.points
        assert points is not None
        assert points[0][:, 4].mul(1e6).round().tolist() == list(range(10))


def test_some_frames_are_given_fewer_sweeps() -> None:
    frame, spec = LogOfSweeps().scene("a").frames[0], InputSpec(height=8, width=16, lidar=True)
    rng = np.random.default_rng(0)
    counts = [
        len(Augmentation(fewer_sweeps=0.5).draw(frame, spec, rng).frame.past_sweeps)
        for _ in range(200)
    ]
    assert set(counts) == set(range(10))
    assert 90 < counts.count(9) < 130


def test_returns_from_the_air_lie_on_their_rays_nearer_and_weaker() -> None:
    rng = np.random.default_rng(0)
    origin = np.array([1.0, 0.0, 1.8])
    rays = rng.standard_normal((20_000, 3))
    rays *= (rng.uniform(2, 60, 20_000) / np.linalg.norm(rays, axis=1))[:, None]
    points = np.column_stack([origin + rays, np.full((20_000, 2), 20.0)]).astype(np.float32)
    before = points.copy()
    air = AirborneReturns(chance=1.0, share=0.2, range_m=5.0)
    shares = []
    for seed in range(20):
        found = air(points, origin, np.random.default_rng(seed))
        caught = (found != points).any(1)
        shares.append(caught.mean())
        at, was = found[caught, :3] - origin, points[caught, :3] - origin
        near, far = np.linalg.norm(at, axis=1), np.linalg.norm(was, axis=1)
        assert (near < far).all() and (near >= air.nearest_m - 1e-4).all()
        np.testing.assert_allclose(at / near[:, None], was / far[:, None], atol=1e-4)
        assert (found[caught, 3] <= 6).all() and (found[:, 4] == 20).all()
    assert max(shares) < 0.2 and 0.04 < np.mean(shares) < 0.1
    np.testing.assert_array_equal(points, before)
    never = AirborneReturns(chance=0.0)
    assert never(points, origin, np.random.default_rng(0)) is points


def test_weather_is_drawn_for_the_networks_frame_and_changes_no_other_draw() -> None:
    points = np.random.default_rng(0).uniform(2, 30, (500, 5)).astype(np.float32)
    source = OneCameraLog(points)
    spec = InputSpec(height=48, width=80, lidar=True, depth=False, past_sweeps=0)
    frame = source.scene("a").frames[0]
    assert frame.lidar is not None
    T_ego_lidar = np.eye(4)
    T_ego_lidar[:3, 3] = 0.9, 0.0, 1.8
    frame = dataclasses.replace(
        frame, lidar=dataclasses.replace(frame.lidar, T_ego_lidar=T_ego_lidar)
    )
    wet = Augmentation(images=ImageAugmentation(), airborne=AirborneReturns(chance=1, share=1))
    dry = dataclasses.replace(wet, airborne=None)
    in_lidar = dataclasses.replace(spec, frame="lidar")
    for one, origin in ((spec, T_ego_lidar[:3, 3]), (in_lidar, np.zeros(3))):
        views = [a.draw(frame, one, np.random.default_rng(3)) for a in (wet, dry)]
        assert views[0].flip == views[1].flip and views[0].fit == views[1].fit
        inputs = prepare_frame(source, frame, one)
        seen = views[0].in_the_air(inputs, one)
        assert views[1].in_the_air(inputs, one) is inputs
        assert inputs.points is not None and seen.points is not None
        was, at = (p[:, :3] - origin for p in (inputs.points, seen.points))
        moved = (was != at).any(1)
        assert moved.any()
        cosine = (was[moved] * at[moved]).sum(1)
        cosine /= np.linalg.norm(was[moved], axis=1) * np.linalg.norm(at[moved], axis=1)
        assert cosine.min() > 0.9999


def test_a_step_is_augmented_the_same_whenever_it_is_drawn() -> None:
    log = LogOfADot((11.0, 1.5, 1.0))
    everything = Augmentation(images=ImageAugmentation(brightness=0.2), random_sweeps=True)
    sets = [
        FrameDataset(log, [Unlabelled(["a"], GRID)], SPEC, augment=everything, seed=5)
        for _ in range(2)
    ]
    views = []
    for step in (3, 0, 7):
        first, again = (samples[step].inputs for samples in sets)
        assert np.array_equal(first.images, again.images)
        assert np.array_equal(first.post_image, again.post_image)
        views.append(first.post_image.numpy())
    assert not np.allclose(views[0], views[1])


@pytest.mark.parametrize(
    "bad", [{"scale": (0.0, 1.0)}, {"scale": (1.2, 1.0)}, {"flip": 1.5}, {"contrast": -0.1}]
)
def test_impossible_changes_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        ImageAugmentation(**bad)
