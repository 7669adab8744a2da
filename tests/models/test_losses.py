"""The losses: worked values, slow versions to compare with, masks, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from models.training.losses import (
    flow_loss,
    four_losses,
    geo_scal,
    log_frequency_weights,
    lovasz_softmax,
    ohem_cross_entropy,
    sem_scal,
    voxel_cross_entropy,
)

LOGITS = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 1, 1]])
LABELS = torch.tensor([0, 1, 2, 2])
EMPTY = 2
Loss = Callable[..., Tensor]


def geo_of_empty_2(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    return geo_scal(logits, labels, weight, empty=EMPTY)


def sum_of_four(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    return torch.stack(list(four_losses(logits, labels, weight, empty=EMPTY).values())).sum()


AFFINITIES = [geo_of_empty_2, sem_scal, lovasz_softmax]
LOSSES: list[Loss] = [voxel_cross_entropy, ohem_cross_entropy, *AFFINITIES, sum_of_four]


def random_voxels(seed: int, shape: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels of which a fifth are 255, and a mask that drops another fifth."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*shape, classes, generator=generator)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.2] = 255
    mask = torch.rand(shape, generator=generator) > 0.2
    return logits, labels.to(torch.uint8), mask


# --- worked values


def test_worked_values_of_the_published_losses() -> None:
    assert voxel_cross_entropy(LOGITS, LABELS).item() == pytest.approx(0.395157, abs=1e-6)
    weighted = voxel_cross_entropy(LOGITS, LABELS, class_weights=torch.tensor([1.0, 2.0, 0.5]))
    assert weighted.item() == pytest.approx(0.317351, abs=1e-6)
    assert geo_scal(LOGITS, LABELS, empty=2).item() == pytest.approx(0.982092, abs=1e-6)
    assert sem_scal(LOGITS, LABELS).item() == pytest.approx(0.867276, abs=1e-6)
    assert lovasz_softmax(LOGITS, LABELS).item() == pytest.approx(0.308676, abs=1e-6)
    mask = torch.tensor([True, True, False, True])
    assert ohem_cross_entropy(LOGITS, LABELS, mask).item() == pytest.approx(3.783250, abs=1e-6)


def test_the_geometric_loss_is_made_of_precision_recall_and_specificity() -> None:
    shares = (0.693251, 0.893489, 0.604649)
    expected = -sum(math.log(s) for s in shares)
    assert geo_scal(LOGITS, LABELS, empty=2).item() == pytest.approx(expected, abs=5e-6)


def test_lovasz_averages_over_the_classes_present() -> None:
    parts = (0.213014, 0.317666, 0.395348)
    assert lovasz_softmax(LOGITS, LABELS).item() == pytest.approx(sum(parts) / 3, abs=1e-6)
    with_an_absent_class = torch.cat((LOGITS, torch.full((4, 1), -40.0)), dim=1)
    assert lovasz_softmax(with_an_absent_class, LABELS).item() == pytest.approx(
        sum(parts) / 3, abs=1e-6
    )


def test_the_four_losses_are_these_four() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5])
    losses = four_losses(LOGITS, LABELS, empty=2, class_weights=weights)
    assert {name: round(loss.item(), 5) for name, loss in losses.items()} == {
        "cross_entropy": 0.31735,
        "sem_scal": 0.86728,
        "geo_scal": 0.98209,
        "lovasz": 0.30868,
    }


def test_class_weights_of_the_printed_frequencies() -> None:
    occ3d = (
        "944004 1897170 152386 2391677 16957802 724139 189027 2074468 413451 2384460 5916653 "
        "175883646 4275424 51393615 61411620 105975596 116424404 1892500630"
    )
    occ3d_weights = (
        ".07269 .06918 .08379 .06809 .06007 .07411 .08231 .06875 .07733 .06810 .06413 .05267 "
        ".06549 .05632 .05576 .05412 .05384 .04681"
    )
    openoccupancy = (
        "2242961742295 25985376 1561108 28862014 196106643 15920504 2158753 26539491 4004729 "
        "34838681 75173306 2255027978 50959399 646022466 869055679 1446141335 1724391378"
    )
    openoccupancy_weights = (
        ".03516 .05857 .07012 .05821 .05237 .06030 .06856 .05850 .06578 .05758 .05514 .04643 "
        ".05635 .04929 .04858 .04741 .04702"
    )
    for counts, printed in ((occ3d, occ3d_weights), (openoccupancy, openoccupancy_weights)):
        weights = log_frequency_weights(torch.tensor([int(n) for n in counts.split()]))
        expected = torch.tensor([float(w) for w in printed.split()])
        torch.testing.assert_close(weights, expected, atol=6e-6, rtol=0)


def test_a_class_too_rare_for_the_formula_weighs_one_and_nonsense_is_refused() -> None:
    weights = log_frequency_weights(torch.tensor([0, 1, 2, 3, 1000]))
    assert weights[:3].tolist() == [1, 1, 1]
    assert weights.diff().le(0).all() and weights[4] > 0
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            log_frequency_weights(torch.tensor([5.0, bad]))


# --- against slow versions


def rows_of(logits: Tensor, labels: Tensor, mask: Tensor) -> list[tuple[list[float], int]]:
    """(probabilities, label) of every voxel that counts, as plain numbers."""
    p = logits.double().softmax(-1).reshape(-1, logits.shape[-1]).tolist()
    flat = zip(p, labels.flatten().tolist(), mask.flatten().tolist(), strict=True)
    return [(row, y) for row, y, used in flat if used and y != 255]


def minus_logs(shares: Iterable[float]) -> float:
    return -sum(max(math.log(s), -100) for s in shares)


def slow_geo(rows: list[tuple[list[float], int]]) -> float:
    hits = sum(1 - p[EMPTY] for p, y in rows if y != EMPTY)
    claimed = sum(1 - p[EMPTY] for p, _ in rows)
    occupied = sum(y != EMPTY for _, y in rows)
    rejected = sum(p[EMPTY] for p, y in rows if y == EMPTY)
    free = len(rows) - occupied
    eps = 1e-5
    return minus_logs((hits / (claimed + eps), hits / (occupied + eps), rejected / (free + eps)))


def slow_sem(rows: list[tuple[list[float], int]]) -> float:
    present = sorted({y for _, y in rows})
    total = 0.0
    for c in present:
        hits = sum(p[c] for p, y in rows if y == c)
        others = [1 - p[c] for p, y in rows if y != c]
        total += minus_logs(
            (
                hits / sum(p[c] for p, _ in rows),
                hits / sum(y == c for _, y in rows),
                sum(others) / len(others),
            )
        )
    return total / len(present)


def slow_lovasz(rows: list[tuple[list[float], int]]) -> float:
    """The extension as it is defined: errors times what each one more mistake adds to 1 - IoU."""
    present = sorted({y for _, y in rows})
    total = 0.0
    for c in present:
        errors = [abs((y == c) - p[c]) for p, y in rows]
        truth = {i for i, (_, y) in enumerate(rows) if y == c}
        wrong: set[int] = set()
        before = Fraction(0)
        for i in sorted(range(len(rows)), key=lambda i: -errors[i]):
            wrong.add(i)
            after = 1 - Fraction(len(truth - wrong), len(truth | wrong))
            total += errors[i] * float(after - before)
            before = after
    return total / len(present)


def slow_ohem(
    rows: list[tuple[list[float], int]], voxels: int, class_weights: list[float]
) -> float:
    losses = [class_weights[y] * -math.log(p[y]) for p, y in rows]
    losses = sorted(losses + [0.0] * (voxels - len(losses)), reverse=True)
    k = max(int(0.2 * voxels), 1)
    return sum(losses) / voxels + 4 * sum(losses[:k]) / k


@pytest.mark.parametrize("shape", [(1, 7, 4, 1), (2, 3, 5, 2), (9, 4)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_slow_versions_on_odd_shapes(shape: tuple[int, ...], seed: int) -> None:
    logits, labels, mask = random_voxels(seed, shape, 4)
    rows = rows_of(logits, labels, mask)
    assert {y == EMPTY for _, y in rows} == {True, False}
    assert geo_of_empty_2(logits, labels, mask).item() == pytest.approx(slow_geo(rows), rel=1e-5)
    assert sem_scal(logits, labels, mask).item() == pytest.approx(slow_sem(rows), rel=1e-5)
    assert lovasz_softmax(logits, labels, mask).item() == pytest.approx(slow_lovasz(rows), rel=1e-5)
    class_weights = [0.5, 2.0, 1.0, 3.0]
    ohem = ohem_cross_entropy(logits, labels, mask, class_weights=torch.tensor(class_weights))
    expected = slow_ohem(rows, labels.numel(), class_weights)
    assert ohem.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", AFFINITIES)
def test_gradients_are_those_of_finite_differences(loss: Loss) -> None:
    logits, labels, mask = random_voxels(3, (2, 3, 2), 4)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels, mask), logits.double().requires_grad_()
    )


# --- what counts and what does not


def test_masked_and_ignored_voxels_do_not_count() -> None:
    mask = torch.tensor([True, True, False, True])
    expected = voxel_cross_entropy(LOGITS[mask], LABELS[mask])
    assert torch.equal(voxel_cross_entropy(LOGITS, LABELS, mask), expected)
    ignored = LABELS.masked_fill(~mask, 255).to(torch.uint8)
    assert torch.equal(voxel_cross_entropy(LOGITS, ignored), expected)
    weights = torch.ones(3)
    assert torch.equal(voxel_cross_entropy(LOGITS, ignored, class_weights=weights), expected)


@pytest.mark.parametrize("loss", AFFINITIES)
def test_a_mask_is_the_same_as_voxels_left_out_or_set_to_255(loss: Loss) -> None:
    logits, labels, mask = random_voxels(4, (2, 3, 5, 2), 4)
    expected = loss(logits[mask], labels[mask])
    assert torch.equal(loss(logits, labels, mask), expected)
    assert torch.equal(loss(logits, labels.masked_fill(~mask, 255)), expected)
    assert not torch.equal(loss(logits, labels), expected)


def test_hard_mining_divides_by_all_voxels_not_by_the_mask() -> None:
    logits, labels, mask = random_voxels(5, (2, 3, 5, 2), 4)
    set_to_255 = ohem_cross_entropy(logits, labels.masked_fill(~mask, 255))
    assert torch.equal(ohem_cross_entropy(logits, labels, mask), set_to_255)
    assert ohem_cross_entropy(logits[mask], labels[mask]) > set_to_255


def test_a_weight_counts_like_that_many_voxels() -> None:
    twice = voxel_cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 1, 1, 2]))
    rows = torch.tensor([0, 1, 2, 3, 3])
    torch.testing.assert_close(twice, voxel_cross_entropy(LOGITS[rows], LABELS[rows]))


@pytest.mark.parametrize("loss", LOSSES)
def test_voxel_grids_and_sampled_columns_have_the_same_meaning(loss: Loss) -> None:
    logits, labels = LOGITS.view(1, 2, 2, 3), LABELS.view(1, 2, 2)
    assert torch.equal(loss(logits, labels), loss(LOGITS, LABELS))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("voxels", "labels", "weight"),
    [(4, torch.full((4,), 255), torch.ones(4)), (4, LABELS, torch.zeros(4)), (0, LABELS[:0], None)],
)
def test_nothing_to_learn_from_is_zero_with_zero_gradients(
    loss: Loss, voxels: int, labels: Tensor, weight: Tensor | None
) -> None:
    logits = LOGITS[:voxels].clone().requires_grad_()
    value = loss(logits, labels, weight)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("label", [0, EMPTY])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_gradients_stay_finite_with_one_class_alone_and_with_hopeless_logits(
    loss: Loss, label: int, scale: float
) -> None:
    logits = (LOGITS * scale).requires_grad_()
    value = loss(logits, torch.full((4,), label))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_a_scene_without_occupied_or_without_free_voxels_gives_no_constant() -> None:
    no_hope = 200.0  # what the clamped logarithms of nothing would add
    for label in (0, EMPTY):
        for loss in AFFINITIES:
            assert loss(LOGITS, torch.full((4,), label)) < no_hope / 2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_perfect_prediction_costs_nothing(loss: Loss) -> None:
    _, labels, _ = random_voxels(6, (2, 3, 5, 2), 3)
    known = labels.long().masked_fill(labels == 255, 0)
    logits = 200.0 * torch.nn.functional.one_hot(known, 3).float()
    assert loss(logits, labels).item() == pytest.approx(0, abs=2e-5)
    assert loss(-logits, labels).item() > 0.3


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_that_differ_are_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match="one label and weight per voxel"):
        loss(LOGITS, LABELS[:3])
    with pytest.raises(ValueError, match="one label and weight per voxel"):
        loss(LOGITS, LABELS, torch.ones(4, 1))


# --- flow


def test_flow_error_is_the_length_of_the_velocity_error_where_the_weight_is() -> None:
    flow = torch.tensor([[3.0, 4.0], [1.0, 1.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0], [1.0, 0.0], [math.nan, 9.0]])
    weight = torch.tensor([1.0, 3.0, 0.0])
    assert flow_loss(flow, target, weight).item() == pytest.approx((5 + 3 * 1) / 4)
    assert flow_loss(flow, target, weight, norm=1).item() == pytest.approx((7 + 3 * 1) / 4)


def test_flow_of_nothing_that_moves_is_zero_with_zero_gradients() -> None:
    flow = torch.ones(2, 3, 1, 2, requires_grad=True)
    value = flow_loss(flow, torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, dtype=torch.bool))
    value.backward()
    assert value.item() == 0 and flow.grad is not None and not flow.grad.any()
    with pytest.raises(ValueError, match="two components"):
        flow_loss(flow, torch.zeros(2, 3, 1, 2), torch.ones(2, 3))
