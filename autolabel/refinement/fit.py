"""Fit a refiner on labeled voxels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autolabel.refinement.crops import CropDraws, PackedCrop
from autolabel.refinement.network_fit import fit_network
from autolabel.refinement.temporal_fusion import (
    EVIDENCE_BINS,
    FrameEvidence,
    Pooled,
    Refinement,
    Refiner,
    pool,
)
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import Taxonomy


class RefinerFit:
    """Fits a refiner on labeled voxels. Streaming over frames.

    Args:
        per_frame: voxels sampled from each, at most.
        crops: for a network on top of the pool; None: the pool is all.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        config: Refinement,
        *,
        per_frame: int = 4000,
        crops: CropDraws | None = None,
        seed: int = 0,
    ) -> None:
        self.taxonomy, self.config, self.per_frame = taxonomy, config, per_frame
        self.rng = np.random.default_rng(seed)
        self.draws = crops
        self.pooled: list[Pooled] = []
        self.truth: list[NDArray[np.uint8]] = []
        self.crops: list[list[PackedCrop]] = []
        self.scenes: list[str] = []

    def update(
        self,
        window: Sequence[FrameEvidence],
        k: int,
        grid: VoxelGrid,
        expected: GroundTruth,
        scene_id: str,
    ) -> None:
        """Sample voxels of ``window[k]`` whose truth is known."""
        truth = expected.semantics
        known = (expected.observed() & (truth < self.taxonomy.n_classes)).ravel()
        candidates = np.flatnonzero(known)
        voxels = np.sort(
            self.rng.choice(candidates, min(len(candidates), self.per_frame), replace=False)
        )
        drawn = [voxels, *(self.draws.draw(truth.ravel(), known) if self.draws else ())]
        together = pool(window, k, grid, self.taxonomy, self.config, np.concatenate(drawn))
        sample, *crops = together.split([len(part) for part in drawn])
        self.pooled.append(sample)
        self.truth.append(truth.ravel()[voxels])
        self.scenes.append(scene_id)
        self.crops.append(
            [
                self.draws.crop(pooled, truth.ravel()[part], known[part])
                for pooled, part in zip(crops, drawn[1:], strict=True)
                if self.draws
            ]
        )

    def fit(
        self, frames: Sequence[int] | None = None, *, steps: int = 60, penalty: float = 1e-3
    ) -> Refiner:
        """The pool, and a network on top of it where that is better (``fit_network``).

        Args:
            frames: positions, in the order of ``update``, of those to fit on; None: all.
        """
        used = range(len(self.truth)) if frames is None else frames
        refiner = self.fit_pool(used, steps=steps, penalty=penalty)
        crops = [(self.scenes[i], crop) for i in used for crop in self.crops[i]]
        if self.draws is None:
            return refiner
        return fit_network(refiner, crops, self.draws.grid, kept=self.taxonomy.dynamic)

    def fit_pool(self, used: Sequence[int], *, steps: int = 60, penalty: float = 1e-3) -> Refiner:
        """Maximum likelihood with small tables: weights and ratios shrink towards those of
        a frame alone."""
        names = ("own", "near", "far", "self_only", "own_bin", "other_bin")
        data = {
            n: torch.from_numpy(np.concatenate([getattr(self.pooled[i], n) for i in used]))
            for n in names
        }
        y = torch.from_numpy(np.concatenate([self.truth[i] for i in used])).long()
        K, free = self.taxonomy.n_classes, self.taxonomy.free_id
        w = torch.tensor([0.4, 0.3, 0.3, 1.0], requires_grad=True)
        tables = torch.zeros(2, K, EVIDENCE_BINS, requires_grad=True)
        shared = torch.zeros(2, 1, EVIDENCE_BINS, requires_grad=True)
        occupied = torch.ones(K, 1)
        occupied[free] = 0
        self_only = data["self_only"][:, None]
        pooling = torch.tensor([1.0, float(bool(self.config.near)), float(bool(self.config.far))])

        def evidence() -> Tensor:
            return (tables + shared) * occupied * float(self.config.evidence)

        def loss() -> Tensor:
            a, b, c = w[:3] * pooling
            logits = a * data["own"] + b * data["near"] + c * data["far"]
            logits = torch.where(self_only, w[3] * data["own"], logits)
            own, other = evidence()
            logits = logits + own.T[data["own_bin"]]
            logits = logits + torch.where(self_only, 0.0, other.T[data["other_bin"]])
            fit = torch.nn.functional.cross_entropy(logits, y)
            return fit + penalty * (tables.square().mean() * K + 0.1 * shared.square().mean())

        optimizer = torch.optim.LBFGS(
            [w, tables, shared], max_iter=steps, line_search_fn="strong_wolfe", history_size=20
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with one_thread():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        own, other = evidence().detach().numpy()
        values = (w[:3] * pooling).tolist()
        return Refiner(
            config=self.config,
            own=values[0],
            near=values[1],
            far=values[2],
            self_only=float(w[3].detach()),
            own_evidence=own.copy(),
            other_evidence=other.copy(),
            voxels=len(y),
        )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread, so that gradients of looked-up values are summed in a fixed order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
