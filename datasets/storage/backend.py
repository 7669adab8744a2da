"""Storage of a label store: a local folder, or a prefix of an S3-compatible object store.

A ``StorageBackend`` reads and writes small documents by key, lists keys and opens zarr arrays. A
``Transaction`` writes a scene, which other processes see whole or not at all.

- ``LocalBackend`` builds the scene under ``.partial/`` and renames it into place.
- ``ObjectStoreBackend`` writes the arrays under their final keys, which nobody reads without the
  group's document. It creates that document last, on the condition that there is none. Two
  writers of one scene write the same bytes under the same keys.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore as Bucket
from obstore.store import from_url
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, ObjectStore, WrapperStore

from datasets.errors import SetupError, UnwritableError
from datasets.files.bounded_files import MAX_ARRAY_BYTES, read_bytes
from datasets.files.printable import redacted
from datasets.files.replacing import make_folder, write_file
from datasets.files.store_path import StorePath
from datasets.storage.atomic_files import (
    commit_file,
    commit_folder,
    files_below,
    group_document,
    new_partial,
    parse_group,
    remove_folder,
    subfolders,
    sweep_partial,
    sync_tree,
    visible_files,
)

"""A folder, or the URL of an object store's prefix: ``s3://bucket/prefix``, ``gs://``, ``az://``."""

