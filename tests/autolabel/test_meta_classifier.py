"""A meta classifier: what it sees, that it learns, and that it changes no label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flat_ground import CAR, FREE, GRID, ROAD, Ground, Stub, label, teacher, truth_by
from numpy.typing import NDArray
from torch import Tensor

from autolabel.calibration.fit import Calibrated, calibrate, fit_classifiers
from autolabel.confidence.calibration import Calibration
from autolabel.confidence.meta_classifier import (
    BATCH,
    NUMBERS,
    MetaClassifier,
    MetaFit,
    Others,
    TooFewVoxelsError,
    features_of,
)
from autolabel.labeling.config import LabelingConfig
from autolabel.refinement.kernels import SURFACE
from autolabel.refinement.temporal_fusion import PASS_EDGES, Pooled
from datasets.geometry.grid import VoxelGrid
from datasets.loading.targets import GroundTruthTargets
from datasets.model_inputs import ModelInputs
from models.inference.predictor import OccupancyPredictor

SMALL = VoxelGrid(min_m=(-2.0, -1.5, 0.0), size_m=(0.5, 0.5, 0.5), shape=(8, 6, 4))
SCENES = ["s1", "s2", "s3", "s4", "s5"]


def seen(**values: Any) -> NDArray[np.float32]:
    """Features of all voxels of a small grid."""
    rng = np.random.default_rng(0)
    shape = SMALL.shape
    given: dict[str, Any] = {
        "semantics": rng.integers(0, 3, shape).astype(np.uint8),
        "raw": rng.uniform(0.2, 1.0, shape).astype(np.float32),
        "hits": rng.integers(0, 4, shape).astype(np.uint8),
        "passes": rng.integers(0, 9, shape).astype(np.uint8),
        "others": None,
        "voxels": np.arange(SMALL.n_voxels),
    }
    return features_of(*(given | values).values(), SMALL, n_classes=3, free_id=2)


def column(features: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return features[:, NUMBERS.index(name)].reshape(SMALL.shape)


def test_what_is_around_a_voxel_is_counted_inside_the_grid_and_without_itself() -> None:
    rng = np.random.default_rng(1)
    semantics = rng.integers(0, 3, SMALL.shape).astype(np.uint8)
    raw = rng.uniform(0.2, 0.99, SMALL.shape).astype(np.float32)
    found = seen(semantics=semantics, raw=raw)
    odds = np.log(raw / (1 - raw))
    for x, y, z in ((0, 0, 0), (3, 2, 1), (7, 5, 3), (4, 0, 2)):
        box = tuple(slice(max(0, c - 1), c + 2) for c in (x, y, z))
        here = np.zeros(SMALL.shape, bool)
        here[box] = True
        here[x, y, z] = False
        expected = {
            "same class around": (semantics[here] == semantics[x, y, z]).mean(),
            "free around": (semantics[here] == 2).mean(),
            "mean log odds around": odds[here].mean(),
            "least log odds around": odds[here].min(),
        }
        for name, value in expected.items():
            assert column(found, name)[x, y, z] == pytest.approx(value, abs=1e-5), name


def test_features_of_some_voxels_are_those_among_all() -> None:
    some = np.array([3, 17, 100, 190])
    np.testing.assert_array_equal(seen(voxels=some), seen()[some])


def test_features_name_place_rays_and_class() -> None:
    passes = np.full(SMALL.shape, 6, np.uint8)
    found = seen(passes=passes)
    np.testing.assert_allclose(column(found, "passes"), np.log(7), rtol=1e-6)
    np.testing.assert_allclose(column(found, "height")[0, 0], [0.25, 0.75, 1.25, 1.75])
    expected = np.hypot(-2.0 + 0.25, -1.5 + 0.25) / 10
    np.testing.assert_allclose(column(found, "distance")[0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[:, len(NUMBERS) :].sum(1), 1)


def test_a_frame_on_its_own_is_all_there_is_and_others_are_looked_up_per_class() -> None:
    alone = seen()
    for name in ("log odds of the frame", "log odds of near frames", "log odds of far frames"):
        np.testing.assert_array_equal(column(alone, name), column(alone, "log odds"))
    assert not column(alone, "hits of others").any()

    n = SMALL.n_voxels
    semantics = np.zeros(SMALL.shape, np.uint8)
    semantics[1, 1, 1] = 1
    p = np.tile(np.float32([0.7, 0.2, 0.1]), (n, 1))
    pooled = Pooled(
        own=np.log(p),
        near=np.log(p[:, ::-1]),
        far=np.log(p),
        self_only=np.zeros(n, bool),
        own_bin=np.zeros(n, np.intp),
        other_bin=np.full(n, 2 * (len(PASS_EDGES) + 1) + 3),
        surface=np.zeros((n, 2 * SURFACE), np.float32),
    )
    found = seen(semantics=semantics, others=Others.of(pooled, semantics))
    own, near = (column(found, f"log odds of {which}") for which in ("the frame", "near frames"))
    assert own[0, 0, 0] == pytest.approx(np.log(0.7 / 0.3), abs=2e-3)
    assert near[0, 0, 0] == pytest.approx(np.log(0.1 / 0.9), abs=2e-3)
    assert own[1, 1, 1] == near[1, 1, 1] == pytest.approx(np.log(0.2 / 0.8), abs=2e-3)
    assert (column(found, "hits of others") == 2).all()
    assert (column(found, "passes of others") == 3).all()


def learning(frames: int = 6) -> MetaFit:
    """Labels with the same softmax everywhere, right where their surroundings agree."""
    rng = np.random.default_rng(0)
    fit = MetaFit(3, 2)
    for _ in range(frames):
        n = 1000
        features = rng.normal(size=(n, len(NUMBERS) + 3)).astype(np.float32)
        features[:, 0] = 1.0
        features[:, NUMBERS.index("same class around")] = rng.uniform(size=n)
        features[:, -3:] = np.eye(3)[rng.integers(0, 3, n)]
        right = rng.uniform(size=n) < features[:, NUMBERS.index("same class around")]
        fit.update(features, right)
    return fit


def test_it_learns_chances_that_the_softmax_does_not_tell() -> None:
    fit = learning(12)
    classifier = fit.fit(range(10))
    features, right = np.concatenate(fit.features[10:]), np.concatenate(fit.right[10:])
    chance = features[:, NUMBERS.index("same class around")]
    p = classifier.p_right(features)
    assert np.corrcoef(p, chance)[0, 1] > 0.95
    assert ((p - right) ** 2).mean() < ((chance.mean() - right) ** 2).mean() - 0.05
    assert classifier.voxels == 10_000


def test_it_learns_the_same_every_time_and_survives_a_file() -> None:
    classifier = learning().fit()
    again = MetaClassifier.from_json(json.loads(json.dumps(classifier.to_json())))
    features = learning().features[0]
    np.testing.assert_array_equal(again.p_right(features), classifier.p_right(features))
    np.testing.assert_array_equal(learning().fit().p_right(features), classifier.p_right(features))
    assert again.to_json() == classifier.to_json()
    assert not len(classifier.p_right(features[:0]))


def test_too_little_to_learn_from_is_said() -> None:
    fit = MetaFit(3, 2)
    with pytest.raises(TooFewVoxelsError, match=f"0 voxels are known, {BATCH} are needed"):
        fit.fit()


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"numbers": ["log odds"]}, "sees other features"),
        ({"mean": [0.0]}, "do not fit each other"),
        ({"layers": []}, "do not fit each other"),
        ({"classes": 4}, "do not fit each other"),
        ({"scale": [0.0] * (len(NUMBERS) + 3)}, "scales positive"),
        ({"mean": [float("nan")] * (len(NUMBERS) + 3)}, "must be finite"),
    ],
)
def test_a_damaged_judge_is_refused(values: dict[str, Any], rule: str) -> None:
    good = learning().fit().to_json()
    with pytest.raises(ValueError, match=rule):
        MetaClassifier.from_json(good | values)


def test_a_judge_of_other_classes_is_refused() -> None:
    classifier = learning().fit()
    with pytest.raises(ValueError, match="3 classes for 18"):
        replace(Calibration.uncalibrated(18), meta=classifier)


def test_voxels_are_drawn_per_group_and_only_known_ones() -> None:
    semantics = np.full((20, 20, 10), 2, np.uint8)
    semantics[:, :, :2] = 0
    known = np.zeros(semantics.shape, bool)
    known[:, :10] = True
    drawn = MetaFit(3, 2, per_frame=90).draw(semantics, known)
    assert known.ravel()[drawn].all() and len(np.unique(drawn)) == len(drawn)
    occupied = semantics.ravel()[drawn] == 0
    assert (occupied.sum(), (~occupied).sum()) == (90, 30)


def truth_of(folder: Path, log: Ground, odd: int = ROAD) -> GroundTruthTargets:
    """The road is right but for the scenes' left half, where it is free; ``s2`` may be another."""

    def semantics_of(scene: str) -> NDArray[np.uint8]:
        semantics = np.full(GRID.shape, FREE, np.uint8)
        semantics[:, :, :2] = odd if scene == "s2" else ROAD
        semantics[:, 20:, :2] = FREE
        return semantics

    return truth_by(semantics_of, folder, log, SCENES)


