"""The report of ``autolabel/audit.py --json``, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import SetupError
from datasets.files.json_files import read_json_file

FORMAT, FORMAT_VERSION = "label-audit", 1

Votes = dict[str, tuple[int, int]]
"""Name of a class or of a ring -> voxels voted against, voxels judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedScene:
    """Attributes:
    score: what scenes are ranked by; higher is more suspect.
    shares: of wrong or suspect voxels, 0..1 by name; what was not measured is left out.
    fit: how well labels fit the LiDAR, 0..1, and pose_noise_m; None where that was not measured.
    problems: what could not be read.
    """

    scene_id: str
    score: float
    shares: dict[str, float]
    fit: float | None
    pose_noise_m: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFault:
    """What is wrong, where (a scene, or ``all scenes``), and what was measured."""

    name: str
    scene_id: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Attributes:
    what: that was audited.
    scenes: most suspect first.
    by_class, by_range: by name of the vote.
    set_aside: scene id -> why it could not be audited.
    notes: what was not tested, and why.
    """

    what: str
    scenes: tuple[AuditedScene, ...]
    by_class: dict[str, Votes]
    by_range: dict[str, Votes]
    faults: tuple[AuditFault, ...]
    set_aside: dict[str, str]
    notes: tuple[str, ...]


def read_audit(path: Path) -> Audit:
    """Raises ``SetupError``: the file is missing, or not such a report."""
    try:
        data = read_json_file(path)
    except OSError as error:
        raise SetupError(f"--audit {path}: {error.strerror}") from error
    except ValueError as error:
        raise SetupError(f"--audit {path}: not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SetupError(f"--audit {path}: not a report of autolabel/audit.py --json")
    if (version := data.get("format_version")) != FORMAT_VERSION:
        raise SetupError(
            f"--audit {path}: format version {version}, this code reads {FORMAT_VERSION}"
        )
    try:
        return _audit(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        raise SetupError(f"--audit {path}: damaged report: {why}") from error


def _audit(data: Mapping[str, Any]) -> Audit:
    return Audit(
        what=str(data["what"]),
        scenes=tuple(_scene(one) for one in data["scenes"]),
        by_class={str(vote): _votes(found) for vote, found in data["by_class"].items()},
        by_range={str(vote): _votes(found) for vote, found in data["by_range"].items()},
        faults=tuple(
            AuditFault(
                name=str(one["name"]), scene_id=str(one["scene_id"]), evidence=str(one["evidence"])
            )
            for one in data["faults"]
        ),
        set_aside={str(scene): str(why) for scene, why in data["set_aside"].items()},
        notes=tuple(str(note) for note in data["notes"]),
    )


def _scene(data: Mapping[str, Any]) -> AuditedScene:
    shares = {"expected": data["expected_error"], "untrusted": data["untrusted"], **data["votes"]}
    shares["flips"] = data["flips"]
    known = {name: _number(value) for name, value in shares.items()}
    score = _number(data["score"])
    if score is None:
        raise ValueError("a scene has no score")
    return AuditedScene(
        scene_id=str(data["scene_id"]),
        score=score,
        shares={name: value for name, value in known.items() if value is not None},
        fit=_number(data["fit"]),
        pose_noise_m=_number(data["pose_noise_m"]),
        problems=tuple(str(problem) for problem in data["problems"]),
    )


def _votes(data: Mapping[str, Any]) -> Votes:
    found = {}
    for name, (bad, judged) in data.items():
        if not 0 <= int(bad) <= int(judged):
            raise ValueError(f"{name}: {bad} of {judged} voxels")
        found[str(name)] = (int(bad), int(judged))
    return found


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
