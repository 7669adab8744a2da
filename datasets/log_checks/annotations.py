"""Checks of annotations: duplicate boxes, tracks that jump, frames without annotation.

Every finding names the frame and, where there is one, the track. Only these frames or boxes are
wrong; the rest of the scene can be used.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from datasets.annotations import Annotations, Box
from datasets.frames import Frame
from datasets.log_checks.motion import Finding
from datasets.taxonomy import Taxonomy
from datasets.tracks import TrackPoint, jumps

LEAST_SIZE_M, LARGEST_SIZE_M = 0.005, 40.0
"""A sheet-metal sign is some centimetres thick (Waymo: 0.045 m)."""
MAX_SIZE_CHANGE = 3.0
"""Between key-frames, of the longest side."""


def check_annotations(
    frames: Sequence[Frame], marks: Mapping[str, Annotations], taxonomy: Taxonomy
) -> list[Finding]:
    """Findings about the annotations of a scene.

    Args:
        frames: of the scene, in time order.
        marks: by token, of the frames whose annotations were opened.
    """
    opened = [(frame, marks[frame.token]) for frame in frames if frame.token in marks]
    findings = [
        finding
        for frame, marked in opened
        for finding in check_boxes(frame.token, marked.boxes, taxonomy)
    ]
    findings += _tracks(opened, taxonomy)
    annotated = [marked.annotated for _, marked in opened]
    if any(annotated):
        text = "nobody annotated it, though others of the scene are: its labels are interpolated"
        findings += [
            Finding(bad=False, frame=frame.token, text=text)
            for frame, marked in opened
            if not marked.annotated
        ]
    return findings


def check_boxes(token: str, boxes: Sequence[Box], taxonomy: Taxonomy) -> list[Finding]:
    """Findings about the boxes of one frame: tracks that occur twice, sizes that no object has."""
    findings = []
    counts = Counter(box.track for box in boxes)
    for track, n in counts.items():
        if n > 1:
            text = f"track {track}: {n} boxes in one frame; a track is one object"
            findings.append(Finding(bad=True, frame=token, text=text))
    for box in boxes:
        size = np.asarray(box.size_m, np.float64)
        if not np.isfinite(size).all() or not np.isfinite(box.T_ego_box).all():
            text = f"track {box.track}: its box is not finite"
        elif size.min() < LEAST_SIZE_M or size.max() > LARGEST_SIZE_M:
            shown = " x ".join(f"{side:.3g}" for side in size)
            text = f"track {box.track}: a {taxonomy.names[box.class_id]} of {shown} m"
        else:
            continue
        findings.append(Finding(bad=True, frame=token, text=text))
    return findings


def _tracks(opened: Sequence[tuple[Frame, Annotations]], taxonomy: Taxonomy) -> list[Finding]:
    """Tracks that change their class or size, or move as no object does."""
    tracks: dict[str, list[TrackPoint]] = {}
    for frame, marked in opened:
        for box in marked.boxes:
            point = TrackPoint(
                token=frame.token,
                at_us=frame.timestamp_us,
                T_global_box=frame.T_global_ego @ box.T_ego_box,
                box=box,
            )
            tracks.setdefault(box.track, []).append(point)
    findings = []
    for track, points in tracks.items():
        for a, b in itertools.pairwise(points):
            texts = []
            if a.box.class_id != b.box.class_id:
                names = taxonomy.names[a.box.class_id], taxonomy.names[b.box.class_id]
                texts.append(f"a {names[0]} in frame {a.token} is a {names[1]}")
            if a.at_us < b.at_us and jumps(a, b):
                way_m = float(np.linalg.norm(b.T_global_box[:3, 3] - a.T_global_box[:3, 3]))
                seconds = (b.at_us - a.at_us) * 1e-6
                texts.append(f"it jumps by {way_m:.1f} m in {seconds:.2f} s")
            if max(b.box.size_m) > MAX_SIZE_CHANGE * max(a.box.size_m) or max(
                a.box.size_m
            ) > MAX_SIZE_CHANGE * max(b.box.size_m):
                texts.append(
                    f"its length changes from {max(a.box.size_m):.3g} to {max(b.box.size_m):.3g} m"
                )
            findings += [
                Finding(bad=True, frame=b.token, text=f"track {track}: {text}") for text in texts
            ]
    return findings
