"""The teacher: cameras and LiDAR, fused in BEV (EFFOcc, arXiv 2406.07042).

Legend: B frames, N cameras, C channels, (Y, X) BEV cells, (X, Y, Z) voxels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from datasets.model_inputs import ModelInputs
from models.networks.bev_trunk import ConvFuser, ResidualFuser, Second, SecondConfig, SecondFpn
from models.networks.fpn import NeckKind, build_neck
from models.networks.heads import BevNetwork, HeadConfig, OccupancyHead
from models.networks.lidar_encoder import LidarConfig, LidarEncoder
from models.networks.resnet import ResNet, ResNetConfig
from models.networks.swin import Swin, SwinConfig
from models.networks.view_transform import LiftConfig, build_view_transform


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraBranchConfig:
    """Shape of a camera branch: backbone, neck, lift to BEV.

    Attributes:
        neck: "pyramid" (``ImageFpn``) or "concat" (``ConcatNeck``, for two maps).
        neck_channels: of the one map that the neck gives.
    """

    backbone: ResNetConfig | SwinConfig
    neck: NeckKind = "pyramid"
    neck_channels: int
    lift: LiftConfig


def build_backbone(config: ResNetConfig | SwinConfig) -> nn.Module:
    """(B, 3, H, W) -> one map per output stage, fine to coarse.

    Raises:
        SetupError: a Swin, and the extra ``swin`` is not installed.
    """
    return Swin(config) if isinstance(config, SwinConfig) else ResNet(config)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionConfig:
    """Shape of the teacher.

    Attributes:
        camera: the camera branch; None: LiDAR only, without a fuser.
        lidar: the LiDAR branch.
        fused_channels: of the published fuser's output; None: the camera is added to the LiDAR
            (``ResidualFuser``), so that the trunk has the shape of a LiDAR-only network's.
        trunk, head: the rest.
    """

    camera: CameraBranchConfig | None
    lidar: LidarConfig
    fused_channels: int | None = 256
    trunk: SecondConfig = field(default_factory=SecondConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


class FusionTeacher(BevNetwork):
    """Camera and LiDAR (or LiDAR-only) occupancy network; official state-dict names."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.pts_middle_encoder = LidarEncoder(config.lidar)
        bev_channels = config.lidar.out_channels
        if config.camera is not None:
            camera = config.camera
            self.img_backbone = build_backbone(camera.backbone)
            self.img_neck = build_neck(
                camera.neck, camera.backbone.out_channels, camera.neck_channels
            )
            self.img_view_transformer = build_view_transform(
                camera.lift, camera.neck_channels, camera.backbone.finest_stride
            )
            camera_channels, fused_channels = camera.lift.out_channels, config.fused_channels
            if fused_channels is None:
                momentum = config.lidar.norm_momentum
                self.occ_fuser: nn.Module = ResidualFuser(
                    camera_channels, bev_channels, momentum=momentum
                )
            else:
                self.occ_fuser = ConvFuser(camera_channels + bev_channels, fused_channels)
                bev_channels = fused_channels
        self.pts_backbone = Second(bev_channels, config.trunk)
        self.pts_neck = SecondFpn(config.trunk)
        self.occ_head = OccupancyHead(config.trunk.out_channels, config.head)

    def bev(self, inputs: ModelInputs) -> Tensor:
        """BEV features in the augmented ego frame, (B, C, Y, X).

        Raises:
            ValueError: the inputs have no points.
        """
        if inputs.points is None:
            raise ValueError("this network reads LiDAR points, the inputs have none")
        bev: Tensor = self.pts_middle_encoder(inputs.points)
        if self.config.camera is not None:
            bev = self.occ_fuser(self._camera_bev(inputs, self.config.camera.lift, bev), bev)
        bev = self.pts_neck(self.pts_backbone(bev))
        return bev

    def _camera_bev(self, inputs: ModelInputs, lift: LiftConfig, lidar_bev: Tensor) -> Tensor:
        if inputs.images.shape[1] == 0:  # a log without cameras: nothing is seen anywhere
            B, _, Y, X = lidar_bev.shape
            return lidar_bev.new_zeros(B, lift.out_channels, Y, X)
        maps = self.img_backbone(inputs.pictures())
        bev: Tensor = self.img_view_transformer(self.img_neck(maps), inputs)
        return bev
