"""Calibrated confidence: what it promises about P(label is right)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autolabel.confidence.calibration import (
    BIN_CENTRES,
    LEVELS,
    N_BINS,
    Calibration,
    CalibrationHistogram,
    _scored,
    bin_of,
)
from datasets.metrics.calibration import calibration_error

FREE = 2


def overconfident(
    n: int, seed: int, *, temperature: float = 3.0, k: int = 3
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Samples whose true P(right) is sigmoid(logit(raw) / temperature)."""
    rng = np.random.default_rng(seed)
    logit = rng.uniform(-1, 10, n)
    raw = 1 / (1 + np.exp(-logit))
    right = rng.random(n) < 1 / (1 + np.exp(-logit / temperature))
    return raw.astype(np.float32), rng.integers(0, k, n), right


def histogram(*samples: tuple[Any, Any, Any], k: int = 3) -> CalibrationHistogram:
    out = CalibrationHistogram(k, free_id=FREE)
    for s in samples:
        out.update(*s)
    return out


def test_an_overconfident_network_is_corrected_on_unseen_samples() -> None:
    calibration = histogram(overconfident(200_000, 0)).fit()
    seen, right = histogram(overconfident(200_000, 1)).by_ring()
    before = np.broadcast_to(BIN_CENTRES, seen.shape)
    after = np.broadcast_to(np.asarray(calibration.levels)[calibration.table], seen.shape)
    assert seen.sum() == 200_000
    assert calibration_error(before, seen, right) > 0.12
    assert calibration_error(after, seen, right) < 0.005  # sampling noise
    for k in range(seen.shape[1]):
        assert calibration_error(after[:, k], seen[:, k], right[:, k]) < 0.01


def test_a_level_is_worth_what_it_turns_out_to_be_on_unseen_samples() -> None:
    calibration = histogram(overconfident(200_000, 0)).fit()
    raw, predicted, right = overconfident(200_000, 1)
    level = calibration.levels_of(raw, predicted)
    for i in np.unique(level):
        chosen = right[level == i]
        worth = calibration.levels[i]
        assert chosen.mean() == pytest.approx(worth, abs=4 * np.sqrt(0.5 / len(chosen)) + 2e-3), i


def test_what_no_voxel_got_is_worth_the_middle_of_its_level_and_nothing_known_is_worth_0() -> None:
    sure = (np.full(1000, 0.9999, np.float32), np.zeros(1000, int), np.ones(1000, bool))
    levels = histogram(sure).fit().levels
    assert levels[0] == 0
    assert all(a <= v < b for a, v, b in zip(LEVELS[1:], levels[1:], (*LEVELS[2:], 1), strict=True))


def test_classes_get_their_own_maps() -> None:
    n = 50_000
    good, bad = overconfident(n, 0, temperature=1.0), overconfident(n, 1, temperature=10.0)
    calibration = histogram(
        (good[0], np.zeros(n, int), good[2]), (bad[0], np.ones(n, int), bad[2])
    ).fit()
    raw = np.array([0.99, 0.99], np.float32)
    a, b = np.asarray(LEVELS)[calibration.levels_of(raw, np.array([0, 1]))]
    assert a >= 0.96
    assert b <= 0.7


def test_a_rare_class_leans_on_its_group_and_not_on_free_space() -> None:
    n = 100_000
    occupied = overconfident(n, 0, temperature=6.0)
    free = overconfident(n, 1, temperature=1.0)
    lucky = (np.full(3, 0.999, np.float32), np.ones(3, int), np.ones(3, bool))
    calibration = histogram(
        (occupied[0], np.zeros(n, int), occupied[2]), (free[0], np.full(n, FREE), free[2]), lucky
    ).fit()
    np.testing.assert_allclose(  # three lucky voxels move it by a level at most
        calibration.table[0, 1].astype(int), calibration.table[0, 0].astype(int), atol=1
    )
    sure = bin_of(np.array([0.99]))[0]
    assert LEVELS[calibration.table[0, FREE, sure]] >= 0.96 > LEVELS[calibration.table[0, 1, sure]]


