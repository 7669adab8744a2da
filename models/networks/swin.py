"""Swin Transformer image backbone (Liu et al., ICCV 2021), from Hugging Face transformers.

The library is the optional extra ``swin`` and is imported when a backbone is built, not before.
Legend: B pictures, C channels, H and W pixels.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from datasets.errors import SetupError
from models.networks.resnet import Four

INSTALL = "pip install -c constraints.txt -e '.[swin]'"
OFFICIAL_PREFIX = "img_backbone."


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig:
    """Shape of a Swin Transformer.

    Attributes:
        embed: channels of stage 1; every further stage doubles them.
        blocks, heads: transformer blocks and attention heads of stages 1 to 4.
        window: side of an attention window, in cells.
        drop_path: rate of stochastic depth in the last block, falling linearly to 0 in the first.
        outputs: stages returned, 1 to 4; their strides are 4, 8, 16, 32.

    Raises:
        ValueError: an output is not a stage, or outputs are not ascending.
    """

    embed: int
    blocks: Four
    heads: Four
    window: int
    drop_path: float
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.outputs or list(self.outputs) != sorted(set(self.outputs) & {1, 2, 3, 4}):
            raise ValueError(f"outputs must be ascending stages of 1..4, got {self.outputs}")

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        return tuple(self.embed << (s - 1) for s in self.outputs)

    @property
    def finest_stride(self) -> int:
        """Stride of the first output."""
        return int(2 ** (self.outputs[0] + 1))


def swin_base(outputs: tuple[int, ...]) -> SwinConfig:
    return SwinConfig(
        embed=128,
        blocks=(2, 2, 18, 2),
        heads=(4, 8, 16, 32),
        window=12,
        drop_path=0.1,
        outputs=outputs,
    )


class Swin(nn.Module):
    """(B, 3, H, W) -> one map per output stage, fine to coarse, each with its own layer norm.

    As in mmdetection: windows are padded with zeros rather than shrunk where a map is smaller, and
    an odd map grows by a row or column of zeros before its patches merge.

    Raises:
        SetupError: the extra ``swin`` is not installed.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        if importlib.util.find_spec("transformers") is None:
            raise SetupError(f"the Swin backbone needs the extra 'swin': {INSTALL}")
        import transformers

        self.backbone = transformers.SwinBackbone(
            transformers.SwinConfig(
                embed_dim=config.embed,
                depths=config.blocks,
                num_heads=config.heads,
                window_size=config.window,
                drop_path_rate=config.drop_path,
                out_features=[f"stage{s}" for s in config.outputs],
            )
        )
        self.backbone.swin.layernorm = nn.Identity()  # the classifier's; no map passes it
        for stage in self.backbone.swin.encoder.layers:
            for block in stage.blocks:
                block.mlp.drop_path = block.drop_path
                block.mlp.register_forward_hook(_drop_branch)

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.backbone(images).feature_maps)


def _drop_branch(mlp: nn.Module, _inputs: tuple[Tensor, ...], branch: Tensor) -> Tensor:
    """Stochastic depth for the second residual branch of a block: the library drops the first only.

    A plain function of its module, so that a deep copy of the network drops by its own mode.
    """
    out: Tensor = mlp.get_submodule("drop_path")(branch)
    return out


_RENAMED = (
    ("patch_embed.projection.", "swin.embeddings.patch_embeddings.projection."),
    ("patch_embed.norm.", "swin.embeddings.norm."),
    ("stages.", "swin.encoder.layers."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.w_msa.proj.", ".attention.o_proj."),
    (".attn.w_msa.relative", ".attention.relative_position_bias.relative"),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under our names: ``img_backbone.*`` translated, every other key as it is.

    The published Swin is mmdetection's. Its query, key and value are one matrix; and where four
    patches merge, its channels come as (channel, row, column), ours as (column, row, channel).
    What is no part of a Swin keeps its name or its shape, and so fits no network of ours.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(OFFICIAL_PREFIX):
            out[key] = value
            continue
        if key.endswith(".relative_position_index"):  # follows from the window's size
            continue
        name = key.removeprefix(OFFICIAL_PREFIX)
        if output := re.match(r"norm(\d)\.", name):  # norm2 is of stage 3
            name = f"hidden_states_norms.stage{int(output[1]) + 1}.{name[output.end() :]}"
        for official, renamed in _RENAMED:
            name = name.replace(official, renamed)
        name = f"{OFFICIAL_PREFIX}backbone.{name}"
        if ".attn.w_msa.qkv." in name and value.dim() and len(value) % 3 == 0:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                new = name.replace(".attn.w_msa.qkv.", f".attention.{letter}_proj.")
                out[new] = part.clone()
        elif ".downsample." in name and value.dim() and value.shape[-1] % 4 == 0:
            out[name] = _merge_order(value)
        else:
            out[name] = value
    return out


def _merge_order(value: Tensor) -> Tensor:
    """(..., C row column) -> (..., column row C), both flat."""
    return value.reshape(*value.shape[:-1], -1, 2, 2).transpose(-1, -3).flatten(-3)
