"""A small network over a drive's evidence: what a pool, voxel by voxel, cannot see.

The pool of ``temporal_fusion`` weighs what frames say about one voxel. Which class a surface has is
told by what lies around it: a sidewalk runs beside a road. The network reads the same evidence of
every voxel, lays the levels of a column into the channels of a BEV map, passes that through a U-Net
(Ronneberger et al., MICCAI 2015) and adds to the pool's logits. It begins as a network that adds
nothing. What moves is left to the pool, which knows where other frames saw it: the network divides
anew what the pool gives to all other classes together.

Legend: X Y Z voxels, V voxels, K classes, S numbers about returns, H hidden channels of a voxel, N
crops.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.files.json_files import json_text
from datasets.geometry.grid import VoxelGrid

HIDDEN = 16
"""Channels of a voxel."""
SQUEEZED = 8
"""Channels of a voxel in the BEV map."""
WIDTHS = (64, 96)
"""Channels of the U-Net's two levels."""
CELL_M = 0.8
"""Largest side of a cell of the BEV map."""
LEAST_LOG = -10.0
"""Log probabilities are cut off here."""
SLAB = 4
"""Cells of the BEV map along X that are worked on together."""
MAX_PARAMETERS = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """What a network fits.

    Attributes:
        classes: K; levels: Z; voxel_m: side of a voxel; bins: of LiDAR evidence; surface: numbers
            about the returns in a voxel.
        kept: ids of classes whose probability stays the pool's.

    Raises:
        ValueError: a number is not positive.
    """

    classes: int
    levels: int
    voxel_m: float
    bins: int
    surface: int
    kept: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = (self.levels, self.voxel_m, self.bins, self.surface)
        others = set(range(self.classes)) - set(self.kept)
        if not min(sizes) > 0 or len(others) < 2 or len(others) + len(self.kept) != self.classes:
            raise ValueError(f"not the shape of a refiner's network: {self}")

    @property
    def patch(self) -> int:
        """Voxels along a cell of the BEV map."""
        return max(1, round(CELL_M / self.voxel_m))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x).relu())
        return out.relu()