def test_what_judges_a_scene_was_learnt_without_it(tmp_path: Path) -> None:
    log, model = Ground(frames=1), teacher()
    by = OccupancyPredictor(model.module, model.preset)

    def learnt(odd: int) -> Any:
        return fit_classifiers(by, log, truth_of(tmp_path, log, odd), SCENES, LabelingConfig())

    usual, other = learnt(ROAD), learnt(CAR)
    assert other.on_all.to_json() != usual.on_all.to_json()
    assert other.held_out["s2"].to_json() == usual.held_out["s2"].to_json()
    assert all(
        other.held_out[s].to_json() != usual.held_out[s].to_json() for s in SCENES if s != "s2"
    )
    few = fit_classifiers(by, log, truth_of(tmp_path, log), SCENES[:2], LabelingConfig())
    assert few is None


class Doubting(Stub):
    """Less sure of the left half, where it is wrong."""

    def forward(self, inputs: ModelInputs) -> Tensor:
        logits = super().forward(inputs)
        logits[:, :, 20:] *= 0.5
        return logits


def calibrated(folder: Path, module: Stub | None = None) -> Calibrated:
    log, model = Ground(frames=1), teacher(module)
    by = OccupancyPredictor(model.module, model.preset)
    return calibrate(by, log, truth_of(folder, log), SCENES, LabelingConfig(), kind="test")


def test_the_judge_is_kept_for_its_score_and_changes_confidence_alone(tmp_path: Path) -> None:
    found = calibrated(tmp_path).calibration
    assert found.meta is not None  # what it sees tells more than one softmax value
    losses = {
        meta: [c.log_loss for c in found.method_scores if c.meta == meta] for meta in (True, False)
    }
    assert len(losses[True]) == len(losses[False]) and min(losses[True]) < min(losses[False])
    assert "meta classifier" in found.summary()
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json() and again.method_scores[-1].meta

    with_it, without = label(calibration=again), label(calibration=replace(again, meta=None))
    np.testing.assert_array_equal(with_it.semantics, without.semantics)
    assert (with_it.confidence != without.confidence).any()


def test_a_judge_that_knows_no_better_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MetaClassifier, "p_right", lambda self, features: np.full(len(features), 0.5, np.float32)
    )
    found = calibrated(tmp_path, Doubting()).calibration
    assert found.meta is None and any(c.meta for c in found.method_scores)
    assert "meta classifier" not in found.summary()
