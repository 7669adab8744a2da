"""The store of pseudo-labels: zarr format 3, one group per scene, one writer and one commit each.

Layout::

    labels.zarr/               root attributes: the ``StoreHeader``
      scenes/<scene id>/       visible only with the attribute ``committed`` (written last)
        semantics, confidence, mask        (T, X, Y, Z) uint8
        hits, passes                       (T, X, Y, Z) uint8, saturating; optional
        flow                               (T, X, Y, Z, 2) float16 m/s; where the header says so
        timestamp_us (T,) int64
        T_global_ego (T, 4, 4) float64, or T_global_lidar where the grid lies in the LiDAR's frame
        attributes: frame tokens, counts, hash of inputs, sha256 of every array's values
      quarantine/<scene id>/   attributes: why the scene has no labels

Voxel arrays have one chunk per frame and one shard per scene, so that a frame is one small read
and a scene is a handful of files. A shard is written whole, in one go, by one process: two
writers inside a shard lose data. A scene is built in ``.partial/`` and renamed into place, which
makes the commit atomic on a local disk. Equal labels give equal bytes: nothing of the machine,
the time or the place goes into a store. No consolidated metadata, no lock.

``confidence`` holds indices into the header's table of levels, and is 0 where the mask says that
neither LiDAR nor a camera observed the voxel: nothing may use a label there.

Legend: T frames of a scene; X, Y, Z axes of the grid (``GridFrame``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
from datasets.store_header import FORMAT, FORMAT_VERSIONS, StoreHeader, difference
from datasets.taxonomy import IGNORE_ID, Taxonomy
from datasets.voxel_labels import (
    VOXEL_ARRAYS,
    FrameLabels,
    GridFrame,
    MaskBit,
    SceneLabels,
    check_scene_id,
    pose_array,
)

__all__ = [
    "FrameLabels",
    "GridFrame",
    "LabelStore",
    "MaskBit",
    "SceneLabels",
    "StoreHeader",
    "StoredScene",
]

ZSTD_LEVEL = 5


class StoredScene:
    """A committed scene, read frame by frame. Picklable; opens its arrays where it is used.

    Attributes:
        timestamps_us: (T,) int64.
        T_global_grid: (T, 4, 4) float64, metres; of the frame that the store's grid lies in.
        attributes: counts, checksums and tokens as stored.
    """

    def __init__(self, path: Path, attributes: dict[str, Any], frame: GridFrame) -> None:
        self.path = path
        self.attributes = attributes
        self.scene_id = path.name
        self.frame_tokens: tuple[str, ...] = tuple(attributes["frame_tokens"])
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self.timestamps_us: NDArray[np.int64] = self._read("timestamp_us", ...)
        self.T_global_grid: NDArray[np.float64] = self._read(pose_array(frame), ...)

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
            T_global_grid=self.T_global_grid[k],
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
            frames = range(len(self)) if name in VOXEL_ARRAYS else [...]
            if sha256_of(self._read(name, k) for k in frames) != sha256:
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
    def open(
        cls,
        path: Path,
        *,
        expect_grid: VoxelGrid | None = None,
        expect_taxonomy: Taxonomy | None = None,
        expect_frame: GridFrame | None = None,
    ) -> LabelStore:
        """Open an existing store.

        Raises:
            SetupError: it is missing, not a label store, of another format version, damaged, or
                its grid, its classes or the frame that the grid lies in is not the expected one.
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
        if (version := attributes.get("format_version")) not in FORMAT_VERSIONS:
            known = " and ".join(str(v) for v in FORMAT_VERSIONS)
            raise SetupError(
                f"label store {path}: format version {version}, this code reads {known}"
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
        if expect_taxonomy is not None and header.taxonomy != expect_taxonomy:
            raise SetupError(
                f"label store {path}: its classes are {header.taxonomy.name}, "
                f"expected {expect_taxonomy.name}"
            )
        if expect_frame is not None and header.frame != expect_frame:
            raise SetupError(
                f"label store {path}: its voxels lie in the {header.frame} frame, "
                f"expected the {expect_frame} frame"
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
            what = difference(store.header, header)
            raise SetupError(f"label store {path}: made by another job ({what}); name a new place")
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
        return StoredScene(self.path / "scenes" / scene_id, attributes, self.header.frame)

    def write_scene(self, labels: SceneLabels) -> None:
        """Write and commit a scene. Where another writer was first, its scene stays.

        Raises:
            ValueError: another grid or frame, flow is there or not against the header, an unknown
                class id, a confidence beyond the levels, or a velocity that is not finite.
            OSError: the disk is full or gone; nothing becomes visible.
        """
        self._check(labels)
        if labels.scene_id not in self:
            partial = new_partial(self.path, labels.scene_id)
            try:
                _write_arrays(partial, labels, self.header.taxonomy.n_classes)
                final = self.path / "scenes" / labels.scene_id
                commit_folder(partial, final, is_committed=lambda: labels.scene_id in self)
            finally:
                remove_folder(partial)
        self._clear_quarantine(labels.scene_id)

    def _check(self, labels: SceneLabels) -> None:
        """Raises ``ValueError`` for labels that do not fit the header."""
        header, scene_id = self.header, labels.scene_id
        grid = header.grid.shape
        if labels.semantics.shape[1:] != grid:
            raise ValueError(f"{scene_id}: grid {labels.semantics.shape[1:]}, not {grid}")
        if labels.frame != header.frame:
            raise ValueError(f"{scene_id}: in the {labels.frame} frame, not {header.frame}")
        if (labels.flow is not None) != header.flow:
            raise ValueError(f"{scene_id}: flow is {'absent' if header.flow else 'unexpected'}")
        for k, semantics in enumerate(labels.semantics):  # a frame may be 40 MB
            known = (semantics < header.taxonomy.n_classes) | (semantics == IGNORE_ID)
            if not known.all():
                raise ValueError(f"{scene_id}: class id {semantics[~known][0]} is unknown")
            if (top := int(labels.confidence[k].max())) >= len(header.levels):
                raise ValueError(f"{scene_id}: {top} is beyond {len(header.levels)} levels")
            if labels.flow is not None and not np.isfinite(labels.flow[k]).all():
                raise ValueError(f"{scene_id}: frame {k}: a velocity is not finite")

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
            dimension_names=("t", "x", "y", "z", "v")[: array.ndim]
            if name in VOXEL_ARRAYS
            else None,
            zarr_format=3,
        )[...] = array
        sha256[name] = sha256_of([array])
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


def _describe(grid: VoxelGrid) -> str:
    shape = "x".join(str(n) for n in grid.shape)
    return f"{shape} of {list(grid.size_m)} m from {list(grid.min_m)} m"
