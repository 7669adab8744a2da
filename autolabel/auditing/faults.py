"""The faults that an audit can name, and when it does.

Every test compares what is stated with what else could be: labels moved by a voxel, poses of
another time, cameras turned. So none needs a clean log to compare with, and a name tells what to
repair. A cause is named only where it explains what was measured better than every other that was
tried, by three standard errors, in frames that had no part in fitting it. Else something is wrong
and the cause is unknown: the evidence then lists what explains it about as well. Faults are looked
for in all scenes together, which tells most, and in each scene alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autolabel.auditing.camera_fit import (
    FAR_DEG,
    MANY_CAMERAS,
    CameraFinding,
    camera_findings,
    judged_cameras,
)
from autolabel.auditing.camera_fit import MIN_PAIRS as MIN_IMAGE_PAIRS
from autolabel.auditing.camera_swaps import swapped
from autolabel.auditing.image_match import MAX_MOVED_M, MIN_MOVED_M, MOVED_AXES, Kind
from autolabel.auditing.lidar_votes import SHIFTS, TURNS, VoteCounts
from autolabel.auditing.motion_fit import CAUSES, MIN_PAIRS, Cause, MotionFit, explain, sigmas
from autolabel.auditing.scene_audit import MIN_OVER_FOREIGN, LabelFit, SceneAudit
from datasets.frames import Scene
from datasets.labels.audit_record import AuditFault
from datasets.labels.label_set import LabeledScene
from datasets.labels.log_identity import T_global_grid, pose_distance
from datasets.labels.validity import ConfidenceValidity
from datasets.labels.voxel_labels import GridFrame
from datasets.log_checks.conventions import wrong_convention
from datasets.log_checks.ground import MAX_GROUND_OFF_M

FaultName = Literal[
    "stale labels",
    "labels of other frames",
    "labels shifted",
    "labels mirrored",
    "labels turned",
    "poses delayed",
    "motion scaled",
    "poses noisy",
    "LiDAR turned",
    "LiDAR tilted",
    "LiDAR moved",
    "LiDAR height",
    "camera turned",
    "cameras swapped",
    "cameras late",
    "focal length",
    "camera convention",
    "confidence contradicted",
    "teacher out of its domain",
    "ghosting",
    "labels contradict LiDAR",
    "cause unknown",
]
UNKNOWN: FaultName = "cause unknown"
EVERYWHERE = "all scenes"
OF_LIDAR: frozenset[FaultName] = frozenset(
    ("LiDAR turned", "LiDAR tilted", "LiDAR moved", "LiDAR height")
)
"""Faults from which it follows that cameras and labels do not fit."""

SIGMAS, MIN_LEAD = 5.0, 3.0
MIN_GAIN = 10.0
"""Log-likelihood of held-out pairs that a cause of motion must gain: in right scenes alone (40 of
the city seeds 101, 102, 7301 and 7304) it was 6.0 at most, in right cities 4.5."""
MIN_AMOUNT: dict[Cause, float] = {
    "delay": 0.04,
    "turn": np.radians(0.5),
    "stretch": 0.02,
    "left": 0.08,
    "forward": 0.08,
}
OF_CAUSE: dict[Cause, FaultName] = {
    "delay": "poses delayed",
    "turn": "LiDAR turned",
    "stretch": "motion scaled",
    "left": "LiDAR moved",
    "forward": "LiDAR moved",
}
MIN_NOISE_M = 0.1
FEW_PAIRS, FEW_NOISE_M = 2, 0.25
"""Fewer pairs name no cause, but that two frames lie far apart needs no more."""
MIN_TILT_RAD, MIN_TILT_FRAMES = np.radians(1.5), 4
MIN_CROSSFALL_RAD, MANY_SCENES = np.radians(3.5), 8
"""A street may fall to one side by 2 degrees all along a drive; few scenes cannot tell that from a
tilted LiDAR."""
MIN_GROUND_OFF_M = 0.1
"""Of many scenes: in those of 20 city scenes (seeds 101 and 102), of PandaSet and of nuScenes that
were at hand the ground lay within 0.06 m of z = 0."""
MIN_FIT_GAIN, MIN_FIT_FRAMES, FIT_AGREE = 0.005, 3, 0.75
SAME_POSE_M, SAME_POSE_RAD = 1e-3, 1e-4


PLAIN, MIN_PLAIN = 0.75, 500
"""Votes against the labels: a share of so many voxels is a fault that needs no comparison."""


def plain_faults(audits: Sequence[SceneAudit], n_classes: int) -> list[AuditFault]:
    """What the votes say by themselves: most of what was judged is contradicted."""
    out = []
    for vote, name, what in (
        ("trails", "ghosting", "voxels of classes that can move are seen through by the key sweep"),
        ("violations", "labels contradict LiDAR", "upright static voxels are seen through"),
        ("misses", "labels contradict LiDAR", "places where returns end are labeled free"),
    ):
        total = sum((audit.votes[vote] for audit in audits), VoteCounts.none(n_classes))
        judged = int(total.judged.sum())
        if judged >= MIN_PLAIN and total.share > PLAIN:
            text = f"{100 * total.share:.0f} % of {judged:,} {what}"
            out.append(AuditFault(name=name, scene_id=EVERYWHERE, evidence=text))
    return out


def confidence_faults(verdict: ConfidenceValidity) -> list[AuditFault]:
    """What contradicts the confidence of a store's labels."""
    out = []
    if verdict.shift is not None and verdict.shift.shifted:
        text = "its scenes are not like the calibration scenes: "
        text += "; ".join(str(d) for d in verdict.shift.differences[:3])
        out.append(AuditFault(name="teacher out of its domain", scene_id=EVERYWHERE, evidence=text))
    if verdict.lidar is not None and verdict.lidar.invalid:
        text = verdict.lidar.to_text()
        out.append(AuditFault(name="confidence contradicted", scene_id=EVERYWHERE, evidence=text))
    return out


