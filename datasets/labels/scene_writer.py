"""Writes a scene's labels frame by frame, in memory that does not grow with the scene.

Legend: T frames of a scene; X, Y, Z axes of the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.errors import ContainsArrayError

from datasets.files.seals import sealed
from datasets.labels.header import StoreHeader
from datasets.labels.lidar_check import LIDAR_CHECK, LidarEvidence
from datasets.labels.voxel_labels import (
    VOXEL_ARRAYS,
    FrameLabels,
    MaskBit,
    pose_array,
    voxel_layout,
)
from datasets.storage.backend import GROUP, Transaction, writing
from datasets.taxonomy import IGNORE_ID

ZSTD_LEVEL = 5
SHARD_BYTES = 32 * 2**20
"""Most bytes of a shard before compression; a frame that is larger has its own. A writer holds one
shard of each array."""


class SceneWriter:
    """Takes the frames of one scene in order. Made by ``LabelStore.writer``, which commits.

    Args:
        draft: where to write; None: frames are checked and dropped.
        n_frames: T.
        store: what is written to, for messages.
    """

    def __init__(
        self,
        draft: Transaction | None,
        header: StoreHeader,
        scene_id: str,
        n_frames: int,
        store: str = "label store",
    ) -> None:
        self.draft, self.header, self.scene_id, self.n_frames = draft, header, scene_id, n_frames
        self.store = store
        self._arrays: dict[str, _ShardedArray] = {}
        self._tokens: list[str] = []
        self._timestamps_us: list[int] = []
        self._poses: list[NDArray[np.float64]] = []
        self._bits = dict.fromkeys(MaskBit, 0)
        self._statistics: dict[str, list[float]] = {}
        self._lidar_check: LidarEvidence | None = None
        self._not_checked = ""
        self._carried: dict[str, Any] = {}
        self._trusted = np.zeros(header.taxonomy.n_classes, np.int64)

    def __len__(self) -> int:
        """Frames taken so far."""
        return len(self._tokens)

    def append(self, labels: FrameLabels) -> None:
        """Take the next frame.

        Raises:
            ValueError: another grid, flow is there or not against the header, evidence is there or
                not against the frames before, an unknown class id, a confidence beyond the levels,
                or a velocity that is not finite.
            OSError: it cannot be written, ``UnwritableError`` where that lasts.
        """
        voxels = self._checked(labels)
        self._tokens.append(labels.token)
        self._timestamps_us.append(labels.timestamp_us)
        self._poses.append(np.asarray(labels.T_global_grid, np.float64))
        for name, value in labels.statistics.items():
            self._statistics.setdefault(name, []).append(value)
        if isinstance(check := labels.lidar_check, str):
            self._not_checked = check
        elif check is not None:
            before = self._lidar_check
            self._lidar_check = check if before is None else before + check
        for bit in MaskBit:
            self._bits[bit] += int(np.count_nonzero(labels.mask & bit))
        trusted = labels.semantics[labels.mask & MaskBit.TRUSTED > 0]
        self._trusted += np.bincount(trusted, minlength=256)[: len(self._trusted)]
        if self.draft is None:
            return
        with writing(self.store):
            for name, array in voxels.items():
                if name not in self._arrays:
                    self._arrays[name] = _ShardedArray(self.draft, name, self.n_frames, array)
                self._arrays[name].append(array)

    def carry(self, attributes: Mapping[str, Any]) -> None:
        """Keep of another store's scene, whose frames are appended, what is told of no frame."""
        self._carried = {
            key: attributes[key] for key in ("statistics", LIDAR_CHECK) if key in attributes
        }

    def finish(self, inputs: str) -> dict[str, Any]:
        """Write what is left; gives the attributes of the scene's group, the commit marker.

        Raises:
            ValueError: not as many frames as announced, or a token occurs twice.
            OSError: the disk is full or gone.
        """
        if len(self) != self.n_frames:
            raise ValueError(f"scene {self.scene_id}: {len(self)} of {self.n_frames} frames")
        if len(set(self._tokens)) != len(self) or not self._tokens:
            raise ValueError(f"scene {self.scene_id}: tokens must be unique and at least one")
        sha256: dict[str, str] = {}
        documents: dict[str, str] = {}
        files: dict[str, int] = {}
        if self.draft is not None:
            for name, array in (
                ("timestamp_us", np.array(self._timestamps_us, np.int64)),
                (pose_array(self.header.frame), np.stack(self._poses)),
            ):
                stored = _create(self.draft, name, array.shape, array.dtype, array.shape)
                stored[...] = array
                sha256[name], documents[name] = sha256_of([array]), _document(stored)
            sha256 |= {name: array.finish() for name, array in self._arrays.items()}
            documents |= {name: array.document for name, array in self._arrays.items()}
            files = dict(self.draft.files())
            wanted = {f"{name}/{GROUP}" for name in sha256}
            wanted |= {key for array in self._arrays.values() for key in array.shards}
            if lacking := sorted(wanted - files.keys()):
                raise FileNotFoundError(
                    f"scene {self.scene_id}: {lacking[0]} is gone before the scene was committed"
                )
        counts: dict[str, Any] = {
            "frames": len(self),
            "voxels": len(self) * self.header.grid.n_voxels,
            **{str(bit.name).lower(): n for bit, n in self._bits.items()},
            "trusted_by_class": [int(n) for n in self._trusted],
        }
        return sealed(
            {
                "scene_id": self.scene_id,
                "frame_tokens": self._tokens,
                "inputs": inputs,
                "counts": counts,
                **({"statistics": self._means()} if self._statistics else {}),
                **self._checked_by_lidar(),
                **self._carried,
                "sha256": sha256,
                "documents": documents,
                "files": files,
                "committed": True,
            }
        )

    def _checked_by_lidar(self) -> dict[str, Any]:
        if self._lidar_check is not None:
            return {LIDAR_CHECK: self._lidar_check.to_json()}
        return {LIDAR_CHECK: {"untested": self._not_checked}} if self._not_checked else {}

    def _means(self) -> dict[str, float]:
        return {k: round(float(np.mean(v)), 6) for k, v in self._statistics.items()}

    def _checked(self, labels: FrameLabels) -> dict[str, NDArray[Any]]:
        """The frame's arrays, absent ones left out."""
        header, where = self.header, f"scene {self.scene_id}: frame {len(self)}"
        voxels = {name: getattr(labels, name) for name in VOXEL_ARRAYS}
        present = {name: array for name, array in voxels.items() if array is not None}
        for name, array in present.items():
            shape, dtype = voxel_layout(name, header.grid.shape)
            if array.shape != shape or array.dtype != dtype:
                is_it, want = f"{array.dtype} {array.shape}", f"{dtype} {shape}"
                raise ValueError(f"{where}: {name} is {is_it}, the grid wants {want}")
        if (labels.flow is not None) != header.flow:
            raise ValueError(f"{where}: flow is {'absent' if header.flow else 'unexpected'}")
        if self._arrays and present.keys() != self._arrays.keys():
            raise ValueError(f"{where}: has {sorted(present)}, those before {sorted(self._arrays)}")
        is_class = (labels.semantics < header.taxonomy.n_classes) | (labels.semantics == IGNORE_ID)
        if not is_class.all():
            raise ValueError(f"{where}: class id {labels.semantics[~is_class][0]} is unknown")
        if (top := int(labels.confidence.max())) >= len(header.levels):
            raise ValueError(f"{where}: {top} is beyond {len(header.levels)} levels")
        if labels.flow is not None and not np.isfinite(labels.flow).all():
            raise ValueError(f"{where}: a velocity is not finite")
        return present


