"""Promises about wrong labels: kept as often as stated, refused where the evidence is too thin."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from autolabel.confidence.risk_control import NEVER, CalibrationCounts, _p_value, control_risk
from datasets.errors import SetupError
from datasets.labels.calibration_record import RiskBound, Test

LEVELS = (0.0, 0.5, 0.8, 0.9, 0.96, 0.99)
P = np.array([0.3, 0.6, 0.85, 0.93, 0.975, 0.995])
FREE = 2
GROUPS = {"vehicles": (0,), "ground": (1,), "free": (FREE,)}


def drawn(n_scenes: int, seed: int, *, scatter: float = 1.0) -> CalibrationCounts:
    """Scenes whose odds of being wrong differ: what a level claims holds for their mean only."""
    rng = np.random.default_rng(seed)
    harder = rng.gamma(1 / scatter, scatter, (n_scenes, 1, 1, 1))  # mean 1
    seen = rng.poisson(2000, (n_scenes, 2, 3, len(LEVELS)))
    wrong = rng.binomial(seen, np.minimum((1 - P) * harder, 1))
    ids = tuple(f"s{k}" for k in range(n_scenes))
    return CalibrationCounts(scene_ids=ids, seen=seen, right=seen - wrong, free_id=FREE)


def true_error(level: int) -> float:
    return float(1 - P[level:].mean())


@pytest.mark.parametrize("max_error", [0.02, 0.05])
def test_a_promise_breaks_no_more_often_than_stated(max_error: float) -> None:
    broke = {"vehicles": 0, "ground": 0, "free": 0}
    n = 200
    for seed in range(n):
        try:
            made = control_risk(
                drawn(30, seed), LEVELS, GROUPS, max_error=max_error, confidence=0.9
            )
        except SetupError:
            continue
        for group, (k,) in GROUPS.items():
            level = made.thresholds[k]
            broke[group] += level != NEVER and true_error(level) > max_error
    # 10 % are allowed; 3.4 standard deviations of a count above it
    assert max(broke.values()) <= 0.1 * n + 3.4 * np.sqrt(0.09 * n)


def test_a_promise_keeps_what_it_can() -> None:
    made = control_risk(drawn(200, 0, scatter=0.1), LEVELS, GROUPS, max_error=0.06, confidence=0.9)
    best = min(k for k in range(len(LEVELS)) if true_error(k) <= 0.06)
    assert made.thresholds == (best, best, best)
    group = made.groups["vehicles"]
    assert group.threshold == LEVELS[best]
    assert group.coverage == pytest.approx((len(LEVELS) - best) / len(LEVELS), abs=0.02)
    assert len(group.coverage_by_ring) == 2
    text = made.to_text(("car", "road", "free"))
    assert "at most 6 %" in text and "road" in text and "kept" in text
    again = RiskBound.from_json(json.loads(json.dumps(made.to_json())))
    assert again.thresholds == made.thresholds and again.to_json() == made.to_json()


def test_a_group_that_cannot_be_promised_is_not_trusted_and_named() -> None:
    evidence = drawn(40, 3, scatter=0.1)
    right = evidence.right.copy()
    right[:, :, 0] = evidence.seen[:, :, 0] // 2
    mixed = CalibrationCounts(
        scene_ids=evidence.scene_ids, seen=evidence.seen, right=right, free_id=FREE
    )
    made = control_risk(mixed, LEVELS, GROUPS, max_error=0.06, confidence=0.9)
    assert made.thresholds[0] == NEVER and made.thresholds[1] < NEVER
    group = made.groups["vehicles"]
    assert group.error is None and group.coverage == 0 and "cannot be kept" in group.refused
    text = made.to_text(("car", "road", "free"))
    assert "vehicles: no label is trusted" in text
    assert "practically nothing is kept of car (0 %)" in text
    again = RiskBound.from_json(json.loads(json.dumps(made.to_json())))
    assert again.groups["vehicles"].refused == group.refused


def test_each_group_may_have_its_own_share() -> None:
    counts = drawn(100, 5, scatter=0.1)
    shares = {"vehicles": 0.2, "ground": 0.04, "free": 0.04}
    made = control_risk(counts, LEVELS, GROUPS, max_error=shares)
    assert made.thresholds[0] < made.thresholds[1]
    assert made.groups["vehicles"].max_error == 0.2 and made.max_error == 0.2
    with pytest.raises(ValueError, match="for the groups"):
        control_risk(counts, LEVELS, GROUPS, max_error={"vehicles": 0.1})


def test_all_occupied_voxels_together_keep_the_bound_too() -> None:
    """Two groups that each just pass, and are bad on the same scenes."""
    rng = np.random.default_rng(0)
    seen = np.full((12, 1, 3, 1), 1000)
    bad = rng.permutation(12)[:2]
    wrong = np.zeros_like(seen)
    wrong[bad] = 60
    counts = CalibrationCounts(
        scene_ids=tuple(map(str, range(12))), seen=seen, right=seen - wrong, free_id=FREE
    )
    made = control_risk(counts, (0.9,), GROUPS, max_error=0.05)
    assert made.groups["occupied"].error == pytest.approx(0.01)
    assert made.groups["occupied"].max_error == 0.05


def test_occupied_voxels_are_not_drowned_by_easy_free_ones() -> None:
    evidence = drawn(40, 3, scatter=0.1)
    seen, right = evidence.seen.copy(), evidence.right.copy()
    seen[:, :, FREE] *= 100
    right[:, :, FREE] = seen[:, :, FREE]  # free is never wrong, and nine in ten
    mixed = CalibrationCounts(scene_ids=evidence.scene_ids, seen=seen, right=right, free_id=FREE)
    made = control_risk(mixed, LEVELS, GROUPS, max_error=0.06, confidence=0.9)
    assert made.thresholds[FREE] == 0
    occupied = made.groups["occupied"].error
    assert occupied is not None and occupied <= 0.06
    assert made.thresholds[0] > 0


@pytest.mark.parametrize(
    ("max_error", "test", "n_scenes", "needed"),
    [
        (0.3, "t", 3, "at least 8"),  # fewer are no sample
        (0.02, "t", 27, "at least 28"),  # of 28, one in 12.5 would be missed in 10 of 100 draws
        (0.02, "exact", 40, "at least 114"),
    ],
)
def test_too_few_scenes_are_refused_with_the_number_needed(
    max_error: float, test: Test, n_scenes: int, needed: str
) -> None:
    with pytest.raises(SetupError, match=f"{n_scenes} calibration scenes are too few, {needed}"):
        control_risk(
            drawn(n_scenes, 0), LEVELS, GROUPS, max_error=max_error, confidence=0.9, test=test
        )


def test_noisy_evidence_is_refused_with_about_the_number_needed() -> None:
    with pytest.raises(SetupError, match=r"about \d+ calibration scenes are needed"):
        control_risk(drawn(28, 4, scatter=9.0), LEVELS, GROUPS, max_error=0.02, confidence=0.9)


def test_a_teacher_that_is_never_sure_enough_is_told_so() -> None:
    evidence = drawn(30, 0)
    hopeless = CalibrationCounts(
        scene_ids=evidence.scene_ids, seen=evidence.seen, right=evidence.seen // 2, free_id=FREE
    )
    with pytest.raises(SetupError, match="a better teacher is needed"):
        control_risk(hopeless, LEVELS, GROUPS, max_error=0.05)


def test_the_exact_test_holds_with_many_scenes() -> None:
    made = control_risk(
        drawn(300, 1, scatter=0.1), LEVELS, GROUPS, max_error=0.05, confidence=0.9, test="exact"
    )
    assert true_error(made.thresholds[0]) <= 0.05


def test_evidence_survives_json_and_is_taken_apart_by_scene() -> None:
    evidence = drawn(5, 0)
    again = CalibrationCounts.from_json(json.loads(json.dumps(evidence.to_json())))
    np.testing.assert_array_equal(again.seen, evidence.seen)
    np.testing.assert_array_equal(again.right, evidence.right)
    part = evidence.part([3, 3])
    assert part.scene_ids == ("s3", "s3")
    np.testing.assert_array_equal(part.seen[1], evidence.seen[3])


def test_evidence_with_more_right_than_there_are_is_refused() -> None:
    evidence = drawn(2, 0)
    with pytest.raises(ValueError, match="more voxels are right"):
        CalibrationCounts(
            scene_ids=evidence.scene_ids, seen=evidence.right, right=evidence.seen, free_id=FREE
        )
    assert len(LEVELS) < NEVER


@pytest.mark.parametrize(("max_error", "n_scenes"), [(0.01, 57), (0.02, 28), (0.05, 11)])
def test_scenes_bad_enough_to_break_it_are_not_overlooked(max_error: float, n_scenes: int) -> None:
    """Scenes with a quarter of the voxels wrong, as frequent as breaks the promise; the others are
    without fault."""
    rng = np.random.default_rng(0)
    made = 0
    for _ in range(400):
        evidence = drawn(n_scenes, 0)
        bad = rng.random(n_scenes) < 1.05 * max_error / 0.25
        right = evidence.seen.copy()
        right[bad] = right[bad] * 3 // 4
        flawed = CalibrationCounts(
            scene_ids=evidence.scene_ids, seen=evidence.seen, right=right, free_id=FREE
        )
        try:
            control_risk(flawed, LEVELS, GROUPS, max_error=max_error, confidence=0.9)
            made += 1
        except SetupError:
            pass
    assert made <= 400 * 0.1 + 3 * np.sqrt(400 * 0.09)


def test_a_scene_as_bad_as_the_worst_is_reckoned_with() -> None:
    evidence = drawn(30, 0)
    right = evidence.seen.copy()
    right[0] = right[0] * 3 // 4  # 0.83 % of all: with one more such scene 1.6 %
    flawed = CalibrationCounts(
        scene_ids=evidence.scene_ids, seen=evidence.seen, right=right, free_id=FREE
    )
    with pytest.raises(SetupError, match="calibration scenes are needed"):
        control_risk(flawed, LEVELS, GROUPS, max_error=0.02, confidence=0.9)
    control_risk(flawed, LEVELS, GROUPS, max_error=0.05, confidence=0.9)


def test_the_t_test_is_halls_corrected_for_skewness() -> None:
    """Against the closed form of his cubic (Hall 1992), with the scene that is added."""
    rng = np.random.default_rng(0)
    taken = np.full(40, 1000)
    wrong = rng.binomial(taken, 0.02 * rng.gamma(0.5, 2.0, 40).clip(0, 10))
    allowed = 0.03
    excess = np.append(wrong - allowed * taken, (wrong.max() / 1000 - allowed) * 1000)
    n, s = len(excess), excess.mean() / excess.std(ddof=1)
    skew = ((excess - excess.mean()) ** 3).mean() / excess.std(ddof=1) ** 3
    cubic = ((1 + skew * s / 3) ** 3 - 1) / skew + skew / (6 * n)
    expected = stats.t.cdf(np.sqrt(n) * cubic, n - 1)
    plain = stats.t.cdf(np.sqrt(n) * s, n - 1)
    assert _p_value(wrong, taken, allowed, "t") == pytest.approx(expected, rel=1e-9)
    assert expected > 1.2 * plain, "heavy scenes make it harder to promise"
