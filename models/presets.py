"""Every network that can be built by name, as typed Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import InputSpec
from datasets.taxonomy import (
    OCC3D_COARSE,
    OCC3D_NUSCENES,
    OCC3D_WAYMO,
    OPENOCC_FLOW,
    OPENOCCUPANCY,
    Taxonomy,
)
from models.networks.bev_trunk import BevResNetConfig, SecondConfig
from models.networks.camera_student import CameraConfig, CameraStudent
from models.networks.fusion_teacher import CameraBranchConfig, FusionConfig, FusionTeacher
from models.networks.heads import HeadConfig
from models.networks.lidar_encoder import LidarConfig
from models.networks.resnet import ResNetConfig, resnet18, resnet50
from models.networks.stereo_student import StereoConfig, StereoStudent
from models.networks.swin import swin_base
from models.networks.view_transform import LssConfig, PullConfig

OCCUPANCY_GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4,) * 3, shape=(200, 200, 16))
"""Occ3D: 80 x 80 x 6.4 m around the ego vehicle, ego frame of the LiDAR key-frame."""

COARSE_GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.8,) * 3, shape=(100, 100, 8))
"""That of Occ3D in voxels twice as long, for small networks."""

OPENOCCUPANCY_GRID = VoxelGrid(min_m=(-51.2, -51.2, -5.0), size_m=(0.2,) * 3, shape=(512, 512, 40))
"""OpenOccupancy: 102.4 x 102.4 x 8 m around the LiDAR, in its own frame."""

OccupancyNet = FusionTeacher | CameraStudent | StereoStudent
NetworkConfig = FusionConfig | CameraConfig | StereoConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A network and what belongs to it.

    Attributes:
        name: as used on command lines and in weights files.
        grid: the voxels it predicts.
        taxonomy: the classes it predicts.
        inputs: what it reads.
        network: its shape.
        parameters: learnable numbers, exactly.
        paper: where it comes from, and the accuracy published there (mIoU[camera-visible]
            unless it says otherwise).
    """

    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    inputs: InputSpec
    network: NetworkConfig
    parameters: int
    paper: str

    def with_reference_parity(self) -> Preset:
        """The same network with the published code's inputs and lift, which official weights need
        (see ``InputSpec.reference_parity`` and ``LssConfig.reference_parity``)."""
        network, camera = self.network, self.network.camera
        if camera is not None and isinstance(camera.lift, LssConfig):
            camera = replace(camera, lift=replace(camera.lift, reference_parity=True))
            network = replace(network, camera=camera)
        return replace(self, inputs=replace(self.inputs, reference_parity=True), network=network)


def _bev_grid(cell_m: float, cells: int) -> VoxelGrid:
    return VoxelGrid(
        min_m=(-40.0, -40.0, -1.0), size_m=(cell_m, cell_m, 6.4), shape=(cells, cells, 1)
    )


def _fine_voxels() -> LidarConfig:
    grid = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.05, 0.05, 0.16), shape=(1600, 1600, 40))
    return LidarConfig(grid=grid)


def _fusion(backbone: ResNetConfig, *, head: HeadConfig) -> FusionConfig:
    lift = LssConfig(grid=_bev_grid(0.4, 200))
    return FusionConfig(
        camera=CameraBranchConfig(backbone=backbone, neck_channels=128, lift=lift),
        lidar=_fine_voxels(),
        head=head,
    )


def fusion_r18_occ3d() -> Preset:
    return Preset(
        name="fusion_r18_occ3d",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=256, width=704, lidar=True),
        network=_fusion(resnet18(outputs=(2, 3, 4)), head=HeadConfig()),
        parameters=21_354_248,
        paper="EFFOcc-T, R18, camera and LiDAR, Occ3D-nuScenes (abstract): 51.49",
    )


def fusion_r50_occ3d() -> Preset:
    return Preset(
        name="fusion_r50_occ3d",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=256, width=704, lidar=True),
        network=_fusion(resnet50(outputs=(2, 3, 4)), head=HeadConfig()),
        parameters=34_029_832,
        paper="EFFOcc, R50, camera and LiDAR, Occ3D-nuScenes; no published row",
    )


def fusion_swinb_occ3d() -> Preset:
    """Needs the extra ``swin``."""
    lift = LssConfig(grid=_bev_grid(0.4, 200), context_channels=256, depth_channels=512)
    return Preset(
        name="fusion_swinb_occ3d",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=512, width=1408, lidar=True),
        network=FusionConfig(
            camera=CameraBranchConfig(
                backbone=swin_base(outputs=(3, 4)), neck="concat", neck_channels=512, lift=lift
            ),
            lidar=_fine_voxels(),
        ),
        parameters=111_480_320,
        paper="EFFOcc-Base, Swin-B, camera and LiDAR, Occ3D-nuScenes (Table I): 54.08",
    )


