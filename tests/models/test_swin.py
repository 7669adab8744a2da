"""Swin against a second implementation that follows the published weights' own layout."""

from __future__ import annotations

import copy
import importlib.util
import math
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from network_stages import formula_value
from random_inputs import random_inputs
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, pad

from datasets.errors import SetupError
from models.checkpoints.official import convert
from models.networks.fpn import build_neck
from models.networks.fusion_teacher import FusionConfig, build_backbone
from models.networks.swin import OFFICIAL_PREFIX, Swin, SwinConfig, from_official
from models.presets import build_network, preset

TINY = SwinConfig(
    embed=8, blocks=(2, 1, 2, 1), heads=(2, 2, 4, 4), window=4, drop_path=0.1, outputs=(2, 3, 4)
)
needs_swin = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the extra 'swin' is not installed"
)


def official_weights(config: SwinConfig) -> dict[str, Tensor]:
    """Random weights under the published names (those of mmdetection's Swin)."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def put(name: str, *shape: int) -> None:
        state[OFFICIAL_PREFIX + name] = torch.randn(shape, generator=generator) / 3

    def put_affine(name: str, *shape: int) -> None:
        put(f"{name}.weight", *shape)
        put(f"{name}.bias", shape[0])

    put_affine("patch_embed.projection", config.embed, 3, 4, 4)
    put_affine("patch_embed.norm", config.embed)
    for s, (n, heads) in enumerate(zip(config.blocks, config.heads, strict=True)):
        C = config.embed << s
        for b in range(n):
            block = f"stages.{s}.blocks.{b}"
            put(
                f"{block}.attn.w_msa.relative_position_bias_table",
                (2 * config.window - 1) ** 2,
                heads,
            )
            state[f"{OFFICIAL_PREFIX}{block}.attn.w_msa.relative_position_index"] = torch.zeros(1)
            put_affine(f"{block}.attn.w_msa.qkv", 3 * C, C)
            put_affine(f"{block}.attn.w_msa.proj", C, C)
            put_affine(f"{block}.ffn.layers.0.0", 4 * C, C)
            put_affine(f"{block}.ffn.layers.1", C, 4 * C)
            put_affine(f"{block}.norm1", C)
            put_affine(f"{block}.norm2", C)
        if s < 3:
            put_affine(f"stages.{s}.downsample.norm", 4 * C)
            put(f"stages.{s}.downsample.reduction.weight", 2 * C, 4 * C)
        if s + 1 in config.outputs:
            put_affine(f"norm{s}", C)
    return state


class Plain:
    """The forward pass by the papers' definitions, on official weights, one window at a time."""

    def __init__(self, config: SwinConfig, state: dict[str, Tensor]) -> None:
        self.config, self.state = config, state

    def get(self, name: str) -> Tensor:
        return self.state[OFFICIAL_PREFIX + name]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def linear(self, x: Tensor, name: str) -> Tensor:
        return linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def attention(self, x: Tensor, region: Tensor, block: str, heads: int) -> Tensor:
        """(B, w, w, C) of one window; cells of different regions do not see each other."""
        B, w, _, C = x.shape
        q, k, v = (
            self.linear(x.reshape(B, w * w, C), f"{block}.attn.w_msa.qkv")
            .view(B, w * w, 3, heads, C // heads)
            .permute(2, 0, 3, 1, 4)
        )
        y, x_ = (
            i.flatten() for i in torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij")
        )
        dy, dx = y[:, None] - y + w - 1, x_[:, None] - x_ + w - 1
        bias = self.get(f"{block}.attn.w_msa.relative_position_bias_table")[dy * (2 * w - 1) + dx]
        score = q @ k.transpose(-1, -2) / math.sqrt(C // heads) + bias.permute(2, 0, 1)
        apart = region.flatten()[:, None] != region.flatten()
        out = (score - 100.0 * apart).softmax(-1) @ v
        out = self.linear(out.transpose(1, 2).reshape(B, w * w, C), f"{block}.attn.w_msa.proj")
        return out.view(B, w, w, C)

    def block(self, x: Tensor, block: str, heads: int, shift: int) -> Tensor:
        H, W = x.shape[1:3]
        w = self.config.window
        y = self.norm(x, f"{block}.norm1")
        y = pad(y, (0, 0, 0, -W % w, 0, -H % w))
        rows, columns = (
            (torch.arange(n) >= n - w).long() + (torch.arange(n) >= n - shift) for n in y.shape[1:3]
        )
        region = (3 * rows[:, None] + columns) * (shift > 0)
        y = y.roll((-shift, -shift), (1, 2))
        out = torch.empty_like(y)
        for i in range(0, y.shape[1], w):
            for j in range(0, y.shape[2], w):
                here = (slice(i, i + w), slice(j, j + w))
                out[:, *here] = self.attention(y[:, *here], region[here], block, heads)
        x = x + out.roll((shift, shift), (1, 2))[:, :H, :W]
        hidden = gelu(self.linear(self.norm(x, f"{block}.norm2"), f"{block}.ffn.layers.0.0"))
        return x + self.linear(hidden, f"{block}.ffn.layers.1")

    def __call__(self, images: Tensor) -> list[Tensor]:
        c = self.config
        images = pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
        x = torch.nn.functional.conv2d(
            images,
            self.get("patch_embed.projection.weight"),
            self.get("patch_embed.projection.bias"),
            4,
        )
        x = self.norm(x.permute(0, 2, 3, 1), "patch_embed.norm")
        maps = []
        for s, n in enumerate(c.blocks):
            for b in range(n):
                shift = c.window // 2 if b % 2 else 0
                x = self.block(x, f"stages.{s}.blocks.{b}", c.heads[s], shift)
            if s + 1 in c.outputs:
                maps.append(self.norm(x, f"norm{s}").permute(0, 3, 1, 2))
            if s < 3:
                x = pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
                B, H, W, C = x.shape
                x = x.view(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 5, 2, 4).flatten(3)
                x = self.norm(x, f"stages.{s}.downsample.norm")
                x = linear(x, self.get(f"stages.{s}.downsample.reduction.weight"))
        return maps


def swin_with(state: dict[str, Tensor]) -> Swin:
    torch.manual_seed(0)
    swin = Swin(TINY)
    swin.load_state_dict(
        {k.removeprefix(OFFICIAL_PREFIX): v for k, v in from_official(state).items()}
    )
    return swin.eval()


@needs_swin
@pytest.mark.parametrize("size", [(64, 96), (50, 71), (16, 20)])
def test_official_weights_give_the_published_maps(size: tuple[int, int]) -> None:
    """Also where windows, merges and patches meet an odd size, and maps smaller than a window."""
    state = official_weights(TINY)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        got, want = swin_with(state)(images), Plain(TINY, state)(images)
    assert [m.shape[1] for m in got] == list(TINY.out_channels)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-4)


@needs_swin
def test_every_weight_has_its_official_counterpart_and_the_rest_passes() -> None:
    state = official_weights(TINY) | {"occ_head.final_conv.conv.bias": torch.ones(3)}
    ours = from_official(state)
    assert torch.equal(ours.pop("occ_head.final_conv.conv.bias"), torch.ones(3))
    assert ours.keys() == {OFFICIAL_PREFIX + key for key in Swin(TINY).state_dict()}


PUBLISHED_MAPS = {
    "img_backbone0": (
        602.721,
        [-1.27392, -0.727692, 0.0353228, 0.682701, 0.338025, 0.401002, -0.620467, 1.56056],
    ),
    "img_backbone1": (
        422.646,
        [0.0724214, -0.310708, -0.254204, 1.29203, -0.713095, 1.90418, 0.0301484, 0.0360806],
    ),
    "img_neck": (502.96, [0.0, 0.277562, 0.0, 0.00098319, 0.138055, 0.0, 0.627348, 0.0]),
}
"""Norm of each map that the published code gives for ``formula_tensor`` weights on a picture of
seeded noise, and every eighth of its values."""


@needs_swin
def test_swin_base_and_its_neck_equal_the_published_code() -> None:
    camera = preset("fusion_swinb_occ3d").network.camera
    assert camera is not None and isinstance(camera.backbone, SwinConfig)
    network = nn.ModuleDict(
        {
            "img_backbone": build_backbone(camera.backbone),
            "img_neck": build_neck(camera.neck, camera.backbone.out_channels, camera.neck_channels),
        }
    )
    neck = {k: v for k, v in network.state_dict().items() if k.startswith("img_neck.")}
    names = official_weights(camera.backbone) | neck
    network.load_state_dict(
        from_official({key: formula_tensor(key, tuple(v.shape)) for key, v in names.items()})
    )
    network.eval()
    picture = np.random.default_rng(20250101).standard_normal((1, 3, 256, 704))
    with torch.inference_mode():
        maps = network["img_backbone"](torch.from_numpy(picture).float())
        got = (*maps, network["img_neck"](maps))
    for (name, (norm, values)), tensor in zip(PUBLISHED_MAPS.items(), got, strict=True):
        flat = tensor.flatten().double()
        assert float(flat.norm()) == pytest.approx(norm, rel=1e-5), name
        np.testing.assert_allclose(flat[:: len(flat) // 8][:8], values, rtol=1e-4, atol=3e-5)


def formula_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """Weights by the reference outputs' formula (``formula_value``); it leaves two kinds open."""
    if key.endswith(("num_batches_tracked", "relative_position_index")):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("relative_position_bias_table"):
        random = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
        return torch.from_numpy(0.5 * random.standard_normal(shape)).float()
    norm = {key.removesuffix("weight") + "running_mean"} if len(shape) == 1 else set()
    return torch.from_numpy(formula_value(key, shape, norm)).float()


@needs_swin
def test_a_published_file_is_imported_and_runs() -> None:
    chosen = preset("city_tiny")
    assert isinstance(chosen.network, FusionConfig) and chosen.network.camera is not None
    camera = replace(
        chosen.network.camera,
        backbone=replace(TINY, outputs=(3, 4)),
        neck="concat",
        neck_channels=24,
    )
    chosen = replace(chosen, network=replace(chosen.network, camera=camera))
    network = build_network(chosen.network).eval()
    others = {k: v for k, v in network.state_dict().items() if not k.startswith(OFFICIAL_PREFIX)}
    swin = official_weights(replace(TINY, outputs=(3, 4)))
    network.load_state_dict(convert(others | swin, chosen).state)
    inputs = random_inputs(chosen.inputs)
    with torch.inference_mode():
        assert network(inputs).shape == (1, 200, 200, 16, 18)
    qkv = f"{OFFICIAL_PREFIX}stages.0.blocks.0.attn.w_msa.qkv.weight"
    with pytest.raises(SetupError, match=r"missing: 3 .*left over: 1 "):
        convert(others | swin | {qkv: swin[qkv][:-1]}, chosen)


@needs_swin
def test_stochastic_depth_drops_both_branches_of_a_block_and_none_when_evaluating() -> None:
    swin = swin_with(official_weights(TINY))
    block = swin.backbone.swin.encoder.layers[2].blocks[1]
    block.drop_path.drop_prob = 1 - 1e-9
    x = torch.randn(1, 6 * 5, 32)
    assert torch.equal(block.train()(x, (6, 5), True)[0], x)
    copied = copy.deepcopy(block).eval()
    assert not torch.equal(copied(x, (6, 5), True)[0], x), "a copy drops by its own mode"


@needs_swin
def test_building_swin_leaves_the_name_datasets_to_us() -> None:
    code = (
        "import sys, torch\n"
        "import transformers\n"
        "from transformers import SwinBackbone, SwinConfig\n"
        "SwinBackbone(SwinConfig(embed_dim=8, num_heads=[1, 1, 1, 1]))(torch.zeros(1, 3, 32, 32))\n"
        "assert not {'datasets', 'torchvision'} & set(sys.modules)\n"
        "import datasets\n"
        "print(datasets.__file__)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == root / "datasets" / "__init__.py"


def test_presets_do_not_import_the_library() -> None:
    code = "import sys, models.presets; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_without_the_extra_the_command_to_install_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install -c constraints\.txt -e '\.\[swin\]'"):
        Swin(TINY)
