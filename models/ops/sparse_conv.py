"""Sparse 3D convolution: the plain-torch twin, and spconv behind the same modules on CUDA.

A convolution touches active voxels only. Which input row feeds which output row through which
kernel tap is the rulebook; it depends on the sites alone, so all submanifold layers of one level
share it. Applying it is one gather, matrix product and scatter per tap. Within one tap no output
row occurs twice, so the sums run in a fixed order and results are reproducible. On a CPU narrow
layers on dense sites instead gather all taps of a block of output rows, missing ones as zeros, and
need one product and no scatter.

spconv's CPU forward races between threads and has no backward; it is never used on a CPU.

Legend: V active voxels, C channels, K kernel taps, (Z, Y, X) cells. Kernel triples are (z, y, x).
Submanifold convolution: Graham et al., CVPR 2018; the rulebook follows SECOND (Sensors 2018).
"""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
Pairs = tuple[Tensor, Tensor]  # input rows, output rows

DENSE_INDEX_CELLS = 1 << 26
"""Up to this many cells a site is found through a dense int32 table, beyond by binary search."""
DENSE_TAPS = 0.2
"""With fewer taps than this the blockwise product would mostly multiply zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """Which input row feeds which output row.

    Attributes:
        pairs: per kernel tap, the (input rows, output rows) it connects; None: every row to itself.
        coords: (V_out, 4) int64 b, z, y, x of the output rows.
        spatial_shape: (Z, Y, X) of the output.
        inputs: (V_out, K) int32, input row of each output row and tap, V_in where there is none;
            None unless the sites are on a CPU and at least ``DENSE_TAPS`` of all taps meet one.
    """

    pairs: tuple[Pairs | None, ...]
    coords: Tensor
    spatial_shape: Triple
    inputs: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseTensor:
    """Features on active voxels.

    Attributes:
        features: (V, C) float.
        coords: (V, 4) int64 b, z, y, x; no site twice.
        spatial_shape: (Z, Y, X).
        batch_size: frames, also those without a single voxel.
        rulebooks: cache of submanifold rulebooks, shared by every tensor on the same sites.
    """

    features: Tensor
    coords: Tensor
    spatial_shape: Triple
    batch_size: int
    rulebooks: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.coords.shape != (len(self.features), 4):
            raise ValueError(
                f"need (V, C) features and (V, 4) coords, got {tuple(self.features.shape)} "
                f"and {tuple(self.coords.shape)}"
            )

    def with_features(self, features: Tensor) -> SparseTensor:
        """Other features on the same sites."""
        return SparseTensor(
            features=features,
            coords=self.coords,
            spatial_shape=self.spatial_shape,
            batch_size=self.batch_size,
            rulebooks=self.rulebooks,
        )

    def dense(self) -> Tensor:
        """(B, C, Z, Y, X), zero where no voxel is active; lies in memory as (B, Y, X, C, Z)."""
        Z, Y, X = self.spatial_shape
        b, z, y, x = self.coords.unbind(1)
        cells = self.features.new_zeros(self.batch_size, Y, X, self.features.shape[1], Z)
        cells[b, y, x, :, z] = self.features
        return cells.permute(0, 3, 4, 1, 2)


def sort_sites(x: SparseTensor) -> SparseTensor:
    """The same tensor with rows in (b, z, y, x) order: neighbours lie close in memory."""
    order = _keys(x.coords, x.spatial_shape).argsort()
    return SparseTensor(
        features=x.features[order],
        coords=x.coords[order],
        spatial_shape=x.spatial_shape,
        batch_size=x.batch_size,
    )


def _keys(coords: Tensor, shape: Triple) -> Tensor:
    Z, Y, X = shape
    return ((coords[:, 0] * Z + coords[:, 1]) * Y + coords[:, 2]) * X + coords[:, 3]


def _coords(keys: Tensor, shape: Triple) -> Tensor:
    Z, Y, X = shape
    return torch.stack((keys // (Z * Y * X), keys // (Y * X) % Z, keys // X % Y, keys % X), dim=1)


class _SiteIndex:
    """Finds the row of a site: (M,) int64 keys -> (M,) int64 rows, -1 where there is none."""

    def __init__(self, keys: Tensor, n_cells: int) -> None:
        self.dense = n_cells <= DENSE_INDEX_CELLS
        rows = torch.arange(len(keys), device=keys.device)
        if self.dense:
            self.table = torch.full((n_cells,), -1, dtype=torch.int32, device=keys.device)
            self.table[keys] = rows.int()
        else:
            self.keys, self.rows = keys.sort()

    def __call__(self, keys: Tensor) -> Tensor:
        if self.dense:
            return self.table[keys].long()
        if len(self.keys) == 0:
            return torch.full_like(keys, -1)
        index = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[index] == keys, self.rows[index], -1)


def _distinct(keys: Tensor, n_cells: int) -> Tensor:
    """The keys that occur, ascending."""
    if n_cells > DENSE_INDEX_CELLS:
        distinct: Tensor = torch.unique(keys)
        return distinct
    occurs = torch.zeros(n_cells, dtype=torch.bool, device=keys.device)
    occurs[keys] = True
    return occurs.nonzero()[:, 0]


def _split(rows: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    return rows.split(sizes)  # type: ignore[no-untyped-call,no-any-return]


def submanifold_rulebook(x: SparseTensor, kernel: Triple) -> Rulebook:
    """Output sites are the input sites; every kernel size must be odd."""
    assert all(k % 2 for k in kernel), kernel
    cached = x.rulebooks.get(kernel)
    if isinstance(cached, Rulebook):
        return cached
    # a border as wide as the kernel's reach makes every neighbour a constant step of the key
    reach = tuple(k // 2 for k in kernel)
    Z, Y, X = (n + 2 * r for n, r in zip(x.spatial_shape, reach, strict=True))
    keys = _keys(x.coords + x.coords.new_tensor((0, *reach)), (Z, Y, X))
    steps = [
        (dz * Y + dy) * X + dx
        for dz in range(-reach[0], reach[0] + 1)
        for dy in range(-reach[1], reach[1] + 1)
        for dx in range(-reach[2], reach[2] + 1)
    ]
    half = len(steps) // 2
    index = _SiteIndex(keys, x.batch_size * Z * Y * X)
    near = index((keys + keys.new_tensor(steps[:half])[:, None]).reshape(-1)).view(half, -1)
    tap, row = (near >= 0).nonzero(as_tuple=True)
    sizes = tap.bincount(minlength=half).tolist()
    rows, neighbours = _split(row, sizes), _split(near[tap, row], sizes)
    first: list[Pairs | None] = [(i, o) for i, o in zip(neighbours, rows, strict=True)]
    mirrored: list[Pairs | None] = [(o, i) for i, o in zip(neighbours, rows, strict=True)]
    pairs = (*first, None, *reversed(mirrored))
    book = Rulebook(
        pairs=pairs,
        coords=x.coords,
        spatial_shape=x.spatial_shape,
        inputs=_input_table(pairs, len(x.coords)),
    )
    x.rulebooks[kernel] = book
    return book


def _input_table(pairs: tuple[Pairs | None, ...], V: int) -> Tensor | None:
    """``Rulebook.inputs`` of a submanifold convolution on V sites."""
    met = sum(V if pair is None else len(pair[0]) for pair in pairs)
    device = next(pair[0].device for pair in pairs if pair is not None)
    if device.type != "cpu" or met <= DENSE_TAPS * len(pairs) * V:
        return None
    table = torch.full((len(pairs), V), V, dtype=torch.int32)
    for row, pair in zip(table, pairs, strict=True):
        if pair is None:
            torch.arange(V, dtype=torch.int32, out=row)
        else:
            row[pair[1]] = pair[0].int()
    return table.t().contiguous()


def strided_shape(shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    """(Z, Y, X) after a convolution, as for a dense one.

    Raises:
        ValueError: the kernel is larger than the padded input.
    """
    z, y, x = (
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding, strict=True)
    )
    if min(z, y, x) < 1:
        raise ValueError(f"kernel {kernel} does not fit into {shape} with padding {padding}")
    return z, y, x


def strided_rulebook(x: SparseTensor, kernel: Triple, stride: Triple, padding: Triple) -> Rulebook:
    """An output site is active wherever any kernel tap meets an active input."""
    out_shape = strided_shape(x.spatial_shape, kernel, stride, padding)
    hits: list[Tensor] = []
    cells: list[Tensor] = []
    for axis in range(3):  # (k, V): does tap k of this axis meet the voxel, and in which cell
        taps = torch.arange(kernel[axis], device=x.coords.device)[:, None]
        position = x.coords[:, axis + 1] + padding[axis] - taps
        cell = position.div(stride[axis], rounding_mode="floor")
        hits.append((position == cell * stride[axis]) & (cell >= 0) & (cell < out_shape[axis]))
        cells.append(cell)
    Z, Y, X = out_shape
    hit = hits[0][:, None, None] & hits[1][None, :, None] & hits[2][None, None, :]
    key = (
        x.coords[:, 0] * (Z * Y * X)
        + cells[0][:, None, None] * (Y * X)
        + cells[1][None, :, None] * X
        + cells[2][None, None, :]
    )
    n_taps = math.prod(kernel)
    tap, rows = hit.view(n_taps, -1).nonzero(as_tuple=True)
    keys = key.view(n_taps, -1)[tap, rows]
    n_cells = x.batch_size * Z * Y * X
    out_keys = _distinct(keys, n_cells)
    sizes = tap.bincount(minlength=n_taps).tolist()
    out_rows = _SiteIndex(out_keys, n_cells)(keys)
    return Rulebook(
        pairs=tuple(zip(_split(rows, sizes), _split(out_rows, sizes), strict=True)),
        coords=_coords(out_keys, out_shape),
        spatial_shape=out_shape,
    )


def _taken_times(features: Tensor, rows: Tensor | None, weight: Tensor) -> Tensor:
    """features[rows] (V, C_in) times weight (C_out, C_in), as (V, C_out); rows None: all.

    Wide layers on a CPU go through a 1x1 convolution, whose kernels reach twice the rate of the
    matrix product's where that one is not tuned (MKL on AMD). They are compiled for each number
    of rows, so that one is rounded up to a few values.
    """
    if features.device.type != "cpu" or features.dtype != torch.float32 or weight.shape[1] < 64:
        return (features if rows is None else features.index_select(0, rows)) @ weight.t()
    if rows is None:
        rows = torch.arange(len(features))
    n, C = len(rows), features.shape[1]
    padded = nn.functional.pad(rows, (0, -n % 1024))
    gathered = features.index_select(0, padded).view(1, len(padded), 1, C).permute(0, 3, 1, 2)
    out = nn.functional.conv2d(gathered, weight[:, :, None, None])
    return out.permute(0, 2, 3, 1).reshape(len(padded), -1)[:n]


def _block_product(features: Tensor, weight: Tensor, inputs: Tensor) -> Tensor:
    """features (V_in, C_in), weight (K, C_out, C_in), inputs (V_out, K) -> (V_out, C_out)."""
    K, C_out, C_in = weight.shape
    # a gathered block of a few MB stays in the cache; a few sizes only, since kernels are compiled
    # for each number of rows
    rows = min(65536 // C_in, -(-len(inputs) // 1024) * 1024)
    table = torch.cat((features, features.new_zeros(1, C_in)))
    kernel = weight.permute(1, 0, 2).reshape(C_out, K * C_in, 1, 1)
    out = features.new_empty(len(inputs), C_out)
    for begin in range(0, len(inputs), rows):
        block = inputs[begin : begin + rows]
        n = len(block)
        if n < rows:
            block = nn.functional.pad(block, (0, 0, 0, rows - n), value=len(features))
        taps = table.index_select(0, block.flatten()).view(1, rows, 1, K * C_in)
        product = nn.functional.conv2d(taps.permute(0, 3, 1, 2), kernel)
        out[begin : begin + n] = product.permute(0, 2, 3, 1).reshape(rows, C_out)[:n]
    return out


class _ApplyRulebook(torch.autograd.Function):
    """(V_in, C_in) features, (K, C_out, C_in) weight -> (V_out, C_out)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.book = book
        if book.inputs is not None and features.shape[1] < 128:
            return _block_product(features, weight, book.inputs)
        out = features.new_zeros(len(book.coords), weight.shape[1])
        for w, pair in zip(weight, book.pairs, strict=True):
            if pair is None:
                out += _taken_times(features, None, w)
            elif len(pair[0]):
                out.index_add_(0, pair[1], _taken_times(features, pair[0], w))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        features, weight = ctx.saved_tensors
        need_features, need_weight = ctx.needs_input_grad[:2]
        grad_features = torch.zeros_like(features) if need_features else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        for k, pair in enumerate(ctx.book.pairs):
            if pair is not None and not len(pair[0]):
                continue
            if grad_weight is not None:
                g = grad if pair is None else grad.index_select(0, pair[1])
                f = features if pair is None else features.index_select(0, pair[0])
                torch.mm(g.t(), f, out=grad_weight[k])
            if grad_features is not None:
                back = _taken_times(grad, None if pair is None else pair[1], weight[k].t())
                if pair is None:
                    grad_features += back
                else:
                    grad_features.index_add_(0, pair[0], back)
        return grad_features, grad_weight, None


