"""The store of pseudo-labels: zarr format 3, one group per scene, one writer and one commit each.

Layout, format version 1::

    labels.zarr/               root attributes: the ``StoreHeader``
      scenes/<scene id>/       visible only with the attribute ``committed`` (written last)
        semantics, confidence, mask        (T, X, Y, Z) uint8
        hits, passes                       (T, X, Y, Z) uint8, saturating; optional
        timestamp_us (T,) int64, T_global_ego (T, 4, 4) float64
        attributes: frame tokens, counts, hash of inputs, sha256 of every array's values
      quarantine/<scene id>/   attributes: why the scene has no labels

Voxel arrays have one chunk per frame and one shard per scene, so that a frame is one small read
and a scene is a handful of files. A shard is written whole, in one go, by one process: two
writers inside a shard lose data. A scene is built in ``.partial/`` and renamed into place, which
makes the commit atomic on a local disk. Equal labels give equal bytes: nothing of the machine,
the time or the place goes into a store. No consolidated metadata, no lock.

``confidence`` holds indices into the header's table of levels, and is 0 where the mask says that
neither LiDAR nor a camera observed the voxel: nothing may use a label there.

Legend: T frames of a scene; X forward, Y left, Z up.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from datasets.atomic_groups import (
    commit_folder,
    new_partial,
    read_group,
    remove_folder,
    sha256_of,
    subfolders,
    sweep_partial,
    sync_tree,
    write_group,
)
from datasets.errors import SceneError, SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import IGNORE_ID, Taxonomy
from datasets.voxel_labels import (
    VOXEL_ARRAYS,
    FrameLabels,
    MaskBit,
    SceneLabels,
    check_scene_id,
)

__all__ = [
    "FORMAT_VERSION",
    "FrameLabels",
    "LabelStore",
    "MaskBit",
    "SceneLabels",
    "StoreHeader",
    "StoredScene",
]

FORMAT = "occupancy-labels"
FORMAT_VERSION = 1
ZSTD_LEVEL = 5
EGO_FRAME = "ego at the LiDAR key-frame: X forward, Y left, Z up"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHeader:
    """What holds for every scene of a store.

    Attributes:
        levels: P(label is right) of each confidence level, ascending, 0..1.
        licence: licence of the source data.
        provenance: JSON values: whatever determined the labels (weights hash, resolved
            configuration, code version, calibration, source), nothing of the machine.
        run_id: hash of the above; a store takes scenes of one run only.

    Raises:
        ValueError: the levels are not 1..256 ascending probabilities, or there is no run id.
    """

    grid: VoxelGrid
    taxonomy: Taxonomy
    levels: tuple[float, ...]
    licence: str
    provenance: dict[str, Any]
    run_id: str
    frame: str = EGO_FRAME

    def __post_init__(self) -> None:
        v = np.asarray(self.levels, np.float64)
        if not (
            1 <= v.size <= 256 and (v >= 0).all() and (v <= 1).all() and (v[1:] > v[:-1]).all()
        ):
            raise ValueError(f"levels must be 1..256 ascending values in 0..1: {self.levels}")
        if not self.run_id:
            raise ValueError("the run id is empty")

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "run_id": self.run_id,
            "frame": self.frame,
            "grid": self.grid.to_json(),
            "taxonomy": self.taxonomy.to_json(),
            "levels": list(self.levels),
            "licence": self.licence,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StoreHeader:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        return cls(
            grid=VoxelGrid.from_json(data["grid"]),
            taxonomy=Taxonomy.from_json(data["taxonomy"]),
            levels=tuple(float(v) for v in data["levels"]),
            licence=str(data["licence"]),
            provenance=dict(data["provenance"]),
            run_id=str(data["run_id"]),
            frame=str(data["frame"]),
        )


class StoredScene:
    """A committed scene, read frame by frame. Picklable; opens its arrays where it is used.

    Attributes:
        timestamps_us: (T,) int64.
        T_global_ego: (T, 4, 4) float64, metres.
        attributes: counts, checksums and tokens as stored.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self.attributes = attributes
        self.scene_id = path.name
        self.frame_tokens: tuple[str, ...] = tuple(attributes["frame_tokens"])
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self.timestamps_us: NDArray[np.int64] = self._read("timestamp_us", ...)
        self.T_global_ego: NDArray[np.float64] = self._read("T_global_ego", ...)

    def __getstate__(self) -> dict[str, Any]:
        # zarr's event loop does not travel between processes
        return {**self.__dict__, "_arrays": {}}

    def __len__(self) -> int:
        return len(self.frame_tokens)

    def frame(self, k: int) -> FrameLabels:
        """Labels of frame k; reads one chunk per array.

        Raises:
            IndexError: k is not in 0..len - 1.
            SceneError: the chunk cannot be read or its checksum is wrong.
        """
        if not 0 <= k < len(self):
            raise IndexError(f"scene {self.scene_id} has {len(self)} frames, asked for {k}")
        voxels = {name: self._read(name, k) for name in VOXEL_ARRAYS if name in self._checksums}
        return FrameLabels(
            token=self.frame_tokens[k],
            timestamp_us=int(self.timestamps_us[k]),
            T_global_ego=self.T_global_ego[k],
            **voxels,
        )

    def index_of(self, token: str) -> int:
        """Position of a frame. Raises ``KeyError`` for an unknown token."""
        try:
            return self.frame_tokens.index(token)
        except ValueError:
            raise KeyError(f"scene {self.scene_id} has no frame {token}") from None

    def verify(self) -> None:
        """Compare every array with the checksum taken when it was written.

        Raises:
            SceneError: an array cannot be read or differs.
        """
        for name, sha256 in self._checksums.items():
            if sha256_of(self._read(name, ...)) != sha256:
                raise SceneError(where=f"scene {self.scene_id}", rule=f"{name} was altered on disk")

    @property
    def _checksums(self) -> dict[str, str]:
        return cast(dict[str, str], self.attributes["sha256"])

    def _read(self, name: str, selection: Any) -> Any:
        try:
            if name not in self._arrays:
                store = LocalStore(self.path / name, read_only=True)
                self._arrays[name] = zarr.open_array(store, mode="r", zarr_format=3)
            return np.asarray(self._arrays[name][selection])
        except Exception as error:  # zarr and its codecs raise many kinds
            frame = "" if selection is ... else str(selection)
            rule = f"{name} cannot be read: {error}".split("\n")[0]
            raise SceneError(where=f"label store {self.path}", frame=frame, rule=rule) from error


