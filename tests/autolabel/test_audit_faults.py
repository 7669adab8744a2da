"""Which faults are named, where, and what is not blamed for what only follows from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from label_scenes import scene as labelled_scene

from autolabel.auditing.camera_fit import CameraFinding, camera_findings
from autolabel.auditing.camera_swaps import Crossing, swapped
from autolabel.auditing.faults import EVERYWHERE, UNKNOWN, find_faults, not_judged, record_faults
from autolabel.auditing.image_match import AMOUNTS, HYPOTHESES, ImageMatch, Kind
from autolabel.auditing.lidar_votes import RINGS, SHIFTS, TURNS, VOTES, VoteCounts
from autolabel.auditing.report import report, report_text, score
from autolabel.auditing.scene_audit import Elsewhere, LabelFit, SceneAudit
from datasets.frames import Frame, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.label_set import LabelSetHeader
from datasets.taxonomy import OCC3D_NUSCENES

HEADER = LabelSetHeader(
    what="labels",
    name="labels",
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
        votes={name: VoteCounts.none(OCC3D_NUSCENES.n_classes) for name in VOTES},
        slopes=[np.array([slope, 0.0])] * 6,
        heights_m=[0.0] * 6,
        fits=[best or fits()] * 6,
    )


def fits(
    own: float = 0.7,
    shifted: dict[tuple[int, int, int], float] | None = None,
    turned: dict[str, float] | None = None,
    **of: float,
) -> LabelFit:
    there = tuple((shifted or {}).get(s, 0.5) for s in SHIFTS)
    return LabelFit(
        own=own,
        shifted=there,
        turned=tuple((turned or {}).get(turn, 0.4) for turn in TURNS),
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
    assert named(audit(best=neighbour)) == [("labels of other frames", EVERYWHERE)]
    low = replace(fits(own=0.4, earlier=0.3, later=0.3), shifted=(0.3,) * len(SHIFTS))
    assert named(audit(best=low)) == [(UNKNOWN, EVERYWHERE)], "they may be of anything"
    exchanged = audit(best=low)
    exchanged.elsewhere = Elsewhere(scene_id="b", fit=0.7, own=0.4)
    assert named(exchanged) == [("labels of other frames", EVERYWHERE)]
    nan = float("nan")
    alone = replace(low, other=nan, earlier=nan, later=nan, turned=(nan,) * len(TURNS))
    assert named(audit(best=alone)) == [], "with nothing to compare, nothing is said"


def test_mirrored_labels_are_no_labels_of_other_frames() -> None:
    mirrored = fits(own=0.45, turned={"mirrored left to right": 0.75})
    assert named(audit(best=mirrored)) == [("labels mirrored", EVERYWHERE)]
    half = fits(own=0.45, turned={"half": 0.75})
    assert named(audit(best=half)) == [("labels turned", EVERYWHERE)]


def test_a_better_fit_that_is_not_good_names_nothing() -> None:
    poor = fits(own=0.4, shifted={(1, 0, 0): 0.45}, other=0.42)
    assert named(audit(best=poor)) == [(UNKNOWN, EVERYWHERE)]
    both = fits(own=0.5, shifted={(1, 0, 0): 0.7}, later=0.7)
    assert named(audit(best=both)) == [(UNKNOWN, EVERYWHERE)], "two explain it as well"


def matches(
    off: dict[str, dict[Kind, float]],
    *,
    n: int = 20,
    cameras: str = "ABCD",
    peak: float = 1.0,
) -> list[dict[str, ImageMatch]]:
    """Pairs of images by camera that match best with so much of a kind put right (``off``)."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(n):
        pair = {}
        for name in cameras:

            def match(kind: Kind, amount: float, off: dict[Kind, float]) -> float:
                unit = {k: max(AMOUNTS[k]) for k in AMOUNTS}
                left = {k: (a - (amount if k == kind else 0)) / unit[k] for k, a in off.items()}
                if kind not in off:
                    left[kind] = -amount / unit[kind]
                lost = 0.8 * sum(v**2 for v in left.values())
                return 0.5 - peak * lost + float(rng.normal(0, 0.004))

            is_off = off.get(name, {})
            under = np.array([match(kind, amount, is_off) for kind, amount in HYPOTHESES])
            stated = match("yawed", 0.0, is_off)
            pair[name] = ImageMatch(points=500, stated=stated, under=under)
        out.append(pair)
    return out


