"""A frame in the axes of its LiDAR is the same frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flat_ground import SENSOR_M, Ground
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.frames import Frame, LidarSweep, in_lidar_frame
from datasets.geometry.transforms import Transform, apply, from_yaw
from datasets.model_inputs import InputSpec, prepare_frame

T_EGO_LIDAR = from_yaw(-np.pi / 2, (0.9, 0.0, SENSOR_M[2]))
"""As nuScenes mounts it: x right, y forward."""


class TurnedGround(Ground):
    """The flat road, its LiDAR turned; the car drives while the camera waits."""

    def _frame(self, scene_id: str, k: int) -> Frame:
        frame = super()._frame(scene_id, k)
        T_ego_vehicle = from_yaw(0.02, (0.3, 0.0, 0.0))
        view = frame.cameras[0]
        moved = replace(
            view, T_ego_vehicle=T_ego_vehicle, T_ego_camera=T_ego_vehicle @ view.T_ego_camera
        )

        def turned(sweep: LidarSweep) -> LidarSweep:
            return replace(sweep, T_ego_lidar=from_yaw(0.0, (-1.0, 0.0, 0.0)) @ T_EGO_LIDAR)

        assert frame.lidar is not None
        return replace(
            frame,
            cameras=(moved,),
            lidar=replace(frame.lidar, T_ego_lidar=T_EGO_LIDAR),
            past_sweeps=tuple(turned(s) for s in frame.past_sweeps),
        )


def poses_in_global(frame: Frame) -> list[Transform]:
    assert frame.lidar is not None
    sweeps = (frame.lidar, *frame.past_sweeps, *frame.future_sweeps)
    inner = [v.T_ego_camera for v in frame.cameras] + [v.T_ego_vehicle for v in frame.cameras]
    return [frame.T_global_ego @ T for T in inner + [s.T_ego_lidar for s in sweeps]]


def test_the_lidar_frame_leaves_every_sensor_where_it_was_in_the_world() -> None:
    frame = TurnedGround(past=2).scene("s1").frames[1]
    there = in_lidar_frame(frame)
    np.testing.assert_allclose(poses_in_global(there), poses_in_global(frame), atol=1e-12)
    assert there.lidar is not None
    np.testing.assert_allclose(there.lidar.T_ego_lidar, np.eye(4), atol=1e-12)
    again = in_lidar_frame(there)
    np.testing.assert_allclose(poses_in_global(again), poses_in_global(frame), atol=1e-12)


def test_a_frame_without_lidar_has_no_lidar_frame() -> None:
    frame = Ground(lidar=False).scene("s1").frames[0]
    with pytest.raises(SceneError, match="it has no LiDAR"):
        in_lidar_frame(frame)


@pytest.mark.parametrize("parity", [False, True])
def test_inputs_in_the_lidar_frame_are_those_in_the_ego_frame_moved(parity: bool) -> None:
    source = TurnedGround()
    frame = source.scene("s1").frames[0]
    ego = InputSpec(height=32, width=64, lidar=True, past_sweeps=1)
    here = prepare_frame(source, frame, ego)
    there = prepare_frame(source, frame, replace(ego, frame="lidar", reference_parity=parity))
    assert here.points is not None and there.points is not None
    assert here.depth is not None and there.depth is not None
    back: NDArray[np.float64] = apply(T_EGO_LIDAR, there.points[:, :3].astype(np.float64))
    np.testing.assert_allclose(back, here.points[:, :3], atol=1e-5)
    np.testing.assert_array_equal(there.points[:, 3:], here.points[:, 3:])
    np.testing.assert_allclose(T_EGO_LIDAR @ there.T_ego_camera, here.T_ego_camera, atol=1e-12)
    assert (here.depth > 0).any()
    np.testing.assert_allclose(there.depth, here.depth, atol=1e-4)
    np.testing.assert_array_equal(there.images, here.images[..., ::-1] if parity else here.images)
