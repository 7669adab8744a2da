"""Which faults are named, where, and what is not blamed for what only follows from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from label_scenes import scene as labelled_scene

from autolabel.audit_report import report, score
from autolabel.audited_labels import Header
from autolabel.camera_fit import Crossing, swapped, turned_cameras
from autolabel.faults import EVERYWHERE, find_faults, record_faults
from autolabel.scene_audit import LabelFit, SceneAudit
from autolabel.votes import RINGS, SHIFTS, VOTES, Ballot
from datasets.frames import Frame, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.log_checks import TURNS_DEG, CameraAgreement
from datasets.taxonomy import OCC3D_NUSCENES

HEADER = Header(
    what="labels",
    grid=VoxelGrid(min_m=(0, 0, 0), size_m=(1, 1, 1), shape=(4, 4, 4)),
    taxonomy=OCC3D_NUSCENES,
    frame="ego",
    levels=(0.0, 0.9),
    past_sweeps=None,
)


def audit(scene_id: str = "a", *, slope: float = 0.0, best: LabelFit | None = None) -> SceneAudit:
    return SceneAudit(
        scene_id=scene_id,
        frames=6,
        votes={name: Ballot.none(OCC3D_NUSCENES.n_classes) for name in VOTES},
        slopes=[np.array([slope, 0.0])] * 6,
        heights_m=[0.0] * 6,
        fits=[best or fits()] * 6,
    )


def fits(
    own: float = 0.7, shifted: dict[tuple[int, int, int], float] | None = None, **of: float
) -> LabelFit:
    there = tuple((shifted or {}).get(s, 0.5) for s in SHIFTS)
    return LabelFit(
        own=own,
        shifted=there,
        earlier=of.get("earlier", 0.5),
        later=of.get("later", 0.5),
        other=of.get("other", 0.4),
    )


def named(*audits: SceneAudit) -> list[tuple[str, str]]:
    return [(fault.name, fault.scene_id) for fault in find_faults(audits)]


def test_right_scenes_have_no_fault() -> None:
    assert named(audit("a"), audit("b")) == []


def test_a_fault_of_all_scenes_is_named_once() -> None:
    tilted = np.tan(np.radians(2))
    assert named(audit("a", slope=tilted), audit("b", slope=tilted)) == [
        ("LiDAR tilted", EVERYWHERE)
    ]


def test_a_fault_of_one_scene_is_named_there() -> None:
    scenes = [audit(s, slope=np.tan(np.radians(2)) if s == "c" else 0.0) for s in "abcde"]
    assert named(*scenes) == [("LiDAR tilted", "c")]


def test_streets_that_fall_to_a_side_need_many_scenes_to_be_a_tilt() -> None:
    def aside(scene_id: str) -> SceneAudit:
        one = audit(scene_id)
        one.slopes = [np.array([0.0, np.tan(np.radians(2))])] * 6
        return one

    assert named(*map(aside, "abc")) == []
    assert named(*map(aside, "abcdefgh")) == [("LiDAR tilted", EVERYWHERE)]


def test_shifted_labels_are_named_with_the_way_they_lie_off() -> None:
    (fault,) = find_faults([audit(best=fits(own=0.5, shifted={(-1, 0, 0): 0.7}))])
    assert fault.name == "labels shifted"
    assert "+1, +0, +0 voxels off" in fault.evidence


def test_labels_of_a_neighbour_or_of_another_scene() -> None:
    neighbour = fits(own=0.5, later=0.7, shifted={(1, 0, 0): 0.6})
    assert named(audit(best=neighbour)) == [("labels of other frames", "all scenes")]
    low = replace(fits(own=0.4, earlier=0.3, later=0.3), shifted=(0.3,) * len(SHIFTS))
    assert named(audit(best=low)) == [("labels of other frames", "all scenes")]
    alone = replace(low, other=float("nan"), earlier=float("nan"), later=float("nan"))
    assert named(audit(best=alone)) == [], "with nothing to compare, nothing is said"


def frames_of_edges(
    best: float, *, n: int = 20, bias: float = 0.0, seed: int = 0
) -> list[CameraAgreement]:
    """Frames of 100 edges that fit best with the camera turned aside by so much, and ``bias`` of
    every camera up and down."""
    rng = np.random.default_rng(seed)

    def strengths(at: float) -> tuple[float, ...]:
        return tuple(150 - 4 * (d - at) ** 2 + rng.normal(0, 5) for d in TURNS_DEG)

    return [
        CameraAgreement(
            frames=1,
            points=1000,
            inside=500,
            edges=100,
            stated=150 - 4 * best**2,
            yawed=strengths(best),
            pitched=strengths(bias),
            rolled=strengths(0),
        )
        for _ in range(n)
    ]


def ring_of_cameras(
    best: float, n: int = 20, bias: float = 0.0
) -> dict[str, list[CameraAgreement]]:
    turns = {"FRONT": best, "LEFT": 0.0, "RIGHT": 0.0, "BACK": 0.0}
    return {
        name: frames_of_edges(turn, n=n, bias=bias, seed=i)
        for i, (name, turn) in enumerate(turns.items())
    }


@pytest.mark.parametrize("degrees", [2.0, -2.0])
def test_a_turned_camera_is_named_and_straight_ones_are_not(degrees: float) -> None:
    found = turned_cameras(ring_of_cameras(degrees, bias=-1.0))
    assert list(found) == ["FRONT"]
    assert found["FRONT"].degrees == pytest.approx(degrees, abs=0.7)
    assert "y" in found["FRONT"].axis
    assert turned_cameras(ring_of_cameras(0.0, bias=-1.0)) == {}
    assert turned_cameras(ring_of_cameras(degrees, n=3)) == {}, "three frames prove nothing"
    assert turned_cameras({}) == {}


def test_a_camera_alone_is_judged_to_the_side_only() -> None:
    assert turned_cameras({"FRONT": frames_of_edges(0.0, bias=-1.0)}) == {}
    assert list(turned_cameras({"FRONT": frames_of_edges(2.0)})) == ["FRONT"]


def test_a_tilted_lidar_is_no_fault_of_the_cameras() -> None:
    one = audit(slope=np.tan(np.radians(2)))
    one.cameras = ring_of_cameras(2.0)
    assert named(one) == [("LiDAR tilted", EVERYWHERE)]
    one.slopes = []
    assert named(one) == [("camera turned", EVERYWHERE)]


def crossing(view: str, picture: str, strength: float, edges: int = 2000) -> Crossing:
    return Crossing(view=view, picture=picture, gradient=strength * edges, edges=edges)


def test_only_cameras_that_fit_each_other_are_swapped() -> None:
    right = [crossing(v, p, 1.6 if v == p else 1.1) for v in "abc" for p in "abc"]
    assert swapped(right) == []
    exchanged = [
        crossing(v, p, 1.6 if {v: p} in ({"a": "b"}, {"b": "a"}, {"c": "c"}) else 1.1)
        for v in "abc"
        for p in "abc"
    ]
    assert swapped(exchanged) == [("a", "b")]
    few = [replace(one, edges=20, gradient=one.gradient / 100) for one in exchanged]
    assert swapped(few) == []


def test_labels_of_another_state_of_the_log_are_stale() -> None:
    labels = replace(labelled_scene("s"), T_global_grid=np.stack([np.eye(4)] * 3))
    frames = tuple(
        Frame(
            scene_id="s",
            token=token,
            timestamp_us=int(us),
            T_global_ego=np.eye(4),
            cameras=(),
            lidar=None,
        )
        for token, us in zip(labels.frame_tokens, labels.timestamps_us, strict=True)
    )

    def found(*now: Frame, inputs: str = "x", fingerprint: str = "x") -> list[str]:
        scene = Scene(scene_id="s", frames=now)
        faults = record_faults(_Stored(labels), scene, inputs, fingerprint, "ego")
        return [f"{fault.name}: {fault.evidence}" for fault in faults]

    assert found(*frames) == []
    assert found(*frames, inputs="") == []
    assert "changed since it was labelled" in found(*frames, fingerprint="y")[0]
    moved = replace(frames[1], T_global_ego=from_yaw(0, [0.5, 0, 0]))
    assert "up to 0.50 m" in found(frames[0], moved, frames[2])[0]
    later = replace(frames[2], timestamp_us=frames[2].timestamp_us + 1)
    assert "another time" in found(*frames[:2], later)[0]
    assert found(*frames[:2])[0].startswith("labels of other frames: 1 of 3 labelled frames")


class _Stored:
    """The part of a stored scene that records are compared by."""

    def __init__(self, labels: object) -> None:
        self.frame_tokens = labels.frame_tokens  # type: ignore[attr-defined]
        self.timestamps_us = labels.timestamps_us  # type: ignore[attr-defined]
        self.T_global_grid = labels.T_global_grid  # type: ignore[attr-defined]

    def frame(self, k: int) -> None:
        raise AssertionError("no voxel is needed")


def test_scenes_are_ranked_and_the_report_is_json() -> None:
    good, bad = audit("good"), audit("bad")
    bad.expected_wrong, bad.judged, bad.untrusted = 20.0, 100, 10
    one = np.zeros((OCC3D_NUSCENES.n_classes, len(RINGS.names)), np.int64)
    one[15, 1] = 4
    bad.votes["violations"] = Ballot(bad=one // 4, judged=one)
    found = report(HEADER, [good, bad], [], {}, [])
    assert [s.scene_id for s in found.scenes] == ["bad", "good"]
    assert score(bad) == pytest.approx(0.2 + 0.1 + 0.1 * 0.25)
    assert score(good) == 0
    assert not found.alarming
    data = found.to_json()
    assert data["format"] == "label-audit"
    assert data["by_class"]["violations"] == {"manmade": (1, 4)}
    assert data["by_range"]["violations"] == {"10-20 m": (1, 4)}
    assert "no fault found" in str(found)
    assert report(HEADER, [good], [], {"x": "broken"}, []).alarming
