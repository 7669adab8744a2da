"""What held-out sweeps vote for and against on hand-made labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from autolabel.auditing.lidar_votes import (
    RINGS,
    SHIFTS,
    VoteCounts,
    flicker_votes,
    frame_votes,
    lidar_iou,
    shifted_ious,
    vote_rows,
    within_reach,
)
from autolabel.confidence.held_out_sweeps import VoteEvidence, held_out, vote_evidence
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.voxel_labels import FrameLabels, MaskBit
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(0, 0, 0), size_m=(1, 1, 1), shape=(12, 8, 4))
FREE, CAR, ROAD, MANMADE, VEGETATION = 17, 4, 11, 15, 16
SECOND_US = 1_000_000


def labels(
    occupied: dict[tuple[int, int, int], int], *, observed: bool = True, x_m: float = 0.0
) -> FrameLabels:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    for at, class_id in occupied.items():
        semantics[at] = class_id
    return FrameLabels(
        token="t",
        timestamp_us=0,
        T_global_grid=from_yaw(0, [x_m, 0, 0]),
        semantics=semantics,
        confidence=np.zeros(GRID.shape, np.uint8),
        mask=np.full(GRID.shape, MaskBit.CAMERA_VISIBLE if observed else 0, np.uint8),
    )


def seen(
    *,
    hit: tuple[tuple[int, int, int], ...] = (),
    through: tuple[tuple[int, int, int], ...] = (),
) -> VoteEvidence:
    def marked(where: tuple[tuple[int, int, int], ...]) -> NDArray[np.bool_]:
        out = np.zeros(GRID.shape, bool)
        for at in where:
            out[at] = True
        return out

    return VoteEvidence(
        hit=marked(hit), touched=marked(hit), through=marked(through), through_now=marked(through)
    )


def votes(of: FrameLabels, by: VoteEvidence) -> dict[str, tuple[int, int]]:
    ballots = frame_votes(of, by, GRID, OCC3D_NUSCENES)
    return {name: (int(b.bad.sum()), int(b.judged.sum())) for name, b in ballots.items()}


def test_returns_beside_what_is_occupied_are_misses_and_in_mid_air_are_not() -> None:
    wall = labels({(5, 4, 1): MANMADE})
    found = votes(wall, seen(hit=((5, 4, 1), (6, 4, 1), (10, 1, 3))))
    assert found["misses"] == (1, 2)
    ballot = frame_votes(wall, seen(hit=((6, 4, 1),)), GRID, OCC3D_NUSCENES)["misses"]
    assert list(vote_rows(ballot, OCC3D_NUSCENES.names, 0)) == [("manmade", 1, 1)]
    assert list(vote_rows(ballot, RINGS.names, 1)) == [("0-10 m", 1, 1)]


def test_what_is_seen_through_is_a_violation_unless_it_is_flat() -> None:
    of = labels({(5, 4, 1): MANMADE, (7, 4, 1): VEGETATION, (8, 2, 0): ROAD})
    found = votes(of, seen(hit=((7, 4, 1),), through=((5, 4, 1), (8, 2, 0), (1, 1, 1))))
    assert found["violations"] == (1, 2)


def test_what_moves_has_trails_and_no_other_vote_around_it() -> None:
    of = labels({(5, 4, 1): CAR, (6, 4, 1): MANMADE, (11, 0, 1): MANMADE})
    found = votes(of, seen(hit=((7, 4, 1),), through=((5, 4, 1), (6, 4, 1), (11, 0, 1))))
    assert found == {"misses": (0, 0), "violations": (1, 1), "trails": (1, 1)}
    assert not within_reach(of.semantics == 99, GRID, 3.0).any()


def test_unobserved_voxels_are_not_judged() -> None:
    of = labels({(5, 4, 1): MANMADE}, observed=False)
    found = votes(of, seen(hit=((6, 4, 1),), through=((5, 4, 1),)))
    assert set(found.values()) == {(0, 0)}


def test_static_labels_that_change_class_flicker_in_their_own_place() -> None:
    first = labels({(5, 4, 1): MANMADE, (7, 4, 1): VEGETATION, (9, 4, 1): MANMADE})
    # a metre further on, all lies a voxel nearer; the third is gone: no other class
    later = labels({(4, 4, 1): VEGETATION, (6, 4, 1): VEGETATION}, x_m=1.0)
    ballot = flicker_votes(first, later, GRID, OCC3D_NUSCENES)
    assert list(vote_rows(ballot, OCC3D_NUSCENES.names, 0)) == [
        ("manmade", 1, 1),
        ("vegetation", 0, 1),
    ]


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, -1, 0), (0, 0, 1)])
def test_labels_that_lie_a_voxel_off_fit_best_moved_back(shift: tuple[int, int, int]) -> None:
    occupied = np.zeros(GRID.shape, bool)
    occupied[4:8, 3:6, 1:3] = np.random.default_rng(0).random((4, 3, 2)) < 0.5
    by = VoteEvidence(
        hit=occupied, touched=occupied, through=~occupied, through_now=np.zeros(GRID.shape, bool)
    )
    assert lidar_iou(occupied, by) == 1
    assert max(shifted_ious(occupied, by)) < 1
    moved = np.roll(occupied, shift, axis=(0, 1, 2))
    best = int(np.argmax(shifted_ious(moved, by)))
    assert SHIFTS[best] == tuple(-s for s in shift)


class Log:
    """A wall at x = 8.5 that the sweeps look at from x = 0.5, and a curtain of free space."""

    name, licence = "made-up", "none"

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return ("a",)

    def n_frames(self, scene_id: str) -> int:
        return 1

    def scene(self, scene_id: str) -> Scene:
        return Scene(scene_id=scene_id, frames=(frame(),))

    def fingerprint(self, scene_id: str) -> str:
        return "made-up"

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        raise NotImplementedError

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        y, z = np.meshgrid(np.linspace(-3.5, 3.5, 60), np.linspace(-1.5, 1.5, 40))
        points = np.stack([np.full(y.size, 8.0), y.ravel(), z.ravel(), 0 * y.ravel()], axis=1)
        return points.astype(np.float32)


def frame(future_s: tuple[float, ...] = (0.05, 0.1)) -> Frame:
    at = from_yaw(0, [0.5, 4.0, 2.0])

    def sweep(us: float) -> LidarSweep:
        return LidarSweep(path=Path("x"), timestamp_us=int(us), T_ego_lidar=at)

    return Frame(
        scene_id="a",
        token="t",
        timestamp_us=0,
        T_global_ego=np.eye(4),
        cameras=(),
        lidar=sweep(0),
        future_sweeps=tuple(sweep(s * SECOND_US) for s in future_s),
    )


def test_evidence_of_a_wall() -> None:
    found = vote_evidence(Log(), frame(), GRID)
    assert found.hit[8, 4, 2] and found.touched[8, 4, 2] and not found.through[8, 4, 2]
    assert found.through[6, 4, 2] and found.through_now[6, 4, 2] and not found.touched[6, 4, 2]
    assert not found.through[10, 4, 2], "nothing is known behind the wall"


@pytest.mark.parametrize(
    ("future_s", "used"), [((0.05, 0.1, 0.9), 2), ((0.5, 1.0), 1), ((2.0,), 0), ((), 0)]
)
def test_sweeps_soon_after_a_frame_vote_or_else_the_next_one(
    future_s: tuple[float, ...], used: int
) -> None:
    assert held_out(frame(future_s)) == used


def test_ballots_add_up_and_say_nothing_of_nothing() -> None:
    none = VoteCounts.none(3)
    assert np.isnan(none.share)
    one = VoteCounts(bad=none.bad + 1, judged=none.judged + 2)
    assert (one + one).share == 0.5


@pytest.mark.parametrize(("returns", "hit"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_voxel_is_hit_from_three_returns_of_held_out_sweeps_on(returns: int, hit: bool) -> None:
    class Few(Log):
        def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
            n = returns if sweep.timestamp_us else 5
            return np.tile(np.float32([8.0, 0.2, 0.2, 0.0]), (n, 1))

    found = vote_evidence(Few(), frame((0.05,)), GRID)
    assert found.touched[8, 4, 2] and found.hit[8, 4, 2] == hit
