"""ResNet image backbones with torchvision's state-dict names (He et al., CVPR 2016).

Legend: B pictures, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

Four = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """Shape of a ResNet.

    Attributes:
        blocks: residual blocks of stages 1 to 4.
        widths: channels of stages 1 to 4 (a bottleneck multiplies them by 4).
        bottleneck: blocks of 1x1, 3x3, 1x1 convolutions instead of two 3x3.
        outputs: stages returned, 1 to 4; their strides are 4, 8, 16, 32.

    Raises:
        ValueError: an output is not a stage, or outputs are not ascending.
    """

    blocks: Four
    widths: Four
    bottleneck: bool
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.outputs or list(self.outputs) != sorted(set(self.outputs) & {1, 2, 3, 4}):
            raise ValueError(f"outputs must be ascending stages of 1..4, got {self.outputs}")

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        return tuple(self.widths[s - 1] * (4 if self.bottleneck else 1) for s in self.outputs)

    @property
    def finest_stride(self) -> int:
        """Stride of the first output."""
        return int(2 ** (self.outputs[0] + 1))


def resnet18(outputs: tuple[int, ...]) -> ResNetConfig:
    return ResNetConfig(
        blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), bottleneck=False, outputs=outputs
    )


def resnet50(outputs: tuple[int, ...]) -> ResNetConfig:
    return ResNetConfig(
        blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512), bottleneck=True, outputs=outputs
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int = 1, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        out: Tensor = self.bn2(self.conv2(x))
        return out.add_(shortcut).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the channels, and a shortcut."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int = 1, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        out: Tensor = self.bn3(self.conv3(x))
        return out.add_(shortcut).relu_()


class ResNet(nn.Module):
    """(B, 3, H, W) -> one map per output stage, fine to coarse."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.outputs = config.outputs
        channels = config.widths[0]
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        block = Bottleneck if config.bottleneck else BasicBlock
        for stage, (n, width) in enumerate(zip(config.blocks, config.widths, strict=True), start=1):
            if stage > config.outputs[-1]:
                break
            out = width * (4 if config.bottleneck else 1)
            layers: list[nn.Module] = []
            for i in range(n):
                stride = 2 if i == 0 and stage > 1 else 1
                downsample = None
                if stride != 1 or channels != out:
                    downsample = nn.Sequential(
                        nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                    )
                layers.append(block(channels, width, stride=stride, downsample=downsample))
                channels = out
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        return self._maps(images, self.outputs)

    def first_map(self, images: Tensor) -> Tensor:
        """The first of the maps, without computing the others."""
        return self._maps(images, self.outputs[:1])[0]

    def _maps(self, images: Tensor, outputs: tuple[int, ...]) -> list[Tensor]:
        x: Tensor = self.maxpool(self.bn1(self.conv1(images)).relu_())
        maps = []
        for stage in range(1, outputs[-1] + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            if stage in outputs:
                maps.append(x)
        return maps
