"""Training state on disk, from which a stopped run resumes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.errors import SetupError, UnwritableError
from datasets.files.bounded_files import parsing
from datasets.files.replacing import replacing
from models.checkpoints.pickled import load_pickled

DATA = "data"
"""Of a run's identity: what its samples are made from (``FrameDataset.data``)."""
KEYS = {"step", "identity", "threads"}
"""Of every state; what it lacks of the rest is noticed where it is used."""
SCENES_NAMED = 3


def load_state(folder: Path, identity: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """Step and state of a stopped run in this folder, or ``(0, None)``.

    Raises:
        SetupError: the folder holds a run with another configuration or on other data, or the
            state is damaged.
    """
    path = folder / "state.pt"
    if not path.exists():
        return 0, None
    with restoring(folder):
        state = load_pickled(path)
        if not isinstance(state, dict):
            raise ValueError(f"it is a {type(state).__name__}")
        if lacks := sorted(KEYS - state.keys()):
            raise ValueError(f"it lacks {', '.join(lacks)}")
        step, stored = state["step"], state["identity"]
        if not isinstance(step, int) or step < 0 or not isinstance(stored, dict):
            raise ValueError("its step or the run's identity is none")
        if stored != identity:
            raise SetupError(
                f"{path}: of a run with another configuration ({_in_words(stored, identity)}); "
                "choose another --out"
            )
        if state["threads"] != torch.get_num_threads():
            warnings.warn(
                f"{path}: made with {state['threads']} threads, continued with "
                f"{torch.get_num_threads()}: weights may differ in their last bits",
                stacklevel=3,
            )
    return step, state


@contextlib.contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Whatever a damaged state makes torch raise, as a ``SetupError`` that says what to do."""
    try:
        with parsing(SetupError):
            yield
    except SetupError:  # an UnwritableError is an OSError, too
        raise
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise SetupError(
            f"{folder / 'state.pt'}: a damaged training state: {reason}; delete it to begin again, "
            "choose another --out"
        ) from error


def _in_words(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """What differs: dotted names of options, and kinds of data with their scenes."""
    differing = _differing(stored, current)
    words = [".".join(name) for name in differing if name[0] != "data"]
    if DATA not in stored and DATA in current:
        words.append("its log and labels are not known: an earlier version made it")
        return ", ".join(words)
    scenes: dict[str, list[str]] = {}
    for name in differing:
        if name[0] == DATA:
            scenes.setdefault(".".join(name[1:2]), []).extend(name[2:])
    for kind, names in scenes.items():
        rest_text = f" and {len(names) - SCENES_NAMED} more" if len(names) > SCENES_NAMED else ""
        scenes_text = f": scene {', '.join(names[:SCENES_NAMED])}{rest_text}" if names else ""
        words.append(f"the {kind} {'differ' if kind.endswith('s') else 'differs'}{scenes_text}")
    return ", ".join(words)


def _differing(stored: Any, current: Any, name: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Names of what differs between two JSON values."""
    if isinstance(stored, dict) and isinstance(current, dict):
        keys = sorted(stored.keys() | current.keys())
        return [
            path
            for key in keys
            for path in _differing(stored.get(key), current.get(key), (*name, key))
        ]
    return [] if stored == current else [name]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Replaces the state on disk in one step.

    Raises:
        UnwritableError: it cannot be written; the state before stays.
    """
    try:
        with replacing(path) as partial:
            torch.save(state, partial)
    except (OSError, RuntimeError) as error:  # torch's own errors are RuntimeErrors
        reason = (getattr(error, "strerror", None) or str(error)).split("\n")[0]
        raise UnwritableError(
            f"{path}: cannot be written: {reason}; once it can be, the same command goes on"
        ) from error