def test_many_samples_of_a_rare_class_overrule_its_group() -> None:
    n = 100_000
    occupied = overconfident(n, 0, temperature=1.0)
    poor = overconfident(5_000, 2, temperature=100.0)  # about one half, whatever it says
    calibration = histogram(
        (occupied[0], np.zeros(n, int), occupied[2]), (poor[0], np.ones(5_000, int), poor[2])
    ).fit()
    level = calibration.levels_of(np.array([0.999], np.float32), np.array([1]))
    assert LEVELS[level[0]] <= 0.6


def test_nothing_seen_promises_no_more_than_one_half() -> None:
    calibration = CalibrationHistogram(3, free_id=FREE).fit()
    assert not calibration.is_measured
    assert max(LEVELS[i] for i in np.unique(calibration.table)) <= 0.5


def test_five_right_voxels_are_no_certainty() -> None:
    few = (np.full(5, 0.99999, np.float32), np.zeros(5, int), np.ones(5, bool))
    calibration = histogram(few).fit()
    assert max(LEVELS[i] for i in np.unique(calibration.table)) <= 0.6


def test_merged_parts_equal_the_whole() -> None:
    parts = [overconfident(1_000, i) for i in range(3)]
    merged = histogram(parts[0])
    merged.merge(histogram(*parts[1:]))
    whole = histogram(*parts)
    np.testing.assert_array_equal(merged.seen, whole.seen)
    np.testing.assert_array_equal(merged.fit().table, whole.fit().table)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3_000), st.floats(0.2, 50.0))
def test_maps_rise_and_survive_json(seed: int, n: int, temperature: float) -> None:
    calibration = histogram(overconfident(n, seed, temperature=temperature)).fit()
    assert (np.diff(calibration.table.astype(int), axis=-1) >= 0).all()
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    np.testing.assert_array_equal(again.table, calibration.table)
    assert again.counts == calibration.counts
    assert again.levels == calibration.levels


def test_uncalibrated_takes_the_softmax_at_its_word_rounded_down() -> None:
    calibration = Calibration.uncalibrated(3)
    raw = np.random.default_rng(0).random(10_000).astype(np.float32)
    got = np.asarray(LEVELS)[calibration.levels_of(raw, np.zeros(10_000, int))]
    assert (got <= raw).all()
    assert not calibration.is_measured


def test_bins_cover_every_confidence_in_order() -> None:
    p = np.linspace(0, 1, 100_001, dtype=np.float32)
    bins = bin_of(p)
    assert bins[0] == 0
    assert bins[-1] == N_BINS - 1
    assert (np.diff(bins) >= 0).all()


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        bin_of(np.array([value]))


def test_damaged_json_is_refused() -> None:
    data = Calibration.uncalibrated(3).to_json()
    with pytest.raises(ValueError, match="bins"):
        Calibration.from_json(data | {"bins": {"n": 10}})
    with pytest.raises(ValueError, match="rises"):
        Calibration.from_json(data | {"rises": [[1, 2]]})
    with pytest.raises(ValueError, match="table"):
        Calibration.from_json(data | {"counts": [0]})
    with pytest.raises(ValueError, match="negative"):
        Calibration.from_json(data | {"free_passes": -1})
    with pytest.raises(KeyError):
        Calibration.from_json({})


def test_free_and_occupied_voxels_count_one_half_each_in_a_methods_scores() -> None:
    sure = np.float32(0.9)
    part = histogram(
        (np.full(9000, sure), np.full(9000, FREE), np.ones(9000, bool)),
        (np.full(10, sure), np.zeros(10, int), np.zeros(10, bool)),
    )
    found = _scored("class", [(np.full(part.by_ring()[0].shape, 0.9), part)])
    assert found.log_loss == pytest.approx((-np.log(0.9) - np.log(0.1)) / 2)
    assert found.brier == pytest.approx((0.1**2 + 0.9**2) / 2)
