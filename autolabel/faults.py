"""The faults that an audit can name, and when it does.

Every test compares what is stated with what else could be: labels moved by a voxel, poses of
another time, cameras turned. So none needs a clean log to compare with, and a name tells what to
repair. Faults are looked for in all scenes together, which tells most, and in each scene alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.audited_labels import LabelledScene
from autolabel.camera_fit import swapped, turned_cameras
from autolabel.motion_fit import explain
from autolabel.scene_audit import SceneAudit
from autolabel.votes import SHIFTS
from datasets.frames import Frame, Scene, in_lidar_frame
from datasets.geometry.transforms import inverse
from datasets.log_checks import MAX_GROUND_OFF_M, MIN_EDGES, CameraAgreement
from datasets.voxel_labels import GridFrame

FaultName = Literal[
    "stale labels",
    "labels of other frames",
    "labels shifted",
    "poses delayed",
    "motion scaled",
    "poses noisy",
    "LiDAR turned",
    "LiDAR tilted",
    "LiDAR height",
    "camera turned",
    "cameras swapped",
    "camera does not fit",
]
EVERYWHERE = "all scenes"
TURNED: tuple[FaultName, ...] = ("camera turned", "camera does not fit", "labels shifted")
FOLLOWS: dict[FaultName, tuple[FaultName, ...]] = {
    "LiDAR turned": TURNED,
    "LiDAR tilted": TURNED,
    "labels of other frames": ("labels shifted",),
}
"""To a wrong LiDAR all cameras and labels look turned; labels of elsewhere fit best anywhere."""

SIGMAS = 5.0
MIN_DELAY_S, MIN_YAW_RAD, MIN_STRETCH, MIN_NOISE_M = 0.04, np.radians(0.5), 0.02, 0.1
MIN_PAIRS = 4
FEW_PAIRS, FEW_NOISE_M = 2, 0.25
"""Fewer pairs name no cause, but that two frames lie far apart needs no more."""
MIN_TILT_RAD, MIN_TILT_FRAMES = np.radians(1.5), 4
MIN_CROSSFALL_RAD, MANY_SCENES = np.radians(3.5), 8
"""A street may fall to one side by 2 degrees all along a drive; few scenes cannot tell that from a
tilted LiDAR."""
MIN_FIT_GAIN, MIN_FIT_FRAMES, FIT_AGREE = 0.005, 3, 0.75
MIN_OVER_OTHER = 0.05
MIN_STRENGTH = 1.15
SAME_POSE_M, SAME_POSE_RAD = 1e-3, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is wrong with the log or with what was labelled.

    Attributes:
        scene_id: where, or ``all scenes``.
        evidence: what was measured, in a sentence.
    """

    name: FaultName
    scene_id: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.name} ({self.scene_id}): {self.evidence}"


def find_faults(audits: Sequence[SceneAudit]) -> list[Fault]:
    """What all scenes show together, and what single ones show that not all do."""
    everywhere = _explained([fault for test in TESTS for fault in test(audits, EVERYWHERE)], set())
    known = {fault.name for fault in everywhere}
    alone = []
    for audit in audits if len(audits) > 1 else ():
        found = [fault for test in TESTS for fault in test([audit], audit.scene_id)]
        alone += [fault for fault in _explained(found, known) if fault.name not in known]
    return everywhere + alone


def _explained(faults: list[Fault], known: set[FaultName]) -> list[Fault]:
    """Without what only follows from another fault."""
    known = known | {fault.name for fault in faults}
    follows = {name for cause, names in FOLLOWS.items() if cause in known for name in names}
    return [fault for fault in faults if fault.name not in follows]