GROUP = "zarr.json"
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Failures that the next write will meet as well."""
REQUESTS = 32
"""Sent at a time to an object store for many small documents."""

MAX_DOCUMENT_BYTES = 32 << 20
"""Of a document of a store: half a million frames' tokens. Parsed, JSON takes up to thirty times
as much."""
HOW_GIVEN = "credentials belong into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"

_PACKING_BYTES = 8 << 20
"""That an incompressible chunk may be larger than its array."""
REMOVED_TRIES = 20
"""So often a folder is made again that other writers remove as empty."""

A = TypeVar("A")
B = TypeVar("B")


class Transaction(Protocol):
    """A group that is being written and is not visible yet."""

    def zarr(self, name: str) -> Store:
        """A store whose root is an array of the group, for writing. (At a path inside a store zarr
        would write the groups above it as well.)"""

    def files(self) -> list[tuple[str, int]]:
        """Sorted keys and bytes of the files written so far. Raises ``OSError``."""

    def commit(self, attributes: dict[str, Any], is_committed: Callable[[], bool]) -> None:
        """Make the group visible in one step. The group of an earlier writer stays.

        Raises:
            OSError: the commit failed; nothing is visible.
        """

    def discard(self) -> None:
        """Remove the uncommitted files, unless other writers may be writing them too."""


class StorageBackend(Protocol):
    """The root of a store. Picklable; ``str`` names it."""

    def list_root(self) -> list[str] | None:
        """Names of the files and folders directly below the root, hidden ones too; None if the
        root does not exist. Raises ``OSError``."""

    def read(self, key: str) -> bytes:
        """The content of a file. Raises ``FileNotFoundError``, or another ``OSError`` if the
        storage cannot be reached."""

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Part of a file. Raises as ``read``, or ``OSError`` where it ends before."""

    def read_tail(self, key: str, length: int) -> bytes:
        """The end of a file. Raises as ``read_range``."""

    def write(self, key: str, data: bytes) -> None:
        """In one step: readers see the old content or the new. Raises ``OSError``."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a new file in one step, durable on return; False if it exists already. Raises
        ``OSError``."""

    def list_dirs(self, key: str) -> list[str]:
        """Sorted names of the folders directly below a key; none if there is nothing."""

    def list_files(self, key: str) -> list[str]:
        """Sorted names of the visible files directly below a key; none if there is nothing."""

    def files(self, key: str) -> list[tuple[str, int]]:
        """Sorted keys, relative to ``key``, and bytes of all files below it. Raises ``OSError``."""

    def remove(self, key: str) -> None:
        """Remove all files below a key. Raises ``OSError``."""

    def remove_empty(self, key: str) -> None:
        """Remove a group without subgroups. A group added by another writer meanwhile stays."""

    def map(self, read: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """``read`` of every item, concurrently where that is faster."""

    def zarr(self, key: str) -> Store:
        """A store for reading an array."""

    def transaction(self, key: str) -> Transaction: ...

    def cleanup(self) -> None:
        """Remove the files of killed writers, where they differ from those of running ones."""


def as_backend(path: StorePath | StorageBackend) -> StorageBackend:
    """The backend of a folder or URL; a backend is returned unchanged.

    Raises:
        SetupError: a URL of an unknown kind.
    """
    if isinstance(path, str) and "://" in path:
        return ObjectStoreBackend(path.rstrip("/"))
    return LocalBackend(Path(path)) if isinstance(path, str | Path) else path


def write_group(backend: StorageBackend, key: str, attributes: dict[str, Any]) -> None:
    """Write a zarr 3 group's document. Raises ``OSError``."""
    backend.write(f"{key}/{GROUP}" if key else GROUP, group_document(attributes))


def read_group(backend: StorageBackend, key: str) -> dict[str, Any]:
    """Attributes of a zarr 3 group.

    Raises:
        OSError, ValueError, KeyError, TypeError: missing or not a group's document.
    """
    return parse_group(backend.read(f"{key}/{GROUP}" if key else GROUP))


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """A folder of a local or shared file system."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def list_root(self) -> list[str] | None:
        try:
            return sorted(p.name for p in self.path.iterdir())
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes:
        try:
            return read_bytes(self.path / key, MAX_DOCUMENT_BYTES, "MAX_DOCUMENT_BYTES")
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error), str(self.path / key)) from None

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with _opened(self.path / key) as file:
            file.seek(offset)
            return _whole(file.read(length), length, key)

    def read_tail(self, key: str, length: int) -> bytes:
        with _opened(self.path / key) as file:
            file.seek(max(0, file.seek(0, 2) - length))
            return _whole(file.read(length), length, key)

    def write(self, key: str, data: bytes) -> None:
        path = self.path / key
        for tries_left in reversed(range(REMOVED_TRIES)):
            try:
                return write_file(path, data)
            except FileNotFoundError:  # another writer removed the empty folder just now
                if not tries_left:
                    raise

    def create(self, key: str, data: bytes) -> bool:
        final = self.path / key
        make_folder(final.parent)
        partial = new_partial(self.path, final.name)
        try:
            return commit_file(partial / final.name, final, data)
        finally:
            remove_folder(partial)

    def list_dirs(self, key: str) -> list[str]:
        return subfolders(self.path / key)

    def list_files(self, key: str) -> list[str]:
        return visible_files(self.path / key)

    def files(self, key: str) -> list[tuple[str, int]]:
        return sorted(files_below(self.path / key))

    def remove(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / key)

    def remove_empty(self, key: str) -> None:
        folder = self.path / key
        if self.list_dirs(key) or not folder.is_dir():
            return
        (folder / GROUP).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another writer's, which is not empty
            folder.rmdir()

    def map(self, read: Callable[[A], B], items: Iterable[A]) -> list[B]:
        return [read(item) for item in items]

    def zarr(self, key: str) -> Store:
        for path in (self.path / key).rglob("*"):
            if not (path.is_file() or path.is_dir()):
                raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
            if path.is_file() and (size := path.stat().st_size) > MAX_ARRAY_BYTES + _PACKING_BYTES:
                reason = f"{size:,} bytes, more than the {MAX_ARRAY_BYTES:,} of MAX_ARRAY_BYTES"
                raise OSError(errno.EINVAL, reason, str(path))
        return LocalStore(self.path / key, read_only=True)

    def transaction(self, key: str) -> Transaction:
        return _LocalTransaction(new_partial(self.path, Path(key).name), self.path / key)

    def cleanup(self) -> None:
        sweep_partial(self.path)


@dataclass(frozen=True, slots=True)
class _LocalTransaction:
    partial: Path
    final: Path

    def zarr(self, name: str) -> Store:
        return LocalStore(self.partial / name)

    def files(self) -> list[tuple[str, int]]:
        return LocalBackend(self.partial).files("")

    def commit(self, attributes: dict[str, Any], is_committed: Callable[[], bool]) -> None:
        sync_tree(self.partial)
        write_file(self.partial / GROUP, group_document(attributes))
        commit_folder(self.partial, self.final, is_committed=is_committed)

    def discard(self) -> None:
        remove_folder(self.partial)


@dataclass(frozen=True, slots=True, repr=False)
class ObjectStoreBackend:
    """A prefix of an object store, by its URL. Credentials and endpoint come from the environment
    (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT``, ...).

    ``s3://KEY:SECRET@bucket`` is accepted and printed as ``s3://***@bucket``, but the shell's
    history and Ray's table of jobs show the secret.
    """

    url: str

    def __post_init__(self) -> None:
        bucket_at(self.url)

    def __str__(self) -> str:
        return redacted(self.url)

    def __repr__(self) -> str:
        return f"ObjectStoreBackend({str(self)!r})"

    def list_root(self) -> list[str] | None:
        with as_os_error(self.url):
            listing = obstore.list_with_delimiter(bucket_at(self.url))
        names = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
        return sorted(name.rstrip("/") for name in names) or None

    def read(self, key: str) -> bytes:
        with as_os_error(self.url):
            result = obstore.get(bucket_at(self.url), key)
            if (size := result.meta["size"]) > MAX_DOCUMENT_BYTES:
                reason = (
                    f"{size:,} bytes, more than the {MAX_DOCUMENT_BYTES:,} of MAX_DOCUMENT_BYTES"
                )
                raise OSError(errno.EINVAL, reason, key)
            return bytes(result.bytes())

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with as_os_error(self.url):
            data = obstore.get_range(bucket_at(self.url), key, start=offset, length=length)
        return _whole(bytes(data), length, key)

    def read_tail(self, key: str, length: int) -> bytes:
        with as_os_error(self.url):
            result = obstore.get(bucket_at(self.url), key, options={"range": {"suffix": length}})
            return _whole(bytes(result.bytes()), length, key)

    def write(self, key: str, data: bytes) -> None:
        with as_os_error(self.url):
            obstore.put(bucket_at(self.url), key, data)

    def create(self, key: str, data: bytes) -> bool:
        with as_os_error(self.url):
            try:
                obstore.put(bucket_at(self.url), key, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def list_dirs(self, key: str) -> list[str]:
        with as_os_error(self.url):
            listing = obstore.list_with_delimiter(bucket_at(self.url), f"{key}/" if key else None)
        return sorted(
            prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in listing["common_prefixes"]
        )

    def list_files(self, key: str) -> list[str]:
        with as_os_error(self.url):
            listing = obstore.list_with_delimiter(bucket_at(self.url), f"{key}/" if key else None)
        names = (entry["path"].rsplit("/", 1)[-1] for entry in listing["objects"])
        return sorted(name for name in names if name[0] != ".")

    def files(self, key: str) -> list[tuple[str, int]]:
        with as_os_error(self.url):
            batches = list(obstore.list(bucket_at(self.url), f"{key}/" if key else None))
        cut = len(key) + 1 if key else 0
        return sorted((entry["path"][cut:], entry["size"]) for batch in batches for entry in batch)

    def remove(self, key: str) -> None:
        self._delete(f"{key}/{name}" for name, _ in self.files(key))

    def remove_empty(self, key: str) -> None:
        if not self.list_dirs(key):
            self._delete([f"{key}/{GROUP}"])

    def map(self, read: Callable[[A], B], items: Iterable[A]) -> list[B]:
        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(read, items))

    def zarr(self, key: str) -> Store:
        return ObjectStore(bucket_at(f"{self.url}/{key}"), read_only=True)

    def transaction(self, key: str) -> Transaction:
        return _ObjectStoreTransaction(self, key)

    def cleanup(self) -> None:
        """Nothing: arrays without a group document are invisible; the next try overwrites them."""

    def _delete(self, keys: Iterable[str]) -> None:
        with as_os_error(self.url):
            obstore.delete(bucket_at(self.url), list(keys))


@dataclass(frozen=True, slots=True)
class _ObjectStoreTransaction:
    backend: ObjectStoreBackend
    key: str

    def zarr(self, name: str) -> Store:
        return _Unread(ObjectStore(bucket_at(f"{self.backend.url}/{self.key}/{name}")))

    def files(self) -> list[tuple[str, int]]:
        return [(key, n) for key, n in self.backend.files(self.key) if key != GROUP]

    def commit(self, attributes: dict[str, Any], is_committed: Callable[[], bool]) -> None:
        marker, document = f"{self.key}/{GROUP}", group_document(attributes)
        if not self.backend.create(marker, document) and not is_committed():
            self.backend.write(marker, document)  # no writer of ours leaves another document

    def discard(self) -> None:
        """Nothing: another writer of the scene may be writing the same keys."""


class _Unread(WrapperStore[ObjectStore]):  # type: ignore[type-arg]
    """Hides existing chunks: zarr would merge a shard with one that a killed writer left."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        if key.startswith("c/"):
            return None
        return await super().get(key, prototype, byte_range)


@functools.lru_cache(maxsize=256)
def bucket_at(url: str) -> Bucket:
    """The object store of a URL, with the credentials of the URL if it has any.

    Raises:
        SetupError: the kind of URL is unknown, or a part of it would be ignored.
    """
    try:
        parts = urlsplit(url)
        user, separator, host = parts.netloc.rpartition("@")
        if parts.query or (":" in parts.netloc and not separator and "@" in parts.path):
            raise SetupError(
                f"{url}: {HOW_GIVEN}; a URL takes no options, and '/' of a secret is %2F in it"
            )
        if not separator:
            return from_url(url)
        key, _, secret = user.partition(":")
        if parts.scheme not in ("s3", "s3a") or not key or not secret:
            raise SetupError(f"{url}: {HOW_GIVEN}; only s3://KEY:SECRET@BUCKET takes them")
        return from_url(
            f"{parts.scheme}://{host}{parts.path}",
            access_key_id=unquote(key),
            secret_access_key=unquote(secret),
        )
    except (BaseError, ValueError, TypeError) as error:
        raise SetupError(f"{url}: {_first_line(error)}") from error


def _opened(path: Path) -> BinaryIO:
    """A file opened for partial reads; a pipe opens at once and reads as empty."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    return open(path, "rb", buffering=0, opener=opener)


def _whole(data: bytes, length: int, key: str) -> bytes:
    if len(data) != length:
        raise OSError(f"{key}: cut off, {len(data)} of {length} bytes")
    return data


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


@contextlib.contextmanager
def as_os_error(what: str = "") -> Iterator[None]:
    """Raise errors of an object store as the ``OSError`` of a file system.

    Args:
        what: the object or URL, for the message.
    """
    prefix = f"{redacted(what)}: " if what else ""
    try:
        yield
    except NotFoundError as error:
        raise FileNotFoundError(prefix + _first_line(error)) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, prefix + _first_line(error)) from error
    except BaseError as error:
        raise OSError(prefix + _first_line(error)) from error


@contextlib.contextmanager
def writing(what: str, *, any_failure: bool = False) -> Iterator[None]:
    """Raise failures that every write would meet as ``UnwritableError``, others unchanged.

    Args:
        what: the object or URL, for the message.
        any_failure: raise every failure as ``UnwritableError``.

    Raises:
        OSError: any other failure.
    """
    try:
        with as_os_error(what):
            yield
    except UnwritableError:
        raise
    except OSError as error:
        if not any_failure and error.errno not in UNWRITABLE:
            raise
        reason = error.strerror or error
        raise UnwritableError(
            f"{what}: cannot be written: {reason}; once it can be, the same command goes on"
        ) from error
