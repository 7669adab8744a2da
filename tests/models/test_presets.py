"""Every preset builds with the published size and names, and runs."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from network_stages import oracle_folder
from random_inputs import random_inputs

from datasets.errors import SetupError
from datasets.model_inputs import ModelInputs
from models.networks.fusion_teacher import FusionConfig, FusionTeacher
from models.networks.swin import SwinConfig
from models.networks.view_transform import LssViewTransform
from models.presets import PRESETS, NetworkConfig, build, count_parameters, preset

ORACLE = oracle_folder(os.environ)
PUBLISHED = {
    "fusion_r18_occ3d": 21_354_248,
    "fusion_r50_occ3d": 34_029_832,
    "fusion_swinb_occ3d": 111_480_320,
    "fusion_r18_openoccupancy": 21_551_603,
    "fusion_r18_flow": 21_502_248,
    "fusion_r18_waymo": 21_337_832,
    "lidar_waymo": 8_713_936,
    "lidar_occ3d": 8_730_352,
    "flashocc_r50": 44_744_312,
    "flashocc_r50_distill": 59_099_512,
    "flashocc_r50_4d_stereo": 58_668_414,
}
OFFICIAL_STATES = {
    "fusion_r18_occ3d": "1c972933581faa7c",
    "fusion_r50_occ3d": "fefd5bdeac096541",
    "fusion_swinb_occ3d": "f312833380d9846b",
    "fusion_r18_openoccupancy": "7d34fd9ac78ff436",
    "fusion_r18_flow": "89eab95ca40a59e8",
    "fusion_r18_waymo": "82283454c87eb080",
    "lidar_waymo": "b7c3057db81b5bfd",
    "flashocc_r50": "31f4c66be6593638",
    "flashocc_r50_distill": "bc103504ee3d8ce0",
    "flashocc_r50_4d_stereo": "78ec54daa120a1f7",
}
"""Digests of the names, shapes and types that the published code builds (see ``state_digest``); for
the Swin after ``from_official``."""
OFFICIAL_KEYS = {"fusion_r18_occ3d": "keys_teacher.txt", "flashocc_r50": "keys_student.txt"}


def has_swin(name: str) -> bool:
    camera = preset(name).network.camera
    return camera is not None and isinstance(camera.backbone, SwinConfig)


def build_on_meta(name: str) -> torch.nn.Module:
    if has_swin(name) and importlib.util.find_spec("transformers") is None:
        pytest.skip("the extra 'swin' is not installed")
    with torch.device("meta"):
        return build(name)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_exactly_the_parameters_it_states(name: str) -> None:
    stated = preset(name).parameters
    assert PUBLISHED.get(name, stated) == stated
    assert count_parameters(build_on_meta(name)) == stated


@pytest.mark.parametrize("name", PRESETS)
def test_head_fills_the_grid_and_the_taxonomy(name: str) -> None:
    p = preset(name)
    head, u = p.network.head, p.network.head.bev_upsample
    assert (head.levels, head.classes) == (p.grid.shape[2], p.taxonomy.n_classes)
    coarser = bev_stride(p.network)
    camera = p.network.camera
    if camera is not None:
        X, Y, _ = camera.lift.grid.shape
        assert (X // coarser * u, Y // coarser * u) == p.grid.shape[:2]
        assert camera.lift.grid.min_m[:2] == p.grid.min_m[:2]
        np.testing.assert_allclose(camera.lift.grid.max_m[:2], p.grid.max_m[:2])


def bev_stride(network: NetworkConfig) -> int:
    """How much coarser the trunk's output is than its input."""
    if isinstance(network, FusionConfig):
        return network.trunk.first_stride
    return network.trunk.strides[0] // network.trunk.last_upsample