def motion_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[Fault]:
    found = explain([pair for audit in audits for pair in audit.motion])
    of = f"({found.pairs} pairs of frames)"
    few = found.pairs < MIN_PAIRS
    if found.pairs >= FEW_PAIRS and found.noise_m > (FEW_NOISE_M if few else MIN_NOISE_M):
        text = f"frames a second apart fit with a median error of {found.noise_m:.2f} m {of}"
        yield Fault(name="poses noisy", scene_id=where, evidence=text)
    if few:
        return
    delay, yaw, stretch = found.errors
    if abs(found.delay_s) > max(MIN_DELAY_S, SIGMAS * delay):
        text = (
            f"frames fit poses of {1e3 * found.delay_s:+.0f} +- {1e3 * delay:.0f} ms later than "
            f"stated {of}"
        )
        yield Fault(name="poses delayed", scene_id=where, evidence=text)
    if abs(found.yaw_rad) > max(MIN_YAW_RAD, SIGMAS * yaw):
        text = (
            f"frames fit a LiDAR turned by {np.degrees(found.yaw_rad):+.2f} +- "
            f"{np.degrees(yaw):.2f} degrees more about its vertical {of}"
        )
        yield Fault(name="LiDAR turned", scene_id=where, evidence=text)
    if abs(found.stretch) > max(MIN_STRETCH, SIGMAS * stretch):
        text = (
            f"frames fit a motion {100 * found.stretch:+.1f} +- {100 * stretch:.1f} % longer "
            f"than stated {of}"
        )
        yield Fault(name="motion scaled", scene_id=where, evidence=text)


def tilt_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[Fault]:
    slopes = [slope for audit in audits for slope in audit.slopes]
    heights = [height for audit in audits for height in audit.heights_m]
    if len(slopes) >= MIN_TILT_FRAMES:
        middle = np.median(slopes, axis=0)
        scenes = [np.median(a.slopes, axis=0) for a in audits if a.slopes]
        spread = np.std(scenes, axis=0) / np.sqrt(len(scenes)) if len(scenes) > 1 else np.zeros(2)
        for axis, slope, error in zip(("X", "Y"), middle, spread, strict=True):
            few = axis == "Y" and len(scenes) < MANY_SCENES
            least = MIN_CROSSFALL_RAD if few else MIN_TILT_RAD
            if abs(np.arctan(slope)) > max(least, 3 * error):
                text = (
                    f"the ground rises by {np.degrees(np.arctan(slope)):+.1f} degrees along "
                    f"{axis} of the vehicle (median of {len(slopes)} frames; should be level)"
                )
                yield Fault(name="LiDAR tilted", scene_id=where, evidence=text)
    if heights and abs(ground := float(np.median(heights))) > MAX_GROUND_OFF_M:
        text = f"the ground lies at z = {ground:+.2f} m of the vehicle (should be near 0)"
        yield Fault(name="LiDAR height", scene_id=where, evidence=text)


def camera_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[Fault]:
    exchanged = swapped(one for audit in audits for one in audit.crossings)
    for a, b in exchanged:
        text = f"the depth edges of each of {a} and {b} lie on the other's picture"
        yield Fault(name="cameras swapped", scene_id=where, evidence=text)
    odd = {name for pair in exchanged for name in pair}
    cameras = {
        name: [one for audit in audits for one in audit.cameras.get(name, ())]
        for name in sorted({name for audit in audits for name in audit.cameras} - odd)
    }
    turned = turned_cameras(cameras)
    for name, votes in cameras.items():
        total = sum(votes, CameraAgreement())
        if (turn := turned.get(name)) is not None:
            text = (
                f"{name}: its depth edges fit better with it turned by some {turn.degrees:+.0f} "
                f"degrees about its axis {turn.axis}, unlike those of the other cameras "
                f"(by {100 * abs(turn.lean):.0f} %, {turn.sigmas:.0f} sigma)"
            )
            yield Fault(name="camera turned", scene_id=where, evidence=text)
        elif total.edges >= 2 * MIN_EDGES and total.stated < MIN_STRENGTH * total.edges:
            text = (
                f"{name}: {total.edges} depth edges lie on {total.stated / total.edges:.2f} times "
                "the mean gradient of its picture"
            )
            yield Fault(name="camera does not fit", scene_id=where, evidence=text)


