"""Train a refiner's network on crops of labeled frames.

Most voxels are free and surely so. The loss reads a share of the voxels of which every frame is
already sure and right, with the weight of all (importance sampling): a step takes half the time.

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
from tqdm import tqdm

from autolabel.refinement.crops import UNKNOWN, Crop, PackedCrop
from autolabel.refinement.kernels import SURFACE
from autolabel.refinement.network import LEAST_LOG, NetworkShape, RefinerNetwork
from autolabel.refinement.temporal_fusion import EVIDENCE_BINS, LOG_STEP, Refiner, pool_logits
from datasets.geometry.grid import VoxelGrid
from models.ops.precision import computes_bfloat16

MIN_SCENES = 10
"""To train a network."""
LEFT_OUT = 5
"""Every so many scenes one is left out of the training, and decides."""
EPOCHS = 6
MAX_STEPS = 4000
BATCH = 2
RATE = 1e-3
SURE_SHARE = 1 / 16
"""Of the voxels that every frame is sure and right about, those that the loss reads."""
USE_BFLOAT16 = computes_bfloat16("cpu")
"""Where the processor has it: 1.7 times as fast."""
_DRAWS = threading.Lock()


def fit_network(
    refiner: Refiner,
    crops: Sequence[tuple[str, PackedCrop]],  # scene, crop
    grid: VoxelGrid,
    *,
    kept: Sequence[int] = (),
    seed: int = 0,
) -> Refiner:
    """The refiner with a network, if it is better with one on scenes left out of its training.

    Args:
        refiner: its pool was fitted on the same scenes.
        kept: ids of classes that are left to the pool.
    """
    if len({scene for scene, _ in crops}) < MIN_SCENES:
        return refiner
    unseen = _left_out(crops)
    data = [crop for scene, crop in crops if scene not in unseen]
    tests = [crop for scene, crop in crops if scene in unseen]
    Z, K = crops[0][1].unpack().logs.shape[-2:]
    with _seeded(seed):
        network = RefinerNetwork(
            NetworkShape(
                classes=K,
                levels=Z,
                voxel_m=grid.size_m[0],
                bins=EVIDENCE_BINS,
                surface=SURFACE,
                kept=tuple(kept),
            )
        )
    _train(network, data, refiner, np.random.default_rng(seed))
    network = RefinerNetwork.from_json(network.to_json())  # as it will be kept
    before, after = np.sum([_losses(test.unpack(), refiner, network) for test in tests], axis=0)
    return replace(refiner, network=network) if after < before else refiner


def _left_out(crops: Sequence[tuple[str, PackedCrop]]) -> frozenset[str]:
    return frozenset(sorted({scene for scene, _ in crops})[LEFT_OUT - 1 :: LEFT_OUT])


def _base(crop: Crop, voxels: NDArray[np.intp], refiner: Refiner) -> Tensor:
    """(V, K) logits of the pool."""
    return torch.from_numpy(pool_logits(crop.pooled(voxels), refiner, refiner.config))


def _logits(crop: Crop, voxels: NDArray[np.intp], refiner: Refiner) -> Tensor:
    """(V, K) of the pool and, if there is one, the network."""
    logits = _base(crop, voxels, refiner)
    if refiner.network is not None:
        with torch.inference_mode():
            added = refiner.network(*_inputs([crop]), torch.from_numpy(voxels))
            return refiner.network.combined(logits, added)
    return logits


def _losses(crop: Crop, refiner: Refiner, network: RefinerNetwork) -> tuple[float, float]:
    """Log loss without and with the network, summed over the known voxels."""
    voxels = np.flatnonzero(crop.truth.ravel() != UNKNOWN)
    truth = torch.from_numpy(crop.truth.ravel()[voxels].astype(np.int64))
    before, after = (
        nn.functional.cross_entropy(_logits(crop, voxels, of), truth, reduction="sum")
        for of in (refiner, replace(refiner, network=network))
    )
    return float(before), float(after)


def _inputs(batch: Sequence[Crop], dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Tensor]:
    """Of the network."""
    logs, bins, surface = (
        torch.from_numpy(np.stack([getattr(crop, name) for crop in batch]))
        for name in ("logs", "bins", "surface")
    )
    # as bfloat16 too, multiples of 1/16 up to 10 are exact
    values = logs.clamp_(max=round(-LEAST_LOG / LOG_STEP)).to(dtype).mul_(-LOG_STEP)
    return values.unbind(1), bins.int().unbind(1), surface.to(dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Voxels of a crop that the loss reads.

    Attributes:
        voxels: (V,) flat indices; weight: (V,) float32; truth: (V,) int64.
    """

    voxels: NDArray[np.intp]
    weight: Tensor
    truth: Tensor

    @classmethod
    def of(cls, crop: Crop, rng: np.random.Generator) -> _Sample:
        truth = crop.truth.ravel()
        known = np.flatnonzero(truth != UNKNOWN)
        logs = crop.logs.reshape(3, len(truth), -1)
        sure = ~logs[:, known, truth[known]].any(0)
        weight = np.where(sure, np.float32(1 / SURE_SHARE), np.float32(1))
        used = ~sure | (rng.random(len(known), np.float32) < SURE_SHARE)
        voxels = known[used]
        return cls(
            voxels,
            torch.from_numpy(weight[used]),
            torch.from_numpy(truth[voxels].astype(np.int64)),
        )


def _train(
    network: RefinerNetwork,
    data: Sequence[PackedCrop],
    refiner: Refiner,
    rng: np.random.Generator,
) -> None:
    steps = max(1, min(MAX_STEPS, EPOCHS * len(data) // BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    dtype = torch.bfloat16 if USE_BFLOAT16 else torch.float32
    order: list[int] = []
    for _ in tqdm(range(steps), desc="train the refiner's network", unit="step", leave=False):
        while len(order) < BATCH:
            order += rng.permutation(len(data)).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        batch = [
            data[i].unpack().mirrored(np.flatnonzero(rng.random(2) < 0.5).tolist()) for i in chosen
        ]
        samples = [_Sample.of(crop, rng) for crop in batch]
        size = batch[0].truth.size
        base = torch.cat([_base(c, s.voxels, refiner) for c, s in zip(batch, samples, strict=True)])
        truth, weight = (torch.cat([getattr(s, n) for s in samples]) for n in ("truth", "weight"))
        voxels = np.concatenate([s.voxels + n * size for n, s in enumerate(samples)])
        with torch.autocast("cpu", torch.bfloat16, enabled=USE_BFLOAT16):
            added = network(*_inputs(batch, dtype), torch.from_numpy(voxels))
        logits = network.combined(base, added.float())
        losses = nn.functional.cross_entropy(logits, truth, reduction="none")
        optimizer.zero_grad()
        (losses @ weight / weight.sum()).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global draws of torch from a seed; what was before comes back."""
    with _DRAWS, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield
