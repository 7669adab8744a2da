"""The image neck: a feature pyramid of which only the finest level is used.

As in BEVDet's ``CustomFPN`` (arXiv 2112.11790): biased convolutions, no norm, no activation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


def biased_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A convolution under the name ``conv``, as the official weights have it."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv))


class ImageFpn(nn.Module):
    """Maps fine to coarse -> (B, out_channels, h, w) at the finest stride."""

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
