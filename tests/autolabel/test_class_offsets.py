"""Offsets that undo what training's balance did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autolabel.calibration.best_offsets import best_offsets
from autolabel.calibration.class_offsets import add_offsets, offsets_text
from datasets.taxonomy import OCC3D_NUSCENES
from models.networks.heads import HeadConfig, OccupancyHead


def test_a_class_that_is_found_too_often_is_shifted_back() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.02, 0.38, 0.6]), 20_000, True, generator=rng)
    logits = torch.randn(len(labels), 3, generator=rng)
    logits[torch.arange(len(labels)), labels] += 2.0
    logits += torch.tensor([0.02, 0.38, 0.6]).log()  # as frequent as they are
    biased = logits + torch.tensor([3.0, 0, 0])

    def iou_with(logits: torch.Tensor, offsets: np.ndarray) -> float:
        found = (logits + torch.from_numpy(offsets)).argmax(dim=1)
        hit = [((found == k) & (labels == k)).sum() for k in (0, 1)]
        either = [((found == k) | (labels == k)).sum() for k in (0, 1)]
        return float(sum(h / e for h, e in zip(hit, either, strict=True)) / 2)

    nothing = np.zeros(3, np.float32)
    right = iou_with(logits, best_offsets(logits, labels, (0, 1)))
    put_right = iou_with(biased, best_offsets(biased, labels, (0, 1)))
    assert put_right == pytest.approx(right, abs=0.01)
    assert put_right > iou_with(biased, nothing) + 0.1
    assert right >= iou_with(logits, nothing)


def test_a_class_that_never_occurs_has_no_part() -> None:
    labels = torch.tensor([0] * 50 + [1] * 50)
    logits = torch.nn.functional.one_hot(labels, 4).float()
    assert best_offsets(logits, labels, (0, 1, 2, 3)).tolist() == [0, 0, 0, 0]
    assert best_offsets(logits[:0], labels[:0], (0, 1)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("unowned", [0, 2])
def test_offsets_become_part_of_the_head(unowned: int) -> None:
    torch.manual_seed(0)
    config = HeadConfig(conv_channels=8, hidden=8, levels=3, classes=4, unowned=unowned)
    network = nn.Module()
    network.occ_head = OccupancyHead(6, config)
    bev = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        before = network.occ_head(bev)
        offsets = np.array([1.0, -2.0, 0.0, 0.5], np.float32)
        add_offsets(network, offsets)
        torch.testing.assert_close(network.occ_head(bev), before + torch.from_numpy(offsets))
        index = torch.tensor([3, 7])
        columns = network.occ_head.columns(bev, index)
        torch.testing.assert_close(columns, network.occ_head(bev).flatten(0, 2)[index])


def test_offsets_of_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="no occupancy head"):
        add_offsets(nn.Linear(2, 2), np.zeros(4, np.float32))
    network = nn.Module()
    network.occ_head = OccupancyHead(6, HeadConfig(classes=4))
    with pytest.raises(ValueError, match="18 offsets for 4 classes"):
        add_offsets(network, np.zeros(18, np.float32))


def test_offsets_are_told() -> None:
    offsets = np.zeros(OCC3D_NUSCENES.n_classes, np.float32)
    assert offsets_text(offsets, OCC3D_NUSCENES) == "logits shifted: none"
    offsets[4] = -2
    assert offsets_text(offsets, OCC3D_NUSCENES) == "logits shifted: car -2.00"