class LabelStore:
    """A store on a local or shared file system. Holds no open file; picklable."""

    def __init__(self, path: Path, header: StoreHeader) -> None:
        """Use ``create``, ``open`` or ``open_or_create`` instead."""
        self.path = path
        self.header = header

    @classmethod
    def create(cls, path: Path, header: StoreHeader) -> LabelStore:
        """Make an empty store.

        Raises:
            SetupError: something is there already, or the place cannot be written.
        """
        path = Path(path)
        try:
            if not _vacant(path):
                raise SetupError(f"label store {path}: something else is there; name a new place")
            (path / "scenes").mkdir(parents=True, exist_ok=True)
            write_group(path / "scenes", {})
            write_group(path, header.to_json())  # last: this makes it a store
        except OSError as error:
            raise SetupError(f"label store {path}: cannot be created: {error.strerror}") from error
        return cls(path, header)

    @classmethod
    def open(cls, path: Path, *, expect_grid: VoxelGrid | None = None) -> LabelStore:
        """Open an existing store.

        Raises:
            SetupError: it is missing, not a label store, of another format version, damaged, or
                its grid is not the expected one.
        """
        path = Path(path)
        if not path.is_dir():
            raise SetupError(f"label store {path}: there is no such folder")
        if not (path / "zarr.json").is_file():
            raise SetupError(f"label store {path}: not a label store (it has no zarr.json)")
        try:
            attributes = read_group(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(f"label store {path}: damaged zarr.json: {error}") from error
        if attributes.get("format") != FORMAT:
            raise SetupError(f"label store {path}: not a label store (another kind of zarr group)")
        if (version := attributes.get("format_version")) != FORMAT_VERSION:
            raise SetupError(
                f"label store {path}: format version {version}, this code reads {FORMAT_VERSION}"
            )
        try:
            header = StoreHeader.from_json(attributes)
        except (KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise SetupError(f"label store {path}: damaged attributes: {why}") from error
        if expect_grid is not None and header.grid != expect_grid:
            raise SetupError(
                f"label store {path}: its grid is {_describe(header.grid)}, "
                f"expected {_describe(expect_grid)}"
            )
        return cls(path, header)

    @classmethod
    def open_or_create(cls, path: Path, header: StoreHeader) -> LabelStore:
        """Continue a store of the same run, or make it; sweeps up what killed writers left.

        Raises:
            SetupError: as ``open`` and ``create``, or the store was made by another job.
        """
        path = Path(path)
        if _vacant(path):
            return cls.create(path, header)
        store = cls.open(path, expect_grid=header.grid)
        if store.header.run_id != header.run_id:
            difference = _difference(store.header.to_json(), header.to_json())
            raise SetupError(
                f"label store {path}: made by another job ({difference}); name a new place"
            )
        sweep_partial(path)
        return store

    def scene_ids(self) -> tuple[str, ...]:
        """Committed scenes, sorted."""
        return tuple(self._committed())

    def __contains__(self, scene_id: object) -> bool:
        return isinstance(scene_id, str) and self._attributes(scene_id) is not None

    def scene(self, scene_id: str) -> StoredScene:
        """A committed scene.

        Raises:
            KeyError: there is none of that id.
            SceneError: its arrays cannot be read.
        """
        attributes = self._attributes(scene_id)
        if attributes is None:
            raise KeyError(f"label store {self.path} has no scene {scene_id}")
        return StoredScene(self.path / "scenes" / scene_id, attributes)

    def write_scene(self, labels: SceneLabels) -> None:
        """Write and commit a scene. Where another writer was first, its scene stays.

        Raises:
            ValueError: another grid, an unknown class id, or a confidence beyond the levels.
            OSError: the disk is full or gone; nothing becomes visible.
        """
        grid = self.header.grid.shape
        if labels.semantics.shape[1:] != grid:
            raise ValueError(f"{labels.scene_id}: grid {labels.semantics.shape[1:]}, not {grid}")
        known = (labels.semantics < self.header.taxonomy.n_classes) | (
            labels.semantics == IGNORE_ID
        )
        if not known.all():
            raise ValueError(
                f"{labels.scene_id}: class id {labels.semantics[~known][0]} is unknown"
            )
        if (top := int(labels.confidence.max())) >= len(self.header.levels):
            raise ValueError(f"{labels.scene_id}: {top} is beyond {len(self.header.levels)} levels")
        if labels.scene_id not in self:
            partial = new_partial(self.path, labels.scene_id)
            try:
                _write_arrays(partial, labels, self.header.taxonomy.n_classes)
                final = self.path / "scenes" / labels.scene_id
                commit_folder(partial, final, is_committed=lambda: labels.scene_id in self)
            finally:
                remove_folder(partial)
        self._clear_quarantine(labels.scene_id)

    def quarantine(self, scene_id: str, reason: str, detail: str) -> None:
        """Note why a scene has no labels. A later ``write_scene`` clears the note."""
        check_scene_id(scene_id)
        folder = self.path / "quarantine" / scene_id
        folder.mkdir(parents=True, exist_ok=True)
        write_group(folder.parent, {})
        write_group(folder, {"reason": reason, "detail": detail})

    def quarantined(self) -> dict[str, dict[str, str]]:
        """Scenes set aside: id -> ``reason`` (one line) and ``detail``, sorted by id."""
        found = {}
        for scene_id in subfolders(self.path / "quarantine"):
            with contextlib.suppress(FileNotFoundError):
                note = read_group(self.path / "quarantine" / scene_id)
                found[scene_id] = {"reason": str(note["reason"]), "detail": str(note["detail"])}
        return found

    def _committed(self) -> Iterator[str]:
        return (name for name in subfolders(self.path / "scenes") if name in self)

    def _attributes(self, scene_id: str) -> dict[str, Any] | None:
        try:
            attributes = read_group(self.path / "scenes" / scene_id)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return attributes if attributes.get("committed") is True else None

    def _clear_quarantine(self, scene_id: str) -> None:
        folder = self.path / "quarantine"
        remove_folder(folder / scene_id)
        if folder.is_dir() and not subfolders(folder):
            (folder / "zarr.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write_arrays(folder: Path, labels: SceneLabels, n_classes: int) -> None:
    """Write a whole scene into an empty folder; its group's attributes, the marker, come last."""
    sha256 = {}
    for name, array in labels.arrays().items():
        chunks = (1, *array.shape[1:]) if name in VOXEL_ARRAYS else array.shape
        zarr.create_array(
            store=LocalStore(folder / name),
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunks,
            shards=array.shape if name in VOXEL_ARRAYS else None,
            compressors=[ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
            fill_value=0,
            dimension_names=("t", "x", "y", "z") if name in VOXEL_ARRAYS else None,
            zarr_format=3,
        )[...] = array
        sha256[name] = sha256_of(array)
    mask = labels.mask
    counts: dict[str, Any] = {"frames": len(labels), "voxels": mask.size}
    for bit in MaskBit:
        counts[str(bit.name).lower()] = int(np.count_nonzero(mask & bit))
    trusted = labels.semantics[mask & MaskBit.TRUSTED > 0]
    by_class = np.bincount(trusted, minlength=n_classes)[:n_classes]
    counts["trusted_by_class"] = [int(n) for n in by_class]
    sync_tree(folder)
    write_group(
        folder,
        {
            "scene_id": labels.scene_id,
            "frame_tokens": list(labels.frame_tokens),
            "inputs": labels.inputs,
            "counts": counts,
            "sha256": sha256,
            "committed": True,
        },
    )


def _vacant(path: Path) -> bool:
    """Nothing is there, or only what a killed ``create`` leaves."""
    if not path.exists():
        return True
    if not path.is_dir():
        return False
    names = {p.name for p in path.iterdir() if not p.name.startswith(".zarr.json.")}
    return names <= {"scenes"} and not any(subfolders(path / "scenes"))


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What tells two headers apart, in a few words."""
    a, b = _flat(there), _flat(json.loads(json.dumps(here)))
    keys = [k for k in sorted(a.keys() | b.keys()) if k != "run_id" and a.get(k) != b.get(k)]
    shown = [f"{k} {_short(a.get(k))} there, {_short(b.get(k))} here" for k in keys or ["run_id"]]
    return "; ".join(shown[:3]) + (f"; and {len(shown) - 3} more" if len(shown) > 3 else "")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as dotted names -> plain values."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    dot = "." if prefix else ""
    return {k: v for name, x in value.items() for k, v in _flat(x, prefix + dot + name).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _describe(grid: VoxelGrid) -> str:
    shape = "x".join(str(n) for n in grid.shape)
    return f"{shape} of {list(grid.size_m)} m from {list(grid.min_m)} m"