class SparseConv3d(nn.Module):
    """Sparse convolution; cross-correlation, like ``nn.Conv3d``.

    ``weight`` is (C_out, kz, ky, kx, C_in): the layout of spconv 2, so official weights load as
    they are. ``bias`` is None until a batch norm is folded in. ``submanifold`` keeps the sites;
    otherwise ``stride`` and ``padding`` count.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        padding: Triple = (0, 0, 0),
        submanifold: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.submanifold = submanifold
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel, in_channels))
        self.bias: nn.Parameter | None = None
        bound = 1 / math.sqrt(math.prod(kernel) * in_channels)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        if x.features.is_cuda and len(x.features) and _spconv() is not None:
            out = apply_spconv(self, x)
        else:
            out = self.forward_torch(x)
        return out if self.bias is None else out.with_features(out.features + self.bias)

    def forward_torch(self, x: SparseTensor) -> SparseTensor:
        """The plain-torch twin, without the bias: runs and trains on any device."""
        if self.submanifold:
            book = submanifold_rulebook(x, self.kernel)
        else:
            book = strided_rulebook(x, self.kernel, self.stride, self.padding)
        weight = self.weight.flatten(1, 3).transpose(0, 1).contiguous()
        features: Tensor = _ApplyRulebook.apply(x.features, weight, book)  # type: ignore[no-untyped-call]
        if self.submanifold:
            return x.with_features(features)
        return SparseTensor(
            features=features,
            coords=book.coords,
            spatial_shape=book.spatial_shape,
            batch_size=x.batch_size,
        )


class SparseBatchNorm(nn.BatchNorm1d):
    """Batch norm over active voxels. Fewer than two voxels have no batch statistics: the running
    ones are used then."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        if self.training and len(x.features) < 2:
            mean, var = self.running_mean, self.running_var
            out = nn.functional.batch_norm(
                x.features, mean, var, self.weight, self.bias, eps=self.eps
            )
            return x.with_features(out)
        return x.with_features(super().forward(x.features))


