"""A made-up log of one camera, and ground truth for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.occ3d_nuscenes import GRID, TAXONOMY, labels_path, write_labels
from datasets.errors import SceneError
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.model_inputs import InputSpec

SPEC = InputSpec(height=8, width=16, lidar=False)
T_EGO_CAMERA = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])


class OneCameraLog:
    """Frames of grey pictures; any LiDAR access is an error unless points are given.

    Args:
        bad: tokens of frames whose picture cannot be read.
    """

    name, licence = "made-up", "none"

    def __init__(
        self,
        points: NDArray[np.float32] | None = None,
        *,
        frames: int = 2,
        bad: tuple[str, ...] = (),
    ) -> None:
        self.points, self.frames, self.bad = points, frames, bad

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("a",)

    def scene(self, scene_id: str) -> Scene:
        sweep = LidarSweep(path=Path("sweep.bin"), timestamp_us=0, T_ego_lidar=np.eye(4))
        frames = tuple(
            Frame(
                scene_id=scene_id,
                token=f"t{i}",
                timestamp_us=i,
                T_global_ego=np.eye(4),
                cameras=(self._view(i),),
                lidar=sweep,
            )
            for i in range(self.frames)
        )
        return Scene(scene_id=scene_id, frames=frames)

    def _view(self, i: int) -> CameraView:
        return CameraView(
            name="CAM_FRONT",
            path=Path(f"t{i}"),
            timestamp_us=0,
            width=32,
            height=24,
            intrinsics=np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]]),
            T_ego_camera=T_EGO_CAMERA,
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        if view.path.name in self.bad:
            raise SceneError(where="scene a", frame=view.path.name, rule="the picture is torn")
        return np.full((24, 32, 3), 100 + 20 * int(view.path.name[1:]), np.uint8)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        assert self.points is not None, "a camera-only set opened a LiDAR file"
        return self.points

    def n_frames(self, scene_id: str) -> int:
        return len(self.scene(scene_id).frames)

    def fingerprint(self, scene_id: str) -> str:
        return "made-up"


def labels() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    semantics = np.full(GRID.shape, 17, np.uint8)
    semantics[:, :, 2] = 11
    semantics[150, 120, 3] = 4
    visible = np.zeros(GRID.shape, bool)
    visible[100:, 50:150] = True
    return semantics, visible


def write_truth(root: Path, log: OneCameraLog) -> GroundTruthTargets:
    """Every frame has the same ``labels``."""
    semantics, visible = labels()
    for frame in log.scene("a").frames:
        write_labels(
            labels_path(root, "a", frame.token),
            GroundTruth(
                grid=GRID,
                taxonomy=TAXONOMY,
                semantics=semantics,
                mask_lidar=visible,
                mask_camera=visible,
            ),
        )
    return GroundTruthTargets(benchmark("occ3d_nuscenes"), root, log, ["a"])
