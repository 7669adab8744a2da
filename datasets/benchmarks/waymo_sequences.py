"""Sequence numbers of Waymo scenes in Occ3D-Waymo.

It numbers the 798 training and 202 validation scenes in the order of their names. A log that has
all scenes of a split needs nothing more. For a part of a split write ``voxel04/sequences.csv``
beside the labels, one line per scene; its number is its place, from 0, among the sorted names of
the whole split::

    scene,split,sequence
    10203656353524179475_7625_000_7645_000,validation,0
"""

from __future__ import annotations

import csv
import functools
import io
from pathlib import Path

from datasets.errors import SetupError
from datasets.files.bounded_files import read_bytes
from datasets.frames import SceneSource

SCENES = {"training": 798, "validation": 202}
MAX_SEQUENCES_BYTES = 1 << 20
"""Of ``sequences.csv``: a hundred bytes for each of the thousand scenes are enough."""
_HEADER = ["scene", "split", "sequence"]


def sequences_path(root: Path) -> Path:
    """Where the numbers are looked for under the Occ3D-Waymo root."""
    return root / "voxel04" / "sequences.csv"


def sequence_of(root: Path, source: SceneSource, scene_id: str) -> tuple[str, int]:
    """Split and number of a scene.

    Args:
        root: of Occ3D-Waymo; its ``sequences.csv`` is taken before the order of names.

    Raises:
        SetupError: the file is bad or does not name the scene, or there is none and the log does
            not have the whole split.
    """
    path = sequences_path(root)
    if path.exists():
        sequences = _read(path, path.stat().st_mtime_ns)
        if scene_id not in sequences:
            raise SetupError(f"{path}: scene {scene_id} is not listed")
        return sequences[scene_id]
    for split, count in SCENES.items():
        try:
            scenes = source.scene_ids(split)
        except SetupError:  # the log has no such folder
            continue
        if scene_id in scenes:
            if len(scenes) != count:
                raise SetupError(
                    f"Occ3D-Waymo numbers the {count} scenes of {split} in the order of their "
                    f"names, and this log has {len(scenes)} of them: list their numbers in "
                    f"{path}, with lines scene,{split},sequence under the header "
                    f"{','.join(_HEADER)}"
                )
            return split, sorted(scenes).index(scene_id)
    raise SetupError(
        f"scene {scene_id} lies in neither a training nor a validation folder; list its number "
        f"in {path}, under the header {','.join(_HEADER)}"
    )


@functools.lru_cache(maxsize=4)
def _read(path: Path, modified_ns: int) -> dict[str, tuple[str, int]]:
    """Read again when the file was modified."""
    sequences: dict[str, tuple[str, int]] = {}
    try:
        text = read_bytes(path, MAX_SEQUENCES_BYTES, "MAX_SEQUENCES_BYTES").decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise SetupError(f"{path}: not a CSV file: {error}") from None
    if not rows or rows[0] != _HEADER:
        raise SetupError(f"{path}, line 1: the header must be {','.join(_HEADER)}")
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != 3 or row[1] not in SCENES or not (row[2].isascii() and row[2].isdigit()):
            raise SetupError(
                f"{path}, line {line}: must be a scene, {' or '.join(SCENES)}, and a number"
            )
        scene, split, number = row[0], row[1], int(row[2])
        if number >= SCENES[split]:
            raise SetupError(f"{path}, line {line}: {split} ends at {SCENES[split] - 1}")
        if scene in sequences or (split, number) in sequences.values():
            raise SetupError(f"{path}, line {line}: the scene or its number was listed before")
        sequences[scene] = split, number
    return sequences