def _openoccupancy(backbone: ResNetConfig) -> FusionConfig:
    low = OPENOCCUPANCY_GRID.min_m
    cells = VoxelGrid(min_m=low, size_m=(0.2, 0.2, 8.0), shape=(512, 512, 1))
    voxels = VoxelGrid(min_m=low, size_m=(0.025, 0.025, 0.2), shape=(4096, 4096, 40))
    lift = LssConfig(grid=cells, depth_max_m=60.0, depth_step_m=1.0)
    return FusionConfig(
        camera=CameraBranchConfig(backbone=backbone, neck_channels=128, lift=lift),
        lidar=LidarConfig(grid=voxels),
        head=HeadConfig(levels=40, classes=17),
    )


def fusion_r18_openoccupancy() -> Preset:
    """In the LiDAR frame. Trained with 9 past sweeps, tested with 10."""
    return Preset(
        name="fusion_r18_openoccupancy",
        grid=OPENOCCUPANCY_GRID,
        taxonomy=OPENOCCUPANCY,
        inputs=InputSpec(
            height=256, width=704, lidar=True, past_sweeps=10, depth_max_m=60.0, frame="lidar"
        ),
        network=_openoccupancy(resnet18(outputs=(2, 3, 4))),
        parameters=21_551_603,
        paper="EFFOcc-T, R18, camera and LiDAR, OpenOccupancy (Table V): "
        "IoU[all] 30.8, mIoU[all] 22.9",
    )


def fusion_r50_openoccupancy() -> Preset:
    """In the LiDAR frame. Trained with 9 past sweeps, tested with 10."""
    return Preset(
        name="fusion_r50_openoccupancy",
        grid=OPENOCCUPANCY_GRID,
        taxonomy=OPENOCCUPANCY,
        inputs=InputSpec(
            height=512, width=1408, lidar=True, past_sweeps=10, depth_max_m=60.0, frame="lidar"
        ),
        network=_openoccupancy(resnet50(outputs=(2, 3, 4))),
        parameters=34_227_187,
        paper="EFFOcc, R50, camera and LiDAR, OpenOccupancy; no published row",
    )


def fusion_r18_flow() -> Preset:
    """The published head has an 18th class without a label: among the weights, never predicted."""
    return Preset(
        name="fusion_r18_flow",
        grid=OCCUPANCY_GRID,
        taxonomy=OPENOCC_FLOW,
        inputs=InputSpec(height=256, width=704, lidar=True),
        network=_fusion(
            resnet18(outputs=(2, 3, 4)), head=HeadConfig(classes=17, unowned=1, flow=True)
        ),
        parameters=21_502_248,
        paper="EFFOcc-T with flow, R18, camera and LiDAR, OpenOcc v2: RayIoU 44.1, mAVE 2.156, "
        "OccScore 39.7 (figures of the published configuration; no table)",
    )


def fusion_r18_waymo() -> Preset:
    """Five cameras, one sweep; reads the elongation of its returns, as published."""
    return Preset(
        name="fusion_r18_waymo",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_WAYMO,
        inputs=InputSpec(
            height=256,
            width=704,
            lidar=True,
            past_sweeps=0,
            point_features="tanh_intensity_elongation",
        ),
        network=_fusion(resnet18(outputs=(2, 3, 4)), head=HeadConfig(classes=16)),
        parameters=21_337_832,
        paper="EFFOcc-T, R18, camera and LiDAR, Occ3D-Waymo (Table II): 49.59",
    )


def lidar_waymo() -> Preset:
    """One sweep; reads the elongation of its returns, as published."""
    return Preset(
        name="lidar_waymo",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_WAYMO,
        inputs=InputSpec(
            height=256,
            width=704,
            lidar=True,
            depth=False,
            past_sweeps=0,
            point_features="tanh_intensity_elongation",
        ),
        network=FusionConfig(camera=None, lidar=_fine_voxels(), head=HeadConfig(classes=16)),
        parameters=8_713_936,
        paper="EFFOcc-L, LiDAR only, Occ3D-Waymo (Table II): 50.35",
    )


def lidar_occ3d() -> Preset:
    return Preset(
        name="lidar_occ3d",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=256, width=704, lidar=True, depth=False),
        network=FusionConfig(camera=None, lidar=_fine_voxels()),
        parameters=8_730_352,
        paper="EFFOcc-L, LiDAR only, Occ3D-nuScenes (Table I): 45.13",
    )


