"""The channel-to-height head: a BEV cell's channels become a column of voxels (FlashOcc).

This is the one place where BEV maps (B, C, Y, X) become occupancy (B, X, Y, Z, K), and, with
``HeadConfig.flow``, the velocity (B, X, Y, Z, 2) of what is in every voxel.
Legend: B frames, C channels, K classes, M sampled columns, u sub-columns along each BEV axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.model_inputs import ModelInputs
from models.networks.fpn import biased_conv


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """Shape of the head.

    Attributes:
        conv_channels: of the 3x3 convolution; hidden: of the column network.
        levels: Z; classes: K.
        unowned: further outputs of the last layer that belong to no class (the published flow
            head has one): among the weights, never among the logits.
        bev_upsample: each BEV cell gives u x u columns.
        flow: also predict velocities.
    """

    conv_channels: int = 256
    hidden: int = 512
    levels: int = 16
    classes: int = 18
    unowned: int = 0
    bev_upsample: int = 1
    flow: bool = False

    @property
    def outputs(self) -> int:
        """Outputs of each voxel for its class."""
        return self.classes + self.unowned


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
        self.predicter = self._column_network(nn.Softplus(), config.outputs)
        if config.flow:
            self.flow_predicter = self._column_network(nn.ReLU(), 2)

    def _column_network(self, activation: nn.Module, per_voxel: int) -> nn.Sequential:
        c = self.config
        return nn.Sequential(
            nn.Linear(c.conv_channels, c.hidden),
            activation,
            nn.Linear(c.hidden, c.bev_upsample**2 * c.levels * per_voxel),
        )

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> logits (B, X u, Y u, Z, K)."""
        return self.logits(self.features(bev))

    def features(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> what both networks of a column read, (B, X, Y, conv_channels)."""
        cells: Tensor = self.final_conv(bev)
        return cells.relu_().permute(0, 3, 2, 1)

    def logits(self, features: Tensor) -> Tensor:
        """(B, X, Y, conv_channels) -> (B, X u, Y u, Z, K)."""
        c = self.config
        return self._voxels(_every_column(self.predicter, features), c.outputs)[..., : c.classes]

    @torch.no_grad()
    def add_to_logits(self, offsets: Tensor) -> None:
        """Add (K,) to the logits of every voxel from now on, by the last layer's bias."""
        c = self.config
        last = self.predicter[2]
        assert isinstance(last, nn.Linear)
        last.bias.view(-1, c.outputs)[:, : c.classes] += offsets.to(last.bias)

    def flow(self, features: Tensor) -> Tensor:
        """(B, X, Y, conv_channels) -> (B, X u, Y u, Z, 2): velocity along x and y, m/s.

        In the frame that the inputs are in, BEV augmentation included.

        Raises:
            ValueError: the head predicts no flow.
        """
        if not self.config.flow:
            raise ValueError("this network predicts no flow")
        return self._voxels(_every_column(self.flow_predicter, features), 2)

    def _voxels(self, columns: Tensor, V: int) -> Tensor:
        """(B, X, Y, u u Z V), V values of each voxel -> (B, X u, Y u, Z, V)."""
        B, X, Y, _ = columns.shape
        u, Z = self.config.bev_upsample, self.config.levels
        if u == 1:
            return columns.view(B, X, Y, Z, V)
        columns = columns.view(B, X, Y, u, u, Z, V).permute(0, 1, 3, 2, 4, 5, 6)
        return columns.reshape(B, X * u, Y * u, Z, V)

    def columns(
        self,
        bev: Tensor,  # (B, C, Y, X)
        column_index: Tensor,  # (M,) int64, row-major over (B, X u, Y u)
    ) -> Tensor:
        """Logits of the named columns only, (M, Z, K): equal to ``forward`` at those columns."""
        c = self.config
        u = c.bev_upsample
        cells = self.features(bev)
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
            return out.view(-1, c.levels, c.outputs)[..., : c.classes]
        # the last layer has a block of rows for each sub-column: evaluate the asked block only
        weight, bias = last.weight.view(u * u, -1, c.hidden), last.bias.view(u * u, -1)
        block = x % u * u + y % u
        order = block.argsort(stable=True)
        parts = hidden[order].split(block.bincount(minlength=u * u).tolist())
        logits = torch.cat(
            [nn.functional.linear(h, weight[i], bias[i]) for i, h in enumerate(parts)]
        )
        return logits[order.argsort()].view(-1, c.levels, c.outputs)[..., : c.classes]


class BevNetwork(nn.Module):
    """An occupancy network: BEV features from the inputs, and the head on them."""

    occ_head: OccupancyHead

    def bev(self, inputs: ModelInputs) -> Tensor:
        """BEV features in the augmented ego frame, (B, C, Y, X)."""
        raise NotImplementedError

    def forward(self, inputs: ModelInputs) -> Tensor:
        """Logits (B, X, Y, Z, K) in the augmented ego frame."""
        logits: Tensor = self.occ_head(self.bev(inputs))
        return logits

    def logits_and_flow(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """The logits of ``forward``, and velocities (B, X, Y, Z, 2) in m/s along x and y.

        Raises:
            ValueError: the head predicts no flow.
        """
        features = self.occ_head.features(self.bev(inputs))
        return self.occ_head.logits(features), self.occ_head.flow(features)


def _every_column(network: nn.Sequential, features: Tensor) -> Tensor:
    """A column network on (B, X, Y, C), as 1x1 convolutions of the map that C comes from: no copy
    to another memory order, and on a CPU faster than the matrix products."""
    first, activation, last = network
    maps = features.permute(0, 3, 2, 1)
    return _pointwise(last, activation(_pointwise(first, maps))).permute(0, 3, 2, 1)


def _pointwise(linear: nn.Module, maps: Tensor) -> Tensor:
    assert isinstance(linear, nn.Linear)
    return nn.functional.conv2d(maps, linear.weight[:, :, None, None], linear.bias)