class SparseReLU(nn.Module):
    """ReLU on the features."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(x.features.relu_())


@functools.cache
def _spconv() -> Any:
    try:
        return importlib.import_module("spconv.pytorch")
    except ImportError:
        return None


def apply_spconv(conv: SparseConv3d, x: SparseTensor) -> SparseTensor:
    """The same convolution through spconv 2, with the same weight parameter."""
    spconv = _spconv()
    c_out, c_in = conv.weight.shape[0], conv.weight.shape[4]
    if conv.submanifold:
        layer = spconv.SubMConv3d(
            c_in, c_out, list(conv.kernel), bias=False, indice_key=f"subm{conv.kernel}"
        )
    else:
        layer = spconv.SparseConv3d(
            c_in, c_out, list(conv.kernel), list(conv.stride), list(conv.padding), bias=False
        )
    layer.weight = conv.weight
    layer.train(conv.training)
    sites = spconv.SparseConvTensor(
        x.features.contiguous(),
        x.coords.int().contiguous(),
        list(x.spatial_shape),
        x.batch_size,
    )
    if conv.submanifold:
        sites.indice_dict = x.rulebooks.get("spconv", {})
    out = layer(sites)
    if conv.submanifold:
        x.rulebooks["spconv"] = out.indice_dict
        return x.with_features(out.features)
    z, y, w = (int(n) for n in out.spatial_shape)
    return SparseTensor(
        features=out.features,
        coords=out.indices.long(),
        spatial_shape=(z, y, w),
        batch_size=x.batch_size,
    )
