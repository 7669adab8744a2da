"""Open a log by kind: what the command lines' ``--source`` and ``--root`` mean."""

from __future__ import annotations

from collections.abc import Callable
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
"""What the demo generates. The shipped teacher was trained on its labeled scenes and others of the
same seed, never on an unlabeled or validation one, and calibrated on a city of another seed."""


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
        SetupError: unknown kind, or no such log at ``root``; names the kind that lies there.

    Scenes whose units cannot be raise ``SceneError`` (``datasets.plausibility``).
    """
    if kind not in SOURCES:
        raise SetupError(f"unknown source {kind!r}; known: {', '.join(SOURCES)}")
    if version is not None and kind != "nuscenes":
        raise SetupError(f"--version {version}: only a nuScenes root has several")
    try:
        return _open(
            kind,
            root,
            past_sweeps=past_sweeps,
            future_sweeps=future_sweeps,
            labelled=labelled,
            version=version,
        )
    except SetupError as error:
        if (hint := _hint(kind, remote_or_local(root))) and "--source" not in str(error):
            raise SetupError(f"{error}; {hint}") from error
        raise


def _hint(kind: str, root: Path | RemotePath) -> str:
    """What lies at a local root if it is no log of this kind; empty if that is unknown."""
    if isinstance(root, RemotePath):
        return ""
    signs = {
        "folder": ("log.json",),
        "city": (MARKER,),
        "nuscenes": ("v1.0-*/scene.json",),
        "waymo": ("*.tfrecord", "*/*.tfrecord", "vehicle_pose/*.parquet"),
        "pandaset": ("annotations/cuboids*", "[0-9][0-9][0-9]/annotations/cuboids*"),
    }
    try:
        kinds = [name for name, patterns in signs.items() if any(map(_any(root), patterns))]
    except OSError:
        return ""
    if not kinds or kind in kinds:
        return ""
    if kinds == ["pandaset"]:
        return "it looks like PandaSet: convert it with scripts/convert_pandaset.py"
    return f"it looks like a log of --source {kinds[0]}"


def _any(root: Path) -> Callable[[str], bool]:
    return lambda pattern: next(root.glob(pattern), None) is not None


def _open(
    kind: str,
    root: Path,
    *,
    past_sweeps: int,
    future_sweeps: int,
    labelled: Labelled | None,
    version: str | None,
) -> AnnotatedSource:
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
