"""Depth network of the stereo student, conditioned on camera parameters and a cost volume.

As in BEVDepth (arXiv 2206.10092) and BEVStereo (arXiv 2209.10248); module names are those of the
official weights, their spelling included.

Legend: B frames, N cameras, M pictures that are there, C channels, D depth bins, (h, w) feature
pixels.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from datasets.model_inputs import ModelInputs
from models.networks.resnet import BasicBlock

CAMERA_NUMBERS = 27
DILATIONS = (1, 6, 12, 18)


def camera_numbers(frame: ModelInputs, T_ego_camera: Tensor) -> Tensor:
    """What gates the network: lens, picture augmentation, BEV augmentation, pose; (M, 27).

    Args:
        T_ego_camera: (B, N, 4, 4), the poses told. The published network tells the current frame's
            for earlier frames as well, where ``frame`` has ego motion in its own.
    """
    K, post = frame.intrinsics, frame.post_image
    bda = frame.T_bda[:, None].expand_as(T_ego_camera)
    numbers = (
        torch.stack((K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2]), dim=-1),
        post[..., :2, :].flatten(-2),
        bda[..., :2, :2].flatten(-2),
        bda[..., 2, 2, None],
        T_ego_camera[..., :3, :].flatten(-2),
    )
    return frame.pictures(torch.cat(numbers, dim=-1))


class DepthNet(nn.Module):
    """Picture features, camera numbers and a cost volume -> depth logits and context.

    Args:
        in_channels: of the picture features; channels: C of the network.
        depths: D. context_channels: of the context. aspp_channels: of each of the five branches.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        depths: int,
        context_channels: int,
        aspp_channels: int,
    ) -> None:
        super().__init__()
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(True)
        )
        self.bn = nn.BatchNorm1d(CAMERA_NUMBERS)
        self.context_mlp = _Mlp(CAMERA_NUMBERS, channels)
        self.context_se = _Gate(channels)
        self.context_conv = nn.Conv2d(channels, context_channels, 1)
        self.depth_mlp = _Mlp(CAMERA_NUMBERS, channels)
        self.depth_se = _Gate(channels)
        self.cost_volumn_net = nn.Sequential(
            nn.Conv2d(depths, depths, 3, stride=2, padding=1),
            nn.BatchNorm2d(depths),
            nn.Conv2d(depths, depths, 3, stride=2, padding=1),
            nn.BatchNorm2d(depths),
        )
        joint_channels = channels + depths
        self.depth_conv = nn.Sequential(
            BasicBlock(joint_channels, channels, downsample=nn.Conv2d(joint_channels, channels, 1)),
            BasicBlock(channels, channels, downsample=None),
            BasicBlock(channels, channels, downsample=None),
            Aspp(channels, aspp_channels),
            nn.Conv2d(channels, depths, 1),
        )

    def forward(
        self,
        features: Tensor,  # (M, in_channels, h, w)
        cameras: Tensor,  # (M, 27)
        matching: Tensor,  # (M, D, 4 h, 4 w), probability of each depth by matching alone
    ) -> tuple[Tensor, Tensor]:
        """(M, D, h, w) logits and (M, context_channels, h, w) context."""
        cameras = self.bn(cameras)
        x = self.reduce_conv(features)
        context = self.context_conv(self.context_se(x, self.context_mlp(cameras)))
        depth = self.depth_se(x, self.depth_mlp(cameras))
        depth = self.depth_conv(torch.cat((depth, self.cost_volumn_net(matching)), dim=1))
        return depth, context


class _Mlp(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.fc1(x).relu())
        return out


class _Gate(nn.Module):
    """Scales channels by what the cameras say (squeeze-and-excitation without the squeeze)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cameras: Tensor) -> Tensor:
        gate: Tensor = self.conv_expand(self.conv_reduce(cameras[..., None, None]).relu())
        return x * gate.sigmoid()


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1706.05587): four dilations and the whole picture."""

    def __init__(self, channels: int, branch_channels: int) -> None:
        super().__init__()
        for i, dilation in enumerate(DILATIONS, start=1):
            self.add_module(f"aspp{i}", _atrous(channels, branch_channels, dilation))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, branch_channels, 1, bias=False),
            nn.BatchNorm2d(branch_channels),
            nn.ReLU(True),
        )
        self.conv1 = nn.Conv2d((len(DILATIONS) + 1) * branch_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.get_submodule(f"aspp{i + 1}")(x) for i in range(len(DILATIONS))]
        pooled = self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])
        x = self.bn1(self.conv1(torch.cat((*branches, pooled), dim=1)))
        out: Tensor = self.dropout(x.relu())
        return out


def _atrous(in_channels: int, channels: int, dilation: int) -> nn.Sequential:
    kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
    conv = nn.Conv2d(in_channels, channels, kernel, 1, padding, dilation, bias=False)
    return nn.Sequential(OrderedDict(atrous_conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU()))
