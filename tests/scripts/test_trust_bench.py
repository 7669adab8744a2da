"""The trust benchmark's own arithmetic, on counts whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autolabel.calibration.evaluation import SceneCounts
from autolabel.confidence.calibration import CalibrationHistogram
from autolabel.labeling.visibility import FREE_PASSES
from datasets.taxonomy import OCC3D_COARSE

ROOT = Path(__file__).resolve().parents[2]

# ruff: noqa: E402
from confidence import risk_figures, split_figures
from confidence_study.calibration_scores import CalibrationScore, draw_reliability, sum_of

K, FREE = OCC3D_COARSE.n_classes, OCC3D_COARSE.free_id


def scene(seed: int, *, temperature: float) -> SceneCounts:
    """Labels that are right with sigmoid(logit(raw) / temperature)."""
    rng = np.random.default_rng(seed)
    n = 20_000
    logit = rng.uniform(-1, 9, n)
    classes = rng.integers(0, K, n)
    right = rng.random(n) < 1 / (1 + np.exp(-logit / temperature))
    raw = (1 / (1 + np.exp(-logit))).astype(np.float32)
    observed = CalibrationHistogram(K, free_id=FREE)
    observed.update(raw, classes, right)
    free = CalibrationHistogram(len(FREE_PASSES))
    at = classes == FREE
    free.update(raw[at], rng.integers(0, len(FREE_PASSES), at.sum()), right[at])
    return SceneCounts(scene_id=f"s{seed}", observed=observed, free=free)


def scenes(*seeds: int, temperature: float = 2.5) -> list[SceneCounts]:
    return [scene(seed, temperature=temperature) for seed in seeds]


def test_calibration_is_scored_on_other_scenes_and_drawn(tmp_path: Path) -> None:
    tested = scenes(10, 11)
    score = CalibrationScore(scenes(*range(6)), tested, 0, OCC3D_COARSE)
    of = score.to_json()["of"]
    assert set(of) == {"all", "occupied", "free", *OCC3D_COARSE.names}
    assert of["all"]["voxels"] == of["occupied"]["voxels"] + of["free"]["voxels"] == 40_000
    assert of["all"]["raw"]["ECE %"] > 10 > 2 > of["all"]["calibrated"]["ECE %"]
    assert of["all"]["raw"]["Brier"] > of["all"]["calibrated"]["Brier"]

    curves = score.curves("softmax") + score.curves("judge")
    assert [c.name for c in curves] == ["softmax", "softmax, calibrated", "judge, calibrated"]
    draw_reliability({"alone": curves, "refined": curves}, OCC3D_COARSE, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.height > picture.width * 0.8


def test_a_map_that_does_not_hold_elsewhere_is_seen_to_fail() -> None:
    score = CalibrationScore(
        scenes(*range(6), temperature=1.0), scenes(10, temperature=4.0), 0, OCC3D_COARSE
    )
    assert score.to_json()["of"]["all"]["calibrated"]["ECE %"] > 10


def test_free_voxels_with_too_few_rays_are_left_out() -> None:
    all_of_them, some = (sum_of(scenes(1), least)[0] for least in (0, FREE_PASSES[3]))
    free = np.arange(K) == FREE
    assert some[:, free].sum() < all_of_them[:, free].sum()
    np.testing.assert_array_equal(some[:, ~free], all_of_them[:, ~free])


@pytest.mark.parametrize("same", [True, False])
def test_broken_promises_are_counted(same: bool) -> None:
    learnt = scenes(*range(31), temperature=1.0)
    tested = scenes(100, 101, temperature=1.0 if same else 3.0)
    row = risk_figures(learnt, tested, 0, 30, OCC3D_COARSE)["5 %"]
    assert row["refused"] == 0
    for group in ("occupied", "free"):
        assert row[group]["of"] == 20
        assert row[group]["broke"] == (0 if same else 20)
        assert 0 < row[group]["coverage %"] < 100


def test_splits_test_on_the_scenes_not_drawn() -> None:
    alike = scenes(*range(34), temperature=1.0)
    row = split_figures(alike, 0, 30, OCC3D_COARSE)["5 %"]
    assert row["occupied"]["of"] == 100 and row["occupied"]["broke"] == 0
    assert 0.01 < row["occupied"]["error % mean"] <= 5