def _flashocc(neck_channels: int) -> CameraConfig:
    lift = LssConfig(grid=_bev_grid(0.4, 200), depth_channels=None, lidar_depth=False)
    return CameraConfig(
        camera=CameraBranchConfig(backbone=resnet50(outputs=(3, 4)), neck_channels=256, lift=lift),
        trunk=BevResNetConfig(neck_channels=neck_channels),
    )


def flashocc_r50() -> Preset:
    return Preset(
        name="flashocc_r50",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=256, width=704, lidar=False),
        network=_flashocc(256),
        parameters=44_744_312,
        paper="FlashOcc M1, R50, one frame, Occ3D-nuScenes: 32.08",
    )


def flashocc_r50_distill() -> Preset:
    return Preset(
        name="flashocc_r50_distill",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=256, width=704, lidar=False),
        network=_flashocc(512),
        parameters=59_099_512,
        paper="EFFOcc's distilled FlashOcc, R50, BEV features as wide as the teacher's: 34.30",
    )


def flashocc_r50_4d_stereo() -> Preset:
    network = StereoConfig(
        camera=CameraBranchConfig(
            backbone=resnet50(outputs=(1, 3, 4)),
            neck_channels=256,
            lift=LssConfig(
                grid=_bev_grid(0.4, 200),
                log_depth=True,
                context_channels=80,
                depth_channels=256,
                lidar_depth=False,
            ),
        ),
        trunk=BevResNetConfig(channels=(160, 320, 640)),
    )
    return Preset(
        name="flashocc_r50_4d_stereo",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=256, width=704, lidar=False, past_frames=network.past_frames),
        network=network,
        parameters=58_668_414,
        paper="FlashOcc M2, 4D stereo, R50, Occ3D-nuScenes: 37.84",
    )


_TINY_BACKBONE = ResNetConfig(
    blocks=(1, 1, 1, 1), widths=(24, 32, 64, 96), bottleneck=False, outputs=(1, 2, 3, 4)
)
_HEIGHTS_M = (-0.6, 0.6, 1.8, 3.0, 4.2)
_TINY_LIFT = PullConfig(grid=_bev_grid(0.8, 100), heights_m=_HEIGHTS_M, channels=32, places=True)
_COARSE_LIFT = replace(_TINY_LIFT, grid=_bev_grid(1.6, 50))


def _small_voxels(size_m: float, shape: tuple[int, int, int]) -> LidarConfig:
    grid = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(size_m,) * 3, shape=shape)
    return LidarConfig(
        grid=grid,
        features="local",
        channels=(16, 32),
        blocks=1,
        down_kernel=2,
        paddings=((0, 0, 0),),
        norm_momentum=0.1,
    )


_TINY_TRUNK = SecondConfig(channels=(64, 96), layers=(2, 2), neck_channels=48, norm_momentum=0.1)
_SMALL_TRUNK = SecondConfig(
    channels=(64, 128, 192), layers=(2, 2, 2), neck_channels=48, norm_momentum=0.1
)


def _tiny_teacher(
    camera: CameraBranchConfig | None, trunk: SecondConfig = _TINY_TRUNK
) -> FusionConfig:
    return FusionConfig(
        camera=camera,
        lidar=_small_voxels(0.2, (400, 400, 32)),
        fused_channels=64,
        trunk=trunk,
        head=HeadConfig(conv_channels=96, hidden=192),
    )


def _tiny_camera() -> CameraBranchConfig:
    lift = LssConfig(
        grid=_bev_grid(0.4, 200), depth_step_m=1.0, context_channels=32, depth_channels=48
    )
    return CameraBranchConfig(backbone=_TINY_BACKBONE, neck_channels=32, lift=lift)


def city_tiny() -> Preset:
    return Preset(
        name="city_tiny",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=96, width=256, lidar=True),
        network=_tiny_teacher(_tiny_camera()),
        parameters=1_130_580,
        paper="EFFOcc-T scaled down for a CPU; not published",
    )


def city_small() -> Preset:
    return Preset(
        name="city_small",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=96, width=256, lidar=True),
        network=_tiny_teacher(_tiny_camera(), _SMALL_TRUNK),
        parameters=2_359_284,
        paper="EFFOcc-T scaled down for a CPU, with a third stage of its trunk; not published",
    )


def lidar_tiny() -> Preset:
    return Preset(
        name="lidar_tiny",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=96, width=256, lidar=True, depth=False),
        network=_tiny_teacher(None),
        parameters=700_912,
        paper="EFFOcc-L scaled down for a CPU; not published",
    )


