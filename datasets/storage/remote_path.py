"""Logs in object stores: paths below ``s3://BUCKET`` (also ``gs://``, ``az://``) that are read as
files are.

A ``RemotePath`` is a ``Path`` for whoever only reads: it lists, tells sizes and opens, and where a
library wants a file's name (``os.fspath``) it is given that of a local copy, made then. Names and
sizes come by the page: a scene's files stand next to each other in an object store's order, so one
request tells of a thousand of them. Copies are the process's own and go with it; the least recently
used ones make room for others.

Credentials and endpoint come from the environment or the URL, see
``datasets.storage.backend.ObjectStoreBackend``.
"""

from __future__ import annotations

import atexit
import bisect
import errno
import fnmatch
import functools
import io
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PosixPath, PurePath
from typing import IO, Any

import obstore

from datasets.errors import SetupError
from datasets.files.printable import redacted
from datasets.storage.backend import REQUESTS, as_os_error, bucket_at

SCHEMES = ("s3:", "gs:", "az:")
COPIES_BYTES = 8 << 30
"""Local copies of one process; the latest ``COPIES_KEPT`` stay whatever their size."""
COPIES_KEPT = 256
STREAMED_BYTES = 64 << 20
"""Opened files above this are read in ranges where they lie."""
BUFFER_BYTES = 256 << 10
PAGE = 1000
"""Names that object stores give at a time."""
PAGES = 64
FRESH_S = 60.0
"""For so long it is believed that a name is not there."""


class StorageError(SetupError):
    """An object store does not answer as it should. No fault of the data, so no ``OSError``: a
    scene is not quarantined for it, but tried again."""


def remote_or_local(path: Path) -> Path:
    """A ``RemotePath`` if the path is a URL of an object store, else the path itself.

    Raises:
        SetupError: a URL without a bucket.
    """
    if not path.parts or path.parts[0] not in SCHEMES:
        return path
    if len(path.parts) < 2:
        raise SetupError(f"{path}//: names no bucket")
    return RemotePath(path)


def absolute(path: Path) -> Path:
    """The same place for a process in another working folder."""
    path = remote_or_local(path)
    return path if isinstance(path, RemotePath) else path.resolve()


def with_local_files(folder: Path, *, but: Collection[str] = ()) -> Path:
    """A local folder with the files that lie directly in this one: itself, or copies of them all
    ``but`` some."""
    if not isinstance(folder, RemotePath):
        return folder
    for path in folder.iterdir():
        if path.name not in but and path.is_file():
            os.fspath(path)
    return _copies().place(folder.bucket, folder.key)


def fetch(paths: Iterable[Path]) -> None:
    """Make local copies of files in object stores, many at a time. Large files, and what cannot be
    had, are left to whoever reads them."""
    wanted = {p for p in paths if isinstance(p, RemotePath)}
    if wanted:
        with ThreadPoolExecutor(REQUESTS) as asking:
            list(asking.map(_fetch, wanted))


def _fetch(path: RemotePath) -> None:
    with suppress(OSError):
        if path.stat().st_size <= STREAMED_BYTES:
            os.fspath(path)


def forget_copies() -> None:
    """Remove this process's local copies."""
    with _making:
        if _made.cache_info().currsize:
            _made().remove()
            _made.cache_clear()


class RemotePath(PosixPath):
    """``Path("s3://bucket/log/...")``; see the module. Reading only.

    Raises:
        OSError: as for files.
        StorageError: the store cannot be reached, or refuses.
    """

    __slots__ = ()

    @property
    def bucket(self) -> str:
        """Its URL, whole; ``str`` hides credentials."""
        return f"{self.parts[0]}//{self.parts[1]}"

    @property
    def key(self) -> str:
        return "/".join(self.parts[2:])

    def __str__(self) -> str:
        return redacted("//".join(super().__str__().split("/", 1)))  # a Path takes two for one

    def __fspath__(self) -> str:
        return str(_copies().fetched(self.bucket, self.key))

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def absolute(self) -> RemotePath:
        return self

    def is_file(self) -> bool:
        return self._size() is not None

    def is_dir(self) -> bool:
        with _answers():
            listing = obstore.list(bucket_at(self.bucket), self._below(), chunk_size=1)
            return any(True for _ in listing)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        size = self._size()
        if size is None and not self.is_dir():
            raise _missing(self)
        mode = stat.S_IFDIR | 0o555 if size is None else stat.S_IFREG | 0o444
        return os.stat_result((mode, 0, 0, 1, 0, 0, size or 0, 0, 0, 0))

    def _below(self) -> str | None:
        return f"{self.key}/" if self.key else None

    def _size(self) -> int | None:
        return _listing(self.bucket).size(self.key)

    def iterdir(self) -> Generator[RemotePath, None, None]:
        """Files and folders directly below, sorted."""
        with _answers():
            listing = obstore.list_with_delimiter(bucket_at(self.bucket), self._below())
        keys = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
        yield from (self / key.rstrip("/").rsplit("/", 1)[-1] for key in sorted(keys))

    def glob(self, pattern: str) -> Generator[RemotePath, None, None]:
        """As ``Path.glob``, without ``**``."""
        name, *subparts = PurePath(pattern).parts
        if any(c in name for c in "*?["):
            paths = [p for p in self.iterdir() if fnmatch.fnmatchcase(p.name, name)]
        else:
            paths = [self / name] if subparts or (self / name).exists() else []
        for path in paths:
            if subparts:
                yield from path.glob("/".join(subparts))
            else:
                yield path

    def read_bytes(self) -> bytes:
        with _answers(self):
            return bytes(obstore.get(bucket_at(self.bucket), self.key).bytes())

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(  # type: ignore[override]
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "logs are only read", str(self))
        if "b" in mode and (size := self._size() or 0) > STREAMED_BYTES:
            return io.BufferedReader(_Ranges(self, size), BUFFER_BYTES)
        return Path(os.fspath(self)).open(mode, buffering, encoding, errors, newline)


