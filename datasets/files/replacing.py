"""Atomic, durable replacement of files; all results are written with it.

The new content is written beside the file, flushed to the disk, renamed over it, and the folder's
list of names is flushed. Whoever reads at any moment, and whoever reads after the machine died, has
the whole old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_TRIED_BYTES = 1 << 20
"""To learn whether a disk is full."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file beside ``path`` to write to; at the end it takes the path's place. Folders that
    are missing are made; a link is followed.

    It has the same ending, by which writers of pictures and arrays tell the format. If the body
    fails, the file before stays and nothing else is left. What is no file (``/dev/stdout``, a
    pipe) cannot be replaced and is given itself.

    Raises:
        OSError: it cannot be written; ``path`` is its ``filename``.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with naming_file(path):
            yield path
        return
    make_folder(path.parent)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with naming_file(path, partial), _asking(partial):
            yield partial
            sync(partial)
            os.replace(partial, path)  # noqa: PTH105 - the one place that does
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def naming_file(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Whatever the body writes to: its ``OSError`` names ``path`` where it names no other file
    than ``partial``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, partial, str(partial)):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def _asking(partial: Path) -> Iterator[None]:
    """A full disk as ``OSError`` with its number. torch raises ``RuntimeError`` about positions in
    a file, numpy counts values; after any error without a number a write is tried."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) or error.errno is None:
            try:
                with partial.open("ab") as file:
                    file.write(bytes(_TRIED_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as disk_error:
                raise OSError(disk_error.errno, disk_error.strerror) from error
        raise


def write_file(path: Path, data: bytes) -> None:
    """Write or replace a file. Raises ``OSError``."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write or replace a file of UTF-8 text. Raises ``OSError``."""
    write_file(path, text.encode())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, to last. Raises ``OSError``."""
    missing = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def sync(path: Path) -> None:
    """Push a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