def find_faults(audits: Sequence[SceneAudit]) -> list[AuditFault]:
    """What all scenes show together, and what single ones show that not all do."""
    common = _of(audits, EVERYWHERE)
    out = [fault for faults in common.values() for fault in faults]
    if len(audits) < 2 or _lidar_at_fault(common):
        return out
    for audit in audits:
        for area, faults in _of([audit], audit.scene_id).items():
            names = {fault.name for fault in common[area]}
            # one scene tells less clearly what all of them show
            out += [f for f in faults if f.name not in names and not (names and f.name == UNKNOWN)]
    return out


Area = Literal["LiDAR", "cameras", "labels"]


def _of(audits: Sequence[SceneAudit], where: str) -> dict[Area, list[AuditFault]]:
    """What the tests tell, without what only follows from a fault of the LiDAR."""
    motion, ground = list(motion_faults(audits, where)), list(ground_faults(audits, where))
    cameras, labels = list(camera_faults(audits, where)), list(label_faults(audits, where))
    faults_by_area: dict[Area, list[AuditFault]]
    faults_by_area = {"LiDAR": motion + ground, "cameras": cameras, "labels": labels}
    names = {fault.name for fault in faults_by_area["LiDAR"]}
    if names & OF_LIDAR:
        # what the named fault leaves unexplained of the motion follows from it as well
        named = [fault for fault in faults_by_area["LiDAR"] if fault.name != UNKNOWN]
        return {"LiDAR": named, "cameras": [], "labels": []}
    if OF_LIDAR & {fault.name for fault in cameras}:
        # labels are judged by the LiDAR
        return faults_by_area | {"labels": [_unsure(fault) for fault in labels]}
    if UNKNOWN in names:
        # cameras and labels are judged by the LiDAR
        return faults_by_area | {
            "cameras": [_unsure(fault) for fault in cameras],
            "labels": [_unsure(fault) for fault in labels],
        }
    heights = [height for audit in audits for height in audit.heights_m]
    if heights and abs(float(np.median(heights))) > MIN_GROUND_OFF_M:
        # few scenes make it no alarm, but labels may lie off because the LiDAR is too high
        faults_by_area["labels"] = [_unsure(fault) for fault in labels]
    if "poses delayed" in names and any(fault.name == "cameras late" for fault in cameras):
        # it may be the clock of the LiDAR
        unsure = [_unsure(fault) for fault in motion]
        return faults_by_area | {
            "LiDAR": unsure + ground,
            "cameras": [_unsure(fault) for fault in cameras],
        }
    return faults_by_area


def _lidar_at_fault(faults: dict[Area, list[AuditFault]]) -> bool:
    unknown = any(fault.name == UNKNOWN for fault in faults["LiDAR"])
    return unknown or any(fault.name in OF_LIDAR for of in faults.values() for fault in of)


