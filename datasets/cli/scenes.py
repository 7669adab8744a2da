"""Which scenes a split or a store gives a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.errors import SceneError, SetupError
from datasets.files.printable import printable
from datasets.frames import SceneSource
from datasets.names import fault_of_scene_id

if TYPE_CHECKING:  # commands without a store need no zarr
    from datasets.labels.store import LabelStore


def scenes_of(source: SceneSource, split: str, *, root: Path) -> tuple[str, ...]:
    """Scene ids of a split, those included whose data will turn out to be bad.

    Args:
        root: of the log, for the message.

    Raises:
        SetupError: the split is unknown, or has no scene or no frame.
    """
    scenes = source.scene_ids(split)
    if not scenes:
        n = len(source.scene_ids("all"))
        instead = f"; the log has {n} scenes in all (--split all)" if n else ""
        raise SetupError(f"{root}: split {split!r} has no scene{instead}")
    if not any(_may_have_frames(source, scene) for scene in scenes):
        raise SetupError(f"{root}: split {split!r} has no frame in its {len(scenes)} scenes")
    return scenes


def usable_scenes_of(source: SceneSource, split: str, *, root: Path) -> tuple[str, ...]:
    """``scenes_of`` without those whose ids cannot be used, which are named on stderr.

    Raises:
        SetupError: as ``scenes_of``, or none is left.
    """
    scenes = scenes_of(source, split, root=root)
    for scene in scenes:
        if fault := fault_of_scene_id(scene):
            print(f"quarantined: {printable(scene)}: {fault}", file=sys.stderr)
    usable = tuple(scene for scene in scenes if not fault_of_scene_id(scene))
    if not usable:
        raise SetupError(f"{root}: split {split!r} has no scene whose id can be used")
    return usable


def first_split(source: SceneSource, *splits: str) -> str:
    """The first of the splits that a log has and that has scenes; else ``all``."""
    for split in splits:
        try:
            if source.scene_ids(split):
                return split
        except SetupError:  # the log has no split of that name
            continue
    return "all"


def scenes_in(store: LabelStore) -> tuple[str, ...]:
    """Committed scenes of a store.

    Raises:
        SetupError: it has none.
    """
    if not (scenes := store.scene_ids()):
        raise SetupError(f"label store {store.place}: no scene is committed yet")
    return scenes


def _may_have_frames(source: SceneSource, scene_id: str) -> bool:
    try:
        return source.n_frames(scene_id) > 0
    except SceneError:  # whoever opens the scene says what is wrong
        return True
