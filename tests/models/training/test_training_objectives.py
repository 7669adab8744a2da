"""What a step minimises: columns, weights, losses by kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from one_camera_log import SPEC, OneCameraLog, labels, write_truth
from torch import Tensor, nn

from datasets.loading.augmentation import Augmentation
from datasets.loading.batch import Batch
from datasets.loading.frame_dataset import FrameDataset
from datasets.model_inputs import ModelInputs
from datasets.taxonomy import OCC3D_NUSCENES, OPENOCC_FLOW
from models.networks.heads import HeadConfig, OccupancyHead
from models.training.losses import ohem_cross_entropy, voxel_cross_entropy
from models.training.objectives import (
    LabelLoss,
    LossKind,
    class_weights,
    column_weights,
    count_labels,
    draw_columns,
)


class Trunk(nn.Module):
    """A network without batch norm, small enough to be evaluated everywhere."""

    def __init__(self, *, flow: bool = False) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 4)
        self.occ_head = OccupancyHead(4, HeadConfig(conv_channels=4, hidden=4, flow=flow))

    def bev(self, inputs: ModelInputs) -> Tensor:
        colour = self.mix(inputs.images.mean((1, 3, 4)))
        ramp = torch.linspace(0, 1, 200)
        return colour[:, :, None, None] * (ramp[:, None] + ramp)


@pytest.fixture()
def sample(tmp_path: Path) -> Batch:
    log = OneCameraLog()
    return FrameDataset(log, [write_truth(tmp_path, log)], SPEC, batch=2, augment=Augmentation())[1]


def test_columns_are_usable_distinct_and_rich_in_objects() -> None:
    semantics, visible = labels()
    usable = torch.from_numpy(visible) > 0
    with_object = (usable & torch.from_numpy(semantics < 11)).any(-1)
    generator = torch.Generator().manual_seed(0)
    drawn = draw_columns(usable.any(-1), with_object, 100, generator)
    assert len(drawn) == 100 == len(drawn.unique())
    assert usable.any(-1).flatten()[drawn].all()
    assert 150 * 200 + 120 in drawn.tolist()  # the car


def test_drawn_columns_stand_for_all_where_they_are_weighed() -> None:
    usable = torch.zeros(30, 40, dtype=torch.bool)
    usable[:20] = True
    with_object = torch.zeros_like(usable)
    with_object[3, :30] = True
    value = torch.rand(30, 40, generator=torch.Generator().manual_seed(1)) + 3 * with_object
    for count in (20, 100, 2000):
        weight = column_weights(usable, with_object, count)
        assert (weight[~usable] == 0).all()
        means, plain, sizes = [], [], []
        for seed in range(400):
            drawn = draw_columns(usable, with_object, count, torch.Generator().manual_seed(seed))
            w, v = weight.flatten()[drawn], value.flatten()[drawn]
            means.append(float((w * v).mean()))
            plain.append(float(v.mean()))
            sizes.append(float(w.mean()))
        truth = float(value[usable].mean())
        assert np.mean(means) == pytest.approx(truth, rel=0.02)
        assert np.mean(sizes) == pytest.approx(1, rel=0.02)
        if count < 800:
            assert np.mean(plain) > 1.1 * truth, "objects are drawn more often"


def test_unbiased_columns_change_the_loss_and_its_weight(sample: Batch) -> None:
    plain = LabelLoss(taxonomy=OCC3D_NUSCENES, columns=30)
    unbiased = dataclasses.replace(plain, unbiased=True)
    assert torch.equal(plain.drawn(sample), unbiased.drawn(sample))
    assert plain.weight_sums(sample)["ce"] != unbiased.weight_sums(sample)["ce"]
    whole = dataclasses.replace(unbiased, columns=None)
    everything = dataclasses.replace(plain, columns=None)
    assert whole.weight_sums(sample)["ce"] == everything.weight_sums(sample)["ce"]


def test_a_frames_columns_are_the_same_in_whatever_batch_it_comes(sample: Batch) -> None:
    loss = LabelLoss(taxonomy=OCC3D_NUSCENES, columns=30)
    whole = loss.drawn(sample)
    first, second = sample.parts(2)
    assert torch.equal(torch.cat((loss.drawn(first), loss.drawn(second) + 200 * 200)), whole)
    other = dataclasses.replace(sample, first_draw=sample.first_draw + 2)
    assert not torch.equal(loss.drawn(other), whole)


def test_rare_classes_weigh_more_and_the_mean_weight_is_one() -> None:
    counts = torch.tensor([10.0, 990.0, 0.0])
    weights = class_weights(counts, 0.35)
    assert weights[2] > weights[0] > weights[1]
    assert (weights * counts / counts.sum()).sum() == pytest.approx(1.0)
    assert class_weights(counts, 0.0)[:2].tolist() == [1.0, 1.0]


def test_labels_of_bad_frames_are_not_counted(tmp_path: Path) -> None:
    log = OneCameraLog()
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC)
    both = count_labels(samples, 18)
    assert both[4] == 2
    next(tmp_path.rglob("t1/labels.npz")).unlink()
    assert count_labels(samples, 18)[4] == 1


@pytest.mark.parametrize("kind", ["ce", "ohem", "four"])
def test_every_column_gives_the_loss_of_all_voxels(sample: Batch, kind: LossKind) -> None:
    network, weights = Trunk(), torch.linspace(0.5, 2, 18)
    all_voxels = LabelLoss(taxonomy=OCC3D_NUSCENES, kind=kind, class_weights=weights)
    columns = dataclasses.replace(all_voxels, columns=200 * 200)
    sample = dataclasses.replace(sample, weight=torch.ones_like(sample.weight))
    a, b = all_voxels(network, sample, 0), columns(network, sample, 0)
    assert a.keys() == b.keys() and len(a) == (4 if kind == "four" else 1)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


def test_the_losses_are_those_of_their_names(sample: Batch) -> None:
    network, weights = Trunk(), torch.linspace(0.5, 2, 18)
    logits = network.occ_head(network.bev(sample.inputs))
    for kind, loss in (("ce", voxel_cross_entropy), ("ohem", ohem_cross_entropy)):
        objective = LabelLoss(taxonomy=OCC3D_NUSCENES, kind=kind, class_weights=weights)
        wanted = loss(logits, sample.semantics, sample.weight, class_weights=weights)
        assert torch.equal(objective(network, sample, 0)[kind], wanted)


def test_frames_without_a_usable_voxel_give_zero_loss_and_zero_gradients(sample: Batch) -> None:
    network = Trunk()
    sample = dataclasses.replace(sample, weight=torch.zeros_like(sample.weight))
    for columns in (None, 20):
        loss = LabelLoss(taxonomy=OCC3D_NUSCENES, columns=columns)(network, sample, 0)["ce"]
        network.zero_grad()
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_only_what_can_move_counts_for_the_flow(sample: Batch) -> None:
    network = Trunk(flow=True)
    car = OPENOCC_FLOW.id_of("car")
    semantics = torch.full_like(sample.semantics, OPENOCC_FLOW.free_id)
    semantics[0, 3, 4, 5] = car
    flow = torch.full((*semantics.shape, 2), 100.0)
    flow[0, 3, 4, 5] = torch.tensor([1.0, -2.0])
    sample = dataclasses.replace(
        sample, semantics=semantics, flow=flow, weight=torch.ones_like(sample.weight)
    )
    loss = LabelLoss(taxonomy=OPENOCC_FLOW, flow=0.25)
    features = network.occ_head.features(network.bev(sample.inputs))
    error = (network.occ_head.flow(features)[0, 3, 4, 5] - flow[0, 3, 4, 5]).abs().sum()
    found = loss.of_bev(network, network.bev(sample.inputs), sample)["flow"]
    torch.testing.assert_close(found, 0.25 * error)
    with pytest.raises(ValueError, match="needs labels with flow"):
        loss(network, dataclasses.replace(sample, flow=None), 0)
