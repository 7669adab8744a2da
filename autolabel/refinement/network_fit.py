"""Train a refiner's network on crops of labeled frames.

Legend: X Y Z voxels of a crop, V voxels, K classes, N crops of a step.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autolabel.refinement.best_offsets import best_offsets
from autolabel.refinement.kernels import SURFACE
from autolabel.refinement.network import LEAST_LOG, NetworkShape, RefinerNetwork
from autolabel.refinement.temporal_fusion import (
    EVIDENCE_BINS,
    LOG_STEP,
    Pooled,
    Refiner,
    pool_logits,
)
from datasets.geometry.grid import VoxelGrid

SIDE = 64
"""Voxels along X and Y of a crop, at most."""
MAX_BYTES = 1024**3
"""Of all crops together."""
PER_FRAME = 2
"""Crops, at most."""
MIN_SCENES = 10
"""To train a network."""
LEFT_OUT = 5
"""Every so many scenes one is left out of the training, and decides."""
EPOCHS = 20
MAX_STEPS = 4000
BATCH = 4
RATE = 3e-3
UNKNOWN = 255
USE_BFLOAT16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Where the processor has it: 1.7 times as fast."""
_DRAWS = threading.Lock()
MAX_OFFSET_CROPS = 300
MAX_OFFSET_VOXELS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crop:
    """Evidence and truth of a part of a frame.

    Attributes:
        logs: (3, X, Y, Z, K) uint8, minus the log probabilities in steps of ``LOG_STEP``: of the
            frame, of near and of far ones.
        bins: (2, X, Y, Z) uint8 of the frame's own and of the others' LiDAR.
        surface: (X, Y, Z, 2 S) float16.
        self_only: (X, Y, Z) bool, see ``Pooled``.
        truth: (X, Y, Z) uint8 class ids, ``UNKNOWN`` where there is none.
        scored: (X, Y, Z) bool, in the mask of the benchmark.
    """

    logs: NDArray[np.uint8]
    bins: NDArray[np.uint8]
    surface: NDArray[np.float16]
    self_only: NDArray[np.bool_]
    truth: NDArray[np.uint8]
    scored: NDArray[np.bool_]

    def pooled(self) -> Pooled:
        """Of its voxels."""
        own, near, far = self.logs.reshape(3, -1, self.logs.shape[-1]).astype(np.float32)
        own_bin, other_bin = self.bins.reshape(2, -1).astype(np.intp)
        return Pooled(
            own=own * -LOG_STEP,
            near=near * -LOG_STEP,
            far=far * -LOG_STEP,
            self_only=self.self_only.ravel(),
            own_bin=own_bin,
            other_bin=other_bin,
            surface=self.surface.reshape(len(own), -1).astype(np.float32),
        )


class CropDraws:
    """Draws parts of frames.

    Args:
        frames: that will be drawn from.
    """

    def __init__(self, grid: VoxelGrid, n_classes: int, frames: int, seed: int = 0) -> None:
        self.grid = grid
        self.rng = np.random.default_rng(seed)
        X, Y, Z = grid.shape
        self.size = (min(SIDE, X), min(SIDE, Y), Z)
        n_bytes = (3 * n_classes + 4 * SURFACE + 5) * int(np.prod(self.size))
        self.per_frame = min(PER_FRAME, MAX_BYTES / n_bytes / max(1, frames))
        """Mean number of crops of a frame."""

    def draw(self) -> list[NDArray[np.intp]]:
        """Flat indices of the voxels of each crop of a frame."""
        whole, part = divmod(self.per_frame, 1)
        ids = np.arange(self.grid.n_voxels).reshape(self.grid.shape)
        crops = []
        for _ in range(int(whole) + int(self.rng.random() < part)):
            x, y = (
                int(self.rng.integers(n - side + 1))
                for n, side in zip(self.grid.shape, self.size[:2], strict=False)
            )
            crops.append(ids[x : x + self.size[0], y : y + self.size[1]].ravel())
        return crops

    def crop(
        self,
        pooled: Pooled,
        truth: NDArray[np.uint8],  # (V,)
        known: NDArray[np.bool_],  # (V,)
        scored: NDArray[np.bool_],  # (V,)
    ) -> Crop:
        """Of voxels that ``draw`` gave."""
        logs = np.stack([pooled.own, pooled.near, pooled.far]) * (-1 / LOG_STEP)
        return Crop(
            logs=logs.round().clip(0, 255).astype(np.uint8).reshape(3, *self.size, -1),
            bins=np.stack([pooled.own_bin, pooled.other_bin])
            .astype(np.uint8)
            .reshape(2, *self.size),
            surface=pooled.surface.astype(np.float16).reshape(*self.size, -1),
            self_only=pooled.self_only.reshape(self.size),
            truth=np.where(known, truth, UNKNOWN).astype(np.uint8).reshape(self.size),
            scored=(scored & known).reshape(self.size),
        )


