"""Inference with a trained network: folded batch norms, channels-last memory, float32 or bfloat16.

Legend: B frames, (X, Y, Z) voxels, K classes.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from datasets.model_inputs import ModelInputs
from models.networks.view_transform import Lift, PullViewTransform
from models.ops.sparse_conv import SparseBatchNorm, SparseConv3d
from models.presets import OccupancyNet, Preset

M = TypeVar("M", bound=nn.Module)
DENSE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
MIRRORS = ((False, False), (True, False), (False, True), (True, True))


class OccupancyPredictor:
    """Predicts occupancy with a network, teacher or student.

    The network is copied. Its batch norms are folded into the convolutions; images and BEV maps are
    stored channels-last.

    Args:
        network: of any preset, on the device it shall run on.
        preset: what it is.
        bfloat16: convolutions and linear layers in bfloat16, compiled on CUDA; geometry, pooling
            and the sparse encoder stay in float32. False: float32 throughout, without TF32, equal
            to the network itself within float32 noise.
        tta_flips: test-time augmentation: predict each frame also mirrored in x, in y and in
            both, and average probabilities and velocities. Four times the work.
    """

    def __init__(
        self,
        network: OccupancyNet,
        preset: Preset,
        *,
        bfloat16: bool = False,
        tta_flips: bool = False,
    ) -> None:
        self.preset, self.bfloat16, self.tta_flips = preset, bfloat16, tta_flips
        self.network = channels_last(fold_batch_norms(network))
        self.device = next(network.parameters()).device
        if bfloat16:
            for module in self.network.modules():
                if isinstance(module, DENSE):
                    module.to(torch.bfloat16)
            if self.device.type == "cuda":
                _compile_dense_parts(self.network)

    def clear_geometry_cache(self) -> None:
        """Forget the cameras' geometry, as if the next frame had another one."""
        for module in self.network.modules():
            if isinstance(module, Lift | PullViewTransform):
                module.geometry.clear()

    @property
    def has_flow(self) -> bool:
        """Whether it predicts velocities as well."""
        return self.preset.network.head.flow

    @torch.inference_mode()
    def predict(self, inputs: ModelInputs) -> Tensor:
        """(B, X, Y, Z, K) float32 logits in the frame of the inputs.

        With ``tta_flips``: log of the mean probability.
        """
        return self._predict(inputs, with_flow=False)[0]

    @torch.inference_mode()
    def predict_with_flow(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """What ``predict`` gives, and velocities (B, X, Y, Z, 2) float32, m/s along x and y of the
        frame of the inputs.

        Raises:
            ValueError: this network predicts no flow.
        """
        logits, flow = self._predict(inputs, with_flow=True)
        assert flow is not None
        return logits, flow

    def _predict(self, inputs: ModelInputs, *, with_flow: bool) -> tuple[Tensor, Tensor | None]:
        inputs = inputs.to(self.device)
        if not self.tta_flips:
            return self._run(inputs, with_flow)
        mean: Tensor | None = None
        mean_flow: Tensor | None = None
        for x, y in MIRRORS:
            logits, flow = self._run(inputs.mirrored(x=x, y=y), with_flow)
            axes = [axis for axis, mirrored in ((1, x), (2, y)) if mirrored]
            probability = logits.softmax(dim=-1).flip(axes)
            mean = probability if mean is None else mean.add_(probability)
            if flow is not None:
                flow = flow.flip(axes) * flow.new_tensor([1.0 - 2 * x, 1.0 - 2 * y])
                mean_flow = flow if mean_flow is None else mean_flow.add_(flow)
        assert mean is not None
        if mean_flow is not None:
            mean_flow.div_(len(MIRRORS))
        return mean.div_(len(MIRRORS)).log_(), mean_flow

    def _run(self, inputs: ModelInputs, with_flow: bool) -> tuple[Tensor, Tensor | None]:
        with ExitStack() as stack:
            if self.bfloat16:
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            elif self.device.type == "cuda":
                stack.enter_context(
                    torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
                )
            if with_flow:
                logits, flow = self.network.logits_and_flow(inputs)
                return logits.float(), flow.float()
            return self.network(inputs).float(), None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two predictions of the same voxels agree.

    Attributes:
        same: share of voxels with the same most likely class.
        miou: mean IoU of the two argmax grids over the classes that either predicts, 0..1.
        confidence: largest difference of the highest class probability.
    """

    same: float
    miou: float
    confidence: float


def agreement(a: Tensor, b: Tensor) -> Agreement:
    """Compare logits (..., K) of the same voxels."""
    K = a.shape[-1]
    first, second = a.argmax(-1).flatten(), b.argmax(-1).flatten()
    counts = (first * K + second).bincount(minlength=K * K).view(K, K).double()
    intersection = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - intersection
    present = union > 0
    change = (a.softmax(-1).amax(-1) - b.softmax(-1).amax(-1)).abs().max()
    return Agreement(
        same=float(intersection.sum() / counts.sum()),
        miou=float((intersection[present] / union[present]).mean()),
        confidence=float(change),
    )


def fold_batch_norms(network: M) -> M:
    """A copy in eval mode whose batch norms are part of the convolutions before them.

    Found are a convolution and the norm that follows it in a ``Sequential``, and ``convN`` with
    ``bnN`` of any other module. Norms elsewhere stay.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for conv_name, norm_name in _conv_norm_pairs(module):
            conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
            if isinstance(conv, SparseConv3d) and isinstance(norm, SparseBatchNorm):
                _fold_sparse(conv, norm)
            elif isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and type(norm) is nn.BatchNorm2d:
                transposed = isinstance(conv, nn.ConvTranspose2d)
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm, transpose=transposed))
            else:
                continue
            setattr(module, norm_name, nn.Identity())
    return network


def _conv_norm_pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    names = [name for name, _ in module.named_children()]
    if isinstance(module, nn.Sequential):
        yield from itertools.pairwise(names)
    else:
        for name in names:
            norm = name.replace("conv", "bn")
            if norm != name and norm in names:
                yield name, norm


@torch.no_grad()
def _fold_sparse(conv: SparseConv3d, norm: SparseBatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    conv.weight.mul_(scale[:, None, None, None, None])
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)


def channels_last(network: M) -> M:
    """The same network; 2D convolutions read and write maps with channels innermost in memory."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
    return network


def _compile_dense_parts(network: nn.Module) -> None:
    """Fuse what lies between the convolutions. Shapes are fixed but for the number of frames."""
    for name, module in network.named_children():
        if name not in ("img_view_transformer", "pts_middle_encoder"):
            setattr(network, name, torch.compile(module))


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory of freed arrays for the next ones.

    By default it hands large blocks back to the system and fetches them again, page by page, in
    every layer: 15 to 20 % of a full-size forward pass on a CPU. Threads share one heap, as one of
    their own could not hold such blocks. The process then holds its peak memory until it ends.
    Does nothing with another C library.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
        libc.mallopt(arena_max, 1)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
