"""A short way from LiDAR voxels to the head, past the BEV trunk.

The trunk squeezes a column into one BEV vector and the head must spread it out again, which takes
many steps to learn. Where the sparse encoder has a level on the output's own voxels, its features
can go straight to the head: voxel by voxel, painted with what the pictures show there. Only the
small presets use it; the published networks have no such path.

Legend: B frames, N cameras, V voxels with points, C channels, u sub-columns per BEV cell and axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasets.geometry.grid import VoxelGrid
from datasets.inputs import ModelInputs
from models.lidar_encoder import SparseBlock, conv_norm_relu
from models.ops.bev_pool import pool_sorted
from models.ops.sparse_conv import SparseConv3d, SparseTensor
from models.view_transform import bilinear_taps


class VoxelSkip(nn.Module):
    """Sparse features on the output's voxels -> extra channels of the BEV map."""

    def __init__(
        self,
        lidar_channels: int,
        image_channels: int,
        out_channels: int,
        *,
        grid: VoxelGrid,
        bev_upsample: int,
        norm_momentum: float,
    ) -> None:
        super().__init__()
        self.grid, self.bev_upsample = grid, bev_upsample
        self.join = conv_norm_relu(
            SparseConv3d(lidar_channels + image_channels, lidar_channels, submanifold=True),
            norm_momentum,
        )
        self.refine = SparseBlock(lidar_channels, norm_momentum)
        self.project = nn.Linear(lidar_channels, out_channels)

    def forward(self, x: SparseTensor, features: Tensor | None, inputs: ModelInputs) -> Tensor:
        """LiDAR features on the output's voxels, picture features (B N, C, h, w) or None ->
        (B, u u Z C, Y/u, X/u), zero where no voxel has points."""
        X, Y, Z = self.grid.shape
        assert x.spatial_shape == (Z, Y, X), (x.spatial_shape, self.grid.shape)
        if features is not None:
            painted = torch.cat((x.features, self.paint(x.coords, features, inputs)), dim=1)
            x = x.with_features(painted)
        x = self.refine(self.join(x))
        out: Tensor = self.project(x.features)
        u, C = self.bev_upsample, out.shape[1]
        b, z, yy, xx = x.coords.unbind(1)
        cell = (b * (Y // u) + yy // u) * (X // u) + xx // u
        row = ((cell * u + xx % u) * u + yy % u) * Z + z
        flat = out.new_zeros(x.batch_size * Y * X * Z, C).index_copy(0, row, out)
        return flat.view(x.batch_size, Y // u, X // u, u * u * Z * C).permute(0, 3, 1, 2)

    def paint(self, coords: Tensor, features: Tensor, inputs: ModelInputs) -> Tensor:
        """Picture features (B N, C, h, w) at the voxels' centres, mean over cameras: (V, C)."""
        like = inputs.T_ego_camera
        frame = coords[:, 0]
        centres = coords[:, 1:].flip(1) + 0.5
        points = centres * like.new_tensor(self.grid.size_m) + like.new_tensor(self.grid.min_m)
        camera = torch.inverse(inputs.T_bda[:, None] @ like)[..., :3, :]  # (B, N, 3, 4)
        homogeneous = torch.cat((points, torch.ones_like(points[:, :1])), dim=1)
        at = torch.einsum("vnij,vj->vni", camera[frame], homogeneous)
        image = inputs.post_image @ inputs.intrinsics
        pixel = torch.einsum("vnij,vnj->vni", image[frame], at)
        depth = at[..., 2]
        BN, C, h, w = features.shape
        rows, weights, index = bilinear_taps(
            pixel[..., :2] / depth.clamp(min=1e-3)[..., None],
            depth,
            frame,
            image_size=(int(inputs.images.shape[-2]), int(inputs.images.shape[-1])),
            map_size=(h, w),
        )
        table = features.permute(0, 2, 3, 1).reshape(BN * h * w, C)
        return pool_sorted(table, rows, weights, index, len(coords))