def _unsure(fault: AuditFault) -> AuditFault:
    if fault.name == UNKNOWN:
        return fault
    return replace(fault, name=UNKNOWN, evidence=f"{fault.evidence} [as if: {fault.name}]")


def motion_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[AuditFault]:
    fit = explain([pair for audit in audits for pair in audit.motion])
    pairs = f"({fit.pairs} pairs of frames)"
    noise = f"frames a second apart fit with a median error of {fit.noise_m:.2f} m {pairs}"
    if fit.pairs < MIN_PAIRS:
        if fit.pairs >= FEW_PAIRS and fit.noise_m > FEW_NOISE_M:
            yield AuditFault(name=UNKNOWN, scene_id=where, evidence=noise)
        return
    shown = [
        cause
        for cause in CAUSES
        if abs(fit.amounts[cause]) > max(MIN_AMOUNT[cause], SIGMAS * fit.errors[cause])
    ]
    clear = fit.gain >= MIN_GAIN and abs(fit.amounts[fit.best]) > MIN_AMOUNT[fit.best]
    if clear and fit.best not in shown:
        shown.insert(0, fit.best)
    correlation, error = fit.chain
    noisy = fit.noise_m > MIN_NOISE_M
    if noisy and correlation < -MIN_LEAD * error:
        text = f"{noise}, which throws pairs before and after a frame opposite ways"
        yield AuditFault(name="poses noisy", scene_id=where, evidence=text)
    elif clear and fit.lead >= MIN_LEAD and fit.rest < MIN_LEAD and not noisy:
        text = f"frames fit {_amount(fit, fit.best)} than stated {pairs}"
        yield AuditFault(name=OF_CAUSE[fit.best], scene_id=where, evidence=text)
    elif clear or noisy:
        likely = "; or ".join(_amount(fit, cause) for cause in shown)
        text = f"frames fit {likely} than stated {pairs}" if likely else noise
        yield AuditFault(name=UNKNOWN, scene_id=where, evidence=text)


def _amount(fit: MotionFit, cause: Cause) -> str:
    amount, error = fit.amounts[cause], fit.errors[cause]
    if cause == "delay":
        return f"poses of {1e3 * amount:+.0f} +- {1e3 * error:.0f} ms later"
    if cause == "turn":
        return (
            f"a LiDAR turned by {np.degrees(amount):+.2f} +- {np.degrees(error):.2f} degrees more "
            "about its vertical"
        )
    if cause == "stretch":
        return f"a motion {100 * amount:+.1f} +- {100 * error:.1f} % longer"
    side = "farther left" if cause == "left" else "farther forward"
    return f"a LiDAR {amount:+.2f} +- {error:.2f} m {side}"


def ground_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[AuditFault]:
    slopes = [slope for audit in audits for slope in audit.slopes]
    scenes = [np.median(audit.slopes, axis=0) for audit in audits if audit.slopes]
    if len(slopes) >= MIN_TILT_FRAMES:
        middle = np.median(slopes, axis=0)
        spread = np.std(scenes, axis=0) / np.sqrt(len(scenes)) if len(scenes) > 1 else np.zeros(2)
        for axis, slope, error in zip(("X", "Y"), middle, spread, strict=True):
            few_scenes = axis == "Y" and len(scenes) < MANY_SCENES
            min_off = MIN_CROSSFALL_RAD if few_scenes else MIN_TILT_RAD
            if abs(np.arctan(slope)) > max(min_off, 3 * error):
                text = (
                    f"the ground rises by {np.degrees(np.arctan(slope)):+.1f} degrees along "
                    f"{axis} of the vehicle (median of {len(slopes)} frames; should be level)"
                )
                yield AuditFault(name="LiDAR tilted", scene_id=where, evidence=text)
    heights = np.array([np.median(audit.heights_m) for audit in audits if audit.heights_m])
    if not len(heights):
        return
    ground, min_off = float(np.median(heights)), MAX_GROUND_OFF_M
    if len(heights) >= MANY_SCENES:
        min_off = max(MIN_GROUND_OFF_M, SIGMAS * float(np.std(heights)) / np.sqrt(len(heights)))
    if abs(ground) > min_off:
        text = (
            f"the ground lies at z = {ground:+.2f} m of the vehicle (median of {len(heights)} "
            "scenes; should be near 0): by so much the LiDAR, or the vehicle's origin, is too high"
        )
        yield AuditFault(name="LiDAR height", scene_id=where, evidence=text)