class _ShardedArray:
    """One voxel array: a chunk per frame, written shard by shard."""

    def __init__(self, draft: Transaction, name: str, n_frames: int, like: NDArray[Any]) -> None:
        self.frames = min(n_frames, max(1, SHARD_BYTES // like.nbytes))
        self.buffer = np.empty((self.frames, *like.shape), like.dtype)
        self.held = self.written = 0
        self.digest = hashlib.sha256()
        self.name = name
        self.shards: list[str] = []  # keys of those that hold more than the fill value
        self.array = _create(
            draft,
            name,
            (n_frames, *like.shape),
            like.dtype,
            (1, *like.shape),
            shards=self.buffer.shape,
            dimension_names=("t", "x", "y", "z", "v")[: like.ndim + 1],
        )

    def append(self, frame: NDArray[Any]) -> None:
        self.buffer[self.held] = frame
        self.held += 1
        if self.held == self.frames:
            self._flush()

    def finish(self) -> str:
        """sha256 of the values."""
        self._flush()
        return self.digest.hexdigest()

    @property
    def document(self) -> str:
        """sha256 of the array's ``zarr.json``."""
        return _document(self.array)

    def _flush(self) -> None:
        if self.held:
            part = self.buffer[: self.held]
            self.array[self.written : self.written + self.held] = part
            if part.any():
                number = str(self.written // self.frames)
                self.shards.append("/".join([self.name, "c", number, *("0" * (part.ndim - 1))]))
            _hash(self.digest, part)
            self.written, self.held = self.written + self.held, 0


def _document(array: zarr.Array[Any]) -> str:
    files = array.metadata.to_buffer_dict(default_buffer_prototype())
    return hashlib.sha256(files[GROUP].to_bytes()).hexdigest()


def sha256_of(parts: Iterable[NDArray[Any]]) -> str:
    """Hash of an array's values as little-endian bytes in C order, given whole or by its rows."""
    digest = hashlib.sha256()
    for part in parts:
        _hash(digest, part)
    return digest.hexdigest()


def _hash(digest: hashlib._Hash, part: NDArray[Any]) -> None:
    digest.update(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data)


def _create(
    draft: Transaction,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: tuple[int, ...],
    *,
    shards: tuple[int, ...] | None = None,
    dimension_names: tuple[str, ...] | None = None,
) -> zarr.Array[Any]:
    create = partial(
        zarr.create_array,
        store=draft.zarr(name),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=[ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
        fill_value=0,
        dimension_names=dimension_names,
        zarr_format=3,
    )
    try:
        return create()
    except ContainsArrayError:  # of another writer, killed or at work, where drafts share keys
        existing = zarr.open_array(draft.zarr(name), mode="r+", zarr_format=3)
        alike = (existing.shape, existing.dtype, existing.chunks, existing.shards)
        return existing if alike == (shape, dtype, chunks, shards) else create(overwrite=True)
