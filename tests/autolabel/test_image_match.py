"""Images of a painted street: the match of neighbouring frames finds what is wrong with a camera.

The world is the ground z = 0, two walls at y = +-6 m and pillars before them, painted with waves of
known lengths, so every pixel's color follows from where its ray meets them. Without the pillars it
would be the same all along, and the time of an image could not be told.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autolabel.auditing.camera_fit import OF_ALL, OF_ONE
from autolabel.auditing.image_match import (
    HYPOTHESES,
    ImageMatch,
    Kind,
    image_pairs,
    match_images,
    motion_after,
    normalized_image,
)
from autolabel.auditing.motion_fit import Trajectory
from datasets.frames import CameraView, Frame, LidarSweep
from datasets.geometry.transforms import Transform, about_axis, apply, inverse

WALL_M, CAMERA_M, LIDAR_M, STEP_M = 6.0, 1.6, 1.9, 3.0
PILLAR_M = np.array([0.8, 0.8, 3.5])
PILLARS = np.array([[x, y, 0.0] for x in range(-24, 48, 8) for y in (-5.6 + x % 3, 4.8 - x % 3)])
WIDTH, HEIGHT, FOCAL = 320, 160, 200.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
AXES = {  # columns: the camera's x (right), y (down), z (forward) in the vehicle
    "FRONT": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
    "LEFT": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
}


def mount(name: str) -> Transform:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = AXES[name], [1.0, 0.0, CAMERA_M]
    return T


def at(x_m: float) -> Transform:
    T = np.eye(4)
    T[0, 3] = x_m
    return T


def paint(where: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) colors 0..1 of places (N, 3)."""
    rng = np.random.default_rng(3)
    waves = rng.normal(0, 2.2, (3, 12, 3))
    phases = rng.uniform(0, 2 * np.pi, (3, 12))
    colors = [np.sin(where @ waves[c].T + phases[c]).mean(axis=1) for c in range(3)]
    return np.clip(0.5 + np.stack(colors, axis=-1), 0, 1)


def surface(eye: NDArray[np.float64], rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) along each ray to the ground or a wall; infinite to the sky."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(rays[:, 2] < 0, -eye[2] / rays[:, 2], np.inf)
        wall = np.where(rays[:, 1] != 0, (np.sign(rays[:, 1]) * WALL_M - eye[1]) / rays[:, 1], 1e9)
    high = eye[2] + wall * rays[:, 2] > 4.0
    reach = np.minimum(ground, np.where(high, np.inf, wall))
    for low in PILLARS:
        with np.errstate(divide="ignore", invalid="ignore"):
            planes = (np.stack([low, low + PILLAR_M])[:, None] - eye) / rays
        enter, leave = planes.min(axis=0).max(axis=1), planes.max(axis=0).min(axis=1)
        reach = np.minimum(reach, np.where((enter < leave) & (enter > 0), enter, np.inf))
    return reach


def photograph(T_global_camera: Transform) -> NDArray[np.uint8]:
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=-1)
    rays = pixels @ np.linalg.inv(K).T @ T_global_camera[:3, :3].T
    eye = T_global_camera[:3, 3]
    reach = surface(eye, rays)
    seen = reach < 80
    colors = np.full((len(rays), 3), 0.7)
    colors[seen] = paint(eye + reach[seen, None] * rays[seen])
    return np.asarray(255 * colors.reshape(HEIGHT, WIDTH, 3), np.uint8)


def sweep_points() -> NDArray[np.float32]:
    """(N, 3) in the ego frame."""
    azimuth, elevation = np.meshgrid(np.linspace(-np.pi, np.pi, 360), np.radians(range(-25, 8)))
    c = np.cos(elevation)
    rays = np.stack([c * np.cos(azimuth), c * np.sin(azimuth), np.sin(elevation)], axis=-1)
    rays = rays.reshape(-1, 3)
    eye = np.array([0.0, 0.0, LIDAR_M])
    reach = surface(eye, rays)
    near = reach < 50
    return np.asarray(eye + reach[near, None] * rays[near], np.float32)


def drive(n: int = 4) -> list[Frame]:
    T_ego_lidar = np.eye(4)
    T_ego_lidar[2, 3] = LIDAR_M
    return [
        Frame(
            scene_id="s",
            token=f"f{i}",
            timestamp_us=500_000 * i,
            T_global_ego=at(STEP_M * i),
            cameras=tuple(
                CameraView(
                    name=name,
                    path=Path(f"{name}-{i}.png"),
                    timestamp_us=500_000 * i,
                    width=WIDTH,
                    height=HEIGHT,
                    intrinsics=K,
                    T_ego_camera=mount(name),
                )
                for name in AXES
            ),
            lidar=LidarSweep(
                path=Path(f"l{i}.bin"), timestamp_us=500_000 * i, T_ego_lidar=T_ego_lidar
            ),
        )
        for i in range(n)
    ]


