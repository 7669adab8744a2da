"""Weighted sums of picture features into BEV cells.

Every sample says: add ``weight * features[row]`` to ``cell``. Sorted by cell, that is an embedding
bag, whose kernels never build the (samples, channels) array and exist on CPU and CUDA, forward and
backward. Rows and cells follow from the cameras' geometry alone, so they are sorted once, into a
``PoolingPlan``, and applied to as many frames as share the geometry. The depth lift pools frustum
points this way (BEVPoolv2, arXiv 2211.17111); the pull lift pools the bilinear taps around
projected cell centres.

Legend: S samples, M samples that are kept, R feature rows, C channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from datasets.model_inputs import ModelInputs

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingPlan:
    """Which samples make up each cell.

    Attributes:
        rows: (M,) int64, feature row of each kept sample, by ascending cell.
        samples: (M,) int64, which of the S samples it is; None: they come in this order.
        offsets: (n_cells + 1,) int64, where the samples of each cell begin.
    """

    rows: Tensor
    samples: Tensor | None
    offsets: Tensor


def pooling_plan(
    rows: Tensor,  # (S,) int64, row of each sample
    cells: Tensor,  # (S,) int64, cell of each sample; negative: the sample is dropped
    n_cells: int,
) -> PoolingPlan:
    """Sorts samples by cell; within a cell they keep their order."""
    samples = (cells >= 0).nonzero()[:, 0]
    ordered, order = cells[samples].int().sort(stable=True)  # int32 sorts in half the time
    samples = samples[order]
    return PoolingPlan(rows=rows[samples], samples=samples, offsets=_offsets(ordered, n_cells))


def sorted_plan(rows: Tensor, cells: Tensor, n_cells: int) -> PoolingPlan:
    """The plan of (M,) samples that come by ascending cell, none to be dropped."""
    return PoolingPlan(rows=rows, samples=None, offsets=_offsets(cells, n_cells))


def _offsets(ordered: Tensor, n_cells: int) -> Tensor:
    bounds = torch.arange(n_cells + 1, device=ordered.device, dtype=ordered.dtype)
    return torch.searchsorted(ordered, bounds)


def pool(
    features: Tensor,  # (R, C) float
    weights: Tensor,  # (S,) float, weight of each sample
    plan: PoolingPlan,
) -> Tensor:
    """Sum of weight x feature per cell, (n_cells, C); zero where no sample falls.

    Gradients flow to ``features`` and ``weights``. Sums run in the order of the samples.
    """
    return nn.functional.embedding_bag(
        plan.rows,
        features,
        offsets=plan.offsets,
        per_sample_weights=weights if plan.samples is None else weights[plan.samples],
        mode="sum",
        include_last_offset=True,
    )


class GeometryCache(Generic[T]):
    """Keeps what follows from the cameras' geometry alone, for the last few geometries.

    Cameras that are triggered together have one geometry for a whole log. Where ego motion between
    the sensors enters it, as in nuScenes, every frame has its own; a frame's mirror images and
    repeated runs over it still share theirs.
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._kept: OrderedDict[object, T] = OrderedDict()

    def get(self, inputs: ModelInputs, h: int, w: int, build: Callable[[], T]) -> T:
        """The value for this geometry and feature size (h, w), built if it is not kept."""
        tensors = (inputs.T_ego_camera, inputs.intrinsics, inputs.post_image, inputs.T_bda)
        geometry = torch.cat([t.flatten() for t in tensors]).cpu().numpy().tobytes()
        present = None if inputs.present is None else inputs.present.cpu().numpy().tobytes()
        key = (inputs.images.shape, inputs.images.device, h, w, geometry, present)
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # may later meet autograd
                self._kept[key] = build()
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
