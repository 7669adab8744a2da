"""The student: cameras only (FlashOcc, arXiv 2311.12058).

Legend: B frames, N cameras, C channels, (Y, X) BEV cells, (X, Y, Z) voxels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from datasets.model_inputs import ModelInputs
from models.networks.bev_trunk import BevNeck, BevResNet, BevResNetConfig
from models.networks.fpn import build_neck
from models.networks.fusion_teacher import CameraBranchConfig, build_backbone
from models.networks.heads import BevNetwork, HeadConfig, OccupancyHead
from models.networks.view_transform import build_view_transform


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """Shape of the student."""

    camera: CameraBranchConfig
    trunk: BevResNetConfig = field(default_factory=BevResNetConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


class CameraStudent(BevNetwork):
    """Camera-only occupancy network; official state-dict names."""

    def __init__(self, config: CameraConfig) -> None:
        super().__init__()
        self.config = config
        camera = config.camera
        self.img_backbone = build_backbone(camera.backbone)
        self.img_neck = build_neck(camera.neck, camera.backbone.out_channels, camera.neck_channels)
        self.img_view_transformer = build_view_transform(
            camera.lift, camera.neck_channels, camera.backbone.finest_stride
        )
        self.img_bev_encoder_backbone = BevResNet(camera.lift.out_channels, config.trunk)
        self.img_bev_encoder_neck = BevNeck(config.trunk)
        self.occ_head = OccupancyHead(config.trunk.neck_channels, config.head)

    def bev(self, inputs: ModelInputs) -> Tensor:
        """BEV features in the augmented ego frame, (B, C, Y, X)."""
        maps = self.img_backbone(inputs.pictures())
        bev: Tensor = self.img_view_transformer(self.img_neck(maps), inputs)
        bev = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(bev))
        return bev
