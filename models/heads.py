"""The channel-to-height head: a BEV cell's channels become a column of voxels (FlashOcc).

This is the one place where BEV maps (B, C, Y, X) become occupancy (B, X, Y, Z, K).
Legend: B frames, C channels, K classes, M sampled columns, u sub-columns along each BEV axis.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fpn import biased_conv


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """Shape of the head.

    Attributes:
        conv_channels: of the 3x3 convolution; hidden: of the column network.
        levels: Z; classes: K.
        bev_upsample: each BEV cell gives u x u columns.
        skip_channels: per voxel, behind the trunk's channels in the BEV map (see
            ``voxel_skip.py``); they are added to the logits through one linear layer.
    """

    conv_channels: int = 256
    hidden: int = 512
    levels: int = 16
    classes: int = 18
    bev_upsample: int = 1
    skip_channels: int = 0

    @property
    def map_skip_channels(self) -> int:
        """Channels of the BEV map that hold the voxels' own features."""
        return self.bev_upsample**2 * self.levels * self.skip_channels


class OccupancyHead(nn.Module):
    """BEV features -> logits of every voxel, or of sampled columns only."""

    def __init__(self, in_channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.final_conv = biased_conv(in_channels, config.conv_channels, 3)
        conv = self.final_conv.get_submodule("conv")
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        out = config.bev_upsample**2 * config.levels * config.classes
        self.predicter = nn.Sequential(
            OrderedDict(
                [
                    ("0", nn.Linear(config.conv_channels, config.hidden)),
                    ("1", nn.Softplus()),
                    ("2", nn.Linear(config.hidden, out)),
                ]
            )
        )
        if config.skip_channels:
            self.voxel = nn.Linear(config.skip_channels, config.classes, bias=False)

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> logits (B, X u, Y u, Z, K)."""
        c = self.config
        u = c.bev_upsample
        cells, skip = self._cells(bev)
        B, X, Y, _ = cells.shape
        logits: Tensor = self.predicter(cells).view(B, X, Y, u, u, c.levels, c.classes)
        if c.skip_channels:
            logits = logits + self.voxel(skip.reshape(B, X, Y, u, u, c.levels, -1))
        if u == 1:
            return logits[:, :, :, 0, 0]
        out = logits.permute(0, 1, 3, 2, 4, 5, 6)
        return out.reshape(B, X * u, Y * u, c.levels, c.classes)

    def _cells(self, bev: Tensor) -> tuple[Tensor, Tensor]:
        """The head's own features (B, X, Y, C) and the voxels' features (B, X, Y, u u Z c)."""
        skip_channels = self.config.map_skip_channels
        trunk, skip = bev[:, : bev.shape[1] - skip_channels], bev[:, bev.shape[1] - skip_channels :]
        cells = torch.relu(self.final_conv(trunk))
        return cells.permute(0, 3, 2, 1), skip.permute(0, 3, 2, 1)

    def columns(
        self,
        bev: Tensor,  # (B, C, Y, X)
        column_index: Tensor,  # (M,) int64, row-major over (B, X u, Y u)
    ) -> Tensor:
        """Logits of the named columns only, (M, Z, K): equal to ``forward`` at those columns."""
        c = self.config
        u = c.bev_upsample
        cells, skip = self._cells(bev)
        X, Y = cells.shape[1:3]
        b, x, y = (
            column_index // (X * u * Y * u),
            column_index // (Y * u) % (X * u),
            column_index % (Y * u),
        )
        hidden = self.predicter[:2](cells[b, x // u, y // u])
        last = self.predicter[2]
        assert isinstance(last, nn.Linear)
        # the last layer has a block of rows for each sub-column: evaluate the asked block only
        weight, bias = last.weight.view(u * u, -1, c.hidden), last.bias.view(u * u, -1)
        block = x % u * u + y % u
        order = block.argsort(stable=True)
        parts = hidden[order].split(block.bincount(minlength=u * u).tolist())
        logits = torch.cat(
            [nn.functional.linear(h, weight[i], bias[i]) for i, h in enumerate(parts)]
        )
        logits = logits[order.argsort()].view(-1, c.levels, c.classes)
        if c.skip_channels:
            of_cell = skip[b, x // u, y // u].view(len(b), u * u, c.levels, -1)
            logits = logits + self.voxel(of_cell[torch.arange(len(b), device=b.device), block])
        return logits