def camera_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[AuditFault]:
    if text := wrong_convention(_of_conventions(audits), len(audits)):
        cause: FaultName = "focal length" if "focal length" in text else "camera convention"
        yield AuditFault(name=cause, scene_id=where, evidence=text)
        return  # in such views nothing else can be told
    exchanged = swapped(crossing for audit in audits for crossing in audit.crossings)
    for a, b in exchanged:
        text = f"the depth edges of each of {a} and {b} lie on the other's image"
        yield AuditFault(name="cameras swapped", scene_id=where, evidence=text)
    odd = {name for pair in exchanged for name in pair}
    pairs = [
        {name: match for name, match in pair.items() if name not in odd}
        for audit in audits
        for pair in audit.matches
    ]
    for finding in camera_findings(pairs, [a.scene_id for a in audits for _ in a.matches]):
        yield AuditFault(name=_camera_fault(finding), scene_id=where, evidence=_matching(finding))


def _of_conventions(audits: Sequence[SceneAudit]) -> list[NDArray[np.float64]]:
    """Of each camera that every frame has, what ``convention_sums`` gave."""
    frames = [frame for audit in audits for frame in audit.conventions]
    names = dict.fromkeys(name for frame in frames for name in frame)
    everywhere = [name for name in names if all(name in frame for frame in frames)]
    return [np.array([frame[name] for frame in frames], np.float64) for name in everywhere]


def _camera_fault(finding: CameraFinding) -> FaultName:
    if finding.kind is None:
        return UNKNOWN
    names: dict[Kind, FaultName] = {
        "focal length": "focal length",
        "late": "cameras late",
        "LiDAR about its x": "LiDAR tilted",
        "LiDAR about its y": "LiDAR tilted",
        "LiDAR about its z": "LiDAR turned",
        "LiDAR to the left": "LiDAR moved",
        "LiDAR forward": "LiDAR moved",
        "LiDAR up": "LiDAR height",
    }
    return names.get(finding.kind, "camera turned")


def _matching(finding: CameraFinding) -> str:
    several = len(finding.cameras) > 1
    cameras = "all cameras" if several else finding.cameras[0]
    likely = [(finding.kind, finding.amount)] if finding.kind else finding.likely
    if not likely:
        return (
            f"{cameras}: images of neighbouring frames match hardly better as stated "
            f"({finding.stated:.2f} of 1) than turned by {FAR_DEG:.0f} degrees"
        )
    words = "; or ".join(_hypothesis(kind, amount) for kind, amount in likely)
    if finding.kind and finding.kind.startswith("LiDAR"):
        words += " (or all cameras as much the other way)"
    return (
        f"{cameras}: images of neighbouring frames match better {words} (by "
        f"{finding.gain:.3f} over {finding.stated:.2f} of 1, {finding.sigmas:.0f} sigma)"
    )


def _hypothesis(kind: Kind, amount: float) -> str:
    """An amount is what the log states too much of; what it should state is the opposite."""
    if kind == "focal length":
        return f"with a focal length {-100 * amount:+.0f} % longer"
    if kind == "late":
        return f"as taken {1e3 * amount:+.0f} ms later"
    if kind in MOVED_AXES:
        return f"with the LiDAR {-amount:+.2f} m farther {kind.split()[-1]}"
    if kind.startswith("LiDAR"):
        return f"with the LiDAR turned by {-amount:+.0f} degrees {kind[len('LiDAR ') :]}"
    axis = {
        "yawed": "y (to the side)",
        "pitched": "x (up and down)",
        "rolled": "z (about its view)",
    }[kind]
    return f"turned by some {-amount:+.0f} degrees about its axis {axis}"


