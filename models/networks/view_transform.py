"""From picture features to a BEV map: lift (LSS) or pull.

Lift (Philion and Fidler, ECCV 2020): every feature pixel predicts a distribution over depth and is
spread along its ray. Pull: every BEV cell is projected into the pictures at several heights and
averages what it finds there.

Legend: B frames, N cameras, M pictures that are there (B N if all are), C channels, D depth bins,
(h, w) feature pixels, (H, W) network pixels, (Y, X) BEV cells, L heights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import ModelInputs
from models.ops.bev_pool import GeometryCache, PoolingPlan, pool, pooling_plan, sorted_plan
from models.ops.precision import full_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class LssConfig:
    """Shape of the lift.

    Attributes:
        grid: BEV cells, one voxel high, in the ego frame.
        depth_min_m, depth_max_m, depth_step_m: lower edges of the depth bins, max exclusive.
        log_depth: as many bins between the same ends, but spaced evenly in log depth ("SID",
            arXiv 2208.10145).
        context_channels: C of the BEV map.
        depth_channels: width of the depth network; None: a single 1x1 convolution.
        lidar_depth: the LiDAR depth map is a further input (a metric map, not a target).
        reference_parity: as the published code has it: rays through the corner-aligned pixels,
            lower bin edges, and cell indices truncated toward zero, so that a strip one cell wide
            below each lower border is pooled too. Needed for published weights. Otherwise rays
            through the centres of feature pixels, bin centres, and half-open cells.
    """

    grid: VoxelGrid
    depth_min_m: float = 1.0
    depth_max_m: float = 45.0
    depth_step_m: float = 0.5
    log_depth: bool = False
    context_channels: int = 64
    depth_channels: int | None = 128
    lidar_depth: bool = True
    reference_parity: bool = False

    def __post_init__(self) -> None:
        if self.grid.shape[2] != 1:
            raise ValueError(f"the BEV grid must be one voxel high: shape={self.grid.shape}")
        if self.lidar_depth and self.depth_channels is None:
            raise ValueError("lidar_depth needs a depth network: set depth_channels")

    @property
    def n_depths(self) -> int:
        return round((self.depth_max_m - self.depth_min_m) / self.depth_step_m)

    @property
    def out_channels(self) -> int:
        return self.context_channels

    def depths_m(self) -> Tensor:
        """(D,) float32: where on its ray each bin lies, its centre (or see ``reference_parity``).

        With ``log_depth`` the published bins reach from the minimum to 1 m before the maximum, both
        ends included; the clean centre is the geometric mean of a bin's edges.
        """
        D, low, step = self.n_depths, self.depth_min_m, self.depth_step_m
        bins = torch.arange(D, dtype=torch.float32)
        if not self.log_depth:
            return low + step * (bins if self.reference_parity else bins + 0.5)
        if self.reference_parity:
            share, high = bins / (D - 1), self.depth_max_m - 1
        else:
            share, high = (bins + 0.5) / D, self.depth_max_m
        return low * torch.exp(share * torch.log(torch.tensor(high / low)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PullConfig:
    """Shape of the pull.

    Attributes:
        grid: BEV cells in the ego frame; z is not used.
        heights_m: heights at which each cell looks into the pictures.
        channels: C of the picture features.
        min_depth_m: nearer than this a point counts as unseen.
        places: add channels that say where each cell is (``cell_places``): the features of a ray
            are the same in all its cells, and only with their distance can the trunk tell which of
            them the surface is in.
    """

    grid: VoxelGrid
    heights_m: tuple[float, ...]
    channels: int
    min_depth_m: float = 0.5
    places: bool = False

    @property
    def out_channels(self) -> int:
        places = len(cell_places(self.grid)) if self.places else 0
        return self.channels * len(self.heights_m) + places


def cell_places(grid: VoxelGrid) -> Tensor:
    """Where the cells of a BEV grid around the ego vehicle are, (8, Y, X) float32.

    x, y and distance in units of the largest |x| (CoordConv, arXiv 1807.03247), and the distance
    in five soft rings.
    """
    X, Y, _ = grid.shape
    x, y = (
        torch.from_numpy(grid.min_m[i] + (np.arange(n) + 0.5) * grid.size_m[i]).float()
        for i, n in enumerate((X, Y))
    )
    extent = x.abs().max()
    y, x = torch.meshgrid(y / extent, x / extent, indexing="ij")
    distance = torch.hypot(x, y)
    rings = [torch.exp(-(((distance - r) / 0.12) ** 2)) for r in (0.1, 0.25, 0.45, 0.7, 1.0)]
    return torch.stack([x, y, distance, *rings])


LiftConfig = LssConfig | PullConfig


def build_view_transform(config: LiftConfig, in_channels: int, stride: int) -> nn.Module:
    """The module for a lift configuration: (M, C, h, w), inputs -> (B, C, Y, X)."""
    if isinstance(config, LssConfig):
        return LssViewTransform(config, in_channels, stride)
    if in_channels != config.channels:
        raise ValueError(f"pull takes {config.channels} channels, the neck gives {in_channels}")
    return PullViewTransform(config, stride)


class Lift(nn.Module):
    """The geometry of the lift and its pooling; what depth and context come from is left open."""

    def __init__(self, config: LssConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry: GeometryCache[PoolingPlan] = GeometryCache()

    def lift(self, probability: Tensor, context: Tensor, inputs: ModelInputs) -> Tensor:
        """(M, D, h, w) and (M, C, h, w) -> (B, C, Y, X), in float32."""
        probability, context = inputs.by_view(probability), inputs.by_view(context)
        h, w = (int(n) for n in context.shape[-2:])
        with full_precision(context):
            plan = self.plan(inputs, h, w)
            return self.splat(probability.float(), context.float(), plan, inputs.images.shape[0])

    @torch.no_grad()
    def frustum(self, inputs: ModelInputs, h: int, w: int) -> Tensor:
        """Every frustum point in the augmented ego frame, metres: (B, N, 3, D, h, w)."""
        T = inputs.T_ego_camera
        scaled = self.scaled_pixels(inputs, h, w)
        ego = (T[..., :3, :3] @ torch.inverse(inputs.intrinsics)) @ scaled + T[..., :3, 3:]
        bda = inputs.T_bda[:, None]
        return (bda[..., :3, :3] @ ego + bda[..., :3, 3:]).view(*T.shape[:2], 3, -1, h, w)

    @torch.no_grad()
    def scaled_pixels(self, inputs: ModelInputs, h: int, w: int) -> Tensor:
        """(u d, v d, d) of every frustum point, (u, v) stored pixels: (B, N, 3, D h w)."""
        H, W = (int(n) for n in inputs.images.shape[-2:])
        post_image = inputs.post_image
        if self.config.reference_parity:
            u = torch.linspace(0, W - 1, w).to(post_image)
            v = torch.linspace(0, H - 1, h).to(post_image)
        else:
            u = (torch.arange(w).to(post_image) + 0.5) * (W / w) - 0.5
            v = (torch.arange(h).to(post_image) + 0.5) * (H / h) - 0.5
        d, v, u = torch.meshgrid(self.config.depths_m().to(post_image), v, u, indexing="ij")
        pixel = torch.stack((u.flatten(), v.flatten()))  # (2, D h w)
        pixel = torch.inverse(post_image[..., :2, :2]) @ (pixel - post_image[..., :2, 2:])
        return torch.cat((pixel, torch.ones_like(pixel[..., :1, :])), dim=-2) * d.flatten()

    @torch.no_grad()
    def cells(self, inputs: ModelInputs, h: int, w: int) -> Tensor:
        """BEV cell y * X + x of every frustum point, -1 outside and for a picture that is not
        there: (B, N, D, h, w) int64."""
        grid = self.config.grid
        points = self.frustum(inputs, h, w).movedim(2, -1)
        cell = (points - points.new_tensor(grid.min_m)) / points.new_tensor(grid.size_m)
        cell = cell.trunc() if self.config.reference_parity else cell.floor()
        inside = ((cell >= 0) & (cell < cell.new_tensor(grid.shape))).all(dim=-1)
        if inputs.present is not None:
            inside &= inputs.present[:, :, None, None, None]
        x, y, _ = cell.unbind(-1)
        return torch.where(inside, (y * grid.shape[0] + x).nan_to_num().long(), -1)

    @torch.no_grad()
    def plan(self, inputs: ModelInputs, h: int, w: int) -> PoolingPlan:
        """Frustum points by BEV cell (b, y, x); samples are numbered (b, n, h, w, d)."""

        def build() -> PoolingPlan:
            X, Y, _ = self.config.grid.shape
            cells = self.cells(inputs, h, w)
            B, _, D, _, _ = cells.shape
            frame = torch.arange(B, device=cells.device).view(B, 1, 1, 1, 1)
            cells = torch.where(cells >= 0, cells + frame * (Y * X), -1)
            cells = cells.permute(0, 1, 3, 4, 2).reshape(-1)
            rows = torch.arange(len(cells) // D, device=cells.device).repeat_interleave(D)
            return pooling_plan(rows, cells, B * Y * X)

        if self.training:  # mirrored at random: hardly a geometry comes twice
            return build()
        return self.geometry.get(inputs, h, w, build)

    def splat(self, probability: Tensor, context: Tensor, plan: PoolingPlan, B: int) -> Tensor:
        """Sum probability x context over the frustum points of each cell: (B, C, Y, X).

        Args:
            probability: (B N, D, h, w); context: (B N, C, h, w).
        """
        X, Y, _ = self.config.grid.shape
        bev = pool(
            context.permute(0, 2, 3, 1).reshape(-1, context.shape[1]),
            probability.permute(0, 2, 3, 1).reshape(-1),
            plan,
        )
        return bev.view(B, Y, X, -1).permute(0, 3, 1, 2)


class LssViewTransform(Lift):
    """Lift, splat, with LiDAR depth as an optional further input."""

    def __init__(self, config: LssConfig, in_channels: int, stride: int) -> None:
        super().__init__(config)
        out = config.n_depths + config.context_channels
        if config.lidar_depth:
            self.lidar_input_net = nn.Sequential(
                *_biased_conv_norm_relu(1, 8, kernel=1),
                *_biased_conv_norm_relu(8, 32, kernel=5, stride=4),
                *_biased_conv_norm_relu(32, 64, kernel=5, stride=stride // 4),
            )
            in_channels += 64
        self.depth_net: nn.Module
        if config.depth_channels is None:
            self.depth_net = nn.Conv2d(in_channels, out, 1)
        else:
            self.depth_net = nn.Sequential(
                *_biased_conv_norm_relu(in_channels, config.depth_channels, kernel=3),
                *_biased_conv_norm_relu(config.depth_channels, config.depth_channels, kernel=3),
                nn.Conv2d(config.depth_channels, out, 1),
            )

    def forward(self, features: Tensor, inputs: ModelInputs) -> Tensor:
        """(M, C, h, w) picture features -> (B, context_channels, Y, X)."""
        return self.lift(*self.depth_and_context(features, inputs), inputs)

    def depth_and_context(self, features: Tensor, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """(M, D, h, w) depth probabilities and (M, C, h, w) context."""
        if self.config.lidar_depth:
            if inputs.depth is None:
                raise ValueError("this network reads LiDAR depth maps, the inputs have none")
            depth = inputs.pictures(inputs.depth)[:, None]
            features = torch.cat((features, self.lidar_input_net(depth)), dim=1)
        logits, context = self.depth_net(features).split(
            (self.config.n_depths, self.config.context_channels), dim=1
        )
        return logits.softmax(dim=1), context


def _biased_conv_norm_relu(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class PullViewTransform(nn.Module):
    """Cells look into the pictures; no parameters."""

    def __init__(self, config: PullConfig, stride: int) -> None:
        super().__init__()
        self.config, self.stride = config, stride
        self.geometry: GeometryCache[tuple[Tensor, PoolingPlan]] = GeometryCache()
        if config.places:
            self.register_buffer("places", cell_places(config.grid), persistent=False)

    def forward(self, features: Tensor, inputs: ModelInputs) -> Tensor:
        """(M, C, h, w) picture features -> (B, L C, Y, X), zero where no camera looks; and the
        channels of ``PullConfig.places``, zero in a frame without a camera."""
        features = inputs.by_view(features)
        B = inputs.images.shape[0]
        BN, C, h, w = features.shape
        X, Y, _ = self.config.grid.shape
        L = len(self.config.heights_m)
        table = features.float().permute(0, 2, 3, 1).reshape(BN * h * w, C)
        with full_precision(features):
            build = partial(self.taps, inputs, h, w)
            weights, plan = build() if self.training else self.geometry.get(inputs, h, w, build)
            bev = pool(table, weights, plan)
        # channels last: nothing is moved; under autocast converted once, not by every reader
        bev = bev.view(B, Y, X, L * C).permute(0, 3, 1, 2).to(features.dtype)
        return self.with_places(bev, inputs.present)

    def with_places(self, bev: Tensor, present: Tensor | None = None) -> Tensor:
        """(B, C, Y, X) with the channels of ``PullConfig.places``, if there are such."""
        if not self.config.places:
            return bev
        places = self.get_buffer("places").to(bev.dtype).expand(bev.shape[0], -1, -1, -1)
        if present is not None:
            places = places * present.any(dim=1)[:, None, None, None]
        return torch.cat((bev, places), dim=1)

    @torch.no_grad()
    def taps(self, inputs: ModelInputs, h: int, w: int) -> tuple[Tensor, PoolingPlan]:
        """Bilinear taps by cell (b, y, x, l): their weights, and their plan."""
        pixel, depth = self.project(inputs)  # (B, N, 2, P), (B, N, P)
        N, _, H, W = inputs.images.shape[1:]
        u, v = pixel.unbind(2)
        in_view = (depth > self.config.min_depth_m) & (u > -0.5) & (u < W - 0.5)
        in_view &= (v > -0.5) & (v < H - 0.5)
        if inputs.present is not None:
            in_view &= inputs.present[:, :, None]
        frame, point, camera = in_view.transpose(1, 2).nonzero(as_tuple=True)
        taps_vu = torch.stack((v, u), dim=-1)[frame, camera, point]  # (S, 2)
        taps_vu = (taps_vu + 0.5) * taps_vu.new_tensor((h / H, w / W)) - 0.5
        low = taps_vu.floor()
        high_share = taps_vu - low
        iy, ix = (
            torch.stack((low, low + 1), dim=-1)[:, axis].clamp_(0, n - 1).long()
            for axis, n in ((0, h), (1, w))
        )
        sy, sx = torch.stack((1 - high_share, high_share), dim=-1).unbind(1)
        cell = frame * depth.shape[-1] + point
        cameras = in_view.sum(dim=1)[frame, point]
        rows = ((frame * N + camera)[:, None, None] * h + iy[:, :, None]) * w + ix[:, None, :]
        weights = sy[:, :, None] * sx[:, None, :] / cameras[:, None, None]
        n_cells = len(depth) * depth.shape[-1]
        plan = sorted_plan(rows.flatten(), cell.repeat_interleave(4), n_cells)
        return weights.flatten(), plan

    def project(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """Every cell's centre at every height, P = Y X L points in this order: network pixels
        (B, N, 2, P), depth (B, N, P) metres."""
        grid = self.config.grid
        T_ego_camera = inputs.T_ego_camera
        x, y = (
            grid.min_m[i] + (torch.arange(grid.shape[i]).to(T_ego_camera) + 0.5) * grid.size_m[i]
            for i in (0, 1)
        )
        y, x, z = torch.meshgrid(
            y, x, T_ego_camera.new_tensor(self.config.heights_m), indexing="ij"
        )
        points = torch.stack((x, y, z, torch.ones_like(x))).view(4, -1)
        ego = torch.inverse(inputs.T_bda) @ points  # (B, 4, P)
        camera = torch.inverse(inputs.T_ego_camera)[..., :3, :] @ ego[:, None]
        depth = camera[..., 2, :]
        image = inputs.post_image @ inputs.intrinsics @ camera
        return image[..., :2, :] / depth.clamp(min=1e-3)[..., None, :], depth
