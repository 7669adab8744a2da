"""All checks of one scene, as ``scripts/check_log.py`` runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import AnnotatedSource, Annotations
from datasets.errors import SceneError
from datasets.frames import ElongationSource, Frame, points_in_ego
from datasets.geometry.transforms import inverse
from datasets.log_checks.annotations import check_annotations
from datasets.log_checks.cameras import NOTHING, CameraEvidence, camera_evidence, camera_findings
from datasets.log_checks.ground import (
    MAX_GROUND_OFF_M,
    columns,
    ground_height_m,
    ground_slopes,
    spread,
)
from datasets.log_checks.motion import Finding, check_motion, check_times, speeds_m_s
from datasets.log_checks.structure import pairs_to_compare, static_agreement
from datasets.returns import CountsReturns, DroppedReturns
from datasets.sources.pictures import applied_orientation

PAIRS = 10
MAX_GROUND_TILT_DEG = 1.3
"""Chosen on the built-in city, seeds 9000 and 9001 (16 scenes), whose ground is within 0.6 degrees
of level."""
MAX_CROSSFALL_DEG = 3.5
"""Along a drive a street is level ahead of the vehicle, but falls to one side: by 1.6 to 2.1
degrees in the three real logs at hand. One scene cannot tell that from a tilted LiDAR."""
DIM, MIN_RETURNS = 64.0, 500
"""The brightest of so many returns is brighter than this where intensities are 0..255."""
MAX_USUAL_RANGE_M, MIN_USUAL_RANGE_M = 200.0, 1.0
SHARE_DROPPED = 0.02

Progress = Callable[[Sequence[Frame]], Iterable[Frame]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneCheck:
    """Attributes:
    findings: bad ones and notes.
    rows: what was measured, as name and text.
    cameras: evidence by camera, for all scenes together; none where they are not judged.
    """

    findings: list[Finding]
    rows: list[tuple[str, str]]
    cameras: dict[str, CameraEvidence]


def check_scene(
    source: AnnotatedSource, scene_id: str, limit: int, progress: Progress = iter
) -> SceneCheck:
    """All checks of one scene.

    Args:
        limit: open the files of so many frames; 0: of all, and all sweeps.
        progress: wraps the frames that are read.
    """
    try:
        frames = source.scene(scene_id).frames
    except SceneError as error:
        return SceneCheck(findings=[_bad(str(error))], rows=[], cameras={})
    reading = _Reading(source, frames)
    opened = [frames[k] for k in spread(len(frames), limit or len(frames))]
    pairs = pairs_to_compare(frames, PAIRS)
    tokens = {f.token for f in opened} | {f.token for pair in pairs for f in pair}
    missing = missing_files(frames)
    for frame in progress([f for f in frames if f.token in tokens]):
        reading.read(frame)
    reading.read_sweeps(
        {
            sweep.path: sweep
            for f in opened
            for sweep in (f.sweeps if not limit else f.past_sweeps[:1])
        },
        but={s.path for f in opened for s in f.moment} | set(missing),
    )

    findings = [*check_times(frames), *check_motion(frames)]
    findings += [_bad(f"missing file: {path}") for path in missing]
    findings += reading.findings
    findings += check_annotations(frames, reading.marks, source.taxonomy)
    lidars = dict.fromkeys(s.lidar for f in frames for s in f.moment)
    shown_names = {name: name if len(lidars) > 1 else "" for name in lidars}
    structure = {name: static_agreement(pairs, reading.columns, name) for name in lidars}
    about_lidars = [f for name, s in structure.items() for f in s.findings(shown_names[name])]
    for name in lidars:
        about_lidars += _ground(
            reading.heights.get(name, []),
            reading.slopes.get(name, []),
            reading.mount_heights.get(name, []),
            shown_names[name],
        )
    findings += about_lidars
    findings += _returns(source, reading)
    judged = not any(f.bad for f in about_lidars)
    if judged:
        findings += camera_findings([reading.cameras])
    else:
        text = "cameras are not judged: what is wrong with poses or the LiDAR shows in them too"
        findings.append(Finding(bad=False, text=text))

    n_sweeps = len({(s.lidar, s.path) for f in frames for s in f.sweeps})
    seconds = (frames[-1].timestamp_us - frames[0].timestamp_us) * 1e-6
    classes = sum(m.point_classes is not None for m in reading.marks.values())
    speeds = speeds_m_s(frames)
    rows = [
        ("frames", f"{len(frames)} over {seconds:.1f} s; files of {len(tokens)} were opened"),
        ("sensors", f"{len(frames[0].cameras)} cameras, {n_sweeps} LiDAR sweeps"),
        ("missing files", str(len(missing))),
        ("annotations", f"{reading.boxes.total()} boxes, classes of points in {classes} frames"),
    ]
    if reading.boxes:
        rows.append(("boxes", counted(reading.boxes)))
    if len(speeds):
        rows.append(("speed", f"{speeds.min():.1f} to {speeds.max():.1f} m/s"))
    for name, heights in reading.heights.items():
        rows.append((_row("ground", shown_names[name]), f"z = {np.median(heights):+.2f} m"))
    rows += [(_row("static structure", shown_names[name]), str(s)) for name, s in structure.items()]
    if reading.n_returns:
        rows.append(("returns", f"{reading.n_returns:,}, brightest {reading.brightest:.4g}"))
    rows += [(name, str(c)) for name, c in sorted(reading.cameras.items())]
    return SceneCheck(findings=findings, rows=rows, cameras=reading.cameras if judged else {})


class _Reading:
    """What the files of a scene hold, added up frame by frame."""

    def __init__(self, source: AnnotatedSource, frames: tuple[Frame, ...]) -> None:
        self.source, self.frames = source, frames
        self.place = {frame.token: k for k, frame in enumerate(frames)}
        self.findings: list[Finding] = []
        self.cameras: dict[str, CameraEvidence] = {}
        self.columns: dict[tuple[str, str], NDArray[np.float64]] = {}
        self.heights: dict[str, list[float]] = {}
        self.slopes: dict[str, list[NDArray[np.float64]]] = {}
        self.mount_heights: dict[str, list[float]] = {}
        self.marks: dict[str, Annotations] = {}
        self.boxes: Counter[str] = Counter()
        self.n_returns, self.brightest = 0, 0.0
        self.ranges_m: list[float] = []
        self.orientations: dict[str, int] = {}

    def read(self, frame: Frame) -> None:
        points = self._points(frame)
        pictures = self._pictures(frame)
        try:
            self.marks[frame.token] = marks = self.source.annotations(frame)
            self.boxes.update(self.source.taxonomy.names[box.class_id] for box in marks.boxes)
        except SceneError as error:
            self._fault(frame, error)
        if points is None:
            return
        key = points[points[:, 5] == 0]
        for i, sweep in enumerate(frame.moment):
            own = points[points[:, 5] == i]
            if len(own):
                self._structure(frame, sweep.lidar, own)
                T_vehicle_lidar = inverse(frame.vehicle_at(sweep)) @ sweep.T_ego_lidar
                self.mount_heights.setdefault(sweep.lidar, []).append(float(T_vehicle_lidar[2, 3]))
                origin = sweep.T_ego_lidar[:3, 3]
                distance = np.linalg.norm(own[:, :3] - origin, axis=1)
                self.ranges_m.append(float(np.median(distance)))
        self.n_returns += len(points)
        self.brightest = max(self.brightest, float(points[:, 3].max(initial=0)))
        if len(key):
            of_frame = camera_evidence(self.frames, self.place[frame.token], key, pictures)
            for name, evidence in of_frame.items():
                self.cameras[name] = self.cameras.get(name, NOTHING) + evidence

    def read_sweeps(self, sweeps: dict[Path, Any], *, but: set[Path]) -> None:
        for path, sweep in sweeps.items():
            if path not in but:
                try:
                    self.source.read_points(sweep)
                except SceneError as error:
                    self.findings.append(_bad(str(error)))

    def _points(self, frame: Frame) -> NDArray[np.float32] | None:
        try:
            return points_in_ego(self.source, frame) if frame.lidar is not None else None
        except SceneError as error:
            self._fault(frame, error)
            return None

    def _pictures(self, frame: Frame) -> dict[str, NDArray[np.uint8]]:
        pictures = {}
        for view in frame.cameras:
            try:
                pictures[view.name] = self.source.read_image(view)
            except SceneError as error:
                self._fault(frame, error)
                continue
            if view.name not in self.orientations:
                self.orientations[view.name] = turned = applied_orientation(view.path)
                if turned != 1:
                    text = (
                        f"{view.name}: images have EXIF orientation {turned}, which is applied; "
                        "intrinsics must hold for the upright image"
                    )
                    self.findings.append(Finding(bad=False, frame=frame.token, text=text))
        return pictures

    def _structure(self, frame: Frame, lidar: str, points: NDArray[np.float32]) -> None:
        self.columns[frame.token, lidar] = columns(points)
        if (height := ground_height_m(points)) is not None:
            self.heights.setdefault(lidar, []).append(height)
        if (slopes := ground_slopes(points)) is not None:
            self.slopes.setdefault(lidar, []).append(slopes)

    def _fault(self, frame: Frame, error: SceneError) -> None:
        self.findings.append(Finding(bad=True, frame=frame.token, text=str(error)))


def _ground(
    heights: list[float], slopes: list[NDArray[np.float64]], mount_heights: list[float], lidar: str
) -> list[Finding]:
    """Findings about the ground under the vehicle.

    Args:
        heights: of the ground, metres in the vehicle frame.
        slopes: (2,) of each frame.
        mount_heights: of the LiDAR, as stated, metres in the vehicle frame.
        lidar: its name, where there are several.
    """
    ground = f"the ground of {lidar}" if lidar else "the ground"
    findings = []
    if heights and abs(height_m := float(np.median(heights))) > MAX_GROUND_OFF_M:
        text = f"{ground} lies at z = {height_m:+.2f} m of the vehicle frame (should be near 0)"
        mount_m = float(np.median(mount_heights)) if mount_heights else 0.0
        if mount_m < -MAX_GROUND_OFF_M and abs(height_m - 2 * mount_m) <= MAX_GROUND_OFF_M:
            text += (
                f", and the LiDAR at {mount_m:+.2f} m: its extrinsics look inverted (vehicle to "
                "LiDAR); write T_vehicle_lidar"
            )
        findings.append(_bad(text))
    if slopes:
        forward, left = np.degrees(np.arctan(np.median(slopes, axis=0)))
        shown = f"{ground} rises by {forward:+.1f} degrees forward and {left:+.1f} degrees left"
        if abs(forward) > MAX_GROUND_TILT_DEG or abs(left) > MAX_CROSSFALL_DEG:
            text = f"{shown} of the vehicle, which stands on it: the LiDAR's extrinsics look tilted"
            findings.append(_bad(text))
        elif abs(left) > MAX_GROUND_TILT_DEG:
            text = f"{shown} of the vehicle: the street falls to one side, or the LiDAR is tilted"
            findings.append(Finding(bad=False, text=text))
    return findings


def _returns(source: AnnotatedSource, reading: _Reading) -> list[Finding]:
    """Ranges and intensities of the returns that were read, and those that were left out."""
    findings = []
    if reading.ranges_m:
        middle_m = float(np.median(reading.ranges_m))
        if not MIN_USUAL_RANGE_M <= middle_m <= MAX_USUAL_RANGE_M:
            unit = "centimetres" if middle_m > MAX_USUAL_RANGE_M else "kilometres, or are scaled"
            text = f"half of the returns lie beyond {middle_m:.3g} m: points look like {unit}"
            findings.append(_bad(text))
    # the intensity of the LiDARs that record an elongation has no upper bound (Waymo)
    if reading.n_returns >= MIN_RETURNS and not isinstance(source, ElongationSource):
        brightest = reading.brightest
        shown = (
            f"the brightest of {reading.n_returns:,} returns has intensity {brightest:.3g} of 255"
        )
        if brightest == 0:
            text = f"{shown}: the log has no intensities, which networks read"
            findings.append(Finding(bad=False, text=text))
        elif brightest <= 1.0:
            text = (
                f"{shown}: intensities look like 0..1 read as 0..255; state the brightest value "
                "(a folder log: points.intensity_max in log.json), or scale them"
            )
            findings.append(_bad(text))
        elif brightest < DIM:
            text = (
                f"{shown}: does the brightest value that the log declares (a folder log: "
                "points.intensity_max) fit its LiDAR?"
            )
            findings.append(Finding(bad=False, text=text))
    if isinstance(source, CountsReturns):
        sweeps = [s for f in reading.frames for s in f.sweeps]
        dropped: DroppedReturns = source.returns.total(sweeps)
        if dropped.dropped:
            bad = dropped.not_finite > SHARE_DROPPED * dropped.read
            findings.append(Finding(bad=bad, text=f"LiDAR: {dropped}"))
    return findings


def missing_files(frames: Sequence[Frame]) -> list[Path]:
    paths = {v.path for f in frames for v in f.cameras}
    paths |= {s.path for f in frames for s in f.sweeps}
    return sorted(p for p in paths if not p.exists())


def counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.most_common())


def _row(what: str, lidar: str) -> str:
    return f"{what} {lidar}".rstrip()


def _bad(text: str) -> Finding:
    return Finding(bad=True, text=text)
