"""A cause is named where other explanations fit clearly worse; else it is said to be unknown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from datasets.log_checks.cameras import HYPOTHESES, CameraEvidence, camera_findings

CAMERAS = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "CAM_BACK_RIGHT")
FRAMES, EDGES = 8, 100
INDEX = {(h.kind, h.amount): i for i, h in enumerate(HYPOTHESES)}


def evidence(
    gains: Mapping[tuple[str, float], float], *, others: Mapping[str, float] | None = None
) -> CameraEvidence:
    """Gains per edge under each hypothesis, -0.2 where none is given, with a spread by frame."""
    per_edge = np.full(len(HYPOTHESES), -0.2)
    for key, gain in gains.items():
        per_edge[INDEX[key]] = gain
    moved = EDGES * (1.5 + per_edge + spread(np.arange(len(HYPOTHESES))))
    return CameraEvidence(
        points=FRAMES * 1000,
        inside=FRAMES * 300,
        edges=(EDGES,) * FRAMES,
        stated=(1.5 * EDGES,) * FRAMES,
        moved=tuple(map(tuple, moved.tolist())),
        others={
            name: tuple((EDGES * (1.5 + gain + spread(np.zeros(1))[:, 0])).tolist())
            for name, gain in (others or {}).items()
        },
    )


def spread(phases: NDArray[np.generic]) -> NDArray[np.float64]:
    """(FRAMES, phases) up and down from frame to frame, with mean 0."""
    return 0.05 * (-1.0) ** (np.arange(FRAMES)[:, None] + phases)


def bad(cameras: Mapping[str, CameraEvidence], scenes: int = 3) -> str:
    """What so many equal scenes say together."""
    found = camera_findings([cameras] * scenes)
    return "\n".join(finding.text for finding in found if finding.bad)


def test_the_fault_of_one_camera_is_named_where_the_others_speak_against_it() -> None:
    cameras = {name: evidence({}) for name in CAMERAS}
    assert bad(cameras) == ""
    cameras["CAM_BACK"] = evidence({("focal", 0.95): 0.5})
    assert bad(cameras).startswith("CAM_BACK: a focal length 0.95 times the stated one")


def test_one_or_two_scenes_only_note_a_fault_of_one_camera() -> None:
    cameras = {name: evidence({}) for name in CAMERAS}
    cameras["CAM_BACK"] = evidence({("focal", 0.95): 0.5})
    for scenes in (1, 2):
        assert bad(cameras, scenes) == ""
        (note,) = camera_findings([cameras] * scenes)
        assert note.text.startswith("CAM_BACK: a focal length 0.95 times the stated one")
        assert note.text.endswith("3 scenes would tell")


def test_a_single_scene_that_speaks_for_a_fault_does_not_outweigh_the_others() -> None:
    good = {name: evidence({}) for name in CAMERAS}
    odd = good | {"CAM_BACK": evidence({("focal", 0.95): 3.0})}
    assert camera_findings([odd, good, good, good]) == []
    assert [f.bad for f in camera_findings([odd, odd, odd, good])] == [True]


def test_what_may_hold_for_the_others_too_is_no_fault_of_one_camera() -> None:
    cameras = {name: evidence({("focal", 0.95): 0.0}) for name in CAMERAS}
    cameras["CAM_BACK"] = evidence({("focal", 0.95): 0.5})
    assert "the cause is not told" in bad(cameras) and "focal length 0.95" not in bad(cameras)


def test_a_camera_that_another_kind_of_fault_fits_better_has_no_cause_named() -> None:
    cameras = {name: evidence({}) for name in CAMERAS}
    cameras["CAM_BACK"] = evidence({("yaw", 2.0): 0.4, ("late", 0.2): 0.6})
    assert "the cause is not told" in bad(cameras)


def test_a_fault_of_all_is_named_where_no_other_kind_fits_as_well() -> None:
    all_off = {name: evidence({("focal", 0.91): 0.2}) for name in CAMERAS}
    assert bad(all_off).startswith("all cameras: a focal length 0.91 times the stated one")
    as_well = {("focal", 0.91): 0.2, ("late", 0.1): 0.2}
    assert "the cause is not told" in bad({name: evidence(as_well) for name in CAMERAS})
    better = {("late", 0.1): 0.1, ("pitch", -4.0): 0.24}
    assert "later" not in bad({name: evidence(better) for name in CAMERAS})


def test_cameras_are_called_swapped_where_each_frame_says_so() -> None:
    cameras = {name: evidence({}) for name in CAMERAS}
    cameras["CAM_FRONT"] = evidence({}, others={"CAM_BACK": 0.4})
    cameras["CAM_BACK"] = evidence({}, others={"CAM_FRONT": 0.3})
    assert "CAM_BACK and CAM_FRONT look swapped" in bad(cameras)
    # the same sums, of which one comes from a single frame
    once = [EDGES * 1.5] * FRAMES
    once[0] += 0.3 * EDGES * FRAMES
    cameras["CAM_BACK"] = evidence({}, others={"CAM_FRONT": 0.0})
    cameras["CAM_BACK"].others["CAM_FRONT"] = tuple(once)  # type: ignore[index]
    assert "swapped" not in bad(cameras, scenes=1)
