"""What every mode of ``chaos.py`` takes and gives, and the city that it attacks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from datasets.sources.synthetic.city import CityConfig, ensure_city


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Attributes:
    number: of attacks.
    seed: of the random choices.
    scenes: of the city; ``frames``: of a scene.
    every_s: least and most seconds between two kills.
    """

    number: int
    seed: int
    scenes: int
    frames: int
    every_s: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Attributes:
    text: what happened, for people.
    facts: the same as JSON.
    bad: broken promises; 0 is exit code 0.
    """

    text: str
    facts: dict[str, object]
    bad: int


def facts_of(counts: object) -> dict[str, object]:
    """The fields of a slotted dataclass of counts."""
    return {name: getattr(counts, name) for name in type(counts).__slots__}  # type: ignore[attr-defined]


def small_city(root: Path, *, scenes: int, frames: int) -> Path:
    """A city of unlabelled scenes with small pictures, made unless it is there."""
    ensure_city(
        root,
        CityConfig(
            labeled_scenes=0,
            unlabeled_scenes=scenes,
            val_scenes=0,
            frames_per_scene=frames,
            image_height=48,
            image_width=128,
            sweeps=2,
        ),
    )
    return root


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
