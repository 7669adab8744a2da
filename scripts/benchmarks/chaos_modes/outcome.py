"""What every mode of ``chaos.py`` takes and gives, and the city that it attacks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.labels.store import LabelStore
from datasets.sources.synthetic.city import CityConfig, ensure_city
from datasets.store_ops.maintenance import prune, verify

LISTED = 40
"""Cases of broken promises, at most."""


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
    """A city of unlabelled scenes with small images, made unless it is there."""
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


def broke(counts: Any, promise: str, case: str) -> None:
    """Count a broken promise in the field of that name; ``cases`` lists the first of them."""
    setattr(counts, promise, getattr(counts, promise) + 1)
    if len(counts.cases) < LISTED:
        counts.cases.append(f"{promise}: {case}")


def written_twice(store: Path, inodes: dict[str, int]) -> int:
    """Scenes whose commit marker changed since the last call.

    Args:
        inodes: of the markers, by scene; kept up to date here.
    """
    changed = 0
    for marker in store.glob("scenes/*/zarr.json"):
        try:
            inode = marker.stat().st_ino
        except OSError:
            continue
        if inodes.setdefault(marker.parent.name, inode) != inode:
            changed += 1
            inodes[marker.parent.name] = inode
    return changed


def judge(store: Path, counts: Any, *, scenes: int) -> dict[str, str]:
    """Count the scenes that a store has lost or that are damaged; gives its ``tree`` when what was
    left over is pruned."""
    opened = LabelStore.open(store)
    counts.lost += scenes - len(opened.scene_ids())
    counts.damaged += len(verify(store))
    prune(opened)
    return tree(store)


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