def found(pairs: list[dict[str, ImageMatch]]) -> list[CameraFinding]:
    return camera_findings(pairs, ["s"] * len(pairs))


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        ("yawed", 2.0),
        ("yawed", -2.0),
        ("pitched", 2.0),
        ("rolled", 2.0),
        ("focal length", 0.05),
        ("late", 0.1),
    ],
)
def test_one_wrong_camera_is_named_and_right_ones_are_not(kind: Kind, amount: float) -> None:
    (one,) = found(matches({"A": {kind: amount}}))
    assert (one.cameras, one.kind, one.amount) == (("A",), kind, amount)
    assert found(matches({})) == []
    assert found(matches({"A": {kind: amount}}, n=3)) == [], "three pairs prove nothing"
    assert found([]) == []


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        ("focal length", 0.05),
        ("late", 0.3),
        ("LiDAR about its z", 2.0),
        ("LiDAR to the left", 0.15),
        ("LiDAR up", 0.3),
    ],
)
def test_all_cameras_off_alike_are_not_each_turned(kind: Kind, amount: float) -> None:
    (one,) = found(matches({name: {kind: amount} for name in "ABCD"}))
    assert (one.cameras, one.kind, one.amount) == (tuple("ABCD"), kind, amount)


def test_a_camera_alone_cannot_be_told_from_the_lidar() -> None:
    pairs = matches({"A": {"yawed": 2.0}}, cameras="A")
    for pair in pairs:  # to one camera a turned LiDAR looks the same
        under = pair["A"].under
        for amount in AMOUNTS["yawed"]:
            same = under[HYPOTHESES.index(("yawed", amount))]
            under[HYPOTHESES.index(("LiDAR about its z", amount))] = same
    assert found(pairs) == [], "of few scenes only a clear cause is an alarm"
    (one,) = camera_findings(pairs, [f"s{k % 10}" for k in range(len(pairs))])
    assert one.kind is None
    assert one.likely[0] == ("yawed", 2.0)
    (focal,) = found(matches({"A": {"focal length": 0.05}}, cameras="A"))
    assert focal.kind == "focal length", "of one camera or of all is the same here"


def test_a_camera_that_matches_nowhere_has_an_unknown_fault() -> None:
    pairs = matches({})
    for pair, blind in zip(pairs, matches({}, peak=0.0), strict=True):
        pair["B"] = blind["B"]
    (one,) = found(pairs)
    assert (one.cameras, one.kind, one.likely) == (("B",), None, ())
    scene = audit()
    scene.matches = pairs
    (fault,) = find_faults([scene])
    assert fault.name == UNKNOWN
    assert "B: images of neighbouring frames match hardly better as stated" in fault.evidence


def test_a_tilted_lidar_is_no_fault_of_the_cameras() -> None:
    one = audit(slope=np.tan(np.radians(2)))
    one.matches = matches({"A": {"yawed": 2.0}})
    assert named(one) == [("LiDAR tilted", EVERYWHERE)]
    one.slopes = []
    assert named(one) == [("camera turned", EVERYWHERE)]


def test_labels_are_no_fault_where_the_images_blame_the_lidar() -> None:
    one = audit(best=fits(own=0.5, shifted={(0, -1, 0): 0.7}))
    one.matches = matches({name: {"LiDAR to the left": 0.15} for name in "ABCD"})
    assert named(one) == [("LiDAR moved", EVERYWHERE), (UNKNOWN, EVERYWHERE)]


