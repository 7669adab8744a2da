"""Camera-only student over several frames, with temporal stereo depth (FlashOcc M2).

BEVStereo4D (arXiv 2203.17054, 2209.10248) under FlashOcc's head (arXiv 2311.12058). Depth comes
from matching every picture with the same camera's earlier one as well as from the picture itself,
and the BEV maps of earlier frames, lifted straight into the current ego frame, are read beside the
current one. The earliest frame lends only its stride-4 features, to be matched against.

Legend: B frames, N cameras, M pictures that are there (B N if all are), C channels, D depth bins,
(h, w) feature pixels, (Y, X) BEV cells, (X, Y, Z) voxels, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from datasets.model_inputs import ModelInputs
from models.networks.bev_trunk import BevBlock, BevNeck, BevResNet, BevResNetConfig
from models.networks.depth_net import DepthNet, camera_numbers
from models.networks.fpn import build_neck
from models.networks.fusion_teacher import CameraBranchConfig
from models.networks.heads import BevNetwork, HeadConfig, OccupancyHead
from models.networks.resnet import ResNet, ResNetConfig
from models.networks.view_transform import Lift, LssConfig
from models.ops.plane_sweep import matching_cost, sweep_positions
from models.ops.precision import full_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class StereoConfig:
    """Shape of the stereo student.

    Attributes:
        camera: the camera branch. Its backbone's first output, at stride 4, is for matching and
            does not reach the neck.
        past_bevs: earlier frames whose BEV is read.
        aspp_channels: of the depth network's pyramid.
        unseen_cost: matching cost added where the earlier picture does not reach.
        trunk, head: the rest.

    Raises:
        ValueError: the camera branch is not a ResNet with stage 1 and a lift without LiDAR depth.
    """

    camera: CameraBranchConfig
    past_bevs: int = 1
    aspp_channels: int = 96
    unseen_cost: float = 5.0
    trunk: BevResNetConfig = field(default_factory=BevResNetConfig)
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        backbone, lift = self.camera.backbone, self.camera.lift
        if not isinstance(backbone, ResNetConfig) or backbone.outputs[0] != 1:
            raise ValueError(f"stereo needs a ResNet that gives out stage 1, got {backbone}")
        if not isinstance(lift, LssConfig) or lift.lidar_depth or lift.depth_channels is None:
            raise ValueError(f"stereo needs a depth lift with depth_channels, no LiDAR: {lift}")
        if self.past_bevs < 0:
            raise ValueError(f"past_bevs must not be negative, got {self.past_bevs}")

    @property
    def past_frames(self) -> int:
        """Earlier frames that the inputs must have."""
        return self.past_bevs + 1


class StereoStudent(BevNetwork):
    """Camera-only occupancy network over several frames; official state-dict names."""

    def __init__(self, config: StereoConfig) -> None:
        super().__init__()
        self.config = config
        camera = config.camera
        assert isinstance(camera.backbone, ResNetConfig) and isinstance(camera.lift, LssConfig)
        self.img_backbone = ResNet(camera.backbone)
        self.img_neck = build_neck(
            camera.neck, camera.backbone.out_channels[1:], camera.neck_channels
        )
        self.img_view_transformer = StereoViewTransform(camera.lift, camera.neck_channels, config)
        C = camera.lift.out_channels
        block = nn.Sequential(BevBlock(C, C, stride=1, first=True))
        self.pre_process_net = nn.Sequential(OrderedDict(layers=nn.Sequential(block)))
        self.img_bev_encoder_backbone = BevResNet(C * (1 + config.past_bevs), config.trunk)
        self.img_bev_encoder_neck = BevNeck(config.trunk)
        self.occ_head = OccupancyHead(config.trunk.neck_channels, config.head)

    def bev(self, inputs: ModelInputs) -> Tensor:
        """BEV features in the augmented ego frame, (B, C, Y, X)."""
        return self.bev_and_depth(inputs)[0]

    def bev_and_depth(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """``bev``, and the depth probabilities (B N, D, h, w) of the current frame.

        Gradients flow through the current frame only, as published.

        Raises:
            ValueError: the inputs have another number of earlier frames than this network reads.
        """
        if len(inputs.previous) != self.config.past_frames:
            raise ValueError(
                f"this network reads {self.config.past_frames} earlier frames, the inputs have "
                f"{len(inputs.previous)}"
            )
        *past, previous = inputs.previous
        bevs = []
        with torch.no_grad():
            matched = self.img_backbone.first_map(previous.pictures())
            for frame in reversed(past):
                bev, _, matched = self._frame(frame, inputs, previous, matched)
                bevs.append(bev)
                previous = frame
        bev, probability, _ = self._frame(inputs, inputs, previous, matched)
        bevs.append(bev)
        bev = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(torch.cat(bevs, dim=1)))
        return bev, probability

    def _frame(
        self, frame: ModelInputs, current: ModelInputs, earlier: ModelInputs, matched: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One frame's BEV (B, C, Y, X), depth probabilities and stride-4 features.

        Args:
            current: the frame whose camera poses the depth network is told.
            earlier: the frame before; matched: its stride-4 features.
        """
        fine, *maps = self.img_backbone(frame.pictures())
        view = self.img_view_transformer
        matching = view.matching(fine, frame, matched, earlier)
        cameras = camera_numbers(frame, current.T_ego_camera)
        bev, probability = view(self.img_neck(maps), matching, cameras, frame)
        return self.pre_process_net(bev), probability, fine


class StereoViewTransform(Lift):
    """The lift with a depth network that is told the cameras and shown what matching says."""

    def __init__(self, lift: LssConfig, in_channels: int, config: StereoConfig) -> None:
        super().__init__(lift)
        assert lift.depth_channels is not None
        self.unseen_cost = config.unseen_cost
        self.depth_net = DepthNet(
            in_channels,
            lift.depth_channels,
            depths=lift.n_depths,
            context_channels=lift.context_channels,
            aspp_channels=config.aspp_channels,
        )

    def forward(
        self,
        features: Tensor,  # (M, C, h, w)
        matching: Tensor,  # (M, D, 4 h, 4 w)
        cameras: Tensor,  # (M, 27)
        frame: ModelInputs,
    ) -> tuple[Tensor, Tensor]:
        """BEV (B, context_channels, Y, X) and depth probabilities (B N, D, h, w)."""
        logits, context = self.depth_net(features, cameras, matching)
        probability = logits.softmax(dim=1)
        return self.lift(probability, context, frame), frame.by_view(probability)

    @torch.no_grad()
    def matching(
        self, features: Tensor, frame: ModelInputs, earlier_features: Tensor, earlier: ModelInputs
    ) -> Tensor:
        """Depth probabilities from matching alone: (M, C, h, w) twice -> (M, D, h, w)."""
        h, w = (int(n) for n in features.shape[-2:])
        features, earlier_features = frame.by_view(features), earlier.by_view(earlier_features)
        parity = self.config.reference_parity
        with full_precision(features):
            positions = sweep_positions(
                self.scaled_pixels(frame, h, w), frame, earlier, corner_aligned=parity
            )
            cost = matching_cost(
                features.float(),
                earlier_features.float(),
                positions.view(len(features), -1, h, w, 2),
                unseen_cost=self.unseen_cost,
                reference_parity=parity,
            )
            matched = (-cost).softmax(dim=1)
            return frame.pictures(matched.view(*frame.images.shape[:2], *matched.shape[1:]))
