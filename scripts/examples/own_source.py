"""Label a log of a format of your own: all that a ``SceneSource`` must have.

python scripts/examples/own_source.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autolabel.labeling import LabelingConfig, calibration_of, label_scene
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from models.checkpoints import load_checkpoint
from models.inference import OccupancyPredictor

WEIGHTS = Path(__file__).resolve().parents[2] / "models/weights/city_small_teacher.safetensors"
K = np.array([[80.0, 0, 64], [0, 80, 24], [0, 0, 1]])  # pixels
T_EGO_CAMERA = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
T_EGO_LIDAR = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])


class MyLog:
    """One drive of one frame: a grey image, and LiDAR returns from a flat road."""

    name, licence = "my-log", "ours, internal"

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("drive-1",)

    def n_frames(self, scene_id: str) -> int:
        return 1

    def scene(self, scene_id: str) -> Scene:
        image = CameraView(
            name="front",
            path=Path("1.jpg"),
            timestamp_us=0,
            width=128,
            height=48,
            intrinsics=K,
            T_ego_camera=T_EGO_CAMERA,
        )
        frame = Frame(
            scene_id=scene_id,
            token="1",
            timestamp_us=0,
            T_global_ego=np.eye(4),
            cameras=(image,),
            lidar=LidarSweep(path=Path("1.bin"), timestamp_us=0, T_ego_lidar=T_EGO_LIDAR),
        )
        return Scene(scene_id=scene_id, frames=(frame,))

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return np.full((view.height, view.width, 3), 128, np.uint8)  # RGB of view.path

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        xy = np.random.default_rng(0).uniform(-30, 30, (5000, 2))  # metres, LiDAR frame
        return np.column_stack([xy, np.full((5000, 2), [-1.8, 40])]).astype(np.float32)

    def fingerprint(self, scene_id: str) -> str:
        return "1"  # a hash of the files: labels are made anew when it changes


def main() -> None:
    log, model = MyLog(), load_checkpoint(WEIGHTS)
    teacher = OccupancyPredictor(model.module, model.preset)
    scene, calibration = log.scene("drive-1"), calibration_of(model, WEIGHTS)
    labels = label_scene(scene, log, teacher, calibration, LabelingConfig())
    road = (labels.semantics == model.preset.taxonomy.id_of("driveable_surface")).sum()
    print(f"{scene.scene_id}: {len(labels)} frame labeled, {road:,} voxels of road")


if __name__ == "__main__":
    main()
