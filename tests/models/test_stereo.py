"""The stereo student: what it matches, which frames it reads, and in which frame it lifts them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import network_stages as reference
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_scene
from datasets.frames import CameraView, Frame, LidarSweep, Scene, earlier_frames
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, from_yaw
from datasets.loading.frame_dataset import FrameDataset, Target
from datasets.model_inputs import InputSpec, ModelInputs, collate, prepare_frame
from models.inference.predictor import OccupancyPredictor
from models.networks.bev_trunk import BevResNetConfig
from models.networks.fusion_teacher import CameraBranchConfig
from models.networks.heads import HeadConfig
from models.networks.resnet import ResNetConfig
from models.networks.stereo_student import StereoConfig, StereoStudent
from models.networks.view_transform import Lift, LssConfig
from models.ops.plane_sweep import matching_cost, sweep_positions
from models.presets import build, build_network, preset

H, W = 64, 96
GRID = VoxelGrid(min_m=(-16.0, -16.0, -1.0), size_m=(2.0, 2.0, 6.4), shape=(16, 16, 1))
LIFT = LssConfig(
    grid=GRID,
    depth_min_m=2.0,
    depth_max_m=18.0,
    depth_step_m=1.0,
    log_depth=True,
    context_channels=6,
    depth_channels=8,
    lidar_depth=False,
)
CONFIG = StereoConfig(
    camera=CameraBranchConfig(
        backbone=ResNetConfig(
            blocks=(1, 1, 1, 1), widths=(8, 8, 12, 16), bottleneck=False, outputs=(1, 3, 4)
        ),
        neck_channels=8,
        lift=LIFT,
    ),
    aspp_channels=4,
    trunk=BevResNetConfig(channels=(8, 12, 16), blocks=(1, 1, 1), neck_channels=8),
    head=HeadConfig(conv_channels=8, hidden=8, levels=2, classes=3),
)


def pose(x: float = 0.0, y: float = 0.0, yaw_rad: float = 0.0) -> Tensor:
    """A camera looking forward (x, turned by yaw) at (x, y), 1.5 m up."""
    c, s = float(np.cos(yaw_rad)), float(np.sin(yaw_rad))
    T = torch.eye(4)
    T[:3, :3] = torch.tensor([[s, 0, c], [-c, 0, s], [0, -1, 0]])
    T[:3, 3] = torch.tensor([x, y, 1.5])
    return T


def made_up(seed: int, *poses: Tensor, frames: int = 1) -> ModelInputs:
    """Noise seen by cameras whose stored pictures are twice as large, and higher by 10 pixels."""
    g = torch.Generator().manual_seed(seed)
    N = len(poses)
    K = torch.tensor([[1.6 * W, 0, W], [0, 1.6 * W, H + 10], [0, 0, 1]])
    post = torch.tensor([[0.5, 0, 0], [0, 0.5, -5], [0, 0, 1]])
    return ModelInputs(
        images=torch.randn(frames, N, 3, H, W, generator=g),
        T_ego_camera=torch.stack(poses).expand(frames, -1, -1, -1),
        intrinsics=K.expand(frames, N, -1, -1),
        post_image=post.expand(frames, N, -1, -1),
        T_bda=torch.eye(4).expand(frames, -1, -1),
        points=None,
        depth=None,
    )


def over_time(*, step_m: float = 1.0, frames: int = 1) -> ModelInputs:
    """Two cameras driving forward: now, and two earlier key-frames."""
    now, before, long_before = (
        made_up(seed, pose(x=-seed * step_m), pose(x=-seed * step_m, yaw_rad=2.0), frames=frames)
        for seed in range(3)
    )
    return replace(now, previous=(before, long_before))


def student(*, reference_parity: bool = False) -> StereoStudent:
    torch.manual_seed(0)
    camera = replace(CONFIG.camera, lift=replace(LIFT, reference_parity=reference_parity))
    return StereoStudent(replace(CONFIG, camera=camera)).eval()


# ---- depth bins and matching


def test_published_log_depths_reach_from_the_minimum_to_1_m_before_the_maximum() -> None:
    lift = preset("flashocc_r50_4d_stereo").with_reference_parity().network.camera.lift  # type: ignore[union-attr]
    assert isinstance(lift, LssConfig)
    depths = lift.depths_m()
    assert depths.shape == (88,)
    assert depths[0] == 1.0 and depths[-1].item() == pytest.approx(44.0, rel=1e-6)
    ratio = depths[1:] / depths[:-1]
    torch.testing.assert_close(ratio, torch.full((87,), 44.0 ** (1 / 87)), rtol=1e-6, atol=0)


def test_clean_log_depths_are_the_centres_of_bins_that_fill_the_range() -> None:
    depths = LIFT.depths_m().double()
    edges = 2.0 * 9.0 ** (torch.arange(17, dtype=torch.float64) / 16)
    torch.testing.assert_close(depths, (edges[1:] * edges[:-1]).sqrt(), rtol=1e-6, atol=0)


def texture(x: Tensor, y: Tensor) -> Tensor:
    """(..., C) smooth patterns over a plane; nowhere exactly zero."""
    g = torch.Generator().manual_seed(1)
    k, phase = torch.rand(3, 16, generator=g), torch.rand(16, generator=g) * 6
    return 2 + torch.sin((x[..., None] * k[0] + y[..., None] * k[1]) * 8 + phase)


def view_of_plane(camera: ModelInputs, plane_m: float, *, corner_aligned: bool) -> Tensor:
    """(1, C, h, w) features of a wall across the road at x = plane_m, seen by one camera."""
    h, w = H // 4, W // 4
    if corner_aligned:
        u, v = torch.linspace(0, W - 1, w), torch.linspace(0, H - 1, h)
    else:
        u, v = torch.arange(w) * 4 + 1.5, torch.arange(h) * 4 + 1.5
    v, u = torch.meshgrid(v, u, indexing="ij")
    pixel = torch.stack((u, v, torch.ones_like(u))).view(3, -1)
    to_ray = torch.inverse(camera.post_image[0, 0] @ camera.intrinsics[0, 0])
    T = camera.T_ego_camera[0, 0]
    ray = T[:3, :3] @ to_ray @ pixel
    point = T[:3, 3:] + ray * ((plane_m - T[0, 3]) / ray[0])
    return texture(point[1] / plane_m, point[2] / plane_m).view(h, w, -1).permute(2, 0, 1)[None]


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("bin_", [4, 8, 11])
def test_matching_costs_least_at_the_true_depth(parity: bool, bin_: int) -> None:
    lift = Lift(replace(LIFT, reference_parity=parity))
    plane = float(lift.config.depths_m()[bin_])
    now, before = made_up(0, pose()), made_up(1, pose(x=-0.05 * plane, y=0.3 * plane, yaw_rad=0.02))
    h, w = H // 4, W // 4
    at = sweep_positions(lift.scaled_pixels(now, h, w), now, before, corner_aligned=parity)
    at = at.view(1, -1, h, w, 2)
    cost = matching_cost(
        view_of_plane(now, plane, corner_aligned=parity),
        view_of_plane(before, plane, corner_aligned=parity),
        at,
        unseen_cost=5.0,
        reference_parity=parity,
    )
    seen = (at[0, bin_].abs() < 0.95).all(dim=-1)
    best = cost[0].argmin(dim=0)[seen]
    assert len(best) > 200
    assert (best == bin_).float().mean() > 0.97


def test_what_the_earlier_picture_does_not_reach_costs_more() -> None:
    features, earlier = torch.full((1, 4, 1, 3), 2.0), torch.full((1, 4, 1, 3), 2.0)
    at = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-2.0, -2.0]]).view(1, 1, 1, 3, 2)
    for parity in (False, True):
        cost = matching_cost(features, earlier, at, unseen_cost=5.0, reference_parity=parity)
        assert cost[0, 0, 0].tolist() == [0.0, 8.0 + 5, 8.0 + 5]


def test_only_the_published_rule_takes_a_dark_feature_for_unseen() -> None:
    features, at = torch.ones(1, 8, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    dark = torch.ones(1, 8, 2, 2)
    dark[:, 4] = 0
    extra = [
        matching_cost(features, dark, at, unseen_cost=5.0, reference_parity=parity) - 1
        for parity in (False, True)
    ]
    assert extra[0].eq(0).all() and extra[1].eq(5).all()


def test_points_behind_the_earlier_camera_are_unseen() -> None:
    lift = Lift(LIFT)
    now, ahead = made_up(0, pose()), made_up(1, pose(x=50.0))
    at = sweep_positions(lift.scaled_pixels(now, 4, 6), now, ahead, corner_aligned=False)
    assert at.eq(-2).all()


# ---- the network


def bevs_read(net: StereoStudent, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
    """What the BEV encoder reads: the earlier frame's BEV and the current one's."""
    read: list[Tensor] = []
    hook = net.img_bev_encoder_backbone.register_forward_pre_hook(
        lambda _m, args: read.append(args[0])
    )
    with torch.no_grad():
        net.bev(inputs)
    hook.remove()
    earlier, current = read[0].chunk(2, dim=1)
    return earlier, current


@pytest.mark.parametrize("parity", [False, True])
def test_a_standing_camera_gives_the_same_bev_twice(parity: bool) -> None:
    now = made_up(0, pose(), pose(yaw_rad=2.0))
    earlier, current = bevs_read(
        student(reference_parity=parity), replace(now, previous=(now, now))
    )
    assert torch.equal(earlier, current) and current.abs().max() > 0


def test_the_earlier_bev_comes_first() -> None:
    net, inputs = student(), over_time()
    changed = replace(inputs, images=inputs.images.flip(-1))
    a, b = bevs_read(net, inputs), bevs_read(net, changed)
    assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_an_earlier_frame_is_lifted_into_the_current_ego_frame() -> None:
    """Driving on by one cell moves what the earlier frame saw back by one cell."""
    net, lifted = student(), list[Tensor]()
    net.img_view_transformer.register_forward_hook(lambda _m, _i, out: lifted.append(out[0]))
    now, (before, long_before) = over_time(), over_time().previous
    cell = torch.zeros(4, 4)
    cell[0, 3] = GRID.size_m[0]
    driven = tuple(replace(f, T_ego_camera=f.T_ego_camera - cell) for f in (before, long_before))
    with torch.no_grad():
        net.bev(replace(now, previous=(before, long_before)))
        net.bev(replace(now, previous=driven))
    stood, drove = lifted[0], lifted[2]  # (B, C, Y, X)
    same = torch.isclose(stood[..., 1:], drove[..., :-1], rtol=1e-3, atol=1e-5)
    assert stood.abs().max() > 0.01
    assert same.float().mean() > 0.99


def test_the_nearest_frame_gives_a_bev_and_the_farthest_only_features_to_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, inputs = student(), over_time()
    whole: list[Tensor] = []
    first: list[Tensor] = []
    net.img_backbone.register_forward_pre_hook(lambda _m, args: whole.append(args[0]))
    original = net.img_backbone.first_map
    monkeypatch.setattr(
        net.img_backbone, "first_map", lambda images: (first.append(images), original(images))[1]
    )
    with torch.no_grad():
        net(inputs)
    before, long_before = inputs.previous
    assert len(whole) == 2 and len(first) == 1
    assert torch.equal(whole[0], before.images[0]) and torch.equal(whole[1], inputs.images[0])
    assert torch.equal(first[0], long_before.images[0])


def test_earlier_frames_change_the_depth() -> None:
    net, inputs = student(), over_time()
    with torch.no_grad():
        _, depth = net.bev_and_depth(inputs)
        _, other = net.bev_and_depth(replace(inputs, previous=inputs.previous[::-1]))
    assert depth.shape == (2, 16, 4, 6)
    torch.testing.assert_close(depth.sum(dim=1), torch.ones(2, 4, 6))
    assert not torch.equal(depth, other)


def test_a_wrong_number_of_earlier_frames_is_refused() -> None:
    inputs = over_time()
    with pytest.raises(ValueError, match=r"reads 2 earlier frames, the inputs have 1"):
        student()(replace(inputs, previous=inputs.previous[:1]))


def test_a_batch_of_moments_gives_what_each_gives_alone() -> None:
    net, both = student(), over_time(frames=2)

    def only(b: int, f: ModelInputs) -> ModelInputs:
        return replace(
            f,
            images=f.images[b : b + 1],
            T_ego_camera=f.T_ego_camera[b : b + 1],
            intrinsics=f.intrinsics[b : b + 1],
            post_image=f.post_image[b : b + 1],
            T_bda=f.T_bda[b : b + 1],
            previous=tuple(only(b, p) for p in f.previous),
        )

    with torch.no_grad():
        together = net(both)
        assert together.shape == (2, 16, 16, 2, 3)
        for b in range(2):
            torch.testing.assert_close(net(only(b, both))[0], together[b], rtol=1e-4, atol=1e-5)


def test_a_mirrored_bev_mirrors_every_frame() -> None:
    mirrored = over_time().mirrored(x=False, y=True)
    for frame in (mirrored, *mirrored.previous):
        assert frame.T_bda[0].diagonal().tolist() == [1, -1, 1, 1]


@pytest.mark.parametrize("autocast", [False, True])
def test_every_parameter_learns_from_the_current_frame_alone(autocast: bool) -> None:
    net, inputs = student().train(), over_time(frames=2)
    frames = (inputs, *inputs.previous)
    for frame in frames:
        frame.images.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, autocast):
        net(inputs).float().square().mean().backward()
    dead = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []
    assert [frame.images.grad is not None for frame in frames] == [True, False, False]


def test_autocast_leaves_matching_and_geometry_alone() -> None:
    net, inputs, seen = student(), over_time(), list[Tensor]()
    transform = net.img_view_transformer
    fine, earlier = torch.rand(2, 8, 16, 24), torch.rand(2, 8, 16, 24)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            seen.append(transform.matching(fine, inputs, earlier, inputs.previous[0]))
            bev = net.bev(inputs)
    assert torch.equal(*seen)
    assert bev.dtype == torch.bfloat16, "autocast did not reach the trunk"


def test_state_has_the_official_names_and_shapes() -> None:
    with torch.device("meta"):
        state = build("flashocc_r50_4d_stereo").state_dict()
    depth_net = "img_view_transformer.depth_net."
    for key, shape in {
        "img_backbone.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "img_neck.lateral_convs.0.conv.weight": (256, 1024, 1, 1),
        depth_net + "reduce_conv.0.bias": (256,),
        depth_net + "bn.running_mean": (27,),
        depth_net + "depth_mlp.fc1.weight": (256, 27),
        depth_net + "context_se.conv_expand.bias": (256,),
        depth_net + "context_conv.weight": (80, 256, 1, 1),
        depth_net + "cost_volumn_net.3.running_var": (88,),
        depth_net + "depth_conv.0.downsample.weight": (256, 344, 1, 1),
        depth_net + "depth_conv.2.bn2.bias": (256,),
        depth_net + "depth_conv.3.aspp4.atrous_conv.weight": (96, 256, 3, 3),
        depth_net + "depth_conv.3.aspp1.bn.num_batches_tracked": (),
        depth_net + "depth_conv.3.global_avg_pool.2.weight": (96,),
        depth_net + "depth_conv.3.conv1.weight": (256, 480, 1, 1),
        depth_net + "depth_conv.4.bias": (88,),
        "pre_process_net.layers.0.0.downsample.weight": (80, 80, 3, 3),
        "img_bev_encoder_backbone.layers.0.0.conv1.weight": (160, 160, 3, 3),
        "img_bev_encoder_neck.conv.0.weight": (512, 800, 3, 3),
        "occ_head.predicter.2.weight": (288, 512),
    }.items():
        assert tuple(state[key].shape) == shape, key
    assert len(state) == 562


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lift": replace(LIFT, depth_channels=None)}, "depth_channels"),
        ({"backbone": replace(CONFIG.camera.backbone, outputs=(3, 4))}, "stage 1"),
    ],
)
def test_a_camera_branch_without_what_stereo_needs_is_refused(
    change: dict[str, LssConfig | ResNetConfig], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, camera=replace(CONFIG.camera, **change))  # type: ignore[arg-type]


# ---- inputs


class DrivingLog:
    """Four key-frames, 5 m and a bend apart, of two cameras; pictures tell their frame by grey."""

    name, licence = "made-up", "none"

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("a",)

    def scene(self, scene_id: str) -> Scene:
        return Scene(scene_id=scene_id, frames=tuple(self.frame(scene_id, k) for k in range(4)))

    def frame(self, scene_id: str, k: int) -> Frame:
        c, s = np.cos(0.1 * k), np.sin(0.1 * k)
        T_global_ego = np.eye(4)
        T_global_ego[:2, :2] = [[c, -s], [s, c]]
        T_global_ego[:3, 3] = [1000 + 5 * k, 400 + k, 0]
        cameras = tuple(self.view(k, i) for i in range(2))
        return Frame(
            scene_id=scene_id,
            token=f"t{k}",
            timestamp_us=k,
            T_global_ego=T_global_ego,
            cameras=cameras,
            lidar=None,
        )

    def view(self, k: int, i: int) -> CameraView:
        T_ego_vehicle = np.eye(4)
        T_ego_vehicle[0, 3] = 0.1 * (k + 1)  # taken a little later than the key-frame
        return CameraView(
            name=f"CAM_{i}",
            path=Path(f"{k}_{i}.jpg"),
            timestamp_us=k,
            width=32,
            height=24,
            intrinsics=np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]]),
            T_ego_camera=T_ego_vehicle @ pose(yaw_rad=2.0 * i).double().numpy(),
            T_ego_vehicle=T_ego_vehicle,
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        self.opened[view.path.name] += 1
        return np.full((24, 32, 3), 10 + 50 * int(view.path.name[0]), np.uint8)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        raise AssertionError("a camera-only set opened a LiDAR file")

    def n_frames(self, scene_id: str) -> int:
        return len(self.scene(scene_id).frames)

    def fingerprint(self, scene_id: str) -> str:
        return "made-up"

    def scene_frames(self) -> tuple[Frame, ...]:
        return self.scene("a").frames


class NoLabels:
    what = "no labels"

    def check(self, scene: Scene) -> None:
        pass

    def identity(self, scenes: Mapping[str, Sequence[Frame]]) -> dict[str, dict[str, str]]:
        return {}

    def scene_ids(self) -> tuple[str, ...]:
        return ("a",)

    def target(self, frame: Frame) -> Target:
        return Target(
            semantics=np.zeros((4, 4, 2), np.uint8), weight=np.ones((4, 4, 2), np.float32)
        )

    def excluded_frames(self, scene_id: str) -> frozenset[str]:
        return frozenset()


SPEC = InputSpec(height=8, width=16, lidar=False, past_frames=2)


def test_earlier_frames_are_nearest_first_and_a_frame_stands_in_for_those_it_lacks() -> None:
    frames = DrivingLog().scene_frames()
    tokens = [[f.token for f in earlier_frames(frames, k, 2)] for k in range(4)]
    assert tokens == [["t0", "t0"], ["t0", "t1"], ["t1", "t0"], ["t2", "t1"]]
    assert earlier_frames(frames, 3, 0) == ()


def test_a_network_of_one_frame_opens_no_further_picture() -> None:
    log = DrivingLog()
    inputs = prepare_frame(log, log.scene_frames()[2], replace(SPEC, past_frames=0))
    assert inputs.previous == () and log.opened == {"2_0.jpg": 1, "2_1.jpg": 1}


def global_poses(frame: Frame) -> list[Transform]:
    return [frame.T_global_ego @ v.T_ego_camera for v in frame.cameras]


@pytest.mark.parametrize("parity", [False, True])
def test_earlier_cameras_stand_where_they_stood_in_the_world(parity: bool) -> None:
    log = DrivingLog()
    frames = log.scene_frames()
    spec = replace(SPEC, reference_parity=parity)
    inputs = prepare_frame(log, frames[3], spec, earlier_frames(frames, 3, 2))
    T_global = frames[3].T_global_ego
    if parity:  # the published frame: the vehicle when the first camera was triggered
        T_global = T_global @ frames[3].cameras[0].T_ego_vehicle
    for got, frame in zip((inputs, *inputs.previous), frames[:0:-1], strict=True):
        np.testing.assert_allclose(T_global @ got.T_ego_camera, global_poses(frame), atol=1e-9)
    assert [int(f.images.max()) for f in (inputs, *inputs.previous)] == [160, 110, 60]


def test_a_batch_keeps_the_earlier_frames_of_each() -> None:
    log = DrivingLog()
    frames = log.scene_frames()
    both = [prepare_frame(log, frames[k], SPEC, earlier_frames(frames, k, 2)) for k in (2, 3)]
    T_bda = np.stack([np.eye(4), np.diag([1.0, -1, 1, 1])])
    batch = collate(both, T_bda).to("cpu")
    assert [f.images.shape[0] for f in (batch, *batch.previous)] == [2, 2, 2]
    for i, earlier in enumerate(batch.previous):
        want = np.stack([f.previous[i].T_ego_camera for f in both])
        np.testing.assert_allclose(earlier.T_ego_camera, want, atol=1e-5)
        assert torch.equal(earlier.T_bda, batch.T_bda)
        assert earlier.points is None and earlier.depth is None


def test_earlier_frames_must_be_as_many_as_the_network_reads() -> None:
    log = DrivingLog()
    with pytest.raises(ValueError, match="expected 2 earlier frames, got 0"):
        prepare_frame(log, log.scene_frames()[3], SPEC)


def test_earlier_cameras_are_found_by_name_and_a_missing_one_is_stood_in_for() -> None:
    log = DrivingLog()
    now, before = log.scene_frames()[3], log.scene_frames()[2]
    swapped = replace(before, cameras=before.cameras[::-1])
    lost = replace(before, cameras=before.cameras[1:])
    plain = prepare_frame(log, now, SPEC, (before, before))
    got = prepare_frame(log, now, SPEC, (swapped, lost))
    for name in ("images", "T_ego_camera", "intrinsics", "post_image"):
        want = getattr(plain.previous[0], name)
        np.testing.assert_array_equal(getattr(got.previous[0], name), want)
        np.testing.assert_array_equal(getattr(got.previous[1], name)[0], getattr(plain, name)[0])
        np.testing.assert_array_equal(getattr(got.previous[1], name)[1:], want[1:])


def test_a_training_set_gives_every_frame_its_earlier_ones() -> None:
    log = DrivingLog()
    samples = FrameDataset(log, [NoLabels()], SPEC, augment=None)
    greys = {tuple(samples._drawn(i, [])[1][0].images[0, 0, 0].tolist()): i for i in range(4)}
    assert len(greys) == 4
    for i in range(4):
        inputs = samples._drawn(i, [])[1][0]
        now, *past = ((int(f.images.max()) - 10) // 50 for f in (inputs, *inputs.previous))
        assert past == [now - 1 if now >= 1 else now, now - 2 if now >= 2 else now]


class SaysNothing(nn.Module):
    """Keeps which frames it was shown, by their grey."""

    def __init__(self) -> None:
        super().__init__()
        self.anywhere = nn.Parameter(torch.zeros(()))
        self.shown: list[list[int]] = []

    def forward(self, inputs: ModelInputs) -> Tensor:
        frames = (inputs, *inputs.previous)
        levels = [float(f.images[0, 0, 0].max()) for f in frames]
        self.shown.append([round((v * 58.395 + 123.675 - 10) / 50) for v in levels])
        return torch.zeros(1, *LABEL_GRID.shape, 18)


LABEL_GRID = VoxelGrid(min_m=(-8.0, -8.0, -1.0), size_m=(2.0,) * 3, shape=(8, 8, 2))


def test_labelling_shows_every_frame_with_its_earlier_ones() -> None:
    log, chosen = (
        DrivingLog(),
        replace(preset("flashocc_r50_4d_stereo"), grid=LABEL_GRID, inputs=SPEC),
    )
    teacher = OccupancyPredictor(SaysNothing(), chosen)  # type: ignore[arg-type]
    label_scene(log.scene("a"), log, teacher, Calibration.uncalibrated(18), LabelingConfig())
    assert isinstance(teacher.network, SaysNothing)
    assert teacher.network.shown == [[0, 0, 0], [1, 0, 1], [2, 1, 0], [3, 2, 1]]


def test_the_folded_network_predicts_the_same() -> None:
    net, inputs = student().train(), over_time(frames=2)
    with torch.no_grad():
        for _ in range(3):
            net(inputs)  # so that the norms have something to fold
        expected = net.eval()(inputs)
    teacher = OccupancyPredictor(net, preset("flashocc_r50_4d_stereo"))
    torch.testing.assert_close(teacher.predict(inputs), expected, rtol=1e-3, atol=1e-4)
    fast = OccupancyPredictor(net, preset("flashocc_r50_4d_stereo"), bfloat16=True, tta_flips=True)
    assert torch.isfinite(fast.predict(inputs)).all()


def test_a_network_reads_what_a_log_gives() -> None:
    log, net = DrivingLog(), student()
    spec = replace(SPEC, height=H, width=W)
    frames = log.scene_frames()
    with torch.inference_mode():
        for k in range(3):
            inputs = collate([prepare_frame(log, frames[k], spec, earlier_frames(frames, k, 2))])
            assert torch.isfinite(net(inputs)).all()


PUBLISHED_NORMS = {"bev_concat": 4702.287, "bev_neck": 4045.134, "logits": 5981.407}
PUBLISHED_VALUES = {
    "bev_concat": "0 0.26095 0 8.98615e-05 0.0560974 0 0 0.288472 0 0.111158 0.0560974 0",
    "bev_neck": "0.3138 -0.0361861 0.460819 0.220372 -0.0317149 -0.519614 "
    "0.480012 -0.0091383 0.223378 0.229696 -0.0608298 -0.484039",
    "logits": "-1.4311 -1.60282 -0.942413 -1.2926 -1.6003 -0.549824 "
    "-1.37044 -1.61972 -0.855566 -1.4287 -1.60867 -0.89201",
}
"""Of maps of the published code, for the inputs and weights below: norm, and twelve values. With
FlashOcc's division by the depth; EFFOcc's copy adds 1e-5 to it."""
PUBLISHED_CLASSES = (
    "43895 398 82731 35177 1520 35446 42592 4459 35831 "
    "37723 10758 2580 39671 44530 96212 42093 82260 2124"
)
"""Voxels of each class there."""
FORMULA_GAINS = {
    "img_backbone.conv1.weight": 0.03,
    "img_view_transformer.depth_net.depth_mlp.fc1.weight": 0.002,
    "img_view_transformer.depth_net.context_mlp.fc1.weight": 0.002,
    "img_view_transformer.depth_net.cost_volumn_net.0.weight": 30.0,
    "img_view_transformer.depth_net.cost_volumn_net.2.weight": 4.0,
    "img_view_transformer.depth_net.depth_conv.4.weight": 0.04,
    "img_view_transformer.depth_net.context_conv.weight": 0.1,
    "img_bev_encoder_neck.up2.4.weight": 0.1,
}
"""They keep soft-max and gates unsaturated, so that every part of the network counts."""


def driven(arrays: reference.Arrays, k: int) -> ModelInputs:
    """The reference frame k key-frames earlier: pictures shifted, the vehicle further back."""
    shift_px, back_m, yaw_rad = ((0, 0.0, 0.0), (7, 2.0, 0.02), (15, 4.0, 0.04))[k]
    E = arrays["in_ego2global"].astype(np.float64)
    moved = (E @ from_yaw(yaw_rad, (-back_m, 0, 0))).astype(np.float32).astype(np.float64)
    poses = np.linalg.inv(E[0]) @ moved @ arrays["in_sensor2ego"].astype(np.float64)
    rolled = dict(arrays) | {"canvas_u8": np.roll(arrays["canvas_u8"], shift_px, axis=2)}
    inputs = reference.reference_inputs(rolled, poses.astype(np.float32))
    return replace(inputs, points=None, depth=None)


@pytest.mark.slow
@pytest.mark.skipif(
    not (reference.oracle_folder(os.environ) / "teacher_r18.npz").is_file(),
    reason="no reference frame: set AUTOLABEL_ORACLE to the oracle folder",
)
def test_the_full_network_equals_the_published_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "GAINS", FORMULA_GAINS)
    chosen = preset("flashocc_r50_4d_stereo").with_reference_parity()
    network = build_network(chosen.network).eval()
    reference.load_formula_weights(network)
    maps: dict[str, Tensor] = {}
    network.get_submodule("img_bev_encoder_backbone").register_forward_pre_hook(
        lambda _m, args: maps.update(bev_concat=args[0].clone())
    )
    network.get_submodule("img_bev_encoder_neck").register_forward_hook(
        lambda _m, _i, out: maps.update(bev_neck=out.clone())
    )
    arrays = reference.load_arrays(reference.oracle_folder(os.environ), "teacher_r18")
    now, *past = (driven(arrays, k) for k in range(3))
    with torch.inference_mode():
        maps["logits"] = network(replace(now, previous=tuple(past)))
    for name, norm in PUBLISHED_NORMS.items():
        flat = maps[name].flatten().double()
        step = len(flat) // 12
        got = flat[step // 2 :: step][:12].tolist()
        assert float(flat.norm()) == pytest.approx(norm, rel=1e-5), name
        values = [float(v) for v in PUBLISHED_VALUES[name].split()]
        assert got == pytest.approx(values, rel=1e-3, abs=2e-4), name
    classes = maps["logits"].argmax(-1).flatten().bincount(minlength=18)
    assert (classes - torch.tensor([int(n) for n in PUBLISHED_CLASSES.split()])).abs().max() <= 20