def test_a_lidar_too_high_needs_many_scenes() -> None:
    def high(scene_id: str) -> SceneAudit:
        one = audit(scene_id)
        one.heights_m = [0.15] * 6
        return one

    assert named(*map(high, "abc")) == []
    stale = high("a")
    stale.fits = [fits(own=0.5, shifted={(0, 0, -1): 0.7})] * 6
    assert named(stale) == [(UNKNOWN, EVERYWHERE)], "labels are judged by the LiDAR"
    assert named(*map(high, "abcdefgh")) == [("LiDAR height", EVERYWHERE)]


def test_what_was_not_judged_is_said() -> None:
    short = SceneAudit(scene_id="short", frames=1)
    said = "\n".join(not_judged([short]))
    for what in ("poses and LiDAR heading", "LiDAR tilt", "LiDAR height", "cameras", "labels"):
        assert what in said
    whole = [audit(scene_id) for scene_id in "abcdefgh"]
    for one in whole:
        one.matches = matches({}, n=6)
        one.conventions = [dict.fromkeys("ABCD", ())] * 6
    assert [text.split(":")[1] for text in not_judged(whole)] == [" poses and LiDAR heading"]
    assert "1 scenes of fewer than 3 frames" in "\n".join(not_judged([*whole, short]))


def crossing(view: str, image: str, strength: float, edges: int = 2000) -> Crossing:
    return Crossing(view=view, image=image, gradient=strength * edges, edges=edges)


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
        faults = record_faults(_Stored(labels, inputs), scene, fingerprint, "ego")
        return [f"{fault.name}: {fault.evidence}" for fault in faults]

    assert found(*frames) == []
    assert found(*frames, inputs="") == []
    assert "changed since it was labeled" in found(*frames, fingerprint="y")[0]
    moved = replace(frames[1], T_global_ego=from_yaw(0, [0.5, 0, 0]))
    assert "up to 0.50 m" in found(frames[0], moved, frames[2])[0]
    later = replace(frames[2], timestamp_us=frames[2].timestamp_us + 1)
    assert "another time" in found(*frames[:2], later)[0]
    assert found(*frames[:2])[0].startswith("labels of other frames: 1 of 3 labeled frames")


class _Stored:
    """The part of a stored scene that records are compared by."""

    def __init__(self, labels: object, inputs: str) -> None:
        self.inputs = inputs
        self.frame_tokens = labels.frame_tokens  # type: ignore[attr-defined]
        self.timestamps_us = labels.timestamps_us  # type: ignore[attr-defined]
        self.T_global_grid = labels.T_global_grid  # type: ignore[attr-defined]

    def frame(self, k: int) -> None:
        raise AssertionError("no voxel is needed")


def test_scenes_are_ranked_and_the_report_is_json() -> None:
    good, bad = audit("good"), audit("bad")
    bad.expected_errors, bad.judged, bad.untrusted = 20.0, 100, 10
    one = np.zeros((OCC3D_NUSCENES.n_classes, len(RINGS.names)), np.int64)
    one[15, 1] = 4
    bad.votes["violations"] = VoteCounts(bad=one // 4, judged=one)
    found = report(HEADER, [good, bad], [], {}, [])
    assert [s.scene_id for s in found.scenes] == ["bad", "good"]
    assert score(bad) == pytest.approx(0.2 + 0.1 + 0.1 * 0.25)
    assert score(good) == 0
    scores = {s.scene_id: s.score for s in found.scenes}
    assert scores["good"] > 0, "what was not judged of a scene is not taken to be good"
    assert not found.alarming
    data = found.to_json()
    assert data["format"] == "label-audit"
    assert data["by_class"]["violations"] == {"manmade": (1, 4)}
    assert data["by_range"]["violations"] == {"10-20 m": (1, 4)}
    assert "no fault found" in report_text(found)
    assert report(HEADER, [good], [], {"x": "broken"}, []).alarming
