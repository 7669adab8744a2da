"""The head: voxels from columns, velocities beside classes, and outputs that no class owns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from random_inputs import random_inputs

from models.networks.heads import HeadConfig, OccupancyHead
from models.presets import build_network, preset

HEADS = [
    HeadConfig(conv_channels=8, hidden=12, levels=3, classes=5, unowned=n, bev_upsample=u, flow=f)
    for n, u, f in ((0, 1, True), (2, 1, False), (0, 2, True), (1, 3, True))
]


def head_and_bev(config: HeadConfig) -> tuple[OccupancyHead, torch.Tensor]:
    torch.manual_seed(0)
    return OccupancyHead(6, config), torch.randn(2, 6, 4, 7)  # Y = 4, X = 7


@pytest.mark.parametrize("config", HEADS)
def test_named_columns_equal_the_full_grid(config: HeadConfig) -> None:
    head, bev = head_and_bev(config)
    u = config.bev_upsample
    logits = head(bev)
    assert logits.shape == (2, 7 * u, 4 * u, 3, 5)
    index = torch.randperm(2 * 7 * 4 * u * u)
    named = head.columns(bev, index)
    torch.testing.assert_close(named, logits.reshape(-1, 3, 5)[index])
    assert head.columns(bev, index[:0]).shape == (0, 3, 5)


@pytest.mark.parametrize("config", [c for c in HEADS if c.flow])
def test_flow_of_a_column_comes_from_its_own_cell_and_place_in_it(config: HeadConfig) -> None:
    head, bev = head_and_bev(config)
    u = config.bev_upsample
    features = head.features(bev)
    flow = head.flow(features)
    assert flow.shape == (2, 7 * u, 4 * u, 3, 2)
    for x, y in ((0, 0), (7 * u - 1, 4 * u - 1), (2 * u + u - 1, u)):
        blocks = head.flow_predicter(features[:, x // u, y // u]).view(2, u, u, 3, 2)
        torch.testing.assert_close(flow[:, x, y], blocks[:, x % u, y % u])


def test_an_output_without_a_class_is_never_predicted() -> None:
    head, bev = head_and_bev(HEADS[1])
    with torch.no_grad():
        head.predicter[2].bias.view(3, 7)[:, 5:] = 1e6
    assert int(head(bev).argmax(-1).max()) < 5
    assert int(head.columns(bev, torch.arange(56)).argmax(-1).max()) < 5


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_a_network_with_flow_gives_the_logits_of_its_forward_pass(name: str) -> None:
    chosen = preset(name)
    shape = replace(chosen.network, head=replace(chosen.network.head, flow=True))
    network = build_network(shape).eval()
    inputs = random_inputs(chosen.inputs)
    with torch.inference_mode():
        logits, flow = network.logits_and_flow(inputs)
        assert torch.equal(logits, network(inputs))
    assert flow.shape == (1, 200, 200, 16, 2)


def test_a_network_without_flow_says_so() -> None:
    with pytest.raises(ValueError, match="predicts no flow"):
        build_network(preset("city_tiny").network).logits_and_flow(
            random_inputs(preset("city_tiny").inputs)
        )
