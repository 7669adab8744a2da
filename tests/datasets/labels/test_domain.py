"""A log that confidence was not learned on is told from one that it was."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from datasets.labels.domain import (
    FALSE_ALARMS,
    ConfidenceDomain,
    LogDomain,
    Reference,
    SceneStatistics,
    domain_shift,
)

NAMES = ("LiDAR returns", "picture brightness", "car, share", "road, share", "LiDAR height, m")
Frames = list[dict[str, float]]


def scene(rng: np.random.Generator, frames: int = 4, **other: float) -> Frames:
    """Frames whose statistics scatter within a scene, and their means between scenes."""
    level = {
        "LiDAR returns": 20_000 * np.exp(0.2 * rng.normal()),
        "picture brightness": 100 * np.exp(0.2 * rng.normal()),
        "car, share": rng.beta(2, 20),
        "road, share": rng.beta(20, 40),
        "LiDAR height, m": 1.8,
    }
    level |= other
    return [
        {name: float(value * np.exp(0.03 * rng.normal())) for name, value in level.items()}
        for _ in range(frames)
    ]


def mean(frames: Sequence[dict[str, float]]) -> SceneStatistics:
    values = {name: float(np.mean([f[name] for f in frames])) for name in frames[0]}
    return SceneStatistics(values=values, frames=len(frames))


def reference(n: int = 14, seed: int = 0) -> Reference:
    rng = np.random.default_rng(seed)
    return Reference.of([scene(rng) for _ in range(n)])


@pytest.mark.parametrize("n", [1, 4, 12])
def test_scenes_of_the_same_kind_raise_few_alarms(n: int) -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        log = [mean(scene(rng)) for _ in range(n)]
        alarms += domain_shift(log, reference(20, seed)).shifted
    assert alarms <= 0.05 * 60 + 1


def test_one_frame_of_another_sensor_is_told_by_fourteen_scenes() -> None:
    rng = np.random.default_rng(1)
    log = [mean(scene(rng, frames=1, **{"LiDAR returns": 105_000.0}))]
    found = domain_shift(log, reference())
    assert found.shifted and found.p < FALSE_ALARMS
    first = found.differences[0]
    assert first.name == "LiDAR returns" and first.here is not None and first.here > 90_000
    assert "here" in str(first) and "there" in str(first)


def test_a_small_shift_that_all_scenes_share_is_told_by_many() -> None:
    rng = np.random.default_rng(2)
    darker = [mean(scene(rng)) for _ in range(20)]
    darker = [
        SceneStatistics(
            values={**s.values, "picture brightness": 0.72 * s.values["picture brightness"]},
            frames=s.frames,
        )
        for s in darker
    ]
    known = reference(60)
    assert domain_shift(darker, known).shifted
    assert not domain_shift(darker[:1], known).shifted


def test_a_statistic_that_is_missing_is_a_difference() -> None:
    rng = np.random.default_rng(3)
    blind = mean(scene(rng))
    values = {k: v for k, v in blind.values.items() if k != "picture brightness"}
    found = domain_shift([SceneStatistics(values=values, frames=4)], reference())
    assert found.shifted and found.differences[0].here is None
    assert "none here" in str(found.differences[0])


def test_too_few_calibration_scenes_are_said() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match="at least 8"):
        domain_shift([mean(scene(rng))], reference(7))
    with pytest.raises(ValueError, match="no scene"):
        domain_shift([], reference())


def test_the_domain_survives_json() -> None:
    known = reference()
    holes = Reference(
        names=known.names,
        scenes=np.where(known.scenes == known.scenes[0, 0], np.nan, known.scenes),
        frames=known.frames,
        within=known.within,
    )
    log = LogDomain(source="folder", log="ours", licence="x", scenes=14, frames=56, reference=holes)
    made = ConfidenceDomain(logs=(log,))
    again = ConfidenceDomain.from_json(json.loads(json.dumps(made.to_json())))
    read = again.log("folder", "ours")
    assert read is not None and read.reference is not None and again.log("city", "ours") is None
    np.testing.assert_array_equal(read.reference.scenes, holes.scenes)
    assert read.name == "ours (folder)"
    assert json.dumps(again.to_json()) == json.dumps(made.to_json())


@pytest.mark.parametrize(
    "change", [{"frames": [0] * 14}, {"within": [-1.0] * 5}, {"names": ["a"]}, {"within": [1e999]}]
)
def test_a_damaged_reference_is_refused(change: dict[str, object]) -> None:
    data = reference().to_json() | change
    with pytest.raises(ValueError, match=r"."):
        Reference.from_json(data)
