"""A log of flat ground, and a teacher that sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_scene
from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.store import GridFrame, SceneLabels
from datasets.loading.targets import GroundTruthTargets
from datasets.model_inputs import InputSpec, ModelInputs
from datasets.taxonomy import OCC3D_NUSCENES
from models import presets
from models.checkpoints.checkpoint import LoadedModel
from models.inference.predictor import OccupancyPredictor

GRID = VoxelGrid(min_m=(-10.0, -10.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(40, 40, 8))
FREE, CAR, ROAD = OCC3D_NUSCENES.free_id, 4, 11
GROUND_M = -0.25  # centre of the second layer of voxels
SENSOR_M = (0.0, 0.0, 1.6)


class Ground:
    """A flat road; LiDAR returns on it around the sensor; one camera that looks forward."""

    name = "ground"
    licence = "CC0"

    def __init__(
        self, *, frames: int = 2, lidar: bool = True, past: int = 1, lidar_yaw: float = 0.0
    ) -> None:
        self.frames, self.lidar, self.past, self.lidar_yaw = frames, lidar, past, lidar_yaw

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("s1",)

    def scene(self, scene_id: str) -> Scene:
        return Scene(
            scene_id=scene_id, frames=tuple(self._frame(scene_id, k) for k in range(self.frames))
        )

    def _frame(self, scene_id: str, k: int) -> Frame:
        T_ego_camera = np.eye(4)
        T_ego_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        T_ego_camera[:3, 3] = SENSOR_M
        camera = CameraView(
            name="CAM_FRONT",
            path=Path("front.jpg"),
            timestamp_us=k * 500_000,
            width=64,
            height=32,
            intrinsics=np.array([[32.0, 0, 32], [0, 32, 16], [0, 0, 1]]),
            T_ego_camera=T_ego_camera,
        )
        # a past sweep was taken three metres behind
        sweeps = [
            LidarSweep(
                path=Path("sweep.bin"),
                timestamp_us=k * 500_000 - i * 50_000,
                T_ego_lidar=from_yaw(self.lidar_yaw, (-3.0 * i, 0.0, SENSOR_M[2])),
            )
            for i in range(self.past + 1)
        ]
        return Frame(
            scene_id=scene_id,
            token=f"{scene_id}-{k}",
            timestamp_us=k * 500_000,
            T_global_ego=from_yaw(0.1 * k, (k, 0, 0)),
            cameras=(camera,),
            lidar=sweeps[0] if self.lidar else None,
            past_sweeps=tuple(sweeps[1:]) if self.lidar else (),
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return np.full((view.height, view.width, 3), 90, np.uint8)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        assert self.lidar, "opened a LiDAR file that it need not"
        angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        rings = [
            np.stack([r * np.cos(angle), r * np.sin(angle), np.full(720, GROUND_M - SENSOR_M[2])])
            for r in (3.0, 5.0, 7.0)
        ]
        points = np.concatenate(rings, axis=1).T
        return np.concatenate([points, np.full((len(points), 1), 20.0)], 1).astype(np.float32)

    def n_frames(self, scene_id: str) -> int:
        return len(self.scene(scene_id).frames)

    def fingerprint(self, scene_id: str) -> str:
        return "ground"


class Stub(nn.Module):
    """Says road in the ground layer and free above, with a fixed margin; a car to the left.

    Everything moves at ``speed`` where the network has flow.
    """

    def __init__(
        self, margin: float = 4.0, value: float = 0.0, *, car: bool = True, speed: float = 1.5
    ) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(margin))
        self.value, self.car, self.speed = value, car, speed

    def forward(self, inputs: ModelInputs) -> Tensor:
        logits = torch.full((len(inputs.images), *GRID.shape, 18), self.value)
        logits[..., 2:, FREE] += self.margin
        logits[..., :2, ROAD] += self.margin
        if self.car:
            logits[:, 28:32, 24:28, 2:4, CAR] += 2 * self.margin
        return logits

    def logits_and_flow(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        velocity = torch.tensor([self.speed, -0.1])
        return self(inputs), velocity.expand(len(inputs.images), *GRID.shape, 2)


def teacher(
    module: nn.Module | None = None,
    *,
    lidar: bool = True,
    frame: GridFrame = "ego",
    grid: VoxelGrid = GRID,
    flow: bool = False,
) -> LoadedModel:
    tiny = presets.preset("city_tiny")
    preset = replace(
        tiny,
        grid=grid,
        inputs=InputSpec(height=32, width=64, lidar=lidar, past_sweeps=1, frame=frame),
        network=replace(tiny.network, head=replace(tiny.network.head, flow=flow)),
    )
    module = module or Stub()
    return LoadedModel(
        module=module.eval(),  # type: ignore[arg-type]
        preset=preset,
        metadata={},
        weights_sha256="ab" * 32,
    )


def label(
    source: Ground | None = None,
    model: LoadedModel | None = None,
    calibration: Calibration | None = None,
    **config: Any,
) -> SceneLabels:
    source, model = source or Ground(), model or teacher()
    return label_scene(
        source.scene("s1"),
        source,
        OccupancyPredictor(model.module, model.preset),
        calibration or Calibration.uncalibrated(18),
        LabelingConfig(**config),
    )


def truth_by(
    semantics_of: Callable[[str], NDArray[np.uint8]],
    folder: Path,
    log: Ground,
    scenes: Sequence[str],
) -> GroundTruthTargets:
    """A truth that knows all voxels, the same in every frame of a scene."""
    benchmark = Benchmark(
        name="made up",
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        frame="ego",
        mask=None,
        path=lambda root, source, frame: root / frame.scene_id,
        read=lambda path: GroundTruth(
            grid=GRID, taxonomy=OCC3D_NUSCENES, semantics=semantics_of(path.name)
        ),
    )
    return GroundTruthTargets(benchmark, folder, log, scenes)
