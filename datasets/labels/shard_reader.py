"""Reads one frame of a sharded zarr array with one small read, and nothing else.

For a frame zarr itself reads the shard's index again every time and goes through its event loop
once an array: measured, three times as long for the arrays of a frame. Only what our own writer
makes is understood here (zarr 3 specification, "sharding_indexed"); the caller falls back on zarr.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from datasets.files.bounded_files import MAX_ARRAY_BYTES
from datasets.storage.backend import StorageBackend

MAX_FRAMES = 1 << 20
"""Of a shard."""
ABSENT = 2**64 - 1
"""Offset and length of a chunk that was not written, since it holds nothing but the fill value."""


CODECS = {"bytes", "transpose", "zstd", "crc32c"}
"""Of arrays that zarr reads. What another one would unpack to is not stated anywhere."""
_ZSTD = b"\x28\xb5\x2f\xfd"


def check_layout(document: bytes) -> None:
    """Look at the ``zarr.json`` of an array that zarr will read.

    Raises:
        ValueError, KeyError, TypeError: a chunk of it is too large, it has another codec, or it is
            damaged.
    """
    metadata = json.loads(document)
    chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    if odd := sorted({str(codec["name"]) for codec in metadata["codecs"]} - CODECS):
        raise ValueError(f"codec {odd[0]!r} is none of {', '.join(sorted(CODECS))}")
    size = math.prod(chunk) * np.dtype(metadata["data_type"]).itemsize
    if not 0 < size <= MAX_ARRAY_BYTES:
        raise ValueError(
            f"chunks of {size:,} bytes: at most {MAX_ARRAY_BYTES:,} of MAX_ARRAY_BYTES"
        )


class Bounded(WrapperStore[Store]):
    """A store for zarr to read, whose chunks state what they unpack to."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        chunk = await super().get(key, prototype, byte_range)
        if chunk is not None and (head := chunk[:18].to_bytes()).startswith(_ZSTD):
            size = _unpacked_size(head)
            if size is None or size > MAX_ARRAY_BYTES:
                raise ValueError(
                    f"{key} unpacks to {'unknown' if size is None else f'{size:,}'} bytes, at most "
                    f"{MAX_ARRAY_BYTES:,} of MAX_ARRAY_BYTES"
                )
        return chunk


def _unpacked_size(head: bytes) -> int | None:
    """As a zstd frame's header states it (RFC 8878, 3.1.1.1)."""
    flags = head[4]
    single_segment = bool(flags >> 5 & 1)
    width = (int(single_segment), 2, 4, 8)[flags >> 6]
    start = 5 + (not single_segment) + (0, 1, 2, 4)[flags & 3]
    if not width:
        return None
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


class ShardedFrames:
    """The frames of a (T, ...) array with one chunk per frame. Keeps the shards' indices.

    Args:
        key: of the array in the place.
        document: its ``zarr.json``.
        may_lack: whether a shard, ``c/0/0/0/0`` say, was never written, holding nothing but the
            fill value. Any other one that is not there is lost.

    Raises:
        NotImplementedError: the array is not written as ours are.
        ValueError, KeyError, TypeError: its document is damaged.
    """

    def __init__(
        self, at: StorageBackend, key: str, document: bytes, may_lack: Callable[[str], bool]
    ) -> None:
        self.at, self.key, self.may_lack = at, key, may_lack
        metadata = json.loads(document)
        shape = metadata["shape"]
        shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        if [codec["name"] for codec in metadata["codecs"]] != ["sharding_indexed"]:
            raise NotImplementedError(f"{key}: another layout")
        inner = metadata["codecs"][0]["configuration"]
        names = [codec["name"] for codec in inner["codecs"]]
        if (
            metadata["chunk_grid"]["name"] != "regular"
            or metadata["chunk_key_encoding"]
            != {"name": "default", "configuration": {"separator": "/"}}
            or inner["chunk_shape"] != [1, *shape[1:]]
            or shard[1:] != shape[1:]
            or names != ["bytes", "zstd"]
            or inner["codecs"][0].get("configuration", {}).get("endian", "little") != "little"
            or [codec["name"] for codec in inner["index_codecs"]] != ["bytes", "crc32c"]
            or inner["index_location"] != "end"
            or metadata["fill_value"] != 0
        ):
            raise NotImplementedError(f"{key}: another layout")
        self.shape = tuple(int(n) for n in shape[1:])
        self.dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        self.per_shard: int = shard[0]
        size = math.prod(self.shape) * self.dtype.itemsize
        if not 0 < size <= MAX_ARRAY_BYTES or not 0 < self.per_shard <= MAX_FRAMES:
            raise ValueError(
                f"{key}: frames of {size:,} bytes, {self.per_shard:,} in a shard: at most "
                f"{MAX_ARRAY_BYTES:,} (MAX_ARRAY_BYTES) and {MAX_FRAMES:,} (MAX_FRAMES)"
            )
        self._most_bytes = size + size // 128 + 1024  # zstd adds less to what it cannot compress
        self._indices: dict[int, NDArray[np.uint64] | None] = {}

    def __getitem__(self, k: int) -> NDArray[Any]:
        """Frame k.

        Raises:
            OSError, ValueError, RuntimeError: it cannot be read or is damaged.
        """
        number, position = divmod(k, self.per_shard)
        if number not in self._indices:
            self._indices[number] = self._index(number)
        index = self._indices[number]
        if index is None or index[position, 0] == ABSENT:
            return np.zeros(self.shape, self.dtype)
        offset, length = (int(v) for v in index[position])
        if length > self._most_bytes:
            raise ValueError(f"{self._shard(number)}: its index states {length:,} bytes of a frame")
        packed = self.at.read_range(self._shard(number), offset, length)
        out = np.empty(self.shape, self.dtype)
        zstd.decompress(packed, out)
        return out

    def _shard(self, number: int) -> str:
        return f"{self.key}/{self._name(number)}"

    def _name(self, number: int) -> str:
        return "/".join(["c", str(number), *("0" for _ in self.shape)])

    def _index(self, number: int) -> NDArray[np.uint64] | None:
        """(per_shard, 2) offsets and lengths; None if the shard was not written: all is fill."""
        try:
            tail = self.at.read_tail(self._shard(number), 16 * self.per_shard + 4)
        except FileNotFoundError:
            if not self.may_lack(self._name(number)):
                raise FileNotFoundError(f"{self._shard(number)} is missing") from None
            return None
        if google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
            raise ValueError(f"{self._shard(number)}: its index is damaged")
        return np.frombuffer(tail[:-4], "<u8").reshape(self.per_shard, 2)