def test_coarse_teachers_hand_down_features_and_head_as_they_are() -> None:
    student = build("camera_coarse").eval()
    mine = student.occ_head.state_dict()
    inputs = random_inputs(preset("fusion_coarse").inputs)
    with torch.inference_mode():
        shape = student.bev(inputs).shape
        for name in ("fusion_coarse", "lidar_coarse"):
            teacher = build(name).eval()
            its = teacher.occ_head.state_dict()
            assert {k: v.shape for k, v in its.items()} == {k: v.shape for k, v in mine.items()}
            assert teacher.bev(inputs).shape == shape


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SetupError, match=r"no preset 'swin'.*city_tiny.*fusion_r18_occ3d"):
        preset("swin")


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    text = "\n".join(f"{key} {tuple(v.shape)} {v.dtype}" for key, v in sorted(state.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", OFFICIAL_STATES)
def test_state_dict_is_that_of_the_published_code(name: str) -> None:
    assert state_digest(build_on_meta(name).state_dict()) == OFFICIAL_STATES[name]


@pytest.mark.parametrize("name", OFFICIAL_KEYS)
def test_state_dict_has_the_official_names_shapes_and_types(name: str) -> None:
    path = ORACLE / OFFICIAL_KEYS[name]
    if not path.is_file():
        pytest.skip(f"no reference key list {path.name}: set AUTOLABEL_ORACLE to the oracle folder")
    rows = [
        line.split("\t")
        for line in path.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    official = {
        key: torch.empty(ast.literal_eval(shape), dtype=getattr(torch, dtype), device="meta")
        for key, shape, dtype, *_ in rows
    }
    want, got = (
        {key: (tuple(v.shape), v.dtype) for key, v in state.items()}
        for state in (official, build_on_meta(name).state_dict())
    )
    assert got == want


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith(("fusion", "lidar"))])
def test_maps_of_both_branches_meet_and_fill_the_grid(name: str) -> None:
    """Shapes only, with every part but the sparse convolutions at full size."""
    spec, net, config = preset(name), build_on_meta(name), preset(name).network
    assert isinstance(net, FusionTeacher) and isinstance(config, FusionConfig)
    _, Y, X = config.lidar.out_shape
    bev = torch.empty(1, config.lidar.out_channels, Y, X, device="meta")
    if config.camera is not None:
        H, W = spec.inputs.height, spec.inputs.width
        maps = net.img_backbone(torch.empty(2, 3, H, W, device="meta"))
        features = net.img_neck(maps)
        stride = config.camera.backbone.finest_stride
        assert features.shape == (2, config.camera.neck_channels, H // stride, W // stride)
        lift = net.img_view_transformer
        if isinstance(lift, LssViewTransform):
            depth = lift.lidar_input_net(torch.empty(2, 1, H, W, device="meta"))
            out = lift.depth_net(torch.cat((features, depth), dim=1))
            assert out.shape[1:] == (
                lift.config.n_depths + lift.config.context_channels,
                H // stride,
                W // stride,
            )
            near, far = lift.config.depth_min_m, lift.config.depth_max_m
            assert (near, far) == (spec.inputs.depth_min_m, spec.inputs.depth_max_m)
        lifted = config.camera.lift
        Y, X = lifted.grid.shape[1::-1]
        camera_bev = torch.empty(1, lifted.out_channels, Y, X, device="meta")
        bev = net.occ_fuser(camera_bev, bev)
    head = net.occ_head
    features = head.features(net.pts_neck(net.pts_backbone(bev)))
    assert head.logits(features).shape == (1, *spec.grid.shape, spec.taxonomy.n_classes)
    if config.head.flow:
        assert head.flow(features).shape == (1, *spec.grid.shape, 2)


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_sampled_columns_equal_the_full_forward_pass(name: str) -> None:
    torch.manual_seed(0)
    net = build(name).eval()
    inputs = random_inputs(preset(name).inputs, frames=2)
    with torch.no_grad():
        logits = net(inputs)
        assert logits.shape == (2, 200, 200, 16, 18)
        columns = torch.randperm(2 * 200 * 200)[:3000]
        sampled = net.occ_head.columns(net.bev(inputs), columns)
    torch.testing.assert_close(sampled, logits.reshape(-1, 16, 18)[columns], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = build(name).train()
    bev = net.bev(random_inputs(preset(name).inputs))
    net.occ_head.columns(bev, torch.arange(0, 40_000, 7)).square().mean().backward()
    dead = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_teacher_takes_a_frame_without_a_single_point() -> None:
    net = build("city_tiny").train()
    inputs = random_inputs(preset("city_tiny").inputs, frames=2)
    assert inputs.points is not None
    empty = ModelInputs(
        images=inputs.images,
        T_ego_camera=inputs.T_ego_camera,
        intrinsics=inputs.intrinsics,
        post_image=inputs.post_image,
        T_bda=inputs.T_bda,
        points=(inputs.points[0], inputs.points[1][:0]),
        depth=inputs.depth,
    )
    bev = net.bev(empty)
    assert bev.shape[0] == 2 and bev.isfinite().all()


def test_teacher_says_what_it_misses_when_there_are_no_points() -> None:
    inputs = random_inputs(preset("camera_tiny").inputs)
    with pytest.raises(ValueError, match="reads LiDAR points"):
        build("city_tiny").bev(inputs)


@pytest.mark.parametrize("name", ["city_tiny", "camera_tiny"])
def test_a_batch_gives_what_its_frames_give_alone(name: str) -> None:
    net = build(name).eval()
    both = random_inputs(preset(name).inputs, frames=2)
    with torch.no_grad():
        together = net.bev(both)
        for b in range(2):
            alone = ModelInputs(
                images=both.images[b : b + 1],
                T_ego_camera=both.T_ego_camera[b : b + 1],
                intrinsics=both.intrinsics[b : b + 1],
                post_image=both.post_image[b : b + 1],
                T_bda=both.T_bda[b : b + 1],
                points=None if both.points is None else both.points[b : b + 1],
                depth=None if both.depth is None else both.depth[b : b + 1],
            )
            torch.testing.assert_close(net.bev(alone)[0], together[b], rtol=1e-4, atol=1e-5)
