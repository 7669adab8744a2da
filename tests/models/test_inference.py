"""A network made ready to label predicts what the network predicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from random_inputs import random_inputs
from torch import Tensor, nn

from datasets.model_inputs import ModelInputs
from models.inference.predictor import (
    OccupancyPredictor,
    agreement,
    fold_batch_norms,
    keep_freed_memory,
)
from models.presets import Preset, build_network, preset


def trained(which: str | Preset) -> nn.Module:
    """A network whose batch norms do something."""
    network = build_network((preset(which) if isinstance(which, str) else which).network)
    g = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=g)
            module.running_var.uniform_(0.5, 1.5, generator=g)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=g)
            nn.init.normal_(module.bias, 0, 0.1, generator=g)
    return network.eval()


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_exact_mode_equals_the_network_and_leaves_it_alone(name: str) -> None:
    network, inputs = trained(name), random_inputs(preset(name).inputs)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    got = OccupancyPredictor(network, preset(name)).predict(inputs)
    with torch.inference_mode():
        want = network(inputs)
    assert (got - want).abs().max() <= 1e-4 + 1e-5 * want.abs().max()
    after = network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_no_norm_is_left_after_folding(name: str) -> None:
    folded = fold_batch_norms(trained(name))
    left = [n for n, m in folded.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert left == []


def test_fast_mode_is_close_and_float32_outside() -> None:
    network, inputs = trained("city_tiny"), random_inputs(preset("city_tiny").inputs)
    exact = OccupancyPredictor(network, preset("city_tiny")).predict(inputs)
    fast = OccupancyPredictor(network, preset("city_tiny"), bfloat16=True).predict(inputs)
    assert fast.dtype == torch.float32 and not torch.equal(fast, exact)
    close = agreement(exact, fast)
    assert close.same > 0.95 and close.confidence < 0.1


class Sided(nn.Module):
    """Knows left from right and front from back in the frame of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: ModelInputs) -> Tensor:
        assert inputs.points is not None
        logits = torch.zeros(1, 4, 4, 1, 2)
        x, y = inputs.points[0][0, :2]
        logits[0, int(x.floor()) + 2, int(y.floor()) + 2, 0, 1] = 3 * self.scale
        torch.testing.assert_close(
            inputs.T_bda[0].diagonal(), torch.tensor([x.sign(), y.sign(), 1.0, 1.0])
        )
        return logits


def test_flips_are_undone_before_they_are_averaged() -> None:
    points = (torch.tensor([[1.5, 0.5, 0.0, 0.0, 0.0]]),)
    inputs = replace(random_inputs(preset("city_tiny").inputs), points=points)
    plain = OccupancyPredictor(Sided(), preset("city_tiny")).predict(inputs)  # type: ignore[arg-type]
    flipped = OccupancyPredictor(Sided(), preset("city_tiny"), tta_flips=True).predict(inputs)  # type: ignore[arg-type]
    torch.testing.assert_close(flipped.softmax(-1), plain.softmax(-1))
    assert plain[0, 3, 2, 0, 1] == 3


def test_flips_average_probabilities() -> None:
    name = "city_tiny"
    network, inputs = trained(name), random_inputs(preset(name).inputs)
    single, flipped = (
        OccupancyPredictor(network, preset(name)),
        OccupancyPredictor(network, preset(name), tta_flips=True),
    )
    views = [
        single.predict(inputs.mirrored(x=1 in axes, y=2 in axes)).softmax(-1).flip(axes)
        for axes in ([], [1], [2], [1, 2])
    ]
    torch.testing.assert_close(
        flipped.predict(inputs).softmax(-1), torch.stack(views).mean(0), rtol=1e-4, atol=1e-5
    )


def with_flow(name: str) -> Preset:
    plain = preset(name)
    return replace(
        plain, network=replace(plain.network, head=replace(plain.network.head, flow=True))
    )