def camera_tiny() -> Preset:
    return Preset(
        name="camera_tiny",
        grid=OCCUPANCY_GRID,
        taxonomy=OCC3D_NUSCENES,
        inputs=InputSpec(height=96, width=256, lidar=False),
        network=CameraConfig(
            camera=CameraBranchConfig(backbone=_TINY_BACKBONE, neck_channels=32, lift=_TINY_LIFT),
            trunk=BevResNetConfig(
                channels=(64, 96, 128),
                blocks=(1, 1, 1),
                strides=(1, 2, 2),
                neck_channels=64,
                last_upsample=1,
            ),
            head=HeadConfig(conv_channels=128, hidden=128, bev_upsample=2),
        ),
        parameters=1_730_264,
        paper="FlashOcc scaled down for a CPU, with pull instead of lift; not published",
    )


_COARSE_HEAD = HeadConfig(conv_channels=96, hidden=128, levels=8, classes=8, bev_upsample=2)


def camera_coarse() -> Preset:
    return Preset(
        name="camera_coarse",
        grid=COARSE_GRID,
        taxonomy=OCC3D_COARSE,
        inputs=InputSpec(height=96, width=256, lidar=False),
        network=CameraConfig(
            camera=CameraBranchConfig(backbone=_TINY_BACKBONE, neck_channels=32, lift=_COARSE_LIFT),
            trunk=BevResNetConfig(
                channels=(64, 96, 128),
                blocks=(1, 1, 1),
                strides=(1, 2, 2),
                neck_channels=64,
                last_upsample=1,
            ),
            head=_COARSE_HEAD,
        ),
        parameters=1_592_120,
        paper="FlashOcc in little, for Occ3D merged to 8 classes at 0.8 m; not published",
    )


def _coarse_teacher(camera: CameraBranchConfig | None) -> FusionConfig:
    """Its BEV map and head have the shapes of ``camera_coarse``."""
    return FusionConfig(
        camera=camera,
        lidar=_small_voxels(0.4, (200, 200, 16)),
        fused_channels=None,
        trunk=SecondConfig(
            channels=(64, 96), first_stride=2, layers=(2, 2), neck_channels=32, norm_momentum=0.1
        ),
        head=_COARSE_HEAD,
    )


def fusion_coarse() -> Preset:
    camera = CameraBranchConfig(backbone=_TINY_BACKBONE, neck_channels=32, lift=_TINY_LIFT)
    return Preset(
        name="fusion_coarse",
        grid=COARSE_GRID,
        taxonomy=OCC3D_COARSE,
        inputs=InputSpec(height=96, width=256, lidar=True, depth=False, past_sweeps=4),
        network=_coarse_teacher(camera),
        parameters=835_400,
        paper="EFFOcc-T in little, for Occ3D merged to 8 classes at 0.8 m; not published",
    )


def lidar_coarse() -> Preset:
    return Preset(
        name="lidar_coarse",
        grid=COARSE_GRID,
        taxonomy=OCC3D_COARSE,
        inputs=InputSpec(height=96, width=256, lidar=True, depth=False, past_sweeps=4),
        network=_coarse_teacher(None),
        parameters=563_536,
        paper="EFFOcc-L in little, for Occ3D merged to 8 classes at 0.8 m; not published",
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    f.__name__: f
    for f in (
        fusion_r18_occ3d,
        fusion_r50_occ3d,
        fusion_swinb_occ3d,
        fusion_r18_openoccupancy,
        fusion_r50_openoccupancy,
        fusion_r18_flow,
        fusion_r18_waymo,
        lidar_waymo,
        lidar_occ3d,
        flashocc_r50,
        flashocc_r50_distill,
        flashocc_r50_4d_stereo,
        city_tiny,
        city_small,
        lidar_tiny,
        camera_tiny,
        fusion_coarse,
        lidar_coarse,
        camera_coarse,
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        SetupError: there is none; the message lists those there are.
    """
    if name not in PRESETS:
        raise SetupError(f"no preset {name!r}; there are: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()


def build(name: str) -> OccupancyNet:
    """A freshly initialised network.

    Raises:
        SetupError: there is no preset of that name.
    """
    return build_network(preset(name).network)


def build_network(network: NetworkConfig) -> OccupancyNet:
    """A freshly initialised network of that shape."""
    if isinstance(network, FusionConfig):
        return FusionTeacher(network)
    if isinstance(network, StereoConfig):
        return StereoStudent(network)
    return CameraStudent(network)


def count_parameters(module: nn.Module) -> int:
    """Learnable numbers; batch-norm statistics are none."""
    return sum(p.numel() for p in module.parameters())