def label_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[Fault]:
    fits = [one for audit in audits for one in audit.fits]
    if len(fits) < MIN_FIT_FRAMES:
        return
    own = np.array([one.own for one in fits])
    shifted = np.array([one.shifted for one in fits]) - own[:, None]
    best = int(shifted.mean(axis=0).argmax())
    if _better(shifted[:, best]):
        x, y, z = (-step for step in SHIFTS[best])
        text = (
            f"the labels fit the LiDAR better moved back by a voxel: they lie {x:+d}, {y:+d}, "
            f"{z:+d} voxels off along x, y, z (fit {own.mean():.2f}, then "
            f"{own.mean() + shifted[:, best].mean():.2f}, {len(fits)} frames)"
        )
        yield Fault(name="labels shifted", scene_id=where, evidence=text)
    for side, words in (("earlier", "one frame before"), ("later", "one frame after")):
        gain = np.array([getattr(one, side) for one in fits]) - own
        if _better(gain[np.isfinite(gain)]):
            text = f"the LiDAR fits the labels of {words} better than a frame's own"
            yield Fault(name="labels of other frames", scene_id=where, evidence=text)
    over = np.array([one.own - one.other for one in fits])
    over = over[np.isfinite(over)]
    if len(over) >= MIN_FIT_FRAMES and float(over.mean()) < MIN_OVER_OTHER:
        text = (
            f"labels fit the LiDAR ({own.mean():.2f}) hardly better than those of another scene "
            f"do ({own.mean() - over.mean():.2f}; {len(over)} frames)"
        )
        yield Fault(name="labels of other frames", scene_id=where, evidence=text)


def _better(gain: NDArray[np.float64]) -> bool:
    """Whether frames agree that another place of the labels fits better."""
    enough = len(gain) >= MIN_FIT_FRAMES
    return enough and float(gain.mean()) > MIN_FIT_GAIN and float((gain > 0).mean()) >= FIT_AGREE


TESTS: tuple[Callable[[Sequence[SceneAudit], str], Iterator[Fault]], ...] = (
    motion_faults,
    tilt_faults,
    camera_faults,
    label_faults,
)


def record_faults(
    labelled: LabelledScene, scene: Scene, inputs: str, fingerprint: str, frame: GridFrame
) -> list[Fault]:
    """Whether the labels are of this log as it is now: its frames, times, poses and files.

    Args:
        inputs: fingerprint that the scene was labelled from; empty where unknown.
        fingerprint: of the scene now; empty where unknown.
    """
    texts: list[tuple[FaultName, str]] = []
    now = {one.token: one for one in scene.frames}
    lost = [token for token in labelled.frame_tokens if token not in now]
    if lost:
        text = f"{len(lost)} of {len(labelled.frame_tokens)} labelled frames are not in the log"
        texts.append(("labels of other frames", f"{text}, such as {lost[0]}"))
    late = moved = 0
    most_m = most_rad = 0.0
    for k, token in enumerate(labelled.frame_tokens):
        if token not in now:
            continue
        late += int(labelled.timestamps_us[k]) != now[token].timestamp_us
        step = inverse(_pose(now[token], frame)) @ labelled.T_global_grid[k]
        away_m = float(np.linalg.norm(step[:3, 3]))
        turn = float(np.arccos(np.clip((np.trace(step[:3, :3]) - 1) / 2, -1, 1)))
        moved += away_m > SAME_POSE_M or turn > SAME_POSE_RAD
        most_m, most_rad = max(most_m, away_m), max(most_rad, turn)
    if late:
        texts.append(("stale labels", f"{late} frames have another time in the log now"))
    if moved:
        text = (
            f"{moved} frames have another pose in the log now, by up to {most_m:.2f} m and "
            f"{np.degrees(most_rad):.2f} degrees"
        )
        texts.append(("stale labels", text))
    if inputs and fingerprint and inputs != fingerprint:
        text = "the log changed since it was labelled (its fingerprint is another): label it again"
        texts.append(("stale labels", text))
    return [Fault(name=name, scene_id=scene.scene_id, evidence=text) for name, text in texts]


def _pose(frame: Frame, of: GridFrame) -> NDArray[np.float64]:
    return (in_lidar_frame(frame) if of == "lidar" and frame.lidar else frame).T_global_ego