class Driving(Sided):
    """Sees the point drive away from the origin, faster along x than along y."""

    def logits_and_flow(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        logits = self(inputs)
        assert inputs.points is not None
        velocity = 3 * inputs.points[0][0, :2].sign() * torch.tensor([2.0, 1.0])
        return logits, velocity * logits[..., 1:]


def test_flips_turn_velocities_back_before_they_are_averaged() -> None:
    points = (torch.tensor([[1.5, 0.5, 0.0, 0.0, 0.0]]),)
    inputs = replace(random_inputs(preset("city_tiny").inputs), points=points)
    flying = with_flow("city_tiny")
    for flips in (False, True):
        teacher = OccupancyPredictor(Driving(), flying, tta_flips=flips)  # type: ignore[arg-type]
        logits, flow = teacher.predict_with_flow(inputs)
        torch.testing.assert_close(logits.softmax(-1), teacher.predict(inputs).softmax(-1))
        torch.testing.assert_close(flow[0, 3, 2, 0], torch.tensor([18.0, 9.0]))
        assert flow.count_nonzero() == 2


def test_flow_is_the_networks_exact_and_fast() -> None:
    flying = with_flow("city_tiny")
    network, inputs = trained(flying), random_inputs(flying.inputs)
    with torch.inference_mode():
        logits, flow = network.logits_and_flow(inputs)  # type: ignore[operator]
    got_logits, got_flow = OccupancyPredictor(network, flying).predict_with_flow(inputs)
    assert (got_logits - logits).abs().max() <= 1e-4 + 1e-5 * logits.abs().max()
    assert (got_flow - flow).abs().max() <= 1e-4 + 1e-5 * flow.abs().max()
    fast = OccupancyPredictor(network, flying, bfloat16=True).predict_with_flow(inputs)[1]
    assert fast.dtype == torch.float32 and not torch.equal(fast, got_flow)
    assert (fast - flow).abs().max() < 0.05 * flow.abs().max()


def test_networks_without_flow_say_so() -> None:
    network, plain = trained("camera_tiny"), preset("camera_tiny")
    teacher = OccupancyPredictor(network, plain)
    assert not teacher.has_flow and OccupancyPredictor(network, with_flow("camera_tiny")).has_flow
    with pytest.raises(ValueError, match="predicts no flow"):
        teacher.predict_with_flow(random_inputs(plain.inputs))


def test_agreement_counts_classes_and_confidence() -> None:
    a = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 4.0, 0.0], [4.0, 0.0, 0.0]])
    b = a.clone()
    b[3] = torch.tensor([0.0, 4.0, 0.0])
    b[0] = torch.tensor([5.0, 0.0, 0.0])
    got = agreement(a, b)
    assert got.same == 0.75
    assert got.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    change = torch.tensor([5.0, 0.0, 0.0]).softmax(0)[0] - torch.tensor([4.0, 0, 0]).softmax(0)[0]
    assert got.confidence == pytest.approx(float(change), rel=1e-4)


def test_memory_setting_changes_no_result() -> None:
    x = torch.arange(3_000_000.0)
    before = (x * 2).sum()
    keep_freed_memory()
    assert torch.equal(before, (x * 2).sum())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_exact_mode_on_a_gpu_equals_the_cpu(name: str) -> None:
    network, inputs = trained(name), random_inputs(preset(name).inputs)
    want = OccupancyPredictor(network, preset(name)).predict(inputs)
    on_gpu = OccupancyPredictor(network.cuda(), preset(name))
    got = on_gpu.predict(inputs)
    assert (got.cpu() - want).abs().max() <= 1e-3 + 1e-4 * want.abs().max()
    assert torch.equal(got, on_gpu.predict(inputs)), "not reproducible"


@pytest.mark.gpu
def test_fast_mode_on_a_gpu_is_close() -> None:
    network, inputs = trained("city_tiny").cuda(), random_inputs(preset("city_tiny").inputs)
    exact = OccupancyPredictor(network, preset("city_tiny")).predict(inputs)
    fast = OccupancyPredictor(network, preset("city_tiny"), bfloat16=True).predict(inputs)
    close = agreement(exact, fast)
    assert close.same > 0.95 and close.confidence < 0.1
