"""Dense BEV networks: the teacher's (fuser, SECOND, its neck) and the student's (ResNet, its neck).

Legend: B frames, C channels, (Y, X) BEV cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> list[nn.Module]:
    """Convolution without bias, batch norm, ReLU."""
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum),
        nn.ReLU(inplace=True),
    ]


def kaiming_init(module: nn.Module) -> None:
    """Kaiming-normal (fan out) for every convolution of a module."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class ConvFuser(nn.Module):
    """Camera and LiDAR BEV, concatenated in that order, through one 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.occ_enc = nn.Sequential(*conv_norm_relu(in_channels, out_channels))

    def forward(self, camera_bev: Tensor, lidar_bev: Tensor) -> Tensor:
        out: Tensor = self.occ_enc(torch.cat((camera_bev, lidar_bev), dim=1))
        return out


class ResidualFuser(nn.Module):
    """The LiDAR BEV plus what a 1x1 convolution makes of the camera BEV; that is 0 at first.

    A network with trained LiDAR weights thus starts as what it was (zero-initialised residual
    branch, Goyal et al., arXiv 1706.02677, section 5.1), and no LiDAR channel is squeezed.
    """

    def __init__(self, camera_channels: int, lidar_channels: int, *, momentum: float) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(lidar_channels, momentum=momentum)
        nn.init.zeros_(norm.weight)
        self.occ_enc = nn.Sequential(
            nn.Conv2d(camera_channels, lidar_channels, 1, bias=False), norm
        )

    def forward(self, camera_bev: Tensor, lidar_bev: Tensor) -> Tensor:
        out: Tensor = lidar_bev + self.occ_enc(camera_bev)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondConfig:
    """SECOND and its neck (Sensors 2018).

    Attributes:
        channels: of the stages, two in EFFOcc; each after the first has stride 2.
        first_stride: of the first stage; the neck's output is as coarse.
        layers: 3x3 convolutions of each stage after its first.
        neck_channels: of each branch of the neck, one a stage.
        norm_momentum: of all batch norms.
    """

    channels: tuple[int, ...] = (128, 256)
    first_stride: int = 1
    layers: tuple[int, ...] = (5, 5)
    neck_channels: int = 256
    norm_momentum: float = 0.01

    @property
    def out_channels(self) -> int:
        return len(self.channels) * self.neck_channels


class Second(nn.Module):
    """(B, C, Y, X) -> [(B, C0, Y/s, X/s), (B, C1, Y/2s, X/2s), ...], s being the first stride."""

    def __init__(self, in_channels: int, config: SecondConfig) -> None:
        super().__init__()
        stages = []
        for stage, (channels, n) in enumerate(zip(config.channels, config.layers, strict=True)):
            layers: list[nn.Module] = []
            for i in range(n + 1):
                layers += conv_norm_relu(
                    in_channels,
                    channels,
                    stride=1 if i else 2 if stage else config.first_stride,
                    eps=1e-3,
                    momentum=config.norm_momentum,
                )
                in_channels = channels
            stages.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(stages)
        kaiming_init(self)

    def forward(self, bev: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            bev = block(bev)
            maps.append(bev)
        return maps


class SecondFpn(nn.Module):
    """The stages of SECOND at the first one's resolution, concatenated."""

    def __init__(self, config: SecondConfig) -> None:
        super().__init__()
        out = config.neck_channels
        first, *coarser = config.channels
        convs: list[nn.Module] = [nn.Conv2d(first, out, 1, bias=False)]
        convs += [
            nn.ConvTranspose2d(channels, out, 2**k, 2**k, bias=False)
            for k, channels in enumerate(coarser, start=1)
        ]
        self.deblocks = nn.ModuleList(
            nn.Sequential(
                conv, nn.BatchNorm2d(out, eps=1e-3, momentum=config.norm_momentum), nn.ReLU(True)
            )
            for conv in convs
        )
        kaiming_init(self)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([up(m) for up, m in zip(self.deblocks, maps, strict=True)], dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BevResNetConfig:
    """The student's BEV encoder (FlashOcc, arXiv 2311.12058).

    Attributes:
        channels, blocks, strides: of the three stages.
        neck_channels: F of the neck's output.
        last_upsample: of the neck's output with respect to the first stage.
    """

    channels: tuple[int, int, int] = (128, 256, 512)
    blocks: tuple[int, int, int] = (2, 2, 2)
    strides: tuple[int, int, int] = (2, 2, 2)
    neck_channels: int = 256
    last_upsample: int = 2


class BevBlock(nn.Module):
    """Residual block; the first of a stage has a biased 3x3 shortcut without norm."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Conv2d(in_channels, channels, 3, stride, 1) if first else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        out: Tensor = self.bn2(self.conv2(x))
        return out.add_(shortcut).relu_()


class BevResNet(nn.Module):
    """(B, C, Y, X) -> the maps of three stages, fine to coarse."""

    def __init__(self, in_channels: int, config: BevResNetConfig) -> None:
        super().__init__()
        stages = []
        for channels, n, stride in zip(config.channels, config.blocks, config.strides, strict=True):
            blocks = []
            for i in range(n):
                blocks.append(
                    BevBlock(in_channels, channels, stride=stride if i == 0 else 1, first=i == 0)
                )
                in_channels = channels
            stages.append(nn.Sequential(*blocks))
        self.layers = nn.ModuleList(stages)

    def forward(self, bev: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            bev = layer(bev)
            maps.append(bev)
        return maps


class BevNeck(nn.Module):
    """The coarsest stage brought to the first one's size, joined, and upsampled (``FPN_LSS``)."""

    def __init__(self, config: BevResNetConfig) -> None:
        super().__init__()
        F = config.neck_channels
        self.conv = nn.Sequential(
            *conv_norm_relu(config.channels[0] + config.channels[2], 2 * F),
            *conv_norm_relu(2 * F, 2 * F),
        )
        up: nn.Module = nn.Identity()
        if config.last_upsample != 1:
            up = nn.Upsample(scale_factor=config.last_upsample, mode="bilinear", align_corners=True)
        self.up2 = nn.Sequential(up, *conv_norm_relu(2 * F, F), nn.Conv2d(F, F, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, coarse = maps[0], maps[-1]
        coarse = nn.functional.interpolate(
            coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True
        )
        out: Tensor = self.up2(self.conv(torch.cat((fine, coarse), dim=1)))
        return out