def images_of(frame: Frame, *, late_s: float = 0.0) -> dict[str, NDArray[np.float32]]:
    speed = STEP_M / 0.5
    return {
        view.name: normalized_image(
            photograph(frame.T_global_ego @ at(late_s * speed) @ mount(view.name))
        )
        for view in frame.cameras
    }


def best(match: ImageMatch, kinds: tuple[Kind, ...] = OF_ONE) -> tuple[Kind, float] | None:
    """The hypothesis that matches best; None: what is stated does."""
    of_kinds = [h for h, (kind, _) in enumerate(HYPOTHESES) if kind in kinds]
    h = of_kinds[int(np.nanargmax(match.under[of_kinds]))]
    return HYPOTHESES[h] if match.under[h] > match.stated + 0.02 else None


def matched(frames: list[Frame], *, late_s: float = 0.0, points_m: float = 0.0) -> ImageMatch:
    """Of the camera to the left, whose images show near and far."""
    a, b = frames[1:3]
    points = sweep_points() + np.float32([0, points_m, 0])
    images = images_of(a, late_s=late_s), images_of(b, late_s=late_s)
    return match_images(points, a, b, images, Trajectory(frames))["LEFT"]


def stated(frames: list[Frame], change: dict[str, object] | None = None, T: object = None) -> list:
    def wrong(view: CameraView) -> CameraView:
        if T is not None:
            view = replace(view, T_ego_camera=view.T_ego_camera @ T)
        return replace(view, **(change or {}))  # type: ignore[arg-type]

    return [replace(f, cameras=tuple(map(wrong, f.cameras))) for f in frames]


def test_right_cameras_match_best_as_stated() -> None:
    a, b = drive()[1:3]
    found = match_images(sweep_points(), a, b, (images_of(a), images_of(b)), Trajectory(drive()))
    assert sorted(found) == sorted(AXES)
    assert found["LEFT"].stated > 0.4
    assert found["FRONT"].stated > 0.2, "pillars hide what one of the images shows"
    assert best(found["LEFT"]) is None
    for (kind, _), under in zip(HYPOTHESES, found["FRONT"].under, strict=True):
        if kind in ("pitched", "yawed", "rolled", "focal length"):
            assert under < found["FRONT"].stated


@pytest.mark.parametrize(("axis", "kind"), [(0, "pitched"), (1, "yawed"), (2, "rolled")])
@pytest.mark.parametrize("degrees", [-2.0, 2.0])
def test_a_turned_camera_matches_best_turned_back(axis: int, kind: Kind, degrees: float) -> None:
    frames = stated(drive(), T=about_axis(axis, degrees))
    assert best(matched(frames)) == (kind, degrees)


@pytest.mark.parametrize("share", [-0.05, 0.05])
def test_another_focal_length(share: float) -> None:
    zoomed = K * [[1 + share], [1 + share], [1]]
    zoomed[:2, 2] = K[:2, 2]
    assert best(matched(stated(drive(), {"intrinsics": zoomed}))) == ("focal length", share)


def test_late_images() -> None:
    assert best(matched(drive(), late_s=0.3)) == ("late", 0.3)


def test_a_lidar_aside() -> None:
    assert best(matched(drive(), points_m=0.3), OF_ALL) == ("LiDAR to the left", 0.3)


def test_frames_between_which_nothing_moves_are_no_pairs() -> None:
    frames = drive()
    assert [(a.token, b.token) for a, b in image_pairs(frames)] == [
        ("f0", "f1"),
        ("f1", "f2"),
        ("f2", "f3"),
    ]
    assert image_pairs([replace(f, T_global_ego=np.eye(4)) for f in frames]) == []
    assert image_pairs([replace(f, T_global_ego=at(20 * i)) for i, f in enumerate(frames)]) == []
    assert image_pairs([replace(f, timestamp_us=4 * f.timestamp_us) for f in frames]) == []
    assert image_pairs([replace(f, lidar=None) for f in frames]) == []


def test_flat_images_and_few_points_say_nothing() -> None:
    frames = drive()
    flat = {name: normalized_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8)) for name in AXES}
    a, b = frames[1:3]
    found = match_images(sweep_points(), a, b, (flat, flat), Trajectory(frames))
    assert all(best(match) is None for match in found.values())
    assert match_images(sweep_points()[:20], a, b, (flat, flat), Trajectory(frames)) == {}
    assert match_images(sweep_points(), a, b, ({}, flat), Trajectory(frames)) == {}


def test_the_motion_after_an_image() -> None:
    frames = drive()
    step = motion_after(Trajectory(frames), frames[1], frames[1].cameras[0], 0.1)
    assert step is not None
    np.testing.assert_allclose(step[:3, 3], [0.6, 0, 0], atol=1e-9)
    np.testing.assert_allclose(apply(inverse(step), np.zeros((1, 3))), [[-0.6, 0, 0]], atol=1e-9)
    assert motion_after(Trajectory(frames[:1]), frames[0], frames[0].cameras[0], 0.1) is None