def label_faults(audits: Sequence[SceneAudit], where: str) -> Iterator[AuditFault]:
    fits = [fit for audit in audits for fit in audit.fits]
    exchanged = [a.elsewhere for a in audits if a.elsewhere is not None]
    # the best of many foreign labels fits a little better by chance
    better_fits = [e for e in exchanged if e.fit > e.own + 2 * MIN_OVER_FOREIGN]
    if better_fits and len(better_fits) >= FIT_AGREE * len(audits):
        first = better_fits[0]
        text = (
            f"the LiDAR fits the labels of other scenes better than a scene's own, such as those "
            f"of {first.scene_id} ({first.fit:.2f}, own {first.own:.2f}; "
            f"{len(better_fits)} of {len(audits)} scenes)"
        )
        yield AuditFault(name="labels of other frames", scene_id=where, evidence=text)
        return
    if len(fits) < MIN_FIT_FRAMES:
        return
    own = np.array([fit.own for fit in fits])
    ways = _ways(fits)
    gains = {way: fit - own for way, fit in ways.items()}
    better = [way for way, gain in gains.items() if _better(gain[np.isfinite(gain)])]
    foreign = _foreign(fits)
    if better:
        best = max(better, key=lambda way: float(np.nanmean(gains[way])))
        name, words = best
        rivals = [gain for (other, _), gain in gains.items() if other != name]
        lead = min(sigmas(_finite(gains[best] - rival)) for rival in rivals)
        fit = float(np.nanmean(ways[best]))
        clear = not np.isfinite(foreign[name]) or fit - foreign[name] >= MIN_OVER_FOREIGN
        text = f"the labels fit the LiDAR better {words} ({fit:.2f}, as they are {own.mean():.2f}; "
        text += f"{len(fits)} frames)"
        sure = lead >= MIN_LEAD and clear
        yield AuditFault(name=name if sure else UNKNOWN, scene_id=where, evidence=text)
        return
    level = max((f for f in foreign.values() if np.isfinite(f)), default=np.nan)
    if float(own.mean()) - level < MIN_OVER_FOREIGN:
        text = (
            f"labels fit the LiDAR ({own.mean():.2f}) hardly better than those of another scene, "
            f"or turned away, do ({level:.2f}; {len(fits)} frames): they may be of another log"
        )
        yield AuditFault(name=UNKNOWN, scene_id=where, evidence=text)


def not_judged(audits: Sequence[SceneAudit]) -> list[str]:
    """What no test could tell of these scenes, and why, a line each."""
    out = []
    pairs = sum(len(audit.motion) for audit in audits)
    if pairs < MIN_PAIRS:
        out.append(
            f"poses and LiDAR heading: {pairs} pairs of frames a second apart between which the "
            f"vehicle moved could be laid over each other, {MIN_PAIRS} are needed"
        )
    slopes, level = (sum(len(getattr(a, name)) for a in audits) for name in ("slopes", "heights_m"))
    if slopes < MIN_TILT_FRAMES:
        out.append(f"LiDAR tilt: {slopes} frames show the ground, {MIN_TILT_FRAMES} are needed")
    scenes = sum(bool(audit.heights_m) for audit in audits)
    if not level:
        out.append("LiDAR height: no frame shows the ground")
    elif scenes < MANY_SCENES:
        out.append(
            f"LiDAR height within {MAX_GROUND_OFF_M:g} m and tilt to the side within "
            f"{np.degrees(MIN_CROSSFALL_RAD):.1f} degrees: {scenes} scenes show the ground, "
            f"{MANY_SCENES} are needed"
        )
    names = sorted({name for a in audits for frame in a.conventions for name in frame})
    judged = judged_cameras([pair for audit in audits for pair in audit.matches])
    if not names:
        out.append("cameras: there is no image with a LiDAR sweep")
    elif lacking := [name for name in names if name not in judged]:
        out.append(
            f"cameras {', '.join(lacking)}: {MIN_IMAGE_PAIRS} pairs of images are needed between "
            f"which the vehicle moved by {MIN_MOVED_M:g} to {MAX_MOVED_M:g} m, and returns in both"
        )
    if judged and len(judged) < MANY_CAMERAS:
        out.append(
            f"faults of all cameras: {len(judged)} cameras can be judged, {MANY_CAMERAS} are needed"
        )
    if (fits := sum(len(audit.fits) for audit in audits)) < MIN_FIT_FRAMES:
        out.append(
            f"whether labels and LiDAR fit together: {fits} frames have both, {MIN_FIT_FRAMES} "
            "are needed"
        )
    short = [audit.scene_id for audit in audits if len(audit.fits) < MIN_FIT_FRAMES]
    if len(audits) > 1 and short:
        out.append(
            f"each alone: {len(short)} scenes of fewer than {MIN_FIT_FRAMES} frames with LiDAR, "
            f"such as {short[0]}"
        )
    return [f"not judged: {text}" for text in out]


