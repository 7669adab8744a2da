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
    """

    conv_channels: int = 256
    hidden: int = 512
    levels: int = 16
    classes: int = 18
    bev_upsample: int = 1


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

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> logits (B, X u, Y u, Z, K)."""
        c = self.config
        u = c.bev_upsample
        cells = torch.relu(self.final_conv(bev)).permute(0, 3, 2, 1)
        B, X, Y, _ = cells.shape
        logits: Tensor = self.predicter(cells).view(B, X, Y, u, u, c.levels, c.classes)
        if u == 1:
            return logits[:, :, :, 0, 0]
        out = logits.permute(0, 1, 3, 2, 4, 5, 6)
        return out.reshape(B, X * u, Y * u, c.levels, c.classes)

    def columns(
        self,
        bev: Tensor,  # (B, C, Y, X)
        column_index: Tensor,  # (M,) int64, row-major over (B, X u, Y u)
    ) -> Tensor:
        """Logits of the named columns only, (M, Z, K): equal to ``forward`` at those columns."""
        c = self.config
        u = c.bev_upsample
        cells = torch.relu(self.final_conv(bev)).permute(0, 3, 2, 1)
        X, Y = cells.shape[1:3]
        b, x, y = (
            column_index // (X * u * Y * u),
            column_index // (Y * u) % (X * u),
            column_index % (Y * u),
        )
        hidden = self.predicter[:2](cells[b, x // u, y // u])
        last = self.predicter[2]
        assert isinstance(last, nn.Linear)
        if u == 1:
            out: Tensor = last(hidden)
            return out.view(-1, c.levels, c.classes)
        # the last layer has a block of rows for each sub-column: evaluate the asked block only
        weight, bias = last.weight.view(u * u, -1, c.hidden), last.bias.view(u * u, -1)
        block = x % u * u + y % u
        order = block.argsort(stable=True)
        parts = hidden[order].split(block.bincount(minlength=u * u).tolist())
        logits = torch.cat(
            [nn.functional.linear(h, weight[i], bias[i]) for i, h in enumerate(parts)]
        )
        return logits[order.argsort()].view(-1, c.levels, c.classes)
