"""From a frame's pixels and points to the tensors that every network reads.

Legend: B frames, N cameras, H and W network pixels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.frames import CameraView, Frame, SceneSource, points_in_ego
from datasets.geometry.transforms import inverse

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a network wants to see.

    Attributes:
        height, width: network pixels. Pictures are resized by width and cropped at the top.
        lidar: whether points and their depth maps are read at all.
        past_sweeps: earlier sweeps added to the key sweep.
        depth_min_m, depth_max_m: range of the LiDAR depth map.
    """

    height: int
    width: int
    lidar: bool
    past_sweeps: int = 9
    depth_min_m: float = 1.0
    depth_max_m: float = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """A batch of frames. The ego frame is that of the LiDAR key-frame throughout.

    Attributes:
        images: (B, N, 3, H, W) float32, RGB, normalised with the ImageNet constants.
        T_ego_camera: (B, N, 4, 4) float32, camera to ego, metres.
        intrinsics: (B, N, 3, 3) float32, pixels of the stored picture.
        post_image: (B, N, 3, 3) float32, stored pixel (u, v, 1) to network pixel.
        T_bda: (B, 4, 4) float32, BEV augmentation: ego to augmented ego. Points, labels and
            everything the network outputs are in the augmented frame.
        points: per frame (P, 5) float32: x, y, z (augmented ego, metres), raw intensity, time
            lag in seconds; None for camera-only networks.
        depth: (B, N, H, W) float32 metres, 0 where no return; None for camera-only networks.
    """

    images: Tensor
    T_ego_camera: Tensor
    intrinsics: Tensor
    post_image: Tensor
    T_bda: Tensor
    points: tuple[Tensor, ...] | None
    depth: Tensor | None

    def to(self, device: torch.device | str) -> ModelInputs:
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device),
            T_ego_camera=self.T_ego_camera.to(device),
            intrinsics=self.intrinsics.to(device),
            post_image=self.post_image.to(device),
            T_bda=self.T_bda.to(device),
            points=None if self.points is None else tuple(p.to(device) for p in self.points),
            depth=None if self.depth is None else self.depth.to(device),
        )
