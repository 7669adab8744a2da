"""Open a log by kind: what the command lines' ``--source`` and ``--root`` mean."""

from __future__ import annotations

from pathlib import Path

from datasets.annotations import AnnotatedSource
from datasets.errors import SetupError
from datasets.sources import SOURCES
from datasets.sources.folder import FolderSource
from datasets.sources.nuscenes import NuScenesSource
from datasets.sources.synthetic.city import MARKER, CityConfig, city_splits, ensure_city
from datasets.sources.waymo.source import WaymoSource
from datasets.splits import Labelled
from datasets.storage.remote_path import RemotePath, remote_or_local

DEFAULT_CITY = CityConfig(labeled_scenes=4, unlabeled_scenes=8, val_scenes=3)
"""What the demo generates. The shipped teacher was trained on its labelled scenes and 17 more of
the same labelled share and calibrated on a further 3, never on an unlabelled or validation one."""


def open_source(
    kind: str,
    root: Path,
    *,
    past_sweeps: int,
    future_sweeps: int = 0,
    labelled: Labelled | None = None,
    version: str | None = None,
) -> AnnotatedSource:
    """The log at ``root``, a folder or ``s3://BUCKET/...`` (``RemotePath``); the built-in city is
    generated there on first use.

    Args:
        labelled: which training scenes ``labeled`` names (``parse_labelled``); None: as the log
            says, or else the published 20 %.
        version: table folder of a nuScenes root that has several.

    Raises:
        SetupError: unknown kind, or no such log at ``root``.

    Scenes whose units cannot be raise ``SceneError`` (``datasets.plausibility``).
    """
    if kind not in SOURCES:
        raise SetupError(f"unknown source {kind!r}; known: {', '.join(SOURCES)}")
    if version is not None and kind != "nuscenes":
        raise SetupError(f"--version {version}: only a nuScenes root has several")
    if kind == "nuscenes":
        return NuScenesSource(
            root,
            past_sweeps=past_sweeps,
            future_sweeps=future_sweeps,
            labelled=labelled,
            refuse_impossible=True,
            version=version,
        )
    if kind == "folder":
        return FolderSource(
            root,
            past_sweeps=past_sweeps,
            future_sweeps=future_sweeps,
            labelled=labelled,
            refuse_impossible=True,
        )
    if kind == "waymo":
        return WaymoSource(
            root,
            past_sweeps=past_sweeps,
            future_sweeps=future_sweeps,
            labelled=labelled,
            refuse_impossible=True,
        )
    root = remote_or_local(root)
    if not (root / MARKER).is_file():  # any finished city will do, whatever its size
        if isinstance(root, RemotePath):
            raise SetupError(f"{root}: no {MARKER} there, and a city is made on a disk only")
        ensure_city(root, DEFAULT_CITY)
    return NuScenesSource(
        root,
        past_sweeps=past_sweeps,
        future_sweeps=future_sweeps,
        splits=city_splits(root),
        labelled=labelled,
        refuse_impossible=True,
        name="city",
        licence="CC0-1.0 (synthetic)",
    )
