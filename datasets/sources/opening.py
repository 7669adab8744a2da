"""Open a log by kind: what the command lines' ``--source`` and ``--root`` mean."""

from __future__ import annotations

from pathlib import Path

from datasets.errors import SetupError
from datasets.sources.nuscenes import NuScenesSource
from datasets.sources.synthetic import CITY_FILE, DEFAULT_CITY, city_splits, ensure_city

SOURCES = ("city", "nuscenes")


def open_source(
    kind: str, root: Path, *, past_sweeps: int, future_sweeps: int = 0
) -> NuScenesSource:
    """The log at ``root``; the built-in city is generated there on first use.

    Raises:
        SetupError: unknown kind, or no such log at ``root``.
    """
    if kind not in SOURCES:
        raise SetupError(f"unknown source {kind!r}; known: {', '.join(SOURCES)}")
    splits = None
    if kind == "city":
        if not (root / CITY_FILE).exists():  # any finished city will do, whatever its size
            ensure_city(root, DEFAULT_CITY)
        splits = city_splits(root)
    return NuScenesSource(root, past_sweeps=past_sweeps, future_sweeps=future_sweeps, splits=splits)
