"""How suspect scenes and frames are: by an audit, by a selection, or by the store's own word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import SceneError, SetupError
from datasets.files.json_files import read_json_file
from datasets.labels.audit_record import FORMAT, parse_audit
from datasets.labels.store import LabelStore, MaskBit

FRAMES_READ = 1000
"""A store of more frames is ranked by what its scenes' attributes say: no voxel is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewPriority:
    """Scores; the higher, the more is likely wrong.

    Attributes:
        scenes: scene id -> score, not negative.
        frames: (scene id, index of the frame) -> score.
        why: of a scene or a frame, in words.
    """

    scenes: Mapping[str, float] = field(default_factory=dict)
    frames: Mapping[tuple[str, int], float] = field(default_factory=dict)
    why: Mapping[str | tuple[str, int], str] = field(default_factory=dict)

    def reason(self, scene_id: str, k: int) -> str:
        parts = [self.why.get((scene_id, k), ""), self.why.get(scene_id, "")]
        return "; ".join(part for part in parts if part) or "nothing speaks against it"


def read_reports(paths: Sequence[Path], scenes: Mapping[str, Sequence[str]]) -> ReviewPriority:
    """Of reports of audits and lists of selections, as JSON. Scores are divided by the highest of
    their file; of several files the highest counts.

    Args:
        scenes: tokens of the store's frames, by scene. Others in a report are passed over.

    Raises:
        SetupError: a file cannot be read, is neither, or knows no scene of the store.
    """
    by_scene, by_frame = dict[str, float](), dict[tuple[str, int], float]()
    why = dict[str | tuple[str, int], str]()
    for path in paths:
        data = _read(path)
        if "chosen" in data:
            rows = _chosen(path, data)
        elif data.get("format") == FORMAT:
            rows = _audited(path, data)
        else:
            raise SetupError(
                f"{path}: neither the report of an audit nor the list of a selection (--json)"
            )
        n_known = 0
        highest = max((score for _, _, score, _ in rows), default=0) or 1
        for scene_id, token, score, words in rows:
            if scene_id not in scenes:
                continue
            if token is None:
                by_scene[scene_id] = max(by_scene.get(scene_id, 0), score / highest)
                key: str | tuple[str, int] = scene_id
            elif token in scenes[scene_id]:
                key = (scene_id, list(scenes[scene_id]).index(token))
                by_frame[key] = max(by_frame.get(key, 0), score / highest)
            else:
                continue
            n_known += 1
            why[key] = "; ".join(part for part in (why.get(key, ""), words) if part)
        if not n_known:
            raise SetupError(f"{path}: it knows no scene of this store; is it of another one?")
    return ReviewPriority(scenes=by_scene, frames=by_frame, why=why)


def store_priority(store: LabelStore, *, frames_read: int = FRAMES_READ) -> ReviewPriority:
    """By the store's own confidence: the share of what was observed that is wrong by it, plus the
    share that is not trusted. Of each frame; of each scene where the store has more than
    ``frames_read``, and then only what is not trusted.
    """
    committed, _ = store.looked_at()
    if sum(len(attributes["frame_tokens"]) for attributes in committed.values()) > frames_read:
        scores = {name: _untrusted(attributes["counts"]) for name, attributes in committed.items()}
        return ReviewPriority(
            scenes=scores,
            why={name: f"{100 * score:.1f} % not trusted" for name, score in scores.items()},
        )
    by_frame, reasons = dict[tuple[str, int], float](), dict[str | tuple[str, int], str]()
    wrong = 1 - np.asarray(store.header.levels)
    observed_bits = np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
    for scene_id in committed:
        try:
            scene = store.scene(scene_id)
            for k in range(len(scene)):
                mask, confidence = scene.voxels("mask", k), scene.voxels("confidence", k)
                observed = (mask & observed_bits) > 0
                n = max(1, int(observed.sum()))
                levels = np.bincount(confidence[observed], minlength=len(wrong))
                expected = float(levels @ wrong) / n if len(wrong) > 1 else 0.0
                untrusted = 1 - int((observed & (mask & MaskBit.TRUSTED > 0)).sum()) / n
                by_frame[scene_id, k] = expected + untrusted
                reasons[scene_id, k] = (
                    f"{100 * expected:.1f} % wrong by its confidence, "
                    f"{100 * untrusted:.1f} % not trusted"
                )
        except SceneError as error:
            reasons[scene_id] = str(error)
    return ReviewPriority(frames=by_frame, why=reasons)


def _untrusted(counts: Mapping[str, Any]) -> float:
    observed = max(counts["lidar_observed"], counts["camera_visible"], 1)
    return float(max(0.0, 1 - counts["trusted"] / observed))


_Row = tuple[str, str | None, float, str]
"""Scene, token of a frame or None, score, and why."""


def _audited(path: Path, data: dict[str, Any]) -> list[_Row]:
    scenes = parse_audit(path, data).scenes
    return [
        (scene.scene_id, None, scene.score, f"audit {scene.score:.3f}, rank {k} of {len(scenes)}")
        for k, scene in enumerate(scenes, 1)
    ]


def _chosen(path: Path, found: dict[str, Any]) -> list[_Row]:
    """A selection has no score of its own: 1 / rank, in the order of choice."""
    chosen = found["chosen"]
    if not isinstance(chosen, list):
        raise SetupError(f"selection {path}: what it chose is not a list")
    rows: list[_Row] = []
    for rank, row in enumerate(chosen, 1):
        scene_id = _field(path, row, "scene_id", str)
        token = _field(path, row, "token", str) if "frame" in row else None
        rows.append((scene_id, token, 1 / rank, f"selection {rank} of {len(chosen)}"))
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_json_file(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SetupError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise SetupError(f"{path}: neither the report of an audit nor the list of a selection")
    return data


def _field(path: Path, row: object, name: str, kind: type) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get(name), kind):
        raise SetupError(f"{path}: a row without {name}: {row!r:.100}")
    return row[name]
