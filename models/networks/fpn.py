"""Image necks of BEVDet (arXiv 2112.11790): merge several maps into one at the finest stride."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.networks.bev_trunk import conv_norm_relu

NeckKind = Literal["pyramid", "concat"]


def build_neck(kind: NeckKind, in_channels: Sequence[int], out_channels: int) -> nn.Module:
    """Maps fine to coarse -> (B, out_channels, h, w).

    Raises:
        ValueError: "concat" and other than two maps.
    """
    if kind == "pyramid":
        return ImageFpn(in_channels, out_channels)
    return ConcatNeck(in_channels, out_channels)


def biased_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A convolution under the name ``conv``, as the official weights have it."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv))


class ImageFpn(nn.Module):
    """A feature pyramid of which only the finest level is used (``CustomFPN``).

    Biased convolutions, no norm, no activation.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(biased_conv(c, out_channels, 1) for c in in_channels)
        self.fpn_convs = nn.ModuleList([biased_conv(out_channels, out_channels, 3)])
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        laterals = [conv(m) for conv, m in zip(self.lateral_convs, maps, strict=True)]
        top = laterals[-1]
        for lateral in reversed(laterals[:-1]):
            top = lateral + nn.functional.interpolate(top, size=lateral.shape[-2:], mode="nearest")
        out: Tensor = self.fpn_convs[0](top)
        return out


class ConcatNeck(nn.Module):
    """The coarse map of two at twice its size, joined to the fine one, and convolved (``FPN_LSS``).

    Raises:
        ValueError: there are other than two maps.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        if len(in_channels) != 2:
            raise ValueError(f"this neck joins two maps, the backbone gives {len(in_channels)}")
        self.conv = nn.Sequential(
            *conv_norm_relu(sum(in_channels), out_channels),
            *conv_norm_relu(out_channels, out_channels),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine, coarse = maps
        coarse = nn.functional.interpolate(
            coarse, scale_factor=2, mode="bilinear", align_corners=True
        )
        coarse = coarse[..., : fine.shape[-2], : fine.shape[-1]]  # of an odd map one is too many
        out: Tensor = self.conv(torch.cat((fine, coarse), dim=1))
        return out
