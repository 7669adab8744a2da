"""Labeled split: the paper's draw of a percentage, or a user's list."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from datasets.errors import SetupError
from datasets.files.bounded_files import read_bytes
from datasets.names import did_you_mean

MAX_NAMES_BYTES = 16 << 20
"""Of a file of scene names."""
Labelled = float | tuple[str, ...]
"""A share 0..1 of the training scenes, or scene ids."""
PUBLISHED_SHARE = 0.2


def parse_labelled(text: str) -> Labelled:
    """What a command line says: a percentage such as ``20`` or ``20%``, or a file that names one
    scene a line.

    Raises:
        SetupError: neither, or the percentage is not within 0..100.
    """
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        try:
            lines = read_names(Path(text))
        except (OSError, ValueError) as error:
            raise SetupError(
                f"--labeled {text[:200]}: neither a percentage nor a readable file of scene names "
                f"({getattr(error, 'strerror', None) or error})"
            ) from error
        if not lines:
            raise SetupError(f"{text}: names no scene") from None
        return tuple(lines)
    if not 0 <= percent <= 100:
        raise SetupError(f"--labeled {text}: a percentage lies in 0..100")
    return percent / 100


def read_names(path: Path) -> list[str]:
    """The words of a file. Raises ``OSError`` or ``ValueError`` where it cannot be read."""
    return read_bytes(path, MAX_NAMES_BYTES, "MAX_NAMES_BYTES").decode("utf-8").split()


def divide(
    tokens: Mapping[str, str], labelled: Labelled
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labeled and other scene ids, both in the order of ``tokens`` (scene id -> token).

    Raises:
        SetupError: a scene of the list is not among these.
    """
    if isinstance(labelled, float):
        drawn = set(labelled_subset(list(tokens.values()), labelled))
        chosen = {scene for scene, token in tokens.items() if token in drawn}
    else:
        chosen = set(labelled)
        if unknown := sorted(chosen - tokens.keys()):
            raise SetupError(f"labeled scenes that the log does not have: {', '.join(unknown)}")
    return (
        tuple(scene for scene in tokens if scene in chosen),
        tuple(scene for scene in tokens if scene not in chosen),
    )


def labelled_subset(tokens: Sequence[str], share: float) -> tuple[str, ...]:
    """Scene tokens that count as labeled: ``random.seed(42)``, sample of the sorted tokens.

    This is the published protocol (EFFOcc ``nuscenes_dataset_occ.py``), so equal shares of the
    700 training scenes name the same scenes.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies in 0..1, got {share}")
    ordered = sorted(tokens)
    return tuple(random.Random(42).sample(ordered, round(share * len(ordered))))


def scenes_named(
    split: str, splits: Mapping[str, tuple[str, ...]], scene_ids: Collection[str], *, where: object
) -> tuple[str, ...]:
    """Scenes of a split, whose name may be spelled the British way, or of a list with commas.

    Args:
        where: the log, for the message.

    Raises:
        SetupError: it names neither a split nor scenes.
    """
    for name in (split, split.replace("labelled", "labeled")):
        if name in splits:
            return splits[name]
    names = tuple(split.split(","))
    if all(name in scene_ids for name in names):
        return names
    raise SetupError(
        f"{where}: unknown split {split!r}; it has {', '.join(sorted(splits))}, "
        f"or name scenes separated by commas{did_you_mean(split, [*splits, *scene_ids])}"
    )
