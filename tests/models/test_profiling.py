"""Costs are shared out to the stages that cause them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from random_inputs import random_inputs
from torch import nn

from models.inference.predictor import OccupancyPredictor
from models.inference.profiling import StageCost, stage_costs
from models.presets import build_network, count_parameters, preset

STAGES = {
    "city_tiny": {
        "voxelisation", "sparse encoder", "image backbone", "image neck", "lift: depth network",
        "lift: geometry", "lift: pooling", "fuser", "BEV backbone", "BEV neck", "head", "other",
    },
    "camera_tiny": {
        "image backbone", "image neck", "lift: depth network", "BEV backbone", "BEV neck", "head",
        "other",
    },
}  # fmt: skip


@cache
def costs(name: str) -> tuple[OccupancyPredictor, dict[str, StageCost]]:
    chosen = preset(name)
    inputs = random_inputs(chosen.inputs)
    network = build_network(chosen.network).eval()
    teacher = OccupancyPredictor(network, chosen)
    table = stage_costs(
        teacher.network,
        lambda: teacher.predict(inputs),
        parameters_of=network,
        before=teacher.clear_geometry_cache,
        repeat=1,
        device=torch.device("cpu"),
    )
    return teacher, table


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_there_and_parameters_add_up(name: str) -> None:
    _, table = costs(name)
    assert table.keys() == STAGES[name]
    assert sum(c.parameters for c in table.values()) == preset(name).parameters
    assert all(c.seconds > 0 for c in table.values())


def test_multiplications_are_those_of_the_layers() -> None:
    _, table = costs("city_tiny")
    config = preset("city_tiny").network
    head, trunk = config.head, 200 * 200
    inside = 9 * 2 * 48 * head.conv_channels + head.conv_channels * head.hidden
    assert table["head"].macs == trunk * (inside + head.hidden * 16 * 18)
    assert table["lift: geometry"].macs < 1e6 and table["voxelisation"].macs == 0
    # logits alone are 200 x 200 x 16 x 18 float32
    assert table["head"].peak_bytes >= 4 * 200 * 200 * 16 * 18
    assert table["head"].traffic_bytes >= 4 * 200 * 200 * 16 * 18


def test_the_network_is_left_as_it_was() -> None:
    teacher, _ = costs("city_tiny")
    for child in teacher.network.children():
        assert "forward" not in vars(child) and "plan" not in vars(child)
    assert count_parameters(teacher.network) > 0


def test_compiled_parts_are_measured_and_restored() -> None:
    network = nn.Sequential()
    network.occ_head = torch.compile(nn.Linear(3, 3), backend="eager")
    x = torch.ones(2, 3)
    before = network.occ_head(x)
    table = stage_costs(
        network,
        lambda: network.occ_head(x),
        parameters_of=network,
        repeat=1,
        device=torch.device("cpu"),
    )
    assert table["head"].parameters == 12 and table["head"].seconds > 0
    assert torch.equal(network.occ_head(x), before)