class RefinerNetwork(nn.Module):
    """What to add to the pool's logits; see the module."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        wide, deep = WIDTHS
        patch, column = shape.patch, shape.levels
        self.own = nn.Linear(shape.classes, HIDDEN)
        self.near = nn.Linear(shape.classes, HIDDEN, bias=False)
        self.far = nn.Linear(shape.classes, HIDDEN, bias=False)
        self.own_bin = nn.Embedding(shape.bins, HIDDEN)
        self.other_bin = nn.Embedding(shape.bins, HIDDEN)
        self.surface = nn.Linear(2 * shape.surface, HIDDEN, bias=False)
        self.squeeze = nn.Linear(HIDDEN, SQUEEZED)
        self.stem = nn.Conv2d(column * SQUEEZED, wide, patch, stride=patch)
        self.before = _Residual(wide)
        self.down = nn.Conv2d(wide, deep, 3, stride=2, padding=1)
        self.below = _Residual(deep)
        self.up = nn.Conv2d(deep, wide, 1)
        self.after = _Residual(wide)
        self.spread = nn.Conv2d(wide, patch * patch * column * HIDDEN, 1)
        self.out = nn.Linear(HIDDEN, shape.classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for table in (self.own_bin, self.other_bin):
            nn.init.normal_(table.weight, std=0.1)

    def forward(
        self,
        logs: Sequence[Tensor],  # own, near and far, (N, X, Y, Z, K) log probabilities
        bins: Sequence[Tensor],  # own and others', (N, X, Y, Z) int
        surface: Tensor,  # (N, X, Y, Z, 2 S)
        voxels: Tensor,  # (V,) flat indices into (N, X, Y, Z)
    ) -> Tensor:
        """(V, K)."""
        N, X, Y, Z, _ = surface.shape
        voxel = self._voxel(logs, bins, surface)
        around = self._around(self.squeeze(voxel.relu()).view(N, X, Y, Z * SQUEEZED))
        around = around.flatten(3, 4).flatten(1, 2)[:, :X, :Y].reshape(-1, HIDDEN)
        logits: Tensor = self.out((voxel.view(-1, HIDDEN)[voxels] + around[voxels]).relu())
        return logits

    def combined(self, base: Tensor, added: Tensor) -> Tensor:
        """(..., K) logits of the pool's and of what the network adds to them, (..., K) each."""
        if not self.shape.kept:
            return base + added
        others = [k for k in range(self.shape.classes) if k not in self.shape.kept]
        before = base[..., others]
        after = before + added[..., others]
        logits = base.clone()
        logits[..., others] = after + (before.logsumexp(-1) - after.logsumexp(-1))[..., None]
        return logits

    def _voxel(self, logs: Sequence[Tensor], bins: Sequence[Tensor], surface: Tensor) -> Tensor:
        """(..., H) of log probabilities (..., K), bins (...) and returns (..., 2 S)."""
        voxel: Tensor = self.surface(surface)
        for layer, part in zip((self.own, self.near, self.far), logs, strict=True):
            voxel += layer(part.clamp(min=LEAST_LOG))
        for table, part in zip((self.own_bin, self.other_bin), bins, strict=True):
            voxel += table(part)
        return voxel

    def _around(self, columns: Tensor) -> Tensor:
        """Of squeezed columns (N, X, Y, Z * S): (N, X / patch, patch, Y / patch, patch, Z * H)."""
        patch, (N, X, Y, _) = self.shape.patch, columns.shape
        bev = columns.permute(0, 3, 1, 2)
        if X % patch or Y % patch:
            bev = nn.functional.pad(bev, (0, -Y % patch, 0, -X % patch))
        fine = self.before(self.stem(bev).relu())
        coarse = self.up(self.below(self.down(fine).relu()))
        height, width = fine.shape[2:]
        coarse = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :height, :width]
        around: Tensor = self.spread(self.after(fine + coarse))
        return around.view(N, patch, patch, -1, height, width).permute(0, 4, 1, 5, 2, 3)

    @torch.inference_mode()
    def of_frame(
        self,
        logs: Sequence[NDArray[np.float32]],  # own, near and far, (V, K) log probabilities
        bins: Sequence[NDArray[np.intp]],  # own and others', (V,)
        surface: NDArray[np.float32],  # (V, 2 S)
        base: NDArray[np.float32],  # (X, Y, Z, K), logits of the pool
    ) -> NDArray[np.float32]:
        """(X, Y, Z, K) logits of the X * Y * Z = V voxels of a frame, with what ``forward`` adds; a
        slab at a time stays in a core's cache."""
        X, Y, Z, _ = base.shape
        log_parts = [torch.from_numpy(part).view(X, Y, Z, -1) for part in logs]
        bin_parts = [torch.from_numpy(part).view(X, Y, Z) for part in bins]
        returns = torch.from_numpy(surface).view(X, Y, Z, -1)
        rows = SLAB * self.shape.patch
        slabs = [slice(x, x + rows) for x in range(0, X, rows)]
        voxel = torch.empty(X, Y, Z, HIDDEN)
        columns = torch.empty(1, X, Y, Z * SQUEEZED)
        for s in slabs:
            voxel[s] = self._voxel(
                [part[s] for part in log_parts], [part[s] for part in bin_parts], returns[s]
            )
            columns[0, s] = self.squeeze(voxel[s].relu()).flatten(2)
        around = self._around(columns)[0]
        logits = torch.from_numpy(base)
        for i, s in enumerate(slabs):
            part = around[i * SLAB : (i + 1) * SLAB].flatten(2, 3).flatten(0, 1)
            n_rows = len(voxel[s])
            voxel[s] += part[:n_rows, :Y].reshape(n_rows, Y, Z, HIDDEN)
            logits[s] = self.combined(logits[s], self.out(voxel[s].relu_()))
        return base

    def fits(self, grid: VoxelGrid, n_classes: int) -> bool:
        """Whether it was made for such a grid and so many classes."""
        same_voxels = self.shape.levels == grid.shape[2] and self.shape.voxel_m == grid.size_m[0]
        return same_voxels and self.shape.classes == n_classes

    def describe(self) -> dict[str, Any]:
        """JSON values that tell it from others, without its weights."""
        weights = json_text(self.to_json()).encode()
        return {
            "weights": sum(p.numel() for p in self.parameters()),
            "sha256": hashlib.sha256(weights).hexdigest(),
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values; weights as float16."""
        weights = [p.detach().cpu().numpy().ravel() for p in self.parameters()]
        packed = np.concatenate(weights).astype("<f2").tobytes()
        return {
            "classes": self.shape.classes,
            "levels": self.shape.levels,
            "voxel_m": self.shape.voxel_m,
            "bins": self.shape.bins,
            "surface": self.shape.surface,
            **({"kept": list(self.shape.kept)} if self.shape.kept else {}),
            "float16": base64.b64encode(packed).decode(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RefinerNetwork:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        shape = NetworkShape(
            classes=int(data["classes"]),
            levels=int(data["levels"]),
            voxel_m=float(data["voxel_m"]),
            bins=int(data["bins"]),
            surface=int(data["surface"]),
            kept=tuple(int(k) for k in data.get("kept", ())),
        )
        with torch.device("meta"):
            network = cls(shape)
        n_weights = sum(p.numel() for p in network.parameters())
        if n_weights > MAX_PARAMETERS:
            raise ValueError(f"a refiner's network of {n_weights:,} weights")
        packed = base64.b64decode(data["float16"], validate=True)
        if len(packed) != 2 * n_weights:
            raise ValueError(f"a refiner's network of {n_weights:,} weights in {len(packed)} bytes")
        values: NDArray[np.float32] = np.frombuffer(packed, "<f2").astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("the weights of a refiner's network must be finite")
        network = network.to_empty(device="cpu")
        start = 0
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.from_numpy(values[start : start + p.numel()]).view(p.shape))
                start += p.numel()
        return network.requires_grad_(False).eval()
