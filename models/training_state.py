"""The state of a training on disk, from which a stopped run goes on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.errors import SetupError, UnwritableError


def load_state(folder: Path, identity: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """Step and state of a stopped run in this folder, or ``(0, None)``.

    Raises:
        SetupError: the folder holds a run with another configuration.
    """
    path = folder / "state.pt"
    if not path.exists():
        return 0, None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        raise SetupError(
            f"{path}: of a run with another configuration "
            f"({', '.join(_differing(state['identity'], identity))}); choose another --out"
        )
    if state["threads"] != torch.get_num_threads():
        warnings.warn(
            f"{path}: made with {state['threads']} threads, continued with "
            f"{torch.get_num_threads()}: weights may differ in their last bits",
            stacklevel=2,
        )
    return int(state["step"]), state


def _differing(there: Any, here: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two JSON values."""
    if isinstance(there, dict) and isinstance(here, dict):
        dot = "." if name else ""
        keys = sorted(there.keys() | here.keys())
        return [
            found
            for key in keys
            for found in _differing(there.get(key), here.get(key), f"{name}{dot}{key}")
        ]
    return [] if there == here else [name]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Replaces the state on disk in one step.

    Raises:
        UnwritableError: it cannot be written; the state before stays.
    """
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        why = (getattr(error, "strerror", None) or str(error)).split("\n")[0]
        raise UnwritableError(f"{path}: cannot be written (is the disk full?): {why}") from error