def fit_network(
    refiner: Refiner,
    crops: Sequence[tuple[str, Crop]],  # scene, crop
    grid: VoxelGrid,
    *,
    seed: int = 0,
) -> Refiner:
    """The refiner with a network, if it is better with one on scenes left out of its training.

    Args:
        refiner: its pool was fitted on the same scenes.
    """
    if len({scene for scene, _ in crops}) < MIN_SCENES:
        return refiner
    unseen = _left_out(crops)
    data = [_Tensors.of(crop, refiner) for scene, crop in crops if scene not in unseen]
    tests = [_Tensors.of(crop, refiner) for scene, crop in crops if scene in unseen]
    Z, K = crops[0][1].logs.shape[-2:]
    torch_seed = torch.Generator().manual_seed(seed)
    with _seeded(seed):
        network = RefinerNetwork(
            NetworkShape(
                classes=K, levels=Z, voxel_m=grid.size_m[0], bins=EVIDENCE_BINS, surface=SURFACE
            )
        )
    _train(network, data, torch_seed)
    network = RefinerNetwork.from_json(network.to_json())  # as it will be kept
    before, after = (sum(test.loss(n) for test in tests) for n in (None, network))
    return replace(refiner, network=network) if after < before else refiner


def fit_offsets(
    refiner: Refiner, crops_of_scenes: Sequence[tuple[str, Crop]], scored: Sequence[int]
) -> Refiner:
    """The refiner with offsets of the best mIoU where a benchmark scores, on scenes that its
    network has not seen: what it remembers of the others would say that rare classes are sure.

    Args:
        crops_of_scenes: what ``fit_network`` was given.
        scored: ids of the classes whose mean counts.
    """
    if refiner.network is not None:
        unseen = _left_out(crops_of_scenes)
        crops_of_scenes = [(scene, crop) for scene, crop in crops_of_scenes if scene in unseen]
    crops = [crop for _, crop in crops_of_scenes]
    drawn = np.random.default_rng(0).permutation(len(crops))[:MAX_OFFSET_CROPS]
    per_crop = MAX_OFFSET_VOXELS // max(1, len(drawn))
    logits, labels = [], []
    for i in drawn:
        voxels = np.flatnonzero(crops[i].scored)
        voxels = np.random.default_rng(int(i)).permutation(voxels)[:per_crop]
        chosen = torch.from_numpy(voxels)
        logits.append(_Tensors.of(crops[i], refiner).logits(refiner.network).flatten(0, 2)[chosen])
        labels.append(torch.from_numpy(crops[i].truth.ravel()[voxels].astype(np.int64)))
    if not logits:
        return refiner
    return replace(refiner, offsets=best_offsets(torch.cat(logits), torch.cat(labels), scored))


def _left_out(crops: Sequence[tuple[str, Crop]]) -> frozenset[str]:
    return frozenset(sorted({scene for scene, _ in crops})[LEFT_OUT - 1 :: LEFT_OUT])


@dataclass(frozen=True, slots=True, eq=False)
class _Tensors:
    """A crop, with the pool's logits (X, Y, Z, K) as float16."""

    crop: Crop
    base: Tensor

    @classmethod
    def of(cls, crop: Crop, refiner: Refiner) -> _Tensors:
        logits = pool_logits(crop.pooled(), refiner, refiner.config)
        logits -= logits.max(-1, keepdims=True)
        base = torch.from_numpy(logits).half().view(*crop.truth.shape, -1)
        return cls(crop, base)

    def logits(self, network: RefinerNetwork | None) -> Tensor:
        """(X, Y, Z, K), of the pool and the network."""
        with torch.inference_mode():
            logits = self.base.float()
            if network is not None:
                logits += network(*_inputs([self]))[0]
            return logits

    def loss(self, network: RefinerNetwork | None) -> float:
        """Sum over the known voxels of the log loss."""
        with torch.inference_mode():
            logits = self.logits(network)
            truth = torch.from_numpy(self.crop.truth).long()
            return float(
                nn.functional.cross_entropy(
                    logits.flatten(0, 2), truth.flatten(), ignore_index=UNKNOWN, reduction="sum"
                )
            )


def _inputs(batch: Sequence[_Tensors], mirrored: Sequence[int] = ()) -> tuple[Any, Any, Tensor]:
    """Of the network; ``mirrored`` along dimensions of (N, X, Y, Z)."""
    dims = list(mirrored)
    logs, bins, surface = (
        torch.from_numpy(np.stack([getattr(t.crop, name) for t in batch]))
        for name in ("logs", "bins", "surface")
    )
    values = logs.float().mul_(-LOG_STEP).clamp_(min=LEAST_LOG)
    return (
        [part.flip(dims) for part in values.unbind(1)],
        [part.flip(dims) for part in bins.int().unbind(1)],
        surface.float().flip(dims),
    )


def _train(network: RefinerNetwork, data: Sequence[_Tensors], draws: torch.Generator) -> None:
    steps = max(1, min(MAX_STEPS, EPOCHS * len(data) // BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += torch.randperm(len(data), generator=draws).tolist()
        batch, order = [data[i] for i in order[:BATCH]], order[BATCH:]
        mirrored = [d + 1 for d in range(2) if torch.rand(1, generator=draws) < 0.5]
        base = torch.stack([t.base for t in batch]).flip(mirrored).float()
        truth = torch.from_numpy(np.stack([t.crop.truth for t in batch])).flip(mirrored).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=USE_BFLOAT16):
            added = network(*_inputs(batch, mirrored))
        logits = base + added.float()
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 3), truth.flatten(), ignore_index=UNKNOWN
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global draws of torch from a seed; what was before comes back."""
    with _DRAWS, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield
