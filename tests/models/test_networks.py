"""The small networks run as they must: under autocast, and on logs without cameras."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datasets.model_inputs import ModelInputs
from models.checkpoints.checkpoint import initialise, save_checkpoint
from models.networks.view_transform import LssViewTransform, PullViewTransform
from models.presets import build, preset


def made_up_inputs(height: int, width: int, *, lidar: bool) -> ModelInputs:
    generator = torch.Generator().manual_seed(0)
    T = torch.tensor([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    K = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    points = torch.rand(3000, 5, generator=generator) * torch.tensor([70.0, 70, 5, 255, 0.4])
    points[:, :3] -= torch.tensor([35.0, 35, 1])
    return ModelInputs(
        images=torch.randn(1, 1, 3, height, width, generator=generator),
        T_ego_camera=T[None, None],
        intrinsics=K[None, None],
        post_image=torch.eye(3)[None, None],
        T_bda=torch.eye(4)[None],
        points=(points,) if lidar else None,
        depth=torch.zeros(1, 1, height, width) if lidar else None,
    )


def test_a_log_without_cameras_still_gets_labels_from_its_lidar() -> None:
    inputs = made_up_inputs(96, 256, lidar=True)
    blind = dataclasses.replace(
        inputs,
        images=inputs.images[:, :0],
        T_ego_camera=inputs.T_ego_camera[:, :0],
        intrinsics=inputs.intrinsics[:, :0],
        post_image=inputs.post_image[:, :0],
        depth=None if inputs.depth is None else inputs.depth[:, :0],
    )
    network = build("city_tiny").eval()
    with torch.inference_mode():
        logits = network(blind)
    assert logits.shape == (1, 200, 200, 16, 18)
    assert torch.isfinite(logits).all()


def test_a_fusion_network_starts_from_lidar_weights_as_what_they_were(tmp_path: Path) -> None:
    lidar, inputs = build("lidar_coarse").eval(), made_up_inputs(96, 256, lidar=True)
    save_checkpoint(tmp_path / "lidar.safetensors", lidar, "lidar_coarse", {})
    fusion = build("fusion_coarse").eval()
    initialise(fusion, tmp_path / "lidar.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(fusion(inputs), lidar(inputs))
    fusion.train()(inputs).square().mean().backward()
    norm = fusion.get_submodule("occ_fuser.occ_enc.1")
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.weight.grad is not None
    assert norm.weight.grad.abs().max() > 0, "the cameras must be learnt"


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_autocast_leaves_geometry_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = preset(name).inputs
    inputs = made_up_inputs(spec.height, spec.width, lidar=spec.lidar)
    network = build(name)
    seen: list[Tensor] = []

    def watch(owner: type, method: str) -> None:
        original = getattr(owner, method)

        def wrapped(*args: object) -> object:
            out = original(*args)
            seen.append(out if isinstance(out, Tensor) else out[0])
            return out

        monkeypatch.setattr(owner, method, wrapped)

    watch(LssViewTransform, "cells")
    watch(PullViewTransform, "taps")
    network.bev(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        bev = network.bev(inputs)
    exact, under_autocast = seen
    assert torch.equal(exact, under_autocast)
    assert bev.dtype == torch.bfloat16, "autocast did not reach the trunk"
    bev.float().square().mean().backward()
    for key, parameter in network.named_parameters():
        if not key.startswith("occ_head"):
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


def with_pictures(inputs: ModelInputs, count: int, n: int) -> ModelInputs:
    """So many different pictures of the n that the batch holds, the others full of noise."""
    shape = (1, n, *inputs.images.shape[2:])
    images = torch.randn(shape, generator=torch.Generator().manual_seed(count))
    T = inputs.T_ego_camera.repeat(1, n, 1, 1)
    T[0, :, 0, 3] += torch.arange(n)
    return dataclasses.replace(
        inputs,
        images=images,
        T_ego_camera=T,
        intrinsics=inputs.intrinsics.repeat(1, n, 1, 1),
        post_image=inputs.post_image.repeat(1, n, 1, 1),
        depth=None if inputs.depth is None else inputs.depth.repeat(1, n, 1, 1),
        present=torch.arange(n)[None] < count,
    )


def first_pictures(inputs: ModelInputs, count: int) -> ModelInputs:
    """The same frame with these pictures alone."""
    return dataclasses.replace(
        inputs,
        images=inputs.images[:, :count],
        T_ego_camera=inputs.T_ego_camera[:, :count],
        intrinsics=inputs.intrinsics[:, :count],
        post_image=inputs.post_image[:, :count],
        depth=None if inputs.depth is None else inputs.depth[:, :count],
        present=None,
    )


@pytest.mark.parametrize("name", ["city_tiny", "fusion_coarse", "camera_tiny", "camera_coarse"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_picture_that_only_fills_the_batch_has_no_influence(name: str, count: int) -> None:
    spec = preset(name).inputs
    if count == 0 and not spec.lidar:
        pytest.skip("a frame without pictures never reaches a camera network")
    padded = with_pictures(made_up_inputs(spec.height, spec.width, lidar=spec.lidar), count, 2)
    network = build(name)
    with torch.no_grad():
        if count:  # batch norms learn from the pictures that are there only
            trained = network.train().bev(padded)
            assert_alike(trained, network.bev(first_pictures(padded, count)))
        network.eval()
        assert_alike(network.bev(padded), network.bev(first_pictures(padded, count)))


def assert_alike(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """But for rounding: sums of float32 are taken in another order where a picture is added."""
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
