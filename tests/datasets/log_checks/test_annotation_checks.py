"""Annotations that cannot be are named with frame and track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.annotations import Annotations, Box
from datasets.frames import Frame, LidarSweep
from datasets.geometry.transforms import from_yaw
from datasets.log_checks.annotations import check_annotations, check_boxes
from datasets.taxonomy import OCC3D_NUSCENES

CAR, BUS = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.id_of("bus")
FRAMES = tuple(
    Frame(
        scene_id="s",
        token=f"f{k}",
        timestamp_us=k * 500_000,
        T_global_ego=from_yaw(0.1 * k, [5 * k, 0, 0]),
        cameras=(),
        lidar=LidarSweep(path=Path(f"{k}.npz"), timestamp_us=k * 500_000, T_ego_lidar=np.eye(4)),
    )
    for k in range(4)
)


def box(
    frame: int,
    track: str,
    x_m: float,
    *,
    class_id: int = CAR,
    size_m: tuple[float, float, float] = (4.5, 1.9, 1.6),
) -> Box:
    """A box at x of the world, in the ego frame of a key-frame."""
    T = np.linalg.inv(FRAMES[frame].T_global_ego) @ from_yaw(0, [x_m, 4, 1])
    return Box(track=track, class_id=class_id, T_ego_box=T, size_m=size_m)


def findings(*boxes: tuple[Box, ...]) -> list[tuple[str, str]]:
    marks = {f.token: Annotations(boxes=own) for f, own in zip(FRAMES, boxes, strict=False)}
    found = check_annotations(FRAMES, marks, OCC3D_NUSCENES)
    assert all(f.bad for f in found)
    return [(f.frame, f.text) for f in found]


def test_objects_that_stand_or_drive_are_right() -> None:
    assert findings(*((box(k, "a", 20), box(k, "b", 20 + 15 * k)) for k in range(4))) == []


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (box(1, "a", 20, class_id=BUS), "track a: a car in frame f0 is a bus"),
        (box(1, "a", 90), "track a: it jumps by 70.0 m in 0.50 s"),
        (box(1, "a", 20, size_m=(0.001, 1.9, 1.6)), "track a: a car of 0.001 x 1.9 x 1.6 m"),
        (box(1, "a", 20, size_m=(45.0, 1.9, 1.6)), "track a: a car of 45 x 1.9 x 1.6 m"),
        (box(1, "a", 20, size_m=(16.0, 1.9, 1.6)), "track a: its length changes from 4.5 to 16 m"),
    ],
)
def test_a_track_that_cannot_be_is_named_with_its_frame(second: Box, says: str) -> None:
    found = findings((box(0, "a", 20),), (second, box(1, "b", 40)))
    assert ("f1", says) in found


def test_a_track_twice_in_a_frame_is_named() -> None:
    (finding,) = check_boxes("f0", (box(0, "a", 20), box(0, "a", 30)), OCC3D_NUSCENES)
    assert finding.bad and finding.frame == "f0"
    assert finding.text == "track a: 2 boxes in one frame; a track is one object"


def test_a_frame_without_annotations_among_annotated_ones_is_noted() -> None:
    marks = {
        "f0": Annotations(boxes=(box(0, "a", 20),)),
        "f1": Annotations(boxes=(), annotated=False),
        "f2": Annotations(boxes=()),
    }
    (finding,) = check_annotations(FRAMES, marks, OCC3D_NUSCENES)
    assert not finding.bad and finding.frame == "f1" and "nobody annotated it" in finding.text
    nobody = {f.token: Annotations(boxes=(), annotated=False) for f in FRAMES}
    assert check_annotations(FRAMES, nobody, OCC3D_NUSCENES) == []
