"""From LiDAR points to a BEV map: mean of each voxel, then the sparse encoder of SECOND.

Legend: B frames, P points, V voxels, C channels, (Z, Y, X) cells.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.geometry.grid import VoxelGrid
from models.ops.precision import full_precision
from models.ops.sparse_conv import (
    SparseBatchNorm,
    SparseConv3d,
    SparseReLU,
    SparseTensor,
    Triple,
    sort_sites,
    strided_shape,
)
from models.ops.voxelize import voxelize


@dataclass(frozen=True, slots=True, kw_only=True)
class LidarConfig:
    """Shape of the LiDAR branch.

    Attributes:
        grid: the voxels, in the ego frame.
        max_points: points kept per voxel.
        max_voxels_train, max_voxels_eval: voxels kept per frame.
        features: "raw": the mean x, y, z (m), intensity (0..255) and time lag (s), as published;
            or what ``InputSpec.point_features`` puts in the place of these two.
            "local": place within the voxel (3), height (0..1), intensity (0..1), time lag (s), 1.
        channels: of each stage; every stage but the last ends in a stride-2 convolution.
        blocks: residual blocks of each stage.
        down_kernel: cells along each axis of the stride-2 convolutions, and along z of the last
            one. 3 as published; with 2 every active cell has one parent, so that sites do not
            spread and a coarse level has about a third of the sites.
        paddings: (z, y, x) of the stride-2 convolutions.
        norm_momentum: of all batch norms.

    Raises:
        ValueError: the number of paddings does not fit the stages.
    """

    grid: VoxelGrid
    max_points: int = 10
    max_voxels_train: int = 90_000
    max_voxels_eval: int = 120_000
    features: Literal["raw", "local"] = "raw"
    channels: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 2
    down_kernel: int = 3
    paddings: tuple[Triple, ...] = ((1, 1, 1), (1, 1, 1), (0, 1, 1))
    norm_momentum: float = 0.01

    def __post_init__(self) -> None:
        if len(self.paddings) != len(self.channels) - 1:
            raise ValueError(
                f"{len(self.channels)} stages need {len(self.channels) - 1} paddings, "
                f"got {len(self.paddings)}"
            )

    @property
    def sparse_shape(self) -> Triple:
        """(Z, Y, X) of the finest level: one more z cell than the grid, as in SECOND."""
        X, Y, Z = self.grid.shape
        return Z + 1, Y, X

    @property
    def out_shape(self) -> Triple:
        """(Z, Y, X) after the last convolution."""
        shape = self.sparse_shape
        for padding in self.paddings:
            shape = strided_shape(shape, (self.down_kernel,) * 3, (2, 2, 2), padding)
        return strided_shape(shape, (self.down_kernel, 1, 1), (2, 1, 1), (0, 0, 0))

    @property
    def out_channels(self) -> int:
        """BEV channels: the last stage's, once per remaining z slice."""
        return self.channels[-1] * self.out_shape[0]


class SparseBlock(nn.Module):
    """Residual block of two submanifold convolutions."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = SparseConv3d(channels, channels, submanifold=True)
        self.bn1 = SparseBatchNorm(channels, eps=1e-3, momentum=momentum)
        self.conv2 = SparseConv3d(channels, channels, submanifold=True)
        self.bn2 = SparseBatchNorm(channels, eps=1e-3, momentum=momentum)

    def forward(self, x: SparseTensor) -> SparseTensor:
        out: SparseTensor = self.bn1(self.conv1(x))
        out = out.with_features(out.features.relu_())
        out = self.bn2(self.conv2(out))
        return out.with_features(out.features.add_(x.features).relu_())


def _conv_norm_relu(conv: SparseConv3d, momentum: float) -> nn.Sequential:
    channels = conv.weight.shape[0]
    return nn.Sequential(conv, SparseBatchNorm(channels, eps=1e-3, momentum=momentum), SparseReLU())


class LidarEncoder(nn.Module):
    """Points of B frames -> (B, C, Y, X) BEV map."""

    def __init__(self, config: LidarConfig) -> None:
        super().__init__()
        self.config = config
        momentum = config.norm_momentum
        n_features = 5 if config.features == "raw" else 7
        self.conv_input = _conv_norm_relu(
            SparseConv3d(n_features, config.channels[0], submanifold=True), momentum
        )
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for i, channels in enumerate(config.channels):
            layers: list[nn.Module] = [
                SparseBlock(channels, momentum) for _ in range(config.blocks)
            ]
            if i < len(config.paddings):
                down = SparseConv3d(
                    channels,
                    config.channels[i + 1],
                    kernel=(config.down_kernel,) * 3,
                    stride=(2, 2, 2),
                    padding=config.paddings[i],
                )
                layers.append(_conv_norm_relu(down, momentum))
            stages[f"encoder_layer{i + 1}"] = nn.Sequential(*layers)
        self.encoder_layers = nn.Sequential(stages)
        last = config.channels[-1]
        self.conv_out = _conv_norm_relu(
            SparseConv3d(last, last, kernel=(config.down_kernel, 1, 1), stride=(2, 1, 1)), momentum
        )

    @torch.no_grad()
    def voxels(self, points: tuple[Tensor, ...]) -> SparseTensor:
        """Points (P, 5) of each frame -> their voxels with the input features."""
        c = self.config
        frames = [
            voxelize(
                p,
                c.grid,
                max_points=c.max_points,
                max_voxels=c.max_voxels_train if self.training else c.max_voxels_eval,
            )
            for p in points
        ]
        zyx = torch.cat([v.zyx for v in frames])
        means = torch.cat([v.means for v in frames])
        batch = torch.cat([torch.full_like(v.counts, b) for b, v in enumerate(frames)])
        if c.features == "local":
            means = _local_features(means, zyx, c.grid)
        return sort_sites(
            SparseTensor(
                features=means,
                coords=torch.cat((batch[:, None], zyx), dim=1),
                spatial_shape=c.sparse_shape,
                batch_size=len(points),
            )
        )

    def forward(self, points: tuple[Tensor, ...]) -> Tensor:
        with full_precision(points[0]):
            x: SparseTensor = self.conv_input(self.voxels(points))
            x = self.conv_out(self.encoder_layers(x))
        return x.dense().flatten(1, 2)  # channel = c * Z + z


def _local_features(means: Tensor, zyx: Tensor, grid: VoxelGrid) -> Tensor:
    cells = (means[:, :3] - means.new_tensor(grid.min_m)) / means.new_tensor(grid.size_m)
    return torch.cat(
        (
            cells - zyx.flip(1) - 0.5,
            cells[:, 2:3] / grid.shape[2],
            means[:, 3:4] / 255,
            means[:, 4:5],
            torch.ones_like(means[:, :1]),
        ),
        dim=1,
    )
