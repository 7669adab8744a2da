"""What an audit of labels found, as ``autolabel/audit.py --json`` writes it and others read it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.errors import SetupError
from datasets.files.json_files import read_json_file

FORMAT, FORMAT_VERSION = "label-audit", 1

Votes = dict[str, tuple[int, int]]
"""Name of a class or of a ring -> voxels voted against, voxels judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedScene:
    """One scene.

    Attributes:
        score: what scenes are ranked by; higher is more suspect.
        expected_error: share of the voxels that a camera sees which is wrong by the labels' own
            confidence, and ``untrusted``: the share not trusted; None where the labels have one
            level of confidence only.
        votes: share of the judged voxels that the held-out sweeps vote against, by the name of the
            vote; None where nothing was judged.
        flips: share of observed voxels whose class changes with mirrored inputs; None: not asked.
        fit: how well labels fit the LiDAR, 0..1; None without LiDAR.
        pose_noise_m: what remains between frames a second apart; None where there are too few
            to tell.
        problems: what could not be read.
    """

    scene_id: str
    score: float
    frames: int = 0
    expected_error: float | None = None
    untrusted: float | None = None
    votes: dict[str, float | None] = field(default_factory=dict)
    flips: float | None = None
    fit: float | None = None
    pose_noise_m: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float | None]:
        """What the score is made of, by name, and the other votes."""
        return {"expected": self.expected_error, "untrusted": self.untrusted, **self.votes}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFault:
    """Something that is wrong with the log or with what was labeled.

    Attributes:
        name: the cause, or ``cause unknown``.
        scene_id: where, or ``all scenes``.
        evidence: what was measured, in a sentence.
    """

    name: str
    scene_id: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.name} ({self.scene_id}): {self.evidence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """A whole set of labels.

    Attributes:
        what: that was audited.
        scenes: most suspect first.
        by_class, by_range: of each vote, by its name.
        faults: what is wrong with the log or with what was labeled.
        quarantined: scene id -> why it could not be audited.
        notes: what was not tested, and why.
    """

    what: str
    scenes: tuple[AuditedScene, ...]
    by_class: dict[str, Votes] = field(default_factory=dict)
    by_range: dict[str, Votes] = field(default_factory=dict)
    faults: tuple[AuditFault, ...] = ()
    quarantined: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def alarming(self) -> bool:
        """Whether a fault was named or a scene could not be audited whole."""
        return bool(self.faults or self.quarantined or any(s.problems for s in self.scenes))

    def to_json(self) -> dict[str, Any]:
        """The fields, with ``format`` and ``format_version``; ``set_aside`` is ``quarantined``."""
        values = {_JSON_KEYS.get(key, key): value for key, value in asdict(self).items()}
        return {"format": FORMAT, "format_version": FORMAT_VERSION} | values


_JSON_KEYS = {"quarantined": "set_aside"}


def read_audit(path: Path, *, any_tool: bool = False) -> AuditRecord:
    """Read a report of ``autolabel/audit.py --json``.

    Args:
        any_tool: take another tool's report too: JSON whose ``scenes`` have a ``scene_id`` and a
            ``score``.

    Raises:
        SetupError: it cannot be read, or is no such report.
    """
    try:
        data = read_json_file(path)
    except OSError as error:
        raise SetupError(f"audit {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SetupError(f"audit {path}: not JSON: {error}") from error
    return parse_audit(path, data, any_tool=any_tool)


def parse_audit(path: Path, data: Any, *, any_tool: bool = False) -> AuditRecord:
    """``read_audit`` of what a file held. Raises ``SetupError`` as it does."""
    ours = isinstance(data, dict) and data.get("format") == FORMAT
    if not ours and not any_tool:
        raise SetupError(f"audit {path}: not a report of autolabel/audit.py --json")
    if ours and (version := data.get("format_version")) != FORMAT_VERSION:
        raise SetupError(
            f"audit {path}: format version {version!r:.40}, this code reads {FORMAT_VERSION}"
        )
    try:
        return _record(data, least_score=0 if ours else -sys.float_info.max)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        raise SetupError(f"audit {path}: damaged report: {why}") from error


def _record(data: Mapping[str, Any], *, least_score: float) -> AuditRecord:
    scenes = data.get("scenes")
    if not isinstance(scenes, list):
        raise ValueError("it has no list of scenes")
    return AuditRecord(
        what=str(data.get("what", "labels")),
        scenes=tuple(_scene(row, least_score) for row in scenes),
        by_class={str(vote): _votes(v) for vote, v in data.get("by_class", {}).items()},
        by_range={str(vote): _votes(v) for vote, v in data.get("by_range", {}).items()},
        faults=tuple(
            AuditFault(**{key: str(row[key]) for key in ("name", "scene_id", "evidence")})
            for row in data.get("faults", ())
        ),
        quarantined={str(scene): str(why) for scene, why in data.get("set_aside", {}).items()},
        notes=tuple(str(note) for note in data.get("notes", ())),
    )


def _scene(row: Any, least_score: float) -> AuditedScene:
    if not isinstance(row, dict) or not isinstance(row.get("scene_id"), str):
        raise ValueError(f"a row without scene_id: {row!r:.100}")
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(f"a row without score: {row!r:.100}")
    if not least_score <= score <= sys.float_info.max:
        least = "0 up" if least_score == 0 else "a finite range"
        raise ValueError(f"the score {str(score)[:40]} is none; it must be a number from {least}")
    return AuditedScene(
        scene_id=row["scene_id"],
        score=float(score),
        frames=int(row.get("frames", 0)),
        expected_error=_figure(row.get("expected_error")),
        untrusted=_figure(row.get("untrusted")),
        votes={str(vote): _figure(value) for vote, value in row.get("votes", {}).items()},
        flips=_figure(row.get("flips")),
        fit=_figure(row.get("fit")),
        pose_noise_m=_figure(row.get("pose_noise_m")),
        problems=tuple(str(problem) for problem in row.get("problems", ())),
    )


def _votes(data: Mapping[str, Any]) -> Votes:
    votes = {}
    for name, (bad, judged) in data.items():
        if not 0 <= int(bad) <= int(judged):
            raise ValueError(f"{name}: {bad} of {judged} voxels")
        votes[str(name)] = (int(bad), int(judged))
    return votes


def _figure(value: Any) -> float | None:
    """None for what was not measured, and for what is no finite number."""
    if value is None or not -sys.float_info.max <= float(value) <= sys.float_info.max:
        return None
    return float(value)
