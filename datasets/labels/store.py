"""The store of pseudo-labels: zarr format 3, one group per scene, one writer and one commit each.

Layout::

    labels.zarr/               root attributes: the ``StoreHeader``
      scenes/<scene id>/       visible only with the attribute ``committed`` (written last)
        semantics, confidence, mask        (T, X, Y, Z) uint8
        hits, passes                       (T, X, Y, Z) uint8, saturating; optional
        flow                               (T, X, Y, Z, 2) float16 m/s; where the header says so
        instances                          (T, X, Y, Z) uint16, numbers of objects; optional
        timestamp_us (T,) int64
        T_global_ego (T, 4, 4) float64, or T_global_lidar where the grid lies in the LiDAR's frame
        attributes: frame tokens, counts, statistics, what held-out LiDAR says of a few frames,
                               hash of inputs, sha256 of every array's values and document, its
                               files and their sizes, a digest of all this
      quarantine/<scene id>/   attributes: why the scene has no labels; an id that cannot be a
                               folder's name is stated there, and a hash stands for it

Voxel arrays have one chunk per frame and a shard per 32 MiB (``scene_writer``), so that a frame is
one small read and a scene is a handful of files. A shard is written whole, in one go, by one
process: two writers inside a shard lose data. How a scene becomes visible in one step, in a folder
and in an object store, is told in ``places``. Equal labels give equal bytes: but for the versions
of the software in the header, nothing of the machine, the time or the place goes into a store. No
consolidated metadata, no lock.

``confidence`` holds indices into the header's table of levels, and is 0 where the mask says that
neither LiDAR nor a camera observed the voxel: nothing may use a label there.

Legend: T frames of a scene; X, Y, Z axes of the grid (``GridFrame``).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError, UnreadableError
from datasets.files.bounded_files import MAX_ARRAY_BYTES, parsing
from datasets.files.seals import DIGEST, fault_of_seal, sealed
from datasets.files.store_path import StorePath
from datasets.geometry.grid import VoxelGrid
from datasets.labels.header import FORMAT, FORMAT_VERSIONS, StoreHeader, header_difference
from datasets.labels.scene_writer import SceneWriter, sha256_of
from datasets.labels.shard_reader import Bounded, ShardedFrames, check_layout
from datasets.labels.voxel_labels import (
    VOXEL_ARRAYS,
    FrameLabels,
    GridFrame,
    MaskBit,
    SceneLabels,
    Voxels,
    pose_array,
)
from datasets.names import check_scene_id, fault_of_scene_id
from datasets.storage.atomic_files import group_document
from datasets.storage.backend import (
    GROUP,
    StorageBackend,
    as_backend,
    as_os_error,
    read_group,
    write_group,
    writing,
)
from datasets.taxonomy import Taxonomy

__all__ = [
    "FrameLabels",
    "GridFrame",
    "LabelStore",
    "MaskBit",
    "SceneLabels",
    "StoreHeader",
    "StoredScene",
]

SCENES, QUARANTINE = "scenes", "quarantine"


class StoredScene:
    """A committed scene, read frame by frame. Picklable; opens its arrays where it is used.

    Attributes:
        timestamps_us: (T,) int64.
        T_global_grid: (T, 4, 4) float64, metres; of the frame that the store's grid lies in.
        inputs: fingerprint of what the scene was labeled from; empty where older code did not say.
        attributes: counts, checksums and tokens as stored.
    """

    def __init__(
        self, at: StorageBackend, scene_id: str, attributes: dict[str, Any], frame: GridFrame
    ) -> None:
        self.place = at
        self.attributes = attributes
        self.scene_id = scene_id
        self.frame_tokens: tuple[str, ...] = tuple(attributes["frame_tokens"])
        self._arrays: dict[str, zarr.Array[Any] | ShardedFrames] = {}
        self._as_filled: dict[str, bool] = {}
        self.timestamps_us: NDArray[np.int64] = self._checked("timestamp_us")
        self.T_global_grid: NDArray[np.float64] = self._checked(pose_array(frame))
        self.inputs = str(attributes.get("inputs", ""))

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

    def voxels(self, name: Literal["semantics", "confidence", "mask"], k: int) -> Voxels:
        """One array of frame k, (X, Y, Z), where the whole frame is not needed. Raises as
        ``frame``."""
        if not 0 <= k < len(self):
            raise IndexError(f"scene {self.scene_id} has {len(self)} frames, asked for {k}")
        return cast(Voxels, self._read(name, k))

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
        scene = f"scene {self.scene_id}"
        if (stated := self.attributes.get("files")) is not None:
            try:
                sizes = dict(self.place.files(f"{SCENES}/{self.scene_id}"))
            except OSError as error:
                rule = f"its files cannot be listed: {error}".split("\n")[0]
                raise SceneError(where=scene, rule=rule) from error
            for key, size in stated.items():
                if sizes.get(key) != size:
                    have = "missing" if key not in sizes else f"{sizes[key]} bytes, not {size}"
                    raise SceneError(where=scene, rule=f"{key} is {have}")
            if extra := sorted(sizes.keys() - stated.keys() - {GROUP}):
                raise SceneError(where=scene, rule=f"{extra[0]} is none of its files")
        for name, sha256 in self._checksums.items():
            frames = range(len(self)) if name in VOXEL_ARRAYS else [...]
            if sha256_of(self._read(name, k) for k in frames) != sha256:
                raise SceneError(where=scene, rule=f"{name} was altered on disk")

    @property
    def _checksums(self) -> dict[str, str]:
        return cast(dict[str, str], self.attributes["sha256"])

    def _checked(self, name: str) -> NDArray[Any]:
        """A small array, its values compared with their checksum."""
        values: NDArray[Any] = self._read(name, ...)
        if sha256_of([values]) != self._checksums.get(name):
            raise SceneError(
                where=f"label store {self.place}/{SCENES}/{self.scene_id}",
                rule=f"{name} was altered on disk",
            )
        return values

    def _opened(self, name: str) -> zarr.Array[Any] | ShardedFrames:
        key = f"{SCENES}/{self.scene_id}/{name}"
        document = self.place.read(f"{key}/{GROUP}")
        stated = self.attributes.get("documents", {}).get(name)
        if stated is not None and hashlib.sha256(document).hexdigest() != stated:
            raise ValueError(f"its {GROUP} was altered on disk")
        if name in VOXEL_ARRAYS:
            with contextlib.suppress(NotImplementedError):
                lacks = functools.partial(self._may_lack, name)
                return ShardedFrames(self.place, key, document, lacks)
        check_layout(document)
        array = zarr.open_array(Bounded(self.place.zarr(key)), mode="r", zarr_format=3)
        frames = len(self) if name in VOXEL_ARRAYS else 1
        if array.nbytes > MAX_ARRAY_BYTES * frames:
            raise ValueError(f"{array.nbytes:,} bytes, more than MAX_ARRAY_BYTES allows")
        return array

    def _may_lack(self, name: str, shard: str) -> bool:
        """Whether a shard was never written: all of it is the fill value."""
        files = self.attributes.get("files")
        if files is not None:
            return f"{name}/{shard}" not in files
        if name not in self._as_filled:  # older code did not say: the values' checksum does
            key = f"{SCENES}/{self.scene_id}/{name}"
            document = self.place.read(f"{key}/{GROUP}")
            filled = ShardedFrames(self.place, key, document, lambda _: True)
            values = sha256_of(filled[k] for k in range(len(self)))
            self._as_filled[name] = values == self._checksums.get(name)
        return self._as_filled[name]

    def _read(self, name: str, selection: Any) -> Any:
        try:
            if name not in self._arrays:
                self._arrays[name] = self._opened(name)
            return np.asarray(self._arrays[name][selection])
        except Exception as error:  # zarr and its codecs raise many kinds
            frame = "" if selection is ... else str(selection)
            rule = f"{name} cannot be read: {error}".split("\n")[0]
            where = f"label store {self.place}/{SCENES}/{self.scene_id}"
            raise SceneError(where=where, frame=frame, rule=rule) from error


class LabelStore:
    """A store in a folder or an object store (``StorePath``). Holds no open file; picklable."""

    def __init__(self, at: StorageBackend, header: StoreHeader, *, sealed: bool) -> None:
        """Use ``create``, ``open`` or ``open_or_create`` instead.

        Args:
            sealed: every document of the store has a digest; one that older code made has none.
        """
        self.place, self.header, self.sealed = at, header, sealed

    def __repr__(self) -> str:
        return f"<LabelStore {self.place}, run {self.header.run_id[:12]}>"

    @classmethod
    def create(cls, where: StorePath | StorageBackend, header: StoreHeader) -> LabelStore:
        """Make an empty store.

        Raises:
            SetupError: something is there already, or the place cannot be written.
        """
        at = as_backend(where)
        try:
            if not _vacant(at):
                raise SetupError(f"label store {at}: something else is there; name a new place")
            write_group(at, SCENES, {})
            document = group_document(sealed(header.to_json()))
            if not at.create(GROUP, document):  # last: this makes it a store
                return cls._of_same_run(at, header)  # another job's driver was first
        except OSError as error:
            why = error.strerror or error
            raise SetupError(f"label store {at}: cannot be created: {why}") from error
        return cls(at, header, sealed=True)

    @classmethod
    def open(
        cls,
        where: StorePath | StorageBackend,
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
        at = as_backend(where)
        try:
            with parsing():
                attributes = read_group(at, "")
                fault = fault_of_seal(attributes, wanted=False)
        except (FileNotFoundError, NotADirectoryError):
            raise SetupError(f"label store {at}: {_absence(at)}") from None
        except (OSError, ValueError) as error:
            raise SetupError(f"label store {at}: damaged zarr.json: {error}") from error
        if attributes.get("format") != FORMAT:
            raise SetupError(f"label store {at}: not a label store (another kind of zarr group)")
        if (version := attributes.get("format_version")) not in FORMAT_VERSIONS:
            known = " and ".join(str(v) for v in FORMAT_VERSIONS)
            raise SetupError(f"label store {at}: format version {version}, this code reads {known}")
        if fault:
            raise UnreadableError(f"label store {at}: its {GROUP}: {fault}")
        try:
            with parsing():
                header = StoreHeader.from_json(attributes)
        except ValueError as error:
            cause = error.__cause__ or error
            why = f"{type(cause).__name__}: {cause}"
            raise SetupError(f"label store {at}: damaged attributes: {why}") from error
        if expect_grid is not None and header.grid != expect_grid:
            raise SetupError(
                f"label store {at}: its grid is {_describe(header.grid)}, "
                f"expected {_describe(expect_grid)}"
            )
        if expect_taxonomy is not None and header.taxonomy != expect_taxonomy:
            raise SetupError(
                f"label store {at}: its classes are {header.taxonomy.name}, "
                f"expected {expect_taxonomy.name}"
            )
        if expect_frame is not None and header.frame != expect_frame:
            raise SetupError(
                f"label store {at}: its voxels lie in the {header.frame} frame, "
                f"expected the {expect_frame} frame"
            )
        return cls(at, header, sealed=DIGEST in attributes)

    @classmethod
    def open_or_create(cls, where: StorePath | StorageBackend, header: StoreHeader) -> LabelStore:
        """Continue a store of the same run, or make it; sweeps up what killed writers left.

        Raises:
            SetupError: as ``open`` and ``create``, or the store was made by another job.
        """
        at = as_backend(where)
        try:
            vacant = _vacant(at)
        except OSError as error:
            raise SetupError(f"label store {at}: cannot be read: {error}") from error
        if vacant:
            return cls.create(at, header)
        store = cls._of_same_run(at, header)
        at.cleanup()
        return store

    @classmethod
    def _of_same_run(cls, at: StorageBackend, header: StoreHeader) -> LabelStore:
        store = cls.open(at, expect_grid=header.grid)
        if store.header.run_id != header.run_id:
            what = header_difference(store.header, header)
            raise SetupError(
                f"label store {at}: made by another job ({what}); name a new place, such as "
                "--store OTHER.zarr"
            )
        return store

    def scene_ids(self) -> tuple[str, ...]:
        """Committed scenes, sorted."""
        return tuple(self.committed())

    def committed(self) -> dict[str, dict[str, Any]]:
        """Counts, checksums and tokens of every committed scene by its id, sorted; no array is
        opened. Raises ``UnreadableError`` as ``attributes``."""
        committed, unreadable = self.looked_at()
        if unreadable:
            raise next(iter(unreadable.values()))
        return committed

    def looked_at(self) -> tuple[dict[str, dict[str, Any]], dict[str, UnreadableError]]:
        """Attributes of the committed scenes, and why others cannot be read; both by id, sorted.

        For those who show what is there; whoever concludes from it asks ``committed``.
        """

        def attributes(scene_id: str) -> dict[str, Any] | UnreadableError | None:
            try:
                return self.attributes(scene_id)
            except UnreadableError as error:
                return error
            except OSError as error:
                return self._unreadable(scene_id, str(error))

        names = self.place.list_dirs(SCENES)
        read = dict(zip(names, self.place.map(attributes, names), strict=True))
        return (
            {name: result for name, result in read.items() if isinstance(result, dict)},
            {name: result for name, result in read.items() if isinstance(result, UnreadableError)},
        )

    def __contains__(self, scene_id: object) -> bool:
        return isinstance(scene_id, str) and self.attributes(scene_id) is not None

    def scene(self, scene_id: str) -> StoredScene:
        """A committed scene.

        Raises:
            KeyError: there is none of that id.
            SceneError: its arrays cannot be read.
        """
        attributes = self.attributes(scene_id)
        if attributes is None:
            raise KeyError(f"label store {self.place} has no scene {scene_id}")
        try:
            return StoredScene(self.place, scene_id, attributes, self.header.frame)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._unreadable(scene_id, f"damaged attributes: {error!r}") from error

    def write_scene(self, labels: SceneLabels) -> None:
        """Write and commit a scene. Where another writer was first, its scene stays.

        Raises:
            ValueError: another grid or frame, flow is there or not against the header, an unknown
                class id, a confidence beyond the levels, or a velocity that is not finite.
            OSError: it cannot be written, ``UnwritableError`` where that lasts (the disk is full);
                nothing becomes visible.
        """
        with self.writer(labels.scene_id, len(labels), inputs=labels.inputs) as writer:
            if labels.frame != self.header.frame:
                where = f"in the {labels.frame} frame, not {self.header.frame}"
                raise ValueError(f"{labels.scene_id}: {where}")
            for frame in labels.frames():
                writer.append(frame)

    @contextlib.contextmanager
    def writer(
        self,
        scene_id: str,
        n_frames: int,
        *,
        inputs: str = "",
        expect: Mapping[str, str] | None = None,
    ) -> Iterator[SceneWriter]:
        """Write a scene frame by frame: ``append`` them all; the scene is committed at the end.

        Where the scene is there already, nothing is written.

        Args:
            n_frames: T, how many frames will be appended.
            inputs: the source's fingerprint of the scene they are made from.
            expect: sha256 of every array's values, where it is known before.

        Raises:
            ValueError: as ``write_scene``, or not so many frames were appended.
            SceneError: the arrays are not those expected; nothing becomes visible.
            OSError: as ``write_scene``.
        """
        check_scene_id(scene_id)
        present, what = scene_id in self, f"label store {self.place}"
        with writing(what):
            draft = None if present else self.place.transaction(f"{SCENES}/{scene_id}")
        writer = SceneWriter(draft, self.header, scene_id, n_frames, what)
        try:
            with as_os_error():
                yield writer
            with writing(what):
                attributes = writer.finish(inputs)
                if draft is not None:
                    if expect is not None and attributes["sha256"] != expect:
                        where = f"label store {self.place}: scene {scene_id}"
                        raise SceneError(where=where, rule="its arrays are not those of its source")
                    draft.commit(attributes, lambda: scene_id in self)
        finally:
            if draft is not None:
                draft.discard()
        with writing(what):
            self._clear_quarantine(scene_id)

    def quarantine(self, scene_id: str, reason: str, detail: str) -> None:
        """Note why a scene has no labels. A later ``write_scene`` clears the note.

        Raises:
            UnwritableError: it cannot be written.
        """
        note: dict[str, Any] = {"reason": reason, "detail": detail}
        name = scene_id
        if fault_of_scene_id(scene_id):
            name = hashlib.sha256(scene_id.encode(errors="surrogatepass")).hexdigest()[:32]
            note["scene_id"] = scene_id
        with writing(f"label store {self.place}", any_failure=True):
            write_group(self.place, QUARANTINE, {})
            write_group(self.place, f"{QUARANTINE}/{name}", sealed(note))

    def quarantined(self) -> dict[str, dict[str, str]]:
        """Quarantined scenes: id -> ``reason`` (one line) and ``detail``, sorted by id. Where a
        note cannot be read, the reason is that."""
        notes, torn = self._notes()
        for name, why in torn.items():
            reason = f"the note on it cannot be read: {why}"
            notes[name] = {"reason": reason, "detail": ""}
        return dict(sorted(notes.items()))

    def torn_notes(self) -> dict[str, str]:
        """Notes on quarantined scenes that cannot be read: name -> why."""
        return self._notes()[1]

    def _notes(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        notes, torn = dict[str, dict[str, str]](), dict[str, str]()
        for name in self.place.list_dirs(QUARANTINE):
            try:
                with parsing():
                    note = read_group(self.place, f"{QUARANTINE}/{name}")
                    if fault := fault_of_seal(note, wanted=self.sealed):
                        raise ValueError(fault)
                    scene_id = str(note.get("scene_id", name))
                    notes[scene_id] = {"reason": str(note["reason"]), "detail": str(note["detail"])}
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                torn[name] = str(getattr(error, "strerror", None) or error).split("\n")[0]
        return notes, torn

    def attributes(self, scene_id: str) -> dict[str, Any] | None:
        """Counts, checksums and tokens of a committed scene; None if there is none of that id.

        Raises:
            UnreadableError: there is a document and it cannot be read, is damaged or was altered.
        """
        if fault_of_scene_id(scene_id):
            return None
        attributes = self._read_attributes(scene_id)
        if attributes is None and self._lists(scene_id):
            # committed just now, or a request that was answered wrongly
            attributes = self._read_attributes(scene_id)
            if attributes is None:
                raise self._unreadable(scene_id, "listed, and not to be read")
        return attributes

    def _lists(self, scene_id: str) -> bool:
        try:
            return GROUP in self.place.list_files(f"{SCENES}/{scene_id}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._unreadable(scene_id, str(error)) from error

    def _read_attributes(self, scene_id: str) -> dict[str, Any] | None:
        try:
            with parsing():
                attributes = read_group(self.place, f"{SCENES}/{scene_id}")
                fault = fault_of_seal(attributes, wanted=self.sealed)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise self._unreadable(scene_id, str(why)) from error
        if fault:
            raise self._unreadable(scene_id, fault)
        if attributes.get("committed") is not True or attributes.get("scene_id") != scene_id:
            raise self._unreadable(scene_id, "no commit marker of this scene")
        return attributes

    def _unreadable(self, scene_id: str, why: str) -> UnreadableError:
        first = why.split("\n")[0]
        return UnreadableError(
            f"label store {self.place}: {SCENES}/{scene_id}/{GROUP}: {first}; nothing is done with "
            "a scene that cannot be read ('store.py verify' looks at all of them)"
        )

    def _clear_quarantine(self, scene_id: str) -> None:
        if scene_id in (noted := self.place.list_dirs(QUARANTINE)):
            self.place.remove(f"{QUARANTINE}/{scene_id}")
            noted.remove(scene_id)
            if not noted:
                self.place.remove_empty(QUARANTINE)


def _vacant(at: StorageBackend) -> bool:
    """Nothing is there, or only what a killed ``create`` leaves."""
    try:
        names = at.list_root()
    except NotADirectoryError:
        return False
    if names is None:
        return True
    visible = {name for name in names if not name.startswith(f".{GROUP}.")}
    return visible <= {SCENES} and not at.list_dirs(SCENES)


def _absence(at: StorageBackend) -> str:
    try:
        names = at.list_root()
    except NotADirectoryError:
        names = []
    except OSError as error:
        return f"cannot be read: {error}"
    if names is None:
        return "there is nothing of that name"
    return f"not a label store (it has no {GROUP})"


def _describe(grid: VoxelGrid) -> str:
    shape = "x".join(str(n) for n in grid.shape)
    return f"{shape} of {list(grid.size_m)} m from {list(grid.min_m)} m"
