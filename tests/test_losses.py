"""The masked cross-entropy: worked values, the mask, the ignore id."""

from __future__ import annotations

import pytest
import torch

from models.losses import voxel_cross_entropy

LOGITS = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 1, 1]])
LABELS = torch.tensor([0, 1, 2, 2])


def test_worked_values_of_the_published_losses() -> None:
    assert voxel_cross_entropy(LOGITS, LABELS).item() == pytest.approx(0.395157, abs=1e-6)
    weighted = voxel_cross_entropy(LOGITS, LABELS, class_weights=torch.tensor([1.0, 2.0, 0.5]))
    assert weighted.item() == pytest.approx(0.317351, abs=1e-6)


def test_masked_and_ignored_voxels_do_not_count() -> None:
    mask = torch.tensor([True, True, False, True])
    expected = voxel_cross_entropy(LOGITS[mask], LABELS[mask])
    assert torch.equal(voxel_cross_entropy(LOGITS, LABELS, mask), expected)
    ignored = LABELS.masked_fill(~mask, 255).to(torch.uint8)
    assert torch.equal(voxel_cross_entropy(LOGITS, ignored), expected)
    weights = torch.ones(3)
    assert torch.equal(voxel_cross_entropy(LOGITS, ignored, class_weights=weights), expected)


def test_a_weight_counts_like_that_many_voxels() -> None:
    twice = voxel_cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 1, 1, 2]))
    rows = torch.tensor([0, 1, 2, 3, 3])
    torch.testing.assert_close(twice, voxel_cross_entropy(LOGITS[rows], LABELS[rows]))


def test_voxel_grids_and_sampled_columns_have_the_same_meaning() -> None:
    logits, labels = LOGITS.view(1, 2, 2, 3), LABELS.view(1, 2, 2)
    assert torch.equal(voxel_cross_entropy(logits, labels), voxel_cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("labels", [torch.full((4,), 255), LABELS])
def test_nothing_to_learn_from_is_zero_with_zero_gradients(labels: torch.Tensor) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = voxel_cross_entropy(logits, labels, torch.zeros(4))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="one label and weight per voxel"):
        voxel_cross_entropy(LOGITS, LABELS[:3])
    with pytest.raises(ValueError, match="one label and weight per voxel"):
        voxel_cross_entropy(LOGITS, LABELS, torch.ones(4, 1))
