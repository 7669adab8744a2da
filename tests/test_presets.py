"""Every preset builds with the published size and names, and runs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import SetupError
from datasets.inputs import InputSpec, ModelInputs
from models.presets import PRESETS, build, count_parameters, preset

ORACLE = Path(
    os.environ.get(
        "AUTOLABEL_ORACLE", Path(__file__).resolve().parents[1] / ".." / "shared" / "oracle"
    )
)
PUBLISHED = {
    "fusion_r18_occ3d": 21_354_248,
    "fusion_r50_occ3d": 34_029_832,
    "lidar_occ3d": 8_730_352,
    "flashocc_r50": 44_744_312,
    "flashocc_r50_distill": 59_099_512,
}


def random_inputs(spec: InputSpec, *, frames: int = 1, seed: int = 0) -> ModelInputs:
    """Six cameras around the car, noise as pictures and points."""
    g = torch.Generator().manual_seed(seed)
    H, W = spec.height, spec.width
    poses = []
    for yaw in np.deg2rad([55, 0, -55, 110, 180, -110]):
        c, s = float(np.cos(yaw)), float(np.sin(yaw))
        T = torch.eye(4)
        T[:3, :3] = torch.tensor([[s, 0, c], [-c, 0, s], [0, -1, 0]])
        T[:3, 3] = torch.tensor([c, s, 1.5])
        poses.append(T)
    K = torch.tensor([[W * 0.8, 0, W / 2], [0, W * 0.8, H / 2], [0, 0, 1]])
    scale = torch.tensor([40.0, 40, 3, 255, 0.5])
    points = tuple(
        (torch.rand(2000, 5, generator=g) * torch.tensor([2.0, 2, 2, 1, 1]) - 1) * scale
        for _ in range(frames)
    )
    return ModelInputs(
        images=torch.randn(frames, 6, 3, H, W, generator=g),
        T_ego_camera=torch.stack(poses).expand(frames, -1, -1, -1),
        intrinsics=K.expand(frames, 6, -1, -1),
        post_image=torch.eye(3).expand(frames, 6, -1, -1),
        T_bda=torch.eye(4).expand(frames, -1, -1),
        points=points if spec.lidar else None,
        depth=torch.rand(frames, 6, H, W, generator=g) * 45 if spec.lidar else None,
    )


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_exactly_the_parameters_it_states(name: str) -> None:
    stated = preset(name).parameters
    assert PUBLISHED.get(name, stated) == stated
    with torch.device("meta"):
        assert count_parameters(build(name)) == stated


@pytest.mark.parametrize("name", PRESETS)
def test_head_fills_the_grid_and_the_taxonomy(name: str) -> None:
    p = preset(name)
    head, u = p.network.head, p.network.head.bev_upsample
    assert (head.levels, head.classes) == (p.grid.shape[2], p.taxonomy.n_classes)
    camera = p.network.camera
    if camera is not None:
        X, Y, _ = camera.lift.grid.shape
        assert (X * u, Y * u) == p.grid.shape[:2]
        assert camera.lift.grid.min_m[:2] == p.grid.min_m[:2]
        np.testing.assert_allclose(camera.lift.grid.max_m[:2], p.grid.max_m[:2])


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SetupError, match=r"no preset 'swin'.*city_tiny.*fusion_r18_occ3d"):
        preset("swin")


@pytest.mark.skipif(
    not (ORACLE / "keys_teacher.txt").is_file(),
    reason="no reference key lists: set AUTOLABEL_ORACLE to the oracle folder",
)
@pytest.mark.parametrize(
    ("name", "file"),
    [("fusion_r18_occ3d", "keys_teacher.txt"), ("flashocc_r50", "keys_student.txt")],
)
def test_state_dict_has_the_official_names_shapes_and_types(name: str, file: str) -> None:
    rows = [
        line.split("\t")
        for line in (ORACLE / file).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    with torch.device("meta"):
        state = build(name).state_dict()
    got = {k: (str(tuple(v.shape)), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    assert got == {key: (shape, dtype) for key, shape, dtype, *_ in rows}


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
    torch.testing.assert_close(sampled, logits.view(-1, 16, 18)[columns], rtol=1e-4, atol=1e-4)


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
