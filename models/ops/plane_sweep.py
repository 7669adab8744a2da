"""Plane-sweep stereo: matching cost of an image against an earlier one at several depths.

Every feature pixel of the current picture is placed at each depth on its ray and looked up in the
earlier picture; the distance between the two features is the cost of that depth (STS, arXiv
2208.10145; BEVStereo, arXiv 2209.10248).

Legend: B frames, N cameras, C channels, D depth bins, (h, w) feature pixels, P = D h w.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasets.model_inputs import ModelInputs

MIN_DEPTH_M = 1e-3
"""Nearer than this to the earlier camera, or behind it, a point counts as unseen."""


@torch.no_grad()
def sweep_positions(
    scaled_pixels: Tensor,  # (B, N, 3, P) float: (u d, v d, d), stored pixels
    frame: ModelInputs,
    earlier: ModelInputs,
    *,
    corner_aligned: bool,
) -> Tensor:
    """Where the frame's points lie in the same cameras' earlier pictures, (B, N, P, 2).

    In the coordinates of ``grid_sample``: (-1, -1) and (1, 1) are the outer corners of the picture,
    or with ``corner_aligned`` the centres of its corner pixels. A point behind the camera is at
    (-2, -2). Ego motion is in the cameras' poses: both frames' are in one ego frame.
    """
    T = torch.inverse(earlier.T_ego_camera.double()) @ frame.T_ego_camera.double()
    T = T.to(scaled_pixels)
    points = (T[..., :3, :3] @ torch.inverse(frame.intrinsics)) @ scaled_pixels + T[..., :3, 3:]
    pixel = earlier.intrinsics @ points
    pixel = pixel[..., :2, :] / pixel[..., 2:, :]
    pixel = earlier.post_image[..., :2, :2] @ pixel + earlier.post_image[..., :2, 2:]
    H, W = earlier.images.shape[-2:]
    size = pixel.new_tensor((W, H))[:, None]
    normalised = pixel / (size - 1) * 2 - 1 if corner_aligned else (2 * pixel + 1) / size - 1
    return torch.where(points[..., 2:, :] < MIN_DEPTH_M, -2.0, normalised).transpose(-1, -2)


@torch.no_grad()
def matching_cost(
    features: Tensor,  # (B N, C, h, w) float
    earlier: Tensor,  # (B N, C, h, w) float
    positions: Tensor,  # (B N, D, h, w, 2), from ``sweep_positions``
    *,
    unseen_cost: float,
    reference_parity: bool,
) -> Tensor:
    """L1 distance of the features at each depth, (B N, D, h, w); no gradient flows through it.

    Outside the earlier picture its features are zero and ``unseen_cost`` is added. With
    ``reference_parity`` it is added, as in the published code, wherever the fourth channel from the
    end is exactly zero, and positions are corner-aligned.
    """
    costs = []
    for grid in positions.unbind(1):  # one depth at a time: all of them would take gigabytes
        warped = nn.functional.grid_sample(earlier, grid, align_corners=reference_parity)
        unseen = warped[:, -4] == 0 if reference_parity else (grid.abs() > 1).any(dim=-1)
        cost = warped.sub_(features).abs_().sum(dim=1)
        costs.append(cost + unseen_cost * unseen)
    return torch.stack(costs, dim=1)
