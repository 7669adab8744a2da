"""mIoU: the worked examples of the protocol, and its merging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.metrics.confusion import ConfusionMatrix, ScoreTable
from datasets.taxonomy import OCC3D_NUSCENES

SEMANTIC = OCC3D_NUSCENES.semantic_ids


def matrix(truth: list[int], predicted: list[int], mask: list[int] | None = None) -> float:
    m = ConfusionMatrix(18)
    m.update(
        np.array(truth, np.uint8),
        np.array(predicted, np.uint8),
        None if mask is None else np.array(mask, bool),
    )
    return m.miou(SEMANTIC)


def test_worked_example_with_and_without_mask() -> None:
    truth = [0, 0, 4, 4, 11, 11, 17, 17, 17, 13]
    predicted = [0, 4, 4, 4, 11, 17, 17, 17, 11, 13]
    assert matrix(truth, predicted, [1] * 9 + [0]) == pytest.approx(0.5)
    assert matrix(truth, predicted) == pytest.approx(0.625)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    assert matrix([4, 4, 17, 17], [4, 4, 17, 7]) == pytest.approx(0.5)


def test_ignored_truth_does_not_count() -> None:
    assert matrix([4, 255], [4, 7]) == pytest.approx(1.0)


def test_nothing_scored_is_not_a_zero() -> None:
    assert np.isnan(matrix([17], [17]))


def test_a_prediction_outside_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="200"):
        matrix([4], [200])


@given(st.lists(st.tuples(st.integers(0, 17), st.integers(0, 17)), min_size=2, max_size=50))
def test_parts_merge_to_the_whole(pairs: list[tuple[int, int]]) -> None:
    array = np.array(pairs, np.uint8)
    whole, left, right = (ConfusionMatrix(18) for _ in range(3))
    whole.update(array[:, 0], array[:, 1])
    half = len(array) // 2
    left.update(array[:half, 0], array[:half, 1])
    right.update(array[half:, 0], array[half:, 1])
    left.merge(right)
    assert (left.counts == whole.counts).all()


def test_the_table_names_its_masks() -> None:
    m = ConfusionMatrix(18)
    m.update(np.array([4, 17], np.uint8), np.array([4, 17], np.uint8))
    table = ScoreTable(taxonomy=OCC3D_NUSCENES, matrices={"camera-visible": m, "all": m})
    assert "IoU[camera-visible]" in str(table)
    scores = table.to_json()
    assert scores["mIoU[all]"] == 100.0
    assert scores["IoU[all]"]["barrier"] is None  # type: ignore[index]