class _Ranges(io.RawIOBase):
    """A large object, read where it lies."""

    def __init__(self, path: RemotePath, size: int) -> None:
        self.path, self.size, self.at = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, into: Any) -> int:
        length = min(len(into), max(0, self.size - self.at))
        if length:
            with _answers(self.path):
                data = obstore.get_range(
                    bucket_at(self.path.bucket), self.path.key, start=self.at, length=length
                )
            into[:length] = bytes(data)
        self.at += length
        return length


@dataclass(frozen=True, slots=True, eq=False)
class _Page:
    """The objects after one key and up to another, and when that was so."""

    after: str
    last: str
    keys: list[str]
    sizes: list[int]
    read: float

    def size(self, key: str) -> int | None:
        k = bisect.bisect_left(self.keys, key)
        return self.sizes[k] if k < len(self.keys) and self.keys[k] == key else None


class _Listing:
    """Sizes of the objects of a bucket, by the page: what lies between two keys."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.pages: deque[_Page] = deque(maxlen=PAGES)

    def size(self, key: str) -> int | None:
        """None: no such object."""
        if not key:
            return None
        for page in tuple(self.pages):
            if page.after < key <= page.last:
                size = page.size(key)
                if size is not None or time.monotonic() - page.read < FRESH_S:
                    return size
                with suppress(ValueError):  # another thread was faster
                    self.pages.remove(page)  # it may have come since
        return self._read(key).size(key)

    def _read(self, key: str) -> _Page:
        after = key[:-1]  # stands before the key, and right before it but for odd names
        with _answers():
            listing = obstore.list(bucket_at(self.bucket), offset=after, chunk_size=PAGE)
            batch = next(iter(listing), [])
        keys = [entry["path"] for entry in batch]
        if keys != sorted(keys):
            raise StorageError(f"{self.bucket}: lists its keys out of order")
        last = keys[-1] if len(keys) >= PAGE else "\U0010ffff"
        page = _Page(after, last, keys, [entry["size"] for entry in batch], time.monotonic())
        self.pages.append(page)
        return page


class _Copies:
    """Local copies of objects in a temporary folder of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{self.pid}-"))
        atexit.register(self.remove)
        self.lock = threading.Lock()
        self.sizes: OrderedDict[Path, int] = OrderedDict()  # least recently used first
        self.bytes = 0

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, bucket: str, key: str) -> Path:
        return self.folder / redacted(bucket).replace("://", "-") / key

    def fetched(self, bucket: str, key: str) -> Path:
        if ".." in key.split("/"):  # a log's own tables name its files
            raise OSError(errno.EINVAL, "leads out of its folder", f"{bucket}/{key}")
        path = self.place(bucket, key)
        with self.lock:
            if path in self.sizes:
                self.sizes.move_to_end(path)
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with part.open("xb") as file, _answers(RemotePath(bucket) / key):
                for chunk in obstore.get(bucket_at(bucket), key).stream():
                    file.write(chunk)
                size = file.tell()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        with self.lock:
            self.bytes += size - self.sizes.pop(path, 0)
            self.sizes[path] = size
            self._make_room()
        return path

    def _make_room(self) -> None:
        while self.bytes > COPIES_BYTES and len(self.sizes) > COPIES_KEPT:
            path, size = self.sizes.popitem(last=False)
            path.unlink(missing_ok=True)
            self.bytes -= size


_PREFIX = "autolabel-log-"


def _sweep() -> None:
    """Remove what killed processes left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            os.kill(int(folder.name.removeprefix(_PREFIX).split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            continue


_making = threading.Lock()
"""A cached function may run twice at a time."""


def _copies() -> _Copies:
    with _making:
        return _made()


@functools.lru_cache(maxsize=1)
def _made() -> _Copies:
    return _Copies()


def _listing(bucket: str) -> _Listing:
    with _making:
        return _listed(bucket)


@functools.lru_cache(maxsize=16)
def _listed(bucket: str) -> _Listing:
    return _Listing(bucket)


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such object", str(path))


@contextmanager
def _answers(path: RemotePath | None = None) -> Iterator[None]:
    try:
        with as_os_error():
            yield
    except FileNotFoundError as error:
        raise (_missing(path) if path else StorageError(str(error))) from error
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(str(error)) from error