Way = tuple[FaultName, str]


def _ways(fits: Sequence[LabelFit]) -> dict[Way, NDArray[np.float64]]:
    """How well labels would fit otherwise, by fault and what it means, (frames,)."""
    out: dict[Way, NDArray[np.float64]] = {}
    for k, shift in enumerate(SHIFTS):
        x, y, z = (-step for step in shift)
        words = f"moved back by a voxel: they lie {x:+d}, {y:+d}, {z:+d} voxels off along x, y, z"
        out["labels shifted", words] = np.array([fit.shifted[k] for fit in fits])
    for k, turn in enumerate(TURNS):
        name: FaultName = "labels mirrored" if "mirrored" in turn else "labels turned"
        words = turn if "mirrored" in turn else f"turned by a quarter to the {turn}"
        words = "turned by a half" if turn == "half" else words
        out[name, words] = np.array([fit.turned[k] for fit in fits])
    for side, words in (("earlier", "if one frame later's own"), ("later", "")):
        words = "those of one frame before" if side == "earlier" else "those of one frame after"
        out["labels of other frames", f"as {words}"] = np.array(
            [getattr(fit, side) for fit in fits]
        )
    return out


def _foreign(fits: Sequence[LabelFit]) -> dict[FaultName, float]:
    """How well labels of elsewhere fit, for each fault that must fit better: those of another
    scene, or turned away where that is not the fault itself."""
    other = _mean([fit.other for fit in fits])
    turned = {turn: _mean([fit.turned[k] for fit in fits]) for k, turn in enumerate(TURNS)}
    away = [turned["left"], turned["right"]]
    mirrored = [turned["mirrored left to right"], turned["mirrored front to back"], turned["half"]]

    def most(*levels: float) -> float:
        return max((level for level in levels if np.isfinite(level)), default=float("nan"))

    return {
        "labels shifted": most(other, *away, *mirrored),
        "labels of other frames": most(other, *away, *mirrored),
        "labels mirrored": most(other, *away),
        "labels turned": most(other),
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = values[np.isfinite(values)]
    return out


def _better(gain: NDArray[np.float64]) -> bool:
    """Whether frames agree that another place of the labels fits better."""
    if len(gain) < MIN_FIT_FRAMES:
        return False
    return float(gain.mean()) > MIN_FIT_GAIN and float((gain > 0).mean()) >= FIT_AGREE


def record_faults(
    labeled: LabeledScene, scene: Scene, fingerprint: str, frame: GridFrame
) -> list[AuditFault]:
    """Whether the labels are of this log as it is now: its frames, times, poses and files.

    Args:
        fingerprint: of the scene now; empty where unknown.
    """
    texts: list[tuple[FaultName, str]] = []
    logged = {frame.token: frame for frame in scene.frames}
    lost = [token for token in labeled.frame_tokens if token not in logged]
    if lost:
        text = f"{len(lost)} of {len(labeled.frame_tokens)} labeled frames are not in the log"
        texts.append(("labels of other frames", f"{text}, such as {lost[0]}"))
    late = moved = 0
    most_m = most_rad = 0.0
    for k, token in enumerate(labeled.frame_tokens):
        if token not in logged:
            continue
        late += int(labeled.timestamps_us[k]) != logged[token].timestamp_us
        away_m, turn_rad = pose_distance(
            T_global_grid(logged[token], frame), labeled.T_global_grid[k]
        )
        moved += away_m > SAME_POSE_M or turn_rad > SAME_POSE_RAD
        most_m, most_rad = max(most_m, away_m), max(most_rad, turn_rad)
    if late:
        texts.append(("stale labels", f"{late} frames have another time in the log now"))
    if moved:
        text = (
            f"{moved} frames have another pose in the log now, by up to {most_m:.2f} m and "
            f"{np.degrees(most_rad):.2f} degrees"
        )
        texts.append(("stale labels", text))
    if labeled.inputs and fingerprint and labeled.inputs != fingerprint:
        text = "the log changed since it was labeled (its fingerprint is another): label it again"
        texts.append(("stale labels", text))
    return [AuditFault(name=name, scene_id=scene.scene_id, evidence=text) for name, text in texts]
