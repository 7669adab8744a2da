"""Heights of a drive: what registration of its key-frames restores."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.ground_truth.pose_correction import (
    PoseCorrection,
    estimate_correction,
    no_correction,
    surface_thickness,
)

SLOPE = 0.06


def street(rng: np.random.Generator) -> NDArray[np.float64]:
    """Points of a climbing street with kerb, walls and poles, global frame."""
    x, y = rng.uniform(-50, 70, 40_000), rng.uniform(-12, 12, 40_000)
    ground = np.stack([x, y, SLOPE * x + 0.15 * (np.abs(y) > 6)], axis=1)
    x, z = rng.uniform(-50, 70, 12_000), rng.uniform(0, 6, 12_000)
    wall = np.stack([x, np.where(x % 20 < 12, 10.0, 11.5), SLOPE * x + z], axis=1)
    around = rng.uniform(0, 2 * np.pi, 3000)
    at = rng.integers(-4, 6, 3000) * 12.0
    poles = np.stack(
        [
            at + 0.15 * np.cos(around),
            7 + 0.15 * np.sin(around),
            SLOPE * at + rng.uniform(0, 5, 3000),
        ],
        axis=1,
    )
    return np.concatenate([ground, wall, poles])


def drive(n: int) -> list[Transform]:
    """True poses: four metres from one to the next, the vehicle lies as the street does."""
    pitch = np.eye(4)
    angle = -np.arctan(SLOPE)
    pitch[:3:2, :3:2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    # the vehicle climbs along its own nose
    return [from_yaw(0.0, (4.0 * k, 0.2 * k, SLOPE * 4.0 * k)) @ pitch for k in range(n)]


def clouds(poses: list[Transform], *, movers: bool = False) -> list[NDArray[np.float64]]:
    """What is within 40 m of each pose, other points each time, noise of 2 cm."""
    out = []
    for k, T in enumerate(poses):
        rng = np.random.default_rng(k)
        points = street(rng) + rng.normal(0, 0.02, (55_000, 3))
        points = points[np.hypot(*(points[:, :2] - T[:2, 3]).T) < 40]
        if movers:  # a truck's roof that sinks and comes nearer
            roof = rng.uniform((0, -4, 0), (8, -1, 0.1), (4000, 3))
            points = np.concatenate([points, roof + T[:3, 3] + (20 - 3 * k, 0, 3 - 0.1 * k)])
        out.append(apply(inverse(T), points))
    return out


@pytest.mark.parametrize("movers", [False, True])
def test_lost_heights_are_found_to_two_centimetres(movers: bool) -> None:
    true = drive(8)
    flat = [T.copy() for T in true]
    for T in flat:
        T[2, 3] = 0.0
    times = [500_000 * k for k in range(8)]
    found = estimate_correction(clouds(true, movers=movers), flat, times)
    assert np.abs(found.z_m - [T[2, 3] for T in true]).max() < 0.02
    assert np.abs(found.roll_rad).max() < 0.001 and np.abs(found.pitch_rad).max() < 0.001


def test_wandering_heights_and_tilts_are_found() -> None:
    true, rng = drive(6), np.random.default_rng(7)
    offsets = np.cumsum(rng.normal(0, (0.1, 0.004, 0.004), (6, 3)), axis=0)
    offsets -= offsets[0]
    times = np.arange(6) * 500_000
    lost = PoseCorrection(
        timestamps_us=times, z_m=offsets[:, 0], roll_rad=offsets[:, 1], pitch_rad=offsets[:, 2]
    )
    given = [lost.corrected(T, int(t)) for T, t in zip(true, times, strict=True)]
    found = estimate_correction(clouds(true), given, [int(t) for t in times])
    for T, right, t in zip(given, true, times, strict=True):
        error = inverse(found.corrected(T, int(t))) @ right
        assert np.abs(error[:3, 3]).max() < 0.02
        assert np.degrees(np.abs(error[:3, :3] - np.eye(3)).max()) < 0.15


def test_right_poses_stay() -> None:
    true = drive(5)
    found = estimate_correction(clouds(true), true, [500_000 * k for k in range(5)])
    assert np.abs(found.z_m).max() < 0.01


def test_result_is_the_same_every_time() -> None:
    true = drive(3)
    a, b = (estimate_correction(clouds(true), true, [0, 1, 2]) for _ in range(2))
    assert (a.z_m == b.z_m).all() and (a.pitch_rad == b.pitch_rad).all()


def test_frame_without_points_takes_over_the_correction_before_it() -> None:
    true = drive(4)
    flat = [T.copy() for T in true]
    for T in flat:
        T[2, 3] = 0.0
    seen = clouds(true)
    seen[2] = seen[2][:0]
    found = estimate_correction(seen, flat, [0, 1, 2, 3])
    assert found.z_m[2] == found.z_m[1] == pytest.approx(0.24, abs=0.02)
    assert found.z_m[3] == pytest.approx(0.72, abs=0.02)


def test_correction_between_key_frames_goes_evenly() -> None:
    zero = np.zeros(2)
    correction = PoseCorrection(
        timestamps_us=np.array([0, 100]), z_m=np.array([0.0, 2.0]), roll_rad=zero, pitch_rad=zero
    )
    for t, z in ((-50, 0.0), (0, 0.0), (25, 0.5), (100, 2.0), (900, 2.0)):
        assert correction.corrected(np.eye(4), t)[2, 3] == pytest.approx(z)
    T = from_yaw(0.3, (1, 2, 3))
    assert (no_correction([0, 1]).corrected(T, 1) == T).all()


def test_layers_of_a_surface_are_thick_and_one_layer_is_thin() -> None:
    rng = np.random.default_rng(0)
    one = np.c_[rng.uniform(0, 10, (20_000, 2)), rng.normal(0, 0.01, 20_000)]
    assert surface_thickness(one) < 0.03
    assert surface_thickness(np.concatenate([one, one + np.array([0, 0, 0.5])])) > 0.45
    assert np.isnan(surface_thickness(one[:5]))


def test_clouds_poses_and_times_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="1 clouds, 2 poses"):
        estimate_correction([np.zeros((5, 3))], [np.eye(4)] * 2, [0, 1])
